"""Augmentation inside the compiled step: pictures are drawn anew at every update, labels are kept.

Every function takes a key, pictures x (n, height, width, channels) as floats in [0, 1], and how strong the change may
be; each picture gets a draw of its own. Strengths may be traced, so one program serves all of them under ``jit`` and
`jax.vmap`, and a strength of 0 gives x back bit for bit. Those that move pixels share one bilinear interpolation in
`affine`: two in turn blur twice. The result has the shape and dtype of x.

    augment = compose(
        lambda key, x, hparams: affine(key, x, rotate=hparams["rotate"], shift=3.0, mirror=0.5),
        lambda key, x, hparams: contrast(key, x, hparams["contrast"]),
    )
    train = make_train(network, loss, optimizer, config, augment=augment)
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from nnjax.naming import choose
from nnjax.types import Array, Key

__all__ = [
    "FILLS", "affine", "affine_transform", "brightness", "color", "compose", "contrast", "displacement", "elastic",
    "mirror", "random_crop", "random_crop_and_flip", "rotate", "rotation", "shift", "zoom",
]  # fmt: skip

FILLS = ("nearest", "mirror", "zeros")
"""What lies beyond a picture's edge: its last pixel, its mirror image (about the last pixel), or black."""

Augmentation = Callable[[Key, Array, Any], Array]


def compose(*steps: Augmentation) -> Augmentation:
    """One ``(key, x, hparams) -> x`` that does ``steps``, each such a function, in turn, each with a key of its own."""

    def augment(key: Key, x: Array, hparams: Any = None) -> Array:
        for number, step in enumerate(steps):
            x = step(jax.random.fold_in(key, number), x, hparams)
        return x

    return augment


# Moving pixels


def affine(
    key: Key,
    x: Array,
    *,
    shift: ArrayLike = 0.0,
    rotate: ArrayLike = 0.0,
    zoom: ArrayLike = 0.0,
    crop: ArrayLike = 0.0,
    mirror: ArrayLike = 0.0,
    elastic: ArrayLike = 0.0,
    smoothness: ArrayLike = 4.0,
    fill: str = "nearest",
) -> Array:
    """All that moves pixels in a single bilinear interpolation.

    Args:
      key: random key.
      x: (n, h, w, c).
      shift: pixels; down and right by uniform draws from -shift to shift.
      rotate: degrees; about the middle, by a uniform draw from -rotate to rotate.
      zoom: larger by a factor from 1 / (1 + zoom) to 1 + zoom, uniform in its logarithm.
      crop: a window somewhere in the picture is enlarged to all of it; its sides are 1 - crop to 1 of the picture's,
        below 1.
      mirror: probability that left and right are exchanged.
      elastic: pixels; root mean square of each component of a smooth random `displacement`.
      smoothness: pixels, of that displacement.
      fill: one of `FILLS`.

    Returns:
      (n, h, w, c), the dtype of x.

    Raises:
      ValueError: x without four axes or not floats, a negative or infinite strength, a probability above 1, a crop of 1
        or more, another fill.
    """
    _check_pictures(x)
    _check_strength(math.inf, shift=shift, rotate=rotate, zoom=zoom, elastic=elastic)
    _check_strength(1.0, mirror=mirror, crop=crop)
    if _concrete(crop) and float(crop) == 1:  # type: ignore[arg-type]
        raise ValueError("crop=1 must be less than 1, or nothing of the picture is left")
    choose("fill", fill, FILLS)
    n, h, w, _ = x.shape
    dtype = _coordinate_type(x)
    keys = jax.random.split(key, 7)
    away = _uniform(keys[0], (n, 2), shift, dtype)
    turned = rotation(_uniform(keys[1], (n,), rotate, dtype))
    larger = jnp.exp(_uniform(keys[2], (n,), jnp.log1p(jnp.asarray(zoom, dtype)), dtype))
    side = 1 - jnp.asarray(crop, dtype) * jax.random.uniform(keys[3], (n,), dtype)
    corner = jax.random.uniform(keys[6], (n, 2), dtype, -0.5, 0.5)
    flipped = jnp.where(jax.random.bernoulli(keys[4], jnp.asarray(mirror, dtype), (n,)), -1, 1).astype(dtype)
    # From the place of a pixel to be made, seen from the middle, to where it comes from; the mirror is the last of all.
    matrix = turned * (side / larger)[:, None, None] * jnp.stack([jnp.ones_like(flipped), flipped], -1)[:, None, :]
    offset = jnp.asarray([[h, w]], dtype) * (1 - side)[:, None] * corner - jnp.sum(matrix * away[:, None, :], -1)
    # A strength that is plainly 0 costs nothing.
    bent = None
    if not (_concrete(elastic) and float(elastic) == 0):  # type: ignore[arg-type]
        bent = displacement(keys[5], (n, h, w), elastic, smoothness, dtype=dtype)
    return _moved(x, matrix, offset, bent, fill)


