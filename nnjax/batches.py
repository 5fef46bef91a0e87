"""Which examples an update sees: a random order of them, and arrays cut into equal batches."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax import lax

from nnjax.types import Array, Key, PyTree

__all__ = ["in_batches", "permutation"]


def permutation(key: Key, n: int) -> Array:
    """A random order of 0 .. n-1, int32 (n,), the numbers of `jax.random.permutation` bit for bit; pure, vmaps.

    That function sorts pairs of random key and place. XLA's sort of pairs on a CPU takes five times as long as its
    sort of plain integers and was an eighth of a small network's training; here the place is packed into the key's
    last bits on a CPU, up to 65536 places.

    Raises:
      ValueError: ``n`` is not positive.
    """
    if n < 1:
        raise ValueError(f"n={n} must be a positive integer")

    def usual(key: Key) -> Array:
        return jax.random.permutation(key, n).astype(jnp.int32)

    if n > _MOST:
        return usual(key)
    return lax.platform_dependent(key, cpu=lambda key: _packed_permutation(key, n), default=usual)


# Beyond, too few bits of a key fit beside the place, and too many keys would have to be put right one by one.
_MOST = 2**16


def _packed_permutation(key: Key, n: int) -> Array:
    order = jnp.arange(n, dtype=jnp.uint32)
    # As many rounds as jax.random.permutation has: so many that equal keys cannot matter.
    for _ in range(math.ceil(3 * math.log(n) / math.log(2**32 - 1))):
        key, subkey = jax.random.split(key)
        order = order[_argsort(jax.random.bits(subkey, (n,), jnp.uint32))]
    return order.astype(jnp.int32)


def _argsort(keys: Array) -> Array:
    """The stable order of random 32-bit keys (n,), n at most 2**16: uint32 (n,)."""
    n = len(keys)
    bits, place = max(1, (n - 1).bit_length()), jnp.arange(n, dtype=jnp.uint32)
    packed = jnp.asarray((keys >> bits << bits) | place)
    order = lax.sort(packed) & jnp.uint32(2**bits - 1)
    even = place % 2 == 0

    def unsettled(held: tuple[Array, Array]) -> Array:
        return jnp.any(held[0][:-1] > held[0][1:])

    def settle(held: tuple[Array, Array]) -> tuple[Array, Array]:
        return _swap(_swap(held, even), ~even)

    # A few neighbours agree in the bits that were sorted: they change places until all are in order.
    return lax.while_loop(unsettled, settle, (keys[order], order))[1]


def _swap(held: tuple[Array, Array], lower: Array) -> tuple[Array, Array]:
    """Keys and order with those pairs of neighbours swapped whose first is a ``lower`` one, and greater."""
    keys, order = held
    first = lower & (keys > _after(keys))  # never the last, which stands for the one after itself
    second = jnp.concatenate([jnp.zeros(1, bool), first[:-1]])

    def swapped(array: Array) -> Array:
        before = jnp.concatenate([array[:1], array[:-1]])
        return jnp.where(first, _after(array), jnp.where(second, before, array))

    return swapped(keys), swapped(order)


def _after(array: Array) -> Array:
    return jnp.concatenate([array[1:], array[-1:]])


def in_batches(arrays: PyTree, size: int) -> PyTree:
    """(n, ...) -> (ceil(n / size), size, ...), filled up with the first example, on which any network is defined."""

    def cut(array: Array) -> Array:
        extra = -len(array) % size
        filled = jnp.concatenate([array, jnp.broadcast_to(array[:1], (extra, *array.shape[1:]))])
        return filled.reshape(-1, size, *array.shape[1:])

    return jax.tree.map(cut, arrays)
