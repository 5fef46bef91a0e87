"""After a search: its champion, the shared weight that suits it best, and what it is worth, as Gaier and Ha (2019) do.

What is chosen (a champion, a shared weight, trained weights) is chosen on episodes of its own, by the key handed over:
report on others. Training is in `nnjax.wann.training`; its `train_weights` can be had from here too.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from nnjax import activations
from nnjax.naming import choose
from nnjax.types import Array, Key
from nnjax.wann.course import Config, State
from nnjax.wann.edges import EdgeGenome
from nnjax.wann.evaluation import evaluate, space_of
from nnjax.wann.evaluation import returns as returns_of
from nnjax.wann.function import Function
from nnjax.wann.genome import ENABLED, NAMES, Genome, Space, check
from nnjax.wann.tasks.classification import Classification, Parts
from nnjax.wann.tasks.task import check_task, constants
from nnjax.wann.training import Trained, train_weights
from nnjax.wann.weight_sets import Lanes, Net, held_out, prepared, scores_of

__all__ = [
    "Choice",
    "Columns",
    "Trained",
    "Tuned",
    "accuracies",
    "choose_champion",
    "ensemble_accuracy",
    "fixed_topology",
    "four_columns",
    "train_weights",
    "tune_shared",
]

_FINALISTS = 16
_CHEAPER = 8  # so many times fewer episodes in the first round


class Choice(NamedTuple):
    """The net that `choose_champion` chose.

    Attributes:
      genome: one net.
      mean: () its mean return over shared weights and episodes of the last round.
      means: (W,) the same under each shared weight.
    """

    genome: Genome | EdgeGenome
    mean: Array
    means: Array


def choose_champion(
    state: State, task: Any, config: Config, key: Key, *, episodes: int = 32, params: Any = None, workers: Any = None
) -> Choice:
    """The best net that a search, or many, came to: the highest mean return over shared weights, on new episodes.

    The highest return that the search itself saw is partly luck. So all nets of the last populations, and each
    search's `State.best`, are shown an eighth of the episodes; the best 16 of them then meet ``episodes`` others.
    For classification the first round is as many validation examples as a batch has, the second one all of them.

    Args:
      state: as `nnjax.wann.search.search` returned it, of one or several searches or islands.
      task: of the search.
      config: of the search.
      key: of the episodes.
      episodes: of the last round.
      params: the task's constants; by default its own. A task on the host has none, and takes None alone.
      workers: for a task on the host, as for `nnjax.wann.tasks.gym.evaluate_host`.

    Returns:
      `Choice`. Nets with a return that is not finite come last.

    Raises:
      ValueError: no episode, a state of another search than the config's, or ``params`` for a task on the host.
    """
    if episodes < 1:
        raise ValueError(f"episodes={episodes} must be at least 1")
    params, space = constants(task, params), config.space(task)
    nets = jax.tree.map(lambda *leaves: np.concatenate(leaves), _flat(state.population), _flat(state.best))
    check(nets, space)
    shared = jnp.asarray(config.shared_weights, jnp.result_type(float))
    rounds = (max(1, episodes // _CHEAPER), episodes)
    for number, (own, count) in enumerate(zip(jax.random.split(key), rounds, strict=True)):
        trial, chosen, repetitions = held_out(task, params, count)
        if number == 0 and isinstance(task, Classification):
            trial = _smaller(trial, task.batch_size or len(params.train.y), len(params.validation.y))
        found = _means(nets, space, trial, shared, own, repetitions, chosen, workers)
        mean = np.where(np.isfinite(found).all(1), found.mean(1), -np.inf)
        best = np.argsort(-mean, kind="stable")
        # Of nets that return the same everywhere, copies or nearly, one is enough.
        new = np.zeros(len(best), bool)
        new[np.unique(found[best], axis=0, return_index=True)[1]] = True
        best = best[new][:_FINALISTS]
        nets = jax.tree.map(lambda leaf, best=best: leaf[best], nets)
    genome = jax.tree.map(lambda leaf: jnp.asarray(leaf[0]), nets)
    return Choice(genome, jnp.asarray(found[best[0]].mean()), jnp.asarray(found[best[0]]))


def _flat(nets: Any) -> Any:
    """Genomes in the host's memory with one leading axis."""
    lead = np.ndim(nets.hidden)
    return jax.tree.map(lambda leaf: np.asarray(leaf).reshape(-1, *np.shape(leaf)[lead:]), nets)


