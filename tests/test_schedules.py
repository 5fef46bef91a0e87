"""Learning-rate schedules against their formulas, and reduction on a plateau against PyTorch's."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nnjax import schedules, train
from nnjax.train import Config, Network, make_train

STEPS = np.arange(0, 13)
FORMULAS = {
    "constant": ({}, lambda k: 0.5 + 0 * k),
    "step": ({"every": 4, "factor": 0.2}, lambda k: 0.5 * 0.2 ** (k // 4)),
    "linear": ({"final": 0.1}, lambda k: (1 - np.minimum(k / 10, 1)) * 0.5 + np.minimum(k / 10, 1) * 0.1),
    "polynomial": ({"power": 3, "final": 0.1}, lambda k: 0.1 + 0.4 * (1 - np.minimum(k / 10, 1)) ** 3),
    "exponential": ({"decay": 0.3}, lambda k: 0.5 * np.exp(-0.3 * k)),
    "cosine": ({"final": 0.1}, lambda k: 0.1 + 0.2 * (1 + np.cos(np.pi * np.minimum(k / 10, 1)))),
    "warmup": ({"warmup_steps": 4}, lambda k: 0.5 * np.minimum((k + 1) / 4, 1)),
    "warmup_cosine": (
        {"warmup_steps": 4},
        lambda k: np.where(k < 4, 0.5 * (k + 1) / 4, 0.25 * (1 + np.cos(np.pi * np.clip((k - 4) / 6, 0, 1)))),
    ),
}


def test_every_schedule_has_a_formula():
    assert set(FORMULAS) == set(schedules.NAMES)


@pytest.mark.parametrize("double", [False, True], ids=["float32", "float64"])
@pytest.mark.parametrize("name", FORMULAS)
def test_schedules_follow_their_formulas_jit_vmap_and_compile_once(name, double):
    options, formula = FORMULAS[name]
    with jax.enable_x64(double):
        expected, traces = formula(STEPS.astype(float)), []

        @jax.jit
        def lanes(rates, steps):
            traces.append(1)
            return jax.vmap(lambda lr: jax.vmap(schedules.by_name(name, lr, 10, **options))(steps))(rates)

        found = lanes(jnp.asarray([0.5, 0.1]), jnp.asarray(STEPS))
        np.testing.assert_allclose(found[0], expected, rtol=1e-6 if not double else 1e-12, atol=1e-8)
        lanes(jnp.asarray([0.2, 0.3]), jnp.asarray(STEPS) + 1)
        assert len(traces) == 1
        alone = schedules.by_name(name, 0.5, 10, **options)
        np.testing.assert_allclose([float(alone(int(k))) for k in STEPS], expected, rtol=1e-6, atol=1e-8)


def test_the_worked_examples():
    """lr_k = (1 - a) lr_0 + a lr_T with a = min(k/T, 1), and lr_k = lr_0 exp(-gamma k)."""
    linear = schedules.linear(0.1, 100, final=0.001)
    np.testing.assert_allclose([linear(0), linear(50), linear(100), linear(1000)], [0.1, 0.0505, 0.001, 0.001], 1e-5)
    exponential = schedules.exponential(0.1, 0.01)
    np.testing.assert_allclose([exponential(0), exponential(100)], [0.1, 0.1 / np.e], 1e-6)


@pytest.mark.parametrize("name", schedules.NAMES)
def test_every_schedule_gives_an_array_of_the_steps_shape(name):
    for rate in (0.5, 1, np.float32(0.5), jnp.asarray(0.5, jnp.bfloat16)):
        schedule = schedules.by_name(name, rate, 10)
        for steps in (3, np.int64(3), STEPS, jnp.asarray(STEPS)):
            made = schedule(steps)
            assert isinstance(made, jax.Array)
            assert made.shape == np.shape(steps)
            assert jnp.issubdtype(made.dtype, jnp.floating)


def test_a_rate_of_zero_stays_zero():
    for name in schedules.NAMES:
        np.testing.assert_array_equal(schedules.by_name(name, 0.0, 10)(STEPS), np.zeros(len(STEPS)))


def test_traced_options():
    """Ends, powers, factors and decays may be swept; optax's own exponential decay cannot trace its factor."""
    for name, option in (("linear", "final"), ("cosine", "final"), ("polynomial", "power"), ("step", "factor"),
                         ("exponential", "decay")):  # fmt: skip

        def at_seven(value, name=name, option=option):
            return schedules.by_name(name, 0.5, 10, **{option: value})(7)

        lanes = jax.vmap(at_seven)(jnp.asarray([0.1, 0.3]))
        each = [at_seven(value) for value in (0.1, 0.3)]
        np.testing.assert_allclose(lanes, each, rtol=1e-6, err_msg=name)


