"""The report of the double-descent study on made-up results: what has no peak must not be said to have one."""

import numpy as np
import pytest
import xarray as xr

from experiments import _double_descent_report as reporting
from experiments import double_descent as study

WIDTHS = [2, 4, 8, 16, 32, 64]


def nets(curve, n=1000, noise=0.2, seeds=5, spread=0.002, loss=None):
    """Results of a net sweep whose final test error follows ``curve``."""
    rng = np.random.default_rng(0)
    shape = (1, len(WIDTHS), seeds, 2)

    def curves(values):
        return np.asarray(values)[None, :, None, None] + spread * rng.normal(size=shape)

    dims = ("noise", "width", "seed", "step")
    error = curves(curve)
    found = {
        "test_error": (dims, error), "train_error": (dims, curves(np.linspace(0.5, 0, len(WIDTHS)))),
        "test_loss": (dims, curves(curve if loss is None else loss)),
        "train_loss": (dims, curves(np.zeros(len(WIDTHS)))),
        "early_error": (dims[:3], error[..., 0]), "early_loss": (dims[:3], error[..., 0]),
    }  # fmt: skip
    coords = {"noise": [noise], "width": WIDTHS, "seed": range(seeds), "step": [0, 100]}
    return xr.Dataset(found, coords, {"n": n, "data": "made up", "inputs": 64, "classes": 10})


PEAKED = [0.5, 0.2, 0.25, 0.4, 0.3, 0.22]
FALLING = np.linspace(0.5, 0.1, 6)


def verdicts(rows):
    return {row.claim.rpartition(": ")[2]: row.verdict for row in rows}


def test_a_peak_is_found_and_judged():
    found = verdicts(reporting._side_rows(nets(PEAKED), "nets"))
    assert found["test error has an interior peak"] == "holds"
    assert found["the widest net beats the peak"] == "holds"
    assert found["which side of the peak wins"] == "narrow side"


@pytest.mark.parametrize("curve", [FALLING, FALLING[::-1], np.full(6, 0.3)])
def test_a_curve_without_a_peak_passes_no_check_of_one(curve):
    found = verdicts(reporting._side_rows(nets(curve), "nets"))
    assert "holds" not in found.values()
    assert found["the widest net beats the peak"] == "no peak"
    assert found["early stopping on noisy validation labels flattens the peak"] == "no peak"


def test_early_stopping_that_changes_nothing_does_not_flatten():
    found = verdicts(reporting._side_rows(nets(PEAKED), "nets"))
    assert found["early stopping on noisy validation labels flattens the peak"] == "fails"


def test_the_moving_peak_moves_only_where_it_does():
    later = [0.5, 0.2, 0.22, 0.25, 0.4, 0.22]
    moved = reporting._moving_peak_rows(nets(later), nets(PEAKED, n=500))
    assert {row.verdict for row in moved} == {"holds"}
    back = reporting._moving_peak_rows(nets(PEAKED), nets(later, n=500))
    assert {row.verdict for row in back} == {"fails"}
    none = reporting._moving_peak_rows(nets(FALLING), nets(PEAKED, n=500))
    assert {row.verdict for row in none} == {"open"}


def features(at, grid=None, seeds=20):
    """Random-features results that peak at ``at`` (one value, or one a seed)."""
    ratio = np.round(np.arange(0.05, 2.01, 0.05), 2) if grid is None else grid
    where = np.broadcast_to(np.asarray(at, float), seeds)
    error = 0.2 + 0.6 * np.exp(-(((ratio[None] - where[:, None]) / 0.04) ** 2))
    coords = {"ratio": ratio, "seed": range(seeds), "noise": 0.2}
    return xr.Dataset({"test_error": (("seed", "ratio"), error)}, coords)


@pytest.mark.parametrize(
    ("at", "said"),
    [(1.0, "reproduced"), (1.05, "inconclusive"), (1.1, "not reproduced"), (0.8, "not reproduced")],
)
def test_where_the_features_peak_is_judged_with_the_grid_in_mind(at, said):
    first, second = reporting._feature_peak_rows(features(at), "features")
    assert first.verdict == said
    assert second.verdict == "holds"


def test_a_low_peak_is_no_doubling():
    low = features(1.0)
    low["test_error"] = 0.3 + 0.2 * low["test_error"]
    assert reporting._feature_peak_rows(low, "features")[1].verdict == "fails"


@pytest.mark.parametrize("at", [0.05, 2.0])
def test_a_peak_at_an_end_is_no_peak(at):
    first, second = reporting._feature_peak_rows(features(at), "features")
    assert (first.verdict, second.verdict) == ("not reproduced", "fails")


def test_features_that_are_lost_have_their_rows():
    lost = features(1.0)
    lost["test_error"] = xr.full_like(lost["test_error"], np.nan)
    assert not {"reproduced", "holds"} & {row.verdict for row in reporting._feature_peak_rows(lost, "features")}


def test_theory_needs_draws_and_agreement():
    assert reporting._agreement(np.full(20, 0.5), 300) == "agrees"
    assert reporting._agreement(np.full(20, 0.5), 100) == "inconclusive"
    assert reporting._agreement(np.append(np.full(30, 0.5), 5.5), 300) == "differs"
    assert reporting._agreement(np.append(np.full(18, 0.5), [3.5, 3.6]), 300) == "differs"


@pytest.mark.parametrize(
    "change",
    [
        {"mlp_widths": (8, 4, 2)}, {"mlp_widths": (4, 4, 8)}, {"mlp_widths": (4, 8)}, {"noise": (0.2, 0.0)},
        {"seed": 2**31},
        {"mlp_learning_rate": float("nan")}, {"features_n": (210,)}, {"features_kinds": ()}, {"mlp_smaller_n": 1000},
        {"features_data": "iris"}, {"cnn": "vgg"}, {"cnn": "cnn", "cnn_batch": 5000}, {"mlp_seeds": 1},
    ],
    ids=str,
)  # fmt: skip
def test_configurations_that_make_no_sense_are_refused(change):
    with pytest.raises(ValueError, match=next(iter(change)).split("_")[0]):
        study.Config(**change)


def test_the_grid_is_fine_round_the_threshold():
    quick, standard = study.ratios(0.05), study.ratios(0.1)
    assert max(np.diff([r for r in quick if r <= 2])) < 0.05 + 1e-9
    assert {0.9, 0.95, 1.0, 1.05, 1.1} <= set(standard)
    assert min(abs(p - 100) for p in study.linear_sizes(100)) > 5
