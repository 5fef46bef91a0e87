"""Files that are whole or not there, folders with one owner, chunks whose damage is seen, and the report."""

import errno
import fcntl
import functools
import hashlib
import io
import json
import os
import random
import shutil
import signal
import stat
import subprocess
import sys
import time
import types
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from nnjax import results
from nnjax.results import Folder, ResultsError, Row

IDENTITY = {"config": {"lr": 0.1, "widths": [1, 2]}, "code": "abc"}
ARRAYS = {"loss": np.linspace(0, 1, 50), "ok": np.array([True, False]), "name": np.array(["a", "bc"])}


def tree(shift=0.0):
    loss = xr.Dataset(
        {
            "loss": (("width", "seed"), np.arange(6.0).reshape(2, 3) + shift),
            "diverged": ("width", np.array([True, False])),
        },
        coords={"width": ["small", "large"], "seed": [0, 1, 2]},
        attrs={"data": "digits"},
    )
    return xr.DataTree.from_dict({"/": xr.Dataset(attrs={"title": "two panels"}), "/nets": loss, "/nets/extra": loss})


def names(folder):
    return sorted(path.name for path in Path(folder).iterdir())


def python(code, *arguments, **options):
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


# Writing: the old file or the new one, never a part


def flip(path, position, bit=0):
    content = bytearray(path.read_bytes())
    content[position] ^= 1 << bit
    path.write_bytes(bytes(content))


def fail_at(monkeypatch, step, code):
    """Make one step of an atomic write fail; for ``write`` after half of the content went out."""

    def refuse(*_, **__):
        raise OSError(code, os.strerror(code))

    if step == "fsync":
        monkeypatch.setattr(os, "fsync", refuse)
    elif step == "rename":
        monkeypatch.setattr(Path, "replace", refuse)
    elif step == "open":
        original = Path.open
        monkeypatch.setattr(
            Path,
            "open",
            lambda self, mode="r", *a, **k: refuse() if "w" in mode else original(self, mode, *a, **k),
        )
    else:
        original = Path.open

        class Full(io.FileIO):
            def write(self, content):
                super().write(content[: len(content) // 2])
                refuse()

        monkeypatch.setattr(
            Path,
            "open",
            lambda self, mode="r", *a, **k: Full(self, "w") if "w" in mode else original(self, mode, *a, **k),
        )


WRITERS = {
    "bytes": (results.write_bytes, b"old" * 100, b"new" * 200),
    "json": (results.write_json, {"a": 1}, {"a": 2, "b": [1, 2]}),
    "arrays": (results.write_arrays, ARRAYS, {"loss": np.ones(3)}),
    "tree": (results.write_tree, tree(), tree(1.0)),
}


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EACCES], ids=errno.errorcode.get)
@pytest.mark.parametrize("step", ["open", "write", "fsync", "rename"])
@pytest.mark.parametrize("kind", WRITERS)
def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, kind, step, code):
    write, old, new = WRITERS[kind]
    path = tmp_path / "deep" / "file"
    write(path, old)
    before = path.read_bytes()
    with monkeypatch.context() as patched:
        fail_at(patched, step, code)
        with pytest.raises(OSError, match=os.strerror(code)) as caught:
            write(path, new)
        assert caught.value.errno == code
        with pytest.raises(OSError, match=os.strerror(code)):
            write(tmp_path / "deep" / "another", new)
    assert path.read_bytes() == before
    assert names(path.parent) == ["file"]
    write(path, new)
    assert path.read_bytes() != before
    assert names(path.parent) == ["file"]


def test_the_folder_is_flushed_after_the_rename(tmp_path, monkeypatch):
    calls, replace, fsync = [], Path.replace, os.fsync
    monkeypatch.setattr(Path, "replace", lambda self, to: calls.append("rename") or replace(self, to))

    def flush(descriptor):
        calls.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", flush)
    results.write_bytes(tmp_path / "a", b"x")
    assert calls == ["file", "rename", "folder"]


