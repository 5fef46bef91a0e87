"""When do changed pictures teach a net more? Shifts, turns, zooms, mirrors, elastic and light, from none to too much.

At every update each training picture is drawn anew with a random change that should keep its label. A small
convolutional net is trained with each change alone and with all of them, at strengths from none to far too much,
on few and on many pictures.

Panels
  augmentation  Test error against the strength of each change, for every number of training pictures n.
  examples      Test error against n, each change at the strength chosen on validation pictures, beside none.
  invariance    Test error on turned, moved and mirrored pictures; 6 taken for 9 where turning makes one of the other.
  pictures      One picture under every change and strength.

Falsifiable check: at the smallest n each change, its strength chosen on validation pictures, must lower the test error
against the same seeds without it (the paired interval excludes zero); the gain of all of them must be smaller at the
largest n; what was shown moved must be known when moved; and what does not keep labels must hurt: for digits, mirroring
every other picture, and turning by up to 180 degrees, which makes 9 of 6. What fails is reported as failing.

What is random: a seed draws the training pictures from a pool, the weights, the order and the changes; all arms share
them. Validation pictures are the same for all n, and more than the smallest n would leave in practice. Every arm gets
the same number of updates. Intervals are over seeds, with validation and test pictures fixed.

Deviations from the published protocols: few pictures and few updates; the published numbers in the report are of all of
MNIST and larger nets (direction only). Digits of 8 x 8 pixels get an empty rim of 2 pixels, to have room to move.
Beyond a picture's edge it is black, for CIFAR-10 its last pixel.

Sources: Simard, Steinkraus and Platt (2003); Ciresan et al. (2010); Krizhevsky, Sutskever and Hinton (2012); Shorten
and Khoshgoftaar (2019).
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from experiments import _augmentation_lanes as lanes
from experiments import command
from experiments._augmentation_figures import plot
from experiments._augmentation_report import report
from nnjax.data import load, stratified_split
from nnjax.naming import choose
from nnjax.sweep import sweep
from nnjax.train import Config as TrainConfig

if TYPE_CHECKING:
    import xarray as xr

    from nnjax.monitor import Monitor
    from nnjax.sweep import Store

__all__ = ["PRESETS", "Config", "main", "plot", "report", "run", "sweeps"]

_RIMS = {"digits": 2, "mnist": 0, "fashion_mnist": 0, "cifar10": 0}
"""Empty pixels put round a picture, by data set."""


@dataclass(frozen=True)
class Config:
    """What is studied; sizes are numbers of pictures, units or updates."""

    seed: int = 0
    """Seed of everything."""
    data: str = "digits"
    """Data set: digits, mnist, fashion_mnist, cifar10."""
    seeds: int = 7
    """Seeds of every net."""
    n: tuple[int, ...] = (20, 100, 1000)
    """Training pictures, ascending divisors of the last."""
    strengths: tuple[float, ...] = (0.125, 0.375, 1.0)
    """Strengths, ascending, 1 at most: a shift of a quarter of the side, any turn, a factor of 2, every other picture
    mirrored, a field of an eighth of the side, contrast from none to double."""
    features: tuple[int, ...] = (8, 16)
    """Channels of the convolutions, 3 x 3, each followed by a pool of 2 x 2."""
    hidden: tuple[int, ...] = (32,)
    """Hidden units after them."""
    steps: int = 300
    """Updates."""
    batch: int = 20
    """Pictures an update."""
    learning_rate: float = 0.005
    """Learning rate (Adam), falling to zero."""
    validation_n: int = 400
    """Validation pictures; strengths are chosen by them alone."""
    test_n: int = 359
    """Test pictures, or all there are."""
    moved_n: int = 100
    """Of those, the ones that are turned, moved and mirrored."""

    def __post_init__(self) -> None:
        command.check_numbers(self, {
            "seed": 0, "seeds": 2, "n": 10, "strengths": 0, "steps": 1, "batch": 1, "learning_rate": 0,
            "validation_n": 10, "test_n": 10, "moved_n": 1,
        })  # fmt: skip
        choose("data", self.data, list(_RIMS))
        for name in ("features", "hidden"):
            if not getattr(self, name) or not all(1 <= size < 2**31 for size in getattr(self, name)):
                raise ValueError(f"{name}={getattr(self, name)} must be one size at least, all positive, below 2^31")
        if len(self.n) < 2 or any(self.n[-1] % n for n in self.n):
            raise ValueError(f"n={self.n} must be two numbers at least that all divide the last")
        if self.strengths[0] <= 0 or self.strengths[-1] > 1 or len(self.strengths) < 2:
            raise ValueError(f"strengths={self.strengths} must be two at least, above 0 and up to 1")
        if self.batch > self.n[-1]:
            raise ValueError(f"batch={self.batch} must be at most {self.n[-1]}, the training pictures")


_QUICK = Config()
_STANDARD = replace(
    _QUICK, data="mnist", seeds=5, n=(20, 100, 500, 5000), strengths=(0.125, 0.25, 0.5, 1.0),
    hidden=(64,), steps=600, batch=32, learning_rate=0.003, validation_n=1000, test_n=2000, moved_n=500,
)  # fmt: skip
PRESETS = {
    "quick": _QUICK,
    "standard": _STANDARD,
    "full": replace(
        _STANDARD, n=(20, 100, 500, 5000, 50_000), strengths=(0.0625, 0.125, 0.25, 0.5, 1.0), seeds=10,
        features=(20, 50), hidden=(500,), steps=20_000, batch=50, learning_rate=0.001, validation_n=5000, test_n=10_000,
        moved_n=2000,
    ),
}  # fmt: skip


# Data and sweep


def _examples(config: Config) -> dict[str, np.ndarray]:
    """Pool, validation and test pictures, the pool's order by seed, and the tables that lanes look up."""
    dataset = load(config.data)
    pool, most = config.n[-1], len(dataset.train.y)
    if pool + config.validation_n > most:
        raise command.BadInput(
            f"n={pool} and validation_n={config.validation_n} are more than the {most} training pictures of "
            f"{config.data}"
        )
    train, validation = stratified_split(dataset.train.y, [pool, config.validation_n], seed=config.seed)
    (test,) = stratified_split(dataset.test.y, [min(config.test_n, len(dataset.test.y))], seed=config.seed)
    rim = _RIMS[config.data]
    parts = {"train": (dataset.train, train), "validation": (dataset.train, validation), "test": (dataset.test, test)}
    found: dict[str, np.ndarray] = {}
    for split, (whole, index) in parts.items():
        found[f"x_{split}"] = np.pad(np.asarray(whole.x[index], np.float32), ((0, 0), (rim, rim), (rim, rim), (0, 0)))
        found[f"y_{split}"] = np.asarray(whole.y[index])
    side = found["x_test"].shape[1]
    return found | {
        "order": _orders(found["y_train"], config),
        "classes": np.arange(len(dataset.class_names), dtype=np.int32),
        "arms": lanes.arms(config.strengths),
        "angles": np.linspace(-180, 180, 9, dtype=np.float32),
        "shifts": np.linspace(-side / 4, side / 4, 9, dtype=np.float32),
    }


