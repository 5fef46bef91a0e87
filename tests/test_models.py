"""The seam to Flax, summaries by hand, padded nets against plain ones, a block against PyTorch's."""

import json
import resource
from functools import partial
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.errors import InvalidRngError

from nnjax import conv, losses, models
from nnjax.train import Config, make_train

KEY = jax.random.key(0)
COUNTS = json.loads(Path(__file__).with_name("worked_examples.json").read_text())["parameter_counts"]


def worked(start):
    (example,) = [example for example in COUNTS if example["model"].startswith(start)]
    return example


# Small programs, run a few times: compiling them without optimization is several times faster.
jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
init = jit(models.init, static_argnums=0)
apply = jit(models.apply, static_argnums=0, static_argnames="train")


def nonzero_stats(stats):
    return jax.tree.map(lambda leaf: np.asarray(leaf) + np.float32(0.1), stats)


# The seam


class Plain(nn.Module):
    """Without a ``train`` argument."""

    @nn.compact
    def __call__(self, x):
        return nn.Dense(3)(x)


class Normalized(nn.Module):
    """With one, and batch statistics."""

    @nn.compact
    def __call__(self, x, train):
        return nn.BatchNorm(use_running_average=not train, momentum=0.5)(x)


X = jax.random.normal(KEY, (8, 5))


def test_a_module_without_a_train_argument():
    params, stats = models.init(Plain(), KEY, X)
    assert stats == {}
    expected = X @ params["Dense_0"]["kernel"] + params["Dense_0"]["bias"][None]
    for train in (False, True):
        y, after = models.apply(Plain(), params, stats, X, train=train, key=KEY)
        np.testing.assert_allclose(y, expected, rtol=1e-6)
        assert after == {}


