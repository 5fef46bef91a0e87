"""Gaussian-process regression with the Matern 5/2 kernel, and the improvement that is expected of a point.

On the host, in float64: a search has tens to hundreds of trials, another number each time, of which every one would be
a program of its own to compile.

Sources: Rasmussen and Williams (2006), chapters 2, 4 and 5; Mockus (1978) and Jones et al. (1998), improvement; Snoek
et al. (2012), Matern 5/2 with a length for each dimension; Ament et al. (2023), its logarithm without underflow.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy.linalg
import scipy.optimize
from scipy.spatial.distance import cdist
from scipy.special import erfcx, ndtr

from nnjax.types import Array

_ROOT5 = np.sqrt(5.0)
_LOG_ROOT_2PI = 0.5 * np.log(2 * np.pi)

# Means and standard deviations of the logarithms' normal priors, for targets of variance 1 on the unit cube: with a
# few trials in several dimensions the likelihood alone is flat, and calls everything noise or everything signal.
_LENGTH, _SIGNAL, _NOISE = (np.log(0.5), 1.0), (0.0, 1.0), (np.log(1e-3), 2.0)
_LEAST_NOISE = 1e-8


class Kernel(NamedTuple):
    """Matern 5/2 with a length for each group of columns.

    Attributes:
      lengths: (groups,), in units of the columns.
      signal: variance of the function, ().
      noise: variance of the noise, ().
    """

    lengths: np.ndarray
    signal: float
    noise: float


def squared_differences(x: Array, groups: Array) -> np.ndarray:
    """Squared differences between the rows of x (n, d), summed within groups of columns (d,): (groups, n, n)."""
    x, groups = np.asarray(x, float), np.asarray(groups)
    made = np.zeros((int(groups.max()) + 1, len(x), len(x)))
    for group, column in zip(groups, x.T, strict=True):
        made[group] += (column[:, None] - column[None]) ** 2
    return made


def scaled_distances(a: Array, b: Array, lengths: Array) -> np.ndarray:
    """Distances (n, m) between the rows of a (n, d) and b (m, d), in units of each column's length (d,)."""
    return cdist(np.asarray(a, float) / lengths, np.asarray(b, float) / lengths)


def matern52(r: Array) -> np.ndarray:
    """Correlations at distances r: (1 + √5 r + 5/3 r²) exp(-√5 r)."""
    z = _ROOT5 * np.asarray(r, float)
    return (1 + z + z**2 / 3) * np.exp(-z)


def fit(x: Array, y: Array, groups: Array) -> Kernel:
    """The kernel of the greatest posterior density, given targets y (n,) of mean 0 and variance 1 at x (n, d).

    Log-normal priors: lengths about 0.5, signal about 1, noise variance about 0.001. Deterministic.
    """
    y = np.asarray(y, float)
    squares = squared_differences(x, groups)
    free = len(squares) + 2
    center = np.array([*[_LENGTH[0]] * len(squares), _SIGNAL[0], _NOISE[0]])
    spread = np.array([*[_LENGTH[1]] * len(squares), _SIGNAL[1], _NOISE[1]])
    bounds = [*[(np.log(0.01), np.log(100.0))] * len(squares), (-5.0, 5.0), (np.log(_LEAST_NOISE), 2.0)]

    def cost(logs: np.ndarray) -> tuple[float, np.ndarray]:
        value, slope = log_likelihood(logs, squares, y)
        z = (logs - center) / spread
        return -value + 0.5 * z @ z, -slope + z / spread

    starts = [center, center + np.array([*[1.0] * (free - 2), 0.0, 4.0])]
    found = [scipy.optimize.minimize(cost, start, jac=True, method="L-BFGS-B", bounds=bounds) for start in starts]
    logs = min(found, key=lambda each: each.fun).x
    return Kernel(np.exp(logs[:-2]), float(np.exp(logs[-2])), float(np.exp(logs[-1])))


