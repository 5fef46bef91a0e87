"""Hebbian learning without a teacher: what fires together wires together, and what keeps it bounded.

``weights[i, j]`` leads from sending unit j to receiving unit i, which answers a_i = sum_j w_ij o_j: axis 0 receives
(the transpose of a layer's (d_in, d_out)). With the learning rate eta, each pattern changes the weights by

    hebb       dw_ij = eta a_i o_j                                                   (Hebb, 1949)
    oja        dw_ij = eta a_i (o_j - a_i w_ij)                                      (Oja, 1982)
    sanger     dw_ij = eta a_i (o_j - sum_{k <= i} a_k w_kj)                         (Sanger, 1989)
    subspace   dw_ij = eta a_i (o_j - sum_k a_k w_kj)                                (Oja, 1989)

On centered patterns with covariance C, ``hebb`` grows along the first principal component without bound, as
exp(eta lambda_1 n) after n patterns; ``oja`` turns to that component with length 1, every unit to the same; ``sanger``
finds the leading components one a unit, in order; ``subspace`` an orthonormal basis of the space they span.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from nnjax.naming import choose
from nnjax.types import Array, Key, floating


@dataclass(frozen=True)
class Config:
    """What is static.

    Attributes:
      inputs: sending units.
      units: receiving units.
      length: length of each unit's weights at the start; their direction is random.
    """

    inputs: int
    units: int = 1
    length: float = 1.0

    def __post_init__(self) -> None:
        """Refuse sizes that are no sizes."""
        for name in ("inputs", "units"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")
        if not self.length > 0:
            raise ValueError(f"length={self.length} must be positive: from zero weights nothing is learned")


class State(NamedTuple):
    """What is learned: `weights` (receiving units, sending units)."""

    weights: Array


class Info(NamedTuple):
    """What one step tells: `activations` (n, units) of the receiving units, each from before its pattern's change."""

    activations: Array


class Result(NamedTuple):
    """What `train` returns.

    Attributes:
      state: after the last epoch.
      converged: () bool, the weights moved by at most ``tolerance`` of their length in the last epoch.
      weights: (epochs, units, inputs), at the end of each epoch.
    """

    state: State
    converged: Array
    weights: Array


def _nothing(activation: Array, weights: Array) -> Array:
    return jnp.zeros_like(weights)


def _own(activation: Array, weights: Array) -> Array:
    return activation[:, None] * weights


def _own_and_earlier(activation: Array, weights: Array) -> Array:
    return jnp.cumsum(activation[:, None] * weights, axis=0)


def _all(activation: Array, weights: Array) -> Array:
    return jnp.broadcast_to(jnp.matmul(activation, weights, precision="highest"), weights.shape)


_EXPLAINED = {"hebb": _nothing, "oja": _own, "sanger": _own_and_earlier, "subspace": _all}
"""What each unit takes the input to consist of already, (units, inputs): the rule learns from the rest."""

RULES = tuple(_EXPLAINED)
"""Names of the rules."""


def init(key: Key, config: Config, dtype: Any = float) -> State:
    """Weights of random direction and given length."""
    weights = jax.random.normal(key, (config.units, config.inputs), jnp.result_type(dtype))
    return State(config.length * weights / jnp.linalg.norm(weights, axis=1, keepdims=True))


def change(activation: ArrayLike, output: ArrayLike, learning_rate: ArrayLike = 1.0) -> Array:
    """Hebb's rule itself for given activities: dw_ij = eta a_i o_j, summed over patterns.

    Args:
      activation: a, of the receiving units, (n, units) or (units,); a teacher may set it.
      output: o, of the sending units, (n, inputs) or (inputs,).
      learning_rate: eta, scalar.

    Returns:
      (units, inputs): axis 0 receives.

    Raises:
      ValueError: the shapes disagree.
    """
    activation, output = jnp.asarray(activation), jnp.asarray(output)
    if activation.ndim not in (1, 2) or activation.shape[:-1] != output.shape[:-1] or output.ndim != activation.ndim:
        raise ValueError(
            f"activation {activation.shape} and output {output.shape} must be (n, units) and (n, inputs), "
            "or (units,) and (inputs,)"
        )
    spec = "ni,nj->ij" if activation.ndim == 2 else "i,j->ij"
    return learning_rate * jnp.einsum(spec, activation, output, precision="highest")


def step(
    state: State,
    batch: ArrayLike,
    key: Key | None = None,
    *,
    learning_rate: ArrayLike = 0.01,
    rule: str = "oja",
) -> tuple[State, Info]:
    """Present each pattern once: one pattern, or an epoch.

    Args:
      state: the weights.
      batch: outputs of the sending units, (n, inputs) or (inputs,); center them first for principal components.
      key: present in a random order; without it, in the order given.
      learning_rate: eta, scalar, may be traced; below 2 / max |o|^2, or the bounded rules burst as well.
      rule: one of `RULES`.

    Raises:
      ValueError: the shapes disagree, or the rule is unknown.
    """
    choose("rule", rule, _EXPLAINED)
    weights, patterns = _patterns(state, batch)
    return _step(weights, patterns, key, learning_rate, rule=rule)


