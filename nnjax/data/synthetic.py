"""Synthetic data as pure JAX functions: key first, shapes static, `signal` and `noise` free to be traced.

For a train and a test part of one problem, draw them together and cut: a second key is a second problem.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from nnjax.data.splits import Split
from nnjax.types import Array, Key


class LinearSample(NamedTuple):
    """A linear regression problem: y = x beta + noise.

    Attributes:
        x: (n, d) inputs.
        y: (n,) targets.
        beta: (d,) the true coefficients.
    """

    x: jax.Array
    y: jax.Array
    beta: jax.Array


class BlobSample(NamedTuple):
    """A classification problem of Gaussian clouds.

    Attributes:
        x: (n, d) inputs.
        y: (n,) int32 classes.
        centers: (classes, d).
    """

    x: jax.Array
    y: jax.Array
    centers: jax.Array


def linear_gaussian(
    key: Key, n: int, d: int, *, signal: Array | float = 1.0, noise: Array | float = 0.0
) -> LinearSample:
    """Linear regression on isotropic Gaussian inputs (Hastie et al., 2022).

    x_ij ~ N(0, 1), beta uniform on the sphere with |beta|^2 = `signal`, y = x beta + N(0, `noise`), so the
    variance of y is signal + noise. The same key keeps x, the direction of beta and the standardised noise
    when `signal` and `noise` change.

    Args:
        key: random key.
        n: number of examples.
        d: number of inputs.
        signal: |beta|^2, not negative.
        noise: variance of the target noise, not negative.

    Raises:
        ValueError: a signal or noise known to be negative, or n or d below 1.
    """
    _check(n=n, d=d, signal=signal, noise=noise)
    for_x, for_beta, for_noise = jax.random.split(key, 3)
    return _linear(jax.random.normal(for_x, (n, d)), for_beta, for_noise, signal, noise)


def linear_sphere(key: Key, n: int, d: int, *, signal: Array | float = 1.0, noise: Array | float = 0.0) -> LinearSample:
    """Linear regression on inputs uniform on the sphere of radius sqrt(d) (Mei and Montanari, 2019).

    Arguments, targets and errors as in `linear_gaussian`.
    """
    _check(n=n, d=d, signal=signal, noise=noise)
    for_x, for_beta, for_noise = jax.random.split(key, 3)
    return _linear(jnp.sqrt(d) * _directions(for_x, (n, d)), for_beta, for_noise, signal, noise)


def blobs(
    key: Key,
    n: int,
    d: int = 2,
    classes: int = 3,
    *,
    signal: Array | float = 25.0,
    noise: Array | float = 1.0,
) -> BlobSample:
    """Gaussian clouds round random centres, example i in class i mod `classes`.

    Args:
        key: random key.
        n: number of examples.
        d: number of inputs.
        classes: number of clouds.
        signal: variance of each coordinate of the centres, which are N(0, signal).
        noise: variance of each coordinate within a cloud.

    Raises:
        ValueError: a signal or noise known to be negative, or n, d or classes below 1.
    """
    _check(n=n, d=d, classes=classes, signal=signal, noise=noise)
    for_centers, for_x = jax.random.split(key)
    centers = jnp.sqrt(signal) * jax.random.normal(for_centers, (classes, d))
    y = _dealt_classes(n, classes)
    return BlobSample(centers[y] + jnp.sqrt(noise) * jax.random.normal(for_x, (n, d)), y, centers)


def spirals(
    key: Key,
    n: int,
    classes: int = 2,
    *,
    noise: Array | float = 0.0,
    turns: Array | float = 1.5,
) -> Split:
    """Interleaved spirals in the plane (Lang and Witbrock, 1988), example i in class i mod `classes`.

    The arms run from radius 1/13 to 1, as the original's from 0.5 to 6.5, and arm k starts at the angle
    2 pi k / classes. The way out is drawn as the square root of a uniform number, which spreads the points
    nearly evenly along the arm.

    Args:
        key: random key.
        n: number of examples.
        classes: number of arms.
        noise: variance added to each coordinate.
        turns: how often an arm goes round; the original's three make it hard.

    Returns:
        `x` (n, 2) and `y` (n,) int32.

    Raises:
        ValueError: a noise known to be negative, or n or classes below 1.
    """
    _check(n=n, classes=classes, noise=noise)
    for_radius, for_noise = jax.random.split(key)
    y = _dealt_classes(n, classes)
    along = jnp.sqrt(jax.random.uniform(for_radius, (n,)))
    radius = (1 + 12 * along) / 13
    angle = 2 * jnp.pi * (turns * along + y / classes)
    x = radius[:, None] * jnp.stack([jnp.cos(angle), jnp.sin(angle)], axis=1)
    return Split(x + jnp.sqrt(noise) * jax.random.normal(for_noise, (n, 2)), y)


def _linear(x: jax.Array, for_beta: Key, for_noise: Key, signal: Array | float, noise: Array | float) -> LinearSample:
    beta = jnp.sqrt(signal) * _directions(for_beta, (x.shape[1],))
    return LinearSample(x, x @ beta + jnp.sqrt(noise) * jax.random.normal(for_noise, (x.shape[0],)), beta)


def _directions(key: Key, shape: tuple[int, ...]) -> jax.Array:
    """Unit vectors, uniform on the sphere, along the last axis."""
    gaussian = jax.random.normal(key, shape)
    return gaussian / jnp.linalg.norm(gaussian, axis=-1, keepdims=True)


def _dealt_classes(n: int, classes: int) -> jax.Array:
    """0, 1, ..., 0, 1, ...: any first n are balanced to within one."""
    return jnp.arange(n, dtype=jnp.int32) % classes


def _check(*, signal: Array | float = 0.0, noise: Array | float = 0.0, **sizes: int) -> None:
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name} must be at least 1, got {size}")
    for name, value in (("signal", signal), ("noise", noise)):
        if not isinstance(value, jax.core.Tracer) and not float(value) >= 0:
            raise ValueError(f"{name} is a variance and must not be negative, got {value}")
