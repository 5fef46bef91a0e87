"""Figures of the backpropagation study: views of its labelled results."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nnjax.plotting import COLORS, band, figure, log_axis, mark, style, theory
from nnjax.statistics import t_interval

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ROUNDING = {"float32": 2.0**-23, "float64": 2.0**-52}
"""Distance from 1 to the next number (eps)."""


def plot(results: xr.DataTree) -> dict[str, Figure]:
    """Every figure of the study, by name; ``agreement`` is the one to look at first."""
    with style():
        return {
            "agreement": _agreement(results["agreement"].to_dataset(), results["differences"].to_dataset()),
            "example": _example(results["example"].to_dataset()),
            "batch_forms": _forms(results["batch_forms"].to_dataset()),
            "back_percolation": _percolation(results["percolation"].to_dataset(), results["online"].to_dataset()),
            "depth_and_symmetry": _signals(results["vanishing"].to_dataset(), results["symmetry"].to_dataset()),
        }


# The example


def _example(results: xr.Dataset) -> Figure:
    made, (row,) = figure(1, 3, width=3.9)
    loss, outputs, gap = row
    update = results["update"].values
    at = np.maximum(update, 0.5)  # a place for 0 on a logarithmic axis
    for color, biases in zip(COLORS, (0.0, 1.0), strict=False):
        here = results.sel(biases=biases)
        what = "weights and biases" if biases else "weights only"
        loss.plot(at, here["hand_loss"], color=color, label=f"by hand, {what}")
        theory(loss, at, here["autodiff_loss"].values, label="by autodiff" if biases else None)
    published = {1: 0.291027924, update[-1]: 0.0000351085}
    loss.plot([*published], [*published.values()], "k*", markersize=7, label="published, weights only", zorder=6)
    loss.set(xscale="log", yscale="log", ylabel="half squared error", title="2-2-2 example: loss")
    loss.legend(loc="lower left")
    alone = results.sel(biases=0.0)
    for unit, (color, target) in enumerate(zip(COLORS, (0.01, 0.99), strict=False)):
        outputs.plot(at, alone["hand_output"].isel(unit=unit), color=color, label=f"output {unit + 1}")
        theory(outputs, at, np.full(len(at), target), label="targets" if unit else None, linestyle=":")
    outputs.set(xscale="log", ylabel="output", title="its outputs, weights only", ylim=(-0.03, 1.03))
    outputs.legend(loc="center left")
    for color, rule, label in ((COLORS[1], "slip", "with the slip"), (COLORS[0], "hand", "by hand")):
        apart = abs(alone[f"{rule}_parameters"] - alone["autodiff_parameters"]).max("parameter")
        gap.plot(at, apart, color=color, label=label)
    gap.set_yscale("symlog", linthresh=1e-16)
    gap.set_yticks([0, 1e-15, 1e-12, 1e-9, 1e-6, 1e-3])
    gap.set(xscale="log", ylabel="largest difference", title="distance from autodiff's parameters")
    gap.legend(loc="center right")
    for cell in row:
        cell.set_xticks([0.5, 1, 10, 100, 1000, 10_000], ["0", "1", "10", "100", "1,000", "10,000"])
        cell.set(xlabel="updates", xlim=(0.4, 1.4 * update[-1]))
    return made


# Agreement


def _agreement(results: xr.Dataset, differences: xr.Dataset) -> Figure:
    names = results["activation"].values
    made, (row,) = figure(1, 1 + len(names), width=3.0, height=3.3)
    depth = results["depth"].values
    largest = results["gap"].max("seed")
    for precision, eps in ROUNDING.items():
        for color, name in zip(COLORS, names, strict=False):
            curve = largest.sel(activation=name, precision=precision)
            row[0].plot(depth, curve, "o-", markersize=4, color=color, label=name if precision == "float64" else None)
        row[0].axhline(eps, color="0.4", linestyle=":", linewidth=1)
        row[0].annotate(f"{precision}: eps", (depth[0], 1.6 * eps), fontsize=7)
    log_axis(row[0], depth.tolist())
    row[0].set(xlabel="layers of weights", yscale="log", ylim=(1e-17, 1e-5))
    row[0].set(ylabel="|hand - autodiff| / |autodiff|", title="by hand against autodiff")
    row[0].legend(loc="center", title=f"largest of {results.sizes['seed']} nets", title_fontsize=8)
    step = differences["step"].values
    for color, name, cell in zip(COLORS, names, row[1:], strict=False):
        here = differences.sel(activation=name)
        band(cell, step, here["measured"].transpose("seed", "step").values, label="measured", color=color, median=True)
        theory(cell, step, here["predicted"].median("seed").values, label="theory")
        cell.set(xscale="log", yscale="log", xlabel="step h", ylim=(1e-13, 1), title=f"central differences, {name}")
        cell.set_xticks([1e-12, 1e-8, 1e-4, 1])
        cell.annotate(r"$\epsilon\,|f|/h$", (1e-10, 2e-4), fontsize=8)
        cell.annotate(r"$h^2|D^3f|/6$", (2e-3, 1e-6), fontsize=8, ha="right")
        cell.legend(loc="lower left")
    row[1].set_ylabel("|difference quotient - slope|")
    return made


# Batch forms


def chosen(results: xr.Dataset) -> dict[str, float]:
    """Each form's learning rate with the least final validation loss, mean over seeds; the first if all are lost."""
    mean = results["validation_loss"].isel(mark=-1).mean("seed")
    best = {str(form): mean.sel(form=form).fillna(np.inf).values.argmin() for form in results["form"].values}
    return {form: float(results["rate"].values[place]) for form, place in best.items()}


