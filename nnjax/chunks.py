"""A unit of a sweep's work: some lanes of one program, and what computes them, here or in another process."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import re
import sys
import time
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import threadpoolctl
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from nnjax import hosts
from nnjax.monitor import Monitor
from nnjax.types import Array, Key, PyTree

Run = Callable[..., Mapping[str, Array]]
"""``(key, hparams, data, **static) -> {name: array}``, pure."""

# A lane has a column even where every axis is static.
NO_AXIS = "_lane"
# In place of a program's bytes, where it cannot even be compiled in the memory there is.
TOO_LARGE = sys.maxsize


class OutOfMemory(MemoryError):
    """Lanes of a sweep that do not fit into memory.

    Attributes:
      fact: what happened.
      advice: what to change in the call of `nnjax.sweep.sweep`; someone who did not write it needs other advice.
      sweep: name of the sweep, once it is known.
    """

    sweep = ""

    def __init__(self, fact: str, advice: str):
        super().__init__(fact, advice)
        self.fact, self.advice = fact, advice

    def __str__(self) -> str:
        return f"{self.fact}; {self.advice}"


@dataclass(frozen=True)
class Chunk:
    """A unit of work: some lanes of one program, complete in itself and serialisable as JSON.

    Attributes:
      static: keyword arguments of ``run``, the same for all lanes.
      lanes: values of the traced and padded axes, lane by lane; the last lane is repeated to fill the width.
      positions: the real lanes' places in the flattened grid.
      identity: names the chunk's content; equal content, equal name.
    """

    static: dict[str, Any]
    lanes: dict[str, tuple]
    positions: tuple[int, ...]
    identity: str

    def to_json(self) -> str:
        """The chunk as JSON text."""
        return json.dumps(self.__dict__)

    @classmethod
    def from_json(cls, text: str) -> Chunk:
        """Read what `to_json` wrote."""
        value = json.loads(text)
        static = {name: plain(item) for name, item in value["static"].items()}
        lanes = {name: tuple(item) for name, item in value["lanes"].items()}
        return cls(static, lanes, tuple(value["positions"]), value["identity"])


def double_precision() -> bool:
    """Whether double precision is on here."""
    return jnp.result_type(float) == jnp.float64


def plain(value: Any) -> Any:
    """A value without NumPy or JAX in it, lists as tuples."""
    if isinstance(value, np.generic) or (hasattr(value, "dtype") and getattr(value, "ndim", 1) == 0):
        return value.item()
    return tuple(plain(v) for v in value) if isinstance(value, list | tuple) else value


def column(values: Sequence) -> np.ndarray:
    """Lane values as an array of the dtype they are traced with."""
    array = np.asarray(values)
    if array.dtype.kind == "f":
        return array.astype(jnp.result_type(float))
    return array.astype(np.int32) if array.dtype.kind in "iu" else array


def bind(run: Run, impl: str, seeded: bool, static: Mapping[str, Any]) -> Callable[..., dict[str, Array]]:
    """A lane as ``(hparams, key_data, data) -> {name: array}``: its key made, its results checked."""

    def lane(hparams: dict[str, Array], key_data: Array, data: PyTree) -> dict[str, Array]:
        lane_key = jax.random.wrap_key_data(jnp.asarray(key_data), impl=impl)
        if seeded:
            lane_key = jax.random.fold_in(lane_key, hparams["seed"] if "seed" in hparams else static["seed"])
        hparams = {name: value for name, value in hparams.items() if name != NO_AXIS}
        metrics = run(lane_key, hparams, data, **static)
        if not isinstance(metrics, Mapping) or not all(hasattr(v, "shape") for v in metrics.values()):
            raise ValueError(f"run must return a flat dict of arrays, not {jax.tree.structure(metrics)}")
        return dict(metrics)

    return lane


class Work:
    """What an executor calls: ``work(chunk) -> {name: (lanes, ...)}``, for any chunk of one program.

    It can be pickled (where ``run`` and ``data`` can) and sent to another process, which compiles the program for
    its own devices (the first ``devices`` of them) at the first chunk. `sweep` makes it. Where several hosts are
    connected (`nnjax.hosts`), all call it with the same chunk, each computes its share, and all get the whole.
    """

    def __init__(self, run: Run, key: Key, data: PyTree, *, seeded: bool, side: int, devices: int, float64: bool):
        self.run, self.seeded, self.side, self.devices, self.float64 = run, seeded, side, devices, float64
        self.key_data, self.impl = np.asarray(jax.random.key_data(key)), str(jax.random.key_impl(key))
        self.data = jax.tree.map(np.asarray, data)
        self.monitor: Monitor | None = None
        self.seconds = 0.0  # of the last chunk
        self._compiled: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_compiled": None, "monitor": None}

    def __call__(self, chunk: Chunk) -> dict[str, np.ndarray]:
        """Results of the chunk's real lanes."""
        with jax.enable_x64(self.float64):
            if self._compiled is None:
                self.compile(chunk)
            start = time.perf_counter()
            program, place = self._compiled
            metrics = hosts.rows(lambda: self._share(program, chunk, place))
        self.seconds = time.perf_counter() - start
        if self.monitor:
            self.monitor.spend("run", self.seconds)
        return {name: value[: len(chunk.positions)] for name, value in metrics.items()}

    def _share(self, program: Any, chunk: Chunk, place: NamedSharding) -> dict[str, np.ndarray]:
        """Results of the lanes on this process's devices."""
        try:
            with _one_blas_thread_a_device(place.mesh.size):
                metrics = program(self._columns(chunk, place), *self._placed(place))
                return {name: hosts.own_rows(value) for name, value in metrics.items()}
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            if self.side == 1:
                raise OutOfMemory("out of memory with one lane at a time", "make the run smaller") from error
            raise OutOfMemory(
                f"out of memory with {self.side} lanes side by side", f"pass width={max(1, self.side // 4)} to sweep"
            ) from error

    def compile(self, chunk: Chunk) -> int:
        """Compile for chunks like this one; returns the bytes that it will use on a device, or `TOO_LARGE`."""
        devices = hosts.devices()[: self.devices]
        lanes = len(next(iter(chunk.lanes.values())))
        used = max(d for d in range(1, len(devices) + 1) if lanes % d == 0)
        mesh = Mesh(np.array(devices[:used]), ("lanes",))
        place = NamedSharding(mesh, PartitionSpec("lanes"))
        start = time.perf_counter()
        lowered = jax.jit(self._program(chunk, mesh)).lower(self._columns(chunk, place), *self._placed(place))
        try:
            compiled = lowered.compile()
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            return TOO_LARGE
        if self.monitor:
            self.monitor.spend("compile", time.perf_counter() - start)
            self.monitor.count("programs")
        self._compiled = compiled, place
        memory = compiled.memory_analysis()
        return sum(getattr(memory, f"{kind}_size_in_bytes", 0) for kind in ("temp", "output"))

    def _program(self, chunk: Chunk, mesh: Mesh) -> Callable[..., dict[str, Array]]:
        lane = bind(self.run, self.impl, self.seeded, chunk.static)
        side = None if self.side == 1 else self.side

        def lanes(columns: dict[str, Array], key_data: Array, data: PyTree) -> dict[str, Array]:
            return jax.lax.map(lambda hparams: lane(hparams, key_data, data), columns, batch_size=side)

        if mesh.size == 1:
            return lanes
        here, whole = PartitionSpec("lanes"), PartitionSpec()
        return jax.shard_map(lanes, mesh=mesh, in_specs=(here, whole, whole), out_specs=here, check_vma=False)

    def _columns(self, chunk: Chunk, place: NamedSharding) -> dict[str, Array]:
        return {name: hosts.put(column(values), place) for name, values in chunk.lanes.items()}

    def _placed(self, place: NamedSharding) -> tuple[Array, PyTree]:
        return hosts.put((self.key_data, self.data), NamedSharding(place.mesh, PartitionSpec()))


