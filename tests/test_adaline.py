"""ADALINE against least squares, its stability bound, and the echo canceller against the Wiener solution."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.linalg import solve_toeplitz
from scipy.signal import lfilter
from sklearn.datasets import load_wine

from nnjax.classical import adaline
from nnjax.classical.adaline import Config, State, init, step, train
from nnjax.classical.mcculloch_pitts import all_inputs, always_on

KEY = jax.random.key(0)
SIGNS = 2 * np.asarray(all_inputs(2)) - 1
INPUTS = np.asarray(always_on(SIGNS))
AND, OR = np.array([-1, -1, -1, 1]), np.array([-1, 1, 1, 1])


@pytest.fixture(scope="module")
def regression():
    """Correlated inputs (200, 4), a target (200,), and the largest stable learning rate of a batch."""
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(200, 4)) @ rng.normal(size=(4, 4))).astype(np.float32)
    target = (x @ rng.normal(size=4) + 0.3 * rng.normal(size=200)).astype(np.float32)
    return x, target, 2 / np.linalg.eigvalsh(x.T @ x / 200)[-1]


@pytest.mark.parametrize(("target", "expected"), [(AND, [-0.5, 0.5, 0.5]), (OR, [0.5, 0.5, 0.5])])
def test_and_and_or_reach_the_least_mean_square(target, expected):
    np.testing.assert_allclose(adaline.optimum(INPUTS, target), expected, atol=1e-6)
    result = train(init(KEY, Config(3)), (INPUTS, target), epochs=200, learning_rate=0.5, online=False)
    np.testing.assert_allclose(result.state.weights, expected, atol=1e-5)
    assert result.converged
    np.testing.assert_array_equal(adaline.predict(result.state, INPUTS), target)
    np.testing.assert_allclose(result.losses[-1], 0.5 * np.mean((target - INPUTS @ expected) ** 2), rtol=1e-4)


def test_the_error_is_taken_before_the_threshold_and_the_step_shrinks():
    """A pattern on its right side still moves the weights, less and less as the sum comes near the target."""
    state, x, moves = State(jnp.zeros(2)), np.array([1.0, 2.0]), []
    for _ in range(5):
        before = state.weights
        state, info = step(state, (x, 1.0), learning_rate=0.1)
        np.testing.assert_allclose(info.errors[0], 1 - before @ x, rtol=1e-6)
        np.testing.assert_allclose(state.weights - before, 0.1 * info.errors[0] * x, rtol=1e-5)
        moves.append(float(jnp.linalg.norm(state.weights - before)))
    np.testing.assert_allclose(np.array(moves[1:]) / moves[:-1], 0.5, rtol=1e-4)  # 1 - rate |x|^2
    assert adaline.predict(State(jnp.array([0.1, 0.1])), x) == 1


def test_online_steps_by_hand():
    rng = np.random.default_rng(1)
    x, target = rng.normal(size=(6, 3)), rng.normal(size=(6, 2))
    with jax.enable_x64(True):
        for normalized in (False, True):
            weights = np.zeros((3, 2))
            for pattern, wanted in zip(x, target, strict=True):
                rate = 0.2 / (pattern @ pattern) if normalized else 0.2
                weights += rate * np.outer(pattern, wanted - pattern @ weights)
            state, _ = step(State(np.zeros((3, 2))), (x, target), learning_rate=0.2, normalized=normalized)
            np.testing.assert_allclose(state.weights, weights, rtol=1e-12)


def test_a_batch_step_is_gradient_descent(regression):
    x, target, _ = regression
    start = jnp.arange(4.0)

    def loss(weights):
        return 0.5 * jnp.mean((target - x @ weights) ** 2)

    state, info = step(State(start), (x, target), learning_rate=0.1, online=False)
    np.testing.assert_allclose(state.weights, start - 0.1 * jax.grad(loss)(start), rtol=1e-5)
    np.testing.assert_allclose(info.loss, loss(start), rtol=1e-5)


def test_a_batch_reaches_numpys_least_squares(regression):
    x, target, limit = regression
    expected = np.linalg.lstsq(x, target, rcond=None)[0]
    np.testing.assert_allclose(adaline.optimum(x, target), expected, rtol=1e-3)
    result = train(State(jnp.zeros(4)), (x, target), epochs=4000, learning_rate=0.9 * limit, online=False)
    np.testing.assert_allclose(result.state.weights, expected, rtol=1e-3)


def test_a_batch_converges_below_the_stability_bound_and_bursts_above(regression):
    x, target, limit = regression
    np.testing.assert_allclose(adaline.stability_bound(adaline.correlation(x)), limit, rtol=1e-5)

    @jax.jit
    @jax.vmap
    def distance(rate):
        result = train(State(jnp.zeros(4)), (x, target), epochs=400, learning_rate=rate, online=False)
        return jnp.linalg.norm(result.weights - adaline.optimum(x, target)[None], axis=1)

    below, above = np.asarray(distance(limit * jnp.array([0.98, 1.02])))
    assert (np.diff(below[:300]) < 0).all()
    assert below[-1] < 0.6 * below[0]
    assert above[-1] > 1e4 * above[0]


def test_online_learning_settles_near_the_optimum(regression):
    x, target, _ = regression
    result = train(State(jnp.zeros(4)), (x, target), KEY, epochs=300, learning_rate=0.002)
    best = np.mean((target - x @ adaline.optimum(x, target)) ** 2)
    assert np.mean((target - x @ result.state.weights) ** 2) < 1.02 * best


# The echo canceller


def test_delays_and_echo_are_a_convolution():
    with jax.enable_x64(True):
        problem = adaline.echo_problem(KEY, 3000, taps=16, color=0.7, noise=0.01, dtype=jnp.float64)
        far, echo = np.asarray(problem.far_end), np.asarray(problem.echo)
        np.testing.assert_allclose(echo, lfilter(np.asarray(problem.path), 1, far), atol=1e-10)
        np.testing.assert_allclose(np.linalg.norm(problem.path), 1, rtol=1e-10)
        np.testing.assert_allclose(np.var(far), 1, atol=0.3)
        np.testing.assert_allclose(np.corrcoef(far[1:], far[:-1])[0, 1], 0.7, atol=0.05)
        np.testing.assert_allclose(np.var(problem.microphone - echo), 0.01, rtol=0.15)
        delayed = adaline.delayed(far, 3)
        np.testing.assert_array_equal(delayed[:3], [[far[0], 0, 0], [far[1], far[0], 0], [far[2], far[1], far[0]]])


@pytest.fixture(scope="module")
def line():
    return adaline.echo_problem(KEY, 12_000, taps=32, color=0.5, noise=1e-3)


@pytest.mark.parametrize("normalized", [False, True])
def test_the_canceller_comes_to_the_wiener_solution(line, normalized):
    far, microphone = np.asarray(line.far_end, float), np.asarray(line.microphone, float)
    correlation = np.array([far[lag:] @ far[: len(far) - lag] for lag in range(32)]) / len(far)
    cross = np.array([microphone[lag:] @ far[: len(far) - lag] for lag in range(32)]) / len(far)
    wiener = solve_toeplitz(correlation, cross)
    np.testing.assert_allclose(adaline.optimum(adaline.delayed(line.far_end, 32), line.microphone), wiener, atol=0.01)
    rate = 0.3 if normalized else 0.01
    state, residual = adaline.cancel(line.far_end, line.microphone, taps=32, learning_rate=rate, normalized=normalized)
    np.testing.assert_allclose(state.weights, wiener, atol=0.03)
    np.testing.assert_allclose(state.weights, line.path, atol=0.03)
    enhancement = np.asarray(adaline.erle(line.microphone, residual, window=1000))
    assert enhancement.shape == (12,)
    ceiling = 10 * np.log10(np.var(microphone) / 1e-3)  # the noise is left
    assert ceiling - 2 < enhancement[-4:].mean() < ceiling + 0.3
    assert enhancement[0] < enhancement[-1] - 5


def test_settled_error_is_the_theorys(line):
    """Feuer and Weinstein's misadjustment for independent Gaussian patterns, where delays make them independent."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(20_000, 8)).astype(np.float32) * np.sqrt([4, 2, 1, 1, 0.5, 0.5, 0.2, 0.2]).astype(np.float32)
    noise = rng.normal(size=20_000).astype(np.float32)
    rates = np.array([0.01, 0.03, 0.06], np.float32)
    measured = []
    for rate in rates:
        _, info = step(State(jnp.zeros(8)), (x, x @ np.ones(8, np.float32) + noise), learning_rate=rate)
        measured.append(np.mean(np.square(info.errors[4000:])) - 1)
    expected = adaline.misadjustment(adaline.correlation(x), rates)
    np.testing.assert_allclose(measured, expected, atol=0.035)  # 1.4 / sqrt(16000) of the mean square is 0.011
    assert adaline.misadjustment(adaline.correlation(x), 0.5) == np.inf


