"""Rows of the weight-agnostic search study: what the searches, their champion and its table show, beside what is
published.

The verdict of a number that Gaier and Ha (2019) publish is "reached" where the 95 % interval of our mean reaches up to
it, "above" where the whole interval lies above. A search that evaluates fewer nets than theirs cannot fail: it is
"below, as is this search". Tolerances and these rules were set before the first run of the study.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from experiments._wann_search_published import (
    MARKS,
    OWN,
    PUBLISHED,
    PUBLISHED_ACCURACY,
    PUBLISHED_NETS,
    REFERENCE,
    RELEASED_SPEED,
    SOURCE,
    UPRIGHT_GOAL,
    WINDOW,
    holds,
)
from experiments._wann_search_reliability import REFERENCES, reliability_rows
from nnjax.results import Row
from nnjax.statistics import Interval, share_interval, t_interval
from nnjax.wann import SHARED_WEIGHTS

if TYPE_CHECKING:
    import xarray as xr


def report(results: xr.DataTree) -> list[Row]:
    """Every claim of the study, each with what was measured, whether it holds or not."""
    return [row for name, task in results.children.items() for row in _task_rows(name, task)]


def _task_rows(name: str, task: xr.DataTree) -> list[Row]:
    course, champion = task["search"].to_dataset(), task["champion"].to_dataset()
    few = is_shorter(name, course)
    rows = [*_course_rows(name, course), *_size_rows(name, champion)]
    if "table" in task.children:
        table = task["table"].to_dataset()
        rows += _column_rows(name, table, few) + _difference_rows(name, table, few)
    if "upright" in champion:
        rows += _upright_rows(name, champion, few)
    if "accuracy" in task.children:
        rows += _accuracy_rows(name, task["accuracy"].to_dataset(), few)
    for arm in REFERENCES:
        rows += _course_rows(name, task[arm].to_dataset(), arm) if arm in task.children else []
    if "worth" in task.children:
        rows += reliability_rows(name, task["worth"].to_dataset())
    return [*rows, *_speed_rows(name, course)]


def is_shorter(name: str, course: xr.Dataset) -> bool:
    """Whether all searches of a task together, of which the champion is the best, evaluate fewer nets than the
    published one.
    """
    facts = course.attrs
    nets = course.sizes["seed"] * int(facts["population"]) * int(facts["islands"]) * int(facts["generations"])
    return nets < PUBLISHED_NETS.get(name, 0)


def against(found: Interval, published: float, few: bool) -> str:
    """Where an interval lies against a published mean that is to be reached."""
    if found.low > published:
        return "above"
    if found.high >= published:
        return "reached"
    return "below, as is this search" if few else "not reached"


# The course


def at_mark(course: xr.Dataset, name: str, mark: int) -> np.ndarray:
    """A quantity of every search at a generation, the mean of `WINDOW` generations up to it, (seeds,).

    Of several islands the best counts, or for sizes of nets their mean.
    """
    part = course[name].sel(generation=slice(mark - WINDOW + 1, mark)).mean("generation")
    return (part.max("island") if name.startswith("elite") else part.mean("island")).values


def marks_of(course: xr.Dataset) -> list[int]:
    """`MARKS` that the searches reached, and their last generation."""
    last = int(course["generation"].values[-1])
    return [*(mark for mark in MARKS if mark < last), last]


def _course_rows(name: str, course: xr.Dataset, arm: str | None = None) -> list[Row]:
    rows = []
    what = f"{name}, published settings" if arm else name
    alike = name == "swing_up" and tuple(np.ravel(course.attrs["shared_weights"])) == SHARED_WEIGHTS
    for mark in marks_of(course):
        elite = at_mark(course, "elite_mean", mark)
        finite = elite[np.isfinite(elite)]
        lost = f"; {len(elite) - len(finite)} lost" if len(finite) < len(elite) else ""
        if not len(finite):
            continue
        reference = REFERENCE.elite_mean[MARKS.index(mark)] if name == "swing_up" and mark in MARKS else None
        where = f"{int((finite >= (reference or 0)).sum())} of {len(elite)} reach it"
        middle = np.median(finite)
        islands = f", {course.attrs['islands']} islands" if course.attrs["islands"] > 1 else ""
        rows.append(Row(
            f"{what}: elite mean at generation {mark}, populations of {course.attrs['population']}{islands}",
            f"highest mean return over shared weights, mean of {min(WINDOW, mark)} generations, by search",
            f"median {middle:.4g}, best {finite.max():.4g}{lost}",
            f"{finite.min():.4g} to {finite.max():.4g}, all searches", len(elite),
            "-" if reference is None else f"{reference:g}, one run, population 64, six weights",
            OWN if reference is None else SOURCE, "none: a course is shown, not judged",
            "no reference" if reference is None else where if alike else "not comparable: other weights",
        ))  # fmt: skip
    return rows


def _size_rows(name: str, champion: xr.Dataset) -> list[Row]:
    facts = champion.attrs
    return [Row(
        f"{name}: size of the champion", "nodes / enabled connections / depth",
        f"{facts['nodes']} / {facts['connections']} / {facts['depth']}", "-", 0,
        "29 / 52 / 8" if name == "swing_up" else "-", SOURCE if name == "swing_up" else OWN,
        "none: one net each", "not comparable",
    )]  # fmt: skip


# The table


def samples(table: xr.Dataset, net: str, column: str) -> np.ndarray:
    """Finite returns of a column, (trials,)."""
    found = table["returns"].sel(net=net, column=column).values
    return found[np.isfinite(found)]


def _column_rows(name: str, table: xr.Dataset, few: bool) -> list[Row]:
    rows = []
    for net in table["net"].values.tolist():
        for place, column in enumerate(table["column"].values.tolist()):
            found = samples(table, net, column)
            lost = table.sizes["trial"] - len(found)
            middle = t_interval(found) if len(found) else t_interval(np.array([np.nan]))
            mean, deviation = PUBLISHED.get(name, {}).get(net, ((None, None),) * 4)[place]
            judged = net == "searched" and column != "random weights" and mean is not None
            rows.append(Row(
                f"{name}, {_called(net, table)}: {column}",
                f"mean return of {len(found)} trials, standard deviation; episodes that nothing was chosen by",
                f"{float(middle.mean):.4g} \N{PLUS-MINUS SIGN} {found.std(ddof=1) if len(found) > 1 else np.nan:.3g}"
                + (f", {lost} not finite" if lost else ""),
                str(middle), len(found),
                "-" if mean is None else f"{mean:g} \N{PLUS-MINUS SIGN} {deviation:g}",
                OWN if mean is None else f"{SOURCE}, table 1",
                "95 % interval of the mean reaches the published one" if judged else "-",
                against(middle, float(mean), few) if judged and mean is not None else "not comparable",
            ))  # fmt: skip
    return rows


def _called(net: str, table: xr.Dataset) -> str:
    return "champion" if net == "searched" else f"fully connected net of {table.attrs['hidden']} hidden units"


def _difference_rows(name: str, table: xr.Dataset, few: bool) -> list[Row]:
    """The study's falsifiable checks: a search finds nets that work with any shared weight, and fixed nets do not."""
    columns = {key: [samples(table, net, key) for net in ("searched", "fixed")] for key in table["column"].values}
    published = PUBLISHED.get(name)
    rows = []
    for column in ("random shared", "tuned shared"):
        ours, fixed = columns[column]
        found = difference(ours, fixed)
        least, said = 0.0, "-"
        if published:
            place = table["column"].values.tolist().index(column)
            effect = published["searched"][place][0] - published["fixed"][place][0]
            least, said = effect / 2, f"{effect:g}"
        rows.append(Row(
            f"{name}: with a {column} weight the champion beats the fully connected net" + " by far" * bool(published),
            "difference of mean returns", f"{float(found.mean):.4g}", str(found), min(len(ours), len(fixed)), said,
            f"{SOURCE}, table 1" if published else OWN,
            f"95 % interval above {least:g}" + (", half of the published effect" if published else ""),
            holds(found.low > least, found.high < least),
        ))  # fmt: skip
    tuned, drawn = columns["tuned shared"][0], columns["random shared"][0]
    found = difference(tuned, drawn)
    rows.append(Row(
        f"{name}: tuning the champion's one shared weight helps", "tuned minus random shared weight, mean returns",
        f"{float(found.mean):.4g}", str(found), min(len(tuned), len(drawn)), "208" if name == "swing_up" else "> 0",
        SOURCE if published else OWN, "95 % interval above 0", holds(found.low > 0, found.high < 0),
    ))  # fmt: skip
    return rows


