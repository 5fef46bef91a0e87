"""A study's engine: one pure function over a grid of its arguments, compiled as few programs, labelled results.

``run(key, hparams, data, **static) -> {name: array}`` is one lane. `sweep` takes the product of its axes and
sorts every axis into one of three kinds:

* *traced* (default): numbers that only enter the arithmetic. All lanes share a program; they are computed
  side by side (`jax.vmap`), one after another (`jax.lax.map`) and on all local devices (`jax.shard_map`).
* *static*: values that shape the program (a depth, a number of samples). One program a value.
* *padded*: a size that may share a program with larger ones. ``run`` gets the allocated size as a static
  keyword and the lane's own size in ``hparams``, and must give the same numbers for any allocation that is
  large enough (see `nnjax.models.padded_mlp`). Which sizes share a program is the ``strategy``.

Lanes are cut into `Chunk`s: independent, serialisable pieces of work that are stored as they finish, so that
a killed sweep resumes. The axis named ``seed`` alone selects a lane's key, ``fold_in(key, seed)``: lanes that
differ in other axes see the same random numbers (common random numbers), and adding values to an axis leaves
the other lanes' results as they were.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import itertools
import json
import math
import os
import sys
import time
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import threadpoolctl
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from nnjax import estimate
from nnjax.monitor import Monitor
from nnjax.types import Array, Key, PyTree

if TYPE_CHECKING:
    import xarray as xr

STRATEGIES = ("auto", "loop", "pad", "bucket")

Run = Callable[..., Mapping[str, Array]]


class Store(Protocol):
    """Where finished chunks are kept; `nnjax.results.Folder.store` makes one."""

    def load(self, identity: str) -> dict[str, np.ndarray] | None:
        """The arrays of a finished chunk, or None."""

    def save(self, identity: str, arrays: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
        """Keep the arrays of a finished chunk."""


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
        static = {name: _plain(item) for name, item in value["static"].items()}
        lanes = {name: tuple(item) for name, item in value["lanes"].items()}
        return cls(static, lanes, tuple(value["positions"]), value["identity"])


Executor = Callable[["Work", Sequence[Chunk]], Iterable[tuple[Chunk, dict[str, np.ndarray]]]]


def serial(work: Work, chunks: Sequence[Chunk]) -> Iterator[tuple[Chunk, dict[str, np.ndarray]]]:
    """The default executor: one chunk after the other in this process."""
    for chunk in chunks:
        yield chunk, work(chunk)


@dataclass(frozen=True)
class Program:
    """Lanes that share one compiled program.

    Attributes:
      static: keyword arguments of ``run``.
      lanes: values of the traced and padded axes, lane by lane.
      positions: the lanes' places in the flattened grid.
      lane_seconds: predicted seconds of one lane.
      lane_bytes: predicted working memory of one lane, bytes.
      result_bytes: size of one lane's results, bytes.
      shapes: shape of each of a lane's results.
    """

    static: dict[str, Any]
    lanes: dict[str, tuple]
    positions: tuple[int, ...]
    lane_seconds: float
    lane_bytes: int
    result_bytes: int
    shapes: dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Plan:
    """What a sweep will do: its programs and what they are predicted to cost; ``str(plan)`` is for people."""

    name: str
    sizes: dict[str, int]
    strategy: str
    programs: tuple[Program, ...]
    devices: int
    width: int
    compile_seconds: float
    run_seconds: float
    memory_bytes: int
    result_bytes: int

    def __str__(self) -> str:
        axes = " x ".join(f"{name} {size}" for name, size in self.sizes.items())
        lanes = sum(len(p.positions) for p in self.programs)
        return (
            f"{self.name}: {lanes} lanes ({axes}), {len(self.programs)} programs ({self.strategy}), "
            f"{self.width} side by side on {self.devices} devices; about {self.compile_seconds:.0f} s compiling, "
            f"{self.run_seconds:.0f} s running, {self.memory_bytes / 2**20:.0f} MiB of memory, "
            f"{self.result_bytes / 2**20:.2f} MiB of results"
        )


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


def _double() -> bool:
    """Whether double precision is on here."""
    return jnp.result_type(float) == jnp.float64


# Planning


def _check_axes(axes: Mapping[str, tuple], static: Sequence[str], padded: str | None, strategy: str) -> None:
    if strategy not in STRATEGIES:
        raise ValueError(f"strategy={strategy!r} must be one of {', '.join(STRATEGIES)}")
    if not axes:
        raise ValueError("axes is empty; give at least one, such as {'seed': range(5)}")
    for name in (*static, *([padded] if padded else [])):
        if name not in axes:
            raise ValueError(f"{name!r} is named static or padded but is not among the axes {sorted(axes)}")
    for name, values in axes.items():
        if len(values) == 0:
            raise ValueError(f"axis {name!r} has no values; give at least one")
        if len(set(values)) < len(values):
            raise ValueError(f"axis {name!r} names a value twice: {list(values)}")
        if name not in static and not all(isinstance(v, int | float | bool) for v in values):
            raise ValueError(f"axis {name!r} has values that are not numbers: {list(values)}; list it under static")
        if name not in static and any(isinstance(v, int) and not -(2**31) <= v < 2**31 for v in values):
            raise ValueError(f"axis {name!r} has integers beyond 32 bits: {list(values)}")
        if name == padded and not all(isinstance(v, int) and v > 0 for v in values):
            raise ValueError(f"padded axis {name!r} must hold positive integers, not {list(values)}")


def _values(values: Any, traced: bool) -> tuple:
    """An axis as a tuple of plain Python values; a traced axis with any float holds floats only."""
    plain = tuple(_plain(v) for v in (np.asarray(values).tolist() if hasattr(values, "dtype") else values))
    mixed = traced and any(isinstance(v, float) for v in plain) and all(isinstance(v, int | float) for v in plain)
    return tuple(float(v) for v in plain) if mixed else plain


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic) or (hasattr(value, "dtype") and getattr(value, "ndim", 1) == 0):
        return value.item()
    return tuple(_plain(v) for v in value) if isinstance(value, list | tuple) else value


def _column(values: Sequence) -> np.ndarray:
    """Lane values as an array of the dtype they are traced with."""
    array = np.asarray(values)
    if array.dtype.kind == "f":
        return array.astype(jnp.result_type(float))
    return array.astype(np.int32) if array.dtype.kind in "iu" else array


def _bind(run: Run, impl: str, seeded: bool, static: Mapping[str, Any]) -> Callable[..., dict[str, Array]]:
    def lane(hparams: dict[str, Array], key_data: Array, data: PyTree) -> dict[str, Array]:
        lane_key = jax.random.wrap_key_data(jnp.asarray(key_data), impl=impl)
        if seeded:
            lane_key = jax.random.fold_in(lane_key, hparams["seed"] if "seed" in hparams else static["seed"])
        hparams = {name: value for name, value in hparams.items() if name != _NO_AXIS}
        metrics = run(lane_key, hparams, data, **static)
        if not isinstance(metrics, Mapping) or not all(hasattr(v, "shape") for v in metrics.values()):
            raise ValueError(f"run must return a flat dict of arrays, not {jax.tree.structure(metrics)}")
        return dict(metrics)

    return lane


# A lane has a column even where every axis is static.
_NO_AXIS = "_lane"


class _Grid:
    """The product of the axes, split into the lanes of each program."""

    def __init__(self, axes: Mapping[str, Sequence], static: Sequence[str], padded: str | None):
        self.axes = {name: _values(values, name not in static) for name, values in axes.items()}
        self.static, self.padded = tuple(static), padded
        self.traced = [name for name in self.axes if name not in static and name != padded]
        self.shape = tuple(len(values) for values in self.axes.values())

    def combinations(self) -> Iterator[dict[str, Any]]:
        """Values of the static axes, product order."""
        for values in itertools.product(*[self.axes[name] for name in self.static]):
            yield dict(zip(self.static, values, strict=True))

    def lanes(self, fixed: Mapping[str, Any], sizes: Sequence[int]) -> tuple[dict[str, tuple], tuple[int, ...]]:
        """Lanes with these static values and padded sizes: coordinates by axis, and places in the grid."""
        names = [*([self.padded] if self.padded else []), *self.traced]
        choices = [sizes] if self.padded else []
        choices += [self.axes[name] for name in self.traced]
        rows = list(itertools.product(*choices))
        places = []
        for row in rows:
            point = {**fixed, **dict(zip(names, row, strict=True))}
            index = [self.axes[name].index(point[name]) for name in self.axes]
            places.append(int(np.ravel_multi_index(index, self.shape)))
        columns = {name: tuple(row[i] for row in rows) for i, name in enumerate(names)}
        return columns or {_NO_AXIS: (0,) * len(rows)}, tuple(places)


class _Cost(NamedTuple):
    """What one lane costs: work, working memory and result size in bytes; and its results' shapes."""

    work: estimate.Work
    memory: int
    results: int
    shapes: dict[str, tuple[int, ...]]


