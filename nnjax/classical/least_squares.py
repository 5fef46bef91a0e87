"""Minimum-norm least squares, ridge paths and gradient flow from one symmetric eigendecomposition.

With features X (n, p) and the Gram matrix K = X X' = U diag(s) U', each of these solutions is
b = X' U f(s) U' y for a filter f of the spectrum, so that once K is decomposed every penalty, stopping time
and target column costs one matrix product:

    minimum norm    f(s) = 1 / s
    ridge           f(s) = 1 / (s + n penalty)             of (1/n) |y - X b|^2 + penalty |b|^2
    gradient flow   f(s) = (1 - exp(-s t / n)) / s         on (1/2n) |y - X b|^2 from b = 0

and f(s) = 0 where s is null. A Gram matrix squares the condition number: singular values of X below
sqrt(n eps) = 3e-7 (float64, n = 500) of the largest count as zero. float32 moves that line to 8e-3, which is
enough to erase the peak of double descent.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from nnjax.types import Array, floating


class Spectrum(NamedTuple):
    """A decomposed Gram matrix K = vectors diag(eigenvalues) vectors'.

    Attributes:
        eigenvalues: (n,) ascending; those at or below `cutoff` are exactly zero.
        vectors: (n, n), a column an eigenvector.
        cutoff: () the largest eigenvalue that counts as zero.
        rank: () int, the number of eigenvalues kept.
        condition: () largest over smallest eigenvalue kept.
    """

    eigenvalues: Array
    vectors: Array
    cutoff: Array
    rank: Array
    condition: Array


def decompose(gram: ArrayLike, *, cutoff: ArrayLike | None = None) -> Spectrum:
    """Eigendecomposition of a positive semi-definite matrix, with its numerical rank.

    Args:
        gram: (n, n) symmetric, such as X X' or X'X.
        cutoff: eigenvalues up to it count as zero, in units of `gram`; by default eps(dtype) n times the
            largest. Raise it to regularize by truncation.

    Returns:
        The `Spectrum`.

    Raises:
        ValueError: if `gram` is not a square matrix.
    """
    gram = floating(gram)
    if gram.ndim != 2 or gram.shape[0] != gram.shape[1]:
        raise ValueError(f"expected a square matrix, got shape {gram.shape}")
    values, vectors = jnp.linalg.eigh(gram)
    if cutoff is None:
        cutoff = jnp.finfo(values.dtype).eps * len(gram) * values[-1]
    cutoff = jnp.asarray(cutoff, values.dtype)
    kept = ~((values <= cutoff) | (values <= 0))  # so that NaN is kept, and seen in every solution
    smallest = jnp.min(jnp.where(kept, values, jnp.inf))
    condition = jnp.where(kept.any(), values[-1] / smallest, jnp.nan)
    return Spectrum(jnp.where(kept, values, 0), vectors, cutoff, jnp.sum(kept), condition)


def dual_coefficients(spectrum: Spectrum, targets: ArrayLike, ridge: ArrayLike = 0.0) -> Array:
    """Coefficients a of the kernel form: predictions are K(test, train) @ a, weights are X' a.

        a = U diag(1 / (s + n ridge)) U' targets,   null directions left out.

    Args:
        spectrum: of the (n, n) Gram matrix K = X X' of the training examples.
        targets: (n, k).
        ridge: penalty in (1/n) |y - X b|^2 + ridge |b|^2; any shape, 0 is minimum norm.

    Returns:
        (*ridge.shape, n, k).
    """
    return _apply(spectrum, _ridge_filter(ridge, len(spectrum.eigenvalues)), jnp.asarray(targets))


def min_norm(x: ArrayLike, y: ArrayLike, *, cutoff: ArrayLike | None = None) -> Array:
    """Minimum-norm least squares: of all b that minimize |y - X b|, the shortest.

    Args:
        x: (n, p), either orientation; the smaller of X X' and X'X is decomposed.
        y: (n,) or (n, k).
        cutoff: as in `decompose`.

    Returns:
        (p,) or (p, k).
    """
    return ridge(x, y, 0.0, cutoff=cutoff)


def ridge(x: ArrayLike, y: ArrayLike, penalty: ArrayLike, *, cutoff: ArrayLike | None = None) -> Array:
    """Minimizer of (1/n) |y - X b|^2 + penalty |b|^2, for a whole array of penalties at once.

    Scikit-learn's `Ridge(alpha, fit_intercept=False)` has alpha = n penalty.

    Args:
        x: (n, p), either orientation; the smaller of X X' and X'X is decomposed.
        y: (n,) or (n, k).
        penalty: any shape; 0 is minimum norm.
        cutoff: as in `decompose`.

    Returns:
        (*penalty.shape, p) or (*penalty.shape, p, k).
    """
    return _solve(x, y, _ridge_filter(penalty, jnp.shape(x)[0]), cutoff)


def equilibrated(x: ArrayLike, y: ArrayLike, penalty: ArrayLike = 0.0) -> Array:
    """The minimizer of `ridge` for columns of very different units, as raw measurements have them, in float32 too.

    For n > p the matrix of the normal equations is brought to a diagonal of ones first, so that no direction falls
    below the cutoff for its units alone; and with a penalty, which leaves no null directions, there is no cutoff. Where
    the minimizer is not unique it is the shortest for n <= p; for n > p, the shortest in units of each column's norm.

    Args:
        x: (n, p), either orientation.
        y: (n, k).
        penalty: scalar, may be traced.

    Returns:
        (p, k).
    """
    x, y = floating(x), floating(y)
    wide = x.shape[0] <= x.shape[1]
    gram = _matmul(x, x.T) if wide else _matmul(x.T, x)
    shift = x.shape[0] * jnp.asarray(penalty, gram.dtype)
    gram = gram + shift * jnp.eye(len(gram), dtype=gram.dtype)
    # Rows must keep their lengths: where they contradict one another, scaling would weigh their errors.
    length = jnp.ones(len(gram), gram.dtype) if wide else jnp.sqrt(jnp.diagonal(gram))
    length = jnp.where(length == 0, 1, length)[:, None]
    scaled = gram / (length * length.T)
    # The Frobenius norm is at least the largest eigenvalue and at most sqrt(rank) times it.
    cutoff = jnp.where(shift > 0, 0, jnp.finfo(gram.dtype).eps * len(gram) * jnp.linalg.norm(scaled))
    spectrum = decompose(scaled, cutoff=cutoff)
    columns = y if wide else _matmul(x.T, y)
    solution = _apply(spectrum, lambda s: 1 / s, columns / length) / length
    return _matmul(x.T, solution) if wide else solution


def gradient_flow(x: ArrayLike, y: ArrayLike, times: ArrayLike, *, cutoff: ArrayLike | None = None) -> Array:
    """Solution at each time of db/dt = X'(y - X b) / n, b(0) = 0: gradient flow on (1/2n) |y - X b|^2.

    One step of gradient descent at learning rate h advances time by h, up to O(h). Time `inf` is minimum
    norm.

    Args:
        x: (n, p), either orientation; the smaller of X X' and X'X is decomposed.
        y: (n,) or (n, k).
        times: any shape, >= 0.
        cutoff: as in `decompose`.

    Returns:
        (*times.shape, p) or (*times.shape, p, k).
    """
    rate = jnp.asarray(times)[..., None] / jnp.shape(x)[0]

    def gains(s: Array) -> Array:
        s = _leading(s, rate.ndim)
        return -jnp.expm1(-s * rate.astype(s.dtype)) / s

    return _solve(x, y, gains, cutoff)


Filter = Callable[[Array], Array]
"""From positive eigenvalues (n,) to gains (..., n)."""


def _ridge_filter(penalty: ArrayLike, n: int) -> Filter:
    shift = n * jnp.asarray(penalty)[..., None]
    return lambda s: 1 / (_leading(s, shift.ndim) + shift.astype(s.dtype))


def _leading(s: Array, ndim: int) -> Array:
    return s.reshape((1,) * (ndim - 1) + s.shape)


def _solve(x: ArrayLike, y: ArrayLike, gains: Filter, cutoff: ArrayLike | None) -> Array:
    """Weights X' U f(s) U' y, or the same as V f(s) V' X'y where p < n."""
    x, y = floating(x), floating(y)
    columns = y[:, None] if y.ndim == 1 else y
    n, p = x.shape
    if n <= p:
        dual = _apply(decompose(_matmul(x, x.T), cutoff=cutoff), gains, columns)
        weights = jnp.einsum("np,...nk->...pk", x, dual, precision="highest")
    else:
        weights = _apply(decompose(_matmul(x.T, x), cutoff=cutoff), gains, _matmul(x.T, columns))
    return weights[..., 0] if y.ndim == 1 else weights


def _apply(spectrum: Spectrum, gains: Filter, columns: Array) -> jax.Array:
    """U f(s) U' columns, with f = 0 on null directions: (..., n, k)."""
    s = spectrum.eigenvalues
    f = gains(jnp.where(s == 0, 1, s))
    f = jnp.where(_leading(s, f.ndim) == 0, 0, f)
    projected = _matmul(spectrum.vectors.T, columns)
    filtered = jnp.einsum("...j,jk->...jk", f, projected)
    return jnp.einsum("ij,...jk->...ik", spectrum.vectors, filtered, precision="highest")


def _matmul(a: Array, b: Array) -> jax.Array:
    """Full precision also where float32 products are rounded to TF32 by default."""
    return jnp.matmul(a, b, precision="highest")
