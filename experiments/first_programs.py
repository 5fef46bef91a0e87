"""First programs: the small programs that every course starts with, each measured over seeds beside an oracle.

Panels
  iris          A (7, 4) MLP on iris, on all features and on two; scikit-learn's MLPClassifier on the same splits.
  plain_arrays  A two-layer logistic net in plain array code: by hand without biases, by hand with them, with autodiff.
  negation      NOT of one bit: 40 samples (20 of each), dense 16-32-2, ReLU, Glorot uniform, Adam 1e-4, batch 2.
  gates, xor    Truth tables with the delta rule; XOR with a hidden layer.
  recurrence    A recurrent net of two steps on a 4 x 3 batch, unrolled and scanned.
  people        Six people by height and weight: two classifiers, and k-means without the labels.
  walk, apple   The next closing price from three days' closes, then from closes and opens (apple: standard, full).
  sentiment     240 short restaurant reviews: word lists against a learned bag of words.

Falsifiable checks: our MLP and scikit-learn's differ by less than .03 in mean accuracy (a test flower in 30); gradients
by hand and by autodiff lead to equal weights; NOT is learned by at least 90 of 100 seeds, and its loss falls in every
epoch of at least 95; tomorrow = today is not beaten by more than 1 % in RMSE by a line or a net; a learned bag of words
beats a word list. Measured in the quick preset:
  hold      equal weights, NOT (99 and 100 of 100), tomorrow = today on random walks.
  open      MLP against scikit-learn's: mean accuracies are within .01, but 150 flowers cannot narrow it down to .03;
            also whether a bias per layer helps.
  does not  The learned bag of words does not beat the word list (.59 against .65, interval of the difference around
            0), and is clearly worse than the list whose negators turn words (.81).
The checks were fixed beforehand, but the sentences were rewritten once and the splits changed to keep twins together
after a first version had been run: what is said of sentiment is of this second version.

"Sparse cross-entropy on two logistic outputs" has three readings. Keras takes outputs for probabilities, clips them and
divides by their sum (normalized): the claim is judged by this one. Versions of it that remember the logits behind an
activation take their softmax cross-entropy instead (logits). Without dividing by the sum (not normalized) both outputs
may rise together, and nothing makes the wrong one fall. Accuracy is of the larger output.

Intervals: seeds draw splits, weights, walks. Repeated splits of the 150 flowers or the 240 sentences share examples, so
their intervals are widened as Nadeau and Bengio (2003) do. Apple is one series: its intervals are over test days.
Prices are split by time, and scales come from the earlier part alone.

The sentences and the word lists are this project's own and small, and results hold for them: a third says it by
negation, and each has a twin on the same subject with the other label. Splits keep twins together. Where they do not
(an arm shows it), the subject's words learned from one twin name the wrong label of the other.

Sources: Fisher (1936), iris; Rumelhart, Hinton and Williams (1986); Rosenblatt (1958); Elman (1990).
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from experiments import _first_programs_lanes as lanes
from experiments import _first_programs_tables as tables
from experiments import command
from experiments._first_programs_figures import plot
from experiments._first_programs_report import report
from nnjax.data.series import load_series
from nnjax.sweep import sweep

if TYPE_CHECKING:
    import xarray as xr

    from nnjax.monitor import Monitor
    from nnjax.sweep import Store

__all__ = ["PRESETS", "Config", "main", "plot", "report", "run", "sweeps"]


@dataclass(frozen=True)
class Config:
    """What is studied."""

    seed: int = 0
    """Seed of everything."""
    iris_seeds: int = 100
    """Splits and starts of the iris panel."""
    iris_epochs: int = 200
    """Full-batch epochs of both MLPs (200 is scikit-learn's own default)."""
    iris_rate: float = 0.01
    """Adam's learning rate for both MLPs."""
    arrays_seeds: int = 20
    """Splits and starts of the plain-array nets."""
    arrays_steps: int = 1000
    """Full-batch updates of the plain-array nets."""
    arrays_rate: float = 2.0
    """Learning rate of the plain-array nets."""
    negation_seeds: int = 100
    """Starts of the nets that learn NOT."""
    negation_epochs: int = 20
    """Their epochs."""
    negation_rate: float = 1e-4
    """Adam's learning rate for them."""
    xor_seeds: int = 20
    """Starts of the net that learns XOR."""
    xor_epochs: int = 1000
    """Its full-batch epochs, a multiple of 10."""
    walk_seeds: int = 20
    """Random walks of the price panel."""
    walk_days: int = 500
    """Trading days of a walk."""
    apple: bool = False
    """Also real prices, of Apple shares (downloaded)."""
    prices_steps: int = 500
    """Full-batch updates of the price net."""
    sentiment_seeds: int = 40
    """Splits of the sentences."""
    sentiment_strength: float = 1.0
    """The classifier's C: weight of the data against the penalty |w|^2 / 2."""

    def __post_init__(self) -> None:
        command.check_numbers(self, _LEAST)
        for name in ("iris_rate", "arrays_rate", "negation_rate", "sentiment_strength"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ValueError(f"{name}={getattr(self, name)} must be positive")
        if self.xor_epochs % 10:
            raise ValueError(f"xor_epochs={self.xor_epochs} must be a multiple of 10")


_LEAST = {
    "seed": 0, "iris_seeds": 2, "iris_epochs": 1, "arrays_seeds": 2, "arrays_steps": 2, "negation_seeds": 2,
    "negation_epochs": 2, "xor_seeds": 1, "xor_epochs": 10, "walk_seeds": 2, "walk_days": 20, "prices_steps": 1,
    "sentiment_seeds": 2,
}  # fmt: skip

PRESETS = {
    "quick": Config(),
    "standard": Config(
        iris_seeds=200, arrays_seeds=100, negation_seeds=1000, xor_seeds=100, walk_seeds=200, apple=True,
        sentiment_seeds=200,
    ),
    "full": Config(
        iris_seeds=1000, arrays_seeds=100, negation_seeds=10_000, xor_seeds=1000, walk_seeds=1000, walk_days=2500,
        apple=True, sentiment_seeds=1000,
    ),
}  # fmt: skip

IRIS_SHARE, SENTENCE_SHARE = 0.8, 0.75
"""Shares of the flowers and of the sentences that are trained on."""


def _iris_data(seeds: int, seed: int, dtype: type = np.float32) -> dict[str, np.ndarray]:
    x, y = tables.iris()
    return {"x": x.astype(dtype), "y": y} | tables.repeated_splits(y, IRIS_SHARE, seeds, seed)


def sweeps(config: Config) -> dict[str, partial]:
    """Every panel's sweep, ready to be called (or planned)."""
    key = jax.random.key(config.seed)
    found = _net_sweeps(config, key)
    days = config.walk_days
    of_days = ("price", "linear_guess", "net_guess", "naive_squared", "linear_squared", "net_squared")
    arms: dict[str, tuple[int, Any]] = {"walk": (config.walk_seeds, None)}
    if config.apple:
        series = load_series("apple")
        columns = [series.columns.index(name) for name in ("open", "close")]
        arms["apple"] = (max(20, config.walk_seeds // 10), {"prices": series.values[:, columns].astype(np.float32)})
    for number, (name, (seeds, data)) in enumerate(arms.items()):
        found[name] = partial(
            sweep, partial(lanes.prices_lane, days=days, steps=config.prices_steps),
            {"inputs": list(lanes.PRICES), "seed": range(seeds)}, key=jax.random.fold_in(key, 10 + number), data=data,
            name=name, static=("inputs",), width=1,  # the line is fitted by an eigendecomposition
            dims=dict.fromkeys(of_days, ("day",)),
        )  # fmt: skip
    found["sentiment"] = partial(
        sweep, partial(lanes.sentiment_lane, strength=config.sentiment_strength),
        {"arm": list(lanes.LEARNED), "seed": range(config.sentiment_seeds)}, key=jax.random.fold_in(key, 20),
        data={"label": tables.LABELS} | _sentence_splits(config) | tables.bags(), name="sentiment", static=("arm",),
        width=4, dims={"right": ("sentence",)},
    )  # fmt: skip
    return found


def _sentence_splits(config: Config) -> dict[str, np.ndarray]:
    return tables.sentence_splits(SENTENCE_SHARE, config.sentiment_seeds, config.seed)


def _net_sweeps(config: Config, key: jax.Array) -> dict[str, partial]:
    iris = partial(
        sweep, partial(lanes.iris_lane, epochs=config.iris_epochs, rate=config.iris_rate),
        {"features": list(lanes.FLOWERS), "seed": range(config.iris_seeds)}, key=jax.random.fold_in(key, 1),
        data=_iris_data(config.iris_seeds, config.seed), name="iris", static=("features",), width=32,
        dims={"region": ("y", "x")}, coords={"y": lanes.GRID, "x": lanes.GRID},
    )  # fmt: skip
    arrays = partial(
        sweep, partial(lanes.arrays_lane, steps=config.arrays_steps, rate=config.arrays_rate),
        {"form": list(lanes.FORMS), "seed": range(config.arrays_seeds)}, key=jax.random.fold_in(key, 2),
        data=_iris_data(config.arrays_seeds, config.seed, np.float64), name="plain_arrays", static=("form",),
        float64=True, width=32, dims={"loss": ("step",)},
    )  # fmt: skip
    bit = np.tile(np.array([0, 1], np.int32), 20)
    negation = partial(
        sweep, partial(lanes.negation_lane, epochs=config.negation_epochs, rate=config.negation_rate),
        {"reading": range(len(lanes.READINGS)), "seed": range(config.negation_seeds)}, key=jax.random.fold_in(key, 3),
        data={"bit": bit[:, None].astype(np.float32), "negation": 1 - bit}, name="negation",
        width=64, dims=dict.fromkeys(("running_loss", "loss", "accuracy"), ("epoch",)),
        coords={"epoch": range(1, config.negation_epochs + 1)},
    )  # fmt: skip
    xor = partial(
        sweep, partial(lanes.xor_lane, epochs=config.xor_epochs), {"seed": range(config.xor_seeds)},
        key=jax.random.fold_in(key, 4), name="xor", width=32, dims={"loss": ("epoch",)},
        data={"x": tables.TRUTH_TABLE, "xor": np.array(tables.GATES["XOR"], np.float32)[:, None]},
        coords={"epoch": range(0, config.xor_epochs + 1, 10)},
    )  # fmt: skip
    return {"iris": iris, "plain_arrays": arrays, "negation": negation, "xor": xor}


def run(config: Config, *, store: Callable[[str], Store] | None = None, monitor: Monitor | None = None) -> xr.DataTree:
    """Compute every panel; ``store(name)`` keeps a panel's finished chunks. Returns a group a panel."""
    import xarray as xr

    groups = {}
    for name, call in sweeps(config).items():
        groups[name] = call(store=store(name) if store else None, monitor=monitor)
    groups["negation"] = groups["negation"].assign_coords(reading=list(lanes.READINGS))
    splits = _iris_data(config.iris_seeds, config.seed)
    oracle = tables.oracle_right(splits, config.iris_epochs, config.iris_rate)
    groups["iris"]["scikit_learn_right"] = (("features", "seed"), oracle)
    groups["iris"].attrs["flowers"] = splits["test"].shape[1]
    for name in ("iris", "plain_arrays"):
        groups[name].attrs["test_ratio"] = splits["test"].shape[1] / splits["train"].shape[1]
    groups["shapes"] = tables.shapes_table()
    groups["gates"] = tables.gates_table()
    groups["recurrence"] = tables.recurrence_table(config.seed)
    groups["people"] = tables.people_table()
    groups["sentiment"] = groups["sentiment"].assign(_word_lists(config))
    tested = groups["sentiment"].sizes["sentence"]
    groups["sentiment"].attrs["test_ratio"] = tested / (len(tables.SENTENCES) - tested)
    return xr.DataTree.from_dict(groups, name="first_programs")


def _word_lists(config: Config) -> dict[str, Any]:
    """Of every split's test sentences: whether each list gets it right, and whether it has a negator in it.

    The lists are judged on the splits that keep twins together; ``negated_apart`` is of those that do not.
    """
    splits = _sentence_splits(config)
    test = splits["test_together"]
    negated = np.array([tables.is_negated(sentence) for sentence in tables.SENTENCES])
    lists = {name: tables.list_rightness(rule=rule) for name, rule in (("list", False), ("list_rule", True))}
    found = {name: (("seed", "sentence"), right[test]) for name, right in lists.items()}
    whole = {f"{name}_all": (("all",), right) for name, right in lists.items()}
    with_negator = {"negated": test, "negated_apart": splits["test_apart"]}
    masks = {name: (("seed", "sentence"), negated[places]) for name, places in with_negator.items()}
    return found | whole | masks | {"negated_all": (("all",), negated)}


def main(argv: list[str] | None = None) -> int:
    """The command line: see ``--help``."""
    return command.main("experiments.first_programs", argv)


if __name__ == "__main__":
    sys.exit(main())
