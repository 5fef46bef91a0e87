"""The pictures of the micrometeorites study: from a folder, a tar, the photographs of ants and bees, or made up."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from experiments import command
from nnjax.data import DataError, ImageFolder, image_folder, load_images, spherules, stratified_split

MADE_UP, PHOTOGRAPHS = "spherules", "hymenoptera"
_MADE_SIZE = 96  # pixels of the pictures that are made up, before they are brought to the size asked for
_LEAST = 4  # pictures of each class


class Pictures(NamedTuple):
    """What a study works on.

    Attributes:
      x, y: pictures for training and validation, uint8 (n, size, size, 3), and their classes, int32 (n,).
      x_test, y_test: others, for the test.
      classes: their names.
      skipped: files that could not be read, each with the reason.
      note: what these pictures are, in a few words.
    """

    x: np.ndarray
    y: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    classes: tuple[str, ...]
    skipped: tuple[str, ...]
    note: str


def pictures(data: str, size: int, n: int, test_n: int, seed: int) -> Pictures:
    """Pictures for training and validation, and for the test, each at most as many as asked for.

    Args:
      data: `MADE_UP`, `PHOTOGRAPHS`, or the path of a folder or tar; see `_own`.
      size: pixels of a side.
      n, test_n: numbers of pictures.
      seed: decides which, and what is made up.

    Raises:
      BadInput: no such folder, no picture in it, one class, or too few pictures of a class.
    """
    try:
        if data == MADE_UP:
            with tempfile.TemporaryDirectory(prefix="nnjax-") as folder:
                _make(Path(folder), n + test_n, seed)
                whole = image_folder(folder, check=False)
                return _split(whole, size, n, test_n, seed, f"{n + test_n} pictures made up for this study")
        if data == PHOTOGRAPHS:
            train, test = load_images(PHOTOGRAPHS)
            return _read(train, test, size, n, test_n, seed, "photographs of ants and bees")
        return _own(Path(data), size, n, test_n, seed)
    except (ValueError, DataError) as error:
        raise command.BadInput(str(error)) from error


def _own(path: Path, size: int, n: int, test_n: int, seed: int) -> Pictures:
    """A folder or tar of class folders; or a folder of such folders, "train" and for the test "val" or "test"."""
    if not path.exists():
        raise command.BadInput(
            f"data={str(path)!r} must be {MADE_UP}, {PHOTOGRAPHS}, or a folder or .tar of class folders that is there"
        )
    if (path / "train").is_dir():
        held_out = next((name for name in ("test", "val") if (path / name).is_dir()), None)
        if held_out is not None:
            train = image_folder(path, within="train")
            test = image_folder(path, within=held_out, classes=train.classes)
            return _read(train, test, size, n, test_n, seed, str(path))
    return _split(image_folder(path), size, n, test_n, seed, str(path))


def _split(whole: ImageFolder, size: int, n: int, test_n: int, seed: int, note: str) -> Pictures:
    """One folder cut in two; where it holds fewer than asked for, in the same ratio."""
    _enough(whole, 2 * _LEAST)
    test_n = min(test_n, round(test_n / (n + test_n) * len(whole)))
    parts = stratified_split(whole.labels, [len(whole) - test_n, test_n], seed=seed)
    train, test = (whole.take(np.sort(part)) for part in parts)
    return _read(train, test, size, n, test_n, seed, note, skipped=whole.skipped)


def _read(
    train: ImageFolder, test: ImageFolder, size: int, n: int, test_n: int, seed: int, note: str, *,
    skipped: tuple[tuple[str, str], ...] | None = None,
) -> Pictures:  # fmt: skip
    folders = []
    for folder, most, part in ((train, n, f" of the n={n}"), (test, test_n, f" of the test_n={test_n}")):
        (chosen,) = stratified_split(folder.labels, [min(most, len(folder))], seed=seed)
        folders.append(folder.take(np.sort(chosen)))
        _enough(folders[-1], _LEAST, part)
    named = (*train.skipped, *test.skipped) if skipped is None else skipped
    (x, y), (x_test, y_test) = ((each.read(range(len(each)), size), each.labels) for each in folders)
    return Pictures(x, y, x_test, y_test, train.classes, tuple(f"{a}: {b}" for a, b in named), note)


def _enough(folder: ImageFolder, least: int, part: str = "") -> None:
    for place, name in enumerate(folder.classes):
        count = int(np.sum(folder.labels == place))
        if count < least:
            skipped = f" ({len(folder.skipped)} files were skipped; {folder.skipped[0]})" if folder.skipped else ""
            raise command.BadInput(f"class {name!r} has {count} pictures{part}; at least {least} are needed{skipped}")


def _make(folder: Path, n: int, seed: int) -> None:
    """Write made-up pictures as a folder of two classes."""
    from PIL import Image

    draw: Callable = jax.jit(spherules, static_argnums=(1, 2))
    made = draw(jax.random.fold_in(jax.random.key(seed), 0), n, _MADE_SIZE)
    pixels = np.round(255 * np.asarray(made.x)).astype(np.uint8)
    for number, (picture, label) in enumerate(zip(pixels, np.asarray(made.y), strict=True)):
        place = folder / ("spherules", "grains")[label] / f"{number:05d}.png"
        place.parent.mkdir(exist_ok=True)
        Image.fromarray(picture).save(place, compress_level=1)
