"""Data: splits, scaling, one-hot labels, label noise and synthetic problems."""

import itertools
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import preprocessing

from nnjax import data

KEY = jax.random.key(0)
FRACTIONS = st.lists(st.integers(1, 20), min_size=1, max_size=4).flatmap(
    lambda weights: st.integers(0, 20).map(lambda rest: [w / (sum(weights) + rest) for w in weights])
)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(y=st.lists(st.integers(0, 6), min_size=80, max_size=300), parts=FRACTIONS, seed=st.integers(0, 9))
def test_stratified_split(y, parts, seed):
    labels = np.array(y)
    found = data.stratified_split(labels, parts, seed=seed)
    taken = np.concatenate(found)
    assert len(set(taken.tolist())) == taken.size == round(sum(parts) * len(y))
    for indices, fraction in zip(found, parts, strict=True):
        assert abs(indices.size - fraction * len(y)) <= 1
        share = np.bincount(labels) * indices.size / len(y)
        assert np.abs(np.bincount(labels[indices], minlength=share.size) - share).max() < 1


def test_stratified_sizes_seed_and_errors():
    y = np.array(["cat"] * 30 + ["dog"] * 10 + ["llama"])
    train, test = data.stratified_split(y, (20, 8), seed=3)
    assert (train.size, test.size) == (20, 8)
    assert (y[test] == "dog").sum() in (1, 2)
    np.testing.assert_array_equal(train, data.stratified_split(y, (20, 8), seed=3)[0])
    assert not np.array_equal(train, data.stratified_split(y, (20, 8), seed=4)[0])
    assert np.any(np.diff(train) < 0)
    for parts in ((30, 12), (0.5, 0.6), (0.5, 0.0), (5, 0), (5, 0.5), (), (0.001,)):
        with pytest.raises(ValueError, match=r"part|fraction"):
            data.stratified_split(y, parts, seed=0)
    with pytest.raises(ValueError, match="shape"):
        data.stratified_split(y[:, None], (0.5,), seed=0)


def test_every_class_is_rounded_up_in_turn():
    """Ten classes of 3 and a part of 5: each class gives 0 or 1, with no class favoured."""
    y = np.repeat(np.arange(10), 3)
    drawn = [np.bincount(y[data.stratified_split(y, (5,), seed=seed)[0]], minlength=10) for seed in range(400)]
    assert np.max(drawn) == 1
    # Binomial(400, 1/2): standard deviation 10.
    assert np.abs(np.sum(drawn, axis=0) - 200).max() < 45


@settings(max_examples=100, deadline=None, derandomize=True)
@given(groups=st.lists(st.integers(0, 40), min_size=100, max_size=200), seed=st.integers(0, 9))
def test_group_split(groups, seed):
    labels = np.array(groups)
    fractions = (0.5, 0.25, 0.25)
    try:
        parts = data.group_split(labels, fractions, seed=seed)
    except ValueError:
        assert np.bincount(labels).max() > 20
        return
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(groups)))
    sides = [set(labels[part].tolist()) for part in parts]
    assert all(one.isdisjoint(other) for one, other in itertools.combinations(sides, 2))
    for part, fraction in zip(parts, fractions, strict=True):
        assert abs(part.size - fraction * labels.size) <= np.bincount(labels).max()


def test_group_split_errors():
    with pytest.raises(ValueError, match="2 groups are too few"):
        data.group_split(np.array([0] * 9 + [1]), (0.4, 0.3, 0.3), seed=0)
    with pytest.raises(ValueError, match="fractions"):
        data.group_split(np.arange(9), (1, 2), seed=0)


def test_group_split_of_no_vector_or_no_part():
    with pytest.raises(ValueError, match=r"groups must have shape \(n,\), got \(3, 2\)"):
        data.group_split(np.zeros((3, 2)), (0.5,), seed=0)
    with pytest.raises(ValueError, match="at least one part is needed"):
        data.group_split(np.arange(3), (), seed=0)


def test_take():
    part = data.take(data.Split(np.arange(6).reshape(3, 2), np.array([7, 8, 9])), np.array([2, 0]))
    assert part.x.tolist() == [[4, 5], [0, 1]]
    assert part.y.tolist() == [9, 7]


