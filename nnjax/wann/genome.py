"""Genomes of weight-agnostic nets: arrays of a fixed size that hold a feed-forward net of any size up to a limit.

A net has N = `Space.max_nodes` slots. Slot 0 is the bias, 1..inputs are the inputs, then come the hidden nodes in
topological order, then empty slots; the outputs have the last ones. Genes are connections without weights: an (N, N)
matrix, row source and column destination, that is strictly upper triangular, so there is no cycle, no sorting and no
new compilation as nets grow. A population is a genome whose arrays have a leading axis (Gaier and Ha, 2019).

A space with `Space.edges` holds its genes in lists instead (`nnjax.wann.edges`); what is here takes both kinds.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from nnjax import activations
from nnjax.naming import choose
from nnjax.types import Array, Key, floating
from nnjax.wann import edges as lists
from nnjax.wann.edges import ABSENT, DISABLED, ENABLED, LARGEST, EdgeGenome

NAMES = (
    "identity", "step", "sin_pi", "gaussian", "tanh", "logistic", "inverse", "absolute", "relu", "cos_pi",
)  # fmt: skip
"""The activations of Gaier and Ha (2019) in the order of their codes, less one; all are in `nnjax.activations`."""


@dataclasses.dataclass(frozen=True)
class Space:
    """What nets are searched for: sizes and activations, static under jit.

    Attributes:
      inputs: number of inputs, the bias not counted.
      outputs: number of outputs.
      max_nodes: N, slots of a genome: bias, inputs, hidden nodes and outputs.
      activations: what a hidden node may have, by name in `nnjax.activations`; sigmoid, linear and abs will do too.
      edges: most genes of a genome, which is then a list of them (`nnjax.wann.EdgeGenome`): for some hundred inputs.
        None: a genome is a matrix of all pairs of slots, and has room for all their genes.

    Raises:
      ValueError: a size out of range, or an activation that is unknown or there twice.
    """

    inputs: int
    outputs: int
    max_nodes: int
    activations: tuple[str, ...] = NAMES
    edges: int | None = None

    def __post_init__(self) -> None:
        for name in ("inputs", "outputs", "max_nodes", "edges"):
            value = getattr(self, name)
            if value is None and name == "edges":
                continue
            if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{name}={value!r} must be a whole number, at least 1")
            object.__setattr__(self, name, int(value))
        least = 1 + self.inputs + self.outputs
        if not least <= self.max_nodes <= LARGEST:
            raise ValueError(
                f"max_nodes={self.max_nodes} must lie between {least} (bias, {self.inputs} inputs and {self.outputs} "
                f"outputs) and {LARGEST}"
            )
        genes = (1 + self.inputs) * self.outputs
        if self.edges is not None and self.edges < genes:
            raise ValueError(f"edges={self.edges} must be at least {genes}, the genes from bias and inputs to outputs")
        known = [
            choose("activation", name, activations.NAMES, aliases=activations.ALIASES) for name in self.activations
        ]
        if not known or len({*known}) < len(known):
            raise ValueError(f"activations={tuple(self.activations)} must name at least one, each once")
        object.__setattr__(self, "activations", tuple(known))

    @property
    def table(self) -> tuple[str, ...]:
        """What the codes in `Genome.activations` stand for: `NAMES`, then what else this space has.

        The codes of `NAMES` are the same in every space, so that a genome means the same in each; 0 is the identity.
        """
        return (*NAMES, *(name for name in self.activations if name not in NAMES))

    @property
    def codes(self) -> tuple[int, ...]:
        """Codes, places in `table`, of the activations that a hidden node may have."""
        return tuple(self.table.index(name) for name in self.activations)

    @property
    def first_output(self) -> int:
        """Slot of the first output."""
        return self.max_nodes - self.outputs

    @property
    def max_hidden(self) -> int:
        """Most hidden nodes that there is room for."""
        return self.max_nodes - 1 - self.inputs - self.outputs


class Genome(NamedTuple):
    """A net without weights, or a population of them where all arrays have the same leading axes.

    Attributes:
      connections: (N, N) int8, row source, column destination: `ABSENT`, `ENABLED` or `DISABLED`; strictly upper
        triangular, nothing leads into bias, inputs or empty slots, nothing out of outputs or empty slots.
      activations: (N,) int8 codes, places in `Space.table`; 0 (identity) for bias, inputs and empty slots.
      hidden: () int32, number of hidden nodes.
    """

    connections: Array
    activations: Array
    hidden: Array


G = TypeVar("G", Genome, EdgeGenome)
"""A genome of either kind, where the result is of the same."""


def minimal(key: Key, space: Space, enabled: ArrayLike = 0.5) -> Genome | EdgeGenome:
    """The net a search begins with: all genes from bias and inputs to outputs, each enabled or else disabled.

    Args:
      key: draws which are enabled.
      space: sizes.
      enabled: probability that a gene is enabled; may be traced.

    Returns:
      A `Genome`, or an `EdgeGenome` where the space has ``edges``, without hidden nodes and with linear outputs.

    Raises:
      ValueError: a known ``enabled`` outside [0, 1].
    """
    if not isinstance(enabled, jax.core.Tracer) and not 0 <= np.asarray(enabled) <= 1:
        raise ValueError(f"enabled={enabled} must lie between 0 and 1")
    n = space.max_nodes
    on = jax.random.bernoulli(key, enabled, (1 + space.inputs, space.outputs))
    if space.edges is not None:
        return lists.first(on, space)
    connections = jnp.zeros((n, n), jnp.int8)
    connections = connections.at[: 1 + space.inputs, space.first_output :].set(jnp.where(on, ENABLED, DISABLED))
    return Genome(connections, jnp.zeros(n, jnp.int8), jnp.zeros((), jnp.int32))


def to_dense(genome: EdgeGenome, space: Space) -> Genome:
    """The same net, or population, as a matrix of genes."""
    if jnp.ndim(genome.hidden):
        return jax.vmap(functools.partial(to_dense, space=space))(genome)
    return Genome(lists.matrix(genome, space), jnp.asarray(genome.activations), jnp.asarray(genome.hidden))


def from_dense(genome: Genome, space: Space) -> EdgeGenome:
    """The same net, or population, as a list of ``space.edges`` genes.

    Raises:
      ValueError: a space without ``edges``, or a known genome of more genes; of a traced one the last are dropped.
    """
    room = lists.length(space)
    if not isinstance(genome.connections, jax.core.Tracer):
        most = np.count_nonzero(np.asarray(genome.connections), (-2, -1)).max(initial=0)
        if most > room:
            raise ValueError(f"edges={room} must be at least {most}, the genes of the genome")
    if jnp.ndim(genome.hidden):
        return jax.vmap(functools.partial(from_dense, space=space))(genome)
    genes = lists.listed(genome.connections, space)
    return EdgeGenome(genes, jnp.asarray(genome.activations), jnp.asarray(genome.hidden))


def resize(genome: G, space: Space, max_nodes: int, edges: int | None = None) -> G:
    """The same net, or population, with more empty slots, for ``dataclasses.replace(space, max_nodes=max_nodes)``.

    An `EdgeGenome` may get a longer list as well, for ``dataclasses.replace(space, max_nodes=..., edges=edges)``.

    Raises:
      ValueError: ``max_nodes`` or ``edges`` below that of the space; ``edges`` for a genome that is no list.
    """
    more, longer = _growth(space, max_nodes, edges)
    activations = _stretch(genome.activations, space, more, -1)
    if isinstance(genome, EdgeGenome):
        return EdgeGenome(lists.move_outputs(genome, space, more, longer), activations, genome.hidden)
    connections = _stretch(_stretch(genome.connections, space, more, -2), space, more, -1)
    return Genome(connections, activations, genome.hidden)


def _growth(space: Space, max_nodes: int, edges: int | None) -> tuple[int, int]:
    """How many slots and genes there are more than in the space; ValueError if fewer."""
    if edges is not None and space.edges is None:
        raise ValueError(f"edges={edges} is for lists of genes, and this space has none")
    if max_nodes < space.max_nodes:
        raise ValueError(f"max_nodes={max_nodes} must be at least {space.max_nodes}, the slots that there are")
    if edges is None or space.edges is None:
        return max_nodes - space.max_nodes, 0
    if edges < space.edges:
        raise ValueError(f"edges={edges} must be at least {space.edges}, the places that there are")
    return max_nodes - space.max_nodes, edges - space.edges


def _stretch(x: Array, space: Space, more: int, axis: int) -> Array:
    """An array with so many zeros before the outputs on one of its axes, the axis of slots, counted from the end."""
    head, tail = jnp.split(jnp.asarray(x), [space.first_output], axis)
    shape = list(head.shape)
    shape[axis] = more
    return jnp.concatenate([head, jnp.zeros_like(head, shape=shape), tail], axis)


def node_count(genome: Genome | EdgeGenome, space: Space) -> Array:
    """Number of nodes, bias, inputs and outputs among them: int32, () or a population's leading axes."""
    return genome.hidden + (1 + space.inputs + space.outputs)


