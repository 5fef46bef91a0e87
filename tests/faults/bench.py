"""What the rows of the table share: studies with their uninterrupted runs, folders, and how a case is told."""

from __future__ import annotations

import math
import random
import shutil
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from tests.faults import folders, processes
from tests.faults.folders import Oracle
from tests.faults.processes import Outcome, Running
from tests.faults.studies import Study

REPEATS = 3  # of a case that was late on a machine too busy to tell


class Told(NamedTuple):
    """What came of a case: what was wrong (nothing where it passed), and in what part of the run it fell."""

    wrong: str
    where: str = ""


class Case(NamedTuple):
    """One case of a row: name within row and study, what was wrong, seconds, where it fell, how often repeated, and
    how many faults it has.

    ``where`` has a part for each fault that has one, with "; " between.
    """

    name: str
    wrong: str
    seconds: float
    where: str = ""
    repeats: int = 0
    faults: int = 1


class Late(Exception):
    """A limit in seconds was not kept: a failure, except where the machine is too busy to tell."""


class Row(NamedTuple):
    """A line of the table.

    Attributes:
      name: for ``--rows``.
      fault: as the table says it.
      passes: when a case passes.
      ci, full: faults of each column, shared out over the studies; None for all there are in every study.
      run: ``(bench, study, numbers, done) -> Case`` after `Case`; ``numbers`` are this study's cases (empty: all), and
        ``done`` the names that need no second time.
      suits: which studies the row is about.
      phases: parts of a run in each of which some case must have fallen.
    """

    name: str
    fault: str
    passes: str
    ci: int | None
    full: int | None
    run: Callable[[Bench, Study, Sequence[int], set[str]], Iterator[Case]]
    suits: Callable[[Study], bool] = lambda study: True
    phases: tuple[str, ...] = ()

    def missed(self, wheres: Sequence[str]) -> list[str]:
        """Parts of a run in which no case fell, though there were cases enough."""
        found = [part for where in wheres for part in where.split("; ")]
        return [phase for phase in self.phases if phase not in found] if len(wheres) >= len(self.phases) else []


@dataclass
class Bench:
    """Where studies are broken."""

    work: Path
    seed: int = 0
    full: bool = False
    paces: dict[str, float] = field(default_factory=dict)
    _oracles: dict[str, Oracle] = field(default_factory=dict)
    _lock: Any = field(default_factory=threading.Lock)

    def oracle(self, study: Study) -> Oracle:
        """The study's uninterrupted run, made at the first call."""
        with self._lock:
            if study.name not in self._oracles:
                self._oracles[study.name] = folders.oracle(study, self.work)
            return self._oracles[study.name]

    def rng(self, row: str, study: Study, number: int) -> random.Random:
        """Chance of a case: the same whatever else is run."""
        return random.Random(f"{self.seed} {row} {study.name} {number}")

    def place(self, row: str, study: Study) -> Path:
        """A folder for a row's cases of a study."""
        path = self.work / study.name / row
        path.mkdir(parents=True, exist_ok=True)
        return path

    def start(self, study: Study, out: Path, plan: dict[str, Any] | None = None, *more: str, **how: Any) -> Running:
        """Start the study on a folder; its streams go beside it."""
        streams = how.pop("streams", out.with_name(f"{out.name}-streams"))
        return Running(study.module, processes.command(study, out, *more), streams, plan, **how)

    def finish(self, study: Study, out: Path, excused: Collection[str] = ()) -> str:
        """Run the study on a folder to its end; what is wrong with that, or nothing."""
        return self.judged(study, out, self.start(study, out).wait(), excused)

    def judged(self, study: Study, out: Path, done: Outcome, excused: Collection[str] = ()) -> str:
        """What is wrong with a run that should have finished and left what an uninterrupted run leaves.

        Files that are ``excused`` may be missing or other.
        """
        if done.code or not done.clean:
            return f"resuming ended with {done.code}: {done.said()}"
        return folders.differences(out, self.oracle(study), excused=excused)

    def linger(self, study: Study, out: Path, running: Running, aim: str, share: float, extra: float = 0.0) -> None:
        """Wait for a part of a run, and then for a share of it; returns sooner where the run ends.

        Parts are seen by what is in the folder, and how fast this run went to its part tells how long the part takes
        now: on a busy machine nothing of a run is hit less often. ``extra``: seconds that this run starts later.
        """
        lengths, begun = list(self.oracle(study).lengths), running.started
        lengths[0] += extra
        number = folders.PHASES.index(aim)
        patience = begun + processes.PATIENCE
        while folders.reached(out) < number and not running.over() and time.monotonic() < patience:
            time.sleep(0.002)
        if number:
            begun = time.monotonic()
            self.paces[study.name] = (begun - running.started) / max(sum(lengths[:number]), 0.01)
        until = begun + share * lengths[number] * self.paces.get(study.name, 1.0)
        while time.monotonic() < until and not running.over():
            time.sleep(min(0.002, max(0.0, until - time.monotonic())))


def turn(numbers: Sequence[int], number: int, kinds: int) -> int:
    """Which of so many kinds a case is: by turns over the row, and by turns over each study's share of it as well."""
    step = numbers[1] - numbers[0] if len(numbers) > 1 else 1
    more = next(more for more in range(kinds + 1) if math.gcd(step + more, kinds) == 1)
    return (number + more * (number // step)) % kinds


def groups(numbers: Sequence[int], size: int) -> list[tuple[int, ...]]:
    """The numbers, so many at a time: what can be done to one run is done to one run."""
    return [tuple(numbers[start : start + size]) for start in range(0, len(numbers), size)]


def joined(group: tuple[int, ...]) -> str:
    """Name of a case that is a group."""
    return "+".join(map(str, group))


def remove(*paths: Path) -> None:
    """Remove folders and what lies beside them from their runs."""
    for path in paths:
        shutil.rmtree(path, ignore_errors=True)
        shutil.rmtree(path.with_name(f"{path.name}-streams"), ignore_errors=True)


def each(
    numbers: Sequence[Any], done: set[str], case: Callable[[Any], str | Told], name: Callable[[Any], str] = str
) -> Iterator[Case]:
    """Run the cases that are not done; an exception of the harness is a failure too.

    What is late while the machine is too busy to tell is repeated, up to `REPEATS` times. ``numbers`` may be `groups`
    of numbers, a case of several faults each.
    """
    for number in numbers:
        if name(number) in done:
            continue
        start = time.monotonic()
        for repeats in range(REPEATS + 1):
            try:
                told = case(number)
            except Late as late:
                told = str(late)
                busy = processes.busy()
                if busy > processes.BUSY and repeats < REPEATS:
                    continue
                told = f"{told} (a process takes {busy:.1f} times its time on the processor)"
            except Exception as error:  # told in the table, not lost with the rest of the column
                told = f"{type(error).__name__}: {error}"
            break
        told = told if isinstance(told, Told) else Told(told)
        faults = len(number) if isinstance(number, tuple) else 1
        yield Case(name(number), told.wrong, time.monotonic() - start, told.where, repeats, faults)
