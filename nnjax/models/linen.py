"""The seam to Flax Linen: two pure functions and a summary, for any module with or without a ``train`` argument."""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from nnjax.recurrent.cells import function_of as function_of
from nnjax.train import Network
from nnjax.types import Array, Key, PyTree


def train_argument(model: nn.Module, train: bool) -> dict[str, Any]:
    """``train`` as a keyword, for a model that has it."""
    return {"train": train} if "train" in inspect.signature(type(model).__call__).parameters else {}


def init(model: nn.Module, key: Key, x: Array) -> tuple[PyTree, PyTree]:
    """Initial parameters and statistics of ``model`` for inputs like x (n, ...).

    Returns:
      ``params``, and ``stats``: every other collection (batch statistics), ``{}`` where there is none.
    """
    variables = dict(model.init(key, jnp.asarray(x), **train_argument(model, False)))
    return variables.pop("params", {}), variables


def apply(
    model: nn.Module, params: PyTree, stats: PyTree, x: Array, *, key: Key | None = None, train: bool = False
) -> tuple[Array, PyTree]:
    """Outputs of ``model`` for x (n, ...), and its statistics (updated where ``train``).

    ``key`` drives dropout and is needed only by modules that draw random numbers while training.
    """
    rngs = {} if key is None else {"dropout": key}
    variables = {"params": params, **stats}
    keywords = train_argument(model, train)
    if not train or not stats:
        return jnp.asarray(model.apply(variables, x, rngs=rngs, **keywords)), stats
    y, updated = model.apply(variables, x, rngs=rngs, mutable=list(stats), **keywords)
    return y, {**stats, **updated}


def network(model: nn.Module) -> Network:
    """The model as the pair of pure functions that `nnjax.train.make_train` takes."""
    return Network(
        init=lambda key, x: init(model, key, x),
        apply=lambda params, stats, x, *, key, train: apply(model, params, stats, x, key=key, train=train),
    )


class Layer(NamedTuple):
    """One line of a summary: name (path), output shape without the batch axis, trainable parameters."""

    name: str
    output_shape: tuple[int, ...]
    parameters: int


class Summary(NamedTuple):
    """What `summary` found; ``str`` gives a table.

    Attributes:
      layers: the modules that own parameters, pool or reshape nothing, in order of their call.
      total: trainable parameters.
    """

    model: str
    layers: tuple[Layer, ...]
    total: int

    def __str__(self) -> str:
        rows = [(layer.name, str(layer.output_shape), f"{layer.parameters:,}") for layer in self.layers]
        rows = [("layer", "output shape", "parameters"), *rows, ("total", "", f"{self.total:,}")]
        width = [max(len(row[i]) for row in rows) for i in range(3)]
        lines = [f"{a:<{width[0]}}  {b:<{width[1]}}  {c:>{width[2]}}" for a, b, c in rows]
        rule = "-" * (sum(width) + 4)
        return "\n".join([self.model, rule, lines[0], rule, *lines[1:-1], rule, lines[-1]])


def summary(model: nn.Module, input_shape: Sequence[int], *, dtype: Any = jnp.float32) -> Summary:
    """Layers, output shapes and parameter counts, by abstract evaluation: nothing is computed.

    Args:
      model: any Linen module, with or without a ``train`` argument.
      input_shape: of one example, without the batch axis.
      dtype: of the input; an embedding wants an integer one.

    Raises:
      ValueError: an axis of ``input_shape`` below 1.
    """
    shape = tuple(int(size) for size in input_shape)
    if any(size < 1 for size in shape):
        raise ValueError(f"input_shape={shape} must hold positive sizes, without the batch axis")
    calls: list[tuple[tuple[str, ...], tuple[int, ...]]] = []

    def record(next_call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        y = next_call(*args, **kwargs)
        if context.method_name == "__call__" and hasattr(y, "shape"):
            calls.append((context.module.path, tuple(y.shape[1:])))
        return y

    def traced(key: Key, x: Array) -> PyTree:
        with nn.intercept_methods(record):
            return init(model, key, x)[0]

    params = jax.eval_shape(traced, jax.random.key(0), jax.ShapeDtypeStruct((1, *shape), dtype))
    layers = []
    for path, output in dict(calls).items():
        own = _own_parameters(params, path)
        if own:
            layers.append(Layer("/".join(path), output, own))
    total = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))
    counted = sum(layer.parameters for layer in layers)
    if counted < total:  # parameters of the model itself, outside any submodule
        layers.append(Layer(type(model).__name__, (), total - counted))
    return Summary(type(model).__name__, tuple(layers), total)


def _own_parameters(params: PyTree, path: tuple[str, ...]) -> int:
    """Number of parameters that the module at ``path`` holds itself, its submodules' apart."""
    node = params
    for name in path:
        if name not in node:
            return 0
        node = node[name]
    if not path:
        return 0
    return sum(math.prod(leaf.shape) for leaf in node.values() if hasattr(leaf, "shape"))
