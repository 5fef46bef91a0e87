"""The report of the first programs: every claim with what was measured, whether it holds or not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import betaincinv

from nnjax.results import Row
from nnjax.statistics import Interval, resampled_t_interval, t_interval

if TYPE_CHECKING:
    import xarray as xr

SAME_ACCURACY = 0.03
"""Two programs are the same where their mean accuracies differ by less: a test flower in 30."""
OVER_SPLITS = "interval of Nadeau and Bengio"
"""Where splits of one data set are dealt anew, and so share examples."""
NOT_BEATEN = 0.99
"""Tomorrow = today is beaten by a root mean squared error below so much of its own."""


def report(results: xr.DataTree) -> list[Row]:
    """Every claim of the study, each with what was measured, whether it holds or not."""
    group = {name: node.to_dataset() for name, node in results.children.items()}
    rows = [*_iris_rows(group["iris"], group["shapes"]), *_array_rows(group["plain_arrays"])]
    rows += _negation_rows(group["negation"])
    rows += [*_gate_rows(group["gates"], group["xor"]), _recurrence_row(group["recurrence"])]
    rows += _people_rows(group["people"])
    rows += [row for name in ("walk", "apple") if name in group for row in _price_rows(group[name], name)]
    return rows + _sentiment_rows(group["sentiment"])


def _holds(yes: Any, surely_not: Any = True) -> str:
    return "holds" if yes else "fails" if surely_not else "open"


def _own(claim: str, quantity: str, measured: str, interval: Any, seeds: int, tolerance: str, said: str) -> Row:
    return Row(claim, quantity, measured, str(interval), seeds, "-", "this study's own check", tolerance, said)


def share_interval(count: int, n: int) -> Interval:
    """Exact 95 % interval of a share (Clopper and Pearson, 1934)."""
    low = float(betaincinv(count, n - count + 1, 0.025)) if count else 0.0
    high = float(betaincinv(count + 1, n - count, 0.975)) if count < n else 1.0
    return Interval(np.asarray(count / n), np.asarray(low), np.asarray(high))


def split_ratio(panel: xr.Dataset) -> float:
    """Test over training examples of a panel's splits."""
    return float(panel.attrs["test_ratio"])


# Iris and plain arrays


def iris_accuracy(iris: xr.Dataset, features: str, name: str = "right") -> np.ndarray:
    """Test accuracy of every seed, (seeds,), ours or scikit-learn's."""
    return iris[name].sel(features=features).values / int(iris.attrs["flowers"])


def _iris_rows(iris: xr.Dataset, shapes: xr.Dataset) -> list[Row]:
    rows = []
    for features in iris["features"].values:
        ours, theirs = (iris_accuracy(iris, str(features), name) for name in ("right", "scikit_learn_right"))
        gap = resampled_t_interval(ours - theirs, split_ratio(iris), 0.90)
        inside = gap.low > -SAME_ACCURACY and gap.high < SAME_ACCURACY
        outside = gap.low > SAME_ACCURACY or gap.high < -SAME_ACCURACY
        rows.append(
            _own(
                f"iris, (7, 4) MLP, {features}: as accurate as scikit-learn's on the same splits",
                f"test accuracy, ours minus theirs (90 % {OVER_SPLITS})",
                f"{ours.mean():.3f} against {theirs.mean():.3f}",
                gap,
                len(ours),
                f"within {SAME_ACCURACY}",
                _holds(inside, outside),
            )
        )
    every, sepal, petal = (iris_accuracy(iris, name) for name in ("all four", "sepal", "petal"))
    loss = resampled_t_interval(every - sepal, split_ratio(iris))
    rows.append(
        _own(
            "iris: two features can lose much or little, by which they are",
            f"accuracy lost with sepal alone (with petal alone; {OVER_SPLITS})",
            f"{float(loss.mean):.3f} ({(every - petal).mean():.3f})",
            loss,
            len(every),
            "> 0 for sepal",
            _holds(loss.low > 0, loss.high < 0),
        )
    )
    same = shapes["ours"].values == shapes["scikit_learn"].values
    rows.append(
        _own(
            "coefficient shapes follow depth, inputs and classes as scikit-learn's do",
            "nets whose weight matrices have equal shapes",
            f"{same.sum()} of {same.size}",
            "-",
            0,
            "all",
            _holds(same.all()),
        )
    )
    return rows


