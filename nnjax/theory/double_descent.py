"""Double descent in closed form: the risk of least squares against width, penalty, time and features.

Throughout, the truth is linear, y = <x, beta> + noise, with `signal` = |beta|^2 (the variance that isotropic
x explains) and `noise` = the variance of the noise, both in squared units of y; n counts examples, p
parameters. "Excess risk" is E (prediction - <x, beta>)^2 on a fresh x; "total risk" adds the noise of a fresh
y. Every function is elementwise over broadcast arguments, and works under `jit`, `vmap` and, off the peak,
`grad`.
"""

import math

import jax.numpy as jnp
from jax.typing import ArrayLike

from nnjax.types import Array


def ridgeless_risk(n: ArrayLike, p: ArrayLike, *, signal: ArrayLike, noise: ArrayLike) -> Array:
    """Mean excess risk of minimum-norm least squares on n isotropic Gaussian examples, exact at finite n.

        p <= n - 2:  noise p / (n - p - 1)
        p >= n + 2:  signal (1 - n / p) + noise n / (p - n - 1)

    The mean is infinite in between (its median is not: plot medians there, and leave a gap in this line).

    Args:
        n: number of examples.
        p: number of parameters, all of which carry signal.
        signal: |beta|^2.
        noise: variance of the noise.

    Returns:
        Excess risk of the broadcast shape; `inf` for n - 2 < p < n + 2.

    Reference: Breiman & Freedman (1983) below the threshold; Belkin, Hsu & Xu (2020) above it.
    """
    n, p, signal, noise = _floats(n, p, signal, noise)
    under = noise * p / _positive(n - p - 1)
    over = signal * (1 - n / _positive(p)) + noise * n / _positive(p - n - 1)
    return jnp.where(p <= n - 2, under, jnp.where(p >= n + 2, over, jnp.inf))


def ridgeless_risk_limit(gamma: ArrayLike, *, signal: ArrayLike, noise: ArrayLike) -> Array:
    """Limit of `ridgeless_risk` as n and p grow with p / n = gamma.

        gamma < 1:  noise gamma / (1 - gamma)
        gamma > 1:  signal (1 - 1 / gamma) + noise / (gamma - 1)

    Returns:
        Excess risk of the broadcast shape; `inf` at gamma = 1.

    Reference: Hastie, Montanari, Rosset & Tibshirani (2022), "Surprises in high-dimensional ridgeless least
    squares interpolation".
    """
    gamma, signal, noise = _floats(gamma, signal, noise)
    under = noise * gamma / _positive(1 - gamma)
    over = signal * (1 - 1 / _positive(gamma)) + noise / _positive(gamma - 1)
    return jnp.where(gamma < 1, under, jnp.where(gamma > 1, over, jnp.inf))


def feature_subset_risk(
    n: ArrayLike, p: ArrayLike, *, included: ArrayLike, excluded: ArrayLike, noise: ArrayLike
) -> Array:
    """Mean *total* risk when only p of all isotropic Gaussian features are used, exact at finite n.

    With q = excluded + noise, since what the unseen features explain acts as noise:

        p <= n - 2:  q (1 + p / (n - p - 1))
        p >= n + 2:  included (1 - n / p) + q (1 + n / (p - n - 1))

    Args:
        n: number of examples.
        p: number of features used.
        included: |beta|^2 over the p features used.
        excluded: |beta|^2 over the features left out.
        noise: variance of the noise.

    Returns:
        Total risk of the broadcast shape; `inf` for n - 2 < p < n + 2.

    Reference: Belkin, Hsu & Xu (2020), "Two models of double descent for weak features", theorem 1.
    """
    n, p, included, excluded, noise = _floats(n, p, included, excluded, noise)
    unseen = excluded + noise
    return unseen + ridgeless_risk(n, p, signal=included, noise=unseen)


def optimal_ridge_penalty(gamma: ArrayLike, *, signal: ArrayLike, noise: ArrayLike) -> Array:
    """Penalty of least risk, noise gamma / signal, in (1/n) |y - X b|^2 + penalty |b|^2 with gamma = p / n.

    It is the Bayes-optimal penalty at any n when beta has p independent Gaussian entries of variance signal /
    p.

    Reference: Dobriban & Wager (2018), "High-dimensional asymptotics of prediction".
    """
    gamma, signal, noise = _floats(gamma, signal, noise)
    return noise * gamma / signal


def optimal_ridge_risk(gamma: ArrayLike, *, signal: ArrayLike, noise: ArrayLike) -> Array:
    """Limiting excess risk of ridge regression at `optimal_ridge_penalty`: it has no peak at gamma = 1.

    The risk is noise gamma m, with m the positive root of gamma l m^2 + (1 - gamma + l) m = 1 at the optimal
    penalty l. Written with b = signal (1 - gamma) + noise gamma and s = sqrt(b^2 + 4 gamma^2 signal noise),

        b >= 0:  2 gamma signal noise / (b + s)
        b < 0:   (s - b) / (2 gamma)

    no term cancels and nothing is divided by l, so that noise = 0 and signal = 0 are exact as well.

    Returns:
        Excess risk of the broadcast shape.

    Reference: Dobriban & Wager (2018), "High-dimensional asymptotics of prediction".
    """
    gamma, signal, noise = _floats(gamma, signal, noise)
    b = signal * (1 - gamma) + noise * gamma
    s = jnp.hypot(b, 2 * gamma * jnp.sqrt(signal) * jnp.sqrt(noise))
    under = 2 * gamma * signal * noise / _positive(b + s)
    over = (s - b) / (2 * _positive(gamma))
    return jnp.where(b >= 0, under, over)


