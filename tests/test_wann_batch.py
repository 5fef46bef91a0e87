"""Returns of populations on batch tasks against the reference forward pass, net by net."""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec

from nnjax import wann
from nnjax.wann.batch import _functions, evaluate_batch
from nnjax.wann.genome import DISABLED, ENABLED, NAMES, Genome, Space, from_dense
from nnjax.wann.variation import Rates

COUNT, EXAMPLES = 1000, 8
WEIGHTS = np.asarray([-2, -1, -0.5, 0.5, 1, 2])
# A step after a sum of exactly 0 is 1 or 0 by the order of the summands, so it has tests of its own.
SPACE = Space(4, 2, 32, activations=tuple(name for name in NAMES if name != "step"))
LISTS = dataclasses.replace(SPACE, edges=400)
UNOPTIMIZED = {"xla_backend_optimization_level": 0}  # compiles several times faster


class Params(NamedTuple):
    """Examples to draw from, and what their outputs are multiplied by."""

    x: np.ndarray
    factors: np.ndarray


@dataclasses.dataclass(frozen=True)
class Probe:
    """Returns the outputs for random examples, mixed by factors so that each of them shows."""

    inputs: int = 4
    outputs: int = 2
    params: tuple = ()

    def examples(self, params, key):
        return params.x[jax.random.choice(key, len(params.x), (EXAMPLES,), replace=False)]

    def evaluate(self, params, net, key):
        y = net(self.examples(params, key))
        return jnp.sum(jnp.where(params.factors == 0, 0, y) * params.factors)


def _params(dtype=np.float64, outputs=2):
    rng = np.random.default_rng(0)
    return Params(rng.normal(size=(100, 4)).astype(dtype), rng.normal(size=(EXAMPLES, outputs)).astype(dtype))


@pytest.fixture(scope="module")
def grown():
    """1000 nets of 0 to 99 mutations, as matrices and as lists."""
    rates = Rates(0.35, 0.3, 0.1, 0.2, 0.05, 0.05)

    def grow(key, age):
        def step(number, genome):
            return wann.mutate(jax.random.fold_in(key, number), genome, SPACE, rates)

        return jax.lax.fori_loop(0, age, step, wann.minimal(key, SPACE))

    keys = jax.random.split(jax.random.key(0), COUNT)
    nets = jax.tree.map(np.asarray, jax.jit(jax.vmap(grow))(keys, np.arange(COUNT) % 100))
    assert nets.hidden.max() == SPACE.max_hidden
    lists = jax.jit(functools.partial(from_dense, space=LISTS), compiler_options=UNOPTIMIZED)(nets)
    return {SPACE: nets, LISTS: jax.tree.map(np.asarray, lists)}


def _evaluate(population, params, key, space=SPACE, options=(("repetitions", 1),)):
    return evaluate_batch(population, space, Probe(), WEIGHTS, key, params=params, **dict(options))


optimized = jax.jit(_evaluate, static_argnames=("space", "options"))
evaluate = jax.jit(_evaluate, static_argnames=("space", "options"), compiler_options=UNOPTIMIZED)


def _reference(nets, params, key, space=SPACE):
    """(P, W) by the reference form, one net and weight after the other, for one key."""
    x = Probe().examples(params, key)

    def one(genome, weight):
        return jnp.sum(wann.forward(genome, space, weight, x) * params.factors)

    every = jax.jit(jax.vmap(jax.vmap(one, (None, 0)), (0, None)), compiler_options=UNOPTIMIZED)
    return np.asarray(every(nets, jnp.asarray(WEIGHTS, x.dtype)))


KEY = jax.random.key(3)


@pytest.fixture(scope="module")
def expected(grown):
    """What the reference form returns in double and in single precision."""
    key = jax.random.split(KEY, 1)[0]
    single = _reference(grown[SPACE], _params(np.float32), key)
    with jax.enable_x64(True):
        return _reference(grown[SPACE], _params(), key), single


