"""Sees, and may change, what each layer of any Linen module computes, without an edit to the module.

An interceptor stands around every call (`flax.linen.intercept_methods`). A layer is the innermost module that owns a
kernel or an embedding and returns an array, or a tuple with one. A loop over layers shows them one by one if it passes
`COLLECTIONS` along (``variable_axes`` with each of them, as the parameters, on axis 0: see `nnjax.models.DeepMLP`). If
not, the module around it is one layer, as `flax.linen.RNN` and recurrent cells are, unless it has other layers.

A recurrent cell called step by step is one layer a call, whose output is y of ``carry, y = cell(carry, x)``. Where the
carry holds the same array (GRU, the h of an LSTM), a gradient that comes back through it counts; what comes back
through other parts, an LSTM's c, does not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.core import Scope
from flax.core.tracers import current_trace

from nnjax.models.linen import train_argument
from nnjax.types import Array, Key, PyTree

RECORDS, OFFSETS = "layer_records", "layer_offsets"
COLLECTIONS = (RECORDS, OFFSETS)
"""What is kept of each layer's call, and what is added to its output (nothing, but with a gradient)."""

_STACK = "__stack__"
_NORMS = (nn.BatchNorm, nn.LayerNorm, nn.GroupNorm, nn.InstanceNorm, nn.RMSNorm)
KERNELS = ("kernel", "embedding")
"""Names of the parameters that make a module a layer."""

Path = tuple[str, ...]


@dataclass
class Call:
    """One call of a layer, as it stands in the program; in a loop it stands for as many layers as the loop has turns.

    Attributes:
      path: of the module.
      number: which call of this module it is.
      kernels: axes of each kernel or embedding it was seen to use, by the path of the module that owns it.
      frames: path of each module around it, outermost first, then its own; and the number, by `Watch`, of the loop's
        body or other traced function that the module was called in.
      norm: path of the normalization that takes its output, if one does at once.
      place: among the model's calls.
    """

    path: Path
    number: int
    kernels: dict[Path, int]
    frames: tuple[tuple[Path, int], ...]
    place: int
    norm: Path | None = None

    @property
    def key(self) -> str:
        """Under which its records and offsets stand at its path."""
        return f"call_{self.number}"

    @property
    def norm_key(self) -> str:
        """Under which its record stands at the path of its normalization, which other layers may use as well."""
        return f"{'/'.join(self.path)}/{self.key}"


Visit = Callable[[nn.Module, Call, Any, Array], Array]
"""``(module, call, input, output) -> output``, called as a layer or normalization returns; may `keep` something."""


@dataclass
class _Frame:
    path: Path
    body: int = 0
    layers: int = 0
    kernels: dict[Path, int] = field(default_factory=dict)


