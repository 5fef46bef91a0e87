"""Choice by name: what there is, other names for it, its options, and one helpful sentence where there is none."""

import functools

import pytest

from nnjax import activations, initializers, optimizers, schedules
from nnjax.naming import choose, with_options

TABLE = {"adam": 1, "adamw": 2, "relu": 3}


def test_a_name_is_looked_up_in_a_table_or_among_names():
    assert choose("rule", "adam", TABLE) == 1
    assert choose("rule", "adam", ("sgd", "adam")) == "adam"
    assert choose("rule", "adam", {"adam": None}) is None


def test_other_names_stand_for_those_in_the_table():
    aliases = {"rectifier": "relu", "gone": "sigmoid"}
    assert choose("rule", "rectifier", TABLE, aliases=aliases) == 3
    assert choose("rule", "rectifier", tuple(TABLE), aliases=aliases) == "relu"
    with pytest.raises(ValueError, match=r"'gone' is not one of adam, adamw, relu$"):
        choose("rule", "gone", TABLE, aliases=aliases)
    with pytest.raises(ValueError, match="did you mean 'rectifier'"):
        choose("rule", "rectifer", TABLE, aliases=aliases)


@pytest.mark.parametrize("name", [None, 3, {"adam": 1}, ["adam"]])
def test_what_is_no_name_is_refused(name):
    with pytest.raises(ValueError, match=r"is not one of adam, adamw, relu$"):
        choose("rule", name, TABLE)


@pytest.mark.parametrize(
    ("call", "wrong", "near"),
    [
        (activations.by_name, "ReLU", "relu"),
        (activations.by_name, "ELU", "elu"),
        (activations.by_name, "Tanh", "tanh"),
        (activations.by_name, "SiLU", "silu"),
        (activations.by_name, "Sigmoid", "sigmoid"),
        (activations.by_name, "LeakyReLU", "leaky_relu"),
        (lambda name: optimizers.by_name(name, 0.1), "Adam", "adam"),
        (lambda name: optimizers.by_name(name, 0.1), "AdamW", "adamw"),
        (lambda name: optimizers.by_name(name, 0.1), "SGD", "sgd"),
        (lambda name: optimizers.by_name(name, 0.1), "RMSprop", "rmsprop"),
        (lambda name: optimizers.by_name(name, 0.1), "L-BFGS", "lbfgs"),
        (lambda name: optimizers.by_name(name, 0.1), "iRprop-", "irprop-"),
        (lambda name: schedules.by_name(name, 0.1, 5), "Cosine", "cosine"),
        (initializers.by_name, "Glorot_Normal", "glorot_normal"),
        (initializers.by_name, "HeNormal", "he_normal"),
    ],
)
def test_capitals_do_not_hide_the_nearest_name(call, wrong, near):
    with pytest.raises(ValueError, match="is not one of") as caught:
        call(wrong)
    assert str(caught.value).endswith(f"; did you mean {near!r}?")


def test_options_are_handed_on():
    def make(rate, steps, *, every=3, factor=0.5):
        return rate, steps, every, factor

    assert with_options("schedule", "step", make, {"every": 7}, 1, 2) == (1, 2, 7, 0.5)
    for given in ({"steps": 3}, {"evry": 3}):  # what stands in its place is no option
        with pytest.raises(ValueError, match=r"schedule 'step' has no option .*: its options are every, factor"):
            with_options("schedule", "step", make, given, 1, 2)
    with pytest.raises(ValueError, match="did you mean 'every'"):
        with_options("schedule", "step", make, {"Evry": 3}, 1, 2)
    with pytest.raises(ValueError, match=r"'a' has no option 'steps': its options are factor, more$"):
        with_options("rule", "a", functools.partial(make, steps=3, every=1), {"steps": 3}, 1, also=("more",))
    with pytest.raises(ValueError, match=r"'b' has no option 'x': it has none$"):
        with_options("rule", "b", lambda: 1, {"x": 1})


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: optimizers.by_name("sgd", 0.1, momentum=0.9), "'sgd' has no option 'momentum': .* weight_decay$"),
        (lambda: optimizers.by_name("sgd", 0.1, weight_decy=0.9), "did you mean 'weight_decay'"),
        (lambda: optimizers.by_name("adam", 0.1, epsilon=1e-8), "'adam' .* options are b1, b2, eps, weight_decay"),
        (lambda: optimizers.by_name("rprop+", 0.1, variant="rprop-"), r"'rprop\+' has no option 'variant'"),
        (lambda: optimizers.by_name("rprop-", 0.1, max_stp=1.0), "did you mean 'max_step'"),
        (lambda: schedules.by_name("constant", 0.1, 5, final=0.0), "'constant' has no option 'final': it has none"),
        (lambda: schedules.by_name("step", 0.1, 5, evry=2), "did you mean 'every'"),
        (lambda: initializers.by_name("zeros", gain=2.0), "initializer 'zeros' has no option 'gain': it has none"),
        (lambda: initializers.by_name("kaiming_normal", mode="fan_in"), "'kaiming_normal' has no option 'mode'"),
        (lambda: initializers.by_name("xavier_normal", gian=2.0), "options are mode, gain; did you mean 'gain'"),
    ],
)
def test_an_unknown_option_is_named_with_those_there_are(call, message):
    with pytest.raises(ValueError, match=message):
        call()
