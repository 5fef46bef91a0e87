"""Training panels of the initialisation study: rates, training, arms and cnn, their settings, sweeps and results.

Rates are chosen before anything is reported: He's starts alone run at every rate, on seeds of their own, and what they
reach on validation examples in the end chooses the rate that all schemes of that arm and depth then use. The highest
mean accuracy decides; among equals, as at small depths, the lowest mean loss, and then the lowest rate. The cnn panel
has one rate for all.

Preset standard's width and number of steps, the same for all depths, were fixed after pilots on 10,000 digits of MNIST,
with other seeds than the preset's: long enough for Xavier's start to learn at 22 layers, too short at 30. Width 128 was
taken because at 64 the two depths differ less. Xavier's nets do not stall for ever at 30 layers: in the last pilot (5
seeds, 2000 steps) they stood at 0.129 [0.084, 0.173] when He's mean passed 0.85, and at 0.41 to 0.80 in the end. What
depth costs them is time, and it is this that the report measures. Its criterion, Xavier's accuracy at the step where
He's *mean* has reached 0.85, was settled then; where every He start had, Xavier stood at 0.151 [0.085, 0.216].

Also fixed after pilots on digits: the learning rate of pre-training, the residual nets' chooser and claim, the grids of
the batch-normalized and residual arms, and the cnn panel's rate.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from experiments import command
from experiments._initialization_training_lanes import (
    ARM_SCHEMES,
    ARMS,
    CNN_EXAMPLES,
    CNN_RATE,
    CNN_SCHEMES,
    CURVES,
    FAMILIES,
    TRAINING_SCHEMES,
    Setting,
    cnn_lane,
    mlp_lane,
    table,
)
from nnjax.data import fit_standardizer, load, stratified_split
from nnjax.sweep import sweep
from nnjax.train import Config as TrainConfig
from nnjax.train import log_spaced_steps
from nnjax.types import Key

if TYPE_CHECKING:
    import xarray as xr

CHOOSER, RESIDUAL_CHOOSER = "he_normal", "small_normal"
"""The start whose validation accuracy chooses the learning rate of all. He's residual nets, each of whose layers adds
to the signal, were lost at every rate down to 1e-8 in a pilot; there it is the start of small weights."""

RATE_FACTORS = {"batch_norm": 3.0, "residual": 3.0}
"""Arms whose grid of learning rates is so many times the plain nets', where pilots found their best ones."""

MARKS_A_DECADE = 6
"""Evaluations while steps grow tenfold, from step 10 on; one more at the start."""

EVALUATED = 500
"""Examples at once in an evaluation: on two CPU cores ten thousand at once take more than twice the time."""

Chosen = Mapping[tuple[str, int], float]
"""Learning rates by arm and depth."""


# Data


def examples(config: Any, *, flat: bool) -> dict[str, Any]:
    """Training, validation and test pictures, standardized by the training part's one mean and one deviation.

    All three parts are the same for all seeds; test examples are as many as those for validation, or all there are.

    Raises:
      experiments.command.BadInput: more examples asked for than there are.
    """
    dataset = load(config.data)
    pool, wanted = dataset.train, config.train_n + config.validation_n
    if wanted > len(pool.x):
        raise command.BadInput(
            f"train_n={config.train_n} and validation_n={config.validation_n} are more than the {len(pool.x)} "
            f"training examples of {config.data}"
        )
    train, validation = stratified_split(pool.y, (config.train_n, config.validation_n), seed=config.seed)
    (test,) = stratified_split(dataset.test.y, (min(config.validation_n, len(dataset.test.x)),), seed=config.seed)
    parts = {"train": (pool, train), "validation": (pool, validation), "test": (dataset.test, test)}
    found = {f"x_{name}": np.asarray(source.x[index], np.float32) for name, (source, index) in parts.items()}
    scale = fit_standardizer(found["x_train"], axis=(0, 1, 2, 3))
    found = {name: np.asarray(scale(x)) for name, x in found.items()}
    if flat:
        found = {name: x.reshape(len(x), -1) for name, x in found.items()}
    labels = {f"y_{name}": np.asarray(source.y[index]) for name, (source, index) in parts.items()}
    return {**found, **labels, "classes": np.arange(len(dataset.class_names), dtype=np.int32)}


# Settings


def _places(config: Any) -> dict[str, list[tuple[str, int]]]:
    """Every arm and depth with a rate to choose, by family."""
    return {
        "sgd": [("sgd", depth) for depth in config.depths],
        **{family: [(arm, config.arm_depth) for arm in arms] for family, arms in FAMILIES.items()},
    }


def _rates(config: Any, arm: str) -> tuple[float, ...]:
    if arm == "adam":
        return config.adam_rates
    return tuple(float(f"{rate * RATE_FACTORS.get(arm, 1.0):.6g}") for rate in config.rates)


