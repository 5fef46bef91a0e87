"""Lanes of the initialisation study on few units or few layers: inputs, zero, histograms."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise, product
from typing import Any

import jax
import jax.numpy as jnp
import optax

from nnjax import activations, initializers, losses
from nnjax.initializers import Initializer
from nnjax.models import DeepMLP, layer_signals, network
from nnjax.types import Array, Key, PyTree

Results = dict[str, Array]

# What several lanes share


def switched(names: Sequence[str], place: Array) -> Callable[[Array], Array]:
    """The activation ``names[place]``, ``place`` being traced."""
    functions = [activations.by_name(name) for name in names]
    return lambda z: jax.lax.switch(place, functions, z)


def _chosen(starts: Sequence[Initializer], place: Array) -> Initializer:
    """The initializer ``starts[place]``, ``place`` being traced."""

    def init(key: Key, shape: Sequence[int], dtype: Any = jnp.float32) -> Array:
        return jax.lax.switch(place, [lambda k, start=start: start(k, shape, dtype) for start in starts], key)

    return init


def over(cell: Callable[[Array], Results], *sizes: int) -> Results:
    """``cell`` at every place of a grid, one after the other in one program: results with the grid's axes in front."""
    places = jnp.array(list(product(*map(range, sizes))))
    return {name: value.reshape(*sizes, *value.shape[1:]) for name, value in jax.lax.map(cell, places).items()}


# Inputs

FAN_IN = 250
"""Inputs of the one unit in the inputs panel, each of them 1."""

INPUT_SCHEMES = {"standard_normal": 1.0, "xavier_normal": 1 / FAN_IN, "he_normal": 2 / FAN_IN}
"""Schemes of the inputs panel and the variances of their weights; Xavier's is the one for fan_in alone."""

INPUT_SEEDS = 20
"""Independent sets of draws, over which the intervals are."""


def inputs_lane(key: Key, hparams: Any, data: None, *, draws: int) -> Results:
    """Net inputs of ``draws`` units whose 250 inputs are all 1: ``sum``, (schemes, draws), each scheme by own draws."""
    options: dict[str, dict[str, Any]] = {"xavier_normal": {"mode": "fan_in"}}
    starts = [initializers.by_name(name, **options.get(name, {})) for name in INPUT_SCHEMES]
    drawn = [init(jax.random.fold_in(key, place), (FAN_IN, draws)) for place, init in enumerate(starts)]
    return {"sum": jnp.stack([weights.sum(axis=0) for weights in drawn])}


# Zero

ZERO_ACTIVATIONS = ("tanh", "relu", "logistic")
ZERO_STARTS = ("zero", "constant", "random")
ZERO_RULES = {"sgd": 0.1, "adam": 0.01}
"""Update rules of the zero panel and their learning rates."""

ZERO_GROUPS = ("hidden", "output_weights", "output_biases")
"""Parameters of the zero panel's nets whose change is followed."""

ZERO_DEPTH, ZERO_WIDTH, ZERO_SEEDS = 2, 16, 3
CONSTANT = 0.1
"""Every weight of the constant start."""


def zero_lane(key: Key, hparams: Any, data: Mapping[str, Array], *, marks: tuple[int, ...], batch_size: int) -> Results:
    """Small nets trained from three starts; what follows has the axes (activations, starts, rules, marks).

    Returns:
      ``distance`` and ``nearest``: largest and smallest distance between two units of a hidden layer, the largest
      difference between their biases and weights in and out; ``moved`` (..., groups): the largest change since the
      start; ``accuracy`` on the training examples.
    """
    starts = [
        initializers.zeros(), jax.nn.initializers.constant(CONSTANT), initializers.by_name("lecun_normal")
    ]  # fmt: skip
    net_key, order_key = jax.random.split(key)
    x, y = data["x_train"], data["y_train"]

    def cell(places: Array) -> Results:
        net = network(
            DeepMLP(
                ZERO_DEPTH, ZERO_WIDTH, activation=switched(ZERO_ACTIVATIONS, places[0]),
                initializer=_chosen(starts, places[1]),
            )
        )  # fmt: skip
        first, stats = net.init(net_key, x[:1])

        def scores(params: PyTree, inputs: Array) -> Array:
            return net.apply(params, stats, inputs, key=None, train=False)[0]

        def watch(params: PyTree) -> Results:
            nearest, largest = _unit_distances(params)
            change = jax.tree.map(lambda a, b: jnp.max(jnp.abs(a - b)), params, first)
            hidden = jnp.max(jnp.stack(jax.tree.leaves([change["first"], change["hidden"]])))
            moved = jnp.stack([hidden, change["logits"]["kernel"], change["logits"]["bias"]])
            error = losses.zero_one(scores(params, x), y).mean()
            return {"distance": largest, "nearest": nearest, "moved": moved, "accuracy": 1 - error}

        def loss(params: PyTree, batch: Array) -> Array:
            return losses.cross_entropy(scores(params, x[batch]), y[batch]).mean()

        rule = _chosen_rule(places[2])
        return _train(first, rule, loss, order_key, n=len(y), batch_size=batch_size, marks=marks, watch=watch)[1]

    return over(cell, len(ZERO_ACTIVATIONS), len(ZERO_STARTS), len(ZERO_RULES))


