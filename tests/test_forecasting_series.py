"""The series of the forecasting study: what is drawn, and windows and folds that never look ahead."""

import numpy as np
import pytest

from experiments import _forecasting_lanes as lanes
from experiments import _forecasting_series as series
from nnjax.data.walk_forward import fold_windows, walk_forward

DRAWN = [name for name, each in series.SERIES.items() if each.draw is not None]


def _panel(name, folds=3):
    return series.panel(name, steps=200, seed=0, folds=folds, test_share=0.4, validation_share=0.2)


# The series


@pytest.mark.parametrize(("name", "spread"), [("seasonal", 0.03), ("cycle", 15), ("nonlinear", 0.5), ("walk", 0.015)])
def test_what_the_best_forecast_leaves_is_white_noise_of_the_known_spread(name, spread):
    values, best = series.SERIES[name].draw(5000, 3)
    noise = (np.log(values / best) if series.SERIES[name].trending else values - best)[1:]
    assert noise.mean() == pytest.approx(0, abs=5 * spread / np.sqrt(5000))
    assert noise.std() == pytest.approx(spread, rel=5 / np.sqrt(2 * 5000))
    for before in (noise[:-1], values[:-2], values[:-2] ** 2):
        assert abs(np.corrcoef(noise[1:], before)[0, 1]) < 5 / np.sqrt(5000)
    np.testing.assert_array_equal(values, series.SERIES[name].draw(5000, 3)[0])
    assert (values != series.SERIES[name].draw(5000, 4)[0]).any()


def test_the_cycle_is_as_variable_as_its_coefficients_say():
    values, _ = series.SERIES["cycle"].draw(100_000, 0)
    first, second = 1.34, -0.65  # Yule and Walker's equations
    variance = 15**2 * (1 - second) / ((1 + second) * ((1 - second) ** 2 - first**2))
    assert np.var(values) == pytest.approx(variance, rel=0.05)
    assert np.corrcoef(values[1:], values[:-1])[0, 1] == pytest.approx(first / (1 - second), abs=0.01)


