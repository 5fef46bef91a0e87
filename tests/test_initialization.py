"""The initialisation study: its plan, bad input, the trainability map, and what quick must show."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import xarray as xr

from experiments import _initialization_map as panel
from experiments import initialization as study
from nnjax import initializers, losses, models, results
from nnjax.sweep import plan
from nnjax.theory import mean_field
from nnjax.train import Config as TrainConfig
from nnjax.train import make_train

TINY = study.Config(
    input_draws=40, zero_steps=2, signal_depth=3, signal_width=4, signal_inputs=2, signal_seeds=2,
    histogram_depth=2, histogram_width=4, histogram_steps=2, train_n=80, validation_n=40, depths=(2, 3), width=4,
    batch_size=20, steps=4, seeds=2, selection_seeds=1, rates=(0.01,), adam_rates=(0.01,), arm_depth=2, arm_steps=3,
    cnn_depth=2, cnn_width=2, cnn_steps=2, cnn_seeds=2, map_variances=(0.5, 1.5, 4.0),
    map_depths=(2, 5), map_width=8, map_steps=6, map_seeds=2,
)  # fmt: skip


@pytest.fixture(scope="module")
def data():
    return study._data(TINY)


# The plan


def test_every_sweep_can_be_planned():
    calls = study.sweeps(TINY)
    plans = {name: plan(*call.args, **call.keywords) for name, call in calls.items()}
    lanes = {name: sum(len(p.positions) for p in one.programs) for name, one in plans.items()}
    assert lanes["map"] == 3 * 2 * 2
    assert lanes["training"] == 2 * 6 * 2
    assert {"inputs", "zero", "signals", "histograms", "cnn"} < set(lanes)
    assert not {"rates", "arms"} & set(lanes)  # several sweeps each


def test_panels_draw_from_different_keys():
    keys = [jax.random.key_data(key).tolist() for key in study._keys(TINY)]
    folded = [jax.random.key_data(jax.random.fold_in(study._keys(TINY)[0], part)).tolist() for part in range(1, 4)]
    assert len({tuple(key) for key in keys + folded}) == 6


@pytest.mark.parametrize("preset", study.PRESETS)
def test_presets_are_what_they_are_for(preset):
    config = study.PRESETS[preset]
    assert len(config.map_variances) >= 12
    assert len(config.map_depths) >= 10
    assert min(config.map_variances) < 1.76 < max(config.map_variances)  # both sides of the critical one
    assert {22, 30} <= set(config.depths)
    assert (config.signal_depth, config.signal_seeds >= 16) == (50, True)


# The map


def test_a_lane_of_the_map_is_the_plain_run_of_its_depth(data):
    static = {"width": 8, "classes": 10, "activation": "tanh", "bias_variance": 0.05, "learning_rate": 0.01}
    hparams = {"weight_variance": jnp.float32(2.0), "depth": jnp.int32(2)}
    key = jax.random.key(3)
    found = jax.jit(lambda d: panel.map_lane(key, hparams, d, depth=4, steps=5, batch_size=20, **static))(data)
    model = models.DeepMLP(
        depth=2, width=8, activation="tanh", output_initializer="lecun_normal",
        initializer=initializers.scaled_normal(lambda fan_in, fan_out: 2.0 / fan_in),
        bias_initializer=jax.nn.initializers.normal(0.05**0.5),
    )  # fmt: skip
    train = make_train(
        models.network(model), losses.cross_entropy, lambda _: optax.sgd(0.01, momentum=0.9),
        TrainConfig(steps=5, batch_size=20), metrics={"loss": losses.cross_entropy, "error": losses.zero_one},
    )  # fmt: skip
    splits = {name: (data[f"x_{name}"], data[f"y_{name}"]) for name in ("train", "test")}
    expected = jax.jit(lambda d: train(key, None, d))(splits).history
    np.testing.assert_allclose(found["train_loss"], expected["train_loss"][-1], rtol=1e-5)
    np.testing.assert_allclose(found["train_accuracy"], 1 - expected["train_error"][-1], atol=1e-6)
    np.testing.assert_allclose(found["test_accuracy"], 1 - expected["test_error"][-1], atol=1e-6)


def test_trainable_depth_is_where_accuracy_falls_through_the_level():
    depths = np.array([4.0, 8.0, 16.0])
    level = panel.LEARNED
    cases = {
        (1.0, 1.0, 1.0): 16.0,  # all train
        (0.1, 0.1, 0.1): 4.0,  # none does
        (1.0, level, 0.0): 8.0,
        (1.0, 0.75, 0.25): 8 * 2**0.5,  # half-way in the logarithm
        (0.1, 1.0, 0.0): 8 * 2**0.5,  # the last fall counts
    }
    for accuracy, expected in cases.items():
        assert panel.trainable_depth(np.array(accuracy), depths) == pytest.approx(expected)
    stacked = panel.trainable_depth(np.array(list(cases)), depths)
    np.testing.assert_allclose(stacked, list(cases.values()))


def mapped(accuracy, variances, depths=(4, 8, 16, 32, 64)):
    """A map of these training accuracies (variances, depths, seeds), with its theory."""
    found = xr.Dataset(
        {"train_accuracy": (("weight_variance", "depth", "seed"), accuracy)},
        {"weight_variance": list(variances), "depth": list(depths), "seed": range(accuracy.shape[-1])},
    )
    return panel.with_theory(found, study.Config(map_variances=tuple(variances), map_depths=tuple(depths)))


def of_theory(factor, seeds=2, noise=0.0):
    """A map whose nets train to ``factor`` times what theory says."""
    variances = (0.4, 0.6, 0.8, 1.0, 1.2, 1.4, 2.5, 3.0, 4.0, 6.0, 8.0, 12.0)
    depths = np.geomspace(2, 128, 13).round().astype(int)
    with jax.enable_x64(True):
        scales = np.asarray(mean_field.depth_scales("tanh", jnp.asarray(variances), 0.05).correlation)
    rng = np.random.default_rng(0)
    limits = factor * panel.DEPTHS_OF_MEMORY * scales[:, None] * np.exp(noise * rng.normal(size=(12, seeds)))
    accuracy = 1 / (1 + (depths[None, :, None] / limits[:, None, :]) ** 6)
    return mapped(accuracy, variances, depths)


def test_theory_beside_the_map_is_mean_field():
    found = of_theory(1.0)
    assert found.attrs["critical"] == pytest.approx(1.761, abs=1e-3)
    assert (found["correlation_scale"] > 0).all()
    below = found["correlation_scale"].sel(weight_variance=slice(0, 1.7)).values
    above = found["correlation_scale"].sel(weight_variance=slice(1.8, 99)).values
    assert (np.diff(below) > 0).all()
    assert (np.diff(above) < 0).all()
    assert panel.predicted_depth(found).max() <= 128


def test_a_map_that_follows_theory_holds_and_one_that_does_not_fails():
    said = [[row.verdict for row in panel.rows(xr.DataTree.from_dict({"map": of_theory(f)}))] for f in (1.0, 1.5, 0.3)]
    assert said == [["holds", "holds"], ["holds", "holds"], ["holds", "fails"]]
    found = of_theory(1.0)
    flipped = found.assign(train_accuracy=found["train_accuracy"].isel(weight_variance=slice(None, None, -1)).variable)
    (order, size) = panel.rows(xr.DataTree.from_dict({"map": flipped}))
    assert (order.verdict, size.verdict) == ("fails", "fails")


def test_rank_correlation_is_spearmans_with_an_interval_around_it():
    exact = panel.rank_correlation(of_theory(1.0))
    assert float(exact.mean) > 0.99
    noisy = panel.rank_correlation(of_theory(1.0, seeds=3, noise=0.8))
    assert float(noisy.low) < float(noisy.mean) < float(noisy.high) <= 1
    assert float(noisy.mean) < float(exact.mean)


def test_a_map_without_order_has_no_correlation():
    flat = mapped(np.zeros((3, 5, 2)), (0.5, 1.0, 4.0))
    assert np.isnan(panel.rank_correlation(flat)).all()
    assert panel.rows(xr.DataTree.from_dict({"map": flat}))[0].verdict != "holds"


def test_variances_without_a_depth_scale_are_left_out():
    found = xr.Dataset(
        {"train_accuracy": (("weight_variance", "depth", "seed"), np.full((6, 5, 2), 0.9))},
        {"weight_variance": [0.5, 1.0, 1.5, 3.0, 4.0, 8.0], "depth": [4, 8, 16, 32, 64], "seed": range(2)},
    )
    relu = panel.with_theory(found, study.Config(map_activation="relu"))  # with biases lengths grow for ever above 2
    assert (panel.with_prediction(relu)["weight_variance"] < 2).all()
    tree = xr.DataTree.from_dict({"map": relu})
    assert "3 without a depth scale left out" in panel.rows(tree)[0].claim
    panel.plot(tree)["map"].canvas.draw()
    step = panel.with_theory(found, study.Config(map_activation="step"))  # no slope, nothing critical
    tree = xr.DataTree.from_dict({"map": step})
    assert [row.verdict for row in panel.rows(tree)] == ["not comparable"]
    panel.plot(tree)["map"].canvas.draw()


def test_the_map_is_drawn_from_what_a_folder_holds(tmp_path):
    results.write_tree(tmp_path / "results.nc", xr.DataTree.from_dict({"map": of_theory(1.0)}))
    (figure,) = panel.plot(results.read_tree(tmp_path / "results.nc")).values()
    figure.savefig(tmp_path / "map.png")
    axes = figure.axes[0]
    assert "variance" in axes.get_xlabel()
    assert axes.get_ylabel() == "hidden layers"
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        r"6 depth scales $\xi_c$ of theory", "measured depth (accuracy 0.5)"
    ]  # fmt: skip


# Bad input

BAD = {
    "activation": (["--activations", "tnah"], "did you mean 'tanh'?"),
    "map activation": (["--map-activation", "rleu"], "did you mean 'relu'?"),
    "scheme": (["--schemes", "he_normal", "xaver_normal"], "did you mean 'xavier_normal'?"),
    "no scheme": (["--schemes"], "schemes=() must name at least one"),
    "twice": (["--activations", "tanh", "tanh"], "each once"),
    "depth": (["--depths", "0", "5"], "depths=0 must be at least 1"),
    "signal depth": (["--signal-depth", "0"], "signal_depth=0 must be at least"),
    "variance": (["--bias-variance", "-0.1"], "bias_variance=-0.1 must be at least 0"),
    "variances": (["--map-variances", "-1", "2"], "map_variances=-1.0 must be at least 0"),
    "zero variance": (["--map-variances", "0", "2"], "map_variances=(0.0, 2.0) must be positive"),
    "one map depth": (["--map-depths", "10"], "map_depths=(10,) must have at least 2 values"),
    "nan": (["--map-rate", "nan"], "map_rate=nan must be at least 0"),
    "data": (["--data", "digit"], "data='digit' must be among digits"),
    "batch": (["--batch-size", "1000"], "batch_size=1000 must be below train_n=1000"),
    "examples": (["--train-n", "1400", "--dry-run"], "more than the 1438 training examples of digits"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_sentence_and_exit_2(name, capsys):
    arguments, words = BAD[name]
    assert study.main(arguments) == 2
    said = capsys.readouterr().err
    assert words in said
    assert said.startswith("initialization: ")
    assert said.count("\n") == 1


# All of it


@pytest.mark.slow
def test_a_tiny_run_fills_every_panel(tmp_path):
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)  # which take longer than running nets this small
    try:
        tree = study.run(dataclasses.replace(TINY, activations=("tanh", "sin")))
    finally:
        jax.config.update("jax_disable_most_optimizations", before)
    results.write_tree(tmp_path / "results.nc", tree)
    tree = results.read_tree(tmp_path / "results.nc")
    assert set(tree.children) == {
        "inputs", "zero", "signals", "histograms", "rates", "training", "arms", "cnn", "map"
    }  # fmt: skip
    assert len(study.plot(tree)) == 13
    assert all(row.verdict for row in study.report(tree))


@pytest.mark.slow
def test_quick_shows_what_the_study_claims(tmp_path):
    """The falsifiable checks, on the default command."""
    assert study.main(["--out", str(tmp_path / "quick")]) == 0
    tree = results.read_tree(tmp_path / "quick" / "results.nc")
    check_quick(tree)


def check_quick(tree):
    said = {row.claim: row.verdict for row in study.report(tree)}

    def verdicts(words):
        found = {verdict for claim, verdict in said.items() if words in claim}
        assert found, words
        return found

    for words in ("the signal is that of mean field", "the gradient is that of mean field", "all weights",
                  "He's learns at the greatest depth", "no infinity, no NaN", "250 inputs"):  # fmt: skip
        assert verdicts(words) == {"holds"}, words
    # Three seeds, and one for the map, decide nothing: these must not fail, and the effects must be there.
    for words in ("30 ReLU layers, plain SGD", "order the depths"):
        assert "fails" not in verdicts(words), words
    end = tree["training"]["train_accuracy"].sel(depth=30).isel(step=-1)
    assert (end.sel(scheme="he_normal") > end.sel(scheme="xavier_normal") + 0.3).all()
    assert float(panel.rank_correlation(tree["map"].to_dataset()).mean) > 0.8
