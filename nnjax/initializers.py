"""Initial weights: ``(key, shape, dtype) -> Array``, schemes by name.

Normals are plain, not truncated. Normals and uniforms are drawn unit by unit: the weights of output unit j depend
on the key and j alone, and the first inputs' weights do not depend on how many follow. A layer inside a larger
allocation therefore starts with the same numbers (see `nnjax.models.padded_mlp`); only `orthogonal` cannot.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from nnjax.naming import choose
from nnjax.types import Array, Key

Initializer = Callable[..., Array]


def _fans(shape: Sequence[int]) -> tuple[int, int]:
    """Inputs and outputs of a unit; kernels are (..., d_in, d_out), convolutions (kh, kw, c_in, c_out)."""
    if len(shape) < 2:
        raise ValueError(f"shape={tuple(shape)} must have at least two axes, (d_in, d_out)")
    field = math.prod(shape[:-2])
    return field * shape[-2], field * shape[-1]


def _by_unit(draw: Callable[..., Array], key: Key, shape: Sequence[int], dtype: Any) -> Array:
    """Numbers of ``draw(key, shape, dtype)`` whose value at [..., i, j] does not depend on the last two sizes."""
    *field, d_in, d_out = shape

    def unit(j: Array) -> Array:
        return draw(jax.random.fold_in(key, j), (d_in, *field), dtype)

    return jnp.moveaxis(jax.vmap(unit)(jnp.arange(d_out)), (0, 1), (-1, -2))


def scaled_normal(variance: Callable[[int, int], float]) -> Initializer:
    """N(0, variance(fan_in, fan_out)) for each weight."""

    def init(key: Key, shape: Sequence[int], dtype: Any = jnp.float32) -> Array:
        return math.sqrt(variance(*_fans(shape))) * _by_unit(jax.random.normal, key, shape, dtype)

    return init


def scaled_uniform(variance: Callable[[int, int], float]) -> Initializer:
    """U(-limit, limit) of variance limit^2/3 = variance(fan_in, fan_out) for each weight."""

    def init(key: Key, shape: Sequence[int], dtype: Any = jnp.float32) -> Array:
        draw = partial(jax.random.uniform, minval=-1.0, maxval=1.0)
        return math.sqrt(3 * variance(*_fans(shape))) * _by_unit(draw, key, shape, dtype)

    return init


def zeros() -> Initializer:
    """All zero: units of a layer stay identical for ever."""
    return jax.nn.initializers.zeros


def small_normal() -> Initializer:
    """N(0, 0.01^2)."""
    return scaled_normal(lambda fan_in, fan_out: 1e-4)


def standard_normal() -> Initializer:
    """N(0, 1)."""
    return scaled_normal(lambda fan_in, fan_out: 1.0)


def _xavier(mode: str, gain: float) -> Callable[[int, int], float]:
    if mode not in ("fan_avg", "fan_in"):
        raise ValueError(f"mode={mode!r} must be 'fan_avg' or 'fan_in'")
    if mode == "fan_in":
        return lambda fan_in, fan_out: gain**2 / fan_in
    return lambda fan_in, fan_out: gain**2 * 2.0 / (fan_in + fan_out)


def xavier_normal(mode: str = "fan_avg", gain: float = 1.0) -> Initializer:
    """gain^2 * 2/(fan_in + fan_out) (Glorot and Bengio, 2010), or gain^2/fan_in for ``mode="fan_in"``."""
    return scaled_normal(_xavier(mode, gain))


def xavier_uniform(mode: str = "fan_avg", gain: float = 1.0) -> Initializer:
    """Limit gain sqrt(6/(fan_in + fan_out)) (Glorot and Bengio, 2010), or gain sqrt(3/fan_in) for "fan_in".

    The variances are those of `xavier_normal`.
    """
    return scaled_uniform(_xavier(mode, gain))


def lecun_normal() -> Initializer:
    """1/fan_in (LeCun et al., 1998)."""
    return scaled_normal(lambda fan_in, fan_out: 1.0 / fan_in)


def he_normal() -> Initializer:
    """2/fan_in (He et al., 2015)."""
    return scaled_normal(lambda fan_in, fan_out: 2.0 / fan_in)


def he_uniform() -> Initializer:
    """Limit sqrt(6/fan_in), variance 2/fan_in (He et al., 2015)."""
    return scaled_uniform(lambda fan_in, fan_out: 2.0 / fan_in)


def orthogonal(gain: float = 1.0) -> Initializer:
    """gain times a random matrix of orthonormal columns, or rows where those are fewer (Saxe et al., 2014).

    The matrix is (fan_in, d_out); a convolution's field and input channels are its rows. It is uniform over all
    such matrices (Haar). Its entries depend on one another, so, unlike the other schemes', a smaller layer is not
    the corner of a larger one. The factorization runs in float32 at least. Many at once (vmap) are slow on CPUs.
    """

    def init(key: Key, shape: Sequence[int], dtype: Any = jnp.float32) -> Array:
        _fans(shape)
        whole = jnp.promote_types(dtype, jnp.float32)
        return jax.nn.initializers.orthogonal(gain)(key, tuple(shape), whole).astype(dtype)

    return init


_BY_NAME: dict[str, Callable[..., Initializer]] = {
    f.__name__: f
    for f in (
        zeros, small_normal, standard_normal, xavier_normal, xavier_uniform, lecun_normal, he_normal, he_uniform,
        orthogonal,
    )
}  # fmt: skip

NAMES = tuple(_BY_NAME)


def by_name(name: str, **kw: Any) -> Initializer:
    """The scheme called ``name``; ValueError with the nearest name where there is none."""
    return choose("initializer", name, _BY_NAME)(**kw)


_GAINS: dict[str, dict[str, float]] = {
    "textbook": {"identity": 1.0, "logistic": 1.0, "tanh": 4.0, "relu": math.sqrt(2.0)},
    "pytorch": {
        "identity": 1.0,
        "logistic": 1.0,
        "tanh": 5 / 3,
        "relu": math.sqrt(2.0),
        "leaky_relu": math.sqrt(2 / (1 + 0.01**2)),
    },
}


def gain(activation: str, convention: str = "textbook") -> float:
    """A usual ``gain`` of `xavier_normal`, `xavier_uniform` and `orthogonal` before an activation.

    Both conventions have 1 for identity and logistic and sqrt(2) for ReLU, which keeps the signal's variance with
    ``mode="fan_in"`` (He et al., 2015). They disagree on tanh: a textbook's table prints 4, a factor derived
    for uniform weights before logistic units; PyTorch has 5/3. Neither keeps a deep net's signal and gradient,
    which takes 1 (Poole et al., 2016): 4 drives tanh units into saturation.

    Args:
      activation: a name in `nnjax.activations`.
      convention: "textbook" or "pytorch".

    Raises:
      ValueError: an unknown convention, or an activation that it gives no gain for.
    """
    return choose("activation with a gain", activation, choose("convention", convention, _GAINS))
