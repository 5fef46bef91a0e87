"""The pooling study: its parts one by one, a tiny run of everything, bad input, and quick's claims."""

import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

from experiments import _pooling_lanes as lanes
from experiments import _pooling_report as reporting
from experiments import command
from experiments import pooling as study
from nnjax import results
from tests.lost_lanes import each_lost

TINY = study.Config(
    seeds=2, canvas=16, windows=(1, 2, 16), shift=3, near=1, channels=2, n=20, validation_n=10, test_n=12, steps=3,
    batch=10,
)  # fmt: skip
RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def tiny(unoptimized):
    """The panel at its smallest."""
    with unoptimized():
        return study.run(TINY)


def test_a_tiny_run_fills_the_panel(tiny):
    panel = tiny["pooling"].to_dataset()
    assert dict(panel.sizes) == {"window": 3, "kind": 3, "spread": 2, "seed": 2, "shift": 7}
    assert list(panel["kind"].values) == list(lanes.KINDS)
    for name in ("error", "same", "change"):
        assert ((panel[name] >= 0) & (panel[name] <= 1.0 + (name == "change"))).all(), name
    assert (panel["same"].sel(shift=0) == 1).all()
    assert (panel["change"].sel(shift=0) == 0).all()
    assert not panel["diverged"].any()


def test_the_identities_hold_in_a_trained_net(tiny):
    panel = tiny["pooling"].to_dataset()
    assert float(panel["equivariance"].isel(window=slice(0, 2)).max()) < 1e-5
    assert float(panel["equivariance"].isel(window=2).sel(kind=["max", "average"]).max()) < 1e-5
    one = panel.isel(window=0)
    # A stride as wide as the canvas: no shift is as long.
    assert panel["equivariance"].isel(window=slice(0, 2)).notnull().all()
    for name in ("error", "change", "rmse"):
        np.testing.assert_array_equal(one[name].sel(kind="max"), one[name].sel(kind="strided"))
        np.testing.assert_array_equal(one[name].sel(kind="max"), one[name].sel(kind="average"))
    # The whole canvas pooled: no answer changes.
    assert (panel["same"].isel(window=2).sel(kind=["max", "average"]) == 1).all()
    assert float(panel["change"].isel(window=1).sel(shift=3).min()) > 0.01, "a window between does change"


def test_every_row_and_figure_is_made_from_a_stored_tree(tiny, tmp_path):
    results.write_tree(tmp_path / "results.nc", tiny)
    tree = results.read_tree(tmp_path / "results.nc")
    rows = study.report(tree)
    assert len({row.claim for row in rows}) == len(rows) == 17
    allowed = {"holds", "fails", "open", "agrees", "differs", "max", "average", "neither"}
    assert {row.verdict for row in rows} <= allowed
    figures = study.plot(tree)
    assert set(figures) == {"pooling", "shifts", "trade"}
    for figure in figures.values():
        figure.savefig(tmp_path / "figure.png")


def _panel(gap):
    """Results in which every claim holds by ``gap`` or more on average, seeds apart by a little."""
    windows, shifts = np.array([1, 4, 8, 24]), np.arange(-7, 8)
    pooled = (windows > 1)[:, None, None, None]
    seen = np.array([False, True])[None, None, :, None]
    pools = np.array([2, 3, 0])[None, :, None, None] / 2 * pooled  # more from the average than from the maximum
    number = np.arange(4)[:, None, None, None] * np.array([1, 2, 4])[None, :, None, None]
    noise = (1 + number + 20 * seen) * np.array([-1.0, 0.0, 1.0]) / 1000
    error = 0.5 - gap * pools - gap * seen + noise
    place = 2 - gap * pools * (2 * seen - 1) + noise
    place[-1] = reporting.chance(7) + noise[-1]
    change = 0.5 - gap * pools + noise
    dims = ("window", "kind", "spread", "seed")
    over_shifts = {name: ((*dims, "shift"), np.broadcast_to(each[..., None], (*each.shape, 15)))
                   for name, each in (("error", error), ("change", change))}  # fmt: skip
    exact = np.broadcast_to(np.where(windows == 8, np.nan, 1e-6)[:, None, None, None], error.shape)
    return xr.Dataset(
        {**over_shifts, "rmse": (dims, place), "equivariance": (dims, exact.copy())},
        {"window": windows, "kind": list(lanes.KINDS), "spread": [0, 7], "seed": [0, 1, 2], "shift": shifts},
        {"near": 2},
    )


