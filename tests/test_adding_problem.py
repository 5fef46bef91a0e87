"""The adding problem: its sequences, the gradients through time, a tiny run, bad input, and quick's claims."""

import re
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import xarray as xr

from experiments import _adding_problem_lanes as lanes
from experiments import _adding_problem_report as reporting
from experiments import adding_problem as study
from nnjax import losses, recurrent, results
from nnjax.data.synthetic import adding_problem
from nnjax.train import Config as TrainConfig
from nnjax.train import make_train

TINY = study.Config(
    lengths=(4, 6), seeds=2, rates=(0.01, 0.1), units=4, train_n=20, validation_n=6, test_n=6, steps=4, batch=5,
    evaluations=2,
)  # fmt: skip


@pytest.fixture(scope="module")
def tiny(unoptimized):
    """Every cell at the smallest size."""
    with unoptimized():
        return study.run(TINY)


# The sequences


def test_the_sum_is_that_of_the_two_marked_numbers():
    x, y = adding_problem(jax.random.key(0), 500, 11)
    assert x.shape == (500, 11, 2)
    values, marks = np.asarray(x[..., 0]), np.asarray(x[..., 1])
    assert set(np.unique(marks)) == {0.0, 1.0}
    np.testing.assert_array_equal(marks[:, :5].sum(axis=1), 1)
    np.testing.assert_array_equal(marks[:, 5:].sum(axis=1), 1)
    np.testing.assert_allclose(y, (values * marks).sum(axis=1), rtol=1e-6)
    assert values.min() >= 0
    assert values.max() < 1
    # Every place of each half is marked in about its share of the sequences: 6 standard deviations.
    for half, places in ((slice(0, 5), 5), (slice(5, 11), 6)):
        counts = marks[:, half].sum(axis=0)
        assert np.abs(counts - 500 / places).max() < 6 * np.sqrt(500 / places)


def test_always_saying_one_has_the_error_of_guessing():
    _, y = adding_problem(jax.random.key(1), 200_000, 2)
    squares = np.asarray((y - 1) ** 2, float)
    assert squares.mean() == pytest.approx(reporting.GUESSING, abs=6 * squares.std() / np.sqrt(len(squares)))


@pytest.mark.parametrize(("n", "length"), [(0, 5), (3, 1)])
def test_too_few_sequences_or_steps_are_one_sentence(n, length):
    with pytest.raises(ValueError, match=f"n={n} must be at least 1 and length={length} at least 2"):
        adding_problem(jax.random.key(0), n, length)


# Cells and gradients


@pytest.mark.parametrize("cell", lanes.CELLS)
def test_step_and_sequence_are_the_same_cell(cell):
    kind = lanes.RECURRENCES[cell]
    params = kind.start(jax.random.key(0), 2, 5)
    x = jax.random.normal(jax.random.key(1), (3, 7, 2))
    outputs, final = kind.sequence(params, x)
    state = tuple(jnp.zeros((3, 5)) for _ in range(kind.parts))
    state = state if kind.parts > 1 else state[0]
    for t in range(7):
        state = kind.step(params, state, x[:, t])
        output = state[0] if kind.parts > 1 else state
        np.testing.assert_allclose(outputs[:, t], output, rtol=1e-5, atol=1e-6)
    for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(final), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_starts_are_what_they_are_called():
    usual = lanes.RECURRENCES["rnn"].start(jax.random.key(0), 2, 16)
    assert float(jnp.abs(usual.u).max()) <= 0.25
    assert float(jnp.abs(usual.u).max()) > 0.2
    orthogonal = lanes.RECURRENCES["rnn orthogonal"].start(jax.random.key(0), 2, 16)
    np.testing.assert_allclose(orthogonal.u @ orthogonal.u.T, np.eye(16), atol=1e-5)
    identity = lanes.RECURRENCES["relu identity"].start(jax.random.key(0), 2, 16)
    np.testing.assert_array_equal(identity.u, np.eye(16))
    np.testing.assert_array_equal(
        lanes.RECURRENCES["lstm"].start(jax.random.key(0), 2, 3).b, [0] * 3 + [1] * 3 + [0] * 6
    )
    np.testing.assert_array_equal(
        lanes.RECURRENCES["gru"].start(jax.random.key(0), 2, 3).b, [0] * 3 + [-1] * 3 + [0] * 3
    )


