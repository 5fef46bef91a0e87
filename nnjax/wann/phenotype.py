"""Genomes made ready to run: a list of instructions a net, each a sum over a few nodes and one activation.

Whole populations are run side by side, so all nets do the same thing at the same time: add up at most `FAN_IN` values,
multiply by the shared weight, apply an activation. A node with more connections takes several instructions; all but its
last only add up. Instructions stand in an order in which every source is there when it is read, and each writes the row
of values that its number says, so that nothing is scattered. Their number is traced: small nets cost little, and no net
that fits its `Space` is too large.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nnjax import activations
from nnjax.types import Array
from nnjax.wann.edges import EdgeGenome
from nnjax.wann.genome import ENABLED, NAMES, Genome, Space, alive, to_dense
from nnjax.wann.tasks.trigonometry import cos_pi

FAN_IN = 3
"""Values that an instruction adds up: most nodes of a searched net have fewer; 2 to 4 were measured, 3 is fastest."""

_WORD = 32  # bits
_SUM = -1  # the code of an instruction that only adds up
_CODE = {name: code for code, name in enumerate(NAMES)}


class Programs(NamedTuple):
    """Instructions of a population of n nets; the net is the last axis, so that a chunk of nets is read in one piece.

    Rows of values are numbered: 0 the bias, 1..inputs the inputs, then the instructions; the last one is always 0.

    Attributes:
      sources: (T, FAN_IN, n) int32 rows to add up.
      codes: (T, n) int8, places in `Space.table`; -1 for a mere sum.
      weights: (T, FAN_IN, n) factors of the sources, or None: all are 1.
      outputs: (outputs, n) int32, the rows of the outputs.
      length: (n,) int32, instructions in use.
    """

    sources: Array
    codes: Array
    weights: Array | None
    outputs: Array
    length: Array


def most_instructions(space: Space) -> int:
    """T: how many a net with all connections that the space has room for takes."""
    slots = np.arange(space.max_nodes)
    fan_in = np.where(slots > space.inputs, np.minimum(slots, space.first_output), 0)
    return int(_instructions(fan_in)[slots > space.inputs].sum())


def _instructions(fan_in: Array) -> Array:
    """How many a node of so many connections takes: the first adds FAN_IN of them, each other one fewer."""
    above = fan_in - FAN_IN
    return 1 + -(-(above * (above > 0)) // (FAN_IN - 1))


def programs(population: Genome | EdgeGenome, space: Space, weights: Array | None = None) -> Programs:
    """Instructions for all genomes of a population, leading axis (n,); with a weight for each connection, (n, N, N).

    One pass makes a bit of every connection, and the list is then written instruction by instruction for all nets at
    once, taking the lowest bits of a node's word away: no sort and no scatter over all pairs of slots.
    """
    if isinstance(population, EdgeGenome):
        population = to_dense(population, space)
    population = Genome(*map(jnp.asarray, population))
    size, n, first = len(population.hidden), space.max_nodes, 1 + space.inputs
    live = alive(population, space)
    words = _words(population, space)
    most, zero_row = most_instructions(space), first + most_instructions(space)
    # The next slot with a node: hidden ones follow each other, outputs are last.
    last_hidden = space.inputs + population.hidden
    nets = jnp.arange(size)
    dtype = jnp.float32 if weights is None else jnp.asarray(weights).dtype

    def write(carry: tuple) -> tuple:
        t, slot, bits, begun, rows, sources, codes, factors = carry
        chosen, rest = _choose(bits, begun)
        running = slot < n
        finished = (rest == 0).all(1)
        padded = jnp.concatenate([rows, jnp.full((size, 1), zero_row, jnp.int32)], 1)
        row = jnp.where(chosen < 0, first + t - 1, padded[nets[:, None], jnp.clip(chosen, 0, n)])
        row = jnp.where(running[:, None], row, zero_row)
        here = jnp.minimum(slot, n - 1)
        code = jnp.where(finished, population.activations[nets, here], _SUM)
        sources = jax.lax.dynamic_update_index_in_dim(sources, row.T, t, 0)
        codes = jax.lax.dynamic_update_index_in_dim(codes, code.astype(jnp.int8), t, 0)
        if weights is not None:
            factor = jnp.asarray(weights)[nets[:, None], jnp.clip(chosen, 0, n - 1), here[:, None]]
            factor = jnp.where(chosen < 0, 1, jnp.where(chosen < n, factor, 0)).astype(dtype)
            factors = jax.lax.dynamic_update_index_in_dim(factors, factor.T, t, 0)
        done = running & finished
        rows = jnp.where((jnp.arange(n)[None] == here[:, None]) & done[:, None], first + t, rows)
        following = jnp.where(slot == last_hidden, space.first_output, slot + 1)
        slot = jnp.where(done, following, slot)
        bits = jnp.where(done[:, None], words[nets, jnp.minimum(slot, n - 1)], rest)
        return t + 1, slot, bits, running & ~finished, rows, sources, codes, factors

    start = jnp.where(population.hidden > 0, first, space.first_output)
    rows = jnp.where(jnp.arange(n) < first, jnp.arange(n), zero_row).astype(jnp.int32)
    carry = (
        jnp.int32(0), start, words[nets, start], jnp.zeros(size, bool), jnp.broadcast_to(rows, (size, n)),
        jnp.full((most, FAN_IN, size), zero_row, jnp.int32), jnp.zeros((most, size), jnp.int8),
        None if weights is None else jnp.zeros((most, FAN_IN, size), dtype),
    )  # fmt: skip
    end = jax.lax.while_loop(lambda carry: (carry[1] < n).any(), write, carry)
    enabled = _popcount(words).sum(-1, dtype=jnp.int32)
    taken = jnp.where(live & (jnp.arange(n) >= first)[None], _instructions(enabled), 0).sum(1)
    return Programs(end[5], end[6], end[7], end[4][:, space.first_output :].T, taken.astype(jnp.int32))


def shortened(programs: Programs, space: Space) -> Programs:
    """Programs with little more room than their longest takes, in steps of 64 instructions; on the host, not under jit.

    For loops on the host, where values are made anew in every call.
    """
    most, first = len(programs.codes), 1 + space.inputs
    size = min(-(-max(int(jnp.max(programs.length)), 1) // 64) * 64, most)

    def rows(leaf: Array) -> Array:
        return jnp.where(leaf == first + most, first + size, leaf)

    weights = None if programs.weights is None else programs.weights[:size]
    return Programs(rows(programs.sources[:size]), programs.codes[:size], weights, rows(programs.outputs),
                    programs.length)  # fmt: skip


def _words(population: Genome, space: Space) -> Array:
    """(n, N, words) uint32: for every slot a bit for each slot that it has an enabled connection from."""
    n = space.max_nodes
    count = -(-n // _WORD)
    connections = jnp.asarray(population.connections)
    size = len(connections)
    if count * _WORD > n:
        connections = jnp.pad(connections, ((0, 0), (0, count * _WORD - n), (0, 0)))
    place = jnp.left_shift(jnp.uint32(1), jnp.arange(_WORD, dtype=jnp.uint32))
    bits = (connections == ENABLED).reshape(size, count, _WORD, n)
    return jnp.where(bits, place[None, None, :, None], jnp.uint32(0)).sum(2, dtype=jnp.uint32).transpose(0, 2, 1)


def _choose(bits: Array, begun: Array) -> tuple[Array, Array]:
    """Slots (n, FAN_IN) that an instruction adds up, and the bits left; -1 for what the one before it has added up."""
    slots, rest = _take(bits, FAN_IN)
    more, rest_of_begun = _take(bits, FAN_IN - 1)
    more = jnp.concatenate([jnp.full((len(bits), 1), -1, more.dtype), more], 1)
    return jnp.where(begun[:, None], more, slots), jnp.where(begun[:, None], rest_of_begun, rest)


def _take(bits: Array, count: int) -> tuple[Array, Array]:
    """The places (n, count) of the lowest bits in (n, words), N or more where there are fewer, and the bits left."""
    words = bits.shape[1]
    places = []
    for _ in range(count):
        has = bits != 0
        word = jnp.argmax(has, 1)  # the first word with a bit
        at = (jnp.arange(words)[None] == word[:, None]) & has
        lowest = jnp.where(at, bits & (jnp.uint32(0) - bits), jnp.uint32(0))
        place = word * _WORD + _popcount(lowest.max(1) - 1).astype(jnp.int32)
        places.append(jnp.where(has.any(1), place, words * _WORD))
        bits = bits & ~lowest
    return jnp.stack(places, 1), bits


def _popcount(x: Array) -> Array:
    return jax.lax.population_count(x)


def run_instruction(t: Array, values: jax.Array, programs: Programs, scale: Array, space: Space) -> Array:
    """Values (rows, nets, lanes) with the row of instruction t filled in.

    Args:
      t: (), which one.
      values: rows before it are there.
      programs: of as many nets.
      scale: the weight that all connections share, to stretch to (nets, lanes).
      space: sizes and activations.

    Returns:
      The values; what earlier instructions have left in later rows is not read.
    """
    sources, codes = programs.sources[t], programs.codes[t][:, None]
    read = values.at[sources, jnp.arange(values.shape[1])[None]].get(mode="promise_in_bounds")
    if programs.weights is not None:
        read = read * programs.weights[t][:, :, None].astype(values.dtype)
    total = read.sum(0)
    value = jnp.where(codes == _SUM, total, activate(codes, total * scale, space))
    return jax.lax.dynamic_update_index_in_dim(values, value, 1 + space.inputs + t, 0)


def activate(codes: Array, x: Array, space: Space) -> Array:
    """The activations that the codes, places in `Space.table`, say; codes stretch to the shape of x.

    All are computed for all, side by side: those of Gaier and Ha (2019) share one polynomial for sine and cosine, and
    one exponential for Gaussian, tanh and sigmoid.
    """
    if x.dtype != jnp.float32:
        values = activations.TABLE[space.table[0]](x)
        for code, name in enumerate(space.table[1:], 1):
            values = jnp.where(codes == code, activations.TABLE[name](x), values)
        return values
    cosine, gauss, tanh, sigmoid = (codes == _CODE[name] for name in ("cos_pi", "gaussian", "tanh", "logistic"))
    # Whole turns come off first: half a turn less is then exact.
    wave = cos_pi(x - 2 * jnp.round(0.5 * x) - jnp.where(cosine, 0.0, 0.5))
    power = jnp.exp(jnp.where(gauss, -0.5 * x * x, jnp.where(tanh, -2 * x, -x)))
    slope = jnp.where(tanh, 2.0, 1.0)
    squash = jnp.where(gauss, power, slope / (1 + power) - (slope - 1))
    value = jnp.where(codes == _CODE["relu"], jnp.maximum(x, 0), x)
    value = jnp.where(codes == _CODE["inverse"], -x, jnp.where(codes == _CODE["absolute"], jnp.abs(x), value))
    value = jnp.where(codes == _CODE["step"], (x > 0).astype(x.dtype), value)
    value = jnp.where((codes == _CODE["sin_pi"]) | cosine, wave, jnp.where(gauss | tanh | sigmoid, squash, value))
    for code, name in enumerate(space.table[len(NAMES) :], len(NAMES)):
        value = jnp.where(codes == code, activations.TABLE[name](x), value)
    return value
