"""The report of the sequence shapes: every claim with what was measured, whether it holds or not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from experiments._sequence_shapes_lanes import ALONE, MEAN, both
from experiments._sequence_shapes_strips import NAMES
from nnjax.results import Row
from nnjax.statistics import Interval, interval_verdict, share_interval, t_interval

if TYPE_CHECKING:
    import xarray as xr

PANELS = ("vector", "columns", "caption", "tags", "numbers")
MLP = "mlp"
READS = 0.9
"""Accuracy that a net on all pixels is above."""
NEAR_VECTOR, NEAR_CAPTION, NEAR_LAST, NEAR_POWER = 0.05, 0.03, 0.05, 0.1
"""Accuracies that differ by less are equal: columns and vector, caption and class, both directions, p^k."""
NAMED = 0.99
"""Share of captions that are names of digits is above this."""
NEAR_BITS = 0.1
"""Bits a name within which a net without a picture is as good as the names allow."""
BLANK, KNOWN = 0.3, 0.8
"""Accuracy at a digit's first column: below the one forwards, above the other in both directions."""
LOOKS = 0.5
"""Share of words that look most at their own digit is above this."""
NEIGHBOR = 0.98
"""Accuracy of the nearest neighbor on the digits' own split (Alpaydin and Kaynak, 1998)."""
_OWN = "this study's own check"
_SHARE = "share of test pictures"


def panels(results: xr.DataTree) -> dict[str, xr.Dataset]:
    """Datasets by panel."""
    return {name: results[name].to_dataset() for name in PANELS}


def cells_of(some: dict[str, xr.Dataset]) -> list[str]:
    """The cells that were studied."""
    return [str(cell) for cell in some["caption"]["cell"].values]


def chosen_rate(lanes: xr.Dataset) -> int:
    """Place of a net's rate with the least validation loss, mean over seeds."""
    loss = lanes["validation_loss"].transpose("rate", "seed", "step").values
    return int(np.where(np.isfinite(loss), loss, np.inf).min(axis=2).mean(axis=1).argmin())


def at_rate(panel: xr.Dataset, name: str, **net: str | int) -> np.ndarray:
    """A result of a net, named by the panel's own axes, at its chosen rate: (seeds, ...)."""
    lanes = panel.sel(net)
    found = lanes[name].isel(rate=chosen_rate(lanes)).transpose("seed", ...)
    return np.asarray(found.values, float)


def letter_entropies() -> np.ndarray:
    """Bits that each letter, and the end, of ten equally likely names needs, given the letters before: (6,).

    The mean is over the names that have a letter, or their end, at this place.
    """
    ended = [f"{name}." for name in NAMES]
    found = []
    for place in range(max(map(len, ended))):
        there = [name for name in ended if len(name) > place]
        same = [[other for other in ended if other[:place] == name[:place]] for name in there]
        chances = [
            np.mean([other[: place + 1] == name[: place + 1] for other in each])
            for name, each in zip(there, same, strict=True)
        ]
        found.append(-np.log2(chances).mean())
    return np.array(found)


def report(results: xr.DataTree) -> list[Row]:
    """Every claim of the study, each with what was measured, whether it holds or not."""
    some = panels(results)
    cells = cells_of(some)
    return [
        *_vector(some["vector"]),
        *(row for cell in cells for row in _columns(some["columns"], some["vector"], cell)),
        _mean_column(some["columns"]),
        *(row for cell in cells for row in _caption(some["caption"], some["vector"], cell)),
        *(row for cell in cells for row in _tags(some["tags"], cell)),
        *_numbers(some["numbers"]),
    ]


# Verdicts


def _level(
    claim: str, quantity: str, found: np.ndarray, *, above: float = -np.inf, below: float = np.inf, note: str = ""
) -> Row:
    """That a mean lies above one limit, or below another."""
    interval = t_interval(found)
    tolerance = f"above {above:g}" if np.isinf(below) else f"below {below:g}"
    return Row(
        claim, quantity, f"{interval.mean:.3f}{note}", _text(interval), len(found), "-", _OWN, tolerance,
        interval_verdict(interval, above=above, below=below),
    )  # fmt: skip


def _gap(claim: str, quantity: str, a: np.ndarray, b: np.ndarray, near: float | None = None) -> Row:
    """That a is above b, both (seeds,), or, with ``near``, as large."""
    interval = t_interval(a - b)
    tolerance = "interval excludes 0" if near is None else f"within {near:g}"
    limits = {"above": 0.0} if near is None else {"above": -near, "below": near}
    return Row(
        claim, f"{quantity}, difference by seed", f"{interval.mean:+.3f} ({a.mean():.3f} against {b.mean():.3f})",
        _text(interval), len(a), "-", _OWN, tolerance, interval_verdict(interval, **limits),
    )  # fmt: skip


def _text(interval: Interval) -> str:
    return f"[{interval.low:.3f}, {interval.high:.3f}]"


# Panels


