"""Mean field against closed forms, adaptive quadrature, published numbers and wide random nets."""

import itertools
import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.special

from nnjax import activations
from nnjax.theory import gaussian
from nnjax.theory import mean_field as theory

UNOPTIMIZED = {"xla_backend_optimization_level": 0}  # compiles several times faster
WIDTH = 128
SCHEMES = {"standard_normal": WIDTH, "small_normal": WIDTH * 1e-4, "xavier": 1.0, "he": 2.0}
"""Weight variance, width times that of one weight."""


def slow(*case):
    """A case that says little more than its neighbors, for the long run."""
    return pytest.param(*case, marks=pytest.mark.slow)


@pytest.fixture(autouse=True)
def _float64():
    with jax.enable_x64(True):
        yield


def signals(activation, scheme):
    """ln q_1 to ln q_50 of inputs of mean square 1, so q_1 = weight variance, and ln |delta_1|^2 / |delta_50|^2."""
    variance = SCHEMES[scheme]
    lengths = theory.log_lengths(activation, 50, variance, log_q=np.log(variance))
    return lengths, jnp.sum(theory.log_gradient_factors(activation, lengths[:-1], variance))


# Oracles: SciPy's adaptive quadrature of NumPy's functions


def _relu(x):
    return np.maximum(x, 0)


FUNCTIONS = {
    "tanh": (np.tanh, lambda x: 1 / np.cosh(x) ** 2),
    "logistic": (scipy.special.expit, lambda x: scipy.special.expit(x) * scipy.special.expit(-x)),
    "relu": (_relu, lambda x: (x > 0) * 1.0),
    "leaky_relu": (lambda x: np.where(x > 0, x, 0.01 * x), lambda x: np.where(x > 0, 1, 0.01)),
    "elu": (lambda x: np.where(x > 0, x, np.expm1(x)), lambda x: np.where(x > 0, 1, np.exp(x))),
    "swish": (
        lambda x: x * scipy.special.expit(x),
        lambda x: scipy.special.expit(x) * (1 + x * scipy.special.expit(-x)),
    ),
    "step": (lambda x: (x > 0) * 1.0, lambda x: 0 * x),
}


def integral(function, scale):
    """E f(scale z): the line cut at 0 and where a step of this scale ends."""

    def density(z):
        return function(scale * z) * np.exp(-z * z / 2) / np.sqrt(2 * np.pi)

    ends = [-12, -10 / scale, 0, 10 / scale, 12] if scale > 1 else [-12, 0, 12]
    options = {"epsabs": 1e-14, "epsrel": 1e-12, "limit": 200}
    return sum(scipy.integrate.quad(density, a, b, **options)[0] for a, b in itertools.pairwise(ends))


def double_integral(function, scale, c):
    """E f(scale z1) f(scale (c z1 + sqrt(1 - c^2) z2)): Cartesian, cut at the kinks."""
    s = np.sqrt(1 - c * c)

    def inner(z1):
        def density(z2):
            return function(scale * (c * z1 + s * z2)) * np.exp(-z2 * z2 / 2)

        kink = float(np.clip(-c * z1 / s, -9, 9))
        parts = [scipy.integrate.quad(density, *ends, epsabs=1e-11)[0] for ends in ((-9, kink), (kink, 9))]
        return sum(parts) * function(scale * z1) * np.exp(-z1 * z1 / 2)

    return sum(scipy.integrate.quad(inner, *ends, epsabs=1e-10)[0] for ends in ((-9, 0), (0, 9))) / (2 * np.pi)


@pytest.mark.parametrize(
    "name", [name if name in ("tanh", "elu", "swish", "step") else slow(name) for name in FUNCTIONS]
)
def test_lengths_and_gradients_are_the_integrals(name):
    phi, slope = FUNCTIONS[name]
    q = np.array([1e-4, 0.3, 1.0, 4.0, 119.0])
    expected = [1.7 * integral(lambda x: phi(x) ** 2, np.sqrt(v)) + 0.2 for v in q]
    np.testing.assert_allclose(theory.q_map(name, q, 1.7, 0.2), expected, rtol=1e-10)
    factors = [1.7 * integral(lambda x: slope(x) ** 2, np.sqrt(v)) for v in q]
    np.testing.assert_allclose(theory.chi(name, q, 1.7), factors, rtol=1e-10, atol=1e-300)


