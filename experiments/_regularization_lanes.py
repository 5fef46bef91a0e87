"""One lane of each panel of the regularization study: the pure functions that are swept over seeds and strengths."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from nnjax import losses, models, regularizers
from nnjax.classical import least_squares
from nnjax.data import linear_gaussian, noisy_labels
from nnjax.train import Config as TrainConfig
from nnjax.train import Network, Result, Train, log_spaced_steps, make_train
from nnjax.types import Array, Key, PyTree

METRICS = {"loss": losses.cross_entropy, "error": losses.zero_one}
MOMENTUM = 0.9
NEAR_ZERO = 1e-3
"""A weight counts as near zero where it is at most this share of the largest one in its matrix (or of He's standard
deviation, where that is more: in a matrix that has died as a whole, the largest is near zero too)."""

VARIANTS = (
    "full recipe", "ReLU for ELU", "logistic for ELU", "N(0, 0.01²) for He", "without dropout", "without momentum",
)  # fmt: skip
"""The textbook recipe and what is changed in it; what has no batch normalization is another program."""
WITHOUT_NORM = "without batch norm"

LINEAR_RATE = 0.02
LINEAR_STEPS = 5000
LINEAR_STRENGTHS = (0.0, *(float(s) for s in np.geomspace(0.01, 10.0, 13)))


# Data


def draw_examples(key: Key, data: Mapping[str, Array], noise: float, seeds: int) -> dict[str, np.ndarray]:
    """Which pool examples each seed trains on, in its order, and its noisy labels; once for all programs.

    Returns:
      ``order`` (seeds, pool), ``y`` (seeds, pool) labels of those, ``y_validation`` (seeds, validation).
    """
    classes = data["classes"].shape[0]

    @jax.jit
    def draw(seed: Array) -> dict[str, Array]:
        order_key, noise_key, validation_key = jax.random.split(jax.random.fold_in(key, seed), 3)
        order = jax.random.permutation(order_key, data["y_train"].shape[0]).astype(jnp.int32)
        return {
            "order": order,
            "y": noisy_labels(noise_key, jnp.asarray(data["y_train"])[order], noise, classes),
            "y_validation": noisy_labels(validation_key, jnp.asarray(data["y_validation_clean"]), noise, classes),
        }

    drawn = [jax.device_get(draw(seed)) for seed in range(seeds)]
    return {name: np.stack([each[name] for each in drawn]) for name in drawn[0]}


def _splits(data: Mapping[str, Array], seed: Array, index: Array) -> dict[str, tuple[Array, Array]]:
    """Training (the seed's examples at ``index``), validation and test examples; test labels are clean."""
    order = data["order"][seed][index]
    return {
        "train": (data["x_train"][order], data["y"][seed][index]),
        "validation": (data["x_validation"], data["y_validation"][seed]),
        "test": (data["x_test"], data["y_test"]),
    }


def _first(data: Mapping[str, Array], hparams: Mapping[str, Array], n: int) -> dict[str, tuple[Array, Array]]:
    return _splits(data, hparams["seed"], jnp.arange(n))


# Training


def _classes(data: Mapping[str, Array]) -> int:
    return data["classes"].shape[0]


def _started(model: models.MLP, std: Callable[[int], Array] | None = None) -> Network:
    """The model with He's normal weights (or those of standard deviation ``std(fan_in)``), all of them one draw.

    A program with one draw compiles in four fifths of the time of one with a draw a layer.
    """
    plain = models.network(model.clone(initializer="zeros"))

    def init(key: Key, x: Array) -> tuple[PyTree, PyTree]:
        params, stats = plain.init(key, x)
        kernels = regularizers.kernels(params)
        ends = np.cumsum([w.size for w in kernels])
        pieces = iter(jnp.split(jax.random.normal(key, (ends[-1],)), ends[:-1]))

        def weights(w: Array) -> Array:
            scale = jnp.sqrt(2 / w.shape[0]) if std is None else std(w.shape[0])
            return scale * next(pieces).reshape(w.shape)

        return jax.tree.map(lambda w: weights(w) if w.ndim >= 2 else w, params), stats

    return plain._replace(init=init)


def _nesterov(rate: Any, momentum: Any = MOMENTUM) -> optax.GradientTransformation:
    return optax.sgd(rate, momentum=momentum, nesterov=True)


def _decaying(learning_rate: float, steps: int) -> Callable[[Any], optax.GradientTransformation]:
    """Nesterov momentum whose rate falls to zero, so that what a penalty sends to zero comes to rest there."""
    return lambda _: _nesterov(optax.cosine_decay_schedule(learning_rate, steps))


def memorized_share(network: Network, result: Result, data: Mapping[str, Array], seed: Array, n: int) -> Array:
    """Share of the wrongly labelled training examples whose wrong label the net gives back, ()."""
    order, y = data["order"][seed][:n], data["y"][seed][:n]
    logits, _ = network.apply(result.params, result.stats, data["x_train"][order], key=None, train=False)
    wrong = y != data["y_train"][order]
    return jnp.sum((jnp.argmax(logits, axis=-1) == y) & wrong) / jnp.sum(wrong)


def near_zero_share(params: PyTree) -> Array:
    """Share of all weights that are near zero, see `NEAR_ZERO`, ()."""
    kernels = [jnp.abs(w) for w in regularizers.kernels(params)]
    small = [jnp.sum(w <= NEAR_ZERO * jnp.maximum(jnp.max(w), jnp.sqrt(2 / w.shape[0]))) for w in kernels]
    return jnp.sum(jnp.stack(small)) / sum(w.size for w in kernels)


def _at_end(result: Result) -> dict[str, Array]:
    """Every metric at the last evaluation."""
    found = {name: curve[-1] for name, curve in result.history.items() if name != "step"}
    return found | {"diverged": result.diverged}


def penalty_lane(
    key: Key,
    hparams: Mapping[str, Array],
    data: Mapping[str, Array],
    *,
    kind: str,
    n: int,
    hidden: tuple[int, ...],
    config: TrainConfig,
    learning_rate: float,
) -> dict[str, Array]:
    """A net trained with an L1 or L2 penalty, or with dropout, and what it has memorized.

    ``kind``: "l1" and "l2" read ``strength``; with ``per_sample`` the L2 penalty is the textbook form of strength
    2 n ``strength``, the same to the last bit where n is a power of two; "dropout" reads ``rate``.
    """
    rate = hparams["rate"] if kind == "dropout" else 0.0
    network = _started(models.MLP(hidden, _classes(data), dropout=rate))

    def penalty(params: PyTree, h: Mapping[str, Array]) -> Array:
        if kind == "l1":
            return regularizers.l1(params, h["strength"])
        plain = regularizers.l2(params, h["strength"])
        textbook = regularizers.l2_mean(params, 2 * n * h["strength"], n)
        return jnp.where(h["per_sample"] == 1, textbook, plain)

    steps = config.steps or 0
    train = make_train(
        network, losses.cross_entropy, _decaying(learning_rate, steps), config,
        metrics=METRICS, penalty=None if kind == "dropout" else penalty,
    )  # fmt: skip
    result = train(key, hparams, _first(data, hparams, n))
    return _at_end(result) | {
        "memorized": memorized_share(network, result, data, hparams["seed"], n),
        "norm": jnp.sqrt(regularizers.l2(result.params, 1.0)),
        "near_zero": near_zero_share(result.params),
    }


def early_stopping_lane(
    key: Key,
    hparams: Mapping[str, Array],
    data: Mapping[str, Array],
    *,
    n: int,
    hidden: tuple[int, ...],
    config: TrainConfig,
    learning_rate: float,
) -> dict[str, Array]:
    """Learning curves of a net that memorizes; the parameters of the best validation loss, evaluated again."""
    network = _started(models.MLP(hidden, _classes(data)))
    splits = _first(data, hparams, n)
    train = make_train(network, losses.cross_entropy, lambda _: _nesterov(learning_rate), config, metrics=METRICS)
    result = train(key, None, splits)
    logits, _ = network.apply(result.params, result.stats, splits["test"][0], key=None, train=False)
    kept = [f"{split}_{metric}" for split in splits for metric in METRICS]
    return {name: result.history[name] for name in kept} | {
        "best_step": result.step,
        "returned_error": jnp.mean(losses.zero_one(logits, splits["test"][1])),
        "memorized": memorized_share(network, result, data, hparams["seed"], n),
        "diverged": result.diverged,
    }


def batch_norm_lane(
    key: Key,
    hparams: Mapping[str, Array],
    data: Mapping[str, Array],
    *,
    normalize: str,
    n: int,
    hidden: tuple[int, ...],
    config: TrainConfig,
) -> dict[str, Array]:
    """A deeper net under plain gradient descent at one learning rate, with or without batch normalization."""
    network = _started(models.MLP(hidden, _classes(data), normalize=normalize))
    train = make_train(network, losses.cross_entropy, lambda h: optax.sgd(h["rate"]), config, metrics=METRICS)
    return _at_end(train(key, hparams, _first(data, hparams, n)))


def sharpness(loss: Callable[[PyTree], Array], params: PyTree, rounds: int = 30) -> Array:
    """Largest eigenvalue (in size) of the loss's Hessian at ``params``, (): power iteration from the gradient."""

    def unit(v: PyTree) -> PyTree:
        return optax.tree.scale(1 / optax.tree.norm(v), v)

    def curvature(v: PyTree) -> PyTree:
        return jax.jvp(jax.grad(loss), (params,), (v,))[1]

    v = jax.lax.fori_loop(0, rounds, lambda _, v: unit(curvature(v)), unit(jax.grad(loss)(params)))
    return optax.tree.vdot(v, curvature(v))


def batch_size_lane(
    key: Key,
    hparams: Mapping[str, Array],
    data: Mapping[str, Array],
    *,
    batch: int,
    n: int,
    hidden: tuple[int, ...],
    epochs: int,
    updates: int,
    loss_level: float,
) -> dict[str, Array]:
    """Plain gradient descent with one batch size, seen after equal epochs, equal updates, and at equal training loss.

    All results but ``sharpness`` (after equal updates) have those three along their axis; NaN where the training loss
    was never down to ``loss_level``.
    """
    network = _started(models.MLP(hidden, _classes(data)))
    splits = _first(data, hparams, n)
    # A full-batch epoch is one update, so a multiple of `epochs` is an evaluation for every batch size.
    steps = max(epochs * n // batch, updates)
    config = TrainConfig(steps=steps, batch_size=batch, evaluate_every=epochs)
    train: Train = make_train(network, losses.cross_entropy, lambda h: optax.sgd(h["rate"]), config, metrics=METRICS)

    def training_loss(params: PyTree) -> Array:
        logits, _ = network.apply(params, {}, splits["train"][0], key=None, train=False)
        return jnp.mean(losses.cross_entropy(logits, splits["train"][1]))

    state = train.advance(train.start(key, hparams, splits), hparams, splits, ticks=updates // epochs)
    sharp = sharpness(training_loss, state.params)
    if steps > updates:
        state = train.advance(state, hparams, splits, ticks=(steps - updates) // epochs)
    result = train.finish(state, splits)
    reached = result.history["train_loss"] <= loss_level
    at = jnp.stack([jnp.asarray(n // batch - 1), jnp.asarray(updates // epochs - 1), jnp.argmax(reached)])
    there = jnp.stack([jnp.asarray(True), jnp.asarray(True), jnp.any(reached)])
    kept = ("train_loss", "train_error", "validation_loss", "validation_error", "test_error")
    found = {name: jnp.where(there, result.history[name][at], jnp.nan) for name in kept}
    return found | {"sharpness": sharp, "diverged": result.diverged}


def recipe_lane(
    key: Key,
    hparams: Mapping[str, Array],
    data: Mapping[str, Array],
    *,
    normalize: str,
    n: int,
    hidden: tuple[int, ...],
    dropout: float,
    config: TrainConfig,
) -> dict[str, Array]:
    """He initialization, ELU, batch norm, dropout and Nesterov momentum, or one of them changed (`VARIANTS`)."""
    changed = [hparams["variant"] == place for place in range(len(VARIANTS))]
    relu, logistic, small, undropped, still = changed[1:]

    def activation(z: Array) -> Array:
        return jnp.where(relu, jax.nn.relu(z), jnp.where(logistic, jax.nn.sigmoid(z), jax.nn.elu(z)))

    rate = jnp.where(undropped, 0.0, dropout)
    model = models.MLP(hidden, _classes(data), activation, dropout=rate, normalize=normalize)
    network = _started(model, lambda fan_in: jnp.where(small, 0.01, jnp.sqrt(2 / fan_in)))

    def optimizer(h: Mapping[str, Array]) -> optax.GradientTransformation:
        return _nesterov(h["rate"], jnp.where(still, 0.0, MOMENTUM))

    train = make_train(network, losses.cross_entropy, optimizer, config, metrics=METRICS)
    return _at_end(train(key, hparams, _first(data, hparams, n)))


def learning_curve_lane(
    key: Key,
    hparams: Mapping[str, Array],
    data: Mapping[str, Array],
    *,
    most: int,
    hidden: tuple[int, ...],
    config: TrainConfig,
    learning_rate: float,
) -> dict[str, Array]:
    """A net on the first ``hparams["n"]`` examples, each repeated ``most`` / n times so that all n share a program."""
    network = _started(models.MLP(hidden, _classes(data)))
    splits = _splits(data, hparams["seed"], jnp.arange(most) % hparams["n"])
    train = make_train(
        network, losses.cross_entropy, _decaying(learning_rate, config.steps or 0), config,
        metrics=METRICS, penalty=lambda params, h: regularizers.l2(params, h["strength"]),
    )  # fmt: skip
    return _at_end(train(key, hparams, splits))


def linear_lane(key: Key, hparams: Mapping[str, Array], data: Any, *, n: int, p: int, noise: float) -> dict[str, Array]:
    """Linear regression by gradient descent, with every penalty and at every time, beside its closed forms.

    The objective is |y - X b|^2 / 2n + strength / 2 |b|^2, whose minimum is `least_squares.ridge` with that
    strength, and whose path without a penalty is `least_squares.gradient_flow` up to the step size. Risks are
    |b - beta|^2, the excess risk for inputs of unit covariance.
    """
    sample = linear_gaussian(key, n, p, signal=1.0, noise=noise)
    network = Network(
        init=lambda key, x: ({"kernel": jnp.zeros((p, 1))}, {}),
        apply=lambda params, stats, x, *, key, train: (x @ params["kernel"], stats),
    )
    # With the unit vectors as inputs the summed squared error is |b - beta|^2.
    splits = {"train": (sample.x, sample.y[:, None]), "risk": (jnp.eye(p), sample.beta[:, None])}
    config = TrainConfig(steps=LINEAR_STEPS, evaluate_at=linear_steps())
    train = make_train(
        network, losses.half_squared_error, lambda _: optax.sgd(LINEAR_RATE), config,
        metrics={"squared": losses.squared_error}, penalty=lambda params, h: regularizers.l2(params, h / 2),
    )  # fmt: skip
    strengths = jnp.asarray(LINEAR_STRENGTHS)
    result = jax.vmap(lambda strength: train(key, strength, splits))(strengths)
    times = LINEAR_RATE * jnp.asarray(linear_steps())
    ridge = least_squares.ridge(sample.x, sample.y, strengths)
    trained = result.params["kernel"][..., 0]

    def risk(b: Array) -> Array:
        return jnp.sum((b - sample.beta[None, :]) ** 2, axis=-1)

    return {
        "ridge": risk(trained),
        "ridge_exact": risk(ridge),
        "off": jnp.linalg.norm(trained - ridge, axis=-1) / jnp.linalg.norm(ridge, axis=-1),
        "stopped": p * result.history["risk_squared"][0],
        "stopped_exact": risk(least_squares.gradient_flow(sample.x, sample.y, times)),
        "ridge_at_time": risk(least_squares.ridge(sample.x, sample.y, 1 / times)),
    }


def linear_steps() -> tuple[int, ...]:
    """Steps after which gradient descent is looked at in the linear panel."""
    return log_spaced_steps(LINEAR_STEPS, 24)[1:]
