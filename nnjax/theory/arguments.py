"""Arguments of mean field theory: an activation and numbers, checked where they are known, as arrays of one dtype."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from nnjax import activations
from nnjax.naming import choose
from nnjax.theory.gaussian import Function

Activation = str | Function


def checked(activation: Activation, *, depth: int = 1, **values: ArrayLike) -> Function:
    """The activation's function, once the other arguments are within their range."""
    if isinstance(depth, bool) or not isinstance(depth, int | np.integer) or depth < 1:
        raise ValueError(f"depth={depth} must be a whole number of at least 1")
    check_all(**values)
    if callable(activation):
        return activation
    return choose("activation", activation, activations.TABLE, aliases=activations.ALIASES)


def check_all(**values: ArrayLike) -> None:
    """c between -1 and 1, a width of at least 1, log_q any number, all else at least 0; what is traced passes."""
    for name, value in values.items():
        low, high = {"c": (-1, 1), "width": (1, math.inf)}.get(name, (0, math.inf))
        numbers = np.zeros(0) if isinstance(_array(value), jax.core.Tracer) else np.asarray(value)
        if not any(jnp.issubdtype(numbers.dtype, kind) for kind in (jnp.floating, jnp.integer, jnp.bool_)):
            raise ValueError(f"{name}={value!r} must be a real number or an array of them")
        outside = numbers[~((numbers >= low) & (numbers <= high))]
        if outside.size and name != "log_q":
            allowed = f"be at least {low}" if high == math.inf else f"lie between {low} and {high}"
            raise ValueError(f"{name}={outside.flat[0]} must {allowed}")


def floats(*values: ArrayLike) -> list[jax.Array]:
    """The arguments as arrays of one floating dtype, single precision at least, and one broadcast shape."""
    arrays = [_array(value) for value in values]
    dtype = jnp.promote_types(jnp.result_type(float, *arrays), jnp.float32)
    return list(jnp.broadcast_arrays(*(jnp.asarray(v, dtype) for v in arrays)))


def _array(value: Any) -> Any:
    """A sequence of known numbers as an array; anything else as it is."""
    if not isinstance(value, list | tuple):
        return value
    return jnp.stack(value) if any(isinstance(v, jax.core.Tracer) for v in value) else np.asarray(value)


def log_first(q: ArrayLike, *others: ArrayLike) -> list[jax.Array]:
    """`floats`, with ln q in place of q."""
    q, *rest = floats(q, *others)
    return [jnp.log(q), *rest]
