"""One lane of each training panel of the initialisation study: a net started and trained as its setting says.

A *setting* says how a net starts and is trained: arm, scheme, depth and learning rate. A sweep goes over a list of
settings and over seeds, so that one program serves all that share a network.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nnjax import initializers, losses, models, optimizers
from nnjax.initializers import Initializer
from nnjax.models.pretraining import autoencode
from nnjax.models.signals import layer_statistics
from nnjax.train import Config as TrainConfig
from nnjax.train import Network, make_train
from nnjax.types import Array, Key, PyTree

SCHEMES = (
    "zeros", "small_normal", "standard_normal", "xavier_normal", "he_normal", "orthogonal", "delta_orthogonal",
)  # fmt: skip
"""All starts, numbered."""

TRAINING_SCHEMES = SCHEMES[:-1]
"""Starts of the training panel."""

ARM_SCHEMES = ("small_normal", "xavier_normal", "he_normal")
"""Starts of the arms panel."""

CNN_SCHEMES = ("xavier_normal", "he_normal", "orthogonal", "delta_orthogonal")
"""Starts of the cnn panel; all but He's give tanh nets their critical variance, 1/fan_in."""

FAMILIES = {"plain": ("adam", "pretrained", "lsuv"), "batch_norm": ("batch_norm",), "residual": ("residual",)}
"""Arms that share a network, and with it a program; beside them "sgd", nets of any depth, and "cnn"."""

ARMS = ("adam", "batch_norm", "residual", "pretrained", "lsuv")
"""What is done about a bad start in the arms panel; "sgd" does nothing and is the training panel."""

MOMENTUM = 0.9

PRETRAINING_STEPS = 100
"""Updates of each layer as an autoencoder, beside those of the whole net."""

PRETRAINING_RATE = 1e-2
"""Adam's learning rate for them."""

FITTED_EXAMPLES = 256
"""Training examples that LSUV looks at."""

CNN_RATE = 0.05
"""Learning rate of the cnn panel, at which every start learned in a pilot."""

CNN_EXAMPLES, CNN_SIDE = 1000, 16
"""The cnn panel takes so many training examples, and halves pictures of more pixels a side."""

SIGNAL_EXAMPLES = 64
"""Training examples by which the cnn panel's signals are measured."""


def accuracy(logits: Array, y: Array) -> Array:
    """1 where the largest logit is the label's, else 0: (n,)."""
    return 1.0 - losses.zero_one(logits, y)


METRICS = {"loss": losses.cross_entropy, "accuracy": accuracy}

CURVES = tuple(f"{split}_{metric}" for split in ("train", "validation", "test") for metric in METRICS)
"""What a lane follows over its marks."""


class Setting(NamedTuple):
    """One way to start and train a net; depth in hidden layers."""

    arm: str
    scheme: str
    depth: int
    rate: float


_PRELUDES = ("none", "pretrained", "lsuv")


def table(settings: Sequence[Setting]) -> dict[str, np.ndarray]:
    """The settings as arrays, from which a lane takes its own by number."""
    found = {
        "scheme": np.asarray([SCHEMES.index(s.scheme) for s in settings], np.int32),
        "depth": np.asarray([s.depth for s in settings], np.int32),
        "rate": np.asarray([s.rate for s in settings], np.float32),
        "adam": np.asarray([s.arm == "adam" for s in settings], np.int32),
        "prelude": np.asarray([_PRELUDES.index(s.arm) if s.arm in _PRELUDES else 0 for s in settings], np.int32),
    }
    # Tables of one length: where as many nets choose a rate as are reported, both have the same compiled program.
    rest = -len(settings) % 64
    return {name: np.pad(column, (0, rest), mode="edge") for name, column in found.items()}


# Standard deviations by fan_in and fan_out: one draw serves all normals, which compiles in half the time of one each.
_NORMALS: dict[str, Callable[[int, int], float]] = {
    "zeros": lambda fan_in, fan_out: 0.0,
    "small_normal": lambda fan_in, fan_out: 0.01,
    "standard_normal": lambda fan_in, fan_out: 1.0,
    "xavier_normal": lambda fan_in, fan_out: (2 / (fan_in + fan_out)) ** 0.5,
    "he_normal": lambda fan_in, fan_out: (2 / fan_in) ** 0.5,
}


def scheme(number: Array, names: Sequence[str] = TRAINING_SCHEMES) -> Initializer:
    """The scheme of that number in `SCHEMES`, one of ``names``; the number may be traced.

    Its draws are those of `nnjax.initializers.by_name`.
    """
    others = [name for name in names if name not in _NORMALS]
    places = jnp.asarray([1 + others.index(name) if name in others else 0 for name in SCHEMES])

    def init(key: Key, shape: Sequence[int], dtype: Any = jnp.float32) -> Array:
        field = math.prod(shape[:-2])
        fans = field * shape[-2], field * shape[-1]
        std = jnp.asarray([_NORMALS[name](*fans) if name in _NORMALS else 0.0 for name in SCHEMES], dtype)[number]
        draws: list[Callable[[], Any]] = [
            lambda: std * initializers.by_name("standard_normal")(key, tuple(shape), dtype)
        ]
        draws += [partial(initializers.by_name(name), key, tuple(shape), dtype) for name in others]
        return jax.lax.switch(places[number], draws)

    return init


def splits(data: Mapping[str, Any]) -> dict[str, tuple[Array, Array]]:
    """The three parts as `nnjax.train.make_train` takes them."""
    return {part: (data[f"x_{part}"], data[f"y_{part}"]) for part in ("train", "validation", "test")}