def _trace_cost(run: Run, key: Key, data: PyTree, grid: _Grid, static: Mapping[str, Any]) -> _Cost:
    """The cost of one lane, from a trace."""
    names = [*([grid.padded] if grid.padded else []), *grid.traced]
    hparams = {name: jax.ShapeDtypeStruct((), _column(grid.axes[name]).dtype) for name in names}
    key_data = jax.eval_shape(jax.random.key_data, key)
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(np.shape(leaf), jnp.result_type(leaf)), data)
    lane = _bind(run, str(jax.random.key_impl(key)), "seed" in grid.axes, static)
    trace, out = jax.make_jaxpr(lane, return_shape=True)(hparams, key_data, shapes)
    results = sum(math.prod(a.shape) * a.dtype.itemsize for a in trace.out_avals)
    named = {name: tuple(value.shape) for name, value in out.items()}
    return _Cost(estimate.work_of(trace), estimate.peak_bytes(trace), results, named)


def _size_costs(
    run: Run, key: Key, data: PyTree, grid: _Grid, static: Mapping[str, Any], sizes: Sequence[int]
) -> list[_Cost]:
    """Cost of a lane at each padded size: traced at three sizes, a parabola between (a layer's work is one)."""
    assert grid.padded is not None
    probes = sorted({sizes[0], sizes[len(sizes) // 2], sizes[-1]})
    traced = [_trace_cost(run, key, data, grid, {**static, grid.padded: size}) for size in probes]
    table = np.array([[c.work.operations, c.work.kernels, c.memory, c.results] for c in traced])
    fits = [np.polynomial.Polynomial.fit(probes, column, len(probes) - 1) for column in table.T]
    rows = np.array([[max(fit(size), 0.0) for fit in fits] for size in sizes])
    shapes = traced[-1].shapes
    return [_Cost(estimate.Work(r[0], r[1]), int(r[2]), int(r[3]), shapes) for r in rows]


def _groups(strategy: str, costs: Sequence[float], lanes: Sequence[int], compile_seconds: float) -> tuple[int, ...]:
    """Index of the last size of each program under a strategy."""
    m = len(costs)
    allowed = {"loop": [m], "pad": [1], "bucket": range(min(2, m), max(m, 3)), "auto": range(1, m + 1)}[strategy]
    options = [(n * compile_seconds + estimate.group(costs, lanes, n)[1], n) for n in allowed if n <= m]
    return estimate.group(costs, lanes, min(options)[1])[0]


def _default_width(devices: Sequence[Any]) -> int:
    # Measured: side by side buys 1.15x a lane on a CPU and stops at about 8; on a GPU it is everything.
    return 8 if devices[0].platform == "cpu" else 1024


def _default_budget(devices: Sequence[Any]) -> int:
    """Bytes that one chunk may use on one device: half of the machine's memory shared, or 80 % of a GPU's."""
    if devices[0].platform == "cpu":
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 2**33
        return total // 2 // len(devices)
    limit = (devices[0].memory_stats() or {}).get("bytes_limit", 2**33)
    return int(0.8 * limit)


def plan(
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
    **_: Any,
) -> Plan:
    """What `sweep` with the same arguments will do, with predicted time and memory; nothing is compiled.

    The strategy for the padded axis minimises ``programs * compile_seconds + sum of lane seconds / devices``
    with every lane computed at its program's largest size (constants: `nnjax.estimate.MACHINES`):
    ``loop`` is one program a size, ``pad`` one program in all, ``bucket`` the best number in between, ``auto`` the
    best of all. The choice depends on the arguments and the backend alone, never on a clock.

    Raises:
      ValueError: an empty axis, a value named twice, an unknown strategy, a name that is no axis.
    """
    grid = _Grid(axes, static, padded)
    _check_axes(grid.axes, static, padded, strategy)
    with jax.enable_x64(float64 or _double()):
        return _plan(run, grid, key, data, name, strategy, width, memory_budget)


def _plan(
    run: Run,
    grid: _Grid,
    key: Key,
    data: PyTree,
    name: str,
    strategy: str,
    width: int | None,
    memory_budget: int | None,
) -> Plan:
    padded = grid.padded
    devices = jax.local_devices()
    width = width or _default_width(devices)
    budget = memory_budget or _default_budget(devices)
    constants = estimate.machine(devices[0].platform)
    programs = []
    for fixed in grid.combinations():
        sizes = sorted(grid.axes[padded]) if padded else [0]
        costs = (
            _size_costs(run, key, data, grid, fixed, sizes) if padded else [_trace_cost(run, key, data, grid, fixed)]
        )
        per_size = len(grid.lanes(fixed, sizes[:1])[1])
        seconds = [cost.work.seconds(constants, width) for cost in costs]
        shared = [s / len(devices) for s in seconds]
        ends = _groups(strategy, shared, [per_size] * len(sizes), constants.compile_seconds)
        first = 0
        for last in ends:
            keywords = {**fixed, **({padded: sizes[last]} if padded else {})}
            lanes, places = grid.lanes(fixed, sizes[first : last + 1])
            cost = costs[last]
            programs.append(Program(keywords, lanes, places, seconds[last], cost.memory, cost.results, cost.shapes))
            first = last + 1
    most = max(p.lane_bytes for p in programs)
    width = max(1, min(width, budget // max(most, 1), max(len(p.positions) for p in programs)))
    return Plan(
        name=name,
        sizes={axis: len(values) for axis, values in grid.axes.items()},
        strategy=strategy if padded else "loop",
        programs=tuple(programs),
        devices=len(devices),
        width=width,
        compile_seconds=constants.compile_seconds * len(programs),
        run_seconds=sum(p.lane_seconds * len(p.positions) for p in programs) / len(devices),
        memory_bytes=width * len(devices) * most,
        result_bytes=sum(p.result_bytes * len(p.positions) for p in programs),
    )


# Cutting programs into chunks


def _layout(lanes: int, devices: int, width: int, lane_seconds: float, chunk_seconds: float) -> tuple[int, int]:
    """Lanes side by side and rounds a device of one chunk, so that a chunk is short and little is wasted."""
    a_device = math.ceil(lanes / devices)
    longest = max(1, min(a_device, max(width, int(chunk_seconds / max(lane_seconds, 1e-12)))))
    chunks = math.ceil(a_device / longest)
    a_chunk = math.ceil(a_device / chunks)
    rounds = math.ceil(a_chunk / width)
    return math.ceil(a_chunk / rounds), rounds


def _cut(program: Program, lanes_a_chunk: int, sweep_identity: str) -> list[Chunk]:
    chunks = []
    for start in range(0, len(program.positions), lanes_a_chunk):
        stop = min(start + lanes_a_chunk, len(program.positions))
        index = [*range(start, stop), *[stop - 1] * (lanes_a_chunk - (stop - start))]
        lanes = {name: tuple(values[i] for i in index) for name, values in program.lanes.items()}
        places = program.positions[start:stop]
        # Its content alone names a chunk: what is computed, not where it goes.
        text = json.dumps([sweep_identity, program.static, lanes, stop - start], sort_keys=True, default=str)
        identity = hashlib.sha256(text.encode()).hexdigest()[:24]
        chunks.append(Chunk(dict(program.static), lanes, places, identity))
    return chunks


def _content(value: Any, depth: int = 0) -> Any:
    """What a value consists of, as JSON: the same for equal content, whatever its address in memory.

    Functions count by their code, constants, defaults and what they close over; module-level names that they
    use do not (a study's folder guards those by the digest of the sources).
    """
    if depth > 12:
        return "..."
    inner = functools.partial(_content, depth=depth + 1)
    if value is None or isinstance(value, str | int | float | bool):
        return repr(value)
    if isinstance(value, Mapping):
        return {str(name): inner(item) for name, item in sorted(value.items(), key=lambda pair: str(pair[0]))}
    if isinstance(value, list | tuple | range):
        return [inner(item) for item in value]
    if isinstance(value, functools.partial):
        return [inner(value.func), inner(value.args), inner(value.keywords)]
    if isinstance(value, types.CodeType):
        return [value.co_code.hex(), inner(value.co_consts), list(value.co_names)]
    if isinstance(value, types.FunctionType):
        cells = [inner(cell.cell_contents) for cell in value.__closure__ or ()]
        return [
            value.__qualname__,
            inner(value.__code__),
            inner(value.__defaults__),
            inner(value.__kwdefaults__),
            cells,
        ]
    if isinstance(value, types.MethodType):
        return [inner(value.__func__), inner(value.__self__)]
    if isinstance(value, type | types.ModuleType | types.BuiltinFunctionType):
        return f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', value.__name__)}"
    if hasattr(value, "dtype") and hasattr(value, "shape"):
        if jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
            value = jax.random.key_data(value)
        array = np.ascontiguousarray(value)
        return [str(array.shape), str(array.dtype), hashlib.sha256(array.tobytes()).hexdigest()]
    if hasattr(value, "__wrapped__"):
        return inner(value.__wrapped__)
    fields = getattr(value, "__dataclass_fields__", None) or getattr(value, "__dict__", {})
    return [type(value).__qualname__, {name: inner(getattr(value, name, None)) for name in sorted(fields)}]


def _identity(name: str, run: Run, key: Key, data: PyTree, devices: Sequence[Any]) -> str:
    place = [devices[0].device_kind, len(devices), _double(), str(jax.random.key_impl(key))]
    leaves = {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_flatten_with_path(data)[0]}
    content = [name, _content(run), _content(jax.random.key_data(key)), _content(leaves), place]
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


# Running


class Work:
    """What an executor calls: ``work(chunk) -> {name: (lanes, ...)}``, for any chunk of one program.

    It can be pickled (where ``run`` and ``data`` can) and sent to another process, which compiles the program for
    its own devices at the first chunk. `sweep` makes it.
    """

    def __init__(self, run: Run, key: Key, data: PyTree, *, seeded: bool, side: int, float64: bool):
        self.run, self.seeded, self.side, self.float64 = run, seeded, side, float64
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
            try:
                with _one_blas_thread_a_device(place.mesh.size):
                    metrics = jax.device_get(program(self._columns(chunk, place), *self._placed(place)))
            except jax.errors.JaxRuntimeError as error:
                if "RESOURCE_EXHAUSTED" not in str(error):
                    raise
                raise MemoryError(
                    f"out of memory with {self.side} lanes side by side; pass width={max(1, self.side // 4)} to sweep"
                ) from error
        self.seconds = time.perf_counter() - start
        if self.monitor:
            self.monitor.spend("run", self.seconds)
        return {name: np.asarray(value)[: len(chunk.positions)] for name, value in metrics.items()}

    def compile(self, chunk: Chunk) -> int:
        """Compile for chunks like this one; returns the bytes that it will use on a device."""
        devices = jax.local_devices()
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
            return sys.maxsize
        if self.monitor:
            self.monitor.spend("compile", time.perf_counter() - start)
            self.monitor.count("programs")
        self._compiled = compiled, place
        memory = compiled.memory_analysis()
        return sum(getattr(memory, f"{kind}_size_in_bytes", 0) for kind in ("temp", "output"))

    def _program(self, chunk: Chunk, mesh: Mesh) -> Callable[..., dict[str, Array]]:
        lane = _bind(self.run, self.impl, self.seeded, chunk.static)
        side = None if self.side == 1 else self.side

        def lanes(columns: dict[str, Array], key_data: Array, data: PyTree) -> dict[str, Array]:
            return jax.lax.map(lambda hparams: lane(hparams, key_data, data), columns, batch_size=side)

        if mesh.size == 1:
            return lanes
        here, whole = PartitionSpec("lanes"), PartitionSpec()
        return jax.shard_map(lanes, mesh=mesh, in_specs=(here, whole, whole), out_specs=here, check_vma=False)

    def _columns(self, chunk: Chunk, place: NamedSharding) -> dict[str, Array]:
        return {name: jax.device_put(_column(values), place) for name, values in chunk.lanes.items()}

    def _placed(self, place: NamedSharding) -> tuple[Array, PyTree]:
        return jax.device_put((self.key_data, self.data), NamedSharding(place.mesh, PartitionSpec()))


def _one_blas_thread_a_device(devices: int) -> contextlib.AbstractContextManager:
    # LAPACK calls from several devices at once, each on all cores, wait for one another: measured, eigendecompositions
    # of 100 x 100 from two devices took 60 times as long on two cores.
    if devices == 1 or jax.default_backend() != "cpu":
        return contextlib.nullcontext()
    return threadpoolctl.threadpool_limits(1, user_api="blas")


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
      width: lanes side by side on one device; default 8 on CPU, up to 1024 on GPU and TPU.
      memory_budget: bytes that one chunk may use on one device; default half of the machine's memory over
        its devices, or 80 % of a GPU's. Wider programs are halved until they fit.
      float64: `jax.enable_x64` round this sweep alone: what has no dtype of its own is double. (Flax modules keep
        float32 parameters unless their ``param_dtype`` says otherwise.)
      chunk_seconds: predicted length of a chunk, s: what a kill can lose.
      dims: names of the run's own dimensions by result, e.g. ``{"error": ("step",)}``.
      coords: coordinates of those dimensions.
      store: keeps finished chunks; a chunk found there is not computed.
      monitor: told of progress and times.
      executor: ``(work, chunks) -> iterable of (chunk, arrays)``; default one after the other here.

    Returns:
      A Dataset with a dimension for each axis (then the run's own), and ``diverged``: True for lanes with a
      result that is not finite, unless ``run`` returns ``diverged`` itself. Such lanes are kept as they are and
      touch no other.

    Raises:
      ValueError: see `plan`; or ``run`` gives different shapes at different static values.
      MemoryError: one lane alone does not fit.
    """
    monitor = monitor or Monitor()
    with jax.enable_x64(float64 or _double()):
        blueprint = plan(
            run, axes, key=key, data=data, name=name, static=static, padded=padded, strategy=strategy, width=width,
            memory_budget=memory_budget,
        )  # fmt: skip
        grid = _Grid(axes, static, padded)
        devices = jax.local_devices()

        def make_work(side: int) -> Work:
            work = Work(run, key, data, seeded="seed" in grid.axes, side=side, float64=_double())
            work.monitor = monitor
            return work

        session = _Session(
            _identity(name, run, key, data, devices), make_work, len(devices),
            memory_budget or _default_budget(devices), chunk_seconds, store, monitor, executor,
        )  # fmt: skip
        _check_results(blueprint, dims or {}, coords or {}, tuple(grid.axes))
        monitor.begin(name, blueprint.run_seconds + blueprint.compile_seconds)
        collected: dict[str, np.ndarray] = {}
        for program in blueprint.programs:
            for chunk, arrays in _run_program(program, blueprint.width, session):
                _collect(collected, chunk, arrays, math.prod(grid.shape))
        monitor.end()
    if "diverged" not in collected:
        collected["diverged"] = _diverged(collected)
    monitor.count("diverged", int(collected["diverged"].sum()))
    return _label(collected, grid, blueprint, dims or {}, coords or {})


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
    grid: _Grid,
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


def _run_program(program: Program, width: int, session: _Session) -> Iterator[tuple[Chunk, dict[str, np.ndarray]]]:
    """Every chunk of one program: from the store, or computed and stored; narrower where memory is short."""
    store, monitor = session.store, session.monitor
    share = program.lane_seconds / session.devices
    while True:
        side, rounds = _layout(
            len(program.positions), session.devices, width, program.lane_seconds, session.chunk_seconds
        )
        chunks = _cut(program, side * rounds * session.devices, session.identity)
        stored = {c.identity: store.load(c.identity) if store else None for c in chunks}
        missing = [c for c in chunks if stored[c.identity] is None]
        if not missing:
            break
        work = session.make_work(side)
        needed = work.compile(missing[0])
        if needed <= session.budget:
            break
        if side == 1:
            raise MemoryError(
                f"one lane of {program.static or 'this sweep'} needs {needed / 2**20:.0f} MiB a device and the "
                f"budget is {session.budget / 2**20:.0f} MiB; raise memory_budget or make the run smaller"
            )
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
        if store:
            facts = {"lanes": len(chunk.positions), "static": chunk.static, "seconds": work.seconds}
            store.save(chunk.identity, arrays, facts)
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
