"""Kernels scaled to the data: every layer's variance afterwards, what may move, and signals that no factor helps."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnjax import losses, models
from nnjax.models import watch

KEY = jax.random.key(0)
N, CLASSES = 12, 4
Y = np.arange(N) % CLASSES
VECTORS = 3 * jax.random.normal(jax.random.key(1), (N, 6)) + 1
IMAGES = jax.random.normal(jax.random.key(2), (N, 8, 8, 3))

jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def init(model, key, x, *, bias=0.0):
    """Kernels of no special size, biases of ``bias``'s; no program is compiled for them."""
    rng = np.random.default_rng(3)

    def draw(path, leaf):
        z = rng.normal(size=leaf.shape).astype(np.float32)
        if path[-1].key in ("kernel", "embedding"):
            return jnp.asarray(0.3 * z)
        return jnp.asarray(np.float32(bias) * z + np.float32(path[-1].key in ("scale", "var")))

    return jax.tree_util.tree_map_with_path(draw, jax.eval_shape(partial(models.init, model), key, x))


def variances(model, params, stats, x, **kw):
    made = jit(
        lambda params: models.layer_statistics(
            model, params, stats, x, Y, losses.cross_entropy, activation="relu", **kw
        )
    )(params)
    return dict(zip(made.names, np.asarray(made.variance), strict=True))


NETS = {
    "MLP": (models.MLP((16, 8), classes=CLASSES), VECTORS, {}),
    "MLP, batch norm and dropout": (
        models.MLP((16, 8), classes=CLASSES, normalize="after", dropout=0.3), VECTORS, {"train": True, "key": KEY}
    ),
    "SmallCNN": (models.SmallCNN(3, CLASSES), IMAGES, {}),
    "DeepMLP": (models.DeepMLP(20, 16, CLASSES), VECTORS, {}),
    "DeepMLP, biases": (
        models.DeepMLP(4, 16, CLASSES, activation="tanh"),
        VECTORS, {},
    ),
    "DeepCNN": (models.DeepCNN(6, 8, CLASSES, activation="tanh"), IMAGES, {}),
}  # fmt: skip


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow if name in ("MLP", "SmallCNN", "DeepMLP") else ()) for name in NETS],
)
def test_every_layers_output_has_the_variance(name):
    model, x, kw = NETS[name]
    params, stats = init(model, KEY, x, bias=0.3 if "biases" in name else 0.0)
    traces = []

    def run(params, target):
        traces.append(1)
        return models.lsuv(model, params, stats, x, target=target, **kw)

    program = jit(run)
    for target in (1.0, 2.5):
        scaled = program(params, target)
        found = variances(model, scaled, stats, x, **kw)
        np.testing.assert_allclose([*found.values()], target, rtol=1e-5)
    assert len(traces) == 1
    again = program(scaled, 2.5)
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        made, twice = (np.asarray(watch.at(tree, tuple(part.key for part in path))) for tree in (scaled, again))
        if path[-1].key != "kernel":
            np.testing.assert_array_equal(made, leaf)  # only kernels move
            continue
        np.testing.assert_allclose(twice, made, rtol=1e-5)
        stacked = path[0].key == "hidden"
        rows, old = (np.asarray(a).reshape(len(leaf) if stacked else 1, -1) for a in (made, leaf))
        factors = (rows * old).sum(1) / (old * old).sum(1)
        np.testing.assert_allclose(rows, factors[:, None] * old, rtol=1e-5, atol=1e-30)  # by one factor a layer
        assert (factors > 0).all()


def test_one_layer_by_hand():
    model = models.MLP((), classes=CLASSES)
    params = init(model, KEY, VECTORS)[0]
    scaled = models.lsuv(model, params, {}, VECTORS, target=2.0)
    factor = np.sqrt(2 / np.var(np.asarray(VECTORS @ params["Dense_0"]["kernel"], float)))
    np.testing.assert_allclose(scaled["Dense_0"]["kernel"], factor * params["Dense_0"]["kernel"], rtol=1e-5)


def test_lanes_and_dtypes():
    model = models.DeepMLP(3, 8, CLASSES)
    lanes = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf**2]), init(model, KEY, VECTORS)[0])
    made = jit(jax.vmap(lambda params: models.lsuv(model, params, {}, VECTORS)))(lanes)
    one = jit(lambda params: models.lsuv(model, params, {}, VECTORS))(jax.tree.map(lambda leaf: leaf[1], lanes))
    for a, b in zip(jax.tree.leaves(made), jax.tree.leaves(one), strict=True):
        np.testing.assert_allclose(a[1], b, rtol=1e-5, atol=1e-7)
    with jax.enable_x64(True):
        wide, x = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), (one, VECTORS))
        scaled = jit(lambda params: models.lsuv(model, params, {}, x))(wide)
        assert {leaf.dtype for leaf in jax.tree.leaves(scaled)} == {np.dtype(np.float64)}
        z = x @ scaled["first"]["kernel"]
        np.testing.assert_allclose(z.var(), 1, rtol=1e-13)


# What no factor helps


