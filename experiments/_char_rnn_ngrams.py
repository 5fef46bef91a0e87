"""What a character model is measured against: n-gram models of several orders, and a compressor."""

from __future__ import annotations

import lzma
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Counts(NamedTuple):
    """How often contexts of some length are followed by what, in a text.

    Attributes:
      pairs: codes of a context and its follower, (p,) ascending.
      pair_counts: how often each occurs, (p,).
      contexts: codes of the contexts, (c,) ascending.
      totals: how often each context has a follower, (c,).
      kinds: different followers of each context, (c,).
    """

    pairs: np.ndarray
    pair_counts: np.ndarray
    contexts: np.ndarray
    totals: np.ndarray
    kinds: np.ndarray


class WittenBell(NamedTuple):
    """An interpolated n-gram model: method C of Witten and Bell (1991), in the form of Chen and Goodman (1998).

    After a context seen N times with T different followers, of which c followed n times,
    ``p(c | context) = (n + T p(c | context without its first)) / (N + T)``; the empty context falls back on all
    ``alphabet`` characters alike, and a context that was never seen on the shorter one.

    Attributes:
      orders: `Counts` for contexts of 0, 1, ... characters.
      size: numbers that characters may have, from 0 on.
      alphabet: different characters that may come.
    """

    orders: tuple[Counts, ...]
    size: int
    alphabet: int


def witten_bell(train: np.ndarray, order: int, size: int, alphabet: int) -> WittenBell:
    """Count a text (t,) of numbers below ``size`` for contexts of up to ``order`` characters.

    Raises:
      ValueError: numbers outside, a text that is too short, or codes of contexts that 64 bits do not hold.
    """
    check_countable(train, order, size)
    train = np.asarray(train, np.int64)
    return WittenBell(tuple(_counts(train, k, size) for k in range(order + 1)), size, alphabet)


def check_countable(train: np.ndarray, order: int, size: int) -> None:
    """Refuse, before anything is computed, what `witten_bell` cannot count; raises ValueError."""
    if len(train) <= order or np.min(train) < 0 or np.max(train) >= size:
        raise ValueError(f"train has {len(train)} numbers; it must have more than order={order}, from 0 to {size - 1}")
    if size ** (order + 1) >= 2**63:
        raise ValueError(f"order={order} is too high for {size} characters: their codes must stay below 2^63")


def _codes(x: np.ndarray, length: int, size: int) -> np.ndarray:
    """A number for every run of ``length`` characters along the last axis, (..., t - length + 1)."""
    t = x.shape[-1] - length + 1
    codes = np.zeros((*x.shape[:-1], t), np.int64)
    for place in range(length):
        codes = codes * size + x[..., place : place + t]
    return codes


def _counts(train: np.ndarray, k: int, size: int) -> Counts:
    pairs, counts = np.unique(_codes(train, k + 1, size), return_counts=True)
    contexts, starts, kinds = np.unique(pairs // size, return_index=True, return_counts=True)
    return Counts(pairs, counts, contexts, np.add.reduceat(counts, starts), kinds)


def _found(keys: np.ndarray, values: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """The value of each key asked for, 0 for those that are not there."""
    place = np.minimum(np.searchsorted(keys, asked), len(keys) - 1)
    return np.where(keys[place] == asked, values[place], 0)


def ngram_bits(model: WittenBell, text: np.ndarray) -> np.ndarray:
    """Bits of each next character of streams (s, t) by the model of every order, (orders, s, t - 1).

    A context never reaches back beyond its stream's first character: near it, a shorter one is used.
    """
    text = np.asarray(text, np.int64)
    chance = np.full(text[:, 1:].shape, 1 / model.alphabet)
    found = []
    for k, counts in enumerate(model.orders):
        if k >= text.shape[1]:  # no stream has so long a context
            found.append(chance)
            continue
        # The first place whose context is whole; what stands before keeps the shorter context's probability.
        first = max(k, 1) - 1
        pairs = _codes(text[:, 1:] if k == 0 else text, k + 1, model.size)
        n, total, kinds = (
            _found(keys, values, asked).astype(float)
            for keys, values, asked in (
                (counts.pairs, counts.pair_counts, pairs),
                (counts.contexts, counts.totals, pairs // model.size),
                (counts.contexts, counts.kinds, pairs // model.size),
            )
        )
        shorter, seen = chance[:, first:], total > 0
        mixed = (n + kinds * shorter) / np.where(seen, total + kinds, 1)
        chance = np.concatenate([chance[:, :first], np.where(seen, mixed, shorter)], axis=1)
        found.append(chance)
    return -np.log2(np.stack(found))


def lzma_bits(train: str, test: str) -> float:
    """Bits a character that LZMA adds for the test text behind the training text."""
    before, after = (_packed(text.encode()) for text in (train, train + test))
    return 8 * (after - before) / len(test)


def _packed(content: bytes) -> int:
    filters: Sequence[dict] = [{"id": lzma.FILTER_LZMA2, "preset": 6}]
    return len(lzma.compress(content, format=lzma.FORMAT_RAW, filters=list(filters)))
