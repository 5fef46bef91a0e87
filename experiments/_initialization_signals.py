"""Signals and gradients in random nets of many layers; sweeps of the panels inputs, zero, signals and histograms."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from experiments._initialization_theory import FAR, signal_theory
from experiments._initialization_units import (
    CONSTANT,
    HISTOGRAM_ACTIVATIONS,
    HISTOGRAM_SCHEMES,
    HISTOGRAM_SEEDS,
    INPUT_SCHEMES,
    INPUT_SEEDS,
    ZERO_ACTIVATIONS,
    ZERO_GROUPS,
    ZERO_RULES,
    ZERO_SEEDS,
    ZERO_STARTS,
    Results,
    histograms_lane,
    inputs_lane,
    over,
    switched,
    zero_lane,
)
from nnjax import activations, initializers
from nnjax.sweep import sweep
from nnjax.train import log_spaced_steps
from nnjax.types import Array, Key

if TYPE_CHECKING:
    import xarray as xr

ACTIVATIONS = ("logistic", "tanh", "relu", "leaky_relu", "elu", "swish", "identity")
"""Hidden activations of the signals panel, unless others are asked for."""

FAMILIES = ("normal", "uniform", "orthogonal")

SCHEMES: dict[str, tuple[str, Callable[[int], float]]] = {
    "small_normal": ("normal", lambda width: 1e-4),
    "standard_normal": ("normal", lambda width: 1.0),
    "xavier_normal": ("normal", lambda width: 1 / width),
    "xavier_uniform": ("uniform", lambda width: 1 / width),
    "lecun_normal": ("normal", lambda width: 1 / width),
    "he_normal": ("normal", lambda width: 2 / width),
    "he_uniform": ("uniform", lambda width: 2 / width),
    "orthogonal": ("orthogonal", lambda width: 1 / width),
}
"""Schemes that the signals panel may have: the kind of draw, and a weight's variance between layers of equal width."""

START_CORRELATION = 0.5
"""Correlation of the two inputs of a pair."""

SATURATED = 0.05
"""A unit is saturated where its activation's slope is smaller."""