@pytest.mark.parametrize(
    ("name", "q", "c"),
    [
        slow("tanh", 2.0, 0.6), ("tanh", 9.0, -0.95), slow("logistic", 1.0, 0.99), ("elu", 1.0, 0.3),
        slow("swish", 4.0, -0.4),
    ],
)  # fmt: skip
def test_correlations_are_the_double_integrals(name, q, c):
    phi, slope = FUNCTIONS[name]
    after = (1.5 * double_integral(phi, np.sqrt(q), c) + 0.1) / (
        1.5 * integral(lambda x: phi(x) ** 2, np.sqrt(q)) + 0.1
    )
    np.testing.assert_allclose(theory.correlation_map(name, c, q, 1.5, 0.1), after, rtol=2e-9)
    slopes = 1.5 * double_integral(slope, np.sqrt(q), c)
    np.testing.assert_allclose(theory.correlation_slope(name, c, q, 1.5), slopes, rtol=2e-9)


@pytest.mark.parametrize(("scale", "rtol"), [(1e-9, 1e-11), (3.0, 1e-11), (10.0, 1e-9), (100.0, 1e-7), (1e6, None)])
def test_quadrature_is_as_precise_as_it_says(scale, rtol):
    """By moments and by the error function, whose expectations Williams (1997) gives."""
    scale = jnp.asarray(scale)
    np.testing.assert_allclose(gaussian.expectation(jnp.ones_like, scale), 1, rtol=1e-15)
    np.testing.assert_allclose(gaussian.expectation(jnp.square, scale), scale**2, rtol=1e-14)
    erf = jax.scipy.special.erf
    square = gaussian.expectation(lambda x: erf(x) ** 2, scale)
    np.testing.assert_allclose(square, 2 / np.pi * np.arcsin(2 * scale**2 / (1 + 2 * scale**2)), rtol=1e-9)
    for c in (-0.99, 0.0, 0.5, 1 - 1e-6):
        np.testing.assert_allclose(
            gaussian.pair_expectation(lambda x: x, scale, jnp.asarray(c)) / scale**2, c, atol=1e-14
        )
        if rtol:
            product = gaussian.pair_expectation(erf, scale, jnp.asarray(c))
            expected = 2 / np.pi * np.arcsin(2 * scale**2 * c / (1 + 2 * scale**2))
            np.testing.assert_allclose(product, expected, rtol=rtol, atol=1e-15)


# Closed forms

C = np.array([-1, -0.9, -0.2, 0, 0.5, 0.99, 1 - 1e-6, 1 - 1e-12, 1])
Q = np.array([1e-20, 1e-3, 0.5, 3.0, 118.0])


@pytest.mark.parametrize(("x64", "rtol"), [slow(True, 1e-12), (False, 2e-6)])
def test_homogeneous_activations_in_closed_form(x64, rtol):
    """Lengths are proportional to q, even beyond what any square root of it could be integrated at."""
    q = np.array([0.0, 1e-30, 1e-3, 1.0, 119.0, 1e30])
    with jax.enable_x64(x64):
        for name, second, slope in (("relu", 0.5, 0.5), ("identity", 1, 1), ("leaky_relu", 0.50005, 0.50005)):
            np.testing.assert_allclose(theory.q_map(name, q, 3.0, 0.0), 3 * second * q, rtol=10 * rtol)
            np.testing.assert_allclose(theory.chi(name, q, 3.0), np.full(6, 3 * slope), rtol=rtol)
        np.testing.assert_allclose(theory.correlation_map("identity", C, 2.0, 1.3), C, rtol=rtol, atol=rtol)
        exact = theory.relu_correlation_map(C)
        for q in (0.0, 1e-30, 1.0, 1e30):
            np.testing.assert_allclose(theory.correlation_map("relu", C, q, 0.7), exact, rtol=rtol, atol=rtol)


def test_relu_correlation_map_is_the_arc_cosine_kernel():
    exact = (np.sqrt(1 - C**2) + (np.pi - np.arccos(C)) * C) / np.pi
    np.testing.assert_allclose(theory.relu_correlation_map(C), exact, rtol=1e-9, atol=1e-15)
    np.testing.assert_allclose(
        theory.relu_correlation_map(np.array([-1.0, 0.0, 1.0])), np.array([0, 1 / np.pi, 1]), atol=1e-15
    )


# 2-D quadrature is good to fewer digits at a standard deviation of 11.
@pytest.mark.parametrize(("x64", "rtol", "pair"), [(True, 1e-11, 2e-9), slow(False, 5e-6, 5e-6)])
def test_the_error_function_in_closed_form(x64, rtol, pair):
    with jax.enable_x64(x64):
        erf = jax.scipy.special.erf
        np.testing.assert_allclose(theory.q_map(erf, Q, 1.4, 0.1), theory.erf_q_map(Q, 1.4, 0.1), rtol=rtol)
        np.testing.assert_allclose(theory.chi(erf, Q, 1.4), theory.erf_chi(Q, 1.4), rtol=rtol)
        q, c = np.meshgrid(Q, C)
        found, exact = theory.correlation_map(erf, c, q, 1.4, 0.1), theory.erf_correlation_map(c, q, 1.4, 0.1)
        np.testing.assert_allclose(found, exact, rtol=pair, atol=pair)


