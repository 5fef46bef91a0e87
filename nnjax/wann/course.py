"""A search as it stands and as it went: settings, populations, and what a generation does to them, evaluation apart.

Shared by searches that are one program (`nnjax.wann.search`) and by those whose episodes run on the host.
"""

from __future__ import annotations

import dataclasses
import functools
import numbers
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nnjax.types import Array, Key, PyTree
from nnjax.wann.checkpoints import Checkpoints
from nnjax.wann.edges import EdgeGenome
from nnjax.wann.genome import Genome, Space, connection_count, minimal, node_count
from nnjax.wann.selection import Selection, next_generation

SHARED_WEIGHTS = (-2.0, -1.0, -0.5, 0.5, 1.0, 2.0)
"""The shared weights of Gaier and Ha (2019)."""


@dataclasses.dataclass(frozen=True)
class Config:
    """How a search goes; static. The defaults are those of the swing-up search of Gaier and Ha (2019).

    Attributes:
      population: nets in an island.
      generations: how often the population is evaluated; the first time it is that of minimal nets.
      repetitions: episodes, or batches of examples, that a net's return is the mean of.
      shared_weights: weights that all connections of a net have in turn.
      enabled: probability that a connection of the first nets is enabled.
      max_nodes: slots of a genome, bias, inputs and outputs among them. A net stops getting nodes when they are full.
      edges: most genes of a genome, for tasks with many inputs; None: as many as there are pairs of slots.
      activations: names that hidden nodes may have; None: the task's, or else all of Gaier and Ha (2019).
      selection: how parents and survivors are chosen, and how often each mutation is.
      islands: populations that evolve side by side, and exchange nets if ``migrate_every`` is not 0.
      migrate_every: generations between two migrations, in which the best nets of an island take the places of the
        worst in the next one; 0 for never, and nothing happens to a single island.
      migrants: nets that a migration moves from each island.
      block: most generations between two checkpoints.
      layout: how control tasks are cut up, (units, steps); None: what is fastest as a rule.

    Raises:
      ValueError: a number out of range, or something else than a number, numbers or names where these are due.
    """

    population: int = 192
    generations: int = 1024
    repetitions: int = 3
    shared_weights: tuple[float, ...] = SHARED_WEIGHTS
    enabled: float = 0.5
    max_nodes: int = 128
    edges: int | None = None
    activations: tuple[str, ...] | None = None
    selection: Selection = dataclasses.field(default_factory=Selection)
    islands: int = 1
    migrate_every: int = 0
    migrants: int = 1
    block: int = 32
    layout: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        for name in ("population", "generations", "repetitions", "islands", "migrants", "block"):
            object.__setattr__(self, name, _whole(name, getattr(self, name), 1))
        object.__setattr__(self, "migrate_every", _whole("migrate_every", self.migrate_every, 0))
        if self.migrate_every and 2 * self.migrants > self.population:
            raise ValueError(f"migrants={self.migrants} must be at most half of population={self.population}")
        if not isinstance(self.enabled, numbers.Real) or not 0 <= self.enabled <= 1:
            raise ValueError(f"enabled={self.enabled!r} must be a probability, between 0 and 1")
        object.__setattr__(self, "shared_weights", _finite("shared_weights", self.shared_weights))
        if self.activations is not None:
            names = _items(self.activations)
            if not names or not all(isinstance(name, str) for name in names):
                raise ValueError(f"activations={self.activations!r} must be None or a tuple of names, such as "
                                 "('tanh', 'relu')")  # fmt: skip
            object.__setattr__(self, "activations", names)
        if not isinstance(self.selection, Selection):
            raise ValueError(f"selection={self.selection!r} must be a Selection, from nnjax.wann")
        if self.layout is not None:
            cuts = _items(self.layout)
            if len(cuts) != 2:
                raise ValueError(f"layout={self.layout!r} must be two numbers, units and steps")
            object.__setattr__(self, "layout", tuple(_whole("layout", value, 1) for value in cuts))

    def space(self, task: Any) -> Space:
        """Sizes and activations of the nets that a search for this task has.

        Raises:
          ValueError: ``max_nodes`` too small for the task, or an unknown activation.
        """
        names = self.activations if self.activations is not None else getattr(task, "activations", None)
        if names is None:
            return Space(task.inputs, task.outputs, self.max_nodes, edges=self.edges)
        return Space(task.inputs, task.outputs, self.max_nodes, tuple(names), self.edges)


