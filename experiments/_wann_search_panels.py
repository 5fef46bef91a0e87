"""The first half of a task's panels in the weight-agnostic search study: the searches and their last populations."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import jax
import numpy as np

from nnjax.monitor import Monitor
from nnjax.types import Key
from nnjax.wann.course import Config as SearchConfig
from nnjax.wann.course import History, State
from nnjax.wann.genome import Space, connection_count, node_count
from nnjax.wann.search import search
from nnjax.wann.selection import fronts

if TYPE_CHECKING:
    import xarray as xr

    from nnjax.sweep import Store

T = TypeVar("T")


class Budget(NamedTuple):
    """How much is spent after the search.

    Attributes:
      trials: episodes, or sets of weights, of each number reported.
      champion_episodes: episodes that choose the champion, under each of the search's weights.
      selection_episodes: episodes that choose a net's shared weight.
      generations: of the evolution strategy that trains the weights, or steps of gradient descent.
      hidden: tanh units of the fixed net.
      training_episodes: of every candidate of the evolution strategy.
      training_runs: of the evolution strategy, of which the best counts.
    """

    trials: int
    champion_episodes: int
    selection_episodes: int
    generations: int
    hidden: int
    training_episodes: int = 8
    training_runs: int = 1


class Arm(NamedTuple):
    """Searches to compare with: how they go, their keys (S,), and where they are kept."""

    config: SearchConfig
    keys: Key
    store: Store | None


# What is kept


def kept(store: Store | None, stage: str, compute: Callable[[], Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """The arrays of a stage: those in the store, or computed and stored."""
    found = store.load(stage) if store else None
    if found is not None:
        return found
    start = time.perf_counter()
    arrays = {name: np.asarray(value) for name, value in compute().items()}
    if store:
        store.save(stage, arrays, {"seconds": time.perf_counter() - start})
    return arrays


class _Clock:
    """Shows how far a search is, and keeps its seconds beside its checkpoints."""

    def __init__(self, store: Store | None, monitor: Monitor):
        self._store, self._monitor = store, monitor
        found = (store.load("clock") if store else None) or {}
        self.spent = {name: float(found.get(name, 0)) for name in ("seconds", "timed", "steps")}
        self._last, self._first, self._made, self._done = time.perf_counter(), 0.0, 0.0, 0

    def __call__(self, done: int, total: int, history: History) -> None:
        """After a block. The first of a process is compiled first, so that it says nothing of speed."""
        now = time.perf_counter()
        seconds, made = now - self._last, float(np.sum(history.steps, dtype=np.float64))
        if self._done:
            self.spent["timed"] += seconds
            self.spent["steps"] += made - self._made
        if self._first:  # what the first block took longer than the second was compiling
            compiling = max(self._first - seconds, 0.0)
            self._monitor.spend("compile", compiling)
            self._monitor.spend("run", self._first - compiling)
        if self._done or done == total:
            self._monitor.spend("run", seconds)
        self._first = 0.0 if self._done else seconds * (done < total)
        self.spent["seconds"] += seconds
        if self._store:
            arrays = {name: np.asarray(value) for name, value in self.spent.items()}
            self._store.save("clock", arrays, {"seconds": self.spent["seconds"]})
        self._monitor.advance((done - self._done) / total)
        self._monitor.count("chunks")
        self._last, self._made, self._done = time.perf_counter(), made, done


class Stages:
    """Tells the monitor of what follows a search, stage by stage."""

    def __init__(self, name: str, monitor: Monitor, count: int):
        self._monitor, self._last = monitor, time.perf_counter()
        monitor.begin(f"{name}: champion, table", count)

    def done(self, value: T) -> T:
        """Pass on what a stage has made."""
        self._monitor.spend("run", time.perf_counter() - self._last)
        self._monitor.advance(1)
        self._monitor.count("chunks")
        self._last = time.perf_counter()
        return value

    def end(self) -> None:
        """All stages are done."""
        self._monitor.end()


# Searches


def searched(
    name: str, task: Any, config: SearchConfig, keys: Key, store: Store | None, monitor: Monitor
) -> tuple[State, xr.Dataset]:
    """All searches of a task, as one program; what they ended with, and their course.

    The dataset has dims (seed, island, generation).
    """
    import xarray as xr

    monitor.begin(f"{name}: search", 1.0)
    clock = _Clock(store, monitor)
    state, history = search(task, config, keys, checkpoint=store, progress=clock)
    monitor.end()
    shape = (len(keys), config.islands, -1)
    dims = ("seed", "island", "generation")
    course = {field: (dims, np.asarray(value).reshape(shape)) for field, value in history._asdict().items()}
    attributes = {
        "population": config.population, "islands": config.islands, "repetitions": config.repetitions,
        "generations": config.generations, "shared_weights": list(config.shared_weights),
        "seconds": clock.spent["seconds"], "timed_seconds": clock.spent["timed"], "timed_steps": clock.spent["steps"],
        "devices": jax.local_device_count(),
    }  # fmt: skip
    labels = {"seed": np.arange(len(keys)), "generation": 1 + np.arange(config.generations)}
    return state, xr.Dataset(course, labels, attributes)


def last_population(state: State, space: Space) -> xr.Dataset:
    """The nets that every search ended with, by mean return and connections; dims (seed, net), all islands' nets."""
    import xarray as xr

    fitness = np.asarray(state.fitness, float)
    by_seed = (len(fitness), -1)
    mean = fitness.mean(-1).reshape(by_seed)
    connections = np.asarray(connection_count(state.population)).reshape(by_seed)
    objectives = np.stack([mean.ravel(), -connections.ravel().astype(float)], 1)
    values = {
        "mean": mean, "best": fitness.max(-1).reshape(by_seed), "connections": connections,
        "nodes": np.asarray(node_count(state.population, space)).reshape(by_seed),
        "front": np.asarray(fronts(objectives)).reshape(by_seed),
    }  # fmt: skip
    return xr.Dataset({name: (("seed", "net"), value) for name, value in values.items()})
