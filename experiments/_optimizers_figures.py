"""Figures of the optimizers study: views of its labelled results."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from experiments._optimizers_encoder_rows import PUBLISHED, REFERENCE, solved
from experiments._optimizers_lanes import (
    ADAPTIVE,
    ENCODER_RULES,
    PLAIN,
    RAVINE_RULES,
    RAVINE_START,
    ROSENBROCK_RULES,
    ROSENBROCK_START,
    SEPARABLE_RULES,
    rosenbrock,
)
from experiments._optimizers_theory import first_within, ravine_path
from experiments._optimizers_trained_rows import validation_ratio
from nnjax import schedules
from nnjax.plotting import COLORS, figure, log_axis, style, theory
from nnjax.statistics import resampled_t_interval, t_interval

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOR = {
    "sgd": COLORS[0], "momentum": COLORS[1], "nesterov": COLORS[2], "adagrad": COLORS[3], "rmsprop": COLORS[4],
    "adam": COLORS[5], "irprop-": "0.35", "quickprop": "0.6", "lbfgs": "black",
}  # fmt: skip
"""A rule's color, the same in all figures."""

NAMES = {"sgd": "gradient descent", "momentum": "momentum", "nesterov": "Nesterov"}


def plot(tree: xr.DataTree) -> dict[str, Figure]:
    """Every figure of the study, by name; ``encoder`` and ``ravine`` are the ones to look at first."""
    with style():
        return {
            "ravine": _ravine(tree["ravine"].to_dataset()),
            "rosenbrock": _rosenbrock(tree["rosenbrock"].to_dataset()),
            "encoder": _encoder(tree["encoder"].to_dataset()),
            "rates": _rates(tree["rates"].to_dataset()),
            "schedules": _schedules(tree["schedules"].to_dataset(), tree["schedules_chosen"].to_dataset()),
            "generalization": _generalization(tree["generalization"].to_dataset(), tree["separable"].to_dataset()),
        }


def _contours(axes: Axes, values: Any, x: tuple[float, float], y: tuple[float, float], levels: np.ndarray) -> None:
    grid = np.meshgrid(np.linspace(*x, 200), np.linspace(*y, 200))
    axes.contour(*grid, values(*grid), levels=levels, colors="0.8", linewidths=0.7)


# Ravines


def _ravine(found: xr.Dataset) -> Figure:
    made, axes = figure(1, 3, width=3.7)
    rate, momentum = float(found.attrs["rate"]), float(found.attrs["momentum"])
    here, curvatures = found.sel(rate=rate), np.asarray(found.attrs["curvatures"], float)
    plane, distance, steps = axes[0]
    limits = (-0.35, 1.08 * RAVINE_START[0]), (-1.9 * RAVINE_START[1], 1.25 * RAVINE_START[1])
    top = 0.5 * float(curvatures @ np.square(RAVINE_START))
    _contours(
        plane,
        lambda x, y: 0.5 * (curvatures[0] * x**2 + curvatures[1] * y**2),
        *limits,
        top * np.array([0.02, 0.1, 0.25, 0.5, 1.0]),
    )
    for rule in RAVINE_RULES:
        path, line = here["path"].sel(rule=rule).values, here["theory"].sel(rule=rule).values
        plane.plot(*path[:60].T, "o-", color=COLOR[rule], markersize=2.5, linewidth=0.8, label=NAMES[rule])
        plane.plot(*line[:60].T, color="black", linestyle=":", linewidth=0.8, zorder=5)
        size = np.linalg.norm(path, axis=-1)
        distance.plot(size, color=COLOR[rule], linewidth=2.4, alpha=0.6, label=NAMES[rule])
        theory(distance, np.arange(len(line)), np.linalg.norm(line, axis=-1), label=None, linewidth=0.8)
    plane.set(
        xlim=limits[0], ylim=limits[1], xlabel=f"along, curvature {curvatures[0]:g}",
        ylabel=f"across, curvature {curvatures[1]:g}", title=f"60 steps, rate {rate:g}, momentum {momentum:g}",
    )  # fmt: skip
    plane.legend(loc="lower left", fontsize=7)
    distance.plot([], [], color="black", linestyle="--", linewidth=0.8, label="linear recurrence")
    distance.set(yscale="log", ylim=(1e-8, 2), xlabel="step", ylabel="distance to the minimum")
    distance.legend(loc="center right")
    _ravine_steps(steps, found, momentum, curvatures)
    return made


