"""The regularization study: its measures one by one, a tiny run of all panels, bad input, and quick's claims."""

import time
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

from experiments import _regularization_lanes as lanes
from experiments import _regularization_measures as measures
from experiments import _regularization_report as reporting
from experiments import command
from experiments import regularization as study
from nnjax import models, results

TINY = study.Config(
    n=40, seeds=2, hidden=(8,), steps=20, batch=20, l2=(0.0, 0.1), l1=(0.0, 0.1), dropout=(0.0, 0.5), early_epochs=4,
    early_seeds=3, norm_hidden=(8,), norm_steps=20, norm_rates=(0.01, 0.1, 1.0), batch_hidden=(8,),
    batch_sizes=(4, 40), batch_epochs=2, batch_updates=20, batch_rates=(0.01, 0.1), batch_loss=2.0,
    recipe_hidden=(8,), recipe_steps=20, recipe_rates=(0.01, 0.1), recipe_seeds=2, curve_n=(20, 40),
    curve_l2=(0.0, 0.1), linear_n=12, linear_p=3, linear_draws=2, validation_n=40, test_n=40,
)  # fmt: skip


# A tiny run


@pytest.fixture(scope="module")
def tiny(unoptimized):
    """Every panel at the smallest size."""
    with unoptimized():
        return study.run(TINY)


def test_a_tiny_run_fills_every_panel(tiny):
    assert list(tiny.children) == [
        "linear", "l2", "l1", "dropout", "early_stopping", "batch_norm", "batch_size", "recipe", "learning_curves",
    ]  # fmt: skip
    assert dict(tiny["l2"].sizes) == {"strength": 2, "per_sample": 2, "seed": 2}
    assert dict(tiny["batch_size"].sizes) == {"batch": 2, "rate": 2, "seed": 2, "equal": 3}
    assert list(tiny["recipe"]["variant"].values) == [*lanes.VARIANTS, lanes.WITHOUT_NORM]
    assert dict(tiny["early_stopping"].sizes) == {"seed": 3, "epoch": 4}
    errors = [value for panel in tiny.children.values() for name, value in panel.items() if str(name).endswith("error")]
    assert len(errors) > 20
    for error in errors:
        known = error.values[np.isfinite(error.values)]
        assert ((known >= 0) & (known <= 1)).all()


def test_seeds_share_what_the_arms_do_not_change(tiny):
    # Without a penalty or dropout it is one and the same net that is trained.
    nets = [tiny["l2"].isel(strength=0, per_sample=0), tiny["l1"].isel(strength=0), tiny["dropout"].isel(rate=0)]
    for name in ("train_loss", "test_error", "norm"):
        for other in nets[1:]:
            np.testing.assert_allclose(other[name], nets[0][name], rtol=1e-5)
    curve = tiny["learning_curves"].sel(n=40, strength=0)  # n examples, each once
    np.testing.assert_allclose(curve["train_loss"], nets[0]["train_loss"], rtol=1e-5)


def test_the_two_conventions_train_the_same_nets(tiny):
    plain, textbook = (tiny["l2"].isel(per_sample=i, strength=1) for i in (0, 1))
    np.testing.assert_allclose(plain["norm"], textbook["norm"], rtol=1e-4)
    assert (plain["norm"] < tiny["l2"]["norm"].isel(per_sample=0, strength=0)).all()


def test_the_parameters_returned_by_early_stopping_are_those_of_the_best_epoch(tiny):
    panel = tiny["early_stopping"].to_dataset()
    best = panel["validation_loss"].argmin("epoch")
    np.testing.assert_array_equal(panel["best_step"], 2 * (best + 1))  # two updates an epoch
    np.testing.assert_allclose(panel["returned_error"], panel["test_error"].isel(epoch=best), atol=1e-6)


def test_the_linear_panel_lies_on_its_closed_forms(tiny):
    panel = tiny["linear"].to_dataset()
    assert float(panel["off"].isel(strength=slice(3, None)).max()) < 1e-6
    np.testing.assert_allclose(panel["ridge"][:, 3:], panel["ridge_exact"][:, 3:], rtol=1e-5)
    np.testing.assert_allclose(panel["stopped"], panel["stopped_exact"], rtol=0.05, atol=0.02)


