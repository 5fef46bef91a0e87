"""Texts of the character models: one from a source whose entropy is known, and the parts that a text is cut into."""

from __future__ import annotations

import bisect
import string
from typing import NamedTuple

import numpy as np

from nnjax.data.text import Vocabulary, next_token_batches, streams

SHARES = (0.9, 0.05, 0.05)
"""Of a text in its own order: training, validation, test."""
STREAM = 1000
"""Characters, about, of each of the streams that validation and test text are cut into."""
MIXING = 0.3
"""Concentration of the Dirichlet distribution that a source's rows are drawn from: a few letters are likely."""
FLOOR = 0.05
"""Share of letters that are any, all alike: none is so rare that a net's small error about it would cost much."""
_BURN_IN = 200


# A source that is known


def draw_source(letters: int, seed: int) -> np.ndarray:
    """A second-order Markov source: P(c | a, b) as (letters, letters, letters), all positive."""
    drawn = np.random.default_rng([seed, 0]).dirichlet(np.full(letters, MIXING), (letters, letters))
    return (1 - FLOOR) * drawn + FLOOR / letters


def stationary(source: np.ndarray) -> np.ndarray:
    """Probability of every pair of letters in a row, (k, k): the one that a step of the source leaves as it is.

    Args:
      source: P(c | a, b), (k, k, k), all positive.
    """
    k = len(source)
    pairs = np.zeros((k, k, k, k))
    for b in range(k):
        pairs[:, b, b, :] = source[:, b, :]
    matrix = pairs.reshape(k * k, k * k).T - np.eye(k * k)
    # One equation follows from the others; that the probabilities sum to 1 takes its place.
    matrix[-1] = 1
    return np.linalg.solve(matrix, np.eye(k * k)[-1]).reshape(k, k)


def entropies(source: np.ndarray) -> np.ndarray:
    """Entropy of a letter after none, one and two others, bits, (3,); the last is the source's entropy rate."""
    pairs = stationary(source)
    triples = pairs[:, :, None] * source
    blocks = [_bits(pairs.sum(0)), _bits(pairs), _bits(triples)]
    return np.diff(blocks, prepend=0.0)


def _bits(p: np.ndarray) -> float:
    """Entropy of a distribution, bits."""
    some = p[p > 0]
    return float(-np.sum(some * np.log2(some)))


def draw_text(source: np.ndarray, n: int, random: np.random.Generator) -> np.ndarray:
    """n letters of the source's stationary text, (n,) from 0 on."""
    rows = [[row.tolist() for row in block] for block in np.cumsum(source, axis=2)]
    a = b = 0
    found = np.empty(n + _BURN_IN, np.int32)
    last = len(source) - 1
    for place, u in enumerate(random.random(n + _BURN_IN).tolist()):
        # Rounding may leave a row's sum below u.
        a, b = b, min(bisect.bisect_right(rows[a][b], u), last)
        found[place] = b
    return found[_BURN_IN:]


def source_bits(source: np.ndarray, letters: np.ndarray) -> np.ndarray:
    """Bits of each next letter of streams (s, t) for who knows the source and 0, 1 or 2 letters, (3, s, t - 1).

    The first of each stream is coded after one letter at most: nobody has seen more of it.
    """
    pairs = stationary(source)
    one, two = pairs.sum(0)[letters[:, 1:]], (pairs / pairs.sum(1, keepdims=True))[letters[:, :-1], letters[:, 1:]]
    three = source[letters[:, :-2], letters[:, 1:-1], letters[:, 2:]]
    return -np.log2(np.stack([one, two, np.concatenate([two[:, :1], three], axis=1)]))


def letters_of(k: int) -> str:
    """The first k small letters."""
    return string.ascii_lowercase[:k]


# Parts of a text


class Parts(NamedTuple):
    """Token numbers of a text.

    Attributes:
      x, y: training pieces in an order that lets states go on, (pieces * streams, steps), and the tokens after each.
      train: the whole training text, (t,).
      validation, test: streams, (s, t).
    """

    x: np.ndarray
    y: np.ndarray
    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


def split_text(text: str) -> tuple[str, str, str]:
    """Training, validation and test text, one after another."""
    ends = np.floor(np.cumsum(SHARES) * len(text) + 1e-6).astype(int)
    return text[: ends[0]], text[ends[0] : ends[1]], text[ends[1] :]


def parts_of(text: str, vocabulary: Vocabulary, batch: int, steps: int) -> Parts:
    """A text's parts as numbers; characters that its training part lacks are those unknown to the vocabulary.

    Raises:
      ValueError: the text is too short for a training piece, or for three characters of validation or test.
    """
    train, validation, test = (vocabulary.encode(part, unknown="mark") for part in split_text(text))
    if min(len(validation), len(test)) < 3:
        raise ValueError(f"a text of {len(text)} characters is too short: its test text needs at least 3")
    pieces = next_token_batches(train, batch, steps)
    x, y = (part.reshape(-1, steps) for part in pieces)
    held = [streams(part, max(1, round(len(part) / STREAM))) for part in (validation, test)]
    return Parts(x, y, train, *held)
