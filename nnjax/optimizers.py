"""Update rules as optax transformations, by name; Quickprop, Rprop and SuperSAB, which optax lacks or gets wrong.

``rule.init(params) -> state`` and ``rule.update(grads, state, params) -> (updates, state)``; the parameters move by
``optax.apply_updates(params, updates)``. All are pure: they jit, vmap (also over the learning rate) and scan.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from nnjax.naming import choose, with_options
from nnjax.schedules import check_count, check_number
from nnjax.types import Array, PyTree

RPROP_VARIANTS = ("rprop+", "rprop-", "irprop+", "irprop-")
"""With and without weight backtracking, and the improved versions of both."""


def _check_rate(learning_rate: Any) -> None:
    for rate in jax.tree.leaves(learning_rate) or [learning_rate]:
        if not callable(rate):
            check_number("learning_rate", rate, 0)


def _zeros(params: PyTree) -> PyTree:
    return jax.tree.map(jnp.zeros_like, params)


def _split(results: PyTree, like: PyTree, count: int) -> tuple[PyTree, ...]:
    """A tree of tuples as a tuple of trees."""
    return jax.tree.transpose(jax.tree.structure(like), jax.tree.structure((0,) * count), results)


# Quickprop


class QuickpropState(NamedTuple):
    """Slopes and steps of the update before, trees like the parameters, and updates done, ()."""

    slope: PyTree
    step: PyTree
    done: Array


def quickprop(learning_rate: Any, *, growth: Any = 1.75, weight_decay: Any = 0.0) -> optax.GradientTransformation:
    """Quickprop (Fahlman, 1988): each weight jumps to the minimum of a parabola through its last two slopes.

    With the slope S = dE/dw + weight_decay w and the step d before: where d is 0, the new one is -lr S. Where d > 0,
    it is (-lr S if S < 0) plus growth d if S <= growth/(1 + growth) S_before (the parabola would ask for more),
    else S / (S_before - S) d; mirrored where d < 0. For full batches: the two slopes must be of one error surface.

    Args:
      learning_rate: Fahlman's epsilon: a number, a schedule, or a tree of numbers like the parameters or a prefix of
        it (he divides by each unit's fan-in, and for errors summed over the patterns takes 1.5 for encoders).
      growth: mu, the largest growth of a step, above 0.
      weight_decay: nu.

    Raises:
      ValueError: a negative rate or decay, ``growth`` not above 0; at the update: no parameters to decay.
    """
    _check_rate(learning_rate)
    check_number("growth", growth, 0, strict="low")
    check_number("weight_decay", weight_decay, 0)
    shrink = growth / (1.0 + growth)

    def init(params: PyTree) -> QuickpropState:
        return QuickpropState(_zeros(params), _zeros(params), jnp.asarray(0, jnp.int32))

    def new_step(slope: Array, before: Array, step: Array, rate: Any) -> Array:
        side = jnp.sign(step)
        downhill = -side * slope  # positive where the way still goes down in the step's direction
        beyond = side * slope <= shrink * side * before
        gap = before - slope
        parabola = jnp.where(gap == 0, 0.0, slope / jnp.where(gap == 0, 1.0, gap)) * step
        moving = jnp.where(downhill > 0, -rate * slope, 0.0) + jnp.where(beyond, growth * step, parabola)
        return jnp.where(side == 0, -rate * slope, moving).astype(slope.dtype)

    def update(grads: PyTree, state: QuickpropState, params: PyTree = None) -> tuple[PyTree, QuickpropState]:
        rate = learning_rate(state.done) if callable(learning_rate) else learning_rate
        rates = jax.tree.broadcast(rate, grads)
        slope = grads
        if isinstance(weight_decay, jax.core.Tracer) or np.any(weight_decay):
            if params is None:
                raise ValueError("quickprop with weight_decay needs the parameters: update(grads, state, params)")
            slope = jax.tree.map(lambda g, w: g + jnp.asarray(weight_decay, g.dtype) * w, grads, params)
        steps = jax.tree.map(new_step, slope, state.slope, state.step, rates)
        return steps, QuickpropState(slope, steps, state.done + 1)

    return optax.GradientTransformation(init, update)


# Rprop


class RpropState(NamedTuple):
    """What Rprop remembers.

    Attributes:
      gradient: of the update before, zero where its sign had changed; a tree like the parameters.
      size: step sizes, a tree like the parameters.
      last: updates before, a tree like the parameters; None for variants without backtracking.
      value: loss at the update before, (); None but for ``irprop+``.
    """

    gradient: PyTree
    size: PyTree
    last: PyTree
    value: Array | None


def rprop(
    learning_rate: Any,
    *,
    variant: str = "irprop-",
    increase: Any = 1.2,
    decrease: Any = 0.5,
    min_step: Any = 1e-6,
    max_step: Any = 50.0,
) -> optax.GradientTransformationExtraArgs:
    """Resilient propagation: steps by the gradient's sign alone, with a size of its own for every weight.

    A size grows by ``increase`` where the gradient keeps its sign and shrinks by ``decrease`` where it changes. What
    the weight does at a change is the variant:

    - ``rprop+`` (Riedmiller and Braun, 1993) takes its last step back;
    - ``rprop-`` (Riedmiller, 1994) steps on at once, against the new gradient, by the smaller size;
    - ``irprop+`` (Igel and Huesken, 2003) takes its last step back if the loss has grown, and else stays where it is;
    - ``irprop-`` (the same) stays where it is, whatever the loss.

    All but ``rprop-`` then forget the gradient, so that the update after a change steps by the size as it is. For
    full batches: in small ones signs change by chance. PyTorch's Rprop is ``irprop-``.

    Args:
      learning_rate: the first step size, a number above 0 (a schedule has no place here).
      variant: one of `RPROP_VARIANTS`; ``irprop+`` needs the loss, ``update(..., value=loss)``, as `nnjax.train`
        passes it.
      increase, decrease: factors of the sizes, at least 1 and in (0, 1).
      min_step, max_step: bounds of the sizes as they change, at least 0 and above 0; ``max_step`` may be infinite.

    Raises:
      ValueError: an unknown variant, a number out of its range, ``min_step`` above ``max_step``, a schedule; at the
        update: no ``value``.
    """
    choose("Rprop variant", variant, RPROP_VARIANTS)
    if callable(learning_rate):
        raise ValueError("learning_rate is a schedule; Rprop's is the first step size, a number")
    check_number("learning_rate", learning_rate, 0, strict="low")
    check_number("increase", increase, 1)
    check_number("decrease", decrease, 0, 1, strict="low high")
    check_number("min_step", min_step, 0)
    check_number("max_step", max_step, 0, strict="low", finite=False)
    if not any(isinstance(size, jax.core.Tracer) for size in (min_step, max_step)) and np.any(min_step > max_step):
        raise ValueError(f"min_step={min_step!r} must be at most max_step={max_step!r}")
    backtracks, improved = variant.endswith("+"), variant.startswith("i")

    def init(params: PyTree) -> RpropState:
        sizes = jax.tree.map(lambda w: jnp.full_like(w, learning_rate), params)
        value = jnp.asarray(jnp.inf) if variant == "irprop+" else None
        return RpropState(_zeros(params), sizes, _zeros(params) if backtracks else None, value)

    def leaf(gradient: Array, before: Array, size: Array, last: Array, worse: Any) -> tuple[Array, Array, Array]:
        # Of signs, not of gradients: their product could vanish.
        agreement = jnp.sign(gradient) * jnp.sign(before)
        changed = agreement < 0
        grown, shrunk = jnp.minimum(size * increase, max_step), jnp.maximum(size * decrease, min_step)
        size = jnp.where(agreement > 0, grown, jnp.where(changed, shrunk, size)).astype(size.dtype)
        kept = gradient if variant == "rprop-" else jnp.where(changed, 0.0, gradient)
        step = -jnp.sign(kept) * size
        if backtracks:
            step = jnp.where(changed & worse, -last, step)
        return step.astype(gradient.dtype), kept.astype(gradient.dtype), size

    def update(
        grads: PyTree, state: RpropState, params: PyTree = None, *, value: Any = None, **_: Any
    ) -> tuple[PyTree, RpropState]:
        if state.value is not None and value is None:
            raise ValueError("irprop+ needs the loss: update(grads, state, params, value=loss)")
        worse = True if state.value is None or not improved else jnp.asarray(value) > state.value
        last = grads if state.last is None else state.last
        found = jax.tree.map(partial(leaf, worse=worse), grads, state.gradient, state.size, last)
        steps, kept, sizes = _split(found, grads, 3)
        loss = None if state.value is None else jnp.asarray(value, state.value.dtype)
        return steps, RpropState(kept, sizes, steps if backtracks else None, loss)

    return optax.GradientTransformationExtraArgs(init, update)


# SuperSAB


class SuperSABState(NamedTuple):
    """Gradients before (zero after a change of sign), learning rates and last steps, trees like the parameters."""

    gradient: PyTree
    rate: PyTree
    last: PyTree


def supersab(
    learning_rate: Any,
    *,
    momentum: Any = 0.8,
    increase: Any = 1.05,
    decrease: Any = 0.5,
    max_rate: Any = np.inf,
) -> optax.GradientTransformation:
    """SuperSAB (Tollenaere, 1990): gradient descent with momentum and a learning rate of its own for every weight.

    A weight's rate grows by ``increase`` where its gradient keeps its sign; where it changes, the last step is taken
    back, the rate shrinks by ``decrease`` and the momentum is forgotten; the update after that is a plain one. As
    told by Reed and Marks (1999, section 9.5), the original's formulas having slips. For full batches.

    Args:
      learning_rate: the rate that all weights start with (a schedule has no place here).
      momentum: in [0, 1).
      increase, decrease: factors of the rates, at least 1 and in (0, 1).
      max_rate: the rates grow no further; they can blow up where it is infinite.

    Raises:
      ValueError: a number out of its range, a schedule.
    """
    if callable(learning_rate):
        raise ValueError("learning_rate is a schedule; SuperSAB's is the rate that all weights start with, a number")
    check_number("learning_rate", learning_rate, 0)
    check_number("momentum", momentum, 0, 1, strict="high")
    check_number("increase", increase, 1)
    check_number("decrease", decrease, 0, 1, strict="low high")
    check_number("max_rate", max_rate, 0, strict="low", finite=False)

    def init(params: PyTree) -> SuperSABState:
        return SuperSABState(
            _zeros(params), jax.tree.map(lambda w: jnp.full_like(w, learning_rate), params), _zeros(params)
        )

    def leaf(gradient: Array, before: Array, rate: Array, last: Array) -> tuple[Array, ...]:
        agreement = jnp.sign(gradient) * jnp.sign(before)
        changed = agreement < 0
        grown = jnp.minimum(rate * increase, max_rate)
        rate = jnp.where(agreement > 0, grown, jnp.where(changed, rate * decrease, rate)).astype(rate.dtype)
        step = jnp.where(changed, -last, momentum * last - rate * gradient).astype(gradient.dtype)
        return step, jnp.where(changed, 0.0, gradient), rate, jnp.where(changed, 0.0, step)

    def update(grads: PyTree, state: SuperSABState, params: PyTree = None) -> tuple[PyTree, SuperSABState]:
        found = jax.tree.map(leaf, grads, state.gradient, state.rate, state.last)
        steps, kept, rates, last = _split(found, grads, 4)
        return steps, SuperSABState(kept, rates, last)

    return optax.GradientTransformation(init, update)


# One of several


def switch(index: Any, rules: Sequence[optax.GradientTransformation]) -> optax.GradientTransformationExtraArgs:
    """The rule at ``index`` of ``rules``, which may be traced: one program for a comparison of rules.

    Its state holds the states of all; only the chosen rule's changes. Under `jax.vmap` over the index every rule is
    computed and one is kept; in a loop (`jax.lax.map`, a sweep of ``width=1``) the chosen one alone.

    Args:
      index: (), an integer; outside the range the nearest end is taken.
      rules: one or more; extra arguments of an update go to those that take them.

    Raises:
      ValueError: no rules.
    """
    if not rules:
        raise ValueError("rules is empty; give at least one")
    able = [optax.with_extra_args_support(rule) for rule in rules]

    def init(params: PyTree) -> tuple[PyTree, ...]:
        return tuple(rule.init(params) for rule in able)

    def update(grads: PyTree, state: tuple[PyTree, ...], params: PyTree = None, **extra: Any) -> tuple[PyTree, PyTree]:
        def branch(number: int) -> Callable[[], tuple[PyTree, PyTree]]:
            def chosen() -> tuple[PyTree, PyTree]:
                updates, new = able[number].update(grads, state[number], params, **extra)
                return updates, (*state[:number], new, *state[number + 1 :])

            return chosen

        return jax.lax.switch(index, [branch(number) for number in range(len(able))])

    return optax.GradientTransformationExtraArgs(init, update)


# By name


def _sgd(learning_rate: Any) -> optax.GradientTransformation:
    return optax.sgd(learning_rate)


def _momentum(learning_rate: Any, *, momentum: Any = 0.9) -> optax.GradientTransformation:
    check_number("momentum", momentum, 0, 1, strict="high")
    return optax.sgd(learning_rate, momentum=momentum)


def _nesterov(learning_rate: Any, *, momentum: Any = 0.9) -> optax.GradientTransformation:
    check_number("momentum", momentum, 0, 1, strict="high")
    return optax.sgd(learning_rate, momentum=momentum, nesterov=True)


def _adagrad(learning_rate: Any, *, initial: Any = 0.0, eps: Any = 0.0) -> optax.GradientTransformation:
    check_number("initial", initial, 0)
    check_number("eps", eps, 0)
    return optax.adagrad(learning_rate, initial_accumulator_value=initial, eps=eps)


def _rmsprop(learning_rate: Any, *, decay: Any = 0.9, eps: Any = 1e-8) -> optax.GradientTransformation:
    check_number("decay", decay, 0, 1, strict="high")
    check_number("eps", eps, 0)
    return optax.rmsprop(learning_rate, decay=decay, eps=eps, eps_in_sqrt=False)


def _adam(learning_rate: Any, *, b1: Any = 0.9, b2: Any = 0.999, eps: Any = 1e-8) -> optax.GradientTransformation:
    check_number("b1", b1, 0, 1, strict="high")
    check_number("b2", b2, 0, 1, strict="high")
    check_number("eps", eps, 0)
    return optax.adam(learning_rate, b1=b1, b2=b2, eps=eps)


def _adamw(
    learning_rate: Any, *, b1: Any = 0.9, b2: Any = 0.999, eps: Any = 1e-8, weight_decay: Any = 0.01
) -> optax.GradientTransformation:
    check_number("b1", b1, 0, 1, strict="high")
    check_number("b2", b2, 0, 1, strict="high")
    check_number("eps", eps, 0)
    check_number("weight_decay", weight_decay, 0)
    return optax.adamw(learning_rate, b1=b1, b2=b2, eps=eps, weight_decay=weight_decay)


def _lbfgs(learning_rate: Any, *, memory: int = 10) -> optax.GradientTransformation:
    check_count("memory", memory)
    return optax.lbfgs(learning_rate, memory_size=memory, linesearch=None)


_BY_NAME: dict[str, Callable[..., optax.GradientTransformation]] = {
    "sgd": _sgd,
    "momentum": _momentum,
    "nesterov": _nesterov,
    "adagrad": _adagrad,
    "rmsprop": _rmsprop,
    "adam": _adam,
    "adamw": _adamw,
    "lbfgs": _lbfgs,
    "quickprop": quickprop,
    "supersab": supersab,
    **{variant: partial(rprop, variant=variant) for variant in RPROP_VARIANTS},
}

NAMES = tuple(_BY_NAME)
"""What `by_name` knows."""


def by_name(name: str, learning_rate: Any, *, weight_decay: Any = None, **kw: Any) -> optax.GradientTransformation:
    """The rule called ``name``, with g the gradient, v and s zero at first.

    Args:
      name:
        ``sgd``: w -= lr g.
        ``momentum`` (``momentum`` = .9): v = momentum v + g; w -= lr v (Polyak, 1964).
        ``nesterov`` (``momentum`` = .9): v = momentum v + g; w -= lr (g + momentum v) (Sutskever et al., 2013).
        ``adagrad`` (``initial`` = 0, ``eps`` = 0): s += g^2; w -= lr g / sqrt(s + eps) (Duchi et al., 2011);
        eps is under the root and needless; PyTorch adds 1e-10 outside.
        ``rmsprop`` (``decay`` = .9, ``eps`` = 1e-8): s = decay s + (1 - decay) g^2; w -= lr g / (sqrt(s) + eps)
        (Hinton, 2012); PyTorch's decay is .99.
        ``adam`` (``b1`` = .9, ``b2`` = .999, ``eps`` = 1e-8): Kingma and Ba (2015), eps outside the root of the
        corrected moment, as in PyTorch.
        ``adamw``: Adam with decoupled ``weight_decay`` = .01, w -= lr weight_decay w (Loshchilov and Hutter, 2019).
        ``lbfgs`` (``memory`` = 10): without line search, full batch.
        ``quickprop``, ``supersab``, ``rprop+``, ``rprop-``, ``irprop+``, ``irprop-``: the functions above.
      learning_rate: a number, traced, or a schedule (not for SuperSAB and Rprop, where it is what each weight starts
        with); for `quickprop` alone a tree of them too.
      weight_decay: for all but ``adamw`` the L2 penalty's gradient, g + weight_decay w before anything else, as in
        PyTorch; ``adamw`` alone decays apart from the gradient. Of all parameters, biases too.
      kw: the options in brackets, each with the default given.

    Raises:
      ValueError: an unknown name or option (the nearest is suggested), a number out of its range.

    Example:
      >>> rule = optimizers.by_name("adam", 1e-3)
      >>> updates, state = rule.update(grads, rule.init(params), params)
    """
    make = choose("optimizer", name, _BY_NAME)
    if name != "quickprop" and not jax.tree_util.all_leaves([learning_rate]):
        raise ValueError(f"learning_rate={learning_rate!r} must be one number or a schedule for {name!r}")
    _check_rate(learning_rate)
    own = weight_decay is not None and name in ("adamw", "quickprop")
    options = {**kw, "weight_decay": weight_decay} if own else kw
    rule = with_options("optimizer", name, make, options, learning_rate, also=("weight_decay",))
    if own or weight_decay is None:
        return rule
    check_number("weight_decay", weight_decay, 0)
    return optax.chain(optax.add_decayed_weights(weight_decay), rule)