def log_likelihood(logs: Array, squares: Array, y: Array) -> tuple[float, np.ndarray]:
    """Log marginal likelihood of targets y (n,), and its gradient in the logarithms of the kernel's parameters.

    Args:
      logs: logarithms of lengths, signal and noise, (groups + 2,).
      squares: `squared_differences` of the points, (groups, n, n).
      y: targets of mean 0, (n,).
    """
    kernel = Kernel(np.exp(logs[:-2]), float(np.exp(logs[-2])), float(np.exp(logs[-1])))
    n = len(y)
    r = np.sqrt(np.tensordot(kernel.lengths**-2.0, squares, axes=1))
    covariance = kernel.signal * matern52(r)
    try:
        factor = scipy.linalg.cho_factor(covariance + kernel.noise * np.eye(n), lower=True)
    except np.linalg.LinAlgError:
        return -1e25, np.zeros(len(logs))
    inverse = scipy.linalg.cho_solve(factor, np.eye(n))
    weights = inverse @ y
    value = -0.5 * y @ weights - np.log(np.diag(factor[0])).sum() - n * _LOG_ROOT_2PI
    outer = np.outer(weights, weights) - inverse
    slope = outer * (kernel.signal * (5 / 3) * (1 + _ROOT5 * r) * np.exp(-_ROOT5 * r))
    lengths = 0.5 * np.tensordot(squares, slope, axes=2) / kernel.lengths**2
    signal, noise = 0.5 * np.sum(outer * covariance), 0.5 * kernel.noise * np.trace(outer)
    return float(value), np.array([*lengths, signal, noise])


class Model(NamedTuple):
    """A Gaussian process that knows targets y (n,) at x (n, d); `condition` makes it.

    Attributes:
      x, y, groups, kernel: what it was made of.
      factor: lower Cholesky factor of the targets' covariance, (n, n).
      weights: inverse covariance times y, (n,).
    """

    x: np.ndarray
    y: np.ndarray
    groups: np.ndarray
    kernel: Kernel
    factor: np.ndarray
    weights: np.ndarray


def condition(x: Array, y: Array, groups: Array, kernel: Kernel) -> Model:
    """The process given targets y (n,) of mean 0 at x (n, d), whose columns are of ``groups`` (d,)."""
    x, y, groups = np.asarray(x, float), np.asarray(y, float), np.asarray(groups)
    correlation = matern52(scaled_distances(x, x, kernel.lengths[groups]))
    factor = scipy.linalg.cholesky(kernel.signal * correlation + kernel.noise * np.eye(len(x)), lower=True)
    return Model(x, y, groups, kernel, factor, scipy.linalg.cho_solve((factor, True), y))


def posterior(model: Model, at: Array) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation (m,) of the function, without noise, at points (m, d)."""
    lengths = model.kernel.lengths[model.groups]
    across = model.kernel.signal * matern52(scaled_distances(model.x, at, lengths))
    half = scipy.linalg.solve_triangular(model.factor, across, lower=True)
    variance = model.kernel.signal - np.sum(half**2, axis=0)
    return across.T @ model.weights, np.sqrt(np.maximum(variance, 1e-18))


def expected_improvement(mean: Array, deviation: Array, best: float) -> np.ndarray:
    """E[max(best - f, 0)] for f normal with ``mean`` and ``deviation``, of one shape: how far below ``best``."""
    z = (best - np.asarray(mean, float)) / deviation
    return np.asarray(deviation * (np.exp(-0.5 * z**2 - _LOG_ROOT_2PI) + z * ndtr(z)))


def log_expected_improvement(mean: Array, deviation: Array, best: float) -> np.ndarray:
    """Logarithm of `expected_improvement`, which still tells points apart where that is rounded to 0."""
    z = (best - np.asarray(mean, float)) / deviation
    near = np.maximum(z, -1.0)
    log_near = np.log(np.exp(-0.5 * near**2 - _LOG_ROOT_2PI) + near * ndtr(near))
    far = np.minimum(z, -1.0)
    # phi(z) (1 - |z| Phi(z) / phi(z)); far out the difference cancels, and tends to 1 / z^2.
    ratio = np.abs(far) * erfcx(np.abs(far) / np.sqrt(2)) * np.sqrt(np.pi / 2)
    rest = np.where(far < -1e3, far**-2.0, np.maximum(1 - ratio, 1e-300))
    log_far = -0.5 * far**2 - _LOG_ROOT_2PI + np.log(rest)
    return np.log(deviation) + np.where(z > -1, log_near, log_far)
