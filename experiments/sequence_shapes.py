"""What can go in and come out of a recurrent net? Vectors and sequences, in four shapes, on handwritten digits.

A digit is a vector of 64 pixels, or a sequence of 8 columns; it is a class, or a sequence of letters ("seven"). Strips
of several digits side by side are longer sequences. Each shape is learned beside a net from which the order, or the
content, is taken away.

Panels
  vector    Vector to vector: the pixels to the class, without recurrence, by a linear net and one with a hidden layer;
            and the same with each picture's pixels in an order drawn anew.
  columns   Sequence to vector: the columns to the class, by RNN, LSTM and GRU, and by a linear net that sees the mean
            of the columns; and the same with each picture's columns in an order drawn anew.
  caption   Vector to sequence: the pixels set the first state of a net that writes the digit's name letter by letter;
            and one that sees no picture.
  tags      Sequence to sequence, aligned: for every column of a strip of digits the digit that it belongs to, by nets
            that read forwards, or in both directions; and from one column alone.
  numbers   Sequence to sequence of another length: a strip of 1 to 4 digits to the words of the number ("four hundred
            twelve"), by an encoder of GRUs in both directions and a decoder with attention; and the same with the
            columns of each strip in an order drawn anew.

Theory. A net that sees no picture can do no better than the entropies of the letters of ten equally likely names:
log2(10) bits a name, most of them for the first letter. If digits are read right independently, each with probability
p, a number of k digits is right with p^k; p is what is measured for k = 1.

Falsifiable checks, fixed before looking.
  vector    The net with a hidden layer reads more than 90 % of the digits, and less with the pixels shuffled.
  columns   Every cell reads more digits with the columns in order than shuffled, and within 0.05 as many as the net
            with a hidden layer. The mean of the columns, which no shuffle changes, is a control.
  caption   Every cell writes the right name as often as the net with a hidden layer finds the class (0.03); more than
            99 % of what it writes are names of digits; without a picture it needs log2(10) bits a name (0.1).
  tags      For the first column of a digit, which is nearly blank, a cell that reads forwards names less than
            30 % right, one in both directions more than 80 %; for the last column they are as good as each other
            (0.05); and forwards is better than one column alone.
  numbers   Two and more digits are read right with probability p^k (0.1); the longest numbers more often in order
            than shuffled; and more than half of the words of these look most at a digit that they tell of.

A first run, stopped among the tags, and two seeds of the reader of numbers set the sizes and the rate of `quick`: of
0.003 and 0.01 the latter had less validation loss for every net, and half of the updates were enough. The checks are
as they were, but that the mean of the columns was one, which could not fail.

What is random: a seed draws the weights, the order of the examples, the strips and the shuffles; all nets of a panel
and a seed see the same. The pictures of training, validation and test are the same for all seeds, and no picture, also
as a part of a strip, is in two of them; the numbers are not kept apart. Rates are chosen for each net on validation
loss (mean over seeds; `quick` has but one), the moment of stopping as well; the test is asked once. Intervals are
t-intervals over seeds, one of them also exact binomial over the test pictures. Diverged seeds are counted; they keep
the parameters that they had before.

Published numbers: the nearest neighbor reads 98.00 % of these digits when it is taught by 3823 others of other writers
(Alpaydin and Kaynak, 1998); here writers are mixed and the training pictures fewer. It stands beside ours and is not
compared. There are none for the other shapes.

Sources: Alpaydin and Kaynak (1998), the digits; Elman (1990); Hochreiter and Schmidhuber (1997); Schuster and Paliwal
(1997), both directions; Williams and Zipser (1989), teacher forcing; Cho et al. (2014) and Sutskever, Vinyals and Le
(2014), encoder and decoder; Bahdanau, Cho and Bengio (2015), attention; Vinyals et al. (2015), captions; Karpathy
(2015), the shapes.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import jax

from experiments import _sequence_shapes_lanes as lanes
from experiments import _sequence_shapes_numbers as readers
from experiments import _sequence_shapes_strips as strips
from experiments import command
from experiments._sequence_shapes_figures import plot
from experiments._sequence_shapes_report import report
from nnjax.data import load
from nnjax.naming import choose
from nnjax.sweep import sweep
from nnjax.train import Config as TrainConfig

if TYPE_CHECKING:
    import xarray as xr

    from nnjax.monitor import Monitor
    from nnjax.sweep import Store

__all__ = ["PRESETS", "Config", "main", "plot", "report", "run", "sweeps"]


@dataclass(frozen=True)
class Config:
    """What is studied; sizes are numbers of pictures, strips, units or updates."""

    seed: int = 0
    """Seed of everything."""
    seeds: int = 5
    """Seeds."""
    cells: tuple[str, ...] = lanes.CELLS
    """Recurrent cells of the nets on digits and of those that tag columns: rnn, lstm, gru."""
    rates: tuple[float, ...] = (0.01,)
    """Learning rates (Adam, falling to zero) to choose from."""
    validation_n: int = 288
    """Validation pictures, of 1438 that are not for the test."""
    units: int = 32
    """Units of the recurrent nets that read columns; in both directions, of each."""
    hidden: int = 64
    """Units of the hidden layer of a net without recurrence, and of the nets that write names."""
    embedding: int = 16
    """Size of the vector of a letter, a word or a column."""
    batch: int = 32
    """Examples an update."""
    clip: float = 1.0
    """Largest norm of an update's gradient."""
    evaluations: int = 5
    """Evaluations along a run, a divisor of the updates."""
    steps: int = 400
    """Updates of the nets on single digits."""
    strip_validation_n: int = 300
    """Validation strips."""
    strip_test_n: int = 200
    """Test strips, of each number of digits."""
    tag_digits: int = 3
    """Digits of a strip whose columns are tagged."""
    tag_n: int = 2000
    """Training strips to be tagged."""
    tag_steps: int = 400
    """Updates of the nets that tag columns."""
    number_digits: int = 4
    """Digits of a number at most, 2 to 4."""
    number_n: int = 4000
    """Training strips with numbers."""
    number_units: int = 32
    """Units of each direction of the encoder and of the decoder."""
    number_steps: int = 800
    """Updates of the nets that read numbers."""

    def __post_init__(self) -> None:
        command.check_numbers(self, {
            "seed": 0, "seeds": 2, "rates": 0, "validation_n": len(strips.NAMES), "units": 1, "hidden": 1,
            "embedding": 1, "batch": 1, "clip": 0, "evaluations": 1, "steps": 1, "strip_validation_n": 1,
            "strip_test_n": 1, "tag_digits": 1, "tag_n": 1, "tag_steps": 1, "number_digits": 2, "number_n": 1,
            "number_units": 1, "number_steps": 1,
        })  # fmt: skip
        for cell in self.cells:
            choose("cell", cell, lanes.CELLS)
        if not self.cells or len(set(self.cells)) < len(self.cells):
            raise ValueError(f"cells={self.cells} must name at least one cell, each once")
        if not min(self.rates) > 0:
            raise ValueError(f"rates={self.rates} must be positive")
        if not self.clip > 0:
            raise ValueError(f"clip={self.clip} must be positive")
        if self.number_digits > strips.MOST:
            raise ValueError(f"number_digits={self.number_digits} must be at most {strips.MOST}")
        for name in ("tag_n", "number_n"):
            if self.batch > getattr(self, name):
                raise ValueError(f"batch={self.batch} must be at most {name}={getattr(self, name)}")
        for name in ("steps", "tag_steps", "number_steps"):
            if getattr(self, name) % self.evaluations:
                raise ValueError(
                    f"{name}={getattr(self, name)} must be a multiple of evaluations={self.evaluations}"
                )  # fmt: skip


