"""Figures of the character models: views of their labelled results."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

import numpy as np

from experiments._char_rnn_lanes import CELLS
from experiments._char_rnn_report import KNOWN, at_rate, by_seed, lane_of, parts
from nnjax.data.text import Vocabulary
from nnjax.plotting import COLORS, band, figure, log_axis, style, theory
from nnjax.statistics import t_interval

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLOR = dict(zip(CELLS, (COLORS[1], COLORS[0], COLORS[3]), strict=True))
_TITLE = {"markov": "letters of a Markov source", "shakespeare": "Shakespeare"}
_LINES, _LETTERS = 7, 58


def plot(results: xr.DataTree) -> dict[str, Figure]:
    """Every figure of the study, by name."""
    nets, baselines = parts(results)
    with style():
        made, axes = figure(2, 2, width=4.4, height=3.2)
        _along(axes[0, 0], nets, baselines)
        _against_ngrams(axes[0, 1], nets, baselines)
        _after_reset(axes[1, 0], nets, baselines)
        if nets.attrs["text"] == "markov":
            _written_cost(axes[1, 1], nets, baselines)
        else:
            _written(axes[1, 1], nets)
        handles, labels = axes[0, 0].get_legend_handles_labels()
        rates = "; rates chosen on validation text" if nets.sizes["rate"] > 1 else ""
        note = f"{_TITLE[nets.attrs['text']]}; mean and 95 % t-interval of {nets.sizes['seed']} seeds{rates}"
        made.legend(handles, labels, loc="outside lower center", ncols=5, title=note, title_fontsize=8)
        return {"char_rnn": made}


def _words(nets: xr.Dataset, cell: str) -> str:
    place = CELLS.index(cell)
    return f"{cell.upper()}, {nets.attrs['units'][place]} units"


def _source(nets: xr.Dataset, baselines: xr.Dataset, split: str) -> np.ndarray | None:
    """What the source itself needs for a part of each seed's text, (seeds,); None where nobody knows it."""
    name = f"source_{split}"
    return by_seed(nets, baselines[name])[:, KNOWN] if name in baselines else None


def _above(bits: np.ndarray, source: np.ndarray | None) -> np.ndarray:
    """Bits (seeds, ...) less those of the source for the same text, seed by seed, where they are known."""
    return bits if source is None else bits - source.reshape(-1, *[1] * (bits.ndim - 1))


def _along(axes: Axes, nets: xr.Dataset, baselines: xr.Dataset) -> None:
    updates = nets["update"].values
    held, learned = (_source(nets, baselines, split) for split in ("validation", "train"))
    found = []
    for cell in CELLS:
        found.append(_above(at_rate(nets, cell, "validation_bits"), held))
        band(axes, updates, found[-1], label=_words(nets, cell), color=_COLOR[cell])
        running = _above(at_rate(nets, cell, "running_bits"), learned).mean(0)
        axes.plot(updates, running, color=_COLOR[cell], linewidth=0.6)
    low, high = float(np.min(found)), float(np.median([each[:, 0] for each in found]))
    if held is not None:
        low = min(low, 0.0)
        theory(axes, updates[[0, -1]], np.zeros(2), label="the source")
    room = max(high - low, 0.01)
    words = "a character" if held is None else "above the source"
    axes.set(xlabel="updates", ylabel=f"bits {words}", ylim=(low - 0.06 * room, high + 0.25 * room))
    axes.set_title("validation text; thin: pieces just learned from")


