"""What nets are worth on swing-up: whether they balance the pole, and what the best net of every search returns."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments._wann_search_panels import Budget, kept
from nnjax.types import Array, Key
from nnjax.wann.course import SHARED_WEIGHTS, State, ranked
from nnjax.wann.evaluation import evaluate, returns
from nnjax.wann.genome import Space, connection_count
from nnjax.wann.tasks import SwingUp

if TYPE_CHECKING:
    import xarray as xr

    from nnjax.sweep import Store

SWEEP = tuple(np.round(np.linspace(-3, 3, 61), 3).tolist())
"""Shared weights under which a champion is shown."""

LAST, ANGLE = 200, 0.3
"""An episode ends upright where the pole is within this angle (rad) during all of its last steps, so many of them."""


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


def ends_upright(genome: Any, space: Space, task: Any, weights: Array, key: Key, episodes: int) -> np.ndarray:
    """Whether episodes end upright, (W, episodes) bool; the episodes that `returns` draws with this key."""
    return np.asarray(returns(genome, Upright(task), weights, key, episodes, space=space)) == LAST


# The best net of every search

CANDIDATES = 8
"""Nets of a search's last populations, those that it ranks highest itself, of which the best is found anew."""

QUANTITIES = ("published_mean", "mean", "best", "upright")
"""What is reported of a net, in this order."""

_WITHIN = np.flatnonzero(np.abs(SWEEP) <= 2)
_PUBLISHED = np.array([SWEEP.index(weight) for weight in SHARED_WEIGHTS])
_SHOWN = (*SWEEP, 0.0, 0.0)  # as many as a champion is shown with: one program then serves for both


class Ended(NamedTuple):
    """The searches of an arm: what they ended with, and the space of their nets."""

    state: State
    space: Space


def candidates(state: State) -> Any:
    """The `CANDIDATES` nets of every search with the highest mean return in it, all its islands' nets being one
    population; leading axes (searches, candidates), in the host's memory. Nets with a return that is not finite come
    last, and copies of a better one, by their returns, last of all.
    """
    fitness = np.asarray(ranked(state.fitness))
    searches, lead = len(fitness), fitness.ndim
    fitness = fitness.reshape(searches, -1)
    order = np.argsort(-fitness, axis=1, kind="stable")
    returns = np.take_along_axis(np.asarray(state.fitness).reshape(*fitness.shape, -1), order[..., None], 1)
    best = np.stack([_distinct_first(rows, places) for rows, places in zip(returns, order, strict=True)])

    def pick(leaf: Array) -> np.ndarray:
        every = np.asarray(leaf).reshape(*fitness.shape, *np.shape(leaf)[lead:])
        return every[np.arange(searches)[:, None], best]

    return jax.tree.map(pick, state.population)


def _distinct_first(returns: np.ndarray, places: np.ndarray) -> np.ndarray:
    """The first `CANDIDATES` of ``places`` (n,), those with the same returns (n, W) as an earlier one put last."""
    new = np.zeros(len(places), bool)
    new[np.unique(returns, axis=0, return_index=True)[1]] = True
    return np.concatenate([places[new], places[~new]])[:CANDIDATES]


def worth(arms: Mapping[str, Ended], task: SwingUp, key: Key, budget: Budget, store: Store | None) -> xr.Dataset:
    """What the best net of every search is worth, dims (arm, seed), NaN where an arm has fewer searches than others.

    The net is the one of the search's `candidates` with the highest mean return over the six shared weights of Gaier
    and Ha (2019), on episodes of its own; its best and its most upright shared weight are chosen on others; what is
    reported comes from others again, the same for all nets:
      published_mean: mean return over those six weights.
      mean: mean return over 41 shared weights from -2 to 2, or what a random shared weight returns.
      best: return at the best of them.
      upright: share of episodes that end upright at the best weight for that, of `SWEEP`.

    Args:
      arms: searches by the name of their settings.
      task: swing-up.
      key: of all episodes.
      budget: of them.
      store: where the finished stage is kept.
    """
    import xarray as xr

    def compute() -> dict[str, Any]:
        of_nets, of_weights, of_report = jax.random.split(key, 3)
        found = [candidates(ended.state) for ended in arms.values()]
        counts = [len(nets.hidden) for nets in found]
        space = next(iter(arms.values())).space
        chosen = _best(found, space, task, of_nets, budget.champion_episodes)
        values = [_values(net, space, task, of_weights, of_report, budget) for net in chosen]
        return {"searches": counts} | {name: [value[name] for value in values] for name in values[0]}

    arrays = kept(store, "worth", compute)
    counts = arrays.pop("searches")
    seeds = np.arange(counts.max())
    there = seeds < counts[:, None]  # arms one after the other, as their nets are
    values = {name: np.full(there.shape, np.nan) for name in arrays}
    for name, value in arrays.items():
        values[name][there] = value
    return xr.Dataset(
        {name: (("arm", "seed"), value) for name, value in values.items()} | {"searches": ("arm", counts)},
        {"arm": list(arms), "seed": seeds},
        {"candidates": CANDIDATES, "trials": budget.trials, "last": LAST, "angle": ANGLE},
    )


def _best(found: list[Any], space: Space, task: SwingUp, key: Key, episodes: int) -> list[Any]:
    """The best net of every search, all candidates of all arms being evaluated as one population."""
    every = jax.tree.map(lambda *leaves: np.concatenate([x.reshape(-1, *x.shape[2:]) for x in leaves]), *found)
    means = np.asarray(evaluate(every, space, task, SHARED_WEIGHTS, key, repetitions=episodes)).mean(1)
    means = np.where(np.isfinite(means), means, -np.inf)
    chosen, first = [], 0
    for nets in found:
        searches, of_each = nets.hidden.shape
        for search in range(searches):
            start = first + search * of_each
            place = start + int(np.argmax(means[start : start + of_each]))
            chosen.append(jax.tree.map(lambda leaf, place=place: jnp.asarray(leaf[place]), every))
        first += searches * of_each
    return chosen


def _values(net: Any, space: Space, task: SwingUp, of_weights: Key, of_report: Key, budget: Budget) -> dict[str, float]:
    """What one net is worth, see `worth`."""
    shown, count = jnp.asarray(_SHOWN), len(SWEEP)
    chosen_by = np.asarray(returns(net, task, shown, of_weights, budget.selection_episodes, space=space)).mean(1)
    chosen_by = np.where(np.isfinite(chosen_by), chosen_by, -np.inf)[:count]
    upright_by = ends_upright(net, space, task, shown, of_weights, budget.selection_episodes).mean(1)[:count]
    best, steadiest = _WITHIN[np.argmax(chosen_by[_WITHIN])], int(np.argmax(upright_by))
    found = np.asarray(returns(net, task, shown, of_report, budget.trials, space=space)).mean(1)
    stands = ends_upright(net, space, task, shown, of_report, budget.trials).mean(1)
    return {
        "published_mean": float(found[_PUBLISHED].mean()), "mean": float(found[_WITHIN].mean()),
        "best": float(found[best]), "upright": float(stands[steadiest]), "best_weight": SWEEP[best],
        "upright_weight": SWEEP[steadiest], "connections": float(connection_count(net)),
    }  # fmt: skip