def connection_count(genome: Genome | EdgeGenome) -> Array:
    """Number of enabled connections: int32, () or a population's leading axes."""
    if isinstance(genome, EdgeGenome):
        return lists.enabled_count(genome)
    return jnp.sum(genome.connections == ENABLED, axis=(-2, -1), dtype=jnp.int32)


def alive(genome: Genome | EdgeGenome, space: Space) -> Array:
    """Which slots hold a node: bool (N,), behind a population's leading axes."""
    hidden = jnp.asarray(genome.hidden)
    slots = jnp.arange(space.max_nodes).reshape((1,) * hidden.ndim + (-1,))
    return (slots <= space.inputs + hidden[..., None]) | (slots >= space.first_output)


def layers(genome: Genome | EdgeGenome, space: Space) -> Array:
    """Layer of every node of one net, the longest path of enabled connections to it; (N,) int32.

    Bias and inputs stand in layer 0, a hidden node that nothing reaches in layer 1, all outputs one behind the last
    hidden layer; -1 for an empty slot. A net's depth is the layer of its outputs.
    """
    live = alive(genome, space)
    if isinstance(genome, EdgeGenome):
        layer = lists.longest_paths(genome, live, space)
    else:
        layer = _longest_paths(jnp.asarray(genome.connections), live, space)
    layer = layer.at[space.first_output :].set(1 + layer.max())
    return jnp.where(live, layer, -1)


