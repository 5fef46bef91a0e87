"""What keeps a net from memorizing? L1, L2, dropout, early stopping, batch norm, batch size and the textbook recipe.

A net with a hundred times more weights than examples gives back every label it was shown, the wrong ones too. Each
panel changes one thing and looks at clean test labels.

Panels
  l2, l1          A path of penalty strengths; L2 in both textbook conventions, L1 with the share of weights near zero.
  dropout         A path of rates (probability of dropping).
  early_stopping  Learning curves over epochs; the parameters of the least validation loss against the last ones.
  batch_norm      None, before, after the activation, at learning rates over four decades.
  batch_size      Online to full batch: after equal epochs, after equal updates, and at equal training loss.
  recipe          He, ELU, batch norm, dropout, Nesterov momentum, and every ablation of one ingredient.
  learning_curves Training and validation error against the number of examples, with and without a penalty.
  linear          Linear regression, where the penalty and the stopping time have exact solutions to lie on.

Falsifiable check: each remedy, its strength chosen on validation data, must lower the clean test error against the same
seeds without it (the paired interval excludes zero), and the diagnosis must tell over- from underfitting. What fails
is reported as failing. The linear panel must lie on the closed form, and its stopped risk under the bound of Ali et al.

What is random: a seed draws the training examples from a pool, the wrong labels (training and validation labels are
equally noisy, test labels are clean), the weights, the order and the masks; all arms of a seed share them. Inputs are
centered on the pool's mean and scaled to variance 1 over all pixels. Strengths, rates and learning rates are chosen for
each seed by validation cross-entropy, the error being coarse on few noisy labels; claims look at the test error there
alone. Intervals are over seeds, with the test set fixed. Ablations are judged by intervals that hold for all of them at
once (Bonferroni, 95 %).

Deviations from the published protocols: the data are small, nets have two to four hidden layers, and the published
numbers named in the report are other tasks' (direction only). "Near zero" is at most 1/1000 of the largest weight of
its matrix (of He's standard deviation where that is more). Sharpness is the Hessian's largest eigenvalue, where Keskar
et al. maximize the loss in a box.

Sources: Krogh and Hertz (1991); Tibshirani (1996); Srivastava et al. (2014); Prechelt (1998); Ioffe and Szegedy (2015);
Keskar et al. (2017); Geron (2017), table 11-2; Ali, Kolter and Tibshirani (2019).
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from experiments import _regularization_lanes as lanes
from experiments import command
from experiments._regularization_figures import plot
from experiments._regularization_report import report
from nnjax.data import load, stratified_split
from nnjax.sweep import sweep
from nnjax.train import Config as TrainConfig

if TYPE_CHECKING:
    import xarray as xr

    from nnjax.monitor import Monitor
    from nnjax.sweep import Store

__all__ = ["PRESETS", "Config", "main", "plot", "report", "run", "sweeps"]

_PICTURES = ("digits", "mnist", "fashion_mnist")


@dataclass(frozen=True)
class Config:
    """What is studied; sizes are numbers of examples, units or updates."""

    seed: int = 0
    """Seed of everything."""
    data: str = "digits"
    """Data set: digits, mnist, fashion_mnist."""
    n: int = 256
    """Training examples, but for the learning curves."""
    noise: float = 0.2
    """Share of training and validation labels replaced by wrong ones."""
    seeds: int = 5
    """Seeds of every panel that has no number of its own."""
    hidden: tuple[int, ...] = (128, 128)
    """Hidden units of the nets under penalties, dropout and early stopping."""
    steps: int = 1000
    """Updates of those nets."""
    batch: int = 32
    """Examples an update, but for the batch-size panel."""
    learning_rate: float = 0.01
    """Learning rate of those nets (Nesterov momentum 0.9), falling to zero but for early stopping."""
    l2: tuple[float, ...] = (0.0, 1e-4, 1e-3, 3e-3, 1e-2, 2e-2, 4e-2, 8e-2)
    """L2 strengths, ascending from 0."""
    l1: tuple[float, ...] = (0.0, 1e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2)
    """L1 strengths, ascending from 0."""
    dropout: tuple[float, ...] = (0.0, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8)
    """Probabilities of dropping a hidden unit, ascending from 0."""
    early_epochs: int = 150
    """Epochs of the early-stopping panel."""
    early_seeds: int = 10
    """Seeds of the early-stopping panel."""
    norm_hidden: tuple[int, ...] = (64, 64, 64, 64)
    """Hidden units of the batch-norm panel."""
    norm_steps: int = 400
    """Updates of the batch-norm panel."""
    norm_rates: tuple[float, ...] = (0.003, 0.01, 0.03, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8)
    """Learning rates of the batch-norm panel, ascending."""
    batch_hidden: tuple[int, ...] = (64, 64)
    """Hidden units of the batch-size panel."""
    batch_sizes: tuple[int, ...] = (1, 16, 256)
    """Batch sizes, ascending divisors of n; the last is n, full batch."""
    batch_epochs: int = 16
    """Epochs of the equal-epochs comparison."""
    batch_updates: int = 1024
    """Updates of the equal-updates comparison, a multiple of batch_epochs."""
    batch_rates: tuple[float, ...] = (0.0005, 0.002, 0.008, 0.03, 0.12, 0.5)
    """Learning rates that each batch size chooses from, ascending."""
    batch_loss: float = 0.1
    """Training cross-entropy of the equal-loss comparison, nats."""
    recipe_hidden: tuple[int, ...] = (64, 64, 64)
    """Hidden units of the recipe panel."""
    recipe_steps: int = 500
    """Updates of the recipe panel."""
    recipe_rates: tuple[float, ...] = (0.001, 0.004, 0.016, 0.06, 0.25)
    """Learning rates that each variant chooses from, ascending."""
    recipe_dropout: float = 0.5
    """Dropout of the recipe."""
    recipe_seeds: int = 8
    """Seeds of the recipe panel."""
    curve_n: tuple[int, ...] = (32, 64, 256, 1024)
    """Training examples of the learning curves, ascending divisors of the last."""
    curve_l2: tuple[float, ...] = (0.0, 1e-2, 3e-2, 1e-1)
    """L2 strengths of the learning curves, ascending from 0."""
    linear_n: int = 60
    """Examples of the linear panel."""
    linear_p: int = 20
    """Inputs of the linear panel."""
    linear_noise: float = 1.0
    """Variance of the linear panel's target noise; the signal's is 1."""
    linear_draws: int = 50
    """Independent data sets of the linear panel."""
    validation_n: int = 400
    """Validation examples; strengths and rates see these alone."""
    test_n: int = 2000
    """Test examples, or all there are."""

    def __post_init__(self) -> None:
        _check_numbers(self)
        if self.data not in _PICTURES:
            raise ValueError(f"data={self.data!r} must be among {', '.join(_PICTURES)}")
        if not 0 < self.noise < 1:
            raise ValueError(f"noise={self.noise} must lie between 0 and 1, or there is nothing wrong to memorize")
        for name in ("l2", "l1", "dropout", "curve_l2"):
            if getattr(self, name)[0] != 0:
                raise ValueError(f"{name}={getattr(self, name)} must begin with 0, the net without it")
        if max(*self.dropout, self.recipe_dropout) >= 1:
            raise ValueError(f"dropout={self.dropout}, recipe_dropout={self.recipe_dropout} must be below 1")
        for name, most in (("batch", self.n), ("batch", self.curve_n[-1])):
            if getattr(self, name) > most:
                raise ValueError(f"{name}={getattr(self, name)} must be at most {most}, the training examples")
        if any(self.n % size for size in self.batch_sizes) or self.batch_sizes[-1] != self.n:
            raise ValueError(f"batch_sizes={self.batch_sizes} must divide n={self.n} and end with it")
        if self.batch_updates % self.batch_epochs:
            raise ValueError(f"batch_updates={self.batch_updates} must be a multiple of {self.batch_epochs} epochs")
        if any(self.curve_n[-1] % n for n in self.curve_n):
            raise ValueError(f"curve_n={self.curve_n} must all divide the last")


_LEAST: dict[str, float] = {
    "seed": 0, "n": 20, "seeds": 2, "hidden": 1, "steps": 10, "batch": 1, "learning_rate": 0, "l2": 0, "l1": 0,
    "dropout": 0, "early_epochs": 2, "early_seeds": 2, "norm_hidden": 1, "norm_steps": 10, "norm_rates": 0,
    "batch_hidden": 1, "batch_sizes": 1, "batch_epochs": 1, "batch_updates": 1, "batch_rates": 0, "batch_loss": 0,
    "recipe_hidden": 1, "recipe_steps": 10, "recipe_rates": 0, "recipe_dropout": 0, "recipe_seeds": 2, "curve_n": 20,
    "curve_l2": 0, "linear_n": 4, "linear_p": 1, "linear_noise": 0, "linear_draws": 2, "validation_n": 20, "test_n": 20,
}  # fmt: skip
_PAIRS = ("l2", "l1", "dropout", "norm_rates", "batch_sizes", "curve_n", "curve_l2")
_LAYERS = ("hidden", "norm_hidden", "batch_hidden", "recipe_hidden")


def _check_numbers(config: Config) -> None:
    """Every number in its range, every tuple of values ascending."""
    for name, least in _LEAST.items():
        values = getattr(config, name)
        for value in values if isinstance(values, tuple) else (values,):
            if not least <= value < 2**31:
                raise ValueError(f"{name}={value} must be at least {least:g} and below 2^31")
        if values == () or (name in _PAIRS and len(values) < 2):
            raise ValueError(f"{name}={values} must hold at least {'two values' if name in _PAIRS else 'one value'}")
        if isinstance(values, tuple) and name not in _LAYERS and list(values) != sorted(set(values)):
            raise ValueError(f"{name}={values} must be ascending, each value once")


_QUICK = Config()
PRESETS = {
    "quick": _QUICK,
    "standard": replace(
        _QUICK,
        data="fashion_mnist",
        n=1024,
        hidden=(256, 256),
        steps=3000,
        batch=64,
        learning_rate=0.003,
        l1=(0.0, 1e-5, 1e-4, 3e-4, 1e-3, 2e-3, 4e-3, 8e-3),
        early_seeds=20,
        early_epochs=100,
        norm_steps=1000,
        norm_rates=(0.001, 0.003, 0.01, 0.03, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4),
        batch_hidden=(64,),
        batch_sizes=(1, 8, 64, 1024),
        batch_updates=4096,
        batch_rates=(0.0001, 0.0005, 0.002, 0.008, 0.03, 0.12),
        recipe_hidden=(128, 128, 128),
        recipe_steps=1500,
        recipe_rates=(0.0002, 0.001, 0.004, 0.016, 0.06),
        recipe_seeds=10,
        curve_n=(64, 128, 256, 512, 1024, 2048, 4096),
        linear_draws=500,
        validation_n=1000,
    ),
    "full": replace(
        _QUICK,
        data="fashion_mnist",
        n=4096,
        seeds=20,
        hidden=(1024, 1024),
        steps=20_000,
        batch=64,
        learning_rate=0.003,
        early_seeds=20,
        early_epochs=200,
        l1=(0.0, 1e-5, 1e-4, 3e-4, 1e-3, 2e-3, 4e-3, 8e-3),
        norm_steps=4000,
        norm_rates=(0.001, 0.003, 0.01, 0.03, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4),
        batch_sizes=(1, 4, 16, 64, 256, 1024, 4096),
        batch_updates=16_384,
        batch_rates=(0.0001, 0.0005, 0.002, 0.008, 0.03, 0.12),
        recipe_hidden=(256, 256, 256, 256, 256),
        recipe_steps=10_000,
        recipe_rates=(0.0002, 0.001, 0.004, 0.016, 0.06),
        recipe_seeds=20,
        curve_n=(64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768),
        linear_draws=2000,
        validation_n=5000,
        test_n=10_000,
    ),
}


# Data and sweeps


def _examples(config: Config) -> dict[str, np.ndarray]:
    """Pool, validation and test pictures, flat, centered and scaled by the pool; and what each seed draws of them."""
    dataset = load(config.data)
    needed = max(config.n, config.curve_n[-1])
    pool = min(len(dataset.train.x) - config.validation_n, max(needed, 20_000))
    if needed > pool:
        raise command.BadInput(
            f"n={config.n} and curve_n={config.curve_n}: {needed} training examples are more than the {max(pool, 0)} "
            f"of {config.data} beside validation_n={config.validation_n}"
        )
    train, validation = stratified_split(dataset.train.y, [pool, config.validation_n], seed=config.seed)
    (test,) = stratified_split(dataset.test.y, [min(config.test_n, len(dataset.test.x))], seed=config.seed)
    flat = dataset.train.x.reshape(len(dataset.train.x), -1).astype(np.float32)
    # Pixels keep their relative sizes: one lit in a few pictures only would else be an outlier of many deviations.
    middle = flat[train].mean(axis=0)
    spread = np.std(flat[train] - middle)

    def scale(x: Any) -> np.ndarray:
        return (np.reshape(x, (len(x), -1)).astype(np.float32) - middle) / spread

    data: dict[str, Any] = {
        "x_train": scale(flat[train]), "y_train": dataset.train.y[train],
        "x_validation": scale(flat[validation]), "y_validation_clean": dataset.train.y[validation],
        "x_test": scale(dataset.test.x[test]), "y_test": dataset.test.y[test],
        "classes": np.arange(len(dataset.class_names), dtype=np.int32),
    }  # fmt: skip
    seeds = max(config.seeds, config.early_seeds, config.recipe_seeds)
    drawn = lanes.draw_examples(jax.random.fold_in(jax.random.key(config.seed), 0), data, config.noise, seeds)
    return data | drawn


def _path_sweeps(config: Config, shared: dict[str, Any]) -> dict[str, partial]:
    """The panels that follow one strength, and early stopping."""
    last = TrainConfig(steps=config.steps, batch_size=config.batch, evaluate_every=config.steps)
    net: dict[str, Any] = {
        "n": config.n,
        "hidden": config.hidden,
        "config": last,
        "learning_rate": config.learning_rate,
    }
    epochs = TrainConfig(epochs=config.early_epochs, batch_size=config.batch, select="validation_loss")
    curves = [f"{split}_{metric}" for split in ("train", "validation", "test") for metric in lanes.METRICS]
    lane, seeds = lanes.penalty_lane, range(config.seeds)
    l2 = partial(lane, kind="l2", **net), {"strength": config.l2, "per_sample": (0, 1), "seed": seeds}
    l1 = partial(lane, kind="l1", **net), {"strength": config.l1, "seed": seeds}
    dropout = partial(lane, kind="dropout", **net), {"rate": config.dropout, "seed": seeds}
    early = partial(lanes.early_stopping_lane, **(net | {"config": epochs})), {"seed": range(config.early_seeds)}
    return {
        "l2": partial(sweep, *l2, name="l2", **shared),
        "l1": partial(sweep, *l1, name="l1", **shared),
        "dropout": partial(sweep, *dropout, name="dropout", **shared),
        "early_stopping": partial(
            sweep, *early, name="early_stopping", **shared,
            dims=dict.fromkeys(curves, ("epoch",)), coords={"epoch": range(1, config.early_epochs + 1)},
        ),
    }  # fmt: skip


def _structure_sweeps(config: Config, shared: dict[str, Any]) -> dict[str, partial]:
    """The panels whose arms are different programs."""
    seeds = range(config.seeds)
    norm = partial(
        lanes.batch_norm_lane, n=config.n, hidden=config.norm_hidden,
        config=TrainConfig(steps=config.norm_steps, batch_size=config.batch, evaluate_every=config.norm_steps),
    )  # fmt: skip
    size = partial(
        lanes.batch_size_lane, n=config.n, hidden=config.batch_hidden, epochs=config.batch_epochs,
        updates=config.batch_updates, loss_level=config.batch_loss,
    )  # fmt: skip
    steps = TrainConfig(steps=config.recipe_steps, batch_size=config.batch, evaluate_every=config.recipe_steps)
    recipe = partial(
        lanes.recipe_lane, n=config.n, hidden=config.recipe_hidden, dropout=config.recipe_dropout, config=steps
    )
    arms = {"rate": config.recipe_rates, "seed": range(config.recipe_seeds)}
    equal = ("train_loss", "train_error", "validation_loss", "validation_error", "test_error")
    return {
        "batch_norm": partial(
            sweep, norm, {"normalize": ("none", "before", "after"), "rate": config.norm_rates, "seed": seeds},
            name="batch_norm", static=("normalize",), **shared,
        ),
        "batch_size": partial(
            sweep, size, {"batch": config.batch_sizes, "rate": config.batch_rates, "seed": seeds},
            name="batch_size", static=("batch",), **shared,
            dims=dict.fromkeys(equal, ("equal",)), coords={"equal": ["epochs", "updates", "loss"]},
        ),
        "recipe": partial(
            sweep, partial(recipe, normalize="before"), {"variant": range(len(lanes.VARIANTS)), **arms},
            name="recipe", **shared,
        ),
        "recipe_without_norm": partial(
            sweep, partial(recipe, normalize="none"), {"variant": (0,), **arms}, name="recipe_without_norm", **shared
        ),
    }  # fmt: skip


def sweeps(config: Config) -> dict[str, partial]:
    """Every panel's sweep, ready to be called (or planned)."""
    key = jax.random.key(config.seed)
    shared: dict[str, Any] = {"key": jax.random.fold_in(key, 1), "data": _examples(config)}
    curves = partial(
        lanes.learning_curve_lane, most=config.curve_n[-1], hidden=config.hidden, learning_rate=config.learning_rate,
        config=TrainConfig(steps=config.steps, batch_size=config.batch, evaluate_every=config.steps),
    )  # fmt: skip
    times = [lanes.LINEAR_RATE * step for step in lanes.linear_steps()]
    linear = partial(lanes.linear_lane, n=config.linear_n, p=config.linear_p, noise=config.linear_noise)
    return {
        "linear": partial(
            sweep, linear, {"seed": range(config.linear_draws)}, key=jax.random.fold_in(key, 2), name="linear",
            float64=True, width=1,
            dims={
                **dict.fromkeys(("ridge", "ridge_exact", "off"), ("strength",)),
                **dict.fromkeys(("stopped", "stopped_exact", "ridge_at_time"), ("time",)),
            },
            coords={"strength": list(lanes.LINEAR_STRENGTHS), "time": times},
        ),
        **_path_sweeps(config, shared),
        **_structure_sweeps(config, shared),
        "learning_curves": partial(
            sweep, curves, {"n": config.curve_n, "strength": config.curve_l2, "seed": range(config.seeds)},
            name="learning_curves", **shared,
        ),
    }  # fmt: skip


def run(config: Config, *, store: Callable[[str], Store] | None = None, monitor: Monitor | None = None) -> xr.DataTree:
    """Compute every panel; ``store(name)`` keeps a panel's finished chunks. Returns a group a panel."""
    import xarray as xr

    groups = {}
    for name, call in sweeps(config).items():
        groups[name] = call(store=store(name) if store else None, monitor=monitor)
    plain = groups.pop("recipe_without_norm")
    groups["recipe"] = xr.concat([groups["recipe"], plain], "variant", combine_attrs="drop").assign_coords(
        variant=[*lanes.VARIANTS, lanes.WITHOUT_NORM]
    )
    facts = {"data": config.data, "n": config.n, "noise": config.noise, "batch": config.batch}
    for dataset in groups.values():
        dataset.attrs |= facts
    groups["batch_size"].attrs["loss"] = config.batch_loss
    groups["linear"].attrs |= {"n": config.linear_n, "p": config.linear_p, "noise": config.linear_noise}
    return xr.DataTree.from_dict(groups, name="regularization")


def main(argv: list[str] | None = None) -> int:
    """The command line: see ``--help``."""
    return command.main("experiments.regularization", argv)


if __name__ == "__main__":
    sys.exit(main())
