"""Streams give each picture once an epoch, in an order that the seed alone decides, from any batch on."""

import threading

import jax
import numpy as np
import pytest
from PIL import Image

from nnjax.data import DataError, image_folder, stream


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Ten pictures of one gray each: picture i is 20 i all over."""
    root = tmp_path_factory.mktemp("pictures")
    for i in range(10):
        (root / "ab"[i % 2]).mkdir(exist_ok=True)
        Image.new("RGB", (9, 7), (20 * i,) * 3).save(root / "ab"[i % 2] / f"{i}.png")
    return image_folder(root)


def _numbers(batch):
    """Which pictures a batch holds: every pixel of one has its number times 20."""
    assert (batch.x == batch.x[:, :1, :1, :1]).all()
    return (batch.x[:, 0, 0, 0] // 20).tolist()


def _seen(batches):
    return [_numbers(batch) for batch in batches]


def test_every_picture_is_seen_once_an_epoch_with_its_label(folder):
    for batch_size in (1, 3, 10):
        batches = list(stream(folder, batch_size, 5, epochs=1))
        counted = [n for b in batches for n, w in zip(_numbers(b), b.weight, strict=True) if w]
        assert sorted(counted) == list(range(10))
        assert len(batches) == len(stream(folder, batch_size, 5)) == -(-10 // batch_size)
    for batch in batches:
        assert (batch.x.shape, batch.x.dtype, batch.y.dtype) == ((10, 5, 5, 3), np.uint8, np.int32)
        assert [n % 2 for n in _numbers(batch)] == batch.y.tolist()


def test_the_last_batch_is_filled_up_or_dropped(folder):
    kept = list(stream(folder, 4, 5, shuffle=False, epochs=1))
    assert [batch.weight.tolist() for batch in kept] == [[1] * 4, [1] * 4, [1, 1, 0, 0]]
    assert _numbers(kept[2])[2:] == _numbers(kept[0])[:2]  # filled up with the epoch's first
    assert _seen(stream(folder, 4, 5, shuffle=False, epochs=1, remainder="drop")) == _seen(kept)[:2]
    assert [n for numbers in _seen(kept) for n in numbers][:10] == [
        0,
        2,
        4,
        6,
        8,
        1,
        3,
        5,
        7,
        9,
    ]  # the folder's order: class by class


def test_the_order_is_the_seeds_whatever_the_threads(folder):
    first = _seen(stream(folder, 3, 5, seed=4, epochs=3, workers=1, prefetch=1))
    assert first == _seen(stream(folder, 3, 5, seed=4, epochs=3, workers=7, prefetch=20))
    assert first == _seen(stream(folder, 3, 5, seed=jax.random.key(4), epochs=3))
    assert first != _seen(stream(folder, 3, 5, seed=5, epochs=3))
    assert first[:4] != first[4:8], "a new order every epoch"
    places = stream(folder, 3, 5, seed=4).order(1)
    np.testing.assert_array_equal(places, jax.random.permutation(jax.random.fold_in(jax.random.key(4), 1), 10))


def test_a_stream_goes_on_at_any_batch_of_any_epoch(folder):
    source = stream(folder, 4, 5, seed=1, epochs=3)
    whole = _seen(source)
    for epoch in range(3):
        for batch in range(3):
            assert _seen(source.batches(epoch, batch)) == whole[3 * epoch + batch :]
    with source.batches(2, 1) as reader:
        assert _numbers(next(reader)) == whole[7]
    endless = stream(folder, 4, 5, seed=1).batches(1000)
    assert len(next(endless).x) == 4
    endless.close()


def test_the_digest_changes_with_all_that_the_batches_depend_on(folder):
    source = stream(folder, 4, 5, seed=1)
    assert source.digest() == stream(folder, 4, (5, 5), seed=1, workers=5, prefetch=9).digest()
    others = [
        stream(folder, 5, 5, seed=1), stream(folder, 4, 6, seed=1), stream(folder, 4, 5, seed=2),
        stream(folder, 4, 5, seed=1, shuffle=False), stream(folder, 4, 5, seed=1, fit="squash"),
        stream(folder, 4, 5, seed=1, remainder="drop"), stream(folder.take(range(9)), 4, 5, seed=1),
    ]  # fmt: skip
    numpys = stream(folder, np.int64(4), np.int32(5), seed=np.int64(1), workers=np.int8(5), epochs=np.int64(2))
    assert source.digest() == numpys.digest()
    assert {type(n) for n in (numpys.batch_size, numpys.workers, numpys.prefetch, numpys.epochs)} == {int}
    assert len({source.digest(), *(other.digest() for other in others)}) == 8


class _Slow:
    """A folder whose pictures are not there before they are released; counts what was asked for."""

    def __init__(self, folder):
        self.folder, self.labels, self.gate, self.asked = folder, folder.labels, threading.Event(), []

    def __len__(self):
        return len(self.folder)

    def one(self, index, size, *, fit):
        self.asked.append(index)
        assert self.gate.wait(30)
        return self.folder.one(index, size, fit=fit)


def test_pictures_are_decoded_ahead_and_waiting_is_counted(folder):
    slow = _Slow(folder)
    source = stream(slow, 2, 5, seed=0, workers=16, prefetch=3)
    with source.batches() as reader:
        while len(slow.asked) < 6:  # three batches, before anybody asked for one
            threading.Event().wait(0.01)
        assert sorted(slow.asked) == sorted(source.order(0)[:6])
        assert not reader.ready()
        timer = threading.Timer(0.2, slow.gate.set)
        timer.start()
        next(reader)
        assert reader.waited > 0.1
        timer.join()
        for row in reader._ahead[0].rows:
            row.result()
        before = reader.waited
        assert reader.ready()
        next(reader)
        assert reader.waited - before < 0.05
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("nnjax-pictures")]


def test_a_picture_that_has_gone_is_named_and_the_threads_end(tmp_path):
    for i in range(4):
        (tmp_path / "ab"[i % 2]).mkdir(exist_ok=True)
        Image.new("RGB", (5, 5)).save(tmp_path / "ab"[i % 2] / f"{i}.png")
    source = stream(image_folder(tmp_path), 4, 5)
    (tmp_path / "a" / "2.png").unlink()
    with pytest.raises(DataError, match=r"picture 'a/2.png' cannot be read \(No such file"):
        next(iter(source))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("nnjax-pictures")]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"batch_size": 0}, "batch_size=0 must be a positive integer"),
        ({"batch_size": 11}, "batch_size=11 is more than the 10 pictures"),
        ({"workers": 0}, "workers=0 must be a positive integer"),
        ({"prefetch": 0.5}, "prefetch=0.5 must be a positive integer"),
        ({"epochs": -1}, "epochs=-1 must be a positive integer"),
        ({"remainder": "pad"}, "remainder 'pad' is not one of keep, drop"),
        ({"fit": "stretch"}, "fit 'stretch' is not one of crop, squash"),
        ({"size": 0}, "size=0 must be a height and width"),
    ],
)
def test_bad_arguments_are_named(folder, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        stream(folder, **({"batch_size": 2, "size": 5} | options))
    with pytest.raises(ValueError, match=r"epoch=0, batch=5 must be from 0, with batch below the 5"):
        stream(folder, 2, 5).batches(0, 5)
