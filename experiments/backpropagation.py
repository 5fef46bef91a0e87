"""Backpropagation by hand: does it equal automatic differentiation, and what do its batch forms and kin do?

Panels
  example         A 2-2-2 net with given weights over 10,000 updates: by hand, by automatic differentiation, and with
                  the common slip of taking the hidden deltas through output weights already updated. float64.
  agreement       Gradients by hand against autodiff, over depth, activation and precision.
  differences     Gradients by hand against central differences, over their step, with the error that theory predicts.
  batch_forms     Batch, mini-batch and online learning of digits for equally many epochs, from one code path.
  percolation,    Jurik's back-percolation 1 on XOR and the 8-5-8 encoder: epochs to solve them over many starts, and
  online          the same by online backpropagation.
  vanishing       Size of the first hidden layer's deltas over the last one's, by depth, against infinitely wide nets.
  symmetry        Hidden units that start equal, or almost equal.

Falsifiable checks: the gradient by hand equals autodiff's to 1e-12 (double) and 1e-5 (single
precision), relative; central differences are off by h^2 |D^3 f|/6 above the best step and by about eps |f|/h below it,
so on slopes 2 and -1; with a learning rate chosen for each form on validation data, smaller batches reach a lower
training loss in equally many epochs and a higher one in equally many updates; back-percolation solves XOR from at
least 18 of 20 starts and the 8-5-8 encoder from all; deltas shrink by the factor that theory gives for a layer; units
that start equal stay equal to the last bit. Measured, all hold but one: in equally many epochs online learning of
digits is not ahead of mini-batches of 32. The checks were stated before the first run; the report's tolerances for
slopes and for the deltas' factor were set after a trial run.

What is random: a seed draws weights, the data of agreement, differences and vanishing, and the order of the examples.
Every form of learning starts from the same weights. Backpropagation's learning rate and range of the start on XOR and
the encoder are chosen on the first twenty starts by median epochs; those starts are then left out of all comparisons.

Deviations and open points: the sources of back-percolation leave open coding, order and range of the starting weights.
Here: +-1 coding, tanh(x/2) units, fixed order, threshold 0.2, solved when every output is within 0.4 of its target; the
range s of U(-s, s)/fan_in is swept, and 4 was settled on after trial runs. (A reference run solved XOR from 19 of 20
starts, median 77 epochs; here s = 2 gives 94 % of 500 starts, median 77, and s = 4 gives 499 of 500, median 47.)
Backpropagation has tanh units, no momentum and a range of its own out of the same ones: comparisons say which rule is
faster from these starts, chosen for speed, not which is better from any start.

Sources: Rumelhart, Hinton and Williams (1986); Mazur (2015), A step by step backpropagation example; Wilson and
Martinez (2003), on batch and online training; Zell et al. (1998), the Stuttgart Neural Network Simulator; Schoenholz
et al. (2017).
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from experiments import command
from experiments._backpropagation_figures import plot
from experiments._backpropagation_lanes import (
    ACTIVATIONS,
    DIFFERENCES,
    PRECISIONS,
    agreement_lane,
    differences_lane,
    example_lane,
    forms_lane,
    online_lane,
    percolation_lane,
    symmetry_lane,
    updates_of,
    vanishing_lane,
)
from experiments._backpropagation_report import report
from nnjax.data import fit_standardizer, load, stratified_split
from nnjax.sweep import sweep
from nnjax.theory import mean_field
from nnjax.train import log_spaced_steps

if TYPE_CHECKING:
    import xarray as xr

    from nnjax.monitor import Monitor
    from nnjax.sweep import Store

__all__ = ["PRESETS", "Config", "main", "plot", "report", "run", "sweeps"]

_DATA = ("digits", "iris", "mnist", "fashion_mnist")
_FORMS = ("batch", "mini-batch", "online")
SELECTION = 20
"""Starts that choose backpropagation's learning rate on XOR and the encoder."""


