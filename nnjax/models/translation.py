"""Encoder and decoder: one sequence of tokens into another of its own length, with attention, and beam search."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from nnjax.models import parts
from nnjax.models.recurrent import GRU, Bidirectional
from nnjax.models.tokens import END, PAD, START, checked_tokens, shifted, token_lengths, writable
from nnjax.naming import choose
from nnjax.recurrent import sequence_mask
from nnjax.types import Array, PyTree

_ATTENTION = ("dot", "general", "additive")


class Source(NamedTuple):
    """What a decoder sees of the source: values and keys (n, s, h), and whether a place holds a token (n, s)."""

    values: Array
    keys: Array
    there: Array


class Translation(NamedTuple):
    """What `translate` found.

    Attributes:
      tokens: (n, t), padded with 0 after the token 2.
      score: log-probability of the tokens, over their number to the power ``length_penalty``, (n,).
      attention: weight of each source place at each token, (n, t, s); zeros for a model without attention.
    """

    tokens: jax.Array
    score: jax.Array
    attention: jax.Array


class EncoderDecoder(nn.Module):
    """A GRU reads the source in both directions, another writes the target (Cho et al., 2014; Sutskever et al., 2014).

    The encoder's final states set the decoder's first. With attention a decoder's state h looks at all of the encoder's
    outputs m: their mean with weights softmax(score) joins h before the logits, as in Luong et al. (2015), whose scores
    are "dot", h . m, where m is the sum of both directions, and "general", h . U m with both side by side; "additive"
    is that of Bahdanau et al. (2015), v . tanh(W h + U m).

    Attributes:
      source_vocabulary: number of tokens of the source.
      target_vocabulary: number of tokens of the target.
      units: of the decoder, and of each direction of the encoder.
      embedding: size of a token's vector.
      attention: "dot", "general", "additive", or None.
      dropout: probability of dropping a value of the embeddings, and of what the logits see, while training; may be
        traced.

    Input: source tokens (n, s) and the right target tokens (n, t), each ended by 2 and padded with 0; a step sees the
    right token before it (teacher forcing). Output: logits (n, t, target_vocabulary). `translate` finds targets.

    Raises (when initialized or applied):
      ValueError: tokens of another shape or dtype, without a step, or outside their vocabulary (where traced, the
        logits are NaN); an unknown attention; a size below 1, or a dropout outside [0, 1].
    """

    source_vocabulary: int
    target_vocabulary: int
    units: int = 128
    embedding: int = 64
    attention: str | None = "additive"
    dropout: Array | float = 0.0

    def setup(self) -> None:
        """Layers by name."""
        units, embedding = parts.count("units", self.units), parts.count("embedding", self.embedding)
        self.embed_source = nn.Embed(parts.count("source_vocabulary", self.source_vocabulary), embedding)
        self.embed_target = nn.Embed(parts.count("target_vocabulary", self.target_vocabulary), embedding)
        self.encoder = Bidirectional("gru", units)
        self.bridge = nn.Dense(units)
        self.decoder = GRU(units)
        self.logits = nn.Dense(self.target_vocabulary)
        if self.attention is not None:
            choose("attention", self.attention, _ATTENTION)
            self.join = nn.Dense(units)
        if self.attention in ("general", "additive"):
            self.key = nn.Dense(units, use_bias=False)
        if self.attention == "additive":
            self.query, self.score = nn.Dense(units, use_bias=False), nn.Dense(1, use_bias=False)

    def __call__(self, source: Array, target: Array, train: bool = False) -> Array:
        """Logits of every step, the right tokens before it given."""
        state, seen = self.encode(source, train)
        return self.after(seen, state, shifted(checked_tokens("target", target, self.target_vocabulary)), train)[0]

    def encode(self, source: Array, train: bool = False) -> tuple[Array, Source]:
        """The decoder's first state, and what it will look at."""
        tokens = checked_tokens("source", source, self.source_vocabulary)
        lengths = token_lengths(tokens)
        x = parts.dropout(self, self.embed_source(tokens), self.dropout, train)
        values, finals = self.encoder(x, lengths)  # both directions side by side
        state = jnp.tanh(self.bridge(jnp.concatenate(finals, 1)))
        return state, Source(values, self._keys(values), sequence_mask(lengths, tokens.shape[1]))

    def after(self, seen: Source, state: Array, tokens: Array, train: bool = False) -> tuple[Array, Array, Array]:
        """Logits for what follows each of the tokens (n, t), the state after them, and the attention (n, t, s)."""
        x = parts.dropout(self, self.embed_target(tokens), self.dropout, train)
        h, state = self.decoder(x, initial=state)
        weights = jnp.zeros((*tokens.shape, seen.there.shape[1]), h.dtype)
        if self.attention is not None:
            weights = self._weights(seen, h)
            mean = jnp.einsum("nts,nsh->nth", weights, seen.values)
            h = jnp.tanh(self.join(jnp.concatenate([h, mean], 2)))
        return self.logits(parts.dropout(self, h, self.dropout, train)), state, weights

    def _keys(self, values: Array) -> Array:
        if self.attention == "dot":
            return values[:, :, : self.units] + values[:, :, self.units :]
        return values if self.attention is None else self.key(values)

    def _weights(self, seen: Source, h: Array) -> jax.Array:
        if self.attention == "additive":
            scores = self.score(jnp.tanh(self.query(h)[:, :, None] + seen.keys[:, None]))[..., 0]
        else:
            scores = jnp.einsum("nth,nsh->nts", h, seen.keys)
        # A source without tokens gives every place the same weight, not 0/0.
        least = jnp.finfo(scores.dtype).min
        return jax.nn.softmax(jnp.where(seen.there[:, None], scores, least), -1)


