"""The perceptron: a threshold unit that learns from each pattern it gets wrong (Rosenblatt, 1958).

    o = 1 where x w >= threshold (> where ``strict``), else 0
    w <- w + learning_rate (t - o) x                               the delta rule, pattern by pattern

A bias is the weight of an input that is always on: prepend it with `nnjax.classical.mcculloch_pitts.always_on`. Units
side by side, such as one a class, learn by themselves: weights (d,) are one unit and (d, k) are k. Where some weights
are right for every pattern, the rule finds such weights after at most (R / gamma)^2 updates (Novikoff, 1962; `bound`);
where there are none, it runs in circles, which `train` notices.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from nnjax.types import Array, Key, floating


@dataclass(frozen=True)
class Config:
    """What is static.

    Attributes:
      inputs: inputs d of a unit, the one that is always on among them.
      units: units side by side; None is one unit, whose weights have no axis for it.
      scale: standard deviation of the weights at the start; 0 is the textbook's zeros.
    """

    inputs: int
    units: int | None = None
    scale: float = 0.0

    def __post_init__(self) -> None:
        """Refuse sizes that are no sizes."""
        if self.inputs < 1:
            raise ValueError(f"inputs={self.inputs} must be at least 1")
        if self.units is not None and self.units < 1:
            raise ValueError(f"units={self.units} must be at least 1, or None for a single unit")
        if not self.scale >= 0:
            raise ValueError(f"scale={self.scale} must not be negative")


class State(NamedTuple):
    """What is learned: `weights`, (d,) or (d, units)."""

    weights: Array


class Info(NamedTuple):
    """What one step tells.

    Attributes:
      outputs: (n,) or (n, units), each from before its pattern's update, in the order of presentation.
      errors: () int, patterns with a wrong output.
    """

    outputs: Array
    errors: Array


class Result(NamedTuple):
    """What `train` returns.

    Attributes:
      state: after the last epoch.
      converged: () bool, an epoch was without error; the weights do not change any more.
      epochs: () int, the first epoch without error, counted from 1; the bound where there is none.
      updates: () int, wrong patterns in all.
      repeats: () bool, weights at the end of an epoch were there before: the rule runs in circles and will never
        converge. Always false with random orders.
      errors: (epochs,) int, wrong patterns of each epoch.
      weights: (epochs, d) or (epochs, d, units), at the end of each epoch.
      patterns: (epochs, n, d) or (epochs, n, d, units), after every pattern, or None.
    """

    state: State
    converged: Array
    epochs: Array
    updates: Array
    repeats: Array
    errors: Array
    weights: Array
    patterns: Array | None


def init(key: Key, config: Config, dtype: Any = float) -> State:
    """Weights at the start: zeros, or N(0, scale^2)."""
    shape = (config.inputs,) if config.units is None else (config.inputs, config.units)
    if config.scale == 0:
        return State(jnp.zeros(shape, jnp.result_type(dtype)))
    return State(config.scale * jax.random.normal(key, shape, jnp.result_type(dtype)))


def as_patterns(weights: ArrayLike, batch: tuple[ArrayLike, ArrayLike]) -> tuple[Array, Array, Array]:
    """Weights and ``(x, target)`` as floating arrays of the weights' dtype, a single pattern as a batch of one.

    Args:
      weights: (d,) or (d, units).
      batch: x (n, d) with target (n,) or (n, units), or x (d,) with target () or (units,).

    Returns:
      weights, x (n, d) and target (n,) or (n, units).

    Raises:
      ValueError: the shapes disagree, or there is no pattern.
    """
    weights, x = as_inputs(weights, batch[0])
    target = jnp.asarray(batch[1])
    if x.shape[0] == 0:
        raise ValueError(f"x has shape {x.shape}; at least one pattern is needed")
    if target.shape != (*x.shape[:-1], *weights.shape[1:]):
        expected = (*x.shape[:-1], *weights.shape[1:])
        raise ValueError(f"target has shape {target.shape}; for x {x.shape} it must be {expected}")
    if x.ndim == 1:
        x, target = x[None], target[None]
    return weights, x, target.astype(weights.dtype)


def as_inputs(weights: ArrayLike, x: ArrayLike) -> tuple[Array, Array]:
    """Weights (d,) or (d, units) as floating numbers, and x (n, d) or (d,) of their dtype; ValueError for others."""
    weights, x = floating(weights), jnp.asarray(x)
    if weights.ndim not in (1, 2):
        raise ValueError(f"weights has shape {weights.shape}; expected (d,) or (d, units)")
    if x.ndim not in (1, 2) or x.shape[-1] != weights.shape[0]:
        raise ValueError(f"x has shape {x.shape}; the weights take (n, {weights.shape[0]}) or ({weights.shape[0]},)")
    return weights, x.astype(weights.dtype)


def net_input(weights: Array, x: Array) -> Array:
    """x w at full precision also where products are rounded by default: (..., d) to (...) or (..., units)."""
    return jnp.matmul(x, weights, precision="highest")


def predict(state: State, x: ArrayLike, *, threshold: ArrayLike = 0.0, strict: bool = False) -> Array:
    """Output of each unit, 0 or 1: (n, d) to (n,) or (n, units), (d,) to () or (units,).

    Args:
      state: the weights.
      x: patterns.
      threshold: a unit fires where its net input reaches it; scalar.
      strict: fire only where the net input is above the threshold.

    Raises:
      ValueError: the shapes disagree.
    """
    weights, x = as_inputs(state.weights, x)
    net = net_input(weights, x)
    return (net > threshold if strict else net >= threshold).astype(weights.dtype)


def classify(state: State, x: ArrayLike) -> Array:
    """The class whose unit has the largest net input: (n, d) to (n,) int, for weights (d, units).

    Raises:
      ValueError: the shapes disagree, or the weights are one unit's.
    """
    weights, x = as_inputs(state.weights, x)
    if weights.ndim != 2:
        raise ValueError(f"weights has shape {weights.shape}; classes need (d, units)")
    return jnp.argmax(net_input(weights, x), axis=-1)


def step(
    state: State,
    batch: tuple[ArrayLike, ArrayLike],
    key: Key | None = None,
    *,
    learning_rate: ArrayLike = 1.0,
    threshold: ArrayLike = 0.0,
    strict: bool = False,
) -> tuple[State, Info]:
    """Present each pattern of the batch once: one pattern, or an epoch.

    Args:
      state: the weights.
      batch: x (n, d) and target 0 or 1, (n,) or (n, units); or one pattern, x (d,).
      key: present in a random order; without it, in the order given.
      learning_rate: scalar, may be traced.
      threshold: scalar, may be traced; a unit fires where its net input reaches it.
      strict: fire only where the net input is above the threshold.

    Raises:
      ValueError: the shapes disagree, or a target (that is not traced) is neither 0 nor 1.
    """
    weights, x, target = _binary_patterns(state, batch)
    return _step(weights, x, target, key, learning_rate, threshold, strict=strict)


def train(
    state: State,
    batch: tuple[ArrayLike, ArrayLike],
    key: Key | None = None,
    *,
    epochs: int,
    learning_rate: ArrayLike = 1.0,
    threshold: ArrayLike = 0.0,
    strict: bool = False,
    record: bool = False,
) -> Result:
    """Present all patterns ``epochs`` times; after an epoch without error nothing changes any more.

    Args:
      state, batch, learning_rate, threshold, strict: as in `step`.
      key: a new random order each epoch; without it, the order given.
      epochs: how many, static.
      record: keep the weights after every pattern, in ``patterns``.

    Raises:
      ValueError: the shapes disagree, a target (that is not traced) is neither 0 nor 1, or ``epochs`` is below 1.
    """
    if epochs < 1:
        raise ValueError(f"epochs={epochs} must be at least 1")
    weights, x, target = _binary_patterns(state, batch)
    return _train(weights, x, target, key, learning_rate, threshold, epochs=epochs, strict=strict, record=record)


@partial(jax.jit, static_argnames="strict")
def _step(
    weights: Array,
    x: Array,
    target: Array,
    key: Key | None,
    learning_rate: ArrayLike,
    threshold: ArrayLike,
    *,
    strict: bool,
) -> tuple[State, Info]:
    if key is not None:
        order = jax.random.permutation(key, len(x))
        x, target = x[order], target[order]
    weights, outputs, _ = _present(weights, x, target, learning_rate, threshold, strict, False)
    return State(weights), Info(outputs, _errors(outputs, target))


@partial(jax.jit, static_argnames=("epochs", "strict", "record"))
def _train(
    weights: Array,
    x: Array,
    target: Array,
    key: Key | None,
    learning_rate: ArrayLike,
    threshold: ArrayLike,
    *,
    epochs: int,
    strict: bool,
    record: bool,
) -> Result:
    def epoch(weights: Array, number: Array) -> tuple[Array, tuple]:
        inputs, wanted = x, target
        if key is not None:
            order = jax.random.permutation(jax.random.fold_in(key, number), len(x))
            inputs, wanted = x[order], target[order]
        weights, outputs, trace = _present(weights, inputs, wanted, learning_rate, threshold, strict, record)
        return weights, (_errors(outputs, wanted), weights, trace)

    last, (errors, ends, patterns) = jax.lax.scan(epoch, weights, jnp.arange(epochs))
    right = errors == 0
    converged = jnp.any(right)
    first = jnp.where(converged, jnp.argmax(right) + 1, epochs)
    same = jnp.all((ends[:-1] == last[None]).reshape(epochs - 1, last.size), axis=1)
    repeats = jnp.any(same) & ~converged if key is None else jnp.zeros((), bool)
    return Result(State(last), converged, first, jnp.sum(errors), repeats, errors, ends, patterns)


def _present(
    weights: Array,
    x: Array,
    target: Array,
    learning_rate: ArrayLike,
    threshold: ArrayLike,
    strict: bool,
    record: bool,
) -> tuple[Array, Array, Array | None]:
    """One pass over the patterns: weights after it, outputs, and the weights after every pattern."""

    def one(weights: Array, pattern: tuple[Array, Array]) -> tuple[Array, tuple]:
        x, target = pattern
        output = predict(State(weights), x, threshold=threshold, strict=strict)
        change = learning_rate * jnp.multiply.outer(x, target - output)
        weights = (weights + change).astype(weights.dtype)
        return weights, (output, weights if record else None)

    weights, (outputs, trace) = jax.lax.scan(one, weights, (x, target))
    return weights, outputs, trace


def _binary_patterns(state: State, batch: tuple[ArrayLike, ArrayLike]) -> tuple[Array, Array, Array]:
    weights, x, target = as_patterns(state.weights, batch)
    if not isinstance(target, jax.core.Tracer):
        values = np.unique(target)
        if not np.isin(values, (0, 1)).all():
            raise ValueError(f"target holds {values[:5].tolist()}; a perceptron's are 0 and 1")
    return weights, x, target


def _errors(outputs: Array, target: Array) -> Array:
    wrong = (outputs != target).reshape(len(outputs), -1)
    return jnp.sum(jnp.any(wrong, axis=1))


def maximum_margin(x: ArrayLike, target: ArrayLike, *, sweeps: int = 2000) -> Array:
    """Weights through the origin with the largest margin, scaled so that the nearest pattern has |x w| = 1.

    Hildreth's (1957) coordinate ascent on the dual of min |w|^2 subject to (2 t - 1) x w >= 1. Where no weights
    separate the patterns there is no such minimum; what is returned then misclassifies some (see `bound`).

    Args:
      x: (n, d).
      target: (n,) of 0 and 1.
      sweeps: passes over the n dual variables, static.

    Returns:
      (d,), of the floating dtype of ``x``.

    Raises:
      ValueError: the shapes disagree.
    """
    return _maximum_margin(_signed(x, target), sweeps)


@partial(jax.jit, static_argnames="sweeps")
def _maximum_margin(signed: Array, sweeps: int) -> Array:
    length = jnp.sum(signed**2, axis=1)
    scale = jnp.where(length > 0, 1 / jnp.where(length > 0, length, 1), 0)

    def ascend(i: Array, carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        dual, w = carry
        i = i % len(signed)
        new = jnp.maximum(dual[i] + scale[i] * (1 - signed[i] @ w), 0)
        return dual.at[i].set(new), w + (new - dual[i]) * signed[i]

    start = jnp.zeros(len(signed), signed.dtype), jnp.zeros(signed.shape[1], signed.dtype)
    _, w = jax.lax.fori_loop(0, sweeps * len(signed), ascend, start)
    nearest = jnp.min(jnp.abs(signed @ w))
    return w / jnp.where(nearest > 0, nearest, 1)


def bound(x: ArrayLike, target: ArrayLike, weights: ArrayLike) -> Array:
    """Novikoff's (1962) bound (R / gamma)^2 on the updates from zero weights: (), infinite where ``weights`` are wrong.

    R is the length of the longest pattern and gamma the distance of the nearest from the plane of ``weights``. Any
    weights that separate the patterns give a bound; those of `maximum_margin` give the least.

    Args:
      x: (n, d), with the always-on input where there is a bias.
      target: (n,) of 0 and 1.
      weights: (d,).
    """
    signed, w = _signed(x, target), jnp.asarray(weights)
    nearest = jnp.min(signed @ w)
    squared = jnp.max(jnp.sum(signed**2, axis=1)) * jnp.sum(w**2) / jnp.where(nearest > 0, nearest, 1) ** 2
    return jnp.where(nearest > 0, squared, jnp.inf)


def _signed(x: ArrayLike, target: ArrayLike) -> Array:
    """Patterns of class 0 mirrored at the origin, so that right weights give all of them a positive net input."""
    x, target = jnp.asarray(x), jnp.asarray(target)
    x = x.astype(jnp.result_type(float, x))
    if x.ndim != 2 or target.shape != x.shape[:1]:
        raise ValueError(f"x {x.shape} and target {target.shape} must be (n, d) and (n,)")
    return x * (2 * target.astype(x.dtype) - 1)[:, None]
