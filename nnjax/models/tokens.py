"""What the models of tokens share: their checks, where a sequence ends, and the loop that writes one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nnjax.data.text import END, PAD, START
from nnjax.models import parts
from nnjax.types import Array, Key

__all__ = ["END", "PAD", "START", "checked_tokens", "shifted", "token_lengths", "writable", "written"]


def checked_tokens(name: str, x: Any, vocabulary: int) -> jax.Array:
    """x once it is known to be tokens (n, t), t >= 1, of a vocabulary.

    Where their values are not known, while a program is compiled, a token outside gets a vector of NaN.

    Raises:
      ValueError: another shape or dtype, or a known value outside.
    """
    known = not isinstance(x, jax.core.Tracer)
    x = x if isinstance(x, jax.Array) else np.asarray(x)
    if x.ndim != 2 or not jnp.issubdtype(x.dtype, jnp.integer):
        raise ValueError(f"{name} has shape {x.shape} and dtype {x.dtype}; tokens are integers (n, t)")
    if x.shape[1] == 0:
        raise ValueError(f"{name} has shape {x.shape}; a sequence needs at least one token")
    if known and x.size:
        least, most = int(np.min(x)), int(np.max(x))
        if least < 0 or most >= vocabulary:
            raise ValueError(
                f"{name} has tokens from {least} to {most}; they must lie between 0 and {vocabulary - 1}, "
                f"the last of a vocabulary of {vocabulary}"
            )
    tokens = jnp.asarray(x)
    if jnp.iinfo(tokens.dtype).bits < 32:
        tokens = tokens.astype(jnp.int32)  # in which there is room for what follows
    # An embedding has NaN beyond its end; a negative number would count from there.
    return tokens if known else jnp.where(tokens < 0, vocabulary, tokens)


def token_lengths(tokens: Array) -> Array:
    """Tokens of each sequence up to the last that is not padding, (n,), for (n, t)."""
    steps = jnp.arange(1, tokens.shape[1] + 1)
    return jnp.max(jnp.where(tokens != PAD, steps[None, :], 0), 1)


def shifted(tokens: Array) -> Array:
    """Each token's predecessor, (n, t); the first's is the token 1."""
    return jnp.concatenate([jnp.full_like(tokens[:, :1], START), tokens[:, :-1]], 1)


def writable(logits: Array) -> jax.Array:
    """Logits (..., k) without a chance for padding and for a start, which no text has in it."""
    reserved = np.isin(np.arange(logits.shape[-1]), (PAD, START)).reshape(*[1] * (logits.ndim - 1), -1)
    return jnp.where(reserved, -jnp.inf, logits)


def written(
    after: Callable[[Any, Array], Any],
    logits: Array,
    state: Any,
    steps: int,
    *,
    key: Key | None,
    temperature: Any,
    top_k: int | None,
    end: int | None,
) -> jax.Array:
    """Tokens (n, steps) drawn one after another, the first by ``logits`` (n, k).

    Args:
      after: from a state and tokens (n, 1) to logits (n, 1, k) for what follows, and the next state.
      logits: for the first token.
      state: before it.
      steps: tokens to write.
      key: of the draws.
      temperature: logits are divided by it; 0 takes the likeliest token.
      top_k: only so many of the likeliest are drawn from; None for all.
      end: token after which only padding follows; None for none.

    Raises:
      ValueError: steps below 1, a negative temperature or one above 0 without a key, a top_k or an end that there is
        not in the vocabulary.
    """
    parts.count("steps", steps)
    vocabulary = logits.shape[-1]
    if top_k is not None and parts.count("top_k", top_k) > vocabulary:
        raise ValueError(f"top_k={top_k} must be at most the {vocabulary} tokens of the vocabulary")
    if end is not None and parts.count("end", end, 0) >= vocabulary:
        raise ValueError(f"end={end} must be one of the {vocabulary} tokens of the vocabulary, or None")
    choose = _choice(key, temperature, top_k)

    def step(carry: tuple, number: Array) -> tuple[tuple, jax.Array]:
        state, logits, over = carry
        token = jnp.where(over, PAD, choose(writable(logits), number)).astype(jnp.int32)
        if end is not None:
            over = over | (token == end)
        logits, state = after(state, token[:, None])
        return (state, logits[:, -1], over), token

    over = jnp.zeros(len(logits), bool)
    return jax.lax.scan(step, (state, logits, over), jnp.arange(steps))[1].T


def _choice(key: Key | None, temperature: Any, top_k: int | None) -> Callable[[Array, Array], Array]:
    """How the token number so and so is chosen by its logits (n, k)."""
    known = not isinstance(temperature, jax.core.Tracer)
    if known and not float(temperature) >= 0:
        raise ValueError(f"temperature={temperature} must be at least 0")
    if known and float(temperature) == 0:
        return lambda logits, number: jnp.argmax(logits, -1)
    if key is None:
        raise ValueError(f"temperature={temperature} needs a key for its draws")

    def draw(logits: Array, number: Array) -> Array:
        if top_k is not None:
            logits = jnp.where(logits < jax.lax.top_k(logits, top_k)[0][:, -1:], -jnp.inf, logits)
        cold = temperature == 0  # where it is traced
        drawn = jax.random.categorical(jax.random.fold_in(key, number), logits / jnp.where(cold, 1, temperature))
        return jnp.where(cold, jnp.argmax(logits, -1), drawn)

    return draw
