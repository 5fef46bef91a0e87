"""Splitting examples into parts, scaling features, and one-hot labels."""

import difflib
from collections.abc import Sequence
from numbers import Integral, Real
from types import ModuleType
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nnjax.types import Array


class Split(NamedTuple):
    """Examples with their labels: `x` (n, ...) and `y` (n, ...)."""

    x: Array
    y: Array


def take(split: Split, indices: Array) -> Split:
    """The examples at `indices` (m,), in that order."""
    return Split(split.x[indices], split.y[indices])


def stratified_split(y: Array, parts: Sequence[int] | Sequence[float], *, seed: int) -> tuple[np.ndarray, ...]:
    """Disjoint parts of the examples, each with the class proportions of the whole.

    Part totals are exact. In every part the number of examples of a class is its proportional share rounded
    up or down, for any number of parts: a controlled rounding of the table of shares, found as a maximum flow
    (Causey, Cox and Ernst, 1985). scikit-learn's StratifiedShuffleSplit makes two parts only, and chaining it
    drifts.

    Args:
        y: (n,) class labels of any type.
        parts: sizes if integers, fractions of n if floats; what they leave over is in no part.
        seed: decides which examples go where and the order inside each part.

    Returns:
        One int64 index array a part, shuffled.

    Raises:
        ValueError: parts that are empty, mixed, or together more than there is.
    """
    labels = np.asarray(y)
    if labels.ndim != 1:
        raise ValueError(f"labels must have shape (n,), got {labels.shape}")
    sizes = _part_sizes(parts, labels.size)
    rng = np.random.default_rng(seed)
    _, codes = np.unique(labels, return_inverse=True)
    counts = np.bincount(codes)
    # In a drawn order of the classes, so that no class is always the one rounded up.
    order = rng.permutation(counts.size)
    rows = np.append(sizes, labels.size - sizes.sum())
    table = np.empty((rows.size, counts.size), np.int64)
    table[:, order] = _controlled_rounding(rows, counts[order])
    pieces: list[list[np.ndarray]] = [[] for _ in rows]
    for label in range(counts.size):
        members = rng.permutation(np.flatnonzero(codes == label))
        for part, piece in enumerate(np.split(members, np.cumsum(table[:-1, label]))):
            pieces[part].append(piece)
    return tuple(rng.permutation(np.concatenate(part)) for part in pieces[:-1])


def _part_sizes(parts: Sequence[int] | Sequence[float], n: int) -> np.ndarray:
    """Numbers of examples for sizes or fractions; cumulative fractions of n are rounded to the nearest."""
    if len(parts) == 0:
        raise ValueError("at least one part is needed")
    if all(isinstance(part, Integral) for part in parts):
        sizes = np.array(parts, np.int64)
        if sizes.sum() > n:
            raise ValueError(f"parts of {list(parts)} examples are more than the {n} there are")
    else:
        sizes = np.diff(np.rint(_fraction_bounds(parts) * n).astype(np.int64), prepend=0)
    if (sizes <= 0).any():
        raise ValueError(f"parts {list(parts)} of {n} examples: every part must hold at least one")
    return sizes


def _fraction_bounds(fractions: Sequence[float]) -> np.ndarray:
    """Cumulative fractions, the last exactly 1 where they add up to it but for rounding."""
    if not all(isinstance(part, Real) and not isinstance(part, Integral) for part in fractions):
        raise ValueError(f"parts must be all whole numbers or all fractions, got {list(fractions)}")
    bounds = np.cumsum(np.array(fractions, np.float64))
    if not all(part > 0 for part in fractions) or bounds[-1] > 1 + 1e-9:
        raise ValueError(f"fractions must be over 0 and add up to at most 1, got {list(fractions)}")
    if bounds[-1] > 1 - 1e-9:
        bounds[-1] = 1.0
    return bounds


