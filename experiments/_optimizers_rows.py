"""What all rows of the optimizers study's report share: their words, and intervals over seeds and test examples."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import stdtrit

from nnjax.results import Row
from nnjax.statistics import Interval, standard_error

POST_HOC = " [post hoc]"
"""Ends a claim whose criterion was settled after pilot runs."""


def holds(yes: Any, no: Any = True) -> str:
    """``holds``, ``fails``, or neither."""
    return "holds" if yes else "fails" if no else "inconclusive"


def own(
    claim: str, quantity: str, measured: str, interval: Interval | str, seeds: int, tolerance: str, verdict: str
) -> Row:
    """A row whose claim is the study's own."""
    return Row(claim, quantity, measured, str(interval), seeds, "-", "own check", tolerance, verdict)


def crossed_interval(samples: np.ndarray, level: float = 0.95) -> Interval:
    """Interval for the mean of what every run gives on every test example, both taken as drawn.

    All runs share the examples and all examples the runs. The variance of the mean is taken as that over runs plus that
    over examples, which counts the part that is of neither twice, so that the interval errs on the wide side (Owen,
    2007). Student's t with the degrees of freedom of the fewer.

    Args:
      samples: (runs, examples); one of either has no interval (NaN).
    """
    samples = np.asarray(samples, float)
    error = np.hypot(standard_error(samples.mean(1)), standard_error(samples.mean(0)))
    half = error * stdtrit(max(min(samples.shape) - 1, 1), 0.5 + level / 2)
    mean = samples.mean()
    return Interval(mean, mean - half, mean + half)
