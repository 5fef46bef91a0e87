"""What nets are worth: populations, single nets and single episodes agree with one another."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnjax import wann
from nnjax.wann import evaluation
from nnjax.wann.genome import NAMES, Space, from_dense
from nnjax.wann.rollout import Layout
from nnjax.wann.tasks import Regression, SwingUp, xor

TASK, SPACE = SwingUp(steps=25), Space(5, 1, 14)
BATCH, SMALL = xor(), Space(2, 1, 10)
WEIGHTS = (-2.0, 0.5, 1.0)
KEY = jax.random.key(7)


@pytest.fixture(scope="module", autouse=True)
def _compile_fast():
    """Compilation takes most of the time of these tests."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@functools.cache
def _nets(space, count=12):
    def grow(key, age):
        def step(number, genome):
            return wann.mutate(jax.random.fold_in(key, number), genome, space)

        return jax.lax.fori_loop(0, age, step, wann.minimal(key, space))

    grown = jax.jit(jax.vmap(grow), compiler_options={"xla_backend_optimization_level": 0})
    return jax.tree.map(np.asarray, grown(jax.random.split(jax.random.key(1), count), 2 * jnp.arange(count)))


def _one(population, i):
    return jax.tree.map(lambda leaf: leaf[i], population)


def _close(measured, expected):
    """All but those nets that are chaotic within so few steps, in single precision."""
    assert np.isclose(measured, expected, rtol=1e-3, atol=1e-3).mean() > 0.9
    np.testing.assert_allclose(np.median(np.abs(np.asarray(measured) - expected)), 0, atol=1e-4)


@pytest.fixture(scope="module")
def values():
    return np.asarray(wann.evaluate(_nets(SPACE), SPACE, TASK, WEIGHTS, KEY, repetitions=3))


def test_populations_nets_and_episodes_agree(values):
    assert values.shape == (12, 3)
    assert values.dtype == np.float32
    alone = [wann.returns(_one(_nets(SPACE), i), TASK, WEIGHTS, KEY, 3) for i in range(12)]
    assert alone[0].shape == (3, 3)
    _close(values, np.mean(alone, 2))
    keys = jax.random.split(KEY, 3)
    episodes = [
        [wann.trajectory(_one(_nets(SPACE), i), TASK, weight, key) for key in keys]
        for i in (0, 5)
        for weight in WEIGHTS
    ]
    sums = np.asarray([[one.rewards.sum() for one in row] for row in episodes])
    _close(sums.reshape(2, 3, 3), np.stack([alone[0], alone[5]]))


def test_a_trajectory_is_what_the_task_and_the_net_say():
    net = _one(_nets(SPACE), 11)
    one = wann.trajectory(net, TASK, 1.0, KEY, params=TASK.params._replace(limit=0.35))
    start = TASK.reset(TASK.params, KEY)
    for measured, expected in zip(one.states, start, strict=True):
        np.testing.assert_allclose(measured[0], expected, rtol=1e-6)
    assert one.actions.shape == (25, 1)
    np.testing.assert_allclose(one.observations[0], TASK.observe(TASK.params, start), rtol=1e-6)
    np.testing.assert_allclose(one.actions, wann.forward(net, SPACE, 1.0, one.observations), rtol=1e-4, atol=1e-5)
    assert one.alive[0]
    assert (np.diff(one.alive.astype(int)) <= 0).all()
    over = np.flatnonzero(np.abs(np.append(one.states.x[1:], 0)) > 0.35)
    if len(over):
        assert one.alive.sum() == over[0] + 1
    assert (np.asarray(one.rewards)[~np.asarray(one.alive)] == 0).all()


def test_slabs_and_layouts_give_the_same_numbers(values, monkeypatch):
    # Five slabs of three nets, the last one filled up.
    monkeypatch.setattr(evaluation, "_BUDGET", 2.5 * evaluation.most_instructions(SPACE) * 13)
    layout = Layout(4, 9)
    slabs = wann.evaluate(_nets(SPACE), SPACE, TASK, WEIGHTS, KEY, repetitions=3, layout=layout)
    _close(slabs, values)


def test_individual_weights_multiply_the_shared_one():
    factors = np.random.default_rng(0).normal(size=(12, 14, 14)).astype(np.float32)
    values = wann.evaluate(_nets(SPACE), SPACE, TASK, WEIGHTS, KEY, weights=factors)
    alone = [wann.returns(_one(_nets(SPACE), i), TASK, WEIGHTS, KEY, 1, weights=factors[i])[:, 0] for i in range(12)]
    _close(values, np.stack(alone))
    other = wann.returns(_one(_nets(SPACE), 6), TASK, WEIGHTS, KEY, 1, weights=np.ones((14, 14), np.float32))[:, 0]
    assert not np.allclose(other, alone[6], atol=1e-3)