def _controlled_rounding(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """A whole-number table with these row and column sums, each entry row * column / n rounded up or down.

    The fractions left after rounding down are a flow from rows to columns with every edge at most 1; whole
    capacities have a whole maximum flow, which tells the entries to round up.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import maximum_flow

    shares = rows[:, None] * columns[None, :]
    table, rests = np.divmod(shares, columns.sum())
    row, column = np.nonzero(rests)
    source, sink = rows.size + columns.size, rows.size + columns.size + 1
    starts = np.concatenate([np.full(rows.size, source), row, rows.size + np.arange(columns.size)])
    ends = np.concatenate([np.arange(rows.size), rows.size + column, np.full(columns.size, sink)])
    room = np.concatenate([rows - table.sum(axis=1), np.ones_like(row), columns - table.sum(axis=0)])
    edges = coo_array((room.astype(np.int32), (starts, ends)), shape=(sink + 1, sink + 1)).tocsr()
    flow = maximum_flow(edges, source, sink).flow.tocoo()
    up = (flow.data > 0) & (flow.row < rows.size) & (flow.col < source)
    table[flow.row[up], flow.col[up] - rows.size] += 1
    return table


def group_split(groups: Array, fractions: Sequence[float], *, seed: int) -> tuple[np.ndarray, ...]:
    """Disjoint parts of the examples with no group on two sides (patients, speakers, photographs of one day).

    Groups are put in a random order and cut where the number of examples comes nearest to the fraction, so
    each boundary is off by at most half a group.

    Args:
        groups: (n,) the group of each example, of any type.
        fractions: share of the examples for each part; what they leave over is in no part.
        seed: decides the order of the groups and that inside each part.

    Returns:
        One int64 index array a part, shuffled.

    Raises:
        ValueError: bad fractions, or too few groups to fill every part.
    """
    labels = np.asarray(groups)
    if labels.ndim != 1:
        raise ValueError(f"groups must have shape (n,), got {labels.shape}")
    if len(fractions) == 0:
        raise ValueError("at least one part is needed")
    bounds = _fraction_bounds(fractions) * labels.size
    rng = np.random.default_rng(seed)
    _, codes = np.unique(labels, return_inverse=True)
    counts = np.bincount(codes)
    order = rng.permutation(counts.size)
    middles = np.cumsum(counts[order]) - counts[order] / 2
    part_of_group = np.empty(counts.size, np.int64)
    part_of_group[order] = np.searchsorted(bounds, middles, side="right")
    part = part_of_group[codes]
    found = tuple(rng.permutation(np.flatnonzero(part == which)) for which in range(len(fractions)))
    if any(indices.size == 0 for indices in found):
        raise ValueError(f"{counts.size} groups are too few (or too uneven) for fractions {list(fractions)}")
    return found


def _namespace(*arrays: object) -> ModuleType:
    """NumPy where nothing is JAX's, so that host arrays stay on the host and keep float64 accumulators."""
    return jnp if any(isinstance(array, jax.Array) for array in arrays) else np


class Standardizer(NamedTuple):
    """Zero mean and unit standard deviation; call it on (..., *features), also inside `jax.jit`.

    Attributes:
        mean: per feature, in the feature's unit.
        std: per feature, dividing by n; 1 where the feature is constant, which so becomes 0.
    """

    mean: Array
    std: Array

    def __call__(self, x: Array) -> Array:
        return _shift_and_scale(x, self.mean, self.std)


class MinMaxScaler(NamedTuple):
    """Features to [0, 1]; call it on (..., *features), also inside `jax.jit`.

    Attributes:
        minimum: per feature, in the feature's unit.
        span: maximum minus minimum; 1 where the feature is constant, which so becomes 0.
    """

    minimum: Array
    span: Array

    def __call__(self, x: Array) -> Array:
        return _shift_and_scale(x, self.minimum, self.span)


def _shift_and_scale(x: Array, shift: Array, scale: Array) -> Array:
    xp = _namespace(x, shift, scale)
    x = xp.asarray(x)
    return (x - xp.broadcast_to(shift, x.shape)) / xp.broadcast_to(scale, x.shape)


def fit_standardizer(x: Array, *, axis: int | tuple[int, ...] = 0) -> Standardizer:
    """Mean and standard deviation of training examples `x` (n, ...).

    NumPy input is summed in float64; JAX input may be traced.

    Args:
        x: (n, ...) with n >= 1.
        axis: axes to pool, the examples' axis 0 among them; (0, 1, 2) scales images (n, h, w, c) by channel.

    Raises:
        ValueError: no examples, or axis 0 not pooled.
    """
    xp, axes, low, high = _extremes(x, axis)
    wide = {"dtype": np.float64} if xp is np else {}
    mean = xp.mean(x, axis=axes, keepdims=True, **wide)[0]
    std = xp.std(x, axis=axes, keepdims=True, **wide)[0].astype(low.dtype)
    constant = low == high
    # The mean of equal floats can be off by a rounding, which would leave the constant a little beside 0.
    mean = xp.where(constant, low, mean.astype(low.dtype))
    return Standardizer(mean, xp.where(constant | (std == 0), xp.ones_like(std), std))


def fit_min_max(x: Array, *, axis: int | tuple[int, ...] = 0) -> MinMaxScaler:
    """Minimum and span of training examples `x` (n, ...); arguments and errors as in `fit_standardizer`."""
    xp, _, low, high = _extremes(x, axis)
    span = high - low
    return MinMaxScaler(low, xp.where(span == 0, xp.ones_like(span), span))


def _extremes(x: Array, axis: int | tuple[int, ...]) -> tuple[ModuleType, tuple[int, ...], Array, Array]:
    """The namespace, the axes, and minimum and maximum as floats without the examples' axis."""
    axes = (axis,) if isinstance(axis, int) else tuple(axis)
    if 0 not in axes:
        raise ValueError(f"axis must pool the examples, axis 0; got {axis}")
    xp = _namespace(x)
    x = xp.asarray(x)
    if x.ndim == 0 or x.size == 0:
        raise ValueError(f"there are no examples in x of shape {x.shape}")
    dtype = x.dtype if jnp.issubdtype(x.dtype, jnp.floating) else np.float32
    low = xp.min(x, axis=axes, keepdims=True)[0].astype(dtype)
    return xp, axes, low, xp.max(x, axis=axes, keepdims=True)[0].astype(dtype)


def one_hot(y: Array | Sequence, classes: int | Sequence) -> Array:
    """Labels (...) as float32 (..., c): 1 at the label's place, 0 elsewhere.

    With the order cat, dog, turtle, llama, a turtle is (0, 0, 1, 0).

    Args:
        y: integer labels, or labels from `classes`.
        classes: how many classes there are, or the classes themselves in order.

    Raises:
        ValueError: a label that is no class. Not checked for JAX arrays, whose values may be unknown yet:
            such a label becomes a row of zeros.
    """
    if isinstance(classes, int | np.integer):
        count = int(classes)
    else:
        y, count = _places(y, list(classes)), len(classes)
    if isinstance(y, jax.Array):
        return jax.nn.one_hot(y, count, dtype=jnp.float32)
    labels = check_labels(y, count)
    return (labels[..., None] == np.arange(count)).astype(np.float32)


def check_labels(y: Array | Sequence, classes: int) -> np.ndarray:
    """Concrete labels as a NumPy array; ValueError unless they are whole numbers from 0 to classes - 1."""
    labels = np.asarray(y)
    if labels.size and not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"labels must be whole numbers, got {labels.dtype}")
    outside = labels[(labels < 0) | (labels >= classes)]
    if outside.size:
        raise ValueError(f"label {outside.flat[0]} is not one of the {classes} classes 0 to {classes - 1}")
    return labels


def _places(y: Array | Sequence, classes: list) -> np.ndarray:
    labels = np.asarray(y)
    place = {label: index for index, label in enumerate(classes)}
    try:
        return np.array([place[label] for label in labels.ravel().tolist()], np.int32).reshape(labels.shape)
    except KeyError as error:
        label = error.args[0]
        near = difflib.get_close_matches(str(label), [str(c) for c in classes], n=1, cutoff=0.0)[0]
        raise ValueError(f"label {label!r} is no class; did you mean {near!r}? Allowed: {classes}") from None
