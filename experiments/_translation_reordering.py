"""Where a translator looks while it writes a number: German has the units before the tens, English behind them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from experiments._translation_corpora import Words, german, german_words, turned


def spans(parts: Sequence[str]) -> np.ndarray:
    """Where each of some strings begins and ends in all of them put together, (m, 2)."""
    ends = np.cumsum([len(part) for part in parts], dtype=int)
    return np.stack([ends - [len(part) for part in parts], ends], axis=1)


def place_looked_at(weights: np.ndarray, tokens: Sequence[str], span: np.ndarray) -> int:
    """The source place that is most looked at while the characters of a span are written.

    Args:
      weights: (t, s), t at least the number of tokens.
      tokens: of the target, which put together are the text that the span is of.
      span: where it begins and ends.
    """
    own = spans(tokens)
    shared = np.clip(np.minimum(own[:, 1], span[1]) - np.maximum(own[:, 0], span[0]), 0, None)
    return int(np.argmax(shared @ weights[: len(tokens)]))


def backwards(number: int, weights: np.ndarray, tokens: Sequence[str]) -> list[bool]:
    """For each group of three digits with units before tens: are the units looked at further back in the source?

    Args:
      number: what is written, in figures.
      weights: attention (t, s).
      tokens: the right target's.
    """
    words = german_words(number)
    return [
        place_looked_at(weights, tokens, _span(words, f"{group} units"))
        > place_looked_at(weights, tokens, _span(words, f"{group} tens"))
        for group in turned(number)
    ]


def _span(words: Words, role: str) -> np.ndarray:
    return spans([word for _, word in words])[[each for each, _ in words].index(role)]


def share_backwards(
    numbers: np.ndarray, written: np.ndarray, tokens: Sequence[Sequence[str]], weights: np.ndarray
) -> float:
    """Of all such groups of the numbers that were written right the share with units looked at further back; or NaN.

    Args:
      numbers: (n,).
      written: translations, (n,).
      tokens: of each translation.
      weights: attention (n, t, s).
    """
    found: list[bool] = []
    for number, text, own, seen in zip(numbers, written, tokens, weights, strict=True):
        if text == german(number):
            found += backwards(number, seen, own)
    return float(np.mean(found)) if found else float("nan")
