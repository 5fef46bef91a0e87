"""Walk-forward evaluation: the past trains, what comes next tests, and nothing of the test reaches the training."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np

from nnjax.data.series import Windows, whole, windows
from nnjax.data.splits import MinMaxScaler, Standardizer, fit_standardizer
from nnjax.types import Array

Scale = Standardizer | MinMaxScaler | Callable[[Array], Array]


class Fold(NamedTuple):
    """Steps to train on and, later, steps to test on."""

    train: slice
    test: slice


class FoldWindows(NamedTuple):
    """The windows of one fold, scaled by its training part.

    Attributes:
        train: windows and targets inside the training part.
        test: one window for every step of the test part where one step is forecast.
        scale: what was fitted on the training part; ``y * scale.std + scale.mean`` undoes a `Standardizer`.
    """

    train: Windows
    test: Windows
    scale: Scale


def walk_forward(t: int, *, folds: int, test: int, gap: int = 0, train: int | None = None) -> list[Fold]:
    """Folds whose test parts follow each other up to the last step, each trained on what came before it.

    Without ``train`` the training part begins at step 0 and grows (expanding window); with it, only the last ``train``
    steps count (rolling window). Evaluation on a rolling origin, Tashman (2000).

    Args:
        t: steps of the series.
        folds: how many.
        test: steps of each test part.
        gap: steps left out between training and test part.
        train: steps of each training part, or None for all there are.

    Returns:
        ``folds`` folds, the earliest first.

    Raises:
        ValueError: a number that is not whole or below what makes sense, or a series too short for the first fold.
    """
    t, folds, test, gap = whole("t", t), whole("folds", folds), whole("test", test), whole("gap", gap, 0)
    past = 1 if train is None else whole("train", train)
    if t < past + gap + folds * test:
        raise ValueError(
            f"t={t} steps are too few for folds={folds} of test={test} after a gap of {gap} and {past} of training"
        )
    starts = range(t - folds * test, t, test)
    begins = [0 if train is None else start - gap - past for start in starts]
    return [Fold(slice(a, b - gap), slice(b, b + test)) for a, b in zip(begins, starts, strict=True)]


def fold_windows(
    values: Array,
    fold: Fold,
    length: int,
    *,
    horizon: int = 1,
    steps: int | None = None,
    fit: Callable[[Array], Scale] = fit_standardizer,
) -> FoldWindows:
    """Windows of one fold, as `windows` makes them, with the scale fitted on the training part alone.

    Every training target lies in the training part, so before the first test target. A test window may look back into
    the gap and the training part, and at test values before its own target: they are known when it is forecast.

    Args:
        values: (t, c) or (t,), the latter as one column; NumPy or JAX, may be traced.
        fold: from `walk_forward`, or one's own.
        length: steps seen.
        horizon: steps ahead.
        steps: how many steps in a row a target holds, as for `windows`; None for one alone.
        fit: makes the scale from the training part's values (t_train, c); also `fit_min_max`.

    Returns:
        `FoldWindows` with t_train - length - horizon + 1 windows to train on and t_test to test on, fewer by
        ``steps`` - 1 each.

    Raises:
        ValueError: a training part that reaches into the test part, parts outside the series, too few steps, or values
            that are not finite (not checked where traced).
    """
    values = values if isinstance(values, jax.Array) else np.asarray(values)
    if values.ndim not in (1, 2):
        raise ValueError(f"values of shape {values.shape} must be (t, c) or (t,)")
    train, test = (_steps(part, len(values)) for part in fold)
    if train.stop > test.start:
        raise ValueError(f"training steps up to {train.stop} reach into the test steps from {test.start}")
    values = values[:, None] if values.ndim == 1 else values
    past = windows(values[train.start : train.stop], length, horizon=horizon, steps=steps)
    # The training part holds a whole window and its target, so the first test window lies inside the series.
    future = windows(values[test.start - horizon - length + 1 : test.stop], length, horizon=horizon, steps=steps)
    scale = fit(values[train.start : train.stop])
    return FoldWindows(_scaled(past, scale), _scaled(future, scale), scale)


def _steps(part: slice, t: int) -> range:
    """The steps of a slice that lies inside the series."""
    start, stop = part.start or 0, t if part.stop is None else part.stop
    if part.step not in (None, 1) or not 0 <= start < stop <= t:
        raise ValueError(f"part {part} must be a slice of successive steps from 0 to {t}")
    return range(start, stop)


def _scaled(pieces: Windows, scale: Scale) -> Windows:
    return Windows(scale(pieces.x), scale(pieces.y))