def _verdicts(panel):
    return [row.verdict for row in study.report(xr.DataTree.from_dict({"pooling": panel}))]


@pytest.mark.parametrize(
    ("gap", "said", "pools"), [(0.1, "holds", ["average"]), (-0.1, "fails", ["max"]), (0.0, "open", ["neither"])]
)
def test_verdicts_follow_the_paired_intervals(gap, said, pools):
    verdicts = _verdicts(_panel(gap))
    assert verdicts[:4] == ["agrees"] * 4
    assert verdicts[4:12] == [said] * 8
    # What is read worse when trained in the middle is the other pool.
    assert verdicts[12:14] == [{"average": "max", "max": "average"}.get(pools[0], "neither"), *pools]
    assert verdicts[14:] == [said] * 3


@pytest.mark.parametrize("off", [1e-3, -1e-3])
def test_an_identity_that_is_broken_differs(off):
    panel = _panel(0.1)
    panel["rmse"][0, 1, 0, 0] += off
    assert _verdicts(panel)[:4] == ["agrees", "agrees", "differs", "agrees"]
    panel["equivariance"][1, 0, 0, 0] = abs(off)
    assert _verdicts(panel)[:4] == ["differs", "agrees", "differs", "agrees"]
    panel["equivariance"][3, 0, 0, 0] = abs(off)
    panel["rmse"][3] += 400 * off
    assert _verdicts(panel)[:4] == ["differs"] * 4


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NumPy's, of numbers that are not finite
def test_a_report_is_made_where_lanes_are_lost():
    for lost in each_lost(xr.DataTree.from_dict({"pooling": _panel(0.1)})):
        rows = study.report(lost)
        assert len(rows) == 17
        assert not {"holds", "agrees"} & {row.verdict for row in rows}


def test_equivariance_names_the_windows_that_a_shift_is_as_long_as():
    panel = _panel(0.1)
    first = study.report(xr.DataTree.from_dict({"pooling": panel}))[0]
    assert "by whole windows (1, 4 px)" in first.claim
    x = jnp.asarray(lanes.centered(RNG.random((2, 8, 8, 1)).astype(np.float32), 16))
    assert float(lanes._equivariance(lambda x: lanes.pool(x, 4, 0), x, 4, 4)) == 0
    assert np.isnan(lanes._equivariance(lambda x: lanes.pool(x, 4, 0), x, 3, 4))
    assert float(lanes._equivariance(lambda x: lanes.pool(x, 4, 0) * jnp.arange(16.0).reshape(1, 4, 4, 1), x, 4, 4)) > 0


# The parts


def test_pools_take_one_value_a_window():
    x = RNG.normal(size=(2, 6, 6, 3)).astype(np.float32)
    windows = x.reshape(2, 3, 2, 3, 2, 3)
    expected = {"max": windows.max((2, 4)), "average": windows.mean((2, 4)), "strided": windows[:, :, 0, :, 0]}
    for number, kind in enumerate(lanes.KINDS):
        np.testing.assert_allclose(lanes.pool(x, 2, number), expected[kind], rtol=1e-5, atol=1e-6)


