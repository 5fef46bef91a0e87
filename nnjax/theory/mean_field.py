"""Signals in infinitely wide random nets: lengths, correlations and gradients from layer to layer.

A layer of n units has weights of variance ``weight_variance``/n and biases of variance ``bias_variance``. As n grows
its net inputs become Gaussian, of mean square q (the "length"), and two inputs' net inputs have correlation c:

    q' = weight_variance E phi(u)^2 + bias_variance                            u, u1, u2 ~ N(0, q),
    c' = (weight_variance E phi(u1) phi(u2) + bias_variance) / q'              corr(u1, u2) = c
    E |delta_l|^2 = chi(q_l) E |delta_{l+1}|^2,  chi = weight_variance E phi'(u)^2

Layers are counted by their net inputs: q_1 is that of the first layer, weight_variance |x|^2/d + bias_variance for
inputs of d numbers, and |delta_1|^2 / |delta_L|^2 is the product of chi(q_1) to chi(q_{L-1}).

``activation`` is a name of `nnjax.activations.TABLE` (or an alias) or a function, element by element, that JAX can
differentiate forwards; every function is compiled once, so pass the same one again. Other arguments are arrays that
broadcast; all but depth may be traced. A phi smooth but for a kink or a jump at 0 is integrated nearly exactly (see
`nnjax.theory.gaussian`). Outside 10^-12 < sqrt(q) < 10^9 phi and phi' count as powers of their argument, which in the
limit they are.

Every function raises ValueError for an unknown activation and for known values out of range: a variance or q below 0,
c outside [-1, 1], a depth or width below 1.

Reference: Poole et al. (2016), "Exponential expressivity in deep neural networks through transient chaos"; Schoenholz
et al. (2017), "Deep information propagation".
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from nnjax.theory import gaussian
from nnjax.theory.arguments import Activation, check_all, checked, floats, log_first
from nnjax.theory.gaussian import Function, held
from nnjax.types import Array

_Moment = Callable[[Array], tuple[Array, Array]]
"""What `gaussian.second_moment` makes of an activation."""


def q_map(activation: Activation, q: ArrayLike, weight_variance: ArrayLike, bias_variance: ArrayLike = 0.0) -> Array:
    """The next layer's length, weight_variance E phi(sqrt(q) z)^2 + bias_variance."""
    f = checked(activation, q=q, weight_variance=weight_variance, bias_variance=bias_variance)
    return _over(_q_map, f, None, *floats(q, weight_variance, bias_variance))


def chi(activation: Activation, q: ArrayLike, weight_variance: ArrayLike) -> Array:
    """weight_variance E phi'(sqrt(q) z)^2, by which a layer multiplies the gradient's mean square on its way back.

    At q = 0 it is the limit from above: phi' at a kink has no say.
    """
    f = checked(activation, q=q, weight_variance=weight_variance)
    return jnp.exp(_over(_log_chi, f, None, *log_first(q, weight_variance)))


def log_gradient_factors(activation: Activation, log_q: ArrayLike, weight_variance: ArrayLike) -> Array:
    """ln `chi` at lengths given by their logarithm, of any size; -inf for a phi of no slope."""
    f = checked(activation, log_q=log_q, weight_variance=weight_variance)
    return _over(_log_chi, f, None, *floats(log_q, weight_variance))


def log_lengths(
    activation: Activation,
    depth: int,
    weight_variance: ArrayLike,
    bias_variance: ArrayLike = 0.0,
    log_q: ArrayLike = 0.0,
) -> Array:
    """ln q_1 to ln q_depth, with q_1 = exp(log_q): (..., depth). Neither over- nor underflows, whatever the depth."""
    f = checked(activation, depth=depth, weight_variance=weight_variance, bias_variance=bias_variance, log_q=log_q)
    return _over(_log_lengths, f, depth, *floats(weight_variance, bias_variance, log_q))