def _ravine_steps(axes: Axes, found: xr.Dataset, momentum: float, curvatures: np.ndarray) -> None:
    """Steps to 1 % of the start's distance against the rate: measured points, and the recurrence between them."""
    rates, bound = found["rate"].values, found.sizes["step"]
    grid = np.linspace(rates[0], rates[-1], 200)
    for rule in RAVINE_RULES:
        measured = np.array([first_within(path) for path in found["path"].sel(rule=rule).values], float)
        measured[measured >= bound] = np.nan
        axes.plot(rates, measured, "o", color=COLOR[rule], markersize=4, label=NAMES[rule])
        with np.errstate(over="ignore", invalid="ignore"):
            paths = [ravine_path(rule, rate, curvatures, momentum, 4 * bound) for rate in grid]
        line = np.array([first_within(path) for path in paths], float)
        theory(axes, grid, np.where(line > 4 * bound, np.nan, line), label=None)
    axes.set(xlabel="learning rate", ylabel="steps to 1 % of the distance", yscale="log")
    axes.set_title(f"points: measured within {bound - 1} steps")
    axes.legend(loc="lower left", fontsize=7)


def _rosenbrock(found: xr.Dataset) -> Figure:
    made, axes = figure(1, 2, width=4.8, height=3.6)
    plane, counts = axes[0]
    limits = (-1.8, 1.8), (-0.6, 2.9)
    _contours(plane, lambda x, y: rosenbrock(np.stack([x, y])), *limits, np.array([0.3, 2, 10, 40, 150, 500]))
    # At the best rate most rules jump about; a little below it they show their way.
    below, bound = (found["steps"].argmin("rate") - 2).clip(min=0), int(found.attrs["bound"])
    for rule in ("sgd", "momentum", "adagrad", "rmsprop", "adam", "quickprop", "irprop-"):
        here = found.sel(rule=rule).isel(rate=int(below.sel(rule=rule)))
        seen = here["path"].values[found["point"].values <= int(here["steps"])]
        plane.plot(*seen.T, "-", color=COLOR[rule], linewidth=1.0, label=f"{rule}, {float(here['rate']):.2g}")
    plane.plot(*ROSENBROCK_START, "ko", markersize=4)
    plane.plot(1, 1, "k*", markersize=8)
    plane.set(xlim=limits[0], ylim=limits[1], xlabel="x", ylabel="y", title="paths, at the second rate below the best")
    plane.legend(loc="upper center", fontsize=7, ncols=2, frameon=True, facecolor="white", edgecolor="none")
    rates = found["rate"].values
    for number, rule in enumerate(ROSENBROCK_RULES):
        steps = found["steps"].sel(rule=rule).values.astype(float)
        steps[steps > bound] = np.nan
        own = rule in COLOR
        color = COLOR.get(rule, COLORS[number % len(COLORS)])
        counts.plot(rates, steps, "o-" if own else "x--", color=color, markersize=3, linewidth=1, label=rule)
    log_axis(counts, (1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1))
    counts.set(xlabel="learning rate, or first step size", yscale="log")
    counts.set_ylabel(f"steps to a value of {found.attrs['threshold']:g}")
    counts.set_title(f"no point: not within {bound} steps")
    counts.tick_params(axis="x", which="minor", length=0)
    counts.legend(bbox_to_anchor=(1.01, 1), loc="upper left", fontsize=7)
    return made


# Encoder


