"""What every public part of `nnjax.train` promises, one by one: exact, jitted, vmapped, and bad input in a sentence."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nnjax import train
from nnjax.train import Config, Network, make_train

UNOPTIMIZED = {"xla_backend_optimization_level": 0}  # compiles several times faster
LINE = Network(  # y = w, whatever x
    init=lambda key, x: ({"w": jnp.zeros(())}, {"seen": jnp.zeros(())}),
    apply=lambda params, stats, x, *, key, train: (
        jnp.broadcast_to(params["w"], (len(x),)),
        {"seen": stats["seen"] + (len(x) if train else 0)},
    ),
)
X = np.zeros((4, 1), np.float32)
DATA = {"train": (X, np.ones(4, np.float32)), "validation": (X[:2], np.full(2, 0.5, np.float32))}
KEY = jax.random.key(0)


def _half_squared(prediction, target):
    return 0.5 * (prediction - target) ** 2


def _sgd(hparams):
    return optax.sgd(hparams["lr"])


def _made(**fields):
    return make_train(LINE, _half_squared, _sgd, Config(**{"steps": 6} | fields))


def _weight(steps, rate=0.5):
    """Gradient descent on (w - 1)^2 / 2 from 0 is 1 - (1 - rate)^steps."""
    return 1 - (1 - rate) ** steps


# The pieces of a run


@pytest.mark.parametrize(
    ("fields", "ticks", "steps"),
    [
        ({}, 6, (1, 2, 3, 4, 5, 6)),  # full batch: every update is an epoch
        ({"evaluate_every": 2}, 3, (2, 4, 6)),
        ({"evaluate_every": 4}, 3, (4, 6)),
        ({"evaluate_at": (0, 3)}, 2, (0, 3)),
        ({"evaluate_at": (2, 3, 6)}, 6, (2, 3, 6)),
        ({"steps": None, "epochs": 3, "batch_size": 2}, 3, (2, 4, 6)),
        ({"steps": None, "epochs": 2, "batch_size": 3, "remainder": "drop"}, 2, (1, 2)),
    ],
)
def test_a_run_has_the_pieces_and_evaluations_that_its_configuration_says(fields, ticks, steps):
    made = _made(**fields)
    assert made.ticks(DATA) == ticks
    assert made.evaluations(DATA) == steps


def test_pieces_of_a_run_are_pure_and_add_up_to_the_whole():
    made, hparams, traces = _made(evaluate_every=2), {"lr": jnp.float32(0.5)}, []

    def advance(state, hparams):
        traces.append(1)
        return made.advance(state, hparams, DATA, ticks=1)

    one = jax.jit(advance, compiler_options=UNOPTIMIZED)
    state = made.start(KEY, hparams, DATA)
    assert (int(state.step), int(state.evaluation), state.order) == (0, 0, None)
    assert set(state.history) == {"train_loss", "validation_loss", "running_loss"}
    assert all(np.isnan(line).all() and line.shape == (3,) for line in state.history.values())
    for piece in (1, 2, 3):
        before, state = state, one(state, hparams)
        assert (int(state.step), int(state.clock), int(state.evaluation)) == (2 * piece, 2 * piece, piece)
        np.testing.assert_allclose(state.params["w"], _weight(2 * piece), rtol=1e-6)
        assert int(before.step) == 2 * piece - 2, "the state handed over is left as it was"
    assert len(traces) == 1
    result = made.finish(state, DATA)
    whole = jax.jit(made, compiler_options=UNOPTIMIZED)(KEY, hparams, DATA)
    jax.tree.map(np.testing.assert_array_equal, result, whole)
    assert (int(result.step), int(result.last), bool(result.diverged)) == (6, 6, False)
    np.testing.assert_array_equal(result.history["step"], [2, 4, 6])
    expected = [0.5 * (0.5 - _weight(step)) ** 2 for step in (2, 4, 6)]
    np.testing.assert_allclose(result.history["validation_loss"], expected, rtol=1e-5)
    assert float(result.stats["seen"]) == 6 * 4, "statistics are of training alone"


def test_lanes_are_those_of_single_runs_and_share_a_program():
    made, traces = _made(batch_size=3), []

    def run(key, rate):
        traces.append(1)
        return made(key, {"lr": rate}, DATA)

    lanes = jax.jit(jax.vmap(run), compiler_options=UNOPTIMIZED)
    keys, rates = jax.random.split(KEY, 2), jnp.asarray([0.1, 0.5])
    found = lanes(keys, rates)
    lanes(keys[::-1], 2 * rates)
    assert len(traces) == 1
    for lane, rate in enumerate(rates):
        np.testing.assert_allclose(found.params["w"][lane], _weight(6, float(rate)), rtol=1e-5)
    with jax.enable_x64(True):
        wide = dataclasses.replace(made, network=LINE._replace(init=lambda key, x: ({"w": x.sum()}, {"seen": x.sum()})))
        data = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), DATA)
        shapes = jax.eval_shape(lambda: wide(KEY, {"lr": 0.1}, data))
        assert shapes.params["w"].dtype == shapes.history["train_loss"].dtype == jnp.float64


def test_the_best_evaluation_is_kept_with_its_score_and_age():
    # The validation target 0.5 is passed after the first step at this rate; later steps are worse.
    made, hparams = _made(evaluate_every=1, select="validation_loss", patience=2), {"lr": 0.5}
    state = made.advance(made.start(KEY, hparams, DATA), hparams, DATA, ticks=2)
    assert (int(state.best.step), int(state.best.since)) == (1, 1)
    assert float(state.best.score) == pytest.approx(0.0, abs=1e-12)
    assert float(state.best.params["w"]) == 0.5
    assert float(state.best.stats["seen"]) == 4
    assert not made.stopped(state)
    state = made.advance(state, hparams, DATA, ticks=1)
    assert made.stopped(state)
    later = made.advance(state, hparams, DATA, ticks=1)
    assert (int(later.clock), int(later.step)) == (4, 3), "only the clock goes on"
    assert float(later.params["w"]) == float(state.params["w"])
    assert not _made(evaluate_every=1, select="validation_loss").stopped(state), "without patience none is stopped"
    result = made.finish(later, DATA)
    assert (int(result.step), int(result.last), float(result.params["w"])) == (1, 3, 0.5)


# On the host


def test_fit_stops_computing_once_patience_has_ended_the_run():
    made, hparams, seen = _made(steps=20, evaluate_every=1, select="validation_loss", patience=2), {"lr": 0.5}, []
    result = train.fit(made, KEY, hparams, DATA, segments=20, on_segment=lambda state, done, total: seen.append(done))
    assert seen == [1, 2, 3]
    whole = jax.jit(made, compiler_options=UNOPTIMIZED)(KEY, hparams, DATA)
    jax.tree.map(np.testing.assert_array_equal, result, whole)


def test_fit_of_a_finished_run_computes_nothing(tmp_path):
    made, seen = _made(), []
    first = train.fit(made, KEY, {"lr": 0.5}, DATA, segments=2, checkpoint=tmp_path)
    again = train.fit(
        made, KEY, {"lr": 0.5}, DATA, segments=2, checkpoint=tmp_path, on_segment=lambda *_: seen.append(1)
    )
    assert not seen
    jax.tree.map(np.testing.assert_array_equal, first, again)
    assert float(first.params["w"]) == pytest.approx(_weight(6), rel=1e-6)


def test_predict_vmaps_and_compiles_once():
    network = Network(LINE.init, lambda params, stats, x, *, key, train: (params["w"] * x[:, 0], stats))
    x, traces = np.arange(5, dtype=np.float32)[:, None], []

    def outputs(weight, x):
        traces.append(1)
        return train.predict(network, {"w": weight}, {}, x, batch_size=2)

    lanes = jax.jit(jax.vmap(outputs, in_axes=(0, None)), compiler_options=UNOPTIMIZED)
    np.testing.assert_allclose(lanes(jnp.asarray([1.0, 3.0]), x), [[0, 1, 2, 3, 4], [0, 3, 6, 9, 12]])
    lanes(jnp.asarray([2.0, 4.0]), x + 1)
    assert len(traces) == 1


# Arguments


def test_spaced_steps_are_distinct_ascending_and_hit_both_ends():
    assert train.log_spaced_steps(100, 3) == (0, 1, 10, 100)
    assert train.log_spaced_steps(1000, 3, first=10) == (0, 10, 100, 1000)
    assert train.log_spaced_steps(3, 50) == (0, 1, 2, 3)
    assert Config(steps=100, evaluate_at=train.log_spaced_steps(100, 3)).evaluate_at == (0, 1, 10, 100)
    for steps, count, first in ((10, 1, 1), (10, 5, 11), (10, 5, 0)):
        with pytest.raises(ValueError, match=f"first={first}, steps={steps}, count={count}: need 1 <= first"):
            train.log_spaced_steps(steps, count, first=first)


def test_balanced_weights_make_every_class_count_the_same():
    y = np.array([0, 0, 0, 1, 1, 3])
    weights = train.balanced_class_weights(y, 4)
    assert weights == (0.5, 0.75, 0.0, 1.5)
    totals = np.bincount(y, weights=np.asarray(weights)[y], minlength=4)
    np.testing.assert_allclose(totals, [1.5, 1.5, 0, 1.5])
    for wrong, sentence in (
        ([0, 4], "label 4 is not one of the 4 classes 0 to 3"),
        ([-1], "label -1 is not one of the 4 classes"),
        ([0.5], "labels must be whole numbers, got float64"),
    ):
        with pytest.raises(ValueError, match=sentence):
            train.balanced_class_weights(wrong, 4)


def test_whole_numbers_of_numpy_become_plain_ones():
    config = Config(steps=np.int64(3), batch_size=np.int32(2))
    assert (type(config.steps), type(config.batch_size)) == (int, int)
    assert hash(config) == hash(Config(steps=3, batch_size=2))


def test_models_hold_arrays_as_they_were_and_facts(tmp_path):
    params = {"a": {"kernel": np.arange(6, dtype=np.float32).reshape(2, 3)}, "b": {}}
    train.save(tmp_path / "model.npz", params, {"mean": np.float64(0.5)}, {"classes": 3})
    saved = train.load(tmp_path / "model.npz")
    assert type(saved) is train.Saved
    np.testing.assert_array_equal(saved.params["a"]["kernel"], params["a"]["kernel"])
    assert saved.params["a"]["kernel"].dtype == np.float32
    assert (float(saved.stats["mean"]), saved.info) == (0.5, {"classes": 3})
    train.save(tmp_path / "bare.npz", params)
    assert train.load(tmp_path / "bare.npz").stats == {}
    assert train.load(tmp_path / "bare.npz").info == {}
