"""Selection by several objectives: fronts, crowding, order, and the next generation."""

import dataclasses
import functools

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from nnjax import wann
from nnjax.wann.genome import Space
from nnjax.wann.selection import Selection
from nnjax.wann.variation import Rates

SHAPES = ((12, 2), (12, 3), (1, 2))  # few, so that little is compiled
UNOPTIMIZED = {"xla_backend_optimization_level": 0}  # compiles several times faster
fronts, crowding, order = (
    jax.jit(function, compiler_options=UNOPTIMIZED) for function in (wann.fronts, wann.crowding, wann.order)
)

# Few whole numbers, so that there are ties; and what a net that overflows returns.
ties = st.one_of(*[hnp.arrays(np.float32, shape, elements=st.integers(0, 4)) for shape in SHAPES])
values = st.one_of(*[hnp.arrays(np.float32, shape, elements=st.integers(-(2**20), 2**20)) for shape in SHAPES])
spoilt = hnp.arrays(np.float32, SHAPES[0], elements=st.sampled_from([0, 1, 2, 3, np.nan, np.inf, -np.inf]))


def _peeled(objectives):
    """Fronts, one after the other, by comparing all pairs that are left."""
    left, ranks, rank = {*range(len(objectives))}, np.full(len(objectives), -1), 0
    while left:
        front = {i for i in left if not any(_dominates(objectives[j], objectives[i]) for j in left)}
        ranks[[*front]] = rank
        left, rank = left - front, rank + 1
    return ranks


def _dominates(a, b):
    return all(a >= b) and any(a > b)


def _distances(objectives, ranks):
    """Crowding distances as Deb et al. (2002) write them down, front by front and objective by objective."""
    distance = np.zeros(len(objectives))
    for rank in {*ranks}:
        front = [i for i in range(len(objectives)) if ranks[i] == rank]
        for column in objectives.T.astype(float):
            row = sorted(front, key=lambda i: column[i])
            distance[row[0]] = distance[row[-1]] = np.inf
            width = column[row[-1]] - column[row[0]]
            for before, i, after in zip(row, row[1:], row[2:], strict=False):
                distance[i] += (column[after] - column[before]) / width if width > 0 else 0
    return distance


@settings(max_examples=100, deadline=None)
@given(objectives=st.one_of(ties, values))
def test_fronts_and_crowding_equal_the_obvious_ones(objectives):
    ranks = np.asarray(fronts(objectives))
    np.testing.assert_array_equal(ranks, _peeled(objectives))
    assert ranks.dtype == np.int32
    measured = np.asarray(crowding(objectives, ranks))
    assert measured.dtype == np.float32
    np.testing.assert_allclose(measured, _distances(objectives, ranks), rtol=1e-4, atol=1e-5)
    best = np.asarray(order(objectives))
    assert sorted(best) == [*range(len(objectives))]
    expected = sorted(range(len(objectives)), key=lambda i: (ranks[i], -measured[i], i))
    np.testing.assert_array_equal(best, expected)


@settings(max_examples=60, deadline=None)
@given(objectives=spoilt)
def test_rows_that_are_not_finite_stand_behind_all_others(objectives):
    finite = np.isfinite(objectives).all(1)
    ranks = np.asarray(fronts(objectives))
    replaced = np.where(finite[:, None], objectives, -1)
    np.testing.assert_array_equal(ranks, _peeled(replaced))
    distances = np.asarray(crowding(objectives, ranks))
    assert not np.isnan(distances).any()
    assert (distances[~finite] == 0).all()
    np.testing.assert_allclose(distances[finite], _distances(objectives[finite], ranks[finite]), rtol=1e-5)
    assert finite[np.asarray(order(objectives))[: finite.sum()]].all()
    together = np.asarray(crowding(objectives, np.zeros_like(ranks)))
    np.testing.assert_allclose(together[finite], _distances(objectives[finite], ranks[finite] * 0), rtol=1e-5)


