"""Rows of the initialisation study's training panels: what starts learn, at which depth, and what helps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from experiments._initialization_training_lanes import ARMS, PRETRAINING_STEPS
from nnjax.results import Row
from nnjax.statistics import Interval, t_interval

if TYPE_CHECKING:
    import xarray as xr

LEARNED = 0.85
"""Training accuracy at which a net has learned."""

NEAR_CHANCE = 0.2
"""Training accuracy up to which a net of ten classes is near chance."""

STALLING, LEARNABLE = 30, 22
"""Depths at which He et al. (2015) saw Xavier's start stall, and learn."""

HE = "He et al. (2015)"

ARM_SOURCES = {
    "adam": ("Adam", "own check"),
    "batch_norm": ("batch normalization", "Ioffe and Szegedy (2015)"),
    "pretrained": ("layer-wise pre-training", "Bengio et al. (2007)"),
    "lsuv": ("LSUV", "Mishkin and Matas (2016)"),
}


def rows(tree: xr.DataTree) -> list[Row]:
    """A row for every claim of the panels rates, training, arms and cnn, those that fail too."""
    training, arms = tree["training"].to_dataset(), tree["arms"].to_dataset()
    found = [_rates_row(tree["rates"].to_dataset())]
    if STALLING in training["depth"].values:
        found += _stalling_rows(training)
    if LEARNABLE in training["depth"].values:
        found.append(_learnable_row(training))
    found += [_lead_row(training), _deepest_row(training), *_arm_rows(arms), *_cnn_rows(tree["cnn"].to_dataset())]
    return [_few(row) for row in found]


def _few(row: Row) -> Row:
    """The row, which says so where its seeds are too few for more than a smoke test."""
    return row._replace(tolerance=f"{row.tolerance}; {row.seeds} seeds, a smoke test") if row.seeds < 5 else row


def _share(found: Interval) -> str:
    """An interval of an accuracy, which lies between 0 and 1."""
    return str(Interval(*(np.clip(end, 0, 1) for end in found)))


def verdict(yes: Any, no: Any = True) -> str:
    """``holds``, ``fails``, or neither: ``open``."""
    return "holds" if yes else "fails" if no else "open"


def steps_to(accuracy: np.ndarray, marks: np.ndarray, level: float = LEARNED) -> np.ndarray:
    """First mark with at least this accuracy, infinite where there is none: (..., marks) to (...)."""
    there = np.asarray(accuracy) >= level
    return np.where(there.any(axis=-1), np.asarray(marks, float)[there.argmax(axis=-1)], np.inf)


def lead(first: np.ndarray, second: np.ndarray, budget: float) -> np.ndarray:
    """log2 of how many times as many steps the second takes; what never gets there counts as the budget, (seeds,).

    That understates the lead where only the second is too slow. A net that is there at the start counts as one step.
    """
    return np.log2(np.clip(second, 1, budget) / np.clip(first, 1, budget))


def _curves(training: xr.Dataset, scheme: str, depth: int) -> np.ndarray:
    """Training accuracy, (seeds, marks)."""
    return training["train_accuracy"].sel(scheme=scheme, depth=depth).transpose("seed", "step").values


def _where(found: xr.Dataset) -> str:
    facts = found.attrs
    return f"{facts['data']}, n = {facts['n']}, width {facts['width']}"


def _budget(training: xr.Dataset) -> int:
    return int(training["step"].values[-1])


def _counted(steps: np.ndarray) -> str:
    """How many seeds got there, and the median step."""
    median = np.median(steps)
    return f"{np.isfinite(steps).sum()} of {len(steps)} seeds, median step {median:g}"


# Rates


