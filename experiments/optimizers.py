"""Optimizers: ravines, the 10-5-10 encoder table, learning rates, schedules, and do adaptive rules generalize worse?

Panels
  ravine          Gradient descent, momentum and Nesterov on a quadratic, against their closed-form linear recurrence.
  rosenbrock      Every rule from Rosenbrock's start at many learning rates: paths, and steps to a value of 1e-4.
  encoder         Epochs to learn the 10-5-10 encoder, every rule from the same starts, beside the published table.
  rates           Learning rate x rule on digits, a two-layer net, mini-batches.
  generalization  The same runs with each rule's rate chosen on validation data alone: adaptive against plain rules.
  schedules       Eight schedules for momentum at equal budget, each with its rate chosen on validation data alone.
  separable       The least-squares problem on which Wilson et al. (2017) prove that adaptive rules must fail.

Checks fixed beforehand. Ravine: the paths equal the recurrence to 1e-5 of their own size. Encoder, tight band: for
rules with a reference (an independent implementation: U(-1, 1) starts, all outputs within .4), the 95 % interval of
the mean lies within 10 % of it. Encoder, wide band: as published, to half the published effect over backpropagation,
and our effect over our own backpropagation, paired by start, has the published sign. Separable: the test error is the
share of negative examples for adaptive rules and zero for plain ones. Generalization: the adaptive rules' mean test
error minus the plain ones' is positive.

Criteria settled after pilot runs, marked "post hoc" in their rows: the ravine's curvatures; all of Rosenbrock's; the
grids of rates, and the tolerances of the rates panel; the updates behind the separable weights' directions. Post hoc
are also the share of starts, .9, that a rule must solve to agree with a reference or a published number; and, after a
first run that re-dealt test examples, the fixed test split and the intervals over it.

The encoder: 10 patterns with one bit set, 5 hidden units, logistic, half the sum of squares, full batch; an epoch is
one presentation, the one that finds all outputs right included. Rules as published: backpropagation with rate 1.9;
SuperSAB 2, momentum .8; Quickprop 1.5 over a unit's inputs (bias included), growth 1.75, .1 added to the logistic
derivative; Rprop with first steps .1 and 2. Starts that do not end within the bound are drawn as never solved and
count in the verdict by their share; the mean is that of the others, the only mean there is; the median is that of all.

Test examples are the data set's own test split, the same for all seeds and never seen in training or in the choice of
a rate. A seed deals examples of the training split out to training and validation, and sets weights and order; all
rules see the same. Inputs are standardized by the training part's mean and deviation. Verdicts on test errors take
both the seeds and the test examples as drawn (the variance of a paired difference's mean is that over seeds plus that
over test examples), as a difference seen on a few hundred fixed pictures need not be one on others; the pool from
which training examples are drawn is given. Validation parts of different seeds overlap, for which intervals of
validation errors are widened (Nadeau and Bengio, 2003). Where several rows ask the same question the 5 % are divided
among them (Bonferroni), and where a chosen rate lies at the grid's edge the verdict is open.

The ravine's curvatures, 4 and 400, are those for which the textbook picture with rate .003 and momentum .8 works: all
three rules are stable there (Nesterov's limit is 2 (1 + m) / (1 + 2 m) over the largest curvature, .0035), plain
descent crawls along the valley, momentum swings across it but is there about seven times as fast.

Deviation: the claim of Wilson et al. (2017) is about deep nets on CIFAR-10 and language; here it is asked of a
two-layer net on small pictures, with constant rates, so the verdict is on this problem only.

Sources: Polyak (1964); Rosenbrock (1960); Fahlman (1988); Tollenaere (1990); Riedmiller and Braun (1993); Nadeau and
Bengio (2003); Igel and Huesken (2003); Owen (2007); Sutskever et al. (2013); Wilson et al. (2017).
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from experiments import _optimizers_lanes as lanes
from experiments import command
from experiments._optimizers_figures import plot
from experiments._optimizers_report import report
from experiments._optimizers_theory import ravine_path, separable_error
from nnjax.data import load
from nnjax.sweep import sweep
from nnjax.train import Config as TrainConfig

if TYPE_CHECKING:
    import xarray as xr

    from nnjax.monitor import Monitor
    from nnjax.sweep import Store

__all__ = ["PRESETS", "Config", "main", "plot", "report", "run", "sweeps"]

_PICTURES = ("digits", "mnist", "fashion_mnist")


def _decades(first: float, last: float, each: int) -> tuple[float, ...]:
    """Rates from 10^first to 10^last, so many a decade."""
    return tuple(float(f"{10**e:.4g}") for e in np.arange(first, last + 1e-9, 1 / each))


@dataclass(frozen=True)
class Config:
    """What is studied; rates are learning rates, sizes numbers of examples or units."""

    seed: int = 0
    """Seed of everything."""
    ravine_curvatures: tuple[float, ...] = (4.0, 400.0)
    """Curvatures along and across the ravine, ascending."""
    ravine_rate: float = 0.003
    """Learning rate of the ravine's picture."""
    ravine_rates: tuple[float, ...] = (0.0005, 0.001, 0.0015, 0.002, 0.0025, 0.0035, 0.004, 0.0045)
    """Further learning rates on the ravine."""
    ravine_momentum: float = 0.8
    """Momentum on the ravine, in (0, 1)."""
    ravine_steps: int = 500
    """Updates on the ravine."""
    rosenbrock_rates: tuple[float, ...] = _decades(-5, 0.5, 4)
    """Learning rates (first step sizes) on Rosenbrock's function."""
    rosenbrock_steps: int = 20_000
    """Updates on Rosenbrock's function."""
    rosenbrock_threshold: float = 1e-4
    """Value of Rosenbrock's function that counts as found."""
    encoder_seeds: int = 200
    """Starts of the encoder."""
    encoder_epochs: int = 1000
    """Epochs after which a start counts as not solved."""
    data: str = "digits"
    """Data set of the trained nets: digits, mnist or fashion_mnist."""
    train_n: int = 1000
    """Training examples, from the data set's training split."""
    validation_n: int = 400
    """Validation examples, which choose rates, from the same split."""
    test_n: int = 359
    """Test examples, the first of the data set's own test split."""
    hidden: int = 32
    """Hidden units of the trained nets."""
    batch: int = 50
    """Examples an update."""
    epochs: int = 50
    """Passes over the training examples."""
    rates: tuple[float, ...] = _decades(-4, 0.5, 2)
    """Learning rates of the trained nets."""
    rates_seeds: int = 20
    """Seeds of the rates and generalization panels."""
    schedule_rates: tuple[float, ...] = _decades(-2, -0.25, 4)
    """Largest learning rates of the schedules, for momentum .9."""
    schedule_seeds: int = 10
    """Seeds of the schedules panel."""
    separable_n: int = 60
    """Examples of Wilson's construction."""
    separable_shares: tuple[float, ...] = (0.55, 0.6, 0.7, 0.8, 0.9, 0.95)
    """Shares of positive examples in it, above 1/2."""
    separable_steps: int = 2000
    """Updates on it."""

    def __post_init__(self) -> None:
        command.check_numbers(self, _LEAST)
        if len(self.ravine_curvatures) != 2:
            raise ValueError(f"ravine_curvatures={self.ravine_curvatures} must be two, along and across")
        if not 0 < self.ravine_momentum < 1:
            raise ValueError(f"ravine_momentum={self.ravine_momentum} must lie between 0 and 1")
        if any(not 0.5 < share < 1 for share in self.separable_shares):
            raise ValueError(f"separable_shares={self.separable_shares} must lie between 1/2 and 1")
        for share in self.separable_shares:
            if abs(share * self.separable_n - round(share * self.separable_n)) > 1e-6:
                raise ValueError(f"separable_shares={share} of separable_n={self.separable_n} is no whole number")
        if self.batch > self.train_n:
            raise ValueError(f"batch={self.batch} must be at most train_n={self.train_n}")
        if self.data not in _PICTURES:
            raise ValueError(f"data={self.data!r} must be among {', '.join(_PICTURES)}")


