"""One lane of each panel of the first programs: pure functions that are swept over seeds, and the small exact ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from nnjax import activations, losses, models
from nnjax.classical import backpropagation, linear_regression, logistic_regression
from nnjax.data import fit_standardizer
from nnjax.data.series import share_price, windows
from nnjax.sweep import not_finite
from nnjax.train import Config as TrainConfig
from nnjax.train import make_train, predict
from nnjax.types import Array, Key

# Iris with a (7, 4) MLP

FLOWERS = {"all four": (0, 1, 2, 3), "sepal": (0, 1), "petal": (2, 3)}
"""Columns of iris that each arm sees."""

HIDDEN = (7, 4)
GRID = np.linspace(-2.5, 2.5, 51)
"""Standardized inputs at which the regions of two features are drawn."""


def iris_lane(
    key: Key, hparams: Mapping[str, Array], data: Mapping[str, Array], *, features: str, epochs: int, rate: float
) -> dict[str, Array]:
    """Test flowers that an MLP gets right on one split, (), and its class at every point of a grid of two features."""
    columns = np.array(FLOWERS[features])
    x, y = data["x"][:, columns], data["y"]
    train, test = data["train"][hparams["seed"]], data["test"][hparams["seed"]]
    scale = fit_standardizer(x[train])
    network = models.network(models.MLP(HIDDEN, classes=3, initializer="xavier_uniform"))
    run = make_train(
        network, losses.cross_entropy, lambda h: optax.adam(h), TrainConfig(epochs=epochs, evaluate_every=epochs)
    )
    fitted = run(key, rate, {"train": (scale(x[train]), y[train])})
    shown = jnp.zeros((GRID.size**2, len(columns)))
    if len(columns) == 2:
        shown = jnp.stack(jnp.meshgrid(jnp.asarray(GRID), jnp.asarray(GRID)), axis=-1).reshape(-1, 2)
    both = jnp.concatenate([scale(x[test]), shown.astype(x.dtype)])
    logits = predict(network, fitted.params, fitted.stats, both, batch_size=len(both))
    right = jnp.sum(jnp.argmax(logits[: len(test)], axis=-1) == y[test])
    region = jnp.argmax(logits[len(test) :], axis=-1).astype(jnp.int8).reshape(GRID.size, GRID.size)
    return {"right": right, "region": region, "diverged": fitted.diverged}


# A two-layer net in plain arrays


class TwoLayers(NamedTuple):
    """Weights and biases of a hidden and an output layer: (d, h), (h,), (h, k), (k,)."""

    w1: Array
    b1: Array
    w2: Array
    b2: Array


def two_layers(params: TwoLayers, x: Array) -> tuple[Array, Array]:
    """Hidden units (n, h) and outputs (n, k), all logistic."""
    hidden = activations.logistic(x @ params.w1 + params.b1[None, :])
    return hidden, activations.logistic(hidden @ params.w2 + params.b2[None, :])


def two_layers_loss(params: TwoLayers, x: Array, target: Array) -> Array:
    """Half the squared error, summed over outputs, mean over examples: ()."""
    return 0.5 * jnp.sum((two_layers(params, x)[1] - target) ** 2) / len(x)


def two_layers_gradient(params: TwoLayers, x: Array, target: Array) -> TwoLayers:
    """The same loss's gradient, by hand."""
    hidden, output = two_layers(params, x)
    delta2 = (output - target) * output * (1 - output) / len(x)
    delta1 = delta2 @ params.w2.T * hidden * (1 - hidden)
    return TwoLayers(x.T @ delta1, jnp.sum(delta1, axis=0), hidden.T @ delta2, jnp.sum(delta2, axis=0))


FORMS = ("no bias", "bias", "autodiff")


