"""Windows, folds and fillings that never look ahead, a random walk with the right moments, and files of real series."""

import functools
import hashlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnjax import data
from nnjax.data import DataError, Fold, fill_forward, fit_min_max, fold_windows, series, walk_forward
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


def test_targets_of_several_steps():
    values = np.arange(10.0)[:, None] * np.array([1.0, 100.0])
    x, y = windows(values, 3, horizon=2, steps=3)
    assert (x.shape, y.shape) == ((4, 3, 2), (4, 3, 2))
    for i in range(4):
        np.testing.assert_array_equal(y[i], values[i + 4 : i + 7])
    one, plain = windows(values, 3, steps=1), windows(values, 3)
    np.testing.assert_array_equal(one.x, plain.x)
    np.testing.assert_array_equal(one.y[:, 0], plain.y)
    assert jax.jit(lambda v: windows(v, 2, steps=2))(jnp.arange(5.0)).y.shape == (2, 2, 1)


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
        (np.arange(3.0), {"length": 1, "steps": 0}, "steps=0 must be a whole number, at least 1"),
        (np.arange(3.0), {"length": 1, "steps": 3}, "3 steps are too few for a window of 1 and a horizon of 1 for 3"),
        (np.arange(9.0), {"length": 3.0}, "length=3.0 must be a whole number"),
        (np.arange(9.0), {"length": 3, "horizon": 1.5}, "horizon=1.5 must be a whole number"),
        (np.array(["1", "2", "3"]), {"length": 1}, r"values of shape \(3,\) and <U1 must be numbers"),
        (np.array([1.0, None, 2.0]), {"length": 1}, r"values of shape \(3,\) and object must be numbers"),
        (
            np.array([[1.0, 2.0], [3.0, np.inf], [np.nan, 4.0]]),
            {"length": 1},
            r"step 1 of column 1 is inf; fill or leave out what is missing first \(2 in all\)",
        ),
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


@pytest.mark.parametrize(
    ("options", "text"),
    [({"days": 0}, "days=0"), ({"days": 2.5}, "days=2.5"), ({"overnight": 1.5}, "overnight=1.5")],
)
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
    with pytest.raises(ValueError, match=r"series 'appel' is not one of airline, apple, .*; did you mean 'apple'"):
        load_series("appel")
    assert series_names() == ("airline", "apple", "pollution", "sunspots", "temperatures")


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


# --- Other real series --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "t", "first", "last", "span", "columns"),
    [
        ("airline", 144, 112, 432, ("1949-01", "1960-12"), ("passengers",)),
        ("sunspots", 2_820, 58, 33.4, ("1749-01", "1983-12"), ("sunspots",)),
        ("temperatures", 3_650, 20.7, 13, ("1981-01-01", "1990-12-31"), ("minimum",)),
    ],
)
def test_real_series_of_one_column(real_data, name, t, first, last, span, columns):
    found = load_series(name, cache=real_data)
    assert found.values.shape == (t, 1)
    assert found.columns == columns
    assert (found.values[0, 0], found.values[-1, 0]) == (first, last)
    assert (str(found.times[0]), str(found.times[-1])) == span
    assert np.isfinite(found.values).all()
    steps = np.diff(found.times).astype(int)
    # Two last days of leap years are not in the file.
    assert np.bincount(steps).tolist() == ([0, t - 1] if name != "temperatures" else [0, t - 3, 2])


def test_the_real_pollution(real_data):
    found = load_series("pollution", cache=real_data)
    assert found.values.shape == (43_824, 11)
    assert str(found.times[-1]) == "2014-12-31T23"
    assert (np.diff(found.times).astype(int) == 1).all()
    by_name = dict(zip(found.columns, found.values.T, strict=True))
    assert np.isnan(found.values).sum(axis=0).tolist() == [2_067, *[0] * 10]
    winds = [by_name[f"wind_{end}"].sum() for end in ("NE", "NW", "SE", "variable")]
    assert winds == [4_997, 14_150, 15_290, 9_387]
    assert (by_name["pm2.5"][-1], by_name["temperature"][-1], by_name["pressure"][-1]) == (12, -3, 1034)
    filled = fill_forward(found.values)
    assert (filled.filled[0], filled.missing[0]) == (2_043, 24)
    assert np.isfinite(filled.values[24:]).all()


HOURS = (
    "No,year,month,day,hour,pm2.5,DEWP,TEMP,PRES,cbwd,Iws,Is,Ir\n"
    "1,2010,1,1,23,NA,-21,-11,1021,NW,1.79,0,0\n"
    "2,2010,1,2,0,129,-16,-4,1020,cv,0.89,1,2\n"
)


