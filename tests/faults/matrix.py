"""The table of faults: which rows, which studies, how many cases, and what came of them."""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from tests.faults import damage, fuzz, kills, lanes, memory, processes, rivals, signals, studies, writes
from tests.faults.bench import Bench, Case, Row
from tests.faults.studies import ROOT, Study

ROWS = [*kills.ROWS, *signals.ROWS, *fuzz.ROWS, *writes.ROWS, *damage.ROWS, *rivals.ROWS, *lanes.ROWS, *memory.ROWS]


def sources() -> str:
    """A digest of everything that a case depends on: a journal of other sources does not count."""
    sha = hashlib.sha256()
    for folder in ("nnjax", "experiments", "tests/faults"):
        for file in sorted((ROOT / folder).rglob("*.py")):
            sha.update(file.read_bytes())
    return sha.hexdigest()[:16]


class Journal:
    """Cases that are done, one JSON object a line; a long run that is stopped goes on after the last."""

    def __init__(self, path: Path, key: dict[str, Any]):
        self.path, self.key = path, key
        self.entries: list[dict[str, Any]] = []
        self._lock = threading.Lock()
        path.parent.mkdir(parents=True, exist_ok=True)
        for line in path.read_text().splitlines() if path.exists() else []:
            try:
                entry = json.loads(line)
            except ValueError:  # the last line of a run that was killed
                continue
            if all(entry.get(name) == value for name, value in key.items()):
                self.entries.append(entry)

    def done(self, row: Row, study: Study) -> set[str]:
        """Names of the cases that passed; what failed is tried again."""
        return {e["case"] for e in self.entries if (e["row"], e["study"]) == (row.name, study.name) and not e["wrong"]}

    def add(self, row: Row, study: Study, case: Case) -> None:
        """Keep a case."""
        entry = self.key | {"row": row.name, "study": study.name, "case": case.name, "wrong": case.wrong,
                            "seconds": round(case.seconds, 2), "where": case.where, "repeats": case.repeats,
                            "faults": case.faults}  # fmt: skip
        with self._lock:
            self.entries.append(entry)
            with self.path.open("a") as file:
                file.write(json.dumps(entry) + "\n")

    def latest(self) -> list[dict[str, Any]]:
        """The last entry of each case."""
        return list({(e["row"], e["study"], e["case"]): e for e in self.entries}.values())


def shares(count: int | None, some: Sequence[Study]) -> dict[str, list[int]]:
    """Case numbers for each study, dealt in turn; all of them have none, which means all."""
    if count is None:
        return {study.name: [] for study in some}
    return {study.name: list(range(place, count, len(some))) for place, study in enumerate(some)}


def units(rows: Sequence[Row], some: Sequence[Study], column: str, scale: float) -> Iterator[tuple[Row, Study, list]]:
    """Pieces of work: the cases of one row on one study."""
    for row in rows:
        count = row.full if column == "full" else row.ci
        fit = [study for study in some if row.suits(study)]
        dealt = shares(count if count is None else max(1, round(count * scale)), fit)
        for study in fit:
            if count is None or dealt[study.name]:
                yield row, study, dealt[study.name]


