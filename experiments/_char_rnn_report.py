"""The report of the character models: every claim with what was measured, whether it holds or not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from experiments._char_rnn_lanes import CELLS
from nnjax.data.text import Vocabulary
from nnjax.results import Row
from nnjax.statistics import Interval, interval_verdict, t_interval

if TYPE_CHECKING:
    import xarray as xr

SIMPLE, GATED = "rnn", ("lstm", "gru")
NEAR = 0.02
"""Bits a character within which two models are as good as each other."""
NEAR_WRITTEN = 0.1
"""The same for what a net writes, which is shorter than a test text."""
KNOWN = 2
"""Letters that the Markov source looks back."""
BEYOND = 5
"""Characters, from the first that no n-gram reaches back over: so long after a reset a net on real text must still
miss what came before."""
GPT = 1.4697 / np.log(2)
"""Validation bits of a Transformer of 6 layers on Shakespeare (README of nanoGPT)."""
_OWN = "this study's own check"
_BITS = "bits a character"


def parts(results: xr.DataTree) -> tuple[xr.Dataset, xr.Dataset]:
    """The nets and what they are measured against."""
    return results["nets"].to_dataset(), results["baselines"].to_dataset()


def _all(nets: xr.Dataset, name: str) -> np.ndarray:
    """Bits (cells, rates, seeds, ...); those that are not finite are of guessing."""
    found = nets[name].transpose("cell", "rate", "seed", ...).values
    return np.where(np.isfinite(found), found, np.log2(nets.attrs["alphabet"]))


def chosen_rates(nets: xr.Dataset) -> np.ndarray:
    """For each cell the place of the rate with the least validation bits, mean over seeds: (cells,)."""
    return _all(nets, "validation_bits").min(-1).mean(-1).argmin(-1)


def at_rate(nets: xr.Dataset, cell: str, name: str) -> np.ndarray:
    """A cell's bits at its chosen rate, (seeds, ...)."""
    place = CELLS.index(cell)
    return _all(nets, name)[place, chosen_rates(nets)[place]]


def lane_of(nets: xr.Dataset, cell: str) -> xr.Dataset:
    """A cell's results at its chosen rate."""
    return nets.sel(cell=cell).isel(rate=chosen_rates(nets)[CELLS.index(cell)])


def by_seed(nets: xr.Dataset, values: xr.DataArray) -> np.ndarray:
    """What is known of each text, for every seed's text: (seeds, ...)."""
    found = values.transpose("text", ...).values
    return found[np.arange(nets.sizes["seed"]) % len(found)]


def best_order(baselines: xr.Dataset) -> int:
    """The order of the n-gram model with the least validation bits, mean over texts."""
    return int(np.argmin(baselines["ngram_validation"].mean("text").values))


def report(results: xr.DataTree) -> list[Row]:
    """Every claim of the study, each with what was measured, whether it holds or not."""
    nets, baselines = parts(results)
    rows = _of_the_source(nets, baselines) if nets.attrs["text"] == "markov" else _of_real_text(nets, baselines)
    return [*rows, _compressor(nets, baselines)]


def files(results: xr.DataTree) -> dict[str, bytes]:
    """What the nets of the first seed write, cell by cell and temperature by temperature."""
    nets, _ = parts(results)
    vocabulary = Vocabulary.from_json(nets.attrs["vocabulary"])
    written = []
    for cell in CELLS:
        for temperature in nets["temperature"].values:
            tokens = lane_of(nets, cell)["sample"].sel(temperature=temperature).isel(seed=0).values
            written.append(
                f"== {cell}, temperature {temperature:g}, after {nets.attrs['prompt']!r}\n{vocabulary.decode(tokens)}\n"
            )
    return {"samples.txt": "\n".join(written).encode()}


# Verdicts


def _within(interval: Interval, limit: float) -> str:
    """Whether a mean lies within +-limit."""
    return interval_verdict(interval, above=-limit, below=limit)


