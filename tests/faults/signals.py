"""Ctrl-C and a polite kill at any time: out within five seconds, with the words that resume."""

from __future__ import annotations

import re
import shlex
import signal
import time
from collections.abc import Iterator, Sequence

from tests.faults import folders
from tests.faults.bench import Bench, Case, Row, each, remove
from tests.faults.kills import IMPORT_SECONDS
from tests.faults.processes import Running
from tests.faults.studies import Study

SECONDS = 5.0


def stop(bench: Bench, study: Study, numbers: Sequence[int], done: set[str]) -> Iterator[Case]:
    """Signals by turns at a random time; every fourth case runs the printed command and compares.

    One in five is ``python -m`` from nothing, stopped also while Python imports.
    """
    whole, place = bench.oracle(study), bench.place("signals", study)

    def case(number: int) -> str:
        rng, out = bench.rng("signals", study, number), place / str(number)
        what = (signal.SIGINT, signal.SIGTERM)[(number + number // 8) % 2]
        fresh = study.module.startswith("experiments.") and rng.random() < 0.2
        span = whole.seconds + (IMPORT_SECONDS if fresh else 0.0)
        for _ in range(6):
            remove(out)
            running = bench.start(study, out, fresh=fresh)
            while not running.listens():
                time.sleep(0.005)
            time.sleep(rng.uniform(0, span))
            sent, start = running.send(what), time.monotonic()
            ended = running.wait(60)
            if sent and ended.code != 0:  # 0: it had done its last before the signal came
                break
            span *= 0.7
        else:
            return "the run ended before it could be stopped"
        took = ended.ended - start
        if took > SECONDS:
            return f"{what.name}: out after {took:.1f} s"
        if ended.code != 128 + what or not ended.clean:
            return f"{what.name}: ended with {ended.code}: {ended.said()}"
        printed = re.search(r"^ *python -m (.*)$", ended.err, re.MULTILINE)
        if not printed:
            return f"{what.name}: no command that resumes: {ended.said()}"
        wrong = folders.torn(out, whole)
        if not wrong and number % 4 == 0:
            module, *words = shlex.split(printed[1])
            again = Running(module, words, out.with_name(f"{out.name}-streams"))
            wrong = bench.judged(study, out, again.wait())
        if not wrong:
            remove(out)
        return wrong

    yield from each(numbers, done, case)


ROWS = [
    Row("signals", "SIGINT or SIGTERM at a random time", f"exit within {SECONDS:.0f} s, resume command printed", 3, 100,
        stop),
]  # fmt: skip
