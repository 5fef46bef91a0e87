"""Figures of the transfer-learning study: views of its labelled results."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from experiments._transfer_learning_report import PUBLISHED, TARGET, chosen, is_right, values
from nnjax.plotting import COLORS, band, figure, log_axis, style

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LOOK = {"scratch": COLORS[1], "frozen": COLORS[0], "fine-tuned": COLORS[2], "random frozen": "0.5"}


def plot(results: xr.DataTree) -> dict[str, Figure]:
    """Every figure of the study, by name; ``transfer_learning`` is the one to look at first."""
    with style():
        found = {"transfer_learning": _against_n(results)}
        if "known" in results.children and "said" in results["known"]:
            found["known"] = _known(results["known"].to_dataset())
    return found


def _against_n(results: xr.DataTree) -> Figure:
    there = "frozen" in results.children
    made, axes = figure(1, 3 if there else 2, width=3.7, height=3.3)
    panel = results["digits"].to_dataset()
    best = chosen(panel)
    _digits(axes[0, 0], best)
    _gain(axes[0, 1], best)
    if there:
        _photographs(axes[0, 2], results)
    data, seeds = panel.attrs["data"], panel.sizes["seed"]
    made.suptitle(f"{data}: 0 to 4, then 5 to 9; mean and 95 % t-interval of {seeds} seeds", fontsize=9)
    return made


def _digits(axes: Axes, best: xr.Dataset) -> None:
    n = best["n"].values
    for arm, color in _LOOK.items():
        error = values(best["test_error"].sel(arm=arm))
        band(axes, n, error, label=arm, color=color, marker="o", markersize=3)
    log_axis(axes, n.tolist())
    log_axis(axes, [0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5], "y")
    axes.set(xlabel="training pictures a class", ylabel="test error", title="error on the second task")
    axes.legend()


def _gain(axes: Axes, best: xr.Dataset) -> None:
    """What each arm gains over scratch, seed by seed."""
    n = best["n"].values
    scratch = values(best["test_error"].sel(arm="scratch"))
    for arm, color in _LOOK.items():
        if arm != "scratch":
            gain = scratch - values(best["test_error"].sel(arm=arm))
            band(axes, n, gain, label=arm, color=color, marker="o", markersize=3)
    axes.axhline(0, color=_LOOK["scratch"], linewidth=1)
    log_axis(axes, n.tolist())
    axes.set(xlabel="training pictures a class", ylabel="test error: scratch minus arm", title="gain over scratch")
    axes.legend()


def _photographs(axes: Axes, results: xr.DataTree) -> None:
    frozen, fine, scratch = (results[name].to_dataset() for name in ("frozen", "fine_tuned", "scratch"))
    lines = {
        "frozen, own classes": (frozen.sel(start="own classes"), COLORS[3]),
        "frozen, fresh head": (frozen.sel(start="fresh head"), _LOOK["frozen"]),
        "fine-tuned": (fine, _LOOK["fine-tuned"]),
        "scratch": (scratch, _LOOK["scratch"]),
    }
    for words, (panel, color) in lines.items():
        accuracy, n = values(1 - panel["validation_error"]), panel["n"].values
        band(axes, n, accuracy, label=f"{words} ({len(accuracy)} seeds)", color=color, marker="o", markersize=3)
    log_axis(axes, sorted({*frozen["n"].values.tolist(), *fine["n"].values.tolist()}))
    last = int(frozen["n"][-1])
    axes.axhline(TARGET, color="0.4", linestyle=":", linewidth=1)
    for arm, marker in (("frozen", "D"), ("fine_tuned", "s")):
        name = arm.replace("_", "-")
        axes.plot(
            [last], [PUBLISHED[arm]], marker, color="black", fillstyle="none", label=f"ResNet-18, {name} (published)"
        )  # fmt: skip
    axes.set(xlabel="photographs a class", ylabel="validation accuracy", title="ants and bees, by MobileNet")
    axes.set_ylim(0.4, 1.01)
    axes.legend(fontsize=7, loc="lower right")


def _known(known: xr.Dataset) -> Figure:
    """The photographs, with what the net says of them."""
    count = known.sizes["photograph"]
    made, axes = figure(1, count, width=2.3, height=2.9)
    facts = zip(*(known[name].values for name in ("shown", "said", "probability", "picture")), strict=True)
    for cell, (shown, said, probability, picture) in zip(axes[0], facts, strict=True):
        cell.imshow(np.asarray(picture))
        cell.set_xticks([])
        cell.set_yticks([])
        cell.grid(False)
        first = str(said).split(",")[0]
        color = COLORS[2] if is_right(str(shown), str(said)) else COLORS[1]
        cell.set_title(f"{first} {100 * probability:.0f} %", color=color, pad=5)
        cell.set_xlabel(f"shown: {shown}", fontsize=8)
    return made
