"""Activation functions: one array in, an array of the same shape and floating dtype out.

`TABLE` holds those of one argument, element by element, in a fixed order, so that a unit's activation can be a
traced number (`switch`). Values and derivatives are finite for every finite input. Integers become the default
floating dtype.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from nnjax.naming import choose
from nnjax.types import Array, floating

Activation = Callable[[Array], Array]


def identity(x: ArrayLike) -> Array:
    """x: a linear unit."""
    return floating(x)


def step(x: ArrayLike) -> Array:
    """1 where x > 0, else 0; so 0 at 0. Its derivative is 0."""
    x = floating(x)
    return (x > 0).astype(x.dtype)


def threshold(x: ArrayLike) -> Array:
    """1 where x >= 0, else 0; so 1 at 0, as a unit that fires on reaching its threshold. Its derivative is 0."""
    x = floating(x)
    return (x >= 0).astype(x.dtype)


def logistic(x: ArrayLike) -> Array:
    """s = 1/(1 + exp(-x)), also called sigmoid; its derivative is s (1 - s)."""
    return jax.nn.sigmoid(floating(x))


def tanh(x: ArrayLike) -> Array:
    """t = (exp(2x) - 1)/(exp(2x) + 1); its derivative is 1 - t^2."""
    return jnp.tanh(floating(x))


def relu(x: ArrayLike) -> Array:
    """max(0, x); its derivative is 1 where x > 0, else 0 (Nair and Hinton, 2010)."""
    return jax.nn.relu(floating(x))


def leaky_relu(x: ArrayLike, slope: ArrayLike = 0.01) -> Array:
    """x where x > 0, else slope x (Maas et al., 2013).

    Args:
      x: any shape.
      slope: a scalar.
    """
    return prelu(x, slope)


def prelu(x: ArrayLike, slope: ArrayLike) -> Array:
    """`leaky_relu` whose slope is a parameter to learn (He et al., 2015).

    Args:
      x: any shape.
      slope: a scalar, or an array that stretches to the shape of x: (c,) for (n, ..., c), a slope a channel.

    Raises:
      ValueError: slope does not stretch to the shape of x.
    """
    x, slope = floating(x), jnp.asarray(slope)
    try:
        slope = jnp.broadcast_to(slope, x.shape)
    except ValueError:
        raise ValueError(f"slope {slope.shape} must stretch to the shape of x, {x.shape}") from None
    return jnp.where(x > 0, x, slope.astype(x.dtype) * x)


def elu(x: ArrayLike) -> Array:
    """x where x > 0, else exp(x) - 1 (Clevert et al., 2016)."""
    return jax.nn.elu(floating(x))


def swish(x: ArrayLike) -> Array:
    """x logistic(x), also called SiLU (Elfwing et al., 2018; Ramachandran et al., 2017)."""
    return jax.nn.silu(floating(x))


def softmax(x: ArrayLike) -> Array:
    """exp(x_i)/sum_j exp(x_j) over the last axis, (..., k): probabilities of k classes.

    Raises:
      ValueError: x is a scalar.
    """
    x = floating(x)
    if x.ndim == 0:
        raise ValueError(f"x of shape {x.shape} must have a last axis, (..., k), for softmax")
    return jax.nn.softmax(x, axis=-1)


def gaussian(x: ArrayLike) -> Array:
    """exp(-x^2/2): 1 at 0, 0 far out."""
    x = floating(x)
    return jnp.exp(-0.5 * x * x)  # not x**2, whose derivative 2x overflows first and makes 0 inf = NaN


def sin(x: ArrayLike) -> Array:
    """The sine, x in radians."""
    return jnp.sin(floating(x))


def cos(x: ArrayLike) -> Array:
    """The cosine, x in radians."""
    return jnp.cos(floating(x))


def sin_pi(x: ArrayLike) -> Array:
    """sin(pi x), x in half turns."""
    return jnp.sin(jnp.pi * _within_a_turn(x))


def cos_pi(x: ArrayLike) -> Array:
    """cos(pi x), x in half turns."""
    return jnp.cos(jnp.pi * _within_a_turn(x))


def _within_a_turn(x: ArrayLike) -> jax.Array:
    """x less whole turns of 2, which is exact; pi x itself loses its digits with size, and overflows."""
    x = floating(x)
    return x - 2 * jax.lax.stop_gradient(jnp.round(x / 2))


def inverse(x: ArrayLike) -> Array:
    """-x."""
    return -floating(x)


def absolute(x: ArrayLike) -> Array:
    """|x|; its derivative at 0 is 0, where that of jnp.abs is 1."""
    x = floating(x)
    return x * jnp.sign(x)


TABLE: dict[str, Activation] = {
    f.__name__: f
    for f in (
        identity, step, threshold, logistic, tanh, relu, leaky_relu, elu, swish, gaussian, sin, cos, sin_pi, cos_pi,
        inverse, absolute,
    )
}  # fmt: skip
"""Activations of one argument, element by element; the order is part of the interface (see `switch`)."""

NAMES = tuple(TABLE)

_BY_NAME: dict[str, Activation] = {**TABLE, "softmax": softmax}

ALIASES = {"sigmoid": "logistic", "linear": "identity", "silu": "swish", "abs": "absolute"}
"""Other names in use, which `by_name` takes as well."""


def by_name(name: str) -> Activation:
    """The activation called ``name``: one of `TABLE`, or softmax; sigmoid, linear, silu and abs are `ALIASES`.

    Raises:
      ValueError: there is none of that name; the nearest one is suggested.
    """
    return choose("activation", name, _BY_NAME, aliases=ALIASES)


def switch(index: ArrayLike, x: ArrayLike) -> Array:
    """The activation number ``index`` of `TABLE` at x.

    Args:
      index: an integer scalar, may be traced; batched under vmap, where every activation is computed and one kept.
      x: any shape.

    Raises:
      ValueError: a known index outside the table (a traced one is clipped to it).
    """
    if not isinstance(index, jax.core.Tracer) and np.ndim(index) == 0 and not 0 <= np.asarray(index) < len(TABLE):
        raise ValueError(f"index={index} must lie between 0 and {len(TABLE) - 1}, a place in the table of activations")
    return jax.lax.switch(index, tuple(TABLE.values()), floating(x))