def test_a_batch_task_under_shared_and_individual_weights():
    nets, factors = _nets(SMALL), np.random.default_rng(0).normal(size=(12, 10, 10)).astype(np.float32)

    @jax.jit
    @jax.vmap
    def plain(net, each):
        def one(weight):
            return BATCH.evaluate(BATCH.params, lambda x: wann.forward(net, SMALL, weight * each, x), KEY)

        return jax.vmap(one)(jnp.asarray(WEIGHTS))

    for weights in (None, factors):
        values = wann.evaluate(nets, SMALL, BATCH, WEIGHTS, KEY, repetitions=2, weights=weights)
        right = plain(nets, jnp.ones((12, 10, 10)) if weights is None else weights)
        np.testing.assert_allclose(values, right, rtol=1e-4, atol=1e-5)
        mine = None if weights is None else weights[11]
        alone = wann.returns(_one(nets, 11), BATCH, WEIGHTS, KEY, 2, weights=mine)
        np.testing.assert_allclose(alone, np.stack([right[11]] * 2, 1), rtol=1e-4, atol=1e-5)


def test_batches_are_drawn_with_a_key_each():
    task = Regression(size=8)
    space = Space(task.inputs, task.outputs, 6)
    net = wann.minimal(jax.random.key(0), space, 1.0)
    keys = jax.random.split(KEY, 3)
    plain = jax.jit(lambda key: task.evaluate(task.params, lambda x: wann.forward(net, space, 0.5, x), key))
    expected = [plain(key) for key in keys]
    np.testing.assert_allclose(wann.returns(net, task, [0.5], KEY, 3)[0], expected, rtol=1e-5)


def test_lists_of_genes_are_worth_the_same(values):
    space = Space(5, 1, 14, edges=120)
    listed = from_dense(_nets(SPACE), space)
    np.testing.assert_allclose(wann.evaluate(listed, space, TASK, WEIGHTS, KEY, repetitions=3), values, rtol=1e-5)
    assert evaluation.space_of(_one(listed, 5), TASK) == space


def test_one_program_serves_all_constants_keys_and_nets(values, caplog):
    heavy = TASK.params._replace(pole_mass=2.0)
    wann.evaluate(_nets(SPACE), SPACE, TASK, WEIGHTS, KEY, repetitions=3)
    with jax.log_compiles():
        again = wann.evaluate(_nets(SPACE), SPACE, TASK, WEIGHTS, KEY, repetitions=3)
        other = wann.evaluate(
            _nets(SPACE), SPACE, TASK, (1.0, 2.0, 3.0), jax.random.key(9), repetitions=3, params=heavy
        )
    assert not [text for text in caplog.messages if "ompiling" in text and "_evaluate" in text]
    np.testing.assert_array_equal(again, values)
    assert not np.allclose(other, values, atol=0.1)


def test_activations_of_the_task_s_own_are_known():
    class Mine(SwingUp):
        activations = ("leaky_relu", "tanh")

    task = Mine(steps=25)
    space = evaluation.space_of(_one(_nets(SPACE), 0), task)
    assert space == Space(5, 1, 14, ("leaky_relu", "tanh"))
    net = wann.minimal(KEY, space, 1.0)
    strange = net._replace(activations=net.activations.at[13].set(10))
    assert np.isfinite(wann.returns(strange, task, [1.0], KEY, 1)).all()
    with pytest.raises(ValueError, match="activations hold the code 10; expected 0 to 9"):
        wann.returns(strange, TASK, [1.0], KEY, 1)


def test_nets_of_other_activations_need_their_space():
    config = wann.Config(max_nodes=14, activations=("leaky_relu", "tanh"))
    space = config.space(TASK)
    net = wann.minimal(KEY, space, 1.0)
    net = net._replace(activations=net.activations.at[13].set(space.table.index("leaky_relu")))
    told = (r"activations hold the code 10; expected 0 to 9, those of SwingUp by default; pass space=, for a searched "
            r"net its config\.space\(task\)")  # fmt: skip
    for call in (
        lambda **space: wann.returns(net, TASK, [1.0], KEY, 2, **space).ravel(),
        lambda **space: wann.trajectory(net, TASK, 1.0, KEY, **space).rewards,
        lambda **space: wann.tune_shared(net, TASK, KEY, weights=2, episodes=1, **space).returns,
    ):
        with pytest.raises(ValueError, match=told):
            call()
        assert np.isfinite(call(space=space)).all()
    for task, nets in ((TASK, net), (BATCH, _one(_nets(SMALL), 3))):
        right = wann.Space(task.inputs, task.outputs, len(nets.activations), ("leaky_relu",))
        several = jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], nets)
        several = several._replace(activations=several.activations.at[0, -1].set(10))
        assert np.isfinite(wann.evaluate(several, right, task, [1.0], KEY)).all()
        with pytest.raises(ValueError, match="activations hold the code 10; expected 0 to 9"):
            wann.evaluate(several, dataclasses.replace(right, activations=NAMES), task, [1.0], KEY)


