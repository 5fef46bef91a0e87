"""Figures of the translators: views of their labelled results."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from experiments._translation_baselines import BASELINES
from experiments._translation_lanes import ARMS, BEAM, GREEDY, NONE
from experiments._translation_report import (
    GOAL,
    Parts,
    baseline_counts,
    chosen_rates,
    counts,
    groups,
    lane_of,
    losses,
    masked,
    order_kept,
    parts,
)
from experiments._translation_scores import BLEU, EXACT, measured
from nnjax.plotting import COLORS, band, figure, style

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLOR = dict(zip(ARMS, (COLORS[1], COLORS[4], COLORS[2], COLORS[0]), strict=True))
_LINE = dict(zip(BASELINES, (":", "-."), strict=True))
_TITLE = {"numbers": "number words", "multi30k": "captions of Multi30k"}


def plot(results: xr.DataTree) -> dict[str, Figure]:
    """Every figure of the study, by name."""
    some = parts(results)
    with style():
        return {"translation": _scores(some), "attention": _attention(some)}


def _label(arm: str) -> str:
    return "no attention" if arm == NONE else f"{arm} attention"


def _unit(some: Parts) -> str:
    return "share wholly right" if some.measure == EXACT else "BLEU"


def _limits(some: Parts) -> dict[str, tuple[float, float]]:
    return {"ylim": (-0.03, 1.03)} if some.measure == EXACT else {}


def _scores(some: Parts) -> Figure:
    made, axes = figure(2, 2, width=4.4, height=3.2)
    _along(axes[0, 0], some)
    _score_along(axes[0, 1], some)
    _test(axes[1, 0], some)
    _by_length(axes[1, 1], some)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    seeds = some.nets.sizes["seed"]
    spread = f"{seeds} seeds" if some.measure == EXACT else f"{seeds} seeds (above), of the test sentences (below)"
    note = f"English to German, {_TITLE[some.nets.attrs['corpus']]}; mean and 95 % interval of {spread}"
    made.legend(handles, labels, loc="outside lower center", ncols=5, title=note, title_fontsize=8)
    return made


def _along(axes: Axes, some: Parts) -> None:
    updates = some.nets["update"].values
    for place, (arm, rate) in enumerate(zip(some.arms, chosen_rates(some), strict=True)):
        band(axes, updates, losses(some)[place, rate], label=_label(arm), color=_COLOR[arm])
        train = losses(some, "running_loss")[place, rate].mean(0)
        axes.plot(updates, train, ":", color=_COLOR[arm], linewidth=1)
    axes.set(xlabel="updates", ylabel="loss, nats a subword")
    if some.measure == EXACT:  # losses with and without attention are powers of ten apart
        found = losses(some)
        axes.set(yscale="log", ylim=(found.min() / 2, 2 * found[:, :, :, 0].max()))
    axes.set_title("validation loss; dotted: of pairs just learned from")


def _score_along(axes: Axes, some: Parts) -> None:
    updates = some.nets["update"].values
    for arm in some.arms:
        found = lane_of(some, arm)["validation_score"].transpose("seed", "update").values
        band(axes, updates, found, label=_label(arm), color=_COLOR[arm])
    axes.set(xlabel="updates", ylabel=_unit(some), **_limits(some))
    axes.set_title("what is written for validation sentences")


def _test(axes: Axes, some: Parts) -> None:
    for place, arm in enumerate(some.arms):
        for shift, search, marker in ((-0.1, GREEDY, "o"), (0.1, BEAM, "s")):
            mean, low, high = measured(some.measure, lambda a: a, counts(some, arm, search))
            error = [[float(mean - low)], [float(high - mean)]]
            axes.errorbar(
                [place + shift], [float(mean)], np.nan_to_num(error), fmt=marker, color=_COLOR[arm], markersize=4,
                markerfacecolor="white" if search == GREEDY else None, capsize=2,
            )  # fmt: skip
    for name in BASELINES:
        found = float(measured(some.measure, lambda a: a, baseline_counts(some, name)).mean)
        axes.axhline(found, color="0.4", linestyle=_LINE[name], linewidth=1, label=name)
    if some.measure == EXACT:
        most = float(order_kept(some).mean())
        axes.axhline(most, color="black", linestyle="--", linewidth=1, label="most in the same order")
    else:
        axes.axhline(GOAL, color="black", linestyle="--", linewidth=1, label="asked for")
    axes.set_xticks(range(len(some.arms)), some.arms)
    axes.set(xlim=(-0.5, len(some.arms) - 0.5), ylabel=_unit(some), **_limits(some))
    axes.set_title("test sentences (hollow: greedy, full: beam)")
    axes.legend()


def _by_length(axes: Axes, some: Parts) -> None:
    words, masks = some.test["words"].values, groups(some)
    x = [words[mask].mean() for mask in masks]
    for arm in some.arms:
        found = [measured(some.measure, lambda a: a, masked(counts(some, arm), mask)) for mask in masks]
        mean, low, high = (np.array([float(each[k]) for each in found]) for k in range(3))
        axes.plot(x, mean, "o-", color=_COLOR[arm], markersize=3)
        axes.fill_between(x, low, high, color=_COLOR[arm], alpha=0.2, linewidth=0)
    if some.measure == EXACT:
        kept = order_kept(some)
        axes.plot(x, [kept[mask].mean() for mask in masks], "--", color="black", linewidth=1.1)
    axes.set(xlabel="words of the source", ylabel=_unit(some), **_limits(some))
    axes.set_title("by length, all numbers" if some.measure == EXACT else "by length")


def _attention(some: Parts) -> Figure:
    """What the best arm with attention looked at, its first seed."""
    arm = min(some.attending, key=lambda each: losses(some)[some.arms.index(each)].min(-1).mean(-1).min())
    looked = lane_of(some, arm, some.looked).isel(seed=0)
    count = looked.sizes["shown"]
    columns = 2 if count > 1 else 1
    size = 3.9 if some.measure == BLEU else 3.3
    made, axes = figure(-(-count // columns), columns, width=size + 0.6, height=size)
    for place, each in enumerate(axes.ravel()):
        if place < count:
            _matrix(each, looked.isel(shown=place))
        else:
            each.set_axis_off()
    made.suptitle(f"where {_label(arm)} looks: darker is more; read across, written down", fontsize=9)
    return made


def _matrix(axes: Axes, looked: xr.Dataset) -> None:
    source = [str(token) for token in looked["source"].values if token]
    target = [str(token) for token in looked["tokens"].values if token]
    weights = looked["weights"].transpose("place", "source_place").values[: len(target), : len(source)]
    axes.imshow(weights, cmap="Greys", vmin=0, vmax=1, aspect="auto")
    axes.set_xticks(range(len(source)), [_shown(token) for token in source], rotation=90, fontsize=7, parse_math=False)
    axes.set_yticks(range(len(target)), [_shown(token) for token in target], fontsize=7, parse_math=False)
    axes.tick_params(length=0)
    axes.xaxis.tick_top()
    axes.grid(visible=False)


def _shown(token: str) -> str:
    """A subword with its space visible."""
    return token.replace(" ", "\N{OPEN BOX}")
