"""Nets that start with given parameters, and rules that leave some of them as they are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from nnjax.models import linen
from nnjax.train import Network
from nnjax.transfer.patterns import Patterns, by_path, check_alike, chosen, path_of, paths, several, takes
from nnjax.types import Array, Key, PyTree


def network(model: nn.Module, params: PyTree, stats: PyTree, *, head: Patterns = (), frozen: Patterns = ()) -> Network:
    """``model`` as a `nnjax.train.Network` that starts with given parameters and keeps frozen layers' statistics.

    A batch norm all of whose parameters are frozen is frozen as a whole: in training too it normalizes by its running
    mean and variance, as in evaluation, and these stay as they are. Otherwise frozen layers would give other outputs in
    training than in evaluation, and drift although none of their parameters moves. A batch norm that is to train later
    (see `gradual`) may well stay in ``frozen`` here: its scale and shift train, its statistics remain the pretrained
    ones, which is usual where batches are small.

    Args:
      model: any Linen module.
      params, stats: to start with, such as those of a `Pretrained`.
      head: patterns of what starts anew instead, drawn by the run's key; what is given there may have other shapes, or
        be absent.
      frozen: patterns of what is frozen. This keeps statistics; `freeze` keeps the parameters.

    Raises (when initialized or applied):
      ValueError: parameters of another architecture (the first path or shape that differs is named), or a pattern that
        matches nothing.
    """
    frozen = several(frozen)

    def init(key: Key, x: Array) -> tuple[PyTree, PyTree]:
        fresh, fresh_stats = linen.init(model, key, x)
        new = chosen(fresh, head, name="head")
        chosen(fresh, frozen, name="frozen")
        start = _merged(model, "parameter", params, fresh, new)
        anew = partial(_new_statistic, fresh, head)
        new_stats = jax.tree_util.tree_map_with_path(lambda keys, _: anew(path_of(keys)), fresh_stats)
        return start, _merged(model, "statistic", stats, fresh_stats, new_stats)

    def apply(params: PyTree, stats: PyTree, x: Array, *, key: Key | None, train: bool) -> tuple[Array, PyTree]:
        known = paths(params)

        def keep(next_call: Callable, args: tuple, kwargs: dict[str, Any], context: Any) -> Any:
            module = context.module
            if isinstance(module, nn.BatchNorm) and whole(known, "/".join(module.path), frozen):
                if module.use_running_average is None:  # an argument, which may stand behind x without its name
                    args, kwargs = args[:1], {**kwargs, "use_running_average": True}
                else:  # a field: Linen's modules are made for one call, and refuse to be changed otherwise
                    object.__setattr__(module, "use_running_average", True)
            return next_call(*args, **kwargs)

        if not train or not frozen:
            return linen.apply(model, params, stats, x, key=key, train=train)
        with nn.intercept_methods(keep):
            return linen.apply(model, params, stats, x, key=key, train=train)

    return Network(init, apply)


class Stage(NamedTuple):
    """Parameters that begin to train together; see `gradual`.

    Attributes:
      patterns: which.
      start: updates after which they begin, 0 at once; may be traced.
      rate: factor of the optimizer's updates; may be traced.
    """

    patterns: Patterns
    start: Array | int = 0
    rate: Array | float = 1.0


class StagedState(NamedTuple):
    """Updates done, (), and the optimizer's state for the parameters of each stage."""

    step: Array
    inner: tuple[PyTree, ...]


def freeze(
    optimizer: optax.GradientTransformation, params: PyTree, frozen: Patterns
) -> optax.GradientTransformationExtraArgs:
    """``optimizer`` for all parameters but the frozen ones, which keep every bit, under weight decay too.

    The optimizer does not see the frozen parameters: it holds no moments of theirs, and a gradient's norm is that of
    the others. Inside `jax.jit` their gradients are not computed. Batch norms have running statistics besides, which
    no optimizer moves: see `network`.

    Args:
      optimizer: any rule of optax or `nnjax.optimizers`.
      params: with the paths of those that will be trained; their values do not count.
      frozen: patterns of what is frozen.

    Raises:
      ValueError: a pattern that matches nothing.
    """
    chosen(params, frozen, name="frozen")

    def label(tree: PyTree) -> PyTree:
        return jax.tree.map(lambda stays: -1 if stays else 0, chosen(tree, frozen, name="frozen"))

    return _staged(optimizer, label, (Stage(()),))


