"""Input that means harm: archives, arrays, names, folders and caches that others have prepared.

Tars and pictures are in test_data_formats.py, downloads in test_data.py and test_security_downloads.py.
"""

import ast
import contextlib
import html.parser
import io
import json
import os
import pickle
import re
import shutil
import stat
import subprocess
import sys
import types
import warnings
import xml.etree.ElementTree
import zipfile
from pathlib import Path

import h5py
import jax
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from experiments import command
from nnjax import plotting, results, saved
from nnjax.results import Folder, ResultsError, Row

ROOT = Path(__file__).parent.parent
IDENTITY = {"config": {"seed": 0}, "code": "abc"}


class Bomb:
    """Leaves a file where it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def refused(call, match):
    """The call raises ResultsError in one sentence."""
    with pytest.raises(ResultsError, match=match) as error:
        call()
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 1000


# The sources: nothing that runs what it reads

_FORBIDDEN = {"pickle", "cPickle", "dill", "cloudpickle", "shelve", "marshal", "yaml", "joblib"}


@pytest.mark.parametrize("folder", ["nnjax", "experiments"])
def test_the_sources_read_nothing_that_could_run(folder):
    seen = 0
    for file in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            where = f"{file.name}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.Import | ast.ImportFrom):
                module = getattr(node, "module", None)
                modules = {module} if module else {alias.name for alias in node.names}
                assert not {name.split(".")[0] for name in modules} & _FORBIDDEN, where
            if isinstance(node, ast.Call):
                seen += 1
                name = ast.unparse(node.func)
                words = {word.arg: ast.unparse(word.value) for word in node.keywords}
                assert name not in ("eval", "exec", "os.system", "os.popen"), where
                assert not name.endswith((".extractall", ".extract")), where
                assert words.get("shell") is None, where
                assert words.get("allow_pickle", "False") == "False", where
                assert name != "np.load" or "allow_pickle" in words, where
                assert name != "Image.open" or "formats" in words, where
    assert seen > 500


# Arrays and trees


def npz(path, members, kind=zipfile.ZIP_STORED):
    """An archive of (name, bytes) pairs."""
    with zipfile.ZipFile(path, "w", kind) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return path


def npy(array, shape=None):
    """An array as .npy; ``shape`` is what its header says instead of the truth."""
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        stream, {"descr": array.dtype.str, "fortran_order": False, "shape": shape or array.shape}
    )
    return stream.getvalue() + array.tobytes()


def test_an_archive_that_unpacks_to_far_more_than_it_is(tmp_path):
    zeros = npy(np.zeros(40_000_000, np.uint8))
    bomb = npz(tmp_path / "bomb.npz", [("a.npy", zeros)], zipfile.ZIP_DEFLATED)
    assert bomb.stat().st_size < 100_000
    refused(lambda: results.read_arrays(bomb), "bytes would unpack to 40,000,")
    honest = npz(tmp_path / "honest.npz", [("a.npy", npy(np.zeros(40_000_000, np.uint8)))])
    assert results.read_arrays(honest)["a"].nbytes == 40_000_000


@pytest.mark.parametrize(
    "member",
    [
        ("a.npy", npy(np.zeros(3), (10**15,))),
        ("a.npy", npy(np.zeros(3), (2**31, 2**31))),
        ("a.npy", npy(np.zeros(3), (-1,))),
        ("a.npy", b"\x93NUMPY\x01\x00" + b"\xff\xff" + b"{" * 65535),
        ("a.npy", b"\x93NUMPY\x01\x00" + len(b"__import__('os')").to_bytes(2, "little") + b"__import__('os')"),
        ("a.npy", b"\x93NUMPY\x01\x00" + (30_000).to_bytes(2, "little") + b"(" * 30_000),
    ],
    ids=["long", "overflow", "negative", "header", "code", "nested"],
)
def test_arrays_whose_headers_lie(tmp_path, member):
    path = npz(tmp_path / "a.npz", [member])
    refused(lambda: results.read_arrays(path), "damaged or not an .npz")


def test_names_inside_an_archive_are_names_only(tmp_path):
    (tmp_path / "in").mkdir()
    members = [("../outside.npy", npy(np.ones(2))), ("/absolute.npy", npy(np.ones(2)))]
    path = npz(tmp_path / "in" / "a.npz", members)
    before = sorted(tmp_path.rglob("*"))
    assert set(results.read_arrays(path)) == {"../outside", "/absolute"}
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    "how", ["npy in npz", "plain pickle", "pickle member", "attribute", "opaque attribute", "object data"]
)
def test_pickles_stay_shut(tmp_path, how):
    sign, path = tmp_path / "exploded", tmp_path / "file"
    content = pickle.dumps(Bomb(sign))
    read = results.read_tree if how in ("attribute", "opaque attribute", "object data") else results.read_arrays
    if how == "npy in npz":
        np.savez(tmp_path / "a.npz", a=np.array([Bomb(sign)], object))
        (tmp_path / "a.npz").rename(path)
    elif how == "plain pickle":
        path.write_bytes(content)
    elif how == "pickle member":
        npz(path, [("a.npy", content), ("b.pkl", content)])
    else:
        with h5py.File(path, "w") as file:
            file["x"] = 3.0
            if how == "attribute":
                file.attrs["pickled"] = np.void(content)
                file["x"].attrs["__reduce__"] = content.hex()
            elif how == "opaque attribute":
                file["x"].attrs.create("dtype", np.void(content), dtype=h5py.opaque_dtype(np.void(content).dtype))
            else:
                file["y"] = np.void(content)
    with contextlib.suppress(ResultsError):
        read(path)
    assert not sign.exists()
    pickle.loads(content)  # and it would have
    assert sign.exists()


def test_a_tree_that_unpacks_to_far_more_than_it_is(tmp_path):
    path = tmp_path / "a.nc"
    packed = {"dtype": "f8", "compression": "gzip"}
    with h5py.File(path, "w") as file:
        file.create_dataset("x", shape=(10**6, 10**6), chunks=(1000, 1000), **packed)
        for axis, name in enumerate("ab"):
            file.create_dataset(name, shape=(10**6,), chunks=(1000,), **packed).make_scale(name)
            file["x"].dims[axis].attach_scale(file[name])
    assert path.stat().st_size < 100_000
    refused(lambda: results.read_tree(path), "would unpack to")


def test_a_models_file_with_other_names_in_it(tmp_path):
    for number, arrays in enumerate([
        {"info": np.array("{"), "params/a": np.ones(2)},
        {"info": np.array("[" * 100_000)},
        {"info": np.array("{}"), "params/a": np.ones(2), "params/a/b": np.ones(2)},
        {"info": np.array("{}"), "params": np.ones(2), "params/a": np.ones(2)},
    ]):  # fmt: skip
        path = tmp_path / f"{number}.npz"
        results.write_arrays(path, arrays)
        refused(lambda path=path: saved.load(path), "damaged: its names or facts")
    results.write_arrays(tmp_path / "odd.npz", {"info": np.array("{}"), "params/__class__/__init__": np.ones(2)})
    assert type(saved.load(tmp_path / "odd.npz").params) is dict


# Folders that others have prepared


def test_a_lock_that_is_a_link_is_not_followed(tmp_path):
    victim = tmp_path / "diary"
    victim.write_text("years of work")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "lock").symlink_to(victim)
    refused(lambda: Folder(tmp_path / "run", IDENTITY), "cannot be locked")
    assert victim.read_text() == "years of work"


@pytest.mark.parametrize("name", ["figures", "chunks"])
def test_links_in_a_folder_lead_nowhere(tmp_path, name):
    (tmp_path / "elsewhere").mkdir()
    with Folder(tmp_path / "run", IDENTITY) as folder:
        (folder.path / name).symlink_to(tmp_path / "elsewhere")
        write = {
            "figures": lambda: folder.write("figures/a.png", b"x"),
            "chunks": lambda: folder.store("s").save("a", {"x": np.ones(2)}, {}),
        }[name]
        refused(write, "leads outside of the results folder")
    assert not list((tmp_path / "elsewhere").iterdir())


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "a/../../secret", "", ".", "chunks//x", "a\n"])
def test_a_manifest_names_no_file_outside(tmp_path, name):
    (tmp_path / "secret").write_text("x")
    with Folder(tmp_path / "run", IDENTITY) as folder:
        folder.finish()
    path = tmp_path / "run" / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["files"][name] = {"sha256": "0" * 64}
    path.write_text(json.dumps(manifest))
    refused(lambda: Folder(tmp_path / "run", IDENTITY), "is damaged")


json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.sampled_from(["identity", "complete", "files", "seconds", "x"]), json_values) | json_values)
def test_a_manifest_of_any_shape_is_taken_or_refused(tmp_path_factory, value):
    path = tmp_path_factory.mktemp("m") / "run"
    path.mkdir()
    (path / "manifest.json").write_text(json.dumps(value))
    with contextlib.suppress(ResultsError), Folder(path, IDENTITY) as folder:
        assert isinstance(folder.complete, bool)
        assert np.isreal(folder.seconds["run"])
        folder.add_seconds({"total": 1.0})
    shutil.rmtree(path)


@pytest.mark.parametrize("content", ["[" * 100_000, '{"a":' * 100_000, "\xff", "NaN", ""])
def test_manifests_that_break_parsers(tmp_path, content):
    path = tmp_path / "run"
    path.mkdir()
    (path / "manifest.json").write_text(content, encoding="latin-1")
    refused(lambda: Folder(path, IDENTITY), "is damaged")
    with Folder(path, IDENTITY, force_new=True) as folder:
        assert folder.path.name == "run-2"
    assert [file.name for file in path.iterdir()] == ["manifest.json"]


# Folders of other people


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


FOREIGN = {
    "only hidden files": [".settings.tmpl", ".cfg/.work.tmp1"],
    "another manifest": ["manifest.json", "src/.notes.tmp.md", ".draft.12.tmp"],
    "a repository": [".git/HEAD", ".git/.index.7.tmp"],
    "names like ours": [".thesis.tex.12.tmp"],
}


@pytest.mark.parametrize("name", FOREIGN)
@pytest.mark.parametrize("manifest", ["{}", '{"name": "app", "files": ["a"]}', "[]"])
def test_a_folder_of_others_is_refused_before_anything_in_it_is_touched(tmp_path, name, manifest):
    for file in FOREIGN[name]:
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text(manifest if file == "manifest.json" else "years of work")
    before = contents(tmp_path)
    refused(lambda: Folder(tmp_path, IDENTITY), "is damaged or of something else|holds files of something else")
    assert contents(tmp_path) == before


def test_the_advice_for_a_manifest_that_cannot_be_read_is_to_keep_it(tmp_path):
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(ResultsError) as error:
        Folder(tmp_path, IDENTITY)
    assert "remove" not in str(error.value)
    assert "--out" in str(error.value)
    (tmp_path / "other" / "manifest.json").mkdir(parents=True)
    refused(lambda: Folder(tmp_path / "other", IDENTITY), r"manifest\.json' cannot be read \(Is a directory\)")


def test_only_our_own_leftovers_are_removed_and_only_where_we_write(tmp_path):
    path, others = tmp_path / "run", tmp_path / "others"
    with Folder(path, IDENTITY) as folder:
        folder.write("champions/a.json", b"{}")
        folder.store("s").save("a", {"x": np.ones(2)}, {})
        folder.write("figures/a.png", b"x")
    ours = [".results.nc.12.tmp.nc", ".manifest.json.3.tmp", ".probe.4.tmp", "chunks/s/.b.npz.12.tmp",
            "figures/.a.svg.1.tmp", "champions/.b.json.77.tmp"]  # fmt: skip
    theirs = [".settings.tmpl", ".notes.tmp.md", ".a.tmp", ".a.x1.tmp", "a.1.tmp", "src/.a.py.12.tmp", ".git/.a.1.tmp",
              "chunks/s/deeper/.a.1.tmp", ".b.12.tmp/kept"]  # fmt: skip
    for file in (*ours, *theirs):
        (path / file).parent.mkdir(exist_ok=True)
        (path / file).write_text("x")
    others.mkdir()
    (others / ".a.1.tmp").write_text("x")
    (path / "chunks/link").symlink_to(others)
    with pytest.raises(ResultsError, match="belongs to another run"):
        Folder(path, {"config": {"seed": 1}, "code": "abc"})
    assert all((path / file).is_file() for file in (*ours, *theirs))
    with Folder(path, IDENTITY) as folder:
        assert [file for file in ours if (path / file).exists()] == []
        assert all((path / file).is_file() for file in theirs)
        (path / ours[0]).write_text("x")
        folder.finish()
        assert not (path / ours[0]).exists()
    assert (others / ".a.1.tmp").is_file()


def test_a_start_that_was_killed_before_its_manifest_is_no_folder_of_others(tmp_path):
    for file in ("lock", ".probe.12.tmp", ".manifest.json.12.tmp"):
        (tmp_path / file).touch()
    with Folder(tmp_path, IDENTITY):
        assert sorted(contents(tmp_path)) == [Path("lock"), Path("manifest.json")]


def test_a_lock_tells_its_owner_only_in_few_plain_words(tmp_path):
    with Folder(tmp_path / "run", IDENTITY):
        (tmp_path / "run" / "lock").write_bytes(b"\xff\xfe <script>" + b"x" * 100_000)
        refused(lambda: Folder(tmp_path / "run", IDENTITY), "is in use by")


# The compilation cache


@pytest.fixture
def cache_home(tmp_path, monkeypatch):
    """A cache of this test's own; gives its folder, and a function that says which one JAX was told to use."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    told = {}
    monkeypatch.setattr(jax.config, "update", lambda name, value: told.update({name: value}))

    def used():
        told.clear()
        command._prepare_jax()
        return told.get("jax_compilation_cache_dir")

    return tmp_path / "nnjax" / "compiled", used


