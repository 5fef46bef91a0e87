"""Initial weights that look at the data."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from nnjax.models import watch
from nnjax.types import Array, Key, PyTree


def lsuv(
    model: nn.Module,
    params: PyTree,
    stats: PyTree,
    x: Array,
    *,
    target: ArrayLike = 1.0,
    key: Key | None = None,
    train: bool = False,
) -> PyTree:
    """Parameters with each kernel scaled so that its layer's output on x has variance ``target``.

    Layer-sequential unit variance (Mishkin and Matas, 2016), who start from orthonormal kernels: initialize ``model``
    with "orthogonal" or "delta_orthogonal" for that. The variance goes over all examples, units and pixels of the
    pre-activation. One pass does it, without their iteration: each layer's output is rescaled before the next layer
    sees it. Only kernels and embeddings change, each by one factor above 0; biases stay, and where they vary from unit
    to unit the factor is the one that brings the sum to ``target``.

    A kernel is left as it is where no factor helps: its product is constant or not finite, or the biases alone vary so
    much that none leads to ``target``. So are recurrent cells. A module called several times is scaled by its first
    call. Products far smaller than the bias that is added to them have lost digits in the sum, and the variance is off
    by as much; a second application mends that. With batch statistics and dropout the variance is that of the same
    ``train`` and ``key``.

    Args:
      model: any Linen module whose layers are linear in their kernel; static.
      params, stats: as `nnjax.models.init` returns them.
      x: a batch, (n, ...).
      target: above 0, may be traced.
      key: drives dropout.
      train: whether batch statistics and dropout are those of training.

    Raises:
      ValueError: no examples, a known target not above 0, a model without a layer, or a kernel that the turns of a loop
        share (one factor cannot suit all turns).
    """
    watch.examples(x)
    _check_target(target)

    def visit(module: nn.Module, call: watch.Call, given: Any, y: Array) -> Array:
        bias = module.variables["params"].get("bias", 0.0) if _is_linear(call) else None
        if bias is None:
            watch.keep(module, call.key, jnp.ones(()))
            return y
        bias = jnp.broadcast_to(bias, y.shape)
        product = y - bias
        first = _factor(product, bias, target) if call.number == 0 else watch.kept(module, "call_0")
        watch.keep(module, call.key, first)
        return first * product + bias

    seen = watch.Watch(visit)
    _, kept = seen.run(model, {"params": params, **stats}, x, key=key, train=train, stats=stats)
    records = kept.get(watch.RECORDS, {})
    watch.layers(seen, records)
    for call in seen.calls.values():
        if call.number == 0 and _is_linear(call):
            params = _scaled(params, call, watch.at(records, call.path)[call.key])
    return params


def _check_target(target: ArrayLike) -> None:
    if isinstance(target, jax.core.Tracer):
        return
    number = np.asarray(target)
    if number.ndim or number.dtype.kind not in "iuf" or not 0 < number < np.inf:
        raise ValueError(f"target={target!r} must be a finite number above 0, a variance")


def _is_linear(call: watch.Call) -> bool:
    """Whether the layer is one module with a kernel of its own, no recurrent cell."""
    return set(call.kernels) == {call.path}


def _factor(product: Array, bias: Array, target: ArrayLike) -> Array:
    """The factor above 0 with which ``factor product + bias`` has variance ``target``; 1 if there is none."""
    centered = product - product.mean()
    top = jnp.abs(centered).max()
    rounding = 32 * jnp.finfo(product.dtype).eps * jnp.abs(product).max()  # the mean of equal numbers is off by some
    some = jnp.isfinite(top) & (top > rounding)
    scaled = centered / jnp.where(some, top, 1.0)  # squares of the smallest signals would be 0
    size = jnp.where(some, jnp.sqrt(jnp.square(scaled).mean()), 1.0)
    spread = bias - bias.mean()
    # With r the standard deviation of the scaled product: r^2 + 2 r covariance + var(bias) = target.
    covariance = (scaled / size * spread).mean()
    inside = covariance**2 + target - jnp.square(spread).mean()
    r = jnp.sqrt(jnp.maximum(inside, 0.0)) - covariance
    factor = r / size / jnp.where(some, top, 1.0)
    usable = some & (inside >= 0) & (r > 0) & jnp.isfinite(factor)
    return jnp.where(usable, factor, 1.0).astype(product.dtype)


def _scaled(params: PyTree, call: watch.Call, factors: Array) -> PyTree:
    """The parameters with the call's kernel multiplied, turn by turn."""

    def down(tree: PyTree, path: watch.Path) -> PyTree:
        if path:
            return {**tree, path[0]: down(tree[path[0]], path[1:])}
        if factors.ndim and not watch.is_stacked(tree, call.kernels[call.path], factors.shape):
            name = "/".join(call.path)
            raise ValueError(f"the turns of a loop share the kernel of {name!r}: one factor cannot suit them all")
        kernels = {name: tree[name] for name in watch.KERNELS if name in tree}
        return {**tree, **{name: _times(kernel, factors) for name, kernel in kernels.items()}}

    return down(params, call.path)


def _times(kernel: Array, factors: Array) -> Array:
    return (kernel * factors.reshape(factors.shape + (1,) * (kernel.ndim - factors.ndim))).astype(kernel.dtype)
