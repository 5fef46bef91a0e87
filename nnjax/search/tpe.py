"""The tree-structured Parzen estimator: where good trials are dense and bad ones are not, by optuna.

Source: Bergstra et al. (2011).
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nnjax.chunks import plain
from nnjax.search.samplers import Trial, distinct, positive
from nnjax.search.space import Choice, Float, Space


@dataclass(frozen=True)
class TPE:
    """The tree-structured Parzen estimator of optuna (the extra ``search``), all dimensions together.

    Attributes:
      initial: random trials before the first model.
    """

    initial: int = 10

    def __post_init__(self) -> None:
        positive("initial", self.initial)

    def ask(self, space: Space, trials: Sequence[Trial], count: int, seed: int) -> list[dict[str, Any]]:
        """As `Sampler.ask`. Raises ImportError where optuna is missing."""
        optuna = _optuna()
        scales = {name: _distribution(optuna, dimension) for name, dimension in space.items()}
        bad = [trial.value for trial in trials if np.isfinite(trial.value)]
        worst = max(bad, default=0.0)
        draws = int(np.random.SeedSequence([seed, len(trials)]).generate_state(1)[0])
        shown = optuna.logging.get_verbosity()
        optuna.logging.set_verbosity(optuna.logging.ERROR)  # else each study says that it was made
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # constant_liar is called experimental
                sampler = optuna.samplers.TPESampler(
                    seed=draws, n_startup_trials=self.initial, multivariate=True, constant_liar=True
                )
                study = optuna.create_study(sampler=sampler)
                study.add_trials([
                    optuna.trial.create_trial(
                        params={name: _told(space[name], value) for name, value in trial.hparams.items()},
                        distributions=scales, value=trial.value if np.isfinite(trial.value) else worst,
                    )
                    for trial in trials
                ])  # fmt: skip

                def stream() -> Iterator[dict[str, Any]]:
                    while True:
                        asked = study.ask(fixed_distributions=scales).params
                        yield {name: _meant(dimension, asked[name]) for name, dimension in space.items()}

                # Each is a model's answer, far dearer than a draw; where nearly all is known, so be it.
                return distinct(space, itertools.islice(stream(), 20 * count), trials, count)
        finally:
            optuna.logging.set_verbosity(shown)


def _optuna() -> Any:
    try:
        import optuna
    except ImportError:
        raise ImportError("sampler 'tpe' needs optuna: pip install 'nnjax[search]'") from None
    return optuna


def _distribution(optuna: Any, dimension: Any) -> Any:
    if isinstance(dimension, Choice):  # by index: optuna stores few kinds of values
        return optuna.distributions.CategoricalDistribution(range(len(dimension.values)))
    kind = "Float" if isinstance(dimension, Float) else "Int"
    return getattr(optuna.distributions, f"{kind}Distribution")(dimension.low, dimension.high, log=dimension.log)


def _told(dimension: Any, value: Any) -> Any:
    return dimension.values.index(plain(value)) if isinstance(dimension, Choice) else value


def _meant(dimension: Any, value: Any) -> Any:
    return dimension.values[value] if isinstance(dimension, Choice) else value
