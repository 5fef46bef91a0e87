"""Byte-pair encoding of text: frequent neighbors become one symbol, again and again (Sennrich et al., 2016).

A text is first cut into pieces, each a word or a run of signs with the space before it, so that the space takes the
part of Sennrich's mark of a word's end, and all pieces, and so all symbols, put together are the text again.
"""

from __future__ import annotations

import heapq
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from itertools import pairwise

Pair = tuple[str, str]

# Of several blanks the last one goes with the word; every character is in some piece.
_PIECES = re.compile(r" ?\w+| ?[^\w\s]+|\s+(?!\S)|\s+")

_LEAST_COUNT = 2


def pieces(text: str) -> list[str]:
    """Words and runs of other signs, each with the one space before it, and blanks; joined they are the text."""
    return _PIECES.findall(text)


def learn_merges(counts: Mapping[str, int], merges: int) -> tuple[Pair, ...]:
    """The pairs of neighboring symbols to be merged, in the order in which they were the most frequent.

    Of equally frequent pairs the first in the order of code points is taken, so equal counts give equal merges. Only
    the words that hold a merged pair are counted anew, and a heap gives the next pair.

    Args:
        counts: how often each piece occurs; no pair crosses from one to another.
        merges: how many at most; fewer where no pair is left that occurs twice.

    Returns:
        Pairs, the first merged first.
    """
    learner = _Learner(counts)
    learned: list[Pair] = []
    while len(learned) < merges and (pair := learner.next()) is not None:
        learned.append(pair)
        learner.merge(pair)
    return tuple(learned)


def split_piece(piece: str, ranks: Mapping[Pair, int]) -> list[str]:
    """The symbols of a piece: of its neighbors those merged earliest in learning are merged first.

    Args:
        piece: a word, as `pieces` gives it.
        ranks: place of each pair among the merges.
    """
    symbols = list(piece)
    while len(symbols) > 1:
        pair = min(pairwise(symbols), key=lambda one: ranks.get(one, len(ranks)))
        if pair not in ranks:
            break
        symbols = _merged(symbols, pair)
    return symbols


def count_pieces(texts: Iterable[str]) -> Counter[str]:
    """How often each piece occurs in all the texts."""
    return Counter(piece for text in texts for piece in pieces(text))


class _Learner:
    """How often each pair occurs and in which words, kept true while pairs are merged."""

    def __init__(self, counts: Mapping[str, int]):
        self._words = [list(word) for word in counts]
        self._weights = list(counts.values())
        self._counts: Counter[Pair] = Counter()
        self._places: defaultdict[Pair, set[int]] = defaultdict(set)
        for place, word in enumerate(self._words):
            for pair in pairwise(word):
                self._counts[pair] += self._weights[place]
                self._places[pair].add(place)
        self._heap = [(-count, pair) for pair, count in self._counts.items()]
        heapq.heapify(self._heap)

    def next(self) -> Pair | None:
        """The most frequent pair, or None where none occurs twice."""
        while self._heap:
            negative, pair = heapq.heappop(self._heap)
            # Older entries of a pair stay in the heap with a count that is no longer true.
            if -negative == self._counts[pair]:
                return pair if -negative >= _LEAST_COUNT else None
        return None

    def merge(self, pair: Pair) -> None:
        """Make one symbol of the pair in every word that has it."""
        changes: defaultdict[Pair, int] = defaultdict(int)
        for place in self._places.pop(pair):
            self._merge_in(place, pair, changes)
        for one, change in changes.items():
            self._counts[one] += change
            heapq.heappush(self._heap, (-self._counts[one], one))

    def _merge_in(self, place: int, pair: Pair, changes: defaultdict[Pair, int]) -> None:
        """Merge in one word; what else changes its count stands beside what was merged."""
        word, weight = self._words[place], self._weights[place]
        left, right = pair
        both = left + right
        i = 0
        while i < len(word) - 1:
            if word[i] == left and word[i + 1] == right:
                word[i : i + 2] = [both]
                changes[pair] -= weight
                if i > 0:
                    changes[word[i - 1], left] -= weight
                    changes[word[i - 1], both] += weight
                    self._places[word[i - 1], both].add(place)
                if i + 1 < len(word):
                    changes[right, word[i + 1]] -= weight
                    changes[both, word[i + 1]] += weight
                    self._places[both, word[i + 1]].add(place)
            i += 1


def _merged(symbols: list[str], pair: Pair) -> list[str]:
    """The symbols with every occurrence of the pair, from the left, made one."""
    left, right = pair
    merged: list[str] = []
    place = 0
    while place < len(symbols):
        if symbols[place] == left and place + 1 < len(symbols) and symbols[place + 1] == right:
            merged.append(left + right)
            place += 2
        else:
            merged.append(symbols[place])
            place += 1
    return merged
