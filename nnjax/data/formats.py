"""Parsers of the files data sets come in. Every input is taken for hostile and nothing is written to disk.

Sizes are capped before memory is spent: decompression stops at its limit, a tar is read only from bytes
already decompressed, and a picture's size is compared before it is decoded. All raise `DataError`; `what`
names the file in its text.
"""

import io
import lzma
import math
import re
import tarfile
import warnings
import zlib
from collections.abc import Container
from typing import IO

import numpy as np

from nnjax.data.cache import DataError

CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

_CIFAR_RECORD = 1 + 3 * 32 * 32
_CIFAR_BATCH_BYTES = 10_000 * _CIFAR_RECORD
_JPEG_BYTES = 1 << 14
_XZ_MEMORY = 1 << 26
_RECORD_BYTES = 1 << 12
_RECORDS = (b"L", b"K", b"x", b"g", b"X")  # long name and long link of GNU, pax
_DRIVE = re.compile(r"[A-Za-z]:")
_JPEG_NAME = re.compile(r"(train|test)/([a-z]+)/([0-9]{4})\.jpg", re.ASCII)


def gunzip(content: bytes, limit: int, what: str) -> bytes:
    """The one gzip stream in `content`, at most `limit` bytes long."""
    # 16 + 15: the gzip container, the largest window.
    decompressor = zlib.decompressobj(wbits=31)
    try:
        plain = decompressor.decompress(content, limit + 1)
    except zlib.error as error:
        raise DataError(f"{what} is not a sound gzip file ({error})") from error
    return _whole(plain, decompressor, limit, what)


def unxz(content: bytes, limit: int, what: str) -> bytes:
    """The one xz stream in `content`, at most `limit` bytes long."""
    decompressor = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY)
    try:
        plain = decompressor.decompress(content, limit + 1)
    except lzma.LZMAError as error:
        raise DataError(f"{what} is not a sound xz file ({error})") from error
    return _whole(plain, decompressor, limit, what)


def _whole(plain: bytes, decompressor: "zlib._Decompress | lzma.LZMADecompressor", limit: int, what: str) -> bytes:
    if len(plain) > limit:
        raise DataError(f"{what} holds more than the {limit:,} bytes allowed")
    if not decompressor.eof:
        raise DataError(f"{what} is cut short")
    if decompressor.unused_data:
        raise DataError(f"{what} has {len(decompressor.unused_data):,} bytes after its end")
    return plain


def read_tar(content: bytes, *, members: int, member_bytes: int, what: str) -> dict[str, bytes]:
    """The regular files of an uncompressed tar, by name, in the archive's order.

    Args:
        content: the tar; decompress it first (`gunzip`, `unxz`), so that its total size is capped.
        members: how many entries there may be, folders included.
        member_bytes: how long one file may be.
        what: name of the archive for the error text.

    Raises:
        DataError: too many or too large, a link or a device, a name that leads outside, a name given twice,
            a sparse file (its length can be a lie), a negative length, a name of kilobytes, no tar at all, or one that
            is damaged or cut, so that files at its end could be missing.
    """
    index = index_tar(io.BytesIO(content), members=members, member_bytes=member_bytes, what=what)
    return {name: content[start : start + length] for name, (start, length) in index.items()}


def index_tar(
    stream: IO[bytes], *, members: int, member_bytes: int, what: str, refused: list[tuple[str, str]] | None = None
) -> dict[str, tuple[int, int]]:
    """Where the regular files of an uncompressed tar begin and how long they are, by name, in the archive's order.

    Arguments and errors are those of `read_tar`, but for ``stream``, which is open for reading and can seek, and
    ``refused``: where that list is given, an entry that is too large or no plain file is left out and appended to it,
    (name, reason), instead of refusing the archive.
    """
    places: dict[str, tuple[int, int]] = {}
    seen: set[str] = set()
    try:
        whole = stream.seek(0, io.SEEK_END)
        stream.seek(0)
        with tarfile.open(fileobj=stream, mode="r:", tarinfo=_Entry) as archive:
            for count, member in enumerate(archive, start=1):
                if count > members:
                    raise DataError(f"{what} has more than the {members:,} entries allowed")
                _check_name(member, seen, what)
                if member.isdir():
                    continue
                seen.add(member.name)
                if reason := _refusal(member, member_bytes):
                    if refused is None:
                        raise DataError(f"{what} has the entry {member.name!r}, which {reason}")
                    refused.append((member.name, reason))
                    continue
                if member.offset_data + member.size > whole:
                    raise tarfile.ReadError("unexpected end of data")
                places[member.name] = (member.offset_data, member.size)
            # tarfile takes a header that it cannot read for the end, and what comes after it would be lost in silence.
            stream.seek(archive.offset)
            if stream.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                raise tarfile.ReadError(f"damaged or cut at byte {archive.offset:,}")
    except DataError:
        raise
    except (tarfile.TarError, ValueError, LookupError, OverflowError, EOFError, OSError, RecursionError) as error:
        raise DataError(f"{what} is not a sound tar file ({error})") from error
    return places


class _Entry(tarfile.TarInfo):
    """A header that cannot keep tarfile busy for ever.

    With a negative length it would go back in the archive and read it again; a long record of further facts (a long
    name, pax) it searches in a time that grows with the square of its length.
    """

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> "_Entry":
        entry = super().frombuf(buf, encoding, errors)
        if entry.size < 0 or (entry.type in _RECORDS and entry.size > _RECORD_BYTES):
            raise tarfile.ReadError(f"it has an entry of {entry.size:,} bytes")
        return entry


