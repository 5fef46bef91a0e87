"""Weight-agnostic search: a population of nets varied and selected by what they do under shared weights.

One compiled program makes a block of generations, for one search or for many at once; between blocks the host shows
progress and keeps what there is, so that a killed search goes on and ends with the same nets.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from nnjax.types import Array, Key
from nnjax.wann.batch import evaluate_batch
from nnjax.wann.checkpoints import Checkpoints, Store, identity
from nnjax.wann.edges import EdgeGenome
from nnjax.wann.evaluation import episodes, starts
from nnjax.wann.genome import Genome, Space, connection_count, minimal, node_count
from nnjax.wann.rollout import Layout
from nnjax.wann.selection import Selection, next_generation
from nnjax.wann.tasks.task import check_task

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
      ValueError: a number out of range.
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
        if not 0 <= self.enabled <= 1:
            raise ValueError(f"enabled={self.enabled} must be a probability, between 0 and 1")
        weights = np.asarray(self.shared_weights, float)
        if weights.ndim != 1 or not len(weights) or not np.isfinite(weights).all():
            raise ValueError(f"shared_weights={self.shared_weights} must be one or more finite numbers")
        object.__setattr__(self, "shared_weights", tuple(weights.tolist()))
        if self.activations is not None:
            object.__setattr__(self, "activations", tuple(self.activations))
        if self.layout is not None:
            if len(self.layout) != 2:
                raise ValueError(f"layout={self.layout} must be two numbers, units and steps")
            object.__setattr__(self, "layout", tuple(_whole("layout", value, 1) for value in self.layout))

    def space(self, task: Any) -> Space:
        """Sizes and activations of the nets that a search for this task has.

        Raises:
          ValueError: ``max_nodes`` too small for the task, or an unknown activation.
        """
        names = self.activations if self.activations is not None else getattr(task, "activations", None)
        if names is None:
            return Space(task.inputs, task.outputs, self.max_nodes, edges=self.edges)
        return Space(task.inputs, task.outputs, self.max_nodes, tuple(names), self.edges)


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


def search(
    task: Any,
    config: Config,
    key: Key,
    *,
    params: Any = None,
    checkpoint: str | Path | Store | None = None,
    progress: Progress | None = None,
) -> tuple[State, History]:
    """Search for nets that do a task with any weight that all their connections share (Gaier and Ha, 2019).

    Args:
      task: a control or batch task (`nnjax.wann.tasks`).
      config: how the search goes.
      key: of one search, or (S,) of S searches, which then run as one program.
      params: the task's constants; by default its own.
      checkpoint: a folder, or a `Store`, where the search is kept after every block; one that is there already goes on
        if it was made by the same task, config and key.
      progress: called after every block with generations done and to do, and the `History` so far.

    Returns:
      `State`, whose population has been evaluated, and `History`.

    Raises:
      ValueError: a task that is none, sizes that do not go together, no typed key, or a search at ``checkpoint`` that
        has gone on for longer than ``config.generations``.
    """
    if check_task(task) == "host":
        from nnjax.wann.tasks.gym import search_host

        return search_host(task, config, key, checkpoint=checkpoint, progress=progress)
    keys = jnp.atleast_1d(key)
    if keys.ndim != 1 or not len(keys) or not jnp.issubdtype(keys.dtype, jax.dtypes.prng_key):
        raise ValueError(f"key of shape {jnp.shape(key)} and dtype {keys.dtype} must be a typed key or several, (S,)")
    params = task.params if params is None else params
    space = config.space(task)
    groups = _group_keys(keys, config)
    kept = Checkpoints(checkpoint, identity(task, config, keys, params))
    state, history = _begin(space, config, groups), _no_history(len(groups))
    state, history = kept.restore((state, history)) or (state, history)
    if state.generation[0] > config.generations:
        raise ValueError(f"generations={config.generations} must be at least {int(state.generation[0])}, those of the "
                         "search at checkpoint")  # fmt: skip
    devices = jax.local_device_count()
    mesh = Mesh(np.array(jax.local_devices()), ("devices",))
    # Where blocks leave it, or the second block would be another program.
    state = jax.device_put(state, NamedSharding(mesh, _place_of_groups(len(groups), devices)))
    params = jax.device_put(params, NamedSharding(mesh, PartitionSpec()))
    # What a generation does not depend on is left out, so that a longer search is the same program.
    plan = dataclasses.replace(config, generations=1, migrate_every=0, migrants=1)
    program = functools.partial(_advance, task=task, space=space, config=plan, mesh=mesh)
    while (done := int(state.generation[0])) < config.generations:
        count = min(config.block - done % config.block, config.generations - done)
        if config.migrate_every and config.islands > 1:
            count = min(count, config.migrate_every - done % config.migrate_every)
            if done and done % config.migrate_every == 0:
                state = _migrate(state, config)
        state, part = program(state, params, jnp.int32(count))
        part = jax.tree.map(lambda leaf, count=count: np.asarray(leaf)[:, :count], part)
        history = History(*(np.concatenate(both, 1) for both in zip(history, part, strict=True)))
        kept.keep((state, history), done + count)
        if progress is not None:
            progress(done + count, config.generations, history)
    several = (len(keys),) if jnp.ndim(key) else ()
    lead = (*several, *((config.islands,) if config.islands > 1 else ()))
    shape = functools.partial(jax.tree.map, lambda leaf: leaf.reshape(*lead, *leaf.shape[1:]))
    return shape(state), shape(history)


def _no_history(groups: int) -> History:
    """A `History` of no generation, in the host's memory."""
    dtype = np.dtype(jnp.result_type(float))
    whole = {"elite_nodes", "elite_connections", "failed"}
    singles = {"nodes", "connections", "steps"}
    kinds = {name: np.int32 if name in whole else np.float32 if name in singles else dtype for name in History._fields}
    return History(**{name: np.zeros((groups, 0), kind) for name, kind in kinds.items()})


