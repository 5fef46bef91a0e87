"""The report of the adding problem: every claim with what was measured, whether it holds or not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from experiments._adding_problem_lanes import CELLS
from nnjax.results import Row
from nnjax.statistics import interval_verdict, t_interval

if TYPE_CHECKING:
    import xarray as xr

GUESSING = 1 / 6
"""Mean squared error of always saying 1."""
UNLEARNED, LEARNED = 0.1, 0.01
"""At least so much is near guessing; below so much the sum is carried."""
SIMPLE, GATED = "rnn", ("lstm", "gru")
_OWN = "this study's own check"


def panels(results: xr.DataTree) -> dict[int, xr.Dataset]:
    """Datasets by length, ascending."""
    found = [results[name].to_dataset() for name in results.children if name.startswith("length_")]
    return {int(each.attrs["length"]): each for each in sorted(found, key=lambda each: int(each.attrs["length"]))}


def curves(panel: xr.Dataset, split: str) -> np.ndarray:
    """Mean squared errors (cells, rates, seeds, evaluations); one that is not finite is that of guessing."""
    found = panel[f"{split}_loss"].transpose("cell", "rate", "seed", "step").values
    return np.where(np.isfinite(found), found, GUESSING)


def chosen_rates(panel: xr.Dataset) -> np.ndarray:
    """For each cell the place of the rate whose last validation error is least, mean over seeds: (cells,)."""
    return curves(panel, "validation")[..., -1].mean(axis=2).argmin(axis=1)


def errors(panel: xr.Dataset, cell: str, split: str = "test") -> np.ndarray:
    """Errors along training at the chosen rate, (seeds, evaluations)."""
    place = list(panel["cell"].values).index(cell)
    return curves(panel, split)[place, chosen_rates(panel)[place]]


def gradient(panel: xr.Dataset, cell: str, when: str) -> np.ndarray:
    """What is left of the last state's gradient after every step, base 10, at the chosen rate, (seeds, steps)."""
    place = list(panel["cell"].values).index(cell)
    found = panel["gradient"].sel(cell=cell, when=when).isel(rate=chosen_rates(panel)[place])
    return np.asarray(found.transpose("seed", "after").values, float)


def report(results: xr.DataTree) -> list[Row]:
    """Every claim of the study, each with what was measured, whether it holds or not."""
    rows = []
    for length, panel in panels(results).items():
        longest = length == max(panels(results))
        rows += [_error(panel, cell, claimed=longest) for cell in CELLS]
        rows += [_left(panel, cell) for cell in GATED]
        rows += [_reaches(panel, cell) for cell in GATED]
    return rows


def _claim(cell: str, claimed: bool) -> str:
    if cell == SIMPLE and claimed:
        return "stays near guessing"
    if cell in GATED and claimed:
        return "carries the sum"
    return "how far it comes"


def _error(panel: xr.Dataset, cell: str, *, claimed: bool) -> Row:
    found = errors(panel, cell)[:, -1]
    interval = t_interval(found)
    solved = f"{(found < LEARNED).sum()} of {len(found)} seeds below {LEARNED:g}"
    place = chosen_rates(panel)[list(panel["cell"].values).index(cell)]
    rate = float(panel["rate"].values[place])
    if lost := int(panel["diverged"].sel(cell=cell).isel(rate=place).sum()):
        solved += f"; {lost} diverged"
    words = _claim(cell, claimed)
    said = "-"
    tolerance = "-"
    if words == "stays near guessing":
        tolerance = f"at least {UNLEARNED:g}"
        said = interval_verdict(interval, above=UNLEARNED)
    elif words == "carries the sum":
        tolerance = f"below {LEARNED:g}"
        said = interval_verdict(interval, below=LEARNED)
    return Row(
        f"T = {panel.attrs['length']}, {cell}: {words}", f"mean squared error (guessing {GUESSING:.3f}), rate {rate:g}",
        f"{found.mean():.4g}; {solved}", _interval(interval), len(found), "-", "-" if said == "-" else _OWN, tolerance,
        said,
    )  # fmt: skip


def _interval(interval: tuple) -> str:
    return f"[{interval[1]:.3g}, {interval[2]:.3g}]"


def _left(panel: xr.Dataset, cell: str) -> Row:
    """At the start: what is left at the first step for the simple net against a gated one, by seed."""
    simple, gated = (gradient(panel, each, "start")[:, 0] for each in (SIMPLE, cell))
    gap = t_interval(simple - gated)
    return Row(
        f"T = {panel.attrs['length']}: untrained, less of the gradient reaches the first step of the {SIMPLE} than of "
        f"the {cell}",
        "log10 of what is left, difference by seed",
        f"{gap.mean:.1f} ({simple.mean():.1f} against {gated.mean():.1f})", _interval(gap), len(simple), "-",
        "Pascanu et al. (2013), direction", "interval excludes 0", interval_verdict(gap, below=0),
    )  # fmt: skip


def _reaches(panel: xr.Dataset, cell: str) -> Row:
    """After training: what is left at the first step, against the start."""
    start, end = (gradient(panel, cell, when)[:, 0] for when in ("start", "end"))
    gap = t_interval(end - start)
    return Row(
        f"T = {panel.attrs['length']}, {cell}: training lets more of the gradient reach the first step",
        "log10 of what is left, difference by seed",
        f"{gap.mean:+.1f} ({end.mean():.1f} against {start.mean():.1f})", _interval(gap), len(start), "-", _OWN,
        "interval excludes 0", interval_verdict(gap, above=0),
    )  # fmt: skip
