"""Metrics against scikit-learn on random problems with ties, weights and absent classes; inside jit and vmap."""

import functools
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st

from nnjax import metrics

AVERAGES = ("micro", "macro", "weighted", None)
RATIOS = ("precision", "recall", "f1_score")
OPTIONS = {"xla_backend_optimization_level": 0}  # compiles several times faster
EVERY = settings(max_examples=200, deadline=None, derandomize=True, database=None)


def sklearns(name, *args, **kw):
    """scikit-learn's, without its warnings about what is not defined."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return getattr(sklearn.metrics, name)(*args, **kw)


def weighing(rng, n, kind):
    """Weights, not all of them zero."""
    counts = rng.integers(0, 3, n)
    counts[rng.integers(n)] = 1
    return {"none": np.ones(n), "any": rng.exponential(size=n), "counts": counts}[kind].astype(np.float32)


def drawn(seed, n, k, weights):
    """Labels and predictions of which some classes may be absent, and weights."""
    rng = np.random.default_rng(seed)
    chance = rng.dirichlet(np.full(k, 0.4))
    true = rng.choice(k, n, p=chance)
    pred = np.where(rng.random(n) < 0.5, true, rng.choice(k, n, p=rng.dirichlet(np.full(k, 0.4))))
    return true, pred, None if weights == "none" else weighing(rng, n, weights)


@functools.cache
def label_program(k, weighted):
    """Every metric of labels as one program."""

    def every(true, pred, weight):
        weight = weight if weighted else None
        out = {
            "confusion_matrix": metrics.confusion_matrix(true, pred, classes=k, sample_weight=weight),
            "accuracy": metrics.accuracy(true, pred, sample_weight=weight),
        }
        for name in RATIOS:
            for average in AVERAGES:
                out[f"{name} {average}"] = getattr(metrics, name)(
                    true, pred, classes=k, average=average, sample_weight=weight
                )
            if k == 2:  # no classes needed
                out[f"{name} binary"] = getattr(metrics, name)(true, pred, sample_weight=weight)
        return out

    return jax.jit(every, compiler_options=OPTIONS)


@EVERY
@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.sampled_from([1, 8, 50]),
    k=st.sampled_from([2, 4]),
    weights=st.sampled_from(["none", "any", "counts"]),
)
def test_metrics_of_labels_are_scikit_learns(seed, n, k, weights):
    true, pred, weight = drawn(seed, n, k, weights)
    made = label_program(k, weight is not None)(true, pred, weight)
    labels = {"labels": range(k), "sample_weight": weight}
    matrix = sklearns("confusion_matrix", true, pred, **labels)
    if weight is None:
        np.testing.assert_array_equal(made["confusion_matrix"], matrix)
        assert made["confusion_matrix"].dtype == jnp.int32
    np.testing.assert_allclose(made["confusion_matrix"], matrix, rtol=1e-5, atol=1e-6)
    accuracy = sklearns("accuracy_score", true, pred, sample_weight=weight)
    np.testing.assert_allclose(made["accuracy"], accuracy, rtol=1e-5)
    for average in (*AVERAGES, *(["binary"] if k == 2 else [])):
        among = labels if average != "binary" else {"sample_weight": weight}
        expected = sklearns("precision_recall_fscore_support", true, pred, average=average, zero_division=0, **among)
        for name, theirs in zip(RATIOS, expected[:3], strict=True):
            np.testing.assert_allclose(
                made[f"{name} {average}"], theirs, rtol=1e-5, atol=1e-7, err_msg=f"{name} {average}"
            )


def scored(seed, n, levels, weights):
    """Binary labels of which one may be absent, scores of so many levels (0: no ties), and weights."""
    rng = np.random.default_rng(seed)
    true = (rng.random(n) < rng.choice([0.0, 0.02, 0.3, 0.5, 1.0], p=[0.05, 0.1, 0.4, 0.4, 0.05])).astype(int)
    score = rng.normal(size=n) + rng.normal() * true
    if levels:
        score = np.round(score * levels / 4)
    return true, score.astype(np.float32), weighing(rng, n, weights)


@jax.jit
def curve_and_area(true, score, weight):
    return metrics.roc_curve(true, score, sample_weight=weight), metrics.roc_auc(true, score, sample_weight=weight)


def expected_area(true, score, weight):
    if not weight[true == 1].sum() or not weight[true == 0].sum():
        return np.nan
    return sklearns("roc_auc_score", true, score, sample_weight=weight)


@EVERY
@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.sampled_from([2, 9, 80]),
    levels=st.sampled_from([0, 1, 4, 20]),
    weights=st.sampled_from(["none", "any", "counts"]),
)
def test_the_curve_and_its_area_are_scikit_learns(seed, n, levels, weights):
    true, score, weight = scored(seed, n, levels, weights)
    curve, area = curve_and_area(true, score, weight)
    np.testing.assert_allclose(area, expected_area(true, score, weight), rtol=0, atol=1e-6)
    assert [len(part) for part in curve] == [n + 1] * 3
    assert float(curve.thresholds[0]) == np.inf
    fpr, tpr, thresholds = sklearns("roc_curve", true, score, sample_weight=weight, drop_intermediate=False)
    at = np.searchsorted(-thresholds, -np.asarray(curve.thresholds, float))
    # scikit-learn leaves out examples without weight: they repeat the point before them.
    at = np.where(thresholds[np.minimum(at, len(thresholds) - 1)] == np.asarray(curve.thresholds), at, at - 1)
    np.testing.assert_allclose(curve.fpr, fpr[at], atol=1e-6)
    np.testing.assert_allclose(curve.tpr, tpr[at], atol=1e-6)
    assert set(at) == set(range(len(thresholds)))  # none of its points is missing
    for rate in (np.asarray(curve.fpr), np.asarray(curve.tpr)):
        if not np.isnan(rate).any():
            assert (rate[0], rate[-1]) == (0, 1)
            assert (np.diff(rate) >= 0).all()


@pytest.mark.parametrize("n", [1000, 5000])
def test_areas_of_thousands_keep_six_digits(n):
    """Rounding must not grow with n: a running sum in float32 is off by 1e-5 here."""
    program = jax.jit(jax.vmap(lambda t, s, w: metrics.roc_auc(t, s, sample_weight=w)))
    kinds = [(levels, weights) for levels in (0, 4, 40) for weights in ("none", "any", "counts")]
    problems = [scored(seed, n, *kind) for seed, kind in enumerate(kinds * 3)]
    made = program(*(np.stack(part) for part in zip(*problems, strict=True)))
    expected = [expected_area(*problem) for problem in problems]
    assert np.isfinite(expected).sum() > 15
    np.testing.assert_allclose(made, expected, rtol=0, atol=1e-6)


@EVERY
@given(seed=st.integers(0, 2**32 - 1), n=st.sampled_from([20, 60]), weights=st.sampled_from(["none", "any"]))
def test_the_area_of_many_classes_is_scikit_learns(seed, n, weights):
    k = 3
    true, _, weight = drawn(seed, n, k, weights)
    weight = np.ones(n, np.float32) if weight is None else weight
    rng = np.random.default_rng(seed + 1)
    score = rng.dirichlet(np.ones(k), n)
    score = (np.round((score + 0.3 * np.eye(k)[true]) * 10)).astype(np.float32)
    made = many_areas(true, score, weight)
    expected = [expected_area((true == c).astype(int), score[:, c], weight) for c in range(k)]
    np.testing.assert_allclose(made["None"], expected, atol=1e-6)
    np.testing.assert_allclose(made["macro"], np.mean(expected), atol=1e-6)
    share = score / score.sum(1, keepdims=True)  # scikit-learn takes nothing but probabilities
    shares = many_areas(true, share, weight)
    if np.isfinite(expected).all():
        for average in ("macro", "weighted"):
            theirs = sklearns("roc_auc_score", true, share, multi_class="ovr", average=average, sample_weight=weight)
            np.testing.assert_allclose(shares[average], theirs, atol=1e-6)
    elif len(np.unique(true)) == 2:  # one class absent: left out of the weighted mean, as it weighs nothing
        present = np.unique(true)
        support = np.array([weight[true == c].sum() for c in present])
        np.testing.assert_allclose(made["weighted"], np.array(expected)[present] @ support / support.sum(), atol=1e-6)
    else:
        assert np.isnan(made["weighted"])


@jax.jit
def many_areas(true, score, weight):
    return {
        str(average): metrics.roc_auc(true, score, average=average, sample_weight=weight)
        for average in ("macro", "weighted", None)
    }


# --- Programs ---------------------------------------------------------------------------------------------------


def test_jit_vmap_and_plain_calls_agree():
    problems = [drawn(seed, 30, 3, "any") for seed in range(4)]
    true, pred, weight = (np.stack(part) for part in zip(*problems, strict=True))
    lanes = jax.vmap(label_program(3, True))(true, pred, weight)
    for i, (t, p, w) in enumerate(problems):
        plain = metrics.confusion_matrix(t, p, classes=3, sample_weight=w)
        np.testing.assert_allclose(lanes["confusion_matrix"][i], plain, rtol=1e-6)
        np.testing.assert_allclose(lanes["accuracy"][i], metrics.accuracy(t, p, sample_weight=w), rtol=1e-6)
        made = metrics.f1_score(t, p, classes=(0, 1, 2), average="macro", sample_weight=w)
        np.testing.assert_allclose(lanes["f1_score macro"][i], made, rtol=1e-6)
    problems = [scored(seed, 30, 4, "any") for seed in range(4)]
    true, score, weight = (np.stack(part) for part in zip(*problems, strict=True))
    curves, areas = jax.vmap(curve_and_area)(true, score, weight)
    for i, (t, s, w) in enumerate(problems):
        np.testing.assert_allclose(areas[i], metrics.roc_auc(t, s, sample_weight=w), atol=1e-6)
        for lane, plain in zip(curves, metrics.roc_curve(t, s, sample_weight=w), strict=True):
            np.testing.assert_allclose(lane[i], plain, atol=1e-6)


def test_inside_a_program_the_classes_must_be_named():
    true, pred = np.array([0, 1, 1]), np.array([0, 1, 0])
    message = "classes=None must be a number of classes or their labels inside jit and vmap"
    with pytest.raises(ValueError, match=message):
        jax.jit(metrics.confusion_matrix)(true, pred)
    with pytest.raises(ValueError, match=message):
        jax.vmap(metrics.confusion_matrix)(true[None], pred[None])
    for name in RATIOS:
        with pytest.raises(ValueError, match=message):
            jax.jit(functools.partial(getattr(metrics, name), average="macro"))(true, pred)
    static = jax.jit(metrics.confusion_matrix, static_argnames="classes")
    np.testing.assert_array_equal(static(true, pred, classes=(1, 0)), [[1, 1], [0, 1]])
    with pytest.raises(ValueError, match="classes must be known before the program runs"):
        jax.jit(metrics.confusion_matrix)(true, pred, classes=jnp.arange(2))


def test_classes_are_read_off_the_data():
    true, pred = np.array([5, 1, 5, 9, 1, 1]), np.array([5, 5, 7, 1, 1, 1])
    np.testing.assert_array_equal(metrics.confusion_matrix(true, pred), sklearns("confusion_matrix", true, pred))
    for name, theirs in zip(RATIOS, ("precision_score", "recall_score", "f1_score"), strict=True):
        for average in AVERAGES:
            expected = sklearns(theirs, true, pred, average=average, zero_division=0)
            made = getattr(metrics, name)(true, pred, average=average)
            np.testing.assert_allclose(made, expected, rtol=1e-6)
            some = getattr(metrics, name)(true, pred, average=average, classes=(9, 5))
            expected = sklearns(theirs, true, pred, average=average, labels=[9, 5], zero_division=0)
            np.testing.assert_allclose(some, expected, rtol=1e-6)
    np.testing.assert_array_equal(
        metrics.confusion_matrix(true, pred, classes=[9, 1]), sklearns("confusion_matrix", true, pred, labels=[9, 1])
    )


@pytest.mark.parametrize(("labels", "positive"), [((0, 1), 1), ((-1, 1), 1), ((1, 2), 2), ((False, True), True)])
def test_any_two_labels_will_do(labels, positive):
    true, score, weight = scored(3, 40, 4, "any")
    named = np.array(labels)[true]
    pred = np.array(labels)[(score > 0).astype(int)]
    made = metrics.roc_auc(named, score, pos_label=positive, sample_weight=weight)
    np.testing.assert_allclose(made, expected_area(true, score, weight), atol=1e-6)
    for name in RATIOS:
        made = getattr(metrics, name)(named, pred, pos_label=positive)
        expected = getattr(metrics, name)(true, (score > 0).astype(int))
        assert float(made) == float(expected)


# --- By hand ----------------------------------------------------------------------------------------------------


def test_a_curve_by_hand():
    true, score = np.array([0, 0, 1, 1]), np.array([0.1, 0.4, 0.35, 0.8], np.float32)
    curve = metrics.roc_curve(true, score)
    np.testing.assert_array_equal(curve.fpr, [0, 0, 0.5, 0.5, 1])
    np.testing.assert_array_equal(curve.tpr, [0, 0.5, 0.5, 1, 1])
    np.testing.assert_array_equal(curve.thresholds, np.float32([np.inf, 0.8, 0.4, 0.35, 0.1]))
    assert float(metrics.roc_auc(true, score)) == 0.75
    curve = metrics.roc_curve(true, np.array([1, 2, 2, 2]))  # three share their point
    np.testing.assert_array_equal(curve.fpr, [0, 0.5, 0.5, 0.5, 1])
    np.testing.assert_array_equal(curve.tpr, [0, 1, 1, 1, 1])
    assert float(metrics.roc_auc(true, np.ones(4))) == 0.5


def test_zero_where_a_denominator_is_zero():
    none = np.zeros(4, int)
    some = np.array([0, 1, 0, 1])
    assert float(metrics.precision(some, none)) == 0
    assert float(metrics.recall(none, some)) == 0
    for name in RATIOS:
        assert float(getattr(metrics, name)(none, none)) == 0
        assert float(getattr(metrics, name)(some, some, average="macro", sample_weight=np.zeros(4))) == 0
    assert float(metrics.accuracy(some, some, sample_weight=np.zeros(4))) == 0


@pytest.mark.parametrize("only", [0, 1])
def test_one_class_has_no_area(only):
    true, score = np.full(5, only), np.arange(5.0)
    assert np.isnan(metrics.roc_auc(true, score))
    curve = metrics.roc_curve(true, score)
    assert np.isnan(curve.tpr if only == 0 else curve.fpr).all()
    assert not np.isnan(curve.fpr if only == 0 else curve.tpr).any()


def test_scores_of_every_kind():
    true = np.array([0, 1, 0, 1])
    assert np.isnan(metrics.roc_auc(true, np.array([0.1, np.nan, 0.2, 0.3])))
    assert np.isnan(metrics.roc_curve(true, np.array([0.1, np.nan, 0.2, 0.3])).fpr).all()
    assert float(metrics.roc_auc(true, np.array([-np.inf, np.inf, 0.0, 3e38]))) == 1
    assert float(metrics.roc_auc(true, np.array([0.0, -0.0, -0.0, 0.0]))) == 0.5
    close = np.array([2**24, 2**24 + 1, 2**24, 2**24 + 1])  # one number in float32
    assert float(metrics.roc_auc(true, close)) == 1


def near_one(n=1000):
    """Probabilities whose digits float32 does not hold: 1 less a number of 1e-11 to 1e-7."""
    rng = np.random.default_rng(5)
    true = rng.integers(0, 2, n)
    return true, 1 - 10.0 ** (rng.uniform(-10, -7, n) - true)


def test_float64_scores_are_ranked_by_all_of_their_digits():
    true, score = near_one()
    expected = sklearns("roc_auc_score", true, score)
    assert abs(float(jax.jit(metrics.roc_auc)(true, score)) - expected) > 0.05, "float32 holds too few of them"
    np.testing.assert_allclose(metrics.roc_auc(true, score), expected, atol=1e-6)
    np.testing.assert_allclose(metrics.roc_auc(true.tolist(), score.tolist()), expected, atol=1e-6)
    np.testing.assert_allclose(metrics.roc_auc(jnp.asarray(true), score), expected, atol=1e-6)
    fpr, tpr, thresholds = sklearns("roc_curve", true, score, drop_intermediate=False)
    curve = metrics.roc_curve(true, score)
    assert len(fpr) == len(true) + 1, "no two scores are one"
    np.testing.assert_allclose(curve.fpr, fpr, atol=1e-6)
    np.testing.assert_allclose(curve.tpr, tpr, atol=1e-6)
    np.testing.assert_allclose(curve.thresholds, thresholds, rtol=1e-6)
    columns = np.stack([1 - score, score], axis=1)
    np.testing.assert_allclose(
        metrics.roc_auc(true, columns, average=None), [sklearns("roc_auc_score", 1 - true, 1 - score), expected], 1e-5
    )
    assert np.isnan(metrics.roc_auc(true, np.where(np.arange(len(true)) == 7, np.nan, score)))
    assert np.isnan(metrics.roc_auc(true, np.where(np.arange(len(true))[:, None] == 7, np.nan, columns)))
    assert float(metrics.roc_auc([0, 1, 0, 1], [1e300, 2e300, 1e299, 3e300])) == 1


def test_wide_integer_labels_do_not_wrap():
    small, wide = np.array([1, 0, 1, 0, 1]), 2**32 + 1
    true, pred = np.where(small, wide, 1), np.array([1, 1, wide, wide, wide])
    assert float(metrics.accuracy(true, pred)) == pytest.approx(0.6)
    assert float(metrics.accuracy(jnp.ones(5, int), pred)) == pytest.approx(0.4)
    np.testing.assert_array_equal(metrics.confusion_matrix(true, pred), sklearns("confusion_matrix", true, pred))
    np.testing.assert_array_equal(metrics.confusion_matrix(true, pred, classes=(wide,)), [[2]])
    for name in RATIOS:
        made = getattr(metrics, name)(true, pred, pos_label=wide)
        np.testing.assert_allclose(made, getattr(metrics, name)(small, (pred == wide).astype(int)))
    score = np.array([0.1, 0.2, 0.3, 0.4, 0.5])
    expected = metrics.roc_auc(small, score)
    assert float(metrics.roc_auc(true, score, pos_label=wide)) == float(expected) == 0.5
    both = np.stack([1 - score, score], axis=1)
    np.testing.assert_allclose(metrics.roc_auc(true, both, classes=(1, wide)), expected)


def test_binary_inside_a_program_takes_the_rest_for_one_class():
    true, pred = np.array([0, 1, 2, 1]), np.array([1, 1, 0, 2])
    made = jax.jit(metrics.precision)(true, pred)
    np.testing.assert_allclose(made, metrics.precision(true == 1, pred == 1))


def test_float64():
    true, score, weight = scored(1, 500, 0, "any")
    expected = sklearns("roc_auc_score", true, score, sample_weight=weight.astype(float))
    with jax.enable_x64(True):
        made = metrics.roc_auc(true, score.astype(float), sample_weight=weight.astype(float))
        assert made.dtype == jnp.float64
        np.testing.assert_allclose(made, expected, rtol=1e-13)
        apart = 1 + np.array([0, 1e-12, 0, 1e-12])
        assert float(metrics.roc_auc(np.array([0, 1, 0, 1]), apart)) == 1
        f1 = metrics.f1_score(true, score > 0, sample_weight=weight)
        assert f1.dtype == jnp.float64
        np.testing.assert_allclose(
            f1, sklearns("f1_score", true, score > 0, sample_weight=weight.astype(float)), rtol=1e-12
        )


# --- What is refused --------------------------------------------------------------------------------------------


def test_wrong_shapes_are_refused():
    y = np.array([0, 1, 1])
    for name in ("confusion_matrix", "accuracy", *RATIOS):
        metric = getattr(metrics, name)
        with pytest.raises(ValueError, match=r"y_pred \(3, 1\) must be \(n,\), n > 0, with y_true \(3,\)"):
            metric(y, y[:, None])
        with pytest.raises(ValueError, match=r"y_pred \(2,\) must be \(n,\)"):
            metric(y, y[:2])
        with pytest.raises(ValueError, match=r"sample_weight \(1,\) must be \(n,\)"):
            metric(y, y, sample_weight=np.ones(1))
        with pytest.raises(ValueError, match=r"y_true \(0,\) must be \(n,\), n > 0"):
            metric(y[:0], y[:0])
        with pytest.raises(ValueError, match="y_true must hold numbers, not <U3"):
            metric(np.array(["cat", "dog", "cat"]), y)
    for metric in (metrics.roc_curve, metrics.roc_auc):
        with pytest.raises(ValueError, match=r"y_score \(2,\) must be \(n,\)"):
            metric(y, np.ones(2))
        with pytest.raises(ValueError, match=r"y_true \(3, 1\) must be \(n,\)"):
            metric(y[:, None], np.ones(3))
    for score in (np.ones((3, 1)), jnp.ones((3, 1))):
        with pytest.raises(ValueError, match=r"y_score \(3, 1\) must be \(n,\), without its last axis"):
            metrics.roc_auc(y, score)
    with pytest.raises(ValueError, match=r"y_score \(2,\) must be \(n,\), n > 0, with y_true \(3,\)"):
        metrics.roc_auc(y, np.ones((2, 3)))
    with pytest.raises(ValueError, match="y_score must hold numbers, not <U1"):
        metrics.roc_auc(y, ["a", "b", "c"])
    with pytest.raises(ValueError, match=r"classes=\(0, 1\) must name the 3 columns of y_score \(3, 3\)"):
        metrics.roc_auc(y, np.ones((3, 3)), classes=(0, 1))


def test_wrong_names_and_classes_are_refused():
    y = np.array([0, 1, 2])
    with pytest.raises(ValueError, match=r"average 'macr' is not one of .*; did you mean 'macro'"):
        metrics.precision(y, y, average="macr")
    with pytest.raises(ValueError, match="average 'micro' is not one of macro, weighted"):
        metrics.roc_auc(y, np.eye(3), average="micro")
    with pytest.raises(ValueError, match="average='binary' needs two classes, not 0, 1, 2"):
        metrics.recall(y, y)
    with pytest.raises(ValueError, match="average='binary' needs two classes, not 0, 1, 2"):
        jax.jit(functools.partial(metrics.recall, classes=3))(y, y)
    with pytest.raises(ValueError, match="pos_label=1 must be one of the classes 0, 2"):
        metrics.f1_score(y[::2], y[::2])
    for classes in (0, -3, (), (1, 1), ((0, 1),)):
        with pytest.raises(ValueError, match="must be a positive number of classes or their distinct labels"):
            metrics.confusion_matrix(y, y, classes=classes)
    with pytest.raises(ValueError, match="y_true holds 3, not among the classes 0, 1, 2"):
        metrics.roc_auc(y + 1, np.eye(3))
