"""Tasks that nets steer: equations, starts, ends and rewards."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnjax.wann import tasks
from nnjax.wann.tasks import acrobot, pendulum, swing_up, task, trigonometry

COUNT = 10_000
CONTROL = {
    "swing_up": tasks.SwingUp(),
    "pendulum": tasks.Pendulum(),
    "acrobot": tasks.Acrobot(),
    "acrobot_discrete": tasks.Acrobot(discrete=True),
}


def _states(module, columns, dtype=np.float32):
    """States of a task from angles, places and velocities, each (n,); the sines and cosines are those of the angles."""
    columns = [np.asarray(column, dtype) for column in columns]
    if module is swing_up:
        return swing_up.State(*columns, np.cos(columns[2]), np.sin(columns[2]))
    if module is pendulum:
        return pendulum.State(*columns, np.cos(columns[0]), np.sin(columns[0]))
    trigonometric = [function(column) for column in columns[:2] for function in (np.cos, np.sin)]
    return acrobot.State(*columns, *trigonometric)


@functools.cache
def _step(one):
    return jax.jit(jax.vmap(one.step, (None, 0, 0)))


def _stepped(one, module, columns, actions, dtype=np.float32):
    """All states one step further, as (columns (n, k), rewards, done), float64."""
    after, reward, done = _step(one)(one.params, _states(module, columns, dtype), np.asarray(actions, dtype))
    assert all(leaf.dtype == dtype for leaf in after)
    assert reward.dtype == dtype
    assert done.dtype == bool
    return np.stack(after[: len(columns)], 1).astype(float), np.asarray(reward, float), np.asarray(done)


# The equations once more, in NumPy and float64, as Gaier and Ha (2019) and Gymnasium state them.


def _swing_up(state, action):
    x, v, t, w = state.T
    g, m_cart, m, length, b, dt = 9.82, 0.5, 0.5, 0.6, 0.1, 0.01
    total, u, s, c = m_cart + m, 10 * np.clip(action[:, 0], -1, 1), np.sin(t), np.cos(t)
    a = (-2 * m * length * w**2 * s + 3 * m * g * s * c + 4 * u - 4 * b * v) / (4 * total - 3 * m * c**2)
    turn = (-3 * m * length * w**2 * s * c + 6 * total * g * s + 6 * (u - b * v) * c) / (
        4 * length * total - 3 * m * length * c**2
    )
    after = np.stack([x + v * dt, v + a * dt, t + w * dt, w + turn * dt], 1)
    reward = (np.cos(after[:, 2]) + 1) / 2 * np.cos(np.pi * after[:, 0] / 4.8)
    return after, reward, np.abs(after[:, 0]) > 2.4


def _pendulum(state, action):
    t, w = state.T
    u = np.clip(action[:, 0], -2, 2)
    cost = ((t + np.pi) % (2 * np.pi) - np.pi) ** 2 + 0.1 * w**2 + 0.001 * u**2
    w = np.clip(w + (3 * 10 / 2 * np.sin(t) + 3 * u) * 0.05, -8, 8)
    return np.stack([t + w * 0.05, w], 1), -cost, np.zeros(len(t), bool)


def _acrobot_derivative(state, torque):
    t1, t2, w1, w2 = state.T
    g, lc, inertia = 9.8, 0.5, 1.0
    d1 = lc**2 + 1 + lc**2 + 2 * lc * np.cos(t2) + 2 * inertia
    d2 = lc**2 + lc * np.cos(t2) + inertia
    phi2 = lc * g * np.cos(t1 + t2 - np.pi / 2)
    phi1 = -lc * w2**2 * np.sin(t2) - 2 * lc * w2 * w1 * np.sin(t2) + (lc + 1) * g * np.cos(t1 - np.pi / 2) + phi2
    a2 = (torque + d2 / d1 * phi1 - lc * w1**2 * np.sin(t2) - phi2) / (lc**2 + inertia - d2**2 / d1)
    return np.stack([w1, w2, -(d2 * a2 + phi1) / d1, a2], 1)


def _acrobot(state, action):
    torque, dt = np.clip(action[:, 0], -1, 1), 0.2
    k1 = _acrobot_derivative(state, torque)
    k2 = _acrobot_derivative(state + dt / 2 * k1, torque)
    k3 = _acrobot_derivative(state + dt / 2 * k2, torque)
    k4 = _acrobot_derivative(state + dt * k3, torque)
    after = state + dt / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    after[:, :2] = (after[:, :2] + np.pi) % (2 * np.pi) - np.pi
    after[:, 2:] = np.clip(after[:, 2:], [-4 * np.pi, -9 * np.pi], [4 * np.pi, 9 * np.pi])
    done = -np.cos(after[:, 0]) - np.cos(after[:, 0] + after[:, 1]) > 1
    return after, np.where(done, 0.0, -1.0), done


def _turn_apart(a, b):
    """Difference of angles, whole turns apart being the same."""
    return np.abs((a - b + np.pi) % (2 * np.pi) - np.pi)


def _cases(name, seed=0):
    """Module, task, float32 columns and actions, NumPy's step."""
    draw = np.random.default_rng(seed)
    if name == "swing_up":
        columns = [draw.uniform(-2.6, 2.6, COUNT), draw.normal(0, 3, COUNT)]
        columns += [draw.uniform(-10, 10, COUNT), draw.normal(0, 8, COUNT)]
        module, reference, one = swing_up, _swing_up, tasks.SwingUp()
    elif name == "pendulum":
        columns = [draw.uniform(-10, 10, COUNT), draw.uniform(-8, 8, COUNT)]
        module, reference, one = pendulum, _pendulum, tasks.Pendulum()
    else:
        columns = [draw.uniform(-np.pi, np.pi, COUNT) for _ in range(2)]
        columns += [draw.normal(0, 2, COUNT), draw.normal(0, 3, COUNT)]
        module, reference, one = acrobot, _acrobot, tasks.Acrobot()
    columns = [column.astype(np.float32) for column in columns]
    return module, one, columns, draw.normal(0, 1.5, (COUNT, 1)).astype(np.float32), reference