def _items(value: Any) -> tuple:
    """What a list or the like holds; nothing for what is none, a text among them."""
    try:
        return () if isinstance(value, str) else tuple(value)
    except TypeError:
        return ()


def _finite(name: str, value: Any) -> tuple[float, ...]:
    try:
        found = np.asarray(value, float)
    except (TypeError, ValueError):
        found = np.zeros(0)
    if found.ndim != 1 or not len(found) or not np.isfinite(found).all():
        raise ValueError(f"{name}={value!r} must be one or more finite numbers")
    return tuple(found.tolist())


def _whole(name: str, value: Any, least: int) -> int:
    if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name}={value!r} must be a whole number, at least {least}")
    return int(value)


class State(NamedTuple):
    """A search as it stands. Leaves have leading axes (searches,) if there is a key for each, (islands,) if several.

    Attributes:
      population: genomes, then axis (population,).
      fitness: (..., population, W) mean returns of these nets under the shared weights.
      best: the net with the highest mean return ever seen, by chance in part: to choose a champion see `champion`.
      best_return: (...) that return.
      generation: (...) int32, generations evaluated.
      steps: (...) float32, environment steps made; 0 for batch tasks.
      key: (...) of the search.
    """

    population: Genome | EdgeGenome
    fitness: Array
    best: Genome | EdgeGenome
    best_return: Array
    generation: Array
    steps: Array
    key: Key


class History(NamedTuple):
    """The course of a search, leading axes as in `State`, then (generations,).

    Attributes:
      elite_mean: the highest mean return, over shared weights and repetitions, in the population.
      elite_max: that net's best return under one of the shared weights.
      elite_nodes, elite_connections: of that net.
      median_return: of the population's mean returns.
      best_max: the highest return of any net under one of the shared weights.
      nodes, connections: medians of the population, in float32.
      failed: nets with a return that is not finite.
      steps: environment steps made in this generation.
    """

    elite_mean: Array
    elite_max: Array
    elite_nodes: Array
    elite_connections: Array
    median_return: Array
    best_max: Array
    nodes: Array
    connections: Array
    failed: Array
    steps: Array


Progress = Callable[[int, int, History], None]
"""Generations done, generations to do, and the course so far, whose leaves are (searches x islands, generations)."""


def group_keys(key: Key, config: Config) -> Key:
    """A key for every island of every search, (S * islands,), from one of a search or (S,) of several.

    Raises:
      ValueError: no typed key, or none at all.
    """
    keys = jnp.atleast_1d(key)
    if keys.ndim != 1 or not len(keys) or not jnp.issubdtype(keys.dtype, jax.dtypes.prng_key):
        raise ValueError(f"key of shape {jnp.shape(key)} and dtype {keys.dtype} must be a typed key or several, (S,)")
    if config.islands == 1:
        return keys
    return jax.vmap(lambda key: jax.random.split(key, config.islands))(keys).reshape(-1)


def grouped(tree: PyTree, key: Key, config: Config) -> PyTree:
    """Leaves with axes (searches,), if there is a key for each, and (islands,), if several, for that of groups."""
    several = (len(key),) if jnp.ndim(key) else ()
    lead = (*several, *((config.islands,) if config.islands > 1 else ()))
    return jax.tree.map(lambda leaf: leaf.reshape(*lead, *leaf.shape[1:]), tree)


def begun(kept: Checkpoints, space: Space, config: Config, groups: Key) -> tuple[State, History]:
    """What a search goes on from: what was kept of it, or else its first nets.

    Raises:
      ValueError: what was kept has gone on for longer than ``config.generations``.
    """
    state, history = first_state(space, config, groups), no_history(len(groups))
    state, history = kept.restore((state, history)) or (state, history)
    if state.generation[0] > config.generations:
        raise ValueError(f"generations={config.generations} must be at least {int(state.generation[0])}, those of the "
                         "search at checkpoint")  # fmt: skip
    return state, history