def test_the_compilation_cache_is_this_users_alone(cache_home, capsys):
    folder, used = cache_home
    assert used() == str(folder)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777])
@pytest.mark.parametrize("above", [False, True])
def test_a_compilation_cache_that_others_write_is_refused(cache_home, capsys, mode, above):
    folder, used = cache_home
    folder.mkdir(parents=True)
    (folder.parent if above else folder).chmod(mode)
    assert used() is None
    assert "others can write to it" in capsys.readouterr().err


def test_a_foreign_compilation_cache_is_refused(cache_home, capsys, monkeypatch):
    folder, used = cache_home
    folder.mkdir(parents=True)
    monkeypatch.setattr(os, "getuid", lambda: folder.stat().st_uid + 1)
    assert used() is None
    assert "others can write to it" in capsys.readouterr().err


def test_a_link_to_a_foreign_compilation_cache_is_refused(cache_home, tmp_path, capsys):
    folder, used = cache_home
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    folder.parent.mkdir()
    folder.symlink_to(tmp_path / "open")
    assert used() is None
    assert "others can write to it" in capsys.readouterr().err


def _warn(program):
    warnings.warn(f"Error reading persistent compilation cache entry for '{program}': error: -5", stacklevel=1)


def test_damaged_entries_of_the_compilation_cache_are_removed_without_a_word(cache_home, monkeypatch):
    folder, used = cache_home
    shown = []
    monkeypatch.setattr(warnings, "showwarning", lambda message, *rest: shown.append(str(message)))
    used()
    for name in ("jit_lanes-1a-cache", "jit_lanes-2b-cache", "jit_lanes_more-3c-cache", "jit_other-4d-cache"):
        (folder / name).write_bytes(b"half")
    for program in ("jit_lanes", "jit_lanes", "jit_.*", "../jit"):
        _warn(program)
    assert sorted(path.name for path in folder.iterdir()) == ["jit_lanes_more-3c-cache", "jit_other-4d-cache"]
    shutil.rmtree(folder)
    _warn("jit_other")
    assert shown == []
    warnings.showwarning("of another kind", UserWarning, "file.py", 1)
    assert shown == ["of another kind"]


