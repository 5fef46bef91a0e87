"""LeNet for digits and other small pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn

from nnjax import conv
from nnjax.models import parts
from nnjax.models.linen import function_of
from nnjax.naming import choose
from nnjax.types import Array

_POOLS = {"max": conv.max_pool, "average": conv.avg_pool}


class LeNet(nn.Module):
    """Stages of 5x5 convolution, activation and 2x2 pooling, then fully connected layers and logits.

    The plan is that of LeNet-5 (LeCun et al., 1998). The defaults are its modern form, with max pooling, ReLU and the
    widths of Caffe's LeNet (Jia et al., 2014): 20 and 50 channels, 500 units, and 431,080 parameters for 28x28x1.
    Dropout is added. ``LeNet(features=(6, 16), hidden=(120, 84), activation="tanh", pool="average", dropout=0)`` comes
    near to the original, and has 61,706 parameters for 32x32x1; there the second stage saw only some of the first's
    channels, and the outputs were radial basis functions.

    Attributes:
      classes: number of outputs.
      features: channels of each stage.
      hidden: units of each fully connected layer.
      dropout: probability of dropping a hidden unit while training (inverted scaling); may be traced.
      activation: a function, or a name in `nnjax.activations`.
      pool: "max" or "average".
      padding: of the convolutions: "VALID" (none), or "SAME", which suits pictures smaller than 16 x 16.
      kernel_size: of the convolutions.
      dtype: in which the layers compute; None: that of inputs and parameters. Logits come in that of the parameters.

    Input (n, h, w, c), output (n, classes); layers "Conv_0", ..., "Dense_0", ..., "logits".

    Raises (when initialized or applied):
      ValueError: inputs of other than four axes, too small, or of another number of channels or pixels than the
        parameters are for; an unknown activation, pool or padding; a size below 1, or a dropout outside [0, 1].
    """

    classes: int = 10
    features: Sequence[int] = (20, 50)
    hidden: Sequence[int] = (500,)
    dropout: Array | float = 0.5
    activation: str | Callable[[Array], Array] = "relu"
    pool: str = "max"
    padding: str = "VALID"
    kernel_size: int = 5
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        activation, pool = function_of(self.activation), choose("pool", self.pool, _POOLS)
        padding = choose("padding", self.padding, ("VALID", "SAME"))
        side = parts.count("kernel_size", self.kernel_size)
        x = parts.images(self, x, "Conv_0")
        for size in parts.counts("features", self.features):
            parts.large_enough(self, x, side + 1 if padding == "VALID" else 2)
            x = parts.Convolution(size, (side, side), padding=padding, dtype=self.dtype)(x)
            x = pool(activation(x), 2)
        x = parts.flat(self, x, "Dense_0" if self.hidden else "logits")
        for size in parts.counts("hidden", self.hidden):
            x = activation(nn.Dense(size, kernel_init=parts.he_normal, dtype=self.dtype)(x))
            x = parts.dropout(self, x, self.dropout, train)
        return nn.Dense(parts.count("classes", self.classes), name="logits")(x)
