"""Activations against jax.nn, torch and their definitions, and the properties a textbook states."""

import functools
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnjax import activations

EXAMPLES = json.loads(Path(__file__).with_name("worked_examples.json").read_text())
X = np.concatenate([np.linspace(-6, 6, 61), [-1e-3, 1e-3]]).astype(np.float32)
EXTREMES = np.array([0, 20, 90, 1e4, 1e19, 1e30, np.finfo(np.float32).max], np.float32)
EXTREMES = np.concatenate([-EXTREMES[::-1], EXTREMES])

# Each by its definition, in NumPy's float64.
DEFINITIONS = {
    "identity": lambda x: x,
    "step": lambda x: np.where(x > 0, 1.0, 0.0),
    "threshold": lambda x: np.where(x >= 0, 1.0, 0.0),
    "logistic": lambda x: 1 / (1 + np.exp(-x)),
    "tanh": lambda x: (np.exp(2 * x) - 1) / (np.exp(2 * x) + 1),
    "relu": lambda x: np.where(x > 0, x, 0.0),
    "leaky_relu": lambda x: np.where(x > 0, x, 0.01 * x),
    "elu": lambda x: np.where(x > 0, x, np.exp(x) - 1),
    "swish": lambda x: x / (1 + np.exp(-x)),
    "gaussian": lambda x: np.exp(-(x**2) / 2),
    "sin": np.sin,
    "cos": np.cos,
    "sin_pi": lambda x: np.sin(np.pi * x),
    "cos_pi": lambda x: np.cos(np.pi * x),
    "inverse": lambda x: -x,
    "absolute": np.abs,
}


@functools.cache
def slopes(name, order=1):
    """The derivative as a program over many x, compiled without optimization, which is faster here."""
    derivative = activations.by_name(name)
    for _ in range(order):
        derivative = jax.grad(derivative)
    return jax.jit(jax.vmap(derivative), compiler_options={"xla_backend_optimization_level": 0})


def slope(name, x):
    """Derivative of the activation at every x."""
    return slopes(name)(np.asarray(x, np.float32))


def test_the_order_of_the_table_is_fixed():
    assert list(DEFINITIONS) == list(activations.NAMES) == list(activations.TABLE)


