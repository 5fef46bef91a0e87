"""Figures of the pseudo-labelling study: views of its labelled results."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from experiments._pseudo_labelling_report import BASE, FIXED, LEE, ORACLE, PUBLISHED, errors
from nnjax.plotting import COLORS, band, figure, log_axis, mark, style

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLOR = dict(zip((BASE, *FIXED, LEE, ORACLE), (COLORS[1], COLORS[4], COLORS[2], COLORS[0], "0.35"), strict=True))
_NAME = {
    BASE: "labelled pictures only", FIXED[0]: "+ all pseudo-labels, made once",
    FIXED[1]: "+ confident ones, made once", LEE: "+ made anew, weight growing (Lee)",
    ORACLE: "+ all true labels",
}  # fmt: skip


def plot(results: xr.DataTree) -> dict[str, Figure]:
    """Every figure of the study, by name."""
    panel = results["pseudo_labelling"].to_dataset()
    with style():
        made, axes = figure(2, 2, width=4.2)
        _against_labels(axes[0, 0], panel)
        _gain(axes[0, 1], panel)
        _along(axes[1, 0], panel)
        _confidence(axes[1, 1], panel)
        handles, labels = axes[0, 0].get_legend_handles_labels()
        note = f"{panel.attrs['data']}; mean and 95 % t-interval of {panel.sizes['seed']} seeds"
        made.legend(handles, labels, loc="outside lower center", ncols=3, title=note, title_fontsize=8)
        return {"pseudo_labelling": made}


def _against_labels(axes: Axes, panel: xr.Dataset) -> None:
    n = panel["n"].values
    for arm, color in _COLOR.items():
        band(axes, n, 100 * errors(panel, arm), label=_NAME[arm], color=color)
    if panel.attrs["data"] == "mnist":
        for column, arm in ((0, BASE), (1, LEE)):
            known = [(k, 100 * both[column]) for k, both in PUBLISHED.items() if n[0] <= k <= n[-1]]
            if known:
                axes.plot(*zip(*known, strict=True), "o", color=_COLOR[arm], fillstyle="none", label="Lee (2013)")
    log_axis(axes, list(n))
    shown = [100 * errors(panel, arm).mean(axis=0) for arm in _COLOR]
    low, high = max(0.1, float(np.min(shown))), float(np.max(shown))
    log_axis(axes, [tick for tick in (0.2, 0.5, 1, 2, 5, 10, 20, 50, 100) if low / 2 <= tick <= 2 * high], "y")
    axes.set(xlabel="labelled pictures", ylabel="test error, %", ylim=(low / 1.6, high * 1.4))


def _gain(axes: Axes, panel: xr.Dataset) -> None:
    n = panel["n"].values
    base = errors(panel, BASE)
    for arm in (*FIXED, LEE):
        band(axes, n, 100 * (errors(panel, arm) - base), label=_NAME[arm], color=_COLOR[arm])
    axes.axhline(0, color=_COLOR[BASE], linewidth=1)
    log_axis(axes, list(n))
    axes.set(xlabel="labelled pictures", ylabel="test error, difference, points")
    axes.set_title("against labelled pictures only: below 0 helps")


def _along(axes: Axes, panel: xr.Dataset) -> None:
    place = len(panel["n"]) // 2
    steps = panel["step"].values
    for arm in (BASE, FIXED[1], LEE):
        curve = panel["unlabelled_error"].isel(n=place).sel(arm=arm).transpose("seed", "step").values
        band(axes, steps, 100 * curve, label=_NAME[arm], color=_COLOR[arm])
    for share, words in zip(panel.attrs["schedule"], ("weight begins to grow", f"α = {panel.attrs['alpha']:g}"),
                            strict=True):  # fmt: skip
        mark(axes, float(share) * steps[-1], words)
    axes.set(xlabel="updates", ylabel="error on pictures without label, %", ylim=(0, None))
    axes.annotate(
        f"{panel['n'].values[place]} labels", (0.97, 0.95), xycoords="axes fraction", ha="right", va="top", fontsize=8
    )  # fmt: skip


def _confidence(axes: Axes, panel: xr.Dataset) -> None:
    """Share of pictures that are labelled, and share of those labels that are wrong, threshold by threshold."""
    places = sorted({0, len(panel["n"]) // 2, len(panel["n"]) - 1})
    for place, color in zip(places, COLORS, strict=False):
        at = panel.isel(n=place)
        coverage, accuracy = (at[name].mean("seed").values for name in ("coverage", "label_accuracy"))
        axes.plot(coverage, 100 * (1 - accuracy), "o-", markersize=3, color=color, label=f"{at['n'].item()} labels")
        chosen = list(panel["threshold"].values).index(panel.attrs["threshold"])
        axes.plot(coverage[chosen], 100 * (1 - accuracy[chosen]), "o", markersize=8, fillstyle="none", color="black")
    thresholds = panel["threshold"].values
    axes.set(xlabel=f"share labelled (confidence from {thresholds[-1]:g} to 0)", ylabel="wrong pseudo-labels, %",
             ylim=(0, None), xlim=(None, 1.02))  # fmt: skip
    axes.set_title(f"circled: confidence {panel.attrs['threshold']:g} or more")
    axes.legend()