def test_batch_statistics_move_only_in_training():
    params, stats = init(Normalized(), KEY, X)
    assert set(params) == {"BatchNorm_0"}
    assert list(stats) == ["batch_stats"]
    np.testing.assert_array_equal(stats["batch_stats"]["BatchNorm_0"]["mean"], np.zeros(5))
    y, same = models.apply(Normalized(), params, stats, X)
    assert jax.tree.all(jax.tree.map(np.array_equal, stats, same))
    np.testing.assert_allclose(y, X / np.sqrt(1 + 1e-5), rtol=1e-5)
    y, moved = models.apply(Normalized(), params, stats, X, train=True)
    np.testing.assert_allclose(moved["batch_stats"]["BatchNorm_0"]["mean"], 0.5 * X.mean(0), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(moved["batch_stats"]["BatchNorm_0"]["var"], 0.5 + 0.5 * X.var(0), rtol=1e-5)
    np.testing.assert_allclose(y.mean(0), np.zeros(5), atol=1e-6)
    np.testing.assert_allclose(y.var(0), np.ones(5), rtol=1e-4)


class Counting(nn.Module):
    """Counts its calls wherever it is allowed to."""

    @nn.compact
    def __call__(self, x):
        count = self.variable("seen", "count", lambda: jnp.zeros((), int))
        if self.is_mutable_collection("seen") and not self.is_initializing():
            count.value += 1
        return x


def test_nothing_may_be_written_outside_training():
    params, stats = models.init(Counting(), KEY, X)
    for train, expected in ((True, 1), (False, 0)):
        _, after = models.apply(Counting(), params, stats, X, train=train)
        assert after["seen"]["count"] == expected


def test_dropout_needs_a_key_and_follows_it():
    model = models.MLP((50,), classes=4, dropout=0.5)
    params, stats = init(model, KEY, X)
    keys = jax.random.split(KEY)
    here = partial(apply, model, params, stats, X)
    with pytest.raises(InvalidRngError, match="dropout"):
        here(train=True)
    a, b, again = (here(key=key, train=True)[0] for key in (*keys, keys[0]))
    np.testing.assert_array_equal(a, again)
    assert not np.allclose(a, b)
    np.testing.assert_array_equal(here()[0], here(key=keys[0])[0])
    many = np.asarray(jax.vmap(lambda key: here(key=key, train=True)[0])(jax.random.split(KEY, 4000)))
    np.testing.assert_array_less(np.abs(many.mean(0) - here()[0]), 5 * many.std(0) / np.sqrt(4000))


def test_network_is_the_same_pair_of_functions():
    model = models.MLP((6,), classes=3)
    network = models.network(model)
    params, stats = network.init(KEY, X)
    y, _ = network.apply(params, stats, X, key=None, train=False)
    assert jax.tree.all(jax.tree.map(np.array_equal, params, models.init(model, KEY, X)[0]))
    np.testing.assert_array_equal(y, models.apply(model, params, stats, X)[0])
    hidden = jax.nn.relu(X @ params["Dense_0"]["kernel"] + params["Dense_0"]["bias"][None])
    np.testing.assert_allclose(y, hidden @ params["Dense_1"]["kernel"] + params["Dense_1"]["bias"][None], atol=1e-5)


# Batch normalization and dropout in an MLP


def test_a_layer_that_is_normalized_first_has_no_bias():
    shapes = {
        "none": {"Dense_0": {"bias", "kernel"}, "Dense_1": {"bias", "kernel"}},
        "before": {"Dense_0": {"kernel"}, "BatchNorm_0": {"bias", "scale"}, "Dense_1": {"bias", "kernel"}},
        "after": {"Dense_0": {"bias", "kernel"}, "BatchNorm_0": {"bias", "scale"}, "Dense_1": {"bias", "kernel"}},
    }
    kernels = []
    for normalize, expected in shapes.items():
        params, stats = init(models.MLP((4,), classes=3, normalize=normalize), KEY, X)
        assert {name: set(own) for name, own in params.items()} == expected
        assert set(stats) == (set() if normalize == "none" else {"batch_stats"})
        kernels.append(np.asarray(params["Dense_0"]["kernel"]))
    np.testing.assert_array_equal(kernels[0], kernels[1])  # the same start, whatever is normalized
    np.testing.assert_array_equal(kernels[0], kernels[2])


def moved(params, stats):
    """Parameters and statistics that are not the initial ones."""
    noise = np.random.default_rng(1)
    params, stats = jax.tree.map(
        lambda leaf: np.asarray(leaf) + noise.uniform(0.1, 0.5, leaf.shape).astype(np.float32), (params, stats)
    )
    return params, stats


@pytest.mark.parametrize("normalize", ["before", "after"])
def test_batch_normalization_by_hand(normalize):
    model = models.MLP((4,), classes=3, activation="tanh", normalize=normalize)
    params, stats = moved(*init(model, KEY, X))
    norm, seen = params["BatchNorm_0"], stats["batch_stats"]["BatchNorm_0"]

    def by_hand(train):
        z = X @ params["Dense_0"]["kernel"] + params["Dense_0"].get("bias", np.zeros(4))[None]
        z = np.asarray(np.tanh(z) if normalize == "after" else z)
        mean, var = (z.mean(0), z.var(0)) if train else (seen["mean"], seen["var"])
        h = (z - mean) / np.sqrt(var + 1e-5) * norm["scale"] + norm["bias"]
        h = np.tanh(h) if normalize == "before" else h
        return h @ params["Dense_1"]["kernel"] + params["Dense_1"]["bias"], mean, var

    for train in (True, False):
        y, after = apply(model, params, stats, X, train=train)
        expected, mean, var = by_hand(train)
        np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)
        share = 0.1 if train else 0.0  # what the running average moves by
        for name, value in (("mean", mean), ("var", var)):
            now = after["batch_stats"]["BatchNorm_0"][name]
            np.testing.assert_allclose(now, (1 - share) * seen[name] + share * value, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("normalize", ["before", "after"])
def test_normalized_units_have_mean_0_and_variance_1(normalize):
    model = models.MLP((6,), classes=6, activation="identity", normalize=normalize)
    params, stats = init(model, KEY, X)
    params["Dense_1"] = {
        "kernel": np.eye(6, dtype=np.float32),
        "bias": np.zeros(6, np.float32),
    }  # shows the hidden layer
    y = np.asarray(apply(model, params, stats, 3 * X + 7, train=True)[0])
    np.testing.assert_allclose(y.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(y.var(0), 1, rtol=1e-3)
    alone = [apply(model, params, stats, X[i : i + 1])[0][0] for i in range(8)]
    np.testing.assert_allclose(alone, apply(model, params, stats, X)[0], rtol=1e-4, atol=1e-5)  # evaluation: one by one


def test_a_bias_before_the_normalization_would_change_nothing():
    model = models.MLP((4,), classes=3, normalize="before")
    constant = np.concatenate([X, np.ones((8, 1), np.float32)], axis=1)  # its weights are a bias
    params, stats = init(model, KEY, constant)
    y = apply(model, params, stats, constant, train=True)[0]
    kernel = np.array(params["Dense_0"]["kernel"])
    kernel[-1] += 5
    params["Dense_0"] = {"kernel": kernel}
    np.testing.assert_allclose(apply(model, params, stats, constant, train=True)[0], y, atol=1e-4)


def test_batch_normalization_is_pytorchs():
    torch = pytest.importorskip("torch")
    model = models.MLP((4,), classes=3, normalize="before")
    params, stats = moved(*init(model, KEY, X))
    norm, seen = params["BatchNorm_0"], stats["batch_stats"]["BatchNorm_0"]
    layer = torch.nn.BatchNorm1d(4, momentum=0.1)  # the share of the new value, where Flax has that of the old, 0.9
    with torch.no_grad():
        layer.weight[:], layer.bias[:] = torch.tensor(norm["scale"]), torch.tensor(norm["bias"])
        layer.running_mean[:], layer.running_var[:] = torch.tensor(seen["mean"]), torch.tensor(seen["var"])
    z = torch.tensor(np.array(X) @ params["Dense_0"]["kernel"])
    last = {name: torch.tensor(value) for name, value in params["Dense_1"].items()}

    def logits():
        return (torch.relu(layer(z)) @ last["kernel"] + last["bias"]).detach().numpy()

    np.testing.assert_allclose(apply(model, params, stats, X)[0], (layer.eval(), logits())[1], rtol=1e-4, atol=1e-5)
    y, after = apply(model, params, stats, X, train=True)
    np.testing.assert_allclose(y, (layer.train(), logits())[1], rtol=1e-4, atol=1e-5)
    now = after["batch_stats"]["BatchNorm_0"]
    np.testing.assert_allclose(now["mean"], layer.running_mean.numpy(), rtol=1e-4, atol=1e-6)
    ours, theirs = now["var"] - 0.9 * seen["var"], layer.running_var.numpy() - 0.9 * seen["var"]
    np.testing.assert_allclose(ours * 8 / 7, theirs, rtol=1e-3)  # PyTorch's running variance is the unbiased one


def test_a_traced_dropout_rate_is_the_static_one():
    make = partial(models.MLP, (50,), classes=4, normalize="before")
    params, stats = init(make(), KEY, X)

    @jit
    def traced(rate, train):
        here = models.apply(make(dropout=rate), params, stats, X, key=KEY, train=True)[0]
        return jnp.where(train, here, models.apply(make(dropout=rate), params, stats, X)[0])

    still = apply(make(), params, stats, X, train=True)[0]
    np.testing.assert_allclose(traced(0.0, True), still, rtol=1e-5, atol=1e-6)
    static = apply(make(dropout=0.5), params, stats, X, key=KEY, train=True)[0]
    np.testing.assert_allclose(traced(0.5, True), static, rtol=1e-5, atol=1e-6)
    assert np.abs(static - still).max() > 0.1
    known = make(dropout=jnp.asarray(0.5))  # an array whose value is known, inside a trace
    inside = jit(lambda x: models.apply(known, params, stats, x, key=KEY, train=True)[0])(X)
    np.testing.assert_allclose(inside, static, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(traced(0.5, False), apply(make(), params, stats, X)[0], rtol=1e-5, atol=1e-6)


def test_dropout_leaves_its_own_layers_statistics_alone():
    make = partial(models.MLP, (50,), classes=4)
    for normalize in ("before", "after"):
        params, stats = init(make(normalize=normalize), KEY, X)
        moved = [
            apply(make(normalize=normalize, dropout=rate), params, stats, X, key=KEY, train=True)[1]
            for rate in (0.0, 0.5)
        ]
        close(moved[0], moved[1], rtol=1e-6)


def test_an_activation_by_name():
    for name, function in (("relu", jax.nn.relu), ("elu", jax.nn.elu), ("logistic", jax.nn.sigmoid)):
        model, expected = (models.MLP((6,), classes=3, activation=a) for a in (name, function))
        params, stats = init(model, KEY, X)
        np.testing.assert_allclose(apply(model, params, stats, X)[0], apply(expected, params, stats, X)[0], rtol=1e-6)


def test_what_an_mlp_refuses():
    with pytest.raises(ValueError, match="did you mean 'tanh'"):
        models.init(models.MLP((3,), activation="tahn"), KEY, X)
    with pytest.raises(ValueError, match=r"normalize 'befor' is not one of none, before, after; did you mean 'before'"):
        models.init(models.MLP((3,), normalize="befor"), KEY, X)
    for rate in (-0.1, 1.5):
        with pytest.raises(ValueError, match=rf"dropout={rate} must lie between 0 and 1"):
            models.init(models.MLP((3,), dropout=rate), KEY, X)


def test_early_stopping_returns_the_statistics_of_the_best_evaluation_too():
    rng = np.random.default_rng(0)

    def part():
        return rng.normal(size=(40, 5)).astype("float32"), rng.integers(0, 3, 40).astype("int32")

    data = {"train": part(), "validation": part()}  # nothing to learn: validation loss rises sooner or later
    network = models.network(models.MLP((16,), classes=3, normalize="before"))
    config = Config(steps=40, evaluate_every=1, select="validation_loss")
    train = make_train(network, losses.cross_entropy, lambda _: optax.sgd(0.5), config)
    result = jit(train)(KEY, None, data)
    curve = np.asarray(result.history["validation_loss"])
    assert int(result.step) == curve.argmin() + 1 < 40
    x, y = data["validation"]
    again = losses.cross_entropy(network.apply(result.params, result.stats, x, key=None, train=False)[0], y).mean()
    np.testing.assert_allclose(again, curve.min(), rtol=1e-5)


# Summaries


class TwoConvolutions(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.Conv(2, (3, 3), padding="SAME")(x)
        x = nn.Conv(3, (3, 3), padding="SAME")(x)
        return nn.Dense(2)(x.reshape(x.shape[0], -1))


class GrowingConvolutions(nn.Module):
    @nn.compact
    def __call__(self, x, train):
        x = nn.Dense(16)(x)
        for features, side in ((32, 3), (64, 5), (128, 7)):
            x = nn.relu(nn.Conv(features, (side, side), padding="VALID")(x))
        return nn.Dense(2)(x.reshape(x.shape[0], -1))


def test_dense_2_3_2():
    made = models.summary(models.MLP((3,), classes=2), (2,))
    assert made.total == worked("dense 2-3-2")["total"] == 17
    assert [(layer.output_shape, layer.parameters) for layer in made.layers] == [((3,), 9), ((2,), 8)]


@pytest.mark.parametrize(
    ("model", "start"),
    [(TwoConvolutions(), "20x20x3 -> conv 3x3 x2"), (GrowingConvolutions(), "20x20x3 -> dense 16")],
)
def test_worked_convolutional_nets(model, start):
    example = worked(start)
    made = models.summary(model, (20, 20, 3))
    assert made.total == example["total"] == sum(example["per_layer"])
    assert [layer.parameters for layer in made.layers] == example["per_layer"]
    if "shapes" in example:
        shapes = [tuple(shape) for shape in example["shapes"] if shape != [8192]]  # the flattening is no layer
        assert [layer.output_shape for layer in made.layers] == shapes
    assert [layer.name.split("_")[0] for layer in made.layers][-1] == "Dense"


def test_billions_of_weights_take_no_memory():
    class Wide(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Dense(40_000, use_bias=False)(x.reshape(x.shape[0], -1))

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    made = models.summary(Wide(), (200, 200))
    assert made.total == worked("one dense layer from 200x200")["total"] == 1_600_000_000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # kB


def test_resnet18_is_the_well_known_one():
    made = models.summary(models.ResNet18k(64), (32, 32, 3))
    assert made.total == 11_171_146
    assert made.layers[0] == models.Layer("Conv_0", (32, 32, 64), 1728)
    assert made.layers[-1] == models.Layer("Dense_0", (10,), 5130)
    assert {layer.output_shape[0] for layer in made.layers[:-1]} == {32, 16, 8, 4}
    convolutions = [layer for layer in made.layers if "Conv" in layer.name]
    assert len(convolutions) == 17 + 3  # and three shortcuts


@pytest.mark.parametrize("k", [1, 4, 10, 64])
def test_small_cnn_by_formula(k):
    made = models.summary(models.SmallCNN(k, classes=10), (32, 32, 3))
    convolutions = 9 * (3 * k + k * 2 * k + 2 * k * 4 * k + 4 * k * 8 * k)
    assert made.total == convolutions + 2 * (k + 2 * k + 4 * k + 8 * k) + 8 * k * 10 + 10
    sides = [layer.output_shape for layer in made.layers if layer.name.startswith("Conv")]
    assert sides == [(32, 32, k), (32, 32, 2 * k), (16, 16, 4 * k), (8, 8, 8 * k)]


def test_a_summary_reads_as_a_table():
    made = models.summary(models.SmallCNN(8), (32, 32, 3))
    lines = str(made).splitlines()
    assert lines[0] == "SmallCNN"
    assert lines[2].split() == ["layer", "output", "shape", "parameters"]
    assert len({len(line) for line in lines[1:]}) == 1
    assert len(lines) == 6 + len(made.layers)
    assert lines[4].split() == ["Conv_0", "(32,", "32,", "8)", "216"]
    assert lines[-1].split() == ["total", f"{made.total:,}"]


class Own(nn.Module):
    """A parameter of its own, a module used twice, a module within a module."""

    def setup(self):
        self.shared = nn.Dense(4)
        self.inner = models.MLP((3,), classes=4)
        self.scale = self.param("scale", nn.initializers.ones, (4,))

    def __call__(self, x):
        return self.inner(self.shared(self.shared(x))) * self.scale[None]


def test_every_parameter_is_counted_once():
    made = models.summary(Own(), (4,))
    assert {layer.name: layer.parameters for layer in made.layers} == {
        "shared": 20,
        "inner/Dense_0": 15,
        "inner/Dense_1": 16,
        "Own": 4,
    }
    assert made.total == 55


@pytest.mark.parametrize("shape", [(0,), (-1, 3), (32, 32, 0)])
def test_a_bad_input_shape(shape):
    with pytest.raises(ValueError, match="must hold positive sizes, without the batch axis"):
        models.summary(models.MLP(), shape)


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (models.MLP((), classes=3), (4, 5)),
        (models.MLP((6, 7), classes=3, dropout=0.1), (2, 3, 4)),
        (models.SmallCNN(2, classes=3), (4, 4, 1)),
        (models.SmallCNN(2, classes=3), (28, 28, 1)),
        (models.ResNet18k(2, classes=3), (8, 8, 3)),
        (models.ResNet18k(2, classes=3), (28, 28, 1)),
    ],
)
def test_outputs_are_logits(model, shape):
    def shapes(train):
        x = jnp.zeros((5, *shape))
        params, stats = models.init(model, KEY, x)
        y, after = models.apply(model, params, stats, x, key=KEY, train=train)
        return y, jax.tree.structure(stats) == jax.tree.structure(after)

    for train in (False, True):
        y = jax.eval_shape(lambda train=train: shapes(train)[0])
        assert y.shape == (5, 3)
        assert y.dtype == jnp.float32


def test_small_cnn_by_hand():
    """Its four stages from `jax.lax` and NumPy, with statistics that are not the initial ones."""
    model, x = models.SmallCNN(2, classes=3), jax.random.normal(KEY, (2, 8, 8, 3))
    params, stats = jax.tree.map(np.asarray, init(model, KEY, x))
    stats = nonzero_stats(stats)
    y = x
    for stage, pool in enumerate((1, 2, 2, 2)):
        y = jax.lax.conv_general_dilated(
            y, params[f"Conv_{stage}"]["kernel"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        norm, seen = params[f"BatchNorm_{stage}"], stats["batch_stats"][f"BatchNorm_{stage}"]
        y = (np.asarray(y) - seen["mean"]) / np.sqrt(seen["var"] + 1e-5) * norm["scale"] + norm["bias"]
        n, h, w, c = y.shape
        y = np.maximum(y, 0).reshape(n, h // pool, pool, w // pool, pool, c).max((2, 4))
    assert y.shape == (2, 1, 1, 16)
    y = y[:, 0, 0] @ params["Dense_0"]["kernel"]
    np.testing.assert_allclose(apply(model, params, stats, x)[0], y, rtol=1e-4, atol=1e-5)


# Padded nets


def cut(params, widths):
    """The living part of padded parameters, shaped as a plain net's."""
    params = jax.tree.map(np.asarray, params)
    sizes = [None, *widths, None]
    return {
        f"Dense_{i}": {
            "kernel": params[f"Dense_{i}"]["kernel"][: sizes[i], : sizes[i + 1]],
            "bias": params[f"Dense_{i}"]["bias"][: sizes[i + 1]],
        }
        for i in range(len(widths) + 1)
    }


def dead(params, widths):
    """Every number that belongs to a unit that is not alive."""
    params = jax.tree.map(np.asarray, params)
    found = []
    for i, width in enumerate(widths):
        found += [params[f"Dense_{i}"]["kernel"][:, width:], params[f"Dense_{i}"]["bias"][width:]]
        found += [params[f"Dense_{i + 1}"]["kernel"][width:]]
    return np.concatenate([np.ravel(leaf) for leaf in found])


def close(a, b, **tolerance):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, **tolerance), a, b)


Y = jax.random.randint(KEY, (8,), 0, 3)
PAIRS = [((8,), (1,)), ((8,), (5,)), ((8,), (8,)), ((8, 6), (8, 2)), ((9, 12), (4, 5))]


def loss_of(network, params, stats):
    return losses.cross_entropy(network.apply(params, stats, X, key=None, train=True)[0], Y).mean()


@pytest.mark.parametrize(
    ("allocation", "widths", "initializer"),
    [(*pair, "he_normal") for pair in PAIRS]
    + [((9, 12), (4, 5), name) for name in ("xavier_normal", "standard_normal")],
)
def test_a_padded_net_is_the_plain_net(allocation, widths, initializer):
    make = partial(models.MLP, classes=3, initializer=initializer, activation=jnp.tanh)
    padded = models.padded_mlp(make(allocation), widths)
    plain = models.network(make(widths))

    def everything(network):
        params, stats = network.init(KEY, X)
        outputs = network.apply(params, stats, X, key=None, train=False)[0]
        return params, outputs, jax.grad(partial(loss_of, network))(params, stats)

    (params, outputs, gradient), expected = jit(lambda: (everything(padded), everything(plain)))()
    close(cut(params, widths), expected[0], rtol=1e-5)
    np.testing.assert_allclose(outputs, expected[1], rtol=1e-4, atol=1e-5)
    close(cut(gradient, widths), expected[2], rtol=1e-4, atol=1e-5)
    assert not dead(params, widths).any()
    assert not dead(gradient, widths).any()


@pytest.mark.parametrize("initializer", ["lecun_normal", "small_normal", "zeros", "he_uniform", "xavier_uniform"])
def test_the_other_initializers_pad_too(initializer):
    make = partial(models.MLP, classes=3, initializer=initializer)
    padded, _ = jit(models.padded_mlp(make((8, 6)), (3, 2)).init)(KEY, X)
    close(cut(padded, (3, 2)), init(make((3, 2)), KEY, X)[0], rtol=1e-5)


def test_two_layer_scale():
    """The second layer's variance is that of the true width before it, not of the allocation."""
    padded = models.padded_mlp(models.MLP((4000, 300), classes=2), (40, 300))
    kernel = np.asarray(jit(padded.init)(KEY, X)[0]["Dense_1"]["kernel"])[:40]
    assert abs(float((kernel**2).mean()) / (2 / 40) - 1) < 4 * np.sqrt(2 / kernel.size)


def steps(optimizer, network, count):
    def train(key):
        params, stats = network.init(key, X)

        def step(carry, _):
            params, state = carry
            loss, gradient = jax.value_and_grad(partial(loss_of, network))(params, stats)
            updates, state = optimizer.update(gradient, state, params)
            return (optax.apply_updates(params, updates), state), loss

        (params, _), curve = jax.lax.scan(step, (params, optimizer.init(params)), length=count)
        return params, curve

    return jit(train)


@pytest.mark.parametrize(
    ("optimizer", "activation"),
    [
        (optax.adam(1e-2), jax.nn.relu),
        (optax.adam(1e-2), jnp.tanh),
        (optax.sgd(0.1, momentum=0.9), jax.nn.relu),
    ],
    ids=["adam-relu", "adam-tanh", "momentum-relu"],
)
def test_dead_units_stay_dead_and_the_curve_is_the_plain_nets(optimizer, activation):
    make = partial(models.MLP, classes=3, activation=activation)
    widths = (4, 3)
    padded, plain = models.padded_mlp(make((7, 6)), widths), models.network(make(widths))
    params, curve = steps(optimizer, padded, 50)(KEY)
    expected, plain_curve = steps(optimizer, plain, 50)(KEY)
    assert not dead(params, widths).any()
    assert curve[-1] < 0.8 * curve[0]
    np.testing.assert_allclose(curve, plain_curve, rtol=2e-3)
    np.testing.assert_allclose(curve[:5], plain_curve[:5], rtol=1e-5)
    close(cut(params, widths), expected, rtol=0.02, atol=2e-3)


def test_widths_may_be_traced():
    model = models.MLP((8, 6), classes=3)
    widths = np.array([[1, 6], [3, 2]])

    def outputs(width):
        network = models.padded_mlp(model, [width[0], width[1]])
        params, stats = network.init(KEY, X)
        return network.apply(params, stats, X, key=None, train=False)[0], params

    lanes, params = jit(jax.vmap(outputs))(widths)
    for i, width in enumerate(widths.tolist()):
        plain = models.MLP(tuple(width), classes=3)
        expected = apply(plain, *init(plain, KEY, X), X)[0]
        np.testing.assert_allclose(lanes[i], expected, rtol=1e-4, atol=1e-5)
        assert not dead(jax.tree.map(lambda leaf, i=i: leaf[i], params), width).any()


def test_a_net_that_cannot_be_padded():
    with pytest.raises(ValueError, match=r"needs activation\(0\) = 0, and this one's is 0.5"):
        models.padded_mlp(models.MLP((8,), activation=jax.nn.sigmoid), [4])
    with pytest.raises(ValueError, match="dropout=0"):
        models.padded_mlp(models.MLP((8,), dropout=0.1), [4])
    with pytest.raises(ValueError, match="dropout=0"):
        jax.eval_shape(lambda rate: models.padded_mlp(models.MLP((8,), dropout=rate), [4]).init(KEY, X), 0.0)
    with pytest.raises(ValueError, match="padding needs normalize='none', not 'after'"):
        models.padded_mlp(models.MLP((8,), normalize="after"), [4])
    for widths in ([], [1, 2], [1, 2, 3]):
        with pytest.raises(ValueError, match="must name one width for each of the 1 layers"):
            models.padded_mlp(models.MLP((8,)), widths)
    for widths in ([0], [9], [-1], [np.int64(9)]):
        with pytest.raises(ValueError, match="between 1 and the allocation"):
            models.padded_mlp(models.MLP((8,)), widths)
    for name in ("orthogonal", "delta_orthogonal"):
        with pytest.raises(ValueError, match=f"initializer '{name}' cannot be padded"):
            models.padded_mlp(models.MLP((8,), initializer=name), [4])
    with pytest.raises(ValueError, match="did you mean 'he_normal'"):
        models.init(models.MLP((8,), initializer="he_norml"), KEY, X)


# Against PyTorch


@pytest.mark.parametrize(("channels", "features", "stride"), [(4, 4, 1), (4, 6, 2)])
@pytest.mark.parametrize("train", [False, True])
def test_a_residual_block_is_pytorchs(channels, features, stride, train):
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional
    block = models.PreActivationBlock(features, stride)
    x = np.random.default_rng(0).normal(size=(3, 8, 8, channels)).astype(np.float32)
    params, stats = init(block, KEY, x)
    noise = np.random.default_rng(1)
    params = jax.tree.map(
        lambda leaf: np.asarray(leaf) + 0.1 * noise.normal(size=leaf.shape).astype(np.float32), params
    )
    stats = nonzero_stats(stats)
    y, after = apply(block, params, stats, x, train=train)

    def tensor(value, *axes):
        return torch.tensor(np.array(np.transpose(value, axes) if axes else value))

    moved = {}

    def normed(z, i):
        norm, seen = params[f"BatchNorm_{i}"], stats["batch_stats"][f"BatchNorm_{i}"]
        mean, var = tensor(seen["mean"]), tensor(seen["var"])
        out = functional.batch_norm(z, mean, var, tensor(norm["scale"]), tensor(norm["bias"]), train, 0.1, 1e-5)
        moved[i] = mean.numpy()
        return functional.relu(out)

    def convolved(z, name, **keywords):
        return functional.conv2d(z, tensor(params[name]["kernel"], 3, 2, 0, 1), **keywords)

    z = tensor(x, 0, 3, 1, 2)
    first = normed(z, 0)
    plain = stride == 1 and channels == features
    assert ("Conv_2" in params) is not plain
    shortcut = z if plain else convolved(first, "Conv_0", stride=stride)
    one, two = ("Conv_0", "Conv_1") if plain else ("Conv_1", "Conv_2")
    out = convolved(normed(convolved(first, one, stride=stride, padding=1), 1), two, padding=1) + shortcut
    np.testing.assert_allclose(y, out.numpy().transpose(0, 2, 3, 1), rtol=1e-4, atol=1e-4)
    for i in (0, 1):  # running means; PyTorch's running variance is the unbiased one
        np.testing.assert_allclose(after["batch_stats"][f"BatchNorm_{i}"]["mean"], moved[i], rtol=1e-4, atol=1e-5)


def test_resnet_is_its_blocks_in_a_row():
    model, x = models.ResNet18k(2, classes=3, blocks=(1, 2)), jax.random.normal(KEY, (2, 8, 8, 3))
    params, stats = init(model, KEY, x)
    stats = nonzero_stats(stats)
    y = conv.conv2d(x, params["Conv_0"]["kernel"], padding=1)
    for i, (features, stride) in enumerate([(2, 1), (4, 2), (4, 1)]):
        name = f"PreActivationBlock_{i}"
        block = models.PreActivationBlock(features, stride)
        y, _ = apply(block, params[name], {"batch_stats": stats["batch_stats"][name]}, y)
    assert y.shape == (2, 4, 4, 4)
    y = y.mean((1, 2)) @ params["Dense_0"]["kernel"]
    np.testing.assert_allclose(apply(model, params, stats, x)[0], y, rtol=1e-4, atol=1e-5)
