"""What does attention add to a net that translates, and where does it look? English to German by recurrent nets.

A GRU reads an English sentence in both directions, another writes the German one, subword after subword. Without
attention all that it knows of the sentence is one vector; with attention it looks at every step at all places of the
sentence, as much at each as it says itself.

Panels
  along training  Loss a subword on validation pairs, and the score of what is written for them.
  test scores     Every arm, written greedily and by beam search; beside them the translation of the most similar
                  training sentence (cosine of subword counts, rare ones weighing more), and every subword's likeliest
                  translation in the order of the source (IBM model 1).
  by length       The score by words of the source (Bahdanau et al., 2015, figure 2).
  attention       What was looked at while each subword was written.
  All translations are in translations.txt.

Corpora
  numbers   English and German words of numbers from 1 to 999,999, by rule. German writes units before tens and all as
            one word: "twenty-three", "dreiundzwanzig". Every count of digits as often as the others, as far as there
            are so many numbers; no number is in two parts. Score: share of numbers that are wholly right. A translator
            that keeps the order can be right only on numbers without units before tens: that share is drawn.
  multi30k  Captions of photographs (Elliott et al., 2016), downloaded; official parts. Score: BLEU of sacrebleu (Post,
            2018; the extra ``text``), with its own tokenization of plain text, capitals kept.

Falsifiable checks. On numbers, with attention: 0.9 of unseen numbers are right, more than without and more than an
order-keeping translator could have; in 0.8 of the groups with units before tens, of numbers that are right as a whole,
the place most looked at lies further back for the units than for the tens. Without attention long numbers are right
less often than short ones (the longest and the shortest of at most four groups), and with it less is lost by length;
both among numbers above 999 with one group of digits turned, for longer ones have more of these groups, and of shorter
ones most are training pairs. On Multi30k: BLEU above 25 with attention, on the test set of 2016; more than without;
what attention adds is more for the longest fourth of the sentences than for the shortest; every net beats both
baselines; beam search loses at most 0.5 against greedy writing. Those on Multi30k were fixed before the run that README
reports, its sizes after half an epoch of training.

A first run of ``quick``, with 4 seeds and 800 updates, left open what attention adds: with it all numbers were right
after 100 updates, without it nine in ten after 800, seeds far apart. Seeds, updates and the number of pairs are from
after that look; the checks are as they were, but that those by length compared all numbers in it. What is compared is
what so many updates teach.

What is random: a seed draws the weights, the order of the pairs and dropout; all arms of a seed share them as far as
their shapes allow. ``--seed`` draws the numbers, which all seeds share. Rates are chosen for each arm by validation
loss (mean over seeds) where several are given (``quick`` and ``standard`` have one, that of a first try), the moment of
stopping as well; the test pairs are asked once. Intervals on numbers are t-intervals over seeds. On Multi30k, with few
seeds, they are of the test sentences (paired bootstrap, Koehn, 2004) for the mean over the seeds trained: they say what
other sentences, not what other starts would give. Diverged seeds are counted; a loss that is not finite counts as that
of guessing.

Published numbers: Calixto, Liu and Campbell (2017) have 33.7 BLEU on the same test set for a text-only net with
attention of 620 and 1000 units (recalled), for text that was tokenized before: it stands beside ours and is not
compared. The text-only baseline of Elliott et al. (2017) has 19.3 on the test set of 2017 (recalled).

Deviations from Bahdanau et al. (2015): the mean of what is looked at joins the decoder's state before the logits, as in
Luong et al. (2015), not before the state is made; subwords of byte pairs (Sennrich et al., 2016), learned from the
training pairs of each language, in place of words; Adam with a falling rate. Pairs with more subwords than ``longest``
are left out of training (the report counts them), never of validation and test.

Sources: Cho et al. (2014); Sutskever, Vinyals and Le (2014); Bahdanau, Cho and Bengio (2015); Luong, Pham and Manning
(2015); Brown et al. (1993), IBM model 1; Papineni et al. (2002), BLEU; Popović (2015), chrF.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

from experiments import _translation_corpora as corpora
from experiments import _translation_lanes as lanes
from experiments import _translation_scores as scores
from experiments import _translation_writing as writing
from experiments import command
from experiments._translation_figures import plot
from experiments._translation_report import files, report
from nnjax.models.translation import EncoderDecoder
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
    """What is studied; sizes are numbers of pairs, subwords or updates."""

    seed: int = 0
    """Seed of everything."""
    corpus: str = "numbers"
    """Corpus: numbers, multi30k."""
    pairs: int = 4000
    """Training pairs; of captions all there are, where these are fewer."""
    held_out: int = 400
    """Pairs for validation, and as many for test; of captions all there are, where these are fewer."""
    merges: int = 40
    """Byte pairs that are merged to subwords, in each language."""
    longest: int = 30
    """Subwords of a training sentence at most; pairs with more are left out."""
    attentions: tuple[str, ...] = ("none", "additive")
    """Kinds of attention: none and at least one of dot, general, additive."""
    seeds: int = 6
    """Seeds."""
    rates: tuple[float, ...] = (0.01,)
    """Learning rates (Adam, falling to zero) to choose from."""
    units: int = 64
    """Units of the decoder, and of each direction of the encoder."""
    embedding: int = 32
    """Size of a subword's vector."""
    dropout: float = 0.0
    """Share of the embeddings' values, and of what the logits see, that is dropped in training."""
    batch: int = 64
    """Pairs of an update."""
    updates: int = 400
    """Updates."""
    clip: float = 1.0
    """Largest norm of an update's gradient."""
    evaluations: int = 8
    """Evaluations along the run, a divisor of the updates."""
    beams: int = 5
    """Hypotheses that beam search keeps."""
    length_penalty: float = 1.0
    """Power of its length that a hypothesis' log-probability is divided by."""
    rounds: int = 5
    """Rounds of expectation and maximization of IBM model 1."""
    looked: int = 400
    """Test sentences of which the attention is kept to measure it, at most."""
    shown: int = 4
    """Test sentences of which the attention is drawn, at most."""

    def __post_init__(self) -> None:
        command.check_numbers(self, {
            "seed": 0, "pairs": 1, "held_out": 2, "merges": 0, "longest": 1, "seeds": 2, "rates": 0, "units": 1,
            "embedding": 1, "dropout": 0, "batch": 1, "updates": 1, "clip": 0, "evaluations": 1, "beams": 1,
            "length_penalty": 0, "rounds": 1, "looked": 1, "shown": 1,
        })  # fmt: skip
        choose("corpus", self.corpus, ["numbers", "multi30k"])
        for name in self.attentions:
            choose("attention", name, list(lanes.ARMS))
        known = set(self.attentions)
        if len(known) < len(self.attentions) or lanes.NONE not in known or len(known) < 2:
            raise ValueError(f"attentions={self.attentions} must be none and at least one kind, each once")
        for name in ("rates", "clip"):
            if not np.min(getattr(self, name)) > 0:
                raise ValueError(f"{name}={getattr(self, name)} must be positive")
        if not self.dropout < 1:
            raise ValueError(f"dropout={self.dropout} must be a share below 1")
        if self.updates % self.evaluations:
            raise ValueError(f"updates={self.updates} must be a multiple of evaluations={self.evaluations}")


