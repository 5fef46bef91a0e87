"""How far do LeNet and a small residual net come on digits, MNIST, Fashion-MNIST and CIFAR-10, and in what time?

The first nets to try on a new picture problem, trained as one would today (Nesterov momentum, a learning rate that
rises and falls once, augmentation inside the compiled step), with what one looks at afterwards.

Panels
  digits_lenet          8 x 8 digits. LeNet without loss of rim (padding "SAME") and with 3 x 3 kernels: the pictures
                        are too small for two 5 x 5 convolutions, and enlarged they would hold nothing more.
  digits_resnet         The same digits with a residual net of depth 8.
  mnist_lenet           LeNet (20 and 50 channels, 500 units).
  fashion_mnist_resnet  ResNet-20 for small pictures.
  cifar10_resnet        The same on color pictures; on a JPEG copy of them, which the report says, where the official
                        archive is not in the cache and the copy is.

Each shows learning curves, the confusion matrix, the surest mistakes, the first filters and feature maps.

Falsifiable check: LeNet reaches 99.2 % on MNIST with every seed, ResNet-20 92 % on Fashion-MNIST; the nets on digits
beat the nearest neighbor of the same training pictures, compared picture by picture; and no net's validation error ends
more than two hundredths above its least, on average over seeds. What fails is reported as failing.

What is random: a seed draws the weights, the order, the masks of dropout and the augmentation. Part of the training
pictures is held out for the curves; nothing is selected on it, and the test pictures are seen once, by the last
parameters. Intervals are over seeds where there are three or more, otherwise over test pictures (Clopper and Pearson).

A run keeps its state after an epoch, about twenty times in all; one that is killed goes on from there and ends with the
same numbers.

Deviations from the published protocols: far fewer epochs (He et al. train CIFAR-10 for 164), one cycle of the learning
rate, part of the training pictures held out.

Sources: LeCun et al. (1998); Xiao, Rasul and Vollgraf (2017); Krizhevsky (2009); He et al. (2016).
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments import _image_classification_training as training
from experiments import command
from experiments._image_classification_figures import plot
from experiments._image_classification_report import report
from nnjax import estimate, models
from nnjax.monitor import Monitor
from nnjax.naming import choose

if TYPE_CHECKING:
    import xarray as xr

    from nnjax.sweep import Store

__all__ = ["PRESETS", "Config", "main", "plans", "plot", "report", "run"]

PANELS = ("digits_lenet", "digits_resnet", "mnist_lenet", "fashion_mnist_resnet", "cifar10_resnet")


@dataclass(frozen=True)
class Config:
    """What is trained; sizes are numbers of pictures, epochs or channels."""

    seed: int = 0
    """Seed of everything."""
    panels: tuple[str, ...] = ("digits_lenet", "digits_resnet")
    """Which of the panels: digits_lenet, digits_resnet, mnist_lenet, fashion_mnist_resnet, cifar10_resnet."""
    digits_seeds: int = 3
    """Seeds of each net on digits."""
    digits_epochs: int = 40
    """Passes over the digits."""
    digits_batch: int = 32
    """Digits an update."""
    digits_depth: int = 8
    """Depth of the residual net for digits, 6n + 2."""
    mnist_seeds: int = 3
    """Seeds on MNIST."""
    mnist_epochs: int = 10
    """Passes over MNIST."""
    fashion_seeds: int = 1
    """Seeds on Fashion-MNIST."""
    fashion_epochs: int = 8
    """Passes over Fashion-MNIST."""
    cifar_seeds: int = 1
    """Seeds on CIFAR-10."""
    cifar_epochs: int = 5
    """Passes over CIFAR-10."""
    batch: int = 128
    """Pictures an update, but for digits."""
    features: tuple[int, ...] = (20, 50)
    """Channels of LeNet's stages."""
    hidden: tuple[int, ...] = (500,)
    """Units of LeNet's fully connected layers."""
    depth: int = 20
    """Depth of the residual net, 6n + 2."""
    width: int = 16
    """Channels of the residual net's first stage."""
    lenet_rate: float = 0.02
    """Largest learning rate of LeNet."""
    resnet_rate: float = 0.1
    """Largest learning rate of the residual net."""
    decay: float = 5e-4
    """L2 decay of all kernels."""
    validation_share: float = 0.05
    """Share of the training pictures that is held out for the curves."""
    train_n: int = 60_000
    """Training pictures of a data set, at most, the held-out among them."""
    test_n: int = 10_000
    """Test pictures, at most."""

    def __post_init__(self) -> None:
        least: dict[str, float] = dict.fromkeys(
            ("digits_seeds", "mnist_seeds", "fashion_seeds", "cifar_seeds", "digits_epochs", "mnist_epochs",
             "fashion_epochs", "cifar_epochs", "digits_batch", "batch", "width"), 1,
        )  # fmt: skip
        command.check_numbers(self, least | {
            "seed": 0, "digits_depth": 8, "depth": 8, "lenet_rate": 0, "resnet_rate": 0, "decay": 0,
            "validation_share": 0, "train_n": 100, "test_n": 20,
        })  # fmt: skip
        for size in (*self.features, *self.hidden):
            if size < 1:
                raise ValueError(f"features={self.features}, hidden={self.hidden} must be at least 1")
        if len(self.features) != 2:
            raise ValueError(f"features={self.features} must be two numbers, the channels of LeNet's two stages")
        if not self.panels or len(set(self.panels)) != len(self.panels):
            raise ValueError(f"panels={self.panels} must name at least one panel, each once")
        for panel in self.panels:
            choose("panel", panel, PANELS)
        for name in ("depth", "digits_depth"):
            if (getattr(self, name) - 2) % 6:
                raise ValueError(f"{name}={getattr(self, name)} must be 6n + 2: 8, 14, 20, ...")
        if not 0 < self.validation_share < 1:
            raise ValueError(f"validation_share={self.validation_share} must lie between 0 and 1")
        most = int(self.train_n * (1 - self.validation_share))
        used = {"digits_batch" if panel.startswith("digits") else "batch" for panel in self.panels}
        for name in sorted(used):
            if getattr(self, name) > most:
                raise ValueError(f"{name}={getattr(self, name)} must be at most {most}, the training pictures")