def test_every_row_and_figure_is_made_from_a_stored_tree(tiny, tmp_path):
    results.write_tree(tmp_path / "results.nc", tiny)
    tree = results.read_tree(tmp_path / "results.nc")
    rows = study.report(tree)
    assert len({row.claim for row in rows}) == len(rows) == 35
    assert {row.verdict for row in rows} <= {
        "holds",
        "fails",
        "open",
        "agrees",
        "differs",
        "before",
        "after",
        "neither",
    }
    figures = study.plot(tree)
    assert set(figures) == {"regularization", "early_stopping", "batches", "recipe", "learning_curves"}
    for figure in figures.values():
        figure.savefig(tmp_path / "figure.png")


# What the lanes measure


def test_the_draws_of_a_seed():
    data = {"y_train": np.arange(2000) % 10, "y_validation_clean": np.arange(500) % 10, "classes": np.arange(10)}
    drawn = lanes.draw_examples(jax.random.key(0), data, 0.2, 3)
    assert drawn["order"].shape == drawn["y"].shape == (3, 2000)
    for order, y, validation in zip(drawn["order"], drawn["y"], drawn["y_validation"], strict=True):
        np.testing.assert_array_equal(np.sort(order), np.arange(2000))
        assert abs((y != data["y_train"][order]).mean() - 0.2) < 4 * np.sqrt(0.16 / 2000)
        assert abs((validation != data["y_validation_clean"]).mean() - 0.2) < 4 * np.sqrt(0.16 / 500)
    assert not np.array_equal(drawn["order"][0], drawn["order"][1])
    more = lanes.draw_examples(jax.random.key(0), data, 0.2, 4)
    np.testing.assert_array_equal(more["y"][:3], drawn["y"])


def test_memorizing_is_giving_back_wrong_labels():
    data = {
        "order": jnp.array([[3, 2, 1, 0]]),
        "y": jnp.array([[1, 0, 1, 0]]),  # of examples 3, 2, 1, 0
        "y_train": jnp.array([1, 1, 1, 1]),  # so those of 2 and 0 are wrong
        "x_train": jnp.array([[0.0], [1.0], [2.0], [3.0]]),
    }
    run = SimpleNamespace(params=None, stats=None)
    for answers, expected in (([0, 1, 0, 1], 1.0), ([1, 1, 1, 1], 0.0), ([0, 1, 1, 1], 0.5), ([0, 0, 0, 0], 1.0)):
        table = jax.nn.one_hot(jnp.array(answers), 2)

        def apply(params, stats, x, *, key, train, table=table):
            return table[x[:, 0].astype(int)], stats

        network = SimpleNamespace(apply=apply)
        assert lanes.memorized_share(network, run, data, 0, 4) == expected


def test_near_zero_is_relative_to_the_largest_of_each_matrix_or_to_hes_start():
    params = {"a": {"kernel": jnp.array([[1000.0, 1.0, 1.01, 0.0]])}, "b": {"kernel": jnp.array([[1e-3, 2e-6, 1e-6]])}}
    assert lanes.near_zero_share(params) == pytest.approx(5 / 7)  # all of b is far below where it started
    assert lanes.near_zero_share({"kernel": jnp.zeros((2, 2)), "bias": jnp.ones(2)}) == 1


def test_sharpness_is_the_largest_eigenvalue():
    rng = np.random.default_rng(0)
    root = rng.normal(size=(5, 5)).astype("float32")
    hessian = root @ root.T

    def loss(params):
        w = jnp.concatenate([params["a"], params["b"]])
        return 0.5 * w @ hessian @ w

    params = {"a": jnp.asarray(rng.normal(size=2), jnp.float32), "b": jnp.asarray(rng.normal(size=3), jnp.float32)}
    found = lanes.sharpness(loss, params, rounds=200)
    assert float(found) == pytest.approx(np.linalg.eigvalsh(hessian)[-1], rel=1e-3)


def test_nets_start_from_hes_weights():
    network = lanes._started(models.MLP((400, 300), normalize="before"))
    params, stats = network.init(jax.random.key(0), jnp.ones((1, 50)))
    draws = []
    for layer, fan_in in enumerate((50, 400, 300)):
        kernel = np.asarray(params[f"Dense_{layer}"]["kernel"])
        assert abs((kernel**2).mean() * fan_in / 2 - 1) < 5 * np.sqrt(2 / kernel.size)
        draws.append(np.ravel(kernel) * np.sqrt(fan_in / 2))
    assert len(np.unique(np.concatenate(draws))) > 0.98 * sum(map(len, draws))  # no number twice, but by chance
    np.testing.assert_array_equal(params["BatchNorm_0"]["scale"], np.ones(400))
    assert set(stats) == {"batch_stats"}
    small = lanes._started(models.MLP((400,)), lambda fan_in: 0.01).init(jax.random.key(0), jnp.ones((1, 50)))[0]
    assert np.asarray(small["Dense_0"]["kernel"]).std() == pytest.approx(0.01, rel=0.05)


