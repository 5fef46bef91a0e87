"""Where to look next without a model, by grid, at random or along a Sobol sequence; and what a sampler is.

``sampler.ask(space, trials, count, seed)`` gives the next hyper-parameters after ``trials``. It keeps no state, so that
a search goes on from its list of trials alone. No sampler proposes a point twice, neither in one batch nor over all
trials; of a space that is used up it gives fewer than were asked for, or none.

Sources: Bergstra and Bengio (2012), random search; Sobol (1967), scrambled as by Owen (1998).
"""

from __future__ import annotations

import inspect
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from scipy.stats import qmc

from nnjax.search.space import Space, decode, identity, size

# A stream that gives so many known points in a row has nothing new.
_PATIENCE = 1000
_LARGEST_GRID = 10**6


class Trial(NamedTuple):
    """One evaluated point: its hyper-parameters by name, and its validation loss (NaN where it diverged)."""

    hparams: dict[str, Any]
    value: float


class Sampler(Protocol):
    """Gives the next points to try."""

    def ask(self, space: Space, trials: Sequence[Trial], count: int, seed: int) -> list[dict[str, Any]]:
        """At most ``count`` new points after ``trials``, pure."""


def distinct(
    space: Space, stream: Iterator[dict[str, Any]], trials: Sequence[Trial], count: int
) -> list[dict[str, Any]]:
    """The first ``count`` points of a stream that are not among the trials, each once."""
    known = {identity(space, trial.hparams) for trial in trials}
    found: list[dict[str, Any]] = []
    in_vain = 0
    while len(found) < count and in_vain < _PATIENCE:
        point = next(stream, None)
        if point is None:
            break
        in_vain += 1
        if (this := identity(space, point)) not in known:
            known.add(this)
            found.append(point)
            in_vain = 0
    return found


@dataclass(frozen=True)
class Grid:
    """Every combination of ``levels`` values of each dimension, ends included (all values of a choice).

    In an order drawn by the seed: the first trials of a grid in the order of its axes would be one corner of it.
    """

    levels: int = 3

    def __post_init__(self) -> None:
        positive("levels", self.levels)

    def ask(self, space: Space, trials: Sequence[Trial], count: int, seed: int) -> list[dict[str, Any]]:
        """As `Sampler.ask`. Raises ValueError where the grid has more than a million points."""
        axes = [dimension.levels(self.levels) for dimension in space.values()]
        sizes = tuple(len(axis) for axis in axes)
        if math.prod(sizes) > _LARGEST_GRID:
            raise ValueError(f"levels={self.levels} makes a grid of {math.prod(sizes)} points, more than a million")
        places = np.random.default_rng(seed).permutation(math.prod(sizes))
        index = (np.unravel_index(place, sizes) for place in places)
        stream = (
            {name: axis[at] for name, axis, at in zip(space, axes, each, strict=True)} for each in index
        )  # fmt: skip
        # A grid is passed over whole: however many of its points are known, what is left is found.
        known = {identity(space, trial.hparams) for trial in trials}
        return list(itertools.islice((point for point in stream if identity(space, point) not in known), count))


@dataclass(frozen=True)
class Random:
    """Independent draws, uniform on the scale of each dimension."""

    def ask(self, space: Space, trials: Sequence[Trial], count: int, seed: int) -> list[dict[str, Any]]:
        """As `Sampler.ask`; the i-th trial depends on seed and i alone."""

        def draws() -> Iterator[dict[str, Any]]:
            for number in itertools.count(len(trials)):
                yield decode(space, np.random.default_rng([seed, number]).random(len(space)))

        return distinct(space, draws(), trials, count)


@dataclass(frozen=True)
class Sobol:
    """A scrambled Sobol sequence: random at each point, even over all of them."""

    def ask(self, space: Space, trials: Sequence[Trial], count: int, seed: int) -> list[dict[str, Any]]:
        """As `Sampler.ask`; the i-th trial is the i-th point of the seed's sequence."""

        def draws() -> Iterator[dict[str, Any]]:
            points, start = sobol(len(space), len(trials) + count, seed), len(trials)
            yield from (decode(space, point) for point in points[start:])
            if not math.isinf(size(space)):
                yield from (decode(space, point) for point in sobol(len(space), _PATIENCE, seed)[start + count :])

        return distinct(space, draws(), trials, count)


def sobol(dimensions: int, count: int, seed: int) -> np.ndarray:
    """At least ``count`` points of a scrambled sequence, (a power of 2, dimensions)."""
    # The generator is `rng` from SciPy 1.15 on, and `seed` before.
    name = "rng" if "rng" in inspect.signature(qmc.Sobol).parameters else "seed"
    engine = qmc.Sobol(dimensions, scramble=True, **{name: np.random.default_rng(seed)})
    return engine.random_base2(max(count - 1, 0).bit_length())


def positive(name: str, value: Any) -> None:
    """Refuse what is no positive integer: ValueError."""
    if not hasattr(value, "__index__") or value < 1:
        raise ValueError(f"{name}={value!r} must be a positive integer")
