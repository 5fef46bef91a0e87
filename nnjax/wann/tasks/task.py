"""What a task of a search has to offer, and `check_task`, which says in one sentence what is missing.

A task is a hashable object (a frozen dataclass, say: equal ones share a compiled program) with

- ``inputs``, ``outputs``: numbers of inputs and outputs of a net, the bias not counted;
- ``params``: its constants, a NamedTuple of numbers or arrays. Whoever evaluates the task hands them to its methods as
  an argument, so that they may be traced, batched, or exchanged without compiling anew. Data go in here as well.

A control task, a simulation that a net steers, also has

- ``steps``: most steps of an episode;
- ``reset(params, key) -> state``: the start; any pytree of arrays, of a single episode;
- ``observe(params, state) -> (inputs,)``: what the net is shown;
- ``step(params, state, action) -> (state, reward, done)``: reward () and done () bool. The action (outputs,) is what
  the net puts out, without limits: clip it. Code is elementwise best, for thousands of episodes are stepped at once.

An episode's return is the sum of its rewards until done, that of the ending step among them, or for ``steps`` steps.
A batch task, a set of examples, has instead

- ``evaluate(params, net, key) -> ()``: what is maximized; ``net`` is a function (n, inputs) -> (n, outputs). Those
  here also have its two halves, ``examples(params, key)``, with fields x (n, inputs) and y, and ``score(outputs, y)``,
  so that examples need to be drawn only once for many nets.

A task with ``host = True`` is an environment in Python that no compiler sees; `nnjax.wann.tasks.gym` makes them.
What a task may have: ``activations``, the names of those for its nets; ``differentiable`` (by default batch tasks are);
``accuracy(params, net) -> ()`` on held-out examples, for classification; ``data``, the arrays among its params.

A task of one's own, to bring a puck to rest in the middle of a table:

```python
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp


class Constants(NamedTuple):
    mass: float = 1.0
    dt: float = 0.05


@dataclass(frozen=True)
class Puck:
    inputs, outputs, steps, params = 2, 1, 200, Constants()

    def reset(self, params, key):
        position, velocity = jax.random.normal(key, (2,))
        return position, velocity

    def observe(self, params, state):
        return jnp.stack(state)

    def step(self, params, state, action):
        position, velocity = state
        position, velocity = position + params.dt * velocity, velocity + params.dt * jnp.tanh(action[0]) / params.mass
        return (position, velocity), 1 - jnp.abs(position), jnp.abs(position) > 5
```
"""

from __future__ import annotations

from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from nnjax import activations
from nnjax.naming import choose
from nnjax.types import Array, Key, PyTree

_CONTROL = ("steps", "reset", "observe", "step")
_BATCH = ("evaluate",)


class Task(Protocol):
    """What all tasks have; the module says what control and batch tasks have beside it."""

    @property
    def inputs(self) -> int:
        """Number of inputs of a net."""

    @property
    def outputs(self) -> int:
        """Number of outputs of a net."""

    @property
    def params(self) -> Any:
        """Constants and data, a pytree of numbers and arrays."""


def check_task(task: Any) -> str:
    """The kind of a task, once it is sure that it is one: "control", "batch" or "host".

    Shapes and dtypes are looked at too, without computing anything.

    Raises:
      ValueError: what is missing or wrong, in one sentence.
    """
    name = type(task).__name__
    if isinstance(task, type):
        raise ValueError(f"task is the class {task.__name__} itself; expected an object of it, {task.__name__}()")
    _whole_numbers(task, name, "inputs", "outputs")
    try:
        hash(task)
    except TypeError:
        raise ValueError(f"task {name} is not hashable; make it a frozen dataclass of hashable fields") from None
    for activation in getattr(task, "activations", ()):
        choose("activation", activation, activations.NAMES, aliases=activations.ALIASES)
    if getattr(task, "host", False):
        return "host"
    if not hasattr(task, "params"):
        raise ValueError(f"task {name} has no params, the constants that its methods are handed; () will do")
    if hasattr(task, "evaluate"):
        _check_batch(task, name)
        return "batch"
    for part in _CONTROL:
        if not hasattr(task, part):
            raise ValueError(f"task {name} has no {part}; a control task has {', '.join(_CONTROL)}, a batch task "
                             f"{', '.join(_BATCH)}")  # fmt: skip
    _whole_numbers(task, name, "steps")
    _check_control(task, name)
    return "control"