def _group_keys(keys: Key, config: Config) -> Key:
    """A key for every island of every search, (S * islands,)."""
    if config.islands == 1:
        return keys
    return jax.vmap(lambda key: jax.random.split(key, config.islands))(keys).reshape(-1)


@functools.partial(jax.jit, static_argnames=("space", "config"))
def _begin(space: Space, config: Config, keys: Key) -> State:
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


def _place_of_groups(groups: int, devices: int) -> PartitionSpec:
    """Whole groups a device where they can be dealt out evenly: nothing has to be waited for. Else all have all."""
    return PartitionSpec("devices") if groups % devices == 0 else PartitionSpec()


@functools.partial(jax.jit, static_argnames=("task", "space", "config", "mesh"), donate_argnums=0)
def _advance(
    state: State, params: Any, count: Array, task: Any, space: Space, config: Config, mesh: Mesh
) -> tuple[State, History]:
    """So many generations, ``config.block`` at most, of all groups; `History` has ``config.block`` of them."""
    work = functools.partial(_generations, task=task, space=space, config=config)
    place = _place_of_groups(len(state.generation), mesh.size)
    if place == PartitionSpec("devices"):
        state, history = jax.shard_map(
            functools.partial(work, mesh=None),
            mesh=mesh, in_specs=(place, PartitionSpec(), PartitionSpec()), out_specs=(place, place), check_vma=False,
        )(state, params, count)  # fmt: skip
    else:
        state, history = work(state, params, count, mesh=mesh)
    return jax.lax.with_sharding_constraint(state, NamedSharding(mesh, place)), history


def _generations(
    state: State, params: Any, count: Array, *, task: Any, space: Space, config: Config, mesh: Mesh | None
) -> tuple[State, History]:
    blank = jax.eval_shape(lambda: _generation(state, params, task, space, config, mesh)[1])
    history = jax.tree.map(lambda leaf: jnp.zeros((leaf.shape[0], config.block), leaf.dtype), blank)

    def one(number: Array, carry: tuple[State, History]) -> tuple[State, History]:
        state, history = carry
        state, row = _generation(state, params, task, space, config, mesh)
        return state, jax.tree.map(lambda all_, new: all_.at[:, number].set(new), history, row)

    return jax.lax.fori_loop(0, count, one, (state, history))


def _generation(
    state: State, params: Any, task: Any, space: Space, config: Config, mesh: Mesh | None
) -> tuple[State, History]:
    """Vary the population, but for the first one, and evaluate it."""
    keys = jax.vmap(jax.random.fold_in)(state.key, state.generation)
    vary_keys, episode_keys = jnp.unstack(jax.vmap(jax.random.split)(keys), axis=1)
    population = jax.lax.cond(
        state.generation[0] > 0,
        lambda: jax.vmap(functools.partial(_vary, space=space, config=config))(
            vary_keys, state.population, state.fitness
        ),
        lambda: state.population,
    )
    fitness, steps = _fitness(population, params, episode_keys, task, space, config, mesh)
    row = jax.vmap(lambda population, fitness: _summary(population, fitness, space))(population, fitness)
    row = row._replace(steps=steps)
    first = jnp.argmax(_ranked(fitness), 1)
    better = row.elite_mean > state.best_return
    best = jax.tree.map(
        lambda all_, old: jnp.where(
            better.reshape(-1, *[1] * (old.ndim - 1)), all_[jnp.arange(len(first)), first], old
        ),
        population,
        state.best,
    )
    best_return = jnp.where(better, row.elite_mean, state.best_return)
    return (
        State(population, fitness, best, best_return, state.generation + 1, state.steps + steps, state.key),
        row,
    )


