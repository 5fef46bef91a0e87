"""The initialisation study's panels inputs, zero, signals and histograms: lanes, theory, report and figures."""

from functools import partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

from experiments import _initialization_signal_figures as figures
from experiments import _initialization_signal_report as reporting
from experiments import _initialization_signals as signals
from experiments import _initialization_theory as theory
from experiments import _initialization_units as units
from experiments import _initialization_units_report as reporting_units
from nnjax import activations, initializers, results
from nnjax.statistics import t_interval

TINY = SimpleNamespace(
    input_draws=4000, zero_steps=5, signal_depth=6, signal_width=16, signal_inputs=8, signal_seeds=3, bias_variance=0.0,
    histogram_depth=3, histogram_width=12, histogram_steps=4, batch_size=8, data="digits",
    activations=signals.ACTIVATIONS, schemes=tuple(signals.SCHEMES),
)  # fmt: skip
RNG = np.random.default_rng(0)
DATA = {"x_train": RNG.normal(size=(60, 7)).astype(np.float32), "y_train": np.arange(60) % 10}


@pytest.fixture(scope="module")
def tree(unoptimized):
    with unoptimized():
        groups = {name: call() for name, call in signals.sweeps(TINY, DATA, jax.random.key(0)).items()}
        return xr.DataTree.from_dict(signals.with_theory(groups, TINY))


def _other(tree, unoptimized, **changes):
    """The tree with another signals panel."""
    config = SimpleNamespace(**(vars(TINY) | changes))
    with unoptimized():
        groups = {name: group.to_dataset() for name, group in tree.children.items()}
        groups["signals"] = signals.sweeps(config, DATA, jax.random.key(0))["signals"]()
        return xr.DataTree.from_dict(signals.with_theory(groups, config))


def test_tiny_run_fills_every_panel_and_none_diverges(tree):
    assert set(tree.children) == {"inputs", "zero", "signals", "histograms"}
    assert not any(int(group["diverged"].sum()) for group in tree.children.values())
    assert tree["signals"]["log_length"].sizes == {"seed": 3, "activation": 7, "scheme": 8, "layer": 6}
    assert tree["signals"]["theory_dead"].sizes == {"activation": 7, "scheme": 8, "layer": 6}
    assert tree["histograms"]["delta_density"].sizes == {
        "seed": 4, "activation": 3, "scheme": 2, "time": 2, "layer": 3, "bin": units.BINS
    }  # fmt: skip
    assert all(np.isfinite(value).all() for value in tree["signals"].to_dataset().data_vars.values())


def test_exact_claims_hold_however_small_the_run(tree):
    rows = reporting.rows(tree)
    said = {row.claim: row.verdict for row in rows}
    assert len(said) == len(rows)
    zero = [verdict for claim, verdict in said.items() if claim.startswith(("all weights", "control"))]
    assert zero == ["holds"] * 4
    assert said["linear units with orthogonal weights: lengths and gradients are kept through 6 layers"] == "holds"
    assert [said[row.claim] for row in rows if row.source == reporting._EARLIER] == ["not comparable"] * 15
    assert all(
        isinstance(field, str) or name == "seeds" for row in rows for name, field in row._asdict().items()
    )  # fmt: skip