def gradient_flow_risk(
    eigenvalues: ArrayLike, time: ArrayLike, *, n: ArrayLike, signal: ArrayLike, noise: ArrayLike
) -> Array:
    """Excess risk, at a training time, of gradient flow from zero on (1 / 2n) |y - X b|^2, for a given X.

        R(t) = signal mean_i exp(-2 s_i t) + (noise / n) sum_i (1 - exp(-s_i t))^2 / s_i

    averaged over the noise and over the direction of beta, on isotropic fresh x. Null directions are never
    learned: they keep their share of the signal and add no variance.

    Args:
        eigenvalues: (p,) eigenvalues s_i of X'X / n, all p of them, null ones included (0, or rounding noise
            up to p eps times the largest).
        time: any shape; time in the flow db/dt = X'(y - X b) / n; `inf` gives minimum-norm least squares.
        n: number of examples, any shape that broadcasts with `time`.
        signal: |beta|^2, likewise.
        noise: variance of the noise, likewise.

    Returns:
        Excess risk of the broadcast shape of `time`, `n`, `signal` and `noise`.

    Reference: Advani & Saxe (2017), "High-dimensional dynamics of generalization error in neural networks".
    """
    time, n, signal, noise = _floats(time, n, signal, noise)
    eigenvalues = jnp.asarray(eigenvalues, jnp.result_type(float, eigenvalues))
    s = eigenvalues.reshape((1,) * time.ndim + eigenvalues.shape)
    null = s <= eigenvalues.size * jnp.finfo(s.dtype).eps * jnp.max(eigenvalues)
    s = jnp.where(null, 1, s)
    st = s * time[..., None]
    left = jnp.where(null, 1, jnp.exp(-2 * st))
    spread = jnp.where(null, 0, jnp.expm1(-st) ** 2 / s)
    return signal * jnp.mean(left, axis=-1) + noise / n * jnp.sum(spread, axis=-1)


def random_features_risk(
    psi1: ArrayLike,
    psi2: ArrayLike,
    *,
    linear_signal: ArrayLike,
    noise: ArrayLike,
    nonlinear_signal: ArrayLike = 0.0,
) -> Array:
    """Limiting excess risk of ridgeless regression on ReLU random features.

    Features are relu(<x, t> / sqrt(d)) with x and t uniform on the sphere of radius sqrt(d). Mei and
    Montanari state the risk as ratios of polynomials of degree five in chi. These factor; with z = pi / (pi -
    2) (zeta^2 of the ReLU), psi = min(psi1, psi2), u = -chi the positive root of z u^2 - (z psi - z - 1) u =
    psi, and D = 1 + z u,

        bias     = psi2 / (D |psi1 - psi2|) + [psi1 > psi2] (D + z) / (D (D^2 + z))
        variance = psi  /    |psi1 - psi2|  + [psi1 > psi2] z^2 u / (D^2 + z)
        risk     = linear_signal bias + (noise + nonlinear_signal) variance + nonlinear_signal

    the same function without cancelling terms: float32 agrees with float64 to 1e-6 relative, given
    psi1 - psi2 (near the peak the risk amplifies whatever rounding the two arguments already carry).

    Args:
        psi1: features per input dimension, N / d; `inf` is the kernel limit.
        psi2: examples per input dimension, n / d; finite.
        linear_signal: squared norm of the target's linear part, F_1^2.
        noise: variance of the noise, tau^2.
        nonlinear_signal: variance of the target's part orthogonal to linear functions, F_*^2.

    Returns:
        Excess risk of the broadcast shape; `inf` at psi1 = psi2.

    Reference: Mei & Montanari (2019), "The generalization error of random features regression: precise
    asymptotics and double descent curve", theorem 4.
    """
    psi1, psi2, linear_signal, noise, nonlinear_signal = _floats(psi1, psi2, linear_signal, noise, nonlinear_signal)
    z = math.pi / (math.pi - 2)
    u = _positive_root(z, jnp.minimum(psi1, psi2))
    d = 1 + z * u
    gap = jnp.abs(psi1 - psi2)
    over = psi1 > psi2
    bias = psi2 / (d * gap) + jnp.where(over, (d + z) / (d * (d**2 + z)), 0)
    variance = jnp.minimum(psi1, psi2) / gap + jnp.where(over, z**2 * u / (d**2 + z), 0)
    risk = linear_signal * bias + (noise + nonlinear_signal) * variance + nonlinear_signal
    return jnp.where(gap == 0, jnp.inf, risk)


def _positive_root(z: float, psi: Array) -> Array:
    """Positive root u of z u^2 - (z psi - z - 1) u = psi, in whichever form does not cancel."""
    a = z * (psi - 1) - 1
    root = jnp.sqrt(a**2 + 4 * z * psi)
    return jnp.where(a > 0, (root + a) / (2 * z), 2 * psi / jnp.where(a > 0, 1, root - a))


def _positive(x: Array) -> Array:
    """x where positive, else 1: a denominator for the branch not taken, so that gradients stay finite."""
    return jnp.where(x > 0, x, 1)


def _floats(*values: ArrayLike) -> list[Array]:
    """The arguments as arrays of one floating dtype and one broadcast shape."""
    dtype = jnp.result_type(float, *values)
    shape = jnp.broadcast_shapes(*(jnp.shape(v) for v in values))
    return [jnp.broadcast_to(jnp.asarray(v, dtype), shape) for v in values]