@pytest.mark.parametrize("cell", lanes.CELLS)
def test_the_gradient_in_a_state_is_that_of_a_run_which_begins_with_it(cell):
    kind, net = lanes.RECURRENCES[cell], lanes.network(cell, 4)
    x, y = adding_problem(jax.random.key(1), 3, 6)
    params, _ = net.init(jax.random.key(0), x)
    found = lanes.state_gradients(cell, params, x, y)
    assert found.shape == (3, 6)
    sequence = {"rnn": recurrent.rnn, "rnn orthogonal": recurrent.rnn, "lstm": recurrent.lstm, "gru": recurrent.gru}
    for after in (1, 4):
        _, state = kind.sequence(params.cell, x[:, :after])

        def loss(state, after=after):
            if cell == "relu identity":
                outputs, _ = recurrent.rnn(params.cell, x[:, after:], state, activation="relu")
            else:
                outputs, _ = sequence[cell](params.cell, x[:, after:], state)
            return jnp.sum((outputs[:, -1] @ params.kernel + params.bias - y) ** 2)

        parts = jax.tree.leaves(jax.grad(loss)(state))
        expected = np.sqrt(sum(np.sum(np.asarray(part) ** 2, axis=-1) for part in parts))
        with np.errstate(divide="ignore"):  # all units of a sequence may be dead
            np.testing.assert_allclose(found[:, after - 1], np.log10(expected), atol=1e-4)


def test_an_orthogonal_net_in_its_linear_range_keeps_the_gradient():
    net = lanes.network("rnn orthogonal", 8)
    x, y = adding_problem(jax.random.key(1), 4, 30)
    params, _ = net.init(jax.random.key(0), x)
    small = params._replace(cell=params.cell._replace(w=1e-4 * params.cell.w))
    course = lanes._course(lanes.state_gradients("rnn orthogonal", small, x, y))
    np.testing.assert_allclose(course, 0, atol=1e-3)
    # A matrix half as large loses half at every step, far below the least number of float32.
    half = small._replace(cell=small.cell._replace(u=0.5 * small.cell.u))
    x, y = adding_problem(jax.random.key(2), 4, 200)
    course = lanes._course(lanes.state_gradients("rnn orthogonal", half, x, y))
    np.testing.assert_allclose(course, np.log10(0.5) * np.arange(199, -1, -1.0), atol=1e-2)


def test_one_dead_sequence_does_not_hide_what_is_left_of_the_others():
    logs = jnp.array([[-jnp.inf, 0.5], [-3.0, 1.0], [-2.0, 0.0]])
    np.testing.assert_allclose(lanes._course(logs), [-4, 0])


# A tiny run


def test_a_tiny_run_fills_every_cell(tiny):
    assert set(tiny.children) == {"length_4", "length_6"}
    panel = tiny["length_6"].to_dataset()
    assert list(panel["cell"].values) == list(lanes.CELLS)
    assert panel["test_loss"].sizes == {"cell": 5, "rate": 2, "seed": 2, "step": 2}
    assert panel["gradient"].sizes == {"cell": 5, "rate": 2, "seed": 2, "when": 2, "after": 6}
    assert np.isfinite(panel["test_loss"]).all()
    np.testing.assert_allclose(panel["gradient"].isel(after=-1), 0, atol=1e-6)
    start = panel["gradient"].sel(when="start")
    np.testing.assert_array_equal(start.isel(rate=0), start.isel(rate=1))


def test_the_gradient_is_looked_at_where_training_begins():
    net, key = lanes.network("gru", 3), jax.random.key(5)
    train = make_train(net, losses.squared_error, lambda _: optax.sgd(0.1), TrainConfig(steps=1))
    x, y = adding_problem(jax.random.key(0), 4, 5)
    for a, b in zip(*map(jax.tree.leaves, (train.start(key, None, {"train": (x, y)}).params, lanes.first(net, key, x))),
                    strict=True):  # fmt: skip
        np.testing.assert_array_equal(a, b)


def test_every_row_and_figure_is_made_from_a_stored_tree(tiny, tmp_path):
    results.write_tree(tmp_path / "results.nc", tiny)
    tree = results.read_tree(tmp_path / "results.nc")
    rows = study.report(tree)
    assert len({row.claim for row in rows}) == len(rows) == 2 * 9
    assert {row.verdict for row in rows} <= {"holds", "fails", "open", "-"}
    # Only the longest sequences carry the claims about errors.
    assert [row.verdict for row in rows if row.claim.startswith("T = 4") and "how far" in row.claim] == ["-"] * 5
    for figure in study.plot(tree).values():
        figure.savefig(tmp_path / "figure.png")