def _vary(key: Key, population: Any, fitness: Array, *, space: Space, config: Config) -> Any:
    connections = connection_count(population)
    return next_generation(key, population, fitness.mean(1), fitness.max(1), connections, space, config.selection)[0]


def _ranked(fitness: Array) -> Array:
    """Mean returns (..., n), the worst for those that are not finite."""
    mean = fitness.mean(-1)
    return jnp.where(jnp.isfinite(fitness).all(-1) & jnp.isfinite(mean), mean, -jnp.inf)


def _summary(population: Genome | EdgeGenome, fitness: Array, space: Space) -> History:
    mean = _ranked(fitness)
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


def _fitness(
    population: Genome | EdgeGenome, params: Any, keys: Key, task: Any, space: Space, config: Config, mesh: Mesh | None
) -> tuple[Array, Array]:
    """Returns (groups, n, W) and steps made (groups,)."""
    groups, size = len(keys), config.population
    shared = jnp.asarray(config.shared_weights, jnp.result_type(float))
    layout = None if config.layout is None else Layout(*config.layout)
    flat = jax.tree.map(lambda leaf: leaf.reshape(groups * size, *leaf.shape[2:]), population)
    group = jnp.repeat(jnp.arange(groups), size)
    control = check_task(task) == "control"
    begin = starts(task, params, keys, config.repetitions) if control else None

    def work(nets: Any, group: Array, begin: Any, keys: Key, params: Any) -> tuple[Array, Array]:
        if control:
            totals, steps = episodes(nets, space, task, params, shared, begin, group, layout=layout)
            return totals.mean(-1), steps
        some = functools.partial(evaluate_batch, space=space, task=task, shared_weights=shared, params=params,
                                 repetitions=config.repetitions)  # fmt: skip
        if groups == 1:
            return some(nets, key=keys[0]), jnp.zeros(len(group))
        by_group = jax.tree.map(lambda leaf: leaf.reshape(groups, -1, *leaf.shape[1:]), nets)
        values = jax.lax.map(lambda pair: some(pair[0], key=pair[1]), (by_group, keys))
        return values.reshape(-1, len(shared)), jnp.zeros(len(group))

    if mesh is None:
        fitness, steps = work(flat, group, begin, keys, params)
    else:
        # Every device gets every so manieth net of each group, or all elites would be with the first. The last ones
        # are there twice where they cannot be dealt out evenly.
        hand = -(-size // mesh.size)
        order = jnp.minimum(jnp.arange(hand * mesh.size), size - 1).reshape(hand, mesh.size).T
        deal = (order[:, None] + size * jnp.arange(groups)[None, :, None]).reshape(-1)
        here, whole = PartitionSpec("devices"), PartitionSpec()
        sharded = jax.shard_map(
            work, mesh=mesh, in_specs=(here, here, whole, whole, whole), out_specs=(here, here), check_vma=False
        )
        dealt = sharded(jax.tree.map(lambda leaf: leaf[deal], flat), group[deal], begin, keys, params)
        fitness, steps = (jnp.zeros((groups * size, *x.shape[1:]), x.dtype).at[deal].set(x) for x in dealt)
    return fitness.reshape(groups, size, -1), steps.reshape(groups, size).sum(1, dtype=jnp.float32)


@functools.partial(jax.jit, static_argnames="config")
def _migrate(state: State, config: Config) -> State:
    """The best nets of every island in the places of the worst in the next one, with their returns."""
    islands, some = config.islands, config.migrants
    ring = jnp.roll(jnp.arange(len(state.generation)).reshape(-1, islands), 1, axis=1).reshape(-1)
    order = jnp.argsort(-_ranked(state.fitness), axis=1)
    groups = jnp.arange(len(order))[:, None]

    def move(leaf: Array) -> jax.Array:
        best = leaf[groups, order[:, :some]][ring]
        return jnp.asarray(leaf).at[groups, order[:, -some:]].set(best)

    return state._replace(population=jax.tree.map(move, state.population), fitness=move(state.fitness))