def _encoder(found: xr.Dataset) -> Figure:
    made, axes = figure(1, 2, width=4.6, height=3.2)
    curves, table = axes[0]
    seeds, bound = found.sizes["seed"], int(found.attrs["bound"])
    for number, rule in enumerate(ENCODER_RULES):
        epochs = np.sort(found["epochs"].sel(rule=rule).values)
        done = epochs <= bound
        share = 100 * np.arange(1, seeds + 1) / seeds
        line = "-" if number < len(COLORS) else "--"
        ends = np.r_[epochs[done], bound], np.r_[share[done], share[done][-1] if done.any() else 0]
        curves.step(*ends, where="post", color=COLORS[number % len(COLORS)], linestyle=line, label=_label(rule))
    log_axis(curves, (10, 20, 50, 100, 200, 500, 1000))
    curves.set(xlabel="epochs", ylabel="starts solved, %", ylim=(0, 102), xlim=(8, bound))
    curves.legend(loc="upper center", bbox_to_anchor=(0.5, -0.18), fontsize=7, ncols=3)
    curves.set_title(f"10-5-10 encoder, {seeds} starts")
    place = np.arange(len(ENCODER_RULES))[::-1]
    for at, rule in zip(place, ENCODER_RULES, strict=True):
        mean, low, high = t_interval(solved(found, rule)) if len(solved(found, rule)) else (np.nan,) * 3
        table.errorbar(mean, at, xerr=[[mean - low], [high - mean]], fmt="o", color=COLORS[0], markersize=4)
        if rule in REFERENCE:
            table.plot(REFERENCE[rule], at + 0.22, "v", color=COLORS[2], markersize=5)
        if rule in PUBLISHED:
            table.plot(PUBLISHED[rule], at + 0.22, "s", color=COLORS[1], markersize=5)
    for marker, color, label in (("o", COLORS[0], "measured, 95 % interval of the mean"),
                                 ("v", COLORS[2], "independent implementation"),
                                 ("s", COLORS[1], "Riedmiller and Braun (1993)")):  # fmt: skip
        table.plot([], [], marker, color=color, markersize=5, label=label)
    table.set_yticks(place, [_label(rule) for rule in ENCODER_RULES])
    log_axis(table, (20, 30, 50, 100))
    table.set(xlabel="mean epochs of solved starts", ylim=(-0.6, len(place) - 0.4), xlim=(15, 160))
    table.legend(loc="upper center", bbox_to_anchor=(0.4, -0.18), fontsize=7, ncols=2)
    return made


def _label(rule: str) -> str:
    name, *first = rule.split()
    return f"{name.replace('rprop', 'Rprop')}, first step {first[0]}" if first else rule


# Digits


