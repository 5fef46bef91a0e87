"""Hyper-parameter search: its Gaussian process against dense formulas, its samplers one by one, and whole searches."""

import inspect
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.stats
from scipy.stats import qmc
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

from nnjax import results, search
from nnjax.monitor import Monitor
from nnjax.search import Choice, Float, Integer, Trial
from nnjax.search import gaussian_process as gp
from nnjax.search.bayesian import targets
from nnjax.search.space import coordinates, encode, units

SPACE = {
    "rate": Float(1e-4, 1.0, log=True), "dropout": Float(0.0, 0.8), "units": Integer(1, 64, log=True),
    "layers": Integer(-1, 2), "kind": Choice(("relu", "tanh", "elu")),
}  # fmt: skip
SQUARE = {"x": Float(-5.0, 10.0), "y": Float(0.0, 15.0)}
KEY = jax.random.key(0)


def branin(key, hparams, data):
    """Three equal minima of 0 (Branin and Hoo, 1972)."""
    x, y = hparams["x"], hparams["y"]
    bowl = (y - 5.1 / (4 * jnp.pi**2) * x**2 + 5 / jnp.pi * x - 6) ** 2
    return {"validation_loss": bowl + 10 * (1 - 1 / (8 * jnp.pi)) * jnp.cos(x) + 10 - 0.397887}


HARTMANN = {f"x{i}": Float(0.0, 1.0) for i in range(6)}
WIDTHS = np.array([[10, 3, 17, 3.5, 1.7, 8], [0.05, 10, 17, 0.1, 8, 14], [3, 3.5, 1.7, 10, 17, 8],
                   [17, 8, 0.05, 10, 0.1, 14]])  # fmt: skip
CENTERS = 1e-4 * np.array([[1312, 1696, 5569, 124, 8283, 5886], [2329, 4135, 8307, 3736, 1004, 9991],
                           [2348, 1451, 3522, 2883, 3047, 6650], [4047, 8828, 8732, 5743, 1091, 381]])  # fmt: skip


def hartmann(key, hparams, data):
    """Six dimensions, six minima, of which one is 0 (Hartman, 1973)."""
    x = jnp.stack([hparams[name] for name in HARTMANN])
    depth = jnp.exp(-jnp.sum(jnp.asarray(WIDTHS) * (x[None] - jnp.asarray(CENTERS)) ** 2, axis=1))
    return {"validation_loss": 3.32237 - jnp.asarray([1, 1.2, 3, 3.2]) @ depth}


def told(space, values, sampler="random"):
    """Trials with these values."""
    points = search.ask(space, (), len(values), sampler=sampler, seed=5)
    return tuple(Trial(point, value) for point, value in zip(points, values, strict=True))


def trials_of(found):
    return [(tuple(t.hparams.values()), t.value) for t in found.trials]


# Gaussian process