def test_a_result_that_is_nan_makes_its_row_fail(tree):
    """In one cell of one seed: whatever a mean or a largest value would skip."""
    usual = {row.claim: row for row in reporting.rows(tree)}
    for panel, name, where, claims in (
        ("inputs", "sum", {"scheme": "he_normal"}, ["a unit with 250 inputs of 1, he_normal"]),
        ("zero", "moved", {"activation": "relu", "start": "zero"}, ["all weights 0, tanh or ReLU"]),
        ("zero", "distance", {"activation": "logistic", "start": "zero"}, ["all weights 0, logistic"]),
        ("zero", "nearest", {"start": "random"}, ["control: from random weights"]),
        ("zero", "accuracy", {"activation": "tanh", "start": "constant"}, ["tanh with Adam"]),
        ("signals", "log_length", {"activation": "tanh"}, ["tanh, 6 layers, all schemes: the signal's length"]),
        ("signals", "log_length", {"activation": "identity"}, ["identity, 6 layers, all schemes: the signal's length",
                                                               "linear units with orthogonal"]),
        ("signals", "log_gradient", {"activation": "logistic"}, ["logistic, 6 layers, all schemes: the gradient"]),
        ("signals", "log_gradient", {"activation": "identity"}, ["linear units with orthogonal"]),
        ("signals", "mean_log_length", {"activation": "relu"}, ["relu, 6 layers, all schemes: the signal's length",
                                                                "mean ln of the signal's length", "ReLU from N(0,"]),
        ("signals", "correlation", {"activation": "tanh"}, ["tanh, all schemes, layers 1 to 6: correlation"]),
        ("signals", "saturated", {"activation": "tanh"}, ["tanh, all schemes, layers 1 to 6: share"]),
        ("signals", "dead", {"activation": "relu"}, ["relu, all schemes, layers 1 to 6: share"]),
        ("histograms", "delta_rms", {"activation": "tanh"}, ["before training, tanh: gradients"]),
        ("histograms", "accuracy", {"activation": "relu"}, ["relu: nets learn faster"]),
    ):  # fmt: skip
        groups = {key: group.to_dataset().copy(deep=True) for key, group in tree.children.items()}
        groups[panel][name].loc[where | {"seed": 1}] = np.nan
        found = reporting.rows(xr.DataTree.from_dict(groups))
        for claim in claims:
            row = next(row for row in found if row.claim.startswith(claim))
            assert row.verdict == "fails", row
        touched = {row.claim for row in found if row != usual[row.claim]}
        assert touched, name  # and nothing else changed that names another activation
        other = {"tanh", "relu", "logistic", "swish"} - {str(where.get("activation"))}
        assert panel != "signals" or not any(claim.startswith(f"{word},") for claim in touched for word in other)


def test_a_row_is_open_where_the_interval_meets_the_tolerance(tree):
    """Sixteen seeds whose mean is 0.06, with little or much scatter, against a tolerance of 0.05."""
    noise = np.tile([-1.0, 1.0], 8)
    for scatter, verdict in ((0.001, "fails"), (0.05, "open")):
        gap = (0.06 + scatter * noise)[:, None, None]
        panel = xr.Dataset(
            {"x": (("seed", "activation", "scheme", "layer"), gap[:, None]), "theory_x": ((), 0.0)},
            {"activation": ["relu"], "scheme": ["he_normal"], "layer": [3]},
        )
        row = reporting._share_row(panel, "relu", "x", 0.05, "shares")
        assert (row.verdict, row.measured) == (verdict, "0.060 (he_normal, layer 3)")
        assert reporting._share_row(panel, "relu", "x", 0.07, "shares").verdict == "holds"
    assert [reporting_units.above_zero(t_interval(at + noise)) for at in (3.0, 0.1, -3.0, np.nan)] == [
        "holds", "open", "fails", "fails"
    ]  # fmt: skip


def test_cells_of_one_draw_count_once(tree):
    """ReLU nets scale: of eight schemes there are three draws. Elsewhere LeCun's normal is Xavier's."""
    panel = tree["signals"].to_dataset()
    for activation, draws in (("relu", 3), ("identity", 3), ("tanh", 7), ("swish", 7)):
        for what in ("length", "gradient"):
            assert len(reporting.distinct(reporting._cells(panel, activation, what))) == draws
    quantity = {row.claim: row.quantity for row in reporting.rows(tree) if row.source == reporting._EARLIER}
    again = [claim for claim, words in quantity.items() if "draws of relu, he_normal, rescaled" in words]
    assert again == [f"relu, {name}: the signal is that of mean field" for name in ("xavier_normal", "standard_normal")]
    assert sum("rescaled" in words for words in quantity.values()) == 2


