"""The linear classifier against autodiff, the textbook's perceptron step, and scikit-learn's logistic regression."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from nnjax import data, losses
from nnjax.classical import linear_classifier
from nnjax.classical.linear_classifier import Config, Params, init, predict, scores, step, templates, train

KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def digits():
    return data.load("digits")


def random_problem(dtype=np.float32):
    rng = np.random.default_rng(0)
    params = Params(rng.normal(size=(6, 3)).astype(dtype), rng.normal(size=3).astype(dtype))
    return params, (rng.normal(size=(20, 6)).astype(dtype), rng.integers(0, 3, 20))


def test_scores_are_x_w_plus_b():
    params, (x, _) = random_problem()
    np.testing.assert_allclose(scores(params, x), x @ params.kernel + params.bias, rtol=1e-5)
    np.testing.assert_array_equal(predict(params, x), np.argmax(x @ params.kernel + params.bias, axis=1))
    np.testing.assert_allclose(scores(params, x.reshape(20, 2, 3, 1)), scores(params, x))


def test_a_softmax_step_is_the_gradient_of_cross_entropy():
    params, (x, y) = random_problem()

    def loss(params):
        return jnp.mean(losses.cross_entropy(x @ params.kernel + params.bias[None], y))

    gradient = jax.grad(loss)(jax.tree.map(jnp.asarray, params))
    new, info = step(params, (x, y), learning_rate=0.3)
    for moved, old, change in zip(new, params, gradient, strict=True):
        np.testing.assert_allclose(moved, old - 0.3 * change, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(info.loss, loss(params), rtol=1e-6)
    np.testing.assert_allclose(info.error, np.mean(np.asarray(predict(params, x)) != y))
    # x (s - y) through softmax, by hand
    shares = np.asarray(jax.nn.softmax(scores(params, x)))
    np.testing.assert_allclose(gradient.kernel, x.T @ (shares - np.eye(3)[y]) / 20, rtol=1e-4, atol=1e-6)


def test_a_perceptron_step_by_hand():
    params, (x, y) = random_problem()
    kernel, bias = params.kernel.copy(), params.bias.copy()
    winners = np.argmax(x @ params.kernel + params.bias, axis=1)
    for picture, label, winner in zip(x, y, winners, strict=True):
        if label != winner:
            for sign, unit in ((1, label), (-1, winner)):
                kernel[:, unit] += sign * 0.3 / 20 * picture
                bias[unit] += sign * 0.3 / 20
    new, info = step(params, (x, y), learning_rate=0.3, rule="perceptron")
    assert 0 < info.error < 1
    np.testing.assert_allclose(new.kernel, kernel, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(new.bias, bias, rtol=1e-5, atol=1e-6)


def test_templates_are_the_columns_of_w_as_pictures():
    params, _ = random_problem()
    pictures = templates(params, (2, 3))
    assert pictures.shape == (3, 2, 3)
    np.testing.assert_array_equal(pictures[1].ravel(), params.kernel[:, 1])


def test_training_goes_through_the_batches():
    params, (x, y) = random_problem()
    result = train(params, (x, y), epochs=2, batch_size=8, learning_rate=0.1)
    by_hand = params
    for start in (0, 8, 0, 8):
        by_hand, _ = step(by_hand, (x[start : start + 8], y[start : start + 8]), learning_rate=0.1)
    np.testing.assert_allclose(result.params.kernel, by_hand.kernel, rtol=1e-5, atol=1e-6)
    assert result.losses.shape == result.errors.shape == (2,)
    shuffled = train(params, (x, y), KEY, epochs=2, batch_size=8, learning_rate=0.1)
    assert not np.allclose(shuffled.params.kernel, result.params.kernel)


@pytest.mark.parametrize("rule", linear_classifier.RULES)
def test_separable_pictures_are_learned_without_error(rule):
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 60)
    x = 4 * np.eye(3)[y] + 0.5 * rng.normal(size=(60, 3))
    result = train(init(KEY, Config(3, 3)), (x, y), epochs=100, learning_rate=1.0, rule=rule)
    assert result.converged
    assert result.errors[0] > 0.3
    np.testing.assert_array_equal(predict(result.params, x), y)


def test_digits_as_well_as_scikit_learn(digits):
    """The test set has 359 pictures: one is 0.3 points, and the standard error of an accuracy of 0.96 is 1 point."""
    x = digits.train.x.reshape(len(digits.train.x), -1)
    fresh = digits.test.x.reshape(len(digits.test.x), -1)
    theirs = LogisticRegression(max_iter=2000).fit(x, digits.train.y).score(fresh, digits.test.y)
    rules = {"softmax": (0.5, 0.015), "perceptron": (0.5, 0.03)}
    for rule, (rate, tolerance) in rules.items():
        start = init(KEY, Config(64))
        result = train(start, digits.train, KEY, epochs=30, batch_size=32, learning_rate=rate, rule=rule)
        ours = np.mean(np.asarray(predict(result.params, digits.test.x)) == digits.test.y)
        assert abs(ours - theirs) < tolerance, (rule, ours, theirs)


def test_the_softmax_optimum_is_logistic_regressions():
    """With overlapping classes the optimum is finite, and the probabilities agree."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 300)
    x = 1.5 * np.eye(3)[y] + rng.normal(size=(300, 3))
    result = train(init(KEY, Config(3, 3)), (x, y), epochs=2000, learning_rate=1.0)
    theirs = LogisticRegression(C=np.inf, tol=1e-8, max_iter=2000).fit(x, y).predict_proba(x)
    np.testing.assert_allclose(jax.nn.softmax(scores(result.params, x)), theirs, atol=1e-4)


