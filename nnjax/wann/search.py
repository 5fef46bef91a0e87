"""Weight-agnostic search: a population of nets varied and selected by what they do under shared weights.

One compiled program makes a block of generations, for one search or for many at once; between blocks the host shows
progress and keeps what there is, so that a killed search goes on and ends with the same nets.
"""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from nnjax.types import Array, Key
from nnjax.wann.batch import evaluate_batch
from nnjax.wann.checkpoints import Checkpoints, Store, identity
from nnjax.wann.course import (
    Config,
    History,
    Progress,
    State,
    begun,
    group_keys,
    grouped,
    migrate,
    record,
    vary,
)
from nnjax.wann.edges import EdgeGenome
from nnjax.wann.evaluation import episodes, starts
from nnjax.wann.genome import Genome, Space
from nnjax.wann.rollout import Layout
from nnjax.wann.tasks.task import check_task, constants

if TYPE_CHECKING:
    from nnjax.wann.tasks.workers import Workers


def search(
    task: Any,
    config: Config,
    key: Key,
    *,
    params: Any = None,
    checkpoint: str | Path | Store | None = None,
    progress: Progress | None = None,
    workers: int | Workers | None = None,
) -> tuple[State, History]:
    """Search for nets that do a task with any weight that all their connections share (Gaier and Ha, 2019).

    Args:
      task: a control or batch task, or one on the host (`nnjax.wann.tasks`).
      config: how the search goes.
      key: of one search, or (S,) of S searches, which then run as one program.
      params: the task's constants; by default its own. A task on the host has none, and takes None alone.
      checkpoint: a folder, or a `Store`, where the search is kept after every block; one that is there already goes on
        if it was made by the same task, config and key. A warning tells where none of its files can be read, and the
        search starts anew.
      progress: called after every block with generations done and to do, and the `History` so far.
      workers: for a task on the host, processes for the environments, or open `nnjax.wann.tasks.workers.Workers`; by
        default as many as this process may use cores. Other tasks take None alone.

    Returns:
      `State`, whose population has been evaluated, and `History`.

    Raises:
      ValueError: a task that is none, sizes that do not go together, no typed key, ``params`` for a task on the host or
        ``workers`` for another, or a search at ``checkpoint`` that has gone on for longer than ``config.generations``.
    """
    kind, params = check_task(task), constants(task, params)
    if kind == "host":
        from nnjax.wann.host_search import search_host

        return search_host(task, config, key, checkpoint=checkpoint, progress=progress, workers=workers)
    if workers is not None:
        raise ValueError(f"workers={workers!r} must be None for task {type(task).__name__}, which does not run on the "
                         "host")  # fmt: skip
    space = config.space(task)
    groups = group_keys(key, config)
    kept = Checkpoints(checkpoint, identity(task, config, jnp.atleast_1d(key), params))
    state, history = begun(kept, space, config, groups)
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
                state = migrate(state, config)
        state, part = program(state, params, jnp.int32(count))
        part = jax.tree.map(lambda leaf, count=count: np.asarray(leaf)[:, :count], part)
        history = History(*(np.concatenate(both, 1) for both in zip(history, part, strict=True)))
        kept.keep((state, history), done + count)
        if progress is not None:
            progress(done + count, config.generations, history)
    return grouped(state, key, config), grouped(history, key, config)


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
    population = vary(state, vary_keys, space, config)
    fitness, steps = _fitness(population, params, episode_keys, task, space, config, mesh)
    return record(state, population, fitness, steps, space)


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
