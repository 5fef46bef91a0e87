"""Memory that is short: in a chunk, in its compilation, in the budget, in Python."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

from tests.faults.bench import Bench, Case, Row, each, remove, turn
from tests.faults.lanes import suits
from tests.faults.studies import Study

KINDS = ("array", "run", "compile", "budget", "python")
_TEXT = "RESOURCE_EXHAUSTED: Out of memory while trying to allocate 98765432100 bytes."


def install(plan: dict[str, Any]) -> None:
    """Run short of memory in the way of ``plan["kind"]``, from its ``at``-th time on."""
    import jax

    import nnjax.chunks
    import nnjax.results
    import nnjax.sweep

    seen = itertools.count(1)

    def short() -> bool:
        return next(seen) >= plan["at"]

    if plan["kind"] == "budget":
        nnjax.sweep.default_budget = lambda devices: 16
    elif plan["kind"] == "compile":
        real_compile = jax.stages.Lowered.compile

        def compile_(self: Any, *arguments: Any, **options: Any) -> Any:
            if short():
                raise jax.errors.JaxRuntimeError(_TEXT)
            return real_compile(self, *arguments, **options)

        jax.stages.Lowered.compile = compile_
    elif plan["kind"] == "python":
        real_write = nnjax.results.write_arrays

        def write_arrays(*arguments: Any) -> str:
            if short():
                raise MemoryError
            return real_write(*arguments)

        nnjax.results.write_arrays = write_arrays
    else:
        import nnjax.hosts

        name = "own_rows" if plan["kind"] == "run" else "put"
        real = getattr(nnjax.hosts, name)

        def moved(*arguments: Any, **options: Any) -> Any:
            if short():
                raise jax.errors.JaxRuntimeError(_TEXT)
            return real(*arguments, **options)

        setattr(nnjax.hosts, name, moved)


def short_of_memory(bench: Bench, study: Study, numbers: Sequence[int], done: set[str]) -> Iterator[Case]:
    """Run short once, then run again with memory and compare."""
    place = bench.place("memory", study)

    def case(number: int) -> str:
        rng, out = bench.rng("memory", study, number), place / str(number)
        kind = KINDS[turn(numbers, number, len(KINDS))] if suits(study) else "python"
        for at in (rng.choice((1, 2, 3)), 1):  # the smallest studies do not come to a third time
            remove(out)
            ended = bench.start(study, out, {"memory": {"kind": kind, "at": at}}).wait()
            if ended.code:
                break
        else:
            return f"{kind}: memory was never short"
        if ended.code != 2 or not ended.clean:
            return f"{kind}: ended with {ended.code}: {ended.said()}"
        if "memory" not in ended.said() or not any(word in ended.said() for word in ("width=", "smaller")):
            return f"{kind}: suggests nothing: {ended.said()}"
        wrong = bench.finish(study, out)
        if not wrong:
            remove(out)
        return f"{kind}: {wrong}" if wrong else ""

    yield from each(numbers, done, case)


ROWS = [
    Row("memory", "out of memory", "clear error with a smaller chunk suggested; resumes", 1, 20, short_of_memory),
]  # fmt: skip
