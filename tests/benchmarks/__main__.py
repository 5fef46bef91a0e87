"""The benchmarks of training, written into README.md: `python -m tests.benchmarks [NAME ...] [--rounds N]`.

Without names all benchmarks of training run (`tests.benchmarks.training`) and their section of README.md is replaced;
with names those alone run, and what they give is printed. The names of the other files of this folder work too.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

from tests.benchmarks import training

README = Path(__file__).with_name("README.md")
BEGIN, END = "<!-- training: written by python -m tests.benchmarks -->", "<!-- training: end -->"
OTHERS = ("cluster", "conv_in_scan", "encoder", "input_share", "layer_statistics", "strategies", "wann_search")
_COMMON = ("jax", "jaxlib", "flax", "optax", "numpy", "torch", "scikit-learn")


def _version(package: str) -> str:
    try:
        return f"{package} {importlib.metadata.version(package)}"
    except importlib.metadata.PackageNotFoundError:
        return f"{package} not installed"


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())


def machine() -> str:
    """Processor, cores and versions."""
    cores, versions = len(os.sched_getaffinity(0)), ", ".join(_version(package) for package in _COMMON)
    return f"{cores} cores of an {_processor()}; Python {platform.python_version()}, {versions}"


def imports(rounds: int) -> str:
    """How long imports and a study's command line take, Markdown."""
    commands = {
        "`import jax`": ["-c", "import jax"],
        "`import nnjax`": ["-c", "import nnjax"],
        "`import nnjax.train`": ["-c", "import nnjax.train"],
        "`python -m experiments.double_descent --help`": ["-m", "experiments.double_descent", "--help"],
        "`python -m experiments.double_descent --dry-run`": ["-m", "experiments.double_descent", "--dry-run"],
    }
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(rounds):
        for name, command in commands.items():
            begin = time.perf_counter()
            subprocess.run([sys.executable, *command], capture_output=True, check=True)
            seconds[name].append(time.perf_counter() - begin)
    rows = [f"| {name} | {training.spread(values, 2)} |" for name, values in seconds.items()]
    return "\n".join(["### Start-up of processes\n", "| process | s, median (range) |", "|---|---:|", *rows])


def written(text: str, section: str) -> str:
    """``text`` with what stands between the marks replaced; the marks come at the end where there are none."""
    if BEGIN not in text:
        text = f"{text.rstrip()}\n\n{BEGIN}\n{END}\n"
    before, rest = text.split(BEGIN, 1)
    return f"{before}{BEGIN}\n{section}\n{END}{rest.split(END, 1)[1]}"


def main() -> None:
    """Measure, and write or print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join((*training.NAMES, "imports", *OTHERS)))
    parser.add_argument("--rounds", type=int, default=7)
    chosen = parser.parse_args()
    for name in chosen.names:
        if name in OTHERS:
            subprocess.run([sys.executable, "-m", f"tests.benchmarks.{name}"], check=True)
        elif name in (*training.NAMES, "imports"):
            print(imports(chosen.rounds) if name == "imports" else training.section(name, chosen.rounds), flush=True)
        else:
            parser.error(f"NAME={name!r} must be one of {', '.join((*training.NAMES, 'imports', *OTHERS))}")
    if chosen.names:
        return
    parts = []
    for name in training.NAMES:
        before = os.getloadavg()[0]
        found = training.section(name, chosen.rounds)
        parts.append(f"{found} Load {before:.1f} before, {os.getloadavg()[0]:.1f} after.")
        print(parts[-1], flush=True)
    parts.append(imports(min(chosen.rounds, 5)))
    head = (
        f"## Training\n\n`python -m tests.benchmarks --rounds {chosen.rounds}`, niceness {os.nice(0)}; medians of "
        f"{chosen.rounds} rounds in which the contestants take turns, ratios within a round. {machine()}."
    )
    README.write_text(written(README.read_text(), "\n\n".join([head, *parts])))


if __name__ == "__main__":
    main()