@dataclass(frozen=True)
class Config:
    """What is studied."""

    seed: int = 0
    """Seed of everything."""
    example_updates: int = 10_000
    """Updates of the 2-2-2 example."""
    depths: tuple[int, ...] = (2, 4, 8)
    """Layers of weights in the agreement panel."""
    differences_depth: int = 4
    """Layers of weights in the differences panel."""
    agreement_width: int = 8
    """Units of each hidden layer in the agreement and differences panels."""
    agreement_seeds: int = 20
    """Random nets of the agreement and differences panels."""
    data: str = "digits"
    """Data set of the batch-forms panel: digits, iris, mnist, fashion_mnist."""
    train_n: int = 1000
    """Training examples of the batch-forms panel."""
    validation_n: int = 400
    """Validation examples, which choose the learning rates."""
    hidden: int = 32
    """Hidden units of the batch-forms net."""
    epochs: int = 20
    """Epochs of every form."""
    batch_size: int = 32
    """Examples an update in the mini-batch form."""
    rates: tuple[float, ...] = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
    """Learning rates that each form chooses from."""
    forms_seeds: int = 5
    """Seeds of the batch-forms panel."""
    starts: tuple[float, ...] = (1.0, 2.0, 4.0, 8.0)
    """Ranges s of the starting weights, U(-s, s)/fan_in; backpropagation chooses its own among them."""
    start: float = 4.0
    """The range of back-percolation where it is compared with backpropagation; one of starts."""
    percolation_seeds: int = 120
    """Starting weights of the percolation and online panels; the first 20 choose learning rates."""
    percolation_epochs: int = 500
    """Epochs within which XOR and the encoder are to be solved."""
    online_rates: tuple[float, ...] = (0.05, 0.1, 0.15, 0.2, 0.3, 0.4)
    """Learning rates that online backpropagation chooses from on XOR and the encoder."""
    vanishing_depths: tuple[int, ...] = (2, 4, 6, 8, 10)
    """Hidden layers in the vanishing panel."""
    vanishing_width: int = 200
    """Units of each layer in the vanishing panel."""
    vanishing_seeds: int = 10
    """Random nets of the vanishing panel."""
    spreads: tuple[float, ...] = (0.0, 1e-9, 1e-6, 1e-3)
    """Differences between hidden units at the start of the symmetry panel."""
    symmetry_epochs: int = 1000
    """Epochs of the symmetry panel."""

    def __post_init__(self) -> None:
        command.check_numbers(self, _LEAST)
        if self.data not in _DATA:
            raise ValueError(f"data={self.data!r} must be among {', '.join(_DATA)}")
        if self.start not in self.starts:
            raise ValueError(f"start={self.start:g} must be one of starts={self.starts}")
        if self.batch_size >= self.train_n:
            raise ValueError(f"batch_size={self.batch_size} must be below train_n={self.train_n}")
        for name in ("starts", "rates", "online_rates"):
            if getattr(self, name)[0] <= 0:
                raise ValueError(f"{name}={getattr(self, name)} must be positive")


_LEAST: dict[str, float] = {
    "seed": 0, "example_updates": 10, "depths": 2, "differences_depth": 2, "agreement_width": 1, "agreement_seeds": 2,
    "train_n": 2, "validation_n": 1, "hidden": 1, "epochs": 2, "batch_size": 1, "rates": 0, "forms_seeds": 2,
    "starts": 0, "percolation_seeds": SELECTION + 2, "percolation_epochs": 1, "online_rates": 0, "vanishing_depths": 2,
    "vanishing_width": 2, "vanishing_seeds": 2, "spreads": 0, "symmetry_epochs": 1,
}  # fmt: skip

_QUICK = Config()
PRESETS = {
    "quick": _QUICK,
    "standard": replace(
        _QUICK,
        depths=(2, 4, 8, 16),
        agreement_seeds=50,
        hidden=64,
        epochs=60,
        rates=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0),
        forms_seeds=20,
        percolation_seeds=520,
        online_rates=(0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.6, 0.8, 1.2),
        vanishing_width=400,
        vanishing_seeds=50,
    ),
    "full": replace(
        _QUICK,
        depths=(2, 4, 8, 16),
        agreement_seeds=200,
        data="mnist",
        train_n=10_000,
        validation_n=2000,
        hidden=128,
        epochs=60,
        rates=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0),
        forms_seeds=20,
        percolation_seeds=1020,
        online_rates=(0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.6, 0.8, 1.2),
        vanishing_width=1000,
        vanishing_seeds=50,
    ),
}


