"""The report of the forecasting study: every claim with what was measured, and who beats whom on every series."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from experiments._forecasting_intervals import Difference, holm, ratio_difference
from experiments._forecasting_lanes import BEST, CELLS, LINEAR, NAIVE, SEASONAL
from experiments._forecasting_series import CONTROLS, SERIES
from nnjax.results import Row
from nnjax.statistics import Interval, interval_verdict

if TYPE_CHECKING:
    import xarray as xr

MARGIN = 0.05
"""Of equivalence: mean losses that differ by less of the other's are as good as each other."""
_MARGIN = f"{100 * MARGIN:g} %"
MODELS = (NAIVE, SEASONAL, LINEAR, *CELLS)
_OWN = "this study's own check"


_WORDS = {"beats": {"below": 0.0}, "worse": {"above": 0.0}, "equivalent": {"above": -MARGIN, "below": MARGIN}}
"""Where the interval of a difference lies, and what that is called; the first that fits."""


class Comparison(NamedTuple):
    """A model against another on one series.

    Attributes:
      series, model, other: names.
      difference: of mean losses, as a share of the other's.
    """

    series: str
    model: str
    other: str
    difference: Difference

    @property
    def said(self) -> str:
        """beats, worse, equivalent or open."""
        if not np.isfinite(self.difference.mean):  # forecasts that are no numbers
            return "worse"
        for word, limits in _WORDS.items():
            if interval_verdict(self.interval, **limits) == "holds":
                return word
        return "open"

    @property
    def interval(self) -> Interval:
        """Of the difference."""
        return Interval(*(np.asarray(value) for value in self.difference[:3]))


def panels(results: xr.DataTree) -> dict[str, xr.Dataset]:
    """Datasets by series, in the study's order."""
    return {name: results[name].to_dataset() for name in SERIES if name in results.children}


def chosen_rates(panel: xr.Dataset, cell: str) -> np.ndarray:
    """For each fold the place of the rate with the least loss on the validation windows, mean over seeds: (folds,)."""
    found = panel["chosen_loss"].sel(cell=cell).transpose("rate", "fold", "seed").values
    return np.where(np.isfinite(found), found, np.inf).mean(axis=2).argmin(axis=0)


def at_chosen(panel: xr.Dataset, cell: str, name: str) -> np.ndarray:
    """A result of a cell at the rates chosen for each fold, (seeds, folds, ...)."""
    found = panel[name].sel(cell=cell).transpose("rate", "fold", "seed", ...).values
    chosen = chosen_rates(panel, cell)
    return np.moveaxis(found[chosen, np.arange(len(chosen))], 1, 0)


def forecasts(panel: xr.Dataset, model: str) -> np.ndarray:
    """Forecasts of all folds, (seeds, folds, m); one "seed" where a model has none."""
    if model in CELLS:
        return at_chosen(panel, model, "forecast").astype(float)
    return panel["baseline"].sel(model=model).transpose("fold", "place").values[None].astype(float)


def errors(panel: xr.Dataset, model: str) -> np.ndarray:
    """Observations less forecasts, in the series' unit, (seeds, folds, m)."""
    return panel["truth"].transpose("fold", "place").values[None] - forecasts(panel, model)


def squared(panel: xr.Dataset, model: str) -> np.ndarray:
    """Losses in order of time, (seeds, targets)."""
    found = errors(panel, model) ** 2
    return found.reshape(len(found), -1)


def rmse(panel: xr.Dataset, model: str) -> float:
    """Root of the mean loss, also over seeds."""
    return float(np.sqrt(squared(panel, model).mean()))


def mase(panel: xr.Dataset, model: str) -> float:
    """Mean absolute error over the last value's in each training part (Hyndman and Koehler, 2006), mean of folds."""
    absolute = np.abs(errors(panel, model)).mean(axis=(0, 2))
    return float((absolute / panel["naive_step"].values).mean())


def compare(series: str, panel: xr.Dataset, model: str, other: str) -> Comparison:
    """A model against another, which needs no seed; forecasts that are no numbers have no interval and no p.

    Raises:
      ValueError: ``other`` is a net.
    """
    losses, others = squared(panel, model), _of_one(panel, other)
    found = ratio_difference(losses, others) if np.isfinite(losses).all() else _NO_NUMBERS
    return Comparison(series, model, other, found)