@pytest.fixture
def hours(tmp_path, monkeypatch):
    """`load_series("pollution")` of a text instead of the real file."""

    def load(text):
        content = text.encode()
        source = series._POLLUTION._replace(size=len(content), sha256=hashlib.sha256(content).hexdigest())
        (tmp_path / source.path).parent.mkdir(exist_ok=True)
        (tmp_path / source.path).write_bytes(content)
        monkeypatch.setitem(series._SERIES, "pollution", functools.partial(series._pollution, source))
        return load_series("pollution", cache=tmp_path)

    return load


def test_hours_are_read_as_the_real_ones_are(hours):
    found = hours(HOURS)
    assert found.times.astype(str).tolist() == ["2010-01-01T23", "2010-01-02T00"]
    assert found.columns[:4] == ("pm2.5", "dew_point", "temperature", "pressure")
    assert found.columns[4:] == ("wind_speed", "snow", "rain", "wind_NE", "wind_NW", "wind_SE", "wind_variable")
    np.testing.assert_array_equal(
        found.values,
        [[np.nan, -21, -11, 1021, 1.79, 0, 0, 0, 1, 0, 0], [129, -16, -4, 1020, 0.89, 1, 2, 0, 0, 0, 1]],
    )


@pytest.mark.parametrize(
    "change", [("DEWP", "dew"), ("NW", "N"), ("2010,1,1", "2010,13,1"), ("1021", "high"), (",2\n", "\n")], ids=str
)
def test_hours_of_another_form_are_one_sentence(hours, change):
    with pytest.raises(DataError, match=r"pollution.* is not the table it should be") as caught:
        hours(HOURS.replace(*change))
    assert "\n" not in str(caught.value)


# --- Missing values -----------------------------------------------------------------------------------------------

GAP = np.nan


def test_filling_by_hand():
    values = np.array([[GAP, 1], [2, GAP], [GAP, GAP], [GAP, 4], [5, GAP]])
    found = fill_forward(values)
    np.testing.assert_array_equal(found.values, [[GAP, 1], [2, 1], [2, 1], [2, 4], [5, 4]])
    assert (found.filled.tolist(), found.missing.tolist()) == ([2, 3], [1, 0])
    one = fill_forward(np.array([GAP, 1, GAP], np.float32))
    np.testing.assert_array_equal(one.values, np.array([GAP, 1, 1], np.float32))
    assert (one.values.dtype, one.filled, one.missing) == (np.float32, 1, 1)
    assert np.isnan(values).sum() == 6, "what was given has been changed"
    np.testing.assert_array_equal(fill_forward([[GAP], [GAP]]).missing, [2])


@settings(deadline=None, derandomize=True)
@given(
    values=st.lists(st.one_of(st.just(GAP), st.floats(-9, 9)), min_size=2, max_size=12),
    later=st.lists(st.one_of(st.just(GAP), st.floats(-9, 9)), min_size=1, max_size=12),
    now=st.integers(1, 11),
)
def test_filling_never_uses_what_comes_later(values, later, now):
    now = min(now, len(values))
    whole, other = fill_forward(values), fill_forward([*values[:now], *later])
    np.testing.assert_array_equal(whole.values[:now], other.values[:now])
    assert whole.filled + whole.missing == np.isnan(values).sum()
    assert whole.missing == np.isnan(whole.values).sum()


@pytest.mark.parametrize(
    ("values", "text"),
    [
        (np.zeros(0), r"values of float64 and shape \(0,\) must be numbers"),
        (np.zeros((1, 2, 3)), r"shape \(1, 2, 3\)"),
        (["NA", "1"], "values of <U2"),
    ],
)
def test_impossible_fillings_are_refused(values, text):
    with pytest.raises(ValueError, match=text):
        fill_forward(values)


# --- Walking forward ----------------------------------------------------------------------------------------------


def test_folds_by_hand():
    growing = walk_forward(10, folds=3, test=2, gap=1)
    assert growing == [
        (slice(0, 3), slice(4, 6)),
        (slice(0, 5), slice(6, 8)),
        (slice(0, 7), slice(8, 10)),
    ]
    rolling = walk_forward(10, folds=2, test=2, gap=1, train=4)
    assert rolling == [(slice(1, 5), slice(6, 8)), (slice(3, 7), slice(8, 10))]
    assert type(rolling[0]) is Fold


