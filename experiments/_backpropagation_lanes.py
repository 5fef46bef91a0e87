"""One lane of each panel of the backpropagation study: the pure functions that are swept."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nnjax import losses
from nnjax.classical import back_percolation, backpropagation
from nnjax.classical.backpropagation import Config, Params
from nnjax.sweep import not_finite
from nnjax.types import Array, Key

ACTIVATIONS = ("logistic", "tanh", "relu")
"""Hidden activations of the agreement and vanishing panels."""

PRECISIONS = ("float32", "float64")

DIFFERENCES = tuple(float(h) for h in np.logspace(-12, 0, 37))
"""Steps h of the central differences (f(w + h u) - f(w - h u)) / 2h."""

XOR_INPUTS = ((-1.0, -1.0), (-1.0, 1.0), (1.0, -1.0), (1.0, 1.0))
XOR_TARGETS = ((-1.0,), (1.0,), (1.0,), (-1.0,))

Hparams = Mapping[str, Array]
Results = dict[str, Array]

# The 2-2-2 example

EXAMPLE = Config((2, 2, 2), "logistic", "logistic", "half_squared_error")
INPUTS, TARGETS = ((0.05, 0.10),), ((0.01, 0.99),)
RATE = 0.5


def example_start() -> Params:
    """The example's parameters; both units of a layer have the same bias, which they then move by themselves."""
    hidden, output = jnp.array([[0.15, 0.25], [0.20, 0.30]]), jnp.array([[0.40, 0.50], [0.45, 0.55]])
    return Params((hidden, output), (jnp.full(2, 0.35), jnp.full(2, 0.60)))


def autodiff_update(params: Params, rates: Params) -> Params:
    """One update of the example along automatic differentiation's gradient."""
    grad = jax.grad(backpropagation.loss)(params, (jnp.array(INPUTS), jnp.array(TARGETS)), EXAMPLE)
    return jax.tree.map(lambda w, rate, g: w - rate * g, params, rates, grad)


def slipped_update(params: Params, rates: Params) -> Params:
    """The common slip: the hidden layer's deltas are taken through the output weights already updated."""
    x, target = jnp.array(INPUTS), jnp.array(TARGETS)
    _, hidden, output = backpropagation.forward(params, x, EXAMPLE)
    upper = output * (1 - output) * (output - target)
    late = params.weights[1] - rates.weights[1] * (hidden.T @ upper)
    lower = hidden * (1 - hidden) * (upper @ late.T)
    first = params.weights[0] - rates.weights[0] * (x.T @ lower)
    moves = (lower.sum(0), upper.sum(0))
    biases = [bias - rate * move for bias, rate, move in zip(params.biases, rates.biases, moves, strict=True)]
    return Params((first, late), tuple(biases))


def example_lane(key: Key, hparams: Hparams, data: None, *, marks: tuple[int, ...]) -> Results:
    """The example's losses, outputs and weights after ``marks`` updates: by hand, by autodiff, and with the slip."""
    x, target = jnp.array(INPUTS), jnp.array(TARGETS)
    start, bias_rate = example_start(), RATE * hparams["biases"]
    rates = Params(
        tuple(jnp.full(w.shape, RATE) for w in start.weights), tuple(jnp.full(b.shape, bias_rate) for b in start.biases)
    )

    def by_hand(params: Params, rates: Params) -> Params:
        state = backpropagation.start(params)
        return backpropagation.step(
            state, (x, target), config=EXAMPLE, learning_rate=RATE, bias_learning_rate=rates.biases[0][0]
        )[0].params

    found: Results = {}
    for name, update in (("hand", by_hand), ("autodiff", autodiff_update), ("slip", slipped_update)):

        def segment(params: Params, ends: Array, update=update) -> tuple[Params, Results]:
            params = jax.lax.fori_loop(ends[0], ends[1], lambda _, p: update(p, rates), params)
            flat = jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(params)])
            output = backpropagation.forward(params, x, EXAMPLE)[-1][0]
            return params, {"loss": 0.5 * jnp.sum((target[0] - output) ** 2), "output": output, "parameters": flat}

        curves = jax.lax.scan(segment, start, jnp.array(list(pairwise((0, *marks)))))[1]
        found |= {f"{name}_{what}": curve for what, curve in curves.items()}
    return found


# Agreement


def agreement_lane(key: Key, hparams: Hparams, data: None, *, depth: int, width: int) -> Results:
    """|hand - autodiff| / |autodiff| of a random net's gradient, (activations, precisions)."""
    # One net for all, since drawing costs the compiler more than computing.
    params, batch, _ = _problem(key, depth, width)
    configs = [_classifier(params, hidden) for hidden in ACTIVATIONS]
    return {"gap": jnp.stack([jnp.stack([_gap(params, batch, c, p) for p in PRECISIONS]) for c in configs])}


