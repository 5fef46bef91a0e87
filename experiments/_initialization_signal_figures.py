"""Figures of the initialisation study on inputs, zero, signals and histograms: views of its labelled results."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from experiments._initialization_signals import SATURATED
from experiments._initialization_units import BINS, DELTA_RANGE, FAN_IN, HISTOGRAM_ACTIVATIONS, INPUT_SCHEMES
from nnjax.plotting import COLORS, band, figure, log_axis, style, theory
from nnjax.statistics import t_interval

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Color by variance of a weight, marker by kind of draw.
LOOK = {
    "small_normal": (COLORS[0], "o", "N(0, 0.01²)"),
    "xavier_normal": (COLORS[2], "o", "Xavier = LeCun, normal"),
    "lecun_normal": (COLORS[2], "o", "LeCun = Xavier, normal"),
    "xavier_uniform": (COLORS[2], "s", "Xavier, uniform"),
    "orthogonal": (COLORS[2], "^", "orthogonal"),
    "he_normal": (COLORS[1], "o", "He, normal"),
    "he_uniform": (COLORS[1], "s", "He, uniform"),
    "standard_normal": (COLORS[3], "o", "N(0, 1)"),
}
"""A scheme's color, marker and name, the same in all figures."""

_WORDS = {"standard": "U(−1/√n, 1/√n)", "xavier_uniform": "Xavier, uniform", "start": "before", "end": "after training"}


def plot(tree: xr.DataTree) -> dict[str, Figure]:
    """Every figure of these panels, by name; ``signals_forward`` and ``signals_backward`` are the ones to look at."""
    signals, histograms = tree["signals"].to_dataset(), tree["histograms"].to_dataset()
    with style():
        made = {
            "signals_forward": _lengths(signals, "length"),
            "signals_backward": _lengths(signals, "gradient"),
            "signals_correlation": _correlations(signals),
            **_units(signals),
            "inputs_and_zero": _small(tree["inputs"].to_dataset(), tree["zero"].to_dataset()),
        }
        for activation in histograms["activation"].values:
            made[f"histograms_{activation}"] = _histograms(histograms.sel(activation=activation))
        return made


# Signals