def correlation_map(
    activation: Activation, c: ArrayLike, q: ArrayLike, weight_variance: ArrayLike, bias_variance: ArrayLike = 0.0
) -> Array:
    """The next layer's correlation of two inputs that have one length q and correlation c.

    The covariance is divided by the next layer's length, which at a fixed point of `q_map` is q itself. At q = 0 it is
    the limit from above; NaN where the next length is 0 at any q, as without weights and biases. Pairs are integrated
    to 1e-7 up to q = 1e4; beyond, phi that is not homogeneous costs digits.
    """
    f = checked(activation, c=c, q=q, weight_variance=weight_variance, bias_variance=bias_variance)
    return _over(_correlation_map, f, None, *log_first(q, c, weight_variance, bias_variance))


def correlation_slope(activation: Activation, c: ArrayLike, q: ArrayLike, weight_variance: ArrayLike) -> Array:
    """weight_variance E phi'(u1) phi'(u2): `chi` at c = 1.

    It is the derivative of the next covariance by the present one; the derivative of `correlation_map` is
    q / q_map(q) times that, so the same at a fixed length. Pairs are integrated to 1e-7 up to q = 1e4; beyond, a
    phi' that is not constant on either side of 0 costs digits: tanh's is 8 % off at q = 1e10 and c = 1.
    """
    f = checked(activation, c=c, q=q, weight_variance=weight_variance)
    return _over(_correlation_slope, f, None, *log_first(q, c, weight_variance))


def correlations(
    activation: Activation,
    depth: int,
    weight_variance: ArrayLike,
    bias_variance: ArrayLike = 0.0,
    *,
    q: ArrayLike,
    c: ArrayLike,
) -> Array:
    """c_1 = c to c_depth of two inputs of one first length q_1 = q, which moves on by `q_map`: (..., depth)."""
    f = checked(activation, depth=depth, c=c, q=q, weight_variance=weight_variance, bias_variance=bias_variance)
    return _over(_correlations, f, depth, *log_first(q, c, weight_variance, bias_variance))


def fixed_length(activation: Activation, weight_variance: ArrayLike, bias_variance: ArrayLike = 0.0) -> Array:
    """The length q* = q_map(q*) next to 1 on the side to which `q_map` moves q = 1, and stable from there.

    0 where lengths collapse and inf where they grow for ever; 1 where every length is a fixed point, as ReLU's are at
    weight variance 2 without biases. The search goes in steps of at most 0.024 in ln q as far as sqrt(q) is integrated,
    then in one: a stable fixed point whose unstable neighbor lies within the same step is not seen.
    """
    f = checked(activation, weight_variance=weight_variance, bias_variance=bias_variance)
    return _over(_fixed_length, f, None, *floats(weight_variance, bias_variance))


def fixed_correlation(activation: Activation, weight_variance: ArrayLike, bias_variance: ArrayLike = 0.0) -> Array:
    """The correlation c* in [0, 1] to which, at `fixed_length`, any c >= 0 but 1 tends.

    `correlation_map` is convex on [0, 1] and fixes 1, so there is one: 1 where its slope there is at most 1 (the
    ordered phase), else the only other fixed point (the chaotic phase). 1 too where all are fixed, as without biases
    in a linear net, or in the limit of lengths that collapse.
    """
    return depth_scales(activation, weight_variance, bias_variance).c


class DepthScales(NamedTuple):
    """Where signals end up and how many layers it takes; arrays of one broadcast shape."""

    q: Array
    """`fixed_length`."""
    c: Array
    """`fixed_correlation`."""
    chi: Array
    """chi_1, at the fixed length: gradients vanish below 1 and explode above."""
    correlation: Array
    """xi_c: layers in which a correlation comes nearer to c* by a factor e."""
    gradient: Array
    """xi_grad: layers in which the mean square of gradients falls by a factor e; negative where it rises."""


