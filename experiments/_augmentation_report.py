"""The report of the augmentation study: every claim with what was measured, whether it holds or not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from experiments._augmentation_lanes import CHANGES, KINDS, LOOKALIKES, amount
from nnjax.results import Row
from nnjax.statistics import t_interval

if TYPE_CHECKING:
    import xarray as xr

KEEPS = "all but mirror"
"""The arm of everything that may keep the label of a digit."""
DIGITS = ("digits", "mnist")
_PUBLISHED = {"elastic": ("1.6 % to 0.7 %", "Simard et al. (2003): all of MNIST, two-layer net (recalled), direction")}


def chosen(panel: xr.Dataset) -> xr.Dataset:
    """Every seed's own strength of each kind, where its validation loss is least; none (0) may be chosen too."""
    loss = panel["validation_loss"]
    return panel.isel(strength=loss.where(np.isfinite(loss), np.inf).argmin("strength"))


def best_single(panel: xr.Dataset) -> xr.Dataset:
    """The one change, at the strength, of least validation loss, by n and seed."""
    single = chosen(panel.sel(kind=list(CHANGES)))
    loss = single["validation_loss"]
    return single.isel(kind=loss.where(np.isfinite(loss), np.inf).argmin("kind"))


def none(panel: xr.Dataset) -> xr.Dataset:
    """Training without augmentation: strength 0, which all kinds share."""
    return panel.isel(kind=0, strength=0, drop=True)


def values(array: xr.DataArray) -> np.ndarray:
    """A quantity by seed, (seeds, ...)."""
    return np.asarray(array.transpose("seed", ...).values, float)


def report(results: xr.DataTree) -> list[Row]:
    """Every claim of the study, each with what was measured, whether it holds or not."""
    panel = results["augmentation"].to_dataset()
    rows = [_gain_row(panel, kind, 0) for kind in KINDS]
    rows += [_gain_row(panel, KEEPS, -1), _shrinks(panel), _together(panel)]
    return rows + _harm_rows(panel) + _invariance_rows(panel)


# Judging


def _verdict(gap: np.ndarray) -> str:
    """Of a paired difference claimed to be negative."""
    interval = t_interval(gap)
    return "holds" if interval.high < 0 else "fails" if interval.low > 0 else "open"


def _row(
    claim: str, quantity: str, a: np.ndarray, b: np.ndarray, *, note: str = "", rises: bool = False,
    published: str = "-", source: str = "this study's own check",
) -> Row:  # fmt: skip
    """A row for "a is less than b", or more where it ``rises``, paired by seed."""
    gap = a - b
    measured = f"{gap.mean():+.3f} ({a.mean():.3f} against {b.mean():.3f}{note})"
    return Row(
        claim, quantity, measured, str(t_interval(gap)), len(gap), published, source, "interval excludes 0",
        _verdict(-gap if rises else gap),
    )  # fmt: skip


def _range(picked: xr.DataArray) -> str:
    low, high = float(picked.min()), float(picked.max())
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"


_BY_SEED = "test error, difference by seed"


# Rows


def _gain_row(panel: xr.Dataset, kind: str, place: int) -> Row:
    at = panel.isel(n=place)
    best = chosen(at).sel(kind=kind)
    n = int(at["n"])
    said, source = _PUBLISHED.get(kind, ("-", "this study's own check"))
    words = {"all": "all changes at once lower", KEEPS: "all changes but mirroring lower"}.get(kind, f"{kind} lowers")
    return _row(
        f"n = {n}: {words} the test error, the strength chosen on validation pictures", _BY_SEED,
        values(best["test_error"]), values(none(at)["test_error"]), note=f"; strength {_range(best['strength'])}",
        published=said, source=source,
    )  # fmt: skip


def _shrinks(panel: xr.Dataset) -> Row:
    best = chosen(panel).sel(kind=KEEPS)
    gain = values(none(panel)["test_error"] - best["test_error"])
    first, last = int(panel["n"][0]), int(panel["n"][-1])
    return _row(
        f"all changes but mirroring gain less at n = {last} than at n = {first}",
        f"gain in test error, n = {last} minus n = {first}, by seed", gain[:, -1], gain[:, 0],
        source="Shorten and Khoshgoftaar (2019), direction",
    )  # fmt: skip


