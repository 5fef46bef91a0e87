"""A net as a plain function of its weights and its input, without empty slots, for whatever can be done with one."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from nnjax import activations
from nnjax.types import Array, floating
from nnjax.wann.edges import EdgeGenome
from nnjax.wann.genome import ENABLED, Genome, Space, check, to_dense


@dataclasses.dataclass(frozen=True)
class Function:
    """The outputs of one net, ``function(weights, x)``: pure, differentiable in both, for jit, vmap and grad.

    It is made by `as_function`. Two of the same net are equal, so it may be a static argument under jit.

    Attributes:
      inputs: number of inputs.
      outputs: number of outputs, the last nodes.
      nodes: of every hidden node and output, in topological order, the name of its activation and where its connections
        come from: 0 the bias, then the inputs, then the nodes themselves.
    """

    inputs: int
    outputs: int
    nodes: tuple[tuple[str, tuple[int, ...]], ...]

    @property
    def connections(self) -> int:
        """Number of enabled connections, the length of ``weights``."""
        return sum(len(sources) for _, sources in self.nodes)

    def __call__(self, weights: ArrayLike, x: ArrayLike) -> Array:
        """Outputs (..., outputs) for x (..., inputs), in its floating dtype.

        Args:
          weights: (connections,), or () for one that all share.
          x: (..., inputs).

        Raises:
          ValueError: x or weights of another shape.
        """
        x = floating(x)
        if x.ndim == 0 or x.shape[-1] != self.inputs:
            raise ValueError(f"x has shape {x.shape}; expected (..., {self.inputs}), the inputs of the net")
        weights = jnp.asarray(weights, x.dtype)
        if weights.shape not in ((), (self.connections,)):
            raise ValueError(f"weights have shape {weights.shape}; expected () or {(self.connections,)}")
        weights = jnp.broadcast_to(weights, (self.connections,))
        given = x.reshape(-1, self.inputs).T
        values = jnp.concatenate([jnp.ones_like(given, shape=(1, given.shape[1])), given])  # (nodes so far, n)
        layers, outputs = self._plan
        for layer in layers:
            # Each node adds up its own sources alone: another one may have overflowed, and inf 0 = NaN.
            arriving = values[layer.sources] * weights[layer.weights][:, None]
            sums = jax.ops.segment_sum(arriving, layer.places, len(layer.names), indices_are_sorted=True)
            parts, first = [], 0
            for name, same in itertools.groupby(layer.names):
                size = len([*same])
                parts.append(activations.TABLE[name](sums[first : first + size]))
                first += size
            values = jnp.concatenate([values, *parts])
        return values[outputs].T.reshape(*x.shape[:-1], self.outputs)

    @functools.cached_property
    def _plan(self) -> tuple[tuple[_Layer, ...], np.ndarray]:
        """Layers, far fewer operations to compile than node by node, and the rows of values where the outputs stand."""
        given = 1 + self.inputs
        depths = [0] * given
        for _, sources in self.nodes:
            depths.append(1 + max((depths[source] for source in sources), default=0))
        begins = np.cumsum([0, *(len(sources) for _, sources in self.nodes)])
        rows, layers = {row: row for row in range(given)}, []
        for depth in range(1, max(depths) + 1):
            members = [i for i in range(len(self.nodes)) if depths[given + i] == depth]
            members.sort(key=lambda i: self.nodes[i][0])
            counts = [len(self.nodes[i][1]) for i in members]
            layers.append(
                _Layer(
                    tuple(self.nodes[i][0] for i in members),
                    np.array([rows[source] for i in members for source in self.nodes[i][1]], int),
                    np.array([w for i in members for w in range(begins[i], begins[i + 1])], int),
                    np.repeat(np.arange(len(members)), counts),
                )
            )
            for i in members:
                rows[given + i] = len(rows)
        last = given + len(self.nodes)
        return tuple(layers), np.array([rows[last - self.outputs + i] for i in range(self.outputs)])


class _Layer(NamedTuple):
    """Nodes that wait for no other of them.

    Attributes:
      names: of their activations, equal ones together.
      sources: (e,) rows of the values that their connections lead from.
      weights: (e,) places of the connections' weights.
      places: (e,) nodes of this layer that they lead to, ascending.
    """

    names: tuple[str, ...]
    sources: np.ndarray
    weights: np.ndarray
    places: np.ndarray


class Exported(NamedTuple):
    """A net as a function.

    Attributes:
      function: of weights (connections,), or one (), and x (..., inputs).
      weights: (connections,) to begin with.
      pairs: (connections, 2) whole numbers, the slots of the genome that each connects, source and destination.
    """

    function: Function
    weights: Array
    pairs: np.ndarray

    def matrix(self, weights: ArrayLike, slots: int) -> Array:
        """Weights (..., connections) in the slots of the genome, (..., N, N), 0 where nothing is enabled."""
        weights = jnp.asarray(weights)
        empty = jnp.zeros((*weights.shape[:-1], slots, slots), weights.dtype)
        return empty.at[..., self.pairs[:, 0], self.pairs[:, 1]].set(weights)


def as_function(genome: Genome | EdgeGenome, space: Space, weights: ArrayLike = 1.0) -> Exported:
    """One net as a function of its weights and its input, to train with optax or to use elsewhere.

    The function has one place for each enabled connection, by destination and then by source, and is unrolled layer
    by layer: it computes what `nnjax.wann.forward` does, without its empty slots, and compiles anew for every net.

    Args:
      genome: one net, on the host.
      space: its sizes and activations.
      weights: what to begin with: one for all connections, (), or the matrix (N, N) of a trained net.

    Returns:
      `Exported`, a tuple of function, weights and pairs.

    Raises:
      ValueError: a population, a genome of another space, or weights of another shape.
    """
    if np.ndim(genome.hidden):
        raise ValueError(f"hidden of shape {np.shape(genome.hidden)} must be (): one genome, not a population")
    check(genome, space)
    dense = to_dense(genome, space) if isinstance(genome, EdgeGenome) else genome
    enabled, codes = np.asarray(dense.connections) == ENABLED, np.asarray(dense.activations)
    slots = np.r_[: 1 + space.inputs + int(dense.hidden), space.first_output : space.max_nodes]
    place = {int(slot): number for number, slot in enumerate(slots)}
    computing = [int(slot) for slot in slots[1 + space.inputs :]]
    sources = {slot: np.flatnonzero(enabled[:, slot]).tolist() for slot in computing}
    nodes = tuple((space.table[codes[slot]], tuple(place[s] for s in sources[slot])) for slot in computing)
    pairs = np.array([(s, slot) for slot in computing for s in sources[slot]], int).reshape(-1, 2)
    start = floating(weights)
    if start.shape not in ((), enabled.shape):
        raise ValueError(f"weights have shape {start.shape}; expected () or {enabled.shape}")
    start = start[pairs[:, 0], pairs[:, 1]] if start.ndim else jnp.full(len(pairs), start)
    return Exported(Function(space.inputs, space.outputs, nodes), start, pairs)