def test_a_file_system_that_refuses_more_bytes(tmp_path):
    code = """
import resource, sys
from pathlib import Path
from nnjax import results
path = Path(sys.argv[1])
results.write_bytes(path, b"old")
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    results.write_bytes(path, b"x" * 100_000)
except OSError as error:
    print(error.errno, path.read_bytes(), sorted(p.name for p in path.parent.iterdir()))
"""
    out, err = python(code, tmp_path / "file").communicate(timeout=60)
    assert out == f"{errno.EFBIG} b'old' ['file']\n", err


def test_checksums_are_of_the_bytes_on_disk_and_equal_arrays_give_equal_bytes(tmp_path):
    sums = []
    for name in ("a", "b"):
        sums.append(results.write_arrays(tmp_path / name, {k: v.copy() for k, v in ARRAYS.items()}))
        assert hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() == sums[-1]
    assert sums[0] == sums[1]
    assert results.write_arrays(tmp_path / "c", ARRAYS | {"loss": ARRAYS["loss"] + 1e-15}) != sums[0]
    assert results.write_json(tmp_path / "d", {"b": 1, "a": 2}) == results.write_json(tmp_path / "e", {"a": 2, "b": 1})
    assert json.loads((tmp_path / "d").read_text()) == {"a": 2, "b": 1}


def test_arrays_come_back_as_they_were(tmp_path):
    arrays = ARRAYS | {
        "file": np.arange(3),
        "allow_pickle": np.float32(2.5),
        "empty": np.zeros((0, 3)),
        "nan": np.array([np.nan]),
    }
    results.write_arrays(tmp_path / "a.npz", arrays)
    back = results.read_arrays(tmp_path / "a.npz")
    assert list(back) == list(arrays)
    for name, value in arrays.items():
        assert back[name].dtype == np.asarray(value).dtype
        np.testing.assert_array_equal(back[name], value)
    with np.load(tmp_path / "a.npz") as plain:  # any NumPy reads it
        np.testing.assert_array_equal(plain["loss"], ARRAYS["loss"])


@pytest.mark.parametrize("value", [np.array([1, "a", None], object), [None], np.array([(1, None)], dtype="i4,O")])
def test_objects_are_not_stored(tmp_path, value):
    with pytest.raises(ValueError, match="array 'bad' has dtype object"):
        results.write_arrays(tmp_path / "a.npz", {"good": np.ones(2), "bad": value})
    assert names(tmp_path) == []


# Reading: damage is one sentence


def one_sentence(error):
    text = str(error.value)
    assert isinstance(error.value, ResultsError)
    assert "\n" not in text
    assert ". " not in text
    assert "If you trust" not in text
    return text


@pytest.mark.parametrize("read", [results.read_arrays, results.read_tree])
def test_reading_what_is_missing_or_of_another_kind(tmp_path, read):
    path = tmp_path / "missing.file"
    with pytest.raises(ResultsError, match="there is no") as error:
        read(path)
    assert "missing.file" in one_sentence(error)
    np.save(tmp_path / "plain.npy", np.ones(3))
    for content in (b"", b"\x00", b"not an archive. " * 40, (tmp_path / "plain.npy").read_bytes()):
        path.write_bytes(content)
        with pytest.raises(ResultsError, match="damaged or not") as error:
            read(path)
        one_sentence(error)


def test_pickled_objects_are_refused_unread(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "exploded",))

    np.savez(tmp_path / "bomb.npz", a=np.array([Bomb()], object))
    with pytest.raises(ResultsError, match=r"damaged or not an \.npz of plain arrays") as error:
        results.read_arrays(tmp_path / "bomb.npz")
    one_sentence(error)
    assert not (tmp_path / "exploded").exists()


def test_truncated_and_flipped_archives_never_give_wrong_numbers(tmp_path):
    path = tmp_path / "a.npz"
    results.write_arrays(path, ARRAYS)
    whole = path.read_bytes()
    rng = random.Random(0)
    for length in [1, len(whole) - 1, *(rng.randrange(len(whole)) for _ in range(10))]:
        path.write_bytes(whole[:length])
        with pytest.raises(ResultsError, match="damaged"):
            results.read_arrays(path)
    refused = 0
    for _ in range(60):
        path.write_bytes(whole)
        flip(path, rng.randrange(len(whole)), rng.randrange(8))
        try:
            back = results.read_arrays(path)
        except ResultsError as error:
            refused += "damaged" in str(error)
        else:  # a bit without meaning, such as a date: then nothing has changed
            assert all(np.array_equal(back[name], value) for name, value in ARRAYS.items())
    assert refused >= 40
    path.write_bytes(whole)
    flip(path, whole.index(ARRAYS["loss"].tobytes()) + 100)
    with pytest.raises(ResultsError, match="damaged"):
        results.read_arrays(path)