def test_figures_are_made_from_what_a_folder_holds(tree, tmp_path):
    results.write_tree(tmp_path / "results.nc", tree)
    made = figures.plot(results.read_tree(tmp_path / "results.nc"))
    assert set(made) == {
        "signals_forward", "signals_backward", "signals_correlation", "signals_units", "inputs_and_zero",
        "histograms_tanh", "histograms_logistic", "histograms_relu",
    }  # fmt: skip
    for name, figure in made.items():
        figure.savefig(tmp_path / f"{name}.png")
        assert all(axes.get_xlabel() for axes in figure.axes if axes.has_data() and axes.axison), name
    note = made["histograms_relu"].legends[0].get_title().get_text()
    density = tree["histograms"]["delta_density"].sel(activation="relu").mean("seed").sum("bin") * 8 / units.BINS
    assert f"{100 * float(density.min()):.0f} to {100 * float(density.max()):.0f} %" in note
    sums, distance = made["inputs_and_zero"].axes[:2]
    assert "normal, 250 × a weight's variance" in [text.get_text() for text in sums.get_legend().get_texts()]
    assert distance.get_ylim()[1] >= float(tree["zero"]["distance"].mean("seed").max())


# Other activations and schemes


def test_what_was_chosen_is_all_that_is_computed_drawn_and_reported(tree, unoptimized):
    chosen = _other(tree, unoptimized, activations=("sin", "relu"), schemes=("glorot_normal", "orthogonal"))
    panel = chosen["signals"].to_dataset()
    assert list(panel["activation"].values) == ["sin", "relu"]
    assert list(panel["scheme"].values) == ["xavier_normal", "orthogonal"]
    for name in ("log_length", "log_gradient", "theory_log_length", "finite_log_gradient"):
        here = {"activation": ["relu"], "scheme": ["xavier_normal", "orthogonal"]}
        np.testing.assert_allclose(panel[name].sel(here), tree["signals"][name].sel(here), atol=1e-9)
    sine = (1 - np.exp(-2 * np.exp(panel["theory_log_length"].sel(activation="sin", scheme="orthogonal")))) / 2
    np.testing.assert_allclose(np.log(sine[:-1]), panel["theory_log_length"][0, 1, 1:], atol=1e-6)  # E sin^2 sqrt(q) z

    rows = reporting.rows(chosen)
    usual = reporting.rows(tree)  # those on other panels are the same
    words = ("tanh", "logistic", "swish", "identity", "linear", "he_normal", "LeCun")
    assert not any(word in row.claim for row in rows if row not in usual for word in words)
    assert sum(row.claim.startswith("sin,") for row in rows) == 3  # length, gradient, correlation
    assert [row.claim for row in rows if row.source == reporting._EARLIER] == [
        "relu, xavier_normal: the signal is that of mean field"
    ]
    (gradient,) = (row for row in rows if row.claim.startswith("sin, 6 layers, all schemes: the gradient"))
    assert gradient.tolerance == "50 % of theory, or mean ln within 3 s.e. + 0.05 of finite width"
    made = figures.plot(chosen)
    assert [axes.get_title() for axes in made["signals_backward"].axes[:2]] == ["sin", "relu"]
    assert [axes.get_title() for axes in made["signals_units"].axes] == ["ReLU: off for all 8 inputs"]
    (legend,) = (axes.get_legend() for axes in made["signals_forward"].axes if axes.get_legend())
    assert [text.get_text() for text in legend.get_texts()] == ["Xavier = LeCun, normal", "orthogonal", "mean field"]


def test_a_slope_of_zero_everywhere_gives_a_gradient_of_zero_that_is_said(tree, unoptimized, tmp_path):
    chosen = _other(tree, unoptimized, activations=("step",), schemes=("lecun_normal",), signal_depth=4)
    panel = chosen["signals"].to_dataset()
    assert not panel["diverged"].any()
    gradient = panel["log_gradient"].transpose("seed", "activation", "scheme", "layer").values
    assert np.all(gradient[..., :-1] == -np.inf)
    assert np.all(gradient[..., -1] == 0)
    assert np.isfinite(panel["log_length"]).all()
    said = {row.claim: row.verdict for row in reporting.rows(chosen) if row.claim.startswith(("step", "mean ln of"))}
    assert (
        said.pop("step, all schemes: the slope is 0 everywhere, so that no gradient passes the last layer") == "holds"
    )
    assert not any("gradient" in claim for claim in said)
    made = figures.plot(chosen)
    assert "signals_units" not in made
    made["signals_backward"].savefig(tmp_path / "figure.png")
    assert "exactly 0 below layer 4" in [text.get_text() for text in made["signals_backward"].axes[0].texts]


