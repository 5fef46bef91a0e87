"""What a results folder holds, how it differs from an uninterrupted run's, and whether anything in it is torn."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple

from tests.faults import processes
from tests.faults.processes import Running
from tests.faults.studies import Study


class Oracle(NamedTuple):
    """What an uninterrupted run leaves.

    Attributes:
      folder: of the run.
      files: digest by name, of those files that two uninterrupted runs have in common.
      seconds: how long a forked run takes, with compiled programs.
      events: names of its writes in order.
    """

    folder: Path
    files: dict[str, str]
    seconds: float
    events: tuple[str, ...]


def names(folder: Path) -> list[str]:
    """Files that a user sees in a folder: no lock, nothing hidden, nothing set aside."""
    found = [p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()]
    return sorted(n for n in found if n != "lock" and "/." not in f"/{n}" and ".damaged-" not in n)


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 by file; of results.nc that of its names and values, whatever the bytes."""
    from nnjax import results

    found = {}
    for name in names(folder):
        path = folder / name
        if name == "results.nc":
            found[name] = results.digest(results.read_tree(path))
        else:
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def oracle(study: Study, work: Path) -> Oracle:
    """Two uninterrupted runs of a study, made where they are not there yet; the second is timed and its writes logged.

    Raises:
      RuntimeError: the study does not run as it is, or its two runs disagree about the results.
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
    if first["results.nc"] != second["results.nc"]:
        raise RuntimeError(f"two uninterrupted runs of {study.name} have different results")
    common = {name: value for name, value in first.items() if second.get(name) == value}
    return Oracle(folders[1], common, done.seconds, tuple(event for _, event in read_log(log)))


def differences(folder: Path, whole: Oracle) -> str:
    """What a finished folder has otherwise than an uninterrupted run's, or nothing."""
    manifest = json.loads((folder / "manifest.json").read_text())
    if manifest["complete"] is not True:
        return "the manifest does not say complete"
    found = digests(folder)
    missing = sorted(whole.files.keys() - found.keys())
    other = sorted(name for name, value in whole.files.items() if found.get(name, value) != value)
    torn = sorted(p.name for p in folder.rglob(".*") if p.is_file())
    said = [f"{word} {', '.join(some[:4])}" for word, some in
            (("missing", missing), ("different", other), ("left over", torn)) if some]  # fmt: skip
    return "; ".join(said)


def torn(folder: Path, whole: Oracle) -> str:
    """Which files of an interrupted folder are neither whole nor hidden, or nothing."""
    if not (folder / "manifest.json").exists():
        return ""
    try:
        entered: dict[str, Any] = json.loads((folder / "manifest.json").read_text())["files"]
    except (ValueError, KeyError) as error:
        return f"manifest.json is torn ({error})"
    bad = []
    for name in names(folder):
        if name == "manifest.json":
            continue
        content = (folder / name).read_bytes()
        expected = {entered.get(name, {}).get("sha256"), None if name == "results.nc" else whole.files.get(name)}
        whole_file = hashlib.sha256(content).hexdigest() in expected
        if not whole_file and not _sound(folder / name, content):
            bad.append(name)
    return f"torn: {', '.join(bad)}" if bad else ""


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
