"""One lane of the augmentation study: a small convolutional net, pictures drawn anew at every update, moved tests."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from nnjax import losses, models
from nnjax.data import augment
from nnjax.train import Config as TrainConfig
from nnjax.train import make_train
from nnjax.types import Array, Key

CHANGES = ("shift", "rotate", "zoom", "mirror", "elastic", "light")
"""What may be done to a picture; light is contrast and brightness."""
KINDS = (*CHANGES, "all", "all but mirror")
"""The arms: each change alone, and all of them in one interpolation."""
LARGEST = {"shift": 0.25, "rotate": 180.0, "zoom": 1.0, "mirror": 0.5, "elastic": 0.125, "light": 1.0}
"""Each change at strength 1: shares of the picture's side (shift, and root mean square of the elastic field), degrees,
twice as large or small, every other picture, contrast from 0 to 2 with brightness up to half as much."""
SMOOTHNESS = 0.15
"""Width of the Gaussian that smooths the elastic field, a share of the picture's side: 4 of 28 pixels."""
LOOKALIKES = (6, 9)
"""Digits that half a turn makes of one another."""
METRICS = {"loss": losses.cross_entropy, "error": losses.zero_one}


def amount(kind: str, strength: float, side: int) -> str:
    """What ``strength`` of one change means, in words."""
    most = strength * LARGEST[kind]
    return {
        "shift": f"{most * side:.3g} px", "rotate": f"{most:.3g}°", "zoom": f"x {1 + most:.3g}",
        "mirror": f"{100 * most:.3g} %", "elastic": f"{most * side:.3g} px", "light": f"±{100 * most:.3g} %",
    }[kind]  # fmt: skip


def arms(strengths: tuple[float, ...]) -> np.ndarray:
    """Strength of every change by arm, (1 + kinds * strengths, changes): none, then every kind at every strength."""
    rows = [[0.0] * len(CHANGES)]
    for kind in KINDS:
        together = {"all": CHANGES, "all but mirror": [change for change in CHANGES if change != "mirror"]}
        chosen = together.get(kind, [kind])
        rows += [[strength * (change in chosen) for change in CHANGES] for strength in strengths]
    return np.asarray(rows, np.float32)


def changed(key: Key, x: Array, strengths: Array, fill: str) -> Array:
    """Every picture of x (n, h, w, c) changed by a draw of its own; ``strengths`` (changes,) of those at strength 1."""
    side = x.shape[1]
    most = {change: strengths[place] * LARGEST[change] for place, change in enumerate(CHANGES)}
    move, contrast, brightness = (jax.random.fold_in(key, number) for number in range(3))
    x = augment.affine(
        move, x, shift=side * most["shift"], rotate=most["rotate"], zoom=most["zoom"], mirror=most["mirror"],
        elastic=side * most["elastic"], smoothness=side * SMOOTHNESS, fill=fill,
    )  # fmt: skip
    x = augment.contrast(contrast, x, most["light"])
    return augment.brightness(brightness, x, most["light"] / 2)


# Moved test pictures


def turned(x: Array, degrees: Array, fill: str) -> Array:
    """All of x (n, h, w, c) turned clockwise about the middle by ``degrees``, ()."""
    matrix = augment.rotation(jnp.broadcast_to(degrees, (len(x),)))
    middle = (jnp.asarray(x.shape[1:3]) - 1) / 2
    return augment.affine_transform(x, matrix, middle[None] - matrix @ middle, fill=fill)


def shifted(x: Array, pixels: Array, fill: str) -> Array:
    """All of x (n, h, w, c) moved by ``pixels`` (2,), down and right."""
    matrix = jnp.broadcast_to(jnp.eye(2), (len(x), 2, 2))
    return augment.affine_transform(x, matrix, jnp.broadcast_to(-pixels, (len(x), 2)), fill=fill)


def confused(answer: Array, y: Array) -> Array:
    """Share of the pictures of each of `LOOKALIKES` that are taken for the other, ()."""
    one, other = LOOKALIKES
    shown = (y == one) | (y == other)
    swapped = ((y == one) & (answer == other)) | ((y == other) & (answer == one))
    return jnp.sum(swapped) / jnp.maximum(jnp.sum(shown), 1)


def _when_moved(logits: Callable[[Array], Array], x: Array, y: Array, data: Mapping[str, Array], fill: str) -> dict:
    """Test errors on pictures that are turned, moved (mean of down and right) and mirrored."""

    def error(x: Array) -> Array:
        return jnp.mean(losses.zero_one(logits(x), y))

    steps = data["shifts"]
    still = jnp.zeros_like(steps)
    ways = jnp.concatenate([jnp.stack([steps, still], 1), jnp.stack([still, steps], 1)])
    return {
        "turned_error": jax.lax.map(lambda degrees: error(turned(x, degrees, fill)), data["angles"]),
        "moved_error": jax.lax.map(lambda by: error(shifted(x, by, fill)), ways).reshape(2, -1).mean(0),
        "mirrored_error": error(x[:, :, ::-1]),
    }


# Training


def lane(
    key: Key,
    hparams: Mapping[str, Array],
    data: Mapping[str, Array],
    *,
    most: int,
    features: tuple[int, ...],
    hidden: tuple[int, ...],
    moved_n: int,
    fill: str,
    config: TrainConfig,
    learning_rate: float,
) -> dict[str, Array]:
    """Train on the seed's first ``hparams["n"]`` pictures under arm ``hparams["arm"]``, then test, also when moved.

    Pictures are repeated up to ``most``, so that all n share a program; every arm gets the same number of updates.
    """
    model = models.LeNet(
        data["classes"].shape[0], features=features, hidden=hidden, dropout=0.0, padding="SAME", kernel_size=3
    )
    network = models.network(model)
    index = data["order"][hparams["seed"]][jnp.arange(most) % hparams["n"]]
    splits = {"train": (data["x_train"][index], data["y_train"][index])}
    splits |= {split: (data[f"x_{split}"], data[f"y_{split}"]) for split in ("validation", "test")}
    train = make_train(
        network, losses.cross_entropy,
        lambda _: optax.adam(optax.cosine_decay_schedule(learning_rate, config.steps or 1)), config, metrics=METRICS,
        augment=lambda key, x, strengths: changed(key, x, strengths, fill),
    )  # fmt: skip
    result = train(key, data["arms"][hparams["arm"]], splits)

    def logits(x: Array) -> Array:
        return network.apply(result.params, result.stats, x, key=None, train=False)[0]

    x, y = splits["test"]
    found = {name: curve[-1] for name, curve in result.history.items() if name != "step"}
    return {
        **found,
        "confused": confused(jnp.argmax(logits(x), -1), y),
        **_when_moved(logits, x[:moved_n], y[:moved_n], data, fill),
        "diverged": result.diverged,
    }


def gallery(key: Key, x: Array, strengths: tuple[float, ...], fill: str) -> np.ndarray:
    """One picture x (h, w, c) under every arm: (kinds, strengths, h, w, c)."""
    table = arms(strengths)[1:]
    # One key for all, so that along the strengths it is one and the same change that grows.
    drawn = jax.jit(jax.vmap(lambda row: changed(key, jnp.asarray(x)[None], row, fill)[0]))(table)
    return np.asarray(drawn).reshape(len(KINDS), len(strengths), *x.shape)


def as_axes(arm: np.ndarray, strengths: int) -> Any:
    """Arms by (kind, strength), strength 0, which is one arm, in front of every kind's."""
    rest = arm[1:].reshape(len(KINDS), strengths)
    return np.concatenate([np.full((len(KINDS), 1), arm[0]), rest], axis=1)
