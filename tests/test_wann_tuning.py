"""After a search: champions, shared weights, training and the table, on tasks whose right answers are known."""

import dataclasses
import functools
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax, softmax

from nnjax.data import Split
from nnjax.statistics import t_interval
from nnjax.wann import tuning
from nnjax.wann.course import Config, State
from nnjax.wann.evaluation import trajectory
from nnjax.wann.genome import DISABLED, ENABLED, Genome, Space, forward, from_dense
from nnjax.wann.tasks import Regression, xor
from nnjax.wann.tasks.classification import Classification, Parts
from nnjax.wann.training import descend_weights, evolve_weights

key = jax.random.key


@pytest.fixture(scope="module", autouse=True)
def unoptimized():
    """Programs that run for milliseconds are compiled several times faster so."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


class Constants(NamedTuple):
    dt: float = 0.1


@dataclasses.dataclass(frozen=True)
class Puck:
    """To bring a puck to rest in the middle of a table."""

    inputs, outputs, steps, params = 2, 1, 40, Constants()

    def reset(self, params, key):
        position, velocity = jax.random.normal(key, (2,))
        return position, velocity

    def observe(self, params, state):
        return jnp.stack(state)

    def step(self, params, state, action):
        position, velocity = state
        push = jnp.clip(action[0], -3, 3)
        position, velocity = position + params.dt * velocity, velocity + params.dt * push
        return (position, velocity), 1 - jnp.abs(position), jnp.abs(position) > 4


class Target(NamedTuple):
    goal: float = np.inf
    noise: float = 0.0
    beyond: float = np.nan


NOTHING = Target()


@dataclasses.dataclass(frozen=True)
class Bandit:
    """Returns the output y for an input of ones, or -(y - goal)^2; NaN, or ``beyond``, from 8 on."""

    inputs, outputs = 3, 1
    params: Target = NOTHING

    def evaluate(self, params, net, key):
        y = net(jnp.ones((1, 3)))[0, 0]
        value = jnp.where(jnp.isinf(params.goal), y, -((y - params.goal) ** 2))
        return jnp.where(y >= 8, params.beyond, value) + params.noise * jax.random.normal(key)


def _net(enabled, space):
    """Only so many of the four genes from bias and inputs to the output are enabled."""
    genes = np.zeros((space.max_nodes,) * 2, np.int8)
    genes[:4, -1] = np.where(np.arange(4) < enabled, ENABLED, DISABLED)
    return Genome(genes, np.zeros(space.max_nodes, np.int8), np.int32(0))


def _stacked(counts, space):
    nets = [_net(count, space) for count in np.ravel(counts)]
    return jax.tree.map(lambda *leaves: np.stack(leaves).reshape((*np.shape(counts), *leaves[0].shape)), *nets)


def _state(population, best, config, task):
    space = config.space(task)
    lead = np.shape(best)
    zero = np.zeros(lead, np.float32)
    fitness = np.zeros((*np.shape(population), len(config.shared_weights)), np.float32)
    return State(_stacked(population, space), fitness, _stacked(best, space), zero, zero, zero, key(0))


@pytest.mark.parametrize(("lead", "beyond"), [((), np.nan), ((2, 3), np.nan), ((), np.inf)])
def test_the_champion_is_the_best_of_all_nets_and_what_is_not_finite_is_worst(lead, beyond):
    """With k connections a net returns k and 2 k; four connections are no finite number under the weight 2."""
    task = Bandit(Target(beyond=beyond))
    config = Config(population=20, shared_weights=(1.0, 2.0), max_nodes=6)
    population = np.full((*lead, 20), 4)
    population[..., 5], population[..., 17] = 1, 2
    best = np.full(lead, 1)
    best[(-1,) * len(lead)] = 3  # seen once, and lost
    chosen = tuning.choose_champion(_state(population, best, config, task), task, config, key(1), episodes=4)
    assert int((chosen.genome.connections == ENABLED).sum()) == 3
    np.testing.assert_allclose(chosen.means, [3, 6])
    assert float(chosen.mean) == 4.5


def test_a_champion_is_chosen_on_more_episodes_than_the_first_round_has():
    """Nets of 2 or 3 connections differ by 1.5, the noise of one episode is 3: 400 of them tell, and are new ones."""
    task, config = Bandit(Target(noise=3.0)), Config(population=30, shared_weights=(1.0, 2.0), max_nodes=6)
    state = _state(np.arange(30) % 2 + 2, 2, config, task)
    chosen = tuning.choose_champion(state, task, config, key(2), episodes=400)
    assert int((chosen.genome.connections == ENABLED).sum()) == 3
    assert abs(float(chosen.mean) - 4.5) < 4 * 3 / 20  # noise is shared by nets and weights


def test_a_net_that_only_fails_is_still_a_champion_of_its_like():
    config = Config(population=20, shared_weights=(2.0, 3.0), max_nodes=6)
    state = _state(np.full(20, 4), 4, config, Bandit())
    assert np.isnan(tuning.choose_champion(state, Bandit(), config, key(0), episodes=4).mean)


def test_the_tuned_weight_is_the_best_of_the_grid():
    """-(3 w - 4.2)^2 is best at 1.4; from 8/3 on there is nothing but NaN."""
    task, space = Bandit(Target(goal=4.2)), Space(3, 1, 6)
    tuned = tuning.tune_shared(_net(3, space), task, key(0), -4, 4, weights=81, episodes=2)
    assert float(tuned.weight) == pytest.approx(1.4)
    np.testing.assert_allclose(tuned.weights, np.linspace(-4, 4, 81), atol=1e-6)
    assert tuned.returns.shape == (81, 2)
    np.testing.assert_array_equal(np.isnan(tuned.returns), np.linspace(-4, 4, 81)[:, None] * [[3, 3]] >= 8)
    endless = Bandit(Target(goal=4.2, beyond=np.inf))
    assert tuning.tune_shared(_net(3, space), endless, key(0), -4, 4, weights=81, episodes=2).weight == tuned.weight
    lists = dataclasses.replace(space, edges=8)
    same = tuning.tune_shared(from_dense(_net(3, space), lists), task, key(0), -4, 4, weights=81, episodes=2)
    np.testing.assert_array_equal(tuned.returns, same.returns)


@pytest.fixture(scope="module")
def puck():
    """A fixed net of three tanh units, its space, a tuned weight, and weights trained from it."""
    genome, space = tuning.fixed_topology(Puck(), (3,))
    weight = tuning.tune_shared(genome, Puck(), key(0), episodes=8, weights=9, space=space).weight
    calls = []
    trained = tuning.train_weights(
        genome, Puck(), weight, key(1), space=space, generations=25, population=16, episodes=8, selection=32, block=10,
        progress=lambda *args: calls.append(args),
    )  # fmt: skip
    return genome, space, weight, trained, calls


def test_evolution_trains_weights_and_chooses_among_those_it_had(puck):
    genome, space, weight, trained, calls = puck
    assert trained.weights.shape == genome.connections.shape
    np.testing.assert_array_equal(np.asarray(trained.weights)[genome.connections != ENABLED], 0)
    assert trained.choices.shape == (4,)  # the start and three blocks
    assert float(trained.mean) == trained.choices.max() > trained.choices[0] + 10
    assert [call[:2] for call in calls] == [(10, 25), (20, 25), (25, 25)]
    assert [len(call[2].mean) for call in calls] == [10, 20, 25]
    assert (trained.history.best >= trained.history.mean).all()
    assert np.isfinite(trained.history.mean).all()
    assert trained.history.mean[-5:].mean() > trained.history.mean[:5].mean() + 5
    # On episodes that neither training nor choice has seen.
    columns = tuning.four_columns(genome, Puck(), key(9), space=space, trials=30, tuned_weight=weight,
                                  trained_weights=trained.weights)  # fmt: skip
    assert t_interval(columns.tuned_weights - columns.tuned_shared).low > 5


def test_training_depends_on_its_key_alone_and_not_on_slots_or_the_last_block(puck):
    genome, space, weight, trained, _ = puck
    train = functools.partial(evolve_weights, genome, Puck(), weight, space=space, population=16, episodes=8,
                              selection=32, block=10)  # fmt: skip
    again = train(key(1), generations=25)
    np.testing.assert_array_equal(again.weights, trained.weights)
    shorter = train(key(1), generations=23)
    np.testing.assert_array_equal(shorter.history.mean, trained.history.mean[:23])
    np.testing.assert_array_equal(shorter.choices[:3], trained.choices[:3])
    assert not np.array_equal(train(key(2), generations=21).history.mean, shorter.history.mean[:21])


def test_columns_share_their_episodes_and_have_the_weights_they_say(puck):
    """Episodes of the rollout against the reference, with one weight and with many."""
    genome, space, *_ = puck
    columns = functools.partial(tuning.four_columns, genome, Puck(), key(5), space=space, trials=30)
    matrix = jax.random.normal(key(3), genome.connections.shape)
    found = columns(tuned_weight=0.7, trained_weights=matrix)
    assert {value.shape for value in found} == {(30,)}
    keys = jax.random.split(jax.random.split(key(5), 3)[2], 30)
    episode = jax.jit(lambda weights, key: trajectory(genome, Puck(), weights, key, space=space).rewards.sum())
    for trial in range(5):
        own = jax.random.split(keys[trial], 1)[0]
        np.testing.assert_allclose(
            found.tuned_shared[trial], episode(jnp.full(matrix.shape, 0.7), own), rtol=1e-3, atol=1e-3
        )
        np.testing.assert_allclose(found.tuned_weights[trial], episode(matrix, own), rtol=1e-3, atol=1e-3)
    assert len({*np.asarray(found.random_shared).tolist(), *np.asarray(found.tuned_shared).tolist()}) == 60
    same = columns(tuned_weight=0.7, trained_weights=np.full(matrix.shape, 0.7), low=0.7, high=0.7)
    for value in same:
        np.testing.assert_array_equal(value, same.tuned_shared)
    np.testing.assert_array_equal(same.tuned_shared, found.tuned_shared)


def test_random_columns_draw_a_weight_a_connection_or_one_for_all():
    """The return is the sum of three weights: of variance 3 (4/12 h^2), or of one times three: three times as much."""
    space = Space(3, 1, 6)
    found = tuning.four_columns(_net(3, space), Bandit(), key(6), space=space, trials=4000, low=-1.0, high=1.0,
                                tuned_weight=0.5, trained_weights=np.ones((6, 6)))  # fmt: skip
    assert np.var(found.random_weights) == pytest.approx(1, rel=0.1)
    assert np.var(found.random_shared) == pytest.approx(3, rel=0.1)
    assert np.abs(found.random_shared).max() <= 3
    np.testing.assert_allclose(found.tuned_shared, 1.5)
    np.testing.assert_allclose(found.tuned_weights, 3)


@dataclasses.dataclass(frozen=True)
class Treacherous(Regression):
    """Regression of which every other batch has no gradient."""

    def evaluate(self, params, net, key):
        value = super().evaluate(params, net, key)
        return jnp.where(jax.random.bernoulli(key), jnp.nan, 1.0) * value


def test_gradient_descent_learns_xor_and_says_how():
    genome, space = tuning.fixed_topology(xor(), (4,))
    start = jnp.asarray(np.random.default_rng(0).normal(size=genome.connections.shape))
    trained = tuning.train_weights(genome, xor(), start, key(0), space=space, generations=200, learning_rate=0.1)
    assert trained.choices.shape == (5,)
    assert float(trained.mean) > -0.1 > -0.5 > float(trained.choices[0])
    assert float(tuning.accuracies(genome, xor(), trained.weights[None], space=space)[0]) == 1
    assert trained.history.mean.shape == (200,)


def test_a_step_without_a_gradient_is_left_out():
    task = Treacherous("square", size=32)
    genome, space = tuning.fixed_topology(task, (3,))
    start = np.random.default_rng(1).normal(size=genome.connections.shape)
    trained = descend_weights(genome, task, start, key(0), space=space, generations=60, block=30, learning_rate=0.05,
                              selection=1)  # fmt: skip
    broken = np.isnan(trained.history.mean)
    assert 15 < broken.sum() < 45
    assert np.isfinite(trained.weights).all()
    assert trained.history.mean[~broken][-5:].mean() > trained.history.mean[~broken][:5].mean()


def test_evolution_takes_batch_tasks_too():
    task = Bandit(Target(goal=5.0))
    trained = evolve_weights(_net(4, Space(3, 1, 6)), task, 2.1, key(0), generations=20, population=8, episodes=1,
                             sigma=0.5, selection=1, block=10)  # fmt: skip
    assert np.isnan(trained.choices[0])  # it began where there is nothing but NaN
    assert float(trained.mean) > -0.05


# Classification


@pytest.fixture(scope="module")
def blobs():
    """Three classes in the plane, and a net with a hidden layer."""
    rng = np.random.default_rng(0)

    def part(count):
        y = rng.integers(0, 3, count)
        return Split(np.array([[1, 0], [0, 1], [-1, -1]])[y] + rng.normal(size=(count, 2)) * 0.4, y)

    parts = jax.tree.map(
        lambda leaf: jnp.asarray(leaf, jnp.float32 if leaf.ndim == 2 else jnp.int32), Parts(*map(part, (60, 40, 50)))
    )
    task = Classification("blobs", parts, 3, batch_size=20)
    return task, *tuning.fixed_topology(task, (4,), "sigmoid")


def _logits(genome, space, weight, x):
    return np.asarray(forward(genome, space, weight, x), float)


def test_training_a_classifier_is_judged_on_its_validation_examples(blobs):
    task, genome, space = blobs
    start = np.random.default_rng(0).normal(size=genome.connections.shape)
    trained = tuning.train_weights(genome, task, start, key(0), space=space, generations=100, learning_rate=0.05)
    part = task.params.validation
    likelihood = log_softmax(_logits(genome, space, trained.weights, part.x), axis=1)[np.arange(40), part.y].mean()
    assert float(trained.mean) == pytest.approx(likelihood, rel=1e-4)
    before, after = tuning.accuracies(genome, task, jnp.stack([jnp.asarray(start, jnp.float32), trained.weights]),
                                      space=space)  # fmt: skip
    assert after > 0.85 > before + 0.2


def test_accuracies_and_ensembles_are_those_computed_by_numpy(blobs):
    task, _, _ = blobs
    genome, space = tuning.fixed_topology(task, (2,), "sin_pi")
    keep = np.random.default_rng(21).random(genome.connections.shape) < 0.6
    genome = genome._replace(connections=jnp.asarray(np.where(keep, genome.connections, 0)))
    weights = np.array([-2.0, -1, -0.5, 0.5, 1, 2])
    x, y = task.params.validation
    logits = np.stack([_logits(genome, space, weight, x) for weight in weights])
    each = (logits.argmax(-1) == np.asarray(y)).mean(1)
    mean = (softmax(logits, -1).mean(0).argmax(-1) == np.asarray(y)).mean()
    votes = np.stack([(logits.argmax(-1) == c).sum(0) for c in range(3)], -1)
    majority = (votes.argmax(-1) == np.asarray(y)).mean()
    options = {"part": "validation", "space": space}
    found = tuning.accuracies(genome, task, weights, **options)
    np.testing.assert_allclose(found, each, atol=1e-6)
    assert float(tuning.ensemble_accuracy(genome, task, weights, **options)) == pytest.approx(mean, abs=1e-6)
    voted = tuning.ensemble_accuracy(genome, task, weights, vote="majority", **options)
    assert float(voted) == pytest.approx(majority, abs=1e-6)
    assert len({*each.tolist(), mean, majority}) > 5  # else it would not show which is which


def test_a_weight_that_overflows_has_no_vote_and_none_at_all_is_wrong(blobs):
    task, genome, space = blobs
    genome, space = tuning.fixed_topology(task, (2, 2), "relu")
    sane = tuning.ensemble_accuracy(genome, task, [1.0], space=space)
    assert float(tuning.ensemble_accuracy(genome, task, [1.0, 1e30], space=space)) == float(sane) > 0
    assert float(tuning.ensemble_accuracy(genome, task, [np.nan], space=space)) == 0


def test_columns_of_accuracy_are_on_the_part_asked_for(blobs):
    task, genome, space = blobs
    matrix = np.random.default_rng(0).normal(size=genome.connections.shape)
    found = tuning.four_columns(genome, task, key(0), space=space, trials=3, tuned_weight=1.0, trained_weights=matrix,
                                part="test")  # fmt: skip
    logits = _logits(genome, space, matrix, task.params.test.x)
    np.testing.assert_allclose(found.tuned_weights, np.mean(logits.argmax(1) == task.params.test.y), atol=1e-6)
    assert {value.shape for value in found} == {(3,)}


def test_a_fixed_topology_is_the_net_in_layers_it_should_be():
    genome, space = tuning.fixed_topology(Puck(), (3, 2), "swish")
    weights = np.random.default_rng(0).normal(size=genome.connections.shape).astype(np.float32)
    x = np.random.default_rng(1).normal(size=(4, 2)).astype(np.float32)

    def dense(x, first, before, size):
        return x @ weights[before : before + x.shape[1], first : first + size] + weights[0, first : first + size]

    def swish(x):
        return x / (1 + np.exp(-x))

    expected = dense(swish(dense(swish(dense(x, 3, 1, 3)), 6, 3, 2)), 8, 6, 1)
    np.testing.assert_allclose(forward(genome, space, weights, x), expected, rtol=1e-4, atol=1e-5)
    assert int((genome.connections == ENABLED).sum()) == 3 * 3 + 4 * 2 + 3
    linear, space = tuning.fixed_topology(Puck(), ())
    np.testing.assert_allclose(forward(linear, space, 2.0, x)[:, 0], 2 + 2 * x.sum(1), rtol=1e-5)


@dataclasses.dataclass(frozen=True)
class Host:
    """Episodes outside JAX: the return of a lane is its output for the observation (1, seed mod 7)."""

    host: ClassVar[bool] = True
    inputs: ClassVar[int] = 2
    outputs: ClassVar[int] = 1
    params: ClassVar[tuple] = ()

    def evaluate_lanes(self, policy, seeds, *, workers=None, window=None):
        groups = np.arange(len(seeds) // policy.group)
        seen = np.stack([np.ones(len(seeds)), seeds % 7], 1).astype(np.float32)
        outputs = np.concatenate([policy.call(seen.reshape(len(groups), -1, 2)[g], np.array([g])) for g in groups])
        return Found(outputs[:, 0].astype(float))


class Found(NamedTuple):
    returns: np.ndarray


def test_tasks_on_the_host_have_tuned_weights_and_columns():
    genome, _ = tuning.fixed_topology(Host(), ())
    tuned = tuning.tune_shared(genome, Host(), key(0), weights=5, episodes=3)
    assert float(tuned.weight) == 2
    np.testing.assert_allclose(tuned.returns, tuned.weights[:, None] / 2 * tuned.returns[-1][None])
    matrix = np.zeros((4, 4))
    matrix[0, 3], matrix[1, 3] = 5, 7
    found = tuning.four_columns(genome, Host(), key(1), tuned_weight=2.0, trained_weights=matrix, trials=4)
    np.testing.assert_allclose(found.tuned_weights, 12)
    assert ((np.asarray(found.tuned_shared) >= 4) & (np.asarray(found.tuned_shared) <= 16)).all()


@pytest.mark.slow
def test_weights_are_trained_for_an_environment_of_gymnasium():
    pytest.importorskip("gymnasium")
    from nnjax.wann.tasks.gym import GymTask

    task = GymTask("Pendulum-v1", 3, 1, 100, ((-2.0, 2.0),))
    genome, space = tuning.fixed_topology(task, (4,))
    trained = tuning.train_weights(genome, task, 0.5, key(0), space=space, generations=30, population=16, episodes=4,
                                   selection=16, block=10, workers=1)  # fmt: skip
    assert float(trained.mean) > float(trained.choices[0]) + 100


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda g, s: tuning.tune_shared(g, Puck(), key(0), 1, 1, space=s), "low=1 to a higher high=1"),
        (lambda g, s: tuning.tune_shared(g, Puck(), key(0), episodes=0, space=s), "episodes=0"),
        (lambda g, s: tuning.tune_shared(g, xor(), key(0), space=Space(3, 1, 7)), "2 and 1"),
        (lambda g, s: tuning.train_weights(g, Puck(), 1.0, key(0), space=s, episode=3), "'episodes'"),
        (lambda g, s: evolve_weights(g, Puck(), 1.0, key(0), space=s, population=1), "population=1 must be at least 2"),
        (lambda g, s: evolve_weights(g, Puck(), np.ones(3), key(0), space=s), r"weights have shape \(3,\)"),
        (lambda g, s: descend_weights(g, Puck(), 1.0, key(0), space=s), "Puck is no batch task"),
        (lambda g, s: tuning.accuracies(g, Puck(), [1.0], space=s), "Puck has no accuracy"),
        (lambda g, s: tuning.ensemble_accuracy(g, xor(), [1.0], space=s), "Boolean is no classification"),
        (lambda g, s: tuning.fixed_topology(Puck(), (0,)), r"hidden=\(0,\)"),
        (lambda g, s: tuning.fixed_topology(Puck(), (1,), "tanhh"), "tanhh"),
        (lambda g, s: tuning.four_columns(g, Puck(), key(0), space=s, tuned_weight=1.0, trained_weights=np.ones((6, 6)),
                                          low=2.0, high=1.0), "low=2.0 must be at most high=1.0"),
        (lambda g, s: tuning.four_columns(g, Puck(), key(0), space=s, tuned_weight=1.0, trained_weights=1.0),
         r"trained_weights of shape \(\)"),
        (lambda g, s: evolve_weights(g._replace(connections=g.connections * 0), Puck(), 1.0, key(0), space=s),
         "no enabled connection"),
    ],
)  # fmt: skip
def test_bad_input_is_refused_in_one_sentence(puck, call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call(*puck[:2])


def test_constants_that_an_environment_would_never_see_are_refused():
    genome, _ = tuning.fixed_topology(Host(), ())
    matrix = np.ones(genome.connections.shape)
    calls = (
        lambda params: tuning.choose_champion(None, Host(), Config(), key(0), params=params),
        lambda params: tuning.tune_shared(genome, Host(), key(0), params=params),
        lambda params: tuning.train_weights(genome, Host(), 1.0, key(0), generations=1, params=params),
        lambda params: evolve_weights(genome, Host(), 1.0, key(0), generations=1, params=params),
        lambda params: tuning.accuracies(genome, Host(), [1.0], params=params),
        lambda params: tuning.four_columns(
            genome, Host(), key(0), tuned_weight=1.0, trained_weights=matrix, params=params
        ),
    )
    for call in calls:
        for params, shown in ((Constants(), r"Constants\(dt=0.1\)"), ((), r"\(\)"), (np.zeros(99), r"array\(.*\.\.\.")):
            with pytest.raises(
                ValueError, match=f"^params={shown} must be None for task Host, which runs on"
            ) as caught:
                call(params)
            assert "\n" not in str(caught.value)
