"""Losses per example, unreduced: ``(prediction, target) -> (n,)``.

The caller averages, so that example weights, padding and class weights need no second code path.
"""

import jax.numpy as jnp
import optax

from nnjax.types import Array


def _with_labels(prediction: Array, target: Array) -> tuple[Array, Array]:
    prediction, target = jnp.asarray(prediction), jnp.asarray(target)
    if target.shape not in (prediction.shape, prediction.shape[:-1]):
        raise ValueError(f"target {target.shape} must be (n,) or (n, k) for a prediction {prediction.shape}")
    return prediction, target


def cross_entropy(prediction: Array, target: Array) -> Array:
    """Softmax cross-entropy from logits, in nats.

    Args:
      prediction: logits, (n, k).
      target: integer labels (n,), or one-hot / soft labels (n, k).

    Returns:
      (n,), finite for finite logits however large.
    """
    prediction, target = _with_labels(prediction, target)
    if jnp.issubdtype(target.dtype, jnp.integer) and target.ndim == prediction.ndim - 1:
        return optax.softmax_cross_entropy_with_integer_labels(prediction, target)
    return optax.softmax_cross_entropy(prediction, target)


def zero_one(prediction: Array, target: Array) -> Array:
    """One where the largest logit is not the target's class, else zero; its mean is the error rate.

    Args:
      prediction: logits, (n, k).
      target: integer labels (n,), or one-hot labels (n, k).

    Returns:
      (n,) of the prediction's dtype.
    """
    prediction, target = _with_labels(prediction, target)
    labels = target if target.ndim == prediction.ndim - 1 else jnp.argmax(target, axis=-1)
    return (jnp.argmax(prediction, axis=-1) != labels).astype(prediction.dtype)


def squared_error(prediction: Array, target: Array) -> Array:
    """Sum over outputs of (prediction - target)^2; both (n,) or (n, k). Returns (n,)."""
    prediction, target = jnp.asarray(prediction), jnp.asarray(target)
    if prediction.shape != target.shape:  # (n,) against (n, 1) would spread to (n, n)
        raise ValueError(f"prediction {prediction.shape} and target {target.shape} must have one shape")
    difference = prediction - target
    return jnp.sum(difference.reshape(difference.shape[0], -1) ** 2, axis=-1)


def half_squared_error(prediction: Array, target: Array) -> Array:
    """Half the sum of squares, whose gradient is prediction - target; shapes as `squared_error`."""
    return 0.5 * squared_error(prediction, target)
