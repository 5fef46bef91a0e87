"""Recurrent models of the usual shapes: sequence to vector, sequence to sequence, and vector to sequence.

Tokens are integers: 0 is padding, which tells a model where a sequence ends, 1 starts a sequence and 2 ends it, as in
`nnjax.data`. Sequences of real values have the lengths that are given beside them, or all their steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.core import FrozenDict

from nnjax.models import parts
from nnjax.models.recurrent import Options, Stacked, cell_of, layer_of, sizes
from nnjax.models.tokens import END, START, checked_tokens, shifted, token_lengths, written
from nnjax.naming import choose
from nnjax.types import Array, Key, PyTree, floating


class RNNClassifier(Options):
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
        parameters are for; tokens outside the vocabulary (where traced, the outputs are NaN); lengths outside 0 to t;
        an unknown cell, pool or option; a size below 1; a dropout outside [0, 1].
    """

    classes: int = 2
    cell: str = "lstm"
    units: tuple[int, ...] = (64,)
    vocabulary: int | None = None
    embedding: int = 32
    pool: str = "last"
    bidirectional: bool = False
    dropout: Array | float = 0.0
    options: Mapping[str, Any] = FrozenDict()

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


class RNNForecaster(Options):
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
    options: Mapping[str, Any] = FrozenDict()

    @nn.compact
    def __call__(self, x: Array, lengths: Array | None = None, train: bool = False) -> Array:
        layers = Stacked(self.cell, self.units, False, self.dropout, self.options, name="layers")
        finals = layers(_real(x), lengths, train=train)[1]
        return nn.Dense(parts.count("outputs", self.outputs), name="forecast")(_top(finals[-1], False))


class SequenceTagger(Options):
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
        them. None for sequences of their own. To train on the pieces of `nnjax.data.next_token_batches`, give both of
        its arrays as ``reshape(-1, steps)``, and ``Config(shuffle=False, batch_size=streams)`` with ``accumulate=1``:
        in another order the states are noise. A new epoch starts from the states at the end of the one before.
        Evaluation starts from zeros: for a text with its state carried, give long streams of it (`nnjax.data.streams`)
        in one piece.
      options: further attributes of the recurrent layers.

    Input x, and lengths (n,) of real-valued sequences; output (n, t, classes).

    Raises (when initialized or applied):
      ValueError: as `RNNClassifier`; streams with bidirectional or reversed layers, or another number of them than
        there are sequences.
    """

    classes: int
    cell: str = "lstm"
    units: tuple[int, ...] = (128,)
    vocabulary: int | None = None
    embedding: int = 32
    bidirectional: bool = False
    dropout: Array | float = 0.0
    streams: int | None = None
    options: Mapping[str, Any] = FrozenDict()

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
            # In their own dtypes, as a training loop needs them.
            carry.value = jax.tree.map(lambda new, old: jax.lax.stop_gradient(new).astype(old.dtype), finals, initial)
        outputs = parts.dropout(self, outputs, self.dropout, train)
        logits = nn.Dense(parts.count("classes", self.classes), name="logits")(outputs)
        return (logits, finals) if states else logits

    def _carry(self, x: Array) -> Any:
        if self.streams is None:
            return None
        if self.bidirectional or self.options.get("reverse"):
            raise ValueError(f"streams={self.streams} need one direction, forward: a later batch cannot be known")
        n = parts.count("streams", self.streams)
        dtype = self.options.get("dtype") or jnp.promote_types(x.dtype, jnp.float32)
        return self.variable("carry", "states", lambda: zero_states(self.cell, self.units, n, dtype))


class SequenceGenerator(Options):
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
      ValueError: x or tokens of another shape or dtype, or not as many of both; x of another d than the parameters are
        for; tokens outside the vocabulary; an unknown cell or option; a size below 1.
    """

    vocabulary: int
    cell: str = "gru"
    units: int = 128
    embedding: int = 32
    options: Mapping[str, Any] = FrozenDict()

    def setup(self) -> None:
        """Layers by name."""
        self.embed = nn.Embed(parts.count("vocabulary", self.vocabulary), parts.count("embedding", self.embedding))
        self.layer = layer_of(self.cell, parts.count("units", self.units), self.options)
        self.start = [nn.Dense(self.units) for _ in jax.tree.leaves(zero_states(self.cell, (1,), 1))]
        self.logits = nn.Dense(self.vocabulary)

    def __call__(self, x: Array, tokens: Array, train: bool = False) -> Array:
        """Logits of every step, the right tokens before it given."""
        tokens, state = checked_tokens("tokens", tokens, self.vocabulary), self.begin(x)
        if len(tokens) != len(x):
            raise ValueError(f"tokens has {len(tokens)} rows and x has {len(x)}; each vector needs its own tokens")
        return self.after(state, shifted(tokens))[0]

    def begin(self, x: Array) -> Any:
        """The state that x (n, d) sets."""
        x = floating(x)
        if x.ndim != 2:
            raise ValueError(f"x has shape {x.shape}; SequenceGenerator takes vectors (n, d)")
        kernel = self.variables.get("params", {}).get("start_0", {}).get("kernel")
        if kernel is not None and kernel.shape[0] != x.shape[1]:
            raise ValueError(f"x has {x.shape[1]} values a vector, and these parameters are for {kernel.shape[0]}")
        first = [jnp.tanh(dense(x)) for dense in self.start]
        return first[0] if len(first) == 1 else tuple(first)

    def after(self, state: Any, tokens: Array) -> tuple[Array, Any]:
        """Logits (n, t, vocabulary) for what follows each of the tokens (n, t), and the state after them."""
        outputs, state = self.layer(self.embed(tokens), initial=state)
        return self.logits(outputs), state


