"""Genomes as lists of genes, for nets of so many inputs that a matrix of all pairs of nodes would be mostly empty.

Slots, kinds of mutation and their probabilities are those of the dense `nnjax.wann.Genome`; the same key makes the same
child. What takes a genome takes both kinds, and comes here for the lists.

A gene is one whole number, state, destination and source from the highest bits to the lowest, and a list is always
sorted: first the enabled genes by destination and source, as an evaluation reads them, then the disabled ones, then
empty places. A new gene moves those behind it on, a new node renumbers without changing the order, so nothing is ever
sorted, and a child costs a few passes over the list.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from nnjax.types import Array

if TYPE_CHECKING:
    from nnjax.wann.genome import Space  # which stands on this file

ABSENT, ENABLED, DISABLED = 0, 1, 2
"""What a gene can be; a disabled one carries nothing and can be enabled again."""

LARGEST = 4096
"""Most slots of a `nnjax.wann.Space`: a dense genome of so many takes 16 MiB, and an edge has 12 bits for a slot."""

_BITS = LARGEST.bit_length() - 1  # of a slot's number
_SOURCE, _STATE = LARGEST - 1, 1 << (2 * _BITS)
EMPTY = 2 * _STATE
"""What an empty place of `EdgeGenome.genes` holds: more than any gene."""


class EdgeGenome(NamedTuple):
    """A net without weights as a list of genes, or a population of them where all arrays have the same leading axes.

    Attributes:
      genes: (E,) int32, E = `Space.edges`, ascending: state, 12 bits of destination, 12 bits of source, where the state
        is 0 for an enabled gene and 1 for a disabled one; then `EMPTY` up to the end.
      activations: (N,) int8 codes, places in `Space.table`; 0 (identity) for bias, inputs and empty slots.
      hidden: () int32, number of hidden nodes.
    """

    genes: Array
    activations: Array
    hidden: Array

    @property
    def states(self) -> Array:
        """(E,) `ENABLED`, `DISABLED`, or `ABSENT` for an empty place."""
        there = self.genes < EMPTY
        return (there * ENABLED + (there & (self.genes >= _STATE)) * (DISABLED - ENABLED)).astype(np.int8)

    @property
    def sources(self) -> Array:
        """(E,) int32 slots; 0 for an empty place."""
        return self.genes & _SOURCE

    @property
    def destinations(self) -> Array:
        """(E,) int32 slots; 0 for an empty place."""
        return (self.genes >> _BITS) & _SOURCE


def gene(state: ArrayLike, source: ArrayLike, destination: ArrayLike) -> jax.Array:
    """The number of a gene, int32; `EMPTY` for one that is `ABSENT`."""
    number = (jnp.asarray(destination, jnp.int32) << _BITS) + jnp.asarray(source, jnp.int32)
    state = jnp.asarray(state, jnp.int32)
    return jnp.where(state == ABSENT, EMPTY, jnp.where(state == DISABLED, _STATE, 0) + number)


def first(on: Array, space: Space) -> EdgeGenome:
    """`nnjax.wann.minimal` as a list: ``on`` (1 + inputs, outputs) bool says which genes are enabled."""
    sources, destinations = jnp.arange(1 + space.inputs)[:, None], space.first_output + jnp.arange(space.outputs)[None]
    genes = jnp.sort(gene(jnp.where(on, ENABLED, DISABLED), sources, destinations).ravel())
    genes = jnp.pad(genes, (0, length(space) - len(genes)), constant_values=EMPTY)
    return EdgeGenome(genes, jnp.zeros(space.max_nodes, jnp.int8), jnp.zeros((), jnp.int32))


def matrix(genome: EdgeGenome, space: Space) -> jax.Array:
    """The genes of one net as a matrix, (N, N) int8, row source and column destination."""
    genome, n = EdgeGenome(*map(jnp.asarray, genome)), space.max_nodes
    rows = jnp.where(genome.states == ABSENT, n, genome.sources)
    return jnp.zeros((n, n), jnp.int8).at[rows, genome.destinations].set(genome.states, mode="drop")


def listed(connections: Array, space: Space) -> jax.Array:
    """The genes of one net, of a matrix (N, N), as a list (E,); those that find no place in it are dropped."""
    inner = slice(1 + space.inputs, None), slice(None, space.first_output)  # where genes can be, by destination
    states, slots = jnp.asarray(connections).T[inner], jnp.arange(space.max_nodes)
    numbers = gene(states, slots[None, inner[1]], slots[inner[0], None]).ravel()
    on, off = (states == ENABLED).ravel(), (states == DISABLED).ravel()
    places = jnp.where(on, jnp.cumsum(on) - 1, on.sum() + jnp.cumsum(off) - 1)
    genes = jnp.full(length(space), EMPTY, jnp.int32)
    return genes.at[jnp.where(on | off, places, len(genes))].set(numbers, mode="drop")


def length(space: Space) -> int:
    """E; ValueError for a space that has none."""
    if space.edges is None:
        raise ValueError("edges=None of the space must be the length of the lists, a whole number")
    return space.edges


def enabled_count(genome: EdgeGenome) -> jax.Array:
    """Number of enabled genes: int32, () or a population's leading axes."""
    return jnp.sum(genome.genes < _STATE, axis=-1, dtype=jnp.int32)


