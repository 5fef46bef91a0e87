"""Losses against scikit-learn and NumPy."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import sklearn.metrics

from nnjax import losses

RNG = np.random.default_rng(0)
N, K = 40, 7
LOGITS = RNG.normal(0, 3, (N, K)).astype(np.float32)
LABELS = RNG.integers(0, K, N)
ONE_HOT = np.eye(K, dtype=np.float32)[LABELS]


def test_cross_entropy_is_scikit_learns():
    made = losses.cross_entropy(LOGITS, LABELS)
    assert made.shape == (N,)
    assert made.dtype == jnp.float32
    probability = scipy.special.softmax(LOGITS.astype(float), axis=1)
    np.testing.assert_allclose(made, -np.log(probability[np.arange(N), LABELS]), rtol=2e-5, atol=1e-6)
    oracle = sklearn.metrics.log_loss(LABELS, probability, labels=range(K))
    np.testing.assert_allclose(made.mean(), oracle, rtol=1e-5)


@pytest.mark.parametrize("dtype", [np.int32, np.uint8, np.int8])
def test_one_hot_equals_integer_labels(dtype):
    labels = LABELS.astype(dtype)
    for loss in (losses.cross_entropy, losses.zero_one):
        np.testing.assert_allclose(loss(LOGITS, labels), loss(LOGITS, ONE_HOT), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        losses.cross_entropy(LOGITS, ONE_HOT.astype(np.int32)),
        losses.cross_entropy(LOGITS, labels),
        rtol=1e-5,
        atol=1e-6,
    )


def test_soft_labels():
    soft = RNG.dirichlet(np.ones(K), N).astype(np.float32)
    expected = -(soft * scipy.special.log_softmax(LOGITS.astype(float), axis=1)).sum(1)
    np.testing.assert_allclose(losses.cross_entropy(LOGITS, soft), expected, rtol=1e-5)


@pytest.mark.parametrize("huge", [1e4, 1e38])
def test_huge_logits_stay_finite(huge):
    logits = np.array([[huge, -huge, 0], [-huge, huge, 0]], np.float32)
    for labels in (np.array([0, 0]), np.eye(3, dtype=np.float32)[[0, 0]]):
        made = losses.cross_entropy(logits, labels)
        np.testing.assert_allclose(made, [0, 2 * huge], rtol=1e-6)
        gradient = jax.grad(lambda x, y=labels: losses.cross_entropy(x, y).sum())(logits)
        np.testing.assert_allclose(gradient, [[0, 0, 0], [-1, 1, 0]], atol=1e-6)


def test_the_gradient_is_softmax_minus_target():
    gradient = jax.grad(lambda x: losses.cross_entropy(x, LABELS).sum())(LOGITS)
    np.testing.assert_allclose(gradient, scipy.special.softmax(LOGITS, axis=1) - ONE_HOT, atol=1e-6)


def test_the_worked_example():
    example = json.loads(Path(__file__).with_name("worked_examples.json").read_text())["scores"]
    scores, true = (
        np.array([example["scores"]], np.float32),
        np.array([example["classes"].index(example["true"])]),
    )
    np.testing.assert_allclose(losses.cross_entropy(scores, true), [example["cross_entropy"]], rtol=1e-6)
    np.testing.assert_array_equal(losses.zero_one(scores, true), [1])


def test_zero_one_is_scikit_learns():
    made = losses.zero_one(LOGITS, LABELS)
    assert made.dtype == jnp.float32
    assert made.shape == (N,)
    assert set(np.unique(made)) == {0, 1}
    assert float(made.mean()) == pytest.approx(sklearn.metrics.zero_one_loss(LABELS, LOGITS.argmax(1)))
    np.testing.assert_array_equal(losses.zero_one(LOGITS, LOGITS.argmax(1)), np.zeros(N))
    np.testing.assert_array_equal(losses.zero_one(LOGITS, (LOGITS.argmax(1) + 1) % K), np.ones(N))


def test_squared_errors_are_scikit_learns():
    target = RNG.normal(size=(N, K)).astype(np.float32)
    made = losses.squared_error(LOGITS, target)
    np.testing.assert_allclose(made, ((LOGITS - target) ** 2).sum(1), rtol=1e-5)
    np.testing.assert_allclose(made.mean() / K, sklearn.metrics.mean_squared_error(target, LOGITS), rtol=1e-5)
    np.testing.assert_array_equal(losses.half_squared_error(LOGITS, target), made / 2)
    gradient = jax.grad(lambda x: losses.half_squared_error(x, target).sum())(LOGITS)
    np.testing.assert_array_equal(gradient, LOGITS - target)
    one = losses.squared_error(LOGITS[:, 0], target[:, 0])
    np.testing.assert_allclose(one, (LOGITS[:, 0] - target[:, 0]) ** 2, rtol=1e-6)
    assert one.shape == (N,)


@pytest.mark.parametrize("name", ["cross_entropy", "zero_one", "squared_error", "half_squared_error"])
def test_jit_vmap_and_examples_apart(name):
    loss = getattr(losses, name)
    target = LABELS if name in ("cross_entropy", "zero_one") else ONE_HOT
    whole = loss(LOGITS, target)
    np.testing.assert_allclose(jax.jit(loss)(LOGITS, target), whole, rtol=1e-5, atol=1e-6)
    lanes = jax.vmap(loss)(np.stack([LOGITS, -LOGITS]), np.stack([target, target]))
    np.testing.assert_allclose(lanes, np.stack([whole, loss(-LOGITS, target)]), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(loss(LOGITS[3:5], target[3:5]), whole[3:5], rtol=1e-5, atol=1e-6)
    if name == "cross_entropy":
        assert loss(LOGITS.astype(jnp.bfloat16), target).dtype == jnp.bfloat16


def test_shapes_that_would_spread_are_refused():
    with jax.numpy_rank_promotion("allow"):
        for loss in (losses.squared_error, losses.half_squared_error):
            with pytest.raises(ValueError, match=r"\(40, 1\) and target \(40,\) must have one shape"):
                loss(LOGITS[:, :1], LOGITS[:, 0])
        for loss in (losses.cross_entropy, losses.zero_one):
            for target in (LABELS[:, None], LABELS[:5], ONE_HOT[:, :3], LABELS.reshape(5, 8)):
                with pytest.raises(ValueError, match=r"must be \(n,\) or \(n, k\)"):
                    loss(LOGITS, target)
