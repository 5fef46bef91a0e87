"""One-dimensional regression: fit a curve from examples drawn anew for every evaluation."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from nnjax import activations, losses
from nnjax.naming import choose
from nnjax.types import Array, Key

FUNCTIONS: dict[str, Callable[[Array], Array]] = {
    "sine": activations.sin_pi,
    "square": jnp.square,
    "cube": lambda x: x * x * x,
    "absolute": activations.absolute,
    "bump": lambda x: activations.gaussian(4 * x),
    "sinc": lambda x: jnp.sinc(3 * x),
}
"""Curves by name: sin(pi x), x^2, x^3, |x|, exp(-8 x^2), sin(3 pi x)/(3 pi x)."""


class Params(NamedTuple):
    """Numbers or traced.

    Attributes:
      low, high: x is uniform between them.
      noise: standard deviation of what is added to y.
    """

    low: ArrayLike = -1.0
    high: ArrayLike = 1.0
    noise: ArrayLike = 0.0


PARAMS = Params()
"""Within [-1, 1], without noise."""


class Examples(NamedTuple):
    """`x` (n, 1) and `y` (n, 1)."""

    x: Array
    y: Array


@dataclasses.dataclass(frozen=True)
class Regression:
    """y = f(x), one input and one output; the reward is minus the mean squared error, at most 0.

    Attributes:
      function: a name in `FUNCTIONS`, or any elementwise function.
      size: examples of an evaluation.
      params: a `Params`.

    Raises:
      ValueError: an unknown name, or a size that is not a whole number, at least 1.
    """

    function: str | Callable[[Array], Array] = "sine"
    size: int = 128
    params: Params = PARAMS

    inputs: ClassVar[int] = 1
    outputs: ClassVar[int] = 1

    def __post_init__(self) -> None:
        if not callable(self.function):
            choose("function", self.function, FUNCTIONS)
        if not isinstance(self.size, int | np.integer) or isinstance(self.size, bool) or self.size < 1:
            raise ValueError(f"size={self.size!r} must be a whole number, at least 1")

    def examples(self, params: Params, key: Key) -> Examples:
        """Fresh examples."""
        function = self.function if callable(self.function) else FUNCTIONS[self.function]
        dtype = jnp.result_type(float, *params)
        low, high, noise = (jnp.asarray(value, dtype) for value in params)
        place, off = jax.random.split(key)
        x = low + (high - low) * jax.random.uniform(place, (self.size, 1), dtype)
        return Examples(x, function(x) + noise * jax.random.normal(off, x.shape, dtype))

    def score(self, outputs: Array, y: Array) -> Array:
        """Minus the mean squared error, (), of outputs and y (n, 1)."""
        return -jnp.mean(losses.squared_error(outputs, y))

    def evaluate(self, params: Params, net: Callable[[Array], Array], key: Key) -> Array:
        """Minus the mean squared error on fresh examples, ()."""
        drawn = self.examples(params, key)
        return self.score(net(drawn.x), drawn.y)