def test_the_error_function_maps_are_the_integrals():
    """The closed forms themselves, by an independent route."""
    erf, scale = scipy.special.erf, np.sqrt(2.0)
    np.testing.assert_allclose(theory.erf_q_map(2.0, 1.4, 0.1), 1.4 * integral(lambda x: erf(x) ** 2, scale) + 0.1)
    with jax.enable_x64(False):  # an arcsin near 1 loses half of the digits
        np.testing.assert_allclose(theory.erf_q_map(1e8, 1.0), 2 / np.pi * np.arcsin(2e8 / (1 + 2e8)), rtol=1e-6)
    factor = 1.4 * integral(lambda x: 4 / np.pi * np.exp(-2 * x * x), scale)
    np.testing.assert_allclose(theory.erf_chi(2.0, 1.4), factor)
    covariance = 1.4 * double_integral(erf, scale, 0.7) + 0.1
    np.testing.assert_allclose(
        theory.erf_correlation_map(0.7, 2.0, 1.4, 0.1), covariance / theory.erf_q_map(2, 1.4, 0.1)
    )


def test_sine_in_closed_form():
    """E sin^2 = (1 - e^-2q)/2 and E cos^2 = (1 + e^-2q)/2: the critical bias variance is q - tanh q."""
    q = np.array([0.1, 1.0, 4.0, 30.0])
    np.testing.assert_allclose(theory.q_map("sin", q, 2.0, 0.1), 1 - np.exp(-2 * q) + 0.1, rtol=1e-12)
    np.testing.assert_allclose(theory.chi("sin", q, 2.0), 1 + np.exp(-2 * q), rtol=1e-12)
    q = q[:3]
    critical = theory.critical_weight_variance("sin", q - np.tanh(q))
    np.testing.assert_allclose(critical, 2 / (1 + np.exp(-2 * q)), rtol=1e-12)


# Depth


@pytest.mark.parametrize("x64", [slow(True), False])
@pytest.mark.parametrize(
    ("activation", "scheme", "length", "gradient"),
    [
        ("tanh", "standard_normal", 119, None),
        ("tanh", "small_normal", 2.2e-95, None),
        ("tanh", "xavier", 1.04e-2, 0.0146),
        ("tanh", "he", 0.618, 58.7),
        ("relu", "he", 2.0, 1.0),  # published as 0.98, by a coarser rule
        ("relu", "xavier", 1.78e-15, None),
        ("relu", "standard_normal", 4.1e90, None),
        ("logistic", "xavier", 0.265, 2.9e-62),
    ],
)
def test_signals_at_depth_50_are_as_published(activation, scheme, length, gradient, x64):
    with jax.enable_x64(x64):
        lengths, factor = signals(activation, scheme)
    assert lengths.shape == (50,)
    np.testing.assert_allclose(lengths[-1] / np.log(10), np.log10(length), atol=0.0105)  # two or three digits
    if gradient:
        np.testing.assert_allclose(factor / np.log(10), np.log10(gradient), atol=0.0105)


@pytest.mark.parametrize("x64", [slow(True), False])
def test_a_thousand_layers_neither_overflow_nor_underflow(x64):
    """A thousand ReLU layers multiply lengths by (weight variance / 2)^999; small tanh ones by about its power."""
    rtol = 1e-12 if x64 else 5e-5
    with jax.enable_x64(x64):
        for scheme, variance in SCHEMES.items():
            lengths = theory.log_lengths("relu", 1000, variance, log_q=np.log(variance))
            expected = np.log(variance) + np.arange(1000) * np.log(variance / 2)
            np.testing.assert_allclose(lengths, expected, rtol=rtol, err_msg=scheme)
            gradients = theory.log_gradient_factors("relu", lengths, variance)
            np.testing.assert_allclose(gradients, np.full(1000, np.log(variance / 2)), rtol=rtol, atol=rtol)
        for name in ("tanh", "swish", "elu", "logistic"):
            lengths = theory.log_lengths(name, 1000, np.array([WIDTH * 1e-4, WIDTH * 1.0]), log_q=0.0)
            assert lengths.shape == (2, 1000)
            assert np.all(np.isfinite(lengths)), name
        lengths = theory.log_lengths("tanh", 1000, WIDTH * 1e-4)
        np.testing.assert_allclose(np.diff(lengths[10:]), np.full(989, np.log(WIDTH * 1e-4)), rtol=1e-2)


