"""The augmentation study: its changes and measures one by one, a tiny run of all panels, bad input, quick's claims."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
import xarray as xr

from experiments import _augmentation_lanes as lanes
from experiments import _augmentation_report as reporting
from experiments import augmentation as study
from experiments import command
from nnjax import results

TINY = study.Config(
    seeds=2, n=(20, 40), strengths=(0.25, 1.0), features=(2,), hidden=(4,), steps=4, batch=10, validation_n=20,
    test_n=20, moved_n=10,
)  # fmt: skip


@pytest.fixture(scope="module")
def tiny(unoptimized):
    """Every panel at the smallest size."""
    with unoptimized():
        return study.run(TINY)


def test_a_tiny_run_fills_every_panel(tiny):
    assert list(tiny.children) == ["augmentation", "pictures"]
    assert dict(tiny["augmentation"].sizes) == {
        "kind": 8, "strength": 3, "n": 2, "seed": 2, "angle": 9, "shift": 9,
    }  # fmt: skip
    for name in ("test_error", "turned_error", "moved_error", "mirrored_error", "confused"):
        values = tiny["augmentation"][name].values
        assert ((values >= 0) & (values <= 1)).all(), name
    assert dict(tiny["pictures"].sizes) == {"kind": 8, "strength": 2, "row": 12, "column": 12, "channel": 1}
    assert len(study.report(tiny)) == 18
    assert list(study.plot(tiny)) == ["augmentation", "examples", "invariance", "pictures"]


def test_strength_0_is_training_without_changes_and_strengths_are_eight_others(tiny, monkeypatch):
    loss = tiny["augmentation"]["test_loss"].isel(n=0, seed=0)
    call = study.sweeps(TINY)["augmentation"]
    monkeypatch.setattr(lanes, "changed", lambda key, x, strengths, fill: x)
    hparams = {"arm": 0, "n": TINY.n[0], "seed": 0}
    plain = jax.jit(call.args[0])(jax.random.fold_in(call.keywords["key"], 0), hparams, call.keywords["data"])
    np.testing.assert_allclose(loss.isel(strength=0), plain["test_loss"], rtol=1e-5)
    strong = loss.isel(strength=-1).values
    assert len(np.unique(strong)) == 8


def test_an_upright_picture_is_one_that_is_not_moved(tiny):
    panel = tiny["augmentation"].to_dataset()
    at = panel["moved_error"].sel(shift=0, drop=True), panel["turned_error"].sel(angle=0, drop=True)
    np.testing.assert_array_equal(*(each.values for each in at))
    a, b = (panel["turned_error"].sel(angle=angle, drop=True) for angle in (-180, 180))
    np.testing.assert_array_equal(a.values, b.values)


def test_arms_are_each_change_alone_and_all_together():
    table = lanes.arms((0.5, 1.0))
    assert table.shape == (1 + 8 * 2, 6)
    assert not table[0].any()
    for place, change in enumerate(lanes.CHANGES):
        rows = table[1 + 2 * place : 3 + 2 * place]
        np.testing.assert_array_equal(rows, np.outer([0.5, 1.0], np.arange(6) == place), err_msg=change)
    np.testing.assert_array_equal(table[-4:-2], np.outer([0.5, 1.0], np.ones(6)))
    np.testing.assert_array_equal(table[-2:], np.outer([0.5, 1.0], np.array(lanes.CHANGES) != "mirror"))
    axes = lanes.as_axes(np.arange(17), 2)
    assert axes.tolist()[:2] == [[0, 1, 2], [0, 3, 4]]


def test_no_strength_gives_the_pictures_back_bit_for_bit_and_one_program_serves_all_arms():
    x = jax.random.uniform(jax.random.key(0), (5, 12, 12, 1))
    count = []

    @jax.jit
    def change(row):
        count.append(1)
        return lanes.changed(jax.random.key(1), x, row, "zeros")

    table = lanes.arms((1.0,))
    assert np.array_equal(change(table[0]), x)
    for row in table[1:]:
        made = change(row)
        assert not np.array_equal(made, x)
        assert float(made.min()) >= 0
        assert float(made.max()) <= 1
    assert len(count) == 1


def test_turned_and_shifted_pictures_are_what_scipy_makes():
    x = np.asarray(jax.random.uniform(jax.random.key(0), (2, 11, 11, 1)))
    turned = jax.jit(lambda degrees: lanes.turned(x, degrees, "zeros"))
    np.testing.assert_allclose(turned(180.0), x[:, ::-1, ::-1], atol=1e-5)
    np.testing.assert_allclose(turned(90.0), np.rot90(x, -1, (1, 2)), atol=1e-5)  # clockwise as it is shown
    moved = jax.jit(lambda by: lanes.shifted(x, by, "zeros"))(jnp.asarray([2.5, -1.0]))
    expected = scipy.ndimage.shift(x, (0, 2.5, -1, 0), order=1, mode="grid-constant")
    np.testing.assert_allclose(moved, expected, atol=1e-5)


def test_confused_counts_both_ways_among_the_two_digits_alone():
    y = jnp.array([6, 6, 9, 9, 1, 6])
    answer = jnp.array([9, 6, 6, 9, 9, 1])
    assert float(lanes.confused(answer, y)) == pytest.approx(2 / 5)
    assert float(lanes.confused(jnp.array([1]), jnp.array([1]))) == 0


def test_few_pictures_are_balanced_over_the_classes():
    y = np.repeat(np.arange(10), 30)
    order = study._orders(y, TINY)
    assert order.shape == (2, 300)
    for row in order:
        assert sorted(row) == list(range(300))
        assert (np.bincount(y[row[:40]]) == 4).all()
    assert (order[0] != order[1]).any()


def _panel(loss, error):
    dims = ("kind", "strength", "n", "seed")
    return xr.Dataset(
        {"validation_loss": (dims, loss), "test_error": (dims, error)},
        {"kind": list(lanes.KINDS), "strength": [0.0, 1.0], "n": [20, 40], "seed": [0, 1, 2]},
    )


def test_chosen_looks_at_validation_alone_and_never_takes_what_diverged():
    loss = np.ones((8, 2, 2, 3))
    loss[0, 1] = 0.5
    loss[1, 1] = np.nan
    loss[2, 1, :, 0] = 0.1
    panel = _panel(loss, np.zeros((8, 2, 2, 3)))
    picked = reporting.chosen(panel)["strength"].transpose("kind", "n", "seed").values
    assert (picked[0] == 1).all()
    assert (picked[1] == 0).all()
    assert picked[2].tolist() == [[1, 0, 0], [1, 0, 0]]
    single = reporting.best_single(panel)["kind"].transpose("n", "seed").values
    assert single.tolist() == [["zoom", "shift", "shift"]] * 2


@pytest.mark.parametrize(("gain", "said"), [(0.2, "holds"), (-0.2, "fails"), (0.0, "open")])
def test_the_verdict_of_a_gain_follows_its_paired_interval(gain, said):
    noise = np.array([-0.01, 0.0, 0.01])
    loss, error = np.ones((8, 2, 2, 3)), np.full((8, 2, 2, 3), 0.5)
    loss[:, 1] = 0.1
    error[:, 1] -= gain + noise
    row = reporting._gain_row(_panel(loss, error), "shift", 0)
    assert row.verdict == said
    assert "strength 1" in row.measured


BAD = {
    "unknown data": ({"data": "mnits"}, "did you mean"),
    "n that does not divide": ({"n": (30, 100)}, "must be two numbers at least that all divide the last"),
    "strength above 1": ({"strengths": (0.5, 2.0)}, "above 0 and up to 1"),
    "strength 0": ({"strengths": (0.0, 0.5)}, "above 0 and up to 1"),
    "no channels": ({"features": ()}, "features="),
    "units beyond any": ({"hidden": (2**63,)}, "below 2\\^31"),
    "batch too large": ({"batch": 2000}, "must be at most 1000"),
    "one seed": ({"seeds": 1}, "seeds=1 must be at least 2"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_values_are_refused_in_one_sentence(name):
    changes, words = BAD[name]
    with pytest.raises(ValueError, match=words):
        study.Config(**changes)


def test_more_pictures_than_there_are_is_one_sentence(capsys):
    with pytest.raises(command.BadInput, match="more than the 1438 training pictures of digits"):
        study.sweeps(study.Config(n=(700, 1400)))
    assert study.main(["--n", "700", "1400", "--dry-run"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.slow
def test_quick_shows_what_the_study_claims(tmp_path):
    assert study.main(["--out", str(tmp_path / "quick")]) == 0
    tree = results.read_tree(tmp_path / "quick" / "results.nc")
    verdicts = {row.claim: row.verdict for row in study.report(tree)}
    must_hold = ("n = 20: elastic lowers", "turning by up to 180", "mirroring 50 % of digits hurts",
                 "6 and 9 are taken for one another", "error depends less on the angle")  # fmt: skip
    for words in must_hold:
        assert [verdict for claim, verdict in verdicts.items() if words in claim] == ["holds"], (words, verdicts)
    assert "fails" not in [verdict for claim, verdict in verdicts.items() if "all changes but mirroring" in claim]
    assert int(tree["augmentation"]["diverged"].sum()) == 0
