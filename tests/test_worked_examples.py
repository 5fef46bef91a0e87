"""Every worked example of worked_examples.json, by the public names; a case or a number left out is an error."""

import json
import math
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.signal import correlate2d
from sklearn.cluster import KMeans
from sklearn.datasets import load_digits, load_iris
from sklearn.neural_network import MLPClassifier

from nnjax import activations, conv, data, initializers, losses, models, schedules
from nnjax.classical import backpropagation, logistic_regression, perceptron

EXAMPLES = json.loads((Path(__file__).parent / "worked_examples.json").read_text())
CASES = {}


def case(function):
    CASES[function.__name__] = function
    return function


class Reading(dict):
    """A JSON object that knows which of its entries were looked at."""

    def __init__(self, content):
        super().__init__({key: wrapped(value) for key, value in content.items()})
        self.seen = set()

    def __getitem__(self, key):
        self.seen.add(key)
        return super().__getitem__(key)

    def items(self):
        return [(key, self[key]) for key in self]


def wrapped(value):
    if isinstance(value, dict):
        return Reading(value)
    return [wrapped(item) for item in value] if isinstance(value, list) else value


def unread(value, path):
    """Paths of all entries that nothing was asked of."""
    if isinstance(value, Reading):
        for key, item in dict.items(value):
            yield from unread(item, f"{path}.{key}") if key in value.seen else [f"{path}.{key}"]
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from unread(item, f"{path}[{number}]")


@pytest.mark.parametrize("name", [name for name in EXAMPLES if name != "_about"])
def test_worked_example(name):
    example = wrapped(EXAMPLES[name])
    CASES[name](example)
    assert not list(unread(example, name)), "not every number of the example was checked"


def test_no_example_is_left_out_and_none_made_up():
    assert set(CASES) == set(EXAMPLES) - {"_about"}
    assert "no kernel flip" in EXAMPLES["_about"]


def test_what_is_not_read_is_noticed():
    example = wrapped({"a": 1, "b": [{"c": 2, "d": 3}]})
    assert example["b"][0]["c"] == 2
    assert list(unread(example, "x")) == ["x.a", "x.b[0].d"]


# Convolution


def _picture(values):
    return jnp.float32(values)[None, :, :, None]


@case
def convolution(examples):
    names = {"valid 3x3", "zero padding 1", "dilation 2", "stride 2", "three channels, one kernel each"}
    assert {example["name"] for example in examples} == names
    for example in examples:
        options = {name: example[name] for name in ("padding", "stride", "dilation")}
        if "input" in example:
            x, kernel = _picture(example["input"]), jnp.float32(example["kernel"])[:, :, None, None]
        else:
            x = jnp.float32(example["input_channels"]).transpose(1, 2, 0)[None]
            kernel = jnp.float32(example["kernel_channels"]).transpose(1, 2, 0)[..., None]
            for channel, expected in enumerate(example["per_channel"]):
                one = slice(channel, channel + 1)
                np.testing.assert_array_equal(
                    conv.conv2d(x[..., one], kernel[:, :, one], **options)[0, :, :, 0], expected
                )
        np.testing.assert_array_equal(conv.conv2d(x, kernel, **options)[0, :, :, 0], example["output"])


@case
def pooling(examples):
    pools = {"max 2x2 stride 2": conv.max_pool, "average 2x2 stride 2": conv.avg_pool}
    assert {example["name"] for example in examples} == set(pools)
    for example in examples:
        pooled = pools[example["name"]](_picture(example["input"]), 2, 2)
        np.testing.assert_array_equal(pooled[0, :, :, 0], example["output"])


