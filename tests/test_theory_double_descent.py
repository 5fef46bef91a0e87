"""Each closed form against limits, other published forms, and Monte Carlo with z-scores."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from threadpoolctl import threadpool_limits

from nnjax.theory import double_descent as theory

TRIALS = 4000


@pytest.fixture(autouse=True)
def _float64_and_one_blas_thread():
    """More threads than free cores make a decomposition up to sixty times slower."""
    with jax.enable_x64(True), threadpool_limits(1, user_api="blas"):
        yield


def assert_mean(samples, expected, *, bias=0.0, z=4.0):
    """The mean of `samples` is `expected` to within z standard errors, plus a relative finite-size bias."""
    standard_error = np.std(samples, ddof=1) / len(samples) ** 0.5
    assert standard_error < 0.1 * expected, "too noisy to tell"
    assert abs(np.mean(samples) - expected) < z * standard_error + bias * expected


def sphere(rng, shape):
    """Rows uniform on the sphere of radius sqrt(d)."""
    x = rng.standard_normal(shape)
    return x * (shape[-1] ** 0.5 / np.linalg.norm(x, axis=-1, keepdims=True))


# Minimum norm


@pytest.mark.parametrize("p", [10, 40, 100])
def test_ridgeless_risk_is_the_mean_over_simulations(p):
    n, signal, noise = 20, 2.0, 0.5
    rng = np.random.default_rng(p)
    x = rng.standard_normal((TRIALS, n, p))
    beta = rng.standard_normal((TRIALS, p, 1))
    beta *= signal**0.5 / np.linalg.norm(beta, axis=1, keepdims=True)
    y = x @ beta + noise**0.5 * rng.standard_normal((TRIALS, n, 1))
    excess = np.sum((np.linalg.pinv(x) @ y - beta) ** 2, axis=(1, 2))
    assert_mean(excess, theory.ridgeless_risk(n, p, signal=signal, noise=noise))


def test_ridgeless_risk_is_infinite_exactly_where_the_mean_is():
    risk = theory.ridgeless_risk(20, jnp.arange(17, 24), signal=1.0, noise=0.1)
    assert np.isinf(risk).tolist() == [False, False, True, True, True, False, False]
    np.testing.assert_allclose(risk[jnp.array([1, 5])], [0.1 * 18, 1 - 20 / 22 + 0.1 * 20])


@pytest.mark.parametrize("gamma", [0.0, 0.3, 0.9, 1.1, 4.0])
def test_ridgeless_risk_tends_to_its_limit(gamma):
    n = 10**6
    finite = theory.ridgeless_risk(n, gamma * n, signal=2.0, noise=0.5)
    np.testing.assert_allclose(finite, theory.ridgeless_risk_limit(gamma, signal=2.0, noise=0.5), rtol=2e-5, atol=0)


def test_ridgeless_limit_by_hand():
    gamma = jnp.array([0.5, 1.0, 2.0])
    assert theory.ridgeless_risk_limit(gamma, signal=3.0, noise=0.2).tolist() == [0.2, np.inf, 1.7]


@pytest.mark.parametrize("p", [8, 40])
def test_feature_subset_risk_is_the_mean_over_simulations(p):
    n, features, noise = 20, 60, 0.3
    beta = 1 / np.arange(1, features + 1)
    included, excluded = np.sum(beta[:p] ** 2), np.sum(beta[p:] ** 2)
    rng = np.random.default_rng(p)
    x = rng.standard_normal((TRIALS, n, features))
    y = x @ beta + noise**0.5 * rng.standard_normal((TRIALS, n))
    fitted = (np.linalg.pinv(x[..., :p]) @ y[..., None])[..., 0]
    total = np.sum((fitted - beta[:p]) ** 2, axis=1) + excluded + noise
    assert_mean(total, theory.feature_subset_risk(n, p, included=included, excluded=excluded, noise=noise))


def test_feature_subset_risk_matches_belkin_hsu_xu_as_printed():
    n, q, included = 40, 0.7 + 0.2, 0.3
    p = jnp.array([0.0, 30.0, 39.0, 41.0, 80.0])
    printed = [q, q * (1 + 30 / 9), np.inf, np.inf, included / 2 + q * (1 + 40 / 39)]
    risk = theory.feature_subset_risk(n, p, included=included, excluded=0.7, noise=0.2)
    np.testing.assert_allclose(risk, printed, rtol=1e-14)


# Ridge


def ridge_excess(x, y, beta, penalties):
    """Excess risks (len(penalties),) of ridge regression on isotropic fresh inputs."""
    n = len(x)
    u, s, vt = np.linalg.svd(x, full_matrices=False)
    filtered = s / (s**2 + n * np.asarray(penalties)[:, None]) * (u.T @ y)
    return np.sum((filtered @ vt - beta) ** 2, axis=1)


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
def test_optimal_ridge_risk_is_reached_and_is_least(gamma):
    n, signal, noise = 300, 1.0, 0.25
    p = int(gamma * n)
    best = float(theory.optimal_ridge_penalty(gamma, signal=signal, noise=noise))
    rng = np.random.default_rng(0)
    trials = []
    for _ in range(40):
        x = rng.standard_normal((n, p))
        beta = rng.standard_normal(p) * (signal / p) ** 0.5
        y = x @ beta + noise**0.5 * rng.standard_normal(n)
        trials.append(ridge_excess(x, y, beta, [best, best / 1.5, best * 1.5]))
    trials = np.array(trials)
    # Corrections to the limit are O(1 / n); the random |beta|^2 is inside the standard error.
    assert_mean(trials[:, 0], float(theory.optimal_ridge_risk(gamma, signal=signal, noise=noise)), bias=1 / n)
    for other in (1, 2):
        worse = trials[:, other] - trials[:, 0]
        assert worse.mean() > 3 * worse.std(ddof=1) / len(worse) ** 0.5


def test_optimal_ridge_risk_solves_its_equation():
    gamma = jnp.array([0.2, 0.9, 1.0, 1.5, 8.0])
    penalty = theory.optimal_ridge_penalty(gamma, signal=1.3, noise=0.4)
    m = theory.optimal_ridge_risk(gamma, signal=1.3, noise=0.4) / (0.4 * gamma)
    np.testing.assert_allclose(gamma * penalty * m**2 + (1 - gamma + penalty) * m, 1.0, rtol=1e-12)


def test_optimal_ridge_risk_at_the_edges():
    """No noise: minimum norm is optimal. No signal: predict zero. float32 loses nothing on the way."""
    gamma = jnp.array([0.5, 1.0, 3.0])
    np.testing.assert_allclose(
        theory.optimal_ridge_risk(gamma, signal=2.0, noise=0.0), [0, 0, 4 / 3], rtol=1e-12, atol=1e-15
    )
    np.testing.assert_array_equal(theory.optimal_ridge_risk(gamma, signal=0.0, noise=1.0), 0)
    noise = 10.0 ** -np.arange(0, 12)
    for ratio in (0.5, 1.0, 2.0):
        exact = theory.optimal_ridge_risk(ratio, signal=1.0, noise=noise)
        with jax.enable_x64(False):
            single = theory.optimal_ridge_risk(ratio, signal=1.0, noise=jnp.float32(noise))
        np.testing.assert_allclose(single, exact, rtol=2e-6)


# Gradient flow


@pytest.mark.parametrize(("n", "p"), [(30, 12), (15, 25)])
def test_gradient_flow_risk_is_the_mean_over_noise_and_truths(n, p):
    signal, noise, trials = 1.5, 0.4, 20_000
    rng = np.random.default_rng(n)
    x = rng.standard_normal((n, p))
    times = np.array([0.3, 2.0, 30.0])
    beta = rng.standard_normal((p, trials)) * (signal / p) ** 0.5
    y = x @ beta + noise**0.5 * rng.standard_normal((n, trials))
    limit = np.linalg.pinv(x) @ y
    eigenvalues = np.linalg.eigvalsh(x.T @ x / n)
    expected = theory.gradient_flow_risk(eigenvalues, times, n=n, signal=signal, noise=noise)
    for time, risk in zip(times, expected, strict=True):
        left = scipy.linalg.expm(-time * x.T @ x / n)
        assert_mean(np.sum((limit - left @ limit - beta) ** 2, axis=0), float(risk))


def test_gradient_flow_risk_from_start_to_end():
    n, p = 15, 25
    x = np.random.default_rng(0).standard_normal((n, p))
    eigenvalues = np.linalg.eigvalsh(x.T @ x / n)
    start, end = theory.gradient_flow_risk(eigenvalues, jnp.array([0.0, jnp.inf]), n=n, signal=1.5, noise=0.4)
    assert start == 1.5
    min_norm = 1.5 * (1 - n / p) + 0.4 * np.sum(np.linalg.pinv(x) ** 2)
    np.testing.assert_allclose(end, min_norm, rtol=1e-12)


# Random features


def mei_montanari(psi1, psi2, linear, noise, nonlinear):
    """Theorem 4 of Mei and Montanari (2019) term by term, in NumPy."""
    z2 = np.pi / (np.pi - 2)
    z4, z6 = z2**2, z2**3
    psi = min(psi1, psi2)
    a = psi * z2 - z2 - 1
    c = -(np.sqrt(a**2 + 4 * z2 * psi) + a) / (2 * z2)
    e0 = -(c**5) * z6 + 3 * c**4 * z4 + (psi1 * psi2 - psi2 - psi1 + 1) * c**3 * z6 - 2 * c**3 * z4
    e0 += -3 * c**3 * z2 + (psi1 + psi2 - 3 * psi1 * psi2 + 1) * c**2 * z4 + 2 * c**2 * z2 + c**2
    e0 += 3 * psi1 * psi2 * c * z2 - psi1 * psi2
    e1 = psi2 * c**3 * z4 - psi2 * c**2 * z2 + psi1 * psi2 * c * z2 - psi1 * psi2
    e2 = c**5 * z6 - 3 * c**4 * z4 + (psi1 - 1) * c**3 * z6 + 2 * c**3 * z4 + 3 * c**3 * z2
    e2 += -(psi1 + 1) * c**2 * z4 - 2 * c**2 * z2 - c**2
    return linear * e1 / e0 + (noise + nonlinear) * e2 / e0 + nonlinear


@pytest.mark.parametrize(("width", "risk"), [(280, 5.85), (320, 6.03), (600, 0.503), (3000, 0.152)])
def test_random_features_risk_at_published_points(width, risk):
    measured = theory.random_features_risk(width / 100, 3.0, linear_signal=1.0, noise=0.25)
    np.testing.assert_allclose(measured, risk, rtol=2e-3)


def test_random_features_risk_is_the_published_polynomials():
    rng = np.random.default_rng(0)
    for _ in range(200):
        psi1, psi2 = 10 ** rng.uniform(-1, 1, 2)
        linear, noise, nonlinear = rng.uniform(0, 2, 3)
        risk = theory.random_features_risk(psi1, psi2, linear_signal=linear, noise=noise, nonlinear_signal=nonlinear)
        np.testing.assert_allclose(risk, mei_montanari(psi1, psi2, linear, noise, nonlinear), rtol=1e-7)


@pytest.mark.parametrize(("width", "bias"), [(150, 0.01), (240, 0.01), (600, 0.03), (2000, 0.07)])
def test_random_features_risk_is_the_mean_over_simulations(width, bias):
    """Corrections to the limit fall as 1 / d: .27, .14, .055, .030 at d = 25, 50, 100, 200 and width 20 d."""
    d, n, noise = 100, 300, 0.25
    rng = np.random.default_rng(width)
    excess = []
    for _ in range(40):
        x, t, fresh = sphere(rng, (n, d)), sphere(rng, (width, d)), sphere(rng, (1000, d))
        beta = rng.standard_normal(d)
        beta /= np.linalg.norm(beta)
        y = x @ beta + noise**0.5 * rng.standard_normal(n)
        phi, phi_fresh = (np.maximum(v @ t.T / d**0.5, 0) for v in (x, fresh))
        fit = scipy.linalg.lstsq(phi, y, lapack_driver="gelsy")[0]
        excess.append(np.mean((phi_fresh @ fit - fresh @ beta) ** 2))
    expected = theory.random_features_risk(width / d, n / d, linear_signal=1.0, noise=noise)
    assert_mean(np.array(excess), float(expected), bias=bias)


def test_random_features_risk_keeps_float32_accuracy():
    """Against float64 at the same float32 arguments."""
    psi1 = np.geomspace(0.01, 100, 801).astype(np.float32)[:, None]
    psi2 = np.array([0.1, 1, 3, 10, 100], np.float32)[None, :]
    exact = theory.random_features_risk(psi1.astype(np.float64), psi2.astype(np.float64), linear_signal=1.0, noise=0.25)
    with jax.enable_x64(False):
        single = theory.random_features_risk(psi1, psi2, linear_signal=1.0, noise=0.25)
    assert single.dtype == jnp.float32
    np.testing.assert_allclose(single, exact, rtol=1e-6)


def test_random_features_risk_at_its_limits():
    assert np.isinf(theory.random_features_risk(2.0, 2.0, linear_signal=1.0, noise=0.0))
    kernel = theory.random_features_risk(jnp.inf, 3.0, linear_signal=1.0, noise=0.25)
    wide = theory.random_features_risk(1e9, 3.0, linear_signal=1.0, noise=0.25)
    np.testing.assert_allclose(kernel, wide, rtol=1e-7)
    few = theory.random_features_risk(1e-9, 3.0, linear_signal=1.0, noise=0.25)
    np.testing.assert_allclose(few, 1.0, rtol=1e-6)


# All of them

FORMS = [
    lambda v: theory.ridgeless_risk(20, 20 * v, signal=1.0, noise=0.3),
    lambda v: theory.ridgeless_risk_limit(v, signal=1.0, noise=0.3),
    lambda v: theory.feature_subset_risk(20, 20 * v, included=0.5, excluded=0.5, noise=0.3),
    lambda v: theory.optimal_ridge_penalty(v, signal=1.0, noise=0.3),
    lambda v: theory.optimal_ridge_risk(v, signal=1.0, noise=0.3),
    lambda v: theory.gradient_flow_risk(jnp.array([0.0, 1.0, 2.0]), v, n=2, signal=1.0, noise=0.3),
    lambda v: theory.random_features_risk(v, 1.0, linear_signal=1.0, noise=0.3),
]


@pytest.mark.parametrize("form", FORMS)
def test_every_form_broadcasts_and_is_differentiable(form):
    v = jnp.array([0.0, 0.3, 0.7, 1.4, 3.0])
    compiled = jax.jit(form)
    values = jnp.stack([compiled(one) for one in v])
    assert np.all(np.isfinite(values))
    assert np.all(values >= 0)
    np.testing.assert_allclose(compiled(v), values, rtol=1e-12)
    np.testing.assert_allclose(jax.jit(jax.vmap(form))(v), values, rtol=1e-12)
    np.testing.assert_allclose(compiled(v[:, None])[:, 0], values, rtol=1e-12)
    step = 1e-6
    slope = (compiled(v + step) - compiled(v - step)) / (2 * step)
    grad = jax.jit(jax.vmap(jax.grad(form)))(v)
    assert np.all(np.isfinite(grad))
    np.testing.assert_allclose(grad[1:], slope[1:], rtol=1e-5)
