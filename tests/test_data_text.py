"""Text: byte-pair encoding against the one of the paper, vocabularies that give the text back, and pieces in order."""

import hashlib
import json
import re
from collections import Counter

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from nnjax.data import DataError, Vocabulary, load_text, next_token_batches, streams, text, text_names, word_tokens
from nnjax.data.subwords import learn_merges, pieces, split_piece

VERSE = "the cat sat on the mat; the fat cat sat, and that was that"
RESERVED = ("<pad>", "<start>", "<end>", "<unknown>")


def sentence(caught):
    message = str(caught.value)
    assert "\n" not in message
    assert not message.endswith(".")
    return message


# --- Byte-pair encoding -------------------------------------------------------------------------------------------


def papers_merges(counts, merges):
    """Sennrich et al. (2016), algorithm 1, with all words counted anew each time and ties by code points."""
    words = {" ".join(word): count for word, count in counts.items()}
    learned = []
    for _ in range(merges):
        pairs = Counter()
        for word, count in words.items():
            symbols = word.split(" ")
            for i in range(len(symbols) - 1):
                pairs[symbols[i], symbols[i + 1]] += count
        if not pairs or max(pairs.values()) < 2:
            break
        most = max(pairs.values())
        best = min(pair for pair in pairs if pairs[pair] == most)
        learned.append(best)
        pattern = re.compile(r"(?<!\S)" + re.escape(" ".join(best)) + r"(?!\S)")
        words = {pattern.sub("".join(best), word): count for word, count in words.items()}
    return tuple(learned), words


def test_the_example_of_the_paper():
    counts = {"low·": 5, "lower·": 2, "newest·": 6, "widest·": 3}
    learned = learn_merges(counts, 10)
    assert learned[:3] == (("e", "s"), ("es", "t"), ("est", "·"))
    assert learned[3:5] == (("l", "o"), ("lo", "w"))
    assert learned == papers_merges(counts, 10)[0]
    ranks = {pair: rank for rank, pair in enumerate(learned)}
    assert split_piece("lowest·", ranks) == ["low", "est·"]
    assert split_piece("x", ranks) == ["x"]


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    counts=st.dictionaries(st.text("abc", min_size=1, max_size=8), st.integers(1, 5), min_size=1, max_size=8),
    merges=st.integers(0, 12),
)
@example(counts={"aaaaa": 1, "xaaaa": 1, "aaax": 2}, merges=5)
def test_merges_are_those_of_the_paper(counts, merges):
    expected, words = papers_merges(counts, merges)
    learned = learn_merges(counts, merges)
    assert learned == expected
    ranks = {pair: rank for rank, pair in enumerate(learned)}
    # Where the same token came about in two ways, the order of learning and that of ranks may differ.
    if len({left + right for left, right in learned}) == len(learned):
        assert {" ".join(split_piece(word, ranks)) for word in counts} == set(words)


def test_merges_do_not_depend_on_the_order_of_words():
    words = [*Counter(VERSE.split()).items()]
    assert learn_merges(dict(words), 20) == learn_merges(dict(words[::-1]), 20)


@settings(deadline=None, derandomize=True)
@given(st.text())
def test_pieces_put_together_are_the_text(given_text):
    found = pieces(given_text)
    assert "".join(found) == given_text
    assert all(found)


def test_pieces_by_hand():
    assert pieces("A dog,  it's 3!\n") == ["A", " dog", ",", " ", " it", "'", "s", " 3", "!", "\n"]


# --- Vocabularies -------------------------------------------------------------------------------------------------


def test_characters_by_hand():
    letters = Vocabulary.characters(["cab", "b "])
    assert letters.tokens == (*RESERVED, " ", "a", "b", "c")
    assert len(letters) == 8
    ids = letters.encode("abc", start=True, end=True)
    assert ids.tolist() == [1, 5, 6, 7, 2]
    assert ids.dtype == np.int32
    assert letters.decode(ids) == "abc"
    assert letters.encode("").tolist() == []
    assert letters.decode([]) == ""


def test_words_by_hand():
    words = Vocabulary.words(["b a, b", "c b a"], size=7)
    assert words.tokens == (*RESERVED, "b", "a", ",")
    assert words.encode("a, c b", unknown="mark").tolist() == [5, 6, 3, 4]
    assert words.decode([1, 5, 6, 3, 4, 0]) == "a , \ufffd b"
    assert Vocabulary.words("b a, b", least=2).tokens == (*RESERVED, "b")
    assert Vocabulary.words("d c b a").tokens == (*RESERVED, "a", "b", "c", "d")


def test_subwords_by_hand():
    subwords = Vocabulary.subwords("aab aab aab", merges=2)
    assert subwords.merges == (("a", "a"), ("aa", "b"))
    assert subwords.tokens == (*RESERVED, " ", "a", "b", "aa", "aab")
    assert subwords.split("aab ab") == ["aab", " ", "a", "b"]
    assert subwords.encode("aab ab").tolist() == [8, 4, 5, 6]
    np.testing.assert_array_equal(subwords.encode("aab ab"), subwords.encode("aab ab"))


