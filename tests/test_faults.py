"""The harness that breaks studies: that it sees what it should see, and a share of what it does to them."""

import importlib
import json
import os
import platform
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import pytest
import xarray as xr

from experiments import command
from nnjax import results
from nnjax.results import Folder
from nnjax.sweep import OutOfMemory
from tests.faults import bench, damage, folders, fuzz, injection, kills, matrix, processes, signals, studies, writes
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


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 8, 15])
@pytest.mark.parametrize("kinds", [2, 3, 4, 5, 6, 8])
def test_every_kind_of_case_comes_in_every_study(count, kinds):
    some = [studies.Study(str(number), "", ()) for number in range(count)]
    for numbers in matrix.shares(kinds * count, some).values():
        assert {bench.turn(numbers, number, kinds) for number in numbers} == set(range(kinds))


def test_in_every_study_both_signals_have_their_printed_command_run():
    for numbers in matrix.shares(100, [studies.find(name) for name in studies.names()]).values():
        kinds = [signals.kind(numbers, number) for number in numbers]
        assert {what for what, resumes in kinds if resumes} == {signal.SIGINT, signal.SIGTERM}
    for count in (5, 6):  # the CI column, and a trial on two studies
        some = [studies.find(name) for name in studies.names()[: count - 4]]
        aims = [kills.AIMS[bench.turn(numbers, number, 5)]
                for numbers in matrix.shares(count, some).values() for number in numbers]  # fmt: skip
        assert set(aims) == set(folders.PHASES)


def test_kills_of_one_run_begin_in_every_part_of_the_runs():
    some = [studies.find(name) for name in studies.names()]
    for numbers in matrix.shares(300, some).values():
        firsts = [group[0] for group in bench.groups(numbers, kills.KILLS)]
        assert {kills.AIMS[bench.turn(firsts, first, 5)] for first in firsts} == set(folders.PHASES)
    firsts = [numbers[0] for numbers in matrix.shares(5, some).values() if numbers]
    assert {kills.AIMS[bench.turn([first], first, 5)] for first in firsts} == set(folders.PHASES)


def test_numbers_are_dealt_to_runs_that_have_several_faults_each(tmp_path):
    assert bench.groups([0, 4, 8, 12, 16], 2) == [(0, 4), (8, 12), (16,)]
    seen = []
    cases = list(bench.each(bench.groups([0, 4, 8], 2), {"8"}, lambda group: seen.append(group) or "", bench.joined))
    assert [(case.name, case.faults) for case in cases] == [("0+4", 2)]
    assert seen == [(0, 4)]
    journal = matrix.Journal(tmp_path / "journal", {})
    [row] = [row for row in matrix.ROWS if row.name == "kill"]
    told = bench.Case("0+4+8", "", 1.0, "; ".join(folders.PHASES), 0, 3)
    for name in ("first_programs", "wann_search", "pooling"):
        journal.add(row, studies.find(name), told)
    assert matrix.failures(journal, [row]) == []
    assert "| 9 | 3 | 0 |" in matrix.table(journal, "full", [row], "")


# What goes wrong is seen


@pytest.fixture
def whole(tmp_path):
    """A finished folder, and an oracle of it."""
    with Folder(tmp_path / "whole", {"a": 1}) as folder:
        _fill(folder)
    found = folders.digests(tmp_path / "whole")
    return folders.Oracle(tmp_path / "whole", found, 1.0, ())


def _fill(folder, shift=0.0, seconds=1):
    for number in range(3):
        if folder.store("s").load(f"c{number}") is None:
            folder.store("s").save(f"c{number}", {"x": np.arange(100.0) + number + shift}, {})
    folder.write_tree("results.nc", xr.DataTree(xr.Dataset({"x": ("lane", np.arange(3.0))})))
    folder.write("provenance.json", json.dumps({"seconds": {"run": seconds}, "seed": 1}).encode())
    made = f"Made by `{folder.path}`: {seconds} s running (every chunk), {seconds} s compiling.\n"
    folder.write("report.md", f"{made}| a claim | {1.0 + shift} |\n".encode())
    folder.write("report.txt", b"done\n")
    folder.finish()


def test_other_numbers_are_seen(tmp_path, whole):
    with Folder(tmp_path / "other", {"a": 1}) as folder:
        _fill(folder, 1e-12)
    assert "different chunks/s/c0.npz" in folders.differences(tmp_path / "other", whole)
    assert "report.md" in folders.differences(tmp_path / "other", whole)
    (whole.folder / "report.txt").unlink()
    assert "missing report.txt" in folders.differences(whole.folder, whole)


