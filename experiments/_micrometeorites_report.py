"""The report of the micrometeorites study: every claim with what was measured, whether it holds or not."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np

from nnjax.results import Row
from nnjax.statistics import resampled_t_interval, t_interval

if TYPE_CHECKING:
    import xarray as xr

PUBLISHED_PARAMETERS = 12_668_290  # at full width, 141x141x3, two classes


def values(array: xr.DataArray) -> np.ndarray:
    """Values (seeds, ...)."""
    return np.asarray(array.transpose("seed", ...).values, float)


def confusion(chosen: xr.Dataset) -> np.ndarray:
    """Counts (seeds, true class, named class) on the test pictures."""
    named = chosen["probability"].transpose("seed", "test", "class").values.argmax(axis=-1)
    truth, classes = chosen["y_test"].values, chosen.sizes["class"]
    made = np.zeros((len(named), classes, classes), int)
    for seed, row in enumerate(named):
        np.add.at(made[seed], (truth, row), 1)
    return made


def commonest(chosen: xr.Dataset) -> float:
    """Test error of naming the commonest class."""
    return 1 - float(np.bincount(chosen["y_test"].values).max() / chosen.sizes["test"])


def report(results: xr.DataTree) -> list[Row]:
    """Every claim of the study, each with what was measured, whether it holds or not."""
    arms, trials, chosen = (results[name].to_dataset() for name in ("augmentation", "search", "chosen"))
    return [*_augmentation(arms), _searched(arms, trials, chosen), *_tested(chosen), *_facts(chosen)]


def _own(
    claim: str, quantity: str, measured: str, gap: np.ndarray, *, ratio: float, published: str = "-",
    source: str = "this study's own check", tolerance: str = "interval excludes 0",
) -> Row:  # fmt: skip
    """A row for a paired difference (seeds,) that is claimed to be negative.

    Seeds draw validation pictures anew from the same ones, ``ratio`` of validation to training pictures.
    """
    interval = resampled_t_interval(gap, ratio)
    said = "holds" if interval.high < 0 else "fails" if interval.low > 0 else "open"
    return Row(claim, quantity, measured, str(interval), len(gap), published, source, tolerance, said)


def _ratio(panel: xr.Dataset) -> float:
    return float(panel.attrs["validation_n"] / panel.attrs["train_n"])


def _augmentation(panel: xr.Dataset) -> list[Row]:
    end = panel.isel(step=-1)
    none = end.sel(arm="none")
    rows = []
    for arm in panel["arm"].values[1:]:
        this = end.sel(arm=arm)
        for name, what in (("validation_loss", "loss, nats"), ("validation_error", "error")):
            a, b = values(this[name]), values(none[name])
            rows.append(
                _own(
                    f"{arm} augmentation lowers the validation {what.split(',')[0]}",
                    f"validation {what}, difference by seed",
                    f"{(a - b).mean():+.3f} ({a.mean():.3f} against {b.mean():.3f})", a - b,
                    ratio=_ratio(panel), source="Krizhevsky et al. (2012), direction",
                )
            )  # fmt: skip
        a, b = (values(each["validation_loss"] - each["train_loss"]) for each in (this, none))
        rows.append(
            _own(
                f"{arm} augmentation narrows the gap between training and validation",
                "validation minus training loss, nats, difference by seed",
                f"{(a - b).mean():+.3f} ({a.mean():.3f} against {b.mean():.3f})", a - b,
                ratio=_ratio(panel),
            )
        )  # fmt: skip
    return rows


def _searched(arms: xr.Dataset, trials: xr.Dataset, chosen: xr.Dataset) -> Row:
    loss = values(arms["validation_loss"].isel(step=-1))
    arm = int(loss.mean(axis=0).argmin())
    a, b = values(chosen["validation_loss"]), loss[:, arm]
    return _own(
        f"the best of {trials.sizes['trial']} trials, trained anew, has a lower validation loss than the best arm "
        f"({arms['arm'].values[arm]})",
        "validation loss, nats, difference by seed on the same pictures",
        f"{(a - b).mean():+.3f} ({a.mean():.3f} against {b.mean():.3f}; the trial itself "
        f"{float(np.nanmin(trials['value'].values)):.3f}, the least of many)", a - b, ratio=_ratio(arms),
    )  # fmt: skip


def _tested(chosen: xr.Dataset) -> list[Row]:
    counts = confusion(chosen)
    error = 1 - np.trace(counts, axis1=1, axis2=2) / chosen.sizes["test"]
    base = commonest(chosen)
    return [
        _own(
            "the chosen net beats naming the commonest class",
            f"test error on {chosen.sizes['test']} pictures, looked at once, minus that of the commonest class",
            f"{(error - base).mean():+.3f} ({error.mean():.3f} against {base:.3f})", error - base,
            ratio=0.0,
        ),
        Row(
            "accuracy on micrometeorites", "test accuracy, on " + chosen.attrs["note"], f"{1 - error.mean():.3f}",
            str(t_interval(1 - error)), len(error), "not comparable", "its pictures are not published", "-",
            "not comparable",
        ),
    ]  # fmt: skip


def _facts(chosen: xr.Dataset) -> list[Row]:
    whole = chosen.attrs["width"] == 1 and chosen.attrs["size"] == 141 and chosen.sizes["class"] == 2
    count = int(chosen.attrs["parameters"])
    rows = [
        Row(
            f"parameters at width {chosen.attrs['width']:g} and {chosen.attrs['size']} pixels", "count", f"{count:,}",
            "-", 1, f"{PUBLISHED_PARAMETERS:,}" if whole else "-", "the published net", "0",
            ("agrees" if count == PUBLISHED_PARAMETERS else "differs") if whole else "stated",
        )
    ]  # fmt: skip
    skipped = json.loads(chosen.attrs["skipped"])
    if skipped:
        named = "; ".join(skipped[:3]) + ("; ..." if len(skipped) > 3 else "")
        rows.append(
            Row("files that could not be read are left out", "files", f"{len(skipped)} ({named})", "-", 1, "-",
                "this study's own check", "-", "stated")
        )  # fmt: skip
    return rows
