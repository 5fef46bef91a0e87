"""The training panels of the initialisation study: lanes against plain runs, the choice of rates, figures, verdicts."""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import xarray as xr

from experiments import _initialization_training as study
from experiments import _initialization_training_figures as figures
from experiments import _initialization_training_lanes as lanes
from experiments import _initialization_training_report as reporting
from experiments import command
from nnjax import initializers, losses, models
from nnjax.models.pretraining import autoencode
from nnjax.statistics import t_interval
from nnjax.train import Config as TrainConfig
from nnjax.train import make_train


@dataclass(frozen=True)
class Config:
    seed: int = 0
    data: str = "digits"
    train_n: int = 80
    validation_n: int = 40
    depths: tuple[int, ...] = (2, 22, 30)
    width: int = 8
    batch_size: int = 20
    steps: int = 100
    seeds: int = 3
    selection_seeds: int = 2
    rates: tuple[float, ...] = (0.001, 0.01, 0.1)
    adam_rates: tuple[float, ...] = (0.0001, 0.001)
    arm_depth: int = 30
    arm_steps: int = 100
    cnn_depth: int = 3
    cnn_width: int = 4
    cnn_steps: int = 12
    cnn_seeds: int = 2


CONFIG = Config()
KEY = jax.random.key(5)


@pytest.fixture(scope="module")
def data():
    return study.examples(CONFIG, flat=True)


# Data and starts


def test_examples_are_disjoint_and_standardized(data):
    assert [data[f"x_{part}"].shape for part in ("train", "validation", "test")] == [(80, 64), (40, 64), (40, 64)]
    assert abs(data["x_train"].mean()) < 1e-5
    assert np.mean(data["x_train"] ** 2) == pytest.approx(1, abs=1e-5)
    both = np.concatenate([data["x_train"], data["x_validation"]])
    assert len(np.unique(both, axis=0)) == len(both)
    assert study.examples(CONFIG, flat=False)["x_train"].shape == (80, 8, 8, 1)


def test_too_many_examples_are_refused():
    with pytest.raises(command.BadInput, match="train_n=1400 and validation_n=40 are more than the 1438"):
        study.examples(Config(train_n=1400), flat=True)


@pytest.mark.parametrize("names", [lanes.TRAINING_SCHEMES, lanes.ARM_SCHEMES, lanes.CNN_SCHEMES])
def test_a_numbered_scheme_is_the_named_one(names):
    shape = (3, 3, 4, 6) if names == lanes.CNN_SCHEMES else (5, 6)
    draw = jax.jit(lambda number: lanes.scheme(number, names)(KEY, shape))
    for name in names:
        expected = initializers.by_name(name)(KEY, shape)
        np.testing.assert_allclose(draw(lanes.SCHEMES.index(name)), expected, rtol=1e-6, atol=1e-7)


def test_pictures_are_square_and_large_ones_halved():
    small, large = np.arange(64.0).reshape(1, 64), np.arange(28.0 * 28).reshape(1, -1)
    assert lanes.pictures(small).shape == (1, 8, 8, 1)
    halved = lanes.pictures(large)
    assert halved.shape == (1, 14, 14, 1)
    assert halved[0, 1, 2, 0] == np.mean(large.reshape(28, 28)[2:4, 4:6])


# Lanes against plain runs


def lane_of(lane, settings, number, data, **static):
    hparams = {"setting": jnp.asarray(number)}
    table = {**data, "settings": lanes.table(settings)}
    return jax.jit(lambda d: lane(KEY, hparams, d, **static))(table)


def plain_run(network, rule, training, data):
    train = make_train(network, losses.cross_entropy, lambda _: rule, training, metrics=lanes.METRICS)
    return jax.jit(lambda d: train(KEY, None, d))(lanes.splits(data)).history


def test_a_lane_is_the_plain_run_of_its_own_depth(data):
    settings = [lanes.Setting("sgd", name, depth, 0.01) for name in ("xavier_normal", "he_normal") for depth in (2, 4)]
    training = TrainConfig(steps=6, batch_size=20, evaluate_at=(0, 2, 6))
    found = lane_of(lanes.mlp_lane, settings, 2, data, family="sgd", depth=4, width=8, training=training)
    network = models.network(models.DeepMLP(depth=2, width=8, activation="relu", initializer="he_normal"))
    expected = plain_run(network, optax.sgd(0.01, momentum=0.9), training, data)
    assert set(found) == {*lanes.CURVES, "diverged"}
    for name in lanes.CURVES:
        np.testing.assert_allclose(found[name], expected[name], rtol=2e-4, atol=1e-6, err_msg=name)
    assert found["train_loss"][0] > found["train_loss"][2]
    assert not found["diverged"]


