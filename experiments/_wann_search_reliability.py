"""How reliable a search of swing-up is: rows and a figure of what the best net of every search is worth, and how the
course of searches with the published settings is drawn.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from experiments._wann_search_published import MARKS, OWN, PUBLISHED, REFERENCE, SOURCE, UPRIGHT_GOAL, WINDOW, holds
from nnjax.plotting import COLORS, figure, theory
from nnjax.results import Row
from nnjax.statistics import share_interval
from nnjax.wann import SHARED_WEIGHTS

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

REFERENCES = {
    "reference_192": "published settings, population 192",
    "reference_64": "published settings, population 64",
}
"""Panels of searches with the published settings, and what they are called."""

ARMS = {"search": "our settings"} | REFERENCES
LOOKS = dict(zip(ARMS, COLORS, strict=False))


class Goal(NamedTuple):
    """A quantity of a net, and the number that it is to reach; None where nothing is published."""

    label: str
    least: float | None
    source: str
    claim: str = ""


_TABLE = PUBLISHED["swing_up"]["searched"]
GOALS = {
    "published_mean": Goal("mean return, six published weights", None, OWN),
    "mean": Goal(
        "mean return, 41 weights in [-2, 2]", _TABLE[1][0], SOURCE, "that return {:g} under a random shared weight"
    ),
    "best": Goal("return, best shared weight", _TABLE[2][0], SOURCE, "that return {:g} under their best shared weight"),
    "upright": Goal(
        "share of episodes upright, best weight", UPRIGHT_GOAL, OWN, "that balance the pole in {:.0%} of episodes"
    ),
}


# Rows


def reached(worth: xr.Dataset, arm: str, quantity: str) -> tuple[int, int]:
    """How many of an arm's searches reach a goal, and how many there are; a net that returns NaN reaches none."""
    of_arm, least = worth.sel(arm=arm), GOALS[quantity].least
    return int((of_arm[quantity].values >= (np.inf if least is None else least)).sum()), int(of_arm["searches"])


def reliability_rows(name: str, worth: xr.Dataset) -> list[Row]:
    """In how many searches the best net reaches what is published, by settings, and whether ours are better."""
    rows = []
    arms = worth["arm"].values.tolist()
    for arm in arms:
        for quantity, goal in GOALS.items():
            if goal.least is None:
                continue
            values = worth[quantity].sel(arm=arm).values
            (count, searches), values = reached(worth, arm, quantity), values[np.isfinite(values)]
            spread = (
                f"; {values.min():.4g} to {values.max():.4g}, median {np.median(values):.4g}" if len(values) else ""
            )
            rows.append(Row(
                f"{name}, {ARMS[arm]}: searches {goal.claim.format(goal.least)}",
                f"{goal.label}, of the best net; {worth.attrs['trials']} episodes that nothing was chosen by",
                f"{count} of {searches}{spread}", str(share_interval(count, searches)), searches,
                f"{goal.least:g}, the one net" if goal.source == SOURCE else "-", goal.source,
                "none: searches are counted, not judged", f"{count} of {searches} reach it",
            ))  # fmt: skip
    return rows + [_comparison(name, worth, arm) for arm in arms if arm != "search"]


def _comparison(name: str, worth: xr.Dataset, arm: str) -> Row:
    (ours, n), (theirs, m) = reached(worth, "search", "best"), reached(worth, arm, "best")
    p = fisher(ours, n, theirs, m)
    goal = GOALS["best"].least
    return Row(
        f"{name}: our settings reach {goal:g} in a larger share of searches than the {ARMS[arm]}",
        "searches whose best net returns that at its best shared weight; difference of shares",
        f"{ours} of {n} against {theirs} of {m}: {ours / n - theirs / m:+.2f}", f"p = {p:.2g}, Fisher's exact test",
        min(n, m), "-", OWN, "larger, and p < 0.05, two-sided",
        holds(p < 0.05 and ours / n > theirs / m, p < 0.05 and ours / n < theirs / m),
    )  # fmt: skip


def fisher(first: int, n: int, second: int, m: int) -> float:
    """Two-sided p of Fisher's exact test for ``first`` of n against ``second`` of m (Fisher, 1935)."""
    from scipy.stats import fisher_exact

    return float(fisher_exact([[first, n - first], [second, m - second]]).pvalue)


# Figures


def reliability(name: str, worth: xr.Dataset) -> Figure:
    """A dot for every search's best net, by settings, and their median."""
    arms = worth["arm"].values.tolist()
    made, axes = figure(2, 2, width=3.9, height=2.9)
    for ax, (quantity, goal) in zip(axes.ravel(), GOALS.items(), strict=True):
        for place, arm in enumerate(arms):
            found = worth[quantity].sel(arm=arm).values
            found = np.sort(found[np.isfinite(found)])
            # Side by side in the order of their size, so that equal ones can be told apart.
            across = place + np.linspace(-0.25, 0.25, len(found)) if len(found) > 1 else [place] * len(found)
            ax.plot(across, found, "o", color=LOOKS[arm], markersize=4.5, alpha=0.75, markeredgewidth=0)
            if len(found):
                ax.plot([place - 0.36, place + 0.36], [np.median(found)] * 2, color=LOOKS[arm], linewidth=1.6)
        if goal.least is not None:
            label = "published" if goal.source == SOURCE else "goal"
            ax.axhline(goal.least, color="black", linestyle="--", linewidth=1)
            ax.annotate(f"{label}: {goal.least:g}", (1, goal.least), xycoords=("axes fraction", "data"), fontsize=7,
                        xytext=(-2, 2), textcoords="offset points", ha="right", zorder=0.5,
                        bbox={"color": "white", "alpha": 0.7, "pad": 0.5})  # fmt: skip
            ax.set_ylim(top=max(ax.get_ylim()[1], 1.08 * goal.least))
        if quantity == "upright":
            ax.set_ylim(-0.04, 1.06)
        names = [ARMS[arm].replace(", ", "\n") for arm in arms]
        ax.set_xticks(range(len(arms)), names, fontsize=7.5)
        ax.grid(axis="x", visible=False)
        ax.set(ylabel=goal.label, xlim=(-0.5, len(arms) - 0.5))
    made.suptitle(f"{name}: the best net of every search, on {worth.attrs['trials']} episodes that nothing was chosen "
                  "by; bars: medians", fontsize=9)  # fmt: skip
    return made


