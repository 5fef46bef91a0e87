"""Parts of the translation study: number words, arrays of pairs, scores, baselines, and where attention goes."""

import itertools
import re

import numpy as np
import pytest

from experiments import _translation_baselines as baselines
from experiments import _translation_corpora as corpora
from experiments import _translation_reordering as reordering
from experiments import _translation_scores as scores
from experiments import command
from nnjax.data.pairs import EncodedPairs, Pairs, PairSet
from nnjax.data.text import END, PAD, UNKNOWN
from nnjax.statistics import t_interval

# Numbers in words

WORDS = {
    1: ("one", "eins"), 7: ("seven", "sieben"), 10: ("ten", "zehn"), 11: ("eleven", "elf"),
    16: ("sixteen", "sechzehn"), 17: ("seventeen", "siebzehn"), 20: ("twenty", "zwanzig"),
    21: ("twenty-one", "einundzwanzig"), 30: ("thirty", "dreißig"), 66: ("sixty-six", "sechsundsechzig"),
    77: ("seventy-seven", "siebenundsiebzig"), 100: ("one hundred", "einhundert"),
    101: ("one hundred one", "einhunderteins"), 111: ("one hundred eleven", "einhundertelf"),
    1000: ("one thousand", "eintausend"), 1001: ("one thousand one", "eintausendeins"),
    1101: ("one thousand one hundred one", "eintausendeinhunderteins"),
    21_000: ("twenty-one thousand", "einundzwanzigtausend"),
    101_000: ("one hundred one thousand", "einhunderteintausend"),
    340_012: ("three hundred forty thousand twelve", "dreihundertvierzigtausendzwölf"),
    987_654: (
        "nine hundred eighty-seven thousand six hundred fifty-four",
        "neunhundertsiebenundachtzigtausendsechshundertvierundfünfzig",
    ),
}  # fmt: skip


@pytest.mark.parametrize("number", WORDS)
def test_numbers_in_words(number):
    assert (corpora.english(number), corpora.german(number)) == WORDS[number]


def _read(text, small, tens, hundred, thousand, joined):
    """The number that words say, by taking them apart."""
    if thousand in text:
        before, after = text.split(thousand)
        rest = (small, tens, hundred, thousand, joined)
        return 1000 * _read(before.strip(), *rest) + (_read(after.strip(), *rest) if after else 0)
    if hundred in text:
        before, after = text.split(hundred)
        rest = (small, tens, hundred, thousand, joined)
        return 100 * small[before.strip()] + (_read(after.strip(), *rest) if after else 0)
    return joined(text) if text not in small and text not in tens else {**small, **tens}[text]


def test_words_say_their_number():
    english = {word: value for value, word in enumerate(corpora._ENGLISH) if word}
    german = {word: value for value, word in enumerate(corpora._GERMAN) if word} | {"eins": 1}
    tens = [
        {word: 10 * value for value, word in enumerate(names) if word}
        for names in (corpora._ENGLISH_TENS, corpora._GERMAN_TENS)
    ]

    def forwards(text):
        ten, unit = text.split("-")
        return tens[0][ten] + english[unit]

    def backwards(text):
        unit, ten = re.fullmatch(r"(.+?)und(.+)", text).groups()
        return tens[1][ten] + german[unit]

    drawn = [*range(1, 250), *np.random.default_rng(0).integers(1, corpora.LARGEST, 300, endpoint=True)]
    for number in drawn:
        assert _read(corpora.english(number), english, tens[0], "hundred", "thousand", forwards) == number
        assert _read(corpora.german(number), german, tens[1], "hundert", "tausend", backwards) == number


def test_parts_of_words_are_the_words_with_their_roles():
    assert corpora.german_words(423)[-3:] == [("ones units", "drei"), ("", "und"), ("ones tens", "zwanzig")]
    assert corpora.english_words(21_000)[:3] == [("thousands tens", "twenty"), ("", "-"), ("thousands units", "one")]
    assert corpora.turned(21_119) == ("thousands",)
    assert corpora.turned(21_121) == ("thousands", "ones")
    assert [number for number in (1, 10, 19, 20, 21, 30, 99, 100, 111) if corpora.turned(number)] == [21, 99]


@pytest.mark.parametrize("number", [0, 1_000_000, -3])
def test_numbers_outside_are_one_sentence(number):
    with pytest.raises(ValueError, match=f"number={number} must be from 1 to 999999"):
        corpora.english(number)


def test_numbers_are_drawn_once_and_by_their_digits():
    drawn = corpora.draw_numbers(3000, 0)
    assert len(set(drawn.tolist())) == 3000
    by_digits = np.bincount([len(str(number)) for number in drawn], minlength=7)[1:]
    assert by_digits.tolist() == [9, 90, 726, 725, 725, 725]
    assert len({len(str(number)) for number in drawn[:50]}) > 3  # in random order
    assert (corpora.draw_numbers(3000, 1) != drawn).any()
    with pytest.raises(ValueError, match="1000000 numbers are more than the 999999 there are"):
        corpora.draw_numbers(1_000_000, 0)


