"""ADALINE: an adaptive linear unit (Widrow and Hoff, 1960), and what it came to be used for, the echo canceller.

    e = t - x w                      the error before any threshold: the step shrinks near the goal
    w <- w + learning_rate e x       least mean squares (LMS)
    w <- w + learning_rate e x / |x|^2                            normalized LMS (Nagumo and Noda, 1967)

In 1960 each pattern changed all weights by equal amounts, so as to take away its error or a share of it: for inputs
of +1 and -1 that is the normalized rule. Widrow's later books and papers write the plain one, with 2 mu for the
learning rate. The adaptive echo canceller is of Sondhi (1967).

Online, pattern by pattern; in a batch, one change by the mean over the patterns, which is gradient descent on half
the mean squared error, converges to `optimum` and bursts from `stability_bound` on. A bias is the weight of an input
that is always on (`nnjax.classical.mcculloch_pitts.always_on`). `init` and the weights are the perceptron's.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from nnjax.classical import least_squares
from nnjax.classical.perceptron import Config, State, as_inputs, as_patterns, init, net_input
from nnjax.types import Array, Key, floating

__all__ = [
    "Config",
    "Echo",
    "Info",
    "Result",
    "State",
    "cancel",
    "correlation",
    "delayed",
    "echo_problem",
    "erle",
    "init",
    "misadjustment",
    "optimum",
    "predict",
    "stability_bound",
    "step",
    "train",
]


class Info(NamedTuple):
    """What one step tells.

    Attributes:
      errors: (n,) or (n, units), t - x w of each pattern from before its change, in the order of presentation.
      loss: () half the squared error summed over units, mean over patterns.
    """

    errors: Array
    loss: Array


class Result(NamedTuple):
    """What `train` returns.

    Attributes:
      state: after the last epoch.
      converged: () bool, the weights moved by at most ``tolerance`` of their length in the last epoch.
      losses: (epochs,), mean of each epoch while learning.
      weights: (epochs, d) or (epochs, d, units), at the end of each epoch.
    """

    state: State
    converged: Array
    losses: Array
    weights: Array


def predict(state: State, x: ArrayLike) -> Array:
    """Class of each pattern, 1 where x w >= 0, else -1: (n, d) to (n,) or (n, units); ValueError if x does not fit."""
    weights, x = as_inputs(state.weights, x)
    net = net_input(weights, x)
    return jnp.where(net >= 0, 1, -1).astype(weights.dtype)


def step(
    state: State,
    batch: tuple[ArrayLike, ArrayLike],
    key: Key | None = None,
    *,
    learning_rate: ArrayLike = 0.01,
    normalized: bool = False,
    online: bool = True,
) -> tuple[State, Info]:
    """Present each pattern of the batch once.

    Args:
      state: the weights.
      batch: x (n, d) and target (n,) or (n, units), any numbers, often +1 and -1; or one pattern, x (d,).
      key: present in a random order; without it, in the order given.
      learning_rate: scalar, may be traced.
      normalized: divide each pattern's change by its squared length; learning rates from 0 to 2 are then stable.
      online: change after each pattern; otherwise once, by the mean.

    Raises:
      ValueError: the shapes disagree.
    """
    weights, x, target = as_patterns(state.weights, batch)
    return _step(weights, x, target, key, learning_rate, normalized=normalized, online=online)


@partial(jax.jit, static_argnames=("normalized", "online"))
def _step(
    weights: Array,
    x: Array,
    target: Array,
    key: Key | None,
    learning_rate: ArrayLike,
    *,
    normalized: bool,
    online: bool,
) -> tuple[State, Info]:
    if key is not None:
        order = jax.random.permutation(key, len(x))
        x, target = x[order], target[order]
    gain = jnp.full(len(x), learning_rate, weights.dtype)
    if normalized:
        power = jnp.sum(x**2, axis=1)
        gain = jnp.where(power > 0, gain / jnp.where(power > 0, power, 1), 0)

    def one(weights: Array, pattern: tuple[Array, Array, Array]) -> tuple[Array, Array]:
        x, target, gain = pattern
        error = target - net_input(weights, x)
        return weights + jnp.multiply.outer(gain * x, error), error

    if online:
        weights, errors = jax.lax.scan(one, weights, (x, target, gain))
    else:
        errors = target - net_input(weights, x)
        weights = weights + jnp.tensordot(gain[:, None] * x, errors, axes=(0, 0), precision="highest") / len(x)
    return State(weights), Info(errors, 0.5 * jnp.sum(errors**2) / len(x))


def train(
    state: State,
    batch: tuple[ArrayLike, ArrayLike],
    key: Key | None = None,
    *,
    epochs: int,
    learning_rate: ArrayLike = 0.01,
    normalized: bool = False,
    online: bool = True,
    tolerance: ArrayLike = 1e-4,
) -> Result:
    """Present all patterns ``epochs`` times.

    Args:
      state, batch, learning_rate, normalized, online: as in `step`.
      key: a new random order each epoch; without it, the order given.
      epochs: how many, static.
      tolerance: for ``converged``. Online, a constant learning rate keeps the weights moving round the optimum from
        pattern to pattern, but in a fixed order they come to the same place at the end of every epoch.

    Raises:
      ValueError: the shapes disagree, or ``epochs`` is below 1.
    """
    if epochs < 1:
        raise ValueError(f"epochs={epochs} must be at least 1")
    weights, x, target = as_patterns(state.weights, batch)
    return _train(
        weights, x, target, key, learning_rate, tolerance, epochs=epochs, normalized=normalized, online=online
    )


@partial(jax.jit, static_argnames=("epochs", "normalized", "online"))
def _train(
    weights: Array,
    x: Array,
    target: Array,
    key: Key | None,
    learning_rate: ArrayLike,
    tolerance: ArrayLike,
    *,
    epochs: int,
    normalized: bool,
    online: bool,
) -> Result:
    def epoch(weights: Array, number: Array) -> tuple[Array, tuple[Array, Array, Array]]:
        order = None if key is None else jax.random.fold_in(key, number)
        new, info = _step(weights, x, target, order, learning_rate, normalized=normalized, online=online)
        after = new.weights
        still = jnp.linalg.norm(after - weights) <= tolerance * jnp.linalg.norm(after)
        return after, (info.loss, after, still)

    last, (losses, trace, still) = jax.lax.scan(epoch, weights, jnp.arange(epochs))
    return Result(State(last), still[-1], losses, trace)


def optimum(x: ArrayLike, target: ArrayLike) -> Array:
    """Weights of least mean squared error: (d,) or (d, units), whatever units the columns of x have.

    Where they are not unique: see `nnjax.classical.least_squares.equilibrated`.

    In signal processing, the Wiener solution for the signals' own sample correlations.

    Args:
      x: (n, d).
      target: (n,) or (n, units).

    Raises:
      ValueError: the shapes disagree, or there is no pattern.
    """
    x, target = floating(x), floating(target)
    if x.ndim != 2 or 0 in x.shape:
        raise ValueError(f"x has shape {x.shape}; expected (n, d) with at least one pattern and one input")
    if target.ndim not in (1, 2) or target.shape[0] != x.shape[0]:
        raise ValueError(f"target has shape {target.shape}; expected ({len(x)},) or ({len(x)}, units)")
    weights = least_squares.equilibrated(x, target.reshape(len(x), -1))
    return weights.reshape(x.shape[1:] + target.shape[1:])


def correlation(x: ArrayLike) -> Array:
    """The inputs' correlation matrix x'x / n, not centered: (n, d) to (d, d).

    Raises:
      ValueError: ``x`` is not (n, d).
    """
    x = jnp.asarray(x)
    if x.ndim != 2:
        raise ValueError(f"x has shape {x.shape}; expected (n, d)")
    x = x.astype(jnp.result_type(float, x))
    return jnp.matmul(x.T, x, precision="highest") / len(x)


def stability_bound(correlation: ArrayLike) -> Array:
    """2 / lambda_max: below this learning rate a batch converges, above it bursts. (d, d) to ().

    Raises:
      ValueError: ``correlation`` is not a square matrix.
    """
    return 2 / _eigenvalues(correlation)[-1]


def _eigenvalues(correlation: ArrayLike) -> Array:
    matrix = jnp.asarray(correlation)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise ValueError(f"correlation has shape {matrix.shape}; expected (d, d)")
    return jnp.linalg.eigvalsh(matrix.astype(jnp.result_type(float, matrix)))


def misadjustment(correlation: ArrayLike, learning_rate: ArrayLike) -> Array:
    """Excess of LMS's mean squared error over the optimum's, relative, once it has settled.

        M = s / (1 - s),   s = sum_i r lambda_i / (2 (1 - r lambda_i)),   lambda_i the correlation's eigenvalues

    for independent Gaussian patterns and learning rate r (Feuer and Weinstein, 1985); infinite where s >= 1.

    Args:
      correlation: (d, d), of the inputs; see `correlation`.
      learning_rate: any shape.

    Returns:
      The shape of ``learning_rate``.

    Raises:
      ValueError: ``correlation`` is not a square matrix.
    """
    values = _eigenvalues(correlation)
    scaled = jnp.multiply.outer(jnp.asarray(learning_rate, values.dtype), values)
    stable = jnp.max(scaled, axis=-1) < 1
    s = jnp.sum(scaled / (2 * jnp.where(scaled < 1, 1 - scaled, 1)), axis=-1)
    return jnp.where(stable & (s < 1), s / (1 - s), jnp.inf)


# The echo canceller


class Echo(NamedTuple):
    """A telephone line with an echo.

    Attributes:
      far_end: (samples,), what the other speaker says, of variance 1.
      path: (taps,), impulse response from loudspeaker to microphone.
      echo: (samples,), far_end filtered by the path.
      microphone: (samples,), echo plus noise at the near end.
    """

    far_end: Array
    path: Array
    echo: Array
    microphone: Array


def echo_problem(
    key: Key, samples: int, *, taps: int = 64, color: ArrayLike = 0.5, noise: ArrayLike = 1e-3, dtype: Any = float
) -> Echo:
    """A synthetic echo: colored noise as speech, through a decaying random impulse response of length 1.

    Args:
      key: random key.
      samples: length of the signals.
      taps: length of the path; it fades by a factor e every taps / 6 samples.
      color: correlation of neighboring far-end samples (first-order autoregression), 0 to below 1.
      noise: variance of the near-end noise.
      dtype: floating dtype.

    Raises:
      ValueError: ``samples`` or ``taps`` is below 1.
    """
    if samples < 1 or taps < 1:
        raise ValueError(f"samples={samples} and taps={taps} must be at least 1")
    dtype = jnp.result_type(dtype)
    for_start, for_far, for_path, for_noise = jax.random.split(key, 4)
    color = jnp.asarray(color, dtype)

    def follow(before: jax.Array, innovation: jax.Array) -> tuple[jax.Array, jax.Array]:
        now = color * before + jnp.sqrt(1 - color**2) * innovation
        return now, now

    start = jax.random.normal(for_start, (), dtype)
    _, far_end = jax.lax.scan(follow, start, jax.random.normal(for_far, (samples,), dtype))
    path = jax.random.normal(for_path, (taps,), dtype) * jnp.exp(-6 * jnp.arange(taps, dtype=dtype) / taps)
    path /= jnp.linalg.norm(path)
    echo = net_input(path, delayed(far_end, taps))
    return Echo(far_end, path, echo, echo + jnp.sqrt(noise) * jax.random.normal(for_noise, (samples,), dtype))


def delayed(signal: ArrayLike, taps: int) -> Array:
    """The last ``taps`` samples at each time, newest first, zeros before the start: (samples,) to (samples, taps).

    Raises:
      ValueError: the signal has more than one axis, or ``taps`` is below 1.
    """
    signal = jnp.asarray(signal)
    if signal.ndim != 1 or taps < 1:
        raise ValueError(f"signal has shape {signal.shape} and taps={taps}; expected (samples,) and at least 1")
    padded = jnp.concatenate([jnp.zeros(taps - 1, signal.dtype), signal])
    return padded[jnp.arange(len(signal))[:, None] + jnp.arange(taps - 1, -1, -1)[None, :]]


def cancel(
    far_end: ArrayLike, microphone: ArrayLike, *, taps: int, learning_rate: ArrayLike, normalized: bool = True
) -> tuple[State, Array]:
    """Subtract from the microphone what an ADALINE predicts of it from the last ``taps`` far-end samples.

    Args:
      far_end: (samples,).
      microphone: (samples,), echo plus near end.
      taps: weights of the adaptive filter, static.
      learning_rate: scalar, may be traced.
      normalized: normalized LMS, which does not depend on the far end's loudness; otherwise LMS.

    Returns:
      The filter, whose weights (taps,) estimate the echo path, and the residual (samples,) that is sent back.

    Raises:
      ValueError: the signals are not of one length.
    """
    far_end, microphone = jnp.asarray(far_end), jnp.asarray(microphone)
    if far_end.ndim != 1 or far_end.shape != microphone.shape:
        raise ValueError(f"far_end {far_end.shape} and microphone {microphone.shape} must both be (samples,)")
    start = State(jnp.zeros(taps, jnp.result_type(float, far_end)))
    state, info = step(start, (delayed(far_end, taps), microphone), learning_rate=learning_rate, normalized=normalized)
    return state, info.errors


def erle(microphone: ArrayLike, residual: ArrayLike, *, window: int) -> Array:
    """Echo-return-loss enhancement, 10 log10 of the microphone's over the residual's power, in each window, dB.

    Args:
      microphone, residual: (samples,).
      window: samples a window, static; what is left over at the end is not used.

    Returns:
      (samples // window,).

    Raises:
      ValueError: the signals are not of one length, or shorter than a window.
    """
    microphone, residual = jnp.asarray(microphone), jnp.asarray(residual)
    if microphone.ndim != 1 or microphone.shape != residual.shape:
        raise ValueError(f"microphone {microphone.shape} and residual {residual.shape} must both be (samples,)")
    if not 1 <= window <= len(microphone):
        raise ValueError(f"window={window} must lie between 1 and the number of samples, {len(microphone)}")
    return 10 * jnp.log10(_power(microphone, window) / _power(residual, window))


def _power(signal: Array, window: int) -> Array:
    whole = signal[: len(signal) // window * window]
    return jnp.mean(whole.reshape(-1, window) ** 2, axis=1)
