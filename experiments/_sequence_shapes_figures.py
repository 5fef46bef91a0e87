"""Figures of the sequence shapes: views of their labelled results."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from experiments._sequence_shapes_lanes import ALONE, CELLS, MEAN, VECTOR_NETS, both
from experiments._sequence_shapes_report import (
    at_rate,
    by_column,
    cells_of,
    chosen_rate,
    letter_entropies,
    panels,
    powers,
)
from experiments._sequence_shapes_strips import NAMES, SIDE, WORDS
from nnjax.data.text import END
from nnjax.plotting import COLORS, band, figure, style, theory
from nnjax.statistics import t_interval

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLOR = dict(zip(CELLS, (COLORS[1], COLORS[0], COLORS[3]), strict=True)) | {
    "linear": "0.55",
    MEAN: "0.55",
    "mlp": "0.2",
}
_NAME = {
    "rnn": "RNN", "lstm": "LSTM", "gru": "GRU", "linear": "linear", "mlp": "hidden layer", MEAN: "linear, mean column",
}  # fmt: skip
_GUESS = 1 / len(NAMES)
_STRIP_ROWS = 2.4
"""Height of a strip over its attention, in words."""


def plot(results: xr.DataTree) -> dict[str, Figure]:
    """Every figure of the study, by name."""
    some = panels(results)
    with style():
        made, axes = figure(2, 2, width=4.4, height=3.3)
        _single(axes[0, 0], some)
        _letters(axes[0, 1], some["caption"], cells_of(some))
        _tags(axes[1, 0], some["tags"], cells_of(some))
        _numbers(axes[1, 1], some["numbers"])
        seeds = some["vector"].sizes["seed"]
        rates = "; rates chosen on validation data" if some["vector"].sizes["rate"] > 1 else ""
        made.supxlabel(
            f"digits of 8 x 8 pixels; mean and 95 % t-interval of {seeds} seeds{rates}",
            fontsize=8,
        )
        return {"sequence_shapes": made, "attention": _attention(some["numbers"])}


class _Line(NamedTuple):
    """A net's accuracies (seeds,), with all that there is and with something taken away."""

    net: str
    whole: np.ndarray
    less: np.ndarray


def _groups(some: dict[str, xr.Dataset]) -> dict[str, list[_Line]]:
    """The nets on single digits, by shape."""

    def lines(panel: str, axis: str, nets: Sequence[str], taken: str, name: str) -> list[_Line]:
        return [
            _Line(net, *(at_rate(some[panel], name, **{axis: net, taken: each}) for each in (0, 1))) for net in nets
        ]

    cells = cells_of(some)
    return {
        "vector to vector": lines("vector", "net", VECTOR_NETS, "shuffled", "accuracy"),
        "sequence to vector": lines("columns", "net", (MEAN, *cells), "shuffled", "accuracy"),
        "vector to sequence": lines("caption", "cell", cells, "blind", "exact"),
    }


def _single(axes: Axes, some: dict[str, xr.Dataset]) -> None:
    place, ticks = 0.0, {}
    for title, lines in _groups(some).items():
        axes.text(0.02, place, title, fontsize=8, va="center", style="italic")
        for line in lines:
            place += 1
            ticks[place] = _NAME[line.net]
            for samples, face, size in ((line.whole, _COLOR[line.net], 4), (line.less, "none", 6)):
                mean, low, high = t_interval(samples)
                axes.plot([low, high], [place, place], color=_COLOR[line.net])
                axes.plot(mean, place, "o", color=_COLOR[line.net], markerfacecolor=face, markersize=size)
        place += 1.4
    axes.axvline(_GUESS, color="0.4", linestyle=":", linewidth=1.0)
    axes.set(xlabel="share of test pictures right", xlim=(0, 1.02), ylim=(place - 0.9, -0.7))
    axes.set_yticks([*ticks], [*ticks.values()])
    axes.grid(axis="y", visible=False)
    axes.set_title("one digit; hollow: shuffled, or no picture")


