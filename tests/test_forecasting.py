"""The forecasting study: its models and intervals, a tiny run, bad input, and quick's claims."""

import csv
import io
import re
from dataclasses import replace
from functools import partial

import jax
import numpy as np
import pytest
import xarray as xr
from scipy.special import stdtrit

from experiments import _forecasting_intervals as intervals
from experiments import _forecasting_lanes as lanes
from experiments import _forecasting_report as reporting
from experiments import _forecasting_series as series
from experiments import command
from experiments import forecasting as study
from nnjax import results
from nnjax.train import Config as TrainConfig

TINY = study.Config(
    series=("cycle", "nonlinear", "walk"), length=60, folds=2, seeds=2, rates=(0.01, 0.1), units=3, steps=4, batch=8,
    evaluations=2,
)  # fmt: skip


@pytest.fixture(scope="module")
def tiny(unoptimized):
    """Every model at the smallest size."""
    with unoptimized():
        return study.run(TINY)


def _panel(name, steps=200, folds=3):
    return series.panel(name, steps=steps, seed=0, folds=folds, test_share=0.4, validation_share=0.2)


# The models


@pytest.fixture(scope="module")
def lane(unoptimized):
    """``(rate, cell) -> results`` of a small net on the second fold of the cycle, one program a cell."""
    config = TrainConfig(steps=8, batch_size=16, evaluate_at=(0, 4, 8), select="validation_loss")
    given = series.arrays(_panel("cycle"))

    @partial(jax.jit, static_argnames="cell")
    def program(rate, given, cell):
        hparams = {"rate": rate, "fold": 1, "seed": 0}
        return lanes.lane(jax.random.key(0), hparams, given, cell=cell, units=4, clip=1.0, config=config)

    def run(rate, cell="gru"):
        with unoptimized():
            return program(rate, given, cell)

    return run


@pytest.mark.parametrize("cell", lanes.CELLS)
def test_a_new_net_forecasts_the_mean_difference(lane, cell):
    data, found = _panel("cycle"), lane(0.0, cell)
    fold = data.folds[1]
    mean = data.difference[data.training_windows(fold)].mean()
    np.testing.assert_allclose(found["difference"], np.full(fold.test.stop - fold.test.start, mean), rtol=1e-4)
    scale, held = series.scales(data, fold), data.validation_windows(fold)
    expected = np.mean(((data.difference[held] - scale.mean) / scale.std) ** 2)
    np.testing.assert_allclose(found["validation_loss"], np.full(3, expected), rtol=1e-4)


def test_the_net_of_the_least_loss_is_the_one_that_forecasts(lane):
    found = lane(0.03)
    curve = np.asarray(found["validation_loss"])
    assert float(found["chosen_loss"]) == curve.min() < curve[0]
    assert int(found["chosen_step"]) == (0, 4, 8)[int(curve.argmin())]
    # Updates that only make it worse are not taken.
    wild = lane(100.0)
    assert int(wild["chosen_step"]) == 0
    np.testing.assert_allclose(wild["difference"], lane(0.0)["difference"], rtol=1e-5)
    assert not bool(wild["diverged"])


@pytest.mark.parametrize("name", ["nonlinear", "walk"])
def test_the_linear_model_is_ridge_regression_chosen_on_the_validation_windows(name):
    data = _panel(name)
    fold, fit = data.folds[2], data.training_windows(data.folds[2])
    scale, held = series.scales(data, fold), data.validation_windows(fold)
    x = ((data.x - scale.x_mean) / scale.x_std)[..., 0]
    y = (data.difference - scale.mean) / scale.std
    middle, level = x[fit].mean(axis=0), y[fit].mean()
    best = np.inf
    for strength in lanes.STRENGTHS:
        rows = x[fit] - middle
        guess = np.full(len(x), level)
        if np.isfinite(strength):
            penalty = strength * (fit.stop - fit.start) * np.eye(x.shape[1])
            guess = level + (x - middle) @ np.linalg.solve(rows.T @ rows + penalty, rows.T @ (y[fit] - level))
        loss = np.mean((guess - y)[held] ** 2)
        if loss < best:
            best, expected, chosen = loss, guess[fold.test] * scale.std + scale.mean, strength
    found, strength = lanes._linear(data, 2)
    assert strength == chosen == lanes.baselines(data)[1][2]
    assert (name == "walk") == (strength > 1)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-9)