def signals_lane(
    key: Key,
    hparams: Any,
    data: None,
    *,
    depth: int,
    width: int,
    inputs: int,
    bias_variance: float,
    activations: tuple[str, ...],
    schemes: tuple[str, ...],
) -> Results:
    """Signals and gradients in random nets, each result with the axes (activations, schemes, layers).

    Inputs come in pairs of correlation 1/2, each of mean square exactly 1; the deltas of the last layer are standard
    normal. Signal and deltas are brought back to mean square 1 in every layer, the logarithms of the factors being
    kept, so that nothing overflows or underflows. All schemes of a family use the same draws.

    A logarithm is -inf where what it is of is exactly 0: gradients below the last layer where the activation's slope
    is 0 everywhere (step, threshold), and what comes after a layer whose units are all off.

    Args:
      activations: names in `nnjax.activations.TABLE`.
      schemes: names in `SCHEMES`.

    Returns:
      ``log_length``: ln of the mean over units and inputs of the squared net input; ``mean_log_length``: the mean over
      inputs of the ln of that mean over units. ``log_gradient`` and ``mean_log_gradient``: the same of the deltas
      (derivatives by net inputs), less those of the last layer. ``saturated`` and ``dead``: shares of units whose slope
      is below `SATURATED` (mean over inputs), and whose value or slope is 0 for every input. ``correlation``: mean
      cosine of the net inputs of a pair, 0 where one of them has none. ``diverged``, (): whether any result is NaN or
      inf; -inf, the logarithm of 0, is none of these.
    """
    draw_key, bias_key, input_key, delta_key = jax.random.split(key, 4)
    draws = family_draws(draw_key, depth, width)
    biases = bias_variance**0.5 * jax.random.normal(bias_key, (depth, width))
    x = _pairs(input_key, inputs // 2, width)
    last = _normalized(jax.random.normal(delta_key, x.shape))[0]
    drawn = [SCHEMES[name] for name in schemes]
    families = [FAMILIES.index(family) for family, _ in drawn]
    # An orthogonal matrix has entries of variance 1/width already.
    scales = [1.0 if family == "orthogonal" else variance(width) ** 0.5 for family, variance in drawn]

    def cell(places: Array) -> Results:
        weights = jnp.array(scales)[places[1]] * draws[jnp.array(families)[places[1]]]
        slopes = partial(_value_and_slope, activation=switched(activations, places[0]))
        found, slope = _forward(x, weights, biases, slopes)
        return found | _backward(last, weights, slope)

    found = over(cell, len(activations), len(schemes))
    wrong = [jnp.any(jnp.isnan(value) | (value == jnp.inf)) for value in found.values()]
    return found | {"diverged": jnp.any(jnp.stack(wrong))}


def family_draws(key: Key, depth: int, width: int) -> Array:
    """Weights of variance 1 (normal, uniform) and orthogonal matrices: (families, depth, width, width)."""
    normal, uniform, rotation = jax.random.split(key, 3)
    shape, init = (depth, width, width), initializers.orthogonal()
    # One after the other: factorizations side by side are slow on CPUs.
    keys = jax.random.split(rotation, depth)
    rotations = jax.lax.map(lambda k: init(k, (width, width), jnp.result_type(float)), keys)
    even = jax.random.uniform(uniform, shape, minval=-(3**0.5), maxval=3**0.5)
    return jnp.stack([jax.random.normal(normal, shape), even, rotations])


def _pairs(key: Key, pairs: int, width: int) -> Array:
    """Inputs of mean square 1, (2 pairs, width): one of each pair first, then the other ones."""
    first, second = jax.random.normal(key, (2, pairs, width))
    second = START_CORRELATION * first + (1 - START_CORRELATION**2) ** 0.5 * second
    x = jnp.concatenate([first, second])
    return x / jnp.sqrt(jnp.mean(x**2, axis=1, keepdims=True))


def _value_and_slope(z: Array, *, activation: Callable[[Array], Array]) -> tuple[Array, Array]:
    return jax.jvp(activation, (z,), (jnp.ones_like(z),))


def _normalized(signal: Array) -> tuple[Array, Array, Array]:
    """A signal (n, width) brought to mean square 1; ln of its mean square; and how much less the mean ln by row is.

    A signal of zeros remains one: its logarithm is -inf.
    """
    squares = jnp.mean(signal**2, axis=1)
    mean = jnp.mean(squares)
    kept = jnp.where(mean > 0, mean, 1.0)
    less = jnp.where(mean > 0, jnp.mean(jnp.log(squares / kept)), 0.0)
    return signal / jnp.sqrt(kept), jnp.log(mean), less


def _forward(
    x: Array, weights: Array, biases: Array, slopes: Callable[[Array], tuple[Array, Array]]
) -> tuple[Results, Array]:
    """What `signals_lane` returns of the signal, by layer, and the slopes at every unit (layers, n, width)."""
    half = len(x) // 2

    def layer(carry: Any, here: tuple[Array, Array]) -> tuple[Any, Any]:
        signal, log_scale = carry  # the true signal is exp(log_scale) times as large
        weight, bias = here
        # A bias of 0 would otherwise be multiplied by infinity where the signal has vanished.
        u, log_square, less = _normalized(signal @ weight + bias[None] * jnp.exp(-jnp.maximum(log_scale, -FAR)))
        log_length = 2 * log_scale + log_square
        near = jnp.clip(log_length / 2, -FAR, FAR)
        y, slope = slopes(jnp.exp(near) * u)
        norm = u / jnp.linalg.norm(u, axis=1, keepdims=True)
        cosines = jnp.sum(norm[:half] * norm[half:], axis=1)
        correlation = jnp.mean(cosines)
        found = {
            "log_length": log_length,
            "mean_log_length": log_length + less,
            "saturated": jnp.mean(jnp.abs(slope) < SATURATED),
            "dead": jnp.mean(jnp.all((y == 0) | (slope == 0), axis=0)),
            "correlation": jnp.where(jnp.isnan(correlation), jnp.nansum(cosines) / half, correlation),
        }
        signal, log_square, _ = _normalized(y)
        log_scale = log_square / 2 + jnp.where(log_length > -jnp.inf, log_length / 2 - near, 0.0)
        # Zeros have any scale; this one leaves the biases above them as they are.
        return (signal, jnp.where(log_square > -jnp.inf, log_scale, 0.0)), (found, slope)

    return jax.lax.scan(layer, (x, jnp.zeros((), x.dtype)), (weights, biases))[1]


def _backward(last: Array, weights: Array, slope: Array) -> Results:
    """What `signals_lane` returns of the deltas, by layer, from those of the last one, of mean square 1."""

    def layer(carry: Any, here: tuple[Array, Array]) -> tuple[Any, Any]:
        delta, log_scale = carry
        weight, slope = here
        delta, log_square, less = _normalized((delta @ weight.T) * slope)
        return (delta, log_scale + log_square), (log_scale + log_square, log_scale + log_square + less)

    at_last = jnp.mean(jnp.log(jnp.mean(last**2, axis=1)))
    start = last, jnp.zeros((), last.dtype)
    _, (mean, by_input) = jax.lax.scan(layer, start, (weights[1:], slope[:-1]), reverse=True)
    return {"log_gradient": jnp.append(mean, 0.0), "mean_log_gradient": jnp.append(by_input - at_last, 0.0)}


# Sweeps


def chosen(config: Any) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The activations and the schemes of the signals panel, each by its own name, not by an alias, and once."""
    names = (activations.ALIASES.get(name, name) for name in config.activations)
    schemes = (initializers.ALIASES.get(name, name) for name in config.schemes)
    return tuple(dict.fromkeys(names)), tuple(dict.fromkeys(schemes))


def sweeps(config: Any, data: Mapping[str, Array], key: Key) -> dict[str, partial]:
    """The sweeps of the panels inputs, zero, signals and histograms.

    Args:
      config: the study's, with the fields named after these panels and ``batch_size``.
      data: ``x_train`` (n, features) and ``y_train`` (n,).
      key: base key.
    """
    data = {name: data[name] for name in ("x_train", "y_train")}
    marks = log_spaced_steps(config.zero_steps, 12)
    inputs = partial(
        sweep,
        partial(inputs_lane, draws=max(2, config.input_draws // INPUT_SEEDS)),
        {"seed": range(INPUT_SEEDS)},
        key=key,
        name="inputs",
        dims={"sum": ("scheme", "draw")},
        coords={"scheme": list(INPUT_SCHEMES)},
    )
    cells = ("activation", "start", "rule", "mark")
    zero = partial(
        sweep,
        partial(zero_lane, marks=marks, batch_size=config.batch_size),
        {"seed": range(ZERO_SEEDS)},
        key=jax.random.fold_in(key, 1),
        data=data,
        name="zero",
        width=1,  # side by side, every branch would be computed
        dims={"distance": cells, "nearest": cells, "moved": (*cells, "group"), "accuracy": cells},
        coords={
            "activation": list(ZERO_ACTIVATIONS), "start": list(ZERO_STARTS), "rule": list(ZERO_RULES),
            "mark": list(marks), "group": list(ZERO_GROUPS),
        },
    )  # fmt: skip
    return {"inputs": inputs, "zero": zero, **_signal_sweeps(config, key), **_histogram_sweeps(config, key, data)}


def _signal_sweeps(config: Any, key: Key) -> dict[str, partial]:
    depth, (names, schemes) = config.signal_depth, chosen(config)
    lane = partial(
        signals_lane,
        depth=depth,
        width=config.signal_width,
        inputs=config.signal_inputs,
        bias_variance=config.bias_variance,
        activations=names,
        schemes=schemes,
    )
    measured = (
        "log_length", "mean_log_length", "log_gradient", "mean_log_gradient", "saturated", "dead", "correlation"
    )  # fmt: skip
    signals = partial(
        sweep,
        lane,
        {"seed": range(config.signal_seeds)},
        key=jax.random.fold_in(key, 2),
        name="signals",
        float64=True,
        width=1,
        dims=dict.fromkeys(measured, ("activation", "scheme", "layer")),
        coords={"activation": list(names), "scheme": list(schemes), "layer": list(range(1, depth + 1))},
    )
    return {"signals": signals}


def _histogram_sweeps(config: Any, key: Key, data: Mapping[str, Array]) -> dict[str, partial]:
    depth, marks = config.histogram_depth, log_spaced_steps(config.histogram_steps, 10)
    layers = ("activation", "scheme", "time", "layer")
    lane = partial(
        histograms_lane,
        depth=depth,
        width=config.histogram_width,
        marks=marks,
        batch_size=config.batch_size,
    )
    own: dict[str, tuple[str, ...]] = dict.fromkeys(("activation_density", "delta_density"), (*layers, "bin"))
    own |= {"activation_std": layers, "delta_rms": layers, "accuracy": ("activation", "scheme", "mark")}
    histograms = partial(
        sweep,
        lane,
        {"seed": range(HISTOGRAM_SEEDS)},
        key=jax.random.fold_in(key, 3),
        data=data,
        name="histograms",
        width=1,
        dims=own,
        coords={
            "activation": list(HISTOGRAM_ACTIVATIONS), "scheme": list(HISTOGRAM_SCHEMES), "time": ["start", "end"],
            "layer": list(range(1, depth + 1)), "mark": list(marks),
        },
    )  # fmt: skip
    return {"histograms": histograms}


def with_theory(groups: Mapping[str, xr.Dataset], config: Any) -> dict[str, xr.Dataset]:
    """The groups with theory beside the signals panel's measurements, and what figures and report must know."""
    zero, histograms = groups["zero"].copy(), groups["histograms"].copy()
    zero.attrs |= {"constant": CONSTANT}
    histograms.attrs |= {"width": config.histogram_width, "data": config.data}
    return {**groups, "signals": beside_theory(groups["signals"], config), "zero": zero, "histograms": histograms}


def beside_theory(panel: xr.Dataset, config: Any) -> xr.Dataset:
    """The signals panel with what theory says of its activations and schemes, and what it was computed with."""
    width = config.signal_width
    drawn = [SCHEMES[str(name)] for name in panel["scheme"].values]
    found = signal_theory(
        [str(name) for name in panel["activation"].values],
        [(variance(width) * width, family == "orthogonal") for family, variance in drawn],
        depth=config.signal_depth,
        width=width,
        inputs=config.signal_inputs,
        bias_variance=config.bias_variance,
        correlation=START_CORRELATION,
        saturated=SATURATED,
    )
    axes = ("activation", "scheme", "layer")
    names = {name: name if name.startswith("finite") else f"theory_{name}" for name in found}
    panel = panel.assign({names[name]: (axes, value) for name, value in found.items()})
    panel.attrs |= {"width": width, "inputs": config.signal_inputs // 2 * 2, "bias_variance": config.bias_variance}
    return panel
