"""The pseudo-labelling study: a tiny run, its parts one by one, bad input, and quick's claims."""

import re
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import xarray as xr

from experiments import _pseudo_labelling_lanes as lanes
from experiments import _pseudo_labelling_report as reporting
from experiments import command
from experiments import pseudo_labelling as study
from nnjax import losses, models, results
from nnjax.train import Config as TrainConfig
from nnjax.train import make_train

TINY = study.Config(
    labels=(10, 20), seeds=2, pool=60, test_n=30, hidden=(8,), steps=6, batch=5, unlabelled=8, evaluations=3,
    threshold=0.3,
)  # fmt: skip
RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def tiny(unoptimized):
    """Every arm at the smallest size."""
    with unoptimized():
        return study.run(TINY)


# A tiny run


def test_a_tiny_run_fills_every_arm(tiny):
    panel = tiny["pseudo_labelling"].to_dataset()
    assert list(panel["arm"].values) == list(lanes.ARMS)
    assert panel["test_error"].sizes == {"n": 2, "seed": 2, "arm": 5, "step": 3}
    assert ((panel["test_error"] >= 0) & (panel["test_error"] <= 1)).all()
    # The first net repeats its own mistakes; who has all true labels is told none of them.
    np.testing.assert_allclose(panel["repeated"].sel(arm="labelled only"), 1)
    np.testing.assert_allclose(panel["coverage"].isel(threshold=0), 1)
    assert (panel["coverage"].diff("threshold") <= 0).all()
    np.testing.assert_allclose(
        panel["label_accuracy"].isel(threshold=0),
        1 - panel["unlabelled_error"].sel(arm="labelled only").isel(step=-1),
        atol=1e-6,
    )


def test_every_row_and_figure_is_made_from_a_stored_tree(tiny, tmp_path):
    results.write_tree(tmp_path / "results.nc", tiny)
    tree = results.read_tree(tmp_path / "results.nc")
    rows = study.report(tree)
    assert len({row.claim for row in rows}) == len(rows) == 12
    assert {row.verdict for row in rows} <= {"holds", "fails", "open"}
    for figure in study.plot(tree).values():
        figure.savefig(tmp_path / "figure.png")


def test_published_numbers_stand_beside_mnist_alone(tiny):
    panel = tiny["pseudo_labelling"].to_dataset()
    assert reporting._published(panel) == []
    as_mnist = panel.assign_coords(n=[100, 600])
    as_mnist.attrs["data"] = "mnist"
    rows = reporting._published(as_mnist)
    assert [row.published for row in rows] == ["0.2189", "0.1615 (-0.0574)", "0.0857", "0.0503 (-0.0354)"]
    assert [row.verdict for row in rows] == ["not comparable", "inconclusive"] * 2  # two seeds judge nothing
    assert len({row.claim for row in rows}) == 4
    assert "D = 0.02870" in rows[1].tolerance


FEW = np.array([-2.0, -1.0, 0.0, 1.0, 2.0]) / 1000


@pytest.mark.parametrize(
    ("found", "base", "said"),
    [
        (0.1615 + FEW, 0.2189 - FEW, "reproduced"),
        (0.1850 + FEW, 0.2189 - FEW, "reproduced"),  # within half the effect
        (0.2100 + FEW, 0.2189 - FEW, "direction only"),
        (0.1000 + FEW, 0.2189 - FEW, "better"),
        (0.2189 + FEW, 0.2189 - FEW, "not reproduced"),  # a control that learns nothing from its labels
        (0.2600 + FEW, 0.2189 - FEW, "not reproduced"),
        (0.1615 + FEW, 0.1615 - FEW, "inconclusive"),  # the right error, without an effect of ours
        (0.1615 + FEW, 0.1500 - FEW, "inconclusive"),
        (0.1615 + 15 * FEW, 0.2189 - FEW, "inconclusive"),  # 5 seeds, and D is below two deviations
        (0.1615 + FEW[1:], 0.2189 - FEW[1:], "inconclusive"),  # 4 seeds
        (np.append(0.1615 + FEW, np.nan), 0.2189 - np.append(FEW, 0), "inconclusive"),
    ],
)
def test_a_published_number_counts_as_reproduced_by_its_effect(found, base, said):
    assert reporting.as_published(found, base, *reversed(reporting.PUBLISHED[100])) == said
    rows = reporting._beside("", base, found, *reporting.PUBLISHED[100])
    assert [row.verdict for row in rows] == ["not comparable", said]


