"""Linear regression by gradient descent reaches the closed form, which is scikit-learn's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.datasets import load_diabetes, load_wine
from sklearn.linear_model import LinearRegression, Ridge

from nnjax.classical import linear_regression as regression


@pytest.fixture(scope="module")
def diabetes():
    """Standardized inputs (442, 10) and two outputs, disease progression and its square root."""
    x, y = load_diabetes(return_X_y=True)
    x, y = x / x.std(axis=0) + 0.5, np.stack([y, 10 * np.sqrt(y)], axis=1) / 100
    return x, y


def _gap(params, weights, bias):
    return max(np.abs(params.weights - weights).max(), np.abs(params.bias - bias).max())


@pytest.mark.parametrize(("l2", "float64"), [(0.0, True), (1.0, True), (0.01, False)])
def test_the_closed_form_is_scikit_learns(diabetes, l2, float64):
    x, y = diabetes
    oracle = (Ridge(alpha=l2 * len(x)) if l2 else LinearRegression()).fit(x, y)
    with jax.enable_x64(float64):
        params = regression.closed_form(x.astype("float64" if float64 else "float32"), y, l2=l2)
        expected = jnp.float64 if float64 else jnp.float32
        assert params.weights.dtype == expected
        assert _gap(params, oracle.coef_.T, oracle.intercept_) < (1e-10 if float64 else 1e-4)


@pytest.mark.parametrize("l2", [0.0, 0.1])
@pytest.mark.parametrize("accelerated", [True, False])
def test_descent_reaches_the_closed_form(diabetes, l2, accelerated):
    x, y = diabetes
    with jax.enable_x64(True):
        exact = regression.closed_form(x, y, l2=l2)
        fit = regression.fit(x, y, l2=l2, epochs=20_000, tolerance=1e-7, accelerated=accelerated)
        assert fit.converged
        assert fit.epochs < 20_000
        assert _gap(fit.params, exact.weights, exact.bias) < 1e-4


def test_descent_reaches_the_closed_form_in_float32(diabetes):
    x, y = (np.asarray(a, np.float32) for a in diabetes)
    exact, fit = regression.closed_form(x, y, l2=0.1), regression.fit(x, y, l2=0.1)
    assert fit.converged
    assert fit.params.weights.dtype == jnp.float32
    assert _gap(fit.params, exact.weights, exact.bias) < 1e-4


def test_acceleration_needs_far_fewer_steps(diabetes):
    x, y = diabetes
    with jax.enable_x64(True):
        plain, fast = (
            regression.fit(x, y, l2=0.01, epochs=20_000, tolerance=1e-6, accelerated=fast) for fast in (False, True)
        )
    assert plain.converged
    assert 5 * fast.epochs < plain.epochs


def test_plain_descent_never_goes_up_and_is_a_loop_of_steps(diabetes):
    x, y = diabetes
    with jax.enable_x64(True):
        rate = regression.largest_learning_rate(x, l2=0.1)
        fit = regression.fit(x, y, l2=0.1, epochs=30, accelerated=False)
        assert (np.diff(fit.loss) < 0).all()
        params = regression.init(None, regression.Config(inputs=10, outputs=2))
        step = jax.jit(regression.step)
        for epoch in range(30):
            params, info = step(params, (x, y), learning_rate=rate, l2=0.1)
            np.testing.assert_allclose(info.loss, fit.loss[epoch], rtol=1e-12)
            np.testing.assert_allclose(info.gradient_norm, fit.gradient_norm[epoch], rtol=1e-9)
        assert _gap(fit.params, params.weights, params.bias) < 1e-12


def test_the_largest_rate_is_a_little_below_one_over_the_curvature(diabetes):
    x, _ = diabetes
    with jax.enable_x64(True):
        for inputs in (x, x[:6], 1e3 * x):
            ones = np.concatenate([inputs, np.ones((len(inputs), 1))], axis=1)
            exact = 1 / (2 * np.linalg.eigvalsh(ones.T @ ones / len(inputs))[-1] + 0.2)
            rate = regression.largest_learning_rate(inputs, l2=0.1)
            assert 0.96 * exact < rate <= exact * (1 + 1e-12)


def test_beyond_twice_that_rate_descent_diverges(diabetes):
    x, y = diabetes
    with jax.enable_x64(True):
        rate = regression.largest_learning_rate(x, l2=0.1)
        fits = [
            regression.fit(x, y, l2=0.1, learning_rate=c * rate, epochs=2000, accelerated=False) for c in (1.98, 2.1)
        ]
    assert fits[0].loss[-1] < fits[0].loss[0]
    assert fits[1].loss[-1] > fits[1].loss[0]
    assert not fits[1].converged


def test_mini_batches_reach_the_closed_form_where_every_example_fits(diabetes):
    x, _ = diabetes
    x = x[:, [0, 1, 2, 3, 8]]
    y = x @ np.array([1.0, -2.0, 0.5, 3.0, -1.0]) + 0.7
    with jax.enable_x64(True):
        fit = regression.fit(x, y, batch_size=16, epochs=400, key=jax.random.key(0), tolerance=1e-6)
        exact = regression.closed_form(x, y)
    assert fit.converged
    assert _gap(fit.params, exact.weights, exact.bias) < 1e-4


def test_a_falling_rate_lets_mini_batches_settle(diabetes):
    x, y = diabetes
    with jax.enable_x64(True):
        exact = regression.closed_form(x, y, l2=1.0)
        gaps = []
        for decay in (0.0, 0.05):
            fit = regression.fit(x, y, l2=1.0, batch_size=17, epochs=2000, decay=decay, key=jax.random.key(1))
            gaps.append(_gap(fit.params, exact.weights, exact.bias))
        assert not fit.converged, "a stochastic gradient does not get to 1e-10"
    assert gaps[1] < 1e-3
    assert gaps[1] < gaps[0] / 5


def test_the_gradient_is_that_of_the_loss(diabetes):
    x, y = diabetes
    with jax.enable_x64(True):
        params = regression.init(jax.random.key(0), regression.Config(inputs=10, outputs=2, scale=1.0))
        loss, gradient = jax.jit(regression.gradient)(params, (x, y), l2=0.3)
        objective = lambda p: (  # noqa: E731
            jnp.mean(jnp.sum((regression.predict(p, x) - y) ** 2, axis=1)) + 0.3 * jnp.sum(p.weights**2)
        )
        expected, slope = jax.jit(jax.value_and_grad(objective))(params)
        np.testing.assert_allclose(loss, expected, rtol=1e-12)
        np.testing.assert_allclose(gradient.weights, slope.weights, rtol=1e-10)
        np.testing.assert_allclose(gradient.bias, slope.bias, rtol=1e-10)


def test_it_maps_over_penalties_and_rates_and_compiles_once(diabetes):
    x, y = (np.asarray(a, np.float32) for a in diabetes)
    rates, penalties = jnp.array([0.05, 0.1]), jnp.array([0.1, 1.0])
    before = regression._fit._cache_size()
    alone = [
        regression.fit(x, y, learning_rate=rate, l2=l2, epochs=7) for rate, l2 in zip(rates, penalties, strict=True)
    ]
    assert regression._fit._cache_size() == before + 1
    lanes = jax.vmap(lambda rate, l2: regression.fit(x, y, learning_rate=rate, l2=l2, epochs=7))
    together = jax.jit(lanes)(rates, penalties)
    assert together.params.weights.shape == (2, 10, 2)
    assert together.loss.shape == (2, 7)
    for lane, fit in enumerate(alone):
        np.testing.assert_allclose(together.params.weights[lane], fit.params.weights, atol=1e-5)
    exact = jax.vmap(lambda l2: regression.closed_form(x, y, l2=l2))(penalties)
    np.testing.assert_allclose(exact.weights[1], regression.closed_form(x, y, l2=1.0).weights, atol=1e-4)


def test_one_output_may_come_without_its_axis(diabetes):
    x, y = (np.asarray(a, np.float32) for a in diabetes)
    flat, column = regression.closed_form(x, y[:, 0]), regression.closed_form(x, y[:, :1])
    assert flat.weights.shape == (10, 1)
    np.testing.assert_array_equal(flat.weights, column.weights)


BAD = {
    "x with one axis": ({"x": np.ones(10)}, r"x of shape \(10,\) must be \(n, d\)"),
    "no examples": ({"x": np.ones((0, 3)), "y": np.ones(0)}, "at least one example"),
    "lengths differ": ({"y": np.ones(9)}, r"y of shape \(9,\) must have one entry for each of the 10 rows"),
    "y with three axes": ({"y": np.ones((10, 2, 2))}, r"y of shape \(10, 2, 2\) must be \(n, k\)"),
    "no epochs": ({"epochs": 0}, "epochs=0 must be at least 1"),
    "negative penalty": ({"l2": -0.1}, "l2=-0.1 must be at least 0"),
    "no rate": ({"learning_rate": 0.0}, "learning_rate=0.0 must be positive"),
    "batch too large": ({"batch_size": 11}, "batch_size=11 must lie between 1 and the 10 examples"),
    "no key": ({"batch_size": 2}, "needs a key"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_named(name):
    changes, text = BAD[name]
    with pytest.raises(ValueError, match=text):
        regression.fit(**({"x": np.ones((10, 3)), "y": np.ones(10)} | changes))


def test_shapes_are_checked_everywhere():
    params = regression.init(None, regression.Config(inputs=3))
    with pytest.raises(ValueError, match=r"x of shape \(5, 4\) does not fit weights of shape \(3, 1\)"):
        regression.predict(params, np.ones((5, 4)))
    with pytest.raises(ValueError, match=r"y of shape \(5, 2\) must be \(n, 1\)"):
        regression.step(params, (np.ones((5, 3)), np.ones((5, 2))), learning_rate=0.1)
    with pytest.raises(ValueError, match="inputs=0"):
        regression.init(None, regression.Config(inputs=0))
    with pytest.raises(ValueError, match="needs a key"):
        regression.init(None, regression.Config(inputs=2, scale=1.0))
    with pytest.raises(ValueError, match="scale=-1"):
        regression.init(None, regression.Config(inputs=2, scale=-1.0))
    with pytest.raises(ValueError, match=r"weights \(3,\) and bias \(\) must be \(d, k\) and \(k,\)"):
        regression.predict(regression.Params(np.ones(3), np.zeros(())), np.ones((5, 3)))


@pytest.mark.parametrize("l2", [0.0, 1e-4])
def test_raw_units_lose_no_direction_in_float32(l2):
    """Wine's columns differ in scale by thousands."""
    x, y = load_wine(return_X_y=True)
    oracle = (Ridge(alpha=l2 * len(x), solver="svd") if l2 else LinearRegression()).fit(x, y)
    params = regression.closed_form(x.astype("float32"), y.astype("float32"), l2=l2)
    assert params.weights.dtype == jnp.float32
    found = np.asarray(regression.predict(params, x.astype("float32")))[:, 0]
    np.testing.assert_allclose(found, oracle.predict(x), atol=2e-3)
    np.testing.assert_allclose(np.mean((found - y) ** 2), np.mean((oracle.predict(x) - y) ** 2), rtol=1e-3)


