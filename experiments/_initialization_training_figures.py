"""Figures of the initialisation study's training panels: training, depth, arms, cnn."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from experiments._initialization_signal_figures import LOOK
from experiments._initialization_training_lanes import ARM_SCHEMES, ARMS
from experiments._initialization_training_report import LEARNED, steps_to
from nnjax.plotting import COLORS, band, figure, log_axis, style
from nnjax.statistics import t_interval

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LOOKS: dict[str, dict[str, Any]] = {
    "he_normal": {"color": LOOK["he_normal"][0], "label": "He"},
    "xavier_normal": {"color": LOOK["xavier_normal"][0], "label": "Xavier"},
    "orthogonal": {"color": COLORS[4], "label": "orthogonal"},
    "delta_orthogonal": {"color": COLORS[5], "label": "delta-orthogonal"},
    "small_normal": {"color": LOOK["small_normal"][0], "label": "N(0, 0.01²)"},
    "standard_normal": {"color": LOOK["standard_normal"][0], "label": "N(0, 1)"},
    "zeros": {"color": "0.45", "label": "zeros", "linestyle": (0, (4, 4))},
}
"""A scheme's look in these figures, in the order of legends; the color of a variance is that of the signal figures."""

_TICKS = (1, 3, 10, 30, 100, 300, 1000, 3000, 10_000, 30_000)

ARM_TITLES = {
    "sgd": "SGD with momentum alone", "adam": "Adam", "batch_norm": "batch normalization",
    "residual": "residual, no normalization", "pretrained": "layer-wise pre-training", "lsuv": "LSUV",
}  # fmt: skip


def plot(tree: xr.DataTree) -> dict[str, Figure]:
    """Every figure of these panels, by name; ``training`` is the one to look at first."""
    training, arms = tree["training"].to_dataset(), tree["arms"].to_dataset()
    with style():
        return {
            "training": _training(training),
            "depth": _depth(training),
            "arms": _arms(arms, training),
            "cnn": _cnn(tree["cnn"].to_dataset()),
        }


def _curves(axes: Axes, found: xr.Dataset) -> None:
    """Training accuracy over steps, a band a scheme; the step 0 has no place on a logarithmic axis."""
    later = found.isel(step=slice(1, None))
    for name in _present(found):
        curve = _accuracy(later.sel(scheme=name)).transpose("seed", "step").values
        band(axes, later["step"].values, curve, **LOOKS[name])
    _chance(axes)
    steps = later["step"].values
    log_axis(axes, [tick for tick in _TICKS if steps[0] <= tick <= steps[-1]])
    axes.set(ylim=(-0.02, 1.02), xlim=(steps[0], max(steps[-1], steps[0] + 1)))


def _present(found: xr.Dataset) -> list[str]:
    return [scheme for scheme in LOOKS if scheme in found["scheme"].values]


def _accuracy(found: xr.Dataset) -> xr.DataArray:
    """Training accuracy where there is one: logits that are not finite say nothing."""
    return found["train_accuracy"].where(np.isfinite(found["train_loss"]))


def _chance(axes: Axes) -> None:
    axes.axhline(0.1, color="black", linestyle="--", linewidth=0.9, zorder=1)


def _shared_legend(made: Figure, axes: Axes, found: xr.Dataset) -> None:
    """One legend below; a scheme none of whose runs stayed finite is said to have diverged."""
    handles, labels = axes.get_legend_handles_labels()
    lost = {LOOKS[name]["label"] for name in _present(found) if bool(found["diverged"].sel(scheme=name).all())}
    labels = [f"{label} (diverged)" if label in lost else label for label in labels]
    made.legend(handles, labels, loc="outside lower center", ncols=7)


def _where(found: xr.Dataset) -> str:
    facts = found.attrs
    return f"{facts['data']}, {facts['n']} examples, {facts['width']} units a layer"


def _training(found: xr.Dataset) -> Figure:
    depths = found["depth"].values
    made, axes = figure(1, len(depths), width=2.5, height=3.2)
    for place, depth in enumerate(depths):
        ax = axes[0, place]
        _curves(ax, found.sel(depth=depth))
        ax.set_title(f"{depth} hidden layers, rate {float(found['rate'].sel(depth=depth)):g}", fontsize=8.5)
        ax.set(xlabel="step", ylabel="training accuracy" if place == 0 else "")
        ax.tick_params(labelleft=place == 0)
    axes[0, 0].annotate("chance", (1, 0.1), (-3, 2), xycoords=("axes fraction", "data"), textcoords="offset points",
                        ha="right", fontsize=7)  # fmt: skip
    made.suptitle(f"ReLU nets, SGD with momentum .9: {_where(found)}; bands: 95 % over seeds", fontsize=9)
    _shared_legend(made, axes[0, 0], found)
    return made


