"""Greedy layer-wise unsupervised pre-training: every layer an autoencoder of the codes of the layer below."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike

from nnjax.models import watch
from nnjax.models.linen import function_of
from nnjax.types import Array, Key, PyTree


class Pretrained(NamedTuple):
    """What `autoencode` returns.

    Attributes:
      params: the net's, with hidden layers trained and logits as they were.
      losses: reconstruction loss of every update, (depth, steps): mean over examples and inputs of the squared error.
    """

    params: PyTree
    losses: Array


def autoencode(
    params: PyTree,
    x: Array,
    *,
    activation: str | Callable[[Array], Array],
    key: Key,
    steps: int,
    learning_rate: ArrayLike,
    batch_size: int,
    corruption: ArrayLike = 0.0,
) -> Pretrained:
    """Train the hidden layers of a `nnjax.models.DeepMLP`, first to last, without labels (Bengio et al., 2007).

    Layer l, given the codes h of the layers below (for the first layer the inputs), learns to give them back as
    ``activation(h W + b) W^T + c``, with tied weights and a bias c that is thrown away: Adam on the mean squared error.
    The linear decoder suits codes without bounds; for a linear activation the best that it can reach is the error of as
    many principal components (Baldi and Hornik, 1989). Then its codes are the inputs of layer l + 1. All hidden layers
    but the first have one shape and run in one compiled loop. ``depth * steps`` updates in all, each of one layer.

    Args:
      params: of a `DeepMLP` with neither batch normalization nor shortcuts: ``{"first", "hidden", "logits"}``.
      x: inputs (n, ...), without labels.
      activation: that of the net; a function, or a name in `nnjax.activations`.
      key: draws batches and corruption.
      steps: updates of each layer.
      learning_rate: Adam's; may be traced.
      batch_size: examples an update, drawn with replacement; n of them are the whole set instead.
      corruption: probability that an entry of h is set to 0 before it is coded, while what is to be given back is h
        whole (denoising: Vincent et al., 2010); in [0, 1), may be traced.

    Returns:
      `Pretrained`; its ``params`` have the tree, shapes and dtypes of those given, and the same logits' layer.

    Raises:
      ValueError: no examples, ``steps`` or ``batch_size`` that is no whole number or out of range, a known
        ``learning_rate`` not above 0 or ``corruption`` outside [0, 1), params of another kind of net, or inputs of
        another size than the first layer's.
    """
    encode = function_of(activation)
    codes = jnp.asarray(x).reshape(watch.examples(x), -1)
    _check(params, codes, steps, batch_size)
    _check_numbers(learning_rate, corruption)

    def train(layer: PyTree, codes: Array, key: Key) -> tuple[PyTree, Array]:
        return _train_layer(
            layer, codes, key, encode=encode, steps=steps, rule=optax.adam(learning_rate), batch_size=batch_size,
            corruption=corruption,
        )  # fmt: skip

    def deeper(codes: Array, layer_and_number: tuple) -> tuple[Array, tuple]:
        layer, number = layer_and_number
        layer, losses = train(layer, codes, jax.random.fold_in(key, number))
        return _codes(encode, layer, codes), (layer, losses)

    codes = codes.astype(params["first"]["kernel"].dtype)
    first, losses = train(params["first"], codes, jax.random.fold_in(key, 0))
    found, losses = {**params, "first": first}, losses[None]
    if "hidden" in params:
        numbers = jnp.arange(1, len(params["hidden"]["kernel"]) + 1)
        _, (hidden, more) = jax.lax.scan(deeper, _codes(encode, first, codes), (params["hidden"], numbers))
        found, losses = {**found, "hidden": hidden}, jnp.concatenate([losses, more])
    return Pretrained(found, losses)


def _codes(encode: Callable[[Array], Array], layer: PyTree, h: Array) -> Array:
    """Codes (n, d_out) of h (n, d_in)."""
    return encode(h @ layer["kernel"] + layer["bias"][None])


def _train_layer(
    layer: PyTree,
    h: Array,
    key: Key,
    *,
    encode: Callable[[Array], Array],
    steps: int,
    rule: optax.GradientTransformation,
    batch_size: int,
    corruption: ArrayLike,
) -> tuple[PyTree, Array]:
    """One layer after ``steps`` updates as an autoencoder of h (n, d_in), and its losses (steps,)."""

    def loss(trained: tuple[PyTree, Array], batch: Array, noisy: Array) -> Array:
        layer, bias = trained
        return jnp.mean((_codes(encode, layer, noisy) @ layer["kernel"].T + bias[None] - batch) ** 2)

    def update(carry: tuple, step: Array) -> tuple[tuple, Array]:
        trained, state = carry
        pick, spoil = jax.random.split(jax.random.fold_in(key, step))
        batch = h if batch_size == len(h) else h[jax.random.randint(pick, (batch_size,), 0, len(h))]
        noisy = batch
        if _may_corrupt(corruption):
            noisy = jnp.where(jax.random.bernoulli(spoil, 1 - jnp.asarray(corruption), batch.shape), batch, 0)
        value, gradient = jax.value_and_grad(loss)(trained, batch, noisy)
        moves, state = rule.update(gradient, state, trained)
        return (optax.apply_updates(trained, moves), state), value

    start = (layer, jnp.zeros(h.shape[1], h.dtype))
    ((layer, _), _), losses = jax.lax.scan(update, (start, rule.init(start)), jnp.arange(steps))
    return layer, losses


def _check(params: PyTree, x: Array, steps: int, batch_size: int) -> None:
    if not {"first", "logits"} <= set(params) <= {"first", "hidden", "logits"} or "bias" not in params["first"]:
        raise ValueError(f"params {sorted(params)} must be those of a DeepMLP without batch normalization")
    d_in = params["first"]["kernel"].shape[0]
    if x.shape[1] != d_in:
        raise ValueError(f"x has {x.shape[1]} inputs an example and the first layer takes {d_in}")
    for name, number in (("steps", steps), ("batch_size", batch_size)):
        if not isinstance(number, int | np.integer) or isinstance(number, bool) or number < 1:
            raise ValueError(f"{name}={number!r} must be a whole number, at least 1")
    if batch_size > len(x):
        raise ValueError(f"batch_size={batch_size} must lie between 1 and the number of examples, {len(x)}")


def _check_numbers(learning_rate: Any, corruption: Any) -> None:
    # As floats: a comparison of arrays would be traced where anything else is.
    if not isinstance(learning_rate, jax.core.Tracer) and not 0 < float(learning_rate) < np.inf:
        raise ValueError(f"learning_rate={learning_rate} must be a finite number above 0")
    if not isinstance(corruption, jax.core.Tracer) and not 0 <= float(corruption) < 1:
        raise ValueError(f"corruption={corruption} must lie in [0, 1), the probability of setting an entry to 0")


def _may_corrupt(corruption: Any) -> bool:
    return isinstance(corruption, jax.core.Tracer) or float(corruption) > 0