def _letters(axes: Axes, panel: xr.Dataset, cells: list[str]) -> None:
    entropies = letter_entropies()
    places = np.arange(1, len(entropies) + 1)
    for cell in cells:
        for blind in (0, 1):
            bits = at_rate(panel, "letter_bits", cell=cell, blind=blind)
            label, dash = (f"_{cell}", ":") if blind else (_NAME[cell], "-")
            band(axes, places, bits, label=label, color=_COLOR[cell], marker="o", markersize=3, linestyle=dash)
    theory(axes, places, entropies, label="exact, no picture")
    axes.plot([], [], color="0.4", linestyle=":", label="no picture")
    axes.set(xlabel="letter of the name, or its end", ylabel="bits needed", xticks=places)
    axes.set_title("vector to sequence: a digit's name")
    axes.legend()


def _tags(axes: Axes, panel: xr.Dataset, cells: list[str]) -> None:
    columns = panel["column"].values
    for cell in cells:
        band(axes, columns, by_column(panel, cell), label=_NAME[cell], color=_COLOR[cell])
        band(axes, columns, by_column(panel, both(cell)), label=f"_{cell}", color=_COLOR[cell], linestyle="--")
    axes.plot([], [], color="0.2", linestyle="--", label="both directions")
    band(axes, columns, by_column(panel, ALONE), label="one column alone", color="0.5")
    axes.axhline(_GUESS, color="0.4", linestyle=":", linewidth=1.0)
    axes.set(xlabel="column of the digit", ylabel="share of test columns right", ylim=(0, 1.02), xticks=columns)
    axes.set_title("sequence to sequence, aligned: whose column is it?")
    axes.legend(fontsize=7, loc="lower center")


def _numbers(axes: Axes, panel: xr.Dataset) -> None:
    digits = panel["digits"].values
    kept, shuffled = (at_rate(panel, "exact", shuffled=each) for each in (0, 1))
    band(axes, digits, kept, label="columns in order", color=COLORS[3], marker="o", markersize=4)
    band(
        axes, digits, shuffled, label="columns shuffled", color=COLORS[3], linestyle=":", marker="o",
        markerfacecolor="white", markersize=4,
    )  # fmt: skip
    theory(axes, digits, powers(kept).mean(axis=0), label=f"p$^k$, p = {kept[:, 0].mean():.3f}")
    axes.set(xlabel="digits k of the number", ylabel="share of test strips right", ylim=(0, 1.02), xticks=digits)
    axes.set_title("sequence to sequence: strips to words")
    axes.legend()


def _attention(panel: xr.Dataset) -> Figure:
    """What each word of some numbers looks at: strips across, words down."""
    lanes = panel.sel(shuffled=0)
    lane = lanes.isel(rate=chosen_rate(lanes), seed=0)
    count = lane.sizes["example"]
    made, axes = figure(1, count, width=3.9, height=3.2)
    for place, own in enumerate(axes[0]):
        _reading(own, lane.isel(example=place))
    made.supxlabel("darker: more weight on this column when the word was written", fontsize=8)
    return made


def _reading(axes: Axes, lane: xr.Dataset) -> None:
    tokens = lane["words"].values
    ends = np.flatnonzero(tokens == END)
    count = int(ends[0]) if len(ends) else len(tokens)
    words = [WORDS.tokens[token] for token in tokens[:count]]
    weights = lane["attention"].transpose("word", "column").values[: max(count, 1)]
    strip = lane["strip"].transpose("pixel", "column").values
    width, rows = strip.shape[1], len(weights)
    axes.imshow(weights, extent=(0, width, rows, 0), aspect="auto", cmap="Blues", vmin=0, interpolation="nearest")
    axes.imshow(strip, extent=(0, width, -0.1, -_STRIP_ROWS), aspect="auto", cmap="gray_r", interpolation="nearest")
    axes.set(xlim=(0, width), ylim=(rows, -_STRIP_ROWS), xlabel="column", xticks=range(0, width + 1, SIDE))
    axes.set_yticks(np.arange(len(words)) + 0.5, words)
    axes.grid(visible=False)
    for edge in range(SIDE, width, SIDE):
        axes.axvline(edge, color="0.6", linewidth=0.6)
    axes.set_title(f"{int(lane['number'])}")
