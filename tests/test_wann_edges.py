"""Genomes as lists of genes: what matrices do, they do, child by child."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnjax import wann
from nnjax.wann.edges import EMPTY, EdgeGenome, gene
from nnjax.wann.genome import ABSENT, DISABLED, ENABLED, Space, from_dense, to_dense
from nnjax.wann.selection import Selection
from nnjax.wann.variation import Rates

# A list with room for all genes, one that gets full, one that is full from the start.
SPACES = (
    Space(3, 2, 16, edges=120),
    Space(2, 1, 9, activations=("tanh", "elu", "step"), edges=12),
    Space(2, 2, 12, edges=6),
)
ALL = Rates(0.3, 0.3, 0.1, 0.3, 0.1, 0.1)
UNOPTIMIZED = {"xla_backend_optimization_level": 0}  # compiles several times faster


def _dense(space):
    return dataclasses.replace(space, edges=None)


matrices_of = jax.jit(to_dense, static_argnames="space", compiler_options=UNOPTIMIZED)
_resize = jax.jit(wann.resize, static_argnames=("space", "max_nodes", "edges"), compiler_options=UNOPTIMIZED)


def _equal(first, second):
    jax.tree.map(np.testing.assert_array_equal, first, second)


@functools.cache
def program(space):
    """Grow a list by some mutations; it, one child as a list and as a matrix, the list as a matrix and back."""

    def grow(seed, age, rates, last):
        key = jax.random.key(seed)

        def step(number, genome):
            return wann.mutate(jax.random.fold_in(key, number), genome, space, rates)

        parent = jax.lax.fori_loop(0, age, step, wann.minimal(key, space))
        key = jax.random.fold_in(key, age)
        matrix = to_dense(parent, space)
        children = wann.mutate(key, parent, space, last), wann.mutate(key, matrix, _dense(space), last)
        return parent, *children, matrix, from_dense(matrix, space)

    return jax.jit(grow, compiler_options=UNOPTIMIZED)


rates = st.tuples(*[st.sampled_from([0.0, 0.01, 0.5, 1.0])] * 6).filter(any)


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 2**31 - 1), age=st.integers(0, 60), space=st.sampled_from(SPACES), last=rates)
def test_a_child_is_the_one_that_a_matrix_has(seed, age, space, last):
    grow = program(space)
    parent, child, expected, matrix, again = jax.tree.map(np.asarray, grow(seed, age, ALL, Rates(*last)))
    assert grow._cache_size() == 1, "compiled anew"
    for genome in (parent, child):
        wann.check(genome, space)
        assert [leaf.dtype for leaf in genome] == [np.int32, np.int8, np.int32]
    wann.check(matrix, _dense(space))
    _equal(again, parent)
    if (parent.genes == EMPTY).sum() >= 2:
        _equal(matrices_of(child, space), expected)
    else:
        _one_change_at_most(parent, child, space)


def _one_change_at_most(parent, child, space):
    """What a list with room for one gene or none may become."""
    room = (parent.genes == EMPTY).sum()
    assert child.hidden == parent.hidden, "a node takes two places"
    before, after = matrices_of(parent, space).connections, matrices_of(child, space).connections
    changed = np.argwhere(np.asarray(before != after))
    assert len(changed) + (child.activations != parent.activations).sum() <= 1
    for i, j in changed:
        kinds = {(DISABLED, ENABLED), (ENABLED, ABSENT)} | ({(ABSENT, ENABLED)} if room else set())
        assert (int(before[i, j]), int(after[i, j])) in kinds


MANY = 20_000


def _frequencies(observed, expected):
    """Counts of MANY draws as near to their probabilities as 4.5 standard errors."""
    expected = np.asarray(expected, float)
    error = np.abs(np.asarray(observed) / MANY - expected)
    assert sum(observed) == MANY
    assert (error <= 4.5 * np.sqrt(expected * (1 - expected) / MANY)).all(), (observed, expected * MANY)


def _children(parent, space, rates):
    copies = jax.tree.map(lambda leaf: np.broadcast_to(leaf, (MANY, *leaf.shape)), parent)
    many = jax.jit(lambda key, nets: wann.mutate_population(key, nets, space, rates), compiler_options=UNOPTIMIZED)
    return jax.tree.map(np.asarray, many(jax.random.key(2), copies))


@pytest.fixture(scope="module")
def small():
    """Two hidden nodes, 12 genes, one of them disabled between the nodes' own."""
    space = dataclasses.replace(SPACES[0], edges=14)
    mutate = functools.partial(wann.mutate, space=space, rates=Rates(0, 1, 0, 0))
    mutate = jax.jit(mutate, compiler_options=UNOPTIMIZED)
    parent = wann.minimal(jax.random.key(4), space, 0.5)
    for seed in range(2):
        parent = mutate(jax.random.key(seed), parent)
    parent = jax.tree.map(np.asarray, parent)
    assert (int(parent.hidden), (parent.genes < EMPTY).sum()) == (2, 12)
    return parent, space