def _panel(gap):
    """Results in which every claim holds by at least ``gap`` on average, seeds apart by a little."""
    noise = np.array([-1.0, 0.0, 1.0])[None, :, None, None] / 1000
    levels = {"labelled only": 0, "all, once": 1, "confident, once": 1, "schedule": 1, "all true labels": 2}
    level = np.array([levels[arm] for arm in lanes.ARMS])[None, None, :, None]
    gain = gap * np.array([3, 2, 1])[:, None, None, None] * (level > 0) + 3 * gap * (level > 1)
    wide = (1 + level) * np.arange(1, 4)[:, None, None, None]
    dims = ("n", "seed", "arm", "step")
    better = dict.fromkeys(("test_error", "unlabelled_entropy"), (dims, 0.5 - gain + wide * noise))
    own = (np.array(lanes.ARMS) == "schedule")[None, None, :, None]
    sure = np.array([0, 1])[None, None, :]
    return xr.Dataset(
        {
            **better,
            "repeated": (dims[:3], (0.9 - gap * own + (1 + own) * noise)[..., 0] * np.ones((3, 1, 1))),
            "label_accuracy": (
                ("n", "seed", "threshold"),
                (0.7 + gap * sure + (1 + sure) * noise[..., 0]) * np.ones((3, 1, 1)),
            ),
            "coverage": (("n", "seed", "threshold"), np.ones((3, 3, 2))),
        },
        {"n": [20, 100, 500], "seed": [0, 1, 2], "arm": list(lanes.ARMS), "step": [1], "threshold": [0.0, 0.95]},
        {"data": "digits", "threshold": 0.95},
    )


@pytest.mark.parametrize(("gap", "said"), [(0.05, "holds"), (-0.05, "fails"), (0.0, "open")])
def test_verdicts_follow_the_paired_intervals(gap, said):
    rows = reporting.report(xr.DataTree.from_dict({"pseudo_labelling": _panel(gap)}))
    assert len(rows) == 15
    for row in rows:
        assert row.verdict == said, row
        assert row.seeds == 3


def test_a_seed_without_mistakes_to_repeat_is_left_out():
    panel = _panel(0.05)
    panel["repeated"][:, 0] = np.nan
    assert [row.seeds for row in reporting.report(xr.DataTree.from_dict({"pseudo_labelling": panel}))][-2:] == [2, 3]


# The parts


def test_any_first_labels_are_balanced_and_random():
    y = np.repeat(np.arange(4), [9, 5, 7, 3])
    orders = lanes.balanced_orders(y, 3, 0)
    assert orders.shape == (3, 24)
    for order in orders:
        assert sorted(order) == list(range(24))
        for k in range(1, 13):  # the smallest class has three
            counts = np.bincount(y[order[:k]], minlength=4)
            assert counts.max() - counts.min() <= 1
    assert (orders[0] != orders[1]).any()
    np.testing.assert_array_equal(orders, lanes.balanced_orders(y, 3, 0))


def test_the_schedule_is_a_ramp():
    steps = jnp.array([0, 10, 35, 60, 99])
    np.testing.assert_allclose(lanes.ramp(steps, 100, 0.1, 0.6), [0, 0, 0.5, 1, 1], atol=1e-6)


def test_entropy_is_that_of_the_prediction():
    logits = jnp.log(jnp.array([[0.5, 0.5, 1e-9], [1.0, 1e-9, 1e-9]]))
    np.testing.assert_allclose(lanes.entropy(logits, jnp.zeros(2)), [np.log(2), 0], atol=1e-6)


