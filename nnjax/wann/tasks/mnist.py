"""MNIST as Gaier and Ha (2019) show it to their nets: 16x16 pixels, and upright."""

from __future__ import annotations

import functools
import os

import numpy as np

from nnjax.data import Split, load
from nnjax.types import Array
from nnjax.wann.tasks.classification import Classification, classification

SIDE = 16
_CHUNK = 4096  # images at a time: a few MB, which stay in the cache


def resize(images: np.ndarray, side: int = SIDE) -> np.ndarray:
    """Images (n, h, w) as (n, side, side): linear between the nearest pixel centers, as OpenCV's default.

    Nothing is averaged, so that fine detail is aliased, as in the program of Gaier and Ha (2019).
    """
    images = np.asarray(images)
    down, across = (_taps(length, side).astype(images.dtype) for length in images.shape[1:])
    return down @ images @ across.T


def skew(images: np.ndarray) -> np.ndarray:
    """Slant of each of the images (n, h, w), pixels to the right a pixel down: the moments mu_11/mu_02; (n,).

    0 where mu_02, the spread in height, is below 1e-2.
    """
    images = np.asarray(images)
    y, x = (np.arange(length, dtype=images.dtype) for length in images.shape[1:])
    rows = images.sum(2)
    mass = rows.sum(1)
    y_off = y - (rows @ y / np.where(mass > 0, mass, 1))[:, None]
    spread = (rows * y_off**2).sum(1)
    slant = (images @ x * y_off).sum(1)  # x needs no centering where y has it
    flat = np.abs(spread) < 1e-2
    return np.where(flat, 0, slant / np.where(flat, 1, spread))


def deskew(images: np.ndarray) -> np.ndarray:
    """Images (n, h, w) sheared so that they stand upright; (n, h, w).

    Row y is shifted by skew (y - h/2) pixels, linear between pixels, with 0 beyond the edge.
    """
    images = np.asarray(images)
    height, width = images.shape[1:]
    shift = skew(images)[:, None] * (np.arange(height, dtype=images.dtype) - images.dtype.type(0.5 * height))
    whole = np.floor(shift)
    part = (shift - whole)[..., None]
    # One column of zeros on either side, where everything beyond the edge is read.
    padded = np.pad(images, ((0, 0), (0, 0), (1, 1)))
    left = 1 + np.arange(width) + whole.astype(np.int64)[..., None]
    first, second = (np.take_along_axis(padded, np.clip(place, 0, width + 1), 2) for place in (left, left + 1))
    return first + part * (second - first)


def preprocess(images: Array) -> np.ndarray:
    """Images (n, 28, 28) in [0, 1] as (n, 256): resized to 16x16, then deskewed, as Gaier and Ha (2019) do.

    Their OpenCV rounds places to a 32nd of a pixel; here they are exact.
    """
    images = np.asarray(images)
    pieces = [deskew(resize(images[at : at + _CHUNK])) for at in range(0, len(images), _CHUNK)]
    return np.concatenate(pieces).reshape(len(images), -1) if pieces else np.zeros((0, SIDE**2), np.float32)


@functools.cache
def mnist16(
    *, batch_size: int | None = 1000, validation: int = 10_000, cache: str | os.PathLike[str] | None = None
) -> Classification:
    """MNIST (LeCun et al., 1998) at 16x16, deskewed: 256 inputs in [0, 1].

    Gaier and Ha (2019) search with all 60000 training images; here ``validation`` of them are held out to choose
    champions by. The 10000 test images stay as they are.

    Args:
      batch_size: training images of an evaluation; None for all.
      validation: number of images.
      cache: folder of the data files, as in `nnjax.data.load`.

    Raises:
      nnjax.data.DataError: a file is missing and cannot be downloaded.
    """
    whole = load("mnist", cache=cache)
    train, test = (Split(preprocess(part.x[..., 0]), part.y) for part in (whole.train, whole.test))
    return classification("mnist16", train, test, classes=10, validation=validation, batch_size=batch_size)


def _taps(length: int, side: int) -> np.ndarray:
    """(side, length): how much of each pixel goes into each of the new ones, at most two."""
    place = np.clip((np.arange(side) + 0.5) * (length / side) - 0.5, 0, length - 1)
    return np.maximum(1 - np.abs(place[:, None] - np.arange(length)), 0)