def test_defaults_of_by_name():
    np.testing.assert_allclose(schedules.by_name("exponential", 1.0, 50)(50), 0.01, rtol=1e-5)
    step = schedules.by_name("step", 1.0, 30)
    np.testing.assert_allclose([step(9), step(10), step(29)], [1, 0.1, 0.01], rtol=1e-5)
    warm = schedules.by_name("warmup_cosine", 1.0, 50)
    np.testing.assert_allclose([warm(0), warm(4), warm(50)], [0.2, 1.0, 0.0], atol=1e-6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: schedules.by_name("cosin", 0.1, 10), "did you mean 'cosine'"),
        (lambda: schedules.by_name("plateau", 0.1, 10), "chain schedules.plateau"),
        (lambda: schedules.by_name("cosine", 0.1, 0), "steps=0 must be an integer of at least 1"),
        (lambda: schedules.by_name("linear", 0.1, 2.5), "steps=2.5"),
        (lambda: schedules.linear(-0.1, 10), "learning_rate=-0.1 must be at least 0"),
        (lambda: schedules.linear(0.1, 10, final=-1.0), "final=-1.0"),
        (lambda: schedules.polynomial(0.1, 10, power=0), "power=0 must be above 0"),
        (lambda: schedules.step_decay(0.1, 0), "every=0"),
        (lambda: schedules.step_decay(0.1, 5, factor=1.5), "factor=1.5 must be above 0 and at most 1"),
        (lambda: schedules.exponential(0.1, -1.0), "decay=-1.0"),
        (lambda: schedules.warmup(schedules.constant(0.1), 0), "steps=0"),
        (lambda: schedules.by_name("warmup_cosine", 0.1, 10, warmup_steps=10), "warmup_steps=10 must be less"),
        (lambda: schedules.by_name("warmup", 0.1, 10, warmup_steps=0), "warmup_steps=0"),
        (lambda: schedules.constant("fast"), "learning_rate='fast' must be a finite number"),
        (lambda: schedules.plateau(factor=0.0), "factor=0.0"),
        (lambda: schedules.plateau(factor=1.5), "factor=1.5"),
        (lambda: schedules.linear(jnp.asarray(-0.5, jnp.bfloat16), 10), "must be at least 0"),
        (lambda: schedules.linear(jnp.asarray(jnp.nan, jnp.bfloat16), 10), "must be a finite number"),
        (lambda: schedules.linear(np.inf, 10), "learning_rate=inf must be a finite number"),
        (lambda: schedules.linear(True, 10), "learning_rate=True must be a finite number"),
        (lambda: schedules.plateau(patience=-1), "patience=-1"),
        (lambda: schedules.plateau(mode="least"), "mode='least' must be 'min' or 'max'"),
        (lambda: schedules.plateau(min_scale=2.0), "min_scale=2.0"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# Reduction on a plateau

PLATEAUS = [
    {"factor": 0.5, "patience": 0},
    {"factor": 0.1, "patience": 2},
    {"factor": 0.5, "patience": 1, "cooldown": 3},
    {"factor": 0.3, "patience": 1, "threshold": 0.2, "min_scale": 0.02},
    {"factor": 0.5, "patience": 1, "mode": "max"},
]


def _scales(rule, metric):
    """The scale after each evaluation, two updates between evaluations, as a training run would call it."""
    state, scales = rule.init(jnp.ones(2)), []
    history = np.full(len(metric), np.nan, "float32")
    update = jax.jit(lambda state, history, k: rule.update(jnp.ones(2), state, history=history, evaluation=k))
    for k in range(len(metric) + 1):
        if k > 0:
            history[k - 1] = metric[k - 1]
        for _ in range(2):
            moved, state = update(state, {"validation_loss": jnp.asarray(history)}, k)
        scales.append(float(moved[0]))
    assert scales[0] == 1.0
    return scales[1:]


@pytest.mark.parametrize("options", PLATEAUS, ids=str)
def test_plateau_drops_where_pytorchs_scheduler_does(options):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(1)
    falling = np.exp(-np.arange(40) / 8) + 0.08 * rng.normal(size=40)
    metric = (falling if options.get("mode") != "max" else 1 - falling).astype("float32")
    metric[7] = np.nan
    w = torch.zeros(1, requires_grad=True)
    sgd = torch.optim.SGD([w], lr=1.0)
    renamed = {("min_lr" if name == "min_scale" else name): value for name, value in options.items()}
    oracle = torch.optim.lr_scheduler.ReduceLROnPlateau(sgd, eps=0.0, **renamed)
    expected = []
    for value in metric:
        w.grad = torch.zeros(1)
        sgd.step()
        oracle.step(float(value))
        expected.append(sgd.param_groups[0]["lr"])
    assert len(set(expected)) > 2, "the oracle must drop for this test to say anything"
    np.testing.assert_allclose(_scales(schedules.plateau(**options), metric), expected, rtol=1e-5)


def test_plateau_by_hand():
    """Patience 1: the second evaluation in a row that is no better drops the rate, at once, and the count is new."""
    scales = _scales(schedules.plateau(factor=0.5, patience=1), [3, 2, 2, 2, 2, 1, 1, 1])
    np.testing.assert_array_equal(scales, [1, 1, 1, 0.5, 0.5, 0.5, 0.5, 0.25])


LINE = Network(  # the loss is the distance still to go, so a step of lr is seen in the parameter
    init=lambda key, x: ({"w": jnp.zeros(())}, {}),
    apply=lambda params, stats, x, *, key, train: (params["w"] + 0.0 * x, stats),
)


def _run(config=None):
    """Gradient -1 at every update, validation loss |w - 2.5|: better up to step 2 or 3, then worse for ever."""

    def rule(hparams):
        return optax.chain(
            optax.sgd(hparams["lr"]), schedules.plateau("validation_loss", factor=0.5, patience=hparams["patience"])
        )

    data = {"train": (np.zeros(4, "float32"), np.zeros(4, "float32")),
            "validation": (np.zeros(2, "float32"), np.full(2, 2.5, "float32"))}  # fmt: skip
    metrics = {"loss": lambda p, t: jnp.abs(p - t)}
    return make_train(LINE, lambda p, t: -p, rule, config or Config(steps=8, evaluate_every=1), metrics=metrics), data


def test_training_reduces_after_the_evaluation_that_shows_the_plateau():
    run, data = _run()
    history = jax.jit(run)(jax.random.key(0), {"lr": 1.0, "patience": 0}, data).history
    # w = 1, 2, 3 (as far as 2: no better, so half from here on), 3.5, 3.75, ...
    w = np.array([1, 2, 3, 3.5, 3.75, 3.875, 3.9375, 3.96875])
    np.testing.assert_allclose(history["validation_loss"], np.abs(w - 2.5), rtol=1e-6)


def test_plateau_under_vmap_and_in_segments_changes_no_number(tmp_path):
    run, data = _run(Config(steps=24, evaluate_at=(0, 2, 4, 8, 12, 16, 20, 24)))
    hparams = {"lr": jnp.asarray([1.0, 0.25, 1.0]), "patience": jnp.asarray([0, 0, 2])}
    lanes = jax.jit(jax.vmap(run, in_axes=(None, 0, None)))(jax.random.key(0), hparams, data)
    for i in range(3):
        own = jax.tree.map(lambda a, i=i: a[i], hparams)
        whole = jax.jit(run)(jax.random.key(0), own, data)
        np.testing.assert_allclose(lanes.params["w"][i], whole.params["w"], rtol=1e-6)
        pieces = train.fit(run, jax.random.key(0), own, data, segments=5)
        jax.tree.map(np.testing.assert_array_equal, whole, pieces)
    assert len(set(lanes.params["w"].tolist())) == 3


def test_what_plateau_lacks_is_named():
    rule = schedules.plateau("validation_los")
    w = jnp.ones(2)
    with pytest.raises(ValueError, match="needs the run's evaluations"):
        rule.update(w, rule.init(w))
    with pytest.raises(ValueError, match="did you mean 'validation_loss'"):
        rule.update(w, rule.init(w), history={"validation_loss": jnp.ones(3)}, evaluation=1)