def move_outputs(genome: EdgeGenome, space: Space, slots: int, longer: int) -> jax.Array:
    """Genes for so many slots more, before the outputs, and for a list so much longer."""
    genes = jnp.asarray(genome.genes)
    outputs = (genes < EMPTY) & (genome.destinations >= space.first_output)
    genes = genes + jnp.where(outputs, slots << _BITS, 0)
    return jnp.pad(genes, [*[(0, 0)] * (genes.ndim - 1), (0, longer)], constant_values=EMPTY)


def longest_paths(genome: EdgeGenome, live: Array, space: Space) -> jax.Array:
    """Layers of all nodes of one net but the outputs, which have 0; (N,) int32."""
    sources, destinations = jnp.asarray(genome.sources), jnp.asarray(genome.destinations)

    def lead(i: jax.Array, layer: jax.Array) -> jax.Array:  # by destination, so a source's own layer is known
        return layer.at[destinations[i]].max(1 + layer[sources[i]])

    slots = jnp.arange(space.max_nodes)
    hidden = live & (slots > space.inputs) & (slots < space.first_output)
    inner = jnp.sum((genome.genes < _STATE) & (destinations < space.first_output))
    return jax.lax.fori_loop(0, inner, lead, hidden.astype(jnp.int32))


def check_genes(genes: np.ndarray, hidden: np.ndarray, space: Space) -> None:
    """Make sure that lists (..., E) ascend and hold genes of nets with so many hidden nodes (...)."""
    strange = (genes < 0) | (genes > EMPTY)
    if strange.any():
        raise ValueError(f"genes hold {genes[strange].flat[0]}; expected 0 to {EMPTY}, the number of an empty place")
    there = genes < EMPTY
    if not ((genes[..., :-1] < genes[..., 1:]) | ~there[..., 1:]).all():
        raise ValueError("genes must ascend, each once, enabled ones before disabled ones before empty places")
    _check_slots(genes, there, hidden, space)


def _check_slots(genes: np.ndarray, there: np.ndarray, hidden: np.ndarray, space: Space) -> None:
    lists = EdgeGenome(genes, np.empty(0), hidden)
    source, destination = lists.sources, lists.destinations
    last = space.inputs + hidden[..., None]
    pairs = np.sort(np.where(there, genes % _STATE, -1 - np.arange(genes.shape[-1])), -1)
    twice = pairs[..., 1:] == pairs[..., :-1]
    if twice.any():
        number = int(pairs[..., 1:][twice].flat[0])
        raise ValueError(f"the connection from slot {number & _SOURCE} to slot {number >> _BITS} is both enabled and "
                         "disabled")  # fmt: skip
    wrong = {
        "does not lead to a later slot": source >= destination,
        "leads into the bias or an input": destination <= space.inputs,
        "leads out of an output": source >= space.first_output,
        "touches an empty slot": (source > last) | ((destination > last) & (destination < space.first_output)),
        "leads out of the slots": destination >= space.max_nodes,
    }
    for fault, where in wrong.items():
        found = np.argwhere(there & where)
        if len(found):
            at = tuple(found[0])
            raise ValueError(f"the connection from slot {source[at]} to slot {destination[at]} {fault}")


