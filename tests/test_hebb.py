"""Hebb's rule and its bounded forms against principal components."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.decomposition import PCA

from nnjax.classical import hebb
from nnjax.classical.hebb import Config, State, init, step, train

KEY = jax.random.key(0)
VARIANCES = np.array([4.0, 2.0, 1.0, 0.3, 0.1])


@pytest.fixture(scope="module")
def sample():
    """Centered patterns (400, 5) with well separated variances along turned axes, and their principal axes as rows."""
    rng = np.random.default_rng(0)
    turned = np.linalg.qr(rng.normal(size=(5, 5)))[0]
    x = rng.normal(size=(400, 5)) * np.sqrt(VARIANCES) @ turned
    x -= x.mean(axis=0)
    return x.astype(np.float32), PCA().fit(x).components_


def settled(rule, x, units, epochs=60):
    """Weights after a falling learning rate."""
    rates = 0.02 / (1 + 0.3 * np.arange(epochs))
    start = init(KEY, Config(x.shape[1], units))
    return train(start, x, KEY, epochs=epochs, learning_rate=rates, rule=rule)


def test_hebbs_rule_by_hand():
    """dw_ij = eta a_i o_j, with i the receiving unit, on axis 0."""
    change = hebb.change(np.array([1.0, -2.0]), np.array([3.0, 0.0, 5.0]), 0.1)
    np.testing.assert_allclose(change, [[0.3, 0, 0.5], [-0.6, 0, -1.0]], rtol=1e-6)
    several = hebb.change(np.array([[1.0, 0], [0, 2.0]]), np.array([[1.0, 1, 0], [0, 1, 1]]))
    np.testing.assert_array_equal(several, [[1, 1, 0], [0, 2, 2]])


def by_hand(rule, weights, output, eta):
    activation = weights @ output
    new = weights.copy()
    for i, a in enumerate(activation):
        for j, o in enumerate(output):
            taken = {
                "hebb": 0.0,
                "oja": a * weights[i, j],
                "sanger": sum(activation[k] * weights[k, j] for k in range(i + 1)),
                "subspace": sum(activation[k] * weights[k, j] for k in range(len(activation))),
            }[rule]
            new[i, j] += eta * a * (o - taken)
    return new


@pytest.mark.parametrize("rule", hebb.RULES)
def test_one_step_of_each_rule_is_its_formula(rule):
    rng = np.random.default_rng(1)
    weights, patterns = rng.normal(size=(3, 4)), rng.normal(size=(2, 4))
    with jax.enable_x64(True):
        state, info = step(State(weights), patterns, learning_rate=0.1, rule=rule)
        once = by_hand(rule, weights, patterns[0], 0.1)
        np.testing.assert_allclose(state.weights, by_hand(rule, once, patterns[1], 0.1), rtol=1e-12)
        np.testing.assert_allclose(info.activations, [weights @ patterns[0], once @ patterns[1]], rtol=1e-12)
        single, _ = step(State(weights), patterns[0], learning_rate=0.1, rule=rule)
        np.testing.assert_allclose(single.weights, once, rtol=1e-12)


def test_plain_hebb_is_the_outer_product_of_activity():
    rng = np.random.default_rng(1)
    weights, pattern = rng.normal(size=(3, 4)), rng.normal(size=4)
    with jax.enable_x64(True):
        state, info = step(State(weights), pattern, learning_rate=0.1, rule="hebb")
        np.testing.assert_allclose(state.weights - weights, hebb.change(info.activations[0], pattern, 0.1), rtol=1e-12)


def test_oja_finds_the_first_principal_component(sample):
    x, components = sample
    weights = settled("oja", x, 1).state.weights[0]
    assert abs(weights @ components[0]) > 0.999
    np.testing.assert_allclose(jnp.linalg.norm(weights), 1, atol=0.02)
    explained = np.var(x @ weights) / np.linalg.norm(weights) ** 2
    np.testing.assert_allclose(explained, np.var(x @ components[0]), rtol=2e-3)


def test_sanger_finds_the_components_in_order(sample):
    x, components = sample
    weights = settled("sanger", x, 3).state.weights
    overlap = np.abs(np.asarray(weights @ components[:3].T))
    np.testing.assert_allclose(overlap, np.eye(3), atol=0.05)
    assert (np.diag(overlap) > 0.99).all()


def test_subspace_spans_the_components_but_need_not_be_them(sample):
    x, components = sample
    weights = np.asarray(settled("subspace", x, 3).state.weights)
    np.testing.assert_allclose(weights @ weights.T, np.eye(3), atol=0.05)
    cosines = np.linalg.svd(np.linalg.qr(weights.T)[0].T @ components[:3].T, compute_uv=False)
    assert cosines.min() > 0.99


def test_plain_hebb_grows_without_bound_as_the_largest_eigenvalue_says(sample):
    x, _ = sample
    eta, epochs = 2e-4, 60
    result = train(init(KEY, Config(5)), x, epochs=epochs, learning_rate=eta, rule="hebb")
    lengths = np.linalg.norm(result.weights[:, 0], axis=1)
    assert (np.diff(lengths) > 0).all()
    assert lengths[-1] > 1e3
    growth = np.log(lengths[-1] / lengths[-11]) / 10 / len(x)
    largest = np.linalg.eigvalsh(x.T @ x / len(x))[-1]
    np.testing.assert_allclose(growth, eta * largest, rtol=0.01)
    burst = train(init(KEY, Config(5)), x, epochs=epochs, learning_rate=0.01, rule="hebb")
    assert not np.isfinite(burst.state.weights).all()
    assert not burst.converged


def test_the_flow_solves_ojas_differential_equation(sample):
    x, components = sample
    with jax.enable_x64(True):
        covariance = x.T.astype(float) @ x / len(x)
        start = 0.3 * components[2] + 0.1 * components[0] + 0.2 * components[4]
        times = np.array([0.0, 0.5, 2.0, 200.0])
        flow = hebb.oja_flow(start, covariance, times)
        np.testing.assert_allclose(flow[0], start, atol=1e-12)
        np.testing.assert_allclose(flow[-1], components[0], atol=1e-6)

        def euler(_, w):
            change = covariance @ w - (w @ covariance @ w) * w
            return w + 1e-4 * change

        np.testing.assert_allclose(jax.lax.fori_loop(0, 5000, euler, start), flow[1], atol=3e-4)
        np.testing.assert_allclose(jax.lax.fori_loop(0, 20_000, euler, start), flow[2], atol=3e-4)


def test_the_mean_of_ojas_rule_follows_the_flow(sample):
    """At a small learning rate, over the same time, the rule is the flow up to O(eta)."""
    x, components = sample
    start = np.asarray(0.8 * components[1] + 0.6 * components[0], np.float32)
    covariance = x.T @ x / len(x)
    paths = jax.vmap(lambda key: train(State(start[None]), x, key, epochs=10, learning_rate=2e-4).weights[:, 0])
    measured = np.mean(paths(jax.random.split(KEY, 20)), axis=0)
    times = 2e-4 * len(x) * np.arange(1, 11)
    np.testing.assert_allclose(measured, hebb.oja_flow(start, covariance, times), atol=0.02)


def test_converged_when_the_weights_stand_still(sample):
    x, _ = sample
    start = init(KEY, Config(5))
    assert train(start, x, epochs=20, learning_rate=0.01).converged  # in a fixed order, to one place at every end
    assert not train(start, x, epochs=1, learning_rate=0.01).converged
    assert not train(start, x, KEY, epochs=20, learning_rate=0.01).converged


@pytest.mark.parametrize("rule", hebb.RULES)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_jit_vmap_dtype_and_one_compilation(sample, rule, dtype):
    with jax.enable_x64(True):
        x = np.asarray(sample[0][:30], dtype)
        start = init(KEY, Config(5, 2), dtype)
        traces = []

        @jax.jit
        @jax.vmap
        def learn(rate):
            traces.append(1)
            return train(start, x, epochs=2, learning_rate=rate, rule=rule)

        lanes = learn(jnp.array([0.01, 0.02]))
        learn(jnp.array([0.03, 0.04]))
        assert len(traces) == 1
        single = train(start, x, epochs=2, learning_rate=0.02, rule=rule)
        assert single.state.weights.dtype == lanes.weights.dtype == dtype
        np.testing.assert_allclose(lanes.weights[1], single.weights, rtol=2e-5, atol=1e-6)
        compiled = hebb._train._cache_size()
        train(start, 2 * x, epochs=2, learning_rate=0.01, rule=rule)
        assert hebb._train._cache_size() == compiled


def test_starts_have_their_length_and_depend_on_the_key():
    starts = jax.vmap(lambda key: init(key, Config(5, 2, length=0.5)).weights)(jax.random.split(KEY, 3))
    np.testing.assert_allclose(np.linalg.norm(starts, axis=-1), 0.5, rtol=1e-5)
    assert not np.allclose(starts[0], starts[1])


def test_bad_input_is_named(sample):
    x, _ = sample
    start = init(KEY, Config(5))
    with pytest.raises(ValueError, match=r"rule 'ojja' is not one of .* did you mean 'oja'"):
        step(start, x, rule="ojja")
    with pytest.raises(ValueError, match=r"batch has shape \(400, 4\); the weights take \(n, 5\)"):
        train(start, x[:, :4], epochs=1)
    with pytest.raises(ValueError, match=r"weights has shape \(5,\)"):
        step(State(jnp.ones(5)), x)
    with pytest.raises(ValueError, match=r"learning_rate has shape \(3,\); expected \(\) or \(2,\)"):
        train(start, x, epochs=2, learning_rate=np.ones(3))
    with pytest.raises(ValueError, match="epochs=0"):
        train(start, x, epochs=0)
    with pytest.raises(ValueError, match=r"activation \(2, 3\) and output \(4, 3\)"):
        hebb.change(np.ones((2, 3)), np.ones((4, 3)))
    with pytest.raises(ValueError, match=r"must be \(d,\) and \(d, d\)"):
        hebb.oja_flow(np.ones(3), np.eye(4), 1.0)
    for changes in ({"inputs": 0}, {"units": 0}, {"length": 0.0}):
        ((name, value),) = changes.items()
        with pytest.raises(ValueError, match=f"{name}={value}"):
            Config(**{"inputs": 3} | changes)


def test_integer_weights_learn():
    state, _ = step(State(np.array([[1, 0]])), np.array([0.5, 1.0]), learning_rate=0.1, rule="hebb")
    np.testing.assert_allclose(state.weights, [[1.025, 0.05]], rtol=1e-6)
    flowed = hebb.oja_flow(np.array([1, 0]), np.array([[1, 0], [0, 2]]), 0.5)
    np.testing.assert_allclose(flowed, [1.0, 0.0], atol=1e-6)
