"""How well does a net that reads one character after another foretell the next? Recurrent nets against n-grams.

A net with a state reads a text and says at every character how likely each is to come next; what it needs for the text
is measured in bits a character. RNN, LSTM and GRU have about the same number of parameters. Each reads the text in
pieces, side by side in several streams; its state goes on from piece to piece, its gradient does not (truncated
back-propagation through time). Before some pieces, drawn at random, the state is put to zero, or the nets would not
know how to begin: without that, on the Markov text (``--resets 0 --seeds 3``), 0.05 to 0.38 bits, by cell, are still
missing where five letters were seen since a reset, and 0 to 0.18 where sixteen were.

Panels
  along training  Validation bits and, thin, those of the pieces just learned from; on the Markov text less those
                  that the source itself needs for the same text.
  against n-grams Test bits of the nets and of n-gram models whose contexts have 0 to 5 characters (interpolated after
                  Witten and Bell), and what LZMA adds for the test text; on the Markov text those above the source's.
  after a reset   The state is put to zero somewhere in the test text: bits needed more than with it carried on, by the
                  number of characters seen since. How far back what is remembered is of use.
  what it writes  Text drawn from the net at several temperatures; all of it in samples.txt.

Texts
  markov       Letters drawn after the two before them by known probabilities. Nothing can need fewer bits than the
               entropy rate, after one letter alone the entropy given one letter, and orders above 2 cannot help. Each
               seed has its own text of the one source.
  shakespeare  Parts of plays (Karpathy, 2015), downloaded. One text for all seeds.

Falsifiable checks. On the Markov text: every net comes within 0.02 bits of what the source itself needs for the same
test text, and nothing needs fewer; n-gram models of orders 0, 1 and 2 come within 0.02 bits of one who knows the source
and as many letters, and order 5 needs more than order 2; with three and more letters seen since a reset, at each number
of them, nothing is missing (0.02 bits); and what a net writes at temperature 1 costs the source its entropy rate (0.1
bits). On Shakespeare: LSTM and GRU need fewer bits than the n-gram model that was best on the validation text, and than
the simple net; and 6 to 10 characters after a reset, more than any of these n-grams sees, every net still misses what
came before (more than 0.02 bits).

A first run of ``quick`` missed some of these checks: its nets were not done, lost bits long after a reset, for they had
never begun anew in training, and some letters of its source were so rare that small errors cost without end. Letters,
updates, rates, the resets in training and a twentieth of evenness in the source are from after that look. The check
after a reset was once of the mean over all later letters, which hid the first; judged for each, ``quick`` reads open
for RNN and GRU, where three letters were seen (0.014 bits, [0.004, 0.024], and 0.005, [-0.010, 0.020]).

What is random: a seed draws the weights, the text of the Markov source, the resets and what is written; all cells of a
seed share the text. The order is the text's own: 90 % training, 5 % validation, 5 % test. Rates are chosen for each
cell on validation text (mean over seeds) where several are given, the order of the n-gram model and the moment of
stopping as well; test text is asked once. Validation and test text are cut into streams of about 1000 characters, each
from a state of zeros and, for the n-grams, without what came before. Intervals are t-intervals over seeds: on
Shakespeare they say nothing of other texts. Diverged seeds are counted; bits that are not finite count as those of
guessing.

Published numbers: none for nets of this size on this split. A Transformer of 6 layers reaches a validation loss of
1.4697 nats, 2.120 bits, on the same Shakespeare, one of 4 small layers after three minutes on a CPU 1.88 nats, 2.71
bits (README of nanoGPT, Karpathy, 2022; its prepare.py holds back the last tenth, and the larger net has, by its
config, 384 units a layer: about 10 million parameters). They stand beside ours and are not compared.

Sources: Shannon (1951), entropy of text from n-grams; Witten and Bell (1991), method C, in the interpolated form of
Chen and Goodman (1998); Elman (1990); Hochreiter and Schmidhuber (1997); Cho et al. (2014); Williams and Peng (1990),
truncation; Karpathy, Johnson and Fei-Fei (2015).
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import jax
import numpy as np

from experiments import _char_rnn_lanes as lanes
from experiments import _char_rnn_ngrams as ngrams
from experiments import _char_rnn_sources as sources
from experiments import command
from experiments._char_rnn_figures import plot
from experiments._char_rnn_report import files, report
from nnjax.data.text import UNKNOWN, Vocabulary, load_text
from nnjax.naming import choose
from nnjax.sweep import sweep
from nnjax.train import Config as TrainConfig

if TYPE_CHECKING:
    import xarray as xr

    from nnjax.monitor import Monitor
    from nnjax.sweep import Store

__all__ = ["PRESETS", "Config", "files", "main", "plot", "report", "run", "sweeps"]


@dataclass(frozen=True)
class Config:
    """What is studied; sizes are numbers of characters, parameters or updates."""

    seed: int = 0
    """Seed of everything."""
    text: str = "markov"
    """Text: markov, shakespeare."""
    length: int = 100_000
    """Characters of the text in all, or all there are."""
    letters: int = 6
    """Letters of the Markov source, 2 to 26."""
    seeds: int = 5
    """Seeds."""
    rates: tuple[float, ...] = (0.03,)
    """Learning rates (Adam, falling to zero) to choose from."""
    parameters: int = 4000
    """Parameters of each net, about."""
    embedding: int = 8
    """Size of a character's vector."""
    streams: int = 32
    """Places of the text that are read side by side."""
    steps: int = 32
    """Characters of a piece: how far gradients go back."""
    resets: float = 0.1
    """Share of the pieces that begin with a state of zeros."""
    updates: int = 2000
    """Updates."""
    clip: float = 1.0
    """Largest norm of an update's gradient."""
    evaluations: int = 10
    """Evaluations along the run, a divisor of the updates."""
    order: int = 5
    """Characters of the longest context of the n-gram models."""
    reach: int = 32
    """Characters that are read after a reset of the state."""
    windows: int = 400
    """Resets in the test text, about."""
    temperatures: tuple[float, ...] = (0.5, 1.0, 1.5)
    """Temperatures at which the nets write."""
    sample: int = 2000
    """Characters that a net writes."""

    def __post_init__(self) -> None:
        command.check_numbers(self, {
            "seed": 0, "length": 100, "letters": 2, "seeds": 2, "rates": 0, "parameters": 1, "embedding": 1,
            "streams": 1, "steps": 1, "resets": 0, "updates": 1, "clip": 0, "evaluations": 1, "order": 2,
            "reach": 1, "windows": 1, "temperatures": 0, "sample": 3,
        })  # fmt: skip
        choose("text", self.text, ["markov", "shakespeare"])
        for name in ("rates", "temperatures"):
            if not min(getattr(self, name)) > 0:
                raise ValueError(f"{name}={getattr(self, name)} must be positive")
        if 1.0 not in self.temperatures:
            raise ValueError(f"temperatures={self.temperatures} must hold 1.0, at which a net writes what it means")
        if not self.resets <= 1:
            raise ValueError(f"resets={self.resets} must be a share, 0 to 1")
        if not self.clip > 0:
            raise ValueError(f"clip={self.clip} must be positive")
        if self.letters > 26:
            raise ValueError(f"letters={self.letters} must be at most 26")
        if self.updates % self.evaluations:
            raise ValueError(f"updates={self.updates} must be a multiple of evaluations={self.evaluations}")