class Joined(nn.Module):
    """A model of two inputs as one of a single array, which `nnjax.train` takes: both side by side, split again here.

    Attributes:
      model: called as ``model(first, second, train)``: an `EncoderDecoder` or a `SequenceGenerator`.
      split: columns of the first; the others are tokens.

    Input (n, split + t); output that of the model. x of floats is for a `SequenceGenerator` alone, whose vectors are
    real; in 32 bits tokens are exact up to 2^24.

    Raises (when initialized or applied):
      ValueError: x of other than two axes, of no more than ``split`` columns, or of floats of fewer than 32 bits, which
        would round the tokens.
    """

    model: nn.Module
    split: int

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        x = jnp.asarray(x)
        if x.ndim != 2 or not 1 <= self.split < x.shape[1]:
            raise ValueError(
                f"x has shape {x.shape}; it must be (n, columns) with more than split={self.split} of them"
            )
        second = x[:, self.split :]
        if not jnp.issubdtype(x.dtype, jnp.integer):
            if x.dtype.itemsize < 4:
                raise ValueError(f"x has dtype {x.dtype}, which rounds tokens; give floats of at least 32 bits")
            second = second.astype(jnp.int32)
        return self.model(x[:, : self.split], second, train)


class _Beams(NamedTuple):
    """k hypotheses for each of n sources: what is written, (n, k, ...)."""

    tokens: jax.Array
    attention: jax.Array
    score: jax.Array
    over: jax.Array
    state: jax.Array
    logits: jax.Array