@partial(jax.jit, static_argnames="rule")
def _step(
    weights: Array, patterns: Array, key: Key | None, learning_rate: ArrayLike, *, rule: str
) -> tuple[State, Info]:
    explained = _EXPLAINED[rule]
    if key is not None:
        patterns = jax.random.permutation(key, patterns)

    def one(weights: Array, output: Any) -> tuple[Array, Array]:
        activation = jnp.matmul(weights, output, precision="highest")
        rest = jnp.broadcast_to(output[None, :], weights.shape) - explained(activation, weights)
        return (weights + learning_rate * activation[:, None] * rest).astype(weights.dtype), activation

    last, activations = jax.lax.scan(one, weights, patterns)
    return State(last), Info(activations)


def train(
    state: State,
    batch: ArrayLike,
    key: Key | None = None,
    *,
    epochs: int,
    learning_rate: ArrayLike = 0.01,
    rule: str = "oja",
    tolerance: ArrayLike = 1e-3,
) -> Result:
    """Present all patterns ``epochs`` times.

    Args:
      state, batch, rule: as in `step`.
      key: a new random order each epoch; without it, the order given.
      epochs: how many, static.
      learning_rate: scalar, or (epochs,): the weights settle where it falls.
      tolerance: for ``converged``.

    Raises:
      ValueError: the shapes disagree, ``epochs`` is below 1, or the rule is unknown.
    """
    if epochs < 1:
        raise ValueError(f"epochs={epochs} must be at least 1")
    choose("rule", rule, _EXPLAINED)
    weights, patterns = _patterns(state, batch)
    rates = jnp.asarray(learning_rate, weights.dtype)
    if rates.shape not in ((), (epochs,)):
        raise ValueError(f"learning_rate has shape {rates.shape}; expected () or ({epochs},), one an epoch")
    return _train(weights, patterns, key, jnp.broadcast_to(rates, (epochs,)), tolerance, rule=rule)


@partial(jax.jit, static_argnames="rule")
def _train(
    weights: Array, patterns: Array, key: Key | None, rates: Array, tolerance: ArrayLike, *, rule: str
) -> Result:
    def epoch(weights: Array, now: tuple[Array, Array]) -> tuple[Array, tuple[Array, Array]]:
        number, rate = now
        order = None if key is None else jax.random.fold_in(key, number)
        after = _step(weights, patterns, order, rate, rule=rule)[0].weights
        moved = jnp.linalg.norm(after - weights) <= tolerance * jnp.linalg.norm(weights)
        return after, (after, moved)

    last, (trace, moved) = jax.lax.scan(epoch, weights, (jnp.arange(len(rates)), rates))
    return Result(State(last), moved[-1], trace)


def oja_flow(weights: ArrayLike, covariance: ArrayLike, times: ArrayLike) -> Array:
    """Solution of dw/dt = C w - (w' C w) w, the mean of Oja's rule for small eta: one pattern advances time by eta.

        w(t) = v / sqrt(1 - |w(0)|^2 + |v|^2),   v = exp(C t) w(0)

    Args:
      weights: w(0), (d,), not longer than 1.
      covariance: C, (d, d).
      times: any shape, >= 0.

    Returns:
      (*times.shape, d).

    Raises:
      ValueError: the shapes disagree.
    """
    weights, covariance = floating(weights), floating(covariance)
    if weights.ndim != 1 or covariance.shape != (weights.shape[0],) * 2:
        raise ValueError(f"weights {weights.shape} and covariance {covariance.shape} must be (d,) and (d, d)")
    times = jnp.asarray(times, weights.dtype)[..., None]
    values, vectors = jnp.linalg.eigh(covariance)
    start = jnp.matmul(vectors.T, weights, precision="highest")

    def spread(a: Array) -> Array:
        return jnp.broadcast_to(a, (*times.shape[:-1], len(weights)))

    # Everything is divided by exp(lambda_1 t), which overflows long before anything has happened in the directions.
    v = jnp.exp((spread(values) - values[-1]) * times) * spread(start)
    rest = (1 - jnp.sum(weights**2)) * jnp.exp(-2 * values[-1] * times)
    flowed = v / jnp.sqrt(rest + jnp.sum(v**2, axis=-1, keepdims=True))
    return jnp.matmul(flowed, vectors.T, precision="highest")


def _patterns(state: State, batch: ArrayLike) -> tuple[Array, Array]:
    """Weights (units, inputs) as floating numbers, and patterns (n, inputs) of their dtype."""
    weights, patterns = floating(state.weights), jnp.asarray(batch)
    if weights.ndim != 2:
        raise ValueError(f"weights has shape {weights.shape}; expected (receiving units, sending units)")
    if patterns.ndim not in (1, 2) or patterns.shape[-1] != weights.shape[1]:
        raise ValueError(
            f"batch has shape {patterns.shape}; the weights take (n, {weights.shape[1]}) or ({weights.shape[1]},)"
        )
    return weights, jnp.atleast_2d(patterns).astype(weights.dtype)
