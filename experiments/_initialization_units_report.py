"""Rows of the initialisation study's report on inputs, zero and histograms.

A result that is NaN makes its row fail. One thing changed after trial runs: the rows on the speed of learning look at
the mean along the curve, for final accuracies were tied.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from experiments._initialization_training_report import verdict
from experiments._initialization_units import FAN_IN, INPUT_SCHEMES
from nnjax.results import Row
from nnjax.statistics import Interval, standard_error, t_interval

if TYPE_CHECKING:
    import xarray as xr

LEVEL = 3.0
"""Standard errors that a mean may be off."""


def above_zero(interval: Interval) -> str:
    """The verdict on "above 0": open where the interval contains 0; one with NaN fails."""
    return verdict(interval.low > 0, not interval.high >= 0)


def own(claim: str, quantity: str, measured: str, interval: Any, seeds: int, tolerance: str, said: str) -> Row:
    """A row of something that nobody published."""
    return Row(claim, quantity, measured, str(interval), seeds, "-", "own check", tolerance, said)


# Inputs and zero


def input_rows(panel: xr.Dataset) -> list[Row]:
    """The variance of one unit's net input, for each scheme."""
    found = []
    for scheme, variance in INPUT_SCHEMES.items():
        exact = FAN_IN * variance
        samples = (panel["sum"].sel(scheme=scheme) ** 2).mean("draw", skipna=False).values
        mean, error = float(samples.mean()), float(standard_error(samples))
        found.append(
            Row(
                f"a unit with 250 inputs of 1, {scheme}: variance of the sum {exact:g}, standard deviation "
                f"{exact**0.5:.3g}",
                f"variance over {panel.sizes['draw']} draws a seed", f"{mean:.4g} (deviation {mean**0.5:.4g})",
                str(t_interval(samples)), len(samples), f"{exact:g}", "250 x variance of a weight",
                f"{LEVEL:g} standard errors", verdict(abs(mean - exact) <= LEVEL * error),
            )
        )  # fmt: skip
    return found


def zero_rows(panel: xr.Dataset) -> list[Row]:
    """What stays equal when units start equal."""
    last, seeds = panel.isel(mark=-1), panel.sizes["seed"]
    steps = int(panel["mark"][-1])
    still = last["moved"].sel(start="zero", activation=["tanh", "relu"])
    weights = float(still.sel(group=["hidden", "output_weights"]).values.max())  # xarray's own max() skips NaN
    biases = float(still.sel(group="output_biases").values.min())
    found = [
        own(
            f"all weights 0, tanh or ReLU: in {steps} updates of SGD or Adam nothing moves but the output biases",
            "largest change of any weight or hidden bias; least of the output biases", f"{weights:g}; {biases:.2g}",
            "-", seeds, "exactly 0; above 0", verdict(weights == 0 and biases > 0),
        ),
        _equal_row("all weights 0, logistic", panel.sel(start="zero", activation=["logistic"]), steps),
        _equal_row(
            f"all weights {panel.attrs['constant']:g}, tanh, ReLU or logistic", panel.sel(start="constant"), steps
        ),
    ]  # fmt: skip
    apart = float(panel["nearest"].sel(start="random").values.min())
    found.append(
        own(
            "control: from random weights no two units of a layer are ever equal",
            "least distance between two units of a layer", f"{apart:.2g}", "-", seeds, "above 0.01",
            verdict(apart > 0.01),
        )
    )  # fmt: skip
    accuracy = last["accuracy"].sel(rule="adam", activation="tanh")
    equal, random = (accuracy.sel(start=start).values for start in ("constant", "random"))
    gain = t_interval(random - equal)
    found.append(
        own(
            "tanh with Adam: nets whose units start equal learn less than nets from random weights",
            "training accuracy, random minus constant start",
            f"{gain.mean:+.3f} ({equal.mean():.3f} from a constant)", gain, seeds, "interval above 0", above_zero(gain),
        )
    )  # fmt: skip
    return found


def _equal_row(start: str, panel: xr.Dataset, steps: int) -> Row:
    """Units learn and stay equal; distances are exact, so they are zero or they are not."""
    apart = float(panel["distance"].values.max())
    moved = float(panel["moved"].isel(mark=-1).sel(group="hidden").values.min())
    return own(
        f"{start}: a layer's hidden units learn and stay equal to the last bit over {steps} updates of SGD and Adam",
        "largest distance between two units; least change of hidden parameters", f"{apart:g}; {moved:.2g}", "-",
        panel.sizes["seed"], "exactly 0; above 0", verdict(apart == 0 and moved > 0),
    )  # fmt: skip


# Histograms


_SOURCES = {"tanh": "Glorot and Bengio (2010), direction"}
"""They had their start in nets of tanh and softsign units; the other activations here are own checks."""

_STARTS = ("xavier_uniform", "standard")


def histogram_rows(panel: xr.Dataset) -> list[Row]:
    """What Xavier's start does to activations, gradients and learning, against the usual one before it."""
    found = []
    for activation in panel["activation"].values:
        here = panel.sel(activation=activation)
        found.append(_shrink_row(here, "delta_rms", "gradients", "rms", 1, panel.sizes["layer"]))
        found.append(_shrink_row(here, "activation_std", "activations", "standard deviation", panel.sizes["layer"], 1))
        found.append(_speed_row(here))
    return found


def _source(here: xr.Dataset) -> str:
    return _SOURCES.get(here["activation"].item(), "own check")


def _shrink_row(here: xr.Dataset, name: str, words: str, measure: str, end: int, start: int) -> Row:
    """How much of a signal is left from one layer to another before training, from both starts."""
    ratio: Any = np.log(here[name].sel(layer=end, time="start") / here[name].sel(layer=start, time="start"))
    left = {scheme: ratio.sel(scheme=scheme).values for scheme in _STARTS}
    gain = t_interval(left["xavier_uniform"] - left["standard"])
    shown = [f"{np.exp(left[scheme].mean()):.3g}" for scheme in _STARTS]
    return Row(
        f"before training, {here['activation'].item()}: {words} shrink less with Xavier's start than with "
        "U(-1/sqrt n, 1/sqrt n)",
        f"{measure}, layer {end} over layer {start}; interval: the two's ratio", f"{shown[0]} against {shown[1]}",
        f"[{np.exp(float(gain.low)):.3g}, {np.exp(float(gain.high)):.3g}]", len(ratio["seed"]), "-", _source(here),
        "interval above 1", above_zero(gain),
    )  # fmt: skip


def _speed_row(here: xr.Dataset) -> Row:
    accuracy = here["accuracy"].isel(mark=slice(1, None)).transpose("seed", "scheme", "mark")
    curves = {scheme: accuracy.sel(scheme=scheme).values for scheme in _STARTS}
    gap = t_interval((curves["xavier_uniform"] - curves["standard"]).mean(axis=1))
    means, ends = ([f"{curve[:, at].mean():.3f}" for curve in curves.values()] for at in (slice(None), -1))
    return Row(
        f"{here['activation'].item()}: nets learn faster from Xavier's start than from U(-1/sqrt n, 1/sqrt n)",
        f"training accuracy, mean along the curve of {int(here['mark'][-1])} updates; interval: the difference",
        f"{means[0]} against {means[1]} (at the end {ends[0]}, {ends[1]})", str(gap), len(accuracy), "-", _source(here),
        "interval above 0", above_zero(gap),
    )  # fmt: skip