def depth_scales(activation: Activation, weight_variance: ArrayLike, bias_variance: ArrayLike = 0.0) -> DepthScales:
    """Depth scales xi_c = -1/ln(`correlation_slope` at c*) and xi_grad = -1/ln chi_1; inf at criticality.

    Where lengths collapse to 0 (or grow for ever) no correlation length is fixed; xi_c then is that of the covariance,
    the layers in which it falls by a factor e (or rises, negative). xi_c and c* of the chaotic phase need a q* up to
    1e4, as `correlation_slope` does. Just above criticality, where rounding would hide c*, they are first-order in
    ln chi_1: ln slope = -ln chi_1, or half that where phi has a kink.
    """
    f = checked(activation, weight_variance=weight_variance, bias_variance=bias_variance)
    return DepthScales(*_over(_depth_scales, f, None, *floats(weight_variance, bias_variance)))


def critical_weight_variance(activation: Activation, bias_variance: ArrayLike = 0.0) -> Array:
    """The weight variance at which `chi` = 1 at a fixed length, between order and chaos.

    On the critical line weight_variance = 1/E phi'^2 and bias_variance = q - E phi^2/E phi'^2; q is searched upward
    from 0 and the first that has at least this bias variance is taken. tanh without biases: 1, in the limit q -> 0.
    Where chi does not depend on q (identity, ReLU, leaky ReLU) it is the weight variance of chi = 1, with or without
    biases; with them no length is fixed there, and lengths grow linearly with depth. The fixed length
    need not be stable (swish's is not: larger ones grow for ever). NaN where there is none, as for a step.
    """
    f = checked(activation, bias_variance=bias_variance)
    return _over(_critical_weight_variance, f, None, *floats(bias_variance))


def log_length_shift(activation: Activation, q: ArrayLike, width: ArrayLike) -> Array:
    """Mean shift of ln q that one layer of finite width adds, to first order: -Var(phi^2) / (2 width (E phi^2)^2).

    The lengths of a random net scatter about q_map's, and a logarithm's mean is lower by half the variance: -5/(2
    width) for ReLU, -1/width without an activation. It adds up over layers where phi is homogeneous and biases are 0;
    a saturating phi corrects it on the way.
    """
    f = checked(activation, q=q, width=width)
    return _over(_log_length_shift, f, None, *log_first(q, width))


# Closed forms


def relu_correlation_map(c: ArrayLike) -> Array:
    """`correlation_map` of ReLU without biases, of any length: (sin t + (pi - t) cos t) / pi, cos t = c.

    Reference: Cho & Saul (2009), "Kernel methods for deep learning", the arc-cosine kernel of degree 1.
    """
    check_all(c=c)
    (c,) = floats(c)
    t = 2 * jnp.arcsin(jnp.sqrt((1 - c) / 2))
    return (jnp.sin(t) + (jnp.pi - t) * c) / jnp.pi


def erf_q_map(q: ArrayLike, weight_variance: ArrayLike, bias_variance: ArrayLike = 0.0) -> Array:
    """`q_map` of the error function, E erf(u)^2 = (2/pi) arcsin(2q/(1 + 2q)).

    Reference: Williams (1997), "Computing with infinite networks".
    """
    check_all(q=q, weight_variance=weight_variance, bias_variance=bias_variance)
    q, weight_variance, bias_variance = floats(q, weight_variance, bias_variance)
    return _erf_covariance(q, q, weight_variance, bias_variance)


def erf_chi(q: ArrayLike, weight_variance: ArrayLike) -> Array:
    """`chi` of the error function, (4/pi) weight_variance / sqrt(1 + 4q)."""
    check_all(q=q, weight_variance=weight_variance)
    q, weight_variance = floats(q, weight_variance)
    return 4 / jnp.pi * weight_variance / jnp.sqrt(1 + 4 * q)


