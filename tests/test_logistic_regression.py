"""Logistic regression by gradient descent reaches scikit-learn's optimum, for two classes and more."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer, load_iris
from sklearn.linear_model import LogisticRegression

from nnjax import losses
from nnjax.classical import logistic_regression as regression

LOADERS = {"breast_cancer": load_breast_cancer, "iris": load_iris}


def problem(name):
    x, y = LOADERS[name](return_X_y=True)
    return (x - x.mean(axis=0)) / x.std(axis=0), y


def _gap(params, oracle):
    weights, bias = np.asarray(params.weights).T, np.asarray(params.bias)
    return max(np.abs(weights - oracle.coef_).max(), np.abs(bias - oracle.intercept_).max())


@pytest.mark.parametrize(("name", "classes"), [("breast_cancer", 2), ("iris", 3)])
@pytest.mark.parametrize("c", [0.1, 10.0])
def test_the_optimum_is_scikit_learns(name, classes, c):
    x, y = problem(name)
    oracle = LogisticRegression(C=c, tol=1e-9, max_iter=20_000).fit(x, y)
    with jax.enable_x64(True):
        fit = regression.fit(x, y, classes=classes, l2=1 / (2 * len(x) * c), epochs=5000, tolerance=1e-9)
        assert fit.converged
        assert _gap(fit.params, oracle) < 1e-4
        np.testing.assert_allclose(regression.probabilities(fit.params, x), oracle.predict_proba(x), atol=1e-5)
        np.testing.assert_array_equal(regression.classify(fit.params, x), oracle.predict(x))


def test_float32_gets_there_too():
    x, y = problem("iris")
    oracle = LogisticRegression(C=0.1, tol=1e-9, max_iter=20_000).fit(x, y)
    fit = regression.fit(x.astype(np.float32), y, classes=3, l2=5 / len(x))
    assert fit.converged
    assert fit.params.weights.dtype == jnp.float32
    assert _gap(fit.params, oracle) < 1e-4


def test_plain_descent_gets_there_and_never_goes_up():
    x, y = problem("iris")
    oracle = LogisticRegression(C=0.1, tol=1e-9, max_iter=20_000).fit(x, y)
    with jax.enable_x64(True):
        fit = regression.fit(x, y, classes=3, l2=5 / len(x), epochs=5000, tolerance=1e-7, accelerated=False)
    assert fit.converged
    assert (np.diff(fit.loss[: fit.epochs]) < 0).all()
    assert _gap(fit.params, oracle) < 1e-4


def test_mini_batches_come_near():
    x, y = problem("iris")
    oracle = LogisticRegression(C=0.1, tol=1e-9, max_iter=20_000).fit(x, y)
    with jax.enable_x64(True):
        fit = regression.fit(
            x, y, classes=3, l2=5 / len(x), epochs=2000, batch_size=15, decay=0.02, key=jax.random.key(0)
        )
    assert _gap(fit.params, oracle) < 1e-3


def test_separable_classes_without_a_penalty_are_reported_as_not_converged():
    x, y = problem("iris")
    two = y < 2
    fit = regression.fit(x[two], y[two], epochs=2000)
    assert not fit.converged
    assert fit.epochs == 2000
    assert (regression.classify(fit.params, x[two]) == y[two]).all()
    # The loss has no least value: it goes on falling towards 0, where no weights are.
    assert 0 < fit.loss[-1] < 0.5 * fit.loss[1000]


def test_the_gradient_of_a_logistic_unit_is_the_input_times_s_minus_y():
    with jax.enable_x64(True):
        x, w, b = jnp.array([[0.5, -1.5, 2.0]]), jnp.array([[0.3], [-0.2], [0.9]]), jnp.array([0.1])
        for y in (0, 1):
            s = 1 / (1 + np.exp(-(x @ w + b[None])[0, 0]))
            _, gradient = regression.gradient(regression.Params(w, b), (x, jnp.array([y])))
            np.testing.assert_allclose(gradient.weights[:, 0], x[0] * (s - y), rtol=1e-12)
            np.testing.assert_allclose(gradient.bias, [s - y], rtol=1e-12)


@pytest.mark.parametrize("classes", [2, 4])
def test_the_gradient_is_that_of_the_loss(classes):
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        x, y = rng.normal(size=(20, 3)), rng.integers(0, classes, 20)
        params = regression.init(jax.random.key(0), regression.Config(inputs=3, classes=classes, scale=1.0))

        def objective(params):
            z = regression.logits(params, x)
            z = z if classes > 2 else jnp.concatenate([jnp.zeros_like(z), z], axis=1)
            return jnp.mean(losses.cross_entropy(z, y)) + 0.3 * jnp.sum(params.weights**2)

        loss, gradient = jax.jit(regression.gradient)(params, (x, y), l2=0.3)
        expected, slope = jax.jit(jax.value_and_grad(objective))(params)
        np.testing.assert_allclose(loss, expected, rtol=1e-12)
        np.testing.assert_allclose(gradient.weights, slope.weights, atol=1e-12)
        np.testing.assert_allclose(gradient.bias, slope.bias, atol=1e-12)
        moved, info = jax.jit(regression.step)(params, (x, y), learning_rate=0.2, l2=0.3)
        np.testing.assert_allclose(moved.weights, params.weights - 0.2 * gradient.weights, atol=1e-12)
        np.testing.assert_allclose(info.loss, loss)


@pytest.mark.parametrize("classes", [2, 3])
def test_huge_scores_stay_finite_and_a_label_that_is_no_class_is_seen(classes):
    params = regression.init(None, regression.Config(inputs=1, classes=classes))
    params = params._replace(weights=params.weights.at[:, -1].set(1e4))
    x, gradient = np.array([[1.0], [-1.0]], np.float32), jax.jit(regression.gradient)
    loss, slope = gradient(params, (x, np.array([0, classes - 1])))
    np.testing.assert_allclose(loss, 1e4, rtol=1e-3)
    assert np.isfinite(slope.weights).all()
    for label in (-1, classes):
        loss, slope = gradient(params, (x, np.array([0, label])))
        assert np.isnan(loss)
        assert np.isnan(slope.weights).all()


def test_it_maps_over_penalties_and_rates_and_compiles_once():
    x, y = problem("iris")
    x = x.astype(np.float32)
    rates, penalties = jnp.array([0.1, 0.2]), jnp.array([0.01, 0.1])
    before = regression._fit._cache_size()
    alone = [
        regression.fit(x, y, classes=3, learning_rate=rate, l2=l2, epochs=7)
        for rate, l2 in zip(rates, penalties, strict=True)
    ]
    assert regression._fit._cache_size() == before + 1
    lanes = jax.vmap(lambda rate, l2: regression.fit(x, y, classes=3, learning_rate=rate, l2=l2, epochs=7))
    together = jax.jit(lanes)(rates, penalties)
    assert together.params.weights.shape == (2, 4, 3)
    assert together.loss.shape == (2, 7)
    for lane, fit in enumerate(alone):
        np.testing.assert_allclose(together.params.weights[lane], fit.params.weights, atol=1e-5)


BAD = {
    "lengths differ": ({"y": np.zeros(9, int)}, "must have one entry for each of the 10 rows"),
    "labels not integer": ({"y": np.zeros(10)}, "must be integer labels"),
    "one-hot labels": ({"y": np.zeros((10, 2), int)}, r"y of shape \(10, 2\)"),
    "one class": ({"classes": 1}, "classes=1 must be at least 2"),
    "negative penalty": ({"l2": -1}, "l2=-1 must be at least 0"),
    "another start": ({"start": regression.Params(np.zeros((3, 2)), np.zeros(2))}, r"2 classes need \(d, 1\)"),
    "start of other inputs": (
        {"start": regression.Params(np.zeros((4, 1)), np.zeros(1))},
        r"does not fit weights of shape \(4, 1\)",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_named(name):
    changes, text = BAD[name]
    with pytest.raises(ValueError, match=text):
        regression.fit(**({"x": np.ones((10, 3)), "y": np.zeros(10, int)} | changes))


def test_shapes_are_checked_everywhere():
    params = regression.init(None, regression.Config(inputs=3, classes=3))
    with pytest.raises(ValueError, match=r"x of shape \(5, 4\) does not fit"):
        regression.logits(params, np.ones((5, 4)))
    with pytest.raises(ValueError, match="learning_rate=-1 must be positive"):
        regression.step(params, (np.ones((5, 3)), np.zeros(5, int)), learning_rate=-1)
    with pytest.raises(ValueError, match="inputs=0"):
        regression.Config(inputs=0)
    with pytest.raises(ValueError, match="classes=1"):
        regression.Config(inputs=2, classes=1)
    half = regression.init(None, regression.Config(inputs=3), jnp.float16)
    assert half.weights.dtype == half.bias.dtype == jnp.float16
