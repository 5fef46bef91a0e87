"""Figures and the report of the double-descent study: views of its labelled results."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from nnjax.plotting import COLORS, band, figure, log_axis, mark, style, theory
from nnjax.results import Row
from nnjax.statistics import Interval, interior_peak, standard_error, t_interval, verdict

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

THRESHOLD = 0.1
"""Training error below which a net counts as interpolating (Nakkiran et al., 2019: effective model complexity)."""

_KINDS = {"relu": "random ReLU", "fourier": "random Fourier"}


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
    return figures


def _percent(rate: Any) -> str:
    return f"{100 * float(rate):g} % label noise"


def parameters(results: xr.Dataset) -> np.ndarray:
    """Trainable parameters of the two-layer nets at every width."""
    inputs, classes = int(results.attrs["inputs"]), int(results.attrs["classes"])
    return results["width"].values * (inputs + 1 + classes) + classes


def _at_end(results: xr.Dataset, name: str) -> np.ndarray:
    """A learning curve's last value, (seeds, widths), at the one noise level that ``results`` is narrowed to."""
    return results[name].isel(step=-1).transpose("seed", "width").values


def _interpolation_width(results: xr.Dataset) -> float:
    """First width whose mean training error is below `THRESHOLD`; NaN where none is."""
    below = np.flatnonzero(_at_end(results, "train_error").mean(axis=0) <= THRESHOLD)
    return float(results["width"].values[below[0]]) if len(below) else np.nan


def _headline(results: xr.DataTree) -> Figure:
    made, axes = figure(1, 3)
    features = results["random_features"].to_dataset()
    n = int(features["n"].values[-1])
    _feature_axes(axes[0, 0], features.sel(kind="relu", n=n), tuned=False)
    axes[0, 0].legend()
    axes[0, 0].set_title(f"random ReLU features, {features.attrs['data']}, n = {n}")
    mlp = results["mlp"].to_dataset().isel(noise=-1)
    _net_axes(axes[0, 1], mlp, "error")
    axes[0, 1].set_title(f"two-layer nets, {mlp.attrs['data']}, {_percent(mlp['noise'])}")
    _misspecified_axes(axes[0, 2], results["linear"].to_dataset())
    return made


def _feature_axes(axes: Axes, results: xr.Dataset, tuned: bool = True) -> None:
    for color, rate in zip(COLORS, results["noise"].values, strict=False):
        here = results.sel(noise=rate)
        band(axes, here["ratio"].values, here["test_error"].values, label=_percent(rate), color=color)
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
            cell.set_title(f"{_KINDS[str(kind)]} features, {results.attrs['data']}, n = {n}")
    made.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return made


def _linear(results: xr.Dataset) -> Figure:
    made, axes = figure(1, 3)
    p, n = results["p"].values, _linear_n(results)
    ridgeless, ridge, wrong = axes[0]
    _mean_points(ridgeless, p / n, results["ridgeless"].values, "minimum norm", COLORS[0])
    _theory_in_parts(ridgeless, p / n, results["ridgeless_theory"].values, "exact theory")
    ridgeless.set(title="ridgeless")
    log_axis(ridgeless, (0.03, 0.1, 0.3, 1, 3), "y")
    _mean_points(ridge, p / n, results["ridge"].values, "best penalty", COLORS[2])
    theory(ridge, p / n, results["ridge_theory"].values, label="limit theory, best penalty")
    stopped, line = _best_stopped(results)
    _mean_points(ridge, p / n, stopped, "gradient flow, best time", COLORS[1])
    theory(ridge, p / n, line, label="exact theory, best time", linestyle=":", color="0.25")
    ridge.set(title="regularized: no peak")
    _misspecified_axes(wrong, results)
    for cell in (ridgeless, ridge):
        cell.set(xlabel="inputs p / examples n", ylabel="excess risk / signal")
        cell.legend()
        log_axis(cell, (0.1, 0.3, 1, 3, 8))
    return made