@settings(deadline=None, derandomize=True)
@given(
    t=st.integers(2, 60),
    folds=st.integers(2, 5),
    test=st.integers(1, 8),
    gap=st.integers(0, 5),
    train=st.one_of(st.none(), st.integers(1, 20)),
)
def test_folds_are_scikit_learns(t, folds, test, gap, train):
    from sklearn.model_selection import TimeSeriesSplit

    if t < (train or 1) + gap + folds * test:
        with pytest.raises(ValueError, match=f"t={t} steps are too few for folds={folds} of test={test}"):
            walk_forward(t, folds=folds, test=test, gap=gap, train=train)
        return
    theirs = TimeSeriesSplit(folds, max_train_size=train, test_size=test, gap=gap)
    steps = np.arange(t)
    ours = walk_forward(t, folds=folds, test=test, gap=gap, train=train)
    for fold, (before, after) in zip(ours, theirs.split(steps), strict=True):
        np.testing.assert_array_equal(steps[fold.train], before)
        np.testing.assert_array_equal(steps[fold.test], after)


def test_windows_of_a_fold_by_hand():
    values = np.array([0.0, 2, 4, 6, 100, 100, 7, 9])
    found = fold_windows(values, Fold(slice(0, 4), slice(5, 7)), 2, horizon=2, fit=fit_min_max)
    np.testing.assert_allclose(found.train.x[..., 0], np.array([[0.0, 2]]) / 6)
    np.testing.assert_allclose(found.train.y, [[1]])
    np.testing.assert_allclose(found.test.x[..., 0], np.array([[4.0, 6], [6, 100]]) / 6)
    np.testing.assert_allclose(found.test.y[:, 0], np.array([100.0, 7]) / 6)
    assert (found.scale.minimum, found.scale.span) == (0, 6)


def test_targets_of_several_steps_stay_in_their_part():
    values = np.arange(12.0)
    found = fold_windows(values, Fold(slice(0, 6), slice(8, 12)), 2, steps=3, fit=lambda _: lambda x: x)
    np.testing.assert_array_equal(found.train.y[..., 0], [[2, 3, 4], [3, 4, 5]])
    np.testing.assert_array_equal(found.test.x[..., 0], [[6, 7], [7, 8]])
    np.testing.assert_array_equal(found.test.y[..., 0], [[8, 9, 10], [9, 10, 11]])
    scaled = fold_windows(values, Fold(slice(0, 6), slice(8, 12)), 2, steps=3)
    np.testing.assert_allclose(scaled.scale.std * scaled.test.y + scaled.scale.mean, found.test.y, rtol=1e-6)


def _numbered(t, options, length, horizon):
    """Windows of every fold with each value its own step, or None where the series is too short."""
    try:
        folds = walk_forward(t, **options)
    except ValueError:
        return []
    steps = np.arange(float(t))
    fits = [fold for fold in folds if len(steps[fold.train]) >= length + horizon]
    return [(fold, fold_windows(steps, fold, length, horizon=horizon, fit=lambda _: lambda x: x)) for fold in fits]


FOLDS = st.fixed_dictionaries(
    {
        "folds": st.integers(1, 3),
        "test": st.integers(1, 6),
        "gap": st.integers(0, 4),
        "train": st.one_of(st.none(), st.integers(4, 15)),
    }
)


@settings(deadline=None, derandomize=True)
@given(t=st.integers(25, 50), options=FOLDS, length=st.integers(1, 4), horizon=st.integers(1, 3))
def test_no_training_target_is_as_late_as_a_test_target(t, options, length, horizon):
    for fold, (train, test, _) in _numbered(t, options, length, horizon):
        assert train.y.max() < test.y.min() - options["gap"]
        assert train.y.max() == fold.train.stop - 1
        assert train.x.min() == fold.train.start
        np.testing.assert_array_equal(test.y[:, 0], np.arange(t)[fold.test])
        for part in (train, test):
            assert part.x.shape == (len(part.y), length, 1)
            np.testing.assert_array_equal(part.x[:, -1] + horizon, part.y)


def test_the_property_above_looks_at_folds():
    assert len(_numbered(30, {"folds": 3, "test": 4, "gap": 2, "train": None}, 3, 2)) == 3