# What the report reads off


def test_the_strength_is_chosen_by_validation_loss_alone():
    loss = xr.DataArray([[2.0, 1.0, 3.0], [2.0, np.nan, 1.0]], dims=("seed", "strength"))
    error = xr.DataArray([[0.3, 0.5, 0.1], [0.1, 0.0, 0.4]], dims=("seed", "strength"))
    panel = xr.Dataset({"validation_loss": loss, "test_error": error}, {"strength": [0.0, 0.1, 0.2]})
    best = measures.chosen(panel, "strength")
    np.testing.assert_array_equal(best["test_error"], [0.5, 0.4])
    np.testing.assert_array_equal(best["strength"], [0.1, 0.2])


def test_where_patience_stops():
    curve = np.array([5.0, 4.0, 4.5, 3.0, 3.5, 3.2, 3.1, 2.0])
    assert measures.stop(curve, 1) == (2, 1)
    assert measures.stop(curve, 2) == (5, 3)
    assert measures.stop(curve, 20) == (7, 7)
    assert measures.stop(np.array([1.0, 1.0, 1.0]), 2) == (2, 0)  # not better is not new


def test_the_largest_rate_that_trains():
    guess = np.log(10)
    loss = [[[0.1, 0.2, guess]], [[guess, 0.9 * guess, np.nan]], [[0.2, 0.2, 0.2]]]
    rates = np.array([0.1, 0.3, 1.0])
    panel = xr.Dataset({"train_loss": (("normalize", "seed", "rate"), np.array(loss))}, {"rate": rates})
    np.testing.assert_array_equal(measures.largest_rate(panel)[:, 0], [0.3, np.nan, 1.0])
    found = measures.rate_ratio(np.array([1.0, 1.0]), np.array([0.1, 0.1]), rates)
    assert found.mean == pytest.approx(10)
    assert found.low == pytest.approx(1 / 0.3)  # the plain net's true limit may be almost 0.3 ...
    assert found.high == pytest.approx(10 / 0.3)  # ... and the other's one more step above the grid
    assert measures.rate_ratio(np.array([0.3, 0.3]), np.array([0.1, 0.1]), rates).low == pytest.approx(1)


SPREAD = np.array([-0.01, 0.0, 0.01])


@pytest.mark.parametrize(
    ("train", "validation", "said"),
    [(0.0, 0.4, "overfits"), (0.2, 0.22, "neither"), (0.6, 0.65, "underfits"), (0.6, 0.62, "underfits"),
     (0.2, 0.255, "neither")],
)  # fmt: skip
def test_the_diagnosis(train, validation, said):
    assert measures.diagnose(train + SPREAD, validation + SPREAD[::-1], 0.2) == said


def test_ablations_are_judged_together():
    rng = np.random.default_rng(0)
    arms, seeds = ["full recipe", "a", "b", "c"], 6
    error = 0.1 + np.array([0.0, 0.1, 0.0, -0.05])[:, None, None] + 0.001 * rng.normal(size=(4, 1, seeds))
    dims = ("variant", "rate", "seed")
    panel = xr.Dataset(
        {"test_error": (dims, error), "validation_loss": (dims, error)}, {"variant": arms, "rate": [0.1]}
    )
    found = measures.ablations(panel)
    assert list(found) == ["a", "b", "c"]
    gap, interval = found["a"]
    single = reporting.t_interval(gap)
    assert interval.low < single.low < single.high < interval.high  # wider than one alone
    assert [row.verdict for row in reporting._recipe_rows(panel)] == ["holds", "open", "fails"]


@pytest.mark.parametrize(
    ("gap", "said"), [([-0.1, -0.09, -0.11], "holds"), ([0.1, 0.09, 0.11], "fails"), ([0.1, -0.1, 0.0], "open")]
)
def test_a_lower_error_must_be_surely_lower(gap, said):
    row = reporting._lower_error("claim", 0.3 + np.array(gap), np.full(3, 0.3))
    assert row.verdict == said
    assert reporting.below_zero(np.array([np.nan, 0.1, 0.1])) == "open"


