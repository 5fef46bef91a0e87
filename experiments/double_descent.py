"""Double descent: test error against capacity, samples and epochs, with exact theory where there is one.

Panels
  linear           Gaussian linear regression: ridgeless, ridge and gradient flow at their best, against exact risk.
  spherical        Ridgeless ReLU features of data on the sphere, against the closed form of Mei and Montanari (2019).
  random_features  Ridgeless regression on random ReLU and Fourier features of pictures, in float64.
  samples          Random ReLU features of one width on more and more examples.
  mlp, mlp_smaller Two-layer nets by width and label noise, with evaluations at 25 log-spaced steps; on fewer examples.
  cnn              Convolutional nets by width (standard: SmallCNN; full: ResNet18k of Nakkiran et al., 2019).

Falsifiable check: the peak sits where the model just interpolates, so it moves right when there are more examples: to
p = n for random features, to more parameters for nets. For nets it is located by test cross-entropy, fixed beforehand
because at this size the bump of the error is small when n is; the error is reported beside it. Nets on fewer examples
get as many updates, so more epochs. Weights are never reused across widths.

What is random: a seed draws the training examples from a pool, the label noise (nested: the flips at 10 % are among
those at 20 %), the weights and the order. Test sets are fixed. Validation labels are as noisy as training labels; they
alone choose penalties and stopping times. Inputs of random features are centred on the pool's mean: otherwise about 5 %
of the ReLU features are dead, the rank reaches n only at p = 1.05 n, and the peak sits there.

Deviations from the published protocols. Belkin et al. (2019): ReLU beside Fourier features, label noise, fewer
examples, classification error in place of squared loss. Nakkiran et al. (2019), preset full: 49,000 training examples
(1,000 validate), pictures standardized before the zero padding of the crops, Flax's initialization, 5 seeds a width.

Sources: Belkin et al. (2019); Nakkiran et al. (2019); Hastie et al. (2019); Belkin, Hsu and Xu (2019);
Advani and Saxe (2017); Mei and Montanari (2019).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments import command
from experiments._double_descent_report import plot, report
from nnjax import losses, models
from nnjax.classical import least_squares, random_features
from nnjax.data import fit_standardizer, linear_sphere, load, noisy_labels, random_crop_and_flip, stratified_split
from nnjax.sweep import sweep
from nnjax.theory import double_descent as theory
from nnjax.train import Config as TrainConfig
from nnjax.train import Network, log_spaced_steps, make_train
from nnjax.types import Array, Key

if TYPE_CHECKING:
    import xarray as xr

    from nnjax.monitor import Monitor
    from nnjax.sweep import Store

__all__ = ["PRESETS", "Config", "main", "plot", "report", "run", "sweeps"]

WIDE_RATIOS = (2.5, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0)
"""Features over examples beyond 2 n."""

RIDGES = (0.0, *(10.0**e for e in range(-7, 0)))
"""Penalties that the tuned curve chooses from, on validation data."""

_PICTURES = ("digits", "mnist", "fashion_mnist", "cifar10", "cifar10_jpeg")

LINEAR_TIMES = tuple(float(t) for t in np.geomspace(0.1, 1e4, 26))
"""Training times at which gradient flow is looked at."""


@dataclass(frozen=True)
class Config:
    """What is studied; sizes are numbers of examples, features or units."""

    seed: int = 0
    """Seed of everything."""
    linear_n: int = 100
    """Examples in the linear panel."""
    linear_draws: int = 300
    """Independent data sets in the linear panel."""
    linear_noise: float = 0.25
    """Variance of the target noise in the linear and spherical panels; the signal's is 1."""
    spherical_draws: int = 24
    """Independent data sets in the spherical panel."""
    features_data: str = "digits"
    """Data set of the random-features and samples panels."""
    features_n: tuple[int, ...] = (200, 300)
    """Training sizes of the random-features panel, multiples of 20."""
    features_kinds: tuple[str, ...] = ("relu", "fourier")
    """Kinds of random features: relu, fourier."""
    features_spacing: float = 0.05
    """Spacing of the numbers of features up to 2 n, in units of n; 0.05 is added round n where it is wider."""
    features_seeds: int = 20
    """Seeds of the random-features panel."""
    samples_width: int = 200
    """Random features in the samples panel."""
    samples_seeds: int = 10
    """Seeds of the samples panel."""
    noise: tuple[float, ...] = (0.0, 0.1, 0.2)
    """Shares of training and validation labels replaced by wrong ones, ascending."""
    mlp_data: str = "digits"
    """Data set of the MLP panels."""
    mlp_n: int = 1000
    """Training examples of the MLP panel."""
    mlp_smaller_n: int = 500
    """Training examples of the second MLP panel, at the highest noise."""
    mlp_widths: tuple[int, ...] = (2, 4, 6, 8, 11, 15, 20, 28, 48, 96)
    """Hidden units of the two-layer nets."""
    mlp_seeds: int = 5
    """Seeds of the MLP panels."""
    mlp_steps: int = 5000
    """Updates of every net."""
    mlp_batch: int = 100
    """Examples an update."""
    mlp_learning_rate: float = 3e-3
    """Adam's learning rate for the MLPs."""
    cnn: str = ""
    """Convolutional panel: cnn, resnet, or empty for none."""
    cnn_data: str = "fashion_mnist"
    """Data set of the convolutional panel."""
    cnn_n: int = 1000
    """Training examples of the convolutional panel."""
    cnn_widths: tuple[int, ...] = (1, 2, 3, 4, 6, 8, 12)
    """Widths k of the convolutional nets (k, 2k, 4k, 8k channels)."""
    cnn_noise: tuple[float, ...] = (0.0, 0.2)
    """Label noise of the convolutional panel."""
    cnn_seeds: int = 3
    """Seeds of the convolutional panel."""
    cnn_steps: int = 2000
    """Updates of every convolutional net."""
    cnn_evaluations: int = 16
    """Evaluations of every convolutional net, log-spaced."""
    cnn_batch: int = 128
    """Examples an update of the convolutional nets."""
    cnn_learning_rate: float = 1e-3
    """Adam's learning rate for the convolutional nets."""
    cnn_augment: bool = False
    """Random crops and mirroring in the convolutional panel."""
    test_n: int = 2000
    """At most so many test examples."""
    validation_n: int = 300
    """Validation examples (labels as noisy as in training): early stopping and ridge tuning see these alone."""

    def __post_init__(self) -> None:
        for name, least in _LEAST.items():
            values = getattr(self, name)
            for value in values if isinstance(values, tuple) else (values,):
                if not least <= value < 2**31:
                    raise ValueError(f"{name}={value} must be at least {least:g} and below 2^31")
            if values == ():
                raise ValueError(f"{name} is empty; give at least one value")
            if isinstance(values, tuple) and list(values) != sorted(set(values)):
                raise ValueError(f"{name}={values} must be ascending, each value once")
        if any(not 0 <= rate <= 1 for rate in (*self.noise, *self.cnn_noise)):
            raise ValueError(f"noise={self.noise}, cnn_noise={self.cnn_noise} must lie between 0 and 1")
        if any(n % 20 for n in self.features_n):
            raise ValueError(f"features_n={self.features_n} must be multiples of 20, the grid's spacing being n/20")
        if not 0 < self.mlp_smaller_n < self.mlp_n:
            raise ValueError(f"mlp_smaller_n={self.mlp_smaller_n} must lie between 1 and mlp_n={self.mlp_n}")
        if self.mlp_batch > self.mlp_smaller_n:
            raise ValueError(f"mlp_batch={self.mlp_batch} must be at most mlp_smaller_n={self.mlp_smaller_n}")
        if len(self.mlp_widths) < 3 or len(self.cnn_widths) < 3:
            raise ValueError("mlp_widths and cnn_widths need at least three values each, or there is no peak to find")
        if self.cnn and self.cnn_batch > self.cnn_n:
            raise ValueError(f"cnn_batch={self.cnn_batch} must be at most cnn_n={self.cnn_n}")
        if not self.features_kinds or len(set(self.features_kinds)) < len(self.features_kinds):
            raise ValueError(f"features_kinds={self.features_kinds} must name at least one kind, each once")
        for kind in self.features_kinds:
            if kind not in random_features.KINDS:
                raise ValueError(f"features_kinds={kind!r} must be among {', '.join(random_features.KINDS)}")
        for name in ("features_data", "mlp_data", "cnn_data"):
            if getattr(self, name) not in _PICTURES:
                raise ValueError(f"{name}={getattr(self, name)!r} must be among {', '.join(_PICTURES)}")
        if self.cnn not in ("", "cnn", "resnet"):
            raise ValueError(f"cnn={self.cnn!r} must be cnn, resnet or empty")


