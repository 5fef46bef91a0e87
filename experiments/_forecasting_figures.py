"""Figures of the forecasting study: views of its labelled results."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from experiments._forecasting_lanes import BEST, CELLS, LINEAR, NAIVE, SEASONAL
from experiments._forecasting_report import (
    MARGIN,
    MODELS,
    at_chosen,
    compare,
    forecasts,
    panels,
    rmse,
    squared,
)
from experiments._forecasting_series import CONTROLS
from nnjax.plotting import COLORS, band, figure, mark, style

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLOR = {
    NAIVE: "0.6", SEASONAL: COLORS[3], LINEAR: COLORS[4], "rnn": COLORS[1], "lstm": COLORS[2], "gru": COLORS[0],
    BEST: "black",
}  # fmt: skip
SHOWN = 40
"""Targets, at most, that are drawn one by one."""


def _words(model: str) -> str:
    """A model's name as it is written in a figure."""
    return model.upper() if model in CELLS else model


def plot(results: xr.DataTree) -> dict[str, Figure]:
    """Every figure of the study, by name."""
    some = panels(results)
    with style():
        return {"forecasts": _forecasts(some), "errors": _errors(some), "learning": _learning(some)}


# The series and what was forecast


def _forecasts(some: dict[str, xr.Dataset]) -> Figure:
    made, axes = figure(len(some), 2, width=5.6, height=2.3)
    for row, (name, panel) in zip(axes, some.items(), strict=True):
        _course(row[0], name, panel)
        _stretch(row[1], name, panel)
    handles, labels = axes[0, 1].get_legend_handles_labels()
    note = "left: shaded are the test parts, each of a net and a line trained on all before; right: the last targets"
    made.legend(handles, labels, loc="outside lower center", ncols=6, title=note, title_fontsize=8)
    return made


def _course(axes: Axes, name: str, panel: xr.Dataset) -> None:
    axes.plot(panel["course_time"].values, panel["course"].values, color="black", linewidth=0.6)
    for number, times in enumerate(panel["time"].transpose("fold", "place").values):
        axes.axvspan(times[0], times[-1], color=COLORS[5], alpha=0.45 if number % 2 else 0.25, linewidth=0)
    axes.ticklabel_format(axis="x", useOffset=False)
    axes.set(ylabel=panel.attrs["unit"], xlabel=_clock(panel))
    axes.set_title(name)
    axes.margins(x=0)


def _clock(panel: xr.Dataset) -> str:
    return "step" if panel.attrs["drawn"] else "year"


def _stretch(axes: Axes, name: str, panel: xr.Dataset) -> None:
    """The last targets; of prices, whose forecasts would lie on one another, the differences from the last value."""
    times, truth = (panel[each].transpose("fold", "place").values[-1][-SHOWN:] for each in ("time", "truth"))
    control = name in CONTROLS
    last = forecasts(panel, NAIVE)[0, -1][-SHOWN:] if control else np.zeros_like(truth)
    axes.plot(times, truth - last, "o", color="black", markersize=2.5, label="observation", zorder=4)
    largest = 0.0
    for model in (NAIVE, LINEAR, "gru"):
        guess = forecasts(panel, model)[0, -1][-SHOWN:] - last
        words = f"{_words(model)}, first seed" if model in CELLS else model
        width = 0.8 if model == NAIVE else 1.3
        axes.plot(times, guess, color=_COLOR[model], linewidth=width, label=words)
        largest = max(largest, float(np.max(np.abs(guess))))
    if BEST in panel["model"].values:
        guess = forecasts(panel, BEST)[0, -1][-SHOWN:]
        axes.plot(times, guess - last, color="black", linestyle="--", linewidth=0.9, label=BEST)
    axes.ticklabel_format(axis="x", useOffset=False)
    axes.set(xlabel=_clock(panel))
    axes.set_title(f"{name}: less the last value (beyond the forecasts logarithmic)" if control else name)
    if control and largest > 0:
        axes.set_yscale("symlog", linthresh=largest, linscale=2)
        axes.yaxis.set_major_formatter("{x:g}")
    axes.margins(x=0.02)


# How far off


