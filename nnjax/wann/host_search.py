"""Searches for tasks whose episodes run on the host: nets are varied and ranked in JAX, environments step elsewhere."""

from __future__ import annotations

import contextlib
import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nnjax.types import Key
from nnjax.wann.checkpoints import Checkpoints, Store, identity
from nnjax.wann.course import Config, History, Progress, State, begun, group_keys, grouped, migrate, record, vary
from nnjax.wann.tasks.gym import play_population
from nnjax.wann.tasks.workers import Workers

_vary = jax.jit(vary, static_argnames=("space", "config"))
_record = jax.jit(record, static_argnames="space")


def search_host(
    task: Any,
    config: Config,
    key: Key,
    *,
    checkpoint: str | Path | Store | None = None,
    progress: Progress | None = None,
    workers: int | Workers | None = None,
) -> tuple[State, History]:
    """`nnjax.wann.search` for an environment of Gymnasium, a checkpoint and a call of ``progress`` every generation.

    Args:
      task: `nnjax.wann.tasks.gym.GymTask`.
      config, key, checkpoint, progress: as `nnjax.wann.search` has them.
      workers: processes for the environments, or open ones; by default as many as this process may use cores.

    Returns:
      `State` and `History`; steps are those of all environments.

    Raises:
      ValueError: as `nnjax.wann.search`, or where Gymnasium is missing.
    """
    space, groups = config.space(task), group_keys(key, config)
    kept = Checkpoints(checkpoint, identity(task, config, jnp.atleast_1d(key), ()))
    state, history = begun(kept, space, config, groups)
    plan = functools.partial(_vary, space=space, config=config)
    opened = workers if isinstance(workers, Workers) else Workers(workers)
    with contextlib.nullcontext() if opened is workers else opened:
        while (done := int(state.generation[0])) < config.generations:
            if config.migrate_every and config.islands > 1 and done and done % config.migrate_every == 0:
                state = migrate(state, config)
            keys = jax.vmap(jax.random.fold_in)(state.key, state.generation)
            vary_keys, episode_keys = jnp.unstack(jax.vmap(jax.random.split)(keys), axis=1)
            population = plan(state, vary_keys)
            found = [
                play_population(jax.tree.map(lambda leaf, group=group: leaf[group], population), space, task,
                              np.asarray(config.shared_weights), episode_keys[group], repetitions=config.repetitions,
                              workers=opened)
                for group in range(len(groups))
            ]  # fmt: skip
            fitness = jnp.stack([returns for returns, _ in found]).astype(state.fitness.dtype)
            steps = jnp.asarray([made for _, made in found], jnp.float32)
            state, row = _record(state, population, fitness, steps, space)
            history = History(*(np.concatenate([old, np.asarray(new)[:, None]], 1)
                                for old, new in zip(history, row, strict=True)))  # fmt: skip
            kept.keep((state, history), done + 1)
            if progress is not None:
                progress(done + 1, config.generations, history)
    return grouped(state, key, config), grouped(history, key, config)
