"""One lane of the adding problem: a recurrent net is trained on sequences, and its gradients are looked at."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from nnjax import initializers, losses, recurrent
from nnjax.data.synthetic import adding_problem
from nnjax.train import Config as TrainConfig
from nnjax.train import Network, make_train
from nnjax.types import Array, Key, PyTree

CELLS = ("rnn", "rnn orthogonal", "relu identity", "lstm", "gru")

EVALUATION_BATCH = 500
"""Sequences at once in evaluation."""
GRADIENT_N = 100
"""Test sequences, at most, of which the gradient in every state is taken."""


State = tuple[jax.Array, ...]


class Net(NamedTuple):
    """Parameters: of the cell, and of the output (h,) and ()."""

    cell: Any
    kernel: Array
    bias: Array


class Recurrence(NamedTuple):
    """A kind of cell as functions.

    Attributes:
      start: ``(key, inputs, units) -> cell parameters``.
      step: ``(cell parameters, state, x (n, d)) -> state``.
      sequence: ``(cell parameters, x (n, t, d)) -> (outputs (n, t, h), state)``.
      parts: arrays of a state, outputs first.
    """

    start: Callable[[Key, int, int], Any]
    step: Callable[[Any, Any, Array], Any]
    sequence: Callable[[Any, Array], tuple[Array, Any]]
    parts: int = 1


def _weights(key: Key, inputs: int, units: int, gates: int) -> tuple[Array, Array]:
    """From the input (Glorot's) and from the state (orthogonal), a gate beside the other."""
    keys = jax.random.split(key, (2, gates))
    inward, across = initializers.xavier_uniform(), initializers.orthogonal()
    w = [inward(k, (inputs, units)) for k in keys[0]]
    u = [across(k, (units, units)) for k in keys[1]]
    return jnp.concatenate(w, axis=1), jnp.concatenate(u, axis=1)


def _usual(key: Key, inputs: int, units: int) -> recurrent.RNNParams:
    draw = partial(jax.random.uniform, minval=-(units**-0.5), maxval=units**-0.5)
    first, second = jax.random.split(key)
    return recurrent.RNNParams(draw(first, (inputs, units)), draw(second, (units, units)), jnp.zeros(units))


def _orthogonal(key: Key, inputs: int, units: int) -> recurrent.RNNParams:
    return recurrent.RNNParams(*_weights(key, inputs, units, 1), jnp.zeros(units))


def _identity(key: Key, inputs: int, units: int) -> recurrent.RNNParams:
    small = 0.001 * jax.random.normal(key, (inputs, units))
    return recurrent.RNNParams(small, jnp.eye(units), jnp.zeros(units))


def _lstm(key: Key, inputs: int, units: int) -> recurrent.LSTMParams:
    bias = jnp.zeros(4 * units).at[units : 2 * units].set(1.0)
    return recurrent.LSTMParams(*_weights(key, inputs, units, 4), bias)


def _gru(key: Key, inputs: int, units: int) -> recurrent.GRUParams:
    bias = jnp.zeros(3 * units).at[units : 2 * units].set(-1.0)
    return recurrent.GRUParams(*_weights(key, inputs, units, 3), bias, jnp.zeros(3 * units))


RECURRENCES = {
    "rnn": Recurrence(_usual, recurrent.rnn_step, recurrent.rnn),
    "rnn orthogonal": Recurrence(_orthogonal, recurrent.rnn_step, recurrent.rnn),
    "relu identity": Recurrence(
        _identity, partial(recurrent.rnn_step, activation="relu"), partial(recurrent.rnn, activation="relu")
    ),
    "lstm": Recurrence(_lstm, recurrent.lstm_step, recurrent.lstm, parts=2),
    "gru": Recurrence(_gru, recurrent.gru_step, recurrent.gru),
}


def network(cell: str, units: int) -> Network:
    """A cell read at its last step by a linear unit, (n, t, d) -> (n,); nothing is scaled."""
    kind = RECURRENCES[cell]

    def init(key: Key, x: Array) -> tuple[PyTree, PyTree]:
        cell_key, out_key = jax.random.split(key)
        kernel = initializers.xavier_uniform()(out_key, (units, 1))[:, 0]
        return Net(kind.start(cell_key, x.shape[-1], units), kernel, jnp.zeros(())), {}

    def apply(params: Net, stats: PyTree, x: Array, *, key: Key | None, train: bool) -> tuple[Array, PyTree]:
        outputs, _ = kind.sequence(params.cell, x)
        return outputs[:, -1] @ params.kernel + params.bias, stats

    return Network(init, apply)


def state_gradients(cell: str, params: Net, x: Array, y: Array) -> Array:
    """Logarithm (base 10) of the norm of each sequence's gradient in its state after every step, (n, t).

    The gradient is that of the squared error; the state is all that the cell hands on, an LSTM's memory too. What the
    last step's state has is all there is; what an earlier one has is left of it on its way back (Pascanu, Mikolov and
    Bengio, 2013). Lengths are kept as logarithms, for what is left after a hundred steps is no number in float32.
    """
    kind = RECURRENCES[cell]
    n, units = len(x), params.kernel.shape[0]

    def step(state: State, now: Array) -> State:
        new = kind.step(params.cell, state if kind.parts > 1 else state[0], now)
        return new if kind.parts > 1 else (new,)

    def error(state: State) -> jax.Array:
        return jnp.sum(jnp.asarray(losses.squared_error(state[0] @ params.kernel + params.bias, y)))

    def forward(state: State, now: Array) -> tuple[State, State]:
        return step(state, now), state

    def back(carry: tuple[State, jax.Array], now: tuple[State, Array]) -> tuple[tuple[State, jax.Array], jax.Array]:
        gradient, log = carry
        before, seen = now
        (gradient,) = jax.vjp(lambda state: step(state, seen), before)[1](gradient)
        return _unit(gradient, log), log

    inputs = jnp.asarray(x).transpose(1, 0, 2)
    start = tuple(jnp.zeros((n, units)) for _ in range(kind.parts))
    end, states = jax.lax.scan(forward, start, inputs)
    first = _unit(jax.grad(error)(end), jnp.zeros(n))
    _, logs = jax.lax.scan(back, first, (states, inputs), reverse=True)
    return logs.T


def _unit(gradient: State, log: jax.Array) -> tuple[State, jax.Array]:
    """Gradients (n, h) of length 1 together, and ``log`` (n,) with the logarithm of their length added."""
    norm = jnp.sqrt(sum((jnp.sum(part**2, axis=-1) for part in gradient), jnp.zeros(len(log))))
    divisor = jnp.where(norm > 0, norm, 1)[:, None]
    return tuple(part / divisor for part in gradient), log + jnp.log10(norm)


def _course(logs: Array) -> Array:
    """Median over sequences of what is left of the last step's, base 10: (n, t) -> (t,)."""
    return jnp.median(logs - logs[:, -1:], axis=0)


def first(net: Network, key: Key, x: Array) -> Net:
    """The parameters with which a run of ``key`` begins."""
    return net.init(jax.random.split(key)[0], x[:1])[0]


def lane(
    key: Key,
    hparams: Mapping[str, Array],
    data: Any,
    *,
    cell: str,
    length: int,
    units: int,
    clip: float,
    config: TrainConfig,
    sizes: tuple[int, int, int],
) -> dict[str, Array]:
    """Losses (evaluations,) of every split and the course of the gradient (base 10) at start and end, (2, length)."""
    data_key, run_key = jax.random.split(key)
    sample = adding_problem(data_key, sum(sizes), length)
    train_n, validation_n, _ = sizes
    ends = (0, train_n, train_n + validation_n, sum(sizes))
    parts = [(sample.x[a:b], sample.y[a:b]) for a, b in itertools.pairwise(ends)]
    splits = {"train": parts[0], "validation": parts[1], "test": parts[2]}
    net = network(cell, units)

    def optimizer(h: Mapping[str, Array]) -> optax.GradientTransformation:
        return optax.chain(optax.clip_by_global_norm(clip), optax.adam(h["rate"]))

    train = make_train(net, losses.squared_error, optimizer, config)
    start = first(net, run_key, sample.x)
    result = train(run_key, hparams, splits)
    some = tuple(part[:GRADIENT_N] for part in parts[2])
    gradient = jnp.stack([_course(state_gradients(cell, params, *some)) for params in (start, result.params)])
    history = {name: result.history[name] for name in ("train_loss", "validation_loss", "test_loss")}
    return {**history, "gradient": gradient, "diverged": result.diverged}
