"""Contestants of recurrent nets: an LSTM forward and back, PyTorch's and Flax's beside ours.

Batch 64, 100 steps, 32 inputs, 128 units; gradients of the sum of squares of the outputs for all weights. Ours and
Flax's run inside one compiled scan over batches, as `nnjax.train` does, each followed by a small step, so that nothing
is the same for two batches. See `tests.benchmarks.training`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

Round = Callable[[], float]

BATCH, TIME, INPUTS, UNITS = 64, 100, 32, 128
STEPS, RATE = 5, 1e-6
"""Batches a round, and the rate of their steps."""

_FORWARD = 2 * BATCH * TIME * 4 * UNITS * (INPUTS + UNITS)
FLOP = 3 * _FORWARD - 2 * BATCH * TIME * 4 * UNITS * INPUTS
"""Forward, gradients of the weights and of the states; the inputs have none."""


def _steps(gradient: Callable[[Any, Any], Any], params: Any) -> Round:
    import jax

    x = jax.random.normal(jax.random.key(1), (STEPS, BATCH, TIME, INPUTS))

    def step(params: Any, x: Any) -> tuple[Any, None]:
        return jax.tree.map(lambda p, g: p - RATE * g, params, gradient(params, x)), None

    program = jax.jit(lambda params, x: jax.lax.scan(step, params, x)[0])

    def one() -> float:
        jax.block_until_ready(program(params, x))
        return math.nan

    one.steps = STEPS  # type: ignore[attr-defined]
    return one


def nnjax_lstm() -> Round:
    """`nnjax.recurrent.lstm`."""
    import jax

    from nnjax import recurrent

    bound, sizes = UNITS**-0.5, ((INPUTS, 4 * UNITS), (UNITS, 4 * UNITS), (4 * UNITS,))
    keys = jax.random.split(jax.random.key(0), 3)
    params = recurrent.LSTMParams(
        *[jax.random.uniform(key, size, minval=-bound, maxval=bound) for key, size in zip(keys, sizes, strict=True)]
    )
    return _steps(jax.grad(lambda params, x: (recurrent.lstm(params, x)[0] ** 2).sum()), params)


def flax_lstm() -> Round:
    """Flax's cell, `flax.linen.OptimizedLSTMCell`, by `flax.linen.RNN`."""
    import flax.linen as nn
    import jax
    import jax.numpy as jnp

    net = nn.RNN(nn.OptimizedLSTMCell(UNITS))
    params = net.init(jax.random.key(0), jnp.zeros((BATCH, TIME, INPUTS)))
    return _steps(jax.grad(lambda params, x: (net.apply(params, x) ** 2).sum()), params)


def _torch(batch_first: bool) -> Round:
    import torch

    torch.manual_seed(0)
    net = torch.nn.LSTM(INPUTS, UNITS, batch_first=batch_first)
    x = torch.randn(*((BATCH, TIME) if batch_first else (TIME, BATCH)), INPUTS)
    sgd = torch.optim.SGD(net.parameters(), RATE)

    def one() -> float:
        for _ in range(STEPS):
            sgd.zero_grad()
            (net(x)[0] ** 2).sum().backward()
            sgd.step()
        return math.nan

    one.steps = STEPS  # type: ignore[attr-defined]
    return one


def torch_lstm() -> Round:
    """PyTorch, time first."""
    return _torch(False)


def torch_lstm_batch_first() -> Round:
    """PyTorch, batch first."""
    return _torch(True)


CONTESTANTS: dict[str, Callable[[], Round]] = {
    function.__name__: function for function in (nnjax_lstm, flax_lstm, torch_lstm, torch_lstm_batch_first)
}
