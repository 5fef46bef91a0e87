"""Pairs of sentences: files that fit each other, arrays that decode to them, and groups with the least padding."""

import gzip
import hashlib
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnjax.data import (
    DataError,
    EncodedPairs,
    Pairs,
    Vocabulary,
    buckets,
    encode_pairs,
    load_pairs,
    pair_names,
    pairs,
    read_pairs,
)
from nnjax.data.cache import SourceFile

ENGLISH = ("A dog runs.", "Two men", "Yes")
GERMAN = ("Ein Hund läuft.", "Zwei Männer", "Ja")


def sentence(caught):
    text = str(caught.value)
    assert "\n" not in text
    assert not text.endswith(".")
    return text


@pytest.fixture
def write(tmp_path):
    def file(name, content):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return file


def test_two_files_are_read_line_by_line(write):
    source = write("en", "\ufeff" + "\r\n".join(ENGLISH) + "\r\n")
    target = write("de.gz", gzip.compress("\n".join(GERMAN).encode()))
    assert read_pairs(source, str(target)) == Pairs(ENGLISH, GERMAN)


def test_only_a_line_feed_ends_a_line(write):
    odd = "a\u2028b\x85c\x0cd"
    assert read_pairs(write("a", odd + "\nx\n"), write("b", "1\n 2 \n")) == Pairs((odd, "x"), ("1", "2"))


@pytest.mark.parametrize(
    ("source", "target", "text"),
    [
        ("a\nb\nc\n", "a\nb\n", r"en' has 3 lines and file '.*de' has 2; they must have as many"),
        ("a\n\nc\n", "a\nb\nc\n", "en' has no sentence in line 2"),
        ("a\nb\n", "a\n \t\n", "de' has no sentence in line 2"),
        ("a\n\n", "a\nb\n", "en' has no sentence in line 2"),
        ("", "a\n", "en' is empty"),
        ("\n", "a\n", "en' is empty"),
        ("a\n", b"\xff\xfea\n", r"de' is no text in UTF-8 \(byte 0\)"),
        ("a\n", gzip.compress(b"a\n")[:-3], "de' is cut short"),
    ],
)
def test_files_that_do_not_fit_are_one_sentence(write, source, target, text):
    with pytest.raises(DataError, match=text) as caught:
        read_pairs(write("en", source), write("de", target))
    sentence(caught)


def test_a_missing_file_is_one_sentence(write, tmp_path):
    with pytest.raises(DataError, match=r"file '.*nothing' cannot be read \(No such file") as caught:
        read_pairs(write("en", "a\n"), tmp_path / "nothing")
    sentence(caught)


def test_unknown_pairs():
    assert pair_names() == ("multi30k_en_de",)
    with pytest.raises(
        ValueError, match="pairs 'multi30k' is not one of multi30k_en_de; did you mean 'multi30k_en_de'"
    ):
        load_pairs("multi30k")


def test_a_set_is_read_as_the_real_one_is(tmp_path, monkeypatch):
    def source(name, content):
        (tmp_path / name).write_bytes(content)
        return SourceFile("multi30k_en_de", name, len(content), hashlib.sha256(content).hexdigest())

    parts = [
        tuple(source(f"{k}{side}", gzip.compress(f"{side}{k}\n".encode())) for side in ("en", "de")) for k in range(3)
    ]
    monkeypatch.setitem(pairs._PAIRS, "multi30k_en_de", tuple(parts))
    found = load_pairs("multi30k_en_de", cache=tmp_path)
    assert found == ("multi30k_en_de", *[Pairs((f"en{k}",), (f"de{k}",)) for k in range(3)])
    monkeypatch.setitem(pairs._PAIRS, "multi30k_en_de", ((parts[0][0], source("more", b"a\nb\n")), *parts[1:]))
    with pytest.raises(DataError, match=r"'0en' of data set 'multi30k_en_de' has 1 lines and file 'more' .* has 2"):
        load_pairs("multi30k_en_de", cache=tmp_path)


def test_the_real_pairs(real_data):
    found = load_pairs("multi30k_en_de", cache=real_data)
    assert (
        [len(part.source) for part in found[1:]] == [len(part.target) for part in found[1:]] == [29_000, 1_014, 1_000]
    )
    assert found.train.source[0] == "Two young, White males are outside near many bushes."
    assert found.train.target[0] == "Zwei junge weiße Männer sind im Freien in der Nähe vieler Büsche."
    few = Pairs(*(side[:200] for side in found.train))
    vocabulary = Vocabulary.subwords([*few.source, *few.target], merges=300)
    encoded = encode_pairs(few, vocabulary, vocabulary, unknown="raise")
    assert [vocabulary.decode(row) for row in encoded.target] == list(few.target)