_LEAST: dict[str, float] = {
    "seed": 0, "linear_n": 20, "linear_draws": 2, "linear_noise": 0, "spherical_draws": 2, "features_n": 20,
    "features_seeds": 2, "features_spacing": 0.01, "samples_width": 2, "samples_seeds": 2, "noise": 0, "mlp_widths": 1,
    "mlp_seeds": 2, "mlp_steps": 10, "mlp_batch": 1, "mlp_learning_rate": 0, "cnn_n": 1, "cnn_widths": 1,
    "cnn_noise": 0, "cnn_seeds": 2, "cnn_steps": 10, "cnn_evaluations": 2, "cnn_batch": 1, "cnn_learning_rate": 0,
    "test_n": 1, "validation_n": 1,
}  # fmt: skip

_QUICK = Config()
PRESETS = {
    "quick": _QUICK,
    "standard": replace(
        _QUICK,
        linear_draws=1000,
        spherical_draws=60,
        features_data="mnist",
        features_n=(2000, 4000),
        features_kinds=("relu",),
        features_spacing=0.1,
        features_seeds=5,
        samples_width=500,
        samples_seeds=5,
        mlp_data="fashion_mnist",
        mlp_n=4000,
        mlp_smaller_n=2000,
        mlp_widths=(1, 2, 3, 4, 6, 8, 10, 12, 16, 24, 40, 64),
        mlp_steps=12_000,
        mlp_learning_rate=2e-3,
        cnn="cnn",
        cnn_widths=(1, 2, 3, 4, 6, 8),
        cnn_noise=(0.2,),
        cnn_seeds=5,
        cnn_steps=1000,
        cnn_learning_rate=2e-3,
        validation_n=1000,
    ),
    "full": replace(
        _QUICK,
        linear_draws=5000,
        spherical_draws=400,
        features_data="mnist",
        features_n=(4000, 10000),
        features_seeds=20,
        samples_width=2000,
        samples_seeds=20,
        mlp_data="fashion_mnist",
        mlp_n=4000,
        mlp_smaller_n=2000,
        mlp_widths=(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 14, 16, 20, 24, 32, 48, 64, 96, 128, 256),
        mlp_seeds=20,
        mlp_steps=100_000,
        cnn="resnet",
        cnn_data="cifar10",
        cnn_n=49_000,
        cnn_widths=(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 14, 16, 20, 24, 32, 40, 48, 56, 64),
        cnn_noise=(0.0, 0.15),
        cnn_seeds=5,
        cnn_steps=1_532_000,  # 4000 epochs
        cnn_evaluations=100,
        cnn_learning_rate=1e-4,
        cnn_augment=True,
        test_n=10_000,
        validation_n=1000,
    ),
}