def _fewer(claim: str, a: np.ndarray, b: np.ndarray, *, of: str = "", said: str | None = None) -> Row:
    """That a needs fewer bits than b, both (seeds,); ``of`` says more of a."""
    gap = t_interval(a - b)
    words = f"{a.mean():.3f} {of} against" if of else f"{a.mean():.3f} against"
    return Row(
        claim, f"{_BITS}, difference by seed", f"{gap.mean:+.3f} ({words} {b.mean():.3f})", _text(gap),
        len(a), "-", _OWN, "interval excludes 0", interval_verdict(gap, below=0) if said is None else said,
    )  # fmt: skip


def _text(interval: Interval) -> str:
    return f"[{interval.low:.3f}, {interval.high:.3f}]"


def _rate(nets: xr.Dataset, cell: str) -> str:
    place = CELLS.index(cell)
    return f"{nets.attrs['parameters'][place]} parameters, rate {nets['rate'].values[chosen_rates(nets)[place]]:g}"


# The Markov text


def _of_the_source(nets: xr.Dataset, baselines: xr.Dataset) -> list[Row]:
    source = by_seed(nets, baselines["source_test"])
    return [
        *(_learned(nets, cell, source[:, KNOWN]) for cell in CELLS),
        _nothing_less(nets, baselines, source[:, KNOWN]),
        *(_aim(nets, baselines, order, source[:, order]) for order in range(KNOWN + 1)),
        _longer_is_worse(nets, baselines),
        *(_forgets(nets, cell) for cell in CELLS),
        *(_writes(nets, cell, float(baselines["entropy"][KNOWN])) for cell in CELLS),
    ]


def _learned(nets: xr.Dataset, cell: str, source: np.ndarray) -> Row:
    found = at_rate(nets, cell, "test_bits")
    gap = t_interval(found - source)
    return Row(
        f"{cell}: learns the source", f"{_BITS} of the test text above the source's own; {_rate(nets, cell)}",
        f"{gap.mean:.4f} ({found.mean():.3f} against {source.mean():.3f})", _text(gap), len(found), "-", _OWN,
        f"below {NEAR:g}", interval_verdict(gap, below=NEAR),
    )  # fmt: skip


def _nothing_less(nets: xr.Dataset, baselines: xr.Dataset, source: np.ndarray) -> Row:
    models = {cell: at_rate(nets, cell, "test_bits") for cell in CELLS}
    ngrams = by_seed(nets, baselines["ngram_test"])
    models |= {f"order {order}": ngrams[:, order] for order in range(ngrams.shape[1])}
    name, found = min(models.items(), key=lambda item: item[1].mean())
    gap = t_interval(found - source)
    return Row(
        "nothing needs fewer bits than the source", f"{_BITS} above the source's own, of the best model",
        f"{gap.mean:.4f} ({name})", _text(gap), len(found), "0 at least", "Shannon (1948), theorem",
        "interval reaches 0", "fails" if gap.high < 0 else "holds",
    )  # fmt: skip


def _aim(nets: xr.Dataset, baselines: xr.Dataset, order: int, source: np.ndarray) -> Row:
    found = by_seed(nets, baselines["ngram_test"])[:, order]
    gap = t_interval(found - source)
    return Row(
        f"the n-gram model of order {order} comes as near as {order} letters allow",
        f"{_BITS} above who knows the source and {order} letters",
        f"{gap.mean:.4f} ({found.mean():.3f} against {source.mean():.3f})", _text(gap), len(found),
        f"{float(baselines['entropy'][order]):.3f}", "exact entropy", f"within {NEAR:g}", _within(gap, NEAR),
    )  # fmt: skip


def _longer_is_worse(nets: xr.Dataset, baselines: xr.Dataset) -> Row:
    ngrams = by_seed(nets, baselines["ngram_test"])
    longest = ngrams.shape[1] - 1
    return _fewer(
        f"contexts of {KNOWN} letters are better than of {longest}", ngrams[:, KNOWN], ngrams[:, longest],
        said="-" if longest == KNOWN else None,
    )  # fmt: skip


