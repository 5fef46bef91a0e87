"""What the figures and the report of the regularization study both read off its results."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nnjax.statistics import Interval, t_interval

if TYPE_CHECKING:
    import xarray as xr

PATIENCE = (1, 20)
"""Epochs without a new least validation loss after which the fast and the slow stopping criterion stop."""
TRAINS = 0.5
"""A net counts as training where its final loss is at most this share of that of guessing, log(classes)."""
SHORT = 0.05
"""Shortfall in error above which a net is said to over- or underfit."""


def chosen(panel: xr.Dataset, axis: str) -> xr.Dataset:
    """Every seed's own value along ``axis`` where its validation loss is least; what diverged is not chosen."""
    loss = panel["validation_loss"]
    return panel.isel({axis: loss.where(np.isfinite(loss), np.inf).argmin(axis)})


def values(array: xr.DataArray) -> np.ndarray:
    """A quantity by seed, (seeds, ...)."""
    return array.transpose("seed", ...).values


def ratio_interval(samples: np.ndarray) -> Interval:
    """Geometric mean of positive ratios and its t-interval."""
    return Interval(*np.exp(t_interval(np.log(samples))))


def stop(curve: np.ndarray, patience: int) -> tuple[int, int]:
    """Where a run with this patience ends, and the least point it has seen until then: indices into (m,)."""
    best = 0
    for at, value in enumerate(curve):
        if value < curve[best]:
            best = at
        elif at - best >= patience:
            return at, best
    return len(curve) - 1, best


def largest_rate(panel: xr.Dataset, classes: int = 10) -> xr.DataArray:
    """For every arm and seed, the largest learning rate at which it still trains (`TRAINS`); NaN where none does."""
    loss = panel["train_loss"]
    trains = loss.where(np.isfinite(loss), np.inf) <= TRAINS * np.log(classes)
    found = panel["rate"].where(trains, 0.0).max("rate")
    return found.where(found > 0)


def rate_ratio(arm: np.ndarray, none: np.ndarray, rates: np.ndarray) -> Interval:
    """Ratio of largest rates that train: geometric mean, and an interval that knows the grid.

    The largest rate is known no better than to lie between a grid point and the next, for either arm.
    """
    steps = dict(zip(rates, [*(rates[1:] / rates[:-1]), rates[-1] / rates[-2]], strict=True))
    grow, shrink = (np.array([steps.get(rate, np.nan) for rate in found]) for found in (arm, none))
    return Interval(
        ratio_interval(arm / none).mean, ratio_interval(arm / none / shrink).low, ratio_interval(arm / none * grow).high
    )


def ablations(panel: xr.Dataset) -> dict[str, tuple[np.ndarray, Interval]]:
    """Test error of every changed recipe minus the full one, by seed, with intervals that hold for all at once."""
    best = chosen(panel, "rate")["test_error"]
    arms = [str(v) for v in panel["variant"].values[1:]]
    full = values(best.isel(variant=0))
    gaps = {arm: values(best.sel(variant=arm)) - full for arm in arms}
    return {arm: (gap, t_interval(gap, 1 - 0.05 / len(arms))) for arm, gap in gaps.items()}


def diagnose(train: np.ndarray, validation: np.ndarray, reachable: float) -> str:
    """Over- or underfitting, from errors by seed and the error that no net can beat but by memorizing.

    The larger of two shortfalls is named, where it is surely more than `SHORT`: ``overfits``, validation minus training
    error; ``underfits``, training error minus the reachable one; else ``neither``.
    """
    gap, excess = t_interval(validation - train), t_interval(train - reachable)
    larger, name = (gap, "overfits") if gap.mean >= excess.mean else (excess, "underfits")
    return name if larger.low > SHORT else "neither"


def middle(panel: xr.Dataset) -> int:
    """The number of examples at which the learning curves are diagnosed."""
    return int(panel["n"][panel.sizes["n"] // 2])


def diagnosis(arm: xr.Dataset, n: int, noise: float) -> str:
    """`diagnose` for one arm of the learning curves at ``n`` examples; labels are wrong at rate ``noise``."""
    train, validation = (values(arm[f"{split}_error"].sel(n=n)) for split in ("train", "validation"))
    return diagnose(train, validation, noise)
