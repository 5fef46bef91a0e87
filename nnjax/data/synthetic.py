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


class SequenceSample(NamedTuple):
    """Sequences, each with a number that is asked for.

    Attributes:
        x: (n, t, d) inputs.
        y: (n,) targets.
    """

    x: jax.Array
    y: jax.Array


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


def spherules(key: Key, n: int, size: int = 96, *, noise: Array | float = 0.001) -> Split:
    """Pictures of round spherules and of ragged grains on a dark ground, as a microscope shows dust; 0, 1, 0, 1, ...

    They stand in for micrometeorites, whose pictures cannot be had. A spherule's outline is a circle, little flattened;
    a grain's has harmonics 3 to 9 of random sizes and phases, 0.07 to 0.18 of the radius in root mean square, and is
    flattened more. All else is drawn in the same way for both: size, place, color, light, texture, ground. So shape
    alone tells them apart.

    Args:
        key: random key.
        n: number of pictures.
        size: height and width, pixels.
        noise: variance of the pixels' noise, in a range of 1.

    Returns:
        `x` (n, size, size, 3) in [0, 1] and `y` (n,) int32: 0 a spherule, 1 a grain.

    Raises:
        ValueError: a noise known to be negative, or n or size below 1.
    """
    _check(n=n, size=size, noise=noise)
    y = _dealt_classes(n, 2)
    x = jax.vmap(lambda key, ragged: _particle(key, ragged, size))(jax.random.split(key, n), y)
    grain = jax.random.normal(jax.random.fold_in(key, n), x.shape, x.dtype)
    return Split(jnp.clip(x + jnp.sqrt(noise) * grain, 0, 1), y)


def _particle(key: Key, ragged: jax.Array, size: int) -> jax.Array:
    """One picture (size, size, 3) of a particle, a grain where ``ragged`` is 1; lengths in units of half its side."""
    keys = jax.random.split(key, 8)
    radius, down, across, turn, light, uneven = jax.random.uniform(keys[0], (6,))
    place = jnp.linspace(-1, 1, size)
    # Both are moved and turned; the grain is flattened more.
    v, u = place[:, None] - 0.3 * (down - 0.5), place[None, :] - 0.3 * (across - 0.5)
    angle = 2 * jnp.pi * turn
    stretch = jnp.exp(jnp.where(ragged == 1, 0.2, 0.04) * jax.random.normal(keys[1]))
    a = (u * jnp.cos(angle) + v * jnp.sin(angle)) * stretch
    b = (v * jnp.cos(angle) - u * jnp.sin(angle)) / stretch
    around = jnp.arctan2(b, a)
    # A grain's root mean square is at least seven times a spherule's. The mean area does not depend on it.
    harmonic = jnp.arange(3, 10)
    waves = jax.random.normal(keys[2], (7,))
    rough = jnp.where(ragged == 1, 0.07 + 0.11 * uneven, 0.01)
    phases = 2 * jnp.pi * jax.random.uniform(keys[3], (7,))
    wave = jnp.cos(around[..., None] * harmonic[None, None] + phases[None, None]) @ waves
    wave = rough * wave / jnp.sqrt(waves @ waves / 2)
    outline = (0.4 + 0.2 * radius) * jnp.maximum(1 + wave, 0.3) / jnp.sqrt(1 + rough**2)
    far = jnp.sqrt(a**2 + b**2) / outline
    inside = jax.nn.sigmoid((1 - far) * outline * size / 2)
    # Lit from one side, as a ball of this outline would be.
    side, height = jnp.minimum(far, 1), jnp.sqrt(jnp.maximum(1 - far**2, 0))
    toward = side * jnp.cos(around - 2 * jnp.pi * light)
    lit = jnp.maximum(0.5 * toward + 0.85 * height, 0)
    shade = 0.35 + 0.5 * lit + 0.5 * lit**20
    brown = jax.random.uniform(keys[4], (), maxval=0.2)
    color = jax.random.uniform(keys[5], (), minval=0.5, maxval=0.8) * (1 - brown * jnp.arange(3) / 2)
    ground = 0.05 * _clouds(keys[6], size, 6) ** 2
    body = shade * (1 + 0.1 * _clouds(keys[7], size, 14))
    return jnp.clip((ground * (1 - inside))[..., None] + (inside * body)[..., None] * color[None, None], 0, 1)


def _clouds(key: Key, size: int, patches: int) -> jax.Array:
    """Smooth noise (size, size) of variance about a half, with about ``patches`` independent places a side."""
    coarse = jax.random.normal(key, (patches, patches))
    return jax.image.resize(coarse, (size, size), "cubic")


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


def adding_problem(key: Key, n: int, length: int) -> SequenceSample:
    """Sequences of random numbers, two of them marked: what is their sum? (Hochreiter and Schmidhuber, 1997.)

    Every step has a value, uniform on [0, 1), and a mark, which is 1 at one step of the first half and at one of the
    second, and 0 elsewhere (the form of Arjovsky, Shah and Bengio, 2016). Who always says 1 has a mean squared error of
    1/6, the variance of the sum of two such numbers.

    Args:
        key: random key.
        n: number of sequences.
        length: their steps.

    Raises:
        ValueError: n below 1, or a length below 2.
    """
    if n < 1 or length < 2:
        raise ValueError(f"n={n} must be at least 1 and length={length} at least 2")
    value_key, first_key, second_key = jax.random.split(key, 3)
    values = jax.random.uniform(value_key, (n, length))
    half = length // 2
    first = jax.random.randint(first_key, (n,), 0, half)
    second = jax.random.randint(second_key, (n,), half, length)
    marks = jax.nn.one_hot(first, length) + jax.nn.one_hot(second, length)
    return SequenceSample(jnp.stack([values, marks], axis=-1), jnp.sum(values * marks, axis=-1))
