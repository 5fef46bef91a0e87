"""Input that no one would give, and input that someone will: options, values, and the files of a results folder."""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import json
import math
import random
import re
import shutil
import signal
import time
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from tests.faults import folders, processes
from tests.faults.bench import Bench, Case, Row
from tests.faults.folders import Oracle
from tests.faults.studies import Study
from tests.faults.writes import called

SECONDS = 120  # on the processor
OPTIONS = ("preset", "out", "dry_run", "force_new", "hosts")
_FILES = 10  # one case in so many is of files
_RUNS = 10  # one line in so many whose plan is accepted is run as well, where the plan says that it is short:
_RUN_SECONDS, _RUN_MIB = 20.0, 1024.0
_PROGRESS = re.compile(r".+: compile [\d.]+ s, run [\d.]+ s")

_INTEGERS = st.one_of(
    st.integers(-3, 40), st.sampled_from([-(2**63), -1, 0, 2**31, 2**63, 10**30]), st.integers(2**31, 10**12)
).map(str)
_NUMBERS = st.one_of(
    st.floats(-2, 2).map(repr), st.floats(allow_nan=True, allow_infinity=True).map(repr),
    st.sampled_from(["0", "-0.0", "1e-320", "1e308", "nan", "inf", "-inf", "1e400"]),
)  # fmt: skip
_WORDS = st.one_of(
    st.sampled_from([
        "", " ", "None", "True", "false", "many", "0x10", "1_000", "1,5", "½", "٣", "1e", "--", "-", "../..",
        "/etc/passwd", "a" * 3000, "<b>x</b>", "[red]x[/red]", "%s%n", "\x1b[31m", "line\nbreak", "NaN%", "digits",
        "tanh", "mnits",
    ]),
    st.text(st.characters(blacklist_categories=("Cs",), blacklist_characters="\0"), max_size=12),
)  # fmt: skip


def option(name: str) -> str:
    """A field as an option."""
    return f"--{name.replace('_', '-')}"


def values(kind: Any) -> st.SearchStrategy[list[str]]:
    """Words for a field of a type: some right, some wrong, some of another type."""
    inner = typing.get_args(kind)
    if typing.get_origin(kind) is tuple:
        return st.lists(_mixed(inner[0]), max_size=4)
    return st.one_of(_mixed(kind).map(lambda word: [word]), st.lists(_mixed(kind), max_size=2))


def _mixed(kind: Any) -> st.SearchStrategy[str]:
    right = {int: _INTEGERS, float: _NUMBERS}.get(kind, _WORDS)
    return st.one_of(right, right, _INTEGERS, _NUMBERS, _WORDS)


@st.composite
def misspelled(draw: Any, names: Sequence[str]) -> tuple[str, str]:
    """An option with a letter dropped, doubled, changed or swapped, and the option that was meant."""
    meant = draw(st.sampled_from(names))
    place = draw(st.integers(2, len(meant) - 1))
    letter = draw(st.sampled_from("abcxyz-"))
    wrong = draw(st.sampled_from([
        meant[:place] + meant[place + 1 :],
        meant[:place] + letter + meant[place:],
        meant[:place] + letter + meant[place + 1 :],
        meant[: place - 1] + meant[place] + meant[place - 1] + meant[place + 1 :] if place > 2 else meant + "s",
    ]))  # fmt: skip
    return wrong, meant


class Given(typing.NamedTuple):
    """Words for a command, and of which a complaint must name at least one: fields by their names, or words.

    Where the first key is misspelled, ``meant`` is what it should be, and ``presets`` are all where it is no option.
    """

    words: list[str]
    keys: list[str]
    meant: str = ""
    presets: tuple[str, ...] = ()


_KINDS = ("value", "value", "value", "values", "unknown", "preset", "stray", "missing", "twice")


