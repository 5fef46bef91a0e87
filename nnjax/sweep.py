"""A study's engine: one pure function over a grid of its arguments, compiled as few programs, labelled results.

``run(key, hparams, data, **static) -> {name: array}`` is one lane. `sweep` takes the product of its axes and
sorts every axis into one of three kinds:

* *traced* (default): numbers that only enter the arithmetic. All lanes share a program; they are computed
  side by side (`jax.vmap`), one after another (`jax.lax.map`) and on all devices (`jax.shard_map`).
* *static*: values that shape the program (a depth, a number of samples). One program a value.
* *padded*: a size that may share a program with larger ones. ``run`` gets the allocated size as a static
  keyword and the lane's own size in ``hparams``, and must give the same numbers for any allocation that is
  large enough (see `nnjax.models.padded_mlp`). Which sizes share a program is the ``strategy``.

Lanes are cut into `Chunk`s: independent, serialisable pieces of work that are stored as they finish, so that
a killed sweep resumes. The axis named ``seed`` alone selects a lane's key, ``fold_in(key, seed)``: lanes that
differ in other axes see the same random numbers (common random numbers), and adding values to an axis leaves
the other lanes' results as they were.

The devices are all of this process's or, where several hosts are connected (`nnjax.hosts`), all of theirs. Chunks can
also be sent to other machines by an ``executor`` (`nnjax.cluster`).
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from nnjax import estimate, hosts
from nnjax.chunks import TOO_LARGE, Chunk, OutOfMemory, Run, Work, content, double_precision
from nnjax.monitor import Monitor
from nnjax.plans import STRATEGIES, Grid, Plan, Program, default_budget, plan
from nnjax.types import Key, PyTree

if TYPE_CHECKING:
    import xarray as xr

__all__ = [
    "STRATEGIES",
    "Chunk",
    "OutOfMemory",
    "Plan",
    "Program",
    "Store",
    "Work",
    "cores",
    "not_finite",
    "plan",
    "serial",
    "sweep",
    "use_all_cores",
]


class Store(Protocol):
    """Where finished chunks are kept; `nnjax.results.Folder.store` makes one."""

    def load(self, identity: str) -> dict[str, np.ndarray] | None:
        """The arrays of a finished chunk, or None."""

    def save(self, identity: str, arrays: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
        """Keep the arrays of a finished chunk."""


Executor = Callable[[Work, Sequence[Chunk]], Iterable[tuple[Chunk, dict[str, np.ndarray]]]]


def serial(work: Work, chunks: Sequence[Chunk]) -> Iterator[tuple[Chunk, dict[str, np.ndarray]]]:
    """The default executor: one chunk after the other in this process."""
    for chunk in chunks:
        yield chunk, work(chunk)


def cores() -> int:
    """CPU cores that this process may use: its affinity where the system has one, else all."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def use_all_cores() -> int:
    """Make every CPU core that this process may use a JAX device; call it before anything is computed.

    Returns the number of cores. Raises ValueError where JAX has already started with another number.
    """
    try:
        jax.config.update("jax_num_cpu_devices", cores())
    except RuntimeError:
        if jax.local_device_count("cpu") != cores():
            raise ValueError(
                "use_all_cores() must be called before anything is computed; restart and call it first"
            ) from None
    return cores()


def _layout(lanes: int, devices: int, width: int, lane_seconds: float, chunk_seconds: float) -> tuple[int, int]:
    """Lanes side by side and rounds a device of one chunk, so that a chunk is short and little is wasted."""
    a_device = math.ceil(lanes / devices)
    longest = max(1, min(a_device, max(width, int(chunk_seconds / max(lane_seconds, 1e-12)))))
    chunks = math.ceil(a_device / longest)
    a_chunk = math.ceil(a_device / chunks)
    rounds = math.ceil(a_chunk / width)
    return math.ceil(a_chunk / rounds), rounds