def test_baselines_are_the_last_value_and_that_of_the_last_season():
    data = _panel("seasonal")
    found, penalties = lanes.baselines(data)
    assert len(penalties) == len(data.folds)
    assert list(found) == ["naive", "seasonal naive", "linear", "best possible"]
    for number, fold in enumerate(data.folds):
        targets = data.target[fold.test]
        np.testing.assert_allclose(found["naive"][number], data.values[targets - 1])
        np.testing.assert_allclose(found["seasonal naive"][number], data.values[targets - 12])
    tests = np.concatenate([data.target[fold.test] for fold in data.folds])
    squares = {name: np.mean((each.ravel() - data.values[tests]) ** 2) for name, each in found.items()}
    assert squares["best possible"] == min(squares.values())


# Intervals


def test_the_long_run_variance_is_newey_and_wests():
    y = np.random.default_rng(0).normal(size=30).cumsum()
    rest, lag = y - y.mean(), 5
    total = 0.0
    for i in range(30):
        for j in range(30):
            total += max(0, 1 - abs(i - j) / lag) * rest[i] * rest[j] / 30
    b = lag / 30
    assert intervals.long_run_variance(y, lag) == pytest.approx(total / (1 - b + b**2 / 3))
    assert intervals.long_run_variance(y, 1) == pytest.approx(y.var() / (1 - 1 / 30 + 1 / 2700))


@pytest.mark.parametrize("b", [0.02, 0.05, 0.1, 0.2])
def test_critical_values_are_those_of_a_share_of_lags(b):
    """Kiefer and Vogelsang (2005), table 1: Bartlett's weights, two-sided 95 %."""
    published = 1.96 + 2.9694 * b + 0.4160 * b**2 - 0.5324 * b**3
    ours = stdtrit(1.5 / b, 0.975) / np.sqrt(1 - b + b**2 / 3)
    assert ours == pytest.approx(published, rel=0.03)


@pytest.mark.parametrize(("correlation", "least"), [(0.0, 0.94), (0.5, 0.92)])
def test_intervals_cover_the_mean_of_correlated_series(correlation, least):
    rng, runs, t = np.random.default_rng(1), 2000, 200
    noise = rng.normal(size=(runs, t + 50))
    for i in range(1, t + 50):
        noise[:, i] += correlation * noise[:, i - 1]
    inside = 0
    for row in noise[:, 50:]:
        found = intervals.mean_difference(row + 1.0, np.zeros(t))
        inside += found.low <= 1.0 <= found.high
    assert least <= inside / runs <= 0.975
    # Without regard to the correlation it would be far fewer.
    if correlation:
        half = 1.96 * noise[:, 50:].std(axis=1) / np.sqrt(t)
        assert np.mean(np.abs(noise[:, 50:].mean(axis=1)) < half) < 0.80


def test_seeds_that_differ_widen_the_interval():
    rng = np.random.default_rng(2)
    time, other = rng.normal(size=400), np.zeros(400)
    alike = intervals.mean_difference(np.tile(time, (5, 1)), other)
    one = intervals.mean_difference(time, other)
    apart = np.array([-2.0, -1.0, 0.0, 1.0, 2.0])[:, None]
    far = intervals.mean_difference(time + apart, other)
    assert alike.mean == pytest.approx(one.mean) == pytest.approx(far.mean)
    assert alike.high - alike.low == pytest.approx(one.high - one.low)
    expected = np.sqrt(2.5 / 5)  # standard error over seeds, which leads here
    assert far.high - far.mean == pytest.approx(stdtrit(4, 0.975) * expected, rel=0.05)