def _array_rows(arrays: xr.Dataset) -> list[Row]:
    by_hand, autodiff = (arrays["weights"].sel(form=form).values for form in ("bias", "autodiff"))
    gap = float(np.abs(by_hand - autodiff).max())
    with_bias, without = (arrays["accuracy"].sel(form=form).values for form in ("bias", "no bias"))
    gain = resampled_t_interval(with_bias - without, split_ratio(arrays))
    steps, seeds = arrays.sizes["step"], arrays.sizes["seed"]
    return [
        _own(
            f"two-layer net in plain arrays: by hand equals autodiff after {steps} updates",
            "largest difference of any weight, float64",
            f"{gap:.1e}",
            "-",
            seeds,
            "1e-10",
            _holds(gap < 1e-10),
        ),
        _own(
            "two-layer net in plain arrays: a bias per layer helps",
            f"test accuracy, with minus without ({OVER_SPLITS})",
            f"{with_bias.mean():.3f} against {without.mean():.3f}",
            gain,
            seeds,
            "interval excludes 0",
            _holds(gain.low > 0, gain.high < 0),
        ),
    ]


# NOT of one bit


def learned(negation: xr.Dataset, reading: str) -> np.ndarray:
    """Which seeds answer all samples right at the end, (seeds,)."""
    return negation["accuracy"].sel(reading=reading).isel(epoch=-1).values == 1


def falling(negation: xr.Dataset, reading: str) -> np.ndarray:
    """Which seeds' loss, as it is shown in training (mean over the epoch's batches), fell in every epoch, (seeds,)."""
    loss = negation["running_loss"].sel(reading=reading).transpose("seed", "epoch").values
    return np.asarray((np.diff(loss, axis=1) < 0).all(axis=1))


def _negation_rows(negation: xr.Dataset) -> list[Row]:
    rows = []
    for reading in negation["reading"].values:
        for verb, found, least in (
            ("every sample is learned", learned(negation, reading), 0.90),
            ("the loss falls in every epoch", falling(negation, reading), 0.95),
        ):
            count, seeds = int(found.sum()), len(found)
            judged = reading == "normalized"
            rows.append(
                _own(
                    f"NOT of one bit, {reading}: {verb}" + ("" if judged else " (another reading, not the claim)"),
                    "seeds of all",
                    f"{count} of {seeds}",
                    share_interval(count, seeds),
                    seeds,
                    f">= {100 * least:.0f} %",
                    _holds(count >= least * seeds),
                )
            )
    return rows


# Gates, recurrence, people


def _gate_rows(gates: xr.Dataset, xor: xr.Dataset) -> list[Row]:
    converged = {str(name): bool(gates["converged"].sel(gate=name)) for name in gates["gate"].values}
    wrong = {str(name): int(gates["wrong"].sel(gate=name)) for name in gates["gate"].values}
    right = converged == {"AND": True, "OR": True, "XOR": False} and wrong["AND"] == wrong["OR"] == 0 < wrong["XOR"]
    solved = xor["solved"].values
    share = share_interval(int(solved.sum()), len(solved))
    return [
        _own(
            "delta rule: AND and OR are learned, XOR is reported as not converged",
            "wrong patterns of 4",
            ", ".join(f"{name} {count}" for name, count in wrong.items()),
            "-",
            0,
            "0, 0, > 0",
            _holds(right),
        ),
        _own(
            f"a 2-4-1 net learns XOR in {int(xor['epoch'][-1])} epochs",
            "seeds of all",
            f"{int(solved.sum())} of {len(solved)}",
            share,
            len(solved),
            "> half, interval",
            _holds(share.low > 0.5, share.high < 0.5),
        ),
    ]


def _recurrence_row(table: xr.Dataset) -> Row:
    outputs, gradients = float(table["outputs"]), float(table["gradients"])
    return _own(
        "a recurrent net of two steps on a 4 x 3 batch: unrolled equals scanned",
        "largest difference of outputs; of gradients (float64)",
        f"{outputs:.1e}; {gradients:.1e}",
        "-",
        0,
        "1e-12",
        _holds(max(outputs, gradients) < 1e-12),
    )


def _people_rows(people: xr.Dataset) -> list[Row]:
    asked = {
        "six people by height and weight: the perceptron finds the labels": "perceptron",
        "six people by height and weight: logistic regression finds the labels": "logistic",
        "six people without labels: k-means finds the same groups": "clusters",
        "six people without labels, standardized first: k-means finds the same groups": "clusters_scaled",
    }
    rows = []
    for what, name in asked.items():
        right = int((people[name] == people["label"]).sum())
        rows.append(_own(what, "people of 6", str(right), "-", 0, "6", _holds(right == 6)))
    return rows


# Prices


