"""Figures of the image-classification study: two for each panel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from experiments._image_classification_report import title
from nnjax import plotting

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure


def plot(results: xr.DataTree) -> dict[str, Figure]:
    """Every figure by its file's name: NAME, and NAME_maps of what the net sees."""
    made: dict[str, Figure] = {}
    with plotting.style():
        for name in results.children:
            panel = results[name].to_dataset()
            made |= {name: _results(panel), f"{name}_maps": _maps(panel)}
    return made


def _results(panel: xr.Dataset) -> Figure:
    """Learning curves, confusion, and the surest mistakes."""
    figure, axes = plotting.figure(2, 2, width=4.3, height=3.6)
    for place, what, label in zip(axes[0], ("error", "loss"), ("error", "cross-entropy, nats"), strict=True):
        for split in ("train", "validation"):
            # No mistake at all cannot stand on a logarithmic axis: it is drawn as half a picture.
            least = 0.5 / panel.attrs["validation_n"] if what == "error" else 0.0
            curves = np.maximum(panel[f"{split}_{what}"].values, least)
            plotting.band(
                place, panel["epoch"].values, curves, label="training" if split == "train" else split, marker="."
            )
        if what == "error":
            test = float(panel["test_error"].mean())
            ends = panel["epoch"].values[[0, -1]]
            plotting.theory(place, ends, np.full(2, max(test, least)), label=f"test, at the end: {test:.4f}")
        place.set(xlabel="epoch", ylabel=label, yscale="log")
        place.legend()
    axes[0, 0].set_title("Learning curves (no augmentation)")
    axes[0, 1].set_title("Loss")
    _confusion(axes[1, 0], panel)
    _mistakes(axes[1, 1], panel)
    seeds = panel.sizes["seed"]
    figure.suptitle(f"{title(panel)}: {seeds} seed{'s' if seeds > 1 else ''}, {panel.attrs['train_n']:,} pictures")
    return figure


def _confusion(place: Any, panel: xr.Dataset) -> None:
    """Shares of each true class, the right ones left out: they would hide all others."""
    counts = panel["confusion"].sum("seed").values.astype(float)
    share = 100 * counts / np.maximum(counts.sum(1, keepdims=True), 1)
    wrong = np.where(np.eye(len(share), dtype=bool), np.nan, share)
    top = max(float(np.nanmax(wrong)), 1.0)
    drawn = place.imshow(wrong, cmap="Blues", vmin=0, vmax=top)
    names = [str(name) for name in panel["true"].values]
    for (row, column), value in np.ndenumerate(share):
        if row == column or value >= 0.05:
            dark = row != column and value > 0.6 * top
            look = {"fontsize": 5.5, "ha": "center", "va": "center", "color": "white" if dark else "0.2"}
            place.text(column, row, f"{value:.0f}" if row == column else f"{value:.1f}", **look)
    turned = 0 if max(map(len, names)) < 3 else 90
    place.set_xticks(range(len(names)), names, rotation=turned, fontsize=6.5)
    place.set_yticks(range(len(names)), names, fontsize=6.5)
    place.grid(False)
    place.set(title="Test pictures said to be (%)", xlabel="said", ylabel="true")
    place.figure.colorbar(drawn, ax=place, shrink=0.8, label="% of the true class, wrong ones")


def _mistakes(place: Any, panel: xr.Dataset) -> None:
    """The first seed's surest mistakes."""
    first = panel.isel(seed=0)
    kept = np.flatnonzero(first["wrong"].values >= 0)[:18]
    place.set_title("Surest mistakes: true class, then answer")
    if len(kept) == 0:
        place.text(0.5, 0.5, "none", ha="center")
        place.set_axis_off()
        return
    names = [str(name)[:8] for name in panel["true"].values]
    true, said = (first[name].values[kept] for name in ("wrong_true", "wrong_said"))
    words = [f"{names[t]}\n{names[s]}" for t, s in zip(true, said, strict=True)]
    pictures = _unit(first["wrong_picture"].values[kept])
    plotting.picture_grid(place, pictures, columns=6, titles=words, scale="none")


def _unit(pictures: np.ndarray) -> np.ndarray:
    """Bytes as parts of 1."""
    return pictures / 255.0 if pictures.dtype == np.uint8 else pictures


def _maps(panel: xr.Dataset) -> Figure:
    """The first filters, one test picture, and feature maps of some convolutions."""
    names = [str(name) for name in panel if str(name).startswith("maps_")]
    figure, axes = plotting.figure(2, (len(names) + 3) // 2, width=2.7, height=2.7)
    places = list(axes.ravel())
    filters = panel["filters"].values
    plotting.picture_grid(places[0], filters, scale="none")
    places[0].set_title(f"First filters, {filters.shape[1]} x {filters.shape[2]}", fontsize=8)
    plotting.picture_grid(places[1], _unit(panel["seen"].values)[None], scale="none")
    places[1].set_title("A test picture", fontsize=8)
    for place, name in zip(places[2:], names, strict=False):
        maps = np.moveaxis(panel[name].values, 2, 0)
        plotting.picture_grid(place, maps, columns=4)
        place.set_title(f"{name[5:]}, {maps.shape[1]} x {maps.shape[2]}", fontsize=8)
    for place in places[2 + len(names) :]:
        place.set_axis_off()
    figure.suptitle(f"{title(panel)}, first seed; in filters gray is 0", fontsize=9)
    return figure
