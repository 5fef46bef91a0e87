"""What translators are measured against: the most similar training pair, and each subword's likeliest."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nnjax.data.text import END, PAD

NEAREST, WORDS = BASELINES = ("nearest pair", "subword by subword")
_CHUNK = 200


def trimmed(ids: np.ndarray) -> list[np.ndarray]:
    """Rows (n, t) without padding and without their end."""
    return [row[(row != PAD) & (row != END)] for row in ids]


def nearest(train: np.ndarray, asked: np.ndarray, size: int) -> np.ndarray:
    """For each of the sources asked the most similar one of training, (m,) places.

    Similar is what shares tokens that are rare: the cosine of their counts, each weighted by the logarithm of how few
    training sources hold it (Spärck Jones, 1972).

    Args:
      train: tokens (n, s).
      asked: tokens (m, t).
      size: of the vocabulary.
    """
    known, new = (_counted(trimmed(ids), size) for ids in (train, asked))
    rare = np.log((1 + len(train)) / (1 + np.bincount(known.indices, minlength=size)))
    known, new = (_unit(counts.multiply(rare[None, :]).tocsr()) for counts in (known, new))
    places = [
        np.asarray((new[start : start + _CHUNK] @ known.T).todense()).argmax(1)
        for start in range(0, len(asked), _CHUNK)
    ]
    return np.concatenate(places)


def _counted(rows: Sequence[np.ndarray], size: int):
    from scipy.sparse import csr_matrix

    lengths = [len(row) for row in rows]
    where = np.repeat(np.arange(len(rows)), lengths)
    counts = csr_matrix((np.ones(len(where)), (where, np.concatenate(rows))), shape=(len(rows), size))
    counts.sum_duplicates()
    return counts


def _unit(rows):
    norm = np.sqrt(np.asarray(rows.multiply(rows).sum(1)))
    return rows.multiply(1 / np.where(norm > 0, norm, 1)).tocsr()


def lexicon(sources: Sequence[np.ndarray], targets: Sequence[np.ndarray], size: int, rounds: int) -> np.ndarray:
    """The likeliest target token of each source token, (size,), by IBM model 1 (Brown et al., 1993); 0 for none.

    A target token comes from any token of its source, or from none (here token 0), all places alike; whence, is found
    by expectation maximization from the same chance for all.

    Args:
      sources, targets: tokens of each sentence, without ends and padding.
      size: of the source's vocabulary.
      rounds: of expectation and maximization.
    """
    s, t, place = _together(sources, targets)
    codes, pair = np.unique(s * (t.max() + 1) + t, return_inverse=True)
    source, target = np.divmod(codes, t.max() + 1)
    chance = np.ones(len(codes))
    for _ in range(rounds):
        share = chance[pair]
        share /= np.bincount(place, share)[place]
        count = np.bincount(pair, share)
        chance = count / np.bincount(source, count, minlength=size)[source]
    best = np.full(size, PAD)
    order = np.lexsort((-target, chance))  # the last of a source's is its likeliest
    best[source[order]] = target[order]
    best[PAD] = PAD
    return best


def _together(sources: Sequence[np.ndarray], targets: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
    """Every source token (and 0) with every target token of the same sentence, and the number of the latter, (m,)."""
    s, t, places, first = [], [], [], 0
    for source, target in zip(sources, targets, strict=True):
        own = np.append(PAD, source)
        s.append(np.tile(own, len(target)))
        t.append(np.repeat(target, len(own)))
        places.append(np.repeat(first + np.arange(len(target)), len(own)))
        first += len(target)
    return tuple(np.concatenate(each).astype(np.int64) for each in (s, t, places))


def subword_by_subword(best: np.ndarray, asked: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Each token's likeliest in the source's order; what has none is left out."""
    found = [best[source] for source in asked]
    return [row[row != PAD] for row in found]