def _rates_row(rates: xr.Dataset) -> Row:
    taken = rates.isel(setting=np.flatnonzero(rates["chosen"].values))
    edges, words = 0, []
    for place in range(taken.sizes["setting"]):
        one = taken.isel(setting=place)
        arm, depth, rate = (one[name].item() for name in ("arm", "depth", "rate"))
        same = (rates["arm"] == arm) & (rates["depth"] == depth)
        grid = rates["rate"].values[same.values]
        at_edge = rate in (grid.min(), grid.max())
        edges += at_edge
        words.append(f"{f'{depth} layers' if arm == 'sgd' else arm} {rate:g}{' (edge)' if at_edge else ''}")
    return Row(
        f"{rates.attrs['data']}: learning rates chosen by He's validation accuracy lie inside their grids",
        "rate by arm",
        ", ".join(words),
        "-",
        rates.sizes["seed"],
        "-",
        "own check",
        "no rate at an edge; chosen on seeds that are not reported",
        "holds" if edges == 0 else f"open: {edges} at an edge",
    )


# Training


def _stalling_rows(training: xr.Dataset) -> list[Row]:
    """Xavier at the depth where He et al. saw it stall: while He learns, and in the whole budget."""
    marks, budget, seeds = training["step"].values, _budget(training), training.sizes["seed"]
    he, xavier = (_curves(training, name, STALLING) for name in ("he_normal", "xavier_normal"))
    when, other = steps_to(he.mean(axis=0), marks), steps_to(xavier, marks)
    title = f"{_where(training)}: {STALLING} ReLU layers, plain SGD with momentum"
    if np.isfinite(when):
        at = int(np.flatnonzero(marks == when)[0])
        found = t_interval(xavier[:, at])
        measured = f"{float(found.mean):.3f} at step {when:g} (He {he[:, at].mean():.3f})"
        first = found, measured, verdict(found.high <= NEAR_CHANCE, found.low > NEAR_CHANCE)
    else:
        first = Interval(*[np.asarray(np.nan)] * 3), f"He: {_counted(steps_to(he, marks))}", "open: He too slow"
    end = t_interval(he[:, -1] - xavier[:, -1])
    test = training["test_accuracy"].sel(depth=STALLING).isel(step=-1)
    gap = (test.sel(scheme="he_normal") - test.sel(scheme="xavier_normal")).values
    return [
        Row(
            f"{title}: Xavier stays near chance while He learns",
            f"Xavier's training accuracy at the step where He's mean has reached {LEARNED:g} (settled after a pilot)",
            first[1], _share(first[0]), seeds, "stalls", HE, f"interval at or below {NEAR_CHANCE:g}", first[2],
        ),
        Row(
            f"{title}: Xavier does not learn within {budget} steps",
            f"seeds that reach {LEARNED:g}",
            f"{np.isfinite(other).sum()} of {seeds} (Xavier {xavier[:, -1].mean():.3f}, He {he[:, -1].mean():.3f} in "
            "the end)",
            f"{end}, He minus Xavier", seeds, "stalls", HE, "no seed",
            verdict(not np.isfinite(other).any() and np.isfinite(when), np.isfinite(other).any()),
        ),
        Row(
            f"{title}: He's nets are the better ones on new examples",
            "test accuracy, He minus Xavier, paired by seed",
            f"{gap.mean():+.3f} ({float(test.sel(scheme='he_normal').mean()):.3f}, "
            f"{float(test.sel(scheme='xavier_normal').mean()):.3f})",
            str(t_interval(gap)), seeds, "> 0", "own check", "interval excludes 0",
            verdict(t_interval(gap).low > 0, t_interval(gap).high < 0),
        ),
    ]  # fmt: skip


def _learnable_row(training: xr.Dataset) -> Row:
    marks, budget = training["step"].values, _budget(training)
    he, xavier = (steps_to(_curves(training, name, LEARNABLE), marks) for name in ("he_normal", "xavier_normal"))
    ahead = t_interval(lead(he, xavier, budget))
    both = np.isfinite(he).all() and np.isfinite(xavier).all()
    said = verdict(both and ahead.low > 0, ahead.high < 0)
    late = " and ".join(name for name, steps in (("He", he), ("Xavier", xavier)) if not np.isfinite(steps).all())
    return Row(
        f"{_where(training)}: {LEARNABLE} ReLU layers, plain SGD with momentum: both learn, He earlier",
        f"steps to a training accuracy of {LEARNED:g}; interval: log2 of Xavier's over He's, paired by seed",
        f"He {_counted(he)}; Xavier {_counted(xavier)}",
        str(ahead), len(he), "both converge, He earlier", HE, f"all seeds within {budget} steps, interval above 0",
        said if both or said != "open" else f"open: {late} not there in {budget} steps",
    )  # fmt: skip


