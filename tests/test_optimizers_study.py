"""The optimizers study: its closed forms and judgements one by one, a tiny run of all panels, and quick's claims."""

import dataclasses
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

import experiments.optimizers as study
from experiments import _optimizers_encoder_rows as encoding
from experiments import _optimizers_lanes as lanes
from experiments import _optimizers_report as reporting
from experiments import _optimizers_rows as wording
from experiments import _optimizers_theory as theory
from experiments import _optimizers_trained_rows as training
from nnjax import optimizers, results
from nnjax.data import load
from nnjax.statistics import Interval, t_interval, verdict
from nnjax.train import Config as TrainConfig

ROOT = Path(__file__).parent.parent
TINY = study.Config(
    ravine_rates=(0.001, 0.0025),
    ravine_steps=60,
    rosenbrock_rates=(0.001, 0.1),
    rosenbrock_steps=200,
    encoder_seeds=4,
    encoder_epochs=40,
    train_n=60,
    validation_n=40,
    test_n=40,
    hidden=4,
    batch=20,
    epochs=7,
    rates=(0.003, 0.03, 0.3),
    rates_seeds=2,
    schedule_rates=(0.01, 0.1),
    schedule_seeds=2,
    separable_n=20,
    separable_shares=(0.6, 0.8),
    separable_steps=600,
)


@pytest.fixture(scope="module")
def tiny():
    """A run of every panel at the smallest size that means anything."""
    return study.run(TINY)


def test_a_tiny_run_fills_every_panel(tiny):
    assert set(tiny.children) == {
        "ravine", "rosenbrock", "encoder", "rates", "generalization", "schedules", "schedules_chosen", "separable",
    }  # fmt: skip
    assert dict(tiny["rates"].sizes) == {"rule": 6, "rate": 3, "seed": 2, "evaluation": 5}
    assert list(tiny["rates"]["rule"].values) == list(lanes.TRAINED_RULES)
    assert list(tiny["schedules"]["schedule"].values) == list(lanes.SCHEDULES)
    assert tiny["encoder"]["epochs"].shape == (4, len(lanes.ENCODER_RULES))
    assert tiny["generalization"]["test_wrong"].shape == (6, 2, 40)
    assert not any(bool(tiny[group]["diverged"].any()) for group in set(tiny.children) - {"rosenbrock"})


def test_wrong_test_examples_make_the_test_error(tiny):
    for group in ("generalization", "schedules_chosen"):
        np.testing.assert_allclose(tiny[group]["test_wrong"].mean("example"), tiny[group]["test_error"], atol=1e-6)


def test_paths_that_overflow_are_counted_by_rule_and_rate():
    """By hand: plain descent at rate .1 blows up from Rosenbrock's start; at .0001 it does not."""
    lane = jax.jit(lambda rate: lanes.rosenbrock_lane(None, {"rate": rate}, None, steps=200, threshold=1e-4))
    with jax.enable_x64(True):
        small, large = lane(jnp.asarray(1e-4)), lane(jnp.asarray(0.1))
    at = lanes.ROSENBROCK_RULES.index("sgd")
    w = np.array(lanes.ROSENBROCK_START)
    with np.errstate(over="ignore", invalid="ignore"):
        for _ in range(200):
            x, y = w
            w = w - 0.1 * np.array([-2 * (1 - x) - 400 * x * (y - x**2), 200 * (y - x**2)])
    assert not np.isfinite(w).all()
    assert bool(large["diverged"][at])
    assert not bool(small["diverged"][at])
    assert np.isfinite(large["path"]).all()


def test_exact_panels_agree_with_theory_at_any_size(tiny):
    assert reporting.ravine_deviation(tiny["ravine"].to_dataset()).max() < 1e-10
    assert reporting.separable_gap(tiny["separable"].to_dataset()) < 1e-6
    assert float(reporting.directions(tiny["separable"].to_dataset()).min()) > 1 - 1e-4


