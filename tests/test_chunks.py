"""What a value consists of: different values differ, equal ones agree, and what cannot be told apart is refused."""

import datetime
import fractions
import functools
import json
import operator
import re
import threading
import types
from pathlib import Path

import flax.linen as nn
import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nnjax.chunks import content


class Slotted:
    __slots__ = ("__hidden", "number")

    def __init__(self, number, hidden=0):
        self.number, self.__hidden = number, hidden


class Fieldless:
    pass


def _in_one_of(constants):
    """A function whose only peculiarity is a frozenset among its constants."""
    spelled = ", ".join(map(repr, constants))
    made: dict = {}
    exec(f"def run(x):\n    return x in {{{spelled}}}", made)
    return made["run"]


def _with_rule(factor):
    def double(x):
        return 2 * x

    double = jax.custom_jvp(double)
    double.defjvp(lambda primals, tangents: (double(*primals), factor * tangents[0]))
    return double


def _nested(depth, core):
    for _ in range(depth):
        core = [core]
    return core


DIFFERENT = {
    "frozensets": (frozenset({1, 2}), frozenset({1, 3})),
    "sets": ({1, 2}, {1, 2, 3}),
    "sets of sets": ({frozenset({1})}, {frozenset({2})}),
    "bytes": (b"ab", b"ac"),
    "bytes and text": (b"ab", "ab"),
    "complex": (1 + 2j, 1 + 3j),
    "the ellipsis": (..., None),
    "functions with sets": (_in_one_of(["a", "b"]), _in_one_of(["a", "c"])),
    "functions with slices": (lambda x: x[..., 0], lambda x: x[None, 0]),
    "keys": ({1: 0}, {"1": 0}),
    "slots": (Slotted(1), Slotted(2)),
    "hidden slots": (Slotted(1, 2), Slotted(1, 3)),
    "paths": (Path("a"), Path("b")),
    "patterns": (re.compile("a"), re.compile("a", re.IGNORECASE)),
    "getters": (operator.itemgetter(1), operator.itemgetter(2)),
    "dates": (datetime.date(2000, 1, 1), datetime.date(2000, 1, 2)),
    "fractions": (fractions.Fraction(1, 2), fractions.Fraction(1, 3)),
    "generators": (np.random.default_rng(1), np.random.default_rng(2)),
    "types of numbers": (np.dtype("float32"), np.dtype("float64")),
    "arrays of objects": (np.array([{1}, None]), np.array([{2}, None])),
    "methods of values": ("ab".join, "ac".join),
    "structures": (jax.tree.structure([1, 2]), jax.tree.structure((1, 2))),
    "rules of derivatives": (_with_rule(2.0), _with_rule(3.0)),
    "layers": (nn.Dense(3), nn.Dense(4)),
    "activations": (nn.relu, nn.gelu),
    "optimizers": (optax.adam(0.1), optax.adam(0.2)),
    "chains": (optax.chain(optax.clip(1.0), optax.sgd(0.1)), optax.chain(optax.clip(2.0), optax.sgd(0.1))),
    "depths": (_nested(40, 1), _nested(40, 2)),
}


@pytest.mark.parametrize("kind", DIFFERENT)
def test_different_values_have_different_content(kind):
    one, other = (json.dumps(content(value)) for value in DIFFERENT[kind])
    assert one != other
    assert " at 0x" not in one, "an address is no content"


@pytest.mark.parametrize(
    "make",
    [
        lambda: {"b", "a", "c", 1, 2.5, None},
        lambda: bytearray(b"ab"),
        lambda: np.random.default_rng(3),
        lambda: Slotted(3, {4}),
        lambda: Fieldless(),
        lambda: _in_one_of(["x", "y", "z"]),
        lambda: _with_rule(2.0),
        lambda: np.array([{1}, "a"]),
        lambda: optax.chain(optax.clip(1.0), optax.adamw(optax.cosine_decay_schedule(0.1, 10))),
        lambda: nn.Sequential([nn.Dense(3), nn.relu, nn.BatchNorm(use_running_average=True)]),
        lambda: jax.jit(functools.partial(jnp.sum, axis=0)),
        lambda: jax.flatten_util.ravel_pytree({"a": jnp.ones(2)})[1],
    ],
    ids=["set", "bytes", "generator", "slots", "no fields", "function", "rule", "objects", "optimizer", "layers", "jit",
         "ravel"],
)  # fmt: skip
def test_equal_values_at_other_addresses_have_equal_content(make):
    one, other = make(), make()
    assert json.dumps(content(one)) == json.dumps(content(other))


def test_sets_have_no_order():
    assert content({"a", "b", "c"}) == content(frozenset(["c", "b", "a"]))


def test_what_holds_itself_ends():
    def made(factor):
        def count(n):
            return factor if n == 0 else count(n - 1)

        return count

    assert content(made(1)) == content(made(1)) != content(made(2))
    knot: list = [1]
    knot.append(knot)
    json.dumps(content(knot))

    def later():
        return unassigned

    assert "empty" in content(later)[-1]
    if later is None:
        unassigned = 0


@pytest.mark.parametrize(
    "value",
    [threading.Lock(), (n for n in ()), types.MappingProxyType({}).keys(), memoryview(b"ab")],
    ids=lambda value: type(value).__name__,
)
def test_what_shows_no_content_is_refused(value):
    with pytest.raises(ValueError, match=f"^a {type(value).__name__} shows no content, so it cannot be told from an"):
        content({"held": [value]})


def test_what_is_nested_too_deep_is_refused():
    with pytest.raises(ValueError, match=r"^a list is nested deeper than 100 levels, too deep to tell it from another"):
        content(_nested(200, 1))
