"""The search itself: ask, compute a batch of trials as one program, tell, until there are enough."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from nnjax import hosts, results
from nnjax.chunks import Run, bind, column, content, double_precision
from nnjax.monitor import Monitor
from nnjax.search.asking import by_name
from nnjax.search.batches import Batches, packed, unpacked
from nnjax.search.samplers import Sampler, Trial, positive
from nnjax.search.space import Space, check
from nnjax.sweep import Executor, Store, serial
from nnjax.types import Key, PyTree

if TYPE_CHECKING:
    import xarray as xr

OBJECTIVE = "validation_loss"


@dataclass(frozen=True)
class Found:
    """What a search found.

    Attributes:
      space: what was searched.
      trials: every trial in the order that it was asked for.
      results: what the run returned for them, by name, (trials, seeds, ...).
      batches: the batch that each trial was in, (trials,).
    """

    space: dict[str, Any]
    trials: tuple[Trial, ...]
    results: dict[str, np.ndarray]
    batches: np.ndarray

    @property
    def best(self) -> Trial:
        """The trial of the least validation loss, the first of equals; one that diverged only if all did."""
        return self.trials[int(np.argmin(ranked([trial.value for trial in self.trials])))]

    def table(self) -> xr.Dataset:
        """The trials as a Dataset: hyper-parameters and ``value`` over ``trial``, results over ``trial``, ``seed``.

        Results with the name of a hyper-parameter get ``_result`` behind it.
        """
        import xarray as xr

        values = {name: [trial.hparams[name] for trial in self.trials] for name in self.space}
        made: dict[str, Any] = {name: ("trial", _labels(each)) for name, each in values.items()}
        made |= {"value": ("trial", np.array([trial.value for trial in self.trials]))}
        for name, array in self.results.items():
            label = f"{name}_result" if name in made or name == "batch" else name
            made[label] = (("trial", "seed", *(f"{label}_{i}" for i in range(array.ndim - 2))), array)
        return xr.Dataset(made | {"batch": ("trial", self.batches)})


def _labels(values: list[Any]) -> np.ndarray:
    plain = all(isinstance(value, int | float | bool) for value in values)
    return np.asarray(values) if plain else np.asarray([str(value) for value in values])


def ranked(values: Sequence[float]) -> np.ndarray:
    """Values (n,) as they rank: what is not finite counts as infinite, worse than all that is."""
    array = np.asarray(values, float)
    return np.where(np.isfinite(array), array, np.inf)


def best_so_far(trials: Sequence[Trial]) -> np.ndarray:
    """The least value after each trial, (n,); infinite as long as all have diverged."""
    return np.minimum.accumulate(ranked([trial.value for trial in trials]))


def search(
    run: Run,
    space: Space,
    *,
    sampler: str | Sampler = "bayesian",
    trials: int,
    batch: int = 1,
    key: Key,
    data: PyTree = None,
    seeds: int = 1,
    name: str = "search",
    store: Store | None = None,
    path: str | Path | None = None,
    width: int | None = None,
    memory_budget: int | None = None,
    monitor: Monitor | None = None,
    executor: Executor = serial,
) -> Found:
    """Look for the hyper-parameters of the least validation loss.

    Args:
      run: ``(key, hparams, data) -> {"validation_loss": (), ...}``, pure; ``hparams`` holds scalars, all traced, so
        that every batch of the search is the same compiled program.
      space: hyper-parameters by name, each a `Float`, an `Integer` or a `Choice`.
      sampler: a name in `NAMES` or a sampler: ``Bayesian(initial=8)``.
      trials: how many points to try; fewer where there are no more. Where it is no multiple of ``batch`` the last batch
        is smaller; a search that goes on with more trials asks for that one anew, whole, and what was stored of it is
        not used.
      batch: how many at a time, side by side; each batch knows the ones before it.
      key: base key. Seed number s of every trial has the key ``fold_in(key, s)``: trials differ in their
        hyper-parameters alone. The sampler's seed is drawn from it too.
      data: arrays for ``run``; a dict without a split ``test``, which is for `test_once`.
      seeds: runs of each trial, whose mean validation loss is its value.
      name: for progress, and part of the stored batches' names.
      store: keeps finished batches (`nnjax.results.Folder.store`); a search goes on after those found there.
      path: a results folder to open instead, where the table of trials is written to ``trials.nc`` in the end.
      width, memory_budget, monitor, executor: as for `nnjax.sweep.sweep`.

    Raises:
      ValueError: see `nnjax.search.space.check`; an unknown sampler; ``trials``, ``batch`` or ``seeds`` below 1; data
        with a test split; a run without ``validation_loss``, or with one that is no scalar.
      nnjax.sweep.OutOfMemory: a MemoryError; one run alone does not fit.
      nnjax.results.ResultsError: ``path`` is of another search, or cannot be used.
    """
    if store is not None and path is not None:
        raise ValueError("give either store or path, not both")
    found = compare(
        run, space, samplers={"search": sampler}, repeats=1, trials=trials, batch=batch, key=key, data=data,
        seeds=seeds, name=name, store=store, path=path, width=width, memory_budget=memory_budget, monitor=monitor,
        executor=executor,
    )  # fmt: skip
    return found["search"][0]


def compare(
    run: Run,
    space: Space,
    *,
    samplers: Mapping[str, str | Sampler],
    repeats: int,
    trials: int,
    batch: int = 1,
    key: Key,
    data: PyTree = None,
    seeds: int = 1,
    name: str = "search",
    store: Store | None = None,
    path: str | Path | None = None,
    width: int | None = None,
    memory_budget: int | None = None,
    monitor: Monitor | None = None,
    executor: Executor = serial,
) -> dict[str, tuple[Found, ...]]:
    """Search with each of several samplers, ``repeats`` times each, all side by side in one program.

    All searches see the same function: seed s of a trial has the same key whatever search it is of. Repeat r of every
    sampler has the same sampler's seed, the r-th that is drawn from ``key``, so that repeats can be compared in pairs.

    Args:
      samplers: samplers, or their names, by labels.
      repeats: searches of each.
      run, space, trials, ...: as for `search`.

    Returns:
      What every search found, by label.

    Raises:
      as `search`; and ValueError where no sampler is given or ``repeats`` is below 1.
    """
    check(space)
    for label, value in (("trials", trials), ("batch", batch), ("seeds", seeds), ("repeats", repeats)):
        positive(label, value)
    if not samplers:
        raise ValueError("samplers is empty; give at least one")
    if isinstance(data, Mapping) and "test" in data:
        raise ValueError("data holds a split 'test', which a search must not see; give it to test_once")
    rules = {label: by_name(rule) if isinstance(rule, str) else rule for label, rule in samplers.items()}
    _check_result(run, space, key, data)
    asks = [(rule, sampler_seed(key, repeat)) for rule in rules.values() for repeat in range(repeats)]
    facts = _facts(run, space, rules, repeats, batch, key, data, seeds, name, width)
    with contextlib.ExitStack() as stack:
        folder = None
        if path is not None:
            folder = stack.enter_context(results.Folder(path, facts))
            store = folder.store(results.checked_name(name))
        batches = Batches(run, dict(space), key, data, seeds, len(asks) * batch, width, memory_budget, executor)
        batches.monitor = monitor or Monitor()
        made = _search_all(asks, batches, trials, batch, store, json.dumps(facts, sort_keys=True), name)
        found = {label: tuple(made[i * repeats : (i + 1) * repeats]) for i, label in enumerate(rules)}
        if folder is not None:
            _write(folder, found)
    return found


def test_once(
    run: Run,
    found: Found | Sequence[Found],
    *,
    key: Key,
    data: PyTree,
    seeds: int = 1,  # noqa: PT028
    name: str = "test",  # noqa: PT028
    store: Store | None = None,  # noqa: PT028
    width: int | None = None,  # noqa: PT028
    monitor: Monitor | None = None,  # noqa: PT028
) -> dict[str, np.ndarray]:
    """Run the best trial of a search once with the test split: all that ``run`` returns, (seeds, ...).

    The one look at the test split; what is chosen after it is chosen on it. The best trials of several searches, given
    as a sequence, are one program, and the results have its axis in front, (searches, seeds, ...).

    Args:
      run, key, name, store, width, monitor: as for `search`.
      found: a search, or several of one space.
      data: a dict with a split ``test``.
      seeds: runs of each, with a key each.

    Raises:
      ValueError: data without a test split, no search, or ``seeds`` below 1.
    """
    if not isinstance(data, Mapping) or "test" not in data:
        raise ValueError("data must be a dict with a split 'test', which the search has not seen")
    positive("seeds", seeds)
    many = [found] if isinstance(found, Found) else list(found)
    if not many:
        raise ValueError("found is empty; give at least one search")
    space, points = many[0].space, [each.best.hparams for each in many]
    facts = _facts(run, space, {}, len(many), 1, key, data, seeds, name, width)
    chunk = _digest([facts, packed(space, [points])])
    stored = hosts.first(lambda: store.load(chunk) if store is not None else None)
    if stored is None:
        batches = Batches(run, space, key, data, int(seeds), len(points), width, None, serial)
        batches.monitor = monitor or Monitor()
        stored = batches(points, chunk)
        _save(store, chunk, stored, {"lanes": len(points) * seeds, "seconds": batches.seconds})
    elif monitor:
        monitor.count("resumed")
    return {label: value[0] if isinstance(found, Found) else value for label, value in stored.items()}


test_once.__test__ = False  # type: ignore[attr-defined]


def sampler_seed(key: Key, repeat: int) -> int:
    """The seed of the sampler in a search's r-th repeat."""
    words = np.asarray(jax.random.key_data(jax.random.fold_in(key, 2**31 + repeat))).ravel()
    return int.from_bytes(words.tobytes(), "little") % 2**63


