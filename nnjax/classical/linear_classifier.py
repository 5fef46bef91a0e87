"""A linear classifier of pictures: one template a class, and the class whose template fits best.

    s = x W + b,  x (n, d), W (d, k), b (k,), s (n, k)

Column k of W is the template of class k: weighed by it, pixel by pixel, a picture gets its score. Two rules learn it:

    softmax      gradient descent on the cross-entropy of softmax(s)
    perceptron   for each wrong picture, its class's template moves towards it and the winner's away from it, by the
                 learning rate over n (the multi-class perceptron: Duda and Hart, 1973; Crammer and Singer, 2003)
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from nnjax import losses
from nnjax.naming import choose
from nnjax.types import Array, Key, floating


@dataclass(frozen=True)
class Config:
    """What is static.

    Attributes:
      inputs: pixels d of a picture.
      classes: number of classes k.
      scale: standard deviation of W at the start; the problem is convex, so zeros do.
    """

    inputs: int
    classes: int = 10
    scale: float = 0.0

    def __post_init__(self) -> None:
        """Refuse sizes that are no sizes."""
        if self.inputs < 1:
            raise ValueError(f"inputs={self.inputs} must be at least 1")
        if self.classes < 2:
            raise ValueError(f"classes={self.classes} must be at least 2")
        if not self.scale >= 0:
            raise ValueError(f"scale={self.scale} must not be negative")


class Params(NamedTuple):
    """What is learned: `kernel` (d, k) and `bias` (k,)."""

    kernel: Array
    bias: Array


class Info(NamedTuple):
    """What one step tells, from before it: `loss` (), the mean of what the rule descends, and `error` (), the rate."""

    loss: Array
    error: Array


class Result(NamedTuple):
    """What `train` returns.

    Attributes:
      params: after the last epoch.
      converged: () bool, no picture was classified wrongly during the last epoch, nor is any after it, those that
        did not fill a batch among them.
      losses, errors: (epochs,), means over each epoch while learning.
    """

    params: Params
    converged: Array
    losses: Array
    errors: Array


def _perceptron_loss(prediction: Array, target: Array) -> Array:
    """Best score minus the true class's, whose gradient is the perceptron's step."""
    own = jnp.take_along_axis(prediction, target[:, None], axis=1)[:, 0]
    # At a tie argmax and max may differ: the winner is one class, and takes all of the gradient.
    winner = jnp.take_along_axis(prediction, jnp.argmax(prediction, axis=1)[:, None], axis=1)[:, 0]
    return winner - own


_LOSSES: dict[str, Callable[[Array, Array], Array]] = {
    "softmax": losses.cross_entropy,
    "perceptron": _perceptron_loss,
}

RULES = tuple(_LOSSES)
"""Names of the rules."""


def init(key: Key, config: Config, dtype: Any = float) -> Params:
    """Zero bias, and W zero or N(0, scale^2)."""
    dtype = jnp.result_type(dtype)
    shape = (config.inputs, config.classes)
    kernel = config.scale * jax.random.normal(key, shape, dtype) if config.scale else jnp.zeros(shape, dtype)
    return Params(kernel, jnp.zeros(config.classes, dtype))


def scores(params: Params, x: ArrayLike) -> Array:
    """x W + b: pictures (n, d), or of any shape (n, ...) with d pixels, to (n, k).

    Raises:
      ValueError: the pictures have another number of pixels than the templates.
    """
    kernel = floating(params.kernel)
    return _scores(Params(kernel, params.bias), _flat(x, kernel))


def predict(params: Params, x: ArrayLike) -> Array:
    """The class of the largest score: (n, ...) to (n,) int. Errors as `scores`."""
    return jnp.argmax(scores(params, x), axis=-1)


def templates(params: Params, shape: tuple[int, ...]) -> Array:
    """Each class's weights as a picture: (k, *shape).

    Raises:
      ValueError: ``shape`` does not have d pixels.
    """
    kernel = jnp.asarray(params.kernel)
    size = 1
    for side in shape:
        size *= side
    if size != kernel.shape[0]:
        raise ValueError(f"shape={tuple(shape)} has {size} pixels and the templates have {kernel.shape[0]}")
    return kernel.T.reshape(-1, *shape)


def step(
    params: Params,
    batch: tuple[ArrayLike, ArrayLike],
    key: Key | None = None,
    *,
    learning_rate: ArrayLike = 0.1,
    rule: str = "softmax",
) -> tuple[Params, Info]:
    """One change by the mean over the batch.

    Args:
      params: the templates.
      batch: pictures (n, d) or (n, ...), and integer labels (n,) from 0 to k - 1.
      key: not used; rules of this package take one.
      learning_rate: scalar, may be traced.
      rule: ``softmax`` or ``perceptron``.

    Raises:
      ValueError: the shapes disagree, there is no picture, labels are no integers or (not traced) no classes, or the
        rule is unknown.
    """
    choose("rule", rule, _LOSSES)
    x, y = _checked(params, batch)
    return _step(Params(*map(floating, params)), x, y, learning_rate, rule=rule)


@partial(jax.jit, static_argnames="rule")
def _step(params: Params, x: Array, y: Array, learning_rate: ArrayLike, *, rule: str) -> tuple[Params, Info]:
    loss = _LOSSES[rule]

    def mean_loss(params: Params) -> tuple[Array, Array]:
        values = _scores(params, x)
        return jnp.mean(loss(values, y)), jnp.mean(losses.zero_one(values, y))

    (value, error), gradient = jax.value_and_grad(mean_loss, has_aux=True)(params)
    moved = jax.tree.map(lambda p, g: (p - learning_rate * g).astype(p.dtype), params, gradient)
    return moved, Info(value, error)


def train(
    params: Params,
    batch: tuple[ArrayLike, ArrayLike],
    key: Key | None = None,
    *,
    epochs: int,
    batch_size: int | None = None,
    learning_rate: ArrayLike = 0.1,
    rule: str = "softmax",
) -> Result:
    """Go through the pictures ``epochs`` times, in batches.

    Args:
      params, batch, learning_rate, rule: as in `step`.
      key: a new random order each epoch; without it, the order given.
      epochs: how many, static.
      batch_size: pictures a step, static; default all. What does not fill a batch is left out of that epoch.

    Raises:
      ValueError: as in `step`; or ``epochs`` is below 1, or ``batch_size`` is not between 1 and n.
    """
    choose("rule", rule, _LOSSES)
    x, y = _checked(params, batch)
    size = len(x) if batch_size is None else batch_size
    if epochs < 1:
        raise ValueError(f"epochs={epochs} must be at least 1")
    if not 1 <= size <= len(x):
        raise ValueError(f"batch_size={size} must lie between 1 and the number of pictures, {len(x)}")
    start = Params(*map(floating, params))
    return _train(start, x, y, key, learning_rate, epochs=epochs, size=size, rule=rule)


@partial(jax.jit, static_argnames=("epochs", "size", "rule"))
def _train(
    params: Params, x: Array, y: Array, key: Key | None, learning_rate: ArrayLike, *, epochs: int, size: int, rule: str
) -> Result:
    steps = len(x) // size

    def epoch(params: Params, number: Array) -> tuple[Params, Info]:
        places = jnp.arange(len(x))
        if key is not None:
            places = jax.random.permutation(jax.random.fold_in(key, number), len(x))

        def one(params: Params, chosen: Array) -> tuple[Params, Info]:
            return _step(params, x[chosen], y[chosen], learning_rate, rule=rule)

        return jax.lax.scan(one, params, places[: steps * size].reshape(steps, size))

    last, info = jax.lax.scan(epoch, params, jnp.arange(epochs))
    errors = jnp.mean(info.error, axis=1)
    left = jnp.mean(losses.zero_one(_scores(last, x), y))
    return Result(last, (errors[-1] == 0) & (left == 0), jnp.mean(info.loss, axis=1), errors)


def _flat(x: ArrayLike, kernel: Array) -> Array:
    x = jnp.asarray(x)
    flat = x.reshape(len(x), math.prod(x.shape[1:])) if x.ndim > 1 else x
    if flat.ndim != 2 or flat.shape[1] != kernel.shape[0]:
        raise ValueError(f"x has shape {x.shape}; expected (n, ...) with {kernel.shape[0]} pixels a picture")
    return flat.astype(kernel.dtype)


def _scores(params: Params, x: Array) -> Array:
    linear = jnp.matmul(x, params.kernel, precision="highest")
    return linear + jnp.broadcast_to(params.bias, linear.shape)


def _checked(params: Params, batch: tuple[ArrayLike, ArrayLike]) -> tuple[Array, Array]:
    kernel, bias = floating(params.kernel), floating(params.bias)
    if kernel.ndim != 2 or bias.shape != kernel.shape[1:]:
        raise ValueError(f"kernel {kernel.shape} and bias {bias.shape} must be (d, k) and (k,)")
    x, y = _flat(batch[0], kernel), jnp.asarray(batch[1])
    if len(x) == 0:
        raise ValueError(f"x has shape {jnp.shape(batch[0])}; at least one picture is needed")
    if y.shape != x.shape[:1] or not jnp.issubdtype(y.dtype, jnp.integer):
        raise ValueError(f"labels of shape {y.shape} and dtype {y.dtype} must be integers, ({len(x)},)")
    if not isinstance(y, jax.core.Tracer) and not 0 <= int(y.min()) <= int(y.max()) < kernel.shape[1]:
        raise ValueError(f"labels reach from {y.min()} to {y.max()}; expected 0 to {kernel.shape[1] - 1}")
    return x, y
