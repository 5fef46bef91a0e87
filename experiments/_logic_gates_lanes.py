"""One lane of each swept panel of the logic-gates study, and the exact tables that need no sweep."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nnjax import initializers
from nnjax.classical import adaline, hebb, linear_classifier, mcculloch_pitts, perceptron
from nnjax.classical.mcculloch_pitts import all_inputs, always_on
from nnjax.types import Array, Key

GATE_EPOCHS = 50
"""Epochs that a single unit gets to learn a gate; the longest takes 6."""

DELTA_THRESHOLD = 0.5
"""Net input from which on a unit without a bias fires."""

DRAWN = ("and", "or", "xor")
"""Gates whose learning is drawn."""


def gate_table(name: str) -> Array:
    """Truth table of a gate of the inputs a, b by its fixed weights, (4,); ``not`` is that of a."""
    patterns = all_inputs(2)
    return mcculloch_pitts.apply(mcculloch_pitts.gate(name), patterns[:, :1] if name == "not" else patterns)[:, 0]


def gate_tables() -> dict[str, Any]:
    """Each gate by fixed weights and by a perceptron's learning; the names of dimensions first."""
    names = mcculloch_pitts.GATES
    fixed = jnp.stack([gate_table(name) for name in names])
    x = always_on(all_inputs(2))
    start = perceptron.State(jnp.zeros(3))
    learned = jax.vmap(lambda target: perceptron.train(start, (x, target), epochs=GATE_EPOCHS))(fixed)
    outputs = jax.vmap(perceptron.predict, in_axes=(0, None))(learned.state, x)
    traces = jax.vmap(
        lambda target: perceptron.train(
            perceptron.State(jnp.zeros(2)), (all_inputs(2), target), epochs=10, record=True, learning_rate=0.2,
            threshold=DELTA_THRESHOLD,
        )
    )(fixed)  # fmt: skip
    inputs = np.asarray(all_inputs(2)).astype(int)
    meant = np.asarray([[_meaning(name, bool(a), bool(b)) for a, b in inputs] for name in names], int)
    found = {
        "meant": (("gate", "row"), meant),
        "fixed": (("gate", "row"), fixed),
        "learned": (("gate", "row"), outputs),
        "converged": (("gate",), learned.converged),
        "repeats": (("gate",), learned.repeats),
        "epochs": (("gate",), learned.epochs),
        "updates": (("gate",), learned.updates),
        "errors": (("gate", "epoch"), learned.errors),
        "bound": (("gate",), update_bounds(meant, 2)),
        "weights": (("gate", "epoch", "weight"), learned.weights),
        "delta": (("gate", "presentation", "input"), np.asarray(traces.patterns).reshape(len(names), 40, 2)),
        "delta_converged": (("gate",), traces.converged),
    }
    return {name: (dims, np.asarray(value)) for name, (dims, value) in found.items()}


def _meaning(name: str, a: bool, b: bool) -> bool:
    """What a gate means, by Python's own logic."""
    meanings = {
        "and": a and b, "or": a or b, "not": not a, "nand": not (a and b), "nor": not (a or b),
        "implies": (not a) or b, "equivalent": a == b, "xor": a != b,
    }  # fmt: skip
    return meanings[name]


def synthesized(inputs: int) -> int:
    """How many of all Boolean functions of so many inputs the two-layer net made from their truth table gets right."""
    tables = truth_tables(np.arange(2 ** (2**inputs)), inputs)
    patterns = all_inputs(inputs)
    nets = jax.jit(jax.vmap(lambda table: mcculloch_pitts.apply(mcculloch_pitts.synthesize(table), patterns)[:, 0]))
    return int(np.all(np.asarray(nets(tables)) == tables, axis=1).sum())


def truth_tables(numbers: np.ndarray, inputs: int) -> np.ndarray:
    """Boolean functions by number: bit r is the output in row r. (m,) to (m, 2^inputs)."""
    return numbers[:, None] >> np.arange(2**inputs)[None, :] & 1