def zero_states(cell: str, units: tuple[int, ...], n: int, dtype: Any = jnp.float32) -> tuple:
    """The states of n sequences that have not begun, one a layer."""
    layer = cell_of(cell)
    return tuple(layer(size, parent=None).zeros(n, dtype) for size in sizes(units))


def continued(
    model: SequenceTagger,
    params: PyTree,
    tokens: Array,
    steps: int,
    *,
    key: Key | None = None,
    temperature: Any = 0.0,
    top_k: int | None = None,
    end: int | None = None,
) -> jax.Array:
    """What a language model writes after the tokens; one compiled loop. Padding and starts are not drawn.

    Args:
      model: whose classes are its tokens.
      params: its parameters.
      tokens: (n, t), each sequence of at least one token (not checked where traced), padded with 0 at its end.
      steps: tokens to write.
      key: of the draws; not needed with temperature 0.
      temperature: logits are divided by it before a draw; 0 takes the likeliest token.
      top_k: draw from so many of the likeliest tokens only; None for all.
      end: token that ends a text, after which 0 follows, such as 2; None goes on to the end.

    Returns:
      (n, steps).

    Raises:
      ValueError: a model of real values, in both directions, or whose classes are not its tokens; a sequence without
        tokens; steps below 1; a negative temperature or one above 0 without a key; a top_k or an end that is not in
        the vocabulary.
    """
    vocabulary = _written_vocabulary(model)
    model = model.clone(streams=None)
    lengths = token_lengths(checked_tokens("tokens", tokens, vocabulary))
    if not isinstance(lengths, jax.core.Tracer) and len(lengths) and not lengths.min():
        raise ValueError(f"sequence {int(lengths.argmin())} of tokens is empty; give it a token to go on from")

    def after(states: Any, tokens: Array) -> Any:
        return model.apply({"params": params}, tokens, initial=states, states=True)

    logits, states = after(None, tokens)
    ends = jnp.maximum(lengths - 1, 0)[:, None, None]
    logits = jnp.take_along_axis(logits, ends, 1)[:, 0]
    return written(after, logits, states, steps, key=key, temperature=temperature, top_k=top_k, end=end)


def _written_vocabulary(model: SequenceTagger) -> int:
    """Number of tokens of a model that can write them."""
    if model.vocabulary is None:
        raise ValueError("vocabulary=None is for real values; a model that writes needs the number of its tokens")
    if model.classes != model.vocabulary:
        raise ValueError(f"classes={model.classes} must be vocabulary={model.vocabulary}, a model's tokens, to write")
    if model.bidirectional or model.options.get("reverse"):
        raise ValueError("a model that reads from the end, bidirectional or reverse, cannot write what comes next")
    return model.vocabulary


def generate(
    model: SequenceGenerator,
    params: PyTree,
    x: Array,
    steps: int,
    *,
    key: Key | None = None,
    temperature: Any = 0.0,
    top_k: int | None = None,
) -> jax.Array:
    """Sequences that start from vectors; one compiled loop.

    Args:
      model: the generator.
      params: its parameters.
      x: (n, d).
      steps: tokens at most.
      key: of the draws; not needed with temperature 0.
      temperature: logits are divided by it before a draw; 0 takes the likeliest token.
      top_k: draw from so many of the likeliest tokens only; None for all.

    Returns:
      Tokens (n, steps), padded with 0 after the token 2; no other is 0 or 1.

    Raises:
      ValueError: x of another shape than the parameters are for, or a vocabulary without the token 2; steps,
        temperature and top_k as `continued`.
    """

    def after(state: Any, tokens: Array) -> Any:
        return model.apply({"params": params}, state, tokens, method="after")

    state: Any = model.apply({"params": params}, x, method="begin")
    logits, state = after(state, jnp.full((len(x), 1), START))
    return written(after, logits[:, -1], state, steps, key=key, temperature=temperature, top_k=top_k, end=END)


def _inputs(model: Any, x: Array, lengths: Array | None) -> tuple[Array, Array | None]:
    """Vectors of each step, and the sequences' lengths; tokens are embedded."""
    if model.vocabulary is None:
        return _real(x), lengths
    if lengths is not None:
        raise ValueError("lengths are for real values; those of tokens are where their padding, 0, begins")
    size = parts.count("vocabulary", model.vocabulary)
    tokens = checked_tokens("x", x, size)
    embed = nn.Embed(size, parts.count("embedding", model.embedding), name="embed")
    return embed(tokens), token_lengths(tokens)


def _real(x: Array) -> Array:
    x = floating(x)
    return x[:, :, None] if x.ndim == 2 else x


def _top(final: Any, bidirectional: bool) -> Array:
    """h of a layer's final state, (n, h); of both directions side by side."""
    ends = final if bidirectional else (final,)
    return jnp.concatenate([end[0] if isinstance(end, tuple) else end for end in ends], 1)
