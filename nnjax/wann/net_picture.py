"""A picture of one net: nodes by layer, their activations, the connections with the signs of their weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from nnjax.activations import TABLE
from nnjax.plotting import COLORS
from nnjax.types import Array
from nnjax.wann.edges import EdgeGenome
from nnjax.wann.genome import ENABLED, Genome, Space
from nnjax.wann.layout import Graph, graph, heights, route

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDE = 40
"""More inputs than these are drawn as one picture instead of one node each."""

_KINDS = {
    "#B8B8B8": ("identity",), "#555555": ("inverse",),
    COLORS[0]: ("sin_pi", "sin"), COLORS[5]: ("cos_pi", "cos"), COLORS[4]: ("gaussian",),
    COLORS[2]: ("tanh",), "#8FD6B4": ("logistic", "swish"), COLORS[3]: ("step", "threshold"),
    COLORS[1]: ("relu", "leaky_relu", "elu"), COLORS[6]: ("absolute",),
}  # fmt: skip
ACTIVATION_COLORS = {name: color for color, names in _KINDS.items() for name in names}
"""A color for each activation; those that share one, kin, are told apart by the curve inside the node."""

_CURVE_ENDS = {"sin_pi": 1.0, "cos_pi": 1.5, "sin": 3.14, "cos": 4.71, "gaussian": 3.5, "tanh": 3.0, "logistic": 6.0}
"""How far the curve inside a node goes to both sides of 0, where not 2."""

_POSITIVE, _NEGATIVE = COLORS[0], COLORS[1]


def draw_net(
    axes: Axes, genome: Genome | EdgeGenome, space: Space, *, weights: Array | None = None,
    input_names: Sequence[str] | None = None, output_names: Sequence[str] | None = None, disabled: bool = False,
    legend: bool = True,
) -> np.ndarray:  # fmt: skip
    """One net: a column for each layer from bias and inputs at the left to the outputs at the right.

    Every connection runs to the right. A node's color and the little curve inside say its activation; bias and inputs
    are white, and gray if no connection leaves them. Inputs and outputs stand in their order, hidden nodes so that few
    connections cross. More than `WIDE` inputs are one picture, square if their number is, row by row: its shades are
    how many connections leave an input, and these are drawn from the picture's edge at the height of the input's row.

    Args:
      axes: in its final size, to which nodes and lines are fitted; ticks and frame are taken away.
      genome: a single one, of either kind.
      space: its sizes and activations.
      weights: (N, N) in the slots of the genome, or (E,) beside the genes of an `EdgeGenome`: color by sign, width by
        magnitude. By default all connections look the same.
      input_names: for each input, the bias not among them; by default x1, x2, ...
      output_names: for each output; by default y1, y2, ...
      disabled: draw disabled connections too, faint and dashed.
      legend: below the net, the activations that its hidden nodes and outputs have.

    Returns:
      (N, 2): where the slots' nodes are in the axes, NaN for empty slots and for inputs that are a picture.

    Raises:
      ValueError: a population, a genome of another space, weights of another shape or not finite, or not as many names
        as inputs or outputs.
    """
    net = graph(genome, space)
    weights = None if weights is None else _checked(weights, net, genome, space)
    left = ["bias", *_names("input", input_names, space.inputs, "x")] if space.inputs <= WIDE else ["bias"]
    right = _names("output", output_names, space.outputs, "y")
    page = _page(axes, net, space, left, right, legend)
    y, clearance = heights(net.layer, net.enabled, _pinned(net, space, page)), 0.8 * page.node / page.height
    points = np.stack([net.layer, y], 1)
    curves, faint = (route(net.layer, y, links, clearance) for links in (net.enabled, net.disabled))
    if disabled:
        look: dict[str, Any] = {"colors": "0.75", "linewidths": 0.6, "linestyles": (0, (4, 3)), "zorder": 1}
        _lines(axes, "disabled", faint, **look)
    handles = _connections(axes, curves, weights)
    if page.side:
        _input_picture(axes, net, space, page)
    handles = _nodes(axes, net, points, space, page) | handles
    _labels(axes, points, page, left, right)
    axes.set_axis_off()
    reached = np.concatenate([curves[..., 1].ravel(), faint[..., 1].ravel() if disabled else [], [0, 1]])
    axes.set_xlim(-page.side - 0.25, net.layer.max() + 0.25)
    axes.set_ylim(reached.min() - 0.06, reached.max() + 0.06)
    if legend:
        _legend(axes, handles, page)
    places = np.full((space.max_nodes, 2), np.nan)
    places[net.slots] = points
    if page.side:
        places[1 : 1 + space.inputs] = np.nan
    return places


class _Page(NamedTuple):
    """Measures of a net's picture: of the axes in points, of a node in points, of the inputs' picture in data units."""

    width: float
    height: float
    node: float
    side: float
    """Width of the inputs' picture, 0 where inputs are nodes."""
    rise: float
    """Height of the inputs' picture, which hangs from the height 1."""
    rows: int
    entries: int
    """Of the legend, side by side."""