@functools.partial(jax.jit, static_argnames=("space", "config"))
def first_state(space: Space, config: Config, keys: Key) -> State:
    """The first nets of every group, (groups,) keys, not evaluated yet."""

    def one(key: Key) -> State:
        first = jax.random.fold_in(key, 2**32 - 1)
        population = jax.vmap(lambda key: minimal(key, space, config.enabled))(
            jax.random.split(first, config.population)
        )
        fitness = jnp.zeros((config.population, len(config.shared_weights)))
        best = jax.tree.map(lambda leaf: leaf[0], population)
        none = jnp.asarray(-jnp.inf, fitness.dtype)
        return State(population, fitness, best, none, jnp.int32(0), jnp.float32(0), key)

    return jax.vmap(one)(keys)


def no_history(groups: int) -> History:
    """A `History` of no generation, in the host's memory."""
    dtype = np.dtype(jnp.result_type(float))
    whole = {"elite_nodes", "elite_connections", "failed"}
    singles = {"nodes", "connections", "steps"}
    kinds = {name: np.int32 if name in whole else np.float32 if name in singles else dtype for name in History._fields}
    return History(**{name: np.zeros((groups, 0), kind) for name, kind in kinds.items()})


def vary(state: State, keys: Key, space: Space, config: Config) -> Any:
    """The next population of every group, a key for each: the first nets themselves in generation 0."""

    def one(key: Key, population: Any, fitness: Array) -> Any:
        few = connection_count(population)
        return next_generation(key, population, fitness.mean(1), fitness.max(1), few, space, config.selection)[0]

    return jax.lax.cond(
        state.generation[0] > 0,
        lambda: jax.vmap(one)(keys, state.population, state.fitness),
        lambda: state.population,
    )


def record(state: State, population: Any, fitness: Array, steps: Array, space: Space) -> tuple[State, History]:
    """The state with an evaluated population, and its row of the `History`, a number a group."""
    row = jax.vmap(lambda population, fitness: _summary(population, fitness, space))(population, fitness)
    row = row._replace(steps=steps)
    first = jnp.argmax(ranked(fitness), 1)
    groups = jnp.arange(len(first))
    better = row.elite_mean > state.best_return

    def best(nets: Array, old: Array) -> jax.Array:
        return jnp.where(better.reshape(-1, *[1] * (old.ndim - 1)), nets[groups, first], old)

    return State(
        population,
        fitness,
        jax.tree.map(best, population, state.best),
        jnp.where(better, row.elite_mean, state.best_return),
        state.generation + 1,
        state.steps + steps,
        state.key,
    ), row


def ranked(fitness: Array) -> Array:
    """Mean returns (..., n), the worst for those that are not finite."""
    mean = fitness.mean(-1)
    return jnp.where(jnp.isfinite(fitness).all(-1) & jnp.isfinite(mean), mean, -jnp.inf)


def _summary(population: Genome | EdgeGenome, fitness: Array, space: Space) -> History:
    mean = ranked(fitness)
    finite = jnp.isfinite(mean)
    first = jnp.argmax(mean)
    nodes, connections = node_count(population, space), connection_count(population)
    return History(
        elite_mean=mean[first],
        elite_max=fitness[first].max(),
        elite_nodes=nodes[first],
        elite_connections=connections[first],
        median_return=jnp.median(mean),
        best_max=jnp.where(finite, fitness.max(1), -jnp.inf).max(),
        nodes=jnp.median(nodes.astype(jnp.float32)),
        connections=jnp.median(connections.astype(jnp.float32)),
        failed=(~finite).sum(dtype=jnp.int32),
        steps=jnp.float32(0),
    )


@functools.partial(jax.jit, static_argnames="config")
def migrate(state: State, config: Config) -> State:
    """The best nets of every island in the places of the worst in the next one, with their returns."""
    islands, some = config.islands, config.migrants
    ring = jnp.roll(jnp.arange(len(state.generation)).reshape(-1, islands), 1, axis=1).reshape(-1)
    order = jnp.argsort(-ranked(state.fitness), axis=1)
    groups = jnp.arange(len(order))[:, None]

    def move(leaf: Array) -> jax.Array:
        best = leaf[groups, order[:, :some]][ring]
        return jnp.asarray(leaf).at[groups, order[:, -some:]].set(best)

    return state._replace(population=jax.tree.map(move, state.population), fitness=move(state.fitness))
