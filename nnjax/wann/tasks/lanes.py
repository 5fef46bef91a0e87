"""Policies for lanes, episodes that run side by side, and the talk between a policy and the workers that step them."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from jax.typing import ArrayLike

from nnjax.wann.tasks.workers import Workers, worker_count

_SIZES = (1.0, 0.5, 0.25, 0.125)  # of a window: a batch is filled up to one of these, so at most four compilations


@dataclasses.dataclass(frozen=True)
class LanePolicy:
    """A policy that can be asked for some lanes only, so that its batch shrinks with the lanes that are left.

    Attributes:
      call: (observations (g x group, inputs), groups (g,)) -> outputs (g x group, outputs), for the lanes
        groups[i] x group, ..., groups[i] x group + group - 1.
      group: so many lanes that follow one another start and leave together; divides the number of lanes.
    """

    call: Callable[[np.ndarray, np.ndarray], ArrayLike]
    group: int = 1


Policy = Callable[[np.ndarray], ArrayLike] | LanePolicy


def checked_seeds(seeds: ArrayLike) -> np.ndarray:
    """Seeds of environments as (lanes,) int64; ValueError where they are no such numbers."""
    seeds = np.asarray(seeds)
    if seeds.ndim != 1 or not seeds.size or not np.issubdtype(seeds.dtype, np.integer):
        raise ValueError(
            f"seeds of shape {seeds.shape} and type {seeds.dtype} must be (lanes,) whole numbers, one a lane"
        )
    if (seeds < 0).any() or (seeds >= 2**32).any():
        raise ValueError(f"seeds from {seeds.min()} to {seeds.max()} must lie between 0 and 2^32 - 1")
    return seeds.astype(np.int64)


@contextlib.contextmanager
def opened(workers: int | Workers | None, groups: int) -> Iterator[tuple[Workers, int]]:
    """Workers for one call, and how many of them it uses: those handed over, left open, or some of its own."""
    if isinstance(workers, Workers):
        yield workers, min(len(workers), groups)
        return
    with Workers(min(worker_count(workers), groups)) as own:
        yield own, len(own)


def of_all_lanes(policy: Callable[[np.ndarray], ArrayLike], lanes: int, task: Any) -> LanePolicy:
    """A policy that wants the observations of all lanes each time, those of lanes that wait being their last ones."""
    everything = np.zeros((lanes, task.inputs), np.float32)

    def call(observations: np.ndarray, some: np.ndarray) -> np.ndarray:
        everything[some] = observations
        outputs = np.asarray(policy(everything.copy()))
        if outputs.shape != (lanes, task.outputs):
            raise ValueError(f"the policy gives outputs of shape {outputs.shape}; expected {(lanes, task.outputs)}")
        return outputs[some]

    return LanePolicy(call)


def converse(pool: Workers, count: int, task: Any, policy: LanePolicy, mine: list[np.ndarray], window: int) -> Any:
    """Answer the observations of workers with outputs until all have ended; yields (worker, result)."""
    most = max(1, window // policy.group)
    busy = [*range(count)]
    while busy:
        for worker in pool.ready(busy):
            kind, *content = pool.receive(worker)
            if kind == "end":
                busy.remove(worker)
                yield worker, content[0]
            elif kind == "error":
                refused, sentence = content
                raise (ValueError if refused else RuntimeError)(sentence)
            else:
                groups, observations = content
                pool.send(worker, "act", _padded(task, policy, observations, mine[worker][groups], most))


def _padded(task: Any, policy: LanePolicy, observations: np.ndarray, groups: np.ndarray, most: int) -> np.ndarray:
    """Outputs of the policy, its batch filled up to one of a few sizes."""
    size = min(full for share in _SIZES if (full := math.ceil(most * share)) >= len(groups))
    more = size - len(groups)
    filled = np.concatenate([observations, np.repeat(observations[: policy.group], more, 0).reshape(-1, task.inputs)])
    outputs = np.asarray(policy.call(filled, np.concatenate([groups, np.repeat(groups[:1], more)])), np.float32)
    if outputs.shape != (size * policy.group, task.outputs):
        expected = size * policy.group, task.outputs
        raise ValueError(f"the policy gives outputs of shape {outputs.shape}; expected {expected}")
    return outputs[: len(observations)]