def test_a_run_leaves_warnings_as_they_were(cache_home, monkeypatch):
    folder, _ = cache_home
    during = []
    monkeypatch.setattr(command._Job, "plan", lambda job: during.append(warnings.showwarning) or 0)
    before = warnings.showwarning, [*warnings.filters]
    for _ in range(2):
        assert command.main("experiments.double_descent", ["--dry-run"]) == 0
        assert (warnings.showwarning, warnings.filters) == before
    assert folder.is_dir()
    assert before[0] not in during


DAMAGED = """
from pathlib import Path
from experiments import command
command._prepare_jax()
import jax, numpy as np
folder = Path(jax.config.jax_compilation_cache_dir)
def squared(x):
    return x @ x + 1
harms = [lambda whole: whole[:len(whole) // 2], lambda whole: b"", lambda whole: b"nonsense" * 99]
for harm in harms:
    jax.clear_caches()
    first = np.asarray(jax.jit(squared)(np.eye(3, dtype=np.float32)))
    (entry,) = folder.iterdir()
    whole = entry.read_bytes()
    entry.write_bytes(harm(whole))
    for _ in range(2):
        jax.clear_caches()
        again = np.asarray(jax.jit(squared)(np.eye(3, dtype=np.float32)))
        assert (again == first).all()
    assert [path.name for path in folder.iterdir()] == [entry.name]
    assert len(entry.read_bytes()) > 100, "what was compiled anew is kept in its place"
    assert entry.read_bytes() != harm(whole)
"""


