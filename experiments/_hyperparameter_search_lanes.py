"""What is searched in the hyper-parameter study: one short training of a small convolutional net, and its space."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from nnjax import conv, losses
from nnjax.search import Float, Integer
from nnjax.train import Config as TrainConfig
from nnjax.train import Network, make_train
from nnjax.types import Array, Key, PyTree


def space(steps: int) -> dict[str, Float | Integer]:
    """The hyper-parameters, all of which only enter the arithmetic: every trial is the same program.

    Args:
      steps: updates of a training, of which the learning rate may take up to half to rise.
    """
    return {
        "learning_rate": Float(1e-3, 3.0, log=True),
        "damping": Float(0.02, 1.0, log=True),
        "weight_decay": Float(1e-5, 1e-1, log=True),
        "dropout": Float(0.0, 0.7),
        "smoothing": Float(0.0, 0.4),
        "gain": Float(0.25, 4.0, log=True),
        "warm_up": Integer(1, max(2, steps // 2), log=True),
    }


MEANINGS = {
    "learning_rate": "learning rate", "damping": "1 − momentum", "weight_decay": "weight decay", "dropout": "dropout",
    "smoothing": "label smoothing", "gain": "initial weights / He's", "warm_up": "updates of warm-up",
}  # fmt: skip
"""What each hyper-parameter is, in a figure's words."""


def net(features: tuple[int, ...], classes: int, gain: Array, dropout: Array) -> Network:
    """Convolutions 3 x 3 with ReLU and 2 x 2 max pooling, one for each of ``features``; dropout; logits.

    Args:
      features: channels of each convolution.
      classes: outputs.
      gain: initial weights, in units of He's, ().
      dropout: probability of dropping an input of the last layer, below 1, ().
    """

    def init(key: Key, x: Array) -> tuple[PyTree, PyTree]:
        params, fan, side = {}, x.shape[-1], x.shape[1]
        for layer, width in enumerate(features):
            key, own = jax.random.split(key)
            scale = gain * jnp.sqrt(2 / (9 * fan))
            params[f"conv_{layer}"] = {"kernel": scale * jax.random.normal(own, (3, 3, fan, width)),
                                       "bias": jnp.zeros(width)}  # fmt: skip
            fan, side = width, side // 2
        inputs = fan * side * side
        kernel = gain * jnp.sqrt(1 / inputs) * jax.random.normal(key, (inputs, classes))
        return params | {"dense": {"kernel": kernel, "bias": jnp.zeros(classes)}}, {}

    def apply(params: PyTree, stats: PyTree, x: Array, *, key: Key | None, train: bool) -> tuple[Array, PyTree]:
        for layer in range(len(features)):
            own = params[f"conv_{layer}"]
            x = conv.max_pool(
                jax.nn.relu(conv.conv2d(x, own["kernel"], padding="SAME") + own["bias"][None, None, None]), 2
            )
        x = x.reshape(len(x), -1)
        if train:
            assert key is not None
            kept = jax.random.uniform(key, x.shape) >= dropout
            x = jnp.where(kept, x / (1 - dropout), 0.0)
        return x @ params["dense"]["kernel"] + params["dense"]["bias"][None], stats

    return Network(init, apply)


def smoothed(smoothing: Array) -> Any:
    """Cross-entropy against labels of which ``smoothing`` is spread over all classes (Szegedy et al., 2016), (n,)."""

    def loss(logits: Array, y: Array) -> Array:
        even = -jnp.mean(jax.nn.log_softmax(logits), axis=-1)
        return (1 - smoothing) * losses.cross_entropy(logits, y) + smoothing * even

    return loss


def rule(hparams: Mapping[str, Array], steps: int) -> optax.GradientTransformation:
    """Momentum with L2 weight decay; the rate rises in a line over ``warm_up`` updates and falls as a cosine."""

    def rate(step: Array) -> Array:
        rise = jnp.minimum(1.0, (step + 1) / hparams["warm_up"])
        return hparams["learning_rate"] * rise * 0.5 * (1 + jnp.cos(jnp.pi * step / steps))

    return optax.chain(
        optax.add_decayed_weights(hparams["weight_decay"]), optax.sgd(rate, momentum=1 - hparams["damping"])
    )


def lane(
    key: Key, hparams: Mapping[str, Array], data: Mapping[str, Any], *, features: tuple[int, ...], classes: int,
    steps: int, batch: int,
) -> dict[str, Array]:  # fmt: skip
    """One trial: train, and evaluate every split in ``data`` at the end.

    Returns:
      ``{split}_loss`` (cross-entropy, nats) and ``{split}_error`` of every split, ().
    """
    config = TrainConfig(steps=steps, batch_size=batch, evaluate_every=steps)
    network = net(features, classes, hparams["gain"], hparams["dropout"])
    metrics = {"loss": losses.cross_entropy, "error": losses.zero_one}
    train = make_train(
        network, smoothed(hparams["smoothing"]), lambda h: rule(h, steps), config, metrics=metrics
    )  # fmt: skip
    history = train(key, hparams, data).history
    return {name: line[-1] for name, line in history.items() if name not in ("step", "running_loss")}