def _smaller(task: Classification, size: int, most: int) -> Classification:
    return task if size >= most else _with_batches(task, size)


@functools.cache
def _with_batches(task: Classification, size: int) -> Classification:
    return dataclasses.replace(task, batch_size=size)


def _means(
    nets: Any, space: Space, task: Any, shared: Array, key: Key, repetitions: int, params: Any, workers: Any
) -> np.ndarray:
    if getattr(task, "host", False):
        from nnjax.wann.tasks.gym import evaluate_host

        return np.asarray(evaluate_host(nets, space, task, shared, key, repetitions=repetitions, workers=workers))
    return np.asarray(evaluate(nets, space, task, shared, key, repetitions=repetitions, params=params))


class Tuned(NamedTuple):
    """The shared weight that suits a net best, and how all others did.

    Attributes:
      weight: ().
      weights: (W,) all that were tried.
      returns: (W, episodes), of classification (W, 1).
    """

    weight: Array
    weights: Array
    returns: Array


def tune_shared(
    genome: Genome | EdgeGenome, task: Any, key: Key, low: float = -2.0, high: float = 2.0, *, weights: int = 41,
    episodes: int = 32, space: Space | None = None, params: Any = None, workers: Any = None,
) -> Tuned:  # fmt: skip
    """The weight, the same for all connections, under which one net returns most on average, the mean being finite.

    Args:
      genome: one net.
      task: any task.
      key: of the episodes, which all weights share; classification goes by all validation examples instead.
      low, high: ends of the range.
      weights: how many are tried, evenly spread from end to end.
      episodes: of each, or batches of examples.
      space: the net's sizes and activations; by default the task's.
      params: as in `choose_champion`.
      workers: for a task on the host, as for `nnjax.wann.tasks.gym.GymTask.evaluate_lanes`.

    Raises:
      ValueError: fewer than two weights, an empty range, no episode, a net that is not one of the task's, or
        ``params`` for a task on the host.
    """
    if weights < 2 or not low < high:
        raise ValueError(f"weights={weights} must be at least 2, from low={low} to a higher high={high}")
    if episodes < 1:
        raise ValueError(f"episodes={episodes} must be at least 1")
    grid = jnp.asarray(np.linspace(low, high, weights), jnp.result_type(float))
    kind, space = check_task(task), space_of(genome, task) if space is None else space
    own = constants(task, params)
    if kind == "control":
        found = returns_of(genome, task, grid, key, episodes, space=space, params=own)
    else:
        trial, chosen, repetitions = held_out(task, own, episodes)
        lanes, net, start = prepared(genome, trial, 1.0, repetitions, space=space,
                                     params=None if kind == "host" else chosen)  # fmt: skip
        sets = grid[:, None] * jnp.ones_like(start)[None]
        found = scores_of(sets, net, key[None], jnp.zeros(weights, jnp.int32), lanes, workers)
    mean = found.mean(1)
    return Tuned(grid[jnp.argmax(jnp.where(jnp.isfinite(mean), mean, -jnp.inf))], grid, found)


class Columns(NamedTuple):
    """Returns of one net, each (trials,), in the columns of the table of Gaier and Ha (2019).

    Attributes:
      random_weights: every connection has a weight of its own from U(low, high), new ones each trial.
      random_shared: all share one from U(low, high), a new one each trial.
      tuned_shared: all share the tuned one.
      tuned_weights: the trained ones.
    """

    random_weights: Array
    random_shared: Array
    tuned_shared: Array
    tuned_weights: Array