def test_a_damaged_compilation_cache_is_mended_by_the_next_run(tmp_path):
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path), "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, "-c", DAMAGED], env=environment, capture_output=True, text=True,
                          timeout=300, check=False)  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


# What people open in a browser

PAYLOADS = [
    "<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "</title><svg onload=alert(1)>", "<!--", "<?php",
    "a`<b>c", "``<i>", "| x | <a href='javascript:1'>", r"\<script>alert(1)</script>", r"\\<b>\|c", "[x](javascript:1)",
    "![x](//y/z.png)", r"\[x\](y)", "&lt;b>&#124;&copy;", "`<b>` ``c``", "a\n\n<b>\n# c",
]  # fmt: skip


class Page(html.parser.HTMLParser):
    """Tags, attributes and the text of table cells in what a Markdown viewer makes, which passes HTML on."""

    def __init__(self, markdown):
        super().__init__()
        self.tags, self.attributes, self.cells, self.text = set(), [], [], ""
        self.feed(MarkdownIt("commonmark", {"html": True}).enable("table").render(markdown))
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.attributes += attributes
        if tag == "td":
            self.cells.append("")

    def handle_data(self, text):
        self.text += text
        if self.cells:
            self.cells[-1] += text

    def handle_comment(self, text):
        self.tags.add("!")

    handle_decl = handle_pi = unknown_decl = handle_comment