_QUICK = Config()
_STANDARD = replace(_QUICK, panels=PANELS)
PRESETS = {
    "quick": _QUICK,
    "standard": _STANDARD,
    "full": replace(
        _STANDARD, digits_seeds=10, mnist_seeds=10, mnist_epochs=30, fashion_seeds=5, fashion_epochs=100, cifar_seeds=5,
        cifar_epochs=164,
    ),
}  # fmt: skip


def panel_of(config: Config, name: str) -> training.Panel:
    """The panel of this name."""
    lenet = models.LeNet(features=config.features, hidden=config.hidden)
    small = lenet.clone(padding="SAME", kernel_size=3)
    resnet = models.CifarResNet(depth=config.depth, width=config.width)
    shallow = resnet.clone(depth=config.digits_depth)
    c, gentle = config, training.warp(0.5, 8.0, 0.05)
    of_lenet, of_resnet = (c.lenet_rate, c.decay, "Conv_0"), (c.resnet_rate, c.decay, "stem")
    digits = c.digits_seeds, c.digits_epochs, c.digits_batch
    panels = {
        "digits_lenet": ("digits", small, *digits, *of_lenet, gentle),
        "digits_resnet": ("digits", shallow, *digits, *of_resnet, gentle),
        "mnist_lenet": (
            "mnist", lenet, c.mnist_seeds, c.mnist_epochs, c.batch, *of_lenet, training.warp(2.0, 10.0, 0.1)
        ),
        "fashion_mnist_resnet": (
            "fashion_mnist", resnet, c.fashion_seeds, c.fashion_epochs, c.batch, *of_resnet, training.crop(2)
        ),
        "cifar10_resnet": ("cifar10", resnet, c.cifar_seeds, c.cifar_epochs, c.batch, *of_resnet, training.crop(4)),
    }  # fmt: skip
    return training.Panel(name, *panels[name])


