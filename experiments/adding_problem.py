"""How far back does a net remember? The adding problem (Hochreiter and Schmidhuber, 1997).

Every step of a sequence has a random number and a mark; two steps are marked, one in each half, and after the last step
the net is asked for the sum of their numbers. To be better than always saying 1, it must carry a number over half of
the sequence and more, undisturbed by all the others.

Panels
  length_T   Sequences of T steps, for every T: a simple recurrent net from three starts, an LSTM and a GRU, the same
             numbers of units, sequences and updates. Test error along training; and at its beginning and end the norm
             of the loss's gradient in the state after every step, which is what is left of an error on its way back.

Cells
  rnn             tanh, weights uniform in +-1/sqrt(units), the usual default.
  rnn orthogonal  tanh, the state's matrix orthogonal: it keeps the length of whatever passes through it.
  relu identity   ReLU, the state's matrix the identity (Le, Jaitly and Hinton, 2015).
  lstm, gru       Orthogonal state matrices; the LSTM's forget gates begin open (bias 1), the GRU's update gates nearly
                  shut (bias -1).

Falsifiable checks: with the longest sequences the simple net from its usual start stays near guessing (mean squared
error of at least 0.1; guessing is 1/6), while LSTM and GRU come below 0.01; and at the start less of the gradient is
left at the first step for the simple net than for the LSTM and the GRU (paired by seed). Whether the two other starts
of the simple net are enough is open and reported.

What is random: a seed draws the sequences, the weights and the order; all cells of a seed see the same sequences in the
same order. Learning rates are chosen for each cell on validation sequences (mean over seeds), and the test sequences
are asked once. Intervals are t-intervals over seeds. Diverged seeds are counted; an error of theirs that is not finite
counts as that of guessing.

Sources: Hochreiter and Schmidhuber (1997), the problem and the LSTM's solution at 100 to 1000 steps; Bengio, Simard and
Frasconi (1994) and Pascanu, Mikolov and Bengio (2013), the norm of the gradient; Le, Jaitly and Hinton (2015), the
identity start and a published comparison at 150 to 400 steps; Arjovsky, Shah and Bengio (2016), the form with a mark in
each half. Their numbers are for other sizes and rules of training: none is compared.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import jax

from experiments import _adding_problem_lanes as lanes
from experiments import command
from experiments._adding_problem_figures import plot
from experiments._adding_problem_report import report
from nnjax.sweep import sweep
from nnjax.train import Config as TrainConfig

if TYPE_CHECKING:
    import xarray as xr

    from nnjax.monitor import Monitor
    from nnjax.sweep import Store

__all__ = ["PRESETS", "Config", "main", "plot", "report", "run", "sweeps"]


@dataclass(frozen=True)
class Config:
    """What is studied; sizes are numbers of steps, sequences, units or updates."""

    seed: int = 0
    """Seed of everything."""
    lengths: tuple[int, ...] = (10, 50)
    """Steps of the sequences, ascending."""
    seeds: int = 5
    """Seeds."""
    rates: tuple[float, ...] = (0.003, 0.01)
    """Learning rates (Adam) to choose from."""
    units: int = 32
    """Hidden units."""
    train_n: int = 10_000
    """Training sequences."""
    validation_n: int = 1000
    """Validation sequences."""
    test_n: int = 1000
    """Test sequences."""
    steps: int = 1000
    """Updates."""
    batch: int = 32
    """Sequences an update."""
    clip: float = 1.0
    """Largest norm of an update's gradient."""
    evaluations: int = 10
    """Evaluations along the run, a divisor of the updates."""

    def __post_init__(self) -> None:
        command.check_numbers(self, {
            "seed": 0, "lengths": 2, "seeds": 2, "rates": 0, "units": 1, "train_n": 1, "validation_n": 2, "test_n": 2,
            "steps": 1, "batch": 1, "clip": 0, "evaluations": 1,
        })  # fmt: skip
        if not self.rates or not min(self.rates) > 0:
            raise ValueError(f"rates={self.rates} must hold positive learning rates")
        if not self.lengths:
            raise ValueError("lengths=() must hold at least one length")
        if not 0 < self.clip < float("inf"):
            raise ValueError(f"clip={self.clip} must be positive")
        if self.batch > self.train_n:
            raise ValueError(f"batch={self.batch} must be at most train_n={self.train_n}")
        if self.steps % self.evaluations:
            raise ValueError(f"steps={self.steps} must be a multiple of evaluations={self.evaluations}")


_QUICK = Config()
_STANDARD = replace(
    _QUICK, lengths=(50, 200), units=64, train_n=50_000, validation_n=2000, test_n=5000, steps=4000, batch=64,
    evaluations=20,
)  # fmt: skip
PRESETS = {
    "quick": _QUICK,
    "standard": _STANDARD,
    "full": replace(
        _STANDARD, lengths=(50, 100, 200, 400, 750), seeds=20, rates=(0.001, 0.003, 0.01), units=128, train_n=100_000,
        test_n=10_000, steps=20_000,
    ),
}  # fmt: skip


def sweeps(config: Config) -> dict[str, partial]:
    """A sweep for each length, ready to be called (or planned)."""
    key, every = jax.random.key(config.seed), config.steps // config.evaluations
    training = TrainConfig(
        steps=config.steps, batch_size=config.batch, evaluate_every=every, evaluation_batch=lanes.EVALUATION_BATCH
    )
    found = {}
    for length in config.lengths:
        name = f"length_{length}"
        lane = partial(
            lanes.lane, length=length, units=config.units, clip=config.clip, config=training,
            sizes=(config.train_n, config.validation_n, config.test_n),
        )  # fmt: skip
        found[name] = partial(
            sweep, lane, {"cell": list(lanes.CELLS), "rate": config.rates, "seed": range(config.seeds)},
            key=jax.random.fold_in(key, length), name=name, static=("cell",), width=_width(),
            dims={
                **dict.fromkeys(("train_loss", "validation_loss", "test_loss"), ("step",)),
                "gradient": ("when", "after"),
            },
            coords={
                "step": range(every, config.steps + 1, every), "when": ["start", "end"], "after": range(1, length + 1)
            },
        )  # fmt: skip
    return found


def _width() -> int | None:
    """Lanes side by side: a loop over steps gains nothing from them on a CPU."""
    return 1 if jax.default_backend() == "cpu" else None


def run(config: Config, *, store: Callable[[str], Store] | None = None, monitor: Monitor | None = None) -> xr.DataTree:
    """Train every cell on every length; ``store(name)`` keeps finished chunks. Returns a group a length."""
    import xarray as xr

    groups = {
        name: call(store=store(name) if store else None, monitor=monitor) for name, call in sweeps(config).items()
    }
    for length, dataset in zip(config.lengths, groups.values(), strict=True):
        dataset.attrs |= {"length": length, "units": config.units}
    return xr.DataTree.from_dict(groups, name="adding_problem")


def main(argv: list[str] | None = None) -> int:
    """The command line: see ``--help``."""
    return command.main("experiments.adding_problem", argv)


if __name__ == "__main__":
    sys.exit(main())