def _check_result(run: Run, space: Space, key: Key, data: PyTree) -> None:
    """What could only fail after the first batch fails before."""
    hparams = {name: column((d.traced(d.decode(0.0)),))[0] for name, d in space.items()}
    hparams |= {"seed": column((0,))[0]}
    lane = bind(run, str(jax.random.key_impl(key)), True, {})
    made = jax.eval_shape(lane, hparams, jax.random.key_data(key), jax.tree.map(np.asarray, data))
    if OBJECTIVE not in made:
        raise ValueError(f"run must return {OBJECTIVE!r}, what is searched for the least of, not only {sorted(made)}")
    if made[OBJECTIVE].shape != ():
        raise ValueError(f"{OBJECTIVE!r} of shape {made[OBJECTIVE].shape} must be a scalar")


def _facts(
    run: Run, space: Space, rules: Mapping[str, Any], repeats: int, batch: int, key: Key, data: PyTree, seeds: int,
    name: str, width: int | None,
) -> dict[str, Any]:  # fmt: skip
    """What a search depends on; not the number of trials: with more it goes on."""
    leaves = {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_flatten_with_path(data)[0]}
    devices = hosts.devices()
    return {
        "name": name, "run": _digest(run), "data": _digest(leaves),
        "key": [str(jax.random.key_impl(key)), content(jax.random.key_data(key))],
        "space": {label: repr(dimension) for label, dimension in space.items()},
        "samplers": {label: repr(rule) for label, rule in rules.items()},
        "repeats": repeats, "batch": batch, "seeds": seeds, "width": width,
        "place": [devices[0].device_kind, len(devices), double_precision()],
    }  # fmt: skip


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(content(value), sort_keys=True, default=str).encode()).hexdigest()[:24]