# Data and sweeps


def _examples(config: Config) -> dict[str, np.ndarray]:
    """Training, validation and test examples of the batch-forms panel, standardized by the training part."""
    dataset = load(config.data)
    have = len(dataset.train.x)
    if config.train_n + config.validation_n > have:
        raise command.BadInput(
            f"train_n={config.train_n} and validation_n={config.validation_n} are more than the {have} training "
            f"examples of {config.data}"
        )
    parts = stratified_split(dataset.train.y, [config.train_n, config.validation_n], seed=config.seed)
    split = {"train": parts[0], "validation": parts[1]}
    arrays = {name: (dataset.train.x[index], dataset.train.y[index]) for name, index in split.items()}
    arrays["test"] = (dataset.test.x, dataset.test.y)
    scale = fit_standardizer(arrays["train"][0].reshape(config.train_n, -1))
    found: dict[str, np.ndarray] = {"classes": np.arange(len(dataset.class_names))}
    for name, (x, y) in arrays.items():
        found |= {f"x_{name}": np.asarray(scale(x.reshape(len(x), -1))), f"y_{name}": np.asarray(y)}
    return found


def _exact_sweeps(config: Config, key: Any) -> dict[str, partial]:
    marks = log_spaced_steps(config.example_updates, 60)
    marks = tuple(sorted({*marks, config.example_updates - 1}))
    names = [f"{rule}_{what}" for rule in ("hand", "autodiff", "slip") for what in ("loss", "output", "parameters")]
    own = {"loss": ("update",), "output": ("update", "unit"), "parameters": ("update", "parameter")}
    example = partial(
        sweep,
        partial(example_lane, marks=marks),
        {"biases": (0.0, 1.0)},
        key=key,
        name="example",
        float64=True,
        dims={name: own[name.partition("_")[2]] for name in names},
        coords={"update": list(marks)},
    )
    agreement = partial(
        sweep,
        partial(agreement_lane, width=config.agreement_width),
        {"depth": config.depths, "seed": range(config.agreement_seeds)},
        key=jax.random.fold_in(key, 1),
        name="agreement",
        static=("depth",),
        float64=True,
        width=1,
        dims={"gap": ("activation", "precision")},
        coords={"activation": list(ACTIVATIONS), "precision": list(PRECISIONS)},
    )
    differences = partial(
        sweep,
        partial(differences_lane, depth=config.differences_depth, width=config.agreement_width),
        {"seed": range(config.agreement_seeds)},
        key=jax.random.fold_in(key, 1),
        name="differences",
        float64=True,
        width=1,
        dims=dict.fromkeys(("measured", "predicted"), ("activation", "step")),
        coords={"activation": list(ACTIVATIONS), "step": list(DIFFERENCES)},
    )
    return {"example": example, "agreement": agreement, "differences": differences}


def _learning_sweeps(config: Config, key: Any) -> dict[str, partial]:
    curves = ("train_loss", "validation_loss", "test_loss", "validation_error", "test_error")
    forms = partial(
        sweep,
        partial(forms_lane, size=config.batch_size, hidden=config.hidden, epochs=config.epochs),
        {"form": _FORMS, "rate": config.rates, "seed": range(config.forms_seeds)},
        key=jax.random.fold_in(key, 2),
        data=_examples(config),
        name="batch_forms",
        static=("form",),
        dims=dict.fromkeys(curves, ("mark",)),
    )
    problems = ("xor", "encoder")
    percolation = partial(
        sweep,
        partial(percolation_lane, epochs=config.percolation_epochs),
        {"problem": problems, "start": config.starts, "seed": range(config.percolation_seeds)},
        key=jax.random.fold_in(key, 3),
        name="percolation",
        static=("problem",),
        width=256,  # so small are these nets that hundreds of lanes cost as much as one
    )
    online = partial(
        sweep,
        partial(online_lane, epochs=config.percolation_epochs),
        {
            "problem": problems, "start": config.starts, "rate": config.online_rates,
            "seed": range(config.percolation_seeds),
        },
        key=jax.random.fold_in(key, 3),
        name="online",
        static=("problem",),
        width=256,
    )  # fmt: skip
    return {"batch_forms": forms, "percolation": percolation, "online": online}


