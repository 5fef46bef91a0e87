"""Episodes of a control task for a whole population at once.

Lanes, one for every shared weight and start of a net, stand in units of `UNIT`, the width of a processor's vectors,
because the nodes of one net are then read in one piece. After every segment of steps lanes that are done are packed
away, and only chunks of units with live lanes go on, smallest nets first: many shared weights fail early, and a padded
chunk costs what its largest net costs. On a GPU all units are one chunk.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from nnjax.types import Array, PyTree
from nnjax.wann.genome import Space
from nnjax.wann.phenotype import Programs, run_instruction

UNIT = 8
"""Lanes of a net that are kept together."""

_BLOCK = 32  # instructions copied at a time

_SHORT = 224
"""Instructions of a net that is not large. XLA hands part of an operation to another thread where operands take half a
MiB or so, even if it reads but a few rows of them; the threads then wait for one another after every node, and a
population took three times as long. So small nets have a small memory of their own."""


class Layout(NamedTuple):
    """How episodes are cut up; static.

    Attributes:
      chunk: units that run side by side.
      segment: steps between two packings.
    """

    chunk: int
    segment: int


def default_layout(units: int, steps: int) -> Layout:
    """What is fastest on this kind of machine, of what was measured: chunks that fit a core's cache on a CPU."""
    if jax.default_backend() == "cpu":
        return Layout(min(48, units), min(50, steps))
    return Layout(units, min(250, steps))


class _Lanes(NamedTuple):
    """All episodes, leading axes (nets, lanes of a net)."""

    state: PyTree
    total: Array  # return so far
    alive: Array
    weight: Array
    number: Array  # which lane it is, whatever its place
    steps: Array  # steps made


class _Scratch(NamedTuple):
    """Memory for one chunk. It is handed on from chunk to chunk: a net may be far larger than those at hand are, and to
    clear room for the largest took longer than to run them."""

    programs: Programs
    values: Array  # (rows, units, UNIT)


