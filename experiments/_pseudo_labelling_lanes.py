"""One lane of the pseudo-labelling study: a teacher on few labels, its students, and a net that has all labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from nnjax import losses, models
from nnjax.train import Config as TrainConfig
from nnjax.train import Network, Result, make_train, predict
from nnjax.types import Array, Key, PyTree

ARMS = ("labelled only", "all, once", "confident, once", "schedule", "all true labels")
"""Who is taught what: the labelled pictures alone; with them the labels that this net gives to all the others, or to
those it is sure of; labels made anew at every update, of slowly growing weight (Lee, 2013); the true labels of all."""

THRESHOLDS = (0.0, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99)
"""Confidences at which the labels of the first net are looked at, beside the study's own threshold."""


def thresholds(own: float) -> tuple[float, ...]:
    """`THRESHOLDS` with one more, ascending."""
    return tuple(sorted({*THRESHOLDS, own}))


EVALUATION_BATCH = 1000
"""Pictures at once in evaluation."""


def entropy(logits: Array, y: Array) -> Array:
    """Entropy of the predicted distribution of each example, nats; logits (n, classes) -> (n,). ``y`` is not used."""
    log_p = jax.nn.log_softmax(logits)
    return -jnp.sum(jnp.exp(log_p) * log_p, axis=-1)


METRICS = {"loss": losses.cross_entropy, "error": losses.zero_one, "entropy": entropy}


def balanced_orders(y: np.ndarray, seeds: int, seed: int) -> np.ndarray:
    """Orders of examples (seeds, n) of which any first k have the same number of each class, up to one.

    Classes take turns, those with fewer examples as long as they last; within a class the order is random.
    """
    classes = np.unique(y)
    made = []
    for number in range(seeds):
        random = np.random.default_rng([seed, number])
        turn = np.empty(len(y))
        for label in random.permutation(classes):
            index = random.permutation(np.flatnonzero(y == label))
            turn[index] = np.arange(len(index))
        # Equal turns are in random order of the classes.
        made.append(np.lexsort((random.permutation(classes.max() + 1)[y], turn)).astype(np.int32))
    return np.stack(made)


class Unlabelled(NamedTuple):
    """What a student learns from besides the labelled pictures.

    Attributes:
      x: the pool, (m, ...).
      order: this seed's order of it, (m,); the first ``n`` are labelled.
      n: ().
      labels: (m,), or None: those that the student itself would give at this update.
      weight: of each example's label, (m,).
    """

    x: Array
    order: Array
    n: Array
    labels: Array | None
    weight: Array


def student(network: Network, pool: Unlabelled, alpha: Callable[[Array], Array], batch: int) -> Network:
    """``network`` which, in training, also draws ``batch`` unlabelled pictures: its output is logits and their loss.

    That loss is alpha(updates done) times the weighted mean of their cross-entropies with their pseudo-labels.
    """

    def init(key: Key, x: Array) -> tuple[PyTree, PyTree]:
        params, stats = network.init(key, x)
        return params, {"network": stats, "updates": jnp.asarray(0, jnp.int32)}

    def apply(params: PyTree, stats: PyTree, x: Array, *, key: Key, train: bool) -> tuple[Any, PyTree]:
        logits, kept = network.apply(params, stats["network"], x, key=key, train=train)
        if not train:
            return logits, stats
        place_key, drop_key = jax.random.split(jax.random.fold_in(key, 1))
        index = pool.order[jax.random.randint(place_key, (batch,), pool.n, len(pool.order))]
        pictures = pool.x[index]
        if pool.labels is None:  # without dropout, as it would be asked
            seen, _ = network.apply(params, kept, pictures, key=None, train=False)
            labels = jax.lax.stop_gradient(jnp.argmax(seen, axis=-1))
        else:
            labels = pool.labels[index]
        guessed, kept = network.apply(params, kept, pictures, key=drop_key, train=True)
        extra = jnp.mean(pool.weight[index] * losses.cross_entropy(guessed, labels))
        return (logits, alpha(stats["updates"]) * extra), {"network": kept, "updates": stats["updates"] + 1}

    return Network(init, apply)


