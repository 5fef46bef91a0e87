"""The trainability map of the initialisation study: variance of the weights against depth.

Settled after trial runs on digits: the learning rate (0.003, one for the whole map as in Schoenholz et al., 2017; here
with momentum 0.9, there plain), the number of steps in preset quick (at 150 the strongest weights' nets fell short by
more than a factor of 2), the training accuracy that counts as learned, and the tolerance of a factor of 2. The factor 6
is theirs, an observation and not a result of theory.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from scipy.stats import spearmanr

from experiments._initialization_training_report import verdict
from nnjax import initializers, plotting
from nnjax.losses import cross_entropy, zero_one
from nnjax.models import DeepMLP, network
from nnjax.results import Row
from nnjax.statistics import Interval
from nnjax.sweep import sweep
from nnjax.theory import mean_field
from nnjax.train import Config, make_train
from nnjax.types import Array, Key

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DEPTHS_OF_MEMORY = 6
"""Nets train down to about this many depth scales of the correlation (Schoenholz et al., 2017)."""

LEARNED = 0.5
"""Training accuracy above which a net of ten classes counts as trained."""

_DRAWS = 2000  # bootstrap samples


def map_lane(
    key: Key,
    hparams: Mapping[str, Array],
    data: Mapping[str, Array],
    *,
    depth: int,
    width: int,
    classes: int,
    activation: str,
    bias_variance: float,
    learning_rate: float,
    steps: int,
    batch_size: int,
) -> dict[str, Array]:
    """Training and test accuracy of a net of ``hparams["depth"]`` hidden layers after so many steps.

    Weights start as N(0, weight_variance/fan_in), biases as N(0, bias_variance), the output layer as N(0, 1/fan_in).
    """
    model = DeepMLP(
        depth=depth,
        width=width,
        classes=classes,
        activation=activation,
        initializer=initializers.scaled_normal(
            lambda fan_in, fan_out: 1 / fan_in, jnp.sqrt(hparams["weight_variance"])
        ),
        bias_initializer=jax.nn.initializers.normal(bias_variance**0.5),
        output_initializer="lecun_normal",
        alive=hparams["depth"],
    )
    train = make_train(
        network(model),
        cross_entropy,
        lambda _: optax.sgd(learning_rate, momentum=0.9),
        Config(steps=steps, batch_size=batch_size, evaluate_every=steps),
        metrics={"loss": cross_entropy, "error": zero_one},
    )
    splits = {name: (data[f"x_{name}"], data[f"y_{name}"]) for name in ("train", "test")}
    result = train(key, hparams, splits)
    return {
        "train_accuracy": 1 - result.history["train_error"][-1],
        "test_accuracy": 1 - result.history["test_error"][-1],
        "train_loss": result.history["train_loss"][-1],
        "diverged": result.diverged,
    }


def sweeps(config: Any, data: Mapping[str, Any], key: Key) -> dict[str, partial]:
    """The panel's sweep; depths share programs, so that the deepest nets do not set everyone's cost."""
    lane = partial(
        map_lane,
        width=config.map_width,
        classes=len(data["classes"]),
        activation=config.map_activation,
        bias_variance=config.map_bias_variance,
        learning_rate=config.map_rate,
        steps=config.map_steps,
        batch_size=config.batch_size,
    )
    data = {name: data[name] for name in ("x_train", "y_train", "x_test", "y_test")}
    axes = {"weight_variance": config.map_variances, "depth": config.map_depths, "seed": range(config.map_seeds)}
    # Side by side, a lane would pay for the layers it does not have; one after another it skips them.
    width = 1 if jax.default_backend() == "cpu" else None
    return {"map": partial(sweep, lane, axes, key=key, data=data, name="map", padded="depth", width=width)}


# What theory predicts, and what was measured


def with_theory(results: xr.Dataset, config: Any) -> xr.Dataset:
    """The panel with the depth scales of its variances, and what describes it."""
    with jax.enable_x64(True):
        variances = jnp.asarray(results["weight_variance"].values)
        scales = mean_field.depth_scales(config.map_activation, variances, config.map_bias_variance)
        critical = mean_field.critical_weight_variance(config.map_activation, config.map_bias_variance)
    results = results.assign(
        correlation_scale=("weight_variance", np.asarray(scales.correlation)),
    )
    results.attrs |= {
        "activation": config.map_activation, "bias_variance": config.map_bias_variance, "critical": float(critical),
        "width": config.map_width, "steps": config.map_steps, "rate": config.map_rate, "data": config.data,
    }  # fmt: skip
    return results


def trainable_depth(accuracy: np.ndarray, depths: np.ndarray) -> np.ndarray:
    """Depth to which nets train: where accuracy last falls through `LEARNED`, between depths in their logarithm.

    Args:
      accuracy: (..., depths).
      depths: (depths,), ascending.

    Returns:
      (...): the first depth where no net trains, the last where all do.
    """
    logs = np.log(depths)
    learned = accuracy >= LEARNED
    last = learned.shape[-1] - 1 - np.argmax(learned[..., ::-1], axis=-1)
    last = np.where(learned.any(axis=-1), last, 0)
    after = np.minimum(last + 1, len(depths) - 1)
    here, there = (np.take_along_axis(accuracy, at[..., None], -1)[..., 0] for at in (last, after))
    share = np.where(here > there, (here - LEARNED) / np.where(here > there, here - there, 1), 0.0)
    return np.exp(logs[last] + np.clip(share, 0, 1) * (logs[after] - logs[last]))


def predicted_depth(results: xr.Dataset) -> np.ndarray:
    """`DEPTHS_OF_MEMORY` depth scales for each variance, no more than the deepest net: (variances,)."""
    return np.minimum(DEPTHS_OF_MEMORY * results["correlation_scale"].values, results["depth"].values[-1])


def with_prediction(results: xr.Dataset) -> xr.Dataset:
    """The variances for which theory has a depth scale: lengths that grow for ever have none."""
    return results.isel(weight_variance=np.flatnonzero(results["correlation_scale"].values > 0))


def rank_correlation(results: xr.Dataset, seed: int = 0) -> Interval:
    """Spearman's correlation of predicted and measured depths over the variances, with a 95 % bootstrap interval.

    The measured depth of a variance is the mean over seeds of its logarithm; bootstrap samples draw variances, and
    for each of them seeds, with replacement.
    """
    accuracy = results["train_accuracy"].transpose("weight_variance", "seed", "depth").values
    measured = np.log(trainable_depth(accuracy, results["depth"].values))  # (variances, seeds)
    predicted = predicted_depth(results)
    rng = np.random.default_rng(seed)
    variances, seeds = measured.shape
    drawn = []
    for _ in range(_DRAWS):
        rows = rng.integers(variances, size=variances)
        columns = rng.integers(seeds, size=(variances, seeds))
        drawn.append(_ranks(predicted[rows], measured[rows[:, None], columns].mean(axis=1)))
    found = _ranks(predicted, measured.mean(axis=1))
    ordered = [value for value in drawn if np.isfinite(value)]  # the others have no order to compare
    low, high = np.quantile(ordered, [0.025, 0.975]) if ordered else (np.nan, np.nan)
    return Interval(*(np.asarray(value) for value in (found, low, high)))


def _ranks(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's rank correlation; NaN where either does not vary."""
    return float(spearmanr(a, b).statistic) if np.ptp(a) > 0 and np.ptp(b) > 0 else np.nan


