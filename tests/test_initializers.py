"""Variances, prefixes and names of the initializers."""

import json
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnjax import conv, initializers

KEY = jax.random.key(0)
EXAMPLE = json.loads(Path(__file__).with_name("worked_examples.json").read_text())["initialisation"]


UNOPTIMIZED = {"xla_backend_optimization_level": 0}


def drawn(name, shape, key=KEY, dtype=jnp.float32, **kw):
    """As one program, compiled without optimization, which is several times faster here."""
    program = jax.jit(lambda key: initializers.by_name(name, **kw)(key, shape, dtype), compiler_options=UNOPTIMIZED)
    return np.asarray(program(key))


NORMAL = ["small_normal", "standard_normal", "xavier_normal", "lecun_normal", "he_normal"]
UNIFORM = ["xavier_uniform", "he_uniform"]
SHAPES = [(50, 400), (3, 5, 20, 100)]


def fans(shape):
    field = int(np.prod(shape[:-2]))
    return field * shape[-2], field * shape[-1]


VARIANCES = {
    "small_normal": lambda i, o: 1e-4,
    "standard_normal": lambda i, o: 1.0,
    "xavier_normal": lambda i, o: 2 / (i + o),
    "lecun_normal": lambda i, o: 1 / i,
    "he_normal": lambda i, o: 2 / i,
    "xavier_uniform": lambda i, o: 2 / (i + o),
    "he_uniform": lambda i, o: 2 / i,
}


def test_the_names():
    assert set(initializers.NAMES) == {"zeros", "orthogonal", "delta_orthogonal", *NORMAL, *UNIFORM}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", NORMAL)
def test_mean_and_variance_are_the_schemes(name, shape):
    w = drawn(name, shape).astype(float)
    assert w.shape == shape
    variance = VARIANCES[name](*fans(shape))
    assert abs(w.mean()) < 4 * np.sqrt(variance / w.size)
    assert abs((w**2).mean() - variance) < 4 * variance * np.sqrt(2 / w.size)
    z = w / np.sqrt(variance)
    assert abs((z**4).mean() - 3) < 4 * np.sqrt(96 / w.size)  # a plain normal, not a truncated one
    assert np.abs(z).max() > 3.2


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", UNIFORM)
def test_uniform_bounds_and_moments(name, shape):
    w = drawn(name, shape).astype(float)
    limit = np.sqrt(3 * VARIANCES[name](*fans(shape)))
    if name == "xavier_uniform":
        assert limit == pytest.approx(np.sqrt(6 / sum(fans(shape))))
    z = w / limit
    assert np.abs(z).max() <= 1 + 1e-6
    assert np.abs(z).max() > 1 - 20 / w.size  # 20 / size is exceeded once in e^20 draws
    assert abs(z.mean()) < 4 * np.sqrt(1 / 3 / w.size)
    assert abs((z**2).mean() - 1 / 3) < 4 * np.sqrt(4 / 45 / w.size)
    assert abs((z**4).mean() - 1 / 5) < 4 * np.sqrt(16 / 225 / w.size)
    assert abs(np.histogram(z, 10, (-1, 1))[0] - w.size / 10).max() < 4.5 * np.sqrt(0.09 * w.size)


@pytest.mark.parametrize("gain", [3.0])
@pytest.mark.parametrize("mode", ["fan_in", "fan_avg"])
def test_xavier_modes_and_gains(mode, gain):
    shape = (100, 400)
    w = drawn("xavier_normal", shape, mode=mode, gain=gain)
    z = drawn("standard_normal", shape)
    variance = gain**2 * {"fan_in": 1 / 100, "fan_avg": 2 / 500}[mode]
    np.testing.assert_allclose(w, np.sqrt(variance) * z, rtol=1e-6)


@pytest.mark.parametrize("mode", ["fan_in", "fan_avg"])
def test_uniform_modes_and_gains(mode):
    plain, made = drawn("xavier_uniform", (100, 400)), drawn("xavier_uniform", (100, 400), mode=mode, gain=3.0)
    limit = 3 * np.sqrt({"fan_in": 3 / 100, "fan_avg": 6 / 500}[mode])
    np.testing.assert_allclose(made, plain * (limit / np.sqrt(6 / 500)), rtol=1e-6)