@pytest.mark.parametrize("labels", [True, False])
def test_without_weight_a_student_is_the_net_without_pseudo_labels(labels):
    x, y = jnp.asarray(RNG.normal(size=(30, 4)), jnp.float32), jnp.asarray(np.arange(30) % 3)
    network = models.network(models.MLP((6,), 3, dropout=0.5))
    splits, config = {"train": (x[:9], y[:9])}, TrainConfig(steps=5, batch_size=3)

    def rule(_):
        return optax.sgd(0.1)

    @jax.jit
    def student(first, weight):
        """Pseudo-labels from update ``first`` on."""
        pool = lanes.Unlabelled(x, jnp.arange(30), jnp.asarray(9), y if labels else None, weight)
        taught = lanes.student(network, pool, lambda updates: jnp.where(updates < first, 0.0, 1.0), 7)
        train = make_train(taught, lanes._both, rule, config, metrics=lanes.METRICS)
        return train(jax.random.key(0), None, splits)

    plain = jax.jit(make_train(network, losses.cross_entropy, rule, config))(jax.random.key(0), None, splits)
    for first, weight in ((5, jnp.ones(30)), (0, jnp.zeros(30))):
        made = student(first, weight)
        for a, b in zip(jax.tree.leaves(plain.params), jax.tree.leaves(made.params), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
        assert int(made.stats["updates"]) == 5
    changed = student(4, jnp.ones(30)).params
    assert float(optax.tree.norm(optax.tree.sub(changed, plain.params))) > 1e-3


def test_the_unlabelled_loss_is_that_of_the_pictures_without_label():
    x, y = jnp.asarray(RNG.normal(size=(12, 4)), jnp.float32), jnp.asarray(np.arange(12) % 3)
    network = models.network(models.MLP((), 3))
    params, _ = network.init(jax.random.key(0), x)
    # Two pictures are left, one of weight 0: the mean over many draws is half of the other's loss.
    order = jnp.asarray(RNG.permutation(12))
    weight = jnp.ones(12).at[order[10]].set(0.0)
    pool = lanes.Unlabelled(x, order, jnp.asarray(10), y, weight)
    taught = lanes.student(network, pool, lambda updates: 2.0, 4000)
    stats = {"network": {}, "updates": jnp.asarray(0)}
    (logits, extra), after = taught.apply(params, stats, x[:2], key=jax.random.key(1), train=True)
    left = order[11]
    expected = 2.0 * 0.5 * losses.cross_entropy(x[left][None] @ params["Dense_0"]["kernel"], y[left][None])[0]
    assert float(extra) == pytest.approx(float(expected), rel=0.1)  # 4000 draws: six standard errors
    assert int(after["updates"]) == 1
    assert logits.shape == (2, 3)


def test_own_labels_give_no_gradient_through_themselves():
    x = jnp.asarray(RNG.normal(size=(8, 4)), jnp.float32)
    network = models.network(models.MLP((), 3))
    params, _ = network.init(jax.random.key(0), x)
    own = jnp.argmax(network.apply(params, {}, x, key=None, train=False)[0], axis=-1)

    def extra(params, labels):
        pool = lanes.Unlabelled(x, jnp.arange(8), jnp.asarray(2), labels, jnp.ones(8))
        taught = lanes.student(network, pool, lambda updates: 1.0, 16)
        stats = {"network": {}, "updates": jnp.asarray(0)}
        return taught.apply(params, stats, x[:2], key=jax.random.key(1), train=True)[0][1]

    gradients = [jax.grad(extra)(params, labels) for labels in (None, own)]
    for a, b in zip(*map(jax.tree.leaves, gradients), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


# Bad input


BAD = {
    "odd labels": ({"labels": (10, 25)}, "labels=(10, 25) must be multiples of 10"),
    "one number": ({"labels": (20,)}, "must hold at least two numbers"),
    "all labelled": ({"labels": (10, 60)}, "must be below pool=60"),
    "batch": ({"batch": 30}, "batch=30 must be at most 20"),
    "schedule": ({"schedule": (0.2, 1.5)}, "schedule=(0.2, 1.5) must be two ascending shares"),
    "backwards": ({"schedule": (0.6, 0.1)}, "schedule=(0.6, 0.1) must be ascending"),
    "threshold": ({"threshold": 1.0}, "threshold=1.0 must be below 1"),
    "evaluations": ({"evaluations": 4}, "steps=6 must be a multiple of evaluations=4"),
    "data": ({"data": "mnits"}, "mnits"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_options_are_one_sentence(name):
    change, text = BAD[name]
    with pytest.raises(ValueError, match=re.escape(text)):
        replace(TINY, **change)


def test_more_labels_than_there_are_pictures_are_refused():
    with pytest.raises(command.BadInput, match="must be below the 1438 training pictures of digits"):
        study.sweeps(replace(TINY, labels=(10, 1440), pool=5000, batch=5))


@pytest.mark.slow
def test_quick_shows_what_the_study_claims():
    tree = study.run(study.PRESETS["quick"])
    verdicts = {row.claim: row.verdict for row in study.report(tree)}
    for words in ("100 labels: pseudo-labels of confidence", "true labels are better", "the schedule takes back more",
                  "20 labels: the schedule lowers the entropy"):  # fmt: skip
        said = [verdict for claim, verdict in verdicts.items() if words in claim]
        assert said
        assert set(said) == {"holds"}, words
    assert not any(verdict in ("fails", "differs") for verdict in verdicts.values()), verdicts