def shift(key: Key, x: Array, pixels: ArrayLike, *, fill: str = "nearest") -> Array:
    """Move every picture down and right by uniform draws from -pixels to pixels, with fractions; see `affine`."""
    return affine(key, x, shift=pixels, fill=fill)


def rotate(key: Key, x: Array, degrees: ArrayLike, *, fill: str = "nearest") -> Array:
    """Turn every picture about its middle by a uniform draw from -degrees to degrees; see `affine`."""
    return affine(key, x, rotate=degrees, fill=fill)


def zoom(key: Key, x: Array, amount: ArrayLike, *, fill: str = "nearest") -> Array:
    """Enlarge every picture by 1 / (1 + amount) to 1 + amount, uniform in the logarithm; see `affine`."""
    return affine(key, x, zoom=amount, fill=fill)


def random_crop(key: Key, x: Array, amount: ArrayLike) -> Array:
    """Enlarge a window with sides of 1 - amount to 1 of the picture's, somewhere in it, to all of it; see `affine`."""
    return affine(key, x, crop=amount)


def elastic(key: Key, x: Array, amplitude: ArrayLike, *, smoothness: ArrayLike = 4.0, fill: str = "nearest") -> Array:
    """Deform every picture by a smooth random field (Simard, Steinkraus and Platt, 2003); see `displacement`.

    Args:
      key: random key.
      x: (n, h, w, c).
      amplitude: root mean square of the field's components, pixels.
      smoothness: width of the Gaussian that smooths it, pixels.
      fill: one of `FILLS`.

    Raises:
      ValueError: as `affine`.
    """
    return affine(key, x, elastic=amplitude, smoothness=smoothness, fill=fill)


def mirror(key: Key, x: Array, probability: ArrayLike = 0.5) -> Array:
    """Exchange left and right of every picture with this probability, exactly (no interpolation).

    Raises:
      ValueError: x without four axes or not floats, a probability outside 0 to 1.
    """
    _check_pictures(x)
    _check_strength(1.0, probability=probability)
    chosen = jax.random.bernoulli(key, jnp.asarray(probability, jnp.float32), (len(x),))
    return jnp.where(chosen[:, None, None, None], x[:, :, ::-1], x)


def displacement(
    key: Key, shape: tuple[int, int, int], amplitude: ArrayLike, smoothness: ArrayLike, *, dtype: Any = jnp.float32
) -> jax.Array:
    """Smooth random fields: white Gaussian noise convolved with a Gaussian, rows and columns (n, h, w, 2).

    Mean 0; every component has standard deviation ``amplitude`` at every pixel, the edges not excepted, and two pixels
    at distance d well inside the picture are correlated by exp(-d^2 / (4 smoothness^2)).

    Args:
      key: random key.
      shape: n, h, w.
      amplitude: pixels.
      smoothness: standard deviation of the Gaussian, pixels, positive.
      dtype: of the result.

    Raises:
      ValueError: a negative amplitude, or a smoothness that is not positive.
    """
    _check_strength(math.inf, amplitude=amplitude, smoothness=smoothness)
    if _concrete(smoothness) and float(smoothness) == 0:  # type: ignore[arg-type]
        raise ValueError("smoothness=0 must be positive")
    n, h, w = shape
    noise = jax.random.normal(key, (n, h, w, 2), dtype)
    down, across = (_smoothing(length, jnp.asarray(smoothness, dtype)) for length in (h, w))
    return jnp.asarray(amplitude, dtype) * jnp.einsum("ij,njkc,lk->nilc", down, noise, across)