def test_traced_nets_are_of_the_space_that_they_are_said_to_be():
    net = _one(_nets(SPACE), 5)
    traced = jax.jit(lambda net: wann.returns(net, TASK, [1.0], KEY, 2))(net)
    np.testing.assert_allclose(traced, wann.returns(net, TASK, [1.0], KEY, 2), rtol=1e-4)
    several = jax.tree.map(lambda leaf: leaf[:3], _nets(SPACE))
    traced = jax.jit(lambda nets: wann.evaluate(nets, SPACE, TASK, [1.0], KEY))(several)
    np.testing.assert_allclose(traced, wann.evaluate(several, SPACE, TASK, [1.0], KEY), rtol=1e-4)


def test_what_does_not_fit_is_said_in_one_sentence():
    nets, net = _nets(SPACE), _one(_nets(SPACE), 0)
    evaluate = functools.partial(wann.evaluate, nets, SPACE, TASK)
    with pytest.raises(ValueError, match=r"shared_weights of shape \(0,\) must be \(W,\), at least one"):
        evaluate([], KEY)
    with pytest.raises(ValueError, match=r"shared_weights of shape \(\) must be"):
        evaluate(1.0, KEY)
    with pytest.raises(ValueError, match="repetitions=0 must be at least 1"):
        evaluate(WEIGHTS, KEY, repetitions=0)
    with pytest.raises(ValueError, match=r"weights of shape \(14, 14\) must be \(12, 14, 14\)"):
        evaluate(WEIGHTS, KEY, weights=np.ones((14, 14)))
    with pytest.raises(
        ValueError, match=r"connections of shape \(12, 14, 14\) must be \(12, 20, 20\) for max_nodes=20"
    ):
        wann.evaluate(nets, Space(5, 1, 20), TASK, WEIGHTS, KEY)
    with pytest.raises(ValueError, match=r"hidden of shape \(\) must be \(n,\): a population"):
        wann.evaluate(net, SPACE, TASK, WEIGHTS, KEY)
    with pytest.raises(ValueError, match="the space has 2 inputs and 1 outputs; task SwingUp has 5 and 1"):
        wann.evaluate(_nets(SMALL), SMALL, TASK, WEIGHTS, KEY)
    with pytest.raises(ValueError, match=r"hidden of shape \(12,\) must be \(\): one genome"):
        wann.returns(nets, TASK, WEIGHTS, KEY)
    with pytest.raises(ValueError, match="episodes=0 must be at least 1"):
        wann.returns(net, TASK, WEIGHTS, KEY, 0)
    with pytest.raises(ValueError, match="the genome does not fit task Wide: max_nodes=10 must lie between 17"):
        wann.returns(_one(_nets(SMALL), 0), _wide(), WEIGHTS, KEY)
    with pytest.raises(ValueError, match=r"weights of shape \(3, 3\) must be \(14, 14\)"):
        wann.returns(net, TASK, WEIGHTS, KEY, weights=np.ones((3, 3)))
    with pytest.raises(ValueError, match="task Boolean has no steps to follow"):
        wann.trajectory(_one(_nets(SMALL), 0), BATCH, 1.0, KEY)
    with pytest.raises(ValueError, match=r"hidden of shape \(12,\) must be \(\)"):
        wann.trajectory(nets, TASK, 1.0, KEY)
    with pytest.raises(ValueError, match="task object has no inputs"):
        wann.returns(net, object(), WEIGHTS, KEY)
    with pytest.raises(ValueError, match="runs on the host"):
        wann.returns(net, type("Robot", (SwingUp,), {"host": True})(), WEIGHTS, KEY)


def _wide():
    return type("Wide", (SwingUp,), {"inputs": 15, "observe": lambda self, params, state: jnp.zeros(15)})()


@pytest.mark.slow
def test_everything_works_in_double_precision():
    with jax.enable_x64(True):
        values = wann.evaluate(_nets(SPACE), SPACE, TASK, WEIGHTS, KEY)
        alone = wann.returns(_one(_nets(SPACE), 7), TASK, WEIGHTS, KEY, 1)
        assert values.dtype == alone.dtype == np.float64
        np.testing.assert_allclose(values[7], alone[:, 0], rtol=1e-9)
