"""Augmentation in the update, and training on streamed pictures: the numbers of training in memory, resumed or not."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from PIL import Image

from nnjax import conv, losses, models, train
from nnjax.data import DataError, image_folder, stream
from nnjax.data.augment import affine
from nnjax.train import Config, fit_stream, make_train, of_bytes, order_key

KEY, SIZE, HPARAMS = jax.random.key(3), 8, {"lr": 0.05}
CONFIG = Config(epochs=3, batch_size=4)


class Net(nn.Module):
    """The least that has a convolution and statistics: what counts here is the way to it, and compiling costs."""

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.Conv(4, (3, 3), conv_general_dilated=conv.conv_general_dilated)(x)
        x = nn.relu(nn.BatchNorm(use_running_average=not train, momentum=0.9)(x))
        return nn.Dense(2)(x.mean(axis=(1, 2)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Eighteen noisy pictures of two classes, a last batch of two, bright or dark."""
    root, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for i in range(18):
        (root / "ab"[i % 2]).mkdir(exist_ok=True)
        pixels = rng.integers(0, 128, (9, 11, 3)) + 100 * (i % 2)
        Image.fromarray(pixels.astype(np.uint8)).save(root / "ab"[i % 2] / f"{i}.png")
    return image_folder(root)


@pytest.fixture(scope="module")
def memory(folder):
    """The same pictures as floats, training and validation."""
    x = np.divide(folder.read(range(len(folder)), SIZE), np.float32(255), dtype=np.float32)
    return {"train": (x, folder.labels), "validation": (x[::3], folder.labels[::3])}


def _rule(hparams):
    return optax.sgd(hparams["lr"], momentum=0.9)


def _run(config=CONFIG, network=None, **options):
    network = network or models.network(Net())
    return make_train(network, losses.cross_entropy, _rule, config, **options)


def _stream(folder, **options):
    return stream(folder, 4, SIZE, **({"seed": order_key(KEY), "workers": 2} | options))


def _equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


# Augmentation


def test_a_run_without_augmentation_is_what_it_was(memory):
    plain = jax.jit(_run())(KEY, HPARAMS, memory)
    same = jax.jit(_run(augment=lambda key, x, hparams: x))(KEY, HPARAMS, memory)
    none = jax.jit(_run(augment=lambda key, x, hparams: affine(key, x, rotate=hparams["strength"])))(
        KEY, HPARAMS | {"strength": 0.0}, memory
    )
    _equal(plain, same)
    _equal(plain.params, none.params)


def test_every_update_sees_its_own_draw_and_evaluation_none():
    """The loss is the picture itself: what is learned is the sum of what was seen."""
    seer = train.Network(
        init=lambda key, x: ({"w": jnp.zeros(())}, {}),
        apply=lambda params, stats, x, *, key, train: (params["w"] + x[:, 0], stats),
    )
    x = np.zeros((6, 1), np.float32)
    data = {"train": (x, np.arange(6))}
    run = make_train(
        seer, lambda p, t: p, lambda h: optax.sgd(0.0), Config(steps=5, batch_size=3, evaluate_every=1),
        augment=lambda key, x, h: x + h["size"] * jax.random.uniform(key, x.shape),
    )  # fmt: skip
    rates = jnp.asarray([0.0, 1.0])
    lanes = jax.jit(jax.vmap(lambda size: run(KEY, {"size": size}, data)))(rates)
    np.testing.assert_array_equal(lanes.history["train_loss"], np.zeros((2, 5)))
    seen = np.asarray(lanes.history["running_loss"])
    assert (seen[0] == 0).all()
    assert len(np.unique(seen[1])) == 5
    assert ((seen[1] > 0) & (seen[1] < 1)).all()
    wrong = dataclasses.replace(run, augment=lambda key, x, h: x[:2])
    with pytest.raises(ValueError, match="augment made 2 examples of 3"):
        wrong(KEY, {"size": 0.0}, data)


# Streaming


@pytest.mark.parametrize(
    ("config", "options"),
    [
        ({}, {}),
        ({"remainder": "drop", "evaluate_at": (0, 3, 7)}, {}),
        ({"shuffle": False, "accumulate": 2, "class_weights": (1.0, 2.0)}, {}),
        ({"select": "validation_loss", "patience": 2, "evaluate_every": 2, "epochs": 6}, {}),
        ({}, {"augment": lambda key, x, hparams: affine(key, x, shift=2.0, rotate=20.0)}),
    ],
    ids=["plain", "drop", "in order", "patience", "augmented"],
)
def test_streaming_gives_the_numbers_of_training_in_memory(folder, memory, config, options):
    config = dataclasses.replace(CONFIG, **config)
    run = _run(config, **options)
    whole = train.fit(run, KEY, HPARAMS, memory)
    source = _stream(folder, shuffle=config.shuffle, remainder=config.remainder)
    streamed = fit_stream(run, KEY, HPARAMS, source, memory)
    # Two programs: XLA sums in another order where it fuses otherwise.
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), whole, streamed)
    assert (int(whole.step), int(whole.last)) == (int(streamed.step), int(streamed.last))
    assert 0 <= source.timing.waited < source.timing.total