def test_trees_come_back_and_their_digest_sees_every_change(tmp_path):
    made = tree()
    results.write_tree(tmp_path / "a.nc", made)
    results.write_tree(tmp_path / "b.nc", made)
    assert names(tmp_path) == ["a.nc", "b.nc"]
    back = results.read_tree(tmp_path / "a.nc")
    assert back.identical(made)
    assert results.digest(back) == results.digest(made) == results.digest(results.read_tree(tmp_path / "b.nc"))
    (tmp_path / "a.nc").unlink()
    assert float(back["nets/loss"].sum()) == 15  # in memory, not a view of the file

    nets = made["nets"].to_dataset()
    others = [
        made.assign(scalar=xr.DataArray(1.0)),
        tree(1e-12),
        xr.DataTree.from_dict({"/nets": nets.assign_coords(seed=[0, 1, 3])}),
        xr.DataTree.from_dict({"/nets": nets.assign_coords(width=["small", "big"])}),
        xr.DataTree.from_dict({"/nets": nets.rename(loss="error"), "/nets/extra": nets}),
        xr.DataTree.from_dict({"/other": nets, "/other/extra": nets}),
        xr.DataTree.from_dict({"/nets": nets.transpose("seed", "width"), "/nets/extra": nets}),
        xr.DataTree.from_dict({"/nets": nets.assign(loss=nets["loss"].astype(np.float32)), "/nets/extra": nets}),
    ]
    digests = {results.digest(other) for other in [made, *others]}
    assert len(digests) == len(others) + 1


