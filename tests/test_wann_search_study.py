"""The weight-agnostic search study: its plan, bad input, a tiny run that resumes, its report, and what quick must show."""

import importlib.util
import sys
import types
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

from experiments import _wann_search_panels as panels
from experiments import _wann_search_report as reporting
from experiments import command
from experiments import wann_search as study
from nnjax import results, wann
from nnjax.statistics import Interval
from nnjax.wann import tasks

TINY = study.Config(
    tasks=("xor",), seeds=2, population=16, generations=3, tournament=2, trials=3, selection_episodes=2,
    training_generations=2, hidden=2, max_nodes=12,
)  # fmt: skip


# The command: plans and files of a study that is no sweep


@dataclass(frozen=True)
class Cost:
    """What a fake study costs."""

    compile_seconds: float = 3.0
    run_seconds: float = 4.0
    memory_bytes: int = 5 * 2**20
    result_bytes: int = 2**20

    def __str__(self):
        return "one long thing"


@dataclass(frozen=True)
class Nothing:
    """Of no field."""

    seed: int = 0
    """Seed."""


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """A study without sweeps, importable by name."""
    made = types.ModuleType("fake_study", "A study.")
    made.__file__ = str(tmp_path / "fake_study.py")
    (tmp_path / "fake_study.py").write_text("")
    made.Config, made.PRESETS = Nothing, {"quick": Nothing()}
    made.plans = lambda config: [Cost(), Cost()]
    made.run = lambda config, *, store, monitor: xr.DataTree.from_dict({"a": xr.Dataset({"b": 1.0})})
    made.plot = lambda tree: {}
    made.report = lambda tree: [results.Row("c", "q", "1", "-", 1, "-", "-", "-", "holds")]
    made.files = lambda tree: {"nets/b.txt": str(float(tree["a"]["b"])).encode()}
    monkeypatch.setitem(sys.modules, "fake_study", made)
    return made


def test_a_study_may_say_itself_what_it_costs(fake, capsys):
    assert command.main("fake_study", ["--dry-run"]) == 0
    said = capsys.readouterr().out
    assert said.count("one long thing") == 2
    assert "in all about 14 s (6 s compiling, unless cached), 5 MiB of memory" in said


def test_a_study_may_have_files_of_its_own(fake, tmp_path, capsys):
    out = tmp_path / "out"
    assert command.main("fake_study", ["--out", str(out)]) == 0
    assert (out / "nets" / "b.txt").read_bytes() == b"1.0"
    (out / "nets" / "b.txt").write_bytes(b"2.0")  # harmed: the folder is no longer complete
    assert command.main("fake_study", ["--out", str(out)]) == 0
    assert (out / "nets" / "b.txt").read_bytes() == b"1.0"
    capsys.readouterr()


# The plan


@pytest.mark.parametrize("preset", study.PRESETS)
def test_every_preset_can_be_planned(preset):
    config = study.PRESETS[preset]
    known = [name for name in config.tasks if name != "mnist16"]  # which needs its files
    (first, *rest) = study.plans(study.replace(config, tasks=tuple(known)))
    assert first.name == "swing_up"
    assert "environment steps" in str(first)
    assert [plan.name for plan in rest] == known[1:]
    assert all(min(p.compile_seconds, p.run_seconds, p.memory_bytes, p.result_bytes) > 0 for p in (first, *rest))


def test_presets_are_the_published_searches_or_say_that_they_are_less():
    standard = study.search_config(study.PRESETS["standard"], "swing_up")
    assert standard == wann.Config()  # whose defaults are those of Gaier and Ha
    assert study.PRESETS["standard"].seeds >= 20
    full = study.PRESETS["full"]
    assert study.search_config(full, "swing_up") == wann.Config()
    walker = study.search_config(full, "biped")
    assert (walker.population, walker.generations, walker.repetitions, walker.enabled) == (480, 2048, 4, 0.25)
    assert walker.selection.tournament == 16
    digits = study.search_config(full, "mnist16")
    assert (digits.population, digits.generations, digits.repetitions, digits.enabled) == (960, 4096, 1, 0.05)
    assert ("biped" in full.tasks) == (importlib.util.find_spec("gymnasium") is not None)


def test_searches_keep_their_keys_when_others_are_added():
    (few, after), (many, later) = (study.search_keys(jax.random.key(3), count) for count in (2, 5))
    np.testing.assert_array_equal(jax.random.key_data(few), jax.random.key_data(many)[:2])
    assert after == later
    assert len({*jax.random.key_data(many)[:, 0].tolist(), int(jax.random.key_data(later)[0])}) == 6


# Bad input

BAD = {
    "population": (["--population", "0"], "population=0 must be at least 1"),
    "seeds": (["--seeds", "0"], "seeds=0 must be at least 1"),
    "generations": (["--generations", "0"], "generations=0 must be at least 1"),
    "task": (["--tasks", "swing_pu"], "did you mean 'swing_up'?"),
    "no task": (["--tasks"], "tasks=() must name at least one"),
    "task twice": (["--tasks", "xor", "xor"], "each once"),
    "slots": (["--max-nodes", "6"], "max_nodes=6 must lie between 7"),
    "slots, planned": (["--max-nodes", "6", "--dry-run"], "max_nodes=6 must lie between 7"),
    "activation": (["--activations", "tnah"], "did you mean 'tanh'?"),
    "elite": (["--elite", "1"], "elite=1.0 must be a share"),
    "nan": (["--elite", "nan"], "elite=nan must be at least 0"),
    "probability": (["--by-connections", "1.5"], "by_connections=1.5 must be a probability"),
    "migrants": (["--islands", "2", "--migrate-every", "4", "--migrants", "40"], "at most half of population=64"),
    "trials": (["--trials", "1"], "trials=1 must be at least 2"),
    "preset": (["--preset", "quik"], "did you mean quick?"),
    "option": (["--populaton", "8"], "did you mean --population?"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_sentence_and_exit_2(name, capsys, tmp_path):
    arguments, words = BAD[name]
    assert study.main([*arguments, "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert words in said
    assert said.startswith("wann_search: ")
    assert said.count("\n") == 1