@case
def conv_output_size(text):
    assert text.startswith("(n - f + 2p)/s + 1 with effective f = (f-1)*d + 1; 28x28 with 3x3 valid -> 26x26")
    for n, f, p, s, d in [(28, 3, 0, 1, 1), (28, 3, 1, 1, 1), (13, 5, 2, 2, 1), (17, 3, 0, 2, 2), (9, 2, 3, 3, 1)]:
        x, kernel = jax.ShapeDtypeStruct((1, n, n, 1), "float32"), jax.ShapeDtypeStruct((f, f, 1, 1), "float32")
        y = jax.eval_shape(lambda x, k, p=p, s=s, d=d: conv.conv2d(x, k, padding=p, stride=s, dilation=d), x, kernel)
        side = (n - ((f - 1) * d + 1) + 2 * p) // s + 1
        assert y.shape == (1, side, side, 1)
    y = conv.conv2d(jnp.zeros((1, 28, 28, 1)), jnp.zeros((3, 3, 1, 1)))
    assert y.shape[1:3] == (26, 26)
    assert conv.max_pool(y, 2, 2).shape[1:3] == (13, 13)


@case
def edge_filters(filters):
    digits = load_digits()
    seven = np.pad(np.kron(digits.images[digits.target == 7][0] / 16, np.ones((3, 3))), 2)
    assert seven.shape == (28, 28)
    for name, kernel in filters.items():
        answer = np.asarray(conv.conv2d(_picture(seven), jnp.float32(kernel)[:, :, None, None])[0, :, :, 0])
        assert answer.shape == (26, 26)
        np.testing.assert_allclose(answer, correlate2d(seven, kernel, "valid"), atol=1e-5)
        pooled = conv.max_pool(jnp.asarray(answer)[None, :, :, None], 2, 2)
        assert pooled.shape == (1, 13, 13, 1)
        # Its own edge answers three times the step, no other edge more than nothing.
        bright_below = np.float32([[0, 0, 0], [1, 1, 1], [1, 1, 1]])
        edges = {"top": bright_below, "bottom": bright_below[::-1], "left": bright_below.T}
        edges["right"] = bright_below.T[:, ::-1]
        own = {edge: float(np.sum(patch * np.float32(kernel))) for edge, patch in edges.items()}
        assert own.pop(name) == 3
        assert max(own.values()) <= 0


# Learning rules


@case
def delta_rule_and(example):
    rate, threshold = example["learning_rate"], example["threshold"]
    assert example["fires_if"] == "net >= threshold"
    state = perceptron.State(jnp.float32(example["w0"]))
    expected = example["weights_after_each_pattern"]
    for (pattern, target), weights in zip(example["train"], expected, strict=True):
        state, _ = perceptron.step(
            state, (np.float32(pattern), np.float32(target)), learning_rate=rate, threshold=threshold
        )
        np.testing.assert_allclose(state.weights, weights, rtol=1e-6)
    x = np.float32([[0, 0], [0, 1], [1, 0], [1, 1]])
    assert "AND is solved on all four patterns" in example["note"]
    np.testing.assert_array_equal(perceptron.predict(state, x, threshold=threshold), [0, 0, 0, 1])
    for targets, solved in (([0, 1, 1, 1], True), ([0, 1, 1, 0], False)):
        start = perceptron.init(jax.random.key(0), perceptron.Config(inputs=2))
        result = perceptron.train(start, (x, np.float32(targets)), learning_rate=rate, threshold=threshold, epochs=100)
        wrong = perceptron.predict(result.state, x, threshold=threshold) != jnp.float32(targets)
        assert bool(result.converged) is solved
        assert bool(wrong.any()) is not solved


