"""Update rules: reference trajectories number by number, and PyTorch as oracle."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nnjax import optimizers, schedules
from nnjax.train import Config, Network, make_train


def _follow(rule, loss, w, steps):
    """Positions after each update, (steps, ...)."""
    rule = optax.with_extra_args_support(rule)
    w = jnp.asarray(w)

    def update(carry, _):
        w, state = carry
        value, grad = jax.value_and_grad(loss)(w)
        move, state = rule.update(grad, state, w, value=value)
        w = optax.apply_updates(w, move)
        return (w, state), w

    return jax.lax.scan(update, (w, rule.init(w)), length=steps)[1]


def _square(w):
    return jnp.sum(w**2)


PREFIX = [0.9, 0.78, 0.636, 0.4632, 0.25584, 0.007008, -0.2915904]


@pytest.mark.parametrize(
    ("variant", "end"),
    [
        ("rprop+", [0.007008, -0.1422912]),
        ("irprop+", [0.007008, -0.1422912]),
        ("rprop-", [-0.1422912, 0.03686784]),
        ("irprop-", [-0.2915904, -0.1422912]),
    ],
)
def test_rprop_variants_follow_their_reference_trajectories(variant, end):
    """f = w^2 from 1 with first steps of .1: they part where the sign first changes, after the seventh update."""
    with jax.enable_x64(True):
        found = _follow(optimizers.rprop(0.1, variant=variant), _square, 1.0, 9)
    np.testing.assert_allclose(found, [*PREFIX, *end], atol=6e-6)
    np.testing.assert_allclose(found[:7], PREFIX, atol=1e-12)


def test_improved_rprop_steps_back_only_where_the_loss_has_grown():
    # From 1 the minimum of w^2 is jumped over at the second update, to -.2: nearer, so the loss falls.
    with jax.enable_x64(True):
        rule = {v: optimizers.rprop(0.5454545454545454, variant=v) for v in ("rprop+", "irprop+")}
        found = {v: _follow(r, _square, 1.0, 4) for v, r in rule.items()}
    first, size = 1 - 0.5454545454545454, 0.5454545454545454 * 1.2
    np.testing.assert_allclose(found["rprop+"], [first, first - size, first, first - size / 2])
    np.testing.assert_allclose(found["irprop+"], [first, first - size, first - size, first - size / 2])


def test_rprop_sizes_stay_within_their_bounds():
    rule = optimizers.rprop(0.1, variant="rprop-", min_step=0.05, max_step=0.2)
    w, state, sizes = jnp.asarray(1.0), None, []
    state = rule.init(w)
    for sign in [1] * 6 + [1, -1] * 4:
        _, state = rule.update(jnp.asarray(float(sign)), state, w)
        sizes.append(float(state.size))
    assert max(sizes) == pytest.approx(0.2)
    assert min(sizes) == pytest.approx(0.05)


def test_quickprop_follows_its_reference_trajectory():
    """f = w^2, w_0 = 1, eta .1: growth limit at the second update, parabola after it, and the minimum hit exactly."""
    with jax.enable_x64(True):
        found = _follow(optimizers.quickprop(0.1), _square, 1.0, 5)
        mirrored = _follow(optimizers.quickprop(0.1), _square, -1.0, 5)
    np.testing.assert_allclose(found, [0.8, 0.29, -0.058, 0.0, 0.0], atol=1e-12)
    np.testing.assert_allclose(mirrored, -found, atol=1e-15)


def test_quickprop_decays_in_the_slope_and_takes_a_rate_a_weight():
    with jax.enable_x64(True):
        decayed = _follow(optimizers.quickprop(0.1, weight_decay=0.5), _square, 1.0, 1)
        named = _follow(optimizers.by_name("quickprop", 0.1, weight_decay=0.5), _square, 1.0, 1)
        params = {"a": jnp.ones(2), "b": jnp.ones(2)}
        rule = optimizers.quickprop({"a": 0.1, "b": jnp.asarray([0.2, 0.3])})
        steps, _ = rule.update(jax.tree.map(lambda w: 2 * w, params), rule.init(params))
    np.testing.assert_allclose(decayed, [1 - 0.1 * 2.5])
    np.testing.assert_allclose(named, decayed)
    np.testing.assert_allclose(steps["a"], [-0.2, -0.2])
    np.testing.assert_allclose(steps["b"], [-0.4, -0.6])


def test_supersab_takes_back_a_step_that_changed_the_sign():
    """f = w^2 from 1, lr .6, momentum .5: over the minimum, back, then on with half the rate, growing by 1.05."""
    with jax.enable_x64(True):
        found = _follow(optimizers.supersab(0.6, momentum=0.5), _square, 1.0, 5)
    np.testing.assert_allclose(found, [-0.2, 1.0, 0.4, -0.152, 0.4], atol=1e-12)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # f = w^2 from 1, lr 1/4, momentum 1/2: v = v/2 + 2w, then w - v/4, or w - (2w + v/2)/4. Exact in binary.
        ("momentum", [0.5, 0.0, -0.25, -0.25, -0.125]),
        ("nesterov", [0.25, -0.0625, -0.109375, -0.06640625, -0.0224609375]),
        ("sgd", [0.5, 0.25, 0.125, 0.0625, 0.03125]),
    ],
)
def test_plain_rules_follow_their_reference_trajectories(name, expected):
    options = {} if name == "sgd" else {"momentum": 0.5}
    np.testing.assert_array_equal(_follow(optimizers.by_name(name, 0.25, **options), _square, 1.0, 5), expected)


def test_adaptive_rules_take_their_known_first_steps():
    """AdaGrad lr sign(g); RMSProp lr sign(g) / sqrt(1 - decay); Adam lr sign(g): whatever the gradient's size."""
    for scale in (1e-3, 1e3):
        start = jnp.asarray([1.0, -2.0])
        for name, first in (("adagrad", 0.1), ("rmsprop", 0.1 / np.sqrt(0.1)), ("adam", 0.1)):
            found = _follow(optimizers.by_name(name, 0.1), lambda w, s=scale: s * _square(w), start, 1)
            np.testing.assert_allclose(found[0] - start, [-first, first], rtol=1e-4, err_msg=name)