def _rates(found: xr.Dataset) -> Figure:
    made, axes = figure(1, 2, width=4.6, height=3.1)
    cells, curves = axes[0]
    rates = found["rate"].values
    error = 100 * found["test_error"].isel(evaluation=-1).mean("seed").transpose("rule", "rate").values
    from matplotlib.colors import LogNorm

    shown = cells.imshow(error, aspect="auto", cmap="viridis_r", norm=LogNorm(vmin=error.min(), vmax=100))
    cells.grid(visible=False)
    for row, values in enumerate(error):
        for column, value in enumerate(values):
            tint = "white" if value > 15 else "black"
            cells.text(column, row, f"{value:.1f}" if value < 10 else f"{value:.0f}", ha="center", va="center",
                       fontsize=6 if len(rates) <= 12 else 4, color=tint)  # fmt: skip
    every = max(1, len(rates) // 10)
    cells.set_xticks(
        np.arange(len(rates))[::every], [f"{rate:.2g}" for rate in rates[::every]], fontsize=7, rotation=45
    )
    cells.set_yticks(np.arange(len(error)), list(found["rule"].values))
    cells.set(xlabel="learning rate", title=f"test error, %: mean of {found.sizes['seed']} seeds")
    made.colorbar(shown, ax=cells, format="%g", shrink=0.8)
    for rule in found["rule"].values:
        samples = found["validation_error"].isel(evaluation=-1).sel(rule=rule).transpose("seed", "rate").values
        line = "-" if rule in PLAIN else "--"
        mean, low, high = resampled_t_interval(100 * samples, validation_ratio(found))
        curves.plot(rates, mean, line, color=COLOR[str(rule)], label=str(rule))
        curves.fill_between(rates, low.clip(1e-3), high, color=COLOR[str(rule)], alpha=0.15, linewidth=0)
    least = found["validation_error"].isel(evaluation=-1).mean("seed").min()
    curves.set(xscale="log", yscale="log", ylim=(max(40 * float(least), 0.1), 110), xlabel="learning rate")
    curves.set_ylabel("validation error, %")
    curves.legend(loc="upper center", bbox_to_anchor=(0.55, 1.0), fontsize=7)
    curves.set_title(f"{found.attrs['data']}, n = {found.attrs['n']}, {found.attrs['epochs']} epochs; bands 95 %")
    return made


def _schedules(found: xr.Dataset, chosen: xr.Dataset) -> Figure:
    made, axes = figure(1, 3, width=3.7, height=3.2)
    shapes, curves, table = axes[0]
    names = [str(name) for name in found["schedule"].values]
    color = dict(zip(names, (*COLORS, "black"), strict=False))
    steps = np.arange(0, 300)
    evaluations = np.arange(1, found.sizes["evaluation"] + 1) * found.attrs["epochs"] / found.sizes["evaluation"]
    for name in names:
        if name != "plateau":
            shape = schedules.by_name(name, 1.0, 300)
            shapes.plot(steps / 300, np.broadcast_to(np.asarray(shape(steps)), steps.shape), color=color[name])
        at = float(chosen["rate"].sel(schedule=name))
        loss = found["validation_loss"].sel(schedule=name, rate=at).mean("seed").values
        curves.plot(evaluations, loss, color=color[name], label=f"{name}, {at:.2g}")
    shapes.set(xlabel="share of the run", ylabel="rate / largest rate", title="plateau: set by the validation loss")
    curves.set(xlabel="epochs", ylabel="validation loss, nats", title="momentum, rate by validation")
    log_axis(curves, (0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.5, 0.7, 1, 2), "y")
    curves.legend(loc="upper right", fontsize=7)
    _points(table, chosen, "schedule", names, color)
    table.set_title(f"{found.attrs['data']}, {found.sizes['seed']} seeds")
    return made


def _points(axes: Axes, chosen: xr.Dataset, axis: str, names: list[str], color: dict[str, str]) -> None:
    """Validation and test error at the chosen rates, a row a name.

    Intervals are over seeds; re-dealt validation parts overlap, the test examples are the same for all.
    """
    for at, name in enumerate(reversed(names)):
        splits = ("validation", "white", 0.16, validation_ratio(chosen)), ("test", color[name], -0.16, 0.0)
        for split, fill, lift, ratio in splits:
            mean, low, high = resampled_t_interval(100 * chosen[f"{split}_error"].sel({axis: name}).values, ratio)
            axes.errorbar(mean, at + lift, xerr=[[mean - low], [high - mean]], fmt="o", markersize=4,
                          color=color[name], markerfacecolor=fill)  # fmt: skip
    axes.set_yticks(range(len(names)), names[::-1])
    axes.plot([], [], "o", color="0.3", markerfacecolor="white", markersize=4, label="validation")
    axes.plot([], [], "o", color="0.3", markersize=4, label="test")
    axes.set(xlabel="error, %; mean and 95 % over seeds", ylim=(-0.6, len(names) + 0.5))
    axes.legend(loc="upper left", ncols=2)


def _generalization(chosen: xr.Dataset, separable: xr.Dataset) -> Figure:
    made, axes = figure(1, 2, width=4.4, height=3.1)
    table, exact = axes[0]
    _points(table, chosen, "rule", [*PLAIN, *ADAPTIVE], COLOR)
    table.axhline(len(ADAPTIVE) - 0.5, color="0.5", linewidth=0.8, linestyle=":")
    table.set_title(f"{chosen.attrs['data']}, n = {chosen.attrs['n']}, rates chosen on validation data")
    shares = separable["share"].values
    markers = dict(zip(SEPARABLE_RULES, "ovsPX^D", strict=True))
    for rule in SEPARABLE_RULES:
        exact.plot(shares, separable["test_error"].sel(rule=rule), markers[rule], color=COLOR[rule], label=rule,
                   markersize=9 - SEPARABLE_RULES.index(rule) % 4 * 1.6, markerfacecolor="none")  # fmt: skip
    theory(exact, shares, separable["theory"].sel(rule="adam").values, label="theory")
    theory(exact, shares, separable["theory"].sel(rule="sgd").values, label=None)
    exact.set(xlabel="share of positive examples", ylabel="test error, exact", ylim=(-0.03, 0.55))
    exact.set_title("Wilson's separable least squares")
    exact.legend(loc="upper right", fontsize=7, ncols=2)
    return made
