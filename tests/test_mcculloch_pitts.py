"""Threshold units with fixed weights: every gate's truth table, and a net for every Boolean function."""

import operator

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnjax.classical import mcculloch_pitts as units

MEANING = {
    "and": operator.and_,
    "or": operator.or_,
    "nand": lambda a, b: not (a and b),
    "nor": lambda a, b: not (a or b),
    "implies": lambda a, b: (not a) or b,
    "equivalent": operator.eq,
    "xor": operator.ne,
    "not": operator.not_,
}


def tables(n):
    """Every truth table of n inputs, (2^2^n, 2^n)."""
    return np.arange(2 ** (2**n))[:, None] >> np.arange(2**n)[None, :] & 1


def test_inputs_come_in_the_order_of_a_truth_table():
    assert units.all_inputs(2).tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]
    assert units.all_inputs(1).tolist() == [[0], [1]]
    assert len(np.unique(units.all_inputs(4), axis=0)) == 16


@pytest.mark.parametrize("name", units.GATES)
def test_gates_are_what_python_says(name):
    n = 1 if name == "not" else 2
    patterns = units.all_inputs(n)
    expected = [int(MEANING[name](*(bool(bit) for bit in row))) for row in np.asarray(patterns)]
    assert units.apply(units.gate(name), patterns)[:, 0].tolist() == expected
    one_by_one = [units.apply(units.gate(name), row)[0] for row in patterns]
    assert one_by_one == expected


def test_the_table_of_gates_is_complete():
    assert set(units.GATES) == set(MEANING)


def test_only_equivalence_and_xor_need_two_layers():
    assert {name for name in units.GATES if len(units.gate(name)) == 2} == {"equivalent", "xor"}


@pytest.mark.parametrize("n", [1, 2, 3])
def test_every_boolean_function_has_a_net(n):
    wanted = tables(n)
    found = jax.jit(jax.vmap(lambda table: units.apply(units.synthesize(table), units.all_inputs(n))[:, 0]))(wanted)
    assert found.shape == (2 ** (2**n), 2**n)
    np.testing.assert_array_equal(found, wanted)


def test_random_functions_of_six_inputs_have_a_net():
    wanted = np.random.default_rng(0).integers(0, 2, (5, 64))
    for table in wanted:
        np.testing.assert_array_equal(units.apply(units.synthesize(table), units.all_inputs(6))[:, 0], table)
    hidden, output = units.synthesize(wanted[0].astype(bool))
    assert hidden.weights.shape == (6, 64)
    assert output.weights.shape == (64, 1)


def test_an_input_that_is_always_on_replaces_the_threshold():
    rng = np.random.default_rng(0)
    layer = units.Layer(rng.normal(size=(5, 4)), rng.normal(size=4))
    x = rng.normal(size=(200, 5)).astype(np.float32)
    plain = units.fire(layer, x)
    assert 0.1 < plain.mean() < 0.9
    biased = units.with_bias(layer)
    np.testing.assert_allclose(biased.weights[0], -layer.threshold, rtol=1e-6)
    assert not biased.threshold.any()
    np.testing.assert_array_equal(units.fire(biased, units.always_on(x)), plain)
    # and the sum that is compared with zero is x W + b, b = -threshold
    np.testing.assert_array_equal(plain, x @ layer.weights - layer.threshold >= 0)


def test_a_unit_fires_at_its_threshold():
    layer = units.Layer(jnp.array([[1.0], [2.0]]), jnp.array([3.0]))
    assert units.fire(layer, jnp.array([1.0, 1.0])) == 1
    assert units.fire(layer, jnp.array([0.0, 1.0])) == 0


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_dtypes_and_one_compilation(dtype):
    with jax.enable_x64(True):
        traces = []

        @jax.jit
        def outputs(table):
            traces.append(1)
            return units.apply(units.synthesize(table, dtype), units.all_inputs(2, dtype))[:, 0]

        for row in tables(2)[:4]:
            found = outputs(row)
            assert found.dtype == dtype
            np.testing.assert_array_equal(found, row)
        assert len(traces) == 1
        assert units.gate("and", dtype)[0].weights.dtype == dtype
        assert units.always_on(np.zeros((2, 3), dtype)).dtype == dtype


def test_bad_input_is_named():
    with pytest.raises(ValueError, match=r"gate 'nandd' is not one of .* did you mean 'nand'"):
        units.gate("nandd")
    with pytest.raises(ValueError, match=r"x has shape \(4, 3\); the layer takes \(n, 2\)"):
        units.apply(units.gate("and"), np.ones((4, 3)))
    with pytest.raises(ValueError, match=r"outputs has shape \(6,\)"):
        units.synthesize([0, 1, 0, 1, 1, 1])
    with pytest.raises(ValueError, match=r"outputs has shape \(1,\)"):
        units.synthesize([1])
    with pytest.raises(ValueError, match=r"outputs=\[0, 2, 0, 1\]"):
        units.synthesize([0, 2, 0, 1])
    for n in (0, 21):
        with pytest.raises(ValueError, match=f"n={n}"):
            units.all_inputs(n)


def test_integer_weights_take_fractions():
    layer = units.Layer(np.array([[1], [1]]), np.array([1]))
    np.testing.assert_array_equal(units.fire(layer, [[0.5, 0.6], [0.5, 0.4]]), [[1.0], [0.0]])
