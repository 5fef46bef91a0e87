"""Returns of one net with many sets of weights, one weight for each of its connections in each set."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from nnjax.types import Array, Key
from nnjax.wann.edges import EdgeGenome
from nnjax.wann.evaluation import episodes as control_returns
from nnjax.wann.evaluation import space_of, starts
from nnjax.wann.function import Function, as_function
from nnjax.wann.genome import Genome, Space, forward, to_dense
from nnjax.wann.tasks.classification import Classification
from nnjax.wann.tasks.task import check_task, constants

_ROOM = 32  # connections are filled up to a multiple of it


@dataclasses.dataclass(frozen=True)
class Lanes:
    """How one net is run with many sets of weights; static.

    Attributes:
      task: what it does.
      space: its sizes and activations.
      repetitions: episodes, or batches of examples, of each set of weights.
      function: the net itself, for a batch task; else None.
    """

    task: Any
    space: Space
    repetitions: int
    function: Function | None


class Net(NamedTuple):
    """One net, traced.

    Attributes:
      genome: the net, with a matrix of genes.
      pairs: (d, 2) slots that the connections lead from and to; the number of slots, which is none, to fill up.
      params: the task's constants.
    """

    genome: Genome
    pairs: Array
    params: Any


def prepared(
    genome: Genome | EdgeGenome, task: Any, weight: ArrayLike, repetitions: int, *, space: Space | None, params: Any
) -> tuple[Lanes, Net, Array]:
    """What runs one net with many sets of weights, and the set (connections,) to begin with.

    Raises:
      ValueError: a population, a net of another space, or one without enabled connections; ``params`` for a task on
        the host.
    """
    kind = check_task(task)
    space = space_of(genome, task) if space is None else space
    if (space.inputs, space.outputs) != (task.inputs, task.outputs):
        raise ValueError(f"the space has {space.inputs} inputs and {space.outputs} outputs; task {type(task).__name__} "
                         f"has {task.inputs} and {task.outputs}")  # fmt: skip
    function, start, pairs = as_function(genome, space, weight)
    if not len(pairs):
        raise ValueError("the net has no enabled connection, so there are no weights")
    if isinstance(genome, EdgeGenome):
        dense, space = to_dense(genome, space), dataclasses.replace(space, edges=None)
    else:
        dense = Genome(*map(jnp.asarray, genome))
    params = constants(task, params)
    lanes = Lanes(task, space, repetitions, function if kind == "batch" else None)
    return lanes, Net(dense, jnp.asarray(pairs), params), start.astype(jnp.result_type(float))


def scores(sets: Array, net: Net, keys: Key, group: Array, lanes: Lanes) -> Array:
    """Returns of one net with many sets of weights; pure, for jit, but not for a task on the host.

    Args:
      sets: (n, d).
      net: the net.
      keys: (groups,), each split for the repetitions.
      group: (n,) the one that a set's episodes are drawn with.
      lanes: how.

    Returns:
      (n, repetitions), NaN where a return is.
    """
    task, function = lanes.task, lanes.function
    if function is None:
        nets = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (len(sets), *leaf.shape)), net.genome)
        begin = starts(task, net.params, keys, lanes.repetitions)
        one = jnp.ones(1, sets.dtype)
        matrices = matrices_of(sets, net, lanes.space)
        return control_returns(nets, lanes.space, task, net.params, one, begin, group, weights=matrices)[0][:, 0]
    split = jax.vmap(lambda key: jax.random.split(key, lanes.repetitions))(keys)

    def of_set(pair: tuple[Array, Array]) -> Array:
        return jax.lax.map(lambda key: return_of(pair[0], net.params, key, function, task), split[pair[1]])

    return jax.lax.map(of_set, (sets, group))


_scores = jax.jit(scores, static_argnames="lanes")


def widened(sets: Array, net: Net, lanes: Lanes) -> tuple[Array, Net]:
    """Sets (n, d) and a net with room for a few more connections, which are none: nets of about the same size then
    share a program. A batch task's net is a program of its own, and stays as it is.
    """
    width = sets.shape[1]
    more = 0 if lanes.function is not None else -width % _ROOM
    pairs = jnp.pad(net.pairs, ((0, more), (0, 0)),
                    constant_values=lanes.space.max_nodes)  # fmt: skip
    return jnp.pad(sets, ((0, 0), (0, more))), net._replace(pairs=pairs)


def scores_of(sets: Array, net: Net, keys: Key, group: Array, lanes: Lanes, workers: Any = None) -> Array:
    """`scores`, compiled, or for a task on the host by its workers."""
    if not getattr(lanes.task, "host", False):
        return _scores(*widened(sets, net, lanes), keys, group, lanes)
    from nnjax.wann.tasks.gym import environment_seeds
    from nnjax.wann.tasks.lanes import LanePolicy

    seeds = np.stack([environment_seeds(key, lanes.repetitions) for key in keys])[np.asarray(group)]
    matrices = matrices_of(sets, net, lanes.space)

    def call(observations: np.ndarray, some: np.ndarray) -> Array:
        return _act(net.genome, matrices, jnp.asarray(observations), jnp.asarray(some), lanes.space)

    found = lanes.task.evaluate_lanes(LanePolicy(call, lanes.repetitions), seeds.ravel(), workers=workers)
    return jnp.asarray(found.returns.reshape(seeds.shape), sets.dtype)


@functools.partial(jax.jit, static_argnames="space")
def _act(genome: Genome, matrices: Array, observations: Array, some: Array, space: Space) -> Array:
    x = observations.reshape(len(some), -1, space.inputs)
    return jax.vmap(lambda weights, x: forward(genome, space, weights, x))(matrices[some], x).reshape(-1, space.outputs)


def matrices_of(sets: Array, net: Net, space: Space) -> Array:
    """Sets of weights (n, d) in the slots of the genome, (n, N, N)."""
    empty = jnp.zeros((len(sets), space.max_nodes, space.max_nodes), sets.dtype)
    return empty.at[:, net.pairs[:, 0], net.pairs[:, 1]].set(sets, mode="drop")


def return_of(weights: Array, params: Any, key: Key, function: Function, task: Any) -> Array:
    """Return () of one set of weights (d,) on one batch of examples."""
    return task.evaluate(params, functools.partial(function, weights), key)


def held_out(task: Any, params: Any, repetitions: int) -> tuple[Any, Any, int]:
    """A task to choose by, its params and its repetitions: for classification, all validation examples, once."""
    if not isinstance(task, Classification):
        return task, params, repetitions
    return _whole(task), params._replace(train=params.validation), 1


@functools.cache  # tasks with data are equal only if they are the same
def _whole(task: Classification) -> Classification:
    return dataclasses.replace(task, batch_size=None)
