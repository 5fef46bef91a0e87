"""Figures of the weight-agnostic search study, and its files: a film of the champion and the champion as JSON."""

from __future__ import annotations

import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments._wann_search_published import PUBLISHED, UPRIGHT_GOAL
from experiments._wann_search_reliability import ARMS, course, reliability
from experiments._wann_search_report import samples
from nnjax import wann
from nnjax.plotting import COLORS, figure, style
from nnjax.statistics import share_interval, t_interval
from nnjax.wann import pictures

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NAMES: dict[str, tuple[list[str], list[str]]] = {
    "swing_up": (["x", "x'", "cos θ", "sin θ", "θ'"], ["force"]),
    "pendulum": (["cos θ", "sin θ", "θ'"], ["torque"]),
    "acrobot": (["cos θ1", "sin θ1", "cos θ2", "sin θ2", "θ1'", "θ2'"], ["torque"]),
}
"""Names of inputs and outputs."""

FRAMES_A_SECOND = 25


def plot(results: xr.DataTree) -> dict[str, Figure]:
    """Every figure, by task and name; ``TASK_net`` and ``TASK_weights`` are the ones to look at first."""
    figures: dict[str, Figure] = {}
    with style():
        for name in results.children:
            task = results[name]
            made = {
                "net": _net(name, task["champion"].to_dataset()),
                "weights": _weights(name, task["champion"].to_dataset(), task["search"].attrs["shared_weights"]),
                "course": course(name, {arm: task[arm].to_dataset() for arm in ARMS if arm in task.children}),
                "front": _front(name, task["population"].to_dataset()),
            }
            if "table" in task.children:
                made["table"] = _table(name, task["table"].to_dataset())
            if "worth" in task.children:
                made["reliability"] = reliability(name, task["worth"].to_dataset())
            if "alive" in task["champion"]:
                made["behavior"] = _behavior(name, task["champion"].to_dataset())
            figures |= {f"{name}_{key}": value for key, value in made.items()}
    return figures


def files(results: xr.DataTree) -> dict[str, bytes]:
    """Every task's champion as a file that `nnjax.wann.load_champion` reads, and a film of it where there is one."""
    made = {}
    for name in results.children:
        champion = results[name]["champion"].to_dataset()
        made[f"champions/{name}.json"] = str(champion["net"].item()).encode()
        if frames := _frames(name, champion):
            with tempfile.TemporaryDirectory() as folder:
                path, rate = Path(folder) / "film.gif", _thinning(champion)[1]
                made[f"figures/{name}_film.gif"] = pictures.animate(frames, path, rate).read_bytes()
    return made


def _thinning(champion: xr.Dataset) -> tuple[int, float]:
    """One of how many steps a film shows, and frames a second, so that it runs in real time where that is possible."""
    dt = champion.attrs["dt"]
    every = max(1, round(1 / (FRAMES_A_SECOND * dt)))
    return every, min(1 / (every * dt), FRAMES_A_SECOND)


def _frames(name: str, champion: xr.Dataset) -> list[np.ndarray]:
    if "alive" not in champion:
        return []
    part = champion.isel(step=np.flatnonzero(champion["alive"].values)[:: _thinning(champion)[0]])
    state = _states(part)
    action = part["action"].values[:, 0]
    if name == "swing_up":
        return pictures.cartpole_frames(state["x"], state["theta"], action, width=320)
    if name == "pendulum":
        return pictures.pendulum_frames(state["theta"], action)
    if name == "acrobot":
        return pictures.acrobot_frames(state["theta_1"], state["theta_2"])
    return []


def _states(champion: xr.Dataset) -> dict[str, np.ndarray]:
    """Each number of an episode's states, (steps,), by its name."""
    names = [str(key) for key in champion if str(key).startswith("state_")]
    return {name.removeprefix("state_"): champion[name].values for name in names}


def _facts(champion: xr.Dataset) -> str:
    facts = champion.attrs
    return f"{facts['nodes']} nodes, {facts['connections']} connections, depth {facts['depth']}"


def _net(name: str, champion: xr.Dataset) -> Figure:
    net = wann.from_json(str(champion["net"].item()))
    made, axes = figure(1, 1, width=8.5, height=5.2)
    inputs, outputs = NAMES.get(name, (None, None))
    axes[0, 0].set_title(f"{name}: champion, {_facts(champion)}", fontsize=9, pad=6)
    made.canvas.draw()  # the picture is fitted to the axes' final size
    pictures.draw_net(axes[0, 0], net.genome, net.space, input_names=inputs, output_names=outputs)
    return made