def test_normalized_lms_does_not_depend_on_loudness(line):
    def last(scale, normalized, rate):
        _, residual = adaline.cancel(
            scale * line.far_end, scale * line.microphone, taps=32, learning_rate=rate, normalized=normalized
        )
        return np.mean(np.square(residual[-2000:] / scale))

    np.testing.assert_allclose(last(30.0, True, 0.3), last(1.0, True, 0.3), rtol=1e-3)
    assert not last(30.0, False, 0.01) < 1


def test_erle_in_decibels():
    microphone = np.r_[np.ones(10), 2 * np.ones(10), np.ones(3)]
    residual = np.r_[0.1 * np.ones(10), 0.02 * np.ones(10), np.ones(3)]
    np.testing.assert_allclose(adaline.erle(microphone, residual, window=10), [20, 40], rtol=1e-5)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_jit_vmap_dtype_and_one_compilation(dtype):
    with jax.enable_x64(True):
        x, target = INPUTS.astype(dtype), AND
        traces = []

        start = init(KEY, Config(3, scale=0.1), dtype)

        @jax.jit
        @jax.vmap
        def learn(rate):
            traces.append(1)
            return train(start, (x, target), epochs=5, learning_rate=rate)

        lanes = learn(jnp.array([0.1, 0.2]))
        learn(jnp.array([0.3, 0.4]))
        assert len(traces) == 1
        single = train(start, (x, target), epochs=5, learning_rate=0.2)
        assert single.state.weights.dtype == single.losses.dtype == lanes.weights.dtype == dtype
        np.testing.assert_allclose(lanes.weights[1], single.weights, rtol=1e-5)
        compiled = adaline._train._cache_size()
        train(start, (x, OR), epochs=5, learning_rate=0.1)
        assert adaline._train._cache_size() == compiled

        @jax.jit
        def whole(key, rate):
            line = adaline.echo_problem(key, 50, taps=4, dtype=dtype)
            state, residual = adaline.cancel(line.far_end, line.microphone, taps=4, learning_rate=rate)
            return state.weights, residual, adaline.erle(line.microphone, residual, window=10)

        assert {value.dtype for value in whole(KEY, 0.5)} == {jnp.dtype(dtype)}
        assert adaline.misadjustment(adaline.correlation(x), 0.1).dtype == dtype


