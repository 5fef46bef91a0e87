"""One lane of the pooling study: a net with one pooled convolution, moved pictures, and a read-out of positions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from nnjax import conv, losses, models
from nnjax.train import Config as TrainConfig
from nnjax.train import Network, make_train
from nnjax.types import Array, Key, PyTree

KINDS = ("max", "average", "strided")
KERNEL = 3
STRENGTHS = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
"""Of the read-out's ridge penalty, relative to the sum of all squared features; validation pictures choose."""


# Pictures on a canvas


def centered(x: np.ndarray, canvas: int) -> np.ndarray:
    """Pictures (n, h, w, c) in the middle of an empty canvas: (n, canvas, canvas, c)."""
    top, left = ((canvas - side) // 2 for side in x.shape[1:3])
    bottom, right = canvas - x.shape[1] - top, canvas - x.shape[2] - left
    return np.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)))


def largest_shift(side: int, canvas: int) -> int:
    """Pixels that a centered picture can move with all that a convolution makes of it still on the canvas."""
    return (canvas - side) // 2 - KERNEL // 2


def moved(x: Array, by: Array) -> Array:
    """Each picture of x (n, h, w, c) moved ``by`` (n, 2) pixels, down and right; on an empty rim nothing is lost."""
    return jax.vmap(lambda picture, d: jnp.roll(picture, d, (0, 1)))(x, by)


def random_places(key: Key, n: int, most: Array | int) -> Array:
    """(n, 2) whole numbers from -most to most, uniform."""
    return jax.random.randint(key, (n, 2), -most, most + 1)


# The net


def pool(x: Array, window: int, kind: Array | int) -> Array:
    """One value a window of x (n, h, w, c), by `KINDS`: its largest, its mean, or its upper left one alone.

    The last is what a convolution of that stride computes.
    """
    every = x[:, ::window, ::window]
    return jnp.stack([conv.max_pool(x, window), conv.avg_pool(x, window), every])[kind]


class Pooled(nn.Module):
    """A convolution, ReLU and a pool: (n, h, w, c) to (n, h / window, w / window, channels)."""

    channels: int
    window: int
    kind: Any

    @nn.compact
    def __call__(self, x: Array) -> Array:
        fast = conv.conv_general_dilated
        z = nn.Conv(self.channels, (KERNEL, KERNEL), padding="SAME", conv_general_dilated=fast, name="conv")(x)
        return pool(nn.relu(z), self.window, self.kind)


class Classifier(nn.Module):
    """`Pooled`, then logits of all its values: the kernel of "logits" knows every place apart."""

    channels: int
    window: int
    kind: Any
    classes: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        features = Pooled(self.channels, self.window, self.kind, name="pooled")(x)
        return nn.Dense(self.classes, name="logits")(features.reshape(len(x), -1))


def _moving(network: Network, spread: Array) -> Network:
    """The network, seeing every training picture at a random place at most ``spread`` pixels from the middle."""

    def apply(params: PyTree, stats: PyTree, x: Array, *, key: Key | None, train: bool) -> tuple[Array, PyTree]:
        if train and key is not None:
            x = moved(x, random_places(key, len(x), spread))
        return network.apply(params, stats, x, key=key, train=train)

    return network._replace(apply=apply)


def lane(
    key: Key,
    hparams: Mapping[str, Array],
    data: Mapping[str, Array],
    *,
    window: int,
    channels: int,
    classes: int,
    shift: int,
    config: TrainConfig,
    learning_rate: float,
) -> dict[str, Array]:
    """Train one net, then classify moved test pictures and read positions from its pooled features.

    ``hparams``: ``kind``, a place in `KINDS`; ``spread``, pixels. Results over shifts have 2 ``shift`` + 1 values.
    """
    train_key, place_key = jax.random.split(key)
    model = Classifier(channels, window, hparams["kind"], classes)
    network = models.network(model)
    train = make_train(
        _moving(network, hparams["spread"]), losses.cross_entropy,
        lambda _: optax.adam(optax.cosine_decay_schedule(learning_rate, config.steps or 1)), config,
        metrics={"error": losses.zero_one},
    )  # fmt: skip
    found = train(train_key, None, {"train": (data["x_train"], data["y_train"])})
    pooled = Pooled(channels, window, hparams["kind"])

    def features(x: Array) -> Array:
        return pooled.apply({"params": found.params["pooled"]}, x)  # type: ignore[return-value]

    def logits(values: Array) -> Array:
        layer = found.params["logits"]
        return values.reshape(len(values), -1) @ layer["kernel"] + layer["bias"][None]

    read = {split: data[f"x_{split}"] for split in ("train", "validation", "test")}
    return {
        "train_error": found.history["train_error"][-1],
        **_when_moved(features, logits, data["x_test"], data["y_test"], shift),
        "equivariance": _equivariance(features, data["x_test"][:32], shift, window),
        **_position(features, place_key, read, shift),
        "diverged": found.diverged,
    }