def _linear_n(results: xr.Dataset) -> float:
    return float(results["p"].values[0]) * 10  # the grid starts at n/10


def _best_stopped(results: xr.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Risk at the time where theory is least, (seeds, p), and that theory, (p,)."""
    line = results["flow_theory"].mean("seed")
    best = line.argmin("time")
    return results["flow"].isel(time=best).values, line.isel(time=best).values


def _misspecified_axes(axes: Axes, results: xr.Dataset) -> None:
    p, n = results["p"].values, _linear_n(results)
    _mean_points(axes, p / n, results["misspecified"].values, "minimum norm", COLORS[0])
    _theory_in_parts(axes, p / n, results["misspecified_theory"].values, "exact theory")
    log_axis(axes, (0.1, 0.3, 1, 3, 8))
    mark(axes, 1.0, "inputs = examples")
    log_axis(axes, (0.3, 0.5, 1, 2, 4), "y")
    axes.set(xlabel="inputs seen p / examples n", ylabel="risk / signal")
    axes.set_title("linear regression on the first p inputs")
    axes.legend()


def _mean_points(axes: Axes, x: np.ndarray, samples: np.ndarray, label: str, color: str) -> None:
    """Means with their 95 % intervals, drawn as points so that the theory line is seen."""
    mean, low, high = t_interval(samples)
    errors = np.stack([mean - low, high - mean])
    axes.errorbar(x, mean, errors, fmt="o", markersize=3, color=color, label=f"{label} (mean, 95 %)", linewidth=1)


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


def _net_axes(axes: Axes, results: xr.Dataset, what: str) -> None:
    """Train, test and early-stopped curves against width, at one noise level."""
    widths = results["width"].values
    band(axes, widths, _at_end(results, f"test_{what}"), label="test", color=COLORS[0])
    band(axes, widths, _at_end(results, f"train_{what}"), label="train", color=COLORS[1])
    early = results[f"early_{what}"].transpose("seed", "width").values
    band(axes, widths, early, label="test, early-stopped", color=COLORS[2], linestyle="--")
    log_axis(axes, [w for w in (1, 2, 4, 8, 16, 32, 64, 128, 256) if widths[0] <= w <= widths[-1]])
    threshold = _interpolation_width(results)
    if np.isfinite(threshold):
        mark(axes, threshold, f"train error < {THRESHOLD:g}")
    label = "hidden units" if "inputs" in results.attrs else "width k"
    axes.set(xlabel=label, ylabel="error" if what == "error" else "cross-entropy, nats", ylim=(0, None))
    axes.legend()


def _curves_by_width(results: xr.Dataset) -> Figure:
    rates = results["noise"].values
    made, axes = figure(2, len(rates), width=3.2, height=2.6)
    for column, rate in enumerate(rates):
        for row, what in enumerate(("error", "loss")):
            _net_axes(axes[row, column], results.sel(noise=rate), what)
        axes[0, column].set_title(f"{results.attrs['data']}, n = {results.attrs['n']}, {_percent(rate)}")
    return made


def _samples(results: xr.DataTree) -> Figure:
    made, axes = figure(1, 2, width=4.3)
    left, right = axes[0]
    samples = results["samples"].to_dataset()
    for color, rate in zip(COLORS, samples["noise"].values, strict=False):
        error = samples["test_error"].sel(noise=rate).transpose("seed", "n")
        band(left, samples["n"].values, error.values, label=_percent(rate), color=color)
    width = int(samples.attrs["width"])
    log_axis(left, [round(width * r) for r in (0.2, 0.5, 1, 2, 3)])
    mark(left, width, "examples = features")
    left.set(xlabel="training examples", ylabel="test error", ylim=(0, None))
    left.set_title(f"{width} random ReLU features, {samples.attrs['data']}: more data can hurt")
    left.legend()
    for color, name in zip(COLORS, ("mlp_smaller", "mlp"), strict=False):
        mlp = results[name].to_dataset().isel(noise=-1)
        count = parameters(mlp)
        loss = _at_end(mlp, "test_loss")
        band(right, count, loss, label=f"n = {mlp.attrs['n']}", color=color)
        mark(right, count[int(np.argmax(loss.mean(axis=0)))], "peak", color=color)
    log_axis(right, [t for t in (100, 300, 1000, 3000, 10_000, 30_000) if count[0] <= t <= count[-1]])
    right.set(xlabel="parameters", ylabel="test cross-entropy, nats", ylim=(0, None))
    right.set_title(f"two-layer nets, {mlp.attrs['data']}, {_percent(mlp['noise'])}: the peak moves")
    right.legend()
    return made


def _epochs(results: xr.Dataset) -> Figure:
    import matplotlib as mpl

    made, axes = figure(1, 2, width=4.0, height=3.2)
    here = results.isel(noise=-1, step=slice(1, None))
    for cell, name in zip(axes[0], ("test_error", "train_error"), strict=True):
        image = here[name].mean("seed").transpose("width", "step").values
        # Untrained nets would take up the whole scale.
        drawn = cell.pcolormesh(here["step"], here["width"], image, shading="nearest", cmap="viridis", vmax=0.45)
        drawn.set_rasterized(True)
        train = here["train_error"].mean("seed").transpose("width", "step").values
        if train.min() < THRESHOLD < train.max():
            cell.contour(here["step"], here["width"], train, levels=[THRESHOLD], colors="white", linewidths=1)
        cell.set(xscale="log", xlabel="updates", ylabel="hidden units")
        widths = here["width"].values
        log_axis(cell, [w for w in (1, 2, 4, 8, 16, 32, 64, 128) if widths[0] <= w <= widths[-1]], "y")
        cell.grid(False)
        cell.set_title(f"{name.replace('_', ' ')}, {_percent(here['noise'])}")
        made.colorbar(drawn, ax=cell, extend="max")
    line = mpl.lines.Line2D([], [], color="0.6", label=f"white: train error = {THRESHOLD:g}")
    axes[0, 1].legend(handles=[line], loc="lower left", labelcolor="white", handlelength=0)
    return made


# The report


def report(results: xr.DataTree) -> list[Row]:
    """Every claim of the study, each with what was measured, whether it holds or not."""
    rows = [*_feature_rows(results["random_features"].to_dataset())]
    rows += _theory_rows(results["linear"].to_dataset(), results["spherical"].to_dataset())
    rows += _mlp_rows(results["mlp"].to_dataset(), results["mlp_smaller"].to_dataset())
    if "cnn" in results:
        rows += _side_rows(results["cnn"].to_dataset(), "convolutional nets")
    return rows


def _holds(yes: Any, surely_not: Any = False) -> str:
    return "holds" if yes else "fails" if surely_not else "open"


def _own(claim: str, quantity: str, measured: str, interval: Any, seeds: int, tolerance: str, said: str) -> Row:
    return Row(claim, quantity, measured, str(interval), seeds, "-", "this study's own check", tolerance, said)


def _feature_rows(results: xr.Dataset) -> list[Row]:
    rows = []
    ratio = results["ratio"].values
    noisy = results.isel(noise=-1).sel(kind="relu")
    for n in results["n"].values:
        error = noisy.sel(n=n)["test_error"].transpose("seed", "ratio").values
        at = ratio[np.argmax(error, axis=1)]
        source = "Belkin et al. (2019): peak at features = examples"
        claim = f"random ReLU features, n = {n}: test error peaks at p = n ({_percent(noisy['noise'])})"
        rows.append(
            Row(
                claim, "p/n at the peak", f"{at.mean():.3f}", str(t_interval(at, 0.90)), len(at), "1", source,
                "0.05", verdict(at, 1.0, 0.05),
            )
        )  # fmt: skip
        peak = int(np.argmax(error.mean(axis=0)))
        sides = error[:, :peak].mean(axis=0).min(), error[:, peak + 1 :].mean(axis=0).min()
        excess = t_interval(error[:, peak] / max(sides))
        text = (
            f"{float(excess.mean):.2f}x ({error[:, peak].mean():.3f} against {sides[0]:.3f} left, {sides[1]:.3f} right)"
        )
        rows.append(
            _own(
                f"random ReLU features, n = {n}: error at the peak is at least twice that on both sides",
                "peak over the higher valley", text, excess, len(error), ">= 2",
                _holds(excess.low >= 2, excess.high < 2),
            )
        )  # fmt: skip
    largest = noisy.isel(n=-1)
    tuned = largest["tuned_error"].transpose("seed", "ratio").values.mean(axis=0)
    plain = largest["test_error"].transpose("seed", "ratio").values.mean(axis=0)
    left = interior_peak(tuned).prominence / interior_peak(plain).prominence
    rows.append(
        _own(
            f"random ReLU features, n = {int(largest['n'])}: a penalty tuned on validation data removes the peak",
            "peak height, tuned over ridgeless", f"{left:.3f}", "-", largest.sizes["seed"], "< 0.1",
            _holds(left < 0.1, True),
        )
    )  # fmt: skip
    return rows


def _theory_rows(linear: xr.Dataset, spherical: xr.Dataset) -> list[Row]:
    rows = []
    draws = linear.sizes["seed"]
    names = {"ridgeless": "Hastie et al. (2019), finite n", "misspecified": "Belkin, Hsu and Xu (2019)"}
    for name, source in names.items():
        z = z_scores(linear, name)
        near, most = float(np.mean(np.abs(z) <= 3)), float(np.abs(z).max())
        said = "agrees" if near >= 0.95 and most <= 5 else "differs"
        rows.append(
            Row(
                f"linear regression, {name}: mean risk equals the exact theory", "share of p within 3 standard errors",
                f"{near:.2f}, largest {most:.1f}", "-", draws, "theory", source, ">= 0.95 within 3, all within 5", said,
            )
        )  # fmt: skip
    stopped, line = _best_stopped(linear)
    ridge = linear["ridge"].values.mean(axis=0) / linear["ridge_theory"].values - 1
    flow = stopped.mean(axis=0) / line - 1
    for name, off, source in (
        ("best penalty", ridge, "limit theory (Dobriban and Wager, 2018)"),
        ("best stopping time", flow, "Advani and Saxe (2017)"),
    ):
        worst = float(np.abs(off).max())
        rows.append(
            Row(
                f"linear regression, {name}: no peak, and the theory's risk", "largest relative deviation",
                f"{worst:.3f}", "-", draws, "theory", source, "0.1", "agrees" if worst <= 0.1 else "differs",
            )
        )  # fmt: skip
    away = np.abs(np.log(spherical["ratio"].values)) > 0.15
    off = np.median(spherical["risk"].values, axis=0) / spherical["theory"].values - 1
    middle, worst = float(np.median(np.abs(off[away]))), float(np.abs(off[away]).max())
    rows.append(
        Row(
            "random features on the sphere: median risk follows the limit theory",
            "relative deviation, median (largest)",
            f"{middle:.3f} ({worst:.3f})", "-", spherical.sizes["seed"], "theory", "Mei and Montanari (2019)",
            "0.1 (corrections of order 1/d, d = 100)", "agrees" if middle <= 0.1 else "differs",
        )
    )  # fmt: skip
    return rows


def z_scores(linear: xr.Dataset, name: str) -> np.ndarray:
    """Mean risk minus exact theory in standard errors, at every p."""
    samples = linear[name].values
    return (samples.mean(axis=0) - linear[f"{name}_theory"].values) / standard_error(samples)


def _mlp_rows(mlp: xr.Dataset, smaller: xr.Dataset) -> list[Row]:
    rows = []
    clean = mlp.isel(noise=0)
    if float(clean["noise"]) == 0:
        error = _at_end(clean, "test_error")
        widest, best = t_interval(error[:, -1]), error.mean(axis=0).min()
        rows.append(
            _own(
                f"two-layer nets, n = {mlp.attrs['n']}, no label noise: the widest net is best, within its interval",
                "test error, widest (least of all)", f"{float(widest.mean):.4f} ({best:.4f})", widest,
                len(error), "interval reaches the least", _holds(widest.low <= best, True),
            )
        )  # fmt: skip
    rows += _side_rows(mlp, "two-layer nets")
    rows += _moving_peak_rows(mlp, smaller)
    return rows


def _side_rows(results: xr.Dataset, what: str) -> list[Row]:
    """At the highest noise: the widest net against the peak, and against the best narrow net."""
    noisy = results.isel(noise=-1)
    widths, error = noisy["width"].values, _at_end(noisy, "test_error")
    seeds = len(error)
    where = f"{what}, {results.attrs['data']}, n = {results.attrs['n']}, {_percent(noisy['noise'])}"
    peak = interior_peak(error.mean(axis=0)).at
    drop = error[:, peak] - error[:, -1]
    ratio = float(drop.mean() / standard_error(drop))
    rows = [
        _own(
            f"{where}: the widest net beats the peak", "error at the peak minus widest, in standard errors",
            f"{ratio:.1f} ({error[:, peak].mean():.3f} at width {widths[peak]}, "
            f"{error[:, -1].mean():.3f} at {widths[-1]})",
            t_interval(drop), seeds, ">= 3", _holds(ratio >= 3, ratio < 0),
        )
    ]  # fmt: skip
    narrow = int(np.argmin(error[:, :peak].mean(axis=0)))
    gap = error[:, -1] - error[:, narrow]
    interval = t_interval(gap)
    side = "narrow side" if interval.low > 0 else "wide side" if interval.high < 0 else "neither"
    rows.append(
        _own(
            f"{where}: which side of the peak wins", "error of the widest minus the best narrow net",
            f"{float(interval.mean):+.3f} ({error[:, narrow].mean():.3f} at width {widths[narrow]})",
            interval, seeds, "-", side,
        )
    )  # fmt: skip
    early = noisy["early_error"].transpose("seed", "width").values
    height, final = interior_peak(early.mean(axis=0)).prominence, interior_peak(error.mean(axis=0)).prominence
    rows.append(
        _own(
            f"{where}: early stopping flattens the peak", "peak height, early-stopped (trained to the end)",
            f"{height:.3f} ({final:.3f})", "-", seeds, "less than half", _holds(height < 0.5 * final, True),
        )
    )  # fmt: skip
    return rows


def _moving_peak_rows(mlp: xr.Dataset, smaller: xr.Dataset) -> list[Row]:
    """Where test loss peaks, in parameters, on all and on fewer examples."""
    peaks = {}
    for results in (smaller, mlp):
        noisy = results.isel(noise=-1)
        loss = _at_end(noisy, "test_loss")
        peaks[int(results.attrs["n"])] = parameters(noisy)[np.argmax(loss, axis=1)]
    (few, at_few), (many, at_many) = peaks.items()
    growth = Interval(*np.exp(t_interval(np.log(at_many / at_few))))
    claim = f"two-layer nets: the peak moves to more parameters from n = {few} to {many}"
    text = f"{float(growth.mean):.2f}x (P/n {np.mean(at_few) / few:.2f} and {np.mean(at_many) / many:.2f})"
    source = "Nakkiran et al. (2019): peak near effective complexity = n"
    said = _holds(growth.low > 1, growth.high < 1)
    return [
        Row(
            claim,
            "parameters at the peak of test loss, ratio",
            text,
            str(growth),
            len(at_many),
            "> 1",
            source,
            "-",
            said,
        )
    ]