def rollout(
    programs: Programs, space: Space, task: Any, params: Any, weights: Array, starts: PyTree, group: Array,
    layout: Layout | None = None,
) -> tuple[Array, Array]:  # fmt: skip
    """Returns of every net under every shared weight from every start.

    Args:
      programs: of n nets.
      space: their sizes and activations.
      task: a control task (`nnjax.wann.tasks.task`).
      params: its constants; may be traced.
      weights: (W,) shared weights, or (n, W), a net's own.
      starts: states with leading axes (groups, R).
      group: (n,) which group's starts a net has.
      layout: how episodes are cut up; by default `default_layout`.

    Returns:
      Sums of rewards, (n, W, R), NaN where one became NaN, which ends an episode, and the steps that each net made,
      (n,) float32.
    """
    nets = len(group)
    lanes = _place(nets, weights, starts, group)
    width = lanes.total.shape[1]
    units = nets * (width // UNIT)
    layout = layout or default_layout(units, task.steps)
    chunk = min(layout.chunk, units)
    padded = -(-units // chunk) * chunk

    sizes = _by_size(programs, space)

    def segment(carry: tuple) -> tuple:
        lanes, scratch, time = carry
        lanes = _pack(lanes)
        flat = jax.tree.map(lambda leaf: leaf.reshape(units, UNIT, *leaf.shape[2:]), lanes)
        live = flat.alive.any(1)
        net = jnp.arange(units) // (width // UNIT)
        size = jnp.where(live, programs.length[net], jnp.iinfo(jnp.int32).max)
        order = jnp.argsort(size)
        order = jnp.concatenate([order, jnp.full(padded - units, units, order.dtype)])

        def work(number: Array, carry: tuple) -> tuple:
            flat, scratch = carry
            chosen = jax.lax.dynamic_slice(order, (number * chunk,), (chunk,))
            part = jax.tree.map(lambda leaf: leaf.at[chosen].get(mode="clip"), flat)
            part = part._replace(alive=part.alive & (chosen < units)[:, None])
            nets = net.at[chosen].get(mode="clip")

            def with_room(place: int) -> Any:
                def run(part: _Lanes, scratch: tuple) -> tuple:
                    room = scratch[place]
                    picked = _pick(sizes[place], nets, room.programs)
                    part, values = _run(part, picked, room.values, space, task, params, layout.segment, time)
                    return part, (*scratch[:place], _Scratch(picked, values), *scratch[place + 1 :])

                return run

            if len(sizes) == 1:
                part, scratch = with_room(0)(part, scratch)
            else:
                large = programs.length[nets].max() > _SHORT
                part, scratch = jax.lax.cond(large, with_room(1), with_room(0), part, scratch)
            return jax.tree.map(lambda all_, new: all_.at[chosen].set(new, mode="drop"), flat, part), scratch

        flat, scratch = jax.lax.fori_loop(0, -(-live.sum() // chunk), work, (flat, scratch))
        lanes = jax.tree.map(lambda leaf: leaf.reshape(nets, width, *leaf.shape[2:]), flat)
        return lanes, scratch, time + layout.segment

    scratch = tuple(_scratch(lists, chunk, space, lanes.total.dtype) for lists in sizes)
    lanes, _, _ = jax.lax.while_loop(
        lambda carry: carry[0].alive.any() & (carry[2] < task.steps), segment, (lanes, scratch, jnp.int32(0))
    )
    back = jnp.argsort(lanes.number, axis=1)
    total = jnp.take_along_axis(lanes.total, back, 1)
    repeats = jax.tree.leaves(starts)[0].shape[1]
    count = weights.shape[-1] * repeats
    return total[:, :count].reshape(nets, -1, repeats), lanes.steps.sum(1, dtype=jnp.float32)


def _place(nets: int, weights: Array, starts: PyTree, group: Array) -> _Lanes:
    """All lanes at their starts, by shared weight and start; those that fill up the last unit are not alive."""
    repeats = jax.tree.leaves(starts)[0].shape[1]
    count = weights.shape[-1] * repeats
    width = -(-count // UNIT) * UNIT
    number = jnp.broadcast_to(jnp.arange(width), (nets, width))
    used = jnp.minimum(number, count - 1)
    state = jax.tree.map(lambda leaf: leaf[group[:, None], used % repeats], starts)
    weight = jnp.broadcast_to(weights, (nets, weights.shape[-1]))[jnp.arange(nets)[:, None], used // repeats]
    zero = jnp.zeros((nets, width), weight.dtype)
    return _Lanes(state, zero, number < count, weight, number, jnp.zeros((nets, width), jnp.int32))


def _pack(lanes: _Lanes) -> _Lanes:
    """Live lanes of every net first."""
    width = lanes.alive.shape[1]
    place = jnp.argsort(jnp.where(lanes.alive, 0, width) + jnp.arange(width)[None], axis=1)
    nets = jnp.arange(len(place))[:, None]
    return jax.tree.map(lambda leaf: leaf[nets, place], lanes)


def _by_size(programs: Programs, space: Space) -> tuple[Programs, ...]:
    """The programs with room for `_SHORT` instructions, which say nothing of larger nets, and with all room."""
    if len(programs.codes) <= _SHORT:
        return (programs,)
    zero_row = 1 + space.inputs + _SHORT
    weights = None if programs.weights is None else programs.weights[:_SHORT]
    sources, outputs = (jnp.minimum(rows, zero_row) for rows in (programs.sources[:_SHORT], programs.outputs))
    return Programs(sources, programs.codes[:_SHORT], weights, outputs, programs.length), programs


def _scratch(programs: Programs, chunk: int, space: Space, dtype: jnp.dtype) -> _Scratch:
    def room(leaf: Array) -> Array:
        return jnp.zeros((*leaf.shape[:-1], chunk), leaf.dtype)

    rows = 2 + space.inputs + len(programs.codes)
    values = jnp.zeros((rows, chunk, UNIT), dtype).at[0].set(1)  # the bias; the last row stays 0
    return _Scratch(jax.tree.map(room, programs), values)


def _pick(programs: Programs, net: Array, room: Programs) -> Programs:
    """The programs of some nets, written over those in ``room``; no more instructions are copied than they have."""
    length = programs.length[net]
    most = len(programs.codes)
    size = min(_BLOCK, most)

    def copy(leaf: Array, room: Array) -> Array:
        def one(block: Array, copied: Array) -> Array:
            begin = jnp.minimum(block * size, most - size)
            part = jax.lax.dynamic_slice_in_dim(leaf, begin, size, 0)
            return jax.lax.dynamic_update_slice_in_dim(copied, part[..., net], begin, 0)

        return jax.lax.fori_loop(0, -(-length.max() // size), one, room)

    weights = None if programs.weights is None or room.weights is None else copy(programs.weights, room.weights)
    sources, codes = copy(programs.sources, room.sources), copy(programs.codes, room.codes)
    return Programs(sources, codes, weights, programs.outputs[:, net], length)


def _run(
    lanes: _Lanes, programs: Programs, values: Array, space: Space, task: Any, params: Any, steps: int, time: Array
) -> tuple[_Lanes, Array]:
    """A segment of ``steps`` steps of units (units, UNIT) from step number ``time`` on, and the values as left."""
    units, dtype = len(programs.length), lanes.total.dtype
    observe = jax.vmap(jax.vmap(task.observe, (None, 0), 1), (None, 0), 1)  # (inputs, units, UNIT)
    step = jax.vmap(jax.vmap(task.step, (None, 0, 1)), (None, 0, 1))
    place = jnp.arange(units)[None]
    most = programs.length.max()

    def one(carry: Any, now: Any) -> tuple[Any, None]:
        state, total, alive, made, values = carry
        seen = observe(params, state).astype(dtype)
        values = jax.lax.dynamic_update_slice(values, seen, (1, 0, 0))
        values = jax.lax.fori_loop(
            0, most, lambda t, values: run_instruction(t, values, programs, lanes.weight, space), values
        )
        action = values.at[programs.outputs, place].get(mode="promise_in_bounds")
        state, reward, done = step(params, state, action)
        total = jnp.where(alive, total + reward.astype(dtype), total)
        made = made + alive
        alive = alive & ~done & (total == total) & (now + 1 < task.steps)
        return (state, total, alive, made, values), None

    carry: Any = (lanes.state, lanes.total, lanes.alive & (time < task.steps), lanes.steps, values)
    (state, total, alive, made, values), _ = jax.lax.scan(one, carry, time + jnp.arange(steps))
    return lanes._replace(state=state, total=total, alive=alive, steps=made), values