@pytest.mark.parametrize(("seeds", "spread"), [(5, 0.3), (5, 0.1), (20, 0.3)])
def test_intervals_cover_where_both_seeds_and_time_vary(seeds, spread):
    """Seeds that err by different amounts, at times that are hard for all: the mean over both is 1."""
    rng, runs, t = np.random.default_rng(4), 1000, 200
    noise = rng.normal(size=(runs, t + 50))
    for i in range(1, t + 50):
        noise[:, i] += 0.5 * noise[:, i - 1]
    inside = np.zeros(3)
    for row in noise[:, 50:]:
        losses = 1.0 + row + spread * rng.normal(size=(seeds, 1)) + 0.3 * rng.normal(size=(seeds, t))
        alone = intervals.mean_difference(losses.mean(axis=0), np.zeros(t))  # as if there were no seeds
        still = losses.mean(axis=1)  # as if time were no matter
        half = stdtrit(seeds - 1, 0.975) * still.std(ddof=1) / np.sqrt(seeds)
        found = intervals.mean_difference(losses, np.zeros(t))
        inside += [found.low <= 1.0 <= found.high, alone.low <= 1.0 <= alone.high, abs(still.mean() - 1) <= half]
    assert 0.92 <= inside[0] / runs <= 0.985
    assert inside[1] < inside[0]
    assert inside[2] / runs < 0.90


@pytest.mark.parametrize("ratio", [0.4, 1.0])
def test_the_share_of_another_s_loss_is_covered_and_narrow(ratio):
    """Squared errors that share their hard times: the other's mean is as uncertain as the difference."""
    rng, runs, t = np.random.default_rng(5), 1000, 300
    inside = np.zeros(2)
    width = np.zeros(2)
    for _ in range(runs):
        level = np.empty(t)
        now = 0.0
        for i, each in enumerate(rng.normal(size=t)):
            now = level[i] = 0.7 * now + 0.5 * each
        level = np.exp(level)
        others, own = (level * rng.chisquare(1, t) for _ in range(2))
        losses = ratio * (0.9 * others + 0.1 * own)
        found, plain = intervals.ratio_difference(losses, others), intervals.mean_difference(losses, others)
        base = others.mean()
        for place, (low, high) in enumerate([(found.low, found.high), (plain.low / base, plain.high / base)]):
            inside[place] += low <= ratio - 1 <= high
            width[place] += (high - low) / runs
        assert found.mean == pytest.approx(losses.mean() / base - 1)
        assert found.p == plain.p
    assert 0.92 <= inside[0] / runs <= 0.98
    if ratio < 1:  # a mean that is taken as known makes it far too wide
        assert width[1] > 3 * width[0]
        assert inside[1] == runs


def test_a_share_of_a_third_loss_and_seeds_are_counted():
    rng = np.random.default_rng(6)
    others, base = rng.chisquare(1, 400), rng.chisquare(1, 400)
    losses = others + rng.chisquare(1, (3, 400))
    found = intervals.ratio_difference(losses, others, base)
    assert found.mean == pytest.approx((losses.mean() - others.mean()) / base.mean())
    # The delta method, written out for what is independent in time.
    rest = (losses.mean(axis=0) - others - found.mean * base) / base.mean()
    again = intervals.mean_difference(
        rest + (losses.mean(axis=1) - losses.mean())[:, None] / base.mean(), np.zeros(400)
    )  # fmt: skip
    assert found.high - found.mean == pytest.approx(again.high - again.mean)
    assert intervals.ratio_difference(others, others) == (0, 0, 0, 1)


@pytest.mark.parametrize("share", [1.0, 0.5])
def test_an_interval_ends_where_losses_would_be_negative(share):
    """Few forecasts and a tenth of the other's loss: Student's interval of the share goes on below none."""
    rng = np.random.default_rng(3)
    others = np.exp(2 * rng.normal(size=12))
    losses = np.where(np.arange(12) % 6 == 5, 0.6, 0.0) * others[::-1]
    base = others / share
    free = intervals.mean_difference((losses - others - (losses.mean() / others.mean() - 1) * others) / base.mean(), 0)
    found = intervals.ratio_difference(losses, others, base)
    assert found.mean + free.low < -share
    assert found.low == pytest.approx(-share)
    assert found.high > found.mean


