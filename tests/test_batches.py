"""A random order of examples, and arrays cut into batches."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnjax import batches


@pytest.mark.parametrize("n", [1, 2, 1797, 65536, 65537])
def test_a_permutation_is_jaxs_bit_for_bit(n):
    key = jax.random.key(n)
    order = batches.permutation(key, n)
    np.testing.assert_array_equal(order, jax.random.permutation(key, n))
    assert order.dtype == jnp.int32


def test_it_is_so_in_a_batch_of_runs_in_double_precision_and_with_other_keys():
    keys = jax.random.split(jax.random.key(1), 4)
    together = jax.jit(jax.vmap(lambda key: batches.permutation(key, 700)))(keys)
    np.testing.assert_array_equal(together, jax.vmap(lambda key: jax.random.permutation(key, 700))(keys))
    with jax.enable_x64(True):
        np.testing.assert_array_equal(batches.permutation(keys[0], 700), together[0])
    other = jax.random.key(2, impl="rbg")
    np.testing.assert_array_equal(batches.permutation(other, 70), jax.random.permutation(other, 70))


def test_equal_keys_and_keys_that_differ_in_their_last_bits_are_ordered_stably():
    # 40 equal ones, 300 that agree in all bits but those which give way to the place, and the rest at random.
    draw = np.random.default_rng(0)
    keys = draw.integers(0, 2**32, 900, dtype=np.uint32)
    keys[:300] = (7 << 20) + draw.integers(0, 1024, 300, dtype=np.uint32)
    keys[500:540] = 12345
    draw.shuffle(keys)
    np.testing.assert_array_equal(batches._argsort(jnp.asarray(keys)), np.argsort(keys, stable=True))
    descending = jnp.arange(200, 0, -1, dtype=jnp.uint32)  # the sorted bits are the same for all: the worst case
    np.testing.assert_array_equal(batches._argsort(descending), jnp.arange(199, -1, -1))


def test_an_order_of_nothing_is_refused():
    with pytest.raises(ValueError, match="n=0 must be a positive integer"):
        batches.permutation(jax.random.key(0), 0)


def test_a_last_batch_is_filled_up_with_the_first_example():
    cut = batches.in_batches({"x": jnp.arange(10).reshape(5, 2)}, 2)["x"]
    np.testing.assert_array_equal(cut, [[[0, 1], [2, 3]], [[4, 5], [6, 7]], [[8, 9], [0, 1]]])
