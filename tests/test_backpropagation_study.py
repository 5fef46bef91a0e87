"""The backpropagation study: a tiny run, its report and figures, bad input, and what quick must show."""

import jax
import numpy as np
import pytest
import xarray as xr

from experiments import _backpropagation_figures as figures
from experiments import _backpropagation_lanes as lanes
from experiments import _backpropagation_report as reporting
from experiments import backpropagation as study
from nnjax import results
from tests.lost_lanes import each_lost

TINY = {
    "example_updates": 20, "depths": (2,), "differences_depth": 2, "agreement_width": 3, "agreement_seeds": 2,
    "data": "iris", "train_n": 60, "validation_n": 30, "hidden": 4, "epochs": 3, "batch_size": 16, "rates": (0.1, 0.3),
    "forms_seeds": 2, "starts": (4.0,), "percolation_seeds": 24, "percolation_epochs": 40, "online_rates": (0.2,),
    "vanishing_depths": (2, 3), "vanishing_width": 20, "vanishing_seeds": 2, "spreads": (0.0, 1e-3),
    "symmetry_epochs": 20,
}  # fmt: skip


@pytest.fixture(scope="module")
def tree():
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)  # which take longer than running nets this small
    try:
        return study.run(study.Config(**TINY))
    finally:
        jax.config.update("jax_disable_most_optimizations", before)


def test_tiny_run_fills_every_panel_and_none_diverges(tree):
    assert set(tree.children) == {
        "example", "agreement", "differences", "batch_forms", "percolation", "online", "vanishing", "symmetry",
    }  # fmt: skip
    assert not any(int(group["diverged"].sum()) for group in tree.children.values())
    forms = tree["batch_forms"]
    assert dict(forms.sizes) == {"form": 3, "rate": 2, "seed": 2, "mark": 4}
    np.testing.assert_array_equal(forms["updates"].isel(mark=-1), [3, 12, 180])
    np.testing.assert_array_equal(forms["examples"], [60, 16, 1])
    start = forms["train_loss"].isel(mark=0)
    assert float(np.ptp(start.values, axis=(0, 1)).max()) < 1e-6  # every form from the same weights


def test_exact_claims_hold_however_small_the_run(tree):
    rows = {row.claim: row for row in study.report(tree)}
    said = {claim: row.verdict for claim, row in rows.items()}
    assert said["2-2-2 example: by hand and by autodiff stay together over 20 updates"] == "holds"
    assert said["2-2-2 example: loss after one update, weights only"] == "given by the slip, update 1"
    assert said["2-2-2 example: the eight weights after one update, weights only"] == "reproduced"
    assert said["2-2-2 example: loss after one update of weights and biases"] == "reproduced"
    assert said["2-2-2 example: loss after 20 updates"] == "not reproduced"  # the published one is after 10,000
    assert said["hidden units that start equal stay equal through 20 epochs"] == "holds"
    assert sum("gradient by hand equals autodiff" in claim and v == "holds" for claim, v in said.items()) == 2
    assert all(
        isinstance(field, str) or name == "seeds" for row in rows.values() for name, field in row._asdict().items()
    )


def test_figures_are_made_from_what_a_folder_holds(tree, tmp_path):
    results.write_tree(tmp_path / "results.nc", tree)
    made = study.plot(results.read_tree(tmp_path / "results.nc"))
    assert set(made) == {"agreement", "example", "batch_forms", "back_percolation", "depth_and_symmetry"}
    for name, figure in made.items():
        figure.savefig(tmp_path / f"{name}.png")
        labels = [axes.get_xlabel() and axes.get_title() for axes in figure.axes]
        assert all(labels), name


def test_evaluations_are_distinct_updates_up_to_the_last():
    for form, examples, total in (("batch", 100, 20), ("mini-batch", 32, 80), ("online", 1, 2000)):
        size, marks = lanes.updates_of(form, 100, 32, 20)
        assert size == examples
        assert len(marks) == 21
        assert marks[0] == 0
        assert marks[-1] == total
        assert (np.diff(marks) > 0).all()


def test_the_slip_is_no_gradient_and_autodiffs_update_is():
    with jax.enable_x64(True):
        params = lanes.example_start()
        rates = jax.tree.map(lambda leaf: np.full(leaf.shape, 0.5), params)
        right, wrong = lanes.autodiff_update(params, rates), lanes.slipped_update(params, rates)
    np.testing.assert_allclose(wrong.weights[1], right.weights[1], rtol=1e-15)
    assert np.abs(wrong.weights[0] - right.weights[0]).max() > 1e-5


def test_theory_of_wide_nets_in_known_cases():
    """ReLU with weight variance 1/width halves mean squares exactly; tanh and logistic shrink them."""
    logistic, tanh, relu = study.wide_ratio((1, 2, 5))
    np.testing.assert_allclose(relu, [1, 0.5**0.5, 0.5**2], rtol=1e-12)
    np.testing.assert_allclose([logistic[0], tanh[0]], 1)
    assert (np.diff(logistic) < 0).all()
    assert logistic[2] < 0.25**4 < tanh[2]  # a logistic slope is at most 1/4


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NumPy's, of numbers that are not finite
def test_a_report_is_made_where_lanes_are_lost(tree):
    claims = [row.claim for row in study.report(tree)]
    for lost in each_lost(tree):
        assert len(study.report(lost)) == len(claims)


