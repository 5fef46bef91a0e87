"""Lanes that are not finite: the others keep every bit, and the report counts what is lost."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tests.faults.bench import Bench, Case, Row, each, remove, turn
from tests.faults.studies import ROOT, Study

KINDS = (("one", "nan"), ("one", "inf"), ("all", "nan"), ("one", "-inf"))


# In the process that suffers


def install(plan: dict[str, Any]) -> None:
    """Poison lanes of one sweep: their data and hyper-parameters, and what they return.

    ``plan``: ``sweep`` (its number in the order of the first run), ``lane`` (share of the way through the grid),
    ``which`` (one, all, none: the same program, and no lane is meant), ``value``, ``record`` (a file, also told
    of a sweep whose lanes take and give whole numbers alone: nothing in it can be lost).
    """
    import nnjax.chunks
    import nnjax.sweep

    real_sweep, real_bind, real_call = nnjax.sweep.sweep, nnjax.chunks.bind, nnjax.chunks.Work.__call__
    seen = itertools.count()
    target: dict[str, Any] = {}

    def sweep(run: Any, axes: Any, **options: Any) -> Any:
        target.clear()
        if next(seen) == plan["sweep"]:
            grid = list(itertools.product(*[list(values) for values in axes.values()]))
            chosen = grid[int(plan["lane"] * len(grid))]
            target.update(dict(zip(axes, map(nnjax.chunks.plain, chosen), strict=True)))
            _record(plan, {"sweep": options.get("name", "sweep"), "lanes": len(grid)})
        try:
            return real_sweep(run, axes, **options)
        finally:
            target.clear()

    def bind(run: Any, impl: str, seeded: bool, static: Any) -> Any:
        meant = dict(target)
        return real_bind(_poisoned(run, meant, static, plan) if meant else run, impl, seeded, static)

    def call(self: Any, chunk: Any) -> Any:
        if target:
            fixed = all(
                nnjax.chunks.plain(value) == target[name] for name, value in chunk.static.items()
                if name not in chunk.lanes
            )  # fmt: skip
            rows = [
                row for row in range(len(chunk.positions))
                if fixed and all(values[row] == target[name] for name, values in chunk.lanes.items() if name in target)
            ]  # fmt: skip
            _record(plan, {"chunk": chunk.identity, "rows": rows})
        return real_call(self, chunk)

    nnjax.sweep.sweep, nnjax.chunks.bind, nnjax.chunks.Work.__call__ = sweep, bind, call


def _poisoned(run: Any, meant: dict[str, Any], static: Any, plan: dict[str, Any]) -> Any:
    import jax
    import jax.numpy as jnp

    from nnjax.chunks import plain

    value, which = float(plan["value"]), plan["which"]

    def floats(leaf: Any) -> bool:
        return hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jnp.inexact)

    def poisoned(key: Any, hparams: Any, data: Any, **fixed: Any) -> Any:
        # Of a padded axis the static value is what was allocated; the lane's own is among its numbers.
        own_static = [name for name in static if name in meant and name not in hparams]
        bad = jnp.asarray(all(plain(static[name]) == meant[name] for name in own_static))
        for name, number in hparams.items():
            # The control has the same comparisons, with numbers that no lane has.
            other = jnp.asarray(meant[name], number.dtype) if which != "none" else jnp.asarray(77, number.dtype) + 777
            bad = bad & (number == other)
        bad = bad | (which == "all")

        def spoil(leaf: Any) -> Any:
            return jnp.where(bad, jnp.asarray(value, leaf.dtype), leaf) if floats(leaf) else leaf

        reached = any(map(floats, jax.tree.leaves((hparams, data))))
        found = dict(run(key, jax.tree.map(spoil, hparams), jax.tree.map(spoil, data), **fixed))
        own, results = found.get("diverged"), [leaf for leaf in found.values() if floats(leaf)]
        if not reached and not results:
            _record(plan, {"whole": True})
        lost = jnp.stack([jnp.zeros((), bool), *(~jnp.all(jnp.isfinite(leaf)) for leaf in results)]).any()
        found = {name: spoil(leaf) for name, leaf in found.items()}
        if own is not None and (results or not reached):
            # A lane that was lost by what it was given must say so itself; of results spoiled here it cannot know.
            found["diverged"] = own | (bad & ~lost)
        return found

    return poisoned


def _record(plan: dict[str, Any], entry: dict[str, Any]) -> None:
    with open(plan["record"], "a") as file:
        file.write(json.dumps(entry) + "\n")


# Outside


def suits(study: Study) -> bool:
    """Whether a study consists of sweeps."""
    path = ROOT / f"{study.module.replace('.', '/')}.py"
    return not path.exists() or "def sweeps(" in path.read_text()


def not_finite(bench: Bench, study: Study, numbers: Sequence[int], done: set[str]) -> Iterator[Case]:
    """Poison one lane, or all, of a sweep chosen by chance; compare with the same program in which no lane is meant."""
    place = bench.place("lanes", study)
    count = _sweeps(bench, study, place) if len(done) < len(numbers) else 1

    def case(number: int) -> str:
        rng, out, control = bench.rng("lanes", study, number), place / str(number), place / f"{number}-control"
        remove(out, control)
        which, value = KINDS[turn(numbers, number, len(KINDS))]
        plan = {"sweep": rng.randrange(count), "lane": rng.random(), "value": value}
        for _ in range(count):
            wrong = _compare(bench, study, out, control, plan, which)
            if wrong is not None:
                break
            plan["sweep"] = (plan["sweep"] + 1) % count
        else:
            wrong = "no sweep has lanes with a number that could be lost"
        if not wrong:
            remove(out, control)
        return f"{which} {value} in sweep {plan['sweep']}: {wrong}" if wrong else ""

    yield from each(numbers, done, case)


def _sweeps(bench: Bench, study: Study, place: Path) -> int:
    """How many sweeps a study calls."""
    record = place / "sweeps"
    record.unlink(missing_ok=True)
    chunks = {p.parent.name for p in (bench.oracle(study).folder / "chunks").rglob("*.npz")}
    return len(chunks)


def _compare(bench: Bench, study: Study, out: Path, control: Path, plan: dict[str, Any], which: str) -> str | None:
    """What is wrong, or nothing; None where nothing in the sweep can be lost."""
    records, ended = [], []
    for folder, meant in ((control, "none"), (out, which)):
        remove(folder)
        record = folder.with_name(f"{folder.name}-record")
        record.unlink(missing_ok=True)
        lanes = plan | {"which": meant, "record": str(record)}
        ended.append(bench.start(study, folder, {"lanes": lanes}).wait())
        if ended[-1].code or not ended[-1].clean:
            return f"ended with {ended[-1].code} with {meant}: {ended[-1].said()}"
        records.append([json.loads(line) for line in record.read_text().splitlines()])
        record.unlink()
        if any("whole" in entry for entry in records[-1]):
            return None
    counts = [sum(map(int, re.findall(r"^(\d+) of \d+ lanes of \S+ diverged", e.out, re.MULTILINE))) for e in ended]
    lost = 1 if which == "one" else next(entry["lanes"] for entry in records[1] if "lanes" in entry)
    if counts[1] - counts[0] < lost:
        return f"{lost} lanes of {records[1][0]['sweep']} are lost, and the report counts {counts[1] - counts[0]} more"
    meant = 0
    for entry in records[1]:
        if "chunk" in entry:
            meant += len(entry["rows"])
            if other := _unequal(control, out, entry, which):
                return other
    return "" if meant else "no lane was meant"


def _unequal(control: Path, out: Path, entry: dict[str, Any], which: str) -> str:
    files = [next((folder / "chunks").rglob(f"{entry['chunk']}.npz")) for folder in (control, out)]
    sound, poisoned = (dict(np.load(file)) for file in files)
    for name, array in sound.items():
        for row in range(len(array)):
            if which == "one" and row not in entry["rows"] and array[row].tobytes() != poisoned[name][row].tobytes():
                return f"{name} of lane {row} in {files[0].parent.name} differs though another lane is lost"
    return ""


ROWS = [
    Row("lanes", "NaN or Inf in one or all lanes", "other lanes bit-equal; failures counted in the report", 5, 50,
        not_finite, suits),
]  # fmt: skip
