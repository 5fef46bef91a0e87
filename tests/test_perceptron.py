"""The perceptron against hand-computed tables, scikit-learn, and the theorems about it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import linprog, minimize
from sklearn.linear_model import Perceptron

from nnjax.classical import mcculloch_pitts, perceptron
from nnjax.classical.mcculloch_pitts import all_inputs, always_on
from nnjax.classical.perceptron import Config, State, init, step, train

KEY = jax.random.key(0)
AND, OR, XOR = [0, 0, 0, 1], [0, 1, 1, 1], [0, 1, 1, 0]


def zeros(*shape):
    return State(jnp.zeros(shape))


def tables(n):
    """Every truth table of n inputs, (2^2^n, 2^n)."""
    return np.arange(2 ** (2**n))[:, None] >> np.arange(2**n)[None, :] & 1


@pytest.fixture(scope="module")
def three_inputs():
    """All 256 functions of three inputs learned in one compiled call."""
    x, wanted = always_on(all_inputs(3)), tables(3)
    learn = jax.jit(jax.vmap(lambda target: train(zeros(4), (x, target), epochs=40)))
    return x, wanted, jax.tree.map(np.asarray, learn(wanted))


# (strict, truth table): epochs to the first without error, updates, final weights (bias first). By hand, pattern order
# 00, 01, 10, 11, learning rate 1, zero start.
TABLES = {
    (False, "and"): (6, 11, [-3, 2, 1]),
    (False, "or"): (4, 5, [-1, 1, 1]),
    (True, "and"): (6, 10, [-2, 2, 1]),
    (True, "or"): (4, 4, [0, 1, 1]),
}


@pytest.mark.parametrize(("strict", "name"), TABLES)
def test_and_and_or_by_hand(strict, name):
    epochs, updates, weights = TABLES[strict, name]
    target = {"and": AND, "or": OR}[name]
    result = train(init(KEY, Config(3)), (always_on(all_inputs(2)), target), epochs=10, strict=strict)
    assert result.converged
    assert (result.epochs, result.updates) == (epochs, updates)
    assert result.state.weights.tolist() == weights
    assert result.errors[epochs - 2] > 0
    assert not result.errors[epochs - 1 :].any()
    assert not result.repeats
    np.testing.assert_array_equal(
        perceptron.predict(result.state, always_on(all_inputs(2)), strict=strict), np.array(target)
    )


@pytest.mark.parametrize(("strict", "fixed"), [(False, [0, -1, 0]), (True, [1, -1, 0])])
def test_xor_never_converges_and_says_so(strict, fixed):
    result = train(zeros(3), (always_on(all_inputs(2)), XOR), epochs=30, strict=strict)
    assert not result.converged
    assert result.repeats
    assert result.epochs == 30
    assert result.errors.min() > 0
    np.testing.assert_array_equal(result.weights[-20:], np.tile(fixed, (20, 1)))


def test_the_delta_rule_with_a_threshold_of_one_half():
    options = {"learning_rate": 0.2, "threshold": 0.5}
    state, seen = zeros(2), []
    for _ in range(3):
        state, info = step(state, (np.array([1, 1]), np.array(1)), **options)
        seen.append(state.weights)
    np.testing.assert_allclose(seen, [[0.2, 0.2], [0.4, 0.4], [0.4, 0.4]], rtol=1e-6)
    assert info.errors == 0
    for target, converges in ((AND, True), (OR, True), (XOR, False)):
        result = train(zeros(2), (all_inputs(2), target), epochs=50, record=True, **options)
        assert result.converged == converges
        assert result.patterns.shape == (50, 4, 2)
        np.testing.assert_array_equal(result.patterns[:, -1], result.weights)
        if converges:
            assert result.epochs < 10
            np.testing.assert_array_equal(perceptron.predict(result.state, all_inputs(2), threshold=0.5), target)
    with_and = State(jnp.array([0.4, 0.4]))
    np.testing.assert_array_equal(perceptron.predict(with_and, all_inputs(2), threshold=0.5), AND)


def test_one_epoch_is_its_patterns_one_by_one():
    rng = np.random.default_rng(0)
    x, target = rng.normal(size=(20, 5)).astype(np.float32), rng.integers(0, 2, (20, 3))
    whole, info = step(zeros(5, 3), (x, target), learning_rate=0.3, threshold=0.1)
    state, outputs, errors = zeros(5, 3), [], 0
    for pattern, wanted in zip(x, target, strict=True):
        state, one = step(state, (pattern, wanted), learning_rate=0.3, threshold=0.1)
        outputs.append(one.outputs[0])
        errors += one.errors
    np.testing.assert_allclose(whole.weights, state.weights, rtol=1e-6)
    np.testing.assert_array_equal(info.outputs, outputs)
    assert info.errors == errors > 0
    result = train(zeros(5, 3), (x, target), epochs=2, learning_rate=0.3, threshold=0.1, record=True)
    np.testing.assert_allclose(result.weights[0], whole.weights, rtol=1e-6)
    assert result.patterns.shape == (2, 20, 5, 3)


def test_units_side_by_side_learn_by_themselves():
    rng = np.random.default_rng(1)
    x, target = rng.normal(size=(30, 4)), rng.integers(0, 2, (30, 3))
    together = train(zeros(4, 3), (x, target), epochs=5)
    for unit in range(3):
        alone = train(zeros(4), (x, target[:, unit]), epochs=5)
        np.testing.assert_allclose(together.weights[..., unit], alone.weights, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_scikit_learns_perceptron_takes_the_same_path(seed):
    """The same order and start; real inputs and a random start leave no net input at zero, where conventions differ."""
    rng = np.random.default_rng(seed)
    with jax.enable_x64(True):
        x, target = rng.normal(size=(60, 4)), rng.integers(0, 2, 60)
        start = rng.normal(size=5)
        ours = train(State(start), (always_on(x), target), epochs=7, learning_rate=0.5)
        theirs = Perceptron(eta0=0.5, shuffle=False, tol=None, max_iter=7)
        theirs.fit(x, target, coef_init=start[None, 1:], intercept_init=start[:1])
        np.testing.assert_allclose(ours.state.weights[0], theirs.intercept_[0], atol=1e-10)
        np.testing.assert_allclose(ours.state.weights[1:], theirs.coef_[0], atol=1e-10)
        assert ours.updates > 20


def test_the_bound_on_updates_is_computed_from_the_largest_margin():
    x = always_on(all_inputs(2))
    for target, expected in ((AND, 51.0), (OR, 27.0)):
        weights = perceptron.maximum_margin(x, np.array(target))
        np.testing.assert_allclose(perceptron.bound(x, np.array(target), weights), expected, rtol=1e-4)
        # worse weights give a looser bound
        assert perceptron.bound(x, np.array(target), weights + jnp.array([0, 0.3, 0])) > expected * 1.05
    weights = perceptron.maximum_margin(x, np.array(XOR))
    assert np.isfinite(weights).all()
    assert perceptron.bound(x, np.array(XOR), weights) == np.inf


def shortest(x, target):
    """Squared length of the shortest w with (2 t - 1) x w >= 1, by sequential quadratic programming."""
    signed = x * (2 * target - 1)[:, None]
    sides = {"type": "ineq", "fun": lambda w: signed @ w - 1, "jac": lambda w: signed}
    found = minimize(lambda w: w @ w, signed.sum(0), jac=lambda w: 2 * w, constraints=sides, method="SLSQP")
    return found.fun


def test_margins_are_those_of_another_solver(three_inputs):
    x, wanted, found = three_inputs
    separable = wanted[found.converged]
    with jax.enable_x64(True):
        x = np.asarray(x, np.float64)
        weights = jax.jit(jax.vmap(perceptron.maximum_margin, in_axes=(None, 0)))(x, separable)
        bounds = np.asarray(jax.vmap(perceptron.bound, in_axes=(None, 0, 0))(x, separable, weights))
    expected = [4 * shortest(x, target) for target in separable]
    np.testing.assert_allclose(bounds, expected, rtol=1e-6)
    assert (found.updates[found.converged] <= bounds).all()


def separable(x, target):
    """Whether some weights put every pattern on its side, by linear programming."""
    signed = x * (2 * target - 1)[:, None]
    return linprog(np.zeros(x.shape[1]), -signed, -np.ones(len(x)), bounds=(None, None)).status == 0


@pytest.mark.parametrize(("n", "count"), [(1, 4), (2, 14)])
def test_what_can_be_learned_of_one_and_two_inputs(n, count):
    x, wanted = always_on(all_inputs(n)), tables(n)
    found = jax.vmap(lambda target: train(zeros(n + 1), (x, target), epochs=20))(wanted)
    assert found.converged.sum() == count
    np.testing.assert_array_equal(found.converged, [separable(np.asarray(x), target) for target in wanted])


def test_what_can_be_learned_of_three_inputs(three_inputs):
    """104 of 256 functions are linearly separable; the others' weights run in circles, which proves it."""
    x, wanted, found = three_inputs
    assert found.converged.sum() == 104
    np.testing.assert_array_equal(found.converged, [separable(np.asarray(x), target) for target in wanted])
    np.testing.assert_array_equal(found.repeats, ~found.converged)