def test_a_pair_learned_twice_counts_from_its_first_time():
    merges = (("a", "b"), ("b", "c"), ("a", "b"))
    assert Vocabulary("subwords", (*RESERVED, "a", "b", "c", "ab", "bc"), merges).split("abc") == ["ab", "c"]


def test_decoding_stops_at_the_end_and_passes_over_start_and_padding():
    letters = Vocabulary.characters("ab")
    assert letters.decode(np.array([0, 1, 4, 0, 5, 2, 4, 4])) == "ab"
    assert letters.decode([4, 3, 5]) == "a\ufffdb"


@pytest.mark.parametrize("make", [Vocabulary.characters, Vocabulary.subwords])
@settings(deadline=None, derandomize=True)
@given(given_text=st.text(sorted({*VERSE, "\n"})))
def test_the_text_comes_back(make, given_text):
    vocabulary = make([VERSE, "\n"])
    assert vocabulary.decode(vocabulary.encode(given_text, start=True, end=True)) == given_text


def test_no_text_gives_a_reserved_number():
    for make in (Vocabulary.characters, Vocabulary.words, Vocabulary.subwords):
        vocabulary = make("<pad> <end> <unknown>" * 3)
        assert vocabulary.encode("<pad> <end>").min() > 3


def test_word_tokens():
    assert word_tokens("It's a saftig-grünes 'Gras', 3 Meter.") == [
        "It's", "a", "saftig-grünes", "'", "Gras", "'", ",", "3", "Meter", ".",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Vocabulary.characters(""), "texts must hold at least one character; there are 1"),
        (lambda: Vocabulary.words([]), "texts must hold at least one character; there are 0"),
        (lambda: Vocabulary.subwords(["", ""]), "texts must hold at least one character; there are 2"),
        (lambda: Vocabulary.subwords("ab", merges=-1), "merges=-1 must be at least 0"),
        (lambda: Vocabulary.words("a b", least=2), "size=None and least=2 leave none of 2 words"),
        (lambda: Vocabulary.words("a b", size=4), "size=4 and least=1 leave none of 2 words"),
        (lambda: Vocabulary.characters("ab").encode("abü"), "text has 'ü' as token 2, which is none of the 6 tokens"),
        (lambda: Vocabulary.words("a b").encode("a dog"), "text has 'dog' as token 1"),
        (lambda: Vocabulary.subwords("a b").encode("a ü"), "text has 'ü' as token 2"),
        (lambda: Vocabulary.characters("a").encode("b", unknown="marc"), "did you mean 'mark'"),
        (lambda: Vocabulary.characters("a").decode([[4]]), r"shape \(1, 1\) must be integers \(t,\)"),
        (lambda: Vocabulary.characters("a").decode([4.0]), "ids of float64"),
        (lambda: Vocabulary.characters("a").decode([4, 5]), "ids from 4 to 5 must lie between 0 and 4"),
        (lambda: Vocabulary.characters("a").decode([-1]), "ids from -1 to -1 must lie"),
        (lambda: Vocabulary("letters", (*RESERVED, "a")), "kind 'letters' is not one of characters, words, subwords"),
        (lambda: Vocabulary("words", ("a",)), "tokens must be <pad>, <start>, <end>, <unknown> and at least one more"),
        (lambda: load_text("shakespear"), "text 'shakespear' is not one of shakespeare; did you mean 'shakespeare'"),
    ],
)
def test_bad_input_is_one_sentence(call, message):
    with pytest.raises(ValueError, match=message) as caught:
        call()
    sentence(caught)


# --- On disk ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [Vocabulary.characters, Vocabulary.words, Vocabulary.subwords])
def test_a_vocabulary_is_saved_and_read(make, tmp_path):
    vocabulary = make(VERSE + " läuft\U0001f600")
    vocabulary.save(tmp_path / "vocabulary.json")
    assert [path.name for path in tmp_path.iterdir()] == ["vocabulary.json"]
    again = Vocabulary.load(tmp_path / "vocabulary.json")
    assert again == vocabulary
    assert again.encode(VERSE).tolist() == vocabulary.encode(VERSE).tolist()
    assert Vocabulary.from_json(vocabulary.to_json()) == vocabulary


GOOD = {"format": "nnjax vocabulary 1", "kind": "subwords", "tokens": ["a", "b", "ab"], "merges": [["a", "b"]]}


def test_the_form_of_the_file():
    vocabulary = Vocabulary("subwords", (*RESERVED, "a", "b", "ab"), (("a", "b"),))
    assert json.loads(vocabulary.to_json()) == GOOD
    assert Vocabulary.from_json(json.dumps(GOOD)) == vocabulary