def test_mutations_come_as_often_as_published_and_as_a_list_has_room(small):
    parent, space = small
    shares = np.asarray([0.2, 0.25, 0.05, 0.5])
    for room, possible in ((2, [1, 1, 1, 1]), (1, [1, 0, 1, 1]), (0, [0, 0, 1, 1])):
        short = dataclasses.replace(space, edges=12 + room)
        nets = _children(parent._replace(genes=parent.genes[: 12 + room]), short, Rates())
        wann.check(nets, short)
        count = (nets.genes < EMPTY).sum(1)
        enabled = np.asarray(wann.connection_count(nets)) > wann.connection_count(parent)
        node = nets.hidden == 3
        counts = [((count == 13) & ~node).sum(), node.sum(), ((count == 12) & enabled).sum()]
        counts.append(((nets.activations != parent.activations).any(1) & ~node).sum())
        expected = shares * possible
        _frequencies(counts, expected / expected.sum())


def test_a_connection_is_added_by_source_and_then_destination(small):
    parent, space = small
    nets = _children(parent, space, Rates(1, 0, 0, 0))
    connections = np.asarray(matrices_of(parent, space).connections)
    ends = {i: [j for j in (4, 5, 14, 15) if j > i and connections[i, j] == ABSENT] for i in range(6)}
    ends = {i: found for i, found in ends.items() if found}
    assert len(ends) > 3
    old = np.isin(nets.genes, parent.genes)
    assert ((~old).sum(1) == 1).all()
    new = nets.genes[~old]
    pairs = [(i, j) for i in ends for j in ends[i]]
    counts = [(new == int(gene(ENABLED, i, j))).sum() for i, j in pairs]
    _frequencies(counts, [1 / len(ends) / len(ends[i]) for i, _ in pairs])


# What matrices do


@pytest.fixture(scope="module")
def grown():
    """200 nets of 0 to 49 mutations as lists and as matrices."""
    space = SPACES[0]

    def grow(key, age):
        def step(number, genome):
            return wann.mutate(jax.random.fold_in(key, number), genome, space, ALL)

        return jax.lax.fori_loop(0, age, step, wann.minimal(key, space))

    keys = jax.random.split(jax.random.key(0), 200)
    nets = jax.tree.map(np.asarray, jax.jit(jax.vmap(grow))(keys, jnp.arange(200) % 50))
    assert nets.hidden.max() == space.max_hidden
    return nets, jax.tree.map(np.asarray, matrices_of(nets, space))


