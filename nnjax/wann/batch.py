"""Returns of a whole population on a batch task: every net on all examples, under all shared weights at once.

On a CPU one net is run after the other, node by node: the node's own activation alone is computed, and values stand as
(weights, nodes, examples), so that a connection adds one contiguous row to another. What bias and inputs give a node is
the same under every shared weight but for that factor, and is added up once. Loops run as far as a net has nodes and
connections, so small nets cost little and nothing is compiled anew as they grow. On a GPU many nets run side by side.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from nnjax import activations
from nnjax.types import Array, Key, floating
from nnjax.wann import edges
from nnjax.wann.edges import EdgeGenome
from nnjax.wann.genome import Genome, Space, from_dense
from nnjax.wann.tasks.trigonometry import cos_pi, sin_pi

_INPUTS, _NODES = 8, 2  # rows that are added up in one pass: of examples, of values of nodes
_SIDE_BY_SIDE = 64  # nets on a GPU


class _Plan(NamedTuple):
    """A net as lists of what every hidden node and output adds up; rows are their slots less those of the inputs.

    Attributes:
      sources: (E,) int32 slots by destination and source, those of enabled genes first.
      inputs: (rows,) where the sources of each row begin.
      nodes: (rows,) where those among them begin that are nodes, not bias or inputs.
      ends: (rows,) where they end.
      codes: (rows,) int32 places in `Space.table`.
    """

    sources: Array
    inputs: Array
    nodes: Array
    ends: Array
    codes: Array


class _Loops(NamedTuple):
    """How far loops have to go: hidden nodes (), passes over inputs and over nodes of each row (rows,)."""

    hidden: Array
    inputs: Array
    nodes: Array


def evaluate_batch(
    population: Genome | EdgeGenome, space: Space, task: Any, shared_weights: ArrayLike, key: Key, *,
    repetitions: int = 1, params: Any = None, chunk: int | None = None,
) -> Array:  # fmt: skip
    """What every net of a population returns on a batch task under every shared weight; pure, for jit.

    The key is the same for all nets and weights, so are the examples that the task draws with it.

    Args:
      population: genomes of either kind with a leading axis (P,).
      space: their sizes and activations, static.
      task: a batch task (`nnjax.wann.tasks.task`), static.
      shared_weights: (W,).
      key: split for the repetitions.
      repetitions: evaluations, each with a key of its own, that a return is the mean of; static.
      params: the task's constants and data, by default its own; hand them over as an argument of the jitted function.
      chunk: nets that run side by side; by default 1 on a CPU, where the memory taken is that of one net's values,
        W x (max_nodes - inputs) x examples numbers; static.

    Returns:
      (P, W), NaN where a return is NaN.

    Raises:
      ValueError: another task than a batch task, one of other sizes than the space, or numbers out of range.
    """
    if not hasattr(task, "evaluate"):
        raise ValueError(f"task {type(task).__name__} has no evaluate; expected a batch task")
    if (task.inputs, task.outputs) != (space.inputs, space.outputs):
        raise ValueError(f"the task has {task.inputs} inputs and {task.outputs} outputs, the space {space.inputs} and "
                         f"{space.outputs}")  # fmt: skip
    weights = floating(shared_weights)
    if weights.ndim != 1 or len(weights) == 0:
        raise ValueError(f"shared_weights of shape {weights.shape} must be (W,), at least one")
    for name, value in (("repetitions", repetitions), ("chunk", 1 if chunk is None else chunk)):
        if value < 1:
            raise ValueError(f"{name}={value} must be at least 1")
    params = task.params if params is None else params
    size = len(population.hidden)
    if chunk is None:
        chunk = 1 if jax.default_backend() == "cpu" else _SIDE_BY_SIDE
    chunk = min(chunk, size)

    def returns(key: Key) -> Array:
        def one(plan: _Plan, loops: _Loops, weight: Array) -> Array:
            return task.evaluate(params, functools.partial(_outputs, plan, loops, weight, space), key)

        return _by_chunks(jax.vmap(one, (None, None, 0)), population, space, weights, chunk)

    keys = jax.random.split(key, repetitions)
    return returns(keys[0]) if repetitions == 1 else jax.lax.map(returns, keys).mean(0)


def _by_chunks(
    one: Callable[[_Plan, _Loops, Array], Array],
    population: Genome | EdgeGenome,
    space: Space,
    weights: Array,
    chunk: int,
) -> Array:
    """(P, W) from a function of one net, run for as many as a chunk holds side by side."""
    size = len(population.hidden)
    count = -(-size // chunk)
    places = jnp.minimum(jnp.arange(count * chunk), size - 1).reshape(count, chunk)

    def work(places: Array) -> Array:
        genomes = jax.tree.map(lambda leaf: jnp.asarray(leaf)[places], population)
        plans = jax.vmap(functools.partial(_plan, space=space))(genomes)
        loops = _Loops(
            genomes.hidden.max(),
            -(-(plans.nodes - plans.inputs).max(0) // _INPUTS),
            -(-(plans.ends - plans.nodes).max(0) // _NODES),
        )
        if chunk > 1:
            return jax.vmap(one, (0, None, None))(plans, loops, weights)
        # Without an axis of nets the index of an activation is a scalar, and the other activations are not computed.
        return one(jax.tree.map(lambda leaf: leaf[0], plans), loops, weights)[None]

    return jax.lax.map(work, places).reshape(count * chunk, len(weights))[:size]


def _plan(genome: Genome | EdgeGenome, space: Space) -> _Plan:
    if isinstance(genome, Genome):
        genome = from_dense(genome, dataclasses.replace(space, edges=_most_genes(space)))
    first = 1 + space.inputs
    slots = jnp.arange(first, space.max_nodes + 1)
    begins = jnp.searchsorted(genome.genes, edges.gene(edges.ENABLED, 0, slots)).astype(jnp.int32)
    nodes = jnp.searchsorted(genome.genes, edges.gene(edges.ENABLED, first, slots[:-1])).astype(jnp.int32)
    codes = genome.activations[first:].astype(jnp.int32)
    return _Plan(genome.sources, begins[:-1], nodes, begins[1:], codes)


def _most_genes(space: Space) -> int:
    """Genes that there is room for in a matrix."""
    hidden, outputs = space.max_hidden, space.outputs
    return (1 + space.inputs) * (hidden + outputs) + hidden * (hidden - 1) // 2 + hidden * outputs


def _outputs(plan: _Plan, loops: _Loops, weight: Array, space: Space, x: Array) -> Array:
    """(n, outputs) of one net for x (n, inputs)."""
    x = floating(x)
    first, rows = 1 + space.inputs, len(plan.codes)
    # A zero that varies over the mesh of a shard_map as the nets do, as the carries of loops have to.
    zero = plan.sources[:0].sum().astype(x.dtype)
    ones = jnp.ones_like(x, shape=(1, len(x)))
    given = jnp.concatenate([ones, x.T, jnp.zeros_like(ones)])
    nothing = jnp.zeros(len(x), x.dtype) + zero
    functions = _functions(space, x.dtype)

    def fire(row: Array, values: Array) -> Array:
        begin, nodes, end = plan.inputs[row], plan.nodes[row], plan.ends[row]
        total = _add(nothing, given, plan.sources, begin, nodes, loops.inputs[row], _INPUTS)
        total = _add(total, values, plan.sources - first, nodes, end, loops.nodes[row], _NODES)
        value = jax.lax.switch(plan.codes[row], functions, total * weight.astype(x.dtype))
        return jax.lax.dynamic_update_index_in_dim(values, value, row, 0)

    values = jnp.zeros((rows + 1, len(x)), x.dtype) + zero  # the last row stays 0
    values = jax.lax.fori_loop(0, loops.hidden, fire, values)
    values = jax.lax.fori_loop(rows - space.outputs, rows, fire, values)
    return values[rows - space.outputs : rows].T


def _add(total: Array, rows: Array, places: Array, begin: Array, end: Array, passes: Array, width: int) -> Array:
    """Total and all rows whose places stand from begin to end, some in a pass; the last row of all is zero."""
    padded = jnp.pad(places, (0, width))

    def add(number: Array, total: Array) -> Array:
        at = begin + number * width
        some = jax.lax.dynamic_slice_in_dim(padded, at, width)
        some = jnp.where(at + jnp.arange(width) < end, some, len(rows) - 1)
        for place in some:
            total = total + jax.lax.dynamic_index_in_dim(rows, place, keepdims=False)
        return total

    return jax.lax.fori_loop(0, passes, add, total)


def _functions(space: Space, dtype: Any) -> list[activations.Activation]:
    """The activations by their codes; the waves in float32 as polynomials, which take a tenth of the time."""
    fast = {"cos_pi": cos_pi, "sin_pi": sin_pi}
    waves = fast if dtype == jnp.float32 else {}
    return [waves.get(name, activations.TABLE[name]) for name in space.table]
