"""What a net sees, for looking at: the outputs of every layer, and a convolution's kernels as pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from nnjax.models import watch
from nnjax.models.linen import function_of
from nnjax.naming import choose
from nnjax.types import Array, Key, PyTree

__all__ = ["feature_maps", "filters"]

_AXES = 4  # of a two-dimensional convolution's kernel: (kh, kw, c_in, c_out)


def feature_maps(
    model: nn.Module,
    params: PyTree,
    stats: PyTree,
    x: Array,
    *,
    activation: str | Callable[[Array], Array] | None = None,
    key: Key | None = None,
    train: bool = False,
) -> dict[str, Array]:
    """The output of every layer of ``model`` for x (n, ...), with no edit to the model (Zeiler and Fergus, 2014).

    A layer is a module that owns a kernel or an embedding (see `nnjax.models.watch`), and its output what the kernel
    makes, bias added: the pre-activation. Works under `jax.jit` and `jax.vmap`.

    Args:
      model: any Linen module; static.
      params, stats: as `nnjax.models.init` returns them.
      x: (n, h, w, c), or whatever the model takes.
      activation: applied to every output, or to that of the batch, layer, group or RMS normalization directly after the
        layer where there is one; a function or a name in `nnjax.activations`. That is the net's own signal where the
        activation follows at once; of the last convolution before a residual sum, say, it is not. The last layer's
        output is left as it is.
      key: drives dropout.
      train: whether batch statistics and dropout are those of training; new statistics are dropped.

    Returns:
      by the layer's path, in the order of the calls (in alphabetical order out of `jax.jit`): (n, h, w, channels) of a
      convolution, (n, units) of a dense layer. "hidden/3" is the fourth turn of a loop, "Dense_0#2" the second call of
      one module.

    Raises:
      ValueError: x has no example, an unknown activation, or a model without a layer.
    """
    watch.examples(x)
    function = None if activation is None else function_of(activation)

    def visit(module: nn.Module, call: watch.Call, given: Any, y: Array) -> Array:
        watch.keep(module, call.key, y)
        return y

    def visit_norm(module: nn.Module, call: watch.Call, given: Any, y: Array) -> Array:
        watch.keep(module, call.norm_key, y)
        return y

    seen = watch.Watch(visit, None if function is None else visit_norm)
    _, kept = seen.run(model, {"params": params, **stats}, x, key=key, train=train, stats=stats)
    records = kept.get(watch.RECORDS, {})

    found = watch.layers(seen, records)

    def output(layer: watch.Layer) -> Array:
        call = layer.call
        if function is None or layer is found[-1]:
            return watch.at(records, call.path)[call.key][layer.turn]
        path, name = (call.path, call.key) if call.norm is None else (call.norm, call.norm_key)
        return function(watch.at(records, path)[name][layer.turn])

    return {layer.name: output(layer) for layer in found}


def filters(params: PyTree, path: str, *, channel: int | None = None, together: bool = False) -> jax.Array:
    """The kernels of one convolution as pictures: zero is gray, 0.5, the largest weight 0 or 1 by its sign.

    The colors of a kernel on RGB pictures are those it answers to (Krizhevsky et al., 2012, figure 3).

    Parameters alone do not tell a net's dimensions: every kernel of four axes is taken for a two-dimensional one, and
    leading axes more for the turns of loops. The kernels of one-dimensional convolutions stacked by a loop, and of
    three-dimensional ones, are taken so too, and what is shown of them means nothing.

    Args:
      params: as `nnjax.models.init` returns them.
      path: of the convolution, "Conv_0" or "stage/Conv_1"; a number at the end is the turn in a loop, "hidden/3".
      channel: show the part of each kernel on this input channel alone, in gray. Needed where the kernel has other than
        1 or 3 input channels.
      together: one scale for all kernels, so that weak ones look weak, instead of one for each.

    Returns:
      (k, kh, kw, 3 or 1) in [0, 1], for k output channels.

    Raises:
      ValueError: a path with no two-dimensional convolution, or a channel that is missing or not there.
    """
    kernel = _kernel(params, path)
    channels = kernel.shape[2]
    if channel is None and channels not in (1, 3):
        raise ValueError(
            f"the kernels of {path!r} have {channels} input channels and cannot be shown as gray or RGB pictures; "
            f"give channel, 0 to {channels - 1}"
        )
    if channel is not None:
        if not 0 <= channel < channels:
            raise ValueError(f"channel={channel} must lie between 0 and {channels - 1}, the input channels of {path!r}")
        kernel = kernel[:, :, channel : channel + 1]
    pictures = jnp.moveaxis(kernel, 3, 0)
    most = jnp.abs(pictures).max(None if together else (1, 2, 3), keepdims=True)
    return jnp.clip(0.5 + 0.5 * pictures / jnp.where(most > 0, most, 1), 0, 1)


def _kernel(params: PyTree, path: str) -> jax.Array:
    """The kernel (kh, kw, c_in, c_out) of the convolution at ``path``, of one turn where a loop has stacked it."""
    table = _convolutions(params, ())
    if not table:
        raise ValueError("params has no kernel of a two-dimensional convolution, (kh, kw, c_in, c_out)")
    return choose("convolution", path, table)


def _convolutions(branch: PyTree, path: tuple[str, ...]) -> dict[str, jax.Array]:
    """Every convolution's kernel by its path; stacked ones by their turns."""
    found: dict[str, jax.Array] = {}
    for name, value in branch.items():
        if isinstance(value, Mapping):
            found |= _convolutions(value, (*path, name))
        elif name == "kernel" and jnp.ndim(value) >= _AXES:
            found |= _turns(jnp.asarray(value), path)
    return found


def _turns(kernel: jax.Array, path: tuple[str, ...]) -> dict[str, jax.Array]:
    if kernel.ndim == _AXES:
        return {"/".join(path) or "model": kernel}
    return {
        name: each for turn in range(kernel.shape[0]) for name, each in _turns(kernel[turn], (*path, str(turn))).items()
    }
