"""Figures of the double-descent study: views of its labelled results."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from nnjax.plotting import COLORS, band, figure, log_axis, mark, style, theory
from nnjax.statistics import interior_peak, t_interval

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

THRESHOLD = 0.1
"""Training error below which a net counts as interpolating (Nakkiran et al., 2019: effective model complexity)."""

KINDS = {"relu": "random ReLU", "fourier": "random Fourier"}


def plot(results: xr.DataTree) -> dict[str, Figure]:
    """Every figure of the study, by name; ``double_descent`` is the one to look at first."""
    with style():
        figures = {
            "double_descent": _headline(results),
            "linear": _linear(results["linear"].to_dataset()),
            "random_features": _features(results["random_features"].to_dataset()),
            "spherical": _spherical(results["spherical"].to_dataset()),
            "mlp": _curves_by_width(results["mlp"].to_dataset()),
            "samples": _samples(results),
            "epochs": _epochs(results["mlp"].to_dataset()),
        }
        if "cnn" in results:
            figures["cnn"] = _curves_by_width(results["cnn"].to_dataset())
            figures["cnn_epochs"] = _epochs(results["cnn"].to_dataset())
    return figures


def percent(rate: Any) -> str:
    """A share of wrong labels in words."""
    return f"{100 * float(rate):g} % label noise"


def parameters(results: xr.Dataset) -> np.ndarray:
    """Trainable parameters of the two-layer nets at every width."""
    inputs, classes = int(results.attrs["inputs"]), int(results.attrs["classes"])
    return results["width"].values * (inputs + 1 + classes) + classes


def at_end(results: xr.Dataset, name: str) -> np.ndarray:
    """A learning curve's last value, (seeds, widths), at the one noise level that ``results`` is narrowed to."""
    return results[name].isel(step=-1).transpose("seed", "width").values


def _interpolation_width(results: xr.Dataset) -> float:
    """First width whose mean training error is below `THRESHOLD`; NaN where none is."""
    below = np.flatnonzero(at_end(results, "train_error").mean(axis=0) <= THRESHOLD)
    return float(results["width"].values[below[0]]) if len(below) else np.nan


def _headline(results: xr.DataTree) -> Figure:
    made, axes = figure(1, 3)
    features = results["random_features"].to_dataset()
    n = int(features["n"].values[-1])
    _feature_axes(axes[0, 0], features.sel(kind="relu", n=n), tuned=False)
    axes[0, 0].legend()
    axes[0, 0].set_title(f"random ReLU features, {features.attrs['data']}, n = {n}")
    mlp = results["mlp"].to_dataset().isel(noise=-1)
    _net_axes(axes[0, 1], mlp, "loss", ratio=False)  # where the peak of nets is located, see the study
    axes[0, 1].set_title(f"two-layer nets, {mlp.attrs['data']}, {percent(mlp['noise'])}")
    _misspecified_axes(axes[0, 2], results["linear"].to_dataset())
    return made


def _feature_axes(axes: Axes, results: xr.Dataset, tuned: bool = True) -> None:
    for color, rate in zip(COLORS, results["noise"].values, strict=False):
        here = results.sel(noise=rate)
        band(axes, here["ratio"].values, here["test_error"].values, label=percent(rate), color=color)
        if tuned:
            band(axes, here["ratio"].values, here["tuned_error"].values, label="", color=color, linestyle="--")
    if tuned:
        axes.plot([], [], color="0.4", linestyle="--", linewidth=1, label="penalty tuned on validation data")
    log_axis(axes, (0.1, 0.3, 1, 3, 10))
    mark(axes, 1.0, "features = examples")
    axes.set(xlabel="features / training examples", ylabel="test error", ylim=(0, 1))


def _features(results: xr.Dataset) -> Figure:
    kinds, sizes = results["kind"].values, results["n"].values
    made, axes = figure(len(kinds), len(sizes), height=2.7)
    for row, kind in zip(axes, kinds, strict=True):
        for cell, n in zip(row, sizes, strict=True):
            _feature_axes(cell, results.sel(kind=kind, n=n))
            cell.set_title(f"{KINDS[str(kind)]} features, {results.attrs['data']}, n = {n}")
    _legend_below(made, axes[0, 0], f"mean and 95 % t-interval of {results.sizes['seed']} seeds")
    return made