def test_blobs_are_classified_one_unit_a_class():
    rng = np.random.default_rng(0)
    centers = 6 * np.eye(4)[:, :4]
    labels = rng.integers(0, 4, 120)
    x = always_on(centers[labels] + rng.normal(size=(120, 4)))
    result = train(zeros(5, 4), (x, np.eye(4)[labels]), KEY, epochs=20)
    assert np.mean(perceptron.classify(result.state, x) == labels) > 0.97


def test_random_orders_depend_on_the_key_alone():
    rng = np.random.default_rng(0)
    x, target = rng.normal(size=(30, 4)), rng.integers(0, 2, 30)
    first, again = (train(zeros(4), (x, target), KEY, epochs=3).weights for _ in range(2))
    np.testing.assert_array_equal(first, again)
    other = train(zeros(4), (x, target), jax.random.key(1), epochs=3).weights
    assert not np.allclose(first, other)
    shuffled, _ = step(zeros(4), (x, target), jax.random.fold_in(KEY, 0))
    np.testing.assert_allclose(first[0], shuffled.weights, rtol=1e-6)
    assert not train(zeros(3), (always_on(all_inputs(2)), XOR), KEY, epochs=30).repeats


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_jit_vmap_dtype_and_one_compilation(dtype):
    with jax.enable_x64(True):
        x, target = np.asarray(always_on(all_inputs(2)), dtype), np.array(AND)
        traces = []

        start = init(KEY, Config(3, scale=0.1), dtype)

        @jax.jit
        @jax.vmap
        def learn(rate, threshold):
            traces.append(1)
            return train(start, (x, target), epochs=30, learning_rate=rate, threshold=threshold)

        lanes = learn(jnp.array([0.5, 0.7]), jnp.array([0.1, 0.2]))
        learn(jnp.array([0.6, 0.8]), jnp.array([0.0, 0.3]))
        assert len(traces) == 1
        single = train(start, (x, target), epochs=30, learning_rate=0.7, threshold=0.2)
        assert single.state.weights.dtype == lanes.weights.dtype == dtype
        assert single.converged
        np.testing.assert_allclose(lanes.weights[1], single.weights, rtol=1e-5, atol=1e-6)
        compiled = perceptron._train._cache_size()
        train(start, (x, OR), epochs=30, learning_rate=0.1, threshold=0.0)
        assert perceptron._train._cache_size() == compiled
        state, info = step(start, (x, target))
        assert state.weights.dtype == info.outputs.dtype == dtype


