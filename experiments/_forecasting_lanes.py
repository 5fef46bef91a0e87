"""The models of the forecasting study: one lane is a recurrent net on one fold; the baselines have closed forms."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments._forecasting_series import Panel, scales
from nnjax import losses, models
from nnjax.classical import linear_regression
from nnjax.models import recurrent
from nnjax.train import Config as TrainConfig
from nnjax.train import Network, make_train, predict
from nnjax.types import Array, Key, PyTree

CELLS = tuple(recurrent.CELLS)
NAIVE, SEASONAL, LINEAR, BEST = "naive", "seasonal naive", "linear", "best possible"

EVALUATION_BATCH = 1000
"""Windows at once in evaluation."""
STRENGTHS = (*(10.0**power for power in range(-6, 5)), float("inf"))
"""Penalties of the linear model to choose from; the last leaves the mean difference."""


def network(cell: str, units: int) -> Network:
    """A recurrent net that begins with forecasting the mean difference: the output's weights start at zero."""
    net = models.network(models.RNNForecaster(outputs=1, cell=cell, units=(units,)))

    def init(key: Key, x: Array) -> tuple[PyTree, PyTree]:
        params, stats = net.init(key, x)
        return {**params, "forecast": jax.tree.map(jnp.zeros_like, params["forecast"])}, stats

    return Network(init, net.apply)


def lane(
    key: Key,
    hparams: Mapping[str, Array],
    data: Mapping[str, Array],
    *,
    cell: str,
    units: int,
    clip: float,
    config: TrainConfig,
) -> dict[str, Array]:
    """A net's differences from the last values for one fold's test windows, (m,), in the scale of z.

    Also its losses on the validation windows, (evaluations,), the least of them, (), and the updates behind it, ().
    """
    fold = hparams["fold"]
    own = {name: data[name][fold] for name in ("fit", "weight", "validation", "test", "x_mean", "x_std", "mean", "std")}

    def seen(places: Array) -> Array:
        return (data["x"][places] - own["x_mean"][None, None, :]) / own["x_std"][None, None, :]

    def part(places: Array) -> tuple[Array, Array]:
        return seen(places), ((data["difference"][places] - own["mean"]) / own["std"])[:, None]

    def optimizer(h: Mapping[str, Array]) -> optax.GradientTransformation:
        return optax.chain(optax.clip_by_global_norm(clip), optax.adam(h["rate"]))

    net = network(cell, units)
    splits = {"train": (*part(own["fit"]), own["weight"]), "validation": part(own["validation"])}
    result = make_train(net, losses.squared_error, optimizer, config)(jax.random.fold_in(key, fold), hparams, splits)
    difference = predict(net, result.params, result.stats, seen(own["test"]), batch_size=EVALUATION_BATCH)[:, 0]
    curve = result.history["validation_loss"]
    return {
        "difference": difference * own["std"] + own["mean"], "validation_loss": curve,
        "chosen_loss": jnp.nanmin(curve), "chosen_step": result.step, "diverged": result.diverged,
    }  # fmt: skip


# Baselines


def baselines(data: Panel) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Forecasts in the series' unit, (folds, m), of whatever needs no seed, by name; the line's penalties, (folds,)."""
    tests = np.asarray([np.r_[fold.test] for fold in data.folds])
    lines = [_linear(data, number) for number in range(len(data.folds))]
    linear = np.asarray([difference for difference, _ in lines])
    found = {
        NAIVE: data.in_unit(data.last[tests]),
        SEASONAL: data.in_unit(data.seasonal[tests]),
        LINEAR: data.in_unit(data.last[tests] + linear),
    }
    best = {BEST: data.best[tests]} if data.best is not None else {}
    return found | best, np.asarray([strength for _, strength in lines])


def _linear(data: Panel, number: int) -> tuple[np.ndarray, float]:
    """Differences that ridge regression on the same inputs forecasts, (m,), and its penalty, chosen as nets are."""
    fold = data.folds[number]
    scale = scales(data, fold)
    x = ((data.x - scale.x_mean) / scale.x_std).reshape(len(data.x), -1)
    y = (data.difference - scale.mean) / scale.std
    fit, held = data.training_windows(fold), data.validation_windows(fold)
    found: list[tuple[float, float, Any]] = []
    for strength in STRENGTHS:
        guess = _ridge(x, x[fit], y[fit], strength)
        found.append((float(np.mean((guess[held] - y[held]) ** 2)), strength, guess[fold.test]))
    _, strength, guess = min(found, key=lambda each: each[0])
    return guess * scale.std + scale.mean, strength


def _ridge(x: np.ndarray, seen: np.ndarray, y: np.ndarray, strength: float) -> np.ndarray:
    """Outputs (n,) for x (n, d) of a line that is fitted to other inputs and outputs."""
    if np.isinf(strength):
        return np.full(len(x), y.mean())
    with jax.enable_x64(True):
        params = linear_regression.closed_form(seen, y, l2=strength)
        return x @ np.asarray(params.weights)[:, 0] + np.asarray(params.bias)[0]