@pytest.mark.parametrize("rule", linear_classifier.RULES)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_jit_vmap_dtype_and_one_compilation(rule, dtype):
    with jax.enable_x64(True):
        _, (x, y) = random_problem(dtype)
        traces = []

        start = init(KEY, Config(6, 3, scale=0.1), dtype)

        @jax.jit
        @jax.vmap
        def learn(rate):
            traces.append(1)
            return train(start, (x, y), epochs=3, batch_size=5, learning_rate=rate, rule=rule)

        lanes = learn(jnp.array([0.1, 0.2]))
        learn(jnp.array([0.3, 0.4]))
        assert len(traces) == 1
        single = train(start, (x, y), epochs=3, batch_size=5, learning_rate=0.2, rule=rule)
        assert single.params.kernel.dtype == single.losses.dtype == lanes.losses.dtype == dtype
        np.testing.assert_allclose(lanes.params.kernel[1], single.params.kernel, rtol=1e-4, atol=1e-6)
        compiled = linear_classifier._train._cache_size()
        train(start, (2 * x, y), epochs=3, batch_size=5, learning_rate=0.1, rule=rule)
        assert linear_classifier._train._cache_size() == compiled


def test_starts_depend_on_the_key():
    first, second = (init(jax.random.key(seed), Config(6, 3, scale=2.0)).kernel for seed in range(2))
    assert not np.allclose(first, second)
    assert 1 < first.std() < 3
    assert not init(KEY, Config(6, 3)).kernel.any()


def test_bad_input_is_named():
    params, (x, y) = random_problem()
    with pytest.raises(ValueError, match=r"x has shape \(20, 5\); expected \(n, ...\) with 6 pixels"):
        scores(params, x[:, :5])
    with pytest.raises(ValueError, match=r"labels of shape \(19,\)"):
        step(params, (x, y[:19]))
    with pytest.raises(ValueError, match=r"labels of shape .* dtype float32 must be integers"):
        step(params, (x, y.astype(np.float32)))
    with pytest.raises(ValueError, match="labels reach from 1 to 3; expected 0 to 2"):
        step(params, (x, y + 1))
    with pytest.raises(ValueError, match=r"rule 'sofmax' is not one of .* did you mean 'softmax'"):
        step(params, (x, y), rule="sofmax")
    with pytest.raises(ValueError, match=r"shape=\(2, 2\) has 4 pixels and the templates have 6"):
        templates(params, (2, 2))
    with pytest.raises(ValueError, match="batch_size=21"):
        train(params, (x, y), epochs=1, batch_size=21)
    with pytest.raises(ValueError, match="epochs=0"):
        train(params, (x, y), epochs=0)
    with pytest.raises(ValueError, match=r"kernel \(6, 3\) and bias \(4,\)"):
        step(Params(params.kernel, np.zeros(4)), (x, y))
    for changes in ({"inputs": 0}, {"classes": 1}, {"scale": -1.0}):
        ((name, value),) = changes.items()
        with pytest.raises(ValueError, match=f"{name}={value}"):
            Config(**{"inputs": 3} | changes)
    for act in (step, lambda params, batch: train(params, batch, epochs=1)):
        with pytest.raises(ValueError, match=r"x has shape \(0, 6\); at least one picture"):
            act(params, (x[:0], y[:0]))


@pytest.mark.parametrize("rule", linear_classifier.RULES)
def test_integer_templates_learn(rule):
    _, batch = random_problem()
    whole = Params(np.zeros((6, 3), int), np.zeros(3, int))
    real = Params(np.zeros((6, 3), "float32"), np.zeros(3, "float32"))
    np.testing.assert_array_equal(scores(whole, batch[0]), scores(real, batch[0]))
    for act in (step, lambda params, batch, rule: (train(params, batch, epochs=2, rule=rule).params, None)):
        found, expected = act(whole, batch, rule=rule)[0], act(real, batch, rule=rule)[0]
        np.testing.assert_array_equal(found.kernel, expected.kernel)
        assert np.abs(found.kernel).max() > 0


def test_pictures_that_fill_no_batch_are_judged_too():
    x, y = np.array([[1.0], [-1.0], [1.0]]), np.array([1, 0, 0])  # the last contradicts the first
    start = Params(np.array([[-1.0, 1.0]]), np.zeros(2))
    assert train(start, (x[:2], y[:2]), epochs=2, batch_size=2).converged
    assert not train(start, (x, y), epochs=2, batch_size=2).converged