def _cut(program: Program, side: int, rounds: int, devices: int, sweep_identity: str) -> list[Chunk]:
    chunks, lanes_a_chunk = [], side * rounds * devices
    for start in range(0, len(program.positions), lanes_a_chunk):
        stop = min(start + lanes_a_chunk, len(program.positions))
        index = [*range(start, stop), *[stop - 1] * (lanes_a_chunk - (stop - start))]
        lanes = {name: tuple(values[i] for i in index) for name, values in program.lanes.items()}
        places = program.positions[start:stop]
        # Its content alone names a chunk: what is computed, not where it goes. So many lanes side by side are part of
        # it, for programs of other widths differ in the last bits.
        whole = [sweep_identity, program.static, lanes, stop - start, side]
        text = json.dumps(whole, sort_keys=True, default=str)
        identity = hashlib.sha256(text.encode()).hexdigest()[:24]
        chunks.append(Chunk(dict(program.static), lanes, places, identity))
    return chunks


def _identity(name: str, run: Run, key: Key, data: PyTree, devices: Sequence[Any]) -> str:
    place = [devices[0].device_kind, len(devices), double_precision(), str(jax.random.key_impl(key))]
    leaves = {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_flatten_with_path(data)[0]}
    whole = [name, content(run), content(jax.random.key_data(key)), content(leaves), place]
    return hashlib.sha256(json.dumps(whole, sort_keys=True, default=str).encode()).hexdigest()


def sweep(
    run: Run,
    axes: Mapping[str, Sequence],
    *,
    key: Key,
    data: PyTree = None,
    name: str = "sweep",
    static: Sequence[str] = (),
    padded: str | None = None,
    strategy: str = "auto",
    width: int | None = None,
    memory_budget: int | None = None,
    float64: bool = False,
    chunk_seconds: float = 15.0,
    dims: Mapping[str, Sequence[str]] | None = None,
    coords: Mapping[str, Any] | None = None,
    store: Store | None = None,
    monitor: Monitor | None = None,
    executor: Executor = serial,
) -> xr.Dataset:
    """Compute ``run`` at every point of the product of ``axes``.

    Args:
      run: ``(key, hparams, data, **static) -> {name: array}``, pure; ``hparams`` holds the traced and padded
        axes' values as scalars.
      axes: values by name, in the order of the result's dimensions.
      key: base key; a lane's key is ``fold_in(key, seed)`` where ``seed`` is an axis, else ``key`` itself.
      data: arrays for ``run``, the same for all lanes (arguments of the program, never constants in it).
      name: for progress, and part of the stored chunks' names.
      static: axes whose values are passed as keyword arguments, one program each.
      padded: an axis of sizes that may share a program (see the module's text).
      strategy: ``auto``, ``loop``, ``pad`` or ``bucket`` for the padded axis; see `plan`.
      width: lanes side by side on one device; default 8 on CPU, up to 1024 on GPU and TPU. Always 1 for runs that
        decompose matrices on several CPU devices, which would wait for each other for ever side by side. Other widths
        give other last bits, so that chunks stored with one are not taken with another.
      memory_budget: bytes that one chunk may use on one device; default half of the machine's memory over
        its devices, or 80 % of a GPU's (the least of all hosts). Wider programs are halved until they fit.
      float64: `jax.enable_x64` round this sweep alone: what has no dtype of its own is double. (Flax modules keep
        float32 parameters unless their ``param_dtype`` says otherwise.)
      chunk_seconds: predicted length of a chunk, s: what a kill can lose.
      dims: names of the run's own dimensions by result, e.g. ``{"error": ("step",)}``.
      coords: coordinates of those dimensions.
      store: keeps finished chunks; a chunk found there is not computed. Of several hosts the first one's alone counts.
      monitor: told of progress and times.
      executor: ``(work, chunks) -> iterable of (chunk, arrays)``; default one after the other here.

    Returns:
      A Dataset with a dimension for each axis (then the run's own), and ``diverged``: True for lanes with a
      result that is not finite, unless ``run`` returns ``diverged`` itself. Such lanes are kept as they are and
      touch no other.

    Raises:
      ValueError: see `plan`; or ``run`` gives different shapes at different static values; or holds something whose
        content cannot be seen, such as a lock; or several hosts are given an executor.
      OutOfMemory: a MemoryError; one lane alone does not fit, or several did not fit side by side as they were to.
      nnjax.hosts.HostError: another host failed, is gone, or calls another sweep.
    """
    monitor = monitor or Monitor()
    if hosts.count() > 1 and executor is not serial:
        raise ValueError("executor must be left out where several hosts are connected: they share every chunk already")
    with jax.enable_x64(float64 or double_precision()):
        devices = hosts.devices()
        identity = _identity(name, run, key, data, devices)
        asked = [identity, content(axes), static, padded, strategy, width, memory_budget, chunk_seconds]
        hosts.same(json.dumps(asked, default=str), f"sweep {name!r}")
        budget = memory_budget or _budget()
        blueprint = plan(
            run, axes, key=key, data=data, name=name, static=static, padded=padded, strategy=strategy, width=width,
            memory_budget=budget,
        )  # fmt: skip
        grid = Grid(axes, static, padded)

        def make_work(side: int) -> Work:
            seeded, double = "seed" in grid.axes, double_precision()
            work = Work(run, key, data, seeded=seeded, side=side, devices=len(devices), float64=double)
            work.monitor = monitor
            return work

        session = _Session(identity, make_work, len(devices), budget, chunk_seconds, store, monitor, executor)
        _check_results(blueprint, dims or {}, coords or {}, tuple(grid.axes))
        monitor.begin(name, blueprint.run_seconds + blueprint.compile_seconds)
        collected: dict[str, np.ndarray] = {}
        try:
            for program in blueprint.programs:
                for chunk, arrays in _run_program(program, blueprint.width, session):
                    _collect(collected, chunk, arrays, math.prod(grid.shape))
        except OutOfMemory as error:
            error.sweep = name
            raise
        monitor.end()
    if "diverged" not in collected:
        collected["diverged"] = _diverged(collected)
    monitor.count("diverged", int(collected["diverged"].sum()))
    return _label(collected, grid, blueprint, dims or {}, coords or {})


