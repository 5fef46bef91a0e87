"""A camera image as a few numbers: principal components of frames, for tasks that see."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

SIDE = 64
"""Rows and columns of an image that is encoded."""

PIXELS = SIDE * SIDE * 3
"""Numbers in such an image."""

_ROAD = 84  # rows of a racer's frame above its instruments


class Latents(NamedTuple):
    """A linear encoder of images: latent = components (image - mean).

    Attributes:
      mean: (PIXELS,) float32, the mean image.
      components: (latents, PIXELS) float32, principal directions over their standard deviations, so that each latent
        has variance 1 over the images of the fit.
      explained: (latents,) float32, share of the images' variance along each.
    """

    mean: np.ndarray
    components: np.ndarray
    explained: np.ndarray

    def encode(self, images: np.ndarray) -> np.ndarray:
        """Latents of images: (..., PIXELS) to (..., latents), float32."""
        return (images - self.mean) @ self.components.T


def image(frame: np.ndarray) -> np.ndarray:
    """A frame of the racer as the encoder sees it: without instruments, 64 x 64, colors in [0, 1].

    Args:
      frame: (96, 96, 3) uint8.

    Returns:
      (PIXELS,) float32.
    """
    from PIL import Image

    small = Image.fromarray(frame[:_ROAD]).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    return np.asarray(small, np.float32).ravel() / np.float32(255)


def principal_components(images: np.ndarray, count: int = 16) -> Latents:
    """The first principal components of images, (n, PIXELS) with n > count.

    Raises:
      ValueError: fewer images than that, or images that vary in fewer directions.
    """
    n = len(images)
    if n <= count:
        raise ValueError(f"{n} images are too few for {count} components; more than {count} are needed")
    mean = images.mean(0)
    centered = images - mean
    # Of n images in many pixels only n directions matter: the n x n matrix of inner products has them all.
    variances, vectors = np.linalg.eigh((centered @ centered.T).astype(np.float64))
    variances, vectors = variances[::-1][:count], vectors[:, ::-1][:, :count]
    total = float(np.square(centered, dtype=np.float64).sum())
    if variances[-1] <= 1e-7 * max(total, 1e-300):
        raise ValueError(f"the {n} images vary in fewer than {count} directions")
    directions = (vectors / np.sqrt(variances)).T @ centered
    signs = np.sign(directions[np.arange(count), np.abs(directions).argmax(1)])  # else up to the eigensolver
    scaled = directions * (signs * np.sqrt((n - 1) / variances))[:, None]
    return Latents(mean, scaled.astype(np.float32), (variances / total).astype(np.float32))


def save_latents(latents: Latents, path: str | Path) -> None:
    """Write an encoder to a file; by convention it ends in ``.npz``."""
    with open(path, "wb") as file:
        np.savez(file, **latents._asdict())


def load_latents(path: str | Path) -> Latents:
    """Read what `save_latents` wrote.

    Raises:
      ValueError: there is no such file, or it holds no encoder.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            latents = Latents(*(file[name] for name in Latents._fields))
    except FileNotFoundError:
        raise ValueError(f"latents={str(path)!r} is no file; fit_latents and save_latents make one") from None
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise ValueError(f"latents={str(path)!r} holds no encoder of images ({type(error).__name__})") from None
    count = len(latents.explained)
    if latents.mean.shape != (PIXELS,) or latents.components.shape != (count, PIXELS):
        raise ValueError(f"latents={str(path)!r} holds an encoder of other images than {SIDE} x {SIDE} in color")
    return latents
