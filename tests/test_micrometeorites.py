"""The micrometeorites study: a tiny run of all parts, its pictures, bad folders, and quick's claims."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from experiments import _micrometeorites_lanes as lanes
from experiments import _micrometeorites_pictures as taking
from experiments import _micrometeorites_report as reporting
from experiments import command
from experiments import micrometeorites as study
from nnjax import data, models, results
from nnjax.train import Config as TrainConfig

ROOT = Path(__file__).parent.parent
TINY = study.Config(
    width=0.03, n=24, test_n=12, seeds=2, steps=4, batch=6, evaluations=2, trials=3, trials_batch=2, elastic=0.0
)  # fmt: skip
RNG = np.random.default_rng(0)


class _Kept:
    """A store in memory that counts."""

    def __init__(self):
        self.chunks, self.computed = {}, 0

    def load(self, identity):
        return self.chunks.get(identity)

    def save(self, identity, arrays, facts):
        self.computed += 1
        self.chunks[identity] = {name: np.asarray(value) for name, value in arrays.items()}


def _run(stores):
    """Every part at the smallest size; nothing is run long enough to be worth optimizing."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    try:
        return study.run(TINY, store=stores.__getitem__)
    finally:
        jax.config.update("jax_disable_most_optimizations", before)


@pytest.fixture(scope="module")
def stores():
    return {name: _Kept() for name in ("augmentation", "search", "chosen")}


@pytest.fixture(scope="module")
def tiny(stores):
    return _run(stores)


def _folder(root, *, classes=("bolide", "chondrule"), count=10, size=(80, 100)):
    for name in classes:
        for number in range(count):
            place = root / name / f"{number}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(RNG.integers(0, 255, (*size, 3)).astype(np.uint8)).save(place)
    return root


# A tiny run


def test_a_tiny_run_fills_every_part(tiny):
    assert list(tiny.children) == ["augmentation", "search", "chosen", "pictures"]
    assert dict(tiny["augmentation"].sizes) == {"arm": 3, "seed": 2, "step": 2}
    assert tiny["search"].sizes["trial"] == 3
    chosen = tiny["chosen"].to_dataset()
    assert chosen["probability"].sizes == {"seed": 2, "test": 12, "class": 2}
    np.testing.assert_allclose(chosen["probability"].sum("class"), 1, rtol=1e-5)
    # The search's best, and no other, is what met the test pictures.
    best = int(np.argmin(tiny["search"]["value"].values))
    assert float(chosen["learning_rate"]) == pytest.approx(float(tiny["search"]["learning_rate"][best]))
    # Feature maps layer by layer, after the ReLU: as large as the net makes them.
    shapes = [chosen[f"maps_{place}"].isel(seed=0).shape[1:3] for place in range(5)]
    assert shapes == [(15, 15), (7, 7), (3, 3), (3, 3), (3, 3)]
    assert all(float(chosen[f"maps_{place}"].min()) >= 0 for place in range(5))


def test_every_row_and_figure_is_made_from_a_stored_tree(tiny, tmp_path):
    results.write_tree(tmp_path / "results.nc", tiny)
    tree = results.read_tree(tmp_path / "results.nc")
    rows = study.report(tree)
    assert len({row.claim for row in rows}) == len(rows) == 10
    assert {row.verdict for row in rows} <= {"holds", "fails", "open", "stated", "not comparable"}
    figures = study.plot(tree)
    assert set(figures) == {"micrometeorites", "pictures", "filters", "feature_maps"}
    for figure in figures.values():
        figure.savefig(tmp_path / "figure.png")


def test_the_confusion_counts_every_test_picture_of_every_seed(tiny):
    chosen = tiny["chosen"].to_dataset()
    counts = reporting.confusion(chosen)
    assert counts.shape == (2, 2, 2)
    assert (counts.sum(axis=2) == np.bincount(chosen["y_test"].values)).all()
    named = chosen["probability"].argmax("class")
    assert counts[0].trace() == int((named.isel(seed=0) == chosen["y_test"]).sum())


# The parts


def test_the_full_net_is_the_published_one():
    net = lanes.Net(1.0, 2, TrainConfig(steps=1), 0.0, 0.0, 0.0, 0.0, 0.0)
    assert models.summary(net.model(), (141, 141, 3)).total == reporting.PUBLISHED_PARAMETERS
    assert net.model() == models.MicrometeoriteCNN(dropout=(0.0, 0.0))


def test_weights_of_one_draw_have_hes_variance():
    network = lanes._started(models.network(models.MLP((400, 300), 10)))
    params, stats = jax.jit(network.init)(jax.random.key(0), jnp.zeros((1, 200)))
    reference = jax.eval_shape(models.MLP((400, 300), 10).init, jax.random.key(0), jnp.zeros((1, 200)))["params"]
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, reference)
    assert stats == {}
    for layer in params.values():
        fan_in = layer["kernel"].shape[0]
        assert float(jnp.std(layer["kernel"])) == pytest.approx(np.sqrt(2 / fan_in), rel=0.05)
        assert not layer["bias"].any()
    # Six standard errors of a sum of the products: the pieces are not the same numbers again.
    a, b = (params[name]["kernel"].ravel()[:3000] for name in ("Dense_0", "Dense_1"))
    assert abs(float(jnp.mean(a * b) / (jnp.std(a) * jnp.std(b)))) < 6 / np.sqrt(3000)


