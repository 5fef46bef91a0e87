"""One lane of each panel of the double-descent study: the pure functions that are swept over seeds and sizes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from nnjax import losses, models
from nnjax.classical import least_squares, random_features
from nnjax.data import linear_sphere, noisy_labels, random_crop_and_flip
from nnjax.theory import double_descent as theory
from nnjax.train import Config as TrainConfig
from nnjax.train import Network, make_train
from nnjax.types import Array, Key

WIDE_RATIOS = (2.5, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0)
"""Features over examples beyond 2 n."""

RIDGES = (0.0, *(10.0**e for e in range(-7, 0)))
"""Penalties that the tuned curve chooses from, on validation data."""

LINEAR_TIMES = tuple(float(t) for t in np.geomspace(0.1, 1e4, 26))
"""Training times at which gradient flow is looked at."""


def linear_lane(
    key: Key, hparams: Mapping[str, Array], data: Mapping[str, Array], *, n: int, sizes: tuple[int, ...], noise: float
) -> dict[str, Array]:
    """Excess risks of one data set at every number of inputs p, in units of the signal's variance.

    Well specified: y depends on the p inputs, |beta|^2 = 1. Misspecified: y depends on all inputs with the
    weights ``data["beta"]``, of which the fit sees the first p.
    """
    x_key, beta_key, noise_key = jax.random.split(key, 3)
    all_inputs = sizes[-1]
    x = jax.random.normal(x_key, (n, all_inputs))
    beta = jax.random.normal(beta_key, (all_inputs,))
    error = jnp.sqrt(noise) * jax.random.normal(noise_key, (n,))
    times = jnp.asarray(LINEAR_TIMES)

    def at(p: Array) -> dict[str, Array]:
        seen = jnp.arange(all_inputs) < p
        inputs = jnp.where(seen[None, :], x, 0.0)
        own = jnp.where(seen, beta, 0.0)
        own /= jnp.linalg.norm(own)
        spectrum = least_squares.decompose(inputs @ inputs.T)
        s = spectrum.eigenvalues
        penalty = theory.optimal_ridge_penalty(p / n, signal=1.0, noise=noise)
        filters = jnp.concatenate(
            [
                jnp.where(s > 0, 1 / jnp.where(s > 0, s, 1.0), 0.0)[None],
                (1 / (s + n * penalty))[None],
                -jnp.expm1(-times[:, None] * s[None, :] / n) / jnp.where(s > 0, s, 1.0)[None, :],
            ]
        )

        def fit(y: Array, filters: Array) -> Array:
            return (filters * (spectrum.vectors.T @ y)[None, :]) @ spectrum.vectors.T @ inputs

        risks = jnp.sum((fit(inputs @ own + error, filters) - own[None, :]) ** 2, axis=1)
        hidden = jnp.sum(jnp.where(seen, 0.0, data["beta"]) ** 2)
        wrong = fit(x @ data["beta"] + error, filters[:1])[0] - jnp.where(seen, data["beta"], 0.0)
        flow = partial(theory.gradient_flow_risk, s / n, times, n=n)
        # The Gram matrix has n eigenvalues, X'X has p: the rest are null and keep their share of the signal.
        kept = (n * flow(signal=1.0, noise=0.0) + p - n) / p
        return {
            "ridgeless": risks[0],
            "ridge": risks[1],
            "flow": risks[2:],
            "flow_theory": kept + flow(signal=0.0, noise=noise),
            "misspecified": jnp.sum(wrong**2) + hidden + noise,
        }

    return jax.lax.map(at, jnp.asarray(sizes))


def _classification_errors(predictions: Mapping[str, Array], context: Mapping[str, Array]) -> dict[str, Array]:
    """From outputs (ridges, m, levels * classes) at one width to errors by noise level, ridgeless and tuned."""
    classes = context["classes"].shape[0]

    def by_level(name: str) -> Array:  # (ridges, levels, m, classes)
        outputs = predictions[name]
        return jnp.moveaxis(outputs.reshape(*outputs.shape[:2], -1, classes), 2, 1)

    def squared(name: str, y: Array) -> Array:  # (ridges, levels)
        return jnp.mean((by_level(name) - jax.nn.one_hot(y, classes)[None]) ** 2, axis=(2, 3)) * classes

    def wrong(name: str, y: Array) -> Array:
        return jnp.mean(by_level(name).argmax(-1) != y[None], axis=2)

    test = jnp.broadcast_to(context["y_test"], (context["y_train"].shape[0], len(context["y_test"])))
    chosen = jnp.argmin(squared("validation", context["y_validation"]), axis=0)
    levels = jnp.arange(len(chosen))
    test_error, test_squared = wrong("test", test), squared("test", test)
    return {
        "train_error": wrong("train", context["y_train"])[0],
        "test_error": test_error[0],
        "test_mse": test_squared[0],
        "tuned_error": test_error[chosen, levels],
        "tuned_mse": test_squared[chosen, levels],
    }


def _noisy(key: Key, y: Array, rates: tuple[float, ...], classes: int) -> Array:
    """Labels at each noise level, (levels, n)."""
    return jnp.stack([noisy_labels(key, y, rate, classes) for rate in rates])


def _feature_problem(
    key: Key, data: Mapping[str, Array], n: int, rates: tuple[float, ...]
) -> tuple[dict[str, Array], Array]:
    """Labels for one lane (context), and one-hot targets of all noise levels side by side (n, levels * classes)."""
    train_key, validation_key = jax.random.split(key)
    classes = data["classes"].shape[0]
    context = {
        "classes": data["classes"],
        "y_train": _noisy(train_key, data["y_train"][:n], rates, classes),
        "y_validation": _noisy(validation_key, data["y_validation"], rates, classes),
        "y_test": data["y_test"],
    }
    targets = jax.nn.one_hot(context["y_train"], classes, dtype=data["x_train"].dtype)
    return context, jnp.moveaxis(targets, 0, 1).reshape(n, -1)


def ratios(spacing: float) -> tuple[float, ...]:
    """Features over examples: evenly spaced up to 2, at most n/20 apart from 0.9 to 1.1, then on to 16."""
    even = np.arange(1, round(2 / spacing) + 1) * spacing
    return tuple(sorted({*(round(float(r), 2) for r in even), 0.9, 0.95, 1.0, 1.05, 1.1, *WIDE_RATIOS}))


def features_lane(
    key: Key,
    hparams: Mapping[str, Array],
    data: Mapping[str, Array],
    *,
    n: int,
    kind: str,
    rates: tuple[float, ...],
    grid: tuple[float, ...],
) -> dict[str, Array]:
    """Errors of ridgeless and tuned regression on random features, at every width and noise level."""
    feature_key, label_key, order_key = jax.random.split(key, 3)
    # The seed also chooses which examples are trained on.
    order = jax.random.permutation(order_key, data["x_train"].shape[0])
    mixed = {**data, "x_train": data["x_train"][order], "y_train": data["y_train"][order]}
    context, targets = _feature_problem(label_key, mixed, n, rates)
    x = mixed["x_train"][:n]
    path = random_features.width_path(
        feature_key,
        tuple(round(ratio * n) for ratio in grid),
        x,
        targets,
        {"train": x, "validation": data["x_validation"], "test": data["x_test"]},
        kind=kind,
        ridges=RIDGES,
        bandwidth=data["bandwidth"],
        evaluate=_classification_errors,
        context=context,
    )
    return {**path["evaluation"], "rank": path["rank"], "condition": path["condition"], "cutoff": path["cutoff"]}


def _squared_risk(predictions: Mapping[str, Array], context: Array) -> Array:
    return jnp.mean((predictions["test"][0, :, 0] - context) ** 2)


def spherical_lane(
    key: Key, hparams: Mapping[str, Array], data: Any, *, n: int, d: int, noise: float, grid: tuple[float, ...]
) -> dict[str, Array]:
    """Excess risk of ridgeless ReLU random features for a linear target on the sphere, at every width."""
    sample_key, feature_key = jax.random.split(key)
    sample = linear_sphere(sample_key, n + 2000, d, signal=1.0, noise=noise)
    path = random_features.width_path(
        feature_key,
        tuple(round(ratio * n) for ratio in grid),
        sample.x[:n],
        sample.y[:n, None],
        {"test": sample.x[n:]},
        evaluate=_squared_risk,
        context=sample.x[n:] @ sample.beta,
    )
    return {"risk": path["evaluation"]}


def samples_lane(
    key: Key,
    hparams: Mapping[str, Array],
    data: Mapping[str, Array],
    *,
    width: int,
    sizes: tuple[int, ...],
    rates: tuple[float, ...],
) -> dict[str, Array]:
    """Errors of ridgeless ReLU random features of one width when trained on the first n examples, for every n."""
    feature_key, label_key, order_key = jax.random.split(key, 3)
    most = sizes[-1]
    order = jax.random.permutation(order_key, data["x_train"].shape[0])[:most]
    mixed = {**data, "x_train": data["x_train"][order], "y_train": data["y_train"][order]}
    _, targets = _feature_problem(label_key, mixed, most, rates)
    first = random_features.weights(feature_key, width, data["x_train"].shape[1])
    seen = random_features.features(mixed["x_train"], first)
    gram = seen @ seen.T
    test = random_features.features(data["x_test"], first) @ seen.T

    def at(n: Array) -> dict[str, Array]:
        used = jnp.arange(most) < n
        spectrum = least_squares.decompose(jnp.where(used[:, None] & used[None, :], gram, 0.0))
        # Null directions are cut off, the unused examples' among them.
        dual = least_squares.dual_coefficients(spectrum, jnp.where(used[:, None], targets, 0.0))
        outputs = (test @ dual).reshape(len(test), len(rates), -1)
        wrong = outputs.argmax(-1) != data["y_test"][:, None]
        target = jax.nn.one_hot(data["y_test"], outputs.shape[-1])[:, None]
        return {"test_error": wrong.mean(0), "test_mse": jnp.sum((outputs - target) ** 2, -1).mean(0)}

    return jax.lax.map(at, jnp.asarray(sizes))


def _trained(
    key: Key,
    network: Network,
    data: Mapping[str, Array],
    noise: Array,
    n: int,
    learning_rate: float,
    config: TrainConfig,
) -> dict[str, Array]:
    """Learning curves of one net on noisy labels, and the test error where validation loss was least."""
    noise_key, validation_key, run_key, order_key = jax.random.split(key, 4)
    classes = data["classes"].shape[0]
    order = jax.random.permutation(order_key, data["x_train"].shape[0])[:n]  # the seed chooses the examples
    splits = {
        "train": (data["x_train"][order], noisy_labels(noise_key, data["y_train"][order], noise, classes)),
        "validation": (data["x_validation"], noisy_labels(validation_key, data["y_validation"], noise, classes)),
        "test": (data["x_test"], data["y_test"]),
    }
    metrics = {"loss": losses.cross_entropy, "error": losses.zero_one}
    train = make_train(network, losses.cross_entropy, lambda _: optax.adam(learning_rate), config, metrics=metrics)
    result = train(run_key, None, splits)
    history = result.history
    best = jnp.argmin(history["validation_loss"])
    kept = ("train_error", "train_loss", "test_error", "test_loss")
    return {name: history[name] for name in kept} | {
        "early_error": history["test_error"][best],
        "early_loss": history["test_loss"][best],
        "diverged": result.diverged,
    }


def mlp_lane(
    key: Key,
    hparams: Mapping[str, Array],
    data: Mapping[str, Array],
    *,
    width: int,
    n: int,
    learning_rate: float,
    config: TrainConfig,
) -> dict[str, Array]:
    """A two-layer ReLU net with ``hparams["width"]`` living units inside an allocation of ``width``."""
    model = models.MLP((width,), classes=data["classes"].shape[0])
    network = models.padded_mlp(model, [hparams["width"]])
    return _trained(key, network, data, hparams["noise"], n, learning_rate, config)


def convolutional_lane(
    key: Key,
    hparams: Mapping[str, Array],
    data: Mapping[str, Array],
    *,
    width: int,
    n: int,
    learning_rate: float,
    config: TrainConfig,
    model: str,
    augment: bool,
) -> dict[str, Array]:
    """A SmallCNN or ResNet18k of width k."""
    family: Callable[..., Any] = models.ResNet18k if model == "resnet" else models.SmallCNN
    network = models.network(family(width, classes=data["classes"].shape[0]))
    if augment:
        plain = network.apply

        def apply(params: Any, stats: Any, x: Array, *, key: Key, train: bool) -> tuple[Array, Any]:
            return plain(params, stats, random_crop_and_flip(key, x) if train else x, key=key, train=train)

        network = network._replace(apply=apply)
    return _trained(key, network, data, hparams["noise"], n, learning_rate, config)
