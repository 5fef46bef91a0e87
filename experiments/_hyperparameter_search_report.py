"""The report of the hyper-parameter study: what each sampler found, and whether its search was worth it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.stats import binom, mannwhitneyu

from nnjax.results import Row
from nnjax.statistics import t_interval

if TYPE_CHECKING:
    import xarray as xr

WORDS = {"grid": "grid", "random": "random", "sobol": "Sobol", "bayesian": "Bayesian", "tpe": "TPE"}
_OWN = "this study's own check"
_LEVEL = 0.05


def best_known(results: xr.DataTree) -> float:
    """The least validation loss of all trials, of the reference and of the searches."""
    return float(min(np.nanmin(results[name].to_dataset()["value"].values) for name in ("reference", "searches")))


def best_so_far(searches: xr.Dataset) -> np.ndarray:
    """Least validation loss after each trial, (samplers, seeds, trials); infinite while all have diverged."""
    value = searches["value"].transpose("sampler", "seed", "trial").values
    return np.minimum.accumulate(np.where(np.isfinite(value), value, np.inf), axis=-1)


def regrets(results: xr.DataTree) -> dict[str, np.ndarray]:
    """By sampler, the loss of the best trial so far above the least that is known, (seeds, trials), nats."""
    searches = results["searches"].to_dataset()
    return dict(zip(searches["sampler"].values.tolist(), best_so_far(searches) - best_known(results), strict=True))


def median_interval(samples: np.ndarray) -> str:
    """The narrowest interval between two samples, as far from both ends, that holds the median with at least 95 %."""
    ordered, n = np.sort(samples), len(samples)
    out = max([k for k in range(n // 2) if 1 - 2 * binom.cdf(k, n, 0.5) >= 1 - _LEVEL], default=-1)
    return "-" if out < 0 else f"[{ordered[out]:.3g}, {ordered[n - 1 - out]:.3g}]"


def equivalent_trials(final: float, values: np.ndarray) -> float:
    """Random trials, drawn anew from ``values`` (any shape), whose best has the median ``final``.

    Half of the searches of m draws beat what a share p of draws beats where (1 - p)^m = 1/2.
    """
    known = values[~np.isnan(values)]
    share = np.mean(known <= final) * len(known) / values.size
    return float(np.log(0.5) / np.log1p(-share)) if 0 < share < 1 else float("inf") if share == 0 else 1.0


def report(results: xr.DataTree) -> list[Row]:
    """Every claim of the study, each with what was measured, whether it holds or not."""
    final = {name: regret[:, -1] for name, regret in regrets(results).items()}
    rows = [_reference_row(results)]
    published = {"bayesian": ("Bayesian beats random", "Snoek et al. (2012), Turner et al. (2021), direction"),
                 "tpe": ("TPE beats random", "Bergstra et al. (2011), direction")}  # fmt: skip
    for name in final:
        if name != "random":
            claimed, source = published.get(name, ("-", _OWN))
            rows.append(_against_random(name, final, claimed, source))
    return [*rows, _worth_row(results, final), *_test_rows(results), _again_row(results)]


def _reference_row(results: xr.DataTree) -> Row:
    reference = results["reference"]
    own = float(np.nanmin(reference.to_dataset()["value"].values))
    return Row("the least validation loss that is known", "cross-entropy, nats",
               f"{best_known(results):.4f} ({own:.4f} in the reference alone)", "-", 0, "-",
               f"{reference.sizes['trial']} Sobol trials, and all searches' own", "-", "shown")  # fmt: skip


def _against_random(name: str, final: dict[str, np.ndarray], claimed: str, source: str) -> Row:
    own, random = final[name], final["random"]
    chance = float(mannwhitneyu(own, random).pvalue)
    lower = np.median(own) < np.median(random)
    if claimed == "-":
        said = "open" if chance >= _LEVEL else "lower" if lower else "higher"
    else:
        said = "open" if chance >= _LEVEL else "holds" if lower else "fails"
    verb = "ends with a lower median regret than" if claimed != "-" else "against"
    measured = f"{np.median(own):.3g} against {np.median(random):.3g} (p = {chance:.2g})"
    intervals = f"{median_interval(own)}, random {median_interval(random)}"
    return Row(f"{WORDS[name]} search {verb} random search", "median regret after the last trial, nats", measured,
               intervals, len(own), claimed, source, "p < 0.05, Mann-Whitney", said)  # fmt: skip


def _worth_row(results: xr.DataTree, final: dict[str, np.ndarray]) -> Row:
    searches = results["searches"].to_dataset()
    random = searches["value"].sel(sampler="random").values.ravel()
    pool = np.concatenate([random, results["reference"]["value"].values])
    needed = equivalent_trials(float(np.median(final["bayesian"])) + best_known(results), pool)
    shown = f"{needed:.0f}" if np.isfinite(needed) else f"more than {len(pool)}"
    return Row("random trials for what the Bayesian search finds", "trials to the same median",
               f"{shown} for {searches.sizes['trial']}", "-", len(final["bayesian"]), "-",
               f"{len(pool)} random and Sobol trials", "-", "shown")  # fmt: skip


def _test_rows(results: xr.DataTree) -> list[Row]:
    tested = results["tested"].to_dataset()
    error = {str(name): tested["test_error"].sel(sampler=name).mean("run").values for name in tested["sampler"].values}
    rows = [
        Row(f"what {WORDS[name]} search chose, trained anew and tested once", "test error, mean over seeds",
            f"{own.mean():.4f}", str(t_interval(own)), len(own), "-", _OWN, "-", "shown")
        for name, own in error.items()
    ]  # fmt: skip
    gap = error["bayesian"] - error["random"]
    interval = t_interval(gap)
    said = "holds" if interval.high < 0 else "fails" if interval.low > 0 else "open"
    rows.append(Row("the Bayesian choice has the lower test error than the random one", "difference by seed",
                    f"{gap.mean():+.4f}", str(interval), len(gap), "-", _OWN, "interval excludes 0", said))  # fmt: skip
    return rows


def _again_row(results: xr.DataTree) -> Row:
    same: Any = results["asked_again"]["same"].values
    return Row("asked again from its list of trials, a search gives the same points",
               "searches of which all batches agree", f"{int(same.sum())} of {len(same)}", "-", len(same), "all", _OWN,
               "equal to the last bit", "holds" if same.all() else "fails")  # fmt: skip
