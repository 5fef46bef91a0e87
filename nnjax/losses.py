"""Losses per example, unreduced: ``(prediction, target) -> (n,)``.

The caller averages, so that example weights, padding and class weights need no second code path. Where an example
has several outputs, (n, k), a loss of one output is summed over them. Integers and booleans become floats.
Losses and their derivatives with respect to the prediction are finite wherever they are in exact arithmetic, at
probabilities of 0 and 1 and at logits as large as the dtype holds; infinite losses are inf. Where a derivative does
not exist, at a kink, zero is taken.

An integer label outside 0 to k - 1, -1 as much as k, names no class: its loss is NaN, and `zero_one` counts it as
wrong. Its gradient says nothing.

Every loss raises ValueError, naming the shapes, where they do not fit: (n,) against (n, 1) would spread to (n, n).
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike

from nnjax.activations import absolute
from nnjax.types import Array, floating

_PADDING = 0
"""The reserved token that fills a sequence up, as in `nnjax.data`."""


def _pair(prediction: ArrayLike, target: ArrayLike, *, vectors: bool = False) -> tuple[jax.Array, jax.Array]:
    """Both as (n, k) of one floating dtype; outputs of further axes are laid side by side."""
    prediction, target = jnp.asarray(prediction), jnp.asarray(target)
    if prediction.shape != target.shape:
        raise ValueError(f"prediction {prediction.shape} and target {target.shape} must have one shape")
    if prediction.ndim < (2 if vectors else 1):
        raise ValueError(f"prediction {prediction.shape} must be {'(n, k)' if vectors else '(n,) or (n, k)'}")
    dtype = floating(jnp.zeros((), jnp.result_type(prediction, target))).dtype
    n, k = prediction.shape[0], int(np.prod(prediction.shape[1:]))
    return prediction.astype(dtype).reshape(n, k), target.astype(dtype).reshape(n, k)


def _with_classes(prediction: ArrayLike, target: ArrayLike) -> tuple[jax.Array, jax.Array, bool]:
    """Floating scores (n, k), the target, and whether it holds labels (n,) rather than weights of classes (n, k)."""
    prediction, target = jnp.asarray(prediction), jnp.asarray(target)
    if prediction.ndim != 2:
        raise ValueError(f"prediction {prediction.shape} must be (n, k), a score for each class")
    if target.shape not in (prediction.shape, prediction.shape[:-1]):
        raise ValueError(f"target {target.shape} must be (n,) or (n, k) for a prediction {prediction.shape}")
    by_label = target.ndim == 1
    if by_label and jnp.issubdtype(target.dtype, jnp.floating):
        raise ValueError(
            f"target {target.shape} of {target.dtype} must be integer labels, or one-hot {prediction.shape}"
        )
    if by_label:
        # Every label outside becomes k: JAX reads a negative one from the end, and one past the end as NaN.
        target = target.astype(jnp.result_type(int))
        target = jnp.where(target < 0, prediction.shape[-1], target)
    return floating(prediction), target, by_label


def _labels(prediction: ArrayLike, target: ArrayLike) -> tuple[jax.Array, jax.Array]:
    """Floating scores (n, k) and integer labels (n,)."""
    prediction, target, by_label = _with_classes(prediction, target)
    return prediction, target if by_label else jnp.argmax(target, axis=-1)


def _times_log(x: jax.Array, y: jax.Array) -> jax.Array:
    """x log(y), with 0 log(0) = 0 and its derivative 0, where that of jax.scipy.special.xlogy is NaN."""
    return jnp.where(x == 0, 0, x * jnp.log(jnp.where(x == 0, 1, y)))


def squared_error(prediction: ArrayLike, target: ArrayLike) -> Array:
    """Sum over outputs of (prediction - target)^2; both (n,) or (n, k). Returns (n,)."""
    prediction, target = _pair(prediction, target)
    return jnp.sum((prediction - target) ** 2, axis=-1)


def half_squared_error(prediction: ArrayLike, target: ArrayLike) -> Array:
    """Half the sum of squares, whose gradient is prediction - target; shapes as `squared_error`."""
    return 0.5 * squared_error(prediction, target)


def absolute_error(prediction: ArrayLike, target: ArrayLike) -> Array:
    """Sum over outputs of |prediction - target|; both (n,) or (n, k). Returns (n,)."""
    prediction, target = _pair(prediction, target)
    return jnp.sum(absolute(prediction - target), axis=-1)


def absolute_percentage_error(prediction: ArrayLike, target: ArrayLike) -> Array:
    """Sum over outputs of |prediction - target| / max(|target|, 2.2e-16), a fraction, not a percentage.

    A target of zero is guarded as scikit-learn guards it, by the epsilon of float64: the loss is then huge, not
    infinite.

    Args:
      prediction: (n,) or (n, k).
      target: the same shape.

    Returns:
      (n,).
    """
    prediction, target = _pair(prediction, target)
    guard = max(float(np.finfo(np.float64).eps), float(jnp.finfo(target.dtype).tiny))  # the first is 0 in float16
    size = jnp.maximum(jnp.abs(target), guard)
    # Halves, because the difference of two large numbers of either sign overflows where its ratio does not.
    return jnp.sum(absolute(prediction / 2 - target / 2) / (size / 2), axis=-1)


def squared_log_error(prediction: ArrayLike, target: ArrayLike) -> Array:
    """Sum over outputs of (log(1 + prediction) - log(1 + target))^2.

    Args:
      prediction: (n,) or (n, k), > -1 (inf at -1, NaN below).
      target: the same shape, > -1.

    Returns:
      (n,).
    """
    prediction, target = _pair(prediction, target)
    return jnp.sum((jnp.log1p(prediction) - jnp.log1p(target)) ** 2, axis=-1)


def log_cosh(prediction: ArrayLike, target: ArrayLike) -> Array:
    """Sum over outputs of log(cosh(e)), e = prediction - target; about e^2/2 near 0, |e| - log 2 far out.

    Both (n,) or (n, k). Returns (n,). The gradient is tanh(e).
    """
    prediction, target = _pair(prediction, target)
    error = prediction - target
    # optax.log_cosh takes log 2 from a number near log 2, and has no right digit left where |e| < 1e-3.
    near = jnp.log1p(2 * jnp.sinh(jnp.clip(error, -1, 1) / 2) ** 2)
    size = absolute(error)
    far = size + jnp.log1p(jnp.exp(-2 * size)) - np.log(2.0).astype(error.dtype)
    return jnp.sum(jnp.where(size < 1, near, far), axis=-1)


def huber(prediction: ArrayLike, target: ArrayLike, delta: ArrayLike = 1.0) -> Array:
    """Sum over outputs of e^2/2 where |e| <= delta, else delta (|e| - delta/2), e = prediction - target.

    Args:
      prediction: (n,) or (n, k).
      target: the same shape.
      delta: where squares end, > 0, in the target's units; infinite for squares alone.

    Returns:
      (n,).

    Raises:
      ValueError: a delta that is known and not positive.

    Source: Huber (1964).
    """
    if not isinstance(delta, jax.core.Tracer) and not np.all(np.asarray(delta) > 0):
        raise ValueError(f"delta={delta} must be positive")
    prediction, target = _pair(prediction, target)
    size, delta = absolute(prediction - target), jnp.asarray(delta, prediction.dtype)
    # optax.huber_loss multiplies an infinite delta by 0, and makes bfloat16 float32 where delta is an array.
    near = size <= delta
    square, beyond = jnp.where(near, size, delta), jnp.where(near, 0, delta)
    return jnp.sum(0.5 * square**2 + beyond * (jnp.where(near, 0, size) - beyond), axis=-1)


def poisson(prediction: ArrayLike, target: ArrayLike) -> Array:
    """Sum over outputs of prediction - target log(prediction): Poisson's negative log-likelihood less log(target!).

    Args:
      prediction: rates, (n,) or (n, k), >= 0. At 0 the loss is 0 for a target of 0, else inf.
      target: counts, the same shape, >= 0.

    Returns:
      (n,), in nats.
    """
    prediction, target = _pair(prediction, target)
    return jnp.sum(prediction - _times_log(target, prediction), axis=-1)


def _unit(vector: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Rows (n, k) of length 1, and which of them have a length, (n, 1)."""
    # Divided by the largest entry first, squares neither overflow nor vanish. The direction does not depend on
    # that factor, so neither does its derivative. The factor's own inverse must be in range too, hence the clip.
    largest = jax.lax.stop_gradient(jnp.max(jnp.abs(vector), axis=-1, keepdims=True, initial=0))
    limits = jnp.finfo(vector.dtype)
    alive = largest > 0
    scale = jnp.clip(largest, float(limits.tiny) ** 0.75, float(limits.max) ** 0.75)
    vector = jnp.where(alive, vector / scale, 1)
    return vector / jnp.linalg.norm(vector, axis=-1, keepdims=True), alive


