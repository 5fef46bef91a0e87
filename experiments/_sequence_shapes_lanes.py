"""Lanes of the shapes on digits: a digit to its class or its name, and a strip's columns to their digits."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from experiments._recurrent_training import falling_adam
from experiments._sequence_shapes_strips import NAMES, SIDE, Part, shuffled, tagged_strips
from nnjax import losses, models
from nnjax.models.sequences import RNNClassifier, SequenceGenerator, SequenceTagger, generate
from nnjax.train import Augment, Network, PerExample, Result, make_train, predict
from nnjax.train import Config as TrainConfig
from nnjax.types import Array, Key, PyTree

CELLS = ("rnn", "lstm", "gru")
VECTOR_NETS = ("linear", "mlp")
"""Nets that see a digit's 64 pixels at once."""
MEAN = "mean column"
"""Of the nets that see a digit column by column the one that is linear in their mean, and knows no order."""
ALONE = "one column"
"""Of the nets that name the digit of every column the one that sees this column alone."""

EVALUATION_BATCH = 500
"""Examples at once in evaluation."""


def both(cell: str) -> str:
    """Name of the net that reads in both directions before it names the digit of every column."""
    return f"{cell}, both directions"


def tag_nets(cells: Sequence[str]) -> list[str]:
    """From one column alone, forwards, and in both directions."""
    return [ALONE, *cells, *map(both, cells)]


class Learning(NamedTuple):
    """How every net is trained.

    Attributes:
      config: of the run; it keeps the parameters with the least validation loss.
      clip: largest norm of an update's gradient.
    """

    config: TrainConfig
    clip: float


def learn(
    key: Key,
    hparams: Mapping[str, Array],
    network: Network,
    loss: PerExample,
    splits: Mapping[str, tuple],
    learning: Learning,
    augment: Augment | None = None,
) -> Result:
    """A run with Adam, its rate falling to zero from ``hparams["rate"]``."""
    train = make_train(
        network, loss, lambda h: falling_adam(h["rate"], learning.clip, learning.config.steps or 0), learning.config,
        augment=augment,
    )  # fmt: skip
    return train(key, hparams, splits)


def answers(network: Network, result: Result, x: Array) -> Array:
    """Outputs for x (n, ...) in evaluation."""
    return predict(network, result.params, result.stats, x, batch_size=EVALUATION_BATCH)


def in_order(key: Key, x: Array, there: Array | None, hparams: Mapping[str, Array]) -> Array:
    """x (n, t, ...), or with each example's steps shuffled anew where ``hparams["shuffled"]`` is 1."""
    return jnp.where(hparams["shuffled"] == 1, shuffled(key, x, there), x)


# To the class


def classifier(net: str, units: int, hidden: int) -> Network:
    """One of `VECTOR_NETS`, `MEAN`, or a cell: (n, 64) or (n, 8, 8) -> (n, 10)."""
    if net in CELLS:
        return models.network(RNNClassifier(len(NAMES), net, (units,)))
    if net == "mlp":
        return models.network(models.MLP((hidden,), len(NAMES)))
    linear = models.network(models.MLP((), len(NAMES)))
    return seen_as(linear, lambda x: jnp.mean(x, axis=1)) if net == MEAN else linear


def seen_as(network: Network, view: Callable[[Array], Array]) -> Network:
    """``network`` on ``view(x)`` instead of x."""

    def apply(params: PyTree, stats: PyTree, x: Array, *, key: Key | None, train: bool) -> tuple[Array, PyTree]:
        return network.apply(params, stats, view(x), key=key, train=train)

    return Network(lambda key, x: network.init(key, view(x)), apply)


def class_lane(
    key: Key,
    hparams: Mapping[str, Array],
    data: Mapping[str, Part],
    *,
    net: str,
    units: int,
    hidden: int,
    learning: Learning,
) -> dict[str, Any]:
    """Vector, or sequence, to vector: ``validation_loss`` (evaluations,), test ``accuracy`` (), ``diverged`` ()."""
    run_key, *keys = jax.random.split(key, 1 + len(data))
    splits = {}
    for (name, part), own in zip(data.items(), keys, strict=True):
        x = jnp.asarray(part.columns)
        x = x.reshape(len(x), -1) if net in VECTOR_NETS else x
        splits[name] = (x if name == "train" else in_order(own, x, None, hparams), jnp.asarray(part.y))
    test = splits.pop("test")
    network = classifier(net, units, hidden)

    def augment(key: Key, x: Array, h: Mapping[str, Array]) -> Array:
        return in_order(key, x, None, h)

    result = learn(run_key, hparams, network, losses.cross_entropy, splits, learning, augment)
    return {
        "validation_loss": result.history["validation_loss"],
        "accuracy": 1 - jnp.mean(losses.zero_one(answers(network, result, test[0]), test[1])),
        "diverged": result.diverged,
    }


