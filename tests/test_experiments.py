"""Studies as a user runs them: through their command line, in processes of their own."""

import ast
import contextlib
import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nnjax import results

ROOT = Path(__file__).parent.parent
TINY = [
    "--linear-draws",
    "4",
    "--spherical-draws",
    "2",
    "--features-n",
    "40",
    "--features-kinds",
    "relu",
    "--features-seeds",
    "2",
    "--samples-width",
    "20",
    "--samples-seeds",
    "2",
    "--mlp-n",
    "200",
    "--mlp-smaller-n",
    "100",
    "--mlp-widths",
    "2",
    "4",
    "8",
    "--mlp-seeds",
    "2",
    "--mlp-steps",
    "60",
    "--mlp-batch",
    "50",
    "--validation-n",
    "50",
]


def _environment(**changes):
    kept = {name: value for name, value in os.environ.items() if name != "NNJAX_DATA"}
    return {**kept, "PYTHONPATH": str(ROOT), **changes}


def _run(module, *arguments, cwd, timeout=300, **environment):
    command = [sys.executable, "-m", module, *map(str, arguments)]
    return subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, timeout=timeout, env=_environment(**environment)
    )


@pytest.fixture(scope="session")
def example(tmp_path_factory):
    """The study in CONTRIBUTING.md, as a module of its own in an empty folder."""
    folder = tmp_path_factory.mktemp("example")
    code = re.search(r"```python\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL)
    (folder / "learning_rates.py").write_text(code[1].replace("experiments.learning_rates", "learning_rates"))
    return folder


@pytest.fixture(scope="session")
def finished(example):
    """The example study, run once."""
    done = _run("learning_rates", "--out", "done", cwd=example)
    assert done.returncode == 0, done.stderr
    return example / "done", done


def test_the_example_study_fills_a_results_folder(finished):
    folder, done = finished
    assert "the largest rate still learns" in done.stdout
    assert "holds" in done.stdout
    for name in ("config.json", "provenance.json", "report.md", "results.nc", "manifest.json"):
        assert (folder / name).stat().st_size > 0, name
    for kind in ("png", "svg"):
        assert (folder / "figures" / f"learning_rates.{kind}").stat().st_size > 1000
    made = json.loads((folder / "provenance.json").read_text())
    assert made["seconds"]["compile"] > 0
    assert made["seconds"]["run"] > 0
    assert {"jax", "flax", "optax"} <= set(made["versions"])
    tree = results.read_tree(folder / "results.nc")
    assert dict(tree["rates"].sizes) == {"rate": 4, "seed": 5, "epoch": 5}
    assert results.digest(tree) == made["results"]


def test_the_same_command_again_has_nothing_to_do(finished):
    folder, _ = finished
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    again = _run("learning_rates", "--out", folder, cwd=folder.parent)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert again.returncode == 0
    assert "nothing was left to do" in again.stdout
    assert "the largest rate still learns" in again.stdout
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 20  # other load is not its fault


def test_a_run_is_the_same_whatever_else_was_imported(finished):
    """As in a notebook of two studies; and whether the study was started as a script or imported."""
    folder, _ = finished
    (folder.parent / "another_study.py").write_text("RATE = 0.1\n")
    code = f"import another_study, learning_rates, sys; sys.exit(learning_rates.main(['--out', {str(folder)!r}]))"
    again = subprocess.run([sys.executable, "-c", code], cwd=folder.parent, env=_environment(), capture_output=True,
                           text=True, timeout=300)  # fmt: skip
    assert again.returncode == 0, again.stderr
    assert "nothing was left to do" in again.stdout


def test_another_configuration_is_refused_and_force_new_starts_beside(finished):
    folder, _ = finished
    other = _run("learning_rates", "--out", folder, "--seeds", 2, cwd=folder.parent)
    assert other.returncode == 2
    assert "config.seeds 5 there, 2 now" in other.stderr
    assert other.stderr.count("\n") == 1
    new = _run("learning_rates", "--out", folder, "--seeds", 2, "--force-new", cwd=folder.parent)
    assert new.returncode == 0, new.stderr
    assert (folder.parent / f"{folder.name}-2" / "results.nc").exists()


def test_default_folders_tell_presets_and_changed_options_apart(example):
    plain = _run("learning_rates", "--dry-run", cwd=example)
    changed = _run("learning_rates", "--dry-run", "--seeds", 2, cwd=example)
    assert plain.stdout.strip().endswith("results/learning_rates-quick")
    assert re.search(r"results/learning_rates-quick-[0-9a-f]{8}$", changed.stdout.strip())
    assert "20 lanes (rate 4 x seed 5)" in plain.stdout
    assert not (example / "results").exists()


BAD = {
    "unknown option": (["--sedes", "3"], "unknown option --sedes; did you mean --seeds?"),
    "unknown preset": (
        ["--preset", "quik"],
        "unknown preset quik (allowed: quick, standard, full); did you mean quick?",
    ),
    "not a number": (["--seeds", "many"], "many"),
    "missing value": (["--out"], "--out needs a value"),
    "stray word": (["seeds"], "seeds"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_options_are_one_sentence_and_exit_2(example, name):
    arguments, text = BAD[name]
    done = _run("learning_rates", *arguments, cwd=example)
    assert done.returncode == 2
    assert text in done.stderr
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr


STUDY_BAD = {
    "negative width": (["--mlp-widths", "4", "-8"], "mlp_widths=-8 must be at least 1"),
    "zero seeds": (["--mlp-seeds", "0"], "mlp_seeds=0 must be at least 2"),
    "no noise levels": (["--noise"], "noise is empty"),
    "noise above one": (["--noise", "0", "1.5"], "must lie between 0 and 1"),
    "odd n": (["--features-n", "45", "210"], "multiples of 20"),
    "unknown kind": (["--features-kinds", "cosine"], "must be among relu, fourier"),
    "batch too large": (["--mlp-batch", "600"], "must be at most mlp_smaller_n=500"),
    "too many examples": (["--mlp-n", "5000", "--dry-run"], "more than the"),
    "unknown data": (["--mlp-data", "mnits", "--dry-run"], "must be among digits, mnist"),
    "no network": (["--features-data", "mnist", "--dry-run"], "could not be downloaded"),
}


@pytest.mark.parametrize("name", STUDY_BAD)
def test_bad_values_of_the_study_are_one_sentence_and_exit_2(tmp_path, name):
    arguments, text = STUDY_BAD[name]
    # No proxy, no name server: nothing can be reached, and the cache is empty.
    done = _run(
        "experiments.double_descent", *arguments, cwd=ROOT,
        NNJAX_DATA=str(tmp_path), https_proxy="http://127.0.0.1:9", HTTPS_PROXY="http://127.0.0.1:9",
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert text in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith("double_descent: ")


def test_corrupt_download_is_one_sentence(tmp_path):
    (tmp_path / "mnist").mkdir()
    (tmp_path / "mnist" / "train-images-idx3-ubyte.gz").write_bytes(b"not the file")
    done = _run(
        "experiments.double_descent", "--features-data", "mnist", "--dry-run", cwd=ROOT, NNJAX_DATA=str(tmp_path)
    )
    assert done.returncode == 2
    assert "train-images-idx3-ubyte.gz" in done.stderr
    assert "Traceback" not in done.stderr


def test_unwritable_out_is_one_sentence(example):
    (example / "a_file").write_text("in the way")
    done = _run("learning_rates", "--out", "a_file/results", cwd=example)
    assert done.returncode == 2
    assert "cannot be written" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_folder_with_something_else_in_it_is_refused(example):
    (example / "thesis").mkdir()
    (example / "thesis" / "chapter.txt").write_text("years of work")
    done = _run("learning_rates", "--out", "thesis", cwd=example)
    assert done.returncode == 2
    assert "chapter.txt" in done.stderr
    assert [p.name for p in (example / "thesis").iterdir() if p.name != "lock"] == ["chapter.txt"]


def _entered(folder):
    """Whether a finished chunk is in the folder's manifest."""
    manifest = folder / "manifest.json"
    return manifest.exists() and "chunks/" in manifest.read_text()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_is_quick_names_the_command_and_what_follows_resumes(example, number):
    out = example / f"stopped-{number}"
    slow = ("--seeds", "4000")
    command = [sys.executable, "-m", "learning_rates", *slow, "--out", str(out)]
    process = subprocess.Popen(command, cwd=example, env=_environment(), stderr=subprocess.PIPE, text=True,
                               stdout=subprocess.DEVNULL)  # fmt: skip
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not _entered(out):
        time.sleep(0.01)
    start = time.monotonic()
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert time.monotonic() - start < 5
    assert process.returncode == 128 + number
    assert f"python -m learning_rates --seeds 4000 --out {out}" in errors
    assert "Traceback" not in errors
    resumed = _run("learning_rates", *slow, "--out", out, cwd=example)
    assert resumed.returncode == 0, resumed.stderr
    computed, found = map(int, re.search(r"(\d+) chunks computed, (\d+) found finished", resumed.stdout).groups())
    assert found >= 1
    assert computed >= 1, "the stop must fall in mid-sweep for this test to say anything"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_is_heard_while_other_hosts_are_waited_for(example, number):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    place = f"127.0.0.1:{port},0/2"
    command = [sys.executable, "-m", "learning_rates", "--hosts", place, "--out", f"waited-{number}"]
    process = subprocess.Popen(command, cwd=example, env=_environment(), stderr=subprocess.PIPE, text=True,
                               stdout=subprocess.DEVNULL)  # fmt: skip
    try:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break  # it listens, so it waits for the other
            time.sleep(0.05)
        time.sleep(0.5)
        start = time.monotonic()
        process.send_signal(number)
        _, errors = process.communicate(timeout=10)
        assert time.monotonic() - start < 5
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 128 + number
    assert f"--hosts {place}" in errors
    assert "Traceback" not in errors
    assert not (example / f"waited-{number}").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_is_told_also_while_options_are_read(number):
    """The library that reads them has `sys.stderr` replaced then."""
    said = """
import contextlib, io, os, sys, time
from experiments import command
command.hear_stop("python -m mine")
with contextlib.redirect_stderr(io.StringIO()):
    os.kill(os.getpid(), int(sys.argv[1]))
    time.sleep(60)
"""
    done = subprocess.run([sys.executable, "-c", said, str(int(number))], cwd=ROOT, env=_environment(), text=True,
                          capture_output=True, timeout=60, check=False)  # fmt: skip
    assert done.returncode == 128 + number
    assert done.stderr.endswith("this resumes it:\n  python -m mine\n")


def test_a_second_process_on_the_folder_is_told_who_owns_it(example):
    with results.Folder(example / "owned", {"someone": "else"}):
        start = time.monotonic()
        done = _run("learning_rates", "--out", "owned", cwd=example)
        assert time.monotonic() - start < 20
    assert done.returncode == 2
    assert f"in use by process {os.getpid()}" in done.stderr


def test_the_list_names_every_study():
    done = _run("experiments", cwd=ROOT)
    assert done.returncode == 0
    studies = [p.stem for p in (ROOT / "experiments").glob("*.py") if "PRESETS =" in p.read_text()]
    assert studies
    for name in studies:
        line = ast.get_docstring(ast.parse((ROOT / "experiments" / f"{name}.py").read_text())).splitlines()[0]
        assert re.search(rf"{name} +{re.escape(line)}", done.stdout)
    wrong = _run("experiments", "double_decent", cwd=ROOT)
    assert wrong.returncode == 2
    assert "Traceback" not in wrong.stderr


def test_help_gives_every_option_with_its_default():
    done = _run("experiments.double_descent", "--help", cwd=ROOT)
    assert done.returncode == 0
    import experiments.double_descent as study

    for field in study.Config.__dataclass_fields__:
        assert f"--{field.replace('_', '-')}" in done.stdout
    assert "Updates of every net" in done.stdout


def test_the_snippet_in_the_readme_runs(tmp_path):
    code = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)[1]
    code += '\nassert dict(found.sizes) == {"width": 3, "rate": 3, "seed": 5, "epoch": 20}'
    code += '\nassert float(found["error"].isel(epoch=-1).mean("seed").min()) < 0.05'
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=_environment(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_a_killed_study_resumes_to_equal_results(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    first = _run("experiments.double_descent", *TINY, "--out", whole, cwd=ROOT)
    assert first.returncode == 0, first.stderr
    command = [sys.executable, "-m", "experiments.double_descent", *TINY, "--out", str(killed)]
    process = subprocess.Popen(
        command, cwd=ROOT, env=_environment(), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and len(list(killed.glob("chunks/*/*.npz"))) < 3:
        time.sleep(0.01)
    process.kill()
    process.wait()
    left = len(list(killed.glob("chunks/*/*.npz")))
    second = _run("experiments.double_descent", *TINY, "--out", killed, cwd=ROOT)
    assert second.returncode == 0, second.stderr
    computed, found = map(int, re.search(r"(\d+) chunks computed, (\d+) found finished", second.stdout).groups())
    assert found in (left, left - 1)
    assert computed > 0
    trees = [results.read_tree(folder / "results.nc") for folder in (whole, killed)]
    assert results.digest(trees[0]) == results.digest(trees[1])


@pytest.mark.slow
def test_quick_shows_what_the_study_claims(tmp_path):
    """The falsifiable checks of the study, on the default command."""
    start = time.monotonic()
    done = _run("experiments.double_descent", "--out", tmp_path / "quick", cwd=ROOT, timeout=1200)
    assert done.returncode == 0, done.stderr
    import experiments.double_descent as study
    from experiments import _double_descent_report as reporting

    tree = results.read_tree(tmp_path / "quick" / "results.nc")
    rows = {row.claim: row for row in study.report(tree)}
    verdicts = {claim: row.verdict for claim, row in rows.items()}
    features = tree["random_features"].to_dataset().isel(noise=-1).sel(kind="relu")
    for n in (200, 300):
        at = features["ratio"].values[features["test_error"].sel(n=n).mean("seed").argmax("ratio").item()]
        assert abs(at - 1) <= 0.05
        assert verdicts[f"random ReLU features, n = {n}: test error peaks at p = n (20 % label noise)"] == "reproduced"
        assert (
            verdicts[f"random ReLU features, n = {n}: error at the peak is at least twice that on both sides"]
            == "holds"
        )
    assert max(features["ratio"].diff("ratio").sel(ratio=slice(0, 2)).values) < 0.05 + 1e-9
    linear = tree["linear"].to_dataset()
    assert linear.sizes["seed"] >= 200
    assert abs(linear["p"] - 100).min() > 5
    for name in ("ridgeless", "misspecified"):
        z = abs(reporting.z_scores(linear, name))
        assert (z <= 3).mean() >= 0.95
        assert z.max() <= 5
    for words in (
        "no label noise: the widest net is best",
        "the widest net beats the peak",
        "the peak of test cross-entropy moves",
    ):
        (said,) = [verdict for claim, verdict in verdicts.items() if words in claim]
        assert said == "holds", words
    (side,) = [verdict for claim, verdict in verdicts.items() if "which side of the peak wins" in claim]
    assert side in ("narrow side", "wide side", "neither")
    assert not any(verdict in ("fails", "differs", "not reproduced") for verdict in verdicts.values()), verdicts
    assert int(sum(int(tree[g]["diverged"].sum()) for g in tree.children)) == 0
    print(f"quick took {time.monotonic() - start:.0f} s")
