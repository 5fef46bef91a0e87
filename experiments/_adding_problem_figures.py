"""Figures of the adding problem: views of its labelled results."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from experiments._adding_problem_lanes import CELLS
from experiments._adding_problem_report import GUESSING, LEARNED, errors, gradient, panels
from nnjax.plotting import COLORS, figure, log_axis, style, theory

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLOR = dict(zip(CELLS, (COLORS[1], COLORS[4], COLORS[2], COLORS[0], COLORS[3]), strict=True))
_NAME = {
    "rnn": "RNN", "rnn orthogonal": "RNN, orthogonal start", "relu identity": "ReLU RNN, identity start",
    "lstm": "LSTM", "gru": "GRU",
}  # fmt: skip


def plot(results: xr.DataTree) -> dict[str, Figure]:
    """Every figure of the study, by name."""
    some = panels(results)
    with style():
        made, axes = figure(len(some), 3, width=3.9)
        for row, (length, panel) in zip(axes, some.items(), strict=True):
            _errors(row[0], panel, length)
            _gradients(row[1], panel, "start", "before training")
            _gradients(row[2], panel, "end", "after training")
        handles, labels = axes[0, 0].get_legend_handles_labels()
        first = next(iter(some.values()))
        note = f"{first.attrs['units']} units; lines: median of {first.sizes['seed']} seeds, bands: all seeds"
        if first.sizes["rate"] > 1:
            note += "; learning rates chosen on validation sequences"
        made.legend(handles, labels, loc="outside lower center", ncols=6, title=note, title_fontsize=8)
        return {"adding_problem": made}


def _spread(axes: Axes, x: np.ndarray, samples: np.ndarray, cell: str) -> None:
    """Median and range: errors and norms of several seeds differ by orders of magnitude."""
    axes.plot(x, np.median(samples, axis=0), color=_COLOR[cell], label=_NAME[cell])
    axes.fill_between(x, samples.min(axis=0), samples.max(axis=0), color=_COLOR[cell], alpha=0.15, linewidth=0)


def _errors(axes: Axes, panel: xr.Dataset, length: int) -> None:
    steps = panel["step"].values
    least = 1.0
    for cell in CELLS:
        found = errors(panel, cell)
        least = min(least, float(found.min()))
        _spread(axes, steps, found, cell)
    theory(axes, steps[[0, -1]], np.full(2, GUESSING), label="always saying 1: 1/6")
    axes.axhline(LEARNED, color="0.6", linewidth=0.8, linestyle=":")
    ticks = [10.0**power for power in range(-7, 2) if 10.0**power >= least / 10]
    log_axis(axes, ticks, "y")
    axes.set(xlabel="updates", ylabel="test mean squared error", ylim=(least / 2, 1))
    axes.set_title(f"{length} steps")


_DEEPEST = -12.0
"""Powers of ten below which nothing is drawn."""


def _gradients(axes: Axes, panel: xr.Dataset, when: str, words: str) -> None:
    after = panel["after"].values
    logs = {cell: np.maximum(gradient(panel, cell, when), 2 * _DEEPEST) for cell in CELLS}
    for cell, found in logs.items():
        _spread(axes, after, 10.0**found, cell)
    every = np.concatenate(list(logs.values()))
    powers = np.arange(max(_DEEPEST, np.floor(every.min())), max(1.0, np.ceil(every.max())) + 1)
    log_axis(axes, list(10.0 ** powers[:: max(1, len(powers) // 6)]), "y")
    axes.set(
        xlabel="after step", ylabel="gradient norm / that after the last", ylim=(10.0 ** powers[0], 10.0 ** powers[-1])
    )
    axes.set_title(words)
