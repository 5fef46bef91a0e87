"""One lane of the translators: encoder and decoder learn from pairs of sentences, then write what they never saw."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from experiments._recurrent_training import falling_adam
from experiments._translation_corpora import source_of, target_of
from nnjax import losses, models
from nnjax.batches import in_batches
from nnjax.models.tokens import PAD
from nnjax.models.translation import EncoderDecoder, Joined, translate
from nnjax.train import Config as TrainConfig
from nnjax.train import Network, make_train
from nnjax.types import Array, Key, PyTree

NONE = "none"
ARMS = (NONE, "dot", "general", "additive")
"""What the decoder looks at the source with."""
GREEDY, BEAM = SEARCHES = ("greedy", "beam")

EVALUATION_BATCH = 64
"""Pairs at once in evaluation."""
WRITING_BATCH = 100
"""Sentences that are written at once."""


def halves(model: EncoderDecoder) -> Network:
    """The model as a network of one array, sources and targets side by side in halves.

    Unlike with a split at one place, parts of a data set can have columns of their own.
    """

    def joined(x: Array) -> Joined:
        return Joined(model, x.shape[1] // 2)

    def init(key: Key, x: Array) -> tuple[PyTree, PyTree]:
        return models.init(joined(x), key, x)

    def apply(params: PyTree, stats: PyTree, x: Array, *, key: Key | None, train: bool) -> tuple[Array, PyTree]:
        return models.apply(joined(x), params, stats, x, key=key, train=train)

    return Network(init, apply)


def weighted(x: Array) -> tuple[Array, Array, Array]:
    """Pairs, their targets, and the tokens of these as weights: a mean over pairs is then one over tokens."""
    target = target_of(x)
    return x, target, (target != PAD).sum(1).astype(jnp.float32)


def written(
    model: EncoderDecoder, params: PyTree, source: Array, steps: int, **search: Any
) -> tuple[jax.Array, jax.Array]:
    """What the model writes for sources (n, s), some at a time: tokens (n, steps), and its attention (n, steps, s)."""

    def some(part: Array) -> tuple[jax.Array, jax.Array]:
        found = translate(model, params, part, steps, **search)
        return found.tokens, found.attention

    if len(source) <= WRITING_BATCH:
        return some(source)
    found = jax.lax.map(some, in_batches(source, WRITING_BATCH))
    tokens, attention = (part.reshape(-1, *part.shape[2:])[: len(source)] for part in found)
    return tokens, attention


def lane(
    key: Key,
    hparams: Mapping[str, Array],
    data: Mapping[str, Array],
    *,
    attention: str,
    vocabularies: tuple[int, int],
    units: int,
    embedding: int,
    dropout: float,
    clip: float,
    steps: int,
    beams: int,
    length_penalty: float,
    looked: int,
    evaluations: int,
    config: TrainConfig,
) -> dict[str, Any]:
    """A translator with one kind of attention: its loss along training, and what it writes.

    Args:
      data: "train", "validation", "test", each (n, 2 w).
      steps: tokens to write at most.
      looked: test sentences, from the first on, whose attention is returned.

    Returns:
      ``running_loss``, ``validation_loss`` (evaluations,), nats a token; ``watched`` (evaluations, n, steps),
      validation sentences written greedily at each; ``written`` (searches, n, steps), test sentences, and ``weights``
      (looked, steps, s) of the greedy ones, by the parameters with the least validation loss, of ``chosen_update`` ();
      ``diverged`` ().
    """
    source, target = vocabularies
    kind = None if attention == NONE else attention
    model = EncoderDecoder(source, target, units, embedding, kind, dropout)
    train = make_train(
        halves(model), losses.token_cross_entropy, lambda h: falling_adam(h["rate"], clip, config.steps or 0), config
    )
    splits = {name: weighted(data[name]) for name in ("train", "validation")}
    validation, test = source_of(data["validation"]), source_of(data["test"])

    def piece(state: Any, _: None) -> tuple[Any, jax.Array]:
        state = train.advance(state, hparams, splits, 1)
        return state, written(model, state.params["model"], validation, steps)[0]

    state, watched = jax.lax.scan(piece, train.start(key, hparams, splits), length=evaluations)
    result = train.finish(state, splits)
    params = result.params["model"]
    greedy, weights = written(model, params, test, steps)
    beam, _ = written(model, params, test, steps, beams=beams, length_penalty=length_penalty)
    return {
        "running_loss": result.history["running_loss"],
        "validation_loss": result.history["validation_loss"],
        "watched": watched,
        "written": jnp.stack([greedy, beam]),
        "weights": weights[:looked],
        "chosen_update": result.step,
        "diverged": result.diverged,
    }
