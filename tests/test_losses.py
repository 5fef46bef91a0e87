"""Losses against scikit-learn, SciPy, torch, optax and their definitions in float64, extremes included."""

import functools
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.special
import scipy.stats
import sklearn.metrics

from nnjax import losses

RNG = np.random.default_rng(0)
N, K = 40, 7
LOGITS = RNG.normal(0, 3, (N, K)).astype(np.float32)
LABELS = RNG.integers(0, K, N)
ONE_HOT = np.eye(K, dtype=np.float32)[LABELS]
BELONGS = (2 * ONE_HOT - 1).astype(np.float32)  # -1 and +1
VALUES = RNG.normal(0, 3, (N, K)).astype(np.float32)
RATES, COUNTS = RNG.gamma(1.0, 2.0, (N, K)).astype(np.float32), RNG.poisson(1.0, (N, K)).astype(np.float32)
CHANCES, TRUE_CHANCES = (RNG.dirichlet(np.ones(K), N).astype(np.float32) for _ in range(2))
TRUE_CHANCES[:5] = ONE_HOT[:5]  # with zeros
HUGE = float(np.finfo(np.float32).max)

# name: (prediction, target), a random problem of each.
PROBLEMS = {
    "squared_error": (LOGITS, VALUES),
    "half_squared_error": (LOGITS, VALUES),
    "absolute_error": (LOGITS, VALUES),
    "absolute_percentage_error": (LOGITS, VALUES),
    "squared_log_error": (RATES, COUNTS),
    "log_cosh": (LOGITS, VALUES),
    "huber": (LOGITS, VALUES),
    "poisson": (RATES, COUNTS),
    "cosine_distance": (LOGITS, VALUES),
    "hinge": (LOGITS, BELONGS),
    "squared_hinge": (LOGITS, BELONGS),
    "binary_cross_entropy": (LOGITS, ONE_HOT),
    "kl_divergence": (CHANCES, TRUE_CHANCES),
    "zero_one": (LOGITS, LABELS),
    "categorical_hinge": (LOGITS, LABELS),
    "multiclass_hinge": (LOGITS, LABELS),
    "cross_entropy": (LOGITS, LABELS),
}
LABELLED = ("zero_one", "categorical_hinge", "multiclass_hinge", "cross_entropy")


UNOPTIMIZED = {"xla_backend_optimization_level": 0}


@functools.cache
def program(loss):
    """Value and gradient as one program, compiled without optimization, which is several times faster here."""

    def both(prediction, target):
        value, back = jax.vjp(lambda x: loss(x, target), prediction)
        return value, back(jnp.ones_like(value))[0]

    return jax.jit(both, compiler_options=UNOPTIMIZED)


def value(loss, prediction, target):
    return np.asarray(program(loss)(jnp.asarray(prediction, jnp.float32), target)[0])


def gradient(loss, prediction, target):
    """d sum(loss) / d prediction."""
    return np.asarray(program(loss)(jnp.asarray(prediction, jnp.float32), target)[1])


def defined(name, p, t):
    """The loss by its definition in NumPy's float64, (n,)."""
    p, t = np.asarray(p, float), np.asarray(t) if name in LABELLED else np.asarray(t, float)
    if name in LABELLED:
        true = p[np.arange(len(p)), t][:, None]
        others = np.arange(p.shape[1])[None] != t[:, None]
        return {
            "zero_one": lambda: (p.argmax(1) != t).astype(float),
            "categorical_hinge": lambda: np.maximum(0, 1 + np.where(others, p, -np.inf).max(1) - true[:, 0]),
            "multiclass_hinge": lambda: np.where(others, np.maximum(0, p - true + 1), 0).sum(1),
            "cross_entropy": lambda: scipy.special.logsumexp(p, axis=1) - true[:, 0],
        }[name]()
    terms = {
        "squared_error": lambda: (p - t) ** 2,
        "half_squared_error": lambda: (p - t) ** 2 / 2,
        "absolute_error": lambda: np.abs(p - t),
        "absolute_percentage_error": lambda: np.abs(p - t) / np.maximum(np.abs(t), np.finfo(float).eps),
        "squared_log_error": lambda: (np.log1p(p) - np.log1p(t)) ** 2,
        "log_cosh": lambda: np.log(np.cosh(p - t)),
        "huber": lambda: np.where(abs(p - t) <= 1, (p - t) ** 2 / 2, abs(p - t) - 0.5),
        "poisson": lambda: p - scipy.special.xlogy(t, p),
        "hinge": lambda: np.maximum(0, 1 - t * p),
        "squared_hinge": lambda: np.maximum(0, 1 - t * p) ** 2,
        "binary_cross_entropy": lambda: np.logaddexp(0, p) - t * p,
        "kl_divergence": lambda: scipy.special.rel_entr(t, p),
    }
    if name == "cosine_distance":
        return 1 - (p * t).sum(1) / np.linalg.norm(p, axis=1) / np.linalg.norm(t, axis=1)
    return terms[name]().sum(1)