# --- scaling and one-hot -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [np.asarray, jnp.asarray], ids=["numpy", "jax"])
def test_scaling_agrees_with_scikit_learn(kind):
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(50, 4)) * [1, 10, 0.01, 3] + [0, 100, 1, -5]).astype(np.float32)
    x[:, 3] = 0.1
    new = (2 * x[:7]).astype(np.float32)
    for fit, oracle in (
        (data.fit_standardizer, preprocessing.StandardScaler()),
        (data.fit_min_max, preprocessing.MinMaxScaler()),
    ):
        scale = fit(kind(x))
        oracle.fit(x.astype(np.float64))
        for values in (x, new):
            expected = oracle.transform(values.astype(np.float64))
            # Column 2 has mean 1 and spread 0.01: float32 leaves 1e-7 / 0.01 of a unit.
            np.testing.assert_allclose(scale(kind(values)), expected, atol=3e-4, rtol=1e-4)
        np.testing.assert_array_equal(scale(kind(x))[:, 3], 0)
        assert scale(kind(x)).dtype == np.float32
        inside = jax.jit(lambda s, v: s(v))(scale, jnp.asarray(x))
        np.testing.assert_allclose(inside, scale(x), atol=3e-4)
        assert scale(kind(x[0])).shape == (4,)
    assert isinstance(data.fit_standardizer(x)(x), np.ndarray)


