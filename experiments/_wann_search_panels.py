"""The computations of the weight-agnostic search study: searches, their last populations, a champion and its table.

Stages that draw episodes draw others than the stages before them: a champion is chosen, and its weights are tuned, on
episodes that are not reported.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from nnjax.monitor import Monitor
from nnjax.types import Array, Key
from nnjax.wann import champion as files
from nnjax.wann import tuning
from nnjax.wann.evaluation import returns, trajectory
from nnjax.wann.genome import Space, connection_count, forward, layers, node_count, resize, to_dense
from nnjax.wann.search import Config as SearchConfig
from nnjax.wann.search import History, State, search
from nnjax.wann.selection import fronts
from nnjax.wann.tasks import SwingUp, check_task
from nnjax.wann.tasks.classification import Classification

if TYPE_CHECKING:
    import xarray as xr

    from nnjax.sweep import Store

T = TypeVar("T")

SWEEP = tuple(np.round(np.linspace(-3, 3, 61), 3).tolist())
"""Shared weights under which a champion is shown."""

LOW, HIGH = -2.0, 2.0
"""Range that shared and individual weights are drawn from and tuned in."""

COLUMNS = ("random weights", "random shared", "tuned shared", "tuned weights")
"""Columns of the table of Gaier and Ha (2019)."""

BATCHES = 10
"""Batches of examples, at most, that a weight is shown with."""

LAST, ANGLE = 200, 0.3
"""An episode ends upright where the pole is within this angle (rad) during all of its last steps, so many of them."""


class Budget(NamedTuple):
    """How much is spent after the search.

    Attributes:
      trials: episodes, or sets of weights, of each number reported.
      selection_episodes: episodes that choose the champion and its shared weight.
      generations: of the evolution strategy that trains the weights, or steps of gradient descent.
      hidden: tanh units of the fixed net.
    """

    trials: int
    selection_episodes: int
    generations: int
    hidden: int


@dataclasses.dataclass(frozen=True)
class Upright:
    """Swing-up that rewards each of the last ``LAST`` steps in which the pole stands, and nothing else."""

    task: SwingUp

    inputs: ClassVar[int] = SwingUp.inputs
    outputs: ClassVar[int] = SwingUp.outputs

    @property
    def steps(self) -> int:
        """Those of swing-up."""
        return self.task.steps

    @property
    def params(self) -> Any:
        """Those of swing-up."""
        return self.task.params

    def reset(self, params: Any, key: Key) -> tuple[Any, Array]:
        """The start that swing-up has for this key, and the number of steps made."""
        return self.task.reset(params, key), jnp.int32(0)

    def observe(self, params: Any, state: tuple) -> Array:
        """What swing-up shows."""
        return self.task.observe(params, state[0])

    def step(self, params: Any, state: tuple, action: Array) -> tuple[tuple, Array, Array]:
        """A step of swing-up; the reward is that of the state it leads to, 0 or 1."""
        inner, _, done = self.task.step(params, state[0], action)
        made = state[1] + 1
        stands = (inner.cos > np.cos(ANGLE)) & (made > self.steps - LAST)
        return (inner, made), stands.astype(inner.cos.dtype), done


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


class _Stages:
    """Tells the monitor of what follows a search, stage by stage."""

    COUNT = 4

    def __init__(self, name: str, monitor: Monitor):
        self._monitor, self._last = monitor, time.perf_counter()
        monitor.begin(f"{name}: champion, table", self.COUNT)

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


# The champion


class Chosen(NamedTuple):
    """The champion: its net as a JSON text, and weights that all its connections may share.

    Attributes:
      text: what `nnjax.wann.from_json` reads.
      weight: the shared weight with the highest mean return.
      upright_weight: the one under which most episodes end upright; the same for tasks other than swing-up.
    """

    text: str
    weight: float
    upright_weight: float

    @property
    def net(self) -> files.Champion:
        """The net and its space."""
        return files.from_json(self.text)


def choose(state: State, task: Any, config: SearchConfig, key: Key, budget: Budget, store: Store | None) -> Chosen:
    """The champion of all searches of a task, and its shared weights, chosen on episodes of their own."""

    def compute() -> dict[str, Any]:
        of_net, of_weight = jax.random.split(key)
        net = tuning.choose_champion(state, task, config, of_net, episodes=budget.selection_episodes).genome
        space = config.space(task)
        if space.edges is not None:
            net, space = to_dense(net, space), dataclasses.replace(space, edges=None)
        weight = tune(net, space, task, of_weight, budget)
        upright = weight
        if isinstance(task, SwingUp):
            shares = _upright(net, space, task, jnp.asarray(SWEEP), of_weight, budget.selection_episodes).mean(1)
            upright = SWEEP[int(np.argmax(shares))]
        return {"text": files.to_json(net, space), "weight": weight, "upright_weight": upright}

    found = kept(store, "champion", compute)
    return Chosen(str(found["text"]), float(found["weight"]), float(found["upright_weight"]))


def tune(genome: Any, space: Space, task: Any, key: Key, budget: Budget) -> float:
    """The best shared weight of a net between `LOW` and `HIGH`."""
    return float(
        tuning.tune_shared(genome, task, key, LOW, HIGH, episodes=budget.selection_episodes, space=space).weight
    )


def _upright(genome: Any, space: Space, task: Any, weights: Array, key: Key, episodes: int) -> np.ndarray:
    """Whether episodes end upright, (W, episodes) bool; the episodes that `returns` draws with this key."""
    return np.asarray(returns(genome, Upright(task), weights, key, episodes, space=space)) == LAST


def shown(chosen: Chosen, task: Any, key: Key, budget: Budget, store: Store | None) -> xr.Dataset:
    """What the champion does on episodes that nothing was chosen by: returns and uprightness under every shared weight
    of `SWEEP`, held-out accuracy where there is one, and the course of one episode, that of median return.
    """
    import xarray as xr

    net = chosen.net

    def compute() -> dict[str, Any]:
        weights = jnp.asarray((*SWEEP, chosen.weight, chosen.upright_weight))
        # A batch of examples says more than an episode.
        trials = budget.trials if check_task(task) == "control" else min(budget.trials, BATCHES)
        found = np.asarray(returns(net.genome, task, weights, key, trials, space=net.space))
        arrays = {"returns": found[: len(SWEEP)], "tuned_returns": found[-2]}
        if isinstance(task, SwingUp):
            upright = _upright(net.genome, net.space, task, weights, key, budget.trials)
            arrays |= {"upright": upright[: len(SWEEP)], "tuned_upright": upright[-1]}
        if hasattr(task, "accuracy"):
            arrays["accuracy"] = _accuracies(net, task, jnp.asarray(SWEEP))
        if check_task(task) == "control":
            median = int(np.argsort(found[-2])[len(found[-2]) // 2])
            arrays |= _episode(net, task, chosen.weight, jax.random.split(key, budget.trials)[median])
        return arrays

    arrays = kept(store, "shown", compute)
    dims = {
        "returns": ("weight", "trial"), "tuned_returns": ("trial",), "upright": ("weight", "trial"),
        "tuned_upright": ("trial",), "accuracy": ("weight",), "action": ("step", "output"),
    }  # fmt: skip
    values = {name: (dims.get(name, ("step",)), value) for name, value in arrays.items()}
    values["net"] = ((), np.asarray(chosen.text, dtype=object))
    depth = int(layers(net.genome, net.space).max())
    attributes = {
        "weight": chosen.weight, "upright_weight": chosen.upright_weight, "depth": depth,
        "nodes": int(node_count(net.genome, net.space)), "connections": int(connection_count(net.genome)),
        "selection_episodes": budget.selection_episodes, "dt": _seconds_a_step(task),
    }  # fmt: skip
    return xr.Dataset(values, {"weight": list(SWEEP)}, attributes)


def _episode(net: files.Champion, task: Any, weight: float, key: Key) -> dict[str, np.ndarray]:
    """One episode: each number of the state by its name, with ``state_`` before it."""
    course = trajectory(net.genome, task, weight, key, space=net.space)
    parts = jax.tree_util.tree_flatten_with_path(course.states)[0]
    states = {f"state_{jax.tree_util.keystr(path, simple=True, separator='_')}": leaf for path, leaf in parts}
    plain = {"action": course.actions, "reward": course.rewards, "alive": course.alive}
    return {name: np.asarray(value) for name, value in (states | plain).items()}


def _seconds_a_step(task: Any) -> float:
    """Length of a step, s; 1 where a task has none."""
    return float(getattr(task.params, "dt", 1.0))


def _accuracies(net: files.Champion, task: Any, weights: Array) -> np.ndarray:
    """Accuracy on held-out examples under every weight, (W,), or set of weights, (W, N, N)."""
    # A table of bits has one part, and it is all there is.
    accuracy = partial(task.accuracy, part="test") if isinstance(task, Classification) else task.accuracy

    @jax.jit
    def every(weights: Array, params: Any) -> Array:
        return jax.lax.map(lambda w: accuracy(params, partial(forward, net.genome, net.space, w)), weights)

    return np.asarray(every(weights, task.params))


# The table


class Tuned(NamedTuple):
    """A net after the search: its best shared weight, and weights (N, N) trained from it."""

    genome: Any
    space: Space
    weight: float
    trained: np.ndarray


def train(genome: Any, space: Space, task: Any, weight: float, key: Key, budget: Budget) -> np.ndarray:
    """Weights (N, N) of a net, trained from one that all share."""
    return np.asarray(
        tuning.train_weights(genome, task, weight, key, space=space, generations=budget.generations).weights
    )


def tuned(chosen: Chosen, task: Any, key: Key, budget: Budget, store: Store | None) -> dict[str, Tuned]:
    """The champion and a fully connected net, each with its weights, trained on episodes of their own."""
    net, (fixed, fixed_space) = chosen.net, tuning.fixed_topology(task, budget.hidden, "tanh")
    if net.space.activations == fixed_space.activations and fixed_space.max_nodes < net.space.max_nodes:
        # With as many slots as the champion it needs no further programs.
        fixed, fixed_space = resize(fixed, fixed_space, net.space.max_nodes), net.space
    found: dict[str, Tuned] = {}
    for name, genome, space in (("searched", net.genome, net.space), ("fixed", fixed, fixed_space)):
        of_shared, of_weights = jax.random.split(jax.random.fold_in(key, len(found)))

        def compute(name: str = name, genome: Any = genome, space: Space = space,
                    keys: tuple = (of_shared, of_weights)) -> dict[str, Any]:  # fmt: skip
            weight = chosen.weight if name == "searched" else tune(genome, space, task, keys[0], budget)
            return {"weight": weight, "trained": train(genome, space, task, weight, keys[1], budget)}

        arrays = kept(store, f"trained-{name}", compute)
        found[name] = Tuned(genome, space, float(arrays["weight"]), arrays["trained"])
    return found


def table(nets: Mapping[str, Tuned], task: Any, key: Key, budget: Budget, store: Store | None) -> xr.Dataset:
    """Returns of nets with random, shared, tuned and trained weights, dims (net, column, trial), all on one key."""
    import xarray as xr

    def compute(net: Tuned) -> dict[str, Any]:
        columns = tuning.four_columns(net.genome, task, key, space=net.space, trials=budget.trials,
                                      tuned_weight=net.weight, trained_weights=net.trained)  # fmt: skip
        return {"returns": np.stack([np.asarray(column) for column in columns])}

    rows = [kept(store, f"table-{name}", partial(compute, net))["returns"] for name, net in nets.items()]
    values = {
        "returns": (("net", "column", "trial"), np.stack(rows)),
        "tuned_weight": ("net", [net.weight for net in nets.values()]),
        "connections": ("net", [int(connection_count(net.genome)) for net in nets.values()]),
    }
    labels = {"net": list(nets), "column": list(COLUMNS)}
    return xr.Dataset(values, labels, {"hidden": budget.hidden, "generations": budget.generations})


def accuracy(net: Tuned, task: Any, key: Key, budget: Budget, store: Store | None) -> xr.Dataset:
    """Share of held-out examples that the champion gets right, dims (column, trial), NaN behind a column's last one."""
    import xarray as xr

    def compute() -> dict[str, Any]:
        drawn = jax.random.uniform(key, (budget.trials,), minval=LOW, maxval=HIGH)
        champion = files.Champion(net.genome, net.space, None)
        found = {
            "random shared": _accuracies(champion, task, drawn),
            "tuned shared": _accuracies(champion, task, jnp.asarray([net.weight])),
            "tuned weights": _accuracies(champion, task, jnp.asarray(net.trained)[None]),
        }
        return {
            name: np.pad(value, (0, budget.trials - len(value)), constant_values=np.nan)
            for name, value in found.items()
        }

    arrays = kept(store, "accuracy", compute)
    return xr.Dataset({"accuracy": (("column", "trial"), np.stack([*arrays.values()]))}, {"column": list(arrays)})


def of_task(
    name: str, task: Any, config: SearchConfig, keys: Key, key: Key, budget: Budget, store: Store | None,
    monitor: Monitor,
) -> dict[str, xr.Dataset]:  # fmt: skip
    """Every panel of a task, by name.

    Args:
      name: of the task.
      task: it.
      config: of its searches.
      keys: (S,), of the searches.
      key: of everything after them.
      budget: how much that is.
      store: where finished stages are kept.
      monitor: told of progress.
    """
    state, course = searched(name, task, config, keys, store, monitor)
    found = {"search": course, "population": last_population(state, config.space(task))}
    of_choice, of_shown, of_training, of_table = jax.random.split(key, 4)
    later = _Stages(name, monitor)
    chosen = later.done(choose(state, task, config, of_choice, budget, store))
    found["champion"] = later.done(shown(chosen, task, of_shown, budget, store))
    nets = later.done(tuned(chosen, task, of_training, budget, store))
    found["table"] = later.done(table(nets, task, of_table, budget, store))
    if hasattr(task, "accuracy"):
        found["accuracy"] = accuracy(nets["searched"], task, of_table, budget, store)
    later.end()
    return found
