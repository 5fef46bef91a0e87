"""What keeps weights small or units honest: penalties to add to a loss, and dropout.

A penalty is a number, ``(params, strength) -> ()``, that `nnjax.train.make_train` adds to the mean loss::

    make_train(..., penalty=lambda params, hparams: regularizers.l2(params, hparams["strength"]))

It counts weights (kernels: leaves with two axes or more) and leaves biases and the scales of a normalization alone.
Strengths and rates may be traced, so that a path of them is one program. Batch normalization is an option of
`nnjax.models.MLP`; early stopping is ``select`` and ``patience`` of `nnjax.train.Config`; decoupled weight decay is
``optimizers.by_name("adamw", ...)``.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp

from nnjax.types import Array, Key, PyTree


def kernels(params: PyTree) -> list[Array]:
    """The weights that penalties count: every leaf with at least two axes, in the order of the tree."""
    return [leaf for leaf in jax.tree.leaves(params) if jnp.ndim(leaf) >= 2]


def l1(params: PyTree, strength: Array | float) -> jax.Array:
    """strength * sum |w|, which makes weights exactly zero at its optimum (lasso; Tibshirani, 1996).

    The gradient is strength * sign(w), 0 at w = 0. Steps of it overshoot zero by up to learning rate * strength, so
    weights become small rather than zero unless the learning rate falls to zero.

    Args:
      params: any pytree; see `kernels`.
      strength: at least 0, (); may be traced.

    Returns:
      (), of the weights' dtype.

    Raises:
      ValueError: a strength that is no scalar or, where its value is known, negative or not finite.
    """
    return _number("strength", strength) * _total([_absolute_sum(w) for w in kernels(params)])


def l2(params: PyTree, strength: Array | float) -> jax.Array:
    """strength * sum w^2 (ridge; Hoerl and Kennard, 1970).

    The gradient is 2 strength w: a step of plain gradient descent at learning rate h first shrinks every weight by
    the factor 1 - 2 h strength, which is weight decay (Krogh and Hertz, 1991). Under a rule that scales gradients,
    such as Adam, the two differ (Loshchilov and Hutter, 2019).

    Args, Returns, Raises: as `l1`.
    """
    return _number("strength", strength) * _squares(params)


def l2_mean(params: PyTree, strength: Array | float, samples: Array | float) -> jax.Array:
    """strength / (2 m) * sum over layers of ||W||^2, the textbook form for a loss averaged over m training samples.

    The gradient is strength / m * w. It is `l2` of strength / (2 m): the penalty fades as data grow, as a Gaussian
    prior does against the likelihood.

    Args:
      params: any pytree; see `kernels`.
      strength: at least 0, (); may be traced.
      samples: m, the number of training samples (not of the batch), above 0; may be traced.

    Returns:
      (), of the weights' dtype.

    Raises:
      ValueError: a strength as for `l1`, or samples that are no scalar or, where the value is known, not above 0.
    """
    return _number("strength", strength) / (2 * _number("samples", samples, above=True)) * _squares(params)


def dropout(key: Key, x: Array, rate: Array | float) -> jax.Array:
    """Zero each value with probability ``rate`` and divide the others by 1 - rate (Srivastava et al., 2014).

    This is inverted scaling: the expectation is x, so nothing is done when a net is evaluated. ``rate`` is the
    probability of dropping; some sources give that of keeping. Rate 0 gives x itself, rate 1 gives zeros.

    Args:
      key: random key.
      x: any shape.
      rate: 0 to 1, (); may be traced.

    Returns:
      As x.

    Raises:
      ValueError: a rate that is no scalar or, where its value is known, outside [0, 1].
    """
    x = jnp.asarray(x, jnp.result_type(float, x))
    keep = 1 - jnp.asarray(_number("rate", rate, most=1.0), jnp.promote_types(x.dtype, jnp.float32))
    mask = jax.random.bernoulli(key, keep, x.shape)
    scaled = x / jnp.where(keep > 0, keep, 1).astype(x.dtype)  # no 0/0, whose gradient would be NaN
    return jnp.where(mask, scaled, jnp.zeros_like(x))


def _absolute_sum(w: Array) -> jax.Array:
    # JAX gives |w| the slope 1 at 0, which would push weights off the very point they are to rest at.
    return jnp.sum(w * jax.lax.stop_gradient(jnp.sign(w)))


def _squares(params: PyTree) -> jax.Array:
    return _total([jnp.sum(jnp.square(w)) for w in kernels(params)])


def _total(parts: list[jax.Array]) -> jax.Array:
    return sum(parts[1:], parts[0]) if parts else jnp.zeros(())


def _number(name: str, value: Any, *, most: float = math.inf, above: bool = False) -> Any:
    """``value``, refused where it is no scalar or, its value being known, outside the range from 0 to ``most``."""
    if jnp.shape(value) != ():
        raise ValueError(f"{name} of shape {jnp.shape(value)} must be one number")
    if isinstance(value, jax.core.Tracer):
        return value
    known = float(value)  # a comparison of arrays would be traced where anything else is
    if not (known > 0 if above else known >= 0) or known > most or known == math.inf:
        allowed = f"between 0 and {most:g}" if most < math.inf else f"{'above' if above else 'at least'} 0 and finite"
        raise ValueError(f"{name}={value} must be {allowed}")
    return value