# One lane of each panel


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


# Data and sweeps


def _pictures(name: str, n: int, config: Config) -> dict[str, np.ndarray]:
    """Training, validation and test pictures; the training part is a pool of at least n."""
    dataset = load(name)
    pool = len(dataset.train.x) - config.validation_n
    if n > pool:
        raise command.BadInput(
            f"{n} training examples are more than the {pool} of {name} beside {config.validation_n} for validation"
        )
    size = min(pool, max(n, 4 * max(config.features_n)))
    train, validation = stratified_split(dataset.train.y, [size, config.validation_n], seed=config.seed)
    tests = min(config.test_n, len(dataset.test.x))
    (test,) = stratified_split(dataset.test.y, [tests], seed=config.seed)
    parts = {
        "x_train": dataset.train.x[train], "y_train": dataset.train.y[train],
        "x_validation": dataset.train.x[validation], "y_validation": dataset.train.y[validation],
        "x_test": dataset.test.x[test], "y_test": dataset.test.y[test],
        "classes": np.arange(len(dataset.class_names), dtype=np.int32),
    }  # fmt: skip
    return {name: np.asarray(value) for name, value in parts.items()}


def _flat(data: Mapping[str, np.ndarray], dtype: type) -> dict[str, np.ndarray]:
    return {
        name: value.reshape(len(value), -1).astype(dtype) if name.startswith("x_") else value
        for name, value in data.items()
    }


def _standardized(data: Mapping[str, np.ndarray], axis: Any) -> dict[str, np.ndarray]:
    scale = fit_standardizer(data["x_train"], axis=axis)
    return {name: np.asarray(scale(v)) if name.startswith("x_") else v for name, v in data.items()}


def _median_distance(x: np.ndarray) -> np.ndarray:
    """Median distance between pictures, the usual scale for the bandwidth of a Gaussian kernel."""
    some = x[:200]
    distances = np.sqrt(((some[:, None] - some[None]) ** 2).sum(-1))
    return np.asarray(np.median(distances[distances > 0]))


