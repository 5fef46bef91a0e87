"""The search: the same with every number of devices, blocks and searches at once, killed or not; and it finds nets."""

import dataclasses
import importlib
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnjax import wann
from nnjax.wann.genome import ENABLED
from nnjax.wann.tasks import Pendulum, SwingUp, xor
from nnjax.wann.tasks.workers import Workers

module = importlib.import_module("nnjax.wann.search")  # `nnjax.wann.search` is the function

TASK = Pendulum(steps=12)
CONFIG = wann.Config(
    population=13, generations=8, repetitions=2, shared_weights=(-1.0, 0.5, 2.0), max_nodes=10, block=3,
    selection=wann.Selection(tournament=2, elite=0.4), enabled=0.7,
)  # fmt: skip
KEY = jax.random.key(5)


@pytest.fixture(scope="module", autouse=True)
def _compile_fast():
    """Compilation takes most of the time of these tests."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


class _Memory:
    """A store that forgets nothing."""

    def __init__(self):
        self.kept, self.all = {}, []

    def load(self, identity):
        return self.kept.get(identity)

    def save(self, identity, arrays, facts):
        self.kept[identity] = {name: np.array(value) for name, value in arrays.items()}
        self.all.append(self.kept[identity])


def _plain(tree):
    return [
        np.asarray(jax.random.key_data(leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf)
        for leaf in jax.tree.leaves(tree)
    ]


def _same(one, other):
    for a, b in zip(_plain(one), _plain(other), strict=True):
        np.testing.assert_array_equal(a, b)


def _alike(one, other):
    """The same nets, from programs of which each may round its own way."""
    for a, b in zip(_plain(one), _plain(other), strict=True):
        if a.dtype.kind == "f":
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
        else:
            np.testing.assert_array_equal(a, b)


def _compiled(messages):
    return [text for text in messages if re.search(r"Compiling jit\(_advance\)", text)]


_breed = jax.jit(wann.next_generation, static_argnames=("space", "config"))


@pytest.fixture(scope="module")
def course():
    """A search, and its state after every generation."""
    states = [wann.search(TASK, dataclasses.replace(CONFIG, generations=n + 1), KEY)[0] for n in range(8)]
    return wann.search(TASK, CONFIG, KEY), [jax.tree.map(np.asarray, each._replace(key=())) for each in states]


def test_generation_0_is_that_of_minimal_nets(course):
    (state, _), states = course
    assert len(states) == CONFIG.generations == state.generation
    space = CONFIG.space(TASK)
    first = states[0].population
    wann.check(first, space)
    wann.check(state.population, space)
    assert (first.hidden == 0).all()
    assert len(np.unique(first.connections, axis=0)) > 4, "they differ"
    born = first.connections[:, : 1 + space.inputs, space.first_output :]
    assert (born > 0).all()
    assert 0.5 < (born == ENABLED).mean() < 0.9
    assert state.population.hidden.max() > 0


def test_every_generation_is_bred_from_the_one_before_and_evaluated_anew(course):
    (_, history), states = course
    space, steps = CONFIG.space(TASK), 13 * 3 * 2 * 12
    for number, state in enumerate(states):
        vary, episodes = jax.random.split(jax.random.fold_in(KEY, number))
        if number:
            before = states[number - 1]
            expected, info = _breed(
                vary, before.population, before.fitness.mean(1), before.fitness.max(1),
                wann.connection_count(before.population), space, CONFIG.selection,
            )  # fmt: skip
            _same(state.population, expected)
            elites = CONFIG.selection.elites(13)
            assert elites == 4
            for child, parent in zip(*map(jax.tree.leaves, (state.population, before.population)), strict=True):
                np.testing.assert_array_equal(child[:elites], parent[np.asarray(info.order)[:elites]])
        fitness = wann.evaluate(state.population, space, TASK, CONFIG.shared_weights, episodes, repetitions=2)
        np.testing.assert_allclose(state.fitness, fitness, rtol=2e-3, atol=2e-3)
        assert state.steps == steps * (number + 1)
        _history_is_right(jax.tree.map(lambda leaf, number=number: leaf[number], history), state, space, steps)


def _history_is_right(row, state, space, steps):
    mean = state.fitness.mean(1)
    first = int(np.argmax(mean))
    connections = (state.population.connections == ENABLED).sum((1, 2))
    nodes = state.population.hidden + 1 + space.inputs + space.outputs
    np.testing.assert_allclose(row.elite_mean, mean.max(), rtol=1e-6)
    np.testing.assert_allclose(row.median_return, np.median(mean), rtol=1e-6)
    assert row.elite_max == state.fitness[first].max()
    assert (row.elite_nodes, row.elite_connections) == (nodes[first], connections[first])
    assert row.best_max == state.fitness.max()
    assert (row.nodes, row.connections) == (np.median(nodes), np.median(connections))
    assert (row.failed, row.steps) == (0, steps)


def test_the_best_ever_is_kept_and_never_falls(course):
    (state, history), states = course
    bests = [each.best_return for each in states]
    np.testing.assert_array_equal(bests, np.maximum.accumulate(history.elite_mean))
    assert (np.diff(bests) >= 0).all()
    at = int(np.argmax(history.elite_mean))
    assert at < len(states) - 1 or bests[-1] > bests[0]
    winner = np.argmax(states[at].fitness.mean(1))
    _same(state.best, jax.tree.map(lambda leaf: leaf[winner], states[at].population))


def test_a_search_compiles_once_whatever_its_blocks(course, caplog):
    calls = []
    module._advance.clear_cache()
    with jax.log_compiles():
        end = wann.search(TASK, CONFIG, KEY, progress=lambda *now: calls.append((now[0], now[1], now[2].nodes.shape)))
    _same(end, course[0])
    assert calls == [(3, 8, (1, 3)), (6, 8, (1, 6)), (8, 8, (1, 8))]
    assert len(_compiled(caplog.messages)) == 1


class _KilledError(Exception):
    pass


def _kill_after(generations):
    def progress(done, total, history):
        if done >= generations:
            raise _KilledError

    return progress


def test_a_killed_search_goes_on_and_ends_the_same(course, tmp_path):
    for _ in range(2):  # killed twice
        with pytest.raises(_KilledError):
            wann.search(TASK, CONFIG, KEY, checkpoint=tmp_path, progress=_kill_after(3))
    dones = []
    end = wann.search(TASK, CONFIG, KEY, checkpoint=tmp_path, progress=lambda done, *_: dones.append(done))
    assert dones == [8]
    _same(end, course[0])
    assert len(list(tmp_path.iterdir())) == 2
    dones.clear()
    _same(wann.search(TASK, CONFIG, KEY, checkpoint=tmp_path, progress=lambda done, *_: dones.append(done)), end)
    assert not dones, "a search that has ended is not made again"
    with pytest.raises(ValueError, match="generations=6 must be at least 8, those of the search at checkpoint"):
        wann.search(TASK, dataclasses.replace(CONFIG, generations=6), KEY, checkpoint=tmp_path)


def test_a_damaged_checkpoint_is_left_for_the_one_before(course, tmp_path):
    with pytest.raises(_KilledError):
        wann.search(TASK, CONFIG, KEY, checkpoint=tmp_path, progress=_kill_after(6))
    later = max(tmp_path.iterdir(), key=lambda path: int(np.load(path)["progress"]))
    later.write_bytes(later.read_bytes()[:1000])
    dones = []
    _same(wann.search(TASK, CONFIG, KEY, checkpoint=tmp_path, progress=lambda now, *_: dones.append(now)), course[0])
    assert dones == [6, 8]
    for path in tmp_path.iterdir():
        path.write_bytes(b"nothing")
    dones.clear()
    with pytest.warns(
        UserWarning, match=f"no state of this search can be read in {str(tmp_path)!r} .* starts anew"
    ) as told:
        end = wann.search(TASK, CONFIG, KEY, checkpoint=tmp_path, progress=lambda now, *_: dones.append(now))
    assert [warning.filename for warning in told] == [__file__], "it is told where the search was called"
    _same(end, course[0])
    assert dones == [3, 6, 8]


def test_a_longer_search_goes_on_from_a_shorter_one(course, tmp_path, caplog):
    short = dataclasses.replace(CONFIG, generations=4)
    state, history = wann.search(TASK, short, KEY, checkpoint=tmp_path)
    assert state.generation == len(history.nodes) == 4
    with jax.log_compiles():
        _same(wann.search(TASK, CONFIG, KEY, checkpoint=tmp_path), course[0])
    assert not _compiled(caplog.messages), "generations are no part of the program"


def test_searches_at_once_are_those_alone(course):
    keys = jnp.stack([KEY, jax.random.key(6)])
    both = wann.search(TASK, CONFIG, keys)
    assert both[0].fitness.shape == (2, 13, 3)
    assert both[1].nodes.shape == (2, 8)
    _alike(jax.tree.map(lambda leaf: leaf[0], both), course[0])
    alone = wann.search(TASK, CONFIG, keys[1])
    _alike(jax.tree.map(lambda leaf: leaf[1], both), alone)
    assert not np.array_equal(alone[0].fitness, course[0][0].fitness), "another key is another search"
    _alike(wann.search(TASK, CONFIG, keys[1:]), jax.tree.map(lambda leaf: leaf[None], alone))


@pytest.mark.slow
def test_the_number_of_devices_changes_nothing(course, monkeypatch):
    assert jax.local_device_count() == 2
    devices = jax.local_devices()[:1]
    monkeypatch.setattr(jax, "local_device_count", lambda: 1)
    monkeypatch.setattr(jax, "local_devices", lambda: devices)
    _alike(wann.search(TASK, CONFIG, KEY), course[0])


def test_islands_send_their_best_to_the_next_one(caplog):
    config = dataclasses.replace(
        CONFIG, islands=3, migrate_every=3, migrants=2, block=4, repetitions=1, generations=7, shared_weights=(0.5, 1.0)
    )
    store = _Memory()
    with jax.log_compiles():
        end = wann.search(TASK, config, KEY, checkpoint=store)
    assert len(_compiled(caplog.messages)) == 1
    assert end[0].fitness.shape == (3, 13, 2)
    structure = jax.tree.structure(end)
    at = {}
    for arrays in store.all:
        state = jax.tree.unflatten(structure, [arrays[f"leaf{i}"] for i in range(len(arrays) - 1)])[0]
        at[int(state.generation[0])] = state
    assert [*at] == [3, 4, 6, 7]
    first = dataclasses.replace(config, generations=1)
    apart = dataclasses.replace(first, migrate_every=0)
    _same(wann.search(TASK, first, KEY), wann.search(TASK, apart, KEY))  # what has no returns does not move
    before, after, space = at[3], at[4], config.space(TASK)
    order = np.argsort(-before.fitness.mean(2), axis=1, kind="stable")
    keys = jax.random.split(KEY, 3)
    for island in range(3):
        source, best, worst = (island - 1) % 3, order[(island - 1) % 3, :2], order[island, -2:]
        population, fitness = jax.tree.map(lambda leaf, i=island: leaf[i].copy(), (before.population, before.fitness))
        for mine, others in zip(*map(jax.tree.leaves, (population, before.population)), strict=True):
            mine[worst] = others[source, best]
        fitness[worst] = before.fitness[source, best]
        vary = jax.random.split(jax.random.fold_in(keys[island], 3))[0]
        expected, _ = _breed(
            vary,
            population,
            fitness.mean(1),
            fitness.max(1),
            wann.connection_count(population),
            space,
            config.selection,
        )
        _same(jax.tree.map(lambda leaf, i=island: leaf[i], after.population), expected)


@pytest.mark.slow
def test_another_length_of_blocks_changes_nothing(course):
    _alike(wann.search(TASK, dataclasses.replace(CONFIG, block=5), KEY), course[0])


def test_a_single_island_keeps_to_itself(course):
    _same(wann.search(TASK, dataclasses.replace(CONFIG, migrate_every=2), KEY), course[0])


@dataclasses.dataclass(frozen=True)
class _Trap:
    """A net earns what it puts out; more than the limit is not a number."""

    inputs, outputs, steps, params = 3, 1, 5, 5.0

    def reset(self, params, key):
        return jax.random.normal(key, (3,))

    def observe(self, params, state):
        return state

    def step(self, params, state, action):
        reward = jnp.abs(action[0])
        return 0.9 * state, jnp.where(reward > params, jnp.nan, reward), reward < -1


TRAPPED = dataclasses.replace(CONFIG, block=1, generations=6)


def test_returns_that_are_not_numbers_rank_last_and_are_never_best():
    store = _Memory()
    (state, history) = end = wann.search(_Trap(), TRAPPED, KEY, checkpoint=store)
    assert 4 < history.failed.max() < 13
    assert np.isfinite(history.elite_mean).all()
    assert np.isfinite(state.best_return)
    assert not np.isnan(np.concatenate([np.ravel(leaf) for leaf in history])).any()
    structure = jax.tree.structure(end)
    for number, arrays in enumerate(store.all):
        each = jax.tree.unflatten(structure, [arrays[f"leaf{i}"][0] for i in range(len(arrays) - 1)])[0]
        finite = np.isfinite(each.fitness).all(1)
        assert history.failed[number] == (~finite).sum()
        assert history.best_max[number] == each.fitness[finite].max()
        np.testing.assert_allclose(history.elite_mean[number], each.fitness[finite].mean(1).max(), rtol=1e-6)


def test_a_search_without_any_finite_return_ends():
    state, history = wann.search(_Trap(), TRAPPED, KEY, params=-1.0)
    assert (history.failed == 13).all()
    assert (history.elite_mean == -np.inf).all()
    assert state.best_return == -np.inf
    assert not np.isnan(history.median_return).any()
    wann.check(state.best, TRAPPED.space(_Trap()))


def test_xor_is_found_and_its_returns_are_those_of_the_nets():
    task = xor()
    selection = wann.Selection(tournament=4, by_connections=0.3)
    config = wann.Config(population=128, generations=40, repetitions=1, max_nodes=12, block=20, selection=selection)
    keys = jax.random.split(jax.random.key(0), 3)  # which two devices cannot share evenly
    state, history = wann.search(task, config, keys)
    space = config.space(task)
    right = [
        max(
            float(task.accuracy(task.params, lambda x, net=net, w=w: wann.forward(net, space, w, x)))
            for w in config.shared_weights
        )
        for net in (jax.tree.map(lambda leaf, i=i: leaf[i], state.best) for i in range(3))
    ]
    assert right.count(1) >= 2, "three of three here, but ties in rounding decide"
    np.testing.assert_allclose(history.elite_mean[:, 0], -np.log(2), atol=0.01, err_msg="no linear net knows it")
    assert (history.elite_mean[:, -1] > history.elite_mean[:, 0] + 0.05).all()
    assert (history.steps == 0).all()
    nets = jax.tree.map(lambda leaf: leaf[1], state.population)
    fitness = wann.evaluate(nets, space, task, config.shared_weights, KEY)
    np.testing.assert_allclose(state.fitness[1], fitness, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_lists_of_genes_are_searched_as_matrices_are(course):
    config = dataclasses.replace(CONFIG, edges=40)
    state, history = wann.search(TASK, config, KEY)
    assert isinstance(state.population, wann.EdgeGenome)
    wann.check(state.population, config.space(TASK))
    _alike(state.fitness, course[0][0].fitness)
    _alike(history, course[0][1])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"population": 0}, "population=0 must be a whole number, at least 1"),
        ({"population": 2.5}, "population=2.5 must be a whole number"),
        ({"generations": 0}, "generations=0 must be a whole number, at least 1"),
        ({"repetitions": 0}, "repetitions=0"),
        ({"block": 0}, "block=0"),
        ({"islands": 0}, "islands=0"),
        ({"migrate_every": -1}, "migrate_every=-1 must be a whole number, at least 0"),
        ({"migrants": 7, "migrate_every": 2}, "migrants=7 must be at most half of population=13"),
        ({"enabled": 1.5}, "enabled=1.5 must be a probability"),
        ({"shared_weights": ()}, r"shared_weights=\(\) must be one or more finite numbers"),
        ({"shared_weights": (1.0, np.nan)}, r"shared_weights=\(1.0, nan\) must be"),
        ({"layout": (0, 5)}, "layout=0 must be a whole number, at least 1"),
        ({"layout": (5,)}, r"layout=\(5,\) must be two numbers"),
        ({"layout": 5}, "layout=5 must be two numbers, units and steps"),
        ({"layout": "ab"}, "layout='ab' must be two numbers"),
        ({"enabled": None}, "enabled=None must be a probability, between 0 and 1"),
        ({"enabled": "half"}, "enabled='half' must be a probability"),
        ({"enabled": (0.5, 0.5)}, r"enabled=\(0.5, 0.5\) must be a probability"),
        ({"activations": "tanh"}, r"activations='tanh' must be None or a tuple of names, such as \('tanh', 'relu'\)"),
        ({"activations": 5}, "activations=5 must be None or a tuple of names"),
        ({"activations": ("tanh", 5)}, r"activations=\('tanh', 5\) must be None or a tuple of names"),
        ({"shared_weights": None}, "shared_weights=None must be one or more finite numbers"),
        ({"shared_weights": 2.0}, "shared_weights=2.0 must be one or more finite numbers"),
        ({"shared_weights": "one"}, "shared_weights='one' must be one or more finite numbers"),
        ({"shared_weights": {"a": 1}}, r"shared_weights=\{'a': 1\} must be one or more finite numbers"),
        ({"shared_weights": ((1.0, 2.0), (3.0,))}, "must be one or more finite numbers"),
        ({"selection": None}, "selection=None must be a Selection, from nnjax.wann"),
    ],
)
def test_a_config_says_what_is_wrong(changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(CONFIG, **changes)


def test_a_search_says_what_does_not_go_together():
    with pytest.raises(ValueError, match="max_nodes=4 must lie between 5"):
        wann.search(TASK, dataclasses.replace(CONFIG, max_nodes=4), KEY)
    with pytest.raises(ValueError, match="edges=2 must be at least 4"):
        wann.search(TASK, dataclasses.replace(CONFIG, edges=2), KEY)
    with pytest.raises(ValueError, match="'tan' is not one of"):
        wann.search(TASK, dataclasses.replace(CONFIG, activations=("tan",)), KEY)
    with pytest.raises(ValueError, match="task Half has no step"):
        wann.search(type("Half", (), {"inputs": 1, "outputs": 1, "steps": 2, "params": (), "reset": 1, "observe": 1})(),
                    CONFIG, KEY)  # fmt: skip
    for key in (jax.random.PRNGKey(0), 0, jax.random.split(KEY, (2, 2)), jax.random.split(KEY, 0)):
        with pytest.raises(ValueError, match=r"key of shape .* must be a typed key or several, \(S,\)"):
            wann.search(TASK, CONFIG, key)


class _Found(NamedTuple):
    returns: np.ndarray
    steps: np.ndarray


_calls = []


@dataclasses.dataclass(frozen=True)
class _Host:
    """Episodes of a step outside JAX: the return of a lane is its output for the observation (1, seed mod 7)."""

    host: ClassVar[bool] = True
    inputs: ClassVar[int] = 2
    outputs: ClassVar[int] = 1

    def evaluate_lanes(self, policy, seeds, *, workers=None, window=None):
        _calls.append((workers, len(workers)))
        groups = np.arange(len(seeds) // policy.group)
        seen = np.stack([np.ones(len(seeds)), np.asarray(seeds) % 7], 1).astype(np.float32)
        return _Found(np.asarray(policy.call(seen, groups), float)[:, 0], np.ones(len(seeds), int))


def test_a_search_on_the_host_is_told_its_workers():
    _calls.clear()
    config = dataclasses.replace(CONFIG, generations=2)
    with Workers(1) as pool:
        state, history = wann.search(_Host(), config, KEY, workers=pool)
        assert _calls == [(pool, 1)] * 2
        assert pool.processes[0].is_alive(), "open ones are left open"
    assert state.fitness.shape == (13, 3)
    assert history.steps.tolist() == [13 * 3 * 2] * 2
    _same(wann.search(_Host(), config, KEY, workers=1), (state, history))
    own = _calls[2][0]
    assert _calls[2:] == [(own, 1)] * 2
    assert own is not pool
    with pytest.raises(RuntimeError, match="closed"):
        own.send(0)


def test_what_a_search_would_drop_is_refused():
    with pytest.raises(ValueError, match=r"params=\(\) must be None for task _Host, which runs on the host"):
        wann.search(_Host(), CONFIG, KEY, params=())
    with pytest.raises(ValueError, match="workers=2 must be None for task Pendulum, which does not run on the host"):
        wann.search(TASK, CONFIG, KEY, workers=2)
    with pytest.raises(ValueError, match="workers=0 must be a whole number, at least 1"):
        wann.search(_Host(), CONFIG, KEY, workers=0)


def test_lists_are_as_good_as_tuples():
    listed = dataclasses.replace(CONFIG, shared_weights=[-1, 0.5, 2], activations=["tanh", "sin_pi"], layout=[4, 5])
    assert listed == dataclasses.replace(CONFIG, activations=("tanh", "sin_pi"), layout=(4, 5))
    assert hash(listed)
    assert listed.space(TASK).activations == ("tanh", "sin_pi")
    assert CONFIG.space(type("Own", (SwingUp,), {"activations": ("relu",)})()).activations == ("relu",)


KILLED = """
import sys
sys.path.insert(0, {tests!r})
import jax
jax.config.update("jax_num_cpu_devices", 2)
jax.config.update("jax_disable_most_optimizations", True)  # so that it rounds as here
import test_wann_search as t
def progress(done, total, history):
    print(done, flush=True)
    if done >= 6:
        import time
        time.sleep(600)
t.wann.search(t.TASK, t.CONFIG, t.KEY, checkpoint={folder!r}, progress=progress)
"""


@pytest.mark.slow
def test_a_search_that_is_shot_goes_on_and_ends_the_same(course, tmp_path):
    code = KILLED.format(tests=str(Path(__file__).parent), folder=str(tmp_path))
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env={**os.environ})
    try:
        assert [process.stdout.readline() for _ in range(2)] == [b"3\n", b"6\n"]
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    dones = []
    _same(wann.search(TASK, CONFIG, KEY, checkpoint=tmp_path, progress=lambda now, *_: dones.append(now)), course[0])
    assert dones == [8]


@pytest.mark.slow
def test_a_search_in_double_precision_is_one():
    with jax.enable_x64(True):
        state, history = wann.search(TASK, dataclasses.replace(CONFIG, generations=4), KEY)
        assert state.fitness.dtype == state.best_return.dtype == history.elite_mean.dtype == np.float64
        assert history.failed.sum() == 0