def constants(task: Any, params: Any = None) -> Any:
    """What to evaluate a task with: ``params``, or by default its own.

    Raises:
      ValueError: ``params`` for a task on the host, whose environments would not see them.
    """
    host = getattr(task, "host", False)
    if params is None:
        return () if host else task.params
    if host:
        shown = " ".join(repr(params).split())
        raise ValueError(f"params={shown if len(shown) < 60 else shown[:57] + '...'} must be None for task "
                         f"{type(task).__name__}, which runs on the host and has no constants")  # fmt: skip
    return params


def differentiable(task: Any) -> bool:
    """Whether returns may be differentiated by weights: what the task says itself, else True for batch tasks."""
    return bool(getattr(task, "differentiable", hasattr(task, "evaluate") and not getattr(task, "host", False)))


def like(params: PyTree, x: Array) -> PyTree:
    """Params with all their floating numbers in the dtype of x, so that a state keeps its own."""

    def convert(leaf: Any) -> Any:
        return jnp.asarray(leaf, x.dtype) if jnp.issubdtype(jnp.result_type(leaf), jnp.floating) else leaf

    return jax.tree.map(convert, params)


def _whole_numbers(task: Any, name: str, *parts: str) -> None:
    for part in parts:
        value = getattr(task, part, None)
        if value is None:
            raise ValueError(f"task {name} has no {part}")
        if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < 1:
            raise ValueError(f"{part}={value!r} of task {name} must be a whole number, at least 1")


def _key() -> Key:
    return jax.eval_shape(lambda: jax.random.key(0))


def _check_control(task: Any, name: str) -> None:
    params = task.params
    state = jax.eval_shape(task.reset, params, _key())
    seen = jax.eval_shape(task.observe, params, state)
    if getattr(seen, "shape", None) != (task.inputs,):
        raise ValueError(f"observe of task {name} returns shape {_shape(seen)}; expected {(task.inputs,)}, its inputs")
    action = jax.ShapeDtypeStruct((task.outputs,), seen.dtype)
    result = jax.eval_shape(task.step, params, state, action)
    if not isinstance(result, tuple) or len(result) != 3:
        raise ValueError(f"step of task {name} must return state, reward and done")
    after, reward, done = result
    if _layout(after) != _layout(state):
        raise ValueError(f"step of task {name} returns a state of another kind than reset: {_layout(after)} instead "
                         f"of {_layout(state)}")  # fmt: skip
    if _shape(reward) != () or not jnp.issubdtype(reward.dtype, jnp.floating):
        raise ValueError(f"reward of task {name} must be one floating number, not {reward}")
    if _shape(done) != () or done.dtype != bool:
        raise ValueError(f"done of task {name} must be one bool, not {done}")


def _check_batch(task: Any, name: str) -> None:
    def value(params: PyTree, key: Key) -> PyTree:
        return task.evaluate(params, lambda x: jnp.zeros((len(x), task.outputs), jnp.result_type(x, float)), key)

    result = jax.eval_shape(value, task.params, _key())
    if _shape(result) != () or not jnp.issubdtype(result.dtype, jnp.floating):
        raise ValueError(f"evaluate of task {name} must return one floating number, not {result}")


def _shape(x: Any) -> Any:
    return getattr(x, "shape", None)


def _layout(state: PyTree) -> PyTree:
    return jax.tree.map(lambda leaf: f"{leaf.dtype}{list(leaf.shape)}", state)
