"""Figures of the logic-gates study: views of its labelled results."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from experiments._logic_gates_lanes import DELTA_THRESHOLD, DRAWN, hidden_net
from nnjax.plotting import COLORS, band, figure, log_axis, mark, style, theory
from nnjax.statistics import Interval, t_interval

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SOLVED = 0.4
"""Largest error, over the range of targets, with which XOR counts as solved."""

KNOWN = {1: 4, 2: 14, 3: 104, 4: 1882}
"""Linearly separable Boolean functions by number of inputs (Muroga, 1971)."""

RULES = {"lms": "LMS", "nlms": "normalized LMS"}


def plot(results: xr.DataTree) -> dict[str, Figure]:
    """Every figure of the study, by name; ``logic_gates`` is the one to look at first."""
    with style():
        return {
            "logic_gates": _gates(results["gates"].to_dataset()),
            "functions": _functions(results),
            "hidden_layer": _hidden(results["hidden"].to_dataset()),
            "mark1": _mark1(results["mark1"].to_dataset(), results["pixels"].to_dataset()),
            "echo": _echo(results["echo"].to_dataset()),
            "hebb": _hebb(results["oja"].to_dataset(), results["sanger"].to_dataset()),
        }


def share(right: Any) -> Interval:
    """Share of successes along the first axis with the exact 95 % interval of Clopper and Pearson (1934)."""
    from scipy.stats import beta

    right = np.asarray(right, bool)
    n, k = len(right), right.sum(axis=0)
    low = np.where(k > 0, beta.ppf(0.025, np.maximum(k, 1), n - k + 1), 0.0)
    high = np.where(k < n, beta.ppf(0.975, k + 1, np.maximum(n - k, 1)), 1.0)
    return Interval(k / n, low, high)


def solved(results: xr.Dataset) -> np.ndarray:
    """Whether a net has solved XOR, (seeds, steps) or (seeds,), for results narrowed to one net."""
    worst = results["worst"]
    return worst.transpose("seed", *(d for d in worst.dims if d != "seed")).values < SOLVED


# Gates


def _gates(results: xr.Dataset) -> Figure:
    made, axes = figure(2, 4, width=3.1, height=2.9)
    _truth_table(axes[0, 0], results)
    _errors_by_epoch(axes[1, 0], results)
    for column, name in enumerate(DRAWN, start=1):
        here = results.sel(gate=name)
        _decision_lines(axes[0, column], here, name)
        _delta_trace(axes[1, column], here, name)
    axes[1, 1].legend()
    return made


def _truth_table(axes: Axes, results: xr.Dataset) -> None:
    from matplotlib.colors import ListedColormap

    fixed, learned = results["fixed"].values, results["learned"].values
    gap = np.full((len(fixed), 1), np.nan)
    axes.imshow(
        np.concatenate([fixed, gap, learned], axis=1), cmap=ListedColormap(["0.93", COLORS[5]]), aspect="auto",
        vmin=0, vmax=1,
    )  # fmt: skip
    for (row, column), value in np.ndenumerate(fixed):
        axes.text(column, row, f"{value:g}", ha="center", va="center", fontsize=8)
        wrong = learned[row, column] != value
        look: dict[str, Any] = {"color": COLORS[1], "weight": "bold"} if wrong else {}
        axes.text(column + 5, row, f"{learned[row, column]:g}", ha="center", va="center", fontsize=8, **look)
    labels = ["00", "01", "10", "11"]
    axes.set_xticks([*range(4), *range(5, 9)], labels * 2)
    axes.set_yticks(range(len(fixed)), [str(name) for name in results["gate"].values])
    axes.set_xlabel("fixed weights        one unit, learned")
    axes.set_title("truth tables (red: wrong)")
    axes.grid(False)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)


def _errors_by_epoch(axes: Axes, results: xr.Dataset) -> None:
    epochs = np.arange(1, 13)
    for color, name, marker in zip(COLORS, DRAWN, "osD", strict=False):
        errors = results["errors"].sel(gate=name).values[: len(epochs)]
        axes.plot(epochs, errors, marker=marker, markersize=4, color=color, label=name.upper())
    axes.set(xlabel="epoch", ylabel="wrong patterns", ylim=(-0.2, 5.6), yticks=range(5), xticks=range(1, 13, 2))
    axes.set_title("perceptron with a bias")
    axes.legend(ncols=3, loc="upper center")


def _decision_lines(axes: Axes, here: xr.Dataset, name: str) -> None:
    from matplotlib import colormaps

    converged, epochs = bool(here["converged"]), int(here["epochs"])
    shown = epochs if converged else 6
    x = np.array([-1.3, 1.8])
    for epoch in range(shown):
        bias, first, second = here["weights"].values[epoch]
        last = epoch == shown - 1
        look: dict[str, Any] = {
            "color": colormaps["viridis_r"](0.15 + 0.85 * epoch / max(shown - 1, 1)),
            "linewidth": 2.2 if last else 1.1,
            "label": f"epoch {epoch + 1}" if epoch == 0 or last else None,
        }
        if second:
            axes.plot(x, -(bias + first * x) / second, **look)
        elif first:
            axes.axvline(-bias / first, **look)
    for row, value in enumerate(here["fixed"].values):
        face = COLORS[1] if value else "white"
        axes.plot(row // 2, row % 2, "o", markersize=9, markerfacecolor=face, markeredgecolor="black", zorder=6)
    axes.set(xlim=(-1.3, 1.8), ylim=(-0.8, 2.3), xticks=(0, 1), yticks=(0, 1), ylabel="b")
    axes.set_xlabel("a   (filled: shall be 1; on a line the unit fires)")
    end = f"learned in epoch {epochs}, {int(here['updates'])} updates" if converged else "not converged"
    axes.set_title(f"{name.upper()}: {end}")
    axes.legend(loc="upper right")


def _delta_trace(axes: Axes, here: xr.Dataset, name: str) -> None:
    presentations = np.arange(1, here.sizes["presentation"] + 1)
    for column, (color, dash) in enumerate(zip(COLORS[2:], ("-", "--"), strict=False)):
        line = here["delta"].values[:, column]
        axes.step(presentations, line, where="post", color=color, linestyle=dash, label=f"weight of {'ab'[column]}")
    axes.axhline(DELTA_THRESHOLD, color="0.4", linestyle=":", linewidth=1)
    axes.annotate("threshold", (presentations[-1], DELTA_THRESHOLD), (0, 2), textcoords="offset points",
                  ha="right", fontsize=7, color="0.4")  # fmt: skip
    end = "converges" if bool(here["delta_converged"]) else "not converged"
    axes.set(xlabel="patterns shown", ylabel="weight", ylim=(-0.05, 0.85))
    axes.set_title(f"delta rule, {name.upper()}: {end}")


# All functions


def _functions(results: xr.DataTree) -> Figure:
    made, axes = figure(1, 2, width=4.0, height=3.1)
    counts, updates = axes[0]
    groups = {int(str(g).rpartition("_")[2]): results[g].to_dataset() for g in results.children if "functions" in g}
    sizes = np.array(sorted(groups))
    learned = [int(groups[n]["converged"].sum()) for n in sizes]
    counts.plot(sizes, [2**2 ** int(n) for n in sizes], "s-", color="0.6", markersize=4, label="all Boolean functions")
    theory(counts, sizes, np.array([KNOWN[n] for n in sizes]), label="linearly separable (Muroga, 1971)")
    counts.plot(sizes, learned, "o", color=COLORS[0], markersize=7, label="learned by the perceptron")
    for n, count in zip(sizes, learned, strict=True):
        counts.annotate(f"{count}", (n, count), (0, -13), textcoords="offset points", ha="center", fontsize=8)
    counts.set(xlabel="inputs", ylabel="functions", yscale="log", ylim=(0.8, 3e5), xticks=sizes)
    counts.set(xlim=(sizes[0] - 0.3, sizes[-1] + 0.3), title="what one threshold unit can learn")
    counts.legend(loc="upper left")
    for color, n in zip(COLORS, sizes, strict=False):
        here = groups[n].isel(number=groups[n]["converged"].values)
        look: dict[str, Any] = {"color": color, "markersize": 3, "alpha": 0.6, "rasterized": True}
        name = f"{n} input{'' if n == 1 else 's'}"
        updates.plot(here["bound"], np.maximum(here["updates"], 0.7), "o", label=name, **look)
    limits = np.array([1.5, 1000])
    theory(updates, limits, limits, label="Novikoff's bound")
    updates.set(xlabel="bound on updates, (R / margin)$^2$", ylabel="updates (0 drawn at 0.7)")
    updates.set_title("every function learned, below its bound")
    log_axis(updates, (2, 5, 10, 20, 50, 100, 200, 500))
    log_axis(updates, (1, 3, 10, 30, 100, 300, 1000), "y")
    updates.legend(loc="upper left")
    return made


# A hidden layer


def _hidden(results: xr.Dataset) -> Figure:
    made, axes = figure(1, 3, width=3.7, height=3.1)
    by_step, by_rate, surface = axes[0]
    main = results.sel(rate=results.attrs["rate"]).isel(step=slice(1, None))
    for name, activation, units, color, dash in _nets(results):
        here = main.sel(activation=activation, units=units)
        _share_band(by_step, here["step"].values, solved(here), name, color, dash)
        ends = results.sel(activation=activation, units=units).isel(step=-1)
        _share_band(by_rate, ends["rate"].values, solved(ends), name, color, dash)
    by_step.set(xscale="log", xlabel="steps of gradient descent", ylabel="share of starts that solve XOR")
    by_step.set_title(f"learning rate {results.attrs['rate']:g}, {results.sizes['seed']} starts")
    steps = int(results["step"].values[-1])
    by_rate.set(xlabel="learning rate", title=f"after {steps:,} steps")
    log_axis(by_rate, [float(rate) for rate in results["rate"].values])
    for cell in (by_step, by_rate):
        cell.set(ylim=(-0.03, 1.03))
    by_rate.legend(loc="lower left")
    _surface(surface, results)
    return made


def _nets(results: xr.Dataset) -> list[tuple[str, str, int, str, str]]:
    """Name, activation, hidden units, color and dash of each net."""
    return [
        (f"2-{int(units)}-1 {activation}", str(activation), int(units), color, dash)
        for activation, color in zip(results["activation"].values, COLORS, strict=False)
        for units, dash in zip(results["units"].values, ("--", "-", ":", "-."), strict=False)
    ]


def _share_band(axes: Axes, x: np.ndarray, right: np.ndarray, label: str, color: str, dash: str) -> None:
    found = share(right)
    axes.plot(x, found.mean, color=color, linestyle=dash, label=label)
    axes.fill_between(x, found.low, found.high, color=color, alpha=0.15, linewidth=0)


def _surface(axes: Axes, results: xr.Dataset) -> None:
    """Output of the first start that solved XOR with the fewest hidden units."""
    here = results.sel(rate=results.attrs["rate"]).isel(activation=0, units=0)
    activation, units = str(here["activation"].values), int(here["units"])
    right = solved(here.isel(step=-1))
    seed = int(np.argmax(right)) if right.any() else 0
    weights = {name: here[name].values[seed] for name in ("hidden", "output")}
    side = np.linspace(-0.4, 1.4, 121)
    points = np.stack([a.ravel() for a in np.meshgrid(side, side)], axis=1).astype(np.float32)
    values = np.asarray(hidden_net(weights, points, activation)).reshape(121, 121)
    low = 0.0 if activation == "logistic" else -1.0
    drawn = axes.pcolormesh(side, side, values, cmap="viridis", shading="nearest", vmin=low, vmax=1)
    drawn.set_rasterized(True)
    axes.contour(side, side, values, levels=[(low + 1) / 2], colors="white", linewidths=1.5)
    for a, b in ((0, 0), (0, 1), (1, 0), (1, 1)):
        face = COLORS[1] if a != b else "white"
        axes.plot(a, b, "o", markersize=9, markerfacecolor=face, markeredgecolor="black")
    axes.figure.colorbar(drawn, ax=axes, label="output (white line: the middle)")
    what = "a solution" if right.any() else "no start solved it: the first"
    axes.set(xlabel="a", ylabel="b", xticks=(0, 1), yticks=(0, 1), title=f"{what}, 2-{units}-1 {activation}")
    axes.grid(False)


# The Mark I


def _mark1(results: xr.Dataset, pixels: xr.Dataset) -> Figure:
    made, axes = figure(1, 3, width=3.8, height=3.1)
    by_units, by_epoch, pictures = axes[0]
    units = results["units"].values
    final = results["test_error"].isel(epoch=-1).transpose("seed", "units").values
    band(by_units, units, final, label="random association units", color=COLORS[0], marker="o", markersize=3)
    names = {"perceptron": "perceptron on the pixels", "softmax": "softmax on the pixels"}
    for color, (rule, name) in zip(COLORS[1:], names.items(), strict=False):
        same = np.repeat(pixels["test_error"].sel(rule=rule).values[:, None], len(units), axis=1)
        band(by_units, units, same, label=name, color=color, linestyle="--")
    log_axis(by_units, [int(u) for u in units])
    log_axis(by_units, (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5), "y")
    if 512 in units:
        mark(by_units, 512, "Mark I")
    by_units.set(xlabel="association units", ylabel="test error", ylim=(0.35 * final.mean(axis=0).min(), None))
    by_units.legend(loc="lower left")
    largest = results.isel(units=-1)
    for color, split in zip(COLORS[3:], ("train", "test"), strict=False):
        curve = largest[f"{split}_error"].transpose("seed", "epoch").values
        band(by_epoch, largest["epoch"].values, curve, label=split, color=color)
    by_epoch.set(xlabel="epoch", ylabel="error", ylim=(0, None))
    by_epoch.locator_params(axis="x", integer=True)
    by_epoch.set_title(f"{int(units[-1])} association units, {results.sizes['seed']} machines")
    by_epoch.legend()
    _templates(pictures, pixels)
    made.suptitle(f"{results.attrs['data']}, 20 x 20 pixels, {results.attrs['n']} training pictures")
    return made


def _templates(axes: Axes, pixels: xr.Dataset) -> None:
    """Templates of softmax regression, mean over seeds, two rows of five; all on one scale."""
    templates = pixels["templates"].sel(rule="softmax").mean("seed").values
    side = round(templates.shape[1] ** 0.5)
    rows = -(-len(templates) // 5)
    canvas = np.full((rows * (side + 1) - 1, 5 * (side + 1) - 1), np.nan)
    for number, picture in enumerate(templates):
        top, left = number // 5 * (side + 1), number % 5 * (side + 1)
        canvas[top : top + side, left : left + side] = picture.reshape(side, side)
        axes.text(left, top - 0.5, f"{number}", fontsize=7, va="bottom")
    most = np.nanmax(np.abs(canvas))
    drawn = axes.imshow(canvas, cmap="RdBu_r", vmin=-most, vmax=most)
    axes.figure.colorbar(drawn, ax=axes, label="weight", shrink=0.7)
    axes.set_axis_off()
    axes.set_title("templates: one row of weights a class")


# ADALINE and Hebb


def _echo(results: xr.Dataset) -> Figure:
    made, axes = figure(1, 2, width=4.2, height=3.1)
    by_time, by_rate = axes[0]
    rates = results["rate"].values
    middle = float(rates[len(rates) // 2])
    for rule, color, marker in zip(RULES, COLORS, "os", strict=False):
        here = results.sel(rule=rule)
        enhancement = here["erle"].sel(rate=middle).transpose("seed", "sample").values
        band(by_time, here["sample"].values, enhancement, label=RULES[rule], color=color)
        settled = 10 * np.log10(here["settled"].transpose("seed", "rate").values)
        offset = 1.03 if rule == "nlms" else 1 / 1.03  # side by side
        middles, low, high = t_interval(settled)
        by_rate.errorbar(rates * offset, middles, np.stack([middles - low, high - middles]), color=color,
                         label=f"{RULES[rule]}, measured", linestyle="none", marker=marker, markersize=5)  # fmt: skip
        line = 10 * np.log10(here["theory"].values)
        theory(by_rate, rates, line, label=f"{RULES[rule]}, theory", linestyle="--" if rule == "lms" else ":")
    ceiling = 10 * np.log10(results["loudness"].values).mean()
    theory(by_time, results["sample"].values, np.full(results.sizes["sample"], ceiling), label="all echo gone")
    by_time.set(xlabel="samples (8000 a second)", ylabel="echo return loss enhancement, dB", ylim=(0, ceiling + 3))
    by_time.set_title(f"{results.attrs['taps']} taps, learning rate {middle:g}, {results.sizes['seed']} lines")
    by_time.legend(loc="lower right")
    log_axis(by_rate, [float(rate) for rate in rates])
    by_rate.set(xlabel="learning rate, in units of 1 / (power over the taps)")
    by_rate.set(ylabel="settled residual over noise, dB", title="the price of a large step", ylim=(0, None))
    by_rate.legend()
    return made


def _hebb(oja: xr.Dataset, sanger: xr.Dataset) -> Figure:
    made, axes = figure(1, 3, width=3.7, height=3.1)
    explained, length, several = axes[0]
    seen = oja["pattern"].values
    band(explained, seen, oja["explained"].values, label="Oja's rule", color=COLORS[0])
    theory(explained, seen, oja["theory"].mean("seed").values, label="Oja's flow")
    explained.axhline(oja.attrs["first"], color="0.4", linestyle=":", linewidth=1, label="first principal component")
    explained.set(xscale="log", xlabel="pictures shown", ylabel="share of variance explained", ylim=(0, None))
    explained.set_title("one unit on digits")
    explained.legend(loc="lower right")
    band(length, seen, oja["hebb_length"].values, label="Hebb's rule", color=COLORS[1], median=True)
    band(length, seen, oja["oja_length"].values, label="Oja's rule", color=COLORS[0], median=True)
    growth = np.exp(oja.attrs["rate"] * oja.attrs["largest"] * (seen - seen[-1]))
    theory(length, seen, growth * np.median(oja["hebb_length"].values[:, -1]), label=r"slope $\eta \lambda_1$")
    length.set(yscale="log", xlabel="pictures shown", ylabel="length of the weights", title="what keeps them bounded")
    length.legend(loc="upper left")
    units = sanger["unit"].values
    band(several, units, sanger["explained"].values, label="Sanger's rule", color=COLORS[2], marker="o", markersize=4)
    theory(several, units, sanger["pca"].values, label="principal components")
    several.set(xlabel="units", ylabel="share of variance explained", ylim=(0, None), title="several units on digits")
    several.legend(loc="lower right")
    return made
