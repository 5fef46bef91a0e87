"""The five-layer convolutional net of the double-descent literature."""

from __future__ import annotations

import flax.linen as nn

from nnjax import conv
from nnjax.types import Array


class SmallCNN(nn.Module):
    """Four stages 3x3 convolution, batch norm, ReLU, max pooling of widths k, 2k, 4k, 8k, then logits.

    Nakkiran et al. (2019), after Page's 5-layer net. Pooling 1, 2, 2, then everything that is left (8 for
    32 x 32), so any picture of 4 x 4 or more works.

    Attributes:
      width: k.
      classes: number of outputs.

    Input (n, h, w, c), output (n, classes).
    """

    width: int = 64
    classes: int = 10

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        for stage, pool in enumerate((1, 2, 2, None)):
            x = nn.Conv(
                self.width * 2**stage,
                (3, 3),
                padding="SAME",
                use_bias=False,
                conv_general_dilated=conv.conv_general_dilated,
            )(x)
            x = nn.relu(nn.BatchNorm(use_running_average=not train, momentum=0.9)(x))
            if pool is None:
                x = x.max(axis=(1, 2))
            elif pool > 1:
                x = conv.max_pool(x, pool)
        return nn.Dense(self.classes)(x)