def difference(first: np.ndarray, second: np.ndarray) -> Interval:
    """Difference of the means of two independent samples with its 95 % interval (Welch, 1947)."""
    from scipy.special import stdtrit

    if min(len(first), len(second)) < 2:
        return Interval(*[np.asarray(np.nan)] * 3)
    parts = np.array([first.var(ddof=1) / len(first), second.var(ddof=1) / len(second)])
    mean, total = np.asarray(first.mean() - second.mean()), parts.sum()
    if total == 0:
        return Interval(mean, mean, mean)
    freedom = total**2 / (parts**2 / [len(first) - 1, len(second) - 1]).sum()
    half = stdtrit(freedom, 0.975) * np.sqrt(total)
    return Interval(mean, mean - half, mean + half)


# Uprightness, accuracy, speed


def _upright_rows(name: str, champion: xr.Dataset, few: bool) -> list[Row]:
    ends = champion["tuned_upright"].values
    found = share_interval(int(ends.sum()), len(ends))
    sweep = champion["upright"].mean("trial")
    reached = float(found.mean) >= UPRIGHT_GOAL
    return [Row(
        f"{name}: the champion balances the pole at some shared weight",
        "share of episodes with |theta| < 0.3 during all of the last 200 steps; weight chosen on other episodes",
        f"{int(ends.sum())} of {len(ends)} at weight {champion.attrs['upright_weight']:.3g}",
        str(found), len(ends), "-", OWN, f"at least {UPRIGHT_GOAL:.0%} of the episodes",
        "holds" if reached else "below, as is this search" if few else "fails",
    ), Row(
        f"{name}: shared weights between -3 and 3 that balance it",
        f"of {sweep.size} weights, those with an upright share of at least {UPRIGHT_GOAL:.0%}",
        f"{int((sweep >= UPRIGHT_GOAL).sum())}; best share {float(sweep.max()):.2f}", "-", len(ends), "-", OWN,
        "none: shown, not judged", "not comparable",
    )]  # fmt: skip


