"""Genomes of weight-agnostic nets: their shape, forward pass, layers and files."""

import dataclasses
import functools
import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnjax import activations, wann
from nnjax.wann.genome import DISABLED, ENABLED, NAMES, Genome, Space

SPACE = Space(4, 2, 32)
COUNT = 1000


@pytest.fixture(scope="module")
def grown():
    """1000 nets of 0 to 79 random mutations, removals and linear outputs' changes among them."""
    rates = wann.Rates(0.3, 0.3, 0.1, 0.2, 0.05, 0.05)

    def grow(key, age):
        def step(number, genome):
            return wann.mutate(jax.random.fold_in(key, number), genome, SPACE, rates)

        return jax.lax.fori_loop(0, age, step, wann.minimal(key, SPACE))

    keys = jax.random.split(jax.random.key(0), COUNT)
    return jax.tree.map(np.asarray, jax.jit(jax.vmap(grow))(keys, jnp.arange(COUNT) % 80))


def _one(population, i):
    return jax.tree.map(lambda leaf: leaf[i], population)


# Codes 1 to 10 as Gaier and Ha (2019) number them, in NumPy.
FUNCTIONS = (
    lambda z: z, lambda z: float(z > 0), lambda z: np.sin(np.pi * z), lambda z: np.exp(-z * z / 2), np.tanh,
    lambda z: 1 / (1 + np.exp(-z)), lambda z: -z, abs, lambda z: max(z, 0.0), lambda z: np.cos(np.pi * z),
)  # fmt: skip


def _recursive(genome, space, weight, x):
    """Outputs for one x (inputs,): what a node is, is what its sources are."""
    known = {0: 1.0} | dict(enumerate(x, 1))
    weights = np.broadcast_to(weight, genome.connections.shape)

    def value(node):
        if node not in known:
            sources = np.flatnonzero(genome.connections[:, node] == ENABLED)
            total = sum(weights[source, node] * value(source) for source in sources)
            known[node] = FUNCTIONS[genome.activations[node]](total)
        return known[node]

    return [value(node) for node in range(space.max_nodes - space.outputs, space.max_nodes)]


def test_the_nets_of_these_tests_are_of_all_sizes(grown):
    wann.check(grown, SPACE)
    assert grown.hidden.min() == 0
    assert grown.hidden.max() > 15
    assert {*np.unique(grown.activations)} == {*range(10)}
    assert {*np.unique(grown.connections)} == {0, 1, 2}


def test_forward_equals_a_recursive_evaluation(grown):
    rng = np.random.default_rng(0)
    x, weights = rng.normal(size=(COUNT, 4)), rng.uniform(-2, 2, (COUNT, 32, 32))
    shared = rng.choice([-2, -1, -0.5, 0.5, 1, 2], COUNT)
    with jax.enable_x64(True):
        program = jax.jit(jax.vmap(lambda genome, weight, x: wann.forward(genome, SPACE, weight, x)))
        for weight in (shared, weights):
            measured = program(grown, weight, x)
            assert measured.dtype == np.float64
            expected = [_recursive(_one(grown, i), SPACE, weight[i], x[i]) for i in range(COUNT)]
            np.testing.assert_allclose(measured, expected, rtol=1e-9, atol=1e-9)


def test_forward_takes_any_leading_axes_and_keeps_the_dtype(grown):
    genome, x = _one(grown, 79), np.random.default_rng(1).normal(size=(2, 3, 4)).astype(np.float32)
    outputs = wann.forward(genome, SPACE, 0.5, x)
    assert outputs.shape == (2, 3, 2)
    assert outputs.dtype == np.float32
    np.testing.assert_allclose(outputs[1, 2], wann.forward(genome, SPACE, 0.5, x[1, 2]), rtol=1e-5)
    np.testing.assert_allclose(outputs[0, 1], _recursive(genome, SPACE, 0.5, x[0, 1]), rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match=r"x has shape \(3,\); expected \(\.\.\., 4\)"):
        wann.forward(genome, SPACE, 1.0, x[0, 0, :3])
    with pytest.raises(ValueError, match=r"weight has shape \(31,\); expected \(\) or \(32, 32\)"):
        wann.forward(genome, SPACE, np.ones(31), x)