def test_lengths_beyond_the_quadratures_range_follow_the_power_they_have_there():
    """Powers at either end: tanh 1 and 0, its slope 0 and -1/2 (of sqrt q); swish 1 and 1; logistic 0 and 0."""
    log_q = np.array([-2000.0, -100.0, 100.0, 2000.0])
    half, ln2 = np.log(0.5), np.log(2)
    expected = {"tanh": [-2000, -100, 0, 0], "swish": [-2000 - 2 * ln2, -100 - 2 * ln2, 100 + half, 2000 + half]}
    expected["logistic"] = [-2 * ln2, -2 * ln2, half, half]
    for name, after in expected.items():
        found = theory.log_lengths(name, 2, 1.0, log_q=log_q)[:, 1]
        np.testing.assert_allclose(found, after, rtol=1e-8, atol=1e-8)
    # E sech(s z)^4 -> (4/3) / (s sqrt(2 pi))
    tails = [0, 0, *(np.log(4 / 3 / np.sqrt(2 * np.pi)) - log_q[2:] / 2)]
    np.testing.assert_allclose(theory.log_gradient_factors("tanh", log_q, 1.0), tails, rtol=1e-9, atol=1e-9)
    np.testing.assert_array_equal(theory.log_lengths("logistic", 2, 4.0, 1.0, log_q=-np.inf)[1], np.log(2.0))


def test_the_scan_is_the_map_iterated():
    q, c, lengths, cosines = 1.5, 0.2, [], []
    for _ in range(6):
        lengths.append(q)
        cosines.append(c)
        q, c = theory.q_map("tanh", q, 2.0, 0.1), theory.correlation_map("tanh", c, q, 2.0, 0.1)
    np.testing.assert_allclose(np.exp(theory.log_lengths("tanh", 6, 2.0, 0.1, np.log(1.5))), lengths, rtol=1e-13)
    np.testing.assert_allclose(theory.correlations("tanh", 6, 2.0, 0.1, q=1.5, c=0.2), cosines, rtol=1e-13)
    relu = theory.correlations("relu", 400, 128.0, q=1.0, c=0.1)  # of lengths that no dtype can hold
    np.testing.assert_allclose(relu[1:], theory.relu_correlation_map(relu[:-1]), rtol=1e-12)


@pytest.mark.parametrize("name", ["tanh", slow("relu"), slow("elu")])
def test_correlation_slope_is_the_derivative_of_the_correlation_map(name):
    """At any length, with the factor q / q_map(q) that is 1 at a fixed one."""
    c, h = np.array([-0.7, 0.0, 0.4, 0.9]), 1e-5
    for q in (0.7, float(theory.fixed_length(name, 1.3, 0.2))):
        up, down = (theory.correlation_map(name, c + d, q, 1.3, 0.2) for d in (h, -h))
        slope = theory.correlation_slope(name, c, q, 1.3) * q / theory.q_map(name, q, 1.3, 0.2)
        np.testing.assert_allclose((up - down) / (2 * h), slope, rtol=1e-7)
    np.testing.assert_allclose(theory.q_map(name, q, 1.3, 0.2), q, rtol=1e-13)
    np.testing.assert_allclose(theory.correlation_slope(name, 1.0, q, 1.3), theory.chi(name, q, 1.3), rtol=1e-10)


def test_correlation_slope_is_chi_beyond_the_quadratures_range():
    np.testing.assert_allclose(theory.correlation_slope(jnp.square, 1.0, 1e-30, 1.0), 4e-30, rtol=1e-10)
    np.testing.assert_allclose(theory.correlation_slope("relu", 1.0, 1e30, 1.0), 0.5, rtol=1e-10)


# Fixed points, depth scales, criticality


@pytest.mark.parametrize(("x64", "rtol"), [(True, 1e-12), slow(False, 5e-6)])
def test_fixed_lengths(x64, rtol):
    with jax.enable_x64(x64):
        # q = sw2 q / 2 + sb2 for ReLU; every length fixed; grown for ever; collapsed.
        found = theory.fixed_length("relu", np.array([1.0, 2.0, 2.0, 3.0, 1.0]), np.array([0.3, 0.0, 0.3, 0.0, 0.0]))
        np.testing.assert_allclose(found, [0.6, 1, np.inf, np.inf, 0], rtol=rtol)
        # tanh collapses up to weight variance 1, however slowly, and from there on does not.
        assert theory.fixed_length("tanh", np.array([0.5, 1.0])).tolist() == [0, 0]
        q = theory.fixed_length("tanh", np.array([1.01, 1.7, 128.0]), 0.0)
        np.testing.assert_allclose(theory.q_map("tanh", q, np.array([1.01, 1.7, 128.0])), q, rtol=rtol)
        np.testing.assert_allclose(theory.fixed_length("step", 3.0, 0.25), 1.75, rtol=rtol)
        np.testing.assert_allclose(theory.fixed_length("tanh", 0.0, 0.25), 0.25, rtol=rtol)