@pytest.mark.parametrize("name", ["swing_up", "pendulum", "acrobot"])
def test_a_step_is_that_of_the_stated_equations(name):
    module, one, columns, actions, reference = _cases(name)
    after, reward, done = reference(np.stack(columns, 1).astype(float), actions.astype(float))
    found, found_reward, found_done = _stepped(one, module, columns, actions)
    # Angles of the acrobot are wrapped: where one lies at half a turn, either end will do.
    error = np.abs(found - after)
    if module is acrobot:
        error[:, :2] = _turn_apart(found[:, :2], after[:, :2])
    np.testing.assert_array_less(error, 1e-5 * np.maximum(1, np.abs(after)))
    np.testing.assert_allclose(found_reward[found_done == done], reward[found_done == done], rtol=1e-6, atol=1e-5)
    assert np.mean(found_done != done) < 1e-3  # only what a rounding decides
    if name != "pendulum":
        assert 0.01 < done.mean() < 0.9


@pytest.mark.parametrize("name", ["swing_up", "pendulum", "acrobot"])
def test_float64_is_kept_and_exact(name):
    module, one, columns, actions, reference = _cases(name, seed=1)
    after, reward, done = reference(np.stack(columns, 1).astype(float), actions.astype(float))
    with jax.enable_x64(True):
        found, found_reward, found_done = _stepped(one, module, columns, actions, np.float64)
        start = one.reset(one.params, jax.random.key(0))
        assert all(leaf.dtype == np.float64 for leaf in start)
        assert task.check_task(one) == "control"
        single = one.reset(jax.tree.map(jnp.float32, one.params), jax.random.key(0))
        assert all(leaf.dtype == np.float32 for leaf in single)
    angles = 2 if module is acrobot else 0
    assert _turn_apart(found[:, :angles], after[:, :angles]).max(initial=0) < 1e-11
    np.testing.assert_allclose(found[:, angles:], after[:, angles:], rtol=1e-11, atol=1e-11)
    np.testing.assert_allclose(found_reward, reward, rtol=1e-11, atol=1e-11)
    np.testing.assert_array_equal(found_done, done)


