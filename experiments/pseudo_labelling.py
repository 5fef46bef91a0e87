"""Do labels that a net gave itself teach it anything? Pseudo-labels against the number of true ones.

A net learns from a few labelled pictures; many more have no label. Its own predictions for those are taken for true,
and a net is trained on both. All arms begin with the same weights and make the same number of updates, each on a batch
of labelled pictures and, but for the first arm, a batch of the others, whose loss counts alpha times.

Arms
  labelled only     The others are never seen.
  all, once         The first net labels all of them, once; a fresh net is trained on both.
  confident, once   The same with those alone of which the first net is surer than a threshold.
  schedule          One net; labels are made anew at every update, and alpha rises from 0 along a line (Lee, 2013).
  all true labels   The others have their true labels: what could be reached.

Falsifiable check: against the same seeds with labelled pictures only, the schedule must lower the test error at every
number of labels, least where there are many (the paired intervals exclude zero); it must lower the entropy of the
predictions for unlabelled pictures, by which Lee explains the method; confident labels must be right more often than
all of them; and a student of fixed labels must repeat its teacher's mistakes more than the schedule, which can take
its labels back. What fails is reported as failing.

What is random: a seed draws which pictures have labels (the same number of each class, as far as they go), the weights,
the order, the unlabelled pictures of each batch and the masks; all arms of a seed share them. Intervals are over seeds,
with pool and test set fixed. Nothing is chosen on validation data, which few labels would not allow (Oliver et al.,
2018): alpha and the schedule's shape are Lee's, the threshold is one number for all.

Published numbers (Lee, 2013, table 1, recalled; one net each): test error on MNIST with 100, 600, 1000 and 3000
labels, by dropout alone 21.89, 8.57, 6.59 and 3.72 %, with pseudo-labels besides 16.15, 5.03, 4.30 and 2.80 %. They
stand beside ours on MNIST alone. The schedule's error counts as reproduced when the 90 % t-interval of its distance
from the published one lies inside +-D, D being half the published effect over dropout alone (2.870, 1.770, 1.145 and
0.460 points), and the 95 % intervals of its effects over the published dropout alone and, seed by seed, over ours lie
below zero. That takes 20 seeds, or 5 where D is at least two standard deviations over seeds: ``standard`` has 5,
``full`` 10, and where their deviation is larger the verdict is inconclusive. Diverged seeds are counted; none is
left out. Dropout alone has no baseline and no published deviation: not comparable.
Deviations from the protocol: Adam with a rate falling to zero instead of momentum, softmax instead of logistic outputs,
dropout on hidden units alone, pixels scaled to variance 1, a smaller net and fewer updates but in ``full``; labels are
made without dropout.

Sources: Scudder (1965), self-training; Lee (2013); Grandvalet and Bengio (2005), entropy; Oliver et al. (2018), how to
judge; Arazo et al. (2020), confirmation.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from experiments import _pseudo_labelling_lanes as lanes
from experiments import command
from experiments._pseudo_labelling_figures import plot
from experiments._pseudo_labelling_report import report
from nnjax.data import load, stratified_split
from nnjax.naming import choose
from nnjax.sweep import sweep
from nnjax.train import Config as TrainConfig

if TYPE_CHECKING:
    import xarray as xr

    from nnjax.monitor import Monitor
    from nnjax.sweep import Store

__all__ = ["PRESETS", "Config", "main", "plot", "report", "run", "sweeps"]

WIDTH = 2
"""Lanes side by side on a CPU device: each holds its own students' copies of the pool in evaluation."""

_DATA = ("digits", "mnist", "fashion_mnist")


@dataclass(frozen=True)
class Config:
    """What is studied; sizes are numbers of pictures, units or updates."""

    seed: int = 0
    """Seed of everything."""
    data: str = "digits"
    """Data set: digits, mnist, fashion_mnist."""
    labels: tuple[int, ...] = (20, 50, 100, 200, 500)
    """Labelled pictures, ascending multiples of the number of classes."""
    seeds: int = 8
    """Seeds."""
    pool: int = 1437
    """Training pictures in all, labelled and not; or all there are."""
    test_n: int = 10_000
    """Test pictures, or all there are."""
    hidden: tuple[int, ...] = (256,)
    """Hidden units."""
    dropout: float = 0.5
    """Probability of dropping a hidden unit."""
    steps: int = 800
    """Updates."""
    batch: int = 32
    """Labelled pictures an update."""
    unlabelled: int = 128
    """Unlabelled pictures an update."""
    learning_rate: float = 0.002
    """Learning rate (Adam), falling to zero."""
    alpha: float = 3.0
    """Weight of the unlabelled pictures' mean loss against the labelled ones'."""
    schedule: tuple[float, ...] = (0.1, 0.6)
    """Shares of the updates at which alpha begins to rise from 0, and is there."""
    threshold: float = 0.95
    """Least confidence of the confident labels."""
    evaluations: int = 20
    """Evaluations along the run, a divisor of the updates."""

    def __post_init__(self) -> None:
        command.check_numbers(self, {
            "seed": 0, "labels": 10, "seeds": 2, "pool": 20, "test_n": 10, "hidden": 1, "dropout": 0, "steps": 1,
            "batch": 1, "unlabelled": 1, "learning_rate": 0, "alpha": 0, "schedule": 0, "threshold": 0,
            "evaluations": 1,
        })  # fmt: skip
        choose("data", self.data, list(_DATA))
        if any(n % 10 for n in self.labels):
            raise ValueError(f"labels={self.labels} must be multiples of 10, the number of classes")
        if len(self.labels) < 2:
            raise ValueError(f"labels={self.labels} must hold at least two numbers")
        if self.labels[-1] >= self.pool:
            raise ValueError(f"labels={self.labels} must be below pool={self.pool}, or nothing is without a label")
        if self.batch > self.labels[-1]:
            raise ValueError(f"batch={self.batch} must be at most {self.labels[-1]}, the most labels")
        if len(self.schedule) != 2 or self.schedule[1] > 1:
            raise ValueError(f"schedule={self.schedule} must be two ascending shares from 0 to 1")
        if self.dropout >= 1 or self.threshold >= 1:
            raise ValueError(f"dropout={self.dropout} and threshold={self.threshold} must be below 1")
        if self.steps % self.evaluations:
            raise ValueError(f"steps={self.steps} must be a multiple of evaluations={self.evaluations}")


