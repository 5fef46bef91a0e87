"""From token numbers to texts: what nets and baselines wrote, what was looked at meanwhile, and its counts."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from experiments import _translation_baselines as baselines
from experiments import _translation_corpora as corpora
from experiments import _translation_reordering as reordering
from experiments import _translation_scores as scores
from experiments._translation_corpora import Material, source_of, target_of
from experiments._translation_lanes import GREEDY
from nnjax.data.text import Vocabulary

if TYPE_CHECKING:
    import xarray as xr

_LANE = ("attention", "rate", "seed")


def texts_of(tokens: xr.DataArray, vocabulary: Vocabulary) -> xr.DataArray:
    """What tokens (..., place) say, (...)."""
    rows = tokens.transpose(..., "place").values
    texts = np.array([vocabulary.decode(row) for row in rows.reshape(-1, rows.shape[-1])], object)
    return tokens.isel(place=0, drop=True).copy(data=texts.reshape(rows.shape[:-1]))


def scored(raw: xr.Dataset, material: Material, measure: str) -> xr.Dataset:
    """What nets wrote for test sentences, its counts, and the score along training of what they wrote for validation.

    Args:
      raw: the sweep's results.
      material: what they are of.
      measure: see `_translation_scores`.
    """
    import xarray as xr

    pairs = material.corpus.pairs
    written, watched = (texts_of(raw[name], material.target) for name in ("written", "watched"))
    counts = _each_text(lambda texts: scores.counts_of(measure, texts, pairs.test.target), written, "sentence")
    held = _each_text(
        lambda texts: scores.score(measure, scores.counts_of(measure, texts, pairs.validation.target).sum(0)),
        watched, "held",
    )  # fmt: skip
    found = xr.Dataset({
        "written": written, "counts": ((*_LANE, "search", "sentence", "count"), counts),
        "validation_score": ((*_LANE, "update"), held),
    })  # fmt: skip
    if measure == scores.BLEU:
        chrf = _each_text(lambda texts: np.asarray(scores.chrf_of(texts, pairs.test.target)), written, "sentence")
        found["chrf"] = ((*_LANE, "search"), chrf)
    if material.corpus.numbers is not None:
        found["backwards"] = (_LANE, _backwards(raw, written, material, material.corpus.numbers))
    return found


def _each_text(function: Callable[[list[str]], np.ndarray], texts: xr.DataArray, dim: str) -> np.ndarray:
    """``function`` of the texts along one dimension, for all others."""
    rows = texts.transpose(..., dim).values
    found = np.stack([function(list(row)) for row in rows.reshape(-1, rows.shape[-1])])
    return found.reshape(*rows.shape[:-1], *found.shape[1:])


def _backwards(raw: xr.Dataset, written: xr.DataArray, material: Material, numbers: np.ndarray) -> np.ndarray:
    """Of each lane the share of groups of digits whose units were looked at further back than the tens."""
    texts = written.sel(search=GREEDY).transpose(*_LANE, "sentence").values
    tokens = raw["written"].sel(search=GREEDY).transpose(*_LANE, "sentence", "place").values
    weights = raw["weights"].transpose(*_LANE, "looked", "place", "source_place").values
    looked = weights.shape[len(_LANE)]
    found = np.empty(weights.shape[: len(_LANE)])
    for place in np.ndindex(found.shape):
        own = [_subwords(material.target, row) for row in tokens[place][:looked]]
        found[place] = reordering.share_backwards(numbers[:looked], texts[place][:looked], own, weights[place])
    return found


def _subwords(vocabulary: Vocabulary, ids: np.ndarray) -> list[str]:
    """The subwords of a sentence's tokens, its end apart."""
    return [vocabulary.tokens[one] for one in baselines.trimmed(ids[None])[0]]


def looked(raw: xr.Dataset, material: Material, count: int) -> xr.Dataset:
    """Attention for some test sentences, and what was read and written in them, subword by subword."""
    import xarray as xr

    places = shown(material, raw.sizes["looked"], count)
    tokens = raw["written"].sel(search=GREEDY, drop=True).isel(sentence=places).rename(sentence="shown")
    source = xr.DataArray(source_of(material.test)[places], dims=("shown", "source_place"))
    return xr.Dataset({
        "weights": raw["weights"].isel(looked=places).rename(looked="shown"),
        "tokens": _named(tokens, material.target), "source": _named(source, material.source),
        "sentence": ("shown", places),
    })  # fmt: skip


def _named(ids: xr.DataArray, vocabulary: Vocabulary) -> xr.DataArray:
    """Token numbers as subwords; nothing for padding."""
    names = np.array(["", *vocabulary.tokens[1:]], object)
    return ids.copy(data=names[ids.values])


def shown(material: Material, looked: int, count: int) -> np.ndarray:
    """Which of the first test sentences are drawn: those with most units before tens, or of middle length; in order."""
    numbers = material.corpus.numbers
    if numbers is not None:
        worth = np.array([-len(corpora.turned(number)) for number in numbers[:looked]], float)
    else:
        lengths = np.array([len(row) for row in baselines.trimmed(source_of(material.test)[:looked])])
        worth = np.abs(lengths - np.median(lengths))
    return np.sort(np.argsort(worth, kind="stable")[:count])


def baseline_texts(material: Material, measure: str, rounds: int) -> xr.Dataset:
    """What the baselines write for the test sentences, and its counts."""
    import xarray as xr

    references = material.corpus.pairs.test.target
    source, target = (baselines.trimmed(side(material.train)) for side in (source_of, target_of))
    asked, size = source_of(material.test), len(material.source)
    places = baselines.nearest(source_of(material.train), asked, size)
    words = baselines.subword_by_subword(baselines.lexicon(source, target, size, rounds), baselines.trimmed(asked))
    written = {
        baselines.NEAREST: [material.target.decode(target[place]) for place in places],
        baselines.WORDS: [material.target.decode(row) for row in words],
    }
    counts = np.stack([scores.counts_of(measure, texts, references) for texts in written.values()])
    found = xr.Dataset(
        {
            "written": (("baseline", "sentence"), np.array(list(written.values()), object)),
            "counts": (("baseline", "sentence", "count"), counts),
        },
        {"baseline": list(written)},
    )
    if measure == scores.BLEU:
        found["chrf"] = ("baseline", [scores.chrf_of(texts, references) for texts in written.values()])
    return found


def asked_pairs(material: Material) -> xr.Dataset:
    """The test pairs, words of each source, and of numbers themselves and their groups with units before tens."""
    import xarray as xr

    pairs, numbers = material.corpus.pairs.test, material.corpus.numbers
    found = xr.Dataset({
        "source": ("sentence", np.array(pairs.source, object)),
        "reference": ("sentence", np.array(pairs.target, object)),
        "words": ("sentence", [corpora.words_of(text) for text in pairs.source]),
    })  # fmt: skip
    if numbers is not None:
        found["number"] = ("sentence", numbers)
        found["turned"] = ("sentence", [len(corpora.turned(number)) for number in numbers])
    return found