def test_p_is_where_the_interval_ends_at_zero():
    time = np.random.default_rng(3).normal(size=100) + 0.2
    found = intervals.mean_difference(time, np.zeros(100))
    at = intervals.mean_difference(time, np.zeros(100), level=1 - found.p)
    assert at.low == pytest.approx(0, abs=1e-9)
    same = intervals.mean_difference(time, time)
    assert same == (0, 0, 0, 1)


def test_holms_correction_of_a_worked_example():
    np.testing.assert_allclose(intervals.holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(intervals.holm([0.5, 0.9]), [1, 1])


# A tiny run


def test_a_tiny_run_fills_every_model(tiny):
    assert set(tiny.children) == {"cycle", "nonlinear", "walk"}
    panel = tiny["cycle"].to_dataset()
    assert list(panel["cell"].values) == list(lanes.CELLS)
    assert list(panel["model"].values) == ["naive", "seasonal naive", "linear", "best possible"]
    assert panel["forecast"].sizes == {"cell": 3, "rate": 2, "fold": 2, "seed": 2, "place": 9}
    assert panel["validation_loss"].sizes == {"cell": 3, "rate": 2, "fold": 2, "seed": 2, "step": 3}
    assert np.isfinite(panel["forecast"]).all()
    # All begin alike, and in the unit of the series.
    np.testing.assert_allclose(panel["validation_loss"].isel(step=0).std(("cell", "rate", "seed")), 0, atol=1e-5)
    assert float(np.abs(panel["forecast"] - panel["truth"]).max()) < 150
    np.testing.assert_array_equal(np.diff(panel["time"].values.ravel()), 1)


def test_every_row_table_and_figure_is_made_from_a_stored_tree(tiny, tmp_path):
    results.write_tree(tmp_path / "results.nc", tiny)
    tree = results.read_tree(tmp_path / "results.nc")
    rows = study.report(tree)
    assert len({row.claim for row in rows}) == len(rows) == 4 + 1 + 3 + 3 * 6 + 1
    tables = {name: list(csv.DictReader(io.StringIO(text.decode()))) for name, text in study.files(tree).items()}
    assert len(tables["errors.csv"]) == 3 * 7
    assert len(tables["comparisons.csv"]) == 3 * 11
    figures = study.plot(tree)
    assert set(figures) == {"forecasts", "errors", "learning"}
    for figure in figures.values():
        figure.savefig(tmp_path / "figure.png")


def _results(name, levels, seeds=3, folds=2, m=200):
    """Results whose models have errors of a known size: noise of 1, and ``levels`` more by model."""
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(folds, m))
    noise = rng.normal(size=(folds, m))
    models = ["naive", "seasonal naive", "linear", "best possible"]
    baseline = np.array([truth - noise * levels[model] for model in models])
    cells = np.array([levels[cell] for cell in lanes.CELLS])[:, None, None, None, None]
    spread = 1 + 0.001 * np.arange(seeds)[None, None, None, :, None]
    forecast = truth[None, None, :, None] - noise[None, None, :, None] * cells * spread
    forecast = np.concatenate([forecast, truth[None, None, :, None] + 9 + 0 * forecast], axis=1)
    dims = ("cell", "rate", "fold", "seed")
    loss = np.ones((3, 2, folds, seeds)) * np.array([1.0, 2.0])[None, :, None, None]
    return xr.Dataset(
        {
            "forecast": ((*dims, "place"), forecast), "chosen_loss": (dims, loss), "chosen_step": (dims, loss),
            "baseline": (("model", "fold", "place"), baseline), "truth": (("fold", "place"), truth),
            "naive_step": (("fold",), np.full(folds, 2.0)), "penalty": (("fold",), np.array([1.0, np.inf])[:folds]),
        },
        {"cell": list(lanes.CELLS), "model": models, "rate": [0.1, 0.2]},
        {"unit": "units", "drawn": 1},
    )  # fmt: skip


