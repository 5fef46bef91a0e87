"""The report of the translators: every claim with what was measured, whether it holds or not."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from experiments._translation_baselines import BASELINES, NEAREST
from experiments._translation_lanes import BEAM, GREEDY, NONE
from experiments._translation_scores import BLEU, EXACT, length_groups, measured
from nnjax.results import Row
from nnjax.statistics import Interval, interval_verdict, t_interval

if TYPE_CHECKING:
    from collections.abc import Callable

    import xarray as xr

RIGHT = 0.9
"""Share of unseen numbers that a net with attention must write right."""
TURNED = 0.8
"""Share of groups of digits in which the place looked at must go backwards."""
GOAL = 25.0
"""BLEU on the test set of 2016 that a net with attention must have."""
GROUPS = 4
"""Groups of test sentences by length, at most; the first and the last are compared."""
MARGIN = 0.5
"""BLEU that beam search may lose against greedy writing."""
OFFICIAL = 1000
"""Sentences of the test set of 2016."""
CALIXTO = 33.7
"""BLEU of a text-only net with attention on the test set of 2016, Calixto et al. (2017), table 1 as recalled."""
_OWN = "this study's own check"


class Parts(NamedTuple):
    """Groups of the results."""

    nets: xr.Dataset
    baselines: xr.Dataset
    test: xr.Dataset
    looked: xr.Dataset

    @property
    def measure(self) -> str:
        """What translations are scored by."""
        return self.nets.attrs["measure"]

    @property
    def arms(self) -> list[str]:
        """Kinds of attention, as they were asked for."""
        return [str(arm) for arm in self.nets["attention"].values]

    @property
    def attending(self) -> list[str]:
        """Those that are not "none"."""
        return [arm for arm in self.arms if arm != NONE]


def parts(results: xr.DataTree) -> Parts:
    """The groups of the results."""
    return Parts(*(results[name].to_dataset() for name in Parts._fields))


def losses(some: Parts, name: str = "validation_loss") -> np.ndarray:
    """Losses (arms, rates, seeds, evaluations); those that are not finite are of guessing."""
    found = some.nets[name].transpose("attention", "rate", "seed", "update").values
    return np.where(np.isfinite(found), found, some.nets.attrs["guess"])


def chosen_rates(some: Parts) -> np.ndarray:
    """For each arm the place of the rate with the least validation loss, mean over seeds: (arms,)."""
    return losses(some).min(-1).mean(-1).argmin(-1)


def lane_of(some: Parts, arm: str, group: xr.Dataset | None = None) -> xr.Dataset:
    """An arm's results at its chosen rate, of the nets or of another group."""
    place = some.arms.index(arm)
    return (some.nets if group is None else group).sel(attention=arm).isel(rate=chosen_rates(some)[place])


def counts(some: Parts, arm: str, search: str = BEAM) -> np.ndarray:
    """What an arm's scores are made of, (seeds, sentences, k)."""
    return lane_of(some, arm)["counts"].sel(search=search).transpose("seed", "sentence", "count").values


def baseline_counts(some: Parts, name: str) -> np.ndarray:
    """The same for a baseline, (1, sentences, k)."""
    return some.baselines["counts"].sel(baseline=name).transpose("sentence", "count").values[None]


def groups(some: Parts, among: np.ndarray | None = None) -> list[np.ndarray]:
    """Test sentences, or some of them (a mask), in `GROUPS` by words of their source: masks, the shortest first."""
    words = some.test["words"].values
    among = np.ones(len(words), bool) if among is None else among
    if not among.any():
        return []
    found = np.zeros((GROUPS, len(words)), bool)
    for place, own in enumerate(length_groups(words[among], GROUPS)):
        found[place, among] = own
    return [mask for mask in found if mask.any()]


def order_kept(some: Parts) -> np.ndarray:
    """Of numbers whether both languages have the same order, (n,)."""
    return some.test["turned"].values == 0