def _orders(y: np.ndarray, config: Config) -> np.ndarray:
    """The pool's pictures in every seed's order (seeds, pool): the first n are a draw balanced over the classes."""
    orders = []
    for seed in range(config.seeds):
        random = np.random.default_rng([config.seed, seed])
        shuffled = random.permutation(len(y))
        # The first of every class, then the second of every class, and so on: few pictures hold all classes.
        rank = np.empty(len(y), int)
        for label in np.unique(y):
            mine = shuffled[y[shuffled] == label]
            rank[mine] = np.arange(len(mine))
        orders.append(shuffled[np.argsort(rank[shuffled], kind="stable")])
    return np.asarray(orders, np.int32)


def _fill(config: Config) -> str:
    return "nearest" if config.data == "cifar10" else "zeros"


def sweeps(config: Config) -> dict[str, partial]:
    """The one sweep, ready to be called (or planned)."""
    data = _examples(config)
    lane = partial(
        lanes.lane, most=config.n[-1], features=config.features, hidden=config.hidden, moved_n=config.moved_n,
        fill=_fill(config), learning_rate=config.learning_rate,
        config=TrainConfig(
            steps=config.steps, batch_size=config.batch, evaluate_every=config.steps, evaluation_batch=1000
        ),
    )  # fmt: skip
    axes: dict[str, Any] = {"arm": range(len(data["arms"])), "n": config.n, "seed": range(config.seeds)}
    return {
        "augmentation": partial(
            sweep, lane, axes, key=jax.random.fold_in(jax.random.key(config.seed), 0), data=data, name="augmentation",
            dims={"turned_error": ("angle",), "moved_error": ("shift",)},
            coords={"angle": data["angles"].tolist(), "shift": data["shifts"].tolist()},
        )
    }  # fmt: skip


def run(config: Config, *, store: Callable[[str], Store] | None = None, monitor: Monitor | None = None) -> xr.DataTree:
    """Train and test every net; ``store(name)`` keeps finished chunks.

    Returns the groups "augmentation", by kind, strength (0 first), n and seed, and "pictures".
    """
    import xarray as xr

    call = sweeps(config)["augmentation"]
    panel = call(store=store("augmentation") if store else None, monitor=monitor)
    place = lanes.as_axes(np.arange(panel.sizes["arm"]), len(config.strengths))
    panel = panel.drop_vars("arm").isel(arm=xr.DataArray(place, dims=("kind", "strength")))
    panel = panel.assign_coords(kind=list(lanes.KINDS), strength=[0.0, *config.strengths])
    x = call.keywords["data"]["x_test"]
    key = jax.random.fold_in(jax.random.key(config.seed), 1)
    shown = lanes.gallery(key, x[0], config.strengths, _fill(config))
    axes = ("row", "column", "channel")
    pictures = xr.Dataset(
        {"changed": (("kind", "strength", *axes), shown), "plain": (axes, x[0])},
        {"kind": list(lanes.KINDS), "strength": list(config.strengths)},
    )
    facts = {"data": config.data, "side": x.shape[1], "steps": config.steps, "batch": config.batch}
    panel.attrs |= facts
    pictures.attrs |= facts
    return xr.DataTree.from_dict({"augmentation": panel, "pictures": pictures}, name="augmentation")


def main(argv: list[str] | None = None) -> int:
    """The command line: see ``--help``."""
    return command.main("experiments.augmentation", argv)


if __name__ == "__main__":
    sys.exit(main())
