"""One training run of the micrometeorites study: augmented, searched, or looked into."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from nnjax import attribution, losses, models
from nnjax.data import augment
from nnjax.models import MicrometeoriteCNN
from nnjax.train import Config as TrainConfig
from nnjax.train import Network, Result, make_train, of_bytes, predict
from nnjax.types import Array, Key, PyTree

ARMS = ("none", "geometric", "geometric and color")
"""Augmentations, in the order of their numbers."""

CHANNELS, HIDDEN = (96, 256, 384, 384, 256), (2048, 2048)
"""Channels of the five convolutions and units of the two hidden layers at width 1."""
MAPS = 12
"""Feature maps of each layer that are kept."""

METRICS = {"loss": losses.cross_entropy, "error": losses.zero_one}


class Net(NamedTuple):
    """What is static in a run: share of the published width, number of classes, training, strengths at 1.

    Attributes:
      width: share of channels and hidden units.
      classes: number of classes.
      config: of the training.
      shift: share of the picture's side.
      rotate: degrees.
      zoom, color: see `nnjax.data.augment`.
      elastic: share of the picture's side.
    """

    width: float
    classes: int
    config: TrainConfig
    shift: float
    rotate: float
    zoom: float
    elastic: float
    color: float

    def model(self, dropout: Any = (0.0, 0.0)) -> MicrometeoriteCNN:
        """The net with these dropout probabilities."""
        hidden, channels = (tuple(max(1, round(self.width * k)) for k in sizes) for sizes in (HIDDEN, CHANNELS))
        return MicrometeoriteCNN(self.classes, hidden, dropout, channels)


def changed(net: Net, key: Key, x: Array, geometric: Any, color: Any) -> Array:
    """Pictures (n, h, w, 3), bytes or floats, moved and colored at random, with these strengths: floats in [0, 1]."""
    x = floats(x)
    side = x.shape[1]
    moved, bright, contrast, saturated = jax.random.split(key, 4)
    x = augment.affine(
        moved, x, shift=geometric * net.shift * side, rotate=geometric * net.rotate, zoom=geometric * net.zoom,
        mirror=0.5 * jnp.minimum(geometric, 1), elastic=geometric * net.elastic * side if net.elastic else 0.0,
        smoothness=0.1 * side, fill="mirror",
    )  # fmt: skip
    x = augment.brightness(bright, x, color * net.color)
    x = augment.contrast(contrast, x, color * net.color)
    return augment.color(saturated, x, color * net.color)


def floats(x: Array) -> Array:
    """Bytes as floats in [0, 1]."""
    return x.astype(jnp.float32) / 255 if x.dtype == jnp.uint8 else x


def _started(network: Network) -> Network:
    """The network with He's normal weights, all of them one draw: a draw a layer compiles five times as long."""

    def init(key: Key, x: Array) -> tuple[PyTree, PyTree]:
        params, stats = jax.eval_shape(network.init, key, x)
        leaves, tree = jax.tree.flatten(params)
        ends = np.cumsum([leaf.size if leaf.ndim > 1 else 0 for leaf in leaves])
        pieces = jnp.split(jax.random.normal(key, (ends[-1],)), ends[:-1])
        made = [
            jnp.sqrt(2 * leaf.shape[-1] / leaf.size) * piece.reshape(leaf.shape) if leaf.ndim > 1
            else jnp.zeros(leaf.shape)
            for leaf, piece in zip(leaves, pieces, strict=True)
        ]  # fmt: skip
        return jax.tree.unflatten(tree, made), stats

    return network._replace(init=init)


def _centered(network: Network, data: Mapping[str, Array]) -> Network:
    """The network of pictures in [0, 1], of which each channel is centered and scaled first."""

    def apply(params: PyTree, stats: PyTree, x: Array, *, key: Key | None, train: bool) -> tuple[Array, PyTree]:
        return network.apply(params, stats, _ready(x, data), key=key, train=train)

    return of_bytes(Network(lambda key, x: network.init(key, _ready(x, data)), apply))


