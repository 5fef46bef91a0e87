"""The report of the regularization study: every claim with what was measured, whether it holds or not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from experiments._regularization_lanes import NEAR_ZERO
from experiments._regularization_measures import (
    PATIENCE,
    SHORT,
    ablations,
    chosen,
    diagnosis,
    largest_rate,
    middle,
    rate_ratio,
    ratio_interval,
    stop,
    values,
)  # fmt: skip
from nnjax.results import Row
from nnjax.statistics import t_interval

if TYPE_CHECKING:
    import xarray as xr


def report(results: xr.DataTree) -> list[Row]:
    """Every claim of the study, each with what was measured, whether it holds or not."""
    panels = {name: results[name].to_dataset() for name in results.children}
    return [
        *_linear_rows(panels["linear"]),
        *_l2_rows(panels["l2"]),
        *_l1_rows(panels["l1"], panels["l2"]),
        *_dropout_rows(panels["dropout"]),
        *_early_rows(panels["early_stopping"]),
        *_norm_rows(panels["batch_norm"]),
        *_batch_rows(panels["batch_size"]),
        *_recipe_rows(panels["recipe"]),
        *_curve_rows(panels["learning_curves"]),
    ]


# Choosing and judging


def below_zero(difference: Any, level: float = 0.95) -> str:
    """The verdict on a paired difference that is claimed to be negative."""
    interval = t_interval(difference, level)
    return holds(interval.high < 0, interval.low > 0)


def holds(yes: Any, surely_not: Any = False) -> str:
    """A verdict: holds, fails, or, where neither is certain, open."""
    return "holds" if yes else "fails" if surely_not else "open"


def _own(
    claim: str, quantity: str, measured: str, interval: Any, seeds: int, said: str, *,
    tolerance: str = "interval excludes 0", published: str = "-", source: str = "this study's own check",
) -> Row:  # fmt: skip
    return Row(claim, quantity, measured, str(interval), seeds, published, source, tolerance, said)


def _lower_error(
    claim: str, with_it: np.ndarray, without: np.ndarray, note: str = "", *, published: str = "-",
    source: str = "this study's own check",
) -> Row:  # fmt: skip
    """A row for "this lowers the test error", paired by seed."""
    gap = with_it - without
    measured = f"{gap.mean():+.3f} ({with_it.mean():.3f} against {without.mean():.3f}{note})"
    return _own(
        claim, "test error, difference by seed", measured, t_interval(gap), len(gap), below_zero(gap),
        published=published, source=source,
    )  # fmt: skip


def _range(picked: xr.DataArray) -> str:
    low, high = float(picked.min()), float(picked.max())
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"


# Panels


def _linear_rows(panel: xr.Dataset) -> list[Row]:
    draws = panel.sizes["seed"]
    off = float(panel["off"].max())
    stopped, flow = values(panel["stopped"]), values(panel["stopped_exact"])
    slip = float(np.abs(stopped.mean(0) / flow.mean(0) - 1).max())
    worst = float((stopped.mean(0) / values(panel["ridge_at_time"]).mean(0)).max())
    best = stopped.min(1).mean() / values(panel["ridge"]).min(1).mean()
    exact = "closed form: Hoerl and Kennard (1970)"
    bound = "Ali, Kolter and Tibshirani (2019)"
    return [
        Row(
            "linear regression trained with an L2 penalty ends on the ridge path",
            "largest relative deviation of the weights", f"{off:.1e}", "-", draws, "0", exact, "1e-6",
            "agrees" if off <= 1e-6 else "differs",
        ),
        Row(
            "gradient descent stopped at time t is gradient flow", "largest relative deviation of the mean risk",
            f"{slip:.4f}", "-", draws, "0", "closed form, up to the step size", "0.02",
            "agrees" if slip <= 0.02 else "differs",
        ),
        Row(
            "stopping at t costs little more than ridge at strength 1/t", "largest ratio of mean risks, all t",
            f"{worst:.3f}", "-", draws, "<= 1.69", bound, "-", holds(worst <= 1.69, True),
        ),
        Row(
            "the best stopping time is nearly as good as the best ridge", "ratio of mean least risks",
            f"{best:.3f}", "-", draws, "1 to 1.22", f"{bound}, limit of large n", "-", holds(best <= 1.22, True),
        ),
    ]  # fmt: skip


def _l2_rows(panel: xr.Dataset) -> list[Row]:
    plain, textbook = panel.sel(per_sample=0, drop=True), panel.sel(per_sample=1, drop=True)
    best, none = chosen(plain, "strength"), plain.isel(strength=0)
    picked = f"; strength {_range(best['strength'])}"
    learnt = values(best["memorized"]) - values(none["memorized"])
    norm = values(plain["norm"].transpose("seed", "strength"))
    rises = np.diff(norm, axis=1).max()
    errors = [name for name in panel if str(name).endswith("_error")]
    apart = max(float(np.abs(plain[name] - textbook[name]).max()) for name in errors)
    relative = float(np.abs(textbook["norm"] / plain["norm"] - 1).max())
    return [
        _lower_error(
            "an L2 penalty chosen on validation data lowers the test error", values(best["test_error"]),
            values(none["test_error"]), picked, source="Krogh and Hertz (1991), direction",
        ),
        _own(
            "and fewer wrong labels are memorized", "share given back, difference by seed",
            f"{learnt.mean():+.3f} (from {float(none['memorized'].mean()):.3f})", t_interval(learnt), len(learnt),
            below_zero(learnt),
        ),
        _own(
            "weights shrink all along the L2 path", "largest rise of the weight norm from one strength to the next",
            f"{rises:.3g} (from {norm[:, 0].mean():.1f} to {norm[:, -1].mean():.2f})", "-", len(norm),
            holds(rises < 0, True), tolerance="< 0 in every seed",
        ),
        _own(
            "strength nu and strength 2 m nu of the per-sample form give the same nets",
            "largest difference of an error (relative, of the weight norm)", f"{apart:.1e} ({relative:.1e})", "-",
            len(norm), holds(apart <= 0.01 and relative <= 1e-3, True), tolerance="0.01 (1e-3)",
        ),
    ]  # fmt: skip


def _l1_rows(panel: xr.Dataset, l2: xr.Dataset) -> list[Row]:
    best, none = chosen(panel, "strength"), panel.isel(strength=0)
    other = chosen(l2.sel(per_sample=0, drop=True), "strength")
    sparser = values(best["near_zero"]) - values(other["near_zero"])
    return [
        _lower_error(
            "an L1 penalty chosen on validation data lowers the test error", values(best["test_error"]),
            values(none["test_error"]), f"; strength {_range(best['strength'])}",
        ),
        _own(
            "L1 sends weights to zero, L2 makes them small",
            f"share of weights within {NEAR_ZERO:g} of the largest, L1 minus L2, each at its chosen strength",
            f"{sparser.mean():+.3f} ({float(best['near_zero'].mean()):.3f} against "
            f"{float(other['near_zero'].mean()):.3f})", t_interval(sparser), len(sparser), below_zero(-sparser),
            source="Tibshirani (1996), direction",
        ),
    ]  # fmt: skip


def _dropout_rows(panel: xr.Dataset) -> list[Row]:
    best, none, most = chosen(panel, "rate"), panel.isel(rate=0), panel.isel(rate=-1)
    worse = values(most["running_loss"]) - values(most["validation_loss"])
    return [
        _lower_error(
            "dropout at a rate chosen on validation data lowers the test error", values(best["test_error"]),
            values(none["test_error"]), f"; rate {_range(best['rate'])}", published="1.60 % to 1.35 %",
            source="Srivastava et al. (2014), MNIST (recalled), direction",
        ),
        _own(
            f"too much dropout shows: at rate {float(most['rate']):g} validation looks better than training",
            "training loss under dropout minus validation loss, nats", f"{worse.mean():+.3f}", t_interval(worse),
            len(worse), below_zero(-worse),
        ),
    ]  # fmt: skip


def _early_rows(panel: xr.Dataset) -> list[Row]:
    loss, error = (values(panel[f"{what}"].transpose("seed", "epoch")) for what in ("validation_loss", "test_error"))
    best = np.argmin(loss, axis=1)
    seeds = np.arange(len(best))
    again = np.abs(values(panel["returned_error"]) - error[seeds, best]).max()
    ends = {p: np.array([stop(curve, p) for curve in loss]) for p in PATIENCE}
    fast, slow = (ends[p] for p in PATIENCE)
    gain = ratio_interval(error[seeds, slow[:, 1]] / error[seeds, fast[:, 1]])
    cost = ratio_interval((slow[:, 0] + 1) / (fast[:, 0] + 1))
    return [
        _lower_error(
            "the parameters of the least validation loss beat the last ones", error[seeds, best], error[:, -1],
            f"; epoch {best.min() + 1} to {best.max() + 1} of {error.shape[1]}", source="Prechelt (1998), direction",
        ),
        _own(
            "the parameters returned are those of that epoch", "test error evaluated again, largest difference",
            f"{again:.1g}", "-", len(best), holds(again < 1e-6, True), tolerance="0",
        ),
        _own(
            f"patience {PATIENCE[1]} instead of {PATIENCE[0]} generalizes a little better and takes far longer",
            "test error, ratio (epochs, ratio)", f"{gain.mean:.2f} ({cost.mean:.1f} {cost})", gain, len(best),
            holds(gain.high < 1 and cost.low > 1, gain.low > 1), tolerance="intervals exclude 1",
            published="about 0.96 (4)", source="Prechelt (1998): other tasks, Rprop",
        ),
    ]  # fmt: skip


def _norm_rows(panel: xr.Dataset) -> list[Row]:
    rows = []
    largest = largest_rate(panel)
    rates = panel["rate"].values
    at_best = chosen(panel, "rate")
    error = {arm: values(at_best["test_error"].sel(normalize=arm)) for arm in ("none", "before", "after")}
    for arm in ("before", "after"):
        mine, plain = (values(largest.sel(normalize=each)) for each in (arm, "none"))
        ratio = rate_ratio(mine, plain, rates)
        rows.append(
            _own(
                f"batch norm {arm} the activation stands larger learning rates",
                "largest rate that trains, ratio to none by seed",
                f"{ratio.mean:.1f} ({_range(largest.sel(normalize=arm))} against "
                f"{_range(largest.sel(normalize='none'))})", ratio, len(error[arm]),
                holds(ratio.low > 1, ratio.high < 1), published="up to 30",
                tolerance="interval, widened by the grid's step, excludes 1",
                source="Ioffe and Szegedy (2015): Inception on ImageNet, BN-x30",
            )
        )  # fmt: skip
        rows.append(
            _lower_error(
                f"batch norm {arm} the activation lowers the test error, each at its chosen rate",
                error[arm],
                error["none"],
            )
        )
    gap = error["before"] - error["after"]
    interval = t_interval(gap)
    side = "before" if interval.high < 0 else "after" if interval.low > 0 else "neither"
    rows.append(
        _own(
            "batch norm before or after the activation: which is better", "test error, before minus after",
            f"{gap.mean():+.3f}", interval, len(gap), side, tolerance="-",
        )
    )  # fmt: skip
    return rows


def _batch_rows(panel: xr.Dataset) -> list[Row]:
    small, full = int(panel["batch"][0]), int(panel["batch"][-1])
    keskar = "Keskar et al. (2017): larger batches generalize worse, direction"
    names = {
        "epochs": "after equal epochs", "updates": "after equal updates",
        "loss": f"at equal training loss ({panel.attrs['loss']:g} nats)",
    }  # fmt: skip
    rows = []
    for equal, words in names.items():
        best = chosen(panel.sel(equal=equal), "rate")
        a, b = (values(best["test_error"].sel(batch=size)) for size in (full, small))
        claim = f"{words}, full batch generalizes worse than batch {small}"
        if not (np.isfinite(a).all() and np.isfinite(b).all()):
            rows.append(_own(claim, "test error", "a seed never came there", "-", len(a), "open", source=keskar))
            continue
        rates = " and ".join(_range(best["rate"].sel(batch=size)) for size in (full, small))
        trained = " and ".join(f"{float(best['train_loss'].sel(batch=size).mean()):.2f}" for size in (full, small))
        rows.append(
            _own(
                claim, f"test error, batch {full} minus batch {small}, by seed",
                f"{(a - b).mean():+.3f} ({a.mean():.3f} against {b.mean():.3f}; training loss {trained}; "
                f"rate {rates})",
                t_interval(a - b), len(a), below_zero(b - a), source=keskar,
            )
        )  # fmt: skip
    best = chosen(panel.sel(equal="updates"), "rate")
    sharp = {size: values(best["sharpness"].sel(batch=size)) for size in (small, full)}
    ratio = ratio_interval(np.abs(sharp[full] / sharp[small]))
    rows.append(
        _own(
            "full batch ends in a sharper place, after equal updates",
            f"largest Hessian eigenvalue, batch {full} over batch {small}",
            f"{ratio.mean:.2f} ({sharp[full].mean():.3g} against {sharp[small].mean():.3g})", ratio, len(sharp[full]),
            holds(ratio.low > 1, ratio.high < 1), tolerance="interval excludes 1",
            source="Keskar et al. (2017), another measure, direction",
        )
    )  # fmt: skip
    return rows


def _recipe_rows(panel: xr.Dataset) -> list[Row]:
    best = chosen(panel, "rate")["test_error"]
    full = values(best.isel(variant=0))
    rows = []
    for arm, (gap, interval) in ablations(panel).items():
        rows.append(
            _own(
                f"the textbook recipe beats itself {arm if 'without' in arm else 'with ' + arm}",
                "test error, changed minus full, each at its chosen rate",
                f"{gap.mean():+.3f} ({float(best.sel(variant=arm).mean()):.3f} against {full.mean():.3f})",
                interval, len(gap), holds(interval.low > 0, interval.high < 0),
                tolerance="simultaneous interval excludes 0", source="Geron (2017), table 11-2 (recalled)",
            )
        )  # fmt: skip
    return rows


def _curve_rows(panel: xr.Dataset) -> list[Row]:
    none, most, best = panel.isel(strength=0), panel.isel(strength=-1), chosen(panel, "strength")
    sizes = panel["n"].values
    gap = values((none["validation_error"] - none["train_error"]).transpose("seed", "n"))
    closing = gap[:, -1] - gap[:, 0]
    rows = [
        _own(
            f"without a penalty the gap closes from n = {sizes[0]} to {sizes[-1]}",
            "validation minus training error, difference by seed",
            f"{closing.mean():+.3f} (from {gap[:, 0].mean():.3f})", t_interval(closing), len(gap), below_zero(closing),
        )
    ]  # fmt: skip
    for n in (sizes[0], sizes[-1]):
        rows.append(
            _lower_error(
                f"n = {n}: the penalty chosen on validation data lowers the test error",
                values(best["test_error"].sel(n=n)), values(none["test_error"].sel(n=n)),
                f"; strength {_range(best['strength'].sel(n=n))}",
            )
        )  # fmt: skip
    n, noise = middle(panel), float(panel.attrs["noise"])
    for arm, words, expected in ((none, "no penalty", "overfits"), (most, "the strongest penalty", "underfits")):
        train, validation = (values(arm[f"{split}_error"].sel(n=n)) for split in ("train", "validation"))
        said = diagnosis(arm, n, noise)
        rows.append(
            _own(
                f"n = {n}, {words}: the diagnosis is that it {expected}",
                f"training and validation error, {noise:g} of the labels being wrong",
                f"{train.mean():.3f}, {validation.mean():.3f}: {said}", t_interval(validation - train), len(train),
                holds(said == expected, True), tolerance=f"larger shortfall > {SHORT:g}",
            )
        )  # fmt: skip
    return rows
