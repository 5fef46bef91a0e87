"""The equations of the recurrent cells: their weights, one step, and the gradients of a step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from nnjax import activations
from nnjax.types import Array

State = tuple[Array, ...]  # what a step hands to the next, outputs first
Activation = str | Callable[[Array], Array]


class RNNParams(NamedTuple):
    """Weights of a simple RNN: from the input w `(d, h)`, from the state u `(h, h)`, bias b `(h,)`."""

    w: Array
    u: Array
    b: Array


class LSTMParams(NamedTuple):
    """Weights of an LSTM, w `(d, 4h)`, u `(h, 4h)`, b `(4h,)`; gates in the order i, f, g, o.

    PyTorch's are `weight_ih.T`, `weight_hh.T` and `bias_ih + bias_hh`, in the same order; so are those of Keras.
    """

    w: Array
    u: Array
    b: Array


class GRUParams(NamedTuple):
    """Weights of a GRU, w `(d, 3h)`, u `(h, 3h)`, b `(3h,)`, c `(3h,)`; gates in the order r, z, g.

    c is the recurrent bias, used with ``reset_after=True`` alone. Here z is the weight of the new value, as in the
    textbook; PyTorch, Flax and Keras let it weigh the old one. Since 1 - s(a) = s(-a), their weights become these with
    the sign of the z columns of w, u, b and c turned. PyTorch's order is r, z, g; that of Keras is z, r, g.
    """

    w: Array
    u: Array
    b: Array
    c: Array


# One step


def rnn_step(params: RNNParams, h: Array, x: Array, activation: Activation = "tanh") -> jax.Array:
    """h' = activation(x W + h U + b), the simple recurrent cell (Elman, 1990).

    Args:
      params: weights.
      h: state, `(n, h)`.
      x: input of the step, `(n, d)`.
      activation: a function, or a name in `nnjax.activations`.

    Returns:
      The next state, `(n, h)`.
    """
    return jnp.asarray(Summed("rnn", function_of(activation)).forward(RNNParams(*params), (h,), x)[0][0])


def lstm_step(params: LSTMParams, state: tuple[Array, Array], x: Array) -> tuple[jax.Array, jax.Array]:
    """Long short-term memory with a forget gate (Hochreiter and Schmidhuber, 1997; Gers et al., 2000).

    `i, f, o = s(...)`, `g = tanh(...)`, each of its columns of `x W + h U + b`; `c' = f c + i g`, `h' = o tanh(c')`.

    Args:
      params: weights.
      state: h and c, each `(n, h)`.
      x: input of the step, `(n, d)`.

    Returns:
      The next h and c.
    """
    h, c = Summed("lstm").forward(LSTMParams(*params), tuple(state), x)[0]
    return jnp.asarray(h), jnp.asarray(c)


def gru_step(params: GRUParams, h: Array, x: Array, reset_after: bool = False) -> jax.Array:
    """Gated recurrent unit (Cho et al., 2014): `h' = (1 - z) h + z g`.

    `r, z = s(x W + h U + b)` in their columns. The new value is `g = tanh(x W + (r h) U + b)`; with ``reset_after``
    `g = tanh(x W + b + r (h U + c))`, and c is added for r and z too, which is the cell of PyTorch, Flax and cuDNN.

    Args:
      params: weights.
      h: state, `(n, h)`.
      x: input of the step, `(n, d)`.
      reset_after: whether r acts after the product with U.

    Returns:
      The next state, `(n, h)`.
    """
    return jnp.asarray(gru_cell(reset_after).forward(GRUParams(*params), (h,), x)[0][0])


# Cells: forward gives the next state and the preactivations, backward their gradients, and those of the state before


class Summed(NamedTuple):
    """A cell that sees x W + h U + b alone."""

    kind: str
    activation: Callable[[Array], Array] | None = None

    def update(self, z: Array, state: State) -> State:
        """The next state from the preactivations."""
        if self.activation is not None:
            return (self.activation(z),)
        i, f, g, o = jnp.split(z, 4, -1)
        c = jax.nn.sigmoid(f) * state[1] + jax.nn.sigmoid(i) * jnp.tanh(g)
        return jax.nn.sigmoid(o) * jnp.tanh(c), c

    def forward(self, params: Any, state: State, x: Array) -> tuple[State, Array]:
        """The next state and the preactivations."""
        z = x @ params.w + state[0] @ params.u + params.b[None, :]
        return self.update(z, state), z

    def backward(self, params: Any, z: Array, state: State, ct: State) -> tuple[Array, State]:
        """Gradients of the preactivations and of the state before, from that of the next state."""
        dz, before = jax.vjp(self.update, z, state)[1](ct)
        return dz, (before[0] + dz @ params.u.T, *before[1:])

    def gradients(self, params: Any, x: Array, h: Array, z: Array, dz: Array) -> tuple[tuple, Array]:
        """Of the weights and of x, from rows of steps."""
        both = _product(jnp.concatenate([x, h], 1), dz)
        return type(params)(both[: x.shape[1]], both[x.shape[1] :], _total(dz)), dz @ params.w.T


class ResetAfter(NamedTuple):
    """A GRU whose preactivations are those of r and z, g's part from x, and g's part from h."""

    kind: str = "reset after"

    def update(self, a: Array, state: State) -> State:
        """The next state from the preactivations."""
        r, z, g, from_h = jnp.split(a, 4, -1)
        z = jax.nn.sigmoid(z)
        return ((1 - z) * state[0] + z * jnp.tanh(g + jax.nn.sigmoid(r) * from_h),)

    def forward(self, params: GRUParams, state: State, x: Array) -> tuple[State, Array]:
        """The next state and the preactivations."""
        two = 2 * state[0].shape[1]
        from_x, from_h = x @ params.w + params.b[None, :], state[0] @ params.u + params.c[None, :]
        a = jnp.concatenate([from_x[:, :two] + from_h[:, :two], from_x[:, two:], from_h[:, two:]], 1)
        return self.update(a, state), a

    def backward(self, params: GRUParams, a: Array, state: State, ct: State) -> tuple[Array, State]:
        """Gradients of the preactivations and of the state before, from that of the next state."""
        da, (before,) = jax.vjp(self.update, a, state)[1](ct)
        return da, (before + _parts(da)[1] @ params.u.T,)

    def gradients(self, params: GRUParams, x: Array, h: Array, a: Array, da: Array) -> tuple[tuple, Array]:
        """Of the weights and of x, from rows of steps."""
        of_x, of_h = _parts(da)
        weights = GRUParams(_product(x, of_x), _product(h, of_h), _total(of_x), _total(of_h))
        return weights, of_x @ params.w.T


class ResetBefore(NamedTuple):
    """The textbook GRU: r h is multiplied with U, so that g waits for r."""

    kind: str = "reset before"

    def gates(self, a: Array, h: Array) -> tuple[Array, Array]:
        """z and r h from the preactivations of r and z."""
        r, z = jnp.split(jax.nn.sigmoid(a), 2, -1)
        return z, r * h

    def mix(self, z: Array, a: Array, h: Array) -> Array:
        """The next state."""
        return (1 - z) * h + z * jnp.tanh(a)

    def forward(self, params: GRUParams, state: State, x: Array) -> tuple[State, Array]:
        """The next state and the preactivations."""
        (h,), two = state, 2 * state[0].shape[1]
        from_x = x @ params.w + params.b[None, :]
        a = from_x[:, :two] + h @ params.u[:, :two]
        z, kept = self.gates(a, h)
        a_g = from_x[:, two:] + kept @ params.u[:, two:]
        return (self.mix(z, a_g, h),), jnp.concatenate([a, a_g], 1)

    def backward(self, params: GRUParams, a: Array, state: State, ct: State) -> tuple[Array, State]:
        """Gradients of the preactivations and of the state before, from that of the next state."""
        (h,), two = state, 2 * state[0].shape[1]
        (z, _), of_gates = jax.vjp(self.gates, a[:, :two], h)
        dz, da_g, dh = jax.vjp(self.mix, z, a[:, two:], h)[1](ct[0])
        da, through = of_gates((dz, da_g @ params.u[:, two:].T))
        return jnp.concatenate([da, da_g], 1), (dh + through + da @ params.u[:, :two].T,)

    def gradients(self, params: GRUParams, x: Array, h: Array, a: Array, da: Array) -> tuple[tuple, Array]:
        """Of the weights and of x, from rows of steps."""
        two = 2 * h.shape[1]
        kept = self.gates(a[:, :two], h)[1]
        u = jnp.concatenate([_product(h, da[:, :two]), _product(kept, da[:, two:])], 1)
        b = _total(da)
        return GRUParams(_product(x, da), u, b, jnp.zeros_like(b)), da @ params.w.T


Cell = Summed | ResetAfter | ResetBefore


def gru_cell(reset_after: bool) -> ResetAfter | ResetBefore:
    """The GRU of either kind."""
    return ResetAfter() if reset_after else ResetBefore()


def _parts(da: Array) -> tuple[Array, Array]:
    """Gradients of x W + b and of h U + c."""
    r, z, g, from_h = jnp.split(da, 4, -1)
    return jnp.concatenate([r, z, g], 1), jnp.concatenate([r, z, from_h], 1)


def _product(rows: Array, deltas: Array) -> Array:
    """rows^T deltas, summed in float32 at least."""
    return jnp.matmul(rows.T, deltas, preferred_element_type=wide(rows.dtype))


def _total(deltas: Array) -> Array:
    return deltas.sum(0, dtype=wide(deltas.dtype))


def wide(dtype: Any) -> Any:
    """The dtype in which gradients of weights are summed."""
    return jnp.promote_types(dtype, jnp.float32)


def function_of(activation: Activation) -> Callable[[Array], Array]:
    """An activation given by its name or as a function.

    Raises:
      ValueError: an unknown name, or something else.
    """
    if isinstance(activation, str):
        return activations.by_name(activation)
    if not callable(activation):
        raise ValueError(f"activation={activation!r} must be a function or a name in nnjax.activations")
    return activation
