"""Rows of the 10-5-10 encoder: an independent implementation's numbers (tight), and the published ones (wide)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from experiments._optimizers_lanes import ENCODER_RULES
from experiments._optimizers_rows import holds, own
from nnjax.results import Row
from nnjax.statistics import Interval, t_interval, verdict

if TYPE_CHECKING:
    import xarray as xr

PUBLISHED = {"backprop": 121.0, "supersab": 55.0, "quickprop": 21.0, "rprop+ 2": 19.0}
"""Mean epochs on the 10-5-10 encoder in Riedmiller and Braun (1993)."""

PUBLISHED_DEVIATION = 30.0
"""Standard deviation over runs that they give for backpropagation, its row having no baseline."""

REFERENCE = {"backprop": 128.7, "quickprop": 21.3, "rprop+ 0.1": 25.3, "rprop+ 2": 18.2, "irprop- 0.1": 25.1}
"""Mean epochs by an independent implementation, 100 starts from U(-1, 1)."""

BAND = 0.1
"""Relative width of the band around a reference."""

SOLVED = 0.9
"""Share of starts that a rule must solve: the mean of fewer says little of the rule."""

LEAST = 20
"""Starts below which nothing is judged."""


def is_solved(encoder: xr.Dataset, rule: str) -> np.ndarray:
    """Which starts a rule solved, (seeds,)."""
    return encoder["epochs"].sel(rule=rule).values <= encoder.attrs["bound"]


def solved(encoder: xr.Dataset, rule: str) -> np.ndarray:
    """Epochs of the starts that a rule solved."""
    return encoder["epochs"].sel(rule=rule).values[is_solved(encoder, rule)].astype(float)


def effect(encoder: xr.Dataset, rule: str) -> np.ndarray:
    """Epochs of a rule minus our own backpropagation's from the same start, where both solved it."""
    both = is_solved(encoder, rule) & is_solved(encoder, "backprop")
    epochs = encoder["epochs"].astype(float)
    return (epochs.sel(rule=rule) - epochs.sel(rule="backprop")).values[both]


def in_band(samples: np.ndarray, reference: float, starts: int) -> str:
    """Whether the mean's 95 % interval lies inside the band around a reference (holds), or outside (fails).

    ``samples`` are the epochs of the solved ones of ``starts``; with less than `SOLVED` of them it fails.
    """
    if starts < LEAST:
        return "inconclusive"
    if len(samples) < SOLVED * starts:
        return "fails"
    found, low, high = t_interval(samples), (1 - BAND) * reference, (1 + BAND) * reference
    return holds(low <= found.low and found.high <= high, bool(found.low > high or found.high < low))


def as_published(samples: np.ndarray, gain: np.ndarray, published: float, baseline: float, starts: int) -> str:
    """`nnjax.statistics.verdict` with a baseline of our own, paired: ``gain`` is what each start has over it.

    The published effect gives the tolerance and the sign; with less than `SOLVED` of the starts solved the number is
    not reproduced.
    """
    if starts < LEAST:
        return "inconclusive"
    if len(samples) < SOLVED * starts:
        return "not reproduced"
    tolerance, sign = 0.5 * abs(published - baseline), np.sign(published - baseline)
    said = verdict(samples, published, tolerance)
    if len(gain) < LEAST or not t_interval(sign * gain).low > 0:
        return said if said == "not reproduced" and sign * (samples.mean() - published) < 0 else "inconclusive"
    if said == "not reproduced":
        return "better" if sign * (samples.mean() - published) > 0 else "direction only"
    return said if said == "reproduced" else "direction only"


def encoder_rows(encoder: xr.Dataset) -> list[Row]:
    """A row a rule and source; a rule with neither is shown too."""
    rows, starts = [], encoder.sizes["seed"]
    for rule in ENCODER_RULES:
        epochs = solved(encoder, rule)
        told, interval = _told(encoder, rule), t_interval(epochs) if len(epochs) else "-"
        claim, quantity = f"10-5-10 encoder, {rule}", "mean epochs of solved starts"
        if rule in REFERENCE:
            reference = REFERENCE[rule]
            rows.append(
                Row(f"{claim}: as an independent implementation (tight band, {100 * BAND:g} %)", quantity, told,
                    str(interval), starts, f"{reference:g}", "U(-1, 1) starts, 100 seeds",
                    f"{100 * BAND:g} %; {100 * SOLVED:g} % solved (post hoc)", in_band(epochs, reference, starts))
            )  # fmt: skip
        if rule in PUBLISHED:
            rows.append(_published_row(encoder, rule, told, interval))
        if rule not in PUBLISHED and rule not in REFERENCE:
            rows.append(own(f"{claim}: nothing to compare", quantity, told, interval, starts, "-", "not comparable"))
    return rows


def _told(encoder: xr.Dataset, rule: str) -> str:
    """The mean of solved starts, their share, and the median of all, for which unsolved ones are the slowest."""
    epochs, bound = encoder["epochs"].sel(rule=rule).values, encoder.attrs["bound"]
    ended = epochs[epochs <= bound]
    mean, median = f"{ended.mean():.1f}" if len(ended) else "none", np.median(epochs)
    middle = f"{median:g}" if median <= bound else f"> {bound}"
    return f"{mean}; {len(ended)} of {len(epochs)} starts solved; median of all {middle}"


def _published_row(encoder: xr.Dataset, rule: str, told: str, interval: Interval | str) -> Row:
    published, baseline = PUBLISHED[rule], PUBLISHED["backprop"]
    starts, epochs, gain = encoder.sizes["seed"], solved(encoder, rule), effect(encoder, rule)
    if rule == "backprop":
        tolerance, width = PUBLISHED_DEVIATION, "the published deviation"
        said = verdict(epochs, published, tolerance) if len(epochs) >= SOLVED * starts else "not reproduced"
        said = said if starts >= LEAST else "inconclusive"
    else:
        tolerance, width = 0.5 * abs(published - baseline), "half the published effect"
        said = as_published(epochs, gain, published, baseline, starts)
        if len(gain):
            told += f"; {t_interval(gain).mean:+.1f} {t_interval(gain)} against our backprop, same starts"
    return Row(
        f"10-5-10 encoder, {rule}: as published (wide band, {width})",
        "mean epochs of solved starts" + "; effect over our own backpropagation, paired" * (rule != "backprop"),
        told,
        str(interval),
        starts,
        f"{published:g}" if rule == "backprop" else f"{published:g} ({published - baseline:+g})",
        "Riedmiller and Braun (1993), table (recalled)",
        f"{tolerance:g}; {100 * SOLVED:g} % solved (post hoc)",
        said,
    )
