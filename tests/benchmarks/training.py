"""What training costs beside PyTorch, scikit-learn and loops over batches, and its part of the machine's rate.

`python -m tests.benchmarks` measures all of it and writes it into README.md; `python -m tests.benchmarks NAME` prints
one table.

One run: the digits of scikit-learn, an MLP 64-128-128-10, batch 64, Adam 1e-3, 50 epochs, on one core; and the same in
a fresh process. A sweep: that net, 16 learning rates x 4 seeds, 2 epochs, for all contestants on all cores.
Convolutions: a step of the small net of `tests.benchmarks.conv_in_scan` inside a scan. Every contestant is a process of
its own (`tests.benchmarks.contestants`), bound to as many cores as it has threads, prepared by a run that does not
count; then they take turns, round after round, and the others wait. Ratios are those of a round, so that a change of
the machine's speed meets both. A contestant that is not installed is left out.
"""

from __future__ import annotations

import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.benchmarks import contestants, pictures, recurrence

_PRODUCTS = 2 * (64 * 128 + 128 * 128 + 128 * 10)  # FLOP of a product with each matrix, an example
_EXAMPLE = 3 * _PRODUCTS - 2 * 64 * 128  # forward, both gradients; the first layer's input has none
_CONV_PRODUCTS = 2 * (28 * 28 * 25 * 16 + 14 * 14 * 25 * 16 * 32 + 1568 * 128 + 128 * 10)
_CONV_STEP = 128 * (3 * _CONV_PRODUCTS - 2 * 28 * 28 * 25 * 16)
_LANES = len(contestants.SWEEP_RATES) * contestants.SWEEP_SEEDS


@dataclass(frozen=True)
class Benchmark:
    """Who competes at what.

    Attributes:
      title: of its table.
      cores: 0 for all.
      contestants: ours first.
      flop: of the matrix products and convolutions of what is timed.
      wanted: how many times as fast as each we want to be.
      milliseconds: the unit of the table; else seconds.
      note: under the table.
    """

    title: str
    cores: int
    contestants: tuple[str, ...]
    flop: float
    wanted: dict[str, float] = field(default_factory=dict)
    milliseconds: bool = False
    note: str = ""


BENCHMARKS = {
    "run": Benchmark(
        "One training run", 1, ("nnjax_run", "torch_run", "sklearn_run", "flax_usual_run", "flax_tuned_run"),
        1797 * contestants.EPOCHS * _EXAMPLE, {"torch_run": 4.0, "sklearn_run": 3.7, "flax_usual_run": 6.0},
        note="The usual loop is that of Flax's MNIST example; the tuned one has NumPy batches and one jitted step.",
    ),
    "sweep": Benchmark(
        "A sweep of 64 runs", 0, ("nnjax_sweep", "torch_sweep", "sklearn_sweep", "torch_vmap_sweep"),
        1797 * contestants.SWEEP_EPOCHS * _LANES * _EXAMPLE,
        {"torch_sweep": 8.0, "sklearn_sweep": 8.0, "torch_vmap_sweep": 4.5},
        note="Ours without planning and compiling, which are in the first run.",
    ),
    "conv": Benchmark(
        "A step of the small convolutional net inside a scan", 1,
        ("nnjax_conv", "torch_conv", "torch_conv_channels_last", "plain_conv"), _CONV_STEP,
        {"torch_conv": 1 / 0.6, "plain_conv": 14.0}, milliseconds=True,
    ),
    "conv2": Benchmark(
        "The same step", 2, ("nnjax_conv", "torch_conv", "torch_conv_channels_last", "plain_conv"), _CONV_STEP,
        {"torch_conv": 1.0, "plain_conv": 14.0}, milliseconds=True,
        note="Where PyTorch is faster with channels last: its convolutions (oneDNN, blocked inside) come closer to the "
        "peak than XLA's, in which most of our step goes to the second layer.",
    ),
} | {
    f"{name}{cores}": Benchmark(
        f"A training step of {title}, batch {pictures.BATCH}", cores,
        (f"nnjax_{name}", f"torch_{name}", f"torch_{name}_channels_last"), pictures.FLOP[name], milliseconds=True,
    )
    for name, title in (("lenet", "LeNet on 28 x 28"), ("resnet20", "the residual net of depth 20 on 32 x 32 x 3"))
    for cores in (1, 2)
} | {
    f"lstm{cores}": Benchmark(
        f"An LSTM forward and back, batch {recurrence.BATCH}, {recurrence.TIME} steps, {recurrence.INPUTS} inputs, "
        f"{recurrence.UNITS} units", cores, tuple(recurrence.CONTESTANTS), recurrence.FLOP,
        dict.fromkeys(("torch_lstm", "torch_lstm_batch_first"), wanted), milliseconds=True,
    )
    for cores, wanted in ((1, 1 / 0.8), (2, 1 / 1.2))
}  # fmt: skip
"""By name; `cold` is apart, for its contestants are fresh processes."""

COLD_WANTED = 0.5


class Contestant:
    """A process that runs a round when asked."""

    def __init__(self, name: str, cores: int):
        self.name = name
        self.seconds: list[float] = []
        self.accuracy = math.nan
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.benchmarks.contestants", name, str(cores)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        ready = self._read()
        self.ready, self.first = ready is not None, (ready or {}).get("compile", math.nan)

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
        self.seconds.append(done["seconds"])
        self.accuracy = done["accuracy"]

    def end(self) -> None:
        """Let it go."""
        self._process.communicate()


