"""Two-dimensional convolution and pooling that stay fast inside `jax.lax.scan` on every backend.

XLA's CPU compiler brings a convolution into the form that its fast kernel accepts (channels last, kernel
`(kh, kw, c_in, c_out)`) only at the top level of a program, not inside a loop (jax issue 12868). Gradients by
automatic differentiation are not in that form: inside `lax.scan` they run 2 to 100 times slower than outside.
Here both gradients are written out as convolutions. With `s` the stride:

    dx = convolution of dy, dilated by s, with the flipped kernel, its channels swapped
    dk = convolution of x (channels as examples, examples as channels) with dy, dilated by s

On a CPU their operands are transposed into the fast form; on other backends `lax` gets the very convolutions
that automatic differentiation would have made. The choice falls at lowering (`jax.lax.platform_dependent`).

Reverse mode works to any order. Forward mode (`jax.jvp`, `jax.jacfwd`, `jax.linearize`, `jax.hessian`) does
not, as with every `jax.custom_vjp`: write a Hessian-vector product as the gradient of
`vdot(grad(loss)(params), v)`, or use `jax.lax.conv_general_dilated` itself.

Under `jax.vmap` over kernels, as in a sweep over configurations, a CPU takes them one after another, each at
full speed, where `lax` would make one grouped convolution, which is slower.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from nnjax.types import Array

Pair = tuple[int, ...]  # (vertical, horizontal)
Sides = tuple[tuple[int, int], ...]  # ((top, bottom), (left, right))
Padding = str | int | Sequence[Sequence[int]]

_FAST = ("NHWC", "HWIO", "NHWC")
_TERMS, _PIECES = 4096, 8
"""Terms of the sums for an output at which XLA's CPU kernel is fast, and into how many pieces longer ones are cut."""
_LAYOUTS = {
    "output": _FAST,
    "input_gradient": ("NHWC", "HWOI", "NHWC"),
    "kernel_gradient": ("CHWN", "IHWO", "HWNC"),
}


class _Geometry(NamedTuple):
    """All that is static about a convolution."""

    stride: Pair
    padding: Sides
    dilation: Pair
    input: Pair
    window: Pair
    output: Pair
    precision: Any = None


class _Window(NamedTuple):
    """The window arguments of one `lax.conv_general_dilated` call."""

    window_strides: Pair
    padding: Sides
    lhs_dilation: Pair
    rhs_dilation: Pair


