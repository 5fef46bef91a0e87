"""Chunks that are harmed behind the program's back: seen, set aside, and they alone computed again."""

from __future__ import annotations

import random
import shutil
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.faults import folders
from tests.faults.bench import Bench, Case, Row, each, groups, joined, remove, turn
from tests.faults.studies import Study

KINDS = ("flip", "truncate", "empty", "swap", "grow")


def harm(rng: random.Random, kind: str, chunks: list[Path]) -> list[Path]:
    """Harm one of the chunks, or swap two where two are not equal; returns those that are no longer what they were."""
    path = rng.choice(chunks)
    content = path.read_bytes()
    others = [other for other in chunks if other != path and other.read_bytes() != content]
    if kind == "swap" and others:
        other = rng.choice(others)
        path.write_bytes(other.read_bytes())
        other.write_bytes(content)
        return [path, other]
    if kind in ("flip", "swap"):
        changed = bytearray(content)
        changed[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        path.write_bytes(bytes(changed))
    elif kind == "truncate":
        path.write_bytes(content[: rng.randrange(1, len(content))])
    elif kind == "empty":
        path.write_bytes(b"")
    else:
        path.write_bytes(content + bytes(rng.randrange(1, 100)))
    return [path]


def chunks_of(folder: Path) -> list[Path]:
    """Finished chunks of a run, without the states of what has its result there, which nobody reads any more."""
    found = sorted(p for p in (folder / "chunks").rglob("*.npz") if not p.name.startswith("."))
    return [
        p for p in found if "-state-" not in p.stem or p.with_name(p.stem.partition("-state-")[0] + ".npz") not in found
    ]


def harmed(bench: Bench, study: Study, numbers: Sequence[int], done: set[str]) -> Iterator[Case]:
    """Each case: a run with every chunk done and nothing after, some harmed (or two swapped), then resumed."""
    place = bench.place("damage", study)
    ready = place / "ready"
    if sum(1 + name.count("+") for name in done) < len(numbers):
        _make_ready(bench, study, ready)

    def case(group: tuple[int, ...]) -> str:
        rng, out = bench.rng("damage", study, group[0]), place / joined(group)
        remove(out)
        shutil.copytree(ready, out)
        chunks = chunks_of(out)
        before = {path: path.stat().st_ino for path in chunks}
        sound, bad = list(chunks), []
        for number in group:
            bad += harm(rng, KINDS[turn(numbers, number, len(KINDS))], sound)
            sound = [path for path in sound if path not in {*bad, *states(bad)}]
        contents = {path: path.read_bytes() for path in bad}
        wrong = bench.finish(study, out, needless(out, bad))
        if wrong:
            return wrong
        for path in bad:
            aside = list(path.parent.glob(f"{path.name}.damaged-*"))
            if [p.read_bytes() for p in aside] != [contents[path]]:
                return f"{path.name} was not set aside as it was, but {len(aside)} files"
        others = len(list(out.rglob("*.damaged-*"))) - len(bad)
        if others:
            return f"{others} chunks were set aside that were sound"
        may = {*bad, *states(bad)}
        rewritten = [p.name for p in chunks if p not in may and p.stat().st_ino != before[p]]
        if rewritten:
            return f"computed again though sound: {', '.join(rewritten)}"
        remove(out)
        return ""

    # Enough are left sound in each run to see that they are not computed again.
    size = max(1, min(len(KINDS), len(chunks_of(bench.oracle(study).folder)) // 4))
    yield from each(groups(numbers, size), done, case, joined)


def states(bad: list[Path]) -> set[Path]:
    """The other state of each search that had a state harmed, and its clock.

    A search whose last state is harmed goes on from the state before it, and saves both as it comes by.
    """
    found = set()
    for path in bad:
        name, _, number = path.stem.rpartition("-")
        if name and number in ("0", "1"):
            found |= {path.with_name(f"{name}-{1 - int(number)}.npz"), path.with_name("clock.npz")}
    return found


def needless(out: Path, bad: list[Path]) -> set[str]:
    """Harmed files that a run whose searches are done does not make again.

    They are the state before a search's last one, while the last is sound, and the search's clock, with the speeds that
    the report has from it.
    """
    found = {path for path in bad if path.name == "clock.npz"}
    found |= {path for path in bad if states([path]) - {path.with_name("clock.npz"), *bad}}
    names = {path.relative_to(out).as_posix() for path in found}
    return names | ({"report.txt"} if any(path.name == "clock.npz" for path in found) else set())


def _make_ready(bench: Bench, study: Study, ready: Path) -> None:
    """A folder as a kill leaves it after the last chunk: stop at the first event that is no chunk's."""
    whole = bench.oracle(study)
    remove(ready)
    covered = ready.with_name("covered")
    events = list(whole.events)
    first = next(place for place, event in enumerate(events) if "results.nc" in event)
    covered.write_text("\n".join(sorted(set(events[:first]))) + "\n")
    ended = bench.start(study, ready, {"root": str(ready), "kill": True, "covered": str(covered)}).wait()
    if ended.code != -signal.SIGKILL:
        raise RuntimeError(f"{study.name} could not be stopped after its chunks: {ended.code} {ended.said()}")
    if wrong := folders.torn(ready, whole):
        raise RuntimeError(wrong)
    for leftover in ready.rglob(".*.tmp*"):
        leftover.unlink()


ROWS = [
    Row("damage", "bit flip, truncation, empty, longer or swapped chunk",
        "all detected, set aside, only that chunk recomputed, the same hashes", 20, 500, harmed),
]  # fmt: skip