def test_one_program_serves_nets_of_every_size(grown):
    traces = []

    @jax.jit
    def program(genome, weight):
        traces.append(1)
        return wann.forward(genome, SPACE, weight, np.ones(4, np.float32)), wann.layers(genome, SPACE)

    for i in (0, 40, 79):
        program(_one(grown, i), 0.5 + i)
    assert len(traces) == 1


def test_weights_can_be_trained(grown):
    space = dataclasses.replace(SPACE, activations=("tanh", "sin_pi", "gaussian"))
    smooth = np.isin(np.arange(10), space.codes)
    genome = _one(grown, 79)
    genome = genome._replace(activations=np.where(smooth[genome.activations], genome.activations, 0).astype(np.int8))
    with jax.enable_x64(True):
        weights = np.random.default_rng(2).normal(size=(32, 32))

        @jax.jit
        def loss(weights):
            return jnp.sum(wann.forward(genome, space, weights, np.linspace(-1, 1, 12).reshape(3, 4)) ** 2)

        gradient = np.asarray(jax.jit(jax.grad(loss))(weights))
        assert (gradient[genome.connections != ENABLED] == 0).all()
        found = np.argwhere(gradient != 0)
        assert len(found) > 10
        for source, destination in found[:: len(found) // 10]:
            step = np.zeros((32, 32))
            step[source, destination] = 1e-6
            slope = (loss(weights + step) - loss(weights - step)) / 2e-6
            np.testing.assert_allclose(gradient[source, destination], slope, rtol=1e-5, atol=1e-6)


def test_a_node_that_overflows_is_seen_only_by_those_it_leads_to():
    space = Space(1, 2, 6)  # slots: bias, input, two hidden, two outputs
    genes = np.zeros((6, 6), np.int8)
    genes[1, 2] = genes[2, 3] = genes[3, 4] = genes[0, 5] = ENABLED
    genome = Genome(genes, np.zeros(6, np.int8), np.int32(2))
    wann.check(genome, space)

    def outputs(weight):
        return wann.forward(genome, space, weight, np.full(1, 1e20, np.float32))

    first, second = outputs(np.float32(1e10))
    assert np.isinf(first)
    assert second == np.float32(1e10)
    assert jax.grad(lambda weight: outputs(weight)[1])(np.full((6, 6), 1e10, np.float32))[0, 5] == 1


def test_the_first_net_has_every_gene_and_enables_the_share_that_is_asked_for():
    keys = jax.random.split(jax.random.key(3), 400)
    make = jax.jit(lambda share: jax.vmap(functools.partial(wann.minimal, space=SPACE, enabled=share))(keys))
    for share in (0.0, 0.25, 1.0):
        nets = jax.tree.map(np.asarray, make(share))
        wann.check(nets, SPACE)
        assert (nets.connections[:, :5, 30:] != 0).all()
        assert (np.count_nonzero(nets.connections, (1, 2)) == 10).all()
        assert (nets.hidden == 0).all()
        mean = np.mean(wann.connection_count(nets)) / 10
        assert abs(mean - share) <= 4.5 * np.sqrt(share * (1 - share) / 4000), "4000 draws, 4.5 standard errors"
    with pytest.raises(ValueError, match=r"enabled=1\.5 must lie between 0 and 1"):
        wann.minimal(jax.random.key(0), SPACE, 1.5)


def test_counts_and_slots(grown):
    np.testing.assert_array_equal(wann.node_count(grown, SPACE), grown.hidden + 7)
    np.testing.assert_array_equal(wann.connection_count(grown), (grown.connections == 1).sum((1, 2)))
    live = np.asarray(wann.alive(grown, SPACE))
    np.testing.assert_array_equal(live.sum(1), grown.hidden + 7)
    assert live[:, [*range(5), 30, 31]].all()
    np.testing.assert_array_equal(live[79], wann.alive(_one(grown, 79), SPACE))


def test_layers_are_longest_paths(grown):
    @functools.cache
    def longest(i, node):
        sources = np.flatnonzero(grown.connections[i][:, node] == ENABLED)
        return 0 if node <= 4 else 1 + max((longest(i, source) for source in sources), default=0)

    measured = np.asarray(jax.jit(jax.vmap(lambda genome: wann.layers(genome, SPACE)))(grown))
    for i in range(0, COUNT, 7):
        hidden = [longest(i, node) for node in range(5, 5 + grown.hidden[i])]
        last = 1 + max(hidden, default=0)
        empty = 25 - grown.hidden[i]
        np.testing.assert_array_equal(measured[i], [*[0] * 5, *hidden, *[-1] * empty, last, last])


def test_more_slots_leave_the_net_as_it_is(grown):
    wide = dataclasses.replace(SPACE, max_nodes=40)
    more = wann.resize(grown, SPACE, 40)
    wann.check(more, wide)
    x = np.ones(4, np.float32)
    for i in (0, 79):
        small, large = _one(grown, i), wann.resize(_one(grown, i), SPACE, 40)
        jax.tree.map(np.testing.assert_array_equal, large, _one(more, i))
        np.testing.assert_allclose(
            wann.forward(small, SPACE, 0.5, x), wann.forward(large, wide, 0.5, x), rtol=1e-5, atol=1e-6
        )
    jax.tree.map(np.testing.assert_array_equal, wann.resize(grown, SPACE, 32), grown)
    with pytest.raises(ValueError, match="max_nodes=31 must be at least 32"):
        wann.resize(grown, SPACE, 31)


# Spaces and checks


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"inputs": 0}, "inputs=0 must be a whole number, at least 1"),
        ({"outputs": 1.0}, r"outputs=1\.0 must be a whole number"),
        ({"max_nodes": 6}, r"max_nodes=6 must lie between 7 \(bias, 4 inputs and 2 outputs\) and 4096"),
        ({"max_nodes": 5000}, "max_nodes=5000 must lie between"),
        ({"activations": ()}, r"activations=\(\) must name at least one"),
        ({"activations": ("tanh", "tanh")}, "each once"),
        ({"activations": ("tanhh",)}, "activation 'tanhh' is not one of .*; did you mean 'tanh'"),
    ],
)
def test_a_space_that_cannot_be_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(SPACE, **fields)


