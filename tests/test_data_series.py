"""Windows that never look ahead, a random walk with the moments it should have, and the file of real prices."""

import functools
import hashlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnjax import data
from nnjax.data import DataError, series
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


PRICES = "Date,AAPL.Open,AAPL.High,AAPL.Low,AAPL.Close,more\n2015-02-17,1,4,0.5,2,x\n2015-02-18,2,3,1.5,2.5,y\n"


@pytest.fixture
def prices(tmp_path, monkeypatch):
    """`load_series` of a text instead of the real file."""

    def load(text):
        content = text.encode()
        name, time, columns, unit = series._SERIES["apple"].args
        source = name._replace(size=len(content), sha256=hashlib.sha256(content).hexdigest())
        (tmp_path / source.path).parent.mkdir(exist_ok=True)
        (tmp_path / source.path).write_bytes(content)
        monkeypatch.setitem(series._SERIES, "apple", functools.partial(series._table, source, time, columns, unit))
        return load_series("apple", cache=tmp_path)

    return load


def test_a_series_is_read_as_the_real_one_is(prices):
    found = prices(PRICES)
    assert type(found) is data.Series
    assert (found.name, found.unit, found.columns) == ("apple", "US dollars", ("open", "high", "low", "close"))
    np.testing.assert_array_equal(found.values, [[1, 4, 0.5, 2], [2, 3, 1.5, 2.5]])
    assert found.values.dtype == np.float64
    assert found.times.astype(str).tolist() == ["2015-02-17", "2015-02-18"]


@pytest.mark.parametrize(
    "change",
    [("AAPL.Low", "Low"), ("2015-02-18", "yesterday"), ("0.5", "half"), (",2,x", "")],
    ids=lambda pair: pair[0],
)
def test_a_table_of_another_form_is_one_sentence(prices, change):
    with pytest.raises(DataError, match=r"apple.* is not the table it should be") as caught:
        prices(PRICES.replace(*change))
    assert "\n" not in str(caught.value)


def test_a_walk_without_chance_is_exact_and_keeps_the_dtype():
    walk = jax.jit(jax.vmap(lambda drift: share_price(jax.random.key(0), 3, drift=drift, volatility=0.0, first=2.0)))
    found = walk(jnp.asarray([0.0, 0.1]))
    np.testing.assert_allclose(found[0], np.full((3, 2), 2.0), rtol=1e-6)
    np.testing.assert_allclose(found[1].ravel(), 2 * np.exp([0.03, 0.1, 0.13, 0.2, 0.23, 0.3]), rtol=1e-5)
    walk(jnp.asarray([0.2, 0.3]))
    assert walk._cache_size() == 1
    with jax.enable_x64(True):
        assert jax.eval_shape(lambda: share_price(jax.random.key(0), 3)).dtype == jnp.float64
