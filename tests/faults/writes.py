"""Writes that fail: by injection at every one of them, and on a file system that is really too small."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.faults import folders, injection, processes
from tests.faults.bench import Bench, Case, Row, each, remove
from tests.faults.folders import Oracle
from tests.faults.studies import QUICKEST, ROOT, Study

CODES = ("ENOSPC", "EIO", "EACCES")
CI_POINTS = 12


def called(module: str, words: list[str]) -> tuple[int, str, str]:
    """Run a study's command in this process; exit code, output and errors, a traceback where it fell over."""
    from experiments import command

    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = command.main(module, words)
        except SystemExit as stop:
            code = int(stop.code or 0)
        except BaseException:
            traceback.print_exc()
            code = 1
    return code, out.getvalue(), err.getvalue()


def injected(bench: Bench, study: Study, numbers: Sequence[int], done: set[str]) -> Iterator[Case]:
    """Fail at the first write that has not failed yet, look, run again and fail at the next, to the end; compare.

    The three errors come by turns; of the study that is quickest every write fails with each of them. A full disk stays
    full to the end of its run, the others fail once.
    """
    whole, place = bench.oracle(study), bench.place("writes", study)
    rounds = range(len(CODES)) if bench.full and study.name == QUICKEST else range(1)
    for first in rounds:
        if f"end {first}" in done:
            continue
        out, covered = place / f"out-{first}", place / f"covered-{first}"
        if not done:
            remove(out)
            covered.unlink(missing_ok=True)
        covered.touch()
        most = None if bench.full else CI_POINTS
        arguments = (study.module, processes.command(study, out), out, covered, whole, first, most)
        try:
            for name, wrong, seconds in processes.in_one(_failing, arguments, place / "streams"):
                yield Case(f"end {first}" if name == "end" else name, wrong, seconds)
        except RuntimeError as error:
            yield Case(f"end {first}", str(error), 0.0)


