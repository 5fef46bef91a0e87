"""A trained model on disk: parameters, statistics and facts about it in one file, no pickle."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from nnjax import results
from nnjax.types import Array, PyTree


class Saved(NamedTuple):
    """A model read from disk: parameters and statistics as nested dicts of NumPy arrays, and facts about it."""

    params: PyTree
    stats: PyTree
    info: dict[str, Any]


def save(path: str | Path, params: PyTree, stats: PyTree | None = None, info: Mapping[str, Any] | None = None) -> None:
    """Write a trained model as one ``.npz`` (arrays and JSON, no pickle), atomically.

    Args:
      path: the file.
      params, stats: nested dicts of arrays, as Flax has them.
      info: facts that JSON can hold: the model's name and fields, class names, ...
    """
    arrays = {f"params/{name}": value for name, value in _flatten(params)}
    arrays |= {f"stats/{name}": value for name, value in _flatten(stats or {})}
    results.write_arrays(Path(path), {**arrays, "info": np.asarray(json.dumps(dict(info or {})))})


def load(path: str | Path) -> Saved:
    """Read what `save` wrote. Raises ResultsError (one sentence) where the file is missing, damaged or other."""
    arrays = results.read_arrays(Path(path))
    if "info" not in arrays:
        raise results.ResultsError(f"{str(path)!r} is not a model written by nnjax.train.save")
    try:
        info = json.loads(str(arrays.pop("info")))
        trees: dict[str, dict] = {"params": {}, "stats": {}}
        for name, value in arrays.items():
            *parents, leaf = name.split("/")
            node: dict = trees
            for parent in parents:
                node = node.setdefault(parent, {})
            node[leaf] = value
    except (ValueError, AttributeError, IndexError, TypeError, RecursionError):
        raise results.ResultsError(f"{str(path)!r} is damaged: its names or facts are no model's") from None
    return Saved(trees["params"], trees["stats"], info)


def _flatten(tree: PyTree, prefix: str = "") -> list[tuple[str, Array]]:
    if not isinstance(tree, Mapping):
        raise ValueError(f"a model is saved from nested dicts of arrays; found {type(tree).__name__} at {prefix!r}")
    found: list[tuple[str, Array]] = []
    for name, value in tree.items():
        if not isinstance(name, str) or "/" in name:
            raise ValueError(f"parameter name {name!r} must be a string without '/'")
        path = f"{prefix}{name}"
        found += _flatten(value, f"{path}/") if isinstance(value, Mapping) else [(path, value)]
    return found