def test_every_row_and_figure_is_made_from_a_stored_tree(tiny, tmp_path):
    results.write_tree(tmp_path / "results.nc", tiny)
    tree = results.read_tree(tmp_path / "results.nc")
    rows = study.report(tree)
    assert len({row.claim for row in rows}) == len(rows) == 32
    assert all(isinstance(cell, str) for row in rows for cell in (row.measured, row.interval, row.verdict))
    # So few starts judge nothing.
    assert {row.verdict for row in rows if "encoder" in row.claim} <= {"inconclusive", "not comparable"}
    figures = study.plot(tree)
    assert set(figures) == {"ravine", "rosenbrock", "encoder", "rates", "schedules", "generalization"}
    for figure in figures.values():
        figure.savefig(tmp_path / "figure.png")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--encoder-seeds", "1"], "encoder_seeds=1 must be at least 2"),
        (["--ravine-momentum", "1.5"], "ravine_momentum=1.5 must lie between 0 and 1"),
        (["--ravine-curvatures", "1", "2", "3"], "must be two"),
        (["--rates", "0.1", "0.01"], "must be ascending"),
        (["--rates", "0"], "rates=0.0 must be at least"),
        (["--separable-shares", "0.4"], "must lie between 1/2 and 1"),
        (["--separable-shares", "0.51"], "is no whole number"),
        (["--batch", "1100"], "batch=1100 must be at most train_n=1000"),
        (["--data", "cifar"], "data='cifar' must be among"),
        (["--train-n", "1100", "--dry-run"], "are more than the 1438 training examples of digits"),
        (["--test-n", "400", "--dry-run"], "test_n=400 is more than the 359 test examples of digits"),
        (["--encoder-seed", "3"], "did you mean --encoder-seeds"),
    ],
)
def test_bad_options_are_one_sentence_and_exit_2(arguments, message, capsys):
    assert study.main(arguments) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.startswith("optimizers: ")
    assert said.count("\n") == 1


# Closed forms


@pytest.mark.parametrize("rule", lanes.RAVINE_RULES)
@pytest.mark.parametrize("rate", [0.001, 0.0025, 0.003])
def test_the_recurrence_is_what_the_rule_does(rule, rate):
    """Against the rule written out in NumPy; at .0025 the steep direction has a double root."""
    h, m = np.array([4.0, 400.0]), 0.0 if rule == "sgd" else 0.8
    w, v = np.array(lanes.RAVINE_START), np.zeros(2)
    path = [w]
    for _ in range(50):
        v = m * v + h * w
        w = w - rate * (h * w + m * v if rule == "nesterov" else v)
        path.append(w)
    np.testing.assert_allclose(theory.ravine_path(rule, rate, h, 0.8, 50), path, atol=1e-12)


def test_first_within_counts_from_where_it_stays():
    path = np.zeros((6, 2))
    path[:, 0] = [1, 0.001, 0.5, 0.005, 0.001, 0]
    assert theory.first_within(path) == 3
    assert theory.first_within(np.ones((4, 2))) == 4


def test_wilsons_construction_has_the_property_of_the_lemma():
    """X sign(X'y) = 4 y, so that along sign(X'y) all examples are fitted at once."""
    x, y = lanes.separable_examples(0.7, 20)
    assert x.shape == (20, 103)
    assert float(jnp.sum(y > 0)) == 14
    np.testing.assert_allclose(x @ jnp.sign(x.T @ y), 4 * y)
    own = np.asarray(x[:, 3:])
    assert (own.sum(0) <= 1).all(), "an example's own inputs are its alone"
    np.testing.assert_array_equal(own.sum(1), np.where(y > 0, 1, 5))


def _numpy_backprop_epochs(w, rate):
    """The encoder by hand, in NumPy: epochs until all outputs are within .4."""
    w1, b1, w2, b2 = w[:50].reshape(10, 5), w[50:55], w[55:105].reshape(5, 10), w[105:]
    for epoch in range(1, 1001):
        hidden = 1 / (1 + np.exp(-(w1 + b1)))
        out = 1 / (1 + np.exp(-(hidden @ w2 + b2)))
        error = out - np.eye(10)
        if (np.abs(error) < 0.4).all():
            return epoch
        delta = error * out * (1 - out)
        back = delta @ w2.T * hidden * (1 - hidden)
        w2, b2 = w2 - rate * hidden.T @ delta, b2 - rate * delta.sum(0)
        w1, b1 = w1 - rate * back, b1 - rate * back.sum(0)
    return 1001