def test_lists_and_matrices_hold_the_same(grown):
    nets, matrices = grown
    space = SPACES[0]
    _equal(from_dense(matrices, space), nets)
    wann.check(nets, space)
    wann.check(matrices, _dense(space))
    np.testing.assert_array_equal(wann.connection_count(nets), wann.connection_count(matrices))
    np.testing.assert_array_equal(wann.node_count(nets, space), wann.node_count(matrices, space))
    np.testing.assert_array_equal(wann.alive(nets, space), wann.alive(matrices, space))
    for net in (nets, jax.tree.map(jnp.asarray, nets)):
        there = np.asarray(net.states != ABSENT)
        genes = np.asarray([np.asarray(part)[there] for part in (net.sources, net.destinations, net.states)])
        owner = np.broadcast_to(np.arange(200)[:, None], there.shape)[there]
        np.testing.assert_array_equal(matrices.connections[owner, genes[0], genes[1]], genes[2])
        assert there.sum() == np.count_nonzero(matrices.connections)
    with pytest.raises(ValueError, match=r"edges=12 must be at least \d+, the genes of the genome"):
        from_dense(matrices, dataclasses.replace(space, edges=12))
    with pytest.raises(ValueError, match="edges=None of the space must be the length of the lists"):
        from_dense(matrices, _dense(space))


def test_layers_and_outputs_are_those_of_matrices(grown):
    nets, matrices = grown
    space, x = SPACES[0], np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    weights = np.random.default_rng(1).normal(size=(16, 16)).astype(np.float32)
    for function in (
        wann.layers,
        lambda genome, space: wann.forward(genome, space, 0.5, x),
        lambda genome, space: wann.forward(genome, space, weights, x),
    ):
        one, other = (
            jax.jit(jax.vmap(functools.partial(function, space=s)), compiler_options=UNOPTIMIZED)(genomes)
            for genomes, s in ((nets, space), (matrices, _dense(space)))
        )
        np.testing.assert_array_equal(one, other)


def test_first_nets_are_the_same():
    for space in SPACES:
        for enabled in (0.0, 0.3, 1.0):
            nets, matrices = (wann.minimal(jax.random.key(1), s, enabled) for s in (space, _dense(space)))
            _equal(matrices_of(nets, space), matrices)
            assert nets.genes.shape == (space.edges,)


def test_more_slots_and_a_longer_list_leave_the_net_as_it_is(grown):
    nets, matrices = grown
    space = SPACES[0]
    for edges in (None, 130):
        wide = dataclasses.replace(space, max_nodes=20, edges=edges or space.edges)
        more = _resize(nets, space, 20, edges)
        wann.check(more, wide)
        _equal(matrices_of(more, wide), _resize(matrices, _dense(space), 20))
        one = jax.tree.map(lambda leaf: leaf[49], nets)
        _equal(_resize(one, space, 20, edges), jax.tree.map(lambda leaf: leaf[49], more))
    with pytest.raises(ValueError, match="edges=100 must be at least 120"):
        wann.resize(nets, space, 20, 100)
    with pytest.raises(ValueError, match="edges=100 is for lists of genes, and this space has none"):
        wann.resize(matrices, _dense(space), 20, 100)


def test_the_next_generation_is_the_same(grown):
    nets, matrices = grown
    space = dataclasses.replace(SPACES[0], edges=130)
    nets = jax.tree.map(np.asarray, _resize(nets, SPACES[0], 16, 130))
    mean, best = np.random.default_rng(1).normal(size=(2, 200)).astype(np.float32)

    @functools.partial(jax.jit, compiler_options=UNOPTIMIZED)
    def step(key, nets, matrices):
        return [
            wann.next_generation(key, genomes, mean, best, wann.connection_count(genomes), s, Selection())
            for genomes, s in ((nets, space), (matrices, _dense(space)))
        ]

    for seed in range(5):
        (nets, info), (matrices, other) = jax.tree.map(np.asarray, step(jax.random.key(seed), nets, matrices))
        _equal(info, other)
        _equal(matrices_of(nets, space), matrices)
    assert step._cache_size() == 1


def test_double_precision_and_traced_rates_change_no_dtype():
    space = SPACES[0]
    parent = wann.minimal(jax.random.key(0), space)
    with jax.enable_x64(True):
        for make in (
            lambda key: wann.mutate(key, parent, space),
            lambda key: wann.minimal(key, space),
            lambda key: from_dense(to_dense(parent, space), space),
        ):
            assert [leaf.dtype for leaf in jax.eval_shape(make, jax.random.key(0))] == [np.int32, np.int8, np.int32]
    lanes = jax.jit(
        jax.vmap(lambda rate, key: wann.mutate(key, parent, space, Rates(rate, 1 - rate, 0, 0))),
        compiler_options=UNOPTIMIZED,
    )
    nets = lanes(np.asarray([0.0, 1.0], np.float32), jax.random.split(jax.random.key(0), 2))
    assert nets.hidden[0] == 1