@pytest.mark.parametrize("remainder", ["keep", "drop"])
@pytest.mark.parametrize("shuffle", [True, False])
def test_streaming_is_exact_where_arithmetic_is(folder, memory, shuffle, remainder):
    """Small integers and powers of two round nowhere: every update's loss is that of `fit`, to the last bit."""
    config = dataclasses.replace(CONFIG, evaluate_every=1, shuffle=shuffle, remainder=remainder)
    run = make_train(SCALE, lambda p, t: p * (1 + t), lambda h: optax.sgd(2.0**-6), config)
    whole = train.fit(run, KEY, None, memory)
    streamed = fit_stream(run, KEY, None, _stream(folder, shuffle=shuffle, remainder=remainder), memory)
    _equal((whole.params, whole.history["running_loss"]), (streamed.params, streamed.history["running_loss"]))
    assert len(np.unique(whole.history["running_loss"])) > 8


SCALE = train.Network(
    init=lambda key, x: ({"w": jnp.ones(())}, {}),
    apply=lambda params, stats, x, *, key, train: (params["w"] * jnp.floor(16 * x[:, 0, 0, 0]), stats),
)
"""Of the corner pixel's sixteenths; small integers and powers of two round nowhere."""


def test_every_picture_is_evaluated_whatever_a_stream_drops(folder, memory):
    run = make_train(
        SCALE, lambda p, t: p * (1 + t), lambda h: optax.sgd(2.0**-6), dataclasses.replace(CONFIG, epochs=1)
    )
    splits = {"all": memory["train"], "streamed": _stream(folder, remainder="drop")}
    made = fit_stream(run, KEY, None, _stream(folder), splits).history
    np.testing.assert_allclose(made["streamed_loss"], made["all_loss"], rtol=1e-6)


def test_double_precision_with_weights_of_single(folder):
    """The parts of a batch are added up in the precision of the loss."""
    with jax.enable_x64(True):
        double = SCALE._replace(init=lambda key, x: ({"w": jnp.ones((), jnp.float64)}, {}))
        run = make_train(
            double, lambda p, t: p * (1 + t) / 3, lambda h: optax.sgd(2.0**-6),
            Config(epochs=1, batch_size=4, accumulate=2, shuffle=False),
        )  # fmt: skip
        x = np.divide(folder.read(range(len(folder)), SIZE), np.float32(255), dtype=np.float32)
        whole = jax.jit(run)(KEY, None, {"train": (x, folder.labels, np.ones(len(folder), np.float32))})
        streamed = fit_stream(run, KEY, None, _stream(folder, shuffle=False))
    value = np.floor(16 * x[:, 0, 0, 0].astype(float)) * (1 + folder.labels) / 3
    slopes = [value[i : i + 4].mean() for i in range(0, 18, 4)]
    for made in (whole, streamed):
        assert made.params["w"].dtype == np.float64
        np.testing.assert_allclose(made.params["w"], 1 - 2.0**-6 * np.sum(slopes), rtol=1e-14)


def test_bytes_become_the_same_floats_everywhere(folder, memory):
    values = np.arange(256, dtype=np.uint8)[:, None]
    echo = train.Network(lambda key, x: (x, {}), lambda params, stats, x, *, key, train: (x, stats))
    made = jax.jit(lambda x: of_bytes(echo).apply(None, {}, x, key=None, train=False)[0])(values)
    np.testing.assert_array_equal(made, np.divide(values, np.float32(255), dtype=np.float32))
    np.testing.assert_array_equal(of_bytes(echo).init(KEY, values)[0], made)
    assert of_bytes(echo).apply(None, {}, np.ones(2, np.int32), key=None, train=False)[0].dtype == np.int32
    raw = {name: (np.rint(255 * x).astype(np.uint8), y) for name, (x, y) in memory.items()}
    run = _run(Config(steps=3, batch_size=4))
    _equal(fit_stream(run, KEY, HPARAMS, _stream(folder), raw), fit_stream(run, KEY, HPARAMS, _stream(folder), memory))


