"""What the nets for pictures share: their convolution, dropout, and checks of what they are given."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from nnjax import conv, initializers, regularizers
from nnjax.types import Array

he_normal = initializers.by_name("he_normal")
"""Normal weights of variance 2 / fan_in (He et al., 2015)."""

Convolution = partial(nn.Conv, kernel_init=he_normal, conv_general_dilated=conv.conv_general_dilated)
"""`flax.linen.Conv` through `nnjax.conv`, with He's initial weights."""


def images(model: nn.Module, x: Array, first: str) -> jax.Array:
    """x as an array, once its shape is known to be (n, h, w, c) with the channels that the model's parameters take.

    Args:
      model: bound, as inside its ``__call__``.
      x: its input.
      first: name of the first convolution.

    Raises:
      ValueError: another number of axes, or of channels than the kernel of ``first`` has.
    """
    x = jnp.asarray(x)
    if x.ndim != 4:
        raise ValueError(f"x has shape {x.shape}; {type(model).__name__} takes pictures (n, h, w, channels)")
    kernel = _kernel(model, first)
    if kernel is not None and kernel.shape[-2] != x.shape[3]:
        raise ValueError(f"x has {x.shape[3]} channels, and these parameters are for pictures of {kernel.shape[-2]}")
    return x


def flat(model: nn.Module, x: Array, first: str) -> Array:
    """x (n, h, w, c) as (n, h w c), once that is known to be what the dense layer ``first`` takes.

    Raises:
      ValueError: its kernel has another number of inputs: the parameters are for pictures of another size.
    """
    size = math.prod(x.shape[1:])
    kernel = _kernel(model, first)
    if kernel is not None and kernel.shape[0] != size:
        raise ValueError(
            f"these pictures leave {x.shape[1:]} = {size} values for layer {first!r}, whose parameters are for "
            f"{kernel.shape[0]}; give pictures of the size that they were made for"
        )
    return x.reshape(len(x), size)


def large_enough(model: nn.Module, x: Array, least: int) -> None:
    """Refuse, with a ValueError, pictures (n, h, w, c) of fewer than ``least`` rows or columns."""
    if min(x.shape[1:3]) < least:
        raise ValueError(f"x has shape {x.shape}; {type(model).__name__} needs {least} x {least} pixels or more")


def dropout(model: nn.Module, x: Array, rate: Any, train: bool, *, name: str = "dropout") -> Array:
    """x with dropout while training; ``rate`` may be traced, and 0 needs no key.

    Raises:
      ValueError: a known rate outside [0, 1].
    """
    if not isinstance(rate, jax.core.Tracer):
        if not 0 <= float(rate) <= 1:  # a comparison of arrays would be traced where anything else is
            raise ValueError(f"{name}={rate} must lie between 0 and 1, the probability of dropping a unit")
        if float(rate) == 0:
            return x
    return regularizers.dropout(model.make_rng("dropout"), x, rate) if train else x


def count(name: str, value: Any, least: int = 1) -> int:
    """``value`` once it is known to be a whole number of at least ``least``; otherwise a ValueError."""
    if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name}={value!r} must be a whole number, at least {least}")
    return int(value)


def counts(name: str, values: Sequence[Any], length: int | None = None) -> tuple[int, ...]:
    """``values`` once they are known to be whole numbers of at least 1, ``length`` of them; otherwise a ValueError."""
    values = tuple(values)
    if length is not None and len(values) != length:
        raise ValueError(f"{name}={values} must name {length} sizes")
    return tuple(count(f"each of {name}", value) for value in values)


def _kernel(model: nn.Module, layer: str) -> Any:
    """The kernel of a layer as the model was given it; None while it is being initialized."""
    if model.is_initializing():
        return None
    return model.variables.get("params", {}).get(layer, {}).get("kernel")
