"""Ctrl-C and a polite kill at any time: out within five seconds, with the words that resume."""

from __future__ import annotations

import re
import shlex
import signal
import time
from collections.abc import Iterator, Sequence

from tests.faults import folders
from tests.faults.bench import Bench, Case, Late, Row, Told, each, remove, turn
from tests.faults.folders import PHASES
from tests.faults.kills import AIMS, IMPORT_SECONDS, unasked
from tests.faults.processes import Running
from tests.faults.studies import Study

SECONDS = 5.0


def stop(bench: Bench, study: Study, numbers: Sequence[int], done: set[str]) -> Iterator[Case]:
    """Signals by turns at a random time; of each study every second case runs the printed command and compares.

    One in five is ``python -m`` from nothing, stopped also while Python imports.
    """
    whole, place = bench.oracle(study), bench.place("signals", study)

    def case(number: int) -> str | Told:
        rng, out = bench.rng("signals", study, number), place / str(number)
        what, resumes = kind(numbers, number)
        aim = AIMS[turn(numbers, number, len(AIMS))]
        fresh = study.module.startswith("experiments.") and rng.random() < 0.2
        for attempt in range(6):
            remove(out)
            running = bench.start(study, out, fresh=fresh)
            while not running.listens():
                time.sleep(0.005)
            bench.linger(study, out, running, aim, rng.uniform(0, 0.7**attempt), IMPORT_SECONDS if fresh else 0.0)
            fell = folders.reached(out)
            sent, start = running.send(what), time.monotonic()
            ended = running.wait(60)
            took = ended.ended - start
            if sent and took > SECONDS:
                raise Late(f"{what.name}: out after {took:.1f} s")
            if wrong := unasked(ended, 128 + what):
                return f"{what.name}: {wrong}"
            if sent and ended.code and fell == PHASES.index(aim):
                break
        if not sent or not ended.code:  # it had done its last before the signal came
            return f"the run ended before it could be stopped in the part: {aim}"
        if not ended.clean:
            return f"{what.name}: ended with {ended.code}: {ended.said()}"
        printed = re.search(r"^ *python -m (.*)$", ended.err, re.MULTILINE)
        if not printed:
            return f"{what.name}: no command that resumes: {ended.said()}"
        wrong = folders.torn(out, whole)
        if not wrong and resumes:
            module, *words = shlex.split(printed[1])
            again = Running(module, words, out.with_name(f"{out.name}-streams"))
            wrong = bench.judged(study, out, again.wait())
        if not wrong:
            remove(out)
        return Told(wrong, PHASES[fell] if fell < len(PHASES) else "")

    yield from each(numbers, done, case)


def kind(numbers: Sequence[int], number: int) -> tuple[signal.Signals, bool]:
    """Which signal a case sends, and whether it runs the command that is printed: all four by turns in every study."""
    fourth = turn(numbers, number, 4)
    return (signal.SIGINT, signal.SIGTERM)[fourth % 2], fourth < 2


ROWS = [
    Row("signals", "SIGINT or SIGTERM at a random time", f"exit within {SECONDS:.0f} s, resume command printed", 3, 100,
        stop, phases=PHASES),
]  # fmt: skip
