"""The folder of one run: configuration, provenance, chunks, arrays, figures, report.

Every write is atomic: a temporary name in the same folder, flush to disk, rename, flush of the folder, and
only then an entry with its SHA-256 in ``manifest.json``. A chunk whose checksum does not match its entry when a sweep
asks for it is set aside and computed again; one that was written but not entered, by a kill between the two, likewise.
One process owns a folder at a time, by a lock of the operating system that vanishes with its owner, so that a killed
run leaves nothing to clean up.
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import io
import json
import os
import platform
import re
import time
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np

from nnjax.report import Row, markdown_code, markdown_table, markdown_text, print_rows  # noqa: F401  # names of both

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
# What files are called here until they are whole, and the file that a folder is tried with.
_TEMPORARY = re.compile(r"\.(?P<name>.+)\.\d+\.tmp(\.nc)?")


class ResultsError(OSError):
    """A results folder that cannot be used as asked; the message is one sentence for the user."""


# Files


def write_bytes(path: Path, content: bytes) -> str:
    """Put ``content`` at ``path`` atomically; returns its SHA-256 (hexadecimal)."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    _flush_folder(path.parent)
    return hashlib.sha256(content).hexdigest()


def _flush_folder(folder: Path) -> None:
    if not hasattr(os, "O_DIRECTORY"):  # not a POSIX system: folders cannot be opened
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path, value: Any) -> str:
    """Write ``value`` as indented JSON, atomically; returns its SHA-256."""
    return write_bytes(path, (json.dumps(value, indent=2, sort_keys=True, default=str) + "\n").encode())


def write_arrays(path: Path, arrays: Mapping[str, Any]) -> str:
    """Write named arrays as an uncompressed ``.npz`` (no pickle), atomically; returns its SHA-256."""
    buffer = io.BytesIO()
    converted = {name: np.asarray(value) for name, value in arrays.items()}
    for name, value in converted.items():
        if value.dtype.hasobject:
            raise ValueError(f"array {name!r} has dtype object; only numbers, booleans and strings are stored")
    # Member by member, for savez takes some names (file, allow_pickle) as its own arguments. ZipInfo's date
    # is a constant, so equal arrays give equal bytes.
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, value in converted.items():
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                np.lib.format.write_array(member, value, allow_pickle=False)
    return write_bytes(path, buffer.getvalue())


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Read what `write_arrays` wrote. Raises ResultsError where the file is missing or damaged."""
    try:
        # Opened here, for np.load leaves a truncated file open.
        with Path(path).open("rb") as file, np.load(file, allow_pickle=False) as archive:
            _check_ratio(sum(member.file_size for member in archive.zip.infolist()), os.fstat(file.fileno()).st_size)
            return {name: archive[name] for name in archive.files}
    except FileNotFoundError:
        raise ResultsError(f"there is no file {str(path)!r}") from None
    except Exception as error:  # zipfile, zlib, NumPy and the decoder each have their own
        raise ResultsError(f"{str(path)!r} is damaged or not an .npz of plain arrays ({_cause(error)})") from None


def _check_ratio(unpacked: int, packed: int) -> None:
    """Refuse a file that would unpack to far more than it is; those written here are not compressed."""
    if unpacked > max(100 * packed, 2**24):
        raise ValueError(f"{packed:,} bytes would unpack to {unpacked:,}")


def _cause(error: Exception) -> str:
    """The first sentence of a library's message; what follows is advice for its own callers."""
    return str(error).split("\n")[0].split(". ")[0].rstrip(".") or type(error).__name__