def _smoothing(length: int, width: Array) -> jax.Array:
    """A Gaussian round every pixel as the rows of a matrix; rows of length 1 keep the variance of white noise."""
    place = jnp.arange(length, dtype=width.dtype)
    rows = jnp.exp(-0.5 * ((place[:, None] - place[None, :]) / width) ** 2)
    return rows / jnp.linalg.norm(rows, axis=1, keepdims=True)


def rotation(degrees: Array) -> jax.Array:
    """Matrices (n, 2, 2) by which `affine_transform` turns pictures clockwise, ``degrees`` (n,); exact at 90, 180."""
    quarter = jnp.round(degrees / 90)
    rest = jnp.deg2rad(degrees - 90 * quarter)
    cosine, sine = jnp.cos(rest), jnp.sin(rest)
    turns = jnp.mod(quarter, 4)
    c = jnp.select([turns == 0, turns == 1, turns == 2], [cosine, -sine, -cosine], sine)
    s = jnp.select([turns == 0, turns == 1, turns == 2], [sine, cosine, -sine], -cosine)
    return jnp.stack([jnp.stack([c, -s], -1), jnp.stack([s, c], -1)], -2)


def affine_transform(x: Array, matrix: Array, offset: Array, *, fill: str = "zeros") -> jax.Array:
    """Pixel o of the result is x at ``matrix @ o + offset``, o = (row, column), interpolated bilinearly.

    What `scipy.ndimage.affine_transform` does with ``order=1`` (fills: ``nearest``, ``mirror``, ``grid-constant``).

    Args:
      x: (n, h, w, c), floats.
      matrix: (n, 2, 2).
      offset: (n, 2), pixels.
      fill: one of `FILLS`.

    Raises:
      ValueError: x without four axes or not floats, a matrix or offset of another shape, another fill.
    """
    _check_pictures(x)
    choose("fill", fill, FILLS)
    n, h, w, _ = x.shape
    if matrix.shape != (n, 2, 2) or offset.shape != (n, 2):
        raise ValueError(f"matrix {matrix.shape} and offset {offset.shape} must be ({n}, 2, 2) and ({n}, 2)")
    dtype = _coordinate_type(x)
    rows, columns = jnp.arange(h, dtype=dtype)[:, None], jnp.arange(w, dtype=dtype)[None, :]
    places = _mapped(jnp.asarray(matrix, dtype), jnp.asarray(offset, dtype), rows, columns)
    return _sampled(x, *places, fill)


def _moved(x: Array, matrix: jax.Array, offset: jax.Array, bent: jax.Array | None, fill: str) -> jax.Array:
    """`affine_transform` about the middle of the picture, with a field (n, h, w, 2) added to the places."""
    _, h, w, _ = x.shape
    middle = jnp.asarray([(h - 1) / 2, (w - 1) / 2], matrix.dtype)
    rows = jnp.arange(h, dtype=matrix.dtype)[:, None] - middle[0]
    columns = jnp.arange(w, dtype=matrix.dtype)[None, :] - middle[1]
    row, column = _mapped(matrix, offset, rows, columns)
    row, column = row + middle[0], column + middle[1]
    if bent is not None:
        row, column = row + bent[..., 0], column + bent[..., 1]
    return _sampled(x, row, column, fill)


def _mapped(matrix: jax.Array, offset: jax.Array, rows: jax.Array, columns: jax.Array) -> tuple[jax.Array, jax.Array]:
    """matrix @ (row, column) + offset on a grid, (n, h, w) each; rows (h, 1), columns (1, w)."""
    m, o = matrix[:, :, :, None, None], offset[:, :, None, None]
    rows, columns = rows[None], columns[None]
    return m[:, 0, 0] * rows + m[:, 0, 1] * columns + o[:, 0], m[:, 1, 0] * rows + m[:, 1, 1] * columns + o[:, 1]


