"""Pictures of a search: a net, a population over generations, its front, an episode, return against shared weight.

All but `draw_net` take plain arrays, or any object that has them as attributes, and draw into axes that are there, in
the style of `nnjax.plotting`. `animate` and the functions that end in ``_frames`` make moving pictures.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from nnjax.plotting import COLORS, band, mark
from nnjax.types import Array, PyTree
from nnjax.wann.animation import acrobot_frames, animate, cartpole_frames, pendulum_frames
from nnjax.wann.net_picture import draw_net
from nnjax.wann.selection import fronts

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

__all__ = [
    "acrobot_frames", "animate", "cartpole_frames", "draw_behavior", "draw_front", "draw_history", "draw_net",
    "draw_weight_sweep", "pendulum_frames",
]  # fmt: skip


def draw_history(axes: Figure | Sequence[Axes], history: Any, *, generations: Array | None = None) -> None:
    """A population over generations: mean returns of its best and its median net; how large its nets are.

    Args:
      axes: two, or a figure without any, which gets two side by side.
      history: `nnjax.wann.History`, or what has its attributes ``elite_mean``, ``median_return``, ``nodes`` and
        ``connections``, each (generations,) or, for several searches, (seeds, generations): curves then are means over
        seeds with their 95 % intervals. Where a return is not finite there is a gap.
      generations: (generations,), numbers of the generations; from 0 by default.

    Raises:
      ValueError: arrays of other shapes, or not two axes.
    """
    returns, sizes = _panels(axes, 1, 2)
    rows = {name: _row(history, name) for name in ("elite_mean", "median_return", "nodes", "connections")}
    shape = rows["elite_mean"].shape
    x = np.arange(shape[1]) if generations is None else np.asarray(generations)
    for name, row in (*rows.items(), ("generations", np.broadcast_to(x, (shape[0], *x.shape)))):
        if row.shape != shape:
            raise ValueError(f"{name} is {row.shape[-1]} generations of {len(row)} seeds; elite_mean is {shape[1]} of "
                             f"{shape[0]}")  # fmt: skip
    band(returns, x, rows["elite_mean"], label="best net", color=COLORS[0])
    band(returns, x, rows["median_return"], label="median net", color=COLORS[4])
    band(sizes, x, rows["connections"], label="connections", color=COLORS[1])
    band(sizes, x, rows["nodes"], label="nodes", color=COLORS[2])
    returns.set(xlabel="generation", ylabel="mean return over weights")
    sizes.set(xlabel="generation", ylabel="median net of the population")
    title = f"{shape[0]} seeds, 95 % interval" if shape[0] > 1 else ""
    returns.legend(loc="lower right", title=title, title_fontsize=7)
    sizes.legend(loc="upper left", title=title, title_fontsize=7)
    sizes.set_ylim(bottom=0)


def _row(history: Any, name: str) -> np.ndarray:
    value = np.asarray(getattr(history, name), float)
    if value.ndim not in (1, 2) or value.size == 0:
        raise ValueError(f"{name} has shape {value.shape}; expected (generations,) or (seeds, generations)")
    return np.atleast_2d(np.where(np.isfinite(value), value, np.nan))


def _panels(axes: Any, rows: int, columns: int) -> list[Axes]:
    if hasattr(axes, "subplots"):
        return list(axes.subplots(rows, columns, squeeze=False, sharex=columns == 1).flat)
    panels = list(np.ravel(axes))
    if len(panels) != rows * columns:
        raise ValueError(f"axes are {len(panels)}; expected {rows * columns}, or a figure to put them into")
    return panels


def draw_front(axes: Axes, mean: Array, connections: Array, ranks: Array | None = None) -> None:
    """A population by mean return and connections, its best trade-offs in color, the next fronts in ever lighter gray.

    Args:
      axes: where to draw.
      mean: (population,), mean returns; those not finite are left out, which the legend then says.
      connections: (population,), numbers of enabled connections.
      ranks: (population,), fronts as `nnjax.wann.fronts` numbers them, 0 the best, of whatever objectives; by default
        those of high mean and few connections.

    Raises:
      ValueError: arrays of other shapes.
    """
    mean, connections = np.asarray(mean, float), np.asarray(connections)
    if ranks is None:
        ranks = fronts(np.stack([mean, -connections.astype(float)], 1)) if mean.shape == connections.shape else mean
    ranks = np.asarray(ranks)
    for name, value in (("mean", mean), ("connections", connections), ("ranks", ranks)):
        if mean.ndim != 1 or value.shape != mean.shape:
            raise ValueError(f"{name} has shape {value.shape}; expected (population,), {mean.size} here")
    finite = np.isfinite(mean)
    best, rest = finite & (ranks == 0), finite & (ranks > 0)
    shade = 0.55 + 0.35 * ranks[rest] / max(ranks[finite].max(initial=1), 1)
    axes.scatter(connections[rest], mean[rest], s=12, c=np.repeat(shade[:, None], 3, 1), linewidths=0,
                 label=f"other fronts ({_nets(rest)})", gid="rest")  # fmt: skip
    order = np.lexsort((-mean[best], connections[best]))
    x, y = connections[best][order], mean[best][order]
    axes.step(x, np.maximum.accumulate(y) if len(y) else y, where="post", color=COLORS[1], linewidth=1, alpha=0.6)
    axes.scatter(x, y, s=22, color=COLORS[1], zorder=4, label=f"first front ({_nets(best)})", gid="front")
    if not finite.all():
        axes.scatter([], [], s=0, label=f"{_nets(~finite)} without a finite return")
    axes.set(xlabel="connections", ylabel="mean return over weights")
    axes.legend(loc="lower right")


def _nets(which: np.ndarray) -> str:
    return f"{which.sum()} net{'' if which.sum() == 1 else 's'}"


def draw_weight_sweep(axes: Axes, weights: Array, returns: Array) -> None:
    """What one net returns against the weight that its connections share: mean over episodes, 95 % t-interval.

    Args:
      axes: where to draw.
      weights: (W,), in any order.
      returns: (W, episodes); a weight with one that is not finite has a gap.

    Raises:
      ValueError: arrays of other shapes.
    """
    weights, returns = np.asarray(weights, float), np.asarray(returns, float)
    if returns.ndim != 2 or 0 in returns.shape or weights.shape != returns.shape[:1]:
        raise ValueError(
            f"returns has shape {returns.shape}; expected (W, episodes) for weights of shape {weights.shape}"
        )
    order, episodes = np.argsort(weights), returns.shape[1]
    returns = np.where(np.isfinite(returns), returns, np.nan)
    label = f"mean of {episodes} episodes, 95 % interval" if episodes > 1 else "one episode"
    band(axes, weights[order], returns[order].T, label=label, color=COLORS[0], marker=".", markersize=4)
    means = returns.mean(1)
    if np.isfinite(means).any():
        best = weights[np.nanargmax(means)]
        mark(axes, best, f"best: {best:.3g}")
    axes.set(xlabel="shared weight", ylabel="return")
    axes.legend(loc="best")


_ANGLE = re.compile(r"(.*\.)?(theta|angle)[_ ]?\d*")


def draw_behavior(
    axes: Figure | SubFigure | Sequence[Axes], trajectory: Any, *, names: Sequence[str] | None = None,
    dt: float | None = None, limit: float | None = 2.4, action_limit: float = 1.0,
) -> None:  # fmt: skip
    """One episode over time: a panel for each chosen part of the state, from above, and one for the actions.

    A part is called by its path in the state, as ``theta`` or ``0.1``. One called theta or angle, or that and a number,
    is an angle, wrapped to half a turn on both sides of 0; theta itself is taken to be 0 upright and +-pi hanging. By
    default angles and ``x`` are drawn, or all parts where there are none.

    Args:
      axes: one for each part and one more, or a figure without any, which gets them one below the other.
      trajectory: has the attributes ``states`` (a pytree of arrays (steps, ...)), ``actions`` (steps, outputs),
        ``rewards`` (steps,) and ``alive`` (steps,) bool: whether the episode still went on; what is not is left out.
      names: which parts of the state to draw instead.
      dt: length of a step, s; time is in steps by default.
      limit: where ``x`` ends an episode, m, as dashed lines; None for none.
      action_limit: actions are drawn as far as this to both sides, as the task clips them. Where a single one flips so
        often that it is a solid band, its mean over 40 steps (Hann window) is drawn over it.

    Raises:
      ValueError: a part of no such name, arrays of unequal length, or another number of axes.
    """
    alive = np.asarray(trajectory.alive, bool)
    parts = _parts(trajectory.states)
    actions = np.asarray(trajectory.actions, float)
    rewards = np.asarray(trajectory.rewards, float)
    for name, value in {"actions": actions, "rewards": rewards, **parts}.items():
        if alive.ndim != 1 or len(value) != len(alive):
            raise ValueError(f"{name} of shape {value.shape} must be as long as alive, of shape {alive.shape}")
    if names is None:
        angles = [name for name in parts if _ANGLE.fullmatch(name)]
        names = angles + [name for name in parts if name == "x"] or list(parts)
    for name in names:
        if name not in parts:
            raise ValueError(f"names has {name!r}, which the state does not; it has {', '.join(parts)}")
    panels = _panels(axes, len(names) + 1, 1)
    time = np.arange(alive.sum()) * (1 if dt is None else dt)
    for panel, name in zip(panels, names, strict=False):
        _part(panel, time, name, parts[name][alive], limit)
    _actions(panels[-1], time, actions[alive].reshape(len(time), -1), action_limit)
    panels[-1].set_xlabel("step" if dt is None else "time [s]")
    panels[0].set_title(f"return {rewards[alive].sum():.4g} in {len(time)} steps")
    panels[0].figure.align_ylabels(panels)


def _parts(states: PyTree) -> dict[str, np.ndarray]:
    """Every number of the state over time, by its path."""
    parts = {}
    for path, leaf in jax.tree_util.tree_flatten_with_path(states)[0]:
        name, leaf = jax.tree_util.keystr(path, simple=True, separator="."), np.asarray(leaf, float)
        for index in np.ndindex(leaf.shape[1:]):
            parts[".".join([name] * bool(name) + [str(i) for i in index]) or "state"] = leaf[(slice(None), *index)]
    return parts


def _part(panel: Axes, time: np.ndarray, name: str, values: np.ndarray, limit: float | None) -> None:
    if not _ANGLE.fullmatch(name):
        panel.plot(time, values, color=COLORS[0])
        panel.set_ylabel("position [m]" if name == "x" else f"state {name}" if name[0].isdigit() else name)
        for edge in () if name != "x" or limit is None else (-limit, limit):
            panel.axhline(edge, color="black", linestyle="--", linewidth=0.8)
        return
    wrapped = (values + np.pi) % (2 * np.pi) - np.pi
    jumps = np.flatnonzero(np.abs(np.diff(wrapped)) > np.pi) + 1  # gaps, for the angle has not moved through 0
    panel.plot(np.insert(time, jumps, time[jumps]), np.insert(wrapped, jumps, np.nan), color=COLORS[1])
    panel.axhline(0, color="black", linestyle="--", linewidth=0.8)
    panel.set(ylim=(-1.08 * np.pi, 1.08 * np.pi), ylabel="angle [rad]" if name == "theta" else f"{name} [rad]")
    panel.set_yticks([-np.pi, 0, np.pi], ["\N{MINUS SIGN}\N{GREEK SMALL LETTER PI}", "0", "\N{GREEK SMALL LETTER PI}"])
    if name == "theta":
        for height, text in ((0, "upright"), (np.pi, "hanging"), (-np.pi, "hanging")):
            panel.annotate(text, (1, height), (3, 0), xycoords=("axes fraction", "data"), textcoords="offset points",
                           va="center", fontsize=7)  # fmt: skip


_SMOOTHED = 40
"""Steps that the weighted mean of an action is of where the action itself is a solid band."""


def _actions(panel: Axes, time: np.ndarray, actions: np.ndarray, limit: float) -> None:
    several = actions.shape[1] > 1
    clipped = np.clip(actions, -limit, limit)
    for number, action in enumerate(clipped.T, 1):
        flips = len(action) > _SMOOTHED and (np.abs(np.diff(action)) > limit).mean() > 0.1
        color = None if several else COLORS[2]
        width, alpha = (0.4, 0.35) if flips and not several else (0.9, 1)
        label = f"action {number}" if several else "action"
        panel.plot(time, action, linewidth=width, alpha=alpha, label=label, color=color)
        if flips and not several:
            # A window with soft ends: a plain mean would ripple with the flips that it cuts off.
            window = np.hanning(_SMOOTHED + 2)[1:-1]
            mean = np.convolve(action, window / window.sum(), "valid")
            middle = time[_SMOOTHED // 2 :][: len(mean)]
            panel.plot(middle, mean, color="black", linewidth=1, label=f"smoothed over {_SMOOTHED} steps")
            panel.legend(loc="lower right", bbox_to_anchor=(1, 0.98), ncols=2, borderaxespad=0)
    if several:
        panel.legend(loc="lower right", bbox_to_anchor=(1, 0.98), ncols=4, borderaxespad=0)
    panel.set(ylabel="action", ylim=(-1.1 * limit, 1.1 * limit))
