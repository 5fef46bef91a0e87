"""Figures of the pooling study."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from experiments._pooling_report import chance, moved_error, point
from nnjax import plotting
from nnjax.statistics import t_interval

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

_NAMES = {"max": "max pool", "average": "average pool", "strided": "stride, no pool"}


def plot(results: xr.DataTree) -> dict[str, Figure]:
    """Every figure by its file's name."""
    panel = results["pooling"].to_dataset()
    with plotting.style():
        return {"pooling": _against_windows(panel), "shifts": _against_shifts(panel), "trade": _trade(panel)}


def _seeds_first(array: xr.DataArray) -> np.ndarray:
    return array.transpose("seed", ...).values


def _pictures(panel: xr.Dataset) -> str:
    side = int(panel.attrs["canvas"])
    return f"{panel.attrs['data']} on {side} x {side}"


def _against_windows(panel: xr.Dataset) -> Figure:
    """Error on moved pictures, features' change and place against the window, trained in the middle."""
    figure, axes = plotting.figure(1, 3, width=3.5, height=3.1)
    middle = panel.sel(spread=0, drop=True)
    windows, shift = panel["window"].values, int(panel["shift"].max())
    away = middle["change"].where(panel["shift"] != 0, drop=True).mean("shift")
    measures = (moved_error(middle), away, middle["rmse"])
    titles = ("Slightly moved pictures", "Features when the picture moves", "Reading the place")
    near = f"test error, shifts of 1 to {panel.attrs['near']} px"
    labels = (near, "change (1: nothing in common)", "error of the read place, px")
    for place, each, title, label in zip(axes[0], measures, titles, labels, strict=True):
        for kind, words in _NAMES.items():
            plotting.band(place, windows, _seeds_first(each.sel(kind=kind)), label=words, marker="o", markersize=3)
        plotting.log_axis(place, windows.tolist())
        place.set(title=title, xlabel="window, px", ylabel=label)
        place.set_ylim(bottom=0)
    unmoved_name, guess, known = "max pool, unmoved", "guessing the mean place", "a point known to its window"
    unmoved = middle["error"].sel(shift=0, kind="max")
    plotting.band(axes[0, 0], windows, _seeds_first(unmoved), label=unmoved_name, color="0.5")
    plotting.theory(axes[0, 2], windows, np.full(len(windows), chance(shift)), label=guess)
    plotting.theory(axes[0, 2], windows[:-1], point(windows[:-1]), label=known, linestyle=":")
    axes[0, 1].legend(loc="lower left", fontsize=7)
    axes[0, 0].legend(*_named(axes[0, 0], [unmoved_name]), fontsize=7, loc="lower right")
    axes[0, 2].legend(*_named(axes[0, 2], [guess, known]), fontsize=7, loc="upper left", bbox_to_anchor=(0, 0.93))
    figure.suptitle(
        f"{_pictures(panel)}, trained in the middle, shifts up to {shift} px; bands are 95 % intervals over seeds",
        fontsize=9,
    )
    return figure


def _against_shifts(panel: xr.Dataset) -> Figure:
    """Features' change, unchanged answers and error against the shift, for some windows."""
    windows = [int(w) for w in _some(panel["window"].values, 5)]
    rows = {"change": "change of the features", "same": "share of unchanged answers", "error": "test error"}
    most = {"change": 2.0, "same": 1.0, "error": 1.0}
    figure, axes = plotting.figure(len(rows), len(_NAMES), width=3.3, height=2.5)
    middle = panel.sel(spread=0, drop=True)
    for row, (name, label) in enumerate(rows.items()):
        for column, (kind, words) in enumerate(_NAMES.items()):
            place = axes[row, column]
            for window in windows:
                each = _seeds_first(middle[name].sel(kind=kind, window=window))
                _bounded_band(place, panel["shift"].values, each, most[name], label=f"{window} px")
            place.set_ylim(-0.03, 1.03 * max(1.0, float(middle[name].mean("seed").max())))
            place.set(ylabel=label if column == 0 else "", xlabel="shift, px" if row == len(rows) - 1 else "")
            if row == 0:
                place.set_title(words)
    lines = axes[0, 0].get_legend_handles_labels()
    figure.legend(*lines, title="window", title_fontsize=8, fontsize=8, loc="outside lower center", ncols=len(windows))
    figure.suptitle(f"{_pictures(panel)}, trained in the middle; mean of shifts down and right", fontsize=9)
    return figure


def _bounded_band(place: Any, x: np.ndarray, samples: np.ndarray, most: float, *, label: str) -> None:
    """`plotting.band` of what is never below 0 nor above ``most``: so is its interval."""
    middle, low, high = t_interval(samples)
    (drawn,) = place.plot(x, middle, label=label)
    place.fill_between(x, np.maximum(low, 0), np.minimum(high, most), color=drawn.get_color(), alpha=0.2, linewidth=0)


def _named(place: Any, names: list[str]) -> tuple[list[Any], list[str]]:
    """Those lines of a panel, with their names."""
    lines = {name: line for line, name in zip(*place.get_legend_handles_labels(), strict=True)}
    return [lines[name] for name in names], names


def _some(values: np.ndarray, count: int) -> np.ndarray:
    """At most ``count`` of the values, first and last among them."""
    return values[np.unique(np.linspace(0, len(values) - 1, count).round().astype(int))]


def _trade(panel: xr.Dataset) -> Figure:
    """Error on slightly moved pictures against that of the read place: a point a window, a line a kind of pool."""
    figure, axes = plotting.figure(1, 2, width=4.2, height=3.4)
    near = f"test error, shifts of 1 to {panel.attrs['near']} px"
    titles = ("Trained in the middle", "Trained at random places")
    error = moved_error(panel)
    for place, spread, title in zip(axes[0], panel["spread"].values, titles, strict=True):
        for (kind, words), marker in zip(_NAMES.items(), "os^", strict=True):
            at: dict[str, Any] = {"kind": kind, "spread": spread}
            x, y = (t_interval(_seeds_first(each.sel(at))) for each in (panel["rmse"], error))
            spans = {"xerr": [x.mean - x.low, x.high - x.mean], "yerr": [y.mean - y.low, y.high - y.mean]}
            place.errorbar(
                x.mean, y.mean, **spans, marker=marker, markersize=4, label=words, elinewidth=0.7, linewidth=1
            )
            for window, right, up in zip(panel["window"].values, x.mean, y.mean, strict=True):
                if kind == "max":
                    look: dict[str, Any] = {"textcoords": "offset points", "fontsize": 7, "color": "0.3"}
                    place.annotate(f"{window}", (right, up), (4, 4), **look)
        place.axvline(chance(int(panel["shift"].max())), color="black", linestyle="--", linewidth=1)
        place.set(title=title, xlabel="error of the read place, px", ylabel=near)
        place.set_xlim(0, 1.1 * chance(int(panel["shift"].max())))
        place.set_ylim(0, 1)
    axes[0, 1].legend(loc="lower center")
    figure.suptitle(
        f"{_pictures(panel)}; numbers are windows (of the max pool), dashed is guessing the place", fontsize=9
    )
    return figure
