"""The weight-agnostic search study: plan, bad input, a tiny run and its stages, report, and what quick must show."""

import dataclasses
import importlib.util
import io
import sys
import types
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from PIL import Image

from experiments import _wann_search_champion as after
from experiments import _wann_search_reliability as reliability
from experiments import _wann_search_report as reporting
from experiments import _wann_search_worth as of_nets
from experiments import command
from experiments import wann_search as study
from nnjax import results, wann
from nnjax.statistics import Interval
from nnjax.wann import tasks, tuning

TINY = study.Config(
    tasks=("xor",), islands=1, migrate_every=0, seeds=2, population=32, generations=40, tournament=4, trials=3,
    shared_weights=(1.0, 2.0), champion_episodes=1, selection_episodes=2, training_generations=2, hidden=2,
    max_nodes=12,
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
    plans = study.plans(study.replace(config, tasks=tuple(known)))
    arms = [f"swing_up, {arm}" for arm in reliability.REFERENCES] if config.reference_seeds else []
    assert [plan.name for plan in plans] == ["swing_up", *arms, *known[1:]]
    assert all("environment steps" in str(plan) for plan in plans)
    assert all(min(p.compile_seconds, p.run_seconds, p.memory_bytes, p.result_bytes) > 0 for p in plans)
    assert all(p.memory_bytes > 2**30 for p in plans)  # which jax and compiling take


def test_presets_are_quicks_searches_beside_the_published_ones():
    quick, standard = (study.search_config(study.PRESETS[name], "swing_up") for name in ("quick", "standard"))
    assert dataclasses.replace(standard, generations=128, migrate_every=16, migrants=2) == quick
    assert study.PRESETS["standard"].reference_seeds == 20
    assert study.references(study.PRESETS["quick"]) == {}
    large, small = study.references(study.PRESETS["standard"]).values()
    assert large == wann.Config()  # whose defaults are those of Gaier and Ha

    def episodes(search):
        each = search.repetitions * len(search.shared_weights)
        return search.population * search.islands * search.generations * each

    assert episodes(standard) == episodes(large) == 3 * episodes(small)
    assert (small.population, small.selection.tournament, small.selection.elite) == (64, 4, 0.05)
    assert dataclasses.replace(small, population=192, selection=large.selection) == large
    assert dataclasses.replace(small.selection, tournament=8, elite=0.2) == large.selection
    full = study.PRESETS["full"]
    assert study.search_config(full, "swing_up") == standard
    alone = study.replace(full, reference_seeds=0)
    assert study.search_config(alone, "swing_up") == dataclasses.replace(large, migrants=4)
    assert [study.seeds_of(config, "swing_up") for config in (full, alone)] == [12, 3]
    walker = study.search_config(full, "biped")
    assert (walker.population, walker.generations, walker.repetitions, walker.enabled) == (480, 2048, 4, 0.25)
    assert (walker.selection.tournament, walker.islands, walker.shared_weights) == (16, 1, wann.SHARED_WEIGHTS)
    digits = study.search_config(full, "mnist16")
    assert (digits.population, digits.generations, digits.repetitions, digits.enabled) == (960, 4096, 1, 0.05)
    for name in ("pendulum", "acrobot", "xor", "digits"):  # of which nothing is published
        found = study.search_config(full, name)
        assert (found.islands, found.migrate_every, found.shared_weights, found.selection) == (
            8, 8, study.DENSE, quick.selection,
        )  # fmt: skip
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
    "weights": (["--shared-weights", "2", "1"], "shared_weights=(2.0, 1.0) must be ascending"),
    "nan": (["--elite", "nan"], "elite=nan must be at least 0"),
    "probability": (["--by-connections", "1.5"], "by_connections=1.5 must be a probability"),
    "migrants": (["--islands", "2", "--migrate-every", "4", "--migrants", "40"], "at most half of population=48"),
    "trials": (["--trials", "1"], "trials=1 must be at least 2"),
    "references": (["--reference-seeds", "-1"], "reference_seeds=-1 must be at least 0"),
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


# What is computed


def test_upright_counts_the_last_steps_of_swing_up_alone():
    task = tasks.SwingUp(steps=230)
    upright = of_nets.Upright(task)
    assert tasks.check_task(upright) == "control"
    params, key = task.params, jax.random.key(1)
    inner, _ = upright.reset(params, key)
    jax.tree.map(np.testing.assert_array_equal, inner, task.reset(params, key))

    def reward(theta, made):
        state = inner._replace(theta=theta, theta_dot=jnp.float32(0), sin=jnp.sin(theta), cos=jnp.cos(theta))
        (_, after_), value, _ = upright.step(params, (state, jnp.int32(made)), jnp.zeros(1))
        assert int(after_) == made + 1
        return float(value)

    assert reward(jnp.float32(0.25), 30) == 1  # step 31 of 230 is the first of the last 200
    assert reward(jnp.float32(0.25), 29) == 0
    assert reward(jnp.float32(-0.25 - 4 * np.pi), 100) == 1
    assert reward(jnp.float32(0.35), 100) == reward(jnp.float32(np.pi), 100) == 0


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("results")


@pytest.fixture(scope="module")
def tree(folder):
    """A tiny run of XOR, its stages kept."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)  # which take longer than running nets this small
    try:
        with results.Folder(folder / "out", {}) as out:
            return study.run(TINY, store=out.store)
    finally:
        jax.config.update("jax_disable_most_optimizations", before)


def test_a_tiny_run_fills_every_panel(tree):
    assert set(tree.children) == {"xor"}
    assert set(tree["xor"].children) == {"search", "population", "champion", "table", "accuracy"}
    assert dict(tree["xor/search"].sizes) == {"seed": 2, "island": 1, "generation": 40}
    assert dict(tree["xor/population"].sizes) == {"seed": 2, "net": 32}
    assert dict(tree["xor/table"].sizes) == {"net": 2, "column": 4, "trial": 3}
    assert tree["xor/champion"]["returns"].shape == (len(of_nets.SWEEP), 3)
    assert tree["xor/accuracy"]["column"].values.tolist() == list(after.COLUMNS)
    champion = wann.from_json(str(tree["xor/champion"]["net"].item()))
    assert tree["xor/champion"].attrs["connections"] == int(wann.connection_count(champion.genome))
    assert not np.isnan(tree["xor/table"]["returns"]).any()


def test_a_finished_stage_is_not_computed_again(tree, folder, monkeypatch):
    def never(*args, **kwargs):
        raise AssertionError("computed again")

    for name in ("choose_champion", "tune_shared", "train_weights", "four_columns", "accuracies"):
        monkeypatch.setattr(after.tuning, name, never)
    with results.Folder(folder / "out", {}) as out:
        again = study.run(TINY, store=out.store)
    assert results.digest(again) == results.digest(tree)


def test_a_run_is_reported_and_drawn_from_what_a_folder_holds(tree, tmp_path):
    results.write_tree(tmp_path / "results.nc", tree)
    read = results.read_tree(tmp_path / "results.nc")
    rows = study.report(read)
    assert {row.claim for row in rows} >= {"xor: size of the champion", "xor, champion: tuned shared"}
    assert all(isinstance(row.seeds, int) for row in rows)
    assert all(isinstance(field, str) for row in rows for name, field in row._asdict().items() if name != "seeds")
    assert {row.published for row in rows} == {"-", "> 0"}  # nothing is published on XOR
    for name, figure in study.plot(read).items():
        figure.savefig(tmp_path / f"{name}.png")
    assert set(study.files(read)) == {"champions/xor.json"}
    (tmp_path / "net.json").write_bytes(study.files(read)["champions/xor.json"])
    assert wann.load_champion(tmp_path / "net.json").space.inputs == 2


def test_a_champion_without_connections_is_one_sentence(monkeypatch):
    space = wann.Space(2, 1, 12)
    empty = wann.minimal(jax.random.key(0), space, 0.0)
    monkeypatch.setattr(after.tuning, "choose_champion", lambda *_, **__: after.tuning.Choice(empty, 0, 0))
    (_, task, search, key), budget = study._prepared(TINY)[0], after.Budget(2, 1, 2, 1, 2)
    with pytest.raises(command.BadInput, match=r"connects nothing; give the search more generations"):
        after.choose(None, task, search, key, budget, None)


# What is said, of made-up numbers


def swing_up(generations=200, population=64, *, tuned=720.0, upright=90, elite=600.0, lost=False):
    """A tree of swing-up as `study.run` makes it."""
    rng = np.random.default_rng(0)
    space = wann.Space(5, 1, 10)
    net = wann.minimal(jax.random.key(0), space, 1.0)
    shape, dims = (3, 2, generations), ("seed", "island", "generation")
    course = np.full(shape, elite) - 100 * np.arange(3)[:, None, None] - 300 * np.arange(2)[None, :, None]
    if lost:
        course[2] = -np.inf
    facts = {"population": population, "islands": 2, "repetitions": 3, "generations": generations,
             "shared_weights": [-2.0, -1.0, -0.5, 0.5, 1.0, 2.0], "seconds": 9.0, "timed_seconds": 2.0,
             "timed_steps": 6.8e7, "devices": 2}  # fmt: skip
    fields = {"elite_mean": course, "nodes": np.full(shape, 20.0), "connections": np.full(shape, 30.0)}
    search = xr.Dataset({name: (dims, value) for name, value in fields.items()},
                        {"seed": range(3), "generation": 1 + np.arange(generations)}, facts)  # fmt: skip
    mean, connections = rng.normal(500, 50, (3, 8)), rng.integers(5, 50, (3, 8))
    front = np.asarray(wann.fronts(np.stack([mean.ravel(), -connections.ravel()], 1))).reshape(3, 8)
    population_ = {"mean": mean, "connections": connections, "front": front}
    columns = [[50, 100.0], [515, 60.0], [tuned, 16.0], [931, 6.0]], [[20, 40.0], [7, 2.0], [8, 1.0], [918, 7.0]]
    noise = rng.normal(size=(2, 4, 100))
    noise -= noise.mean(-1, keepdims=True)
    returns = np.array(columns)[..., :1] + np.array(columns)[..., 1:] * noise
    steps, sweep = 60, np.array([-1.0, 0.5, 2.0])
    champion = {
        "returns": (("weight", "trial"), rng.normal(500, 50, (3, 100))),
        "net": ((), np.asarray(wann.to_json(net, space), object)),
        "tuned_returns": (("trial",), rng.normal(700, 9, 100)),
        "upright": (("weight", "trial"), np.arange(300).reshape(3, 100) > 150),
        "tuned_upright": (("trial",), np.arange(100) < upright), "action": (("step", "output"), np.zeros((steps, 1))),
        "reward": (("step",), np.ones(steps)), "alive": (("step",), np.arange(steps) < 50),
        "state_x": (("step",), np.linspace(0, 1, steps)), "state_theta": (("step",), np.linspace(3, 0, steps)),
    }  # fmt: skip
    facts = {
        "weight": 0.5,
        "upright_weight": 0.5,
        "depth": 1,
        "nodes": 7,
        "connections": 6,
        "dt": 0.01,
        "kind": "control",
    }
    return xr.DataTree.from_dict({
        "swing_up/search": search,
        "swing_up/population": xr.Dataset({name: (("seed", "net"), value) for name, value in population_.items()}),
        "swing_up/champion": xr.Dataset(champion, {"weight": sweep}, facts),
        "swing_up/table": xr.Dataset({"returns": (("net", "column", "trial"), returns)},
                                     {"net": ["searched", "fixed"], "column": list(after.COLUMNS)}, {"hidden": 10}),
    })  # fmt: skip


def said(tree):
    return {row.claim: row for row in study.report(tree)}


def test_columns_that_reach_the_published_ones_say_so():
    rows = said(swing_up(1100, 192))
    verdicts = {claim: row.verdict for claim, row in rows.items()}
    assert verdicts["swing_up, champion: random shared"] == "reached"
    assert verdicts["swing_up, champion: tuned shared"] == "reached"  # 720 +- 3.2 reaches 723
    assert verdicts["swing_up, champion: random weights"] == "not comparable"
    assert verdicts["swing_up, fully connected net of 10 hidden units: tuned weights"] == "not comparable"
    assert (
        verdicts["swing_up: with a random shared weight the champion beats the fully connected net by far"] == "holds"
    )
    assert verdicts["swing_up: tuning the champion's one shared weight helps"] == "holds"
    assert verdicts["swing_up: the champion balances the pole at some shared weight"] == "holds"
    assert rows["swing_up, champion: random shared"].published == "515 ± 58"
    speed = rows["swing_up: environment steps a second in the search, selection and checkpoints included"]
    assert (speed.measured, speed.verdict) == ("3.4e+07 in all, 1.7e+07 a device", "1000 times")


def test_searches_as_large_as_theirs_can_fail_and_smaller_ones_say_that_they_are():
    claims = "swing_up, champion: tuned shared", "swing_up: the champion balances the pole at some shared weight"
    # Three searches of two islands: together 230400 or 184320 nets, of 192 x 1024 that were published.
    full, short = (said(swing_up(n, 192, tuned=500.0, upright=79)) for n in (200, 160))
    assert [full[claim].verdict for claim in claims] == ["not reached", "fails"]
    assert [short[claim].verdict for claim in claims] == ["below, as is this search"] * 2
    above = said(swing_up(tuned=760.0))
    assert above["swing_up, champion: tuned shared"].verdict == "above"


def test_a_champion_no_better_than_a_fixed_net_fails():
    tree = swing_up()
    table = tree["swing_up/table"]
    table["returns"][0] = table["returns"][1].values
    rows = said(tree)
    for column in ("random shared", "tuned shared"):
        row = rows[f"swing_up: with a {column} weight the champion beats the fully connected net by far"]
        assert row.verdict == "fails"


def test_courses_stand_beside_the_reference_and_lost_searches_are_counted():
    rows = said(swing_up(elite=600.0, lost=True))
    row = rows["swing_up: elite mean at generation 128, populations of 64, 2 islands"]
    assert row.measured == "median 550, best 600; 1 lost"
    assert row.published == "442, one run, population 64, six weights"
    assert row.verdict == "2 of 3 reach it"
    tree = swing_up()
    tree["swing_up/search"].attrs["shared_weights"] = [-1.0, 1.0]
    others = said(tree)["swing_up: elite mean at generation 128, populations of 64, 2 islands"]
    assert others.verdict == "not comparable: other weights"
    assert rows["swing_up: elite mean at generation 200, populations of 64, 2 islands"].verdict == "no reference"


def test_the_best_of_several_runs_of_training_counts(monkeypatch):
    class Run:
        def __init__(self, mean):
            self.mean, self.weights = mean, np.full((2, 2), mean)

    asked = []

    def train(genome, task, weight, key, **options):
        asked.append((int(jax.random.key_data(key)[1]), options["episodes"], options["selection"]))
        return Run([3.0, 7.0, 5.0][len(asked) - 1])

    monkeypatch.setattr(after.tuning, "train_weights", train)
    budget = after.Budget(1, 1, 1, generations=2, hidden=2, training_episodes=4, training_runs=3)
    assert after.train(None, None, tasks.SwingUp(), 1.0, jax.random.key(0), budget)[0, 0] == 7.0
    assert len({key for key, *_ in asked}) == 3
    assert {tuple(rest) for _, *rest in asked} == {(4, after.RIVALS)}


def test_a_fully_connected_net_learns_by_gradient_only_from_weights_that_differ():
    task = tasks.by_name("digits")
    net, space = tuning.fixed_topology(task, (10,), "tanh")
    budget = after.Budget(trials=1, champion_episodes=1, selection_episodes=1, generations=300, hidden=10)
    right = []
    for start in (1.0, after.apart(net, jax.random.key(1))):
        trained = after.train(net, space, task, start, jax.random.key(0), budget)
        right.append(float(tuning.accuracies(net, task, trained[None], space=space)[0]))
    assert right[0] < 0.35  # its hidden units are one unit
    assert right[1] > 0.9


def test_difference_is_welchs():
    from scipy.stats import ttest_ind

    rng = np.random.default_rng(3)
    first, second = rng.normal(3, 1, 20), rng.normal(1, 5, 35)
    found = reporting.difference(first, second)
    expected = ttest_ind(first, second, equal_var=False).confidence_interval()
    np.testing.assert_allclose([found.low, found.high], [expected.low, expected.high])
    assert reporting.difference(np.ones(4), np.zeros(3)) == Interval(1, 1, 1)
    assert np.isnan(reporting.difference(np.ones(1), np.zeros(3))).all()


def test_figures_and_a_film_are_drawn(tmp_path):
    tree = swing_up(lost=True)
    figures = study.plot(tree)
    assert {name.removeprefix("swing_up_") for name in figures} == {
        "net", "weights", "course", "front", "table", "behavior"
    }  # fmt: skip
    for name, figure in figures.items():
        figure.savefig(tmp_path / f"{name}.png")
        assert all(ax.get_ylabel() for ax in figure.axes if ax.axison), name
    made = study.files(tree)
    assert made["figures/swing_up_film.gif"][:6] == b"GIF89a"
    film = Image.open(io.BytesIO(made["figures/swing_up_film.gif"]))
    assert film.n_frames == 13  # every fourth of 50 living steps
    assert film.info["duration"] == 40


@pytest.mark.slow
def test_quick_shows_what_the_study_claims(tmp_path):
    """The falsifiable checks, on the default command."""
    assert study.main(["--out", str(tmp_path / "quick")]) == 0
    rows = said(results.read_tree(tmp_path / "quick" / "results.nc"))
    for column in ("random shared", "tuned shared"):
        row = rows[f"swing_up: with a {column} weight the champion beats the fully connected net by far"]
        assert row.verdict == "holds", row
    assert rows["swing_up: tuning the champion's one shared weight helps"].verdict == "holds"
    assert not any(row.verdict in ("fails", "not reached") for row in rows.values())
    assert (tmp_path / "quick" / "figures" / "swing_up_film.gif").stat().st_size > 10_000
    assert wann.load_champion(tmp_path / "quick" / "champions" / "swing_up.json").space.inputs == 5
