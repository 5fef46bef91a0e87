"""What a task has to offer, what is said where it does not, and tasks by name."""

import dataclasses
import re
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnjax import wann
from nnjax.wann import tasks
from nnjax.wann.tasks import swing_up, task


def test_the_example_of_the_protocol_runs():
    code = re.search(r"```python\n(.*?)```", task.__doc__, re.DOTALL).group(1)
    names = {"__name__": "example"}
    exec(code, names)
    one = names["Puck"]()
    assert 15 <= len([line for line in code.splitlines() if line.strip()]) <= 25
    assert tasks.check_task(one) == "control"
    assert not tasks.differentiable(one)
    space = wann.Space(one.inputs, one.outputs, 8)
    genome = wann.minimal(jax.random.key(0), space, 1.0)

    @jax.jit
    def total(params, weights, key):
        def body(carry, _):
            state, alive, total = carry
            action = wann.forward(genome, space, weights, one.observe(params, state))
            state, reward, done = one.step(params, state, action)
            return (state, alive & ~done, total + jnp.where(alive, reward, 0)), None

        start = one.reset(params, key), jnp.array(True), jnp.zeros(())
        return jax.lax.scan(body, start, None, length=one.steps)[0][2]

    weights = jnp.zeros((8, 8)).at[1, 7].set(-1).at[2, 7].set(-2)  # pull it back, and brake
    steered, let_go = (total(one.params, w, jax.random.key(1)) for w in (weights, 0 * weights))
    assert let_go < 150 < steered <= 200


class _Constants(NamedTuple):
    size: float = 1.0


@dataclasses.dataclass(frozen=True)
class _Good:
    inputs, outputs, steps, params = 2, 1, 10, _Constants()

    def reset(self, params, key):
        return jax.random.normal(key, (2,)) * params.size

    def observe(self, params, state):
        return state

    def step(self, params, state, action):
        return state + action, jnp.sum(state), state[0] > 3


def _changed(**parts):
    return type("Mine", (_Good,), parts)()


def _without(*names):
    kept = {name: value for name, value in vars(_Good).items() if name not in names and not name.startswith("__")}
    return type("Mine", (), kept)()


def test_check_task_says_the_kind():
    assert tasks.check_task(_Good()) == "control"
    batch = _changed(evaluate=lambda self, params, net, key: net(jnp.ones((3, 2))).sum() * params.size)
    assert tasks.check_task(batch) == "batch"
    assert tasks.check_task(_changed(host=True)) == "host"
    assert tasks.check_task(tasks.xor()) == "batch"
    assert [tasks.differentiable(each) for each in (_Good(), batch, _changed(host=True))] == [False, True, False]
    assert tasks.differentiable(_changed(differentiable=True))


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (lambda: _without("step"), "task Mine has no step; a control task has steps, reset, observe, step, a batch"),
        (lambda: _without("reset"), "task Mine has no reset"),
        (lambda: _without("observe"), "task Mine has no observe"),
        (lambda: _without("steps"), "task Mine has no steps"),
        (lambda: _without("inputs"), "task Mine has no inputs"),
        (lambda: _without("outputs"), "task Mine has no outputs"),
        (lambda: _without("params"), "task Mine has no params"),
        (lambda: _changed(inputs=0), "inputs=0 of task Mine must be a whole number, at least 1"),
        (lambda: _changed(steps=2.5), "steps=2.5 of task Mine"),
        (lambda: _changed(inputs=3), r"observe of task Mine returns shape \(2,\); expected \(3,\)"),
        (lambda: _changed(activations=("tahn",)), "activation 'tahn' .* did you mean 'tanh'"),
        (lambda: _changed(step=lambda self, p, s, a: (s, s.sum())), "step of task Mine must return state, reward"),
        (lambda: _changed(step=lambda self, p, s, a: (s[:1], s.sum(), s[0] > 0)), "a state of another kind than reset"),
        (lambda: _changed(step=lambda self, p, s, a: ((s, s), s.sum(), s[0] > 0)), "a state of another kind"),
        (lambda: _changed(step=lambda self, p, s, a: (s, s, s[0] > 0)), "reward of task Mine must be one floating"),
        (lambda: _changed(step=lambda self, p, s, a: (s, 1.0, s[0] > 0)), None),
        (lambda: _changed(step=lambda self, p, s, a: (s, s[0], s[0])), "done of task Mine must be one bool"),
        (lambda: _changed(evaluate=lambda self, params, net, key: net(jnp.ones((3, 2)))), "evaluate of task Mine must"),
        (lambda: _changed(__hash__=None), "task Mine is not hashable"),
        (lambda: _Good, r"task is the class _Good itself; expected an object of it, _Good\(\)"),
        (lambda: tasks.SwingUp(params=swing_up.Params(gravity=np.ones(3))), "task SwingUp is not hashable"),
    ],
)
def test_check_task_says_in_one_sentence_what_is_wrong(wrong, sentence):
    if sentence is None:
        assert tasks.check_task(wrong()) == "control"
        return
    with pytest.raises(ValueError, match=sentence) as error:
        tasks.check_task(wrong())
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", [name for name in tasks.NAMES if name != "mnist16"])
def test_every_task_has_a_name_and_keeps_the_protocol(name):
    one = tasks.by_name(name, **({"table": (0, 1, 1, 0)} if name == "boolean" else {}))
    kind = tasks.check_task(one)
    kinds = dict.fromkeys(("swing_up", "pendulum", "acrobot"), "control") | dict.fromkeys(("biped", "racer"), "host")
    assert kind == kinds.get(name, "batch")
    assert {*tasks.NAMES} > {*kinds}
    space = wann.Space(
        one.inputs, one.outputs, 1 + one.inputs + one.outputs, getattr(one, "activations", wann.genome.NAMES)
    )
    if kind == "batch":
        genome = wann.minimal(jax.random.key(0), space)
        value = jax.jit(
            lambda params: one.evaluate(params, lambda x: wann.forward(genome, space, 1.0, x), jax.random.key(0))
        )
        assert np.isfinite(value(one.params))


def test_names_and_options_that_there_are_not():
    assert tasks.by_name("swing_up", steps=7).steps == 7
    assert tasks.by_name("acrobot", discrete=True).outputs == 3
    assert tasks.by_name("parity", bits=4).inputs == 4
    with pytest.raises(ValueError, match=r"task 'swingup' is not one of .*did you mean 'swing_up'"):
        tasks.by_name("swingup")
    with pytest.raises(ValueError, match=r"task 'pendulum' has no option 'step'.*did you mean 'steps'"):
        tasks.by_name("pendulum", step=3)
    with pytest.raises(ValueError, match="task 'xor' has no option 'bits': it has none"):
        tasks.by_name("xor", bits=3)
    with pytest.raises(ValueError, match="task 'boolean' needs its table"):
        tasks.by_name("boolean")
