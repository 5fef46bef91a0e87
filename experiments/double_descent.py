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
import numpy as np

from experiments import command
from experiments._double_descent_figures import plot
from experiments._double_descent_lanes import (
    LINEAR_TIMES,
    convolutional_lane,
    features_lane,
    linear_lane,
    mlp_lane,
    ratios,
    samples_lane,
    spherical_lane,
)
from experiments._double_descent_report import report
from nnjax.classical import random_features
from nnjax.data import fit_standardizer, load, stratified_split
from nnjax.sweep import sweep
from nnjax.theory import double_descent as theory
from nnjax.train import Config as TrainConfig
from nnjax.train import log_spaced_steps
from nnjax.types import Key

if TYPE_CHECKING:
    import xarray as xr

    from nnjax.monitor import Monitor
    from nnjax.sweep import Store

__all__ = ["PRESETS", "Config", "main", "plot", "report", "run", "sweeps"]

_PICTURES = ("digits", "mnist", "fashion_mnist", "cifar10", "cifar10_jpeg")


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
        command.check_numbers(self, _LEAST)
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


# Data and sweeps


def _pictures(name: str, field: str, n: int, config: Config) -> dict[str, np.ndarray]:
    """Training, validation and test pictures; the training part is a pool of at least n."""
    dataset = load(name)
    pool = len(dataset.train.x) - config.validation_n
    if n > pool:
        raise command.BadInput(
            f"{field}: {n} training examples are more than the {pool} of {name} beside "
            f"validation_n={config.validation_n}"
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
    data = _flat(_pictures(config.features_data, "features_n", max(*config.features_n, sizes[-1]), config), np.float64)
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
    pictures = _flat(_pictures(config.mlp_data, "mlp_n", config.mlp_n, config), np.float32)
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
    pictures = _pictures(config.cnn_data, "cnn_n", config.cnn_n, config)
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