def _signal_sweeps(config: Config, key: Any) -> dict[str, partial]:
    vanishing = partial(
        sweep,
        partial(vanishing_lane, depths=config.vanishing_depths, width=config.vanishing_width, n=64),
        {"seed": range(config.vanishing_seeds)},
        key=jax.random.fold_in(key, 4),
        name="vanishing",
        dims={"ratio": ("activation", "depth")},
        coords={"activation": list(ACTIVATIONS), "depth": list(config.vanishing_depths)},
    )
    symmetry = partial(
        sweep,
        partial(symmetry_lane, epochs=config.symmetry_epochs),
        {"spread": config.spreads},
        key=jax.random.fold_in(key, 5),
        name="symmetry",
        float64=True,
        dims=dict.fromkeys(("distance", "loss"), ("epoch",)),
        coords={"epoch": list(range(config.symmetry_epochs + 1))},
    )
    return {"vanishing": vanishing, "symmetry": symmetry}


def sweeps(config: Config) -> dict[str, partial]:
    """Every panel's sweep, ready to be called (or planned)."""
    key = jax.random.key(config.seed)
    return _exact_sweeps(config, key) | _learning_sweeps(config, key) | _signal_sweeps(config, key)


def run(config: Config, *, store: Callable[[str], Store] | None = None, monitor: Monitor | None = None) -> xr.DataTree:
    """Compute every panel; ``store(name)`` keeps a panel's finished chunks. Returns a group a panel."""
    import xarray as xr

    groups = {}
    for name, call in sweeps(config).items():
        groups[name] = call(store=store(name) if store else None, monitor=monitor)
    updates = [updates_of(form, config.train_n, config.batch_size, config.epochs) for form in _FORMS]
    groups["batch_forms"] = groups["batch_forms"].assign(
        updates=(("form", "mark"), [marks for _, marks in updates]), examples=("form", [size for size, _ in updates])
    )
    groups["batch_forms"].attrs |= {"data": config.data, "n": config.train_n, "hidden": config.hidden}
    for name in ("percolation", "online"):
        groups[name].attrs |= {"start": config.start, "limit": config.percolation_epochs, "selection": SELECTION}
    groups["vanishing"] = groups["vanishing"].assign(
        theory=(("activation", "depth"), wide_ratio(config.vanishing_depths))
    )
    groups["vanishing"].attrs["width"] = config.vanishing_width
    return xr.DataTree.from_dict(groups, name="backpropagation")


def wide_ratio(depths: tuple[int, ...]) -> np.ndarray:
    """What `vanishing_lane` measures, in nets of infinite width (Schoenholz et al., 2017): (activations, depths).

    Weights of variance 1/width and inputs of variance 1 give net inputs N(0, q_l), q_1 = 1, q_{l+1} = E f(z_l)^2;
    every layer multiplies the deltas' mean square by E f'(z_l)^2.
    """
    table = []
    with jax.enable_x64(True):
        for name in ACTIVATIONS:
            lengths = mean_field.log_lengths(name, max(depths), 1.0)
            factors = mean_field.log_gradient_factors(name, lengths, 1.0)
            table.append([np.exp(np.sum(factors[: depth - 1]) / 2) for depth in depths])
    return np.array(table)


def main(argv: list[str] | None = None) -> int:
    """The command line: see ``--help``."""
    return command.main("experiments.backpropagation", argv)


if __name__ == "__main__":
    sys.exit(main())
