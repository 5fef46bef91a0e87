"""What every schedule, optimizer and learning rule keeps to: jits, vmaps, compiles once, in float32 and float64."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nnjax import classical, optimizers, schedules

UNOPTIMIZED = {"xla_backend_optimization_level": 0}  # compiles several times faster
RATES = np.asarray([0.05, 0.1], np.float32)


def _same_in_jit_and_vmap(function, rates, *args):
    """``function(rate, *args)`` compiled once gives for each rate what `jax.vmap` over the rates gives."""
    traces = []

    def counted(rate, *args):
        traces.append(1)
        return function(rate, *args)

    program = jax.jit(counted, compiler_options=UNOPTIMIZED)
    alone = [program(rate, *args) for rate in rates]
    assert len(traces) == 1, "traced anew for the same shapes"
    inner = (0, *(None for _ in args))
    lanes = jax.jit(jax.vmap(function, in_axes=inner), compiler_options=UNOPTIMIZED)(rates, *args)
    for lane, one, two in zip(*map(jax.tree.leaves, (lanes, *alone)), strict=True):
        np.testing.assert_allclose(lane, np.stack([one, two]), rtol=2e-5, atol=1e-6)
    return alone[0]


def _floats(tree):
    return {leaf.dtype for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.floating)}


def _cast(tree, dtype):
    return jax.tree.map(lambda x: np.asarray(x, dtype) if np.asarray(x).dtype.kind == "f" else x, tree)


# Schedules


@pytest.mark.parametrize("name", schedules.NAMES)
def test_schedules_keep_the_contract(name):
    steps = np.arange(12)

    def values(rate, steps):
        return jax.vmap(schedules.by_name(name, rate, 10))(steps)

    made = _same_in_jit_and_vmap(values, RATES, steps)
    assert made.shape == (12,)
    assert made.dtype == np.float32
    np.testing.assert_allclose(made, [schedules.by_name(name, 0.05, 10)(step) for step in steps], rtol=1e-5)
    assert (np.asarray(made) <= 0.05 * (1 + 1e-6)).all(), "the learning rate is the schedule's largest"
    with jax.enable_x64(True):
        wide = jax.eval_shape(values, np.float64(0.05), steps)
    assert wide.dtype == np.float64
    with pytest.raises(ValueError, match="steps=0"):
        schedules.by_name(name, 0.05, 0)
    with pytest.raises(ValueError, match="learning_rate=-1"):
        schedules.by_name(name, -1.0, 10)


# Optimizers


def _descend(rule, start, loss, steps):
    rule = optax.with_extra_args_support(rule)

    def update(carry, _):
        params, state = carry
        value, gradient = jax.value_and_grad(loss)(params)
        move, state = rule.update(gradient, state, params, value=value)
        return (optax.apply_updates(params, move), state), value

    (params, _), values = jax.lax.scan(update, (start, rule.init(start)), length=steps)
    return params, values


def _bowl(params):
    return 0.5 * jnp.sum((params["w"] - 1) ** 2 * jnp.asarray([1, 3], params["w"].dtype)) + 0.5 * params["b"] ** 2


START = {"w": np.asarray([0.2, 2.0], np.float32), "b": np.asarray(-0.5, np.float32)}


@pytest.mark.parametrize("name", optimizers.NAMES)
def test_optimizers_keep_the_contract(name):
    def run(rate, start):
        return _descend(optimizers.by_name(name, rate), start, _bowl, 60)

    params, values = _same_in_jit_and_vmap(run, RATES, START)
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(np.shape, START)
    assert _floats((params, values)) == {np.dtype(np.float32)}
    assert values[-1] < 0.2 * values[0], "it goes down"
    assert values[1] != values[0], "the first update moves"
    with jax.enable_x64(True):
        wide = jax.eval_shape(run, np.float64(0.05), _cast(START, np.float64))
    assert _floats(wide) == {np.dtype(np.float64)}
    with pytest.raises(ValueError, match="learning_rate"):
        optimizers.by_name(name, -1.0)


def test_plateau_keeps_the_contract():
    def scales(rate, losses):
        rule = optax.chain(optax.sgd(rate), schedules.plateau(factor=0.5, patience=1))

        def update(state, number):
            history = {"validation_loss": losses}
            move, state = rule.update(jnp.ones(()), state, history=history, evaluation=number)
            return state, move

        return jax.lax.scan(update, rule.init(jnp.zeros(())), jnp.arange(1, 7))[1]

    losses = np.asarray([1, 0.5, 0.5, 0.5, 0.5, 0.5], np.float32)
    made = _same_in_jit_and_vmap(scales, RATES, losses)
    np.testing.assert_allclose(-made / RATES[0], [1, 1, 1, 0.5, 0.5, 0.25])
    with jax.enable_x64(True):
        wide = jax.eval_shape(scales, np.float64(0.05), losses.astype(np.float64))
    assert wide.dtype == np.float64


@pytest.mark.parametrize(
    ("module", "arguments"),
    [(optimizers, (0.1,)), (schedules, (0.1, 10))],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_misspelled_name_suggests_the_nearest(module, arguments):
    for name in module.NAMES:
        wrong = name + "x"
        with pytest.raises(ValueError, match=re.escape(f"{wrong!r} is not one of")) as caught:
            module.by_name(wrong, *arguments)
        assert f"did you mean {name!r}" in str(caught.value).replace(wrong, "")


# Learning rules

X = np.asarray(np.random.default_rng(0).normal(size=(6, 3)), np.float32)
BITS = np.asarray([0, 1, 1, 0, 1, 0], np.float32)
SIGNS = 2 * BITS - 1
LABELS = np.asarray([0, 1, 2, 1, 2, 0])

# name: Config, batch, a batch that does not fit, what its error names, keywords of `step`.
RULES = {
    "perceptron": ({"inputs": 3}, (X, BITS), (X, BITS[1:]), "target", {}),
    "adaline": ({"inputs": 3}, (X, SIGNS), (X, SIGNS[1:]), "target", {}),
    "hebb": ({"inputs": 3, "units": 2}, X, X[:, 1:], "batch", {}),
    "linear_classifier": ({"inputs": 3, "classes": 3}, (X, LABELS), (X[:, 1:], LABELS), "x", {}),
    "backpropagation": ({"sizes": (3, 4, 1)}, (X, BITS[:, None]), (X[:, 1:], BITS[:, None]), "x", {"config": True}),
    "back_percolation": ({"sizes": (3, 4, 1)}, (X, SIGNS[:, None]), (X[:, 1:], SIGNS[:, None]), "x", {"rate": None}),
    "linear_regression": ({"inputs": 3}, (X, SIGNS), (X, SIGNS[1:]), "y", {}),
    "logistic_regression": ({"inputs": 3, "classes": 3}, (X, LABELS), (X, LABELS[1:]), "y", {}),
}
NO_RULE = {"least_squares", "mcculloch_pitts", "random_features"}  # solved or built in closed form


def test_the_table_of_rules_is_complete():
    assert {*RULES, *NO_RULE} == {*classical.__all__}


@pytest.mark.parametrize("name", RULES)
def test_learning_rules_keep_the_contract(name):
    static, batch, wrong, named, extra = RULES[name]
    rule = getattr(classical, name)
    config = rule.Config(**static)
    keywords = {"config": config} if "config" in extra else {}

    def run(rate, batch):
        # Back-percolation has no learning rate; its like is the magnification of the start.
        if "rate" in extra:
            start, options = rule.init(jax.random.key(0), config, magnification=rate), {}
        else:
            start, options = rule.init(jax.random.key(0), config), {"learning_rate": rate}

        def update(state, _):
            return rule.step(state, batch, jax.random.key(1), **options, **keywords)

        return jax.lax.scan(update, start, length=3)

    state, info = _same_in_jit_and_vmap(run, RATES, batch)
    first = rule.init(jax.random.key(0), config)
    assert type(state) is type(first)
    assert any(not np.array_equal(a, b) for a, b in zip(*map(jax.tree.leaves, (state, first)), strict=True))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((state, info)))
    assert _floats((state, info)) == {np.dtype(np.float32)}
    with jax.enable_x64(True):
        wide = jax.eval_shape(run, np.float64(0.05), _cast(batch, np.float64))
    assert _floats(wide) == {np.dtype(np.float64)}
    with pytest.raises(ValueError, match=rf"\b{named}\b.*\(") as caught:
        rule.step(first, wrong, **({} if "rate" in extra else {"learning_rate": 0.1}), **keywords)
    shapes = {str(np.shape(part)) for part in jax.tree.leaves(wrong)}
    assert any(shape in str(caught.value) for shape in shapes), "the message names the shape that was given"
