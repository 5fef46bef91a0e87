"""The report of the pooling study: every claim with what was measured, whether it holds or not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from nnjax.results import Row
from nnjax.statistics import t_interval

if TYPE_CHECKING:
    import xarray as xr

ROUNDING = 1e-5
POOLS = ("max", "average")


def chance(shift: int) -> float:
    """Error in pixels of guessing the mean place, where places are uniform from -shift to shift."""
    return float(np.sqrt(shift * (shift + 1) / 3))


def point(window: Any) -> Any:
    """Error in pixels left of a point known to its window alone, places being uniform."""
    return np.sqrt((np.asarray(window, float) ** 2 - 1) / 12)


def moved_error(panel: xr.Dataset) -> xr.DataArray:
    """Mean test error over the shifts near the middle, but none."""
    away = np.abs(panel["shift"])
    return panel["error"].where((away > 0) & (away <= panel.attrs["near"]), drop=True).mean("shift")


def middle_window(panel: xr.Dataset) -> int:
    """Place of the middle one of the windows between 1 and the whole canvas."""
    return panel.sizes["window"] // 2


def report(results: xr.DataTree) -> list[Row]:
    """Every claim of the study, each with what was measured, whether it holds or not."""
    panel = results["pooling"].to_dataset()
    middle = panel.sel(spread=0, drop=True)
    return [
        *_identities(panel),
        *(row for kind in POOLS for row in _benefit_and_cost(middle.sel(kind=kind, drop=True), kind)),
        *_strided(middle),
        *_max_or_average(middle),
        *_seen(panel),
    ]


def _values(array: xr.DataArray) -> np.ndarray:
    return np.asarray(array.transpose("seed", ...).values, float)


def _verdict(gap: np.ndarray) -> str:
    """Of a paired difference claimed to be positive."""
    interval = t_interval(gap)
    return "holds" if interval.low > 0 else "fails" if interval.high < 0 else "open"


def _own(
    claim: str, quantity: str, gap: np.ndarray, words: str, *, tolerance: str = "interval excludes 0",
    said: str | None = None, published: str = "-", source: str = "this study's own check",
) -> Row:  # fmt: skip
    measured = f"{gap.mean():+.3f} ({words})" if words else f"{gap.mean():+.3f}"
    verdict = _verdict(gap) if said is None else said
    return Row(claim, quantity, measured, str(t_interval(gap)), len(gap), published, source, tolerance, verdict)


def _exact(claim: str, quantity: str, off: float, seeds: int, source: str) -> Row:
    verdict = "open" if np.isnan(off) else "agrees" if off <= ROUNDING else "differs"
    return Row(claim, quantity, f"{off:.1e}", "-", seeds, "0", source, f"{ROUNDING:g}", verdict)


def _largest(array: xr.DataArray) -> float:
    """The largest of what is a number; NaN where nothing is, as when all nets diverged."""
    return float(array.max()) if bool(array.notnull().any()) else float("nan")


def _identities(panel: xr.Dataset) -> list[Row]:
    seeds = panel.sizes["seed"]
    whole = panel.isel(window=-1).sel(kind=list(POOLS))
    one = panel.isel(window=0)
    apart = max(float(np.abs(one[name] - one[name].isel(kind=0)).max()) for name in ("error", "change", "rmse"))
    shift = int(panel["shift"].max())
    gap = _values(whole["rmse"].mean(["kind", "spread"])) - chance(shift)
    # Windows that no shift is as long as were not looked at: NaN.
    looked = panel.isel(window=slice(0, -1))["equivariance"].dropna("window", how="all")
    names = ", ".join(str(window) for window in looked["window"].values)
    return [
        _exact(
            f"a shift by whole windows ({names} px) moves the features by whole places, whatever the pool",
            "largest difference relative to the largest feature", _largest(looked), seeds,
            "exact: equivariance",
        ),
        _exact(
            "a pool over the whole canvas makes the features invariant",
            "largest difference relative to the largest feature", _largest(whole["equivariance"]), seeds,
            "exact: invariance",
        ),
        _exact(
            "with window 1 the three kinds are one net", "largest difference of error, features' change and read place",
            apart, seeds, "exact",
        ),
        Row(
            "features of a pool over the whole canvas do not tell the place",
            "error of the read place minus that of guessing, px",
            f"{gap.mean():+.3f} ({gap.mean() + chance(shift):.3f} against {chance(shift):.3f})", str(t_interval(gap)),
            seeds, f"{chance(shift):.3f} px", "exact: guessing the mean place", "> -0.1 px and < 0.3 px",
            "agrees" if -0.1 < gap.mean() < 0.3 else "differs",
        ),
    ]  # fmt: skip


def _benefit_and_cost(panel: xr.Dataset, kind: str) -> list[Row]:
    """A pool's middle window, and its largest but the whole canvas, against none."""
    error, place = _values(moved_error(panel)), _values(panel["rmse"])
    near, wide = middle_window(panel), panel.sizes["window"] - 2
    small, window = (int(panel["window"][index]) for index in (near, wide))
    gain, cost = error[:, 0] - error[:, near], place[:, wide] - place[:, 0]
    still = _values(panel["error"].sel(shift=0))
    return [
        _own(
            f"{kind} pooling over {small} x {small} lowers the error on slightly moved pictures",
            "test error, mean over near shifts, none minus pooled", gain,
            f"{error[:, 0].mean():.3f} to {error[:, near].mean():.3f}; unmoved {still[:, 0].mean():.3f} to "
            f"{still[:, near].mean():.3f}", source="LeCun et al. (1998), direction",
        ),
        _own(
            f"{kind} pooling over {window} x {window} loses the place",
            "error of the read place, pooled minus none, px", cost,
            f"{place[:, 0].mean():.2f} to {place[:, wide].mean():.2f} px; a point would leave "
            f"{point(window):.2f}",
        ),
    ]  # fmt: skip