def differences_lane(key: Key, hparams: Hparams, data: None, *, depth: int, width: int) -> Results:
    """Errors of central differences against the gradient by hand, and what theory makes of them.

    Returns:
      ``measured`` and ``predicted``, (activations, steps): |difference quotient - slope| along a random direction of
      length 1 in double precision, and the sum of truncation h^2 |D^3 f| / 6 and one rounding, eps |f| / h.
    """
    params, batch, direction = _problem(key, depth, width)
    curves = [_quotients(direction, params, batch, _classifier(params, hidden)) for hidden in ACTIVATIONS]
    measured, predicted = zip(*curves, strict=True)
    return {"measured": jnp.stack(measured), "predicted": jnp.stack(predicted)}


def _classifier(params: Params, hidden: str) -> Config:
    sizes = len(params.weights[0]), *(len(bias) for bias in params.biases)
    return Config(sizes, hidden, "identity", "cross_entropy")


def _problem(key: Key, depth: int, width: int) -> tuple[Params, tuple[Array, Array], Params]:
    """A random net with 3 classes, 16 labeled examples, and a random direction of length 1 among its parameters."""
    net_key, x_key, y_key, direction_key = jax.random.split(key, 4)
    sizes = (width,) * depth + (3,)
    direction = _random_net(direction_key, sizes)
    length = jnp.linalg.norm(_vector(direction))
    batch = jax.random.normal(x_key, (16, width)), jax.random.randint(y_key, (16,), 0, 3)
    return _random_net(net_key, sizes), batch, jax.tree.map(lambda d: d / length, direction)


def _random_net(key: Key, sizes: tuple[int, ...]) -> Params:
    """Weights N(0, 2/fan_in) and biases N(0, 0.01)."""
    # Drawn in a loop: the compiler would otherwise write out the random numbers' making once for every layer.
    rows, columns = max(sizes) + 1, max(sizes)
    drawn = jax.lax.map(lambda k: jax.random.normal(k, (rows, columns)), jax.random.split(key, len(sizes) - 1))
    weights, biases = [], []
    for layer, (d_in, d_out) in enumerate(pairwise(sizes)):
        weights.append(drawn[layer, 1 : d_in + 1, :d_out] * (2 / d_in) ** 0.5)
        biases.append(0.1 * drawn[layer, 0, :d_out])
    return Params(tuple(weights), tuple(biases))


def _vector(params: Params) -> Array:
    return jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(params)])


def _gap(params: Params, batch: tuple[Array, Array], config: Config, precision: str) -> Array:
    """Relative distance of the two gradients, both in this precision."""
    params = jax.tree.map(lambda leaf: leaf.astype(precision), params)
    hand = _vector(backpropagation.gradient(params, batch, config)).astype(float)
    auto = _vector(jax.grad(backpropagation.loss)(params, batch, config)).astype(float)
    return jnp.linalg.norm(hand - auto) / jnp.linalg.norm(auto)


def _quotients(direction: Params, params: Params, batch: tuple[Array, Array], config: Config) -> tuple[Array, Array]:
    """Errors of central difference quotients along one direction at every step, and what theory makes of them."""
    slope = _vector(backpropagation.gradient(params, batch, config)) @ _vector(direction)

    def along(t: Array | float) -> Array:
        return backpropagation.loss(jax.tree.map(lambda w, d: w + t * d, params, direction), batch, config)

    h = jnp.array(DIFFERENCES)
    shifted = jax.lax.map(along, jnp.concatenate([h, -h]))
    quotient = (shifted[: len(h)] - shifted[len(h) :]) / (2 * h)
    third = _along(_along(_along(along)))(0.0)
    rounding = jnp.finfo(float).eps * jnp.abs(along(0.0)) / h
    return jnp.abs(quotient - slope), h**2 * jnp.abs(third) / 6 + rounding


def _along(f: Callable[[Any], Array]) -> Callable[[Any], Array]:
    """The derivative of a function of one number, forwards: its third one so is a small program."""
    return lambda t: jax.jvp(f, (t,), (jnp.ones_like(t),))[1]


# Batch, mini-batch, online