@pytest.mark.parametrize("name", ["Pendulum-v1", "Acrobot-v1"])
def test_a_step_is_that_of_gymnasium(name):
    gymnasium = pytest.importorskip("gymnasium")
    environment = gymnasium.make(name).unwrapped
    environment.reset(seed=0)
    module, one, columns, actions, _ = _cases("pendulum" if name == "Pendulum-v1" else "acrobot")
    columns, actions = [column[:500] for column in columns], actions[:500]
    if module is acrobot:
        one = tasks.Acrobot(discrete=True)
        actions = np.random.default_rng(0).normal(size=(500, 3)).astype(np.float32)
    found, rewards, ends = _stepped(one, module, columns, actions)
    seen = jax.vmap(one.observe, (None, 0))(one.params, _states(module, columns))
    for i, state in enumerate(np.stack(columns, 1).astype(float)):
        environment.state = state.copy()
        np.testing.assert_allclose(seen[i], environment._get_obs() if module is pendulum else environment._get_ob(),
                                   atol=1e-6)  # fmt: skip
        action = actions[i] if module is pendulum else int(np.argmax(actions[i]))
        _, reward, done, _, _ = environment.step(action)
        where = np.array(environment.state, float)
        assert _turn_apart(found[i], where)[: len(where) // 2].max() < 1e-5
        np.testing.assert_allclose(found[i, len(where) // 2 :], where[len(where) // 2 :], atol=2e-5)
        assert ends[i] == done
        np.testing.assert_allclose(rewards[i], reward, atol=1e-5)


def test_swing_up_starts_hanging_in_the_middle():
    one = tasks.SwingUp()
    keys = jax.random.split(jax.random.key(3), COUNT)
    start = jax.vmap(one.reset, (None, 0))(one.params, keys)
    numbers = np.stack(start[:4], 1)
    # Five standard errors of the mean and of the standard deviation.
    np.testing.assert_allclose(numbers.mean(0), [0, 0, np.pi, 0], atol=5 * 0.2 / np.sqrt(COUNT))
    np.testing.assert_allclose(numbers.std(0), 0.2, atol=5 * 0.2 / np.sqrt(2 * COUNT))
    np.testing.assert_allclose(np.corrcoef(numbers.T), np.eye(4), atol=5 / np.sqrt(COUNT))
    np.testing.assert_allclose(start.cos, np.cos(start.theta), atol=3e-7)
    np.testing.assert_allclose(start.sin, np.sin(start.theta), atol=3e-7)
    seen = one.observe(one.params, jax.tree.map(lambda leaf: leaf[0], start))
    x, v, t, w = numbers[0]
    np.testing.assert_allclose(seen, [x, v, np.cos(t), np.sin(t), w], atol=3e-7)


@pytest.mark.parametrize(("name", "bounds"), [("pendulum", (np.pi, 1)), ("acrobot", (0.1, 0.1, 0.1, 0.1))])
def test_other_starts_are_uniform(name, bounds):
    one = CONTROL[name]
    start = jax.vmap(one.reset, (None, 0))(one.params, jax.random.split(jax.random.key(4), COUNT))
    numbers = np.stack(start[: len(bounds)], 1) / np.asarray(bounds)
    assert np.abs(numbers).max() <= 1 + 1e-6
    np.testing.assert_allclose(numbers.mean(0), 0, atol=5 / np.sqrt(3 * COUNT))
    np.testing.assert_allclose((numbers**2).mean(0), 1 / 3, atol=5 * np.sqrt(4 / 45 / COUNT))


def test_swing_up_ends_off_the_rail_and_rewards_at_most_one():
    one = tasks.SwingUp()
    x = np.array([2.39, 2.39, -2.39, 0.0, 0.0, 2.3])
    v = np.array([0.5, 1.5, -1.5, 0.0, 0.0, 1.0])
    t = np.array([0.0, 0.0, 0.0, 0.0, np.pi, 0.0])
    _, reward, done = _stepped(one, swing_up, [x, v, t, np.zeros(6)], np.zeros((6, 1)))
    np.testing.assert_array_equal(done, [False, True, True, False, False, False])
    np.testing.assert_allclose(reward[3:5], [1, 0], atol=1e-6)
    module, one, columns, actions, _ = _cases("swing_up", seed=2)
    _, reward, done = _stepped(one, module, columns, actions)
    assert reward[~done].min() >= -1e-6
    assert reward.max() <= 1


def test_other_rewards_are_within_their_bounds():
    module, one, columns, actions, _ = _cases("pendulum", seed=2)
    _, reward, done = _stepped(one, module, columns, actions)
    assert -(np.pi**2 + 6.4 + 0.004) - 1e-4 < reward.min() < -10
    assert -0.1 < reward.max() <= 0
    assert not done.any()
    module, one, columns, actions, _ = _cases("acrobot", seed=2)
    _, reward, done = _stepped(one, module, columns, actions)
    np.testing.assert_array_equal(reward, np.where(done, 0, -1))


def test_actions_beyond_the_limits_count_as_the_limits():
    for name, limit in (("swing_up", 1), ("pendulum", 2), ("acrobot", 1)):
        module, one, columns, actions, _ = _cases(name)
        at = _stepped(one, module, columns, np.sign(actions) * limit)
        beyond = _stepped(one, module, columns, np.sign(actions) * np.inf)
        np.testing.assert_array_equal(at[0], beyond[0])


@pytest.mark.parametrize("name", CONTROL)
def test_what_is_not_a_number_stays_so(name):
    one = CONTROL[name]
    state = one.reset(one.params, jax.random.key(0))
    after, *_ = one.step(one.params, state, jnp.full(one.outputs, jnp.nan))
    _, reward, done = one.step(one.params, after, jnp.zeros(one.outputs))
    assert np.isnan(reward)
    assert not done


def test_the_discrete_acrobot_takes_the_largest_output():
    module, _, columns, _, _ = _cases("acrobot")
    actions = np.random.default_rng(0).normal(size=(COUNT, 3))
    actions[:8] = [[0, 0, 0], [0, 0, 1], [1, 0, 1], [0, 1, 1], [1, 1, 0], [0, 1, 0], [np.inf, 0, 0], [0, -np.inf, 1]]
    torque = np.argmax(actions, 1)[:, None] - 1.0
    found = _stepped(tasks.Acrobot(discrete=True), module, columns, actions)
    expected = _stepped(tasks.Acrobot(), module, columns, torque)
    np.testing.assert_array_equal(found[0], expected[0])


def _energy(columns):
    """Of the acrobot, in J: the links' motion and their height."""
    t1, t2, w1, w2 = np.asarray(columns, float)
    d1 = 0.25 + 1 + 0.25 + np.cos(t2) + 2
    d2 = 0.25 + 0.5 * np.cos(t2) + 1
    motion = 0.5 * d1 * w1**2 + d2 * w1 * w2 + 0.5 * 1.25 * w2**2
    return motion - 1.5 * 9.8 * np.cos(t1) - 0.5 * 9.8 * np.cos(t1 + t2)


def test_without_torque_an_acrobot_keeps_its_energy():
    one = tasks.Acrobot()
    params = acrobot.Params(dt=0.01, max_speed_1=100.0, max_speed_2=100.0)
    draw = np.random.default_rng(5)
    columns = [draw.uniform(-3, 3, 200), draw.uniform(-3, 3, 200), draw.normal(0, 1, 200), draw.normal(0, 1, 200)]
    with jax.enable_x64(True):

        @jax.jit
        @jax.vmap
        def run(state, torque):
            def body(state, _):
                return one.step(params, state, torque)[0], None

            return jax.lax.scan(body, state, None, length=1000)[0]

        start = _states(acrobot, columns, np.float64)
        free, driven = (run(start, np.full((200, 1), torque)) for torque in (0.0, 1.0))
    assert np.ptp(_energy(columns)) > 10
    np.testing.assert_allclose(_energy(free[:4]), _energy(columns), atol=1e-4)
    assert np.abs(_energy(driven[:4]) - _energy(columns)).max() > 0.1


@pytest.mark.parametrize("name", CONTROL)
def test_constants_may_be_traced_and_batched_and_compile_once(name):
    one = CONTROL[name]

    @jax.jit
    def total(params, key):
        def body(state, _):
            state, reward, _ = one.step(params, state, one.observe(params, state)[: one.outputs])
            return state, reward

        return jax.lax.scan(body, one.reset(params, key), None, length=20)[1].sum()

    heavier = one.params._replace(gravity=20.0)
    key = jax.random.key(0)
    alone = [total(params, key) for params in (one.params, heavier)]
    assert total._cache_size() == 1
    assert name.startswith("acrobot") or alone[0] != alone[1]
    stacked = jax.tree.map(lambda *leaves: jnp.asarray(leaves), one.params, heavier)
    np.testing.assert_allclose(jax.vmap(total, (0, None))(stacked, key), alone, rtol=1e-4)
    assert hash(one) == hash(dataclasses.replace(one))
    assert one == dataclasses.replace(one)


@pytest.mark.parametrize("turns", [1, 100, 10_000])
def test_fast_sines_are_right(turns):
    x = np.random.default_rng(0).uniform(-turns, turns, 100_000) * 2 * np.pi
    x = x.astype(np.float32)
    sin, cos = jax.jit(trigonometry.sin_cos)(x)
    np.testing.assert_allclose(sin, np.sin(x.astype(float)), atol=2e-7)
    np.testing.assert_allclose(cos, np.cos(x.astype(float)), atol=2e-7)
    np.testing.assert_allclose(trigonometry.cos_pi(x), np.cos(np.pi * (x.astype(float) % 2)), atol=2e-7)


def test_fast_sines_at_the_ends_and_their_derivatives():
    sin, cos = trigonometry.sin_cos(jnp.array([0, 1e30, -3e38, jnp.inf, jnp.nan], jnp.float32))
    assert (sin[0], cos[0]) == (0, 1)
    assert np.abs([*sin[:3], *cos[:3]]).max() <= 1
    assert np.isnan([*sin[3:], *cos[3:]]).all()
    x = np.linspace(-7, 7, 101, dtype=np.float32)
    slope_sin, slope_cos = (jax.vmap(jax.grad(lambda x, i=i: trigonometry.sin_cos(x)[i]))(x) for i in (0, 1))
    np.testing.assert_allclose(slope_sin, np.cos(x), atol=1e-5)
    np.testing.assert_allclose(slope_cos, -np.sin(x), atol=1e-5)
    with jax.enable_x64(True):
        x = np.linspace(-50, 50, 1001)
        np.testing.assert_allclose(trigonometry.sin_cos(jnp.asarray(x)), (np.sin(x), np.cos(x)), atol=1e-14)
        np.testing.assert_allclose(trigonometry.cos_pi(jnp.asarray(x)), np.cos(np.pi * x), atol=1e-13)