def _together(panel: xr.Dataset) -> Row:
    at = panel.isel(n=0)
    single = best_single(at)
    names = ", ".join(sorted({str(kind) for kind in np.atleast_1d(single["kind"].values)}))
    return _row(
        f"n = {int(at['n'])}: all changes but mirroring together beat the best single one", _BY_SEED,
        values(chosen(at).sel(kind=KEEPS)["test_error"]), values(single["test_error"]), note=f", {names}",
        source="Ciresan et al. (2010): affine and elastic, direction",
    )  # fmt: skip


def _harm_rows(panel: xr.Dataset) -> list[Row]:
    """At the most pictures and the largest strength, where most is known of the data without any change."""
    at = panel.isel(n=-1)
    n, plain = int(at["n"]), none(at)
    data, digits = panel.attrs["data"], panel.attrs["data"] in DIGITS
    most = at.isel(strength=-1)
    share = {kind: amount(kind, float(panel["strength"][-1]), panel.attrs["side"]) for kind in ("rotate", "mirror")}
    mirrored, turned = most.sel(kind="mirror"), most.sel(kind="rotate")
    rows = [
        _row(
            f"n = {n}: turning by up to {share['rotate']} hurts", _BY_SEED, values(turned["test_error"]),
            values(plain["test_error"]), rises=True,
        ),
        _row(
            f"n = {n}: mirroring {share['mirror']} of {data} "
            + ("hurts, for digits are not symmetric" if digits else "helps, for left and right mean nothing"),
            _BY_SEED, values(mirrored["test_error"]), values(plain["test_error"]), rises=digits,
            source="this study's own check" if digits else "Krizhevsky et al. (2012), direction",
        ),
    ]  # fmt: skip
    if digits:
        one, other = LOOKALIKES
        rows.append(
            _row(
                f"n = {n}: so turned, {one} and {other} are taken for one another",
                f"share of {one} and {other} swapped", values(turned["confused"]), values(plain["confused"]),
                rises=True,
            )
        )  # fmt: skip
    return rows


def _spread(errors: xr.DataArray) -> np.ndarray:
    """Largest minus least error over the angles, by seed."""
    return values(errors.max("angle") - errors.min("angle"))


def _invariance_rows(panel: xr.Dataset) -> list[Row]:
    at = panel.isel(n=-1)
    plain = none(at)
    turned, moved = at.isel(strength=-1).sel(kind="rotate"), chosen_shift(at)
    strongest: dict[str, Any] = {"kind": "mirror", "strength": panel["strength"][-1]}
    shift = float(moved["strength"])
    pixels = amount("shift", shift, panel.attrs["side"])
    return [
        _row(
            "trained on turned pictures, the error depends less on the angle", "largest minus least error over angles",
            _spread(turned["turned_error"]), _spread(plain["turned_error"]),
        ),
        _row(
            "and is less on turned pictures", "test error, mean over angles",
            values(turned["turned_error"].mean("angle")), values(plain["turned_error"].mean("angle")),
        ),
        _row(
            f"trained on shifts up to {pixels}, the error is less on pictures so moved",
            "test error, mean over shifts that were shown", values(_shown(moved, shift)), values(_shown(plain, shift)),
        ),
        _row(
            "trained on mirrored pictures, the error is less on mirrored pictures", "test error, all mirrored",
            values(at.sel(strongest)["mirrored_error"]), values(plain["mirrored_error"]),
        ),
    ]  # fmt: skip


def chosen_shift(panel: xr.Dataset) -> xr.Dataset:
    """Training under the middle strength of shifts."""
    return panel.sel(kind="shift").isel(strength=(panel.sizes["strength"]) // 2)


def _shown(run: xr.Dataset, strength: float) -> xr.DataArray:
    """Mean error over test shifts within ``strength``, no shift not counted."""
    shift = run["shift"]
    most = strength * float(shift.max())
    return run["moved_error"].where((abs(shift) <= most + 1e-6) & (shift != 0), drop=True).mean("shift")
