"""Figures of the micrometeorites study: views of its labelled results."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np

from experiments._micrometeorites_report import commonest, confusion, values
from nnjax import attribution
from nnjax.plotting import COLORS, band, figure, picture_grid, style

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_FILTERS = 48  # of the first layer are drawn


def plot(results: xr.DataTree) -> dict[str, Figure]:
    """Every figure of the study, by name; ``micrometeorites`` is the one to look at first."""
    groups = {name: results[name].to_dataset() for name in results.children}
    with style():
        return {
            "micrometeorites": _overview(groups),
            "pictures": _pictures(groups["pictures"]),
            "filters": _filters(groups["chosen"]),
            "feature_maps": _feature_maps(groups["chosen"], groups["pictures"]),
        }


def _names(group: xr.Dataset) -> list[str]:
    return json.loads(group.attrs["classes"])


# Curves


def _overview(groups: dict[str, xr.Dataset]) -> Figure:
    made, axes = figure(2, 2, width=4.2)
    arms = groups["augmentation"]
    _curves(axes[0, 0], arms, "loss", "cross-entropy, nats")
    _curves(axes[0, 1], arms, "error", "error")
    _trials(axes[1, 0], groups["search"], arms)
    _confusion(axes[1, 1], groups["chosen"])
    handles, labels = axes[0, 0].get_legend_handles_labels()
    note = (
        f"{arms.attrs['note']}; {arms.attrs['train_n']} to learn from, {arms.attrs['validation_n']} for validation; "
        f"mean and 95 % t-interval of {arms.sizes['seed']} seeds"
    )
    made.legend(handles, labels, loc="outside lower center", ncols=3, title=note, title_fontsize=8)
    return made


def _curves(axes: Axes, panel: xr.Dataset, metric: str, label: str) -> None:
    for arm, color in zip(panel["arm"].values, COLORS, strict=False):
        this = panel.sel(arm=arm)
        words = "no augmentation" if arm == "none" else arm
        for split, line in (("validation", "-"), ("train", ":")):
            curve = values(this[f"{split}_{metric}"].transpose("seed", "step"))
            band(axes, panel["step"].values, curve, label=f"{words}, {split.replace('train', 'training')}",
                 color=color, linestyle=line)  # fmt: skip
    axes.set(xlabel="updates", ylabel=label, ylim=(0, None))


def _trials(axes: Axes, trials: xr.Dataset, arms: xr.Dataset) -> None:
    value = np.asarray(trials["value"].values, float)
    number = 1 + np.arange(len(value))
    drawn = axes.scatter(number, value, c=np.log10(trials["learning_rate"].values), cmap="viridis", s=22, zorder=3)
    axes.figure.colorbar(drawn, ax=axes, label="log₁₀ of the learning rate")
    best = np.fmin.accumulate(value)
    axes.step(number, best, where="post", color="0.4", label="best so far")
    end = values(arms["validation_loss"].isel(step=-1)).mean(axis=0)
    axes.axhline(end.min(), color="black", linestyle=":", label=f"best arm ({arms['arm'].values[end.argmin()]})")
    axes.set(xlabel="trial of the Bayesian search", ylabel="validation loss, nats", yscale="log")
    axes.legend()


def _confusion(axes: Axes, chosen: xr.Dataset) -> None:
    counts = confusion(chosen).mean(axis=0)
    share = counts / counts.sum(axis=1, keepdims=True)
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    names = _names(chosen)
    few = len(names) <= 12
    for (row, column), of in np.ndenumerate(share) if few else ():
        axes.text(column, row, f"{100 * of:.0f} %", ha="center", va="center", color="white" if of > 0.5 else "black")
    axes.set_xticks(range(len(names)), names if few else [""] * len(names))
    axes.set_yticks(range(len(names)), names if few else [""] * len(names), rotation=90, va="center")
    error = 1 - np.trace(counts) / counts.sum()
    axes.set(xlabel="named", ylabel="true")
    axes.set_title(f"test error {100 * error:.1f} % (commonest class {100 * commonest(chosen):.1f} %)")
    axes.grid(False)


# Pictures


def _pictures(group: xr.Dataset) -> Figure:
    """Augmentation by example, and the test pictures that the chosen nets are most wrong about."""
    made, axes = figure(2, 1, width=8.2, height=2.4)
    names = _names(group)
    first, drawn = group["first"].values / 255, group["augmented"].values / 255
    ways = list(group["way"].values)
    rows, titles = [], []
    for place, picture in enumerate(first):
        rows += [picture[None], *drawn[:, place]]
        titles += ["as it is", *(way.replace("geometric and color", "and color") for way in ways for _ in range(4))]
    picture_grid(axes[0, 0], np.concatenate(rows), columns=1 + 4 * len(ways), titles=titles, scale="none")
    axes[0, 0].set_title("augmentation, drawn anew at every update")
    labels = [
        f"{names[label]} {100 * chance:.0f} %"
        for label, chance in zip(group["worst_class"].values, group["worst_probability"].values, strict=True)
    ]
    picture_grid(axes[1, 0], group["worst"].values / 255, columns=8, titles=labels, scale="none")
    axes[1, 0].set_title("test pictures of the least probability for their class, mean of the chosen nets")
    return made


def _filters(chosen: xr.Dataset) -> Figure:
    """First-layer kernels of one net and what training has added to them, zero gray, each scaled to its largest."""
    made, axes = figure(1, 2, width=4.2, height=4.2)
    kernels, changes = (
        chosen[name].isel(seed=0).transpose("kernel_row", "kernel_column", "color", "filter").values
        for name in ("kernel", "kernel_change")
    )
    order = np.argsort(-np.abs(changes).max(axis=(0, 1, 2)))[:_FILTERS]
    moved = float(np.linalg.norm(changes) / np.linalg.norm(kernels - changes))
    words = ("first-layer filters, the most changed first", f"what training added: {moved:.2f} of the start's norm")
    for cell, each, title in zip(axes[0], (kernels, changes), words, strict=True):
        shown = np.asarray(attribution.filters({"Conv_0": {"kernel": each}}, "Conv_0"))
        picture_grid(cell, shown[order], scale="none")
        cell.set_title(title)
    return made


def _feature_maps(chosen: xr.Dataset, group: xr.Dataset) -> Figure:
    """What each convolution makes of one test picture of each of two classes, after its ReLU."""
    layers = sorted(str(name) for name in chosen if str(name).startswith("maps_"))
    pictures = min(2, chosen.sizes["shown"])
    made, axes = figure(1 + len(layers), pictures, width=4.2, height=1.5)
    names = _names(group)
    for column in range(pictures):
        picture_grid(axes[0, column], group["shown"].values[column : column + 1] / 255, scale="none")
        label = int(np.unique(chosen["y_test"].values)[column])
        axes[0, column].set_title(names[label])
        for row, name in enumerate(layers):
            maps = chosen[name].isel(seed=0, shown=column).transpose(f"map_{row}", f"row_{row}", f"column_{row}").values
            picture_grid(axes[1 + row, column], maps, columns=6)
            axes[1 + row, column].set_title(f"convolution {row + 1}: {maps.shape[1]} x {maps.shape[2]}")
    return made