def cosine_distance(prediction: ArrayLike, target: ArrayLike) -> Array:
    """1 - cosine of the angle between the rows; between 0 and 2.

    Args:
      prediction: (n, k).
      target: (n, k).

    Returns:
      (n,); 1 where a row is zero and there is no angle, with gradient 0.
    """
    prediction, target = _pair(prediction, target, vectors=True)
    (a, a_alive), (b, b_alive) = _unit(prediction), _unit(target)
    # Half the squared chord, which is the same number without the cancellation of 1 - cos near 0.
    distance = 0.5 * jnp.sum((a - b) ** 2, axis=-1)
    return jnp.where((a_alive & b_alive)[:, 0], distance, 1)


def zero_one(prediction: ArrayLike, target: ArrayLike) -> Array:
    """One where the largest logit is not the target's class, else zero; its mean is the error rate.

    A NaN among the logits is an error too: a net that has diverged is never right.

    Args:
      prediction: logits, (n, k); or (n,), one logit as in `binary_cross_entropy`, which says 1 above 0 and 0 else.
        (n, 1) is the logit of a single class, never wrong.
      target: integer labels (n,), or one-hot labels (n, k); for one logit labels 0 and 1, (n,), others are wrong.

    Returns:
      (n,) of the prediction's dtype.
    """
    if jnp.ndim(prediction) == 1:
        dtype = floating(prediction).dtype
        prediction, target = _pair(prediction, target)
        wrong = jnp.where(prediction > 0, 1, 0) != target
        return jnp.any(wrong | jnp.isnan(prediction), axis=-1).astype(dtype)
    prediction, labels = _labels(prediction, target)
    wrong = jnp.argmax(prediction, axis=-1) != labels
    return (wrong | jnp.any(jnp.isnan(prediction), axis=-1)).astype(prediction.dtype)


