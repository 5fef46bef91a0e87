"""Deep nets of equal hidden layers, which run in one loop: compile time does not grow with depth."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from nnjax import conv, initializers
from nnjax.initializers import Initializer
from nnjax.models.linen import function_of
from nnjax.models.watch import COLLECTIONS
from nnjax.naming import choose
from nnjax.types import Array

_STACKED: Any = dict.fromkeys(("params", "batch_stats", *COLLECTIONS), 0)
_NORMALIZE = ("none", "before")


class _Hidden(nn.Module):
    """What a hidden layer is made of, as one thing for the loop to stack."""

    linear: nn.Module
    norm: nn.Module | None = None


class DeepMLP(nn.Module):
    """A fully connected net of ``depth`` hidden layers of ``width`` units, ``activation(x W + b)``, then logits.

    Parameters are ``{"first": {kernel, bias}, "hidden": {kernel, bias}, "logits": {kernel, bias}}``; those of
    "hidden" are stacked, (depth - 1, width, width) and (depth - 1, width), and absent at depth 1. A layer's initial
    weights do not depend on how many layers follow.

    Attributes:
      depth: hidden layers.
      width: units of each.
      classes: number of outputs.
      activation: a function, or a name in `nnjax.activations`.
      initializer: of all kernels; a name in `nnjax.initializers`, or a function ``(key, shape, dtype) -> Array``, which
        may depend on traced numbers.
      bias_initializer: a name or function of the same kind, but one that takes a single axis; zeros where None.
      output_initializer: of the logits' kernel, as ``initializer``; the same where None.
      normalize: "before" has batch normalization between each hidden layer's product, then without a bias, and its
        activation (Ioffe and Szegedy, 2015); parameters "first_norm" and "hidden_norm". "none" has none.
      residual: from the second hidden layer on, ``x + activation(x W + b)``, a shortcut around each layer, after He et
        al. (2016), who have one around every two.
      alive: hidden layers in use, the first of ``depth``; may be traced (and is then taken as 1 at least). The layers
        beyond pass the signal on untouched: the outputs and gradients of a net of that depth, and gradients of exactly
        zero beyond. They are skipped, also under `jax.lax.map`, so that one program serves all depths; under `jax.vmap`
        over it they are computed and left out. None: all.

    Inputs of any shape (n, ...) are flattened; the output is (n, classes).

    Raises (when initialized or applied):
      ValueError: a depth, width or number of classes below 1, an unknown activation, initializer or ``normalize``, a
        known ``alive`` outside 1 to ``depth``, or ``alive`` together with batch normalization.
    """

    depth: int = 30
    width: int = 64
    classes: int = 10
    activation: str | Callable[[Array], Array] = "relu"
    initializer: str | Initializer = "he_normal"
    bias_initializer: str | Initializer | None = None
    output_initializer: str | Initializer | None = None
    normalize: str = "none"
    residual: bool = False
    alive: Array | int | None = None

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        _check_sizes(self)
        _check_alive(self.alive, self.depth)
        normalized = choose("normalize", self.normalize, _NORMALIZE) == "before"
        if normalized and self.alive is not None:
            raise ValueError(f"alive={self.alive} needs normalize='none': the layers beyond would have no statistics")
        activation, inits = function_of(self.activation), _inits(self)
        dense = partial(nn.Dense, self.width, use_bias=not normalized, **inits)
        norm = partial(nn.BatchNorm, use_running_average=not train, momentum=0.9)
        x = jnp.asarray(x)
        x = dense(name="first")(x.reshape(len(x), math.prod(x.shape[1:])))  # not -1, which no examples leave open
        x = activation(norm(name="first_norm")(x) if normalized else x)
        if self.depth > 1:
            hidden = _Hidden(dense(name="hidden"), norm(name="hidden_norm") if normalized else None)
            step = partial(_step, activation=activation, residual=self.residual)
            x = _loop(hidden, x, self.depth - 1, step, None if self.alive is None else self.alive - 1)
        return _logits(self, inits)(x)


class DeepCNN(nn.Module):
    """``depth`` 3x3 convolutions to ``width`` channels, each with an activation, the mean of all pixels, then logits.

    Neither pooling nor normalization nor shortcuts, after the nets of Xiao et al. (2018): pictures keep their size,
    with zeros around them. Parameters are those of `DeepMLP`, "hidden" stacked: (depth - 1, 3, 3, width, width).

    Attributes:
      depth: convolutions.
      width: channels of each.
      classes, activation, initializer, bias_initializer, output_initializer: as in `DeepMLP`.

    Input (n, h, w, c), output (n, classes).

    Raises (when initialized or applied):
      ValueError: a depth, width or number of classes below 1, inputs of other than four axes, or an unknown activation
        or initializer.
    """

    depth: int = 16
    width: int = 64
    classes: int = 10
    activation: str | Callable[[Array], Array] = "relu"
    initializer: str | Initializer = "he_normal"
    bias_initializer: str | Initializer | None = None
    output_initializer: str | Initializer | None = None

    @nn.compact
    def __call__(self, x: Array) -> Array:
        _check_sizes(self)
        if x.ndim != 4:
            raise ValueError(f"x has shape {x.shape}; it must be (n, h, w, channels)")
        activation, inits = function_of(self.activation), _inits(self)
        fast = conv.conv_general_dilated
        layer = partial(nn.Conv, self.width, (3, 3), padding="SAME", conv_general_dilated=fast, **inits)
        x = activation(layer(name="first")(x))
        if self.depth > 1:
            x = _loop(_Hidden(layer(name="hidden")), x, self.depth - 1, partial(_step, activation=activation))
        return _logits(self, inits)(x.mean(axis=(1, 2)))


def _step(hidden: _Hidden, x: Array, *, activation: Callable[[Array], Array], residual: bool = False) -> Array:
    """The signal after one hidden layer."""
    z = hidden.linear(x)
    y = activation(z if hidden.norm is None else hidden.norm(z))
    return x + y if residual else y


def _loop(
    hidden: _Hidden, x: Array, count: int, step: Callable[[_Hidden, Array], Array], alive: Array | int | None = None
) -> Array:
    """``step`` once for each of ``count`` stacked layers, the first ``alive`` of them if given."""
    # Variables cannot be made, nor layers recorded, in one branch alone.
    watched = hidden.is_initializing() or any(hidden.is_mutable_collection(name) for name in COLLECTIONS)

    def body(hidden: _Hidden, x: Array, place: Array) -> tuple[Array, None]:
        if alive is None:
            return step(hidden, x), None
        if watched:
            return jnp.where(place < alive, step(hidden, x), x), None
        return nn.cond(place < alive, step, lambda hidden, x: x, hidden, x), None

    scan = nn.scan(body, variable_axes=_STACKED, split_rngs={"params": True})
    return scan(hidden, x, jnp.arange(count))[0]


def _inits(model: DeepMLP | DeepCNN) -> dict[str, Any]:
    """What the hidden layers' weights start from."""
    return {
        "kernel_init": _initializer("initializer", model.initializer),
        "bias_init": _initializer("bias_initializer", model.bias_initializer or "zeros"),
    }


def _logits(model: DeepMLP | DeepCNN, inits: dict[str, Any]) -> nn.Dense:
    if model.output_initializer is not None:
        inits = {**inits, "kernel_init": _initializer("output_initializer", model.output_initializer)}
    return nn.Dense(model.classes, name="logits", **inits)


def _initializer(kind: str, given: Any) -> Initializer:
    if isinstance(given, str):
        return initializers.by_name(given)
    if not callable(given):
        raise ValueError(f"{kind}={given!r} must be a function (key, shape, dtype) or a name in nnjax.initializers")
    return given


def _check_sizes(model: DeepMLP | DeepCNN) -> None:
    for name in ("depth", "width", "classes"):
        size = getattr(model, name)
        if not isinstance(size, int | np.integer) or isinstance(size, bool) or size < 1:
            raise ValueError(f"{name}={size!r} must be a whole number, at least 1")


def _check_alive(alive: Array | int | None, depth: int) -> None:
    if alive is None or isinstance(alive, jax.core.Tracer):
        return
    number = np.asarray(alive)
    if number.ndim or number.dtype.kind not in "iu" or not 1 <= number <= depth:
        raise ValueError(f"alive={alive!r} must be a whole number from 1 to depth={depth}")
