"""What a results folder holds, how it differs from an uninterrupted run's, and whether anything in it is torn."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
import shutil
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tests.faults import processes
from tests.faults.processes import Running
from tests.faults.studies import Study

PHASES = ("before the folder", "chunks", "results and report")

_CLOCK = "clock.npz"  # beside the states of a search; its speed then stands in the report
_TIMES = {"command", "seconds", "chunks"}  # of provenance.json; chunks: how many were found finished


class Oracle(NamedTuple):
    """What an uninterrupted run leaves.

    Attributes:
      folder: of the run.
      files: digest by name as `digests` says, the same in two uninterrupted runs.
      seconds: how long a forked run takes, with compiled programs.
      events: names of its writes in order.
      lengths: seconds of each of `PHASES`.
    """

    folder: Path
    files: dict[str, str]
    seconds: float
    events: tuple[str, ...]
    lengths: tuple[float, ...] = (0.0, 0.0, 0.0)


def reached(folder: Path) -> int:
    """How far a run has come: the number of its phase, or 3 where the folder is complete."""
    if not (folder / "manifest.json").exists():
        return 0
    if not any(folder.glob("results.nc")) and not any(folder.glob(".results.nc*")):
        return 1
    try:
        return 3 if json.loads((folder / "manifest.json").read_text())["complete"] else 2
    except (ValueError, KeyError, OSError):
        return 2


def phases(events: Sequence[str]) -> list[range]:
    """Numbers of the events of each phase."""
    first = next(n for n, event in enumerate(events) if event.startswith("rename manifest.json"))
    second = next(n for n, event in enumerate(events) if "results.nc" in event)
    return [range(first), range(first, second), range(second, len(events))]


def names(folder: Path) -> list[str]:
    """Files that a user sees in a folder: no lock, nothing hidden, nothing set aside."""
    found = [p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()]
    return sorted(n for n in found if n != "lock" and "/." not in f"/{n}" and ".damaged-" not in n)


def digests(folder: Path) -> dict[str, str]:
    """`digest` by file; "" of a file that cannot be read as what it should be."""
    found = {}
    for name in names(folder):
        try:
            found[name] = digest(folder, name)
        except (ValueError, KeyError, TypeError, AttributeError, OSError):
            found[name] = ""
    return found


def digest(folder: Path, name: str) -> str:
    """SHA-256 of a file, apart from its times, the command of its run, and how a netCDF file lies in its bytes.

    Of the manifest counts its identity, of a search's clock the names. The report of a study with such clocks has a row
    of speeds, which says "wall seconds" in report.md, where the other rows are compared.
    """
    from nnjax import results

    path = folder / name
    if name == "results.nc":
        return results.digest(results.read_tree(path))
    content = path.read_bytes()
    if name == "report.md":
        content = re.sub(rb"(?m)^Made by `.*?: [\d,]+ s running(.*), [\d,]+ s compiling", rb"Made by\1", content)
        content = re.sub(rb"(?m)^\|.*wall seconds.*\n", b"", content)
    elif name == "report.txt" and any((folder / "chunks").rglob(_CLOCK)):
        content = content[-1:]
    elif name == "provenance.json":
        made = {key: value for key, value in json.loads(content).items() if key not in _TIMES}
        content = json.dumps(made, sort_keys=True).encode()
    elif name == "manifest.json":
        manifest = json.loads(content)
        content = json.dumps([manifest["identity"], manifest["complete"]], sort_keys=True).encode()
    elif path.name == _CLOCK:
        content = json.dumps(sorted(results.read_arrays(path))).encode()
    return hashlib.sha256(content).hexdigest()


def oracle(study: Study, work: Path) -> Oracle:
    """Two uninterrupted runs of a study, made where they are not there yet; the second is timed and its writes logged.

    Raises:
      RuntimeError: the study does not run as it is, or its two runs disagree about a file.
    """
    folders = [work / study.name / name for name in ("first", "second")]
    log = work / study.name / "events"
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
        log.unlink(missing_ok=True)
        plan = {"root": str(folder), "log": str(log)}
        done = Running(study.module, processes.command(study, folder), work / study.name / "streams", plan).wait()
        if done.code or not (folder / "results.nc").exists():
            raise RuntimeError(f"{study.name} ends with {done.code} where nothing is done to it: {done.said()}")
    from tests.faults.injection import read_log

    first, second = map(digests, folders)
    if wrong := disagreement(first, second):
        raise RuntimeError(f"two uninterrupted runs of {study.name} disagree: {wrong}")
    times, events = zip(*read_log(log), strict=True)
    starts = [done.ended - done.seconds, *(times[numbers[0]] for numbers in phases(events)[1:]), done.ended]
    lengths = tuple(late - soon for soon, late in itertools.pairwise(starts))
    return Oracle(folders[1], first, done.seconds, events, lengths)


def disagreement(files: dict[str, str], others: dict[str, str]) -> str:
    """Which files the second of two folders has not, has otherwise, or has too many, by their digests; or nothing."""
    missing = sorted(files.keys() - others.keys())
    different = sorted(name for name, value in files.items() if others.get(name, value) != value or not value)
    more = sorted(others.keys() - files.keys())
    some = (("missing", missing), ("different", different), ("too many", more))
    return "; ".join(f"{word} {', '.join(names[:4])}" for word, names in some if names)


def differences(folder: Path, whole: Oracle, *, hidden: bool = False, excused: Collection[str] = ()) -> str:
    """What a finished folder has otherwise than an uninterrupted run's, or nothing; it may have ``hidden`` files."""
    manifest = json.loads((folder / "manifest.json").read_text())
    if manifest["complete"] is not True:
        return "the manifest does not say complete"
    asked, found = ({n: d for n, d in some.items() if n not in excused} for some in (whole.files, digests(folder)))
    said = [disagreement(asked, found)]
    entered = {name: entry["sha256"] for name, entry in manifest["files"].items()}
    false = [name for name in whole.files if name != "manifest.json" and (folder / name).is_file()
             and hashlib.sha256((folder / name).read_bytes()).hexdigest() != entered.get(name)]  # fmt: skip
    if false:
        said.append(f"not as entered {', '.join(sorted(false)[:4])}")
    left = sorted(p.name for p in folder.rglob(".*") if p.is_file())
    if left and not hidden:
        said.append(f"left over {', '.join(left[:4])}")
    return "; ".join(filter(None, said))


