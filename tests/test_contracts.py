"""What every module keeps to: the order of imports, documented names, no code from data, no words from elsewhere."""

import ast
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnjax import losses

ROOT = Path(__file__).parent.parent
SOURCES = sorted([*(ROOT / "nnjax").rglob("*.py"), *(ROOT / "experiments").glob("*.py")])

# A file imports only what stands before it.
ORDER = (
    "types", "losses", "initializers", "conv", "statistics", "estimate", "monitor", "theory", "data", "chunks", "plans",
    "results", "saved", "train", "sweep", "models", "classical", "plotting",
)  # fmt: skip


def _tree(path):
    return ast.parse(path.read_text())


def _imported(path):
    """nnjax modules that a file imports, at its top or inside a function."""
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "nnjax":
            parts = node.module.split(".")
            yield from [parts[1]] if len(parts) > 1 else [name.name for name in node.names]
        elif isinstance(node, ast.Import):
            yield from [n.name.split(".")[1] for n in node.names if n.name.startswith("nnjax.")]


def _room(path):
    return path.relative_to(ROOT / "nnjax").parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", [p for p in SOURCES if "nnjax" in p.parts], ids=lambda p: str(p.relative_to(ROOT)))
def test_modules_import_only_what_stands_before_them(path):
    room = _room(path)
    if room == "__init__":
        return
    assert room in ORDER, f"{room} has no place in the order of imports"
    for name in _imported(path):
        if name != "__version__" and name != room:
            assert ORDER.index(name) < ORDER.index(room), f"{path.name} imports {name}, which stands after it"


def _public(tree):
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            yield node
            if isinstance(node, ast.ClassDef):
                yield from (
                    m for m in node.body if isinstance(m, ast.FunctionDef) and not m.name.startswith("_")
                    and not any(isinstance(d, ast.Name) and d.id == "nn" for d in m.decorator_list)
                )  # fmt: skip


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_public_name_is_documented(path):
    tree = _tree(path)
    assert ast.get_docstring(tree), f"{path.name} says nothing of itself"
    silent = [node.name for node in _public(tree) if not ast.get_docstring(node)]
    assert not silent


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_code_is_read_from_data(path):
    tree = _tree(path)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [n.name for n in node.names] + [getattr(node, "module", "") or ""]
            assert not {"pickle", "dill", "cloudpickle", "yaml", "shelve", "marshal"} & set(names)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in ("eval", "exec")
        if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
            assert node.value.value is False


def test_there_is_no_utils():
    assert not [p for p in ROOT.rglob("util*") if ".venv" not in p.parts and "site-packages" not in p.parts]


def test_no_path_of_one_machine_is_written_down():
    files = [p for p in ROOT.rglob("*") if p.suffix in (".py", ".md", ".toml", ".ipynb") and ".venv" not in str(p)]
    files = [p for p in files if not {"results", "build"} & set(p.relative_to(ROOT).parts)]
    for path in files:
        assert not re.search(r"/(root|home|work)/\w", path.read_text().replace("os.path", "")), path


LOSSES = {
    "cross_entropy": (3, "labels"),
    "zero_one": (3, "labels"),
    "squared_error": (3, "values"),
    "half_squared_error": (3, "values"),
}


def test_the_table_of_losses_is_complete():
    own = {n: f for n, f in vars(losses).items() if getattr(f, "__module__", "") == losses.__name__}
    public = [n for n in own if not n.startswith("_")]
    assert set(public) == set(LOSSES)


@pytest.mark.parametrize("name", LOSSES)
def test_losses_are_per_example_and_trace_once(name):
    outputs, kind = LOSSES[name]
    rng = np.random.default_rng(0)
    prediction = jnp.asarray(rng.normal(size=(5, outputs)), jnp.float32)
    target = rng.integers(0, outputs, 5) if kind == "labels" else rng.normal(size=(5, outputs)).astype("float32")
    traces = []

    @jax.jit
    def loss(prediction, target):
        traces.append(1)
        return getattr(losses, name)(prediction, target)

    value = loss(prediction, target)
    assert value.shape == (5,)
    loss(prediction + 1, target)
    assert len(traces) == 1
    one_by_one = [getattr(losses, name)(prediction[i : i + 1], target[i : i + 1])[0] for i in range(5)]
    np.testing.assert_allclose(value, one_by_one, rtol=1e-6)
    lanes = jax.vmap(getattr(losses, name), in_axes=(0, None))(jnp.stack([prediction, 2 * prediction]), target)
    np.testing.assert_allclose(lanes[0], value, rtol=1e-6)
