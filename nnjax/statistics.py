"""What repeated runs say: intervals, curve landmarks fixed beforehand, and when a number counts as reproduced."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.special import betaincinv, stdtrit

from nnjax.types import Array


class Interval(NamedTuple):
    """Mean of some samples, and the ends of a confidence interval for it."""

    mean: Array
    low: Array
    high: Array

    def __str__(self) -> str:
        return f"[{float(self.low):.4g}, {float(self.high):.4g}]"


def t_interval(samples: Array, level: float = 0.95, axis: int = 0) -> Interval:
    """Student's interval for the mean of independent samples along ``axis``; one sample has no interval (NaN).

    Raises:
      ValueError: ``level`` outside (0, 1) or no samples.
    """
    if not 0 < level < 1:
        raise ValueError(f"level={level} must lie between 0 and 1")
    samples = np.asarray(samples, float)
    n = samples.shape[axis]
    if n == 0:
        raise ValueError("an interval needs at least one sample")
    with np.errstate(invalid="ignore"):  # infinite samples: the interval is NaN
        mean = samples.mean(axis=axis)
        half = standard_error(samples, axis) * stdtrit(max(n - 1, 1), 0.5 + level / 2)
        return Interval(mean, mean - half, mean + half)


def resampled_t_interval(samples: Array, test_ratio: float, level: float = 0.95, axis: int = 0) -> Interval:
    """`t_interval` for the mean over repeated random splits of one data set, which share examples.

    The splits' results are not independent: J of them say less of new data than J data sets would. The variance of
    the mean is taken as (1/J + ``test_ratio``) times the splits' instead of 1/J (Nadeau and Bengio, 2003).

    Args:
      samples: results by split along ``axis``.
      test_ratio: test over training examples of a split; 0 is `t_interval`.

    Raises:
      ValueError: ``test_ratio`` below 0, ``level`` outside (0, 1) or no samples.
    """
    if not test_ratio >= 0:
        raise ValueError(f"test_ratio={test_ratio} must be at least 0")
    plain = t_interval(samples, level, axis)
    half = (plain.high - plain.mean) * np.sqrt(1 + np.shape(samples)[axis] * test_ratio)
    return Interval(plain.mean, plain.mean - half, plain.mean + half)


def share_interval(count: int, n: int, level: float = 0.95) -> Interval:
    """Exact interval for a probability, after ``count`` of ``n`` independent trials (Clopper and Pearson, 1934).

    Raises:
      ValueError: ``level`` outside (0, 1), or ``count`` not between 0 and ``n``, which is at least 1.
    """
    if not 0 < level < 1:
        raise ValueError(f"level={level} must lie between 0 and 1")
    if not 0 <= count <= n or n < 1:
        raise ValueError(f"count={count} must lie between 0 and n={n}, at least 1")
    tail = (1 - level) / 2
    low = betaincinv(count, n - count + 1, tail) if count else 0.0
    high = betaincinv(count + 1, n - count, 1 - tail) if count < n else 1.0
    return Interval(np.asarray(count / n), np.asarray(low), np.asarray(high))


def interval_verdict(interval: Interval, *, above: float = -np.inf, below: float = np.inf) -> str:
    """Whether a quantity lies between two limits, by its interval.

    ``holds`` when the whole interval lies between them, ``fails`` when it lies beyond one of them (or just reaches it),
    else ``open``, as where there is no interval (NaN).

    Raises:
      ValueError: no limit, or one that is not below the other.
    """
    if not above < below or (above == -np.inf and below == np.inf):
        raise ValueError(f"above={above} and below={below}: give one limit, or two of which above is the lower")
    low, high = float(interval.low), float(interval.high)
    if above < low and high < below:
        return "holds"
    return "fails" if low >= below or high <= above else "open"


def standard_error(samples: Array, axis: int = 0) -> Array:
    """Standard error of the mean along ``axis``; NaN for a single sample."""
    samples = np.asarray(samples, float)
    n = samples.shape[axis]
    if n < 2:
        return np.full(np.delete(samples.shape, axis), np.nan)
    with np.errstate(invalid="ignore"):
        return samples.std(axis=axis, ddof=1) / np.sqrt(n)


class Peak(NamedTuple):
    """The interior peak of a curve: its index, and its height above the higher of the two valleys beside it."""

    at: int
    prominence: float


def interior_peak(curve: Array) -> Peak:
    """The point that stands highest above the lowest points on both of its sides.

    A curve that only falls or only rises has prominence 0 or less. Points that are not finite are passed over.

    Args:
      curve: (m,), m >= 3.
    """
    curve = np.asarray(curve, float)
    if curve.ndim != 1 or len(curve) < 3:
        raise ValueError(f"curve of shape {curve.shape} must have one axis with at least 3 points")
    filled = np.where(np.isfinite(curve), curve, np.inf)
    left = np.minimum.accumulate(filled)[:-2]
    right = np.minimum.accumulate(filled[::-1])[::-1][2:]
    inner = np.where(np.isfinite(curve[1:-1]), curve[1:-1], -np.inf)
    prominence = inner - np.maximum(left, right)
    best = int(np.argmax(prominence))
    return Peak(best + 1, float(prominence[best]))


def verdict(
    measured: Array, published: float, tolerance: float, *, baseline: float | None = None, least: int = 20
) -> str:
    """Whether samples of a quantity reproduce a published number.

    ``reproduced`` when the 90 % t-interval of measured - published lies inside +-tolerance and, with a
    baseline, the 95 % interval of measured - baseline excludes zero on the published side; ``better`` when that
    effect is beyond the tolerance in the claimed direction; ``direction only`` when just the side is right;
    ``not reproduced`` when the 90 % interval lies outside the tolerance; else, or with fewer than ``least``
    samples (5 where the tolerance is at least two standard deviations of them), ``inconclusive``.
    """
    samples = np.asarray(measured, float)
    if not np.isfinite(samples).all() or len(samples) < min(least, 5):
        return "inconclusive"
    if len(samples) < least and tolerance < 2 * samples.std(ddof=1):
        return "inconclusive"
    gap = t_interval(samples - published, 0.90)
    inside = gap.low >= -tolerance and gap.high <= tolerance
    if baseline is None:
        outside = gap.low > tolerance or gap.high < -tolerance
        return "reproduced" if inside else "not reproduced" if outside else "inconclusive"
    side = np.sign(published - baseline)
    effect = t_interval(side * (samples - baseline), 0.95)
    beyond, short = gap.low > tolerance, gap.high < -tolerance
    if side < 0:
        beyond, short = short, beyond
    if effect.low <= 0:
        return "not reproduced" if short else "inconclusive"
    if inside:
        return "reproduced"
    return "better" if beyond else "direction only"
