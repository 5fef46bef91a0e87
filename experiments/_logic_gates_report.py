"""The report of the logic-gates study: every claim with what was measured, whether it holds or not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from experiments._logic_gates_figures import KNOWN, RULES, share, solved
from nnjax.results import Row
from nnjax.statistics import t_interval

if TYPE_CHECKING:
    import xarray as xr

COUNTS = "Muroga (1971), threshold functions; Minsky and Papert (1969) on XOR"


def report(results: xr.DataTree) -> list[Row]:
    """Every claim of the study, each with what was measured, whether it holds or not."""
    rows = _gate_rows(results["gates"].to_dataset())
    for group in results.children:
        if str(group).startswith("functions_"):
            rows += _function_rows(results[group].to_dataset(), int(str(group).rpartition("_")[2]))
    rows += _hidden_rows(results["hidden"].to_dataset())
    rows += _mark1_rows(results["mark1"].to_dataset(), results["pixels"].to_dataset())
    rows += _echo_rows(results["echo"].to_dataset())
    rows += _hebb_rows(results["oja"].to_dataset(), results["sanger"].to_dataset())
    return rows


def _own(claim: str, quantity: str, measured: str, interval: Any, seeds: int, tolerance: str, said: str) -> Row:
    return Row(claim, quantity, measured, str(interval), seeds, "-", "this study's own check", tolerance, said)


def _holds(yes: Any, surely_not: Any = True) -> str:
    return "holds" if yes else "fails" if surely_not else "open"


def _gate_rows(gates: xr.Dataset) -> list[Row]:
    right = (gates["fixed"] == gates["meant"]).all("row").values
    made, all_functions = int(gates.attrs["synthesized"]), int(gates.attrs["functions"])
    learned = (gates["learned"] == gates["meant"]).all("row").values & gates["converged"].values
    failed = [str(name) for name in gates["gate"].values[~gates["converged"].values]]
    circles = bool(gates["repeats"].values[~gates["converged"].values].all())
    slow = [str(name) for name in gates["gate"].values[~gates["delta_converged"].values]]
    source = "McCulloch and Pitts (1943)"
    rows = [
        Row("every gate has fixed weights", "gates with a right truth table", f"{right.sum()} of {len(right)}", "-", 0,
            f"{len(right)}", source, "exact", "reproduced" if right.all() else "not reproduced"),
        Row("two layers compute every Boolean function of 3 inputs", "functions right",
            f"{made} of {all_functions}", "-", 0, f"{all_functions}", source, "exact",
            "reproduced" if made == all_functions else "not reproduced"),
        Row("one unit learns every gate but XOR and its negation", "gates learned; not converged",
            f"{learned.sum()} of {len(learned)}; {', '.join(failed) or 'none'}", "-", 0, "all but xor, equivalent",
            "Minsky and Papert (1969)", "exact; weights run in circles",
            "reproduced" if set(failed) == {"xor", "equivalent"} and circles and learned.sum() == len(learned) - 2
            else "not reproduced"),
    ]  # fmt: skip
    both = [f"{name.upper()} {int(gates['updates'].sel(gate=name))} of {float(gates['bound'].sel(gate=name)):.1f}"
            for name in ("and", "or")]  # fmt: skip
    inside = (gates["updates"] <= gates["bound"]).sel(gate=["and", "or"]).all()
    rows.append(
        Row("AND and OR are learned within Novikoff's bound on updates", "updates of (R / margin)^2", ", ".join(both),
            "-", 0, "<= 1", "Novikoff (1962)", "theorem", "agrees" if inside else "differs")
    )  # fmt: skip
    rows.append(
        _own(
            "delta rule without a bias (threshold 0.5): XOR is reported as not converged, AND and OR converge",
            "gates that did not converge in 10 epochs",
            ", ".join(slow) or "none",
            "-",
            0,
            "xor among them, and, or not",
            _holds("xor" in slow and not {"and", "or"} & set(slow)),
        )
    )
    return rows


def _function_rows(found: xr.Dataset, n: int) -> list[Row]:
    learned = found["converged"].values
    circles = int(found["repeats"].values[~learned].sum())
    updates, bounds = found["updates"].values[learned], found["bound"].values[learned]
    most = int(np.argmax(updates / bounds))
    where = f"{n} input{'s' * (n > 1)}"
    exact = learned.sum() == KNOWN[n] and circles == (~learned).sum()
    return [
        Row(f"{where}: Boolean functions that a perceptron learns", "converged; the others proven to run in circles",
            f"{learned.sum()} of {len(learned)}; {circles} of {(~learned).sum()}", "-", 0, f"{KNOWN[n]}", COUNTS,
            "exact", "reproduced" if exact else "not reproduced"),
        Row(f"{where}: no function learned takes more updates than (R / margin)^2", "largest share of the bound",
            f"{updates[most] / bounds[most]:.3f} ({updates[most]} of {bounds[most]:.1f})", "-", 0, "<= 1",
            "Novikoff (1962)", "theorem", "agrees" if (updates <= bounds).all() else "differs"),
    ]  # fmt: skip


def _hidden_rows(hidden: xr.Dataset) -> list[Row]:
    rows = []
    rate, seeds = float(hidden.attrs["rate"]), hidden.sizes["seed"]
    ends = hidden.sel(rate=rate).isel(step=-1)
    steps = int(hidden["step"].values[-1])
    for activation in hidden["activation"].values:
        for units in hidden["units"].values:
            found = share(solved(ends.sel(activation=activation, units=units)))
            rows.append(
                _own(
                    f"XOR, 2-{units}-1 {activation}: solved from more than half of the starts",
                    f"share of starts after {steps} steps at rate {rate:g}",
                    f"{float(found.mean):.3f}",
                    found,
                    seeds,
                    "lower end > 0.5",
                    _holds(found.low > 0.5, found.high < 0.5),
                )
            )
        if hidden.sizes["units"] > 1:
            few, many = (solved(ends.sel(activation=activation).isel(units=i)).astype(float) for i in (0, -1))
            gain = t_interval(many - few)
            rows.append(
                _own(
                    f"XOR, {activation}: {int(hidden['units'][-1])} hidden units solve it more often than "
                    f"{int(hidden['units'][0])}",
                    "difference of shares, same seeds",
                    f"{float(gain.mean):+.3f}",
                    gain,
                    seeds,
                    "> 0",
                    _holds(gain.low > 0, gain.high <= 0),
                )
            )
    return rows


def _mark1_rows(mark1: xr.Dataset, pixels: xr.Dataset) -> list[Row]:
    final = mark1["test_error"].isel(epoch=-1).transpose("units", "seed")
    units, seeds = [int(u) for u in mark1["units"].values], mark1.sizes["seed"]
    many = 512 if 512 in units else units[-1]
    few = 64 if 64 in units and many > 64 else units[0]
    where = f"Mark I, {mark1.attrs['data']}, {mark1.attrs['n']} training pictures"
    error = final.sel(units=many).values
    gain = t_interval(final.sel(units=few).values - error)
    rows = [
        _own(f"{where}: {many} association units are better than {few}", "test error, difference",
             f"{float(gain.mean):.3f} ({final.sel(units=few).values.mean():.3f} to {error.mean():.3f})", gain, seeds,
             "> 0", _holds(gain.low > 0, gain.high <= 0)),
    ]  # fmt: skip
    for rule, name in (("perceptron", "a perceptron"), ("softmax", "softmax regression")):
        other = pixels["test_error"].sel(rule=rule).values
        gap = t_interval(other - error)
        side = "random units" if gap.low > 0 else "pixels" if gap.high < 0 else "neither"
        rows.append(
            _own(
                f"{where}: {many} random units or {name} on the pixels, which is better",
                f"test error, pixels minus units; interval over {seeds} machines on one test set",
                f"{float(gap.mean):+.3f} ({other.mean():.3f} on pixels)",
                gap,
                seeds,
                "-",
                side,
            )
        )
    return rows


def _echo_rows(echo: xr.Dataset) -> list[Row]:
    rows = []
    sources = {"lms": "Feuer and Weinstein (1985)", "nlms": "rate / (2 - rate), white input"}
    for rule, name in RULES.items():
        here = echo.sel(rule=rule).transpose("seed", "rate", ...)
        gap = 10 * np.log10(here["settled"].values) - 10 * np.log10(here["theory"].values)[None]
        middle, low, high = map(np.asarray, t_interval(gap))
        worst = int(np.argmax(np.abs(middle)))
        rows.append(
            Row(f"echo canceller, {name}: the settled residual is the theory's at every learning rate",
                "dB above theory, where it is farthest off",
                f"{middle[worst]:+.2f} at rate {float(here['rate'][worst]):g}",
                f"[{low[worst]:.2f}, {high[worst]:.2f}]", here.sizes["seed"], "theory", sources[rule],
                "0.5 dB", "agrees" if np.maximum(-low, high).max() <= 0.5 else "differs")
        )  # fmt: skip
    best = echo.sel(rule="nlms").isel(rate=0, sample=-1)["erle"].values
    ceiling = 10 * np.log10(echo.sel(rule="nlms").isel(rate=0)["loudness"].values)
    short = t_interval(ceiling - best)
    rows.append(
        _own(
            "echo canceller: at the smallest rate all but 1 dB of the possible enhancement is reached",
            "echo return loss enhancement at the end, dB short of the noise",
            f"{float(short.mean):.2f} ({best.mean():.1f} of {ceiling.mean():.1f} dB)",
            short,
            len(best),
            "<= 1 dB",
            _holds(short.high <= 1, short.low > 1),
        )
    )
    return rows


def _hebb_rows(oja: xr.Dataset, sanger: xr.Dataset) -> list[Row]:
    seeds = oja.sizes["seed"]
    off = np.abs(oja["explained"].values.mean(axis=0) - oja["theory"].values.mean(axis=0))
    end = t_interval(oja["explained"].values[:, -1] / oja.attrs["first"])
    seen = oja["pattern"].values
    late = len(seen) // 2
    lengths = np.log(oja["hebb_length"].values)
    slope = (lengths[:, -1] - lengths[:, late]) / (seen[-1] - seen[late])
    growth = t_interval(slope / (oja.attrs["rate"] * oja.attrs["largest"]))
    ratio = t_interval(sanger["explained"].values[:, -1] / sanger["pca"].values[-1])
    return [
        Row("Oja's unit follows its differential equation", "share of variance, largest distance of the means",
            f"{off.max():.4f}", "-", seeds, "theory", "Oja (1982)", "0.005",
            "agrees" if off.max() <= 0.005 else "differs"),
        Row("Oja's unit finds the first principal component", "variance explained over the component's",
            f"{float(end.mean):.4f}", str(end), seeds, "1", "Oja (1982)", "0.02",
            "agrees" if 1 - end.low <= 0.02 else "differs"),
        Row("plain Hebb grows without bound", "late growth rate over eta lambda_1", f"{float(growth.mean):.3f}",
            str(growth), seeds, "1", "mean of Hebb's rule", "0.05",
            "agrees" if growth.low >= 0.95 and growth.high <= 1.05 else "differs"),
        Row(f"Sanger's {sanger.sizes['unit']} units span the leading components", "variance explained over PCA's",
            f"{float(ratio.mean):.4f}", str(ratio), seeds, "1", "Sanger (1989)", "0.01",
            "agrees" if 1 - ratio.low <= 0.01 else "differs"),
    ]  # fmt: skip
