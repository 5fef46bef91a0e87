"""The sequence shapes: strips, numbers and their words, the nets' parts, a tiny run, bad input, and quick's claims."""

import re
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import _sequence_shapes_lanes as lanes
from experiments import _sequence_shapes_numbers as readers
from experiments import _sequence_shapes_strips as strips
from experiments import command
from experiments import sequence_shapes as study
from nnjax import data, models, results
from nnjax.data.text import END, PAD, START

TINY = study.Config(
    cells=("gru",), seeds=2, rates=(0.01, 0.1), validation_n=20, units=3, hidden=4, embedding=2, batch=10,
    evaluations=2, steps=4, strip_validation_n=4, strip_test_n=3, tag_digits=2, tag_n=12, tag_steps=4, number_digits=2,
    number_n=12, number_units=3, number_steps=4,
)  # fmt: skip


@pytest.fixture(scope="module")
def tiny(unoptimized):
    """Every panel at the smallest size."""
    with unoptimized():
        return study.run(TINY)


# Words


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "zero"), (7, "seven"), (10, "ten"), (12, "twelve"), (20, "twenty"), (41, "forty one"), (100, "one hundred"),
        (412, "four hundred twelve"), (1000, "one thousand"), (4012, "four thousand twelve"),
        (7805, "seven thousand eight hundred five"), (9999, "nine thousand nine hundred ninety nine"),
    ],
)  # fmt: skip
def test_numbers_in_words(number, text):
    assert " ".join(word for word, _ in strips.number_words(number)) == text


def _value(words):
    """What English number words add up to."""
    small = dict(zip([*strips.NAMES, *strips._TEENS], range(20), strict=True))
    tens = dict(zip(strips._TENS, range(20, 100, 10), strict=True))
    total = group = 0
    for word in words:
        if word == "thousand":
            total, group = 1000 * group, 0
        elif word == "hundred":
            group *= 100
        else:
            group += small.get(word, 0) + tens.get(word, 0)
    return total + group


def test_every_number_has_its_own_words_and_every_digit_a_word():
    for number in range(10_000):
        words, digits = strips.number_words(number), str(number)
        assert _value(word for word, _ in words) == number
        told = {place for _, places in words for place in places}
        assert told <= set(range(len(digits)))
        assert {place for place, digit in enumerate(digits) if digit != "0"} <= told
    assert strips.number_words(412) == [("four", (0,)), ("hundred", (0,)), ("twelve", (1, 2))]
    assert strips.number_words(5030) == [("five", (0,)), ("thousand", (0,)), ("thirty", (2,))]


def test_tokens_are_the_words_with_their_end():
    table = strips.numbers(3)
    assert table.tokens.shape == (1000, 5)
    assert table.tells.shape == (1000, 5, 3)
    for number in (0, 17, 340, 999):
        words = strips.number_words(number)
        assert strips.WORDS.decode(table.tokens[number]) == " ".join(word for word, _ in words)
        assert (table.tokens[number] == END).sum() == 1
        np.testing.assert_array_equal(table.tells[number].any(1), np.arange(5) < len(words))
    np.testing.assert_array_equal(table.tells[340, :3], [[1, 0, 0], [1, 0, 0], [0, 1, 0]])
    names = strips.captions()
    assert [strips.LETTERS.decode(row) for row in names] == list(strips.NAMES)
    assert names.shape == (10, 6)


# Strips


def _plain(seed=0):
    """Pictures of which every pixel tells the digit: 3 of each, (digit + 1) / 16 and a third of 1 / 16 between them."""
    y = np.repeat(np.arange(10), 3)
    pixels = (y + 1 + np.tile([0, 1 / 3, 2 / 3], 10)) / 16
    x = np.broadcast_to(pixels[:, None, None, None], (30, 8, 8, 1)).astype(np.float32)
    order = np.random.default_rng(seed).permutation(30)
    return strips.part_of(data.Split(x[order], y[order]))


def _digits(columns):
    """The digits of columns of `_plain` pictures."""
    return np.floor(np.asarray(columns)[..., 0] * 16 + 0.1).astype(int) - 1


def test_parts_share_no_picture_and_columns_are_columns():
    digits = data.load("digits")
    parts = strips.parts_of(digits, 288)
    assert [len(part.y) for part in parts.values()] == [1150, 288, 359]
    seen = [{picture.tobytes() for picture in part.columns} for part in parts.values()]
    assert not seen[0] & seen[1]
    assert not (seen[0] | seen[1]) & seen[2]
    order = np.argsort(digits.test.y, kind="stable")
    np.testing.assert_array_equal(parts["test"].columns[5, 2], digits.test.x[order][5, :, 2, 0])
    for part in parts.values():
        for digit in range(10):
            own = slice(part.starts[digit], part.starts[digit] + part.counts[digit])
            assert (part.y[own] == digit).all()
            assert part.counts[digit] == (part.y == digit).sum()


