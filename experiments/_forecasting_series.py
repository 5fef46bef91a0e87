"""The series of the forecasting study, real and drawn ones: windows, folds and scales that never look ahead."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import numpy as np

from nnjax.data import fit_standardizer
from nnjax.data.series import Series, fill_forward, load_series, share_price, windows
from nnjax.data.walk_forward import Fold, walk_forward


class Specification(NamedTuple):
    """What is fixed beforehand about a series.

    Attributes:
      unit: of the values that are forecast.
      season: steps after which it repeats, or nearly so.
      length: steps of a window.
      trending: positive and without a level of its own: models see logarithms, relative to the window's last value.
      draw: ``(steps, seed) -> (values (t,), best forecasts (t,))`` of a series that is drawn; None of a real one.
      last: steps used, the latest; None for all.
    """

    unit: str
    season: int
    length: int
    trending: bool
    draw: Callable[[int, int], tuple[np.ndarray, np.ndarray]] | None = None
    last: int | None = None


class Panel(NamedTuple):
    """A series ready to be forecast: n windows, folds of m test targets; "z" is a value as the models see it.

    Attributes:
      specification: what is fixed about it.
      times: (t,) steps of a drawn series, years of a real one.
      values: (t,) in the series' unit, nan where nothing was measured.
      x: (n, length, c), inputs.
      last: (n,), z of each window's last value.
      seasonal: (n,), z one season before each target.
      difference: (n,), z of the target less ``last``.
      target: (n,), place of each target in ``values``.
      best: (n,), best possible forecasts in the series' unit, or None where nobody knows them.
      folds: training and test part of each, slices of the n windows.
      validation: windows at the end of every training part that are for validation, and not trained on.
    """

    specification: Specification
    times: np.ndarray
    values: np.ndarray
    x: np.ndarray
    last: np.ndarray
    seasonal: np.ndarray
    difference: np.ndarray
    target: np.ndarray
    best: np.ndarray | None
    folds: list[Fold]
    validation: int

    def in_unit(self, z: np.ndarray) -> np.ndarray:
        """Forecasts in the series' unit."""
        return np.exp(z) if self.specification.trending else z

    def training_windows(self, fold: Fold) -> slice:
        """The windows of a fold that are trained on."""
        return slice(0, fold.train.stop - self.validation)

    def validation_windows(self, fold: Fold) -> slice:
        """The windows of a fold that its models are chosen on: the last ones before the test part."""
        return slice(fold.train.stop - self.validation, fold.train.stop)


# Series that are drawn, with the best forecast of each value from all values before it