def test_the_adam_arm_runs_adam(data):
    settings = [lanes.Setting("adam", "xavier_normal", 2, 0.01), lanes.Setting("lsuv", "he_normal", 2, 0.01)]
    training = TrainConfig(steps=4, batch_size=20, evaluate_at=(2, 4))
    found = lane_of(lanes.mlp_lane, settings, 0, data, family="plain", depth=2, width=8, training=training)
    network = models.network(models.DeepMLP(depth=2, width=8, activation="relu", initializer="xavier_normal"))
    expected = plain_run(network, optax.adam(0.01), training, data)
    np.testing.assert_allclose(found["train_loss"], expected["train_loss"], rtol=2e-4)


def test_preludes_are_pretraining_and_lsuv(data, monkeypatch):
    monkeypatch.setattr(lanes, "PRETRAINING_STEPS", 3)
    model = models.DeepMLP(depth=3, width=8, activation="relu", initializer="he_normal")
    plain, x = models.network(model), jnp.asarray(data["x_train"])

    @jax.jit
    def start(number):
        return lanes._with_prelude(plain, model, number, x, 20).init(KEY, x[:1])[0]

    params, stats = jax.jit(plain.init)(KEY, x[:1])
    pretrained = autoencode(
        params, x, activation="relu", key=jax.random.fold_in(KEY, 1), steps=3, learning_rate=lanes.PRETRAINING_RATE,
        batch_size=20,
    ).params  # fmt: skip
    for number, expected in enumerate([params, pretrained, models.lsuv(model, params, stats, x)]):
        for a, b in zip(jax.tree.leaves(start(number)), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_the_cnn_lane_sees_its_own_start(data):
    settings = [lanes.Setting("cnn", name, 3, 0.05) for name in lanes.CNN_SCHEMES]
    training = TrainConfig(steps=2, batch_size=20, evaluate_at=(0, 2))
    found = lane_of(lanes.cnn_lane, settings, 3, data, depth=3, width=4, training=training)
    model = models.DeepCNN(
        depth=3, width=4, activation="tanh", initializer="delta_orthogonal", output_initializer="lecun_normal"
    )
    x, y = jnp.asarray(data["x_train"][:64]).reshape(-1, 8, 8, 1), jnp.asarray(data["y_train"][:64])
    params, _ = jax.jit(partial(models.init, model))(jax.random.split(KEY)[0], x[:1])
    # By hand: a 1 x 1 convolution at the center tap, then tanh.
    z = x @ params["first"]["kernel"][1, 1]
    lengths = [float(jnp.mean(z**2))]
    for kernel in params["hidden"]["kernel"]:
        z = jnp.tanh(z) @ kernel[1, 1]
        lengths.append(float(jnp.mean(z**2)))
    np.testing.assert_allclose(found["length"], lengths, rtol=1e-4)

    def loss(shift):
        logits = jnp.mean(jnp.tanh(z + shift), axis=(1, 2)) @ params["logits"]["kernel"]
        return jnp.sum(losses.cross_entropy(logits, y))

    delta = jnp.sqrt(jnp.mean(jax.grad(loss)(jnp.zeros_like(z)) ** 2))
    assert float(found["delta"][-1]) == pytest.approx(float(delta), rel=1e-3)
    assert found["saturated"].shape == (3,)


# The choice of rates


def test_the_best_rate_has_the_highest_accuracy_then_the_lowest_loss_then_is_the_lowest():
    accuracy = np.array([[0.9, 0.8], [0.8, 0.9], [0.7, 0.9]])
    loss = np.array([[0.3, 0.3], [0.2, 0.2], [0.1, 0.1]])
    assert study.best(accuracy, loss) == 1
    assert study.best(accuracy, np.full((3, 2), 0.5)) == 0
    assert study.best(np.array([[0.5], [np.nan]]), np.array([[9.0], [np.nan]])) == 0
    assert study.best(np.full((2, 1), 0.5), np.array([[np.inf], [1.0]])) == 1


BEST = {"sgd": 0.01, "adam": 0.001, "batch_norm": 0.03, "residual": 0.03, "pretrained": 0.001, "lsuv": 0.1}


def simulated(name, call, asked=None):
    """What a sweep might have found, without training: Xavier late at 22 layers, never at 30, nor with convolutions."""
    count, seeds = len(call.args[1]["setting"]), list(call.args[1]["seed"])
    settings = {name: column[:count] for name, column in call.keywords["data"]["settings"].items()}
    steps = np.asarray(call.keywords["coords"]["step"])
    if asked is not None:
        asked[name] = settings, seeds
    rng = np.random.default_rng(len(settings["rate"]))
    shape = (len(settings["rate"]), len(seeds), len(steps))
    late = {"training": {22: 70, 30: 10_000}, "cnn": {3: 10_000}}.get(name, {})
    names = [lanes.SCHEMES[number] for number in settings["scheme"]]
    early = ("he_normal", "delta_orthogonal")
    when = [5.0 if n in early else late.get(d, 12) for n, d in zip(names, settings["depth"], strict=True)]
    curve = np.where(steps > np.asarray(when)[:, None, None], 0.95, 0.1) + 0.01 * rng.random(shape)
    if name.startswith("rates"):
        arms = [setting.arm for setting in study.selection(CONFIG)[name.removeprefix("rates_")]]
        right = np.isclose(settings["rate"], [BEST[arm] for arm in arms], rtol=1e-4)
        curve = curve * np.where(right, 1.0, 0.5)[:, None, None]
    lost = np.array([n == "standard_normal" for n in names])
    if name == "arms_residual":
        lost = np.array([n != "small_normal" for n in names])
    curves = {
        variable: np.where(lost[:, None, None], np.nan, 1 - curve) if variable.endswith("loss") else curve
        for variable in lanes.CURVES
    }
    found = {variable: (("setting", "seed", "step"), values) for variable, values in curves.items()}
    found["diverged"] = ("setting", "seed"), np.broadcast_to(lost[:, None], shape[:2])
    if name == "cnn":
        factor = np.array([0.5, 2.0, 0.6, 0.98])[:, None, None] ** -np.arange(CONFIG.cnn_depth)
        sizes = np.broadcast_to(1 / factor[:, :, ::-1], (*shape[:2], CONFIG.cnn_depth)) * (
            1 + 0.01 * rng.random((*shape[:2], 1))
        )
        found |= dict.fromkeys(("length", "delta", "saturated"), (("setting", "seed", "layer"), sizes))
    coords = {"setting": range(shape[0]), "seed": seeds, "step": steps}
    return xr.Dataset(found, {**coords, "layer": range(1, 4)} if name == "cnn" else coords)


@pytest.fixture(scope="module")
def simulation(data):
    """Panels of simulated sweeps, and which settings and seeds each was asked for."""
    asked = {}
    panels = study.panels(CONFIG, KEY, data, partial(simulated, asked=asked))
    return panels, asked


def test_rates_are_chosen_on_validation_data_and_other_seeds(simulation):
    panels, asked = simulation
    reported = {name: seeds for name, (_, seeds) in asked.items() if not name.startswith("rates")}
    chosen_on = {name: seeds for name, (_, seeds) in asked.items() if name.startswith("rates")}
    assert set(reported) == {"training", "arms_plain", "arms_batch_norm", "arms_residual", "cnn"}
    assert all(seeds == [0, 1] for seeds in chosen_on.values())
    assert not {seed for seeds in reported.values() for seed in seeds} & {0, 1}
    for name in chosen_on:
        starts = {lanes.SCHEMES[number] for number in asked[name][0]["scheme"]}
        assert starts == {"small_normal" if name == "rates_residual" else "he_normal"}
    np.testing.assert_allclose(panels["training"]["rate"].values, BEST["sgd"])
    for arm in lanes.ARMS:
        assert float(panels["arms"]["rate"].sel(arm=arm)) == pytest.approx(BEST[arm])
    assert int(panels["rates"]["chosen"].sum()) == len(CONFIG.depths) + len(lanes.ARMS)


def test_test_data_have_no_part_in_the_choice(simulation):
    rates = simulation[0]["rates"]
    spoiled = rates.copy()
    for name in ("test_accuracy", "test_loss", "train_accuracy", "train_loss"):
        spoiled[name] = xr.zeros_like(rates[name])
    assert study.choose(spoiled) == study.choose(rates)
    worse = rates.assign(validation_accuracy=-rates["validation_accuracy"])
    assert study.choose(worse) != study.choose(rates)


def test_every_panel_has_its_axes(simulation):
    panels, _ = simulation
    training, arms, cnn = (panels[name] for name in ("training", "arms", "cnn"))
    assert training["train_accuracy"].dims == ("depth", "scheme", "seed", "step")
    assert arms["train_accuracy"].dims == ("arm", "scheme", "seed", "step")
    assert cnn["delta"].dims == ("scheme", "seed", "layer")
    assert tuple(arms["arm"].values) == lanes.ARMS
    assert training.sizes == {"depth": 3, "scheme": 6, "seed": 3, "step": 7}
    # Settings came back to their own places.
    late = training["train_accuracy"].mean("seed").isel(step=-1)
    assert float(late.sel(depth=30, scheme="he_normal")) > 0.9
    assert float(late.sel(depth=30, scheme="xavier_normal")) < 0.2
    assert bool(arms["diverged"].sel(arm="residual", scheme="he_normal").all())
    assert not bool(arms["diverged"].sel(arm="lsuv").any())
    assert training.attrs["data"] == "digits"
    assert cnn.attrs["steps"] == CONFIG.cnn_steps


def test_plans_have_the_sweeps_that_run(data, simulation):
    assert set(study.sweeps(CONFIG, KEY, data)) == set(simulation[1])


# Figures and verdicts


@pytest.fixture(scope="module")
def tree(simulation):
    return xr.DataTree.from_dict(simulation[0])


def test_every_panel_has_a_figure(tree):
    found = figures.plot(tree)
    assert set(found) == {"training", "depth", "arms", "cnn"}
    words = [text.get_text() for text in found["training"].legends[0].get_texts()]
    assert "N(0, 1) (diverged)" in words
    assert "Xavier" in words
    for made in found.values():
        made.canvas.draw()


def test_verdicts_of_a_clear_case(tree):
    rows = reporting.rows(tree)
    said = {row.claim.split(": ", 1)[1]: row.verdict for row in rows}
    unclear = {claim: word for claim, word in said.items() if word != "holds"}
    # Adam's grid has but two rates, and pre-training's and LSUV's best ones are the ends of theirs.
    # And two depths at which both starts learn are too few for how the lead grows.
    assert [*unclear.values()] == ["open: 3 at an edge", "open"]
    assert "the deeper the net" in [*unclear][1]
    assert len(rows) == 14


def curves_of(tree, **changes):
    """The training panel with Xavier's training accuracy at some depths replaced."""
    training = tree["training"].to_dataset().copy(deep=True)
    for depth, values in changes.items():
        place = {"depth": int(depth[1:]), "scheme": "xavier_normal"}
        training["train_accuracy"].loc[place] = np.broadcast_to(values, training["train_accuracy"].loc[place].shape)
    return training


def test_a_stall_that_is_none_fails(tree):
    learns = curves_of(tree, d30=np.linspace(0.1, 1, 7))
    near, within, _ = reporting._stalling_rows(learns)
    assert within.verdict == "fails"
    assert within.measured.startswith("3 of 3")
    assert reporting._stalling_rows(curves_of(tree, d30=0.5))[0].verdict == "fails"
    mixed = np.array([[0.1], [0.1], [0.35]])
    assert reporting._stalling_rows(curves_of(tree, d30=mixed))[0].verdict == "open"
    assert near.tolerance == "interval at or below 0.2"


def test_he_earlier_needs_both_to_learn(tree):
    assert reporting._learnable_row(tree["training"].to_dataset()).verdict == "holds"
    assert reporting._learnable_row(curves_of(tree, d22=0.99)).verdict == "fails"
    stalled = reporting._learnable_row(curves_of(tree, d22=0.1))
    assert stalled.verdict != "holds"
    assert "0 of 3 seeds" in stalled.measured


def test_steps_to_a_level_and_leads():
    marks = np.array([0, 10, 100])
    accuracy = np.array([[0.1, 0.9, 0.5], [0.1, 0.2, 0.3], [0.9, 0.9, 0.9]])
    np.testing.assert_array_equal(reporting.steps_to(accuracy, marks), [10, np.inf, 0])
    np.testing.assert_array_equal(reporting.steps_to(np.full(3, np.nan), marks), np.inf)
    found = reporting.lead(np.array([10.0, 50.0]), np.array([40.0, np.inf]), 100)
    np.testing.assert_allclose(found, [2, 1])


def test_deepest_counts_no_depth_behind_a_gap(tree):
    training = tree["training"].to_dataset()
    assert reporting.deepest(training, "he_normal") == 30
    assert reporting.deepest(training, "xavier_normal") == 22
    assert reporting.deepest(curves_of(tree, d2=0.1), "xavier_normal") == 0


@pytest.mark.slow
def test_thirty_layers_on_digits():
    """The claim itself, small: at 30 ReLU layers He learns while Xavier does not, and at 10 both do."""
    config = Config(train_n=1000, validation_n=400, width=64, batch_size=64, depths=(10, 30), steps=400, seeds=5)
    data = study.examples(config, flat=True)
    rates = {10: 0.01, 30: 0.003}  # within what He's validation accuracy chose in trial runs
    schemes = ("xavier_normal", "he_normal")
    settings = [lanes.Setting("sgd", name, depth, rate) for depth, rate in rates.items() for name in schemes]
    call = study._sweep(config, "training", "sgd", settings, range(5), KEY, data)
    end = call()["train_accuracy"].isel(step=-1).transpose("setting", "seed").values
    found = {(s.scheme, s.depth): t_interval(values) for s, values in zip(settings, end, strict=True)}
    assert found["he_normal", 30].low > 0.7
    assert found["xavier_normal", 30].high < 0.35
    assert found["he_normal", 10].low > 0.95
    assert found["xavier_normal", 10].low > 0.85