def _longest_paths(connections: jax.Array, live: Array, space: Space) -> jax.Array:
    def place(slot: jax.Array, layer: jax.Array) -> jax.Array:
        before = jnp.where(connections[:, slot] == ENABLED, layer, 0)
        return layer.at[slot].set(jnp.where(live[slot], 1 + before.max(), 0))

    return jax.lax.fori_loop(1 + space.inputs, space.first_output, place, jnp.zeros(space.max_nodes, jnp.int32))


def forward(genome: Genome | EdgeGenome, space: Space, weight: ArrayLike, x: ArrayLike) -> Array:
    """Outputs of one net, slot by slot: the reference form, pure, and differentiable in weights and inputs.

    Args:
      genome: a single one; vmap for a population.
      space: its sizes and activations.
      weight: the weight that all connections share, (), or one for each, (N, N), of which those of enabled connections
        count; converted to the dtype of x.
      x: (..., inputs).

    Returns:
      (..., outputs), in the floating dtype of x.

    Raises:
      ValueError: a population, or x or weight of another shape.
    """
    x, n = floating(x), space.max_nodes
    if np.ndim(genome.hidden):
        raise ValueError(f"hidden of shape {np.shape(genome.hidden)} must be (): one genome, not a population")
    if x.ndim == 0 or x.shape[-1] != space.inputs:
        raise ValueError(f"x has shape {x.shape}; expected (..., {space.inputs}), the inputs of the space")
    weight = jnp.asarray(weight, x.dtype)
    if weight.shape not in ((), (n, n)):
        raise ValueError(f"weight has shape {weight.shape}; expected () or {(n, n)}")
    if isinstance(genome, EdgeGenome):
        genome = to_dense(genome, space)
    codes, live = jnp.asarray(genome.activations), alive(genome, space)
    enabled = jnp.asarray(genome.connections) == ENABLED
    weights = jnp.where(enabled, weight, 0)
    functions = [activations.TABLE[name] for name in space.table]

    def fire(slot: jax.Array, values: jax.Array) -> jax.Array:
        # Not values * 0 where nothing is connected: a node elsewhere may have overflowed, and inf 0 = NaN.
        arriving = jnp.where(enabled[None, :, slot], values, 0) * weights[None, :, slot]
        value = jax.lax.switch(codes[slot].astype(jnp.int32), functions, arriving.sum(1))
        return values.at[:, slot].set(jnp.where(live[slot], value, 0))

    given = x.reshape(-1, space.inputs)
    values = jnp.zeros((len(given), n), x.dtype).at[:, 0].set(1).at[:, 1 : 1 + space.inputs].set(given)
    values = jax.lax.fori_loop(1 + space.inputs, n, fire, values)
    return values[:, space.first_output :].reshape(*x.shape[:-1], space.outputs)


