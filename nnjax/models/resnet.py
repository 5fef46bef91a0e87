"""Residual nets: those of the literature on double descent, for large pictures, and for CIFAR-10."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from nnjax import conv
from nnjax.models import parts
from nnjax.naming import choose
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


class BasicBlock(nn.Module):
    """Convolution, batch norm, ReLU, convolution, batch norm, around a shortcut; then ReLU (He et al., 2016).

    Attributes:
      features: output channels.
      stride: of the first convolution.
      shortcut: where shapes differ, "projection" is a strided 1x1 convolution with batch norm (option B of the paper),
        "pad" takes every stride-th pixel and adds channels of zeros, half on each side (option A, no parameters).
      dtype: in which it computes; None: that of inputs and parameters.

    Raises (when initialized or applied):
      ValueError: an unknown shortcut, or "pad" to fewer channels.
    """

    features: int
    stride: int = 1
    shortcut: str = "projection"
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        convolution, norm = _layers(self.dtype, train)
        y = nn.relu(norm()(convolution(self.features, strides=self.stride)(x)))
        y = norm()(convolution(self.features)(y))
        if self.stride == 1 and x.shape[-1] == self.features:
            return nn.relu(y + x)
        if choose("shortcut", self.shortcut, ("projection", "pad")) == "pad":
            return nn.relu(y + _padded(x, self.features, self.stride))
        return nn.relu(y + _projected(x, self.features, self.stride, convolution, norm))


class BottleneckBlock(nn.Module):
    """1x1 convolution to ``features``, 3x3, 1x1 to 4 ``features``, around a shortcut (He et al., 2016).

    Batch norm follows every convolution, ReLU the first two and the sum. The stride is in the 3x3 convolution, as in
    torchvision; the paper has it in the first.

    Attributes:
      features: channels within; four times as many come out.
      stride: of the 3x3 convolution; the shortcut is a strided 1x1 convolution with batch norm where shapes differ.
      dtype: in which it computes; None: that of inputs and parameters.
    """

    features: int
    stride: int = 1
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        convolution, norm = _layers(self.dtype, train)
        point = partial(convolution, kernel_size=(1, 1), padding=0)
        y = nn.relu(norm()(point(self.features)(x)))
        y = nn.relu(norm()(convolution(self.features, strides=self.stride)(y)))
        y = norm()(point(4 * self.features)(y))
        if self.stride == 1 and x.shape[-1] == 4 * self.features:
            return nn.relu(y + x)
        return nn.relu(y + _projected(x, 4 * self.features, self.stride, convolution, norm))


class ResNet(nn.Module):
    """The residual nets for large pictures (He et al., 2016): 7x7 convolution, max pool, four stages, mean, logits.

    Trainable parameters for 1000 classes, as in torchvision: 11,689,512 at depth 18, 21,797,672 at 34, 25,557,032 at
    50, 44,549,160 at 101, 60,192,808 at 152.

    Attributes:
      depth: 18 or 34 (basic blocks), 50, 101 or 152 (bottlenecks).
      classes: number of outputs.
      width: channels of the first stage; 64 in the paper.
      dtype: in which the layers compute; None: that of inputs and parameters. Logits come in that of the parameters.

    Input (n, h, w, c), 224 x 224 in the paper, output (n, classes); layers "stem", "stem_norm", "stage1_block1", ...,
    "logits".

    Raises (when initialized or applied):
      ValueError: another depth, inputs of other than four axes or of another number of channels than the parameters
        are for, a size below 1.
    """

    depth: int = 50
    classes: int = 1000
    width: int = 64
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        if self.depth not in _BLOCKS:
            raise ValueError(f"depth={self.depth!r} must be one of {', '.join(map(str, _BLOCKS))}")
        width = parts.count("width", self.width)
        x = parts.images(self, x, "stem")
        convolution, norm = _layers(self.dtype, train)
        x = convolution(width, kernel_size=(7, 7), padding=3, strides=2, name="stem")(x)
        x = conv.max_pool(nn.relu(norm(name="stem_norm")(x)), 3, 2, 1)
        block = BottleneckBlock if self.depth >= 50 else BasicBlock
        x = _stages(x, block, _BLOCKS[self.depth], width, self.dtype, train)
        return nn.Dense(parts.count("classes", self.classes), name="logits")(x.mean(axis=(1, 2)))


class CifarResNet(nn.Module):
    """The residual nets for small pictures (He et al., 2016): a 3x3 convolution, three stages of n blocks, logits.

    Stages have 16, 32 and 64 channels, the second and third halve the picture, and the mean over pixels precedes the
    logits. With shortcuts of option A, as in the paper, the net for 32x32x3 and 10 classes has 269,722 trainable
    parameters at depth 20, 464,154 at 32, 658,586 at 44, 853,018 at 56 and 1,727,962 at 110.

    Attributes:
      depth: 6n + 2 for n blocks a stage: 8, 14, 20, 32, 44, 56, 110, ...
      classes: number of outputs.
      width: channels of the first stage; the others have 2 and 4 times as many.
      shortcut: "pad" or "projection", see `BasicBlock`.
      dtype: in which the layers compute; None: that of inputs and parameters. Logits come in that of the parameters.

    Input (n, h, w, c), output (n, classes); layers "stem", "stem_norm", "stage1_block1", ..., "logits".

    Raises (when initialized or applied):
      ValueError: another depth, inputs of other than four axes or of another number of channels than the parameters
        are for, a size below 1, an unknown shortcut.
    """

    depth: int = 20
    classes: int = 10
    width: int = 16
    shortcut: str = "pad"
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        blocks = (parts.count("depth", self.depth, 8) - 2) // 6
        if self.depth != 6 * blocks + 2:
            raise ValueError(f"depth={self.depth} must be 6n + 2 for n blocks a stage: 8, 14, 20, 32, 44, 56, 110, ...")
        width = parts.count("width", self.width)
        x = parts.images(self, x, "stem")
        convolution, norm = _layers(self.dtype, train)
        x = nn.relu(norm(name="stem_norm")(convolution(width, name="stem")(x)))
        block = partial(BasicBlock, shortcut=self.shortcut)
        x = _stages(x, block, (blocks,) * 3, width, self.dtype, train)
        return nn.Dense(parts.count("classes", self.classes), name="logits")(x.mean(axis=(1, 2)))


_BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


def _layers(dtype: Any, train: bool) -> tuple[Callable[..., nn.Conv], Callable[..., nn.BatchNorm]]:
    """Makers of the convolutions and batch norms of a net."""
    norm = partial(nn.BatchNorm, use_running_average=not train, momentum=0.9, dtype=dtype)
    return partial(_Conv, kernel_init=parts.he_normal, dtype=dtype), norm


def _stages(
    x: Array, block: Callable[..., nn.Module], blocks: Sequence[int], width: int, dtype: Any, train: bool
) -> Array:
    """x after stages of ``blocks`` blocks; each but the first halves the picture and doubles the channels."""
    for stage, count in enumerate(blocks):
        for number in range(count):
            stride = 2 if stage > 0 and number == 0 else 1
            name = f"stage{stage + 1}_block{number + 1}"
            x = block(width * 2**stage, stride, dtype=dtype, name=name)(x, train)
    return x


def _projected(
    x: Array, features: int, stride: int, convolution: Callable[..., nn.Conv], norm: Callable[..., nn.BatchNorm]
) -> Array:
    point = convolution(features, kernel_size=(1, 1), padding=0, strides=stride, name="shortcut")
    return norm(name="shortcut_norm")(point(x))


def _padded(x: Array, features: int, stride: int) -> Array:
    """Every stride-th pixel of x (n, h, w, c), with channels of zeros on both sides to make ``features``."""
    extra = features - x.shape[-1]
    if extra < 0:
        raise ValueError(f"shortcut 'pad' cannot go from {x.shape[-1]} channels to {features}, fewer")
    return jnp.pad(x[:, ::stride, ::stride], ((0, 0), (0, 0), (0, 0), (extra // 2, extra - extra // 2)))