def _prepared(config: Config) -> list[tuple[training.Panel, training.Pictures]]:
    """Every panel with its pictures; what is missing is said before anything is computed."""
    found: dict[str, training.Pictures] = {}
    made = []
    for name in config.panels:
        panel = panel_of(config, name)
        if panel.data not in found:
            found[panel.data] = training.pictures(
                panel.data, config.train_n, config.test_n, config.validation_share, config.seed
            )
        pictures = found[panel.data]
        if panel.batch > len(pictures.splits["train"][1]):
            raise command.BadInput(
                f"{panel.batch} pictures an update are more than the {len(pictures.splits['train'][1])} of {panel.data}"
            )
        made.append((panel, pictures))
    return made


# The plan


@dataclass(frozen=True)
class Plan:
    """What a panel will cost, as predicted."""

    name: str
    seeds: int
    epochs: int
    steps: int
    parameters: int
    compile_seconds: float
    run_seconds: float
    memory_bytes: int
    result_bytes: int

    def __str__(self) -> str:
        return (
            f"{self.name}: {self.seeds} seeds of {self.epochs} epochs ({self.steps} updates), {self.parameters:,} "
            f"parameters, about {self.compile_seconds:.0f} s compiling, {self.run_seconds:.0f} s running, "
            f"{self.memory_bytes / 2**20:.0f} MiB of memory"
        )


_COMPILE_SECONDS = {"lenet": 6.0, "resnet": 25.0}
"""Of a panel's programs."""


def plans(config: Config) -> list[Plan]:
    """What every panel will cost."""
    return [_plan(panel, pictures) for panel, pictures in _prepared(config)]