def test_crowding_worked_by_hand():
    # Ranges are 4 and 8: the second has (3 - 0)/4 + (8 - 2)/8, which 1/max - min in place of the range would not give.
    front, one = np.asarray([[0, 8], [1, 6], [3, 2], [4, 0]], np.float32), np.zeros(4, np.int32)
    np.testing.assert_allclose(crowding(front, one), [np.inf, 3 / 4 + 6 / 8, 3 / 4 + 6 / 8, np.inf])
    moved = front * np.float32(0.01) + np.float32(100)
    np.testing.assert_allclose(crowding(moved, one)[1:3], [1.5, 1.5], rtol=1e-3)
    np.testing.assert_array_equal(crowding(np.ones_like(front), one), [np.inf, 0, 0, np.inf])
    largest = np.finfo(np.float32).max
    far = np.asarray([[-largest, largest], [0, 0], [0, 0], [largest, -largest]], np.float32)
    np.testing.assert_allclose(crowding(far, one), [np.inf, 1, 1, np.inf])
    # Two fronts of two: all of them are ends.
    np.testing.assert_array_equal(crowding(front, np.asarray([0, 1, 0, 1], np.int32)), np.full(4, np.inf))


def test_sorting_takes_float64_and_lanes():
    objectives = np.random.default_rng(0).integers(0, 5, (3, 12, 2)).astype(np.float32)
    lanes = jax.jit(jax.vmap(wann.order), compiler_options=UNOPTIMIZED)(objectives)
    np.testing.assert_array_equal(lanes, [order(one) for one in objectives])
    with jax.enable_x64(True):
        close = np.asarray([[0, 1], [1e-12, 1]])
        ranks = fronts(close)
        assert ranks.dtype == np.int32
        np.testing.assert_array_equal(ranks, [1, 0])
        assert jax.eval_shape(wann.crowding, close, ranks).dtype == np.float64
        assert jax.eval_shape(wann.order, close).dtype == np.int32
    for wrong in (np.zeros(3), np.zeros((0, 2)), np.zeros((3, 0))):
        with pytest.raises(ValueError, match=r"objectives of shape \(.*\) must be \(n, m\)"):
            wann.fronts(wrong)
    with pytest.raises(ValueError, match=r"ranks of shape \(3,\) must be \(2,\)"):
        wann.crowding(np.zeros((2, 2)), np.zeros(3, int))


# The next generation

SPACE, SIZE = Space(3, 2, 12), 40


@pytest.fixture(scope="module")
def generation():
    """Genomes that tell who they are by their genes, and returns; one is NaN, one infinite, both of few connections."""
    keys = jax.random.split(jax.random.key(0), SIZE)
    population = jax.vmap(lambda key: wann.minimal(key, SPACE))(keys)
    grow = jax.jit(lambda key, nets: wann.mutate_population(key, nets, SPACE, Rates(0.5, 0.5, 0, 0)))
    for seed in range(5):
        population = grow(jax.random.key(seed), population)
    population = jax.tree.map(np.asarray, population)
    assert len(np.unique(population.connections.reshape(SIZE, -1), axis=0)) == SIZE
    rng = np.random.default_rng(1)
    mean, best = rng.normal(size=(2, SIZE)).astype(np.float32)
    mean[[3, 7]], best[[3, 7]] = [np.nan, np.inf], [np.nan, np.inf]
    return population, mean, best, np.asarray(wann.connection_count(population))


CONFIG = Selection(tournament=2)


@pytest.fixture(scope="module")
def lanes(generation):
    """2000 next generations of the same population as one program; the mutation is always a new node."""
    config = dataclasses.replace(CONFIG, rates=Rates(0, 1, 0, 0))
    keys = jax.random.split(jax.random.key(1), 2000)
    many = jax.vmap(lambda key, *given: wann.next_generation(key, *given, SPACE, config), (0, *[None] * 4))
    return jax.jit(many, compiler_options=UNOPTIMIZED)(keys, *generation)


def test_elites_are_the_best_and_unchanged(generation, lanes):
    population, mean, best, count = generation
    nets, info = jax.tree.map(np.asarray, lanes)
    # 40 less a fifth are 32, a fifth of which are 6.
    assert (CONFIG.survivors(SIZE), CONFIG.elites(SIZE)) == (32, 6)
    np.testing.assert_array_equal(info.parents[:, :6], info.order[:, :6])
    for leaf, old in zip(nets, population, strict=True):
        np.testing.assert_array_equal(leaf[:, :6], old[info.parents[:, :6]])
    np.testing.assert_array_equal(nets.hidden[:, 6:], population.hidden[info.parents[:, 6:]] + 1)
    few = np.asarray(wann.order(np.stack([mean, 1 / np.maximum(count, 1).astype(np.float32)], 1)))
    top = np.asarray(wann.order(np.stack([mean, best], 1)))
    by_few, by_best = ((info.order == ranked).all(1) for ranked in (few, top))
    assert (by_few ^ by_best).all()
    assert abs(by_few.mean() - 0.8) <= 4.5 * np.sqrt(0.8 * 0.2 / 2000)
    assert {*few[-2:]} == {*top[-2:]} == {3, 7}, "NaN and infinite returns come last"
    assert np.nanargmax(np.where(np.isfinite(mean), mean, np.nan)) in few[:2], "the best mean is an end of the front"