def _lead_row(training: xr.Dataset) -> Row:
    """How He's lead over Xavier grows with depth, where all of both get there."""
    marks, budget = training["step"].values, _budget(training)
    depths, leads, words = [], [], []
    for depth in training["depth"].values:
        he, xavier = (steps_to(_curves(training, name, depth), marks) for name in ("he_normal", "xavier_normal"))
        ahead = lead(he, xavier, budget)
        if np.isfinite(he).all() and np.isfinite(xavier).all():
            depths.append(depth)
            leads.append(ahead)
        mark = "" if np.isfinite(xavier).all() else "> "
        words.append(f"{depth}: {mark}{2 ** ahead.mean():.1f}" if np.isfinite(he).all() else f"{depth}: He too slow")
    found = Interval(*[np.asarray(np.nan)] * 3)
    if len(depths) > 2:
        found = t_interval(np.polyfit(np.log2(depths), np.stack(leads), 1)[0])
    return Row(
        f"{_where(training)}: the deeper the net, the more steps Xavier needs for He's one",
        f"Xavier's steps to {LEARNED:g} over He's, by depth (>: some seeds not there in {budget}); interval: slope of "
        f"its log2 in log2 depth, by seed, where all seeds of both get there (depths {', '.join(map(str, depths))})",
        ", ".join(words), str(found), training.sizes["seed"], "-", "own check", "slope above 0, three depths or more",
        verdict(found.low > 0, found.high < 0),
    )  # fmt: skip


def deepest(training: xr.Dataset, scheme: str) -> int:
    """Largest depth up to which every seed of every depth reaches `LEARNED` within the budget; 0 if none does."""
    found = 0
    for depth in training["depth"].values:
        if not np.isfinite(steps_to(_curves(training, scheme, depth), training["step"].values)).all():
            break
        found = int(depth)
    return found


def _deepest_row(training: xr.Dataset) -> Row:
    found = {str(name): deepest(training, name) for name in training["scheme"].values}
    others = max(depth for name, depth in found.items() if name != "he_normal")
    diverged = training["diverged"].sum(("depth", "seed"))
    lost = ", ".join(f"{name} {int(diverged.sel(scheme=name))}" for name in found if int(diverged.sel(scheme=name)))
    lanes = training.sizes["depth"] * training.sizes["seed"]
    return Row(
        f"{_where(training)}: of all starts He's learns at the greatest depth (plain SGD with momentum)",
        f"hidden layers up to which all seeds reach {LEARNED:g} in {_budget(training)} steps (0: none)",
        ", ".join(f"{name} {depth}" for name, depth in found.items())
        + (f"; diverged of {lanes} each: {lost}" if lost else "; none diverged"),
        "-", training.sizes["seed"], "-", "own check", "He's above all others",
        verdict(found["he_normal"] > others, found["he_normal"] < others),
    )  # fmt: skip


# Arms


