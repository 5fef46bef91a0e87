"""Report of the optimizers study: claims fixed beforehand, and what was measured."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from experiments._optimizers_lanes import ADAPTIVE, ENCODER_RULES, PLAIN, RAVINE_RULES, ROSENBROCK_RULES
from experiments._optimizers_theory import first_within
from nnjax.results import Row
from nnjax.statistics import Interval, t_interval, verdict

if TYPE_CHECKING:
    import xarray as xr

PUBLISHED = {"backprop": 121.0, "supersab": 55.0, "quickprop": 21.0, "rprop+ 2": 19.0}
"""Mean epochs on the 10-5-10 encoder in Riedmiller and Braun (1993)."""

PUBLISHED_DEVIATION = 30.0
"""Standard deviation over runs that they give for backpropagation, its row having no baseline."""

REFERENCE = {"backprop": 128.7, "quickprop": 21.3, "rprop+ 0.1": 25.3, "rprop+ 2": 18.2, "irprop- 0.1": 25.1}
"""Mean epochs by an independent implementation, 100 starts from U(-1, 1)."""

BAND = 0.1
"""Relative width of the band around a reference."""

SMALL_RATE = 0.03
"""Rates of plain descent up to here count as small: an order below where it stops to learn."""


def report(tree: xr.DataTree) -> list[Row]:
    """A row for every claim, those that fail too."""
    return [
        *_ravine_rows(tree["ravine"].to_dataset()),
        *_rosenbrock_rows(tree["rosenbrock"].to_dataset()),
        *_encoder_rows(tree["encoder"].to_dataset()),
        *_rate_rows(tree["rates"].to_dataset(), tree["generalization"].to_dataset()),
        *_schedule_rows(tree["schedules_chosen"].to_dataset()),
        *_generalization_rows(tree["generalization"].to_dataset()),
        *_separable_rows(tree["separable"].to_dataset()),
    ]


def _holds(yes: Any, no: Any = True) -> str:
    return "holds" if yes else "fails" if no else "inconclusive"


def ravine_deviation(ravine: xr.Dataset) -> np.ndarray:
    """Largest distance between path and closed form over the path's size so far, (rates, rules)."""
    path, theory = ravine["path"].values, ravine["theory"].values
    size = np.maximum.accumulate(np.linalg.norm(theory, axis=-1), axis=-1)
    return (np.linalg.norm(path - theory, axis=-1) / size).max(axis=-1)


def _ravine_rows(ravine: xr.Dataset) -> list[Row]:
    off = float(ravine_deviation(ravine).max())
    here = ravine.sel(rate=ravine.attrs["rate"])
    steps = {rule: first_within(here["path"].sel(rule=rule).values) for rule in RAVINE_RULES}
    theory = {rule: first_within(here["theory"].sel(rule=rule).values) for rule in RAVINE_RULES}
    within = all(count < ravine.sizes["step"] for count in steps.values())
    slow, fast = steps["sgd"], max(steps["momentum"], steps["nesterov"])
    setting = f"rate {ravine.attrs['rate']:g}, momentum {ravine.attrs['momentum']:g}"
    return [
        Row(
            f"ravine: paths of {ravine.sizes['rate']} rates x {len(RAVINE_RULES)} rules equal the linear recurrence",
            "largest deviation over the path's size",
            f"{off:.1e}",
            "-",
            0,
            "theory",
            "Polyak (1964)",
            "1e-5",
            "agrees" if off <= 1e-5 else "differs",
        ),
        Row(
            f"ravine, {setting}: momentum and Nesterov are there before plain descent",
            "steps to stay within 1 % of the start's distance",
            ", ".join(f"{rule} {count}" for rule, count in steps.items()),
            "-",
            0,
            ", ".join(f"{rule} {count}" for rule, count in theory.items()),
            "linear recurrence",
            "exact",
            _holds(within and fast < slow and steps == theory),
        ),
    ]