_RATE = 1e-12
_LEAST: dict[str, float] = {
    "seed": 0, "ravine_curvatures": 1e-6, "ravine_rate": _RATE, "ravine_rates": _RATE, "ravine_steps": 10,
    "rosenbrock_rates": _RATE, "rosenbrock_steps": 10, "rosenbrock_threshold": 0, "encoder_seeds": 2,
    "encoder_epochs": 1, "train_n": 1, "validation_n": 1, "test_n": 1, "hidden": 1, "batch": 1, "epochs": 1,
    "rates": _RATE, "rates_seeds": 2, "schedule_rates": _RATE, "schedule_seeds": 2, "separable_n": 2,
    "separable_steps": 10,
}  # fmt: skip

_QUICK = Config()
PRESETS = {
    "quick": _QUICK,
    "standard": replace(
        _QUICK,
        encoder_seeds=1000,
        data="fashion_mnist",
        train_n=4000,
        validation_n=2000,
        test_n=4000,
        hidden=64,
        epochs=40,
        schedule_rates=_decades(-2.5, -0.5, 4),
        schedule_seeds=20,
    ),
    "full": replace(
        _QUICK,
        encoder_seeds=10_000,
        data="fashion_mnist",
        train_n=20_000,
        validation_n=10_000,
        test_n=10_000,
        hidden=128,
        batch=100,
        epochs=40,
        rates=_decades(-4, 0.5, 4),
        schedule_rates=_decades(-2.5, -0.5, 4),
        schedule_seeds=20,
    ),
}