def outgoing(genome: EdgeGenome, space: Space) -> tuple[Array, Array, Array]:
    """How many genes of each source are enabled and disabled, each (N,) int32, and places that are left, ()."""
    n, genes = space.max_nodes, jnp.asarray(genome.genes)
    counts = jnp.zeros(2 * n + 1, jnp.int32).at[(genes // _STATE) * n + (genes & _SOURCE)].add(1)
    return counts[:n], counts[n : 2 * n], counts[2 * n]


def pick_destination(genome: EdgeGenome, space: Space, uniform: Array, source: Array, state: Array) -> Array:
    """One of the slots to which the source has a gene of that state, each as likely; `ABSENT`: to which it could."""
    genome, slots = EdgeGenome(*map(jnp.asarray, genome)), space.max_nodes
    wanted = jnp.where(state == ABSENT, genome.states != ABSENT, genome.states == state) & (genome.sources == source)
    ends = jnp.where(wanted, genome.destinations, jnp.iinfo(jnp.int32).max)
    start, last = jnp.maximum(source, space.inputs), space.inputs + genome.hidden

    def up_to(slot: Array) -> Array:
        """How many there are in slots up to this one."""
        listed = jnp.sum(ends <= slot, dtype=jnp.int32)
        nodes = jnp.maximum(jnp.minimum(slot, last) - start, 0) + jnp.maximum(slot - space.first_output + 1, 0)
        return jnp.where(state == ABSENT, nodes - listed, listed)

    ticket = jnp.floor(uniform * up_to(jnp.int32(slots - 1)).astype(jnp.float32)).astype(jnp.int32)

    def halve(i: Array, slot: Array) -> Array:  # the first slot up to which there are more than the ticket says
        further = slot + (1 << (bits - 1 - i))
        return jnp.where(up_to(further - 1) <= ticket, further, slot)

    bits = slots.bit_length()
    return jnp.minimum(jax.lax.fori_loop(0, bits, halve, jnp.zeros_like(source)), slots - 1)


def edit(
    genome: EdgeGenome, space: Space, source: Array, destination: Array, old: Array, new: Array, slot: Array
) -> EdgeGenome:
    """The gene from source to destination goes from its old state to a new one; a node comes in where slot < N.

    Slots are those of the child, so a new node stands between source and destination. Activations stay as they are.
    """
    adds_node = slot < space.max_nodes
    moves = (genome.destinations >= slot) & (genome.destinations < space.first_output)
    genes = jnp.asarray(genome.genes) + jnp.where(moves, 1 << _BITS, 0) + (genome.sources >= slot)
    made = jnp.where(adds_node, ENABLED, ABSENT)
    genes = _remove(genes, gene(old, source, destination))
    for number in (gene(new, source, destination), gene(made, source, slot), gene(made, slot, destination)):
        genes = _insert(genes, number)
    return genome._replace(genes=genes)


def _insert(genes: jax.Array, number: Array) -> jax.Array:
    """A sorted list with one more number in its place, the last one lost; itself for `EMPTY`."""
    before = jnp.concatenate([jnp.full(1, -1, genes.dtype), genes[:-1]])
    return jnp.maximum(before, jnp.minimum(genes, number))


def _remove(genes: jax.Array, number: Array) -> jax.Array:
    """A sorted list without a number that it holds; itself for `EMPTY`."""
    behind = jnp.concatenate([genes[1:], jnp.full(1, EMPTY, genes.dtype)])
    return jnp.where(genes < number, genes, behind)