_QUICK = Config()
_STANDARD = replace(
    _QUICK, text="shakespeare", length=2_000_000, rates=(0.002, 0.005), parameters=100_000, embedding=32, steps=64,
    updates=4000, reach=128, windows=1000,
)  # fmt: skip
PRESETS = {
    "quick": _QUICK,
    "standard": _STANDARD,
    "full": replace(
        _STANDARD, seeds=10, rates=(0.001, 0.002, 0.005), parameters=1_000_000, embedding=64, streams=50, steps=100,
        updates=10_000, evaluations=20,
    ),
}  # fmt: skip


class Material(NamedTuple):
    """Texts of a study: one, or one for each seed.

    Attributes:
      texts: as written.
      vocabulary: of their characters.
      parts: `sources.Parts` of each.
      source: of the Markov text, P(c | a, b); None for another.
    """

    texts: list[str]
    vocabulary: Vocabulary
    parts: list[sources.Parts]
    source: np.ndarray | None

    @property
    def alphabet(self) -> int:
        """Characters that may come: all known ones, and an unknown one."""
        return len(self.vocabulary) - UNKNOWN


def _material(config: Config) -> Material:
    source = None
    if config.text == "markov":
        source, known = sources.draw_source(config.letters, config.seed), sources.letters_of(config.letters)
        drawn = [
            sources.draw_text(source, config.length, np.random.default_rng([config.seed, 1, number]))
            for number in range(config.seeds)
        ]
        texts = ["".join(known[each] for each in text) for text in drawn]
    else:
        texts = [load_text(config.text)[: config.length]]
        known = sources.split_text(texts[0])[0]
    vocabulary = Vocabulary.characters(known)
    try:
        parts = [sources.parts_of(text, vocabulary, config.streams, config.steps) for text in texts]
        lanes.window_starts(parts[0].test.shape[1] - 1, config.reach, 1)
    except ValueError as error:
        raise command.BadInput(f"length={config.length} does not fit: {error}") from None
    try:
        ngrams.check_countable(parts[0].train, config.order, len(vocabulary))
    except ValueError as error:
        raise command.BadInput(str(error)) from None
    return Material(texts, vocabulary, parts, source)


def sweeps(config: Config) -> dict[str, partial]:
    """The one sweep, ready to be called (or planned)."""
    return {"nets": _nets(config, _material(config))}