def test_a_strip_holds_pictures_of_its_digits():
    shown = jnp.asarray(np.random.default_rng(0).integers(0, 10, (200, 3)))
    found = strips.drawn(jax.random.key(0), _plain(), shown)
    assert found.shape == (200, 24, 8)
    np.testing.assert_array_equal(_digits(found), np.repeat(shown, 8, axis=1))
    # Every one of a digit's pictures comes about as often.
    kinds, counts = np.unique(np.asarray(found)[:, ::8, 0].round(4), return_counts=True)
    assert len(kinds) == 30
    assert np.abs(counts - 20).max() < 6 * np.sqrt(20)


def test_every_column_is_tagged_with_its_digit():
    found = strips.tagged_strips(jax.random.key(1), _plain(), 50, 3)
    np.testing.assert_array_equal(found.y, _digits(found.x) + 1)
    assert set(np.unique(found.y)) == set(range(1, 11))


def test_strips_show_their_number_without_leading_zeros():
    lengths = np.tile([1, 2, 3, 4], 500)
    found = strips.number_strips(jax.random.key(2), _plain(), lengths, 4)
    assert found.columns.shape == (2000, 32, 9)
    np.testing.assert_array_equal(found.columns[:, :, 8], np.arange(32)[None] < 8 * lengths[:, None])
    shown = _digits(found.columns[:, ::8])
    for row, number, length in zip(shown, np.asarray(found.number), lengths, strict=True):
        assert len(str(number)) == length
        assert "".join(map(str, row[:length])) == str(number)
        assert (row[length:] == -1).all()
    alone = np.bincount(np.asarray(found.number)[lengths == 1], minlength=10)
    assert np.abs(alone - 50).max() < 6 * np.sqrt(50)
    mean = np.asarray(found.number)[lengths == 4].mean()
    assert mean == pytest.approx(5499.5, abs=6 * 9000 / np.sqrt(12 * 500))


def test_shuffling_keeps_each_example_s_own_steps():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(300, 6, 2)))
    there = jnp.arange(6)[None, :] < jnp.asarray([4, 6, 6])[jnp.arange(300) % 3][:, None]
    found = strips.shuffled(jax.random.key(0), x, there)
    np.testing.assert_array_equal(np.sort(found[:, :, 0], axis=1), np.sort(x[:, :, 0], axis=1))
    np.testing.assert_array_equal(found[::3, 4:], x[::3, 4:])
    order = np.argmax(np.asarray(found)[:, None, :, 0] == np.asarray(x)[:, :, None, 0], axis=1)
    np.testing.assert_array_equal(np.take_along_axis(np.asarray(x), order[:, :, None], 1), found)
    counts = np.bincount(order[1::3, 0], minlength=6)  # what comes first is any of them
    assert np.abs(counts - 100 / 6).max() < 6 * np.sqrt(100 / 6)
    assert strips.shuffled(jax.random.key(0), x[:, :, 0]).shape == (300, 6)
    for shuffled in (0, 1):
        same = lanes.in_order(jax.random.key(0), x, there, {"shuffled": jnp.asarray(shuffled)})
        np.testing.assert_array_equal(same, found if shuffled else x)


# The nets


def test_bits_of_letters_are_those_of_their_chances():
    random = np.random.default_rng(0)
    logits, tokens = random.normal(size=(3, 4, 5)).astype(np.float32), random.integers(0, 5, (3, 4))
    chances = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    expected = -np.log2(np.take_along_axis(chances, tokens[:, :, None], 2)[:, :, 0]) * (tokens != PAD)
    np.testing.assert_allclose(lanes.letter_bits(jnp.asarray(logits), jnp.asarray(tokens)), expected, rtol=1e-5)


@pytest.mark.parametrize("net", lanes.tag_nets(lanes.CELLS))
def test_a_tagger_sees_what_its_name_says(net):
    network = lanes.tagger(net, 3, 4)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 6, 8)).astype(np.float32))
    params, stats = jax.jit(network.init)(jax.random.key(0), x)
    logits = jax.jit(lambda x: network.apply(params, stats, x, key=None, train=False)[0])

    assert logits(x).shape == (2, 6, 11)
    changed = np.abs(np.asarray(logits(x.at[0, 3].add(1.0)) - logits(x))).max(2)
    assert not changed[1].any()
    seen = {lanes.ALONE: (3,), "both": range(6)}.get("both" if "," in net else net, (3, 4, 5))
    np.testing.assert_array_equal(np.flatnonzero(changed[0]), seen)


