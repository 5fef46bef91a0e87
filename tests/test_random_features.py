"""Least squares from a Gram matrix against NumPy and scikit-learn, and random features at every width."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from sklearn.datasets import load_digits
from sklearn.linear_model import Ridge
from threadpoolctl import threadpool_limits

from nnjax.classical import least_squares, random_features
from nnjax.classical.random_features import width_path


@pytest.fixture(autouse=True)
def _float64_and_one_blas_thread():
    """More threads than free cores make a decomposition up to sixty times slower."""
    with jax.enable_x64(True), threadpool_limits(1, user_api="blas"):
        yield


def problem(n, p, k=3, rank=None, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, p))
    if rank is not None:
        x = rng.standard_normal((n, rank)) @ rng.standard_normal((rank, p))
    return x, rng.standard_normal((n, k))


# Least squares


@pytest.mark.parametrize(("n", "p", "rank"), [(20, 8, None), (8, 20, None), (20, 8, 5), (8, 20, 5)])
def test_min_norm_is_numpys_lstsq(n, p, rank):
    x, y = problem(n, p, rank=rank)
    expected = np.linalg.lstsq(x, y, rcond=1e-10)[0]
    np.testing.assert_allclose(least_squares.min_norm(x, y), expected, atol=1e-10)
    np.testing.assert_allclose(least_squares.min_norm(x, y[:, 0]), expected[:, 0], atol=1e-10)


@pytest.mark.parametrize(("n", "p"), [(20, 8), (8, 20)])
def test_ridge_is_scikit_learns(n, p):
    x, y = problem(n, p)
    penalties = np.array([[1e-3, 0.1], [1.0, 10.0]])
    weights = least_squares.ridge(x, y, penalties)
    assert weights.shape == (2, 2, p, 3)
    for index, penalty in np.ndenumerate(penalties):
        oracle = Ridge(alpha=n * penalty, fit_intercept=False, solver="cholesky").fit(x, y)
        np.testing.assert_allclose(weights[index], oracle.coef_.T, rtol=1e-7, atol=1e-10)
    assert least_squares.ridge(x, y[:, 0], penalties).shape == (2, 2, p)


@pytest.mark.parametrize(("n", "p"), [(20, 8), (8, 20)])
def test_gradient_flow_solves_its_differential_equation(n, p):
    x, y = problem(n, p)
    times = jnp.array([0.0, 0.1, 2.0, jnp.inf])
    path = least_squares.gradient_flow(x, y, times)
    limit = np.linalg.pinv(x) @ y
    for b, t in zip(path[:3], times[:3], strict=True):
        np.testing.assert_allclose(b, limit - scipy.linalg.expm(-float(t) * x.T @ x / n) @ limit, atol=1e-10)
    np.testing.assert_allclose(path[3], limit, atol=1e-10)
    steps, rate = 20_000, 1e-4
    b = jax.lax.fori_loop(0, steps, lambda _, b: b + rate * x.T @ (y - x @ b) / n, jnp.zeros((p, 3)))
    np.testing.assert_allclose(b, path[2], atol=2e-4)


def test_dual_coefficients_predict_as_the_weights_do():
    x, y = problem(12, 30)
    fresh = np.random.default_rng(1).standard_normal((5, 30))
    spectrum = least_squares.decompose(x @ x.T)
    penalties = jnp.array([0.0, 0.1])
    dual = least_squares.dual_coefficients(spectrum, y, penalties)
    assert dual.shape == (2, 12, 3)
    expected = jnp.einsum("mp,rpk->rmk", fresh, least_squares.ridge(x, y, penalties))
    np.testing.assert_allclose(jnp.einsum("mn,rnk->rmk", fresh @ x.T, dual), expected, atol=1e-10)
    np.testing.assert_allclose(least_squares.dual_coefficients(spectrum, y), dual[0])


def test_spectrum_reports_rank_condition_and_cutoff():
    x, y = problem(12, 30, rank=5)
    singular = np.linalg.svd(x, compute_uv=False)
    spectrum = least_squares.decompose(x @ x.T)
    assert spectrum.rank == 5
    np.testing.assert_allclose(spectrum.condition, (singular[0] / singular[4]) ** 2, rtol=1e-8)
    np.testing.assert_allclose(spectrum.cutoff, 12 * np.finfo(float).eps * singular[0] ** 2, rtol=1e-10)
    assert np.sum(spectrum.eigenvalues == 0) == 7
    truncated = least_squares.decompose(x @ x.T, cutoff=(singular[2] ** 2 + singular[1] ** 2) / 2)
    assert truncated.rank == 2
    weights = x.T @ least_squares.dual_coefficients(truncated, y)
    np.testing.assert_allclose(
        weights, np.linalg.pinv(x, rcond=np.sqrt(singular[1] * singular[2]) / singular[0]) @ y, atol=1e-10
    )


def test_degenerate_inputs_are_zero_or_nan_never_hidden():
    spectrum = least_squares.decompose(jnp.zeros((3, 3)))
    assert spectrum.rank == 0
    assert np.isnan(spectrum.condition)
    np.testing.assert_array_equal(least_squares.dual_coefficients(spectrum, np.ones((3, 1))), 0)
    x, y = problem(8, 20)
    assert np.all(np.isnan(least_squares.min_norm(x * np.nan, y)))
    with pytest.raises(ValueError, match="square"):
        least_squares.decompose(jnp.zeros((3, 4)))


def test_solvers_follow_the_dtype_of_the_data():
    x, y = problem(8, 20)
    x, y = x.astype(np.float32), y.astype(np.float32)
    times = np.array([1.0, 2.0])
    for solution in (
        least_squares.min_norm(x, y),
        least_squares.ridge(x, y, times),
        least_squares.gradient_flow(x, y, times),
    ):
        assert solution.dtype == jnp.float32


# Features


@pytest.mark.parametrize("kind", random_features.KINDS)
def test_narrow_draws_are_prefixes_of_wide_ones(kind):
    key = jax.random.key(3)
    wide, narrow = random_features.weights(key, 40, 5, kind), random_features.weights(key, 13, 5, kind)
    jax.tree.map(lambda w, v: np.testing.assert_allclose(w[:13], v, rtol=1e-14), wide, narrow)
    x = np.random.default_rng(0).standard_normal((7, 5))
    np.testing.assert_allclose(
        random_features.features(x, wide, kind)[:, :13],
        random_features.features(x, narrow, kind),
        rtol=1e-12,
        atol=1e-14,
    )


def test_relu_features_by_hand():
    w = random_features.weights(jax.random.key(0), 50, 9, "relu")
    np.testing.assert_allclose(jnp.linalg.norm(w.directions, axis=1), 3.0)
    x = np.random.default_rng(0).standard_normal((7, 9))
    expected = np.maximum(x @ np.asarray(w.directions).T / 3, 0)
    np.testing.assert_allclose(random_features.features(x, w, "relu"), expected)


def test_fourier_features_tend_to_the_gaussian_kernel():
    x = np.random.default_rng(0).standard_normal((6, 4))
    w = random_features.weights(jax.random.key(0), 40_000, 4, "fourier")
    assert 0 <= w.phases.min() < 0.01 < 6.27 < w.phases.max() < 2 * np.pi
    phi = np.asarray(random_features.features(x, w, "fourier", bandwidth=1.7))
    squared = np.sum((x[:, None] - x[None]) ** 2, axis=-1)
    kernel = np.exp(-squared / (2 * 1.7**2))
    # The variance of 2 cos(a) cos(b) is at most 3/2: six standard errors.
    np.testing.assert_allclose(phi @ phi.T / 40_000, kernel, atol=6 * (1.5 / 40_000) ** 0.5)


# The path over widths

WIDTHS = (3, 8, 20, 21, 50)
RIDGES = (0.0, 0.01, 1.0)


def small(kind="relu", n=20, d=6, k=2):
    rng = np.random.default_rng(5)
    x, y, fresh = rng.standard_normal((n, d)), rng.standard_normal((n, k)), rng.standard_normal((9, d))
    evals = {"train": x, "test": fresh}
    return x, y, evals, {"kind": kind, "bandwidth": 2.0, "ridges": RIDGES}


@pytest.mark.parametrize("kind", random_features.KINDS)
def test_width_path_is_one_fit_per_width(kind):
    key = jax.random.key(1)
    x, y, evals, options = small(kind)
    path = width_path(key, WIDTHS, x, y, evals, **options)
    assert path["predictions"]["test"].shape == (5, 3, 9, 2)
    assert path["rank"].tolist() == [3, 8, 20, 20, 20]
    w = random_features.weights(key, WIDTHS[-1], 6, kind)
    wide = [np.asarray(random_features.features(v, w, kind, bandwidth=2.0)) for v in (x, *evals.values())]
    for i, p in enumerate(WIDTHS):
        phi, *others = (v[:, :p] / p**0.5 for v in wide)
        for name, other in zip(evals, others, strict=True):
            predicted = path["predictions"][name][i]
            oracle = other @ np.linalg.lstsq(phi, y, rcond=None)[0]
            np.testing.assert_allclose(predicted[0], oracle, rtol=1e-5, atol=1e-5)
            for j in (1, 2):
                fit = Ridge(alpha=20 * RIDGES[j], fit_intercept=False).fit(phi, y)
                np.testing.assert_allclose(predicted[j], fit.predict(other), rtol=1e-8, atol=1e-9)
        singular = np.linalg.svd(phi, compute_uv=False)[: min(p, 20)]
        np.testing.assert_allclose(path["condition"][i], (singular[0] / singular[-1]) ** 2, rtol=1e-4)


def test_width_path_does_not_depend_on_the_block():
    x, y, evals, options = small()
    key = jax.random.key(1)
    reference = width_path(key, WIDTHS, x, y, evals, **options)["predictions"]["test"]
    for block in (7, 64):
        other = width_path(key, WIDTHS, x, y, evals, **options, block=block)["predictions"]["test"]
        np.testing.assert_allclose(other, reference, rtol=1e-6, atol=1e-6)


def squared_errors(predictions, context):
    return {"mse": jnp.mean((predictions["test"] - context[None]) ** 2, axis=(1, 2))}


def test_width_path_keeps_only_what_evaluate_returns():
    x, y, evals, options = small()
    truth = np.random.default_rng(2).standard_normal((9, 2))
    key = jax.random.key(1)
    predictions = width_path(key, WIDTHS, x, y, evals, **options)["predictions"]["test"]
    path = width_path(key, WIDTHS, x, y, evals, **options, evaluate=squared_errors, context=truth)
    assert set(path) == {"evaluation", "rank", "condition", "cutoff"}
    expected = np.mean((np.asarray(predictions) - truth) ** 2, axis=(2, 3))
    np.testing.assert_allclose(path["evaluation"]["mse"], expected, rtol=1e-8)


def test_width_path_maps_over_keys_and_compiles_once():
    x, y, evals, options = small()
    keys = jax.random.split(jax.random.key(0), 3)

    def run(key, targets=y, bandwidth=1.0):
        path = width_path(key, WIDTHS, x, targets, evals, **options | {"bandwidth": bandwidth})
        return path["predictions"]["test"]

    singly = jnp.stack([run(key) for key in keys])
    assert not np.allclose(singly[0], singly[1])
    for mapped in (jax.lax.map(run, keys), jax.jit(jax.vmap(run))(keys)):
        np.testing.assert_allclose(mapped, singly, rtol=1e-6, atol=1e-6)
    compiled = random_features._width_path._cache_size()
    run(jax.random.key(9), targets=2 * y, bandwidth=3.0)
    assert random_features._width_path._cache_size() == compiled


def test_width_path_refuses_what_it_cannot_do():
    x, y, evals, _ = small()
    key = jax.random.key(0)
    with pytest.raises(ValueError, match="float32 Gram matrices silently erase the peak"):
        width_path(key, WIDTHS, x.astype(np.float32), y, {"test": evals["test"].astype(np.float32)})
    with pytest.raises(ValueError, match="float64"):
        width_path(key, WIDTHS, x, y, {"test": evals["test"].astype(np.float32)}, allow_float32=True)
    with pytest.raises(ValueError, match="increasing"):
        width_path(key, (3, 3), x, y, evals)
    with pytest.raises(ValueError, match="increasing"):
        width_path(key, (0, 3), x, y, evals)
    with pytest.raises(ValueError, match="relu, fourier"):
        width_path(key, WIDTHS, x, y, evals, kind="sigmoid")
    with pytest.raises(ValueError, match=r"\(n, k\)"):
        width_path(key, WIDTHS, x, y[:, 0], evals)
    with pytest.raises(ValueError, match="x_evals"):
        width_path(key, WIDTHS, x, y, {"test": evals["test"][:, :2]})
    with pytest.raises(ValueError, match="block"):
        width_path(key, WIDTHS, x, y, evals, block=0)
    with jax.enable_x64(False), pytest.raises(ValueError, match="needs float64 inputs, got float32"):
        width_path(key, WIDTHS, x, y, evals)
    with pytest.raises(ValueError, match="empty"):
        width_path(key, WIDTHS, x, y, {})


def test_blocks_waste_little_work():
    fine = tuple(range(15, 601, 15))
    for widths in (fine, (*fine, 700, 1000, 2000, 6000), (300,), (1, 2, 100_000), (7, 11, 13)):
        block = random_features._best_block(widths)
        assert 1 <= block <= 1024
        drawn = sum(-(-gap // block) * block for gap in np.diff((0, *widths)))
        assert drawn <= 2.5 * widths[-1]


# Double descent on the digits

N = 300


def digits(seed, noise=0.2):
    """Centered pixels; a share `noise` of the N training labels is redrawn uniformly from all ten."""
    x, labels = load_digits(return_X_y=True)
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(x))
    x, labels = x[order] / 16, labels[order]
    x -= x[:N].mean(axis=0)
    noisy = np.where(rng.random(N) < noise, rng.integers(0, 10, N), labels[:N])
    one_hot = np.eye(10)
    return (x[:N], one_hot[noisy], {"test": x[N:]}), (one_hot[labels[N:]], labels[N:])


def test_errors(predictions, context):
    targets, labels = context
    predicted = predictions["test"]
    error = jnp.mean(predicted.argmax(axis=-1) != labels[None], axis=-1)
    return {"mse": jnp.mean((predicted - targets[None]) ** 2, axis=(1, 2)), "error": error}


test_errors.__test__ = False


def descent(widths, seeds, dtype=np.float64, **options):
    """Mean squared errors and error rates on the test digits, (seeds, widths) each."""
    runs = []
    for seed in range(seeds):
        data, context = jax.tree.map(lambda v: v.astype(dtype) if v.dtype == np.float64 else v, digits(seed))
        path = width_path(jax.random.key(seed), widths, *data, evaluate=test_errors, context=context, **options)
        runs.append(jax.tree.map(lambda v: np.asarray(v[:, 0]), path["evaluation"]))
    return tuple(np.stack([run[name] for run in runs]) for name in ("mse", "error"))


def test_float64_keeps_the_peak_that_float32_erases():
    """Over ten seeds the peak was 69 to 3900 times width 2n's error in float64, 1.1 to 1.4 in float32."""
    widths = (60, N, 2 * N)
    mse, _ = descent(widths, 3)
    assert np.all(mse[:, 1] > 20 * mse[:, 2])
    assert np.all(mse[:, 1] > 20 * mse[:, 0])
    lost, _ = descent(widths, 3, np.float32, allow_float32=True)
    assert np.all(lost[:, 1] < 2 * lost[:, 2])
    np.testing.assert_allclose(lost[:, [0, 2]], mse[:, [0, 2]], rtol=0.25)


@pytest.mark.parametrize("kind", random_features.KINDS)
def test_test_error_peaks_where_features_equal_examples(kind):
    """Error rates over ten seeds at p = 60, 300, 600 and 5000, with standard errors of .004 to .013:
    ReLU features .165 .860 .302 .201, best when narrow; Fourier features .235 .883 .293 .172, best when wide.
    """
    widths = (60, *range(N // 20 * 16, N // 20 * 25, N // 20), 2 * N, 5000)
    mse, error = descent(widths, 3, kind=kind, bandwidth=1.5)
    at = widths.index(N)
    assert np.all(mse.argmax(axis=1) == at)
    assert np.all(mse[:, at] > 20 * mse[:, -2])
    error = error.mean(axis=0)
    assert error.argmax() == at
    narrow, wide = {"relu": (0.165, 0.201), "fourier": (0.235, 0.172)}[kind]
    np.testing.assert_allclose(error[[0, at, -1]], [narrow, 0.87, wide], atol=0.05)