def test_constant_columns_and_wide_problems():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(30, 4)).astype("float32")
    x[:, 2] = 0.1
    y = x @ np.array([1.0, 2.0, 3.0, 4.0], "float32")
    np.testing.assert_allclose(regression.closed_form(x, y).weights[:, 0], [1, 2, 0, 4], atol=1e-4)
    wide, target = rng.normal(size=(5, 8)), rng.normal(size=5)
    wide[1] = wide[0]  # a contradiction: both errors weigh the same
    with jax.enable_x64(True):
        found = regression.closed_form(wide, target).weights[:, 0]
        expected = np.linalg.pinv(wide - wide.mean(0)) @ (target - target.mean())
        np.testing.assert_allclose(found, expected, atol=1e-10)


def test_targets_in_the_thousands_converge_in_float32(diabetes):
    x, y = diabetes
    x = ((x - x.mean(axis=0)) @ np.diag([1, 1, 1, 1, 0, 0, 1, 1, 0, 1])).astype("float32")
    fit = regression.fit(x, (1000 * y).astype("float32"), epochs=400)
    assert fit.converged
    best = regression.closed_form(x, (1000 * y).astype("float32"))
    np.testing.assert_allclose(regression.predict(fit.params, x), regression.predict(best, x), rtol=1e-4)


@pytest.mark.parametrize("value", [np.float32(-1), float("nan"), jnp.float32(-1)], ids=["numpy", "nan", "jax"])
@pytest.mark.parametrize("name", ["l2", "learning_rate", "tolerance"])
def test_rates_of_every_type_are_checked(name, value):
    with pytest.raises(ValueError, match=f"{name}="):
        regression.fit(np.ones((4, 2)), np.ones(4), **{name: value})


def test_starts_have_the_dtype_that_is_asked_for():
    config = regression.Config(inputs=2, outputs=3, scale=1.0)
    params = regression.init(jax.random.key(0), config, jnp.float16)
    assert params.weights.dtype == params.bias.dtype == jnp.float16