def _ready(x: Array, data: Mapping[str, Array]) -> Array:
    """Pictures (n, h, w, 3) in [0, 1], each channel centered and scaled as the data says."""
    return (x - data["middle"][None, None, None]) / data["spread"][None, None, None]


def _trained(
    key: Key, hparams: Mapping[str, Array], data: Mapping[str, Any], net: Net
) -> tuple[Network, Result, PyTree]:
    """A net trained on the seed's part of the pictures; evaluated on its validation part, and never on the test.

    Returns:
      the network, its result, and the parameters that it began with.
    """
    h, seed = hparams, hparams["seed"]
    splits = {name: (data["x"][data[name][seed]], data["y"][data[name][seed]]) for name in ("train", "validation")}
    network = _centered(_started(models.network(net.model((h["dropout_0"], h["dropout_1"])))), data)
    steps = net.config.steps or 0
    train = make_train(
        network, losses.cross_entropy, lambda h: optax.adam(optax.cosine_decay_schedule(h["learning_rate"], steps)),
        net.config, metrics=METRICS, augment=lambda key, x, h: changed(net, key, x, h["geometric"], h["color"]),
    )  # fmt: skip
    start = train.start(key, dict(h), splits)
    return network, train.finish(train.advance(start, dict(h), splits), splits), start.params


def arm_lane(key: Key, hparams: Mapping[str, Array], data: Mapping[str, Any], *, net: Net) -> dict[str, Array]:
    """Learning curves under the augmentation number ``hparams["arm"]``."""
    geometric, color = (jnp.where(hparams["arm"] >= least, 1.0, 0.0) for least in (1, 2))
    _, result, _ = _trained(key, {**hparams, "geometric": geometric, "color": color}, data, net)
    kept = [f"{split}_{metric}" for split in ("train", "validation") for metric in METRICS]
    return {name: result.history[name] for name in kept} | {"diverged": result.diverged}


def trial_lane(key: Key, hparams: Mapping[str, Array], data: Mapping[str, Any], *, net: Net) -> dict[str, Array]:
    """Validation loss and error at the end, for a search; ``hparams["strength"]`` is that of all augmentation."""
    strength = dict.fromkeys(("geometric", "color"), hparams["strength"])
    _, result, _ = _trained(key, {**hparams, **strength}, data, net)
    return {name: result.history[name][-1] for name in ("validation_loss", "validation_error", "train_loss")}


def chosen_lane(key: Key, hparams: Mapping[str, Array], data: Mapping[str, Any], *, net: Net) -> dict[str, Array]:
    """A run as in the search, then shown the test pictures; and what its layers make of ``data["shown"]``.

    Returns:
      ``probability`` (test, classes); ``kernel`` of the first convolution and its ``kernel_change`` by training;
      ``maps_K`` (shown, h, w, `MAPS` or fewer) after the ReLU of each convolution.
    """
    strength = dict.fromkeys(("geometric", "color"), hparams["strength"])
    network, result, start = _trained(key, {**hparams, **strength}, data, net)
    logits = predict(network, result.params, result.stats, data["x_test"], batch_size=32)
    shown = _ready(floats(data["shown"]), data)
    maps = attribution.feature_maps(net.model(), result.params, result.stats, shown, activation="relu")
    layers = [value for name, value in maps.items() if name.startswith("Conv_")]
    return {
        "probability": jax.nn.softmax(logits),
        "validation_error": result.history["validation_error"][-1],
        "validation_loss": result.history["validation_loss"][-1],
        "kernel": result.params["Conv_0"]["kernel"],
        "kernel_change": result.params["Conv_0"]["kernel"] - start["Conv_0"]["kernel"],
        **{f"maps_{place}": layer[..., :MAPS] for place, layer in enumerate(layers)},
        "diverged": result.diverged,
    }