@st.composite
def command_lines(draw: Any, config: Any, presets: Sequence[str]) -> Given:
    """A command line with one to three things that may be wrong."""
    hints = typing.get_type_hints(config)
    fields = [field.name for field in dataclasses.fields(config)]
    kind = draw(st.sampled_from([*_KINDS]))
    if kind in ("value", "values"):
        some = draw(st.lists(st.sampled_from(fields), min_size=1, max_size=1 if kind == "value" else 3, unique=True))
        words: list[str] = []
        for name in some:
            given_ = draw(values(hints[name]))
            joined = len(given_) == 1 and draw(st.booleans())
            words += [f"{option(name)}={given_[0]}"] if joined else [option(name), *given_]
        return Given(words, some)
    if kind == "unknown":
        wrong, meant = draw(misspelled([option(name) for name in [*fields, *OPTIONS]]))
        return Given([wrong, *draw(st.lists(st.sampled_from(["3", "x"]), max_size=1))], [wrong], meant)
    if kind == "preset":
        near = misspelled([f"--{name}" for name in presets]).map(lambda pair: (pair[0][2:], pair[1][2:]))
        word, meant = draw(st.one_of(_WORDS.map(lambda word: (word, presets[0])), near))
        words = [f"--preset={word}"] if word.startswith("-") else ["--preset", word]
        return Given(words, [word], meant, tuple(presets))
    if kind == "stray":
        word = draw(_WORDS)
        return Given([word], [word])
    name = draw(st.sampled_from([*fields, "preset", "out"]))
    return Given([option(name)] if kind == "missing" else [option(name), "3", option(name), "4"], [name])


def judged(given_: Given, fields: Sequence[str], ended: int, err: str) -> str:
    """What is wrong with how a command took its words, or nothing."""
    shown = " ".join(given_.words)[:200]
    if "Traceback (most" in err or ended not in (0, 2):
        return f"{shown!r} ended with {ended}: {err.strip()[-300:]}"
    if ended == 0:
        return f"{shown!r} was accepted" if given_.meant and given_.keys[0] not in _known(given_, fields) else ""
    lines = complaint(err)
    if len(lines) != 1:
        return f"{shown!r}: {len(lines)} lines: {err[:300]}"
    if not _named(given_, fields, lines[0]):
        return f"{shown!r}: names none of {given_.keys}: {lines[0][:300]}"
    if given_.meant and not _nearest(given_, fields, lines[0]):
        return f"{shown!r}: does not name the nearest: {lines[0][:300]}"
    return ""


def complaint(err: str) -> list[str]:
    """The lines of a command's errors, without those that say how far it had come."""
    return [line for line in err.splitlines() if line.strip() and not _PROGRESS.fullmatch(line)]


def _known(given_: Given, fields: Sequence[str]) -> list[str]:
    """What the misspelled word might have been: the presets where one is misspelled, else every option."""
    return list(given_.presets) or [option(name) for name in [*fields, *OPTIONS, "help"]]


def _flat(text: str) -> str:
    """Options as the fields that they are, with single spaces."""
    return " ".join(re.sub(r"(?<=\w)-(?=\w)", "_", text).split())


def _named(given_: Given, fields: Sequence[str], line: str) -> bool:
    """Whether a complaint names a field as a whole word, or what stands for none as it was given."""
    said = _flat(line)
    options = [_flat(word.split("=")[0].lstrip("-")) for word in given_.words if word.startswith("--")]
    known = {*fields, *OPTIONS}
    names = {name for name in [*given_.keys, *options] if name in known}
    names |= {name.removesuffix("s") for name in names} - (known - names)  # "activation 'x' is not one of"
    if any(re.search(rf"(?<!\w){re.escape(name)}(?!\w)", said) for name in names):
        return True
    if any(f"unknown option {word.split('=')[0]}" in line for word in given_.words if word.startswith("-")):
        return True
    others = [key for key in given_.keys if key not in known]
    if given_.presets and f"unknown preset {_flat(given_.keys[0])}"[:60] in said:
        return True
    # Words that belong to no option, of which the start may have to do.
    return not any(map(str.strip, given_.keys)) or any(
        f" {key}" in line or (_flat(key) and _flat(key.split("=")[0].lstrip("-"))[:40] in said) for key in others
    )


def _nearest(given_: Given, fields: Sequence[str], line: str) -> bool:
    """Whether a complaint proposes what was meant, or the nearest there is, where anything is near."""
    word, known = given_.keys[0], _known(given_, fields)
    if word in known:
        return True
    if f"unknown {'preset' if given_.presets else 'option'} " not in line:
        return False
    proposed = re.search(r"did you mean ([^ ?]+)\?", line)
    near = difflib.get_close_matches(word, known, 1)
    return proposed[1] in (given_.meant, *near) if proposed else not near