@pytest.mark.parametrize("name", DEFINITIONS)
def test_values_are_the_definitions(name):
    expected = DEFINITIONS[name](X.astype(float))
    np.testing.assert_allclose(activations.TABLE[name](X), expected, rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize("name", [n for n in DEFINITIONS if n not in ("step", "threshold")])
def test_derivatives_are_the_definitions(name):
    x, h = X[X != 0].astype(float), 1e-6  # no kink or jump within h
    expected = (DEFINITIONS[name](x + h) - DEFINITIONS[name](x - h)) / (2 * h)
    np.testing.assert_allclose(slope(name, x.astype(np.float32)), expected, rtol=1e-5, atol=2e-6)


def test_derivatives_in_closed_form():
    s, t = activations.logistic(X), activations.tanh(X)
    np.testing.assert_allclose(slope("logistic", X), s * (1 - s), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(slope("tanh", X), 1 - t**2, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(slope("relu", X), X > 0)
    for name in ("step", "threshold"):
        np.testing.assert_array_equal(slope(name, X), np.zeros_like(X))


def test_step_and_threshold_differ_at_zero_alone():
    for zero in (0.0, -0.0):
        assert float(activations.step(zero)) == 0
        assert float(activations.threshold(zero)) == 1
    x = X[X != 0]
    np.testing.assert_array_equal(activations.step(x), activations.threshold(x))


def test_derivatives_at_the_kinks():
    zero = np.zeros(1, np.float32)
    assert float(slope("relu", zero)[0]) == 0
    assert float(slope("absolute", zero)[0]) == 0


@pytest.mark.parametrize("name", DEFINITIONS)
def test_large_arguments_keep_value_and_derivative_finite(name):
    assert np.isfinite(activations.TABLE[name](EXTREMES)).all()
    assert np.isfinite(slope(name, EXTREMES)).all()
    assert np.isfinite(slopes(name, order=2)(EXTREMES[np.abs(EXTREMES) < 1e15])).all()


def test_limits_far_out():
    far = EXTREMES[np.abs(EXTREMES) > 100]
    right = (far > 0).astype(np.float32)
    np.testing.assert_array_equal(activations.logistic(far), right)
    np.testing.assert_array_equal(activations.tanh(far), np.sign(far))
    np.testing.assert_array_equal(activations.elu(far), np.where(far > 0, far, -1))
    np.testing.assert_array_equal(activations.swish(far), far * right)
    np.testing.assert_array_equal(activations.gaussian(far), 0 * far)
    np.testing.assert_array_equal(activations.leaky_relu(far), np.where(far > 0, far, np.float32(0.01) * far))


def test_half_turns_are_exact_far_out():
    whole = np.array([2e6, 2e6 + 1, -4e6 + 1], np.float32)  # float32 of pi times these is off by a tenth of a turn
    np.testing.assert_allclose(activations.sin_pi(whole), np.zeros(3), atol=1e-6)
    np.testing.assert_allclose(activations.cos_pi(whole), [1, -1, -1], atol=1e-6)
    np.testing.assert_allclose(activations.sin_pi(whole + np.float32(0.5)), [1, -1, -1], atol=1e-6)


def test_those_of_jax():
    for name, theirs in {
        "logistic": jax.nn.sigmoid, "tanh": jnp.tanh, "relu": jax.nn.relu, "leaky_relu": jax.nn.leaky_relu,
        "elu": jax.nn.elu, "swish": jax.nn.silu,
    }.items():  # fmt: skip
        np.testing.assert_allclose(activations.TABLE[name](X), theirs(X), rtol=1e-6, atol=1e-7)


def test_those_of_torch():
    torch = pytest.importorskip("torch")
    x = torch.from_numpy(X)
    f = torch.nn.functional
    for name, theirs in {
        "logistic": torch.sigmoid, "tanh": torch.tanh, "relu": f.relu, "leaky_relu": f.leaky_relu, "elu": f.elu,
        "swish": f.silu,
    }.items():  # fmt: skip
        x.requires_grad_(True)
        y = theirs(x)
        (gradient,) = torch.autograd.grad(y.sum(), x)
        np.testing.assert_allclose(activations.TABLE[name](X), y.detach().numpy(), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(slope(name, X), gradient.numpy(), rtol=1e-5, atol=1e-6)


def test_relu_is_not_linear():
    a, b = -1.0, 2.0
    assert float(activations.relu(a + b)) == 1
    assert float(activations.relu(a)) + float(activations.relu(b)) == 2


def test_a_stack_of_linear_layers_is_one_linear_layer():
    x = jnp.asarray(X)
    inner = activations.identity(5 * x + 1)
    np.testing.assert_allclose(activations.identity(2 * inner + 2), 10 * x + 4, rtol=1e-6, atol=1e-5)
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(3, 4)).astype("f"), rng.normal(size=(4, 2)).astype("f")
    batch = rng.normal(size=(5, 3)).astype("f")
    stacked = activations.identity(batch @ first) @ second
    np.testing.assert_allclose(stacked, batch @ (first @ second), rtol=1e-5, atol=1e-5)
    assert not np.allclose(activations.relu(batch @ first) @ second, batch @ (first @ second), atol=0.1)


def test_the_worked_neuron():
    example = EXAMPLES["neuron"]
    x, w = jnp.array(example["inputs"], jnp.float32), jnp.array(example["weights"])
    assert float(x @ w) == pytest.approx(example["weighted_sum"], abs=1e-6)
    assert float(activations.relu(x @ w)) == example["relu_without_bias"]
    assert float(activations.relu(x @ w + 1)) == pytest.approx(example["relu_with_bias_1"], abs=1e-6)
    always_on = activations.relu(jnp.append(x, 1.0) @ jnp.append(w, 1.0))
    assert float(always_on) == pytest.approx(example["relu_with_bias_1"], abs=1e-6)


def test_the_worked_softmax():
    example = EXAMPLES["scores"]
    made = activations.softmax(np.array([example["scores"]], np.float32))
    np.testing.assert_allclose(made, [example["softmax"]], atol=1e-7)


def test_softmax_far_out():
    scores = np.array([[1e4, 0, -1e4], [3e38, -3e38, 3e38], [-3e38, -3e38, -3e38]], np.float32)
    expected = [[1, 0, 0], [0.5, 0, 0.5], [1 / 3] * 3]
    np.testing.assert_allclose(activations.softmax(scores), expected, rtol=1e-6)
    jacobian = jax.vmap(jax.jacobian(activations.softmax))(scores)
    p = np.array(expected)
    np.testing.assert_allclose(jacobian, p[:, :, None] * np.eye(3) - p[:, :, None] * p[:, None, :], atol=1e-6)
    with pytest.raises(ValueError, match=r"x of shape \(\) must have a last axis"):
        activations.softmax(1.0)


def test_prelu_learns_its_slope():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    x, slopes = rng.normal(size=(5, 3)).astype("f"), np.array([0.1, 0.5, -2.0], np.float32)
    expected = torch.nn.functional.prelu(torch.from_numpy(x), torch.from_numpy(slopes))
    np.testing.assert_allclose(activations.prelu(x, slopes), expected.numpy(), rtol=1e-6)
    gradient = jax.grad(lambda a: activations.prelu(x, a).sum())(slopes)
    np.testing.assert_allclose(gradient, np.minimum(x, 0).sum(0), rtol=1e-6)
    np.testing.assert_array_equal(activations.prelu(x, 0.01), activations.leaky_relu(x))
    np.testing.assert_array_equal(activations.leaky_relu(x, 0.3), activations.prelu(x, 0.3))
    with pytest.raises(ValueError, match=r"slope \(2,\) must stretch to the shape of x, \(5, 3\)"):
        activations.prelu(x, slopes[:2])


def test_switch_is_the_table_inside_jit_and_vmap():
    index = jnp.arange(len(activations.TABLE))
    both = jax.jit(jax.vmap(activations.switch, in_axes=(0, None)))(index, X)
    for i, activation in enumerate(activations.TABLE.values()):
        np.testing.assert_allclose(both[i], activation(X), rtol=1e-6, atol=1e-7)
        np.testing.assert_allclose(activations.switch(i, X[:3]), activation(X[:3]), rtol=1e-6, atol=1e-7)
    assert both.dtype == jnp.float32


def test_switched_derivatives_are_finite_far_out():
    # Under vmap every activation's derivative is computed and all but one multiplied by zero: none may be NaN.
    index = jnp.arange(len(activations.TABLE))
    gradient = jax.vmap(jax.grad(lambda i, x: activations.switch(i, x).sum(), argnums=1), in_axes=(0, None))
    made = jax.jit(gradient)(index, EXTREMES)
    for i, name in enumerate(activations.NAMES):
        np.testing.assert_allclose(made[i], slope(name, EXTREMES), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("index", [-1, len(DEFINITIONS), np.int64(99), jnp.asarray(-2), np.asarray(16)])
def test_switch_refuses_a_known_place_outside_the_table(index):
    with pytest.raises(ValueError, match=f"index={index} must lie between 0 and 15"):
        activations.switch(index, X)


def test_integers_and_names():
    assert activations.by_name("softmax") is activations.softmax
    assert activations.by_name("swish") is activations.swish
    for activation in activations.TABLE.values():
        assert jax.eval_shape(activation, np.array([-1, 0, 2])).dtype == jnp.float32
        assert jax.eval_shape(activation, jnp.zeros(2, jnp.bfloat16)).dtype == jnp.bfloat16
    with pytest.raises(ValueError, match=r"activation 'rellu' is not one of .*; did you mean 'relu'"):
        activations.by_name("rellu")


def test_other_names_in_use():
    for name, known in {"sigmoid": "logistic", "linear": "identity", "silu": "swish", "abs": "absolute"}.items():
        assert activations.by_name(name) is activations.by_name(known)
        assert name not in activations.NAMES