_QUICK = Config()
_STANDARD = replace(
    _QUICK, rates=(0.003, 0.01), units=64, hidden=128, embedding=32, evaluations=10, steps=2000,
    strip_validation_n=1000, strip_test_n=500, tag_n=5000, tag_steps=2000, number_n=10_000, number_units=64,
    number_steps=2000,
)  # fmt: skip
PRESETS = {
    "quick": _QUICK,
    "standard": _STANDARD,
    "full": replace(
        _STANDARD, seeds=20, rates=(0.003, 0.01, 0.03), units=128, hidden=256, steps=4000, strip_test_n=1000,
        tag_n=20_000, tag_steps=6000, number_n=40_000, number_units=128, number_steps=20_000,
    ),
}  # fmt: skip


class Panel(NamedTuple):
    """A sweep to be called.

    Attributes:
      lane: of ``(key, hparams, data, **axes named in static)``.
      axes: the panel's own, before rates and seeds.
      data: for the lanes.
      static: names of axes that shape the program.
      steps: updates.
      dims, coords: of the lane's own results.
    """

    lane: Callable[..., dict[str, Any]]
    axes: dict[str, Any]
    data: dict[str, Any]
    static: tuple[str, ...]
    steps: int
    dims: dict[str, tuple[str, ...]]
    coords: dict[str, Any]


