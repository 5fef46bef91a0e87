"""Can a net tell spherules from other grains by a few hundred pictures? Augmentation, Bayesian search, feature maps.

The net was made for pictures of 141x141 pixels of micrometeorites and other dust. Those cannot be had; any folder of
class folders will do (``--data DIR``; 976 or any other number of pixels become ``size``). ``standard`` takes 397
photographs of ants and bees, ``quick`` pictures that are made up: round spherules and ragged grains on a dark ground.
With its three seeds quick is a smoke test: most of its intervals are wide.

Panels
  augmentation  No augmentation, geometric (shift, rotation, zoom, mirror, small deformation), geometric and color
                (brightness, contrast, saturation); learning curves on training and validation pictures.
  search        Bayesian search with Adam: learning rate, both dropouts and the strength of all augmentation, by the
                validation loss alone. The search's best net is trained anew with other seeds and meets the test
                pictures once: confusion matrix, what it gets wrong, first-layer filters, feature maps layer by layer.

Falsifiable check: both augmentations must lower the validation loss against none, seed by seed (the paired interval
excludes zero), and narrow the gap between training and validation; the best trial must beat the best arm's mean
validation loss; and the chosen net must beat naming the commonest class on the test pictures. What fails is reported
as failing.

What is random: a seed draws which pictures are for training and which for validation, the weights, the order, the masks
and the changes of the pictures; all arms of a seed share them. The test pictures are fixed and set apart before. The
best trial's validation loss is the least of many and so too low; the test error is not.

Deviations from the published study: its pictures are not published, so its accuracy is not comparable. The net is
scaled by ``width``; pictures are centered and scaled by channel; weights are He's; the rate falls to zero.

Sources: Krizhevsky et al. (2012), the net's plan; Simard, Steinkraus and Platt (2003), elastic deformation; Snoek et
al. (2012), Bayesian search; Zeiler and Fergus (2014), looking at feature maps.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from experiments import _micrometeorites_lanes as lanes
from experiments import command
from experiments._micrometeorites_figures import plot
from experiments._micrometeorites_pictures import MADE_UP, PHOTOGRAPHS, Pictures, pictures
from experiments._micrometeorites_report import report
from nnjax.data import stratified_split
from nnjax.search import Float, Found, search
from nnjax.sweep import Plan, plan, sweep
from nnjax.train import Config as TrainConfig

if TYPE_CHECKING:
    import xarray as xr

    from nnjax.monitor import Monitor
    from nnjax.sweep import Store

__all__ = ["PRESETS", "Config", "main", "plans", "plot", "report", "run"]

_LEAST_SIZE = 67  # of which the net's pools leave anything


@dataclass(frozen=True)
class Config:
    """What is studied; sizes are numbers of pictures, pixels or updates."""

    seed: int = 0
    """Seed of everything."""
    data: str = MADE_UP
    """Pictures: spherules (made up), hymenoptera (photographs of ants and bees), or a folder or .tar of yours in which
    each folder is a class; a folder with train and test (or val) in it keeps them apart."""
    size: int = 67
    """Height and width that pictures are brought to, at least 67."""
    width: float = 0.125
    """Share of the published channels and hidden units."""
    n: int = 400
    """Pictures for training and validation at most."""
    test_n: int = 200
    """Pictures for the test at most."""
    validation: float = 0.25
    """Share of the former that is for validation."""
    seeds: int = 3
    """Seeds of the augmentation panel, and of the chosen net."""
    steps: int = 160
    """Updates."""
    batch: int = 16
    """Pictures an update."""
    evaluations: int = 8
    """Evaluations along a run, a divisor of the updates."""
    learning_rate: float = 0.001
    """Learning rate (Adam), falling to zero, but for the search."""
    dropout: tuple[float, ...] = (0.3, 0.3)
    """Dropout of the two hidden layers, but for the search."""
    shift: float = 0.08
    """Largest shift, as a share of the side."""
    rotate: float = 30.0
    """Largest rotation, degrees."""
    zoom: float = 0.2
    """Largest zoom beyond 1."""
    elastic: float = 0.01
    """Small deformation, root mean square as a share of the side."""
    color: float = 0.2
    """Largest relative change of contrast and saturation, and of brightness in a range of 1."""
    trials: int = 8
    """Trials of the search."""
    trials_batch: int = 4
    """Trials at a time."""
    trials_seeds: int = 1
    """Runs of each trial, whose mean is looked at."""

    def __post_init__(self) -> None:
        least = {
            "seed": 0, "size": _LEAST_SIZE, "width": 0, "n": 8, "test_n": 8, "validation": 0, "seeds": 2, "steps": 1,
            "batch": 1, "evaluations": 1, "learning_rate": 0, "shift": 0, "rotate": 0, "zoom": 0, "elastic": 0,
            "color": 0, "trials": 2, "trials_batch": 1, "trials_seeds": 1,
        }  # fmt: skip
        command.check_numbers(self, least)
        if not 0 < self.width <= 4:
            raise ValueError(f"width={self.width} must be above 0 and at most 4")
        if not 0 < self.validation < 1:
            raise ValueError(f"validation={self.validation} must lie between 0 and 1")
        if len(self.dropout) != 2 or not all(0 <= rate < 1 for rate in self.dropout):
            raise ValueError(f"dropout={self.dropout} must be two probabilities below 1")
        if self.steps % self.evaluations:
            raise ValueError(f"steps={self.steps} must be a multiple of evaluations={self.evaluations}")
        if not self.data:
            raise ValueError(f"data is empty; give {MADE_UP}, {PHOTOGRAPHS}, or a folder or .tar of class folders")


_QUICK = Config()
_STANDARD = replace(
    _QUICK, data=PHOTOGRAPHS, size=141, width=0.25, n=10_000, test_n=10_000, steps=250, batch=32,
    evaluations=10, learning_rate=0.0003, trials=12,
)  # fmt: skip
PRESETS = {
    "quick": _QUICK,
    "standard": _STANDARD,
    "full": replace(_STANDARD, width=1.0, seeds=10, steps=3000, trials=60, trials_seeds=3),
}

SPACE = {
    "learning_rate": Float(1e-4, 1e-2, log=True),
    "dropout_0": Float(0.0, 0.8),
    "dropout_1": Float(0.0, 0.8),
    "strength": Float(0.0, 1.5),
}


# Data


def _data(config: Config, found: Pictures) -> dict[str, Any]:
    """Pictures for training and validation with each seed's choice of them; nothing of the test."""
    n = len(found.y)
    validation = max(len(found.classes), round(config.validation * n))
    if n - validation < config.batch:
        raise command.BadInput(
            f"batch={config.batch} is more than the {n - validation} training pictures of {config.data}"
        )
    drawn = [
        stratified_split(
            found.y, [n - validation, validation], seed=int(np.random.default_rng([config.seed, seed]).integers(2**31))
        )
        for seed in range(max(config.seeds, config.trials_seeds))
    ]
    channels = found.x.reshape(-1, 3) / 255
    return {
        "x": found.x, "y": found.y,
        **{name: np.stack([each[place] for each in drawn]).astype(np.int32)
           for place, name in enumerate(("train", "validation"))},
        "middle": channels.mean(axis=0).astype(np.float32),
        "spread": np.maximum(channels.std(axis=0), 1e-3).astype(np.float32),
    }  # fmt: skip


