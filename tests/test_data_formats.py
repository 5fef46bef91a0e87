"""Data: parsers of archives and pictures, on sound, real and hostile files."""

import contextlib
import gzip
import hashlib
import io
import lzma
import signal
import tarfile
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from nnjax import data
from nnjax.data import DataError, cache, formats, loaders


def jpeg(color=(200, 30, 60), size=(32, 32), mode="RGB", kind="JPEG") -> bytes:
    stream = io.BytesIO()
    Image.new(mode, size, color).save(stream, kind)
    return stream.getvalue()


def tar(*entries) -> bytes:
    """A tar of (name, content) pairs and ready-made TarInfo objects."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for entry in entries:
            if isinstance(entry, tarfile.TarInfo):
                header = entry.tobuf(archive.format)  # a header may lie about what follows, so it is written as it is
                archive.fileobj.write(header)
                archive.offset += len(header)
            else:
                info = tarfile.TarInfo(entry[0])
                info.size = len(entry[1])
                archive.addfile(info, io.BytesIO(entry[1]))
    return stream.getvalue()


def test_cifar_batch_of_real_bytes(real_data):
    content = (real_data / "cifar-10" / "data_batch_1_first4000.bin").read_bytes()
    images, labels = formats.parse_cifar_batch(content, "batch")
    assert images.shape == (4000, 32, 32, 3)
    assert np.bincount(labels).tolist() == [396, 366, 420, 384, 422, 393, 414, 385, 407, 413]
    assert labels[0] == formats.CIFAR10_CLASSES.index("frog")
    # Rows, columns and channels in place: neighbours of one channel are far more alike than pixels at random.
    pixels = images.astype(int)
    strangers = np.abs(pixels - np.random.default_rng(0).permuted(pixels, axis=None)).mean()
    for axis in (1, 2):
        assert np.abs(np.diff(pixels, axis=axis)).mean() < strangers / 3


@pytest.mark.slow
def test_cifar_jpeg_against_the_lossless_images(real_data):
    loaded = data.load("cifar10_jpeg")
    assert loaded.train.x.shape == (50_000, 32, 32, 3)
    assert loaded.test.x.shape == (10_000, 32, 32, 3)
    assert loaded.train.y[:11].tolist() == [*range(10), 0]
    assert np.bincount(loaded.train.y).tolist() == [5000] * 10
    content = (real_data / "cifar-10" / "data_batch_1_first4000.bin").read_bytes()
    images, labels = formats.parse_cifar_batch(content, "batch")
    rank = np.array([(labels[:i] == label).sum() for i, label in enumerate(labels)])
    difference = loaded.train.x[10 * rank + labels] * 255 - images
    rms = np.sqrt((difference**2).mean(axis=(1, 2, 3)))
    assert rms.mean() == pytest.approx(7.9, abs=0.06)
    assert rms.max() < 17.96


def cifar_archive(n=3) -> tuple[bytes, np.ndarray]:
    """A gzipped tar laid out as the official one, n records a batch, and its records (6, n, 3073)."""
    records = np.random.default_rng(0).integers(0, 256, (6, n, 3073), np.uint8)
    records[..., 0] %= 10
    batches = [f"data_batch_{number}.bin" for number in range(1, 6)] + ["test_batch.bin"]
    folder = tarfile.TarInfo("cifar-10-batches-bin")
    folder.type = tarfile.DIRTYPE
    # Out of order, as in the official archive.
    pairs = [(f"cifar-10-batches-bin/{b}", r.tobytes()) for b, r in zip(batches, records, strict=True)]
    return gzip.compress(tar(folder, *pairs[::-1], ("cifar-10-batches-bin/readme.html", b"hi"))), records


def test_official_cifar_archive(tmp_path, monkeypatch):
    content, records = cifar_archive()
    digest = hashlib.sha256(content).hexdigest()
    source = cache.SourceFile("cifar10", "batches.tar.gz", len(content), digest)
    (tmp_path / source.path).write_bytes(content)
    monkeypatch.setitem(loaders._LOADERS, "cifar10", partial(loaders._archive, source, formats.cifar_binary))
    loaded = data.load("cifar10", cache=tmp_path)
    assert loaded.class_names[3] == "cat"
    assert loaded.train.y.tolist() == records[:5, :, 0].ravel().tolist()
    assert loaded.test.y.tolist() == records[5, :, 0].tolist()
    # Pixel (row 2, column 7, green) of the second record of batch 3.
    assert loaded.train.x[2 * 3 + 1, 2, 7, 1] == np.float32(records[2, 1, 1 + 1024 + 2 * 32 + 7]) / 255
    short = gzip.compress(tar(("cifar-10-batches-bin/data_batch_1.bin", records[0].tobytes())))
    with pytest.raises(DataError, match=r"lacks .*data_batch_2"):
        formats.cifar_binary(short, "archive")


def test_jpeg_archive_deals_the_classes():
    names = formats.CIFAR10_CLASSES
    entries = [
        (f"{side}/{name}/{i:04}.jpg", jpeg((20 * k, 100 * i, 0)))
        for side in ("train", "test")
        for k, name in enumerate(names)
        for i in range(2)
    ]
    (x, y), _ = formats.cifar_jpeg(lzma.compress(tar(*entries)), "archive")
    assert y.tolist() == [*range(10), *range(10)]
    np.testing.assert_allclose(x[:, 0, 0, 0], 20 * y, atol=3)
    np.testing.assert_allclose(x[:, 0, 0, 1], 100 * (np.arange(20) // 10), atol=3)
    with pytest.raises(DataError, match="unexpected entry"):
        formats.cifar_jpeg(lzma.compress(tar(*entries, ("train/cow/0000.jpg", jpeg()))), "archive")
    with pytest.raises(DataError, match="no test images"):
        formats.cifar_jpeg(lzma.compress(tar(*entries[:20])), "archive")


@pytest.mark.parametrize(
    ("pack", "unpack"), [(gzip.compress, formats.gunzip), (lzma.compress, formats.unxz)], ids=["gzip", "xz"]
)
def test_compressed_files(pack, unpack):
    plain = bytes(range(256)) * 64
    packed = pack(plain)
    assert unpack(packed, len(plain), "file") == plain
    with pytest.raises(DataError, match="more than"):
        unpack(packed, len(plain) - 1, "file")
    with pytest.raises(DataError, match="more than"):
        unpack(pack(bytes(50_000_000)), 1000, "file")
    with pytest.raises(DataError, match="cut short"):
        unpack(packed[:-20], len(plain), "file")
    with pytest.raises(DataError, match="after its end"):
        unpack(packed + b"x", len(plain), "file")
    with pytest.raises(DataError, match="not a sound"):
        unpack(b"no such thing", 1000, "file")


def special(kind: bytes, name="a", **fields) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = kind
    for field, value in fields.items():
        setattr(info, field, value)
    return info


def raw_header(kind: bytes, size: int, **changes: int) -> bytes:
    """The 512 bytes of a header, with a length that tarfile would not write and bytes changed at will."""
    header = bytearray(special(kind).tobuf(tarfile.GNU_FORMAT))
    header[124:136] = (size % 2**96).to_bytes(12) if size < 0 else b"%011o\0" % size
    for place, value in changes.items():
        header[int(place.strip("_"))] = value
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


END = bytes(1024)
LONG_NAME = raw_header(b"L", 512) + b"a".ljust(512, b"\0")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        *[(raw_header(kind, -1024) + END, "an entry of -1,024 bytes") for kind in (b"0", b"x", b"L", b"K", b"g", b"Z")],
        (LONG_NAME * 3000 + raw_header(b"0", 0) + END, "recursion"),
        (raw_header(b"S", 0, _482=1), "not a sound"),
        (raw_header(b"S", 0, _482=1) + bytes(100), "not a sound"),
        (raw_header(b"x", 512) + b"18 size=-00000512\n".ljust(512, b"\0") + raw_header(b"0", 0) + END, "-512 bytes"),
        (raw_header(b"x", 10**6) + b"1" * 10**6, "an entry of 1,000,000 bytes"),
    ],
    ids=["back", "pax back", "name back", "link back", "global back", "unknown back", "chain", "sparse", "sparse cut",
         "pax size", "digits"],
)  # fmt: skip
def test_tars_that_would_keep_their_reader_busy_or_break_it(content, says):
    """Without the limits some of these run for ever, or for hours; each is refused in a moment."""
    assert formats.read_tar(LONG_NAME + raw_header(b"0", 0) + END, members=5, member_bytes=100, what="f") == {"a": b""}
    with time_limit(10), pytest.raises(DataError, match=says):
        formats.read_tar(content, members=5, member_bytes=100, what="archive")


@contextlib.contextmanager
def time_limit(seconds):
    """Fail rather than hang."""

    def stop(*_):
        raise TimeoutError(f"not done after {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (tar(("../a", b"")), "leads outside"),
        (tar(("b/../../a", b"")), "leads outside"),
        (tar(("/etc/passwd", b"")), "leads outside"),
        (tar(("C:\\a", b"")), "leads outside"),
        (tar(special(tarfile.DIRTYPE, "../up")), "leads outside"),
        (tar(special(tarfile.SYMTYPE, linkname="/etc/passwd")), "not a plain file"),
        (tar(special(tarfile.LNKTYPE, linkname="b")), "not a plain file"),
        (tar(special(tarfile.CHRTYPE)), "not a plain file"),
        (tar(special(tarfile.FIFOTYPE)), "not a plain file"),
        (tar(special(tarfile.GNUTYPE_SPARSE, size=1)), "not a plain file|not a sound"),
        (tar(special(tarfile.REGTYPE, size=2**40)), "1,099,511,627,776 bytes"),
        (tar(("a", bytes(101))), "101 bytes; 100 are allowed"),
        (tar(("a", b""), ("a", b"")), "twice"),
        (tar(*[(str(i), b"") for i in range(6)]), "more than the 5 entries"),
        (tar(("a", bytes(90)))[:560], "not a sound"),
        (b"no tar" * 200, "not a sound"),
        (b"", "not a sound"),
    ],
)
def test_hostile_tars(content, says):
    with pytest.raises(DataError, match=says):
        formats.read_tar(content, members=5, member_bytes=100, what="archive")


FIVE = [(f"{i}", bytes([65 + i]) * 600) for i in range(5)]  # an entry is 512 bytes of header and 1024 of content


def _flipped(content, place):
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


@pytest.mark.parametrize(
    ("damage", "place"),
    [
        (lambda content: _flipped(content, 4 * 1536 + 3), 4 * 1536),
        (lambda content: content[: 3 * 1536], 3 * 1536),
        (lambda content: content[: 3 * 1536 + 100], 3 * 1536),
        (lambda content: content[: 5 * 1536 + 100], 5 * 1536),
    ],
    ids=["fifth header", "cut between entries", "cut in a header", "cut in the end mark"],
)
def test_a_damaged_or_cut_tar_does_not_lose_files_in_silence(damage, place):
    whole = tar(*FIVE)
    assert formats.read_tar(whole, members=5, member_bytes=600, what="f") == dict(FIVE)
    for refused in (None, []):
        with pytest.raises(DataError, match=rf"f is not a sound tar file \(damaged or cut at byte {place:,}\)"):
            formats.index_tar(io.BytesIO(damage(whole)), members=5, member_bytes=600, what="f", refused=refused)


def test_entries_that_are_not_to_be_read_can_be_named_instead():
    refused = []
    content = tar(
        ("a", b"1"), special(tarfile.SYMTYPE, "link", linkname="a"), ("long", bytes(700)), ("at 12:30", b"2")
    )  # fmt: skip
    index = formats.index_tar(io.BytesIO(content), members=9, member_bytes=600, what="f", refused=refused)
    assert {name: content[start : start + length] for name, (start, length) in index.items()} == {
        "a": b"1",
        "at 12:30": b"2",
    }
    assert refused == [("link", "is not a plain file"), ("long", "has 700 bytes; 600 are allowed")]
    for bad in (("../b", b""), ("a", b""), special(tarfile.SYMTYPE, "/b", linkname="a")):
        with pytest.raises(DataError, match=r"leads outside|twice"):
            formats.index_tar(io.BytesIO(tar(("a", b""), bad)), members=9, member_bytes=9, what="f", refused=[])


def idx(shape, values: bytes, kind=8) -> bytes:
    return bytes((0, 0, kind, len(shape))) + np.array(shape, ">u4").tobytes() + values


def test_idx():
    np.testing.assert_array_equal(formats.parse_idx(idx((2, 3), bytes(range(6))), 2, "f"), [[0, 1, 2], [3, 4, 5]])


@pytest.mark.parametrize(
    "content",
    [
        b"",
        idx((2, 3), bytes(6))[:7],
        idx((2, 3), bytes(6), kind=13),
        idx((6,), bytes(6)),
        idx((2, 3), bytes(5)),
        idx((2, 3), bytes(7)),
        # 2^64 values: zero, were the product to overflow.
        idx((2**32 - 1, 2**32 - 1), b""),
        idx((2**31, 2**31), b""),
    ],
)
def test_lying_idx(content):
    with pytest.raises(DataError, match=r"f (is not|announces)"):
        formats.parse_idx(content, 2, "f")


def test_bad_cifar_batches():
    for content, says in ((b"", "no whole"), (bytes(3072), "no whole"), (b"\x0a" + bytes(3072), "label 10")):
        with pytest.raises(DataError, match=says):
            formats.parse_cifar_batch(content, "batch")


def huge_jpeg() -> bytes:
    """A small file whose header announces 65500 x 65500 pixels."""
    content = bytearray(jpeg())
    start = content.index(b"\xff\xc0")
    content[start + 5 : start + 9] = (65500).to_bytes(2) * 2
    return bytes(content)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (jpeg(kind="PNG"), "not a sound JPEG"),
        (jpeg(kind="GIF"), "not a sound JPEG"),
        (jpeg(size=(33, 32)), "33 x 32 RGB picture, not 32 x 32"),
        (jpeg(color=9, mode="L"), "32 x 32 L picture"),
        (jpeg()[:-40], "not a sound JPEG"),
        (huge_jpeg(), "not a sound JPEG|65500 x 65500"),
        (b"", "not a sound JPEG"),
    ],
)
def test_hostile_pictures(content, says):
    with pytest.raises(DataError, match=says):
        formats.decode_jpeg(content, (32, 32), "train/cat/0000.jpg")


def sound_inputs():
    read_tar = partial(formats.read_tar, members=50, member_bytes=10_000, what="f")
    return [
        (tar(("a", b"1" * 600), special(tarfile.DIRTYPE, "d"), ("n" * 150, b"2")), read_tar),
        (jpeg(), partial(formats.decode_jpeg, size=(32, 32), what="f")),
        (gzip.compress(b"abc" * 200), partial(formats.gunzip, limit=1000, what="f")),
        (lzma.compress(b"abc" * 200), partial(formats.unxz, limit=1000, what="f")),
        (idx((2, 3), bytes(6)), partial(formats.parse_idx, dimensions=2, what="f")),
    ]


@pytest.mark.filterwarnings("ignore:.*:UserWarning")
@pytest.mark.parametrize("which", range(5), ids=["tar", "jpeg", "gzip", "xz", "idx"])
@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    changes=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=6),
    cut=st.integers(0, 40),
)
def test_damaged_bytes_end_in_data_error_only(which, changes, cut):
    content, parse = sound_inputs()[which]
    damaged = bytearray(content)
    for where, value in changes:
        damaged[where % len(damaged)] = value
    with contextlib.suppress(DataError):
        parse(bytes(damaged[: len(damaged) - cut]))