def rows(tree: xr.DataTree) -> list[Row]:
    """Whether theory orders the depths to which nets train, and how far they go."""
    whole = tree["map"].to_dataset()
    results, critical = with_prediction(whole), whole.attrs["critical"]
    variances, depths = results["weight_variance"].values, results["depth"].values
    below, left = int((variances < critical).sum()), whole.sizes["weight_variance"] - len(variances)
    above = int((variances > critical).sum())
    claim = (
        f"{DEPTHS_OF_MEMORY} depth scales of the correlation order the depths to which {whole.attrs['activation']} "
        f"nets train ({below} variances below, {above} above the critical one; {len(depths)} depths"
        + (f"; {left} without a depth scale left out)" if left else ")")
    )
    quantity = "Spearman's rank correlation, predicted and measured depth; bootstrap interval"
    seeds, source = whole.sizes["seed"], "Schoenholz et al. (2017)"
    if len(variances) < 3 or not np.isfinite(critical):
        return [Row(claim, quantity, "-", "-", seeds, "-", source, "> 0.9", "not comparable")]
    found = rank_correlation(results)
    said = verdict(found.mean > 0.9, found.high < 0.9)
    first = Row(claim, quantity, f"{float(found.mean):.3f}", str(found), seeds, "-", source, "> 0.9", said)
    accuracy = results["train_accuracy"].transpose("weight_variance", "seed", "depth").values
    ratio = np.exp(np.log(trainable_depth(accuracy, depths)).mean(axis=1)) / predicted_depth(results)
    ratio = ratio[predicted_depth(results) < depths[-1]]
    if not len(ratio):
        return [first]
    second = Row(
        f"nets train to about {DEPTHS_OF_MEMORY} depth scales",
        "measured over predicted depth, median; range over variances whose prediction is on the map",
        f"{np.median(ratio):.2f}", f"[{ratio.min():.2g}, {ratio.max():.2g}]", seeds, "1", source,
        "a factor of 2 for every variance", verdict(np.all((ratio > 0.5) & (ratio < 2))),
    )  # fmt: skip
    return [first, second]