def test_inputs_of_ones_give_the_worked_variance():
    ones = np.ones(EXAMPLE["fan_in"])
    for name, kw, variance in (
        ("standard_normal", {}, EXAMPLE["variance_of_sum"]),
        ("xavier_normal", {"mode": "fan_in"}, 1),
        ("xavier_uniform", {"mode": "fan_in"}, 1),
        ("he_normal", {}, 2),
        ("he_uniform", {}, 2),
    ):
        sums = ones @ drawn(name, (len(ones), 1000), **kw)
        assert abs(float(sums.var()) / variance - 1) < 4 * np.sqrt(2 / 1000)


def test_zeros_are_zero():
    np.testing.assert_array_equal(initializers.by_name("zeros")(KEY, (3, 4)), np.zeros((3, 4)))


@pytest.mark.parametrize("field", [(), (3, 3)])
@pytest.mark.parametrize("name", ["standard_normal"])
def test_a_smaller_kernel_is_the_corner_of_a_larger_one(name, field):
    large = drawn(name, (*field, 9, 13))
    for d_in, d_out in ((9, 5), (4, 13), (1, 1)):
        np.testing.assert_array_equal(drawn(name, (*field, d_in, d_out)), large[..., :d_in, :d_out])


@pytest.mark.parametrize("name", ["lecun_normal", "he_uniform"])
def test_schemes_of_the_fan_in_keep_the_first_units(name):
    large = drawn(name, (9, 13))
    np.testing.assert_array_equal(drawn(name, (9, 5)), large[:, :5])
    np.testing.assert_allclose(drawn(name, (4, 13)), large[:4] * np.sqrt(9 / 4), rtol=1e-6)


@pytest.mark.parametrize("name", ["xavier_normal", "xavier_uniform"])
def test_xavier_keeps_the_corner_but_for_its_scale(name):
    large = drawn(name, (9, 13))
    np.testing.assert_allclose(drawn(name, (4, 5)), large[:4, :5] * np.sqrt(22 / 9), rtol=1e-6)


# --- Orthogonal -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gain", [1.0, 0.5])
@pytest.mark.parametrize("shape", [(6, 6), (12, 5), (5, 12), (3, 3, 2, 4), (1, 1, 2, 6), (2, 1), (1, 1)])
def test_orthogonal_columns_or_rows(shape, gain):
    w = drawn("orthogonal", shape, gain=gain).astype(float)
    assert w.shape == shape
    w = w.reshape(-1, shape[-1])
    gram = w.T @ w if w.shape[0] >= w.shape[1] else w @ w.T
    np.testing.assert_allclose(gram, gain**2 * np.eye(len(gram)), atol=2e-6)


def test_orthogonal_keeps_lengths():
    x = np.random.default_rng(0).normal(size=(4, 20))
    y = x @ drawn("orthogonal", (20, 20))
    np.testing.assert_allclose(np.linalg.norm(y, axis=1), np.linalg.norm(x, axis=1), rtol=1e-5)


def test_orthogonal_is_haar():
    """Traces of Haar matrices have mean 0 and variance 1, entries 0 and 1/n; without the sign of R they have not."""
    count, n = 4000, 3
    init = initializers.orthogonal()
    many = jax.vmap(lambda key: init(key, (n, n)))(jax.random.split(KEY, count))
    q = np.asarray(many, float)
    trace = np.trace(q, axis1=1, axis2=2)
    assert abs(trace.mean()) < 4 / np.sqrt(count)
    assert abs((trace**2).mean() - 1) < 4 * np.sqrt(2 / count)  # E trace^4 = 3
    assert np.abs(q.mean(0)).max() < 4.5 / np.sqrt(n * count)
    assert np.abs((q**2).mean(0) - 1 / n).max() < 4.5 * np.sqrt((3 / (n * (n + 2)) - 1 / n**2) / count)
    sign = np.linalg.det(q)
    np.testing.assert_allclose(np.abs(sign), 1, atol=1e-5)
    assert abs(sign.mean()) < 4 / np.sqrt(count)  # reflections as often as rotations
    np.testing.assert_allclose(q[7], init(jax.random.split(KEY, count)[7], (n, n)), atol=1e-6)