def _linear(results: xr.Dataset) -> Figure:
    made, axes = figure(1, 3)
    p, n = results["p"].values, float(results.attrs["n"])
    ridgeless, ridge, wrong = axes[0]
    _mean_points(ridgeless, p / n, results["ridgeless"].values, "measured", COLORS[0])
    _theory_in_parts(ridgeless, p / n, results["ridgeless_theory"].values, "exact theory")
    ridgeless.set(title="ridgeless")
    log_axis(ridgeless, (0.03, 0.1, 0.3, 1, 3), "y")
    _mean_points(ridge, p / n, results["ridge"].values, "oracle penalty", COLORS[2])
    theory(ridge, p / n, results["ridge_theory"].values, label="limit theory, oracle penalty")
    stopped, line = best_stopped(results)
    _mean_points(ridge, p / n, stopped, "gradient flow, oracle time", COLORS[1])
    theory(ridge, p / n, line, label="exact theory, oracle time", linestyle=":", color="0.25")
    ridge.set(title="ridge and gradient flow at their best", ylim=(0, 1.25))
    _misspecified_axes(wrong, results)
    for cell in (ridgeless, ridge):
        cell.set(xlabel="inputs p / examples n", ylabel="excess risk / signal")
        cell.legend()
        log_axis(cell, (0.1, 0.3, 1, 3, 8))
    return made