def test_a_net_that_falls_silent_has_no_nan(unoptimized):
    """Of two ReLUs a layer, all are off sooner or later; biases then speak alone."""
    lane = partial(signals.signals_lane, depth=40, width=2, inputs=4, activations=("relu", "threshold"))
    with unoptimized():
        silent = jax.jit(partial(lane, bias_variance=0.0, schemes=("lecun_normal",)))(jax.random.key(0), {}, None)
        biased = jax.jit(partial(lane, bias_variance=1e-30, schemes=("small_normal",)))(jax.random.key(0), {}, None)
    assert not silent["diverged"]
    assert silent["log_length"][0, 0, -1] == -np.inf
    assert silent["log_gradient"][0, 0, 0] == -np.inf
    assert silent["correlation"][0, 0, -1] == 0
    lost = np.asarray(silent["log_length"][1, 0]) == -np.inf
    assert lost.any()
    assert not np.any(lost[1:] & lost[:-1])  # 0 makes a threshold unit fire
    # A bias of 1e-15 is nothing beside what is left of the signal at first, and in the end all there is.
    assert not biased["diverged"]
    assert np.isfinite(biased["log_length"]).all()


# Zero and histograms


def test_zero_start_moves_output_biases_alone_and_equal_starts_stay_equal(tree):
    last = tree["zero"].isel(mark=-1)
    silent = last["moved"].sel(start="zero", activation=["tanh", "relu"])
    assert float(silent.sel(group=["hidden", "output_weights"]).max()) == 0
    assert float(silent.sel(group="output_biases").min()) > 0
    assert float(last["moved"].sel(start="constant").min()) > 0
    assert float(tree["zero"]["distance"].sel(start=["zero", "constant"]).max()) == 0
    assert float(tree["zero"]["nearest"].sel(start="random").min()) > 0


def test_unit_distances_sees_one_weight_in_or_out():
    def net(first, out):
        hidden = {"kernel": jnp.zeros((1, 3, 3)), "bias": jnp.zeros((1, 3))}
        return {
            "first": {"kernel": jnp.ones((2, 3)).at[1, 2].add(first), "bias": jnp.zeros(3)}, "hidden": hidden,
            "logits": {"kernel": jnp.ones((3, 4)).at[0, 3].add(out), "bias": jnp.zeros(4)},
        }  # fmt: skip

    assert [float(d) for d in units._unit_distances(net(0.0, 0.0))] == [0, 0]
    assert [float(d) for d in units._unit_distances(net(0.5, 0.0))] == [0, 0.5]
    assert [float(d) for d in units._unit_distances(net(0.0, 0.25))] == [0, 0.25]


def test_density_sums_to_the_share_inside():
    values = jnp.array([-1.0, -0.99, 0.0, 1.0, 1.5, -jnp.inf, jnp.nan, 0.5])
    found = np.asarray(units.density(values, -1.0, 1.0))
    width = 2 / units.BINS
    assert found.sum() * width == pytest.approx(5 / 8)
    assert found[0] * width == pytest.approx(2 / 8)
    assert found[-1] * width == pytest.approx(1 / 8)  # the upper end belongs to the last bin


def test_histograms_start_from_the_schemes_they_name(tree):
    start = tree["histograms"]["delta_rms"].sel(time="start", activation="tanh").mean("seed")
    shrink = start.sel(layer=1) / start.sel(layer=3)
    # U(-1/sqrt n, 1/sqrt n) has a third of Xavier's variance, and two layers lie between.
    assert 1.5 < float(shrink.sel(scheme="xavier_uniform") / shrink.sel(scheme="standard")) < 4.5


