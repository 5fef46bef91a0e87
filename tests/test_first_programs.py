"""The first programs: what each must satisfy exactly, a tiny run of all, and the claims of the quick preset."""

from dataclasses import replace

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from scipy.stats import beta

from experiments import _first_programs_lanes as lanes
from experiments import _first_programs_report as reporting
from experiments import _first_programs_tables as tables
from experiments import first_programs as study
from experiments._first_programs_sentences import BAD_WORDS, GOOD_WORDS, TWINS
from nnjax import data
from nnjax.classical import backpropagation

TINY = study.Config(  # 100 seeds of the net that learns NOT: the claim is about so many
    iris_seeds=2, iris_epochs=5, arrays_seeds=2, arrays_steps=5, xor_seeds=2, xor_epochs=10, walk_seeds=2,
    walk_days=40, prices_steps=5, sentiment_seeds=2,
)  # fmt: skip


@pytest.fixture(scope="module")
def tiny():
    # Thirteen programs that hardly run: what they cost is their compilation.
    jax.config.update("jax_disable_most_optimizations", True)
    try:
        return study.run(TINY)
    finally:
        jax.config.update("jax_disable_most_optimizations", False)


# The whole


def test_a_tiny_run_has_every_panel_and_figure_and_claim(tiny):
    panels = {"iris", "shapes", "plain_arrays", "negation", "gates", "xor", "recurrence", "people", "walk", "sentiment"}
    assert set(tiny.children) == panels
    assert dict(tiny["iris"].sizes) == {"features": 3, "seed": 2, "y": 51, "x": 51}
    figures = study.plot(tiny)
    assert set(figures) == {"iris", "small_nets", "negation", "prices", "sentiment"}
    rows = study.report(tiny)
    assert len(rows) == 30
    assert {row.verdict for row in rows} <= {"holds", "fails", "open"}
    assert len({row.claim for row in rows}) == len(rows)


def test_the_exact_rows_hold_at_any_size(tiny):
    verdicts = {row.claim: row.verdict for row in study.report(tiny)}
    for start in ("coefficient shapes", "two-layer net in plain arrays: by hand", "delta rule", "a recurrent net"):
        (found,) = [said for claim, said in verdicts.items() if claim.startswith(start)]
        assert found == "holds", start


def test_the_same_seed_gives_the_same_numbers(tiny):
    again = study.sweeps(TINY)["xor"]()
    np.testing.assert_allclose(again["loss"], tiny["xor"]["loss"], rtol=1e-5)  # the compiler optimizes here
    other = study.sweeps(replace(TINY, seed=1))["xor"]()
    assert (other["loss"].values != tiny["xor"]["loss"].values).any()