def _schemes(axes: Axes, panel: xr.Dataset, name: str, expected: str, scale: float = 1.0) -> None:
    """Each scheme's mean at some layers with its 95 % interval, staggered so that none hides another; theory black.

    There is a gap where a mean is not finite.
    """
    layers = panel["layer"].values
    step = max(1, len(layers) // 8)
    shown = _shown(panel)
    for number, scheme in enumerate(shown):
        color, marker, label = LOOK[scheme]
        here = panel.sel(scheme=scheme).transpose("seed", "layer", ...)
        samples = here[name].values * scale
        mean, low, high = (np.where(np.isfinite(value), value, np.nan) for value in t_interval(samples))
        at = slice(number * step // len(shown), None, step)
        axes.plot(layers[at], mean[at], marker, color=color, markersize=4, label=label, linestyle="none")
        axes.fill_between(layers, low, high, color=color, alpha=0.25, linewidth=0)
        theory(axes, layers, here[expected].values * scale, label=None, linewidth=0.8)


def _shown(panel: xr.Dataset) -> list[str]:
    """The panel's schemes in the order of `LOOK`, one of those two that are one where layers have one width."""
    there = [scheme for scheme in LOOK if scheme in panel["scheme"].values]
    return [scheme for scheme in there if scheme != "lecun_normal" or "xavier_normal" not in there]


def _grid(panel: xr.Dataset, title: str) -> tuple[Figure, dict[str, Axes], Axes]:
    """A cell for each activation and one for the legend."""
    names = [str(name) for name in panel["activation"].values]
    rows = -(-(len(names) + 1) // 4)
    made, axes = figure(rows, 4, width=2.9, height=2.7)
    cells = dict(zip(names, axes.ravel(), strict=False))
    for cell in axes.ravel()[len(names) + 1 :]:
        cell.set_axis_off()
    made.suptitle(title, fontsize=10)
    return made, cells, axes.ravel()[len(names)]


def _legend(place: Any, cell: Axes, panel: xr.Dataset, mean: str = "mean") -> None:
    """What a cell's marks mean, in the middle of empty axes or (``place`` a figure) beside all cells."""
    handles, labels = cell.get_legend_handles_labels()
    (line,) = cell.plot([], [], color="black", linestyle="--", linewidth=0.8)
    note = f"{panel.sizes['seed']} nets of {panel.attrs['width']} units a layer,\n{mean} and 95 % interval"
    where = "center" if hasattr(place, "set_axis_off") else "outside right center"
    place.legend([*handles, line], [*labels, "mean field"], loc=where, title=note, title_fontsize=8)


def _lengths(panel: xr.Dataset, what: str) -> Figure:
    """Lengths or gradients by layer and activation.

    At finite width a mean of logarithms lies below infinite width's line, most of all the gradient of logistic units
    from N(0, 1): 70 % of them are saturated, and few carry it.
    """
    depth = panel.sizes["layer"]
    words = {"length": "mean squared net input q of layer l", "gradient": f"gradient |δ_l|²/|δ_{depth}|² at layer l"}[
        what
    ]
    made, cells, rest = _grid(
        panel, f"{words}; the axis is linear in the exponent up to ±1 and logarithmic in it beyond"
    )
    for number, (activation, cell) in enumerate(cells.items()):
        here = panel.sel(activation=activation)
        _schemes(cell, here, f"log_{what}", f"theory_log_{what}", 1 / np.log(10))
        cell.set_yscale("symlog", linthresh=1.0, linscale=0.6)
        ends = [np.floor(cell.get_ylim()[0]), np.ceil(cell.get_ylim()[1])]
        ticks = [tick for tick in (-100, -10, -1, 0, 1, 10, 100) if ends[0] <= tick <= ends[1]]
        cell.set_yticks(ticks, [f"$10^{{{tick}}}$" for tick in ticks])
        cell.yaxis.set_minor_locator(_none())
        cell.set(title=activation, xlabel="layer l", ylim=ends)
        if np.all(here[f"theory_log_{what}"].values[..., 0] == -np.inf):
            cell.annotate(
                f"exactly 0 below layer {depth}", (0.5, 0.2), xycoords="axes fraction", ha="center", fontsize=8
            )
            cell.set_xlim(0, depth + 1)
        if number % 4 == 0:
            cell.set_ylabel("q" if what == "length" else f"|δ_l|² / |δ_{depth}|²")
    rest.set_axis_off()
    _legend(rest, cell, panel, "mean of the logarithm")
    return made


def _none() -> Any:
    from matplotlib.ticker import NullLocator

    return NullLocator()


def _correlations(panel: xr.Dataset) -> Figure:
    made, cells, rest = _grid(panel, "correlation of the net inputs of two inputs that have correlation 1/2")
    for number, (activation, cell) in enumerate(cells.items()):
        _schemes(cell, panel.sel(activation=activation), "correlation", "theory_correlation")
        cell.set(title=activation, xlabel="layer l", ylim=(-0.05, 1.05))
        if number % 4 == 0:
            cell.set_ylabel("mean cosine")
    rest.set_axis_off()
    _legend(rest, cell, panel)
    return made


def _units(panel: xr.Dataset) -> dict[str, Figure]:
    """The figure ``signals_units``: saturated tanh and logistic units and dead ReLUs; none where none was chosen."""
    words = {
        "tanh": ("saturated", f"tanh: slope below {SATURATED:g}"),
        "logistic": ("saturated", f"logistic: slope below {SATURATED:g}"),
        "relu": ("dead", f"ReLU: off for all {panel.attrs['inputs']} inputs"),
    }
    there = [activation for activation in words if activation in panel["activation"].values]
    if not there:
        return {}
    made, axes = figure(1, len(there), width=3.9, height=2.9)
    for cell, activation in zip(axes[0], there, strict=True):
        name, title = words[activation]
        _schemes(cell, panel.sel(activation=activation), name, f"theory_{name}")
        cell.set(title=title, xlabel="layer l", ylim=(-0.015, 0.515) if name == "dead" else (-0.03, 1.03))
    axes[0, 0].set_ylabel("share of units")
    _legend(made, axes[0, 0], panel)
    return {"signals_units": made}


# Inputs and zero


def _small(inputs: xr.Dataset, zero: xr.Dataset) -> Figure:
    made, axes = figure(1, 3, width=4.1, height=3.1)
    _sums(axes[0, 0], inputs)
    for cell, name in zip(axes[0, 1:], ("distance", "accuracy"), strict=True):
        _zero_curves(cell, zero, name)
    cell = axes[0, 1]
    cell.set_yscale("symlog", linthresh=0.1)
    largest = cell.get_ylim()[1]
    ticks = [tick for tick in (0, 0.1, 1, 10, 100) if tick <= largest]
    cell.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    cell.yaxis.set_minor_locator(_none())
    cell.set(ylim=(-0.02, largest), ylabel="largest distance of two units", title="do the units of a layer part?")
    if zero["distance"].sel(start=["zero", "constant"]).values.max() == 0:
        cell.annotate("zero and constant: exactly 0", (zero["mark"].values[1], 0.005), fontsize=8)
    axes[0, 2].set(ylabel="training accuracy", ylim=(0, 1.03), title="and what does the net learn?")
    handles, labels = cell.get_legend_handles_labels()
    note = f"start, activation; {zero.sizes['seed']} seeds\nconstant: every weight {zero.attrs['constant']:g}"
    made.legend(handles, labels, loc="outside right center", title=note, title_fontsize=8)
    return made


def _zero_curves(cell: Axes, zero: xr.Dataset, name: str) -> None:
    """A result of the zero panel over updates of Adam, for every start and activation."""
    color = {"zero": COLORS[0], "constant": COLORS[1], "random": COLORS[2]}
    line = {"tanh": "-", "relu": "--", "logistic": ":"}
    here = zero.sel(rule="adam")
    updates = np.maximum(here["mark"].values, 0.5)  # a place for 0 on a logarithmic axis
    for start, tint in color.items():
        for activation, dash in line.items():
            samples = here[name].sel(start=start, activation=activation).transpose("seed", "mark").values
            band(cell, updates, samples, label=f"{start}, {activation}", color=tint, linestyle=dash)
    ticks = [tick for tick in (1, 3, 10, 30, 100, 300, 1000, 3000, 10_000) if tick <= updates[-1]]
    log_axis(cell, [0.5, *ticks])
    cell.set_xticks([0.5, *ticks], ["0", *map(str, ticks)])
    cell.xaxis.set_minor_locator(_none())
    cell.set_xlabel("updates, Adam")


def _sums(axes: Axes, panel: xr.Dataset) -> None:
    words = (("N(0, 1)", COLORS[3]), ("Xavier", COLORS[2]), ("He", COLORS[1]))
    for (name, color), (scheme, variance) in zip(words, INPUT_SCHEMES.items(), strict=True):
        sums = panel["sum"].sel(scheme=scheme).values.ravel()
        deviation = (FAN_IN * variance) ** 0.5
        edges = np.linspace(-4, 4, 41) * deviation
        counts = np.histogram(sums, edges, density=True)[0]
        axes.stairs(counts, edges, color=color, linewidth=1.4, label=f"{name}: variance {sums.var():.3g}")
        density = np.exp(-((edges / deviation) ** 2) / 2) / (deviation * (2 * np.pi) ** 0.5)
        last = scheme == list(INPUT_SCHEMES)[-1]
        theory(axes, edges, density, label="normal, 250 × a weight's variance" if last else None, linewidth=0.8)
    axes.set(xlabel="sum of 250 weights", ylabel="density", yscale="log", ylim=(1e-5, 200), xlim=(-64, 64))
    axes.set_title(f"{FAN_IN} inputs of 1 into one unit")
    axes.legend(loc="upper center", fontsize=7)


# Histograms


def _histograms(panel: xr.Dataset) -> Figure:
    from matplotlib import colormaps

    cells = [(scheme, time) for scheme in panel["scheme"].values for time in ("start", "end")]
    made, axes = figure(2, len(cells), width=2.9, height=2.4)
    layers = panel["layer"].values
    tints = colormaps["viridis"](np.linspace(0, 0.9, len(layers)))
    activation = str(panel["activation"].values)
    ranges = {"activation_density": HISTOGRAM_ACTIVATIONS[activation], "delta_density": DELTA_RANGE}
    for row, (name, ends) in enumerate(ranges.items()):
        edges = np.linspace(*ends, BINS + 1)
        for column, (scheme, time) in enumerate(cells):
            cell, here = axes[row, column], panel[name].sel(scheme=scheme, time=time).mean("seed")
            for layer, tint in zip(layers, tints, strict=True):
                cell.stairs(here.sel(layer=layer).values, edges, color=tint, linewidth=1.2, label=f"layer {layer}")
            cell.set_xlim(*ends)
            if row == 0:
                cell.set_yscale("log")
                cell.set_ylim(1e-3, 1.5 * float(panel[name].mean("seed").max()))
                cell.set_title(f"{_WORDS[str(scheme)]}: {_WORDS[time]}")
                cell.set_xlabel(f"activation, last bin: ≥ {ends[1]:g}" if activation == "relu" else "activation")
            else:
                cell.set_ylim(0, 1.05 * float(panel[name].mean("seed").max()))
                cell.set_xlabel("log₁₀ |δ|")
        axes[row, 0].set_ylabel("density")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    note = f"{activation}, {panel.attrs['width']} units a layer, {panel.attrs['data']}; {panel.sizes['seed']} seeds"
    drawn = (panel["delta_density"].mean("seed").sum("bin") * (DELTA_RANGE[1] - DELTA_RANGE[0]) / BINS).values
    if drawn.min() < 0.95:
        share = f"{100 * drawn.min():.0f} to {100 * drawn.max():.0f} %"
        note += f"\nδ: {share} of a layer's are drawn, the rest are exactly 0 or below 10⁻⁷"
    made.legend(handles, labels, loc="outside lower center", ncols=len(layers), title=note, title_fontsize=8)
    return made