def four_columns(
    genome: Genome | EdgeGenome, task: Any, key: Key, *, tuned_weight: ArrayLike, trained_weights: ArrayLike,
    space: Space | None = None, trials: int = 100, low: float = -2.0, high: float = 2.0, params: Any = None,
    part: str | None = None, workers: Any = None,
) -> Columns:  # fmt: skip
    """What one net returns under random, tuned and trained weights (Gaier and Ha, 2019, table 1).

    Every trial is one new episode, or batch of examples, the same in all four columns. Their means with 95 % intervals:
    `nnjax.statistics.t_interval`.

    Args:
      genome: one net.
      task: any task.
      key: of episodes and weights.
      tuned_weight: () from `tune_shared`.
      trained_weights: (N, N) from `train_weights`.
      space: the net's sizes and activations; by default the task's.
      trials: how many.
      low, high: range of the random weights.
      params: as in `choose_champion`.
      part: for classification, train, validation or test: accuracies on it instead of returns, the same examples in all
        trials.
      workers: for a task on the host, as for `nnjax.wann.tasks.gym.GymTask.evaluate_lanes`.

    Raises:
      ValueError: no trial, an empty range, weights of another shape, a net that is not one of the task's, or
        ``params`` for a task on the host.
    """
    if trials < 1:
        raise ValueError(f"trials={trials} must be at least 1")
    if not low <= high:
        raise ValueError(f"low={low} must be at most high={high}")
    if np.shape(tuned_weight) != () or np.ndim(trained_weights) != 2:
        raise ValueError(f"tuned_weight of shape {np.shape(tuned_weight)} must be () and trained_weights of shape "
                         f"{np.shape(trained_weights)} (N, N)")  # fmt: skip
    lanes, net, trained = prepared(genome, task, trained_weights, 1, space=space, params=params)
    of_weights, of_shared, of_episodes = jax.random.split(key, 3)
    shape, dtype = (trials, len(trained)), trained.dtype
    own = jax.random.uniform(of_weights, shape, dtype, low, high)
    shared = jax.random.uniform(of_shared, (trials, 1), dtype, low, high)
    sets = [own, shared, jnp.asarray(tuned_weight, dtype).reshape(1, 1), trained[None]]
    if part is not None:
        once = [jnp.broadcast_to(each, (len(each), shape[1])) for each in sets]
        return Columns(*(jnp.broadcast_to(_accuracies(each, net, lanes, part), trials) for each in once))
    every = jnp.concatenate([jnp.broadcast_to(each, shape) for each in sets])
    group = jnp.tile(jnp.arange(trials), len(sets))
    found = scores_of(every, net, jax.random.split(of_episodes, trials), group, lanes, workers)
    return Columns(*found[:, 0].reshape(len(sets), trials))


def accuracies(
    genome: Genome | EdgeGenome, task: Any, weights: ArrayLike, *, part: str = "test", space: Space | None = None,
    params: Any = None,
) -> Array:  # fmt: skip
    """Accuracy of one net under each of several shared weights.

    Args:
      genome: one net.
      task: one with an ``accuracy``.
      weights: (W,) shared weights, or (W, N, N) sets.
      part: of a classification's examples: train, validation or test.
      space: the net's sizes and activations; by default the task's.
      params: the task's constants; by default its own.

    Returns:
      (W,).

    Raises:
      ValueError: a task without accuracy, an unknown part, weights of another shape, or a net not of the task.
    """
    lanes, net, start = prepared(genome, task, 1.0, 1, space=space, params=params)
    weights = jnp.asarray(weights, start.dtype)
    if weights.ndim == 1:
        sets = weights[:, None] * jnp.ones_like(start)[None]
    elif weights.shape[1:] == (lanes.space.max_nodes,) * 2:
        sets = weights[:, net.pairs[:, 0], net.pairs[:, 1]]
    else:
        raise ValueError(f"weights of shape {weights.shape} must be (W,) or (W, {lanes.space.max_nodes}, "
                         f"{lanes.space.max_nodes})")  # fmt: skip
    return _accuracies(sets, net, lanes, part)


def _accuracies(sets: Array, net: Net, lanes: Lanes, part: str) -> Array:
    if not hasattr(lanes.task, "accuracy") or lanes.function is None:
        raise ValueError(f"task {type(lanes.task).__name__} has no accuracy")
    if isinstance(lanes.task, Classification):
        choose("part", part, Parts._fields)
    return _accurate(sets, net.params, lanes.function, lanes.task, part)


@functools.partial(jax.jit, static_argnames=("function", "task", "part"))
def _accurate(sets: Array, params: Any, function: Function, task: Any, part: str) -> Array:
    options = {"part": part} if isinstance(task, Classification) else {}
    return jax.lax.map(lambda w: task.accuracy(params, functools.partial(function, w), **options), sets)


