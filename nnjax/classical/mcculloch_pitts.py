"""Binary threshold units with fixed weights, and nets of them for any Boolean function (McCulloch and Pitts, 1943).

A unit is on where the weighted sum of its inputs reaches its threshold. Nothing is learned here, so that there is no
`step`: a net is written down (`gate`) or read off a truth table (`synthesize`).

In the paper of 1943 inhibition is absolute: one active inhibitory input keeps a unit off, whatever excites it. Here, as
in the textbooks since, an inhibitory input has a negative weight and is summed with the others.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from nnjax.naming import choose
from nnjax.types import Array, floating


class Layer(NamedTuple):
    """Units side by side.

    Attributes:
      weights: (d_in, d_out), positive from an excitatory input, negative from an inhibitory one.
      threshold: (d_out,), the least weighted sum that turns a unit on; minus the bias.
    """

    weights: Array
    threshold: Array


Net = tuple[Layer, ...]
"""Layers, first to last."""

_Unit = tuple[tuple[int, ...], int]

_GATES: dict[str, tuple[tuple[_Unit, ...], ...]] = {
    "and": ((((1, 1), 2),),),
    "or": ((((1, 1), 1),),),
    "not": ((((-1,), 0),),),
    "nand": ((((-1, -1), -1),),),
    "nor": ((((-1, -1), 0),),),
    "implies": ((((-1, 1), 0),),),
    "equivalent": ((((1, 1), 2), ((-1, -1), 0)), (((1, 1), 1),)),
    "xor": ((((1, -1), 1), ((-1, 1), 1)), (((1, 1), 1),)),
}
"""Weights and threshold of every unit, layer by layer."""

GATES = tuple(_GATES)
"""Names that `gate` knows."""


def all_inputs(n: int, dtype: Any = float) -> Array:
    """Every pattern of n bits in the order of a truth table, 00, 01, 10, 11 for two: (2^n, n).

    Raises:
      ValueError: n below 1 or above 20.
    """
    if not 1 <= n <= 20:
        raise ValueError(f"n={n} must lie between 1 and 20, a truth table having 2^n rows")
    bits = (np.arange(2**n)[:, None] >> np.arange(n - 1, -1, -1)[None, :]) & 1
    return jnp.asarray(bits, jnp.result_type(dtype))


def gate(name: str, dtype: Any = float) -> Net:
    """The net of a logic gate: and, or, not, nand, nor, implies (one unit each), equivalent, xor (two layers).

    Raises:
      ValueError: unknown name; the nearest one is suggested.
    """
    dtype = jnp.result_type(dtype)
    layers = choose("gate", name, _GATES)
    return tuple(
        Layer(jnp.asarray([unit[0] for unit in layer], dtype).T, jnp.asarray([unit[1] for unit in layer], dtype))
        for layer in layers
    )


def fire(layer: Layer, x: ArrayLike) -> Array:
    """One where x W >= threshold, else zero.

    Args:
      layer: (d_in, d_out) weights.
      x: (n, d_in), or (d_in,) for one pattern.

    Returns:
      (n, d_out), or (d_out,), of the weights' dtype; floating where that is an integer one.

    Raises:
      ValueError: ``x`` has another number of inputs than the layer.
    """
    weights, threshold = floating(layer.weights), jnp.asarray(layer.threshold)
    x = jnp.asarray(x)
    if x.ndim not in (1, 2) or x.shape[-1] != weights.shape[0]:
        raise ValueError(f"x has shape {x.shape}; the layer takes (n, {weights.shape[0]}) or ({weights.shape[0]},)")
    net = jnp.matmul(x.astype(weights.dtype), weights, precision="highest")
    return (net >= jnp.broadcast_to(threshold, net.shape)).astype(weights.dtype)


def apply(net: Net, x: ArrayLike) -> Array:
    """Outputs of a whole net; shapes and errors as `fire`."""
    for layer in net:
        x = fire(layer, x)
    return jnp.asarray(x)


def synthesize(outputs: ArrayLike, dtype: Any = float) -> Net:
    """A two-layer net for any Boolean function, from its truth table: the disjunctive normal form as a net.

    Hidden unit i is on for row i of the table alone: +1 from each input that is 1 there, -1 from each that is 0, and
    the number of ones as threshold. The output unit has weight 1 from the rows that shall be 1, and threshold 1. A
    function of n inputs takes 2^n hidden units; most functions need fewer.

    Args:
      outputs: (2^n,) of 0 and 1 (or booleans), in the order of `all_inputs`; may be traced.
      dtype: floating dtype of the net.

    Returns:
      Two layers, (n, 2^n) and (2^n, 1).

    Raises:
      ValueError: the number of outputs is not 2, 4, 8, ..., or one (that is not traced) is neither 0 nor 1.
    """
    values = outputs if isinstance(outputs, jax.Array) else np.asarray(outputs)
    rows = values.shape[0] if values.ndim == 1 else 0
    if rows < 2 or rows & (rows - 1):
        raise ValueError(f"outputs has shape {values.shape}; a truth table of n inputs is (2^n,)")
    if not isinstance(values, jax.core.Tracer) and not np.isin(values, (0, 1)).all():
        raise ValueError(f"outputs={np.asarray(values).tolist()} must hold 0 and 1 alone")
    patterns = all_inputs(rows.bit_length() - 1, dtype)
    hidden = Layer((2 * patterns - 1).T, jnp.sum(patterns, axis=1))
    return hidden, Layer(jnp.asarray(values).astype(patterns.dtype)[:, None], jnp.ones(1, patterns.dtype))


def always_on(x: ArrayLike) -> Array:
    """Patterns with one more input in front that is always 1: (n, d) -> (n, 1 + d), (d,) -> (1 + d,).

    Its weight is a unit's bias. Integers and booleans become the current floating dtype.
    """
    x = jnp.asarray(x)
    x = x.astype(jnp.result_type(float, x))
    return jnp.concatenate([jnp.ones((*x.shape[:-1], 1), x.dtype), x], axis=-1)


def with_bias(layer: Layer) -> Layer:
    """The same units for inputs with `always_on` in front: bias = -threshold becomes a weight, the threshold zero."""
    weights, threshold = jnp.asarray(layer.weights), jnp.asarray(layer.threshold)
    return Layer(jnp.concatenate([-threshold[None, :], weights]), jnp.zeros_like(threshold))
