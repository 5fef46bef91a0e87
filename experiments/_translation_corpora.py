"""What is translated: number words by rule, captions from files, and both as arrays of subwords."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import numpy as np

from nnjax.data.pairs import EncodedPairs, Pairs, PairSet, encode_pairs, load_pairs
from nnjax.data.text import PAD, Vocabulary

LARGEST = 999_999
"""The largest number that is put into words."""
_DIGITS = 6

Words = list[tuple[str, str]]
"""A number's words, spaces and hyphens one after another, each with its role: "ones units", "thousands tens" or ""."""

_ENGLISH = (
    "", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "thirteen",
    "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)  # fmt: skip
_ENGLISH_TENS = ("", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_GERMAN = (
    "", "ein", "zwei", "drei", "vier", "fünf", "sechs", "sieben", "acht", "neun", "zehn", "elf", "zwölf", "dreizehn",
    "vierzehn", "fünfzehn", "sechzehn", "siebzehn", "achtzehn", "neunzehn",
)  # fmt: skip
_GERMAN_TENS = ("", "", "zwanzig", "dreißig", "vierzig", "fünfzig", "sechzig", "siebzig", "achtzig", "neunzig")


# Numbers in words


def english_words(number: int) -> Words:
    """The parts of an English number word: "two thousand thirty-one".

    Raises:
      ValueError: a number that is not from 1 to `LARGEST`.
    """
    thousands, ones = _halves_of(number)
    found: Words = []
    if thousands:
        found += [*_english_hundreds(thousands, "thousands"), ("", " thousand")]
    if thousands and ones:
        found.append(("", " "))
    return found + _english_hundreds(ones, "ones")


def german_words(number: int) -> Words:
    """The parts of a German number word, units before tens and all as one word: "zweitausendeinunddreißig".

    Raises:
      ValueError: a number that is not from 1 to `LARGEST`.
    """
    thousands, ones = _halves_of(number)
    found: Words = []
    if thousands:
        found += [*_german_hundreds(thousands, "thousands"), ("", "tausend")]
    found += _german_hundreds(ones, "ones")
    if ones % 100 == 1:
        found.append(("", "s"))
    return found


def english(number: int) -> str:
    """The number in English words."""
    return "".join(word for _, word in english_words(number))


def german(number: int) -> str:
    """The number in German, one word."""
    return "".join(word for _, word in german_words(number))


def turned(number: int) -> tuple[str, ...]:
    """Which of "thousands" and "ones" have their units before their tens in German, and behind them in English."""
    groups = dict(zip(("thousands", "ones"), _halves_of(number), strict=True))
    return tuple(name for name, group in groups.items() if group % 100 > 20 and group % 10)


def _halves_of(number: int) -> tuple[int, int]:
    if not 1 <= number <= LARGEST:
        raise ValueError(f"number={number} must be from 1 to {LARGEST}")
    return divmod(int(number), 1000)


def _english_hundreds(number: int, group: str) -> Words:
    hundreds, rest = divmod(number, 100)
    found: Words = [(f"{group} hundreds", _ENGLISH[hundreds]), ("", " hundred")] if hundreds else []
    if hundreds and rest:
        found.append(("", " "))
    if rest < 20:
        return found + ([(f"{group} units", _ENGLISH[rest])] if rest else [])
    tens, units = divmod(rest, 10)
    found.append((f"{group} tens", _ENGLISH_TENS[tens]))
    return found + ([("", "-"), (f"{group} units", _ENGLISH[units])] if units else [])


def _german_hundreds(number: int, group: str) -> Words:
    hundreds, rest = divmod(number, 100)
    found: Words = [(f"{group} hundreds", _GERMAN[hundreds]), ("", "hundert")] if hundreds else []
    if rest < 20:
        return found + ([(f"{group} units", _GERMAN[rest])] if rest else [])
    tens, units = divmod(rest, 10)
    if units:
        found += [(f"{group} units", _GERMAN[units]), ("", "und")]
    return [*found, (f"{group} tens", _GERMAN_TENS[tens])]


def draw_numbers(n: int, seed: int) -> np.ndarray:
    """n different numbers in random order: every count of digits as often as the others, or all that there are.

    Raises:
      ValueError: more numbers than there are.
    """
    if n > LARGEST:
        raise ValueError(f"{n} numbers are more than the {LARGEST} there are")
    random = np.random.default_rng([seed, 0])
    found: list[np.ndarray] = []
    left = n
    for digits in range(1, _DIGITS + 1):  # where there are too few short ones, longer ones take their share
        low, high = 10 ** (digits - 1), 10**digits
        count = min(high - low, -(-left // (_DIGITS + 1 - digits)))
        found.append(low + random.choice(high - low, count, replace=False))
        left -= count
    return random.permutation(np.concatenate(found))


# A corpus


class Corpus(NamedTuple):
    """Sentences and their translations.

    Attributes:
      pairs: its parts.
      numbers: what the test sentences are in figures, (n,); None where they are no numbers.
    """

    pairs: PairSet
    numbers: np.ndarray | None


def read_corpus(name: str, pairs: int, held_out: int, seed: int) -> Corpus:
    """The corpus of a name, with so many training pairs and held-out ones (of each part) at most.

    Raises:
      ValueError: more numbers than there are.
      nnjax.data.DataError: a file is missing and cannot be downloaded.
    """
    if name == "numbers":
        drawn = draw_numbers(pairs + 2 * held_out, seed)
        ends = (pairs, pairs + held_out)
        parts = [Pairs(tuple(map(english, part)), tuple(map(german, part))) for part in np.split(drawn, ends)]
        return Corpus(PairSet(name, *parts), drawn[ends[1] :])
    whole = load_pairs("multi30k_en_de")
    parts = [
        Pairs(part.source[:most], part.target[:most])
        for part, most in zip(whole[1:], (pairs, held_out, held_out), strict=True)
    ]
    return Corpus(PairSet(name, *parts), None)


class Material(NamedTuple):
    """A corpus as arrays.

    Attributes:
      corpus: the sentences.
      source, target: vocabularies of subwords, learned from the training pairs.
      train, validation, test: (n, 2 w), the source in the first half of the columns, the target in the second; w is the
        part's own longest sentence, its end included.
      left_out: training pairs that are longer than asked for.
      steps: tokens that are written at most: those of the longest target in training and validation.
    """

    corpus: Corpus
    source: Vocabulary
    target: Vocabulary
    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    left_out: int
    steps: int


def material(corpus: Corpus, merges: int, longest: int) -> Material:
    """A corpus as arrays; training pairs with more than ``longest`` subwords on a side are left out.

    Raises:
      ValueError: no training pair is left.
    """
    pairs = corpus.pairs
    source, target = (Vocabulary.subwords(side, merges=merges) for side in pairs.train)
    every = encode_pairs(pairs.train, source, target)
    train = encode_pairs(pairs.train, source, target, longest=longest)
    validation, test = (encode_pairs(part, source, target) for part in (pairs.validation, pairs.test))
    return Material(
        corpus, source, target, side_by_side(train), side_by_side(validation), side_by_side(test),
        left_out=len(every.places) - len(train.places),
        steps=max(every.target.shape[1], validation.target.shape[1]),
    )  # fmt: skip


def side_by_side(pairs: EncodedPairs) -> np.ndarray:
    """Source and target in halves of equally many columns, (n, 2 w)."""
    width = max(pairs.source.shape[1], pairs.target.shape[1])
    filled = [
        np.pad(side, ((0, 0), (0, width - side.shape[1])), constant_values=PAD) for side in (pairs.source, pairs.target)
    ]
    return np.concatenate(filled, axis=1)


def words_of(text: str) -> int:
    """Words of a text: runs of letters and figures."""
    return len(re.findall(r"\w+", text))


def source_of(x: Any) -> Any:
    """The first half of the columns of an array (n, 2 w)."""
    return x[:, : x.shape[1] // 2]


def target_of(x: Any) -> Any:
    """The second half of the columns of an array (n, 2 w)."""
    return x[:, x.shape[1] // 2 :]