# Bad input


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--seeds", "0"], "seeds=0 must be at least 2"),
        (["--noise", "0"], "noise=0.0 must lie between 0 and 1"),
        (["--l2", "0.1", "0.2"], "must begin with 0"),
        (["--l2", "0"], "must hold at least two values"),
        (["--dropout", "0", "1"], "must be below 1"),
        (["--batch-sizes", "3", "256"], "must divide n=256"),
        (["--batch-sizes", "16", "64"], "and end with it"),
        (["--curve-n", "100", "256"], "must all divide the last"),
        (["--batch", "300"], "batch=300 must be at most 256"),
        (["--norm-rates", "1", "0.1"], "must be ascending"),
        (["--data", "cifar10"], "must be among digits, mnist, fashion_mnist"),
        (["--recipe-dropuot", "0.1"], "did you mean --recipe-dropout?"),
    ],
)
def test_bad_options_are_one_sentence_and_exit_2(arguments, text, capsys):
    assert study.main(arguments) == 2
    said = capsys.readouterr().err
    assert text in said
    assert said.count("\n") == 1


def test_more_examples_than_there_are():
    with pytest.raises(command.BadInput, match="more than the 1038 of digits beside validation_n=400"):
        study.sweeps(study.Config(curve_n=(32, 2048)))


def test_presets_are_what_they_say():
    assert set(study.PRESETS) == {"quick", "standard", "full"}
    assert study.PRESETS["quick"] == study.Config()
    assert min(study.PRESETS[name].seeds for name in study.PRESETS) >= 5


# The claims

ROBUST = (
    "linear regression trained with an L2 penalty ends on the ridge path",
    "gradient descent stopped at time t is gradient flow",
    "stopping at t costs little more than ridge at strength 1/t",
    "the best stopping time is nearly as good as the best ridge",
    "an L2 penalty chosen on validation data lowers the test error",
    "and fewer wrong labels are memorized",
    "weights shrink all along the L2 path",
    "strength nu and strength 2 m nu of the per-sample form give the same nets",
    "an L1 penalty chosen on validation data lowers the test error",
    "L1 sends weights to zero, L2 makes them small",
    "dropout at a rate chosen on validation data lowers the test error",
    "the parameters of the least validation loss beat the last ones",
    "the parameters returned are those of that epoch",
    "batch norm before the activation stands larger learning rates",
    "the textbook recipe beats itself with N(0, 0.01²) for He",
    "without a penalty the gap closes from n = 32 to 1024",
    "n = 1024: the penalty chosen on validation data lowers the test error",
    "n = 256, no penalty: the diagnosis is that it overfits",
    "n = 256, the strongest penalty: the diagnosis is that it underfits",
)


@pytest.mark.slow
def test_quick_shows_what_the_study_claims():
    """The falsifiable checks of the study, on the default preset; what is open there is not asked for."""
    start = time.monotonic()
    tree = study.run(study.PRESETS["quick"])
    verdicts = {row.claim: row.verdict for row in study.report(tree)}
    assert {claim: verdicts[claim] for claim in ROBUST if verdicts[claim] not in ("holds", "agrees")} == {}
    assert int(sum(tree[name]["diverged"].sum() for name in ("linear", "l2", "l1", "dropout", "learning_curves"))) == 0
    memorized = tree["l2"]["memorized"].isel(strength=0)
    assert float(memorized.min()) == 1.0, "without a penalty every wrong label is given back"
    print(f"quick took {time.monotonic() - start:.0f} s")


@pytest.mark.slow
def test_variants_of_the_recipe_are_what_they_are_called():
    """The variant without dropout is the full recipe at rate 0, and so on: one program against another."""
    data = study._examples(TINY)
    config = study.TrainConfig(steps=10, batch_size=20)

    def lane(variant, dropout=0.5, normalize="before"):
        hparams = {"variant": jnp.asarray(variant), "rate": jnp.asarray(0.05), "seed": jnp.asarray(0)}
        found = lanes.recipe_lane(
            jax.random.key(0), hparams, data, normalize=normalize, n=40, hidden=(8, 8), dropout=dropout, config=config
        )
        return float(found["validation_loss"])

    full = [lane(variant) for variant in range(len(lanes.VARIANTS))]
    assert len(set(full)) == len(full)
    assert lane(lanes.VARIANTS.index("without dropout")) == pytest.approx(lane(0, dropout=0.0), rel=1e-5)
    assert lane(0, normalize="none") not in full
