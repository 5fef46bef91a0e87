"""Residual nets."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import flax.linen as nn

from nnjax import conv
from nnjax.types import Array

_Conv = partial(nn.Conv, padding=1, use_bias=False, kernel_size=(3, 3), conv_general_dilated=conv.conv_general_dilated)


class PreActivationBlock(nn.Module):
    """Batch norm, ReLU, convolution, twice, around a shortcut (He et al., 2016, identity mappings).

    Attributes:
      features: output channels.
      stride: of the first convolution; the shortcut is a strided 1x1 convolution where shapes differ.
    """

    features: int
    stride: int = 1

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        norm = partial(nn.BatchNorm, use_running_average=not train, momentum=0.9)
        y = nn.relu(norm()(x))
        shortcut = x
        if self.stride != 1 or x.shape[-1] != self.features:
            shortcut = _Conv(self.features, kernel_size=(1, 1), padding=0, strides=self.stride)(y)
        y = _Conv(self.features, strides=self.stride)(y)
        y = _Conv(self.features)(nn.relu(norm()(y)))
        return y + shortcut


class ResNet18k(nn.Module):
    """The pre-activation ResNet-18 of widths k, 2k, 4k, 8k of Nakkiran et al. (2019); k = 64 is ResNet-18.

    Attributes:
      width: k.
      classes: number of outputs.
      blocks: residual blocks of each stage.

    Input (n, h, w, c), h and w at least 8; output (n, classes).
    """

    width: int = 64
    classes: int = 10
    blocks: Sequence[int] = (2, 2, 2, 2)

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        x = _Conv(self.width)(x)
        for stage, count in enumerate(self.blocks):
            for block in range(count):
                stride = 2 if stage > 0 and block == 0 else 1
                x = PreActivationBlock(self.width * 2**stage, stride)(x, train)
        return nn.Dense(self.classes)(x.mean(axis=(1, 2)))
