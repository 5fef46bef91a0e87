"""Series in time: real ones from checked files, a synthetic share price, and windows that never look ahead."""

from __future__ import annotations

import csv
import io
import operator
import os
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nnjax.data import cache as _cache
from nnjax.data.cache import DataError, SourceFile
from nnjax.data.splits import one_hot
from nnjax.naming import choose
from nnjax.types import Array, Key

CacheFolder = str | os.PathLike[str] | None


class Series(NamedTuple):
    """A series in memory.

    Attributes:
        name: as given to `load_series`.
        times: (t,) datetime64, ascending.
        values: (t, c) float64, nan where nothing was measured.
        columns: what each of the c columns is.
        unit: of the values; where columns differ, each with its own.
    """

    name: str
    times: np.ndarray
    values: np.ndarray
    columns: tuple[str, ...]
    unit: str


class Filled(NamedTuple):
    """A series without gaps, and what was done about them.

    Attributes:
        values: (t, c) or (t,), as given; nan only before a column's first value.
        filled: (c,) or (), how many values were missing and have been filled.
        missing: (c,) or (), how many still are, all at the beginning.
    """

    values: np.ndarray
    filled: np.ndarray
    missing: np.ndarray


class Windows(NamedTuple):
    """What was seen and what came next.

    Attributes:
        x: (n, length, c), the values of each window in order of time.
        y: (n, c), the values ``horizon`` steps after the window's last; (n, k, c), those of k steps from there on.
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
    | airline | 144 months, 1949 to 1960 | passengers, thousands | Box and Jenkins (1976) |
    | apple | 506 trading days, 2015-02-17 to 2017-02-16 | open, high, low, close, US dollars | Plotly's data sets |
    | pollution | 43,824 hours, 2010 to 2014, Beijing | pm2.5 and ten of weather | Liang et al. (2015) |
    | sunspots | 2,820 months, 1749 to 1983 | Zurich's sunspot number | Andrews and Herzberg (1985) |
    | temperatures | 3,650 days, 1981 to 1990, Melbourne | lowest of the day, degrees Celsius | Bureau of Meteorology |

    In `pollution` 2,067 values of pm2.5 are missing (nan, see `fill_forward`), and the direction of the wind is one-hot
    in four columns. In `temperatures` the last days of the leap years 1984 and 1988 are left out.

    Args:
        name: one of `series_names()`.
        cache: folder of the data files, as for `nnjax.data.load`; it holds `time-series/`.

    Raises:
        ValueError: unknown name.
        DataError: the file is missing and cannot be downloaded, or is not the file it should be.
    """
    return choose("series", name, _SERIES)(name, cache)


def windows(values: Array, length: int, *, horizon: int = 1, steps: int | None = None) -> Windows:
    """All windows of ``length`` steps with the values ``horizon`` steps later, in order of time.

    Nothing in a window is later than its last step, and y is always later than that. Split them by time, all
    training targets before all test targets, and fit scales on the training part alone.

    Args:
        values: (t, c) or (t,), the latter as one column; NumPy or JAX, may be traced.
        length: steps seen.
        horizon: steps ahead.
        steps: how many steps in a row y holds, (n, steps, c), the first of them ``horizon`` ahead; None for that one
            alone, (n, c).

    Returns:
        `Windows` with n = t - length - horizon + 1, fewer by ``steps`` - 1.

    Raises:
        ValueError: too few steps for one window, a length, horizon or steps that is no whole number from 1 on, or
            values that are no numbers or not finite (not checked where traced).
    """
    values = values if isinstance(values, jax.Array) else np.asarray(values)
    if values.ndim not in (1, 2) or not (jnp.issubdtype(values.dtype, jnp.number) or values.dtype == bool):
        raise ValueError(f"values of shape {values.shape} and {values.dtype} must be numbers (t, c) or (t,)")
    length, horizon = whole("length", length), whole("horizon", horizon)
    last = horizon + (0 if steps is None else whole("steps", steps) - 1)
    n = len(values) - length - last + 1
    if n < 1:
        more = "" if steps is None else f" for {steps} of them"
        raise ValueError(f"{len(values)} steps are too few for a window of {length} and a horizon of {horizon}{more}")
    values = values[:, None] if values.ndim == 1 else values
    _check_finite(values)
    x = values[np.arange(n)[:, None] + np.arange(length)[None, :]]
    if steps is None:
        return Windows(x, values[length + horizon - 1 :])
    return Windows(x, values[np.arange(n)[:, None] + np.arange(length + horizon - 1, length + last)[None, :]])