def test_seeds_side_by_side():
    x = always_on(all_inputs(2))
    keys = jax.random.split(KEY, 3)
    starts = jax.vmap(lambda key: init(key, Config(3, scale=1.0)))(keys)
    lanes = jax.vmap(lambda key, start: train(start, (x, np.array(AND)), key, epochs=30))(keys, starts)
    assert lanes.converged.all()
    assert len(np.unique(lanes.weights[:, -1], axis=0)) == 3


def test_bad_input_is_named():
    x = np.ones((4, 3))
    bad = {
        r"x has shape \(4, 3\); the weights take \(n, 2\)": (zeros(2), (x, AND)),
        r"target has shape \(3,\); for x \(4, 3\) it must be \(4,\)": (zeros(3), (x, [0, 1, 1])),
        r"it must be \(4, 2\)": (zeros(3, 2), (x, AND)),
        r"weights has shape \(3, 2, 2\)": (zeros(3, 2, 2), (x, AND)),
        "target holds .*-1.* a perceptron's are 0 and 1": (zeros(3), (x, [-1, 1, 1, 1])),
    }
    for message, (state, batch) in bad.items():
        with pytest.raises(ValueError, match=message):
            step(state, batch)
        with pytest.raises(ValueError, match=message):
            train(state, batch, epochs=2)
    with pytest.raises(ValueError, match="epochs=0"):
        train(zeros(3), (x, AND), epochs=0)
    for changes in ({"inputs": 0}, {"units": 0}, {"scale": -1.0}):
        ((name, value),) = changes.items()
        with pytest.raises(ValueError, match=f"{name}={value}"):
            Config(**{"inputs": 3} | changes)
    with pytest.raises(ValueError, match=r"must be \(n, d\) and \(n,\)"):
        perceptron.maximum_margin(x, np.ones(3))


