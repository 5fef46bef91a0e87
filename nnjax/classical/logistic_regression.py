"""Logistic regression by gradient descent: one logistic unit for two classes, softmax for more.

The objective is the mean cross-entropy plus an L2 penalty on the weights alone. Its gradient is the input times
(s - y), s what the unit says and y the label (one-hot for softmax):

    (1/n) sum_i cross-entropy(x_i W + b, y_i) + l2 |W|^2,        gradient  (1/n) X'(s - y) + 2 l2 W

Scikit-learn's `LogisticRegression(C)` has l2 = 1 / (2 n C). Softmax biases are determined up to a common constant;
descent keeps the sum they start with, 0 by default.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from nnjax import losses
from nnjax.classical._convex_descent import (
    Fit,
    Info,
    Params,
    check_config,
    check_rates,
    check_sizes,
    curvature,
    descend,
    draw,
    examples,
    move,
    norm,
)
from nnjax.types import Array, Key

__all__ = [
    "Config", "Fit", "Info", "Params", "classify", "fit", "gradient", "init", "largest_learning_rate", "logits",
    "probabilities", "step",
]  # fmt: skip


@dataclass(frozen=True)
class Config:
    """What is static.

    Attributes:
        inputs: inputs d.
        classes: 2 is one logistic unit, weights (d, 1); more is softmax, weights (d, classes).
        scale: standard deviation of the first weights; 0 starts at zero, which loses nothing here.
    """

    inputs: int
    classes: int = 2
    scale: float = 0.0

    def __post_init__(self) -> None:
        """Refuse sizes that are no sizes."""
        check_config(inputs=self.inputs, scale=self.scale)
        _outputs(self.classes)


def init(key: Key | None, config: Config, dtype: Any = float) -> Params:
    """First parameters: weights (d, k) from N(0, scale^2), bias (k,) zero; ValueError: a scale needs a key."""
    return draw(key, config.inputs, _outputs(config.classes), config.scale, dtype)


def logits(params: Params, x: Array) -> Array:
    """Scores x W + b before the logistic or softmax: (n, k), k = 1 for two classes; ValueError where x does not fit."""
    x = examples(x, x, params)
    return jnp.matmul(x, params.weights, precision="highest") + params.bias[None, :]


def probabilities(params: Params, x: Array) -> Array:
    """Probability of every class, (n, classes)."""
    z = logits(params, x)
    return jax.nn.softmax(z) if z.shape[1] > 1 else jnp.concatenate([jax.nn.sigmoid(-z), jax.nn.sigmoid(z)], axis=1)


def classify(params: Params, x: Array) -> Array:
    """The likeliest class of every example, (n,) int; the first of equals."""
    z = logits(params, x)
    return jnp.argmax(z, axis=1) if z.shape[1] > 1 else (z[:, 0] > 0).astype(jnp.int32)


def gradient(params: Params, batch: tuple[Array, Array], *, l2: Array | float = 0.0) -> tuple[Array, Params]:
    """Penalized loss () in nats and its gradient (as `Params`), written out, on a batch.

    Args:
        params: weights (d, k) and bias (k,), k = 1 for two classes.
        batch: x (n, d) and integer labels y (n,), 0 to classes - 1; as in all of this module a label that is no
            class makes the loss NaN.
        l2: penalty, may be traced.

    Raises:
        ValueError: shapes disagree, labels are not integers, or a penalty below 0.
    """
    check_rates(l2=l2)
    x, y = _examples(*batch, params)
    return _objective(params, x, y, l2)


def step(
    params: Params, batch: tuple[Array, Array], key: Key | None = None, *, learning_rate: Array | float,
    l2: Array | float = 0.0,
) -> tuple[Params, Info]:  # fmt: skip
    """One step of gradient descent on a batch: (params, `Info`).

    Args:
        params: weights (d, k) and bias (k,), k = 1 for two classes.
        batch: x (n, d) and integer labels y (n,); all examples, a mini-batch, or one.
        key: not used; every learning rule takes one.
        learning_rate: may be traced; see `largest_learning_rate`.
        l2: penalty, may be traced.

    Raises:
        ValueError: shapes disagree, labels are not integers, a learning rate not above 0 or a penalty below 0.
    """
    check_rates(learning_rate=learning_rate)
    loss, slope = gradient(params, batch, l2=l2)
    return move(params, slope, learning_rate), Info(loss, norm(slope))


def largest_learning_rate(
    x: Array, *, classes: int = 2, l2: Array | float = 0.0, batch_size: int | None = None
) -> Array:
    """1 / L, L a bound on the loss's curvature (any one example's, in mini-batches): such steps never go up, ().

    The logistic function's slope is at most 1/4; the softmax's Jacobian has no eigenvalue over 1/2 (Boehning, 1992).
    In mini-batches it is the batch's own loss that never goes up, not that over all examples.

    Args:
        x: (n, d).
        classes: number of classes.
        l2: penalty.
        batch_size: None for full batch; else the bound holds for mini-batches of every size.
    """
    x = examples(x, x, None)
    return 1 / ((0.25 if _outputs(classes) == 1 else 0.5) * curvature(x, batch_size) + 2 * l2)


def fit(
    x: Array,
    y: Array,
    *,
    classes: int = 2,
    l2: Array | float = 0.0,
    learning_rate: Array | float | None = None,
    epochs: int = 1000,
    tolerance: float | None = None,
    accelerated: bool = True,
    batch_size: int | None = None,
    decay: Array | float = 0.0,
    key: Key | None = None,
    start: Params | None = None,
) -> Fit:
    """Descend for at most ``epochs`` epochs, until the gradient's norm is at most ``tolerance``.

    Classes that a plane separates have no optimum without a penalty: weights grow and ``converged`` is False (or, at
    last, the gradient vanishes in rounding). Standardize inputs, or it takes long.

    Args:
        x: (n, d).
        y: (n,) integer labels, 0 to classes - 1.
        classes: number of classes, static; 2 is one logistic unit.
        l2: penalty, may be traced (`jax.vmap` over penalties is a path).
        learning_rate: of full-batch or mini-batch steps, may be traced; default `largest_learning_rate`.
        epochs: passes over the data, static; full batch, a step each.
        tolerance: Euclidean norm of the gradient over all examples below which nothing moves any more; default
            1e-6 in float32, 1e-10 in float64, times the gradient's norm at the start where that is above 1.
        accelerated: momentum in full-batch steps; False is plain gradient descent.
        batch_size: examples a step, static; None is full batch.
        decay: the rate of epoch e is learning_rate / (1 + decay e), in mini-batches.
        key: order of the examples in mini-batches.
        start: first parameters; default zeros.

    Returns:
        A `Fit`: parameters, loss and gradient norm by epoch, ``converged``.

    Raises:
        ValueError: shapes disagree, labels are not integers, a size or rate out of range, or mini-batches without a
            key.
    """
    check_rates(l2=l2, learning_rate=learning_rate, tolerance=tolerance, decay=decay)
    outputs = _outputs(classes)
    if start is not None and start.weights.shape[1] != outputs:
        raise ValueError(f"start has weights of shape {start.weights.shape}, and {classes} classes need (d, {outputs})")
    x, y = _examples(x, y, start)
    check_sizes(len(x), epochs, batch_size, key)
    return _fit(x, y, l2, learning_rate, tolerance, decay, key, start, classes, epochs, accelerated, batch_size)


@partial(jax.jit, static_argnums=(8, 9, 10, 11))
def _fit(
    x: Array, y: Array, l2: Array, learning_rate: Array | None, tolerance: Array | None, decay: Array, key: Key | None,
    start: Params | None, classes: int, epochs: int, accelerated: bool, batch_size: int | None,
) -> Fit:  # fmt: skip
    if learning_rate is None:
        learning_rate = largest_learning_rate(x, classes=classes, l2=l2, batch_size=batch_size)
    if start is None:
        outputs = _outputs(classes)
        start = Params(jnp.zeros((x.shape[1], outputs), x.dtype), jnp.zeros(outputs, x.dtype))
    return descend(
        lambda params, x, y: _objective(params, x, y, l2), start, x, y, learning_rate=learning_rate, epochs=epochs,
        tolerance=tolerance, accelerated=accelerated, batch_size=batch_size, decay=decay, key=key,
    )  # fmt: skip


def _outputs(classes: int) -> int:
    if classes < 2:
        raise ValueError(f"classes={classes} must be at least 2")
    return 1 if classes == 2 else classes


def _examples(x: Array, y: Array, params: Params | None) -> tuple[Array, Array]:
    x, y = examples(x, y, params), jnp.asarray(y)
    if y.ndim != 1 or not jnp.issubdtype(y.dtype, jnp.integer):
        raise ValueError(f"y of shape {y.shape} and dtype {y.dtype} must be integer labels (n,)")
    return x, y


def _objective(params: Params, x: Array, y: Array, l2: Array | float) -> tuple[Array, Params]:
    l2 = jnp.asarray(l2, x.dtype)
    z = jnp.matmul(x, params.weights, precision="highest") + params.bias[None, :]
    if z.shape[1] == 1:
        target = jnp.where((y < 0) | (y > 1), jnp.nan, y.astype(z.dtype))[:, None]
        loss, surprise = losses.binary_cross_entropy(z, target), jax.nn.sigmoid(z) - target
    else:
        target = jax.nn.one_hot(y, z.shape[1], dtype=z.dtype)
        target = jnp.where(jnp.sum(target, axis=1, keepdims=True) == 0, jnp.nan, target)
        loss, surprise = losses.cross_entropy(z, target), jax.nn.softmax(z) - target
    weights = jnp.matmul(x.T, surprise, precision="highest") / len(x) + 2 * l2 * params.weights
    return jnp.mean(loss) + l2 * jnp.sum(params.weights**2), Params(weights, jnp.mean(surprise, axis=0))