def updates_of(form: str, n: int, size: int, epochs: int) -> tuple[int, tuple[int, ...]]:
    """Examples an update of a form, and the updates at which it is evaluated: ``epochs`` of them beside the start.

    They are as evenly spaced in the logarithm as distinct whole numbers can be; for batch learning every update.
    """
    examples = {"batch": n, "mini-batch": size, "online": 1}[form]
    total = epochs * -(-n // examples)
    marks = [0]
    for number, wanted in enumerate(np.geomspace(1, total, epochs)):
        marks.append(int(np.clip(round(wanted), marks[-1] + 1, total - (epochs - 1 - number))))
    return examples, tuple(marks)


def forms_lane(
    key: Key, hparams: Hparams, data: Mapping[str, Array], *, form: str, size: int, hidden: int, epochs: int
) -> Results:
    """One net on pictures in one of the three forms: losses and errors at the updates of `updates_of`."""
    size, marks = updates_of(form, len(data["y_train"]), size, epochs)
    sizes = data["x_train"].shape[1], hidden, data["classes"].shape[0]
    config = Config(sizes, "tanh", "identity", "cross_entropy")
    init_key, order_key = jax.random.split(key)

    def scores(params: Params) -> Results:
        found = {}
        for split in ("validation", "test"):
            output = backpropagation.forward(params, data[f"x_{split}"], config)[-1]
            found[f"{split}_loss"] = losses.cross_entropy(output, data[f"y_{split}"]).mean()
            found[f"{split}_error"] = losses.zero_one(output, data[f"y_{split}"]).mean()
        return found

    _, trace = backpropagation.train(
        backpropagation.init(init_key, config),
        (data["x_train"], data["y_train"]),
        order_key,
        config=config,
        epochs=epochs,
        batch_size=size,
        evaluate_at=marks,
        watch=scores,
        learning_rate=hparams["rate"],
    )
    return {"train_loss": trace.loss, **trace.watched}


# Back-percolation


def task(name: str) -> tuple[tuple[int, ...], Array, Array]:
    """Sizes of the net, inputs and targets, coded -1 and 1."""
    if name == "xor":
        return (2, 4, 1), jnp.array(XOR_INPUTS), jnp.array(XOR_TARGETS)
    codes = 2 * jnp.eye(8) - 1
    return (8, 5, 8), codes, codes


def percolation_lane(key: Key, hparams: Hparams, data: None, *, problem: str, epochs: int) -> Results:
    """Epochs to solve a problem from one start, -1 where it was not solved; whether it diverged without."""
    sizes, x, target = task(problem)
    state = back_percolation.init(key, back_percolation.Config(sizes, 1.0), scale=hparams["start"])
    state, trace = back_percolation.train(state, (x, target), epochs=epochs)
    lost = not_finite((state.weights, state.biases)) & (trace.solved_at < 0)
    return {"epochs": trace.solved_at, "diverged": lost}


def online_lane(key: Key, hparams: Hparams, data: None, *, problem: str, epochs: int) -> Results:
    """The same by online backpropagation on the same kind of start; tanh units."""
    sizes, x, target = task(problem)
    config = Config(sizes, "tanh", "tanh")
    drawn = back_percolation.init(key, back_percolation.Config(sizes, 1.0), scale=hparams["start"])
    state, trace = backpropagation.train(
        backpropagation.start(Params(drawn.weights, drawn.biases)), (x, target), config=config, epochs=epochs,
        batch_size=1, learning_rate=hparams["rate"],
    )  # fmt: skip
    solved_at = jnp.where(trace.converged, trace.solved_at // len(x), -1)
    return {"epochs": solved_at, "diverged": not_finite(state.params) & ~trace.converged}


# Signals through depth, and symmetry


def vanishing_lane(key: Key, hparams: Hparams, data: None, *, depths: tuple[int, ...], width: int, n: int) -> Results:
    """Root mean square of the first hidden layer's deltas over the last one's, (activations, depths).

    The initializer gives weights a variance of 1/fan_in, biases are zero, inputs and output deltas standard normal.
    """
    net_key, x_key, y_key = jax.random.split(key, 3)
    weights = jax.random.normal(net_key, (max(depths) + 1, width, width)) / width**0.5
    x, noise = jax.random.normal(x_key, (n, width)), jax.random.normal(y_key, (n, width))

    def ratio(hidden: str, depth: int) -> Array:
        config = Config((width,) * (depth + 2), hidden, "identity")
        params = Params(tuple(weights[: depth + 1]), (jnp.zeros(width),) * (depth + 1))
        # Targets that make the output deltas standard normal, whatever the net puts out.
        y = backpropagation.forward(params, x, config)[-1] + noise
        deltas = backpropagation.deltas(params, (x, y), config)
        return jnp.sqrt(jnp.mean(deltas[0] ** 2) / jnp.mean(deltas[-2] ** 2))

    return {"ratio": jnp.array([[ratio(hidden, depth) for depth in depths] for hidden in ACTIVATIONS])}


def symmetry_lane(key: Key, hparams: Hparams, data: None, *, epochs: int) -> Results:
    """Distance between the hidden units of a net on XOR whose units start ``spread`` apart, after every epoch."""
    sizes, x, target = task("xor")
    config = Config(sizes, "tanh", "tanh")
    keys = jax.random.split(key, 2)
    # Equal units, each with the same random weights, and small differences between them.
    common = backpropagation.init(keys[0], config).params
    noise = backpropagation.init(keys[1], config).params

    def blend(layer: int, axis: int) -> Array:
        alike = jnp.take(common.weights[layer], jnp.zeros(sizes[1], int), axis=axis)
        return alike + hparams["spread"] * noise.weights[layer]

    params = Params((blend(0, 1), blend(1, 0)), common.biases)

    def apart(params: Params) -> Array:
        units = jnp.concatenate([params.weights[0], params.biases[0][None], params.weights[1].T])
        return jnp.max(jnp.abs(units - units[:, :1]))

    _, trace = backpropagation.train(
        backpropagation.start(params), (x, target), config=config, epochs=epochs, learning_rate=0.5, watch=apart
    )
    return {"distance": trace.watched, "loss": trace.loss}