def test_the_largest_space_has_room_in_a_number():
    space = Space(3000, 2, 4096, edges=7000)
    net = wann.minimal(jax.random.key(0), space, 0.5)
    wann.check(net, space)
    mutate = functools.partial(wann.mutate, space=space, rates=Rates(0.5, 0.5, 0, 0))
    mutate = jax.jit(mutate, compiler_options=UNOPTIMIZED)
    for seed in range(5):
        net = mutate(jax.random.key(seed), net)
    wann.check(net, space)
    assert net.destinations.max() == 4095
    assert int(net.hidden) > 0


# What is refused


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"edges": 7}, "edges=7 must be at least 8, the genes from bias and inputs to outputs"),
        ({"edges": 8.0}, r"edges=8\.0 must be a whole number, at least 1"),
        ({"edges": True}, "edges=True must be a whole number"),
    ],
)
def test_a_list_that_cannot_be_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(SPACES[0], **fields)


def _list(*genes, hidden=2, codes=()):
    numbers = sorted(int(gene(state, i, j)) for state, i, j in genes)
    genes = np.asarray(numbers + [EMPTY] * (6 - len(numbers)), np.int32)
    activations = np.zeros(8, np.int8)
    for node, code in codes:
        activations[node] = code
    return EdgeGenome(genes, activations, np.int32(hidden))


def test_check_names_what_is_wrong():
    space = Space(2, 1, 8, edges=6)  # bias, 2 inputs, 2 of 4 hidden nodes, 1 output in slot 7
    good = _list((ENABLED, 0, 3), (ENABLED, 3, 4), (DISABLED, 1, 7), (ENABLED, 4, 7))
    wann.check(good, space)
    wann.check(jax.tree.map(lambda leaf: np.stack([leaf] * 2), good), space)
    for genome, message in (
        (_list((ENABLED, 4, 4)), "from slot 4 to slot 4 does not lead to a later slot"),
        (_list((ENABLED, 0, 1)), "from slot 0 to slot 1 leads into the bias or an input"),
        (_list((DISABLED, 3, 5)), "from slot 3 to slot 5 touches an empty slot"),
        (_list((ENABLED, 5, 7)), "from slot 5 to slot 7 touches an empty slot"),
        (_list((ENABLED, 1, 8)), "from slot 1 to slot 8 leads out of the slots"),
        (_list((ENABLED, 0, 3), (DISABLED, 0, 3)), "from slot 0 to slot 3 is both enabled and disabled"),
        (_list((ENABLED, 0, 3), (ENABLED, 0, 3)), "genes must ascend, each once"),
        (good._replace(genes=good.genes[::-1]), "genes must ascend"),
        (good._replace(genes=good.genes + EMPTY), f"genes hold {EMPTY + int(gene(1, 0, 3))}; expected 0 to {EMPTY}"),
        (good._replace(genes=good.genes[:5]), r"genes of shape \(5,\) must be \(6,\) for max_nodes=8, edges=6"),
        (good._replace(genes=good.genes.astype(float)), "genes must hold integers, not float64"),
        (good._replace(hidden=np.int32(5)), "hidden=5 must lie between 0 and 4"),
        (_list(codes=[(5, 1)]), "empty slots must be 0"),
    ):
        with pytest.raises(ValueError, match=message):
            wann.check(genome, space)
    genes = np.asarray([gene(ENABLED, 3, 4)] + [EMPTY] * 5, np.int32)
    with pytest.raises(ValueError, match="from slot 3 to slot 4 leads out of an output"):
        wann.check(EdgeGenome(genes, np.zeros(5, np.int8), np.int32(0)), Space(2, 2, 5, edges=6))
    with pytest.raises(ValueError, match="edges=None of the space"):
        wann.check(good, _dense(space))