class TooLong(BaseException):
    """A command line took longer than anyone waits for a plan."""


def _late(number: int, frame: Any) -> None:
    raise TooLong


def timed(seconds: float, module: str, words: list[str]) -> tuple[int, str, str]:
    """`called`, with a limit of seconds on the processor, of which a machine that is busy otherwise takes none."""
    signal.signal(signal.SIGPROF, _late)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        return called(module, words)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def drawn(config: Any, presets: Sequence[str], count: int, first: int) -> list[Given]:
    """As many command lines, no two with the same words.

    Raises:
      RuntimeError: so many could not be drawn.
    """
    found: dict[tuple[str, ...], Given] = {}
    for more in range(20):
        if len(found) >= count:
            return list(found.values())[:count]

        @seed(first + more)
        @settings(max_examples=count, phases=[Phase.generate], database=None, deadline=None,
                  suppress_health_check=list(HealthCheck))  # fmt: skip
        @given(command_lines(config, presets))
        def draw(line: Given) -> None:
            found.setdefault(tuple(line.words), line)

        draw()
    if len(found) < count:
        raise RuntimeError(f"only {len(found)} of {count} command lines could be drawn")
    return list(found.values())[:count]


def without(options: Sequence[str], words: Sequence[str]) -> list[str]:
    """Options, apart from those that ``words`` give too."""
    given_ = {word.split("=")[0].replace("_", "-") for word in words if word.startswith("--")}
    kept, keep = [], True
    for word in options:
        keep = word not in given_ if word.startswith("--") else keep
        kept += [word] if keep else []
    return kept


def estimate(out: str) -> tuple[float, float]:
    """Seconds beside compiling, and MiB, that a plan says it takes; infinitely much where it says nothing."""
    pattern = r"^in all about ([\d.,]+) s \(([\d.,]+) s compiling.*?([\d.,]+) MiB of memory"
    found = re.search(pattern, out, re.MULTILINE)
    if not found:
        return math.inf, math.inf
    total, compiling, memory = (float(text.replace(",", "")) for text in found.groups())
    return total - compiling, memory


def _options(study: Study, count: int, first: int, place: Path) -> Iterator[tuple[str, str, float]]:
    """In a process of its own: as many command lines, and what was wrong with each and how far it went.

    Of every ten lines whose plan is accepted the first is run as well, with the smallest options beside it.
    """
    import jax

    module = importlib.import_module(study.module)
    fields = [field.name for field in dataclasses.fields(module.Config)]
    due = _RUNS - 1
    for number, line in enumerate(drawn(module.Config, list(module.PRESETS), count, first)):
        start = time.monotonic()
        more = [] if "--out" in " ".join(line.words) else ["--out", str(place / "none")]
        ended, _, err = timed(SECONDS, study.module, [*more, "--dry-run", *line.words])
        wrong, where = judged(line, fields, ended, err), "refused" if ended else "planned"
        due += ended == 0 and not wrong and bool(more)
        if due >= _RUNS and ended == 0 and not wrong and more:
            wrong, where = _run(study, line, fields, place / "run")
            due = 0 if where == "run" else due
        yield wrong, where, time.monotonic() - start
        if number % 20 == 19:
            jax.clear_caches()


def _run(study: Study, line: Given, fields: Sequence[str], out: Path) -> tuple[str, str]:
    """Run a line whose plan was accepted, where that is short; what was wrong, and whether it was run."""
    words = [*without(study.options, line.words), *line.words]
    ended, said, err = timed(SECONDS, study.module, ["--out", str(out), "--dry-run", *words])
    seconds, mib = estimate(said)
    if ended or seconds > _RUN_SECONDS or mib > _RUN_MIB:
        return judged(line, fields, ended, err), "planned"
    shutil.rmtree(out, ignore_errors=True)
    ended, _, err = timed(SECONDS, study.module, ["--out", str(out), *words])
    shutil.rmtree(out, ignore_errors=True)
    if "TooLong" in err:  # the plan was wrong about its seconds, which is another matter
        return "", "planned"
    wrong = judged(line, fields, ended, err)
    return f"in its run {wrong}" if wrong else "", "run"


# Files of a results folder


