"""Linear regression by gradient descent, with the closed form beside it.

The objective is the mean squared error, summed over outputs, plus an L2 penalty on the weights alone:

    (1/n) sum_i |x_i W + b - y_i|^2 + l2 |W|^2,        gradient  (2/n) X'(X W + b - y) + 2 l2 W

Scikit-learn's `Ridge(alpha)` has alpha = n l2, and `nnjax.classical.least_squares.ridge` the same penalty.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from nnjax import losses
from nnjax.classical import least_squares
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
    "Config", "Fit", "Info", "Params", "closed_form", "fit", "gradient", "init", "largest_learning_rate", "predict",
    "step",
]  # fmt: skip


@dataclass(frozen=True)
class Config:
    """What is static.

    Attributes:
        inputs: inputs d.
        outputs: outputs k.
        scale: standard deviation of the first weights; 0 starts at zero, which loses nothing here.
    """

    inputs: int
    outputs: int = 1
    scale: float = 0.0

    def __post_init__(self) -> None:
        """Refuse sizes that are no sizes."""
        check_config(inputs=self.inputs, outputs=self.outputs, scale=self.scale)


def init(key: Key | None, config: Config, dtype: Any = float) -> Params:
    """First parameters: weights (d, k) from N(0, scale^2), bias (k,) zero; ValueError: a scale needs a key."""
    return draw(key, config.inputs, config.outputs, config.scale, dtype)


def predict(params: Params, x: Array) -> Array:
    """Outputs x W + b: (n, k) for x (n, d); ValueError where x does not fit the weights."""
    x = examples(x, x, params)
    return jnp.matmul(x, params.weights, precision="highest") + params.bias[None, :]


def gradient(params: Params, batch: tuple[Array, Array], *, l2: Array | float = 0.0) -> tuple[Array, Params]:
    """Penalized loss () and its gradient (as `Params`), written out, on a batch.

    Args:
        params: weights (d, k) and bias (k,).
        batch: x (n, d) and y (n, k), or (n,) where there is one output.
        l2: penalty, may be traced.

    Raises:
        ValueError: shapes disagree, or a penalty below 0.
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
        params: weights (d, k) and bias (k,).
        batch: x (n, d) and y (n, k) or (n,); all examples, a mini-batch, or one.
        key: not used; every learning rule takes one.
        learning_rate: may be traced; see `largest_learning_rate`.
        l2: penalty, may be traced.

    Raises:
        ValueError: shapes disagree, a learning rate not above 0 or a penalty below 0.
    """
    check_rates(learning_rate=learning_rate)
    loss, slope = gradient(params, batch, l2=l2)
    return move(params, slope, learning_rate), Info(loss, norm(slope))


def largest_learning_rate(x: Array, *, l2: Array | float = 0.0, batch_size: int | None = None) -> Array:
    """1 / L, L a bound on the loss's curvature (of any one example's, in mini-batches): such steps never go up, ().

    In mini-batches it is the batch's own loss that never goes up, not that over all examples.

    Args:
        x: (n, d).
        l2: penalty.
        batch_size: None for full batch; else the bound holds for mini-batches of every size.
    """
    x = examples(x, x, None)
    return 1 / (2 * curvature(x, batch_size) + 2 * l2)


def fit(
    x: Array,
    y: Array,
    *,
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

    Weights are then off by at most tolerance over the least curvature: standardize inputs. A constant rate in
    mini-batches ends in a neighborhood of the optimum (unless every example is fitted exactly); ``decay`` shrinks it.

    Args:
        x: (n, d).
        y: (n, k), or (n,) for one output.
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
        ValueError: shapes disagree, a size or rate out of range, or mini-batches without a key.
    """
    check_rates(l2=l2, learning_rate=learning_rate, tolerance=tolerance, decay=decay)
    x, y = _examples(x, y, start)
    check_sizes(len(x), epochs, batch_size, key)
    return _fit(x, y, l2, learning_rate, tolerance, decay, key, start, epochs, accelerated, batch_size)


@partial(jax.jit, static_argnums=(8, 9, 10))
def _fit(
    x: Array, y: Array, l2: Array, learning_rate: Array | None, tolerance: Array | None, decay: Array, key: Key | None,
    start: Params | None, epochs: int, accelerated: bool, batch_size: int | None,
) -> Fit:  # fmt: skip
    if learning_rate is None:
        learning_rate = largest_learning_rate(x, l2=l2, batch_size=batch_size)
    if start is None:
        start = Params(jnp.zeros((x.shape[1], y.shape[1]), x.dtype), jnp.zeros(y.shape[1], x.dtype))
    return descend(
        lambda params, x, y: _objective(params, x, y, l2), start, x, y, learning_rate=learning_rate, epochs=epochs,
        tolerance=tolerance, accelerated=accelerated, batch_size=batch_size, decay=decay, key=key,
    )  # fmt: skip


def closed_form(x: Array, y: Array, *, l2: Array | float = 0.0) -> Params:
    """The minimizer itself, least squares or ridge, by one eigendecomposition, whatever units the columns of x have.

    Where it is not unique: see `nnjax.classical.least_squares.equilibrated`.

    Args:
        x: (n, d).
        y: (n, k), or (n,) for one output.
        l2: penalty, a scalar, may be traced.

    Raises:
        ValueError: shapes disagree, or a penalty below 0.
    """
    check_rates(l2=l2)
    x, y = _examples(x, y, None)
    return _closed_form(x, y, l2)


@jax.jit
def _closed_form(x: Array, y: Array, l2: Array) -> Params:
    # With means taken out the bias, which is not penalized, drops out of the problem.
    x_mean, y_mean = jnp.mean(x, axis=0), jnp.mean(y, axis=0)
    centered = x - x_mean[None, :]
    # What rounding leaves of a constant column would be taken for a very small unit.
    size, rest = jnp.max(jnp.abs(x), axis=0, keepdims=True), jnp.max(jnp.abs(centered), axis=0, keepdims=True)
    centered = jnp.where(rest <= 4 * jnp.finfo(x.dtype).eps * size, 0, centered)
    weights = least_squares.equilibrated(centered, y - y_mean[None, :], l2)
    return Params(weights, y_mean - jnp.matmul(x_mean, weights, precision="highest"))


def _examples(x: Array, y: Array, params: Params | None) -> tuple[Array, Array]:
    x = examples(x, y, params)
    y = jnp.asarray(y, x.dtype)
    y = y[:, None] if y.ndim == 1 else y
    if y.ndim != 2 or (params is not None and y.shape[1] != params.weights.shape[1]):
        outputs = "k" if params is None else params.weights.shape[1]
        raise ValueError(f"y of shape {y.shape} must be (n, {outputs}), or (n,) for one output")
    return x, y


def _objective(params: Params, x: Array, y: Array, l2: Array | float) -> tuple[Array, Params]:
    l2 = jnp.asarray(l2, x.dtype)
    prediction = jnp.matmul(x, params.weights, precision="highest") + params.bias[None, :]
    error = prediction - y
    loss = jnp.mean(losses.squared_error(prediction, y)) + l2 * jnp.sum(params.weights**2)
    weights = 2 / len(x) * jnp.matmul(x.T, error, precision="highest") + 2 * l2 * params.weights
    return loss, Params(weights, 2 * jnp.mean(error, axis=0))