def test_silence_teaches_nothing():
    state, _ = step(State(jnp.ones(2)), (np.zeros((3, 2)), np.ones(3)), normalized=True)
    np.testing.assert_array_equal(state.weights, 1)


def test_bad_input_is_named():
    start = State(jnp.zeros(3))
    with pytest.raises(ValueError, match=r"x has shape \(4, 2\); the weights take \(n, 3\)"):
        step(start, (SIGNS, AND))
    with pytest.raises(ValueError, match=r"target has shape \(3,\); for x \(4, 3\) it must be \(4,\)"):
        train(start, (INPUTS, AND[:3]), epochs=1)
    with pytest.raises(ValueError, match="epochs=0"):
        train(start, (INPUTS, AND), epochs=0)
    with pytest.raises(ValueError, match=r"far_end \(5,\) and microphone \(4,\)"):
        adaline.cancel(np.ones(5), np.ones(4), taps=2, learning_rate=0.1)
    with pytest.raises(ValueError, match="taps=0"):
        adaline.cancel(np.ones(5), np.ones(5), taps=0, learning_rate=0.1)
    with pytest.raises(ValueError, match="samples=0"):
        adaline.echo_problem(KEY, 0)
    with pytest.raises(ValueError, match="window=9"):
        adaline.erle(np.ones(8), np.ones(8), window=9)
    with pytest.raises(ValueError, match=r"microphone \(8,\) and residual \(7,\)"):
        adaline.erle(np.ones(8), np.ones(7), window=2)
    with pytest.raises(ValueError, match=r"x has shape \(3,\); expected \(n, d\)"):
        adaline.correlation(np.ones(3))
    for function in (adaline.stability_bound, lambda matrix: adaline.misadjustment(matrix, 0.1)):
        with pytest.raises(ValueError, match=r"correlation has shape \(4, 3\); expected \(d, d\)"):
            function(INPUTS)
    with pytest.raises(ValueError, match=r"x has shape \(4, 3\); the weights take \(n, 2\)"):
        adaline.predict(State(np.zeros(2)), np.ones((4, 3)))
    with pytest.raises(ValueError, match=r"x has shape \(4,\); expected \(n, d\)"):
        adaline.optimum(np.ones(4), np.ones(4))
    with pytest.raises(ValueError, match=r"target has shape \(3,\); expected \(4,\)"):
        adaline.optimum(np.ones((4, 3)), np.ones(3))
    with pytest.raises(ValueError, match=r"x has shape \(0, 2\); at least one pattern"):
        step(State(np.zeros(2)), (np.ones((0, 2)), np.ones(0)))
    with pytest.raises(ValueError, match=r"x has shape \(0, 2\); expected"):
        adaline.optimum(np.ones((0, 2)), np.ones(0))


def test_integer_weights_learn():
    state, _ = step(State(np.array([0, 0])), (np.array([1, 1]), np.array(1)), learning_rate=0.2)
    np.testing.assert_allclose(state.weights, [0.2, 0.2], rtol=1e-6)


def test_the_optimum_of_raw_units_in_float32():
    """Wine's columns differ in scale by thousands."""
    x, y = load_wine(return_X_y=True)
    x = np.asarray(always_on(x))
    expected = x.astype("float64") @ np.linalg.lstsq(x.astype("float64"), y, rcond=None)[0]
    weights = adaline.optimum(x.astype("float32"), y)
    assert weights.dtype == jnp.float32
    found = x.astype("float64") @ np.asarray(weights, "float64")
    assert np.mean((expected - y) ** 2) == pytest.approx(0.0597, abs=1e-4)
    assert np.mean((found - y) ** 2) == pytest.approx(0.0597, abs=1e-4)
