"""The report of the pseudo-labelling study: every claim with what was measured, whether it holds or not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nnjax.results import Row
from nnjax.statistics import interval_verdict, t_interval, verdict

if TYPE_CHECKING:
    import xarray as xr

BASE, LEE, ORACLE = "labelled only", "schedule", "all true labels"
FIXED = ("all, once", "confident, once")

PUBLISHED = {100: (0.2189, 0.1615), 600: (0.0857, 0.0503), 1000: (0.0659, 0.0430), 3000: (0.0372, 0.0280)}
"""Test error on MNIST by number of labels: with dropout alone, and with pseudo-labels besides (Lee, 2013, table 1)."""
_LEE = "Lee (2013), table 1 (recalled), one net of 5000 hidden units"


def errors(panel: xr.Dataset, arm: str, name: str = "test_error") -> np.ndarray:
    """An arm's error at the end, (seeds, numbers of labels)."""
    return np.asarray(panel[name].isel(step=-1).sel(arm=arm).transpose("seed", "n").values, float)


def report(results: xr.DataTree) -> list[Row]:
    """Every claim of the study, each with what was measured, whether it holds or not."""
    panel = results["pseudo_labelling"].to_dataset()
    return [
        *(row for arm in (LEE, *FIXED) for row in _lower_error(panel, arm)),
        _shrinks(panel),
        *_entropy(panel),
        _confident(panel),
        _repeated(panel),
        _bound(panel),
        *_published(panel),
    ]


def _own(
    claim: str,
    quantity: str,
    measured: str,
    gap: np.ndarray,
    *,
    published: str = "-",
    source: str = "this study's own check",
) -> Row:
    """A row for a paired difference (seeds,) that is claimed to be negative; seeds without it are left out."""
    gap, tolerance = gap[np.isfinite(gap)], "interval excludes 0"
    if len(gap) < 2:
        return Row(claim, quantity, "too few seeds have it", "-", len(gap), published, source, tolerance, "open")
    interval = t_interval(gap)
    said = interval_verdict(interval, below=0)
    return Row(claim, quantity, measured, str(interval), len(gap), published, source, tolerance, said)


def _lower_error(panel: xr.Dataset, arm: str) -> list[Row]:
    words = {
        LEE: "pseudo-labels made anew at every update, of growing weight, lower the test error",
        "all, once": "all pseudo-labels, made once, lower the test error",
        "confident, once": f"pseudo-labels of confidence {panel.attrs['threshold']:g} or more, made once, lower the "
        "test error",
    }[arm]  # fmt: skip
    with_it, without = errors(panel, arm), errors(panel, BASE)
    rows = []
    for place, n in enumerate(panel["n"].values):
        a, b = with_it[:, place], without[:, place]
        said = PUBLISHED.get(int(n)) if arm == LEE and panel.attrs["data"] == "mnist" else None
        rows.append(
            _own(
                f"{n} labels: {words}", "test error, difference by seed",
                f"{(a - b).mean():+.4f} ({a.mean():.4f} against {b.mean():.4f})", a - b,
                published=f"{said[1] - said[0]:+.4f}" if said else "-",
                source=f"{_LEE}, direction" if said else "this study's own check",
            )
        )  # fmt: skip
    return rows


def _shrinks(panel: xr.Dataset) -> Row:
    gain = errors(panel, BASE) - errors(panel, LEE)
    few, many = panel["n"].values[[0, -1]]
    gap = gain[:, -1] - gain[:, 0]
    return _own(
        f"the schedule gains less with {many} labels than with {few}", "gain in test error, difference by seed",
        f"{gap.mean():+.4f} ({gain[:, -1].mean():+.4f} against {gain[:, 0].mean():+.4f})", gap,
        source="Lee (2013), direction",
    )  # fmt: skip


def _entropy(panel: xr.Dataset) -> list[Row]:
    rows = []
    for place in sorted({0, len(panel["n"]) - 1}):
        a, b = (errors(panel, arm, "unlabelled_entropy")[:, place] for arm in (LEE, BASE))
        rows.append(
            _own(
                f"{panel['n'].values[place]} labels: the schedule lowers the entropy of predictions without a label",
                "entropy, nats, difference by seed", f"{(a - b).mean():+.3f} ({a.mean():.3f} against {b.mean():.3f})",
                a - b, source="Lee (2013), table 2, direction",
            )
        )  # fmt: skip
    return rows


