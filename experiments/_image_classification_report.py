"""The report of the image-classification study: every claim with what was measured, whether it holds or not."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from nnjax.results import Row
from nnjax.statistics import Interval, share_interval, t_interval

if TYPE_CHECKING:
    import xarray as xr


class Mark(NamedTuple):
    """What a panel is measured by: an accuracy to reach, what was published, and the epochs that this took."""

    target: float
    published: str
    source: str
    epochs: int = 0


MARKS = {
    "mnist_lenet": Mark(0.992, "99.05 % (99.2 % with distortions)", "LeCun et al. (1998): LeNet-5"),
    "fashion_mnist_resnet": Mark(0.92, "94.9 % (ResNet-18)", "benchmark of Xiao et al. (2017), as recalled"),
    "cifar10_resnet": Mark(0.9125, "91.25 %", "He et al. (2016), table 6: ResNet-20, 164 epochs", 164),
}
"""CIFAR-10's is the published accuracy itself; that fewer epochs stay below it says nothing."""

RISE = 0.02
"""A validation error that ends so much above its least is overfitting."""

NAMES = {"cifar10_jpeg": "CIFAR-10 (JPEG copy)", "cifar10": "CIFAR-10", "mnist": "MNIST",
         "fashion_mnist": "Fashion-MNIST", "digits": "digits 8 x 8"}  # fmt: skip


def title(panel: xr.Dataset) -> str:
    """The panel's net and data in words."""
    return f"{panel.attrs['net']} on {NAMES[panel.attrs['data']]}"


def interval(panel: xr.Dataset) -> Interval:
    """Of the accuracy: over three or more seeds, else over the test pictures of all seeds."""
    right = 1 - panel["test_error"].values.astype(float)
    if len(right) >= 3:
        return t_interval(right)
    n = int(panel.attrs["test_n"])
    # Pictures repeat from seed to seed: of their number only one seed's counts.
    return share_interval(round(float(right.mean()) * n), n)


def report(results: xr.DataTree) -> list[Row]:
    """Every claim of the study, each with what was measured, whether it holds or not."""
    rows = []
    for name in results.children:
        panel = results[name].to_dataset()
        rows += [_reached(name, panel), _gap(panel), _confused(panel), _time(panel)]
    return rows


def _percent(values: np.ndarray) -> str:
    low, high = 100 * values.min(), 100 * values.max()
    return f"{100 * values.mean():.2f} %" + (f" ({low:.2f} to {high:.2f})" if len(values) > 1 else "")


def _in_percent(found: Interval) -> str:
    return f"[{100 * found.low:.2f}, {100 * found.high:.2f}] %"


def _reached(name: str, panel: xr.Dataset) -> Row:
    """Every seed must be as good as the mark, or as the nearest neighbor where there is no mark."""
    right = 1 - panel["test_error"].values.astype(float)
    epochs = panel.sizes["epoch"]
    after = f"{title(panel)}, {epochs} epochs"
    if name in MARKS:
        mark = MARKS[name]
        # In pictures, for shares are rounded.
        n = int(panel.attrs["test_n"])
        reached = (np.round(right * n) >= np.ceil(mark.target * n - 1e-6)).all()
        verdict = "holds" if reached else "fails" if epochs >= mark.epochs else "open"
        said = f"{after}: at least {100 * mark.target:g} % of the test pictures right with every seed"
        return Row(
            said, "test accuracy", _percent(right), _in_percent(interval(panel)), len(right), mark.published,
            mark.source, f">= {100 * mark.target:g} %", verdict,
        )  # fmt: skip
    neighbor = panel["neighbor_wrong"].values.astype(float)
    # The same pictures for all: what differs is counted picture by picture, the net's share over its seeds.
    found = t_interval(neighbor - panel["test_wrong"].mean("seed").values)
    verdict = "holds" if found.low > 0 else "fails" if found.high < 0 else "open"
    return Row(
        f"{after}: more test pictures right than by the nearest neighbor", "test accuracy",
        f"{_percent(right)} against {100 * (1 - neighbor.mean()):.2f} %", f"difference {_in_percent(found)}",
        len(right), "-", f"this study's own check, same training pictures, {len(neighbor)} test pictures",
        "the difference's interval over pictures above 0", verdict,
    )  # fmt: skip


def _gap(panel: xr.Dataset) -> Row:
    error = panel["validation_error"].values.astype(float)
    rise = error[:, -1] - error.min(1)
    train = panel["train_error"].isel(epoch=-1).values.mean()
    return Row(
        f"{title(panel)}: the net does not overfit", "validation error at the end above its least, mean over seeds",
        f"{rise.mean():+.4f} (at the end {error[:, -1].mean():.4f}, training {train:.4f})", "-",
        len(rise), "-", "this study's own check", f"<= {RISE:g}", "holds" if rise.mean() <= RISE else "fails",
    )  # fmt: skip


def worst(panel: xr.Dataset) -> tuple[str, str, int, int]:
    """The classes that are most often confused, true and said; how often, of how many."""
    counts = panel["confusion"].sum("seed").values.copy()
    whole = counts.sum(1)
    np.fill_diagonal(counts, 0)
    true, said = np.unravel_index(counts.argmax(), counts.shape)
    names = [str(name) for name in panel["true"].values]
    return names[true], names[said], int(counts[true, said]), int(whole[true])


def _confused(panel: xr.Dataset) -> Row:
    true, said, count, whole = worst(panel)
    seeds = panel.sizes["seed"]
    words = f"{true} taken for {said}: {count} of {whole}" if count else "no picture was taken for another class"
    return Row(
        f"{title(panel)}: which classes are confused most", "test pictures of all seeds",
        words, "-", seeds, "-", "-", "-", "-",
    )  # fmt: skip


def _time(panel: xr.Dataset) -> Row:
    facts = panel.attrs
    steps = int(facts["steps_an_epoch"]) * panel.sizes["epoch"]
    return Row(
        f"{title(panel)}: what it costs", f"{facts['parameters']:,} parameters, {steps:,} updates of {facts['batch']}",
        f"{facts['seconds']:.0f} wall seconds in all, {facts['seconds_a_step']:.3f} s an update (validation counted)",
        "-", panel.sizes["seed"], "-", f"{facts['cores']} CPU cores or devices", "-", "-",
    )  # fmt: skip