def _budget() -> int:
    """Bytes that one chunk may use on one device: what suits the least of all hosts."""
    here = default_budget(jax.local_devices())
    if jax.default_backend() == "cpu":  # one memory for all processes of a machine
        here //= hosts.sharing()
    return hosts.least(lambda: here)


def _check_results(
    blueprint: Plan, dims: Mapping[str, Sequence[str]], coords: Mapping[str, Any], axes: tuple[str, ...]
) -> None:
    """What could only fail after hours of computing fails before."""
    first = blueprint.programs[0]
    for program in blueprint.programs:
        if program.shapes != first.shapes:
            raise ValueError(
                f"results have shapes {program.shapes} with {program.static} and {first.shapes} with {first.static}; "
                "a run must give one shape for all values"
            )
    for name, shape in first.shapes.items():
        if name in axes:
            raise ValueError(f"result {name!r} has the name of an axis")
        own = tuple(dims.get(name, shape))
        if len(own) != len(shape):
            raise ValueError(f"dims names {own} for {name!r}, whose own shape is {shape}")
        for dim, size in zip(dims.get(name, [""] * len(shape)), shape, strict=True):
            if dim in coords and len(coords[dim]) != size:
                raise ValueError(f"coords has {len(coords[dim])} values for {dim!r}, along which {name!r} has {size}")


def _label(
    collected: Mapping[str, np.ndarray],
    grid: Grid,
    blueprint: Plan,
    dims: Mapping[str, Sequence[str]],
    coords: Mapping[str, Any],
) -> xr.Dataset:
    """Flat results as a Dataset over the grid."""
    import xarray as xr

    variables = {}
    for variable, flat in collected.items():
        own = tuple(dims.get(variable, [f"{variable}_{i}" for i in range(flat.ndim - 1)]))
        variables[variable] = ((*grid.axes, *own), flat.reshape(grid.shape + flat.shape[1:]))
    labels = {axis: _labels(values) for axis, values in grid.axes.items()}
    used = {d for names, _ in variables.values() for d in names}
    labels |= {dim: value for dim, value in coords.items() if dim in used}
    groups = [dict(p.static) for p in blueprint.programs]
    attributes = {"strategy": blueprint.strategy, "programs": json.dumps(groups, default=str)}
    return xr.Dataset(variables, labels, attributes)