def test_codes_mean_the_same_in_every_space():
    assert [activations.by_name(name).__name__ for name in NAMES] == [*NAMES]
    z = np.linspace(-2, 2, 9)
    for name, function in zip(NAMES, FUNCTIONS, strict=True):
        with jax.enable_x64(True):
            np.testing.assert_allclose(activations.by_name(name)(z), [function(v) for v in z], atol=1e-15)
    space = Space(1, 1, 8, activations=("sigmoid", "elu", "abs"))
    assert space.activations == ("logistic", "elu", "absolute")
    assert space.table == (*NAMES, "elu")
    assert space.codes == (5, 10, 7)
    assert hash(space) == hash(Space(1, 1, 8, activations=("logistic", "elu", "absolute")))
    assert (Space(1, 1, 8).max_hidden, Space(1, 1, 8).first_output) == (5, 7)


def _broken(**changes):
    genome = Genome(np.zeros((8, 8), np.int8), np.zeros(8, np.int8), np.int32(2))  # bias, 2 inputs, 2 hidden, 1 output
    genome.connections[[0, 1, 3, 4], [3, 4, 7, 7]] = ENABLED
    for name, (index, value) in changes.items():
        getattr(genome, name)[index] = value
    return genome


def test_check_names_what_is_wrong():
    space = Space(2, 1, 8)
    wann.check(_broken(), space)
    for genome, message in (
        (_broken(connections=((4, 4), ENABLED)), "from slot 4 to slot 4 does not lead to a later slot"),
        (_broken(connections=((4, 3), DISABLED)), "from slot 4 to slot 3 does not lead to a later slot"),
        (_broken(connections=((0, 1), ENABLED)), "from slot 0 to slot 1 leads into the bias or an input"),
        (_broken(connections=((3, 5), DISABLED)), "from slot 3 to slot 5 touches an empty slot"),
        (_broken(connections=((0, 3), 3)), "connections hold 3"),
        (_broken(activations=(3, 10)), "activations hold the code 10; expected 0 to 9"),
        (_broken(activations=(5, 1)), "empty slots must be 0"),
        (_broken(activations=(1, 1)), "bias, inputs and empty slots must be 0"),
        (_broken()._replace(hidden=np.int32(5)), "hidden=5 must lie between 0 and 4"),
        (_broken()._replace(hidden=np.float32(2)), "hidden must hold integers"),
        (_broken()._replace(hidden=np.zeros(3, np.int32)), r"connections of shape \(8, 8\) must be \(3, 8, 8\)"),
    ):
        with pytest.raises(ValueError, match=message):
            wann.check(genome, space)
    leads_out = Genome(np.zeros((5, 5), np.int8), np.zeros(5, np.int8), np.int32(0))
    leads_out.connections[3, 4] = ENABLED
    with pytest.raises(ValueError, match="from slot 3 to slot 4 leads out of an output"):
        wann.check(leads_out, Space(2, 2, 5))


