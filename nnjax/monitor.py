"""What a long computation tells while it runs: seconds of compiling and running apart, and a progress bar."""

from __future__ import annotations

import sys
from collections import defaultdict
from typing import Any, TextIO


class Monitor:
    """Collects wall time by name; silent. `sweep` and `fit` call it, a subclass may show it.

    Attributes:
      seconds: wall time by kind: ``compile``, ``run``.
      counts: how often each kind of thing happened: ``chunks``, ``resumed``, ``programs``, ``diverged``.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.counts: dict[str, int] = defaultdict(int)

    def begin(self, name: str, work: float) -> None:
        """A stage starts; ``work`` is its predicted seconds."""

    def spend(self, kind: str, seconds: float) -> None:
        """``seconds`` of wall time went to ``kind``."""
        self.seconds[kind] += seconds

    def count(self, kind: str, number: int = 1) -> None:
        """``number`` more of ``kind``."""
        self.counts[kind] += number

    def advance(self, work: float) -> None:
        """``work`` predicted seconds of the current stage are done."""

    def end(self) -> None:
        """The current stage is done."""


class ProgressBar(Monitor):
    """A `Monitor` that draws one bar a stage with the time left (rich); a line a stage where output is no terminal.

    Use as a context manager. The time left comes from the work predicted and the work done so far.
    """

    def __init__(self, file: TextIO | None = None) -> None:
        super().__init__()
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        console = Console(file=file or sys.stderr)
        self._lines = None if console.is_terminal else console
        self._bar = Progress(
            TextColumn("{task.description:<28}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._task: Any = None
        self._name, self._before = "", (0.0, 0.0)

    def __enter__(self) -> ProgressBar:
        self._bar.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._bar.stop()

    def begin(self, name: str, work: float) -> None:
        """A new bar."""
        self._name, self._before = name, (self.seconds["compile"], self.seconds["run"])
        self._task = self._bar.add_task(name, total=max(work, 1e-9))

    def advance(self, work: float) -> None:
        """The bar moves by its share."""
        if self._task is not None:
            self._bar.advance(self._task, work)

    def end(self) -> None:
        """The bar is full; without a terminal, its line is printed."""
        if self._task is not None:
            self._bar.update(self._task, completed=self._bar.tasks[self._task].total)
            self._task = None
        if self._lines:
            spent = [self.seconds[kind] - old for kind, old in zip(("compile", "run"), self._before, strict=True)]
            self._lines.print(f"{self._name}: compile {spent[0]:.1f} s, run {spent[1]:.1f} s", highlight=False)