def arrays_lane(
    key: Key, hparams: Mapping[str, Array], data: Mapping[str, Array], *, form: str, steps: int, rate: float
) -> dict[str, Array]:
    """Full-batch descent on iris: by hand without biases, by hand with them, or with them and `jax.grad`."""
    x, y = data["x"], data["y"]
    train, test = data["train"][hparams["seed"]], data["test"][hparams["seed"]]
    scale = fit_standardizer(x[train])
    x_train, target = scale(x[train]), jax.nn.one_hot(y[train], 3)
    one, two = jax.random.split(key)
    params = TwoLayers(jax.random.normal(one, (4, 8)), jnp.zeros(8), jax.random.normal(two, (8, 3)), jnp.zeros(3))

    def step(params: TwoLayers, _: None) -> tuple[TwoLayers, Array]:
        if form == "autodiff":
            gradient = jax.grad(two_layers_loss)(params, x_train, target)
        else:
            gradient = two_layers_gradient(params, x_train, target)
        new = jax.tree.map(lambda w, g: w - rate * g, params, gradient)
        if form == "no bias":
            new = new._replace(b1=params.b1, b2=params.b2)
        return new, two_layers_loss(params, x_train, target)

    params, loss = jax.lax.scan(step, params, length=steps)
    right = jnp.argmax(two_layers(params, scale(x[test]))[1], axis=-1) == y[test]
    return {"loss": loss, "accuracy": jnp.mean(right), "weights": jnp.concatenate([w.ravel() for w in params])}


# NOT of one bit

EPSILON = 1e-7
"""Keras's: of its clipping, and of its Adam (which adds it before the bias correction, Optax after it)."""


def normalized_cross_entropy(logits: Array, labels: Array) -> Array:
    """Cross-entropy of logistic outputs, clipped and divided by their sum, as Keras takes probabilities: (n,)."""
    outputs = jnp.clip(activations.logistic(logits), EPSILON, 1 - EPSILON)
    return losses.cross_entropy(jnp.log(outputs), labels)


def plain_cross_entropy(logits: Array, labels: Array) -> Array:
    """Minus the logarithm of the right logistic output, the other one ignored: (n,)."""
    outputs = jnp.clip(activations.logistic(logits), EPSILON, 1 - EPSILON)
    return -jnp.take_along_axis(jnp.log(outputs), labels[:, None], axis=1)[:, 0]


READINGS = {
    "normalized": normalized_cross_entropy,
    "logits": losses.cross_entropy,
    "not normalized": plain_cross_entropy,
}
"""What "sparse cross-entropy on two logistic outputs" can mean; see the study's text."""


def negation_lane(
    key: Key, hparams: Mapping[str, Array], data: Mapping[str, Array], *, epochs: int, rate: float
) -> dict[str, Array]:
    """A 16-32-2 net on bits and their negation: loss in the course of each epoch, loss and accuracy after it.

    ``reading`` is the place in `READINGS`, traced, so that all of them are one program.
    """

    def loss(logits: Array, labels: Array) -> Array:
        return jnp.stack([read(logits, labels) for read in READINGS.values()])[hparams["reading"]]

    network = models.network(models.MLP((16, 32), classes=2, initializer="xavier_uniform"))
    run = make_train(
        network, loss, lambda h: optax.adam(h, eps=EPSILON), TrainConfig(epochs=epochs, batch_size=2),
        metrics={"loss": loss, "error": losses.zero_one},
    )  # fmt: skip
    history = run(key, rate, {"train": (data["bit"], data["negation"])}).history
    return {
        "running_loss": history["running_loss"], "loss": history["train_loss"],
        "accuracy": 1 - history["train_error"],
    }  # fmt: skip


# A recurrent net of two steps


class Recurrent(NamedTuple):
    """Weights of a simple recurrent layer: (d, h), (h, h), (h,)."""

    inward: Array
    across: Array
    bias: Array


def _cell(params: Recurrent, h: Array, x: Array) -> Array:
    return jnp.tanh(x @ params.inward + h @ params.across + params.bias[None, :])


def unrolled(params: Recurrent, xs: Array) -> Array:
    """States after the first and second step, (2, n, h), for inputs (2, n, d), written out."""
    first = jnp.tanh(xs[0] @ params.inward + params.bias[None, :])
    second = jnp.tanh(xs[1] @ params.inward + first @ params.across + params.bias[None, :])
    return jnp.stack([first, second])


def scanned(params: Recurrent, xs: Array) -> Array:
    """States after each of t steps, (t, n, h), for inputs (t, n, d), by one scan."""

    def step(h: jax.Array, x: Any) -> tuple[jax.Array, jax.Array]:
        h = jnp.asarray(_cell(params, h, x))
        return h, h

    return jax.lax.scan(step, jnp.zeros((xs.shape[1], params.bias.size), xs.dtype), xs)[1]