def hinge(prediction: ArrayLike, target: ArrayLike) -> Array:
    """Sum over outputs of max(0, 1 - target prediction).

    Args:
      prediction: scores, (n,) or (n, k).
      target: labels -1 and +1, the same shape. Not 0 and 1: a target of 0 costs 1 whatever the score.

    Returns:
      (n,).
    """
    prediction, target = _pair(prediction, target)
    return jnp.sum(jax.nn.relu(1 - target * prediction), axis=-1)


def squared_hinge(prediction: ArrayLike, target: ArrayLike) -> Array:
    """Sum over outputs of max(0, 1 - target prediction)^2; shapes and labels as `hinge`."""
    prediction, target = _pair(prediction, target)
    return jnp.sum(jax.nn.relu(1 - target * prediction) ** 2, axis=-1)


def _margins(prediction: ArrayLike, target: ArrayLike) -> tuple[jax.Array, jax.Array]:
    """1 + s_j - s_y for each class j, (n, k), and which j are another class than y."""
    prediction, labels = _labels(prediction, target)
    true = jnp.take_along_axis(prediction, labels[:, None], axis=-1)
    others = jnp.arange(prediction.shape[-1])[None, :] != labels[:, None]
    return 1 + (prediction - true), others


def categorical_hinge(prediction: ArrayLike, target: ArrayLike) -> Array:
    """max(0, 1 + max_{j != y} s_j - s_y): only the strongest wrong class counts (Crammer and Singer, 2001).

    Args:
      prediction: scores s, (n, k).
      target: integer labels y (n,), or one-hot labels (n, k).

    Returns:
      (n,).
    """
    margins, others = _margins(prediction, target)
    return jax.nn.relu(jnp.max(jnp.where(others, margins, -jnp.inf), axis=-1))