def selection(config: Any) -> dict[str, list[Setting]]:
    """What runs to choose the rates, by family: those that choose, at every rate."""
    return {
        family: [
            Setting(arm, RESIDUAL_CHOOSER if arm == "residual" else CHOOSER, depth, rate)
            for arm, depth in places
            for rate in _rates(config, arm)
        ]
        for family, places in _places(config).items()
    }


def reported(config: Any, chosen: Chosen) -> dict[str, list[Setting]]:
    """What is reported, by family: every scheme at the rate chosen for its arm and depth."""
    found = {
        family: [
            Setting(arm, scheme, depth, chosen[arm, depth])
            for arm, depth in places
            for scheme in (TRAINING_SCHEMES if family == "sgd" else ARM_SCHEMES)
        ]
        for family, places in _places(config).items()
    }
    return found | {"cnn": [Setting("cnn", scheme, config.cnn_depth, CNN_RATE) for scheme in CNN_SCHEMES]}


def middle_rates(config: Any) -> Chosen:
    """The middle of each grid of rates, for a plan before there is a choice."""
    places = [place for places in _places(config).values() for place in places]
    return {place: _rates(config, place[0])[len(_rates(config, place[0])) // 2] for place in places}


def best(accuracy: np.ndarray, loss: np.ndarray) -> int:
    """Place of the highest mean accuracy; among equals of the lowest mean loss, and then of the lowest rate.

    Args:
      accuracy, loss: (rates, seeds), rates ascending; what is not finite counts as accuracy 0 and infinite loss.
    """
    means = np.where(np.isfinite(accuracy), accuracy, 0.0).mean(axis=1)
    costs = np.where(np.isfinite(loss), loss, np.inf).mean(axis=1)
    return min(range(len(means)), key=lambda i: (-round(float(means[i]), 6), float(costs[i]), i))


def choose(rates: xr.Dataset) -> Chosen:
    """Rates by what the nets of the rates panel reach on validation examples; nothing else is looked at."""
    return {
        place: float(rates["rate"][members[best(*_scores(rates, members))]])
        for place, members in _groups(rates).items()
    }


def _groups(rates: xr.Dataset) -> dict[tuple[str, int], np.ndarray]:
    """Settings of each arm and depth."""
    places = [(str(arm), int(depth)) for arm, depth in zip(rates["arm"].values, rates["depth"].values, strict=True)]
    return {one: np.flatnonzero([one == place for place in places]) for one in dict.fromkeys(places)}


def _scores(rates: xr.Dataset, members: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Validation accuracies and losses of some settings, (rates, seeds)."""
    mine = rates.isel(setting=members).transpose("setting", "seed", ...)
    return mine["validation_accuracy"].values, mine["validation_loss"].values


# Sweeps


def _training(config: Any, family: str) -> TrainConfig:
    steps = {"sgd": config.steps, "cnn": config.cnn_steps}.get(family, config.arm_steps)
    first = min(10, steps)
    kept = log_spaced_steps(steps, max(2, round(MARKS_A_DECADE * math.log10(steps / first))), first=first)
    return TrainConfig(steps=steps, batch_size=config.batch_size, evaluate_at=kept, evaluation_batch=EVALUATED)


def _lane(config: Any, family: str) -> Callable:
    training = _training(config, family)
    if family == "cnn":
        return partial(cnn_lane, depth=config.cnn_depth, width=config.cnn_width, training=training)
    depth = max(config.depths) if family == "sgd" else config.arm_depth
    return partial(mlp_lane, family=family, depth=depth, width=config.width, training=training)


def _sweep(
    config: Any, name: str, family: str, settings: Sequence[Setting], seeds: range, key: Key, data: Mapping[str, Any]
) -> partial:
    return partial(
        sweep,
        _lane(config, family),
        {"setting": range(len(settings)), "seed": seeds},
        key=key,
        data={**data, "settings": table(settings)},
        name=name,
        # One lane after another, so that layers that a net does not have and other starts than its own are skipped.
        width=1 if jax.default_backend() == "cpu" else None,
        dims=dict.fromkeys(CURVES, ("step",)) | dict.fromkeys(("length", "delta", "saturated"), ("layer",)),
        coords={"step": list(_training(config, family).evaluate_at or ()), "layer": range(1, config.cnn_depth + 1)},
    )


_REPORTED = {"sgd": "training", "cnn": "cnn"}


def _stage(
    config: Any, key: Key, data: Mapping[str, Any], stage: str, settings: Mapping[str, Sequence[Setting]]
) -> dict[str, tuple[partial, Sequence[Setting]]]:
    """The sweeps of one stage by name, each with its settings."""
    found = {}
    for family, those in settings.items():
        name, first = f"rates_{family}", 0
        seeds = config.selection_seeds
        if stage == "reported":
            name, first = _REPORTED.get(family, f"arms_{family}"), config.selection_seeds
            seeds = config.cnn_seeds if family == "cnn" else config.seeds
        found[name] = _sweep(config, name, family, those, range(first, first + seeds), key, data), those
    return found


def sweeps(config: Any, key: Key, data: Mapping[str, Any], chosen: Chosen | None = None) -> dict[str, partial]:
    """All sweeps of the panels rates, training, arms and cnn, those first that choose the rates.

    Args:
      config: the study's.
      key: base key; those that choose and those that are reported have different seeds of it.
      data: ``x_train`` (n, features), ``y_train`` (n,), the same for validation and test, and ``classes`` (classes,).
      chosen: learning rates as `choose` returns them; the middle ones where None, which serves to plan.
    """
    first = _stage(config, key, data, "rates", selection(config))
    second = _stage(config, key, data, "reported", reported(config, chosen or middle_rates(config)))
    return {name: call for name, (call, _) in (first | second).items()}


# Results


def panels(
    config: Any, key: Key, data: Mapping[str, Any], compute: Callable[[str, partial], xr.Dataset]
) -> dict[str, xr.Dataset]:
    """The panels rates, training, arms and cnn.

    Args:
      config, key, data: as `sweeps`.
      compute: runs a sweep, given its name and itself: ``lambda name, call: call(store=..., monitor=...)``.

    Returns:
      ``rates``: (setting, seed), what was reached in the end; settings have the coordinates arm, scheme, depth and
      rate, and ``chosen`` says which were. ``training``: (depth, scheme, seed, step) with ``rate`` (depth). ``arms``:
      (arm, scheme, seed, step) with ``rate`` (arm). ``cnn``: (scheme, seed, step or layer) with ``rate`` (scheme).
    """
    first = _stage(config, key, data, "rates", selection(config))
    ends = [_labelled(compute(name, call).isel(step=-1, drop=True), those) for name, (call, those) in first.items()]
    rates = _joined(ends)
    chosen = choose(rates)
    second = _stage(config, key, data, "reported", reported(config, chosen))
    done = {name: _labelled(compute(name, call), those) for name, (call, those) in second.items()}
    arms = _joined([done[f"arms_{family}"] for family in FAMILIES])
    arms.attrs["depth"] = config.arm_depth
    arm_names = [arm for arms_of_one in FAMILIES.values() for arm in arms_of_one]
    made = {
        "rates": _marked(rates, chosen),
        "training": _grid(done["training"], depth=config.depths, scheme=TRAINING_SCHEMES),
        "arms": _grid(arms, arm=arm_names, scheme=ARM_SCHEMES).sel(arm=list(ARMS)),
        "cnn": _grid(done["cnn"], scheme=CNN_SCHEMES),
    }
    facts = {"data": config.data, "n": config.train_n, "width": config.width, "batch_size": config.batch_size}
    for name, dataset in made.items():
        steps = {"cnn": config.cnn_steps, "arms": config.arm_steps}.get(name, config.steps)
        dataset.attrs |= facts | {"steps": steps}
    n = min(config.train_n, CNN_EXAMPLES)
    made["cnn"].attrs |= {"depth": config.cnn_depth, "width": config.cnn_width, "n": n}
    return made


def _labelled(found: xr.Dataset, settings: Sequence[Setting]) -> xr.Dataset:
    columns = {name: ("setting", [getattr(s, name) for s in settings]) for name in Setting._fields}
    return found.assign_coords(columns)


def _joined(parts: Sequence[xr.Dataset]) -> xr.Dataset:
    """Settings of several sweeps one after the other, numbered anew."""
    import xarray as xr

    found = xr.concat(parts, "setting", combine_attrs="drop_conflicts")
    return found.assign_coords(setting=range(found.sizes["setting"]))


def _marked(rates: xr.Dataset, chosen: Chosen) -> xr.Dataset:
    columns = zip(*(rates[name].values for name in ("arm", "depth", "rate")), strict=True)
    is_chosen = [chosen[str(arm), int(depth)] == rate for arm, depth, rate in columns]
    return rates.assign(chosen=("setting", is_chosen))


def _grid(found: xr.Dataset, **axes: Sequence) -> xr.Dataset:
    """Settings that are a product of ``axes``, the last running fastest, as axes; the rate goes with the first."""
    import xarray as xr

    shape = tuple(len(values) for values in axes.values())
    rates = found["rate"].values.reshape(shape)
    variables = {
        name: ((*axes, *array.dims[1:]), array.values.reshape(*shape, *array.shape[1:]))
        for name, array in found.transpose("setting", ...).data_vars.items()
    }
    coords = {name: found[name] for name in ("seed", "step", "layer") if name in found.dims}
    grid = xr.Dataset(variables, {**{name: list(values) for name, values in axes.items()}, **coords}, found.attrs)
    first = next(iter(axes))
    return grid.assign(rate=(first, rates.reshape(shape[0], -1)[:, 0]))
