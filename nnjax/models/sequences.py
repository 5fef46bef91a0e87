"""Recurrent models of the usual shapes: sequence to vector, sequence to sequence, and vector to sequence.

Tokens are integers: 0 is padding, which tells a model where a sequence ends, 1 starts a sequence and 2 ends it, as in
`nnjax.data`. Sequences of real values have the lengths that are given beside them, or all their steps.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from nnjax.models import parts
from nnjax.models.recurrent import Stacked, cell_of
from nnjax.naming import choose
from nnjax.types import Array, Key, PyTree, floating

PADDING, START, END = 0, 1, 2
"""Reserved tokens."""


class RNNClassifier(nn.Module):
    """Sequence to vector: the class of a text or a series.

    Attributes:
      classes: number of outputs.
      cell: "rnn", "lstm" or "gru".
      units: of each recurrent layer; of each direction where ``bidirectional``.
      vocabulary: number of tokens, for x (n, t) of integers; None for real values (n, t, d) or (n, t).
      embedding: size of a token's vector.
      pool: what the logits see: the "last" state, or the "mean" of the outputs.
      bidirectional: every layer runs in both directions; "last" is then the state at each one's end.
      dropout: probability of dropping a value between layers and before the logits while training; may be traced.
      options: further attributes of the recurrent layers, such as ``{"reset_after": True}``.

    Input x, and lengths (n,) of real-valued sequences; output (n, classes).

    Raises (when initialized or applied):
      ValueError: x of another shape or dtype than above, without steps, or with another number of features than the
        parameters are for; lengths outside 0 to t; an unknown cell or pool; a size below 1; a dropout outside [0, 1].
    """

    classes: int = 2
    cell: str = "lstm"
    units: tuple[int, ...] = (64,)
    vocabulary: int | None = None
    embedding: int = 32
    pool: str = "last"
    bidirectional: bool = False
    dropout: Array | float = 0.0
    options: Any = None

    @nn.compact
    def __call__(self, x: Array, lengths: Array | None = None, train: bool = False) -> Array:
        pool = choose("pool", self.pool, ("last", "mean"))
        x, lengths = _inputs(self, x, lengths)
        layers = Stacked(self.cell, self.units, self.bidirectional, self.dropout, self.options, name="layers")
        outputs, finals = layers(x, lengths, train=train)
        if pool == "last":
            features = _top(finals[-1], self.bidirectional)
        else:
            steps = outputs.shape[1] if lengths is None else jnp.maximum(lengths, 1)[:, None].astype(outputs.dtype)
            features = outputs.sum(1) / steps  # zero beyond a sequence's end
        features = parts.dropout(self, features, self.dropout, train)
        return nn.Dense(parts.count("classes", self.classes), name="logits")(features)


class RNNForecaster(nn.Module):
    """Sequence to vector of real values: what comes after a window of a series.

    Attributes:
      outputs: number of values forecast.
      cell: "rnn", "lstm" or "gru".
      units: of each recurrent layer.
      dropout: probability of dropping a value between layers while training; may be traced.
      options: further attributes of the recurrent layers.

    Input (n, t, d), or (n, t) of one series, and optional lengths (n,); output (n, outputs).

    Raises (when initialized or applied):
      ValueError: as `RNNClassifier`.
    """

    outputs: int = 1
    cell: str = "gru"
    units: tuple[int, ...] = (32,)
    dropout: Array | float = 0.0
    options: Any = None

    @nn.compact
    def __call__(self, x: Array, lengths: Array | None = None, train: bool = False) -> Array:
        layers = Stacked(self.cell, self.units, False, self.dropout, self.options, name="layers")
        finals = layers(_real(x), lengths, train=train)[1]
        return nn.Dense(parts.count("outputs", self.outputs), name="forecast")(_top(finals[-1], False))


class SequenceTagger(nn.Module):
    """Sequence to sequence: an output at every step; with tokens and their successors, a language model.

    Attributes:
      classes: outputs a step.
      cell: "rnn", "lstm" or "gru".
      units: of each recurrent layer; of each direction where ``bidirectional``.
      vocabulary: number of tokens, for x (n, t) of integers; None for real values (n, t, d) or (n, t).
      embedding: size of a token's vector.
      bidirectional: every layer runs in both directions.
      dropout: probability of dropping a value between layers and before the logits while training; may be traced.
      streams: where a batch goes on with the sequences of the batch before, their number n: the final states are kept
        in the collection "carry" (among the statistics) and start the next training batch, without gradient between
        them. Evaluation starts from zeros. None for sequences of their own.
      options: further attributes of the recurrent layers.

    Input x, and lengths (n,) of real-valued sequences; output (n, t, classes).

    Raises (when initialized or applied):
      ValueError: as `RNNClassifier`; streams in both directions, or other than there are sequences.
    """

    classes: int
    cell: str = "lstm"
    units: tuple[int, ...] = (128,)
    vocabulary: int | None = None
    embedding: int = 32
    bidirectional: bool = False
    dropout: Array | float = 0.0
    streams: int | None = None
    options: Any = None

    @nn.compact
    def __call__(
        self, x: Array, lengths: Array | None = None, train: bool = False, initial: Any = None, states: bool = False
    ) -> Any:
        """Logits; with ``states`` also the final states, which ``initial`` takes."""
        x, lengths = _inputs(self, x, lengths)
        carry = self._carry(x)
        if carry is not None and train and not self.is_initializing():
            if self.streams != len(x):
                raise ValueError(f"x has {len(x)} sequences, and the states carried are of streams={self.streams}")
            initial = carry.value
        layers = Stacked(self.cell, self.units, self.bidirectional, self.dropout, self.options, name="layers")
        outputs, finals = layers(x, lengths, initial, train=train)
        if carry is not None and train and not self.is_initializing():
            carry.value = jax.lax.stop_gradient(finals)
        outputs = parts.dropout(self, outputs, self.dropout, train)
        logits = nn.Dense(parts.count("classes", self.classes), name="logits")(outputs)
        return (logits, finals) if states else logits

    def _carry(self, x: Array) -> Any:
        if self.streams is None:
            return None
        if self.bidirectional:
            raise ValueError(f"streams={self.streams} need bidirectional=False: a later batch cannot be known")
        n = parts.count("streams", self.streams)
        return self.variable("carry", "states", lambda: zero_states(self.cell, self.units, n, x.dtype))


class SequenceGenerator(nn.Module):
    """Vector to sequence: a vector sets the first state, and every token is drawn after those before it.

    Attributes:
      vocabulary: number of tokens.
      cell: "rnn", "lstm" or "gru".
      units: of the recurrent layer.
      embedding: size of a token's vector.
      options: further attributes of the recurrent layer.

    Input x (n, d) and the right tokens (n, t), of which each step sees the one before (teacher forcing; Williams and
    Zipser, 1989), the first the token 1; output: logits (n, t, vocabulary). `generate` makes sequences.

    Raises (when initialized or applied):
      ValueError: x or tokens of another shape or dtype; an unknown cell; a size below 1.
    """

    vocabulary: int
    cell: str = "gru"
    units: int = 128
    embedding: int = 32
    options: Any = None

    def setup(self) -> None:
        """Layers by name."""
        self.embed = nn.Embed(parts.count("vocabulary", self.vocabulary), parts.count("embedding", self.embedding))
        self.layer = cell_of(self.cell)(parts.count("units", self.units), **dict(self.options or {}))
        self.start = [nn.Dense(self.units) for _ in jax.tree.leaves(zero_states(self.cell, (1,), 1))]
        self.logits = nn.Dense(self.vocabulary)

    def __call__(self, x: Array, tokens: Array, train: bool = False) -> Array:
        """Logits of every step, the right tokens before it given."""
        return self.after(self.begin(x), shifted(_tokens(tokens)))[0]

    def begin(self, x: Array) -> Any:
        """The state that x (n, d) sets."""
        x = floating(x)
        if x.ndim != 2:
            raise ValueError(f"x has shape {x.shape}; SequenceGenerator takes vectors (n, d)")
        first = [jnp.tanh(dense(x)) for dense in self.start]
        return first[0] if len(first) == 1 else tuple(first)

    def after(self, state: Any, tokens: Array) -> tuple[Array, Any]:
        """Logits (n, t, vocabulary) for what follows each of the tokens (n, t), and the state after them."""
        outputs, state = self.layer(self.embed(tokens), initial=state)
        return self.logits(outputs), state


def zero_states(cell: str, units: tuple[int, ...], n: int, dtype: Any = jnp.float32) -> tuple:
    """The states of n sequences that have not begun, one a layer."""
    layer = cell_of(cell)
    return tuple(layer(size, parent=None).zeros(n, dtype) for size in units)


def shifted(tokens: Array) -> Array:
    """Each token's predecessor, (n, t); the first's is the token 1."""
    return jnp.concatenate([jnp.full_like(tokens[:, :1], START), tokens[:, :-1]], 1)


def continued(
    model: SequenceTagger, params: PyTree, tokens: Array, steps: int, *, key: Key | None = None, temperature: Any = 0.0
) -> jax.Array:
    """What a language model writes after the tokens; one compiled loop.

    Args:
      model: whose classes are its tokens.
      params: its parameters.
      tokens: (n, t), all of the same length.
      steps: tokens to write.
      key: of the draws; not needed with temperature 0.
      temperature: logits are divided by it before a draw; 0 takes the likeliest token.

    Returns:
      (n, steps).

    Raises:
      ValueError: steps below 1, a negative temperature or one above 0 without a key.
    """
    model = model.clone(streams=None)

    def after(states: Any, tokens: Array) -> Any:
        return model.apply({"params": params}, tokens, initial=states, states=True)

    logits, states = after(None, _tokens(tokens))
    return _written(after, logits[:, -1], states, steps, key, temperature, None)


def generate(
    model: SequenceGenerator, params: PyTree, x: Array, steps: int, *, key: Key | None = None, temperature: Any = 0.0
) -> jax.Array:
    """Sequences that start from vectors; one compiled loop.

    Args:
      model: the generator.
      params: its parameters.
      x: (n, d).
      steps: tokens at most.
      key: of the draws; not needed with temperature 0.
      temperature: logits are divided by it before a draw; 0 takes the likeliest token.

    Returns:
      Tokens (n, steps), padded with 0 after the token 2.

    Raises:
      ValueError: as `continued`.
    """

    def after(state: Any, tokens: Array) -> Any:
        return model.apply({"params": params}, state, tokens, method="after")

    state: Any = model.apply({"params": params}, x, method="begin")
    logits, state = after(state, jnp.full((len(x), 1), START))
    return _written(after, logits[:, -1], state, steps, key, temperature, END)


def _written(
    after: Callable[[Any, Array], Any],
    logits: Array,
    state: Any,
    steps: int,
    key: Key | None,
    temperature: Any,
    end: int | None,
) -> jax.Array:
    """Tokens (n, steps) drawn one after another, the first by ``logits`` (n, k)."""
    parts.count("steps", steps)
    draws = isinstance(temperature, jax.core.Tracer) or temperature != 0
    if draws and not isinstance(temperature, jax.core.Tracer) and temperature < 0:
        raise ValueError(f"temperature={temperature} must be at least 0")
    if draws and key is None:
        raise ValueError(f"temperature={temperature} needs a key for its draws")

    def step(carry: tuple, number: Array) -> tuple[tuple, jax.Array]:
        state, logits, over = carry
        if key is not None and draws:
            drawn = jax.random.categorical(jax.random.fold_in(key, number), logits / temperature)
        else:
            drawn = jnp.argmax(logits, -1)
        token = jnp.where(over, PADDING, drawn).astype(jnp.int32)
        if end is not None:
            over = over | (token == end)
        logits, state = after(state, token[:, None])
        return (state, logits[:, -1], over), token

    over = jnp.zeros(len(logits), bool)
    return jax.lax.scan(step, (state, logits, over), jnp.arange(steps))[1].T


def _inputs(model: Any, x: Array, lengths: Array | None) -> tuple[Array, Array | None]:
    """Vectors of each step, and the sequences' lengths; tokens are embedded."""
    if model.vocabulary is None:
        return _real(x), lengths
    if lengths is not None:
        raise ValueError("lengths are for real values; those of tokens are where their padding, 0, begins")
    tokens, size = _tokens(x), parts.count("vocabulary", model.vocabulary)
    embed = nn.Embed(size, parts.count("embedding", model.embedding), name="embed")
    return embed(tokens), token_lengths(tokens)


def token_lengths(tokens: Array) -> Array:
    """Tokens of each sequence up to the last that is not padding, (n,), for (n, t)."""
    steps = jnp.arange(1, tokens.shape[1] + 1)
    return jnp.max(jnp.where(tokens != PADDING, steps[None, :], 0), 1)


def _tokens(x: Array) -> Array:
    x = jnp.asarray(x)
    if x.ndim != 2 or not jnp.issubdtype(x.dtype, jnp.integer):
        raise ValueError(f"x has shape {x.shape} and dtype {x.dtype}; tokens are integers (n, t)")
    if x.shape[1] == 0:
        raise ValueError(f"x has shape {x.shape}; a sequence needs at least one token")
    return x


def _real(x: Array) -> Array:
    x = floating(x)
    return x[:, :, None] if x.ndim == 2 else x


def _top(final: Any, bidirectional: bool) -> Array:
    """h of a layer's final state, (n, h); of both directions side by side."""
    ends = final if bidirectional else (final,)
    return jnp.concatenate([end[0] if isinstance(end, tuple) else end for end in ends], 1)