def fewest_steps(rosenbrock: xr.Dataset) -> xr.DataArray:
    """Steps to the threshold at the best rate, (rule,); the bound + 1 where it was never reached."""
    return rosenbrock["steps"].min("rate")


def _rosenbrock_rows(rosenbrock: xr.Dataset) -> list[Row]:
    bound, steps = int(rosenbrock.attrs["bound"]), fewest_steps(rosenbrock)
    named = ", ".join(f"{rule} {_count(int(steps.sel(rule=rule)), bound)}" for rule in ROSENBROCK_RULES)
    threshold = f"{rosenbrock.attrs['threshold']:g}"
    rates = rosenbrock["rate"].values
    small = rosenbrock["steps"].sel(rule="irprop-").values[rates <= 1]
    spread = float(small.max() / small.min()) if len(small) and small.max() <= bound else np.inf
    return [
        _own(
            f"Rosenbrock: every rule reaches {threshold} within {bound} steps at some rate of the grid",
            "steps at the best rate",
            named,
            "-",
            0,
            f"<= {bound}",
            _holds(bool((steps <= bound).all())),
        ),
        _own(
            "Rosenbrock: iRprop-'s steps hardly depend on its first step size, up to 1",
            f"most over fewest steps, sizes {rates[0]:g} to 1",
            f"{spread:.2f}",
            "-",
            0,
            "1.25",
            _holds(spread <= 1.25),
        ),
    ]


def _count(steps: int, bound: int) -> str:
    return str(steps) if steps <= bound else f"> {bound}"


def solved(encoder: xr.Dataset, rule: str) -> np.ndarray:
    """Epochs of the starts that a rule solved."""
    epochs = encoder["epochs"].sel(rule=rule).values
    return epochs[epochs <= encoder.attrs["bound"]].astype(float)


def in_band(samples: np.ndarray, reference: float) -> str:
    """Whether the mean's 95 % interval lies inside the band around a reference (holds), or outside (fails)."""
    if len(samples) < 20:
        return "inconclusive"
    found, low, high = t_interval(samples), (1 - BAND) * reference, (1 + BAND) * reference
    return _holds(low <= found.low and found.high <= high, bool(found.low > high or found.high < low))


def _encoder_rows(encoder: xr.Dataset) -> list[Row]:
    rows, seeds = [], encoder.sizes["seed"]
    for rule in ENCODER_RULES:
        epochs = solved(encoder, rule)
        never = seeds - len(epochs)
        told = f"{epochs.mean():.1f}" if len(epochs) else "none solved"
        told += f"; {never} of {seeds} starts not solved" if never else ""
        interval = str(t_interval(epochs)) if len(epochs) else "-"
        claim = f"10-5-10 encoder, {rule}"
        if rule in REFERENCE:
            reference = REFERENCE[rule]
            rows.append(
                Row(f"{claim}: as an independent implementation", "mean epochs of solved starts", told, interval, seeds,
                    f"{reference:g}", "U(-1, 1) starts, 100 seeds", f"{100 * BAND:g} %", in_band(epochs, reference))
            )  # fmt: skip
        if rule in PUBLISHED:
            rows.append(_published_row(claim, rule, epochs, told, interval, seeds))
        if rule not in PUBLISHED and rule not in REFERENCE:
            rows.append(_own(f"{claim}: nothing to compare", "mean epochs of solved starts", told, interval, seeds,
                             "-", "not comparable"))  # fmt: skip
    return rows


def _published_row(claim: str, rule: str, epochs: np.ndarray, told: str, interval: str, seeds: int) -> Row:
    published, baseline = PUBLISHED[rule], PUBLISHED["backprop"]
    if rule == "backprop":
        said, tolerance = verdict(epochs, published, PUBLISHED_DEVIATION), PUBLISHED_DEVIATION
    else:
        tolerance = 0.5 * abs(published - baseline)
        said = verdict(epochs, published, tolerance, baseline=baseline)
    source = "Riedmiller and Braun (1993), table (recalled)"
    return Row(f"{claim}: as published", "mean epochs of solved starts", told, interval, seeds, f"{published:g}",
               source, f"{tolerance:g}", said)  # fmt: skip


