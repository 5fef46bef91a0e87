"""The harness that breaks studies: that it sees what it should see, and a share of what it does to them."""

import importlib
import json
import os
import platform
import random
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from experiments import command
from nnjax import results
from nnjax.results import Folder
from tests.faults import damage, folders, fuzz, injection, matrix, studies
from tests.faults.processes import Running

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("name", studies.names())
def test_every_study_has_smallest_options(name):
    study = studies.find(name)
    module = importlib.import_module(study.module)
    _, config = command._parse(module, study.module, ["--out", "x", *study.options])
    assert config != module.PRESETS["quick"]


def test_unknown_studies_are_named():
    with pytest.raises(ValueError, match="no study 'double_decent'"):
        studies.find("double_decent")
    with pytest.raises(ValueError, match="no smallest options"):
        studies.find("experiments.command")
    assert studies.find("experiments.command:--seeds 2 --name 'a b'").options == ("--seeds", "2", "--name", "a b")


def test_the_table_has_the_rows_and_counts_that_are_promised():
    counts = {row.name: (row.ci, row.full) for row in matrix.ROWS}
    assert counts == {
        "kill": (5, 300), "points": (None, None), "signals": (3, 100), "fuzz": (100, 1000), "writes": (None, None),
        "disk": (1, 24), "damage": (20, 500), "rivals": (3, 100), "stale": (3, 100), "lanes": (5, 50),
        "memory": (1, 20),
    }  # fmt: skip
    some = [studies.find(name) for name in studies.names()]
    for count in (3, 100):
        dealt = matrix.shares(count, some)
        assert sorted(n for numbers in dealt.values() for n in numbers) == list(range(count))
        assert max(map(len, dealt.values())) - min(map(len, dealt.values())) <= 1


# What goes wrong is seen


@pytest.fixture
def whole(tmp_path):
    """A finished folder, and an oracle of it."""
    with Folder(tmp_path / "whole", {"a": 1}) as folder:
        _fill(folder)
    found = folders.digests(tmp_path / "whole")
    return folders.Oracle(tmp_path / "whole", found, 1.0, ())


def _fill(folder, shift=0.0):
    for number in range(3):
        if folder.store("s").load(f"c{number}") is None:
            folder.store("s").save(f"c{number}", {"x": np.arange(100.0) + number + shift}, {})
    folder.write("report.txt", b"done\n")
    folder.finish()


def test_other_numbers_are_seen(tmp_path, whole):
    with Folder(tmp_path / "other", {"a": 1}) as folder:
        _fill(folder, 1e-12)
    assert "different chunks/s/c0.npz" in folders.differences(tmp_path / "other", whole)
    (whole.folder / "report.txt").unlink()
    assert "missing report.txt" in folders.differences(whole.folder, whole)


def test_torn_files_are_seen(whole):
    assert folders.torn(whole.folder, whole) == ""
    path = whole.folder / "chunks" / "s" / "c1.npz"
    path.write_bytes(path.read_bytes()[:-10])
    assert folders.torn(whole.folder, whole) == "torn: chunks/s/c1.npz"
    (whole.folder / "manifest.json").write_text("{")
    assert "manifest.json is torn" in folders.torn(whole.folder, whole)


def _watched(out, tmp_path, **plan):
    (tmp_path / "covered").touch()
    return injection.Watch({"root": str(out), "covered": str(tmp_path / "covered"), **plan})


def test_a_write_that_is_not_atomic_is_caught_in_the_act(tmp_path, whole, monkeypatch):
    """The control: with such a write the harness must fail."""

    def careless(path, content):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            file.write(content)
        return results.hashlib.sha256(content).hexdigest()

    monkeypatch.setattr(results, "write_bytes", careless)
    assert any(_fail_everywhere(tmp_path, whole))


def test_every_write_may_fail(tmp_path, whole):
    wrong = _fail_everywhere(tmp_path, whole)
    assert len(wrong) > 40
    assert not any(wrong)
    assert folders.differences(tmp_path / "out", whole) == ""


def _fail_everywhere(tmp_path, whole):
    """Fail at every call that writes, one after the other; what was wrong with the folder after each."""
    wrong = []
    for _ in range(300):
        watch = _watched(tmp_path / "out", tmp_path, error="ENOSPC", lasting=True)
        watch.install()
        try:
            with Folder(tmp_path / "out", {"a": 1}) as folder:
                _fill(folder)
            return wrong
        except OSError:
            wrong.append(folders.torn(tmp_path / "out", whole))
            if wrong[-1]:
                return wrong
        finally:
            watch.uninstall()
    raise AssertionError("it never came to the end")


def test_events_have_the_same_names_in_every_run(tmp_path):
    logs = []
    for run in ("a", "b"):
        watch = _watched(tmp_path / run, tmp_path, log=str(tmp_path / f"log-{run}"))
        watch.install()
        try:
            with Folder(tmp_path / run, {"a": 1}) as folder:
                _fill(folder)
        finally:
            watch.uninstall()
        logs.append([event for _, event in injection.read_log(tmp_path / f"log-{run}")])
    assert logs[0] == logs[1]
    assert "rename chunks/s/c1.npz" in logs[0]
    assert "half of write .manifest.json.tmp (1. after chunks/s/c1.npz)" in logs[0]
    assert not any(re.search(r"\d{3,}", event) for event in logs[0])


