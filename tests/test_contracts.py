"""What every module keeps to: the order of imports, documented names, no code from data, no words from elsewhere."""

import ast
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnjax import activations, initializers, losses, metrics

ROOT = Path(__file__).parent.parent
SOURCES = sorted([*(ROOT / "nnjax").rglob("*.py"), *(ROOT / "experiments").glob("*.py")])

# A file imports only what stands before it.
ORDER = (
    "types", "naming", "activations", "initializers", "losses", "regularizers", "metrics", "schedules", "optimizers",
    "conv", "recurrent", "statistics", "estimate", "monitor", "theory", "data", "hosts", "chunks", "plans", "report",
    "results", "saved", "batches", "train", "sweep", "cluster", "models", "transfer", "search", "classical", "plotting",
    "wann", "attribution",
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
            if any(isinstance(d, ast.Name) and d.id == "overload" for d in node.decorator_list):
                continue  # a signature alone; what it does is told where it does it
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


# --- Every activation, initializer, loss and metric -------------------------------------------------------------
#
# A table a module: what its functions are called with. A public name without an entry fails.

N, K = 5, 3
RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, K, N)
BINARY = np.array([0, 1, 1, 0, 1])
UNOPTIMIZED = {"xla_backend_optimization_level": 0}  # compiles several times faster


def _values(shape=(N, K)):
    return RNG.normal(size=shape).astype(np.float32)


# name: arguments after x.
ACTIVATIONS = dict.fromkeys((*activations.NAMES, "softmax"), ()) | {"prelu": (np.float32(0.2),)}
ACTIVATIONS_ELSE = {"by_name", "switch"}

# name: prediction, target, and a target that does not fit.
SUMMED = (_values(), _values(), _values((N,)))
LABELLED = (_values(), LABELS, LABELS[:, None])
LOSSES = {
    "squared_error": SUMMED,
    "half_squared_error": SUMMED,
    "absolute_error": SUMMED,
    "absolute_percentage_error": SUMMED,
    "squared_log_error": (np.abs(_values()), np.abs(_values()), _values((N,))),
    "log_cosh": SUMMED,
    "huber": SUMMED,
    "poisson": (np.abs(_values()), np.abs(_values()), _values((N,))),
    "cosine_distance": SUMMED,
    "zero_one": LABELLED,
    "hinge": (_values(), np.sign(_values()), np.ones(N, np.float32)),
    "squared_hinge": (_values(), np.sign(_values()), np.ones(N, np.float32)),
    "categorical_hinge": LABELLED,
    "multiclass_hinge": LABELLED,
    "binary_cross_entropy": (_values(), np.eye(K, dtype=np.float32)[LABELS], np.ones(N, np.float32)),
    "cross_entropy": LABELLED,
    "kl_divergence": (np.full((N, K), 1 / K, np.float32), np.eye(K, dtype=np.float32)[LABELS], np.ones(N, np.float32)),
    "token_cross_entropy": (_values((N, 4, K)), np.arange(4 * N).reshape(N, 4) % K, LABELS),
}

# name: y_true, y_pred or y_score, static keywords.
METRICS = {
    "confusion_matrix": (LABELS, LABELS[::-1].copy(), {"classes": K}),
    "accuracy": (LABELS, LABELS[::-1].copy(), {}),
    "precision": (LABELS, LABELS[::-1].copy(), {"classes": K, "average": "macro"}),
    "recall": (LABELS, LABELS[::-1].copy(), {"classes": K, "average": "macro"}),
    "f1_score": (LABELS, LABELS[::-1].copy(), {"classes": K, "average": "weighted"}),
    "roc_curve": (BINARY, _values((N,)), {}),
    "roc_auc": (BINARY, _values((N,)), {}),
}

# name: keywords.
INITIALIZERS = {name: {} for name in ("zeros", "small_normal", "standard_normal", "lecun_normal", "he_normal")}
INITIALIZERS |= {
    "xavier_normal": {"mode": "fan_in", "gain": 2.0},
    "xavier_uniform": {"mode": "fan_in", "gain": 2.0},
    "he_uniform": {},
    "orthogonal": {"gain": 2.0},
    "delta_orthogonal": {"gain": 2.0},
}
INITIALIZERS_ELSE = {"by_name", "gain", "scaled_normal", "scaled_uniform"}


def _functions(module):
    own = {n: f for n, f in vars(module).items() if getattr(f, "__module__", "") == module.__name__}
    return {n for n, f in own.items() if not n.startswith("_") and not isinstance(f, type)}


