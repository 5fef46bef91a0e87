"""How good translations are: whole ones right, or BLEU, from counts that add up over sentences; intervals of both."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

import numpy as np

from experiments import command
from nnjax.statistics import Interval, t_interval

EXACT, BLEU = "exact match", "BLEU"
_ORDER = 4
DRAWS = 2000
"""Resamplings of the test sentences for an interval (Koehn, 2004)."""
_LEVEL = 0.95


def check_installed() -> None:
    """Raise BadInput where sacrebleu is missing."""
    try:
        import sacrebleu  # noqa: F401
    except ImportError:
        raise command.BadInput(
            'corpus=multi30k is scored by sacrebleu, which is not installed: pip install -e ".[text]", '
            "or give --corpus numbers"
        ) from None


def counts_of(measure: str, written: Sequence[str], references: Sequence[str]) -> np.ndarray:
    """What a score is made of, for every sentence: (n, k), to be added up.

    Of exact matches whether it is one, and 1. Of BLEU the lengths of translation and reference, and for n-grams of 1 to
    4 words how many are right and how many there are, as sacrebleu counts them: default tokenization, capitals kept.
    """
    if measure == EXACT:
        return np.array([(one == other, 1) for one, other in zip(written, references, strict=True)], np.int32)
    from sacrebleu.metrics import BLEU as Metric

    metric = Metric(effective_order=True)  # which changes a sentence's own score alone
    found = [metric.sentence_score(one, [other]) for one, other in zip(written, references, strict=True)]
    return np.array([(each.sys_len, each.ref_len, *each.counts, *each.totals) for each in found], np.int32)


def signature() -> str:
    """How BLEU is counted, in sacrebleu's own words, which others can compare by."""
    from sacrebleu.metrics import BLEU as Metric

    metric = Metric()
    metric.corpus_score(["a"], [["a"]])  # which tells it how many references there are
    return str(metric.get_signature())


def chrf_of(written: Sequence[str], references: Sequence[str]) -> float:
    """chrF of all sentences by sacrebleu, 0 to 100 (Popović, 2015)."""
    from sacrebleu.metrics import CHRF

    return float(CHRF().corpus_score(list(written), [list(references)]).score)


def score(measure: str, counts: np.ndarray) -> np.ndarray:
    """The score of added counts (..., k): the share of exact matches, 0 to 1, or BLEU, 0 to 100.

    BLEU is that of Papineni et al. (2002). An order of n-grams of which none is right is smoothed as sacrebleu does, by
    its method "exp".
    """
    counts = np.asarray(counts, float)
    if measure == EXACT:
        return counts[..., 0] / np.maximum(counts[..., 1], 1)
    length, reference = counts[..., 0], counts[..., 1]
    right, there = counts[..., 2 : 2 + _ORDER], counts[..., 2 + _ORDER :]
    halvings = np.cumsum(right == 0, axis=-1)
    precision = np.where(right > 0, right, 0.5**halvings) / np.maximum(there, 1)
    brevity = np.exp(np.minimum(0, 1 - reference / np.maximum(length, 1)))
    found = 100 * brevity * np.exp(np.log(precision).mean(-1))
    return np.where((there.min(-1) > 0) & (right.sum(-1) > 0), found, 0.0)


@cache
def _draws(n: int) -> np.ndarray:
    """How often each of n sentences is in each resampling, (draws, n)."""
    return np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), size=DRAWS).astype(float)


def measured(measure: str, combine: Callable[..., np.ndarray], *groups: np.ndarray) -> Interval:
    """``combine`` of the scores of one or more groups of translations, with its 95 % interval.

    Of exact matches it is Student's over seeds. A BLEU takes long to train for, and its seeds are few: its interval is
    that of the test sentences, drawn anew for all groups alike (paired bootstrap), of the mean over these seeds.

    Args:
      measure: which.
      combine: ``(score, ...) -> value``, of arrays that broadcast: one score for each group.
      groups: counts (seeds, n, k); 0 for sentences that a group leaves out.
    """
    if measure == EXACT:
        return t_interval(combine(*(score(measure, group.sum(1)) for group in groups)))
    mean = float(combine(*(score(measure, group.sum(1)).mean() for group in groups)))
    draws = _draws(groups[0].shape[1])
    resampled = (np.einsum("dn,snk->dsk", draws, group.astype(float), optimize=True) for group in groups)
    found = combine(*(score(measure, each).mean(1) for each in resampled))
    low, high = np.quantile(found, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
    return Interval(np.asarray(mean), np.asarray(low), np.asarray(high))


def length_groups(lengths: np.ndarray, count: int) -> list[np.ndarray]:
    """Sentences (n,) by length in at most ``count`` groups of about the same number: masks, the shortest first."""
    edges = np.unique(np.quantile(lengths, np.arange(1, count) / count, method="higher"))
    group = np.searchsorted(edges, lengths, side="left")
    return [group == each for each in np.unique(group)]
