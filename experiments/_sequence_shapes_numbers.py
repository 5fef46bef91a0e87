"""A lane of the reader of numbers: columns of a strip into the words of the number that it shows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from experiments._sequence_shapes_lanes import EVALUATION_BATCH, Learning, in_order, learn
from experiments._sequence_shapes_strips import SIDE, WORDS, NumberStrips, number_strips
from nnjax import losses, models
from nnjax.batches import in_batches
from nnjax.data.text import END, PAD, START
from nnjax.models.tokens import shifted, written
from nnjax.models.translation import EncoderDecoder, Source
from nnjax.types import Array, Key, PyTree

CHANNELS = SIDE + 1
"""Values of a column: its pixels, and whether there is one."""
EXAMPLES = 3
"""Strips of the most digits whose reading is kept, at most."""


class StripReader(EncoderDecoder):
    """An `EncoderDecoder` that reads columns of pixels where that reads tokens.

    Input: source (n, 9 s), s columns of 8 pixels and a 1 each, zeros beyond a strip's end; ``source_vocabulary`` is
    not used. All else is as in `EncoderDecoder`.
    """

    def setup(self) -> None:
        """Layers by name."""
        super().setup()
        self.look = nn.Dense(self.embedding)

    def encode(self, source: Array, train: bool = False) -> tuple[Array, Source]:
        """The decoder's first state, and what it will look at."""
        columns = source.reshape(len(source), -1, CHANNELS)
        there = columns[:, :, SIDE] > 0
        values, finals = self.encoder(self.look(columns[:, :, :SIDE]), jnp.sum(there, axis=1))
        state = jnp.tanh(self.bridge(jnp.concatenate(finals, axis=1)))
        return state, Source(values, self._keys(values), there)


def reader(units: int, embedding: int) -> StripReader:
    """With additive attention (Bahdanau et al., 2015)."""
    return StripReader(1, len(WORDS), units, embedding, "additive")


def read(model: StripReader, params: PyTree, source: Array, steps: int) -> tuple[Array, Array]:
    """The likeliest word after the other: tokens (n, steps), and the attention (n, steps, s) with which each came."""
    variables = {"params": params}
    found: Any = model.apply(variables, source, method="encode")
    state, seen = found

    def after(state: Any, tokens: Array) -> tuple[Array, Any]:
        made: Any = model.apply(variables, seen, state, tokens, method="after")
        return made[0], made[1]

    logits, begun = after(state, jnp.full((len(source), 1), START))
    tokens = written(after, logits[:, -1], begun, steps, key=None, temperature=0.0, top_k=None, end=END)
    again: Any = model.apply(variables, seen, state, shifted(tokens), method="after")
    return tokens, jnp.where((tokens != PAD)[:, :, None], again[2], 0)


def on_own_digit(attention: Array, tells: Array) -> Array:
    """Share of words whose largest weight lies on a digit that they tell of, NaN where there is no word.

    Args:
      attention: (n, steps, 8 digits).
      tells: whether a word tells of a digit, (n, steps, digits); a step without any is no word.
    """
    digit = jnp.argmax(attention, axis=2) // SIDE
    own = jnp.take_along_axis(tells, digit[:, :, None], axis=2)[:, :, 0]
    return jnp.sum(own) / jnp.sum(jnp.any(tells, axis=2))


def number_lane(
    key: Key,
    hparams: Mapping[str, Array],
    data: Mapping[str, Any],
    *,
    units: int,
    embedding: int,
    digits: int,
    sizes: tuple[int, int, int],
    learning: Learning,
) -> dict[str, Any]:
    """Sequence to sequence of another length: a strip of 1 to ``digits`` digits to the words of its number.

    Args:
      sizes: strips in training, of all lengths by turns; in validation; and of each length in the test.

    Returns:
      ``validation_loss`` (evaluations,); ``exact`` (digits,), the share of test numbers read without mistake, by their
      number of digits; ``own`` (), of numbers of the most digits that were read right the share of words that look most
      at a digit that they tell of, 0 where none was; for `EXAMPLES` strips of the most digits the pixels ``strip``
      (examples, 8 digits, 8), the ``number`` (examples,), the ``words`` read (examples, steps) and their ``attention``
      (examples, steps, 8 digits); ``diverged`` ().
    """
    run_key, *keys = jax.random.split(key, 1 + 2 * len(sizes))
    splits, tokens = {}, jnp.asarray(data["names"].tokens)
    for place, (name, n) in enumerate(zip(("train", "validation", "test"), sizes, strict=True)):
        lengths = np.repeat(np.arange(1, digits + 1), n) if name == "test" else 1 + np.arange(n) % digits
        strips = number_strips(keys[2 * place], data[name], lengths, digits)
        if name != "train":
            strips = strips._replace(columns=_ordered(keys[2 * place + 1], strips.columns, hparams))
        splits[name] = strips
    model, test = reader(units, embedding), splits.pop("test")
    network = models.network(models.Joined(model, SIDE * digits * CHANNELS))
    pairs = {name: _joined(strips, tokens) for name, strips in splits.items()}

    def augment(key: Key, x: Array, h: Mapping[str, Array]) -> Array:
        source, rest = jnp.split(x, [SIDE * digits * CHANNELS], axis=1)
        columns = _ordered(key, source.reshape(len(x), -1, CHANNELS), h)
        return jnp.concatenate([columns.reshape(source.shape), rest], axis=1)

    result = learn(run_key, hparams, network, losses.token_cross_entropy, pairs, learning, augment)
    source = test.columns.reshape(len(test.columns), -1)
    found, attention = _read_in_batches(model, result.params["model"], source, tokens.shape[1])
    right = jnp.all(found == tokens[test.number], axis=1)
    longest = slice((digits - 1) * sizes[2], None)
    tells = jnp.asarray(data["names"].tells)[test.number[longest]] & right[longest, None, None]
    shown = slice(longest.start, longest.start + EXAMPLES)
    return {
        "validation_loss": result.history["validation_loss"],
        "exact": jnp.mean(right.reshape(digits, -1), axis=1),
        "own": jnp.nan_to_num(on_own_digit(attention[longest], tells)),
        "strip": test.columns[shown, :, :SIDE],
        "number": test.number[shown],
        "words": found[shown],
        "attention": attention[shown],
        "diverged": result.diverged,
    }


def _ordered(key: Key, columns: Array, hparams: Mapping[str, Array]) -> Array:
    return in_order(key, columns, columns[:, :, SIDE] > 0, hparams)


def _joined(strips: NumberStrips, tokens: Array) -> tuple[Array, Array]:
    """What `models.Joined` takes, and the right words."""
    target = tokens[strips.number]
    source = strips.columns.reshape(len(target), -1)
    return jnp.concatenate([source, target.astype(source.dtype)], axis=1), target


def _read_in_batches(model: StripReader, params: PyTree, source: Array, steps: int) -> tuple[Array, Array]:
    """`read` in bounded memory."""
    if len(source) <= EVALUATION_BATCH:
        return read(model, params, source, steps)
    found = jax.lax.map(lambda part: read(model, params, part, steps), in_batches(source, EVALUATION_BATCH))
    tokens, attention = (each.reshape(-1, *each.shape[2:])[: len(source)] for each in found)
    return tokens, attention
