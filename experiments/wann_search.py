"""Weight-agnostic search: nets that swing a pole up with any one weight for all of their connections.

Panels, a group of each for every task
  search          The course of every search: returns of the best net, sizes of nets, generation by generation.
  population      The nets that the searches ended with: mean return against number of connections.
  champion        The best net: return and balance against the shared weight, one episode step by step.
  table           Random weights, random shared, tuned shared and tuned weights, for the champion and for a fully
                  connected net of fixed shape: the table of Gaier and Ha (2019).
  accuracy        For classification, the same columns and an ensemble over shared weights, on held-out examples.
For swing-up also
  reference_192, reference_64
                  The course of searches with the published settings, at two sizes of population, if reference_seeds is
                  not 0: how far one run, as is published, speaks for others.
  worth           What the best net of every search returns under random, six and its best shared weight, and whether it
                  balances the pole: how reliable a search is.

Falsifiable checks, stated before the first run of the study: under a random and under its best shared weight the
champion beats the fully connected net by more than half of the published difference; its tuned shared weight returns
more than a random one; at some shared weight chosen on other episodes it balances the pole (|theta| < 0.3 in all of the
last 200 steps) in at least 80 of 100 episodes. Added later, when elite means of 20 trial searches with the published
settings were known, but not what their nets return at their best shared weight: the best nets of a larger share of our
searches than of theirs return 723 there (Fisher's exact test at 5 %, two-sided). Where the searches of a task together
evaluate fewer nets than the published one, as in preset quick, a number below a published one is said to be below and
does not fail; standard is where they are decided.

What is random: a seed draws a search's first nets, mutations, parents and the episodes of each generation, which all
nets and weights of that generation share. The champion is chosen among all searches' nets on new episodes, its shared
weight tuned and its weights trained on further ones, and what is reported comes from others again; so it is with the
best net of each search, which all meet the same episodes.

Deviations: our searches try 18 shared weights in an episode each, where the published ones try six in three each, at
the same cost: nets that only know six weights can be made for those six. One with a mean return of 608 under them
returned 342 on average over weights from -2 to 2. They are of eight islands that exchange their best nets, for many a
single population stays where the pole spins on and on, which earns about 440; and nets are ranked by few connections in
one generation of five, not in four. All this was settled in trial runs with seed 0 and others, so that what our
searches do with those seeds is no test of it. With preset standard a search of ours makes half as many evaluations as
one with the published settings and population 192, and half as many again as one with 64. Crowding is normalized by the
range of an objective, where the released program divides by something else by an oversight, in all searches here, those
with the published settings too. Weights are trained by the evolution strategy of `nnjax.wann.training`, where theirs
are by one of their own, or by gradient descent where the task allows. The shapes of the published fixed nets are not
known to us; ours has one hidden layer of tanh units. Elite means are those of the best net of a generation, as in their
log, and so are chosen by chance in part; over other shared weights they are not comparable.

Sources: Gaier and Ha (2019), Weight agnostic neural networks; Deb et al. (2002), A fast and elitist multiobjective
genetic algorithm: NSGA-II.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from experiments import command
from experiments._wann_search_champion import of_task
from experiments._wann_search_figures import files, plot
from experiments._wann_search_panels import Arm, Budget
from experiments._wann_search_report import report
from experiments._wann_search_worth import CANDIDATES, SWEEP
from nnjax import activations, wann
from nnjax.monitor import Monitor
from nnjax.naming import choose
from nnjax.wann import tasks
from nnjax.wann.phenotype import most_instructions

if TYPE_CHECKING:
    import xarray as xr

    from nnjax.sweep import Store

__all__ = ["PRESETS", "Config", "files", "main", "plans", "plot", "report", "run"]

DENSE = (-2.0, -1.75, -1.5, -1.25, -1.0, -0.8, -0.6, -0.4, -0.2, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 1.75, 2.0)
"""Three times as many shared weights as Gaier and Ha (2019) have: six make nets that suit those six, and few others."""

TASKS = ("swing_up", "pendulum", "acrobot", "xor", "parity", "regression", "digits", "mnist16", "biped")


@dataclass(frozen=True)
class Config:
    """What is studied."""

    seed: int = 0
    """Seed of everything."""
    tasks: tuple[str, ...] = ("swing_up",)
    """Tasks, one after the other: swing_up, pendulum, acrobot, xor, parity, regression, digits, mnist16, biped."""
    seeds: int = 2
    """Searches of each task."""
    population: int = 48
    """Nets in a population, of which a search has one or as many as it has islands."""
    generations: int = 128
    """How often the population is evaluated."""
    repetitions: int = 1
    """Episodes, or batches of examples, for each net and shared weight in a generation."""
    shared_weights: tuple[float, ...] = DENSE
    """Weights that all connections of a net have in turn."""
    tournament: int = 8
    """A parent is the best of twice as many draws."""
    elite: float = 0.2
    """Share of the breeding nets that go on unchanged."""
    by_connections: float = 0.2
    """Probability that a generation is ranked by mean return and few connections, not by mean and best return."""
    remove_connection: float = 0.0
    """How often a mutation takes a connection away, against 1 for all others; never in the published search."""
    enabled: float = 0.5
    """Share of the first nets' connections that are enabled."""
    max_nodes: int = 128
    """Most nodes of a net, bias, inputs and outputs among them."""
    activations: tuple[str, ...] = ()
    """Activations of hidden nodes, any in nnjax.activations that work element by element; by default the task's."""
    islands: int = 8
    """Populations of a search, side by side."""
    migrate_every: int = 16
    """Generations between two exchanges of nets among islands; 0 for never."""
    migrants: int = 2
    """Nets that an island hands on."""
    published: bool = False
    """Search with the published settings where a task has them, in place of the fields above, but not if they are
    compared with (reference_seeds)."""
    published_seeds: int = 3
    """Searches of a task that is searched with the published settings."""
    reference_seeds: int = 0
    """Searches with the published settings, at populations 192 and 64 each, to compare with; 0 for none. Swing-up."""
    reference_generations: int = 1024
    """Generations of those."""
    champion_episodes: int = 40
    """Episodes that choose the champion, under each of the search's weights."""
    selection_episodes: int = 100
    """Episodes that choose a net's shared weight."""
    trials: int = 100
    """Episodes, or draws of weights, of every number reported."""
    training_generations: int = 100
    """Generations of the evolution strategy that trains all weights, or steps of gradient descent."""
    training_episodes: int = 8
    """Episodes of each of its candidates; not of gradient descent."""
    training_runs: int = 1
    """Runs of that strategy, each with a key of its own; the best on further episodes counts."""
    hidden: int = 10
    """Hidden units of the fully connected net."""

    def __post_init__(self) -> None:
        command.check_numbers(self, _LEAST)
        for name in self.tasks:
            choose("task", name, TASKS)
        if not self.tasks or len(set(self.tasks)) < len(self.tasks):
            raise ValueError(f"tasks={self.tasks} must name at least one, each once")
        for name in self.activations:
            choose("activation", name, activations.TABLE, aliases=activations.ALIASES)
        for name in self.tasks:
            search_config(self, name)
        references(self)


