"""Data: what `load` gives, the cache folder and downloads."""

import gzip
import hashlib
import subprocess
import sys
import threading
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from nnjax import data
from nnjax.data import DataError, cache, loaders


def source_of(content: bytes, url: str | None = None, path: str = "mnist/some.gz") -> cache.SourceFile:
    return cache.SourceFile("mnist", path, len(content), hashlib.sha256(content).hexdigest(), url)


def place(root: Path, source: cache.SourceFile, content: bytes) -> Path:
    path = root / source.path
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def sentence(error) -> str:
    """The text of a raised error, which must be one sentence."""
    text = str(error.value)
    assert "\n" not in text
    assert ". " not in text
    return text


# --- load -------------------------------------------------------------------------------------------------


def test_unknown_name_names_the_value_the_nearest_and_all():
    with pytest.raises(ValueError, match=r"'mnits'.*mean 'mnist'") as error:
        data.load("mnits")
    assert all(name in str(error.value) for name in data.names())


@pytest.mark.parametrize(
    ("name", "train", "test", "shape", "classes"),
    [
        ("digits", 1438, 359, (8, 8, 1), 10),
        ("iris", 120, 30, (4,), 3),
        ("wine", 142, 36, (13,), 3),
        ("breast_cancer", 455, 114, (30,), 2),
    ],
)
def test_bundled_sets(name, train, test, shape, classes):
    loaded = data.load(name)
    assert loaded.name == name
    assert len(loaded.class_names) == classes
    for part, n in ((loaded.train, train), (loaded.test, test)):
        assert (part.x.shape, part.x.dtype) == ((n, *shape), np.float32)
        assert (part.y.shape, part.y.dtype) == ((n,), np.int32)
    whole = np.bincount(np.concatenate([loaded.train.y, loaded.test.y]))
    share = whole * test / (train + test)
    assert np.abs(np.bincount(loaded.test.y, minlength=classes) - share).max() < 1
    if name == "digits":
        assert loaded.train.x.min() == 0
        assert loaded.train.x.max() == 1
    again = data.load(name)
    np.testing.assert_array_equal(loaded.train.x, again.train.x)


def test_default_split_is_the_same_on_every_machine():
    assert data.load("iris").train.y[:12].tolist() == [1, 1, 1, 0, 0, 2, 2, 0, 2, 0, 2, 0]


def test_import_is_light():
    heavy = ["sklearn", "pooch", "requests", "scipy.sparse", "PIL", "xarray", "matplotlib"]
    code = f"import sys, nnjax.data; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("name", "first", "md5_train", "md5_test", "counts"),
    [
        (
            "mnist",
            [5, 0, 4, 1],
            "6bbc9ace898e44ae57da46a324031adb",
            "2646ac647ad5339dbf082846283269ea",
            [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949],
        ),
        (
            "fashion_mnist",
            [9, 0, 0, 3],
            "f4a8712d7a061bf5bd6d2ca38dc4d50a",
            "8181f5470baa50b63fa0f6fddb340f0a",
            [6000] * 10,
        ),
    ],
)
def test_idx_sets(real_data, name, first, md5_train, md5_test, counts):
    before = sorted(real_data.iterdir())
    loaded = data.load(name)
    assert sorted(real_data.iterdir()) == before
    assert loaded.train.x.shape == (60_000, 28, 28, 1)
    assert loaded.test.x.shape == (10_000, 28, 28, 1)
    assert loaded.train.x.dtype == np.float32
    assert loaded.train.y.dtype == np.int32
    assert (loaded.train.x.min(), loaded.train.x.max()) == (0, 1)
    assert loaded.train.y[:4].tolist() == first
    assert np.bincount(loaded.train.y).tolist() == counts
    assert len(loaded.class_names) == 10
    # Back to bytes and header: every pixel against the known md5 of the uncompressed files.
    for part, md5 in ((loaded.train, md5_train), (loaded.test, md5_test)):
        header = np.array([0x803, len(part.x), 28, 28], ">u4").tobytes()
        pixels = np.rint(part.x * 255).astype(np.uint8).tobytes()
        assert hashlib.md5(header + pixels).hexdigest() == md5