def _against_ngrams(axes: Axes, nets: xr.Dataset, baselines: xr.Dataset) -> None:
    orders, source = baselines["order"].values, _source(nets, baselines, "test")
    ngrams = _above(by_seed(nets, baselines["ngram_test"]), source)
    band(axes, orders, ngrams, label="n-grams", color="0.35", marker="o", markersize=4)
    for cell in CELLS:
        mean, low, high = t_interval(_above(at_rate(nets, cell, "test_bits"), source))
        axes.axhline(float(mean), color=_COLOR[cell])
        axes.axhspan(float(low), float(high), color=_COLOR[cell], alpha=0.15, linewidth=0)
    packed = _above(by_seed(nets, baselines["lzma"]), source)
    axes.axhline(float(packed.mean()), color="0.6", linestyle=":", label="LZMA")
    if source is not None:
        entropy = baselines["entropy"].values
        theory(axes, orders[:KNOWN], (entropy[:KNOWN] - entropy[KNOWN])[: len(orders)], label=None)
        log_axis(axes, [0.0001, 0.001, 0.01, 0.1, 1], "y")
        axes.set_ylim(_LEAST, None)
    words = "a character" if source is None else "above the source"
    axes.set(xlabel="characters that an n-gram model sees", ylabel=f"test bits {words}", xticks=orders)
    axes.set_title("lines across: nets")
    axes.legend()


_LEAST = 1e-4
"""Bits above the source from which they are drawn."""


def _after_reset(axes: Axes, nets: xr.Dataset, baselines: xr.Dataset) -> None:
    seen = nets["seen"].values
    for cell in CELLS:
        costs = lane_of(nets, cell)["reset_cost"].transpose("seed", "seen").values
        band(axes, seen, costs, label=_words(nets, cell), color=_COLOR[cell])
    if "entropy" in baselines:
        entropy = baselines["entropy"].values
        theory(axes, seen, np.where(seen < KNOWN, entropy[1] - entropy[KNOWN], 0.0), label=None)
    else:
        axes.axhline(0, color="0.4", linewidth=0.8)
    log_axis(axes, [2**power for power in range(11) if 2**power <= seen[-1]])
    axes.set_yscale("symlog", linthresh=0.002, linscale=0.4)
    axes.set_ylim(bottom=-0.03)
    ticks = (-0.01, 0, 0.01, 0.1, 1)
    axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.set(xlabel="characters seen since a reset", ylabel="bits more than with the state")
    axes.set_title("after a reset of the state")


def _written_cost(axes: Axes, nets: xr.Dataset, baselines: xr.Dataset) -> None:
    temperatures = nets["temperature"].values
    for cell in CELLS:
        cost = lane_of(nets, cell)["written_bits"].transpose("seed", "temperature").values
        band(axes, temperatures, cost, label=_words(nets, cell), color=_COLOR[cell], marker="o", markersize=3)
    entropy = float(baselines["entropy"][KNOWN])
    axes.plot([1], [entropy], "x", color="black", markersize=9, zorder=6)
    axes.annotate(
        "entropy rate", (1, entropy), xytext=(8, -4), textcoords="offset points", fontsize=8, va="top"
    )  # fmt: skip
    axes.set(xlabel="temperature", ylabel="bits a letter, by the source", xticks=temperatures)
    axes.set_title("what the nets write")


def _written(axes: Axes, nets: xr.Dataset) -> None:
    """What the best net writes, at each temperature."""
    cell = min(CELLS, key=lambda each: float(at_rate(nets, each, "validation_bits").min(-1).mean()))
    vocabulary = Vocabulary.from_json(nets.attrs["vocabulary"])
    texts = []
    for temperature in nets["temperature"].values:
        tokens = lane_of(nets, cell)["sample"].sel(temperature=temperature).isel(seed=0).values
        lines = [part for line in vocabulary.decode(tokens).splitlines() for part in textwrap.wrap(line, _LETTERS)]
        texts.append("\n".join([f"--- temperature {temperature:g}", *lines[:_LINES]]))
    axes.set_axis_off()
    axes.text(
        0, 1, "\n".join(texts), transform=axes.transAxes, va="top", family="monospace", fontsize=6.5, parse_math=False
    )  # fmt: skip
    axes.set_title(f"what the {cell.upper()} writes")