_QUICK = Config()
_STANDARD = replace(
    _QUICK, corpus="multi30k", pairs=1_000_000, held_out=1_000_000, merges=2500, longest=26, seeds=2, rates=(0.002,),
    units=256, embedding=128, dropout=0.3, updates=3200, evaluations=4, looked=100,
)  # fmt: skip
PRESETS = {
    "quick": _QUICK,
    "standard": _STANDARD,
    "full": replace(
        _STANDARD, merges=8000, longest=50, attentions=lanes.ARMS, seeds=5, rates=(0.0005, 0.001, 0.002), units=512,
        embedding=256, dropout=0.4, updates=9000, evaluations=10,
    ),
}  # fmt: skip


def _material(config: Config) -> corpora.Material:
    if config.corpus != "numbers":
        scores.check_installed()
    try:
        corpus = corpora.read_corpus(config.corpus, config.pairs, config.held_out, config.seed)
    except ValueError as error:
        raise command.BadInput(f"pairs={config.pairs} and held_out={config.held_out} are too many: {error}") from None
    try:
        made = corpora.material(corpus, config.merges, config.longest)
    except ValueError as error:
        raise command.BadInput(str(error)) from None
    if config.batch > len(made.train):
        raise command.BadInput(f"batch={config.batch} is more than the {len(made.train)} training pairs")
    if config.beams > len(made.target):
        raise command.BadInput(f"beams={config.beams} is more than the {len(made.target)} subwords of the target")
    return made