def _one_blas_thread_a_device(devices: int) -> contextlib.AbstractContextManager:
    # LAPACK calls from several devices at once, each on all cores, wait for one another: measured, eigendecompositions
    # of 100 x 100 from two devices took 60 times as long on two cores.
    if devices == 1 or jax.default_backend() != "cpu":
        return contextlib.nullcontext()
    return threadpoolctl.threadpool_limits(1, user_api="blas")


# Deeper than anything that is meant.
_DEEPEST = 100


def content(value: Any, within: tuple[Any, ...] = ()) -> Any:
    """What a value consists of, as JSON: the same for equal content, whatever its address in memory.

    Functions count by their code, constants, defaults and what they close over; module-level names that they
    use do not (a study's folder guards those by the digest of the sources). Classes and modules count by their names.

    Args:
      value: anything.
      within: the objects that hold it, the outermost first.

    Raises:
      ValueError: something in it shows no content, such as a lock or an open file, or is nested too deep.
    """
    if value is None or isinstance(value, str | int | float | bool):
        return repr(value)
    for levels, holder in enumerate(reversed(within)):
        if holder is value:  # a function that calls itself
            return {"levels up": levels}
    if len(within) > _DEEPEST:
        raise ValueError(
            f"a {type(within[0]).__name__} is nested deeper than {_DEEPEST} levels, too deep to tell it from another; "
            "give what a run uses as data or axes"
        )
    inner = functools.partial(content, within=(*within, value))
    for parts in (_content_of_data, _content_of_code):
        if (found := parts(value, inner)) is not None:
            return found
    return _content_of_object(value, inner)