def _panel(levels, left):
    """Results with errors by cell that differ from seed to seed by a tenth, and a share of the gradient by cell."""
    spread = 1 + 0.05 * np.array([-1.0, 0.0, 1.0])
    loss = np.array([levels[cell] for cell in lanes.CELLS])[:, None, None, None] * spread[None, None, :, None]
    losses = np.concatenate([loss, 2 * loss], axis=1)  # the second rate is worse
    course = np.array([left[cell] for cell in lanes.CELLS])[:, None, None, None, None] * np.ones((1, 2, 3, 2, 1))
    course = np.log10(course * spread[None, None, :, None, None] * np.array([1.0, 3.0])[None, None, None, :, None])
    dims = ("cell", "rate", "seed", "step")
    names = ("train_loss", "validation_loss", "test_loss")
    return xr.Dataset(
        {**dict.fromkeys(names, (dims, losses)), "gradient": ((*dims[:3], "when", "after"), course),
         "diverged": (dims[:3], np.zeros(losses.shape[:3], bool))},
        {"cell": list(lanes.CELLS), "rate": [0.1, 0.2], "seed": [0, 1, 2], "step": [9], "when": ["start", "end"],
         "after": [1]},
        {"length": 5, "units": 3},
    )  # fmt: skip


GOOD = {"rnn": 0.16, "rnn orthogonal": 0.12, "relu identity": 0.001, "lstm": 0.001, "gru": 0.002}
LEFT = {"rnn": 1e-9, "rnn orthogonal": 0.5, "relu identity": 1.0, "lstm": 1e-3, "gru": 1e-2}


@pytest.mark.parametrize(
    ("levels", "left", "said"),
    [
        (GOOD, LEFT, {"rnn": "holds", "lstm": "holds", "gru": "holds", "less": "holds"}),
        ({**GOOD, "rnn": 0.05, "gru": 0.05}, {**LEFT, "rnn": 0.1},
         {"rnn": "fails", "lstm": "holds", "gru": "fails", "less": "fails"}),
        ({**GOOD, "rnn": 0.1, "lstm": 0.01}, {**LEFT, "rnn": 1e-3, "lstm": 1e-3, "gru": 1e-3},
         {"rnn": "open", "lstm": "open", "gru": "holds", "less": "fails"}),  # equal in every seed is not less
    ],
)  # fmt: skip
def test_verdicts_follow_the_intervals(levels, left, said):
    rows = reporting.report(xr.DataTree.from_dict({"length_5": _panel(levels, left)}))
    found = {row.claim: row.verdict for row in rows}
    for cell in ("rnn", "lstm", "gru"):
        assert next(v for claim, v in found.items() if claim.startswith(f"T = 5, {cell}:")) == said[cell], cell
    assert {v for claim, v in found.items() if "untrained, less" in claim} == {said["less"]}
    assert {v for claim, v in found.items() if "training lets more" in claim} == {"holds"}


def test_a_seed_that_diverged_counts_as_guessing():
    panel = _panel(GOOD, LEFT)
    panel["validation_loss"][3, 0, 1] = np.nan
    panel["test_loss"][3, 0, 1] = np.inf
    panel["diverged"][3, 0, 1] = True
    assert reporting.chosen_rates(panel)[3] == 1  # the other rate is better now
    panel["validation_loss"][3, 1] = 1.0
    assert reporting.errors(panel, "lstm")[1, -1] == reporting.GUESSING
    row = next(row for row in reporting.report(xr.DataTree.from_dict({"length_5": panel})) if "lstm:" in row.claim)
    assert row.seeds == 3
    assert row.measured.endswith("2 of 3 seeds below 0.01; 1 diverged")


# Bad input


BAD = {
    "short": ({"lengths": (1,)}, "lengths=1 must be at least 2"),
    "none": ({"lengths": ()}, "lengths"),
    "rate": ({"rates": (0.0, 0.1)}, "rates=(0.0, 0.1) must hold positive learning rates"),
    "batch": ({"batch": 21}, "batch=21 must be at most train_n=20"),
    "evaluations": ({"evaluations": 3}, "steps=4 must be a multiple of evaluations=3"),
    "clip": ({"clip": 0.0}, "clip=0.0 must be positive"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_options_are_one_sentence(name):
    change, text = BAD[name]
    with pytest.raises(ValueError, match=re.escape(text)):
        replace(TINY, **change)


@pytest.mark.slow
def test_quick_shows_what_the_study_claims():
    rows = study.report(study.run(study.PRESETS["quick"]))
    verdicts = {row.claim: row.verdict for row in rows}
    assert verdicts["T = 50, lstm: carries the sum"] == "holds"
    assert verdicts["T = 50, gru: carries the sum"] == "holds"
    assert verdicts["T = 50, rnn: stays near guessing"] == "holds"
    assert {v for claim, v in verdicts.items() if "T = 50: untrained, less" in claim} == {"holds"}