def measured(benchmark: Benchmark, rounds: int) -> list[Contestant]:
    """The contestants that are installed, after so many rounds, and the matrix product."""
    cores = benchmark.cores or len(os.sched_getaffinity(0))
    names = (*benchmark.contestants, "matrix_product")
    there = [each for each in (Contestant(name, cores) for name in names) if each.ready]
    for _ in range(rounds):
        for each in there:
            each.run()
    for each in there:
        each.end()
    return there


def spread(values: Sequence[float], digits: int) -> str:
    """Median, smallest and largest."""
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def verdict(ratio: float, wanted: float | None) -> str:
    """What was wanted, and whether it is there."""
    return "" if wanted is None else f"{wanted:.3g}: {'reached' if ratio >= wanted else 'not reached'}"


def table(benchmark: Benchmark, found: Sequence[Contestant]) -> str:
    """Markdown."""
    cores = benchmark.cores or len(os.sched_getaffinity(0))
    unit, scale, digits = ("ms a step", 1e3, 1) if benchmark.milliseconds else ("s", 1.0, 3)
    *competing, product = found
    peak = 2 * contestants.PEAK_SIZE**3 / statistics.median(product.seconds) / 1e9
    ours = competing[0].seconds
    lines = [
        f"### {benchmark.title}, {cores} core{'s' if cores > 1 else ''} and thread{'s' if cores > 1 else ''}\n",
        f"| contestant | {unit}, median (range) | first run, s | accuracy | over nnjax | wanted | of the peak |",
        "|---|---:|---:|---:|---:|---|---:|",
    ]
    for each in competing:
        ratios = [theirs / mine for theirs, mine in zip(each.seconds, ours, strict=True)]
        rate = benchmark.flop / statistics.median(each.seconds) / 1e9
        accuracy = "" if math.isnan(each.accuracy) else f"{each.accuracy:.3f}"
        ratio = "1" if each is competing[0] else spread(ratios, 2)
        state = verdict(statistics.median(ratios), benchmark.wanted.get(each.name))
        seconds = spread([scale * s for s in each.seconds], digits)
        lines.append(
            f"| {each.name} | {seconds} | {each.first:.1f} | {accuracy} | {ratio} | {state} | "
            f"{100 * rate / peak:.0f} % |"
        )
    size = contestants.PEAK_SIZE
    lines.append(
        f"\n{benchmark.flop / 1e9:.3g} GFLOP in matrix products and convolutions. The peak is NumPy's {size} x {size} "
        f"float32 product in the same rounds: {peak:.0f} GFLOP/s. {benchmark.note}".rstrip()
    )
    return "\n".join(lines)


# Cold start


def cold(rounds: int) -> str:
    """One run in a fresh process, its programs in the compilation cache: Markdown."""
    with tempfile.TemporaryDirectory() as folder:
        import numpy as np

        digits = Path(folder) / "digits.npz"
        x, y = contestants.digits()
        np.savez(digits, x=x, y=y)
        environment = {
            **os.environ,
            "JAX_COMPILATION_CACHE_DIR": f"{folder}/cache",
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        }  # fmt: skip
        environment.pop("PYTHONDONTWRITEBYTECODE", None)  # a second start finds its sources compiled
        names = ("import jax", "nnjax", "torch", "sklearn")
        there = [name for name in names if _process(name, digits, environment)]  # fills the cache
        runs: dict[str, list[dict]] = {name: [] for name in there}
        for _ in range(rounds):
            for name in there:
                runs[name].append(_process(name, digits, environment) or {})
    return _cold_table(runs)


def _process(name: str, digits: Path, environment: dict[str, str]) -> dict | None:
    """What a process told, with its seconds by the clock of this one; None where it failed."""
    begin = time.perf_counter()
    command = [sys.executable, "-m", "tests.benchmarks.cold", name, str(digits)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    seconds = time.perf_counter() - begin
    return {**json.loads(done.stdout), "seconds": seconds} if done.returncode == 0 else None


def _cold_table(runs: dict[str, list[dict]]) -> str:
    bare = [run["seconds"] for run in runs["import jax"]]
    lines = [
        "### One training run in a fresh process, 1 core and thread, compilation cache warm\n",
        "| process | s, median (range) | beyond `import jax` alone | wanted | accuracy |",
        "|---|---:|---:|---|---:|",
    ]
    for name, rows in runs.items():
        seconds = [row["seconds"] for row in rows]
        beyond = [mine - least for mine, least in zip(seconds, bare, strict=True)]
        state = "reached" if statistics.median(beyond) <= COLD_WANTED else "not reached"
        lines.append(
            f"| {name} | {spread(seconds, 2)} | {'' if name == 'import jax' else spread(beyond, 2)} | "
            f"{f'{COLD_WANTED}: {state}' if name == 'nnjax' else ''} | "
            f"{'' if name == 'import jax' else format(rows[-1]['accuracy'], '.3f')} |"
        )
    stages = {
        stage: statistics.median([row["stages"][stage] for row in runs["nnjax"]])
        for stage in runs["nnjax"][0]["stages"]
    }
    told = ", ".join(f"{stage} {seconds:.2f}" for stage, seconds in stages.items())
    lines.append(f"\nStages of ours, medians in s: {told}. The data are read from a file by all.")
    return "\n".join(lines)


def section(name: str, rounds: int) -> str:
    """The table of one benchmark."""
    if name == "cold":
        return cold(rounds)
    return table(BENCHMARKS[name], measured(BENCHMARKS[name], rounds))


NAMES = ("run", "cold", "sweep", "conv", "conv2", "lenet1", "lenet2", "resnet201", "resnet202", "lstm1", "lstm2")
