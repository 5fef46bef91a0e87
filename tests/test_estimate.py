"""Work counted by hand, groups against every partition, memory of the right size."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nnjax import estimate
from nnjax.estimate import MACHINES, Machine, Work, count_work, group, peak_bytes, work_of


def shaped(*shape, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(shape, dtype)


X, W = shaped(32, 100), shaped(100, 50)
MATMUL = 2.0 * 32 * 100 * 50


@pytest.mark.parametrize(
    ("function", "arguments", "operations"),
    [
        (jnp.matmul, (X, W), MATMUL),
        (jnp.dot, (shaped(100), shaped(100)), 200.0),
        (jnp.matmul, (shaped(5, 32, 100), shaped(5, 100, 50)), 5 * MATMUL),  # batched
        (jax.vmap(jnp.matmul, (None, 0)), (X, shaped(5, 100, 50)), 5 * MATMUL),
        (lambda x, y: jnp.einsum("abc,dcb->ad", x, y), (shaped(3, 4, 5), shaped(6, 5, 4)), 2.0 * 3 * 6 * 20),
    ],
)
def test_products_of_matrices_are_exact(function, arguments, operations):
    work = count_work(function, *arguments)
    products = [e for e in jax.make_jaxpr(function)(*arguments).jaxpr.eqns if e.primitive.name == "dot_general"]
    assert len(products) == 1
    moved = work.operations - operations  # a transposition of the result moves each of its numbers once
    assert moved in (0, np.prod(jax.eval_shape(function, *arguments).shape))
    if function in (jnp.matmul, jnp.dot):
        assert work == Work(operations, 1.0)


@pytest.mark.parametrize(("groups", "stride", "side"), [(1, 1, 8), (1, 2, 4), (2, 1, 8), (6, 1, 8)])
def test_convolutions_are_exact(groups, stride, side):
    def convolve(x, kernel):
        return jax.lax.conv_general_dilated(
            x,
            kernel,
            (stride, stride),
            "SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=groups,
        )

    work = count_work(convolve, shaped(2, 8, 8, 6), shaped(3, 5, 6 // groups, 12))
    assert work == Work(2.0 * (2 * side * side * 12) * (3 * 5 * 6 // groups), 1.0)
    other = jax.lax.conv(jnp.ones((2, 6, 8, 8)), jnp.ones((12, 6, 3, 5)), (1, 1), "SAME")  # channels first
    work = count_work(lambda x, k: jax.lax.conv(x, k, (1, 1), "SAME"), jnp.ones((2, 6, 8, 8)), jnp.ones((12, 6, 3, 5)))
    assert work.operations == 2.0 * other.size * 90


def test_a_loop_counts_its_length_and_loops_multiply():
    def loop(x, w):
        return jax.lax.scan(lambda c, _: (c @ w, None), x, length=7)[0]

    def nested(x, w):
        return jax.lax.scan(lambda c, _: (loop(c, w), None), x, length=3)[0]

    x, w = shaped(8, 8), shaped(8, 8)
    assert count_work(loop, x, w) == Work(7 * 1024.0, 7.0)
    assert count_work(nested, x, w) == Work(21 * 1024.0, 21.0)
    fori = count_work(lambda x, w: jax.lax.fori_loop(0, 5, lambda _, c: c @ w, x), x, w)  # a scan, with a counter
    assert fori.operations // 1024 == 5
    assert fori.operations % 1024 < 100


def test_a_loop_of_unknown_length_counts_one_round():
    work = count_work(lambda x: jax.lax.while_loop(lambda c: c.sum() < 9, lambda c: c @ c, x), shaped(8, 8))
    assert work.operations // 1024 == 1
    assert work.operations % 1024 < 100


def test_a_branch_counts_its_cheaper_side():
    def branch(flag, x, w):
        return jax.lax.cond(flag, lambda: (x @ w) @ w, lambda: x @ w)

    square = 2.0 * 8**3
    for flag in (shaped(dtype=bool), True):
        work = count_work(branch, flag, shaped(8, 8), shaped(8, 8))
        assert 0 <= work.operations - square <= 2
    switch = count_work(
        lambda i, x: jax.lax.switch(i, [lambda: x, lambda: x @ x, lambda: x @ x @ x]),
        shaped(dtype=jnp.int32),
        shaped(8, 8),
    )
    assert switch.operations < 10


def test_nested_jit_custom_rules_and_checkpoints_are_looked_into():
    inner = jax.jit(jnp.matmul)
    assert count_work(jax.jit(lambda x, w: jax.jit(inner)(x, w)), X, W) == Work(MATMUL, 1.0)
    assert count_work(jax.checkpoint(inner), X, W) == Work(MATMUL, 1.0)

    @jax.custom_jvp
    def custom(x, w):
        return x @ w

    custom.defjvp(lambda p, t: (custom(*p), custom(t[0], p[1])))
    assert count_work(custom, X, W) == Work(MATMUL, 1.0)


def test_the_gradient_of_a_product_costs_one_more_for_each_argument():
    def loss(x, w):
        return jnp.sum((x @ w) ** 2)

    elementwise = 20 * 32 * 100
    for arguments, products in ((1, 2), ((0, 1), 3)):
        work = count_work(jax.grad(loss, arguments), X, W)
        assert 0 <= work.operations - products * MATMUL < elementwise


def test_keyword_arguments_and_a_given_trace():
    assert count_work(lambda x, *, times: x * times, X, times=2.0).operations == 3200
    assert work_of(jax.make_jaxpr(jnp.matmul)(X, W)) == count_work(jnp.matmul, X, W)


def test_decompositions_cost_the_cube_of_the_side():
    small, large = (count_work(jnp.linalg.eigh, shaped(n, n)).operations for n in (20, 40))
    assert large / small == pytest.approx(8, rel=0.1)
    assert small >= 10 * 20**3


def test_seconds_of_a_lane():
    machine = Machine(compile_seconds=1.0, rate=1e6, overhead=1e-3)
    assert Work(2e6, 100.0).seconds(machine) == pytest.approx(2.1)
    assert Work(2e6, 100.0).seconds(machine, width=10) == pytest.approx(2.01)
    assert estimate.machine() == MACHINES["cpu"]
    assert estimate.machine("tpu") == MACHINES["tpu"]
    assert estimate.machine("another accelerator") == MACHINES["gpu"]


# Groups


def cheapest(costs, lanes, groups):
    best = np.inf
    for cuts in itertools.combinations(range(1, len(costs)), groups - 1):
        edges = [0, *cuts, len(costs)]
        total = sum(costs[b - 1] * sum(lanes[a:b]) for a, b in itertools.pairwise(edges))
        best = min(best, total)
    return best


@given(st.data())
def test_groups_are_the_cheapest_of_all_partitions(data):
    m = data.draw(st.integers(1, 7))
    costs = sorted(data.draw(st.lists(st.integers(1, 100), min_size=m, max_size=m)))
    lanes = data.draw(st.lists(st.integers(1, 9), min_size=m, max_size=m))
    for groups in range(1, m + 1):
        ends, seconds = group(costs, lanes, groups)
        assert seconds == cheapest(costs, lanes, groups)
        assert len(ends) == groups
        assert ends[-1] == m - 1
        assert list(ends) == sorted(set(ends))
        starts = [0, *(end + 1 for end in ends[:-1])]
        assert seconds == sum(costs[e] * sum(lanes[s : e + 1]) for s, e in zip(starts, ends, strict=True))


def test_groups_by_hand():
    assert group([1, 2, 10], [5, 5, 5], 2) == ((1, 2), 70.0)
    assert group([1, 9, 10], [5, 5, 5], 2) == ((0, 2), 105.0)
    assert group([1, 9, 10], [5, 5, 5], 3) == ((0, 1, 2), 100.0)
    assert group([1, 9, 10], [5, 5, 5], 1) == ((2,), 150.0)


@pytest.mark.parametrize("groups", [0, -1, 4])
def test_no_more_groups_than_sizes(groups):
    with pytest.raises(ValueError, match="between 1 and the number of sizes, 3"):
        group([1, 2, 3], [1, 1, 1], groups)


# Memory


def test_peak_bytes_is_the_largest_step():
    def chain(x, w):
        hidden = x @ w  # (32, 50), from arguments that lanes share
        return (hidden * 2).sum()

    assert peak_bytes(jax.make_jaxpr(jnp.matmul)(X, W)) == 4 * 32 * 50
    assert peak_bytes(jax.make_jaxpr(chain)(X, W)) == 2 * 4 * 32 * 50
    with jax.enable_x64(True):
        assert (
            peak_bytes(jax.make_jaxpr(jnp.matmul)(shaped(32, 100, dtype=float), shaped(100, 50, dtype=float)))
            == 8 * 1600
        )
    assert peak_bytes(jax.make_jaxpr(lambda x: x)(X)) == 0


def test_peak_bytes_grows_with_the_batch_and_not_with_the_length_of_a_loop():
    def loop(length):
        return lambda x, w: jax.lax.scan(lambda c, _: (jnp.tanh(c @ w), None), x, length=length)[0]

    def peak(function, n):
        return peak_bytes(jax.make_jaxpr(function)(shaped(n, 64), shaped(64, 64)))

    assert peak(loop(3), 32) == peak(loop(300), 32)
    assert peak(loop(3), 64) == pytest.approx(2 * peak(loop(3), 32), rel=0.5)
    assert peak(loop(3), 32) >= 2 * 4 * 32 * 64


@pytest.mark.parametrize("name", ["eigvalsh", "svdvals", "cholesky", "inv"])
def test_a_decomposition_is_seen_inside_loops_and_branches(name):
    def lane(x):
        def body(carry, _):
            found = getattr(jnp.linalg, name)(carry)
            return carry, jax.lax.cond(found.sum() > 0, jnp.sum, lambda f: -jnp.sum(f), found)

        return jax.lax.scan(body, x, length=2)[1]

    assert estimate.decomposes(jax.make_jaxpr(lane)(jnp.eye(3)))
    assert not estimate.decomposes(jax.make_jaxpr(lambda x: x @ x)(jnp.eye(3)))