BAD = {
    "one seed": (["--iris-seeds", "1"], "iris_seeds=1 must be at least 2"),
    "no rate": (["--negation-rate", "0"], "negation_rate=0.0 must be positive"),
    "odd epochs": (["--xor-epochs", "15"], "xor_epochs=15 must be a multiple of 10"),
    "a short walk": (["--walk-days", "5"], "walk_days=5 must be at least 20"),
    "unknown option": (["--iris-seds", "5"], "did you mean --iris-seeds?"),
    "unknown preset": (["--preset", "quik"], "did you mean quick?"),
    "empty preset": (["--preset", ""], "unknown preset '' (allowed: quick"),
    "a word too many": (["--apple", "x"], "unrecognized x after --apple"),
    "an empty word too many": (["--apple", ""], "unrecognized empty word after --apple"),
    "a bar too many": (["--apple", "|"], "unrecognized | after --apple"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_sentence_and_exit_2(capsys, name):
    arguments, text = BAD[name]
    assert study.main(arguments) == 2
    said = capsys.readouterr().err
    assert text in said
    assert said.count("\n") == 1


def test_missing_prices_are_one_sentence(monkeypatch, tmp_path):
    monkeypatch.setenv("NNJAX_DATA", str(tmp_path))
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with pytest.raises(data.DataError, match=r"finance-charts-apple\.csv.* could not be downloaded"):
        study.sweeps(replace(TINY, apple=True))


def test_real_prices_are_split_by_time(real_data, monkeypatch):
    monkeypatch.setenv("NNJAX_DATA", str(real_data))
    found = study.sweeps(replace(TINY, apple=True))["apple"]()
    assert dict(found.sizes) == {"inputs": 2, "seed": 20, "day": 101}
    # All arms are judged on the same days, the last 101, and tomorrow = today needs no seed.
    assert (found["price"] == found["price"].isel(seed=0, inputs=0)).all()
    assert float(found["price"].isel(seed=0, inputs=0)[-1]) == pytest.approx(135.345, abs=0.01)
    assert (found["naive_squared"] == found["naive_squared"].isel(seed=0, inputs=0)).all()


# NOT of one bit


@pytest.fixture(scope="module")
def negation(tiny):
    assert tiny["negation"].sizes["seed"] == 100
    return tiny["negation"].to_dataset()


def test_not_is_learned_by_90_of_100_seeds_and_the_loss_falls(negation):
    for reading in ("normalized", "logits"):
        assert reporting.learned(negation, reading).sum() >= 90
        assert reporting.falling(negation, reading).sum() >= 95
        loss = negation["loss"].sel(reading=reading).transpose("seed", "epoch").values
        assert (np.diff(loss, axis=1) < 0).all(axis=1).sum() >= 95, "and so does the loss after each epoch"


def test_without_dividing_by_the_sum_not_is_learned_by_far_fewer(negation):
    assert reporting.learned(negation, "not normalized").sum() < 75


def test_the_readings_of_sparse_cross_entropy():
    logits, labels = jnp.array([[0.3, -1.2], [2.0, 2.0], [-4.0, 0.5]]), jnp.array([0, 1, 0])
    p = 1 / (1 + np.exp(-np.asarray(logits)))
    right = p[np.arange(3), np.asarray(labels)]
    np.testing.assert_allclose(lanes.normalized_cross_entropy(logits, labels), -np.log(right / p.sum(1)), rtol=1e-5)
    np.testing.assert_allclose(lanes.plain_cross_entropy(logits, labels), -np.log(right), rtol=1e-5)
    softmax = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(
        lanes.READINGS["logits"](logits, labels), -np.log(softmax[np.arange(3), labels]), rtol=1e-5
    )
    for reading in lanes.READINGS.values():
        assert np.isfinite(reading(jnp.array([[200.0, -200.0]]), jnp.array([1]))).all()


# Plain arrays and recurrence


def test_gradients_by_hand_are_autodiffs_and_the_librarys():
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        shapes = (4, 8), (8,), (8, 3), (3,)
        params = lanes.TwoLayers(*(jnp.asarray(rng.normal(size=shape)) for shape in shapes))
        x, target = jnp.asarray(rng.normal(size=(20, 4))), jnp.asarray(np.eye(3)[rng.integers(0, 3, 20)])
        by_hand = lanes.two_layers_gradient(params, x, target)
        autodiff = jax.grad(lanes.two_layers_loss)(params, x, target)
        library = backpropagation.gradient(
            backpropagation.Params((params.w1, params.w2), (params.b1, params.b2)), (x, target),
            backpropagation.Config(sizes=(4, 8, 3)),
        )  # fmt: skip
        for one, two in zip(by_hand, autodiff, strict=True):
            np.testing.assert_allclose(one, two, rtol=1e-12, atol=1e-15)
        np.testing.assert_allclose(by_hand.w1, library.weights[0], rtol=1e-12, atol=1e-15)
        np.testing.assert_allclose(by_hand.b2, library.biases[1], rtol=1e-12, atol=1e-15)


@pytest.fixture(scope="module")
def recurrent():
    rng = np.random.default_rng(0)
    params = lanes.Recurrent(*(np.float32(rng.normal(size=shape)) for shape in ((3, 5), (5, 5), (5,))))
    return params, np.float32(rng.normal(size=(2, 4, 3)))


def test_unrolled_is_scanned_is_flaxs(recurrent):
    params, xs = recurrent
    cell = nn.SimpleCell(5)
    weights = {"i": {"kernel": params.inward, "bias": params.bias}, "h": {"kernel": params.across}}
    h, states = jnp.zeros((4, 5)), []
    for x in xs:
        h, _ = cell.apply({"params": weights}, h, x)
        states.append(h)
    for form in (lanes.unrolled, lanes.scanned):
        np.testing.assert_allclose(form(params, xs), jnp.stack(states), atol=1e-6)


def test_their_gradients_are_pytorchs(recurrent):
    torch = pytest.importorskip("torch")
    params, xs = recurrent
    net = torch.nn.RNN(3, 5)
    with torch.no_grad():
        for name, value in (("weight_ih", params.inward.T), ("weight_hh", params.across.T), ("bias_ih", params.bias)):
            getattr(net, f"{name}_l0").copy_(torch.tensor(value))
        net.bias_hh_l0.zero_()
    (net(torch.tensor(xs))[0] ** 2).sum().backward()
    for form in (lanes.unrolled, lanes.scanned):
        gradient = jax.grad(lambda p, f=form: jnp.sum(f(p, jnp.asarray(xs)) ** 2))(params)
        np.testing.assert_allclose(gradient.inward, net.weight_ih_l0.grad.numpy().T, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(gradient.across, net.weight_hh_l0.grad.numpy().T, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(gradient.bias, net.bias_ih_l0.grad.numpy(), rtol=1e-4, atol=1e-5)


# Sentences


def test_the_sentences_are_what_is_said_of_them():
    assert len({sentence for twins in TWINS for sentence in twins}) == 240
    negated = [tables.is_negated(sentence) for sentence in tables.SENTENCES]
    assert sum(negated) == 80
    assert [tables.is_negated(good) for good, _ in TWINS] == [tables.is_negated(bad) for _, bad in TWINS]
    assert not GOOD_WORDS & BAD_WORDS


@pytest.mark.parametrize(
    ("sentence", "plain", "ruled"),
    [
        ("The food was good.", 1, 1),
        ("The food was not good.", 1, -1),
        ("It isn't bad, really.", -1, 1),
        ("Never have I been as long and as badly served by good cooks.", 1, 1),  # the negator is too far away
        ("Good soup, terrible coffee.", 0, 0),
        ("We ate at noon.", 0, 0),
    ],
)
def test_the_word_list_counts_and_its_rule_turns(sentence, plain, ruled):
    assert tables.list_score(sentence, rule=False) == plain
    assert tables.list_score(sentence, rule=True) == ruled


def test_bags_hold_words_and_neighbors():
    bags = tables.bags()
    assert bags["words"].shape[0] == bags["neighbors"].shape[0] == 240
    place = tables.SENTENCES.index("The food was not bad.")
    assert bags["words"][place].sum() == 5
    assert bags["neighbors"][place].sum() == 5 + 4


def test_splits_keep_twins_together_and_classes_balanced():
    splits = tables.sentence_splits(0.75, 3, 0)
    for train, test in zip(splits["train_together"], splits["test_together"], strict=True):
        assert not set(train) & set(test)
        assert len(train) + len(test) == 240
        assert set(train % 120).isdisjoint(test % 120)
        assert tables.LABELS[test].mean() == 0.5
    apart = splits["train_apart"][0]
    assert not set(apart % 120).isdisjoint(splits["test_apart"][0] % 120)


# The report's arithmetic


@pytest.mark.parametrize(("count", "n"), [(0, 10), (93, 100), (100, 100)])
def test_the_interval_of_a_share_is_clopper_and_pearsons(count, n):
    found = reporting.share_interval(count, n)
    low = beta.ppf(0.025, count, n - count + 1) if count else 0.0
    high = beta.ppf(0.975, count + 1, n - count) if count < n else 1.0
    np.testing.assert_allclose([found.low, found.high], [low, high], atol=1e-12)


def test_rows_over_splits_widen_their_intervals_by_the_shared_examples(tiny):
    ratios = {name: reporting.split_ratio(tiny[name].to_dataset()) for name in ("iris", "plain_arrays", "sentiment")}
    assert ratios == {"iris": 0.25, "plain_arrays": 0.25, "sentiment": pytest.approx(1 / 3)}
    arrays = tiny["plain_arrays"].to_dataset()
    with_bias, without = (arrays["accuracy"].sel(form=form).values for form in ("bias", "no bias"))
    made = arrays.assign(
        accuracy=arrays["accuracy"] + xr.DataArray([0.0, 0.3], dims="seed") * (arrays["form"] == "bias")
    )
    gains = with_bias - without + np.array([0.0, 0.3])
    half = (1 / 2 + 0.25) ** 0.5 * gains.std(ddof=1) * 12.7062047  # t of 1 degree of freedom
    row = reporting._array_rows(made)[1]
    low, high = (float(end) for end in row.interval.strip("[]").split(","))
    np.testing.assert_allclose([low, high], [gains.mean() - half, gains.mean() + half], rtol=1e-3)
    over_splits = [row for row in study.report(tiny) if "Nadeau and Bengio" in row.quantity]
    assert len(over_splits) == 3 + 1 + 1 + 4 + 1


def test_each_split_is_masked_by_its_own_sentences(tiny):
    sentiment = tiny["sentiment"].to_dataset()
    splits = study._sentence_splits(TINY)
    negated = np.array([tables.is_negated(sentence) for sentence in tables.SENTENCES])
    for arm, split in (("words", "together"), ("apart", "apart")):
        right = sentiment["right"].sel(arm=arm).transpose("seed", "sentence").values
        for which, kept in (("negated", negated), ("plain", ~negated)):
            wanted = [row[kept[test]].mean() for row, test in zip(right, splits[f"test_{split}"], strict=True)]
            np.testing.assert_allclose(reporting.sentiment_accuracy(sentiment, arm, which), wanted)


def test_twins_are_one_sample_each(tiny):
    sentiment = tiny["sentiment"].to_dataset()
    row = reporting._sentiment_rows(sentiment)[0]
    right, half = tables.list_rightness(rule=False).reshape(2, 120).mean(axis=0), 120
    negated = np.array([tables.is_negated(sentence) for sentence in tables.SENTENCES[:half]])
    plain, turned = reporting.t_interval(right[~negated]), reporting.t_interval(right[negated])
    drop, margin = plain.mean - turned.mean, np.hypot(plain.high - plain.mean, turned.high - turned.mean)
    low, high = (float(end) for end in row.interval.strip("[]").split(","))
    np.testing.assert_allclose([low, high], [drop - margin, drop + margin], rtol=1e-3)
    assert "80 and 40 pairs of twins" in row.quantity


@pytest.mark.parametrize(("factor", "said"), [(1.2, "holds"), (0.8, "fails")])
def test_beating_tomorrow_is_today_would_be_seen(tiny, factor, said):
    walk = tiny["walk"].to_dataset()
    made = walk.assign(linear_squared=factor**2 * walk["naive_squared"], net_squared=factor**2 * walk["naive_squared"])
    rows = reporting._price_rows(made, "walk")
    assert {row.verdict for row in rows} == {said}
    assert float(rows[0].measured) == pytest.approx(factor, abs=1e-3)


def test_nets_that_differ_are_not_called_the_same(tiny):
    iris = tiny["iris"].to_dataset()
    worse = iris.assign(right=iris["scikit_learn_right"] - 6)
    rows = reporting._iris_rows(worse, tiny["shapes"].to_dataset())
    assert [row.verdict for row in rows[:3]] == ["fails"] * 3


@pytest.mark.slow
def test_the_claims_of_the_quick_preset():
    rows = study.report(study.run(study.PRESETS["quick"]))
    # What a few other examples may turn, and what it must not turn into; everything else holds.
    other = {
        "iris, (7, 4) MLP": {"holds", "open"},
        "two-layer net in plain arrays: a bias per layer helps": {"holds", "open"},
        "NOT of one bit, not normalized: every sample is learned": {"fails"},  # not the reading of the claim
        "six people without labels, standardized first": {"fails"},
        "sentiment: a learned bag of words beats the word list whose negators turn words": {"fails"},
        "sentiment: a learned bag of words beats the word list": {"open", "fails"},
        "sentiment: pairs of neighboring words help": {"holds", "open"},
    }
    for row in rows:
        allowed = next((said for start, said in other.items() if row.claim.startswith(start)), {"holds"})
        assert row.verdict in allowed, row.claim
        if row.claim.startswith("iris, (7, 4) MLP"):
            ours, theirs = (float(part) for part in row.measured.split(" against "))
            assert abs(ours - theirs) < reporting.SAME_ACCURACY, row.claim