def write_tree(path: Path, tree: xr.DataTree) -> str:
    """Write a DataTree as netCDF-4, atomically; returns its SHA-256."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Made in memory: on a full disk HDF5 leaves files behind that it cannot close, over which the process falls.
    content = io.BytesIO()
    tree.to_netcdf(content, engine="h5netcdf")
    return write_bytes(path, content.getvalue())


def read_tree(path: Path) -> xr.DataTree:
    """Read a results file into memory. Raises ResultsError where it is missing or damaged."""
    import xarray as xr

    if not Path(path).is_file():
        raise ResultsError(f"there is no results file {str(path)!r}")
    try:
        with xr.open_datatree(path, engine="h5netcdf") as tree:
            _check_ratio(tree.nbytes, Path(path).stat().st_size)
            return tree.load()
    except Exception as error:
        raise ResultsError(f"{str(path)!r} is damaged or not a netCDF-4 file ({_cause(error)})") from None


def digest(tree: xr.DataTree) -> str:
    """SHA-256 of every name, shape and value of a tree: equal for equal results, whatever the file's bytes."""
    sha = hashlib.sha256()
    for group in sorted(tree.groups):
        dataset = tree[group].to_dataset()
        for name in sorted(str(n) for n in dataset.variables):
            value = np.ascontiguousarray(dataset[name].values)
            sha.update(f"{group}/{name}{dataset[name].dims}{value.shape}{value.dtype.kind}".encode())
            sha.update(str(value.tolist()).encode() if value.dtype.kind in "OUST" else value.tobytes())
    return sha.hexdigest()


# What made a run