def test_histograms_draw_the_librarys_uniform_weights():
    library = (initializers.scaled_uniform(lambda i, o: 1 / (3 * i)), initializers.by_name("xavier_uniform"))
    key = jax.random.key(0)
    for place, init in enumerate(library):
        found, expected = jax.jit(lambda i=place, f=init: (units._uniform_start(i)(key, (6, 9)), f(key, (6, 9))))()
        np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_inputs_have_the_variance_of_the_worked_example():
    """250 inputs of 1: variance 250 (deviation 15.811388) from N(0, 1), 1 from 1/fan_in, 2 from 2/fan_in."""
    found = units.inputs_lane(jax.random.key(1), {}, None, draws=20_000)["sum"]
    relative = np.mean(np.square(found), axis=1) / np.array([250.0, 1.0, 2.0])
    np.testing.assert_allclose(relative, 1, atol=4 * np.sqrt(2 / 20_000))
    assert np.std(found[0]) == pytest.approx(15.811388300841896, rel=0.02)
    # Each scheme has draws of its own: standard error of a correlation 0.007.
    np.testing.assert_allclose(np.corrcoef(found), np.eye(3), atol=0.03)


# Signals


def test_signals_are_those_of_a_plain_net():
    """Without rescaling and by autodiff, in double precision, with biases."""
    depth, width, n, key = 5, 12, 6, jax.random.key(3)
    names, schemes = ("tanh", "relu", "swish"), ("he_normal", "xavier_uniform", "orthogonal")
    lane = partial(signals.signals_lane, depth=depth, width=width, inputs=n, bias_variance=0.3)
    with jax.enable_x64(True):
        found = jax.device_get(jax.jit(partial(lane, activations=names, schemes=schemes))(key, {}, None))
        draw_key, bias_key, input_key, delta_key = jax.random.split(key, 4)
        draws = jax.jit(signals.family_draws, static_argnums=(1, 2))(draw_key, depth, width)
        biases = 0.3**0.5 * jax.random.normal(bias_key, (depth, width))
        x = jax.jit(signals._pairs, static_argnums=(1, 2))(input_key, n // 2, width)
        last = jax.random.normal(delta_key, (n, width))

        @partial(jax.jit, static_argnums=1)
        @partial(jax.grad, has_aux=True)
        def forward(offsets, f, weights):
            y, net_inputs = x, []
            for weight, bias, offset in zip(weights, biases, offsets, strict=True):
                net_inputs.append(y @ weight + bias[None] + offset)
                y = f(net_inputs[-1])
            return jnp.sum(net_inputs[-1] * last), jnp.stack(net_inputs)

        for a, name in enumerate(names):
            for s, (family, scale) in enumerate((("normal", 2 / width), ("uniform", 1 / width), ("orthogonal", 1.0))):
                weights = draws[signals.FAMILIES.index(family)] * scale**0.5
                none = jnp.zeros((depth, n, width))
                delta, h = map(np.asarray, forward(none, activations.by_name(name), weights))
                lengths, squares = (h**2).mean(2), (delta**2).mean(2)
                expected = {
                    "log_length": np.log(lengths.mean(1)),
                    "mean_log_length": np.log(lengths).mean(1),
                    "log_gradient": np.log(squares.mean(1) / squares[-1].mean()),
                    "mean_log_gradient": np.log(squares / squares[-1:]).mean(1),
                }
                norm = np.linalg.norm(h, axis=2)
                product = np.sum(h[:, : n // 2] * h[:, n // 2 :], axis=2)
                expected["correlation"] = (product / (norm[:, : n // 2] * norm[:, n // 2 :])).mean(1)
                if name == "relu":
                    expected["dead"] = np.all(h <= 0, axis=1).mean(1)
                    expected["saturated"] = (h <= 0).mean((1, 2))
                for what, value in expected.items():
                    np.testing.assert_allclose(found[what][a, s], value, atol=1e-9, err_msg=f"{what}, {name}, {family}")


def test_nothing_overflows_at_any_depth():
    """ReLU in float32: two schemes of one family differ in length by their variances' ratio in every layer."""
    depth, width = 300, 32
    found = jax.jit(
        partial(
            signals.signals_lane, depth=depth, width=width, inputs=8, bias_variance=0.0,
            activations=("relu",), schemes=("standard_normal", "he_normal", "small_normal"),
        )
    )(jax.random.key(0), {}, None)  # fmt: skip
    assert all(np.isfinite(value).all() for value in found.values())
    length, layers = np.asarray(found["log_length"][0]), np.arange(1, depth + 1)
    np.testing.assert_allclose(length[0] - length[1], layers * np.log(width / 2), rtol=1e-5)
    np.testing.assert_allclose(length[2] - length[1], layers * np.log(1e-4 * width / 2), rtol=1e-5)
    gradient = np.asarray(found["log_gradient"][0])
    np.testing.assert_allclose(gradient[0] - gradient[1], (depth - layers) * np.log(width / 2), rtol=1e-5, atol=1e-5)
    assert length[0, -1] > np.log(np.finfo(np.float64).max)


def test_xaviers_normal_is_lecuns_where_layers_are_equally_wide():
    key, names = jax.random.key(2), ("xavier_normal", "lecun_normal")
    for shape, same in (((24, 24), True), ((24, 12), False)):
        one, other = (np.asarray(initializers.by_name(name)(key, shape)) for name in names)
        assert np.array_equal(one, other) == same


def test_draws_have_the_variance_of_the_librarys_schemes():
    width = 48
    with jax.enable_x64(True):
        draws = np.asarray(jax.jit(signals.family_draws, static_argnums=(1, 2))(jax.random.key(0), 3, width))
    np.testing.assert_allclose(
        draws[2] @ draws[2].transpose(0, 2, 1), np.broadcast_to(np.eye(width), (3, width, width)), atol=1e-12
    )
    key = jax.random.key(1)
    libraries = jax.jit(lambda: {name: initializers.by_name(name)(key, (width, width)) for name in signals.SCHEMES})()
    for name, (family, variance) in signals.SCHEMES.items():
        library = np.asarray(libraries[name])
        ours = draws[signals.FAMILIES.index(family)] * (1.0 if family == "orthogonal" else variance(width) ** 0.5)
        # Relative standard error of a variance over 2304 weights: 0.03 (normal).
        assert library.var() == pytest.approx(variance(width), rel=0.12)
        assert ours.var() == pytest.approx(variance(width), rel=0.07)
        if family == "uniform":
            assert max(np.abs(library).max(), np.abs(ours).max()) <= (3 * variance(width)) ** 0.5 * (1 + 1e-6)


# Theory


@pytest.fixture(scope="module")
def wide():
    """Theory of the quick preset: (activation, scheme) -> {name: (layers,)}."""
    table = [(variance(128) * 128, family == "orthogonal") for family, variance in signals.SCHEMES.values()]
    found = theory.signal_theory(
        signals.ACTIVATIONS, table, depth=50, width=128, inputs=64, bias_variance=0.0, correlation=0.5, saturated=0.05
    )
    return lambda activation, scheme: {
        name: value[signals.ACTIVATIONS.index(activation), list(signals.SCHEMES).index(scheme)]
        for name, value in found.items()
    }


def test_theory_has_the_published_numbers(wide):
    """Lengths of layer 50 and gradients of layer 1 over layer 50 of infinitely wide nets."""
    for activation, scheme, length, gradient in (
        ("tanh", "standard_normal", 119, None),
        ("tanh", "small_normal", 2.2e-95, None),
        ("tanh", "xavier_uniform", 1.04e-2, 0.0146),
        ("tanh", "he_normal", 0.618, 58.7),
        ("relu", "he_uniform", 2.0, 1.0),
        ("relu", "lecun_normal", 1.78e-15, None),
        ("relu", "standard_normal", 4.1e90, None),
        ("logistic", "xavier_normal", 0.265, 2.9e-62),
    ):
        here = wide(activation, scheme)
        assert np.exp(here["log_length"][-1]) == pytest.approx(length, rel=0.02)
        if gradient is not None:
            assert np.exp(here["log_gradient"][0]) == pytest.approx(gradient, rel=0.02)


def test_finite_width_has_its_closed_forms(wide):
    """Homogeneous activations: what a layer loses is known, and depends on weights only by whether they rotate."""
    below, n = np.arange(50), 128
    for activation, loss, rotated in (("relu", 5 / 2, 3 / 2), ("identity", 1.0, 0.0)):
        for scheme in ("he_normal", "small_normal"):
            here = wide(activation, scheme)
            lost = here["log_length"] - here["finite_log_length"]
            np.testing.assert_allclose(lost, (1 + loss * below) / n, atol=1e-6)
            lost = here["log_gradient"] - here["finite_log_gradient"]
            np.testing.assert_allclose(lost, loss * below[::-1] / n, atol=1e-6)
        here = wide(activation, "orthogonal")
        np.testing.assert_allclose(here["log_length"] - here["finite_log_length"], rotated * below / n, atol=1e-6)
        np.testing.assert_allclose(
            here["log_gradient"] - here["finite_log_gradient"], rotated * below[::-1] / n, atol=1e-6
        )


def test_share_of_units_off_for_every_input():
    for n in (2, 8):
        assert theory.none_positive(np.array([0.0]), np.array([0.0]), n // 2)[0] == pytest.approx(0.5**n)
        assert theory.none_positive(np.array([1.0]), np.array([1.0]), n // 2)[0] == pytest.approx(0.5, abs=2e-3)
    c = np.array([-0.0, 0.3, 0.9])
    pair = theory.none_positive(c, np.zeros(3), 1)
    np.testing.assert_allclose(pair, 0.25 + np.arcsin(c) / (2 * np.pi), atol=1e-4)  # Sheppard (1899)
    np.testing.assert_allclose(theory.none_positive(c, np.zeros(3), 4), pair**4, rtol=2e-3)


def test_saturated_share(wide):
    """tanh's slope is below 0.05 where tanh(z)^2 > 0.95."""
    from scipy.stats import norm

    here = wide("tanh", "standard_normal")
    exact = 2 * norm.sf(np.arctanh(0.95**0.5) / np.exp(here["log_length"] / 2))
    np.testing.assert_allclose(here["saturated"], exact, atol=2e-3)


# What the quick preset must show


def _panel(names, schemes):
    """The quick preset's nets, for some activations and schemes."""
    lane = partial(
        signals.signals_lane, depth=50, width=128, inputs=64, bias_variance=0.0, activations=names, schemes=schemes
    )
    key = jax.random.fold_in(jax.random.key(0), 2)
    with jax.enable_x64(True):
        run = jax.jit(lane)
        lanes = [run(jax.random.fold_in(key, seed), {}, None) for seed in range(16)]
    assert not any(lane.pop("diverged") for lane in lanes)
    axes = ("seed", "activation", "scheme", "layer")
    found = {name: (axes, np.stack([np.asarray(lane[name]) for lane in lanes])) for name in lanes[0]}
    return xr.Dataset(found, {"activation": list(names), "scheme": list(schemes)})


def test_depth_50_agrees_with_mean_field(wide):
    """Sixteen nets of 128 units: the tolerances that the report has, for three activations and schemes."""
    names, schemes = ("logistic", "tanh", "relu"), ("standard_normal", "xavier_normal", "he_normal")
    panel = _panel(names, schemes)
    beside = [[wide(activation, scheme) for scheme in schemes] for activation in names]
    for name in ("log_length", "log_gradient", "finite_log_length", "finite_log_gradient"):
        values = np.stack([[here[name] for here in row] for row in beside])
        panel[name if name.startswith("finite") else f"theory_{name}"] = (("activation", "scheme", "layer"), values)
    for activation in names:
        for scheme in schemes:
            for what in ("length", "gradient"):
                cell = reporting.Cell(panel, activation, scheme, what)
                assert cell.off <= 1, (activation, scheme, what, cell.ratio.mean(), cell.gap.mean())
    # The criterion can fail: the gradient of another scheme is outside.
    panel["theory_log_gradient"] = panel["theory_log_gradient"].roll(scheme=1)
    assert reporting.Cell(panel, "tanh", "he_normal", "gradient").off > 1


def test_numbers_of_any_size_are_written():
    assert reporting.number(np.log(0.618)) == "0.618"
    assert reporting.number(np.log(2.236e-95)) == "2.24e-95"
    assert reporting.number(1000.0) == "1.97e434"