def momentum_as_plain(rates: xr.Dataset, momentum: float = 0.9) -> np.ndarray:
    """Validation error of momentum at r minus that of plain descent at r / (1 - momentum), means, where small."""
    error = rates["validation_error"].isel(evaluation=-1).mean("seed")
    grid = rates["rate"].values
    gaps = []
    for rate in grid:
        same = np.flatnonzero(np.isclose(grid * (1 - momentum), rate, rtol=1e-3))
        if len(same) and grid[same[0]] <= SMALL_RATE:
            gaps.append(float(error.sel(rule="momentum", rate=rate) - error.sel(rule="sgd", rate=grid[same[0]])))
    return np.asarray(gaps)


def good_decades(rates: xr.Dataset, rules: tuple[str, ...]) -> np.ndarray:
    """Decades of rates with a validation error within .01 of a rule's best, mean over rules, by seed."""
    error = rates["validation_error"].isel(evaluation=-1).sel(rule=list(rules))
    spacing = float(np.median(np.diff(np.log10(rates["rate"].values))))
    return spacing * (error <= error.min("rate") + 0.01).sum("rate").mean("rule").values


def _rate_rows(rates: xr.Dataset, chosen: xr.Dataset) -> list[Row]:
    where = f"{rates.attrs['data']}, n = {rates.attrs['n']}"
    seeds = rates.sizes["seed"]
    picked = ", ".join(f"{rule} {float(chosen['rate'].sel(rule=rule)):g}" for rule in chosen["rule"].values)
    rows = [
        _own(
            f"{where}: every rule's best rate lies inside the grid",
            "rate of least mean validation error",
            picked,
            "-",
            seeds,
            f"{rates['rate'].values[0]:g} < rate < {rates['rate'].values[-1]:g}",
            _holds(not bool(chosen["at_edge"].any())),
        )
    ]
    gaps = momentum_as_plain(rates)
    measured = f"{np.abs(gaps).max():.3f} over {len(gaps)} rates" if len(gaps) else "no such rates"
    rows.append(
        Row(
            f"{where}: momentum .9 at rate r does as plain descent at 10 r, where 10 r <= {SMALL_RATE:g}",
            "largest difference of mean validation errors",
            measured,
            "-",
            seeds,
            "0",
            "limit of small rates",
            "0.03",
            _holds(bool(np.abs(gaps).max() <= 0.03)) if len(gaps) else "not comparable",
        )
    )
    wide, narrow = good_decades(rates, ADAPTIVE), good_decades(rates, PLAIN)
    gap = t_interval(wide - narrow)
    rows.append(
        _own(
            f"{where}: adaptive rules forgive more of the rate than plain ones",
            "decades within .01 of a rule's best validation error, adaptive minus plain",
            f"{float(gap.mean):+.2f} ({wide.mean():.2f}, {narrow.mean():.2f})",
            gap,
            seeds,
            "> 0",
            _holds(gap.low > 0, gap.high < 0),
        )
    )
    return rows


def _schedule_rows(chosen: xr.Dataset) -> list[Row]:
    rows = []
    flat = chosen["test_error"].sel(schedule="constant").values
    for name in chosen["schedule"].values:
        if name == "constant":
            continue
        error = chosen["test_error"].sel(schedule=name).values
        gap = t_interval(error - flat)
        rows.append(
            _own(
                f"momentum with schedule {name}: test error against a constant rate, both rates by validation",
                "difference, paired by seed",
                f"{float(gap.mean):+.4f} ({error.mean():.4f} at {float(chosen['rate'].sel(schedule=name)):g}, "
                f"{flat.mean():.4f} at {float(chosen['rate'].sel(schedule='constant')):g})",
                gap,
                len(error),
                "interval excludes 0",
                side(gap),
            )
        )
    return rows