def linear_sizes(n: int) -> tuple[int, ...]:
    """Numbers of inputs in the linear panel: none within n/20 of n, where the variance has no mean."""
    ratios = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.86, 0.92, 1.08, 1.14, 1.2, 1.3, 1.5, 1.75, 2, 2.5, 3, 4, 6, 8)
    return tuple(round(ratio * n) for ratio in ratios)


def linear_beta(n: int) -> np.ndarray:
    """Weights of the misspecified model: beta_j proportional to 1/j, |beta|^2 = 1, (p_max,)."""
    beta = 1.0 / np.arange(1, linear_sizes(n)[-1] + 1)
    return beta / np.linalg.norm(beta)


def sample_sizes(width: int) -> tuple[int, ...]:
    """Numbers of examples in the samples panel, up to three times the width."""
    return tuple(
        round(width * r) for r in (0.2, 0.3, 0.45, 0.6, 0.7, 0.8, 0.9, 0.95, 1, 1.05, 1.1, 1.2, 1.35, 1.6, 2, 2.5, 3)
    )


def _theory_sweeps(config: Config, key: Key) -> dict[str, partial]:
    n, noise = config.linear_n, config.linear_noise
    sizes = linear_sizes(n)
    linear = partial(
        sweep,
        partial(linear_lane, n=n, sizes=sizes, noise=noise),
        {"seed": range(config.linear_draws)},
        key=jax.random.fold_in(key, 1),
        data={"beta": linear_beta(n)},
        name="linear",
        float64=True,
        width=1,
        dims={
            **dict.fromkeys(("ridgeless", "ridge", "misspecified"), ("p",)),
            **dict.fromkeys(("flow", "flow_theory"), ("p", "time")),
        },
        coords={"p": list(sizes), "time": list(LINEAR_TIMES)},
    )
    spherical = partial(
        sweep,
        partial(spherical_lane, n=300, d=100, noise=noise, grid=ratios(0.05)),
        {"seed": range(config.spherical_draws)},
        key=jax.random.fold_in(key, 2),
        name="spherical",
        float64=True,
        width=1,
        dims={"risk": ("ratio",)},
        coords={"ratio": list(ratios(0.05))},
    )
    return {"linear": linear, "spherical": spherical}


def _features_sweeps(config: Config, key: Key) -> dict[str, partial]:
    sizes = sample_sizes(config.samples_width)
    data = _flat(_pictures(config.features_data, max(*config.features_n, sizes[-1]), config), np.float64)
    # Centred: pixels that are never negative leave ReLU units that never fire, and the peak would move right.
    middle = data["x_train"].mean(axis=0)
    data |= {name: data[name] - middle for name in ("x_train", "x_validation", "x_test")}
    data["bandwidth"] = 0.5 * _median_distance(data["x_train"])
    grid = ratios(config.features_spacing)
    errors = ("train_error", "test_error", "test_mse", "tuned_error", "tuned_mse")
    features = partial(
        sweep,
        partial(features_lane, rates=config.noise, grid=grid),
        {"kind": config.features_kinds, "n": config.features_n, "seed": range(config.features_seeds)},
        key=jax.random.fold_in(key, 3),
        data=data,
        name="random_features",
        static=("kind", "n"),
        float64=True,
        width=1,
        dims={
            **dict.fromkeys(errors, ("ratio", "noise")),
            **dict.fromkeys(("rank", "condition", "cutoff"), ("ratio",)),
        },
        coords={"ratio": list(grid), "noise": list(config.noise)},
    )
    samples = partial(
        sweep,
        partial(samples_lane, width=config.samples_width, sizes=sizes, rates=config.noise),
        {"seed": range(config.samples_seeds)},
        key=jax.random.fold_in(key, 4),
        data=data,
        name="samples",
        float64=True,
        width=1,
        dims=dict.fromkeys(("test_error", "test_mse"), ("n", "noise")),
        coords={"n": list(sizes), "noise": list(config.noise)},
    )
    return {"random_features": features, "samples": samples}


_CURVES = dict.fromkeys(("train_error", "train_loss", "test_error", "test_loss"), ("step",))


