"""What a process suffers: installed before a study starts, in place of the operating system's calls that write.

Only files below one folder count. Every call is an event with a name that is the same in every run, such as
``rename manifest.json (1st after chunks/iris/51.npz)``, so that runs one after the other can each stop at the first
event that none stopped at before. Nothing of nnjax is imported here: a process without faults pays nothing.
"""

from __future__ import annotations

import builtins
import errno
import io
import json
import os
import re
import signal
import stat
import time
from pathlib import Path
from typing import Any

PLAN: dict[str, Any] = {}


def install(plan: dict[str, Any]) -> None:
    """Let this process suffer ``plan``.

    ``root``: the folder that is watched. ``log``: file to which events are appended. ``kill``: SIGKILL after the first
    event that is not in the file ``covered``, whose name is then added to it. ``error``: the name of an errno that the
    first event not in ``covered`` fails with; with ``lasting`` all later ones fail too. ``pause``: number of the event
    after which to wait until the file ``go`` exists. ``lanes``, ``memory``: see `tests.faults.lanes` and `memory`.
    """
    PLAN.clear()
    PLAN.update(plan)
    if "root" in plan:
        Watch(plan).install()


def clean(name: str) -> str:
    """A file's name without process numbers, and figures all as one: they are written by the same few lines."""
    name = re.sub(r"\.\d+\.tmp", ".tmp", name)
    name = re.sub(r"\.probe\.\d+", ".probe", name)
    name = re.sub(r"damaged-\d+", "damaged", name)
    return re.sub(r"figures/(\.?)[^/]*\.(png|svg)", r"figures/\1any.\2", name)


