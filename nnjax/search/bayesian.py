"""The Bayesian sampler: a Gaussian process of the trials so far, and the points that it expects to improve the most.

Sources: Jones et al. (1998), Gaussian process and expected improvement; Snoek et al. (2012), for hyper-parameters;
Ginsbourger et al. (2010), constant liar; Garrido-Merchan and Hernandez-Lobato (2020), whole numbers and choices.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import threadpoolctl

from nnjax.search import gaussian_process as gp
from nnjax.search.samplers import Sobol, Trial, positive
from nnjax.search.space import Space, coordinates, decode, encode, units

# Targets above median + this many times (median - least) count as that: divergence is bad, whatever its number.
_WORST = 2.0
# The best candidates are refined by steps of these lengths, in units of the cube.
_STEPS = (0.1, 0.03, 0.01, 0.003)
# Points this near to a trial, squared, are that trial.
_SAME = 1e-18


@dataclass(frozen=True)
class Bayesian:
    """A Gaussian process of the trials (Matern 5/2), and the points that it expects to improve the most.

    The points of a batch are chosen one after the other, each as if those before it had come out as the best trial so
    far (constant liar). Values that are not finite count as bad as the worst that is told apart, see `targets`.

    Attributes:
      initial: trials of a Sobol sequence before the first model (and what is left of their last batch); None for two
        more than there are dimensions, at least 4.
      candidates: points at which the improvement is looked for at large, before the best are refined.
    """

    initial: int | None = None
    candidates: int = 512

    def __post_init__(self) -> None:
        positive("candidates", self.candidates)
        if self.initial is not None:
            positive("initial", self.initial)

    def ask(self, space: Space, trials: Sequence[Trial], count: int, seed: int) -> list[dict[str, Any]]:
        """As `nnjax.search.Sampler.ask`."""
        initial = self.initial or max(4, len(space) + 2)
        if len(trials) < initial:
            return Sobol().ask(space, trials, count, seed)
        # The matrices are small: more threads would only wait for each other, and may add in another order.
        with threadpoolctl.threadpool_limits(1, user_api="blas"):
            return self._model_asks(space, trials, count, np.random.default_rng([seed, len(trials), 1]))

    def _model_asks(
        self, space: Space, trials: Sequence[Trial], count: int, rng: np.random.Generator
    ) -> list[dict[str, Any]]:
        x, groups = encode(space, [trial.hparams for trial in trials])
        y = targets([trial.value for trial in trials])
        kernel = gp.fit(x, y, groups)
        found: list[dict[str, Any]] = []
        for _ in range(count):
            unit = self._next(space, gp.condition(x, y, groups, kernel), rng)
            if unit is None:
                break
            found.append(decode(space, unit))
            x = np.vstack([x, encode(space, found[-1:])[0]])
            y = np.append(y, y.min())  # the lie
        return found

    def _next(self, space: Space, model: gp.Model, rng: np.random.Generator) -> np.ndarray | None:
        """Place in the unit cube of the best unknown point; None where no candidate is unknown."""
        # Of a noisy function the model's values at the trials count, not the luckiest of its numbers.
        best = float(gp.posterior(model, model.x)[0].min())
        pool, score = np.empty((0, len(space))), np.empty(0)
        more = self._candidates(space, model, rng)
        for step in (*_STEPS, None):
            pool = np.vstack([pool, more])
            score = np.append(score, _score(space, model, more, best))
            order = np.argsort(-score, kind="stable")[:64]
            pool, score = pool[order], score[order]
            if step is not None:
                near = np.repeat(pool[:8], 16, axis=0)
                moved = rng.random(near.shape) < 0.7
                more = np.clip(near + step * moved * rng.normal(size=near.shape), 0, 1)
        return None if np.isneginf(score[0]) else pool[0]

    def _candidates(self, space: Space, model: gp.Model, rng: np.random.Generator) -> np.ndarray:
        """Points all over the cube, and as many about the best trials, where a model of many dimensions knows most."""
        wide = rng.random((self.candidates, len(space)))
        leaders = units(space, model.x[np.argsort(model.y, kind="stable")[:4]], model.groups)
        near = np.repeat(leaders, max(1, self.candidates // 4), axis=0)
        moved = rng.random(near.shape) < rng.uniform(0.2, 1.0, (len(near), 1))
        spread = 10 ** rng.uniform(-2.5, -0.5, (len(near), 1))
        return np.vstack([wide, np.clip(near + moved * spread * rng.normal(size=near.shape), 0, 1)])


def _score(space: Space, model: gp.Model, at: np.ndarray, best: float) -> np.ndarray:
    """Log expected improvement at places (n, dimensions) in the cube; -inf where a trial is."""
    points = coordinates(space, at)
    mean, deviation = gp.posterior(model, points)
    known = (gp.scaled_distances(model.x, points, np.ones(points.shape[1])) ** 2 < _SAME).any(axis=0)
    return np.where(known, -np.inf, gp.log_expected_improvement(mean, deviation, best))


def targets(values: Sequence[float]) -> np.ndarray:
    """Values (n,) as a model can take them: the bad ones all alike, then mean 0 and variance 1.

    What is not finite, or lies further above the median than twice the median above the least, counts as lying there.
    """
    y = np.asarray(values, float)
    finite = y[np.isfinite(y)]
    if not len(finite):
        return np.zeros(len(y))
    middle, least = float(np.median(finite)), float(finite.min())
    bound = min(float(finite.max()), middle + _WORST * (middle - least))
    y = np.minimum(np.where(np.isfinite(y), y, bound), bound)
    spread = y.std()
    return (y - y.mean()) / (spread if spread > 0 else 1.0)
