"""The second half of a task's panels in the weight-agnostic search study: the champion, its weights and its table.

Stages that draw episodes draw others than the stages before them: a champion is chosen, and its weights are tuned, on
episodes that are not reported.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from experiments import command
from experiments._wann_search_panels import Arm, Budget, Stages, kept, last_population, searched
from experiments._wann_search_worth import SWEEP, Ended, ends_upright, worth
from nnjax.monitor import Monitor
from nnjax.types import Array, Key
from nnjax.wann import champion as files
from nnjax.wann import tuning, weight_sets
from nnjax.wann.course import Config as SearchConfig
from nnjax.wann.course import State
from nnjax.wann.edges import EdgeGenome
from nnjax.wann.evaluation import returns, trajectory
from nnjax.wann.genome import ENABLED, Genome, Space, connection_count, layers, node_count, resize, to_dense
from nnjax.wann.tasks import SwingUp, check_task, differentiable
from nnjax.wann.tasks.classification import Classification

if TYPE_CHECKING:
    import xarray as xr

    from nnjax.sweep import Store

LOW, HIGH = -2.0, 2.0
"""Range that shared and individual weights are drawn from and tuned in."""

COLUMNS = ("random weights", "random shared", "tuned shared", "tuned weights")
"""Columns of the table of Gaier and Ha (2019)."""

RIVALS = 256
"""Episodes that choose among several runs of training."""

BATCHES = 10
"""Batches of examples, at most, that a weight is shown with."""


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
        net = tuning.choose_champion(state, task, config, of_net, episodes=budget.champion_episodes).genome
        space = config.space(task)
        if not connection_count(net):
            raise command.BadInput("the best net connects nothing; give the search more generations")
        if isinstance(net, EdgeGenome):
            net, space = to_dense(net, space), dataclasses.replace(space, edges=None)
        weight = tune(net, space, task, of_weight, budget)
        upright = weight
        if isinstance(task, SwingUp):
            weights = jnp.asarray((*SWEEP, weight, weight))
            shares = ends_upright(net, space, task, weights, of_weight, budget.selection_episodes).mean(1)
            upright = float(weights[int(np.argmax(shares))])
        return {"text": files.to_json(net, space), "weight": weight, "upright_weight": upright}

    found = kept(store, "champion", compute)
    return Chosen(str(found["text"]), float(found["weight"]), float(found["upright_weight"]))


def tune(genome: Any, space: Space, task: Any, key: Key, budget: Budget) -> float:
    """The best shared weight of a net between `LOW` and `HIGH`."""
    # As many weights as are shown later: one program then serves for both.
    count = len(sweep_of(task)) + 2
    found = tuning.tune_shared(
        genome, task, key, LOW, HIGH, weights=count, episodes=budget.selection_episodes, space=space
    )
    return float(found.weight)


def sweep_of(task: Any) -> tuple[float, ...]:
    """Shared weights under which a champion is shown; fewer where episodes take long."""
    return SWEEP[::5] if check_task(task) == "host" else SWEEP


def _returns(net: files.Champion, task: Any, weights: Array, key: Key, budget: Budget) -> np.ndarray:
    """(W, trials) of new episodes, or fewer of batches of examples, each of which says more."""
    kind = check_task(task)
    if kind == "host":
        lanes, prepared, start = weight_sets.prepared(
            net.genome, task, 1.0, budget.trials, space=net.space, params=None
        )
        sets, group = weights[:, None] * jnp.ones_like(start)[None], jnp.zeros(len(weights), jnp.int32)
        return np.asarray(weight_sets.scores_of(sets, prepared, key[None], group, lanes))
    trials = budget.trials if kind == "control" else min(budget.trials, BATCHES)
    return np.asarray(returns(net.genome, task, weights, key, trials, space=net.space))


def shown(chosen: Chosen, task: Any, key: Key, budget: Budget, store: Store | None) -> xr.Dataset:
    """What the champion does on episodes that nothing was chosen by: returns and uprightness under every shared weight
    of `SWEEP`, held-out accuracy where there is one, and the course of one episode, that of median return.
    """
    import xarray as xr

    net, sweep = chosen.net, sweep_of(task)

    def compute() -> dict[str, Any]:
        weights = jnp.asarray((*sweep, chosen.weight, chosen.upright_weight))
        found = _returns(net, task, weights, key, budget)
        arrays = {"returns": found[: len(sweep)], "tuned_returns": found[-2]}
        if isinstance(task, SwingUp):
            upright = ends_upright(net.genome, net.space, task, weights, key, budget.trials)
            arrays |= {"upright": upright[: len(sweep)], "tuned_upright": upright[-1]}
        if hasattr(task, "accuracy"):
            arrays["accuracy"] = np.asarray(tuning.accuracies(net.genome, task, jnp.asarray(sweep), space=net.space))
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
        "kind": check_task(task),
    }  # fmt: skip
    return xr.Dataset(values, {"weight": list(sweep)}, attributes)


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


# The table


class Tuned(NamedTuple):
    """A net after the search: its best shared weight, and weights (N, N) trained from it."""

    genome: Any
    space: Space
    weight: float
    trained: np.ndarray


def train(genome: Any, space: Space, task: Any, weight: ArrayLike, key: Key, budget: Budget) -> np.ndarray:
    """Weights (N, N) of a net, trained from one that all share, or from a set (N, N)."""
    fit = partial(tuning.train_weights, genome, task, weight, space=space, generations=budget.generations)
    if differentiable(task):
        return np.asarray(fit(key).weights)
    fit, runs = partial(fit, episodes=budget.training_episodes), budget.training_runs
    if runs == 1:
        return np.asarray(fit(key).weights)
    # So many episodes choose that the best of a few runs is so by more than luck.
    found = [fit(jax.random.fold_in(key, run), selection=RIVALS) for run in range(runs)]
    return np.asarray(max(found, key=lambda each: float(each.mean)).weights)


def apart(genome: Genome, key: Key) -> Array:
    """Random weights (N, N) for a fully connected net that is trained by gradient, N(0, 1 / connections in).

    From one that all share it could not learn: units of a layer would have the same gradient, and stay the same.
    """
    count = jnp.sum(genome.connections == ENABLED, axis=0, keepdims=True)
    return jax.random.normal(key, genome.connections.shape) / jnp.sqrt(jnp.maximum(count, 1))


def tuned(chosen: Chosen, task: Any, key: Key, budget: Budget, store: Store | None) -> dict[str, Tuned]:
    """The champion and a fully connected net, each with its weights, trained on episodes of their own."""
    net, (fixed, fixed_space) = chosen.net, tuning.fixed_topology(task, (budget.hidden,), "tanh")
    if net.space.activations == fixed_space.activations and fixed_space.max_nodes < net.space.max_nodes:
        # With as many slots as the champion it needs no further programs.
        fixed, fixed_space = resize(fixed, fixed_space, net.space.max_nodes), net.space
    found: dict[str, Tuned] = {}
    for name, genome, space in (("searched", net.genome, net.space), ("fixed", fixed, fixed_space)):
        of_shared, of_weights = jax.random.split(jax.random.fold_in(key, len(found)))

        def compute(name: str = name, genome: Any = genome, space: Space = space,
                    keys: tuple = (of_shared, of_weights)) -> dict[str, Any]:  # fmt: skip
            weight = chosen.weight if name == "searched" else tune(genome, space, task, keys[0], budget)
            even = name == "fixed" and differentiable(task)
            start = apart(genome, jax.random.fold_in(keys[1], 1)) if even else weight
            return {"weight": weight, "trained": train(genome, space, task, start, keys[1], budget)}

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


def accuracy(net: Tuned, task: Any, config: SearchConfig, key: Key, budget: Budget, store: Store | None) -> xr.Dataset:
    """Share of held-out examples that the champion gets right, dims (column, trial), one number for all trials of the
    columns without chance; an ensemble over the search's shared weights is one more column.
    """
    import xarray as xr

    def compute() -> dict[str, Any]:
        found = tuning.four_columns(net.genome, task, key, space=net.space, trials=budget.trials, part="test",
                                    tuned_weight=net.weight, trained_weights=net.trained)  # fmt: skip
        arrays = dict(zip(COLUMNS, map(np.asarray, found), strict=True))
        if isinstance(task, Classification):
            together = tuning.ensemble_accuracy(net.genome, task, jnp.asarray(config.shared_weights), space=net.space)
            arrays["ensemble"] = np.full(budget.trials, float(together))
        return arrays

    arrays = kept(store, "accuracy", compute)
    return xr.Dataset({"accuracy": (("column", "trial"), np.stack([*arrays.values()]))}, {"column": list(arrays)})


def of_task(
    name: str, task: Any, config: SearchConfig, keys: Key, key: Key, budget: Budget, store: Store | None,
    monitor: Monitor, arms: Mapping[str, Arm] | None = None,
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
      arms: other searches of swing-up to compare with, each a panel of the name it has.
    """
    state, course = searched(name, task, config, keys, store, monitor)
    found = {"search": course, "population": last_population(state, config.space(task))}
    ended = {"search": Ended(state, config.space(task))}
    for arm, (settings, own, kept_in) in (arms or {}).items():
        other, found[arm] = searched(f"{name}, {arm}", task, settings, own, kept_in, monitor)
        ended[arm] = Ended(other, settings.space(task))
    of_choice, of_shown, of_training, of_table = jax.random.split(key, 4)
    comparable = isinstance(task, SwingUp)
    later = Stages(name, monitor, 4 + comparable)
    chosen = later.done(choose(state, task, config, of_choice, budget, store))
    found["champion"] = later.done(shown(chosen, task, of_shown, budget, store))
    nets = later.done(tuned(chosen, task, of_training, budget, store))
    found["table"] = later.done(table(nets, task, of_table, budget, store))
    if hasattr(task, "accuracy"):
        found["accuracy"] = accuracy(nets["searched"], task, config, of_table, budget, store)
    if comparable:
        found["worth"] = later.done(worth(ended, task, jax.random.fold_in(key, 4), budget, store))
    later.end()
    return found
