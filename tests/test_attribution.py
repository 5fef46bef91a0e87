"""Feature maps of any module against Flax's own capture and by hand; filters as pictures."""

import re

import flax.linen as nn
import jax
import numpy as np
import pytest

from nnjax import models
from nnjax.attribution import feature_maps, filters

X = np.asarray(np.random.default_rng(0).normal(size=(2, 8, 8, 3)), np.float32)


class Small(nn.Module):
    """Two convolutions, the first called twice and normalized, and a dense layer."""

    @nn.compact
    def __call__(self, x, train=False):
        shared = nn.Conv(3, (3, 3), name="shared")
        x = nn.relu(nn.BatchNorm(use_running_average=not train)(shared(x)))
        x = nn.relu(shared(x))
        x = nn.relu(nn.Conv(4, (3, 3), strides=2, name="second")(x))
        return nn.Dense(5)(x.reshape(len(x), -1))


def convolved(x, layer, stride=1, turn=...):
    """What a convolution with these parameters makes of x."""
    steps, layout = (stride, stride), ("NHWC", "HWIO", "NHWC")
    z = jax.lax.conv_general_dilated(x, layer["kernel"][turn], steps, "SAME", dimension_numbers=layout)
    return np.asarray(z) + np.asarray(layer["bias"][turn])


@pytest.fixture(scope="module")
def small():
    model = Small()
    params, stats = models.init(model, jax.random.key(0), X)
    stats = jax.tree.map(lambda leaf: leaf + 0.3, stats)  # a normalization that does something
    return model, params, stats


def test_maps_are_what_flax_captures(small):
    model, params, stats = small
    found = feature_maps(model, params, stats, X)
    assert list(found) == ["shared", "shared#2", "second", "Dense_0"]
    assert found["second"].shape == (2, 4, 4, 4)
    _, kept = model.apply({"params": params, **stats}, X, capture_intermediates=True, mutable=["intermediates"])
    own = kept["intermediates"]
    pairs = {"shared": own["shared"]["__call__"][0], "shared#2": own["shared"]["__call__"][1],
             "second": own["second"]["__call__"][0], "Dense_0": own["Dense_0"]["__call__"][0]}  # fmt: skip
    for name, expected in pairs.items():
        np.testing.assert_allclose(found[name], expected, rtol=1e-6)


def test_an_activation_gives_what_the_next_layer_is_given(small):
    model, params, stats = small
    found = feature_maps(model, params, stats, X, activation="relu")
    again = convolved(found["shared#2"], params["second"], stride=2)
    np.testing.assert_allclose(found["second"], nn.relu(again), rtol=1e-5, atol=1e-6)
    # The first call is normalized before its activation, and the second sees that.
    plain = feature_maps(model, params, stats, X)
    again = convolved(found["shared"], params["shared"])
    np.testing.assert_allclose(plain["shared#2"], again, rtol=1e-5, atol=1e-6)
    assert not np.allclose(found["shared"], nn.relu(plain["shared"]))
    assert (np.asarray(found["Dense_0"]) < 0).any(), "logits have no activation"


def test_training_uses_the_batch_statistics(small):
    model, params, stats = small
    off, on = (feature_maps(model, params, stats, X, activation=nn.relu, train=train) for train in (False, True))
    assert not np.allclose(off["shared"], on["shared"])
    plain = np.asarray(feature_maps(model, params, stats, X)["shared"])
    normalized = (plain - plain.mean((0, 1, 2))) / np.sqrt(plain.var((0, 1, 2)) + 1e-5)
    np.testing.assert_allclose(on["shared"], nn.relu(normalized), rtol=1e-4, atol=1e-5)


def test_turns_of_a_loop_are_layers_of_their_own():
    model = models.DeepCNN(depth=3, width=4, classes=2)
    params, stats = models.init(model, jax.random.key(1), X)
    found = feature_maps(model, params, stats, X, activation="relu")
    # The loop's layers keep what they had been given, so each can be made from the one before.
    assert list(found) == ["first", "hidden/0", "hidden/1", "logits"]
    x = found["first"]
    for turn in (0, 1):
        x = nn.relu(convolved(x, params["hidden"], turn=turn))
        np.testing.assert_allclose(found[f"hidden/{turn}"], x, rtol=1e-5, atol=1e-6)
    assert filters(params, "hidden/1", channel=2).shape == (4, 3, 3, 1)


