"""The report of the transfer-learning study: every claim with what was measured, whether it holds or not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nnjax.results import Row
from nnjax.statistics import share_interval, t_interval

if TYPE_CHECKING:
    import xarray as xr

TARGET = 0.93
"""Validation accuracy that frozen features of the photographs must reach."""
_OWN = "this study's own check"
_TUTORIAL = "PyTorch's transfer tutorial: ResNet-18, one run, best epoch, chosen on these pictures (recalled)"
PUBLISHED = {"frozen": 0.961, "fine_tuned": 0.948}
"""Validation accuracy of ResNet-18's frozen features, and fine-tuned, of the epoch that is best by it."""
FITTED = 0.05
"""Most training error with which a net has fitted its training pictures; to beat one that has not says nothing."""


def report(results: xr.DataTree) -> list[Row]:
    """Every claim of the study, each with what was measured, whether it holds or not."""
    rows = digits_rows(chosen(results["digits"].to_dataset()))
    if "frozen" in results.children:
        panels = {name: results[name].to_dataset() for name in ("frozen", "fine_tuned", "scratch")}
        rows += _photograph_rows(panels) + _known_rows(results["known"].to_dataset())
    return rows


def chosen(panel: xr.Dataset) -> xr.Dataset:
    """Every arm's and seed's own learning rate, where its validation loss is least."""
    loss = panel["validation_loss"]
    return panel.isel(rate=loss.where(np.isfinite(loss), np.inf).argmin("rate"))


def values(array: xr.DataArray) -> np.ndarray:
    """A quantity by seed, (seeds, ...)."""
    return np.asarray(array.transpose("seed", ...).values, float)


def _verdict(gap: np.ndarray) -> str:
    """Of a paired difference claimed to be negative."""
    interval = t_interval(gap)
    return "holds" if interval.high < 0 else "fails" if interval.low > 0 else "open"


def _lower(
    claim: str, quantity: str, a: np.ndarray, b: np.ndarray, *, published: str = "-", source: str = _OWN,
    said: str | None = None, tolerance: str = "interval excludes 0",
) -> Row:  # fmt: skip
    """A row for "a is less than b", paired by seed."""
    gap = a - b
    measured = f"{gap.mean():+.3f} ({a.mean():.3f} against {b.mean():.3f})"
    verdict = _verdict(gap) if said is None else said
    return Row(claim, quantity, measured, str(t_interval(gap)), len(gap), published, source, tolerance, verdict)


# Digits


def digits_rows(best: xr.Dataset) -> list[Row]:
    """What the digits panel says, each arm at its own chosen rate."""
    error = {str(arm): values(best["test_error"].sel(arm=arm)) for arm in best["arm"].values}
    few, many = int(best["n"][0]), int(best["n"][-1])
    quantity, direction = "test error, difference by seed", "Yosinski et al. (2014), direction"
    rows = [
        _lower(
            f"n = {few} a class: {arm} layers beat those from scratch", quantity, error[arm][:, 0],
            error["scratch"][:, 0], source=direction,
        )
        for arm in ("frozen", "fine-tuned")
    ]  # fmt: skip
    rows.append(
        _lower(
            f"n = {few} a class: it is what was learned, not the architecture, that frozen layers give",
            "test error, frozen minus frozen layers of a fresh draw, by seed", error["frozen"][:, 0],
            error["random frozen"][:, 0], source=direction,
        )
    )  # fmt: skip
    rows.append(
        _lower(
            f"n = {many} a class: fine-tuned layers beat frozen ones", quantity, error["fine-tuned"][:, -1],
            error["frozen"][:, -1], source=direction,
        )
    )  # fmt: skip
    gain = error["scratch"] - error["fine-tuned"]
    rows.append(
        _lower(
            f"the gain over scratch is smaller with {many} a class than with {few}",
            f"scratch minus fine-tuned test error, n = {many} minus n = {few}", gain[:, -1], gain[:, 0],
        )
    )  # fmt: skip
    moved = {arm: int(best["moved"].sel(arm=arm).max()) for arm in ("frozen", "random frozen", "fine-tuned")}
    still = max(moved["frozen"], moved["random frozen"])
    rows.append(
        Row(
            f"parameters frozen by {best.attrs['frozen']} are bit-equal after training with weight decay",
            "parameters of which a bit differs, most of all runs (fine-tuned)", f"{still} ({moved['fine-tuned']})", "-",
            best.sizes["seed"], "0", "exact", "0", "agrees" if still == 0 and moved["fine-tuned"] > 0 else "differs",
        )
    )  # fmt: skip
    return rows


# Photographs