@pytest.mark.parametrize("x64", [True, slow(False)])
def test_fixed_lengths_beside_unstable_ones(x64):
    """swish's stable fixed point has an unstable one above it, here at three times the length and less."""
    variance, bias = np.array([2.1776, 2.0271, 2.1615, 2.3]), np.array([0.22633, 0.43266, 0.26347, 0.26347])
    lengths = theory.log_lengths("swish", 3000, variance, bias)
    with jax.enable_x64(x64):
        scales = theory.depth_scales("swish", variance, bias)
    np.testing.assert_allclose(scales.q[:3], np.exp(lengths[:3, -1]), rtol=1e-4)
    assert np.isinf(scales.q[3])
    assert lengths[3, -1] > 50
    np.testing.assert_allclose(scales.correlation[0], 5.302, rtol=1e-3)


def test_fixed_correlations():
    """Ordered, critical and chaotic; odd functions without biases forget the inputs altogether."""
    variance, bias = np.array([0.5, 1.0, 1.5, 3.0, 2.6, 4.0]), np.array([0.0, 0.0, 0.1, 0.0, 0.1, 0.1])
    found = theory.fixed_correlation("tanh", variance, bias)
    assert found[:3].tolist() == [1, 1, 1]
    np.testing.assert_allclose(found[3], 0, atol=1e-14)
    assert theory.fixed_correlation("relu", np.array([1.0, 2.0, 3.0]), 0.0).tolist() == [1, 1, 1]
    variance, c = variance[4:], found[4:]
    assert np.all((c > 0.1) & (c < 0.9))
    q = theory.fixed_length("tanh", variance, 0.1)
    iterated = theory.correlations("tanh", 300, variance, 0.1, q=q, c=0.5)
    np.testing.assert_allclose(iterated[:, -1], c, rtol=1e-8)


@pytest.mark.parametrize("variance", [1.3, 3.0])
def test_depth_scales_are_the_measured_decay(variance):
    """Of iterated correlations toward c*, and of the gradient through the layers; ordered and chaotic."""
    scales = theory.depth_scales("tanh", variance, 0.1)
    gap = np.abs(theory.correlations("tanh", 200, variance, 0.1, q=scales.q, c=0.6) - scales.c)
    near = np.flatnonzero((gap < 1e-4) & (gap > 1e-7))
    assert len(near) >= 5
    rate = np.diff(np.log(gap[near])).mean()
    np.testing.assert_allclose(scales.correlation, -1 / rate, rtol=2e-3)
    np.testing.assert_allclose(scales.gradient, -1 / np.log(theory.chi("tanh", scales.q, variance)), rtol=1e-10)
    assert (scales.gradient > 0) == (variance < 1.986)


@pytest.mark.parametrize(("x64", "excess"), [(True, [1e-8, 1e-6, 1e-4, 1e-3]), (False, [3e-5, 1e-4, 1e-3])])
def test_depth_scales_just_above_criticality(x64, excess):
    """There the map 1 - c -> chi (1 - c) - a (1 - c)^2 has 1 - c* = (chi - 1)/a and the slope 2 - chi."""
    critical = float(theory.critical_weight_variance("tanh", 0.1))
    excess = np.array(excess)
    far = theory.depth_scales("tanh", critical * 1.003, 0.1)
    a = (far.chi - 1) / (1 - far.c)
    with jax.enable_x64(x64):
        scales = theory.depth_scales("tanh", critical * (1 + excess), 0.1)
    log_chi = excess * np.log(far.chi) / 0.003  # to first order, too
    np.testing.assert_allclose(scales.correlation, 1 / log_chi, rtol=3e-3 if x64 else 3e-2)
    np.testing.assert_allclose(1 - scales.c, log_chi / a, rtol=5e-3 if x64 else 3e-2)


def test_depth_scales_just_above_criticality_with_a_kink():
    """There the map is 1 - c -> chi (1 - c) - a (1 - c)^(3/2): 1 - c* = ((chi - 1)/a)^2 and the slope (3 - chi)/2."""

    def half_tanh(x):
        return jnp.tanh(jnp.maximum(x, 0))

    critical = theory.critical_weight_variance(half_tanh, 0.1)
    far, near = (theory.depth_scales(half_tanh, critical * (1 + excess), 0.1) for excess in (3e-3, 1e-5))
    for scales in (far, near):
        np.testing.assert_allclose(-scales.gradient / scales.correlation, 0.5, rtol=3e-3)
    gaps = (1 - far.c) / (far.chi - 1) ** 2, (1 - near.c) / (near.chi - 1) ** 2
    np.testing.assert_allclose(*gaps, rtol=0.05)  # of powers of the square root of the gap, the third is missing