def test_jit_vmap_and_double_precision(small):
    model, params, stats = small
    plain = feature_maps(model, params, stats, X)
    traces = []

    def maps(x):
        traces.append(1)
        return feature_maps(model, params, stats, x)

    program = jax.jit(maps)
    for x in (X, X[::-1]):
        compiled = program(x)
    assert len(traces) == 1
    lanes = jax.vmap(lambda x: feature_maps(model, params, stats, x))(X[:, None])
    for name, value in plain.items():
        np.testing.assert_allclose(compiled[name], value[::-1], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(lanes[name][:, 0], value, rtol=1e-5, atol=1e-6)
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), (params, stats))
        found = feature_maps(model, *wide, np.asarray(X, np.float64))
    assert {value.dtype for value in found.values()} == {np.dtype(np.float64)}
    np.testing.assert_allclose(found["Dense_0"], plain["Dense_0"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("model", "x", "message"),
    [
        (nn.relu, X[:0], r"x has shape \(0, 8, 8, 3\)"),
        (nn.Dropout(0.5, deterministic=True), X, "model has no layer"),
    ],
)
def test_bad_input_of_feature_maps(model, x, message):
    with pytest.raises(ValueError, match=message):
        feature_maps(model, {}, {}, x)


def test_an_unknown_activation(small):
    model, params, stats = small
    with pytest.raises(ValueError, match="did you mean 'relu'"):
        feature_maps(model, params, stats, X, activation="relux")


# Filters


def test_filters_are_gray_at_zero_and_keep_their_colors(small):
    _, params, _ = small
    kernel = np.array(params["shared"]["kernel"])  # (3, 3, 3, 3)
    kernel[..., 1] = 0
    params = {"block": {"shared": {"kernel": kernel, "bias": np.zeros(3)}}}
    shown = np.asarray(filters(params, "block/shared"))
    assert shown.shape == (3, 3, 3, 3)
    assert np.all(shown[1] == 0.5)
    for k in (0, 2):
        assert max(1 - shown[k].min(), shown[k].max()) == pytest.approx(1)
        most = np.abs(kernel[..., k]).max()
        np.testing.assert_allclose((shown[k] - 0.5) * 2 * most, kernel[..., k], atol=1e-6)
    whole = np.asarray(filters(params, "block/shared", together=True))
    np.testing.assert_allclose((whole - 0.5) * 2 * np.abs(kernel).max(), np.moveaxis(kernel, 3, 0), atol=1e-6)


def test_one_channel_at_a_time(small):
    _, params, _ = small
    one = filters(params, "second", channel=1, together=True)
    assert one.shape == (4, 3, 3, 1)
    part = np.moveaxis(np.asarray(params["second"]["kernel"]), 3, 0)[..., 1:2]
    np.testing.assert_allclose(one, 0.5 + part / (2 * np.abs(part).max()), rtol=1e-6)
    lanes = jax.jit(jax.vmap(lambda p: filters(p, "second", channel=1)))(jax.tree.map(lambda a: a[None], params))
    np.testing.assert_allclose(lanes[0], filters(params, "second", channel=1), atol=1e-6)


@pytest.mark.parametrize(
    ("path", "options", "message"),
    [
        ("secnd", {}, "convolution 'secnd' is not one of shared, second; did you mean 'second'?"),
        ("Dense_0", {}, "convolution 'Dense_0' is not one of shared, second"),
        ("first", {}, "have 2 input channels and cannot be shown as gray or RGB pictures; give channel, 0 to 1"),
        ("second", {"channel": 3}, "channel=3 must lie between 0 and 2"),
        ("second", {"channel": -1}, "channel=-1 must lie between 0 and 2"),
    ],
)
def test_bad_input_of_filters(small, path, options, message):
    params = dict(small[1])
    if path == "first":
        params["first"] = {"kernel": np.zeros((3, 3, 2, 4))}
    with pytest.raises(ValueError, match=re.escape(message)):
        filters(params, path, **options)


def test_kernels_are_told_apart_by_their_axes_alone():
    """What the documentation says of stacked one-dimensional and of three-dimensional kernels."""
    params = {"line": {"kernel": np.ones((5, 3, 1, 4))}, "solid": {"kernel": np.ones((2, 3, 3, 1, 4))}}
    assert filters(params, "line").shape == (4, 5, 3, 1)
    assert filters(params, "solid/1").shape == (4, 3, 3, 1)
    with pytest.raises(ValueError, match="is not one of line, solid/0, solid/1"):
        filters(params, "solid")


def test_parameters_without_a_convolution():
    with pytest.raises(ValueError, match="no kernel of a two-dimensional convolution"):
        filters({"Dense_0": {"kernel": np.zeros((3, 2))}}, "Dense_0")