def _nets(config: Config, material: Material) -> partial:
    every = config.updates // config.evaluations
    training = TrainConfig(
        steps=config.updates, batch_size=config.streams, shuffle=False, evaluate_every=every, evaluate=("validation",),
        evaluation_batch=lanes.EVALUATION_BATCH, select="validation_bits",
    )  # fmt: skip
    lane = partial(
        lanes.lane, parameters=config.parameters, vocabulary=len(material.vocabulary), embedding=config.embedding,
        streams=config.streams, resets=config.resets, clip=config.clip, windows=config.windows, reach=config.reach,
        temperatures=config.temperatures, sample=config.sample, config=training,
    )  # fmt: skip
    names = ("x", "y", "validation", "test")
    return partial(
        sweep, lane, {"cell": list(lanes.CELLS), "rate": config.rates, "seed": range(config.seeds)},
        key=jax.random.key(config.seed),
        data={name: np.stack([getattr(part, name) for part in material.parts]) for name in names},
        name="nets", static=("cell",),
        # A loop over characters gains nothing from lanes side by side on a CPU.
        width=1 if jax.default_backend() == "cpu" else None,
        dims={
            "running_bits": ("update",), "validation_bits": ("update",), "reset_cost": ("seen",),
            "sample": ("temperature", "place"),
        },
        coords={
            "update": range(every, config.updates + 1, every), "seen": range(1, config.reach + 1),
            "temperature": list(config.temperatures),
        },
    )  # fmt: skip


_SOURCE = ("source_train", "source_validation", "source_test")
"""What the source needs for each part of a text."""


def _baselines(config: Config, material: Material) -> xr.Dataset:
    """Bits a character of everything that is no net, for each text."""
    import xarray as xr

    found: dict[str, list] = {name: [] for name in ("ngram_validation", "ngram_test", "lzma", *_SOURCE)}
    for text, part in zip(material.texts, material.parts, strict=True):
        model = ngrams.witten_bell(part.train, config.order, len(material.vocabulary), material.alphabet)
        for split in ("validation", "test"):
            found[f"ngram_{split}"].append(ngrams.ngram_bits(model, getattr(part, split)).mean((1, 2)))
        train, _, test = sources.split_text(text)
        found["lzma"].append(ngrams.lzma_bits(train, test))
        if material.source is not None:
            for name, letters in zip(_SOURCE, (part.train[None], part.validation, part.test), strict=True):
                found[name].append(sources.source_bits(material.source, letters - UNKNOWN - 1).mean((1, 2)))
    known: dict[str, tuple] = {}
    if material.source is not None:
        known = {
            **{name: (("text", "known"), found[name]) for name in _SOURCE},
            "entropy": (("known",), sources.entropies(material.source)),
        }
    return xr.Dataset(
        {
            **{name: (("text", "order"), found[name]) for name in ("ngram_validation", "ngram_test")},
            "lzma": (("text",), found["lzma"]), **known,
        },
        {"order": range(config.order + 1)},
    )  # fmt: skip


def run(config: Config, *, store: Callable[[str], Store] | None = None, monitor: Monitor | None = None) -> xr.DataTree:
    """Train every net; ``store(name)`` keeps finished chunks. Returns the groups "nets" and "baselines"."""
    import xarray as xr

    material = _material(config)
    nets = _nets(config, material)(store=store("nets") if store else None, monitor=monitor)
    size = len(material.vocabulary)
    units = [lanes.units_for(cell, config.parameters, size, config.embedding) for cell in lanes.CELLS]
    pairs = zip(lanes.CELLS, units, strict=True)
    nets.attrs |= {
        "text": config.text, "alphabet": material.alphabet, "vocabulary": material.vocabulary.to_json(), "units": units,
        "parameters": [lanes.parameters_of(cell, each, size, config.embedding) for cell, each in pairs],
        "prompt": material.vocabulary.decode(material.parts[0].test[0, : lanes.PROMPT]),
    }  # fmt: skip
    baselines = _baselines(config, material)
    if material.source is not None:
        nets["written_bits"] = _written_bits(nets["sample"], material.source)
    return xr.DataTree.from_dict({"nets": nets, "baselines": baselines}, name="char_rnn")


def _written_bits(sample: xr.DataArray, source: np.ndarray) -> xr.DataArray:
    """What the source needs for what the nets wrote, bits a letter.

    Reserved tokens are passed over with every triple they are in; NaN where no triple is left.
    """
    tokens = sample.values - UNKNOWN - 1
    triples = np.stack([tokens[..., :-2], tokens[..., 1:-1], tokens[..., 2:]])
    real = (triples >= 0).all(0)
    cost = -np.log2(source[tuple(np.maximum(triples, 0))])
    count = real.sum(-1)
    mean = np.where(count > 0, np.sum(np.where(real, cost, 0), -1) / np.maximum(count, 1), np.nan)
    return sample.isel(place=0, drop=True).copy(data=mean).astype(float)


def main(argv: list[str] | None = None) -> int:
    """The command line: see ``--help``."""
    return command.main("experiments.char_rnn", argv)


if __name__ == "__main__":
    sys.exit(main())