def _net_sweeps(config: Config, key: Key) -> dict[str, partial]:
    steps = log_spaced_steps(config.mlp_steps, 24, first=10)
    training = TrainConfig(steps=config.mlp_steps, batch_size=config.mlp_batch, evaluate_at=steps)
    pictures = _flat(_pictures(config.mlp_data, config.mlp_n, config), np.float32)
    found = {}
    for name, n, noise in (
        ("mlp", config.mlp_n, config.noise),
        ("mlp_smaller", config.mlp_smaller_n, (max(config.noise),)),
    ):
        lane = partial(mlp_lane, n=n, learning_rate=config.mlp_learning_rate, config=training)
        found[name] = partial(
            sweep,
            lane,
            {"noise": noise, "width": config.mlp_widths, "seed": range(config.mlp_seeds)},
            key=jax.random.fold_in(key, 5),
            data=_standardized(pictures, 0),
            name=name,
            padded="width",
            dims=_CURVES,
            coords={"step": list(steps)},
        )
    if config.cnn:
        found["cnn"] = _convolutional_sweep(config, jax.random.fold_in(key, 6))
    return found


def _convolutional_sweep(config: Config, key: Key) -> partial:
    steps = log_spaced_steps(config.cnn_steps, config.cnn_evaluations, first=10)
    training = TrainConfig(
        steps=config.cnn_steps, batch_size=config.cnn_batch, evaluate_at=steps, evaluation_batch=1000
    )
    pictures = _pictures(config.cnn_data, config.cnn_n, config)
    return partial(
        sweep,
        partial(
            convolutional_lane, n=config.cnn_n, learning_rate=config.cnn_learning_rate, config=training,
            model=config.cnn, augment=config.cnn_augment,
        ),
        {"width": config.cnn_widths, "noise": config.cnn_noise, "seed": range(config.cnn_seeds)},
        key=key,
        data=_standardized(pictures, (0, 1, 2)),
        name="cnn",
        static=("width",),
        width=1 if jax.default_backend() == "cpu" else None,  # grouped convolutions are slow on a CPU
        dims=_CURVES,
        coords={"step": list(steps)},
    )  # fmt: skip


def sweeps(config: Config) -> dict[str, partial]:
    """Every panel's sweep, ready to be called (or planned)."""
    key = jax.random.key(config.seed)
    return _theory_sweeps(config, key) | _features_sweeps(config, key) | _net_sweeps(config, key)


def run(config: Config, *, store: Callable[[str], Store] | None = None, monitor: Monitor | None = None) -> xr.DataTree:
    """Compute every panel; ``store(name)`` keeps a panel's finished chunks. Returns a group a panel."""
    import xarray as xr

    groups = {}
    for name, call in sweeps(config).items():
        groups[name] = call(store=store(name) if store else None, monitor=monitor)
    groups["linear"] = groups["linear"].assign(_linear_theory(config)).assign_attrs(n=config.linear_n)
    groups["spherical"] = groups["spherical"].assign(theory=("ratio", _spherical_theory(config)))
    for name, n in (("mlp", config.mlp_n), ("mlp_smaller", config.mlp_smaller_n)):
        groups[name].attrs |= {"n": n, "data": config.mlp_data, "inputs": _inputs(config.mlp_data), "classes": 10}
    groups["random_features"].attrs["data"] = config.features_data
    groups["samples"].attrs |= {"data": config.features_data, "width": config.samples_width}
    if config.cnn:
        groups["cnn"].attrs |= {"n": config.cnn_n, "data": config.cnn_data, "model": config.cnn}
    return xr.DataTree.from_dict(groups, name="double_descent")


def _inputs(name: str) -> int:
    return int(np.prod(load(name).train.x.shape[1:]))


def _linear_theory(config: Config) -> dict[str, Any]:
    n, noise = config.linear_n, config.linear_noise
    p = np.asarray(linear_sizes(n))
    parts = np.cumsum(linear_beta(n) ** 2)[p - 1]
    with jax.enable_x64(True):
        ridgeless = theory.ridgeless_risk(n, p, signal=1.0, noise=noise)
        ridge = theory.optimal_ridge_risk(p / n, signal=1.0, noise=noise)
        wrong = theory.feature_subset_risk(n, p, included=parts, excluded=1 - parts, noise=noise)
    return {
        "ridgeless_theory": ("p", np.asarray(ridgeless)),
        "ridge_theory": ("p", np.asarray(ridge)),
        "misspecified_theory": ("p", np.asarray(wrong)),
    }


def _spherical_theory(config: Config) -> np.ndarray:
    grid = np.asarray(ratios(0.05))
    with jax.enable_x64(True):
        risk = theory.random_features_risk(
            grid * 3.0, np.full_like(grid, 3.0), linear_signal=1.0, noise=config.linear_noise
        )
    return np.where(np.isclose(grid, 1.0), np.inf, np.asarray(risk))


def main(argv: list[str] | None = None) -> int:
    """The command line: see ``--help``."""
    return command.main("experiments.double_descent", argv)


if __name__ == "__main__":
    sys.exit(main())