def erf_correlation_map(
    c: ArrayLike, q: ArrayLike, weight_variance: ArrayLike, bias_variance: ArrayLike = 0.0
) -> Array:
    """`correlation_map` of the error function, E erf(u1) erf(u2) = (2/pi) arcsin(2qc/(1 + 2q)); Williams (1997)."""
    check_all(c=c, q=q, weight_variance=weight_variance, bias_variance=bias_variance)
    c, q, weight_variance, bias_variance = floats(c, q, weight_variance, bias_variance)
    length = _erf_covariance(q, q, weight_variance, bias_variance)
    return _erf_covariance(q * c, q, weight_variance, bias_variance) / length


def _erf_covariance(covariance: Array, q: Array, weight_variance: Array, bias_variance: Array) -> Array:
    # arcsin(2 covariance / (1 + 2q)), without the digits that it loses near 1
    rest = jnp.sqrt(1 + 2 * (q - covariance)) * jnp.sqrt(1 + 2 * (q + covariance))
    return weight_variance * 2 / jnp.pi * jnp.arctan2(2 * covariance, rest) + bias_variance


# Over arrays


@partial(jax.jit, static_argnums=(0, 1, 2))
def _over(core: Callable[..., Any], f: Function, depth: int | None, *values: jax.Array) -> Any:
    """A function of scalars over arrays that broadcast, compiled once an activation, depth and shape."""
    if depth is None:
        return jnp.vectorize(partial(core, f))(*values)
    return jnp.vectorize(partial(core, f, depth), signature=",".join(["()"] * len(values)) + "->(d)")(*values)


# The same for scalars, lengths by their logarithm


def _q_map(f: Function, q: Array, weight_variance: Array, bias_variance: Array) -> Array:
    square, growth = gaussian.second_moment(f, q.dtype)(jnp.log(q) / 2)
    return weight_variance * square * jnp.exp(growth) + bias_variance


def _log_q_map(moment: _Moment, log_q: Array, weight_variance: Array, bias_variance: Array) -> Array:
    square, growth = moment(log_q / 2)
    return jnp.logaddexp(jnp.log(weight_variance) + jnp.log(square) + growth, jnp.log(bias_variance))


def _log_chi(f: Function, log_q: Array, weight_variance: Array) -> Array:
    square, growth = gaussian.second_moment(gaussian.derivative(f), log_q.dtype)(log_q / 2)
    return jnp.log(weight_variance) + jnp.log(square) + growth


def _log_lengths(f: Function, depth: int, weight_variance: Array, bias_variance: Array, log_q: Array) -> Array:
    moment = gaussian.second_moment(f, log_q.dtype)
    step = partial(_log_q_map, moment, weight_variance=weight_variance, bias_variance=bias_variance)
    return jax.lax.scan(lambda log_q, _: (step(log_q), log_q), log_q, None, length=depth)[1]


def _next_covariance(
    moment: _Moment, log_q: Array, weight_variance: Array, bias_variance: Array
) -> tuple[Array, Array, Array]:
    """Scale at which to take expectations, and the next length and the bias variance, both divided by one factor.

    Rather than multiply expectations at the ends of the range by what they lack, which may underflow, the biases are
    divided by it, as far as float32 goes.
    """
    square, growth = moment(log_q / 2)
    bias = bias_variance * jnp.exp(jnp.clip(-growth, -80, 80))
    return jnp.exp(held(log_q / 2)), weight_variance * square + bias, bias


def _next_correlation(
    f: Function, moment: _Moment, log_q: Array, c: Array, weight_variance: Array, bias_variance: Array
) -> Array:
    scale, length, bias = _next_covariance(moment, log_q, weight_variance, bias_variance)
    covariance = weight_variance * gaussian.pair_expectation(f, scale, jnp.clip(c, -1, 1)) + bias
    return jnp.clip(covariance / length, -1, 1)


def _correlation_map(f: Function, log_q: Array, c: Array, weight_variance: Array, bias_variance: Array) -> Array:
    return _next_correlation(f, gaussian.second_moment(f, c.dtype), log_q, c, weight_variance, bias_variance)