def test_strength_zero_leaves_the_pictures_as_they_are():
    net = lanes.Net(0.1, 2, TrainConfig(steps=1), 0.08, 30.0, 0.2, 0.01, 0.2)
    x = RNG.integers(0, 255, (3, 12, 12, 3)).astype(np.uint8)
    changed = jax.jit(partial(lanes.changed, net, jax.random.key(0), x))
    np.testing.assert_array_equal(changed(0.0, 0.0), lanes.floats(x))
    for strengths in ((1.0, 0.0), (0.0, 1.0)):
        made = np.asarray(changed(*strengths))
        assert ((made >= 0) & (made <= 1)).all()
        assert np.abs(made - lanes.floats(x)).max(axis=(1, 2, 3)).min() > 0.02


def test_training_and_validation_share_no_picture_and_nothing_of_the_test():
    found = taking.pictures("spherules", 67, 24, 12, 0)
    own = study._data(TINY, found)
    assert "test" not in own
    assert "x_test" not in own
    for train, validation in zip(own["train"], own["validation"], strict=True):
        assert sorted([*train, *validation]) == list(range(24))
    assert (own["train"][0] != own["train"][1]).any()
    seen = {picture.tobytes() for picture in found.x}
    assert not any(picture.tobytes() in seen for picture in found.x_test)
    assert found.classes == ("grains", "spherules")
    assert np.bincount(found.y_test).tolist() == [6, 6]


# Made-up pictures


_draw = jax.jit(lambda key, n, size, noise: data.spherules(key, n, size, noise=noise), static_argnums=(1, 2))


def _unevenness(picture):
    """Coefficient of variation of the outline's distance from its center: 0 for a disk, 0.1 or so for a square."""
    parts, _ = ndimage.label(picture > 0.25)
    of_center = parts == np.argmax(np.bincount(parts[parts > 0]))
    filled = ndimage.binary_fill_holes(of_center)
    outline = filled & ~ndimage.binary_erosion(filled)
    away = np.hypot(*(np.argwhere(outline) - np.argwhere(filled).mean(axis=0)).T)
    return away.std() / away.mean()


def test_spherules_are_round_and_grains_are_not():
    made = _draw(jax.random.key(0), 64, 64, 0.0)
    x, y = np.asarray(made.x), np.asarray(made.y)
    assert x.shape == (64, 64, 64, 3)
    assert x.min() >= 0
    assert x.max() <= 1
    assert y.tolist() == [0, 1] * 32
    # A flattening by 4 %, its standard deviation, is an unevenness of 0.03, and pixels add 0.02; a grain's outline has
    # at least 0.07, on the average 0.13, before it is flattened.
    uneven = np.array([_unevenness(picture) for picture in x.max(axis=3)])
    assert np.median(uneven[y == 0]) < 0.07
    assert np.median(uneven[y == 1]) > 0.14
    assert ((uneven > 0.1) == y).mean() > 0.9
    # No shortcut: the mean brightness of the classes differs by less than their spread.
    bright = x.mean(axis=(1, 2, 3))
    assert abs(bright[y == 0].mean() - bright[y == 1].mean()) < bright.std()


def test_spherules_depend_on_the_key_alone_and_refuse_bad_sizes():
    one, two, again = (_draw(jax.random.key(seed), 2, 8, 0.0).x for seed in (1, 2, 1))
    np.testing.assert_array_equal(one, again)
    assert (one != two).any()
    assert float(jnp.abs(_draw(jax.random.key(1), 2, 8, 0.01).x - one).mean()) > 0.01
    with jax.enable_x64(True):
        assert jax.eval_shape(lambda key: data.spherules(key, 2, 8).x, jax.random.key(0)).dtype == jnp.float64
    for arguments in ((0, 16), (2, 0)):
        with pytest.raises(ValueError, match="must be at least 1"):
            data.spherules(jax.random.key(0), *arguments)
    with pytest.raises(ValueError, match="must not be negative"):
        data.spherules(jax.random.key(0), 2, 8, noise=-0.1)


# Folders


def test_a_folder_of_ones_own_is_cut_in_two_and_resized(tmp_path):
    found = taking.pictures(str(_folder(tmp_path)), 70, 10_000, 10_000, 0)
    assert found.classes == ("bolide", "chondrule")
    assert found.x.shape == found.x_test.shape == (10, 70, 70, 3)
    assert found.x.dtype == np.uint8
    assert np.bincount(found.y).tolist() == np.bincount(found.y_test).tolist() == [5, 5]
    fewer = taking.pictures(str(tmp_path), 70, 9, 8, 0)
    assert (len(fewer.y), len(fewer.y_test)) == (9, 8)
    with pytest.raises(command.BadInput, match="has 1 pictures of the test_n=2; at least 4 are needed"):
        taking.pictures(str(tmp_path), 70, 9, 2, 0)