LEVELS = {
    "naive": 1.0, "seasonal naive": 2.0, "linear": 0.5, "best possible": 0.5, "rnn": 0.7, "lstm": 0.5, "gru": 0.3,
}  # fmt: skip


def test_verdicts_follow_the_intervals():
    tree = xr.DataTree.from_dict({"cycle": _results("cycle", LEVELS)})
    said = {(each.model, each.other): each.said for each in reporting.comparisons(tree)}
    assert said["linear", "naive"] == said["gru", "linear"] == said["rnn", "naive"] == "beats"
    assert said["rnn", "linear"] == "worse"
    assert said["lstm", "linear"] == "equivalent"
    same = reporting.compare("walk", _results("walk", {**LEVELS, "linear": 1.0}), "linear", "naive")
    assert (same.difference, same.said) == ((0, 0, 0, 1), "equivalent")  # not a digit apart
    found = {row.claim: row for row in reporting.report(tree)}
    best = found["cycle: the linear model is within 5 % of the best possible"]
    assert (best.verdict, best.measured) == ("holds", "0.0 % (by losses alone +0.0 % [+0.0, +0.0] %)")
    assert found["cycle: linear"].measured.endswith("0.0 % above the best possible loss; penalties 1, inf")
    assert found["cycle: gru"].measured.endswith("rate 0.1; 0 of 6 nets stopped at update 0")
    assert found["cycle: naive"].measured.endswith("(linear); 100.0 % above the best possible loss")
    assert found["cycle: gru"].verdict == "beats naive; beats seasonal naive; beats linear"
    assert "(linear)" in found["cycle: gru"].measured


@pytest.mark.parametrize(("level", "said"), [(1.2, "holds"), (1.0, "holds"), (0.8, "fails")])
def test_prices_are_a_control_that_nothing_beats(level, said):
    levels = {**LEVELS, **dict.fromkeys(("linear", *lanes.CELLS), level)}
    rows = reporting.report(xr.DataTree.from_dict({"walk": _results("walk", levels)}))
    assert [row.verdict for row in rows if "no better than the last value" in row.claim] == [said] * 4


@pytest.mark.parametrize(("level", "said"), [(0.3, "holds"), (0.7, "fails"), (0.5, "fails")])
def test_nets_are_to_beat_the_line_where_no_line_is_right(level, said):
    levels = {**LEVELS, **dict.fromkeys(lanes.CELLS, level)}
    rows = reporting.report(xr.DataTree.from_dict({"nonlinear": _results("nonlinear", levels)}))
    assert [row.verdict for row in rows if "beats the linear model" in row.claim] == [said] * 3


def test_errors_are_those_written_out():
    panel = _results("cycle", LEVELS)
    error = panel["truth"].values - panel["baseline"].sel(model="linear").values
    assert reporting.rmse(panel, "linear") == pytest.approx(np.sqrt(np.mean(error**2)))
    assert reporting.mase(panel, "linear") == pytest.approx(np.mean(np.abs(error)) / 2)
    nets = panel["truth"].values - panel["forecast"].sel(cell="gru").isel(rate=0).values.swapaxes(0, 1)
    assert reporting.rmse(panel, "gru") == pytest.approx(np.sqrt(np.mean(nets**2)))


def test_what_is_lost_against_the_best_forecast_is_the_distance_from_it():
    panel = _results("cycle", LEVELS)
    best, naive = (panel["baseline"].sel(model=model).values for model in ("best possible", "naive"))
    found = reporting.from_best("cycle", panel, "naive").difference
    noise = np.mean((panel["truth"].values - best) ** 2)
    assert found.mean == pytest.approx(np.mean((naive - best) ** 2) / noise)
    # On a draw both ways of measuring agree, and this one is by far the surer.
    data = _panel("cycle", steps=3000)
    truth = data.values[np.concatenate([data.target[fold.test] for fold in data.folds])]
    line, best = (lanes.baselines(data)[0][model].ravel() for model in ("linear", "best possible"))
    plain = intervals.mean_difference((line - truth) ** 2, (best - truth) ** 2)
    ours = intervals.mean_difference((line - best) ** 2, np.zeros(len(truth)))
    assert plain.low < ours.mean < plain.high
    assert ours.high - ours.low < 0.3 * (plain.high - plain.low)