def course(name: str, courses: dict[str, xr.Dataset]) -> Figure:
    """The course of all searches, by settings, and the published log. Mean returns have a panel for each settings: over
    other shared weights they are not comparable.
    """
    several, ours = len(courses) > 1, courses["search"]
    made, axes = figure(2, 3, width=3.4, height=2.7) if several else figure(1, 3, width=3.3, height=3.0)
    elites = dict(zip(courses, axes[0, :3] if several else axes[0, :1], strict=False))
    nodes, connections = axes[-1, :2] if several else axes[0, 1:]
    for arm, found in courses.items():
        _thin(elites[arm], found, "elite_mean", LOOKS[arm])
        weights = f", {len(np.ravel(found.attrs['shared_weights']))} weights" if several else ""
        elites[arm].set_ylabel(f"best mean return{weights}")
        for ax, field in ((nodes, "nodes"), (connections, "connections")):
            (_wide if several else _thin)(ax, found, field, LOOKS[arm])
    if name == "swing_up":
        _log(courses, elites, nodes, connections)
    if several:
        low, high = (pick(ax.get_ylim()[end] for ax in elites.values()) for end, pick in ((0, min), (1, max)))
        for arm, ax in elites.items():
            ax.set_ylim(low, high)
            ax.set_title(f"{ARMS[arm]}, {courses[arm].sizes['seed']} searches", fontsize=8, pad=4, color=LOOKS[arm])
        axes[1, 2].set_axis_off()
    for ax, label in ((nodes, "nodes, median net"), (connections, "connections, median net")):
        ax.set(ylabel=label, ylim=(0, None))
    for ax in axes.ravel():
        ax.set_xlabel("generation")
    facts = ours.attrs
    islands = f", {facts['islands']} islands" if facts["islands"] > 1 else ""
    count = f"{ours.sizes['seed']} searches" if ours.sizes["seed"] > 1 else "one search"
    title = f"{name}: {count}, populations of {facts['population']}{islands}"
    others = ", and searches with the published settings" if several else ""
    made.suptitle(f"{title}{others}; lines are running means of {WINDOW} generations", fontsize=9)
    labels = {text: handle for ax in axes.ravel() for handle, text in zip(*ax.get_legend_handles_labels(), strict=True)}
    if several:
        axes[1, 2].legend(labels.values(), labels.keys(), loc="center", fontsize=7.5)
    else:
        made.legend(labels.values(), labels.keys(), loc="outside lower center", ncols=3)
    return made


def _log(courses: dict[str, xr.Dataset], elites: dict[str, Axes], nodes: Axes, connections: Axes) -> None:
    """The published log where it can be compared with; beside our searches alone its weights are named."""
    others = [arm for arm in courses if arm != "search"]
    alike = tuple(np.ravel(courses["search"].attrs["shared_weights"])) == SHARED_WEIGHTS
    more = "" if alike or others else ", six shared weights"
    places = [elites[arm] for arm in (courses if alike else others or courses)]
    last = max(int(found["generation"][-1]) for found in courses.values())
    shown = [place for place, mark in enumerate(MARKS) if mark <= max(last, MARKS[0])]
    fields = [(ax, REFERENCE.elite_mean) for ax in places]
    for ax, known in (*fields, (nodes, REFERENCE.nodes), (connections, REFERENCE.connections)):
        theory(ax, np.array(MARKS)[shown], np.array(known)[shown], marker="o", markersize=3.5,
               label=f"Gaier and Ha's program, one run,{chr(10) if others else ' '}population 64{more}")  # fmt: skip


def _lines(found: xr.Dataset, field: str) -> np.ndarray:
    """A course for every search, (seeds, generations), of several islands the best or for sizes their mean."""
    by_seed = found[field].max("island") if field == "elite_mean" else found[field].mean("island")
    return by_seed.where(np.isfinite(by_seed)).rolling(generation=WINDOW, min_periods=1).mean().values


def _thin(ax: Axes, found: xr.Dataset, field: str, color: str) -> None:
    """A thin line for every search, and a thick one for their median."""
    lines, generation = _lines(found, field), found["generation"].values
    for number, line in enumerate(lines):
        ax.plot(generation, line, color=color, alpha=0.4, linewidth=0.6, label="one search" if number == 0 else None)
    if len(lines) > 2:
        ax.plot(generation, np.nanmedian(lines, axis=0), color=color, linewidth=1.8, label="median search")


def _wide(ax: Axes, found: xr.Dataset, field: str, color: str) -> None:
    """The median of the searches, and a band from the lowest to the highest."""
    lines, generation = _lines(found, field), found["generation"].values
    ax.plot(generation, np.nanmedian(lines, axis=0), color=color, linewidth=1.8)
    ax.fill_between(generation, np.nanmin(lines, axis=0), np.nanmax(lines, axis=0), color=color, alpha=0.15,
                    linewidth=0, label="lowest to highest search")  # fmt: skip
