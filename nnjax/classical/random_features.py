"""Random-features regression at every width from one pass over the features.

A fixed random first layer and a least-squares second layer is the simplest model with double descent: the
test error peaks where the number of features equals the number of examples. Features are nested, the first p
of a larger draw being the draw of width p, so that the Gram matrices of all widths are partial sums:
`width_path` adds blocks of features and stops at each width for one n x n eigendecomposition, which serves
all penalties and target columns.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from nnjax.classical import least_squares
from nnjax.types import Array, Key, PyTree

KINDS = ("relu", "fourier")

Evaluate = Callable[[dict[str, jax.Array], PyTree], PyTree]
"""From one width's predictions {name: (ridges, m, k)} and the context to what shall be kept of them."""


class Weights(NamedTuple):
    """A random first layer: `directions` (p, d) and `phases` (p,), the latter unused by ReLU features."""

    directions: Array
    phases: Array


def weights(key: Key, width: int, d: int, kind: str = "relu", *, dtype: Any = float) -> Weights:
    """Draw the first layer. Feature i depends on `key` and i alone, so that smaller widths are prefixes.

    Args:
        key: random key.
        width: number of features p.
        d: input dimension.
        kind: "relu", directions uniform on the sphere of radius sqrt(d); or "fourier", directions N(0, I) and
            phases uniform on [0, 2 pi).
        dtype: floating dtype; by default JAX's current one.

    Raises:
        ValueError: if `kind` is unknown.
    """
    _check_kind(kind)
    return _rows(key, jnp.arange(width), d, kind, jnp.result_type(dtype))


def features(x: ArrayLike, w: Weights, kind: str = "relu", *, bandwidth: ArrayLike = 1.0) -> jax.Array:
    """Features of the inputs, unnormalized.

        relu:     relu(<x, t> / sqrt(d))                         (Mei & Montanari, 2019)
        fourier:  sqrt(2) cos(<x, omega> / bandwidth + phase)    (Rahimi & Recht, 2007)

    The mean over Fourier features of phi(x) phi(x') tends to exp(-|x - x'|^2 / (2 bandwidth^2)).

    Args:
        x: (m, d).
        w: weights of p features of this kind.
        kind: "relu" or "fourier".
        bandwidth: length scale in units of x, may be traced; ReLU features have none and ignore it.

    Returns:
        (m, p).

    Raises:
        ValueError: if `kind` is unknown.
    """
    _check_kind(kind)
    x = jnp.asarray(x)
    projected = jnp.matmul(x, w.directions.T, precision="highest")
    if kind == "relu":
        return jax.nn.relu(projected / x.shape[-1] ** 0.5)
    return 2**0.5 * jnp.cos(projected / bandwidth + w.phases[None, :])


