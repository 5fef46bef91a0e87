"""Variances, prefixes and names of the initializers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnjax import initializers

KEY = jax.random.key(0)


def drawn(name, shape, key=KEY, **kw):
    """As one program, compiled without optimization, which is several times faster here."""
    program = jax.jit(
        lambda key: initializers.by_name(name, **kw)(key, shape),
        compiler_options={"xla_backend_optimization_level": 0},
    )
    return np.asarray(program(key))


NAMES = ["zeros", "small_normal", "standard_normal", "xavier_normal", "lecun_normal", "he_normal"]
RANDOM = NAMES[1:]
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
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", RANDOM)
def test_mean_and_variance_are_the_schemes(name, shape):
    w = drawn(name, shape).astype(float)
    assert w.shape == shape
    variance = VARIANCES[name](*fans(shape))
    assert abs(w.mean()) < 4 * np.sqrt(variance / w.size)
    assert abs((w**2).mean() - variance) < 4 * variance * np.sqrt(2 / w.size)
    z = w / np.sqrt(variance)
    assert abs((z**4).mean() - 3) < 4 * np.sqrt(96 / w.size)  # a plain normal, not a truncated one
    assert np.abs(z).max() > 3.2


@pytest.mark.parametrize("gain", [1.0, 3.0])
@pytest.mark.parametrize("mode", ["fan_in", "fan_avg"])
def test_xavier_modes_and_gains(mode, gain):
    shape = (100, 400)
    w = drawn("xavier_normal", shape, mode=mode, gain=gain)
    z = drawn("standard_normal", shape)
    variance = gain**2 * {"fan_in": 1 / 100, "fan_avg": 2 / 500}[mode]
    np.testing.assert_allclose(w, np.sqrt(variance) * z, rtol=1e-6)


def test_inputs_of_ones_give_the_worked_variance():
    ones = np.ones(250)
    for name, kw, variance in (
        ("standard_normal", {}, 250),
        ("xavier_normal", {"mode": "fan_in"}, 1),
        ("he_normal", {}, 2),
    ):
        sums = ones @ drawn(name, (250, 4000), **kw)
        assert abs(float(sums.var()) / variance - 1) < 4 * np.sqrt(2 / 4000)


def test_zeros_are_zero():
    np.testing.assert_array_equal(initializers.by_name("zeros")(KEY, (3, 4)), np.zeros((3, 4)))


@pytest.mark.parametrize("field", [(), (3, 3)])
@pytest.mark.parametrize("name", ["small_normal", "standard_normal"])
def test_a_smaller_kernel_is_the_corner_of_a_larger_one(name, field):
    large = drawn(name, (*field, 9, 13))
    for d_in, d_out in ((9, 5), (4, 13), (1, 1)):
        np.testing.assert_array_equal(drawn(name, (*field, d_in, d_out)), large[..., :d_in, :d_out])


@pytest.mark.parametrize("name", ["he_normal", "lecun_normal"])
def test_schemes_of_the_fan_in_keep_the_first_units(name):
    large = drawn(name, (9, 13))
    np.testing.assert_array_equal(drawn(name, (9, 5)), large[:, :5])
    np.testing.assert_allclose(drawn(name, (4, 13)), large[:4] * np.sqrt(9 / 4), rtol=1e-6)


def test_xavier_keeps_the_corner_but_for_its_scale():
    large = drawn("xavier_normal", (9, 13))
    np.testing.assert_allclose(drawn("xavier_normal", (4, 5)), large[:4, :5] * np.sqrt(22 / 9), rtol=1e-6)


@pytest.mark.parametrize("name", ["zeros", "xavier_normal"])
@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32])
def test_dtype(name, dtype):
    made = initializers.by_name(name)(KEY, (8, 4), dtype)
    assert made.dtype == dtype
    assert not made.weak_type
    assert np.isfinite(np.asarray(made, float)).all()


def test_float64_and_the_default():
    assert initializers.he_normal()(KEY, (3, 2)).dtype == jnp.float32
    with jax.enable_x64(True):
        assert initializers.he_normal()(KEY, (3, 2), jnp.float64).dtype == jnp.float64


@pytest.mark.parametrize("name", ["xavier_normal", "he_normal"])
def test_keys_decide_and_batches_of_keys_agree(name):
    init = initializers.by_name(name)
    keys = jax.random.split(KEY, 3)
    each = np.stack([init(key, (6, 5)) for key in keys])
    np.testing.assert_allclose(jax.vmap(lambda key: init(key, (6, 5)))(keys), each, rtol=1e-6)
    np.testing.assert_allclose(jax.jit(init, static_argnums=1)(keys[0], (6, 5)), each[0], rtol=1e-6)
    np.testing.assert_array_equal(init(keys[0], (6, 5)), each[0])
    assert len(np.unique(each)) == each.size


@pytest.mark.parametrize(
    ("wrong", "near"),
    [
        ("he_norml", "he_normal"),
        ("xavier", "xavier_normal"),
        ("lecun_norm", "lecun_normal"),
        ("zero", "zeros"),
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
    with pytest.raises(ValueError, match=r"shape=\(5,\) must have at least two axes"):
        initializers.he_normal()(KEY, (5,))
