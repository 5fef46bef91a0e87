"""SIGKILL: at a random time, and between every two calls that write."""

from __future__ import annotations

import random
import shutil
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.faults import folders
from tests.faults.bench import Bench, Case, Row, Told, each, groups, joined, remove, turn
from tests.faults.folders import PHASES
from tests.faults.processes import Outcome
from tests.faults.studies import Study

IMPORT_SECONDS = 3.0
KILLS = 3  # of one run, one after the other
_MOST_POINTS = 5000
AIMS = (PHASES[1], PHASES[2], PHASES[0], PHASES[1], PHASES[2])


def at_random(bench: Bench, study: Study, numbers: Sequence[int], done: set[str]) -> Iterator[Case]:
    """Kill a run at random times, several times over; look after each, resume, and compare in the end.

    The first kill falls into each part of the run by turns, the others into the runs that resume it. One case in ten
    is ``python -m`` from nothing.
    """
    place = bench.place("kill", study)
    some = groups(numbers, KILLS)
    firsts = [group[0] for group in some]

    def case(group: tuple[int, ...]) -> str | Told:
        rng, out = bench.rng("kill", study, group[0]), place / joined(group)
        remove(out)
        aim = AIMS[turn(firsts, group[0], len(AIMS))]
        fell: list[str] = []
        for _ in group:
            found = _kill_resumed(bench, study, out, rng) if fell else None
            found = found or _kill_in(bench, study, out, rng, aim)
            if found.wrong:
                return found
            fell.append(found.where)
        wrong = bench.finish(study, out)
        if not wrong:
            remove(out)
        return Told(wrong, "; ".join(fell))

    yield from each(some, done, case, joined)


def _kill_in(bench: Bench, study: Study, out: Path, rng: random.Random, aim: str) -> Told:
    """Kill a new run in a part of it; a kill that fell into another part than meant is repeated a few times."""
    fresh, fell = rng.random() < 0.1, len(PHASES)
    for attempt in range(6):
        remove(out)
        running = bench.start(study, out, fresh=fresh)
        bench.linger(study, out, running, aim, rng.uniform(0, 0.7**attempt), IMPORT_SECONDS if fresh else 0.0)
        running.send(signal.SIGKILL)
        ended = running.wait()
        if wrong := unasked(ended, -signal.SIGKILL) or folders.torn(out, bench.oracle(study)):
            return Told(wrong)
        fell = folders.reached(out) if ended.code else len(PHASES)
        if fell == PHASES.index(aim):
            break
    if fell == len(PHASES):
        return Told(f"the run ended before it could be killed in the part: {aim}")
    return Told("", PHASES[fell])


def _kill_resumed(bench: Bench, study: Study, out: Path, rng: random.Random) -> Told | None:
    """Resume a run and kill it at a random time; None where it came to its end before, and was as it should be."""
    before, chunks, rest = bench.oracle(study).lengths
    running = bench.start(study, out)
    seconds = rng.uniform(0.5 * before, before + 0.5 * chunks * rng.random() + rest) * bench.paces.get(study.name, 1.0)
    while not running.over() and time.monotonic() < running.started + seconds:
        time.sleep(0.002)
    killed = running.send(signal.SIGKILL)
    ended = running.wait()
    if not killed or ended.code == 0:
        wrong = bench.judged(study, out, ended)
        return Told(wrong) if wrong else None
    wrong = unasked(ended, -signal.SIGKILL) or folders.torn(out, bench.oracle(study))
    return Told(wrong, PHASES[min(folders.reached(out), 2)])


def unasked(ended: Outcome, asked: int) -> str:
    """What is wrong with a run that should have ended at its end or with the code ``asked``, or nothing."""
    return "" if ended.code in (0, asked) else f"it ended by itself with {ended.code}: {ended.said()}"


def at_every_write(bench: Bench, study: Study, numbers: Sequence[int], done: set[str]) -> Iterator[Case]:
    """Kill after each call that writes, which is before the next one; the next process resumes and is killed later.

    After every kill the folder is looked at; after the last, which is the end of a whole run, it is compared.
    """
    whole, place = bench.oracle(study), bench.place("points", study)
    out, covered = place / "out", place / "covered"
    if "end" in done:
        return
    if not done:
        remove(out)
        covered.unlink(missing_ok=True)
    covered.touch()
    for _ in range(_MOST_POINTS):
        start = time.monotonic()
        before = len(covered.read_text().splitlines())
        ended = bench.start(study, out, {"root": str(out), "kill": True, "covered": str(covered)}).wait()
        points = covered.read_text().splitlines()
        if ended.code != -signal.SIGKILL:
            yield Case("end", bench.judged(study, out, ended), time.monotonic() - start)
            break
        if len(points) == before:
            yield Case("end", "killed without a point", time.monotonic() - start)
            break
        name = points[-1]
        wrong = folders.torn(out, whole)
        if not wrong and before % 10 == 0:  # from some of them straight to the end as well
            branch = place / "branch"
            remove(branch)
            shutil.copytree(out, branch)
            wrong = bench.finish(study, branch)
            remove(branch)
        yield Case(name, wrong, time.monotonic() - start)


ROWS = [
    Row("kill", "SIGKILL at a random time", "final hashes equal an uninterrupted run's", 5, 300, at_random,
        phases=PHASES),
    Row("points", "SIGKILL between every two calls that write (lock, open, half a write, fsync, rename, ...)",
        "nothing torn after any kill, the same hashes after the last", None, None, at_every_write),
]  # fmt: skip