def _page(axes: Axes, net: Graph, space: Space, left: list[str], right: list[str], legend: bool) -> _Page:
    box = axes.get_window_extent()
    point = 72 / axes.figure.get_dpi()
    entries = max(1, int(box.width * point // 58))
    width = max(box.width * point - 5.5 * (max(map(len, left)) + max(map(len, right))), 40)
    height = max(box.height * point - (16 * -(-len({*net.names}) // entries) if legend else 0), 40)
    depth, side, rise, rows = net.layer.max(), 0.0, 0.0, 0
    if space.inputs > WIDE:
        root = math.isqrt(space.inputs)
        rows, columns = (root, root) if root * root == space.inputs else (space.inputs, 1)
        edge = min(0.72 * height, 0.42 * width)
        part = edge * (1 if columns > 1 else 0.12) / width
        side, rise = (depth + 0.5) * part / (1 - part), 1.14 * edge / height
    hidden = net.layer[(net.layer > 0) & (net.layer < depth)]
    fullest = max([*np.bincount(hidden, minlength=1), space.outputs, len(left), 6])
    node = float(np.clip(0.7 * min(width / (depth + 0.5 + side), height / fullest), 3.5, 18))
    return _Page(width, height, node, side, rise, rows, entries)


def _pinned(net: Graph, space: Space, page: _Page) -> np.ndarray:
    """Heights of bias, inputs and outputs, which stand in their order from above; NaN for hidden nodes."""
    pinned = np.full(len(net.slots), np.nan)
    outputs = np.linspace(1, 0, space.outputs + 2)[1:-1] if space.outputs < 4 else np.linspace(1, 0, space.outputs)
    pinned[len(pinned) - space.outputs :] = outputs
    if page.side:
        columns = space.inputs // page.rows
        pinned[0] = 0
        pinned[1 : 1 + space.inputs] = 1 - page.rise * (np.arange(space.inputs) // columns + 0.5) / page.rows
    else:
        pinned[: 1 + space.inputs] = np.linspace(1, 0, 1 + space.inputs)
    return pinned


def _checked(weights: Array, net: Graph, genome: Genome | EdgeGenome, space: Space) -> np.ndarray:
    """Weights (m,) of the enabled connections."""
    weights, expected = np.asarray(weights, float), (space.max_nodes, space.max_nodes)
    if isinstance(genome, EdgeGenome) and weights.shape == np.shape(genome.genes):
        listed, weights = weights, np.zeros(expected)
        on = np.asarray(genome.states) == ENABLED
        weights[np.asarray(genome.sources)[on], np.asarray(genome.destinations)[on]] = listed[on]
    if weights.shape != expected:
        raise ValueError(f"weights of shape {weights.shape} must be {expected}, in the slots of the genome")
    chosen = weights[net.slots[net.enabled[:, 0]], net.slots[net.enabled[:, 1]]]
    if not np.isfinite(chosen).all():
        raise ValueError(f"weights hold {chosen[~np.isfinite(chosen)][0]} for an enabled connection; expected finite "
                         "ones")  # fmt: skip
    return chosen


def _names(what: str, names: Sequence[str] | None, count: int, letter: str) -> list[str]:
    if names is None:
        return [f"{letter}{number}" for number in range(1, count + 1)]
    if len(names) != count:
        raise ValueError(f"{what}_names has {len(names)} names for {count} {what}s")
    return list(names)


def _lines(axes: Axes, gid: str, curves: np.ndarray, **look: Any) -> None:
    from matplotlib.collections import LineCollection

    axes.add_collection(LineCollection(list(curves), gid=gid, **look), autolim=False)


def _connections(axes: Axes, curves: np.ndarray, weights: np.ndarray | None) -> dict[str, Any]:
    """Draws the enabled ones; returns handles for the legend where there are weights."""
    from matplotlib.lines import Line2D

    thin = float(np.clip(40 / max(len(curves), 1), 0.5, 1.1))
    alpha = float(np.clip(150 / max(len(curves), 1), 0.15, 0.8))
    if weights is None:
        _lines(axes, "connections", curves, colors="0.45", linewidths=thin, alpha=alpha, zorder=2)
        return {}
    order = np.argsort(np.abs(weights))  # the heaviest above the others
    share = np.abs(weights) / max(np.abs(weights).max(initial=0), np.finfo(float).tiny)
    colors = np.where(weights < 0, _NEGATIVE, _POSITIVE)
    _lines(axes, "connections", curves[order], colors=colors[order], linewidths=(0.3 + 2.5 * share)[order],
           alpha=max(alpha, 0.5), zorder=2)  # fmt: skip
    lines = {"weight > 0": (_POSITIVE, 2.0), "weight < 0": (_NEGATIVE, 2.0)}
    lines[f"|weight| = {np.abs(weights).max(initial=0):.3g}"] = ("0.4", 2.8)
    return {label: Line2D([], [], color=color, linewidth=width) for label, (color, width) in lines.items()}


def _input_picture(axes: Axes, net: Graph, space: Space, page: _Page) -> None:
    """Shades for wide inputs: connections out of each."""
    fan_out = np.bincount(net.enabled[:, 0], minlength=len(net.slots))[1 : 1 + space.inputs]
    low = 1 - page.rise
    image = axes.imshow(
        fan_out.reshape(page.rows, -1), cmap="Blues", vmin=0, vmax=max(fan_out.max(), 1), aspect="auto",
        extent=(-page.side, 0, low, 1), interpolation="nearest", gid="inputs", zorder=3,
    )  # fmt: skip
    axes.add_patch(_rectangle((-page.side, low), page.side, page.rise))
    columns = space.inputs // page.rows
    shape = f"{page.rows} \N{MULTIPLICATION SIGN} {columns}" if columns > 1 else f"{space.inputs}"
    axes.annotate(f"{shape} inputs", (-page.side / 2, 1), (0, 3), textcoords="offset points", ha="center", va="bottom",
                  fontsize=8)  # fmt: skip
    strip = axes.inset_axes((-page.side, low - 0.08, page.side * 0.7, 0.025), transform=axes.transData)
    bar = axes.figure.colorbar(image, cax=strip, orientation="horizontal", ticks=[0, max(fan_out.max(), 1)])
    bar.outline.set_linewidth(0.4)
    strip.tick_params(labelsize=7, length=2, pad=1)
    strip.set_xlabel("connections out", fontsize=7, labelpad=-6)


def _rectangle(corner: tuple[float, float], width: float, height: float) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle(corner, width, height, fill=False, edgecolor="0.3", linewidth=0.6, zorder=4)


def _nodes(axes: Axes, net: Graph, points: np.ndarray, space: Space, page: _Page) -> dict[str, Any]:
    """Draws the nodes; returns handles for the legend by activation."""
    places = np.arange(len(net.slots))
    used, given = np.isin(places, net.enabled[:, 0]), places <= space.inputs
    white: dict[str, Any] = {"s": page.node**2, "c": "white", "linewidths": 0.9, "zorder": 5, "clip_on": False}
    drawn = places == 0 if page.side else given
    for gid, which, edge in (("inputs in use", drawn & used, "black"), ("inputs not in use", drawn & ~used, "0.75")):
        axes.scatter(points[which, 0], points[which, 1], edgecolors=edge, gid=gid, **white)
    handles = {}
    for name in ACTIVATION_COLORS:
        x, y = points[~given & (np.asarray(net.names) == name)].T
        if len(x):
            axes.scatter(x, y, gid=f"nodes {name}", zorder=5, clip_on=False, **_symbol(name, page.node))
            axes.scatter(x, y, gid=f"curves {name}", zorder=6, clip_on=False, **_symbol_curve(name, page.node))
            handles[name] = (axes.scatter([], [], **_symbol(name, 11)), axes.scatter([], [], **_symbol_curve(name, 11)))
    return handles


def _symbol(name: str, size: float) -> dict[str, Any]:
    return {"s": size**2, "c": ACTIVATION_COLORS[name], "edgecolors": "0.25", "linewidths": 0.6}


def _symbol_curve(name: str, size: float) -> dict[str, Any]:
    """The function's own curve, as a marker."""
    from matplotlib.colors import to_rgb
    from matplotlib.path import Path

    x = np.linspace(-1, 1, 41)
    y = np.asarray(TABLE[name](_CURVE_ENDS.get(name, 2.0) * x))
    y = (y - (y.max() + y.min()) / 2) / max(y.max() - y.min(), 1e-6)
    dark = np.dot(to_rgb(ACTIVATION_COLORS[name]), (0.3, 0.59, 0.11)) < 0.6
    shape = Path(np.stack([x / 2, 0.8 * y], 1))
    # Matplotlib scales a marker's largest coordinate, 1/2 here, to half of its size.
    return {"s": (0.56 * size) ** 2, "marker": shape, "facecolors": "none", "edgecolors": "white" if dark else "black",
            "linewidths": max(0.09 * size, 0.5)}  # fmt: skip


def _labels(axes: Axes, points: np.ndarray, page: _Page, left: list[str], right: list[str]) -> None:
    away, size = page.node / 2 + 3, float(np.clip(page.node * 0.75, 6, 9))
    look: dict[str, Any] = {"textcoords": "offset points", "va": "center", "fontsize": size}
    for place, name in zip(points, left, strict=False):  # bias alone where inputs are a picture
        axes.annotate(name, place, (-away, 0), ha="right", **look)
    for place, name in zip(points[len(points) - len(right) :], right, strict=True):
        axes.annotate(name, place, (away, 0), ha="left", **look)


def _legend(axes: Axes, handles: dict[str, Any], page: _Page) -> None:
    from matplotlib.legend_handler import HandlerTuple

    axes.legend(
        list(handles.values()), list(handles), handler_map={tuple: HandlerTuple(ndivide=1)}, loc="upper center",
        bbox_to_anchor=(0.5, 0.0), ncols=min(page.entries, len(handles)), fontsize=7.5, frameon=False,
        handletextpad=0.4, columnspacing=1.0, handlelength=1.2, borderaxespad=0.2,
    )  # fmt: skip