# Files


@settings(max_examples=40, deadline=None)
@given(i=st.integers(0, COUNT - 1), tuned=st.booleans())
def test_json_gives_the_net_back(grown, i, tuned):
    genome = _one(grown, i)
    weights = np.random.default_rng(i).normal(size=(32, 32)).astype(np.float32) if tuned else None
    champion = wann.from_json(wann.to_json(genome, SPACE, weights))
    assert champion.space == SPACE
    for leaf, again in zip(genome, champion.genome, strict=True):
        np.testing.assert_array_equal(again, leaf)
        assert again.dtype == leaf.dtype
    if tuned and (genome.connections == ENABLED).any():
        np.testing.assert_array_equal(champion.weights, np.where(genome.connections == ENABLED, weights, 0))
    else:
        assert champion.weights is None


def test_json_holds_other_activations_and_no_population(grown):
    space = Space(1, 1, 8, activations=("elu", "tanh"))
    genome = wann.minimal(jax.random.key(0), space, 1.0)
    for seed in range(3):
        genome = wann.mutate(jax.random.key(seed), genome, space, wann.Rates(0, 1, 0, 0))
    again = wann.from_json(wann.to_json(genome, space))
    assert again.space == space
    np.testing.assert_array_equal(again.genome.activations, genome.activations)
    with pytest.raises(ValueError, match=r"hidden of shape \(1000,\) must be \(\): one genome a file"):
        wann.to_json(grown, SPACE)
    with pytest.raises(ValueError, match=r"weights of shape \(2,\) must be \(8, 8\)"):
        wann.to_json(genome, space, np.zeros(2))
    with pytest.raises(ValueError, match="finite"):
        wann.to_json(genome, space, np.full((8, 8), np.nan))


def test_json_of_a_list_of_genes_is_that_of_the_matrix(grown):
    space = dataclasses.replace(SPACE, edges=600)
    genome = _one(grown, 5)
    listed, weights = wann.from_dense(genome, space), np.full((32, 32), 0.25)
    assert wann.to_json(listed, space, weights) == wann.to_json(genome, SPACE, weights)


def _edited(**changes):
    space = Space(2, 1, 8)
    data = json.loads(wann.to_json(_broken(), space))
    data |= changes
    return json.dumps({name: value for name, value in data.items() if value is not None})


