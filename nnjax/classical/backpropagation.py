"""Backpropagation written by hand: the chain rule as the textbooks do it, equal to automatic differentiation.

A layer computes o = f(o_below W + b). With E the loss of one example and z a unit's net input, the delta of a unit is
dE/dz, and the whole of backpropagation (Rumelhart, Hinton and Williams, 1986) is

    output unit, half squared error   delta = f'(z) (o - t)
    output units, softmax and cross-entropy   delta = s - y
    hidden unit                       delta_j = f'(z_j) sum_k delta_k w_jk
    gradient                          dE/dw_ij = o_i delta_j,  dE/db_j = delta_j

where f' is read off the output: o (1 - o) for logistic, 1 - o^2 for tanh, the gate [o > 0] for ReLU, 1 for a linear
unit. Books that write delta = o (1 - o) (t - o) and add to the weights have the other sign.

All deltas are computed with the old weights. Updating the upper layer first and using its new weights below is a
common slip: it descends too, but not along the gradient.

`step` makes one update from whatever examples it is given, and `train` feeds it all of them (batch), some
(mini-batch) or one (online): the three forms are one code path.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nnjax import activations, initializers, losses
from nnjax.naming import choose
from nnjax.types import Array, Key, PyTree, floating

SLOPES: dict[str, Callable[[Array], Array]] = {
    "logistic": lambda o: o * (1 - o),
    "tanh": lambda o: 1 - o * o,
    "relu": lambda o: (o > 0).astype(o.dtype),
    "identity": jnp.ones_like,
}
"""Derivative of each activation, given its output."""

LOSSES = {"half_squared_error": losses.half_squared_error, "cross_entropy": losses.cross_entropy}
"""Loss of an example, (prediction, target) -> (n,)."""


@dataclass(frozen=True)
class Config:
    """What is static in a net.

    Attributes:
      sizes: units of each layer, inputs first, outputs last.
      hidden: activation of the hidden layers: logistic, tanh, relu or identity.
      output: activation of the outputs; "identity" with cross_entropy, whose softmax belongs to the loss.
      loss: half_squared_error (summed over outputs) or cross_entropy (of softmax, in nats).
      initializer: scheme of the starting weights, see `nnjax.initializers`; biases start at zero.

    Raises:
      ValueError: sizes that are not two or more positive integers, an unknown name, or cross_entropy on outputs
        that are not linear.
    """

    sizes: tuple[int, ...] = (2, 2, 2)
    hidden: str = "logistic"
    output: str = "logistic"
    loss: str = "half_squared_error"
    initializer: str = "xavier_normal"

    def __post_init__(self) -> None:
        if len(self.sizes) < 2 or any(not isinstance(size, int) or size < 1 for size in self.sizes):
            raise ValueError(f"sizes={self.sizes} must be two or more positive integers, inputs first")
        choose("activation", self.hidden, SLOPES)
        choose("activation", self.output, SLOPES)
        choose("loss", self.loss, LOSSES)
        if self.loss == "cross_entropy" and self.output != "identity":
            raise ValueError(
                f"output={self.output!r} must be 'identity' with loss='cross_entropy': the softmax belongs to the loss"
            )


class Params(NamedTuple):
    """Weights and biases, or anything of their shape: a tuple with (d_in, d_out) and one with (d_out,) a layer."""

    weights: tuple[Array, ...]
    biases: tuple[Array, ...]


class State(NamedTuple):
    """What an update carries: the parameters, and the velocity of momentum in the same shape."""

    params: Params
    velocity: Params


class Info(NamedTuple):
    """What an update reports: the mean loss before it, (), and the gradient it took."""

    loss: Array
    gradient: Params


class Trace(NamedTuple):
    """What a training run reports, at m evaluations.

    Attributes:
      updates: (m,) updates made before each evaluation.
      loss: (m,) mean loss over the training examples.
      worst: (m,) largest |target - output| of any example and output.
      watched: what ``watch`` returned, each leaf with a leading axis of m.
      solved_at: () updates made when ``worst`` was first below the tolerance, -1 where it never was.
      converged: () bool, whether it ever was.
    """

    updates: Array
    loss: Array
    worst: Array
    watched: PyTree
    solved_at: Array
    converged: Array


def init(key: Key, config: Config, *, dtype: Any = float) -> State:
    """Random weights by ``config.initializer``, biases and velocity zero.

    Args:
      key: random key; every layer draws from a key of its own.
      config: the net.
      dtype: floating dtype; by default JAX's current one.
    """
    draw, dtype = initializers.by_name(config.initializer), jnp.result_type(dtype)
    shapes = enumerate(pairwise(config.sizes))
    weights = tuple(draw(jax.random.fold_in(key, layer), shape, dtype) for layer, shape in shapes)
    return start(Params(weights, tuple(jnp.zeros(size, dtype) for size in config.sizes[1:])))


def start(params: Params) -> State:
    """The state that training starts from with given parameters; integers become floating numbers."""
    params = jax.tree.map(floating, params)
    return State(params, jax.tree.map(jnp.zeros_like, params))


def forward(params: Params, x: Array, config: Config) -> tuple[Array, ...]:
    """Outputs of every layer.

    Args:
      params: the net's.
      x: (n, d_in).
      config: the net.

    Returns:
      (n, size) for each layer: the inputs themselves first, the net's outputs (logits for cross-entropy) last.

    Raises:
      ValueError: ``x`` or the parameters do not have the net's shapes.
    """
    x = _inputs(params, x, config)
    outputs = [x]
    last = len(params.weights) - 1
    for layer, (weights, bias) in enumerate(zip(params.weights, params.biases, strict=True)):
        f = activations.by_name(config.output if layer == last else config.hidden)
        outputs.append(f(_product(outputs[-1], weights) + bias[None, :]))
    return tuple(outputs)


def loss(params: Params, batch: tuple[Array, ...], config: Config) -> Array:
    """Weighted mean loss over the examples, (): what `gradient` is the gradient of.

    Args:
      params: the net's.
      batch: x (n, d_in) and y, (n, k) targets or (n,) integer labels for cross_entropy, NaN where a label is no class;
        perhaps also weights (n,).
      config: the net.
    """
    output = forward(params, batch[0], config)[-1]
    _, share = _targets(output, batch, config)
    return jnp.sum(LOSSES[config.loss](output, _labels(output, batch[1])) * share)


def deltas(params: Params, batch: tuple[Array, ...], config: Config) -> tuple[Array, ...]:
    """Derivative of each example's loss with respect to every unit's net input, by hand.

    Args:
      params: the net's.
      batch: as for `loss`; weights do not enter.
      config: the net.

    Returns:
      (n, size) for each layer but the inputs, first hidden layer first.

    Raises:
      ValueError: arrays that do not have the net's shapes.
    """
    outputs = forward(params, batch[0], config)
    return _deltas(params, outputs, _targets(outputs[-1], batch, config)[0], config)


def gradient(params: Params, batch: tuple[Array, ...], config: Config) -> Params:
    """Gradient of `loss` by hand, in the shape of the parameters; equals ``jax.grad(loss)`` to rounding.

    Args:
      params: the net's.
      batch: as for `loss`.
      config: the net.

    Raises:
      ValueError: arrays that do not have the net's shapes.
    """
    outputs = forward(params, batch[0], config)
    targets, share = _targets(outputs[-1], batch, config)
    scaled = [delta * share[:, None] for delta in _deltas(params, outputs, targets, config)]
    return Params(
        tuple(_product(below.T, delta) for below, delta in zip(outputs[:-1], scaled, strict=True)),
        tuple(jnp.sum(delta, axis=0) for delta in scaled),
    )


def step(
    state: State,
    batch: tuple[Array, ...],
    key: Key | None = None,
    *,
    config: Config,
    learning_rate: Array | float = 0.1,
    momentum: Array | float = 0.0,
    bias_learning_rate: Array | float | None = None,
) -> tuple[State, Info]:
    """One update from the mean gradient of a batch: v = momentum v + gradient; w = w - learning_rate v.

    All n examples, a few, or one: batch, mini-batch and online learning are this same step.

    Args:
      state: from `init` or `start`.
      batch: as for `loss`.
      key: unused, the update is deterministic.
      config: the net.
      learning_rate: may be traced.
      momentum: in [0, 1), may be traced.
      bias_learning_rate: of the biases where it differs, such as 0 to keep them; may be traced.

    Returns:
      The new state, and `Info`.

    Raises:
      ValueError: arrays that do not have the net's shapes.
    """
    found = Info(loss(state.params, batch, config), gradient(state.params, batch, config))
    velocity = jax.tree.map(lambda v, g: (momentum * v + g).astype(v.dtype), state.velocity, found.gradient)

    def move(rate: Array | float) -> Callable[[Array, Array], Array]:
        return lambda w, v: (w - rate * v).astype(w.dtype)

    bias_rate = learning_rate if bias_learning_rate is None else bias_learning_rate
    weights = jax.tree.map(move(learning_rate), state.params.weights, velocity.weights)
    biases = jax.tree.map(move(bias_rate), state.params.biases, velocity.biases)
    return State(Params(weights, biases), velocity), found


def train(
    state: State,
    data: tuple[Array, ...],
    key: Key | None = None,
    *,
    config: Config,
    epochs: int,
    batch_size: int | None = None,
    evaluate_at: tuple[int, ...] | None = None,
    watch: Callable[[Params], PyTree] = lambda params: (),
    tolerance: float = 0.4,
    **hparams: Any,
) -> tuple[State, Trace]:
    """Train for a fixed number of epochs, one `step` for every ``batch_size`` examples.

    Args:
      state: from `init` or `start`.
      data: x (n, d_in) and y as for `loss`; perhaps also weights (n,), by which every batch's mean is weighed. A batch
        whose weights are all zero has no gradient.
      key: a new order of the examples every epoch; None keeps the given order.
      config: the net.
      epochs: passes over the data.
      batch_size: examples an update: None all (batch), 1 (online), or between. What is left over at the end of an
        epoch makes a smaller batch of its own.
      evaluate_at: updates after which the trace is written, ascending, 0 being the start; by default the start
        and the end of every epoch.
      watch: evaluated with the parameters at the same moments, such as the loss on validation data.
      tolerance: all outputs closer than this to their targets count as solved.
      hparams: of `step`.

    Returns:
      The last state, and the `Trace`.

    Raises:
      ValueError: epochs, batch_size or evaluate_at out of range, or wrong shapes.
    """
    n = len(data[0])
    size = n if batch_size is None else batch_size
    parts = _parts(n, epochs, size)
    marks = _marks(evaluate_at, epochs * parts, parts)
    fixed = jnp.arange(parts * size) % n  # the last batch is filled up with examples of weight zero

    def batch(update: Array, order: Array) -> tuple[Array, ...]:
        if size == n:
            return data
        first = (update % parts) * size
        index = jax.lax.dynamic_slice(order, (first,), (size,))
        real = first + jnp.arange(size) < n
        return data[0][index], data[1][index], data[2][index] * real if len(data) > 2 else real

    def shuffled(update: Array, order: Array) -> Array:
        if key is None or size == n:
            return order

        def draw() -> Array:
            return jax.random.permutation(jax.random.fold_in(key, update // parts), n)[fixed]

        return jax.lax.cond(update % parts == 0, draw, lambda: order)

    def update(number: Any, carry: tuple[State, Any]) -> tuple[State, Any]:
        state, order = carry
        order = shuffled(number, order)
        return step(state, batch(number, order), config=config, **hparams)[0], order

    def segment(carry: tuple[State, Any], ends: Any) -> tuple[tuple[State, Any], tuple]:
        carry = jax.lax.fori_loop(ends[0], ends[1], update, carry)
        params = carry[0].params
        return carry, (loss(params, data, config), _worst(params, data, config), watch(params))

    data = tuple(map(jnp.asarray, data))
    ends = (jnp.array((0, *marks[:-1])), jnp.array(marks))
    (state, _), (mean, worst, watched) = jax.lax.scan(segment, (state, fixed), ends)
    below = worst < tolerance
    solved_at = jnp.where(below.any(), ends[1][jnp.argmax(below)], -1)
    return state, Trace(ends[1], mean, worst, watched, solved_at, solved_at >= 0)


# Inside


def _deltas(params: Params, outputs: tuple[Array, ...], targets: Array, config: Config) -> tuple[Array, ...]:
    if config.loss == "cross_entropy":
        # The sum is 1 for labels that are a distribution, which makes it s - y.
        delta: Array = jax.nn.softmax(outputs[-1]) * jnp.sum(targets, axis=-1, keepdims=True) - targets
    else:
        delta = SLOPES[config.output](outputs[-1]) * (outputs[-1] - targets)
    found = [delta]
    for weights, output in zip(params.weights[:0:-1], outputs[-2:0:-1], strict=True):
        delta = SLOPES[config.hidden](output) * _product(delta, weights.T)
        found.append(delta)
    return tuple(reversed(found))


def _product(a: Array, b: Array) -> Array:
    return jnp.matmul(a, b, precision="highest")  # GPUs round to 10 bits otherwise


def _worst(params: Params, batch: tuple[Array, ...], config: Config) -> Array:
    output = forward(params, batch[0], config)[-1]
    targets, _ = _targets(output, batch, config)
    output = jax.nn.softmax(output) if config.loss == "cross_entropy" else output
    return jnp.max(jnp.abs(targets - output))


def _parts(n: int, epochs: int, size: int) -> int:
    """Updates an epoch."""
    if epochs < 1:
        raise ValueError(f"epochs={epochs} must be a positive integer")
    if not 1 <= size <= n:
        raise ValueError(f"batch_size={size} must lie between 1 and the {n} examples")
    return -(-n // size)


def _marks(evaluate_at: tuple[int, ...] | None, total: int, parts: int) -> tuple[int, ...]:
    if evaluate_at is None:
        return tuple(range(0, total + 1, parts))
    ascending = evaluate_at and evaluate_at[0] >= 0 and bool((np.diff(evaluate_at) > 0).all())
    if not ascending or evaluate_at[-1] != total:
        raise ValueError(f"evaluate_at={evaluate_at} must ascend from 0 or more to the last of the {total} updates")
    return tuple(evaluate_at)


def _inputs(params: Params, x: Array, config: Config) -> Array:
    x = jnp.asarray(x)
    shapes = list(pairwise(config.sizes))
    if [w.shape for w in params.weights] != shapes or [b.shape for b in params.biases] != [s[1:] for s in shapes]:
        found = [tuple(w.shape) for w in params.weights], [tuple(b.shape) for b in params.biases]
        raise ValueError(f"params has weights {found[0]} and biases {found[1]}; sizes={config.sizes} asks for {shapes}")
    if x.ndim != 2 or x.shape[1] != config.sizes[0]:
        raise ValueError(f"x must have shape (n, {config.sizes[0]}), got {x.shape}")
    return x.astype(floating(params.weights[0]).dtype)


def _labels(output: Array, y: Array) -> Array:
    y = jnp.asarray(y)
    return y if jnp.issubdtype(y.dtype, jnp.integer) and y.ndim == 1 else y.astype(output.dtype)


def _targets(output: Array, batch: tuple[Array, ...], config: Config) -> tuple[Array, Array]:
    """Targets as (n, k), and each example's share in the mean, (n,)."""
    n, k = output.shape
    y = jnp.asarray(batch[1])
    allowed = f"({n}, {k})"
    if config.loss == "cross_entropy":
        allowed += f" or integers ({n},)"
        if jnp.issubdtype(y.dtype, jnp.integer) and y.shape == (n,):
            # Like the loss, the gradient of a label that is no class is NaN.
            y = jnp.where((y[:, None] < 0) | (y[:, None] >= k), jnp.nan, jax.nn.one_hot(y, k, dtype=output.dtype))
    if y.shape != (n, k):
        raise ValueError(f"y must have shape {allowed}, got {y.shape}")
    if len(batch) < 3:
        return y.astype(output.dtype), jnp.full(n, 1 / n, output.dtype)
    weight = jnp.asarray(batch[2])
    if weight.shape != (n,):
        raise ValueError(f"weights of the examples must have shape ({n},), got {weight.shape}")
    weight = weight.astype(output.dtype)
    total = jnp.sum(weight)
    return y.astype(output.dtype), weight / jnp.where(total == 0, 1, total)