# The rounds


def _search_all(
    asks: Sequence[tuple[Sampler, int]], batches: Batches, trials: int, batch: int, store: Store | None, identity: str,
    name: str,
) -> list[Found]:  # fmt: skip
    """Every search's trials, all searches batch by batch."""
    space, monitor = batches.space, batches.monitor
    told: list[list[Trial]] = [[] for _ in asks]
    parts: list[list[dict[str, np.ndarray]]] = [[] for _ in asks]
    numbers: list[list[int]] = [[] for _ in asks]
    rounds = math.ceil(trials / batch)
    monitor.begin(name, rounds)
    for number in range(rounds):
        count = min(batch, trials - number * batch)
        chunk = _digest([identity, number, count])

        def propose(count: int = count) -> dict[str, np.ndarray]:
            points = [rule.ask(space, tuple(own), count, seed) for (rule, seed), own in zip(asks, told, strict=True)]
            return packed(space, points)

        stored = hosts.first(lambda chunk=chunk: store.load(chunk) if store is not None else None)  # type: ignore[misc]
        asked = unpacked(space, stored or hosts.first(propose) or {})
        flat = [point for own in asked for point in own]
        if not flat:
            break
        made = _results(stored) if stored else batches(flat, chunk)
        if stored:
            monitor.count("resumed")
        else:
            _save(store, chunk, {**packed(space, asked), **{f"result.{k}": v for k, v in made.items()}},
                  {"lanes": len(flat) * batches.seeds, "seconds": batches.seconds})  # fmt: skip
        values = np.asarray(made[OBJECTIVE], float).mean(axis=1)
        start = 0
        for own, points, part, of in zip(told, asked, parts, numbers, strict=True):
            rows = slice(start, start + len(points))
            own += [Trial(point, _finite(value)) for point, value in zip(points, values[rows], strict=True)]
            part.append({result: value[rows] for result, value in made.items()})
            of += [number] * len(points)
            start = rows.stop
        monitor.advance(1)
    monitor.end()
    return [_found(space, *each) for each in zip(told, parts, numbers, strict=True)]


def _save(store: Store | None, chunk: str, arrays: Mapping[str, np.ndarray], facts: Mapping[str, Any]) -> None:
    """Keep a finished batch; the first host does."""

    def save() -> None:
        if store is not None:
            store.save(chunk, arrays, facts)

    hosts.first(save)


def _found(space: dict[str, Any], trials: list[Trial], parts: list[dict[str, np.ndarray]], of: list[int]) -> Found:
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return Found(space, tuple(trials), joined, np.asarray(of, np.int32))


def _finite(value: float) -> float:
    return float(value) if np.isfinite(value) else math.nan


def _results(stored: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name.partition(".")[2]: value for name, value in stored.items() if name.startswith("result.")}


def _write(folder: results.Folder, found: Mapping[str, Sequence[Found]]) -> None:
    """Put the tables of trials into a results folder."""
    import xarray as xr

    single = len(found) == 1 and all(len(own) == 1 for own in found.values())
    for label, own in found.items():
        for number, each in enumerate(own):
            place = "trials.nc" if single else f"trials/{label}-{number}.nc"
            folder.write_tree(place, xr.DataTree(each.table()))
    folder.finish()