def test_malformed_json_is_told_in_one_sentence(tmp_path):
    path = tmp_path / "net.json"
    path.write_text(_edited())
    np.testing.assert_array_equal(wann.read_champion(path).connections, _broken().connections)
    for text, message in (
        (_edited()[:-20], "no JSON: "),
        ("{" * 10, "no JSON: "),
        ("{}", "no net: expected an object whose format is"),
        (_edited(format="something else"), "no net"),
        (_edited(hidden=None), "hidden is missing"),
        (_edited(inputs="2"), "inputs='2' must be a whole number"),
        (_edited(max_nodes=10**9), "max_nodes=1000000000 must lie between"),
        (_edited(hidden=[1, 2]), "hidden must be a list of names"),
        (_edited(hidden=["tanh"] * 5), "5 hidden nodes do not fit into max_nodes=8"),
        (_edited(hidden=["elu", "tanh"]), "activation 'elu' is not one of identity"),
        (_edited(activations=["tahn"]), "activation 'tahn' is not one of"),
        (_edited(output_activations=[]), "output_activations has 0 names for 1 outputs"),
        (_edited(connections={}), "connections must be a list"),
        (_edited(connections=[[0, 3]]), r"connections holds \[0, 3\]; expected"),
        (_edited(connections=[[0, 6, True]]), r"connections holds \[0, 6, True\]; expected .* of nodes 0 to 5"),
        (_edited(connections=[[0, 3, 1]]), r"connections holds \[0, 3, 1\]"),
        (_edited(connections=[[0, 3, True, float("nan")]]), "connections holds"),
        (_edited(connections=[[0, 3, True, 10**400]]), "connections holds"),
        (_edited(connections=[[0, 3, True, 1e39]]), "connections holds"),
        (_edited(connections=[[0, 3, True, 2], [1, 3, True]]), "1 of 2 enabled connections have no weight"),
        (_edited(connections=[[0, 3, True], [0, 3, False]]), "connections has 0 to 3 twice"),
        (_edited(connections=[[4, 3, True]]), "from slot 4 to slot 3 does not lead to a later slot"),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=message) as caught:
            wann.read_champion(path)
        assert str(caught.value).startswith(f"champion {str(path)!r}: ")
        assert "\n" not in str(caught.value)


# Two inputs, two hidden nodes (tanh and inverse), one output; the first gene of the output is disabled.
TABLE = """\
0.00e+00,0.00e+00,0.00e+00,1.50e+00,0.00e+00,nan,1.00e+00
0.00e+00,0.00e+00,0.00e+00,0.00e+00,-2.00e+00,nan,1.00e+00
0.00e+00,0.00e+00,0.00e+00,nan,0.00e+00,-7.50e-01,1.00e+00
0.00e+00,0.00e+00,0.00e+00,0.00e+00,1.00e+00,1.00e+00,5.00e+00
0.00e+00,0.00e+00,0.00e+00,0.00e+00,0.00e+00,2.50e-01,7.00e+00
0.00e+00,0.00e+00,0.00e+00,0.00e+00,0.00e+00,0.00e+00,1.00e+00
"""


def test_a_published_champions_table_is_read(tmp_path):
    path = tmp_path / "champion.out"
    path.write_text(TABLE)
    genome, space, weights = wann.load_champion(path)
    assert space == Space(2, 1, 6)
    assert int(genome.hidden) == 2
    expected = np.zeros((6, 6), np.int8)
    expected[[0, 1, 2, 3, 3, 4], [3, 4, 5, 4, 5, 5]] = ENABLED
    expected[[0, 1, 2], [5, 5, 3]] = DISABLED
    np.testing.assert_array_equal(genome.connections, expected)
    np.testing.assert_array_equal(genome.activations, [0, 0, 0, 4, 6, 0])
    jax.tree.map(np.testing.assert_array_equal, wann.read_champion(path), genome)
    x = np.asarray([0.3, -0.8], np.float32)
    first = np.tanh(1.5)
    np.testing.assert_allclose(
        wann.forward(genome, space, weights, x), [0.8 * 0.75 + first - 0.25 * (first - 2 * 0.3)], rtol=1e-5
    )
    first = np.tanh(0.5)
    np.testing.assert_allclose(
        wann.forward(genome, space, 0.5, x), [-0.4 + 0.5 * first - 0.5 * (0.5 * first + 0.15)], rtol=1e-5
    )
    assert wann.layers(genome, space).tolist() == [0, 0, 0, 1, 2, 3]
    wann.check(wann.resize(genome, space, 20), dataclasses.replace(space, max_nodes=20))