def test_depth_scales_at_the_edges():
    scales = theory.depth_scales("relu", np.array([1.0, 2.0, 4.0]))
    for scale in (scales.correlation, scales.gradient):
        np.testing.assert_allclose(scale, [1 / np.log(2), np.inf, -1 / np.log(2)], rtol=1e-12)
    np.testing.assert_allclose(theory.depth_scales("tanh", 0.5).correlation, 1 / np.log(2), rtol=1e-10)


def test_the_critical_line_of_tanh_is_as_published():
    found = theory.critical_weight_variance("tanh", np.array([0, 0.05, 0.1, 0.3]))
    np.testing.assert_allclose(found, [1.0, 1.761, 1.986, 2.505], atol=5e-4)


@pytest.mark.parametrize("name", [slow("tanh"), "logistic", slow("elu"), slow("sin")])
def test_critical_nets_have_chi_1_at_their_fixed_length(name):
    scales = theory.depth_scales(name, theory.critical_weight_variance(name, 0.1), 0.1)
    np.testing.assert_allclose(scales.chi, 1, rtol=1e-11)
    assert 0 < scales.q < 100


@pytest.mark.parametrize(("x64", "rtol"), [(True, 1e-10), slow(False, 1e-5)])
def test_critical_weight_variances_of_special_cases(x64, rtol):
    with jax.enable_x64(x64):
        for name, expected in (("relu", 2), ("identity", 1)):
            found = theory.critical_weight_variance(name, np.array([0.0, 0.3]))
            np.testing.assert_allclose(found, [expected, expected], rtol=rtol)
        # 1 / phi'(0)^2 without biases where phi(0) = 0
        np.testing.assert_allclose(theory.critical_weight_variance("swish", 0.0), 4, rtol=rtol)
        np.testing.assert_allclose(theory.critical_weight_variance("tanh", 0.0), 1, rtol=rtol)
        # E phi^2 = (1 + 2q)^(-1/2) and E phi'^2 = q (1 + 2q)^(-3/2): q = 1 + sqrt 2
        q = 1 + 2**0.5
        expected = (1 + 2 * q) ** 1.5 / q
        np.testing.assert_allclose(theory.critical_weight_variance("gaussian", 0.0), expected, rtol=rtol)
        assert np.isnan(theory.critical_weight_variance("step", 0.1))
        assert np.isnan(theory.critical_weight_variance(jnp.square, 0.0))  # 3 sw2 q^2 = q, but 4 sw2 q = 1
        # E phi^2 = 3q^2, E phi'^2 = 4q: bias variance q/4, weight variance 1/(4q)
        np.testing.assert_allclose(theory.critical_weight_variance(jnp.square, 0.5), 1 / 8, rtol=rtol)


# Random nets


def net(key, x, weight_variance, bias_variance, width, depth, phi):
    """Lengths (depth,), correlation of the two rows of x (depth,), and |delta_1|^2 / |delta_depth|^2."""
    w_key, b_key, delta_key = jax.random.split(key, 3)
    weights = jax.random.normal(w_key, (depth, width, width)) * jnp.sqrt(weight_variance / width)
    biases = jax.random.normal(b_key, (depth, 1, width)) * jnp.sqrt(bias_variance)

    def forward(shifts):
        """Net inputs of all layers, shifts added to each on the way."""
        z = [x @ weights[0] + biases[0] + shifts[0]]
        for layer in range(1, depth):
            z.append(phi(z[-1]) @ weights[layer] + biases[layer] + shifts[layer])
        return z[-1], jnp.stack(z)

    last, back, z = jax.vjp(forward, [jnp.zeros((2, width))] * depth, has_aux=True)
    deltas = back(jax.random.normal(delta_key, last.shape))[0]
    squares = jnp.mean(z**2, axis=2)
    cosines = jnp.mean(z[:, 0] * z[:, 1], axis=1) / jnp.sqrt(squares[:, 0] * squares[:, 1])
    return squares[:, 0], cosines, jnp.mean(deltas[0] ** 2) / jnp.mean(deltas[-1] ** 2)


