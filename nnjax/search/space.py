"""What is searched: a hyper-parameter is a `Float`, an `Integer` or a `Choice`, a space is a dict of them by name."""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nnjax.chunks import plain
from nnjax.types import Array


@dataclass(frozen=True)
class Float:
    """A real number from ``low`` to ``high``, uniform there or, with ``log``, in its logarithm.

    Raises:
      ValueError: bounds that are not finite or not ascending, or ``log`` from a bound that is not positive.
    """

    low: float
    high: float
    log: bool = False

    def __post_init__(self) -> None:
        _check_bounds(self)

    @property
    def size(self) -> float:
        """How many values there are."""
        return math.inf

    def decode(self, u: float) -> float:
        """The value at ``u`` in [0, 1]."""
        if not self.log:
            return float(min(self.low + u * (self.high - self.low), self.high))
        low, high = math.log(self.low), math.log(self.high)
        return float(min(max(math.exp(low + u * (high - low)), self.low), self.high))

    def encode(self, value: Any) -> tuple[float, ...]:
        """Where a value lies: the opposite of `decode`."""
        if not self.log:
            return ((value - self.low) / (self.high - self.low),)
        return (math.log(value / self.low) / math.log(self.high / self.low),)

    def levels(self, count: int) -> list[Any]:
        """``count`` values in equal steps from end to end; the middle, where it is one."""
        return [self.decode(u) for u in (np.linspace(0, 1, count) if count > 1 else (0.5,))]

    def traced(self, value: Any) -> Any:
        """The number that a run gets for a value."""
        return float(value)


@dataclass(frozen=True)
class Integer:
    """A whole number from ``low`` to ``high``, both included, each as likely or, with ``log``, by its logarithm.

    A run gets it as a traced int32: it may enter the arithmetic, but not shape the program.

    Raises:
      ValueError: bounds that are not whole 32-bit numbers or not ascending, or ``log`` from a bound below 1.
    """

    low: int
    high: int
    log: bool = False

    def __post_init__(self) -> None:
        for name in ("low", "high"):
            value = getattr(self, name)
            if not hasattr(value, "__index__") or not -(2**31) <= operator.index(value) < 2**31:
                raise ValueError(f"{name}={value!r} of an Integer must be a whole number of 32 bits")
            object.__setattr__(self, name, operator.index(value))
        _check_bounds(self)

    @property
    def size(self) -> float:
        """How many values there are."""
        return self.high - self.low + 1

    def decode(self, u: float) -> int:
        """The value at ``u`` in [0, 1]; on a linear scale each has an equal share of it."""
        if self.log:
            low, high = math.log(self.low - 0.5), math.log(self.high + 0.5)
            value = round(math.exp(low + u * (high - low)))
        else:
            value = self.low + math.floor(u * self.size)
        return int(min(max(value, self.low), self.high))

    def encode(self, value: Any) -> tuple[float, ...]:
        """The middle of a value's share."""
        if not self.log:
            return ((value - self.low + 0.5) / self.size,)
        low, high = math.log(self.low - 0.5), math.log(self.high + 0.5)
        return ((math.log(value) - low) / (high - low),)

    def levels(self, count: int) -> list[Any]:
        """At most ``count`` values from end to end, each once."""
        steps = np.linspace(0, 1, count) if count > 1 else (0.5,)
        return sorted({self.decode(float(u)) for u in steps})

    def traced(self, value: Any) -> Any:
        """The number that a run gets for a value."""
        return int(value)


@dataclass(frozen=True)
class Choice:
    """One of some values, without an order.

    A run gets the value itself where all are numbers or booleans; of other values it gets the index, traced, as
    `jax.lax.switch` and `nnjax.activations.switch` take it.

    Raises:
      ValueError: no value, or one that is there twice.
    """

    values: tuple[Any, ...]

    def __init__(self, values: Sequence[Any]):
        values = tuple(plain(value) for value in values)
        if not values:
            raise ValueError("values of a Choice are empty; give at least one")
        if any(value in values[:place] for place, value in enumerate(values)):
            raise ValueError(f"values={list(values)} of a Choice name one twice")
        object.__setattr__(self, "values", values)

    @property
    def size(self) -> float:
        """How many values there are."""
        return len(self.values)

    def decode(self, u: float) -> Any:
        """The value at ``u`` in [0, 1]; each has an equal share of it."""
        return self.values[min(int(u * len(self.values)), len(self.values) - 1)]

    def encode(self, value: Any) -> tuple[float, ...]:
        """One-hot: any two values are as far apart."""
        at = self.values.index(plain(value))
        return tuple(float(place == at) for place in range(len(self.values)))

    def levels(self, count: int) -> list[Any]:
        """All values, whatever ``count``."""
        return list(self.values)

    def traced(self, value: Any) -> Any:
        """The number that a run gets for a value: itself, or its index where not all values are numbers."""
        if all(isinstance(each, bool) for each in self.values):
            return bool(value)
        if not all(isinstance(each, int | float) and not isinstance(each, bool) for each in self.values):
            return self.values.index(value)
        return float(value) if any(isinstance(each, float) for each in self.values) else int(value)