def test_scaling_by_channel_and_inside_jit():
    images = np.random.default_rng(0).integers(0, 256, (6, 5, 4, 3), np.uint8)
    scale = data.fit_standardizer(images, axis=(0, 1, 2))
    assert scale.mean.shape == (1, 1, 3)
    np.testing.assert_allclose(scale.mean.ravel(), images.mean(axis=(0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(np.std(scale(images), axis=(0, 1, 2)), 1, rtol=1e-5)
    traced = jax.jit(lambda x: data.fit_standardizer(x, axis=(0, 1, 2))(x))(jnp.asarray(images))
    np.testing.assert_allclose(traced, scale(images), atol=1e-5)


def test_scaling_errors():
    for fit in (data.fit_standardizer, data.fit_min_max):
        with pytest.raises(ValueError, match="no examples"):
            fit(np.zeros((0, 3)))
        with pytest.raises(ValueError, match="axis 0"):
            fit(np.zeros((2, 3)), axis=1)


def test_one_hot_worked_example():
    example = json.loads((Path(__file__).parent / "worked_examples.json").read_text())["one_hot"]
    assert data.one_hot("turtle", example["order"]).tolist() == example["turtle"]
    assert data.one_hot(2, 4).tolist() == example["turtle"]
    rows = data.one_hot(np.array([["cat", "llama"]]), example["order"])
    assert rows.tolist() == [[[1, 0, 0, 0], [0, 0, 0, 1]]]
    assert rows.dtype == np.float32
    np.testing.assert_array_equal(
        jax.jit(lambda y: data.one_hot(y, 4))(jnp.array([2, 9])), np.eye(4)[[2, 0]] * [[1], [0]]
    )


@pytest.mark.parametrize(
    ("y", "classes", "says"),
    [
        ([0, 4], 4, "label 4 is not one of the 4 classes"),
        (np.array(-1), 4, "label -1"),
        ([0.0], 4, "whole numbers"),
        (["tutle"], ["cat", "turtle"], "'tutle' is no class; did you mean 'turtle'"),
    ],
)
def test_one_hot_errors(y, classes, says):
    with pytest.raises(ValueError, match=says):
        data.one_hot(y, classes)


# --- label noise -------------------------------------------------------------------------------------------

LABELS = np.arange(20_000) % 10


def test_noise_is_nested_in_its_rate():
    rates = jnp.array([0.0, 0.1, 0.2, 0.5, 1.0])
    noisy = np.asarray(jax.vmap(lambda rate: data.noisy_labels(KEY, LABELS, rate, 10))(rates))
    flipped = noisy != LABELS
    assert not flipped[0].any()
    assert flipped[-1].all()
    for less, more in itertools.pairwise(noisy):
        changed = less != LABELS
        np.testing.assert_array_equal(less[changed], more[changed])
    # Binomial: five standard deviations at n = 20,000.
    np.testing.assert_allclose(flipped.mean(axis=1), rates, atol=5 * np.sqrt(0.25 / LABELS.size))
    np.testing.assert_array_equal(noisy[1], data.noisy_labels(KEY, LABELS, 0.1, 10))


def test_wrong_labels_are_uniform_over_the_other_classes():
    shift = (np.asarray(data.noisy_labels(KEY, LABELS, 1.0, 10)) - LABELS) % 10
    counts = np.bincount(shift, minlength=10)
    assert counts[0] == 0
    expected = LABELS.size / 9
    # Chi-squared with 8 degrees of freedom: 26.1 is its 99.9 % point.
    assert ((counts[1:] - expected) ** 2 / expected).sum() < 26.1


def test_noise_does_not_depend_on_how_many_follow():
    long = data.noisy_labels(KEY, LABELS, 0.3, 10)
    for n in (1, 2, 7, 1000):
        np.testing.assert_array_equal(data.noisy_labels(KEY, LABELS[:n], 0.3, 10), long[:n])


def test_noise_under_transformations():
    keys = jax.random.split(KEY, 3)
    labels = jnp.asarray(LABELS[:500], jnp.uint8)
    many = jax.jit(jax.vmap(data.noisy_labels, in_axes=(0, None, None, None)), static_argnums=3)
    noisy = many(keys, labels, 0.4, 10)
    many(keys, labels, 0.6, 10)
    assert many._cache_size() == 1
    assert noisy.dtype == jnp.uint8
    for key, row in zip(keys, noisy, strict=True):
        np.testing.assert_array_equal(row, data.noisy_labels(key, labels, 0.4, 10))
    assert (noisy[0] != noisy[1]).any()
    with jax.enable_x64(True):
        np.testing.assert_array_equal(data.noisy_labels(keys[0], labels, 0.4, 10), noisy[0])


@pytest.mark.parametrize("rate", [-0.1, 1.1, float("nan"), np.float32(2)])
def test_bad_rates(rate):
    with pytest.raises(ValueError, match="rate must be from 0 to 1"):
        data.noisy_labels(KEY, LABELS, rate, 10)


def test_bad_noise_arguments():
    with pytest.raises(ValueError, match="at least 2"):
        data.noisy_labels(KEY, LABELS * 0, 0.1, 1)
    with pytest.raises(ValueError, match="label 5 is not one"):
        data.noisy_labels(KEY, np.array([1, 5]), 0.1, 3)


# --- synthetic problems ------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [data.linear_gaussian, data.linear_sphere])
def test_linear_problems(make):
    n, d = 40_000, 20
    x, y, beta = make(KEY, n, d, signal=4.0, noise=0.25)
    assert (x.shape, y.shape, beta.shape) == ((n, d), (n,), (d,))
    np.testing.assert_allclose(beta @ beta, 4, rtol=1e-5)
    residual = np.asarray(y - x @ beta)
    # Five standard errors of a mean and of a variance (sqrt(2/n) of it) at n = 40,000.
    assert abs(residual.mean()) < 5 * 0.5 / np.sqrt(n)
    assert residual.var() == pytest.approx(0.25, rel=5 * np.sqrt(2 / n))
    np.testing.assert_allclose(np.mean(x, axis=0), 0, atol=5 / np.sqrt(n))
    np.testing.assert_allclose(np.cov(x.T), np.eye(d), atol=5 * np.sqrt(2 / n))
    assert np.var(y) == pytest.approx(4.25, rel=0.05)
    radii = np.linalg.norm(x, axis=1)
    if make is data.linear_sphere:
        np.testing.assert_allclose(radii, np.sqrt(d), rtol=1e-5)
        # A coordinate of the sphere has fourth moment 3 d / (d + 2), not the Gaussian's 3.
        assert np.mean(np.asarray(x) ** 4) == pytest.approx(3 * d / (d + 2), rel=0.02)
    else:
        assert (radii**2).var() == pytest.approx(2 * d, rel=0.1)
        assert np.mean(np.asarray(x) ** 4) == pytest.approx(3, rel=0.02)


@pytest.mark.parametrize("make", [data.linear_gaussian, data.linear_sphere])
def test_noise_changes_nothing_else_and_may_be_traced(make):
    noises = jnp.array([0.0, 1.0, 4.0])
    x, y, beta = jax.jit(jax.vmap(lambda noise: make(KEY, 30, 5, signal=2.0, noise=noise)))(noises)
    np.testing.assert_array_equal(x[0], x[2])
    np.testing.assert_array_equal(beta[0], beta[2])
    np.testing.assert_allclose(y[2] - y[0], 2 * (y[1] - y[0]), atol=1e-4)
    np.testing.assert_allclose(y[0], x[0] @ beta[0], atol=1e-5)
    with jax.enable_x64(True):
        assert make(KEY, 3, 2).y.dtype == jnp.float64


def test_directions_of_beta_are_uniform():
    betas = jax.vmap(lambda key: data.linear_gaussian(key, 1, 3).beta)(jax.random.split(KEY, 4000))
    np.testing.assert_allclose(np.mean(betas, axis=0), 0, atol=5 / np.sqrt(3 * 4000))
    np.testing.assert_allclose(np.mean(np.asarray(betas) ** 2, axis=0), 1 / 3, atol=5 * 0.3 / np.sqrt(4000))


def test_blobs():
    x, y, centers = data.blobs(KEY, 30_000, d=4, classes=3, noise=0.5)
    assert np.bincount(y).tolist() == [10_000] * 3
    for k in range(3):
        cloud = np.asarray(x)[np.asarray(y) == k]
        np.testing.assert_allclose(cloud.mean(axis=0), centers[k], atol=5 * np.sqrt(0.5 / 10_000))
        np.testing.assert_allclose(cloud.var(axis=0), 0.5, rtol=5 * np.sqrt(2 / 10_000))
    many = jax.vmap(lambda key: data.blobs(key, 1, d=2, classes=2, signal=9.0).centers)(jax.random.split(KEY, 2000))
    assert np.var(many) == pytest.approx(9, rel=5 * np.sqrt(2 / 8000))


@pytest.mark.parametrize("classes", [2, 3])
def test_spirals(classes):
    x, y = data.spirals(KEY, 3000, classes, turns=2.0)
    assert np.bincount(y).tolist() == [3000 // classes] * classes
    radius = np.linalg.norm(x, axis=1)
    assert radius.min() >= 1 / 13 - 1e-6
    assert radius.max() <= 1 + 1e-6
    # What remains of the angle, in turns, once the winding at this radius is undone, is k / classes.
    turn = np.arctan2(x[:, 1], x[:, 0]) / (2 * np.pi) - 2.0 * (13 * radius - 1) / 12
    off = (turn - np.asarray(y) / classes + 0.5) % 1 - 0.5
    np.testing.assert_allclose(off, 0, atol=1e-4)
    noisy = data.spirals(KEY, 3000, classes, turns=2.0, noise=0.01)
    assert np.var(noisy.x - x) == pytest.approx(0.01, rel=5 * np.sqrt(2 / 6000))
    jax.jit(jax.vmap(lambda turns, noise: data.spirals(KEY, 4, classes, turns=turns, noise=noise)))(
        jnp.ones(2), jnp.ones(2)
    )


def test_bad_synthetic_arguments():
    for call in (
        lambda: data.linear_gaussian(KEY, 0, 3),
        lambda: data.linear_sphere(KEY, 3, 3, noise=-1.0),
        lambda: data.blobs(KEY, 3, classes=0),
        lambda: data.spirals(KEY, 3, noise=float("nan")),
    ):
        with pytest.raises(ValueError, match=r"at least 1|must not be negative"):
            call()


MAKERS = {
    "linear_gaussian": lambda key, level: data.linear_gaussian(key, 6, 2, signal=level, noise=level),
    "linear_sphere": lambda key, level: data.linear_sphere(key, 6, 2, signal=level, noise=level),
    "blobs": lambda key, level: data.blobs(key, 6, d=2, classes=3, signal=level, noise=level),
    "spirals": lambda key, level: data.spirals(key, 6, 3, noise=level, turns=level),
}


@pytest.mark.parametrize("name", MAKERS)
def test_synthetic_problems_compile_once_and_lanes_are_those_made_alone(name):
    make, levels, keys = MAKERS[name], jnp.asarray([0.5, 2.0]), jax.random.split(KEY, 2)
    lanes = jax.jit(jax.vmap(make))
    found = lanes(keys, levels)
    lanes(keys[::-1], 2 * levels)
    assert lanes._cache_size() == 1
    for lane in range(2):
        alone = make(keys[lane], float(levels[lane]))
        for part, value in alone._asdict().items():
            np.testing.assert_allclose(getattr(found, part)[lane], value, rtol=1e-5, atol=1e-5)
    assert not np.array_equal(found.x[0], found.x[1])
    with jax.enable_x64(True):
        wide = jax.eval_shape(make, KEY, jnp.asarray(0.5))
        assert wide.x.dtype == jnp.float64


def test_take_and_scales_trace():
    split = data.Split(jnp.arange(6.0).reshape(3, 2), jnp.array([7, 8, 9]))
    some = jax.jit(jax.vmap(lambda place: data.take(split, place)))(jnp.array([[0, 2], [1, 1]]))
    assert some.x.tolist() == [[[0, 1], [4, 5]], [[2, 3], [2, 3]]]
    assert some.y.tolist() == [[7, 9], [8, 8]]
    scale = data.Standardizer(jnp.array([1.0, 2.0]), jnp.array([2.0, 4.0]))
    assert jax.jit(lambda s, x: s(x))(scale, split.x).tolist() == [[-0.5, -0.25], [0.5, 0.25], [1.5, 0.75]]
    assert data.MinMaxScaler(np.zeros(2), np.array([4.0, 5.0]))(np.array([2.0, 5.0])).tolist() == [0.5, 1.0]