# Sweeps


def _side() -> int | None:
    # One lane after the other, so that of all rules only the lane's own is computed; a GPU wants them side by side.
    return 1 if jax.default_backend() == "cpu" else None


def _examples(config: Config) -> dict[str, Any]:
    """The pool that each seed deals out to training and validation, and the fixed test examples; pictures flat."""
    dataset = load(config.data)
    pool, test = dataset.train, dataset.test
    if config.train_n + config.validation_n > len(pool.x):
        raise command.BadInput(
            f"train_n={config.train_n} and validation_n={config.validation_n} are more than the {len(pool.x)} "
            f"training examples of {config.data}"
        )
    if config.test_n > len(test.x):
        raise command.BadInput(f"test_n={config.test_n} is more than the {len(test.x)} test examples of {config.data}")
    return {
        "x": np.reshape(pool.x, (len(pool.x), -1)).astype(np.float32),
        "y": pool.y,
        "test_x": np.reshape(test.x[: config.test_n], (config.test_n, -1)).astype(np.float32),
        "test_y": test.y[: config.test_n],
        "classes": np.arange(len(dataset.class_names), dtype=np.int32),
    }


def _exact_sweeps(config: Config, key: Any) -> dict[str, partial]:
    ravine = partial(
        sweep,
        partial(lanes.ravine_lane, momentum=config.ravine_momentum, steps=config.ravine_steps),
        {"rate": tuple(sorted({*config.ravine_rates, config.ravine_rate}))},
        key=jax.random.fold_in(key, 1),
        data=np.asarray(config.ravine_curvatures),
        name="ravine",
        float64=True,
        dims={"path": ("rule", "step", "direction")},
        coords={"rule": list(lanes.RAVINE_RULES)},
    )
    rosenbrock = partial(
        sweep,
        partial(lanes.rosenbrock_lane, steps=config.rosenbrock_steps, threshold=config.rosenbrock_threshold),
        {"rate": config.rosenbrock_rates},
        key=jax.random.fold_in(key, 2),
        name="rosenbrock",
        float64=True,
        dims={"path": ("rule", "point", "direction"), "steps": ("rule",), "diverged": ("rule",)},
        coords={"rule": list(lanes.ROSENBROCK_RULES)},
    )
    separable = partial(
        sweep,
        partial(lanes.separable_lane, n=config.separable_n, steps=config.separable_steps),
        {"share": config.separable_shares},
        key=jax.random.fold_in(key, 3),
        name="separable",
        float64=True,
        width=1,
        dims=dict.fromkeys(("test_error", "train_error", "cosine_sign", "cosine_least_norm"), ("rule",)),
        coords={"rule": list(lanes.SEPARABLE_RULES)},
    )
    return {"ravine": ravine, "rosenbrock": rosenbrock, "separable": separable}


_CURVES = tuple(f"{split}_{metric}" for split in ("train", "validation", "test") for metric in ("loss", "error"))


