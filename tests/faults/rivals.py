"""Two processes on one folder, and locks whose owner was killed."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.faults import folders, processes
from tests.faults.bench import Bench, Case, Late, Row, Told, each, groups, joined, remove, turn
from tests.faults.folders import PHASES
from tests.faults.processes import Outcome, Running
from tests.faults.studies import Study

SECONDS = 1.0
RIVALS = 3  # of one owner


def together(bench: Bench, study: Study, numbers: Sequence[int], done: set[str]) -> Iterator[Case]:
    """An owner is held at a random write while others start one after the other; or all start in the same moment."""
    whole, place = bench.oracle(study), bench.place("rivals", study)
    some = groups(numbers, RIVALS)

    def case(group: tuple[int, ...]) -> str:
        rng, out = bench.rng("rivals", study, group[0]), place / joined(group)
        remove(out)
        if group == some[-1] and len(some) > 1:
            wrong = _race(bench, study, out, len(group))
        else:
            wrong = _held(bench, study, out, rng.random(), whole.events, len(group))
        if not wrong:
            remove(out)
        return wrong

    yield from each(some, done, case, joined)


def _held(bench: Bench, study: Study, out: Path, where: float, events: Sequence[str], rivals: int) -> str:
    first = next(place for place, event in enumerate(events) if event.startswith("rename manifest.json"))
    pause = first + 1 + int(where * (len(events) - first - 1))
    owner, go = _paused(bench, study, out, pause)
    if owner.over():
        return f"the owner never came to write {pause}: {owner.wait().said()}"
    refused = []
    try:
        for number in range(rivals):
            asked, streams = (out.with_name(f"{out.name}-{number}-{name}") for name in ("asked", "streams"))
            asked.unlink(missing_ok=True)
            rival = bench.start(study, out, {"root": str(out), "asked": str(asked)}, streams=streams)
            refused.append(_refused(rival.wait(), asked, owner.pid))
            shutil.rmtree(streams, ignore_errors=True)
            asked.unlink(missing_ok=True)
    finally:
        go.touch()
        ended = owner.wait()
        go.unlink(missing_ok=True)
    return bench.judged(study, out, ended) or next(filter(None, refused), "")


def _paused(bench: Bench, study: Study, out: Path, number: int) -> tuple[Running, Path]:
    """A run that waits after its event ``number``, and the file that lets it go on; or one that is over."""
    paused, go = (out.with_name(f"{out.name}-{name}") for name in ("paused", "go"))
    for sign in (paused, go):
        sign.unlink(missing_ok=True)
    running = bench.start(study, out, {"root": str(out), "pause": number, "paused": str(paused), "go": str(go)})
    start = time.monotonic()
    while not paused.exists() and not running.over():
        if time.monotonic() - start > processes.PATIENCE:
            running.send(signal.SIGKILL)
            running.wait()
        time.sleep(0.01)
    paused.unlink(missing_ok=True)
    return running, go


def _refused(ended: Outcome, asked: Path, owner: int) -> str:
    if ended.code != 2 or not ended.clean or ended.err.count("\n") != 1:
        return f"the rival ended with {ended.code}: {ended.said()}"
    if f"in use by process {owner} " not in ended.err:
        return f"the rival does not name process {owner}: {ended.said()}"
    late = ended.ended - float(asked.read_text().split()[-1])
    if late > SECONDS:
        raise Late(f"the rival ended {late:.1f} s after it had asked for the lock")
    return ""


def _race(bench: Bench, study: Study, out: Path, rivals: int) -> str:
    numbers = range(rivals + 1)
    asked = [out.with_name(f"{out.name}-asked-{side}") for side in numbers]
    for file in asked:
        file.unlink(missing_ok=True)
    sides = [
        bench.start(study, out, {"root": str(out), "asked": str(asked[side])},
                    streams=out.with_name(f"{out.name}-{side}-streams"))
        for side in numbers
    ]  # fmt: skip
    with ThreadPoolExecutor(len(sides)) as pool:  # one after the other would not see when the second ended
        ended = list(pool.map(Running.wait, sides))
    codes = [each.code for each in ended]
    if sorted(codes) == [0, *[2] * rivals]:
        first = codes.index(0)
        others = [side for side in numbers if side != first]
        refused = (_refused(ended[side], asked[side], sides[first].pid) for side in others)
        wrong = bench.judged(study, out, ended[first]) or next(filter(None, refused), "")
    else:
        wrong = f"those that start together end with {codes}: {' / '.join(each.said() for each in ended)}"
    for side in numbers:
        asked[side].unlink(missing_ok=True)
        shutil.rmtree(out.with_name(f"{out.name}-{side}-streams"), ignore_errors=True)
    return wrong


def stale(bench: Bench, study: Study, numbers: Sequence[int], done: set[str]) -> Iterator[Case]:
    """Kill the owner while it holds the lock, in each part of its run by turns.

    What the lock says of its owner is then a lie of several kinds.
    """
    whole, place = bench.oracle(study), bench.place("stale", study)
    locked = next(number for number, event in enumerate(whole.events) if event == "write lock")

    def case(number: int) -> str | Told:
        rng, out = bench.rng("stale", study, number), place / str(number)
        remove(out)
        part = folders.phases(whole.events)[turn(numbers, number, len(PHASES))]
        target = rng.randrange(max(part.start, locked), part.stop)
        running, go = _paused(bench, study, out, target + 1)
        hit = running.send(signal.SIGKILL)
        ended = running.wait()
        go.unlink(missing_ok=True)
        if not hit or ended.code != -signal.SIGKILL or not (out / "lock").exists():
            return f"the owner could not be killed at {whole.events[target]}: {ended.code} {ended.said()}"
        fell = folders.reached(out)
        lies = [None, f"process {os.getpid()} on this machine\n".encode(), b"", b"\xff\xfe\x00garbage", b"x" * 100_000]
        lie = lies[turn(numbers, number, len(lies))]
        if lie is not None:
            (out / "lock").write_bytes(lie)
        wrong = folders.torn(out, whole) or bench.finish(study, out)
        if not wrong:
            remove(out)
        return Told(wrong, PHASES[min(fell, 2)])

    yield from each(numbers, done, case)


ROWS = [
    Row("rivals", "several processes on one folder",
        "all but the owner end within 1 s of their check naming it; nothing lost", 3, 100, together),
    Row("stale", "stale lock after a kill", "recovers by itself, the same hashes", 3, 100, stale, phases=PHASES),
]  # fmt: skip