def _reaches(claim: str, accuracy: np.ndarray, held: int, published: str = "-", source: str = _OWN) -> Row:
    """A row for an accuracy of the ``held`` photographs that is to reach the target, judged by the mean of the seeds.

    Seeds share most of their training photographs and all of the others: an interval over them would say nothing of
    new photographs. That of the sample does, and its own verdict stands beside.
    """
    mean = float(accuracy.mean())
    sample = share_interval(round(mean * held), held)
    of_new = "holds" if sample.low >= TARGET else "fails" if sample.high < TARGET else "open"
    return Row(
        f"of these {held} photographs, {claim}", "validation accuracy, mean of seeds (interval: for new photographs)",
        f"{mean:.3f} (of new photographs: {of_new})", str(sample), len(accuracy), published, source, f">= {TARGET:g}",
        "holds" if mean >= TARGET else "fails",
    )  # fmt: skip


def _beats_scratch(claim: str, ours: xr.Dataset, scratch: xr.Dataset, source: str = _OWN) -> Row:
    """A row for less validation error than ``scratch``, by the seeds of both; open where scratch has not fitted."""
    both = np.intersect1d(ours["seed"].values, scratch["seed"].values)
    a, b = (values(panel["validation_error"].sel(seed=both)) for panel in (ours, scratch))
    left = float(scratch["train_error"].sel(seed=both).mean())
    quantity = f"validation error, difference by seed (training error of scratch: {left:.3f})"
    return _lower(claim, quantity, a, b, source=source, said="open" if not left <= FITTED else None)


def _photograph_rows(panels: dict[str, xr.Dataset]) -> list[Row]:
    frozen, fine, scratch = (panels[name] for name in ("frozen", "fine_tuned", "scratch"))
    what, held = frozen.attrs["photographs"], frozen.attrs["validation_n"]
    few, most, common = int(frozen["n"][0]), int(frozen["n"][-1]), int(fine["n"][-1])
    fresh, own = (frozen.sel(start=start) for start in ("fresh head", "own classes"))
    untrained = float(1 - own["start_error"].mean())
    reaches = f"on frozen MobileNet features reaches {100 * TARGET:g} %"
    optimistic = "optimistic: they come from ImageNet"
    rows = [
        _reaches(
            f"n = {most} a class of {what}: a head {reaches}, started at the net's own outputs for these classes, "
            f"which untrained have {untrained:.3f} ({optimistic})", 1 - values(own["validation_error"].isel(n=-1)),
            held,
        ),
        _reaches(
            f"n = {most} a class of {what}: a head from zero {reaches} ({optimistic})",
            1 - values(fresh["validation_error"].isel(n=-1)), held, f"{PUBLISHED['frozen']:.3f}", _TUTORIAL,
        ),
        _reaches(
            f"n = {common} a class: and with the last two pairs of convolutions trained as well",
            1 - values(fine["validation_error"].isel(n=-1)), held, f"{PUBLISHED['fine_tuned']:.3f}", _TUTORIAL,
        ),
    ]  # fmt: skip
    for n in (int(fine["n"][0]), common):
        claim = f"n = {n} a class: fine-tuned beats the same architecture from scratch"
        rows.append(_beats_scratch(claim, fine.sel(n=n), scratch.sel(n=n), "Donahue et al. (2014), direction"))
    claim = f"a head from zero on {few} photographs a class beats {common} a class from scratch"
    return [*rows, _beats_scratch(claim, fresh.isel(n=0), scratch.isel(n=-1))]


def is_right(shown: str, said: str) -> bool:
    """Whether a class name of the net, a list of synonyms, begins with what is shown, capitals apart."""
    return said.lower().startswith(shown.lower())


def _known_rows(known: xr.Dataset) -> list[Row]:
    bits = known.attrs
    moved = int(bits["moved"]) + int(bits["statistics_moved"])
    rows = [
        Row(
            f"MobileNet under a new head: {int(bits['frozen']):,} frozen parameters and "
            f"{int(bits['frozen_statistics']):,} statistics are bit-equal after training",
            "numbers of which a bit differs (of the head's)", f"{moved} ({int(bits['head_moved'])})", "-", 1, "0",
            "exact", "0", "agrees" if moved == 0 and bits["head_moved"] > 0 else "differs",
        )
    ]  # fmt: skip
    if "said" in known:
        pairs = [(str(a), str(b)) for a, b in zip(known["shown"].values, known["said"].values, strict=True)]
        right = sum(is_right(*pair) for pair in pairs)
        chance = known["probability"].values
        words = "; ".join(f"{said} {p:.2f}" for (_, said), p in zip(pairs, chance, strict=True))
        rows.append(
            Row(
                f"the pretrained net labels {', '.join(shown for shown, _ in pairs)} right", "labels and probabilities",
                f"{right} of {len(pairs)} ({words})", "-", 1, f"{len(pairs)}", "ImageNet classes", "all",
                "holds" if right == len(pairs) else "fails",
            )
        )  # fmt: skip
    return rows