def _errors(some: dict[str, xr.Dataset]) -> Figure:
    made, axes = figure(len(some), 2, width=4.6, height=2.4)
    for row, (name, panel) in zip(axes, some.items(), strict=True):
        _ratios(row[0], name, panel)
        _differences(row[1], name, panel)
    handles, labels = axes[0, 1].get_legend_handles_labels()
    first = next(iter(some.values()))
    note = (
        f"left: dots are {first.sizes['seed']} seeds, bars the root of their mean loss; right: 95 % intervals over "
        f"time and seeds, gray: equivalence margin of {100 * MARGIN:.0f} %"
    )
    made.legend(handles, labels, loc="outside lower center", ncols=4, title=note, title_fontsize=8)
    return made


def _ratios(axes: Axes, name: str, panel: xr.Dataset) -> None:
    """Each model's root mean squared error as a share of the last value's."""
    base = rmse(panel, NAIVE)
    for place, model in enumerate(MODELS):
        axes.barh(place, rmse(panel, model) / base, color=_COLOR[model], alpha=0.45, height=0.7)
        each = np.sqrt(squared(panel, model).mean(axis=1)) / base
        if model in CELLS:
            axes.plot(each, np.full(len(each), place), "o", color=_COLOR[model], markersize=2.5)
        axes.annotate(
            f"{rmse(panel, model) / base:.3f}",
            (0.01, place),
            xycoords=("axes fraction", "data"),
            va="center",
            fontsize=7,
        )
    most = max(rmse(panel, model) / base for model in MODELS if model != SEASONAL)
    seasonal = rmse(panel, SEASONAL) / base
    end = min(1.15 * max(most, seasonal), 1.6 * most)
    axes.set_xlim(0, end)
    if seasonal > end:  # the bar is cut: a gap across it says so
        place = MODELS.index(SEASONAL)
        for shift in (0.95, 0.965):
            x = np.array([shift - 0.008, shift + 0.008]) * end
            axes.plot(x, [place + 0.45, place - 0.45], color="black", linewidth=0.9)
    if BEST in panel["model"].values:
        mark(axes, rmse(panel, BEST) / base, BEST, color="black", linestyle="--")
    axes.set_yticks(range(len(MODELS)), [_words(model) for model in MODELS])
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.set_xlabel(f"RMSE / that of the last value ({base:.3g} {panel.attrs['unit']})")
    axes.set_title(name)


def _differences(axes: Axes, name: str, panel: xr.Dataset) -> None:
    """Differences of mean losses with their intervals, against the last value and the line."""
    learned = (LINEAR, *CELLS)
    others = (NAIVE, LINEAR)
    for offset, other in zip((-0.12, 0.12), others, strict=True):
        for place, model in enumerate(learned):
            if model == other:
                continue
            found = 100 * np.array(compare(name, panel, model, other).difference[:3])
            axes.errorbar(
                found[0], place + offset, xerr=[[found[0] - found[1]], [found[2] - found[0]]], fmt="o", markersize=3,
                color=_COLOR[other], linewidth=1.2, label=f"against {other}" if place == 1 else None,
            )  # fmt: skip
    axes.axvspan(-100 * MARGIN, 100 * MARGIN, color="0.9", linewidth=0, zorder=0)
    axes.axvline(0, color="0.3", linewidth=0.8)
    axes.set_yticks(range(len(learned)), [_words(model) for model in learned])
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("difference of mean squared errors, %")
    axes.set_title(f"{name}; below 0: better than the other")


# Learning


def _learning(some: dict[str, xr.Dataset]) -> Figure:
    columns = min(4, len(some))
    made, axes = figure(-(-len(some) // columns), columns, width=max(3.3, 6.6 / columns), height=2.6)
    for place, (name, panel) in zip(axes.flat, some.items(), strict=False):
        for cell in CELLS:
            curve = at_chosen(panel, cell, "validation_loss").mean(axis=1)  # of the folds
            band(place, panel["step"].values, curve / curve[:, :1], label=_words(cell), color=_COLOR[cell])
        place.axhline(1, color="0.6", linewidth=0.8)
        place.set(xlabel="updates", ylabel="loss / that of a new net", title=name)
    for place in axes.flat[len(some) :]:
        place.set_axis_off()
    handles, labels = axes.flat[0].get_legend_handles_labels()
    note = "loss on the validation windows, mean of the folds; bands: 95 % t-intervals over seeds"
    made.legend(handles, labels, loc="outside lower center", ncols=3, title=note, title_fontsize=8)
    return made
