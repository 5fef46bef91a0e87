"""Episodes of whole populations: the same as one episode after the other, however they are cut up."""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnjax import wann
from nnjax.wann.genome import ENABLED, Genome, Space
from nnjax.wann.phenotype import programs
from nnjax.wann.rollout import Layout, default_layout, rollout
from nnjax.wann.tasks import SwingUp


class _Constants(NamedTuple):
    limit: float = 2.0
    noise: float = 0.05


@dataclasses.dataclass(frozen=True)
class _Raft:
    """Two coordinates, a counter, a table and a random key: a state with leaves of several shapes."""

    steps: int = 37
    inputs, outputs, params = 3, 2, _Constants()

    def reset(self, params, key):
        place = jax.random.normal(key, (2,))
        return {"place": place, "path": jnp.zeros((3, 2)), "count": jnp.int32(0), "key": key}

    def observe(self, params, state):
        return jnp.append(state["place"], state["path"][0, 0])

    def step(self, params, state, action):
        key, now = jax.random.split(state["key"])
        push = jnp.clip(action, -1, 1) + params.noise * jax.random.normal(now, (2,))
        place = state["place"] + 0.2 * push
        path = jnp.concatenate([state["path"][1:], place[None]])
        after = {"place": place, "path": path, "count": state["count"] + 1, "key": key}
        return after, jnp.sum(place) + 0.01 * after["count"], jnp.abs(place).max() > params.limit


@dataclasses.dataclass(frozen=True)
class _Clock:
    """An episode of as many steps as its start says, each worth 1 and the last 100; one output is added."""

    steps: int = 20
    inputs, outputs, params = 1, 1, ()

    def reset(self, params, key):
        return jax.random.randint(key, (), 1, 30), 0.0  # a float of Python is an array, too

    def observe(self, params, state):
        return jnp.ones(1)

    def step(self, params, state, action):
        left, rest = state
        left = left - 1
        return (left, rest), jnp.where(left == 0, 100.0, 1.0) + action[0], left == 0


@functools.cache
def _nets(space, count=24):
    def grow(key, age):
        def step(number, genome):
            return wann.mutate(jax.random.fold_in(key, number), genome, space)

        return jax.lax.fori_loop(0, age, step, wann.minimal(key, space))

    grown = jax.jit(jax.vmap(grow), compiler_options={"xla_backend_optimization_level": 0})
    return jax.tree.map(np.asarray, grown(jax.random.split(jax.random.key(1), count), 2 * jnp.arange(count)))


def _starts(task, groups, repetitions):
    keys = jax.random.split(jax.random.key(2), (groups, repetitions))
    return jax.vmap(jax.vmap(lambda key: task.reset(task.params, key)))(keys)


UNOPTIMIZED = {"xla_backend_optimization_level": 0}  # compiles several times faster


@functools.partial(jax.jit, static_argnames=("space", "task", "layout"), compiler_options=UNOPTIMIZED)
def _fast(nets, space, task, weights, starts, group, layout=None, factors=None):
    return rollout(programs(nets, space, factors), space, task, task.params, weights, starts, group, layout)


@functools.partial(jax.jit, static_argnames=("space", "task"), compiler_options=UNOPTIMIZED)
def _plain(nets, space, task, weights, starts, group, factors=None):
    """Returns (n, W, R) and steps (n, W, R), step by step, the net in its reference form."""

    def episode(genome, weight, start):
        def one(carry, _):
            state, alive = carry
            action = wann.forward(genome, space, weight, task.observe(task.params, state))
            state, reward, done = task.step(task.params, state, action)
            return (state, alive & ~done), (jnp.where(alive, reward, 0), alive)

        rewards, alive = jax.lax.scan(one, (start, jnp.asarray(True)), None, task.steps)[1]
        return rewards.sum(), alive.sum()

    over_starts = jax.vmap(episode, (None, None, 0))
    over_weights = jax.vmap(over_starts, (None, 0, None))
    mine = jax.tree.map(lambda leaf: leaf[group], starts)
    each = jnp.broadcast_to(weights, (len(group), weights.shape[-1]))
    if factors is not None:
        each = each[:, :, None, None] * factors[:, None]
    return jax.vmap(over_weights)(nets, each, mine)


SPACE = Space(3, 2, 14)
WEIGHTS = np.asarray([-2, -0.5, 1])


@pytest.fixture(scope="module")
def plain():
    """Returns and steps of the nets, in double precision: 3 weights, 3 starts, in two groups."""
    nets, group = _nets(SPACE), np.arange(24) % 2
    with jax.enable_x64(True):
        return jax.tree.map(np.asarray, _plain(nets, SPACE, _Raft(), WEIGHTS, _starts(_Raft(), 2, 3), group))


def test_a_rollout_is_one_episode_after_the_other(plain):
    nets, group = _nets(SPACE), np.arange(24) % 2
    returns, steps = plain
    assert steps.min() < 10, "some end early"
    assert steps.max() == 37, "and some do not"
    with jax.enable_x64(True):
        measured, made = _fast(nets, SPACE, _Raft(), WEIGHTS, _starts(_Raft(), 2, 3), group, Layout(5, 7))
    assert measured.dtype == np.float64
    np.testing.assert_allclose(measured, returns, rtol=1e-7, atol=1e-7)
    np.testing.assert_array_equal(made, steps.sum((1, 2)))


