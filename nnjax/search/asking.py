"""Samplers by name, and the one question that they answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nnjax.naming import choose, with_options
from nnjax.search.bayesian import Bayesian
from nnjax.search.samplers import Grid, Random, Sampler, Sobol, Trial, positive
from nnjax.search.space import Space, check
from nnjax.search.tpe import TPE

TABLE: dict[str, type] = {"grid": Grid, "random": Random, "sobol": Sobol, "bayesian": Bayesian, "tpe": TPE}
NAMES = tuple(TABLE)


def by_name(name: str, **options: Any) -> Sampler:
    """The sampler called ``name`` (`NAMES`), with its options: ``by_name("grid", levels=4)``.

    Raises:
      ValueError: an unknown name or option.
    """
    return with_options("sampler", name, choose("sampler", name, TABLE), options)


def ask(
    space: Space, trials: Sequence[Trial] = (), count: int = 1, *, sampler: str | Sampler = "bayesian", seed: int = 0
) -> list[dict[str, Any]]:
    """The next ``count`` hyper-parameters to try after ``trials``: pure, so the same arguments give the same.

    Fewer, or none, where the space (or the grid) is used up.

    Raises:
      ValueError: see `nnjax.search.space.check`; an unknown sampler; ``count`` below 1.
    """
    check(space)
    positive("count", count)
    rule = by_name(sampler) if isinstance(sampler, str) else sampler
    return rule.ask(space, tuple(trials), int(count), seed)
