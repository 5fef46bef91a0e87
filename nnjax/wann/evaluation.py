"""What nets are worth: returns of populations under shared weights, and of one net over many episodes."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from nnjax.types import Array, Key, PyTree
from nnjax.wann.batch import evaluate_batch
from nnjax.wann.edges import EdgeGenome
from nnjax.wann.genome import NAMES, Genome, Space, check, forward
from nnjax.wann.phenotype import FAN_IN, most_instructions, programs
from nnjax.wann.rollout import Layout, rollout
from nnjax.wann.tasks.task import check_task

_BUDGET = 2**28  # bytes that the instructions of a population may take at a time


def space_of(genome: Genome | EdgeGenome, task: Any) -> Space:
    """The space of a net that was made for a task: its slots, the task's activations or those of Gaier and Ha (2019).

    Raises:
      ValueError: the genome has too few slots for the task, or, where it is known, an activation that is none of these.
    """
    check_task(task)
    names = tuple(getattr(task, "activations", NAMES))
    edges = int(np.shape(genome.genes)[-1]) if isinstance(genome, EdgeGenome) else None
    try:
        space = Space(task.inputs, task.outputs, int(np.shape(genome.activations)[-1]), names, edges)
    except ValueError as error:
        raise ValueError(f"the genome does not fit task {type(task).__name__}: {error}") from None
    default = f"those of {type(task).__name__} by default; pass space=, for a searched net its config.space(task)"
    _check_codes(genome, space, default)
    return space


def evaluate(
    population: Genome | EdgeGenome,
    space: Space,
    task: Any,
    shared_weights: ArrayLike | Sequence[float],
    key: Key,
    *,
    repetitions: int = 1,
    params: Any = None,
    weights: Array | None = None,
    layout: Layout | None = None,
) -> Array:
    """Returns of all nets of a population under all shared weights, on the same episodes or examples.

    Args:
      population: genomes with a leading axis (n,).
      space: their sizes and activations, static: of a search `Config.space`.
      task: a control or batch task, static.
      shared_weights: (W,).
      key: episode r, or batch of examples r, is drawn with ``split(key, repetitions)[r]`` for all nets and weights.
      repetitions: how many.
      params: the task's constants; by default its own.
      weights: (n, N, N), for each connection one, which multiplies the shared one; none by default.
      layout: how a control task is cut up (`nnjax.wann.rollout`).

    Returns:
      (n, W), means over repetitions; NaN where a return is.

    Raises:
      ValueError: the task is none, or one on the host (`nnjax.wann.tasks.gym` evaluates those); no weight, no
        repetition; a population, or weights, of another space, as far as shapes tell and, of known arrays, codes of
        activations. Of traced arrays codes that the space does not have are computed as some other activation.
    """
    _checked(task, space)
    if np.ndim(population.hidden) != 1 or not len(population.hidden):
        raise ValueError(f"hidden of shape {np.shape(population.hidden)} must be (n,): a population, not one genome")
    _check_shapes(population, space, weights)
    _check_codes(population, space, "those of the space")
    if repetitions < 1:
        raise ValueError(f"repetitions={repetitions} must be at least 1")
    params = task.params if params is None else params
    return _evaluate(population, space, task, _weights(shared_weights), key, repetitions, params, weights, layout)


@functools.partial(jax.jit, static_argnames=("space", "task", "repetitions", "layout"))
def _evaluate(
    population: Genome | EdgeGenome, space: Space, task: Any, shared: Array, key: Key, repetitions: int, params: Any,
    weights: Array | None, layout: Layout | None,
) -> Array:  # fmt: skip
    if check_task(task) == "control":
        group, begin = jnp.zeros(len(population.hidden), jnp.int32), starts(task, params, key[None], repetitions)
        totals, _ = episodes(population, space, task, params, shared, begin, group, weights=weights, layout=layout)
        return totals.mean(-1)
    if weights is None:
        return evaluate_batch(population, space, task, shared, key, repetitions=repetitions, params=params)
    keys = jax.random.split(key, repetitions)
    return jax.lax.map(
        lambda net: _batches(net[0], space, task, params, shared, keys, net[1]).mean(-1),
        (jax.tree.map(jnp.asarray, population), jnp.asarray(weights)),
    )


def starts(task: Any, params: Any, keys: Key, repetitions: int) -> PyTree:
    """States at which episodes begin, leading axes (groups, repetitions) for keys (groups,)."""
    split = jax.vmap(lambda key: jax.random.split(key, repetitions))(keys)
    return jax.vmap(jax.vmap(task.reset, (None, 0)), (None, 0))(params, split)


def episodes(
    population: Genome | EdgeGenome, space: Space, task: Any, params: Any, shared: Array, begin: PyTree, group: Array,
    *, weights: Array | None = None, layout: Layout | None = None,
) -> tuple[Array, Array]:  # fmt: skip
    """Returns (n, W, R) of a population from given starts, and the steps that each net made, (n,) float32.

    Nets are taken by as many at a time as ``_BUDGET`` has room for. Arguments are those of `nnjax.wann.rollout.rollout`
    but for the population, and ``weights`` (n, N, N), a factor for each connection.
    """
    size, group = len(group), jnp.asarray(group)
    net = most_instructions(space) * (FAN_IN * (4 if weights is None else 8) + 1)
    slabs = max(1, math.ceil(size * net / _BUDGET))
    at_once = -(-size // slabs)

    def some(picked: Array) -> tuple[Array, Array]:
        nets = jax.tree.map(lambda leaf: jnp.asarray(leaf)[picked], population)
        factors = None if weights is None else jnp.asarray(weights)[picked]
        prepared = programs(nets, space, factors)
        return rollout(prepared, space, task, params, shared, begin, group[picked], layout)

    if slabs == 1:
        return some(jnp.arange(size))
    place = jnp.minimum(jnp.arange(slabs * at_once), size - 1).reshape(slabs, at_once)
    totals, made = jax.lax.map(some, place)
    return totals.reshape(-1, *totals.shape[2:])[:size], made.reshape(-1)[:size]


def returns(
    genome: Genome | EdgeGenome,
    task: Any,
    shared_weights: ArrayLike | Sequence[float],
    key: Key,
    episodes: int = 100,
    *,
    space: Space | None = None,
    weights: Array | None = None,
    params: Any = None,
) -> Array:
    """Returns of one net, episode by episode, under each of several shared weights.

    Args:
      genome: one net, say from `nnjax.wann.read_champion`.
      task: a control or batch task.
      shared_weights: (W,); every one meets the same episodes.
      key: episode e is drawn with ``split(key, episodes)[e]``.
      episodes: how many; batches of examples for a batch task.
      space: the net's sizes and activations; by default the task's, or the activations of Gaier and Ha (2019). A net of
        a search with `Config.activations` needs ``config.space(task)``.
      weights: (N, N), for each connection one, which multiplies the shared one.
      params: the task's constants; by default its own.

    Returns:
      (W, episodes), NaN where a return is.

    Raises:
      ValueError: a population instead of one net, a net or weights of other sizes than the task needs, no episode, a
        task on the host; of a known net, activations that the space does not have, and connections that it cannot have.
        Nothing can tell those of a traced net, or activations of another space that have the same codes (from 10 on, as
        those of `NAMES` are the same in all): the returns are then those of another net.
    """
    if episodes < 1:
        raise ValueError(f"episodes={episodes} must be at least 1")
    space = _space_of_one(genome, task, space, weights)
    params = task.params if params is None else params
    work = _control_returns if check_task(task) == "control" else _batch_returns
    return work(genome, space, task, params, _weights(shared_weights), key, episodes, weights)


@functools.partial(jax.jit, static_argnames=("space", "task", "count"))
def _control_returns(
    genome: Genome | EdgeGenome, space: Space, task: Any, params: Any, shared: Array, key: Key, count: int,
    weights: Array | None,
) -> Array:  # fmt: skip
    population = jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], genome)
    factors = None if weights is None else jnp.asarray(weights)[None]
    begin = starts(task, params, key[None], count)
    totals, _ = episodes(population, space, task, params, shared, begin, jnp.zeros(1, jnp.int32), weights=factors)
    return totals[0]


@functools.partial(jax.jit, static_argnames=("space", "task", "count"))
def _batch_returns(
    genome: Genome | EdgeGenome, space: Space, task: Any, params: Any, shared: Array, key: Key, count: int,
    weights: Array | None,
) -> Array:  # fmt: skip
    return _batches(genome, space, task, params, shared, jax.random.split(key, count), weights)


def _batches(
    genome: Genome | EdgeGenome, space: Space, task: Any, params: Any, shared: Array, keys: Key, weights: Array | None
) -> Array:
    """Returns (W, batches) of one net in its reference form, a batch of examples for each key."""

    def one(weight: Array, key: Key) -> Array:
        factors = weight if weights is None else weight * jnp.asarray(weights)
        return task.evaluate(params, lambda x: forward(genome, space, factors, x), key)

    return jax.lax.map(lambda weight: jax.lax.map(lambda key: one(weight, key), keys), shared)


class Trajectory(NamedTuple):
    """One episode, leading axis (steps,).

    Attributes:
      states: before each step.
      observations: (steps, inputs), what the net was shown.
      actions: (steps, outputs), what it put out.
      rewards: (steps,), 0 once the episode is done.
      alive: (steps,) bool, whether the step counts.
    """

    states: PyTree
    observations: Array
    actions: Array
    rewards: Array
    alive: Array


@functools.partial(jax.jit, static_argnames=("task", "space"))
def _trajectory(
    genome: Genome | EdgeGenome, task: Any, weight: Array, key: Key, space: Space, params: Any
) -> Trajectory:
    def one(carry: tuple, _: None) -> tuple:
        state, alive = carry
        seen = task.observe(params, state)
        action = forward(genome, space, weight, seen)
        new, reward, done = task.step(params, state, action)
        return (new, alive & ~done), Trajectory(state, seen, action, jnp.where(alive, reward, 0), alive)

    return jax.lax.scan(one, (task.reset(params, key), jnp.asarray(True)), None, task.steps)[1]


def trajectory(
    genome: Genome | EdgeGenome, task: Any, weight: ArrayLike, key: Key, *, space: Space | None = None,
    params: Any = None,
) -> Trajectory:  # fmt: skip
    """One episode of a control task, step by step, the net run in its reference form.

    Args:
      genome: one net.
      task: a control task.
      weight: the shared weight, (), or one for each connection, (N, N).
      key: of the start; episode e of `returns` has that of ``split(key, episodes)[e]``.
      space: as in `returns`.
      params: the task's constants; by default its own.

    Raises:
      ValueError: the task is no control task, or what `returns` raises; it can tell no more than that of a net that is
        not of the space.
    """
    space = _space_of_one(genome, task, space, None)
    if check_task(task) != "control":
        raise ValueError(f"task {type(task).__name__} has no steps to follow; trajectory takes a control task")
    return _trajectory(genome, task, jnp.asarray(weight), key, space, task.params if params is None else params)


def _space_of_one(genome: Genome | EdgeGenome, task: Any, space: Space | None, weights: Array | None) -> Space:
    """The space of one net, or the one given, once it is sure that net and task are of it."""
    if np.ndim(genome.hidden):
        raise ValueError(f"hidden of shape {np.shape(genome.hidden)} must be (): one genome, not a population")
    space = space_of(genome, task) if space is None else space
    _checked(task, space)
    _check_shapes(genome, space, weights)
    if not any(isinstance(leaf, jax.core.Tracer) for leaf in genome):
        check(genome, space)
    return space


def _check_shapes(genome: Genome | EdgeGenome, space: Space, weights: Array | None) -> None:
    """What can be seen of a traced genome, too."""
    axes, n = np.shape(genome.hidden), space.max_nodes
    if isinstance(genome, EdgeGenome):
        genes: tuple[str, Array, tuple] = "genes", genome.genes, (space.edges,)
    else:
        genes = "connections", genome.connections, (n, n)
    found = [genes, ("activations", genome.activations, (n,))]
    found += [] if weights is None else [("weights", weights, (n, n))]
    for name, value, shape in found:
        if np.shape(value) != (*axes, *shape):
            raise ValueError(f"{name} of shape {np.shape(value)} must be {(*axes, *shape)} for max_nodes={n}")


def _check_codes(genome: Genome | EdgeGenome, space: Space, whose: str) -> None:
    """Make sure that codes, where known, are of the space: others would be computed as some other activation."""
    if isinstance(genome.activations, jax.core.Tracer):
        return
    codes, last = np.asarray(genome.activations), len(space.table) - 1
    wrong = codes[(codes < 0) | (codes > last)]
    if len(wrong):
        raise ValueError(f"activations hold the code {wrong[0]}; expected 0 to {last}, {whose}")


def _checked(task: Any, space: Space) -> None:
    if check_task(task) == "host":
        raise ValueError(f"task {type(task).__name__} runs on the host; nnjax.wann.tasks.gym evaluates it")
    if (space.inputs, space.outputs) != (task.inputs, task.outputs):
        raise ValueError(f"the space has {space.inputs} inputs and {space.outputs} outputs; task {type(task).__name__} "
                         f"has {task.inputs} and {task.outputs}")  # fmt: skip


def _weights(shared_weights: ArrayLike | Sequence[float]) -> Array:
    shared = jnp.asarray(shared_weights, jnp.result_type(float))
    if shared.ndim != 1 or not len(shared):
        raise ValueError(f"shared_weights of shape {shared.shape} must be (W,), at least one")
    return shared