_LEAST: dict[str, float] = {
    "seed": 0, "seeds": 1, "population": 1, "generations": 1, "repetitions": 1, "shared_weights": -1000,
    "tournament": 1, "elite": 0, "by_connections": 0, "remove_connection": 0, "enabled": 0, "max_nodes": 1,
    "islands": 1, "migrate_every": 0, "migrants": 1, "champion_episodes": 1, "selection_episodes": 2, "trials": 2,
    "training_generations": 1, "training_episodes": 1, "training_runs": 1, "hidden": 1, "published_seeds": 1,
    "reference_seeds": 0, "reference_generations": 1,
}  # fmt: skip

_PUBLISHED: dict[str, dict[str, Any]] = {
    "swing_up": {"population": 192, "generations": 1024, "repetitions": 3, "tournament": 8, "elite": 0.2},
    "biped": {"population": 480, "generations": 2048, "repetitions": 4, "tournament": 16, "elite": 0.2,
              "enabled": 0.25},
    "mnist16": {"population": 960, "generations": 4096, "repetitions": 1, "tournament": 32, "elite": 0.2},
}  # fmt: skip
"""Settings of Gaier and Ha (2019), beside those of `_ANY`."""

_REFERENCES: dict[str, dict[str, Any]] = {
    "reference_192": {},
    "reference_64": {"population": 64, "tournament": 4, "elite": 0.05},
}
"""Searches of swing-up that others are compared with, by their panels: the published one, and one for a laptop."""

_ANY: dict[str, Any] = {
    "shared_weights": wann.SHARED_WEIGHTS,
    "by_connections": 0.8,
    "remove_connection": 0.0,
    "enabled": 0.5,
    "islands": 1,
    "migrate_every": 0,
}
"""What all of their searches have in common."""