def test_folders_of_training_and_test_pictures_are_kept_apart(tmp_path):
    _folder(tmp_path / "train", count=8)
    _folder(tmp_path / "val", count=4)
    found = taking.pictures(str(tmp_path), 67, 10_000, 10_000, 0)
    assert (len(found.y), len(found.y_test)) == (16, 8)


def test_a_corrupt_picture_is_named_and_left_out(tmp_path):
    _folder(tmp_path)
    (tmp_path / "bolide" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 half a picture")
    found = taking.pictures(str(tmp_path), 67, 10_000, 10_000, 0)
    assert len(found.y) + len(found.y_test) == 20
    (named,) = found.skipped
    assert named.startswith("bolide/broken.jpg: ")


def _empty(root):
    (root / "a").mkdir()
    return "has no picture in a class folder"


def _one_class(root):
    _folder(root, classes=("only",))
    return "pictures of 1 class (only); 2 are needed"


def _too_few(root):
    _folder(root, count=3)
    return "class 'bolide' has 3 pictures; at least 8 are needed"


def _corrupt(root):
    _folder(root, classes=("a",))
    (root / "b").mkdir()
    (root / "b" / "x.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    return "'b/x.png'"


def _channels(root):
    for name in ("a", "b"):
        (root / name).mkdir()
        Image.new("CMYK", (70, 70)).save(root / name / "x.tif")
    return "is of mode 'CMYK' (4 channels); RGB and 8-bit gray are read"


BAD_FOLDERS = {
    "empty": _empty, "one class": _one_class, "too few": _too_few, "corrupt": _corrupt, "channels": _channels
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_FOLDERS)
def test_bad_folders_are_one_sentence(tmp_path, name):
    words = BAD_FOLDERS[name](tmp_path)
    with pytest.raises(command.BadInput) as caught:
        taking.pictures(str(tmp_path), 67, 20, 20, 0)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_script_says_so_with_exit_code_2_and_loses_nothing(tmp_path):
    _one_class(tmp_path / "mine")
    out = tmp_path / "out"
    done = subprocess.run(
        [sys.executable, "-m", "experiments.micrometeorites", "--data", str(tmp_path / "mine"), "--out", str(out)],
        cwd=ROOT, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("micrometeorites: ")
    assert "2 are needed" in line
    assert len(list((tmp_path / "mine" / "only").iterdir())) == 10


BAD = {
    "small": ({"size": 60}, "size=60 must be at least 67"),
    "width": ({"width": 0.0}, "width=0.0 must be above 0"),
    "validation": ({"validation": 1.0}, "validation=1.0 must lie between 0 and 1"),
    "dropout": ({"dropout": (0.5,)}, "must be two probabilities below 1"),
    "evaluations": ({"steps": 10, "evaluations": 4}, "steps=10 must be a multiple of evaluations=4"),
    "seeds": ({"seeds": 1}, "seeds=1 must be at least 2"),
    "data": ({"data": ""}, "data is empty"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_options_are_one_sentence(name):
    change, text = BAD[name]
    with pytest.raises(ValueError, match=re.escape(text)):
        replace(TINY, **change)


def test_no_such_folder_and_too_large_a_batch(tmp_path):
    with pytest.raises(command.BadInput, match="must be spherules, hymenoptera, or a folder"):
        study.plans(replace(TINY, data=str(tmp_path / "nowhere")))
    with pytest.raises(command.BadInput, match="batch=25 is more than the 18 training pictures"):
        study.plans(replace(TINY, batch=25))


# Resuming, and what quick shows


def test_a_run_goes_on_from_what_is_kept(tiny, stores):
    computed = {name: store.computed for name, store in stores.items()}
    assert min(computed.values()) >= 1
    again = _run(stores)
    assert {name: store.computed for name, store in stores.items()} == computed
    assert results.digest(again) == results.digest(tiny)


@pytest.mark.slow
def test_a_search_goes_on_from_its_last_batch(tiny, stores):
    computed = {name: store.computed for name, store in stores.items()}
    # All but the search's last batch is there: it alone is computed again, to the same numbers.
    stores["search"].chunks.pop(list(stores["search"].chunks)[-1])
    again = _run(stores)
    assert {name: store.computed for name, store in stores.items()} == computed | {"search": computed["search"] + 1}
    assert results.digest(again) == results.digest(tiny)


@pytest.mark.slow
def test_quick_shows_what_the_study_claims():
    tree = study.run(study.PRESETS["quick"])
    verdicts = {row.claim: row.verdict for row in study.report(tree)}
    assert verdicts["the chosen net beats naming the commonest class"] == "holds", verdicts
    assert not any(verdict in ("fails", "differs") for verdict in verdicts.values()), verdicts
    assert json.loads(tree["chosen"].attrs["classes"]) == ["grains", "spherules"]