def test_the_seasonal_series_is_of_one_nature_at_every_length():
    for steps in (300, 20_000):
        values, best = series.SERIES["seasonal"].draw(steps, 0)
        assert np.isfinite(values).all()
        first, last = np.log(values[:24]).mean(), np.log(values[-24:]).mean()
        assert last - first == pytest.approx(3.0, abs=0.4)
        # Errors grow with the level, whose growth is shared out over all steps.
        late, early = (np.mean((values - best)[part] ** 2) for part in (slice(-steps // 4, None), slice(steps // 4)))
        assert 20 < late / early < 500


def test_years_are_counted_with_their_parts():
    times = np.array(["1999-01-01T00", "1999-12-31T00", "2000-07-02T00"], "datetime64[h]")
    found = series._years(series.Series("", times, np.zeros((3, 1)), ("a",), ""))
    np.testing.assert_allclose(found, [1999, 1999 + 364 / 365, 2000 + 183 / 366])


# Windows and folds


@pytest.mark.parametrize("name", [*DRAWN, "long season", "two columns"])
def test_every_target_is_the_last_value_and_its_difference(name, monkeypatch):
    data, values = _made(name, monkeypatch)
    np.testing.assert_allclose(data.in_unit(data.last + data.difference), values[data.target, 0])
    np.testing.assert_allclose(data.in_unit(data.last), values[data.target - 1, 0])
    np.testing.assert_allclose(data.in_unit(data.seasonal), values[data.target - data.specification.season, 0])
    np.testing.assert_array_equal(np.diff(data.target), 1)
    assert data.target[-1] == len(values) - 1
    length, season = data.specification.length, data.specification.season
    for place in (0, len(data.x) - 1):
        seen = values[data.target[place] - length : data.target[place]]
        if data.specification.trending:
            seen = np.log(seen / seen[-1, 0])
        np.testing.assert_allclose(data.x[place, :, : seen.shape[1]], seen, atol=1e-12)
        if season > length:  # the season before the step that follows each
            before = values[data.target[place] - length + 1 - season : data.target[place] + 1 - season, 0]
            np.testing.assert_allclose(data.x[place, :, -1], before)
            assert data.x[place, -1, -1] == data.seasonal[place]


def _made(name, monkeypatch, change=None):
    """A panel and the values (t, c) it is made of; ``change`` may alter them before."""
    specification = {
        "long season": series.Specification("", 30, 4, False), "two columns": series.Specification("", 3, 4, False),
        "gaps": series.Specification("", 3, 4, False),
    }.get(name, series.SERIES.get(name))  # fmt: skip
    rng = np.random.default_rng(0)
    values = rng.normal(size=(200, 2 if name == "two columns" else 1))
    if specification.draw is not None:
        values = specification.draw(200, 0)[0][:, None]
    if name == "gaps":
        values[[0, 1, 20, 21, 150]] = np.nan
    if change is not None:
        values = change(values)
    monkeypatch.setitem(series.SERIES, name, specification)
    monkeypatch.setattr(series, "_loaded", lambda *a: (np.arange(200.0), values, None))
    return _panel(name), values


@pytest.mark.parametrize("name", ["seasonal", "cycle", "long season", "gaps"])
def test_nothing_of_the_future_reaches_what_is_seen_learned_or_chosen(name, monkeypatch):
    data, _ = _made(name, monkeypatch)
    fold = data.folds[1]
    cut = data.target[fold.test.start]  # from the first test target of the second fold on, all is different

    def disturb(values):
        return np.where(np.arange(200)[:, None] >= cut, 3 * values + 7, values)

    other, _ = _made(name, monkeypatch, disturb)
    past = slice(0, fold.test.start)
    for part in ("x", "last", "seasonal", "difference", "target"):
        np.testing.assert_array_equal(getattr(data, part)[past], getattr(other, part)[past])
    first = fold.test.start  # its inputs are of the past, its target is not
    np.testing.assert_array_equal(data.x[first], other.x[first])
    assert data.difference[first] != other.difference[first]
    for number in (0, 1):
        both = (series.scales(each, each.folds[number]) for each in (data, other))
        for a, b in zip(*both, strict=True):
            np.testing.assert_array_equal(a, b)
        assert lanes._linear(data, number)[1] == lanes._linear(other, number)[1]
    np.testing.assert_array_equal(lanes._linear(data, 1)[0][0], lanes._linear(other, 1)[0][0])
    np.testing.assert_array_equal(lanes._linear(data, 0)[0], lanes._linear(other, 0)[0])


def test_windows_are_those_of_the_package(monkeypatch):
    """Without a season of its own or logarithms a panel is `fold_windows` without its scale."""
    data, values = _made("two columns", monkeypatch)
    length, last = data.specification.length, data.folds[-1]
    shift = length  # a window's target is so many steps later
    (fold,) = walk_forward(200, folds=1, test=last.test.stop - last.test.start)
    plain = fold_windows(values, fold, length, fit=lambda x: lambda x: x)
    np.testing.assert_array_equal(plain.test.x, data.x[last.test])
    np.testing.assert_array_equal(plain.train.x, data.x[last.train])
    assert fold.train.stop == last.train.stop + shift
    np.testing.assert_allclose(plain.test.y[:, 0], (data.last + data.difference)[last.test])


def test_what_was_not_measured_is_no_target(monkeypatch):
    data, values = _made("gaps", monkeypatch)
    assert np.isfinite(values[data.target, 0]).all()
    assert not {20, 21, 150} & set(data.target.tolist())
    assert len(data.target) == 200 - 2 - 4 - 3
    after = list(data.target).index(22)
    assert data.last[after] == values[19, 0]  # filled from the past
    np.testing.assert_array_equal(data.x[after, :, 0], values[[18, 19, 19, 19], 0])


def test_parts_follow_each_other_and_repeated_windows_weigh_as_one():
    data = _panel("cycle")
    given = series.arrays(data)
    for number, fold in enumerate(data.folds):
        fit, held = data.training_windows(fold), data.validation_windows(fold)
        assert fit.stop == held.start
        assert held.stop == fold.train.stop == fold.test.start
        total = np.bincount(given["fit"][number], given["weight"][number], minlength=fit.stop)
        np.testing.assert_allclose(total, 1, rtol=1e-6)
        np.testing.assert_array_equal(given["validation"][number], np.arange(held.start, held.stop))
        np.testing.assert_array_equal(given["test"][number], np.arange(fold.test.start, fold.test.stop))
        scaled = (data.x[fit] - given["x_mean"][number]) / given["x_std"][number]
        np.testing.assert_allclose(scaled.mean(axis=(0, 1)), 0, atol=1e-5)
        np.testing.assert_allclose(scaled.std(axis=(0, 1)), 1, rtol=1e-5)
    assert [fold.test.start for fold in data.folds[1:]] == [fold.test.stop for fold in data.folds[:-1]]
    assert data.folds[-1].test.stop == len(data.x)


@pytest.mark.parametrize("name", ["airline", "sunspots", "temperatures", "pollution", "apple"])
def test_real_series_are_cut_as_fixed(name, real_data):
    data = _panel(name, folds=4)
    assert np.isfinite(data.x).all()
    np.testing.assert_allclose(data.in_unit(data.last + data.difference), data.values[data.target])
    assert (np.diff(data.times) > 0).all()
    assert len(data.x) > {"airline": 120, "sunspots": 2600, "temperatures": 3200, "pollution": 8400, "apple": 490}[name]