@dataclass(frozen=True)
class _Session:
    """What the programs of one sweep have in common."""

    identity: str
    make_work: Callable[[int], Work]
    devices: int
    budget: int
    chunk_seconds: float
    store: Store | None
    monitor: Monitor
    executor: Executor

    def load(self, chunk: Chunk) -> dict[str, np.ndarray] | None:
        """A finished chunk's arrays, the same on all hosts, or None."""
        return hosts.first(lambda: self.store.load(chunk.identity) if self.store else None)

    def save(self, chunk: Chunk, arrays: Mapping[str, Any], seconds: float) -> None:
        """Keep a finished chunk; the first host does."""

        def save() -> None:
            if self.store:
                facts = {"lanes": len(chunk.positions), "static": chunk.static, "seconds": seconds}
                self.store.save(chunk.identity, arrays, facts)

        hosts.first(save)


def _run_program(program: Program, width: int, session: _Session) -> Iterator[tuple[Chunk, dict[str, np.ndarray]]]:
    """Every chunk of one program: from the store, or computed and stored; narrower where memory is short."""
    monitor = session.monitor
    share = program.lane_seconds / session.devices
    while True:
        side, rounds = _layout(
            len(program.positions), session.devices, width, program.lane_seconds, session.chunk_seconds
        )
        chunks = _cut(program, side, rounds, session.devices, session.identity)
        stored = {c.identity: session.load(c) for c in chunks}
        missing = [c for c in chunks if stored[c.identity] is None]
        if not missing:
            break
        work = session.make_work(side)
        needed = hosts.most(functools.partial(work.compile, missing[0]))
        if needed <= session.budget:
            break
        if side == 1:
            lane = f"one lane of {program.static or 'this sweep'}"
            if needed == TOO_LARGE:
                raise OutOfMemory(f"memory ran out when {lane} alone was compiled", "make the run smaller")
            raise OutOfMemory(
                f"{lane} needs {needed / 2**20:.0f} MiB a device and the budget of memory is "
                f"{session.budget / 2**20:.0f} MiB", "raise memory_budget or make the run smaller",
            )  # fmt: skip
        width = max(1, side // 2)
    monitor.advance(estimate.machine().compile_seconds)
    for chunk in chunks:
        found = stored[chunk.identity]
        if found is not None:
            monitor.count("resumed")
            monitor.advance(share * len(chunk.positions))
            yield chunk, found
    if not missing:
        return
    for chunk, arrays in session.executor(work, missing):
        session.save(chunk, arrays, work.seconds)
        monitor.count("chunks")
        monitor.advance(share * len(chunk.positions))
        yield chunk, arrays


def _collect(collected: dict[str, np.ndarray], chunk: Chunk, arrays: dict[str, np.ndarray], lanes: int) -> None:
    for name, value in arrays.items():
        if name not in collected:
            collected[name] = np.zeros((lanes, *value.shape[1:]), value.dtype)
        wide = np.result_type(collected[name], value)
        collected[name] = collected[name].astype(wide, copy=False)
        collected[name][list(chunk.positions)] = value


def not_finite(tree: PyTree) -> jax.Array:
    """Whether any number in a tree of arrays is not finite, (). Keys count as finite.

    A lane whose results are whole numbers, such as updates until a problem is solved, returns this of its parameters as
    ``diverged``: nothing else would say that it is lost.
    """
    floats = [leaf for leaf in map(jnp.asarray, jax.tree.leaves(tree)) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    return ~jnp.all(jnp.stack([jnp.ones((), bool), *(jnp.all(jnp.isfinite(leaf)) for leaf in floats)]))


def _diverged(collected: Mapping[str, np.ndarray]) -> np.ndarray:
    """Lanes with any result that is not finite, (lanes,); a run that knows better returns ``diverged`` itself."""
    lanes = len(next(iter(collected.values())))
    bad = np.zeros(lanes, bool)
    for value in collected.values():
        if value.dtype.kind in "fc":
            bad |= ~np.isfinite(value.reshape(lanes, -1)).all(axis=1)
    return bad


def _labels(values: Sequence) -> Any:
    plain = all(isinstance(v, int | float | bool | str) for v in values)
    return np.asarray(values) if plain else np.asarray([str(v) for v in values])
