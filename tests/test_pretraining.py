"""Greedy layer-wise pre-training: exact against principal components, and what it does to a deep net."""

from functools import partial
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnjax import models
from nnjax.data import load
from nnjax.models import autoencode

DEPTH, WIDTH = 4, 24


def started(model, d_in, seed=0):
    return jax.jit(partial(models.init, model))(jax.random.key(seed), jnp.zeros((1, d_in)))[0]


def drawn(sizes, seed=0):
    """Parameters of a net of these sizes, drawn here, where nothing need compile."""
    rng = np.random.default_rng(seed)
    kernels = [rng.normal(size=pair, scale=pair[0] ** -0.5).astype(np.float32) for pair in pairwise(sizes)]
    layers = [{"kernel": kernel, "bias": np.zeros(kernel.shape[1], np.float32)} for kernel in kernels]
    found = {"first": layers[0], "logits": layers[-1]}
    if len(layers) > 2:
        found["hidden"] = jax.tree.map(lambda *leaves: np.stack(leaves), *layers[1:-1])
    return found


@pytest.fixture(scope="module")
def digits():
    x = load("digits").train.x[:300].reshape(300, -1)
    return np.asarray((x - x.mean()) / x.std(), np.float32)


@pytest.fixture(scope="module")
def pretrained(digits):
    """A ReLU net before and after."""
    model = models.DeepMLP(depth=DEPTH, width=WIDTH, initializer="xavier_normal")
    before = started(model, digits.shape[1])
    run = jax.jit(partial(autoencode, activation="relu", steps=400, learning_rate=3e-3, batch_size=50))
    return before, run(before, digits, key=jax.random.key(1))


def codes_of(params, x):
    """Outputs of every hidden layer of a ReLU net, in numpy."""
    found = []
    layers = [params["first"], *({n: p[i] for n, p in params["hidden"].items()} for i in range(DEPTH - 1))]
    for layer in layers:
        x = np.maximum(x @ np.asarray(layer["kernel"]) + np.asarray(layer["bias"]), 0)
        found.append(x)
    return found


def linear_readout_error(codes, x):
    """Share of the variance of x that no linear function of the codes gives back."""
    design = np.column_stack([codes, np.ones(len(codes))])
    fit = design @ np.linalg.lstsq(design, x, rcond=None)[0]
    return ((fit - x) ** 2).sum() / ((x - x.mean(0)) ** 2).sum()


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_linear_autoencoder_reaches_the_principal_components_error(seed):
    rng = np.random.default_rng(seed)
    scales = np.array([3.0, 2.5, 2.0, 1.5, 0.6, 0.5, 0.4, 0.3])
    x = rng.normal(size=(200, 8)) * scales @ np.linalg.qr(rng.normal(size=(8, 8)))[0] + rng.normal(size=8)
    params = started(models.DeepMLP(depth=1, width=4, activation="identity", initializer="xavier_normal"), 8, seed)
    found = autoencode(
        params, x, activation="identity", key=jax.random.key(2), steps=4000, learning_rate=3e-3, batch_size=200
    )
    eigenvalues = np.linalg.eigvalsh(np.cov(x.T, bias=True))
    least = eigenvalues[:4].sum() / 8  # mean over inputs
    assert found.losses[0, -1] >= least * (1 - 1e-4)
    assert found.losses[0, -1] <= least * 1.01
    # Its codes span the first principal components: W's columns, the space of the largest eigenvectors.
    space = np.linalg.qr(np.asarray(found.params["first"]["kernel"], float))[0]
    leading = np.linalg.eigh(np.cov(x.T))[1][:, 4:]
    assert np.linalg.svd(space.T @ leading, compute_uv=False).min() > 0.999


def test_every_layer_learns_to_give_its_input_back(pretrained):
    _, (_, losses) = pretrained
    assert losses.shape == (DEPTH, 400)
    assert np.all(np.asarray(losses[:, -50:].mean(1)) < 0.6 * np.asarray(losses[:, :5].mean(1)))


def test_codes_keep_more_of_the_pictures(digits, pretrained):
    before, (after, _) = pretrained
    for layer, (old, new) in enumerate(zip(codes_of(before, digits), codes_of(after, digits), strict=True)):
        assert linear_readout_error(new, digits) < 0.8 * linear_readout_error(old, digits), layer


def test_the_signal_of_a_vanishing_start_comes_back(digits, pretrained):
    # Xavier's variance halves a ReLU net's signal at every layer; tied autoencoders bring its size back.
    before, (after, _) = pretrained
    old, new = (np.mean(np.square(codes_of(params, digits)[-1])) for params in (before, after))
    assert old < 0.1 < 0.3 < new


def test_logits_and_tree_stay(pretrained):
    before, (after, _) = pretrained
    assert jax.tree.all(jax.tree.map(np.array_equal, before["logits"], after["logits"]))
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), before) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype), after
    )
    assert not np.array_equal(before["hidden"]["kernel"], after["hidden"]["kernel"])


def test_layers_are_trained_one_after_the_other(digits):
    # The first layer of a deep net is that of a shallow one: nothing comes back from the layers above.
    deep = drawn((64, 8, 8, 8, 10))
    shallow = {name: deep[name] for name in ("first", "logits")}
    options = {"activation": "relu", "key": jax.random.key(0), "steps": 20, "learning_rate": 1e-3, "batch_size": 32}
    one, two = autoencode(deep, digits, **options), autoencode(shallow, digits, **options)
    np.testing.assert_allclose(one.params["first"]["kernel"], two.params["first"]["kernel"], rtol=1e-6)
    assert set(two.params) == {"first", "logits"}
    assert two.losses.shape == (1, 20)