def _seasonal(steps: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Growth and a year of twelve months, multiplied, with noise that is correlated from month to month."""
    noise = 0.03 * np.random.default_rng([seed, 1]).normal(size=steps)
    t = np.arange(steps)
    # The growth is one of the whole, or a longer series would be of another nature: its last errors would be all.
    course = math.log(100) + 3.0 * t / steps + 0.2 * np.sin(2 * np.pi * t / 12) + 0.1 * np.cos(4 * np.pi * t / 12)
    level, before = np.zeros(steps), 0.0
    for i in range(steps):
        before = level[i] = 0.7 * before + noise[i]
    expected = course + 0.7 * np.concatenate([[0.0], level[:-1]])
    return np.exp(course + level), np.exp(expected + 0.03**2 / 2)


def _cycle(steps: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A second-order autoregression, nearly the one that Yule (1927) found in the sunspots."""
    noise = 15 * np.random.default_rng([seed, 2]).normal(size=steps + 100)
    y, expected = np.zeros(steps + 100), np.zeros(steps + 100)
    for i in range(2, len(y)):
        expected[i] = 1.34 * y[i - 1] - 0.65 * y[i - 2]
        y[i] = expected[i] + noise[i]
    return 45 + y[100:], 45 + expected[100:]


def _nonlinear(steps: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """An exponential autoregression: what follows depends on the last value, but not along a line."""
    noise = 0.5 * np.random.default_rng([seed, 3]).normal(size=steps + 100)
    y, expected = np.zeros(steps + 100), np.zeros(steps + 100)
    for i in range(1, len(y)):
        expected[i] = 3 * y[i - 1] * math.exp(-(y[i - 1] ** 2) / 2)
        y[i] = expected[i] + noise[i]
    return y[100:], expected[100:]


def _walk(steps: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Closing prices without drift: the last one, less than a part in 8000 aside, is the best forecast of the next."""
    volatility = 0.015
    prices = share_price(jax.random.key(seed), steps, drift=0.0, volatility=volatility)
    close = np.asarray(prices, np.float64)[:, 1]
    before = np.concatenate([[100.0], close[:-1]])
    return close, before * math.exp(volatility**2 / 2)


SERIES = {
    "seasonal": Specification("units", 12, 13, True, _seasonal),
    "cycle": Specification("units", 11, 12, False, _cycle),
    "nonlinear": Specification("units", 2, 6, False, _nonlinear),
    "walk": Specification("units of money", 5, 10, True, _walk),
    "airline": Specification("thousand passengers", 12, 13, True),
    "sunspots": Specification("sunspot number", 132, 24, False),
    "temperatures": Specification("degrees Celsius", 365, 14, False),
    "pollution": Specification("µg/m³ PM2.5", 24, 24, False, last=8760),
    "apple": Specification("US dollars", 5, 10, True),
}
"""Every series by name."""

CONTROLS = ("walk", "apple")
"""Prices: nothing is to beat the last one."""


def _loaded(name: str, steps: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Times (t,), columns (t, c) with what is forecast in the first, and best forecasts (t,) where they are known."""
    draw = SERIES[name].draw
    if draw is not None:
        values, best = draw(steps, seed)
        return np.arange(steps, dtype=float), values[:, None], best
    series = load_series(name)
    # Of the prices only the last of the day, from which the forecast starts.
    values = series.values[:, [series.columns.index("close")]] if name == "apple" else series.values
    recent = slice(-(SERIES[name].last or len(values)), None)
    return _years(series)[recent], values[recent], None


def _years(series: Series) -> np.ndarray:
    """Times as years and their parts."""
    start = series.times.astype("datetime64[Y]")
    length = (start + np.timedelta64(1, "Y")).astype("datetime64[h]") - start.astype("datetime64[h]")
    return start.astype(int) + 1970 + (series.times.astype("datetime64[h]") - start.astype("datetime64[h]")) / length


def panel(name: str, *, steps: int, seed: int, folds: int, test_share: float, validation_share: float) -> Panel:
    """Everything that is needed to forecast a series.

    Args:
      name: in `SERIES`.
      steps: of a series that is drawn.
      seed: of the draw.
      folds: how many.
      test_share: of all windows, to test on; the latest.
      validation_share: of the first fold's training part, the windows for validation.

    Raises:
      ValueError: too few steps.
      nnjax.data.DataError: a real series is missing and cannot be downloaded.
    """
    specification = SERIES[name]
    times, values, best = _loaded(name, steps, seed)
    x, last, seasonal, difference, target = _cut(values, specification)
    # What was never measured is nothing to learn or to be judged by.
    real = np.isfinite(values[target, 0])
    x, last, seasonal, difference, target = (part[real] for part in (x, last, seasonal, difference, target))
    test = int(test_share * len(x) / folds)
    parts = walk_forward(len(x), folds=folds, test=test) if test else []
    validation = int(validation_share * parts[0].train.stop) if parts else 0
    if test < LEAST_TEST or validation < 2 or parts[0].train.stop - validation < 2:
        raise ValueError(f"{len(x)} windows of {name} are too few for {folds} folds")
    best = best[target] if best is not None else None
    return Panel(specification, times, values[:, 0], x, last, seasonal, difference, target, best, parts, validation)


LEAST_TEST = 4
"""Test targets of a fold, at least."""


def _cut(values: np.ndarray, specification: Specification) -> tuple[np.ndarray, ...]:
    """Inputs, last values, values a season before, differences, and places of the targets; all but the last in z."""
    filled = fill_forward(values)
    first = int(np.max(filled.missing))
    z = np.log(filled.values[first:]) if specification.trending else filled.values[first:]
    early = specification.season - 1 if specification.season > specification.length else 0
    columns = z[early:]
    if early:  # for every step the value a season before the one after it, which the window does not hold
        columns = np.hstack([columns, z[: len(z) - early, :1]])
    x, y = (np.asarray(part) for part in windows(columns, specification.length))
    last = x[:, -1, 0]
    target = early + specification.length + np.arange(len(x))
    seasonal = z[target - specification.season, 0]
    seen = x - last[:, None, None] if specification.trending else x
    return seen, last, seasonal, y[:, 0] - last, first + target


class Scales(NamedTuple):
    """Mean and standard deviation of inputs (c,) and of differences (), of the training windows alone."""

    x_mean: np.ndarray
    x_std: np.ndarray
    mean: np.ndarray
    std: np.ndarray


def scales(data: Panel, fold: Fold) -> Scales:
    """The scales of one fold."""
    part = data.training_windows(fold)
    inputs, target = fit_standardizer(data.x[part], axis=(0, 1)), fit_standardizer(data.difference[part])
    return Scales(*(np.asarray(part) for part in (inputs.mean[0], inputs.std[0], target.mean, target.std)))


def arrays(data: Panel) -> dict[str, np.ndarray]:
    """What a lane is given: windows, each fold's places among them and its scales.

    Training parts grow from fold to fold, and one program is for all: the places of a shorter part are repeated, and
    the weights of the repeated ones share what one example weighs.
    """
    most = max(data.training_windows(fold).stop for fold in data.folds)
    fit = [np.arange(most) % data.training_windows(fold).stop for fold in data.folds]
    weight = [1 / np.bincount(places)[places] for places in fit]
    each = [scales(data, fold) for fold in data.folds]
    single = partial(np.asarray, dtype=np.float32)
    return {
        "x": single(data.x), "difference": single(data.difference),
        "fit": np.asarray(fit, np.int32), "weight": single(weight),
        "validation": np.asarray([np.r_[data.validation_windows(fold)] for fold in data.folds], np.int32),
        "test": np.asarray([np.r_[fold.test] for fold in data.folds], np.int32),
        **{name: single([getattr(scale, name) for scale in each]) for name in Scales._fields},
    }  # fmt: skip
