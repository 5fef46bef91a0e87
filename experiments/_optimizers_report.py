"""Report of the optimizers study: every claim and what was measured, with the rows of the exact panels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from experiments._optimizers_encoder_rows import encoder_rows
from experiments._optimizers_lanes import PLAIN, RAVINE_RULES, ROSENBROCK_RULES
from experiments._optimizers_rows import POST_HOC, holds, own
from experiments._optimizers_theory import first_within
from experiments._optimizers_trained_rows import generalization_rows, rate_rows, schedule_rows
from nnjax.results import Row

if TYPE_CHECKING:
    import xarray as xr


def report(tree: xr.DataTree) -> list[Row]:
    """A row for every claim, those that fail too."""
    return [
        *_ravine_rows(tree["ravine"].to_dataset()),
        *_rosenbrock_rows(tree["rosenbrock"].to_dataset()),
        *encoder_rows(tree["encoder"].to_dataset()),
        *rate_rows(tree["rates"].to_dataset(), tree["generalization"].to_dataset()),
        *schedule_rows(tree["schedules_chosen"].to_dataset()),
        *generalization_rows(tree["generalization"].to_dataset()),
        *_separable_rows(tree["separable"].to_dataset()),
    ]


def ravine_deviation(ravine: xr.Dataset) -> np.ndarray:
    """Largest distance between path and closed form over the path's size so far, (rates, rules)."""
    path, theory = ravine["path"].values, ravine["theory"].values
    size = np.maximum.accumulate(np.linalg.norm(theory, axis=-1), axis=-1)
    return (np.linalg.norm(path - theory, axis=-1) / size).max(axis=-1)


def _ravine_rows(ravine: xr.Dataset) -> list[Row]:
    off = float(ravine_deviation(ravine).max())
    here = ravine.sel(rate=ravine.attrs["rate"])
    steps = {rule: first_within(here["path"].sel(rule=rule).values) for rule in RAVINE_RULES}
    theory = {rule: first_within(here["theory"].sel(rule=rule).values) for rule in RAVINE_RULES}
    within = all(count < ravine.sizes["step"] for count in steps.values())
    slow, fast = steps["sgd"], max(steps["momentum"], steps["nesterov"])
    setting = f"rate {ravine.attrs['rate']:g}, momentum {ravine.attrs['momentum']:g}"
    return [
        Row(
            f"ravine: paths of {ravine.sizes['rate']} rates x {len(RAVINE_RULES)} rules equal the linear recurrence",
            "largest deviation over the path's size",
            f"{off:.1e}",
            "-",
            0,
            "theory",
            "Polyak (1964)",
            "1e-5",
            "agrees" if off <= 1e-5 else "differs",
        ),
        Row(
            f"ravine, {setting}: momentum and Nesterov are there before plain descent{POST_HOC}",
            "steps to stay within 1 % of the start's distance",
            ", ".join(f"{rule} {count}" for rule, count in steps.items()),
            "-",
            0,
            ", ".join(f"{rule} {count}" for rule, count in theory.items()),
            "linear recurrence",
            "exact",
            holds(within and fast < slow and steps == theory),
        ),
    ]


def fewest_steps(rosenbrock: xr.Dataset) -> xr.DataArray:
    """Steps to the threshold at the best rate, (rule,); the bound + 1 where it was never reached."""
    return rosenbrock["steps"].min("rate")


def _rosenbrock_rows(rosenbrock: xr.Dataset) -> list[Row]:
    bound, steps = int(rosenbrock.attrs["bound"]), fewest_steps(rosenbrock)
    named = ", ".join(f"{rule} {_count(int(steps.sel(rule=rule)), bound)}" for rule in ROSENBROCK_RULES)
    threshold = f"{rosenbrock.attrs['threshold']:g}"
    rates = rosenbrock["rate"].values
    small = rosenbrock["steps"].sel(rule="irprop-").values[rates <= 1]
    spread = float(small.max() / small.min()) if len(small) and small.max() <= bound else np.inf
    return [
        own(
            f"Rosenbrock: every rule reaches {threshold} within {bound} steps at some rate of the grid{POST_HOC}",
            "steps at the best rate",
            named,
            "-",
            0,
            f"<= {bound}",
            holds(bool((steps <= bound).all())),
        ),
        own(
            f"Rosenbrock: iRprop-'s steps hardly depend on its first step size, up to 1{POST_HOC}",
            f"most over fewest steps, sizes {rates[0]:g} to 1",
            f"{spread:.2f}",
            "-",
            0,
            "1.25",
            holds(spread <= 1.25),
        ),
        own(
            f"Rosenbrock: paths that overflow, of {rosenbrock['diverged'].size} pairs of rule and rate",
            "diverged pairs, by rule and their rates",
            _diverged(rosenbrock),
            "-",
            0,
            "none asked: too large a rate must diverge",
            "counted",
        ),
    ]


def _diverged(rosenbrock: xr.Dataset) -> str:
    """How many pairs of rule and rate diverged, and which."""
    named = []
    for rule in ROSENBROCK_RULES:
        bad = rosenbrock["rate"].values[rosenbrock["diverged"].sel(rule=rule).values]
        if len(bad):
            named.append(f"{rule} {len(bad)} ({bad.min():.2g} to {bad.max():.2g})")
    return f"{int(rosenbrock['diverged'].sum())}: {', '.join(named) or 'none'}"


def _count(steps: int, bound: int) -> str:
    return str(steps) if steps <= bound else f"> {bound}"


def separable_gap(separable: xr.Dataset) -> float:
    """Largest deviation of a rule's test error from theory."""
    return float(np.abs(separable["test_error"].values - separable["theory"].values).max())


def directions(separable: xr.Dataset) -> xr.DataArray:
    """Cosine between each rule's weights and those that theory names, (share, rule)."""
    adaptive = ~separable["rule"].isin(list(PLAIN))
    return separable["cosine_sign"].where(adaptive, separable["cosine_least_norm"])


def _separable_rows(separable: xr.Dataset) -> list[Row]:
    gap, trained = separable_gap(separable), float(separable["train_error"].max())
    cosine = float(directions(separable).min())
    shares = separable["share"].values
    where = f"Wilson's separable examples, {len(shares)} shares of positives"
    return [
        Row(
            f"{where}: adaptive rules are wrong on all new negatives, plain ones on none; training error 0",
            "largest deviation of the exact test error from theory",
            f"{gap:.1e} (training error {trained:g})",
            "-",
            0,
            "theory",
            "Wilson et al. (2017), section 3.3",
            "1e-6",
            "agrees" if gap <= 1e-6 and trained == 0 else "differs",
        ),
        Row(
            f"{where}: adaptive weights point along sign(X'y), plain ones along the solution of least norm{POST_HOC}",
            "smallest cosine",
            f"{cosine:.6f}",
            "-",
            0,
            "1",
            "Wilson et al. (2017), lemma 3.1",
            "1e-4",
            "agrees" if cosine >= 1 - 1e-4 else "differs",
        ),
    ]
