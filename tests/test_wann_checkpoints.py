"""What a search keeps on disk: names, two files that take turns, and what is left of them when one is damaged."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnjax import results, wann
from nnjax.wann.checkpoints import Checkpoints, FolderStore, identity
from nnjax.wann.tasks import Pendulum, SwingUp, latents, parity, xor
from nnjax.wann.tasks.gym import racer

KEYS = jax.random.split(jax.random.key(0), 2)
CONFIG = wann.Config(population=10)
TASK = SwingUp()


def _name(task=TASK, config=CONFIG, keys=KEYS, params=TASK.params):
    return identity(task, config, keys, params)


def test_a_search_has_the_same_name_whatever_its_length_and_layout():
    name = _name()
    assert name == _name()
    assert name == _name(task=SwingUp(steps=1000))
    for change in ({"generations": 3}, {"block": 7}, {"layout": (3, 4)}):
        assert name == _name(config=dataclasses.replace(CONFIG, **change))


def test_another_search_has_another_name():
    names = [
        _name(),
        _name(task=SwingUp(steps=999)),
        _name(task=Pendulum()),
        _name(task=xor()),
        _name(task=parity(3)),
        _name(keys=KEYS[:1]),
        _name(keys=KEYS[::-1]),
        _name(keys=jax.random.split(jax.random.key(0, impl="rbg"), 2)),
        _name(keys=jax.random.split(jax.random.key(0, impl="unsafe_rbg"), 2)),
        _name(params=TASK.params._replace(gravity=9.81)),
        _name(params=TASK.params._replace(gravity=np.full(3, 9.82))),
    ]
    changes = {
        "population": 11, "repetitions": 2, "shared_weights": (1.0,), "enabled": 0.4, "max_nodes": 64, "edges": 200,
        "activations": ("tanh",), "selection": wann.Selection(rates=wann.Rates(enable=0.1)), "islands": 2,
        "migrate_every": 2, "migrants": 2,
    }  # fmt: skip
    kept = {"generations", "block", "layout"}
    assert {*changes} | kept == {field.name for field in dataclasses.fields(CONFIG)}
    names += [_name(config=dataclasses.replace(CONFIG, **{name: value})) for name, value in changes.items()]
    with jax.enable_x64(True):
        names.append(_name())
    assert len({*names}) == len(names)


def test_a_task_that_is_no_dataclass_counts_by_its_fields():
    class Mine:
        def __init__(self, size):
            self.size = size

    assert _name(task=Mine(1)) == _name(task=Mine(1))
    assert _name(task=Mine(1)) != _name(task=Mine(2))


def test_latents_count_by_what_their_file_holds(tmp_path):
    def named(path, scale=1.0):
        pixels = np.zeros(latents.PIXELS, np.float32)
        encoder = latents.Latents(pixels, np.full((16, latents.PIXELS), scale, np.float32), np.ones(16, np.float32))
        path.parent.mkdir(exist_ok=True)
        latents.save_latents(encoder, path)
        return _name(task=racer(latents=str(path)), params=())

    name = named(tmp_path / "racer.npz")
    assert named(tmp_path / "elsewhere" / "other.npz") == name
    assert named(tmp_path / "racer.npz", 2.0) != name
    assert _name(task=racer(), params=()) != name
    with pytest.raises(ValueError, match=r"latents='none.npz' is no file; fit_latents"):
        _name(task=racer(latents="none.npz"), params=())


class _State(NamedTuple):
    key: jax.Array
    numbers: jax.Array
    course: np.ndarray


def _state(value):
    key = jax.random.split(jax.random.key(value, impl="rbg"), 3)
    return _State(key, jnp.full((2, 3), value, jnp.int8), np.full(value, 0.5))


def _like():
    return _State(jax.random.split(jax.random.key(9, impl="rbg"), 3), jnp.zeros((2, 3), jnp.int8), np.zeros(0))


def _is(found, value):
    expected = _state(value)
    assert jax.random.key_impl(found.key) == jax.random.key_impl(expected.key)
    np.testing.assert_array_equal(jax.random.key_data(found.key), jax.random.key_data(expected.key))
    for name in ("numbers", "course"):
        assert type(getattr(found, name)) is type(getattr(expected, name))
        assert getattr(found, name).dtype == getattr(expected, name).dtype
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))


def test_the_last_state_comes_back_and_only_two_are_kept(tmp_path):
    folder = tmp_path / "new"
    assert Checkpoints(folder, "one").restore(_like()) is None
    kept = Checkpoints(folder, "one")
    for value in (1, 2, 3):
        kept.keep(_state(value), value)
        _is(Checkpoints(str(folder), "one").restore(_like()), value)
    assert sorted(path.name for path in folder.iterdir()) == ["one-0.npz", "one-1.npz"]
    assert Checkpoints(folder, "other").restore(_like()) is None


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 and no more"])
def test_a_damaged_file_gives_way_to_the_one_before_and_is_written_next(tmp_path, damage):
    kept = Checkpoints(tmp_path, "one")
    for value in (1, 2, 3):
        kept.keep(_state(value), value)
    last = tmp_path / "one-0.npz"
    last.write_bytes(damage)
    after = Checkpoints(tmp_path, "one")
    _is(after.restore(_like()), 2)
    after.keep(_state(4), 4)
    _is(Checkpoints(tmp_path, "one").restore(_like()), 4)
    assert results.read_arrays(last)["progress"] == 4
    for path in tmp_path.iterdir():
        path.write_bytes(damage)
    with pytest.warns(UserWarning, match="starts anew") as caught:
        assert Checkpoints(tmp_path, "one").restore(_like()) is None
    (warning,) = caught
    sentence = (f"no state of this search can be read in {str(tmp_path)!r} (one-0.npz, one-1.npz: damaged, or with "
                "other arrays than expected), so it starts anew")  # fmt: skip
    assert str(warning.message) == sentence
    assert Checkpoints(tmp_path, "another").restore(_like()) is None


def test_a_single_damaged_file_is_told_too(tmp_path):
    Checkpoints(tmp_path, "one").keep(_state(1), 1)
    (tmp_path / "one-0.npz").write_bytes(b"")
    with pytest.warns(UserWarning, match=r"\(one-0\.npz: damaged"):
        assert Checkpoints(tmp_path, "one").restore(_like()) is None


def test_a_restored_search_writes_over_the_older_file(tmp_path):
    kept = Checkpoints(tmp_path, "one")
    for value in (1, 2):
        kept.keep(_state(value), value)
    again = Checkpoints(tmp_path, "one")
    again.restore(_like())
    again.keep(_state(3), 3)
    assert {int(results.read_arrays(path)["progress"]) for path in tmp_path.iterdir()} == {2, 3}


def test_a_file_of_other_arrays_is_none(tmp_path):
    FolderStore(tmp_path).save("one-0", {"leaf0": np.zeros(3), "progress": np.asarray(5)}, {})
    with pytest.warns(UserWarning, match=r"\(one-0\.npz: damaged, or with other arrays than expected\)"):
        assert Checkpoints(tmp_path, "one").restore(_like()) is None


def test_without_a_place_nothing_is_kept():
    kept = Checkpoints(None, "one")
    kept.keep(_state(1), 1)
    assert kept.restore(_like()) is None


def test_a_folder_of_results_is_a_store(tmp_path):
    with results.Folder(tmp_path / "study", {"study": "of this test"}) as folder:
        kept = Checkpoints(folder.store("search"), "one")
        for value in (1, 2, 3):
            kept.keep(_state(value), value)
        _is(Checkpoints(folder.store("search"), "one").restore(_like()), 3)
        for number in (0, 1):
            (tmp_path / f"study/chunks/search/one-{number}.npz").write_bytes(b"")
        with pytest.warns(UserWarning, match=r"study/chunks/search' \(one-0\.npz\.damaged-\d+, one-1\.npz\.damaged-"):
            assert Checkpoints(folder.store("search"), "one").restore(_like()) is None


def test_a_store_that_knows_of_no_files_starts_anew_without_a_word():
    class Plain:
        def load(self, identity):
            return None

    assert Checkpoints(Plain(), "one").restore(_like()) is None
