"""The very deep nets of the Visual Geometry Group."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import flax.linen as nn

from nnjax import conv
from nnjax.models import parts
from nnjax.types import Array

_STAGES = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}


class VGG(nn.Module):
    """3x3 convolutions with ReLU in five stages, each ended by 2x2 max pooling, two dense layers, logits.

    Simonyan and Zisserman (2015), configurations A, B, D and E. For 224x224x3 and 1000 classes: 132,863,336 parameters
    at depth 11, 133,047,848 at 13, 138,357,544 at 16, 143,667,240 at 19.

    Attributes:
      depth: layers with weights: 11, 13, 16 or 19.
      classes: number of outputs.
      hidden: units of each fully connected layer.
      dropout: probability of dropping a hidden unit while training (inverted scaling); may be traced.
      width: channels of the first stage; the others have 2, 4, 8 and 8 times as many.
      dtype: in which the layers compute; None: that of inputs and parameters. Logits come in that of the parameters.

    Input (n, h, w, c), h and w at least 32; output (n, classes); layers "Conv_0", ..., "Dense_0", ..., "logits".

    Raises (when initialized or applied):
      ValueError: another depth, inputs of other than four axes, too small, or of another number of channels or pixels
        than the parameters are for; a size below 1, or a dropout outside [0, 1].
    """

    depth: int = 19
    classes: int = 1000
    hidden: Sequence[int] = (4096, 4096)
    dropout: Array | float = 0.5
    width: int = 64
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        if self.depth not in _STAGES:
            raise ValueError(f"depth={self.depth!r} must be one of {', '.join(map(str, _STAGES))}")
        width = parts.count("width", self.width)
        x = parts.images(self, x, "Conv_0")
        parts.large_enough(self, x, 32)
        for times, layers in zip((1, 2, 4, 8, 8), _STAGES[self.depth], strict=True):
            for _ in range(layers):
                x = nn.relu(parts.Convolution(width * times, (3, 3), padding="SAME", dtype=self.dtype)(x))
            x = conv.max_pool(x, 2)
        x = parts.flat(self, x, "Dense_0" if self.hidden else "logits")
        for size in parts.counts("hidden", self.hidden):
            x = nn.relu(nn.Dense(size, kernel_init=parts.he_normal, dtype=self.dtype)(x))
            x = parts.dropout(self, x, self.dropout, train)
        return nn.Dense(parts.count("classes", self.classes), name="logits")(x)
