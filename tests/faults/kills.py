"""SIGKILL: at a random time, and between every two calls that write."""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Iterator, Sequence

from tests.faults import folders
from tests.faults.bench import Bench, Case, Row, each, remove
from tests.faults.studies import Study

IMPORT_SECONDS = 3.0
_MOST_POINTS = 5000


def at_random(bench: Bench, study: Study, numbers: Sequence[int], done: set[str]) -> Iterator[Case]:
    """Kill at a time uniform over the whole run, look, resume, compare. One in ten is ``python -m`` from nothing."""
    whole, place = bench.oracle(study), bench.place("kill", study)

    def case(number: int) -> str:
        rng, out = bench.rng("kill", study, number), place / str(number)
        remove(out)
        fresh = rng.random() < 0.1
        span = whole.seconds + (IMPORT_SECONDS if fresh else 0.0)
        for _ in range(5):  # until the kill is sooner than the end
            running = bench.start(study, out, fresh=fresh)
            time.sleep(rng.uniform(0, span))
            hit = running.send(signal.SIGKILL)
            running.wait()
            if hit:
                break
            remove(out)
            span *= 0.7
        else:
            return "the run ended before it could be killed"
        wrong = folders.torn(out, whole) or bench.finish(study, out)
        if not wrong:
            remove(out)
        return wrong

    yield from each(numbers, done, case)


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
    Row("kill", "SIGKILL at a random time", "final hashes equal an uninterrupted run's", 5, 300, at_random),
    Row("points", "SIGKILL between every two calls that write (open, half a write, write, fsync, rename, ...)",
        "nothing torn after any kill, the same hashes after the last", None, None, at_every_write),
]  # fmt: skip