# PyTorch


def _valley(w, library):
    """A bent valley with minima and saddles, so that signs change and slopes grow and shrink."""
    return (1 - w[0]) ** 2 + 5 * (w[1] - w[0] ** 2) ** 2 + library.cos(3 * w[2]) * w[0] + w[2] ** 2


TORCH = {
    "sgd": ("SGD", {}, {}),
    "momentum": ("SGD", {"momentum": 0.8}, {"momentum": 0.8}),
    "nesterov": ("SGD", {"momentum": 0.8}, {"momentum": 0.8, "nesterov": True}),
    "adagrad": ("Adagrad", {}, {}),
    "rmsprop": ("RMSprop", {"decay": 0.95}, {"alpha": 0.95}),
    "adam": ("Adam", {"b1": 0.8, "eps": 1e-3}, {"betas": (0.8, 0.999), "eps": 1e-3}),
    "adamw": ("AdamW", {"weight_decay": 0.1}, {"weight_decay": 0.1}),
    "irprop-": ("Rprop", {}, {}),
}


# adamw's decay is in its plain case, and PyTorch's Rprop has none.
PAIRS = [(name, decay) for name in TORCH for decay in (None, 0.2) if not (decay and name in ("adamw", "irprop-"))]


@pytest.mark.parametrize(("name", "decay"), PAIRS)
def test_trajectories_equal_pytorchs(name, decay):
    torch = pytest.importorskip("torch")
    theirs, ours, options = TORCH[name]
    start = np.array([-0.5, 0.8, 0.3])
    w = torch.tensor(start, requires_grad=True)
    rule = getattr(torch.optim, theirs)([w], lr=0.02, **options, **({"weight_decay": decay} if decay else {}))
    path = []
    for _ in range(40):
        rule.zero_grad()
        _valley(w, torch).backward()
        rule.step()
        path.append(w.detach().numpy().copy())
    with jax.enable_x64(True):
        mine = optimizers.by_name(name, 0.02, **ours, **({"weight_decay": decay} if decay else {}))
        found = _follow(mine, lambda w: _valley(w, jnp), start, 40)
    assert np.ptp(np.array(path), axis=0).min() > 0.05, "the weights must move for this test to say anything"
    np.testing.assert_allclose(found, path, rtol=1e-7, atol=1e-9)


def test_weight_decay_is_coupled_but_in_adamw():
    """With no gradient a coupled penalty is all that Adam sees, and it normalizes it; adamw shrinks by lr decay w."""
    w, zero = jnp.asarray([1.0, 100.0]), jnp.zeros(2)
    steps = {}
    for name in ("sgd", "adam", "adamw"):
        rule = optimizers.by_name(name, 0.1, weight_decay=0.01)
        steps[name], _ = rule.update(zero, rule.init(w), w)
    np.testing.assert_allclose(steps["sgd"], [-0.001, -0.1], rtol=1e-5)
    np.testing.assert_allclose(steps["adam"], [-0.1, -0.1], rtol=1e-4)
    np.testing.assert_allclose(steps["adamw"], [-0.001, -0.1], rtol=1e-5)


# Schedules, and one rule of several


@pytest.mark.parametrize("name", ["sgd", "momentum", "nesterov", "adagrad", "rmsprop", "adam", "adamw", "quickprop"])
def test_a_schedule_takes_the_place_of_the_learning_rate(name):
    """A rate that falls to zero after three updates stops every rule there."""
    halt = schedules.step_decay(0.05, 3, factor=1e-30)
    found = _follow(optimizers.by_name(name, halt), _square, jnp.asarray([1.0, -2.0]), 6)
    assert np.all(np.abs(np.diff(found[:3], axis=0)) > 0)
    if name != "quickprop":  # which jumps on, by its parabola
        np.testing.assert_array_equal(found[2], found[5])


