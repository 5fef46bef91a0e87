"""Files by their names, in a folder or in a tar, each taken for hostile: its length is bounded before it is read."""

from __future__ import annotations

import io
import os
import posixpath
import stat
from pathlib import Path
from typing import Any, Protocol

from nnjax.data import formats
from nnjax.data.cache import DataError

__all__ = ["Archive", "Directory", "Source", "read_file", "source_at"]

_FILE_BYTES = 1 << 26
_MEMBERS = 1 << 21
_ARCHIVE_SUFFIXES = (".tar",)


class Source(Protocol):
    """Where the bytes of named files come from; used by several threads at once."""

    def names(self) -> list[str]:
        """All names, sorted."""

    def refused(self) -> list[tuple[str, str]]:
        """(name, reason) of what is there and not to be read."""

    def size(self, name: str) -> int:
        """Bytes of a file."""

    def read(self, name: str) -> bytes:
        """The bytes of a file; DataError, going on from its name, where it cannot be read."""


def source_at(path: Path) -> Source:
    """The files of a folder, or of an uncompressed tar.

    Raises:
      DataError: neither is there, or the tar is damaged or leads outside.
    """
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise DataError(f"no folder or tar of pictures at {str(path)!r} ({error.strerror})") from error
    if stat.S_ISDIR(mode):
        return Directory(path.absolute())
    if not stat.S_ISREG(mode) or path.suffix.lower() not in _ARCHIVE_SUFFIXES:
        raise DataError(f"{str(path)!r} must be a folder or an uncompressed .tar of class folders")
    return Archive(path.absolute(), repr(str(path)))


class Directory:
    """Files below a folder, by their place in it with ``/`` between its parts."""

    def __init__(self, root: Path):
        self._root = root

    def names(self) -> list[str]:
        """All names, sorted."""

        def refuse(error: OSError) -> None:
            raise DataError(f"the folder {error.filename!r} cannot be read ({error.strerror})") from error

        listed: list[str] = []
        tops = [self._root]
        for top in tops:
            for folder, below, files in os.walk(top, onerror=refuse):
                # A class folder may be a link to one elsewhere; deeper ones are not followed: they could lead round.
                if Path(folder) == self._root:
                    tops += [self._root / name for name in below if self._leads_away(name)]
                listed += [(Path(folder) / file).relative_to(self._root).as_posix() for file in files]
        return sorted(listed)

    def _leads_away(self, name: str) -> bool:
        """Whether this is a link to a folder elsewhere, not to the root or one above it."""
        path = self._root / name
        return path.is_symlink() and not self._root.resolve().is_relative_to(path.resolve())

    def refused(self) -> list[tuple[str, str]]:
        """(name, reason) of what is not to be read."""
        return []  # only its reading tells what is wrong with a file

    def size(self, name: str) -> int:
        """Bytes of a file."""
        return (self._root / name).stat().st_size

    def read(self, name: str) -> bytes:
        """The bytes of a file."""
        return read_file(self._root / name)


class Archive:
    """Files of an uncompressed tar, in memory or on the disk, by their names in it."""

    def __init__(self, content: bytes | Path, what: str):
        self._content = content
        with self._open() as stream:
            refused: list[tuple[str, str]] = []
            index = formats.index_tar(
                stream, members=_MEMBERS, member_bytes=_FILE_BYTES, what=what, refused=refused
            )  # fmt: skip
        # A name can be spelled in several ways: "a/0.png", "./a/0.png".
        self._index: dict[str, tuple[int, int]] = {}
        for name, place in index.items():
            if posixpath.normpath(name) in self._index:
                raise DataError(f"{what} has the entry {posixpath.normpath(name)!r} twice, once as {name!r}")
            self._index[posixpath.normpath(name)] = place
        self._refused = [(posixpath.normpath(name), reason) for name, reason in refused]

    def _open(self) -> Any:
        return io.BytesIO(self._content) if isinstance(self._content, bytes) else self._content.open("rb")

    def names(self) -> list[str]:
        """All names, sorted."""
        return sorted(self._index)

    def refused(self) -> list[tuple[str, str]]:
        """(name, reason) of what is not to be read."""
        return self._refused

    def size(self, name: str) -> int:
        """Bytes of a file."""
        return self._index[name][1]

    def read(self, name: str) -> bytes:
        """The bytes of a file."""
        start, length = self._index[name]
        if isinstance(self._content, bytes):
            return self._content[start : start + length]
        try:
            with self._content.open("rb") as stream:  # its own for every read, since several threads read
                stream.seek(start)
                return stream.read(length)
        except OSError as error:
            raise DataError(f"cannot be read ({error.strerror})") from error


def read_file(path: Path) -> bytes:
    """The bytes of a plain file of bounded length; the message of an error goes on from the file's name."""
    try:
        # A pipe or a device would block or never end.
        if not stat.S_ISREG(path.stat().st_mode):
            raise DataError("is not a plain file")
        with path.open("rb") as stream:
            content = stream.read(_FILE_BYTES + 1)
    except DataError:
        raise
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror})") from error
    if len(content) > _FILE_BYTES:
        raise DataError(f"has more than the {_FILE_BYTES:,} bytes allowed")
    return content
