"""What a sweep will do before it does it: the grid of its axes, the programs, and what they will cost."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nnjax import estimate, hosts
from nnjax.chunks import NO_AXIS, Run, bind, column, double_precision, plain
from nnjax.types import Key, PyTree

STRATEGIES = ("auto", "loop", "pad", "bucket")


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


def check_axes(axes: Mapping[str, tuple], static: Sequence[str], padded: str | None, strategy: str) -> None:
    """Refuse axes that no sweep can be made of: ValueError, one sentence."""
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
    found = tuple(plain(v) for v in (np.asarray(values).tolist() if hasattr(values, "dtype") else values))
    mixed = traced and any(isinstance(v, float) for v in found) and all(isinstance(v, int | float) for v in found)
    return tuple(float(v) for v in found) if mixed else found


class Grid:
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
        return columns or {NO_AXIS: (0,) * len(rows)}, tuple(places)


class _Cost(NamedTuple):
    """What one lane costs: work, working memory and result size in bytes; its results' shapes; decompositions."""

    work: estimate.Work
    memory: int
    results: int
    shapes: dict[str, tuple[int, ...]]
    decomposes: bool = False


def _trace_cost(run: Run, key: Key, data: PyTree, grid: Grid, static: Mapping[str, Any]) -> _Cost:
    """The cost of one lane, from a trace."""
    names = [*([grid.padded] if grid.padded else []), *grid.traced]
    hparams = {name: jax.ShapeDtypeStruct((), column(grid.axes[name]).dtype) for name in names}
    key_data = jax.eval_shape(jax.random.key_data, key)
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(np.shape(leaf), jnp.result_type(leaf)), data)
    lane = bind(run, str(jax.random.key_impl(key)), "seed" in grid.axes, static)
    trace, out = jax.make_jaxpr(lane, return_shape=True)(hparams, key_data, shapes)
    results = sum(math.prod(a.shape) * a.dtype.itemsize for a in trace.out_avals)
    named = {name: tuple(value.shape) for name, value in out.items()}
    return _Cost(estimate.work_of(trace), estimate.peak_bytes(trace), results, named, estimate.decomposes(trace))


def _size_costs(
    run: Run, key: Key, data: PyTree, grid: Grid, static: Mapping[str, Any], sizes: Sequence[int]
) -> list[_Cost]:
    """Cost of a lane at each padded size: traced at three sizes, a parabola between (a layer's work is one)."""
    assert grid.padded is not None
    probes = sorted({sizes[0], sizes[len(sizes) // 2], sizes[-1]})
    traced = [_trace_cost(run, key, data, grid, {**static, grid.padded: size}) for size in probes]
    table = np.array([[c.work.operations, c.work.kernels, c.memory, c.results] for c in traced])
    fits = [np.polynomial.Polynomial.fit(probes, column, len(probes) - 1) for column in table.T]
    rows = np.array([[max(fit(size), 0.0) for fit in fits] for size in sizes])
    shapes = traced[-1].shapes
    return [_Cost(estimate.Work(r[0], r[1]), int(r[2]), int(r[3]), shapes, traced[-1].decomposes) for r in rows]


def _groups(strategy: str, costs: Sequence[float], lanes: Sequence[int], compile_seconds: float) -> tuple[int, ...]:
    """Index of the last size of each program under a strategy."""
    m = len(costs)
    allowed = {"loop": [m], "pad": [1], "bucket": range(min(2, m), max(m, 3)), "auto": range(1, m + 1)}[strategy]
    options = [(n * compile_seconds + estimate.group(costs, lanes, n)[1], n) for n in allowed if n <= m]
    return estimate.group(costs, lanes, min(options)[1])[0]


def _default_width(devices: Sequence[Any]) -> int:
    # Side by side gains little on a CPU, and nothing beyond about 8 lanes; on a GPU it is everything.
    return 8 if devices[0].platform == "cpu" else 1024


def default_budget(devices: Sequence[Any]) -> int:
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
    grid = Grid(axes, static, padded)
    check_axes(grid.axes, static, padded, strategy)
    with jax.enable_x64(float64 or double_precision()):
        return _plan(run, grid, key, data, name, strategy, width, memory_budget)


def _plan(
    run: Run,
    grid: Grid,
    key: Key,
    data: PyTree,
    name: str,
    strategy: str,
    width: int | None,
    memory_budget: int | None,
) -> Plan:
    padded = grid.padded
    devices = hosts.devices()
    here = jax.local_devices()
    width = width or _default_width(devices)
    budget = memory_budget or default_budget(here)
    constants = estimate.machine(devices[0].platform)
    programs = []
    for fixed in grid.combinations():
        sizes = sorted(grid.axes[padded]) if padded else [0]
        costs = (
            _size_costs(run, key, data, grid, fixed, sizes) if padded else [_trace_cost(run, key, data, grid, fixed)]
        )
        if len(devices) > 1 and devices[0].platform == "cpu" and any(cost.decomposes for cost in costs):
            # Batched LAPACK calls wait for threads that the other devices' calls hold: the program never ends.
            width = 1
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
        memory_bytes=width * len(here) * most,
        result_bytes=sum(p.result_bytes * len(p.positions) for p in programs),
    )
