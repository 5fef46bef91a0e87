"""Selection by several objectives at once: fronts, crowding and the next generation of a population.

All objectives are maximized. A row with NaN or an infinite value ranks behind every finite one: a net that overflows
would otherwise lead for ever.
"""

from __future__ import annotations

import dataclasses
import math
import operator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from nnjax.types import Array, Key, floating
from nnjax.wann.genome import G, Space
from nnjax.wann.variation import RATES, Rates, check_rates, mutate_population


@dataclasses.dataclass(frozen=True)
class Selection:
    """How parents and survivors are chosen; the defaults are those of the swing-up search of Gaier and Ha (2019).

    Attributes:
      tournament: a parent is the best of ``2 * tournament`` draws, as in their program, where two tournaments are
        held and the better winner breeds.
      elite: share of the breeding pool that goes on unchanged, [0, 1).
      cull: share of the population, the worst, that is kept from breeding, [0, 1).
      by_connections: probability that a generation is ranked by mean return and few connections; by mean and best
        return otherwise. May be traced.
      rates: of the mutations.

    Raises:
      ValueError: a number out of range.
    """

    tournament: int = 8
    elite: float = 0.2
    cull: float = 0.2
    by_connections: ArrayLike = 0.8
    rates: Rates = RATES

    def __post_init__(self) -> None:
        whole = isinstance(self.tournament, int | np.integer) and not isinstance(self.tournament, bool)
        if not whole or self.tournament < 1:
            raise ValueError(f"tournament={self.tournament!r} must be a whole number, at least 1")
        for name in ("elite", "cull"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be a share, at least 0 and below 1")
        known = not isinstance(self.by_connections, jax.core.Tracer)
        if known and not 0 <= np.asarray(self.by_connections) <= 1:
            raise ValueError(f"by_connections={self.by_connections} must be a probability, between 0 and 1")
        check_rates(self.rates)

    def survivors(self, size: int) -> int:
        """How many of a population may breed."""
        return size - _share(self.cull, size)

    def elites(self, size: int) -> int:
        """How many of a population go on unchanged; they are the first of the next."""
        return _share(self.elite, self.survivors(size))


def _share(share: float, size: int) -> int:
    return math.floor(share * size + 1e-9)  # .29 * 100 is 28.999...


class Info(NamedTuple):
    """What `next_generation` tells of its choice.

    Attributes:
      order: (n,) int32, the old population from best to worst.
      parents: (n,) int32, for every member of the new one its parent's place in the old; itself for elites.
    """

    order: Array
    parents: Array


def fronts(objectives: ArrayLike) -> Array:
    """Non-dominated sorting (Deb et al., 2002): 0 for those that none dominates, 1 once these are taken away, ...

    a dominates b if it is nowhere worse and somewhere better.

    Args:
      objectives: (n, m), to be maximized; rows that are not finite stand behind all finite ones.

    Returns:
      (n,) int32.

    Raises:
      ValueError: objectives are not (n, m).
    """
    values, finite = _matrix(objectives)
    values = jnp.where(finite[:, None], values, -jnp.inf)
    one, other = values[:, None], values[None]
    dominates = ((one >= other).all(-1) & (one > other).any(-1)).astype(jnp.float32)

    def peel(state: tuple) -> tuple:
        number, ranks, dominators = state
        front = (ranks < 0) & (dominators == 0)
        # Sums of zeros and ones, exact in floats up to 2^24, and a product of matrices is the fastest sum.
        return number + 1, jnp.where(front, number, ranks), dominators - front.astype(jnp.float32) @ dominates

    start = (jnp.int32(0), jnp.full(len(values), -1, jnp.int32), dominates.sum(0))
    return jax.lax.while_loop(lambda state: (state[1] < 0).any(), peel, start)[1]


def crowding(objectives: ArrayLike, ranks: ArrayLike) -> Array:
    """Crowding distance (Deb et al., 2002): how far a member's neighbors in its front lie apart.

    The sum over objectives of the distance between the next lower and the next higher value in the front, in units of
    the front's range; infinite for the two ends of each objective. Equal values stand in the order of their rows, and
    add nothing where a front has but one value.

    Args:
      objectives: (n, m).
      ranks: (n,) integers, the fronts.

    Returns:
      (n,) in the dtype of the objectives; 0 for rows that are not finite, which are in no front.

    Raises:
      ValueError: objectives are not (n, m), or ranks not (n,).
    """
    values, finite = _matrix(objectives)
    ranks = jnp.asarray(ranks)
    if ranks.shape != finite.shape:
        raise ValueError(f"ranks of shape {ranks.shape} must be {finite.shape}, one for each row of objectives")
    ranks = jnp.where(finite, ranks, jnp.iinfo(ranks.dtype).max)
    # Halves, so that a difference of two finite numbers is finite.
    halves = jnp.where(finite[:, None], values / 2, 0)
    return jnp.where(finite, jax.vmap(_gaps, (1, None))(halves, ranks).sum(0), 0)


def _gaps(values: Array, ranks: Array) -> Array:
    """Part of one objective, (n,), in the distances."""
    order = jnp.lexsort((values, ranks))
    values, ranks = values[order], ranks[order]
    places, changes = jnp.arange(len(values)), ranks[1:] != ranks[:-1]
    first = jnp.concatenate([jnp.ones(1, bool), changes])
    last = jnp.concatenate([changes, jnp.ones(1, bool)])
    begin = jax.lax.cummax(jnp.where(first, places, 0))
    end = jax.lax.cummin(jnp.where(last, places, len(values) - 1), reverse=True)
    width = values[end] - values[begin]
    gap = jnp.roll(values, -1) - jnp.roll(values, 1)
    gap = jnp.where(first | last, jnp.inf, jnp.where(width > 0, gap / jnp.where(width > 0, width, 1), 0))
    return jnp.zeros_like(gap).at[order].set(gap)


def order(objectives: ArrayLike) -> Array:
    """Rows from best to worst: by front, in a front the least crowded first, in doubt the earlier row; (n,) int32.

    Args:
      objectives: (n, m), to be maximized; rows that are not finite come last.

    Raises:
      ValueError: objectives are not (n, m).
    """
    ranks = fronts(objectives)
    return jnp.lexsort((-crowding(objectives, ranks), ranks)).astype(jnp.int32)


def _matrix(objectives: ArrayLike) -> tuple[Array, Array]:
    values = floating(objectives)
    if values.ndim != 2 or 0 in values.shape:
        raise ValueError(f"objectives of shape {values.shape} must be (n, m), a row for each of n > 0 members")
    return values, jnp.isfinite(values).all(1)


def next_generation(
    key: Key,
    population: G,
    fitness_mean: ArrayLike,
    fitness_max: ArrayLike,
    connections: ArrayLike,
    space: Space,
    config: Selection,
) -> tuple[G, Info]:
    """Rank a population, keep its elites and let the others be children of tournaments' winners.

    Args:
      key: draws objectives, parents and mutations.
      population: genomes with a leading axis (n,).
      fitness_mean: (n,) returns averaged over shared weights and repetitions.
      fitness_max: (n,) the best over shared weights.
      connections: (n,) how many are enabled; 0 counts as 1.
      space: the genomes' sizes and activations, static.
      config: a `Selection`, static, or anything with its fields and methods.

    Returns:
      The next population, ``config.elites(n)`` unchanged ones first and then children with one mutation each, and
      `Info`.

    Raises:
      ValueError: no genome, or numbers that are not one for each.
    """
    size = len(population.hidden)
    if size < 1:
        raise ValueError("population=0 must be at least 1 genome")
    given = {"fitness_mean": fitness_mean, "fitness_max": fitness_max, "connections": connections}
    for name, value in given.items():
        if jnp.shape(value) != (size,):
            raise ValueError(f"{name} of shape {jnp.shape(value)} must be ({size},), one for each genome")
    objective_key, parent_key, child_key = jax.random.split(key, 3)
    mean = floating(fitness_mean)
    few = 1 / jnp.maximum(jnp.asarray(connections), 1).astype(mean.dtype)
    by_connections = jax.random.bernoulli(objective_key, config.by_connections)
    second = jnp.where(by_connections, few, jnp.asarray(fitness_max, mean.dtype))
    ranked = order(jnp.stack([mean, second], 1))
    elites = config.elites(size)
    # The best of several draws among the survivors is the place of the lowest.
    lowest = jax.random.uniform(parent_key, (size - elites, 2 * config.tournament), jnp.float32).min(1)
    winners = jnp.floor(lowest * config.survivors(size)).astype(jnp.int32)
    parents = jnp.concatenate([ranked[:elites], ranked[winners]])
    chosen = jax.tree.map(lambda leaf: jnp.asarray(leaf)[parents], population)
    kept, bred = (jax.tree.map(operator.itemgetter(part), chosen) for part in (slice(elites), slice(elites, None)))
    children = mutate_population(child_key, bred, space, config.rates)
    return jax.tree.map(lambda *parts: jnp.concatenate(parts), kept, children), Info(ranked, parents)