def test_a_truncated_tree_is_damaged(tmp_path):
    path = tmp_path / "a.nc"
    results.write_tree(path, tree())
    whole = path.read_bytes()
    for length in (10, 600, len(whole) // 2):
        path.write_bytes(whole[:length])
        with pytest.raises(ResultsError, match="damaged or not a netCDF-4 file") as error:
            results.read_tree(path)
        one_sentence(error)


# What made a run


def test_environment_is_an_allow_list(monkeypatch):
    monkeypatch.setenv("MY_SECRET_TOKEN", "hunter2")
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    made = results.provenance()
    allowed = {"JAX_PLATFORMS", "XLA_FLAGS", "OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "JAX_ENABLE_X64"}
    assert set(made["environment"]) <= allowed
    assert made["environment"]["OMP_NUM_THREADS"] == "3"
    assert "hunter2" not in json.dumps(made)
    assert "MY_SECRET_TOKEN" not in json.dumps(made)
    assert made["backend"] == "cpu"
    assert made["devices"] == 2
    assert made["float64"] is False
    assert made["versions"]["numpy"] == np.__version__


def test_code_digest_changes_with_any_source(tmp_path, monkeypatch):
    package = tmp_path / "nnjax"
    shutil.copytree(Path(results.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    study = types.SimpleNamespace(__file__=str(tmp_path / "study.py"))
    Path(study.__file__).write_text("a = 1\n")
    original = results.code_digest()
    monkeypatch.setattr(results, "__file__", str(package / "results.py"))
    assert results.code_digest() == original
    assert len(original) == 16
    seen = [original, results.code_digest(study)]
    Path(study.__file__).write_text("a = 2\n")
    seen.append(results.code_digest(study))
    deep = package / "models" / "mlp.py"
    deep.write_text(deep.read_text() + "\n")
    seen.append(results.code_digest())
    (package / "new.py").write_text("")
    seen.append(results.code_digest())
    assert len(set(seen)) == len(seen)


def test_code_digest_is_of_what_a_study_imports_from_its_own_folder(tmp_path, monkeypatch):
    sources = {
        "study": "import numpy\nfrom lab import _lanes as lanes\nfrom lab._rows import rows\nimport lab._figures",
        "_lanes": "def run():\n    from . import _theory\n",
        "_rows": "from ._words import *\n",
        "_figures": "import _alone\nimport lab.study\n",
        "_theory": "(",
        "_words": "import lab.deeper.parts\n",
        "_alone": "",
        "__init__": "import _start",
        "_start": "",
    }
    for name, text in {**sources, "unrelated": "import study", "numpy_": "", "lanes": "", "parts": ""}.items():
        (tmp_path / "lab").mkdir(exist_ok=True)
        (tmp_path / "lab" / f"{name}.py").write_text(text)
    study = types.SimpleNamespace(__file__=str(tmp_path / "lab" / "study.py"))
    original = results.code_digest(study)
    for name, text in sources.items():
        path = tmp_path / "lab" / f"{name}.py"
        path.write_text(f"{text}\n# changed")
        assert results.code_digest(study) != original, name
        path.write_text(text)
    for name in ("unrelated", "numpy_", "lanes", "parts"):
        (tmp_path / "lab" / f"{name}.py").write_text("changed")
    assert results.code_digest(study) == original
    monkeypatch.chdir(tmp_path)
    study.__file__ = "lab/../lab/study.py"  # by whatever path
    assert results.code_digest(study, study) == original
    (tmp_path / "lab").rename(tmp_path / "moved")
    (tmp_path / "moved" / "study.py").write_text("import moved._lanes")
    alone = results.code_digest(types.SimpleNamespace(__file__=str(tmp_path / "moved" / "study.py")))
    (tmp_path / "moved" / "_rows.py").write_text("changed")
    assert results.code_digest(types.SimpleNamespace(__file__=str(tmp_path / "moved" / "study.py"))) == alone


def test_fingerprint_is_plain_json():
    made = results.fingerprint({"widths": (1, 2), "path": Path("x")})
    assert made == json.loads(json.dumps(made))
    assert made["config"] == {"widths": [1, 2], "path": "x"}
    assert {"code", "jax", "device", "devices"} < set(made)


# The folder


def test_another_identity_is_refused_with_the_difference(tmp_path):
    with Folder(tmp_path / "run", IDENTITY):
        pass
    with Folder(tmp_path / "run", IDENTITY):
        pass
    other = {"config": {"lr": 0.2, "widths": [1, 2]}, "code": "abc"}
    with pytest.raises(ResultsError, match=r"belongs to another run \(config.lr 0.1 there, 0.2 now\)") as error:
        Folder(tmp_path / "run", other)
    assert "--force-new" in one_sentence(error)
    with pytest.raises(
        ResultsError, match=r"config.extra null there, \"x+\.\.\. now; config.widths \[1, 2\] there, null now"
    ):
        Folder(tmp_path / "run", {"config": {"lr": 0.1, "extra": "x" * 200}, "code": "abc"})
    many = {"config": {f"p{i}": i for i in range(9)}}
    with pytest.raises(ResultsError, match="and 8 more"):
        Folder(tmp_path / "run", many)
    with Folder(tmp_path / "run", IDENTITY):  # a refusal gives the lock back
        pass


def test_force_new_takes_the_next_free_folder_and_returns_to_its_own(tmp_path):
    path = tmp_path / "run"
    identities = [{"config": {"widths": (1, i)}} for i in range(3)]  # tuples, which JSON turns into lists
    for identity, expected in zip(identities, ("run", "run-2", "run-3"), strict=True):
        for _ in range(2):
            with Folder(path, identity, force_new=True) as folder:
                assert folder.path.name == expected
    with Folder(path, identities[0]) as folder:
        assert folder.path == path
    (tmp_path / "run-2" / "manifest.json").write_text("{")  # damaged: passed over
    with Folder(path, identities[1], force_new=True) as folder:
        assert folder.path.name == "run-4"
    assert names(tmp_path) == ["run", "run-2", "run-3", "run-4"]


def test_a_foreign_folder_is_refused_untouched(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    (tmp_path / "lock").write_text("mine")
    with pytest.raises(ResultsError, match=r"holds files of something else \(thesis.tex\)") as error:
        Folder(tmp_path, IDENTITY)
    one_sentence(error)
    assert names(tmp_path) == ["lock", "thesis.tex"]
    assert (tmp_path / "lock").read_text() == "mine"


def test_a_path_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("x")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ResultsError, match="cannot be") as error:
            Folder(path, IDENTITY)
        one_sentence(error)
    assert (tmp_path / "file").read_text() == "x"


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_read_only_folder(tmp_path):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(ResultsError, match=r"cannot be written \(Permission denied"):
            Folder(tmp_path / "run", IDENTITY)
    finally:
        tmp_path.chmod(0o700)


def test_no_space_for_the_first_file(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "touch", full)
    with pytest.raises(ResultsError, match=r"cannot be written \(No space left on device"):
        Folder(tmp_path / "run", IDENTITY)


SECOND = """
import sys, time
from nnjax.results import Folder, ResultsError
start = time.perf_counter()
try:
    Folder(sys.argv[1], {"a": 1})
except ResultsError as error:
    print(f"{time.perf_counter() - start:.3f} {error}")
"""

OWNER = """
import sys, time
from nnjax.results import Folder
folder = Folder(sys.argv[1], {"a": 1})
folder.write("a.txt", b"first")
print("ready", flush=True)
time.sleep(100)
"""


def test_one_process_at_a_time_and_a_killed_owner_leaves_no_lock(tmp_path):
    path = tmp_path / "run"
    owner = python(OWNER, path)
    try:
        assert owner.stdout.readline() == "ready\n"
        out, err = python(SECOND, path).communicate(timeout=60)
        seconds, message = out.split(" ", 1)
        assert float(seconds) < 1, err
        assert f"is in use by process {owner.pid} on " in message
        assert message.count("\n") == 1
        with pytest.raises(ResultsError, match=f"process {owner.pid} "):
            Folder(path, {"a": 1})
    finally:
        os.kill(owner.pid, signal.SIGKILL)
        owner.communicate()
    with Folder(path, {"a": 1}) as folder:
        assert folder.verified("a.txt")
        assert f"process {os.getpid()} " in (path / "lock").read_text()
        with pytest.raises(ResultsError, match="in use"):  # also within a process
            Folder(path, {"a": 1})
    folder.close()  # twice is harmless
    with Folder(path, {"a": 1}):
        pass


def test_complete_only_after_finish_and_while_nothing_is_harmed(tmp_path):
    with Folder(tmp_path / "run", IDENTITY) as folder:
        folder.write("report.md", b"# report")
        folder.write_tree("results.nc", tree())
        folder.store("nets").save("0", ARRAYS, {"lanes": 4, "seconds": 2.5})
        assert not folder.complete
        folder.finish()
        assert folder.complete
        folder.add_seconds({"total": 1.5})
        folder.add_seconds({"total": 2, "compile": 1})
    with Folder(tmp_path / "run", IDENTITY) as folder:
        assert folder.complete
        assert folder.seconds == {"total": 3.5, "compile": 1.0, "run": 2.5}  # the chunk's own
        entry = json.loads((folder.path / "manifest.json").read_text())["files"]["chunks/nets/0.npz"]
        assert entry["lanes"] == 4
        (folder.path / "chunks/nets/0.npz").unlink()  # not needed any more
        assert folder.complete
        flip(folder.path / "report.md", 3)
        assert not folder.complete
        assert not folder.verified("report.md")
        folder.write("report.md", b"# report")
        assert folder.complete
        (folder.path / "results.nc").unlink()
        assert not folder.complete
        assert not folder.verified("never written")


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "null", "3", '{"files": {}}', "\x00" * 50, b"\xff\xfe\x80"]
    + [
        json.dumps({"identity": IDENTITY, "complete": True, "files": {}, "seconds": {}} | change)
        for change in (
            {"files": None},
            {"files": {"a": 3}},
            {"files": {"a": {}}},
            {"seconds": [1]},
            {"seconds": {"run": "1"}},
            {"complete": 2},
        )
    ]
    + [json.dumps({"identity": IDENTITY}), json.dumps({"identity": IDENTITY, "files": {}, "seconds": {}})],
)
def test_a_damaged_manifest_is_one_sentence(tmp_path, content):
    with Folder(tmp_path / "run", IDENTITY):
        pass
    (tmp_path / "run/manifest.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    for _ in range(2):
        with pytest.raises(ResultsError, match=r"manifest\.json' is damaged") as error:
            Folder(tmp_path / "run", IDENTITY)
        one_sentence(error)


@pytest.mark.parametrize("step", ["open", "write", "fsync", "rename"])
def test_a_failed_write_keeps_the_folder_usable(tmp_path, monkeypatch, step):
    with Folder(tmp_path / "run", IDENTITY) as folder:
        store = folder.store("nets")
        store.save("0", ARRAYS, {})
        with monkeypatch.context() as patched:
            fail_at(patched, step, errno.ENOSPC)
            with pytest.raises(OSError, match="No space"):
                store.save("1", ARRAYS, {})
    with Folder(tmp_path / "run", IDENTITY) as folder:
        store = folder.store("nets")
        assert set(store.load("0")) == set(ARRAYS)
        assert store.load("1") is None
        store.save("1", ARRAYS, {})
        assert set(store.load("1")) == set(ARRAYS)


def test_figures_are_written_twice_with_equal_bytes(tmp_path):
    from nnjax import plotting

    contents = []
    for run in ("a", "b"):
        with Folder(tmp_path / run, IDENTITY) as folder:
            with plotting.style():
                figure, axes = plotting.figure()
                plotting.band(axes[0, 0], [1, 2, 3], np.arange(6.0).reshape(2, 3), label="test")
            folder.write_figures({"loss": figure})
            assert names(folder.path / "figures") == ["loss.png", "loss.svg"]
            assert folder.verified("figures/loss.png")
            contents.append([(folder.path / "figures" / name).read_bytes() for name in ("loss.png", "loss.svg")])
    assert contents[0][0].startswith(b"\x89PNG")
    assert contents[0][1].startswith(b"<?xml")
    assert contents[0] == contents[1]


# Chunks


@pytest.fixture
def folder(tmp_path):
    with Folder(tmp_path / "run", IDENTITY) as made:
        yield made


def test_chunks_come_back_also_in_a_later_process(tmp_path):
    with Folder(tmp_path / "run", IDENTITY) as folder:
        folder.store("nets").save("chunk-0", ARRAYS, {"seconds": 1.0})
        assert folder.store("nets").load("chunk-1") is None
        assert folder.store("others").load("chunk-0") is None
    with Folder(tmp_path / "run", IDENTITY) as folder:
        back = folder.store("nets").load("chunk-0")
        assert set(back) == set(ARRAYS)
        for name, value in ARRAYS.items():
            np.testing.assert_array_equal(back[name], value)


@pytest.mark.parametrize("seed", range(20))
def test_every_damage_to_a_chunk_is_seen_and_set_aside(folder, seed):
    rng = random.Random(seed)
    store = folder.store("nets")
    for i in range(3):
        store.save(f"c{i}", {"loss": np.random.default_rng(i).normal(size=(4, 5))}, {})
    harmed = [folder.path / "chunks/nets" / f"c{i}.npz" for i in range(2)]
    whole = [path.read_bytes() for path in harmed]
    damage = ("flip", "truncate", "empty", "swap")[seed % 4]
    if damage == "swap":
        harmed[0].write_bytes(whole[1])
        harmed[1].write_bytes(whole[0])
    else:
        harmed = harmed[:1]
        if damage == "flip":
            flip(harmed[0], rng.randrange(len(whole[0])), rng.randrange(8))
        else:
            harmed[0].write_bytes(whole[0][: rng.randrange(len(whole[0])) if damage == "truncate" else 0])
    for path in harmed:
        bad = path.read_bytes()
        assert store.load(path.stem) is None
        assert not path.exists()
        aside = list(path.parent.glob(f"{path.name}.damaged-*"))
        assert [p.read_bytes() for p in aside] == [bad]
        assert store.load(path.stem) is None  # and it stays so
    intact = "c2" if damage == "swap" else "c1"
    assert store.load(intact)["loss"].shape == (4, 5)
    store.save("c0", {"loss": np.ones(2)}, {})
    np.testing.assert_array_equal(store.load("c0")["loss"], np.ones(2))


def test_a_chunk_that_was_never_entered_is_set_aside(folder):
    path = folder.path / "chunks/nets/c0.npz"
    results.write_arrays(path, ARRAYS)  # as if killed between the rename and the manifest
    assert folder.store("nets").load("c0") is None
    assert not path.exists()
    assert len(list(path.parent.glob("c0.npz.damaged-*"))) == 1


WRITER = """
import sys, numpy as np
from nnjax.results import Folder
with Folder(sys.argv[1], {"a": 1}) as folder:
    store = folder.store("s")
    print("ready", flush=True)
    for i in range(100_000):
        store.save(f"c{i % 7}", {"x": np.full(20_000, i)}, {"number": i})
"""


def test_kills_in_the_middle_of_writes_leave_whole_files(tmp_path):
    rng = random.Random(int.from_bytes(os.urandom(2)))
    path = tmp_path / "run"
    loaded = 0
    for _ in range(5):
        writer = python(WRITER, path)
        assert writer.stdout.readline() == "ready\n"
        time.sleep(rng.uniform(0.01, 0.3))
        os.kill(writer.pid, signal.SIGKILL)
        assert writer.communicate()[1] == ""
        json.loads((path / "manifest.json").read_text())
        for file in (path / "chunks/s").glob("c*.npz"):
            x = results.read_arrays(file)["x"]
            assert x.shape == (20_000,)
            assert (x == x[0]).all()
        with Folder(path, {"a": 1}) as folder:
            chunks = [folder.store("s").load(f"c{i}") for i in range(7)]
            loaded += sum(chunk is not None for chunk in chunks)
    assert loaded > 0


def test_a_store_lists_the_files_of_a_chunk_with_those_set_aside(folder):
    store = folder.store("nets")
    assert store.files("c1") == []
    for name in ("c1", "c10"):
        store.save(name, ARRAYS, {})
    path = folder.path / "chunks/nets/c1.npz"
    assert store.files("c1") == [path]
    flip(path, 100)
    assert store.load("c1") is None
    store.save("c1", ARRAYS, {})
    assert [file.name.split(".damaged")[0] for file in store.files("c1")] == ["c1.npz", "c1.npz"]
    with pytest.raises(ValueError, match="cannot be a file name"):
        store.files("*")


def test_files_are_placed_and_entered_by_hand(folder):
    path = folder.place("figures/loss.png")
    assert path == folder.path / "figures" / "loss.png"
    assert not path.exists()
    assert not folder.verified("figures/loss.png")
    folder.enter("figures/loss.png", results.write_bytes(path, b"png"), width=3)
    assert folder.verified("figures/loss.png")
    entry = json.loads((folder.path / "manifest.json").read_text())["files"]["figures/loss.png"]
    assert entry == {"sha256": hashlib.sha256(b"png").hexdigest(), "width": 3}
    with pytest.raises(ValueError, match="cannot be a file name"):
        folder.place("../loss.png")
    path.write_bytes(b"gnp")
    assert not folder.verified("figures/loss.png")


def test_a_chunk_whose_checksum_is_right_but_no_archive_is_one_sentence(folder):
    """The manifest is the word for what a file should be; one that says the wrong thing is no chunk all the same."""
    folder.enter("chunks/nets/c0.npz", results.write_bytes(folder.place("chunks/nets/c0.npz"), b"text"))
    with pytest.raises(ResultsError, match="damaged or not") as error:
        folder.store("nets").load("c0")
    one_sentence(error)


def test_no_folder_is_free(tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "exists", lambda self: True)
    with pytest.raises(ResultsError, match=r"there is no free folder beside .*run") as error:
        Folder(tmp_path / "run", IDENTITY, force_new=True)
    one_sentence(error)


def test_a_folder_that_cannot_be_listed_or_locked_is_one_sentence(tmp_path, monkeypatch):
    (tmp_path / "run").mkdir()

    def refuse(*_, **__):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    for (owner, name), step in (((Path, "iterdir"), "read"), ((fcntl, "flock"), "locked")):
        with monkeypatch.context() as patched:
            patched.setattr(owner, name, refuse)
            with pytest.raises(ResultsError, match=rf"cannot be {step} \(Input/output") as error:
                Folder(tmp_path / "run", IDENTITY)
        one_sentence(error)
    with Folder(tmp_path / "run", IDENTITY):
        pass


def test_packages_that_are_missing_are_said_to_be(monkeypatch):
    import importlib.metadata

    real = importlib.metadata.version

    def version(name):
        if name == "optax":
            raise importlib.metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    made = results.provenance()["versions"]
    assert made["optax"] == "not installed"
    assert made["jax"] == real("jax")


def bad_names():
    part = st.text(max_size=8)
    return st.one_of(
        st.tuples(part, st.sampled_from(["/", "\\", "..", "\0", "\n", " ", ":", "~", "%", "é"]), part).map("".join),
        st.sampled_from(["", ".", ".hidden", "-rf", "_x", "a" * 129, "/etc/passwd", "a\n"]),
    )


@given(bad_names())
def test_names_that_could_leave_the_folder_are_refused(name):
    with pytest.raises(ValueError, match="cannot be a file name"):
        results.checked_name(name)


@given(st.from_regex(r"\A[A-Za-z0-9]([A-Za-z0-9_-]|\.(?!\.)){0,100}\Z"))
def test_plain_names_pass(name):
    assert results.checked_name(name) == name


def test_folder_and_store_check_their_names(folder):
    store = folder.store("nets")
    outside = sorted(folder.path.parent.iterdir())
    for name in ("../x", "a/b", "..", "/x", ""):
        calls = [
            functools.partial(folder.store, name),
            functools.partial(store.load, name),
            functools.partial(store.save, name, ARRAYS, {}),
        ]
        if name != "a/b":  # a folder below is fine for a file of the run
            calls.append(functools.partial(folder.write, name, b"x"))
            calls.append(functools.partial(folder.write_tree, name, tree()))
        for call in calls:
            with pytest.raises(ValueError, match="cannot be a file name"):
                call()
    assert sorted(folder.path.parent.iterdir()) == outside
    assert names(folder.path) == ["lock", "manifest.json"]


# The report

ROWS = [
    Row("wide nets | deep nets", "error", "0.12", "[0.1, 0.2]", 20, "0.11", "Table 1", "0.02", "reproduced"),
    Row("one\nseed :smile: [/b]", "peak", "3", "[nan, nan]", 1, "", "", "", "inconclusive"),
]


def test_markdown_table_is_one_line_a_row():
    lines = results.markdown_table(ROWS).splitlines()
    assert lines[0] == "| Claim | Quantity | Measured | Interval | Seeds | Published | Source | Tolerance | Verdict |"
    assert lines[1] == "|---|---|---|---|---|---|---|---|---|"
    assert lines[2] == (
        "| wide nets &#124; deep nets | error | 0.12 | [0.1, 0.2] | 20 | 0.11 | Table 1 | 0.02 | reproduced |"
    )
    assert lines[3].startswith("| one seed :smile: [/b] | peak | 3 | [nan, nan] | 1 |")
    assert len(lines) == 4


def test_printed_rows_show_what_they_were_given():
    out = io.StringIO()
    results.print_rows(ROWS, "study [quick]", out)
    text = out.getvalue()
    assert "\x1b" not in text
    assert max(map(len, text.splitlines())) <= 120
    for word in (
        "study [quick]",
        "[0.1, 0.2]",
        "20 seeds",
        "[nan, nan]",
        ":smile: [/b]",
        "reproduced",
        "Verdict".lower(),
    ):
        assert word in text
    narrow = io.StringIO()
    results.print_rows(ROWS, "t", narrow, width=60)
    assert max(map(len, narrow.getvalue().splitlines())) <= 60


def test_rows_are_printed_where_output_goes(capsys):
    results.print_rows(ROWS, "study")
    assert "reproduced" in capsys.readouterr().out


def test_a_code_span_of_marks_and_lines_is_one_line():
    assert results.markdown_code("a b") == "`a b`"
    assert results.markdown_code("a``b\nc") == "``` a``b c ```"
