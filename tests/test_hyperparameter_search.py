"""The hyper-parameter study: its net and rule, a tiny run cut and resumed, its measures, bad input, quick's claims."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import xarray as xr

from experiments import _hyperparameter_search_lanes as lanes
from experiments import _hyperparameter_search_report as reporting
from experiments import command
from experiments import hyperparameter_search as study
from nnjax import losses, results
from nnjax.monitor import Monitor
from nnjax.search import best_so_far

TINY = study.Config(
    samplers=("grid", "random", "bayesian"), seeds=2, trials=12, batch=6, levels=1, reference=30, test_runs=2, n=40,
    validation_n=40, features=(2,), steps=4, train_batch=10,
)  # fmt: skip


class Memory(dict):
    """Stores of all names in one."""

    def __call__(self, name):
        return self

    def load(self, identity):
        return self.get(identity)

    def save(self, identity, arrays, facts):
        self[identity] = {name: np.array(value) for name, value in arrays.items()}


@pytest.fixture(scope="module")
def quickly():
    """Nothing is run long enough to be worth optimizing."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


@pytest.fixture(scope="module")
def stored():
    return Memory()


@pytest.fixture(scope="module")
def tiny(quickly, stored):
    return study.run(TINY, store=stored)


# The net


def test_the_net_is_the_layers_it_says():
    network = lanes.net((4, 6), 10, jnp.asarray(0.7), jnp.asarray(0.5))
    x = np.random.default_rng(0).random((3, 8, 8, 1)).astype(np.float32)
    params, stats = network.init(jax.random.key(0), x)
    assert params["dense"]["kernel"].shape == (6 * 2 * 2, 10)
    a = x
    for layer in range(2):
        kernel = params[f"conv_{layer}"]["kernel"]
        a = jax.lax.conv_general_dilated(a, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        a = jnp.maximum(a, 0).reshape(3, a.shape[1] // 2, 2, a.shape[2] // 2, 2, -1).max((2, 4))
    exact = a.reshape(3, -1) @ params["dense"]["kernel"]
    y, _ = network.apply(params, stats, x, key=None, train=False)
    np.testing.assert_allclose(y, exact, rtol=1e-4, atol=1e-5)
    # Weights are He's times the gain: 9 * 4 inputs of 6 units, within four standard errors.
    std = float(jnp.std(params["conv_1"]["kernel"]))
    assert abs(std / (0.7 * math.sqrt(2 / 36)) - 1) < 4 / math.sqrt(2 * 9 * 4 * 6)


def test_dropout_keeps_the_mean_and_none_is_the_net_itself():
    x = np.random.default_rng(0).random((2, 4, 4, 1)).astype(np.float32)

    def outputs(rate, key):
        network = lanes.net((3,), 10, jnp.asarray(1.0), rate)
        params, stats = network.init(jax.random.key(0), x)
        return network.apply(params, stats, x, key=key, train=True)[0], network.apply(
            params, stats, x, key=None, train=False
        )[0]

    dropped, whole = jax.vmap(outputs, (None, 0))(jnp.asarray(0.4), jax.random.split(jax.random.key(1), 4000))
    error = np.std(dropped, axis=0) / math.sqrt(4000)
    assert (np.abs(np.mean(dropped, axis=0) - whole[0]) < 4.5 * error + 1e-6).all()
    assert np.std(dropped, axis=0).max() > 0.01
    same, whole = outputs(jnp.asarray(0.0), jax.random.key(1))
    np.testing.assert_array_equal(same, whole)


def test_smoothing_is_optax_smoothing():
    logits = np.random.default_rng(0).normal(size=(6, 10)).astype(np.float32)
    y = np.arange(6) % 10
    labels = optax.smooth_labels(jax.nn.one_hot(y, 10), 0.3)
    exact = optax.softmax_cross_entropy(logits, labels)
    np.testing.assert_allclose(lanes.smoothed(jnp.asarray(0.3))(logits, y), exact, rtol=1e-5)
    np.testing.assert_allclose(lanes.smoothed(jnp.asarray(0.0))(logits, y), losses.cross_entropy(logits, y), rtol=1e-6)


def test_the_rule_warms_up_decays_and_shrinks():
    h = {"learning_rate": 0.5, "damping": 1.0, "weight_decay": 0.1, "warm_up": jnp.asarray(4)}
    rule = lanes.rule(h, 20)
    params, state, moves = {"w": jnp.asarray(2.0)}, rule.init({"w": jnp.asarray(2.0)}), []
    for _ in range(20):
        update, state = rule.update({"w": jnp.asarray(1.0)}, state, params)
        moves.append(float(update["w"]))
    step = np.arange(20)
    rate = 0.5 * np.minimum(1, (step + 1) / 4) * 0.5 * (1 + np.cos(np.pi * step / 20))
    np.testing.assert_allclose(moves, -rate * (1 + 0.1 * 2.0), rtol=1e-5)


# A tiny run


def test_a_tiny_run_fills_every_panel(tiny):
    assert list(tiny.children) == ["searches", "reference", "tested", "asked_again"]
    assert dict(tiny["searches"].sizes) == {"sampler": 3, "seed": 2, "trial": 12}
    assert dict(tiny["tested"].sizes) == {"sampler": 3, "seed": 2, "run": 2}
    assert tiny["reference"].sizes["trial"] == 30
    searches = tiny["searches"].to_dataset()
    grid = searches.sel(sampler="grid")
    assert np.isfinite(grid["value"].values).sum() == 2  # one point each, and no more
    assert int(grid["diverged"].sum()) == 0
    assert set(lanes.MEANINGS) == set(lanes.space(TINY.steps)) <= set(searches)
    assert bool(tiny["asked_again"]["same"].all())
    for name in ("test_error", "validation_error"):
        assert ((tiny["tested"][name] >= 0) & (tiny["tested"][name] <= 1)).all()


def test_a_killed_study_resumes_to_the_same_results(tiny, stored):
    first, *_ = stored  # the searches' first batch; what was computed after it is lost
    again, monitor = Memory({first: stored[first]}), Monitor()
    resumed = study.run(TINY, store=again, monitor=monitor)
    assert (monitor.counts["resumed"], monitor.counts["chunks"]) == (1, len(stored) - 1)
    assert [*again] == [*stored]
    assert results.digest(resumed) == results.digest(tiny)


def test_searches_share_their_function(tiny):
    # Repeats of a grid of one point try the same one, and find the same.
    grid = tiny["searches"].to_dataset().sel(sampler="grid").isel(trial=0)
    assert grid["value"].values[0] == grid["value"].values[1]
    tested = tiny["tested"]["test_loss"].sel(sampler="grid")
    assert float(tested.isel(run=0, seed=0)) != float(tested.isel(run=1, seed=0))


def test_figures_and_report_are_made_of_it(tiny):
    assert set(study.plot(tiny)) == {"regret", "landscape", "tested"}
    rows = study.report(tiny)
    assert rows[-1].verdict == "holds"
    text = results.markdown_table(rows)
    assert "Bayesian search ends with a lower median regret than random search" in text
    assert "nan" not in text


def test_the_plan_counts_every_training():
    searches, reference, tested = study.plans(TINY)
    assert searches.sizes == {"search": 6, "trial": 12, "run": 1}
    assert reference.sizes == {"trial": 30, "run": 1}
    assert tested.sizes == {"search": 6, "run": 2}
    assert min(p.run_seconds for p in (searches, reference, tested)) > 0
    assert "searches: 72 lanes" in str(searches)


# Measures


def _tree(bayesian, random, reference=(0.5, 3.0)):
    """Results of a study in which searches of three trials had these values, (seeds, 3)."""
    value = np.array([random, bayesian], float)
    searches = dict.fromkeys(lanes.MEANINGS, (("sampler", "seed", "trial"), np.ones_like(value)))
    searches |= {"value": (("sampler", "seed", "trial"), value)}
    searches |= {"diverged": (("sampler", "seed", "trial"), np.isnan(value))}
    coords = {"sampler": ["random", "bayesian"], "seed": range(value.shape[1])}
    tested = dict.fromkeys(("test_error", "validation_loss"), (("sampler", "seed", "run"), value[..., -1:]))
    return xr.DataTree.from_dict({
        "searches": xr.Dataset(searches, coords), "reference": xr.Dataset({"value": ("trial", list(reference))}),
        "tested": xr.Dataset(tested, coords), "asked_again": xr.Dataset({"same": ("seed", [True] * value.shape[1])}),
    })  # fmt: skip


def test_regret_is_above_the_least_of_all_trials():
    tree = _tree([[math.nan, 2.0, 0.4], [1.0, 3.0, 0.6]], [[3.0, math.nan, 2.0], [2.0, 2.5, 1.0]])
    assert reporting.best_known(tree) == 0.4
    found = reporting.regrets(tree)
    np.testing.assert_allclose(found["bayesian"], [[math.inf, 1.6, 0.0], [0.6, 0.6, 0.2]])
    np.testing.assert_allclose(found["random"], [[2.6, 2.6, 1.6], [1.6, 1.6, 0.6]])
    assert reporting.best_known(_tree([[1.0] * 3] * 2, [[1.0] * 3] * 2)) == 0.5


def test_verdicts_follow_the_numbers():
    rng = np.random.default_rng(0)
    low, high = 1 + 0.1 * rng.random((10, 3)), 2 + 0.1 * rng.random((10, 3))
    for bayesian, random, said in ((low, high, "holds"), (high, low, "fails"), (low, low[::-1], "open")):
        (row,) = [row for row in reporting.report(_tree(bayesian, random)) if "median regret" in row.quantity]
        assert row.verdict == said
        assert row.seeds == 10


def test_the_interval_of_a_median_has_its_probability():
    # Of 10 samples the second and ninth: 1 - 2 * 11 / 1024 = 97.9 %; the third and eighth hold 89 %.
    assert reporting.median_interval(np.arange(10.0)) == "[1, 8]"
    assert reporting.median_interval(np.arange(5.0)) == "-"
    draws = np.random.default_rng(0).normal(size=(4000, 10))
    inside = [float(t[0]) < 0 < float(t[1]) for t in (reporting.median_interval(d)[1:-1].split(", ") for d in draws)]
    assert abs(np.mean(inside) - 0.9785) < 4 * math.sqrt(0.9785 * 0.0215 / 4000)


def test_equivalent_trials_are_those_of_which_half_get_as_far():
    values = np.random.default_rng(0).random(100_000)
    needed = reporting.equivalent_trials(0.01, values)
    assert needed == pytest.approx(math.log(0.5) / math.log(0.99), rel=0.1)
    best = np.median(np.random.default_rng(1).random((4000, round(needed))).min(axis=1))
    assert best == pytest.approx(0.01, rel=0.1)
    assert reporting.equivalent_trials(-1.0, values) == math.inf
    assert reporting.equivalent_trials(2.0, values) == 1.0
    half = np.append(values, np.full(100_000, math.nan))  # divergence counts as a trial
    assert reporting.equivalent_trials(0.01, half) == pytest.approx(2 * needed, rel=0.02)


def test_the_best_so_far_agrees_with_the_searchs_own(tiny):
    from nnjax.search import Trial

    searches = tiny["searches"].to_dataset().sel(sampler="random")
    own = reporting.best_so_far(tiny["searches"].to_dataset())[1]
    for line, values in zip(own, searches["value"].transpose("seed", "trial").values, strict=True):
        np.testing.assert_array_equal(line, best_so_far([Trial({}, value) for value in values]))


# Bad input


BAD = {
    "one seed": ({"seeds": 1}, "seeds=1 must be at least 2"),
    "no trials": ({"trials": 0}, "trials=0 must be at least 2"),
    "no batch": ({"batch": 0}, "batch=0 must be at least 1"),
    "unknown sampler": ({"samplers": ("random", "baysian")}, "did you mean 'bayesian'"),
    "nothing to compare": ({"samplers": ("grid", "sobol")}, "must hold random and bayesian"),
    "a sampler twice": ({"samplers": ("random", "bayesian", "random")}, "each sampler once"),
    "unknown data": ({"data": "iris"}, "data='iris' must be among digits"),
    "no features": ({"features": ()}, "features=\\(\\) must be one to three"),
    "too large a batch": ({"train_batch": 300}, "train_batch=300 must be at most n=256"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_configurations_are_one_sentence(name):
    changes, text = BAD[name]
    with pytest.raises(ValueError, match=text):
        study.Config(**changes)


def test_more_examples_than_there_are_is_one_sentence():
    with pytest.raises(command.BadInput, match="n=1200 and validation_n=500 are more than the 1438 training examples"):
        study.plans(study.Config(n=1200))


@pytest.mark.slow
def test_quick_shows_what_the_study_claims(tmp_path):
    """The falsifiable checks of the study, on the default command."""
    assert study.main(["--out", str(tmp_path / "quick")]) == 0
    tree = results.read_tree(tmp_path / "quick" / "results.nc")
    rows = {row.claim: row for row in study.report(tree)}
    said = rows["Bayesian search ends with a lower median regret than random search"]
    assert said.seeds >= 10
    assert said.verdict == "holds", said
    assert rows["asked again from its list of trials, a search gives the same points"].verdict == "holds"
    final = {name: np.median(regret[:, -1]) for name, regret in reporting.regrets(tree).items()}
    assert final["bayesian"] < min(final["random"], final["sobol"], final["grid"])