# The figure


def plot(tree: xr.DataTree) -> dict[str, Figure]:
    """The figure of the panel, by name."""
    return {"map": _map(tree["map"].to_dataset())}


def _map(results: xr.Dataset) -> Figure:
    """Training accuracy over variance and depth, the predicted line, and the measured depths."""
    depths, variances = results["depth"].values, results["weight_variance"].values
    accuracy = results["train_accuracy"].transpose("weight_variance", "depth", "seed").values
    seeds = results.sizes["seed"]
    with plotting.style():
        made, axes = plotting.figure(1, 1, width=6.2, height=4.0)
        panel = axes[0, 0]
        mesh = panel.pcolormesh(
            _edges(variances), _edges(depths), np.nanmean(accuracy, axis=-1).T, vmin=0, vmax=1, cmap="cividis"
        )
        made.colorbar(mesh, ax=panel, label="training accuracy")
        _draw_prediction(panel, results)
        measured = trainable_depth(accuracy.transpose(0, 2, 1), depths)
        panel.plot(
            variances, np.exp(np.log(measured).mean(axis=1)), "o", color=plotting.COLORS[1], markersize=5,
            markeredgecolor="white", markeredgewidth=0.7, label=f"measured depth (accuracy {LEARNED:g})",
        )  # fmt: skip
        plotting.log_axis(panel, _ticks(variances))
        plotting.log_axis(panel, list(depths), "y")
        panel.set_ylim(_edges(depths)[0], _edges(depths)[-1])
        panel.set_xlim(_edges(variances)[0], _edges(variances)[-1])
        if _edges(variances)[0] < results.attrs["critical"] < _edges(variances)[-1]:
            plotting.mark(panel, results.attrs["critical"], f"critical: {results.attrs['critical']:.3f}", color="0.2")
        panel.grid(visible=False)
        panel.set_xlabel(r"variance of the weights, $\sigma_w^2$ (times 1/fan_in)")
        panel.set_ylabel("hidden layers")
        made.legend(loc="outside lower center", ncols=2)
        made.suptitle(
            f"{results.attrs['data']}: {results.attrs['activation']} nets of width {results.attrs['width']}, "
            f"{results.attrs['steps']} steps, {seeds} seed{'s' * (seeds > 1)}"
        )
    return made


def _draw_prediction(panel: Axes, results: xr.Dataset) -> None:
    """`DEPTHS_OF_MEMORY` depth scales of theory over the variances, with a gap where lengths grow for ever."""
    from matplotlib.patheffects import Normal, withStroke

    variances = results["weight_variance"].values
    fine = np.geomspace(variances[0], variances[-1], 400)
    with jax.enable_x64(True):
        scales = mean_field.depth_scales(results.attrs["activation"], jnp.asarray(fine), results.attrs["bias_variance"])
    line = DEPTHS_OF_MEMORY * np.asarray(scales.correlation)
    # White with a black edge: seen on every color of the map and on the legend's paper.
    edge = [withStroke(linewidth=3.5, foreground="black"), Normal()]
    plotting.theory(
        panel, fine, np.where(line > 0, line, np.nan), label=rf"{DEPTHS_OF_MEMORY} depth scales $\xi_c$ of theory",
        color="white", linestyle="-", linewidth=2, path_effects=edge,
    )  # fmt: skip


def _edges(centres: np.ndarray) -> np.ndarray:
    """Edges of cells round ascending centres, half-way between them in the logarithm."""
    logs = np.log(centres)
    middle = (logs[1:] + logs[:-1]) / 2
    return np.exp(np.concatenate([[2 * logs[0] - middle[0]], middle, [2 * logs[-1] - middle[-1]]]))


def _ticks(values: np.ndarray) -> list[float]:
    return [tick for tick in (0.25, 0.5, 1, 2, 4, 8, 16) if _edges(values)[0] <= tick <= _edges(values)[-1]]