def best_stopped(results: xr.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Risk at the time where theory is least, (seeds, p), and that theory, (p,)."""
    best = oracle_time(results)
    return results["flow"].isel(time=best).values, results["flow_theory"].mean("seed").isel(time=best).values


def oracle_time(results: xr.Dataset) -> xr.DataArray:
    """Index of the time where the theory's mean risk is least, for every p."""
    return results["flow_theory"].mean("seed").fillna(np.inf).argmin("time")


def _misspecified_axes(axes: Axes, results: xr.Dataset) -> None:
    p, n = results["p"].values, float(results.attrs["n"])
    _mean_points(axes, p / n, results["misspecified"].values, "measured", COLORS[0])
    _theory_in_parts(axes, p / n, results["misspecified_theory"].values, "exact theory")
    log_axis(axes, (0.1, 0.3, 1, 3, 8))
    mark(axes, 1.0, "inputs = examples")
    log_axis(axes, (0.3, 0.5, 1, 2, 4), "y")
    axes.set(xlabel="inputs seen p / examples n", ylabel="total risk / signal")
    axes.set_title("linear regression on the first p inputs")
    axes.legend(loc="lower right", title="means, 95 %", title_fontsize=8)


def _mean_points(axes: Axes, x: np.ndarray, samples: np.ndarray, label: str, color: str) -> None:
    """Means with their 95 % t-intervals, drawn as points so that the theory line is seen."""
    mean, low, high = t_interval(samples)
    errors = np.stack([mean - low, high - mean])
    axes.errorbar(x, mean, errors, fmt="o", markersize=3, color=color, label=label, linewidth=1)


def _theory_in_parts(axes: Axes, ratio: np.ndarray, line: np.ndarray, label: str) -> None:
    """The two branches of a theory that is infinite between them."""
    theory(axes, ratio[ratio < 1], line[ratio < 1], label=label)
    theory(axes, ratio[ratio > 1], line[ratio > 1], label=None)


def _spherical(results: xr.Dataset) -> Figure:
    made, axes = figure(width=4.8)
    cell = axes[0, 0]
    band(cell, results["ratio"].values, results["risk"].values, label="measured: median, quartiles", median=True)
    theory(cell, results["ratio"].values, results["theory"].values, label="Mei and Montanari (2019)")
    log_axis(cell, (0.1, 0.3, 1, 3, 10))
    mark(cell, 1.0, "features = examples")
    cell.set(xlabel="features / examples", ylabel="excess risk / signal", yscale="log")
    cell.set_title("random ReLU features on the sphere, d = 100, n = 300")
    cell.legend()
    return made


def _net_axes(axes: Axes, results: xr.Dataset, what: str, *, ratio: bool = True) -> None:
    """Train, test and early-stopped curves against width, at one noise level."""
    widths = results["width"].values
    band(axes, widths, at_end(results, f"test_{what}"), label="test", color=COLORS[0])
    band(axes, widths, at_end(results, f"train_{what}"), label="train", color=COLORS[1])
    early = results[f"early_{what}"].transpose("seed", "width").values
    band(axes, widths, early, label="test, early-stopped", color=COLORS[2], linestyle="--")
    log_axis(axes, [w for w in (1, 2, 4, 8, 16, 32, 64, 128, 256) if widths[0] <= w <= widths[-1]])
    threshold = _interpolation_width(results)
    if np.isfinite(threshold):
        mark(axes, threshold, f"train error < {THRESHOLD:g}")
    label = "hidden units" if "inputs" in results.attrs else "width k"
    if ratio and "inputs" in results.attrs:
        shares = parameters(results) / float(results.attrs["n"])
        top = axes.secondary_xaxis(
            -0.36,
            functions=(
                lambda w: np.interp(np.asarray(w), widths, shares),
                lambda r: np.interp(np.asarray(r), shares, widths),
            ),
        )
        log_axis(top, [t for t in (0.1, 0.3, 1, 3, 10, 30) if shares[0] <= t <= shares[-1]])
        top.set_xlabel("parameters / training examples")
    axes.set(xlabel=label, ylabel="error" if what == "error" else "cross-entropy, nats", ylim=(0, None))
    axes.legend()


def _curves_by_width(results: xr.Dataset) -> Figure:
    rates = results["noise"].values
    made, axes = figure(2, len(rates), width=3.3, height=2.7)
    for column, rate in enumerate(rates):
        for row, what in enumerate(("error", "loss")):
            _net_axes(axes[row, column], results.sel(noise=rate), what, ratio=row == 1)
            axes[row, column].get_legend().remove()
            if column > 0:
                axes[row, column].set_ylabel("")
        axes[0, column].set_title(percent(rate))
    for row in axes:
        top = max(cell.dataLim.y1 for cell in row)
        for cell in row:
            cell.set_ylim(0, 1.02 * top)
    made.suptitle(f"{results.attrs.get('model', 'two-layer nets')}, {results.attrs['data']}, n = {results.attrs['n']}")
    _legend_below(made, axes[0, 0], f"mean and 95 % t-interval of {results.sizes['seed']} seeds")
    return made


def _legend_below(made: Figure, axes: Axes, note: str) -> None:
    """One legend for a whole figure, under it, with what the bands are."""
    handles, labels = axes.get_legend_handles_labels()
    made.legend(handles, labels, loc="outside lower center", ncols=len(labels) or 1, title=note, title_fontsize=8)


def _samples(results: xr.DataTree) -> Figure:
    made, axes = figure(1, 2, width=4.3)
    left, right = axes[0]
    samples = results["samples"].to_dataset()
    for color, rate in zip(COLORS, samples["noise"].values, strict=False):
        error = samples["test_error"].sel(noise=rate).transpose("seed", "n")
        band(left, samples["n"].values, error.values, label=percent(rate), color=color)
    width = int(samples.attrs["width"])
    log_axis(left, [round(width * r) for r in (0.2, 0.5, 1, 2, 3)])
    mark(left, width, "examples = features")
    left.set(xlabel="training examples", ylabel="test error", ylim=(0, None))
    left.set_title(f"{width} random ReLU features, {samples.attrs['data']}: error against examples")
    left.legend()
    for color, name in zip(COLORS, ("mlp_smaller", "mlp"), strict=False):
        mlp = results[name].to_dataset().isel(noise=-1)
        count = parameters(mlp)
        loss = at_end(mlp, "test_loss")
        band(right, count, loss, label=f"n = {mlp.attrs['n']}", color=color)
        mark(right, count[interior_peak(loss.mean(axis=0)).at], "peak", color=color)
    log_axis(right, [t for t in (100, 300, 1000, 3000, 10_000, 30_000) if count[0] <= t <= count[-1]])
    right.set(xlabel="parameters", ylabel="test cross-entropy, nats", ylim=(0, None))
    right.set_title(f"two-layer nets, {mlp.attrs['data']}, {percent(mlp['noise'])}")
    right.legend()
    return made


def _epochs(results: xr.Dataset) -> Figure:
    made, axes = figure(1, 2, width=4.2, height=3.2)
    here = results.isel(noise=-1, step=slice(1, None))
    steps, widths = here["step"].values, here["width"].values
    train = here["train_error"].mean("seed").transpose("width", "step").values
    for cell, name in zip(axes[0], ("test_error", "train_error"), strict=True):
        image = here[name].mean("seed").transpose("width", "step").values
        # Untrained nets would take up the whole scale.
        drawn = cell.pcolormesh(steps, widths, image, shading="nearest", cmap="viridis", vmax=0.6)
        drawn.set_rasterized(True)
        if train.min() < THRESHOLD < train.max():
            cell.contour(steps, widths, train, levels=[THRESHOLD], colors="white", linewidths=1)
        label = "hidden units" if "inputs" in results.attrs else "width k"
        cell.set(xscale="log", xlabel=f"updates (white: train error = {THRESHOLD:g})", ylabel=label)
        log_axis(cell, [w for w in (1, 2, 4, 8, 16, 32, 64, 128) if widths[0] <= w <= widths[-1]], "y")
        cell.grid(False)
        cell.set_title(f"{results.attrs['data']}, n = {results.attrs['n']}, {percent(here['noise'])}")
        made.colorbar(
            drawn, ax=cell, extend="max", label=f"{name.replace('_', ' ')}, mean of {here.sizes['seed']} seeds"
        )
    return made