def test_a_stride_is_a_convolution_of_that_stride():
    x, kernel = RNG.normal(size=(2, 8, 8, 1)).astype(np.float32), RNG.normal(size=(3, 3, 1, 4)).astype(np.float32)
    whole = jax.lax.conv_general_dilated(
        x, kernel, (1, 1), [(1, 1), (1, 1)], dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    strided = jax.lax.conv_general_dilated(
        x, kernel, (2, 2), [(1, 1), (1, 1)], dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    np.testing.assert_allclose(lanes.pool(whole, 2, lanes.KINDS.index("strided")), strided, rtol=1e-5, atol=1e-5)


def test_pictures_stand_in_the_middle_and_move_whole():
    x = 1 + RNG.random((3, 8, 8, 1)).astype(np.float32)
    placed = lanes.centered(x, 16)
    assert placed.shape == (3, 16, 16, 1)
    np.testing.assert_array_equal(placed[:, 4:12, 4:12], x)
    assert placed.sum() == pytest.approx(x.sum())
    by = np.array([[3, -3], [0, 2], [-1, 0]])
    now = np.asarray(lanes.moved(placed, by))
    for picture, (down, right), original in zip(now, by, x, strict=True):
        np.testing.assert_array_equal(picture[4 + down : 12 + down, 4 + right : 12 + right], original)


def test_the_largest_shift_keeps_the_convolutions_rim_on_the_canvas():
    x = lanes.centered(1 + RNG.random((1, 8, 8, 1)).astype(np.float32), 16)
    kernel = np.ones((3, 3, 1, 1), np.float32)
    most = lanes.largest_shift(8, 16)
    assert most == 3

    def total(shift):
        z = jax.lax.conv_general_dilated(
            np.roll(x, shift, 1), kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        return float(z.sum())

    assert total(most) == pytest.approx(total(0), rel=1e-6)
    assert total(-most) == pytest.approx(total(0), rel=1e-6)
    assert total(most + 1) < total(0) * 0.99


def test_places_are_uniform():
    places = np.asarray(lanes.random_places(jax.random.key(0), 5000, 2))
    assert places.shape == (5000, 2)
    values, counts = np.unique(places, return_counts=True)
    np.testing.assert_array_equal(values, [-2, -1, 0, 1, 2])
    assert np.abs(counts - 2000).max() < 4 * np.sqrt(10_000 * 0.2 * 0.8)


def test_what_guessing_and_a_window_leave_of_a_place():
    for shift in (1, 3, 7):
        assert reporting.chance(shift) == pytest.approx(np.std(np.arange(-shift, shift + 1)))
    for window in (1, 2, 8):
        assert reporting.point(window) == pytest.approx(np.std(np.arange(window)))


def _read(features, n=800):
    """Places read from features of pictures that are one lit pixel."""
    x = np.zeros((n, 9, 9, 1), np.float32)
    x[:, 4, 4] = 1
    found = lanes._position(features, jax.random.key(1), {"train": x, "validation": x[:50], "test": x[:80]}, 3)
    return {name: float(value) for name, value in found.items()}


def test_places_are_read_from_features_that_tell_them_and_only_guessed_from_others():
    seen = _read(lambda x: x)
    assert seen["rmse"] < 0.1
    assert seen["r2"] > 0.99
    blind = _read(lambda x: x.sum((1, 2)))
    assert blind["rmse"] == pytest.approx(reporting.chance(3), rel=0.1)
    assert abs(blind["r2"]) < 0.2


def test_the_read_out_is_ridge_regression():
    linear_model = pytest.importorskip("sklearn.linear_model")
    pictures = {name: RNG.random((n, 9, 9, 1)).astype(np.float32)
                for name, n in (("train", 60), ("validation", 30), ("test", 40))}  # fmt: skip
    key, mixing = jax.random.key(2), RNG.normal(size=(81, 12)).astype(np.float32)

    def features(x):
        return jnp.tanh(x.reshape(len(x), -1) @ mixing)

    found = lanes._position(features, key, pictures, 2)
    values, places = {}, {}
    for number, (name, x) in enumerate(pictures.items()):
        places[name] = np.asarray(lanes.random_places(jax.random.fold_in(key, number), len(x), 2))
        values[name] = np.asarray(features(lanes.moved(x, places[name])), np.float64)
    squares = np.square(values["train"] - values["train"].mean(0)).sum()
    errors = {}
    for strength in lanes.STRENGTHS:
        ridge = linear_model.Ridge(alpha=strength * squares).fit(values["train"], places["train"])
        errors[strength] = [np.square(ridge.predict(values[s]) - places[s]).mean() for s in ("validation", "test")]
    best = min(errors, key=lambda strength: errors[strength][0])
    assert float(found["strength"]) == pytest.approx(best)
    assert float(found["rmse"]) == pytest.approx(np.sqrt(errors[best][1]), rel=1e-3)
    assert float(found["r2"]) == pytest.approx(1 - errors[best][1] / 2, rel=1e-2, abs=1e-3)


def test_change_is_zero_without_any_and_one_with_nothing_in_common():
    x = np.zeros((4, 9, 9, 1), np.float32)
    x[:, 4, 4, 0] = np.arange(1, 5)
    y = np.zeros(4, int)

    def logits(values):
        return values.reshape(len(values), -1)[:, :2]

    pixels = lanes._when_moved(lambda x: x + 3, logits, x, y, 2)  # what is there without a picture does not count
    np.testing.assert_allclose(pixels["change"], [1, 1, 0, 1, 1], atol=1e-5)
    np.testing.assert_allclose(pixels["error"], 0)
    summed = lanes._when_moved(lambda x: x.sum((1, 2), keepdims=True), logits, x, y, 2)
    np.testing.assert_allclose(summed["change"], 0, atol=1e-12)
    np.testing.assert_allclose(summed["same"], 1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"windows": (1, 2, 4)}, "must go from 1 to the canvas, 24"),
        ({"windows": (1, 24)}, "with one between"),
        ({"windows": (1, 5, 24)}, "must all divide canvas=24"),
        ({"windows": (4, 2, 24)}, "must be ascending"),
        ({"shift": 8}, "shift=8 must be at most 7 for digits on canvas=24"),
        ({"data": "mnist"}, "shift=7 must be at most -3 for mnist"),
        ({"data": "digit"}, "did you mean 'digits'"),
        ({"near": 8}, "near=8 must be at most shift=7"),
        ({"batch": 700}, "batch=700 must be at most n=600"),
        ({"seeds": 1}, "seeds=1 must be at least 2"),
    ],
)
def test_bad_values_are_one_sentence(changes, message):
    with pytest.raises(ValueError, match=message):
        study.Config(**changes)


def test_more_pictures_than_there_are():
    with pytest.raises(command.BadInput, match="more than the 1438 training pictures of digits"):
        study.sweeps(study.Config(n=1400, validation_n=100))


def test_presets_are_sound():
    assert list(study.PRESETS) == ["quick", "standard", "full"]
    for config in study.PRESETS.values():
        assert config.windows[len(config.windows) // 2] > 1


@pytest.mark.slow
def test_quick_shows_what_the_study_claims(tmp_path):
    start = time.monotonic()
    assert study.main(["--out", str(tmp_path / "quick")]) == 0
    rows = {row.claim: row.verdict for row in study.report(results.read_tree(tmp_path / "quick" / "results.nc"))}
    assert "differs" not in rows.values(), rows
    for words in (
        "max pooling over 4 x 4 lowers the error on slightly moved pictures",
        "max pooling over 8 x 8 loses the place",
        "a stride without a pool is less invariant than max pooling",
        "a stride without a pool is less invariant than average pooling",
        "and with max pooling over 4 x 4 it lowers it further",
    ):
        assert rows[words] == "holds", words
    print(f"quick took {time.monotonic() - start:.0f} s")