# --- Delta-orthogonal -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gain", [1.0, 0.5])
@pytest.mark.parametrize("field", [(3, 3), (5, 3), (2, 4), (1, 1), (3,), (3, 3, 3)])
def test_delta_orthogonal_has_the_center_tap_alone(field, gain):
    w = drawn("delta_orthogonal", (*field, 3, 5), gain=gain).astype(float)
    center = tuple((size - 1) // 2 for size in field)
    np.testing.assert_allclose(w[center] @ w[center].T, gain**2 * np.eye(3), atol=2e-6)
    w[center] = 0
    np.testing.assert_array_equal(w, 0)


@pytest.mark.parametrize("field", [(3, 3), (2, 2)])
def test_delta_orthogonal_keeps_the_length_of_every_pixel(field):
    x = np.random.default_rng(0).normal(size=(2, 5, 4, 3)).astype(np.float32)
    y = conv.conv2d(x, drawn("delta_orthogonal", (*field, 3, 6)), padding="SAME")
    np.testing.assert_allclose(np.linalg.norm(y, axis=-1), np.linalg.norm(x, axis=-1), rtol=1e-5)


@pytest.mark.parametrize("shape", [(6, 6), (6, 4), (4, 6)])
def test_delta_orthogonal_of_a_dense_kernel_is_orthogonal(shape):
    np.testing.assert_array_equal(drawn("delta_orthogonal", shape), drawn("orthogonal", shape))


def test_delta_orthogonal_needs_as_many_channels_out_as_in():
    with pytest.raises(
        ValueError, match=r"shape=\(3, 3, 4, 2\) must have at least as many channels out \(last\) as in"
    ):
        initializers.by_name("delta_orthogonal")(KEY, (3, 3, 4, 2))


@pytest.mark.parametrize("name", ["zeros", "xavier_normal", "he_uniform", "orthogonal", "delta_orthogonal"])
def test_dtypes(name):
    init = initializers.by_name(name)
    for dtype in (jnp.float16, jnp.bfloat16, jnp.float32):
        made = jax.eval_shape(lambda key, dtype=dtype: init(key, (8, 4), dtype), KEY)
        assert (made.dtype, made.weak_type) == (dtype, False)
    assert jax.eval_shape(lambda key: init(key, (8, 4)), KEY).dtype == jnp.float32
    assert np.isfinite(drawn(name, (8, 4), dtype=jnp.float16).astype(float)).all()
    with jax.enable_x64(True):
        w = drawn(name, (3, 2), dtype=jnp.float64)
        assert w.dtype == np.float64
        if name.endswith("orthogonal"):
            np.testing.assert_allclose(w.T @ w, np.eye(2), atol=1e-14)
        elif name != "zeros":
            assert (w != w.astype(np.float32)).all()  # all of its digits are drawn


@pytest.mark.parametrize("name", ["xavier_uniform", "orthogonal"])
def test_keys_decide_and_batches_of_keys_agree(name):
    init = jax.jit(initializers.by_name(name), static_argnums=1, compiler_options=UNOPTIMIZED)
    keys = jax.random.split(KEY, 3)
    each = np.stack([init(key, (6, 5)) for key in keys])
    np.testing.assert_allclose(jax.vmap(lambda key: init(key, (6, 5)))(keys), each, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(initializers.by_name(name)(keys[0], (6, 5)), each[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(init(keys[0], (6, 5)), each[0])
    assert len(np.unique(each)) == each.size


@pytest.mark.parametrize(
    ("wrong", "near"),
    [
        ("he_norml", "he_normal"),
        ("xavier", "xavier_normal"),
        ("lecun_norm", "lecun_normal"),
        ("zero", "zeros"),
        ("he_unifrom", "he_uniform"),
        ("orthogonall", "orthogonal"),
    ],
)
def test_a_wrong_name_suggests_the_nearest(wrong, near):
    with pytest.raises(ValueError, match=f"initializer '{wrong}' is not one of zeros, .*; did you mean '{near}'"):
        initializers.by_name(wrong)


def test_errors():
    with pytest.raises(ValueError, match="'qqqqqqqq' is not one of") as error:
        initializers.by_name("qqqqqqqq")
    assert "did you mean" not in str(error.value)
    with pytest.raises(ValueError, match="mode='fan_out' must be 'fan_avg' or 'fan_in'"):
        initializers.by_name("xavier_normal", mode="fan_out")
    with pytest.raises(ValueError, match="mode='fan_out' must be 'fan_avg' or 'fan_in'"):
        initializers.xavier_uniform(mode="fan_out")
    for name in set(initializers.NAMES) - {"zeros"}:
        with pytest.raises(ValueError, match=r"shape=\(5,\) must have at least two axes"):
            initializers.by_name(name)(KEY, (5,))
    for scheme in (initializers.scaled_normal, initializers.scaled_uniform):
        with pytest.raises(ValueError, match=r"variance=-1\.0 at fans \(3, 4\) must be at least 0"):
            scheme(lambda fan_in, fan_out: -1.0)(KEY, (3, 4))


@pytest.mark.parametrize("name", ["xavier_normal", "xavier_uniform", "orthogonal", "delta_orthogonal"])
def test_a_gain_may_be_traced(name):
    def draw(gain, dtype=jnp.float32):
        return initializers.by_name(name, gain=gain)(KEY, (6, 5), dtype)

    gains = jnp.asarray([1.0, 2.5])
    lanes = jax.jit(jax.vmap(draw), compiler_options=UNOPTIMIZED)(gains)
    for lane, gain in zip(lanes, gains, strict=True):
        np.testing.assert_allclose(lane, drawn(name, (6, 5), gain=float(gain)), rtol=1e-5, atol=1e-6)
    assert jax.eval_shape(lambda gain: draw(gain, jnp.bfloat16), jnp.ones(())).dtype == jnp.bfloat16
    for gain in (0, -1.0, np.inf, float("nan"), "big", None, jnp.asarray(-2.0), np.ones(2)):
        with pytest.raises(ValueError, match=r"gain=.* must be a finite number above 0"):
            initializers.by_name(name, gain=gain)
    assert np.isfinite(draw(jnp.asarray(2, jnp.bfloat16))).all()


@pytest.mark.parametrize("shape", [(0, 5), (5, 0), (0, 3, 4, 5)])
@pytest.mark.parametrize("name", ["small_normal", "xavier_uniform", "he_normal", "orthogonal", "delta_orthogonal"])
def test_a_unit_needs_inputs(name, shape):
    with pytest.raises(ValueError, match=rf"shape={re.escape(str(shape))} must have no axis of size 0"):
        initializers.by_name(name)(KEY, shape)


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("glorot_normal", "xavier_normal"),
        ("glorot_uniform", "xavier_uniform"),
        ("kaiming_normal", "he_normal"),
        ("kaiming_uniform", "he_uniform"),
    ],
)
def test_other_names_in_use(name, known):
    np.testing.assert_array_equal(drawn(name, (4, 3)), drawn(known, (4, 3)))
    assert name not in initializers.NAMES


def test_gains():
    assert initializers.gain("sigmoid", "pytorch") == initializers.gain("logistic", "pytorch")
    assert initializers.gain("tanh") == 4
    assert initializers.gain("relu") == pytest.approx(np.sqrt(2))
    assert initializers.gain("logistic") == initializers.gain("identity") == 1
    torch = pytest.importorskip("torch")
    theirs = {"identity": "linear", "logistic": "sigmoid", "tanh": "tanh", "relu": "relu", "leaky_relu": "leaky_relu"}
    for name, their in theirs.items():
        expected = torch.nn.init.calculate_gain(their)
        assert initializers.gain(name, "pytorch") == pytest.approx(expected)
    with pytest.raises(
        ValueError, match="convention 'textbok' is not one of textbook, pytorch; did you mean 'textbook'"
    ):
        initializers.gain("tanh", "textbok")
    with pytest.raises(ValueError, match="activation with a gain 'sin' is not one of identity, logistic, tanh, relu"):
        initializers.gain("sin")


def test_the_gain_of_relu_keeps_the_signal():
    """Mean squares pass through 20 layers of ReLU unchanged with gain sqrt(2), and shrink 2^20-fold without."""
    init = initializers.xavier_uniform(mode="fan_in")
    layers = jax.jit(jax.vmap(lambda key: init(key, (256, 256))), compiler_options=UNOPTIMIZED)
    layers = np.asarray(layers(jax.random.split(KEY, 20)), float)
    for gain, expected in ((initializers.gain("relu"), 1), (1.0, 2.0**-20)):
        y = np.random.default_rng(0).normal(size=(50, 256))
        for w in gain * layers:
            y = np.maximum(y @ w, 0)
        # The mean square of a layer of 256 varies by 5/256, so that the log of 20 has a deviation of 0.62.
        assert abs(np.log((y**2).mean() / expected)) < 4 * 0.62
