"""Series in time: real ones from checked files, a synthetic share price, and windows that never look ahead."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nnjax.data import cache as _cache
from nnjax.data.cache import DataError, SourceFile
from nnjax.naming import choose
from nnjax.types import Array, Key

CacheFolder = str | os.PathLike[str] | None


class Series(NamedTuple):
    """A series in memory.

    Attributes:
        name: as given to `load_series`.
        times: (t,) datetime64, ascending.
        values: (t, c) float64.
        columns: what each of the c columns is.
        unit: of the values.
    """

    name: str
    times: np.ndarray
    values: np.ndarray
    columns: tuple[str, ...]
    unit: str


class Windows(NamedTuple):
    """What was seen and what came next.

    Attributes:
        x: (n, length, c), the values of each window in order of time.
        y: (n, c), the values ``horizon`` steps after the window's last.
    """

    x: Array
    y: Array


def series_names() -> tuple[str, ...]:
    """Every name `load_series` knows."""
    return tuple(_SERIES)


def load_series(name: str, *, cache: CacheFolder = None) -> Series:
    """Load a series; a file that is not in the cache folder is downloaded first.

    | name | length | columns | source |
    |---|---|---|---|
    | apple | 506 trading days, 2015-02-17 to 2017-02-16 | open, high, low, close, US dollars | Plotly's data sets |

    Args:
        name: one of `series_names()`.
        cache: folder of the data files, as for `nnjax.data.load`; it holds `time-series/`.

    Raises:
        ValueError: unknown name.
        DataError: the file is missing and cannot be downloaded, or is not the file it should be.
    """
    return choose("series", name, _SERIES)(name, cache)


def windows(values: Array, length: int, *, horizon: int = 1) -> Windows:
    """All windows of ``length`` steps with the values ``horizon`` steps later, in order of time.

    Nothing in a window is later than its last step, and y is always later than that. Split them by time, all
    training targets before all test targets, and fit scales on the training part alone.

    Args:
        values: (t, c) or (t,), the latter as one column; NumPy or JAX, may be traced.
        length: steps seen.
        horizon: steps ahead.

    Returns:
        `Windows` with n = t - length - horizon + 1.

    Raises:
        ValueError: too few steps for one window, a length or horizon below 1, or values that are not finite (not
            checked where traced).
    """
    values = values if isinstance(values, jax.Array) else np.asarray(values)
    if values.ndim not in (1, 2):
        raise ValueError(f"values of shape {values.shape} must be (t, c) or (t,)")
    if length < 1 or horizon < 1:
        raise ValueError(f"length={length} and horizon={horizon} must be at least 1")
    n = len(values) - length - horizon + 1
    if n < 1:
        raise ValueError(f"{len(values)} steps are too few for a window of {length} and a horizon of {horizon}")
    if not isinstance(values, jax.core.Tracer) and not np.isfinite(np.asarray(values)).all():
        raise ValueError("values must be finite; fill or leave out what is missing first")
    values = values[:, None] if values.ndim == 1 else values
    places = np.arange(n)[:, None] + np.arange(length)[None, :]
    return Windows(values[places], values[length + horizon - 1 :])


def share_price(
    key: Key,
    days: int,
    *,
    drift: Array | float = 5e-4,
    volatility: Array | float = 0.015,
    overnight: float = 0.3,
    first: Array | float = 100.0,
) -> Array:
    """A geometric random walk with drift: opening and closing price of every day, (days, 2).

    Each day's logarithmic return is N(drift, volatility^2); its share ``overnight`` of drift and variance falls between
    the last close and the open. Steps are independent, so no function of past prices foretells the next return
    better than its mean.

    Args:
        key: random key.
        days: trading days.
        drift: mean logarithmic return a day.
        volatility: its standard deviation.
        overnight: share that falls overnight, from 0 to 1.
        first: price before the first day.

    Raises:
        ValueError: fewer than one day or a share outside [0, 1].
    """
    if days < 1:
        raise ValueError(f"days={days} must be at least 1")
    if not 0 <= overnight <= 1:
        raise ValueError(f"overnight={overnight} must lie between 0 and 1")
    shares = jnp.array([overnight, 1 - overnight])[None, :]
    noise = jax.random.normal(key, (days, 2))
    steps = drift * shares + volatility * jnp.sqrt(shares) * noise
    return first * jnp.exp(jnp.cumsum(steps.ravel())).reshape(days, 2)


# Files


def _table(source: SourceFile, time: str, columns: dict[str, str], unit: str, name: str, cache: CacheFolder) -> Series:
    """A CSV file with one row a time; ``columns`` are the file's names by ours."""
    text = _cache.read(source, cache=cache).decode()
    rows = list(csv.DictReader(io.StringIO(text)))
    try:
        times = np.array([row[time] for row in rows], "datetime64[D]")
        values = np.array([[float(row[theirs]) for theirs in columns.values()] for row in rows])
    except (KeyError, ValueError, TypeError) as error:
        raise DataError(f"{source} is not the table it should be ({error})") from None
    return Series(name, times, values, tuple(columns), unit)


_APPLE = SourceFile(
    "apple",
    "time-series/finance-charts-apple.csv",
    60_220,
    "24c7604edfd5afe862ddb9f9535e2fd7351f43711bfc442bca52055e15e37bcd",
    "https://raw.githubusercontent.com/plotly/datasets/master/finance-charts-apple.csv",
)

_SERIES: dict[str, Callable[[str, CacheFolder], Series]] = {
    "apple": partial(
        _table,
        _APPLE,
        "Date",
        {"open": "AAPL.Open", "high": "AAPL.High", "low": "AAPL.Low", "close": "AAPL.Close"},
        "US dollars",
    ),
}
