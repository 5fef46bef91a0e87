"""The transfer study: its lanes and measures, a tiny run, bad input, the photographs where they are, quick's claims."""

import os

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

from experiments import _transfer_learning_digits as digits
from experiments import _transfer_learning_photographs as photographs
from experiments import _transfer_learning_report as reporting
from experiments import command
from experiments import transfer_learning as study
from nnjax import models, results, train, transfer

TINY = study.Config(
    seeds=2, n=(2, 4), rates=(0.01, 0.1), features=(2,), hidden=(4,), source_steps=4, steps=4, batch=10, unfreeze=1,
    validation_n=20, test_n=20,
)  # fmt: skip
SMALL = ["--features", "2", "--hidden", "4"]


@pytest.fixture(scope="module")
def tiny(unoptimized):
    """The digits at the smallest size."""
    with unoptimized():
        return study.run(TINY)


# Digits


def test_a_tiny_run_fills_the_panel(tiny):
    assert list(tiny.children) == ["digits"]
    panel = tiny["digits"].to_dataset()
    assert dict(panel.sizes) == {"n": 2, "rate": 2, "seed": 2, "arm": 4}
    assert ((panel["test_error"] >= 0) & (panel["test_error"] <= 1)).all()
    assert len(study.report(tiny)) == 6
    assert list(study.plot(tiny)) == ["transfer_learning"]


def test_frozen_layers_keep_every_bit_and_the_others_do_not(tiny):
    moved = tiny["digits"]["moved"]
    assert int(moved.sel(arm=["frozen", "random frozen"]).max()) == 0
    assert int(moved.sel(arm=["scratch", "fine-tuned"]).min()) > 0
    (row,) = [row for row in study.report(tiny) if "bit-equal" in row.claim]
    assert row.verdict == "agrees"


def test_the_first_task_is_the_same_for_all_that_comes_after(tiny):
    error = tiny["digits"]["source_error"]
    assert float(np.abs(error - error.isel(n=0, rate=0)).max()) == 0


def test_bits_that_differ_counts_also_what_compares_equal():
    a = {"x": jnp.array([0.0, 1.0, jnp.nan]), "y": jnp.array([1.0])}
    b = {"x": jnp.array([-0.0, 1.0, jnp.nan]), "y": jnp.array([2.0])}
    assert int(digits.bits_that_differ(a, a, {"x": True, "y": True})) == 0
    assert int(digits.bits_that_differ(a, b, {"x": True, "y": True})) == 2
    assert int(digits.bits_that_differ(a, b, {"x": True, "y": False})) == 1


@pytest.mark.parametrize(
    "frozen", [("*", "!logits"), ("Conv_*",), ("Conv_0", "Dense_0/bias"), ("*", "!Conv_0", "Conv_0/bias")]
)
def test_trained_is_everything_that_is_not_frozen(frozen):
    params = jax.eval_shape(digits.network_model(5, (2,), (4,)).init, jax.random.key(0), jnp.zeros((1, 8, 8, 1)))[
        "params"
    ]
    stays = jax.tree.leaves(transfer.chosen(params, frozen))
    trains = jax.tree.leaves(transfer.chosen(params, digits.trained(frozen)))
    assert [not each for each in stays] == trains
    assert any(stays)
    assert any(trains)


def test_orders_show_as_many_of_every_class():
    y = np.repeat(np.arange(5), 20)
    for row in digits.orders(y, 3, 0):
        assert sorted(row) == list(range(100))
        for n in (1, 4, 20):
            assert (np.bincount(y[row[: 5 * n]], minlength=5) == n).all()


def test_a_checkpoint_is_what_all_seeds_start_from(tmp_path, tiny):
    model = digits.network_model(5, (2,), (4,))
    params = model.init(jax.random.key(3), jnp.zeros((1, 8, 8, 1)))["params"]
    train.save(tmp_path / "net.npz", params)
    config = study.replace(TINY, checkpoint=str(tmp_path / "net.npz"))
    data = study.sweeps(config)["digits"].keywords["data"]
    jax.tree.map(np.testing.assert_array_equal, data["start"], dict(params))


# Bad input


