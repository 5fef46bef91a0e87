"""Back-percolation 1 (Jurik): each unit gets an error of its own output to remove, not a gradient to follow.

Online, layer by layer, all with the old weights. f = tanh(x/2), so f' = (1 - o^2)/2. For an output unit with
d = t - o the gradient is g = -2 d f' and the error e = magnification * d. Unit k, whose inputs are o_j, has

    S = 1e-6 + sum_j o_j^2,    N = S + sum_j |w_kj| over hidden inputs j,

moves by dw_kj = o_j e_k / (1 + S), db_k = e_k / (1 + S), and tells each input j what it should change:

    message w_kj e_k / N with weight m_kj = (w_kj g_k)^2.

A hidden unit's error is f' times the weighted mean of its messages, its gradient is f' sum_k w_kj g_k as ever.
The magnification adapts once an epoch. The rule needs to know which weights belong to one unit, so that it is no
transformation of gradients.

Sources: Jurik's Backpercolation 1, as the Stuttgart Neural Network Simulator runs it (Zell et al., 1998). The
course of training depends on what these leave to the user: XOR asks for +-1 coding, and for a start wider than
U(-1, 1)/fan_in.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from nnjax.types import Array, Key

TINY = 1e-6
"""Keeps S and the sum of message weights off zero."""


@dataclass(frozen=True)
class Config:
    """What is static in a net.

    Attributes:
      sizes: units of each layer, inputs first, outputs last.
      start: weights start uniform on +-start/fan_in, biases at zero.

    Raises:
      ValueError: sizes that are not two or more positive integers, or a start that is not positive.
    """

    sizes: tuple[int, ...] = (2, 4, 1)
    start: float = 4.0

    def __post_init__(self) -> None:
        if len(self.sizes) < 2 or any(not isinstance(size, int) or size < 1 for size in self.sizes):
            raise ValueError(f"sizes={self.sizes} must be two or more positive integers, inputs first")
        if not self.start > 0:
            raise ValueError(f"start={self.start} must be positive")


class State(NamedTuple):
    """What learning carries.

    Attributes:
      weights: (d_in, d_out) for each layer.
      biases: (d_out,) for each layer.
      magnification: () factor on the outputs' errors (lambda).
      error: () mean |target - output| that the magnification was last adapted to.
    """

    weights: tuple[Array, ...]
    biases: tuple[Array, ...]
    magnification: Array
    error: Array


class Info(NamedTuple):
    """What an epoch reports: the mean |target - output|, each taken before its example's update, ()."""

    error: Array


class Trace(NamedTuple):
    """What training reports.

    Attributes:
      error: (epochs,) as `Info`.
      magnification: (epochs,) after each epoch.
      worst: (epochs + 1,) largest |target - output| before training and after each epoch.
      solved_at: () epochs after which ``worst`` was first below the criterion, -1 where it never was.
      converged: () bool, whether it ever was.
    """

    error: Array
    magnification: Array
    worst: Array
    solved_at: Array
    converged: Array


def init(
    key: Key, config: Config, *, magnification: Array | float = 1.0, scale: Array | float = 1.0, dtype: Any = float
) -> State:
    """Weights uniform on +-scale start/fan_in, biases zero.

    Args:
      key: random key; every layer draws from a key of its own.
      config: the net.
      magnification: lambda at the start, may be traced.
      scale: factor on ``config.start``, may be traced.
      dtype: floating dtype; by default JAX's current one.
    """
    dtype = jnp.result_type(dtype)
    weights = []
    for layer, shape in enumerate(pairwise(config.sizes)):
        draw = jax.random.uniform(jax.random.fold_in(key, layer), shape, dtype, minval=-1.0, maxval=1.0)
        weights.append((draw * (scale * config.start / shape[0])).astype(dtype))
    biases = tuple(jnp.zeros(size, dtype) for size in config.sizes[1:])
    return State(tuple(weights), biases, jnp.asarray(magnification, dtype), jnp.ones((), dtype))


def forward(state: State, x: Array) -> tuple[Array, ...]:
    """Outputs of every layer, (..., size): the inputs (..., d_in) themselves first, the net's outputs last."""
    x = jnp.asarray(x, jnp.result_type(state.weights[0]))
    if x.ndim < 1 or x.shape[-1] != len(state.weights[0]):
        raise ValueError(f"x must have shape (..., {len(state.weights[0])}), got {x.shape}")
    outputs = [x]
    for weights, bias in zip(state.weights, state.biases, strict=True):
        net = jnp.matmul(outputs[-1], weights, precision="highest")
        outputs.append(jnp.tanh((net + jnp.broadcast_to(bias, net.shape)) / 2))
    return tuple(outputs)