def test_the_encoder_counts_epochs_as_a_loop_by_hand():
    rng = np.random.default_rng(0)
    starts = rng.uniform(-1, 1, (3, 115))
    with jax.enable_x64(True):
        sgd = optimizers.by_name("sgd", 1.9)
        found = jax.jit(jax.vmap(lambda w: lanes.encoder_epochs(sgd, w, 10, 5, 0.0, 1000)[0]))(jnp.asarray(starts))
    assert found.tolist() == [_numpy_backprop_epochs(w, 1.9) for w in starts]


def test_the_derivative_alone_is_raised():
    z = jnp.linspace(-20, 20, 7)
    np.testing.assert_allclose(lanes.logistic(z, 0.1), jax.nn.sigmoid(z))
    slope = jax.vmap(jax.grad(lambda z: lanes.logistic(z, 0.1)))(z)
    np.testing.assert_allclose(slope, jax.nn.sigmoid(z) * (1 - jax.nn.sigmoid(z)) + 0.1, rtol=1e-5)


# Judgements, on made-up results


def test_rates_are_chosen_on_validation_data_alone():
    validation = np.array([[[0.3, 0.3], [0.1, 0.2], [0.4, 0.1]], [[0.1, 0.1], [0.2, 0.2], [0.3, 0.3]]])
    test = np.array([[[0.0, 0.0], [0.5, 0.6], [0.0, 0.0]], [[0.7, 0.8], [0.0, 0.0], [0.0, 0.0]]])
    dims = ("rule", "rate", "seed", "evaluation")
    found = xr.Dataset(
        {"validation_error": (dims, validation[..., None]), "test_error": (dims, test[..., None])},
        {"rule": ["a", "b"], "rate": [0.1, 1.0, 10.0]},
    )
    chosen = study.chosen_by_validation(found, "rule")
    np.testing.assert_array_equal(chosen["rate"], [1.0, 0.1])
    np.testing.assert_array_equal(chosen["test_error"], [[0.5, 0.6], [0.7, 0.8]])
    np.testing.assert_array_equal(chosen["at_edge"], [False, True])


def test_test_examples_are_fixed_and_in_no_ones_training_or_validation_part():
    examples, digits = study._examples(TINY), load("digits")
    np.testing.assert_array_equal(examples["test_x"], np.reshape(digits.test.x[:40], (40, -1)))
    np.testing.assert_array_equal(examples["test_y"], digits.test.y[:40])
    np.testing.assert_array_equal(examples["x"], np.reshape(digits.train.x, (len(digits.train.x), -1)))
    # With a pool of one picture, all that is learned and validated is its label; other test pictures are wrong.
    data = examples | {"x": np.repeat(examples["x"][:1], 30, 0) + np.eye(30, 64, dtype=np.float32) * 1e-3}
    data["y"] = np.full(30, 3)
    lane = partial(
        lanes.training_lane, choose=lanes.chosen_rule, hidden=4, sizes=(20, 10), steps=60,
        config=TrainConfig(steps=60, batch_size=10),
    )  # fmt: skip
    found = jax.jit(lane)(jax.random.key(0), {"rule": 0, "rate": 0.1}, data)
    assert float(found["validation_error"][-1]) == 0
    np.testing.assert_array_equal(found["test_wrong"], examples["test_y"] != 3)


def test_the_band_is_passed_missed_or_left_open():
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 3, 100)
    assert encoding.in_band(25 + noise, 25.0, 100) == "holds"
    assert encoding.in_band(30 + noise, 25.0, 100) == "fails"
    assert encoding.in_band(27.3 + noise, 25.0, 100) == "inconclusive"
    assert encoding.in_band(25 + noise[:10], 25.0, 10) == "inconclusive"
    assert encoding.in_band(25 + noise[:90], 25.0, 100) == "holds"
    assert encoding.in_band(25 + noise[:89], 25.0, 100) == "fails", "too few starts solved"