def _vector(panel: xr.Dataset) -> list[Row]:
    kept, shuffled = (at_rate(panel, "accuracy", net=MLP, shuffled=each) for each in (0, 1))
    linear, n = at_rate(panel, "accuracy", net="linear", shuffled=0), int(panel.attrs["pictures"])
    right = float(kept.mean()) * n
    pictures = share_interval(round(right), n) if np.isfinite(right) else Interval(*np.full(3, np.nan))
    interval = t_interval(kept)
    return [
        _level(
            f"vector to vector: a net of {panel.attrs['hidden']} hidden units reads the digits", _SHARE, kept,
            above=READS, note=f"; over the {n} pictures {_text(pictures)}; a linear net {linear.mean():.3f}",
        ),
        _gap("vector to vector: less with the pixels shuffled", _SHARE, kept, shuffled),
        Row(
            "vector to vector: beside the nearest neighbor", _SHARE, f"{interval.mean:.3f}", _text(interval), len(kept),
            f"{NEIGHBOR:.3f}", "Alpaydin and Kaynak (1998), 3823 pictures of other writers", "-", "not comparable",
        ),
    ]  # fmt: skip


def _columns(panel: xr.Dataset, vector: xr.Dataset, cell: str) -> list[Row]:
    kept, shuffled = (at_rate(panel, "accuracy", net=cell, shuffled=each) for each in (0, 1))
    reference = at_rate(vector, "accuracy", net=MLP, shuffled=0)
    return [
        _gap(f"sequence to vector: the {cell} reads the order of the columns", _SHARE, kept, shuffled),
        _gap(f"sequence to vector: the {cell} is as good as all pixels at once", _SHARE, kept, reference, NEAR_VECTOR),
    ]


def _mean_column(panel: xr.Dataset) -> Row:
    """A control of the shuffling, which changes no mean: the two can differ by rounding alone."""
    kept, shuffled = (at_rate(panel, "accuracy", net=MEAN, shuffled=each) for each in (0, 1))
    row = _gap("control: the mean of the columns in order and shuffled", _SHARE, kept, shuffled)
    return row._replace(source="-", tolerance="-", verdict="-")


def _caption(panel: xr.Dataset, vector: xr.Dataset, cell: str) -> list[Row]:
    reference = at_rate(vector, "accuracy", net=MLP, shuffled=0)
    exact, named = (at_rate(panel, name, cell=cell, blind=0) for name in ("exact", "name"))
    bits, allowed = at_rate(panel, "name_bits", cell=cell, blind=1), np.log2(len(NAMES))
    gap = t_interval(bits - allowed)
    return [
        _gap(
            f"vector to sequence: the {cell} writes the name as often as the class is found", _SHARE, exact, reference,
            NEAR_CAPTION,
        ),
        _level(f"vector to sequence: what the {cell} writes is a digit's name", _SHARE, named, above=NAMED),
        Row(
            f"vector to sequence: without a picture the {cell} knows the names alone", "bits a name above log2(10)",
            f"{gap.mean:+.3f} ({bits.mean():.3f})", _text(gap), len(bits), f"{allowed:.3f}", "exact entropy",
            f"within {NEAR_BITS:g}", interval_verdict(gap, above=-NEAR_BITS, below=NEAR_BITS),
        ),
    ]  # fmt: skip


def _tags(panel: xr.Dataset, cell: str) -> list[Row]:
    ahead, around, alone = (by_column(panel, net) for net in (cell, both(cell), ALONE))
    quantity = "share of test columns"
    return [
        _level(
            f"aligned: forwards the {cell} cannot know a digit at its first column", quantity, ahead[:, 0],
            below=BLANK,
        ),
        _level(f"aligned: in both directions the {cell} knows it there", quantity, around[:, 0], above=KNOWN),
        _gap(
            f"aligned: at the last column the {cell} is as good forwards as in both directions", quantity,
            ahead[:, -1], around[:, -1], NEAR_LAST,
        ),
        _gap(
            f"aligned: the {cell} forwards is better than one column alone", quantity, ahead.mean(1), alone.mean(1)
        ),
    ]  # fmt: skip


def by_column(panel: xr.Dataset, net: str) -> np.ndarray:
    """Accuracy of a net at each column of a digit, mean over the digits of a strip: (seeds, 8)."""
    return at_rate(panel, "accuracy", net=net).mean(axis=1)


def powers(exact: np.ndarray) -> np.ndarray:
    """p^k for k = 1, 2, ..., where p is what is measured for one digit, ``exact`` (seeds, k): (seeds, k)."""
    return exact[:, :1] ** np.arange(1, exact.shape[1] + 1)[None, :]


def _numbers(panel: xr.Dataset) -> list[Row]:
    kept, shuffled = (at_rate(panel, "exact", shuffled=each) for each in (0, 1))
    theory, most = powers(kept), kept.shape[1]
    quantity = "share of test strips"
    return [
        *(
            _gap(
                f"other length: {k} digits are right as often as digits one by one", f"{quantity}, against p^{k}",
                kept[:, k - 1], theory[:, k - 1], NEAR_POWER,
            )
            for k in range(2, most + 1)
        ),
        _gap(f"other length: {most} digits less with the columns shuffled", quantity, kept[:, -1], shuffled[:, -1]),
        _level(
            f"other length: of right words of {most} digits most look at a digit that they tell of", "share of words",
            at_rate(panel, "own", shuffled=0), above=LOOKS, note=f"; by chance about {1 / most:.2f}",
        ),
    ]  # fmt: skip