def _strided(panel: xr.Dataset) -> list[Row]:
    """A stride without a pool against each pool, over the windows between."""
    rows = []
    between = panel.isel(window=slice(1, -1)).mean("window")
    for kind in POOLS:
        change = between["change"].mean("shift")
        gap = _values(change.sel(kind="strided") - change.sel(kind=kind))
        rows.append(
            _own(
                f"a stride without a pool is less invariant than {kind} pooling",
                "change of the features, strided minus pooled, mean over windows and shifts", gap,
                f"{float(change.sel(kind='strided').mean()):.3f} against {float(change.sel(kind=kind).mean()):.3f}",
                source="Zhang (2019); Azulay and Weiss (2019), direction",
            )
        )  # fmt: skip
    error = moved_error(between)
    for kind in POOLS:
        gap = _values(error.sel(kind="strided") - error.sel(kind=kind))
        rows.append(
            _own(
                f"and is more often wrong on slightly moved pictures than {kind} pooling",
                "test error, strided minus pooled, mean over windows and near shifts", gap,
                f"{float(error.sel(kind='strided').mean()):.3f} against {float(error.sel(kind=kind).mean()):.3f}",
                source="Scherer et al. (2010), direction",
            )
        )  # fmt: skip
    return rows


def _max_or_average(panel: xr.Dataset) -> list[Row]:
    """Which pool keeps the place better, and which answers moved pictures better."""
    between = panel.isel(window=slice(1, -1)).mean("window")
    measures = {
        "reads the place better": ("error of the read place, px", between["rmse"]),
        "is right more often on slightly moved pictures": ("test error, mean over near shifts", moved_error(between)),
    }
    rows = []
    for words, (quantity, each) in measures.items():
        gap = _values(each.sel(kind="max") - each.sel(kind="average"))
        interval = t_interval(gap)
        side = "max" if interval.high < 0 else "average" if interval.low > 0 else "neither"
        said = f"{float(each.sel(kind='max').mean()):.3f} against {float(each.sel(kind='average').mean()):.3f}"
        rows.append(
            _own(
                f"max or average pooling: which {words}", f"{quantity}, max minus average, mean over windows", gap,
                said, said=side, tolerance="-",
            )
        )  # fmt: skip
    return rows


def _seen(panel: xr.Dataset) -> list[Row]:
    """What training at random places does that a pool does not."""
    shown = panel.sel(kind="max", drop=True)
    error, place = shown["error"].mean("shift"), shown["rmse"]
    pool = middle_window(panel)
    window = int(panel["window"][pool])
    none, pooled = (error.isel(window=index) for index in (0, pool))
    spread = float(panel["spread"][-1])
    learned = _values(none.sel(spread=0) - none.sel(spread=spread))
    both = (place.isel(window=pool) - place.isel(window=0)).sel(spread=spread)
    joint = _values((none - pooled).sel(spread=spread))
    return [
        _own(
            "training at random places lowers the error on all moved pictures without a pool",
            "test error, mean over all shifts, middle minus random places", learned,
            f"{float(none.sel(spread=0).mean()):.3f} to {float(none.sel(spread=spread).mean()):.3f}",
        ),
        _own(
            f"and with max pooling over {window} x {window} it lowers it further",
            "test error, mean over all shifts, random places, none minus pooled", joint,
            f"{float(none.sel(spread=spread).mean()):.3f} to {float(pooled.sel(spread=spread).mean()):.3f}",
        ),
        _own(
            f"and from those pooled features the place is read better than without a pool ({window} x {window})",
            "error of the read place, none minus pooled, px", -_values(both),
            f"{float(place.isel(window=0).sel(spread=spread).mean()):.2f} to "
            f"{float(place.isel(window=pool).sel(spread=spread).mean()):.2f} px",
        ),
    ]  # fmt: skip
