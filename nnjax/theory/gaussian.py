"""Expectations of functions of Gaussian net inputs, by quadrature that a kink or a step at 0 does not spoil.

Gauss-Hermite rules converge slowly wherever a function is not smooth: ReLU's error falls as 1/nodes, and a tanh of
wide net inputs is nearly a step. Here the line is cut at 0 and the nodes crowd toward it. An activation that is smooth
on either side of 0 is integrated to rounding error at standard deviations from 0 to 10^9 in one dimension; in two, to
about 1e-11 relative up to 3, 1e-9 up to 10, 1e-7 up to 100, and homogeneous ones always. A kink elsewhere, or more
than one or two periods of an oscillation within a standard deviation, costs digits.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nnjax.types import Array

Function = Callable[[Array], Array]

LOG_SCALES = (math.log(1e-12), math.log(1e9))
"""Between these the nodes are trusted, and squares stay within float32."""

STEPS = 2304
"""Of a search through lengths q: at most 0.024 in ln q from q = 1 to either end of the trusted ones."""


def _half_line(step: float, low: float, power: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes z > 0 and weights, which sum to 1, for the density ~ z^power exp(-z^2/2).

    The trapezoid rule in y, z = ln(1 + e^y): nodes in geometric progression near 0, evenly spaced far from it.
    """
    y = np.arange(low, 9.2, step)
    z = np.logaddexp(0, y)
    weights = z**power * np.exp(y - z - z**2 / 2)  # dz/dy = e^y/(1 + e^y) = e^(y - z)
    weights[0] /= -np.expm1(-(power + 1) * step)  # and all the nodes left of the first, a geometric series
    return z, weights / weights.sum()