def _accuracy_rows(name: str, found: xr.Dataset, few: bool) -> list[Row]:
    rows = []
    for column in found["column"].values.tolist():
        values = found["accuracy"].sel(column=column).values
        values = values[np.isfinite(values)]
        published = PUBLISHED_ACCURACY.get(name, {}).get(column)
        middle = t_interval(values) if np.ptp(values) else None  # without chance there is no interval
        short = published is not None and values.mean() < published - 0.0005
        rows.append(Row(
            f"{name}: accuracy of the champion on held-out examples, {column}", "share of right answers",
            f"{values.mean():.3f}" + (f" \N{PLUS-MINUS SIGN} {values.std(ddof=1):.3f}" if middle else ""),
            str(middle) if middle else "-", len(values) if middle else 0,
            "-" if published is None else f"{published:.3f}",
            OWN if published is None else SOURCE, "-" if published is None else "at least the published one",
            "not comparable" if published is None else
            ("below, as is this search" if few else "not reached") if short else "reached",
        ))  # fmt: skip
    return rows


def _speed_rows(name: str, course: xr.Dataset) -> list[Row]:
    facts = course.attrs
    seconds, steps = float(facts["timed_seconds"]), float(facts["timed_steps"])
    if not (seconds and steps):
        return []
    speed = steps / seconds
    a_core = speed / int(facts["devices"])
    known = name == "swing_up"  # what the released program was timed with
    return [Row(
        f"{name}: environment steps a second in the search, selection and checkpoints included",
        f"steps made / wall seconds, {facts['devices']} devices, without the first block of each process (compiling)",
        f"{speed:.3g} in all, {a_core:.3g} a device", "-", 0, f"{RELEASED_SPEED:g} a core" if known else "-",
        "the released program, measured by us" if known else OWN,
        "at least 500 times as many a device" if known else "-",
        f"{a_core / RELEASED_SPEED:.0f} times" if known else "not comparable",
    )]  # fmt: skip