def test_rates_are_chosen_for_each_fold_without_the_test_part():
    panel = _results("cycle", LEVELS)
    panel["chosen_loss"][2, :, 1] = np.array([2.0, 1.0])[:, None]  # gru, second fold: the other rate
    panel["chosen_loss"][1, 1, 0] = np.nan
    np.testing.assert_array_equal(reporting.chosen_rates(panel, "gru"), [0, 1])
    np.testing.assert_array_equal(reporting.chosen_rates(panel, "lstm"), [0, 0])
    found = reporting.forecasts(panel, "gru")
    np.testing.assert_array_equal(found[:, 0], panel["forecast"].values[2, 0, 0])
    np.testing.assert_array_equal(found[:, 1], panel["forecast"].values[2, 1, 1])
    # What the test part says changes nothing.
    panel["truth"] = panel["truth"] + 5
    panel["forecast"] = -panel["forecast"]
    panel["forecast"][:, 0] = 1e3
    np.testing.assert_array_equal(reporting.chosen_rates(panel, "gru"), [0, 1])
    np.testing.assert_array_equal(reporting.chosen_rates(panel, "lstm"), [0, 0])


def test_forecasts_that_are_no_numbers_are_worse_hold_nothing_and_are_not_counted():
    panel = _results("walk", {**LEVELS, **dict.fromkeys(("linear", *lanes.CELLS), 1.2)})
    panel["forecast"][2, 0, 0, 1, 5] = np.inf
    assert reporting.compare("walk", panel, "gru", "naive").said == "worse"
    tree = xr.DataTree.from_dict({"walk": panel})
    found = {row.claim: row for row in reporting.report(tree)}
    assert found["walk: gru is no better than the last value"].verdict == "open"
    assert found["walk: lstm is no better than the last value"].verdict == "holds"
    (many,) = (row.measured for claim, row in found.items() if claim.startswith("differences"))
    assert "of 8 intervals" in many
    assert many.endswith("3 with forecasts that are no numbers are left out")
    lines = list(csv.DictReader(io.StringIO(reporting.files(tree)["comparisons.csv"].decode())))
    assert [line["p_holm"] for line in lines if line["model"] == "gru"] == ["nan"] * 3
    assert all(float(line["p_holm"]) <= 1 for line in lines if line["model"] != "gru")


def test_a_net_is_nothing_to_compare_with():
    with pytest.raises(ValueError, match="other='rnn' has losses of several seeds; compare with one of naive"):
        reporting.compare("cycle", _results("cycle", LEVELS), "gru", "rnn")


# Bad input


BAD = {
    "series": ({"series": ("cycles",)}, "cycles"),
    "none": ({"series": ()}, "must hold at least one name"),
    "twice": ({"series": ("walk", "walk")}, "must hold at least one name, each once"),
    "share": ({"test_share": 1.0}, "test_share=1.0 must lie between 0 and 1"),
    "rate": ({"rates": (0.0, 0.1)}, "rates=(0.0, 0.1) must hold positive learning rates"),
    "clip": ({"clip": 0.0}, "clip=0.0 must be positive"),
    "evaluations": ({"evaluations": 3}, "steps=4 must be a multiple of evaluations=3"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_options_are_one_sentence(name):
    change, text = BAD[name]
    with pytest.raises(ValueError, match=re.escape(text)):
        replace(TINY, **change)


def test_a_series_too_short_for_its_folds_is_refused():
    with pytest.raises(command.BadInput, match="48 windows of cycle are too few for 9 folds"):
        study.sweeps(replace(TINY, folds=9))


@pytest.mark.slow
def test_quick_shows_what_the_study_claims():
    verdicts = {row.claim: row.verdict for row in study.report(study.run(study.PRESETS["quick"]))}
    claims = [claim for claim in verdicts if claim.endswith(("last value", "best possible", "the linear model"))]
    assert len(claims) == 8
    assert {verdicts[claim] for claim in claims} == {"holds"}