def _trained_sweeps(config: Config, key: Any) -> dict[str, partial]:
    examples = _examples(config)
    steps = config.epochs * -(-config.train_n // config.batch)
    found = {}
    for name, axis, count, choose, rates, seeds, evaluations in (
        ("rates", "rule", len(lanes.TRAINED_RULES), lanes.chosen_rule, config.rates, config.rates_seeds, 4),
        (
            "schedules", "schedule", len(lanes.SCHEDULES), lanes.chosen_schedule, config.schedule_rates,
            config.schedule_seeds, 20,
        ),
    ):  # fmt: skip
        training = TrainConfig(steps=steps, batch_size=config.batch, evaluate_every=max(1, steps // evaluations))
        lane = partial(
            lanes.training_lane,
            choose=choose,
            hidden=config.hidden,
            sizes=(config.train_n, config.validation_n),
            steps=steps,
            config=training,
        )
        found[name] = partial(
            sweep,
            lane,
            {axis: range(count), "rate": rates, "seed": range(seeds)},
            key=jax.random.fold_in(key, 4),
            data=examples,
            name=name,
            width=_side(),
            dims=dict.fromkeys(_CURVES, ("evaluation",)) | {"test_wrong": ("example",)},
        )
    return found


def sweeps(config: Config) -> dict[str, partial]:
    """The study's sweeps by name, each ready to be called (or planned)."""
    key = jax.random.key(config.seed)
    encoder = partial(
        sweep,
        partial(lanes.encoder_lane, bits=10, hidden=5, epochs=config.encoder_epochs),
        {"seed": range(config.encoder_seeds)},
        key=jax.random.fold_in(key, 5),
        name="encoder",
        width=100,
        dims={"epochs": ("rule",)},
        coords={"rule": list(lanes.ENCODER_RULES)},
    )
    return {**_exact_sweeps(config, key), "encoder": encoder, **_trained_sweeps(config, key)}


def run(config: Config, *, store: Callable[[str], Store] | None = None, monitor: Monitor | None = None) -> xr.DataTree:
    """Compute every panel; ``store(name)`` keeps a panel's finished chunks. Returns a group a panel."""
    import xarray as xr

    groups = {}
    for name, call in sweeps(config).items():
        groups[name] = call(store=store(name) if store else None, monitor=monitor)
    groups["ravine"] = _with_ravine_theory(groups["ravine"], config)
    points = list(lanes.rosenbrock_points(config.rosenbrock_steps))
    groups["rosenbrock"] = groups["rosenbrock"].assign_coords(point=points)
    groups["rosenbrock"].attrs |= {"bound": config.rosenbrock_steps, "threshold": config.rosenbrock_threshold}
    groups["encoder"].attrs["bound"] = config.encoder_epochs
    groups["rates"] = groups["rates"].assign_coords(rule=list(lanes.TRAINED_RULES))
    groups["schedules"] = groups["schedules"].assign_coords(schedule=list(lanes.SCHEDULES))
    for name in ("rates", "schedules"):
        groups[name].attrs |= {
            "data": config.data, "n": config.train_n, "validation_n": config.validation_n, "epochs": config.epochs
        }  # fmt: skip
    groups["generalization"] = chosen_by_validation(groups["rates"], "rule")
    groups["schedules_chosen"] = chosen_by_validation(groups["schedules"], "schedule")
    for name in ("rates", "schedules"):  # test example by test example it is needed at the chosen rates alone
        groups[name] = groups[name].drop_vars("test_wrong")
    shares = groups["separable"]["share"].values
    theory = np.stack([separable_error(rule, shares) for rule in lanes.SEPARABLE_RULES], axis=1)
    groups["separable"] = groups["separable"].assign(theory=(("share", "rule"), theory))
    return xr.DataTree.from_dict(groups, name="optimizers")


def _with_ravine_theory(found: xr.Dataset, config: Config) -> xr.Dataset:
    curvatures, momentum, steps = np.asarray(config.ravine_curvatures), config.ravine_momentum, config.ravine_steps
    theory = [
        [ravine_path(rule, rate, curvatures, momentum, steps) for rule in lanes.RAVINE_RULES]
        for rate in found["rate"].values
    ]
    found = found.assign(theory=(found["path"].dims, np.asarray(theory)))
    return found.assign_attrs(rate=config.ravine_rate, momentum=momentum, curvatures=list(config.ravine_curvatures))


def chosen_by_validation(found: xr.Dataset, axis: str) -> xr.Dataset:
    """For each value of ``axis`` the runs at the rate of least mean validation error at the end; test data unseen."""
    end = found.isel(evaluation=-1)
    best = end["validation_error"].mean("seed").argmin("rate")
    return end.isel(rate=best).assign(at_edge=(best == 0) | (best == found.sizes["rate"] - 1))


def main(argv: list[str] | None = None) -> int:
    """The command line: see ``--help``."""
    return command.main("experiments.optimizers", argv)


if __name__ == "__main__":
    sys.exit(main())