@case
def backpropagation_2_2_2(example):
    assert example["activation"] == "logistic everywhere"
    assert example["loss"] == "0.5*sum((t-o)^2)"
    config = backpropagation.Config(sizes=(2, 2, 2), hidden="logistic", output="logistic", loss="half_squared_error")
    with jax.enable_x64(True):
        weights = tuple(jnp.asarray(example[name]).T for name in ("w_hidden_rows_are_units", "w_output_rows_are_units"))
        biases = tuple(jnp.full(2, example[name]) for name in ("b_hidden", "b_output"))
        state = backpropagation.start(backpropagation.Params(weights, biases))
        batch = jnp.array([example["inputs"]]), jnp.array([example["targets"]])
        gradient = backpropagation.gradient(state.params, batch, config)
        slope = jax.grad(lambda p: backpropagation.loss(p, batch, config))(state.params)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), gradient, slope)

        only, both = example["weights_only_update"], example["weights_and_biases_update"]
        outputs = backpropagation.forward(state.params, batch[0], config)[-1][0]
        np.testing.assert_allclose(outputs, only["outputs_epoch0"], atol=5e-9)
        for part, bias_rate in ((only, 0.0), (both, None)):
            after, trace = backpropagation.train(
                state, batch, config=config, epochs=1, learning_rate=example["learning_rate"],
                bias_learning_rate=bias_rate,
            )  # fmt: skip
            for epoch, loss in part["loss_at_epoch"].items():
                np.testing.assert_allclose(trace.loss[int(epoch)], loss, rtol=1e-12)
            if part is only:
                found = np.concatenate([w.T.ravel() for w in after.params.weights])
                np.testing.assert_allclose(found, part["weights_after_epoch1"], atol=5e-9)
                np.testing.assert_array_equal(after.params.biases, biases)


@case
def chain_rule(example):
    assert example["f"] == "(x*y + max(z,w))^2"
    at = {name: float(value) for name, value in example["at"].items()}
    value, gradient = jax.value_and_grad(lambda p: (p["x"] * p["y"] + jnp.maximum(p["z"], p["w"])) ** 2)(at)
    assert value == example["value"]
    assert gradient == dict(example["grad"].items())


@case
def chain_rule_list(examples):
    functions = {
        "(2x)^3": (lambda x: (2 * x) ** 3, "24 x^2", lambda x: 24 * x**2),
        "ln(x^2)": (lambda x: jnp.log(x**2), "2/x", lambda x: 2 / x),
        "exp(2x^2)": (lambda x: jnp.exp(2 * x**2), "4x exp(2x^2)", lambda x: 4 * x * np.exp(2 * x**2)),
        "(3x^2+4x)^3": (
            lambda x: (3 * x**2 + 4 * x) ** 3,
            "3 (3x^2+4x)^2 (6x+4)",
            lambda x: 3 * (3 * x**2 + 4 * x) ** 2 * (6 * x + 4),
        ),
    }
    assert [example["f"] for example in examples] == list(functions)
    with jax.enable_x64(True):
        for example in examples:
            function, text, derivative = functions[example["f"]]
            assert example["derivative"] == text
            for x in (-1.3, 0.4, 1.1):
                np.testing.assert_allclose(jax.grad(function)(x), derivative(x), rtol=1e-12)


@case
def scores(example):
    values, true = jnp.float32([example["scores"]]), jnp.array([example["classes"].index(example["true"])])
    np.testing.assert_allclose(losses.multiclass_hinge(values, true)[0], example["multiclass_hinge"], rtol=1e-6)
    np.testing.assert_allclose(activations.softmax(values)[0], example["softmax"], atol=5e-8)
    np.testing.assert_allclose(losses.cross_entropy(values, true)[0], example["cross_entropy"], rtol=1e-6)


@case
def multi_class_mean_hinge_note(text):
    assert text == "mean over samples of the per-sample loss"
    # Three pictures, each with one true class: 2.9, 0 and 12.9.
    three = jnp.float32([[3.2, 5.1, -1.7], [1.3, 4.9, 2.0], [2.2, 2.5, -3.1]])
    each = losses.multiclass_hinge(three, jnp.array([0, 1, 2]))
    assert each.shape == (3,)
    np.testing.assert_allclose(each, [2.9, 0, 12.9], rtol=1e-5)
    np.testing.assert_allclose(jnp.mean(each), 15.8 / 3, rtol=1e-6)


@case
def neuron(example):
    x, w = jnp.float32(example["inputs"]), jnp.float32(example["weights"])
    np.testing.assert_allclose(x @ w, example["weighted_sum"], rtol=1e-6)
    np.testing.assert_allclose(activations.relu(x @ w), example["relu_without_bias"])
    np.testing.assert_allclose(activations.relu(x @ w + 1), example["relu_with_bias_1"], rtol=1e-6)
    # The same with the bias as the weight of an input that is always on.
    on = jnp.concatenate([jnp.ones(1), x]) @ jnp.concatenate([jnp.ones(1), w])
    np.testing.assert_allclose(activations.relu(on), example["relu_with_bias_1"], rtol=1e-6)