@dataclass
class Watch:
    """The interceptor; after `run`, ``calls`` has the layers' calls in their order.

    Attributes:
      visit: for layers.
      visit_norm: for normalizations that directly follow a layer; what it returns is not used.
    """

    visit: Visit
    visit_norm: Visit | None = None
    calls: dict[tuple[Path, int], Call] = field(default_factory=dict)
    _stack: list[_Frame] = field(default_factory=list)
    _traces: list[Any] = field(default_factory=list)
    _latest: tuple[Any, Call] | None = None
    _closed: int = 0  # recurrent cells being called

    def run(
        self,
        model: nn.Module,
        variables: PyTree,
        x: Array,
        *,
        key: Key | None = None,
        train: bool = False,
        stats: PyTree = None,
        offsets: bool = False,
    ) -> tuple[Any, PyTree]:
        """The model's output or outputs, and the collections that `keep` wrote; ``offsets`` makes the offsets anew."""
        mutable = [RECORDS, *([OFFSETS] if offsets else []), *(stats if train and stats else [])]
        rngs = {} if key is None else {"dropout": key}
        try:
            with nn.intercept_methods(self):
                y, kept = model.apply(variables, x, rngs=rngs, mutable=mutable, **train_argument(model, train))
        finally:
            self._stack.clear()
            self._traces.clear()
            self._latest = None  # holds on to traced values
        return y, kept

    def __call__(self, call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        """Around one method of one module."""
        module = context.module
        if context.method_name != "__call__" or module.scope is None:
            return call(*args, **kwargs)
        whole = isinstance(module, nn.RNNCellBase)
        frame = _Frame(module.path, self._body())
        self._stack.append(frame)
        self._closed += whole
        try:
            y = call(*args, **kwargs)
        finally:
            self._closed -= whole
            self._stack.pop()
        return self._returned(module, frame, [*args, *kwargs.values()], y)

    def _returned(self, module: nn.Module, frame: _Frame, args: list[Any], y: Any) -> Any:
        """What the module's call is to return."""
        for kernel in own_kernels(_own(module)):
            frame.kernels[module.path] = jnp.ndim(kernel)
        # Of several results a recurrent module's outputs come second, a loop's signal first.
        place = int(isinstance(module, nn.RNNCellBase | nn.RNN)) if type(y) is tuple and len(y) > 1 else None
        out = y if place is None else y[place]
        above = self._stack[-1] if self._stack else _Frame(())
        if not frame.layers and frame.kernels and self._is_layer(module, out):
            x = args[1] if isinstance(module, nn.RNNCellBase) else args[0] if args else None
            seen = self._call(module, frame)
            out = self.visit(module, seen, x, out)
            self._latest = (out, seen)
            frame.layers += 1
            y = _replaced(y, place, out)
        elif self._latest is not None and isinstance(module, _NORMS) and args and args[0] is self._latest[0]:
            latest = self._latest[1]
            if self.visit_norm is not None and module.is_mutable_collection(RECORDS):
                latest.norm = module.path
                self.visit_norm(module, latest, args[0], out)
        if frame.layers:
            _mark(module)
            above.layers += frame.layers
        else:
            above.kernels |= frame.kernels
        return y

    def _body(self) -> int:
        """Number of the function that is being traced now."""
        trace = current_trace()
        if trace not in self._traces:
            self._traces.append(trace)
        return self._traces.index(trace)

    def _is_layer(self, module: nn.Module, y: Any) -> bool:
        return (
            not self._closed
            and module.is_mutable_collection(RECORDS)
            and isinstance(y, jax.Array)
            and y.ndim > 0
            and jnp.issubdtype(y.dtype, jnp.floating)
        )

    def _call(self, module: nn.Module, frame: _Frame) -> Call:
        """This call of the layer; the same one when a loop's body is traced again."""
        number = 0
        while _scope(module).has_variable(RECORDS, f"call_{number}"):
            number += 1
        where = (module.path, number)
        if where not in self.calls:
            around = {outer.path: outer.body for outer in self._stack if outer.path != module.path}
            frames = (*around.items(), (frame.path, frame.body))
            self.calls[where] = Call(module.path, number, dict(frame.kernels), frames, len(self.calls))
        return self.calls[where]


def _replaced(y: Any, place: int | None, out: Array) -> Any:
    """The results y with ``out`` for the one at ``place``, in the carry of a recurrent cell too."""
    if place is None:
        return out
    rest = jax.tree.map(lambda leaf: out if leaf is y[place] else leaf, y[:place]) if place else ()
    return (*rest, out, *y[place + 1 :])


def keep(module: nn.Module, name: str, value: PyTree) -> None:
    """Write ``value`` into the module's records; in a loop it is stacked."""
    _scope(module).put_variable(RECORDS, name, value)


def kept(module: nn.Module, name: str) -> PyTree:
    """What `keep` has written."""
    return _scope(module).get_variable(RECORDS, name)


def offset(module: nn.Module, call: Call, like: Callable[[], Array]) -> Array:
    """The argument whose gradient is this call's: zeros like ``like()``, made in the pass that makes the offsets."""
    if module.is_mutable_collection(OFFSETS):
        shape = jax.eval_shape(like)
        _scope(module).put_variable(OFFSETS, call.key, jnp.zeros(shape.shape, shape.dtype))
    return _scope(module).get_variable(OFFSETS, call.key)


def _scope(module: nn.Module) -> Scope:
    assert module.scope is not None  # it has one while it is being called
    return module.scope


def _mark(module: nn.Module) -> None:
    """A scalar whose shape, once the loops around the module have stacked it, is theirs."""
    if module.is_mutable_collection(RECORDS) and not _scope(module).has_variable(RECORDS, _STACK):
        keep(module, _STACK, jnp.zeros(()))


def _own(module: nn.Module) -> dict[str, Array]:
    """Those of the module's own parameters that may be kernels."""
    scope = _scope(module)
    return {name: scope.get_variable("params", name) for name in KERNELS if scope.has_variable("params", name)}


def own_kernels(branch: PyTree) -> list[Array]:
    """Kernels and embeddings that a module with these parameters owns itself."""
    return [branch[name] for name in KERNELS if name in branch and hasattr(branch[name], "shape")]


def at(tree: PyTree, path: Path) -> PyTree:
    """The branch of nested dicts at a path; an empty one where there is none."""
    for name in path:
        tree = tree.get(name, {})
    return tree


def stack(records: PyTree, path: Path) -> tuple[int, ...]:
    """Turns of the loops around the module at ``path``, outermost first."""
    return np.shape(at(records, path).get(_STACK, 0.0))


@dataclass(frozen=True)
class Layer:
    """One layer: its name, the call it is, and its turn in each of the loops around it."""

    name: str
    call: Call
    turn: tuple[int, ...]


def layers(watch: Watch, records: PyTree) -> list[Layer]:
    """All layers that ``watch`` saw, in the order of their calls; a loop of several layers takes turns.

    Raises:
      ValueError: there are none.
    """
    found = []
    for call in watch.calls.values():
        for turn in np.ndindex(stack(records, call.path)):
            again = f"#{call.number + 1}" if call.number else ""
            name = "/".join(call.path) or "model"
            found.append(Layer("/".join([name + again, *map(str, turn)]), call, turn))
    if not found:
        raise ValueError("model has no layer: no module in it owns a kernel or an embedding and returns an array")
    first: dict[int, int] = {}  # place of the first call in a loop's body
    for call in watch.calls.values():
        for _, body in call.frames:
            first.setdefault(body, call.place)

    def when(layer: Layer) -> tuple[int, ...]:
        order: list[int] = []
        depth = 0
        for path, body in layer.call.frames:
            turns = len(stack(records, path))
            if turns > depth:
                order += [first[body], *layer.turn[depth:turns]]
                depth = turns
        return (*order, layer.call.place)

    return sorted(found, key=when)


def parameters(tree: PyTree, layer: Layer) -> PyTree:
    """The branch of ``tree``, shaped like the parameters, that belongs to one layer.

    Parameters stacked by loops, the stack's axes first, are taken at the layer's turn; those that all turns share are
    given whole. A layer of several modules (a recurrent cell) has a dict by their paths.
    """
    parts = {"/".join(path): _part(tree, path, axes, layer.turn) for path, axes in layer.call.kernels.items()}
    return next(iter(parts.values())) if len(parts) == 1 else parts


def _part(tree: PyTree, path: Path, axes: int, turn: tuple[int, ...]) -> PyTree:
    branch = at(tree, path)
    stacked = is_stacked(branch, axes, turn)
    return jax.tree.map(lambda leaf: leaf[turn] if stacked else leaf, branch)


def is_stacked(branch: PyTree, axes: int, turn: tuple[int, ...]) -> bool:
    """Whether a module's parameters, seen in the loop with a kernel of ``axes``, are stacked by that loop."""
    return bool(turn) and jnp.ndim(own_kernels(branch)[0]) == axes + len(turn)


def examples(x: Array) -> int:
    """How many x (n, ...) holds.

    Raises:
      ValueError: none.
    """
    shape = np.shape(x)
    if not shape or shape[0] == 0:
        raise ValueError(f"x has shape {shape}; it must hold at least one example, (n, ...)")
    return shape[0]