def test_evaluation_can_be_streamed_too(folder, memory):
    run = _run(Config(epochs=2, batch_size=4, select="validation_loss"))
    places = np.arange(0, 18, 3)
    validation = stream(folder.take(places), 4, SIZE, shuffle=False)
    streamed = fit_stream(run, KEY, HPARAMS, _stream(folder), {"train": _stream(folder), "validation": validation})
    whole = fit_stream(run, KEY, HPARAMS, _stream(folder), memory)
    assert set(streamed.history) == {"train_loss", "validation_loss", "running_loss", "step"}
    for name in ("train_loss", "validation_loss"):
        np.testing.assert_allclose(streamed.history[name], whole.history[name], rtol=1e-5)
    _equal(streamed.params, whole.params)
    bare = fit_stream(_run(Config(epochs=2, batch_size=4)), KEY, HPARAMS, _stream(folder))
    assert set(bare.history) == {"running_loss", "step"}


def test_a_stopped_run_goes_on_with_the_same_numbers(folder, memory, tmp_path):
    run = _run(augment=lambda key, x, hparams: affine(key, x, shift=1.0))
    whole = fit_stream(run, KEY, HPARAMS, _stream(folder), memory)

    def stop(state, done, total):
        if done >= 7:  # in the middle of the second epoch
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit_stream(run, KEY, HPARAMS, _stream(folder), memory, segments=15, on_segment=stop, checkpoint=tmp_path)
    seen = []
    resumed = fit_stream(
        run, KEY, HPARAMS, _stream(folder), memory, segments=15, checkpoint=tmp_path,
        on_segment=lambda state, done, total: seen.append((done, total)),
    )  # fmt: skip
    assert seen[0] == (8, 15)
    _equal(whole, resumed)
    for other in (_stream(folder, seed=1), _stream(folder.take(range(18)[::-1]))):
        with pytest.raises(ValueError, match="another run"):
            fit_stream(run, KEY, HPARAMS, other, memory, checkpoint=tmp_path)
    fit_stream(
        run, KEY, HPARAMS, _stream(folder), memory, checkpoint=tmp_path, on_segment=stop
    )  # nothing is left to do


def test_what_does_not_fit_is_named(folder, tmp_path):
    for options, sentence in (
        ({"shuffle": False}, "shuffle=False of the stream must be the configuration's shuffle=True"),
        ({"remainder": "drop"}, "remainder='drop' of the stream must be the configuration's remainder='keep'"),
        ({"epochs": 1}, "epochs=1 of the stream give fewer than the run's 15 updates"),
    ):
        with pytest.raises(ValueError, match=sentence):
            fit_stream(_run(), KEY, HPARAMS, _stream(folder, **options))
    with pytest.raises(ValueError, match="batch_size=3 of the stream must be the configuration's batch_size=4"):
        fit_stream(_run(), KEY, HPARAMS, stream(folder, 3, SIZE))
    with pytest.raises(ValueError, match=r"split 'validation' has arrays of different lengths \[18, 17\]"):
        fit_stream(_run(), KEY, HPARAMS, _stream(folder), {"validation": (np.zeros((18, 2)), folder.labels[1:])})
    with pytest.raises(ValueError, match="segments=0"):
        fit_stream(_run(), KEY, HPARAMS, _stream(folder), segments=0)


def test_a_picture_that_has_gone_ends_the_run_and_keeps_its_checkpoints(tmp_path):
    for i in range(8):
        (tmp_path / "data" / "ab"[i % 2]).mkdir(exist_ok=True, parents=True)
        Image.new("RGB", (SIZE, SIZE), (30 * i,) * 3).save(tmp_path / "data" / "ab"[i % 2] / f"{i}.png")
    there, key = image_folder(tmp_path / "data"), jax.random.key(0)
    run, source = _run(Config(epochs=6, batch_size=4)), stream(there, 4, SIZE, prefetch=1)
    steps = []

    def remove(state, done, total):
        steps.append(done)
        if done == 3:
            (tmp_path / "data" / "a" / "0.png").rename(tmp_path / "0.png")

    kept = {"segments": 12, "checkpoint": tmp_path / "run"}
    with pytest.raises(DataError, match=r"picture 'a/0\.png' cannot be read"):
        fit_stream(run, key, HPARAMS, source, on_segment=remove, **kept)
    (tmp_path / "0.png").rename(tmp_path / "data" / "a" / "0.png")
    resumed = fit_stream(run, key, HPARAMS, source, on_segment=lambda *a: steps.append(-a[1]), **kept)
    assert steps[-1] == -12
    assert -1 not in steps, "what was done before is not done again"
    _equal(resumed, fit_stream(run, key, HPARAMS, source))