def _both(prediction: Any, y: Array) -> Array:
    """The loss of a student: per labelled example, with the mean over the unlabelled ones added to each."""
    logits, extra = prediction
    return losses.cross_entropy(logits, y) + extra


def ramp(updates: Array, steps: int, start: float, end: float) -> Array:
    """Lee's schedule: 0 up to the share ``start`` of all steps, 1 from ``end`` on, a line between."""
    return jnp.clip((updates / steps - start) / (end - start), 0, 1)


def lane(
    key: Key,
    hparams: Mapping[str, Array],
    data: Mapping[str, Array],
    *,
    most: int,
    hidden: tuple[int, ...],
    classes: int,
    dropout: float,
    learning_rate: float,
    alpha: float,
    schedule: tuple[float, float],
    threshold: float,
    unlabelled: int,
    config: TrainConfig,
) -> dict[str, Array]:
    """All arms with ``hparams["n"]`` labels, at most ``most``: same weights at the start, same updates, same order."""
    seed, n, steps = hparams["seed"], hparams["n"], config.steps or 0
    order, free = data["order"][seed], data["rank"][seed] >= n
    # Labelled pictures are repeated, so that all n share a program.
    index = order[jnp.arange(most) % n]
    splits = {
        "train": (data["x_pool"][index], data["y_pool"][index]),
        "unlabelled": (data["x_pool"], data["y_pool"], free.astype(jnp.float32)),
        "test": (data["x_test"], data["y_test"]),
    }
    network = models.network(models.MLP(hidden, classes, dropout=dropout))

    def optimizer(_: Any) -> optax.GradientTransformation:
        return optax.adam(optax.cosine_decay_schedule(learning_rate, steps))

    def learn(labels: Array | None, weight: Array, strength: Callable[[Array], Array]) -> Result:
        pool = Unlabelled(data["x_pool"], order, n, labels, weight)
        taught = student(network, pool, strength, unlabelled)
        result = make_train(taught, _both, optimizer, config, metrics=METRICS)(key, None, splits)
        return result._replace(stats=result.stats["network"])

    teacher = make_train(network, losses.cross_entropy, optimizer, config, metrics=METRICS)(key, None, splits)
    given = jax.nn.softmax(_answers(network, teacher, data["x_pool"]))
    sure, labels = jnp.max(given, axis=-1), jnp.argmax(given, axis=-1)
    everything = jnp.ones(len(labels))
    # One program for all students with given labels.
    targets = jnp.stack([labels, labels, data["y_pool"]])
    weights = jnp.stack([everything, (sure >= threshold).astype(jnp.float32), everything])
    three = jax.vmap(lambda labels, weight: learn(labels, weight, lambda _: jnp.asarray(alpha)))(targets, weights)
    once, confident, oracle = _unstacked(three, 3)
    scheduled = learn(None, everything, lambda updates: alpha * ramp(updates, steps, *schedule))
    results = [teacher, once, confident, scheduled, oracle]
    wrong = free & (labels != data["y_pool"])
    students = [jnp.argmax(_answers(network, each, data["x_pool"]), axis=-1) for each in results]
    kept = ("train_error", "test_error", "test_entropy", "unlabelled_error", "unlabelled_entropy")
    at_least = sure[None, :] >= jnp.asarray(thresholds(threshold))[:, None]
    return {
        **{name: jnp.stack([each.history[name] for each in results]) for name in kept},
        "repeated": jnp.stack([_share(each == labels, wrong) for each in students]),
        "coverage": jax.vmap(lambda chosen: _share(chosen, free))(at_least),
        "label_accuracy": jax.vmap(lambda chosen: _share(labels == data["y_pool"], free & chosen))(at_least),
        "diverged": jnp.any(jnp.stack([each.diverged for each in results])),
    }


def _answers(network: Network, result: Result, x: Array) -> Array:
    return predict(network, result.params, result.stats, x, batch_size=EVALUATION_BATCH)


def _unstacked(results: PyTree, count: int) -> list[PyTree]:
    return [jax.tree.map(lambda leaf, place=place: leaf[place], results) for place in range(count)]


def _share(of: Array, among: Array) -> Array:
    """Share of ``among`` (m,) for which ``of`` (m,) is true; NaN where there is none."""
    return jnp.sum(of & among) / jnp.sum(among)
