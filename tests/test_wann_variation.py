"""Variation of genomes: exactly one mutation a child, the right one, as often as asked for."""

import functools

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnjax import wann
from nnjax.wann.genome import ABSENT, DISABLED, ENABLED, Space
from nnjax.wann.variation import Rates

SPACES = (Space(3, 2, 16), Space(2, 1, 9, activations=("tanh", "elu", "step")), Space(1, 3, 5))
ALL = Rates(0.3, 0.3, 0.1, 0.3, 0.1, 0.1)
KINDS = Rates._fields
UNOPTIMIZED = {"xla_backend_optimization_level": 0}  # compiles several times faster


def explanations(parent, child, space):
    """Every single mutation, by its name in `Rates`, that makes the child of the parent."""
    found = []
    genes, codes = parent.connections, parent.activations
    before, after = genes[genes != child.connections], child.connections[genes != child.connections]
    changed = np.flatnonzero(codes != child.activations)
    if child.hidden == parent.hidden:
        if len(changed) == 0 and len(before) == 1:
            names = {
                (ABSENT, ENABLED): "add_connection",
                (DISABLED, ENABLED): "enable",
                (ENABLED, ABSENT): "remove_connection",
            }
            found += [names[before[0], after[0]]] if (before[0], after[0]) in names else []
        if len(changed) == 1 and len(before) == 0 and child.activations[changed[0]] in space.codes:
            node = changed[0]
            found += ["activation"] * bool(space.inputs < node <= space.inputs + parent.hidden)
            found += ["output_activation"] * bool(node >= space.first_output)
    if child.hidden == parent.hidden + 1:
        found += ["add_node"] * sum(_splits(parent, child, space, *gene) for gene in np.argwhere(genes == ENABLED))
    return found


def _splits(parent, child, space, source, destination):
    """Whether the child has a node on this connection."""
    genes, order, slot = _split(parent, space, source, destination)
    codes = parent.activations[order].copy()
    codes[slot] = child.activations[slot]
    same = np.array_equal(genes, child.connections) and np.array_equal(codes, child.activations)
    return same and child.activations[slot] in space.codes


def _split(parent, space, source, destination):
    """Genes with a node on this connection, the parent's slots in the child's order, and the node's slot."""
    slot = max(source, space.inputs) + 1
    empty = space.first_output - 1  # an empty slot of the parent, which the new node takes away
    order = [i for i in range(space.max_nodes) if i != empty]
    order.insert(slot, empty)
    genes, destination = parent.connections[np.ix_(order, order)], order.index(destination)
    genes[source, destination], genes[source, slot], genes[slot, destination] = DISABLED, ENABLED, ENABLED
    return genes, order, slot


@functools.cache
def program(space):
    """Grow a net by some mutations and give it one child; compiled once for nets of all sizes."""

    def grow(seed, age, rates, last):
        key = jax.random.key(seed)

        def step(number, genome):
            return wann.mutate(jax.random.fold_in(key, number), genome, space, rates)

        parent = jax.lax.fori_loop(0, age, step, wann.minimal(key, space))
        return parent, wann.mutate(jax.random.fold_in(key, age), parent, space, last)

    return jax.jit(grow, compiler_options=UNOPTIMIZED)


rates = st.tuples(*[st.sampled_from([0.0, 0.01, 0.5, 1.0])] * 6).filter(any)


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 2**31 - 1), age=st.integers(0, 60), space=st.sampled_from(SPACES), last=rates)
def test_a_child_differs_by_exactly_one_mutation_that_was_asked_for(seed, age, space, last):
    grow = program(space)
    parent, child = jax.tree.map(np.asarray, grow(seed, age, ALL, Rates(*last)))
    wann.check(parent, space)
    wann.check(child, space)
    assert grow._cache_size() == 1, "compiled anew"
    assert [leaf.dtype for leaf in child] == [np.int8, np.int8, np.int32]
    found = explanations(parent, child, space)
    possible = _possible(parent, space)
    asked = {name for name, rate in zip(KINDS, last, strict=True) if rate > 0}
    if asked & possible:
        assert len(found) == 1, "exactly one explanation"
        assert found[0] in asked & possible
    else:
        jax.tree.map(np.testing.assert_array_equal, parent, child)


