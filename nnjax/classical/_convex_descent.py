"""Bounded descent on a linear model's convex loss, full batch or in mini-batches: what the two regressions share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nnjax.types import Array, Key


class Params(NamedTuple):
    """A linear map: scores are x @ weights + bias.

    Attributes:
        weights: (d, k).
        bias: (k,), never penalized.
    """

    weights: Array
    bias: Array


class Info(NamedTuple):
    """What one step saw before it moved: the batch's penalized loss () and the Euclidean norm of its gradient ()."""

    loss: Array
    gradient_norm: Array


class Fit(NamedTuple):
    """A bounded descent.

    Attributes:
        params: `Params` at the end.
        loss: (epochs,) penalized loss over all examples, where each epoch began.
        gradient_norm: (epochs,) Euclidean norm of its gradient there.
        converged: () whether the gradient's norm at `params` is at most the tolerance.
        epochs: () epochs done until then; after it nothing moves.
    """

    params: Params
    loss: Array
    gradient_norm: Array
    converged: Array
    epochs: Array


Objective = Callable[[Params, Array, Array], tuple[Array, Params]]
"""``(params, x, y) -> (loss, gradient)``: penalized mean loss over these examples."""


def check_config(*, scale: float, **sizes: int) -> None:
    """ValueError for a size below 1 or a negative scale."""
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name}={size} must be at least 1")
    if not scale >= 0:
        raise ValueError(f"scale={scale} must not be negative")


def draw(key: Key | None, inputs: int, outputs: int, scale: float, dtype: Any = float) -> Params:
    """Weights from N(0, scale^2), zeros at scale 0, and a bias of zeros."""
    dtype = jnp.result_type(dtype)
    weights = jnp.zeros((inputs, outputs), dtype)
    if scale > 0:
        if key is None:
            raise ValueError(f"scale={scale} draws weights and needs a key")
        weights = scale * jax.random.normal(key, weights.shape, dtype)
    return Params(weights, jnp.zeros(outputs, dtype))


def examples(x: Array, y: Array, params: Params | None) -> Array:
    """Inputs (n, d) as floating numbers, their shape checked against targets and parameters."""
    x, y = jnp.asarray(x), jnp.asarray(y)
    if x.ndim != 2 or 0 in x.shape:
        raise ValueError(f"x of shape {x.shape} must be (n, d) with at least one example and one input")
    if y.ndim == 0 or len(y) != len(x):
        raise ValueError(f"y of shape {y.shape} must have one entry for each of the {len(x)} rows of x")
    if params is not None and (params.weights.ndim != 2 or params.bias.shape != params.weights.shape[1:]):
        raise ValueError(f"weights {params.weights.shape} and bias {params.bias.shape} must be (d, k) and (k,)")
    if params is not None and params.weights.shape[0] != x.shape[1]:
        raise ValueError(f"x of shape {x.shape} does not fit weights of shape {params.weights.shape}")
    return x.astype(jnp.result_type(float, x))


def check_rates(**values: Array | float | None) -> None:
    """ValueError where a number known now is out of range: below 0, 0 for a learning rate, or NaN; traced ones pass."""
    for name, value in values.items():
        if value is None or isinstance(value, jax.core.Tracer):
            continue
        known = np.asarray(value)
        if not np.all(known > 0 if name == "learning_rate" else known >= 0):
            raise ValueError(f"{name}={value} must be {'positive' if name == 'learning_rate' else 'at least 0'}")


def check_sizes(n: int, epochs: int, batch_size: int | None, key: Key | None) -> None:
    """ValueError where a static size of a fit is impossible."""
    if epochs < 1:
        raise ValueError(f"epochs={epochs} must be at least 1")
    if batch_size is None:
        return
    if not 1 <= batch_size <= n:
        raise ValueError(f"batch_size={batch_size} must lie between 1 and the {n} examples")
    if key is None:
        raise ValueError(f"batch_size={batch_size} draws an order of the examples and needs a key")


def default_tolerance(dtype: Any) -> float:
    """Gradient norm, over 1 or the first, that counts as zero: what rounding leaves in float32, less in double."""
    return 1e-10 if dtype == jnp.float64 else 1e-6


def curvature(x: Array, batch_size: int | None) -> Array:
    """Bound on the eigenvalues of the mean of a a', a = (x, 1), or in mini-batches on those of any one a a': ().

    It bounds how fast the gradient of a mean of f(a @ w) turns, for f'' <= 1.
    """
    x = jnp.concatenate([x, jnp.ones_like(x[:, :1])], axis=1)
    if batch_size is not None:
        return jnp.max(jnp.sum(x**2, axis=1))
    n, d = x.shape
    gram = jnp.matmul(x, x.T, precision="highest") if n < d else jnp.matmul(x.T, x, precision="highest")
    return spectral_bound(gram) / n