def translate(
    model: EncoderDecoder,
    params: PyTree,
    source: Array,
    steps: int,
    *,
    beams: int = 1,
    length_penalty: float = 0.0,
) -> Translation:
    """The likeliest targets by beam search, one compiled loop; greedy search with one beam.

    Args:
      model: the model.
      params: its parameters.
      source: tokens (n, s).
      steps: tokens of a target at most, its end included.
      beams: hypotheses kept for each source (Graves, 2012; Sutskever et al., 2014).
      length_penalty: the hypothesis chosen at the end has the greatest log-probability / length^length_penalty, at
        least 0; 0 prefers short targets, 1 has the mean over tokens.

    Returns:
      Tokens, score and attention. Padding and starts have no chance: the others' are what the model gives them relative
      to one another, summed in float32 at least.

    Raises:
      ValueError: steps or beams below 1, more beams than tokens, a length_penalty that is negative or not finite, or a
        source that is not of tokens.
    """
    parts.count("steps", steps)
    k = parts.count("beams", beams)
    if k > model.target_vocabulary:
        raise ValueError(f"beams={k} must be at most target_vocabulary={model.target_vocabulary}")
    if not isinstance(length_penalty, jax.core.Tracer) and not 0 <= float(length_penalty) < math.inf:
        raise ValueError(f"length_penalty={length_penalty} must be finite and at least 0")
    variables, tokens = {"params": params}, checked_tokens("source", source, model.source_vocabulary)
    n, s = tokens.shape
    found: Any = model.apply(variables, tokens, method="encode")
    state, seen = jax.tree.map(lambda a: jnp.repeat(a, k, 0), found)

    def after(state: jax.Array, tokens: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        made: Any = model.apply(variables, seen, _flat(state), _flat(tokens)[:, None], method="after")
        logits, state, attention = made
        logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))  # small chances add up along a target
        return logits.reshape(n, k, -1), state.reshape(n, k, -1), attention.reshape(n, k, -1)

    def step(beams: _Beams, place: jax.Array) -> tuple[_Beams, None]:
        parent, token, score = _best(beams)
        beams = jax.tree.map(lambda a: _taken(a, parent), beams)
        logits, state, attention = after(beams.state, token)
        over = beams.over | (token == END)
        # What was looked at when this token was drawn came with the logits that drew it.
        tokens = beams.tokens.at[:, :, place].set(token)
        seen_at = beams.attention.at[:, :, place + 1].set(attention, mode="drop")
        return _Beams(tokens, seen_at, score, over, state, logits), None

    logits, state, attention = after(state.reshape(n, k, -1), jnp.full((n, k), START))
    looked = jnp.zeros((n, k, steps, s), attention.dtype).at[:, :, 0].set(attention)
    score = jnp.where(jnp.arange(k) == 0, 0.0, -jnp.inf).astype(logits.dtype)  # all beams begin alike: one counts
    first = _Beams(
        jnp.full((n, k, steps), PAD, jnp.int32), looked, jnp.tile(score[None], (n, 1)),
        jnp.zeros((n, k), bool), state, logits,
    )  # fmt: skip
    return _chosen(jax.lax.scan(step, first, jnp.arange(steps))[0], length_penalty)


def _best(beams: _Beams) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The k best continuations of k hypotheses: the hypothesis, the token and the score of each, (n, k)."""
    n, k, vocabulary = beams.logits.shape
    ended = jnp.where(jnp.arange(vocabulary) == PAD, 0.0, -jnp.inf).astype(beams.logits.dtype)
    going = jax.nn.log_softmax(writable(beams.logits))  # padding only follows an end
    chances = jnp.where(beams.over[:, :, None], ended[None, None], going)
    score, place = jax.lax.top_k((beams.score[:, :, None] + chances).reshape(n, -1), k)
    return place // vocabulary, (place % vocabulary).astype(jnp.int32), score


def _chosen(beams: _Beams, length_penalty: float) -> Translation:
    """The best hypothesis of each source."""
    length = (beams.tokens != PAD).sum(2).astype(beams.score.dtype)
    score = beams.score / jnp.maximum(length, 1) ** length_penalty
    best = jnp.argmax(score, 1)[:, None]
    tokens, attention, score = (_taken(a, best)[:, 0] for a in (beams.tokens, beams.attention, score))
    return Translation(tokens, score, jnp.where((tokens != PAD)[:, :, None], attention, jnp.zeros_like(attention)))


def _flat(a: jax.Array) -> jax.Array:
    """(n, k, ...) as (n k, ...)."""
    return a.reshape(-1, *a.shape[2:])


def _taken(a: jax.Array, places: jax.Array) -> jax.Array:
    """a (n, k, ...) at the places (n, j) of its second axis."""
    return jnp.take_along_axis(a, places.reshape(*places.shape, *[1] * (a.ndim - 2)), 1)