@pytest.mark.parametrize("space", [SPACE, LISTS], ids=["matrices", "lists"])
def test_returns_are_those_of_the_reference_form(grown, expected, space):
    double, single = expected
    with jax.enable_x64(True):
        measured = np.asarray(evaluate(grown[space], _params(), KEY, space))
    assert measured.shape == (COUNT, 6)
    assert measured.dtype == np.float64
    assert len(np.unique(double)) > 5000
    np.testing.assert_allclose(measured, double, rtol=1e-9, atol=1e-9)
    # In float32 waves of large values lose digits, in the reference form as well: no more than there.
    measured = np.asarray(optimized(grown[space], _params(np.float32), KEY, space))
    assert measured.dtype == np.float32
    lost, lost_there = (np.sort(np.abs(x - double) / (1 + np.abs(double)), axis=None) for x in (measured, single))
    assert np.quantile(lost, 0.95) < 1e-5
    for share in (0.5, 0.9, 0.99, 0.999):
        assert np.quantile(lost, share) < 1e-6 + 1.5 * np.quantile(lost_there, share)


def _part(population, step):
    return jax.tree.map(lambda leaf: leaf[::step], population)


@pytest.mark.parametrize("space", [SPACE, LISTS], ids=["matrices", "lists"])
def test_nets_side_by_side_return_the_same(grown, space):
    nets = _part(grown[space], 37)  # 28 nets, no multiple of 8
    with jax.enable_x64(True):
        alone = evaluate(nets, _params(), KEY, space)
        np.testing.assert_allclose(evaluate(nets, _params(), KEY, space, (("chunk", 8),)), alone, rtol=1e-9, atol=1e-9)
        one = _part(grown[space], COUNT)
        np.testing.assert_array_equal(evaluate(one, _params(), KEY, space, (("chunk", 64),))[0], alone[0])


def test_a_return_is_the_mean_over_repetitions(grown):
    nets = _part(grown[LISTS], 37)
    with jax.enable_x64(True):
        measured = evaluate(nets, _params(), KEY, LISTS, (("repetitions", 3),))
        each = [_reference(_part(grown[SPACE], 37), _params(), key) for key in jax.random.split(KEY, 3)]
    assert np.abs(each[0] - each[1]).max() > 0.1
    np.testing.assert_allclose(measured, np.mean(each, 0), rtol=1e-9, atol=1e-9)


def test_steps_of_whole_numbers_are_exact():
    space = dataclasses.replace(LISTS, activations=("step", "identity", "relu", "absolute", "inverse"))

    @functools.partial(jax.jit, compiler_options=UNOPTIMIZED)
    def grow(key):
        nets = jax.vmap(functools.partial(wann.minimal, space=space))(jax.random.split(key, 100))
        rates = Rates(0.4, 0.4, 0.1, 0.1)
        return jax.lax.fori_loop(
            0, 40, lambda seed, nets: wann.mutate_population(jax.random.fold_in(key, seed), nets, space, rates), nets
        )

    nets = grow(jax.random.key(0))
    assert (np.asarray(nets.activations) == 1).sum() > 200
    rng = np.random.default_rng(1)
    with jax.enable_x64(True):
        x = rng.integers(-3, 4, (100, 4)).astype(float)
        params = Params(x, rng.integers(1, 9, (EXAMPLES, 2)).astype(float))
        measured = evaluate(nets, params, KEY, space)
        np.testing.assert_array_equal(measured, _reference(nets, params, jax.random.split(KEY, 1)[0], space))


def test_waves_are_right_far_out():
    x = np.r_[np.linspace(-3, 3, 1001), np.linspace(-900, 900, 1001), [0.5, 1e20, np.inf, np.nan]].astype(np.float32)
    for name in ("sin_pi", "cos_pi"):
        values = np.asarray(_functions(SPACE, np.dtype(np.float32))[SPACE.table.index(name)](x))
        wave = np.sin if name == "sin_pi" else np.cos
        np.testing.assert_allclose(values[:-3], wave(np.pi * np.fmod(x[:-3].astype(float), 2)), atol=1e-6)
        assert values[-3] == (name == "cos_pi")
        assert np.isnan(values[-2:]).all()