def functions_lane(
    key: Key, hparams: Mapping[str, Array], data: Any, *, inputs: int, size: int, epochs: int
) -> dict[str, Array]:
    """A perceptron on each of ``size`` Boolean functions, from number block * size on."""
    numbers = hparams["block"] * size + jnp.arange(size)
    tables = (numbers[:, None] >> jnp.arange(2**inputs)[None, :]) & 1
    x = always_on(all_inputs(inputs))
    start = perceptron.State(jnp.zeros(inputs + 1))
    found = jax.vmap(lambda table: perceptron.train(start, (x, table), epochs=epochs))(tables)
    return {name: getattr(found, name) for name in ("converged", "repeats", "epochs", "updates")}


def update_bounds(tables: np.ndarray, inputs: int) -> np.ndarray:
    """(R / gamma)^2 of Boolean functions, in float64, infinite where not separable: (m, 2^inputs) to (m,)."""
    with jax.enable_x64(True):
        x = always_on(all_inputs(inputs))

        @jax.jit
        @jax.vmap
        def bound(table: Array) -> Array:
            return perceptron.bound(x, table, perceptron.maximum_margin(x, table))

        return np.asarray(bound(tables))


ACTIVATIONS = {"logistic": (jax.nn.sigmoid, 0.0), "tanh": (jnp.tanh, -1.0)}
"""Activation of both layers, and the target that stands for false; 1 is true."""


def hidden_net(weights: Mapping[str, Array], x: Array, activation: str) -> Array:
    """Output of a 2-h-1 net, (n,), with weights ``hidden`` (1 + 2, h) and ``output`` (1 + h,), biases first."""
    function, _ = ACTIVATIONS[activation]
    hidden = function(always_on(x) @ weights["hidden"])
    return function(weights["output"][0] + hidden @ weights["output"][1:])


def hidden_lane(
    key: Key,
    hparams: Mapping[str, Array],
    data: Any,
    *,
    units: int,
    most: int,
    activation: str,
    steps: int,
    marks: tuple[int, ...],
) -> dict[str, Array]:
    """XOR by a net with a hidden layer: gradient descent on half the squared error, summed over the four patterns.

    ``worst`` is the largest error of the four over the range of targets, after each number of steps in ``marks``.
    """
    x = all_inputs(2)
    low = ACTIVATIONS[activation][1]
    target = jnp.where(gate_table("xor") > 0, 1.0, low)
    alive = (jnp.arange(units) < hparams["units"]).astype(x.dtype)
    draw = initializers.standard_normal()
    first, second, third = jax.random.split(key, 3)
    # A unit's weights depend on the key and its number alone, so that the small nets lie inside the large ones.
    output = jnp.concatenate([jax.random.normal(third, (1,)), draw(second, (1, units), x.dtype)[0] * alive])
    start = {"hidden": draw(first, (3, units), x.dtype) * alive[None, :], "output": output}

    def errors(weights: dict[str, Array]) -> Array:
        living = {**weights, "output": weights["output"] * jnp.concatenate([jnp.ones(1), alive])}
        return target - hidden_net(living, x, activation)

    def loss(weights: dict[str, Array]) -> tuple[Array, Array]:
        error = errors(weights)
        return 0.5 * jnp.sum(error**2), jnp.max(jnp.abs(error)) / (1 - low)

    def step(weights: dict[str, Array], _: None) -> tuple[dict[str, Array], Array]:
        slopes, worst = jax.grad(loss, has_aux=True)(weights)
        return jax.tree.map(lambda w, s: w - hparams["rate"] * s, weights, slopes), worst

    weights, worst = jax.lax.scan(step, start, None, length=steps)
    worst = jnp.append(worst, loss(weights)[1])
    return {
        "worst": worst[jnp.asarray(marks)],
        "hidden": jnp.pad(weights["hidden"], ((0, 0), (0, most - units))),
        "output": jnp.pad(weights["output"], (0, most - units)),
    }


