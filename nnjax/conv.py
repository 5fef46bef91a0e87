"""Two-dimensional convolution and pooling that stay fast inside `jax.lax.scan` on every backend.

XLA's CPU compiler brings a convolution into the form its fast kernel accepts (channels last, kernel
`(kh, kw, c_in, c_out)`) only at the top level of a program, not inside a loop (jax issue 12868). The forward pass is
written in that form, the gradients that automatic differentiation derives from it are not, so that a training step
inside `lax.scan` runs 10 to 100 times slower than the same step outside. Here both gradients are written out as
convolutions: with `y` the output, `s` the stride and `d` the dilation,

    dx = convolution of dy, dilated by s, with the flipped kernel, its channels swapped
    dk = convolution of x (channels as examples, examples as channels) with dy dilated by s, at stride d

On a CPU their operands are transposed into the fast form; on other backends `lax` gets the very convolutions that
automatic differentiation would have made. All is chosen at lowering (`jax.lax.platform_dependent`), so the same traced
function serves any backend.

Differentiation: reverse mode, to any order. Forward mode (`jax.jvp`, `jax.jacfwd`, `jax.linearize`) is not available,
as for every `jax.custom_vjp`; write a Hessian-vector product as the gradient of `vdot(grad(loss)(params), v)`, or use
`jax.lax.conv_general_dilated` itself.

Under `jax.vmap` over kernels and inputs both, as in a sweep over configurations, a CPU takes the configurations one
after another, each at full speed, where `lax` would make one grouped convolution, which is several times slower.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from nnjax.types import Array

Pair = tuple[int, int]
Padding = str | int | Sequence[Sequence[int]]

_FAST = ("NHWC", "HWIO", "NHWC")
_LAYOUTS = {
    "output": _FAST,
    "input_gradient": ("NHWC", "HWOI", "NHWC"),
    "kernel_gradient": ("CHWN", "IHWO", "HWNC"),
}


class _Geometry(NamedTuple):
    """All that is static about a convolution; pairs are (vertical, horizontal)."""

    stride: Pair
    padding: tuple[Pair, Pair]
    dilation: Pair
    input: Pair
    window: Pair
    output: Pair
    precision: Any = None


class _Window(NamedTuple):
    """The window arguments of one `lax.conv_general_dilated` call."""

    window_strides: Pair
    padding: tuple[Pair, Pair]
    lhs_dilation: Pair
    rhs_dilation: Pair


# --- public functions -------------------------------------------------------------------------------------------------


def conv2d(
    x: Array, kernel: Array, *, stride: int | Pair = 1, padding: Padding = "VALID", dilation: int | Pair = 1
) -> jax.Array:
    """Cross-correlation of images with a kernel (the kernel is not flipped), as every deep learning library does it.

    `y[n, i, j, o] = sum over a, b, c of x[n, i s + a d - top, j s + b d - left, c] kernel[a, b, c, o]`, zero outside.
    The output has `(h + top + bottom - (kh - 1) d - 1) // s + 1` rows, and columns likewise.

    Args:
        x: images, `(n, h, w, c_in)`.
        kernel: `(kh, kw, c_in, c_out)`; same dtype as `x`, or the two are promoted.
        stride: step of the window, an int or (vertical, horizontal).
        padding: rows and columns of zeros round the image: `"VALID"` (none), `"SAME"` (output has `ceil(h / stride)`
            rows; the odd row of zeros goes below), an int for all sides, or `((top, bottom), (left, right))`.
        dilation: distance between the kernel's taps on the image, an int or (vertical, horizontal).

    Returns:
        `(n, h_out, w_out, c_out)`, in the dtype of the inputs.

    Raises:
        ValueError: wrong rank, channels that differ, a stride or dilation below 1, negative padding, an unknown
            padding, or a window larger than the padded image.

    Reference: Dumoulin and Visin, "A guide to convolution arithmetic for deep learning" (2016).
    """
    x, kernel = jnp.asarray(x), jnp.asarray(kernel)
    _check_images(x)
    if kernel.ndim != 4:
        raise ValueError(f"kernel has shape {kernel.shape}; it must be (kh, kw, c_in, c_out)")
    if kernel.shape[2] != x.shape[3]:
        raise ValueError(f"kernel takes {kernel.shape[2]} channels (shape {kernel.shape}) but x has {x.shape[3]}")
    steps, taps = _pair("stride", stride), _pair("dilation", dilation)
    extent = _extent(_pair("kernel height and width", kernel.shape[:2]), taps)
    pads = _pads(padding, x.shape[1:3], extent, steps)
    _check_window("kernel", extent, x.shape[1:3], pads)
    x, kernel = jnp.promote_types(x.dtype, kernel.dtype).type, (x, kernel)
    dtype, (x, kernel) = x, kernel
    return conv_general_dilated(
        x.astype(dtype), kernel.astype(dtype), steps, pads, rhs_dilation=taps, dimension_numbers=_FAST
    )
