"""Pairs of sentences, one the other's translation: real ones, one's own files, and padded arrays of few shapes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from nnjax.data import cache as _cache
from nnjax.data import formats
from nnjax.data.cache import DataError, SourceFile
from nnjax.data.files import read_file
from nnjax.data.text import PAD, Vocabulary
from nnjax.naming import choose

__all__ = ["EncodedPairs", "PairSet", "Pairs", "buckets", "encode_pairs", "load_pairs", "pair_names", "read_pairs"]

CacheFolder = str | os.PathLike[str] | None

_GZIP = b"\x1f\x8b"
_TEXT_BYTES = 1 << 28


class Pairs(NamedTuple):
    """Sentences and, at the same places, their translations."""

    source: tuple[str, ...]
    target: tuple[str, ...]


class PairSet(NamedTuple):
    """A data set of sentence pairs in memory.

    Attributes:
        name: as given to `load_pairs`.
        train, validation, test: its official parts.
    """

    name: str
    train: Pairs
    validation: Pairs
    test: Pairs


class EncodedPairs(NamedTuple):
    """Sentence pairs as token numbers, filled up with 0.

    Attributes:
        source: (n, s) int32, each sentence with its end.
        target: (n, t) int32, each with its end: what a decoder such as `nnjax.models.EncoderDecoder` foretells. It is
            given the same array, and puts the start, 1, before it itself.
        places: (n,) int64, where among all the pairs each was.
    """

    source: np.ndarray
    target: np.ndarray
    places: np.ndarray


def pair_names() -> tuple[str, ...]:
    """Every name `load_pairs` knows."""
    return tuple(_PAIRS)


def load_pairs(name: str, *, cache: CacheFolder = None) -> PairSet:
    """Load sentence pairs; files that are not in the cache folder are downloaded first.

    | name | train, validation, test | source |
    |---|---|---|
    | multi30k_en_de | 29000, 1014, 1000 | captions of photographs, English to German, Elliott et al. (2016) |

    Args:
        name: one of `pair_names()`.
        cache: folder of the data files, as for `nnjax.data.load`; it holds `multi30k_en_de/`.

    Raises:
        ValueError: unknown name.
        DataError: a file is missing and cannot be downloaded, or is not the file it should be.
    """
    parts = []
    for source, target in choose("pairs", name, _PAIRS):
        texts = [_cache.read(file, cache=cache) for file in (source, target)]
        parts.append(_pairs(texts, (str(source), str(target))))
    return PairSet(name, *parts)


def read_pairs(source: str | os.PathLike[str], target: str | os.PathLike[str]) -> Pairs:
    """Sentence pairs from two files in UTF-8, plain or gzip, with one sentence a line.

    Raises:
        DataError: a file is missing, no such text, empty or has an empty line, or the two have other numbers of lines.
    """
    files = (Path(source), Path(target))
    contents = []
    for file in files:
        try:
            contents.append(read_file(file))
        except DataError as error:
            raise DataError(f"file {str(file)!r} {error}") from None
    return _pairs(contents, (f"file {str(files[0])!r}", f"file {str(files[1])!r}"))


def encode_pairs(
    pairs: Pairs,
    source: Vocabulary,
    target: Vocabulary,
    *,
    longest: int | None = None,
    unknown: str = "mark",
) -> EncodedPairs:
    """Sentence pairs as padded arrays of token numbers.

    Args:
        pairs: n sentences and their translations.
        source, target: a vocabulary for each side; may be the same. Both are made from the training part alone, and
            encode all parts.
        longest: leave out pairs with more tokens on either side, the end not counted; None keeps all.
        unknown: "mark" a token that its vocabulary does not hold with number 3, as other parts than that for training
            need, or "raise", as `Vocabulary.encode` does if not told otherwise.

    Raises:
        ValueError: no pairs, sides of different lengths, a sentence without tokens, or nothing left.
    """
    if len(pairs.source) != len(pairs.target) or not pairs.source:
        raise ValueError(
            f"{len(pairs.source)} source and {len(pairs.target)} target sentences must be as many, and some"
        )
    sources = [source.encode(text, end=True, unknown=unknown) for text in pairs.source]
    targets = [target.encode(text, end=True, unknown=unknown) for text in pairs.target]
    for side, texts in (("source", sources), ("target", targets)):
        if empty := [place for place, ids in enumerate(texts) if len(ids) < 2]:
            raise ValueError(f"{side} sentence {empty[0]} is empty; leave out the pair")
    lengths = np.array([(len(one) - 1, len(other) - 1) for one, other in zip(sources, targets, strict=True)])
    places = np.flatnonzero(lengths.max(axis=1) <= (lengths.max() if longest is None else longest))
    if not len(places):
        raise ValueError(f"longest={longest} leaves no pair; the shortest has {lengths.max(axis=1).min()} tokens")
    return EncodedPairs(_padded(sources, places), _padded(targets, places), places)


def buckets(pairs: EncodedPairs, count: int) -> list[EncodedPairs]:
    """The pairs by length in at most ``count`` groups, each cut to its own longest: few shapes, little padding.

    A pair is as long as its longer side, and the groups are those that need the least padding up to that length. Inside
    a group the order is kept.

    Args:
        pairs: from `encode_pairs`.
        count: how many shapes there may be.

    Returns:
        The groups, the shortest sentences first; fewer than ``count`` where there are not as many lengths.

    Raises:
        ValueError: a count below 1.
    """
    if count < 1:
        raise ValueError(f"count={count} must be at least 1")
    lengths = np.maximum(_lengths(pairs.source), _lengths(pairs.target))
    bounds = _least_padding(lengths, count)
    group = np.searchsorted(bounds, lengths)
    return [_cut(pairs, np.flatnonzero(group == which)) for which in range(len(bounds))]


def _least_padding(lengths: np.ndarray, count: int) -> np.ndarray:
    """The longest length of each group, ascending, by dynamic programming over the different lengths."""
    longest, numbers = np.unique(lengths, return_counts=True)
    before = np.append(0, numbers.cumsum())
    # cost[j, i]: the j-th to the i-th length in one group, all as long as the i-th.
    cost = np.triu((before[None, 1:] - before[:-1, None]) * longest[None, :]).astype(float)
    cost[np.tril_indices(len(longest), -1)] = np.inf
    best, cuts = cost[0], []
    for _ in range(min(count, len(longest)) - 1):
        ways = best[:-1, None] + cost[1:]
        cuts.append(ways.argmin(axis=0))
        best = ways.min(axis=0)
    ends = [len(longest) - 1]
    for cut in reversed(cuts):
        ends.append(cut[ends[-1]])
    return longest[ends[::-1]]


def _lengths(ids: np.ndarray) -> np.ndarray:
    return (ids != PAD).sum(axis=1)


def _cut(pairs: EncodedPairs, rows: np.ndarray) -> EncodedPairs:
    source, target = (side[rows][:, : _lengths(side[rows]).max()] for side in (pairs.source, pairs.target))
    return EncodedPairs(source, target, pairs.places[rows])


def _padded(sentences: Sequence[np.ndarray], places: np.ndarray) -> np.ndarray:
    """The sentences at these places as rows of one array."""
    ids = np.full((len(places), max(len(sentences[place]) for place in places)), PAD, np.int32)
    for row, place in enumerate(places):
        ids[row, : len(sentences[place])] = sentences[place]
    return ids


# Files


def _pairs(contents: Sequence[bytes], files: tuple[str, str]) -> Pairs:
    source, target = (_lines(content, what) for content, what in zip(contents, files, strict=True))
    if len(source) != len(target):
        raise DataError(
            f"{files[0]} has {len(source):,} lines and {files[1]} has {len(target):,}; they must have as many"
        )
    return Pairs(source, target)


def _lines(content: bytes, what: str) -> tuple[str, ...]:
    """The sentences of a file, one a line."""
    plain = formats.gunzip(content, _TEXT_BYTES, what) if content.startswith(_GZIP) else content
    try:
        text = plain.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{what} is no text in UTF-8 (byte {error.start:,})") from None
    # Other signs that may end a line, which splitlines knows, occur inside sentences.
    lines = tuple(line.strip() for line in text.removesuffix("\n").split("\n"))
    if "" in lines:
        nothing = len(lines) == 1
        raise DataError(f"{what} is empty" if nothing else f"{what} has no sentence in line {lines.index('') + 1:,}")
    return lines


_MULTI30K_URL = "https://raw.githubusercontent.com/multi30k/dataset/master/data/task1/raw/"


def _multi30k(file: str, size: int, sha256: str) -> SourceFile:
    return SourceFile("multi30k_en_de", f"multi30k_en_de/{file}", size, sha256, _MULTI30K_URL + file)


_PAIRS = {
    "multi30k_en_de": (
        (
            _multi30k("train.en.gz", 568_929, "d79cfa999dd4c51d2cb42499b6796d5a882c3a8a961923c25a898c90f8bbd56f"),
            _multi30k("train.de.gz", 637_044, "726e39b2fa9eb9ffb6dc763fb35a179f80fae06ffc5d28b6ace5faa883de28a6"),
        ),
        (
            _multi30k("val.en.gz", 21_650, "14f7d25ddd868909a9213e361768460edcacdd6ab9d1e77b92560dc10c10dc28"),
            _multi30k("val.de.gz", 24_681, "f0cba2f995189cf5770f29a8a9a537a3ad3f51657ad873405082ff6863a5e75a"),
        ),
        (
            _multi30k(
                "test_2016_flickr.en.gz", 21_077, "611d361c6334bc7246101d48097c13cf5c4413c5befc793cc629934359d532d9"
            ),
            _multi30k(
                "test_2016_flickr.de.gz", 22_890, "9204244e408ccb38d2a55cfcd344df15005fc42a07a6e55ca6c52b6ababb8cc8"
            ),
        ),
    ),
}