def sweeps(config: Config) -> dict[str, partial]:
    """The one sweep, ready to be called (or planned)."""
    return {"nets": _nets(config, _material(config))}


def _nets(config: Config, material: corpora.Material) -> partial:
    every = config.updates // config.evaluations
    training = TrainConfig(
        steps=config.updates, batch_size=config.batch, evaluate_every=every, evaluate=("validation",),
        evaluation_batch=lanes.EVALUATION_BATCH, select="validation_loss",
    )  # fmt: skip
    lane = partial(
        lanes.lane, vocabularies=(len(material.source), len(material.target)), units=config.units,
        embedding=config.embedding, dropout=config.dropout, clip=config.clip, steps=material.steps, beams=config.beams,
        length_penalty=config.length_penalty, looked=config.looked, evaluations=config.evaluations, config=training,
    )  # fmt: skip
    return partial(
        sweep, lane, {"attention": list(config.attentions), "rate": config.rates, "seed": range(config.seeds)},
        key=jax.random.key(config.seed),
        data={name: getattr(material, name) for name in ("train", "validation", "test")},
        name="nets", static=("attention",),
        # A loop over subwords gains nothing from lanes side by side on a CPU.
        width=1 if jax.default_backend() == "cpu" else None,
        dims={
            "running_loss": ("update",), "validation_loss": ("update",), "watched": ("update", "held", "place"),
            "written": ("search", "sentence", "place"), "weights": ("looked", "place", "source_place"),
        },
        coords={"update": range(every, config.updates + 1, every), "search": list(lanes.SEARCHES)},
    )  # fmt: skip


def run(config: Config, *, store: Callable[[str], Store] | None = None, monitor: Monitor | None = None) -> xr.DataTree:
    """Train every net; ``store(name)`` keeps finished chunks. Returns "nets", "looked", "baselines" and "test"."""
    import xarray as xr

    material = _material(config)
    raw = _nets(config, material)(store=store("nets") if store else None, monitor=monitor)
    measure = scores.EXACT if config.corpus == "numbers" else scores.BLEU
    nets = raw[["running_loss", "validation_loss", "chosen_update", "diverged"]]
    nets.attrs |= {
        "corpus": config.corpus, "measure": measure, "pairs": len(material.train), "left_out": material.left_out,
        "longest": config.longest, "guess": float(np.log(len(material.target))),
        "subwords": [len(material.source), len(material.target)], "beams": config.beams,
        "length_penalty": config.length_penalty, "looked": config.looked,
        "signature": scores.signature() if measure == scores.BLEU else "",
        "parameters": [_parameters(config, material, each) for each in config.attentions],
    }  # fmt: skip
    nets = nets.merge(writing.scored(raw, material, measure))
    groups = {
        "nets": nets, "looked": writing.looked(raw, material, config.shown),
        "baselines": writing.baseline_texts(material, measure, config.rounds), "test": writing.asked_pairs(material),
    }  # fmt: skip
    return xr.DataTree.from_dict(groups, name="translation")


def _parameters(config: Config, material: corpora.Material, attention: str) -> int:
    kind = None if attention == lanes.NONE else attention
    model = EncoderDecoder(len(material.source), len(material.target), config.units, config.embedding, kind)
    shapes = jax.eval_shape(lambda: lanes.halves(model).init(jax.random.key(0), jnp.ones((1, 2), jnp.int32))[0])
    return sum(leaf.size for leaf in jax.tree.leaves(shapes))


def main(argv: list[str] | None = None) -> int:
    """The command line: see ``--help``."""
    return command.main("experiments.translation", argv)


if __name__ == "__main__":
    sys.exit(main())