@case
def affine_composition(example):
    texts = example["layer1"], example["layer2"], example["equals"]
    assert texts == ("5x+1", "2y+2", "10x+4")

    layer = lambda slope, shift: {"kernel": jnp.full((1, 1), slope), "bias": jnp.full(1, shift)}  # noqa: E731
    params = {"Dense_0": layer(5.0, 1.0), "Dense_1": layer(2.0, 2.0)}
    x = jnp.linspace(-3, 3, 7)[:, None]
    np.testing.assert_allclose(models.apply(Stack((dense(1), dense(1))), params, {}, x)[0], 10 * x + 4, rtol=1e-6)


# Sizes


@case
def initialisation(example):
    units, fan_in = 20_000, example["fan_in"]
    assert example["inputs"] == "all ones"
    assert example["weights"] == "N(0,1)"
    assert example["xavier_var"].endswith("variance of sum 1")
    assert example["he_var"].endswith("variance of sum 2")
    wanted = {
        "standard_normal": (initializers.by_name("standard_normal"), example["variance_of_sum"]),
        "xavier_normal": (initializers.by_name("xavier_normal", mode="fan_in"), 1.0),
        "he_normal": (initializers.by_name("he_normal"), 2.0),
    }
    for scheme, variance in wanted.values():
        sums = np.ones(fan_in) @ np.asarray(scheme(jax.random.key(0), (fan_in, units)), np.float64)
        # The variance of a sample variance is 2 variance^2 / units: this is five of its standard deviations.
        np.testing.assert_allclose(sums.var(), variance, rtol=5 * math.sqrt(2 / units))
        assert abs(sums.mean()) < 5 * math.sqrt(variance / units)
    np.testing.assert_allclose(math.sqrt(example["variance_of_sum"]), example["std_of_sum"], rtol=1e-12)


class Stack(nn.Module):
    """Stages one after the other; the shapes in between are sown."""

    stages: tuple

    @nn.compact
    def __call__(self, x):
        for make in self.stages:
            x = make()(x)
            self.sow("shapes", "stage", x)
        return x


def conv_layer(features, size, stride=1, padding="SAME"):
    return lambda: nn.Conv(features, (size, size), stride, padding)


def dense(units, bias=True):
    return lambda: nn.Dense(units, use_bias=bias)


def pool(window, stride):
    return lambda: lambda x: nn.max_pool(x, (window, window), (stride, stride))


def flatten():
    return lambda x: x.reshape(len(x), -1)


def micrometeorite(first, second):
    return (
        conv_layer(96, 11, 4, "VALID"), pool(3, 2), conv_layer(256, 5), pool(3, 2), conv_layer(384, 3),
        conv_layer(384, 3), conv_layer(256, 3), pool(3, 2), flatten, dense(first), dense(second), dense(2),
    )  # fmt: skip


def vgg19(classes):
    stages = []
    for features, repeats in ((64, 2), (128, 2), (256, 4), (512, 4), (512, 4)):
        stages += [conv_layer(features, 3)] * repeats + [pool(2, 2)]
    return (*stages, flatten, dense(4096), dense(4096), dense(classes))


NETS = {
    "dense 2-3-2": ((2,), (dense(3), dense(2))),
    "20x20x3 -> conv 3x3 x2 same": ((20, 20, 3), (conv_layer(2, 3), conv_layer(3, 3), flatten, dense(2))),
    "20x20x3 -> dense 16 (per pixel)": (
        (20, 20, 3),
        (
            dense(16), conv_layer(32, 3, padding="VALID"), conv_layer(64, 5, padding="VALID"),
            conv_layer(128, 7, padding="VALID"), flatten, dense(2),
        ),
    ),
    "micrometeorite CNN 141x141x3": ((141, 141, 3), micrometeorite(2048, 2048)),
    "VGG19 with 1000 classes": ((224, 224, 3), vgg19(1000)),
    "micrometeorite CNN with dense 8192 and 6144": ((141, 141, 3), micrometeorite(8192, 6144)),
    "one dense layer from 200x200 pixels to 40,000 units": ((40_000,), (dense(40_000, bias=False),)),
}  # fmt: skip