def _possible(genome, space):
    """Names of the mutations that a genome can have, counted pair by pair."""
    nodes = [i for i in range(space.max_nodes) if i <= space.inputs + genome.hidden or i >= space.first_output]
    free = [
        (i, j) for i in nodes for j in nodes
        if i < j and i < space.first_output and j > space.inputs and genome.connections[i, j] == ABSENT
    ]  # fmt: skip
    enabled = (genome.connections == ENABLED).any()
    return {
        name
        for name, can in {
            "add_connection": free,
            "add_node": enabled and genome.hidden < space.max_hidden,
            "enable": (genome.connections == DISABLED).any(),
            "activation": genome.hidden,
            "remove_connection": enabled,
            "output_activation": True,
        }.items()
        if can
    }


MANY = 20_000


def _frequencies(observed, expected):
    """Counts of MANY draws as near to their probabilities as 4.5 standard errors; what cannot be never is."""
    expected = np.asarray(expected, float)
    assert abs(expected.sum() - 1) < 1e-9
    error = np.abs(np.asarray(observed) / MANY - expected)
    assert (error <= 4.5 * np.sqrt(expected * (1 - expected) / MANY)).all(), (observed, expected * MANY)


@pytest.fixture(scope="module")
def children():
    """Two parents, one small and one without an empty slot, each with its children by the published rates."""
    parents = {"small": _small(SPACES[0]), "full": _full(SPACES[0])}
    return {name: (parent, _made(Rates(), parent, SPACES[0])) for name, parent in parents.items()}


@functools.cache
def _many(space):
    return jax.jit(
        lambda key, genomes, rates: wann.mutate_population(key, genomes, space, rates), compiler_options=UNOPTIMIZED
    )


def _made(rates, parent, space):
    """Many children of one parent."""
    copies = jax.tree.map(lambda leaf: np.broadcast_to(leaf, (MANY, *leaf.shape)), parent)
    return jax.tree.map(np.asarray, _many(space)(jax.random.key(2), copies, Rates(*rates)))


def _small(space):
    """4 hidden nodes, 3 of the 6 possible connections among them."""
    genome = jax.tree.map(np.array, wann.minimal(jax.random.key(7), space))
    genome.connections[[0, 1, 2, 4, 4, 5, 7], [4, 5, 6, 5, 7, 6, 14]] = [1, 2, 1, 1, 2, 1, 1]
    genome.activations[4:8] = [0, 3, 4, 9]
    genome = genome._replace(hidden=np.int32(4))
    wann.check(genome, space)
    return genome


def _full(space):
    genome = _small(space)
    genes = genome.connections.copy()
    genes[0, 8:14] = ENABLED
    genome = genome._replace(connections=genes, hidden=np.int32(10))
    wann.check(genome, space)
    return genome


def test_mutations_come_as_often_as_published(children):
    space = SPACES[0]
    parent, nets = children["small"]
    kinds = [explanations(parent, jax.tree.map(lambda leaf, i=i: leaf[i], nets), space) for i in range(2000)]
    assert {len(found) for found in kinds} == {1}
    # The kinds of all children, told by what changed in number.
    genes = nets.connections
    enabled, exist = (genes == ENABLED).sum((1, 2)), (genes != ABSENT).sum((1, 2))
    start = (parent.connections == ENABLED).sum(), (parent.connections != ABSENT).sum()
    node = nets.hidden == 5
    connection = ~node & (exist == start[1] + 1)
    enable = (exist == start[1]) & (enabled == start[0] + 1)
    other = (exist == start[1]) & (enabled == start[0])
    counts = [connection.sum(), node.sum(), enable.sum(), other.sum()]
    assert sum(counts) == MANY
    _frequencies(counts, [0.2, 0.25, 0.05, 0.5])
    assert [[name] for name in np.asarray(KINDS)[np.argmax([connection, node, enable, other], 0)][:2000]] == kinds


def test_a_full_net_has_the_other_mutations_in_proportion(children):
    parent, nets = children["full"]
    assert (nets.hidden == 10).all()
    exist = (nets.connections != ABSENT).sum((1, 2)) - (parent.connections != ABSENT).sum()
    enable = (exist == 0) & (nets.connections != parent.connections).any((1, 2))
    _frequencies([(exist == 1).sum(), enable.sum(), MANY - (exist == 1).sum() - enable.sum()],
                 np.asarray([0.2, 0.05, 0.5]) / 0.75)  # fmt: skip


def test_a_connection_is_added_between_any_two_nodes_by_source_and_then_destination():
    space, parent = SPACES[0], _small(SPACES[0])
    nets = _made((1, 0, 0, 0), parent, space)
    new = np.argwhere(nets.connections != parent.connections)[:, 1:]
    assert len(new) == MANY
    free = {}
    for i in range(8):
        ends = [j for j in (*range(4, 8), 14, 15) if j > i and parent.connections[i, j] == ABSENT]
        free |= {i: ends} if ends else {}
    pairs = [(i, j) for i in free for j in free[i]]
    _frequencies([np.sum((new == pair).all(1)) for pair in pairs], [1 / len(free) / len(free[i]) for i, _ in pairs])