def _check_name(member: tarfile.TarInfo, seen: Container[str], what: str) -> None:
    # As Windows reads it too: with backslashes, and drives.
    name = member.name.replace("\\", "/")
    if name.startswith("/") or _DRIVE.match(name) or ".." in name.split("/"):
        raise DataError(f"{what} has the entry {member.name!r}, which leads outside the archive")
    if not member.isdir() and member.name in seen:
        raise DataError(f"{what} has the entry {member.name!r} twice")


def _refusal(member: tarfile.TarInfo, limit: int) -> str:
    """Why an entry is not to be read, or nothing; goes on from its name."""
    if not member.isreg() or member.issparse():
        return "is not a plain file"
    if not 0 <= member.size <= limit:
        return f"has {member.size:,} bytes; {limit:,} are allowed"
    return ""


def parse_idx(content: bytes, dimensions: int, what: str) -> np.ndarray:
    """An uncompressed IDX file of unsigned bytes as an array with that many dimensions (LeCun et al., 1998).

    The file is: two zero bytes, the type (8: unsigned byte), the number of dimensions, each dimension as a
    big-endian 32-bit number, then the values, last index fastest.

    Raises:
        DataError: another magic number, or more or fewer values than the header announces.
    """
    start = 4 + 4 * dimensions
    if content[:4] != bytes((0, 0, 8, dimensions)) or len(content) < start:
        raise DataError(f"{what} is not an IDX file of unsigned bytes with {dimensions} dimensions")
    shape = tuple(int(size) for size in np.frombuffer(content, ">u4", dimensions, offset=4))
    # Python's integers do not overflow; NumPy's product of lying dimensions would.
    if len(content) != start + math.prod(shape):
        raise DataError(f"{what} announces shape {shape} but holds {len(content) - start:,} values")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def parse_cifar_batch(content: bytes, what: str) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 (n, 32, 32, 3) and labels uint8 (n,) of a CIFAR-10 binary batch (Krizhevsky, 2009).

    A record is the label byte, then the red, the green and the blue plane of 1024 bytes each, row by row.

    Raises:
        DataError: no whole number of records, none, or a label over 9.
    """
    if not content or len(content) % _CIFAR_RECORD:
        raise DataError(f"{what} holds {len(content):,} bytes, which is no whole number of CIFAR-10 records")
    records = np.frombuffer(content, np.uint8).reshape(-1, _CIFAR_RECORD)
    labels = records[:, 0]
    if labels.max() >= len(CIFAR10_CLASSES):
        raise DataError(f"{what} has the label {labels.max()}; CIFAR-10 has 0 to 9")
    planes = records[:, 1:].reshape(-1, 3, 32, 32)
    return np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), labels


def cifar_binary(content: bytes, what: str) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
    """Train and test (images, labels) of the official `cifar-10-binary.tar.gz`, in the official order."""
    plain = gunzip(content, 200_000_000, what)
    files = read_tar(plain, members=32, member_bytes=_CIFAR_BATCH_BYTES, what=what)
    parts = []
    for batches in ([f"data_batch_{number}.bin" for number in range(1, 6)], ["test_batch.bin"]):
        paths = [f"cifar-10-batches-bin/{batch}" for batch in batches]
        missing = [path for path in paths if path not in files]
        if missing:
            raise DataError(f"{what} lacks {missing[0]}")
        pairs = [parse_cifar_batch(files.pop(path), f"{path} in {what}") for path in paths]
        parts.append((np.concatenate([x for x, _ in pairs]), np.concatenate([y for _, y in pairs])))
    return tuple(parts)


def cifar_jpeg(content: bytes, what: str) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
    """Train and test (images, labels) of the JPEG copy, `{train,test}/CLASS/NNNN.jpg` in an xz-packed tar.

    The copy keeps the official order inside each class but not how classes alternate. Images are dealt in
    turn, number 0 of every class, then number 1, ..., so that the first n of them are balanced to within
    one image a class and need no seed.
    """
    plain = unxz(content, 100_000_000, what)
    files = read_tar(plain, members=60_100, member_bytes=_JPEG_BYTES, what=what)
    entries: dict[str, list[tuple[int, int, str]]] = {"train": [], "test": []}
    for name in files:
        match = _JPEG_NAME.fullmatch(name)
        if match is None or match[2] not in CIFAR10_CLASSES:
            raise DataError(f"{what} has the unexpected entry {name!r}")
        entries[match[1]].append((int(match[3]), CIFAR10_CLASSES.index(match[2]), name))
    parts = []
    for side, listed in entries.items():
        if not listed:
            raise DataError(f"{what} has no {side} images")
        images = np.empty((len(listed), 32, 32, 3), np.uint8)
        for row, (_, _, name) in enumerate(sorted(listed)):
            images[row] = decode_jpeg(files[name], (32, 32), f"{name} in {what}")
        parts.append((images, np.array([label for _, label, _ in sorted(listed)], np.uint8)))
    return tuple(parts)


def decode_jpeg(content: bytes, size: tuple[int, int], what: str) -> np.ndarray:
    """An RGB JPEG of exactly `size` (width, height) as uint8 (height, width, 3).

    Raises:
        DataError: another format (whatever its name says), size or colour mode, or damaged.
    """
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(content), formats=["JPEG"]) as image:
                # Before any pixel is decoded: opening reads the header only.
                if image.size != size or image.mode != "RGB":
                    raise DataError(
                        f"{what} is a {image.width} x {image.height} {image.mode} picture, "
                        f"not {size[0]} x {size[1]} RGB"
                    )
                return np.asarray(image)
    except DataError:
        raise
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, Warning) as error:
        raise DataError(f"{what} is not a sound JPEG ({error})") from error
