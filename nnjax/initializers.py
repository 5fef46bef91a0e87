"""Initial weights: ``(key, shape, dtype) -> Array``, schemes by name.

Normals are plain, not truncated, and drawn unit by unit: the weights of output unit j depend on the key and j
alone, and the first inputs' weights do not depend on how many follow. A layer inside a larger allocation
therefore starts with the same numbers (see `nnjax.models.padded_mlp`).
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from nnjax.types import Array, Key

Initializer = Callable[..., Array]


def _fans(shape: Sequence[int]) -> tuple[int, int]:
    """Inputs and outputs of a unit; kernels are (..., d_in, d_out), convolutions (kh, kw, c_in, c_out)."""
    if len(shape) < 2:
        raise ValueError(f"shape={tuple(shape)} must have at least two axes, (d_in, d_out)")
    field = math.prod(shape[:-2])
    return field * shape[-2], field * shape[-1]


def _normal_by_unit(key: Key, shape: Sequence[int], dtype: Any) -> Array:
    """Standard normals whose value at [..., i, j] does not depend on the last two sizes."""
    *field, d_in, d_out = shape

    def unit(j: Array) -> Array:
        return jax.random.normal(jax.random.fold_in(key, j), (d_in, *field), dtype)

    return jnp.moveaxis(jax.vmap(unit)(jnp.arange(d_out)), (0, 1), (-1, -2))


def scaled_normal(variance: Callable[[int, int], float]) -> Initializer:
    """N(0, variance(fan_in, fan_out)) for each weight."""

    def init(key: Key, shape: Sequence[int], dtype: Any = jnp.float32) -> Array:
        return math.sqrt(variance(*_fans(shape))) * _normal_by_unit(key, shape, dtype)

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


def xavier_normal(mode: str = "fan_avg", gain: float = 1.0) -> Initializer:
    """gain^2 * 2/(fan_in + fan_out) (Glorot and Bengio, 2010), or gain^2/fan_in for ``mode="fan_in"``."""
    if mode not in ("fan_avg", "fan_in"):
        raise ValueError(f"mode={mode!r} must be 'fan_avg' or 'fan_in'")
    if mode == "fan_in":
        return scaled_normal(lambda fan_in, fan_out: gain**2 / fan_in)
    return scaled_normal(lambda fan_in, fan_out: gain**2 * 2.0 / (fan_in + fan_out))


def lecun_normal() -> Initializer:
    """1/fan_in (LeCun et al., 1998)."""
    return scaled_normal(lambda fan_in, fan_out: 1.0 / fan_in)


def he_normal() -> Initializer:
    """2/fan_in (He et al., 2015)."""
    return scaled_normal(lambda fan_in, fan_out: 2.0 / fan_in)


_BY_NAME: dict[str, Callable[..., Initializer]] = {
    f.__name__: f for f in (zeros, small_normal, standard_normal, xavier_normal, lecun_normal, he_normal)
}


def by_name(name: str, **kw: Any) -> Initializer:
    """The scheme called ``name``; ValueError with the nearest name where there is none."""
    if name not in _BY_NAME:
        near = difflib.get_close_matches(name, _BY_NAME, 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"initializer {name!r} is not one of {', '.join(_BY_NAME)}{hint}")
    return _BY_NAME[name](**kw)
