"""MobileNet, and the depthwise convolution that it is made of."""

from __future__ import annotations

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from nnjax.models import parts
from nnjax.types import Array

_BLOCKS = (
    (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2),
    (512, 1), (512, 1), (512, 1), (512, 1), (512, 1), (1024, 2), (1024, 1),
)  # fmt: skip
"""Channels after, and stride of, each pair of a depthwise and a pointwise convolution."""


def depthwise(x: Array, kernel: Array, stride: int = 1) -> Array:
    """Every channel convolved with a kernel of its own, with zeros around the pictures ("SAME").

    XLA's CPU compiler takes a convolution of as many groups as channels down a path of scalar loops. There it is a sum
    of shifted pictures, one for each of the kernel's taps: on pictures of 112 x 112 60 to 80 times faster forward, 20
    to 60 times in gradients inside a scan. Other backends get the grouped convolution.

    Args:
      x: (n, h, w, c).
      kernel: (kh, kw, 1, c), of the same dtype.
      stride: of the window in both directions.

    Returns:
      (n, ceil(h / stride), ceil(w / stride), c).

    Raises:
      ValueError: shapes that do not fit.
    """
    if x.ndim != 4 or kernel.ndim != 4 or kernel.shape[2:] != (1, x.shape[3]):
        raise ValueError(f"x {x.shape} and kernel {kernel.shape} must be (n, h, w, c) and (kh, kw, 1, c)")
    return lax.platform_dependent(
        x, kernel, cpu=partial(_shifted, stride=stride), default=partial(_grouped, stride=stride)
    )


def _grouped(x: jax.Array, kernel: jax.Array, *, stride: int) -> Array:
    return lax.conv_general_dilated(
        x, kernel, (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=x.shape[3]
    )


def _shifted(x: Array, kernel: Array, *, stride: int) -> Array:
    n, h, w, c = x.shape
    rows, columns = -(-h // stride), -(-w // stride)
    padded = jnp.pad(x, ((0, 0), *lax.padtype_to_pads((h, w), kernel.shape[:2], (stride, stride), "SAME"), (0, 0)))
    y = jnp.zeros((n, rows, columns, c), x.dtype)
    for down in range(kernel.shape[0]):
        for across in range(kernel.shape[1]):
            end = (n, down + (rows - 1) * stride + 1, across + (columns - 1) * stride + 1, c)
            tap = lax.slice(padded, (0, down, across, 0), end, (1, stride, stride, 1))
            y = y + tap * kernel[down, across, 0][None, None, None]
    return y


class DepthwiseConv(nn.Module):
    """A depthwise 3x3 convolution (see `depthwise`) without bias; its parameter is ``kernel`` (3, 3, 1, c).

    Attributes:
      stride: of the window in both directions.
      dtype: in which it computes; None: that of input and kernel.
    """

    stride: int = 1
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Array) -> Array:
        kernel = self.param("kernel", parts.he_normal, (3, 3, 1, x.shape[-1]), jnp.float32)
        dtype = self.dtype or jnp.result_type(x, kernel)
        return depthwise(jnp.asarray(x, dtype), jnp.asarray(kernel, dtype), self.stride)


class MobileNet(nn.Module):
    """MobileNet v1 (Howard et al., 2017): a convolution, 13 pairs of depthwise and pointwise ones, mean, logits.

    Every convolution has a batch norm and a ReLU6 behind it. Layers are called as in Keras, "conv1", "conv_dw_1",
    "conv_pw_1", ..., "conv_pw_13", with "conv1_bn" and so on for their batch norms; the last is "logits". For 1000
    classes: 470,072 trainable parameters at alpha .25, 1,331,592 at .5, 2,585,560 at .75, 4,231,976 at 1; the batch
    norms' running means and variances (5,472, 10,944, 16,416, 21,888), which some count too, come on top.

    Attributes:
      alpha: multiplies the channels of every layer, which are rounded down.
      classes: number of outputs.
      dropout: probability of dropping a feature before the logits while training (inverted scaling); may be traced.
      momentum: of the running statistics in Flax's sense, the share of the old value that a batch leaves.
      epsilon: of the batch norms.
      dtype: in which the layers compute; None: that of inputs and parameters. Logits come in that of the parameters.

    Input (n, h, w, 3), 224 x 224 in the paper, values from -1 to 1; output (n, classes).

    Raises (when initialized or applied):
      ValueError: inputs of other than four axes or of another number of channels than the parameters are for, an alpha
        that leaves no channels, a number of classes below 1, or a dropout outside [0, 1].
    """

    alpha: float = 1.0
    classes: int = 1000
    dropout: Array | float = 0.001
    momentum: float = 0.9
    epsilon: float = 1e-3
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        if int(32 * self.alpha) < 1:
            raise ValueError(f"alpha={self.alpha!r} must leave one of 32 channels at least")
        norm = partial(
            nn.BatchNorm, use_running_average=not train, momentum=self.momentum, epsilon=self.epsilon, dtype=self.dtype
        )
        full = partial(parts.Convolution, use_bias=False, padding="SAME", dtype=self.dtype)
        x = parts.images(self, x, "conv1")
        x = jax.nn.relu6(norm(name="conv1_bn")(full(int(32 * self.alpha), (3, 3), strides=2, name="conv1")(x)))
        for i, (channels, stride) in enumerate(_BLOCKS, start=1):
            x = DepthwiseConv(stride, self.dtype, name=f"conv_dw_{i}")(x)
            x = jax.nn.relu6(norm(name=f"conv_dw_{i}_bn")(x))
            x = full(int(channels * self.alpha), (1, 1), name=f"conv_pw_{i}")(x)
            x = jax.nn.relu6(norm(name=f"conv_pw_{i}_bn")(x))
        x = parts.dropout(self, x.mean(axis=(1, 2)), self.dropout, train)
        return nn.Dense(parts.count("classes", self.classes), name="logits")(x)