def side(gap: Interval) -> str:
    """What an interval of a difference of errors says."""
    return "lower" if gap.high < 0 else "higher" if gap.low > 0 else "no difference seen"


def group_gap(chosen: xr.Dataset) -> np.ndarray:
    """Mean test error of the adaptive rules minus that of the plain ones, by seed."""
    error = chosen["test_error"]
    return (error.sel(rule=list(ADAPTIVE)).mean("rule") - error.sel(rule=list(PLAIN)).mean("rule")).values


def _generalization_rows(chosen: xr.Dataset) -> list[Row]:
    gap = t_interval(group_gap(chosen))
    error = chosen["test_error"]
    where, seeds = f"{chosen.attrs['data']}, n = {chosen.attrs['n']}", chosen.sizes["seed"]
    means = [float(error.sel(rule=list(names)).mean()) for names in (ADAPTIVE, PLAIN)]
    rows = [
        Row(
            f"{where}: adaptive rules generalize worse than plain ones, rates chosen on validation data",
            "mean test error, adaptive minus plain, paired by seed",
            f"{float(gap.mean):+.4f} ({means[0]:.4f}, {means[1]:.4f})",
            str(gap),
            seeds,
            "> 0",
            "Wilson et al. (2017), deep nets",
            "interval excludes 0",
            _holds(bool(gap.low > 0), bool(gap.high < 0)),
        )
    ]
    for rule in ADAPTIVE:
        own = t_interval(error.sel(rule=rule).values - error.sel(rule="momentum").values)
        trained = float(chosen["train_error"].sel(rule=rule).mean())
        rows.append(
            _own(
                f"{where}: test error of {rule} against momentum",
                "difference, paired by seed",
                f"{float(own.mean):+.4f} (training error {trained:.4f})",
                own,
                seeds,
                "interval excludes 0",
                side(own),
            )
        )
    return rows


def separable_gap(separable: xr.Dataset) -> float:
    """Largest deviation of a rule's test error from theory."""
    return float(np.abs(separable["test_error"].values - separable["theory"].values).max())


def directions(separable: xr.Dataset) -> xr.DataArray:
    """Cosine between each rule's weights and those that theory names, (share, rule)."""
    adaptive = ~separable["rule"].isin(list(PLAIN))
    return separable["cosine_sign"].where(adaptive, separable["cosine_least_norm"])


def _separable_rows(separable: xr.Dataset) -> list[Row]:
    gap, trained = separable_gap(separable), float(separable["train_error"].max())
    cosine = float(directions(separable).min())
    shares = separable["share"].values
    where = f"Wilson's separable examples, {len(shares)} shares of positives"
    return [
        Row(
            f"{where}: adaptive rules are wrong on all new negatives, plain ones on none; training error 0",
            "largest deviation of the exact test error from theory",
            f"{gap:.1e} (training error {trained:g})",
            "-",
            0,
            "theory",
            "Wilson et al. (2017), section 3.3",
            "1e-6",
            "agrees" if gap <= 1e-6 and trained == 0 else "differs",
        ),
        Row(
            f"{where}: adaptive weights point along sign(X'y), plain ones along the solution of least norm",
            "smallest cosine",
            f"{cosine:.6f}",
            "-",
            0,
            "1",
            "Wilson et al. (2017), lemma 3.1",
            "1e-4",
            "agrees" if cosine >= 1 - 1e-4 else "differs",
        ),
    ]


def _own(
    claim: str, quantity: str, measured: str, interval: Interval | str, seeds: int, tolerance: str, verdict: str
) -> Row:
    """A row whose claim is the study's own."""
    return Row(claim, quantity, measured, str(interval), seeds, "-", "own check", tolerance, verdict)