# The next price

PRICES = {"closes": (1,), "closes and opens": (0, 1)}
"""Columns (open, close) that each arm sees of the last three days."""

SEEN = 3
TRAINED = 0.8
"""Share of the windows, the earlier ones, that is trained on."""


def prices_lane(
    key: Key, hparams: Mapping[str, Array], data: Mapping[str, Array] | None, *, inputs: str, days: int, steps: int
) -> dict[str, Array]:
    """Squared errors on the later days, in units of the currency squared, of tomorrow = today, a linear fit and a net.

    ``data`` holds ``prices`` (t, 2), open and close; where it does not, each seed draws a random walk of ``days``.
    """
    draw, init = jax.random.split(key)
    prices = data["prices"] if data is not None and "prices" in data else share_price(draw, days)
    seen = windows(prices[:, np.array(PRICES[inputs])], SEEN).x
    tomorrow = windows(prices[:, 1], SEEN).y
    n = int(TRAINED * len(seen))
    x = seen.reshape(len(seen), -1)
    scale_x, scale_y = fit_standardizer(x[:n]), fit_standardizer(tomorrow[:n])
    z, target = scale_x(x), scale_y(tomorrow)
    line = linear_regression.closed_form(z[:n], target[:n])
    network = models.network(models.MLP((16,), classes=1, activation=activations.tanh, initializer="xavier_normal"))
    run = make_train(network, losses.squared_error, optax.adam, TrainConfig(steps=steps, evaluate_every=steps))
    net = run(init, 1e-2, {"train": (z[:n], target[:n])})
    guesses = {
        "naive": seen[n:, -1, -1],
        "linear": _unscaled(linear_regression.predict(line, z[n:]), scale_y),
        "net": _unscaled(predict(network, net.params, net.stats, z[n:]), scale_y),
    }
    price = tomorrow[n:, 0]
    found = {f"{name}_squared": (guess - price) ** 2 for name, guess in guesses.items()}
    return found | {"price": price} | {f"{name}_guess": guess for name, guess in guesses.items() if name != "naive"}


def _unscaled(z: Array, scale: Any) -> Array:
    return z[:, 0] * scale.std[0] + scale.mean[0]


# Sentiment


LEARNED = {"words": ("words", "together"), "neighbors": ("neighbors", "together"), "apart": ("words", "apart")}
"""What each learned arm sees of a sentence, and whether its splits keep twins together."""


def sentiment_lane(
    key: Key, hparams: Mapping[str, Array], data: Mapping[str, Array], *, arm: str, strength: float
) -> dict[str, Array]:
    """Whether a learned bag of words gets each test sentence of a split right, (test,).

    A word that is in no training sentence keeps its weight of zero, so test sentences tell the training nothing.
    """
    bag, split = LEARNED[arm]
    x, y = data[bag], data["label"]
    train, test = data[f"train_{split}"][hparams["seed"]], data[f"test_{split}"][hparams["seed"]]
    l2 = 1 / (2 * len(train) * strength)
    fit = logistic_regression.fit(x[train], y[train], l2=l2, epochs=300, tolerance=1e-5)
    right = logistic_regression.classify(fit.params, x[test]) == y[test]
    return {"right": right, "converged": fit.converged, "diverged": not_finite(fit.params)}


# XOR with a hidden layer

XOR = backpropagation.Config(sizes=(2, 4, 1), hidden="tanh", output="logistic")


def xor_lane(key: Key, hparams: Mapping[str, Array], data: Mapping[str, Array], *, epochs: int) -> dict[str, Array]:
    """Whether a 2-4-1 net answers XOR right after so many full-batch epochs, and its loss at every tenth of them."""
    state = backpropagation.init(key, XOR)
    marks = tuple(range(0, epochs + 1, 10))
    _, trace = backpropagation.train(
        state, (data["x"], data["xor"]), config=XOR, epochs=epochs, learning_rate=1.0, momentum=0.9,
        evaluate_at=marks, tolerance=0.5,
    )  # fmt: skip
    return {"solved": trace.worst[-1] < 0.5, "loss": trace.loss}