def check(genome: Genome | EdgeGenome, space: Space) -> None:
    """Make sure, on the host, that a genome or every genome of a population is one of this space.

    Raises:
      ValueError: the first thing that is wrong with it, in one sentence.
    """
    n = space.max_nodes
    codes, hidden = np.asarray(genome.activations), np.asarray(genome.hidden)
    if isinstance(genome, EdgeGenome):
        _check_arrays(genome, {"genes": (lists.length(space),), "activations": (n,)}, space)
        lists.check_genes(np.asarray(genome.genes), hidden, space)
    else:
        _check_arrays(genome, {"connections": (n, n), "activations": (n,)}, space)
        _check_connections(np.asarray(genome.connections), hidden, space)
    _check_codes(codes, hidden, space)


def _check_arrays(genome: Genome | EdgeGenome, shapes: Mapping[str, tuple[int, ...]], space: Space) -> None:
    """Shapes behind a population's axes, dtypes, and the number of hidden nodes."""
    arrays = {name: np.asarray(leaf) for name, leaf in genome._asdict().items()}
    hidden = arrays["hidden"]
    for name, shape in shapes.items():
        if arrays[name].shape != (*hidden.shape, *shape):
            sizes = f"max_nodes={space.max_nodes}" + (f", edges={space.edges}" if space.edges else "")
            raise ValueError(f"{name} of shape {arrays[name].shape} must be {(*hidden.shape, *shape)} for {sizes}")
    for name, value in arrays.items():
        if not np.issubdtype(value.dtype, np.integer):
            raise ValueError(f"{name} must hold integers, not {value.dtype}")
    if ((hidden < 0) | (hidden > space.max_hidden)).any():
        raise ValueError(f"hidden={_first(hidden, (hidden < 0) | (hidden > space.max_hidden))} must lie between 0 and "
                         f"{space.max_hidden}, the room for hidden nodes")  # fmt: skip


def _check_connections(connections: np.ndarray, hidden: np.ndarray, space: Space) -> None:
    n, slots = space.max_nodes, np.arange(space.max_nodes)
    live = (slots <= space.inputs + hidden[..., None]) | (slots >= space.first_output)
    strange = (connections < ABSENT) | (connections > DISABLED)
    if strange.any():
        raise ValueError(f"connections hold {_first(connections, strange)}; expected 0 (absent), 1 (enabled) or "
                         "2 (disabled)")  # fmt: skip
    source, destination = slots[:, None], slots[None, :]
    wrong = {
        "does not lead to a later slot": np.broadcast_to(source >= destination, (n, n)),
        "leads into the bias or an input": np.broadcast_to(destination <= space.inputs, (n, n)),
        "leads out of an output": np.broadcast_to(source >= space.first_output, (n, n)),
        "touches an empty slot": ~(live[..., :, None] & live[..., None, :]),
    }
    for fault, where in wrong.items():
        found = np.argwhere((connections != ABSENT) & where)
        if len(found):
            raise ValueError(f"the connection from slot {found[0][-2]} to slot {found[0][-1]} {fault}")


def _check_codes(codes: np.ndarray, hidden: np.ndarray, space: Space) -> None:
    """Activations are in the table, and only nodes that compute have any."""
    slots = np.arange(space.max_nodes)
    strange = (codes < 0) | (codes >= len(space.table))
    if strange.any():
        raise ValueError(f"activations hold the code {_first(codes, strange)}; expected 0 to {len(space.table) - 1}")
    node = (slots > space.inputs) & ((slots <= space.inputs + hidden[..., None]) | (slots >= space.first_output))
    if (~node & (codes != 0)).any():
        raise ValueError("activations of bias, inputs and empty slots must be 0, the identity")


def _first(values: np.ndarray, where: np.ndarray) -> int:
    return int(values[where].flat[0])