def spectral_bound(gram: Array, squarings: int = 7) -> Array:
    """Upper bound on the eigenvalues of a positive semi-definite (m, m): trace(gram^p)^(1/p), p = 2^squarings.

    At most m^(1/p) times the largest eigenvalue: 4 % over it for m = 100. Products alone, because a batch of
    eigendecompositions on several CPU devices at once can wait for itself for ever.
    """
    trace = jnp.trace(gram)
    power, logarithm = gram / trace, jnp.log(trace)  # gram^(2^k) is power exp(2^k logarithm), the power's trace 1
    for k in range(1, squarings + 1):
        power = jnp.matmul(power, power, precision="highest")
        trace = jnp.trace(power)
        power, logarithm = power / trace, logarithm + jnp.log(trace) / 2**k
    return jnp.exp(logarithm)


def norm(gradient: Params) -> Array:
    """Euclidean norm over all parameters, ()."""
    return jnp.sqrt(jnp.sum(gradient.weights**2) + jnp.sum(gradient.bias**2))


def move(params: Params, gradient: Params, learning_rate: Array | float) -> Params:
    """One step downhill, in the parameters' own dtype."""
    return jax.tree.map(lambda w, g: w - jnp.asarray(learning_rate, w.dtype) * g, params, gradient)


class _State(NamedTuple):
    params: Params
    ahead: Params  # where the gradient is taken
    pace: Array
    converged: Array
    epochs: Array


def descend(
    objective: Objective,
    start: Params,
    x: Array,
    y: Array,
    *,
    learning_rate: Array,
    epochs: int,
    tolerance: Array | float | None,
    accelerated: bool,
    batch_size: int | None = None,
    decay: Array | float = 0.0,
    key: Key | None = None,
) -> Fit:
    """At most ``epochs`` epochs of full-batch or mini-batch descent, still once the gradient is small enough.

    Full batch, an epoch is a step, by default with momentum that starts again when it leads uphill (Nesterov,
    1983; O'Donoghue and Candes, 2015). In mini-batches an epoch is a pass without replacement, the rest of a
    division left out, at the rate learning_rate / (1 + decay epoch). Without a tolerance, `default_tolerance` times
    the norm of the first gradient where that is above 1, so that targets may be in large units.
    """
    if tolerance is None:
        tolerance = default_tolerance(x.dtype) * jnp.maximum(1, norm(objective(start, x, y)[1]))

    def epoch(state: _State, number: Array) -> tuple[_State, Info]:
        loss, gradient = objective(state.ahead, x, y)
        info = Info(loss, norm(gradient))
        converged = state.converged | (info.gradient_norm <= tolerance)
        if batch_size is None:
            moved = _step(state, gradient, learning_rate, accelerated)
        else:
            moved = _pass(objective, state, x, y, batch_size, learning_rate / (1 + decay * number), key, number)
        still = state._replace(params=state.ahead, epochs=state.epochs - 1)
        state = jax.tree.map(lambda a, b: jnp.where(converged, a, b), still, moved)
        return state._replace(converged=converged, epochs=state.epochs + 1), info

    nothing = jnp.asarray(False)
    state = _State(start, start, jnp.ones((), start.weights.dtype), nothing, jnp.asarray(0, jnp.int32))
    state, info = jax.lax.scan(epoch, state, jnp.arange(epochs, dtype=jnp.int32))
    converged = norm(objective(state.params, x, y)[1]) <= tolerance
    return Fit(state.params, info.loss, info.gradient_norm, converged, state.epochs)


def _step(state: _State, gradient: Params, learning_rate: Array, accelerated: bool) -> _State:
    new = move(state.ahead, gradient, learning_rate)
    if not accelerated:
        return state._replace(params=new, ahead=new)
    way = jax.tree.map(jnp.subtract, new, state.params)
    uphill = sum(jnp.vdot(g, w) for g, w in zip(gradient, way, strict=True)) > 0
    pace = jnp.where(uphill, 1.0, state.pace)
    following = (1 + jnp.sqrt(1 + 4 * pace**2)) / 2
    momentum = (pace - 1) / following
    ahead = jax.tree.map(lambda w, s: w + momentum * s, new, way)
    return state._replace(params=new, ahead=ahead, pace=following.astype(state.pace.dtype))


def _pass(
    objective: Objective, state: _State, x: Array, y: Array, batch_size: int, rate: Array, key: Key | None,
    number: Array,
) -> _State:  # fmt: skip
    assert key is not None
    batches = len(x) // batch_size
    order = jax.random.permutation(jax.random.fold_in(key, number), len(x))[: batches * batch_size]

    def step(params: Params, index: Array) -> tuple[Params, None]:
        return move(params, objective(params, x[index], y[index])[1], rate), None

    params, _ = jax.lax.scan(step, state.ahead, order.reshape(batches, batch_size))
    return state._replace(params=params, ahead=params)
