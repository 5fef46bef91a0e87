"""What is a net worth that has learned something else? Frozen, fine-tuned and from scratch, against the pictures shown.

A net that has learned one task is given another head for a second one. Its layers stay as they are (frozen), train on,
later and slower (fine-tuned), or are drawn anew (from scratch).

Panels
  digits       A small convolutional net learns the digits 0 to 4, then 5 to 9 from n pictures a class; its convolutions
               are frozen, or train later and slower. Frozen ones of a fresh draw tell apart what was learned from what
               the architecture gives.
  photographs  Ants against bees by MobileNet's features, which come from ImageNet: a head from zero, or from the rows
               of the net's own output for ant and bee; the last two pairs of convolutions trained on as well; the same
               architecture from scratch. Not in quick: it needs data files.
  known        What the pretrained net says of four photographs, and whether a bit of what is frozen ever moves.

Falsifiable check: with the fewest pictures, pretrained layers, frozen and fine-tuned, must beat scratch in test error,
and the frozen ones those of a fresh draw; with the most pictures fine-tuned layers must beat frozen ones (each: the
paired interval excludes zero). Frozen parameters must be equal bit by bit after training under weight decay. Of the
photographs a head on frozen features must know 93 % of those held back. What fails is reported as failing.

Quick is expected to fail with the fewest pictures, one a class: with ``--seed`` 0 frozen layers lose against scratch,
with 1 nothing is told apart. Its first task has 700 pictures of 8 x 8 pixels, and no gain over convolutions of a fresh
draw can be shown. Telling apart these digits turned and mirrored too, 40 classes, with all but the head frozen, lost as
well. What does hold in quick, with both: fine-tuned layers beat frozen ones with the most pictures (0.017 against 0.039
and 0.025 against 0.054), and no bit of what is frozen moves.

What is random: a seed draws the training pictures, balanced over the classes, the pretraining, the fresh layers, the
order. All arms of a seed share them. Intervals are over seeds, with the test pictures fixed.

What was chosen by what: each run chooses every arm's learning rate on digits by validation pictures. But the defaults
(sizes, rates, updates) were varied at seed 0 with its test errors in view; ``--seed 1`` was run once, afterwards. On
the photographs the crop, the pull of the weights to their start and the start at the net's own classes were chosen by
cross-validation on training photographs, with the accuracy on the 153 others in view beside it. There are no third
ones, so that accuracy is not untouched. It is judged as what it is, a share of these 153; what it says of new
photographs stands beside it.

The photographs come from ImageNet, on whose other (or the same) pictures MobileNet was trained, ants and bees among its
classes: their accuracy is optimistic. The same goes for the published numbers beside it, which are of ResNet-18.

Deviations: the published nets learned from a million pictures, those of the digits panel from 30,000, in quick from 700
of 8 x 8 pixels, which have not much to teach beyond the second task's own. On photographs fine-tuning trains the last
two of 13 pairs, those below being computed once; the net from scratch sees smaller pictures, mirrored and moved at
random, for longer. Both are to fit two CPU cores.

Sources: Donahue et al. (2014); Yosinski et al. (2014); Howard et al. (2017); Howard and Ruder (2018); Li, Grandvalet
and Davoine (2018).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from experiments import _transfer_learning_digits as digits
from experiments import _transfer_learning_photographs as photographs
from experiments import command
from experiments._transfer_learning_figures import plot
from experiments._transfer_learning_report import report
from nnjax import transfer
from nnjax.data import ImageFolder, load, load_images, stratified_split
from nnjax.naming import choose
from nnjax.results import ResultsError
from nnjax.sweep import Plan, plan, sweep
from nnjax.train import Config as TrainConfig
from nnjax.train import load as load_checkpoint

if TYPE_CHECKING:
    import xarray as xr

    from nnjax.monitor import Monitor
    from nnjax.sweep import Store

__all__ = ["PRESETS", "Config", "main", "plans", "plot", "report", "run", "sweeps"]

_CLASSES = 5
_PHOTOGRAPHS = ("none", "hymenoptera")


@dataclass(frozen=True)
class Config:
    """What is studied; sizes are numbers of pictures, pixels, units or updates."""

    seed: int = 0
    """Seed of everything."""
    data: str = "digits"
    """Data set of the digits panel: digits, mnist, fashion_mnist (whose classes take the digits' places)."""
    seeds: int = 8
    """Seeds of the digits panel."""
    n: tuple[int, ...] = (1, 4, 16, 64)
    """Training pictures a class of the second task, ascending divisors of the last."""
    rates: tuple[float, ...] = (0.005, 0.03)
    """Learning rates (AdamW) that each arm chooses from, ascending."""
    features: tuple[int, ...] = (8, 16)
    """Channels of the convolutions, 3 x 3, each followed by a pool of 2 x 2."""
    hidden: tuple[int, ...] = (32,)
    """Hidden units after them."""
    frozen: tuple[str, ...] = ("Conv_*",)
    """Patterns of the parameters that stay in the frozen arms; ! takes back what those before it chose."""
    checkpoint: str = ""
    """A net of nnjax.train.save to start from instead of pretraining one for every seed."""
    source_steps: int = 300
    """Updates of pretraining."""
    steps: int = 300
    """Updates of the second task."""
    batch: int = 20
    """Pictures an update."""
    unfreeze: int = 30
    """Updates after which fine-tuning trains more than the head."""
    slower: float = 0.3
    """Learning rate of fine-tuned layers, relative to the head's."""
    validation_n: int = 200
    """Validation pictures of the second task."""
    test_n: int = 2000
    """Test pictures of either task, or all there are."""
    photographs: str = "none"
    """Photographs: none, hymenoptera (ants and bees; it and MobileNet must lie in the data folder)."""
    photo_n: tuple[int, ...] = (2, 5, 20, 40, 120)
    """Photographs a class for a new head, ascending divisors of the last, 121 at most."""
    photo_seeds: int = 10
    """Seeds of the new head."""
    photo_steps: int = 300
    """Updates of the new head, of all photographs at once."""
    fine_n: tuple[int, ...] = (5, 20, 120)
    """Photographs a class for fine-tuning and from scratch, as photo_n."""
    fine_seeds: int = 3
    """Seeds of those."""
    fine_steps: int = 120
    """Updates of fine-tuning, of 16 photographs."""
    scratch_size: int = 96
    """Height and width of the photographs for the net from scratch."""
    scratch_steps: int = 200
    """Updates from scratch, of 16 photographs."""

    def __post_init__(self) -> None:
        command.check_numbers(self, {
            "seed": 0, "seeds": 2, "n": 1, "rates": 0, "source_steps": 1, "steps": 1, "batch": 1, "unfreeze": 0,
            "slower": 0, "validation_n": 10, "test_n": 10, "photo_n": 1, "photo_seeds": 2, "photo_steps": 1,
            "fine_n": 1, "fine_seeds": 2, "fine_steps": 1, "scratch_size": 32, "scratch_steps": 1,
        })  # fmt: skip
        choose("data", self.data, ["digits", "mnist", "fashion_mnist"])
        choose("photographs", self.photographs, list(_PHOTOGRAPHS))
        for name in ("features", "hidden"):
            if not getattr(self, name) or not all(1 <= size < 2**31 for size in getattr(self, name)):
                raise ValueError(f"{name}={getattr(self, name)} must be one size at least, all positive, below 2^31")
        for name in ("n", "photo_n", "fine_n"):
            values = getattr(self, name)
            if len(values) < 2 or any(values[-1] % n for n in values):
                raise ValueError(f"{name}={values} must be two numbers at least that all divide the last")
        for name in ("photo_n", "fine_n"):
            if getattr(self, name)[-1] > 121:
                raise ValueError(f"{name}={getattr(self, name)} must be at most 121, of which there are photographs")
        if self.batch > _CLASSES * self.n[-1]:
            raise ValueError(f"batch={self.batch} must be at most {_CLASSES * self.n[-1]}, the training pictures")
        if self.unfreeze >= self.steps:
            raise ValueError(f"unfreeze={self.unfreeze} must be less than steps={self.steps}")


_QUICK = Config()
_STANDARD = replace(
    _QUICK, data="mnist", n=(5, 20, 100, 500), rates=(0.002, 0.01), hidden=(64,), source_steps=1000, steps=500,
    batch=32, unfreeze=50, seeds=5, validation_n=1000, test_n=5000, photographs="hymenoptera",
)  # fmt: skip
PRESETS = {
    "quick": _QUICK,
    "standard": _STANDARD,
    "full": replace(
        _STANDARD, seeds=20, features=(16, 32), hidden=(128,), source_steps=5000, steps=3000, unfreeze=500,
        test_n=10_000, photo_seeds=30, fine_seeds=10, fine_steps=600, scratch_size=224, scratch_steps=3000,
    ),
}  # fmt: skip


# Digits


def _digits(config: Config) -> dict[str, Any]:
    """Pictures of both tasks, labels from 0, and the order in which a seed is shown those of the second."""
    dataset = load(config.data)
    found: dict[str, Any] = {"classes": np.arange(_CLASSES, dtype=np.int32)}
    for split, whole in (("train", dataset.train), ("test", dataset.test)):
        x, y = np.asarray(whole.x, np.float32), np.asarray(whole.y)
        first = y < _CLASSES
        at = "source" if split == "train" else "source_test"
        some = slice(None) if split == "train" else slice(config.test_n)
        found |= {f"x_{at}": x[first][some], f"y_{at}": y[first][some]}
        found |= {f"x_{split}": x[~first][some], f"y_{split}": y[~first][some] - _CLASSES}
    y = found["y_train"]
    pool = _CLASSES * config.n[-1]
    if min(np.bincount(y)) < config.n[-1] + config.validation_n / _CLASSES + 1:
        raise command.BadInput(
            f"n={config.n[-1]} a class and validation_n={config.validation_n} are more than the {len(y)} training "
            f"pictures of the second task of {config.data}"
        )
    train, validation = stratified_split(y, [len(y) - config.validation_n, config.validation_n], seed=config.seed)
    found |= {f"{name}_validation": found[f"{name}_train"][validation] for name in "xy"}
    found |= {f"{name}_train": found[f"{name}_train"][train] for name in "xy"}
    found["order"] = digits.orders(found["y_train"], config.seeds, config.seed)[:, :pool]
    model = digits.network_model(_CLASSES, config.features, config.hidden)
    try:
        start = _checkpoint(config, model, found["x_train"].shape[1:])
        _check_frozen(config, model, found["x_train"][:1])
    except (ValueError, ResultsError) as error:
        raise command.BadInput(str(error)) from None
    return found if start is None else found | {"start": start}


def _checkpoint(config: Config, model: Any, shape: Sequence[int]) -> Any:
    """The parameters to start from, or None."""
    if not config.checkpoint:
        return None
    saved = load_checkpoint(config.checkpoint)
    try:
        transfer.check_architecture(model, saved.params, saved.stats, shape)
    except ValueError as error:
        raise ValueError(f"--checkpoint {config.checkpoint}: {error}") from None
    return saved.params


def _check_frozen(config: Config, model: Any, x: np.ndarray) -> None:
    """Refuse patterns that match nothing, and those that leave the new head no training or the body all of it."""
    params = jax.eval_shape(model.init, jax.random.key(0), x)["params"]
    stays = transfer.chosen(params, config.frozen, name="frozen")
    body = {name: layer for name, layer in stays.items() if name != digits.HEAD}
    if any(jax.tree.leaves(stays[digits.HEAD])) or not any(jax.tree.leaves(body)):
        raise ValueError(
            f"frozen={config.frozen} must choose some of {', '.join(body)}, and nothing of the head, {digits.HEAD!r}"
        )


def _digits_sweep(config: Config, data: dict[str, Any]) -> partial:
    def steps(count: int) -> TrainConfig:
        return TrainConfig(steps=count, batch_size=config.batch, evaluate_every=count, evaluation_batch=1000)

    lane = partial(
        digits.lane, most=_CLASSES * config.n[-1], features=config.features, hidden=config.hidden,
        frozen=config.frozen, pretraining=steps(config.source_steps), pretraining_rate=0.005,
        config=steps(config.steps), unfreeze=config.unfreeze, slower=config.slower,
    )  # fmt: skip
    splits = ("train", "validation", "test")
    names = ["running_loss", *(f"{split}_{metric}" for split in splits for metric in digits.METRICS)]
    axes: dict[str, Any] = {"n": config.n, "rate": config.rates, "seed": range(config.seeds)}
    return partial(
        sweep, lane, axes, key=jax.random.fold_in(jax.random.key(config.seed), 0), data=data, name="digits",
        dims=dict.fromkeys([*names, "moved", "diverged"], ("arm",)), coords={"arm": list(digits.ARMS)},
    )  # fmt: skip


# Photographs


def _photograph_sweeps(
    config: Config, inputs: dict[str, Any], alpha: float, top: photographs.Top
) -> dict[str, partial]:
    """The three arms on photographs, of ``inputs`` as `_inputs` makes them."""
    key = jax.random.fold_in(jax.random.key(config.seed), 1)

    def steps(count: int, most: int, batch: int | None) -> TrainConfig:
        size = None if batch is None else min(batch, most)
        return TrainConfig(steps=count, batch_size=size, evaluate_every=count, evaluation_batch=32)

    seeds = range(config.fine_seeds)
    heads, most = 2 * config.photo_n[-1], 2 * config.fine_n[-1]
    head = partial(photographs.head_lane, most=heads, config=steps(config.photo_steps, heads, None), rate=0.01)
    fine = partial(
        photographs.fine_lane, top=top, most=most, config=steps(config.fine_steps, most, 16), rate=0.003,
        unfreeze=config.fine_steps // 4, slower=0.1,
    )  # fmt: skip
    scratch = partial(
        photographs.scratch_lane, alpha=alpha, most=most, config=steps(config.scratch_steps, most, 16), rate=0.002
    )
    return {
        "frozen": partial(
            sweep, head,
            {"start": range(len(photographs.STARTS)), "n": config.photo_n, "seed": range(config.photo_seeds)}, key=key,
            data=inputs["frozen"], name="photographs_frozen",
        ),
        "fine_tuned": partial(
            sweep, fine, {"n": config.fine_n, "seed": seeds}, key=key, data=inputs["fine_tuned"], width=1,
            name="photographs_fine_tuned",
        ),
        "scratch": partial(
            sweep, scratch, {"n": config.fine_n, "seed": seeds}, key=key, data=inputs["scratch"], width=1,
            name="photographs_scratch",
        ),
    }  # fmt: skip


def _inputs(
    config: Config,
    pretrained: transfer.Pretrained,
    folders: tuple[ImageFolder, ImageFolder],
    empty: bool,
    store: Callable[[str], Store] | None,
) -> dict[str, dict[str, Any]]:
    """What each arm trains on, by arm; where ``empty``, zeros of the same shapes, for a plan."""
    sizes, alpha = {"train": len(folders[0]), "validation": len(folders[1])}, pretrained.model.alpha
    labels = {f"y_{split}": folder.labels for split, folder in zip(sizes, folders, strict=True)}
    seeds = max(config.photo_seeds, config.fine_seeds)
    labels["order"] = digits.orders(folders[0].labels, seeds, config.seed)
    _, params, stats = photographs.top_of(pretrained)
    found: dict[str, dict[str, Any]] = {"frozen": {}, "fine_tuned": {"params": params, "stats": stats}, "scratch": {}}
    if empty:
        found["frozen"]["own"] = {"kernel": np.zeros((int(1024 * alpha), 2)), "bias": np.zeros(2)}
        shapes = {
            "frozen": (int(1024 * alpha),), "fine_tuned": (14, 14, int(512 * alpha)),
            "scratch": (config.scratch_size, config.scratch_size, 3),
        }  # fmt: skip
        for arm, shape in shapes.items():
            dtype = np.uint8 if arm == "scratch" else np.float32
            found[arm] |= {f"x_{split}": np.zeros((n, *shape), dtype) for split, n in sizes.items()}
    else:
        large = photographs.pictures(folders, pretrained.size)
        small = photographs.pictures(folders, config.scratch_size)
        found["frozen"] = photographs.unpacked(photographs.kept(
            store, "features",
            lambda: photographs.packed(photographs.frozen_features(pretrained, large, folders[0].classes)),
        ))  # fmt: skip
        for split in sizes:
            x = large[f"x_{split}"]
            found["fine_tuned"][f"x_{split}"] = photographs.cached(pretrained, x, photographs.CUT)
            found["scratch"][f"x_{split}"] = small[f"x_{split}"]
    return {arm: data | labels for arm, data in found.items()}


def _pretrained(config: Config) -> tuple[transfer.Pretrained, tuple[ImageFolder, ImageFolder]]:
    return transfer.load_mobilenet(), load_images(config.photographs)


def sweeps(config: Config, *, empty: bool = False, store: Callable[[str], Store] | None = None) -> dict[str, partial]:
    """Every sweep, ready to be called, or, with ``empty`` photographs, to be planned; ``store`` as in `run`."""
    found = {"digits": _digits_sweep(config, _digits(config))}
    if config.photographs != "none":
        pretrained, folders = _pretrained(config)
        inputs = _inputs(config, pretrained, folders, empty, store)
        found |= _photograph_sweeps(config, inputs, pretrained.model.alpha, photographs.top_of(pretrained)[0])
    return found


def plans(config: Config) -> list[Plan]:
    """What `sweeps` would cost, without computing any features (about a minute on two CPU cores)."""
    return [plan(*call.args, **call.keywords) for call in sweeps(config, empty=True).values()]


def run(config: Config, *, store: Callable[[str], Store] | None = None, monitor: Monitor | None = None) -> xr.DataTree:
    """Train every net; ``store(name)`` keeps finished chunks and the features. Returns a group an arm or panel.

    The input of the layers that are fine-tuned, 120 MB, is computed again by a run that is taken up again.
    """
    import xarray as xr

    groups = {
        name: call(store=store(name) if store else None, monitor=monitor)
        for name, call in sweeps(config, store=store).items()
    }
    facts = {"data": config.data, "steps": config.steps, "source_steps": config.source_steps}
    groups["digits"].attrs |= facts | {"frozen": " ".join(config.frozen)}
    if config.photographs != "none":
        pretrained, folders = _pretrained(config)
        groups["frozen"] = groups["frozen"].assign_coords(start=list(photographs.STARTS))
        for name in ("frozen", "fine_tuned", "scratch"):
            groups[name].attrs |= {"photographs": config.photographs, "validation_n": len(folders[1])}
        x = folders[0].read(range(0, len(folders[0]), len(folders[0]) // 16), pretrained.size, fit=photographs.FIT)[:16]
        y = folders[0].labels[:: len(folders[0]) // 16][:16]
        key = jax.random.fold_in(jax.random.key(config.seed), 2)
        bits = photographs.kept(store, "bits", lambda: photographs.frozen_bits(pretrained, x, y, key, steps=3))
        facts = {name: np.asarray(value).item() for name, value in bits.items()}
        groups["known"] = xr.Dataset(photographs.recognized(pretrained), attrs=facts)
    return xr.DataTree.from_dict(groups, name="transfer_learning")


def main(argv: list[str] | None = None) -> int:
    """The command line: see ``--help``."""
    return command.main("experiments.transfer_learning", argv)


if __name__ == "__main__":
    sys.exit(main())
