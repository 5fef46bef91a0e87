"""The report of the double-descent study: every claim with what was measured, whether it holds or not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from experiments._double_descent_figures import KINDS, at_end, best_stopped, oracle_time, parameters, percent
from nnjax.results import Row
from nnjax.statistics import Interval, interior_peak, standard_error, t_interval, verdict

if TYPE_CHECKING:
    import xarray as xr


def report(results: xr.DataTree) -> list[Row]:
    """Every claim of the study, each with what was measured, whether it holds or not."""
    rows = [*_feature_rows(results["random_features"].to_dataset())]
    rows += _sample_rows(results["samples"].to_dataset())
    rows += _theory_rows(results["linear"].to_dataset(), results["spherical"].to_dataset())
    rows += _mlp_rows(results["mlp"].to_dataset(), results["mlp_smaller"].to_dataset())
    if "cnn" in results:
        rows += _side_rows(results["cnn"].to_dataset(), "convolutional nets")
        rows += _published_rows(results["cnn"].to_dataset())
    return rows


def _holds(yes: Any, surely_not: Any = False) -> str:
    return "holds" if yes else "fails" if surely_not else "open"


def _own(claim: str, quantity: str, measured: str, interval: Any, seeds: int, tolerance: str, said: str) -> Row:
    return Row(claim, quantity, measured, str(interval), seeds, "-", "this study's own check", tolerance, said)


def _feature_rows(results: xr.Dataset) -> list[Row]:
    rows = []
    for kind in results["kind"].values:
        for n in results["n"].values:
            rows += _feature_peak_rows(
                results.isel(noise=-1).sel(kind=kind, n=n), f"{KINDS[str(kind)]} features, n = {n}"
            )
    largest = results.isel(noise=-1, n=-1).sel(kind="relu" if "relu" in results["kind"] else results["kind"][0])
    tuned = largest["tuned_error"].transpose("seed", "ratio").values.mean(axis=0)
    plain = largest["test_error"].transpose("seed", "ratio").values.mean(axis=0)
    left = interior_peak(tuned).prominence / interior_peak(plain).prominence
    rows.append(
        _own(
            f"{KINDS[str(largest['kind'].values)]} features, n = {int(largest['n'])}: a penalty chosen on noisy "
            "validation labels removes the peak",
            "peak height, tuned over ridgeless",
            f"{left:.3f}",
            "-",
            largest.sizes["seed"],
            "< 0.1",
            _holds(left < 0.1, True),
        )
    )
    return rows


def _feature_peak_rows(noisy: xr.Dataset, what: str) -> list[Row]:
    ratio = noisy["ratio"].values
    error = noisy["test_error"].transpose("seed", "ratio").values
    at = ratio[np.argmax(error, axis=1)]
    peak = int(np.argmax(error.mean(axis=0)))
    # A peak at an end is its own valley on that side: no higher than it.
    left = int(np.argmin(error[:, : peak + 1].mean(axis=0)))
    right = peak + int(np.argmin(error[:, peak:].mean(axis=0)))
    # Peak and valleys are chosen on the mean curve of the same seeds; each seed then gives its own ratio there.
    excess = t_interval(error[:, peak] / np.maximum(error[:, left], error[:, right]))
    step = float(np.diff(ratio[max(peak - 1, 0) : peak + 2]).max())
    # A position is known no better than half the grid's step, however well the seeds agree.
    interval = t_interval(at, 0.90)
    interval = interval._replace(low=interval.low - step / 2, high=interval.high + step / 2)
    said = verdict(at, 1.0, 0.05) if interval.low >= 0.95 and interval.high <= 1.05 else "inconclusive"
    if interval.low > 1.05 or interval.high < 0.95:
        said = "not reproduced"
    means = error.mean(axis=0)
    return [
        Row(
            f"{what}: test error peaks at p = n ({percent(noisy['noise'])})",
            f"p/n at the peak, grid step {step:.2f}",
            f"{at.mean():.3f}",
            str(interval),
            len(at),
            "1",
            "Belkin et al. (2019), random features on MNIST (figure recalled); deviations in the study's docstring",
            "0.05",
            said,
        ),
        _own(
            f"{what}: error at the peak is at least twice that on both sides",
            "peak over the higher valley, by seed",
            f"{float(excess.mean):.2f}x ({means[peak]:.3f} against {means[left]:.3f} left, {means[right]:.3f} right)",
            excess,
            len(error),
            ">= 2",
            _holds(excess.low >= 2, excess.high < 2),
        ),
    ]


def _sample_rows(results: xr.Dataset) -> list[Row]:
    """The sample-wise curve: where it peaks, and whether more examples can hurt."""
    noisy = results.isel(noise=-1)
    sizes, width = noisy["n"].values, int(results.attrs["width"])
    error = noisy["test_error"].transpose("seed", "n").values
    at = sizes[np.argmax(error, axis=1)] / width
    drop = error[:, int(np.argmin(np.abs(sizes - width)))] - error[:, 0]
    ratio = float(drop.mean() / standard_error(drop))
    where = f"{width} random ReLU features, {percent(noisy['noise'])}"
    inside = bool(np.all(np.abs(at - 1) <= 0.05))
    return [
        _own(
            f"{where}: test error peaks at n = p examples",
            "n/p at the peak, all seeds",
            f"{at.min():.2f} to {at.max():.2f}",
            t_interval(at),
            len(at),
            "0.05",
            _holds(inside, True),
        ),
        _own(
            f"{where}: {width} examples are worse than {sizes[0]}",
            "difference in standard errors",
            f"{ratio:.1f} ({error[:, 0].mean():.3f} with {sizes[0]})",
            t_interval(drop),
            len(at),
            ">= 3",
            _holds(ratio >= 3, ratio < 0),
        ),
    ]


def _theory_rows(linear: xr.Dataset, spherical: xr.Dataset) -> list[Row]:
    rows = []
    draws = linear.sizes["seed"]
    names = {
        "ridgeless": "Breiman and Freedman (1983), finite n",
        "misspecified": "Belkin, Hsu and Xu (2019), finite n",
    }
    for name, source in names.items():
        z = np.abs(z_scores(linear, name))
        rows.append(
            Row(
                f"linear regression, {name}: mean risk equals the exact theory",
                "share of p within 3 standard errors",
                f"{np.mean(z <= 3):.2f}, largest {z.max():.1f}",
                "-",
                draws,
                "theory",
                source,
                ">= 0.95 within 3, all within 5",
                _agreement(z, draws),
            )
        )
    gap = (linear["flow"] - linear["flow_theory"]).isel(time=oracle_time(linear)).transpose("seed", "p").values
    z = np.abs(gap.mean(axis=0) / standard_error(gap))
    rows.append(
        Row(
            "linear regression, gradient flow at the oracle time: the exact theory's risk",
            "share of p within 3 standard errors",
            f"{np.mean(z <= 3):.2f}, largest {z.max():.1f}",
            "-",
            draws,
            "theory",
            "Advani and Saxe (2017), given the inputs",
            ">= 0.95 within 3, all within 5",
            _agreement(z, draws),
        )
    )
    off = float(np.abs(linear["ridge"].values.mean(axis=0) / linear["ridge_theory"].values - 1).max())
    rows.append(
        Row(
            "linear regression, oracle penalty: the limit theory's risk",
            "largest relative deviation",
            f"{off:.3f}",
            "-",
            draws,
            "theory",
            "Dobriban and Wager (2018), limit of large n",
            "0.1 (n is finite)",
            "agrees" if off <= 0.1 else "differs",
        )
    )
    for name, samples in (("oracle penalty", linear["ridge"].values), ("oracle time", best_stopped(linear)[0])):
        height = interior_peak(samples.mean(axis=0)).prominence
        rows.append(
            _own(
                f"linear regression, {name}: no peak",
                "height of the highest interior peak",
                f"{max(height, 0.0):.4f}",
                "-",
                draws,
                "0",
                _holds(height <= 0, True),
            )
        )
    finite = np.isfinite(spherical["theory"].values)
    off = np.abs(np.median(spherical["risk"].values, axis=0)[finite] / spherical["theory"].values[finite] - 1)
    middle, worst = float(np.median(off)), float(off.max())
    rows.append(
        Row(
            "random features on the sphere: median risk follows the limit theory (p = n left out)",
            "relative deviation, median (largest)",
            f"{middle:.3f} ({worst:.3f})",
            "-",
            spherical.sizes["seed"],
            "theory",
            "Mei and Montanari (2019)",
            "0.05 (0.15): corrections of order 1/d, d = 100",
            "agrees" if middle <= 0.05 and worst <= 0.15 else "differs",
        )
    )
    return rows


def _agreement(z: np.ndarray, draws: int) -> str:
    if draws < 200:
        return "inconclusive"
    return "agrees" if np.mean(z <= 3) >= 0.95 and z.max() <= 5 else "differs"


def z_scores(linear: xr.Dataset, name: str) -> np.ndarray:
    """Mean risk minus exact theory in standard errors, at every p."""
    samples = linear[name].values
    return (samples.mean(axis=0) - linear[f"{name}_theory"].values) / standard_error(samples)


def _mlp_rows(mlp: xr.Dataset, smaller: xr.Dataset) -> list[Row]:
    rows = []
    clean = mlp.isel(noise=0)
    if float(clean["noise"]) == 0:
        error = at_end(clean, "test_error")
        widest, best = t_interval(error[:, -1]), error.mean(axis=0).min()
        rows.append(
            _own(
                f"two-layer nets, n = {mlp.attrs['n']}, no label noise: the widest net is best, within its interval",
                "test error, widest (least of all)",
                f"{float(widest.mean):.4f} ({best:.4f})",
                widest,
                len(error),
                "interval reaches the least",
                _holds(widest.low <= best, True),
            )
        )
    rows += _side_rows(mlp, "two-layer nets")
    rows += _moving_peak_rows(mlp, smaller)
    return rows


def _side_rows(results: xr.Dataset, what: str) -> list[Row]:
    """At the highest noise: is there a peak, does the widest net beat it, and does it beat the best narrow net."""
    noisy = results.isel(noise=-1)
    widths, error = noisy["width"].values, at_end(noisy, "test_error")
    seeds, means = len(error), error.mean(axis=0)
    where = f"{what}, {results.attrs['data']}, n = {results.attrs['n']}, {percent(noisy['noise'])}"
    peak = interior_peak(means).at
    narrow = int(np.argmin(means[:peak]))
    right = peak + 1 + int(np.argmin(means[peak + 1 :]))
    # Peak and valleys are chosen on the mean of the same seeds, which favours a peak a little.
    height = t_interval(error[:, peak] - np.maximum(error[:, narrow], error[:, right]))
    there = bool(height.low > 0)
    rows = [
        _own(
            f"{where}: test error has an interior peak",
            "height over the higher valley, by seed",
            f"{float(height.mean):.3f} at width {widths[peak]}",
            height,
            seeds,
            "> 0",
            _holds(there, height.high <= 0),
        )
    ]
    drop, gap = error[:, peak] - error[:, -1], error[:, -1] - error[:, narrow]
    ratio = float(drop.mean() / standard_error(drop))
    rows.append(
        _own(
            f"{where}: the widest net beats the peak",
            "error at the peak minus widest, in standard errors",
            f"{ratio:.1f} ({means[peak]:.3f} at width {widths[peak]}, {means[-1]:.3f} at {widths[-1]})",
            t_interval(drop),
            seeds,
            ">= 3",
            _holds(ratio >= 3, ratio < 0) if there else "no peak",
        )
    )
    interval = t_interval(gap)
    side = "narrow side" if interval.low > 0 else "wide side" if interval.high < 0 else "neither"
    rows.append(
        _own(
            f"{where}: which side of the peak wins",
            "error of the widest minus the best narrow net (chosen on these seeds)",
            f"{float(interval.mean):+.3f} ({means[narrow]:.3f} at width {widths[narrow]})",
            interval,
            seeds,
            "-",
            side if there else "no peak",
        )
    )
    early = noisy["early_error"].transpose("seed", "width").values.mean(axis=0)
    rest, final = max(interior_peak(early).prominence, 0.0), interior_peak(means).prominence
    rows.append(
        _own(
            f"{where}: early stopping on noisy validation labels flattens the peak",
            "peak height, early-stopped (trained to the end)",
            f"{rest:.3f} ({final:.3f})",
            "-",
            seeds,
            "less than half",
            _holds(rest < 0.5 * final, True) if there else "no peak",
        )
    )
    return rows


def _moving_peak_rows(mlp: xr.Dataset, smaller: xr.Dataset) -> list[Row]:
    """Where the nets' curves peak, in parameters, on all and on fewer examples: by loss, as fixed, and by error."""
    rows = []
    few, many = int(smaller.attrs["n"]), int(mlp.attrs["n"])
    counts = parameters(mlp)
    step = float(np.median(counts[1:] / counts[:-1]))
    for what, name in (("cross-entropy", "test_loss"), ("error", "test_error")):
        peaks, inside = {}, True
        for results in (smaller, mlp):
            curves = at_end(results.isel(noise=-1), name)
            found = [interior_peak(curve) for curve in curves]
            inside &= all(peak.prominence > 0 for peak in found) and interior_peak(curves.mean(axis=0)).prominence > 0
            peaks[int(results.attrs["n"])] = counts[[peak.at for peak in found]]
        growth = Interval(*np.exp(t_interval(np.log(peaks[many] / peaks[few]))))
        rows.append(
            Row(
                f"two-layer nets: the peak of test {what} moves to more parameters from n = {few} to {many}",
                f"parameters at the peak, ratio; widths are {step:.2f}x apart",
                f"{float(growth.mean):.2f}x (P/n {np.mean(peaks[few]) / few:.2f}, {np.mean(peaks[many]) / many:.2f})",
                str(growth),
                len(peaks[many]),
                "> 1",
                "Nakkiran et al. (2019): near effective complexity = n",
                "-",
                _holds(growth.low > 1, growth.high < 1) if inside else "open",
            )
        )
    return rows


def _published_rows(cnn: xr.Dataset) -> list[Row]:
    """The width at the peak of the published ResNet, only for its own protocol."""
    noisy = cnn.isel(noise=-1)
    own = cnn.attrs["model"] == "resnet" and cnn.attrs["data"] == "cifar10" and np.isclose(noisy["noise"], 0.15)
    error = at_end(noisy, "test_error")
    at = noisy["width"].values[[interior_peak(curve).at for curve in error]].astype(float)
    claim = "convolutional nets: width at the peak of test error"
    said = verdict(at, 10.0, 3.0) if own else "not comparable"
    source = "Nakkiran et al. (2019): ResNet18k, CIFAR-10, 15 % noise (recalled)"
    return [Row(claim, "k", f"{at.mean():.1f}", str(t_interval(at, 0.90)), len(at), "about 10", source, "3", said)]