def test_published_numbers_are_judged_by_the_effect_over_our_own_baseline():
    rng = np.random.default_rng(0)
    epochs = 20 + rng.normal(0, 2, 100)

    def judged(epochs, own, starts=100):
        return encoding.as_published(epochs, epochs - own, 20.0, 120.0, starts)

    assert judged(epochs, 100.0) == "reproduced"
    assert judged(epochs, 20.0) == "inconclusive", "no effect over our own baseline, however near the published mean"
    assert judged(epochs + 100, 90.0) == "not reproduced"
    assert judged(epochs + 60, 130.0) == "direction only"
    assert judged(epochs - 80, 130.0) == "better"
    assert judged(epochs[:85], 100.0) == "not reproduced", "too few starts solved"
    assert judged(epochs[:10], 100.0, 10) == "inconclusive"
    # With a constant baseline it is the verdict that others use.
    for shift in (-80, -49.7, 0, 49.7, 60, 97, 99.9, 110):
        assert judged(epochs + shift, 120.0) == verdict(epochs + shift, 20.0, 50.0, baseline=120.0), shift


def test_effects_pair_the_starts_that_both_solved():
    epochs = np.array([[100, 20], [90, 101], [101, 30], [80, 40]])
    rules = ["backprop", "rprop+ 2"]
    found = xr.Dataset({"epochs": (("seed", "rule"), epochs)}, {"rule": rules}, {"bound": 100})
    np.testing.assert_array_equal(encoding.effect(found, "rprop+ 2"), [-80, -40])
    np.testing.assert_array_equal(encoding.solved(found, "rprop+ 2"), [20, 30, 40])
    assert encoding._told(found, "rprop+ 2") == "30.0; 3 of 4 starts solved; median of all 35"


def test_intervals_over_runs_and_examples_cover_where_those_over_runs_do_not():
    """A crossed design, 20 runs on 100 examples, mean 0: 95 % cover it in 95 % of cases or more."""
    rng = np.random.default_rng(0)
    cases = 400
    runs, examples = rng.normal(0, 0.1, (cases, 20, 1)), rng.normal(0, 0.5, (cases, 1, 100))
    samples = runs + examples + rng.normal(0, 0.5, (cases, 20, 100))
    both = [wording.crossed_interval(sample) for sample in samples]
    alone = [t_interval(sample.mean(1)) for sample in samples]
    covered = [np.mean([found.low <= 0 <= found.high for found in kind]) for kind in (both, alone)]
    # Three standard errors of 400 cases are .033.
    assert covered[0] > 0.95 - 0.033
    assert covered[1] < 0.75
    width = [np.mean([found.high - found.low for found in kind]) for kind in (both, alone)]
    assert width[0] < 1.5 * 2 * 2.09 * np.hypot(0.1 / np.sqrt(20), 0.05)
    assert np.isnan(wording.crossed_interval(samples[0][:1]).low)


def test_momentum_is_compared_with_ten_times_the_rate():
    rates = [0.001, 0.01, 0.1]
    error = np.array([[0.9, 0.5, 0.1], [0.52, 0.1, 0.9]])[..., None, None]
    found = xr.Dataset(
        {"validation_error": (("rule", "rate", "seed", "evaluation"), error)},
        {"rule": ["sgd", "momentum"], "rate": rates},
    )
    np.testing.assert_allclose(training.momentum_as_plain(found), [0.02])  # 10 r = .1 is not small


def test_sides_of_a_difference():
    assert training.side(Interval(1.0, 0.5, 1.5)) == "higher"
    assert training.side(Interval(-1.0, -1.5, -0.5)) == "lower"
    assert training.side(Interval(0.1, -0.5, 0.7)) == "no difference seen"
    assert training.side(Interval(1.0, 0.5, 1.5), at_edge=True) == training.OPEN