def width_path(
    key: Key,
    widths: Sequence[int],
    x_train: ArrayLike,
    y_train: ArrayLike,
    x_evals: Mapping[str, ArrayLike],
    *,
    kind: str = "relu",
    ridges: ArrayLike | Sequence[float] = (0.0,),
    bandwidth: ArrayLike = 1.0,
    evaluate: Evaluate | None = None,
    context: PyTree = None,
    cutoff: ArrayLike | None = None,
    block: int | None = None,
    allow_float32: bool = False,
) -> dict[str, Any]:
    """Fit the second layer at every width by minimum norm or ridge, and predict.

    At width p the features are phi / sqrt(p), which makes K = phi phi' / p tend to a kernel, and one penalty
    mean the same at every width; the fit is the minimizer of (1/n) |y - phi b / sqrt(p)|^2 + ridge |b|^2, or
    at ridge 0 the shortest least-squares solution, which does not depend on that scale.

    Compiled once for given shapes, `widths`, `kind` and `evaluate`; new keys, targets, penalties, bandwidths
    and contexts reuse the program. Repeat over keys with `jax.lax.map`: on a CPU `jax.vmap` is no faster,
    since eigendecompositions run one by one, and takes the memory of all. Memory: (n + m) n for the Gram sums
    and (n + m) `block` for features, m over all of `x_evals`; never a full feature matrix. Derivatives are
    forward-mode only.

    Time: 60 widths of n = 300 take 0.5 to 0.7 s on one CPU core, and one width of n = 4000 takes 12 s. Where
    other work shares the cores, LAPACK's own threads (`OPENBLAS_NUM_THREADS`, by default one a core) wait for
    one another and make this up to sixty times slower: set them to 1.

    Example:
        >>> def error(predictions, labels):
        ...     return jnp.mean(predictions["test"].argmax(-1) != labels[None, :], axis=-1)
        >>> with jax.enable_x64(True):
        ...     path = width_path(key, (150, 300), x, y, {"test": x_test}, evaluate=error, context=labels)
        >>> path["evaluation"].shape
        (2, 1)

    Args:
        key: random key of the features.
        widths: strictly increasing numbers of features, any spacing.
        x_train: (n, d) float64.
        y_train: (n, k); noise levels, seeds of labels and so on are extra columns at next to no cost.
        x_evals: by name, (m, d) inputs to predict; list the training inputs here to get the training error.
        kind: "relu" or "fourier", see `features`.
        ridges: (r,) penalties; 0 is minimum norm.
        bandwidth: length scale of Fourier features.
        evaluate: `(predictions, context) -> pytree`, applied at each width to {name: (r, m, k)} in place of
            keeping the predictions. Pass one function object, not a fresh closure each time, lest it compile
            again.
        context: pytree of arrays for `evaluate`, such as the true labels.
        cutoff: eigenvalues of K up to it count as zero; by default n eps times the largest.
        block: features per block; by default the size of least work for these widths.
        allow_float32: let float32 pass. Its Gram matrices lose the small eigenvalues that make the peak.

    Returns:
        A dict with `rank` (len(widths),), `condition` (len(widths),) and `cutoff` (len(widths),) of each K,
        and either `predictions` {name: (len(widths), r, m, k)} or, where `evaluate` is given, `evaluation`:
        its results with a leading axis of len(widths).

    Raises:
        ValueError: if the inputs are not float64 (see `allow_float32`), `kind` is unknown, the widths do not
            increase, `block` is not positive, or shapes disagree.
    """
    _check_kind(kind)
    x, y = jnp.asarray(x_train), jnp.asarray(y_train)
    evals = {name: jnp.asarray(value) for name, value in x_evals.items()}
    _check_dtypes([x, *evals.values()], allow_float32)
    _check_shapes(x, y, evals)
    widths = tuple(int(p) for p in widths)
    if not widths or any(a >= b for a, b in pairwise((0, *widths))):
        raise ValueError(f"widths must be positive and strictly increasing, got {widths}")
    ridges = jnp.atleast_1d(jnp.asarray(ridges, x.dtype))
    if ridges.ndim != 1:
        raise ValueError(f"ridges must have shape (r,), got {ridges.shape}")
    block = _best_block(widths) if block is None else block
    if block < 1:
        raise ValueError(f"block must be at least 1, got {block}")
    bandwidth = jnp.asarray(bandwidth, x.dtype)
    return _width_path(
        key,
        x,
        y.astype(x.dtype),
        evals,
        ridges,
        bandwidth,
        cutoff,
        context,
        widths=widths,
        kind=kind,
        evaluate=evaluate,
        block=block,
    )