def torn(folder: Path, whole: Oracle) -> str:
    """Which files of an interrupted folder are neither whole nor hidden, or nothing."""
    if not (folder / "manifest.json").exists():
        early = names(folder)  # the manifest is the first of all files
        return f"there before the manifest: {', '.join(early[:4])}" if early else ""
    try:
        entered: dict[str, Any] = json.loads((folder / "manifest.json").read_text())["files"]
    except (ValueError, KeyError) as error:
        return f"manifest.json is torn ({error})"
    bad = []
    for name in names(folder):
        if name == "manifest.json":
            continue
        content = (folder / name).read_bytes()
        as_entered = hashlib.sha256(content).hexdigest() == entered.get(name, {}).get("sha256")
        if not as_entered and not _as_whole(folder, name, whole) and not _sound(folder / name, content):
            bad.append(name)
    return f"torn: {', '.join(bad)}" if bad else ""


def _as_whole(folder: Path, name: str, whole: Oracle) -> bool:
    try:
        return name in whole.files and digest(folder, name) == whole.files[name]
    except (ValueError, KeyError, TypeError, AttributeError, OSError):
        return False


def _sound(path: Path, content: bytes) -> bool:
    """Whether a file that is not entered yet, and differs from run to run, is whole all the same."""
    from nnjax import results

    try:
        if path.suffix == ".json":
            json.loads(content)
        elif path.suffix == ".nc":
            results.read_tree(path)
        elif path.suffix == ".npz":
            results.read_arrays(path)
        elif path.suffix in (".md", ".txt"):
            return content.endswith(b"\n")
        elif path.suffix == ".svg":
            return content.endswith(b"</svg>\n")
        else:
            return False
    except (ValueError, OSError):
        return False
    return True