def _sampled(x: Array, row: jax.Array, column: jax.Array, fill: str) -> jax.Array:
    """x (n, h, w, c) between its pixels, at places row and column (n, h', w')."""
    x = jnp.asarray(x)
    n, h, w, c = x.shape
    flat = x.reshape(n, h * w, c)
    top, left = jnp.floor(row), jnp.floor(column)
    down, right = row - top, column - left
    out = jnp.zeros((n, *row.shape[1:], c), x.dtype)
    for i, across in ((0, 1 - down), (1, down)):
        for j, along in ((0, 1 - right), (1, right)):
            r, inside_r = _within(top + i, h, fill)
            s, inside_s = _within(left + j, w, fill)
            place = (r * w + s).reshape(n, -1)
            value = jax.vmap(lambda picture, at: picture.at[at].get(mode="promise_in_bounds"))(flat, place)
            weight = jnp.where(inside_r & inside_s, across * along, 0).astype(x.dtype)
            out = out + weight[..., None] * value.reshape(out.shape)
    return out


def _within(place: jax.Array, length: int, fill: str) -> tuple[jax.Array, jax.Array]:
    """The pixel that stands for a place (a whole number, as float) on an axis, and whether it counts."""
    inside = jnp.ones_like(place, bool)
    if fill == "zeros":
        inside = (place >= 0) & (place <= length - 1)
    elif fill == "mirror" and length > 1:
        period = 2 * (length - 1)
        place = length - 1 - jnp.abs(jnp.mod(place, period) - (length - 1))
    return jnp.clip(place, 0, length - 1).astype(jnp.int32), inside


def random_crop_and_flip(key: Key, x: Array, *, padding: int = 4) -> Array:
    """Shift every picture by up to ``padding`` pixels (zeros move in) and mirror half of them left to right.

    The usual training augmentation of CIFAR-10 (He et al., 2016).

    Args:
      key: random key.
      x: (n, h, w, c).
      padding: largest shift, pixels.

    Returns:
      (n, h, w, c).

    Raises:
      ValueError: x without four axes, or a negative padding.
    """
    if x.ndim != 4:
        raise ValueError(f"x must have shape (n, h, w, c), not {x.shape}")
    if padding < 0:
        raise ValueError(f"padding={padding} must not be negative")
    n, h, w, c = x.shape
    shift_key, flip_key = jax.random.split(key)
    corners = jax.random.randint(shift_key, (n, 2), 0, 2 * padding + 1)
    mirrored = jax.random.bernoulli(flip_key, shape=(n,))
    padded = jnp.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))

    def one(image: Array, corner: Array, mirror: Array) -> Array:
        cut = jax.lax.dynamic_slice(image, (corner[0], corner[1], 0), (h, w, c))
        return jnp.where(mirror, cut[:, ::-1], cut)

    return jax.vmap(one)(padded, corners, mirrored)


# Changing colors


def brightness(key: Key, x: Array, amount: ArrayLike) -> jax.Array:
    """Add to every picture a uniform draw from -amount to amount; kept within 0 to 1.

    Raises:
      ValueError: x without four axes or not floats, a negative amount.
    """
    _check_pictures(x)
    _check_strength(math.inf, amount=amount)
    x = jnp.asarray(x)
    more = _uniform(key, (len(x), 1, 1, 1), amount, x.dtype)
    return jnp.where(more == 0, x, jnp.clip(x + more, 0, 1))


def contrast(key: Key, x: Array, amount: ArrayLike) -> jax.Array:
    """Scale every picture's distance from its mean, each channel's own, by 1 - amount to 1 + amount, 0 at least.

    Kept within 0 to 1.

    Raises:
      ValueError: x without four axes or not floats, a negative amount.
    """
    _check_pictures(x)
    _check_strength(math.inf, amount=amount)
    x = jnp.asarray(x)
    more = jnp.maximum(_uniform(key, (len(x), 1, 1, 1), amount, x.dtype), -1)
    mean = jnp.mean(x, axis=(1, 2), keepdims=True)
    return jnp.where(more == 0, x, jnp.clip(x + more * (x - mean), 0, 1))