def test_how_many_inputs_a_table_has_can_be_said():
    rounded = TABLE.replace("1.50e+00", "0.00e+00").replace(
        "0.00e+00,nan,0.00e+00,-7.50", "0.00e+00,0.00e+00,0.00e+00,-7.50"
    )
    assert wann.from_csv(rounded).space.inputs == 3
    champion = wann.from_csv(rounded, inputs=2)
    assert champion.space == Space(2, 1, 6)
    assert int(champion.genome.hidden) == 2
    with pytest.raises(ValueError, match="leads into the bias or an input"):
        wann.from_csv(TABLE, inputs=3)


def test_a_weight_that_was_rounded_to_0_takes_its_connection_along(tmp_path):
    path = tmp_path / "champion.out"
    rows = TABLE.replace("2.50e-01", "-0.00e+00").splitlines()
    rows[3] = rows[3].replace("1.00e+00,1.00e+00,5", "0.00e+00,1.00e+00,5")  # the gene to the second hidden node
    rows[1] = rows[1].replace("-2.00e+00", "0.00e+00")  # and the last one that led there
    path.write_text("\n".join(rows))
    read = wann.read_champion(path)
    assert int(wann.connection_count(read)) == 6 - 3
    assert int(read.hidden) == 1
    assert wann.load_champion(path).space == Space(2, 2, 6), "a node that leads nowhere is taken for an output"
    genome, space, weights = wann.load_champion(path, inputs=2, outputs=1)
    assert (int(genome.hidden), space) == (2, Space(2, 1, 6))
    np.testing.assert_array_equal(genome.connections, read.connections)
    assert np.count_nonzero(weights) == 3


def test_malformed_tables_are_told_in_one_sentence(tmp_path):
    path = tmp_path / "champion.out"
    lines = TABLE.splitlines()
    for text, message in (
        ("", "the file is empty"),
        ("hello\n", "row 1 of 1 has 1 columns; expected 2"),
        ("\n".join(lines[:-1]), "row 1 of 5 has 7 columns; expected 6"),
        (TABLE.replace("-7.50e-01", "x"), "row 3 holds something that is no number"),
        (TABLE.replace("7.00e+00", "1.10e+01"), "row 5 ends in 11; expected an activation's number, 1 to 10"),
        (TABLE.replace("7.00e+00", "nan"), "row 5 ends in nan"),
        (TABLE.replace("-7.50e-01", "inf"), "row 3, column 6 is infinite"),
        (
            "\n".join([*lines[:4], lines[4].replace("0.00e+00", "1.00e+00", 1), lines[5]]),
            "row 5, column 1 is a connection",
        ),
        ("0,0,1\n0,0,1\n", "a table of 2 nodes with 1 inputs and 2 outputs is no net"),
        ("{" + TABLE, "no JSON"),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=message):
            wann.read_champion(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="not a text"):
        wann.read_champion(path)
    with pytest.raises(FileNotFoundError):
        wann.read_champion(tmp_path / "none.out")


# Files that are damaged, or meant to do harm


def _refused_in_one_sentence(call):
    """What ``call`` gives, or None where it refuses the file with one sentence of sensible length."""
    try:
        return call()
    except ValueError as caught:
        error = caught
    text = str(error)
    assert type(error) is ValueError
    assert 0 < len(text) < 2000
    assert text.isprintable()
    return None


