"""Metrics of classification, arguments in scikit-learn's order, that work inside jit and vmap.

Shapes must be known before a program runs, so inside jit or vmap the classes are named: ``classes=10`` for the
labels 0 to 9, or a tuple of labels. Elsewhere they are read off the data. As in scikit-learn a ratio whose
denominator is zero is 0, and the area under the curve of a single class is NaN.

Results are of the default floating dtype, float32 or (in `jax.enable_x64`) float64. Counts are exact up to 2^24
examples in float32.

Labels and scores given as NumPy arrays or lists are compared and ranked in their own precision, whatever that of the
results. JAX arrays, and whatever goes into jit or vmap, are of 32 bits unless in `jax.enable_x64`: there float64
scores that are one number in float32 become ties, as do many close to 1, and integers beyond 2^31 wrap. A curve's
thresholds are results, hence rounded.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from nnjax.naming import choose
from nnjax.types import Array

Classes = int | Sequence[int] | None

_AVERAGES = ("binary", "micro", "macro", "weighted")


class RocCurve(NamedTuple):
    """A curve of true against false positives.

    Attributes:
      fpr: (n + 1,) false positive rate, from 0 to 1; NaN where there are no negatives.
      tpr: (n + 1,) true positive rate, from 0 to 1; NaN where there are no positives.
      thresholds: (n + 1,) from inf down: examples with at least this score count as positive.
    """

    fpr: Array
    tpr: Array
    thresholds: Array


def confusion_matrix(
    y_true: ArrayLike, y_pred: ArrayLike, *, classes: Classes = None, sample_weight: ArrayLike | None = None
) -> Array:
    """How many examples of each class were predicted as which.

    Args:
      y_true: labels, (n,).
      y_pred: predicted labels, (n,).
      classes: number of classes k (labels 0 to k - 1) or the labels in order; examples with another label are
        left out. By default the labels in the data; needed inside jit and vmap.
      sample_weight: (n,), by default ones.

    Returns:
      (k, k), true classes down and predicted ones across; integers, or floats where weights are given.

    Raises:
      ValueError: shapes disagree, classes are not distinct labels, or they are needed and not given.
    """
    y_true, y_pred, weight = _label_columns(y_true, y_pred, sample_weight)
    labels = _known_classes(classes, y_true, y_pred)
    counts = _sums(y_true, y_pred, weight, labels)[:-1, :-1]
    return counts if sample_weight is not None else jnp.round(counts).astype(jnp.result_type(int))


def accuracy(y_true: ArrayLike, y_pred: ArrayLike, *, sample_weight: ArrayLike | None = None) -> Array:
    """Fraction of examples whose predicted label is the true one.

    Args:
      y_true: labels, (n,).
      y_pred: predicted labels, (n,); not scores.
      sample_weight: (n,), by default ones.

    Returns:
      () between 0 and 1.

    Raises:
      ValueError: shapes disagree.
    """
    y_true, y_pred, weight = _label_columns(y_true, y_pred, sample_weight)
    return _ratio(_total(jnp.where(y_true == y_pred, weight, 0)), _total(weight))


def precision(
    y_true: ArrayLike,
    y_pred: ArrayLike,
    *,
    classes: Classes = None,
    pos_label: int = 1,
    average: str | None = "binary",
    sample_weight: ArrayLike | None = None,
) -> Array:
    """Fraction of the examples predicted positive that are positive, TP/(TP + FP).

    Args:
      y_true: labels, (n,).
      y_pred: predicted labels, (n,).
      classes: number of classes k (labels 0 to k - 1) or the labels in order; by default the labels in the data.
        Inside jit and vmap needed for every average but "binary".
      pos_label: the positive class of ``average="binary"``.
      average: "binary"; over the classes "micro" (of all counts together), "macro" (mean) or "weighted" (mean
        weighted by the class's true examples); None for every class. "binary" refuses more than two classes, but
        cannot see how many there are inside jit and vmap, unless by ``classes``: there all but `pos_label` are one.
      sample_weight: (n,), by default ones.

    Returns:
      (), or (k,) for ``average=None``; 0 where nothing is predicted positive.

    Raises:
      ValueError: shapes disagree, the average is unknown, there are more than two classes for "binary", classes
        are not distinct labels, or they are needed and not given.
    """
    hits, predicted, true = _class_sums(y_true, y_pred, classes, pos_label, average, sample_weight)
    return _averaged(hits, predicted, true, average)


def recall(
    y_true: ArrayLike,
    y_pred: ArrayLike,
    *,
    classes: Classes = None,
    pos_label: int = 1,
    average: str | None = "binary",
    sample_weight: ArrayLike | None = None,
) -> Array:
    """Fraction of the positive examples that are predicted positive, TP/(TP + FN); arguments as `precision`."""
    hits, _, true = _class_sums(y_true, y_pred, classes, pos_label, average, sample_weight)
    return _averaged(hits, true, true, average)


def f1_score(
    y_true: ArrayLike,
    y_pred: ArrayLike,
    *,
    classes: Classes = None,
    pos_label: int = 1,
    average: str | None = "binary",
    sample_weight: ArrayLike | None = None,
) -> Array:
    """The F-measure, harmonic mean of precision and recall, 2 TP/(2 TP + FP + FN); arguments as `precision`."""
    hits, predicted, true = _class_sums(y_true, y_pred, classes, pos_label, average, sample_weight)
    return _averaged(2 * hits, predicted + true, true, average)


def roc_curve(
    y_true: ArrayLike, y_score: ArrayLike, *, pos_label: int = 1, sample_weight: ArrayLike | None = None
) -> RocCurve:
    """True against false positive rate at every threshold on a score.

    The curve has n + 1 points whatever the ties: examples of one score share the point at which all of them are
    counted. As a line it is scikit-learn's with ``drop_intermediate=False``.

    Args:
      y_true: labels, (n,); those equal to `pos_label` are the positives.
      y_score: (n,), larger for positive; NaN among them makes every rate NaN.
      pos_label: the positive label.
      sample_weight: (n,), by default ones.

    Returns:
      A `RocCurve`, which starts at (0, 0) with threshold inf.

    Raises:
      ValueError: shapes disagree.
    """
    y_true, y_score, weight = _columns(y_true, y_score, sample_weight, second="y_score")
    return RocCurve(*_curve(y_true == pos_label, *_ranked(y_score), weight)[:3])


def roc_auc(
    y_true: ArrayLike,
    y_score: ArrayLike,
    *,
    pos_label: int = 1,
    average: str | None = "macro",
    classes: Classes = None,
    sample_weight: ArrayLike | None = None,
) -> Array:
    """Area under the ROC curve: the chance that a positive example scores above a negative one, ties one half.

    Args:
      y_true: labels, (n,).
      y_score: (n,), larger for the positive label; or (n, k), a score for each class, each judged against the
        rest (scikit-learn's ``multi_class="ovr"``). NaN among the scores makes the area NaN.
      pos_label: the positive label, for scores (n,).
      average: for scores (n, k): "macro" (mean over classes), "weighted" (by the class's true examples, so that
        classes without any are left out) or None for every class.
      classes: for scores (n, k): the labels of the k columns, by default 0 to k - 1.
      sample_weight: (n,), by default ones.

    Returns:
      (), or (k,) for ``average=None``; NaN where a class has no examples, or all of them.

    Raises:
      ValueError: shapes disagree, scores are (n, 1), the average is unknown, or classes are not k distinct labels.
    """
    if np.ndim(y_score) != 2:
        y_true, score, weight = _columns(y_true, y_score, sample_weight, second="y_score")
        return _curve(y_true == pos_label, *_ranked(score), weight)[3]
    if average is not None:
        choose("average", average, ("macro", "weighted"))
    scores = y_score if isinstance(y_score, jax.Array) else np.asarray(y_score)
    if scores.shape[1] == 1:
        raise ValueError(f"y_score {scores.shape} must be (n,), without its last axis, for scores of one class")
    labels = _labels(scores.shape[1] if classes is None else classes)
    if len(labels) != scores.shape[1]:
        raise ValueError(f"classes={classes} must name the {scores.shape[1]} columns of y_score {scores.shape}")
    y_true, _, weight = _columns(y_true, scores[:, 0], sample_weight, second="y_score")
    if not _traced(y_true) and (strange := set(np.unique(y_true).tolist()) - set(labels)):
        raise ValueError(f"y_true holds {_listed(strange)}, not among the classes {_listed(labels)}")
    one_hot = _equal(y_true, labels)
    areas = jax.vmap(lambda *columns: _curve(*columns, weight)[3], in_axes=1)(one_hot, *_ranked(scores))
    if average is None:
        return areas
    if average == "macro":
        return jnp.mean(areas)
    support = jax.vmap(lambda positive: _total(jnp.where(positive, weight, 0)), in_axes=1)(one_hot)
    return jnp.sum(jnp.where(support > 0, areas * support, 0)) / jnp.sum(support)


def _ranked(score: Array) -> tuple[Array, Array]:
    """What orders the scores, each of the columns of (n, k) by itself, and the scores as floats of the device."""
    if isinstance(score, jax.Array):
        return score, score
    # Ranks are whole numbers below n, which the device holds whatever the precision of the scores.
    columns = score.reshape(len(score), -1).T
    rank = np.stack([np.unique(column, return_inverse=True)[1] for column in columns], axis=-1).reshape(score.shape)
    with np.errstate(over="ignore"):
        return jnp.asarray(rank), jnp.asarray(score.astype(jnp.result_type(float)))


@jax.jit
def _curve(positive: Array, rank: Array, score: Array, weight: Array) -> tuple[Array, Array, Array, Array]:
    """False and true positive rates and thresholds, (n + 1,), and the area under them."""
    order = jnp.argsort(rank, descending=True)
    rank, score, positive, weight = rank[order], score[order], positive[order], weight[order]
    true = jnp.cumsum(jnp.where(positive, weight, 0))
    false = jnp.cumsum(jnp.where(positive, 0, weight))
    # Each example's rates are those at the last of its score: the next place where the score changes.
    last = jnp.append(rank[1:] != rank[:-1], True)
    end = jax.lax.cummin(jnp.where(last, jnp.arange(len(score)), len(score) - 1), reverse=True)
    false, true = jnp.append(0, false[end]), jnp.append(0, true[end])
    # The area of the counts, not of the rates: a compiler that fuses rate[1] - rate[0] into one rounding would make
    # steps of width zero count.
    area = _total(jnp.diff(false) / false[-1] * ((true[1:] + true[:-1]) / 2)) / true[-1]
    ruined = jnp.isnan(score).any()
    fpr, tpr = (
        jnp.where(ruined | (count[-1] == 0), jnp.nan, jnp.where(count == count[-1], 1, count / count[-1]))
        for count in (false, true)
    )
    thresholds = jnp.append(jnp.full(1, jnp.inf, weight.dtype), score.astype(weight.dtype))
    return fpr, tpr, thresholds, jnp.where(ruined, jnp.nan, area)


def _total(x: Array) -> Array:
    """The sum by halves: its error grows with log n, that of a running sum with n."""
    while len(x) > 1:
        half = len(x) // 2
        x = jnp.append(x[:half] + x[half : 2 * half], x[2 * half :])
    return x[0]


def _ratio(numerator: Array, denominator: Array) -> Array:
    return jnp.where(denominator == 0, 0, numerator / jnp.where(denominator == 0, 1, denominator))


def _equal(y: Array, labels: Sequence[float]) -> Array:
    """Which label each is, (n, k), where y lives."""
    numbers = jnp.asarray(labels) if isinstance(y, jax.Array) else np.asarray(labels)
    return y[:, None] == numbers[None, :]


def _sums(y_true: Array, y_pred: Array, weight: Array, labels: tuple[float, ...]) -> Array:
    """As `_counts`, which is given places among the labels where labels are not yet numbers of the device."""
    if isinstance(y_true, jax.Array):
        return _counts(y_true, y_pred, weight, labels)
    among = (_equal(y_true, labels), _equal(y_pred, labels))
    places = [np.where(equal.any(axis=1), equal.argmax(axis=1), len(labels)) for equal in among]
    return _counts(jnp.asarray(places[0]), jnp.asarray(places[1]), weight, tuple(range(len(labels))))


@partial(jax.jit, static_argnames="labels")
def _counts(y_true: Array, y_pred: Array, weight: Array, labels: tuple[float, ...]) -> Array:
    """Weights summed by true and predicted class, (k + 1, k + 1), last the labels that are none of these."""

    def one_hot(y: Array) -> Array:
        among = _equal(y, labels)
        return jnp.append(among, ~among.any(axis=1, keepdims=True), axis=1).astype(weight.dtype)

    # A product of matrices, because a scatter adds in any order on an accelerator.
    return jnp.matmul(one_hot(y_true).T, weight[:, None] * one_hot(y_pred), precision="highest")


def _class_sums(
    y_true: ArrayLike,
    y_pred: ArrayLike,
    classes: Classes,
    pos_label: int,
    average: str | None,
    sample_weight: ArrayLike | None,
) -> tuple[Array, Array, Array]:
    """Weight of each class rightly predicted, predicted, and true; (k,) each, k = 1 for "binary"."""
    y_true, y_pred, weight = _label_columns(y_true, y_pred, sample_weight)
    if average is not None:
        choose("average", average, _AVERAGES)
    if average == "binary":
        labels = _binary(classes, pos_label, y_true, y_pred)
    else:
        labels = _known_classes(classes, y_true, y_pred)
    counts = _sums(y_true, y_pred, weight, labels)
    return jnp.diagonal(counts)[:-1], counts.sum(0)[:-1], counts.sum(1)[:-1]


def _averaged(numerator: Array, denominator: Array, support: Array, average: str | None) -> Array:
    if average == "micro":
        return _ratio(numerator.sum(), denominator.sum())
    each = _ratio(numerator, denominator)
    if average == "macro":
        return each.mean()
    if average == "weighted":
        return _ratio((each * support).sum(), support.sum())
    return each[0] if average == "binary" else each


def _binary(classes: Classes, pos_label: int, y_true: Array, y_pred: Array) -> tuple[float, ...]:
    """The positive class alone, once it is sure that there is at most one other."""
    if classes is None and _traced(y_true, y_pred):
        return (pos_label,)
    labels = _known_classes(classes, y_true, y_pred)
    if len(labels) > 2:
        raise ValueError(f"average='binary' needs two classes, not {_listed(labels)}: choose another average")
    if len(labels) == 2 and pos_label not in labels:
        raise ValueError(f"pos_label={pos_label} must be one of the classes {_listed(labels)}")
    return (pos_label,)


def _known_classes(classes: Classes, y_true: Array, y_pred: Array) -> tuple[float, ...]:
    if classes is not None:
        return _labels(classes)
    if _traced(y_true, y_pred):
        raise ValueError("classes=None must be a number of classes or their labels inside jit and vmap")
    return _labels(np.union1d(np.asarray(y_true), np.asarray(y_pred)).tolist())


def _traced(*arrays: Array) -> bool:
    return any(isinstance(array, jax.core.Tracer) for array in arrays)


def _labels(classes: int | Sequence[int]) -> tuple[float, ...]:
    if isinstance(classes, jax.core.Tracer):
        raise ValueError("classes must be known before the program runs: a number or a tuple, static under jit")
    if isinstance(classes, int | np.integer) and classes > 0:
        return tuple(range(int(classes)))
    labels = () if np.ndim(classes) != 1 else tuple(np.asarray(classes).tolist())
    if not labels or len(set(labels)) != len(labels):
        raise ValueError(f"classes={classes} must be a positive number of classes or their distinct labels")
    return labels


def _listed(labels: Sequence[float] | set[float]) -> str:
    return ", ".join(str(label) for label in sorted(labels))


def _columns(
    y_true: ArrayLike, other: ArrayLike, sample_weight: ArrayLike | None, second: str = "y_pred"
) -> tuple[Array, Array, Array]:
    """The three as (n,), weights of ones where there are none; of the others JAX's stay JAX's, the rest is NumPy's."""
    named = {"y_true": y_true, second: other}
    if sample_weight is not None:
        named["sample_weight"] = sample_weight
    columns = {name: value if isinstance(value, jax.Array) else np.asarray(value) for name, value in named.items()}
    for name, value in columns.items():
        if isinstance(value, np.ndarray) and value.dtype.kind not in "biuf":
            raise ValueError(f"{name} must hold numbers, not {value.dtype}")
        if value.ndim != 1 or value.shape != columns["y_true"].shape or not value.size:
            raise ValueError(f"{name} {value.shape} must be (n,), n > 0, with y_true {columns['y_true'].shape}")
    dtype = jnp.result_type(float)
    ones = np.ones(columns["y_true"].shape)
    return columns["y_true"], columns[second], jnp.asarray(columns.get("sample_weight", ones)).astype(dtype)


def _label_columns(y_true: ArrayLike, y_pred: ArrayLike, sample_weight: ArrayLike | None) -> tuple[Array, Array, Array]:
    """As `_columns`, true and predicted labels both NumPy's or both JAX's."""
    y_true, y_pred, weight = _columns(y_true, y_pred, sample_weight)
    known = not _traced(y_true, y_pred) and not (isinstance(y_true, jax.Array) and isinstance(y_pred, jax.Array))
    place = np.asarray if known else jnp.asarray
    return place(y_true), place(y_pred), weight
