"""Signals that run forward and gradients that run backward through any Linen module, layer by layer.

`nnjax.models.watch` defines what a layer is, and sees it without an edit to the module. One backward pass gives the
gradients by the parameters and those by the layers' outputs: each output passes an operation that changes nothing
forward and hands the gradient out backward. Works inside `jax.jit`, `jax.vmap` and `jax.lax.scan`.

A layer may not stand in one branch of a `flax.linen.cond` alone: Flax wants the same records from both.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from nnjax import activations
from nnjax.models import watch
from nnjax.models.linen import function_of
from nnjax.naming import choose
from nnjax.types import Array, Key, PyTree

if TYPE_CHECKING:
    import xarray as xr

STATISTICS = {
    "mean": "mean of the output",
    "variance": "variance of the output",
    "length": "second moment of the output",
    "gradient_norm": "norm of the loss's gradient by the kernel",
    "delta_rms": "root mean square of an example's loss's gradient by the output",
    "saturated": "share of outputs where the activation is flat",
    "dead": "share of units that are zero, or have no slope, for every example",
    "correlation": "mean cosine of two examples' outputs",
}
"""The arrays of `LayerStatistics`, and what they are."""


@partial(jax.tree_util.register_dataclass, meta_fields=["names"], data_fields=[*STATISTICS])
@dataclass(frozen=True)
class LayerStatistics:
    """Numbers of each layer, in the order of their calls: arrays (layers,); a pytree, with more axes first under vmap.

    A layer's output z is what its kernel makes, its bias added: the pre-activation. Means and variances go over all
    examples, units and pixels alike.

    Attributes:
      names: of the layers; "hidden/3" is the fourth turn of a loop, "Dense_0#2" the second call of one module.
      mean: of z.
      variance: mean of (z - mean)^2.
      length: mean of z^2, the q of mean field theory (Poole et al., 2016).
      gradient_norm: Euclidean norm of the mean loss's gradient by the layer's kernel (all kernels of a recurrent cell;
        without biases). The calls of one module ("#2") each have that of the gradient summed over them.
      delta_rms: root mean square of d loss_i/d z_i over examples i and units: n times the mean loss's derivative.
      saturated: share of |activation'(z)| below the threshold, over examples and units; of the normalization's output
        where one stands directly between layer and activation. NaN without an activation, and for the last layer. It
        and ``dead`` take for granted that the activation follows each layer, or its normalization, at once: what they
        say of another (a shortcut's convolution, a layer before a pooling or a sum) is about no unit of the net.
      dead: share of units (last axis) whose activation is 0 for every example and pixel, or has slope 0 for each;
        z and NaN as for ``saturated``.
      correlation: mean cosine of the outputs of two different examples, those without any output left out; NaN if fewer
        than two are left.
    """

    names: tuple[str, ...]
    mean: Array
    variance: Array
    length: Array
    gradient_norm: Array
    delta_rms: Array
    saturated: Array
    dead: Array
    correlation: Array

    def __str__(self) -> str:
        """A table, a line a layer; means over lanes, if there are any."""
        columns = [*STATISTICS]
        values = [np.asarray(getattr(self, name)) for name in columns]
        rows = np.stack([value.reshape(-1, len(self.names)).mean(0) for value in values], 1)
        lines = [["layer", *columns]]
        lines += [[name, *(f"{v:.3g}" for v in row)] for name, row in zip(self.names, rows, strict=True)]
        width = [max(len(line[i]) for line in lines) for i in range(len(columns) + 1)]
        text = [
            "  ".join([line[0].ljust(width[0]), *(c.rjust(w) for c, w in zip(line[1:], width[1:], strict=True))])
            for line in lines
        ]
        return "\n".join([text[0], "-" * len(text[0]), *text[1:]])

    def to_dataset(self, *dims: str) -> xr.Dataset:
        """As a dataset with the axis "layer", the names as its coordinate, after ``dims``, the names of other axes.

        Raises:
          ValueError: another number of ``dims`` than the arrays have axes before the layers.
        """
        import xarray as xr

        shape = np.shape(self.mean)
        if len(dims) != len(shape) - 1:
            raise ValueError(f"dims={dims} must name the axes before the layers, {len(shape) - 1} in shape {shape}")
        made = {
            name: ((*dims, "layer"), np.asarray(getattr(self, name)), {"long_name": words})
            for name, words in STATISTICS.items()
        }
        return xr.Dataset(made, coords={"layer": list(self.names)})


@partial(
    jax.tree_util.register_dataclass,
    meta_fields=["names"],
    data_fields=["inputs", "outputs", "deltas", "gradients", "loss"],
)
@dataclass(frozen=True)
class Signals:
    """What `layer_signals` found, by name of layer; a pytree, whose dicts `jax.jit` returns in alphabetical order.

    Attributes:
      names: of the layers, in the order of their calls.
      inputs: what each was given, (n, ...).
      outputs: its pre-activation, (n, ...).
      deltas: n times the loss's gradient by that output, (n, ...): each example's own, where the loss is a mean.
      gradients: of the loss by the layer's parameters, shaped like them; of all calls of one module their sum.
      loss: ().
    """

    names: tuple[str, ...]
    inputs: dict[str, Array]
    outputs: dict[str, Array]
    deltas: dict[str, Array]
    gradients: dict[str, PyTree]
    loss: Array


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _tap(measure: Callable[[Array], Array], y: Array, offset: Array) -> Array:
    """y; backward, the "gradient" by ``offset`` is ``measure`` of the gradient by y."""
    return y


def _tap_forward(measure: Callable[[Array], Array], y: Array, offset: Array) -> tuple[Array, None]:
    return y, None


def _tap_backward(measure: Callable[[Array], Array], _: None, gradient: Array) -> tuple[Array, Array]:
    return gradient, measure(gradient)


_tap.defvjp(_tap_forward, _tap_backward)


def _pass(
    model: nn.Module,
    params: PyTree,
    stats: PyTree,
    x: Array,
    loss: Callable[[Any], Array],
    measures: tuple[Callable[..., Any], Callable[..., Any] | None, Callable[[Array], Array]],
    key: Key | None,
    train: bool,
) -> tuple[watch.Watch, Array, PyTree, PyTree, PyTree]:
    """One pass forward and backward: the watch, loss, records, gradients by parameters and by offsets.

    ``measures`` are of (input, output) of a layer, of the output of a normalization after it, and of the gradient.
    """
    forward, after, backward = measures

    def visit(module: nn.Module, call: watch.Call, given: Any, y: Array) -> Array:
        held = jax.lax.stop_gradient(y)
        watch.keep(module, call.key, forward(jax.lax.stop_gradient(given), held))
        return _tap(backward, y, watch.offset(module, call, lambda: backward(held)))

    def visit_norm(module: nn.Module, call: watch.Call, given: Any, y: Array) -> Array:
        if after is not None:
            watch.keep(module, call.norm_key, after(jax.lax.stop_gradient(y)))
        return y

    def run(params: PyTree, offsets: PyTree) -> Any:
        seen = watch.Watch(visit, visit_norm)
        variables = {"params": params, **stats, **({} if offsets is None else {watch.OFFSETS: offsets})}
        y, kept = seen.run(model, variables, x, key=key, train=train, stats=stats, offsets=offsets is None)
        return seen, y, kept

    shapes = jax.eval_shape(lambda params: run(params, None)[2].get(watch.OFFSETS, {}), params)
    offsets = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    watches = []

    def total(params: PyTree, offsets: PyTree) -> tuple[Array, PyTree]:
        seen, y, kept = run(params, offsets)
        watches.append(seen)
        return loss(y), kept.get(watch.RECORDS, {})

    (value, records), (gradients, deltas) = jax.value_and_grad(total, (0, 1), has_aux=True)(params, offsets)
    return watches[0], value, records, gradients, deltas


def layer_signals(
    model: nn.Module,
    params: PyTree,
    stats: PyTree,
    x: Array,
    loss: Callable[[Any], Array],
    *,
    key: Key | None = None,
    train: bool = False,
) -> Signals:
    """Inputs, outputs, deltas and gradients of every layer of ``model``, from one pass forward and backward.

    Args:
      model: any Linen module; static.
      params, stats: as `nnjax.models.init` returns them.
      x: (n, ...).
      loss: of the model's output, or of the tuple or dict of them that it returns; a scalar.
      key: drives dropout.
      train: whether batch statistics and dropout are those of training; new statistics are dropped.

    Raises:
      ValueError: no examples, a loss that is not a scalar, or a model without a layer.
    """
    n = watch.examples(x)

    def scalar(y: Any) -> Array:
        value = jnp.asarray(loss(y))
        if value.shape != ():
            shapes = jax.tree.map(jnp.shape, y)
            raise ValueError(f"loss returns shape {value.shape} for outputs {shapes}; it must return a scalar")
        return value

    measures = (lambda given, y: (given, y), None, lambda delta: delta)
    seen, value, records, gradients, deltas = _pass(model, params, stats, x, scalar, measures, key, train)
    found = watch.layers(seen, records)

    def kept(tree: PyTree, layer: watch.Layer) -> PyTree:
        return jax.tree.map(lambda leaf: leaf[layer.turn], watch.at(tree, layer.call.path)[layer.call.key])

    pairs = {layer.name: kept(records, layer) for layer in found}
    return Signals(
        names=tuple(pairs),
        inputs={name: pair[0] for name, pair in pairs.items()},
        outputs={name: pair[1] for name, pair in pairs.items()},
        deltas={layer.name: n * kept(deltas, layer) for layer in found},
        gradients={layer.name: watch.parameters(gradients, layer) for layer in found},
        loss=value,
    )


def layer_statistics(
    model: nn.Module,
    params: PyTree,
    stats: PyTree,
    x: Array,
    y: Array,
    loss: Callable[[Array, Array], Array],
    *,
    activation: str | Callable[[Array], Array] | None = None,
    threshold: float = 0.05,
    key: Key | None = None,
    train: bool = False,
) -> LayerStatistics:
    """`LayerStatistics` of ``model`` on one batch, from one pass forward and backward.

    Every layer is reduced to its numbers on the way, so that memory and time stay near those of a gradient.

    Args:
      model: any Linen module; static.
      params, stats: as `nnjax.models.init` returns them.
      x, y: a batch, (n, ...) each.
      loss: ``(prediction, target) -> (n,)``, as in `nnjax.losses`.
      activation: of the hidden layers, element by element, a function or a name in `nnjax.activations.TABLE`; the
        model's ``activation`` where None. Without either, ``saturated`` and ``dead`` are NaN.
      threshold: a unit is saturated where its activation's slope is smaller.
      key: drives dropout.
      train: whether batch statistics and dropout are those of training; new statistics are dropped.

    Raises:
      ValueError: no examples, a loss of another shape than (n,), an unknown activation, a negative threshold, or a
        model without a layer.
    """
    n = watch.examples(x)
    if not threshold >= 0:
        raise ValueError(f"threshold={threshold} must be at least 0, a slope of the activation")
    function = _elementwise(getattr(model, "activation", None) if activation is None else activation)

    def mean_loss(outputs: Any) -> Array:
        each = jnp.asarray(loss(outputs, y))
        if each.shape != (n,):
            raise ValueError(f"loss returns shape {each.shape} for a batch of {n}; it must return one loss an example")
        return each.mean()

    def forward(given: Array, z: Array) -> tuple[Array, Array]:
        return _moments(z), _units(function, threshold, z)

    measures = (forward, partial(_units, function, threshold), _rms)
    seen, _, records, gradients, deltas = _pass(model, params, stats, x, mean_loss, measures, key, train)
    found = watch.layers(seen, records)
    blocks: list[Array] = []
    norms: list[Array] = []
    rms: list[Array] = []
    at = {}
    for call in seen.calls.values():
        at[call.path, call.number] = sum(block.shape[0] for block in rms)
        moments, units = watch.at(records, call.path)[call.key]
        if call.norm is not None:
            units = watch.at(records, call.norm)[call.norm_key]
        blocks.append(jnp.concatenate([moments, units], -1).reshape(-1, 6))
        rms.append(n * watch.at(deltas, call.path)[call.key].reshape(-1))
        norms.append(_gradient_norms(gradients, call, watch.stack(records, call.path)))
    place = [at[layer.call.path, layer.call.number] + _row(records, layer) for layer in found]
    mean, variance, length, correlation, saturated, dead = jnp.concatenate(blocks)[np.array(place)].T
    last = np.arange(len(found)) == len(found) - 1
    return LayerStatistics(
        names=tuple(layer.name for layer in found),
        mean=mean,
        variance=variance,
        length=length,
        gradient_norm=jnp.concatenate(norms)[np.array(place)],
        delta_rms=jnp.concatenate(rms)[np.array(place)],
        saturated=jnp.where(last, jnp.nan, saturated),
        dead=jnp.where(last, jnp.nan, dead),
        correlation=correlation,
    )


def _elementwise(activation: Any) -> Callable[[Array], Array] | None:
    """The activation's function; not a softmax's, whose slope is no number of a unit."""
    if isinstance(activation, str):
        return choose("activation", activation, activations.TABLE, aliases=activations.ALIASES)
    return None if activation is None else function_of(activation)


def _row(records: PyTree, layer: watch.Layer) -> int:
    """Place of a layer among the turns of its call."""
    shape = watch.stack(records, layer.call.path)
    return int(np.ravel_multi_index(layer.turn, shape)) if shape else 0


def _moments(z: Array) -> Array:
    """Mean, variance, second moment, mean cosine of two examples, in single precision at least: (4,)."""
    z = _single(z)  # squares of half a precision's numbers overflow
    mean = z.mean()
    variance = jnp.square(z - mean).mean()
    return jnp.stack([mean, variance, variance + mean**2, _cosine(z.reshape(z.shape[0], -1))])


def _cosine(z: Array) -> Array:
    """Mean cosine of two different rows; rows of zeros have no direction and are left out."""
    top = jnp.abs(z).max(1)
    top = jnp.where(top > 0, top, 1.0)  # squares of the smallest signals would be 0
    squares = jnp.square(z / top[:, None]).sum(1)
    count = (squares > 0).sum()
    weights = jnp.where(squares > 0, jax.lax.rsqrt(jnp.where(squares > 0, squares, 1.0)), 0.0) / top
    # The cosines of all pairs add up to the squared length of the sum of directions, of which each is 1 with itself.
    whole = jnp.square(weights @ z).sum() - count
    return jnp.where(count > 1, whole / (count * (count - 1)), jnp.nan)


def _units(activation: Callable[[Array], Array] | None, threshold: float, z: Array) -> Array:
    """Share of saturated outputs and of dead units, (2,)."""
    dtype = jnp.promote_types(z.dtype, jnp.float32)
    if activation is None:
        return jnp.full((2,), jnp.nan, dtype)
    y, pull = jax.vjp(activation, z)
    (slope,) = pull(jnp.ones_like(y))
    others = tuple(range(z.ndim - 1))
    dead = (y == 0).all(others) | (slope == 0).all(others)
    return jnp.stack([(jnp.abs(slope) < threshold).mean(), dead.mean()]).astype(dtype)


def _rms(delta: Array) -> Array:
    """Root mean square, of the smallest numbers too, whose squares would be 0."""
    delta = _single(delta)
    top = _top(delta)
    return top * jnp.sqrt(jnp.square(delta / top).mean())


def _top(x: Array) -> Array:
    """The largest magnitude, to divide by before squaring; 1 if there is none."""
    top = jnp.abs(x).max()
    return jnp.where((top > 0) & jnp.isfinite(top), top, 1.0)


def _single(x: Array) -> Array:
    """x in single precision at least."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _gradient_norms(gradients: PyTree, call: watch.Call, turns: tuple[int, ...]) -> Array:
    """Norm of the gradient by the layer's kernels in every turn, (turns,)."""
    count = math.prod(turns)
    kernels = []
    for path, axes in call.kernels.items():
        branch = watch.at(gradients, path)
        for leaf in watch.own_kernels(branch):
            rows = _single(leaf).reshape(count if watch.is_stacked(branch, axes, turns) else 1, -1)
            kernels.append(jnp.broadcast_to(rows, (count, rows.shape[1])))
    rows = jnp.concatenate(kernels, 1)
    top = jax.vmap(_top)(rows)
    return top * jnp.sqrt(jnp.square(rows / top[:, None]).sum(1))