def table(journal: Journal, column: str, rows: Sequence[Row], heading: str) -> str:
    """What the journal holds, as Markdown."""
    names = ("fault", "faults", "runs", "failures", "studies", "where they fell", "passes when", "seconds")
    lines = [heading, "", f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
    by_row = defaultdict(list)
    for entry in journal.latest():
        by_row[entry["row"]].append(entry)
    for row in rows:
        found = by_row.get(row.name, [])
        failed, seconds = sum(bool(e["wrong"]) for e in found), sum(e["seconds"] for e in found)
        faults, names_ = sum(entry["faults"] for entry in found), _counted(found, "study")
        cells = (row.fault, faults, len(found), failed, names_, _places(found), row.passes, f"{seconds:.0f}")
        lines.append(f"| {' | '.join(map(str, cells))} |")
    if told := failures(journal, rows):
        lines += ["", "Failures:", "", *(f"- {each}" for each in told)]
    return "\n".join(lines) + "\n"


def failures(journal: Journal, rows: Sequence[Row]) -> list[str]:
    """What did not hold: cases, and rows with no case in some part of a run."""
    found = journal.latest()
    told = [f"{e['row']}, {e['study']}, case {e['case']}: {' '.join(e['wrong'].split())}" for e in found if e["wrong"]]
    for row in rows:
        wheres = [entry["where"] for entry in found if entry["row"] == row.name]
        told += [f"{row.name}: no case of {len(wheres)} fell into the part: {phase}" for phase in row.missed(wheres)]
    return told


def _counted(entries: Sequence[dict[str, Any]], name: str) -> str:
    counts = Counter(part for entry in entries for part in entry[name].split("; ") if part)
    return ", ".join(f"{value} {count}" for value, count in sorted(counts.items()))


def _places(entries: Sequence[dict[str, Any]]) -> str:
    """Where cases fell, and how many were repeated since the machine was too busy to tell whether they were late."""
    repeats, repeated = sum(e["repeats"] for e in entries), sum(bool(e["repeats"]) for e in entries)
    some = f"{repeats} repeats of {repeated} cases (busy machine)" if repeats else ""
    return "; ".join(filter(None, [_counted(entries, "where"), some]))


def _heading(arguments: argparse.Namespace, journal: Journal, begun: str) -> str:
    import jax
    import numpy

    return "\n".join([
        "# Faults on purpose",
        "",
        f"Column `{arguments.column}`, seed {arguments.seed}, {begun}: Python {platform.python_version()}, jax "
        f"{jax.__version__}, NumPy {numpy.__version__}, {platform.system()} {platform.machine()}, sources "
        f"{journal.key['sources']}.",
        "",
        f"Made by `{' '.join(['python -m tests.faults', *arguments.words])}`, which goes on where it was stopped.",
    ])  # fmt: skip


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    words = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--studies", default="all", help="names with commas between, MODULE:OPTIONS, or all")
    parser.add_argument("--column", choices=("ci", "full"), default="ci", help="how many cases (default: ci)")
    parser.add_argument("--rows", default="all", help=f"some of {', '.join(r.name for r in ROWS)} (default: all)")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the cases, for a trial (default: 1)")
    parser.add_argument("--jobs", type=int, default=1, help="studies broken side by side (default: 1)")
    parser.add_argument("--seed", type=int, default=0, help="of everything random (default: 0)")
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "faults" / "table.md",
                        help="the table (default: results/faults/table.md)")  # fmt: skip
    parser.add_argument("--work", type=Path, default=ROOT / "results" / "faults" / "work",
                        help="folder for the runs and the journal (default: results/faults/work)")  # fmt: skip
    arguments = parser.parse_args(words)
    arguments.words = words
    known = {row.name: row for row in ROWS}
    wanted = list(known) if arguments.rows == "all" else arguments.rows.split(",")
    if unknown := [name for name in wanted if name not in known]:
        parser.error(f"unknown row {unknown[0]}; known: {', '.join(known)}")
    arguments.rows = [known[name] for name in wanted]
    try:
        texts = studies.names() if arguments.studies == "all" else arguments.studies.split(",")
        arguments.studies = [studies.find(text) for text in texts]
    except ValueError as error:
        parser.error(str(error))
    return arguments


def main(argv: Sequence[str] | None = None) -> int:
    """Break studies and write the table. Returns 1 where something failed."""
    arguments = _arguments(argv)
    arguments.work.mkdir(parents=True, exist_ok=True)
    processes.environment(arguments.work / "cache")
    bench = Bench(arguments.work, arguments.seed, arguments.column == "full")
    key = {"sources": sources(), "column": arguments.column, "seed": arguments.seed}
    journal = Journal(arguments.work / "journal.jsonl", key)
    begun = time.strftime("%Y-%m-%d")

    def write() -> None:
        arguments.out.write_text(table(journal, arguments.column, ROWS, _heading(arguments, journal, begun)))

    def work(row: Row, study: Study, numbers: list[int]) -> None:
        for case in row.run(bench, study, numbers, journal.done(row, study)):
            journal.add(row, study, case)
            verdict = f"FAILED: {case.wrong}" if case.wrong else "held"
            print(f"{row.name} {study.name} {case.name}: {verdict} ({case.seconds:.1f} s)", flush=True)
        write()

    pieces = list(units(arguments.rows, arguments.studies, arguments.column, arguments.scale))
    with ThreadPoolExecutor(arguments.jobs) as pool:
        for future in as_completed([pool.submit(work, *piece) for piece in pieces]):
            future.result()
    write()
    print(arguments.out.read_text())
    return int(bool(failures(journal, ROWS)))