@pytest.mark.parametrize("name", PROBLEMS)
def test_losses_are_their_definitions(name):
    prediction, target = PROBLEMS[name]
    made = getattr(losses, name)(prediction, target)
    assert made.shape == (N,)
    assert made.dtype == jnp.float32
    np.testing.assert_allclose(made, defined(name, prediction, target), rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("name", [n for n in PROBLEMS if n != "zero_one"])
def test_gradients_are_the_definitions(name):
    prediction, target = PROBLEMS[name]
    prediction, target = prediction[:6], target[:6]
    made, h = gradient(getattr(losses, name), prediction, target), 1e-6
    expected = np.empty(prediction.shape)
    for j in range(K):
        up, down = prediction.astype(float), prediction.astype(float)
        up[:, j] += h
        down[:, j] -= h
        expected[:, j] = (defined(name, up, target) - defined(name, down, target)) / (2 * h)
    np.testing.assert_allclose(made, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", [n for n in PROBLEMS if n not in LABELLED])
def test_one_output_is_a_column(name):
    prediction, target = (np.ascontiguousarray(a[:, 0]) for a in PROBLEMS[name])
    loss = getattr(losses, name)
    if name in ("cosine_distance", "kl_divergence"):
        with pytest.raises(ValueError, match=r"prediction \(40,\) must be \(n, k\)"):
            loss(prediction, target)
        return
    made = loss(prediction, target)
    assert made.shape == (N,)
    np.testing.assert_array_equal(made, loss(prediction[:, None], target[:, None]))


# --- Other people's ---------------------------------------------------------------------------------------------


def test_means_are_scikit_learns():
    metrics = sklearn.metrics
    for name, theirs in {
        "squared_error": metrics.mean_squared_error,
        "absolute_error": metrics.mean_absolute_error,
        "absolute_percentage_error": metrics.mean_absolute_percentage_error,
        "squared_log_error": metrics.mean_squared_log_error,
    }.items():
        prediction, target = PROBLEMS[name]
        made = getattr(losses, name)(prediction, target).mean() / K
        np.testing.assert_allclose(made, theirs(target.astype(float), prediction.astype(float)), rtol=1e-5)
    every = metrics.hinge_loss(LABELS, LOGITS, labels=range(K))
    np.testing.assert_allclose(losses.categorical_hinge(LOGITS, LABELS).mean(), every, rtol=1e-5)
    one = metrics.hinge_loss(BELONGS[:, 0], LOGITS[:, 0])
    np.testing.assert_allclose(losses.hinge(LOGITS[:, 0], BELONGS[:, 0]).mean(), one, rtol=1e-5)
    log_loss = metrics.log_loss(ONE_HOT[:, 0], scipy.special.expit(LOGITS[:, 0].astype(float)))
    np.testing.assert_allclose(losses.binary_cross_entropy(LOGITS[:, 0], ONE_HOT[:, 0]).mean(), log_loss, rtol=1e-5)
    np.testing.assert_allclose(
        losses.cosine_distance(LOGITS, VALUES), np.diag(metrics.pairwise.cosine_distances(LOGITS, VALUES)), rtol=1e-5
    )
    # Half the deviance is the loss less that of the perfect prediction.
    perfect = losses.poisson(COUNTS, COUNTS)
    made = 2 * (losses.poisson(RATES, COUNTS) - perfect).mean() / K
    np.testing.assert_allclose(made, metrics.mean_poisson_deviance(COUNTS.ravel(), RATES.ravel()), rtol=1e-5)
    # A target of zero is scikit-learn's too.
    zero = losses.absolute_percentage_error(np.ones(1, np.float32), np.zeros(1, np.float32))
    np.testing.assert_allclose(zero, metrics.mean_absolute_percentage_error([0.0], [1.0]), rtol=1e-6)
    np.testing.assert_array_equal(losses.absolute_percentage_error(np.zeros(1), np.zeros(1)), [0])


def test_the_likelihood_of_poisson_is_scipys():
    made = losses.poisson(RATES, COUNTS) + scipy.special.gammaln(COUNTS.astype(float) + 1).sum(1)
    np.testing.assert_allclose(made, -scipy.stats.poisson.logpmf(COUNTS, RATES).sum(1), rtol=1e-5)


def test_values_and_gradients_are_torchs():
    torch = pytest.importorskip("torch")
    f = torch.nn.functional
    theirs = {
        "squared_error": lambda p, t: f.mse_loss(p, t, reduction="none").sum(1),
        "absolute_error": lambda p, t: f.l1_loss(p, t, reduction="none").sum(1),
        "huber": lambda p, t: f.huber_loss(p, t, reduction="none").sum(1),
        "poisson": lambda p, t: f.poisson_nll_loss(p, t, log_input=False, eps=0, reduction="none").sum(1),
        "cosine_distance": lambda p, t: f.cosine_embedding_loss(p, t, torch.ones(N), reduction="none"),
        "binary_cross_entropy": lambda p, t: f.binary_cross_entropy_with_logits(p, t, reduction="none").sum(1),
        "kl_divergence": lambda p, t: f.kl_div(p.log(), t, reduction="none").sum(1),
        "multiclass_hinge": lambda p, t: f.multi_margin_loss(p, t, reduction="none") * K,
        "cross_entropy": lambda p, t: f.cross_entropy(p, t, reduction="none"),
    }
    for name, their in theirs.items():
        prediction, target = PROBLEMS[name]
        p = torch.from_numpy(prediction.astype(float)).requires_grad_(True)
        sums = their(p, torch.from_numpy(target) if name in LABELLED else torch.from_numpy(target.astype(float)))
        (slope,) = torch.autograd.grad(sums.sum(), p)
        loss = getattr(losses, name)
        np.testing.assert_allclose(value(loss, prediction, target), sums.detach().numpy(), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(gradient(loss, prediction, target), slope.numpy(), rtol=1e-5, atol=2e-5)


def test_values_are_optaxs():
    for name, theirs in {
        "log_cosh": lambda p, t: optax.log_cosh(p, t).sum(1),
        "half_squared_error": lambda p, t: optax.l2_loss(p, t).sum(1),
        "hinge": lambda p, t: optax.hinge_loss(p, t).sum(1),
        "categorical_hinge": lambda p, t: optax.losses.multiclass_hinge_loss(p, t),
        "cosine_distance": lambda p, t: optax.cosine_distance(p, t),
        "kl_divergence": lambda p, t: optax.kl_divergence(jnp.log(p), t),
    }.items():
        prediction, target = (jnp.asarray(a) for a in PROBLEMS[name])
        np.testing.assert_allclose(getattr(losses, name)(prediction, target), theirs(prediction, target), rtol=1e-4)


def test_huber_with_another_delta():
    delta = 2.5
    expected = scipy.special.huber(delta, LOGITS.astype(float) - VALUES).sum(1)
    np.testing.assert_allclose(losses.huber(LOGITS, VALUES, delta), expected, rtol=1e-5)
    np.testing.assert_allclose(jax.jit(losses.huber)(LOGITS, VALUES, delta), expected, rtol=1e-5)
    for wrong in (0, -1.0, np.nan, jnp.asarray(0.0), jnp.asarray(-1.0, jnp.bfloat16), np.array([1.0, -1.0])):
        with pytest.raises(ValueError, match=r"delta=.* must be positive"):
            losses.huber(LOGITS, VALUES, wrong)


def test_huber_at_its_edge_and_without_one():
    error, zero = np.array([-2, -1, 0, 1, 2], np.float32), np.zeros(5, np.float32)
    for delta in (1.0, np.inf, 2.0):
        made = jax.vmap(jax.value_and_grad(lambda e, d=delta: losses.huber(e[None], jnp.zeros(1), d)[0]))(error)
        size = np.abs(error)
        expected = np.where(size <= delta, error**2 / 2, size - 0.5)
        np.testing.assert_array_equal(made[0], expected)
        np.testing.assert_array_equal(made[1], np.clip(error, -delta, delta))
    np.testing.assert_array_equal(jax.jit(losses.huber)(error, zero, np.inf), error**2 / 2)
    few = jnp.asarray(error, jnp.bfloat16)
    assert losses.huber(few, jnp.zeros_like(few), jnp.asarray(1.5)).dtype == jnp.bfloat16


# --- Labels -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.int32, np.uint8, np.int8])
def test_one_hot_equals_integer_labels(dtype):
    labels = LABELS.astype(dtype)
    for name in LABELLED:
        loss = getattr(losses, name)
        np.testing.assert_allclose(loss(LOGITS, labels), loss(LOGITS, ONE_HOT), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(loss(LOGITS, ONE_HOT.astype(np.int32)), loss(LOGITS, labels), rtol=1e-5, atol=1e-6)


def test_soft_labels():
    soft = RNG.dirichlet(np.ones(K), N).astype(np.float32)
    expected = -(soft * scipy.special.log_softmax(LOGITS.astype(float), axis=1)).sum(1)
    np.testing.assert_allclose(losses.cross_entropy(LOGITS, soft), expected, rtol=1e-5)


def test_the_gradient_is_softmax_minus_target():
    for target in (LABELS, ONE_HOT):
        made = gradient(losses.cross_entropy, LOGITS, target)
        np.testing.assert_allclose(made, scipy.special.softmax(LOGITS, axis=1) - ONE_HOT, atol=1e-6)
    made = gradient(losses.binary_cross_entropy, LOGITS, ONE_HOT)
    np.testing.assert_allclose(made, scipy.special.expit(LOGITS) - ONE_HOT, atol=1e-6)


def test_the_worked_example():
    example = json.loads(Path(__file__).with_name("worked_examples.json").read_text())["scores"]
    scores, true = np.array([example["scores"]], np.float32), np.array([example["classes"].index(example["true"])])
    np.testing.assert_allclose(losses.cross_entropy(scores, true), [example["cross_entropy"]], rtol=1e-6)
    np.testing.assert_allclose(losses.multiclass_hinge(scores, true), [example["multiclass_hinge"]], rtol=1e-6)
    np.testing.assert_array_equal(losses.zero_one(scores, true), [1])


# --- Tokens -----------------------------------------------------------------------------------------------------

STEPS = 5
TOKEN_LOGITS = RNG.normal(0, 3, (N, STEPS, K)).astype(np.float32)
TOKENS = np.where(np.arange(STEPS)[None] < RNG.integers(1, STEPS + 1, N)[:, None], RNG.integers(1, K, (N, STEPS)), 0)


def test_a_sequence_costs_the_mean_over_its_tokens():
    logs = scipy.special.log_softmax(TOKEN_LOGITS.astype(float), axis=2)
    expected = [
        -np.mean([logs[i, j, TOKENS[i, j]] for j in range(STEPS) if TOKENS[i, j] != 0]) for i in range(N)
    ]  # fmt: skip
    np.testing.assert_allclose(losses.token_cross_entropy(TOKEN_LOGITS, TOKENS), expected, rtol=1e-5)
    # Padding may stand anywhere, and its logits say nothing.
    np.testing.assert_allclose(losses.token_cross_entropy(TOKEN_LOGITS[:, ::-1], TOKENS[:, ::-1]), expected, rtol=1e-5)
    ruined = np.where(TOKENS[:, :, None] == 0, np.nan, TOKEN_LOGITS)
    np.testing.assert_allclose(value(losses.token_cross_entropy, ruined, TOKENS), expected, rtol=1e-5)
    full = RNG.integers(1, K, (N, STEPS))
    flat = losses.cross_entropy(TOKEN_LOGITS.reshape(-1, K), full.reshape(-1)).reshape(N, STEPS)
    np.testing.assert_allclose(losses.token_cross_entropy(TOKEN_LOGITS, full), flat.mean(1), rtol=1e-5)


def test_gradients_of_tokens_are_softmax_minus_target():
    counts = TOKENS != 0
    shares = (counts / counts.sum(1, keepdims=True))[:, :, None]
    expected = shares * (scipy.special.softmax(TOKEN_LOGITS.astype(float), axis=2) - np.eye(K)[TOKENS])
    made = gradient(losses.token_cross_entropy, TOKEN_LOGITS, TOKENS)
    np.testing.assert_allclose(made, expected, atol=1e-6)
    ruined = np.where(TOKENS[:, :, None] == 0, np.inf, TOKEN_LOGITS)
    np.testing.assert_allclose(gradient(losses.token_cross_entropy, ruined, TOKENS), expected, atol=1e-6)


def test_tokens_cost_what_torch_says():
    torch = pytest.importorskip("torch")
    theirs = torch.nn.functional.cross_entropy(
        torch.from_numpy(TOKEN_LOGITS.transpose(0, 2, 1).copy()), torch.from_numpy(TOKENS), ignore_index=0,
        reduction="none",
    )  # fmt: skip
    expected = theirs.sum(1).numpy() / (TOKENS != 0).sum(1)
    np.testing.assert_allclose(losses.token_cross_entropy(TOKEN_LOGITS, TOKENS), expected, rtol=1e-5)


def test_a_sequence_of_padding_costs_nothing():
    target = np.array([[0, 0, 0], [0, 2, 0]])
    logits = np.zeros((2, 3, 4), np.float32)
    np.testing.assert_allclose(value(losses.token_cross_entropy, logits, target), [0, np.log(4)], rtol=1e-6)
    made = gradient(losses.token_cross_entropy, logits, target)
    np.testing.assert_array_equal(made[0], 0)
    np.testing.assert_allclose(made[1], [[0] * 4, [0.25, 0.25, -0.75, 0.25], [0] * 4], atol=1e-7)


def test_a_token_that_is_no_class_is_nan():
    for wrong in (-1, K):
        target = np.array([[1, wrong], [1, 2]])
        made = losses.token_cross_entropy(TOKEN_LOGITS[:2, :2], target)
        np.testing.assert_array_equal(np.isnan(made), [True, False])


def test_tokens_must_fit_their_logits():
    for prediction, target, text in (
        (LOGITS, LABELS, r"prediction \(40, 7\) must be \(n, t, k\)"),
        (TOKEN_LOGITS, TOKENS[:, 1:], r"target \(40, 4\) of int64 must be integer labels \(n, t\)"),
        (TOKEN_LOGITS, TOKENS.astype(np.float32), r"target \(40, 5\) of float32 must be integer labels \(n, t\)"),
    ):
        with pytest.raises(ValueError, match=text.replace("int64", "int(64|32)")):
            losses.token_cross_entropy(prediction, target)


def test_zero_one_is_scikit_learns():
    made = losses.zero_one(LOGITS, LABELS)
    assert set(np.unique(made)) == {0, 1}
    assert float(made.mean()) == pytest.approx(sklearn.metrics.zero_one_loss(LABELS, LOGITS.argmax(1)))
    np.testing.assert_array_equal(losses.zero_one(LOGITS, LOGITS.argmax(1)), np.zeros(N))
    np.testing.assert_array_equal(losses.zero_one(LOGITS, (LOGITS.argmax(1) + 1) % K), np.ones(N))


def test_a_diverged_net_is_never_right():
    ruined = LOGITS.copy()
    ruined[np.arange(N), LABELS] = np.nan
    for target in (LABELS, ONE_HOT):
        np.testing.assert_array_equal(losses.zero_one(ruined, target), np.ones(N))
        np.testing.assert_array_equal(losses.zero_one(np.full((N, K), np.nan), 0 * target), np.ones(N))
    one = np.array([np.nan, np.nan, np.inf, -np.inf], np.float32)
    np.testing.assert_array_equal(losses.zero_one(one, np.array([0, 1, 1, 0])), [1, 1, 0, 0])


@pytest.mark.parametrize("dtype", [int, bool, np.float32])
def test_zero_one_of_one_logit(dtype):
    logit, label = np.array([-2, 3, -1, 0.5, 0, 0], np.float32), np.array([0, 1, 1, 0, 0, 1])
    made = losses.zero_one(logit, label.astype(dtype))
    np.testing.assert_array_equal(made, [0, 0, 1, 1, 0, 1])
    two = np.stack([np.zeros_like(logit), logit], axis=1)
    np.testing.assert_array_equal(made, losses.zero_one(two, label))
    assert losses.zero_one(jnp.asarray(logit, jnp.bfloat16), label.astype(dtype)).dtype == jnp.bfloat16
    np.testing.assert_array_equal(losses.zero_one(logit, 2 * label - 1)[label == 0], [1, 1, 1])
    with pytest.raises(ValueError, match=r"prediction \(6,\) and target \(6, 1\) must have one shape"):
        losses.zero_one(logit, label[:, None])


@pytest.mark.parametrize("k", [1, K])
def test_a_label_outside_the_classes_has_no_loss(k):
    labels = np.array([-1, -k, -k - 1, k, k + 1, 2**31 - 1, 0])
    logits = LOGITS[:7, :k]
    for name in LABELLED:
        made = value(getattr(losses, name), logits, labels)
        expected = np.full(6, 1.0 if name == "zero_one" else np.nan)
        np.testing.assert_array_equal(made[:6], expected, err_msg=name)
        np.testing.assert_allclose(made[6:], defined(name, logits[6:], labels[6:]) if k > 1 else [0], rtol=1e-6)


def test_hinge_wants_signs():
    np.testing.assert_array_equal(losses.hinge(np.float32([-5, 5]), np.array([0, 0])), [1, 1])
    np.testing.assert_array_equal(losses.hinge(np.float32([-5, 5]), np.array([-1, -1])), [0, 6])


def test_half_the_square_is_half_exactly():
    np.testing.assert_array_equal(losses.half_squared_error(LOGITS, VALUES), losses.squared_error(LOGITS, VALUES) / 2)
    np.testing.assert_array_equal(gradient(losses.half_squared_error, LOGITS, VALUES), LOGITS - VALUES)


# --- Extremes ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("huge", [1e4, 1e38])
def test_huge_logits_stay_finite(huge):
    logits = np.array([[huge, -huge, 0], [-huge, huge, 0]], np.float32)
    for labels in (np.array([0, 0]), np.eye(3, dtype=np.float32)[[0, 0]]):
        np.testing.assert_allclose(value(losses.cross_entropy, logits, labels), [0, 2 * huge], rtol=1e-6)
        made = gradient(losses.cross_entropy, logits, labels)
        np.testing.assert_allclose(made, [[0, 0, 0], [-1, 1, 0]], atol=1e-6)
        np.testing.assert_allclose(value(losses.categorical_hinge, logits, labels), [0, 2 * huge + 1], rtol=1e-6)
        np.testing.assert_allclose(value(losses.multiclass_hinge, logits, labels), [0, 3 * huge + 2], rtol=1e-6)
        np.testing.assert_array_equal(value(losses.zero_one, logits, labels), [0, 1])
        made = gradient(losses.categorical_hinge, logits, labels)
        np.testing.assert_array_equal(made, [[0, 0, 0], [-1, 1, 0]])
        made = gradient(losses.multiclass_hinge, logits, labels)
        np.testing.assert_array_equal(made, [[0, 0, 0], [-2, 1, 1]])


@pytest.mark.parametrize("huge", [1e4, HUGE])
def test_one_huge_output(huge):
    logits = np.array([huge, -huge, huge, -huge], np.float32)
    right = np.array([1, 0, 0, 1], np.float32)
    np.testing.assert_array_equal(value(losses.binary_cross_entropy, logits, right), np.abs(logits) * [0, 0, 1, 1])
    np.testing.assert_array_equal(gradient(losses.binary_cross_entropy, logits, right), [0, 0, 1, -1])
    np.testing.assert_allclose(
        value(losses.binary_cross_entropy, logits, 0 * right + 0.5), np.abs(logits) / 2, rtol=1e-6
    )
    np.testing.assert_array_equal(value(losses.hinge, logits, 2 * right - 1), np.float32([0, 0, huge + 1, huge + 1]))
    np.testing.assert_array_equal(gradient(losses.hinge, logits, 2 * right - 1), [0, 0, 1, -1])
    zero = np.zeros(4, np.float32)
    for loss, slope in ((losses.absolute_error, 1), (losses.log_cosh, 1), (losses.huber, 1)):
        np.testing.assert_allclose(value(loss, logits, zero), np.abs(logits), rtol=1e-4)
        np.testing.assert_array_equal(gradient(loss, logits, zero), slope * np.sign(logits))
    np.testing.assert_allclose(value(losses.absolute_percentage_error, logits, -logits), [2] * 4, rtol=1e-6)
    np.testing.assert_allclose(value(losses.squared_log_error, abs(logits), zero), [np.log1p(huge) ** 2] * 4, rtol=1e-6)
    np.testing.assert_allclose(value(losses.poisson, abs(logits), zero), np.abs(logits))


def test_infinite_logits_of_the_right_sign_cost_nothing():
    inf = np.float32(np.inf)
    made = losses.binary_cross_entropy(np.array([inf, -inf, inf, -inf]), np.array([1, 0, 0, 1]))
    np.testing.assert_array_equal(made, [0, 0, np.inf, np.inf])
    ruled_out = np.array([[1, -inf, 2]] * 3)
    expected = [*np.log1p(np.exp([1, -1])), np.inf]
    for target in (np.array([0, 2, 1]), np.eye(3)[[0, 2, 1]]):
        np.testing.assert_allclose(losses.cross_entropy(ruled_out, target), expected, rtol=1e-6)
    slope = gradient(losses.cross_entropy, ruled_out[:2], np.eye(3, dtype="f")[[0, 2]])
    chance = scipy.special.expit(1.0)
    np.testing.assert_allclose(slope, [[-chance, 0, chance], [1 - chance, 0, chance - 1]], rtol=1e-5)


def test_log_cosh_keeps_its_digits_near_zero():
    error = np.array([0, 1e-12, 1e-5, 1e-3, -1e-3, 0.999999, 1, -1, 1.000001, 30, -100], np.float32)
    made = losses.log_cosh(error, np.zeros_like(error))
    exact = error.astype(float)
    expected = np.abs(exact) + np.log1p(np.expm1(-2 * np.abs(exact)) / 2)
    expected[np.abs(exact) < 1e-2] = (exact**2 / 2 - exact**4 / 12)[np.abs(exact) < 1e-2]
    np.testing.assert_allclose(made, expected, rtol=2e-6)
    np.testing.assert_allclose(gradient(losses.log_cosh, error, 0 * error), np.tanh(exact), rtol=2e-6)
    curvature = jax.vmap(jax.grad(jax.grad(lambda e: losses.log_cosh(e[None], jnp.zeros(1))[0])))
    curvature = jax.jit(curvature, compiler_options=UNOPTIMIZED)(error)
    np.testing.assert_allclose(curvature, 1 - np.tanh(exact) ** 2, rtol=1e-4, atol=1e-6)


def test_chances_of_zero_and_one():
    prediction = np.array([[0, 1], [0, 1], [1, 0], [0.5, 0.5], [1, 0]], np.float32)
    target = np.array([[0, 1], [1, 0], [1, 0], [1, 0], [0.5, 0.5]], np.float32)
    made = losses.kl_divergence(prediction, target)
    np.testing.assert_allclose(made, [0, np.inf, 0, np.log(2), np.inf], rtol=1e-6)
    slope = gradient(losses.kl_divergence, prediction[[0, 2, 3]], target[[0, 2, 3]])
    np.testing.assert_allclose(slope, [[0, -1], [-1, 0], [-2, 0]])
    np.testing.assert_array_equal(losses.kl_divergence(CHANCES, CHANCES), np.zeros(N))
    small = np.float32([[1e-37, 1 - 1e-37]])
    np.testing.assert_allclose(losses.kl_divergence(small, np.float32([[1, 0]])), [37 * np.log(10)], rtol=1e-6)
    np.testing.assert_allclose(losses.kl_divergence(np.float32([[0.5, 0.5]]), small), [np.log(2)], rtol=1e-6)


def test_poisson_at_zero():
    prediction, target = np.array([0, 0, 2, 1e-30], np.float32), np.array([0, 3, 0, 0], np.float32)
    np.testing.assert_allclose(losses.poisson(prediction, target), [0, np.inf, 2, 1e-30])
    np.testing.assert_array_equal(gradient(losses.poisson, prediction[[0, 2]], target[[0, 2]]), [1, 1])


def test_log_errors_at_the_edge():
    prediction, target = np.array([0, -1, -1 + 2.0**-20, 0], np.float32), np.array([0, 0, 0, -0.5], np.float32)
    expected = [0, np.inf, np.log(2.0**-20) ** 2, np.log(0.5) ** 2]
    np.testing.assert_allclose(losses.squared_log_error(prediction, target), expected, rtol=1e-6)
    assert np.isfinite(gradient(losses.squared_log_error, prediction[[0, 2, 3]], target[[0, 2, 3]])).all()


def test_cosine_of_tiny_huge_parallel_and_zero_vectors():
    a = np.array([[3, 4], [3, 4], [3, 4], [3, 4], [0, 0], [0, 0], [3, 4]], float)
    b = np.array([[4, 3], [6, 8], [-3, -4], [-4, 3], [3, 4], [0, 0], [0, 0]], float)
    expected = np.array([0.04, 0, 2, 1, 1, 1, 1])
    for left, right in ((1, 1), (1e-30, 1e30), (5e37, 1e-37)):
        p, t = (left * a).astype(np.float32), (right * b).astype(np.float32)
        np.testing.assert_allclose(losses.cosine_distance(p, t), expected, atol=3e-7)
        slope = gradient(losses.cosine_distance, p, t)
        assert np.isfinite(slope).all()
        np.testing.assert_array_equal(slope[4:], np.zeros((3, 2)))
        if left < 1e37:  # of length sin/|p|, at a right angle to p, where float32 holds it
            np.testing.assert_allclose(slope[0] * left, -np.array([4, -3]) * 0.28 / 25, rtol=1e-5)
    near = np.float32([[1, 1e-4]])  # 1 - cos itself is lost to rounding here
    np.testing.assert_allclose(losses.cosine_distance(near, np.float32([[1, 0]])), [5e-9], rtol=1e-3)


def test_kinks_have_slope_zero():
    zero, one = np.zeros(1, np.float32), np.ones(1, np.float32)
    for loss in (losses.absolute_error, losses.absolute_percentage_error, losses.huber, losses.log_cosh):
        assert gradient(loss, one, one) == 0
    assert gradient(losses.absolute_percentage_error, zero, zero) == 0
    assert gradient(losses.hinge, one, one) == 0
    assert gradient(losses.squared_hinge, one, one) == 0
    edge = np.float32([[0, 1, -5]])
    for loss in (losses.categorical_hinge, losses.multiclass_hinge):
        np.testing.assert_array_equal(loss(edge, np.array([1])), [0])
        np.testing.assert_array_equal(gradient(loss, edge, np.array([1])), [[0, 0, 0]])


def test_a_single_class_is_never_wrong():
    one, label = LOGITS[:, :1], np.zeros(N, int)
    for name in LABELLED:
        np.testing.assert_array_equal(value(getattr(losses, name), one, label), np.zeros(N))
        np.testing.assert_array_equal(gradient(getattr(losses, name), one, label), np.zeros((N, 1)))


# --- Types and shapes -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PROBLEMS)
def test_integers_count_as_floats(name):
    prediction, target = PROBLEMS[name]
    prediction = np.round(prediction).astype(int)
    target = target if name in LABELLED else np.round(target).astype(int)
    made = getattr(losses, name)(prediction, target)
    assert made.dtype == jnp.float32
    expected = getattr(losses, name)(prediction.astype("f"), target if name in LABELLED else target.astype("f"))
    np.testing.assert_array_equal(made, expected)
    unsigned = np.array([[1, 0], [0, 1]], np.uint8)
    if name not in LABELLED:  # 0 - 1 is 255 in eight bits
        made = getattr(losses, name)(unsigned, unsigned[::-1])
        np.testing.assert_array_equal(made, getattr(losses, name)(unsigned.astype("f"), unsigned[::-1].astype("f")))


def test_few_bits_in_few_bits_out():
    few = jax.ShapeDtypeStruct((N, K), jnp.bfloat16)
    for name in PROBLEMS:
        made = jax.eval_shape(getattr(losses, name), few, jnp.asarray(LABELS) if name in LABELLED else few)
        assert (made.shape, made.dtype) == ((N,), jnp.bfloat16), name
    half = losses.absolute_percentage_error(np.zeros(1, np.float16), np.zeros(1, np.float16))
    np.testing.assert_array_equal(half, [0])


def test_shapes_that_would_spread_are_refused():
    with jax.numpy_rank_promotion("allow"):
        for name in PROBLEMS:
            loss = getattr(losses, name)
            if name in LABELLED:
                if name != "zero_one":  # which takes one logit as well
                    with pytest.raises(ValueError, match=r"prediction \(40,\) must be \(n, k\)"):
                        loss(LOGITS[:, 0], LABELS)
                for target in (LABELS[:, None], LABELS[:5], ONE_HOT[:, :3], LABELS.reshape(5, 8)):
                    with pytest.raises(ValueError, match=r"must be \(n,\) or \(n, k\)"):
                        loss(LOGITS, target)
                with pytest.raises(ValueError, match=r"target \(40,\) of float32 must be integer labels"):
                    loss(LOGITS, LOGITS[:, 0])
                continue
            with pytest.raises(ValueError, match=r"\(40, 1\) and target \(40,\) must have one shape"):
                loss(LOGITS[:, :1], LOGITS[:, 0])
            with pytest.raises(ValueError, match=r"prediction \(40,\) and target \(40, 1\) must have one shape"):
                loss(LOGITS[:, 0], LOGITS[:, :1])
            with pytest.raises(ValueError, match=r"prediction \(\) must be"):
                loss(1.0, 2.0)