def whole(name: str, value: int, least: int = 1) -> int:
    """``value`` once it is known to be a whole number of at least ``least``."""
    if isinstance(value, bool) or not hasattr(value, "__index__") or operator.index(value) < least:
        raise ValueError(f"{name}={value!r} must be a whole number, at least {least}")
    return operator.index(value)


def _check_finite(values: Array) -> None:
    """Refuse values (t, c) that are known and not finite, and say where the first is."""
    if isinstance(values, jax.core.Tracer):
        return
    wrong = ~np.isfinite(np.asarray(values))
    if wrong.any():
        step, column = np.argwhere(wrong)[0]
        raise ValueError(
            f"values must be finite, and step {step} of column {column} is {values[step, column]}; fill or leave out "
            f"what is missing first ({wrong.sum():,} in all)"
        )


def fill_forward(values: Array) -> Filled:
    """Every missing value becomes the last one known before it, so nothing is filled from the future.

    Args:
        values: (t, c) or (t,), nan where missing.

    Returns:
        `Filled`; drop the first ``missing.max()`` steps, before which some column has no value.

    Raises:
        ValueError: no numbers, another shape, or no step at all.
    """
    values = np.asarray(values)
    if values.ndim not in (1, 2) or not len(values) or values.dtype.kind not in "fiu":
        raise ValueError(
            f"values of {values.dtype} and shape {values.shape} must be numbers (t, c) or (t,) with at least one step"
        )
    known = ~np.isnan(values)
    steps = np.arange(len(values)).reshape(-1, *[1] * (values.ndim - 1))
    last = np.maximum.accumulate(np.where(known, steps, -1), axis=0)
    # Where nothing is known yet, the first value stands: it is missing itself.
    filled = np.take_along_axis(values, np.maximum(last, 0), axis=0)
    return Filled(filled, (~known & (last >= 0)).sum(axis=0), (last < 0).sum(axis=0))


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
        ValueError: days that are no whole number from 1 on, or a share outside [0, 1].
    """
    days = whole("days", days)
    if not 0 <= overnight <= 1:
        raise ValueError(f"overnight={overnight} must lie between 0 and 1")
    shares = jnp.array([overnight, 1 - overnight])[None, :]
    noise = jax.random.normal(key, (days, 2))
    steps = drift * shares + volatility * jnp.sqrt(shares) * noise
    return first * jnp.exp(jnp.cumsum(steps.ravel())).reshape(days, 2)


# Files


def _rows(source: SourceFile, cache: CacheFolder) -> list[dict[str, str]]:
    """A CSV file's rows by the names of its columns."""
    return list(csv.DictReader(io.StringIO(_cache.read(source, cache=cache).decode())))


def _no_table(source: SourceFile, error: Exception) -> DataError:
    return DataError(f"{source} is not the table it should be ({error})")


def _table(
    source: SourceFile,
    time: str,
    columns: dict[str, str],
    unit: str,
    name: str,
    cache: CacheFolder,
    *,
    resolution: str = "D",
) -> Series:
    """A CSV file with one row a time; ``columns`` are the file's names by ours."""
    rows = _rows(source, cache)
    try:
        times = np.array([row[time] for row in rows], f"datetime64[{resolution}]")
        values = np.array([[float(row[theirs]) for theirs in columns.values()] for row in rows])
    except (KeyError, ValueError, TypeError) as error:
        raise _no_table(source, error) from None
    return Series(name, times, values, tuple(columns), unit)


