"""Variation of genomes: a child differs from its parent by exactly one mutation.

Written for whole populations under vmap, where every branch is computed: one pass that counts genes by row, choices
among rows and then in a single row, one pass that makes room for a node. A handful of random numbers a genome and no
sort, so that the cost does not grow beyond that of copying the genes.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from nnjax.types import Array, Key
from nnjax.wann import edges
from nnjax.wann.edges import EdgeGenome
from nnjax.wann.genome import ABSENT, DISABLED, ENABLED, G, Genome, Space


class Rates(NamedTuple):
    """How often each mutation is chosen, in proportion, among those possible; may be traced.

    Attributes:
      add_connection: a gene between two nodes that have none.
      add_node: a node on an enabled connection.
      enable: a disabled connection.
      activation: another activation for a hidden node.
      remove_connection: an enabled connection is gone; not in Gaier and Ha (2019).
      output_activation: another activation for an output; not in Gaier and Ha (2019).
    """

    add_connection: ArrayLike = 0.2
    add_node: ArrayLike = 0.25
    enable: ArrayLike = 0.05
    activation: ArrayLike = 0.5
    remove_connection: ArrayLike = 0.0
    output_activation: ArrayLike = 0.0


RATES = Rates()
"""The rates of Gaier and Ha (2019)."""

_ADD_CONNECTION, _ADD_NODE, _ENABLE, _ACTIVATION, _REMOVE_CONNECTION, _OUTPUT_ACTIVATION = range(6)
# What the gene that a mutation is about is before and after, by its number; the last is where none is possible.
_BEFORE = np.asarray([ABSENT, ENABLED, DISABLED, ABSENT, ENABLED, ABSENT, ABSENT])
_AFTER = np.asarray([ENABLED, DISABLED, ENABLED, ABSENT, ABSENT, ABSENT, ABSENT])
_DRAWS = 5  # random numbers that one mutation takes: kind, source, destination, node, activation


class _Rows(NamedTuple):
    """By source: how many genes could be added, are enabled, are disabled; each (N,) int32. And how many find room."""

    free: Array
    enabled: Array
    disabled: Array
    room: Array | int


def mutate(key: Key, genome: G, space: Space, rates: Rates = RATES) -> G:
    """A child with exactly one mutation (Gaier and Ha, 2019).

    - Add a connection: a source among nodes that have a possible one, then one of its destinations, which is any node
      in a later slot, bias and inputs apart, that no gene of the source leads to yet, enabled or disabled.
    - Add a node: a random enabled connection is disabled, and a node with a random activation put into its middle. It
      takes the slot behind the source, or the first hidden one behind bias and inputs, and those behind it move on.
    - Enable a random disabled connection.
    - Change the activation of a random hidden node to another one.
    - Where ``rates`` has them: remove a random enabled connection, change the activation of a random output.

    A mutation that is not possible (a node where all slots are full) is not chosen; the others are in its place. Where
    none is possible the child equals its parent. In an `EdgeGenome` a new connection takes a place of the list, and a
    new node two.

    Args:
      key: draws the mutation.
      genome: a single one; vmap over keys and genomes for a population.
      space: its sizes and activations, static.
      rates: of each mutation; not negative.

    Returns:
      A genome of the same kind and shapes. The same key makes the same child of a `Genome` and of an `EdgeGenome`.

    Raises:
      ValueError: a population, or a known rate that is negative or not finite.
    """
    check_rates(rates)
    if np.ndim(genome.hidden):
        raise ValueError(f"hidden of shape {np.shape(genome.hidden)} must be (): one genome, not a population")
    return _mutate(jax.random.uniform(key, (_DRAWS,), jnp.float32), genome, space, rates)


def mutate_population(key: Key, population: G, space: Space, rates: Rates = RATES) -> G:
    """`mutate` for every genome of a population, leading axis (n,); all random numbers in one draw."""
    check_rates(rates)
    uniform = jax.random.uniform(key, (len(population.hidden), _DRAWS), jnp.float32)
    return jax.vmap(functools.partial(_mutate, space=space, rates=rates))(uniform, population)


def _mutate(uniform: Array, genome: G, space: Space, rates: Rates) -> G:
    rows = _count(genome, space)
    kind = _choose_kind(uniform[0], genome, rows, space, rates)
    before, after = jnp.asarray(_BEFORE)[kind], jnp.asarray(_AFTER)[kind]
    # In the slots of the parent; something unused where the mutation is about no gene.
    source = _pick(uniform[1], jnp.stack([rows.free > 0, rows.enabled, rows.disabled])[before])
    destination = _pick_destination(genome, space, uniform[2], source, before)
    adds_node = kind == _ADD_NODE
    nowhere = space.max_nodes  # an index out of range: what is written there is dropped
    slot = jnp.where(adds_node, 1 + jnp.maximum(source, space.inputs), nowhere)
    destination += adds_node & (destination < space.first_output)  # it moves on when the node comes in
    child = _edit(genome, space, source, destination, before, after, slot)
    activations = _edit_activations(genome, kind, slot, uniform[3], uniform[4], space)
    return child._replace(activations=activations, hidden=genome.hidden + adds_node)


def check_rates(rates: Rates) -> None:
    """Make sure that known rates are finite and not negative; ValueError names the one that is not."""
    for name, rate in rates._asdict().items():
        if not isinstance(rate, jax.core.Tracer) and not 0 <= np.asarray(rate) < np.inf:
            raise ValueError(f"{name}={rate} must be a rate, finite and not negative")


def _count(genome: Genome | EdgeGenome, space: Space) -> _Rows:
    enabled, disabled, room = _outgoing(genome, space)
    slots, last = jnp.arange(space.max_nodes), space.inputs + genome.hidden
    later = last - jnp.maximum(slots, space.inputs) + space.outputs
    return _Rows(jnp.where(slots <= last, later - enabled - disabled, 0), enabled, disabled, room)


def _choose_kind(uniform: Array, genome: G, rows: _Rows, space: Space, rates: Rates) -> Array:
    """Number of the mutation, or one past the last where none is possible."""
    enabled, others = rows.enabled.any(), jnp.asarray(len(space.codes) > 1)
    possible = (
        rows.free.any() & (rows.room >= 1),
        enabled & (genome.hidden < space.max_hidden) & (rows.room >= 2),
        rows.disabled.any(),
        others & (genome.hidden > 0),
        enabled,
        others,
    )
    odds = jnp.stack([jnp.asarray(rate, jnp.float32) * can for rate, can in zip(rates, possible, strict=True)])
    bounds = jnp.cumsum(odds)
    return jnp.sum(uniform * bounds[-1] >= bounds)


def _pick(uniform: Array, counts: Array) -> Array:
    """A place in counts (n,), each with a probability in proportion to its count; the last one where all are 0."""
    bounds = jnp.cumsum(counts.astype(jnp.int32))
    ticket = jnp.floor(uniform * bounds[-1].astype(jnp.float32)).astype(jnp.int32)
    return jnp.minimum(jnp.sum(bounds <= ticket), len(counts) - 1)


def _outgoing(genome: Genome | EdgeGenome, space: Space) -> tuple[Array, Array, Array | int]:
    """How many genes of each source are enabled and disabled, each (N,) int32, and how many more there is room for."""
    if isinstance(genome, EdgeGenome):
        return edges.outgoing(genome, space)
    genes = jnp.asarray(genome.connections)
    enabled = jnp.sum(genes == ENABLED, axis=1, dtype=jnp.int32)
    return enabled, jnp.sum(genes == DISABLED, axis=1, dtype=jnp.int32), space.max_nodes**2


def _pick_destination(genome: Genome | EdgeGenome, space: Space, uniform: Array, source: Array, state: Array) -> Array:
    """One of the slots to which the source has a gene of that state, each as likely; `ABSENT`: to which it could."""
    if isinstance(genome, EdgeGenome):
        return edges.pick_destination(genome, space, uniform, source, state)
    genes, slots = jnp.asarray(genome.connections)[source], jnp.arange(space.max_nodes)
    node = (slots <= space.inputs + genome.hidden) | (slots >= space.first_output)
    possible = node & (slots > jnp.maximum(source, space.inputs))
    return _pick(uniform, (genes == state) & possible)


def _edit(genome: G, space: Space, source: Array, destination: Array, before: Array, after: Array, slot: Array) -> G:
    """The gene of the pair goes from one state to another, and a node with its two genes comes in where slot < N.

    Slots are those of the child. Activations stay as they are.
    """
    if isinstance(genome, EdgeGenome):
        return edges.edit(genome, space, source, destination, before, after, slot)
    nowhere, adds_node = space.max_nodes, slot < space.max_nodes
    sources = jnp.stack([jnp.where(before != after, source, nowhere), jnp.where(adds_node, source, nowhere), slot])
    destinations = jnp.stack([destination, slot, jnp.where(adds_node, destination, nowhere)])
    values = jnp.stack([after, jnp.full_like(after, ENABLED), jnp.full_like(after, ENABLED)])
    made = _make_room(_make_room(jnp.asarray(genome.connections), slot, space, 0), slot, space, 1)
    return genome._replace(connections=made.at[sources, destinations].set(values.astype(made.dtype), mode="drop"))


def _make_room(x: jax.Array, slot: Array, space: Space, axis: int) -> jax.Array:
    """x with zeros at ``slot``, what stood there and behind it one slot on, up to the outputs; x itself where N."""
    places = jnp.arange(space.max_nodes).reshape([-1 if i == axis else 1 for i in range(x.ndim)])
    moved = jnp.where((places > slot) & (places < space.first_output), jnp.roll(x, 1, axis), x)
    return jnp.where(places == slot, 0, moved)


def _edit_activations(genome: G, kind: Array, slot: Array, first: Array, second: Array, space: Space) -> Array:
    codes, pool = jnp.asarray(genome.activations), np.asarray(space.codes, np.int8)
    node = jnp.where(kind == _ACTIVATION, 1 + space.inputs + _below(first, genome.hidden), slot)
    node = jnp.where(kind == _OUTPUT_ACTIVATION, space.first_output + _below(first, space.outputs), node)
    # Another code than the node has, if that is in the pool at all; any code for a new node.
    same = (pool == codes[jnp.minimum(node, space.max_nodes - 1)]) & (node != slot)
    choice = _below(second, len(pool) - same.sum())
    choice += same.any() & (choice >= jnp.argmax(same))
    code = jnp.asarray(pool)[choice]
    return _make_room(codes, slot, space, 0).at[node].set(code.astype(codes.dtype), mode="drop")


def _below(uniform: Array, n: ArrayLike) -> Array:
    """A whole number from 0 to n - 1; 0 where n is 0."""
    return jnp.floor(uniform * jnp.asarray(n, jnp.float32)).astype(jnp.int32)
