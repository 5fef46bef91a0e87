"""Deep nets in one loop against the same nets written out, and nets of which only the first layers are in use."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax

from nnjax import initializers, losses, models, train

KEY = jax.random.key(0)
X = jax.random.normal(jax.random.key(1), (12, 3, 2))
IMAGES = jax.random.normal(jax.random.key(2), (5, 6, 7, 3))
Y = np.arange(12) % 4

# Small programs, run a few times: compiling them without optimization is several times faster.
jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
init = jit(models.init, static_argnums=0)
apply = jit(models.apply, static_argnums=0, static_argnames="train")


def shapes(tree):
    return jax.tree.map(jnp.shape, tree)


def noisy(tree):
    """Numbers of no special kind, biases too."""
    rng = np.random.default_rng(3)
    return jax.tree.map(lambda leaf: leaf + 0.1 * rng.normal(size=leaf.shape).astype(np.float32), tree)


def written_out(params, x, *, activation=jax.nn.relu, residual=False, layers=None):
    """The net of the first ``layers`` hidden layers, one line a layer."""
    dense = lambda x, kernel, bias: x @ kernel + bias[None]  # noqa: E731
    x = activation(dense(x.reshape(len(x), -1), **params["first"]))
    for layer in range(len(params["hidden"]["kernel"]) if layers is None else layers - 1):
        z = dense(x, **jax.tree.map(lambda leaf, layer=layer: leaf[layer], params["hidden"]))
        x = x + activation(z) if residual else activation(z)
    return dense(x, **params["logits"])


def mean_loss(outputs):
    return losses.cross_entropy(outputs, Y).mean()


# The same as a loop over layers written out


@pytest.mark.parametrize(("activation", "residual"), [("relu", False), (jnp.sin, True)])
def test_the_loop_is_the_net_written_out(activation, residual):
    model = models.DeepMLP(depth=5, width=7, classes=4, activation=activation, residual=residual)
    params, stats = init(model, KEY, X)
    layer = {"kernel": (7, 7), "bias": (7,)}
    hidden = {name: (4, *shape) for name, shape in layer.items()}
    assert shapes(params) == {
        "first": {"kernel": (6, 7), "bias": (7,)}, "hidden": hidden, "logits": {"kernel": (7, 4), "bias": (4,)}
    }  # fmt: skip
    assert stats == {}
    params = noisy(params)
    function = {"relu": jax.nn.relu}.get(activation, activation)
    plain = partial(written_out, x=X, activation=function, residual=residual)
    both = [
        jit(jax.value_and_grad(lambda params, net=net: mean_loss(net(params))))(params)
        for net in (lambda params: models.apply(model, params, stats, X)[0], plain)
    ]
    for a, b in zip(*map(jax.tree.leaves, both), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_one_hidden_layer_needs_no_loop():
    params, stats = init(models.DeepMLP(depth=1, width=5, classes=4), KEY, X)
    assert set(params) == {"first", "logits"}
    y, _ = apply(models.DeepMLP(depth=1, width=5, classes=4), params, stats, X)
    np.testing.assert_allclose(y, written_out(params, X, layers=1), rtol=1e-5, atol=1e-6)
    images = models.DeepCNN(depth=1, width=5, classes=4)
    assert set(init(images, KEY, IMAGES)[0]) == {"first", "logits"}


@pytest.mark.parametrize("train", [False, True])
def test_batch_normalization_stands_before_the_activation(train):
    model = models.DeepMLP(depth=3, width=5, classes=4, normalize="before", residual=True)
    params, stats = init(model, KEY, X)
    assert shapes(params["hidden"]) == {"kernel": (2, 5, 5)}
    assert shapes(params["hidden_norm"]) == {"scale": (2, 5), "bias": (2, 5)}
    params, stats = noisy(params), noisy(stats)
    y, after = apply(model, params, stats, X, train=train)
    old, means = stats["batch_stats"], []
    z = X.reshape(12, -1) @ params["first"]["kernel"]
    kernels = params["hidden"]["kernel"]
    for layer in range(3):
        norm, kept = params["first_norm"], old["first_norm"]
        if layer > 0:
            norm, kept = (jax.tree.map(lambda leaf: leaf[layer - 1], t["hidden_norm"]) for t in (params, old))  # noqa: B023
            z = x @ kernels[layer - 1]  # noqa: F821
        mean, var = (z.mean(0), z.var(0)) if train else (kept["mean"], kept["var"])
        means.append(0.9 * kept["mean"] + 0.1 * z.mean(0))
        a = jax.nn.relu((z - mean[None]) / jnp.sqrt(var[None] + 1e-5) * norm["scale"][None] + norm["bias"][None])
        x = a if layer == 0 else x + a  # noqa: F821
    np.testing.assert_allclose(y, x @ params["logits"]["kernel"] + params["logits"]["bias"][None], rtol=2e-5, atol=2e-5)
    if train:
        moved = after["batch_stats"]
        np.testing.assert_allclose(moved["first_norm"]["mean"], means[0], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(moved["hidden_norm"]["mean"], np.stack(means[1:]), rtol=1e-5, atol=1e-5)


def test_the_loop_of_convolutions_is_the_net_written_out():
    model = models.DeepCNN(depth=4, width=6, classes=4, activation="tanh")
    params, stats = init(model, KEY, IMAGES)
    assert shapes(params) == {
        "first": {"kernel": (3, 3, 3, 6), "bias": (6,)},
        "hidden": {"kernel": (3, 3, 3, 6, 6), "bias": (3, 6)},
        "logits": {"kernel": (6, 4), "bias": (4,)},
    }
    params = noisy(params)

    def plain(params):
        x, hidden = IMAGES, params["hidden"]
        layers = [params["first"], *(jax.tree.map(lambda leaf, i=i: leaf[i], hidden) for i in range(3))]
        for layer in layers:
            z = lax.conv_general_dilated(x, layer["kernel"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
            x = jnp.tanh(z + layer["bias"][None, None, None])
        return x.mean((1, 2)) @ params["logits"]["kernel"] + params["logits"]["bias"][None]

    both = [
        jit(jax.value_and_grad(lambda params, net=net: (net(params) ** 2).mean()))(params)
        for net in (lambda params: models.apply(model, params, stats, IMAGES)[0], plain)
    ]
    for a, b in zip(*map(jax.tree.leaves, both), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_delta_orthogonal_convolutions_keep_the_length_of_every_pixel_at_any_depth():
    model = models.DeepCNN(depth=20, width=8, activation="identity", initializer="delta_orthogonal")
    params, _ = init(model, KEY, IMAGES)
    x = IMAGES
    for kernel in [params["first"]["kernel"], *params["hidden"]["kernel"]]:
        x = lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    np.testing.assert_allclose(np.linalg.norm(x, axis=-1), np.linalg.norm(IMAGES, axis=-1), rtol=1e-5)


# Initial weights


@pytest.mark.parametrize("model", [models.DeepMLP(width=5), models.DeepCNN(width=3)], ids=lambda m: type(m).__name__)
@pytest.mark.parametrize("initializer", ["he_normal", pytest.param("orthogonal", marks=pytest.mark.slow)])
def test_a_layers_start_does_not_depend_on_the_depth(model, initializer):
    x = X if isinstance(model, models.DeepMLP) else IMAGES
    short, long = (init(model.clone(depth=depth, initializer=initializer), KEY, x)[0] for depth in (3, 8))
    for name in ("first", "logits"):
        np.testing.assert_array_equal(short[name]["kernel"], long[name]["kernel"])
    np.testing.assert_array_equal(short["hidden"]["kernel"], long["hidden"]["kernel"][:2])
    kernels = np.asarray(long["hidden"]["kernel"])
    assert len(np.unique(kernels.reshape(7, -1), axis=0)) == 7  # every layer its own
    assert {len(leaf) for leaf in jax.tree.leaves(long["hidden"])} == {7}


def test_the_start_has_the_schemes_variance():
    kernels = init(models.DeepMLP(depth=9, width=40, initializer="he_normal"), KEY, X)[0]["hidden"]["kernel"]
    assert abs(float((kernels**2).mean()) * 40 / 2 - 1) < 4 * np.sqrt(2 / kernels.size)


def test_every_initializer_has_its_place():
    constant = lambda value: lambda key, shape, dtype=jnp.float32: jnp.full(shape, value, dtype)  # noqa: E731
    for model, x in ((models.DeepMLP(depth=3, width=4), X), (models.DeepCNN(depth=3, width=4), IMAGES)):
        model = model.clone(initializer=constant(2.0), bias_initializer=constant(3.0), output_initializer="zeros")
        params, _ = init(model, KEY, x)
        for name in ("first", "hidden"):
            np.testing.assert_array_equal(params[name]["kernel"], 2)
            np.testing.assert_array_equal(params[name]["bias"], 3)
        np.testing.assert_array_equal(params["logits"]["kernel"], 0)
        np.testing.assert_array_equal(params["logits"]["bias"], 3)
        plain, _ = init(model.clone(bias_initializer="zeros", output_initializer=constant(5.0)), KEY, x)
        np.testing.assert_array_equal(plain["hidden"]["bias"], 0)
        np.testing.assert_array_equal(plain["logits"]["kernel"], 5)


@pytest.mark.parametrize(
    "lanes", [pytest.param(jax.vmap, marks=pytest.mark.slow), lambda f: partial(lax.map, f)], ids=["vmap", "map"]
)
def test_a_scheme_may_be_chosen_inside_a_program(lanes):
    names = ("zeros", "he_normal", "xavier_normal")

    def lane(scheme):
        def draw(key, shape, dtype=jnp.float32):
            branches = [partial(initializers.by_name(name), shape=shape, dtype=dtype) for name in names]
            return lax.switch(scheme, branches, key)

        return models.init(models.DeepMLP(depth=3, width=4, initializer=draw), KEY, X)[0]

    made = jit(lanes(lane))(jnp.arange(3))
    for number, name in enumerate(names):
        params, _ = init(models.DeepMLP(depth=3, width=4, initializer=name), KEY, X)
        for a, b in zip(jax.tree.leaves(made), jax.tree.leaves(params), strict=True):
            np.testing.assert_allclose(a[number], b, rtol=1e-6)


# Layers in use

DEPTH = 6
WHOLE = models.DeepMLP(depth=DEPTH, width=5, classes=4, activation="tanh")


def value_and_gradient(model, params):
    return jax.value_and_grad(lambda params: mean_loss(models.apply(model, params, {}, X)[0]))(params)


@pytest.fixture(scope="module")
def start():
    return noisy(init(WHOLE, KEY, X)[0])


@pytest.fixture(scope="module")
def in_use():
    """Loss and gradients for a traced number of layers in use; and how often it was traced."""
    traces = []

    def run(params, alive, residual):
        traces.append(1)
        return value_and_gradient(WHOLE.clone(alive=alive, residual=residual), params)

    return jit(run, static_argnums=2), traces


@pytest.mark.parametrize("residual", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_layers_in_use_are_a_net_of_that_depth(start, in_use, residual):
    program, traces = in_use
    before = len(traces)
    for alive in (1, 2, 4, DEPTH):
        value, gradient = program(start, alive, residual)
        model = WHOLE.clone(depth=alive, residual=residual)
        own = {"first": start["first"], "logits": start["logits"]}
        if alive > 1:
            own["hidden"] = jax.tree.map(lambda leaf, alive=alive: leaf[: alive - 1], start["hidden"])
        expected, slopes = jit(partial(value_and_gradient, model))(own)
        np.testing.assert_allclose(value, expected, rtol=1e-6)
        for name, leaves in slopes.items():
            for part, leaf in leaves.items():
                made = gradient[name][part][: alive - 1] if name == "hidden" else gradient[name][part]
                np.testing.assert_allclose(made, leaf, rtol=1e-5, atol=1e-7)
        for leaf in jax.tree.leaves(gradient["hidden"]):
            np.testing.assert_array_equal(leaf[alive - 1 :], 0)
    assert len(traces) == before + 1  # one program serves all depths


@pytest.mark.parametrize("lanes", [jax.vmap, lambda f: partial(lax.map, f)], ids=["vmap", "map"])
def test_lanes_of_several_depths_and_broken_layers_beyond(start, in_use, lanes):
    broken = {**start, "hidden": jax.tree.map(lambda leaf: leaf.at[3:].set(jnp.nan), start["hidden"])}
    depths = jnp.asarray([1, 3, 4])
    run = jit(lanes(lambda alive: value_and_gradient(WHOLE.clone(alive=alive), broken)))
    made = run(depths)
    for lane, alive in enumerate(depths):
        expected = in_use[0](start, alive, False)
        for a, b in zip(jax.tree.leaves(made), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(a[lane], b, rtol=1e-5, atol=1e-7)
    for leaf in jax.tree.leaves(made[1]["hidden"]):
        np.testing.assert_array_equal(leaf[:, 3:], 0)


def primitives(jaxpr):
    for equation in jaxpr.eqns:
        yield equation.primitive.name
        for value in equation.params.values():
            for inner in value if isinstance(value, tuple | list) else [value]:
                inner = getattr(inner, "jaxpr", inner)
                if hasattr(inner, "eqns"):
                    yield from primitives(inner)


def test_layers_beyond_are_skipped_unless_in_one_batch(start):
    """A condition stays one under `lax.map`; `vmap` computes both branches."""
    lane = lambda alive: models.apply(WHOLE.clone(alive=alive), start, {}, X)[0]  # noqa: E731
    depths = jnp.asarray([1, 3])
    assert "cond" in set(primitives(jax.make_jaxpr(partial(lax.map, lane))(depths).jaxpr))
    assert "cond" not in set(primitives(jax.make_jaxpr(jax.vmap(lane))(depths).jaxpr))


def test_no_examples_have_no_outputs():
    assert models.apply(WHOLE, init(WHOLE, KEY, X)[0], {}, X[:0])[0].shape == (0, 4)


def test_a_known_number_of_layers_in_use(start):
    y = jit(lambda params: models.apply(WHOLE.clone(alive=2), params, {}, X)[0])(start)
    np.testing.assert_allclose(y, written_out(start, X, activation=jnp.tanh, layers=2), rtol=1e-5, atol=1e-6)
    params, _ = init(WHOLE.clone(alive=2), KEY, X)
    assert shapes(params) == shapes(start)  # all are allocated


# As everything else


@pytest.mark.parametrize(("model", "x"), [(models.DeepMLP(width=4), X), (models.DeepCNN(width=4), IMAGES)])
def test_the_program_does_not_grow_with_depth(model, x):
    sizes = []
    for depth in (3, 60):
        params = jax.eval_shape(partial(models.init, model.clone(depth=depth)), KEY, x)[0]
        net = lambda params, depth=depth: models.apply(model.clone(depth=depth), params, {}, x)[0].sum()  # noqa: E731
        sizes.append(len([*primitives(jax.make_jaxpr(jax.grad(net))(params).jaxpr)]))
    assert sizes[0] == sizes[1]


@pytest.mark.parametrize(
    ("model", "x"),
    [
        (models.DeepMLP(depth=3, width=4), X),
        pytest.param(models.DeepCNN(depth=3, width=4), IMAGES, marks=pytest.mark.slow),
    ],
)
def test_lanes_and_dtypes(model, x):
    keys = jax.random.split(KEY, 2)
    lanes = jit(jax.vmap(lambda key: models.init(model, key, x)[0]))(keys)
    outputs = jit(jax.vmap(lambda params: models.apply(model, params, {}, x)[0]))(lanes)
    for number, key in enumerate(keys):
        params, _ = init(model, key, x)
        np.testing.assert_allclose(outputs[number], apply(model, params, {}, x)[0], rtol=1e-4, atol=1e-6)
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
        y, _ = apply(model, wide, {}, np.asarray(x, np.float64))
        assert y.dtype == np.float64
        np.testing.assert_allclose(y, outputs[1], rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_it_trains():
    """Twelve examples, by heart."""
    model = models.DeepMLP(depth=5, width=32, classes=4)
    config = train.Config(steps=150, batch_size=12, evaluate_every=150)
    run = train.make_train(models.network(model), losses.cross_entropy, lambda _: optax.adam(3e-3), config)
    history = jit(lambda key: run(key, None, {"train": (X, Y)}).history)(KEY)
    assert history["train_loss"][-1] < 0.1


def test_a_summary_counts_all_layers():
    found = models.summary(models.DeepMLP(depth=4, width=5, classes=3), (2, 3))
    assert [(layer.name, layer.parameters) for layer in found.layers] == [("first", 35), ("hidden", 90), ("logits", 18)]


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"depth": 0}, "depth=0 must be a whole number, at least 1"),
        ({"width": 2.5}, r"width=2\.5 must be a whole number"),
        ({"classes": -1}, "classes=-1 must be a whole number"),
        ({"activation": "rellu"}, "activation 'rellu' is not one of .*; did you mean 'relu'"),
        ({"initializer": "he_norml"}, "initializer 'he_norml' is not one of .*; did you mean 'he_normal'"),
        ({"output_initializer": "zero"}, "did you mean 'zeros'"),
        ({"bias_initializer": "zero"}, "did you mean 'zeros'"),
        ({"activation": None}, "activation=None must be a function or a name in nnjax.activations"),
        ({"initializer": 3}, r"initializer=3 must be a function \(key, shape, dtype\) or a name"),
    ],
)
@pytest.mark.parametrize(("model", "x"), [(models.DeepMLP, X), (models.DeepCNN, IMAGES)])
def test_bad_attributes(model, x, wrong, words):
    with pytest.raises(ValueError, match=words):
        jax.eval_shape(partial(models.init, model(**wrong)), KEY, x)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"alive": 0}, r"alive=0 must be a whole number from 1 to depth=30"),
        ({"alive": 31}, r"alive=31 must be a whole number from 1 to depth=30"),
        ({"alive": 1.0}, r"alive=1\.0 must be a whole number"),
        ({"alive": np.array([1, 2])}, r"must be a whole number"),
        ({"normalize": "befor"}, "normalize 'befor' is not one of none, before; did you mean 'before'"),
        ({"normalize": "before", "alive": 3}, "alive=3 needs normalize='none'"),
    ],
)
def test_bad_numbers_of_layers(wrong, words):
    with pytest.raises(ValueError, match=words):
        jax.eval_shape(partial(models.init, models.DeepMLP(**wrong)), KEY, X)


def test_convolutions_need_pictures():
    with pytest.raises(ValueError, match=r"x has shape \(12, 3, 2\); it must be \(n, h, w, channels\)"):
        models.init(models.DeepCNN(), KEY, X)