def _forms(results: xr.Dataset) -> Figure:
    made, (row,) = figure(1, 3, width=3.9, height=3.2)
    rates = chosen(results)
    n = float(results.attrs["n"])
    for color, (form, rate) in zip(COLORS, rates.items(), strict=False):
        here = results.sel(form=form, rate=rate)
        loss = here["train_loss"].transpose("seed", "mark").values[:, 1:]
        updates = here["updates"].values[1:]
        label = f"{form}, rate {rate:g}"
        band(row[0], updates * np.minimum(float(here["examples"]), n), loss, label=label, color=color, marker=".")
        band(row[1], updates, loss, label=label, color=color, marker=".")
        curve = results["validation_loss"].sel(form=form).isel(mark=-1).transpose("seed", "rate").values
        band(row[2], results["rate"].values, curve, label=form, color=color)
        row[2].plot(rate, curve.mean(axis=0)[list(results["rate"].values).index(rate)], "o", color=color)
    mark(row[0], n, "1 epoch")
    where = f"{results.attrs['data']}, n = {results.attrs['n']}"
    row[0].set(xlabel="examples presented", ylabel="training cross-entropy, nats", title=f"{where}: by examples")
    row[1].set(xlabel="updates", ylabel="training cross-entropy, nats", title="the same by updates")
    row[2].set(xlabel="learning rate", ylabel="validation cross-entropy, nats", title="choice of the learning rate")
    top = float(results["validation_loss"].isel(mark=0).max())
    row[2].set_ylim(top / 300, 2 * top)
    for cell in row:
        cell.set(xscale="log", yscale="log")
    row[0].legend(loc="lower left", title=f"mean, 95 % of {results.sizes['seed']} seeds", title_fontsize=8)
    row[2].legend(loc="lower left")
    return made


# Back-percolation


def solved(results: xr.Dataset) -> np.ndarray:
    """Epochs to solve from the starts after those that choose learning rates, infinite where unsolved."""
    epochs = results["epochs"].isel(seed=slice(int(results.attrs["selection"]), None)).values.astype(float)
    return np.where(epochs < 0, np.inf, epochs)


def best_setting(online: xr.Dataset, problem: str) -> dict[str, float]:
    """Backpropagation's range of the start and learning rate (``start``, ``rate``) of least median epochs.

    Judged by the first starting weights only; ties go to the smaller mean.
    """
    first = online["epochs"].sel(problem=problem).isel(seed=slice(int(online.attrs["selection"])))
    epochs = first.transpose("start", "rate", "seed").values.astype(float)
    limit = float(online.attrs["limit"])
    capped = np.where(epochs < 0, 2 * limit, epochs).reshape(-1, epochs.shape[-1])  # unsolved: beyond the limit
    best = np.lexsort((capped.mean(axis=1), np.median(capped, axis=1)))[0]
    row, column = np.unravel_index(best, epochs.shape[:2])
    return {"start": float(online["start"].values[row]), "rate": float(online["rate"].values[column])}