def _problem(n=25, d=3, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.random((n, d))
    y = np.sin(4 * x[:, 0]) + x[:, 1] ** 2 + 0.1 * rng.normal(size=n)
    kernel = gp.Kernel(np.array([0.3, 0.8, 2.0]), 1.7, 0.05)
    return x, y - y.mean(), rng.random((40, d)), kernel


def test_the_posterior_is_the_dense_formula():
    x, y, at, kernel = _problem()

    def covariance(a, b):
        r = np.sqrt((((a[:, None] - b[None]) / kernel.lengths) ** 2).sum(-1))
        return kernel.signal * (1 + np.sqrt(5) * r + 5 / 3 * r**2) * np.exp(-np.sqrt(5) * r)

    inverse = np.linalg.inv(covariance(x, x) + kernel.noise * np.eye(len(x)))
    across = covariance(x, at)
    mean, deviation = gp.posterior(gp.condition(x, y, np.arange(3), kernel), at)
    np.testing.assert_allclose(mean, across.T @ inverse @ y, rtol=1e-9, atol=1e-10)
    np.testing.assert_allclose(deviation**2, np.diag(covariance(at, at) - across.T @ inverse @ across), rtol=1e-8)


def test_posterior_and_likelihood_are_those_of_scikit_learn():
    x, y, at, kernel = _problem()
    parts = ConstantKernel(kernel.signal) * Matern(kernel.lengths, nu=2.5) + WhiteKernel(kernel.noise)
    model = GaussianProcessRegressor(parts, optimizer=None, alpha=0.0).fit(x, y)
    mean, deviation = model.predict(at, return_std=True)
    own = gp.posterior(gp.condition(x, y, np.arange(3), kernel), at)
    np.testing.assert_allclose(own[0], mean, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(own[1] ** 2, deviation**2 - kernel.noise, rtol=1e-7)  # theirs is that of new targets
    logs = np.log([*kernel.lengths, kernel.signal, kernel.noise])
    value, _ = gp.log_likelihood(logs, gp.squared_differences(x, np.arange(3)), y)
    np.testing.assert_allclose(value, model.log_marginal_likelihood_value_, rtol=1e-10)


def test_the_likelihoods_gradient_is_its_slope():
    x, y, _, kernel = _problem()
    squares = gp.squared_differences(x, np.array([0, 0, 1]))  # two columns share a length
    logs = np.log([*kernel.lengths[:2], kernel.signal, kernel.noise])
    _, slope = gp.log_likelihood(logs, squares, y)
    for i, step in enumerate(1e-5 * np.eye(4)):
        high, low = (gp.log_likelihood(logs + sign * step, squares, y)[0] for sign in (1, -1))
        np.testing.assert_allclose(slope[i], (high - low) / 2e-5, rtol=1e-6, atol=1e-7)


def test_a_fit_finds_which_dimensions_matter_and_how_noisy_targets_are():
    rng = np.random.default_rng(3)
    x = rng.random((60, 3))
    y = np.sin(6 * x[:, 0]) + 0.1 * rng.normal(size=60)
    kernel = gp.fit(x, (y - y.mean()) / y.std(), np.arange(3))
    assert kernel.lengths[0] < 0.5 * kernel.lengths[1:].min()
    assert 0.005 < kernel.noise < 0.08  # 0.01 over the variance of y, about 0.5
    again = gp.fit(x, (y - y.mean()) / y.std(), np.arange(3))
    np.testing.assert_array_equal(again.lengths, kernel.lengths)


@pytest.mark.parametrize(("mean", "deviation", "best"), [(0.0, 1.0, 0.5), (2.0, 0.5, 1.5), (-1.0, 2.0, -1.0)])
def test_expected_improvement_is_what_draws_improve_by(mean, deviation, best):
    draws = np.maximum(best - np.random.default_rng(0).normal(mean, deviation, 400_000), 0)
    exact = gp.expected_improvement(np.array([mean]), np.array([deviation]), best)[0]
    assert abs(exact - draws.mean()) < 4 * draws.std() / math.sqrt(len(draws))


def test_log_expected_improvement_goes_on_where_the_number_ends():
    z = np.array([3.0, 0.0, -0.99, -1.01, -3.0, -6.0])
    near = gp.expected_improvement(-z, np.ones(6), 0.0)
    np.testing.assert_allclose(gp.log_expected_improvement(-z, np.ones(6), 0.0), np.log(near), rtol=1e-9)
    for far in (-20.0, -40.0):  # the integral of the tail's decay from the edge on, by quadrature
        tail, _ = scipy.integrate.quad(lambda t, far=far: t * math.exp(far * t - t * t / 2), 0, np.inf)
        exact = -0.5 * far**2 - 0.5 * math.log(2 * math.pi) + math.log(tail)
        np.testing.assert_allclose(gp.log_expected_improvement(np.array([-far]), np.ones(1), 0.0), exact, rtol=1e-6)
    line = gp.log_expected_improvement(np.array([1e2, 1e3, 2e3, 1e5]), np.ones(4), 0.0)
    assert (np.diff(line) < 0).all()
    assert np.isfinite(line).all()


def test_targets_take_divergence_as_bad_and_no_worse():
    y = targets([1.0, 2.0, 3.0, math.nan, math.inf, 1e9])
    assert np.isfinite(y).all()
    assert y[3] == y[4] == y[5] > y[2] > y[1] > y[0]
    np.testing.assert_allclose([y.mean(), y.std()], [0, 1], atol=1e-12)
    assert (targets([math.nan, math.nan]) == 0).all()
    assert (targets([2.0, 2.0]) == 0).all()


# Space


def test_values_go_to_coordinates_and_back():
    u = np.random.default_rng(0).random((200, len(SPACE)))
    points = [search.space.decode(SPACE, row) for row in u]
    x, groups = encode(SPACE, points)
    assert groups.tolist() == [0, 1, 2, 3, 4, 4, 4]
    np.testing.assert_allclose(coordinates(SPACE, u), x, atol=1e-12)
    again = [search.space.decode(SPACE, row) for row in units(SPACE, x, groups)]
    for one, other in zip(points, again, strict=True):
        assert one.pop("kind") == other.pop("kind")
        assert one == pytest.approx(other, rel=1e-9)
    assert {p["layers"] for p in points} == {-1, 0, 1, 2}
    for name, dimension in SPACE.items():
        ends = [dimension.decode(0.0), dimension.decode(1.0)]
        if isinstance(dimension, Choice):
            assert ends == ["relu", "elu"]
        else:
            assert ends == pytest.approx([dimension.low, dimension.high], rel=1e-12), name
            assert min(ends) >= dimension.low


def test_a_run_gets_numbers():
    assert Choice(("a", "b")).traced("b") == 1
    assert Choice((1, 2.5)).traced(1) == 1.0
    assert isinstance(Choice((1, 2.5)).traced(1), float)
    assert Choice((16, 32)).traced(32) == 32
    assert Choice((False, True)).traced(True) is True


BAD_SPACES = {
    "low above high": (lambda: Float(1.0, 0.1), "low=1.0 of a Float must be below high=0.1"),
    "equal ends": (lambda: Integer(3, 3), "low=3 of an Integer must be below high=3"),
    "not finite": (lambda: Float(0.0, math.inf), "must be below high=inf, both finite"),
    "log of zero": (lambda: Float(0.0, 1.0, log=True), "low=0.0 must be positive where log is set"),
    "log of a negative integer": (lambda: Integer(-1, 3, log=True), "low=-1 must be positive where log is set"),
    "half an integer": (lambda: Integer(0.5, 3), "low=0.5 of an Integer must be a whole number"),
    "empty choice": (lambda: Choice(()), "values of a Choice are empty"),
    "a choice twice": (lambda: Choice((1, 1)), "name one twice"),
    "empty space": (lambda: search.ask({}), "must be a dict with at least one hyper-parameter"),
    "a bare tuple": (lambda: search.ask({"x": (0, 1)}), r"space\['x'\]=\(0, 1\) must be a Float"),
    "the seed's name": (lambda: search.ask({"seed": Float(0, 1)}), "other than 'seed'"),
}


@pytest.mark.parametrize("name", BAD_SPACES)
def test_bad_spaces_are_one_sentence(name):
    call, text = BAD_SPACES[name]
    with pytest.raises(ValueError, match=text):
        call()


# Samplers


def test_a_grid_covers_every_combination_once():
    points = search.ask(SPACE, (), 1000, sampler=search.Grid(levels=3), seed=1)
    axes = [dimension.levels(3) for dimension in SPACE.values()]
    assert axes[0] == pytest.approx([1e-4, 1e-2, 1.0])
    assert axes[2] == [1, 6, 64]
    assert axes[4] == ["relu", "tanh", "elu"]
    assert len(points) == 3**5
    assert {tuple(p.values()) for p in points} == {tuple(p) for p in np.stack(
        [np.array(g, object).ravel() for g in np.meshgrid(*[np.array(a, object) for a in axes], indexing="ij")], 1
    ).tolist()}  # fmt: skip
    # Cut anywhere, the rest follows; and the order is the seed's.
    first = tuple(Trial(point, 0.0) for point in points[:100])
    assert search.ask(SPACE, first, 1000, sampler=search.Grid(3), seed=1) == points[100:]
    assert search.ask(SPACE, (), 5, sampler=search.Grid(3), seed=2) != points[:5]
    with pytest.raises(ValueError, match="more than a million"):
        search.ask({f"x{i}": Float(0, 1) for i in range(8)}, (), 1, sampler=search.Grid(6))


def test_random_draws_have_their_distributions():
    points = search.ask(SPACE, (), 3000, sampler="random", seed=0)

    def column(name):
        return np.array([p[name] for p in points])

    # One fixed seed and five tests: 0.001 would be passed by one wrong seed of two hundred.
    assert scipy.stats.kstest(column("rate"), scipy.stats.loguniform(1e-4, 1).cdf).pvalue > 1e-3
    assert scipy.stats.kstest(column("dropout"), scipy.stats.uniform(0, 0.8).cdf).pvalue > 1e-3
    for name, values in (("layers", [-1, 0, 1, 2]), ("kind", ["relu", "tanh", "elu"])):
        counts = [(column(name) == value).sum() for value in values]
        assert sum(counts) == 3000
        assert scipy.stats.chisquare(counts).pvalue > 1e-3
    edges = np.log(np.arange(0.5, 65.0))
    counts = np.bincount(column("units"), minlength=65)[1:]
    assert scipy.stats.chisquare(counts, 3000 * np.diff(edges) / (edges[-1] - edges[0])).pvalue > 1e-3


def test_sobol_points_are_those_of_scipy():
    points = search.ask(SQUARE, (), 13, sampler="sobol", seed=4)
    name = "rng" if "rng" in inspect.signature(qmc.Sobol).parameters else "seed"
    exact = qmc.Sobol(2, scramble=True, **{name: np.random.default_rng(4)}).random(16)[:13]
    np.testing.assert_allclose([list(p.values()) for p in points], exact * 15 + [-5, 0], rtol=1e-12)
    fine = np.array([list(p.values()) for p in search.ask(SQUARE, (), 64, sampler="sobol", seed=4)])
    cells = np.floor((fine - [-5, 0]) / 15 * 8)
    assert len({*map(tuple, cells)}) == 64  # one in each of 8 x 8


SAMPLERS = ("grid", "random", "sobol", "bayesian", "tpe")


@pytest.fixture(params=SAMPLERS)
def sampler(request):
    if request.param == "tpe":
        pytest.importorskip("optuna")
    return request.param


def test_asking_is_pure_and_a_batch_has_no_point_twice(sampler):
    values = [math.nan, *np.linspace(3, 1, 13)]
    before = told(SPACE, values)
    first = search.ask(SPACE, before, 6, sampler=sampler, seed=7)
    assert search.ask(SPACE, before, 6, sampler=sampler, seed=7) == first
    assert search.ask(SPACE, list(before), 6, sampler=search.by_name(sampler), seed=7) == first
    assert search.ask(SPACE, before, 6, sampler=sampler, seed=8) != first
    every = [tuple(p.values()) for p in first] + [tuple(t.hparams.values()) for t in before]
    assert len(set(every)) == 20
    assert all(list(p) == list(SPACE) for p in first)
    for point in first:
        for name, dimension in SPACE.items():
            if isinstance(dimension, Choice):
                assert point[name] in dimension.values
            else:
                assert dimension.low <= point[name] <= dimension.high
                assert isinstance(point[name], int) == isinstance(dimension, Integer)


def test_a_small_space_is_used_up_and_no_more(sampler):
    small = {"n": Integer(1, 3), "on": Choice((False, True))}
    made = []
    for _ in range(4):
        rule = search.Grid(levels=3) if sampler == "grid" else sampler
        points = search.ask(small, made, 2, sampler=rule, seed=3)
        made += [Trial(p, float(p["n"])) for p in points]
    assert sorted(tuple(t.hparams.values()) for t in made) == [(n, on) for n in (1, 2, 3) for on in (False, True)]


def test_known_points_are_known_in_any_order_of_their_names(sampler):
    small = {"n": Integer(1, 2), "layers": Choice(([8], [8, 8]))}
    rule = search.Grid(levels=2) if sampler == "grid" else sampler
    # As a user may have them, from JSON say: other names first, and a list, which has no hash.
    known = [Trial({"layers": layers, "n": n}, float(n)) for n in (1, 2) for layers in ([8], [8, 8])]
    assert search.ask(small, known, 2, sampler=rule, seed=3) == []
    assert search.ask(small, known[1:], 2, sampler=rule, seed=3) == [{"n": 1, "layers": (8,)}]


def test_a_batch_of_a_bayesian_search_spreads_out():
    # Without the lie all would lie at the one point of the greatest improvement.
    before = [Trial(p, (p["x"] - 3) ** 2 + (p["y"] - 5) ** 2) for p in search.ask(SQUARE, (), 12, sampler="sobol")]
    batch = search.ask(SQUARE, before, 4, seed=1)
    x = encode(SQUARE, batch)[0]
    apart = np.linalg.norm(x[:, None] - x[None], axis=-1)[np.triu_indices(4, 1)]
    assert apart.min() > 1e-3
    # The first one has understood the bowl.
    assert abs(batch[0]["x"] - 3) < 1.5
    assert abs(batch[0]["y"] - 5) < 1.5


def test_the_starts_of_bayesian_searches_are_sobol_points():
    start = search.ask(SQUARE, (), 4, sampler="bayesian", seed=6)
    assert start == search.ask(SQUARE, (), 4, sampler="sobol", seed=6)
    told_four = [Trial(p, p["x"]) for p in start]
    assert search.ask(SQUARE, told_four, 1, sampler="bayesian", seed=6) != search.ask(
        SQUARE, told_four, 1, sampler="sobol", seed=6
    )
    late = search.Bayesian(initial=5)
    assert search.ask(SQUARE, told_four, 1, sampler=late, seed=6) == search.ask(
        SQUARE, told_four, 1, sampler="sobol", seed=6
    )


def test_bad_asks_are_one_sentence():
    with pytest.raises(ValueError, match=r"sampler 'baysian' is not one of .*; did you mean 'bayesian'"):
        search.ask(SQUARE, sampler="baysian")
    with pytest.raises(ValueError, match=r"sampler 'grid' has no option 'level': its options are levels"):
        search.by_name("grid", level=3)
    with pytest.raises(ValueError, match="count=0 must be a positive integer"):
        search.ask(SQUARE, (), 0)
    for name, option in (("grid", "levels"), ("bayesian", "initial"), ("bayesian", "candidates"), ("tpe", "initial")):
        with pytest.raises(ValueError, match=f"{option}=0 must be a positive integer"):
            search.by_name(name, **{option: 0})


def test_without_optuna_tpe_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "optuna", None)
    with pytest.raises(ImportError, match=r"pip install 'nnjax\[search\]'"):
        search.ask(SQUARE, sampler="tpe")


# Searches


FUNCTIONS = {"branin": (branin, SQUARE, 24, 0.5), "hartmann": (hartmann, HARTMANN, 36, 0.6)}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_bayesian_search_beats_random_search(name):
    """Over 8 seeds; measured over 10, medians 0.15 against 3.2 (Branin) and 0.12 against 1.6 (Hartmann, 48 trials)."""
    function, space, trials, most = FUNCTIONS[name]
    found = search.compare(
        function, space, samplers={"random": "random", "bayesian": "bayesian"}, repeats=8, trials=trials, batch=4,
        key=KEY,
    )  # fmt: skip
    ends = {name: np.array([search.best_so_far(each.trials)[-1] for each in own]) for name, own in found.items()}
    assert np.median(ends["bayesian"]) < most
    assert np.median(ends["bayesian"]) < 0.5 * np.median(ends["random"])
    # If both were the same, so small a p would come up once in a hundred seeds.
    assert scipy.stats.mannwhitneyu(ends["bayesian"], ends["random"], alternative="less").pvalue < 0.01


def noisy(key, hparams, data):
    """A bowl in one parameter, of which a part diverges, with noise of the lane's key."""
    rate = hparams["rate"]
    noise = 0.01 * jax.random.normal(key)
    loss = (jnp.log10(rate) + 2) ** 2 + 1.0 * hparams["kind"] + noise
    return {"validation_loss": jnp.where(rate > 0.3, jnp.nan, loss), "offset": data["offset"] + jnp.stack([rate, rate])}


NOISY = {"rate": Float(1e-4, 1.0, log=True), "kind": Choice(("a", "b"))}
DATA = {"offset": np.float32(1.0)}


@pytest.fixture(scope="module")
def found():
    return search.search(
        noisy, NOISY, sampler="bayesian", trials=14, batch=4, key=KEY, data=DATA, seeds=3
    )  # fmt: skip


def test_a_search_fills_a_table(found):
    assert len(found.trials) == 14
    assert found.batches.tolist() == [0] * 4 + [1] * 4 + [2] * 4 + [3] * 2
    assert found.results["validation_loss"].shape == (14, 3)
    assert found.results["offset"].shape == (14, 3, 2)
    table = found.table()
    assert dict(table.sizes) == {"trial": 14, "seed": 3, "offset_0": 2}
    assert set(table["kind"].values) <= {"a", "b"}
    np.testing.assert_allclose(table["offset"].isel(seed=1, offset_0=0), 1 + table["rate"], rtol=1e-6)
    np.testing.assert_allclose(table["value"], table["validation_loss"].mean("seed"), rtol=1e-6)
    assert abs(math.log10(found.best.hparams["rate"]) + 2) < 0.3
    assert found.best.hparams["kind"] == "a"


def test_a_value_is_the_mean_over_seeds_whose_keys_all_trials_share(found):
    noise = [float(0.01 * jax.random.normal(jax.random.fold_in(KEY, seed))) for seed in range(3)]
    for trial, losses in zip(found.trials, found.results["validation_loss"], strict=True):
        rate, kind = trial.hparams["rate"], ("a", "b").index(trial.hparams["kind"])
        if rate > 0.3:
            assert np.isnan(losses).all()
            assert math.isnan(trial.value)
        else:
            exact = (math.log10(rate) + 2) ** 2 + 1.0 * kind + np.array(noise)
            np.testing.assert_allclose(losses, exact, atol=1e-5)
            assert trial.value == pytest.approx(losses.mean(), rel=1e-6)


def test_divergence_ranks_last():
    best = search.search(
        noisy, {"rate": Float(0.1, 0.5), "kind": Choice((0, 1))}, sampler="random", trials=12, batch=6, key=KEY,
        data=DATA,
    )  # fmt: skip
    values = np.array([t.value for t in best.trials])
    assert 0 < np.isnan(values).sum() < 12
    assert best.best.value == np.nanmin(values)
    line = search.best_so_far(best.trials)
    assert line[-1] == np.nanmin(values)
    assert (np.diff(line[np.isfinite(line)]) <= 0).all()
    assert search.ranked([math.nan, -math.inf, 1.0]).tolist() == [math.inf, math.inf, 1.0]


class Cut(Exception):
    """The plug is pulled."""


class Memory:
    """A store that fails after so many batches."""

    def __init__(self, until=None):
        self.kept, self.until = {}, until

    def load(self, identity):
        return self.kept.get(identity)

    def save(self, identity, arrays, facts):
        if self.until is not None and len(self.kept) == self.until:
            raise Cut
        self.kept[identity] = {name: np.array(value) for name, value in arrays.items()}


def test_a_killed_search_goes_on_to_the_same_trials(found):
    store = Memory(until=2)
    again = {"sampler": "bayesian", "batch": 4, "key": KEY, "data": DATA, "seeds": 3, "store": store}
    with pytest.raises(Cut):
        search.search(noisy, NOISY, trials=14, **again)
    store.until = None
    monitor = Monitor()
    resumed = search.search(noisy, NOISY, trials=14, monitor=monitor, **again)
    assert (monitor.counts["resumed"], monitor.counts["chunks"], monitor.counts["programs"]) == (2, 2, 1)
    np.testing.assert_equal(trials_of(resumed), trials_of(found))
    np.testing.assert_array_equal(resumed.results["offset"], found.results["offset"])
    # With more trials it goes on; another key is another search.
    monitor = Monitor()
    search.search(noisy, NOISY, trials=16, monitor=monitor, **again)
    assert (monitor.counts["resumed"], monitor.counts["chunks"]) == (3, 1)
    monitor = Monitor()
    search.search(noisy, NOISY, trials=4, monitor=monitor, **(again | {"key": jax.random.key(1)}))
    assert monitor.counts["resumed"] == 0


def test_a_results_folder_keeps_a_search(tmp_path, found):
    call = {"sampler": "bayesian", "trials": 14, "batch": 4, "key": KEY, "data": DATA, "seeds": 3}
    path = tmp_path / "found"
    made = search.search(noisy, NOISY, path=path, **call)
    table = results.read_tree(path / "trials.nc")
    np.testing.assert_array_equal(table["value"], [t.value for t in found.trials])
    monitor = Monitor()
    again = search.search(noisy, NOISY, path=path, monitor=monitor, **call)
    assert (monitor.counts["resumed"], monitor.counts["chunks"]) == (4, 0)
    np.testing.assert_equal(trials_of(again), trials_of(made))
    with pytest.raises(results.ResultsError, match=r"belongs to another run.*batch 4 there, 2 now"):
        search.search(noisy, NOISY, path=path, **(call | {"batch": 2}))


def test_searches_side_by_side_are_the_searches_alone():
    samplers = {"grid": search.Grid(levels=2), "random": "random", "bayesian": "bayesian"}
    shared = {"trials": 9, "batch": 3, "key": KEY, "data": DATA}
    monitor = Monitor()
    both = search.compare(noisy, NOISY, samplers=samplers, repeats=2, monitor=monitor, **shared)
    assert monitor.counts["programs"] == 1
    assert [len(each.trials) for each in both["grid"]] == [4, 4]  # used up
    assert trials_of(both["random"][0]) != trials_of(both["random"][1])
    for name, rule in samplers.items():
        alone = search.search(noisy, NOISY, sampler=rule, **shared)
        if name == "bayesian":  # two Sobol batches, before four trials are known: of no value's making
            starts = [[trial.hparams for trial in each.trials[:6]] for each in (alone, both[name][0])]
            assert starts[0] == starts[1]
        for one, other in zip(alone.trials, both[name][0].trials, strict=True):
            if name != "bayesian":  # its points follow the values, and so their last bits
                assert one.hparams == other.hparams
            np.testing.assert_allclose(one.value, other.value, rtol=0.05 if name == "bayesian" else 1e-5, atol=1e-5)


def test_memory_that_is_short_makes_a_batch_narrower():
    wide = {"scale": Float(0.5, 1.0)}

    def run(key, hparams, data):
        return {"validation_loss": jnp.sum(jnp.linalg.matrix_power(hparams["scale"] * jnp.eye(64), 5))}

    call = {"sampler": "random", "trials": 8, "batch": 8, "key": KEY}
    free = search.search(run, wide, **call)
    short = search.search(run, wide, memory_budget=100_000, **call)
    np.testing.assert_allclose([t.value for t in short.trials], [t.value for t in free.trials], rtol=1e-5)
    with pytest.raises(MemoryError, match="one run needs"):
        search.search(run, wide, memory_budget=100, **call)


def split_run(key, hparams, data):
    """As a training run does: a result for every split in the data."""
    gap = {name: (hparams["rate"] - target) ** 2 for name, target in data.items()}
    return {f"{name}_loss": value + 0.001 * jax.random.uniform(key) for name, value in gap.items()}


def test_the_test_split_is_seen_once_and_by_the_chosen_alone():
    space, data = {"rate": Float(0.0, 1.0)}, {"validation": np.float32(0.3), "test": np.float32(0.4)}
    call = {"sampler": "sobol", "trials": 8, "batch": 4, "key": KEY}
    with pytest.raises(ValueError, match="split 'test', which a search must not see; give it to test_once"):
        search.search(split_run, space, data=data, **call)
    seen = {"validation": data["validation"]}
    found = search.search(split_run, space, data=seen, **call)
    with pytest.raises(ValueError, match="a dict with a split 'test'"):
        search.test_once(split_run, found, key=KEY, data=seen)
    with pytest.raises(ValueError, match="seeds=0 must be a positive integer"):
        search.test_once(split_run, found, key=KEY, data=data, seeds=0)
    with pytest.raises(ValueError, match="found is empty"):
        search.test_once(split_run, [], key=KEY, data=data)
    store = Memory()
    tested = search.test_once(split_run, found, key=jax.random.key(1), data=data, seeds=2, store=store)
    assert tested["test_loss"].shape == (2,)
    np.testing.assert_allclose(tested["test_loss"], (found.best.hparams["rate"] - 0.4) ** 2, atol=0.0011)
    monitor = Monitor()
    again = search.test_once(split_run, found, key=jax.random.key(1), data=data, seeds=2, store=store, monitor=monitor)
    assert monitor.counts["resumed"] == 1
    np.testing.assert_array_equal(again["test_loss"], tested["test_loss"])
    both = search.test_once(split_run, [found, found], key=jax.random.key(1), data=data, seeds=2)
    np.testing.assert_allclose(both["test_loss"], [tested["test_loss"]] * 2, rtol=1e-5)


BAD_SEARCHES = {
    "no trials": ({"trials": 0}, "trials=0 must be a positive integer"),
    "half a batch": ({"batch": 0.5}, "batch=0.5 must be a positive integer"),
    "no seeds": ({"seeds": 0}, "seeds=0 must be a positive integer"),
    "unknown sampler": ({"sampler": "grit"}, "sampler 'grit' is not one of .*did you mean 'grid'"),
    "a store and a path": ({"store": Memory(), "path": "there"}, "either store or path, not both"),
}


@pytest.mark.parametrize("name", BAD_SEARCHES)
def test_bad_searches_are_one_sentence(name):
    changes, text = BAD_SEARCHES[name]
    with pytest.raises(ValueError, match=text):
        search.search(branin, SQUARE, **({"trials": 4, "key": KEY} | changes))


def test_a_run_without_a_validation_loss_is_refused_before_it_is_compiled():
    monitor = Monitor()
    for run, text in (
        (lambda key, hparams, data: {"loss": hparams["x"]}, r"run must return 'validation_loss'.*not only \['loss'\]"),
        (lambda key, hparams, data: {"validation_loss": jnp.ones(3)}, r"of shape \(3,\) must be a scalar"),
    ):
        with pytest.raises(ValueError, match=text):
            search.search(run, SQUARE, trials=4, key=KEY, monitor=monitor)
    with pytest.raises(ValueError, match="samplers is empty"):
        search.compare(branin, SQUARE, samplers={}, repeats=2, trials=4, key=KEY)
    with pytest.raises(ValueError, match="repeats=0 must be a positive integer"):
        search.compare(branin, SQUARE, samplers={"a": "random"}, repeats=0, trials=4, key=KEY)
    assert monitor.counts["programs"] == 0