def test_a_rate_at_the_grids_edge_leaves_the_verdict_open():
    """Eight schedules, each worse than the constant rate by a clear margin, one of them at the edge of its grid."""
    rng = np.random.default_rng(0)
    wrong = rng.random((8, 20, 300)) < np.array([0.1, *[0.3] * 7])[:, None, None]
    names = list(lanes.SCHEDULES)
    chosen = xr.Dataset(
        {
            "test_wrong": (("schedule", "seed", "example"), wrong),
            "test_error": (("schedule", "seed"), wrong.mean(-1)),
            "train_error": (("schedule", "seed"), np.zeros((8, 20))),
            "at_edge": ("schedule", np.arange(8) == 2),
        },
        {"schedule": names, "rate": ("schedule", np.full(8, 0.1))},
    )
    rows = training.schedule_rows(chosen)
    assert [row.verdict for row in rows] == ["higher", training.OPEN, *["higher"] * 5]
    assert "0.1 (grid's edge)" in rows[1].measured
    assert all("99.3 %" in row.interval and "one of 7 comparisons" in row.claim for row in rows)
    edge = chosen.assign(at_edge=("schedule", np.arange(8) == 0))
    assert {row.verdict for row in training.schedule_rows(edge)} == {training.OPEN}


def test_presets_are_sound():
    assert set(study.PRESETS) == {"quick", "standard", "full"}
    quick = study.PRESETS["quick"]
    assert quick.encoder_seeds >= 100
    assert quick.rates_seeds >= 20
    assert (quick.ravine_rate, quick.ravine_momentum) == (0.003, 0.8)
    assert quick.data == "digits"
    for preset in study.PRESETS.values():
        dataclasses.replace(preset)  # is refused where a preset is unsound


@pytest.mark.slow
def test_quick_shows_what_the_study_claims(tmp_path):
    """The falsifiable checks of the study, on the default command, and a control that must not pass."""
    kept = {name: value for name, value in os.environ.items() if name != "NNJAX_DATA"}
    done = subprocess.run(
        [sys.executable, "-m", "experiments.optimizers", "--out", str(tmp_path / "quick")],
        cwd=ROOT, capture_output=True, text=True, timeout=1200, env={**kept, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    tree = results.read_tree(tmp_path / "quick" / "results.nc")
    rows = study.report(tree)
    verdicts = {row.claim: row.verdict for row in rows}
    encoder = tree["encoder"].to_dataset()
    starts = encoder.sizes["seed"]
    for rule, reference in encoding.REFERENCE.items():
        assert encoding.in_band(encoding.solved(encoder, rule), reference, starts) == "holds", rule
    published = {claim: verdict for claim, verdict in verdicts.items() if "as published" in claim}
    assert len(published) == len(encoding.PUBLISHED)
    assert set(published.values()) == {"reproduced"}
    assert reporting.ravine_deviation(tree["ravine"].to_dataset()).max() <= 1e-5
    for words in ("momentum and Nesterov are there", "every rule reaches", "lies inside the grid", "does as plain"):
        (said,) = [verdict for claim, verdict in verdicts.items() if words in claim]
        assert said == "holds", words
    assert [v for claim, v in verdicts.items() if "Wilson" in claim] == ["agrees", "agrees"]
    # Too large a rate must blow up, and the count be the lanes' own.
    rosenbrock = tree["rosenbrock"].to_dataset()
    assert rosenbrock["diverged"].sel(rule="sgd").values[-1]
    assert not rosenbrock["diverged"].values[(rosenbrock["steps"] <= rosenbrock.attrs["bound"]).values].any()
    # Whether adaptive rules generalize worse is asked, not known: any verdict is one, but there must be one.
    (said,) = [verdict for claim, verdict in verdicts.items() if "adaptive rules generalize worse" in claim]
    assert said in ("holds", "fails", "inconclusive")
    slower = optimizers.by_name("sgd", 1.2)
    key = jax.random.key(1)
    control = jax.jit(jax.vmap(lambda w: lanes.encoder_epochs(slower, w, 10, 5, 0.0, 1000)[0]))(
        jax.random.uniform(key, (200, 115), minval=-1.0, maxval=1.0)
    )
    assert encoding.in_band(np.asarray(control, float), encoding.REFERENCE["backprop"], 200) == "fails"