@pytest.mark.parametrize("kind", damage.KINDS)
def test_harm_is_done(whole, kind):
    chunks = damage.chunks_of(whole.folder)
    before = {path: path.read_bytes() for path in chunks}
    bad = damage.harm(random.Random(1), kind, chunks)
    assert len(bad) == (2 if kind == "swap" else 1)
    assert [path for path in chunks if path.read_bytes() != before[path]] == sorted(bad)


def test_a_complaint_must_name_the_key():
    line = fuzz.Given(["--mlp-widths", "x"], ["mlp_widths"])
    fields = ["mlp_widths", "seeds"]
    assert fuzz.judged(line, fields, 2, "study: mlp_widths=x is no number\n") == ""
    assert "names none" in fuzz.judged(line, fields, 2, "study: invalid literal for int()\n")
    assert "2 lines" in fuzz.judged(line, fields, 2, "study: mlp_widths\nmore\n")
    assert "ended with 1" in fuzz.judged(line, fields, 1, "mlp_widths\n")
    assert "ended with" in fuzz.judged(line, fields, 2, "Traceback (most recent call last)\n")
    wrong = fuzz.Given(["--sedes"], ["--sedes"], True)
    assert fuzz.judged(wrong, fields, 2, "study: unknown option --sedes; did you mean --seeds?\n") == ""
    assert "nearest" in fuzz.judged(wrong, fields, 2, "study: unknown option --sedes\n")


# What the harness made the product mend


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_is_heard_while_python_still_imports(tmp_path, number):
    words = ["--dry-run", "--out", str(tmp_path / "out")]
    running = Running("experiments.first_programs", words, tmp_path / "streams", fresh=True)
    while not running.listens():
        time.sleep(0.002)
    assert running.send(number)
    ended = running.wait(60)
    assert ended.code == 128 + number, ended.err
    assert ended.clean
    assert f"python -m experiments.first_programs --dry-run --out {tmp_path / 'out'}" in ended.err


def test_who_has_just_taken_a_folder_is_waited_for(tmp_path):
    """A lock still tells of its last owner, long dead, when the next has it and has not yet said so."""
    fcntl = pytest.importorskip("fcntl")
    (tmp_path / "run").mkdir()
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    with (tmp_path / "run" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write(f"process {dead.stdout.strip()} on {platform.node()}\n")
        lock.flush()

        def speak():
            lock.seek(0)
            lock.write(f"process {os.getpid()} on {platform.node()}\n")
            lock.truncate()
            lock.flush()

        timer = threading.Timer(0.15, speak)
        timer.start()
        with pytest.raises(results.ResultsError, match=f"in use by process {os.getpid()} on"):
            Folder(tmp_path / "run", {"a": 1})
        timer.join()


def test_words_that_belong_to_no_option_are_told_with_the_one_before(capsys):
    assert command.main("experiments.first_programs", ["--iris-seeds", "8", "nan", "--dry-run"]) == 2
    assert "unrecognized nan after --iris-seeds, which takes no further value" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (MemoryError(), "out of memory; what was computed is kept, run again with smaller sizes"),
        (MemoryError("Unable to allocate 3 TiB"), "out of memory (Unable to allocate 3 TiB); what was computed"),
        (MemoryError("out of memory with 8 lanes side by side; pass width=2 to sweep"), "pass width=2 to sweep"),
        (jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory\nmore"), "out of memory; what was computed"),
    ],
)
def test_short_memory_is_one_sentence(tmp_path, monkeypatch, capsys, error, says):
    study = importlib.import_module("experiments.first_programs")

    def run(config, **options):
        raise error

    monkeypatch.setattr(study, "run", run)
    assert command.main("experiments.first_programs", ["--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert says in said
    assert said.count("\n") == 1


# The first column, on the study of CONTRIBUTING.md


@pytest.mark.slow
def test_a_study_holds_up(tmp_path):
    code = re.search(r"```python\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL)[1]
    (tmp_path / "learning_rates.py").write_text(code.replace("experiments.learning_rates", "learning_rates"))
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults", "--studies", "learning_rates:--rates 0.01 0.1 --seeds 2", "--jobs", "2",
         "--out", tmp_path / "table.md", "--work", tmp_path / "work"],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=1800, check=False,
    )  # fmt: skip
    print(done.stdout)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    entries = [json.loads(line) for line in (tmp_path / "work" / "journal.jsonl").read_text().splitlines()]
    cases = {row.name: sum(entry["row"] == row.name for entry in entries) for row in matrix.ROWS}
    for row in matrix.ROWS:
        assert cases[row.name] >= (row.ci or 10), cases
