"""What a program will cost before it runs: operations, seconds, and how to group shapes into programs.

The model is deliberately plain and depends on nothing that changes from run to run, so that an interrupted
sweep and its continuation make the same plan. A lane (one run of a sweep) costs

    seconds = operations / rate + kernels * overhead / width

with ``operations`` and ``kernels`` counted in the traced program, ``width`` the number of lanes computed
side by side, and `Machine` the constants of the backend. A program costs `Machine.compile_seconds` once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np


class Machine(NamedTuple):
    """Constants of a backend: measured by ``tests/benchmarks/strategies.py``, good to a factor of about two."""

    compile_seconds: float
    """Tracing and compiling one training program, s."""
    rate: float
    """Operations a second and device at the small sizes of sweeps."""
    overhead: float
    """Seconds to start one kernel inside a compiled loop."""


MACHINES = {
    "cpu": Machine(compile_seconds=4.0, rate=2.5e10, overhead=3e-6),
    "gpu": Machine(compile_seconds=4.0, rate=5e12, overhead=4e-6),
    "tpu": Machine(compile_seconds=6.0, rate=5e12, overhead=2e-6),
}


def machine(backend: str | None = None) -> Machine:
    """The constants of ``backend`` (default: the one in use)."""
    return MACHINES.get(backend or jax.default_backend(), MACHINES["gpu"])


class Work(NamedTuple):
    """Arithmetic of one run: ``operations`` (multiply and add count two) and ``kernels`` started."""

    operations: float
    kernels: float

    def seconds(self, machine: Machine, width: int = 1) -> float:
        """Predicted time of one lane when ``width`` lanes run side by side, s."""
        return self.operations / machine.rate + self.kernels * machine.overhead / width


def count_work(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Work:
    """Count the work of ``function(*args, **kwargs)`` from its trace; nothing is computed.

    Loops of known length count their length, a branch the cheaper of its sides (evaluation and shuffling happen
    now and then), a loop of unknown length one round. Arguments may be `jax.ShapeDtypeStruct`.
    """
    return work_of(jax.make_jaxpr(lambda *a: function(*a, **kwargs))(*args))


def work_of(trace: Any) -> Work:
    """As `count_work`, for a trace made by `jax.make_jaxpr`."""
    return _work(trace.jaxpr)


def peak_bytes(trace: Any) -> int:
    """Rough working memory of a traced function, bytes: its largest step, inputs and outputs, inner loops included.

    The function's own arguments are not counted: lanes share them.
    """
    return int(_peak(trace.jaxpr, set(trace.jaxpr.invars)))


_DECOMPOSITIONS = ("eig", "eigh", "svd", "qr", "householder_product", "cholesky", "lu", "schur", "geqrf")


def decomposes(trace: Any) -> bool:
    """Whether a trace made by `jax.make_jaxpr` decomposes a matrix (eigenvalues, SVD, QR, Cholesky, LU) anywhere."""
    return _decomposes(trace.jaxpr)


def _decomposes(jaxpr: Any) -> bool:
    return any(
        equation.primitive.name in _DECOMPOSITIONS or any(map(_decomposes, _inner_jaxprs(equation.params)))
        for equation in jaxpr.eqns
    )


def _peak(jaxpr: Any, shared: set) -> float:
    most = 0.0
    for equation in jaxpr.eqns:
        variables = {v for v in (*equation.invars, *equation.outvars) if not hasattr(v, "val") and v not in shared}
        here = sum(_size(v) * getattr(v.aval.dtype, "itemsize", 4) for v in variables if hasattr(v.aval, "dtype"))
        inner = max((_peak(sub, set(sub.invars)) for sub in _inner_jaxprs(equation.params)), default=0.0)
        most = max(most, here + inner)
    return most


def _work(jaxpr: Any) -> Work:
    operations = kernels = 0.0
    for equation in jaxpr.eqns:
        work = _equation_work(equation)
        operations += work.operations
        kernels += work.kernels
    return Work(operations, kernels)


def _size(variable: Any) -> float:
    return float(math.prod(variable.aval.shape)) if hasattr(variable.aval, "shape") else 1.0


# Share of an element-wise operation that is left as a kernel of its own after fusion.
_UNFUSED = 0.15


def _equation_work(equation: Any) -> Work:
    name, params = equation.primitive.name, equation.params
    if name == "cond":
        return min((_work(branch.jaxpr) for branch in params["branches"]), key=lambda work: work.operations)
    inner = [_work(sub) for sub in _inner_jaxprs(params)]
    if inner:
        times = params["length"] if name == "scan" else 1
        return Work(times * sum(w.operations for w in inner), times * sum(w.kernels for w in inner))
    out = sum(_size(v) for v in equation.outvars)
    if name == "dot_general":
        (contracting, _), _ = params["dimension_numbers"]
        shape = equation.invars[0].aval.shape
        return Work(2.0 * out * math.prod(shape[axis] for axis in contracting), 1.0)
    if name == "conv_general_dilated":
        kernel = equation.invars[1].aval.shape
        out_channels = kernel[params["dimension_numbers"].rhs_spec[0]]
        return Work(2.0 * out * math.prod(kernel) / out_channels, 1.0)
    if name in ("eigh", "svd", "qr", "cholesky", "lu", "triangular_solve"):
        side = equation.invars[0].aval.shape[-1]
        factor = {"eigh": 10.0, "svd": 20.0, "qr": 2.0}.get(name, 0.7)
        return Work(factor * side * _size(equation.invars[0]), 1.0)
    return Work(out, _UNFUSED)


def _inner_jaxprs(params: dict[str, Any]) -> list[Any]:
    found = []
    for value in params.values():
        for item in value if isinstance(value, tuple | list) else (value,):
            jaxpr = getattr(item, "jaxpr", item)
            if hasattr(jaxpr, "eqns"):
                found.append(jaxpr)
    return found


def group(costs: Sequence[float], lanes: Sequence[int], groups: int) -> tuple[tuple[int, ...], float]:
    """Split sizes in ascending order into ``groups`` runs, each computed at its largest size, at least cost.

    Args:
      costs: seconds of one lane at each size, ascending sizes, (m,).
      lanes: how many lanes have each size, (m,).
      groups: how many programs, 1 to m.

    Returns:
      The index of the last size of every group, ascending, and the total seconds of running.
    """
    m = len(costs)
    if not 1 <= groups <= m:
        raise ValueError(f"groups={groups} must lie between 1 and the number of sizes, {m}")
    before = np.concatenate([[0], np.cumsum(lanes)])
    best = np.full((groups + 1, m + 1), np.inf)
    start = np.zeros((groups + 1, m + 1), int)
    best[0, 0] = 0.0
    for g in range(1, groups + 1):
        for end in range(1, m + 1):
            options = [best[g - 1, s] + (before[end] - before[s]) * costs[end - 1] for s in range(end)]
            start[g, end] = int(np.argmin(options))
            best[g, end] = options[start[g, end]]
    ends, end = [], m
    for g in range(groups, 0, -1):
        ends.append(end - 1)
        end = start[g, end]
    return tuple(reversed(ends)), float(best[groups, m])