def test_a_net_that_overflows_is_alone_in_being_nan():
    space = Space(4, 2, 9)
    genes = np.zeros((9, 9), np.int8)
    genes[1, 5] = genes[5, 6] = genes[5, 7] = genes[0, 8] = ENABLED
    genes[6, 7] = DISABLED
    codes = np.zeros(9, np.int8)
    codes[6] = NAMES.index("inverse")
    both = genes.copy()
    both[6, 7] = ENABLED
    nets = Genome(np.stack([genes, both, genes]), np.stack([codes] * 3), np.full(3, 2, np.int32))
    wann.check(nets, space)
    params = Params(np.full((10, 4), 3e38, np.float32), np.full((EXAMPLES, 2), 1 / EXAMPLES, np.float32))
    # 2 x and -2 x overflow; where both genes are enabled and w = 2, infinity less infinity is NaN.
    measured = np.asarray(evaluate(nets, params, KEY, space))
    large = np.abs(WEIGHTS) >= 2
    assert (np.isnan(measured) == (np.asarray([False, True, False])[:, None] & (WEIGHTS == 2))).all()
    assert np.isinf(measured[::2, large]).all()
    np.testing.assert_array_equal(measured[0], measured[2])
    only = params._replace(factors=np.asarray([[0, 1]] * EXAMPLES, np.float32))
    np.testing.assert_array_equal(evaluate(nets, only, KEY, space), np.broadcast_to(EXAMPLES * WEIGHTS, (3, 6)))


@pytest.mark.parametrize("checked", [True, False])
def test_devices_share_a_population(grown, checked):
    nets = _part(grown[LISTS], 50)
    mesh = Mesh(np.asarray(jax.devices()[:2]), ("nets",))
    here, whole = PartitionSpec("nets"), PartitionSpec()

    def shard(population, params, key):
        return evaluate_batch(population, LISTS, Probe(), WEIGHTS, key, params=params)

    split = jax.jit(
        jax.shard_map(shard, mesh=mesh, in_specs=(here, whole, whole), out_specs=here, check_vma=checked),
        compiler_options=UNOPTIMIZED,
    )
    with jax.enable_x64(True):
        measured = split(nets, _params(), KEY)
        np.testing.assert_allclose(measured, evaluate(nets, _params(), KEY, LISTS), rtol=1e-9, atol=1e-9)


traces = []


@dataclasses.dataclass(frozen=True)
class Odd(Probe):
    """Calls the net twice, once from within a loop, and writes down that it was traced."""

    def evaluate(self, params, net, key):
        traces.append(1)
        x = self.examples(params, key)
        ones = jax.lax.map(lambda row: net(row[None])[0], x)
        return jnp.sum(jax.jit(net)(x) * params.factors) + jnp.max(jnp.abs(ones - net(x)))


def test_one_program_serves_nets_of_all_sizes_and_tasks_call_them_as_they_like(grown):
    def program(nets, params, weights):
        return evaluate_batch(nets, LISTS, Odd(), weights, KEY, params=params)

    program = jax.jit(program, compiler_options=UNOPTIMIZED)
    traces.clear()
    with jax.enable_x64(True):
        sizes = [jax.tree.map(lambda leaf, i=i: leaf[i : i + 10], grown[LISTS]) for i in (0, 40, 90)]
        assert [int(nets.hidden.max()) for nets in sizes] == sorted({int(nets.hidden.max()) for nets in sizes})
        for nets in sizes:
            measured = program(nets, _params(), WEIGHTS)
            np.testing.assert_allclose(measured, evaluate(nets, _params(), KEY, LISTS), rtol=1e-9, atol=1e-9)
    assert len(traces) == 1


def test_what_cannot_be_is_refused(grown):
    nets, params = grown[LISTS], _params()
    for options, message in (
        ({"task": object()}, "task object has no evaluate; expected a batch task"),
        ({"task": Probe(inputs=3)}, "the task has 3 inputs and 2 outputs, the space 4 and 2"),
        ({"shared_weights": 1.0}, r"shared_weights of shape \(\) must be \(W,\), at least one"),
        ({"shared_weights": []}, r"shared_weights of shape \(0,\)"),
        ({"repetitions": 0}, "repetitions=0 must be at least 1"),
        ({"chunk": 0}, "chunk=0 must be at least 1"),
    ):
        given = {"task": Probe(), "shared_weights": WEIGHTS, "params": params} | options
        with pytest.raises(ValueError, match=message):
            evaluate_batch(nets, LISTS, key=KEY, **given)