@partial(jax.jit, static_argnames=("widths", "kind", "evaluate", "block"))
def _width_path(
    key: Key,
    x: Array,
    y: Array,
    evals: dict[str, jax.Array],
    ridges: Array,
    bandwidth: Array,
    cutoff: Array | None,
    context: PyTree,
    *,
    widths: tuple[int, ...],
    kind: str,
    evaluate: Evaluate | None,
    block: int,
) -> dict[str, Any]:
    n, d = x.shape
    x_all = jnp.concatenate([x, *evals.values()])
    ends = np.cumsum([len(v) for v in evals.values()])[:-1]

    def add_block(gram: jax.Array, start: jax.Array, stop: jax.Array) -> jax.Array:
        index = start + jnp.arange(block)
        phi = features(x_all, _rows(key, index, d, kind, x.dtype), kind, bandwidth=bandwidth)
        phi = jnp.where(index[None, :] < stop, phi, 0)
        return gram + jnp.matmul(phi, phi[:n].T, precision="highest")

    def to_width(gram: jax.Array, segment: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, dict[str, Any]]:
        start, stop = segment
        blocks = (stop - start + block - 1) // block
        gram = jax.lax.fori_loop(0, blocks, lambda i, g: add_block(g, start + i * block, stop), gram)
        kernel = gram / stop
        spectrum = least_squares.decompose(kernel[:n], cutoff=cutoff)
        coefficients = least_squares.dual_coefficients(spectrum, y, ridges)
        stacked = jnp.einsum("mn,rnk->rmk", kernel[n:], coefficients, precision="highest")
        predictions = dict(zip(evals, jnp.split(stacked, ends, axis=1), strict=True))
        out = {"rank": spectrum.rank, "condition": spectrum.condition, "cutoff": spectrum.cutoff}
        if evaluate is None:
            return gram, {"predictions": predictions, **out}
        return gram, {"evaluation": evaluate(predictions, context), **out}

    segments = (jnp.array((0, *widths[:-1])), jnp.array(widths))
    return jax.lax.scan(to_width, jnp.zeros((len(x_all), n), x.dtype), segments)[1]


@partial(jax.jit, static_argnames=("d", "kind", "dtype"))
def _rows(key: Key, index: Array, d: int, kind: str, dtype: Any) -> Weights:
    """The weights of the features `index`, (b,), each from a key of its own."""

    def row(i: Array) -> Weights:
        direction_key, phase_key = jax.random.split(jax.random.fold_in(key, i))
        direction = jax.random.normal(direction_key, (d,), dtype)
        if kind == "relu":
            return Weights(direction * (d**0.5 / jnp.linalg.norm(direction)), jnp.zeros((), dtype))
        return Weights(direction, jax.random.uniform(phase_key, (), dtype, maxval=2 * np.pi))

    return jax.vmap(row)(index)


def _best_block(widths: tuple[int, ...], *, overhead: int = 32, largest: int = 1024) -> int:
    """Features per block of least work: each gap between widths is cut into whole blocks, the last padded.

    A block costs its features plus `overhead` features' worth of reading and writing the Gram sums.
    """
    gaps = np.diff(np.array((0, *widths)))
    sizes = np.unique(np.minimum(np.concatenate([gaps, -(-gaps // 2), [largest]]), min(largest, gaps.max())))
    work = [np.sum(-(-gaps // size)) * (size + overhead) for size in sizes]
    return int(sizes[np.argmin(work)])


def _check_kind(kind: str) -> None:
    if kind not in KINDS:
        raise ValueError(f"unknown kind of random features {kind!r}; choose from {', '.join(KINDS)}")


def _check_dtypes(inputs: Sequence[Array], allow_float32: bool) -> None:
    dtypes = {str(x.dtype) for x in inputs}
    if dtypes == {"float64"} or (allow_float32 and dtypes == {"float32"}):
        return
    raise ValueError(
        f"width_path needs float64 inputs, got {', '.join(sorted(dtypes))}: float32 Gram matrices silently "
        "erase the peak. Call it inside `with jax.enable_x64(True):` on float64 arrays, or pass "
        "allow_float32=True with float32 ones."
    )


def _check_shapes(x: Array, y: Array, evals: Mapping[str, Array]) -> None:
    if x.ndim != 2 or y.ndim != 2 or len(x) != len(y):
        raise ValueError(f"expected x_train (n, d) and y_train (n, k), got {x.shape} and {y.shape}")
    if not evals:
        raise ValueError("x_evals is empty: name at least one set of inputs to predict")
    for name, value in evals.items():
        if value.ndim != 2 or value.shape[1] != x.shape[1]:
            raise ValueError(f"x_evals[{name!r}] must have shape (m, {x.shape[1]}), got {value.shape}")