def ensemble_accuracy(
    genome: Genome | EdgeGenome, task: Classification, weights: ArrayLike, *, part: str = "test", vote: str = "mean",
    space: Space | None = None, params: Any = None,
) -> Array:  # fmt: skip
    """Accuracy of one net under several shared weights together, which are then an ensemble (Gaier and Ha, 2019).

    Args:
      genome: one net.
      task: classification.
      weights: (W,) shared weights.
      part: train, validation or test.
      vote: "mean": the class with the highest mean probability; "majority": the one most of the weights are for, the
        first of several.
      space: the net's sizes and activations; by default the task's.
      params: the task's constants; by default its own.

    Returns:
      (). A weight whose outputs for an example are not finite has no vote on it.

    Raises:
      ValueError: another task, an unknown part or vote, weights of another shape, or a net not of the task.
    """
    if not isinstance(task, Classification):
        raise ValueError(f"task {type(task).__name__} is no classification")
    choose("vote", vote, ("mean", "majority"))
    if np.ndim(weights) != 1 or not np.size(weights):
        raise ValueError(f"weights of shape {np.shape(weights)} must be (W,), at least one")
    lanes, net, start = prepared(genome, task, 1.0, 1, space=space, params=params)
    examples = getattr(net.params, choose("part", part, Parts._fields))
    assert lanes.function is not None
    return _ensemble(jnp.asarray(weights, start.dtype), examples.x, examples.y, lanes.function, vote)


@functools.partial(jax.jit, static_argnames=("function", "vote"))
def _ensemble(weights: Array, x: Array, y: Array, function: Function, vote: str) -> Array:
    def votes(total: jax.Array, weight: Any) -> tuple[jax.Array, None]:
        logits = function(weight, x)
        share = jax.nn.softmax(logits)
        if vote == "majority":
            share = jax.nn.one_hot(jnp.argmax(logits, 1), logits.shape[1], dtype=logits.dtype)
        return total + jnp.where(jnp.isfinite(logits).all(1, keepdims=True), share, 0), None

    none = jnp.zeros((len(x), function.outputs), jnp.result_type(float))
    total, _ = jax.lax.scan(votes, none, weights)
    # Without a single vote there is no answer, not the first class.
    right = (jnp.argmax(total, 1) == jnp.asarray(y)) & (total.max(1) > 0)
    return jnp.mean(right.astype(total.dtype))


def fixed_topology(task: Any, hidden: Sequence[int] = (10,), activation: str = "tanh") -> tuple[Genome, Space]:
    """A fully connected net in layers as a genome, to set beside searched ones.

    Every node is connected to the bias and to all nodes of the layer before it. Gaier and Ha (2019) refer to other
    papers for the nets in their table; one layer of 10 units, here the default, is our own choice.

    Args:
      task: says how many inputs and outputs.
      hidden: nodes of each hidden layer; none for a linear net.
      activation: of the hidden nodes; outputs are linear.

    Returns:
      The genome, all connections enabled and no empty slot, and its space.

    Raises:
      ValueError: a layer that is not a whole number of at least 1, an unknown activation, or too many nodes.
    """
    for size in hidden:
        if not isinstance(size, int | np.integer) or isinstance(size, bool) or size < 1:
            raise ValueError(f"hidden={tuple(hidden)} must hold whole numbers, at least 1")
    name = choose("activation", activation, activations.NAMES, aliases=activations.ALIASES)
    sizes = [task.inputs, *map(int, hidden), task.outputs]
    slots = 1 + sum(sizes)
    space = Space(task.inputs, task.outputs, slots, NAMES if name in NAMES else (*NAMES, name))
    genes, codes = np.zeros((slots, slots), np.int8), np.zeros(slots, np.int8)
    ends = 1 + np.cumsum(sizes)
    for first, last, before in zip(ends[:-1], ends[1:], sizes[:-1], strict=True):
        genes[first - before : first, first:last] = ENABLED
        genes[0, first:last] = ENABLED
    codes[1 + task.inputs : space.first_output] = space.table.index(name)
    genome = Genome(jnp.asarray(genes), jnp.asarray(codes), jnp.asarray(sum(sizes[1:-1]), jnp.int32))
    check(genome, space)
    return genome, space
