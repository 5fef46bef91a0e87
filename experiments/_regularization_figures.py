"""Figures of the regularization study: views of its labelled results."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from experiments._regularization_lanes import NEAR_ZERO
from experiments._regularization_measures import PATIENCE, TRAINS, ablations, chosen, diagnosis, middle, stop, values
from nnjax.plotting import COLORS, band, figure, log_axis, mark, style, theory
from nnjax.statistics import t_interval

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TEST, TRAIN, VALIDATION, MEMORIZED = COLORS[:4]


def plot(results: xr.DataTree) -> dict[str, Figure]:
    """Every figure of the study, by name; ``regularization`` is the one to look at first."""
    panels = {name: results[name].to_dataset() for name in results.children}
    with style():
        return {
            "regularization": _paths(panels["l2"], panels["l1"], panels["dropout"]),
            "early_stopping": _stopping(panels["early_stopping"], panels["linear"]),
            "batches": _batches(panels["batch_norm"], panels["batch_size"]),
            "recipe": _recipe(panels["recipe"]),
            "learning_curves": _learning_curves(panels["learning_curves"]),
        }


def _note(panel: xr.Dataset) -> str:
    return f"{panel.attrs['data']}, {panel.attrs['n']} examples, {100 * panel.attrs['noise']:g} % wrong labels"


def _seeds(panel: xr.Dataset) -> str:
    return f"mean and 95 % t-interval of {panel.sizes['seed']} seeds"


def _level(axes: Axes, height: float, text: str) -> None:
    """A horizontal line with its meaning beside it, outside the axes."""
    axes.axhline(height, color="0.4", linestyle=":", linewidth=1)
    axes.annotate(
        text, (1.01, height), xycoords=("axes fraction", "data"), va="center", fontsize=7, color="0.4"
    )  # fmt: skip


def _categories(axes: Axes, labels: Any) -> np.ndarray:
    """Evenly spaced places with ``labels`` as ticks: strengths begin with 0, which no logarithm shows."""
    places = np.arange(len(labels))
    axes.set_xticks(places, [f"{x:g}" if x == 0 or x >= 0.01 else f"{x:.0e}".replace("e-0", "e-") for x in labels])
    return places


# Paths of strengths


def _paths(l2: xr.Dataset, l1: xr.Dataset, dropout: xr.Dataset) -> Figure:
    made, axes = figure(2, 3, height=2.7)
    plain = l2.sel(per_sample=0, drop=True)
    arms = ((plain, "strength", "L2 strength"), (l1, "strength", "L1 strength"), (dropout, "rate", "dropout rate"))
    for cell, (panel, axis, label) in zip(axes[0], arms, strict=True):
        _path(cell, panel, axis, label)
    _norms(axes[1, 0], l2)
    _sparsity(axes[1, 1], l1, plain)
    _diagnosis(axes[1, 2], dropout)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    note = f"top row; {_note(l2)}; {_seeds(l2)}"
    made.legend(handles, labels, loc="outside lower center", ncols=4, title=note, title_fontsize=8)
    return made


def _path(axes: Axes, panel: xr.Dataset, axis: str, label: str) -> None:
    places = _categories(axes, panel[axis].values)
    lines = {
        "test error (clean labels)": ("test_error", TEST), "training error": ("train_error", TRAIN),
        "validation error": ("validation_error", VALIDATION), "wrong labels memorized": ("memorized", MEMORIZED),
    }  # fmt: skip
    for words, (name, color) in lines.items():
        band(axes, places, values(panel[name].transpose("seed", axis)), label=words, color=color)
    picked = np.searchsorted(panel[axis].values, values(chosen(panel, axis)[axis]))
    mark(axes, float(np.median(picked)), "chosen (median)")
    axes.set(xlabel=label, ylabel="share", ylim=(-0.02, 1.02))


def _norms(axes: Axes, panel: xr.Dataset) -> None:
    places = _categories(axes, panel["strength"].values)
    norm = panel["norm"].transpose("per_sample", "seed", "strength").values
    band(axes, places, norm[0], label="ν Σw²", color=COLORS[0])
    axes.plot(places, norm[1].mean(0), "o", markersize=5, fillstyle="none", color="black", label="λ/2m Σ‖W‖², λ = 2mν")
    axes.set(xlabel="L2 strength ν", ylabel="norm of all weights", ylim=(0, None), title="two conventions, one path")
    axes.legend()


def _sparsity(axes: Axes, l1: xr.Dataset, l2: xr.Dataset) -> None:
    for panel, words, color in ((l1, "L1", COLORS[0]), (l2, "L2", COLORS[1])):
        near = values(panel["near_zero"].transpose("seed", "strength"))
        strength = panel["strength"].values
        band(axes, strength[1:], near[:, 1:], label=words, color=color, marker="o", markersize=3)
        picked = float(np.median(chosen(panel, "strength")["strength"]))
        mark(axes, picked, f"{words} chosen", color=color)
    axes.set(xscale="log", xlabel="strength", ylabel="share of weights near zero", ylim=(-0.02, 1.02))
    axes.legend(title=f"|w| ≤ {NEAR_ZERO:g} of the largest", title_fontsize=8, loc="upper left")


def _diagnosis(axes: Axes, panel: xr.Dataset) -> None:
    places = _categories(axes, panel["rate"].values)
    for name, words, color in (
        ("running_loss", "training, under dropout", TRAIN), ("validation_loss", "validation", VALIDATION)
    ):  # fmt: skip
        band(axes, places, values(panel[name].transpose("seed", "rate")), label=words, color=color)
    axes.set(xlabel="dropout rate", ylabel="cross-entropy, nats", title="too much: training is the worse")
    axes.set_ylim(0, 1.35 * axes.dataLim.y1)  # room for the legend
    axes.legend()


# Stopping


def _stopping(panel: xr.Dataset, linear: xr.Dataset) -> Figure:
    made, axes = figure(2, 2, width=4.3, height=2.8)
    _epochs(axes[0, 0], panel)
    _criteria(axes[0, 1], panel)
    _ridge(axes[1, 0], linear)
    _flow(axes[1, 1], linear)
    return made


def _epochs(axes: Axes, panel: xr.Dataset) -> None:
    epochs = panel["epoch"].values
    lines = {"test": TEST, "training": TRAIN, "validation": VALIDATION}
    for split, color in lines.items():
        name = {"training": "train"}.get(split, split)
        band(axes, epochs, values(panel[f"{name}_error"].transpose("seed", "epoch")), label=split, color=color)
    best = values(panel["validation_loss"].transpose("seed", "epoch")).argmin(1)
    mark(axes, float(np.median(epochs[best])), "least validation loss (median)")
    log_axis(axes, [tick for tick in (1, 3, 10, 30, 100, 300) if tick <= epochs[-1]])
    axes.set(xlabel="epochs", ylabel="error", ylim=(0, None))
    axes.legend(title=f"{panel.attrs['data']}, {panel.sizes['seed']} seeds", title_fontsize=8)


def _criteria(axes: Axes, panel: xr.Dataset) -> None:
    """Test error of what each criterion returns, a line a seed."""
    loss, error = (values(panel[name].transpose("seed", "epoch")) for name in ("validation_loss", "test_error"))
    seeds = np.arange(len(loss))
    columns = {f"patience {p}": np.array([stop(curve, p) for curve in loss]) for p in PATIENCE}
    found = {words: (error[seeds, ends[:, 1]], ends[:, 0] + 1) for words, ends in columns.items()}
    found["best of all"] = (error[seeds, loss.argmin(1)], np.full(len(seeds), error.shape[1]))
    found["last epoch"] = (error[:, -1], np.full(len(seeds), error.shape[1]))
    table = np.stack([each for each, _ in found.values()], axis=1)
    axes.plot(np.arange(len(found)), table.T, color="0.75", linewidth=0.8)
    mean, low, high = t_interval(table)
    axes.errorbar(np.arange(len(found)), mean, [mean - low, high - mean], fmt="o", color=TEST, zorder=5)
    labels = [f"{words}\n{ends.mean():.0f} epochs" for words, (_, ends) in found.items()]
    axes.set_xticks(np.arange(len(found)), labels)
    axes.set(ylabel="test error", title="what is returned (a line a seed; mean, 95 %)", xlim=(-0.4, len(found) - 0.6))


def _ridge(axes: Axes, panel: xr.Dataset) -> None:
    strength = panel["strength"].values[1:]
    risk = values(panel["ridge"].transpose("seed", "strength"))[:, 1:]
    _points(axes, strength, risk, "trained with the penalty", COLORS[0])
    theory(axes, strength, panel["ridge_exact"].mean("seed").values[1:], label="ridge, closed form")
    log_axis(axes, (0.01, 0.1, 1, 10))
    axes.set(xlabel="L2 strength λ", ylabel="excess risk / signal", ylim=(0, None))
    axes.set_title(f"linear regression, {panel.attrs['n']} examples, {panel.attrs['p']} inputs")
    axes.legend()


def _flow(axes: Axes, panel: xr.Dataset) -> None:
    time = panel["time"].values
    _points(axes, time, values(panel["stopped"].transpose("seed", "time")), "gradient descent", COLORS[1])
    theory(axes, time, panel["stopped_exact"].mean("seed").values, label="gradient flow, closed form")
    at_time = panel["ridge_at_time"].mean("seed").values
    theory(axes, time, at_time, label="ridge at λ = 1/t", linestyle=":", color="0.4")
    log_axis(axes, (0.01, 0.1, 1, 10, 100))
    axes.set(xlabel="stopping time t = learning rate × updates", ylabel="excess risk / signal", ylim=(0, None))
    axes.set_title(f"stopping is a penalty; {panel.sizes['seed']} data sets")
    axes.legend()


def _points(axes: Axes, x: np.ndarray, samples: np.ndarray, label: str, color: str) -> None:
    """Means with their 95 % t-intervals, drawn as points so that the theory line is seen."""
    mean, low, high = t_interval(samples)
    axes.errorbar(x, mean, [mean - low, high - mean], fmt="o", markersize=3, color=color, label=label, linewidth=1)


# Batches


def _batches(norm: xr.Dataset, size: xr.Dataset) -> Figure:
    made, axes = figure(2, 2, width=4.3, height=2.7)
    rates = norm["rate"].values
    for cell, name in zip(axes[0], ("train_loss", "test_error"), strict=True):
        for color, arm in zip(COLORS, norm["normalize"].values, strict=False):
            samples = values(norm[name].sel(normalize=arm).transpose("seed", "rate"))
            band(
                cell,
                rates,
                samples,
                label={"none": "no batch norm"}.get(str(arm), f"{arm} the activation"),
                color=color,
            )
        log_axis(cell, [rate for rate in (0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10) if rates[0] <= rate <= rates[-1]])
        cell.set_xlabel("learning rate of gradient descent")
    axes[0, 0].set(ylabel="final training loss, nats", ylim=(0, 2.5))
    _level(axes[0, 0], TRAINS * np.log(10), "trains")
    axes[0, 1].set(ylabel="test error", ylim=(0, 1))
    axes[0, 1].legend(loc="upper left", title="left: a line ends where a net diverges", title_fontsize=8)
    axes[0, 0].set_title(_note(norm))
    _equal(axes[1, 0], size)
    _sharp(axes[1, 1], size)
    return made


def _equal(axes: Axes, panel: xr.Dataset) -> None:
    sizes = panel["batch"].values
    names = {
        "epochs": "equal epochs",
        "updates": "equal updates",
        "loss": f"training loss {panel.attrs['loss']:g} nats",
    }
    for shift, color, (equal, words) in zip((0.93, 1, 1.07), COLORS, names.items(), strict=False):
        error = values(chosen(panel.sel(equal=equal), "rate")["test_error"].transpose("seed", "batch"))
        mean, low, high = t_interval(error)
        axes.errorbar(
            sizes * shift,
            mean,
            [mean - low, high - mean],
            marker="o",
            markersize=3,
            color=color,
            label=words,
            capsize=2,
        )
    log_axis(axes, list(sizes))
    axes.set(xlabel="batch size", ylabel="test error at the chosen rate", ylim=(0, None), title=_seeds(panel))
    axes.legend()


def _sharp(axes: Axes, panel: xr.Dataset) -> None:
    best = chosen(panel.sel(equal="updates"), "rate")
    sharp = np.abs(values(best["sharpness"].transpose("seed", "batch")))
    mean, low, high = np.exp(t_interval(np.log(sharp)))
    sizes = panel["batch"].values
    axes.errorbar(sizes, mean, [mean - low, high - mean], marker="o", markersize=3, color=COLORS[1], capsize=2)
    log_axis(axes, list(sizes))
    axes.set(
        xlabel="batch size", ylabel="largest Hessian eigenvalue", ylim=(0, None), title="sharpness after equal updates"
    )


# Recipe and learning curves


def _recipe(panel: xr.Dataset) -> Figure:
    made, axes = figure(width=5.6, height=3.0)
    cell, found = axes[0, 0], ablations(panel)
    full = float(chosen(panel, "rate")["test_error"].isel(variant=0).mean())
    for place, (gap, interval) in enumerate(found.values()):
        cell.plot(gap, np.full(len(gap), place), "o", markersize=3, color="0.7")
        ends = [[interval.mean - interval.low], [interval.high - interval.mean]]
        cell.errorbar([interval.mean], [place], xerr=ends, fmt="o", color=COLORS[0], capsize=3, zorder=5)
    cell.set_yticks(np.arange(len(found)), list(found))
    cell.invert_yaxis()
    mark(cell, 0.0, f"full recipe ({full:.3f})")
    cell.set_xlabel(f"test error, changed minus full recipe\n(gray: {panel.sizes['seed']} seeds; 95 % for all at once)")
    made.suptitle(_note(panel), fontsize=9)
    return made


def _learning_curves(panel: xr.Dataset) -> Figure:
    made, axes = figure(1, 3)
    n, noise = middle(panel), panel.attrs["noise"]
    arms = {
        "no penalty": panel.isel(strength=0),
        "chosen penalty": chosen(panel, "strength"),
        f"L2 strength {float(panel['strength'][-1]):g}": panel.isel(strength=-1),
    }
    for cell, (title, arm) in zip(axes[0], arms.items(), strict=True):
        lines = (("training", "train_error", TRAIN), ("validation", "validation_error", VALIDATION))
        for words, name, color in (*lines, ("test (clean labels)", "test_error", TEST)):
            band(cell, panel["n"].values, values(arm[name].transpose("seed", "n")), label=words, color=color)
        cell.set(xlabel="training examples", ylabel="error", ylim=(0, 1))
        cell.set_title(f"{title}: {diagnosis(arm, n, noise)} at {n}")
        log_axis(cell, panel["n"].values.tolist())
        _level(cell, noise, "label\nnoise")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    note = f"{panel.attrs['data']}; {_seeds(panel)}"
    made.legend(handles, labels, loc="outside lower center", ncols=3, title=note, title_fontsize=8)
    return made
