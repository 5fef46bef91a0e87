"""The logic-gates study: a tiny run, its parts against other ways to the same numbers, bad input, and its claims."""

import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from scipy.stats import binomtest

from experiments import _logic_gates_figures as figures
from experiments import _logic_gates_lanes as lanes
from experiments import _logic_gates_report as reporting
from experiments import command
from experiments import logic_gates as study
from nnjax.classical.mcculloch_pitts import all_inputs

ROOT = Path(__file__).parent.parent
KEY = jax.random.key(0)
TINY = replace(
    study.PRESETS["quick"],
    functions_inputs=(1, 2),
    functions_epochs=12,
    hidden_activations=("logistic",),
    hidden_rates=(0.5,),
    hidden_seeds=4,
    hidden_steps=40,
    mark1_n=100,
    mark1_units=(8, 16),
    mark1_seeds=2,
    mark1_epochs=2,
    echo_seeds=2,
    echo_taps=4,
    echo_samples=600,
    echo_rates=(0.2, 0.5),
    oja_seeds=2,
    oja_patterns=600,
    sanger_units=2,
    sanger_epochs=2,
)


@pytest.fixture(scope="module")
def tiny():
    return study.run(TINY)


def test_a_tiny_run_has_every_panel_figure_and_row(tiny):
    assert set(tiny.children) == {
        "gates", "functions_1", "functions_2", "hidden", "mark1", "pixels", "echo", "oja", "sanger",
    }  # fmt: skip
    drawn = study.plot(tiny)
    assert set(drawn) == {"logic_gates", "functions", "hidden_layer", "mark1", "echo", "hebb"}
    for figure in drawn.values():
        figure.canvas.draw()
    rows = {row.claim: row for row in study.report(tiny)}
    assert rows["2 inputs: Boolean functions that a perceptron learns"].verdict == "reproduced"
    assert rows["2 inputs: Boolean functions that a perceptron learns"].measured == "14 of 16; 2 of 2"
    assert rows["AND and OR are learned within Novikoff's bound on updates"].measured == "AND 11 of 51.0, OR 5 of 27.0"
    assert rows["one unit learns every gate but XOR and its negation"].verdict == "reproduced"
    assert rows["two layers compute every Boolean function of 3 inputs"].measured == "256 of 256"


def test_the_exact_tables(tiny):
    gates = tiny["gates"].to_dataset()
    np.testing.assert_array_equal(gates["fixed"], gates["meant"])
    assert set(gates["gate"].values[~gates["converged"].values]) == {"xor", "equivalent"}
    np.testing.assert_array_equal(
        gates["delta"].sel(gate="and", presentation=[3, 7, 39])[:, 0], np.float32([0.2, 0.4, 0.4])
    )
    np.testing.assert_allclose(gates["bound"].sel(gate=["and", "or", "xor"]), [51, 27, np.inf])


def test_functions_are_numbered_by_their_truth_table():
    assert lanes.truth_tables(np.array([6, 8]), 2).tolist() == [[0, 1, 1, 0], [0, 0, 0, 1]]

    @jax.jit
    def some(block):
        return lanes.functions_lane(KEY, {"block": block}, None, inputs=2, size=8, epochs=20)

    first, second = some(0), some(1)
    # xor and its negation
    assert np.flatnonzero(~np.append(first["converged"], second["converged"])).tolist() == [6, 9]


def hidden(units, allocated, activation, steps=300, marks=(0, 10, 300)):
    static = {"units": allocated, "most": 4, "activation": activation, "steps": steps, "marks": marks}
    hparams = {"units": jnp.int32(units), "rate": jnp.float32(0.5)}
    return jax.jit(lanes.hidden_lane, static_argnames=tuple(static))(KEY, hparams, None, **static)


def test_hidden_nets_do_not_depend_on_their_allocation():
    activation = "logistic"  # which is not 0 at 0
    small, large = hidden(2, 2, activation), hidden(2, 4, activation)
    for name in small:
        np.testing.assert_allclose(small[name], large[name], rtol=1e-4, atol=1e-5)
    assert not np.any(large["hidden"][:, 2:])
    wide = hidden(4, 4, activation)
    assert wide["worst"][0] != small["worst"][0]


