"""Recurrent layers: simple RNN, LSTM and GRU over `nnjax.recurrent`, both directions, several on top of one another."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.core import FrozenDict

from nnjax import initializers, recurrent
from nnjax.models import parts
from nnjax.naming import choose
from nnjax.types import Array, Key, floating

xavier_uniform = initializers.by_name("xavier_uniform")
orthogonal = initializers.by_name("orthogonal")


class Recurrent(nn.Module):
    """What the recurrent layers share: weights "kernel", "recurrent" and "bias", a call over whole sequences.

    Attributes:
      units: size of the state, h.
      reverse: from each sequence's last step to its first; outputs stand at the places of their inputs.
      truncate: steps of truncated back-propagation through time; None goes all the way.
      kernel_init: of each gate's weights from the input, ``(key, shape, dtype)``.
      recurrent_init: of each gate's weights from the state.
      dtype: in which the layer computes; None: that of inputs and parameters.

    Input (n, t, d), optional lengths (n,) and first state, which is cast to that dtype; output: (n, t, h), zero beyond
    a sequence's length, and the state after its last step, (n, h), or the pair (h, c) of an LSTM.

    Raises (when initialized or applied):
      ValueError: inputs of other than three axes, without steps, or with another number of features than the parameters
        are for; lengths outside 0 to t; units or truncate below 1.
    """

    units: int
    reverse: bool = False
    truncate: int | None = None
    kernel_init: Callable[..., Array] = xavier_uniform
    recurrent_init: Callable[..., Array] = orthogonal
    dtype: Any = None

    gates = 1  # not annotated: of the class, not a field

    @nn.compact
    def __call__(self, x: Array, lengths: Array | None = None, initial: Any = None) -> tuple[Array, Any]:
        units, x = parts.count("units", self.units), floating(x)
        if x.ndim != 3:
            raise ValueError(f"x has shape {x.shape}; {type(self).__name__} takes sequences (n, t, features)")
        self._check_features(x)
        width = self.gates * units
        kernel = self.param("kernel", self._by_gate(self.kernel_init), (x.shape[2], width))
        weights = self.param("recurrent", self._by_gate(self.recurrent_init), (units, width))
        biases = [self.param(name, self._bias_init, (width,)) for name in self._biases()]
        params, x = jax.tree.map(
            lambda a: a if self.dtype is None else a.astype(self.dtype), ([kernel, weights, *biases], x)
        )
        dtype = jnp.result_type(x, *params)
        initial = jax.tree.map(lambda a: jnp.asarray(a, dtype), initial)
        return self._sequence(params, x, initial, lengths)

    def step(self, state: Any, x: Array) -> Any:
        """The next state for the input (n, d) of one step."""
        return self(x[:, None], initial=state)[1]

    def zeros(self, n: int, dtype: Any = None) -> Any:
        """The state of n sequences that have not begun; of the layer's dtype, or float32, if not of another."""
        return jnp.zeros((n, self.units), dtype or self.dtype or jnp.float32)

    def _sequence(self, params: list[Array], x: Array, initial: Any, lengths: Any) -> tuple[Array, Any]:
        raise NotImplementedError

    def _biases(self) -> tuple[str, ...]:
        return ("bias",)

    def _bias_init(self, key: Key, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
        return jnp.zeros(shape, dtype)

    def _by_gate(self, init: Callable[..., Array]) -> Callable[..., Array]:
        """Each gate has weights of its own scheme, as though it were a layer."""

        def draw(key: Key, shape: tuple[int, int], dtype: Any = jnp.float32) -> Array:
            keys, part = jax.random.split(key, self.gates), (shape[0], shape[1] // self.gates)
            return jnp.concatenate([init(one, part, dtype) for one in keys], 1)

        return draw

    def _check_features(self, x: Array) -> None:
        if self.is_initializing():
            return
        kernel = self.variables.get("params", {}).get("kernel")
        if kernel is not None and kernel.shape[0] != x.shape[2]:
            raise ValueError(f"x has {x.shape[2]} features a step, and these parameters are for {kernel.shape[0]}")


class RNN(Recurrent):
    """A simple recurrent layer (Elman, 1990); see `Recurrent` and `nnjax.recurrent.rnn`.

    Attributes:
      activation: a function, or a name in `nnjax.activations`; a ValueError if there is none of the name.
    """

    activation: str | Callable[[Array], Array] = "tanh"

    def _sequence(self, params: list[Array], x: Array, initial: Any, lengths: Any) -> tuple[Array, Any]:
        return recurrent.rnn(
            recurrent.RNNParams(*params), x, initial, lengths,
            activation=self.activation, reverse=self.reverse, truncate=self.truncate,
        )  # fmt: skip


class LSTM(Recurrent):
    """A layer of long short-term memory; see `Recurrent` and `nnjax.recurrent.lstm`.

    The forget gate's bias starts at 1, so that a new net remembers (Jozefowicz et al., 2015).
    """

    gates = 4

    def zeros(self, n: int, dtype: Any = None) -> Any:
        """h and c of n sequences that have not begun."""
        return (super().zeros(n, dtype),) * 2

    def _sequence(self, params: list[Array], x: Array, initial: Any, lengths: Any) -> tuple[Array, Any]:
        return recurrent.lstm(
            recurrent.LSTMParams(*params), x, initial, lengths, reverse=self.reverse, truncate=self.truncate
        )

    def _bias_init(self, key: Key, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
        return jnp.zeros(shape, dtype).at[self.units : 2 * self.units].set(1)


class GRU(Recurrent):
    """A layer of gated recurrent units; see `Recurrent` and `nnjax.recurrent.gru`.

    Attributes:
      reset_after: whether the reset gate acts after the product with the recurrent weights, as in PyTorch and Flax,
        with a "recurrent_bias"; False is the textbook cell.
    """

    reset_after: bool = False

    gates = 3

    def _sequence(self, params: list[Array], x: Array, initial: Any, lengths: Any) -> tuple[Array, Any]:
        kernel, weights, bias, *more = params
        own = recurrent.GRUParams(kernel, weights, bias, more[0] if more else jnp.zeros_like(bias))
        return recurrent.gru(
            own, x, initial, lengths, reset_after=self.reset_after, reverse=self.reverse, truncate=self.truncate
        )

    def _biases(self) -> tuple[str, ...]:
        return ("bias", "recurrent_bias") if self.reset_after else ("bias",)


CELLS: dict[str, type[Recurrent]] = {"rnn": RNN, "lstm": LSTM, "gru": GRU}
"""The layers by name."""


def cell_of(name: str) -> type[Recurrent]:
    """A layer's class by its name.

    Raises:
      ValueError: there is no such cell.
    """
    return choose("cell", name, CELLS)


def layer_of(cell: str, units: int, options: Mapping[str, Any], **own: Any) -> Recurrent:
    """A layer by its cell's name, with further attributes of it.

    Raises:
      ValueError: there is no such cell, or the cell has no such option.
    """
    layer = cell_of(cell)
    known = {field.name for field in dataclasses.fields(layer)} - {"units", "name", "parent", *own}
    for name in options:
        choose(f"option of {cell!r}", name, sorted(known))
    return layer(units, **options, **own)


def sizes(units: Any) -> tuple[int, ...]:
    """``units`` of several layers, once they are known to be whole numbers.

    Raises:
      ValueError: no sequence, an empty one, or a number below 1.
    """
    if not isinstance(units, tuple | list):
        raise ValueError(f"units={units!r} must be a tuple with the size of each layer")
    if not units:
        raise ValueError("units=() must name at least one layer")
    return parts.counts("units", units)


class Options(nn.Module):
    """A module whose attribute ``options`` cannot change, so that it can be compared, hashed and a static argument."""

    def __post_init__(self) -> None:
        """Freeze them before Flax takes over."""
        object.__setattr__(self, "options", FrozenDict(getattr(self, "options", None) or {}))
        super().__post_init__()


class Bidirectional(Options):
    """Two layers, one in each direction, outputs side by side (Schuster and Paliwal, 1997).

    Attributes:
      cell: "rnn", "lstm" or "gru".
      units: of each direction.
      options: further attributes of the layer, such as ``{"reset_after": True}``.

    Input (n, t, d), optional lengths (n,) and the pair of first states; output: (n, t, 2 units), and the pair of states
    after the last step of each direction. Layers "forward" and "backward".

    Raises (when initialized or applied):
      ValueError: an unknown cell or option (``reverse`` is none here), other than two first states, and as the layers.
    """

    cell: str
    units: int
    options: Mapping[str, Any] = FrozenDict()

    @nn.compact
    def __call__(self, x: Array, lengths: Array | None = None, initial: Any = None) -> tuple[Array, Any]:
        first, second = _states(initial, 2, "one a direction")
        layers = [
            layer_of(self.cell, self.units, self.options, reverse=back, name=name)
            for back, name in ((False, "forward"), (True, "backward"))
        ]
        ahead, final = layers[0](x, lengths, first)
        back, begin = layers[1](x, lengths, second)
        return jnp.concatenate([ahead, back], 2), (final, begin)


class Stacked(Options):
    """Recurrent layers on top of one another, with dropout between them (Zaremba et al., 2014).

    Attributes:
      cell: "rnn", "lstm" or "gru".
      units: of each layer, from the first on; of each direction where ``bidirectional``.
      bidirectional: every layer runs in both directions.
      dropout: probability of dropping an output of a layer before the next one while training; may be traced.
      options: further attributes of the layers.

    Input (n, t, d), optional lengths (n,) and first states, one a layer; output: that of the last layer, and the states
    of all after their last step. Layers "layer_0", ...

    Raises (when initialized or applied):
      ValueError: an unknown cell or option, no layers, a dropout outside [0, 1], another number of first states than of
        layers, and as the layers.
    """

    cell: str
    units: tuple[int, ...]
    bidirectional: bool = False
    dropout: Array | float = 0.0
    options: Mapping[str, Any] = FrozenDict()

    @nn.compact
    def __call__(
        self, x: Array, lengths: Array | None = None, initial: Any = None, train: bool = False
    ) -> tuple[Array, tuple]:
        units, finals = sizes(self.units), []
        for number, (size, first) in enumerate(zip(units, _states(initial, len(units), "one a layer"), strict=True)):
            if number:
                x = parts.dropout(self, x, self.dropout, train)
            name, layer = f"layer_{number}", Bidirectional if self.bidirectional else layer_of
            x, final = layer(self.cell, size, self.options, name=name)(x, lengths, first)
            finals.append(final)
        return x, tuple(finals)


def _states(initial: Any, count: int, what: str) -> tuple:
    """The first states, ``count`` of them, or as many None."""
    if initial is None:
        return (None,) * count
    if not isinstance(initial, tuple | list) or len(initial) != count:
        found = f"{len(initial)} of them" if isinstance(initial, tuple | list) else f"an array of {np.shape(initial)}"
        raise ValueError(f"initial must be a tuple of {count} states, {what}; there is {found}")
    return tuple(initial)
