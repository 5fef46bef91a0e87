"""What the rows of the table share: studies with their uninterrupted runs, folders, and how a case is told."""

from __future__ import annotations

import random
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from tests.faults import folders, processes
from tests.faults.folders import Oracle
from tests.faults.processes import Outcome, Running
from tests.faults.studies import Study


class Case(NamedTuple):
    """One case of a row: its name within row and study, what was wrong (nothing where it passed), and seconds."""

    name: str
    wrong: str
    seconds: float


class Row(NamedTuple):
    """A line of the table.

    Attributes:
      name: for ``--rows``.
      fault: as the table says it.
      passes: when a case passes.
      ci, full: cases of each column, shared out over the studies; None for all there are in every study.
      run: ``(bench, study, numbers, done) -> Case`` after `Case`; ``numbers`` are this study's cases (empty: all), and
        ``done`` the names that need no second time.
      suits: which studies the row is about.
    """

    name: str
    fault: str
    passes: str
    ci: int | None
    full: int | None
    run: Callable[[Bench, Study, Sequence[int], set[str]], Iterator[Case]]
    suits: Callable[[Study], bool] = lambda study: True


@dataclass
class Bench:
    """Where studies are broken."""

    work: Path
    seed: int = 0
    full: bool = False
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

    def finish(self, study: Study, out: Path) -> str:
        """Run the study on a folder to its end; what is wrong with that, or nothing."""
        return self.judged(study, out, self.start(study, out).wait())

    def judged(self, study: Study, out: Path, done: Outcome) -> str:
        """What is wrong with a run that should have finished and left what an uninterrupted run leaves."""
        if done.code or not done.clean:
            return f"resuming ended with {done.code}: {done.said()}"
        return folders.differences(out, self.oracle(study))


def remove(*paths: Path) -> None:
    """Remove folders and what lies beside them from their runs."""
    for path in paths:
        shutil.rmtree(path, ignore_errors=True)
        shutil.rmtree(path.with_name(f"{path.name}-streams"), ignore_errors=True)


def each(
    numbers: Sequence[int], done: set[str], case: Callable[[int], str], name: Callable[[int], str] = str
) -> Iterator[Case]:
    """Run the cases that are not done; an exception of the harness is a failure too."""
    for number in numbers:
        if name(number) in done:
            continue
        start = time.monotonic()
        try:
            wrong = case(number)
        except Exception as error:  # told in the table, not lost with the rest of the column
            wrong = f"{type(error).__name__}: {error}"
        yield Case(name(number), wrong, time.monotonic() - start)
