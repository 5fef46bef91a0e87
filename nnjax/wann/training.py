"""Training the weights of one net: by evolution, or by gradient for tasks that have one.

Both begin at the shared weight that suits the net best, and keep several sets of weights on the way. Which of
them is the result is decided on episodes that training has not seen.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike

from nnjax.naming import with_options
from nnjax.types import Array, Key
from nnjax.wann import strategies
from nnjax.wann.edges import EdgeGenome
from nnjax.wann.genome import Genome, Space
from nnjax.wann.tasks.task import check_task, differentiable
from nnjax.wann.weight_sets import Lanes, Net, held_out, matrices_of, prepared, return_of, scores, scores_of, widened


class History(NamedTuple):
    """The course of a training, leading axis (generations,), of returns as training sees them.

    Attributes:
      mean: over the candidates of a generation; of a gradient's step, the return before it.
      best: of a generation's candidates; the same as ``mean`` for a gradient.
      deviation: root mean square of the candidates' standard deviations; 0 for a gradient.
    """

    mean: Array
    best: Array
    deviation: Array


class Trained(NamedTuple):
    """Weights of a net.

    Attributes:
      weights: (N, N) in the slots of the genome, 0 where no connection is enabled.
      mean: () their mean return on the episodes that chose them; too high by what the best of a few is by chance.
      choices: (S,) the same for all sets that there were to choose from, in the order of training: what it began with,
        then what it had after each block.
      history: of training.
    """

    weights: Array
    mean: Array
    choices: Array
    history: History


Progress = Callable[[int, int, History], None]
"""Called between blocks with generations done and to do, and what there is of the history."""


def train_weights(
    genome: Genome | EdgeGenome,
    task: Any,
    weight: ArrayLike,
    key: Key,
    *,
    space: Space | None = None,
    params: Any = None,
    **options: Any,
) -> Trained:
    """Weights for all enabled connections: by gradient for a task that has one (`descend_weights`), else by evolution.

    Args:
      genome: one net.
      task: any task; `nnjax.wann.tasks.differentiable` says whether it has a gradient.
      weight: what all connections begin with, as from `nnjax.wann.tuning.tune_shared`; or a set (N, N).
      key: of everything random.
      space: the net's sizes and activations; by default the task's.
      params: the task's constants; by default its own. A task on the host has none, and takes None alone.
      options: of `descend_weights` or `evolve_weights`; both have generations, episodes, selection, block, progress.

    Raises:
      ValueError: an option that there is not, or what these two raise.
    """
    check_task(task)
    name, train = ("gradient", descend_weights) if differentiable(task) else ("evolution", evolve_weights)
    own = functools.partial(train, space=space, params=params)
    return with_options("training", name, own, options, genome, task, weight, key)


def evolve_weights(
    genome: Genome | EdgeGenome,
    task: Any,
    weight: ArrayLike,
    key: Key,
    *,
    space: Space | None = None,
    params: Any = None,
    generations: int = 300,
    population: int = 64,
    episodes: int = 8,
    sigma: float = 0.3,
    diagonal: bool | None = None,
    active: bool = True,
    selection: int = 64,
    block: int = 50,
    progress: Progress | None = None,
    workers: Any = None,
) -> Trained:
    """Weights by the evolution strategy CMA-ES (`nnjax.wann.strategies`; Hansen, 2016), for any task.

    All candidates of a generation meet the same episodes; the next generation has new ones. To choose from there are
    the start and, after every block, the mean of the distribution, which noise has picked less than any candidate.

    Args:
      genome, task, weight, key, space, params: as in `train_weights`.
      generations: how many.
      population: candidates of a generation.
      episodes: of each candidate, or batches of examples. A multiple of 8 leaves no part of a processor's vectors idle.
      sigma: standard deviation of every weight in the first generation.
      diagonal: as in `nnjax.wann.strategies.init`.
      active: as in `nnjax.wann.strategies.tell`.
      selection: episodes that choose the result.
      block: generations between two calls of ``progress``.
      progress: see `Progress`.
      workers: for a task on the host, as for `nnjax.wann.tasks.gym.GymTask.evaluate_lanes`.

    Raises:
      ValueError: a population instead of one net, a net without enabled connections or of another space, a number out
        of range, or ``params`` for a task on the host.
    """
    _check_counts(generations=generations, episodes=episodes, selection=selection, block=block)
    _check_counts(2, population=population)
    lanes, net, start = prepared(genome, task, weight, episodes, space=space, params=params)
    of_training, of_selection = jax.random.split(key)
    width = len(start)
    diagonal = width > strategies.FULL if diagonal is None else diagonal
    (start,), net = widened(start[None], net, lanes)
    state = strategies.init(start, sigma, diagonal=diagonal, used=jnp.arange(len(start)) < width)
    history, means = _blank(np.zeros(0, start.dtype)), [state.mean]
    with _host(lanes, workers, population) as pool:
        for done in range(0, generations, block):
            count = min(block, generations - done)
            if pool is None:
                state, part = _evolve(state, net, of_training, jnp.int32(count), lanes, population, active, block)
            else:
                state, part = _evolve_on_host(state, net, of_training, count, lanes, population, active, pool)
            history, means = _longer(history, part, count), [*means, state.mean]
            if progress is not None:
                progress(done + count, generations, history)
        return _chosen(jnp.stack(means), net, lanes, of_selection, selection, history, pool)


def descend_weights(
    genome: Genome | EdgeGenome,
    task: Any,
    weight: ArrayLike,
    key: Key,
    *,
    space: Space | None = None,
    params: Any = None,
    generations: int = 1000,
    learning_rate: float = 0.01,
    optimizer: optax.GradientTransformation | None = None,
    episodes: int = 1,
    selection: int = 64,
    block: int = 50,
    progress: Progress | None = None,
) -> Trained:
    """Weights by gradient ascent of the return, for a batch task. A step whose gradient is not finite is left out.

    Args:
      genome, task, weight, key, space, params: as in `train_weights`.
      generations: steps.
      learning_rate: of Adam (Kingma and Ba, 2015).
      optimizer: something else from optax, which then has its own rate. Hand over the same object again and nothing is
        compiled anew.
      episodes: batches of examples of a step.
      selection: batches that choose the result; a task with validation examples is shown all of those instead.
      block: steps between two sets of weights to choose from, and two calls of ``progress``.
      progress: see `Progress`.

    Raises:
      ValueError: another task than a batch task, a population instead of one net, a net without enabled connections or
        of another space, or a number out of range.
    """
    _check_counts(generations=generations, episodes=episodes, selection=selection, block=block)
    if check_task(task) != "batch":
        raise ValueError(f"task {type(task).__name__} is no batch task; evolve_weights needs no gradient")
    lanes, net, weights = prepared(genome, task, weight, episodes, space=space, params=params)
    of_training, of_selection = jax.random.split(key)
    optimizer = _adam(learning_rate) if optimizer is None else optimizer
    state = optimizer.init(weights)
    history, sets = _blank(np.zeros(0, weights.dtype)), [weights]
    for done in range(0, generations, block):
        count = min(block, generations - done)
        weights, state, part = _descend(weights, state, net.params, of_training, jnp.int32(done), jnp.int32(count),
                                        lanes, optimizer, block)  # fmt: skip
        history, sets = _longer(history, part, count), [*sets, weights]
        if progress is not None:
            progress(done + count, generations, history)
    return _chosen(jnp.stack(sets), net, lanes, of_selection, selection, history, None)


def _chosen(sets: Array, net: Net, lanes: Lanes, key: Key, selection: int, history: History, workers: Any) -> Trained:
    """The set of weights with the highest mean return on new episodes."""
    task, params, repetitions = held_out(lanes.task, net.params, selection)
    lanes = dataclasses.replace(lanes, task=task, repetitions=repetitions)
    group = jnp.zeros(len(sets), jnp.int32)
    found = scores_of(sets, net._replace(params=params), key[None], group, lanes, workers).mean(1)
    best = jnp.argmax(jnp.where(jnp.isfinite(found), found, -jnp.inf))
    return Trained(matrices_of(sets[best][None], net, lanes.space)[0], found[best], found, history)


@functools.partial(jax.jit, static_argnames=("lanes", "population", "active", "block"))
def _evolve(
    state: strategies.State, net: Net, key: Key, count: Array, lanes: Lanes, population: int, active: bool, block: int
) -> tuple[strategies.State, History]:
    """So many generations; the history has ``block``."""
    group = jnp.zeros(population, jnp.int32)

    def one(number: Array, carry: tuple) -> tuple:
        state, history = carry
        of_candidates, of_episodes = jax.random.split(jax.random.fold_in(key, state.generation))
        candidates = strategies.ask(state, of_candidates, population)
        values = scores(candidates, net, of_episodes[None], group, lanes).mean(1)
        state = strategies.tell(state, candidates, values, active=active)
        row = _row(state, values)
        return state, jax.tree.map(lambda all_, new: all_.at[number].set(new), history, row)

    blank = _blank(jnp.zeros(block, state.mean.dtype))
    return jax.lax.fori_loop(0, count, one, (state, blank))


def _evolve_on_host(
    state: strategies.State, net: Net, key: Key, count: int, lanes: Lanes, population: int, active: bool, workers: Any
) -> tuple[strategies.State, History]:
    group, rows = jnp.zeros(population, jnp.int32), []
    for _ in range(count):
        of_candidates, of_episodes = jax.random.split(jax.random.fold_in(key, state.generation))
        candidates = _ask(state, of_candidates, population)
        values = scores_of(candidates, net, of_episodes[None], group, lanes, workers).mean(1)
        state = _tell(state, candidates, values, active=active)
        rows.append(_row(state, values))
    return state, jax.tree.map(lambda *leaves: jnp.stack(leaves), *rows)


_ask = jax.jit(strategies.ask, static_argnames="population")
_tell = jax.jit(strategies.tell, static_argnames="active")


def _row(state: strategies.State, values: Array) -> History:
    best = jnp.where(jnp.isfinite(values), values, -jnp.inf).max()
    return History(jnp.nanmean(values), best, strategies.deviation(state))


@functools.cache
def _adam(learning_rate: float) -> optax.GradientTransformation:
    return optax.adam(learning_rate)


@functools.partial(jax.jit, static_argnames=("lanes", "optimizer", "block"))
def _descend(
    weights: Array, state: Any, params: Any, key: Key, done: Array, count: Array, lanes: Lanes,
    optimizer: optax.GradientTransformation, block: int,
) -> tuple[Array, Any, History]:  # fmt: skip
    """So many steps; the history has ``block``."""
    function = lanes.function
    assert function is not None

    def value(weights: Array, keys: Key) -> Array:
        return -jnp.mean(jax.vmap(lambda key: return_of(weights, params, key, function, lanes.task))(keys))

    def one(number: Array, carry: tuple) -> tuple:
        weights, state, history = carry
        keys = jax.random.split(jax.random.fold_in(key, done + number), lanes.repetitions)
        loss, slope = jax.value_and_grad(value)(weights, keys)
        updates, new = optimizer.update(slope, state, weights)
        finite = jnp.isfinite(slope).all() & jnp.isfinite(loss)
        weights = jnp.where(finite, optax.apply_updates(weights, updates), weights)
        state = jax.tree.map(lambda new, old: jnp.where(finite, new, old), new, state)
        return weights, state, jax.tree.map(lambda all_, new: all_.at[number].set(new), history, row(loss))

    def row(loss: Array) -> History:
        return History(-loss, -loss, jnp.zeros_like(loss))

    blank = _blank(jnp.zeros(block, weights.dtype))
    return jax.lax.fori_loop(0, count, one, (weights, state, blank))


def _blank(zeros: Array) -> History:
    return History(zeros, zeros, zeros)


def _longer(history: History, part: History, count: int) -> History:
    return History(*(np.concatenate([a, np.asarray(b)[:count]]) for a, b in zip(history, part, strict=True)))


@contextlib.contextmanager
def _host(lanes: Lanes, workers: Any, population: int) -> Any:
    """Workers that live as long as training, for a task on the host; else None."""
    if not getattr(lanes.task, "host", False):
        yield None
        return
    from nnjax.wann.tasks.lanes import opened

    with opened(workers, population) as (pool, _):
        yield pool


def _check_counts(least: int = 1, **counts: int) -> None:
    for name, value in counts.items():
        if value < least:
            raise ValueError(f"{name}={value} must be at least {least}")