def test_a_checkpoint_of_another_architecture_is_one_sentence_and_exit_2(tmp_path, capsys):
    model = digits.network_model(5, (3,), (4,))
    train.save(tmp_path / "net.npz", model.init(jax.random.key(3), jnp.zeros((1, 8, 8, 1)))["params"])
    assert study.main([*SMALL, "--checkpoint", str(tmp_path / "net.npz"), "--dry-run"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "these are not the parameters of this LeNet: 'Conv_0/bias' has shape (3,), not (2,)" in said


def test_a_missing_or_damaged_checkpoint_is_one_sentence_and_exit_2(tmp_path, capsys):
    (tmp_path / "bad.npz").write_bytes(b"no model")
    for name in ("none.npz", "bad.npz"):
        assert study.main([*SMALL, "--checkpoint", str(tmp_path / name), "--dry-run"]) == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        assert name in said


@pytest.mark.parametrize(
    ("frozen", "words"),
    [
        (("Conf_0",), "frozen: 'Conf_0' matches none of the 6 parameters; did you mean 'Conv_0"),
        (("*",), "nothing of the head, 'logits'"),
        (("*", "!*"), "must choose some of"),
    ],
)
def test_a_frozen_path_that_does_not_fit_is_one_sentence_and_exit_2(frozen, words, capsys):
    assert study.main([*SMALL, "--frozen", *frozen, "--dry-run"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert words in said


def test_without_the_photographs_it_is_one_sentence_and_exit_2(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("NNJAX_DATA", str(tmp_path))
    assert study.main(["--photographs", "hymenoptera", "--dry-run"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "imagenet-mobilenet" in said


BAD = {
    "unknown data": ({"data": "mnits"}, "did you mean"),
    "unknown photographs": ({"photographs": "bees"}, "photographs"),
    "n that does not divide": ({"n": (3, 64)}, "all divide the last"),
    "too many photographs": ({"photo_n": (2, 200)}, "at most 121"),
    "never unfrozen": ({"unfreeze": 300}, "must be less than steps=300"),
    "no units": ({"hidden": ()}, "hidden="),
    "batch too large": ({"batch": 400}, "must be at most 320"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_values_are_refused_in_one_sentence(name):
    changes, words = BAD[name]
    with pytest.raises(ValueError, match=words):
        study.Config(**changes)


def test_more_pictures_than_there_are_is_refused():
    with pytest.raises(command.BadInput, match=r"more than the 71\d training pictures"):
        study.sweeps(study.Config(n=(1, 140)))


# Report


def _panel(gap):
    """Test errors where every arm differs from the one before by ``gap``, the seeds by a little."""
    noise = np.array([-0.01, 0.0, 0.01])
    dims = ("n", "arm", "seed")
    error = 0.5 + gap * np.arange(4)[None, :, None] + noise * np.array([1, 2, 3, 4])[None, :, None] * np.ones((2, 1, 1))
    coords = {"n": [1, 64], "arm": list(digits.ARMS), "seed": [0, 1, 2]}
    moved = np.zeros((2, 4, 3), int)
    moved[:, 2] = 5
    return xr.Dataset({"test_error": (dims, error), "moved": (dims, moved)}, coords, {"frozen": "*"})


def test_verdicts_follow_the_paired_intervals():
    for gap, first, fourth in ((-0.1, "holds", "holds"), (0.1, "fails", "fails"), (0.0, "open", "open")):
        verdicts = [row.verdict for row in reporting.digits_rows(_panel(gap))]
        assert verdicts[0] == first
        assert verdicts[3] == fourth
    assert verdicts[5] == "agrees"
    still = _panel(0.0)
    still["moved"][:, 1] = 1
    assert reporting.digits_rows(still)[5].verdict == "differs"


def _photographs(right, scratch_right, left, few_right=0.8):
    """Panels of ants and bees by shares of right answers; 9 seeds of heads, 3 of the others; ``left``: scratch's."""

    def panel(dims, coords, error, train_error):
        noise = 0.02 * (np.asarray(coords["seed"]) % 3 - 1)
        shape = tuple(len(coords[dim]) for dim in dims)
        made = np.broadcast_to(error * (1 + noise), shape).copy()
        found = {"validation_error": (dims, made), "train_error": (dims, np.full(shape, train_error))}
        return xr.Dataset(found | {"start_error": (dims, made)}, coords, {"photographs": "ants", "validation_n": 153})

    starts = list(photographs.STARTS)
    frozen = panel(
        ("start", "n", "seed"), {"start": starts, "n": [2, 120], "seed": np.arange(9)},
        np.array([1 - few_right, 1 - right])[None, :, None], 0.0,
    )  # fmt: skip
    few = {"n": [5, 120], "seed": np.arange(3)}
    fine, scratch = (
        panel(("n", "seed"), few, 1 - share, left) for share, left in ((right, 0.0), (scratch_right, left))
    )
    return {"frozen": frozen, "fine_tuned": fine, "scratch": scratch}


def test_an_accuracy_of_the_photographs_says_nothing_of_new_ones_but_by_its_interval():
    for right, said, of_new in ((0.99, "holds", "holds"), (0.95, "holds", "open"), (0.92, "fails", "open"),
                                (0.80, "fails", "fails")):  # fmt: skip
        for row in reporting._photograph_rows(_photographs(right, 0.6, 0.0))[:3]:
            assert row.claim.startswith("of these 153 photographs")
            assert (row.verdict, f"of new photographs: {of_new}" in row.measured) == (said, True), row
            low, high = (float(end) for end in row.interval.strip("[]").split(","))
            assert low < right < high
            assert high - low > 0.02  # of 153 photographs, not of seeds that hardly differ


def test_few_photographs_and_many_from_scratch_are_paired_by_the_seeds_of_both():
    for few, said in ((0.8, "holds"), (0.4, "fails"), (0.6, "open")):
        row = reporting._photograph_rows(_photographs(0.95, 0.6, 0.0, few))[-1]
        assert (row.seeds, row.verdict) == (3, said)
        low, high = (float(end) for end in row.interval.strip("[]").split(","))
        assert low <= 0.6 - few <= high  # the interval is of what is measured


def test_to_beat_what_has_not_fitted_its_training_pictures_is_open():
    rows = reporting._photograph_rows(_photographs(0.95, 0.6, 0.3))[3:]
    assert [row.verdict for row in rows] == ["open"] * 3
    assert all("training error of scratch: 0.300" in row.quantity for row in rows)


def test_a_label_is_right_where_it_begins_with_what_is_shown():
    assert reporting.is_right("giant panda", "giant panda, panda, panda bear")
    assert not reporting.is_right("Egyptian cat", "tabby, tabby cat")


# Photographs


def test_the_top_is_the_pretrained_net_from_there_on():
    model = models.MobileNet(0.25, classes=2)
    x = jax.random.uniform(jax.random.key(0), (3, 32, 32, 3), minval=-1)
    variables = model.init(jax.random.key(1), x)
    params, stats = variables["params"], {"batch_stats": variables["batch_stats"]}
    pretrained = transfer.Pretrained(model, params, stats, ("a", "b"), 32, transfer.symmetric)
    top, own, own_stats = photographs.top_of(pretrained)
    assert isinstance(top, nn.Module)
    below = transfer.features(model, params, stats, x, before=photographs.CUT)
    expected = model.apply(variables, x)
    np.testing.assert_allclose(top.apply({"params": own, **own_stats}, below), expected, atol=1e-5)
    transfer.check_architecture(top, own, own_stats, below.shape[1:])


@pytest.fixture(scope="module")
def mobilenet():
    if not os.environ.get("NNJAX_DATA"):
        pytest.skip("NNJAX_DATA names no folder with MobileNet and photographs")
    return transfer.load_mobilenet()


def test_features_are_computed_once_and_kept(tmp_path):
    count = []

    def compute():
        count.append(1)
        own = {"kernel": np.ones((3, 2)), "bias": np.zeros(2)}
        return photographs.packed({"x_train": np.arange(6.0).reshape(2, 3), "own": own})

    with results.Folder(tmp_path / "run", {"a": 1}) as folder:
        first = photographs.unpacked(photographs.kept(folder.store, "features", compute))
        again = photographs.unpacked(photographs.kept(folder.store, "features", compute))
    assert len(count) == 1
    assert list(first["own"]) == ["kernel", "bias"]
    jax.tree.map(np.testing.assert_array_equal, first, again)
    photographs.kept(None, "features", compute)
    assert len(count) == 2


def test_known_photographs_are_labelled_right(mobilenet):
    known = {name: value for name, (_, value) in photographs.recognized(mobilenet).items()}
    assert list(known["shown"]) == list(photographs.KNOWN)
    for shown, said in zip(known["shown"], known["said"], strict=True):
        assert reporting.is_right(shown, said)


@pytest.mark.slow
def test_nothing_that_is_frozen_moves_in_the_whole_pretrained_net(mobilenet):
    x = np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3)).astype(np.uint8)
    bits = photographs.frozen_bits(mobilenet, x, np.array([0, 1, 0, 1]), jax.random.key(0), steps=3)
    assert bits["moved"] == bits["statistics_moved"] == 0
    assert bits["frozen"] == 2_585_560 - 769_000
    assert bits["head_moved"] > 1000
    assert bits["loss_after"] < bits["loss_before"]


@pytest.mark.slow
def test_frozen_features_tell_ants_from_bees(mobilenet):
    """The features of all 397 photographs, and a head on them: about a minute on two cores."""
    config = study.Config(photographs="hymenoptera")
    folders = study.load_images("hymenoptera")
    pictures = photographs.pictures(folders, mobilenet.size)
    data = photographs.frozen_features(mobilenet, pictures, folders[0].classes) | {
        f"y_{split}": folder.labels for split, folder in zip(("train", "validation"), folders, strict=True)
    }
    data["order"] = digits.orders(folders[0].labels, 10, 0)
    call = study._photograph_sweeps(config, {"frozen": data, "fine_tuned": {}, "scratch": {}}, 0.75, None)["frozen"]
    fresh, own = (1 - call()["validation_error"].isel(n=-1)).mean("seed").values
    assert own >= 0.93
    assert fresh >= 0.9


@pytest.mark.slow
def test_quick_shows_what_the_study_claims(tmp_path):
    assert study.main(["--out", str(tmp_path / "quick")]) == 0
    tree = results.read_tree(tmp_path / "quick" / "results.nc")
    verdicts = {row.claim: row.verdict for row in study.report(tree)}
    # All that holds with so little in the first task (700 pictures of 8 x 8); see the study's description.
    for words, expected in (("bit-equal", "agrees"), ("n = 64 a class: fine-tuned layers beat frozen ones", "holds")):
        assert [verdict for claim, verdict in verdicts.items() if words in claim] == [expected], verdicts
    assert verdicts["n = 1 a class: frozen layers beat those from scratch"] != "holds"
    assert int(tree["digits"]["diverged"].sum()) == 0