def masked(found: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Counts (seeds, n, k) of some sentences (n,) alone."""
    return found * mask[None, :, None]


def report(results: xr.DataTree) -> list[Row]:
    """Every claim of the study, each with what was measured, whether it holds or not."""
    some = parts(results)
    rows = _of_numbers(some) if some.measure == EXACT else _of_sentences(some)
    return [*rows, _left_out(some)]


def files(results: xr.DataTree) -> dict[str, bytes]:
    """Every test sentence and what the first seed of each arm, with beams, and the baselines make of it."""
    some = parts(results)
    written = {arm: lane_of(some, arm)["written"].sel(search=BEAM).isel(seed=0).values for arm in some.arms}
    written |= {name: some.baselines["written"].sel(baseline=name).values for name in BASELINES}
    lines = []
    for place, (source, reference) in enumerate(
        zip(some.test["source"].values, some.test["reference"].values, strict=True)
    ):
        lines += [f"{'source':<18} {source}", f"{'reference':<18} {reference}"]
        lines += [f"{name:<18} {texts[place]}" for name, texts in written.items()]
        lines.append("")
    return {"translations.txt": "\n".join(lines).encode()}


# Verdicts


def number(some: Parts, value: float, sign: str = "") -> str:
    """A score, or a difference with its sign, as text."""
    return f"{value:{sign}.3f}" if some.measure == EXACT else f"{value:{sign}.1f}"


def _text(some: Parts, interval: Interval) -> str:
    return f"[{number(some, float(interval.low))}, {number(some, float(interval.high))}]"


def _unit(some: Parts) -> str:
    return "share of test numbers that are right" if some.measure == EXACT else "BLEU"


def _spread(some: Parts) -> str:
    """What an interval is of."""
    return "" if some.measure == EXACT else "; interval of the test sentences"


def _named(arm: str) -> str:
    return "no attention" if arm == NONE else f"{arm} attention"


def _score(some: Parts, arm: str, search: str = BEAM) -> float:
    return float(measured(some.measure, lambda a: a, counts(some, arm, search)).mean)


def _facts(some: Parts, arm: str) -> str:
    rate = some.nets["rate"].values[chosen_rates(some)[some.arms.index(arm)]]
    return f"{some.nets.attrs['parameters'][some.arms.index(arm)]} parameters, rate {rate:g}"


def _row(
    some: Parts, claim: str, quantity: str, found: Interval, said: str, *,
    measured: str | None = None, published: str = "-", source: str = _OWN, tolerance: str = "interval excludes 0",
) -> Row:  # fmt: skip
    return Row(
        claim, quantity, number(some, float(found.mean)) if measured is None else measured, _text(some, found),
        some.nets.sizes["seed"], published, source, tolerance, said,
    )  # fmt: skip


def _beats(some: Parts, claim: str, a: np.ndarray, b: np.ndarray, limit: float = 0.0) -> Row:
    """That the score of translations with counts a is above that of those with counts b, or above it plus a limit."""
    gap = measured(some.measure, lambda a, b: a - b, a, b)
    one, other = (float(measured(some.measure, lambda a: a, each).mean) for each in (a, b))
    return _row(
        some, claim, f"{_unit(some)}, difference{_spread(some)}", gap,
        interval_verdict(gap, above=limit), tolerance=f"above {limit:g}" if limit else "interval excludes 0",
        measured=f"{number(some, float(gap.mean), '+')} ({number(some, one)} against {number(some, other)})",
    )  # fmt: skip


# Numbers


def _of_numbers(some: Parts) -> list[Row]:
    return [
        *(_enough(some, arm, RIGHT, "unseen numbers are right") for arm in some.attending),
        *(_more_than_none(some, arm) for arm in some.attending),
        *(_more_than_order(some, arm) for arm in some.arms),
        *(_turned(some, arm) for arm in some.attending),
        _long_is_worse(some),
        *(_less_by_length(some, arm) for arm in some.attending),
        *(_beside(some, name) for name in BASELINES),
        *(_beam(some, arm) for arm in some.arms),
    ]


def _enough(some: Parts, arm: str, goal: float, what: str) -> Row:
    found = measured(some.measure, lambda a: a, counts(some, arm))
    return _row(
        some, f"{_named(arm)}: {what}", f"{_unit(some)}; {_facts(some, arm)}{_spread(some)}", found,
        interval_verdict(found, above=goal), tolerance=f"above {goal:g}",
    )  # fmt: skip


def _more_than_none(some: Parts, arm: str) -> Row:
    updates = int(some.nets["update"][-1])
    claim = f"within {updates} updates {_named(arm)} is better than none ({_facts(some, NONE)})"
    return _beats(some, claim, counts(some, arm), counts(some, NONE))


def _more_than_order(some: Parts, arm: str) -> Row:
    """The check is of nets with attention; without, the row stands beside."""
    limit = float(order_kept(some).mean())
    found = measured(some.measure, lambda a: a - limit, counts(some, arm))
    beside, tolerance = arm == NONE, "interval excludes 0"
    claim = "beside the share" if beside else "more numbers are right than the share"
    return _row(
        some, f"{_named(arm)}: {claim} with units and tens in the same order",
        f"{_unit(some)} above the most that an order-keeping translator can have", found,
        "-" if beside else interval_verdict(found, above=0), published=f"{limit:.3f}",
        measured=f"{number(some, float(found.mean), '+')} ({number(some, _score(some, arm))})",
        source="exact: the test numbers' own share", tolerance="-" if beside else tolerance,
    )  # fmt: skip


def _turned(some: Parts, arm: str) -> Row:
    share = lane_of(some, arm)["backwards"].values
    found = t_interval(np.where(np.isfinite(share), share, 0.0))
    return _row(
        some, f"{_named(arm)} goes backwards: while units are written it is further back than while tens are",
        f"share of groups of digits with units before tens, of those of the first {_attended(some)} test numbers that "
        "are right when written greedily", found, interval_verdict(found, above=TURNED), tolerance=f"above {TURNED:g}",
    )  # fmt: skip


def alike(some: Parts) -> np.ndarray | None:
    """Numbers that are compared by length, a mask: those with thousands and with one group of digits turned.

    Longer numbers have more of these groups, which are hard by themselves, and of those below a thousand most are
    training pairs. All sentences that are no numbers: None.
    """
    if some.measure != EXACT:
        return None
    return (some.test["turned"].values == 1) & (some.test["number"].values >= 1000)


def _by_length(some: Parts, combine: Callable[..., np.ndarray], *ways: np.ndarray) -> tuple[Interval, str]:
    """``combine`` of the scores of the longest and of the shortest sentences, each of all ways, and what it is of.

    Where there is but one group, nothing is compared: NaN.
    """
    among = alike(some)
    found = groups(some, among)
    called = f"difference of the longest and the shortest of {len(found)} groups by words"
    if among is not None:
        called += ", of numbers above 999 with one group of digits turned"
    if len(found) < 2:
        return Interval(*np.full((3,), np.nan)), called
    each = [masked(counts, mask) for mask in (found[-1], found[0]) for counts in ways]
    return measured(some.measure, combine, *each), called


def _attended(some: Parts) -> int:
    """Test numbers whose attention was measured."""
    return min(some.nets.attrs["looked"], some.test.sizes["sentence"])


def _long_is_worse(some: Parts) -> Row:
    gap, called = _by_length(some, lambda long, short: long - short, counts(some, NONE))
    return _row(
        some, "no attention: long numbers are right less often than short ones",
        f"{_unit(some)}, {called}", gap, interval_verdict(gap, below=0),
        measured=number(some, float(gap.mean), "+"),
    )  # fmt: skip


def _less_by_length(some: Parts, arm: str, claim: str | None = None) -> Row:
    """That what attention adds is more for long sentences than for short ones."""
    ways = counts(some, arm), counts(some, NONE)
    gap, called = _by_length(some, lambda a, b, c, d: (a - b) - (c - d), *ways)
    return _row(
        some, f"{_named(arm)} loses less by length than none" if claim is None else claim,
        f"{_unit(some)}: what attention adds, {called}{_spread(some)}", gap, interval_verdict(gap, above=0),
        measured=number(some, float(gap.mean), "+"),
    )  # fmt: skip


def _beside(some: Parts, name: str) -> Row:
    """A baseline's score, which is no claim."""
    found = float(measured(some.measure, lambda a: a, baseline_counts(some, name)).mean)
    best = max(some.arms, key=lambda arm: _score(some, arm))
    if some.measure == BLEU:
        note = f"; chrF {float(some.baselines['chrf'].sel(baseline=name)):.1f}"
    else:
        note = "; none by construction: no number is in two parts" if name == NEAREST else ""
    return Row(
        f"{name}: a translator without a net", f"{_unit(some)}{note}",
        f"{number(some, found)} (best net {number(some, _score(some, best))})", "-", 0, "-", "-", "-", "-",
    )  # fmt: skip


def _beam(some: Parts, arm: str) -> Row:
    """A check of sentences alone; of numbers the row stands beside."""
    how = f"{_named(arm)}: a beam of {some.nets.attrs['beams']}"
    ways = counts(some, arm, BEAM), counts(some, arm, GREEDY)
    if some.measure == EXACT:
        return _beats(some, f"{how} beside greedy writing", *ways)._replace(source="-", tolerance="-", verdict="-")
    return _beats(some, f"{how} loses less than {MARGIN:g} against greedy writing", *ways, -MARGIN)


def _left_out(some: Parts) -> Row:
    attrs = some.nets.attrs
    return Row(
        f"training pairs with more than {attrs['longest']} subwords on a side are left out", "pairs",
        f"{attrs['left_out']} of {attrs['pairs'] + attrs['left_out']}", "-", 0, "-", "-", "-", "-",
    )  # fmt: skip


# Sentences


def _of_sentences(some: Parts) -> list[Row]:
    return [
        *(_enough(some, arm, GOAL, f"above {GOAL:g} BLEU on {_asked(some)}") for arm in some.attending),
        *(_more_than_none(some, arm) for arm in some.attending),
        *(
            _less_by_length(some, arm, f"{_named(arm)} adds more to long sentences than to short ones")
            for arm in some.attending
        ),
        *(_beats_baselines(some, arm) for arm in some.arms),
        *(_beam(some, arm) for arm in some.arms),
        *(_beside(some, name) for name in BASELINES),
        *(_published(some, arm) for arm in some.arms),
    ]


def _asked(some: Parts) -> str:
    n, whole = some.test.sizes["sentence"], "the test set of 2016"
    return whole if n == OFFICIAL else f"the first {n} sentences of {whole}"


def _how(some: Parts) -> str:
    """What others need to know to compare a BLEU."""
    attrs = some.nets.attrs
    return f"beam of {attrs['beams']}, length penalty {attrs['length_penalty']:g}; {attrs['signature']}"


def _beats_baselines(some: Parts, arm: str) -> Row:
    best = max(BASELINES, key=lambda name: measured(some.measure, lambda a: a, baseline_counts(some, name)).mean)
    return _beats(some, f"{_named(arm)}: better than {best}", counts(some, arm), baseline_counts(some, best))


def _published(some: Parts, arm: str) -> Row:
    found = measured(some.measure, lambda a: a, counts(some, arm))
    chrf = lane_of(some, arm)["chrf"].sel(search=BEAM).values
    by_seed = [number(some, float(measured(some.measure, lambda a: a, each[None]).mean)) for each in counts(some, arm)]
    return _row(
        some, f"{_named(arm)} beside a published net",
        f"BLEU (seeds {', '.join(by_seed)}), {_how(some)}; chrF {chrf.mean():.1f}; {_asked(some)}", found,
        "not comparable", published=f"{CALIXTO:g}", tolerance="-",
        source="Calixto et al. (2017), text-only net with attention, the whole test set, recalled; tokenized text",
    )  # fmt: skip
