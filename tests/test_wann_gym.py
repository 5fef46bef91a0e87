"""Environments of Gymnasium in worker processes: parity with a plain loop, seeds, errors, and nothing left behind."""

import dataclasses
import importlib.util
import math
import multiprocessing
import os
import signal
import sys
import warnings

import jax
import numpy as np
import pytest

from nnjax import wann
from nnjax.wann.tasks import gym, latents
from nnjax.wann.tasks.gym import GymTask, LanePolicy, biped, racer
from nnjax.wann.tasks.task import check_task
from nnjax.wann.tasks.workers import Workers

pytest.importorskip("gymnasium")
if importlib.util.find_spec("Box2D") is None:
    pytest.skip("needs Box2D: pip install 'nnjax[rl]'", allow_module_level=True)

SEEDS = [3, 1, 4, 1, 5, 9]
WEIGHTS = np.random.default_rng(1).normal(size=(24, 4))
BROKEN = """
import gymnasium, numpy as np

class Broken(gymnasium.Env):
    action_space = gymnasium.spaces.Box(-1, 1, (1,))
    observation_space = gymnasium.spaces.Box(-1, 1, (2,))

    def __init__(self, flaw=None, render_mode=None):
        self.flaw = flaw

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(2), {}

    def step(self, action):
        if self.flaw == "zero":
            1 / 0
        return np.zeros(2), 1.0, False, False, {}

gymnasium.register("Broken-v0", Broken)
"""


def policy(x):
    """Takes the walker through a few dozen steps to its fall; rounded, so that no batch differs by its rounding."""
    return np.round(2 * np.sin(np.float64(x) @ WEIGHTS), 4).astype(np.float32)


def idle(x):
    return np.zeros((len(x), 1))


def each_its_own(x, lanes):
    return policy(x) * np.float32(1 + lanes[:, None] % 3)