def _pollution(source: SourceFile, name: str, cache: CacheFolder) -> Series:
    """Hours over four columns, NA for what is missing, and the wind's direction in words."""
    rows = _rows(source, cache)
    try:
        times = np.array([_hour(row) for row in rows])
        values = np.array([[_number(row[theirs]) for theirs in _WEATHER.values()] for row in rows])
        directions = one_hot([row["cbwd"] for row in rows], list(_WINDS.values()))
    except (KeyError, ValueError, TypeError) as error:
        raise _no_table(source, error) from None
    return Series(name, times, np.hstack([values, directions]), (*_WEATHER, *_WINDS), _WEATHER_UNITS)


def _hour(row: dict[str, str]) -> np.datetime64:
    year, month, day, hour = (int(row[part]) for part in ("year", "month", "day", "hour"))
    return np.datetime64(f"{year:04}-{month:02}-{day:02}T{hour:02}", "h")


def _number(text: str) -> float:
    return float("nan") if text == "NA" else float(text)


_WEATHER = {
    "pm2.5": "pm2.5",
    "dew_point": "DEWP",
    "temperature": "TEMP",
    "pressure": "PRES",
    "wind_speed": "Iws",
    "snow": "Is",
    "rain": "Ir",
}
_WINDS = {"wind_NE": "NE", "wind_NW": "NW", "wind_SE": "SE", "wind_variable": "cv"}
_WEATHER_UNITS = (
    "micrograms per cubic meter (pm2.5), degrees Celsius, hectopascals, meters per second (cumulated while the "
    "direction lasts), hours of snow and of rain (cumulated)"
)

_BROWNLEE_URL = "https://raw.githubusercontent.com/jbrownlee/Datasets/master/"


def _brownlee(dataset: str, file: str, size: int, sha256: str) -> SourceFile:
    return SourceFile(dataset, f"time-series/{file}", size, sha256, _BROWNLEE_URL + file)


_APPLE = SourceFile(
    "apple",
    "time-series/finance-charts-apple.csv",
    60_220,
    "24c7604edfd5afe862ddb9f9535e2fd7351f43711bfc442bca52055e15e37bcd",
    "https://raw.githubusercontent.com/plotly/datasets/master/finance-charts-apple.csv",
)
_AIRLINE = _brownlee(
    "airline",
    "airline-passengers.csv",
    2_180,
    "8cb51be753a718d9be5d76d7e238cc224792754676adc21faa59e954b0201621",
)
_SUNSPOTS = _brownlee(
    "sunspots",
    "monthly-sunspots.csv",
    45_039,
    "c4ec8cc57d9f6fb6ecdb3e1f37f25b6f4badd5124c55931052b0cd2fc3bc71f3",
)
_TEMPERATURES = _brownlee(
    "temperatures",
    "daily-min-temperatures.csv",
    67_921,
    "8b9de63ed6789492bf497625e7f9beb96a63d367b4b0a21754006f749fa5e5da",
)
_POLLUTION = _brownlee(
    "pollution",
    "pollution.csv",
    2_010_492,
    "892e9559205d16d32623135c127a3951c12e46ea1e0b3093e107ce89a9fd60e2",
)

_SERIES: dict[str, Callable[[str, CacheFolder], Series]] = {
    "airline": partial(_table, _AIRLINE, "Month", {"passengers": "Passengers"}, "thousands", resolution="M"),
    "apple": partial(
        _table,
        _APPLE,
        "Date",
        {"open": "AAPL.Open", "high": "AAPL.High", "low": "AAPL.Low", "close": "AAPL.Close"},
        "US dollars",
    ),
    "pollution": partial(_pollution, _POLLUTION),
    "sunspots": partial(_table, _SUNSPOTS, "Month", {"sunspots": "Sunspots"}, "sunspot number", resolution="M"),
    "temperatures": partial(_table, _TEMPERATURES, "Date", {"minimum": "Temp"}, "degrees Celsius"),
}