_WIDE: dict[str, dict[str, Any]] = {
    "digits": {"enabled": 0.05, "repetitions": 1, "max_nodes": 256, "edges": 4096},
    "mnist16": {"enabled": 0.05, "repetitions": 1, "max_nodes": 768, "edges": 8192},
}
"""What tasks with many inputs need in any case: sparse first nets, and genes in lists."""

_ALWAYS: dict[str, dict[str, Any]] = {name: {"repetitions": 1} for name in ("xor", "parity", "regression")}
"""Tasks that show all of their examples every time."""


def search_config(config: Config, task: str) -> wann.Config:
    """How one task is searched.

    Raises:
      ValueError: a number that no search can have.
    """
    fields = {name: getattr(config, name) for name in _SEARCH}
    wide = _WIDE.get(task, {})
    wide = wide | {"max_nodes": max(config.max_nodes, wide.get("max_nodes", 0))}
    fields |= wide | _ALWAYS.get(task, {})
    if is_published(config, task):
        fields |= _ANY | wide | _PUBLISHED[task]
    return _search(config, fields)


def is_published(config: Config, task: str) -> bool:
    """Whether a task is searched with the published settings."""
    compared = task == "swing_up" and config.reference_seeds > 0
    return config.published and task in _PUBLISHED and not compared


def references(config: Config) -> dict[str, wann.Config]:
    """Searches of swing-up with the published settings, by the names of their panels; none if there is no seed."""
    fields = {name: getattr(config, name) for name in _SEARCH} | _ANY | _PUBLISHED["swing_up"]
    fields |= {"generations": config.reference_generations, "migrants": 1}
    return {name: _search(config, fields | own) for name, own in _REFERENCES.items()} if config.reference_seeds else {}


_SEARCH = (
    "population", "generations", "repetitions", "shared_weights", "enabled", "max_nodes", "islands", "migrate_every",
    "migrants", "tournament", "elite", "by_connections", "remove_connection",
)  # fmt: skip


def _search(config: Config, fields: dict[str, Any]) -> wann.Config:
    rates = wann.Rates(remove_connection=fields.pop("remove_connection"))
    selection = {name: fields.pop(name) for name in ("tournament", "elite", "by_connections")}
    return wann.Config(
        selection=wann.Selection(rates=rates, **selection), activations=config.activations or None, **fields
    )


_QUICK = Config()
_STANDARD = replace(
    _QUICK, seed=2, seeds=12, generations=512, migrate_every=8, migrants=4, training_generations=1500,
    training_episodes=16, training_runs=3, reference_seeds=20,
)  # fmt: skip
PRESETS = {
    "quick": _QUICK,
    "standard": _STANDARD,
    "full": replace(
        _STANDARD,
        published=True,
        tasks=(
            "swing_up", "pendulum", "acrobot", "xor", "digits", "mnist16",
            *(("biped",) if importlib.util.find_spec("gymnasium") else ()),
        ),
    ),
}  # fmt: skip


def _prepared(config: Config) -> list[tuple[str, Any, wann.Config, Any]]:
    """Name, task, search and key of every task; what is wrong with any of them is said before the first begins."""
    made = []
    for name in config.tasks:
        try:
            task = tasks.by_name(name)
            search = search_config(config, name)
            search.space(task)
        except ValueError as error:
            raise command.BadInput(str(error)) from None
        key = jax.random.fold_in(jax.random.key(config.seed), TASKS.index(name))
        made.append((name, task, search, key))
    return made


# The plan

_STEPS_A_SECOND = 12e6
"""Environment steps a second and CPU core, of nets as a search has them after some hundred generations."""

_COMPILE_SECONDS = 60.0
"""Of a task's about ten programs, one after the other."""

_SEARCH_COMPILE_SECONDS = 15.0
"""Of a search's program."""

_BASE_BYTES = 1344 * 2**20
"""Memory of the program itself, and of compiling its parts."""

_SLAB_BYTES = 2**28
"""What the instructions of the nets that are evaluated at a time may take (`nnjax.wann.evaluation`)."""

_INSTRUCTION_BYTES = 13
"""Memory of an instruction of a net."""


@dataclass(frozen=True)
class Plan:
    """What the searches of a task will cost, as predicted; good to a factor of about two for swing-up."""

    name: str
    searches: int
    config: wann.Config
    slots: int
    steps: float
    compile_seconds: float
    run_seconds: float
    memory_bytes: int
    result_bytes: int

    def __str__(self) -> str:
        config = self.config
        islands = f" x islands {config.islands}" if config.islands > 1 else ""
        return (
            f"{self.name}: {self.searches} searches{islands} as one program, population {config.population}, "
            f"{config.generations} generations, {len(config.shared_weights)} shared weights x {config.repetitions} "
            f"repetitions, up to {self.slots} nodes; at most {self.steps:.3g} environment steps, about "
            f"{self.compile_seconds:.0f} s compiling, {self.run_seconds:.0f} s running, "
            f"{self.memory_bytes / 2**20:.0f} MiB of memory"
        )