def _net(config: Config, classes: int) -> lanes.Net:
    training = TrainConfig(
        steps=config.steps, batch_size=config.batch, evaluate_every=config.steps // config.evaluations,
        evaluation_batch=config.batch,
    )  # fmt: skip
    return lanes.Net(
        config.width, classes, training, config.shift, config.rotate, config.zoom, config.elastic, config.color
    )


def _shown(found: Pictures) -> np.ndarray:
    """The first test picture of each class, of four at most."""
    first = [int(np.flatnonzero(found.y_test == label)[0]) for label in np.unique(found.y_test)[:4]]
    return found.x_test[first]


# What is computed


def _augmentation(config: Config, data: dict[str, Any], net: lanes.Net) -> partial:
    axes = {
        "arm": range(len(lanes.ARMS)), "learning_rate": (config.learning_rate,), "dropout_0": (config.dropout[0],),
        "dropout_1": (config.dropout[1],), "seed": range(config.seeds),
    }  # fmt: skip
    every = config.steps // config.evaluations
    curves = [f"{split}_{metric}" for split in ("train", "validation") for metric in lanes.METRICS]
    return partial(
        sweep, partial(lanes.arm_lane, net=net), axes, key=jax.random.fold_in(jax.random.key(config.seed), 1),
        data=data, name="augmentation", width=1, dims=dict.fromkeys(curves, ("step",)),
        coords={"step": range(every, config.steps + 1, every)},
    )  # fmt: skip


def _search(config: Config, data: dict[str, Any], net: lanes.Net, **shared: Any) -> Found:
    return search(
        partial(lanes.trial_lane, net=net), SPACE, sampler="bayesian", trials=config.trials, batch=config.trials_batch,
        key=jax.random.fold_in(jax.random.key(config.seed), 1), data=data, seeds=config.trials_seeds, name="search",
        width=1, **shared,
    )  # fmt: skip