def gradual(
    optimizer: optax.GradientTransformation, params: PyTree, stages: Sequence[Stage]
) -> optax.GradientTransformationExtraArgs:
    """``optimizer`` stage by stage (Howard and Ruder, 2018): each has its own start and its own, mostly smaller, rate.

    ``gradual(optax.adam(1e-3), params, [Stage("logits"), Stage("conv_pw_13*", start=500, rate=0.1)])`` trains the
    logits at once and layer 13 after 500 updates with a tenth of the rate. A parameter belongs to the first stage that
    chooses it; those that no stage chooses stay frozen. Until a stage starts its parameters keep every bit, and the
    optimizer's moments for it stay at their start. Schedules count the updates of their own stage.

    Args:
      optimizer: any rule whose updates are in proportion to its rate.
      params: with the paths of those that will be trained; their values do not count.
      stages: in order of precedence.

    Raises:
      ValueError: no stages, a pattern that matches nothing, a stage left without parameters, a known start below 0 or
        rate below 0.
    """
    stages = tuple(stages)
    if not stages:
        raise ValueError("stages is empty; give at least one")
    for number, stage in enumerate(stages):
        for name, value in (("start", stage.start), ("rate", stage.rate)):
            if not isinstance(value, jax.core.Tracer) and not 0 <= float(value) < np.inf:
                raise ValueError(f"stages[{number}].{name}={value} must be a finite number, at least 0")

    def label(tree: PyTree) -> PyTree:
        masks = [chosen(tree, stage.patterns, name=f"stages[{i}]") for i, stage in enumerate(stages)]
        return jax.tree.map(lambda *takes: takes.index(True) if any(takes) else -1, *masks)

    for number in {*range(len(stages))} - {*jax.tree.leaves(label(params))}:
        raise ValueError(f"stages[{number}] has no parameters of its own: {stages[number].patterns!r} go to others")
    return _staged(optimizer, label, stages)


def _staged(
    optimizer: optax.GradientTransformation, label: Callable[[PyTree], PyTree], stages: tuple[Stage, ...]
) -> optax.GradientTransformationExtraArgs:
    """A rule for the parameters whose label is the number of a stage; the others (-1) are frozen."""
    rules = [optax.masked(optimizer, lambda tree, i=i: _is(label(tree), i)) for i in range(len(stages))]
    rules = [optax.with_extra_args_support(rule) for rule in rules]

    def init(params: PyTree) -> StagedState:
        return StagedState(jnp.zeros((), jnp.int32), tuple(rule.init(params) for rule in rules))

    def update(grads: PyTree, state: StagedState, params: PyTree = None, **extra: Any) -> tuple[PyTree, StagedState]:
        labels = label(grads)
        # Not +0: that would turn a parameter of -0 into +0.
        updates, inner = jax.tree.map(lambda g: jnp.full_like(g, -0.0), grads), []
        for i, (rule, stage) in enumerate(zip(rules, stages, strict=True)):
            found, new = rule.update(grads, state.inner[i], params, **extra)
            if not _is_number(stage.rate, 1):
                found = jax.tree.map(lambda u, rate=stage.rate: (u * rate).astype(u.dtype), found)
            if not _is_number(stage.start, 0):
                begun = state.step >= stage.start
                found, new = jax.tree.map(partial(jnp.where, begun), (found, new), (updates, state.inner[i]))
            updates = jax.tree.map(lambda own, u, old, i=i: u if own == i else old, labels, found, updates)
            inner.append(new)
        return updates, StagedState(optax.safe_increment(state.step), tuple(inner))

    return optax.GradientTransformationExtraArgs(init, update)


def whole(known: Sequence[str], module: str, patterns: Patterns) -> bool:
    """Whether patterns choose all parameters of a module, or the module itself where it has none."""
    own = [path for path in known if path.startswith(f"{module}/")] or [module]
    return all(takes(path, patterns) for path in own)


def _new_statistic(params: PyTree, head: Patterns, path: str) -> bool:
    """Whether a statistic, collection/module/name, belongs to a module that starts anew."""
    module = "/".join(path.split("/")[1:-1])
    return whole(paths(params), module, head)


def _is(labels: PyTree, stage: int) -> PyTree:
    return jax.tree.map(lambda own: own == stage, labels)


def _is_number(value: Any, number: float) -> bool:
    return isinstance(value, int | float) and value == number


def _merged(model: nn.Module, kind: str, given: PyTree, fresh: PyTree, new: PyTree) -> PyTree:
    """``given``, but ``fresh`` where ``new``; outside of that both must have the same paths and shapes."""
    anew = {path for path, is_new in by_path(new).items() if is_new}
    kept = {path: leaf for path, leaf in by_path(given).items() if path not in anew}
    wanted = {path: leaf for path, leaf in by_path(fresh).items() if path not in anew}
    check_alike(model, kind, kept, wanted)
    return jax.tree_util.tree_map_with_path(
        lambda keys, leaf: leaf if path_of(keys) in anew else jnp.asarray(kept[path_of(keys)], leaf.dtype), fresh
    )
