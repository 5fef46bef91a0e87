"""Two processes on one folder, and locks whose owner was killed."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.faults import injection
from tests.faults.bench import Bench, Case, Row, each, remove
from tests.faults.processes import Outcome
from tests.faults.studies import Study

SECONDS = 1.0
_START_SECONDS = 120.0


def together(bench: Bench, study: Study, numbers: Sequence[int], done: set[str]) -> Iterator[Case]:
    """An owner is held at a random write while a second process starts; or both start in the same moment."""
    whole, place = bench.oracle(study), bench.place("rivals", study)

    def case(number: int) -> str:
        rng, out = bench.rng("rivals", study, number), place / str(number)
        remove(out)
        wrong = _race(bench, study, out) if number % 5 == 4 else _held(bench, study, out, rng.random(), whole.events)
        if not wrong:
            remove(out)
        return wrong

    yield from each(numbers, done, case)


def _held(bench: Bench, study: Study, out: Path, where: float, events: Sequence[str]) -> str:
    first = next(place for place, event in enumerate(events) if event.startswith("rename manifest.json"))
    signs = {name: out.with_name(f"{out.name}-{name}") for name in ("paused", "go", "asked")}
    for sign in signs.values():
        sign.unlink(missing_ok=True)
    pause = first + 1 + int(where * (len(events) - first - 1))
    plan = {"root": str(out), "pause": pause, "paused": str(signs["paused"]), "go": str(signs["go"])}
    owner = bench.start(study, out, plan)
    start = time.monotonic()
    while not signs["paused"].exists():
        if owner.over() or time.monotonic() - start > _START_SECONDS:
            signs["go"].touch()
            return f"the owner never came to write {pause}: {owner.wait().said()}"
        time.sleep(0.01)
    rival = bench.start(
        study, out, {"root": str(out), "asked": str(signs["asked"])}, streams=out.with_name(f"{out.name}-rival-streams")
    )
    ended = rival.wait()
    signs["go"].touch()
    wrong = _refused(ended, signs["asked"], owner.pid) or bench.judged(study, out, owner.wait())
    shutil.rmtree(out.with_name(f"{out.name}-rival-streams"), ignore_errors=True)
    for sign in signs.values():
        sign.unlink(missing_ok=True)
    return wrong


def _refused(ended: Outcome, asked: Path, owner: int) -> str:
    if ended.code != 2 or not ended.clean or ended.err.count("\n") != 1:
        return f"the rival ended with {ended.code}: {ended.said()}"
    if f"in use by process {owner} " not in ended.err:
        return f"the rival does not name process {owner}: {ended.said()}"
    late = ended.ended - float(asked.read_text().split()[-1])
    return f"the rival ended {late:.1f} s after it had asked for the lock" if late > SECONDS else ""


def _race(bench: Bench, study: Study, out: Path) -> str:
    sides = [
        bench.start(study, out, {"root": str(out), "asked": str(out.with_name(f"{out.name}-asked-{side}"))},
                    streams=out.with_name(f"{out.name}-{side}-streams"))
        for side in (0, 1)
    ]  # fmt: skip
    ended = [side.wait() for side in sides]
    codes = [each.code for each in ended]
    asked = [out.with_name(f"{out.name}-asked-{side}") for side in (0, 1)]
    if sorted(codes) == [0, 2]:
        first = codes.index(0)
        wrong = _refused(ended[1 - first], asked[1 - first], sides[first].pid)
        wrong = wrong or bench.judged(study, out, ended[first])
    else:
        wrong = f"two that start together end with {codes}: {ended[0].said()} / {ended[1].said()}"
    for side in (0, 1):
        asked[side].unlink(missing_ok=True)
        shutil.rmtree(out.with_name(f"{out.name}-{side}-streams"), ignore_errors=True)
    return wrong


def stale(bench: Bench, study: Study, numbers: Sequence[int], done: set[str]) -> Iterator[Case]:
    """Kill the owner while it holds the lock; what the lock says of its owner is then a lie of several kinds."""
    whole, place = bench.oracle(study), bench.place("stale", study)

    def case(number: int) -> str:
        rng, out = bench.rng("stale", study, number), place / str(number)
        remove(out)
        plan = {"root": str(out), "log": str(out.with_name(f"{out.name}-log"))}
        log = Path(plan["log"])
        running = bench.start(study, out, plan)
        target = rng.randrange(1, len(whole.events))
        while len(injection.read_log(log)) < target and not running.over():
            time.sleep(0.01)
        running.send(signal.SIGKILL)
        running.wait()
        lies = [None, f"process {os.getpid()} on this machine\n".encode(), b"", b"\xff\xfe\x00garbage", b"x" * 100_000]
        lie = lies[number % len(lies)]
        if lie is not None:
            (out / "lock").write_bytes(lie)
        wrong = bench.finish(study, out)
        log.unlink(missing_ok=True)
        if not wrong:
            remove(out)
        return wrong

    yield from each(numbers, done, case)


ROWS = [
    Row("rivals", "two processes on one folder",
        "the second ends within 1 s of its check naming the owner; nothing lost", 3, 100, together),
    Row("stale", "stale lock after a kill", "recovers by itself, the same hashes", 3, 100, stale),
]  # fmt: skip