def _arm_rows(arms: xr.Dataset) -> list[Row]:
    """Whether Xavier's start learns at the stalling depth with something done about it."""
    found = []
    for arm in ARMS:
        end = arms["train_accuracy"].sel(arm=arm).isel(step=-1)
        if arm == "residual":
            found.append(_residual_row(arms))
            continue
        xavier = t_interval(end.sel(scheme="xavier_normal").values)
        name, source = ARM_SOURCES[arm]
        extra = f", {PRETRAINING_STEPS} updates of each layer beforehand" if arm == "pretrained" else ""
        shown = ", ".join(f"{scheme} {float(end.sel(scheme=scheme).mean()):.3f}" for scheme in arms["scheme"].values)
        found.append(
            Row(
                f"{_where(arms)}: with {name} Xavier's start learns at {arms.attrs['depth']} ReLU layers too{extra}",
                f"training accuracy after {arms.attrs['steps']} steps",
                shown, f"{_share(xavier)}, Xavier", arms.sizes["seed"], "learns", source,
                f"interval at or above {LEARNED:g}", verdict(xavier.low >= LEARNED, xavier.high < LEARNED),
            )
        )  # fmt: skip
    return found


def _residual_row(arms: xr.Dataset) -> Row:
    """Branches that start near zero learn; those that keep the signal's variance add up."""
    found = arms.sel(arm="residual")
    small = t_interval(found["train_accuracy"].sel(scheme="small_normal").isel(step=-1).values)
    lost = found["diverged"].sel(scheme=["xavier_normal", "he_normal"])
    counts = ", ".join(f"{name} {int(lost.sel(scheme=name).sum())}" for name in lost["scheme"].values)
    return Row(
        f"{_where(arms)}: {arms.attrs['depth']} residual ReLU layers without normalization learn from N(0, 0.01²) and "
        "diverge from Xavier's and He's starts",
        f"training accuracy of N(0, 0.01²) after {arms.attrs['steps']} steps, and seeds of {arms.sizes['seed']} that "
        "diverged (settled after a pilot)",
        f"{float(small.mean):.3f}; {counts}", _share(small), arms.sizes["seed"], "standard starts explode",
        "Zhang, Dauphin and Ma (2019)", f"interval at or above {LEARNED:g}, all of the others diverged",
        verdict(small.low >= LEARNED and bool(lost.all()), small.high < LEARNED or not lost.any()),
    )  # fmt: skip


# Convolutions


def spread(sizes: xr.DataArray) -> np.ndarray:
    """log10 of the first over the last layer's size, (seeds,)."""
    size = sizes.transpose("seed", "layer").values
    return np.log10(size[:, 0] / size[:, -1])


def _cnn_rows(cnn: xr.Dataset) -> list[Row]:
    """Which starts carry gradients through convolutions, and what they learn."""
    title = f"{cnn.attrs['data']}: tanh, {cnn.attrs['depth']} convolutions of {cnn.attrs['width']} channels"
    ratios = {str(name): spread(cnn["delta"].sel(scheme=name)) for name in cnn["scheme"].values}
    drift = {name: np.abs(ratio) for name, ratio in ratios.items()}
    others = np.minimum(drift["xavier_normal"], drift["orthogonal"])
    gap = t_interval(others - drift["delta_orthogonal"])
    end = cnn["train_accuracy"].isel(step=-1)
    ahead = t_interval((end.sel(scheme="delta_orthogonal") - end.sel(scheme="xavier_normal")).values)
    source = "Xiao et al. (2018)"
    return [
        Row(
            f"{title}: of the starts of critical variance delta-orthogonal keeps the gradient's size best",
            "first over last layer's gradient at the start (He: twice that variance); interval: least |log10| of "
            "Xavier's and orthogonal minus its own",
            ", ".join(f"{name} {10 ** ratio.mean():.3g}" for name, ratio in ratios.items()),
            str(gap), cnn.sizes["seed"], "kept", source, "interval above 0", verdict(gap.low > 0, gap.high < 0),
        ),
        Row(
            f"{title}: delta-orthogonal learns more than Xavier's start, at one rate for all",
            f"training accuracy after {cnn.attrs['steps']} steps; interval: delta-orthogonal minus Xavier",
            ", ".join(f"{name} {float(end.sel(scheme=name).mean()):.3f}" for name in ratios),
            str(ahead), cnn.sizes["seed"], "trains at any depth", source, "interval above 0",
            verdict(ahead.low > 0, ahead.high < 0),
        ),
    ]  # fmt: skip