def plans(config: Config) -> list[Plan]:
    """What every task will cost, and searches that it is compared with."""
    made = []
    for name, task, search, _ in _prepared(config):
        made.append(_plan(name, task, search, seeds_of(config, name), _after(config, task)))
        if name == "swing_up":
            others = references(config).items()
            made += [_plan(f"{name}, {arm}", task, other, config.reference_seeds, 0.0) for arm, other in others]
    return made


def _plan(name: str, task: Any, search: wann.Config, seeds: int, after: float) -> Plan:
    space = search.space(task)
    nets = seeds * search.islands * search.population
    genome = space.max_nodes * (space.max_nodes + 1) if space.edges is None else 9 * space.edges + space.max_nodes
    state = nets * genome
    lanes = nets * len(search.shared_weights) * search.repetitions
    steps = float(lanes) * _length(task) * search.generations
    programs = nets * most_instructions(space) * _INSTRUCTION_BYTES if space.edges is None else 0
    return Plan(
        name, seeds, search, space.max_nodes, steps, _COMPILE_SECONDS if after else _SEARCH_COMPILE_SECONDS,
        (steps + after) / (_STEPS_A_SECOND * jax.local_device_count()),
        _BASE_BYTES + 6 * state + programs + min(programs, _SLAB_BYTES),
        2 * state + 8 * 11 * seeds * search.islands * search.generations,
    )  # fmt: skip


def _length(task: Any) -> int:
    """Steps of an episode; a batch task's unit of work is an example."""
    return getattr(task, "steps", None) or getattr(task, "batch_size", None) or 4


def _after(config: Config, task: Any) -> float:
    """Steps after the searches: to train and to show a champion, and every search's best net."""
    nets = config.seeds + len(references(config)) * config.reference_seeds if isinstance(task, tasks.SwingUp) else 1
    shown = 2 * (config.trials + config.selection_episodes) * len(SWEEP)
    chosen = CANDIDATES * config.champion_episodes * len(wann.SHARED_WEIGHTS)
    trained = 2 * config.training_generations * 64 * config.training_episodes * config.training_runs
    return float(_length(task) * (trained + nets * (shown + chosen)))


# The run


def search_keys(key: Any, seeds: int) -> tuple[Any, Any]:
    """A key for each search, (seeds,), the same whatever their number, and one for all that follows."""
    return jax.vmap(lambda seed: jax.random.fold_in(key, seed))(jnp.arange(seeds)), jax.random.fold_in(key, 2**31)


def seeds_of(config: Config, task: str) -> int:
    """Searches of a task."""
    return config.published_seeds if is_published(config, task) else config.seeds


def run(config: Config, *, store: Callable[[str], Store] | None = None, monitor: Monitor | None = None) -> xr.DataTree:
    """Search, choose, tune and report every task; ``store(name)`` keeps what is done. Groups are TASK/PANEL."""
    import xarray as xr

    monitor = monitor or Monitor()
    budget = Budget(
        config.trials, config.champion_episodes, config.selection_episodes, config.training_generations, config.hidden,
        config.training_episodes, config.training_runs,
    )  # fmt: skip
    groups: dict[str, xr.Dataset] = {}
    for name, task, search, key in _prepared(config):
        keys, later = search_keys(key, seeds_of(config, name))
        found = of_task(name, task, search, keys, later, budget, store(name) if store else None, monitor,
                        _arms(config, key, store) if name == "swing_up" else None)  # fmt: skip
        groups |= {f"{name}/{panel}": dataset for panel, dataset in found.items()}
    return xr.DataTree.from_dict(groups, name="wann_search")


def _arms(config: Config, key: Any, store: Callable[[str], Store] | None) -> dict[str, Arm]:
    """Searches of swing-up that others are compared with, each with keys and a store of its own."""
    made = {}
    for arm, search in references(config).items():
        keys, _ = search_keys(jax.random.fold_in(key, 2**31 + search.population), config.reference_seeds)
        made[arm] = Arm(search, keys, store(f"swing_up-{arm.replace('_', '-')}") if store else None)
    return made


def main(argv: list[str] | None = None) -> int:
    """The command line: see ``--help``."""
    return command.main("experiments.wann_search", argv)


if __name__ == "__main__":
    sys.exit(main())
