"""Windows that never look ahead, a random walk with the moments it should have, and the file of real prices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnjax.data import DataError
from nnjax.data.series import load_series, series_names, share_price, windows


def test_windows_hold_what_came_before_and_the_target_what_came_after():
    values = np.arange(10.0)[:, None] * np.array([1.0, 100.0])
    x, y = windows(values, 3)
    assert x.shape == (7, 3, 2)
    assert y.shape == (7, 2)
    np.testing.assert_array_equal(x[2], values[2:5])
    np.testing.assert_array_equal(y[2], values[5])
    assert (x[:, -1, 0] < y[:, 0]).all()
    assert y[-1, 0] == 9


def test_the_horizon_moves_the_target_alone():
    x, y = windows(np.arange(10.0), 3, horizon=4)
    np.testing.assert_array_equal(x[:, -1, 0] + 4, y[:, 0])
    assert len(x) == 4


def test_windows_trace():
    walks = jax.vmap(lambda key: windows(share_price(key, 20), 3).x)(jax.random.split(jax.random.key(0), 2))
    assert walks.shape == (2, 17, 3, 2)
    assert jax.jit(lambda v: windows(v, 2))(jnp.arange(5.0)).y.shape == (3, 1)


@pytest.mark.parametrize(
    ("values", "options", "text"),
    [
        (np.arange(3.0), {"length": 3}, "3 steps are too few for a window of 3 and a horizon of 1"),
        (np.arange(3.0), {"length": 0}, "length=0"),
        (np.arange(3.0), {"length": 1, "horizon": 0}, "horizon=0"),
        (np.array([1.0, np.nan, 2.0]), {"length": 1}, "must be finite"),
        (np.zeros((2, 2, 2)), {"length": 1}, r"values of shape \(2, 2, 2\)"),
    ],
)
def test_impossible_windows_are_refused(values, options, text):
    with pytest.raises(ValueError, match=text):
        windows(values, **options)


def test_the_walk_has_the_moments_it_should():
    days, volatility, drift, overnight = 20_000, 0.02, 0.001, 0.3
    prices = np.asarray(share_price(jax.random.key(0), days, drift=drift, volatility=volatility, overnight=overnight))
    assert prices.shape == (days, 2)
    logs = np.log(prices.astype(float))
    daily = np.diff(logs[:, 1])
    # Five standard errors each: sigma / sqrt(n) of a mean, sigma / sqrt(2 n) of a standard deviation.
    assert abs(daily.mean() - drift) < 5 * volatility / np.sqrt(days)
    assert abs(daily.std() - volatility) < 5 * volatility / np.sqrt(2 * days)
    night = logs[1:, 0] - logs[:-1, 1]
    assert abs(night.var() / volatility**2 - overnight) < 5 * overnight * np.sqrt(2 / days)
    correlation = np.corrcoef(daily[1:], daily[:-1])[0, 1]
    assert abs(correlation) < 5 / np.sqrt(days)
    assert prices[0, 0] == pytest.approx(100, rel=0.1)


@pytest.mark.parametrize(("options", "text"), [({"days": 0}, "days=0"), ({"overnight": 1.5}, "overnight=1.5")])
def test_an_impossible_walk_is_refused(options, text):
    with pytest.raises(ValueError, match=text):
        share_price(jax.random.key(0), **({"days": 5} | options))


def test_the_real_prices(real_data):
    series = load_series("apple", cache=real_data)
    assert series.values.shape == (506, 4)
    assert series.columns == ("open", "high", "low", "close")
    np.testing.assert_allclose(series.values[0], [127.489998, 128.880005, 126.919998, 127.830002])
    assert str(series.times[0]) == "2015-02-17"
    assert str(series.times[-1]) == "2017-02-16"
    assert (np.diff(series.times).astype(int) > 0).all()
    opened, high, low, closed = series.values.T
    assert (low <= np.minimum(opened, closed)).all()
    assert (high >= np.maximum(opened, closed)).all()


def test_a_damaged_file_and_an_unknown_name_are_one_sentence(tmp_path):
    (tmp_path / "time-series").mkdir()
    (tmp_path / "time-series" / "finance-charts-apple.csv").write_text("Date,AAPL.Open\n")
    with pytest.raises(DataError, match=r"finance-charts-apple\.csv.* is damaged"):
        load_series("apple", cache=tmp_path)
    with pytest.raises(ValueError, match="series 'appel' is not one of apple; did you mean 'apple'"):
        load_series("appel")
    assert series_names() == ("apple",)