def _correlation_slope(f: Function, log_q: Array, c: Array, weight_variance: Array) -> Array:
    slope = gaussian.derivative(f)
    _, growth = gaussian.second_moment(slope, c.dtype)(log_q / 2)
    scale = jnp.exp(held(log_q / 2))
    return weight_variance * gaussian.pair_expectation(slope, scale, jnp.clip(c, -1, 1)) * jnp.exp(growth)


def _correlations(
    f: Function, depth: int, log_q: Array, c: Array, weight_variance: Array, bias_variance: Array
) -> Array:
    moment = gaussian.second_moment(f, c.dtype)

    def step(carry: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], Array]:
        log_q, c = carry
        after = _next_correlation(f, moment, log_q, c, weight_variance, bias_variance)
        return (_log_q_map(moment, log_q, weight_variance, bias_variance), after), c

    return jax.lax.scan(step, (log_q, c), None, length=depth)[1]


def _log_fixed_length(moment: _Moment, weight_variance: Array, bias_variance: Array) -> Array:
    dtype = weight_variance.dtype
    tolerance = gaussian.rounding(dtype)

    def gain(log_q: Array, moments: tuple[Array, Array]) -> Array:
        """ln q_map(q)/q, without subtracting logarithms of large numbers."""
        square, growth = moments
        log_scale = held(log_q / 2)
        ratio = square / jnp.exp(2 * log_scale) * jnp.exp(growth - 2 * (log_q / 2 - log_scale))
        return jnp.log(weight_variance * ratio + bias_variance * jnp.exp(-log_q))

    one = jnp.zeros((), dtype)
    first = gain(one, moment(one))
    direction = jnp.where(jnp.abs(first) <= tolerance, 0, jnp.sign(first))
    sides = []
    for sign, trusted in zip((-1, 1), gaussian.LOG_SCALES, strict=True):
        limit = sign * 0.9 * jnp.log(jnp.finfo(dtype).max)
        grid = jnp.append(gaussian.path(0.0, 2 * trusted, dtype), limit)
        # The moments depend on no variance: all lanes of a map share them.
        sides.append((grid, gain(grid, jax.vmap(moment)(grid / 2))))
    (down, down_gains), (up, up_gains) = sides
    grid, gains = jnp.where(direction < 0, down, up), jnp.where(direction < 0, down_gains, up_gains)
    # A gain of 0 to rounding goes on: q -> q - 2q^2 collapses, however small its steps become.
    start, end, for_ever = gaussian.first_fall(grid, direction * gains, -tolerance)
    found = gaussian.bisect(lambda log_q: direction * gain(log_q, moment(log_q / 2)), start, end)
    return jnp.where(for_ever, jnp.where(direction == 0, 0, direction * jnp.inf), found)


def _fixed_length(f: Function, weight_variance: Array, bias_variance: Array) -> Array:
    return jnp.exp(_log_fixed_length(gaussian.second_moment(f, weight_variance.dtype), weight_variance, bias_variance))