def _cumulative(axes: Axes, epochs: np.ndarray, label: str, color: str, limit: float) -> None:
    inside = np.sort(epochs[np.isfinite(epochs)])
    share = np.arange(1, len(inside) + 1) / len(epochs)
    at, share = np.concatenate([[1], inside, [limit]]), np.concatenate([[0], share, share[-1:] if len(share) else [0]])
    axes.step(np.maximum(at, 1), share, where="post", color=color, label=label)


def _percolation(results: xr.Dataset, online: xr.Dataset) -> Figure:
    made, (row,) = figure(1, 3, width=3.9, height=3.2)
    start, limit = float(results.attrs["start"]), float(results.attrs["limit"])
    titles = {"xor": "XOR, 2-4-1", "encoder": "8-5-8 encoder"}
    for cell, (problem, title) in zip(row, titles.items(), strict=False):
        ours = solved(results.sel(problem=problem, start=start))
        best = best_setting(online, problem)
        theirs = solved(online.sel({"problem": problem, **best}))
        _cumulative(cell, ours, f"back-percolation, s = {start:g}", COLORS[0], limit)
        label = f"backpropagation, s = {best['start']:g}, rate {best['rate']:g}"
        _cumulative(cell, theirs, label, COLORS[1], limit)
        cell.set(xlabel="epochs, online", ylabel=f"share of {len(ours)} starts solved", title=title, ylim=(0, 1.25))
        cell.set_yticks(np.linspace(0, 1, 6))
        log_axis(cell, (1, 2, 5, 10, 20, 50, 100, 200, 500))
        cell.legend(loc="upper left")
    right = row[2]
    ranges = results["start"].values
    for color, (problem, title) in zip(COLORS[2:], titles.items(), strict=False):
        here = results.sel(problem=problem)
        share = [np.isfinite(solved(here.sel(start=s))).mean() for s in ranges]
        right.plot(ranges, share, "o-", color=color, label=title)
    right.axhline(19 / 20, color="0.4", linestyle=":", linewidth=1)
    right.annotate("XOR, reference run: 19 of 20", (ranges[-1], 0.94), ha="right", va="top", fontsize=7)
    log_axis(right, ranges.tolist())
    right.set(xlabel="range s of the start, U(-s, s)/fan_in", ylabel=f"share solved in {limit:g} epochs")
    right.set(title="back-percolation by start", ylim=(0, 1.03))
    right.legend(loc="lower right")
    return made


# Signals


def _signals(vanishing: xr.Dataset, symmetry: xr.Dataset) -> Figure:
    made, (row,) = figure(1, 2, width=4.2, height=3.2)
    left, right = row
    depth = vanishing["depth"].values
    for number, (color, name) in enumerate(zip(COLORS, vanishing["activation"].values, strict=False)):
        here = vanishing.sel(activation=name)
        mean, low, high = t_interval(here["ratio"].transpose("seed", "depth").values)
        left.errorbar(
            depth, mean, np.stack([mean - low, high - mean]), fmt="o", markersize=5, color=color, label=str(name)
        )
        theory(left, depth, here["theory"].values, label=None if number else "infinite width")
    left.set(yscale="log", xlabel="hidden layers", ylabel="rms delta, first over last hidden layer", xticks=depth)
    left.set_title(f"deltas through depth, {vanishing.attrs['width']} units a layer")
    left.legend(loc="lower left")
    for color, spread in zip(COLORS, symmetry["spread"].values, strict=False):
        distance = symmetry["distance"].sel(spread=spread)
        right.plot(symmetry["epoch"].values, distance, color=color, label=f"{spread:g}")
    right.set_yscale("symlog", linthresh=1e-10)
    right.set_yticks([0, 1e-9, 1e-6, 1e-3, 1])
    right.set(xlabel="epochs, batch", ylabel="largest difference between hidden units")
    right.set_title("XOR from hidden units that start alike")
    right.legend(loc="center right", title="difference at the start", title_fontsize=8)
    return made
