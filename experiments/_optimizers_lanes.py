"""One lane of each panel of the optimizers study: the pure functions that are swept over seeds and rates."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from nnjax import losses, models, optimizers, schedules
from nnjax.sweep import not_finite
from nnjax.train import Config as TrainConfig
from nnjax.train import log_spaced_steps, make_train
from nnjax.types import Array, Key

RAVINE_RULES = ("sgd", "momentum", "nesterov")
"""Rules of the ravine, whose paths have a closed form."""

RAVINE_START = (1.0, 0.1)
"""Start on the ravine: equal parts of the value along and across where the curvatures are 100 times apart."""

ROSENBROCK_RULES = tuple(name for name in optimizers.NAMES if name != "adamw")
"""Rules on Rosenbrock's function: all, AdamW without decay being Adam."""

ROSENBROCK_START = (-1.2, 1.0)
"""Rosenbrock's (1960) own start."""

ROSENBROCK_POINTS = 200
"""Points of a path that are kept, log-spaced."""

TRAINED_RULES = ("sgd", "momentum", "nesterov", "adagrad", "rmsprop", "adam")
"""Rules for mini-batches: three plain, three adaptive."""

PLAIN, ADAPTIVE = TRAINED_RULES[:3], TRAINED_RULES[3:]

SCHEDULES = ("constant", "step", "linear", "exponential", "cosine", "warmup", "warmup_cosine", "plateau")
"""Schedules compared; plateau watches the validation loss."""

SEPARABLE_RULES = (*TRAINED_RULES, "irprop-")
"""Rules on Wilson's construction; Rprop, which sees signs alone, behaves as the adaptive ones."""

SEPARABLE_RATES = {"adagrad": 0.05, "rmsprop": 1e-3, "adam": 1e-3, "irprop-": 1e-3}
"""Learning rates there; plain rules take theirs from the largest curvature."""


def encoder_rule(name: str, fan_in: np.ndarray) -> tuple[optax.GradientTransformation, float]:
    """A rule as published for the encoder, and what it adds to the logistic derivative."""
    if name == "backprop":
        return optimizers.by_name("sgd", 1.9), 0.0
    if name == "supersab":
        return optimizers.supersab(2.0, momentum=0.8), 0.0
    if name == "quickprop":
        return optimizers.quickprop(jnp.asarray(1.5 / fan_in), growth=1.75), 0.1
    variant, first = name.split()
    return optimizers.rprop(float(first), variant=variant), 0.0


ENCODER_RULES = (
    "backprop", "supersab", "quickprop", "rprop+ 0.1", "rprop+ 2", "rprop- 0.1", "irprop+ 0.1", "irprop- 0.1",
)  # fmt: skip
"""Rules of the encoder table; Rprop with its first step size."""


def follow(
    rule: optax.GradientTransformation, loss: Callable[[Array], Array], start: Array, steps: int
) -> tuple[Array, Array]:
    """Positions (steps + 1, ...) and losses (steps + 1,) from ``start`` on."""
    rule = optax.with_extra_args_support(rule)

    def update(carry: tuple, _: None) -> tuple[tuple, tuple]:
        w, state = carry
        value, gradient = jax.value_and_grad(loss)(w)
        move, state = rule.update(gradient, state, w, value=value)
        return (optax.apply_updates(w, move), state), (w, value)

    _, (path, values) = jax.lax.scan(update, (start, rule.init(start)), length=steps + 1)
    return path, values


# Ravines


def ravine_lane(
    key: Key, hparams: Mapping[str, Array], data: Array, *, momentum: float, steps: int
) -> dict[str, Array]:
    """Paths of gradient descent, momentum and Nesterov on a quadratic with curvatures ``data`` (2,)."""

    def loss(w: Array) -> Array:
        return 0.5 * jnp.sum(data * w**2)

    rate = hparams["rate"]
    rules = [
        optimizers.by_name(name, rate, **({} if name == "sgd" else {"momentum": momentum})) for name in RAVINE_RULES
    ]
    start = jnp.asarray(RAVINE_START)
    return {"path": jnp.stack([follow(rule, loss, start, steps)[0] for rule in rules])}


def rosenbrock(w: Array) -> Array:
    """(1 - x)^2 + 100 (y - x^2)^2 (Rosenbrock, 1960): a bent valley with its minimum 0 at (1, 1)."""
    return (1 - w[0]) ** 2 + 100 * (w[1] - w[0] ** 2) ** 2


def rosenbrock_points(steps: int) -> tuple[int, ...]:
    """Steps of a path that are kept."""
    return log_spaced_steps(steps, ROSENBROCK_POINTS)