@pytest.mark.parametrize(("name", "weight_variance", "bias_variance"), [("tanh", 2.5, 0.1), slow("relu", 1.8, 0.2)])
def test_wide_random_nets_agree(name, weight_variance, bias_variance):
    """The mean of 64 nets, to 4 standard errors and what finite nets differ by, of the order depth/width."""
    width, depth, nets = 200, 6, 64
    with jax.enable_x64(False):
        x = jnp.array([[1.0, 1.0] * (width // 2), [1.0, -0.2] * (width // 2)])
        x = x / jnp.sqrt(jnp.mean(x**2, axis=1, keepdims=True))
        settings = {"weight_variance": weight_variance, "bias_variance": bias_variance, "width": width, "depth": depth}
        run = partial(net, x=x, phi=activations.by_name(name), **settings)
        measured = jax.jit(lambda keys: jax.lax.map(run, keys))(jax.random.split(jax.random.key(0), nets))
    q, cosine = weight_variance + bias_variance, float(jnp.mean(x[0] * x[1]))
    log_q = theory.log_lengths(name, depth, weight_variance, bias_variance, np.log(q))
    first = (weight_variance * cosine + bias_variance) / q
    expected = (
        np.exp(log_q),
        theory.correlations(name, depth, weight_variance, bias_variance, q=q, c=first),
        np.exp(np.sum(theory.log_gradient_factors(name, log_q[:-1], weight_variance))),
    )
    for found, right in zip(measured, expected, strict=True):
        mean, error = np.mean(found, axis=0), np.std(found, axis=0, ddof=1) / nets**0.5
        assert np.all(error < 0.05 * right), "too noisy to tell"
        assert np.all(np.abs(mean - right) < 4 * error + depth / width * right)


@pytest.mark.parametrize(("name", "shift"), [("relu", -5 / 2), ("identity", -1)])
def test_finite_nets_lower_the_mean_log_length(name, shift):
    found = theory.log_length_shift(name, np.array([1e-20, 1.0, 1e20]), np.array([1, 10, 100]))
    np.testing.assert_allclose(found, [shift, shift / 10, shift / 100], rtol=1e-12)
    # Layers of 100 units, 20 of them after the first: 600 nets, each by independent draws of every layer's lengths.
    width, depth, nets = 100, 20, 600
    rng, phi = np.random.default_rng(0), FUNCTIONS.get(name, (lambda x: x,))[0]
    log_q, gain = np.zeros(nets), 2.0 if name == "relu" else 1.0
    for _ in range(depth):
        # Given a layer's units, those of the next are independent normals of one variance.
        z = np.exp(log_q[:, None] / 2) * rng.standard_normal((nets, width))
        log_q = np.log(gain * np.mean(phi(z) ** 2, axis=1))
    error = log_q.std(ddof=1) / nets**0.5
    assert error < 0.25 * abs(shift) * depth / width
    # The next order of ln(1 + e) is skewness: less than a tenth of the shift at 100 units.
    assert abs(log_q.mean() - shift * depth / width) < 4 * error + 0.1 * abs(shift) * depth / width


def test_the_shift_of_an_activation_that_is_not_homogeneous():
    phi = np.tanh
    square, fourth = (integral(lambda x, p=p: phi(x) ** p, 1.5) for p in (2, 4))
    expected = -(fourth - square**2) / square**2 / (2 * 50)
    np.testing.assert_allclose(theory.log_length_shift("tanh", 2.25, 50), expected, rtol=1e-10)


# All of them

FORMS = {
    "q_map": lambda v: theory.q_map("tanh", v, 1.5, 0.1),
    "chi": lambda v: theory.chi("tanh", 0.7, v),
    "log_gradient_factors": lambda v: theory.log_gradient_factors("tanh", v, 1.5),
    "log_lengths": lambda v: theory.log_lengths("tanh", 3, v, 0.1),
    "correlation_map": lambda v: theory.correlation_map("tanh", v / 3, 0.7, 1.5, 0.1),
    "correlation_slope": lambda v: theory.correlation_slope("tanh", v / 3, 0.7, 1.5),
    "correlations": lambda v: theory.correlations("tanh", 3, v, 0.1, q=v, c=0.3),
    "fixed_length": lambda v: theory.fixed_length("tanh", 1.5, v),
    "fixed_correlation": lambda v: theory.fixed_correlation("tanh", v + 1, 0.1),
    "depth_scales": lambda v: theory.depth_scales("tanh", v, 0.1),
    "critical_weight_variance": lambda v: theory.critical_weight_variance("tanh", v),
    "log_length_shift": lambda v: theory.log_length_shift("tanh", v, 50),
    "relu_correlation_map": lambda v: theory.relu_correlation_map(v / 3),
    "erf_q_map": lambda v: theory.erf_q_map(v, 1.5, 0.1),
    "erf_chi": lambda v: theory.erf_chi(v, 1.5),
    "erf_correlation_map": lambda v: theory.erf_correlation_map(v / 3, 0.7, 1.5, 0.1),
}


def test_the_forms_are_all_there_are():
    own = {name for name, f in vars(theory).items() if getattr(f, "__module__", "") == theory.__name__}
    assert {name for name in own if not name.startswith("_")} - {"DepthScales"} == set(FORMS)


@pytest.mark.parametrize(
    "name",
    [
        name if name in ("q_map", "correlations", "depth_scales", "critical_weight_variance") else slow(name)
        for name in FORMS
    ],
)
def test_every_form_jits_vmaps_compiles_once_and_keeps_the_dtype(name):
    form, traces = FORMS[name], []

    def counted(v):
        traces.append(1)
        return form(v)

    program = jax.jit(counted, compiler_options=UNOPTIMIZED)
    v = np.array([0.2, 0.7, 2.5])
    first, again = program(v), program(v[::-1].copy())
    assert len(traces) == 1
    with jax.enable_x64(False):
        single = jax.jit(form, compiler_options=UNOPTIMIZED)(v.astype(np.float32))
    lanes = jax.jit(jax.vmap(form), compiler_options=UNOPTIMIZED)(v)
    for a, b, c, d in zip(*map(jax.tree.leaves, (first, again, lanes, single)), strict=True):
        assert a.shape[0] == 3
        assert a.dtype == np.float64
        assert d.dtype == np.float32
        np.testing.assert_allclose(a, b[::-1], rtol=1e-12)
        np.testing.assert_allclose(a, c, rtol=1e-12)
        np.testing.assert_allclose(a, d, rtol=2e-5, atol=2e-6)


def test_arguments_broadcast():
    lengths = theory.q_map("relu", np.ones((3, 1)), np.arange(1.0, 5.0), 0.5)
    np.testing.assert_allclose(lengths, np.broadcast_to(np.arange(1, 5) / 2 + 0.5, (3, 4)), rtol=1e-12)
    assert theory.log_lengths("relu", 7, np.ones((2, 1)), np.ones(3)).shape == (2, 3, 7)
    assert theory.correlations("relu", 7, 1.0, q=1.0, c=np.zeros(4)).shape == (4, 7)
    np.testing.assert_allclose(theory.q_map("relu", [1.0, 2], (3, 4.0)), [1.5, 4], rtol=1e-12)
    assert theory.critical_weight_variance("relu", [0, 0.1]).shape == (2,)
    made = jax.jit(lambda a: theory.q_map("relu", [a, 2 * a], 1.0), compiler_options=UNOPTIMIZED)(1.0)
    np.testing.assert_allclose(made, [0.5, 1], rtol=1e-12)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision_is_integrated_in_single(dtype):
    with jax.enable_x64(False):
        found = theory.q_map("tanh", jnp.asarray(1.5, dtype), jnp.asarray(2.0, dtype))
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, theory.q_map("tanh", 1.5, 2.0))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: theory.q_map("tahn", 1.0, 1.0), "activation 'tahn' is not one of .*; did you mean 'tanh'?"),
        (lambda: theory.q_map("softmax", 1.0, 1.0), "activation 'softmax' is not one of"),
        (lambda: theory.q_map("tanh", -0.5, 1.0), "q=-0.5 must be at least 0"),
        (lambda: theory.chi("tanh", np.array([1.0, np.nan]), 1.0), "q=nan must be at least 0"),
        (lambda: theory.depth_scales("tanh", np.array([1.0, -2.0])), "weight_variance=-2.0 must be at least 0"),
        (lambda: theory.critical_weight_variance("tanh", -1), "bias_variance=-1 must be at least 0"),
        (lambda: theory.erf_chi(1.0, -1.0), "weight_variance=-1.0 must be at least 0"),
        (lambda: theory.correlation_map("tanh", 1.5, 1.0, 1.0), "c=1.5 must lie between -1 and 1"),
        (lambda: theory.relu_correlation_map(-2.0), "c=-2.0 must lie between -1 and 1"),
        (lambda: theory.log_lengths("tanh", 0, 1.0), "depth=0 must be a whole number of at least 1"),
        (lambda: theory.correlations("tanh", 2.5, 1.0, q=1.0, c=0.0), "depth=2.5 must be a whole number of at least 1"),
        (lambda: theory.log_length_shift("tanh", 1.0, 0), "width=0 must be at least 1"),
        (lambda: theory.q_map("tanh", "a", 1.0), "q='a' must be a real number or an array of them"),
        (lambda: theory.chi("tanh", 1.0, 1j), "weight_variance=1j must be a real number or an array of them"),
        (lambda: theory.log_lengths("tanh", 3, 1.0, log_q=[0, "b"]), "log_q=[0, 'b'] must be a real number"),
        (lambda: theory.depth_scales("tanh", None), "weight_variance=None must be a real number"),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message if "*" in message else re.escape(message)):
        call()
