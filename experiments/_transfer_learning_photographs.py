"""The photographs of the transfer study: MobileNet's features, its last layers trained on, the net from scratch.

What is frozen is computed once: pooled features for a new head, and the input of the last two pairs of convolutions for
fine-tuning, which trains those and the head.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments._transfer_learning_digits import DECAY, HEAD, METRICS, bits_that_differ
from nnjax import conv, hosts, losses, models, transfer
from nnjax.data import DataError, ImageFolder, augment, cache, read_image
from nnjax.train import Config as TrainConfig
from nnjax.train import Network, make_train
from nnjax.types import Array, Key, PyTree

if TYPE_CHECKING:
    from nnjax.sweep import Store

FIT = "crop"
"""How photographs are brought to a square: cross-validated on the training ones (the others in view beside it), it is
better than squashing them."""
STARTS = ("fresh head", "own classes")
"""Heads on frozen features: from zero, or from the rows of the net's own output that are of these classes."""
OWN = {"ants": "ant", "bees": "bee"}
"""Class of the pretrained net, its first synonym, by class of the photographs."""
PULL = 0.3
"""Penalty on half the squared distance of the head's weights from their start (Li et al., 2018), chosen like `FIT`."""
CUT = "conv_dw_12"
"""The layer from which on fine-tuning trains; what is below it is frozen and computed once."""
KNOWN = {
    "giant panda": "imagenet-sample-50/n02510455_giant_panda.JPEG",
    "macaw": "imagenet-mobilenet/photos/parrot.jpg",
    "Egyptian cat": "imagenet-mobilenet/photos/cat.png",
    "hotdog": "imagenet-mobilenet/photos/hot_dog.jpg",
}
"""What photographs of the data folder show, as the pretrained net's classes begin."""


class Top(nn.Module):
    """`models.MobileNet` from `CUT` on: (n, h, w, c) to logits (n, classes), its layers called as there.

    Attributes:
      channels: of the last two pairs of convolutions.
      classes: number of outputs.
    """

    channels: int
    classes: int = 2

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        norm = partial(nn.BatchNorm, use_running_average=not train, momentum=0.9, epsilon=1e-3)
        for pair, stride in ((12, 2), (13, 1)):
            x = jax.nn.relu6(norm(name=f"conv_dw_{pair}_bn")(models.DepthwiseConv(stride, name=f"conv_dw_{pair}")(x)))
            x = nn.Conv(
                self.channels, (1, 1), use_bias=False, conv_general_dilated=conv.conv_general_dilated,
                name=f"conv_pw_{pair}",
            )(x)  # fmt: skip
            x = jax.nn.relu6(norm(name=f"conv_pw_{pair}_bn")(x))
        return nn.Dense(self.classes, name=HEAD)(x.mean(axis=(1, 2)))


def top_of(pretrained: transfer.Pretrained) -> tuple[Top, PyTree, PyTree]:
    """`Top` for two classes, and the pretrained parameters and statistics that it takes."""
    last = ("conv_dw_12", "conv_pw_12", "conv_dw_13", "conv_pw_13", HEAD)

    def of_top(tree: PyTree) -> PyTree:
        return {name: value for name, value in tree.items() if name.removesuffix("_bn") in last}

    stats = {"batch_stats": of_top(pretrained.stats["batch_stats"])}
    return Top(int(1024 * pretrained.model.alpha)), of_top(pretrained.params), stats


# Data


def pictures(folders: tuple[ImageFolder, ImageFolder], size: int) -> dict[str, np.ndarray]:
    """Training and validation pictures, bytes (n, size, size, 3), and their labels (n,)."""
    found: dict[str, np.ndarray] = {}
    for split, folder in zip(("train", "validation"), folders, strict=True):
        found[f"x_{split}"] = folder.read(range(len(folder)), size, fit=FIT)
        found[f"y_{split}"] = folder.labels
    return found


def cached(pretrained: transfer.Pretrained, x: Array, before: str) -> np.ndarray:
    """What layer ``before`` of the pretrained net is given, for bytes x (n, h, w, 3)."""
    model, params, stats, *_ = pretrained
    found = transfer.features(
        model, params, stats, x, before=before, batch_size=16, preprocess=pretrained.preprocess
    )  # fmt: skip
    return np.asarray(found)