def wiring(key: Key, units: int, cells: int, connections: int) -> Array:
    """Fixed random wires from the retina to association units, (cells, units): half +1, half -1, the rest 0.

    Unit j depends on the key and j alone, so that the units of a small machine are the first of a large one.
    """

    def unit(j: Array) -> Array:
        chosen = jax.lax.top_k(jax.random.uniform(jax.random.fold_in(key, j), (cells,)), connections)[1]
        sign = jnp.where(jnp.arange(connections) < connections // 2, 1.0, -1.0)
        return jnp.zeros(cells).at[chosen].set(sign)

    return jax.vmap(unit)(jnp.arange(units)).T


def mark1_lane(
    key: Key,
    hparams: Mapping[str, Array],
    data: Mapping[str, Array],
    *,
    units: int,
    connections: int,
    threshold: float,
    epochs: int,
) -> dict[str, Array]:
    """A Mark I perceptron: retina, random association units with fixed thresholds, a trained response unit a class."""
    wiring_key, order_key = jax.random.split(key)
    wires = wiring(wiring_key, units, data["x_train"].shape[1], connections)
    alive = jnp.arange(units) < hparams["units"]

    def associate(x: Array) -> Array:
        fires = jnp.matmul(x, wires, precision="highest") >= threshold
        return always_on((fires & alive[None, :]).astype(x.dtype))

    seen = associate(data["x_train"])
    activity = jnp.mean(seen[:, 1:]) * units / hparams["units"]
    return {**_responses(order_key, seen, associate(data["x_test"]), data, epochs)[0], "activity": activity}


def _responses(
    key: Key, seen: Array, fresh: Array, data: Mapping[str, Array], epochs: int
) -> tuple[dict[str, Array], perceptron.State]:
    """Response units trained on one representation; error rates after every epoch, and the weights."""
    classes = data["classes"].shape[0]
    start = perceptron.State(jnp.zeros((seen.shape[1], classes), seen.dtype))
    targets = jax.nn.one_hot(data["y_train"], classes)

    def epoch(state: perceptron.State, number: Array) -> tuple[perceptron.State, dict[str, Array]]:
        state, _ = perceptron.step(state, (seen, targets), jax.random.fold_in(key, number))
        return state, {
            "train_error": jnp.mean(perceptron.classify(state, seen) != data["y_train"]),
            "test_error": jnp.mean(perceptron.classify(state, fresh) != data["y_test"]),
        }

    state, curves = jax.lax.scan(epoch, start, jnp.arange(epochs))
    return curves, state


def pixels_lane(
    key: Key, hparams: Mapping[str, Array], data: Mapping[str, Array], *, rule: str, epochs: int
) -> dict[str, Array]:
    """A classifier directly on the retina, by the perceptron's rule or as softmax regression, and its templates."""
    x, fresh = data["x_train"], data["x_test"]
    if rule == "perceptron":
        curves, state = _responses(key, always_on(x), always_on(fresh), data, epochs)
        return {"test_error": curves["test_error"][-1], "templates": state.weights[1:].T}
    start = linear_classifier.init(key, linear_classifier.Config(x.shape[1], data["classes"].shape[0]), x.dtype)
    found = linear_classifier.train(start, (x, data["y_train"]), key, epochs=epochs, batch_size=32, learning_rate=0.1)
    wrong = linear_classifier.predict(found.params, fresh) != data["y_test"]
    return {"test_error": jnp.mean(wrong), "templates": found.params.kernel.T}


COLOR = 0.5
"""Correlation of neighboring samples of the far end."""


def echo_lane(
    key: Key, hparams: Mapping[str, Array], data: Any, *, rule: str, taps: int, samples: int, noise: float, window: int
) -> dict[str, Array]:
    """An ADALINE cancels a telephone's echo; powers in units of the near-end noise, which no filter can take away.

    The learning rate counts in units of the far end's power over all taps, which is ``taps`` (LMS) or measured (NLMS).
    """
    problem = adaline.echo_problem(key, samples, taps=taps, color=COLOR, noise=noise)
    normalized = rule == "nlms"
    rate = hparams["rate"] if normalized else hparams["rate"] / taps
    _, residual = adaline.cancel(
        problem.far_end, problem.microphone, taps=taps, learning_rate=rate, normalized=normalized
    )
    settled = samples - samples // 3
    return {
        "erle": adaline.erle(problem.microphone, residual, window=window),
        "settled": jnp.mean(residual[settled:] ** 2) / noise,
        "loudness": jnp.mean(problem.microphone**2) / noise,
    }


def echo_theory(rates: np.ndarray, taps: int) -> np.ndarray:
    """Settled residual over the noise, (2, rates): LMS by Feuer and Weinstein, normalized LMS as for white inputs."""
    lags = np.arange(taps)
    with jax.enable_x64(True):
        far_end = COLOR ** np.abs(lags[:, None] - lags[None, :])
        excess = np.asarray(adaline.misadjustment(far_end, rates / taps))
    return 1 + np.stack([excess, rates / (2 - rates)])


def oja_lane(
    key: Key, hparams: Mapping[str, Array], data: Mapping[str, Array], *, rate: float, block: int, blocks: int
) -> dict[str, Array]:
    """One Hebbian unit, plain and with Oja's bound, from the same start on the same patterns; and Oja's flow."""
    start_key, order_key = jax.random.split(key)
    x, covariance = data["x"], data["covariance"]
    start = hebb.init(start_key, hebb.Config(x.shape[1]))
    epochs = -(-block * blocks // len(x))
    orders = jax.vmap(lambda e: jax.random.permutation(jax.random.fold_in(order_key, e), len(x)))(jnp.arange(epochs))
    chosen = orders.reshape(-1)[: block * blocks].reshape(blocks, block)

    def follow(rule: str) -> Array:
        def some(state: hebb.State, places: Array) -> tuple[hebb.State, Array]:
            state, _ = hebb.step(state, x[places], learning_rate=rate, rule=rule)
            return state, state.weights[0]

        return jax.lax.scan(some, start, chosen)[1]

    plain, bounded = follow("hebb"), follow("oja")
    flow = hebb.oja_flow(start.weights[0], covariance, rate * block * jnp.arange(1, blocks + 1))
    return {
        "hebb_length": jnp.linalg.norm(plain, axis=1),
        "oja_length": jnp.linalg.norm(bounded, axis=1),
        "explained": _explained(bounded, covariance),
        "theory": _explained(flow, covariance),
    }


def _explained(weights: Array, covariance: Array) -> Array:
    """Share of the total variance along each direction, (m, d) to (m,)."""
    along = jnp.sum((weights @ covariance) * weights, axis=1) / jnp.sum(weights**2, axis=1)
    return along / jnp.trace(covariance)


def sanger_lane(
    key: Key, hparams: Mapping[str, Array], data: Mapping[str, Array], *, units: int, rate: float, epochs: int
) -> dict[str, Array]:
    """Several units by Sanger's rule at a rate that falls to zero."""
    start_key, order_key = jax.random.split(key)
    start = hebb.init(start_key, hebb.Config(data["x"].shape[1], units))
    rates = rate * (1 - jnp.arange(epochs) / epochs)
    found = hebb.train(start, data["x"], order_key, epochs=epochs, learning_rate=rates, rule="sanger").state.weights
    return {"components": found}


def spanned(components: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """Share of the variance in the span of the first 1, 2, ... weight vectors: (..., units, d) to (..., units)."""
    axes = np.linalg.qr(np.swapaxes(components, -1, -2))[0]
    return np.cumsum(np.sum(axes * (covariance @ axes), axis=-2), axis=-1) / np.trace(covariance)