def test_every_connection_is_split_and_enabled_and_removed_alike():
    space, parent = SPACES[0], _small(SPACES[0])
    for rates, state in (((0, 0, 1, 0), DISABLED), ((0, 0, 0, 0, 1), ENABLED)):
        nets = _made(rates, parent, space)
        changed = np.argwhere(nets.connections != parent.connections)[:, 1:]
        there = np.argwhere(parent.connections == state)
        _frequencies([np.sum((changed == gene).all(1)) for gene in there], np.full(len(there), 1 / len(there)))
    nets = _made((0, 1, 0, 0), parent, space)
    there = np.argwhere(parent.connections == ENABLED)
    made = [_split(parent, space, *gene) for gene in there]
    split = [(nets.connections == genes).all((1, 2)) for genes, _, _ in made]
    _frequencies([here.sum() for here in split], np.full(len(there), 1 / len(there)))
    codes = np.concatenate([nets.activations[here, slot] for here, (_, _, slot) in zip(split, made, strict=True)])
    _frequencies(np.bincount(codes, minlength=10), np.full(10, 0.1))


def test_another_activation_comes_to_any_hidden_node_or_output_alike():
    for space in (SPACES[0], Space(3, 2, 16, activations=("tanh", "step", "relu"))):
        parent = _small(SPACES[0])  # with activations of its own that the second space does not have
        for rates, nodes in (((0, 0, 0, 1), range(4, 8)), ((0, 0, 0, 0, 0, 1), (14, 15))):
            nets = _made(rates, parent, space)
            counts, expected = [], []
            for node in nodes:
                others = [code for code in space.codes if code != parent.activations[node]]
                counts += [np.sum(nets.activations[:, node] == code) for code in others]
                expected += [1 / len(nodes) / len(others)] * len(others)
            _frequencies(counts, expected)


def test_where_nothing_is_possible_the_child_is_its_parent():
    space = Space(1, 1, 3, activations=("tanh",))
    parent = wann.minimal(jax.random.key(0), space, 1.0)
    for seed in range(3):
        child = wann.mutate(jax.random.key(seed), parent, space, ALL)
        assert explanations(*(jax.tree.map(np.asarray, net) for net in (parent, child)), space) == ["remove_connection"]
    child = wann.mutate(jax.random.key(0), parent, space)
    jax.tree.map(np.testing.assert_array_equal, child, parent)
    child = wann.mutate(jax.random.key(0), _small(SPACES[0]), SPACES[0], Rates(0, 0, 0, 0))
    jax.tree.map(np.testing.assert_array_equal, child, _small(SPACES[0]))


def test_a_linear_node_at_weight_one_leaves_the_function_as_it_is():
    space = Space(3, 2, 16, activations=("identity",))
    x = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    net = wann.minimal(jax.random.key(0), space, 1.0)
    mutate = jax.jit(functools.partial(wann.mutate, space=space, rates=Rates(0, 1, 0, 0)))
    for seed in range(10):
        child = mutate(jax.random.key(seed), net)
        assert int(child.hidden) == seed + 1
        before, after = (wann.forward(genome, space, 1.0, x) for genome in (net, child))
        np.testing.assert_allclose(after, before, rtol=1e-5, atol=1e-5)
        net = child
    jax.tree.map(np.testing.assert_array_equal, mutate(jax.random.key(10), net), net)


def test_rates_may_be_traced_and_known_ones_are_checked():
    space, parent = SPACES[0], _small(SPACES[0])
    lanes = jax.jit(jax.vmap(lambda rate, key: wann.mutate(key, parent, space, Rates(rate, 1 - rate, 0, 0))))
    nets = lanes(np.asarray([0.0, 1.0], np.float32), jax.random.split(jax.random.key(0), 2))
    np.testing.assert_array_equal(nets.hidden, [5, 4])
    with jax.enable_x64(True):
        wide = jax.eval_shape(lambda key: wann.mutate(key, parent, space), jax.random.key(0))
    assert [leaf.dtype for leaf in wide] == [np.int8, np.int8, np.int32]
    for rate in (-0.1, np.nan, np.inf):
        with pytest.raises(ValueError, match=f"enable={rate} must be a rate, finite and not negative"):
            wann.mutate(jax.random.key(0), parent, space, Rates(enable=rate))
    with pytest.raises(ValueError, match=r"hidden of shape \(2,\) must be \(\): one genome"):
        wann.mutate(jax.random.key(0), nets, space)