@pytest.mark.parametrize("net", [*lanes.VECTOR_NETS, lanes.MEAN, *lanes.CELLS])
def test_only_the_mean_of_columns_knows_no_order(net):
    network = lanes.classifier(net, 3, 4)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(5, 8, 8)).astype(np.float32))
    view = (lambda x: x.reshape(5, 64)) if net in lanes.VECTOR_NETS else (lambda x: x)
    params, stats = jax.jit(network.init)(jax.random.key(0), view(x))
    logits = jax.jit(lambda x: network.apply(params, stats, x, key=None, train=False)[0])
    found = [logits(view(each)) for each in (x, x[:, ::-1])]
    assert found[0].shape == (5, 10)
    assert np.allclose(*found, atol=1e-5) == (net == lanes.MEAN)


@pytest.fixture(scope="module")
def reader():
    """A reader of columns, and an encoder and decoder of tokens with the same weights: the column of a token t has the
    pixel t alone."""
    model, tokens = readers.reader(4, 3), models.EncoderDecoder(9, len(strips.WORDS), 4, 3, "additive")
    source = np.array([[3, 8, 1, 4], [5, 2, 0, 0], [7, 7, 6, 0]])
    columns = np.concatenate([np.eye(9)[source][:, :, 1:], (source > 0)[:, :, None]], 2).astype(np.float32)
    target = np.array([[5, 6, END], [7, END, PAD], [4, 4, 4]])
    params = jax.jit(model.init)(jax.random.key(0), columns.reshape(3, -1), target)["params"]
    params = jax.tree.map(lambda a: 2 * a, params)
    kernel, bias = params["look"]["kernel"], params["look"]["bias"]
    table = {"embedding": jnp.concatenate([jnp.zeros((1, 3)), kernel + bias[None, :]])}
    same = {name: each for name, each in params.items() if name != "look"} | {"embed_source": table}
    return model, params, columns.reshape(3, -1), tokens, same, source, target


def _logits(model, params, source, target):
    return jax.jit(lambda params, *x: model.apply({"params": params}, *x))(params, source, target)


def _read(model, params, columns, steps, read=readers.read):
    return jax.jit(lambda params, x: read(model, params, x, steps))(params, jnp.asarray(columns))


def test_a_reader_of_columns_is_the_encoder_and_decoder_of_tokens(reader):
    model, params, columns, tokens, same, source, target = reader
    expected = _logits(tokens, same, source, target)
    np.testing.assert_allclose(_logits(model, params, columns, target), expected, rtol=1e-5, atol=1e-6)
    # Greedy reading is greedy translation.
    expected = jax.jit(lambda params, x: models.translate(tokens, params, x, 6))(same, source)
    found, attention = _read(model, params, columns, 6)
    np.testing.assert_array_equal(found, expected.tokens)
    np.testing.assert_allclose(attention, expected.attention, atol=1e-5)
    assert not (np.asarray(found) == START).any()


def test_a_reader_does_not_see_beyond_a_strip(reader):
    model, params, columns, _, _, _, target = reader
    beyond = columns.reshape(3, 4, 9).copy()
    beyond[1, 2:, :8] = 5.0
    found, expected = (_logits(model, params, x.reshape(3, -1), target) for x in (beyond, columns))
    np.testing.assert_array_equal(found, expected)
    # Nor in batches, of which the last is filled up.
    whole, (tokens, attention) = (_read(model, params, columns, 4, read) for read in (readers.read, _in_twos))
    np.testing.assert_array_equal(tokens, whole[0])
    np.testing.assert_allclose(attention, whole[1], atol=1e-6)
    assert not attention[1, :, 2:].any()


def _in_twos(*args):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(readers, "EVALUATION_BATCH", 2)
        return readers._read_in_batches(*args)


def test_words_that_look_at_their_own_digit():
    attention = np.zeros((2, 3, 16))
    for row, step, column in ((0, 0, 7), (0, 1, 8), (0, 2, 0), (1, 0, 15), (1, 1, 3), (1, 2, 3)):
        attention[row, step, column] = 0.9
    tells = np.array([[[1, 0], [1, 0], [0, 0]], [[1, 1], [0, 0], [0, 0]]], bool)
    assert float(readers.on_own_digit(attention, tells)) == pytest.approx(2 / 3)


# A tiny run


