"""One lane of the character models: a recurrent net reads a text, its state carried from piece to piece."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments._recurrent_training import falling_adam
from nnjax import losses, models
from nnjax.data.text import UNKNOWN
from nnjax.models import recurrent
from nnjax.models.sequences import SequenceTagger, continued
from nnjax.train import Config as TrainConfig
from nnjax.train import Network, make_train
from nnjax.types import Array, Key, PyTree

CELLS = tuple(recurrent.CELLS)
_GATES = {"rnn": 1, "lstm": 4, "gru": 3}

EVALUATION_BATCH = 512
"""Pieces at once in evaluation."""
PROMPT = 20
"""Characters of the test text, at most, that a net goes on from when it writes."""


def parameters_of(cell: str, units: int, vocabulary: int, embedding: int) -> int:
    """Parameters of the whole net: embedding, cell and output."""
    inside = _GATES[cell] * units * (embedding + units + 1)
    return vocabulary * embedding + inside + (units + 1) * vocabulary


def units_for(cell: str, parameters: int, vocabulary: int, embedding: int) -> int:
    """Units with which the net comes nearest to so many parameters, at least 1."""
    units = 1
    while parameters_of(cell, units + 1, vocabulary, embedding) <= parameters:
        units += 1
    here, more = (parameters_of(cell, units + step, vocabulary, embedding) for step in (0, 1))
    return units + int(more - parameters < parameters - here)


def bits(prediction: Array, target: Array) -> Array:
    """`nnjax.losses.token_cross_entropy` in bits a character."""
    return losses.token_cross_entropy(prediction, target) / jnp.log(2.0)


def each_bits(logits: Array, target: Array) -> Array:
    """Bits of every character, logits (n, t, k) and target (n, t) -> (n, t)."""
    n, t, k = logits.shape
    return losses.cross_entropy(logits.reshape(-1, k), target.reshape(-1)).reshape(n, t) / jnp.log(2.0)


def with_resets(network: Network, share: float) -> Network:
    """``network`` whose carried states are put to zero before a share of the pieces, drawn stream by stream.

    A net that has never begun anew does not know what to do with a state of zeros.
    """

    def apply(params: PyTree, stats: PyTree, x: Array, *, key: Key | None, train: bool) -> tuple[Array, PyTree]:
        if train and key is not None:
            kept = jax.random.bernoulli(jax.random.fold_in(key, 1), 1 - share, (len(x), 1))
            stats = jax.tree.map(lambda state: jnp.where(kept, state, 0), stats)
        return network.apply(params, stats, x, key=key, train=train)

    return Network(network.init, apply)


def window_starts(t: int, reach: int, count: int) -> np.ndarray:
    """Where windows of ``reach`` characters begin in a stream of t predictions, as far behind its start at least.

    Raises:
      ValueError: the stream is too short.
    """
    if t < 2 * reach:
        raise ValueError(f"reach={reach} must be at most half of the {t} characters of a test stream")
    return np.unique(np.linspace(reach, t - reach, count).astype(np.int32))


def reset_costs(
    model: SequenceTagger, params: PyTree, test: Array, whole: Array, starts: np.ndarray, reach: int
) -> Array:
    """Bits that a net needs more after its state was reset than with it carried, by characters seen since, (reach,).

    Args:
      test: streams (s, t + 1).
      whole: bits of their characters with the state carried, (s, t).
      starts: where in each stream the state is reset, (w,).
      reach: characters read after it.
    """
    places = jnp.asarray(starts)[:, None] + jnp.arange(reach)[None, :]
    x, y, carried = (a[:, places].reshape(-1, reach) for a in (test[:, :-1], test[:, 1:], whole))
    return jnp.mean(each_bits(_logits(model, params, x), y) - carried, axis=0)


def of_letters(params: PyTree) -> PyTree:
    """The parameters of a net with which it writes no reserved token: these have no chance, whatever is read."""
    output = params["logits"]
    return {**params, "logits": {**output, "bias": output["bias"].at[: UNKNOWN + 1].set(-jnp.inf)}}


def _logits(model: SequenceTagger, params: PyTree, x: Array) -> Array:
    """From a state of zeros, (n, t, k)."""
    return jnp.asarray(model.apply({"params": params}, x))


def lane(
    key: Key,
    hparams: Mapping[str, Array],
    data: Mapping[str, Array],
    *,
    cell: str,
    parameters: int,
    vocabulary: int,
    embedding: int,
    streams: int,
    resets: float,
    clip: float,
    windows: int,
    reach: int,
    temperatures: tuple[float, ...],
    sample: int,
    config: TrainConfig,
) -> dict[str, Any]:
    """A net of the cell on one text: bits along training and on the test text, after resets, and what it writes.

    Returns:
      ``running_bits``, ``validation_bits`` (evaluations,), ``test_bits`` (), ``reset_cost`` (reach,), ``sample``
      (temperatures, sample) tokens, ``diverged`` (). All but the first two are of the parameters with the least
      validation bits.
    """
    own = {name: each[hparams["seed"] % len(each)] for name, each in data.items()}
    units = units_for(cell, parameters, vocabulary, embedding)
    model = SequenceTagger(vocabulary, cell, (units,), vocabulary=vocabulary, embedding=embedding, streams=streams)
    splits = {
        "train": (own["x"], own["y"]),
        "validation": (own["validation"][:, :-1], own["validation"][:, 1:]),
    }

    train = make_train(
        with_resets(models.network(model), resets),
        losses.token_cross_entropy,
        lambda h: falling_adam(h["rate"], clip, config.steps or 0),
        config,
        metrics={"bits": bits},
    )
    run_key, draw_key = jax.random.split(key)
    result = train(run_key, hparams, splits)
    alone, test = model.clone(streams=None), own["test"]
    whole = each_bits(_logits(alone, result.params, test[:, :-1]), test[:, 1:])
    starts = window_starts(test.shape[1] - 1, reach, -(-windows // len(test)))
    prompt = test[:1, : min(PROMPT, test.shape[1])]
    letters = of_letters(result.params)
    written = jax.vmap(lambda each: continued(alone, letters, prompt, sample, key=draw_key, temperature=each)[0])(
        jnp.asarray(temperatures)
    )
    return {
        "running_bits": result.history["running_loss"] / jnp.log(2.0),
        "validation_bits": result.history["validation_bits"],
        "test_bits": jnp.mean(whole),
        "reset_cost": reset_costs(alone, result.params, test, whole, starts, reach),
        "sample": written,
        "diverged": result.diverged,
    }
