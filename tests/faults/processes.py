"""Studies in processes of their own, to be killed: started as ``python -m``, or forked where Python has loaded already.

A forked process has loaded JAX, xarray and Matplotlib, none of nnjax's state and no study, and then does what
``python -m experiments.NAME`` does. It is real to the last signal and several seconds sooner.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

from tests.faults import injection
from tests.faults.studies import ROOT, Study

PATIENCE = 600.0  # s; a process that takes longer hangs
BUSY = 1.5  # a machine on which a process takes so many times its time on the processor is too busy to tell


def busy() -> float:
    """How many times its time on the processor a small process takes: one where nothing else runs; the middle of 3."""
    found = []
    for _ in range(3):
        start = time.monotonic()
        process = subprocess.Popen([sys.executable, "-I", "-S", "-c", "sum(range(2_000_000))"])
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        found.append((time.monotonic() - start) / max(used.ru_utime + used.ru_stime, 1e-3))
    return sorted(found)[1]


def used(process: int) -> float | None:
    """Seconds that a process has spent on the processor so far; None where that cannot be read."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    except (OSError, IndexError, ValueError):
        return None


class Outcome(NamedTuple):
    """What a process left: exit code (negative: the signal that ended it), its two streams, seconds, and when it ended.

    ``ended`` is `time.monotonic`, which all processes of a machine share.
    """

    code: int
    out: str
    err: str
    seconds: float
    ended: float

    @property
    def clean(self) -> bool:
        """No traceback, and nothing that Python says when it falls over."""
        return not any(word in self.err for word in ("Traceback (most", "Fatal Python error", "core dumped"))

    def said(self) -> str:
        """The last line of its errors, for the journal."""
        lines = [line for line in self.err.strip().splitlines() if line.strip()]
        return lines[-1][:300] if lines else ""


def command(study: Study, out: Path, *more: str) -> list[str]:
    """The arguments after ``python -m MODULE``."""
    return ["--out", str(out), *study.options, *more]


def environment(cache: Path) -> None:
    """What every process of this harness gets; before the first is started."""
    os.environ["XDG_CACHE_HOME"] = str(cache)  # compiled programs and fonts, warm after the first run
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    os.environ["COLUMNS"] = "100"
    os.environ.pop("NNJAX_DATA", None)


class Running:
    """A study at work. Arguments: its module, the words after it, a folder for its streams, and what it suffers."""

    def __init__(
        self, module: str, words: Sequence[str], streams: Path, plan: dict[str, Any] | None = None,
        *, fresh: bool = False, cwd: Path = ROOT,
    ):  # fmt: skip
        streams.mkdir(parents=True, exist_ok=True)
        self._files = streams / "out", streams / "err"
        for file in self._files:
            file.unlink(missing_ok=True)
        self.started = time.monotonic()
        self._process: Any = None
        if fresh:
            self._process = _fresh(module, words, self._files, plan, cwd)
        else:
            self._process = _context().Process(
                target=_study, args=(module, list(words), [str(f) for f in self._files], plan, str(cwd)), daemon=True
            )
            self._process.start()

    @property
    def pid(self) -> int:
        """Number of the process."""
        return self._process.pid

    def over(self) -> bool:
        """Whether it has ended."""
        return self._code() is not None

    def _code(self) -> int | None:
        if isinstance(self._process, subprocess.Popen):
            return self._process.poll()
        return self._process.exitcode

    def listens(self) -> bool:
        """Whether it has come to hear SIGTERM, as a study does almost from its start; True once it is over."""
        try:
            status = Path(f"/proc/{self.pid}/status").read_text()
            return bool(int(status.split("SigCgt:")[1].split()[0], 16) >> (signal.SIGTERM - 1) & 1)
        except (OSError, IndexError):
            return self.over() or time.monotonic() - self.started > 3

    def send(self, number: int) -> bool:
        """Send a signal; False where it had ended before."""
        if self.over():
            return False
        os.kill(self.pid, number)
        return True

    def wait(self, seconds: float = PATIENCE) -> Outcome:
        """What became of it; one that hangs is killed, which shows in its code."""
        if isinstance(self._process, subprocess.Popen):
            try:
                self._process.wait(seconds)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        else:
            self._process.join(seconds)
            if self._process.exitcode is None:
                self._process.kill()
                self._process.join()
        ended = time.monotonic()
        out, err = (file.read_text(errors="replace") if file.exists() else "" for file in self._files)
        return Outcome(int(self._code() or 0), out, err, ended - self.started, ended)