@pytest.mark.parametrize("name", ["provenance.json", "report.md"])
def test_a_file_that_holds_times_must_be_there_and_right_apart_from_them(tmp_path, whole, name):
    with Folder(tmp_path / "other", {"a": 1}) as folder:
        _fill(folder, seconds=77)
        assert folders.differences(folder.path, whole) == ""
        path = folder.path / name
        folder.write(name, path.read_bytes().replace(b"1", b"2"))
        assert f"different {name}" in folders.differences(folder.path, whole)
        path.write_bytes(path.read_bytes() + b" ")
        assert f"not as entered {name}" in folders.differences(folder.path, whole)
        path.unlink()
        assert f"missing {name}" in folders.differences(folder.path, whole)
        folder.write("more.txt", b"more\n")
        assert "too many more.txt" in folders.differences(folder.path, whole)


def test_uninterrupted_runs_must_agree_about_every_chunk(whole):
    other = whole.files | {"chunks/s/c1.npz": "0" * 64}
    assert folders.disagreement(whole.files, dict(whole.files)) == ""
    assert folders.disagreement(whole.files, other) == "different chunks/s/c1.npz"


def test_torn_files_are_seen(whole):
    assert folders.torn(whole.folder, whole) == ""
    path = whole.folder / "chunks" / "s" / "c1.npz"
    path.write_bytes(path.read_bytes()[:-10])
    assert folders.torn(whole.folder, whole) == "torn: chunks/s/c1.npz"
    (whole.folder / "manifest.json").write_text("{")
    assert "manifest.json is torn" in folders.torn(whole.folder, whole)
    (whole.folder / "manifest.json").unlink()
    assert "there before the manifest: chunks/s/c0.npz" in folders.torn(whole.folder, whole)


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
    for _ in range(400):
        watch = _watched(tmp_path / "out", tmp_path, error="ENOSPC", lasting=True)
        watch.install()
        try:
            with Folder(tmp_path / "out", {"a": 1}) as folder:
                _fill(folder)
            if not watch.failing:
                return wrong
        except OSError:
            pass
        finally:
            watch.uninstall()
        wrong.append(folders.torn(tmp_path / "out", whole))
        if wrong[-1]:
            return wrong
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
    lock = ["mkdir .", "open .probe.tmp", "unlink .probe.tmp", "open lock", "truncate lock", "half of write lock",
            "write lock"]  # fmt: skip
    assert logs[0][: len(lock)] == lock
    start, chunks, rest = folders.phases(logs[0])
    assert logs[0][chunks.start].startswith("rename manifest.json")
    assert logs[0][rest.start] == "open .results.nc.tmp"
    assert (start.start, rest.stop) == (0, len(logs[0]))


def test_only_what_cleans_up_may_fail_without_a_word():
    said = "study: No space left on device at 'x'\n"
    assert writes.failed(2, said, "ENOSPC", "write lock") == ""
    assert "does not say EIO" in writes.failed(2, said, "EIO", "write lock")
    assert "ended with 0" in writes.failed(0, "", "ENOSPC", "fsync chunks/s/c0.npz")
    assert writes.failed(0, "", "ENOSPC", "unlink .results.nc.tmp") == ""
    assert "ended with 0" in writes.failed(0, "Traceback (most recent call last)", "EIO", "unlink x")


def test_a_run_that_ends_by_itself_with_an_error_is_no_late_kill():
    ended = processes.Outcome(1, "", "a bug", 1.0, 1.0)
    assert kills.unasked(ended, -9) == "it ended by itself with 1: a bug"
    assert [kills.unasked(ended._replace(code=code), -9) for code in (0, -9)] == ["", ""]


def test_how_far_a_run_has_come_is_seen(tmp_path, whole):
    assert folders.reached(tmp_path / "none") == 0
    assert folders.reached(whole.folder) == 3
    with Folder(tmp_path / "run", {}) as folder:
        assert folders.reached(folder.path) == 1
        (folder.path / ".results.nc.7.tmp.nc").touch()
        assert folders.reached(folder.path) == 2


@pytest.mark.parametrize(("loads", "tries", "wrong"), [([9, 9, 1], 3, True), ([9, 9, 9], 4, True), ([9], 2, False)])
def test_what_is_late_on_a_busy_machine_is_tried_again(monkeypatch, loads, tries, wrong):
    loads, seen = iter([*loads, 9, 9]), []
    monkeypatch.setattr(processes, "busy", lambda: next(loads))

    def case(number):
        seen.append(number)
        if wrong or len(seen) < tries:
            raise bench.Late("out after 9 s")
        return bench.Told("", "chunks")

    [told] = bench.each([4], set(), case)
    assert (len(seen), told.repeats, bool(told.wrong)) == (tries, tries - 1, wrong)
    assert told.where == ("" if wrong else "chunks")