def _forgets(nets: xr.Dataset, cell: str) -> Row:
    """Every number of letters for itself; shown is the one with which most is missing."""
    later = lane_of(nets, cell)["reset_cost"].sel(seen=slice(KNOWN + 1, None)).transpose("seed", "seen")
    every = [t_interval(each) for each in later.values.T]
    words = [_within(each, NEAR) for each in every]
    most = int(np.argmax([each.mean for each in every])) if every else 0
    gap = every[most] if every else _NOTHING
    return Row(
        f"{cell}: with {KNOWN + 1} or more letters seen since a reset, nothing is missing at any number of them",
        f"{_BITS} above the state carried on, where it is most",
        f"{gap.mean:.4f} with {most + KNOWN + 1} seen (of {KNOWN + 1} to {KNOWN + len(every)})", _text(gap),
        later.sizes["seed"], "0", "exact: the source's order", f"each within {NEAR:g}",
        next((each for each in ("fails", "open", "holds") if each in words), "open"),
    )  # fmt: skip


_NOTHING = Interval(*(np.asarray(np.nan),) * 3)


def _writes(nets: xr.Dataset, cell: str, entropy: float) -> Row:
    found = lane_of(nets, cell)["written_bits"].sel(temperature=1.0).values
    gap = t_interval(found - entropy)
    return Row(
        f"{cell}: what it writes at temperature 1 costs the source its entropy rate", f"{_BITS}, by the source",
        f"{found.mean():.3f}", _text(t_interval(found)), len(found), f"{entropy:.3f}", "exact entropy rate",
        f"within {NEAR_WRITTEN:g}", _within(gap, NEAR_WRITTEN),
    )  # fmt: skip


# Real text


def _of_real_text(nets: xr.Dataset, baselines: xr.Dataset) -> list[Row]:
    return [
        *(_beats_ngrams(nets, baselines, cell) for cell in CELLS),
        *(
            _fewer(
                f"the {cell} needs fewer bits than the {SIMPLE} of as many parameters",
                at_rate(nets, cell, "test_bits"), at_rate(nets, SIMPLE, "test_bits"),
            )
            for cell in GATED
        ),
        *(_remembers(nets, cell, baselines.sizes["order"]) for cell in CELLS),
        *(_published(nets, cell) for cell in CELLS),
    ]  # fmt: skip


def _beats_ngrams(nets: xr.Dataset, baselines: xr.Dataset, cell: str) -> Row:
    order = best_order(baselines)
    claim = f"the {cell} needs fewer bits than the n-gram model of order {order}, the best on validation text"
    return _fewer(
        claim if cell in GATED else f"the {cell} beside the n-gram model of order {order}",
        at_rate(nets, cell, "test_bits"), by_seed(nets, baselines["ngram_test"])[:, order],
        of=f"with {_rate(nets, cell)},", said=None if cell in GATED else "-",
    )  # fmt: skip


def _remembers(nets: xr.Dataset, cell: str, low: int) -> Row:
    """That what stood more than ``low`` characters back is of use, which no n-gram model here sees."""
    high = low + BEYOND - 1
    later = lane_of(nets, cell)["reset_cost"].sel(seen=slice(low, high)).transpose("seed", "seen").values
    gap = t_interval(later.mean(1)) if later.shape[1] else _NOTHING
    return Row(
        f"{cell}: {low} to {high} characters after a reset what came before is missing",
        f"{_BITS} above the state carried on", f"{gap.mean:.4f}", _text(gap), len(later), "-", _OWN,
        f"above {NEAR:g}", interval_verdict(gap, above=NEAR),
    )  # fmt: skip


def _published(nets: xr.Dataset, cell: str) -> Row:
    found = at_rate(nets, cell, "validation_bits").min(-1)
    return Row(
        f"the {cell} beside a Transformer", f"validation {_BITS}; {_rate(nets, cell)}", f"{found.mean():.3f}",
        _text(t_interval(found)), len(found), f"{GPT:.3f}",
        "README of nanoGPT, 6 layers; the last tenth of the text (its prepare.py)", "-", "not comparable",
    )  # fmt: skip


def _compressor(nets: xr.Dataset, baselines: xr.Dataset) -> Row:
    found = by_seed(nets, baselines["lzma"])
    best = min(at_rate(nets, cell, "test_bits").mean() for cell in CELLS)
    return Row(
        "what LZMA adds for the test text behind the training text", _BITS,
        f"{found.mean():.3f} (best net {best:.3f})", "-", len(found), "-", _OWN, "-", "-",
    )  # fmt: skip