def _chosen(
    config: Config, data: dict[str, Any], net: lanes.Net, hparams: dict[str, float], found: Pictures
) -> partial:
    """The chosen net, trained with every seed; the one look at the test pictures."""
    axes: dict[str, Any] = {name: (value,) for name, value in hparams.items()}
    layers = {
        f"maps_{place}": ("shown", f"row_{place}", f"column_{place}", f"map_{place}")
        for place in range(len(lanes.CHANNELS))
    }
    return partial(
        sweep, partial(lanes.chosen_lane, net=net), axes | {"seed": range(config.seeds)},
        # Other weights and orders than in the search, which has chosen by the luck of its own too.
        key=jax.random.fold_in(jax.random.key(config.seed), 2),
        data=data | {"x_test": found.x_test, "shown": _shown(found)}, name="chosen", width=1,
        dims={
            "probability": ("test", "class"),
            **dict.fromkeys(("kernel", "kernel_change"), ("kernel_row", "kernel_column", "color", "filter")), **layers,
        },
        coords={"class": list(found.classes)},
    )  # fmt: skip


def plans(config: Config) -> list[Plan]:
    """What every part will cost."""
    found = pictures(config.data, config.size, config.n, config.test_n, config.seed)
    data, net = _data(config, found), _net(config, len(found.classes))
    middle = {name: each.decode(0.5) for name, each in SPACE.items()}
    trials: dict[str, Any] = {name: (value,) for name, value in middle.items()}
    rates = [SPACE["learning_rate"].decode(u) for u in np.linspace(0, 1, config.trials)]
    calls = [_augmentation(config, data, net), _chosen(config, data, net, middle, found)]
    return [
        *(plan(*call.args, **call.keywords) for call in calls),
        plan(
            partial(lanes.trial_lane, net=net),
            trials | {"learning_rate": rates, "seed": range(config.trials_seeds)},
            key=jax.random.key(0), data=data, name="search", width=1,
        ),
    ]  # fmt: skip


def run(config: Config, *, store: Callable[[str], Store] | None = None, monitor: Monitor | None = None) -> xr.DataTree:
    """Compute every part; ``store(name)`` keeps what is finished. Returns a group a part, and one of pictures."""
    import xarray as xr

    found = pictures(config.data, config.size, config.n, config.test_n, config.seed)
    data, net = _data(config, found), _net(config, len(found.classes))

    def kept(name: str) -> dict[str, Any]:
        return {"store": store(name) if store is not None else None, "monitor": monitor}

    arms = _augmentation(config, data, net)(**kept("augmentation"))
    trials = _search(config, data, net, **kept("search"))
    chosen = _chosen(config, data, net, trials.best.hparams, found)(**kept("chosen"))
    single = [name for name in arms.dims if name in SPACE]
    groups = {
        "augmentation": arms.isel(dict.fromkeys(single, 0)).assign_coords(arm=list(lanes.ARMS)),
        "search": trials.table(),
        "chosen": chosen.isel(dict.fromkeys(SPACE, 0)).assign(y_test=("test", found.y_test)),
    }
    groups["pictures"] = _samples(config, net, found, groups["chosen"])
    for dataset in groups.values():
        dataset.attrs |= _facts(config, net, found, data)
    return xr.DataTree.from_dict(groups, name="micrometeorites")


def _facts(config: Config, net: lanes.Net, found: Pictures, data: dict[str, Any]) -> dict[str, Any]:
    params = jax.eval_shape(net.model().init, jax.random.key(0), np.zeros((1, config.size, config.size, 3), np.float32))
    return {
        "note": found.note, "classes": json.dumps(found.classes), "skipped": json.dumps(found.skipped),
        "size": config.size, "width": config.width, "train_n": data["train"].shape[1],
        "validation_n": data["validation"].shape[1], "parameters": sum(leaf.size for leaf in jax.tree.leaves(params)),
    }  # fmt: skip


def _samples(config: Config, net: lanes.Net, found: Pictures, chosen: xr.Dataset) -> xr.Dataset:
    """Pictures to look at: those whose feature maps are kept, augmented ones, and those got wrong by most."""
    import xarray as xr

    truth = chosen["probability"].mean("seed").values[np.arange(len(found.y_test)), found.y_test]
    worst = np.argsort(truth)[:8]
    first = _shown(found)[:2]
    key = jax.random.fold_in(jax.random.key(config.seed), 3)
    drawn = [
        np.asarray(lanes.changed(net, jax.random.fold_in(key, arm), np.repeat(first, 4, axis=0), *strengths))
        for arm, strengths in ((1, (1.0, 0.0)), (2, (1.0, 1.0)))
    ]
    place = ("row", "column", "color")
    return xr.Dataset(
        {
            "shown": (("shown", *place), _shown(found)),
            "first": (("picture", *place), first),
            "augmented": (
                ("way", "picture", "draw", *place),
                np.round(255 * np.stack(drawn)).astype(np.uint8).reshape(2, len(first), 4, *first.shape[1:]),
            ),
            "worst": (("rank", *place), found.x_test[worst]),
            "worst_class": ("rank", found.y_test[worst]),
            "worst_probability": ("rank", truth[worst]),
        },
        {"way": list(lanes.ARMS[1:])},
    )


def main(argv: list[str] | None = None) -> int:
    """The command line: see ``--help``."""
    return command.main("experiments.micrometeorites", argv)


if __name__ == "__main__":
    sys.exit(main())