@pytest.mark.parametrize(
    "change",
    [
        {"format": "another"},
        {"kind": "letters"},
        {"kind": None},
        {"kind": "characters"},
        {"kind": "words"},
        {"tokens": []},
        {"tokens": None},
        {"tokens": "ab"},
        {"tokens": ["a", "b", "ab", "a"]},
        {"tokens": ["a", "b", "ab", ""]},
        {"tokens": ["a", "b", "ab", 3]},
        {"tokens": ["a", "b", "ab", []]},
        {"tokens": ["a", "b"]},
        {"merges": [["a"]]},
        {"merges": [["a", "c"]]},
        {"merges": [[["a"], ["b"]]]},
        {"merges": [1]},
        {"merges": {}},
    ],
    ids=str,
)
def test_a_damaged_vocabulary_is_one_sentence(change, tmp_path):
    (tmp_path / "v.json").write_text(json.dumps(GOOD | change))
    with pytest.raises(DataError, match=r"v\.json' is no vocabulary, or a damaged one \(.+\)") as caught:
        Vocabulary.load(tmp_path / "v.json")
    sentence(caught)


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"null", json.dumps(GOOD).encode()[:-5], b"\xff\xfe\x00", b"[" * 100_000, b"{}"],
    ids=["empty", "list", "null", "cut", "bytes", "deep", "nothing"],
)
def test_a_file_that_is_none_is_one_sentence(content, tmp_path):
    (tmp_path / "v.json").write_bytes(content)
    with pytest.raises(DataError, match=r"v\.json' is no vocabulary, or a damaged one \(.+\)") as caught:
        Vocabulary.load(tmp_path / "v.json")
    sentence(caught)


def test_a_missing_file_and_a_missing_folder(tmp_path):
    with pytest.raises(DataError, match=r"v\.json' cannot be read \(No such file"):
        Vocabulary.load(tmp_path / "v.json")
    with pytest.raises(DataError, match=r"v\.json' cannot be written \(No such file") as caught:
        Vocabulary.characters("a").save(tmp_path / "none" / "v.json")
    sentence(caught)


def test_a_text_is_read_as_the_real_one_is(tmp_path, monkeypatch):
    content = b"To be,\nor not"
    source = text._TEXTS["shakespeare"]
    (tmp_path / source.path).parent.mkdir()
    (tmp_path / source.path).write_bytes(content)
    with pytest.raises(DataError, match=r"input\.txt.* is damaged"):
        load_text("shakespeare", cache=tmp_path)
    right = source._replace(size=len(content), sha256=hashlib.sha256(content).hexdigest())
    monkeypatch.setitem(text._TEXTS, "shakespeare", right)
    assert load_text("shakespeare", cache=tmp_path) == "To be,\nor not"
    assert text_names() == ("shakespeare",)


def test_the_real_text(real_data):
    found = load_text("shakespeare", cache=real_data)
    assert len(found) == 1_115_394
    assert found.startswith("First Citizen:\nBefore we proceed any further")
    letters = Vocabulary.characters(found)
    assert len(letters) == 4 + 65
    assert letters.decode(letters.encode(found)) == found


# --- Pieces of a long text ----------------------------------------------------------------------------------------


def test_streams_by_hand():
    np.testing.assert_array_equal(streams(range(11), 3), [[0, 1, 2], [3, 4, 5], [6, 7, 8]])


def test_pieces_to_learn_from_by_hand():
    x, y = next_token_batches(range(11), 2, 2)
    np.testing.assert_array_equal(x, [[[0, 1], [5, 6]], [[2, 3], [7, 8]]])
    np.testing.assert_array_equal(y, [[[1, 2], [6, 7]], [[3, 4], [8, 9]]])


@settings(deadline=None, derandomize=True)
@given(t=st.integers(2, 60), batch=st.integers(1, 6), steps=st.integers(1, 8))
def test_rows_go_on_from_piece_to_piece(t, batch, steps):
    if t <= batch * steps:
        with pytest.raises(
            ValueError, match=rf"ids of shape \({t},\) must be \(t,\) with more than batch={batch} times"
        ):
            next_token_batches(np.arange(t), batch, steps)
        return
    x, y = next_token_batches(np.arange(t), batch, steps)
    assert x.shape == y.shape == ((t - 1) // batch // steps, batch, steps)
    np.testing.assert_array_equal(y, x + 1)
    rows = x.swapaxes(0, 1).reshape(batch, -1)
    assert (np.diff(rows) == 1).all()
    assert len(np.unique(x)) == x.size
    assert y.max() < t


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: streams([1, 2], 3), "batch=3 must be from 1 to the 2 tokens"),
        (lambda: streams([1, 2], 0), "batch=0 must be from 1"),
        (lambda: streams([[1, 2]], 1), r"ids of shape \(1, 2\) must be \(t,\)"),
        (lambda: next_token_batches([], 1, 1), r"ids of shape \(0,\)"),
        (lambda: next_token_batches(np.ones((4, 4)), 1, 1), r"ids of shape \(4, 4\)"),
        (lambda: next_token_batches(range(9), 0, 1), "batch=0 and steps=1 must be at least 1"),
        (lambda: next_token_batches(range(9), 1, 0), "batch=1 and steps=0 must be at least 1"),
    ],
)
def test_impossible_pieces_are_refused(call, message):
    with pytest.raises(ValueError, match=message) as caught:
        call()
    sentence(caught)
