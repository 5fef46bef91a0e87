"""Folders and tars of pictures, one folder a class: listed and checked at once, decoded when they are asked for.

Every file is taken for hostile: its length and its number of pixels are compared with a limit before memory is spent,
what format it has is decided by its content, and a file that cannot be read is named and left out.
"""

from __future__ import annotations

import functools
import hashlib
import io
import operator
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from nnjax.data import cache as _cache
from nnjax.data.cache import DataError, SourceFile
from nnjax.data.files import Archive, Source, read_file, source_at
from nnjax.naming import choose

__all__ = ["FITS", "ImageFolder", "checked_size", "image_folder", "image_names", "load_images", "read_image"]

FITS = ("crop", "squash")
"""How a picture of another shape is brought to the one asked for; see `ImageFolder.read`."""

_FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP")
_PIXELS = 1 << 26

_HYMENOPTERA = SourceFile(
    "hymenoptera",
    "hymenoptera_256/hymenoptera_256.tar",
    10_588_160,
    "eb91b9d05c67ab2ba123333b56d86837b45d616778d1c1666810520f25174dfc",
)
_IMAGES = {"hymenoptera": (_HYMENOPTERA, "train", "val")}


@dataclass(frozen=True, eq=False)
class ImageFolder:
    """Pictures in class folders; nothing but their names is kept in memory.

    Attributes:
      classes: name of class k at place k, sorted.
      labels: class of every picture, int32 (n,).
      names: place of every picture inside the folder, ``class/file``; sorted.
      skipped: (name, reason) of what was left out.
      source: gives a file's bytes by its name.
    """

    classes: tuple[str, ...]
    labels: np.ndarray
    names: tuple[str, ...]
    skipped: tuple[tuple[str, str], ...]
    source: Source

    def __len__(self) -> int:
        return len(self.names)

    def read(self, indices: Iterable[int], size: int | tuple[int, int], *, fit: str = "crop") -> np.ndarray:
        """The pictures at these places, reduced with antialiasing: uint8 (m, height, width, 3).

        Gray pictures get three equal channels, and a photograph is turned as its camera noted (EXIF).

        Args:
          indices: places, (m,).
          size: height and width in pixels, or one number for both.
          fit: ``crop`` scales the picture until it just covers the size and keeps its middle; ``squash`` scales both
            sides by themselves, so all of the picture is seen, distorted.

        Raises:
          ValueError: places that are no integers, a size below 1, another ``fit``.
          IndexError: a place that there is not.
          DataError: a file has gone, or was damaged since it was checked.
        """
        height, width = checked_size(size)
        places = self._places(list(indices))
        out = np.empty((len(places), height, width, 3), np.uint8)
        for row, place in enumerate(places):
            out[row] = self.one(int(place), (height, width), fit=fit)
        return out

    def one(self, index: int, size: int | tuple[int, int] | None = None, *, fit: str = "crop") -> np.ndarray:
        """The picture at one place, uint8 (height, width, 3), in its own size where none is given; see `read`."""
        name = self.names[index]
        try:
            return _decode(self.source.read(name), None if size is None else checked_size(size), fit)
        except DataError as error:
            raise DataError(f"picture {name!r} {error}") from error

    def take(self, indices: Sequence[int] | np.ndarray) -> ImageFolder:
        """The folder with only the pictures at these places, in this order; classes and labels are kept.

        Args:
          indices: places, (m,), negative ones from the end; or a mask, whether to take it, (n,) booleans.

        Raises:
          ValueError: neither integers nor a mask of n booleans.
          IndexError: a place that there is not.
        """
        places = self._places(indices)
        return replace(self, labels=self.labels[places], names=tuple(self.names[place] for place in places))

    def _places(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """Places, or the places where a mask is true, as int64 (m,)."""
        given = np.asarray(indices)
        if given.dtype == bool and given.shape == (len(self),):
            return np.flatnonzero(given)
        if given.size and given.dtype.kind not in "iu":
            raise ValueError(
                f"indices of {given.dtype} and shape {given.shape} must be integers, or booleans for each of the "
                f"{len(self)} pictures"
            )
        places = given.astype(np.int64).reshape(-1)
        if len(places) and not (-len(self) <= places.min() and places.max() < len(self)):
            raise IndexError(f"indices from {places.min()} to {places.max()} reach beyond the {len(self)} pictures")
        return places

    def digest(self) -> str:
        """Changes with any name, label, class, or length of a file; 64 hexadecimal digits.

        Raises:
          DataError: a file has gone.
        """
        sha = hashlib.sha256(repr(self.classes).encode("utf-8", "surrogatepass"))
        for name, label in zip(self.names, self.labels, strict=True):
            try:
                length = self.source.size(name)
            except OSError as error:
                raise DataError(f"picture {name!r} cannot be read ({error.strerror})") from error
            sha.update(f"{name!r} {label} {length}\n".encode("utf-8", "surrogatepass"))
        return sha.hexdigest()


def image_folder(
    path: str | os.PathLike[str],
    *,
    within: str = "",
    classes: Sequence[str] | None = None,
    least_classes: int = 2,
    check: bool = True,
) -> ImageFolder:
    """List the pictures of a folder or tar in which every folder is a class; decode none but to check it.

    JPEG, PNG, BMP, TIFF and WebP are read, whatever the files are called. Folders inside a class folder belong to the
    class; a class folder may be a link to one elsewhere, but links inside it are not followed. Hidden files are passed
    over; what else cannot be read (no picture, cut short, more than 67 million pixels or 64 MiB, transparent, neither
    RGB nor gray, a link in a tar) is named in ``skipped``. A class left without pictures is none.

    Args:
      path: a folder, or an uncompressed ``.tar``.
      within: the folder inside that holds the class folders, such as ``train``.
      classes: the classes, in their order, where another folder has already said what they are; some of them may be
        empty here. Default: the folders that are there, sorted.
      least_classes: how many classes there have to be, those that may be empty included.
      check: decode every picture once (JPEGs at an eighth of their size), so that damaged ones are found now; without
        it they are when they are read.

    Raises:
      ValueError: no picture at all, fewer classes than ``least_classes``, or a folder that is none of ``classes``.
      DataError: no such folder or tar, one that cannot be listed, or a tar that is damaged, cut, has a name twice or
        has entries that lead outside.
    """
    return _listed(source_at(Path(path).expanduser()), str(path), within, classes, least_classes, check)


def image_names() -> tuple[str, ...]:
    """Every name `load_images` knows."""
    return tuple(_IMAGES)


def load_images(name: str, *, cache: str | os.PathLike[str] | None = None) -> tuple[ImageFolder, ImageFolder]:
    """Training and validation pictures of a data set too large or too ragged for `nnjax.data.load`.

    | name | train, validation | classes | source |
    |---|---|---|---|
    | hymenoptera | 244, 153 | ants, bees | photographs of PyTorch's transfer tutorial, short side <= 256 |

    Args:
      name: one of `image_names`.
      cache: folder of the data files, as for `nnjax.data.load`; ``hymenoptera_256/hymenoptera_256.tar`` has no public
        download.

    Raises:
      ValueError: unknown name.
      DataError: the file is missing, or its checksum is wrong.
    """
    source, *folders = choose("image set", name, _IMAGES)
    content = Archive(_cache.read(source, cache=cache), str(source))
    # The whole file's checksum has been compared: no picture in it needs a look of its own.
    train, validation = (_listed(content, str(source), folder, None, 2, False) for folder in folders)
    return train, validation


def read_image(
    path: str | os.PathLike[str], size: int | tuple[int, int] | None = None, *, fit: str = "crop"
) -> np.ndarray:
    """One picture as uint8 (height, width, 3), in its own size where none is given; see `ImageFolder.read`.

    Raises:
      ValueError: a size below 1, another ``fit``.
      DataError: no such file, no picture, damaged, too large, transparent, or neither RGB nor gray.
    """
    try:
        return _decode(read_file(Path(path).expanduser()), None if size is None else checked_size(size), fit)
    except DataError as error:
        raise DataError(f"picture {str(path)!r} {error}") from error


# Listing


def _listed(
    source: Source, what: str, within: str, classes: Sequence[str] | None, least: int, check: bool
) -> ImageFolder:
    inside = f"{within.strip('/')}/" if within.strip("/") else ""
    found = []
    skipped = [(name, reason) for name, reason in source.refused() if _below(name, inside)]
    for name in source.names():
        parts = _below(name, inside)
        if len(parts) == 1:
            skipped.append((name, "lies in no class folder"))
        elif parts:
            found.append((parts[0], name))
    if check:
        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            reasons = list(pool.map(functools.partial(_fault, source), [name for _, name in found]))
        skipped += [(name, reason) for (_, name), reason in zip(found, reasons, strict=True) if reason]
        found = [one for one, reason in zip(found, reasons, strict=True) if not reason]
    where = f"{what!r}, folder {within!r}" if inside else repr(what)
    return _labelled(source, where, found, skipped, classes, least)


def _below(name: str, inside: str) -> list[str]:
    """The parts of a name below the folder ``inside``; none where it lies elsewhere, or is hidden."""
    parts = name.removeprefix(inside).split("/")
    return [] if not name.startswith(inside) or any(part.startswith(".") for part in parts) else parts


def _labelled(
    source: Source,
    where: str,
    found: list[tuple[str, str]],
    skipped: list[tuple[str, str]],
    classes: Sequence[str] | None,
    least: int,
) -> ImageFolder:
    why = f" ({len(skipped)} files were skipped; {skipped[0][0]!r} {skipped[0][1]})" if skipped else ""
    if not found:
        raise ValueError(f"{where} has no picture in a class folder{why}")
    there = sorted({kind for kind, _ in found})
    if classes is not None and (strange := [kind for kind in there if kind not in classes]):
        raise ValueError(f"{where} has the folder {strange[0]!r}, which is none of the classes {', '.join(classes)}")
    kinds = tuple(there if classes is None else classes)
    if classes is not None and len(kinds) < least:
        raise ValueError(f"classes={kinds} are {len(kinds)}; {least} are needed")
    if classes is None and len(there) < least:
        raise ValueError(f"{where} has pictures of {len(there)} class ({', '.join(there)}); {least} are needed{why}")
    labels = np.asarray([kinds.index(kind) for kind, _ in found], np.int32)
    return ImageFolder(kinds, labels, tuple(name for _, name in found), tuple(skipped), source)


def _fault(source: Source, name: str) -> str:
    """Why the picture cannot be read, or nothing."""
    try:
        _decode(source.read(name), (1, 1), "squash")
    except DataError as error:
        return str(error)
    return ""


# Pixels


def checked_size(size: int | tuple[int, int]) -> tuple[int, int]:
    """Height and width, from both or from one number that stands for both.

    Raises:
      ValueError: other than one or two integers, a side below 1, or 67 million pixels and more.
    """
    given: Any = size.tolist() if isinstance(size, np.ndarray) else size
    sides = given if isinstance(given, tuple | list) else (given, given)
    try:
        if any(isinstance(side, bool | np.bool_) for side in sides):
            raise TypeError
        height, width = map(operator.index, sides)
    except (TypeError, ValueError):  # no integers, or not two of them
        height = width = 0
    if min(height, width) < 1 or height * width > _PIXELS:
        raise ValueError(
            f"size={size!r} must be a height and width from 1, integers, with at most {_PIXELS:,} pixels"
        )  # fmt: skip
    return height, width


def _decode(content: bytes, size: tuple[int, int] | None, fit: str) -> np.ndarray:
    """A picture's pixels, uint8 (height, width, 3); the message of an error goes on from the picture's name."""
    from PIL import Image, ImageOps

    choose("fit", fit, FITS)
    try:
        with Image.open(io.BytesIO(content), formats=_FORMATS) as image:
            # Opening has read the header only: no pixel is decoded before their number is known.
            if image.width * image.height > _PIXELS:
                raise DataError(f"has {image.width} x {image.height} pixels; {_PIXELS:,} are allowed")
            if size is not None:
                # A JPEG decodes to a half, quarter or eighth of its size at a fraction of the cost; twice what is
                # needed is left for the resampling.
                image.draft(None, (2 * max(size), 2 * max(size)))
            ImageOps.exif_transpose(image, in_place=True)
            return np.asarray(_resized(_rgb(image), size, fit))
    except (DataError, MemoryError):  # for want of memory no picture is damaged
        raise
    except Image.UnidentifiedImageError:
        raise DataError(f"is no {', '.join(_FORMATS[:-1])} or WebP picture") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise DataError(f"has more than the {_PIXELS:,} pixels allowed") from None
    except Exception as error:  # a damaged file makes the decoders raise nearly anything
        raise DataError(f"is damaged ({str(error) or type(error).__name__})") from error


def _rgb(image: Any) -> Any:
    if image.mode == "RGB":
        return image
    if image.mode in ("1", "L"):
        return image.convert("RGB")
    if image.mode in ("P", "PA", "LA", "RGBA"):
        image = image.convert("RGBA")
        if image.getextrema()[3][0] == 255:
            return image.convert("RGB")
        raise DataError("has transparent pixels; lay it on a background first")
    raise DataError(f"is of mode {image.mode!r} ({len(image.getbands())} channels); RGB and 8-bit gray are read")


def _resized(image: Any, size: tuple[int, int] | None, fit: str) -> Any:
    if size is None or image.size == size[::-1]:
        return image
    from PIL import Image

    height, width = size
    box = (0.0, 0.0, float(image.width), float(image.height))
    if fit == "crop":
        scale = min(image.width / width, image.height / height)
        # Rounding must not put a corner a hair outside.
        left, top = max(0.0, (image.width - scale * width) / 2), max(0.0, (image.height - scale * height) / 2)
        box = (left, top, min(left + scale * width, image.width), min(top + scale * height, image.height))
    return image.resize((width, height), Image.Resampling.BILINEAR, box=box)