def test_one_update_is_adams_first_step(digits):
    # Adam's first move is the rate times the gradient's sign.
    params = drawn((64, 8, 10))
    n, rate = len(digits), 1e-3
    found = autoencode(
        params, digits, activation="tanh", key=jax.random.key(0), steps=1, learning_rate=rate, batch_size=n
    )
    w = np.asarray(params["first"]["kernel"], float)
    h = digits.astype(float)
    code = np.tanh(h @ w)
    error = code @ w.T - h
    assert float(found.losses[0, 0]) == pytest.approx(np.mean(error**2), rel=1e-5)
    inner = (error @ w) * (1 - code**2)
    gradient = (h.T @ inner + error.T @ code) * 2 / error.size
    moved = np.asarray(found.params["first"]["kernel"], float) - w
    sure = np.abs(gradient) > 1e-4
    np.testing.assert_allclose(moved[sure], -rate * np.sign(gradient[sure]), rtol=1e-2)
    assert sure.mean() > 0.5


def test_corruption_hides_inputs_from_the_code_alone(digits):
    params = drawn((64, WIDTH, 10))
    options = {"activation": "relu", "key": jax.random.key(0), "steps": 2, "learning_rate": 1e-3, "batch_size": 300}
    clean, noisy = (autoencode(params, digits, corruption=c, **options).losses[0, 0] for c in (0.0, 0.5))
    traced = jax.jit(lambda c: autoencode(params, digits, corruption=c, **options).losses[0, 0])
    assert float(traced(0.0)) == pytest.approx(float(clean), rel=1e-6)
    assert float(traced(0.5)) == pytest.approx(float(noisy), rel=1e-6)
    # Expected loss with half of h hidden, over independent masks in numpy.
    w, rng = np.asarray(params["first"]["kernel"]), np.random.default_rng(0)
    masks = [rng.random(digits.shape) < 0.5 for _ in range(20)]
    masked = [np.mean((np.maximum(np.where(mask, digits, 0) @ w, 0) @ w.T - digits) ** 2) for mask in masks]
    assert abs(float(noisy) - np.mean(masked)) < 5 * np.std(masked) + 1e-3 * float(noisy)
    assert abs(float(clean) - np.mean(masked)) > 4 * np.std(masked)


def test_jits_vmaps_compiles_once_and_doubles(digits):
    calls, params = 0, drawn((64, 8, 8, 8, 10))

    def run(key, rate):
        nonlocal calls
        calls += 1
        return autoencode(
            params, digits, activation="relu", key=key, steps=5, learning_rate=rate, batch_size=32, corruption=0.1
        )

    fast, keys = jax.jit(run), jax.random.split(jax.random.key(0), 2)
    one = fast(keys[0], 1e-3)
    fast(keys[1], 2e-3)
    assert calls == 1
    many = jax.jit(jax.vmap(run))(keys, jnp.array([1e-3, 2e-3]))
    assert many.losses.shape == (2, 3, 5)
    np.testing.assert_allclose(many.losses[0], one.losses, rtol=1e-4)
    assert one.losses.dtype == jnp.float32
    with jax.enable_x64(True):
        double = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), one.params)
        both = partial(autoencode, activation="relu", steps=5, batch_size=32, learning_rate=np.float64(1e-3))
        wide, mixed = (jax.eval_shape(partial(both, key=keys[0]), tree, digits) for tree in (double, one.params))
    assert {leaf.dtype for leaf in jax.tree.leaves(wide)} == {np.dtype(np.float64)}
    assert {leaf.dtype for leaf in jax.tree.leaves(mixed.params)} == {np.dtype(np.float32)}  # whatever the rate's


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"steps": 0}, "steps=0"),
        ({"steps": 2.5}, "steps=2.5 must be a whole number, at least 1"),
        ({"batch_size": 2.5}, "batch_size=2.5 must be a whole number, at least 1"),
        ({"activation": None}, "activation=None must be a function or a name"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"batch_size": 301}, "batch_size=301 must lie between 1 and the number of examples, 300"),
        ({"learning_rate": 0.0}, "learning_rate=0.0"),
        ({"learning_rate": float("nan")}, "learning_rate=nan"),
        ({"corruption": 1.0}, "corruption=1.0"),
        ({"corruption": -0.1}, "corruption=-0.1"),
        ({"activation": "rellu"}, "did you mean 'relu'"),
    ],
)
def test_bad_input_is_named(digits, wrong, said):
    params = drawn((64, 4, 4, 10))
    options = {"activation": "relu", "steps": 3, "learning_rate": 1e-3, "batch_size": 30} | wrong
    with pytest.raises(ValueError, match=said):
        autoencode(params, digits, key=jax.random.key(0), **options)


def test_other_nets_and_inputs_are_refused(digits):
    options = {"activation": "relu", "key": jax.random.key(0), "steps": 3, "learning_rate": 1e-3, "batch_size": 30}
    shapes = partial(models.init, models.DeepMLP(depth=2, width=4, normalize="before"), jax.random.key(0))
    normalized = jax.eval_shape(shapes, jnp.zeros((1, 64)))[0]
    with pytest.raises(ValueError, match="without batch normalization"):
        autoencode(normalized, digits, **options)
    with pytest.raises(ValueError, match=r"x has shape \(0, 64\); it must hold at least one example"):
        autoencode(drawn((64, 4, 4, 10)), digits[:0], **options)
    with pytest.raises(ValueError, match="x has 64 inputs an example and the first layer takes 10"):
        autoencode(drawn((10, 4, 4, 10)), digits, **options)
