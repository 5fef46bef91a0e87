"""Label noise that is nested in its rate, so that a sweep over rates compares like with like."""

import jax
import jax.numpy as jnp
import numpy as np

from nnjax.data.splits import check_labels
from nnjax.types import Array, Key


def noisy_labels(key: Key, y: Array, rate: Array | float, classes: int) -> jax.Array:
    """Replace a share `rate` of the labels by a uniformly drawn wrong class (Nakkiran et al., 2020).

    Every example i has a threshold u_i, uniform on [0, 1), and a wrong label, both drawn once from the key
    and i; the label is replaced where u_i < rate. So the noise at 10 % is exactly part of the noise at 20 %
    with the same wrong labels, and the first n labels get the same noise however many follow. The number
    replaced is binomial, not exactly `rate * n`.

    Args:
        key: random key; may be vmapped over.
        y: (n,) integer labels 0 to classes - 1.
        rate: share of wrong labels, 0 to 1, a scalar; may be traced.
        classes: number of classes, at least 2.

    Returns:
        (n,) labels of the type of `y`.

    Raises:
        ValueError: fewer than two classes, or where its value is known, a rate outside [0, 1] or (NumPy
            input only) a label that is no class.
    """
    if classes < 2:
        raise ValueError(f"label noise needs at least 2 classes, got {classes}")
    if not isinstance(rate, jax.core.Tracer) and not 0 <= float(rate) <= 1:
        raise ValueError(f"rate must be from 0 to 1, got {rate}")
    if not isinstance(y, jax.Array):
        y = check_labels(y, classes)
    labels = jnp.asarray(y)
    # A key an example: unlike one draw of shape (n,), this does not depend on n by construction.
    keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, np.arange(labels.shape[0], dtype=np.uint32))
    threshold, shift = jax.vmap(lambda one: _threshold_and_shift(one, classes))(keys)
    wrong = (labels.astype(jnp.int32) + shift) % classes
    return jnp.where(threshold < jnp.asarray(rate, jnp.float32), wrong.astype(labels.dtype), labels)


def _threshold_and_shift(key: Key, classes: int) -> tuple[jax.Array, jax.Array]:
    # The types are fixed so that the noise is the same inside `jax.enable_x64`.
    for_threshold, for_shift = jax.random.split(key)
    threshold = jax.random.uniform(for_threshold, dtype=jnp.float32)
    return threshold, jax.random.randint(for_shift, (), 1, classes, dtype=jnp.int32)
