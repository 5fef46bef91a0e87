"""Augmentation inside the compiled step; labels are kept."""

import jax
import jax.numpy as jnp

from nnjax.types import Array, Key


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