def _unit_distances(params: PyTree) -> tuple[Array, Array]:
    """Smallest and largest distance between two units of one hidden layer, over all of them."""
    kernels = [params["first"]["kernel"], *params["hidden"]["kernel"], params["logits"]["kernel"]]
    biases = [params["first"]["bias"], *params["hidden"]["bias"]]
    least, most = [], []
    for weights_in, bias, weights_out in zip(kernels[:-1], biases, kernels[1:], strict=True):
        units = jnp.concatenate([weights_in, bias[None], weights_out.T])
        apart = jnp.max(jnp.abs(units[:, :, None] - units[:, None, :]), axis=0)
        least.append(jnp.min(apart + jnp.diag(jnp.full(len(apart), jnp.inf))))
        most.append(jnp.max(apart))
    return jnp.min(jnp.stack(least)), jnp.max(jnp.stack(most))


def _chosen_rule(place: Array) -> optax.GradientTransformation:
    """The rule number ``place`` of `ZERO_RULES`; both keep Adam's state."""
    adam = optax.adam(ZERO_RULES["adam"])

    def update(grads: PyTree, state: PyTree, params: PyTree | None = None) -> tuple[PyTree, PyTree]:
        plain = jax.tree.map(lambda g: -ZERO_RULES["sgd"] * g, grads)
        return jax.lax.cond(place == 1, lambda: adam.update(grads, state), lambda: (plain, state))

    return optax.GradientTransformation(adam.init, update)


def _train(
    params: PyTree,
    rule: optax.GradientTransformation,
    loss: Callable[[PyTree, Array], Array],
    key: Key,
    *,
    n: int,
    batch_size: int,
    marks: tuple[int, ...],
    watch: Callable[[PyTree], Results],
) -> tuple[PyTree, Results]:
    """Parameters after the last of ``marks``, and what was watched after each of these numbers of updates."""

    def update(step: Array, carry: tuple[PyTree, PyTree]) -> tuple[PyTree, PyTree]:
        params, state = carry
        batch = jax.random.randint(jax.random.fold_in(key, step), (batch_size,), 0, n)
        updates, state = rule.update(jax.grad(loss)(params, batch), state, params)
        return optax.apply_updates(params, updates), state

    def segment(carry: tuple[PyTree, PyTree], ends: Array) -> tuple[tuple[PyTree, PyTree], Results]:
        carry = jax.lax.fori_loop(ends[0], ends[1], update, carry)
        return carry, watch(carry[0])

    (params, _), watched = jax.lax.scan(segment, (params, rule.init(params)), jnp.array(list(pairwise((0, *marks)))))
    return params, watched


# Histograms

HISTOGRAM_ACTIVATIONS = {"tanh": (-1.0, 1.0), "logistic": (0.0, 1.0), "relu": (0.0, 4.0)}
"""Activations of the histograms panel and the range of their values that is shown; what lies outside is in the ends."""

HISTOGRAM_SCHEMES = ("standard", "xavier_uniform")
"""``standard`` is U(-1/sqrt(fan_in), 1/sqrt(fan_in)), the usual start before Glorot and Bengio (2010)."""

BINS = 60
DELTA_RANGE = (-7.0, 1.0)
"""Range of log10 |delta| in the histograms."""

HISTOGRAM_RATE, HISTOGRAM_MOMENTUM, HISTOGRAM_SEEDS, HISTOGRAM_EXAMPLES = 0.03, 0.9, 4, 256


