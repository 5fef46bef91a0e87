"""Figures of the first programs: views of their labelled results."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from experiments._first_programs_report import (
    ARMS,
    iris_accuracy,
    learned,
    price_ratio,
    sentiment_accuracy,
    split_ratio,
)
from nnjax.plotting import COLORS, band, figure, style, theory
from nnjax.statistics import resampled_t_interval

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SPECIES = ("setosa", "versicolor", "virginica")
READING_LABELS = {
    "normalized": "divided by their sum (the claim)",
    "logits": "softmax of the logits",
    "not normalized": "not divided by their sum",
}


def plot(results: xr.DataTree) -> dict[str, Figure]:
    """Every figure of the study, by name."""
    group = {name: node.to_dataset() for name, node in results.children.items()}
    with style():
        return {
            "iris": _iris(group["iris"]),
            "small_nets": _small_nets(group["plain_arrays"], group["people"]),
            "negation": _negation(group["negation"]),
            "prices": _prices({name: group[name] for name in ("walk", "apple") if name in group}),
            "sentiment": _sentiment(group["sentiment"]),
        }


def _points(axes: Axes, x: np.ndarray, intervals: Any, color: str, label: str | None) -> None:
    """Means with their intervals."""
    mean, low, high = (np.array([interval[i] for interval in intervals]) for i in range(3))
    axes.errorbar(x, mean, [mean - low, high - mean], fmt="o", markersize=4, color=color, label=label, linewidth=1.2)


def _iris(iris: xr.Dataset) -> Figure:
    made, axes = figure(1, 3, width=3.4)
    features = [str(name) for name in iris["features"].values]
    place = np.arange(len(features))
    for shift, name, label in ((-0.1, "right", "nnjax"), (0.1, "scikit_learn_right", "scikit-learn")):
        found = [resampled_t_interval(iris_accuracy(iris, one, name), split_ratio(iris)) for one in features]
        _points(axes[0, 0], place + shift, found, COLORS[0 if shift < 0 else 1], label)
    axes[0, 0].set_xticks(place, features)
    axes[0, 0].set(xlabel="features seen", ylabel="test accuracy", ylim=(0.5, 1.02), xlim=(-0.5, len(features) - 0.5))
    axes[0, 0].set_title(f"(7, 4) MLP on iris: mean, 95 %, {iris.sizes['seed']} splits")
    axes[0, 0].legend(loc="lower right")
    for cell, name in zip(axes[0, 1:], ("sepal", "petal"), strict=True):
        _regions(cell, iris["region"].sel(features=name), name)
    return made


def _regions(axes: Axes, region: xr.DataArray, name: str) -> None:
    """The class that most nets give, the paler the fewer of them, with the flowers on top."""
    from matplotlib.colors import to_rgb

    from experiments._first_programs_tables import iris

    votes = np.stack([(region == label).mean("seed").values for label in range(3)])
    winner, share = votes.argmax(axis=0), votes.max(axis=0)
    palette = np.array([to_rgb(color) for color in COLORS[:3]])
    strength = (0.45 * np.clip((share - 1 / 3) * 1.5, 0, 1))[..., None]
    picture = 1 - strength * (1 - palette[winner])
    ends = (float(region["x"][0]), float(region["x"][-1]), float(region["y"][0]), float(region["y"][-1]))
    axes.imshow(picture, origin="lower", extent=ends, aspect="auto", interpolation="nearest")
    x, y = iris()
    columns = {"sepal": (0, 1), "petal": (2, 3)}[name]
    z = (x - x.mean(axis=0)) / x.std(axis=0)
    for label, species in enumerate(SPECIES):
        here = z[y == label]
        axes.scatter(
            here[:, columns[0]], here[:, columns[1]], s=9, color=COLORS[label], edgecolor="white", linewidth=0.3,
            label=species,
        )  # fmt: skip
    axes.set(xlabel=f"{name} length, standardized", ylabel=f"{name} width, standardized", xlim=ends[:2], ylim=ends[2:])
    axes.set_title(f"regions by {name}; pale: nets disagree")
    axes.grid(False)
    axes.legend(loc="lower right", frameon=True, framealpha=0.85, edgecolor="none", handletextpad=0.1)


def _small_nets(arrays: xr.Dataset, people: xr.Dataset) -> Figure:
    made, axes = figure(1, 2, width=4.2)
    left, right = axes[0]
    steps = np.arange(arrays.sizes["step"])
    looks = {"no bias": ("-", COLORS[1]), "bias": ("-", COLORS[0]), "autodiff": ("--", "black")}
    labels = {"no bias": "by hand, no bias", "bias": "by hand, bias per layer", "autodiff": "the same by autodiff"}
    for form, (line, color) in looks.items():
        loss = arrays["loss"].sel(form=form).transpose("seed", "step").values
        band(left, steps, loss, label=labels[form], color=color, linestyle=line, median=True)
    left.set(xlabel="updates", ylabel="training loss", ylim=(0, None))
    left.set_title(f"plain arrays on iris: median, quartiles of {arrays.sizes['seed']} splits")
    left.legend()
    _people(right, people)
    return made


def _people(axes: Axes, people: xr.Dataset) -> None:
    """The six, two lines that part them, and the clusters as rings."""
    x, label = people["x"].values, people["label"].values
    mean, std = people["mean"].values, people["std"].values
    for value, marker in ((1, "o"), (0, "s")):
        here = label == value
        axes.scatter(x[here, 0], x[here, 1], marker=marker, s=45, color=COLORS[value], label=f"label {value}", zorder=3)
    for cluster, style_ in ((1, "-"), (0, "--")):
        here = people["clusters"].values == cluster
        axes.scatter(
            x[here, 0], x[here, 1], s=170, facecolor="none", edgecolor="0.35", linestyle=style_, linewidth=1.0,
            label=f"k-means cluster {'A' if cluster else 'B'}",
        )  # fmt: skip
    height = np.linspace(110.0, 245.0, 500)
    for name, color in (("perceptron", COLORS[2]), ("logistic", COLORS[3])):
        bias, first, second = people[f"{name}_line"].values
        weight = mean[1] - std[1] * (bias + first * (height - mean[0]) / std[0]) / second
        seen = (weight > 45) & (weight < 76)  # room for the legend above
        axes.plot(height[seen], weight[seen], color=color, label=name)
    axes.set(xlabel="height, cm", ylabel="weight, kg", xlim=(110, 245), ylim=(45, 90))
    axes.set_title("six people: two classifiers and two clusters")
    axes.legend(loc="upper center", ncols=3, fontsize=7)


def _negation(negation: xr.Dataset) -> Figure:
    made, axes = figure(1, 2, width=4.2)
    left, right = axes[0]
    epochs = negation["epoch"].values
    seeds = negation.sizes["seed"]
    for color, reading in zip(COLORS, negation["reading"].values, strict=False):
        here = negation.sel(reading=reading)
        loss = here["running_loss"].transpose("seed", "epoch").values
        name = READING_LABELS[str(reading)]
        band(left, epochs, loss, label=name, color=color, median=True)
        solved = (here["accuracy"].transpose("seed", "epoch").values == 1).mean(axis=0)
        right.plot(epochs, solved, color=color, label=f"{name}: {int(learned(negation, str(reading)).sum())}")
    theory(right, epochs, np.full(len(epochs), 0.9), label="asked for: 90 %")
    left.set(xlabel="epoch", ylabel="loss in training, nats")
    left.set_title(f"NOT of one bit, 16-32-2 net: median, quartiles of {seeds} seeds")
    bottom, top = left.get_ylim()
    left.set_ylim(bottom - 0.3 * (top - bottom), top)  # room for the legend
    left.legend(loc="lower left", title="two logistic outputs", title_fontsize=8)
    right.set(xlabel="epoch", ylabel="share of seeds", ylim=(0, 1.02))
    right.set_title("seeds that have every sample right")
    right.legend(title=f"at the end, of {seeds}", title_fontsize=8)
    for cell in axes[0]:
        cell.set_xticks(range(0, int(epochs[-1]) + 1, 5))
    return made


def _prices(groups: dict[str, xr.Dataset]) -> Figure:
    made, axes = figure(len(groups), 2, width=4.2)
    titles = {"walk": "a random walk with drift", "apple": "Apple shares, 2015 to 2017"}
    for row, (name, prices) in zip(axes, groups.items(), strict=True):
        one = prices.sel(inputs="closes").isel(seed=0)
        days = np.arange(prices.sizes["day"])
        shown = slice(0, 60)
        price, today = one["price"].values, _naive(one)
        row[0].plot(days[shown], price[shown], color="0.25", label="price")
        row[0].plot(days[shown], today[shown], color="0.6", linestyle=":", label="tomorrow = today")
        row[0].plot(days[shown], one["linear_guess"].values[shown], color=COLORS[0], label="line", linewidth=1)
        row[0].plot(days[shown], one["net_guess"].values[shown], color=COLORS[1], label="net", linewidth=1)
        row[0].set(
            xlabel="trading days after the training part",
            ylabel="closing price" + (", US dollars" if name == "apple" else ""),
        )
        row[0].set_title(f"{titles[name]}, three closes" + (", first seed" if name == "walk" else ""))
        bottom, top = row[0].get_ylim()
        row[0].set_ylim(bottom, top + 0.25 * (top - bottom))  # room for the legend
        row[0].legend(loc="upper center", ncols=2)
        _ratios(row[1], prices, name)
    return made


def _naive(one: xr.Dataset) -> np.ndarray:
    """The close of the day before, unknown here for the first."""
    price = one["price"].values
    return np.concatenate([[np.nan], price[:-1]])


def _ratios(axes: Axes, prices: xr.Dataset, name: str) -> None:
    inputs = [str(one) for one in prices["inputs"].values]
    place = np.arange(len(inputs))
    for shift, model, color in ((-0.1, "linear", COLORS[0]), (0.1, "net", COLORS[1])):
        found = [price_ratio(prices, one, model, name) for one in inputs]
        _points(axes, place + shift, found, color, {"linear": "line", "net": "net"}[model])
    axes.axhline(1, color="black", linestyle="--", linewidth=1.1, label="tomorrow = today")
    axes.set_xticks(place, inputs)
    axes.set(xlabel="seen of the last three days", ylabel="RMSE / that of tomorrow = today")
    over = f"{prices.sizes['seed']} walks" if name == "walk" else f"{prices.sizes['day']} days"
    axes.set_title(f"mean and 95 % over {over}; lower is better")
    axes.set_xlim(-0.5, 2.4)
    axes.legend(loc="center right")


def _sentiment(sentiment: xr.Dataset) -> Figure:
    made, axes = figure(width=6.4)
    cell = axes[0, 0]
    kinds = {"all": "all sentences", "plain": "without a negator", "negated": "with a negator"}
    place = np.arange(len(kinds))
    for number, (arm, label) in enumerate(ARMS.items()):
        found = [
            resampled_t_interval(sentiment_accuracy(sentiment, arm, which), split_ratio(sentiment)) for which in kinds
        ]
        _points(cell, place + 0.12 * (number - 1.5), found, COLORS[number], label)
    theory(cell, np.array([-0.5, len(kinds) - 0.5]), np.array([0.5, 0.5]), label="guessing")
    cell.set_xticks(place, list(kinds.values()))
    cell.set(ylabel="test accuracy", ylim=(0, 1.02), xlim=(-0.5, len(kinds) - 0.5))
    sizes = f"{sentiment.sizes['all']} sentences, {sentiment.sizes['seed']} splits"
    cell.set_title(f"sentiment of {sizes}: mean and 95 %")
    cell.legend(loc="lower left", ncols=2)
    return made