# To the name


def caption_lane(
    key: Key,
    hparams: Mapping[str, Array],
    data: Mapping[str, Any],
    *,
    cell: str,
    units: int,
    embedding: int,
    letters: int,
    learning: Learning,
) -> dict[str, Any]:
    """Vector to sequence: a digit's name in letters, of a picture or, where ``hparams["blind"]`` is 1, of nothing.

    Returns:
      ``validation_loss`` (evaluations,); of the test pictures the share whose written name is right, ``exact``, or any
      digit's, ``name``, the bits of a whole name, ``name_bits``, and of each of its letters given those before,
      ``letter_bits`` (letters and the end,); ``diverged`` ().
    """
    names = jnp.asarray(data["captions"])
    model = SequenceGenerator(letters, cell, units, embedding)
    splits = {}
    for name in ("train", "validation", "test"):
        part = data[name]
        pixels = jnp.asarray(part.columns).reshape(len(part.y), -1) * (1.0 - hparams["blind"])
        tokens = names[part.y]
        splits[name] = (jnp.concatenate([pixels, tokens.astype(pixels.dtype)], axis=1), tokens)
    x, right = splits.pop("test")
    network = models.network(models.Joined(model, SIDE * SIDE))
    result = learn(key, hparams, network, losses.token_cross_entropy, splits, learning)
    written = generate(model, result.params["model"], x[:, : SIDE * SIDE], names.shape[1])
    bits, there = letter_bits(answers(network, result, x), right), right > 0
    same = jnp.all(written[:, None] == names[None], axis=2)
    return {
        "validation_loss": result.history["validation_loss"],
        "exact": jnp.mean(jnp.all(written == right, axis=1)),
        "name": jnp.mean(jnp.any(same, axis=1)),
        "name_bits": jnp.mean(jnp.sum(bits, axis=1)),
        "letter_bits": jnp.sum(bits, axis=0) / jnp.maximum(jnp.sum(there, axis=0), 1),
        "diverged": result.diverged,
    }


def letter_bits(logits: Array, tokens: Array) -> Array:
    """Bits of every token, 0 where it is padding: logits (n, t, k) and tokens (n, t) -> (n, t)."""
    chances = jax.nn.log_softmax(logits)
    own = jnp.take_along_axis(chances, tokens[:, :, None], axis=2)[:, :, 0]
    return jnp.where(tokens > 0, -own / jnp.log(2.0), 0)


# Every column to its digit


def tagger(net: str, units: int, hidden: int) -> Network:
    """One of `tag_nets`: columns (n, t, 8) -> logits (n, t, 11), 0 for none and d + 1 for the digit d."""
    tags = len(NAMES) + 1
    if net != ALONE:
        cell = net.partition(",")[0]
        return models.network(SequenceTagger(tags, cell, (units,), bidirectional=net != cell))
    each = seen_as(models.network(models.MLP((hidden,), tags)), lambda x: x.reshape(-1, SIDE))

    def apply(params: PyTree, stats: PyTree, x: Array, *, key: Key | None, train: bool) -> tuple[Array, PyTree]:
        logits, stats = each.apply(params, stats, x, key=key, train=train)
        return logits.reshape(*x.shape[:2], tags), stats

    return Network(each.init, apply)


def tag_lane(
    key: Key,
    hparams: Mapping[str, Array],
    data: Mapping[str, Part],
    *,
    net: str,
    units: int,
    hidden: int,
    digits: int,
    sizes: tuple[int, int, int],
    learning: Learning,
) -> dict[str, Any]:
    """Sequence to sequence, aligned: the digit that each column of a strip belongs to.

    Returns:
      ``validation_loss`` (evaluations,); share of test columns named right, ``accuracy`` (digits, 8) by the place of
      their digit in the strip and their own in it; ``diverged`` ().
    """
    run_key, *keys = jax.random.split(key, 1 + len(sizes))
    strips = {
        name: tuple(tagged_strips(own, data[name], n, digits))
        for name, own, n in zip(("train", "validation", "test"), keys, sizes, strict=True)
    }
    x, tags = strips.pop("test")
    network = tagger(net, units, hidden)
    result = learn(run_key, hparams, network, losses.token_cross_entropy, strips, learning)
    right = jnp.argmax(answers(network, result, x), axis=2) == tags
    return {
        "validation_loss": result.history["validation_loss"],
        "accuracy": jnp.mean(right.reshape(-1, digits, SIDE), axis=0),
        "diverged": result.diverged,
    }
