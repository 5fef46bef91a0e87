"""A batch of trials: computed as one program, the same for all batches; and as the arrays that are stored."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from nnjax import hosts
from nnjax.chunks import Chunk, OutOfMemory, Run, Work, double_precision
from nnjax.monitor import Monitor
from nnjax.plans import default_budget
from nnjax.search.space import Choice, Integer, Space
from nnjax.sweep import Executor
from nnjax.types import Key, PyTree


class Batches:
    """Computes points, ``(points, identity) -> {name: (points, seeds, ...)}``, with one program for all batches."""

    def __init__(
        self, run: Run, space: dict[str, Any], key: Key, data: PyTree, seeds: int, most: int, width: int | None,
        memory_budget: int | None, executor: Executor,
    ):  # fmt: skip
        self.space, self.seeds, self.executor = space, seeds, executor
        self.monitor = Monitor()
        self._make = lambda side: Work(
            run, key, data, seeded=True, side=side, devices=len(hosts.devices()), float64=double_precision()
        )
        self._lanes, self._devices = most * seeds, len(hosts.devices())
        default = 8 if hosts.devices()[0].platform == "cpu" else 1024
        self._side = max(1, min(width or default, math.ceil(self._lanes / self._devices)))
        self._budget = memory_budget or default_budget(jax.local_devices())
        self._work: Work | None = None
        self.seconds = 0.0  # of the last batch

    def __call__(self, points: Sequence[Mapping[str, Any]], identity: str) -> dict[str, np.ndarray]:
        lanes = [(point, seed) for point in points for seed in range(self.seeds)]
        work = self._fitting(lanes, identity)
        ((_, arrays),) = self.executor(work, [self._chunk(lanes, identity, self._side)])
        self.seconds = work.seconds
        self.monitor.count("chunks")
        return {name: np.reshape(value, (len(points), self.seeds, *value.shape[1:])) for name, value in arrays.items()}

    def _chunk(self, lanes: Sequence[tuple[Mapping[str, Any], int]], identity: str, side: int) -> Chunk:
        a_round = side * self._devices
        whole = math.ceil(self._lanes / a_round) * a_round
        # The last lane is repeated: every batch, also a short one, is of the one size that was compiled.
        filled = [*lanes, *[lanes[-1]] * (whole - len(lanes))]
        columns = {name: tuple(d.traced(point[name]) for point, _ in filled) for name, d in self.space.items()}
        columns["seed"] = tuple(seed for _, seed in filled)
        return Chunk({}, columns, tuple(range(len(lanes))), identity)

    def _fitting(self, lanes: Sequence[tuple[Mapping[str, Any], int]], identity: str) -> Work:
        """The compiled program, with so many lanes side by side as memory has room for."""
        while self._work is None:
            work = self._make(self._side)
            work.monitor = self.monitor
            needed = hosts.most(lambda made=work: made.compile(self._chunk(lanes, identity, self._side)))  # type: ignore[misc]
            if needed <= self._budget:
                self._work = work
            elif self._side == 1:
                raise OutOfMemory(
                    f"one run needs {needed / 2**20:.0f} MiB a device and the budget of memory is "
                    f"{self._budget / 2**20:.0f} MiB", "raise memory_budget or make the run smaller",
                )  # fmt: skip
            else:
                self._side = max(1, self._side // 2)
        return self._work


def packed(space: Space, asked: Sequence[Sequence[Mapping[str, Any]]]) -> dict[str, np.ndarray]:
    """Points of every search as arrays: how many each has, and a column a hyper-parameter (a choice's is the index)."""
    flat = [point for own in asked for point in own]
    columns = {"asked": np.array([len(own) for own in asked], np.int64)}
    for name, dimension in space.items():
        values = [_stored(dimension, point[name]) for point in flat]
        columns[f"hparam.{name}"] = np.array(
            values, np.int64 if isinstance(dimension, Integer | Choice) else np.float64
        )
    return columns


def unpacked(space: Space, arrays: Mapping[str, np.ndarray]) -> list[list[dict[str, Any]]]:
    """The opposite of `packed`."""
    columns = {
        name: [_meant(dimension, value) for value in arrays[f"hparam.{name}"].tolist()]
        for name, dimension in space.items()
    }
    points = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    rows: Iterator[dict[str, Any]] = iter(points)
    return [[next(rows) for _ in range(int(count))] for count in arrays["asked"]]


def _stored(dimension: Any, value: Any) -> Any:
    return dimension.values.index(value) if isinstance(dimension, Choice) else value


def _meant(dimension: Any, value: Any) -> Any:
    return dimension.values[value] if isinstance(dimension, Choice) else value