def test_selection_and_intervals():
    assert reporting.share_interval(19, 20) == pytest.approx((0.764, 0.991), abs=1e-3)
    middle, low, high = reporting.median_interval(np.array([*range(1, 100), np.inf]))
    assert (middle, low, high) == (50, 41, 60)
    step = np.logspace(-8, 0, 50)
    assert reporting.slope(step, 3 * step**2, 1e-3, 1e-1) == pytest.approx(2)
    assert np.isnan(reporting.slope(step, np.full(50, np.nan), 1e-3, 1e-1))


@pytest.mark.parametrize(
    ("hits", "xor", "encoder"),
    [(100, "holds", "holds"), (99, "holds", "fails"), (92, "open", "fails"), (80, "fails", "fails")],
)
def test_a_share_that_its_interval_leaves_undecided_is_open(tree, hits, xor, encoder):
    percolation, online = tree["percolation"].to_dataset(), tree["online"].to_dataset()
    epochs = np.where(np.arange(120) < 20 + hits, 5, -1)
    percolation = percolation.isel(seed=np.arange(120) % 24)
    percolation["epochs"] = percolation["epochs"] * 0 + xr.DataArray(epochs, dims="seed")
    rows = reporting._percolation_rows(percolation, online)
    said = [row.verdict for row in rows if row.claim.startswith("back-percolation solves")]
    assert said == [xor, encoder]


def test_start_and_rate_are_chosen_on_the_first_starts_only():
    epochs = np.full((1, 2, 2, 24), 5)
    epochs[:, 1, 1, :20] = 4  # the quickest setting where it counts
    epochs[..., 0, :20] = 9  # the first rate is slower there,
    epochs[..., 0, 20:] = 1  # and faster on the starts that are reported
    online = xr.Dataset(
        {"epochs": (("problem", "start", "rate", "seed"), epochs)},
        {"problem": ["xor"], "start": [1.0, 2.0], "rate": [0.1, 0.2]},
        {"selection": 20, "limit": 40},
    )
    assert figures.best_setting(online, "xor") == {"start": 2.0, "rate": 0.2}
    assert figures.solved(online.sel(problem="xor", start=1.0, rate=0.1)).tolist() == [1, 1, 1, 1]


BAD = {
    "percolation_seeds": (["--percolation-seeds", "20"], "percolation_seeds=20 must be at least 22"),
    "data": (["--data", "digit"], "data='digit' must be among digits"),
    "start": (["--start", "3"], "start=3 must be one of starts=(1.0, 2.0, 4.0, 8.0)"),
    "batch": (["--batch-size", "1000"], "batch_size=1000 must be below train_n=1000"),
    "empty": (["--depths"], "depths is empty"),
    "order": (["--rates", "0.1", "0.01"], "rates=(0.1, 0.01) must be ascending"),
    "rate": (["--rates", "0", "0.1"], "rates=(0.0, 0.1) must be positive"),
    "nan": (["--rates", "nan"], "rates=nan must be at least 0"),
    "examples": (["--train-n", "1400", "--dry-run"], "more than the 1438 training examples of digits"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_sentence_and_exit_2(name, capsys):
    arguments, words = BAD[name]
    assert study.main(arguments) == 2
    said = capsys.readouterr().err
    assert words in said
    assert said.startswith("backpropagation: ")
    assert said.count("\n") == 1


@pytest.mark.slow
def test_quick_shows_what_the_study_claims(tmp_path):
    """The falsifiable checks, on the default command."""
    assert study.main(["--out", str(tmp_path / "quick")]) == 0
    tree = results.read_tree(tmp_path / "quick" / "results.nc")
    said = {row.claim: row.verdict for row in study.report(tree)}
    # Measured to fail: with both rates chosen on validation data online learning is a little behind mini-batches.
    known = {"digits, n = 1000: online learning is ahead of mini-batch after 20 epochs"}
    wrong = {claim for claim, verdict in said.items() if verdict in ("fails", "open", "not reproduced")}
    assert wrong <= known
    assert said["2-2-2 example: loss after 10,000 updates"] == "given by the gradient, update 9,999"
    assert said["2-2-2 example: first output after 10,000 updates"] == "given by the slip, update 10,000"
    for words in ("solves XOR", "solves the 8-5-8 encoder", "mini-batch learning is ahead of batch",
                  "smaller batches want smaller", "hidden logistic layers", "stay equal"):  # fmt: skip
        (verdict,) = [v for claim, v in said.items() if words in claim]
        assert verdict == "holds", words
    assert not any(int(tree[group]["diverged"].sum()) for group in tree.children)
