"""How reliable searches are: the study's comparison of its settings with the published ones, search by search."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from test_wann_search_study import TINY, said, swing_up

from experiments import _wann_search_champion as after
from experiments import _wann_search_panels as panels
from experiments import _wann_search_reliability as reliability
from experiments import _wann_search_worth as of_nets
from experiments import wann_search as study
from nnjax import results, wann
from nnjax.monitor import Monitor
from nnjax.wann import tasks


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("results")


# What is measured


def test_a_searchs_candidates_are_those_that_it_ranks_highest():
    """Of all islands, a net that returns NaN last."""
    space = wann.Space(5, 1, 10)
    nets = jax.vmap(lambda key: wann.minimal(key, space, 0.5))(jax.random.split(jax.random.key(0), 2 * 2 * 6))
    nets = jax.tree.map(lambda leaf: leaf.reshape(2, 2, 6, *leaf.shape[1:]), nets)
    nets = nets._replace(hidden=jnp.arange(24).reshape(2, 2, 6))  # a number for each
    rng = np.random.default_rng(1)
    fitness = rng.normal(size=(2, 2, 6, 3))
    fitness[0, 1, 2, 0] = np.nan
    state = wann.State(nets, jnp.asarray(fitness), None, None, None, None, None)
    found = of_nets.candidates(state)
    mean = np.where(np.isnan(fitness.mean(-1)), -np.inf, fitness.mean(-1)).reshape(2, 12)
    assert found.hidden.shape == (2, of_nets.CANDIDATES)
    np.testing.assert_array_equal(found.hidden - [[0], [12]], np.argsort(-mean, 1)[:, : of_nets.CANDIDATES])
    assert 8 not in found.hidden
    few = state._replace(population=jax.tree.map(lambda leaf: leaf[:, :1, :3], nets), fitness=state.fitness[:, :1, :3])
    assert of_nets.candidates(few).hidden.shape == (2, 3)


def test_a_net_and_its_weights_are_chosen_on_other_episodes_than_are_reported(monkeypatch):
    """Made-up returns: of three candidates the second is best where nets are chosen; weights are as good as said."""
    space, task, key = wann.Space(5, 1, 10), tasks.SwingUp(), jax.random.key(7)
    net = wann.minimal(key, space, 1.0)
    nets = jax.tree.map(lambda leaf: jnp.stack([leaf] * 6).reshape(2, 3, *leaf.shape), net)
    nets = nets._replace(hidden=jnp.arange(6).reshape(2, 3))
    ended = of_nets.Ended(wann.State(nets, jnp.zeros((2, 3, 2)), *[None] * 5), space)
    of_choice, of_weights, of_report = jax.random.split(key, 3)
    asked = []

    def evaluate(every, space, task, weights, key, *, repetitions):
        assert (key, repetitions, weights) == (of_choice, 4, wann.SHARED_WEIGHTS)
        means = np.array([[5, 9, 7], [5, np.nan, 7], [1, 2, 3]]).ravel()
        return np.repeat(means[np.asarray(every.hidden) % 6], 6).reshape(-1, 6)

    def returns(net, task, weights, key, episodes, *, space):
        upright, report = isinstance(task, of_nets.Upright), bool(key == of_report)
        assert report or key == of_weights
        assert episodes == (2 if report else 3)
        asked.append((int(net.hidden), upright, report))
        weights = np.asarray(weights)
        if upright:  # best at -2.5 where weights are chosen, on half of the episodes that are reported
            stands = np.abs(weights + 2.5) < 0.01
            found = np.where(stands, 200.0, 199.0)[:, None] * np.ones(episodes)
            found[:, 0] = 199.0 if report else found[:, 0]
            return found
        found = 10 * weights + (100 if report else 0)
        return np.where(np.isclose(weights, 1.9) & (not report), np.nan, found)[:, None] * np.ones(episodes)

    monkeypatch.setattr(of_nets, "evaluate", evaluate)
    monkeypatch.setattr(of_nets, "returns", returns)
    few = of_nets.Ended(jax.tree.map(lambda leaf: leaf[:1], ended.state), space)
    worth = of_nets.worth({"search": ended, "reference_64": few}, task, key, panels.Budget(2, 4, 3, 1, 1), None)
    assert [number for number, *_ in asked[::4]] == [1, 5, 1]
    assert {facts for _, *facts_ in asked for facts in [tuple(facts_)]} == {
        (False, False), (True, False), (False, True), (True, True)
    }  # fmt: skip
    np.testing.assert_allclose(worth["published_mean"][0], 100, atol=1e-4)
    np.testing.assert_allclose(worth["mean"][0], 100, atol=1e-4)
    np.testing.assert_allclose(worth["best_weight"], [[2, 2], [2, np.nan]])  # 3 would return more, and is out of range
    np.testing.assert_allclose(worth["best"][0], 120)
    np.testing.assert_allclose(worth["upright_weight"][0], -2.5)
    np.testing.assert_allclose(worth["upright"], [[0.5, 0.5], [0.5, np.nan]])
    assert worth["searches"].values.tolist() == [2, 1]


def test_searches_with_the_published_settings_have_keys_and_stores_of_their_own(monkeypatch, folder):
    seen = []
    monkeypatch.setattr(study, "of_task", lambda *args: seen.append(args) or {})
    config = study.replace(TINY, tasks=("xor", "swing_up"), reference_seeds=3, reference_generations=5, max_nodes=16)
    with results.Folder(folder / "arms", {}) as out:
        study.run(config, store=out.store)
    xor, swing = seen
    assert xor[-1] is None
    assert {name: arm.config for name, arm in swing[-1].items()} == study.references(config)
    assert {arm.config.generations for arm in swing[-1].values()} == {5}
    assert {arm.config.max_nodes for arm in swing[-1].values()} == {16}
    keys = np.concatenate([jax.random.key_data(some) for some in (swing[3], *(a.keys for a in swing[-1].values()))])
    assert len({tuple(key) for key in keys.tolist()}) == 2 + 3 + 3
    assert len({id(arm.store) for arm in swing[-1].values()} | {id(swing[6])}) == 3


def stubbed(folder, monkeypatch):
    """Panels of swing-up with one arm to compare with, without a champion."""
    for name in ("choose", "shown", "tuned", "table"):
        monkeypatch.setattr(after, name, lambda *_, name=name: {"searched": None})
    task = tasks.SwingUp(steps=205)
    config = wann.Config(population=6, generations=2, repetitions=1, shared_weights=(-1.0, 1.0), max_nodes=10)
    key = jax.random.key(2)
    keys, others = jax.random.split(key, 2), jax.random.split(jax.random.key(3), 2)
    with results.Folder(folder / "swing_up", {}) as out:
        arms = {"reference_64": panels.Arm(config, others, out.store("swing_up-reference-64"))}
        return task, after.of_task(
            "swing_up", task, config, keys, key, panels.Budget(2, 2, 2, 1, 1), out.store("swing_up"), Monitor(), arms
        )  # fmt: skip


def test_the_best_net_of_every_search_is_measured_and_kept(folder, monkeypatch):
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    try:
        task, found = stubbed(folder, monkeypatch)
    finally:
        jax.config.update("jax_disable_most_optimizations", before)
    worth = found["worth"]
    assert dict(worth.sizes) == {"arm": 2, "seed": 2}
    assert worth["arm"].values.tolist() == ["search", "reference_64"]
    assert dict(found["reference_64"].sizes) == {"seed": 2, "island": 1, "generation": 2}
    assert worth["searches"].values.tolist() == [2, 2]
    assert np.isfinite(worth["mean"]).all()
    assert np.abs(worth["best_weight"]).max() <= 2
    assert ((worth["upright"] >= 0) & (worth["upright"] <= 1)).all()
    # A mean over six weights lies between the ends of what a net can return in as many steps.
    assert (np.abs(worth["published_mean"]) < task.steps).all()
    assert (worth["best"] > 0).all()
    for module, name in ((sys.modules["nnjax.wann.search"], "_advance"), (of_nets, "evaluate"), (of_nets, "returns")):
        monkeypatch.setattr(module, name, lambda *_, **__: pytest.fail("computed again"))
    again = stubbed(folder, monkeypatch)[1]
    assert again["worth"].identical(worth)
    assert again["reference_64"]["elite_mean"].identical(found["reference_64"]["elite_mean"])


# What is said, of made-up numbers


def with_arms(tree, ours=(20, 20), theirs=(4, 20)):
    """The tree with 20 searches of each arm, of which so many reach what is published, in all quantities."""
    rng = np.random.default_rng(4)
    course = tree["swing_up/search"].to_dataset()
    made = {"swing_up/search": course.assign_attrs(shared_weights=[-1.0, 1.0])}
    for arm, population in (("reference_192", 192), ("reference_64", 64)):
        log = (
            300 + 50 * np.log(np.arange(1, 1025)) + rng.normal(0, 40, (20, 1, 1024)) + 15 * np.arange(20)[:, None, None]
        )
        fields = {"elite_mean": log, "nodes": log / 10, "connections": log / 5}
        facts = course.attrs | {"population": population, "islands": 1}
        made[f"swing_up/{arm}"] = xr.Dataset(
            {name: (("seed", "island", "generation"), value) for name, value in fields.items()},
            {"seed": range(20), "generation": 1 + np.arange(1024)}, facts,
        )  # fmt: skip
    counts = {"search": ours, "reference_192": theirs, "reference_64": theirs}
    values = {}
    for name, goal in reliability.GOALS.items():
        least = goal.least or 500
        rows = [np.where(np.arange(20) < count, 1.05, 0.6) * least for count, _ in counts.values()]
        values[name] = (("arm", "seed"), np.stack(rows) * rng.uniform(0.99, 1.0, (3, 20)))
    for _, array in values.values():
        for row, (_, searches) in zip(array, counts.values(), strict=True):
            row[searches:] = np.nan
    values["searches"] = ("arm", [searches for _, searches in counts.values()])
    made["swing_up/worth"] = xr.Dataset(values, {"arm": list(counts), "seed": range(20)}, {"trials": 100})
    return xr.DataTree.from_dict({key: tree[key].to_dataset() for key in (
        "swing_up/population", "swing_up/champion", "swing_up/table")} | made)  # fmt: skip


def test_searches_that_reach_what_is_published_are_counted_and_compared():
    claim = "swing_up: our settings reach 723 in a larger share of searches than the published settings, population {}"
    rows = said(with_arms(swing_up(), (18, 20), (4, 20)))
    for size in (192, 64):
        row = rows[claim.format(size)]
        assert row.verdict == "holds"
        assert row.measured == "18 of 20 against 4 of 20: +0.70"
    row = rows["swing_up, our settings: searches that return 515 under a random shared weight"]
    assert row.measured.startswith("18 of 20; ")
    assert row.interval == "[0.683, 0.9877]"  # Clopper and Pearson's
    assert (
        rows["swing_up, published settings, population 192: searches that balance the pole in 80% of episodes"].seeds
        == 20
    )
    assert said(with_arms(swing_up(), (4, 20), (18, 20)))[claim.format(192)].verdict == "fails"
    assert said(with_arms(swing_up(), (2, 2), (4, 20)))[claim.format(192)].verdict == "open"
    course = rows["swing_up, published settings: elite mean at generation 1024, populations of 64"]
    assert course.seeds == 20
    assert course.published.startswith("629, one run")


def test_fisher_is_the_hypergeometric_one():
    """Fisher's tea: three of four cups right has p 0.486."""
    np.testing.assert_allclose(reliability.fisher(3, 4, 1, 4), 34 / 70)
    np.testing.assert_allclose(reliability.fisher(4, 4, 0, 4), 2 / 70)


def test_searches_with_the_published_settings_are_drawn_beside_ours(tmp_path):
    figures = study.plot(with_arms(swing_up(lost=True), (3, 3), (4, 20)))
    for name in ("course", "reliability"):
        figure = figures[f"swing_up_{name}"]
        figure.savefig(tmp_path / f"{name}.png")
        assert all(ax.get_ylabel() for ax in figure.axes if ax.axison)
    assert len(figures["swing_up_reliability"].axes) == 4
    # A line for every search, their median, and the published log where it is comparable.
    assert [len(ax.lines) for ax in figures["swing_up_course"].axes[:3]] == [3 + 1, 20 + 1 + 1, 20 + 1 + 1]