def _failing(
    module: str, words: list[str], out: Path, covered: Path, whole: Oracle, first: int, most: int | None
) -> Iterator[tuple[str, str, float]]:
    """In a process of its own: run after run, each with one failure more behind it."""
    if most is not None:  # a share of the writes, spread over the run
        names = list(dict.fromkeys(whole.events))
        covered.write_text("".join(f"{name}\n" for place, name in enumerate(names) if place % (len(names) // most)))
    while True:
        start, before = time.monotonic(), covered.read_text().splitlines()
        code = CODES[(first + len(before)) % len(CODES)]
        plan = {"root": str(out), "error": code, "covered": str(covered), "lasting": code == "ENOSPC"}
        watch = injection.Watch(plan)
        watch.install()
        try:
            ended, _, err = called(module, words)
        finally:
            watch.uninstall()
        points = covered.read_text().splitlines()
        if len(points) == len(before):
            wrong = f"the last run ended with {ended}: {err[-300:]}" if ended else folders.differences(out, whole)
            yield "end", wrong, time.monotonic() - start
            return
        wrong = folders.torn(out, whole) or failed(ended, err, code, points[-1])
        if ended == 0 and not wrong:
            wrong = folders.differences(out, whole, hidden=True)
            remove(out)  # it is complete; the next run comes by the writes after this one anew
        yield f"{code} at {points[-1]}", wrong, time.monotonic() - start


def failed(ended: int, err: str, code: str, event: str) -> str:
    """What is wrong with how a run ended one of whose writes failed, or nothing.

    What only cleans up, and cannot, may be passed over: then the run goes on to its end.
    """
    lines = err.strip().splitlines()
    last = lines[-1] if lines else ""
    if ended == 0 and event.startswith("unlink") and "Traceback (most" not in err:
        return ""
    if ended != 2 or "Traceback (most" in err:
        return f"ended with {ended}: {err[-300:]}"
    if os.strerror(getattr(injection.errno, code)).lower() not in last.lower():
        return f"does not say {code}: {last}"
    return ""


# A file system that is really too small

MOUNT = """
mount -t tmpfs -o size="$1"k none "$2" || exit 77
shift 2
"$@" --out "$FAULTS_DISK/out" >"$FAULTS_STREAMS/out" 2>"$FAULTS_STREAMS/err"; echo $? >"$FAULTS_STREAMS/code"
mount -o remount,size=64m "$FAULTS_DISK"
"$@" --out "$FAULTS_DISK/out" >"$FAULTS_STREAMS/out-2" 2>"$FAULTS_STREAMS/err-2"; echo $? >"$FAULTS_STREAMS/code-2"
cp -r "$FAULTS_DISK/out" "$FAULTS_STREAMS/left"
"""
LIMIT = """
size=$1; shift 2
(ulimit -f "$size"; "$@" --out "$FAULTS_DISK/out" >"$FAULTS_STREAMS/out" 2>"$FAULTS_STREAMS/err")
echo $? >"$FAULTS_STREAMS/code"
"$@" --out "$FAULTS_DISK/out" >"$FAULTS_STREAMS/out-2" 2>"$FAULTS_STREAMS/err-2"; echo $? >"$FAULTS_STREAMS/code-2"
cp -r "$FAULTS_DISK/out" "$FAULTS_STREAMS/left"
"""


def tiny_disk(bench: Bench, study: Study, numbers: Sequence[int], done: set[str]) -> Iterator[Case]:
    """A run on a tmpfs of a random size below what it needs, then with room; the mount is this process's alone.

    Where mounting is not allowed, a limit on the length of files (RLIMIT_FSIZE) stands in; the case's name says which.
    """
    whole, place = bench.oracle(study), bench.place("disk", study)
    needed = sum((whole.folder / name).stat().st_size for name in folders.names(whole.folder)) // 1024
    mounts = shutil.which("unshare") is not None and not subprocess.run(
        ["unshare", "--map-root-user", "--mount", "sh", "-c", 'mount -t tmpfs none "$0"', str(place)],
        capture_output=True, check=False,
    ).returncode  # fmt: skip
    largest = max((whole.folder / name).stat().st_size for name in folders.names(whole.folder)) // 1024

    def name(number: int) -> str:
        share = bench.rng("disk", study, number).uniform(0.02, 0.9)
        if mounts:
            return f"{number}: tmpfs of {max(4, int(share * needed))} KiB of {needed}"
        return f"{number}: files up to {max(1, int(share * largest))} KiB"

    def case(number: int) -> str:
        disk, streams = place / "disk", place / f"{number}-streams"
        shutil.rmtree(streams, ignore_errors=True)
        shutil.rmtree(disk, ignore_errors=True)
        disk.mkdir()
        streams.mkdir()
        kib = name(number).split(" KiB")[0].split()[-1]
        blocks = kib if mounts else str(2 * int(kib))  # sh counts blocks of 512 bytes
        shell = ["unshare", "--map-root-user", "--mount", "sh", "-c", MOUNT] if mounts else ["sh", "-c", LIMIT]
        words = [sys.executable, "-m", study.module, *study.options]
        changes = {"FAULTS_DISK": str(disk), "FAULTS_STREAMS": str(streams), "PYTHONPATH": processes.search_path()}
        subprocess.run(
            [*shell, "sh", blocks, str(disk), *words], cwd=ROOT, env=os.environ | changes, timeout=processes.PATIENCE,
            check=False, capture_output=True,
        )  # fmt: skip
        told = {name: (streams / name).read_text() for name in ("code", "err", "code-2", "err-2")}
        last = (told["err"].strip().splitlines() or [""])[-1]
        if told["code"].strip() != "2" or "Traceback (most" in told["err"]:
            return f"ended with {told['code'].strip()}: {told['err'][-300:]}"
        if not any(word in last.lower() for word in ("no space", "too large", "cannot be written")):
            return f"does not say that the disk is full: {last}"
        if told["code-2"].strip() != "0":
            return f"with room it ended with {told['code-2'].strip()}: {told['err-2'][-300:]}"
        wrong = folders.differences(streams / "left", whole)
        if not wrong:
            shutil.rmtree(streams)
        return wrong

    yield from each(numbers, done, case, name)


ROWS = [
    Row("writes", "ENOSPC, EIO or EACCES at the Nth call that writes (lock and probe too), by injection",
        "one sentence, exit code 2 (0 with the same hashes where only cleaning up failed), no torn visible file; "
        "resumes to the same hashes", None, None, injected),
    Row("disk", "a tiny real file system", "the same", 1, 24, tiny_disk),
]  # fmt: skip
