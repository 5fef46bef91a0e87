"""Genomes as lists of instructions: what they compute is what the nets compute."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from nnjax import activations, wann
from nnjax.wann.edges import ENABLED
from nnjax.wann.genome import NAMES, Genome, Space, from_dense
from nnjax.wann.phenotype import FAN_IN, activate, most_instructions, programs, run_instruction

SPACES = (
    Space(4, 2, 32),
    Space(1, 1, 9),
    Space(40, 3, 70),  # slots in three words
    Space(3, 2, 24, (*NAMES[2:], "leaky_relu", "swish")),
)
COUNT = 250  # nets of each
UNOPTIMIZED = {"xla_backend_optimization_level": 0}  # compiles several times faster
RATES = wann.Rates(0.4, 0.25, 0.15, 0.15, 0.05, 0.05)
WEIGHTS = np.asarray([-2, 0.5], np.float32)


@functools.cache
def _grown(space):
    """Nets of 0 to 99 random mutations; of the first tenth no gene is enabled, then there are ten full ones."""

    def grow(key, age):
        def step(number, genome):
            return wann.mutate(jax.random.fold_in(key, number), genome, space, RATES)

        return jax.lax.fori_loop(0, age, step, wann.minimal(key, space))

    keys = jax.random.split(jax.random.key(space.inputs), COUNT)
    grown = jax.jit(jax.vmap(grow), compiler_options=UNOPTIMIZED)
    nets = jax.tree.map(np.array, grown(keys, jnp.arange(COUNT) % 100))
    nothing, full = slice(0, COUNT // 10), slice(COUNT // 10, COUNT // 10 + 10)
    nets.connections[nothing] *= nets.connections[nothing] != ENABLED
    nets.connections[full] = _full(space).connections
    nets.hidden[full] = space.max_hidden
    nets.activations[full, 1 + space.inputs : space.first_output] = np.random.default_rng(0).choice(
        space.codes, (10, space.max_hidden)
    )
    wann.check(nets, space)
    return nets


_programs = jax.jit(programs, static_argnames="space", compiler_options=UNOPTIMIZED)
_listed = jax.jit(from_dense, static_argnames="space", compiler_options=UNOPTIMIZED)


def _full(space):
    connections = np.triu(np.full((space.max_nodes, space.max_nodes), ENABLED, np.int8), 1)
    connections[:, : 1 + space.inputs] = 0
    connections[space.first_output :] = 0
    return Genome(connections, np.zeros(space.max_nodes, np.int8), np.int32(space.max_hidden))


@functools.partial(jax.jit, static_argnames="space", compiler_options=UNOPTIMIZED)
def _run(population, space, shared, x, weights=None):
    """Outputs (n, lanes, outputs) for shared weights (lanes,) and x (n, lanes, inputs)."""
    made = programs(population, space, weights)
    rows, (nets, lanes, _) = 2 + space.inputs + most_instructions(space), x.shape
    # What stands in rows that are still to be written must not matter.
    values = jnp.full((rows, nets, lanes), jnp.nan, x.dtype).at[0].set(1).at[-1].set(0)
    values = values.at[1 : 1 + space.inputs].set(x.transpose(2, 0, 1))
    scale = jnp.broadcast_to(shared.astype(x.dtype), (nets, lanes))
    values = jax.lax.fori_loop(
        0, made.length.max(), lambda t, values: run_instruction(t, values, made, scale, space), values
    )
    return values[made.outputs, jnp.arange(nets)[None]].transpose(1, 2, 0)


FUNCTIONS = {
    "identity": lambda z: z,
    "step": lambda z: float(z > 0),
    "sin_pi": lambda z: np.sin(np.pi * np.remainder(z, 2)),
    "gaussian": lambda z: np.exp(-z * z / 2),
    "tanh": np.tanh,
    "logistic": special.expit,
    "inverse": lambda z: -z,
    "absolute": abs,
    "relu": lambda z: max(z, 0.0),
    "cos_pi": lambda z: np.cos(np.pi * np.remainder(z, 2)),
    "leaky_relu": lambda z: max(z, 0.01 * z),
    "swish": lambda z: z * special.expit(z),
}
# The steepest that each can be; a step is seen to apart.
SLOPES = dict.fromkeys(FUNCTIONS, 1.0) | {"sin_pi": np.pi, "cos_pi": np.pi, "step": 0.0, "swish": 1.1}


EXACT = {"identity", "step", "inverse", "absolute", "relu"}


def _recursive(genome, space, weights, x, unit=2.0**-24):
    """Outputs for x (inputs,), and how far off arithmetic with this rounding may lead, both (outputs,).

    A node's error is that of its sources, times their weights and the steepest slope, plus roundings: one a term
    of its sum, and a few of its own activation. A step may be off by 1 where its argument may have the other sign.
    """
    known = {0: (1.0, 0.0)} | {i: (float(v), 0.0) for i, v in enumerate(x, 1)}

    def value(node):
        if node not in known:
            sources = np.flatnonzero(genome.connections[:, node] == ENABLED)
            terms = [(weights[source, node], *value(source)) for source in sources]
            total = sum(weight * got for weight, got, _ in terms)
            error = sum(abs(weight) * off for weight, _, off in terms)
            error += (len(terms) + 2) * unit * sum(abs(weight * got) for weight, got, _ in terms)
            name = space.table[genome.activations[node]]
            after = SLOPES[name] * error + (0 if name in EXACT else 16 * unit)
            if name == "step" and error and abs(total) <= error:
                after = 1.0
            known[node] = FUNCTIONS[name](total), after
        return known[node]

    return np.transpose([value(node) for node in range(space.first_output, space.max_nodes)])


@functools.cache
def _cases(space, individual):
    """Inputs, weights or None, outputs and bounds of float32, the latter two (n, lanes, outputs)."""
    nets, rng = _grown(space), np.random.default_rng(1)
    x = rng.normal(size=(COUNT, len(WEIGHTS), space.inputs)).astype(np.float32)
    n = space.max_nodes
    weights = rng.uniform(-2, 2, (COUNT, n, n)).astype(np.float32) if individual else None
    expected = np.zeros((2, COUNT, len(WEIGHTS), space.outputs))
    for i in range(COUNT):
        genome = jax.tree.map(lambda leaf, i=i: leaf[i], nets)
        for lane, shared in enumerate(WEIGHTS):
            each = shared * (weights[i].astype(float) if individual else np.ones((n, n)))
            expected[:, i, lane] = _recursive(genome, space, each, x[i, lane])
    return x, weights, *expected


def test_the_nets_of_these_tests_are_of_all_kinds():
    for space in SPACES:
        nets = _grown(space)
        fan_in = (nets.connections == ENABLED).sum(1)
        assert nets.hidden.min() == 0
        assert nets.hidden.max() == space.max_hidden
        assert fan_in.max() >= (4 if space.inputs == 1 else 8) * FAN_IN // 2
        assert {*space.codes} <= {*np.unique(nets.activations)}


@pytest.mark.parametrize("individual", [False, True], ids=["shared", "individual"])
@pytest.mark.parametrize("space", SPACES, ids=lambda space: f"{space.inputs}-{space.outputs}-{space.max_nodes}")
def test_programs_compute_what_a_recursive_evaluation_does(space, individual):
    x, weights, expected, bound = _cases(space, individual)
    measured = np.asarray(_run(_grown(space), space, WEIGHTS, x, weights))
    assert measured.dtype == np.float32
    assert np.isfinite(measured).all()
    off = np.abs(measured - expected)
    assert (off <= bound).all()
    # And the bounds, of the worst case, say something; what most nets are off by is a few roundings.
    assert np.median(bound) < 5e-5
    assert (bound < 1e-3).mean() > 0.7
    assert (off <= 1e-5 * np.maximum(1, np.abs(expected))).mean() > 0.95


@pytest.mark.parametrize("individual", [False, True], ids=["shared", "individual"])
def test_programs_do_so_in_double_precision(individual):
    space = SPACES[0]
    x, weights, expected, bound = _cases(space, individual)
    with jax.enable_x64(True):
        wide = None if weights is None else weights.astype(float)
        measured = np.asarray(_run(_grown(space), space, WEIGHTS.astype(float), x.astype(float), wide))
        assert measured.dtype == np.float64
    right = np.abs(measured - expected) <= 1e-6 * bound + 1e-12
    assert right.mean() > 0.98, "but for steps at a tie"
    assert (right | (bound >= 0.1)).all()


@pytest.mark.parametrize("space", SPACES, ids=lambda space: f"{space.inputs}-{space.outputs}-{space.max_nodes}")
def test_a_node_takes_as_many_instructions_as_its_connections_need(space):
    nets = _grown(space)
    made = _programs(nets, space)
    fan_in = (nets.connections == ENABLED).sum(1)
    node = np.asarray(wann.alive(nets, space)) & (np.arange(space.max_nodes) > space.inputs)
    needed = np.where(node, 1 + np.ceil(np.maximum(fan_in - FAN_IN, 0) / (FAN_IN - 1)), 0).sum(1)
    np.testing.assert_array_equal(made.length, needed)
    assert made.codes.shape == (most_instructions(space), COUNT)
    # Only what stands before an instruction is read, or the row that stays 0.
    zero, own = 1 + space.inputs + most_instructions(space), 1 + space.inputs + np.arange(len(made.codes))
    sources, used = np.asarray(made.sources), np.arange(len(made.codes))[:, None] < np.asarray(made.length)
    assert ((sources < own[:, None, None]) | (sources == zero) | ~used[:, None]).all()
    assert (np.asarray(made.outputs) < zero).all()


@pytest.mark.parametrize("space", SPACES, ids=lambda space: f"{space.inputs}-{space.outputs}-{space.max_nodes}")
def test_the_largest_net_fills_the_list(space):
    one = jax.tree.map(lambda leaf: leaf[None], _full(space))
    assert _programs(one, space).length == most_instructions(space)


def test_nodes_without_connections_are_what_their_activation_is_of_zero():
    space = Space(2, 2, 8)
    nothing = Genome(np.zeros((1, 8, 8), np.int8), np.zeros((1, 8), np.int8), np.zeros(1, np.int32))
    nothing.activations[0, 6] = NAMES.index("gaussian")
    made = _programs(nothing, space)
    assert made.length == 2
    np.testing.assert_array_equal(_run(nothing, space, WEIGHTS, np.ones((1, 2, 2), np.float32)), [[[1, 0], [1, 0]]])


def test_lists_of_genes_make_the_same_programs():
    space = Space(4, 2, 32, edges=600)
    nets = _grown(SPACES[0])
    for listed, dense in zip(_programs(_listed(nets, space), space)[:2], _programs(nets, SPACES[0])[:2], strict=True):
        np.testing.assert_array_equal(listed, dense)


def test_what_overflows_elsewhere_does_not_reach_a_node_that_is_not_connected_to_it():
    space = Space(1, 2, 4)
    net = Genome(np.zeros((1, 4, 4), np.int8), np.zeros((1, 4), np.int8), np.zeros(1, np.int32))
    net.connections[0, [1, 0], [2, 3]] = ENABLED
    weights = np.ones((1, 4, 4), np.float32)
    for factors in (None, weights):
        measured = _run(net, space, WEIGHTS, np.full((1, 2, 1), np.inf, np.float32), factors)
        np.testing.assert_array_equal(measured, [[[-np.inf, -2], [np.inf, 0.5]]])


def test_activations_side_by_side_are_those_of_the_library():
    space = SPACES[3]
    x = np.concatenate([np.linspace(-6, 6, 4001), np.linspace(-2e4, 2e4, 2001), [0, -0.0, 1e30, -1e30]])
    x = x.astype(np.float32)
    codes = np.arange(len(space.table))
    with jax.numpy_rank_promotion("allow"):
        fast = np.asarray(jax.jit(functools.partial(activate, space=space))(codes[:, None], x[None]))
    with jax.enable_x64(True):
        for code, name in enumerate(space.table):
            right = np.asarray(activations.TABLE[name](x.astype(float)))
            assert fast[code].dtype == np.float32
            np.testing.assert_allclose(fast[code], right, rtol=1e-6, atol=1e-6, err_msg=name)


def test_activations_of_infinity_and_nan_are_those_of_the_library():
    space = SPACES[3]
    x = np.asarray([np.inf, -np.inf, np.nan], np.float32)
    for code, name in enumerate(space.table):
        right = activations.TABLE[name](x)
        fast = activate(np.asarray(code), x, space)
        np.testing.assert_array_equal(np.isnan(fast), np.isnan(right), err_msg=name)
        np.testing.assert_allclose(fast, right, rtol=1e-6, err_msg=name)