def _arc(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes in (0, 1), symmetric and crowding toward both ends, and weights, which sum to 1: Gauss-Legendre in t."""
    t, weights = np.polynomial.legendre.leggauss(n)
    t = (t + 1) / 2
    x, weights = t**3 * (10 - 15 * t + 6 * t**2), weights * (t * (1 - t)) ** 2
    return x, weights / weights.sum()


_Z, _Z_WEIGHTS = (np.concatenate([part, part]) for part in _half_line(0.125, -33.0, 0))
_Z = _Z * np.repeat([-1, 1], len(_Z) // 2)
_Z_WEIGHTS = _Z_WEIGHTS / 2
_RADIUS, _RADIUS_WEIGHTS = _half_line(0.3, -9.0, 1)
_ARC, _ARC_WEIGHTS = _arc(48)


def expectation(function: Function, scale: Array) -> Array:
    """E f(scale z), z standard normal.

    Args:
      function: element by element.
      scale: a floating scalar >= 0; the standard deviation of the net input.
    """
    values = function(scale * jnp.asarray(_Z, scale.dtype))
    return jnp.sum(values * jnp.asarray(_Z_WEIGHTS, scale.dtype))


def pair_expectation(function: Function, scale: Array, c: Array) -> Array:
    """E f(u1) f(u2), f element by element; otherwise as `expectation_of_pairs`."""
    return expectation_of_pairs(lambda u1, u2: function(u1) * function(u2), scale, c)


def expectation_of_pairs(function: Callable[[Array, Array], Array], scale: Array, c: Array) -> Array:
    """E f(u1, u2) of two normal net inputs of standard deviation ``scale`` and correlation c.

    In polar coordinates u1 = scale r cos(t), u2 = scale r cos(t - arccos c): the two kinks are four fixed angles, and
    the arcs between them, where u1 and u2 agree or differ in sign, are integrated one by one.

    Args:
      function: element by element.
      scale: a floating scalar >= 0.
      c: a scalar of the same dtype in [-1, 1].
    """
    radius, radius_weights = (jnp.asarray(v, scale.dtype) for v in (_RADIUS, _RADIUS_WEIGHTS))
    arc, arc_weights = (jnp.asarray(v, scale.dtype) for v in (_ARC, _ARC_WEIGHTS))

    def part(angle: Array, sign: int) -> Array:
        """An arc of this angle and the one opposite; distances are from its ends, precise however short it is."""
        u1, u2 = (scale * jnp.sin(angle * x)[:, None] * radius[None, :] for x in (arc, arc[::-1]))
        values = function(u1, sign * u2) + function(-u1, -sign * u2)
        # Two short sums: one over all nodes would cost float32 a digit.
        along = jnp.sum(values * radius_weights[None, :], axis=1)
        return angle / (2 * jnp.pi) * jnp.sum(along * arc_weights)

    # arccos c and arccos -c, without the digits that 1 - c^2 loses near both ends.
    differ, agree = (2 * jnp.arcsin(jnp.sqrt((1 - sign * c) / 2)) for sign in (1, -1))
    return part(differ, -1) + part(agree, 1)


def rounding(dtype: Any) -> Any:
    """Relative rounding error that an expectation may carry."""
    return 16 * jnp.finfo(dtype).eps


def derivative(function: Function) -> Function:
    """f' of a function that acts element by element."""
    return lambda x: jax.jvp(function, (x,), (jnp.ones_like(x),))[1]


def held(log_scale: Array) -> Array:
    """The logarithm of a scale, or of the nearest one that quadrature is trusted with, 10^-12 to 10^9."""
    return jnp.clip(log_scale, *jnp.asarray(LOG_SCALES, log_scale.dtype))


def second_moment(function: Function, dtype: Any) -> Callable[[Array], tuple[Array, Array]]:
    """ln s -> E f(s' z)^2 with ln s' = held(ln s), and the logarithm of the factor that is missing from E f(s z)^2.

    Beyond the trusted scales f is a power of its argument, in the limit, and E f^2 a power of s, taken to be whole.
    It is found at the ends of the range; f that is 0 there stays 0.
    """

    def at(log_scale: Array) -> Array:
        return expectation(lambda x: function(x) ** 2, jnp.exp(log_scale))

    low, high = LOG_SCALES
    ends = jnp.log(jax.vmap(at)(jnp.asarray([low, low + 1, high - 1, high], dtype)))
    below, above = (jnp.nan_to_num(jnp.round(ends[i + 1] - ends[i])) for i in (0, 2))

    def moment(log_scale: Array) -> tuple[Array, Array]:
        beyond = log_scale - held(log_scale)
        power = jnp.where(beyond < 0, below, above)
        return at(held(log_scale)), jnp.where((beyond == 0) | (power == 0), 0, power * beyond)

    return moment


def path(start: float, end: float, dtype: Any) -> Array:
    """Logarithms of lengths on the way from start to end, `STEPS` even steps."""
    # Known numbers; behind the barrier, or the compiler would work out what follows from them, slowly.
    return jax.lax.optimization_barrier(jnp.asarray(np.linspace(start, end, STEPS + 1), dtype))


def first_fall(grid: Array, heights: Array, threshold: Array) -> tuple[Array, Array, Array]:
    """The first step of ``grid`` at whose end ``heights`` are no longer above the threshold; or the last.

    The threshold is a small number of either sign that says what rounding errors count as. A function that falls below
    it and rises again within one step is not seen.

    Returns:
      Start and end of the step, and whether the heights stayed above the threshold throughout.
    """
    fallen = heights <= threshold
    first = jnp.where(jnp.any(fallen), jnp.argmax(fallen), len(grid) - 1)
    return grid[jnp.maximum(first - 1, 0)], grid[first], ~jnp.any(fallen)


def bisect(height: Function, start: Array, end: Array) -> Array:
    """Where a function of a scalar falls through 0 between start and end, to the last digit."""

    def halve(_: int, bracket: tuple[Array, Array]) -> tuple[Array, Array]:
        middle = (bracket[0] + bracket[1]) / 2
        above = height(middle) > 0
        return jnp.where(above, middle, bracket[0]), jnp.where(above, bracket[1], middle)

    return jax.lax.fori_loop(0, jnp.finfo(start.dtype).nmant + 2, halve, (start, end))[1]
