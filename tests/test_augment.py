"""Crops are windows of the padded picture, and about half of them are mirrored."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnjax.data.augment import random_crop_and_flip

KEY = jax.random.key(0)
X = jnp.arange(1.0, 1 + 64 * 5 * 6 * 3).reshape(64, 5, 6, 3)  # every number once, none zero


def windows(image, padding):
    """Every window of the padded picture and its mirror image, by (down, right, mirrored)."""
    h, w, _ = image.shape
    padded = np.pad(image, ((padding, padding), (padding, padding), (0, 0)))
    return {
        (i, j, mirrored): padded[i : i + h, j : j + w][:, :: -1 if mirrored else 1]
        for i in range(2 * padding + 1)
        for j in range(2 * padding + 1)
        for mirrored in (False, True)
    }


def found(x, y, padding):
    """Which window every output is; fails where one is none or several."""
    places = []
    for image, out in zip(np.asarray(x), np.asarray(y), strict=True):
        (place,) = [where for where, window in windows(image, padding).items() if np.array_equal(window, out)]
        places.append(place)
    return np.array(places)


def test_without_padding_only_mirrored():
    y = random_crop_and_flip(KEY, X, padding=0)
    mirrored = found(X, y, 0)[:, 2]
    assert 0 < mirrored.sum() < len(X)
    np.testing.assert_array_equal(y, jnp.where(mirrored[:, None, None, None] == 1, X[:, :, ::-1], X))


@pytest.mark.parametrize("padding", [1, 2])
def test_every_output_is_a_window_of_its_own_picture(padding):
    y = random_crop_and_flip(KEY, X, padding=padding)
    assert y.shape == X.shape
    assert y.dtype == X.dtype
    places = found(X, y, padding)
    for axis in (0, 1):
        assert set(places[:, axis]) == set(range(2 * padding + 1))  # every shift occurs
    assert not np.array_equal(places[:, 0], places[:, 1])  # down and right apart


def test_shifts_are_uniform_and_half_are_mirrored():
    n = 4000
    x = jnp.zeros((n, 9, 9, 1)).at[:, 4, 4].set(1)
    x = x.at[:, 4, 3].set(2)  # left of the one, so right of it when mirrored
    y = np.asarray(random_crop_and_flip(KEY, x))[..., 0]
    rows = (y == 1).any(2).argmax(1)
    assert ((y == 1).sum((1, 2)) == 1).all()  # a shift of at most 4 never loses the middle
    counts = np.bincount(rows, minlength=9)
    assert ((counts - n / 9) ** 2 / (n / 9)).sum() < 26.1  # chi-squared of 8 degrees, p = 0.001
    row = y[np.arange(n), rows]
    both = (row == 2).any(1)
    mirrored = (row[both] == 2).argmax(1) > (row[both] == 1).argmax(1)
    assert abs(mirrored.mean() - 0.5) < 4 * np.sqrt(0.25 / both.sum())


def test_jit_vmap_and_integer_pictures():
    crop = partial(random_crop_and_flip, padding=2)
    whole = crop(KEY, X)
    np.testing.assert_array_equal(jax.jit(crop)(KEY, X), whole)
    keys = jax.random.split(KEY, 2)
    lanes = jax.vmap(crop)(keys, jnp.stack([X, X]))
    np.testing.assert_array_equal(lanes, jnp.stack([crop(key, X) for key in keys]))
    assert not np.array_equal(lanes[0], lanes[1])
    counts = X.astype(jnp.int32)
    np.testing.assert_array_equal(crop(KEY, counts), whole.astype(jnp.int32))
    assert crop(KEY, counts.astype(jnp.uint8)).dtype == jnp.uint8


@pytest.mark.parametrize("shape", [(5, 6, 3), (5, 6), (2, 5, 6, 3, 1)])
def test_four_axes(shape):
    with pytest.raises(ValueError, match="must have shape"):
        random_crop_and_flip(KEY, jnp.zeros(shape))


def test_no_negative_padding():
    with pytest.raises(ValueError, match="padding=-1 must not be negative"):
        random_crop_and_flip(KEY, X, padding=-1)
