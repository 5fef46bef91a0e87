"""Initial weights: ``(key, shape, dtype) -> Array``, schemes by name.

Normals are plain, not truncated. Normals and uniforms are drawn unit by unit: the weights of output unit j depend
on the key and j alone, and the first inputs' weights do not depend on how many follow. A layer inside a larger
allocation therefore starts with the same numbers (see `nnjax.models.padded_mlp`); only `orthogonal` and
`delta_orthogonal` cannot.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from nnjax import activations
from nnjax.naming import choose, with_options
from nnjax.types import Array, Key

Initializer = Callable[..., Array]


def _fans(shape: Sequence[int]) -> tuple[int, int]:
    """Inputs and outputs of a unit; kernels are (..., d_in, d_out), convolutions (kh, kw, c_in, c_out)."""
    if len(shape) < 2:
        raise ValueError(f"shape={tuple(shape)} must have at least two axes, (d_in, d_out)")
    if 0 in shape:
        raise ValueError(f"shape={tuple(shape)} must have no axis of size 0: a unit needs inputs and outputs")
    field = math.prod(shape[:-2])
    return field * shape[-2], field * shape[-1]


def _by_unit(draw: Callable[..., Array], key: Key, shape: Sequence[int], dtype: Any) -> Array:
    """Numbers of ``draw(key, shape, dtype)`` whose value at [..., i, j] does not depend on the last two sizes."""
    *field, d_in, d_out = shape

    def unit(j: Array) -> Array:
        return draw(jax.random.fold_in(key, j), (d_in, *field), dtype)

    # A loop over units compiles in two thirds of the time that one batched draw takes on a CPU.
    return jnp.moveaxis(jax.lax.map(unit, jnp.arange(d_out)), (0, 1), (-1, -2))


def _check_gain(gain: ArrayLike) -> None:
    if isinstance(gain, jax.core.Tracer):
        return
    number = np.asarray(gain)
    real = jnp.issubdtype(number.dtype, jnp.floating) or jnp.issubdtype(number.dtype, jnp.integer)
    if number.ndim or not real or not np.isfinite(number) or not number > 0:
        raise ValueError(f"gain={gain!r} must be a finite number above 0")


def _variance(variance: Callable[[int, int], float], shape: Sequence[int]) -> float:
    fans = _fans(shape)
    found = variance(*fans)
    if not 0 <= found < math.inf:
        raise ValueError(f"variance={found} at fans {fans} must be at least 0, and finite")
    return found


def scaled_normal(variance: Callable[[int, int], float], gain: ArrayLike = 1.0) -> Initializer:
    """N(0, gain^2 variance(fan_in, fan_out)) for each weight.

    Args:
      variance: of the numbers of a unit's inputs and outputs.
      gain: a scalar above 0, may be traced.

    Raises:
      ValueError: a gain that is known and not above 0; at the draw, a shape of less than two axes or with an empty one,
        or a variance below 0.
    """
    _check_gain(gain)

    def init(key: Key, shape: Sequence[int], dtype: Any = jnp.float32) -> Array:
        scale = gain * math.sqrt(_variance(variance, shape))
        return (scale * _by_unit(jax.random.normal, key, shape, dtype)).astype(dtype)

    return init


def scaled_uniform(variance: Callable[[int, int], float], gain: ArrayLike = 1.0) -> Initializer:
    """U(-limit, limit) of variance limit^2/3 = gain^2 variance(fan_in, fan_out); arguments as `scaled_normal`."""
    _check_gain(gain)

    def init(key: Key, shape: Sequence[int], dtype: Any = jnp.float32) -> Array:
        draw = partial(jax.random.uniform, minval=-1.0, maxval=1.0)
        scale = gain * math.sqrt(3 * _variance(variance, shape))
        return (scale * _by_unit(draw, key, shape, dtype)).astype(dtype)

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


def _xavier(mode: str) -> Callable[[int, int], float]:
    if mode not in ("fan_avg", "fan_in"):
        raise ValueError(f"mode={mode!r} must be 'fan_avg' or 'fan_in'")
    if mode == "fan_in":
        return lambda fan_in, fan_out: 1.0 / fan_in
    return lambda fan_in, fan_out: 2.0 / (fan_in + fan_out)


def xavier_normal(mode: str = "fan_avg", gain: ArrayLike = 1.0) -> Initializer:
    """gain^2 * 2/(fan_in + fan_out) (Glorot and Bengio, 2010), or gain^2/fan_in for ``mode="fan_in"``."""
    return scaled_normal(_xavier(mode), gain)


def xavier_uniform(mode: str = "fan_avg", gain: ArrayLike = 1.0) -> Initializer:
    """Limit gain sqrt(6/(fan_in + fan_out)) (Glorot and Bengio, 2010), or gain sqrt(3/fan_in) for "fan_in".

    The variances are those of `xavier_normal`.
    """
    return scaled_uniform(_xavier(mode), gain)


def lecun_normal() -> Initializer:
    """1/fan_in (LeCun et al., 1998)."""
    return scaled_normal(lambda fan_in, fan_out: 1.0 / fan_in)


def he_normal() -> Initializer:
    """2/fan_in (He et al., 2015)."""
    return scaled_normal(lambda fan_in, fan_out: 2.0 / fan_in)


def he_uniform() -> Initializer:
    """Limit sqrt(6/fan_in), variance 2/fan_in (He et al., 2015)."""
    return scaled_uniform(lambda fan_in, fan_out: 2.0 / fan_in)


def orthogonal(gain: ArrayLike = 1.0) -> Initializer:
    """gain times a random matrix of orthonormal columns, or rows where those are fewer (Saxe et al., 2014).

    The matrix is (fan_in, d_out); a convolution's field and input channels are its rows. It is uniform over all
    such matrices (Haar). Its entries depend on one another, so, unlike the other schemes', a smaller layer is not
    the corner of a larger one. The factorization runs in float32 at least. Many at once (vmap) are slow on CPUs.
    """
    _check_gain(gain)

    def init(key: Key, shape: Sequence[int], dtype: Any = jnp.float32) -> Array:
        _fans(shape)
        whole = jnp.promote_types(dtype, jnp.float32)
        return (gain * jax.nn.initializers.orthogonal()(key, tuple(shape), whole)).astype(dtype)

    return init


def delta_orthogonal(gain: ArrayLike = 1.0) -> Initializer:
    """Convolutions that keep lengths: `orthogonal` over channels at the field's center, else 0 (Xiao et al., 2018).

    With zeros around the picture and steps of 1, every pixel of the output is gain times an isometry of the same pixel
    of the input. A dense kernel, of two axes, is `orthogonal`'s. The center of an even field is before its middle,
    where "SAME" padding has it.

    Args:
      gain: a scalar above 0, may be traced.

    Raises:
      ValueError: a gain that is known and not above 0; at the draw, a shape of less than two axes or with an empty one,
        or a convolution with fewer channels out than in, which cannot keep lengths.
    """
    draw = orthogonal(gain)

    def init(key: Key, shape: Sequence[int], dtype: Any = jnp.float32) -> Array:
        _fans(shape)
        *field, c_in, c_out = shape
        if field and c_out < c_in:
            raise ValueError(
                f"shape={tuple(shape)} must have at least as many channels out (last) as in, to keep lengths"
            )
        taps = draw(key, (c_in, c_out), dtype)
        center = tuple((size - 1) // 2 for size in field)
        return jnp.zeros(tuple(shape), dtype).at[center].set(taps) if field else taps

    return init


_BY_NAME: dict[str, Callable[..., Initializer]] = {
    f.__name__: f
    for f in (
        zeros, small_normal, standard_normal, xavier_normal, xavier_uniform, lecun_normal, he_normal, he_uniform,
        orthogonal, delta_orthogonal,
    )
}  # fmt: skip

NAMES = tuple(_BY_NAME)

ALIASES = {
    "glorot_normal": "xavier_normal",
    "glorot_uniform": "xavier_uniform",
    "kaiming_normal": "he_normal",
    "kaiming_uniform": "he_uniform",
}
"""The same schemes by the first names of their authors, or the last; `by_name` takes them as well."""


def by_name(name: str, **kw: Any) -> Initializer:
    """The scheme called ``name``.

    Args:
      name: one of `NAMES`, or of `ALIASES`.
      kw: ``mode`` ("fan_avg" or "fan_in") and ``gain`` of the Xavier schemes, ``gain`` of the orthogonal ones.

    Raises:
      ValueError: an unknown name or option (the nearest is suggested), or a gain not above 0.
    """
    make = choose("initializer", name, _BY_NAME, aliases=ALIASES)
    return with_options("initializer", name, make, kw)


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
    table = choose("convention", convention, _GAINS)
    return choose("activation with a gain", activation, table, aliases=activations.ALIASES)