def conv2d(
    x: Array,
    kernel: Array,
    *,
    stride: int | Sequence[int] = 1,
    padding: Padding = "VALID",
    dilation: int | Sequence[int] = 1,
) -> jax.Array:
    """Cross-correlation of images with a kernel (not flipped), as every deep learning library does it.

    `y[n, i, j, o] = sum over a, b, c of x[n, i s + a d - top, j s + b d - left, c] kernel[a, b, c, o]`.
    The output has `(h + top + bottom - (kh - 1) d - 1) // s + 1` rows, and columns likewise.

    Args:
        x: images, `(n, h, w, c_in)`.
        kernel: `(kh, kw, c_in, c_out)`; same dtype as `x`, or the two are promoted.
        stride: step of the window, an int or (vertical, horizontal).
        padding: zeros round the image: `"VALID"` (none), `"SAME"` (output has `ceil(h / stride)` rows; an odd
            row of zeros goes below), an int for all sides, or `((top, bottom), (left, right))`.
        dilation: distance between the kernel's taps on the image, an int or (vertical, horizontal).

    Returns:
        `(n, h_out, w_out, c_out)`, in the dtype of the inputs.

    Raises:
        ValueError: wrong rank, channels that differ, a stride or dilation below 1, a negative or unknown
            padding, or a kernel larger than the padded image.

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
    dtype = jnp.result_type(x, kernel)
    return conv_general_dilated(
        x.astype(dtype), kernel.astype(dtype), steps, pads, rhs_dilation=taps, dimension_numbers=_FAST
    )


def max_pool(
    x: Array,
    window: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: Padding = "VALID",
) -> jax.Array:
    """Largest value of each window, channel by channel; padding never wins.

    Windows that do not overlap (`stride == window`) are reduced by a reshape, which nearly halves the step of
    a small network on a CPU. There the gradient of a tie is shared among the tied values; with overlapping
    windows (`lax.reduce_window`) the first of them takes all.

    Args:
        x: `(n, h, w, c)`.
        window: height and width of the window, an int or (vertical, horizontal).
        stride: step of the window; the window itself if None (Flax's pools default to 1 instead).
        padding: as for `conv2d`, smaller than the window.

    Returns:
        `(n, h_out, w_out, c)`, in the dtype of `x`; trailing rows that fill no window are left out.

    Raises:
        ValueError: as `conv2d`, and if the padding is not smaller than the window.
    """
    x = jnp.asarray(x)
    size, steps, pads = _pool_geometry(x, window, stride, padding)
    lowest = -jnp.inf if jnp.issubdtype(x.dtype, jnp.floating) else jnp.iinfo(x.dtype).min
    if size == steps:
        return _tiles(x, size, pads, lowest).max((2, 4))
    return lax.reduce_window(
        x, np.array(lowest, x.dtype), lax.max, (1, *size, 1), (1, *steps, 1), ((0, 0), *pads, (0, 0))
    )


def avg_pool(
    x: Array,
    window: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: Padding = "VALID",
) -> jax.Array:
    """Mean of each window, channel by channel; padding counts as zeros, as in Flax and PyTorch by default.

    Every mean divides by the full window size, also where the window reaches over the border.

    Args:
        x: `(n, h, w, c)`, a floating dtype.
        window: height and width of the window, an int or (vertical, horizontal).
        stride: step of the window; the window itself if None (Flax's pools default to 1 instead).
        padding: as for `conv2d`, smaller than the window.

    Returns:
        `(n, h_out, w_out, c)`, in the dtype of `x`; trailing rows that fill no window are left out.

    Raises:
        ValueError: as `conv2d`, if the padding is not smaller than the window, and for an integer `x`.
    """
    x = jnp.asarray(x)
    if not jnp.issubdtype(x.dtype, jnp.inexact):
        raise ValueError(f"x has dtype {x.dtype}; a mean needs a floating dtype")
    size, steps, pads = _pool_geometry(x, window, stride, padding)
    if size == steps:
        return _tiles(x, size, pads, 0).mean((2, 4))
    zero = np.array(0, x.dtype)
    total = lax.reduce_window(x, zero, lax.add, (1, *size, 1), (1, *steps, 1), ((0, 0), *pads, (0, 0)))
    return total / np.array(size[0] * size[1], x.dtype)


def conv_general_dilated(
    lhs: Array,
    rhs: Array,
    window_strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    lhs_dilation: Sequence[int] | None = None,
    rhs_dilation: Sequence[int] | None = None,
    dimension_numbers: Any = None,
    feature_group_count: int = 1,
    batch_group_count: int = 1,
    precision: Any = None,
    preferred_element_type: Any = None,
    **others: Any,
) -> jax.Array:
    """`jax.lax.conv_general_dilated` with fast gradients for a plain two-dimensional convolution.

    Plain: floating operands of one dtype, layouts `("NHWC", "HWIO", "NHWC")`, no groups, no `lhs_dilation`,
    no negative padding. Everything else goes to `lax` as it stands, with its errors.

    Example:
        `flax.linen.Conv(16, (3, 3), conv_general_dilated=nnjax.conv.conv_general_dilated)`

    Args: those of `jax.lax.conv_general_dilated`.

    Returns:
        what `jax.lax.conv_general_dilated` returns.
    """
    lhs, rhs = jnp.asarray(lhs), jnp.asarray(rhs)
    grouped = (feature_group_count, batch_group_count) != (1, 1)
    if not grouped and all(value is None for value in (preferred_element_type, *others.values())):
        dilations = lhs_dilation, rhs_dilation
        geometry = _plain_geometry(lhs, rhs, window_strides, padding, *dilations, dimension_numbers, precision)
        if geometry is not None:
            return _bilinear("output", geometry, *_alike(lhs, rhs))
    return lax.conv_general_dilated(
        lhs,
        rhs,
        window_strides,
        padding,
        lhs_dilation=lhs_dilation,
        rhs_dilation=rhs_dilation,
        dimension_numbers=dimension_numbers,
        precision=precision,
        feature_group_count=feature_group_count,
        batch_group_count=batch_group_count,
        preferred_element_type=preferred_element_type,
        **others,
    )


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _bilinear(kind: str, geometry: _Geometry, lhs: jax.Array, rhs: jax.Array) -> jax.Array:
    """One of three maps: output(x, kernel), input_gradient(dy, kernel), kernel_gradient(x, dy)."""
    return lax.platform_dependent(
        lhs, rhs, cpu=_sequential(partial(_on_cpu, kind, geometry)), default=partial(_native, kind, geometry)
    )


def _bilinear_forward(kind: str, geometry: _Geometry, lhs: jax.Array, rhs: jax.Array) -> tuple[jax.Array, tuple]:
    return _bilinear(kind, geometry, lhs, rhs), (lhs, rhs)


def _bilinear_backward(kind: str, geometry: _Geometry, saved: tuple, ct: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Each of the three maps has the other two as its gradients, which makes any order of derivative work."""
    lhs, rhs = saved
    output, dx, dk = (partial(_bilinear, name, geometry) for name in _LAYOUTS)
    match kind:
        case "output":  # x, k -> y
            return dx(ct, rhs), dk(lhs, ct)
        case "input_gradient":  # dy, k -> dx
            return output(ct, rhs), dk(ct, lhs)
        case _:  # x, dy -> dk
            return dx(rhs, ct), output(lhs, ct)


_bilinear.defvjp(_bilinear_forward, _bilinear_backward)


def _window(kind: str, g: _Geometry) -> _Window:
    """Steps, padding and dilations of the convolution that computes `kind`."""
    if kind == "output":
        return _Window(g.stride, g.padding, (1, 1), g.dilation)
    sides = list(zip(g.padding, g.input, g.window, g.output, g.stride, g.dilation, strict=True))
    if kind == "input_gradient":
        pads = [((k - 1) * d - low, i + low - 1 - (o - 1) * s) for (low, _), i, k, o, s, d in sides]
        return _Window((1, 1), tuple(pads), g.stride, g.dilation)
    pads = [(low, (k - 1) * d + (o - 1) * s + 1 - i - low) for (low, _), i, k, o, s, d in sides]
    return _Window(g.dilation, tuple(pads), (1, 1), g.stride)


def _native(kind: str, geometry: _Geometry, lhs: jax.Array, rhs: jax.Array) -> jax.Array:
    """The convolution that automatic differentiation of `lax` would make, which GPU libraries recognize."""
    if kind == "input_gradient":
        rhs = jnp.flip(rhs, (0, 1))
    window = _window(kind, geometry)
    return lax.conv_general_dilated(
        lhs, rhs, **window._asdict(), dimension_numbers=_LAYOUTS[kind], precision=geometry.precision
    )


def _on_cpu(kind: str, geometry: _Geometry, lhs: jax.Array, rhs: jax.Array) -> jax.Array:
    """The same convolution with its operands transposed into the layout of XLA's fast CPU kernel."""
    if geometry.window == (1, 1) and geometry.padding == ((0, 0), (0, 0)):
        return _pointwise(kind, geometry, lhs, rhs)
    if kind == "input_gradient":
        rhs = jnp.flip(rhs, (0, 1))
    left, right, out = _LAYOUTS[kind]
    lhs = lhs.transpose([left.index(axis) for axis in "NHWC"])
    rhs = rhs.transpose([right.index(axis) for axis in "HWIO"])
    y = _fast_convolution(lhs, rhs, _window(kind, geometry), geometry.precision)
    return y.transpose(["NHWC".index(axis) for axis in out])


def _pointwise(kind: str, g: _Geometry, lhs: jax.Array, rhs: jax.Array) -> jax.Array:
    """A 1 x 1 kernel is a matrix product over the pixels that the stride visits."""
    (step, across), (rows, columns) = g.stride, g.output
    if kind == "input_gradient":
        dx = lax.dot_general(lhs, rhs[0, 0], (((3,), (1,)), ((), ())), precision=g.precision)
        tails = [(0, i - (o - 1) * s - 1, s - 1) for i, o, s in zip(g.input, g.output, g.stride, strict=True)]
        return lax.pad(dx, np.array(0, dx.dtype), [(0, 0, 0), *tails, (0, 0, 0)])
    pixels = lhs[:, : (rows - 1) * step + 1 : step, : (columns - 1) * across + 1 : across]
    if kind == "output":
        return lax.dot_general(pixels, rhs[0, 0], (((3,), (0,)), ((), ())), precision=g.precision)
    dk = lax.dot_general(pixels, rhs, (((0, 1, 2), (0, 1, 2)), ((), ())), precision=g.precision)
    return dk[None, None]


def _fast_convolution(lhs: jax.Array, rhs: jax.Array, window: _Window, precision: Any) -> jax.Array:
    """One convolution in the fast layout, spared the shapes that XLA's CPU kernel handles badly.

    Measured on two Zen 4 cores with jax 0.10: an odd number of channels above one costs up to three times as
    much as one channel of zeros more; few channels in and at most 16 out, up to eight times `_blocked`; a kernel as
    large as a picture, as in the gradient of a kernel, up to 2.2 times `_piecewise`.
    """
    channels, features = rhs.shape[2:]
    if channels % 2 and channels > 1:
        lhs = jnp.pad(lhs, ((0, 0), (0, 0), (0, 0), (0, 1)))
        rhs = jnp.pad(rhs, ((0, 0), (0, 0), (0, 1), (0, 0)))
    if channels <= 4 and features <= 16 and window.lhs_dilation == (1, 1):
        return _blocked(lhs, rhs, window, precision)
    # Sums of less than 32 bits are not cut, for every piece of them would be rounded.
    if window.lhs_dilation == (1, 1) and lhs.dtype.itemsize >= 4:
        return _piecewise(lhs, rhs, window, precision)
    return lax.conv_general_dilated(lhs, rhs, **window._asdict(), dimension_numbers=_FAST, precision=precision)


def _piecewise(lhs: jax.Array, rhs: jax.Array, window: _Window, precision: Any) -> jax.Array:
    """The same convolution as the sum of those with some rows of the kernel each, where it has very many terms."""
    rows, terms = len(rhs), math.prod(rhs.shape[:3])
    piece = -(-rows // min(_PIECES, -(-terms // _TERMS)))
    ((top, bottom), columns), step = window.padding, window.rhs_dilation[0]
    total: Any = 0
    for first in range(0, rows, piece):
        last = min(first + piece, rows)
        # The rows of the padded picture that these rows of the kernel meet, and what of the padding is among them.
        low, high = first * step - top, bottom - (rows - last) * step
        part = lhs[:, max(low, 0) : len(lhs[0]) + min(high, 0)]
        pads = ((max(-low, 0), max(high, 0)), columns)
        total += lax.conv_general_dilated(
            part, rhs[first:last], **window._replace(padding=pads)._asdict(), dimension_numbers=_FAST,
            precision=precision,
        )  # fmt: skip
    return total


def _blocked(lhs: jax.Array, rhs: jax.Array, window: _Window, precision: Any) -> jax.Array:
    """The same convolution, computing a block of neighbouring columns as extra output channels.

    The kernel, once for each column of the block, is laid into a wider kernel at that column's place; the
    wide window steps a block at a time: fewer patches are gathered, each multiplied by 17 to 32 channels.
    """
    (step_down, step), (vertical, (low, high)) = window.window_strides, window.padding
    (dilation_down, dilation), features, width = window.rhs_dilation, rhs.shape[3], lhs.shape[2]
    reach = (rhs.shape[1] - 1) * dilation
    columns = (width + low + high - reach - 1) // step + 1
    sizes = range(min(16 // features + 1, 8, columns), min(32 // features, 8, columns) + 1)
    block = next((size for size in sizes if columns % size == 0), sizes[0])
    zero, keep = np.array(0, rhs.dtype), (0, 0, 0)
    placed = [(q * step, (block - 1 - q) * step, dilation - 1) for q in range(block)]
    wide = jnp.stack([lax.pad(rhs, zero, [keep, place, keep, keep]) for place in placed], 3)
    wide = wide.reshape(*wide.shape[:3], block * features)
    blocks = -(-columns // block)
    high = (blocks * block - 1) * step + reach + 1 - width - low
    y = lax.conv_general_dilated(
        lhs,
        wide,
        (step_down, block * step),
        (vertical, (low, high)),
        rhs_dilation=(dilation_down, 1),
        dimension_numbers=_FAST,
        precision=precision,
    )
    return y.reshape(*y.shape[:2], blocks * block, features)[:, :, :columns]


def _sequential(function: Callable[[jax.Array, jax.Array], jax.Array]) -> Callable[..., jax.Array]:
    """`function` with its own rule under `vmap`: one element after another if `rhs` is batched.

    With `lhs` alone batched, the axis joins its examples in one larger convolution, as `lax` does it.
    """
    mapped = jax.custom_batching.custom_vmap(function)

    @mapped.def_vmap
    def rule(size: int, batched: list[bool], lhs: jax.Array, rhs: jax.Array) -> tuple[jax.Array, bool]:
        if all(batched):
            return lax.map(lambda pair: mapped(*pair), (lhs, rhs)), True
        if batched[1]:
            return lax.map(lambda one: mapped(lhs, one), rhs), True
        return jax.vmap(function, (0, None))(lhs, rhs), True

    return mapped


def _alike(lhs: jax.Array, rhs: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Inside `shard_map`, both operands varying over the same mesh axes, as summing their gradients needs.

    `lax` operations see to that themselves, a `custom_vjp` does not. The sum over no elements is a zero of
    the right type in every version of JAX, and costs nothing once compiled.
    """
    if not jax.sharding.get_abstract_mesh().manual_axes:
        return lhs, rhs
    return lhs + rhs.ravel()[:0].sum(), rhs + lhs.ravel()[:0].sum()


def _plain_geometry(
    lhs: jax.Array,
    rhs: jax.Array,
    strides: Sequence[int],
    padding: Any,
    lhs_dilation: Sequence[int] | None,
    rhs_dilation: Sequence[int] | None,
    numbers: Any,
    precision: Any,
) -> _Geometry | None:
    """The geometry of a plain two-dimensional convolution; None for what `lax` gets, mistakes included."""
    if lhs.ndim != 4 or rhs.ndim != 4 or 0 in (*lhs.shape, *rhs.shape) or lhs.shape[3] != rhs.shape[2]:
        return None
    if lhs.dtype != rhs.dtype or not jnp.issubdtype(lhs.dtype, jnp.floating):
        return None
    layout, fast = (lax.conv_dimension_numbers(lhs.shape, rhs.shape, spec) for spec in (numbers, _FAST))
    stride, dilation = tuple(map(int, strides)), tuple(map(int, rhs_dilation or (1, 1)))
    if layout != fast or tuple(lhs_dilation or (1, 1)) != (1, 1):
        return None
    if len(stride) != 2 or len(dilation) != 2 or min(stride + dilation) < 1:
        return None
    size, window = lhs.shape[1:3], rhs.shape[:2]
    extent = _extent(window, dilation)
    pads = lax.padtype_to_pads(size, extent, stride, padding) if isinstance(padding, str) else padding
    pads = tuple((int(low), int(high)) for low, high in pads)
    room = [i + sum(p) - e for i, p, e in zip(size, pads, extent, strict=True)]
    if min(room) < 0 or min(map(min, pads)) < 0:
        return None
    output = tuple(r // s + 1 for r, s in zip(room, stride, strict=True))
    return _Geometry(stride, pads, dilation, size, window, output, precision)


def _extent(window: Pair, dilation: Pair) -> Pair:
    """Rows and columns that a dilated window covers."""
    return tuple((k - 1) * d + 1 for k, d in zip(window, dilation, strict=True))


def _check_images(x: jax.Array) -> None:
    if x.ndim != 4:
        raise ValueError(f"x has shape {x.shape}; it must be (n, h, w, channels)")


def _is_int(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _pair(name: str, value: Any) -> Pair:
    """`value` as (vertical, horizontal), both at least 1."""
    pair = (value, value) if _is_int(value) else tuple(value) if isinstance(value, Sequence) else ()
    if len(pair) != 2 or not all(_is_int(side) and side >= 1 for side in pair):
        raise ValueError(f"{name} is {value!r}; it must be an int >= 1 or a pair of them")
    return int(pair[0]), int(pair[1])


def _pads(padding: Any, size: Pair, extent: Pair, stride: Pair) -> Sides:
    """`padding` as ((top, bottom), (left, right))."""
    if isinstance(padding, str) and padding in ("SAME", "VALID"):
        return tuple(lax.padtype_to_pads(size, extent, stride, padding))
    sides = ((padding, padding), (padding, padding)) if _is_int(padding) else padding
    try:
        (top, bottom), (left, right) = sides
        good = all(_is_int(side) and side >= 0 for side in (top, bottom, left, right))
    except (TypeError, ValueError):
        good = False
    if not good:
        allowed = '"SAME", "VALID", an int >= 0 or ((top, bottom), (left, right)) with ints >= 0'
        raise ValueError(f"padding is {padding!r}; it must be {allowed}")
    return (int(top), int(bottom)), (int(left), int(right))


def _check_window(name: str, extent: Pair, size: Pair, pads: Sides) -> None:
    padded = tuple(i + sum(p) for i, p in zip(size, pads, strict=True))
    if any(e > i for e, i in zip(extent, padded, strict=True)):
        raise ValueError(f"{name} covers {extent} pixels, more than the padded x of {padded}; make it smaller or pad x")


def _pool_geometry(
    x: jax.Array, window: int | Sequence[int], stride: int | Sequence[int] | None, padding: Padding
) -> tuple[Pair, Pair, Sides]:
    """Window, stride and padding of a pool, checked."""
    _check_images(x)
    size = _pair("window", window)
    steps = size if stride is None else _pair("stride", stride)
    pads = _pads(padding, x.shape[1:3], size, steps)
    if any(max(pad) >= side for pad, side in zip(pads, size, strict=True)):
        raise ValueError(f"padding is {padding!r}; it must be smaller than the window {size} on every side")
    _check_window("window", size, x.shape[1:3], pads)
    return size, steps, pads


def _tiles(x: jax.Array, size: Pair, pads: Sides, fill: float) -> jax.Array:
    """`x`, padded with `fill` and cropped to whole windows, as `(n, h_out, kh, w_out, kw, c)`."""
    rows, columns = ((i + sum(p)) // k for i, p, k in zip(x.shape[1:3], pads, size, strict=True))
    ends = [
        (low, n * k - i - low, 0) for (low, _), n, k, i in zip(pads, (rows, columns), size, x.shape[1:3], strict=True)
    ]
    x = lax.pad(x, np.array(fill, x.dtype), [(0, 0, 0), *ends, (0, 0, 0)])
    return x.reshape(x.shape[0], rows, size[0], columns, size[1], x.shape[3])