def test_no_number_is_in_two_parts():
    corpus = corpora.read_corpus("numbers", 40, 10, 3)
    parts = [set(part.source) for part in corpus.pairs[1:]]
    assert [len(part) for part in parts] == [40, 10, 10]
    assert not any(one & other for one, other in itertools.combinations(parts, 2))
    assert [corpora.english(number) for number in corpus.numbers] == list(corpus.pairs.test.source)
    assert [corpora.german(number) for number in corpus.numbers] == list(corpus.pairs.test.target)


# Arrays


def _small():
    train = Pairs(("a b", "b b b", "a"), ("x", "yy y", "x yyyy"))
    return corpora.Corpus(PairSet("own", train, Pairs(("b c b b",), ("y z",)), Pairs(("a", "b"), ("x", "y"))), None)


def test_pairs_lie_side_by_side():
    made = corpora.material(_small(), 0, 100)
    assert made.left_out == 0
    assert made.train.shape == (3, 2 * 7)
    for row, source, target in zip(made.train, *_small().pairs.train, strict=True):
        assert made.source.decode(corpora.source_of(row[None])[0]) == source
        assert made.target.decode(corpora.target_of(row[None])[0]) == target
    # Parts have columns of their own, and what training lacks is unknown.
    assert made.validation.shape == (1, 2 * 8)
    assert made.validation[0].tolist().count(UNKNOWN) == 2
    assert made.test.shape == (2, 2 * 2)
    assert made.steps == 7


def test_long_pairs_are_left_out_of_training_alone():
    made = corpora.material(_small(), 0, 3)
    assert made.left_out == 2
    assert made.train.shape == (1, 2 * 4)
    assert made.source.decode(made.train[0, :4]) == "a b"
    assert made.validation.shape == (1, 2 * 8)
    assert made.steps == 7  # what may be written does not shrink with them
    with pytest.raises(ValueError, match="longest=2 leaves no pair; the shortest has 3 tokens"):
        corpora.material(_small(), 0, 2)


def test_halves_are_filled_up_alike():
    pairs = EncodedPairs(np.array([[5, 2, 0]]), np.array([[6, 7, 8, 2]]), np.array([0]))
    assert corpora.side_by_side(pairs).tolist() == [[5, 2, 0, 0, 6, 7, 8, 2]]


def test_captions_are_the_official_parts(real_data, monkeypatch):
    monkeypatch.setenv("NNJAX_DATA", str(real_data))
    corpus = corpora.read_corpus("multi30k", 20, 2000, 0)
    assert [len(part.source) for part in corpus.pairs[1:]] == [20, 1014, 1000]
    assert corpus.numbers is None


# Scores


def _sentences(random, n, words):
    return [" ".join(random.choice(list("abcdef"), random.integers(1, 9))) + words for _ in range(n)]


@pytest.mark.parametrize("n", [1, 2, 30])
def test_bleu_is_that_of_sacrebleu(n):
    metrics = pytest.importorskip("sacrebleu.metrics")
    for seed in range(6):
        random = np.random.default_rng([seed, n])
        references, written = _sentences(random, n, " Das, ja."), _sentences(random, n, " Das." if seed % 2 else "")
        counts = scores.counts_of(scores.BLEU, written, references)
        assert counts.shape == (n, 10)
        expected = metrics.BLEU().corpus_score(written, [references]).score
        assert float(scores.score(scores.BLEU, counts.sum(0))) == pytest.approx(expected, rel=1e-6, abs=1e-9)
    assert float(scores.score(scores.BLEU, scores.counts_of(scores.BLEU, references, references).sum(0))) > 99.99
    nothing = scores.counts_of(scores.BLEU, [""] * n, references)
    assert float(scores.score(scores.BLEU, nothing.sum(0))) == 0
    assert scores.chrf_of(references, references) == 100


def test_bleu_by_hand():
    # 8 words for 10: 6, 4, 2 and 0 n-grams of 8, 7, 6, 5 are right; the last counts as half a one.
    counts = np.array([8, 10, 6, 4, 2, 0, 8, 7, 6, 5])
    precisions = np.array([6 / 8, 4 / 7, 2 / 6, 0.5 / 5])
    expected = 100 * np.exp(1 - 10 / 8) * precisions.prod() ** 0.25
    assert float(scores.score(scores.BLEU, counts)) == pytest.approx(expected)
    longer = counts + np.array([4, 0, 0, 0, 0, 0, 0, 0, 0, 0])  # no price on what is too long but its n-grams
    assert float(scores.score(scores.BLEU, longer)) == pytest.approx(100 * precisions.prod() ** 0.25)