@pytest.mark.parametrize("activation", lanes.ACTIVATIONS)
def test_the_worst_error_is_that_of_the_returned_net(activation):
    found = hidden(4, 4, activation)
    x = np.asarray(all_inputs(2))
    low = lanes.ACTIVATIONS[activation][1]
    target = np.array([low, 1, 1, low])
    error = np.abs(target - np.asarray(lanes.hidden_net(found, x, activation))).max() / (1 - low)
    np.testing.assert_allclose(found["worst"][-1], error, rtol=1e-4)
    # and it descended the squared error by gradient steps: one step, against finite differences
    before, after = (hidden(4, 4, activation, steps=n, marks=(n,)) for n in (1, 2))
    with jax.enable_x64(True):
        weights = {name: np.asarray(before[name], float) for name in ("hidden", "output")}

        def loss(w):
            return 0.5 * np.sum((target - np.asarray(lanes.hidden_net(w, x.astype(float), activation))) ** 2)

        for name, place in (("hidden", (1, 2)), ("output", (0,)), ("output", (3,))):
            nudged = {k: v.copy() for k, v in weights.items()}
            nudged[name][place] += 1e-6
            slope = (loss(nudged) - loss(weights)) / 1e-6
            np.testing.assert_allclose(after[name][place], weights[name][place] - 0.5 * slope, atol=1e-4)


@pytest.fixture(scope="module")
def pictures():
    rng = np.random.default_rng(0)
    prototypes = rng.random((3, 400)) < 0.3
    y = rng.integers(0, 3, 90)
    x = np.where(rng.random((90, 400)) < 0.05, ~prototypes[y], prototypes[y]).astype(np.float32)
    classes = np.arange(3, dtype=np.int32)
    return {"x_train": x[:60], "y_train": y[:60], "x_test": x[60:], "y_test": y[60:], "classes": classes}


def mark1(pictures, units, allocated):
    static = {"units": allocated, "connections": 30, "threshold": 1.0, "epochs": 5}
    return jax.jit(lanes.mark1_lane, static_argnames=tuple(static))(
        KEY, {"units": jnp.int32(units)}, pictures, **static
    )


def test_machines_do_not_depend_on_their_allocation(pictures):
    small, large = mark1(pictures, 20, 20), mark1(pictures, 20, 50)
    for name in ("train_error", "test_error"):
        np.testing.assert_array_equal(small[name], large[name])
    np.testing.assert_allclose(small["activity"], large["activity"], rtol=1e-6)
    assert mark1(pictures, 50, 50)["test_error"][-1] < 0.2  # by chance it would be 2/3


def test_association_units_are_wired_at_random_and_for_good():
    wires = np.asarray(lanes.wiring(KEY, 50, 400, 30))
    assert wires.shape == (400, 50)
    assert (np.abs(wires).sum(axis=0) == 30).all()
    assert (wires.sum(axis=0) == 0).all()
    np.testing.assert_array_equal(wires[:, :7], lanes.wiring(KEY, 7, 400, 30))
    assert len(np.unique(wires, axis=1).T) == 50


def test_the_span_of_components_is_judged_by_their_variance():
    covariance = np.diag([4.0, 3.0, 2.0, 1.0])
    turned = np.array([[1.0, 1, 0, 0], [1, -1, 0, 0], [0, 0, 0, 5]])  # the first two span the leading components
    np.testing.assert_allclose(lanes.spanned(turned, covariance), [0.35, 0.7, 0.8])


def test_the_interval_of_a_share_is_scipys():
    right = np.zeros((40, 3), bool)
    right[:13, 0] = right[:, 2] = True
    found = figures.share(right)
    for column, k in enumerate((13, 0, 40)):
        expected = binomtest(k, 40).proportion_ci(0.95, "exact")
        np.testing.assert_allclose([found.low[column], found.high[column]], expected, atol=1e-12)


# The report on made-up results: what is not so must not be said


def changed(tiny, group, **values):
    made = tiny[group].to_dataset().copy(deep=True)
    for name, value in values.items():
        made[name] = (made[name].dims, np.broadcast_to(value, made[name].shape))
    return made


def test_a_perceptron_that_stops_early_or_claims_xor_is_found_out(tiny):
    gates = changed(tiny, "gates", converged=True)
    verdicts = {row.claim: row.verdict for row in reporting._gate_rows(gates)}
    assert verdicts["one unit learns every gate but XOR and its negation"] == "not reproduced"
    found = changed(tiny, "functions_2", converged=np.arange(16) != 6)
    assert reporting._function_rows(found, 2)[0].verdict == "not reproduced"
    not_proven = changed(tiny, "functions_2", repeats=False)
    assert reporting._function_rows(not_proven, 2)[0].verdict == "not reproduced"
    too_many = changed(tiny, "functions_2", updates=200)
    assert reporting._function_rows(too_many, 2)[1].verdict == "differs"


def test_nets_that_solve_nothing_do_not_hold(tiny):
    rows = reporting._hidden_rows(changed(tiny, "hidden", worst=0.5))
    assert all(row.verdict != "holds" for row in rows)
    four = reporting._hidden_rows(changed(tiny, "hidden", worst=0.1))[0]
    assert four.verdict == "open"  # 4 of 4 starts: the interval reaches below one half