def test_a_tiny_run_fills_every_panel(tiny):
    assert list(tiny.children) == ["vector", "columns", "caption", "tags", "numbers"]
    assert tiny["vector"]["accuracy"].sizes == {"net": 2, "shuffled": 2, "rate": 2, "seed": 2}
    assert tiny["columns"]["validation_loss"].sizes == {"net": 2, "shuffled": 2, "rate": 2, "seed": 2, "step": 2}
    assert tiny["caption"]["letter_bits"].sizes == {"cell": 1, "blind": 2, "rate": 2, "seed": 2, "letter": 6}
    assert tiny["tags"]["accuracy"].sizes == {"net": 3, "rate": 2, "seed": 2, "digit": 2, "column": 8}
    numbers = tiny["numbers"]
    assert numbers["exact"].sizes == {"shuffled": 2, "rate": 2, "seed": 2, "digits": 2}
    assert dict(numbers["attention"].sizes) | {"example": 3, "word": 3, "column": 16} == dict(
        numbers["attention"].sizes
    )
    for name in tiny.children:
        panel = tiny[name].to_dataset()
        assert not panel["diverged"].any()
        assert all(np.isfinite(panel[each]).all() for each in panel)
    # The mean of columns is the same in any order, but for rounding.
    mean = tiny["columns"]["validation_loss"].sel(net=lanes.MEAN)
    np.testing.assert_allclose(mean.isel(shuffled=0), mean.isel(shuffled=1), rtol=1e-4)
    bits, sums = tiny["caption"]["letter_bits"].values, tiny["caption"]["name_bits"].values
    counts = np.bincount(data.load("digits").test.y)
    share = np.array([counts[[len(name) >= place for name in strips.NAMES]].sum() for place in range(6)]) / counts.sum()
    np.testing.assert_allclose((bits * share).sum(-1), sums, rtol=1e-4)


def test_a_net_without_a_picture_says_the_same_of_all(tiny):
    exact = tiny["caption"]["exact"].sel(blind=1)
    counts = np.bincount(data.load("digits").test.y)
    allowed = np.array([0, *counts]) / counts.sum()
    assert np.abs(exact.values[..., None] - allowed).min(-1).max() < 1e-6


def test_strips_shown_are_the_numbers_read(tiny):
    lane = tiny["numbers"].to_dataset().isel(shuffled=0, rate=0, seed=0)
    assert (lane["number"] >= 10).all()
    test = strips.parts_of(data.load("digits"), 20)["test"]
    for example in range(3):
        number, strip = str(int(lane["number"][example])), lane["strip"][example].values
        for place, digit in enumerate(number):
            same = (test.columns == strip[None, 8 * place : 8 * place + 8]).all((1, 2))
            assert set(test.y[same]) == {int(digit)}
    weights = lane["attention"].sum("column").values
    written = lane["words"].values != PAD
    np.testing.assert_allclose(weights, written, atol=1e-5)


def test_every_row_and_figure_is_made_from_a_stored_tree(tiny, tmp_path):
    results.write_tree(tmp_path / "results.nc", tiny)
    tree = results.read_tree(tmp_path / "results.nc")
    rows = study.report(tree)
    assert len({row.claim for row in rows}) == len(rows) == 3 + 2 + 1 + 3 + 4 + 1 + 1 + 1
    assert {row.verdict for row in rows} <= {"holds", "fails", "open", "not comparable", "-"}
    figures = study.plot(tree)
    assert set(figures) == {"sequence_shapes", "attention"}
    for figure in figures.values():
        figure.savefig(tmp_path / "figure.png")


# Bad input


BAD = {
    "cells": ({"cells": ("gru", "rmm")}, "cell 'rmm' is not one of rnn, lstm, gru"),
    "cell twice": ({"cells": ("gru", "gru")}, "must name at least one cell, each once"),
    "no cell": ({"cells": ()}, "cells=() must name at least one cell"),
    "rates": ({"rates": (0.0, 0.1)}, "rates=(0.0, 0.1) must be positive"),
    "digits": ({"number_digits": 5}, "number_digits=5 must be at most 4"),
    "one digit": ({"number_digits": 1}, "number_digits=1 must be at least 2"),
    "batch": ({"tag_n": 9}, "batch=10 must be at most tag_n=9"),
    "numbers": ({"number_n": 9}, "batch=10 must be at most number_n=9"),
    "evaluations": ({"tag_steps": 5}, "tag_steps=5 must be a multiple of evaluations=2"),
    "clip": ({"clip": 0.0}, "clip=0.0 must be positive"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_options_are_one_sentence(name):
    change, text = BAD[name]
    with pytest.raises(ValueError, match=re.escape(text)):
        replace(TINY, **change)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"validation_n": 1430}, "validation_n=1430 must lie between 10 and 1428"),
        ({"validation_n": 1428, "batch": 11}, "batch=11 must be at most the 10 training pictures"),
    ],
)
def test_sizes_that_the_pictures_do_not_allow_are_one_sentence(change, text):
    with pytest.raises(command.BadInput, match=re.escape(text)):
        study.sweeps(replace(TINY, **change))