def frozen_features(pretrained: transfer.Pretrained, x: Mapping[str, np.ndarray], classes: Sequence[str]) -> dict:
    """What the heads are trained on: features (n, d) of ``x_train`` and ``x_validation``, and ``own`` head.

    Features have mean 0 and variance 1 over the training photographs. ``own`` is the part of the net's output layer
    that is of ``classes``, in these coordinates.
    """
    raw = {split: cached(pretrained, x[split], HEAD) for split in ("x_train", "x_validation")}
    middle, spread = raw["x_train"].mean(0), raw["x_train"].std(0) + 1e-3
    first = [name.split(",")[0] for name in pretrained.class_names]
    rows = [first.index(OWN[name]) for name in classes]
    kernel, bias = (np.asarray(pretrained.params[HEAD][name])[..., rows] for name in ("kernel", "bias"))
    own = {"kernel": kernel * spread[:, None], "bias": bias + middle @ kernel}
    return {split: (each - middle) / spread for split, each in raw.items()} | {"own": own}


def packed(found: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """What `frozen_features` gives as flat arrays, to be kept."""
    return {name: each for name, each in found.items() if name != "own"} | found["own"]


def unpacked(found: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """`packed`, undone."""
    own = ("kernel", "bias")
    return {name: each for name, each in found.items() if name not in own} | {
        "own": {name: found[name] for name in own}
    }


def kept(
    store: Callable[[str], Store] | None, name: str, compute: Callable[[], Mapping[str, Any]]
) -> dict[str, np.ndarray]:
    """What ``compute()`` gives, from ``store(name)`` where it is there already; of several hosts the first does it.

    The folder of ``store`` belongs to one configuration and the data files have fixed checksums, so a name is enough.
    """

    def found() -> dict[str, np.ndarray]:
        place = store(name) if store else None
        arrays = place.load("all") if place else None
        if arrays is None:
            arrays = {key: np.asarray(value) for key, value in compute().items()}
            if place:
                place.save("all", arrays, {})
        return arrays

    made = hosts.first(found)
    assert made is not None  # `found` never gives None
    return made


def recognized(pretrained: transfer.Pretrained) -> dict[str, tuple[list[str], np.ndarray]]:
    """What the pretrained net says of the known photographs: (axes, values) by name; without those that are not there.

    ``said`` (photographs,), ``probability`` of that, and the photographs themselves, ``picture``.
    """
    shown, seen = [], []
    for name, place in KNOWN.items():
        try:
            seen.append(read_image(cache.folder() / place, pretrained.size, fit="squash"))
            shown.append(name)
        except DataError:  # a data folder may hold the net but not the photographs
            continue
    if not shown:
        return {}
    x = np.stack(seen)
    model, params, stats, *_ = pretrained
    logits = models.apply(model, params, stats, pretrained.preprocess(x))[0]
    chance = np.asarray(jax.nn.softmax(logits))
    best = chance.argmax(-1)
    return {
        "shown": (["photograph"], np.asarray(shown)),
        "said": (["photograph"], np.asarray([pretrained.class_names[k] for k in best])),
        "probability": (["photograph"], chance.max(-1)),
        "picture": (["photograph", "row", "column", "channel"], x),
    }


def frozen_bits(pretrained: transfer.Pretrained, x: np.ndarray, y: np.ndarray, key: Key, steps: int) -> dict[str, Any]:
    """Train a new head on the whole pretrained net, all else frozen under weight decay, and count what has moved.

    Returns:
      ``frozen`` parameters and ``frozen_statistics``, how many; ``moved``, ``statistics_moved``, of how many a bit
      differs; ``head_moved``, of how many of the head's; ``loss_before``, ``loss_after``.
    """
    frozen = ("*", f"!{HEAD}")
    model = models.MobileNet(pretrained.model.alpha, classes=2)
    network = transfer.network(model, pretrained.params, pretrained.stats, head=HEAD, frozen=frozen)
    config = TrainConfig(steps=steps, evaluate_at=(0, steps))

    def rule(_: Any) -> optax.GradientTransformation:
        return transfer.freeze(optax.adamw(3e-3, weight_decay=DECAY), pretrained.params, frozen)

    train = make_train(network, losses.cross_entropy, rule, config)
    data = {"train": (pretrained.preprocess(x), jnp.asarray(y))}
    start = jax.jit(network.init)(jax.random.split(key)[0], data["train"][0][:1])
    result = jax.jit(train)(key, None, data)
    stays = transfer.chosen(start[0], frozen)
    everything = jax.tree.map(lambda _: True, start[1])
    head = jax.tree.map(lambda stay: not stay, stays)
    return {
        "frozen": sum(leaf.size for leaf, stay in zip(*map(jax.tree.leaves, (start[0], stays)), strict=True) if stay),
        "frozen_statistics": sum(leaf.size for leaf in jax.tree.leaves(start[1])),
        "moved": int(bits_that_differ(result.params, start[0], stays)),
        "statistics_moved": int(bits_that_differ(result.stats, start[1], everything)),
        "head_moved": int(bits_that_differ(result.params, start[0], head)),
        "loss_before": float(result.history["train_loss"][0]),
        "loss_after": float(result.history["train_loss"][-1]),
    }


# Lanes


def _splits(data: Mapping[str, Array], hparams: Mapping[str, Array], most: int) -> dict[str, tuple[Array, Array]]:
    """The seed's first pictures, ``hparams["n"]`` of each of the two classes, repeated up to ``most``; validation."""
    index = data["order"][hparams["seed"]][jnp.arange(most) % (2 * hparams["n"])]
    return {
        "train": (data["x_train"][index], data["y_train"][index]),
        "validation": (data["x_validation"], data["y_validation"]),
    }


def _at_end(train: Any, key: Key, splits: Any) -> dict[str, Array]:
    result = train(key, None, splits)
    found = {name: curve[-1] for name, curve in result.history.items() if name != "step"}
    return found | {"diverged": result.diverged}


def head_lane(
    key: Key, hparams: Mapping[str, Array], data: Mapping[str, Any], *, most: int, config: TrainConfig, rate: float
) -> dict[str, Array]:
    """A head on cached features (n, d), everything below being frozen; ``hparams["start"]``, a place in `STARTS`.

    Weights are drawn to where they start, a convex problem with one solution. Error before training: ``start_error``.
    """
    start = jax.tree.map(lambda own: own * hparams["start"], data["own"])
    network = Network(
        init=lambda key, x: (start, {}),
        apply=lambda params, stats, x, *, key, train: (x @ params["kernel"] + params["bias"][None], stats),
    )
    train = make_train(
        network, losses.cross_entropy, lambda _: optax.adam(optax.cosine_decay_schedule(rate, config.steps or 1)),
        config, metrics=METRICS,
        penalty=lambda params, _: PULL / 2 * jnp.sum((params["kernel"] - start["kernel"]) ** 2),
    )  # fmt: skip
    splits = _splits(data, hparams, most)
    x, y = splits["validation"]
    before = jnp.mean(losses.zero_one(network.apply(start, {}, x, key=None, train=False)[0], y))
    return _at_end(train, key, splits) | {"start_error": before}


def fine_lane(
    key: Key,
    hparams: Mapping[str, Array],
    data: Mapping[str, Any],
    *,
    top: Top,
    most: int,
    config: TrainConfig,
    rate: float,
    unfreeze: int,
    slower: float,
) -> dict[str, Array]:
    """The head from the start, the last two pairs of convolutions after ``unfreeze`` updates at ``slower`` of the rate.

    Batch norms keep the pretrained statistics, for batches are small.
    """
    params, stats = data["params"], data["stats"]
    network = transfer.network(top, params, stats, head=HEAD, frozen="*_bn")
    stages = [transfer.Stage(HEAD), transfer.Stage("*", unfreeze, slower)]

    def rule(_: Any) -> optax.GradientTransformation:
        decay = optax.cosine_decay_schedule(rate, config.steps or 1)
        return transfer.gradual(optax.adamw(decay, weight_decay=DECAY), params, stages)

    train = make_train(network, losses.cross_entropy, rule, config, metrics=METRICS)
    return _at_end(train, key, _splits(data, hparams, most))


def scratch_lane(
    key: Key,
    hparams: Mapping[str, Array],
    data: Mapping[str, Array],
    *,
    alpha: float,
    most: int,
    config: TrainConfig,
    rate: float,
) -> dict[str, Array]:
    """The same architecture from a fresh draw, on bytes (n, h, w, 3), mirrored and moved at random."""
    plain = models.network(models.MobileNet(alpha, classes=2))
    network = Network(
        init=lambda key, x: plain.init(key, transfer.symmetric(x)),
        apply=lambda params, stats, x, *, key, train: plain.apply(
            params, stats, transfer.symmetric(x), key=key, train=train
        ),
    )

    def moved(key: Key, x: Array, _: Any) -> Array:
        return augment.affine(key, x.astype(jnp.float32) / 255, shift=x.shape[1] / 16, zoom=0.2, mirror=0.5)

    train = make_train(
        network, losses.cross_entropy,
        lambda _: optax.adamw(optax.cosine_decay_schedule(rate, config.steps or 1), weight_decay=DECAY), config,
        metrics=METRICS, augment=moved,
    )  # fmt: skip
    return _at_end(train, key, _splits(data, hparams, most))
