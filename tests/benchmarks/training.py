"""What a training run, and a sweep of 64 runs, cost beside PyTorch, scikit-learn and the usual loop over batches.

Run: `python -m tests.benchmarks.training [--rounds N]` (about five minutes on two idle cores).

One run: the digits of scikit-learn, an MLP 64-128-128-10, batch 64, Adam 1e-3, 50 epochs, on one core. A sweep: that
net, 16 learning rates x 4 seeds, 2 epochs, for all contestants on all cores. Every contestant is a process of its own
(`tests.benchmarks.contestants`) with a thread for each core that it may use, prepared by a run that does not count;
then they take turns, round after round, and the others wait. Ratios are those of a round, so that a change of the
machine's speed meets both. A contestant that is not installed is left out.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from typing import Any

BENCHMARKS = {
    "one training run": (1, ("nnjax_run", "torch_run", "sklearn_run", "flax_run"), {
        "torch_run": 4.0, "sklearn_run": 3.7, "flax_run": 6.0,
    }),
    "a sweep of 64 runs": (0, ("nnjax_sweep", "torch_sweep", "sklearn_sweep", "torch_vmap_sweep"), {
        "torch_sweep": 8.0, "sklearn_sweep": 8.0, "torch_vmap_sweep": 4.5,
    }),
}  # fmt: skip
"""By name: cores, 0 for all; contestants, ours first; how many times as fast as each we want to be."""


class Contestant:
    """A process that runs a round when asked."""

    def __init__(self, name: str, cores: int):
        self.name, self.rounds = name, []
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.benchmarks.contestants", name, str(cores)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        self.ready = self._read()

    rounds: list[dict[str, float]]

    def _read(self) -> dict[str, float] | None:
        line = self._process.stdout.readline() if self._process.stdout else ""
        return json.loads(line) if line.strip() else None

    def run(self) -> None:
        """A round."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        done = self._read()
        assert done is not None, f"{self.name} has died"
        self.rounds.append(done)

    def end(self) -> None:
        """Let it go."""
        self._process.communicate()


def measured(name: str, rounds: int) -> list[Contestant]:
    """The contestants of a benchmark that are installed, after so many rounds."""
    cores, names, _ = BENCHMARKS[name]
    cores = cores or len(os.sched_getaffinity(0))
    there = [each for each in (Contestant(contestant, cores) for contestant in names) if each.ready]
    for _ in range(rounds):
        for each in there:
            each.run()
    for each in there:
        each.end()
    return there


def spread(values: list[float], digits: int) -> str:
    """Median, smallest and largest."""
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def table(name: str, found: list[Contestant]) -> str:
    """Markdown."""
    cores, _, wanted = BENCHMARKS[name]
    who = "one core" if cores == 1 else f"{len(os.sched_getaffinity(0))} cores"
    lines = [
        f"| {name}, {who} | seconds, median (range) | set-up and first run, s | accuracy | over nnjax | wanted |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    ours = [row["seconds"] for row in found[0].rounds]
    for each in found:
        seconds = [row["seconds"] for row in each.rounds]
        ratios = [theirs / mine for theirs, mine in zip(seconds, ours, strict=True)]
        ready: Any = each.ready
        ratio = spread(ratios, 2) if each is not found[0] else "1"
        lines.append(
            f"| {each.name} | {spread(seconds, 3)} | {ready['compile']:.1f} | {each.rounds[-1]['accuracy']:.3f} | "
            f"{ratio} | {wanted.get(each.name, '')} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure both and print their tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", choices=list(BENCHMARKS), default=None)
    chosen = parser.parse_args()
    for name in BENCHMARKS:
        if chosen.only in (None, name):
            print(table(name, measured(name, chosen.rounds)), flush=True)
            print()


if __name__ == "__main__":
    main()
