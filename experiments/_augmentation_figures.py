"""Figures of the augmentation study: views of its labelled results."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from experiments._augmentation_lanes import CHANGES, KINDS, LOOKALIKES, amount
from experiments._augmentation_report import DIGITS, chosen, none, values
from nnjax.plotting import COLORS, band, figure, log_axis, style

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_ARMS = ("shift", "rotate", "elastic", "mirror", "all but mirror")
"""Arms drawn together; more lines than colors tell nothing."""


def plot(results: xr.DataTree) -> dict[str, Figure]:
    """Every figure of the study, by name; ``augmentation`` is the one to look at first."""
    panel = results["augmentation"].to_dataset()
    with style():
        return {
            "augmentation": _strengths(panel),
            "examples": _examples(panel),
            "invariance": _invariance(panel),
            "pictures": _pictures(results["pictures"].to_dataset()),
        }


def _note(panel: xr.Dataset) -> str:
    data, steps, seeds = panel.attrs["data"], panel.attrs["steps"], panel.sizes["seed"]
    return f"{data}, {steps} updates; mean and 95 % t-interval of {seeds} seeds"


def _strengths(panel: xr.Dataset) -> Figure:
    """A cell a kind: test error against strength, a line an n."""
    made, axes = figure(2, 4, width=2.9, height=2.6)
    side, strengths = panel.attrs["side"], panel["strength"].values
    places = np.arange(len(strengths))
    top = float(panel["test_error"].mean("seed").max())
    for cell, kind in zip(axes.flat, KINDS, strict=True):
        for n in panel["n"].values:
            error = values(panel["test_error"].sel(kind=kind, n=n))
            band(cell, places, error, label=f"n = {n}", marker="o", markersize=3)
        words = [amount(kind, s, side) if kind in CHANGES else f"{s:g}" for s in strengths[1:]]
        cell.set_xticks(places, ["none", *words], fontsize=7.5)
        cell.set(title=kind, ylim=(0, 1.05 * top), xlabel="strength" if kind not in CHANGES else "up to")
    for cell in axes[:, 0]:
        cell.set_ylabel("test error")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    made.legend(handles, labels, loc="outside lower center", ncols=len(labels), title=_note(panel), title_fontsize=8)
    return made


def _examples(panel: xr.Dataset) -> Figure:
    """What every kind gains over none at its chosen strength, seed by seed, against n; and the strengths."""
    made, axes = figure(1, 2, width=4.4, height=3.4)
    n, best, plain = panel["n"].values, chosen(panel), values(none(panel)["test_error"])
    for kind, color in zip(_ARMS, COLORS, strict=False):
        picked = best.sel(kind=kind)
        gain = plain - values(picked["test_error"])
        band(axes[0, 0], n, gain, label=kind, color=color, marker="o", markersize=3)
        axes[0, 1].plot(n, picked["strength"].mean("seed"), "o-", color=color, markersize=3, label=kind)
    axes[0, 0].axhline(0, color="0.3", linewidth=1)
    for cell in axes[0]:
        log_axis(cell, n.tolist())
        cell.set_xlabel("training pictures n")
    axes[0, 0].set(ylabel="test error: none minus arm", title="gain, at the strength chosen on validation pictures")
    axes[0, 1].set(ylabel="strength chosen, mean of seeds", title="how strong", ylim=(0, None))
    handles, labels = axes[0, 0].get_legend_handles_labels()
    made.legend(handles, labels, loc="outside lower center", ncols=len(labels), title=_note(panel), title_fontsize=8)
    return made


def _invariance(panel: xr.Dataset) -> Figure:
    """At the largest n: error against the angle and the shift of test pictures, and what is confused."""
    made, axes = figure(1, 3, width=3.7, height=3.6)
    at = panel.isel(n=-1)
    side = panel.attrs["side"]
    for cell, kind, name, axis, unit in (
        (axes[0, 0], "rotate", "turned_error", "angle", "test pictures turned by, degrees"),
        (axes[0, 1], "shift", "moved_error", "shift", "test pictures moved by, px"),
    ):  # fmt: skip
        for strength, color in zip(panel["strength"].values, ("0.3", *COLORS), strict=False):
            words = "none" if strength == 0 else amount(kind, strength, side)
            line: dict[str, Any] = {"label": words, "color": color, "marker": "o", "markersize": 3}
            band(cell, panel[axis].values, values(at[name].sel(kind=kind, strength=strength)), **line)
        cell.set(xlabel=unit, ylabel="test error", ylim=(0, 1), title=f"trained under {kind}")
        _legend_below(cell, 4, "trained on changes up to")
    axes[0, 0].set_xticks(range(-180, 181, 90))
    _harm(axes[0, 2], at)
    made.suptitle(f"n = {int(at['n'])}; {_note(panel)}", fontsize=9)
    return made


def _harm(axes: Axes, at: xr.Dataset) -> None:
    """What changes that do not keep labels cost on upright pictures, against strength."""
    places = np.arange(at.sizes["strength"])
    for kind, color in (("rotate", COLORS[0]), ("mirror", COLORS[1])):
        band(axes, places, values(at["test_error"].sel(kind=kind)), label=f"{kind}: test error", color=color)
    if at.attrs["data"] in DIGITS:
        one, other = LOOKALIKES
        swapped = values(at["confused"].sel(kind="rotate"))
        band(axes, places, swapped, label=f"rotate: {one} and {other} swapped", color=COLORS[3], linestyle="--")
    axes.set_xticks(places, [f"{s:g}" for s in at["strength"].values])
    axes.set(xlabel="strength (1: up to 180°, 50 % mirrored)", ylabel="share", title="upright test pictures")
    axes.set_ylim(0, 1)
    _legend_below(axes, 1, None)


def _legend_below(axes: Axes, columns: int, title: str | None) -> None:
    """A legend under the axes, that an error's axis may end at 1."""
    axes.legend(
        ncols=columns, loc="upper center", bbox_to_anchor=(0.5, -0.18), title=title, title_fontsize=8, columnspacing=1.0
    )


def _pictures(pictures: xr.Dataset) -> Figure:
    """One picture, a row a kind, a column a strength."""
    strengths = pictures["strength"].values
    made, axes = figure(len(KINDS), 1 + len(strengths), width=1.15, height=1.15)
    side = pictures.attrs["side"]
    for row, kind in enumerate(KINDS):
        shown = [pictures["plain"].values, *pictures["changed"].sel(kind=kind).values]
        for column, picture in enumerate(shown):
            cell = axes[row, column]
            cell.imshow(picture.squeeze(), cmap="gray", vmin=0, vmax=1)
            cell.set_xticks([])
            cell.set_yticks([])
            cell.grid(False)
            words = "as it is" if column == 0 else ""
            if column and kind in CHANGES:
                words = f"up to {amount(kind, strengths[column - 1], side)}"
            elif column:
                words = f"strength {strengths[column - 1]:g}"
            cell.set_title(words, fontsize=7, pad=2)
        axes[row, 0].set_ylabel(kind, fontsize=8)
    return made
