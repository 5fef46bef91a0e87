"""Learning rates that change with the step: ``step -> scalar``, by name, and reduction on a validation plateau.

A schedule goes where a learning rate goes: ``optimizers.by_name("adam", schedules.cosine(1e-3, 1000))``. The step
counts updates from 0; the learning rate may be traced.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from nnjax.naming import choose, with_options
from nnjax.types import Array, PyTree, floating

Schedule = Callable[[Any], Array]


def check_number(
    name: str, value: Any, low: float, high: float = np.inf, *, strict: str = "", finite: bool = True
) -> None:
    """Refuse a number outside its range; traced values cannot be looked at and pass.

    Args:
      name: the argument's name, for the message.
      value: what was given, a number or an array of them.
      low, high: the range's ends.
      strict: ``low``, ``high`` or ``low high``: the ends that are not allowed themselves.
      finite: whether infinity is refused.

    Raises:
      ValueError: outside the range, infinite where that is refused, or not a number.
    """
    if isinstance(value, jax.core.Tracer):
        return
    number = np.asarray(value)
    real = jnp.issubdtype(number.dtype, jnp.floating) or jnp.issubdtype(number.dtype, jnp.integer)
    if not real or not np.all(np.isfinite(number) if finite else ~np.isnan(number)):
        raise ValueError(f"{name}={value!r} must be a {'finite ' if finite else ''}number")
    at_low, at_high = "low" in strict and np.any(number == low), "high" in strict and np.any(number == high)
    if np.any(number < low) or np.any(number > high) or at_low or at_high:
        bounds = f"{'above' if 'low' in strict else 'at least'} {low:g}"
        if high < np.inf:
            bounds += f" and {'below' if 'high' in strict else 'at most'} {high:g}"
        raise ValueError(f"{name}={value!r} must be {bounds}")


def check_count(name: str, value: Any, least: int = 1) -> None:
    """Refuse, with a ValueError, what is not an integer of at least ``least``."""
    if isinstance(value, bool) or not hasattr(value, "__index__") or int(value) < least:
        raise ValueError(f"{name}={value!r} must be an integer of at least {least}")


def constant(learning_rate: Any) -> Schedule:
    """lr_k = lr_0."""
    check_number("learning_rate", learning_rate, 0)

    def schedule(step: Any) -> Array:  # optax's gives back the number itself, of no shape, whatever the steps
        rate = floating(learning_rate)
        return jnp.broadcast_to(rate, jnp.broadcast_shapes(rate.shape, jnp.shape(step)))

    return schedule


def step_decay(learning_rate: Any, every: int, *, factor: Any = 0.1) -> Schedule:
    """lr_k = lr_0 factor^floor(k / every): a drop after every so many updates.

    Raises:
      ValueError: ``every`` below 1, ``factor`` outside (0, 1].
    """
    check_number("learning_rate", learning_rate, 0)
    check_count("every", every)
    check_number("factor", factor, 0, 1, strict="low")
    # optax.exponential_decay asks whether its factor is 0, which a traced one cannot answer.
    return lambda step: learning_rate * factor ** (jnp.asarray(step) // every)


def linear(learning_rate: Any, steps: int, *, final: Any = 0.0) -> Schedule:
    """lr_k = (1 - a) lr_0 + a lr_T with a = min(k / T, 1): from ``learning_rate`` to ``final`` in ``steps`` updates.

    Raises:
      ValueError: ``steps`` below 1, a negative rate.
    """
    return polynomial(learning_rate, steps, power=1, final=final)


def polynomial(learning_rate: Any, steps: int, *, power: Any = 2.0, final: Any = 0.0) -> Schedule:
    """lr_k = lr_T + (lr_0 - lr_T) (1 - min(k / T, 1))^power; raises as `linear`, and for ``power`` not above 0."""
    check_number("learning_rate", learning_rate, 0)
    check_number("final", final, 0)
    check_number("power", power, 0, strict="low")
    check_count("steps", steps)
    return optax.polynomial_schedule(learning_rate, final, power, int(steps))


def exponential(learning_rate: Any, decay: Any) -> Schedule:
    """lr_k = lr_0 exp(-decay k); ``decay`` is a rate per update. Raises ValueError for a negative one."""
    check_number("learning_rate", learning_rate, 0)
    check_number("decay", decay, 0)
    # Not optax's, for the reason in `step_decay`; and the power k of exp(-decay) rounded is off by k times as much.
    return lambda step: learning_rate * jnp.exp(-decay * jnp.asarray(step))


def cosine(learning_rate: Any, steps: int, *, final: Any = 0.0) -> Schedule:
    """lr_k = lr_T + (lr_0 - lr_T) (1 + cos(pi min(k / T, 1))) / 2 (Loshchilov and Hutter, 2017); raises as `linear`."""
    check_number("learning_rate", learning_rate, 0)
    check_number("final", final, 0)
    check_count("steps", steps)
    # optax's own end is a fraction of the start, final / learning_rate, and no number where the start is 0.
    above = optax.cosine_decay_schedule(learning_rate - final, int(steps))
    return lambda step: final + above(jnp.asarray(step))


def warmup(after: Schedule, steps: int) -> Schedule:
    """From after(0) / steps up to after(0) in ``steps`` equal rises (Goyal et al., 2017), then ``after`` from its 0.

    The first update has a rate of its own, above 0. Raises ValueError for ``steps`` below 1.
    """
    check_count("steps", steps)

    def schedule(step: Any) -> Array:
        step = jnp.asarray(step)
        rise = jnp.minimum((step + 1) / steps, 1.0)
        return rise * after(jnp.maximum(step - steps, 0))

    return schedule


# By name


def _step(learning_rate: Any, steps: int, *, every: int | None = None, factor: Any = 0.1) -> Schedule:
    return step_decay(learning_rate, max(1, steps // 3) if every is None else every, factor=factor)


def _exponential(learning_rate: Any, steps: int, *, decay: Any = None) -> Schedule:
    return exponential(learning_rate, np.log(100) / steps if decay is None else decay)


def _warmup_steps(steps: int, warmup_steps: int | None) -> int:
    found = max(1, steps // 10) if warmup_steps is None else warmup_steps
    check_count("warmup_steps", found)
    return found


def _warmup(learning_rate: Any, steps: int, *, warmup_steps: int | None = None) -> Schedule:
    return warmup(constant(learning_rate), _warmup_steps(steps, warmup_steps))


def _warmup_cosine(learning_rate: Any, steps: int, *, warmup_steps: int | None = None, final: Any = 0.0) -> Schedule:
    rise = _warmup_steps(steps, warmup_steps)
    if rise >= steps:
        raise ValueError(f"warmup_steps={rise} must be less than steps={steps}")
    return warmup(cosine(learning_rate, steps - rise, final=final), rise)


_BY_NAME: dict[str, Callable[..., Schedule]] = {
    "constant": lambda learning_rate, steps: constant(learning_rate),
    "step": _step,
    "linear": linear,
    "polynomial": polynomial,
    "exponential": _exponential,
    "cosine": cosine,
    "warmup": _warmup,
    "warmup_cosine": _warmup_cosine,
}

NAMES = tuple(_BY_NAME)
"""What `by_name` knows."""


def by_name(name: str, learning_rate: Any, steps: int, **kw: Any) -> Schedule:
    """The schedule called ``name`` for a run of ``steps`` updates.

    Args:
      name: ``constant``; ``step`` (``every`` = steps // 3, ``factor`` = .1); ``linear`` (``final`` = 0);
        ``polynomial`` (``power`` = 2, ``final`` = 0); ``exponential`` (``decay`` = ln(100) / steps, so that a
        hundredth is left at the end); ``cosine`` (``final`` = 0); ``warmup`` (``warmup_steps`` = steps // 10, then
        constant); ``warmup_cosine`` (``warmup_steps``, ``final``).
      learning_rate: its largest value, a number or traced.
      steps: updates of the run.
      kw: the options in brackets, each with the default given.

    Returns:
      ``step -> learning rate``, both ().

    Raises:
      ValueError: an unknown name or option (the nearest is suggested), ``steps`` below 1, an option out of its
        range.
    """
    if name == "plateau":
        raise ValueError("'plateau' needs the run's evaluations: chain schedules.plateau(...) after the optimizer")
    make = choose("schedule", name, _BY_NAME)
    check_count("steps", steps)
    return with_options("schedule", name, make, kw, learning_rate, steps)


# Reduction on a plateau


class PlateauState(NamedTuple):
    """What `plateau` carries, each ().

    Attributes:
      scale: factor on the updates, from 1 down.
      best: best value of the metric so far.
      bad: evaluations since then, cooldowns left out.
      cooldown: evaluations for which nothing is counted yet.
      seen: evaluations that have been taken in.
    """

    scale: Array
    best: Array
    bad: Array
    cooldown: Array
    seen: Array


def plateau(
    metric: str = "validation_loss",
    *,
    factor: Any = 0.1,
    patience: Any = 10,
    mode: str = "min",
    threshold: Any = 1e-4,
    cooldown: Any = 0,
    min_scale: Any = 0.0,
) -> optax.GradientTransformationExtraArgs:
    """Scale updates down when a validation metric has stopped getting better; chain it after the optimizer.

    It acts when a new evaluation has arrived: once more than ``patience`` evaluations in a row have not improved on
    the best by the relative ``threshold``, the scale is multiplied by ``factor`` and the count starts anew. These
    are the rules of PyTorch's ReduceLROnPlateau; the scale takes the place of the learning rate.

    `nnjax.train` passes what it needs. By hand: ``update(grads, state, params, history={metric: (evaluations,)},
    evaluation=k)``, k = evaluations done.

    Args:
      metric: a name of the run's history.
      factor: above 0 and at most 1, which leaves everything as it is.
      patience: evaluations without improvement that are let pass, 0 or more.
      mode: ``min`` where less is better, ``max`` where more is.
      threshold: relative improvement that counts, 0 or more.
      cooldown: evaluations after a reduction in which nothing is counted.
      min_scale: the scale falls no further, in [0, 1].

    Raises:
      ValueError: an option out of its range, or at the update: no history, no such metric in it.

    Example:
      >>> rule = optax.chain(optax.sgd(0.1), schedules.plateau("validation_loss", factor=0.5, patience=3))
    """
    check_number("factor", factor, 0, 1, strict="low")
    check_number("patience", patience, 0)
    check_number("threshold", threshold, 0)
    check_number("cooldown", cooldown, 0)
    check_number("min_scale", min_scale, 0, 1)
    if mode not in ("min", "max"):
        raise ValueError(f"mode={mode!r} must be 'min' or 'max'")
    sign = 1.0 if mode == "min" else -1.0

    def init(params: PyTree) -> PlateauState:
        none = jnp.asarray(0, jnp.int32)
        return PlateauState(jnp.asarray(1.0), jnp.asarray(sign * jnp.inf), none, none, none)

    def take_in(state: PlateauState, value: Array, evaluation: Array) -> PlateauState:
        """One more evaluation, in the order of PyTorch's step()."""
        value = value.astype(state.best.dtype)
        # A first value is better than none; the product of infinity and a threshold of 1 would not be a number.
        bar = jnp.where(jnp.isinf(state.best), state.best, state.best * (1 - sign * threshold))
        better = sign * value < sign * bar
        cooling = state.cooldown > 0
        bad = jnp.where(better | cooling, 0, state.bad + 1)
        left = jnp.where(cooling, state.cooldown - 1, 0)
        drop = bad > patience
        lower = jnp.maximum(state.scale * factor, min_scale)
        return PlateauState(
            jnp.where(drop, lower, state.scale).astype(state.scale.dtype),
            jnp.where(better, value, state.best),
            jnp.where(drop, 0, bad).astype(jnp.int32),
            jnp.where(drop, cooldown, left).astype(jnp.int32),
            jnp.asarray(evaluation, jnp.int32),
        )

    def update(
        updates: PyTree,
        state: PlateauState,
        params: PyTree = None,
        *,
        history: Mapping[str, Array] | None = None,
        evaluation: Any = None,
        **_: Any,
    ) -> tuple[PyTree, PlateauState]:
        if history is None or evaluation is None:
            raise ValueError("plateau needs the run's evaluations: update(..., history=..., evaluation=...)")
        line = jnp.asarray(choose("metric", metric, history))
        new = jnp.asarray(evaluation) > state.seen
        latest = take_in(state, line[jnp.maximum(evaluation - 1, 0)], evaluation)
        state = jax.tree.map(lambda a, b: jnp.where(new, a, b), latest, state)
        return jax.tree.map(lambda u: (state.scale * u).astype(u.dtype), updates), state

    return optax.GradientTransformationExtraArgs(init, update)
