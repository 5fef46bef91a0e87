"""Pictures of a search show what they say: as many nodes and lines as the net has, numbers where they belong."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest
from matplotlib.colors import same_color

from nnjax import plotting, wann
from nnjax.activations import TABLE
from nnjax.wann import layout, net_picture, pictures
from nnjax.wann.genome import DISABLED, ENABLED, Genome, Space, from_dense
from nnjax.wann.tasks import SwingUp

SPACE = Space(5, 2, 48)


def random_net(space, hidden, enabled, seed=0):
    """Genes between any nodes, some disabled, so that there are nodes which nothing reaches or which lead nowhere."""
    rng, n = np.random.default_rng(seed), space.max_nodes
    live = (np.arange(n) <= space.inputs + hidden) | (np.arange(n) >= space.first_output)
    source, destination = np.arange(n)[:, None], np.arange(n)[None]
    possible = (source < destination) & (destination > space.inputs) & (source < space.first_output)
    genes = rng.choice([0, ENABLED, DISABLED], (n, n), p=[0.9 - enabled, enabled, 0.1])
    codes = np.where(live & (np.arange(n) > space.inputs), rng.integers(0, len(space.table), n), 0)
    genes = np.where(possible & live[:, None] & live, genes, 0)
    return Genome(genes.astype(np.int8), codes.astype(np.int8), np.int32(hidden))


@pytest.fixture(scope="module")
def net():
    return random_net(SPACE, 25, 0.1)


@pytest.fixture(scope="module")
def wide():
    space = Space(64, 3, 90)
    return random_net(space, 9, 0.1), space


@pytest.fixture
def axes():
    with plotting.style():
        figure, grid = plotting.figure(width=5, height=3.5)
        yield grid[0, 0]
        figure.canvas.draw()  # warns where something cannot be laid out


def by_gid(axes):
    return {artist.get_gid(): artist for artist in axes.get_children() if artist.get_gid()}


def texts(axes):
    return [text.get_text() for text in axes.texts]


def legend(axes):
    return [text.get_text() for text in axes.get_legend().get_texts()]


def nodes(artists, start):
    return np.concatenate([v.get_offsets() for gid, v in artists.items() if gid.startswith(start)])


def test_net_has_a_mark_for_every_node_and_a_line_for_every_connection(axes, net):
    assert net.hidden > 10
    assert (net.connections == DISABLED).any()
    places = pictures.draw_net(axes, net, SPACE, disabled=True)
    artists = by_gid(axes)
    drawn = np.concatenate([nodes(artists, "inputs"), nodes(artists, "nodes")])
    there = ~np.isnan(places).any(1)
    assert np.array_equal(there, wann.alive(net, SPACE))
    assert len(drawn) == wann.node_count(net, SPACE)
    assert {tuple(p) for p in drawn} == {tuple(p) for p in places[there]}
    assert np.array_equal(nodes(artists, "nodes"), nodes(artists, "curves"))
    for gid, state in (("connections", ENABLED), ("disabled", DISABLED)):
        lines = artists[gid].get_segments()
        ends = {(*line[0], *line[-1]) for line in lines}
        assert ends == {(*places[i], *places[j]) for i, j in np.argwhere(net.connections == state)}
        assert len(ends) == len(lines) == (net.connections == state).sum()


def test_nodes_stand_by_layer_apart_and_inputs_in_their_order(axes, net):
    places = pictures.draw_net(axes, net, SPACE)
    live = np.asarray(wann.alive(net, SPACE))
    assert np.array_equal(places[live, 0], wann.layers(net, SPACE)[live])
    for layer in np.unique(places[live, 0]):
        assert np.diff(np.sort(places[live & (places[:, 0] == layer), 1])).min(initial=1) > 0.01
    assert (np.diff(places[: 1 + SPACE.inputs, 1]) < 0).all()
    assert (np.diff(places[SPACE.first_output :, 1]) < 0).all()
    for line in by_gid(axes)["connections"].get_segments():
        assert (np.diff(line[:, 0]) > 0).all()
    low, high = axes.get_ylim()
    assert all(low < y < high for line in by_gid(axes)["connections"].get_segments() for y in line[:, 1])


def test_activations_are_told_by_color_curve_and_legend(axes, net):
    places = pictures.draw_net(axes, net, SPACE)
    expected = {}
    for slot in np.flatnonzero(wann.alive(net, SPACE))[1 + SPACE.inputs :]:
        expected.setdefault(SPACE.table[net.activations[slot]], set()).add(tuple(places[slot]))
    artists = by_gid(axes)
    found = {gid[6:]: {tuple(p) for p in v.get_offsets()} for gid, v in artists.items() if gid.startswith("nodes ")}
    assert found == expected
    assert sorted(legend(axes)) == sorted(expected)
    assert all(same_color(artists[f"nodes {n}"].get_facecolor()[0], net_picture.ACTIVATION_COLORS[n]) for n in found)
    assert net_picture.ACTIVATION_COLORS.keys() == TABLE.keys()
    paths = [np.round(net_picture._symbol_curve(name, 10)["marker"].vertices, 3).tobytes() for name in TABLE]
    looks = set(zip(paths, net_picture.ACTIVATION_COLORS.values(), strict=False))
    assert len(looks) == len(TABLE)
    assert len({net_picture.ACTIVATION_COLORS[name] for name in wann.genome.NAMES}) == len(wann.genome.NAMES)


def test_labels_are_there_and_inputs_not_in_use_are_gray(axes, net):
    cut = net.connections.copy()
    cut[2] = np.where(cut[2] == ENABLED, DISABLED, cut[2])
    net = net._replace(connections=cut)
    names = ["a", "b", "c", "d", "e"]
    places = pictures.draw_net(axes, net, SPACE, input_names=names, output_names=["left", "right"], legend=False)
    assert texts(axes) == ["bias", *names, "left", "right"]
    assert [text.xy for text in axes.texts] == [tuple(places[i]) for i in (0, 1, 2, 3, 4, 5, 46, 47)]
    unused = by_gid(axes)["inputs not in use"].get_offsets()
    assert np.array_equal(unused, places[:6][~(cut[:6] == ENABLED).any(1)])
    assert tuple(places[2]) in {tuple(p) for p in unused}
    assert axes.get_legend() is None


def test_weights_show_as_color_and_width(axes, net):
    weights = np.random.default_rng(0).normal(size=net.connections.shape)
    places = pictures.draw_net(axes, net, SPACE, weights=weights)
    where = {tuple(place): slot for slot, place in enumerate(places)}
    lines = by_gid(axes)["connections"]
    drawn = [weights[where[tuple(line[0])], where[tuple(line[-1])]] for line in lines.get_segments()]
    for weight, color in zip(drawn, lines.get_colors(), strict=True):
        assert same_color(color[:3], plotting.COLORS[0 if weight > 0 else 1])
    widths = np.asarray(lines.get_linewidths())
    assert np.allclose(np.diff(widths) / np.diff(np.abs(drawn)), 2.5 / np.abs(drawn).max())
    assert {"weight > 0", "weight < 0", f"|weight| = {np.abs(drawn).max():.3g}"} <= set(legend(axes))


def test_list_of_genes_is_drawn_as_the_same_net(axes, net):
    space = Space(5, 2, 48, edges=128)
    listed = from_dense(net, space)
    weights = np.random.default_rng(0).normal(size=net.connections.shape)
    expected = pictures.draw_net(axes, net, SPACE, weights=weights)
    lines = by_gid(axes)["connections"]
    axes.clear()
    beside = weights[np.asarray(listed.sources), np.asarray(listed.destinations)]
    places = pictures.draw_net(axes, listed, space, weights=beside)
    assert np.array_equal(places, expected, equal_nan=True)
    assert np.array_equal(by_gid(axes)["connections"].get_segments(), lines.get_segments())
    assert np.array_equal(by_gid(axes)["connections"].get_linewidths(), lines.get_linewidths())


def test_wide_inputs_are_a_picture_of_how_often_they_are_used(axes, wide):
    genome, space = wide
    places = pictures.draw_net(axes, genome, space)
    artists = by_gid(axes)
    shades = np.asarray(artists["inputs"].get_array())
    enabled = genome.connections == ENABLED
    assert np.array_equal(shades, enabled[1:65].sum(1).reshape(8, 8))
    assert np.isnan(places[1:65]).all()
    assert len(nodes(artists, "inputs ")) == 1
    assert len(artists["connections"].get_segments()) == enabled.sum()
    left, right, low, high = artists["inputs"].get_extent()
    starts = np.array([line[0] for line in artists["connections"].get_segments()])
    row = np.floor((high - starts[:, 1]) / (high - low) * 8)
    inside = starts[:, 1] > low
    assert (starts[inside & (starts[:, 0] == 0)] == right).all(0)[0]
    assert np.array_equal(np.bincount(row[inside & (starts[:, 0] == 0)].astype(int), minlength=8), shades.sum(1))
    assert left < right
    assert "8 × 8 inputs" in texts(axes)


def test_wide_inputs_that_are_no_square_are_a_column(axes):
    space = Space(50, 1, 52)
    pictures.draw_net(axes, wann.minimal(jax.random.key(0), space), space)
    assert by_gid(axes)["inputs"].get_array().shape == (50, 1)
    assert "50 inputs" in texts(axes)


@pytest.mark.parametrize("space", [Space(1, 1, 3), Space(40, 5, 60)])
def test_nets_without_hidden_nodes(axes, space):
    for enabled in (0.0, 1.0):
        pictures.draw_net(axes, wann.minimal(jax.random.key(0), space, enabled), space, disabled=True)
    assert len(by_gid(axes)["connections"].get_segments()) == (1 + space.inputs) * space.outputs


def test_heights_take_crossings_away():
    layer = np.array([0, 0, 0, 1, 1, 1, 2, 2, 2])
    connections = np.array([(0, 5), (1, 4), (2, 3), (3, 8), (4, 7), (5, 6)])
    pinned = np.where(layer == 1, np.nan, np.tile([1, 0.5, 0], 3))
    assert layout.crossings(layer, np.tile([1, 0.5, 0], 3), connections) == 6
    y = layout.heights(layer, connections, pinned)
    assert layout.crossings(layer, y, connections) == 0
    assert np.array_equal(np.argsort(-y[3:6]), [2, 1, 0])
    assert np.array_equal(y[[0, 1, 2]], [1, 0.5, 0])


def test_crossings_count_pairs_of_lines_that_cross():
    layer, y = np.array([0, 0, 2, 2, 1]), np.array([0.0, 1.0, 0.0, 1.0, 0.9])
    assert layout.crossings(layer, y, np.array([(0, 3), (1, 2)])) == 1
    assert layout.crossings(layer, y, np.array([(0, 2), (1, 3)])) == 0
    assert layout.crossings(layer, y, np.array([(0, 3), (0, 2), (1, 3)])) == 0  # a common node
    assert layout.crossings(layer, y, np.array([(0, 4), (1, 2)])) == 1
    assert layout.crossings(layer, y, np.zeros((0, 2), int)) == 0


def test_lines_pass_beside_nodes_between_their_ends():
    layer, y = np.arange(5), np.full(5, 0.5)
    (curve,) = layout.route(layer, y, np.array([(0, 4)]), 0.06)
    at = np.interp([1, 2, 3], curve[:, 0], curve[:, 1])
    assert (np.abs(at - 0.5) >= 0.06).all()
    assert np.array_equal(curve[[0, -1]], [[0, 0.5], [4, 0.5]])
    (short,) = layout.route(layer, y, np.array([(0, 1)]), 0.06)
    assert np.allclose(short[:, 1], 0.5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"weights": np.zeros(3)}, r"weights of shape \(3,\) must be \(48, 48\), in the slots of the genome"),
        ({"weights": np.full((48, 48), np.nan)}, "weights hold nan for an enabled connection; expected finite ones"),
        ({"input_names": ["a"]}, "input_names has 1 names for 5 inputs"),
        ({"output_names": "abc"}, "output_names has 3 names for 2 outputs"),
    ],
)
def test_bad_arguments_for_a_net_are_one_sentence(axes, net, arguments, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        pictures.draw_net(axes, net, SPACE, **arguments)


def test_population_and_other_space_are_refused(axes, net):
    with pytest.raises(ValueError, match=r"^hidden of shape \(2,\) must be \(\): one genome a picture, no population$"):
        pictures.draw_net(axes, jax.tree.map(lambda x: np.stack([x, x]), net), SPACE)
    with pytest.raises(ValueError, match="connections of shape"):
        pictures.draw_net(axes, net, Space(5, 2, 50))
    with pytest.raises(ValueError, match="touches an empty slot"):
        pictures.draw_net(axes, Genome(_gene(), net.activations * 0, 0), SPACE)


def _gene():
    genes = np.zeros((48, 48), np.int8)
    genes[0, 20] = ENABLED
    return genes


def history(shape):
    rng = np.random.default_rng(0)
    return wann.History(*(rng.normal(size=shape) + 10 * i for i in range(len(wann.History._fields))))


@pytest.mark.parametrize("shape", [(6,), (4, 6)])
def test_history_draws_means_and_bands_over_seeds(shape):
    made, several = history(shape), len(shape) == 2
    with plotting.style():
        figure, grid = plotting.figure(1, 2)
        pictures.draw_history(grid[0], made)
        figure.canvas.draw()
    for panel, names in zip(grid[0], (("elite_mean", "median_return"), ("connections", "nodes")), strict=True):
        for line, name in zip(panel.get_lines(), names, strict=True):
            assert np.allclose(line.get_ydata(), np.atleast_2d(getattr(made, name)).mean(0))
            assert np.array_equal(line.get_xdata(), np.arange(6))
        assert len(panel.collections) == 2 * several
        assert panel.get_xlabel() == "generation"
        assert panel.get_legend().get_title().get_text() == ("4 seeds, 95 % interval" if several else "")
    assert legend(grid[0][0]) == ["best net", "median net"]
    assert legend(grid[0][1]) == ["connections", "nodes"]


def test_history_makes_its_own_panels_in_a_figure():
    from matplotlib.figure import Figure

    figure = Figure()
    pictures.draw_history(figure, history((6,)), generations=np.arange(10, 70, 10))
    assert len(figure.axes) == 2
    assert figure.axes[0].get_lines()[0].get_xdata()[0] == 10


def test_history_has_gaps_where_returns_are_not_finite(axes):
    made = history((6,))
    made.median_return[:2] = -np.inf
    pictures.draw_history([axes, axes], made)
    median = axes.get_lines()[1].get_ydata()
    assert np.isnan(median[:2]).all()
    assert np.array_equal(median[2:], made.median_return[2:])


def test_bad_histories_are_one_sentence(axes):
    made = history((4, 6))
    with pytest.raises(ValueError, match=r"^axes are 1; expected 2, or a figure to put them into$"):
        pictures.draw_history([axes], made)
    with pytest.raises(ValueError, match=r"^nodes is 5 generations of 4 seeds; elite_mean is 6 of 4$"):
        pictures.draw_history([axes, axes], made._replace(nodes=made.nodes[:, 1:]))
    with pytest.raises(ValueError, match=r"^elite_mean has shape \(\); expected \(generations,\) or "):
        pictures.draw_history([axes, axes], made._replace(elite_mean=1.0))
    with pytest.raises(ValueError, match=r"^generations is 3 generations of 4 seeds"):
        pictures.draw_history([axes, axes], made, generations=np.arange(3))


def test_front_is_what_nothing_beats(axes):
    mean = np.array([1.0, 3.0, 2.0, 3.0, 5.0, np.nan])
    connections = np.array([2, 4, 4, 6, 9, 1])
    pictures.draw_front(axes, mean, connections)
    artists = by_gid(axes)
    assert artists["front"].get_offsets().tolist() == [[2, 1], [4, 3], [9, 5]]
    assert sorted(artists["rest"].get_offsets().tolist()) == [[4, 2], [6, 3]]
    assert legend(axes) == ["other fronts (2 nets)", "first front (3 nets)", "1 net without a finite return"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("connections", "mean return over weights")
    axes.clear()
    pictures.draw_front(axes, mean, connections, ranks=np.array([1, 1, 0, 0, 1, 2]))
    assert by_gid(axes)["front"].get_offsets().tolist() == [[4, 2], [6, 3]]
    with pytest.raises(ValueError, match=r"^connections has shape \(2,\); expected \(population,\), 6 here$"):
        pictures.draw_front(axes, mean, connections[:2])


def test_front_of_nets_none_of_which_is_finite(axes):
    pictures.draw_front(axes, np.full(3, np.nan), np.arange(3), ranks=np.zeros(3, int))
    assert legend(axes)[-1] == "3 nets without a finite return"


def test_weight_sweep_sorts_and_marks_the_best(axes):
    returns = np.array([[3.0, 5.0, 4.0], [9.0, 11.0, 10.0], [1.0, np.inf, 2.0], [0.0, 1.0, 2.0]])
    pictures.draw_weight_sweep(axes, np.array([2.0, 0.5, 1.0, -1.0]), returns)
    curve = axes.get_lines()[0]
    assert np.array_equal(curve.get_xdata(), [-1, 0.5, 1, 2])
    assert np.array_equal(curve.get_ydata(), [1, 10, np.nan, 4], equal_nan=True)
    assert texts(axes) == ["best: 0.5"]
    assert legend(axes) == ["mean of 3 episodes, 95 % interval"]
    with pytest.raises(ValueError, match=r"^returns has shape \(4,\); expected \(W, episodes\) for weights"):
        pictures.draw_weight_sweep(axes, np.ones(4), np.ones(4))


def swing_up(steps=200, alive=None):
    task = SwingUp()
    start = task.reset(task.params, jax.random.key(0))
    actions = np.sin(np.arange(steps) / 9)[:, None].astype(np.float32) * 3

    def step(state, action):
        after, reward, _ = task.step(task.params, state, action)
        return after, (state, reward)

    _, (states, rewards) = jax.lax.scan(step, start, actions)
    return SimpleNamespace(states=states, actions=actions, rewards=rewards, alive=np.arange(steps) < (alive or steps))


def test_behavior_of_swing_up_is_angle_position_and_action():
    made = swing_up(alive=150)
    with plotting.style():
        figure, grid = plotting.figure(3, 1, height=1.3)
        pictures.draw_behavior(grid[:, 0], made, dt=0.01)
        figure.canvas.draw()
    angle, position, action = grid[:, 0]
    assert np.allclose(position.get_lines()[0].get_ydata(), made.states.x[:150])
    assert np.allclose(position.get_lines()[0].get_xdata(), np.arange(150) / 100)
    assert [line.get_ydata()[0] for line in position.get_lines()[1:]] == [-2.4, 2.4]
    drawn = angle.get_lines()[0].get_ydata()
    drawn = drawn[~np.isnan(drawn)]
    assert np.abs(drawn).max() <= np.pi + 1e-6
    assert np.allclose(np.cos(drawn), made.states.cos[:150], atol=1e-5)
    assert np.allclose(np.sin(drawn), made.states.sin[:150], atol=1e-5)
    assert np.allclose(action.get_lines()[0].get_ydata(), np.clip(made.actions[:150, 0], -1, 1))
    labels = [panel.get_ylabel() for panel in grid[:, 0]]
    assert (labels, action.get_xlabel()) == (["angle [rad]", "position [m]", "action"], "time [s]")
    assert texts(angle) == ["upright", "hanging", "hanging"]
    assert angle.get_title() == f"return {float(made.rewards[:150].sum()):.4g} in 150 steps"


def test_wrapped_angle_has_gaps_where_it_jumps():
    from matplotlib.figure import Figure

    states = {"theta": np.linspace(0, 4 * np.pi, 101)}
    made = SimpleNamespace(states=states, actions=np.zeros((101, 1)), rewards=np.ones(101), alive=np.ones(101, bool))
    figure = Figure()
    pictures.draw_behavior(figure, made)
    drawn = figure.axes[0].get_lines()[0].get_ydata()
    assert np.isnan(drawn).sum() == 2
    assert np.nanmax(np.abs(np.diff(drawn))) < 0.2


def test_an_action_that_flips_all_the_time_is_drawn_pale_with_its_mean_over_it():
    from matplotlib.figure import Figure

    flips = np.where(np.arange(100) % 4 < 3, 1.0, -1.0)  # 3 of 4 steps push one way
    steady = SimpleNamespace(states={"x": np.zeros(100)}, rewards=np.ones(100), alive=np.ones(100, bool))
    for actions, lines in ((flips, 2), (np.sin(np.arange(100) / 9), 1)):
        figure = Figure()
        pictures.draw_behavior(figure, SimpleNamespace(**vars(steady), actions=actions[:, None]))
        assert len(figure.axes[-1].get_lines()) == lines
        if lines == 2:
            mean = figure.axes[-1].get_lines()[1]
            assert np.allclose(mean.get_ydata(), 0.5, atol=1e-3)
            assert (mean.get_xdata()[0], mean.get_xdata()[-1]) == (20, 80)


def test_behavior_of_other_tasks_draws_every_part_of_the_state():
    from matplotlib.figure import Figure

    rng = np.random.default_rng(0)
    states = (np.arange(9.0), {"speed": rng.normal(size=(9, 2))})
    made = SimpleNamespace(
        states=states, actions=rng.normal(size=(9, 2)) * 5, rewards=np.ones(9), alive=np.ones(9, bool)
    )
    figure = Figure()
    pictures.draw_behavior(figure, made, action_limit=2)
    assert [panel.get_ylabel() for panel in figure.axes] == ["state 0", "state 1.speed.0", "state 1.speed.1", "action"]
    assert np.array_equal(figure.axes[2].get_lines()[0].get_ydata(), states[1]["speed"][:, 1])
    assert np.allclose(figure.axes[3].get_lines()[1].get_ydata(), np.clip(made.actions[:, 1], -2, 2))
    assert legend(figure.axes[3]) == ["action 1", "action 2"]
    assert figure.axes[3].get_xlabel() == "step"
    figure = Figure()
    pictures.draw_behavior(figure, made, names=["1.speed.1"])
    assert len(figure.axes) == 2
    with pytest.raises(ValueError, match=r"^names has 'x', which the state does not; it has 0, 1\.speed\.0"):
        pictures.draw_behavior(Figure(), made, names=["x"])
    with pytest.raises(ValueError, match=r"^actions of shape \(4, 2\) must be as long as alive, of shape \(9,\)$"):
        pictures.draw_behavior(Figure(), SimpleNamespace(**{**vars(made), "actions": made.actions[:4]}))