values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=80)
    | st.sampled_from([10**400, -1, 0, 3, 4096, 2**31, 1e39, "tanh", "sigmoid", "\ud800", "a\nb"]),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=8,
)  # fmt: skip
nodes = st.integers(-1, 8) | values
fields = {
    "format": values,
    "inputs": st.integers(-1, 9) | values,
    "outputs": st.integers(-1, 9) | values,
    "max_nodes": st.integers(-1, 40) | values,
    "activations": st.lists(st.sampled_from(NAMES) | values, max_size=12) | values,
    "hidden": st.lists(st.sampled_from(NAMES) | values, max_size=6) | values,
    "output_activations": st.lists(st.sampled_from(NAMES) | values, max_size=3) | values,
    "connections": st.lists(st.tuples(nodes, nodes, st.booleans() | values, st.floats() | values)
                            | st.tuples(nodes, nodes, st.booleans()) | values, max_size=6) | values,
}  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(changes=st.fixed_dictionaries({}, optional=fields), dropped=st.sets(st.sampled_from([*fields]), max_size=1))
def test_json_of_any_content_is_a_net_or_refused_in_one_sentence(changes, dropped):
    data = json.loads(wann.to_json(_broken(), Space(2, 1, 8))) | changes
    text = json.dumps({name: value for name, value in data.items() if name not in dropped})
    champion = _refused_in_one_sentence(lambda: wann.from_json(text))
    if champion is not None:
        wann.check(champion.genome, champion.space)
        assert champion.weights is None or np.isfinite(champion.weights).all()


@settings(max_examples=150, deadline=None)
@given(data=st.data(), kind=st.sampled_from(["json", "table"]))
def test_damaged_champion_files_are_nets_or_refused_in_one_sentence(tmp_path_factory, data, kind):
    text = wann.to_json(_broken(), Space(2, 1, 8), np.ones((8, 8))) if kind == "json" else TABLE
    content = bytearray(text.encode())
    start = data.draw(st.integers(0, len(content)))
    content[start : start + data.draw(st.integers(0, 20))] = data.draw(st.binary(max_size=10) | st.sampled_from(
        [b"NaN", b"1e999", b"-Infinity", b"[", b"{", b'"', b",", b"\n", b"9" * 5000, b"\xef\xbb\xbf", b"\x00"]
    ))  # fmt: skip
    path = tmp_path_factory.getbasetemp() / "champion"
    path.write_bytes(content)
    genome = _refused_in_one_sentence(lambda: wann.read_champion(path))
    if genome is not None:
        assert set(np.unique(genome.connections)) <= {0, ENABLED, DISABLED}


@pytest.mark.parametrize("depth", [10, 200, 100_000])
@pytest.mark.parametrize("name", ["inputs", "hidden", "connections", "format", "other"])
def test_champions_of_lists_in_lists_are_refused(tmp_path, name, depth):
    marked = _edited(**{name: "here"})
    path = tmp_path / "deep.json"
    path.write_text(marked.replace('"here"', "[" * depth + "]" * depth))
    genome = _refused_in_one_sentence(lambda: wann.read_champion(path))
    assert (genome is not None) == (name == "other" and depth < 1000), "what nobody asks for is passed over"


def test_lists_just_shallow_enough_to_be_read_are_refused_too():
    start, _, end = _edited(connections="here").partition('"here"')
    limit = sys.getrecursionlimit()
    for depth in range(limit - 150, limit):
        text = f"{start}[{'[' * depth}{']' * depth}]{end}"
        assert _refused_in_one_sentence(lambda text=text: wann.from_json(text)) is None


def test_champion_files_that_are_too_large_or_no_text(tmp_path, monkeypatch):
    path = tmp_path / "net.json"
    path.write_text(_edited())
    monkeypatch.setattr("nnjax.wann.champion._MOST_BYTES", path.stat().st_size)
    assert wann.load_champion(path).weights is None
    path.write_text(_edited() + " ")
    with pytest.raises(ValueError, match=f"the file has more than the {len(_edited())} bytes of the largest net"):
        wann.load_champion(path)
    for content in (_edited().encode("utf-16"), _edited().replace("tanh", "t\xe4nh").encode("latin-1")):
        path.write_bytes(content[: len(_edited())])
        with pytest.raises(ValueError, match="not a text"):
            wann.load_champion(path)
