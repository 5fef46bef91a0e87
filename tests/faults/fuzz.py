"""Input that no one would give, and input that someone will: options, values, and the files of a results folder."""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import json
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

SECONDS = 120
_FILES = 10  # one case in so many is of files

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
    """Words for a command, and of which a complaint must name at least one each: fields by their names, or words."""

    words: list[str]
    keys: list[str]
    misspelled: bool = False


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
        wrong, _ = draw(misspelled([option(name) for name in [*fields, "preset", "out", "dry_run", "force_new"]]))
        return Given([wrong, *draw(st.lists(st.sampled_from(["3", "x"]), max_size=1))], [wrong], True)
    if kind == "preset":
        word = draw(st.one_of(_WORDS, misspelled([f"--{name}" for name in presets]).map(lambda pair: pair[0][2:])))
        return Given(["--preset", word], ["preset"])
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
        return ""
    lines = [line for line in err.splitlines() if line.strip()]
    if len(lines) != 1:
        return f"{shown!r}: {len(lines)} lines: {err[:300]}"
    said = lines[0].replace("-", "_")
    one_of_several = [key.removesuffix("s") for key in given_.keys if key in fields]  # "activation 'x' is not one of"
    names = [*given_.keys, *one_of_several, *(word for word in given_.words if word.startswith("-"))]
    whole = [" ".join(name.split("=")[0].lstrip("-").split()).replace("-", "_") for name in names]
    literal = [word for word in given_.words if not word.strip("-") and word and f" {word}" in lines[0]]
    if not literal and not any(name and name[:40] in said for name in whole) and any(map(str.strip, given_.keys)):
        return f"{shown!r}: names none of {given_.keys}: {lines[0][:300]}"
    known = [option(name) for name in [*fields, "preset", "out", "dry_run", "force_new", "help"]]
    if given_.misspelled and "unknown option" in said and difflib.get_close_matches(given_.keys[0], known, 1):
        meant = re.search(r"did you mean (--[a-z0-9-]+)\?", lines[0])
        if not meant or meant[1] not in known:
            return f"{shown!r}: does not name the nearest: {lines[0][:300]}"
    return ""


class TooLong(Exception):
    """A command line took longer than anyone waits for a plan."""


def _late(number: int, frame: Any) -> None:
    raise TooLong


def _options(module: str, count: int, first: int, out: str) -> Iterator[tuple[str, float]]:
    """In a process of its own: as many command lines, and what was wrong with each."""
    import jax

    study = importlib.import_module(module)
    fields = [field.name for field in dataclasses.fields(study.Config)]
    lines: list[Given] = []

    @seed(first)
    @settings(max_examples=count, phases=[Phase.generate], database=None, deadline=None,
              suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(command_lines(study.Config, list(study.PRESETS)))
    def draw(line: Given) -> None:
        lines.append(line)

    draw()
    signal.signal(signal.SIGALRM, _late)
    for number, line in enumerate((lines * count)[:count]):
        start = time.monotonic()
        signal.alarm(SECONDS)
        more = [] if "--out" in " ".join(line.words) else ["--out", out]
        ended, err = called(module, [*more, "--dry-run", *line.words])
        signal.alarm(0)
        yield judged(line, fields, ended, err), time.monotonic() - start
        if number % 20 == 19:
            jax.clear_caches()


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
) -> Iterator[tuple[str, float]]:
    """In a process of its own: a finished folder with one file spoiled, and the command run again."""
    called(module, [*words, "--dry-run"])
    for number in range(count):
        start = time.monotonic()
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(whole.folder, out)
        what = spoil(random.Random(f"{first} {number}"), out)
        before = sorted(p.name for p in out.parent.iterdir())
        ended, err = called(module, words)
        wrong = ""
        if "Traceback (most" in err or ended not in (0, 2):
            wrong = f"ended with {ended}: {err.strip()[-300:]}"
        elif ended == 2 and (err.count("\n") != 1 or str(out) not in err):
            wrong = f"does not name the folder in one sentence: {err[:300]}"
        elif ended == 0:
            wrong = folders.differences(out, whole)
        elif before != sorted(p.name for p in out.parent.iterdir()):
            wrong = "something was made outside of the folder"
        yield f"{what}: {wrong}" if wrong else "", time.monotonic() - start
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
        arguments: tuple = (study.module, count, first, str(place / "none"))
        if kind == "file":
            arguments = (study.module, words, bench.oracle(study), out, files, first)
        try:
            for n, (wrong, seconds) in enumerate(processes.in_one(work, arguments, place / "streams")):
                yield Case(f"{kind} {n}", wrong, seconds)
        except RuntimeError as error:
            yield Case(f"{kind}s", str(error), 0.0)


ROWS = [
    Row("fuzz", "fuzzed options, values and files", "no traceback; names the key and the nearest valid one", 100, 1000,
        inputs),
]  # fmt: skip
