"""What theory says of the initialisation study's signals: infinitely wide nets, and the first correction for width.

A layer of N units draws its signal's mean square from around the infinite net's value, with a variance of order 1/N.
The mean of its logarithm therefore falls behind the logarithm of its mean, a little more in every layer (Hanin and
Nica, 2020, for ReLU nets). `finite_width` follows mean and variance of the logarithm to first order in 1/N.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import log_ndtr

from nnjax import activations
from nnjax.theory import mean_field
from nnjax.theory.gaussian import expectation
from nnjax.types import Array

FAR = 20.0
"""ln of the largest scale at which an activation is evaluated: it has long taken its asymptotic form."""

_STEP = 0.02  # in ln of a mean square, for differences

Function = Callable[[Array], Array]

# Finite width


class Moments(NamedTuple):
    """Of an activation f at h = sqrt(q) z, z standard normal; all but the first two relative.

    Attributes:
      log_square, log_slope: ln E f^2 and ln E f'^2.
      spread: Var(f^2)/(E f^2)^2, and ``angular``: what is left of it where the net inputs' own length is fixed.
      slope_spread: 3 E f'^4/(E f'^2)^2 - 1: the spread of f'^2 times the square of a standard normal number.
      weighed: E[z^2 f'^2]/E f'^2, passed: E[z f f']^2/(E f^2 E f'^2), common: E[f^2 f'^2]/(E f^2 E f'^2).
    """

    log_square: Array
    log_slope: Array
    spread: Array
    angular: Array
    slope_spread: Array
    weighed: Array
    passed: Array
    common: Array


def moments(activation: Function, log_q: Array) -> Moments:
    """`Moments` at ln q, ()."""
    near = jnp.clip(log_q / 2, -FAR, FAR)
    scale = jnp.exp(near)

    def mean(function: Callable[[Array, Array, Array], Array]) -> Array:
        """E of a function of z, of f relative to the net inputs' scale, and of f'."""

        def at(h: Array) -> Array:
            value, slope = jax.jvp(activation, (h,), (jnp.ones_like(h),))
            return function(h / scale, value / scale, slope)

        return expectation(at, scale)

    square, slope_square = mean(lambda z, f, df: f**2), mean(lambda z, f, df: df**2)
    both = square * slope_square
    spread = mean(lambda z, f, df: f**4) / square**2 - 1
    with_length = (mean(lambda z, f, df: (z * f) ** 2) / square - 1) ** 2 / 2
    return Moments(
        log_square=log_q + jnp.log(square),
        log_slope=jnp.log(slope_square),
        spread=spread,
        angular=spread - with_length,
        slope_spread=3 * mean(lambda z, f, df: df**4) / slope_square**2 - 1,
        weighed=mean(lambda z, f, df: (z * df) ** 2) / slope_square,
        passed=mean(lambda z, f, df: z * f * df) ** 2 / both,
        common=mean(lambda z, f, df: (f * df) ** 2) / both,
    )


def finite_width(
    activation: Function, depth: int, width: int, weight_variance: Array, bias_variance: Array | float, rotation: Array
) -> tuple[Array, Array]:
    """Means of ln q_l and of ln |delta_l|^2/|delta_L|^2 of one input in nets of ``width`` units, each (depth,).

    To first order in 1/width: the infinite net's value, the mean's shift under each layer's own fluctuation, and under
    the fluctuation so far where the maps of ln q are curved. Inputs have mean square 1. For ReLU ln q falls behind by
    5/(2 width) a layer, for linear units by 1/width. Where one layer's relative variance is not small (gradients of
    saturated nets) first order is not enough.

    Args:
      activation: element by element; may hold traced numbers.
      weight_variance: times 1/width, ().
      rotation: whether weights are orthogonal, (): without biases net inputs then have the length of the signal below.
    """

    def log_length(x: Array) -> Array:
        return jnp.logaddexp(jnp.log(weight_variance) + x, jnp.log(jnp.asarray(bias_variance, x.dtype)))

    def layer(carry: Any, _: None) -> tuple[Any, Any]:
        x, mean, variance = carry  # ln of the infinite net's mean square below; mean and variance around it
        low, here, high = (moments(activation, log_length(x + step)) for step in (-_STEP, 0.0, _STEP))
        first = jax.tree.map(lambda a, b: (b - a) / (2 * _STEP), low, high)
        second = jax.tree.map(lambda a, b, c: (a - 2 * b + c) / _STEP**2, low, here, high)
        elasticity = jnp.exp(jnp.log(weight_variance) + x - log_length(x))
        length = log_length(x) + elasticity * mean + elasticity * (1 - elasticity) * variance / 2
        length -= (1 - rotation) / width  # net inputs' own length, given the layer below
        factor = jnp.log(weight_variance) + here.log_slope
        factor += first.log_slope * mean + second.log_slope * variance / 2
        factor -= (here.slope_spread / 2 - rotation) / width  # a rotation keeps the deltas' length
        noise = jnp.where(rotation == 1, here.angular, here.spread) / width
        # Gaussian net inputs are a mixture of spheres: with one radius alone the mixture's curvature is missing.
        g, gg = first.log_square, second.log_square
        missing = jax.tree.map(lambda a, b: rotation * (b + a**2 - a) / width, first, second)
        mean = g * mean + gg * variance / 2 - noise / 2 - missing.log_square
        return (here.log_square, mean, g**2 * variance + noise), (length, factor - missing.log_slope, here)

    def aligned(share: Any, here: Any) -> tuple[Any, Any]:
        """(h . delta)^2 width/(|h|^2 |delta|^2), 1 where the two have nothing to do with each other, a layer below."""
        return here.weighed + (share - 1) * here.passed, (share - 1) * (here.common - rotation) / width

    zero, rotation = jnp.zeros(()), jnp.asarray(rotation, float)
    _, (length, factor, at) = jax.lax.scan(layer, (zero, zero, zero), length=depth)
    # On the way back the weights are not new: they have sent the signal below to the net inputs h above, and send the
    # deltas' part along h back along that signal.
    _, extra = jax.lax.scan(aligned, jnp.ones(()), jax.tree.map(lambda value: value[:-1], at), reverse=True)
    return length, _from_last(factor[:-1] + extra)


def _from_last(log_factors: Array) -> Array:
    """Sums of the factors from layer l up, for l = 1 ... L: (L,) from (L - 1,)."""
    return jnp.append(jnp.cumsum(log_factors[::-1])[::-1], 0.0)


# Everything beside the measurement


def signal_theory(
    names: Sequence[str],
    schemes: Sequence[tuple[float, bool]],
    *,
    depth: int,
    width: int,
    inputs: int,
    bias_variance: float,
    correlation: float,
    saturated: float,
) -> dict[str, np.ndarray]:
    """Theory of the signals panel, each result (activations, schemes, layers).

    Args:
      names: of the activations.
      schemes: variance of a weight times width, and whether weights are orthogonal.
      correlation: of the two inputs of a pair; inputs of different pairs have correlation 0.
      saturated: slope below which a unit counts as saturated.

    Returns:
      ``log_length``, ``log_gradient`` and ``correlation`` of infinitely wide nets, ``finite_log_length`` and
      ``finite_log_gradient`` of `finite_width`, ``saturated``, and ``dead``, the share of units with no positive net
      input where those of infinitely wide nets have the inputs' correlations, for ReLU; for others 1 where the slope
      is 0 everywhere (their ``log_gradient`` is -inf below the last layer, and NaN to first order), else 0.
    """

    def cell(here: tuple[Array, Array, Array]) -> dict[str, Array]:
        place, variance, rotation = here

        def activation(h: Array) -> Array:
            return jax.lax.switch(place, [activations.by_name(name) for name in names], h)

        found = _infinite_width(activation, depth, variance, bias_variance, correlation, saturated)
        length, gradient = finite_width(activation, depth, width, variance, bias_variance, rotation)
        return found | {"finite_log_length": length, "finite_log_gradient": gradient}

    everything = jax.jit(partial(jax.lax.map, cell))
    with jax.enable_x64(True):  # lengths of 1e90, and correlations near 1
        places = np.repeat(np.arange(len(names)), len(schemes))
        variances = np.tile([float(variance) for variance, _ in schemes], len(names))
        rotations = np.tile([float(rotation) for _, rotation in schemes], len(names))
        found = {name: np.asarray(value) for name, value in everything((places, variances, rotations)).items()}
    found = {name: value.reshape(len(names), len(schemes), depth) for name, value in found.items()}
    between, dead = found.pop("between"), np.zeros(found["correlation"].shape)
    dead[found["log_gradient"][..., 0] == -np.inf] = 1.0
    if "relu" in names:
        at = list(names).index("relu")
        dead[at] = none_positive(found["correlation"][at], between[at], inputs // 2)
    return found | {"dead": dead}


def _infinite_width(
    activation: Function, depth: int, variance: Array, bias_variance: float, correlation: float, saturated: float
) -> dict[str, Array]:
    """What `signal_theory` returns of infinitely wide nets, each (depth,), and ``between``, inputs of several pairs."""
    q = variance + bias_variance
    log_q = mean_field.log_lengths(activation, depth, variance, bias_variance, jnp.log(q))
    factors = mean_field.log_gradient_factors(activation, log_q, variance)
    first = [(variance * c + bias_variance) / q for c in (correlation, 0.0)]
    within, between = (mean_field.correlations(activation, depth, variance, bias_variance, q=q, c=c) for c in first)
    return {
        "log_length": log_q,
        "log_gradient": _from_last(factors[:-1]),
        "correlation": within,
        "between": between,
        "saturated": jax.vmap(lambda x: _saturated(activation, x, saturated))(log_q),
    }


def _saturated(activation: Function, log_q: Array, slope: float) -> Array:
    """P(|f'(sqrt(q) z)| < slope)."""
    z = (jnp.arange(4000) + 0.5) * 0.004 - 8  # evenly spaced: what is integrated jumps, who knows where
    h = jnp.exp(jnp.clip(log_q / 2, -FAR, FAR)) * z
    here = jnp.abs(jax.jvp(activation, (h,), (jnp.ones_like(h),))[1]) < slope
    density = jnp.exp(-(z**2) / 2)
    return jnp.sum(here * density) / jnp.sum(density)


def none_positive(within: np.ndarray, between: np.ndarray, pairs: int) -> np.ndarray:
    """P(no net input is positive) of ``pairs`` pairs of normal ones, by their correlations within and between pairs.

    A part that all share, one that each pair shares, and one of each alone; ``between`` must lie in [0, within].
    """
    z = (np.arange(300) + 0.5) / 300 * 12 - 6
    p = np.exp(-(z**2) / 2) / np.exp(-(z**2) / 2).sum()
    found = np.empty(np.shape(within))
    for index in np.ndindex(found.shape):
        inside, outside = np.clip([within[index], between[index]], 0, 1 - 1e-12)
        shared = np.sqrt(outside) * z[:, None] + np.sqrt(max(inside - outside, 0.0)) * z[None, :]
        one_pair = np.exp(2 * log_ndtr(-shared / np.sqrt(1 - inside))) @ p
        found[index] = p @ one_pair**pairs
    return found
