"""Strips of digits: pictures side by side, read column by column, with the names and the numbers that they show."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nnjax.data.loaders import Dataset
from nnjax.data.splits import Split, stratified_split, take
from nnjax.data.text import PAD, Vocabulary
from nnjax.types import Array, Key

SIDE = 8
"""Columns of a digit, and pixels of a column."""
MOST = 4
"""Digits of a number, at most."""
NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_TEENS = (
    "ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)  # fmt: skip
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_SCALES = ((3, "thousand"), (2, "hundred"))

LETTERS = Vocabulary.characters(NAMES)
"""Of the digits' names."""
WORDS = Vocabulary.words([*NAMES, *_TEENS, *_TENS, *(name for _, name in _SCALES)])
"""Of the numbers' names."""


class Part(NamedTuple):
    """The pictures of one part of the data, sorted by class.

    Attributes:
      columns: (n, 8, 8) float32 in [0, 1]: picture, column from the left, pixel from the top.
      y: their digits, (n,), ascending.
      starts: place of each digit's first picture, (10,).
      counts: pictures of each digit, (10,).
    """

    columns: Array
    y: Array
    starts: Array
    counts: Array


def part_of(split: Split) -> Part:
    """Pictures (n, 8, 8, 1) and their digits as a `Part`."""
    order = np.argsort(split.y, kind="stable")
    y = np.asarray(split.y)[order].astype(np.int32)
    counts = np.bincount(y, minlength=len(NAMES))
    columns = np.asarray(split.x)[order, :, :, 0].swapaxes(1, 2)
    return Part(columns, y, (np.cumsum(counts) - counts).astype(np.int32), counts.astype(np.int32))


def parts_of(digits: Dataset, validation_n: int) -> dict[str, Part]:
    """Training, validation and test part; no picture is in two of them.

    Raises:
      ValueError: more validation pictures than leave one of every digit for training, or too few for one of each.
    """
    n = len(digits.train.y)
    if not len(NAMES) <= validation_n <= n - len(NAMES):
        raise ValueError(f"validation_n={validation_n} must lie between {len(NAMES)} and {n - len(NAMES)}")
    train, validation = stratified_split(digits.train.y, (n - validation_n, validation_n), seed=0)
    return {
        "train": part_of(take(digits.train, train)), "validation": part_of(take(digits.train, validation)),
        "test": part_of(digits.test),
    }  # fmt: skip


# Words


def number_words(number: int) -> list[tuple[str, tuple[int, ...]]]:
    """The words of a number below 10,000, each with the places, from the left, of the digits that it tells of."""
    k = len(str(number))
    if number == 0:
        return [("zero", (0,))]
    found: list[tuple[str, tuple[int, ...]]] = []
    for power, scale in _SCALES:
        if digit := number // 10**power % 10:
            place = (k - 1 - power,)
            found += [(NAMES[digit], place), (scale, place)]
    tens, units = divmod(number % 100, 10)
    if tens == 1:
        return [*found, (_TEENS[units], (k - 2, k - 1))]
    if tens:
        found.append((_TENS[tens - 2], (k - 2,)))
    if units:
        found.append((NAMES[units], (k - 1,)))
    return found


class Numbers(NamedTuple):
    """The names of all numbers with so many digits, at most.

    Attributes:
      tokens: of `WORDS`, ended and padded, (numbers, steps) int32.
      tells: whether a word tells of a digit, from the left, (numbers, steps, digits); nothing after the last word.
    """

    tokens: Array
    tells: Array


def numbers(digits: int) -> Numbers:
    """The names of 0 to 10^digits - 1."""
    words = [number_words(number) for number in range(10**digits)]
    tokens = padded([WORDS.encode(" ".join(word for word, _ in each), end=True) for each in words])
    tells = np.zeros((*tokens.shape, digits), bool)
    for number, each in enumerate(words):
        for step, (_, places) in enumerate(each):
            tells[number, step, list(places)] = True
    return Numbers(tokens, tells)


def captions() -> np.ndarray:
    """The names of the digits as tokens of `LETTERS`, ended and padded, (10, 6) int32."""
    return padded([LETTERS.encode(name, end=True) for name in NAMES])


def padded(rows: Sequence[np.ndarray]) -> np.ndarray:
    """Rows of tokens side by side, filled up with 0."""
    longest = max(map(len, rows))
    return np.stack([np.pad(row, (0, longest - len(row)), constant_values=PAD) for row in rows]).astype(np.int32)


# What a seed draws


def drawn(key: Key, part: Part, digits: Array) -> Array:
    """A picture for every digit, side by side: digits (n, k) -> columns (n, 8 k, 8)."""
    chance = jax.random.uniform(key, digits.shape)
    counts = jnp.asarray(part.counts)[digits]
    place = jnp.minimum((chance * counts).astype(jnp.int32), counts - 1) + jnp.asarray(part.starts)[digits]
    return jnp.asarray(part.columns)[place].reshape(len(digits), -1, SIDE)


def tagged_strips(key: Key, part: Part, n: int, digits: int) -> Split:
    """Strips of so many random digits, (n, 8 digits, 8), each column tagged with its digit plus 1, (n, 8 digits)."""
    digit_key, picture_key = jax.random.split(key)
    shown = jax.random.randint(digit_key, (n, digits), 0, len(NAMES))
    return Split(drawn(picture_key, part, shown), jnp.repeat(shown + 1, SIDE, axis=1))


class NumberStrips(NamedTuple):
    """Strips that show numbers without leading zeros.

    Attributes:
      columns: (n, 8 digits, 9): 8 pixels and a 1; zeros beyond a strip's end.
      number: (n,).
    """

    columns: Array
    number: Array


def number_strips(key: Key, part: Part, lengths: Array, digits: int) -> NumberStrips:
    """Strips with random numbers of so many digits, lengths (n,) from 1 to ``digits``, all numbers alike."""
    number_key, picture_key = jax.random.split(key)
    powers = jnp.asarray([10**power for power in range(digits + 1)])
    lengths = jnp.asarray(lengths)
    least = jnp.where(lengths == 1, 0, powers[lengths - 1])
    number = jax.random.randint(number_key, lengths.shape, least, powers[lengths])
    place = lengths[:, None] - 1 - jnp.arange(digits)[None, :]  # of each digit, from the right
    shown = number[:, None] // powers[jnp.maximum(place, 0)] % 10
    there = jnp.repeat(place >= 0, SIDE, axis=1)[:, :, None]
    columns = jnp.concatenate([drawn(picture_key, part, shown), jnp.ones((*there.shape[:2], 1))], axis=2)
    return NumberStrips(jnp.where(there, columns, 0), number)


def shuffled(key: Key, x: Array, there: Array | None = None) -> Array:
    """Each example's steps in an order of its own: x (n, t, ...), of which those that are not ``there`` (n, t) stay."""
    rank = jax.random.uniform(key, x.shape[:2])
    if there is not None:
        rank = jnp.where(there, rank, 1 + jnp.arange(x.shape[1])[None, :])
    order = jnp.argsort(rank, axis=1).reshape(*x.shape[:2], *[1] * (x.ndim - 2))
    return jnp.take_along_axis(x, order, axis=1)