@pytest.mark.parametrize("x", [jnp.zeros((N, 6)), jnp.full((N, 6), jnp.inf)], ids=["zeros", "infinite"])
def test_a_signal_without_variance_leaves_the_kernel(x):
    model = models.DeepMLP(3, 8, CLASSES)
    params = init(model, KEY, VECTORS)[0]
    scaled = models.lsuv(model, params, {}, x)
    for a, b in zip(jax.tree.leaves(scaled), jax.tree.leaves(params), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_constant_product_leaves_the_kernel():
    """All outputs the same number, to rounding: there is no variance that a factor could bring to 1."""
    model = models.MLP((), classes=CLASSES)
    params = {"Dense_0": {"kernel": jnp.full((6, CLASSES), 0.1), "bias": jnp.zeros(CLASSES)}}
    scaled = models.lsuv(model, params, {}, jnp.full((N, 6), 0.7))
    np.testing.assert_array_equal(scaled["Dense_0"]["kernel"], params["Dense_0"]["kernel"])


def test_a_net_of_zeros_stays_one_and_the_tiniest_is_scaled():
    model = models.DeepMLP(3, 8, CLASSES)
    params = init(model, KEY, VECTORS)[0]
    nothing = jax.tree.map(jnp.zeros_like, params)
    for leaf in jax.tree.leaves(models.lsuv(model, nothing, {}, VECTORS)):
        np.testing.assert_array_equal(leaf, 0)
    tiny = jax.tree.map(lambda leaf: 1e-30 * leaf, params)
    scaled = jit(lambda params: models.lsuv(model, params, {}, VECTORS))(tiny)
    np.testing.assert_allclose([*variances(model, scaled, {}, VECTORS).values()], 1, rtol=1e-5)


def test_biases_that_vary_too_much_leave_the_kernel():
    model = models.MLP((), classes=CLASSES)
    params = init(model, KEY, VECTORS)[0]
    bias = 10 * jnp.arange(1.0 * CLASSES)
    params = {"Dense_0": {**params["Dense_0"], "bias": bias}}
    assert np.var(bias) > 100
    scaled = models.lsuv(model, params, {}, VECTORS)
    np.testing.assert_array_equal(scaled["Dense_0"]["kernel"], params["Dense_0"]["kernel"])


# Layers of another kind


class Recurrent(nn.Module):
    """Tokens, a recurrent loop, and a layer called twice."""

    @nn.compact
    def __call__(self, x):
        x = nn.RNN(nn.OptimizedLSTMCell(5))(nn.Embed(9, 3)(x))[:, -1]
        again = nn.Dense(5)
        return nn.Dense(CLASSES)(again(nn.relu(again(x))))


def test_embeddings_recurrent_cells_and_shared_layers():
    model, x = Recurrent(), np.arange(N * 4).reshape(N, 4) * 7 % 9
    params = init(model, KEY, x)[0]
    scaled = jit(lambda params: models.lsuv(model, params, {}, x))(params)
    found = variances(model, scaled, {}, x)
    for name in ("Embed_0", "Dense_0", "Dense_1"):
        np.testing.assert_allclose(found[name], 1, rtol=1e-5)
    assert abs(found["Dense_0#2"] - 1) > 0.1  # the first call decides
    cell = "OptimizedLSTMCell_0"
    for a, b in zip(jax.tree.leaves(scaled[cell]), jax.tree.leaves(params[cell]), strict=True):
        np.testing.assert_array_equal(a, b)


class Shared(nn.Module):
    """One kernel for all turns of a loop that shows its layers."""

    @nn.compact
    def __call__(self, x):
        step = lambda dense, x, _: (jnp.tanh(dense(x)), None)  # noqa: E731
        axes = dict.fromkeys(watch.COLLECTIONS, 0)
        loop = nn.scan(step, variable_broadcast="params", variable_axes=axes, split_rngs={"params": False}, length=3)
        return loop(nn.Dense(6, name="same"), x, None)[0]


def test_bad_input():
    model = models.MLP((4,), classes=CLASSES)
    params = init(model, KEY, VECTORS)[0]
    for target in (0, -1.0, np.inf, np.nan, "one", np.ones(2)):
        with pytest.raises(ValueError, match=r"target=.* must be a finite number above 0, a variance"):
            models.lsuv(model, params, {}, VECTORS, target=target)
    with pytest.raises(ValueError, match=r"x has shape \(0, 6\); it must hold at least one example"):
        models.lsuv(model, params, {}, VECTORS[:0])
    with pytest.raises(ValueError, match="model has no layer"):
        models.lsuv(nn.LayerNorm(), {"scale": jnp.ones(6), "bias": jnp.ones(6)}, {}, VECTORS)
    shared = Shared()
    with pytest.raises(ValueError, match="the turns of a loop share the kernel of 'same'"):
        models.lsuv(shared, init(shared, KEY, VECTORS)[0], {}, VECTORS)
    found = models.layer_signals(shared, init(shared, KEY, VECTORS)[0], {}, VECTORS, jnp.sum)
    assert found.names == ("same/0", "same/1", "same/2")
    np.testing.assert_array_equal(found.gradients["same/0"]["kernel"], found.gradients["same/2"]["kernel"])