def test_wrong_theories_differ(tiny):
    echo = changed(tiny, "echo", theory=5.0)
    assert {row.verdict for row in reporting._echo_rows(echo)[:2]} == {"differs"}
    oja = changed(tiny, "oja", theory=0.9, hebb_length=1.0)
    rows = {row.claim: row.verdict for row in reporting._hebb_rows(oja, tiny["sanger"].to_dataset())}
    assert rows["Oja's unit follows its differential equation"] == "differs"
    assert rows["plain Hebb grows without bound"] == "differs"


def test_association_units_that_do_not_help_fail(tiny):
    same = changed(tiny, "mark1", test_error=[[[0.5, 0.5], [0.5, 0.49]], [[0.5, 0.5], [0.5, 0.51]]])
    assert reporting._mark1_rows(same, tiny["pixels"].to_dataset())[0].verdict in ("open", "fails")
    better = xr.concat([same.isel(units=[0]), same.isel(units=[1]) - 0.3], "units").assign_attrs(same.attrs)
    assert reporting._mark1_rows(better, tiny["pixels"].to_dataset())[0].verdict == "holds"


# The command line

BAD = {
    "too many inputs": (["--functions-inputs", "3", "5"], "functions_inputs=(3, 5) must be at most 4"),
    "no inputs": (["--functions-inputs"], "functions_inputs is empty"),
    "unknown activation": (["--hidden-activations", "relu"], "must be among logistic, tanh"),
    "twice": (["--hidden-activations", "tanh", "tanh"], "each once"),
    "rate not swept": (["--hidden-rate", "0.3"], "hidden_rate=0.3 must be among hidden_rates"),
    "one size": (["--mark1-units", "64"], "needs at least two sizes"),
    "too many wires": (["--mark1-connections", "401"], "must be at most 400"),
    "bursting filter": (["--echo-rates", "0.5", "2.5"], "must be below 2"),
    "short call": (["--echo-samples", "600"], "at least 100 echo_taps=64"),
    "one seed": (["--mark1-seeds", "1"], "mark1_seeds=1 must be at least 2"),
    "descending": (["--mark1-units", "64", "32"], "must be ascending"),
    "unknown data": (["--mark1-data", "cifar10"], "must be among digits, mnist, fashion_mnist"),
    "too few pictures": (["--mark1-n", "5000", "--dry-run"], "more than the 1438 training pictures of digits"),
    "unknown option": (["--hiden-seeds", "3"], "did you mean --hidden-seeds?"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_sentence_and_exit_2(name, monkeypatch, capsys):
    monkeypatch.setattr(command, "_prepare_jax", lambda: None)
    arguments, text = BAD[name]
    assert study.main(arguments) == 2
    errors = capsys.readouterr().err
    assert text in errors
    assert errors.count("\n") == 1
    assert errors.startswith("logic_gates: ")


def test_presets_grow():
    quick, standard, full = (study.PRESETS[name] for name in ("quick", "standard", "full"))
    assert quick.hidden_seeds < standard.hidden_seeds < full.hidden_seeds
    assert quick.mark1_n < standard.mark1_n < full.mark1_n
    assert quick.mark1_data == "digits"


@pytest.mark.slow
def test_quick_shows_what_the_study_claims(tmp_path):
    """The falsifiable checks of the study, on the default command."""
    start = time.monotonic()
    command_line = [sys.executable, "-m", "experiments.logic_gates", "--out", str(tmp_path / "quick")]
    done = subprocess.run(command_line, cwd=ROOT, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stderr
    from nnjax import results

    tree = results.read_tree(tmp_path / "quick" / "results.nc")
    verdicts = {row.claim: row.verdict for row in study.report(tree)}
    for n, count in ((1, 4), (2, 14), (3, 104), (4, 1882)):
        found = tree[f"functions_{n}"].to_dataset()
        assert int(found["converged"].sum()) == count
        assert (found["repeats"] != found["converged"]).all()
        assert (found["updates"] <= found["bound"]).all()
    for activation in ("logistic", "tanh"):
        for units in (2, 4):
            assert verdicts[f"XOR, 2-{units}-1 {activation}: solved from more than half of the starts"] == "holds"
        assert verdicts[f"XOR, {activation}: 4 hidden units solve it more often than 2"] == "holds"
    assert verdicts["Mark I, digits, 1400 training pictures: 512 association units are better than 64"] == "holds"
    assert sum(verdict == "agrees" for verdict in verdicts.values()) == 11
    assert not {"fails", "differs", "not reproduced", "inconclusive"} & set(verdicts.values()), verdicts
    final = tree["mark1"]["test_error"].sel(units=512).isel(epoch=-1).mean()
    assert 0.015 < final < 0.035
    print(f"quick took {time.monotonic() - start:.0f} s")