def _content_of_data(value: Any, inner: Callable[[Any], Any]) -> Any:
    """Content of a collection, an array or another plain value; None for anything else."""
    if isinstance(value, Mapping):
        if all(isinstance(name, str) for name in value):
            return {name: inner(item) for name, item in sorted(value.items())}
        return {"pairs": sorted(([inner(name), inner(item)] for name, item in value.items()), key=json.dumps)}
    if isinstance(value, list | tuple | range):
        return [inner(item) for item in value]
    if isinstance(value, set | frozenset):
        return {"set": sorted((inner(item) for item in value), key=json.dumps)}
    if isinstance(value, bytes | bytearray):
        return {"bytes": bytes(value).hex()}
    if isinstance(value, os.PathLike):
        return {type(value).__name__: repr(os.fspath(value))}
    if isinstance(value, re.Pattern):
        return {"pattern": [repr(value.pattern), value.flags]}
    if isinstance(value, complex | types.EllipsisType | np.dtype | jax.Device | jax.tree_util.PyTreeDef):
        return {type(value).__name__: repr(value)}
    if hasattr(value, "dtype") and hasattr(value, "shape") and not isinstance(value, type):
        return _content_of_array(value, inner)
    return None


def _content_of_array(value: Any, inner: Callable[[Any], Any]) -> Any:
    if jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
        value = jax.random.key_data(value)
    array = np.ascontiguousarray(value)
    if not array.dtype.hasobject:
        return [str(array.shape), str(array.dtype), hashlib.sha256(array.tobytes()).hexdigest()]
    # Its bytes would be addresses. What is no array of NumPy's, as a sparse matrix, is an object with fields.
    return [str(array.shape), inner(array.ravel().tolist())] if isinstance(value, np.ndarray) else None


def _content_of_code(value: Any, inner: Callable[[Any], Any]) -> Any:
    """Content of a function, a class or a module; None for anything else."""
    if isinstance(value, functools.partial):
        return [inner(value.func), inner(value.args), inner(value.keywords)]
    if isinstance(value, types.CodeType):
        return [value.co_code.hex(), inner(value.co_consts), list(value.co_names)]
    if isinstance(value, types.FunctionType):
        return [
            value.__qualname__,
            inner(value.__code__),
            inner(value.__defaults__),
            inner(value.__kwdefaults__),
            [_content_of_cell(cell, inner) for cell in value.__closure__ or ()],
        ]
    if isinstance(value, types.MethodType):
        return [inner(value.__func__), inner(value.__self__)]
    if isinstance(value, type | types.ModuleType | types.BuiltinFunctionType | np.ufunc):
        name = f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', value.__name__)}"
        owner = None if isinstance(value, type) else getattr(value, "__self__", None)
        return name if owner is None or isinstance(owner, types.ModuleType) else [name, inner(owner)]
    if hasattr(value, "__wrapped__"):
        rules = [rule for name in ("jvp", "fwd", "bwd") if (rule := getattr(value, name, None)) is not None]
        return [inner(value.__wrapped__), inner(rules)] if rules else inner(value.__wrapped__)
    return None


def _content_of_cell(cell: types.CellType, inner: Callable[[Any], Any]) -> Any:
    try:
        held = cell.cell_contents
    except ValueError:  # not assigned yet
        return "empty"
    return inner(held)


def _content_of_object(value: Any, inner: Callable[[Any], Any]) -> Any:
    """Content of an object: its class by name, with its fields or, where it has none, what it would be pickled as."""
    fields = getattr(value, "__dataclass_fields__", None) or {
        *getattr(value, "__dict__", {}), *(name for kind in type(value).__mro__ for name in _slots(kind))
    }  # fmt: skip
    if fields:
        return [type(value).__qualname__, {name: inner(getattr(value, name, None)) for name in sorted(fields)}]
    try:
        maker, *parts = value.__reduce_ex__(4)
    except Exception:
        raise ValueError(
            f"a {type(value).__name__} shows no content, so it cannot be told from another; give what a run uses as "
            "data or axes, or make it inside the run"
        ) from None
    made_of = [list(part) if isinstance(part, Iterator) else part for part in parts if part is not None]
    return [type(value).__qualname__, getattr(maker, "__qualname__", ""), inner(made_of)]


def _slots(kind: type) -> tuple[str, ...]:
    names = kind.__dict__.get("__slots__", ())
    names = (names,) if isinstance(names, str) else tuple(names)
    return tuple(
        f"_{kind.__name__.lstrip('_')}{name}" if name.startswith("__") and not name.endswith("__") else name
        for name in names
        if name not in ("__dict__", "__weakref__")
    )
