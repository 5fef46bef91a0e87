"""Figures of the hyper-parameter study: views of its labelled results."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from experiments._hyperparameter_search_lanes import MEANINGS
from experiments._hyperparameter_search_report import WORDS, best_known, best_so_far, regrets
from nnjax.plotting import COLORS, band, figure, log_axis, style

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLOR = {"random": COLORS[1], "bayesian": COLORS[0], "sobol": COLORS[2], "grid": COLORS[4], "tpe": COLORS[3]}
_LINEAR = ("dropout", "smoothing")


def plot(results: xr.DataTree) -> dict[str, Figure]:
    """Every figure of the study, by name; ``regret`` is the one to look at first."""
    with style():
        return {"regret": _regret(results), "landscape": _landscape(results), "tested": _tested(results)}


def _note(results: xr.DataTree) -> str:
    facts = results["searches"].attrs
    return f"{facts['data']}, {facts['n']} examples, {facts['steps']} updates, {facts['batch']} trials at a time"


def _regret(results: xr.DataTree) -> Figure:
    made, axes = figure(1, 2, width=4.4, height=3.4)
    searches, known = results["searches"].to_dataset(), best_known(results)
    numbers = np.arange(1, searches.sizes["trial"] + 1)
    least = _floor(regrets(results))
    for name, so_far in zip(searches["sampler"].values.tolist(), best_so_far(searches), strict=True):
        look: dict[str, Any] = {"label": WORDS[name], "color": _COLOR[name], "median": True}
        whole = np.where(np.isfinite(so_far), so_far, np.nanmax(searches["value"].values))
        band(axes[0, 0], numbers, np.maximum(whole - known, least), **look)
        band(axes[0, 1], numbers, whole, **look)
    axes[0, 0].set(yscale="log", xlabel="trials", ylabel="regret, nats", title="above the least loss known")
    _plain_numbers(axes[0, 0])
    axes[0, 1].axhline(known, color="black", linestyle="--", linewidth=1.1, label=f"least known, {known:.3f}")
    axes[0, 1].set(yscale="log", xlabel="trials", ylabel="least validation loss, nats")
    _plain_numbers(axes[0, 1])
    handles, labels = axes[0, 1].get_legend_handles_labels()
    title = f"median and quartiles of {searches.sizes['seed']} seeds; {_note(results)}"
    made.legend(handles, labels, loc="outside lower center", ncols=6, title=title, title_fontsize=8)
    return made


def _floor(regret: dict[str, np.ndarray]) -> float:
    """What a regret of 0 is drawn as: half of the least that is not."""
    every = np.concatenate([each.ravel() for each in regret.values()])
    positive = every[np.isfinite(every) & (every > 0)]
    return float(positive.min()) / 2 if len(positive) else 1e-6


def _plain_numbers(axes: Axes) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator

    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(FuncFormatter(lambda value, _: ""))


def _landscape(results: xr.DataTree) -> Figure:
    """Validation loss against each hyper-parameter, over the reference's trials, and where searches ended."""
    made, axes = figure(2, 4, width=2.7, height=2.5)
    reference, searches = results["reference"].to_dataset(), results["searches"].to_dataset()
    ends = {name: _chosen(searches.sel(sampler=name)) for name in ("random", "bayesian")}
    top = 1.25 * np.log(10)  # a bit above what a guess costs: the rest is all alike
    for cell, (name, words) in zip(axes.ravel(), MEANINGS.items(), strict=False):
        cell.plot(reference[name], np.minimum(reference["value"], top), ".", color="0.6", markersize=2.5,
                  label="reference (Sobol)")  # fmt: skip
        for sampler, chosen in ends.items():
            fill = "full" if sampler == "bayesian" else "none"
            cell.plot(chosen[name], np.minimum(chosen["value"], top), "o", color=_COLOR[sampler], markersize=4,
                      fillstyle=fill, label=f"best of a {WORDS[sampler]} search")  # fmt: skip
        cell.set(xscale="linear" if name in _LINEAR else "log", yscale="log", xlabel=words)
        if name == "gain":  # less than two decades, whose own labels would overlap
            log_axis(cell, (0.25, 0.5, 1, 2, 4))
        _plain_numbers(cell)
    for cell in axes[:, 0]:
        cell.set_ylabel("validation loss, nats")
    axes[1, 3].axis("off")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    axes[1, 3].legend(handles, labels, loc="center", title=f"values above {top:.1f} are drawn there", title_fontsize=7)
    return made


def _chosen(searches: xr.Dataset) -> dict[str, np.ndarray]:
    """Value and hyper-parameters of the best trial of every seed."""
    value = searches["value"].transpose("seed", "trial").values
    at = np.argmin(np.where(np.isfinite(value), value, np.inf), axis=1)
    rows = np.arange(len(at))
    return {name: searches[name].transpose("seed", "trial").values[rows, at] for name in ("value", *MEANINGS)}


def _tested(results: xr.DataTree) -> Figure:
    """Test error of every search's choice, and validation loss when chosen against that when trained anew."""
    made, axes = figure(1, 2, width=4.0, height=3.0)
    tested, searches = results["tested"].to_dataset(), results["searches"].to_dataset()
    names = tested["sampler"].values.tolist()
    final = dict(zip(names, best_so_far(searches)[..., -1], strict=True))
    for place, name in enumerate(names):
        own = tested.sel(sampler=name).mean("run")
        error, loss = own["test_error"].values, own["validation_loss"].values
        spread = np.linspace(-0.2, 0.2, len(error))
        axes[0, 0].plot(place + spread, np.sort(error), "o", color=_COLOR[name], markersize=4, fillstyle="none")
        axes[0, 0].plot([place - 0.3, place + 0.3], [np.median(error)] * 2, color=_COLOR[name], linewidth=2)
        axes[0, 1].plot(final[name], loss, "o", color=_COLOR[name], markersize=4, label=WORDS[name])
    axes[0, 0].set_xticks(range(len(names)), [WORDS[name] for name in names])
    axes[0, 0].set(ylabel="test error of the choice", title="each tested once; bars are medians", ylim=(0, None))
    limits = (*axes[0, 1].get_xlim(), *axes[0, 1].get_ylim())
    ends = [min(limits), max(limits)]
    axes[0, 1].plot(ends, ends, color="black", linestyle="--", linewidth=1)
    axes[0, 1].set(xlabel="validation loss when chosen", ylabel="with other initial weights",
                   title="what is chosen looks better than it is")  # fmt: skip
    axes[0, 1].legend()
    return made
