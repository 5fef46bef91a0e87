"""Truth tables: XOR, parity, or any function from bits to bits, all rows at once."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from nnjax import losses
from nnjax.types import Array, Key

MOST_BITS = 16
"""Most inputs of a table, which then has 65536 rows."""


class Rows(NamedTuple):
    """A table: `x` (2^n, n) inputs, 0 or 1, and `y` (2^n, outputs), 0 or 1."""

    x: Array
    y: Array


@dataclasses.dataclass(frozen=True)
class Boolean:
    """A function of bits. The reward is the mean log-likelihood of the table, in nats.

    An output is the logit of a 1: the reward is minus `nnjax.losses.binary_cross_entropy` over rows and outputs. It is
    negative; near 0 all rows are right, and at -ln 2 = -0.69 nothing is known. `accuracy` is the share of rows of
    which every output is right: positive for a 1 and not for a 0.

    Attributes:
      table: (0, 1, 1, 0), the value for each of 2^n rows in the order of counting, the first input the highest bit;
        or rows of several values, ((0, 1), ...), for several outputs.

    Raises:
      ValueError: another number of rows, rows of different lengths, or values that are not 0 or 1.
    """

    table: Sequence[int] | Sequence[Sequence[int]]

    def __post_init__(self) -> None:
        rows = [np.ravel(row).tolist() for row in self.table]
        if len(rows) not in (2**n for n in range(1, MOST_BITS + 1)):
            raise ValueError(f"table has {len(rows)} rows; expected 2^n for n inputs, 1 to {MOST_BITS}")
        if len({len(row) for row in rows}) > 1 or not rows[0]:
            raise ValueError(f"table has rows of {sorted({len(row) for row in rows})} values; expected as many in each")
        for value in (value for row in rows for value in row):
            if value not in (0, 1):
                raise ValueError(f"table holds {value!r}; expected 0 and 1")
        object.__setattr__(self, "table", tuple(tuple(int(value) for value in row) for row in rows))

    @property
    def inputs(self) -> int:
        """Number of bits, n."""
        return len(self.table).bit_length() - 1

    @property
    def outputs(self) -> int:
        """Number of values in a row."""
        return np.size(self.table[0])

    @property
    def params(self) -> Rows:
        """The table as arrays."""
        dtype = jnp.result_type(float)
        bits = np.arange(len(self.table))[:, None] >> np.arange(self.inputs)[::-1] & 1
        return Rows(bits.astype(dtype), np.asarray(self.table, dtype))

    @property
    def data(self) -> Rows:
        """The same as ``params``."""
        return self.params

    def examples(self, params: Rows, key: Key) -> Rows:
        """All rows, whatever the key."""
        del key
        return params

    def score(self, outputs: Array, y: Array) -> Array:
        """Mean log-likelihood, (), of outputs and values (n, outputs)."""
        return -jnp.mean(losses.binary_cross_entropy(outputs, y)) / y.shape[-1]

    def evaluate(self, params: Rows, net: Callable[[Array], Array], key: Key) -> Array:
        """Mean log-likelihood of all rows, ()."""
        rows = self.examples(params, key)
        return self.score(net(rows.x), rows.y)

    def accuracy(self, params: Rows, net: Callable[[Array], Array]) -> Array:
        """Share of rows whose outputs are all right, ()."""
        outputs = net(params.x)
        right = (outputs > 0) == (jnp.asarray(params.y) > 0)
        return jnp.mean(jnp.all(right & ~jnp.isnan(outputs), axis=-1).astype(outputs.dtype))


def xor() -> Boolean:
    """One of two bits, but not both."""
    return parity(2)


def parity(bits: int = 3) -> Boolean:
    """Whether an odd number of bits is 1.

    Raises:
      ValueError: ``bits`` is not a whole number from 1 to 16.
    """
    if not isinstance(bits, int | np.integer) or isinstance(bits, bool) or not 1 <= bits <= MOST_BITS:
        raise ValueError(f"bits={bits!r} must be a whole number from 1 to {MOST_BITS}")
    return Boolean(tuple(row.bit_count() % 2 for row in range(2 ** int(bits))))