def test_a_set_of_idx_files_is_read_as_the_real_ones_are(tmp_path, monkeypatch):
    sides = {"train": 3, "test": 2}
    sources, pixels = [], {}
    for side, n in sides.items():
        pixels[side] = np.arange(n * 784, dtype=np.uint8).reshape(n, 28, 28)
        images = bytes((0, 0, 8, 3)) + np.array((n, 28, 28), ">u4").tobytes() + pixels[side].tobytes()
        labels = bytes((0, 0, 8, 1)) + np.array((n,), ">u4").tobytes() + bytes(range(n))
        for kind, plain in (("images", images), ("labels", labels)):
            packed = gzip.compress(plain)
            sources.append(source_of(packed, path=f"mnist/{side}-{kind}.gz"))
            place(tmp_path, sources[-1], packed)
    monkeypatch.setitem(loaders._LOADERS, "mnist", partial(loaders._idx, tuple(sources), loaders._DIGIT_NAMES))
    loaded = data.load("mnist", cache=tmp_path)
    assert type(loaded) is data.Dataset
    assert (loaded.name, loaded.class_names) == ("mnist", tuple("0123456789"))
    for side, n in sides.items():
        part = getattr(loaded, side)
        assert type(part) is data.Split
        assert (part.x.shape, part.x.dtype, part.y.dtype) == ((n, 28, 28, 1), np.float32, np.int32)
        np.testing.assert_allclose(part.x[..., 0] * 255, pixels[side], rtol=1e-6)
        assert part.y.tolist() == [*range(n)]


def test_an_archive_is_read_as_the_real_ones_are(tmp_path, monkeypatch):
    source = source_of(b"packed", path="cifar-10/some.tar")
    place(tmp_path, source, b"packed")

    def parse(content, what):
        assert content == b"packed"
        assert "some.tar" in what
        return ((np.full((2, 32, 32, 3), 255, np.uint8), np.array([9, 0], np.uint8)),) * 2

    monkeypatch.setitem(loaders._LOADERS, "cifar10", partial(loaders._archive, source, parse))
    loaded = data.load("cifar10", cache=tmp_path)
    assert loaded.class_names[:2] == ("airplane", "automobile")
    assert (loaded.test.x == 1).all()
    assert loaded.train.y.tolist() == [9, 0]


def test_names_are_those_that_load_knows():
    assert data.names() == (
        "digits", "iris", "wine", "breast_cancer", "mnist", "fashion_mnist", "cifar10", "cifar10_jpeg",
    )  # fmt: skip


# --- the cache folder ---------------------------------------------------------------------------------------


def test_which_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("NNJAX_DATA", str(tmp_path / "named"))
    assert cache.folder() == tmp_path / "named"
    assert cache.folder(tmp_path / "given") == tmp_path / "given"
    monkeypatch.setenv("NNJAX_DATA", "")
    assert cache.folder() == cache._per_user_folder()
    assert cache.folder().name == "nnjax"


def test_damaged_files_are_named(tmp_path):
    source = source_of(b"content", "https://example.org/some.gz")
    path = place(tmp_path, source, b"CONTENT")
    with pytest.raises(DataError, match="SHA-256") as error:
        cache.read(source, cache=tmp_path)
    text = sentence(error)
    found = hashlib.sha256(b"CONTENT").hexdigest()[:12]
    assert all(part in text for part in (str(path), found, source.sha256[:12], "delete it to download again"))
    path.write_bytes(b"content and more")
    with pytest.raises(DataError, match=r"damaged: .* bytes where 7 were expected; delete it"):
        cache.read(source, cache=tmp_path)
    path.unlink()
    path.mkdir()
    with pytest.raises(DataError, match="not a regular file"):
        cache.read(source, cache=tmp_path)


@pytest.mark.parametrize(("step", "url"), [("stat", None), ("open", "https://example.org/some.gz")])
def test_files_that_cannot_be_read_are_named(tmp_path, monkeypatch, step, url):
    source = source_of(b"content", url)
    path = place(tmp_path, source, b"content")
    original = getattr(Path, step)

    def refuse(self, *arguments, **options):
        if self == path:
            raise PermissionError(13, "Permission denied")
        return original(self, *arguments, **options)

    monkeypatch.setattr(Path, step, refuse)
    with pytest.raises(
        DataError, match=r"some.gz cannot be read \(Permission denied\); check its permissions"
    ) as error:
        cache.read(source, cache=tmp_path)
    sentence(error)