def test_a_learned_gate_is_a_threshold_unit():
    """A converged perceptron is a McCulloch-Pitts unit whose threshold is minus the bias."""
    for name in ("and", "or", "nand", "nor", "implies"):
        target = mcculloch_pitts.apply(mcculloch_pitts.gate(name), all_inputs(2))[:, 0]
        weights = train(zeros(3), (always_on(all_inputs(2)), target), epochs=20).state.weights
        unit = mcculloch_pitts.Layer(weights[1:, None], -weights[:1])
        np.testing.assert_array_equal(mcculloch_pitts.fire(unit, all_inputs(2))[:, 0], target)


def test_shapes_are_checked_everywhere():
    x = np.ones((4, 3))
    with pytest.raises(ValueError, match=r"x has shape \(4, 3\); the weights take \(n, 2\)"):
        perceptron.predict(zeros(2), x)
    with pytest.raises(ValueError, match=r"x has shape \(4, 3\); the weights take \(n, 2\)"):
        perceptron.classify(zeros(2, 2), x)
    with pytest.raises(ValueError, match=r"weights has shape \(3,\); classes need"):
        perceptron.classify(zeros(3), x)
    for act in (step, lambda state, batch: train(state, batch, epochs=1)):
        with pytest.raises(ValueError, match=r"x has shape \(0, 3\); at least one pattern"):
            act(zeros(3), (np.ones((0, 3)), np.ones(0)))


def test_integer_weights_learn():
    start, options = State(np.array([0, 0])), {"learning_rate": 0.2, "threshold": 0.5}
    result = train(start, (all_inputs(2), AND), epochs=10, **options)
    assert result.converged
    np.testing.assert_array_equal(perceptron.predict(result.state, all_inputs(2), threshold=0.5), AND)
    state, _ = step(start, (np.array([1, 1]), np.array(1)), **options)
    np.testing.assert_allclose(state.weights, [0.2, 0.2], rtol=1e-6)
    assert perceptron.predict(State(np.array([1, 1])), [0.5, 0.25], threshold=0.7) == 1