# Measures


def _when_moved(features: Any, logits: Any, x: Array, y: Array, shift: int) -> dict[str, Array]:
    """Errors, changes of mind, and how far the features move, at every shift, down and right alike.

    ``change``: squared distance of the features from those in the middle over the sum of both their squares, those of
    the empty canvas subtracted: 0 is invariance, 1 features that have nothing in common.
    """
    empty = features(jnp.zeros_like(x[:1]))
    middle = features(x) - empty
    said = jnp.argmax(logits(middle + empty), -1)

    def at(by: Array) -> tuple[Array, Array, Array]:
        now = features(jnp.roll(x, by, (1, 2))) - empty
        answer = jnp.argmax(logits(now + empty), -1)
        size = jnp.square(now).sum() + jnp.square(middle).sum()
        change = jnp.square(now - middle).sum() / jnp.maximum(size, 1e-12)
        return jnp.mean(answer != y), jnp.mean(answer == said), change

    steps = jnp.arange(-shift, shift + 1)
    still = jnp.zeros_like(steps)
    ways = jnp.concatenate([jnp.stack([steps, still], 1), jnp.stack([still, steps], 1)])
    error, same, change = (values.reshape(2, -1).mean(0) for values in jax.lax.map(at, ways))
    return {"error": error, "same": same, "change": change}


def _equivariance(features: Any, x: Array, shift: int, window: int) -> Array:
    """Largest difference, relative to the largest feature, where theory has none.

    A shift by whole windows moves the features by whole places; features of the whole picture do not move at all.
    NaN where no shift is as long as the window.
    """
    middle = features(x)
    whole = middle.shape[1] == 1
    differences = []
    for step in range(1 if whole else window, shift + 1, 1 if whole else window):
        places = 0 if whole else step // window
        for axis in (1, 2):
            now = features(jnp.roll(x, step, axis))
            differences.append(jnp.abs(now - jnp.roll(middle, places, axis)).max())
    if not differences:
        return jnp.asarray(jnp.nan, middle.dtype)
    return jnp.stack(differences).max() / jnp.abs(middle).max()


def _position(features: Any, key: Key, pictures: Mapping[str, Array], shift: int) -> dict[str, Array]:
    """Places of test pictures, read from their features by ridge regression on the training pictures'.

    Returns:
      ``rmse``, pixels along one axis; ``r2``, share of the variance of places explained; ``strength`` chosen.
    """
    places, values = {}, {}
    for number, (split, x) in enumerate(pictures.items()):
        by = random_places(jax.random.fold_in(key, number), len(x), shift)
        places[split] = by.astype(jnp.float32)
        values[split] = features(moved(x, by)).reshape(len(x), -1)
    middle, mean = values["train"].mean(0)[None], places["train"].mean(0)[None]
    values = {split: value - middle for split, value in values.items()}
    gram = values["train"] @ values["train"].T
    # A penalty relative to the features' size, with a floor where they are all the same.
    unit = jnp.maximum(jnp.trace(gram) / len(gram), 1e-12)

    def weights(strength: Array) -> Array:
        system = gram + len(gram) * strength * unit * jnp.eye(len(gram))
        return jax.scipy.linalg.solve(system, places["train"] - mean, assume_a="pos")

    def squares(split: str, dual: Array) -> Array:
        return jnp.square(values[split] @ (values["train"].T @ dual) + mean - places[split]).mean()

    strengths = jnp.asarray(STRENGTHS)
    duals = jax.lax.map(weights, strengths)
    best = jnp.argmin(jax.lax.map(lambda dual: squares("validation", dual), duals))
    square = squares("test", duals[best])
    variance = shift * (shift + 1) / 3  # of a place drawn uniformly from -shift to shift
    return {"rmse": jnp.sqrt(square), "r2": 1 - square / variance, "strength": strengths[best]}