def test_a_busy_machine_is_told_from_an_idle_one(monkeypatch):
    monkeypatch.setattr(processes.os, "wait4", lambda pid, how: (time.sleep(0.1), 0, _Used(0.1, 0.0)))
    assert processes.busy() < 10
    monkeypatch.setattr(processes.os, "wait4", lambda pid, how: (time.sleep(0.1), 0, _Used(0.005, 0.005)))
    assert processes.busy() > 10 * 0.9
    assert processes.used(os.getpid()) > 0.1


class _Used(NamedTuple):
    ru_utime: float
    ru_stime: float


def test_the_table_shows_where_cases_fell_and_fails_where_a_part_had_none(tmp_path):
    journal = matrix.Journal(tmp_path / "journal", {})
    [row] = [row for row in matrix.ROWS if row.name == "stale"]
    study = studies.find("first_programs")
    for number, phase in enumerate((0, 1, 1)):
        journal.add(row, study, bench.Case(str(number), "", 1.0, folders.PHASES[phase], 2 * number))
    assert matrix.failures(journal, [row]) == ["stale: no case of 3 fell into the part: results and report"]
    text = matrix.table(journal, "ci", [row], "")
    assert "| before the folder 1, chunks 2; 6 repeats of 2 cases (busy machine) |" in text
    assert "fell into the part: results and report" in text
    journal.add(row, study, bench.Case("3", "", 1.0, folders.PHASES[2]))
    assert matrix.failures(journal, [row]) == []


@pytest.mark.parametrize("kind", damage.KINDS)
def test_harm_is_done(whole, kind):
    chunks = damage.chunks_of(whole.folder)
    before = {path: path.read_bytes() for path in chunks}
    bad = damage.harm(random.Random(1), kind, chunks)
    assert len(bad) == (2 if kind == "swap" else 1)
    assert [path for path in chunks if path.read_bytes() != before[path]] == sorted(bad)


def test_harm_to_a_search_excuses_only_its_own_other_state():
    folder = Path("chunks/xor")
    assert damage.states([folder / "ab-1.npz"]) == {folder / "ab-0.npz", folder / "clock.npz"}
    assert damage.states([folder / "ab-2.npz", folder / "champion.npz", Path("chunks/iris/0.npz")]) == set()
    one, other, clock, chunk = (Path(f"out/chunks/xor/{name}.npz") for name in ("ab-0", "ab-1", "clock", "0"))
    assert damage.needless(Path("out"), [one, chunk]) == {"chunks/xor/ab-0.npz"}
    assert damage.needless(Path("out"), [one, other]) == set()  # then the search begins anew, and makes both
    assert damage.needless(Path("out"), [clock]) == {"chunks/xor/clock.npz", "report.txt"}
    assert damage.needless(Path("out"), [chunk]) == set()


def test_states_of_what_is_done_are_not_harmed(tmp_path):
    (tmp_path / "chunks/a").mkdir(parents=True)
    for name in ("seed0", "seed0-state-0", "seed1-state-1", "ab-0", "clock"):
        (tmp_path / f"chunks/a/{name}.npz").touch()
    assert [path.stem for path in damage.chunks_of(tmp_path)] == ["ab-0", "clock", "seed0", "seed1-state-1"]


def test_what_is_excused_alone_may_be_missing_or_other(tmp_path, whole):
    shutil.copytree(whole.folder, tmp_path / "other")
    (tmp_path / "other/chunks/s/c0.npz").unlink()
    assert folders.differences(tmp_path / "other", whole, excused={"chunks/s/c1.npz"}) == "missing chunks/s/c0.npz"
    assert folders.differences(tmp_path / "other", whole, excused={"chunks/s/c0.npz"}) == ""


def test_a_complaint_must_name_the_key():
    line = fuzz.Given(["--mlp-widths", "x"], ["mlp_widths"])
    fields = ["mlp_widths", "seeds"]
    assert fuzz.judged(line, fields, 2, "study: mlp_widths=x is no number\n") == ""
    assert "names none" in fuzz.judged(line, fields, 2, "study: invalid literal for int()\n")
    assert "2 lines" in fuzz.judged(line, fields, 2, "study: mlp_widths\nmore\n")
    assert fuzz.judged(line, fields, 2, "mlp: compile 0.1 s, run 2.0 s\nstudy: mlp_widths=x is no number\n") == ""
    assert "ended with 1" in fuzz.judged(line, fields, 1, "mlp_widths\n")
    assert "ended with" in fuzz.judged(line, fields, 2, "Traceback (most recent call last)\n")
    short = fuzz.Given(["--n", "x"], ["n"])
    assert "names none" in fuzz.judged(short, ["n", "seeds"], 2, "study: invalid literal in an option\n")
    assert fuzz.judged(short, ["n", "seeds"], 2, "study: n=x is no number\n") == ""
    several = fuzz.Given(["--activations", "x"], ["activations"])
    assert fuzz.judged(several, ["activations"], 2, "study: activation 'x' is not one of tanh\n") == ""
    assert "names none" in fuzz.judged(several, ["activations", "activation"], 2, "study: activation 'x'\n")