def rosenbrock_lane(
    key: Key, hparams: Mapping[str, Array], data: Any, *, steps: int, threshold: float
) -> dict[str, Array]:
    """Path of every rule at one learning rate, the first step with a value below the threshold, and who diverged.

    Where there is no such step, that is steps + 1. A path diverges where it, or its value, overflows.
    """
    kept = jnp.asarray(rosenbrock_points(steps))
    paths, firsts, diverged = [], [], []
    for name in ROSENBROCK_RULES:
        rule = optimizers.by_name(name, hparams["rate"])
        path, values = follow(rule, rosenbrock, jnp.asarray(ROSENBROCK_START), steps)
        below = values <= threshold
        firsts.append(jnp.where(jnp.any(below), jnp.argmax(below), steps + 1))
        diverged.append(~(jnp.all(jnp.isfinite(path)) & jnp.all(jnp.isfinite(values))))
        # A path that has blown up is drawn up to there; it says nothing of the others.
        paths.append(jnp.where(jnp.isfinite(path[kept]), path[kept], 1e30).clip(-1e30, 1e30))
    return {"path": jnp.stack(paths), "steps": jnp.stack(firsts), "diverged": jnp.stack(diverged)}


# Encoder


def logistic(z: Array, extra: float) -> Array:
    """The logistic function, with ``extra`` added to its derivative alone (Fahlman, 1988)."""
    return jax.nn.sigmoid(z) + extra * (z - jax.lax.stop_gradient(z))


def encoder_loss(w: Array, bits: int, hidden: int, extra: float) -> tuple[Array, Array]:
    """Half the sum of squares over all patterns, and whether every output is within .4 of its target."""
    first, rest = w[: bits * hidden].reshape(bits, hidden), w[bits * hidden :]
    bias, rest = rest[:hidden], rest[hidden:]
    second, last = rest[: hidden * bits].reshape(hidden, bits), rest[hidden * bits :]
    inside = logistic(first + bias[None], extra)  # the inputs are the unit vectors
    error = logistic(inside @ second + last[None], extra) - jnp.eye(bits)
    return 0.5 * jnp.sum(error**2), jnp.all(jnp.abs(error) < 0.4)


def encoder_epochs(
    rule: optax.GradientTransformation, start: Array, bits: int, hidden: int, extra: float, epochs: int
) -> tuple[Array, Array]:
    """Presentations of all patterns until they are all right, or epochs + 1; whether it diverged without: ()."""
    rule = optax.with_extra_args_support(rule)
    loss = partial(encoder_loss, bits=bits, hidden=hidden, extra=extra)

    def epoch(carry: tuple, number: Array) -> tuple[tuple, None]:
        w, state, first = carry
        (value, right), gradient = jax.value_and_grad(loss, has_aux=True)(w)
        move, state = rule.update(gradient, state, w, value=value)
        return (w + move, state, jnp.where(right, jnp.minimum(first, number), first)), None

    never = jnp.asarray(epochs + 1, jnp.int32)
    numbers = jnp.arange(1, epochs + 1, dtype=jnp.int32)
    w, _, first = jax.lax.scan(epoch, (start, rule.init(start), never), numbers)[0]
    return first, not_finite(w) & (first == never)  # what happens after all were right is of no account


def encoder_lane(
    key: Key, hparams: Mapping[str, Array], data: Any, *, bits: int, hidden: int, epochs: int
) -> dict[str, Array]:
    """Epochs of every rule from one start, U(-1, 1), on the bits-hidden-bits encoder; whether one of them diverged."""
    # All weights in one vector: fewer and longer operations compile and run in a fraction of the time.
    fan_in = np.repeat([bits + 1.0, hidden + 1.0], [(bits + 1) * hidden, (hidden + 1) * bits])
    start = jax.random.uniform(key, (len(fan_in),), minval=-1.0, maxval=1.0)
    found = []
    for name in ENCODER_RULES:
        rule, extra = encoder_rule(name, fan_in)
        found.append(encoder_epochs(rule, start, bits, hidden, extra, epochs))
    solved, lost = map(jnp.stack, zip(*found, strict=True))
    return {"epochs": solved, "diverged": jnp.any(lost)}


# Digits


def chosen_rule(hparams: Mapping[str, Array], steps: int) -> optax.GradientTransformation:
    """The rule numbered ``hparams["rule"]`` at a constant rate."""
    return optimizers.switch(hparams["rule"], [optimizers.by_name(name, hparams["rate"]) for name in TRAINED_RULES])