def _fresh(module: str, words: Sequence[str], files: Sequence[Path], plan: Any, cwd: Path) -> subprocess.Popen:
    changes = {"PYTHONPATH": search_path(Path(__file__).parent / "site")} | (
        {"NNJAX_FAULTS": injection.dumps(plan)} if plan else {}
    )
    out, err = (file.open("wb") for file in files)
    with out, err:
        return subprocess.Popen(
            [sys.executable, "-m", module, *words], stdout=out, stderr=err, stdin=subprocess.DEVNULL, cwd=cwd,
            env=os.environ | changes,
        )  # fmt: skip


def search_path(*first: Path) -> str:
    """Where a process that is started from nothing finds the studies."""
    return os.pathsep.join([*map(str, first), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])


_CONTEXT: Any = None


def _context() -> Any:
    """Where processes fork from; loads what takes long once."""
    global _CONTEXT
    if _CONTEXT is None:
        _CONTEXT = multiprocessing.get_context("forkserver")
        _CONTEXT.set_forkserver_preload(["tests.faults.preload"])
    return _CONTEXT


def _study(module: str, words: list[str], files: list[str], plan: dict[str, Any] | None, cwd: str) -> None:
    """In the forked process: its own streams, its faults, and then the study as a script."""
    redirect(files)
    os.chdir(cwd)
    sys.path[:0] = [cwd]
    sys.argv, sys.orig_argv = ["-m", *words], [sys.executable, "-m", module, *words]  # as Python does for -m
    if plan:
        injection.install(plan)
        from tests.faults import inside

        inside.install(plan)
    importlib.import_module("experiments")  # hears Ctrl-C from here on
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def redirect(files: Sequence[str]) -> None:
    """Send both streams of this process to files."""
    sys.stdout.flush()
    sys.stderr.flush()
    for number, file in enumerate(files, start=1):
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(descriptor, number)
        os.close(descriptor)


# Many runs in one process


def _many(work: Callable[..., Any], arguments: tuple, channel: Connection, files: list[str]) -> None:
    redirect(files)
    for each in work(*arguments):
        channel.send(each)
    channel.close()


def in_one(work: Callable[..., Any], arguments: tuple, streams: Path) -> Any:
    """Iterate over what the generator ``work(*arguments)`` yields in a process of its own.

    Raises:
      RuntimeError: the process died, with the end of what it said.
    """
    streams.mkdir(parents=True, exist_ok=True)
    files = [str(streams / name) for name in ("out", "err")]
    here, there = multiprocessing.Pipe(duplex=False)
    process = _context().Process(target=_many, args=(work, arguments, there, files), daemon=True)
    process.start()
    there.close()
    while True:
        try:
            before = last = used(process.pid)
            while not here.poll(PATIENCE):  # on a busy machine a process that says nothing may be at work all the same
                now = used(process.pid)
                if now is None or last is None or now - last < 1 or now - before > PATIENCE:
                    process.kill()
                    raise RuntimeError(f"a process said nothing for {PATIENCE:.0f} s")
                last = now
            yield here.recv()
        except EOFError:
            break
    process.join()
    if process.exitcode:
        last = Path(files[1]).read_text(errors="replace").strip().splitlines()[-3:]
        raise RuntimeError(f"a process ended with {process.exitcode}: {' | '.join(last)}")
