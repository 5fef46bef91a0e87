"""Fast loops of a cell over time, forward and back.

Automatic differentiation of a scan adds a small product to the gradient of the weights at every step, and keeps every
intermediate value. Here back-propagation through time (Werbos, 1990) is written out: forward keeps the preactivations
alone, backward goes through pieces of some steps, which stay in the cache, and multiplies once a piece for the weights.
The products with the inputs stay inside the loop, where their result is still in the cache when it is used.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from nnjax.recurrent.cells import Cell, State, wide
from nnjax.types import Array, PyTree

_ROWS = 640
"""Steps x examples of a piece of the backward pass: its preactivations and deltas fit a cache of 2 to 4 MB at h = 128.

Measured for n = 64, t = 100, d = 32, h = 128 on one core: pieces of 5 or 10 steps 37 ms, of 25 steps 48 ms.
"""


@partial(jax.jit, static_argnums=(0, 5, 6))
def run(
    cell: Cell, params: Any, x: Array, state: State, runs: Array | None, reverse: bool, truncate: int | None
) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    """A cell over sequences of equal dtypes.

    Args:
      cell: its equations.
      params: its weights.
      x: `(n, t, d)`.
      state: the first, each part `(n, h)`.
      runs: whether a sequence is not over at a step, `(n, t)`; None where all go on to the end.
      reverse: from the last step to the first.
      truncate: gradients are not carried back into a state from steps k, 2k, ... on.

    Returns:
      Outputs `(n, t, h)`, zero where a sequence is over, and the final state.
    """
    params, x, state = _alike((params, x, state))
    x, runs = x.swapaxes(0, 1), None if runs is None else runs.T
    if runs is not None:
        x = jnp.where(runs[:, :, None], x, jnp.zeros_like(x))  # whatever stands there has no gradient
    if reverse:  # the steps beyond a sequence's end come first and do nothing
        x, runs = jax.tree.map(lambda a: a[::-1], (x, runs))
    outputs, final = _sequence(cell, truncate, params, x, state, runs)
    return (outputs[::-1] if reverse else outputs).swapaxes(0, 1), final


def _masked(runs: Array | None, new: PyTree, old: PyTree) -> PyTree:
    """``new`` for the sequences that run at this step, `(n,)`; all do if None."""
    if runs is None:
        return new
    return jax.tree.map(lambda a, b: jnp.where(runs[:, None], a, b), new, old)


def _scan(cell: Cell, params: Any, x: Array, state: State, runs: Array | None, keep: bool) -> tuple:
    """Outputs and final state; with ``keep`` also the preactivations, and every state but h before its step."""

    def step(state: State, inputs: tuple) -> tuple[State, tuple]:
        x, runs = inputs
        new, z = cell.forward(params, state, x)
        h = _masked(runs, new[0], jnp.zeros_like(new[0]))
        return _masked(runs, new, state), (h, (z, state[1:]) if keep else None)

    final, (outputs, kept) = lax.scan(step, state, (x, runs))
    return outputs, final, kept


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _sequence(cell: Cell, truncate: int | None, params: Any, x: Array, state: State, runs: Array | None) -> tuple:
    """Outputs and final state of x `(t, n, d)`; ``runs`` `(t, n)` tells which sequences run at a step."""
    return _scan(cell, params, x, state, runs, False)[:2]


def _forward(cell: Cell, truncate: int | None, params: Any, x: Array, state: State, runs: Array | None) -> tuple:
    outputs, final, kept = _scan(cell, params, x, state, runs, True)
    return (outputs, final), (params, x, state, runs, outputs, kept)


def _backward(cell: Cell, truncate: int | None, saved: tuple, ct: tuple) -> tuple:
    """Gradients, piece by piece from the last."""
    params, x, *_ = saved
    (t, n), (dy, dstate) = x.shape[:2], ct
    size = _piece_size(t, n)
    count, rest = divmod(t, size)
    piece = partial(_piece, cell, truncate, saved, dy)
    sums = jax.tree.map(lambda p: _zero(x) + jnp.zeros(p.shape, wide(p.dtype)), params)
    carry, dx = lax.scan(
        lambda carry, start: piece(size, carry, start), (dstate, sums), rest + size * jnp.arange(count), reverse=True
    )
    dx = dx.reshape(count * size, *x.shape[1:])
    if rest:
        carry, first = piece(rest, carry, 0)
        dx = jnp.concatenate([first, dx])
    dstate, sums = carry
    return jax.tree.map(lambda g, p: g.astype(p.dtype), sums, params), dx, dstate, None


_sequence.defvjp(_forward, _backward)


def _piece(
    cell: Cell, truncate: int | None, saved: tuple, dy: Array, size: int, carry: tuple, start: Array | int
) -> tuple[tuple, Array]:
    """Back through ``size`` steps from ``start``: the carry is the gradient of the state, and those of the weights."""
    params, x, _, runs, outputs, kept = saved
    dstate, sums = carry
    x, y, dy, runs, (z, others) = jax.tree.map(
        lambda a: lax.dynamic_slice_in_dim(a, start, size), (x, outputs, dy, runs, kept)
    )
    h = _states_before(saved, y, start)
    steps = start + jnp.arange(size)
    cut = None if truncate is None else (steps % truncate == 0) & (steps > 0)

    def step(dstate: State, inputs: tuple) -> tuple[State, Array]:
        z, before, dy, runs, cut = inputs
        dstate = (dstate[0] + _masked(runs, dy, jnp.zeros_like(dy)), *dstate[1:])
        dz, dbefore = cell.backward(params, z, before, dstate)
        if cut is not None:
            dbefore = jax.tree.map(lambda g: jnp.where(cut, jnp.zeros_like(g), g), dbefore)
        return _masked(runs, dbefore, dstate), _masked(runs, dz, jnp.zeros_like(dz))

    dstate, dz = lax.scan(step, dstate, (z, (h, *others), dy, runs, cut), reverse=True)
    flat = [a.reshape(-1, a.shape[2]) for a in (x, h, z, dz)]
    weights, dx = cell.gradients(params, *flat)
    return (dstate, jax.tree.map(jnp.add, sums, weights)), dx.reshape(x.shape)


def _states_before(saved: tuple, y: Array, start: Array | int) -> Array:
    """h before each step of the piece with outputs y: the output before, or the first state where none has run."""
    _, _, (first, *_), runs, outputs, _ = saved
    ahead = lax.dynamic_slice_in_dim(outputs, jnp.maximum(start - 1, 0), 1)
    h = jnp.concatenate([ahead, y[:-1]])
    t, size = len(outputs), len(y)
    ran = jnp.ones((t, 1), bool) if runs is None else runs
    ran = lax.dynamic_slice_in_dim(jnp.pad(ran, ((1, 0), (0, 0))), start, size)
    return jnp.where(ran[:, :, None], h, first[None])


def _piece_size(t: int, n: int) -> int:
    """Steps of a piece, a divisor of t if there is one near."""
    size = min(t, -(-_ROWS // max(n, 1)))
    return next((k for k in range(size, size // 2, -1) if t % k == 0), size)


def _alike(tree: PyTree) -> PyTree:
    """Inside `shard_map`, all leaves varying over the same mesh axes, as summing their gradients needs.

    `lax` operations see to that themselves, a `custom_vjp` does not.
    """
    if not jax.sharding.get_abstract_mesh().manual_axes:
        return tree
    zero = sum(_zero(leaf) for leaf in jax.tree.leaves(tree))
    return jax.tree.map(lambda leaf: leaf + zero, tree)


def _zero(x: Array) -> Array:
    """0 that varies over the same mesh axes as x: the sum over no elements."""
    return x.ravel()[:0].sum()