class Watch:
    """Stands in for open, write, truncate, fsync, rename, mkdir and unlink. What is written in C goes by unseen."""

    def __init__(self, plan: dict[str, Any]):
        self.plan, self.root = plan, os.path.realpath(plan["root"])
        self.number, self.failing, self.quiet = 0, False, False
        self.last, self.since = "the start", 0
        self.opened: dict[int, str] = {}
        self.covered = set(Path(plan["covered"]).read_text().splitlines()) if "covered" in plan else set()

    def install(self) -> None:
        self.real = {"open": io.open, "os.open": os.open, **{name: getattr(os, name) for name in self._os}}
        io.open = builtins.open = self.open  # type: ignore[assignment]
        os.open = self.os_open  # type: ignore[assignment]
        for name in self._os:
            setattr(os, name, getattr(self, name))
        import fcntl

        self.real["flock"] = fcntl.flock
        fcntl.flock = self.flock

    def uninstall(self) -> None:
        import fcntl

        io.open = builtins.open = self.real["open"]  # type: ignore[assignment]
        os.open, fcntl.flock = self.real["os.open"], self.real["flock"]
        for name in self._os:
            setattr(os, name, self.real[name])

    _os = ("fsync", "replace", "mkdir", "unlink")

    # Events

    def inside(self, path: Any) -> str | None:
        try:
            whole = os.path.realpath(os.fspath(path))
        except TypeError:
            return None
        return os.path.relpath(whole, self.root) if f"{whole}/".startswith(f"{self.root}/") else None

    def event(self, what: str, name: str) -> str:
        name = clean(name)
        if "manifest.json" in name:
            number = f" ({self.since + 1}. after {self.last})"
        else:
            number = ""
        if what == "rename" and "manifest.json" in name:
            self.since += 1
        elif what == "rename":
            self.last, self.since = name, 0
        return f"{what} {name}{number}"

    def before(self, event: str) -> None:
        """An error comes in place of the call."""
        code = self.plan.get("error")
        if self.quiet or not code:
            return
        if not self.failing and event not in self.covered:
            self._note(event)
            self.failing = True
            self._fail(code)
        elif self.failing and self.plan.get("lasting") and event.split()[0] in ("open", "write", "mkdir"):
            self._fail(code)

    def _fail(self, code: str) -> None:
        number = getattr(errno, code)
        raise OSError(number, os.strerror(number))

    def after(self, event: str) -> None:
        """A kill or a pause comes after the call, which is before the next."""
        if self.quiet:
            return
        self.number += 1
        if "log" in self.plan:
            self._append(self.plan["log"], f"{time.monotonic():.4f} {event}")
        if "kill" in self.plan and event not in self.covered:
            self._note(event)
            os.kill(os.getpid(), signal.SIGKILL)
        if self.number == self.plan.get("pause"):
            Path(self.plan["paused"]).touch()
            while not os.path.exists(self.plan["go"]):
                time.sleep(0.005)

    def _note(self, key: str) -> None:
        self.covered.add(key)
        if "covered" in self.plan:
            self._append(self.plan["covered"], key)

    def _append(self, path: str, line: str) -> None:
        self.quiet = True
        with self.real["open"](path, "a") as file:
            file.write(line + "\n")
        self.quiet = False

    # Calls

    def open(self, file: Any, mode: str = "r", *rest: Any, **options: Any) -> Any:
        if not set(mode) & set("wax+"):
            return self.real["open"](file, mode, *rest, **options)
        if isinstance(file, int):
            return self._opened(file, mode, *rest, **options)
        name = self.inside(file)
        if name is None:
            return self.real["open"](file, mode, *rest, **options)
        event = self.event("open", name)
        self.before(event)
        made = _File(self, name, file, "w") if mode == "wb" else self.real["open"](file, mode, *rest, **options)
        self.after(event)
        return made

    def os_open(self, path: Any, flags: int, *rest: Any, **options: Any) -> int:
        """What makes files without `open`: locks, and touch."""
        name = self.inside(path) if flags & os.O_CREAT and not options.get("dir_fd") else None
        if name is None:
            return self.real["os.open"](path, flags, *rest, **options)
        event = self.event("open", name)
        self.before(event)
        descriptor = self.real["os.open"](path, flags, *rest, **options)
        self.opened[descriptor] = name
        self.after(event)
        return descriptor

    def _opened(self, file: int, mode: str, buffering: int = -1, *rest: Any, **options: Any) -> Any:
        """A file made by `os_open`: its writes are events; as the lock, text to read and append."""
        name = self.opened.pop(file, None)
        if name is None or mode != "a+":
            return self.real["open"](file, mode, buffering, *rest, **options)
        return io.TextIOWrapper(io.BufferedRandom(_File(self, name, file, mode)), *rest, **options)

    def fsync(self, descriptor: Any) -> None:
        number = descriptor if isinstance(descriptor, int) else descriptor.fileno()
        name = self.inside(os.readlink(f"/proc/self/fd/{number}")) if os.path.exists("/proc/self/fd") else "file"
        if name is None:
            return self.real["fsync"](descriptor)
        event = self.event("fsync folder" if stat.S_ISDIR(os.fstat(number).st_mode) else "fsync", name)
        self.before(event)
        self.real["fsync"](descriptor)
        self.after(event)
        return None

    def replace(self, source: Any, target: Any, **options: Any) -> None:
        self._call("replace", "rename", target, source, target, **options)

    def mkdir(self, path: Any, *rest: Any, **options: Any) -> None:
        self._call("mkdir", "mkdir", path, path, *rest, **options)

    def unlink(self, path: Any, **options: Any) -> None:
        self._call("unlink", "unlink", path, path, **options)

    def _call(self, call: str, what: str, path: Any, *arguments: Any, **options: Any) -> None:
        name = self.inside(path)
        if name is None:
            return self.real[call](*arguments, **options)
        event = self.event(what, name)
        self.before(event)
        self.real[call](*arguments, **options)
        self.after(event)
        return None

    def flock(self, *arguments: Any) -> None:
        if "asked" in self.plan:
            self._append(self.plan["asked"], f"{time.monotonic():.4f}")
        self.real["flock"](*arguments)


class _File(io.FileIO):
    """A file whose writes are events; a kill or an error can come when half of the content is out."""

    def __init__(self, watch: Watch, name: str, path: Any, mode: str):
        super().__init__(path, mode)
        self._watch, self._name, self._event = watch, name, watch.event("write", name)

    def truncate(self, size: int | None = None) -> int:
        event = self._watch.event("truncate", self._name)
        self._watch.before(event)
        cut = super().truncate(size)
        self._watch.after(event)
        return cut

    def write(self, content: Any) -> int:
        half = len(content) // 2
        super().write(content[:half])
        self._watch.before(self._event)
        self._watch.after(f"half of {self._event}")
        rest = memoryview(content)[half:]
        while rest:
            rest = rest[super().write(rest) :]
        self._watch.after(self._event)
        return len(content)


def read_log(path: Path) -> list[tuple[float, str]]:
    """Times and names of the events that a process went through."""
    lines = path.read_text().splitlines() if path.exists() else []
    return [(float(line.split(" ", 1)[0]), line.split(" ", 1)[1]) for line in lines]


def dumps(plan: dict[str, Any]) -> str:
    """A plan as text for the environment."""
    return json.dumps(plan, default=str)
