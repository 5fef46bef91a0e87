"""Rows of the trained nets: learning rates, schedules, and whether adaptive rules generalize worse."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from experiments._optimizers_lanes import ADAPTIVE, PLAIN
from experiments._optimizers_rows import POST_HOC, crossed_interval, holds, own
from nnjax.results import Row
from nnjax.statistics import Interval, resampled_t_interval

if TYPE_CHECKING:
    import xarray as xr

SMALL_RATE = 0.03
"""Rates of plain descent up to here count as small: an order below where it stops to learn."""

OPEN = "open: rate at the grid's edge"
"""Verdict where a chosen rate might be better still beyond the grid."""


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


def validation_ratio(found: xr.Dataset) -> float:
    """Validation over training examples, by which re-dealt parts overlap."""
    return found.attrs["validation_n"] / found.attrs["n"]


def rate_rows(rates: xr.Dataset, chosen: xr.Dataset) -> list[Row]:
    """What validation data say of the rates; the test examples have no part in it."""
    where, seeds, grid = f"{rates.attrs['data']}, n = {rates.attrs['n']}", rates.sizes["seed"], rates["rate"].values
    gaps = momentum_as_plain(rates)
    wide, narrow = good_decades(rates, ADAPTIVE), good_decades(rates, PLAIN)
    gap = resampled_t_interval(wide - narrow, validation_ratio(rates))
    return [
        own(
            f"{where}: every rule's best rate lies inside the grid{POST_HOC}",
            "rate of least mean validation error",
            ", ".join(f"{rule} {_rate(chosen.sel(rule=rule))}" for rule in chosen["rule"].values),
            "-",
            seeds,
            f"{grid[0]:g} < rate < {grid[-1]:g}",
            holds(not bool(chosen["at_edge"].any())),
        ),
        Row(
            f"{where}: momentum .9 at rate r does as plain descent at 10 r, where 10 r <= {SMALL_RATE:g}{POST_HOC}",
            "largest difference of mean validation errors",
            f"{np.abs(gaps).max():.3f} over {len(gaps)} rates" if len(gaps) else "no such rates",
            "-",
            seeds,
            "0",
            "limit of small rates",
            "0.03",
            holds(bool(np.abs(gaps).max() <= 0.03)) if len(gaps) else "not comparable",
        ),
        own(
            f"{where}: adaptive rules forgive more of the rate than plain ones{POST_HOC}",
            "decades within .01 of a rule's best validation error, adaptive minus plain",
            f"{float(gap.mean):+.2f} ({wide.mean():.2f}, {narrow.mean():.2f})",
            gap,
            seeds,
            "> 0, interval for overlapping splits",
            holds(gap.low > 0, gap.high < 0),
        ),
    ]


def _rate(chosen: xr.Dataset) -> str:
    return f"{float(chosen['rate']):g}" + (" (grid's edge)" if bool(chosen["at_edge"]) else "")


def side(gap: Interval, at_edge: bool = False) -> str:
    """What an interval of a difference of errors says, where no rate lies at its grid's edge."""
    if at_edge:
        return OPEN
    return "lower" if gap.high < 0 else "higher" if gap.low > 0 else "no difference seen"


def _against(chosen: xr.Dataset, baseline: xr.Dataset, claim: str, rows: int) -> Row:
    """A row of one of ``rows`` comparisons of test errors, each at its share of 5 %."""
    wrong = chosen["test_wrong"].astype(float) - baseline["test_wrong"].astype(float)
    level = 1 - 0.05 / rows
    gap = crossed_interval(wrong.transpose("seed", "example").values, level)
    errors = [f"{float(found['test_error'].mean()):.4f} at {_rate(found)}" for found in (chosen, baseline)]
    return own(
        f"{claim}, both rates by validation (one of {rows} comparisons at 5 % in all){POST_HOC}",
        "difference of test errors, paired by seed and test example",
        f"{float(gap.mean):+.4f} ({', '.join(errors)}; training error {float(chosen['train_error'].mean()):.4f})",
        f"{gap}, {100 * level:.1f} %",
        wrong.sizes["seed"],
        f"{100 * level:.1f} % interval over seeds and test examples excludes 0",
        side(gap, bool(chosen["at_edge"]) or bool(baseline["at_edge"])),
    )


def schedule_rows(chosen: xr.Dataset) -> list[Row]:
    """Every schedule against a constant rate."""
    names = [name for name in chosen["schedule"].values if name != "constant"]
    constant = chosen.sel(schedule="constant")
    return [
        _against(
            chosen.sel(schedule=name), constant, f"momentum with schedule {name}: test error against a constant rate",
            len(names),
        )
        for name in names
    ]  # fmt: skip


def group_gap(chosen: xr.Dataset) -> np.ndarray:
    """Mean test error of the adaptive rules minus that of the plain ones, (seeds, test examples)."""
    wrong = chosen["test_wrong"].astype(float).transpose("rule", "seed", "example")
    return (wrong.sel(rule=list(ADAPTIVE)).mean("rule") - wrong.sel(rule=list(PLAIN)).mean("rule")).values


def generalization_rows(chosen: xr.Dataset) -> list[Row]:
    """The claim about both groups, and every adaptive rule against momentum."""
    gap = crossed_interval(group_gap(chosen))
    where, seeds = f"{chosen.attrs['data']}, n = {chosen.attrs['n']}", chosen.sizes["seed"]
    means = [float(chosen["test_error"].sel(rule=list(names)).mean()) for names in (ADAPTIVE, PLAIN)]
    said = OPEN if bool(chosen["at_edge"].any()) else holds(bool(gap.low > 0), bool(gap.high < 0))
    group = Row(
        f"{where}: adaptive rules generalize worse than plain ones, rates chosen on validation data",
        "mean test error, adaptive minus plain, paired by seed and test example",
        f"{float(gap.mean):+.4f} ({means[0]:.4f}, {means[1]:.4f})",
        f"{gap}, 95 %",
        seeds,
        "> 0",
        "Wilson et al. (2017), deep nets",
        "95 % interval over seeds and test examples excludes 0 (split and interval post hoc)",
        said,
    )
    momentum = chosen.sel(rule="momentum")
    return [
        group,
        *(
            _against(chosen.sel(rule=rule), momentum, f"{where}: test error of {rule} against momentum", len(ADAPTIVE))
            for rule in ADAPTIVE
        ),
    ]
