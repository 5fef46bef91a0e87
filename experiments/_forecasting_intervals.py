"""Is one forecast better than another? The mean difference of their losses, which are correlated in time."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.special import stdtr, stdtrit


class Difference(NamedTuple):
    """A mean difference of losses with its interval, and how probable one so far from 0 is where there is none."""

    mean: float
    low: float
    high: float
    p: float


def long_run_variance(series: np.ndarray, lag: int) -> float:
    """Variance of the mean of a stationary series (t,), times t (Newey and West, 1987).

    Autocovariances up to ``lag`` - 1 count with weights that fall along a line. For white noise the estimate is
    too small by (1 - b + b^2 / 3), b = lag / t, since the series' own mean is taken out; it is divided by that.
    """
    t = len(series)
    rest = series - series.mean()
    covariances = np.array([rest[k:] @ rest[: t - k] / t for k in range(lag)])
    weights = np.where(np.arange(lag) == 0, 1, 2 * (1 - np.arange(lag) / lag))
    b = lag / t
    return float(weights @ covariances / (1 - b + b**2 / 3))


def mean_difference(losses: np.ndarray, others: np.ndarray, level: float = 0.95) -> Difference:
    """Diebold and Mariano's (1995) comparison of two forecasts, one of which may have been made by several seeds.

    ``losses`` are averaged over seeds at every time: judged is one net of a random seed, not the mean of their
    forecasts. The variance of the mean is that over time (`long_run_variance`) plus that over seeds. Lags are
    1.3 sqrt(t), as Lazarus et al. (2018) advise with critical values of their own, those of Kiefer and Vogelsang (2005)
    for a fixed share of lags; Student's distribution with 1.5 t / lag degrees of freedom comes within 3 % of them.

    Args:
      losses: (seeds, t) or (t,), in order of time.
      others: (t,), of the forecast to compare with.
      level: of the interval.
    """
    losses = np.atleast_2d(np.asarray(losses, float))
    seeds, t = losses.shape
    series = losses.mean(axis=0) - others
    lag = int(np.ceil(1.3 * np.sqrt(t)))
    parts = [(long_run_variance(series, lag) / t, 1.5 * t / lag)]
    if seeds > 1:
        parts.append((float(losses.mean(axis=1).var(ddof=1)) / seeds, seeds - 1))
    variance = sum(part for part, _ in parts)
    mean = float(series.mean())
    if not variance > 0:  # the same forecasts: nothing differs
        return Difference(mean, mean, mean, 1.0 if mean == 0 else 0.0)
    # Degrees of freedom of a sum of two variances: Satterthwaite (1946).
    freedom = variance**2 / sum(part**2 / degrees for part, degrees in parts)
    half = float(np.sqrt(variance) * stdtrit(freedom, 0.5 + level / 2))
    p = float(2 * stdtr(freedom, -abs(mean) / np.sqrt(variance)))
    return Difference(mean, mean - half, mean + half, p)


def ratio_difference(losses: np.ndarray, others: np.ndarray, base: np.ndarray | None = None) -> Difference:
    """`mean_difference` as a share of the mean of ``base`` (t,), by default ``others``, which is uncertain as well.

    The ratio r of mean ``losses`` - ``others`` to mean ``base`` differs from the true one, to first order, by the mean
    of (losses - others - r base) / mean base, whose interval is taken; p is that of the plain difference. Losses are
    not negative: an interval ends where they would be 0.
    """
    base = np.asarray(others if base is None else base, float)
    plain = mean_difference(losses, others)
    share = plain.mean / base.mean()
    rest = mean_difference((np.atleast_2d(losses) - others - share * base) / base.mean(), np.zeros(len(base)))
    least = -float(np.mean(others) / base.mean())
    return Difference(share, max(share + rest.low, least), share + rest.high, plain.p)


def holm(p: np.ndarray) -> np.ndarray:
    """p values of several comparisons (m,), each so enlarged that one is below alpha by chance with at most alpha.

    Holm (1979).
    """
    p = np.asarray(p, float)
    order = np.argsort(p)
    enlarged = np.maximum.accumulate((len(p) - np.arange(len(p))) * p[order])
    found = np.empty_like(p)
    found[order] = np.minimum(enlarged, 1)
    return found