def test_a_damaged_file_without_an_address_is_to_be_replaced(tmp_path):
    source = source_of(b"content")
    place(tmp_path, source, b"CONTENT")
    with pytest.raises(DataError, match="put the right file in its place"):
        cache.read(source, cache=tmp_path)


def test_no_public_download_is_said(tmp_path):
    with pytest.raises(DataError, match=r"cifar10_jpeg.*no public download.*NNJAX_DATA") as error:
        data.load("cifar10_jpeg", cache=tmp_path / "none")
    assert str(tmp_path / "none" / "cifar-10" / "cifar-10-images-jpeg.tar.xz") in sentence(error)
    assert not (tmp_path / "none").exists()


# --- downloads ----------------------------------------------------------------------------------------------

GOOD = b"0123456789" * 20_000


class Handler(BaseHTTPRequestHandler):
    sent = 0

    def do_GET(self):
        name = self.path.strip("/")
        if name == "elsewhere":
            self.send_response(302)
            self.send_header("Location", f"http://localhost:{self.server.server_port}/good")
            self.end_headers()
            return
        if name == "missing":
            self.send_error(404)
            return
        bodies = {"good": GOOD, "corrupt": GOOD[::-1], "short": GOOD[:1000], "endless": GOOD * 500}
        self.send_response(200)
        self.end_headers()
        try:
            self.wfile.write(bodies[name])
        except OSError:
            type(self).sent += 1

    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def server():
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}/"
        running.shutdown()
        thread.join()


@pytest.fixture
def local(monkeypatch):
    """Let the loopback address, and no other, stand for https."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    plain = partial(cache._download, schemes=("http://127.0.0.1",))
    monkeypatch.setattr(cache, "_download", plain)


@pytest.mark.usefixtures("local")
def test_download(server, tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "_per_user_folder", lambda: tmp_path / "deep" / "user")
    monkeypatch.delenv("NNJAX_DATA", raising=False)
    source = source_of(GOOD, server + "good")
    assert cache.read(source) == GOOD
    root = tmp_path / "deep" / "user"
    assert root.stat().st_mode & 0o777 == 0o700
    assert [path.name for path in (root / "mnist").iterdir()] == ["some.gz"]
    # The second time from the folder: the address is not asked.
    assert cache.read(source._replace(url="https://127.0.0.1:1/")) == GOOD


@pytest.mark.usefixtures("local")
@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("corrupt", "thrown away: its SHA-256"),
        ("short", "sent 1,000 of 200,000 bytes"),
        ("endless", "sent more than 200,000 bytes"),
        ("missing", "answered with status 404"),
        ("elsewhere", "not https"),
        ("http://localhost:1/", "not https"),
        ("http://127.0.0.1:1/", "no network"),
    ],
)
def test_bad_downloads_leave_nothing(server, tmp_path, address, says):
    source = source_of(GOOD, address if ":" in address else server + address)
    with pytest.raises(DataError, match=says) as error:
        cache.read(source, cache=tmp_path)
    text = sentence(error)
    assert "'mnist'" in text
    assert "some.gz" in text
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_plain_http_is_refused_by_default(server, tmp_path):
    with pytest.raises(DataError, match="not https"):
        cache.read(source_of(GOOD, server + "good"), cache=tmp_path)


def test_every_address_is_https_and_every_checksum_whole():
    for source in (*loaders._MNIST, *loaders._FASHION_MNIST, loaders._CIFAR10, loaders._CIFAR10_JPEG):
        assert source.url is None or source.url.startswith("https://")
        assert len(bytes.fromhex(source.sha256)) == 32


@pytest.mark.usefixtures("local")
def test_unwritable_folder_and_full_disk(server, tmp_path, monkeypatch):
    source = source_of(GOOD, server + "good")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DataError, match=r"could not be saved.*set NNJAX_DATA") as error:
        cache.read(source, cache=tmp_path / "file")
    sentence(error)

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache.os, "fsync", full)
    with pytest.raises(DataError, match="No space left on device") as error:
        cache.read(source, cache=tmp_path)
    sentence(error)
    assert not list((tmp_path / "mnist").iterdir())