@case
def parameter_counts(examples):
    assert len(examples) == len(NETS)
    for example, (name, (shape, stages)) in zip(examples, NETS.items(), strict=True):
        assert example["model"].startswith(name)
        made = models.summary(Stack(stages), shape)
        assert made.total == example["total"]
        if "per_layer" in example:
            assert [layer.parameters for layer in made.layers] == example["per_layer"]
        if "shapes" in example:
            x = jax.ShapeDtypeStruct((1, *shape), "float32")
            sown = jax.eval_shape(Stack(stages).init, jax.random.key(0), x)["shapes"]["stage"]
            assert [list(stage.shape[1:]) for stage in sown] == example["shapes"]


@case
def mlp_coefficient_shapes(example):
    iris = load_iris()
    x, y = iris.data, iris.target
    nets = {
        "iris (7,4)": ((7, 4), x, y),
        "iris (7,4,6)": ((7, 4, 6), x, y),
        "two features": ((7, 4), x[:, :2], y),
        "two classes": ((7, 4), x[y < 2], y[y < 2]),
    }
    for name, shapes in example.items():
        features, inputs, labels = nets[name]
        outputs = 1 if len(set(labels)) == 2 else len(set(labels))  # one logistic output tells two classes apart
        model = models.MLP(features, classes=outputs)
        params = jax.eval_shape(lambda m=model, i=inputs: models.init(m, jax.random.key(0), jnp.float32(i[:1])))[0]
        assert [list(layer["kernel"].shape) for _, layer in sorted(params.items())] == shapes
        oracle = MLPClassifier(features, random_state=0).partial_fit(inputs, labels, classes=np.unique(labels))
        assert [list(kernel.shape) for kernel in oracle.coefs_] == shapes


# Schedules, labels, people


@case
def linear_schedule(text):
    assert text == "lr_k = (1-a)*lr_0 + a*lr_T, a = min(k/T, 1)"
    rate = schedules.by_name("linear", 0.1, 40, final=0.01)
    for k in (0, 1, 13, 40, 100):
        a = min(k / 40, 1)
        np.testing.assert_allclose(rate(k), (1 - a) * 0.1 + a * 0.01, rtol=1e-6)


@case
def exponential_schedule(text):
    assert text == "lr_k = lr_0 * exp(-gamma*k)"
    rate = schedules.by_name("exponential", 0.1, 40, decay=0.05)
    for k in (0, 1, 13, 100):
        np.testing.assert_allclose(rate(k), 0.1 * math.exp(-0.05 * k), rtol=1e-6)


@case
def one_hot(example):
    np.testing.assert_array_equal(data.one_hot(["turtle"], example["order"])[0], example["turtle"])
    np.testing.assert_array_equal(data.one_hot(example["order"], example["order"]), np.eye(4))


@case
def height_weight(example):
    x, y = np.float32(example["samples_cm_kg"]), np.int32(example["labels"])
    scaled = data.fit_standardizer(x)(x)
    on = np.concatenate([np.ones((6, 1), np.float32), scaled], axis=1)
    start = perceptron.init(jax.random.key(0), perceptron.Config(inputs=3))
    learned = perceptron.train(start, (on, y.astype(np.float32)), epochs=100)
    assert learned.converged
    np.testing.assert_array_equal(perceptron.predict(learned.state, on), y)
    fit = logistic_regression.fit(scaled, y, l2=0.01)
    assert fit.converged
    np.testing.assert_array_equal(logistic_regression.classify(fit.params, scaled), y)
    clusters = KMeans(2, n_init=10, random_state=0).fit_predict(x)
    assert max((clusters == y).sum(), (clusters != y).sum()) == 6, "the two groups are the labels, by another name"