Dimension = Float | Integer | Choice
Space = Mapping[str, Dimension]
"""Hyper-parameters by name."""


def check(space: Space) -> None:
    """Refuse what no search can be made of.

    Raises:
      ValueError: an empty space, a name that is not an identifier or is ``seed``, or a dimension of another kind.
    """
    if not isinstance(space, Mapping) or not space:
        raise ValueError(f"space={space!r} must be a dict with at least one hyper-parameter, such as "
                         "{'rate': Float(1e-4, 1, log=True)}")  # fmt: skip
    for name, dimension in space.items():
        if not isinstance(name, str) or not name.isidentifier() or name == "seed":
            raise ValueError(
                f"space has the name {name!r}; a hyper-parameter's must be an identifier other than 'seed'"
            )
        if not isinstance(dimension, Dimension):
            raise ValueError(f"space[{name!r}]={dimension!r} must be a Float, an Integer or a Choice")


def size(space: Space) -> float:
    """How many points a space has."""
    return math.prod(dimension.size for dimension in space.values())


def decode(space: Space, u: Array) -> dict[str, Any]:
    """The hyper-parameters at ``u`` (dimensions,) in the unit cube."""
    return {name: dimension.decode(float(at)) for (name, dimension), at in zip(space.items(), u, strict=True)}


def encode(space: Space, hparams: Sequence[Mapping[str, Any]]) -> tuple[np.ndarray, np.ndarray]:
    """Hyper-parameters (n of them) as coordinates (n, columns), and the dimension that each column is of (columns,).

    Numbers have a column in [0, 1], on the scale that they are searched on; a choice has one for each of its values.
    """
    rows = [[dimension.encode(each[name]) for name, dimension in space.items()] for each in hparams]
    widths = [len(d.values) if isinstance(d, Choice) else 1 for d in space.values()]
    flat = np.array([[number for part in row for number in part] for row in rows])
    return flat.reshape(len(rows), sum(widths)), np.repeat(np.arange(len(widths)), widths)


def identity(space: Space, hparams: Mapping[str, Any]) -> tuple[Any, ...]:
    """The same for the same point, whatever the order of its names, and hashable, whatever the values of a choice."""
    return tuple(
        d.values.index(plain(hparams[name])) if isinstance(d, Choice) else plain(hparams[name])
        for name, d in space.items()
    )


def coordinates(space: Space, u: Array) -> np.ndarray:
    """`encode` of what lies at places u (n, dimensions) in the unit cube, (n, columns)."""
    columns = []
    for dimension, at in zip(space.values(), np.asarray(u, float).T, strict=True):
        if isinstance(dimension, Float):
            columns.append(at[:, None])
        else:  # what falls on one value lies where that does
            columns.append(np.array([dimension.encode(dimension.decode(place)) for place in at.tolist()]))
    return np.hstack(columns)


def units(space: Space, x: Array, groups: Array) -> np.ndarray:
    """Places in the unit cube, (n, dimensions), of what `encode` gave as x (n, columns) and ``groups``."""
    columns = []
    for number, dimension in enumerate(space.values()):
        own = np.asarray(x)[:, np.asarray(groups) == number]
        share = (own.argmax(axis=1) + 0.5) / own.shape[1]
        columns.append(share if isinstance(dimension, Choice) else own[:, 0])
    return np.stack(columns, axis=1)


def _check_bounds(dimension: Float | Integer) -> None:
    low, high, kind = dimension.low, dimension.high, type(dimension).__name__
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ValueError(f"low={low!r} of {'an Integer' if kind == 'Integer' else 'a Float'} must be below "
                         f"high={high!r}, both finite")  # fmt: skip
    if dimension.log and low <= 0:
        raise ValueError(f"low={low!r} must be positive where log is set")