_QUICK = Config()
_STANDARD = replace(
    _QUICK, data="mnist", labels=(100, 600, 1000, 3000), seeds=5, pool=60_000, hidden=(500,), steps=3000, batch=32,
    unlabelled=128, learning_rate=0.001, evaluations=10,
)  # fmt: skip
PRESETS = {
    "quick": _QUICK,
    "standard": _STANDARD,
    "full": replace(_STANDARD, seeds=10, hidden=(5000,), steps=60_000, unlabelled=256, evaluations=20),
}


def _examples(config: Config) -> dict[str, np.ndarray]:
    """Pool and test pictures, flat, centered and scaled by the pool; and each seed's order of the pool."""
    dataset = load(config.data)
    parts: list[Any] = []
    for split, most in ((dataset.train, config.pool), (dataset.test, config.test_n)):
        (index,) = stratified_split(split.y, [min(most, len(split.y))], seed=config.seed)
        parts += [split.x[index].reshape(len(index), -1).astype(np.float32), split.y[index]]
    x_pool, y_pool, x_test, y_test = parts
    if config.labels[-1] >= len(y_pool):
        raise command.BadInput(
            f"labels={config.labels} must be below the {len(y_pool)} training pictures of {config.data}"
        )
    middle = x_pool.mean(axis=0)
    spread = np.std(x_pool - middle)
    order = lanes.balanced_orders(y_pool, config.seeds, config.seed)
    return {
        "x_pool": (x_pool - middle) / spread, "y_pool": y_pool,
        "x_test": (x_test - middle) / spread, "y_test": y_test,
        "order": order, "rank": np.argsort(order, axis=1).astype(np.int32),
    }  # fmt: skip


def sweeps(config: Config) -> dict[str, partial]:
    """The one sweep, ready to be called (or planned)."""
    data = _examples(config)
    every = config.steps // config.evaluations
    training = TrainConfig(
        steps=config.steps, batch_size=config.batch, evaluate_every=every, evaluation_batch=lanes.EVALUATION_BATCH
    )
    lane = partial(
        lanes.lane, most=config.labels[-1], hidden=config.hidden, classes=int(data["y_pool"].max()) + 1,
        dropout=config.dropout, learning_rate=config.learning_rate, alpha=config.alpha,
        schedule=(config.schedule[0], config.schedule[1]), threshold=config.threshold, unlabelled=config.unlabelled,
        config=training,
    )  # fmt: skip
    curves = ("train_error", "test_error", "test_entropy", "unlabelled_error", "unlabelled_entropy")
    return {
        "pseudo_labelling": partial(
            sweep, lane, {"n": config.labels, "seed": range(config.seeds)}, key=jax.random.key(config.seed), data=data,
            name="pseudo_labelling",
            width=WIDTH if jax.default_backend() == "cpu" else None,
            dims={
                **dict.fromkeys(curves, ("arm", "step")), "repeated": ("arm",), "coverage": ("threshold",),
                "label_accuracy": ("threshold",),
            },
            coords={
                "arm": list(lanes.ARMS), "step": range(every, config.steps + 1, every),
                "threshold": list(lanes.thresholds(config.threshold)),
            },
        )
    }  # fmt: skip


def run(config: Config, *, store: Callable[[str], Store] | None = None, monitor: Monitor | None = None) -> xr.DataTree:
    """Train every arm; ``store(name)`` keeps finished chunks. Returns one group, "pseudo_labelling"."""
    import xarray as xr

    groups = {
        name: call(store=store(name) if store else None, monitor=monitor) for name, call in sweeps(config).items()
    }
    for dataset in groups.values():
        dataset.attrs |= {
            "data": config.data, "threshold": config.threshold, "alpha": config.alpha,
            "schedule": list(config.schedule),
        }  # fmt: skip
    return xr.DataTree.from_dict(groups, name="pseudo_labelling")


def main(argv: list[str] | None = None) -> int:
    """The command line: see ``--help``."""
    return command.main("experiments.pseudo_labelling", argv)


if __name__ == "__main__":
    sys.exit(main())