def _own(hparams: Mapping[str, Array], data: Mapping[str, Any]) -> dict[str, Array]:
    return {name: jnp.asarray(column)[hparams["setting"]] for name, column in data["settings"].items()}


# Fully connected nets


def mlp_lane(
    key: Key,
    hparams: Mapping[str, Array],
    data: Mapping[str, Any],
    *,
    family: str,
    depth: int,
    width: int,
    training: TrainConfig,
) -> dict[str, Array]:
    """Learning curves (marks,) of the ReLU net of one setting, ``hparams["setting"]`` in ``data["settings"]``.

    Args:
      key, hparams, data: of the sweep.
      family: "sgd", whose nets have up to ``depth`` hidden layers and plain SGD with momentum; or one of `FAMILIES`,
        whose nets have ``depth`` of them.
      depth, width, training: what is static.
    """
    mine, names = _own(hparams, data), TRAINING_SCHEMES if family == "sgd" else ARM_SCHEMES
    model = models.DeepMLP(
        depth=depth, width=width, classes=data["classes"].shape[0], activation="relu",
        initializer=scheme(mine["scheme"], names), normalize="before" if family == "batch_norm" else "none",
        residual=family == "residual", alive=mine["depth"] if family == "sgd" else None,
    )  # fmt: skip
    network = models.network(model)
    if family == "plain":
        batch_size = training.batch_size or len(data["x_train"])
        network = _with_prelude(network, model, mine["prelude"], jnp.asarray(data["x_train"]), batch_size)

    def rule(mine: Mapping[str, Array]) -> Any:
        momentum = optimizers.by_name("momentum", mine["rate"], momentum=MOMENTUM)
        if family != "plain":
            return momentum
        return optimizers.switch(mine["adam"], [momentum, optimizers.by_name("adam", mine["rate"])])

    result = make_train(network, losses.cross_entropy, rule, training, metrics=METRICS)(key, mine, splits(data))
    return {name: result.history[name] for name in CURVES} | {"diverged": result.diverged}


def _with_prelude(plain: Network, model: models.DeepMLP, number: Array, x: Array, batch_size: int) -> Network:
    """``plain`` whose start is left as it is, pre-trained layer by layer on x, or fitted to x, by number."""

    def init(key: Key, example: Array) -> tuple[PyTree, PyTree]:
        params, stats = plain.init(key, example)

        def pretrained() -> PyTree:
            return autoencode(
                params, x, activation=model.activation, key=jax.random.fold_in(key, 1), steps=PRETRAINING_STEPS,
                learning_rate=PRETRAINING_RATE, batch_size=batch_size,
            ).params  # fmt: skip

        fitted = partial(models.lsuv, model, params, stats, x[:FITTED_EXAMPLES])
        return jax.lax.switch(number, [lambda: params, pretrained, fitted]), stats

    return plain._replace(init=init)


# Convolutions


def pictures(x: Array) -> Array:
    """Flat square pictures (n, side^2) as (n, side, side, 1); those above `CNN_SIDE` averaged over 2 x 2 pixels."""
    side = round(x.shape[1] ** 0.5)
    x = jnp.asarray(x).reshape(-1, side, side, 1)
    if side <= CNN_SIDE:
        return x
    half = side // 2
    return x[:, : 2 * half, : 2 * half].reshape(-1, half, 2, half, 2, 1).mean(axis=(2, 4))


def cnn_lane(
    key: Key,
    hparams: Mapping[str, Array],
    data: Mapping[str, Any],
    *,
    depth: int,
    width: int,
    training: TrainConfig,
) -> dict[str, Array]:
    """Learning curves (marks,) of a tanh net of convolutions, and what its layers do at the start, (depth,).

    Pictures are padded with zeros, which costs all but delta-orthogonal kernels, whose taps are all in the center, some
    of the signal at every layer.

    Of each layer ``length`` is the mean square of what enters the activation, ``delta`` the root mean square of the
    loss's gradient with respect to it, ``saturated`` the share of units where tanh is flat. The logits' layer is
    N(0, 1/fan_in) for all schemes, so that the gradient enters the last convolution alike.
    """
    mine = _own(hparams, data)
    parts = {name: (pictures(x[:CNN_EXAMPLES]), y[:CNN_EXAMPLES]) for name, (x, y) in splits(data).items()}
    model = models.DeepCNN(
        depth=depth, width=width, classes=data["classes"].shape[0], activation="tanh",
        initializer=scheme(mine["scheme"], CNN_SCHEMES), output_initializer="lecun_normal",
    )  # fmt: skip
    network = models.network(model)
    train = make_train(
        network, losses.cross_entropy, lambda h: optimizers.by_name("momentum", h["rate"], momentum=MOMENTUM), training,
        metrics=METRICS,
    )  # fmt: skip
    result = train(key, mine, parts)
    x, y = (jnp.asarray(array)[:SIGNAL_EXAMPLES] for array in parts["train"])
    params, stats = network.init(jax.random.split(key)[0], x[:1])  # the run's own start
    seen = layer_statistics(model, params, stats, x, y, losses.cross_entropy)
    return {name: result.history[name] for name in CURVES} | {
        "length": seen.length[:depth], "delta": seen.delta_rms[:depth], "saturated": seen.saturated[:depth],
        "diverged": result.diverged,
    }  # fmt: skip
