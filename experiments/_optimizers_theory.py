"""Closed forms of the optimizers study: paths on a quadratic ravine, and what rules learn on Wilson's construction."""

from __future__ import annotations

import numpy as np

from experiments._optimizers_lanes import ADAPTIVE, PLAIN, RAVINE_START


def ravine_path(rule: str, rate: float, curvatures: np.ndarray, momentum: float, steps: int) -> np.ndarray:
    """Path (steps + 1, 2) on f = sum h w^2 / 2 from `RAVINE_START`, without taking a step.

    Every direction of curvature h follows w_k+1 = p w_k - q w_k-1 with, for lr the rate and m the momentum,
    p = 1 + m - lr h, q = m (momentum) or p = (1 + m) (1 - lr h), q = m (1 - lr h) (Nesterov), so
    w_k = w_1 u_k - q w_0 u_k-1 with u_k = (z_1^k - z_2^k) / (z_1 - z_2) and z the roots of z^2 - p z + q
    (Polyak, 1964); plain descent is m = 0.
    """
    m = 0.0 if rule == "sgd" else momentum
    start = np.asarray(RAVINE_START, complex)
    shrink = 1 - rate * np.asarray(curvatures)
    if rule == "nesterov":
        p, q = (1 + m) * shrink, m * shrink
        second = start * (1 - rate * np.asarray(curvatures) * (1 + m))
    else:
        p, q = m + shrink, np.full_like(shrink, m)
        second = start * shrink
    split = np.sqrt(p.astype(complex) ** 2 - 4 * q)
    z1, z2 = (p + split) / 2, (p - split) / 2
    k = np.arange(steps + 1)[:, None]
    # (z1^k - z2^k) / (z1 - z2), whose limit for a double root is k z^(k - 1).
    with np.errstate(over="ignore", invalid="ignore"):
        apart = (z1**k - z2**k) / np.where(split == 0, 1, split)
        growth = np.where(split == 0, k * z1 ** np.maximum(k - 1, 0), apart)
        before = np.concatenate([np.zeros_like(growth[:1]), growth[:-1]])
        return np.concatenate([start[None], (second * growth - q * start * before)[1:]]).real


def first_within(path: np.ndarray, share: float = 0.01) -> int:
    """First step (axis 0) from which on the distance to 0 stays below a share of the start's; the length if never."""
    distance = np.hypot(*np.moveaxis(path, -1, 0))
    beyond = np.flatnonzero(~(distance <= share * distance[0]))
    return int(beyond[-1]) + 1 if len(beyond) else 0


def separable_error(rule: str, share: np.ndarray) -> np.ndarray:
    """Test error on Wilson's construction with a share > 1/2 of positive examples.

    Plain rules stay in the span of the examples and end at the solution of least norm, which is right on all new
    ones; adaptive rules end at weights of equal size, sign(X'y) / 4, which call every new example positive
    (Wilson et al., 2017, lemma 3.1 and section 3.3). Rprop's steps have equal sizes too.
    """
    if rule in PLAIN:
        return np.zeros_like(share)
    assert rule in ADAPTIVE or "rprop" in rule
    return 1 - np.asarray(share)
