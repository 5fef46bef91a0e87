"""The net that tells micrometeorites from other grains."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import flax.linen as nn

from nnjax import conv
from nnjax.models import parts
from nnjax.types import Array


class MicrometeoriteCNN(nn.Module):
    """Five convolutions and three overlapping max pools, two fully connected layers with dropout, logits.

    AlexNet's plan (Krizhevsky et al., 2012) without its response normalization and its split over two devices, for
    pictures of 141x141x3: 11x11x96 with stride 4, pool, 5x5x256, pool, 3x3x384, 3x3x384, 3x3x256, pool; every pool is
    3x3 with stride 2, every layer has a ReLU. 12,668,290 parameters with the default fully connected layers,
    72,979,842 with ``hidden=(8192, 6144), dropout=(.35, .047)``.

    Attributes:
      classes: number of outputs.
      hidden: units of the two fully connected layers.
      dropout: probability of dropping a unit of each while training (inverted scaling); may be traced.
      channels: of the five convolutions.
      dtype: in which the layers compute; None: that of inputs and parameters. Logits come in that of the parameters.

    Input (n, h, w, c), h and w at least 67; output (n, classes); layers "Conv_0" to "Conv_4", "Dense_0", "Dense_1",
    "logits".

    Raises (when initialized or applied):
      ValueError: inputs of other than four axes, too small, or of another number of channels or pixels than the
        parameters are for; sizes below 1, a dropout outside [0, 1], or another number of any of them.
    """

    classes: int = 2
    hidden: Sequence[int] = (2048, 2048)
    dropout: Sequence[Array | float] = (0.5, 0.5)
    channels: Sequence[int] = (96, 256, 384, 384, 256)
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        hidden = parts.counts("hidden", self.hidden, 2)
        first, second, *later = parts.counts("channels", self.channels, 5)
        if len(self.dropout) != 2:
            raise ValueError(f"dropout={self.dropout} must name a probability for each of the two layers")
        x = parts.images(self, x, "Conv_0")
        parts.large_enough(self, x, 67)
        x = nn.relu(self._convolution(first, 11, strides=4, padding="VALID")(x))
        x = nn.relu(self._convolution(second, 5)(conv.max_pool(x, 3, 2)))
        x = conv.max_pool(x, 3, 2)
        for size in later:
            x = nn.relu(self._convolution(size, 3)(x))
        x = parts.flat(self, conv.max_pool(x, 3, 2), "Dense_0")
        for size, rate in zip(hidden, self.dropout, strict=True):
            x = nn.relu(nn.Dense(size, kernel_init=parts.he_normal, dtype=self.dtype)(x))
            x = parts.dropout(self, x, rate, train)
        return nn.Dense(parts.count("classes", self.classes), name="logits")(x)

    def _convolution(self, size: int, side: int, *, strides: int = 1, padding: str = "SAME") -> nn.Conv:
        return parts.Convolution(size, (side, side), strides=strides, padding=padding, dtype=self.dtype)