def from_best(series: str, panel: xr.Dataset, model: str) -> Comparison:
    """How far a model's forecasts are from the best possible ones, as a share of the loss that those leave.

    The best possible forecast leaves noise that nobody's forecast knows of, so that the mean loss of another is larger
    by its mean squared distance from the best one, in expectation; that distance has far less noise.
    """
    distance = (forecasts(panel, model) - forecasts(panel, BEST)) ** 2
    losses, others = distance.reshape(len(distance), -1), _of_one(panel, BEST)
    finite = np.isfinite(losses).all()
    found = ratio_difference(losses, np.zeros_like(others), others) if finite else _NO_NUMBERS
    return Comparison(series, model, BEST, found)


_NO_NUMBERS = Difference(np.inf, np.nan, np.nan, np.nan)


def _of_one(panel: xr.Dataset, other: str) -> np.ndarray:
    """Losses (targets,) of a model that needs no seed."""
    if other in CELLS:
        raise ValueError(f"other={other!r} has losses of several seeds; compare with one of {', '.join(MODELS[:3])}")
    return squared(panel, other)[0]


def comparisons(results: xr.DataTree) -> list[Comparison]:
    """Every learned model against the baselines, series by series."""
    found = []
    for name, panel in panels(results).items():
        found += [compare(name, panel, LINEAR, other) for other in (NAIVE, SEASONAL)]
        found += [compare(name, panel, cell, other) for cell in CELLS for other in (NAIVE, SEASONAL, LINEAR)]
    return found


def best_baseline(panel: xr.Dataset) -> str:
    """The baseline with the least test error: in hindsight, which favors it."""
    return min((NAIVE, SEASONAL, LINEAR), key=lambda model: rmse(panel, model))


def report(results: xr.DataTree) -> list[Row]:
    """Every claim of the study, and for every series how far off each model is and whom it beats."""
    found, rows = panels(results), []
    for name, panel in found.items():
        rows += _claims(name, panel)
    every = comparisons(results)
    for name, panel in found.items():
        rows += [_errors(name, panel, model, every) for model in MODELS]
    return [*rows, _many(every)]


# What was fixed beforehand


def _claims(name: str, panel: xr.Dataset) -> list[Row]:
    if name in CONTROLS:
        return [_not_better(name, panel, model) for model in (LINEAR, *CELLS)]
    if name == "cycle":
        return [_reaches(name, panel)]
    return [_beats_line(name, panel, cell) for cell in CELLS] if name == "nonlinear" else []


def _claim(text: str, found: Comparison, panel: xr.Dataset, tolerance: str, said: str) -> Row:
    measured = f"{_percent(found.difference.mean)} (RMSE {_short(rmse(panel, found.model))} against "
    return Row(
        text, f"mean squared error against {found.other}", f"{measured}{_short(rmse(panel, found.other))})",
        _interval(found.difference), _seeds(panel, found.model), "-", _OWN, tolerance, said,
    )  # fmt: skip


def _not_better(name: str, panel: xr.Dataset, model: str) -> Row:
    found = compare(name, panel, model, NAIVE)
    said = interval_verdict(found.interval, above=-MARGIN)
    return _claim(f"{name}: {model} is no better than the last value", found, panel, f"above -{_MARGIN}", said)


def _reaches(name: str, panel: xr.Dataset) -> Row:
    found, plain = from_best(name, panel, LINEAR), compare(name, panel, LINEAR, BEST)
    return Row(
        f"{name}: the linear model is within {_MARGIN} of the best possible",
        "mean squared distance from the best forecast, share of its loss",
        f"{100 * found.difference.mean:.1f} % (by losses alone {_percent(plain.difference.mean)} "
        f"{_interval(plain.difference)})", _interval(found.difference), 0, "-", _OWN, f"below {_MARGIN}",
        interval_verdict(found.interval, below=MARGIN),
    )  # fmt: skip


def _beats_line(name: str, panel: xr.Dataset, cell: str) -> Row:
    found = compare(name, panel, cell, LINEAR)
    said = {"beats": "holds", "open": "open"}.get(found.said, "fails")
    return _claim(f"{name}: {cell} beats the linear model", found, panel, "interval below 0", said)


# Who beats whom


def _errors(name: str, panel: xr.Dataset, model: str, every: list[Comparison]) -> Row:
    own = [each for each in every if (each.series, each.model) == (name, model)]
    best = best_baseline(panel)
    measured = (
        f"RMSE {_short(rmse(panel, model))}, MAE {_short(float(np.abs(errors(panel, model)).mean()))}, MASE "
        f"{mase(panel, model):.3f}; {rmse(panel, model) / rmse(panel, best):.3f} of the best baseline's ({best})"
    )
    if BEST in panel["model"].values:
        measured += f"; {100 * from_best(name, panel, model).difference.mean:.1f} % above the {BEST} loss"
    if choice := _choice(panel, model):
        measured += f"; {choice}"
    intervals = "; ".join(f"{_interval(each.difference)} to {each.other}" for each in own)
    return Row(
        f"{name}: {model}", f"errors, {panel.attrs['unit']}; difference of mean squared errors, %", measured,
        intervals or "-", _seeds(panel, model), "-", _OWN, f"equivalent: within {_MARGIN}",
        "; ".join(_words(each) for each in own) or "-",
    )  # fmt: skip