def _parts(config: Config) -> dict[str, strips.Part]:
    digits = load("digits")
    try:
        parts = strips.parts_of(digits, config.validation_n)
    except ValueError as error:
        raise command.BadInput(str(error)) from None
    if config.batch > (n := len(parts["train"].y)):
        raise command.BadInput(f"batch={config.batch} must be at most the {n} training pictures")
    return parts


def _panels(config: Config) -> dict[str, Panel]:
    parts, shuffled = _parts(config), {"shuffled": (0, 1)}
    digit = partial(lanes.class_lane, units=config.units, hidden=config.hidden)
    caption = partial(
        lanes.caption_lane, units=config.hidden, embedding=config.embedding, letters=len(strips.LETTERS)
    )  # fmt: skip
    evaluated = (config.strip_validation_n, config.strip_test_n)
    tag = partial(
        lanes.tag_lane, units=config.units, hidden=config.hidden, digits=config.tag_digits,
        sizes=(config.tag_n, *evaluated),
    )  # fmt: skip
    number = partial(
        readers.number_lane, units=config.number_units, embedding=config.embedding, digits=config.number_digits,
        sizes=(config.number_n, *evaluated),
    )  # fmt: skip
    columns, most = range(1, strips.SIDE + 1), config.number_digits
    return {
        "vector": Panel(digit, {"net": list(lanes.VECTOR_NETS), **shuffled}, parts, ("net",), config.steps, {}, {}),
        "columns": Panel(
            digit, {"net": [lanes.MEAN, *config.cells], **shuffled}, parts, ("net",), config.steps, {}, {}
        ),
        "caption": Panel(
            caption, {"cell": list(config.cells), "blind": (0, 1)}, {**parts, "captions": strips.captions()}, ("cell",),
            config.steps, {"letter_bits": ("letter",)}, {},
        ),
        "tags": Panel(
            tag, {"net": lanes.tag_nets(config.cells)}, parts, ("net",), config.tag_steps,
            {"accuracy": ("digit", "column")}, {"digit": range(1, config.tag_digits + 1), "column": columns},
        ),
        "numbers": Panel(
            number, shuffled, {**parts, "names": strips.numbers(most)}, (), config.number_steps,
            {
                "exact": ("digits",), "strip": ("example", "column", "pixel"), "number": ("example",),
                "words": ("example", "word"), "attention": ("example", "word", "column"),
            },
            {"digits": range(1, most + 1)},
        ),
    }  # fmt: skip


def sweeps(config: Config) -> dict[str, partial]:
    """A sweep for each panel, ready to be called (or planned)."""
    key, found = jax.random.key(config.seed), {}
    for number, (name, panel) in enumerate(_panels(config).items()):
        every = panel.steps // config.evaluations
        training = TrainConfig(
            steps=panel.steps, batch_size=config.batch, evaluate_every=every, select="validation_loss",
            evaluate=("validation",), evaluation_batch=lanes.EVALUATION_BATCH,
        )  # fmt: skip
        found[name] = partial(
            sweep, partial(panel.lane, learning=lanes.Learning(training, config.clip)),
            {**panel.axes, "rate": config.rates, "seed": range(config.seeds)}, key=jax.random.fold_in(key, number),
            data=panel.data, name=name, static=panel.static, width=None if name == "vector" else _width(),
            dims={"validation_loss": ("step",), **panel.dims},
            coords={"step": range(every, panel.steps + 1, every), **panel.coords},
        )  # fmt: skip
    return found


def _width() -> int | None:
    """Lanes side by side: a loop over steps gains nothing from them on a CPU."""
    return 1 if jax.default_backend() == "cpu" else None


def run(config: Config, *, store: Callable[[str], Store] | None = None, monitor: Monitor | None = None) -> xr.DataTree:
    """Train every net; ``store(name)`` keeps finished chunks. Returns a group a panel."""
    import xarray as xr

    groups = {
        name: call(store=store(name) if store else None, monitor=monitor) for name, call in sweeps(config).items()
    }
    groups["vector"].attrs |= {"hidden": config.hidden, "pictures": len(_parts(config)["test"].y)}
    groups["columns"].attrs |= {"units": config.units}
    groups["tags"].attrs |= {"units": config.units, "strips": config.strip_test_n}
    groups["numbers"].attrs |= {"units": config.number_units, "strips": config.strip_test_n}
    return xr.DataTree.from_dict(groups, name="sequence_shapes")


def main(argv: list[str] | None = None) -> int:
    """The command line: see ``--help``."""
    return command.main("experiments.sequence_shapes", argv)


if __name__ == "__main__":
    sys.exit(main())