def multiclass_hinge(prediction: ArrayLike, target: ArrayLike) -> Array:
    """sum_{j != y} max(0, s_j - s_y + 1): every wrong class within the margin counts (Weston and Watkins, 1999).

    Args:
      prediction: scores s, (n, k).
      target: integer labels y (n,), or one-hot labels (n, k).

    Returns:
      (n,).
    """
    margins, others = _margins(prediction, target)
    return jnp.sum(jnp.where(others, jax.nn.relu(margins), 0), axis=-1)


def binary_cross_entropy(prediction: ArrayLike, target: ArrayLike) -> Array:
    """Sum over outputs of -t log(s) - (1 - t) log(1 - s), s the logistic function of the logit, in nats.

    Args:
      prediction: logits, (n,) or (n, k), not probabilities.
      target: t in [0, 1], the same shape.

    Returns:
      (n,), finite for finite logits however large. The gradient is s - t.
    """
    prediction, target = _pair(prediction, target)
    # An infinite logit on the right side costs nothing; optax.sigmoid_binary_cross_entropy makes it 0 inf = NaN.
    one = jnp.where(target == 0, 0, target * jax.nn.softplus(-prediction))
    zero = jnp.where(target == 1, 0, (1 - target) * jax.nn.softplus(prediction))
    return jnp.sum(one + zero, axis=-1)


def cross_entropy(prediction: ArrayLike, target: ArrayLike) -> Array:
    """Softmax cross-entropy from logits, in nats.

    Args:
      prediction: logits, (n, k).
      target: integer labels (n,), or one-hot / soft labels (n, k).

    Returns:
      (n,), finite for finite logits however large. A logit of -inf is a class ruled out.
    """
    prediction, target, by_label = _with_classes(prediction, target)
    if by_label:
        return optax.softmax_cross_entropy_with_integer_labels(prediction, target)
    return optax.safe_softmax_cross_entropy(prediction, target)


def token_cross_entropy(prediction: ArrayLike, target: ArrayLike) -> Array:
    """Softmax cross-entropy of a sequence's tokens, mean over its steps, in nats; over log 2 it is bits a token.

    Steps whose target is the padding, 0, do not count, whatever their logits. A sequence of padding alone costs 0, as
    what fills up a batch should; give it no weight, or it lowers the mean. The mean over sequences of several lengths
    is that over tokens only if each is weighted by its own number of them.

    Args:
      prediction: logits, (n, t, k).
      target: integer labels, (n, t).

    Returns:
      (n,), finite for finite logits however large.
    """
    prediction, target = jnp.asarray(prediction), jnp.asarray(target)
    if prediction.ndim != 3:
        raise ValueError(f"prediction {prediction.shape} must be (n, t, k), a score for each class at each step")
    if target.shape != prediction.shape[:2] or not jnp.issubdtype(target.dtype, jnp.integer):
        raise ValueError(
            f"target {target.shape} of {target.dtype} must be integer labels (n, t) for a prediction {prediction.shape}"
        )
    counts = target != _PADDING
    # Logits that are not finite must not reach the gradient through a step that does not count.
    scores = jnp.where(counts[:, :, None], floating(prediction), 0)
    steps = cross_entropy(scores.reshape(-1, scores.shape[2]), target.reshape(-1)).reshape(target.shape)
    return jnp.sum(jnp.where(counts, steps, 0), axis=1) / jnp.maximum(jnp.sum(counts, axis=1), 1).astype(steps.dtype)


def kl_divergence(prediction: ArrayLike, target: ArrayLike) -> Array:
    """sum target log(target / prediction), the divergence of the prediction from the target, in nats.

    Args:
      prediction: probabilities, (n, k).
      target: probabilities, (n, k).

    Returns:
      (n,); a class of target 0 adds nothing, one of prediction 0 alone makes it inf.

    Source: Kullback and Leibler (1951).
    """
    prediction, target = _pair(prediction, target, vectors=True)
    return jnp.sum(_times_log(target, target) - _times_log(target, prediction), axis=-1)
