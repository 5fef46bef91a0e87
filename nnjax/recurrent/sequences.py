"""Recurrent cells over whole sequences of one or several lengths, and what is asked of their arguments."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nnjax.recurrent import loops
from nnjax.recurrent.cells import Activation, Cell, GRUParams, LSTMParams, RNNParams, Summed, function_of, gru_cell
from nnjax.types import Array, floating


def rnn(
    params: RNNParams,
    x: Array,
    initial: Array | None = None,
    lengths: Array | None = None,
    *,
    activation: Activation = "tanh",
    reverse: bool = False,
    truncate: int | None = None,
) -> tuple[jax.Array, jax.Array]:
    """A simple RNN over sequences, `rnn_step` at every step.

    Args:
      params: weights.
      x: inputs, `(n, t, d)`.
      initial: first state, `(n, h)`; zeros if None. Weights, x and state are promoted to one dtype.
      lengths: steps of each sequence, `(n,)` integers from 0 to t; all t if None. Beyond them the state is kept and
        outputs are zero.
      activation: a function, or a name in `nnjax.activations`. A function should be the same one at every call, since
        each new one is compiled anew. It must not close over arrays that are differentiated or otherwise traced.
      reverse: from each sequence's last step to its first; outputs stand at the places of their inputs.
      truncate: gradients are not carried back into a state from steps k, 2k, ... on (truncated back-propagation
        through time; Williams and Peng, 1990), counted in the order in which the steps of the array are run; None
        carries them all the way.

    Returns:
      Outputs `(n, t, h)`, and the state after each sequence's last step `(n, h)`.

    Raises:
      ValueError: x of other than three axes, no steps, or sizes that do not fit the weights; lengths of another shape
        or (where their values are known) outside 0 to t; truncate below 1.
    """
    cell = Summed("rnn", function_of(activation))
    outputs, (final,) = _run(cell, RNNParams(*params), x, initial, lengths, reverse, truncate)
    return outputs, final


def lstm(
    params: LSTMParams,
    x: Array,
    initial: tuple[Array, Array] | None = None,
    lengths: Array | None = None,
    *,
    reverse: bool = False,
    truncate: int | None = None,
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    """An LSTM over sequences, `lstm_step` at every step.

    Args:
      params: weights.
      x: inputs, `(n, t, d)`.
      initial: first h and c, each `(n, h)`; zeros if None.
      lengths, reverse, truncate: as for `rnn`.

    Returns:
      Outputs `(n, t, h)`, and h and c after each sequence's last step.

    Raises:
      ValueError: as `rnn`.
    """
    outputs, (h, c) = _run(Summed("lstm"), LSTMParams(*params), x, initial, lengths, reverse, truncate)
    return outputs, (h, c)


def gru(
    params: GRUParams,
    x: Array,
    initial: Array | None = None,
    lengths: Array | None = None,
    *,
    reset_after: bool = False,
    reverse: bool = False,
    truncate: int | None = None,
) -> tuple[jax.Array, jax.Array]:
    """A GRU over sequences, `gru_step` at every step.

    Args:
      params: weights.
      x: inputs, `(n, t, d)`.
      initial: first state, `(n, h)`; zeros if None.
      lengths, reverse, truncate: as for `rnn`.
      reset_after: whether r acts after the product with U.

    Returns:
      Outputs `(n, t, h)`, and the state after each sequence's last step `(n, h)`.

    Raises:
      ValueError: as `rnn`.
    """
    outputs, (final,) = _run(gru_cell(reset_after), GRUParams(*params), x, initial, lengths, reverse, truncate)
    return outputs, final


def sequence_mask(lengths: Array, t: int) -> jax.Array:
    """Whether a step is within its sequence, `(n, t)`, for lengths `(n,)`."""
    return jnp.arange(t)[None, :] < jnp.asarray(lengths)[:, None]


def last(outputs: Array, lengths: Array | None = None) -> jax.Array:
    """Each sequence's output at its last step, `(n, h)`; zeros for a sequence without steps.

    Args:
      outputs: `(n, t, h)`.
      lengths: `(n,)`; all t if None.
    """
    outputs = jnp.asarray(outputs)
    if lengths is None:
        return outputs[:, -1]
    lengths = jnp.asarray(lengths)
    found = jnp.take_along_axis(outputs, jnp.maximum(lengths - 1, 0)[:, None, None], 1)[:, 0]
    return jnp.where(lengths[:, None] > 0, found, jnp.zeros_like(found))


def _run(
    cell: Cell, params: Any, x: Array, initial: Any, lengths: Any, reverse: bool, truncate: int | None
) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    """`loops.run` of what was given, once it is known to fit."""
    x = floating(x)
    units, parts = _checked_units(params, x), 2 if isinstance(params, LSTMParams) else 1
    dtype = jnp.result_type(x, *params)
    if initial is None:
        state: tuple[Array, ...] = (jnp.zeros((len(x), units), dtype),) * parts
    else:
        state = _checked_state(initial, (len(x), units), parts)
    runs = None if lengths is None else sequence_mask(_checked_lengths(lengths, *x.shape[:2]), x.shape[1])
    if truncate is not None and (not isinstance(truncate, int | np.integer) or truncate < 1):
        raise ValueError(f"truncate={truncate!r} must be a whole number of steps, at least 1, or None")
    dtype = jnp.result_type(dtype, *state)
    params, x, state = jax.tree.map(lambda a: jnp.asarray(a, dtype), (params, x, state))
    return loops.run(cell, params, x, state, runs, bool(reverse), None if truncate is None else int(truncate))


def _checked_units(params: Any, x: Array) -> int:
    """Units of the weights, which must fit one another and x."""
    name, gates = type(params).__name__, {RNNParams: 1, LSTMParams: 4, GRUParams: 3}[type(params)]
    if x.ndim != 3:
        raise ValueError(f"x has shape {x.shape}; it must be (n, t, d)")
    if x.shape[1] == 0:
        raise ValueError(f"x has shape {x.shape}; a sequence needs at least one step")
    units = np.shape(params.u)[0] if np.ndim(params.u) else 0
    wide = gates * units
    shapes = tuple(np.shape(part) for part in params)
    if np.ndim(params.w) != 2 or shapes != ((shapes[0][0], wide), (units, wide), *[(wide,)] * (len(params) - 2)):
        raise ValueError(f"{name} has shapes {', '.join(map(str, shapes))}; they must be {_WANTED[gates]}")
    if x.shape[2] != shapes[0][0]:
        raise ValueError(f"x has {x.shape[2]} features a step, and these weights are for {shapes[0][0]}")
    return units


_WANTED = {1: "(d, h), (h, h), (h,)", 4: "(d, 4h), (h, 4h), (4h,)", 3: "(d, 3h), (h, 3h), (3h,), (3h,)"}


def _checked_state(initial: Any, shape: tuple[int, int], parts: int) -> tuple[Array, ...]:
    """``initial`` as a tuple of arrays of that shape."""
    state = (initial,) if parts == 1 else tuple(initial) if isinstance(initial, tuple | list) else ()
    if len(state) != parts or any(np.shape(part) != shape for part in state):
        found = [np.shape(part) for part in state] if len(state) > 1 else np.shape(initial)
        wanted = f"{shape}" if parts == 1 else f"a pair (h, c) of {shape}"
        raise ValueError(f"initial has shape {found}; it must be {wanted}")
    return tuple(floating(part) for part in state)


def _checked_lengths(lengths: Any, n: int, t: int) -> jax.Array:
    """``lengths`` as an array; values are looked at where they are known."""
    lengths = lengths if isinstance(lengths, jax.Array) else np.asarray(lengths)
    if lengths.shape != (n,) or not jnp.issubdtype(lengths.dtype, jnp.integer):
        raise ValueError(f"lengths has shape {lengths.shape} and dtype {lengths.dtype}; it must be ({n},) integers")
    if not isinstance(lengths, jax.core.Tracer) and n:
        least, most = int(np.min(lengths)), int(np.max(lengths))
        if least < 0 or most > t:
            raise ValueError(f"lengths run from {least} to {most}; they must lie between 0 and the {t} steps of x")
    return jnp.asarray(lengths)