@settings(deadline=None, derandomize=True)
@given(
    options=FOLDS,
    later=st.lists(st.floats(-1e3, 1e3), min_size=30, max_size=30),
    fit=st.sampled_from([fit_min_max, data.fit_standardizer]),
)
def test_scales_and_training_windows_do_not_know_the_test_values(options, later, fit):
    values = np.sin(np.arange(30.0) ** 1.3)
    for fold in walk_forward(30, **{**options, "train": None}):
        if fold.train.stop < 5:
            continue
        changed = np.where(np.arange(30) < fold.train.stop, values, later)
        one, other = (fold_windows(series, fold, 3, fit=fit) for series in (values, changed))
        for mine, theirs in zip([*one.scale, *one.train], [*other.scale, *other.train], strict=True):
            np.testing.assert_array_equal(mine, theirs)
        np.testing.assert_allclose(one.scale(values[fold.train][:, None])[3:], one.train.y)
        np.testing.assert_allclose(other.test.y, other.scale(changed[fold.test][:, None]))


def test_windows_of_a_fold_trace():
    fold = walk_forward(20, folds=2, test=4)[1]
    traced = jax.jit(lambda values: fold_windows(values, fold, 3))
    values = np.linspace(0, 1, 20, dtype=np.float32)[:, None] * np.array([[1, 5]], np.float32)
    mine = fold_windows(values, fold, 3)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), traced(values), mine)
    traced(values + 1)
    assert traced._cache_size() == 1
    assert mine.train.x.dtype == np.float32
    both = jax.vmap(lambda values: fold_windows(values, fold, 3).test.y)(jnp.stack([values, 2 * values]))
    np.testing.assert_allclose(both[0], both[1], atol=1e-5)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"t": 9, "folds": 0, "test": 1}, "folds=0 must be a whole number, at least 1"),
        ({"t": 9, "folds": 1, "test": 0}, "test=0 must be a whole number, at least 1"),
        ({"t": 9, "folds": 1, "test": 1, "gap": -1}, "gap=-1 must be a whole number, at least 0"),
        ({"t": 9, "folds": 1, "test": 1, "train": 0}, "train=0 must be a whole number, at least 1"),
        ({"t": 9.0, "folds": 1, "test": 1}, "t=9.0 must be a whole number, at least 1"),
        ({"t": 9, "folds": 2.0, "test": 1}, "folds=2.0 must be a whole number, at least 1"),
        ({"t": 20, "folds": 1, "test": 10.5}, "test=10.5 must be a whole number, at least 1"),
        ({"t": 9, "folds": 1, "test": True}, "test=True must be a whole number, at least 1"),
        ({"t": 9, "folds": 1, "test": 1, "gap": 1.5}, "gap=1.5 must be a whole number, at least 0"),
        ({"t": 9, "folds": 1, "test": 1, "train": 3.0}, "train=3.0 must be a whole number, at least 1"),
        (
            {"t": 9, "folds": 2, "test": 3, "gap": 1, "train": 3},
            "t=9 steps are too few for folds=2 of test=3 after a gap of 1 and 3 of training",
        ),
    ],
)
def test_impossible_folds_are_refused(options, text):
    with pytest.raises(ValueError, match=text):
        walk_forward(**options)


@pytest.mark.parametrize(
    ("fold", "length", "text"),
    [
        (Fold(slice(0, 6), slice(5, 8)), 2, "training steps up to 6 reach into the test steps from 5"),
        (
            Fold(slice(0, 5), slice(5, 11)),
            2,
            r"part slice\(5, 11, None\) must be a slice of successive steps from 0 to 10",
        ),
        (Fold(slice(0, 5, 2), slice(5, 8)), 2, "must be a slice of successive steps"),
        (Fold(slice(3, 3), slice(5, 8)), 2, "must be a slice of successive steps"),
        (Fold(slice(2, 5), slice(5, 8)), 3, "3 steps are too few for a window of 3 and a horizon of 1"),
        (Fold(slice(0, 5), slice(5, 8)), 0, "length=0"),
        (Fold(slice(0, 5), slice(8, None)), 2, "must be finite"),
    ],
)
def test_impossible_windows_of_a_fold_are_refused(fold, length, text):
    values = np.arange(10.0)
    values[9] = np.nan
    with pytest.raises(ValueError, match=text):
        fold_windows(values, fold, length)


def test_missing_values_elsewhere_do_not_matter():
    values = np.array([np.nan, 1, 2, 3, 4, 5, np.nan])
    assert len(fold_windows(values, Fold(slice(1, 4), slice(4, 6)), 2).test.y) == 2
    with pytest.raises(ValueError, match=r"values of shape \(1, 1, 7\)"):
        fold_windows(values[None, None], Fold(slice(1, 4), slice(4, 6)), 2)