def test_individual_weights_and_weights_of_a_net_s_own():
    nets, group, rng = _nets(SPACE), np.zeros(24, int), np.random.default_rng(0)
    factors, own = rng.normal(size=(24, 14, 14)), rng.uniform(-2, 2, (24, 2))
    with jax.enable_x64(True):
        starts = _starts(_Raft(), 1, 1)
        returns, steps = _plain(nets, SPACE, _Raft(), own, starts, group, factors)
        measured, made = _fast(nets, SPACE, _Raft(), own, starts, group, Layout(7, 10), factors)
    np.testing.assert_allclose(measured, returns, rtol=1e-7, atol=1e-7)
    np.testing.assert_array_equal(made, np.asarray(steps).sum((1, 2)))


def test_the_layout_and_other_lanes_change_nothing():
    nets, group = _nets(SPACE), np.arange(24) % 2
    starts, weights = _starts(_Raft(), 2, 3), WEIGHTS.astype(np.float32)
    whole, made = _fast(nets, SPACE, _Raft(), weights, starts, group)
    assert whole.dtype == np.float32
    returns, steps = _fast(nets, SPACE, _Raft(), weights, starts, group, Layout(10, 16))
    np.testing.assert_allclose(returns, whole, rtol=1e-5, atol=1e-4)
    np.testing.assert_array_equal(steps, made)
    few = jax.tree.map(lambda leaf: leaf[5:8], nets)
    first = jax.tree.map(lambda leaf: leaf[:, :1], starts)
    returns, _ = _fast(few, SPACE, _Raft(), weights[1:], first, group[5:8])
    np.testing.assert_allclose(returns, whole[5:8, 1:, :1], rtol=1e-5, atol=1e-4)


def test_swing_up_in_single_precision_for_as_long_as_chaos_has_no_time():
    task, space = SwingUp(steps=40), Space(5, 1, 16)
    nets, group, starts = _nets(space), np.zeros(24, int), _starts(SwingUp(), 1, 2)
    weights = np.asarray([-1, 0.5], np.float32)
    measured, made = _fast(nets, space, task, weights, starts, group)
    returns, steps = _plain(nets, space, task, weights, starts, group)
    close = np.isclose(measured, returns, rtol=1e-3, atol=1e-3)
    assert close.mean() > 0.9, "nets with steps and many waves are chaotic from the start"
    np.testing.assert_allclose(np.median(np.abs(measured - returns)), 0, atol=1e-4)
    np.testing.assert_array_equal(made, steps.sum((1, 2)))


@pytest.mark.parametrize("layout", [None, Layout(2, 3)], ids=str)
def test_the_step_that_ends_an_episode_counts_and_none_after_it(layout):
    task, space = _Clock(), Space(1, 1, 4)
    net = jax.tree.map(lambda leaf: leaf[None], wann.minimal(jax.random.key(0), space, 0.0))
    left, rest = _starts(task, 1, 21)
    assert left.min() < 20 < left.max()
    returns, steps = _fast(net, space, task, np.ones(1, np.float32), (left, rest), np.zeros(1, int), layout)
    made = np.minimum(left[0], 20)
    np.testing.assert_array_equal(returns[0, 0], made + 99 * (left[0] <= 20))
    np.testing.assert_array_equal(steps, [made.sum()])


def test_an_output_that_is_not_a_number_makes_a_return_that_is_none_and_ends_the_episode():
    task, space = _Clock(), Space(1, 1, 4)
    nets = Genome(np.zeros((2, 4, 4), np.int8), np.zeros((2, 4), np.int8), np.zeros(2, np.int32))
    nets.connections[:, 0, 3] = ENABLED
    factors = np.ones((2, 4, 4), np.float32)
    factors[1] = np.nan
    starts, group = (np.full((1, 2), 15), np.zeros((1, 2), np.float32)), np.zeros(2, int)
    returns, steps = _fast(nets, space, task, np.ones(1, np.float32), starts, group, Layout(1, 4), factors)
    np.testing.assert_array_equal(returns[0], [[15 + 99 + 15] * 2])
    assert np.isnan(returns[1]).all()
    np.testing.assert_array_equal(steps, [30, 2])


def test_infinite_rewards_do_not_hang():
    task, space = _Clock(), Space(1, 1, 4)
    net = jax.tree.map(lambda leaf: leaf[None], wann.minimal(jax.random.key(0), space, 1.0))
    starts = jnp.full((1, 21), 25), jnp.zeros((1, 21))
    returns, steps = _fast(net, space, task, np.full(1, np.inf, np.float32), starts, np.zeros(1, int))
    np.testing.assert_array_equal(returns, np.full((1, 1, 21), np.inf))
    assert steps == 20 * 21


def test_the_layout_by_default_fits_what_there_is():
    assert default_layout(3, 20) == Layout(3, 20)
    assert default_layout(1000, 1000) == Layout(48, 50)