def present(state: State, x: Array, target: Array, *, tolerance: Array | float = 0.0) -> tuple[State, Array]:
    """Show one example and learn from it; the magnification stays.

    Args:
      state: the net.
      x: (d_in,).
      target: (k,), within [-1, 1].
      tolerance: outputs at most this far from their target send no error and count as right, may be traced.

    Returns:
      The new state, and |target - output| of each output, (k,), 0 within the tolerance.

    Raises:
      ValueError: ``x`` or ``target`` do not have the net's shapes.
    """
    outputs = forward(state, x)
    target = jnp.asarray(target, outputs[-1].dtype)
    if outputs[0].ndim != 1 or target.shape != outputs[-1].shape:
        shapes = f"x ({outputs[0].shape[-1]},) and target ({outputs[-1].shape[-1]},)"
        raise ValueError(f"expected {shapes}, got x {outputs[0].shape} and target {target.shape}")
    difference = target - outputs[-1]
    difference = jnp.where(jnp.abs(difference) > tolerance, difference, 0)
    grad: Array = -2 * difference * _slope(outputs[-1])
    error: Array = state.magnification * difference
    weights, biases = list(state.weights), list(state.biases)
    for layer in reversed(range(len(weights))):
        old, inputs = state.weights[layer], outputs[layer]
        square = TINY + jnp.sum(inputs**2)
        norm = square + jnp.sum(jnp.abs(old), axis=0) if layer else jnp.broadcast_to(square, error.shape)
        pull = error / (1 + square)
        weights[layer] = old + inputs[:, None] * pull[None, :]
        biases[layer] = biases[layer] + pull
        if layer:
            influence = old * grad[None, :]
            share = influence**2
            wanted = jnp.sum(old * (error / norm)[None, :] * share, axis=1) / (TINY + jnp.sum(share, axis=1))
            grad = _slope(inputs) * jnp.sum(influence, axis=1)
            error = _slope(inputs) * wanted
    return state._replace(weights=tuple(weights), biases=tuple(biases)), jnp.abs(difference)


def step(
    state: State,
    batch: tuple[Array, Array],
    key: Key | None = None,
    *,
    threshold: Array | float = 0.2,
    tolerance: Array | float = 0.0,
) -> tuple[State, Info]:
    """One epoch: every example in turn, then the magnification.

    With p the epoch's mean |target - output| and p_old the last one: below the threshold p becomes the mean of
    both and the magnification is multiplied by exp((p_old - p)/(p_old + p)), kept within [0.5, 1.05].

    Args:
      state: from `init`.
      batch: x (n, d_in) and targets (n, k).
      key: shuffles the examples; None keeps their order.
      threshold: mean error below which the magnification adapts (theta); 0 never, may be traced.
      tolerance: see `present`; outputs within it count 0 in p.

    Returns:
      The new state, and `Info`.

    Raises:
      ValueError: arrays that do not have the net's shapes.
    """
    x, target = _checked(state, batch)
    order = jnp.arange(len(x)) if key is None else jax.random.permutation(key, len(x))

    def show(state: State, example: tuple[Array, Array]) -> tuple[State, Array]:
        return present(state, *example, tolerance=tolerance)

    state, differences = jax.lax.scan(show, state, (x[order], target[order]))
    found = jnp.mean(differences)
    adapts = found < threshold
    error = jnp.where(adapts, (state.error + found) / 2, found)
    total = state.error + error  # 0 only where every output was right, twice
    change = jnp.exp(jnp.where(total > 0, state.error - error, 0) / jnp.where(total > 0, total, 1))
    magnification = state.magnification * jnp.where(adapts, jnp.clip(change, 0.5, 1.05), 1)
    return state._replace(magnification=magnification, error=error), Info(found)


def train(
    state: State,
    data: tuple[Array, Array],
    key: Key | None = None,
    *,
    epochs: int,
    criterion: Array | float = 0.4,
    threshold: Array | float = 0.2,
    tolerance: Array | float = 0.0,
) -> tuple[State, Trace]:
    """A fixed number of epochs.

    Args:
      state: from `init`.
      data: x (n, d_in) and targets (n, k).
      key: a new order of the examples every epoch; None keeps the given order.
      epochs: how many.
      criterion: solved means that every output is closer than this to its target, may be traced.
      threshold, tolerance: see `step`.

    Returns:
      The last state, and the `Trace`.

    Raises:
      ValueError: ``epochs`` is not positive, or arrays do not have the net's shapes.
    """
    if epochs < 1:
        raise ValueError(f"epochs={epochs} must be a positive integer")
    x, target = _checked(state, data)

    def worst(state: State) -> Array:
        return jnp.max(jnp.abs(target - forward(state, x)[-1]))

    def epoch(state: State, number: Array) -> tuple[State, tuple[Array, ...]]:
        order = None if key is None else jax.random.fold_in(key, number)
        state, info = step(state, (x, target), order, threshold=threshold, tolerance=tolerance)
        return state, (info.error, state.magnification, worst(state))

    before = worst(state)
    state, (error, magnification, after) = jax.lax.scan(epoch, state, jnp.arange(epochs))
    curve = jnp.concatenate([before[None], after])
    solved_at = jnp.where((curve < criterion).any(), jnp.argmax(curve < criterion), -1)
    return state, Trace(error, magnification, curve, solved_at, solved_at >= 0)


def _slope(output: Array) -> Array:
    """f' of tanh(x/2), given its output."""
    return (1 - output * output) / 2


def _checked(state: State, batch: tuple[Array, Array]) -> tuple[Array, Array]:
    dtype = jnp.result_type(state.weights[0])
    x, target = jnp.asarray(batch[0], dtype), jnp.asarray(batch[1], dtype)
    sizes = len(state.weights[0]), len(state.biases[-1])
    if x.ndim != 2 or x.shape[1] != sizes[0]:
        raise ValueError(f"x must have shape (n, {sizes[0]}), got {x.shape}")
    if target.shape != (len(x), sizes[1]):
        raise ValueError(f"target must have shape ({len(x)}, {sizes[1]}), got {target.shape}")
    return x, target
