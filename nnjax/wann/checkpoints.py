"""A search on disk: what there is after every block, so that a killed one goes on and ends with the same nets."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from nnjax import results
from nnjax.chunks import content
from nnjax.types import Key, PyTree


class Store(Protocol):
    """Where a search keeps what it has; `nnjax.results.Folder.store` makes one.

    A store of files may also have ``files(identity) -> list[Path]``, all that there are under a name, be they readable
    or not: then it is told when none of them is, and a search starts anew.
    """

    def load(self, identity: str) -> dict[str, np.ndarray] | None:
        """The arrays kept under this name, or None."""

    def save(self, identity: str, arrays: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
        """Keep arrays under this name, in place of what was there."""


class FolderStore:
    """A store that is a folder of files."""

    def __init__(self, folder: str | Path):
        self._folder = Path(folder)

    def load(self, identity: str) -> dict[str, np.ndarray] | None:
        """The arrays kept under this name, or None where there are none or they are damaged."""
        try:
            return results.read_arrays(self._path(identity))
        except results.ResultsError:
            return None

    def save(self, identity: str, arrays: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
        """Write the file, atomically."""
        del facts  # the arrays say it all
        self._folder.mkdir(parents=True, exist_ok=True)
        results.write_arrays(self._path(identity), arrays)

    def files(self, identity: str) -> list[Path]:
        """The file of this name, readable or not, where there is one."""
        return [path] if (path := self._path(identity)).exists() else []

    def _path(self, identity: str) -> Path:
        return self._folder / f"{identity}.npz"


def identity(task: Any, config: Any, keys: Key, params: PyTree) -> str:
    """A name for a search: what is searched for and how, but not for how long, so that a longer one goes on.

    A task counts by its class's name, its fields and its ``params``, not by its code. A field that names a file counts
    by what the file holds if its metadata have ``read``, a function that reads the file.
    """
    plan = dataclasses.replace(config, generations=1, block=1, layout=None)
    digest = hashlib.sha256()
    for leaf in map(np.asarray, jax.tree.leaves(params)):
        digest.update(f"{leaf.dtype}{leaf.shape}".encode() + leaf.tobytes())
    fields: Any = content(task)
    if dataclasses.is_dataclass(task):  # arrays among its fields are in params, functions count by their code
        fields = {field.name: content(_value(task, field)) for field in dataclasses.fields(task)}
    whole = [type(task).__qualname__, fields, content(plan), content(jax.random.key_data(keys)), digest.hexdigest()]
    numbers = [str(jax.random.key_impl(keys)), str(jnp.result_type(float))]
    whole += [numbers] if numbers != ["threefry2x32", "float32"] else []  # the usual ones go without saying
    return hashlib.sha256(json.dumps(whole, sort_keys=True, default=str).encode()).hexdigest()[:24]


def _value(task: Any, field: dataclasses.Field) -> Any:
    value, read = getattr(task, field.name), field.metadata.get("read")
    return read(value) if read and value else value


class Checkpoints:
    """The last two states of a search. They take turns, so that one is whole whatever happens to the other."""

    def __init__(self, store: Store | str | Path | None, name: str):
        self._store = FolderStore(store) if isinstance(store, str | Path) else store
        self._name = name
        self._turn = 0

    def restore(self, like: PyTree) -> PyTree | None:
        """The later of the two, with the structure of ``like`` and its kinds of random keys.

        None where there is none, or none with as many arrays. A warning tells of files that are of no use.
        """
        if self._store is None:
            return None
        leaves, structure = jax.tree.flatten(like)
        names = [f"leaf{i}" for i in range(len(leaves))]
        found = {}
        for turn in (0, 1):
            arrays = self._store.load(f"{self._name}-{turn}")
            if arrays is not None and {*arrays} == {*names, "progress"}:
                found[turn] = arrays
        if not found:
            self._warn_of_useless_files()
            return None
        last = max(found, key=lambda turn: int(found[turn]["progress"]))
        self._turn = 1 - last
        kept = [_like(found[last][name], leaf) for name, leaf in zip(names, leaves, strict=True)]
        return jax.tree.unflatten(structure, kept)

    def _warn_of_useless_files(self) -> None:
        files_of = getattr(self._store, "files", None)
        files = [file for turn in (0, 1) for file in files_of(f"{self._name}-{turn}")] if files_of else []
        if files:
            names = ", ".join(file.name for file in files)
            warnings.warn(
                f"no state of this search can be read in {str(files[0].parent)!r} ({names}: damaged, or with other "
                "arrays than expected), so it starts anew",
                stacklevel=5,  # where `nnjax.wann.search` was called, or on the host where it went on
            )

    def keep(self, state: PyTree, progress: int) -> None:
        """Save a state; the one with the highest ``progress`` is restored."""
        if self._store is None:
            return
        arrays = {f"leaf{i}": _plain(leaf) for i, leaf in enumerate(jax.tree.leaves(state))}
        self._store.save(f"{self._name}-{self._turn}", {**arrays, "progress": np.asarray(progress)},
                         {"generation": progress})  # fmt: skip
        self._turn = 1 - self._turn


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _plain(leaf: Any) -> np.ndarray:
    return np.asarray(jax.random.key_data(leaf) if _is_key(leaf) else leaf)


def _like(array: np.ndarray, leaf: Any) -> Any:
    if _is_key(leaf):
        return jax.random.wrap_key_data(jnp.asarray(array), impl=jax.random.key_impl(leaf))
    return jnp.asarray(array) if isinstance(leaf, jax.Array | jax.ShapeDtypeStruct) else array
