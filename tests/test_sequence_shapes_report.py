"""The report of the sequence shapes: its theory, the choice of rates, verdicts, and what quick must show."""

import numpy as np
import pytest
import xarray as xr

from experiments import _sequence_shapes_lanes as lanes
from experiments import _sequence_shapes_report as reporting
from experiments import sequence_shapes as study
from tests.lost_lanes import each_lost


def test_letters_of_ten_names_by_hand():
    found = reporting.letter_entropies()
    # Three first letters begin two names each, four one.
    first = 0.6 * np.log2(5) + 0.4 * np.log2(10)
    np.testing.assert_allclose(found, [first, 0.6, 0, 0, 0, 0], atol=1e-12)
    assert found[0] + found[1] == pytest.approx(np.log2(10))


def test_powers_are_of_the_first_by_seed():
    exact = np.array([[0.9, 0.5, 0.1], [0.5, 0.0, 1.0]])
    np.testing.assert_allclose(reporting.powers(exact), [[0.9, 0.81, 0.729], [0.5, 0.25, 0.125]])


def _dataset(axes, values):
    """Values by the axes' points, that differ from seed to seed by thousandths; the second rate is worse in all."""
    spread = 0.001 * np.array([-1.0, 0.0, 1.0])
    shape = tuple(map(len, axes.values()))
    made = {
        "validation_loss": ((*axes, "rate", "seed", "step"), np.ones((*shape, 2, 3, 2)) * [[[0.5, 0.4]], [[0.6, 0.5]]])
    }
    for name, (own, level) in values.items():
        level = np.asarray(level, float)
        seeds = level.reshape(*shape, 1, 1, *level.shape[len(shape) :]) + spread.reshape(1, 3, *[1] * len(own))
        made[name] = ((*axes, "rate", "seed", *own), np.concatenate([seeds, np.zeros_like(seeds)], axis=len(shape)))
    return xr.Dataset(made, {**axes, "rate": [0.1, 0.2], "seed": [0, 1, 2]}, {"hidden": 4, "pictures": 359})


def _tree(**change):
    """Results that bear out every claim, but for what is changed."""
    is_now = {
        "mlp": (0.96, 0.2), "cell": (0.95, 0.8), "mean": (0.5, 0.5), "exact": 0.95, "name": 1.0, "blind": np.log2(10),
        "alone": 0.2, "first": 0.1, "first both": 0.9, "last": 0.94, "numbers": (0.97, 0.93, 0.9, 0.88),
        "shuffled": (0.8, 0.2, 0.1, 0.1), "own": 0.9,
    } | change  # fmt: skip
    ahead = np.linspace(is_now["first"], is_now["last"], 8)
    around = np.linspace(is_now["first both"], 0.95, 8)
    tags = np.stack([np.full(8, is_now["alone"]), *[ahead] * 3, *[around] * 3])[:, None, :] * np.ones((1, 2, 1))
    order = {"shuffled": [0, 1]}
    return xr.DataTree.from_dict({
        "vector": _dataset({"net": ["linear", "mlp"], **order}, {"accuracy": ((), [(0.9, 0.2), is_now["mlp"]])}),
        "columns": _dataset(
            {"net": [lanes.MEAN, *lanes.CELLS], **order}, {"accuracy": ((), [is_now["mean"], *[is_now["cell"]] * 3])}
        ),
        "caption": _dataset(
            {"cell": list(lanes.CELLS), "blind": [0, 1]},
            {
                "exact": ((), [(is_now["exact"], 0.1)] * 3), "name": ((), [(is_now["name"], 1.0)] * 3),
                "name_bits": ((), [(0.2, is_now["blind"])] * 3),
            },
        ),
        "tags": _dataset({"net": lanes.tag_nets(lanes.CELLS)}, {"accuracy": (("digit", "column"), tags)}),
        "numbers": _dataset(
            order, {"exact": (("digits",), [is_now["numbers"], is_now["shuffled"]]), "own": ((), [is_now["own"], 0.1])}
        ),
    })  # fmt: skip


def _said(tree, words):
    return {row.verdict for row in reporting.report(tree) if words in row.claim}


def test_everything_holds_where_it_does():
    rows = reporting.report(_tree())
    said = [row.verdict for row in rows]
    assert set(said) == {"holds", "not comparable", "-"}
    assert said.count("not comparable") == said.count("-") == 1


@pytest.mark.parametrize(
    ("change", "words", "said"),
    [
        ({"mlp": (0.8, 0.2), "cell": (0.8, 0.5), "exact": 0.8}, "hidden units reads", "fails"),
        ({"mlp": (0.96, 0.97)}, "pixels shuffled", "fails"),
        ({"cell": (0.95, 0.95)}, "reads the order", "fails"),
        ({"cell": (0.88, 0.5)}, "all pixels at once", "fails"),
        ({"cell": (0.9101, 0.5)}, "all pixels at once", "holds"),
        ({"exact": 0.9}, "writes the name", "fails"),
        ({"exact": 1.0}, "writes the name", "fails"),
        ({"name": 0.95}, "is a digit's name", "fails"),
        ({"name": 0.99}, "is a digit's name", "open"),
        ({"blind": 3.0}, "knows the names alone", "fails"),
        ({"blind": 3.6}, "knows the names alone", "fails"),
        ({"first": 0.4}, "cannot know", "fails"),
        ({"first both": 0.7}, "knows it there", "fails"),
        ({"last": 0.8}, "at the last column", "fails"),
        ({"alone": 0.9}, "better than one column", "fails"),
        ({"numbers": (0.97, 0.6, 0.5, 0.4)}, "digits one by one", "fails"),
        ({"numbers": (0.5, 0.4, 0.4, 0.4)}, "digits one by one", "fails"),
        ({"shuffled": (0.9, 0.9, 0.9, 0.9)}, "columns shuffled", "fails"),
        ({"own": 0.2}, "look at a digit", "fails"),
    ],
)
def test_each_claim_can_fail(change, words, said):
    assert _said(_tree(**change), words) == {said}


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NumPy's, of numbers that are not finite
def test_a_report_is_made_where_lanes_are_lost():
    for lost in each_lost(_tree()):
        assert len(reporting.report(lost)) == len(reporting.report(_tree()))


def test_rates_are_chosen_for_each_net_on_validation_loss():
    tree = _tree()
    panel = tree["columns"].to_dataset()
    loss = panel["validation_loss"].values
    loss[1, 0, 0] = 0.9  # the first rate is worse for the simple net in order
    loss[2, 0, 0, 1] = np.nan  # and one seed of the LSTM's diverged at once
    loss[3, 0, 0, 1, 1] = np.nan  # and one of the GRU's later
    for net, accuracy in (("rnn", 0.0), ("lstm", 0.0), ("gru", 0.95)):
        found = reporting.at_rate(panel, "accuracy", net=net, shuffled=0)
        assert found.mean() == pytest.approx(accuracy)
        assert reporting.at_rate(panel, "accuracy", net=net, shuffled=1).mean() == pytest.approx(0.8)


@pytest.mark.slow
def test_quick_shows_what_the_study_claims():
    rows = study.report(study.run(study.PRESETS["quick"]))
    verdicts = {row.claim: row.verdict for row in rows}
    assert "fails" not in verdicts.values()
    for words in ("reads the order", "cannot know", "knows the names alone", "columns shuffled", "look at a digit"):
        assert {said for claim, said in verdicts.items() if words in claim} == {"holds"}, words
    for cell in ("lstm", "gru"):
        assert verdicts[f"aligned: in both directions the {cell} knows it there"] == "holds"