def histograms_lane(
    key: Key,
    hparams: Any,
    data: Mapping[str, Array],
    *,
    depth: int,
    width: int,
    marks: tuple[int, ...],
    batch_size: int,
) -> Results:
    """Activations and deltas by layer before and after training, (activations, schemes, time, layers, ...).

    Returns:
      ``activation_density`` and ``delta_density`` (..., bins): of the hidden activations, and of log10 |delta|, where
      delta is an example's derivative of the loss by a net input (0 is in no bin); ``activation_std`` and
      ``delta_rms`` (...); ``accuracy`` (activations, schemes, marks) on the training examples.
    """
    ranges = jnp.array(list(HISTOGRAM_ACTIVATIONS.values()))
    net_key, order_key = jax.random.split(key)
    x, y = data["x_train"], data["y_train"]

    def cell(places: Array) -> Results:
        activation = switched(tuple(HISTOGRAM_ACTIVATIONS), places[0])
        model = DeepMLP(depth, width, activation=activation, initializer=_uniform_start(places[1]))
        net = network(model)
        first, stats = net.init(net_key, x[:1])

        def accuracy(params: PyTree) -> Results:
            scores, _ = net.apply(params, stats, x, key=None, train=False)
            return {"accuracy": 1 - losses.zero_one(scores, y).mean()}

        def look(params: PyTree) -> Results:
            hidden, deltas = _layers(model, params, stats, x[:HISTOGRAM_EXAMPLES], y[:HISTOGRAM_EXAMPLES])
            return _histograms(activation(hidden), deltas, ranges[places[0]])

        def loss(params: PyTree, batch: Array) -> Array:
            scores, _ = net.apply(params, stats, x[batch], key=None, train=False)
            return losses.cross_entropy(scores, y[batch]).mean()

        rule = optax.sgd(HISTOGRAM_RATE, HISTOGRAM_MOMENTUM)
        last, curve = _train(
            first, rule, loss, order_key, n=len(y), batch_size=batch_size, marks=marks, watch=accuracy
        )  # fmt: skip
        return jax.lax.map(look, jax.tree.map(lambda a, b: jnp.stack([a, b]), first, last)) | curve

    return over(cell, len(HISTOGRAM_ACTIVATIONS), len(HISTOGRAM_SCHEMES))


def _layers(model: DeepMLP, params: PyTree, stats: PyTree, x: Array, y: Array) -> tuple[Array, Array]:
    """Net inputs and deltas of the hidden layers, each (layers, n, width)."""
    seen = layer_signals(model, params, stats, x, lambda scores: losses.cross_entropy(scores, y).mean())
    names = seen.names[: model.depth]
    return jnp.stack([seen.outputs[name] for name in names]), jnp.stack([seen.deltas[name] for name in names])


def _histograms(hidden: Array, deltas: Array, ends: Array) -> Results:
    """What `histograms_lane` returns of activations and deltas (layers, n, width); ``ends``: of the activations."""
    low, high = ends
    return {
        "activation_density": jax.vmap(density, (0, None, None))(jnp.clip(hidden, low, high), low, high),
        "delta_density": jax.vmap(density, (0, None, None))(jnp.log10(jnp.abs(deltas)), *DELTA_RANGE),
        "activation_std": jnp.std(hidden, axis=(1, 2)),
        "delta_rms": jnp.sqrt(jnp.mean(deltas**2, axis=(1, 2))),
    }


def _uniform_start(place: Array) -> Initializer:
    """The initializer of `HISTOGRAM_SCHEMES` number ``place``, which is traced: one draw, two variances."""
    draw = initializers.scaled_uniform(lambda fan_in, fan_out: 1.0)

    def init(key: Key, shape: Sequence[int], dtype: Any = jnp.float32) -> Array:
        fan_in, fan_out = shape[-2:]
        variance = jnp.where(place == 0, 1 / (3 * fan_in), 2 / (fan_in + fan_out))
        return draw(key, shape, dtype) * jnp.sqrt(variance).astype(dtype)

    return init


def density(values: Array, low: Array | float, high: Array | float) -> Array:
    """Histogram of `BINS` equal bins from low to high, as a density; values outside, NaN too, are in no bin."""
    place = (values.ravel() - low) / (high - low) * BINS
    inside = (place >= 0) & (place <= BINS)
    bins = jnp.where(inside, jnp.clip(place, 0, BINS - 1), BINS).astype(int)
    return jnp.bincount(bins, length=BINS + 1)[:BINS] / (values.size * (high - low) / BINS)
