"""The folder of downloaded files: where it is, how a file gets into it, and the check before it is read.

A file is parsed only after its size and SHA-256 have been compared with the ones written in this package,
and the bytes that were checked are the bytes that are parsed. Downloads go over https (redirects too), stop
as soon as more bytes come than the file has, and appear under their final name only when they are whole.
"""

import hashlib
import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

ENVIRONMENT_VARIABLE = "NNJAX_DATA"

_HTTPS_ONLY = ("https://",)
_TIMEOUT = (10.0, 60.0)
_CHUNK_BYTES = 1 << 16


class DataError(OSError):
    """A data file is missing, damaged or cannot be downloaded; the text is one sentence saying what to do."""


class SourceFile(NamedTuple):
    """One file of a data set as it must be.

    Attributes:
        dataset: name of the data set, as given to `nnjax.data.load`.
        path: place inside the cache folder, with `/` between its parts.
        size: exact number of bytes; also the cap of the download.
        sha256: checksum of the whole file, 64 hexadecimal digits.
        url: https address of a public copy, or None where there is none.
    """

    dataset: str
    path: str
    size: int
    sha256: str
    url: str | None = None

    def __str__(self) -> str:
        return f"file {self.path!r} of data set {self.dataset!r}"


def folder(cache: str | os.PathLike[str] | None = None) -> Path:
    """The cache folder: `cache` if given, else `$NNJAX_DATA` if set, else the per-user one."""
    if cache is not None:
        return Path(cache).expanduser()
    named = os.environ.get(ENVIRONMENT_VARIABLE)
    return Path(named).expanduser() if named else _per_user_folder()


def read(source: SourceFile, *, cache: str | os.PathLike[str] | None = None) -> bytes:
    """The bytes of `source`, checked; it is downloaded first where it is absent.

    Nothing is written when the file is there, so the folder may be read-only.

    Raises:
        DataError: not there and not to be had, not readable, or not the file it should be.
    """
    path = folder(cache) / source.path
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        _download(source, path)
        mode = path.stat().st_mode
    except OSError as error:
        raise _unreadable(source, path, error) from error
    # A pipe or a device would block or never end.
    if not stat.S_ISREG(mode):
        raise DataError(f"{source} at {path} is not a regular file; {_remedy(source)}")
    return _read_checked(source, path)


def _per_user_folder() -> Path:
    import pooch

    return Path(pooch.os_cache("nnjax"))


def _unreadable(source: SourceFile, path: Path, error: OSError) -> DataError:
    return DataError(f"{source} at {path} cannot be read ({error.strerror}); check its permissions")


def _remedy(source: SourceFile) -> str:
    return "delete it to download again" if source.url else "put the right file in its place"


def _read_checked(source: SourceFile, path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            content = stream.read(source.size + 1)
            size = os.fstat(stream.fileno()).st_size
    except OSError as error:
        raise _unreadable(source, path, error) from error
    if len(content) != source.size:
        raise DataError(
            f"{source} at {path} is damaged: {size:,} bytes where {source.size:,} were expected; {_remedy(source)}"
        )
    found = hashlib.sha256(content).hexdigest()
    if found != source.sha256:
        raise DataError(
            f"{source} at {path} is damaged: its SHA-256 begins {found[:12]} where {source.sha256[:12]} was "
            f"expected; {_remedy(source)}"
        )
    return content


def _download(source: SourceFile, path: Path, *, schemes: tuple[str, ...] = _HTTPS_ONLY) -> None:
    """Download to a temporary name beside `path`, check, rename. `schemes` is for tests on a local server."""
    if source.url is None:
        raise DataError(
            f"{source} is missing and has no public download; put it at {path} or set "
            f"{ENVIRONMENT_VARIABLE} to the folder that holds {source.path}"
        )
    import pooch
    import requests

    try:
        _make_folders(path, source.path)
        pooch.retrieve(
            source.url,
            known_hash=f"sha256:{source.sha256}",
            fname=path.name,
            path=path.parent,
            downloader=_CappedDownload(source, schemes),
        )
        _sync_folder(path.parent)
    except DataError:
        raise
    except requests.exceptions.InvalidSchema as error:
        raise DataError(
            f"{source} was not downloaded: {source.url} leads to an address that is not https; {_by_hand(path)}"
        ) from error
    except requests.exceptions.HTTPError as error:
        status = "unknown" if error.response is None else error.response.status_code
        raise DataError(
            f"{source} could not be downloaded: {source.url} answered with status {status}; {_by_hand(path)}"
        ) from error
    except requests.exceptions.RequestException as error:
        raise DataError(
            f"{source} could not be downloaded from {source.url} (no network? {type(error).__name__}); {_by_hand(path)}"
        ) from error
    except OSError as error:
        raise DataError(
            f"{source} could not be saved in {path.parent} ({error.strerror or type(error).__name__}); set "
            f"{ENVIRONMENT_VARIABLE} to a folder that can be written"
        ) from error
    except ValueError as error:  # what pooch raises for a checksum that differs
        raise DataError(
            f"{source} was downloaded from {source.url} and thrown away: its SHA-256 does not begin "
            f"{source.sha256[:12]}; try again later, or {_by_hand(path)}"
        ) from error


def _by_hand(path: Path) -> str:
    return f"put it at {path} or set {ENVIRONMENT_VARIABLE} to the folder that holds the data sets"


class _CappedDownload:
    """A pooch downloader that speaks the given schemes only and stops one chunk past the expected size."""

    def __init__(self, source: SourceFile, schemes: tuple[str, ...]) -> None:
        self.source = source
        self.schemes = schemes

    def __call__(self, url: str, output_file: str, pooch: object) -> None:
        import requests
        from requests.adapters import HTTPAdapter

        with requests.Session() as session:
            # Without an adapter for http, a redirect to http fails before anything is sent there.
            session.adapters.clear()
            for scheme in self.schemes:
                session.mount(scheme, HTTPAdapter())
            session.max_redirects = 5
            # A server that compresses on the way would change the bytes the checksum is for.
            headers = {"Accept-Encoding": "identity"}
            with session.get(url, stream=True, timeout=_TIMEOUT, headers=headers) as response:
                response.raise_for_status()
                if response.headers.get("Content-Encoding", "identity") != "identity":
                    # Unpacked on the way, a few bytes could become any number before one of them is counted.
                    raise DataError(
                        f"{self.source} was not downloaded: {self.source.url} sent it compressed though asked not to; "
                        "try again later"
                    )
                self._write(response.iter_content(_CHUNK_BYTES), output_file)

    def _write(self, chunks: Iterable[bytes], output_file: str) -> None:
        received = 0
        with open(output_file, "wb") as stream:
            for chunk in chunks:
                received += len(chunk)
                if received > self.source.size:
                    break
                stream.write(chunk)
            stream.flush()
            os.fsync(stream.fileno())
        if received != self.source.size:
            more = "more than " if received > self.source.size else f"{received:,} of "
            raise DataError(
                f"{self.source} was not downloaded: {self.source.url} sent {more}{self.source.size:,} bytes; "
                "try again later"
            )


def _make_folders(path: Path, inside: str) -> None:
    root = path.parents[inside.count("/")]
    root.parent.mkdir(parents=True, exist_ok=True)
    root.mkdir(mode=0o700 if root == _per_user_folder() else 0o777, exist_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)


def _sync_folder(path: Path) -> None:
    """Make the rename last through a power cut; Windows cannot open a folder and needs no such call."""
    if os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