def test_encoded_pairs_by_hand():
    found = encode_pairs(Pairs(("ab", "c"), ("x", "zyx")), Vocabulary.characters("abc"), Vocabulary.characters("xyz"))
    np.testing.assert_array_equal(found.source, [[4, 5, 2], [6, 2, 0]])
    np.testing.assert_array_equal(found.target, [[4, 2, 0, 0], [6, 5, 4, 2]])
    np.testing.assert_array_equal(found.places, [0, 1])
    assert (found.source.dtype, found.target.dtype, found.places.dtype) == (np.int32, np.int32, np.int64)


def test_long_pairs_are_left_out_whichever_side_is_long():
    letters = Vocabulary.characters("abc")
    given_pairs = Pairs(("ab", "abc", "a", "ab"), ("a", "a", "abc", "bc"))
    found = encode_pairs(given_pairs, letters, letters, longest=2)
    assert found.places.tolist() == [0, 3]
    assert (found.source.shape, found.target.shape) == ((2, 3), (2, 3))
    with pytest.raises(ValueError, match="longest=1 leaves no pair; the shortest has 2 tokens"):
        encode_pairs(given_pairs, letters, letters, longest=1)


@pytest.mark.parametrize(
    ("given_pairs", "text"),
    [
        (Pairs((), ()), "0 source and 0 target sentences"),
        (Pairs(("a", "b"), ("a",)), "2 source and 1 target sentences"),
        (Pairs(("a", ""), ("a", "b")), "source sentence 1 is empty"),
        (Pairs(("a", "b"), ("", "b")), "target sentence 0 is empty"),
    ],
)
def test_pairs_that_are_none_are_refused(given_pairs, text):
    letters = Vocabulary.characters("ab")
    with pytest.raises(ValueError, match=text) as caught:
        encode_pairs(given_pairs, letters, letters)
    sentence(caught)


def test_unknown_tokens_are_marked_or_refused():
    letters = Vocabulary.characters("ab")
    unknown = Pairs(("aü",), ("b",))
    assert encode_pairs(unknown, letters, letters).source.tolist() == [[4, 3, 2]]
    with pytest.raises(ValueError, match="text has 'ü' as token 1"):
        encode_pairs(unknown, letters, letters, unknown="raise")


def _of_lengths(source, target):
    """Pairs as long as given, all their numbers different from 0."""
    sides = [np.where(np.arange(max(one))[None, :] < np.array(one)[:, None], 7, 0) for one in (source, target)]
    return EncodedPairs(*(side.astype(np.int32) for side in sides), np.arange(len(source)))


def test_buckets_by_hand():
    found = buckets(_of_lengths([2, 9, 2, 3, 8], [2, 3, 1, 2, 3]), 2)
    assert [part.places.tolist() for part in found] == [[0, 2, 3], [1, 4]]
    assert [(part.source.shape, part.target.shape) for part in found] == [((3, 3), (3, 2)), ((2, 9), (2, 3))]
    np.testing.assert_array_equal(found[0].source, [[7, 7, 0], [7, 7, 0], [7, 7, 7]])
    assert len(buckets(_of_lengths([4, 4], [4, 4]), 5)) == 1
    with pytest.raises(ValueError, match="count=0 must be at least 1"):
        buckets(found[0], 0)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    lengths=st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=12),
    count=st.integers(1, 4),
)
def test_no_other_groups_need_less_padding(lengths, count):
    source, target = zip(*lengths, strict=True)
    whole = _of_lengths(source, target)
    found = buckets(whole, count)
    longer = np.maximum(source, target)
    different = sorted(set(longer.tolist()))
    assert len(found) == min(count, len(different))
    assert sorted(np.concatenate([part.places for part in found]).tolist()) == list(range(len(lengths)))

    def filled(bounds):
        return sum(min(bound for bound in bounds if bound >= length) for length in longer)

    ways = itertools.combinations(different[:-1], len(found) - 1)
    least = min(filled((*way, different[-1])) for way in ways)
    assert filled([longer[part.places].max() for part in found]) == least
    for part in found:
        for side, before in ((part.source, whole.source), (part.target, whole.target)):
            assert (side != 0).any(axis=0).all(), "a column of nothing but padding"
            np.testing.assert_array_equal(side, before[part.places][:, : side.shape[1]])
            assert not before[part.places][:, side.shape[1] :].any()
