"""Penalties and dropout: exact numbers and gradients, weight decay, and scikit-learn's optima for linear models."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn.linear_model import Lasso, Ridge

from nnjax import losses, regularizers
from nnjax.train import Config, Network, make_train

PARAMS = {
    "Dense_0": {"kernel": jnp.array([[1.0, -2.0], [0.0, 3.0]]), "bias": jnp.array([10.0, -10.0])},
    "BatchNorm_0": {"scale": jnp.array([5.0, 5.0]), "bias": jnp.array([7.0, 7.0])},
    "Conv_0": {"kernel": jnp.full((1, 1, 2, 1), -0.5)},
    "slope": jnp.array(100.0),
}
STRENGTH = 0.25
PENALTIES = {
    "l1": lambda params, strength: regularizers.l1(params, strength),
    "l2": lambda params, strength: regularizers.l2(params, strength),
    "l2_mean": lambda params, strength: regularizers.l2_mean(params, strength, 8),
}


def kernel_gradients(penalty):
    gradient = jax.grad(lambda params: PENALTIES[penalty](params, STRENGTH))(PARAMS)
    rest = [gradient["Dense_0"]["bias"], gradient["BatchNorm_0"]["scale"], gradient["BatchNorm_0"]["bias"]]
    assert not any(np.any(leaf) for leaf in [*rest, gradient["slope"]]), "biases, scales and slopes are left alone"
    return [np.asarray(gradient[name]["kernel"]) for name in ("Dense_0", "Conv_0")]


def test_values_by_hand():
    assert regularizers.l1(PARAMS, STRENGTH) == STRENGTH * 7.0
    assert regularizers.l2(PARAMS, STRENGTH) == STRENGTH * 14.5
    assert regularizers.l2_mean(PARAMS, STRENGTH, 8) == STRENGTH / 16 * 14.5
    assert [w.shape for w in regularizers.kernels(PARAMS)] == [(1, 1, 2, 1), (2, 2)]


def test_gradients_by_hand():
    dense, conv = (np.asarray(PARAMS[name]["kernel"]) for name in ("Dense_0", "Conv_0"))
    for penalty, expected in {
        "l1": [STRENGTH * np.sign(dense), STRENGTH * np.sign(conv)],  # 0 at the weight that is 0
        "l2": [2 * STRENGTH * dense, 2 * STRENGTH * conv],
        "l2_mean": [STRENGTH / 8 * dense, STRENGTH / 8 * conv],
    }.items():
        for found, wanted in zip(kernel_gradients(penalty), expected, strict=True):
            np.testing.assert_array_equal(found, wanted)


def test_the_two_conventions_are_one_after_rescaling():
    for strength, samples in ((0.3, 50), (2.0, 7)):
        textbook = regularizers.l2_mean(PARAMS, 2 * samples * strength, samples)
        np.testing.assert_allclose(textbook, regularizers.l2(PARAMS, strength), rtol=1e-6)


def test_without_kernels_there_is_no_penalty():
    for penalty in PENALTIES.values():
        assert penalty({"bias": jnp.ones(3)}, 2.0) == 0
        assert penalty({}, 2.0) == 0


def test_a_step_of_gradient_descent_is_weight_decay():
    rate, (w,) = 0.1, regularizers.kernels({"kernel": jnp.array([[1.0, -2.0, 4.0]])})
    rule = optax.sgd(rate)
    gradient = jax.grad(lambda w: regularizers.l2([w], STRENGTH))(w)
    step = optax.apply_updates(w, rule.update(gradient, rule.init(w))[0])
    np.testing.assert_allclose(step, w * (1 - 2 * rate * STRENGTH), rtol=1e-6)


def test_under_adam_a_penalty_is_not_weight_decay():
    w = jnp.array([[1.0, -2.0, 4.0]])
    gradient = jax.grad(lambda w: regularizers.l2([w], STRENGTH))(w)
    adam, adamw = optax.adam(0.1), optax.adamw(0.1, weight_decay=2 * STRENGTH)
    coupled = optax.apply_updates(w, adam.update(gradient, adam.init(w))[0])
    decayed = optax.apply_updates(w, adamw.update(jnp.zeros_like(w), adamw.init(w), w)[0])
    np.testing.assert_allclose(decayed, w * (1 - 2 * 0.1 * STRENGTH), rtol=1e-6)
    np.testing.assert_allclose(coupled, w - 0.1 * np.sign(w), rtol=1e-4)  # every weight by the same step


# Optima of scikit-learn

LINEAR = Network(
    init=lambda key, x: ({"kernel": jnp.zeros((x.shape[1], 1)), "bias": jnp.zeros(1)}, {}),
    apply=lambda params, stats, x, *, key, train: (x @ params["kernel"] + params["bias"][None], stats),
)


def regression(n=40, p=6):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, p))
    beta = np.array([2.0, -1.0, 0.0, 0.0, 0.5, 0.0])
    return x, x @ beta + 1.0 + 0.3 * rng.normal(size=n)


def trained(penalty, strength, rule, steps):
    x, y = regression()
    with jax.enable_x64(True):
        train = make_train(LINEAR, losses.squared_error, lambda _: rule, Config(steps=steps), penalty=penalty)
        result = jax.jit(train)(jax.random.key(0), strength, {"train": (jnp.asarray(x), jnp.asarray(y)[:, None])})
    return np.asarray(result.params["kernel"])[:, 0], float(result.params["bias"][0])


@pytest.mark.parametrize("convention", ["l2", "l2_mean"])
def test_l2_trained_to_the_optimum_is_ridge(convention):
    x, y = regression()
    n, strength = len(y), 0.2
    oracle = Ridge(alpha=n * strength, tol=1e-12).fit(x, y)  # |y - X w|^2 + alpha |w|^2, the intercept free
    penalty = {
        "l2": regularizers.l2,
        "l2_mean": lambda params, h: regularizers.l2_mean(params, 2 * n * h, n),
    }[convention]
    kernel, bias = trained(penalty, strength, optax.sgd(0.1), 2000)
    np.testing.assert_allclose(kernel, oracle.coef_, atol=1e-8)
    np.testing.assert_allclose(bias, oracle.intercept_, atol=1e-8)


def test_l1_trained_to_the_optimum_is_the_lasso():
    x, y = regression()
    strength = 0.3
    oracle = Lasso(alpha=strength / 2, tol=1e-12, max_iter=100_000).fit(x, y)  # |y - X w|^2 / 2n + alpha |w|_1
    zero = oracle.coef_ == 0
    assert 0 < zero.sum() < 6, "the case must have weights on both sides"
    slope = -2 * x.T @ (y - oracle.predict(x)) / len(y)
    with jax.enable_x64(True):
        pull = jax.grad(lambda w: regularizers.l1(w, strength))(jnp.asarray(oracle.coef_)[:, None])
    pull = np.asarray(pull)[:, 0]
    np.testing.assert_allclose((slope + pull)[~zero], 0, atol=1e-6)  # at the optimum the two cancel
    np.testing.assert_array_equal(pull[zero], 0)
    assert np.abs(slope[zero]).max() < strength
    # Steps of the size rate * strength keep jumping over zero, so the rate has to fall.
    falling = optax.sgd(optax.exponential_decay(0.05, 2000, 0.1))
    kernel, bias = trained(regularizers.l1, strength, falling, 10_000)
    np.testing.assert_allclose(kernel, oracle.coef_, atol=3e-4)
    np.testing.assert_allclose(kernel[zero], 0, atol=1e-6)
    np.testing.assert_allclose(bias, oracle.intercept_, atol=3e-4)


# Dropout


def test_dropout_drops_the_share_it_is_told_and_scales_the_rest():
    x = jnp.linspace(1.0, 2.0, 100_000)
    for rate in (0.1, 0.5, 0.8):
        y = np.asarray(regularizers.dropout(jax.random.key(1), x, rate))
        dropped = y == 0
        assert abs(dropped.mean() - rate) < 5 * np.sqrt(rate * (1 - rate) / len(x))
        np.testing.assert_allclose(y[~dropped], np.asarray(x)[~dropped] / (1 - rate), rtol=1e-6)
        assert abs(y.mean() / x.mean() - 1) < 5 * np.sqrt(rate / (1 - rate) / len(x)) * 1.03


def test_dropout_keeps_the_expectation():
    x = jnp.array([1.0, -2.0, 3.0])
    draws = jax.vmap(lambda key: regularizers.dropout(key, x, 0.3))(jax.random.split(jax.random.key(2), 20_000))
    error = 5 * np.abs(x) * np.sqrt(0.3 / 0.7 / 20_000)
    assert (np.abs(np.asarray(draws).mean(0) - x) < error).all()


def test_dropout_at_the_ends():
    x = jnp.array([[1.0, -2.0], [0.0, 3.0]])
    np.testing.assert_array_equal(regularizers.dropout(jax.random.key(0), x, 0.0), x)
    np.testing.assert_array_equal(regularizers.dropout(jax.random.key(0), x, 1.0), jnp.zeros_like(x))
    gradient = jax.grad(lambda x: regularizers.dropout(jax.random.key(0), x, 1.0).sum())(x)
    np.testing.assert_array_equal(gradient, jnp.zeros_like(x))  # not NaN


def test_the_gradient_passes_where_the_unit_is_kept():
    key, x = jax.random.key(3), jnp.ones(50)
    kept = np.asarray(regularizers.dropout(key, x, 0.4)) != 0
    gradient = jax.grad(lambda x: regularizers.dropout(key, x, 0.4).sum())(x)
    np.testing.assert_allclose(gradient, np.where(kept, 1 / 0.6, 0), rtol=1e-6)


def test_dropout_of_other_types():
    assert regularizers.dropout(jax.random.key(0), jnp.ones(4, jnp.bfloat16), 0.5).dtype == jnp.bfloat16
    whole = regularizers.dropout(jax.random.key(0), jnp.array([2, 2, 2, 2]), 0.5)
    assert set(np.asarray(whole).tolist()) <= {0.0, 4.0}


# Contracts


def test_strengths_are_traced_and_compile_once():
    traces = []

    @jax.jit
    @jax.vmap
    def everything(strength):
        traces.append(1)
        found = [penalty(PARAMS, strength) for penalty in PENALTIES.values()]
        return jnp.stack([*found, regularizers.dropout(jax.random.key(0), jnp.ones(()), strength)])

    lanes = everything(jnp.array([0.0, 0.5, 1.0]))
    everything(jnp.array([0.1, 0.2, 0.3]))
    assert len(traces) == 1
    np.testing.assert_allclose(lanes[:, 1], [0.0, 7.25, 14.5])
    np.testing.assert_allclose(
        jax.vmap(lambda samples: regularizers.l2_mean(PARAMS, 1.0, samples))(jnp.array([1.0, 10.0])), [7.25, 0.725]
    )


def test_a_known_array_may_come_into_a_traced_function():
    half = jnp.asarray(0.5)
    found = jax.jit(lambda params: [regularizers.l2(params, half), regularizers.l2_mean(params, half, half)])(PARAMS)
    assert [float(value) for value in found] == [7.25, 7.25]
    assert jax.jit(lambda x: regularizers.dropout(jax.random.key(0), x, half))(jnp.ones(3)).shape == (3,)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_the_dtype_is_that_of_the_weights(dtype):
    with jax.enable_x64(True):
        params = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), PARAMS)
        for penalty in PENALTIES.values():
            assert penalty(params, 0.5).dtype == dtype
        assert regularizers.dropout(jax.random.key(0), jnp.ones(3, dtype), 0.5).dtype == dtype


@pytest.mark.parametrize("value", [-0.1, float("nan"), float("inf"), jnp.array(-1.0)])
def test_a_bad_strength_is_named(value):
    for penalty in PENALTIES.values():
        with pytest.raises(ValueError, match=r"strength=.* must be at least 0 and finite"):
            penalty(PARAMS, value)


def test_other_bad_input_is_named():
    with pytest.raises(ValueError, match=r"strength of shape \(2,\) must be one number"):
        regularizers.l2(PARAMS, jnp.ones(2))
    for samples in (0, -3, float("nan")):
        with pytest.raises(ValueError, match=r"samples=.* must be above 0"):
            regularizers.l2_mean(PARAMS, 1.0, samples)
    for rate in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match=r"rate=.* must be between 0 and 1"):
            regularizers.dropout(jax.random.key(0), jnp.ones(3), rate)