def test_exact_matches_are_counted():
    counts = scores.counts_of(scores.EXACT, ["a", "b ", "c"], ["a", "b", "c"])
    assert counts.tolist() == [[1, 1], [0, 1], [1, 1]]
    assert float(scores.score(scores.EXACT, counts.sum(0))) == pytest.approx(2 / 3)
    assert float(scores.score(scores.EXACT, np.zeros(2))) == 0


def test_intervals_of_exact_matches_are_over_seeds():
    random = np.random.default_rng(0)
    a, b = (np.stack([random.integers(0, 2, (5, 40)), np.ones((5, 40), int)], -1) for _ in range(2))
    found = scores.measured(scores.EXACT, lambda a, b: a - b, a, b)
    np.testing.assert_allclose(found, t_interval(a[..., 0].mean(1) - b[..., 0].mean(1)))
    alone = scores.measured(scores.EXACT, lambda a, b: a - b, a, b[:1])  # a baseline has one seed
    np.testing.assert_allclose(alone, t_interval(a[..., 0].mean(1) - b[0, :, 0].mean()))


def _counted(random, seeds, n):
    there = random.integers(8, 14, (1, n, 1)) - np.arange(4)
    right = random.binomial(there, 0.6, (seeds, n, 4))
    lengths = there[..., :1] + np.zeros((seeds, n, 1), int)
    return np.concatenate([lengths, lengths + 1, right, there + np.zeros((seeds, n, 1), int)], -1)


def test_intervals_of_bleu_are_over_sentences_drawn_alike():
    random = np.random.default_rng(0)
    a, b = (_counted(random, 2, 50) for _ in range(2))
    found = scores.measured(scores.BLEU, lambda a, b: a - b, a, b)

    def bleu(counts, drawn):
        return np.mean([scores.score(scores.BLEU, each[drawn].sum(0)) for each in counts])

    drawn = [np.repeat(np.arange(50), times.astype(int)) for times in scores._draws(50)[:300]]
    assert [len(each) for each in drawn] == [50] * 300
    gaps = [bleu(a, each) - bleu(b, each) for each in drawn]
    everyone = np.arange(50)
    assert float(found.mean) == pytest.approx(bleu(a, everyone) - bleu(b, everyone))
    half = (float(found.high) - float(found.low)) / 2
    np.testing.assert_allclose(found[1:], np.quantile(gaps, [0.025, 0.975]), atol=0.2 * half)
    # The same translations differ by nothing, however the sentences are drawn.
    np.testing.assert_allclose(scores.measured(scores.BLEU, lambda a, b: a - b, a, a), 0, atol=1e-12)


def test_a_bootstrap_interval_covers_what_new_sentences_give():
    random = np.random.default_rng(1)
    truth = float(scores.score(scores.BLEU, _counted(random, 1, 200_000)[0].sum(0)))
    within = 0
    for _ in range(60):
        low, high = scores.measured(scores.BLEU, lambda a: a, _counted(random, 1, 100))[1:]
        within += bool(low <= truth <= high)
    assert 50 <= within <= 60  # 57 expected; fewer than 50 has probability 0.001


def test_groups_by_length_are_about_as_large():
    lengths = np.random.default_rng(0).integers(1, 12, 400)
    groups = scores.length_groups(lengths, 4)
    assert len(groups) == 4
    assert (np.sum(groups, axis=0) == 1).all()
    ends = [(lengths[group].min(), lengths[group].max()) for group in groups]
    assert all(a[1] < b[0] for a, b in itertools.pairwise(ends))
    assert min(group.sum() for group in groups) > 50
    assert [group.tolist() for group in scores.length_groups(np.array([3, 3]), 4)] == [[True, True]]


def test_sacrebleu_that_is_missing_is_one_sentence(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "sacrebleu", None)
    with pytest.raises(command.BadInput, match=re.escape('pip install -e ".[text]"')):
        scores.check_installed()


# Baselines


def test_the_nearest_pair_is_the_most_alike():
    random = np.random.default_rng(0)
    train, asked = random.integers(4, 20, (30, 6)), random.integers(4, 20, (7, 6))
    train[3, 4:], asked[0, 3:] = (END, PAD), (END, PAD, PAD)
    found = baselines.nearest(train, asked, 20)
    rows, questions = (
        np.stack([np.bincount(row, minlength=20) for row in baselines.trimmed(ids)]).astype(float)
        for ids in (train, asked)
    )
    rare = np.log(31 / (1 + (rows > 0).sum(0)))
    rows, questions = rows * rare, questions * rare
    cosine = questions @ rows.T / np.linalg.norm(questions, axis=1)[:, None] / np.linalg.norm(rows, axis=1)[None]
    np.testing.assert_array_equal(found, cosine.argmax(1))
    np.testing.assert_array_equal(baselines.nearest(train, train[[5, 9]], 20), [5, 9])