def _depth_scales(f: Function, weight_variance: Array, bias_variance: Array) -> tuple[Array, ...]:
    dtype = weight_variance.dtype
    moment, tolerance = gaussian.second_moment(f, dtype), gaussian.rounding(dtype)
    log_q = _log_fixed_length(moment, weight_variance, bias_variance)
    slope, growth = gaussian.second_moment(gaussian.derivative(f), dtype)(log_q / 2)
    log_chi = jnp.log(weight_variance) + jnp.log(slope) + growth
    # The slope of the correlation map at 1 is not chi where the length is not fixed but 0 or infinite.
    scale, length, bias = _next_covariance(moment, log_q, weight_variance, bias_variance)
    chaotic = weight_variance * slope * scale**2 / length > 1 + tolerance

    def excess(c: Array) -> Array:
        """1 - c, less that of the next layer: by differences, whose small squares keep their digits near c = 1."""
        apart = gaussian.expectation_of_pairs(lambda u1, u2: (f(u1) - f(u2)) ** 2, scale, c)
        both = gaussian.expectation_of_pairs(lambda u1, u2: f(u1) ** 2 + f(u2) ** 2, scale, c)
        return (1 - c) - weight_variance * apart / (weight_variance * both + 2 * bias)

    def slope_at(gap: Array) -> Array:
        return gaussian.pair_expectation(gaussian.derivative(f), scale, 1 - gap)

    gap = 1 - gaussian.bisect(excess, jnp.zeros_like(log_q), jnp.ones_like(log_q))
    small = 0.01 / (1 + jnp.exp(log_q))  # slopes are steeper at large q
    slopes = jax.vmap(slope_at)(jnp.stack([jnp.zeros_like(gap), small, 4 * small, gap]))
    near_gap, order = _gap_near_criticality(small, 1 - slopes[1:3] / slopes[0], log_chi)
    # Either way is wrong by about this much: rounding or quadrature, by log_chi; a series cut off, by its gap.
    near = near_gap * log_chi < jnp.maximum(tolerance, 1e-9)
    log_slope = jnp.where(near, -order * log_chi, log_chi + jnp.log(slopes[3] / slopes[0]))
    c = jnp.where(chaotic, 1 - jnp.where(near, near_gap, gap), 1)
    log_slope = jnp.where(chaotic, log_slope, log_chi)
    xi_c, xi_grad = (jnp.where(jnp.abs(v) <= tolerance, jnp.inf, -1 / v) for v in (log_slope, log_chi))
    return jnp.exp(log_q), c, jnp.exp(log_chi), xi_c, xi_grad


def _gap_near_criticality(small: Array, falls: Array, log_chi: Array) -> tuple[Array, Array]:
    """1 - c* to first order in log_chi, and r of the map 1 - c -> chi (1 - c) - a (1 - c)^(1 + r) near c = 1.

    r is 1 for a smooth phi and 1/2 for one with a kink; it and a are read off ``falls``, the shares by which the slope
    at 1 - c = small and 4 small is less than at 0. At c* the slope then is 1 - r (chi - 1).
    """
    order = jnp.where(falls[1] / falls[0] < 2**1.5, 0.5, 1.0)
    rates = falls / (small * jnp.array([1.0, 4.0], small.dtype)) ** order
    rate = rates[0] + (rates[0] - rates[1]) / (4**order - 1)  # the next power's part taken out
    return ((1 + order) * log_chi / rate) ** (1 / order), order


def _critical_weight_variance(f: Function, bias_variance: Array) -> Array:
    dtype = bias_variance.dtype
    square, slope = gaussian.second_moment(f, dtype), gaussian.second_moment(gaussian.derivative(f), dtype)

    def lacking(log_q: Array) -> Array:
        """The bias variance, less that with which q is critical, relative to q."""
        q = jnp.exp(log_q)
        return bias_variance / q - 1 + square(log_q / 2)[0] / (slope(log_q / 2)[0] * q)

    low, high = gaussian.LOG_SCALES
    grid = gaussian.path(2 * low, 2 * high, dtype)
    start, end, _ = gaussian.first_fall(grid, jax.vmap(lacking)(grid), gaussian.rounding(dtype))
    log_q = gaussian.bisect(lacking, start, end)
    found = jnp.abs(lacking(log_q)) <= jnp.sqrt(jnp.finfo(dtype).eps)
    return jnp.where(found, 1 / slope(log_q / 2)[0], jnp.nan)


def _log_length_shift(f: Function, log_q: Array, width: Array) -> Array:
    scale = jnp.exp(held(log_q / 2))
    rms = jnp.sqrt(gaussian.expectation(lambda x: f(x) ** 2, scale))
    return -(gaussian.expectation(lambda x: (f(x) / rms) ** 4, scale) - 1) / (2 * width)