TABLE = {"table", "thead", "tbody", "tr", "th", "td"}


def table_of(text):
    """The page of a table whose every cell holds the text; whatever that is, it is one row of nine cells."""
    page = Page(results.markdown_table([Row(*[text] * 9)]))
    assert page.tags <= TABLE | {"em", "strong", "hr"}
    assert page.attributes == []
    assert len(page.cells) == 9
    return page


@pytest.mark.parametrize("payload", PAYLOADS)
def test_markup_in_names_is_shown_in_reports(payload):
    assert {cell.strip() for cell in table_of(payload).cells} == {" ".join(payload.splitlines())}
    study = types.SimpleNamespace(__doc__="A study.\n\nMore.")
    lines = [f"figures are missing, for what is left of the lanes cannot be drawn ({payload})"]
    report = command._report("study", study, [], lines, {"run": 1.0, "compile": 1.0}, f"python -m x --out '{payload}'")
    page = Page(report)
    assert page.tags <= TABLE | {"h1", "p", "code"}
    assert page.attributes == []
    flat = " ".join(payload.split())
    assert f"--out '{flat}'" in page.text
    assert f"cannot be drawn ({flat})" in " ".join(page.text.split())


@given(st.text(st.sampled_from("\\`<>|[]()!&;#:/-ab \n\"'"), max_size=30) | st.text(max_size=20))
def test_no_text_breaks_out_of_its_cell(text):
    table_of(text)


@given(st.text(max_size=40))
def test_a_code_span_ends_where_it_should(text):
    span = results.markdown_code(text)
    marks = re.match("`+", span)[0]
    inner = span[len(marks) : -len(marks)]
    assert span.endswith(marks)
    assert marks not in re.findall("`+", inner)
    assert inner.strip() == " ".join(text.split())


@pytest.mark.parametrize("payload", PAYLOADS)
def test_html_in_names_is_text_in_figures(tmp_path, payload):
    with plotting.style(), Folder(tmp_path / "run", IDENTITY) as folder:
        figure, axes = plotting.figure()
        axes[0, 0].plot([1, 2], label=payload.replace("$", ""))
        axes[0, 0].set(title=payload, xlabel=payload)
        axes[0, 0].legend()
        folder.write_figures({"figure": figure})
        content = (folder.path / "figures" / "figure.svg").read_bytes()
    root = xml.etree.ElementTree.fromstring(content)  # would not parse if the payload broke out
    kinds = {element.tag.rpartition("}")[2] for element in root.iter()}
    assert "script" not in kinds
    assert "img" not in kinds
    handlers = [name for element in root.iter() for name in element.attrib if name.lower().startswith("on")]
    assert not handlers


def test_html_in_a_results_file_is_escaped_where_a_notebook_shows_it():
    payload = PAYLOADS[1]
    dataset = xr.Dataset({payload: ("x", np.ones(2))}, attrs={payload: payload})
    assert payload not in xr.DataTree.from_dict({"/a": dataset})._repr_html_()


def test_no_page_is_written_unescaped():
    """Nothing here writes HTML; what will must be added to the tests above."""
    for folder in ("nnjax", "experiments"):
        for file in (ROOT / folder).rglob("*.py"):
            text = file.read_text()
            assert "_repr_html_" not in text, file
            assert not re.search(r"<(html|body|script|div|table)[ >]", text), file
