"""Multilayer perceptrons, also inside a larger allocation so that several widths share a program."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from nnjax import initializers, regularizers
from nnjax.models.linen import function_of, network
from nnjax.naming import choose
from nnjax.train import Network
from nnjax.types import Array, Key, PyTree

_NORMALIZE = ("none", "before", "after")


class MLP(nn.Module):
    """A fully connected net: hidden layers, each ``activation(x W + b)`` and dropout, then logits.

    Attributes:
      features: units of each hidden layer; empty is a linear model.
      classes: number of outputs.
      activation: applied after every hidden layer; a function, or a name in `nnjax.activations`.
      initializer: name in `nnjax.initializers`.
      dropout: probability of dropping a hidden unit while training (inverted scaling); may be traced.
      normalize: batch normalization of every hidden layer, ``before`` its activation (Ioffe and Szegedy, 2015),
        ``after`` it, or ``none``. Training uses the batch's statistics, evaluation their running average, which
        moves by 0.1 a batch (PyTorch calls that momentum 0.1, Flax 0.9). Before the activation a layer has no
        bias: the normalization would subtract it again, and has a shift of its own. Dropout comes last in a layer;
        the next layer's normalization still meets another variance in evaluation than in training (Li et al., 2019).

    Inputs of any shape (n, ...) are flattened; the output is (n, classes).

    Raises (when initialized or applied):
      ValueError: an unknown activation, initializer or ``normalize``, or a dropout outside [0, 1].
    """

    features: Sequence[int] = (128, 128)
    classes: int = 10
    activation: str | Callable[[Array], Array] = jax.nn.relu
    initializer: str = "he_normal"
    dropout: Array | float = 0.0
    normalize: str = "none"

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        activation, kernel_init = function_of(self.activation), initializers.by_name(self.initializer)
        placed, drops = choose("normalize", self.normalize, _NORMALIZE), _drops(self) and train
        x = x.reshape(x.shape[0], -1)
        for size in self.features:
            x = nn.Dense(size, use_bias=placed != "before", kernel_init=kernel_init)(x)
            if placed == "before":
                x = nn.BatchNorm(use_running_average=not train, momentum=0.9)(x)
            x = activation(x)
            if placed == "after":
                x = nn.BatchNorm(use_running_average=not train, momentum=0.9)(x)
            if drops:
                x = regularizers.dropout(self.make_rng("dropout"), x, self.dropout)
        return nn.Dense(self.classes, kernel_init=kernel_init)(x)


def _drops(model: MLP) -> bool:
    """Whether there is dropout: a traced rate may be other than 0."""
    if isinstance(model.dropout, jax.core.Tracer):
        return True
    rate = float(model.dropout)  # a comparison of arrays would be traced where anything else is
    if not 0 <= rate <= 1:
        raise ValueError(f"dropout={model.dropout} must lie between 0 and 1, the probability of dropping a unit")
    return rate > 0


def padded_mlp(model: MLP, widths: Sequence[Array | int]) -> Network:
    """``model`` with only the first ``widths[l]`` units of hidden layer l alive.

    The weights from and to the other units are zero, and with an activation that is zero at zero they stay
    zero under every gradient rule without a constant term. The living part starts with the numbers that an
    MLP of those widths starts with (He's, LeCun's or Xavier's variance taken at the true width), so training
    it gives the same curve, whatever the allocation.

    Args:
      model: the allocation; ``activation(0)`` must be 0 (ReLU, tanh, not logistic).
      widths: living units of each hidden layer; may be traced.

    Raises:
      ValueError: another number of widths than layers, a (not traced) width outside the allocation, dropout or batch
        normalization, activation(0) != 0, or an initializer whose variance at the true width is not known.
    """
    if len(widths) != len(model.features):
        raise ValueError(f"widths={list(widths)} must name one width for each of the {len(model.features)} layers")
    for width, size in zip(widths, model.features, strict=True):
        if isinstance(width, int | np.integer) and not 1 <= width <= size:
            raise ValueError(f"widths={list(widths)} must lie between 1 and the allocation, {list(model.features)}")
    if _drops(model):
        raise ValueError(f"padding needs dropout=0, not {model.dropout}: the mask would depend on the allocation")
    if model.normalize != "none":
        raise ValueError(f"padding needs normalize='none', not {model.normalize!r}: its shift would bring units alive")
    with jax.ensure_compile_time_eval():
        at_zero = float(jax.jit(function_of(model.activation))(np.zeros((), np.float32)))
    if at_zero != 0:
        raise ValueError(f"padding needs activation(0) = 0, and this one's is {at_zero:g}")
    scale = _width_scale(model.initializer)
    whole = network(model)
    alive = [jnp.arange(size) < width for size, width in zip(model.features, widths, strict=True)]

    def init(key: Key, x: Array) -> tuple[PyTree, PyTree]:
        params, stats = whole.init(key, x)
        params = dict(params)
        d_in = x[0].size
        true = [d_in, *widths, model.classes]
        allocated = [d_in, *model.features, model.classes]
        for layer in range(len(allocated) - 1):
            kernel = params[f"Dense_{layer}"]["kernel"]
            kernel *= scale(allocated[layer], allocated[layer + 1], true[layer], true[layer + 1])
            if layer > 0:
                kernel = jnp.where(alive[layer - 1][:, None], kernel, 0.0)
            if layer < len(alive):
                kernel = jnp.where(alive[layer][None, :], kernel, 0.0)
            params[f"Dense_{layer}"] = {**params[f"Dense_{layer}"], "kernel": kernel}
        return params, stats

    return Network(init, whole.apply)


def _width_scale(initializer: str) -> Callable[..., Array]:
    """Factor from the standard deviation at the allocated sizes (in, out) to that at the true ones."""
    if initializer in ("he_normal", "he_uniform", "lecun_normal"):
        return lambda a_in, a_out, t_in, t_out: jnp.sqrt(a_in / jnp.asarray(t_in, jnp.float32))
    if initializer in ("xavier_normal", "xavier_uniform"):
        return lambda a_in, a_out, t_in, t_out: jnp.sqrt((a_in + a_out) / jnp.asarray(t_in + t_out, jnp.float32))
    if initializer in ("small_normal", "standard_normal", "zeros"):
        return lambda *_: jnp.ones(())
    raise ValueError(f"initializer {initializer!r} cannot be padded: its variance at another width is not known")