def _model_1(sources, targets, rounds):
    """IBM model 1, word for word."""
    chance = {(s, t): 1.0 for one, other in zip(sources, targets, strict=True) for s in [0, *one] for t in other}
    for _ in range(rounds):
        count = dict.fromkeys(chance, 0.0)
        for one, other in zip(sources, targets, strict=True):
            for t in other:
                whole = sum(chance[s, t] for s in [0, *one])
                for s in [0, *one]:
                    count[s, t] += chance[s, t] / whole
        total = {s: sum(value for (a, _), value in count.items() if a == s) for s, _ in count}
        chance = {(s, t): value / total[s] for (s, t), value in count.items()}
    return chance


@pytest.mark.parametrize("rounds", [1, 2, 6])
def test_a_lexicon_is_that_of_model_1(rounds):
    random = np.random.default_rng(rounds)
    sources = [random.integers(4, 9, random.integers(1, 6)) for _ in range(25)]
    targets = [random.integers(4, 12, random.integers(1, 6)) for _ in range(25)]
    best = baselines.lexicon(sources, targets, 10, rounds)
    chance = _model_1([list(map(int, s)) for s in sources], [list(map(int, t)) for t in targets], rounds)
    for source in range(4, 9):
        known = {t: value for (s, t), value in chance.items() if s == source}
        assert known[best[source]] == pytest.approx(max(known.values()))
    assert best[PAD] == best[9] == PAD  # 9 is in no sentence


def test_model_1_finds_which_word_is_which():
    # the house, das Haus; the book, das Buch; a book, ein Buch (Knight, 1999).
    the, house, book, a = range(4, 8)
    sources = [np.array(each) for each in ([the, house], [the, book], [a, book])]
    targets = [np.array(each) for each in ([14, 15], [14, 16], [17, 16])]
    best = baselines.lexicon(sources, targets, 8, 20)
    assert best[[the, house, book, a]].tolist() == [14, 15, 16, 17]
    found = baselines.subword_by_subword(best, [np.array([a, house]), np.array([UNKNOWN, book])])
    assert [row.tolist() for row in found] == [[17, 15], [16]]


# Where attention goes

TOKENS = ["hundert", "dr", "eiund", "zwanzig"]


def test_spans_are_those_of_characters():
    assert reordering.spans(["ab", "", "c"]).tolist() == [[0, 2], [2, 2], [2, 3]]


def test_the_place_looked_at_is_weighted_by_characters():
    weights = np.array([[1, 0, 0], [0, 0.4, 0.6], [0.5, 0.5, 0], [0, 0, 1], [9, 9, 9]])  # the last is beyond the end
    # "drei": two characters of "dr", two of "eiund".
    assert reordering.place_looked_at(weights, TOKENS, np.array([7, 11])) == 1
    assert reordering.place_looked_at(weights, TOKENS, np.array([0, 7])) == 0
    assert reordering.place_looked_at(weights, TOKENS, np.array([14, 21])) == 2


def _looking(places, width=8):
    return np.eye(width)[places]


def test_looking_backwards_is_seen():
    # three hundred twenty-three thousand forty-five: dreihundert dreiundzwanzig tausend fünfundvierzig
    tokens = ["dreihundert", "drei", "und", "zwanzig", "tausend", "fünf", "und", "vierzig"]
    assert "".join(tokens) == corpora.german(323_045)
    right = _looking([0, 3, 3, 2, 4, 6, 5, 5])
    assert reordering.backwards(323_045, right, tokens) == [True, True]
    assert reordering.backwards(323_045, _looking([0, 2, 3, 3, 4, 6, 6, 5]), tokens) == [False, True]
    assert reordering.backwards(323_045, _looking([0, 3, 3, 3, 4, 6, 6, 6]), tokens) == [False, False]  # all at one
    assert reordering.backwards(119, right, ["einhundertneunzehn"]) == []


def test_only_numbers_that_are_right_count():
    tokens = [["drei", "und", "zwanzig"], ["vier", "und", "dreißig"], ["zwölf"]]
    texts = np.array(["".join(each) for each in tokens], object)
    weights = np.stack([_looking([2, 1, 0]), _looking([0, 1, 2]), _looking([0, 0, 0])])
    numbers = np.array([23, 34, 12])
    assert reordering.share_backwards(numbers, texts, tokens, weights) == 0.5
    assert reordering.share_backwards(np.array([23, 35, 12]), texts, tokens, weights) == 1
    assert np.isnan(reordering.share_backwards(np.array([24, 35, 12]), texts, tokens, weights))