def provenance() -> dict[str, Any]:
    """Versions, device, and an allow-list of environment variables: enough to see why two runs differ."""
    import jax

    from nnjax import __version__

    versions = {name: _version(name) for name in ("jax", "jaxlib", "flax", "optax", "numpy", "xarray")}
    devices = jax.devices()
    names = ("JAX_PLATFORMS", "XLA_FLAGS", "OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "JAX_ENABLE_X64")
    return {
        "nnjax": __version__,
        "versions": versions,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "backend": devices[0].platform,
        "device": devices[0].device_kind,
        "devices": len(devices),
        "cores": os.cpu_count(),
        "float64": bool(jax.config.read("jax_enable_x64")),
        "environment": {name: os.environ[name] for name in names if name in os.environ},
    }


def _version(name: str) -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def code_digest(*modules: Any) -> str:
    """SHA-256 (16 digits) of the package's sources, the given modules' and of those beside them that they import.

    It changes when any line of these does, and does not depend on what else is imported in this process. Imports are
    read from the text, also those within functions; what is imported by a name made at run time is not seen.
    """
    files = sorted(Path(__file__).parent.rglob("*.py"))
    for module in modules:
        if getattr(module, "__file__", None):
            files += [file for file in _imported(Path(module.__file__).resolve()) if file not in files]
    sha = hashlib.sha256()
    for file in files:
        sha.update(file.name.encode())
        sha.update(file.read_bytes())
    return sha.hexdigest()[:16]


def _imported(file: Path) -> list[Path]:
    """A source and those in its folder that it imports, that they import, and so on: itself first, then by name."""
    home, found, ahead = file.parent, {file}, [file, file.parent / "__init__.py"]
    while ahead:
        source = ahead.pop()
        if source.is_file():
            found.add(source)
            names = _names_imported(source.read_bytes(), home)
            ahead += [home / f"{name}.py" for name in names if home / f"{name}.py" not in found]
    return [file, *sorted(found - {file})]


def _names_imported(source: bytes, home: Path) -> set[str]:
    """Names of modules in the folder ``home`` that a text may import: alone, relative, or as of packages around it."""
    dotted = []
    try:
        nodes = list(ast.walk(ast.parse(source)))
    except (SyntaxError, ValueError, RecursionError):  # compiled, or not for this Python: nothing more is known
        return set()
    for node in nodes:
        if isinstance(node, ast.Import):
            dotted += [alias.name.split(".") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            start = node.module.split(".") if node.module else []
            dotted += [[*start, alias.name] for alias in node.names]
    return {
        parts[depth]
        for parts in dotted
        for depth in range(len(parts))
        if depth == 0 or tuple(parts[:depth]) == home.parts[-depth:]
    }


def fingerprint(config: Mapping[str, Any], *modules: Any) -> dict[str, Any]:
    """What must be equal for a run to be resumed: configuration, code, jax, and the kind of device."""
    made = provenance()
    return {
        "config": json.loads(json.dumps(dict(config), default=str)),
        "code": code_digest(*modules),
        "jax": made["versions"]["jax"],
        "device": made["device"],
        "devices": made["devices"],
    }


def _differences(old: Any, new: Any, path: str = "") -> Iterator[str]:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for name in sorted({*old, *new}):
            yield from _differences(old.get(name), new.get(name), f"{path}.{name}" if path else name)
    elif old != new:
        yield f"{path} {_short(old)} there, {_short(new)} now"


def _short(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else text[:57] + "..."


# The folder


class Folder:
    """A results folder that this process owns; use as a context manager.

    Args:
      path: the folder; made where it does not exist.
      identity: from `fingerprint`; a folder made under another one is refused, with the differences named.
      force_new: where the folder holds another identity, take the next free ``path-2``, ``path-3``, ...

    Raises:
      ResultsError: not writable, owned by another process, made by another configuration, or holding anything that is
        not of this module; then nothing in it is touched.
    """

    def __init__(self, path: str | Path, identity: Mapping[str, Any], *, force_new: bool = False):
        self.path = Path(path)
        self.identity = json.loads(json.dumps(dict(identity), default=str))  # as the manifest holds it
        self._lock: Any = None
        if force_new:
            self.path = self._first_free(self.path)
        self._refuse_foreign()
        self._make()
        self._acquire()
        try:
            self._manifest = self._open_manifest()
            self._sweep()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Folder:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def close(self) -> None:
        """Give the folder back."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _first_free(self, path: Path) -> Path:
        for number in range(1, 10_000):
            candidate = path if number == 1 else path.with_name(f"{path.name}-{number}")
            if not candidate.exists() or self._recorded(candidate) == self.identity:
                return candidate
        raise ResultsError(f"there is no free folder beside {str(path)!r}")

    @staticmethod
    def _recorded(path: Path) -> Any:
        try:
            return json.loads((path / "manifest.json").read_text())["identity"]
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None

    def _make(self) -> None:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            probe = self.path / f".probe.{os.getpid()}.tmp"
            probe.touch()
            probe.unlink(missing_ok=True)  # the folder's owner may have swept it away
        except OSError as error:
            raise ResultsError(
                f"the results folder {str(self.path)!r} cannot be written ({error.strerror or error}); "
                "choose another with --out"
            ) from None

    def _refuse_foreign(self) -> None:
        """Before anything is made there, not even the lock: a folder of our own has its manifest first of all files."""
        manifest = self.path / "manifest.json"
        try:
            others = []
            if self.path.is_dir() and not manifest.exists():
                others = sorted(path.name for path in self.path.iterdir() if not _before_manifest(path.name))
        except OSError as error:
            raise ResultsError(f"{str(self.path)!r} cannot be read ({error.strerror or error})") from None
        if manifest.exists():  # it may have come into being meanwhile
            self._read_manifest()
        elif others:
            raise ResultsError(
                f"{str(self.path)!r} holds files of something else ({', '.join(others[:3])}); "
                "choose a new or empty folder with --out"
            )

    def _sweep(self) -> None:
        """Remove what a killed owner was writing: by names given here only, from the folders that are written to.

        Call it where this process holds the lock and has read the manifest: this is a folder of our own then.
        """
        entered = {(self.path / name).parent for name in self._manifest["files"]}
        for place in {self.path, self.path / "figures", *(self.path / "chunks").glob("*"), *entered}:
            # Not through a link, which could lead to any folder of this user.
            if not place.is_dir() or place.resolve() != self.path.resolve() / place.relative_to(self.path):
                continue
            for path in place.iterdir():
                if _TEMPORARY.fullmatch(path.name) and path.is_file():
                    with contextlib.suppress(OSError):  # left for the next sweep
                        path.unlink()

    def _acquire(self) -> None:
        try:
            import fcntl
        except ImportError:  # no such locks on this system: two runs on one folder are then up to the user
            return
        try:  # not through a link, which could lead to any file of this user
            flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
            lock = os.fdopen(os.open(self.path / "lock", flags, 0o666), "a+", errors="replace")
        except OSError as error:
            raise ResultsError(f"the results folder {str(self.path)!r} cannot be locked ({error.strerror})") from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = _owner(lock)
            lock.close()
            raise ResultsError(f"the results folder {str(self.path)!r} is in use by {owner}") from None
        except OSError as error:
            lock.close()
            raise ResultsError(f"the results folder {str(self.path)!r} cannot be locked ({error.strerror})") from None
        try:
            lock.truncate(0)
            lock.write(f"process {os.getpid()} on {platform.node()}\n")
            lock.flush()
        except OSError as error:
            with contextlib.suppress(OSError):  # closing writes what is left, which may fail again
                lock.close()
            raise ResultsError(f"{str(self.path / 'lock')!r} cannot be written ({error.strerror or error})") from None
        self._lock = lock

    def _open_manifest(self) -> dict[str, Any]:
        path = self.path / "manifest.json"
        if not path.exists():
            manifest = {"identity": self.identity, "complete": False, "files": {}, "seconds": {}}
            write_json(path, manifest)
            return manifest
        manifest, changes = self._read_manifest()
        if changes:
            shown = "; ".join(changes[:4]) + (f"; and {len(changes) - 4} more" if len(changes) > 4 else "")
            raise ResultsError(
                f"the results folder {str(self.path)!r} belongs to another run ({shown}); "
                "choose another with --out, or start a new one beside it with --force-new"
            )
        return manifest

    def _read_manifest(self) -> tuple[dict[str, Any], list[str]]:
        """The manifest that is there, and how its identity differs from this run's."""
        path = self.path / "manifest.json"
        try:
            manifest = json.loads(path.read_text())
            recorded = manifest["identity"]
            seconds = [*manifest["seconds"].values(), *(e.get("seconds", 0.0) for e in manifest["files"].values())]
            if not all(isinstance(value, int | float) for value in seconds) or manifest["complete"] not in (0, 1):
                raise TypeError
            for name, entry in manifest["files"].items():
                self._inside(name)
                bytes.fromhex(entry["sha256"])
            return manifest, list(_differences(recorded, self.identity))
        except OSError as error:
            raise ResultsError(f"{str(path)!r} cannot be read ({error.strerror or error})") from None
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise ResultsError(
                f"{str(path)!r} is damaged or of something else; "
                "choose another folder with --out, or start a new one beside it with --force-new"
            ) from None

    # Contents

    @property
    def complete(self) -> bool:
        """True once `finish` was called and every file it made is still there, unharmed.

        Chunks are not looked at: what they held is in the results, and a complete run reads them no more.
        """
        return bool(self._manifest["complete"]) and all(
            self.verified(name) for name in self._manifest["files"] if not name.startswith("chunks/")
        )

    @property
    def seconds(self) -> dict[str, float]:
        """Wall time over all runs on this folder, s: ``run`` is that of every chunk kept, also of killed runs."""
        chunks = [entry.get("seconds", 0.0) for entry in self._manifest["files"].values()]
        return {**self._manifest["seconds"], "run": sum(chunks)}

    def add_seconds(self, spent: Mapping[str, float]) -> None:
        """Add wall time to the totals."""
        for name, value in spent.items():
            self._manifest["seconds"][name] = self._manifest["seconds"].get(name, 0.0) + float(value)
        self._save()

    def verified(self, name: str) -> bool:
        """True where the file is entered and its checksum matches."""
        entry = self._manifest["files"].get(name)
        path = self.path / name
        if entry is None or not path.is_file():
            return False
        return hashlib.sha256(path.read_bytes()).hexdigest() == entry["sha256"]

    def enter(self, name: str, sha256: str, **facts: Any) -> None:
        """Enter a written file in the manifest."""
        self._manifest["files"][name] = {"sha256": sha256, **facts}
        self._save()

    def _save(self) -> None:
        write_json(self.path / "manifest.json", self._manifest)

    def store(self, name: str) -> Store:
        """A store of chunks for one sweep, under ``chunks/NAME``."""
        return Store(self, name)

    @staticmethod
    def _inside(name: str) -> str:
        return "/".join(checked_name(part) for part in name.split("/"))

    def place(self, name: str) -> Path:
        """Where a file of this folder lies; ``name`` may hold folders, each part as `checked_name`.

        Raises:
          ResultsError: a link on the way leads outside of the folder.
        """
        path = self.path / self._inside(name)
        if not path.parent.resolve().is_relative_to(self.path.resolve()):
            raise ResultsError(f"{str(path)!r} leads outside of the results folder, by a link; remove it")
        return path

    def write(self, name: str, content: bytes) -> None:
        """Write and enter one file; ``name`` may hold folders (``figures/loss.png``), else as `checked_name`."""
        self.enter(name, write_bytes(self.place(name), content))

    def write_tree(self, name: str, tree: xr.DataTree) -> None:
        """Write and enter the labelled results."""
        self.enter(name, write_tree(self.place(name), tree))

    def write_figures(self, figures: Mapping[str, Figure]) -> None:
        """Write each figure as PNG and SVG and enter both; equal figures give equal bytes."""
        import matplotlib as mpl

        for name, figure in figures.items():
            for kind in ("png", "svg"):
                buffer = io.BytesIO()
                # Neither kind may carry a date, nor an SVG names drawn by chance.
                metadata = {"Date": None} if kind == "svg" else {"Software": None}
                with mpl.rc_context({"svg.hashsalt": "nnjax"}):
                    figure.savefig(buffer, format=kind, metadata=metadata)
                self.write(f"figures/{checked_name(name)}.{kind}", buffer.getvalue())

    def finish(self) -> None:
        """Mark the run complete: the same command again has nothing left to do."""
        self._sweep()  # writes whose temporary file could not be removed
        self._manifest["complete"] = True
        self._save()


def _before_manifest(name: str) -> bool:
    """Whether a killed run may have left a file of this name in a folder before its manifest was there."""
    temporary = _TEMPORARY.fullmatch(name)
    return name == "lock" or bool(temporary and temporary["name"] in ("probe", "manifest.json"))


def _owner(lock: TextIO) -> str:
    """Who holds a lock, as it says itself; one that has only just taken it gets half a second to say so."""
    for _ in range(10):
        lock.seek(0)
        words = lock.readline(200).split()
        if len(words) > 1 and words[1].isdigit() and _lives(int(words[1]), words[-1]):
            break
        time.sleep(0.05)
    return " ".join(words) or "another process"


def _lives(process: int, host: str) -> bool:
    """Whether a process may be alive; of those on other machines nothing is known."""
    if host != platform.node():
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


class Store:
    """Finished chunks of one sweep; what `nnjax.sweep.sweep` takes as ``store``."""

    def __init__(self, folder: Folder, name: str):
        self._folder = folder
        self._prefix = f"chunks/{checked_name(name)}"

    def load(self, identity: str) -> dict[str, np.ndarray] | None:
        """The chunk's arrays, or None where it is not finished, damaged or not entered (then it is set aside)."""
        name = f"{self._prefix}/{checked_name(identity)}.npz"
        path = self._folder.place(name)
        if self._folder.verified(name):
            return read_arrays(path)
        if path.exists():
            path.replace(path.with_name(f"{path.name}.damaged-{time.time_ns()}"))
        return None

    def files(self, identity: str) -> list[Path]:
        """Files of the chunk that there are, those that were set aside among them."""
        return sorted((self._folder.path / self._prefix).glob(f"{checked_name(identity)}.npz*"))

    def save(self, identity: str, arrays: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
        """Write one chunk and enter it with ``facts`` about it (lanes, seconds)."""
        name = f"{self._prefix}/{checked_name(identity)}.npz"
        self._folder.enter(name, write_arrays(self._folder.place(name), arrays), **facts)


def checked_name(name: str) -> str:
    """``name`` if it is safe as a file name (letters, digits, ``. _ -``), else ValueError."""
    if not _NAME.fullmatch(name) or ".." in name:
        raise ValueError(f"name {name!r} cannot be a file name; use letters, digits, '.', '_' and '-'")
    return name