def test_parents_win_tournaments_and_the_worst_have_no_children(lanes):
    _, info = jax.tree.map(np.asarray, lanes)
    places = np.argsort(info.order, 1)
    ranks = np.take_along_axis(places, info.parents[:, 6:], 1).ravel()
    assert ranks.max() < 32
    # The lowest of 4 draws from 0..31.
    above = (32 - np.arange(33)) / 32
    expected = above[:-1] ** 4 - above[1:] ** 4
    share = np.bincount(ranks, minlength=32) / len(ranks)
    assert (np.abs(share - expected) <= 4.5 * np.sqrt(expected * (1 - expected) / len(ranks))).all()


traces = []


@functools.partial(jax.jit, compiler_options=UNOPTIMIZED)
def step(key, population, mean, best, connections, chance=0.8):
    traces.append(1)
    config = dataclasses.replace(CONFIG, by_connections=chance)
    return wann.next_generation(key, population, mean, best, connections, SPACE, config)


def test_one_program_serves_all_generations_and_every_seed_gives_the_same(generation):
    population, *returns, connections = generation
    traces.clear()
    step.clear_cache()
    for seed in range(3):
        before = jax.tree.map(np.asarray, population)
        population, info = step(jax.random.key(seed), before, *returns, connections)
        wann.check(population, SPACE)
        again, _ = step(jax.random.key(seed), before, *returns, connections)
        jax.tree.map(np.testing.assert_array_equal, again, population)
        parents = jax.tree.map(lambda leaf, info=info: leaf[info.parents], before)
        changed = [
            any((a[i] != b[i]).any() for a, b in zip(jax.tree.map(np.asarray, population), parents, strict=True))
            for i in range(SIZE)
        ]
        assert changed == [False] * 6 + [True] * 34
        connections = np.asarray(wann.connection_count(population))
    assert len(traces) == 1


def test_a_net_without_connections_counts_as_one_of_one(generation):
    population, _, best, count = generation
    for fewest in (0, 1):
        connections = np.where(np.arange(SIZE) == 5, fewest, 2 + count).astype(count.dtype)
        _, info = step(jax.random.key(0), population, np.zeros_like(best), best, connections, 1.0)
        assert info.order[0] == 5


def test_the_chance_of_an_objective_may_be_traced(generation):
    never, always = (np.asarray(step(jax.random.key(0), *generation, chance)[1].order) for chance in (0.0, 1.0))
    assert (never != always).any()


def test_bad_numbers_are_refused(generation):
    population, mean, best, count = generation
    for fields, message in (
        ({"tournament": 0}, "tournament=0 must be a whole number, at least 1"),
        ({"tournament": 2.5}, "tournament=2.5 must be a whole number"),
        ({"elite": 1.0}, r"elite=1\.0 must be a share"),
        ({"cull": -0.1}, r"cull=-0\.1 must be a share"),
        ({"by_connections": 2}, "by_connections=2 must be a probability"),
        ({"rates": Rates(add_node=-1)}, "add_node=-1 must be a rate"),
    ):
        with pytest.raises(ValueError, match=message):
            Selection(**fields)
    empty = jax.tree.map(lambda leaf: leaf[:0], population)
    with pytest.raises(ValueError, match="population=0 must be at least 1 genome"):
        wann.next_generation(jax.random.key(0), empty, mean, best, count, SPACE, CONFIG)
    with pytest.raises(ValueError, match=r"fitness_max of shape \(39,\) must be \(40,\)"):
        wann.next_generation(jax.random.key(0), population, mean, best[1:], count, SPACE, CONFIG)
    assert Selection(elite=0.29, cull=0).elites(100) == 29
    assert (Selection().survivors(1), Selection().elites(1)) == (1, 0)