def test_switch_follows_the_chosen_rule_alone():
    names = ("nesterov", "adam", "irprop+", "lbfgs")
    start = jnp.asarray([1.0, -2.0])

    @jax.jit
    def run(index):
        rule = optimizers.switch(index, [optimizers.by_name(name, 0.05) for name in names])
        return _follow(rule, _square, start, 12)

    lanes = jax.vmap(run)(jnp.arange(len(names)))
    for i, name in enumerate(names):
        alone = _follow(optimizers.by_name(name, 0.05), _square, start, 12)
        np.testing.assert_allclose(run(i), alone, rtol=1e-5, atol=1e-6, err_msg=name)
        np.testing.assert_allclose(lanes[i], alone, rtol=1e-5, atol=1e-6, err_msg=name)
    with pytest.raises(ValueError, match="rules is empty"):
        optimizers.switch(0, [])


def test_training_hands_the_loss_to_rules_that_need_it():
    line = Network(
        init=lambda key, x: ({"w": jnp.ones(1)}, {}),
        apply=lambda params, stats, x, *, key, train: (x @ params["w"], stats),
    )
    run = make_train(line, lambda p, t: (p - t) ** 2, lambda h: optimizers.rprop(h, variant="irprop+"), Config(steps=9))
    result = jax.jit(run)(jax.random.key(0), 0.1, {"train": (np.ones((1, 1), "float32"), np.zeros(1, "float32"))})
    np.testing.assert_allclose(result.params["w"], [-0.1422912], rtol=1e-5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: optimizers.by_name("adm", 0.1), "did you mean 'adam'"),
        (lambda: optimizers.by_name("sgd", -0.1), "learning_rate=-0.1 must be at least 0"),
        (lambda: optimizers.by_name("sgd", float("nan")), "learning_rate=nan must be a finite number"),
        (lambda: optimizers.by_name("momentum", 0.1, momentum=1.0), "momentum=1.0 must be at least 0 and below 1"),
        (lambda: optimizers.by_name("adam", 0.1, b2=1.0), "b2=1.0"),
        (lambda: optimizers.by_name("sgd", 0.1, weight_decay=-1.0), "weight_decay=-1.0"),
        (lambda: optimizers.by_name("lbfgs", 0.1, memory=0), "memory=0"),
        (lambda: optimizers.by_name("lbfgs", 0.1, memory=2.5), "memory=2.5 must be an integer of at least 1"),
        (lambda: optimizers.by_name("sgd", {"w": 0.1}), r"learning_rate={'w': 0.1} must be one number or a schedule"),
        (lambda: optimizers.by_name("adam", [0.1, 0.2]), r"learning_rate=\[0.1, 0.2\] must be one number"),
        (lambda: optimizers.by_name("sgd", None), "learning_rate=None must be one number"),
        (lambda: optimizers.quickprop(None), "learning_rate=None must be a finite number"),
        (lambda: optimizers.by_name("adam", 0.1, eps=-1e-8), "eps=-1e-08 must be at least 0"),
        (lambda: optimizers.rprop(0.1, min_step=2.0, max_step=1.0), "min_step=2.0 must be at most max_step=1.0"),
        (lambda: optimizers.rprop(0.1, max_step=float("nan")), "max_step=nan must be a number"),
        (lambda: optimizers.supersab(0.1, max_rate=0.0), "max_rate=0.0 must be above 0"),
        (lambda: optimizers.quickprop(0.1, growth=0.0), "growth=0.0 must be above 0"),
        (lambda: optimizers.rprop(0.1, variant="rprop"), "Rprop variant 'rprop' is not one of"),
        (lambda: optimizers.rprop(0.0), "learning_rate=0.0 must be above 0"),
        (lambda: optimizers.rprop(0.1, increase=0.9), "increase=0.9"),
        (lambda: optimizers.rprop(0.1, decrease=1.0), "decrease=1.0 must be above 0 and below 1"),
        (lambda: optimizers.rprop(schedules.constant(0.1)), "is a schedule"),
        (lambda: optimizers.supersab(schedules.constant(0.1)), "is a schedule"),
        (lambda: optimizers.supersab(0.1, momentum=-0.5), "momentum=-0.5"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_infinite_bounds_bind_nothing():
    """As an infinity of any library, not as NumPy's own object alone."""
    for unbound in (float("inf"), np.float32(np.inf), jnp.inf):
        found = _follow(optimizers.supersab(0.1, max_rate=unbound), _square, 1.0, 4)
        np.testing.assert_array_equal(found, _follow(optimizers.supersab(0.1), _square, 1.0, 4))
        optimizers.rprop(0.1, max_step=unbound)


def test_rates_of_few_bits():
    rule = optimizers.by_name("sgd", jnp.asarray(0.5, jnp.bfloat16))
    np.testing.assert_array_equal(_follow(rule, _square, 1.0, 1), [0.0])


def test_what_an_update_lacks_is_named():
    w = jnp.ones(2)
    improved = optimizers.rprop(0.1, variant="irprop+")
    with pytest.raises(ValueError, match="needs the loss"):
        improved.update(w, improved.init(w), w)
    decaying = optimizers.quickprop(0.1, weight_decay=0.1)
    with pytest.raises(ValueError, match="needs the parameters"):
        decaying.update(w, decaying.init(w))