def chosen_schedule(hparams: Mapping[str, Array], steps: int) -> optax.GradientTransformation:
    """Momentum with the schedule numbered ``hparams["schedule"]``."""
    rate = hparams["rate"]

    def scheduled(name: str) -> optax.GradientTransformation:
        if name == "plateau":
            return optax.chain(
                optimizers.by_name("momentum", rate), schedules.plateau("validation_loss", factor=0.3, patience=2)
            )
        return optimizers.by_name("momentum", schedules.by_name(name, rate, steps))

    return optimizers.switch(hparams["schedule"], [scheduled(name) for name in SCHEDULES])


def training_lane(
    key: Key,
    hparams: Mapping[str, Array],
    data: Mapping[str, Array],
    *,
    choose: Callable[[Mapping[str, Array], int], optax.GradientTransformation],
    hidden: int,
    sizes: Sequence[int],
    steps: int,
    config: TrainConfig,
) -> dict[str, Array]:
    """Learning curves of one two-layer net, and which test examples it gets wrong in the end, (n,).

    The seed deals the examples of the pool, ``data["x"]``, out to training and validation, so many each; those to test
    on, ``data["test_x"]``, are the same for all seeds and in no one's training or validation part.
    """
    deal_key, run_key = jax.random.split(key)
    order = jax.random.permutation(deal_key, len(data["x"]))
    parts = {"train": order[: sizes[0]], "validation": order[sizes[0] : sum(sizes)]}
    splits = {name: (data["x"][part], data["y"][part]) for name, part in parts.items()}
    splits["test"] = data["test_x"], data["test_y"]
    middle, spread = jnp.mean(splits["train"][0]), jnp.std(splits["train"][0])
    splits = {name: ((x - middle) / spread, y) for name, (x, y) in splits.items()}
    network = models.network(models.MLP((hidden,), classes=data["classes"].shape[0]))
    metrics = {"loss": losses.cross_entropy, "error": losses.zero_one}
    train = make_train(network, losses.cross_entropy, lambda h: choose(h, steps), config, metrics=metrics)
    result = train(run_key, hparams, splits)
    kept = [f"{split}_{metric}" for split in splits for metric in metrics]
    prediction, _ = network.apply(result.params, result.stats, splits["test"][0], key=None, train=False)
    wrong = losses.zero_one(prediction, splits["test"][1]) > 0
    return {name: result.history[name] for name in kept} | {"test_wrong": wrong, "diverged": result.diverged}


# Wilson's construction


def separable_examples(share: Array, n: int) -> tuple[Array, Array]:
    """Wilson et al. (2017, section 3.3): inputs (n, 3 + 5 n) and labels +-1 (n,), the first share * n positive.

    Input 1 is the label, 2 and 3 are always 1; example i has inputs of its own, one where positive, five where not.
    """
    number = jnp.arange(n)
    y = jnp.where(number < jnp.round(share * n), 1.0, -1.0)
    own = jnp.where((jnp.arange(5) == 0)[None] | (y < 0)[:, None], 1.0, 0.0)
    x = jnp.zeros((n, n, 5)).at[number, number].set(own).reshape(n, 5 * n)
    return jnp.concatenate([y[:, None], jnp.ones((n, 2)), x], axis=1), y


def separable_lane(key: Key, hparams: Mapping[str, Array], data: Any, *, n: int, steps: int) -> dict[str, Array]:
    """Least squares from zero weights by every rule: exact test error, training error, and the weights' directions.

    A new example shares only the first three inputs with the training examples, so that the error on new ones needs no
    sampling: a class is right where its sum of their weights has its sign.
    """
    x, y = separable_examples(hparams["share"], n)
    largest = jnp.linalg.norm(x, 2) ** 2

    def loss(w: Array) -> Array:
        return 0.5 * jnp.sum((x @ w - y) ** 2)

    def cosine(a: Array, b: Array) -> Array:
        return a @ b / jnp.linalg.norm(a) / jnp.linalg.norm(b)

    least_norm = x.T @ jnp.linalg.solve(x @ x.T, y)
    results = []
    for name in SEPARABLE_RULES:
        # Stable for all three: Nesterov's limit is the least, 2 (1 + m) / (1 + 2 m) over the largest curvature.
        rate = SEPARABLE_RATES.get(name, 1.0 / largest)
        path, _ = follow(optimizers.by_name(name, rate), loss, jnp.zeros(x.shape[1]), steps)
        w = path[-1]
        positive, negative = w[0] + w[1] + w[2], w[1] + w[2] - w[0]
        share = jnp.mean(jnp.where(y > 0, 1.0, 0.0))
        results.append(
            {
                "test_error": share * (positive <= 0) + (1 - share) * (negative >= 0),
                "train_error": jnp.mean((x @ w) * y <= 0),
                "cosine_sign": cosine(w, jnp.sign(x.T @ y)),
                "cosine_least_norm": cosine(w, least_norm),
            }
        )
    return jax.tree.map(lambda *parts: jnp.stack(parts), *results)
