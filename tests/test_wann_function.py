"""A net as a function of its weights: against the reference forward pass, its gradient, and without empty slots."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nnjax.wann.function import as_function
from nnjax.wann.genome import (
    DISABLED,
    ENABLED,
    NAMES,
    Genome,
    Space,
    connection_count,
    forward,
    from_dense,
    minimal,
    resize,
)
from nnjax.wann.variation import Rates, mutate

SPACE = Space(3, 2, 24)
RATES = Rates(0.35, 0.35, 0.1, 0.2)


@pytest.fixture(scope="module")
def grown():
    """Four nets of 40 mutations."""

    def grow(key):
        first, rest = jax.random.split(key)
        keys = jax.random.split(rest, 40)
        return jax.lax.scan(lambda net, key: (mutate(key, net, SPACE, RATES), None), minimal(first, SPACE), keys)[0]

    nets = jax.jit(jax.vmap(grow), compiler_options=QUICK)(jax.random.split(jax.random.key(0), 4))
    return [jax.tree.map(lambda leaf, i=i: np.asarray(leaf[i]), nets) for i in range(4)]


X = np.random.default_rng(0).normal(size=(5, 3))
QUICK = {"xla_backend_optimization_level": 0}
REFERENCE = jax.jit(forward, static_argnums=1, compiler_options=QUICK)
CALL = jax.jit(lambda function, weights, x: function(weights, x), static_argnums=0, compiler_options=QUICK)


def test_it_is_the_reference_with_one_weight_and_with_many(grown):
    with jax.enable_x64(True):
        for number, net in enumerate(grown):
            weights = np.random.default_rng(number).normal(size=(24, 24))
            function, start, pairs = exported = as_function(net, SPACE, weights)
            assert len(start) == function.connections == int(connection_count(net)) > 8
            np.testing.assert_array_equal(net.connections[pairs[:, 0], pairs[:, 1]], ENABLED)
            expected = REFERENCE(net, SPACE, weights, X)
            assert np.abs(expected).max() > 0.1
            np.testing.assert_allclose(CALL(function, start, X), expected, rtol=1e-9, atol=1e-12)
            np.testing.assert_allclose(CALL(function, -1.5, X), REFERENCE(net, SPACE, -1.5, X), rtol=1e-9, atol=1e-12)
            np.testing.assert_allclose(CALL(function, start, X[0]), expected[0], rtol=1e-9, atol=1e-12)
            matrix = exported.matrix(start, 24)
            np.testing.assert_array_equal(matrix, np.where(net.connections == ENABLED, weights, 0))


def test_its_gradient_is_that_of_the_reference(grown):
    net = grown[0]
    with jax.enable_x64(True):
        function, start, pairs = as_function(net, SPACE, 0.7)

        def slopes(net):
            return jax.jit(jax.grad(lambda w, x: jnp.sum(net(w, x) ** 2), (0, 1)), compiler_options=QUICK)

        slope, at_x = slopes(function)(start, X)
        matrix, expected_at_x = slopes(functools.partial(forward, net, SPACE))(jnp.full((24, 24), 0.7), X)
        assert np.abs(slope).max() > 0.01
        np.testing.assert_allclose(slope, matrix[pairs[:, 0], pairs[:, 1]], rtol=1e-8, atol=1e-12)
        np.testing.assert_allclose(at_x, expected_at_x, rtol=1e-8, atol=1e-12)


def test_empty_slots_leave_no_trace(grown):
    """The same net with more slots, or as a list, is the same function, and shares its compiled program."""
    traces = 0

    def count(function, weights, x):
        nonlocal traces
        traces += 1
        return function(weights, x)

    run = jax.jit(count, static_argnums=0, compiler_options=QUICK)
    wide = dataclasses.replace(SPACE, max_nodes=30)
    listed = dataclasses.replace(SPACE, edges=120)
    versions = [
        as_function(grown[1], SPACE),
        as_function(resize(grown[1], SPACE, 30), wide),
        as_function(from_dense(grown[1], listed), listed),
    ]
    outputs = [run(version.function, version.weights, X) for version in versions]
    assert traces == 1
    for version, output in zip(versions, outputs, strict=True):
        assert version.function == versions[0].function
        np.testing.assert_array_equal(output, outputs[0])
    assert len({version.pairs.tobytes() for version in versions[:2]}) == 2  # the outputs have other slots
    assert as_function(grown[2], SPACE).function != versions[0].function


def test_only_its_own_sources_reach_a_node():
    """A node that overflows next to another one of its layer, one without connections, and an output without any."""
    space = Space(1, 2, 6, ("relu", "gaussian"))
    genes = np.zeros((6, 6), np.int8)
    genes[1, 2] = genes[2, 4] = ENABLED
    genes[3, 4] = DISABLED
    codes = np.array([0, 0, NAMES.index("relu"), NAMES.index("gaussian"), 0, 0], np.int8)
    net = Genome(genes, codes, np.int32(2))
    function, _, pairs = as_function(net, space)
    np.testing.assert_array_equal(pairs, [[1, 2], [2, 4]])
    x = np.array([[1e30], [-1.0]], np.float32)
    np.testing.assert_array_equal(function(1e10, x), [[np.inf, 0], [0, 0]])
    genes[3, 4], genes[2, 4], genes[3, 5], genes[2, 5] = ENABLED, ABSENT, DISABLED, ENABLED
    function, _, _ = as_function(net, space)
    np.testing.assert_array_equal(function(1e10, x), [[1e10, np.inf], [1e10, 0]])


ABSENT = 0


def test_it_can_be_trained_with_optax(grown):
    function, weights, _ = as_function(grown[3], SPACE, 0.5)
    goal = np.sin(X[:, :2])
    optimizer = optax.adam(0.02)

    def loss(weights):
        return jnp.mean((function(weights, X) - goal) ** 2)

    def step(carry, _):
        weights, state = carry
        value, slope = jax.value_and_grad(loss)(weights)
        updates, state = optimizer.update(slope, state)
        return (optax.apply_updates(weights, updates), state), value

    losses = jax.jit(lambda w: jax.lax.scan(step, (w, optimizer.init(w)), None, 200)[1])(weights)
    assert losses[-1] < 0.5 * losses[0]


def test_bad_input_is_refused_in_one_sentence(grown):
    function, weights, _ = as_function(grown[0], SPACE)
    both = jax.tree.map(lambda leaf: np.stack([leaf, leaf]), grown[0])
    for call, sentence in (
        (lambda: as_function(both, SPACE), "one genome, not a population"),
        (lambda: as_function(grown[0], Space(3, 2, 30)), "max_nodes=30"),
        (lambda: as_function(grown[0], SPACE, np.zeros(3)), r"weights have shape \(3,\)"),
        (lambda: function(weights, np.zeros((2, 4))), r"x has shape \(2, 4\)"),
        (lambda: function(weights[1:], X), "weights have shape"),
    ):
        with pytest.raises(ValueError, match=sentence):
            call()