def _depth(found: xr.Dataset) -> Figure:
    made, axes = figure(1, 2, width=4.4, height=3.4)
    final, speed = axes[0]
    depths, budget = found["depth"].values, int(found["step"].values[-1])
    names = _present(found)
    for number, name in enumerate(names):
        aside = depths * 1.02 ** (number - (len(names) - 1) / 2)  # so that equal points stay apart
        one = _accuracy(found.sel(scheme=name)).transpose("depth", "seed", "step").values
        middle, low, high = t_interval(one[..., -1], axis=1)
        final.errorbar(
            aside, middle, [middle - low, high - middle], marker="o", markersize=4, capsize=2, linewidth=1.2,
            **LOOKS[name],
        )  # fmt: skip
        steps = steps_to(one, found["step"].values)
        if np.isfinite(steps).any():
            _steps(speed, aside, steps, budget, LOOKS[name])
    _chance(final)
    final.annotate("chance", (1, 0.1), (-3, 3), xycoords=("axes fraction", "data"), textcoords="offset points",
                   ha="right", fontsize=7)  # fmt: skip
    final.set(ylim=(-0.02, 1.04), ylabel=f"training accuracy after {budget} steps")
    speed.axhline(budget, color="black", linestyle=":", linewidth=1)
    speed.annotate(f"budget: {budget} steps", (0, budget), (4, -10), xycoords=("axes fraction", "data"),
                   textcoords="offset points", fontsize=7)  # fmt: skip
    log_axis(speed, [tick for tick in _TICKS if tick <= budget], which="y")
    speed.set(ylabel=f"steps to a training accuracy of {LEARNED:g}")
    speed.set_title("line: median; dots: seeds; crosses: not within the budget", fontsize=8.5)
    for ax in axes[0]:
        log_axis(ax, [int(depth) for depth in depths])
        ax.set_xlabel("hidden layers")
    made.suptitle(f"SGD with momentum .9, {_where(found)}", fontsize=9)
    _shared_legend(made, final, found)
    return made


def _steps(axes: Axes, depths: np.ndarray, steps: np.ndarray, budget: int, look: dict[str, Any]) -> None:
    """Medians where most seeds got there, a dot a seed, and above the budget a cross where none or only some did."""
    median = np.median(steps, axis=1)
    axes.plot(depths, np.where(np.isfinite(median), median, np.nan), linewidth=1.2, color=look["color"])
    for depth, those in zip(depths, steps, strict=True):
        there = those[np.isfinite(those)]
        axes.plot(np.full(len(there), depth), there, "o", markersize=3, alpha=0.7, color=look["color"])
        if len(there) < len(those):
            axes.plot(depth, 1.25 * budget, "x", markersize=5, color=look["color"])


def _arms(found: xr.Dataset, training: xr.Dataset) -> Figure:
    made, axes = figure(2, 3, width=2.9, height=2.5)
    depth = int(found.attrs["depth"])
    panels: dict[str, xr.Dataset] = {}
    marks = training["step"].values
    if depth in training["depth"].values and ((marks > 0) & (marks <= found.attrs["steps"])).any():
        panels["sgd"] = training.sel(depth=depth, scheme=list(ARM_SCHEMES), step=slice(0, found.attrs["steps"]))
    panels |= {arm: found.sel(arm=arm) for arm in ARMS}
    for ax, (arm, one) in zip(axes.flat, panels.items(), strict=False):
        _curves(ax, one)
        lost = [LOOKS[name]["label"] for name in _present(one) if bool(one["diverged"].sel(scheme=name).all())]
        if lost:
            ax.text(0.97, 0.5, f"diverged: {', '.join(lost)}", transform=ax.transAxes, ha="right", fontsize=7.5)
        ax.set_title(f"{ARM_TITLES[arm]}, rate {float(one['rate']):g}", fontsize=8.5)
        ax.set(xlabel="step", ylabel="training accuracy")
        ax.label_outer()
    for ax in axes.flat[len(panels) :]:
        ax.set_visible(False)
    made.suptitle(f"{depth} ReLU layers, {_where(found)}; bands: 95 % over seeds", fontsize=9)
    _shared_legend(made, axes[0, 0], found)
    return made


def _cnn(found: xr.Dataset) -> Figure:
    made, axes = figure(1, 3, width=3.3, height=3.1)
    layers = found["layer"].values
    for name in _present(found):
        one = found.sel(scheme=name)
        for ax, variable in zip(axes[0], ("length", "delta"), strict=False):
            # Means of logarithms: sizes that grow by factors.
            middle, low, high = np.exp(t_interval(np.log(one[variable].transpose("seed", "layer").values)))
            ax.plot(layers, middle, marker=".", markersize=3, **LOOKS[name])
            ax.fill_between(layers, low, high, color=LOOKS[name]["color"], alpha=0.2, linewidth=0)
    _curves(axes[0, 2], found)
    axes[0, 0].set(yscale="log", xlabel="layer", title="signal at the start", ylabel="mean square of pre-activations")
    axes[0, 1].set(yscale="log", xlabel="layer", title="gradient at the start", ylabel="rms of dloss/dpre-activation")
    rate = float(found["rate"][0])
    axes[0, 2].set(xlabel="step", ylabel="training accuracy", title=f"training, rate {rate:g}")
    for ax in axes[0, :2]:
        ax.xaxis.get_major_locator().set_params(integer=True)
    facts = found.attrs
    made.suptitle(
        f"tanh, {facts['depth']} convolutions of {facts['width']} channels, {facts['data']}; bands: 95 % over seeds",
        fontsize=9,
    )
    _shared_legend(made, axes[0, 0], found)
    return made