@pytest.mark.parametrize(
    ("module", "table"),
    [
        (activations, {*ACTIVATIONS, *ACTIVATIONS_ELSE}),
        (losses, {*LOSSES}),
        (metrics, {*METRICS}),
        (initializers, {*INITIALIZERS, *INITIALIZERS_ELSE}),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_the_tables_are_complete(module, table):
    assert _functions(module) == table


def _cast(tree, dtype):
    """Floats as such, NumPy's so that nothing is cut to float32 on the way."""
    return jax.tree.map(lambda x: np.asarray(x, dtype) if np.asarray(x).dtype.kind == "f" else x, tree)


def _leaves(tree):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]


def _obeys(function, args, *, per_example, integers=False):
    """Compiles once, is the same inside jit and vmap and for an example alone, and keeps float32 and float64."""
    traces = []

    def counted(*args):
        traces.append(1)
        return function(*args)

    program = jax.jit(counted, compiler_options=UNOPTIMIZED)
    made = program(*args)
    other = jax.tree.map(lambda x: x[::-1].copy() if np.ndim(x) else x, args)
    again = program(*other)
    assert len(traces) == 1, "traced anew for the same shapes"
    lanes = jax.jit(jax.vmap(function), compiler_options=UNOPTIMIZED)
    both = lanes(*jax.tree.map(lambda a, b: np.stack([a, b]), args, other))
    for lane, first, second in zip(_leaves(both), _leaves(made), _leaves(again), strict=True):
        np.testing.assert_allclose(lane, np.stack([first, second]), rtol=1e-5, atol=1e-6)
    assert {leaf.dtype for leaf in _leaves(made)} == {np.dtype(np.int32 if integers else np.float32)}
    if per_example:
        one = program(*jax.tree.map(lambda x: x[:1] if np.ndim(x) else x, args))
        np.testing.assert_allclose(np.asarray(one), np.asarray(made)[:1], rtol=1e-5, atol=1e-6)
    with jax.enable_x64(True):
        wide = jax.tree.leaves(jax.eval_shape(function, *_cast(args, np.float64)))
    assert {leaf.dtype for leaf in wide} == {np.dtype(np.int64 if integers else np.float64)}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_keep_the_contract(name):
    args = (_values(), *ACTIVATIONS[name])
    activation = getattr(activations, name)
    assert jax.eval_shape(activation, *args).shape == args[0].shape
    _obeys(activation, args, per_example=True)


@pytest.mark.parametrize("name", LOSSES)
def test_losses_keep_the_contract(name):
    prediction, target, wrong = LOSSES[name]
    loss = getattr(losses, name)
    assert jax.eval_shape(loss, prediction, target).shape == (N,)
    _obeys(loss, (prediction, target), per_example=True)
    with jax.numpy_rank_promotion("allow"), pytest.raises(ValueError, match="target " + re.escape(str(wrong.shape))):
        loss(prediction, wrong)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", METRICS)
def test_metrics_keep_the_contract(name, weighted):
    true, other, static = METRICS[name]
    metric = getattr(metrics, name)

    def call(true, other, *weight):
        return metric(true, other, **static, **({"sample_weight": weight[0]} if weight else {}))

    weight = (np.abs(_values((N,))),) if weighted else ()
    _obeys(call, (true, other, *weight), per_example=False, integers=name == "confusion_matrix" and not weighted)
    with pytest.raises(ValueError, match=rf"y_\w+ \({N - 1},\) must be"):
        call(true, other[1:])
    with pytest.raises(ValueError, match=rf"sample_weight \({N - 1},\) must be"):
        call(true, other, np.ones(N - 1))


@pytest.mark.parametrize("name", INITIALIZERS)
def test_initializers_keep_the_contract(name):
    init = initializers.by_name(name, **INITIALIZERS[name])
    traces = []

    def draw(key):
        traces.append(1)
        return init(key, (4, 6))

    keys = jax.random.split(jax.random.key(0), 2)
    program = jax.jit(draw, compiler_options=UNOPTIMIZED)
    made = np.stack([program(key) for key in keys])
    assert len(traces) == 1
    lanes = jax.jit(jax.vmap(lambda key: init(key, (4, 6))), compiler_options=UNOPTIMIZED)(keys)
    np.testing.assert_allclose(lanes, made, rtol=1e-5, atol=1e-6)
    assert made.dtype == np.float32
    assert made.shape == (2, 4, 6)
    assert (made[0] == made[1]).all() == (name == "zeros")
    with jax.enable_x64(True):
        assert init(keys[0], (4, 6), jnp.float64).dtype == jnp.float64


@pytest.mark.parametrize("module", [activations, initializers], ids=lambda module: module.__name__)
def test_a_misspelled_name_suggests_the_nearest(module):
    for name in module.NAMES:
        wrong = name + "x"
        with pytest.raises(ValueError, match=f"'{wrong}' is not one of .*; did you mean '{name}'"):
            module.by_name(wrong)
