"""The latest states of a run in a folder, and the check that they are of the same run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from nnjax import results
from nnjax.train.run import State, Train
from nnjax.types import Key

__all__ = ["Checkpoints", "run_digest"]


def run_digest(train: Train, key: Key, hparams: Any, data: Mapping[str, tuple]) -> str:
    """Changes when anything does that a run's numbers depend on, but for the functions themselves."""
    sha = hashlib.sha256(f"{train.config} {sorted(train.metrics)} {jax.random.key_impl(key)}".encode())
    for path, leaf in jax.tree_util.tree_flatten_with_path((jax.random.key_data(key), hparams, data))[0]:
        array = np.ascontiguousarray(leaf)
        sha.update(f"{jax.tree_util.keystr(path)} {array.shape} {array.dtype}".encode() + array.tobytes())
    return sha.hexdigest()


class Checkpoints:
    """The latest states of a run in a folder, by orbax; without a folder, nothing."""

    def __init__(self, folder: str | Path | None, run: str):
        self._manager: Any = None
        if folder is not None:
            import orbax.checkpoint as ocp

            owner = Path(folder) / "run.json"
            if owner.exists() and json.loads(owner.read_text()) != {"run": run}:
                raise ValueError(
                    f"the checkpoints in {str(folder)!r} are of another run (its configuration, key, "
                    "hyper-parameters or data differ); choose another folder"
                )
            results.write_json(owner, {"run": run})
            options = ocp.CheckpointManagerOptions(max_to_keep=2, cleanup_tmp_directories=True)
            self._ocp = ocp
            self._manager = ocp.CheckpointManager(Path(folder).resolve(), options=options)

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, *_: Any) -> None:
        if self._manager is not None:
            self._manager.close()

    def restore(self, state: State) -> tuple[int, State]:
        """How far the latest state had come, and that state; 0 and ``state`` where there is none."""
        step = self._manager.latest_step() if self._manager is not None else None
        if step is None:
            return 0, state
        like, impl = _raw_key(state), str(jax.random.key_impl(state.key))
        raw = self._manager.restore(step, args=self._ocp.args.StandardRestore(jax.tree.leaves(like)))
        state = jax.tree.unflatten(jax.tree.structure(like), raw)
        return step, state._replace(key=jax.random.wrap_key_data(state.key, impl=impl))

    def save(self, done: int, state: State) -> None:
        """Keep a state that has come so far; returns when it is on the disk."""
        if self._manager is not None:
            leaves = jax.tree.leaves(_raw_key(state))
            self._manager.save(done, args=self._ocp.args.StandardSave(leaves))
            self._manager.wait_until_finished()  # the state's memory is donated to the next piece


def _raw_key(state: State) -> State:
    return state._replace(key=jax.random.key_data(state.key))