def color(key: Key, x: Array, saturation: ArrayLike, *, hue: ArrayLike = 0.0) -> jax.Array:
    """Scale every picture's saturation by 1 - saturation to 1 + saturation and turn its hue by -hue to hue.

    Both in hue, saturation, value (Smith, 1978), where value, the largest of the three channels, is kept.

    Args:
      key: random key.
      x: (n, h, w, 3).
      saturation: a factor of less than 0 counts as 0 (gray); a color that is pure stays so.
      hue: part of the whole circle: 1/3 turns red to green.

    Raises:
      ValueError: x without three channels or not floats, a negative strength.
    """
    _check_pictures(x)
    if x.shape[-1] != 3:
        raise ValueError(f"x must have three channels (red, green, blue), not {x.shape[-1]}")
    _check_strength(math.inf, saturation=saturation, hue=hue)
    x = jnp.asarray(x)
    saturation_key, hue_key = jax.random.split(key)
    factor = 1 + jnp.maximum(_uniform(saturation_key, (len(x), 1, 1, 1), saturation, x.dtype), -1)
    turn = _uniform(hue_key, (len(x), 1, 1, 1), hue, x.dtype)
    return _turned(_saturated(x, factor), turn)


def _saturated(x: jax.Array, factor: jax.Array) -> jax.Array:
    """x (n, h, w, 3) with its saturation (value - least) / value times ``factor`` (n, 1, 1, 1), 1 at most."""
    value, least = jnp.max(x, -1, keepdims=True), jnp.min(x, -1, keepdims=True)
    spread = value - least
    most = value / jnp.where(spread > 0, spread, 1)
    factor = jnp.where(spread > 0, jnp.minimum(factor, jnp.maximum(most, 1)), 1)
    return jnp.where(factor == 1, x, jnp.maximum(x + (1 - factor) * (value - x), 0))


def _turned(x: jax.Array, turn: jax.Array) -> jax.Array:
    """x (n, h, w, 3) with its hue turned by ``turn`` (n, 1, 1, 1) of the circle."""
    value, least = jnp.max(x, -1, keepdims=True), jnp.min(x, -1, keepdims=True)
    spread = value - least
    red, green, blue = (x[..., channel : channel + 1] for channel in range(3))
    over = jnp.where(spread > 0, spread, 1)
    sixth = jnp.select(
        [value == red, value == green], [(green - blue) / over, 2 + (blue - red) / over], 4 + (red - green) / over
    )
    # Channel of phase p at hue k sixths: value less its spread times how far it is from its own third of the circle.
    k = jnp.mod(jnp.asarray([5, 3, 1], x.dtype)[None, None, None] + sixth + 6 * turn, 6)
    return jnp.where(turn == 0, x, value - spread * jnp.clip(jnp.minimum(k, 4 - k), 0, 1))


# Draws and checks


def _uniform(key: Key, shape: tuple[int, ...], most: ArrayLike, dtype: Any) -> jax.Array:
    """Uniform from -most to most; exactly 0 where that is 0."""
    return jnp.asarray(most, dtype) * jax.random.uniform(key, shape, dtype, -1, 1)


def _coordinate_type(x: Array) -> Any:
    """At least single precision: 8 bits cannot tell the pixels of a row apart."""
    return jnp.promote_types(x.dtype, jnp.float32)


def _check_pictures(x: Array) -> None:
    if x.ndim != 4:
        raise ValueError(f"x must have shape (n, h, w, c), not {x.shape}")
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise ValueError(f"x must be floats in [0, 1], not {x.dtype}")


def _concrete(value: Any) -> bool:
    return not isinstance(value, jax.core.Tracer)


def _check_strength(most: float, **strengths: ArrayLike) -> None:
    for name, value in strengths.items():
        if _concrete(value) and not (0 <= float(value) <= most and math.isfinite(float(value))):  # type: ignore[arg-type]
            allowed = "not be negative or infinite" if most == math.inf else f"be from 0 to {most:g}"
            raise ValueError(f"{name}={value} must {allowed}")