def plain_loop(seed, act=policy, most=1600):
    """The official environment, made and stepped as its documentation does: return, steps, last action and shaping."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import gymnasium

        environment = gymnasium.make("BipedalWalker-v3")
    observation, _ = environment.reset(seed=seed)
    total, steps, over = 0.0, 0, False
    while not over and steps < most:
        before = environment.unwrapped.prev_shaping
        action = np.clip(act(observation[None])[0], -1, 1)
        observation, reward, terminated, truncated, _ = environment.step(action)
        total, steps, over = total + float(reward), steps + 1, terminated or truncated
    progress = environment.unwrapped.prev_shaping - before
    environment.close()
    return total, steps, progress - 0.00035 * 80 * np.abs(action).sum(), terminated


def broken(**changes):
    """The environment of `BROKEN`, which the workers of the fixture can import."""
    return dataclasses.replace(GymTask("broken_environment:Broken-v0", 2, 1, 5, ((-1.0, 1.0),)), **changes)


@pytest.fixture(scope="module")
def workers(tmp_path_factory):
    folder = tmp_path_factory.mktemp("environments")
    (folder / "broken_environment.py").write_text(BROKEN)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        workers = Workers(2)
    with workers:
        yield workers
    assert not multiprocessing.active_children()


def test_returns_are_those_of_a_plain_loop(workers):
    found = biped(penalty=True).evaluate_lanes(policy, SEEDS, workers=workers)
    for lane, seed in enumerate(SEEDS):
        total, steps, _, terminated = plain_loop(seed)
        assert terminated
        assert total < -100
        assert steps == found.steps[lane]
        assert abs(total - found.returns[lane]) < 1e-6


def test_steps_end_an_episode(workers):
    found = biped(steps=7).evaluate_lanes(policy, SEEDS[:2], workers=workers)
    assert found.steps.tolist() == [7, 7]
    expected = [plain_loop(seed, most=7)[0] for seed in SEEDS[:2]]
    np.testing.assert_allclose(found.returns, expected, atol=1e-6)


def test_without_penalty_the_last_step_earns_as_any_other(workers):
    free = biped().evaluate_lanes(policy, SEEDS, workers=workers)
    for lane, seed in enumerate(SEEDS):
        total, _, last, _ = plain_loop(seed)
        assert abs(last) > 1e-3
        assert abs(free.returns[lane] - (total + 100 + last)) < 1e-6


def test_seeds_decide_and_nothing_else_does(workers):
    """The same lanes with another number of workers, window, order, and after other episodes."""
    task, lanes = biped(), LanePolicy(lambda x, _: policy(x))
    first = task.evaluate_lanes(lanes, SEEDS, workers=workers)
    assert first.returns[1] == first.returns[3]
    assert len({*first.returns}) == len({*SEEDS})
    again = task.evaluate_lanes(lanes, SEEDS, workers=workers)
    turned = task.evaluate_lanes(lanes, SEEDS[::-1], workers=workers, window=2)
    alone = task.evaluate_lanes(lanes, SEEDS, workers=1, window=1)
    np.testing.assert_array_equal(first, again)
    np.testing.assert_allclose(first.returns, turned.returns[::-1], atol=1e-6)
    np.testing.assert_allclose(first.returns, alone.returns, atol=1e-6)


def test_a_policy_of_groups_has_few_batches_and_its_own_lanes(workers):
    batches = []

    def call(x, groups):
        batches.append(len(x))
        return each_its_own(x, (2 * groups[:, None] + np.arange(2)).ravel())

    seeds = np.arange(40)
    found = biped().evaluate_lanes(LanePolicy(call, group=2), seeds, workers=workers, window=16)
    assert {*batches} == {16, 8, 4, 2}
    for lane in (0, 17, 39):
        total, steps, last, _ = plain_loop(int(seeds[lane]), lambda x, lane=lane: each_its_own(x, np.array([lane])))
        assert steps == found.steps[lane]
        assert abs(found.returns[lane] - (total + 100 + last)) < 1e-6


def test_not_a_number_ends_an_episode_and_stays(workers):
    """Infinite outputs are clipped; NaN ends its lane alone."""

    def call(x, lanes):
        return np.where(lanes[:, None] == 1, np.nan, np.where(lanes[:, None] == 2, np.inf, policy(x)))

    found = biped(steps=5).evaluate_lanes(LanePolicy(call), [1, 1, 1], workers=workers)
    assert np.isnan(found.returns).tolist() == [False, True, False]
    assert found.steps.tolist() == [5, 1, 5]


def test_population_means_over_repetitions(workers):
    space, shared, key = wann.Space(24, 4, 34), (-1.0, 0.5, 2.0), jax.random.key(7)
    population = jax.vmap(lambda key: wann.minimal(key, space, 0.3))(jax.random.split(jax.random.key(0), 3))
    task = biped(steps=30, penalty=True)
    found = gym.evaluate_host(population, space, task, shared, key, repetitions=2, workers=workers, window=12)
    assert found.shape == (3, 3)
    assert found.dtype == np.float32
    net = jax.jit(lambda x: wann.forward(jax.tree.map(lambda leaf: leaf[2], population), space, shared[1], x))
    seeds = gym.environment_seeds(key, 2)
    assert len({*seeds.tolist()}) == 2
    np.testing.assert_array_equal(seeds, gym.environment_seeds(key, 2))
    totals = [plain_loop(int(seed), lambda x: np.asarray(net(x)), most=30)[0] for seed in seeds]
    assert abs(found[2, 1] - np.mean(totals)) < 1e-3  # rounding of another batch, once amplified by contacts
    with pytest.raises(ValueError, match="the space has 5 inputs"):
        gym.evaluate_host(population, wann.Space(5, 4, 34), task, shared, key, workers=workers)
    strange = population._replace(activations=population.activations.at[1, -1].set(10))
    with pytest.raises(ValueError, match="activations hold the code 10; expected 0 to 9"):
        gym.evaluate_host(strange, space, task, shared, key, workers=workers)
    with pytest.raises(ValueError, match="for max_nodes=40"):
        gym.evaluate_host(population, wann.Space(24, 4, 40), task, shared, key, workers=workers)


def test_recording_is_the_episode(workers):
    task = biped(penalty=True)
    recording = task.record(policy, 3, every=10, workers=workers)
    total, steps, _, _ = plain_loop(3)
    assert recording.frames.shape == (math.ceil(steps / 10), 400, 600, 3)
    assert recording.frames.dtype == np.uint8
    assert (recording.frames[0] != recording.frames[-1]).any()
    assert recording.observations.shape == (steps, 24)
    np.testing.assert_array_equal(recording.actions, np.clip(policy(recording.observations), -1, 1))
    assert abs(recording.rewards.sum() - total) < 1e-6


def test_racer_sees_latents_and_drives(workers, tmp_path):
    encoder = gym.fit_latents(jax.random.key(0), components=4, episodes=2, steps=12, every=2, hold=3, workers=workers)
    other = gym.fit_latents(jax.random.key(0), components=4, episodes=2, steps=12, every=2, hold=3, workers=1)
    np.testing.assert_array_equal(encoder.components, other.components)
    path = str(tmp_path / "racer.npz")
    latents.save_latents(encoder, path)
    seen = []

    def drive(x):
        seen.append(x.copy())
        return np.array([[2.0, 0.5, -3.0]], np.float32)

    task = racer(latents=path, inputs=4, steps=4)
    found = task.evaluate_lanes(drive, [5], workers=workers)
    recording = task.record(drive, 5, every=4, workers=workers)
    assert found.steps.tolist() == [4]
    np.testing.assert_allclose(recording.rewards.sum(), found.returns[0], atol=1e-9)
    np.testing.assert_allclose(recording.actions, np.tile([1, 0.75, 0], (4, 1)), rtol=1e-6)
    np.testing.assert_array_equal(recording.observations, np.concatenate(seen[:4]))
    assert np.isfinite(recording.observations).all()
    with pytest.raises(ValueError, match="gives 4 numbers an image, not inputs=16"):
        racer(latents=path).evaluate_lanes(drive, [5])
    with pytest.raises(ValueError, match="16 latents needs latents='FILE'"):
        racer().evaluate_lanes(drive, [5])


def test_latents_are_principal_components(tmp_path):
    rng = np.random.default_rng(0)
    basis = rng.normal(size=(6, latents.PIXELS)) * np.array([6, 5, 4, 3, 2, 1])[:, None]
    images = (rng.normal(size=(40, 6)) @ basis + 0.3).astype(np.float32)
    encoder = latents.principal_components(images, 4)
    codes = encoder.encode(images)
    np.testing.assert_allclose(np.cov(codes.T), np.eye(4), atol=1e-3)
    exact = np.linalg.svd(images - images.mean(0), compute_uv=False) ** 2
    np.testing.assert_allclose(encoder.explained, exact[:4] / exact.sum(), rtol=1e-4)
    path = tmp_path / "encoder.npz"
    latents.save_latents(encoder, path)
    for ours, read in zip(encoder, latents.load_latents(path), strict=True):
        np.testing.assert_array_equal(ours, read)
    frame = np.zeros((96, 96, 3), np.uint8)
    frame[84:] = 255  # the instruments
    assert latents.image(frame).shape == (latents.PIXELS,)
    assert latents.image(frame).max() == 0
    with pytest.raises(ValueError, match="4 images are too few for 4 components"):
        latents.principal_components(images[:4], 4)
    with pytest.raises(ValueError, match="vary in fewer than 8 directions"):
        latents.principal_components(images, 8)
    with pytest.raises(ValueError, match="is no file; fit_latents"):
        latents.load_latents(tmp_path / "none.npz")
    path.write_text("nothing")
    with pytest.raises(ValueError, match="holds no encoder"):
        latents.load_latents(path)


def test_no_worker_outlives_its_call():
    """Whatever ends it: success, an error of the policy, or Ctrl-C."""
    task = biped(steps=2)
    before = {*multiprocessing.active_children()}
    task.evaluate_lanes(policy, SEEDS[:2], workers=1)
    assert {*multiprocessing.active_children()} == before
    for error in (ZeroDivisionError, KeyboardInterrupt):

        def fail(x, error=error):
            raise error

        with pytest.raises(error):
            task.evaluate_lanes(fail, SEEDS[:2], workers=1)
        assert {*multiprocessing.active_children()} == before


def test_open_workers_go_on_after_an_error(workers):
    """An error of the policy, one of the environment and one of the task, each a sentence; then all is as before."""
    task = biped(steps=30)
    expected = task.evaluate_lanes(policy, SEEDS, workers=workers)

    def fail(x):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        task.evaluate_lanes(fail, SEEDS, workers=workers)
    assert broken().evaluate_lanes(idle, SEEDS, workers=workers).returns.tolist() == [5.0] * 6
    sentence = "broken_environment:Broken-v0, seed 3, step 1: ZeroDivisionError: division by zero"
    with pytest.raises(RuntimeError, match=sentence):
        broken(options=(("flaw", "zero"),)).evaluate_lanes(idle, [3], workers=workers)
    with pytest.raises(ValueError, match=r"inputs=3, but an observation of .* has 2"):
        broken(inputs=3).evaluate_lanes(idle, SEEDS, workers=workers)
    with pytest.raises(ValueError, match=r"outputs=2, but the action space of .* is Box\(-1.0, 1.0, \(1,\)"):
        broken(outputs=2, clip=((-1.0, 1.0),) * 2).evaluate_lanes(idle, SEEDS, workers=workers)
    with pytest.raises(ValueError, match="environment='Nothing-v0' cannot be made"):
        broken(environment="Nothing-v0").evaluate_lanes(idle, SEEDS, workers=workers)
    with pytest.raises(ValueError, match=r"outputs of shape \(6, 1\); expected \(6, 4\)"):
        task.evaluate_lanes(idle, SEEDS, workers=workers)
    np.testing.assert_array_equal(task.evaluate_lanes(policy, SEEDS, workers=workers), expected)


def test_a_dead_worker_is_reported():
    task = biped(steps=3)
    with Workers(1) as workers:
        process = workers.processes[0]
        task.evaluate_lanes(policy, [1], workers=workers)
        os.kill(process.pid, signal.SIGKILL)
        with pytest.raises(RuntimeError, match="worker 0 for environments ended unexpectedly with exit code -9"):
            task.evaluate_lanes(policy, [1], workers=workers)
        with pytest.raises(RuntimeError, match="the workers are closed"):
            task.evaluate_lanes(policy, [1], workers=workers)


@pytest.mark.parametrize("package", ["gymnasium", "Box2D"])
def test_a_missing_package_is_one_sentence(monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    for error in (ImportError, ValueError):
        with pytest.raises(error, match=rf"BipedalWalker-v3 needs the package {package}: pip install 'nnjax\[rl\]'"):
            biped().evaluate_lanes(policy, [1])


def test_tasks_are_values():
    assert biped() == biped()
    assert hash(biped()) == hash(biped())
    assert biped() != biped(penalty=True)
    assert (biped().inputs, biped().outputs, biped().steps) == (24, 4, 1600)
    assert (racer().inputs, racer().outputs, racer().steps) == (16, 3, 1000)
    assert check_task(biped()) == check_task(racer()) == "host"


def test_outputs_are_squashed_to_the_range_of_actions():
    outputs = np.array([[-9, -9, -9], [9, 9, 9], [0.5, 0.5, 0.5], [np.nan, 0, 0]])
    expected = np.array([[-1, 0, 0], [1, 1, 1], [0.5, 0.75, 0.5], [np.nan, 0.5, 0]], np.float32)
    np.testing.assert_array_equal(racer().squash(outputs), expected)
    np.testing.assert_array_equal(biped().squash([-2, -0.5, 0.5, 2]), np.array([-1, -0.5, 0.5, 1], np.float32))


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"steps": 0}, "steps=0 must be a whole number, at least 1"),
        ({"clip": ((-1.0, 1.0),)}, "must be 4 pairs"),
        ({"actions": ((1.0, 1.0),) * 4}, "must be 4 pairs"),
        ({"environment": "CarRacing-v3"}, "penalty=False is for the BipedalWalker"),
        ({"latents": "x"}, "latents='x' are of images"),
    ],
)
def test_wrong_tasks(wrong, sentence):
    with pytest.raises(ValueError, match=sentence):
        dataclasses.replace(biped(), **wrong)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"seeds": [0.5]}, r"seeds of shape \(1,\) and type float64 must be"),
        ({"seeds": [[1]]}, r"seeds of shape \(1, 1\)"),
        ({"seeds": [-1]}, "seeds from -1 to -1 must lie between 0"),
        ({"seeds": [1], "workers": 0}, "workers=0 must be"),
        ({"seeds": [1], "window": 0}, "window=0 must be"),
        ({"seeds": [1], "policy": LanePolicy(policy, group=2)}, "1 seeds cannot be split into groups of 2"),
    ],
)
def test_wrong_arguments(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        biped().evaluate_lanes(**{"policy": policy, **arguments})