def spoil(rng: random.Random, folder: Path) -> str:
    """Change one file of a finished folder into something else; says which and how."""
    names = [name for name in folders.names(folder) if "chunks/" not in name]
    name = rng.choice(["manifest.json", "manifest.json", "manifest.json", "lock", *names])
    path = folder / name
    how = rng.choice(["bytes", "empty", "gone", "folder", "json", "json", "flip"])
    content = path.read_bytes()
    if how == "json" and name.endswith(".json"):
        path.write_text(_other_json(rng, json.loads(content)))
    elif how == "gone":
        path.unlink()
    elif how == "folder":
        path.unlink()
        path.mkdir()
    elif how == "flip" and content:
        changed = bytearray(content)
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
        path.write_bytes(changed)
    else:
        path.write_bytes(b"" if how == "empty" else rng.randbytes(rng.randrange(1, 400)))
    return f"{name} ({how})"


def _other_json(rng: random.Random, value: Any) -> str:
    """The same JSON with one value somewhere replaced or taken out, or JSON of another shape."""
    strange = [None, -1, 1e999, "x" * 2000, [], {}, {"sha256": 1}, True, "../../outside", ["a"]]
    if rng.random() < 0.2:
        return rng.choice(["null", "[]", "[" * 100_000, '{"identity": ' * 3000, "NaN", '"text"', "{}"])
    node, key = value, rng.choice(list(value))
    while isinstance(node[key], dict) and node[key] and rng.random() < 0.8:
        node, key = node[key], rng.choice(list(node[key]))
    how = rng.randrange(3)
    if how == 0:
        del node[key]
    elif how == 1:
        node[key] = rng.choice(strange)
    else:
        node[rng.choice(["../../outside", "/etc/passwd", "a\n", "", key + "x"])] = node.pop(key)
    return json.dumps(value)


def _files(
    module: str, words: list[str], whole: Oracle, out: Path, count: int, first: int
) -> Iterator[tuple[str, str, float]]:
    """In a process of its own: a finished folder with one file spoiled, and the command run again."""
    called(module, [*words, "--dry-run"])
    for number in range(count):
        start = time.monotonic()
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(whole.folder, out)
        what = spoil(random.Random(f"{first} {number}"), out)
        before = sorted(p.name for p in out.parent.iterdir())
        ended, _, err = called(module, words)
        wrong = ""
        if "Traceback (most" in err or ended not in (0, 2):
            wrong = f"ended with {ended}: {err.strip()[-300:]}"
        elif ended == 2 and (len(complaint(err)) != 1 or str(out) not in complaint(err)[0]):
            wrong = f"does not name the folder in one sentence: {err[:300]}"
        elif ended == 0:
            wrong = folders.differences(out, whole)
        elif before != sorted(p.name for p in out.parent.iterdir()):
            wrong = "something was made outside of the folder"
        yield f"{what}: {wrong}" if wrong else "", "spoiled file", time.monotonic() - start
    shutil.rmtree(out, ignore_errors=True)


def inputs(bench: Bench, study: Study, numbers: Sequence[int], done: set[str]) -> Iterator[Case]:
    """Command lines drawn from the study's own Config and the command's options; and spoiled files, one in ten."""
    place = bench.place("fuzz", study)
    count, files = len(numbers) - len(numbers) // _FILES, len(numbers) // _FILES
    first = bench.rng("fuzz", study, 0).randrange(2**31)
    out = place / "out"
    words = processes.command(study, out)
    for kind, number in (("line", count), ("file", files)):
        if {f"{kind} {n}" for n in range(number)} <= done:
            continue
        work: Any = _options if kind == "line" else _files
        arguments: tuple = (study, count, first, place)
        if kind == "file":
            arguments = (study.module, words, bench.oracle(study), out, files, first)
        try:
            for n, (wrong, where, seconds) in enumerate(processes.in_one(work, arguments, place / "streams")):
                yield Case(f"{kind} {n}", wrong, seconds, where)
        except RuntimeError as error:
            yield Case(f"{kind}s", str(error), 0.0)


ROWS = [
    Row("fuzz", "fuzzed options, values and files",
        "no traceback, not even in the run of one accepted line in ten; names the key and the nearest valid one", 100,
        1000, inputs),
]  # fmt: skip
