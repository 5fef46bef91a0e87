"""Patterns, heads, frozen parameters and statistics through real training, later stages, features, MobileNet."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nnjax import losses, models, transfer
from nnjax.data import DataError
from nnjax.train import Config, load, make_train, save

KEY = jax.random.key(0)
jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
RNG = np.random.default_rng(0)
X = RNG.normal(size=(12, 4, 4, 2)).astype(np.float32)
Y = np.arange(12) % 3


class Net(nn.Module):
    """Two batch norms, the second told by an argument whether to use its running statistics."""

    classes: int = 5

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.relu(nn.BatchNorm(use_running_average=not train, name="norm1")(nn.Conv(4, (3, 3), name="conv1")(x)))
        x = nn.BatchNorm(name="norm2")(nn.Conv(4, (3, 3), name="conv2")(x), use_running_average=not train)
        return nn.Dense(self.classes, name="logits")(nn.relu(x).mean((1, 2)))


@pytest.fixture(scope="module")
def start():
    """Parameters with negative zeros among them, and statistics, as of a trained net."""
    params, stats = models.init(Net(), KEY, X)
    params = jax.tree.map(lambda leaf: np.asarray(leaf) + RNG.normal(size=leaf.shape).astype(np.float32), params)
    params["conv1"]["bias"] = np.asarray([-0.0, 0.0, 1.0, -1.0], np.float32)
    stats = jax.tree.map(lambda leaf: np.asarray(leaf) + 0.5 * np.ones(leaf.shape, np.float32), stats)
    return params, stats


def bits(tree):
    leaves = jax.tree.leaves(tree)
    return {path: np.asarray(leaf).tobytes() for path, leaf in zip(transfer.paths(tree), leaves, strict=True)}


def moved(before, after):
    after = bits(after)
    return {path for path, value in bits(before).items() if after[path] != value}


def train(rule, net, steps=4):
    program = make_train(net, losses.cross_entropy, lambda rate: rule(rate), Config(steps=steps, batch_size=6))
    return jit(program)(KEY, 0.05, {"train": (X, Y)})


# Patterns


def test_patterns_choose_by_layer_path_and_glob(start):
    params = start[0]

    def taken(*patterns):
        made = jax.tree.leaves(transfer.chosen(params, patterns))
        return {path for path, takes in zip(transfer.paths(params), made, strict=True) if takes}

    everything = set(transfer.paths(params))
    assert everything == {
        *(f"{layer}/{name}" for layer in ("conv1", "conv2", "logits") for name in ("kernel", "bias")),
        *(f"{layer}/{name}" for layer in ("norm1", "norm2") for name in ("scale", "bias")),
    }
    assert taken() == set()
    assert taken("conv1") == {"conv1/kernel", "conv1/bias"}
    assert taken("conv?/kernel") == {"conv1/kernel", "conv2/kernel"}
    assert taken("*", "!logits") == everything - {"logits/kernel", "logits/bias"}
    assert taken("*", "!*1", "conv1/bias") == everything - {"conv1/kernel", "norm1/scale", "norm1/bias"}
    assert transfer.chosen(params, "norm[12]") == transfer.chosen(params, ("norm1", "norm2"))


@pytest.mark.parametrize("pattern", ["conv3", "Conv1", "conv1/kernels", "!logit"])
def test_a_pattern_that_matches_nothing_is_refused(start, pattern):
    params, stats = start
    for call in (
        lambda: transfer.freeze(optax.adam(0.1), params, ["norm1", pattern]),
        lambda: transfer.gradual(optax.adam(0.1), params, [transfer.Stage(["norm1", pattern])]),
        lambda: transfer.network(Net(), params, stats, frozen=pattern).init(KEY, X),
        lambda: transfer.network(Net(), params, stats, head=pattern).init(KEY, X),
    ):
        with pytest.raises(ValueError, match=f"'{pattern}' matches none of the 10 parameters; did you mean '"):
            call()


# Heads and other architectures


def test_a_head_is_replaced_and_nothing_else(start):
    params = start[0]
    before = bits(params)
    head = {"kernel": np.ones((4, 3)), "bias": np.zeros(3)}
    made = transfer.replace_head(params, head, "logits")
    assert made["logits"] is head
    assert {name for name in made if made[name] is not params[name]} == {"logits"}
    assert bits(params) == before
    deep = transfer.replace_head({"trunk": {"a": 1, "b": 2}}, 3, "trunk/b")
    assert deep == {"trunk": {"a": 1, "b": 3}}
    for path in ("logit", "logits/kernel/x", ""):
        with pytest.raises(ValueError, match=f"path '{path.split('/')[-1]}' leads to no layer of params"):
            transfer.replace_head(params, head, path)


def test_a_checkpoint_of_another_architecture_is_refused(start, tmp_path):
    save(tmp_path / "net.npz", *start)
    saved = load(tmp_path / "net.npz")
    transfer.check_architecture(Net(), saved.params, saved.stats, (4, 4, 2))
    less = {name: saved.params[name] for name in saved.params if name != "conv2"}
    for model, params, stats, sentence in (
        (Net(3), saved.params, saved.stats, r"parameters of this Net: 'logits/bias' has shape \(5,\), not \(3,\)"),
        (Net(), less, saved.stats, r"parameters of this Net: 'conv2/bias' is missing"),
        (Net(), {**saved.params, "more": {"bias": X}}, saved.stats, r"parameters of this Net: it has no 'more/bias'"),
        (Net(), saved.params, {}, r"statistics of this Net: 'batch_stats/norm1/mean' is missing"),
        (models.LeNet(padding="SAME"), saved.params, saved.stats, r"of this LeNet: 'Conv_0/bias' is missing"),
    ):
        with pytest.raises(ValueError, match=sentence):
            transfer.check_architecture(model, params, stats, (4, 4, 2))
        with pytest.raises(ValueError, match=sentence):
            transfer.network(model, params, stats).init(KEY, X)


# Training


@pytest.mark.parametrize("make", [optax.adam, partial(optax.adamw, weight_decay=0.1)], ids=["adam", "adamw"])
def test_frozen_parameters_and_statistics_keep_every_bit(start, make):
    params, stats = start
    frozen = ("*", "!logits")
    net = transfer.network(Net(3), params, stats, head="logits", frozen=frozen)
    result = train(lambda rate: transfer.freeze(make(rate), params, frozen), net)
    first = net.init(jax.random.split(KEY)[0], X)[0]
    assert moved(first, result.params) == {"logits/kernel", "logits/bias"}
    assert {**bits(params), **bits({"logits": first["logits"]})} == bits(first)
    assert moved(stats, result.stats) == set()
    assert int(result.last) == 4


def test_a_layer_between_may_be_frozen_and_the_others_train(start):
    params, stats = start
    net = transfer.network(Net(), params, stats, frozen=("conv1", "norm1"))
    result = train(lambda rate: transfer.freeze(optax.adam(rate), params, ("conv1", "norm1")), net)
    assert {path.split("/")[0] for path in moved(params, result.params)} == {"conv2", "norm2", "logits"}
    assert moved(stats, result.stats) == {"batch_stats/norm2/mean", "batch_stats/norm2/var"}


def test_a_frozen_batch_norm_normalizes_by_its_running_statistics(start):
    params, stats = start
    evaluated = models.apply(Net(), params, stats, X)[0]
    whole = transfer.network(Net(), params, stats, frozen="*")
    y, after = whole.apply(params, stats, X, key=KEY, train=True)
    np.testing.assert_array_equal(y, evaluated)
    assert moved(stats, after) == set()
    half = transfer.network(Net(), params, stats, frozen=("norm1", "norm2/scale"))  # the second's shift still trains
    y, after = half.apply(params, stats, X, key=KEY, train=True)
    assert moved(stats, after) == {"batch_stats/norm2/mean", "batch_stats/norm2/var"}
    assert not np.allclose(y, evaluated)
    none = transfer.network(Net(), params, stats).apply(params, stats, X, key=KEY, train=True)[0]
    np.testing.assert_array_equal(none, models.apply(Net(), params, stats, X, train=True)[0])


class Positional(nn.Module):
    """A batch norm that is told by an argument without a name, as `nnjax.models` and Flax allow."""

    @nn.compact
    def __call__(self, x, train=False):
        return nn.BatchNorm(name="norm")(x, not train)


def test_a_frozen_batch_norm_may_be_told_by_position():
    params, stats = models.init(Positional(), KEY, X)
    stats = jax.tree.map(lambda leaf: leaf + 0.5, stats)
    y, after = transfer.network(Positional(), params, stats, frozen="norm").apply(params, stats, X, key=KEY, train=True)
    np.testing.assert_array_equal(y, models.apply(Positional(), params, stats, X)[0])
    assert moved(stats, after) == set()


def test_with_nothing_frozen_the_numbers_are_those_of_the_rule_itself(start):
    params, stats = start
    net = transfer.network(Net(), params, stats)
    plain = train(lambda rate: optax.adam(rate), net)
    ours = train(lambda rate: transfer.freeze(optax.adam(rate), params, ()), net)
    assert moved(plain.params, ours.params) == set()


def test_clipping_sees_the_trained_parameters_alone(start):
    params = start[0]
    rule = transfer.freeze(optax.clip_by_global_norm(1.0), params, ("*", "!logits/bias"))
    grads = jax.tree.map(lambda leaf: jnp.full(leaf.shape, 10.0), params)
    updates, _ = rule.update(grads, rule.init(params), params)
    np.testing.assert_allclose(updates["logits"]["bias"], np.full(5, 1 / np.sqrt(5)), rtol=1e-6)
    held = jax.tree.leaves(transfer.freeze(optax.adam(0.1), params, ("*", "!logits/bias")).init(params).inner)
    assert sum(leaf.size for leaf in held) == 2 * 5 + 1  # two moments and a count


def test_later_stages_start_later_and_smaller(start):
    params = start[0]
    stages = (transfer.Stage("logits"), transfer.Stage("conv2", start=2, rate=0.1))
    grads = jax.tree.map(lambda leaf: jnp.ones(leaf.shape), params)

    def run(start, rate):
        rule = transfer.gradual(optax.adam(0.01), params, (stages[0], stages[1]._replace(start=start, rate=rate)))

        def step(carry, _):
            params, state = carry
            updates, state = rule.update(grads, state, params)
            params = optax.apply_updates(params, updates)
            return (params, state), params

        return jax.lax.scan(step, (params, rule.init(params)), length=4)[1]

    for path in (jit(lambda: run(2, 0.1))(), jit(run)(2, 0.1)):  # known, and traced
        steps = [jax.tree.map(lambda leaf, i=i: leaf[i], path) for i in range(4)]
        assert [{name.split("/")[0] for name in moved(params, step)} for step in steps] == [
            {"logits"}, {"logits"}, {"logits", "conv2"}, {"logits", "conv2"},
        ]  # fmt: skip
        # Adam's step with a constant gradient is its rate; its moments begin with the stage.
        np.testing.assert_allclose(params["conv2"]["kernel"] - steps[2]["conv2"]["kernel"], 0.001, atol=1e-6)
        np.testing.assert_allclose(params["logits"]["kernel"] - steps[3]["logits"]["kernel"], 0.04, atol=1e-6)


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ((), "stages is empty"),
        ((transfer.Stage("*"), transfer.Stage("conv1")), r"stages\[1\] has no parameters of its own: 'conv1'"),
        ((transfer.Stage("*", start=-1),), r"stages\[0\].start=-1 must be"),
        ((transfer.Stage("*", rate=np.nan),), r"stages\[0\].rate=nan must be"),
    ],
)
def test_bad_stages_are_refused(start, stages, message):
    with pytest.raises(ValueError, match=message):
        transfer.gradual(optax.adam(0.1), start[0], stages)


# Features


def test_features_are_what_the_head_is_given(start):
    params, stats = start
    made = transfer.features(Net(), params, stats, X, batch_size=5)
    assert made.shape == (12, 4)
    head = params["logits"]
    expected = models.apply(Net(), params, stats, X)[0]
    np.testing.assert_allclose(made @ head["kernel"] + head["bias"][None], expected, rtol=1e-5, atol=1e-5)
    doubled = transfer.features(Net(), params, stats, X, before="norm1", preprocess=double)
    kernel, bias = params["conv1"]["kernel"], params["conv1"]["bias"]
    plain = jax.lax.conv_general_dilated(2 * X, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    np.testing.assert_allclose(doubled, plain + bias[None, None, None], rtol=1e-4, atol=1e-4)
    traced = jit(lambda p: transfer.features(Net(), p, stats, X, batch_size=5))(params)
    np.testing.assert_allclose(traced, made, rtol=1e-5, atol=1e-6)


def double(x):
    return 2 * x


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"before": "logit"}, "before='logit' is no layer of Net; did you mean 'logits'"),
        ({"batch_size": 0}, "batch_size=0 must be"),
        ({"x": X[:0]}, "x has no examples"),
    ],
)
def test_bad_features_are_refused(start, keywords, message):
    params, stats = start
    with pytest.raises(ValueError, match=message):
        transfer.features(Net(), params, stats, **{"x": X, **keywords})


# MobileNet


def test_a_missing_checkpoint_is_one_sentence(tmp_path):
    with pytest.raises(
        DataError, match=r"mobilenet_v1_0.75_224.npz.* is missing and has no public download; put it at"
    ):
        transfer.load_mobilenet(tmp_path)


def test_pixels_are_scaled_from_bytes_and_from_floats():
    pixels = np.arange(256, dtype=np.uint8)
    np.testing.assert_allclose(transfer.symmetric(pixels), np.linspace(-1, 1, 256), atol=1e-6)
    np.testing.assert_allclose(transfer.symmetric(pixels / np.float32(255)), np.linspace(-1, 1, 256), atol=1e-6)


@pytest.fixture(scope="module")
def mobilenet(real_data):
    if not (real_data / "imagenet-mobilenet").is_dir():
        pytest.skip("needs imagenet-mobilenet in NNJAX_DATA")
    return transfer.load_mobilenet(real_data)


def middle(path, *, short):
    """224 x 224 pixels: the middle after the shorter side was resized to ``short``; at 224 cropped before."""
    from PIL import Image

    with Image.open(path) as picture:
        picture = picture.convert("RGB")
    side = min(picture.size)
    if short == 224:
        picture = cropped(picture, side)
    scale = min(picture.size) / short
    size = tuple(round(side / scale) for side in picture.size)
    return np.asarray(cropped(picture.resize(size, Image.Resampling.BILINEAR), 224))


def cropped(picture, side):
    left, top = ((whole - side) // 2 for whole in picture.size)
    return picture.crop((left, top, left + side, top + side))


def test_the_pretrained_net_knows_what_it_sees(mobilenet, real_data):
    assert type(mobilenet.model).__name__ == "MobileNet"
    assert mobilenet.size == 224
    assert len(mobilenet.class_names) == 1000
    rows = [line.split("\t") for line in (real_data / "imagenet-sample-50" / "labels.tsv").read_text().splitlines()[1:]]
    sample = [middle(real_data / "imagenet-sample-50" / row[1], short=256) for row in rows]
    photos = {"parrot.jpg": ("macaw", 0.998), "cat.png": ("Egyptian cat", 0.68), "hot_dog.jpg": ("hotdog", 0.96)}
    known = [middle(real_data / "imagenet-mobilenet" / "photos" / name, short=224) for name in photos]

    @jax.jit
    def probabilities(x):
        return jax.nn.softmax(
            models.apply(mobilenet.model, mobilenet.params, mobilenet.stats, mobilenet.preprocess(x))[0]
        )

    p = np.asarray(probabilities(np.stack([*sample, *known])))
    labels = np.asarray([int(row[0]) for row in rows])
    # Stated beside the pictures, to three digits.
    np.testing.assert_array_equal(p[:50].argmax(1) == labels, np.asarray([row[2] == "1" for row in rows]))
    np.testing.assert_allclose(p[np.arange(50), labels], [float(row[3]) for row in rows], atol=1e-3)
    panda = int(np.flatnonzero(labels == 388)[0])
    assert mobilenet.class_names[p[panda].argmax()].startswith("giant panda")
    for (name, stated), line in zip(photos.values(), p[50:], strict=True):
        assert mobilenet.class_names[line.argmax()].startswith(name)
        assert line.max() == pytest.approx(stated, abs=0.01)


@pytest.mark.slow
def test_a_frozen_mobilenet_stays_as_it_is_while_its_new_head_trains(mobilenet):
    x = RNG.uniform(-1, 1, (6, 32, 32, 3)).astype(np.float32)
    frozen = ("*", "!logits")
    model = mobilenet.model.clone(classes=2)
    net = transfer.network(model, mobilenet.params, mobilenet.stats, head="logits", frozen=frozen)
    program = make_train(
        net,
        losses.cross_entropy,
        lambda rate: transfer.freeze(optax.adamw(rate, weight_decay=0.1), mobilenet.params, frozen),
        Config(steps=3, batch_size=3),
    )
    result = jit(program)(KEY, 0.01, {"train": (x, np.arange(6) % 2)})
    before, after = bits(mobilenet.params), bits(result.params)
    assert {path for path in before if before[path] != after[path]} == {"logits/kernel", "logits/bias"}
    assert bits(mobilenet.stats) == bits(result.stats)
    assert result.params["logits"]["kernel"].shape == (768, 2)
    with pytest.raises(ValueError, match=r"of this MobileNet: 'conv1/kernel' has shape \(3, 3, 3, 24\), not"):
        transfer.check_architecture(models.MobileNet(1.0), mobilenet.params, mobilenet.stats, (224, 224, 3))