@pytest.mark.parametrize(
    ("said", "wrong"),
    [
        ("study: unknown option --sedes; did you mean --seeds?", ""),
        ("study: unknown option --sedes; did you mean --mlp-widths?", "nearest"),
        ("study: unknown option --sedes; --help lists them", "nearest"),
        ("study: --sedes is wrong", "nearest"),
        ("study: an option is wrong", "names none"),
        ("", "accepted"),
    ],
)
def test_a_complaint_must_propose_what_was_meant(said, wrong):
    given = fuzz.Given(["--sedes"], ["--sedes"], "--seeds")
    found = fuzz.judged(given, ["mlp_widths", "seeds"], 2 if said else 0, f"{said}\n")
    assert wrong in found if wrong else not found


def test_a_complaint_of_a_preset_must_propose_the_nearest():
    given = fuzz.Given(["--preset", "qiuck"], ["qiuck"], "quick", ("quick", "standard", "full"))
    sentence = "study: unknown preset qiuck (allowed: quick, standard, full); did you mean {}?\n"
    assert fuzz.judged(given, [], 2, sentence.format("quick")) == ""
    assert "nearest" in fuzz.judged(given, [], 2, sentence.format("full"))
    assert "accepted" in fuzz.judged(given, [], 0, "")


def test_command_lines_are_as_many_as_asked_for_and_all_different():
    module = importlib.import_module("experiments.first_programs")
    lines = fuzz.drawn(module.Config, list(module.PRESETS), 25, 3)
    assert len({tuple(line.words) for line in lines}) == len(lines) == 25
    assert len(fuzz.drawn(module.Config, list(module.PRESETS), 1, 3)) == 1


def test_a_line_that_is_run_takes_the_place_of_the_smallest_options():
    assert fuzz.without(["--seeds", "2", "3", "--n", "-1", "--rate", "5"], ["--n=4", "--seeds", "9"]) == ["--rate", "5"]
    plan = "panel\nin all about 1,012 s (3 s compiling, unless cached), 34 MiB of memory at a time, 2.0 MiB of disk\n"
    assert fuzz.estimate(plan) == (1009.0, 34.0)
    assert fuzz.estimate("nothing") == (np.inf, np.inf)


def test_the_time_limit_of_a_line_is_on_the_processor(monkeypatch):
    def work(module, words):
        start = time.monotonic()
        while time.monotonic() - start < 5:
            if words:
                time.sleep(0.01)
                if time.monotonic() - start > 0.4:
                    return 0, "", ""
        return 0, "", ""

    monkeypatch.setattr(fuzz, "called", work)
    assert fuzz.timed(0.2, "study", ["sleep"]) == (0, "", "")
    with pytest.raises(fuzz.TooLong):
        fuzz.timed(0.2, "study", [])


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


def _short(sweep, *words):
    error = OutOfMemory(*words)
    error.sweep = sweep
    return error


@pytest.mark.parametrize(
    ("error", "options", "says"),
    [
        (MemoryError(), (), "out of memory; what was computed is kept, run again to go on where there is more memory "
                            "free, or give smaller sizes, which --help lists\n"),
        (MemoryError("Unable to allocate 3 TiB"), (), "out of memory (Unable to allocate 3 TiB); what was computed"),
        (_short("mlp_smaller", "out of memory with 8 lanes side by side", "pass width=2 to sweep"), (),
         "mlp_smaller: out of memory with 8 lanes side by side; what was computed is kept, run again to go on where "
         "there is more memory free, or give smaller --mlp-n, --mlp-smaller-n, --mlp-widths, --mlp-batch\n"),
        (_short("random_features", "one lane needs 9 MiB", "raise memory_budget"), ("--preset", "full"),
         "or give --preset quick or smaller --features-n\n"),
        (_short("unheard", "one lane needs 9 MiB", "raise memory_budget"), (), "or give smaller sizes, which --help"),
        (jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory\nmore"), (), "out of memory; what was computed"),
    ],
    ids=["bare", "with words", "options", "preset", "no options", "JAX"],
)  # fmt: skip
def test_short_memory_is_one_sentence_with_options_that_help(tmp_path, monkeypatch, capsys, error, options, says):
    study = importlib.import_module("experiments.double_descent")

    def run(config, **options):
        raise error

    monkeypatch.setattr(study, "run", run)
    assert command.main("experiments.double_descent", ["--out", str(tmp_path / "out"), *options]) == 2
    said = capsys.readouterr().err
    assert says in said
    assert said.count("\n") == 1
    assert "width=" not in said


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
    faults = {row.name: sum(e["faults"] for e in entries if e["row"] == row.name) for row in matrix.ROWS}
    for row in matrix.ROWS:
        assert faults[row.name] >= (row.ci or 10), faults