def _confident(panel: xr.Dataset) -> Row:
    at = panel.sel(threshold=panel.attrs["threshold"])
    every = panel.isel(threshold=0)
    place = {"n": len(panel["n"]) // 2}
    sure, plain = (np.asarray(each["label_accuracy"].isel(place).values, float) for each in (at, every))
    share = np.asarray(at["coverage"].isel(place).values, float)
    n = panel["n"].values[place["n"]]
    return _own(
        f"{n} labels: pseudo-labels of confidence {float(at['threshold']):g} or more are wrong less often than all",
        "share wrong, difference by seed",
        f"{(plain - sure).mean():+.4f} ({1 - sure.mean():.4f} of {share.mean():.2f} of the pictures against "
        f"{1 - plain.mean():.4f})", plain - sure,
    )  # fmt: skip


def _repeated(panel: xr.Dataset) -> Row:
    place = len(panel["n"]) // 2
    fixed, own = (np.asarray(panel["repeated"].isel(n=place).sel(arm=arm).values, float) for arm in (FIXED[0], LEE))
    return _own(
        f"{panel['n'].values[place]} labels: the schedule takes back more wrong labels than a student of fixed ones",
        "share of the first net's mistakes repeated, difference by seed",
        f"{np.nanmean(own - fixed):+.3f} ({np.nanmean(own):.3f} against {np.nanmean(fixed):.3f})", own - fixed,
        source="Arazo et al. (2020), direction",
    )  # fmt: skip


def _bound(panel: xr.Dataset) -> Row:
    best = np.min([errors(panel, arm) for arm in (LEE, *FIXED)], axis=0)
    gap = (errors(panel, ORACLE) - best).mean(axis=1)
    return _own(
        "true labels are better than the best pseudo-labels, mean over the numbers of labels",
        "test error, difference by seed",
        f"{gap.mean():+.4f} ({errors(panel, ORACLE).mean():.4f} against {best.mean():.4f})", gap,
    )  # fmt: skip


def _published(panel: xr.Dataset) -> list[Row]:
    """Errors beside the published ones, where they are for these data."""
    if panel.attrs["data"] != "mnist":
        return []
    rows = []
    for place, n in enumerate(panel["n"].values):
        if int(n) in PUBLISHED:
            base, found = (errors(panel, arm)[:, place] for arm in (BASE, LEE))
            rows += _beside(f"MNIST, {n} labels", base, found, *PUBLISHED[int(n)])
    return rows


def as_published(found: np.ndarray, base: np.ndarray, published: float, baseline: float) -> str:
    """`nnjax.statistics.verdict` on errors (seeds,) with half the published effect as tolerance.

    What it grants also needs an effect over our own ``base``, seed by seed, whose 95 % interval excludes zero on the
    published side: an error that is right without one is another net's, not the method's.
    """
    said = verdict(found, published, abs(baseline - published) / 2, baseline=baseline)
    gain = t_interval(np.sign(published - baseline) * (found - base))
    return said if said in ("not reproduced", "inconclusive") or gain.low > 0 else "inconclusive"


def _beside(claim: str, base: np.ndarray, found: np.ndarray, baseline: float, published: float) -> list[Row]:
    """A row for the baseline, which has nothing it is a gain over, and one for the method."""
    gain = t_interval(found - base)
    return [
        Row(
            f"{claim}, dropout alone: beside the published net", "test error", f"{base.mean():.4f}",
            str(t_interval(base)), len(base), f"{baseline:.4f}", _LEE, "-", "not comparable",
        ),
        Row(
            f"{claim}, with pseudo-labels: as published", "test error; paired effect over our dropout alone",
            f"{found.mean():.4f}; {gain.mean:+.4f} {gain}", f"90 %: {t_interval(found, 0.90)}", len(found),
            f"{published:.4f} ({published - baseline:+.4f})", _LEE,
            f"D = {abs(baseline - published) / 2:.5f}, half the effect", as_published(found, base, published, baseline),
        ),
    ]  # fmt: skip
