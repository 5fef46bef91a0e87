"""Parameters by path: patterns that choose them, heads replaced, architectures compared."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from nnjax.models import linen
from nnjax.types import PyTree

Patterns = str | Sequence[str]
"""One pattern or several; see `nnjax.transfer`."""


def paths(params: PyTree) -> tuple[str, ...]:
    """The path of every leaf of nested dicts, "conv1/kernel", in the order of `jax.tree.leaves`."""
    return tuple(path_of(keys) for keys, _ in jax.tree_util.tree_flatten_with_path(params)[0])


def chosen(params: PyTree, patterns: Patterns, *, name: str = "patterns") -> PyTree:
    """Whether ``patterns`` choose it, for every leaf: a tree of bools like ``params``.

    Args:
      params: nested dicts.
      patterns: one or more, see the head of this module; none of them chooses nothing.
      name: of the argument, for the message.

    Raises:
      ValueError: a pattern that matches no path; the nearest path is suggested.
    """
    known = paths(params)
    for pattern in several(patterns):
        if not any(_matches(path, pattern.removeprefix("!")) for path in known):
            raise ValueError(f"{name}: {pattern!r} matches none of the {len(known)} parameters{near(pattern, known)}")
    return jax.tree_util.tree_map_with_path(lambda keys, _: takes(path_of(keys), patterns), params)


def replace_head(params: PyTree, head: PyTree, path: str) -> PyTree:
    """``params`` with the subtree at ``path`` ("logits", or "trunk/logits") replaced by ``head``; a new tree.

    Raises:
      ValueError: no such path.
    """
    first, _, rest = path.partition("/")
    if not isinstance(params, Mapping) or first not in params:
        there = (
            f"there is {', '.join(map(repr, params))}" if isinstance(params, Mapping) and params else "nothing there"
        )
        raise ValueError(f"path {path!r} leads to no layer of params: {there}")
    return {**params, first: replace_head(params[first], head, rest) if rest else head}


def check_architecture(model: nn.Module, params: PyTree, stats: PyTree, input_shape: Sequence[int]) -> None:
    """Refuse parameters and statistics that are not of ``model``, by abstract evaluation: nothing is computed.

    Args:
      model: the net they are to be used in.
      params, stats: of a checkpoint, such as `nnjax.train.load` gives.
      input_shape: of one example, without the batch axis.

    Raises:
      ValueError: a path that is missing, or too many, or a shape that differs; the first is named.
    """
    x = jax.ShapeDtypeStruct((1, *input_shape), jnp.float32)
    expected = jax.eval_shape(partial(linen.init, model), jax.random.key(0), x)
    check_alike(model, "parameter", by_path(params), by_path(expected[0]))
    check_alike(model, "statistic", by_path(stats), by_path(expected[1]))


def path_of(keys: Sequence[Any]) -> str:
    """The path, "conv1/kernel", of JAX's keys of a leaf."""
    return "/".join(str(getattr(key, "key", key)) for key in keys)


def several(patterns: Patterns) -> tuple[str, ...]:
    """Patterns as a tuple, one alone too."""
    return (patterns,) if isinstance(patterns, str) else tuple(patterns)


def _matches(path: str, pattern: str) -> bool:
    names = path.split("/")
    return any(fnmatch.fnmatchcase("/".join(names[: n + 1]), pattern) for n in range(len(names)))


def takes(path: str, patterns: Patterns) -> bool:
    """Whether patterns choose a path; the last that matches decides."""
    for pattern in reversed(several(patterns)):
        if _matches(path, pattern.removeprefix("!")):
            return not pattern.startswith("!")
    return False


def near(name: str, known: Any) -> str:
    """The end of a message about an unknown name: the nearest known one."""
    near = difflib.get_close_matches(name.removeprefix("!"), known, 1, cutoff=0.4)
    return f"; did you mean {near[0]!r}?" if near else f"; there is {next(iter(known), 'nothing')!r}, for example"


def by_path(tree: PyTree) -> dict[str, Any]:
    """The leaves of nested dicts by path."""
    return dict(zip(paths(tree), jax.tree.leaves(tree), strict=True))


def check_alike(model: nn.Module, kind: str, given: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """Refuse, with a ValueError, leaves by path that have not the paths and shapes of others."""
    name = type(model).__name__
    for path, leaf in expected.items():
        if path not in given:
            raise ValueError(f"these are not the {kind}s of this {name}: {path!r} is missing")
        if np.shape(given[path]) != leaf.shape:
            found = np.shape(given[path])
            raise ValueError(f"these are not the {kind}s of this {name}: {path!r} has shape {found}, not {leaf.shape}")
    for path in [path for path in given if path not in expected][:1]:
        raise ValueError(f"these are not the {kind}s of this {name}: it has no {path!r}")