def _words(found: Comparison) -> str:
    words = {"beats": "beats", "worse": "worse than", "equivalent": "equivalent to", "open": "open against"}
    return f"{words[found.said]} {found.other}"


def _choice(panel: xr.Dataset, model: str) -> str:
    """What the validation windows chose, fold by fold where it is not the same for all."""
    if model == LINEAR:
        return _by_fold("penalty", "penalties", panel["penalty"].values)
    if model not in CELLS:
        return ""
    stopped = at_chosen(panel, model, "chosen_step")
    rates = _by_fold("rate", "rates", panel["rate"].values[chosen_rates(panel, model)])
    return f"{rates}; {int((stopped == 0).sum())} of {stopped.size} nets stopped at update 0"


def _by_fold(one: str, several: str, values: np.ndarray) -> str:
    same = len(set(values.tolist())) == 1
    return f"{one} {values[0]:g}" if same else f"{several} {', '.join(f'{value:g}' for value in values)}"


def _many(every: list[Comparison]) -> Row:
    p = np.array([each.difference.p for each in every])
    lost, p = int(np.isnan(p).sum()), p[~np.isnan(p)]
    alone, left = int((p < 0.05).sum()), int((holm(p) < 0.05).sum())
    words = f"; {lost} with forecasts that are no numbers are left out" if lost else ""
    return Row(
        "differences that one cannot expect by chance among so many comparisons", "comparisons",
        f"{alone} of {len(p)} intervals exclude 0; {left} still differ after Holm's correction{words}",
        f"{0.05 * len(p):.1f} expected if nothing differed", 0, "-", "Holm (1979)", "-", "-",
    )  # fmt: skip


def _seeds(panel: xr.Dataset, model: str) -> int:
    return panel.sizes["seed"] if model in CELLS else 0


def _percent(share: float) -> str:
    return f"{100 * share:+.1f} %"


def _interval(found: Difference) -> str:
    return f"[{100 * found.low:+.1f}, {100 * found.high:+.1f}] %"


def _short(value: float) -> str:
    return f"{value:.4g}"


# Tables


def files(results: xr.DataTree) -> dict[str, bytes]:
    """Errors of every model and every comparison, as tables."""
    return {"errors.csv": _table(_error_lines(results)), "comparisons.csv": _table(_comparison_lines(results))}


def _error_lines(results: xr.DataTree) -> list[dict]:
    lines = []
    for name, panel in panels(results).items():
        best = rmse(panel, best_baseline(panel))
        for model in (*MODELS, *([BEST] if BEST in panel["model"].values else [])):
            guesses, truth = forecasts(panel, model).mean(axis=0), panel["truth"].transpose("fold", "place").values
            lines.append({
                "series": name, "unit": panel.attrs["unit"], "model": model, "seeds": _seeds(panel, model),
                "targets": truth.size, "rmse": rmse(panel, model),
                "rmse_least": np.sqrt(squared(panel, model).mean(axis=1)).min(),
                "rmse_most": np.sqrt(squared(panel, model).mean(axis=1)).max(),
                "rmse_of_mean_forecast": np.sqrt(np.mean((truth - guesses) ** 2)),
                "mae": np.abs(errors(panel, model)).mean(), "mase": mase(panel, model),
                "of_best_baseline": rmse(panel, model) / best,
                "updates": at_chosen(panel, model, "chosen_step").mean() if model in CELLS else "",
                "chosen": _choice(panel, model),
            })  # fmt: skip
    return lines


def _comparison_lines(results: xr.DataTree) -> list[dict]:
    every = comparisons(results)
    p = np.array([each.difference.p for each in every])
    corrected = np.full(len(p), np.nan)
    corrected[~np.isnan(p)] = holm(p[~np.isnan(p)])
    return [
        {
            "series": each.series, "model": each.model, "other": each.other, "difference": each.difference.mean,
            "low": each.difference.low, "high": each.difference.high, "p": each.difference.p, "p_holm": enlarged,
            "verdict": each.said,
        }
        for each, enlarged in zip(every, corrected, strict=True)
    ]  # fmt: skip


def _table(lines: list[dict]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(lines[0]), lineterminator="\n")
    writer.writeheader()
    for line in lines:
        writer.writerow({key: f"{each:.6g}" if isinstance(each, float) else each for key, each in line.items()})
    return text.getvalue().encode()