def _weights(name: str, champion: xr.Dataset, trained: Any) -> Figure:
    upright = "upright" in champion
    accurate = "accuracy" in champion
    made, axes = figure(1 + (upright or accurate), 1, width=6.4, height=2.7)
    weights = champion["weight"].values
    pictures.draw_weight_sweep(axes[0, 0], weights, champion["returns"].transpose("weight", "trial").values)
    if upright:
        _shares(axes[1, 0], weights, champion["upright"].transpose("weight", "trial").values)
    elif accurate:
        axes[1, 0].plot(weights, champion["accuracy"], color=COLORS[2])
        axes[1, 0].set(ylabel="accuracy, held-out", ylim=(-0.02, 1.02))
    for ax in axes[:, 0]:
        lowest = ax.get_ylim()[0]
        ax.plot(np.ravel(trained), np.full(np.size(trained), lowest), "^", color="black", markersize=5, clip_on=False,
                label="weights of the search", zorder=6)  # fmt: skip
        ax.set_ylim(bottom=lowest)
    what = "batches of examples" if champion.attrs["kind"] == "batch" else "episodes"
    for line in axes[0, 0].get_lines():
        line.set_label(str(line.get_label()).replace("episodes", what))
    if own := axes[0, 0].get_legend():
        own.remove()
    made.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2)  # clear of the curves
    axes[0, 0].set_xlabel("")
    axes[-1, 0].set_xlabel("weight that all connections share")
    made.suptitle(f"{name}: champion on {champion.sizes['trial']} {what} that it was not chosen by", fontsize=9)
    return made


def _shares(axes: Axes, weights: np.ndarray, upright: np.ndarray) -> None:
    """Upright share by weight, with exact binomial intervals."""
    found = [share_interval(int(row.sum()), len(row)) for row in upright]
    mean, low, high = np.array([[float(end) for end in interval] for interval in found]).T
    axes.plot(weights, mean, color=COLORS[2], marker=".", markersize=4, label="share, 95 % interval")
    axes.fill_between(weights, low, high, color=COLORS[2], alpha=0.2, linewidth=0)
    axes.axhline(UPRIGHT_GOAL, color="black", linestyle="--", linewidth=0.9)
    axes.set(ylabel="episodes that end upright", ylim=(-0.02, 1.04))


def _front(name: str, population: xr.Dataset) -> Figure:
    made, axes = figure(1, 1, width=5.6, height=3.8)
    mean, connections, front = (population[key].values.ravel() for key in ("mean", "connections", "front"))
    pictures.draw_front(axes[0, 0], mean, connections, front)
    count = population.sizes["seed"]
    axes[0, 0].set_title(f"{name}: last population of {count} search{'es' * (count > 1)}", fontsize=9, pad=6)
    return made


def _table(name: str, table: xr.Dataset) -> Figure:
    made, axes = figure(1, 1, width=7.4, height=3.8)
    ax, columns = axes[0, 0], table["column"].values.tolist()
    looks = {
        "searched": (COLORS[0], "champion"),
        "fixed": (COLORS[1], f"fully connected, {table.attrs['hidden']} hidden"),
    }
    for number, net in enumerate(table["net"].values.tolist()):
        color, label = looks[net]
        for place, column in enumerate(columns):
            at = place + 0.36 * (number - 0.5)
            found = samples(table, net, column)
            if len(found) > 1:
                _dots(ax, at, found, color, label if place == 0 else None)
            published = PUBLISHED.get(name, {}).get(net)
            if published:
                mean, deviation = published[place]
                ax.errorbar(at + 0.1, mean, deviation, fmt="s", color="black", markerfacecolor="white", markersize=4,
                            capsize=0, linewidth=0.8, zorder=4,
                            label="published, ± one standard deviation" if number + place == 0 else None)  # fmt: skip
    for edge in range(1, len(columns)):
        ax.axvline(edge - 0.5, color="0.85", linewidth=0.8)
    ax.set_xticks(range(len(columns)), columns)
    ax.grid(axis="x", visible=False)
    ax.set(ylabel="return", xlim=(-0.5, len(columns) - 0.5))
    made.suptitle(
        f"{name}: {table.sizes['trial']} trials; dot and thick bar: mean, its 95 % interval; thin bar: ± one standard "
        "deviation", fontsize=9,
    )  # fmt: skip
    handles, labels = ax.get_legend_handles_labels()
    order = np.argsort([text.startswith("published") for text in labels], kind="stable")
    made.legend([handles[i] for i in order], [labels[i] for i in order], loc="outside lower center", ncols=3)
    return made


def _dots(axes: Axes, at: float, found: np.ndarray, color: str, label: str | None) -> None:
    mean, low, high = t_interval(found)
    deviation = found.std(ddof=1)
    axes.plot([at, at], [mean - deviation, mean + deviation], color=color, linewidth=0.9)
    axes.plot([at, at], [low, high], color=color, linewidth=4, alpha=0.5, solid_capstyle="butt")
    axes.plot(at, mean, "o", color=color, markersize=5, label=label, zorder=5)


def _behavior(name: str, champion: xr.Dataset) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    made = Figure(figsize=(7, 5), layout="constrained")
    FigureCanvasAgg(made)
    course = SimpleNamespace(
        states=_states(champion), actions=champion["action"].values, rewards=champion["reward"].values,
        alive=champion["alive"].values,
    )  # fmt: skip
    pictures.draw_behavior(made, course, dt=champion.attrs["dt"])
    made.suptitle(f"{name}: champion, shared weight {champion.attrs['weight']:.3g}, the episode of median return",
                  fontsize=9)  # fmt: skip
    return made