def price_ratio(prices: xr.Dataset, inputs: str, model: str, name: str) -> Interval:
    """Root mean squared error over that of tomorrow = today, with a 95 % interval: over walks, or over days (apple)."""
    here = prices.sel(inputs=inputs)
    squared, naive = (here[f"{which}_squared"].transpose("seed", "day").values for which in (model, "naive"))
    if name == "walk":  # independent walks
        logs = 0.5 * np.log(squared.mean(axis=1) / naive.mean(axis=1))
        return Interval(*(np.exp(end) for end in t_interval(logs)))
    excess = t_interval((squared - naive).mean(axis=0) / naive.mean())
    return Interval(*(np.sqrt(np.maximum(1 + end, 0)) for end in excess))


def _price_rows(prices: xr.Dataset, name: str) -> list[Row]:
    rows = []
    where = {"walk": "random walk with drift", "apple": "Apple shares"}[name]
    over = "" if name == "walk" else f", interval over {prices.sizes['day']} days"
    for inputs in prices["inputs"].values:
        for model, what in (("linear", "a line"), ("net", "a net")):
            ratio = price_ratio(prices, str(inputs), model, name)
            rows.append(
                _own(
                    f"{where}, {inputs} of three days: tomorrow = today is not beaten by {what}",
                    "RMSE over that of tomorrow = today" + over,
                    f"{float(ratio.mean):.3f}",
                    ratio,
                    prices.sizes["seed"],
                    f"> {NOT_BEATEN}, interval",
                    _holds(ratio.low > NOT_BEATEN, ratio.high < NOT_BEATEN),
                )
            )
    return rows


# Sentiment

ARMS = {
    "list": "word list",
    "list_rule": "word list, negators turn words",
    "words": "learned, words",
    "neighbors": "learned, words and neighbors",
}


def sentiment_accuracy(sentiment: xr.Dataset, arm: str, which: str = "all") -> np.ndarray:
    """Accuracy on every split's test sentences: all, those with a negator, or those without: (seeds,)."""
    right = sentiment[arm] if arm in sentiment.data_vars else sentiment["right"].sel(arm=arm)
    negated = (
        sentiment["negated_apart" if arm == "apart" else "negated"].transpose("seed", "sentence").values.astype(bool)
    )
    kept = {"all": np.ones_like(negated), "negated": negated, "plain": ~negated}[which]
    return np.nanmean(np.where(kept, right.transpose("seed", "sentence").values, np.nan), axis=1)


def _sentiment_rows(sentiment: xr.Dataset) -> list[Row]:
    right, negated = sentiment["list_all"].values, sentiment["negated_all"].values.astype(bool)
    twins, twins_negated = right.reshape(2, -1).mean(axis=0), negated[: len(negated) // 2]
    # Twins share their subject and often their words: it is pairs that are independent.
    plain, turned = t_interval(twins[~twins_negated]), t_interval(twins[twins_negated])
    margin = np.hypot(plain.high - plain.mean, turned.high - turned.mean)
    drop = plain.mean - turned.mean
    rows = [
        _own(
            "sentiment: negation defeats the word list",
            f"its accuracy on {(~negated).sum()} plain minus that on {negated.sum()} negated sentences, interval over "
            f"{(~twins_negated).sum()} and {twins_negated.sum()} pairs of twins",
            f"{float(plain.mean):.3f} against {float(turned.mean):.3f}",
            Interval(drop, drop - margin, drop + margin),
            0,
            "interval excludes 0",
            _holds(drop > margin, drop < -margin),
        )
    ]
    for first, second, which, claim in (
        ("words", "list", "all", "a learned bag of words beats the word list"),
        ("words", "list", "negated", "a learned bag of words beats the word list where there is a negator"),
        ("words", "list_rule", "all", "a learned bag of words beats the word list whose negators turn words"),
        ("neighbors", "words", "all", "pairs of neighboring words help the learned one"),
    ):
        one, two = (sentiment_accuracy(sentiment, arm, which) for arm in (first, second))
        gain = resampled_t_interval(one - two, split_ratio(sentiment))
        rows.append(
            _own(
                f"sentiment: {claim}",
                f"test accuracy, first minus second ({OVER_SPLITS})",
                f"{one.mean():.3f} against {two.mean():.3f}",
                gain,
                len(one),
                "interval excludes 0",
                _holds(gain.low > 0, gain.high < 0),
            )
        )
    apart = sentiment_accuracy(sentiment, "apart")
    misled = resampled_t_interval(apart - 0.5, split_ratio(sentiment))
    rows.append(
        _own(
            "sentiment: splits that part twins mislead the learned one to below guessing",
            f"test accuracy minus .5 ({OVER_SPLITS})",
            f"{apart.mean():.3f}",
            misled,
            len(apart),
            "interval below 0",
            _holds(misled.high < 0, misled.low > 0),
        )
    )
    return rows
