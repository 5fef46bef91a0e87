"""One lane of the digits panel: learn some digits, then others, starting from what was learned or from nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from nnjax import losses, models, transfer
from nnjax.train import Config as TrainConfig
from nnjax.train import make_train
from nnjax.types import Array, Key, PyTree

ARMS = ("scratch", "frozen", "fine-tuned", "random frozen")
"""From a fresh draw; pretrained layers that stay, with a new head; the same layers trained later and slower; layers
of a fresh draw that stay."""
HEAD = "logits"
METRICS = {"loss": losses.cross_entropy, "error": losses.zero_one}
DECAY = 1e-3
"""Weight decay of every arm (AdamW), which must not move what is frozen either."""
NEVER = 2**30


def network_model(classes: int, features: Sequence[int], hidden: Sequence[int]) -> models.LeNet:
    """The net of both tasks: 3 x 3 convolutions with pools, hidden layers, logits."""
    return models.LeNet(
        classes, features=tuple(features), hidden=tuple(hidden), dropout=0.0, padding="SAME", kernel_size=3
    )


def trained(frozen: Sequence[str]) -> tuple[str, ...]:
    """Patterns of everything that ``frozen`` leaves free: each turned round, behind one for all."""
    return ("*", *(p.removeprefix("!") if p.startswith("!") else f"!{p}" for p in frozen))


def orders(y: np.ndarray, seeds: int, seed: int) -> np.ndarray:
    """The pictures of labels y (n,) in every seed's order (seeds, n): one of every class, then another, ..."""
    found = []
    for number in range(seeds):
        shuffled = np.random.default_rng([seed, number]).permutation(len(y))
        rank = np.empty(len(y), int)
        for label in np.unique(y):
            mine = shuffled[y[shuffled] == label]
            rank[mine] = np.arange(len(mine)) * (max(y) + 1) + label
        found.append(shuffled[np.argsort(rank[shuffled], kind="stable")])
    return np.asarray(found, np.int32)


def bits_that_differ(a: PyTree, b: PyTree, where: PyTree) -> Array:
    """Numbers of two alike trees of float32 whose bits differ, among the leaves where ``where`` is True, ()."""

    def differ(x: Array, y: Array, counted: bool) -> Array:
        if not counted:
            return jnp.zeros((), jnp.int32)
        ours, theirs = (jax.lax.bitcast_convert_type(jnp.asarray(each, jnp.float32), jnp.int32) for each in (x, y))
        return jnp.sum(ours != theirs)

    return sum(jax.tree.leaves(jax.tree.map(differ, a, b, where)), jnp.zeros((), jnp.int32))


def lane(
    key: Key,
    hparams: Mapping[str, Array],
    data: Mapping[str, Any],
    *,
    most: int,
    features: tuple[int, ...],
    hidden: tuple[int, ...],
    frozen: tuple[str, ...],
    pretraining: TrainConfig,
    pretraining_rate: float,
    config: TrainConfig,
    unfreeze: int,
    slower: float,
) -> dict[str, Array]:
    """Learn the first digits, then the others on ``hparams["n"]`` pictures a class at ``hparams["rate"]``, by `ARMS`.

    ``data["start"]``, where it is there, is a pretrained net and saves the pretraining. All results have an axis for
    the arms, but ``source_error``, that of the first task.
    """
    classes = data["classes"].shape[0]
    model = network_model(classes, features, hidden)
    plain = models.network(model)
    before_key, fresh_key, key = jax.random.split(key, 3)
    source = {"train": (data["x_source"], data["y_source"]), "test": (data["x_source_test"], data["y_source_test"])}
    if "start" in data:
        pretrained = data["start"]
        logits, _ = plain.apply(pretrained, {}, source["test"][0], key=None, train=False)
        source_error = jnp.mean(losses.zero_one(logits, source["test"][1]))
    else:
        first = make_train(
            plain, losses.cross_entropy,
            lambda _: optax.adamw(_decaying(pretraining_rate, pretraining), weight_decay=DECAY), pretraining,
            metrics=METRICS,
        )  # fmt: skip
        result = first(before_key, None, source)
        pretrained, source_error = result.params, result.history["test_error"][-1]
    fresh, _ = plain.init(fresh_key, source["train"][0][:1])
    index = data["order"][hparams["seed"]][jnp.arange(most) % (classes * hparams["n"])]
    splits = {"train": (data["x_train"][index], data["y_train"][index])}
    splits |= {split: (data[f"x_{split}"], data[f"y_{split}"]) for split in ("validation", "test")}
    stays = transfer.chosen(fresh, frozen, name="frozen")

    def arm(learned: Array, start: Array, rate: Array) -> dict[str, Array]:
        body = jax.tree.map(lambda a, b: jnp.where(learned, a, b), pretrained, fresh)
        network = transfer.network(model, body, {}, head=HEAD)
        stages = [transfer.Stage(trained(frozen)), transfer.Stage("*", start, rate)]

        def rule(_: Any) -> optax.GradientTransformation:
            return transfer.gradual(
                optax.adamw(_decaying(hparams["rate"], config), weight_decay=DECAY), fresh, stages
            )  # fmt: skip

        found = make_train(network, losses.cross_entropy, rule, config, metrics=METRICS)(key, None, splits)
        return {
            **{name: curve[-1] for name, curve in found.history.items() if name != "step"},
            "moved": bits_that_differ(found.params, body, stays),
            "diverged": found.diverged,
        }

    settings = {"scratch": (0, 0, 1.0), "frozen": (1, NEVER, 1.0), "fine-tuned": (1, unfreeze, slower),
                "random frozen": (0, NEVER, 1.0)}  # fmt: skip
    learned, start, rate = (jnp.asarray(column) for column in zip(*(settings[name] for name in ARMS), strict=True))
    return {**jax.vmap(arm)(learned == 1, start, rate), "source_error": source_error}


def _decaying(rate: Array | float, config: TrainConfig) -> Any:
    return optax.cosine_decay_schedule(rate, config.steps or 1)