def _plan(panel: training.Panel, pictures: training.Pictures) -> Plan:
    x, y = pictures.splits["train"]
    train = training.trainer(panel, pictures)
    batch = [jax.ShapeDtypeStruct((panel.batch, *leaf.shape[1:]), leaf.dtype) for leaf in (x, y)]
    params, stats = jax.eval_shape(train.network.init, jax.random.key(0), batch[0])

    def gradient(params: Any, stats: Any, x: Any, y: Any) -> Any:
        def loss(params: Any) -> Any:
            z, _ = train.network.apply(params, stats, x, key=jax.random.key(0), train=True)
            return train.loss(z, y).mean()

        return jax.grad(loss)(params)

    trace = jax.make_jaxpr(gradient)(params, stats, *batch)
    steps = -(-len(y) // panel.batch) * panel.epochs
    parameters = sum(leaf.size for leaf in jax.tree.leaves(params))
    seconds = estimate.work_of(trace).seconds(estimate.machine()) * steps * panel.seeds
    kind = panel.name.rpartition("_")[2]
    return Plan(
        panel.name, panel.seeds, panel.epochs, steps, parameters, _COMPILE_SECONDS[kind],
        seconds / (jax.local_device_count() if jax.default_backend() == "cpu" else 1),
        estimate.peak_bytes(trace), panel.seeds * 8 * parameters,
    )  # fmt: skip


# The run


def run(config: Config, *, store: Callable[[str], Store] | None = None, monitor: Monitor | None = None) -> xr.DataTree:
    """Train and measure every panel; ``store(name)`` keeps what is done. Returns a group a panel."""
    import xarray as xr

    monitor = monitor or Monitor()
    groups = {}
    for panel, pictures in _prepared(config):
        key = jax.random.fold_in(jax.random.key(config.seed), PANELS.index(panel.name))
        groups[panel.name] = _group(panel, pictures, key, store(panel.name) if store is not None else None, monitor)
    return xr.DataTree.from_dict(groups, name="image_classification")


def _group(
    panel: training.Panel, pictures: training.Pictures, key: Any, store: Store | None, monitor: Monitor
) -> xr.Dataset:
    """Every seed of a panel, from the store or trained, as one dataset."""
    found: list[dict[str, Any]] = []
    shown: dict[str, Any] = {}
    programs, clock = training.Programs(panel, pictures, monitor), training.Clock(store)
    monitor.begin(panel.name, _plan(panel, pictures).run_seconds)
    for seed in range(panel.seeds):
        arrays = store.load(f"seed{seed}") if store is not None else None
        if arrays is None:
            own = jax.random.fold_in(key, seed)
            name = f"seed{seed}-state"
            state, course = training.trained(programs, panel.epochs, own, name, store, clock, monitor)
            start = time.perf_counter()
            arrays = training.measured(programs, pictures, state, course)
            if seed == 0:
                arrays |= {f"shown {name}": value for name, value in training.drawn(panel, pictures, state).items()}
            spent = time.perf_counter() - start
            monitor.spend("run", spent)
            monitor.count("chunks")
            if store is not None:  # the epochs' own seconds are the clock's
                store.save(f"seed{seed}", arrays, {"lanes": 1, "seconds": spent})
        else:
            monitor.count("resumed")
        shown |= {name[6:]: value for name, value in arrays.items() if name.startswith("shown ")}
        found.append({name: value for name, value in arrays.items() if not name.startswith("shown ")})
    monitor.end()
    seconds = np.stack([clock.of(f"seed{seed}-state", panel.epochs) for seed in range(panel.seeds)])
    return _labelled(panel, pictures, found, shown, seconds)


_DIMS = {
    "confusion": ("true", "said"),
    "test_wrong": ("picture",),
    "wrong": ("rank",),
    "wrong_said": ("rank",),
    "wrong_chance": ("rank",),
}


def _labelled(
    panel: training.Panel, pictures: training.Pictures, found: list[dict[str, Any]], shown: dict[str, Any],
    seconds: np.ndarray,
) -> xr.Dataset:  # fmt: skip
    import xarray as xr

    x, y = pictures.splits["test"]
    values: dict[str, Any] = {}
    for name in found[0]:
        stacked = np.stack([each[name] for each in found])
        own = _DIMS.get(name, ("epoch",) if stacked.ndim == 2 else ())
        values[name] = (("seed", *own), stacked)
    values["wrong_true"] = (("seed", "rank"), y[values["wrong"][1]])
    values["wrong_picture"] = (("rank", "row", "column", "channel"), x[values["wrong"][1][0]])
    values["seen"] = (("row", "column", "channel"), shown.pop("seen"))
    values["filters"] = (("filter", "filter_row", "filter_column", "filter_channel"), shown.pop("filters"))
    for number, (name, maps) in enumerate(shown.items()):
        values[name.replace(" ", "_")] = ((f"row{number}", f"column{number}", f"channel{number}"), maps)
    names = list(pictures.class_names)
    steps = -(-len(pictures.splits["train"][1]) // panel.batch)
    if panel.data == "digits":
        values["neighbor_wrong"] = (("picture",), nearest_neighbor_wrong(pictures))
    # Times are no results: they differ from run to run.
    facts = {
        "data": pictures.source, "net": _net(panel.model), "parameters": _plan(panel, pictures).parameters,
        "train_n": len(pictures.splits["train"][1]), "validation_n": len(pictures.splits["validation"][1]),
        "test_n": len(y), "batch": panel.batch, "steps_an_epoch": steps, "cores": jax.local_device_count(),
        "seconds": float(np.nansum(seconds)), "seconds_a_step": _middle(seconds) / steps,
    }  # fmt: skip
    labels = {"true": names, "said": names, "epoch": 1 + np.arange(panel.epochs), "seed": np.arange(panel.seeds)}
    return xr.Dataset(values, labels, facts)


def _middle(seconds: np.ndarray) -> float:
    """The median of the epochs whose time is known."""
    known = seconds[np.isfinite(seconds)]
    return float(np.median(known)) if known.size else math.nan


def _net(model: Any) -> str:
    return f"ResNet-{model.depth}" if isinstance(model, models.CifarResNet) else "LeNet"


def nearest_neighbor_wrong(pictures: training.Pictures) -> np.ndarray:
    """Whether the label of the nearest training picture, by Euclidean distance, is wrong: (test pictures,)."""
    (x, y), (at, true) = (pictures.splits[split] for split in ("train", "test"))
    rows, others = (jnp.asarray(each.reshape(len(each), -1), jnp.float32) for each in (x, at))
    distance = jnp.square(others).sum(1)[:, None] - 2 * others @ rows.T + jnp.square(rows).sum(1)[None]
    return y[np.asarray(distance.argmin(1))] != true


def main(argv: list[str] | None = None) -> int:
    """The command line: see ``--help``."""
    return command.main("experiments.image_classification", argv)


if __name__ == "__main__":
    sys.exit(main())
