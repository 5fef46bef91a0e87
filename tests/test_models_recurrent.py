"""Recurrent models: shapes and layers, padding, carried states, generation, attention, beam search, bad input."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nnjax import losses, models, recurrent, train
from nnjax.models import sequences

KEY = jax.random.key(0)
UNOPTIMIZED = {"xla_backend_optimization_level": 0}
jit = partial(jax.jit, compiler_options=UNOPTIMIZED)
N, T, D = 3, 6, 2
TOKENS = np.array([[3, 4, 5, 6, 3, 4], [5, 5, 0, 0, 0, 0], [6, 3, 4, 0, 0, 0]])
LENGTHS = np.array([6, 2, 3])


@pytest.fixture(scope="module", autouse=True)
def quick(unoptimized):
    """Everything here is small: compiling is what takes the time."""
    with unoptimized():
        yield


def values(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def made(model, *args):
    """Parameters of a model, random, and its outputs: drawing orthogonal ones takes long to compile."""
    shapes = jax.eval_shape(model.init, KEY, *args)["params"]
    leaves, tree = jax.tree.flatten(shapes)
    params = tree.unflatten([0.5 * values(i, *leaf.shape) for i, leaf in enumerate(leaves)])
    return params, jit(model.apply)({"params": params}, *args)


X = values(0, N, T, D)


# Layers


@pytest.mark.parametrize(
    ("layer", "weights", "own"),
    [
        (models.RNN(4), recurrent.RNNParams, recurrent.rnn),
        (models.LSTM(4), recurrent.LSTMParams, recurrent.lstm),
        (models.GRU(4), recurrent.GRUParams, recurrent.gru),
        (models.GRU(4, reset_after=True), recurrent.GRUParams, partial(recurrent.gru, reset_after=True)),
    ],
    ids=["rnn", "lstm", "gru", "gru_after"],
)
def test_a_layer_is_its_cell(layer, weights, own):
    params, found = made(layer, X, LENGTHS)
    names = {"w": "kernel", "u": "recurrent", "b": "bias", "c": "recurrent_bias"}
    given = weights(*[params.get(names[field], params["bias"]) for field in weights._fields])
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), found, own(given, X, lengths=LENGTHS))


def test_initial_weights():
    params = models.LSTM(4).init(KEY, X)["params"]
    np.testing.assert_array_equal(params["bias"], [0] * 4 + [1] * 4 + [0] * 8)
    for gate in np.split(params["recurrent"], 4, 1):
        np.testing.assert_allclose(gate.T @ gate, np.eye(4), atol=1e-5)
    gates = np.split(np.asarray(params["kernel"]), 4, 1)
    assert max(np.abs(gate).max() for gate in gates) <= np.sqrt(6 / (D + 4))  # the fans of one gate
    assert not np.allclose(gates[0], gates[1])
    assert set(made(models.GRU(4), X)[0]) == {"kernel", "recurrent", "bias"}


def test_a_step_continues_a_sequence():
    layer = models.LSTM(4)
    params, (_, final) = made(layer, X)
    _, state = layer.apply({"params": params}, X[:, :-1])
    after = layer.apply({"params": params}, state, X[:, -1], method="step")
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), after, final)


def test_bidirectional_is_two_layers():
    net = models.Bidirectional("gru", 4)
    params, (y, (ahead, back)) = made(net, X, LENGTHS)
    one, final = models.GRU(4).apply({"params": params["forward"]}, X, LENGTHS)
    other, begin = models.GRU(4, reverse=True).apply({"params": params["backward"]}, X, LENGTHS)
    for found, expected in ((y, np.concatenate([one, other], 2)), (ahead, final), (back, begin)):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(begin, other[:, 0], rtol=1e-5, atol=1e-6)


def test_stacked_layers_feed_one_another_and_drop_between():
    net = models.Stacked("lstm", (4, 3), dropout=0.5)
    params, (y, finals) = made(net, X)
    between, _ = models.LSTM(4).apply({"params": params["layer_0"]}, X)
    expected, final = models.LSTM(3).apply({"params": params["layer_1"]}, between)
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(finals[1][1], final[1], rtol=1e-5, atol=1e-6)
    dropped, _ = net.apply({"params": params}, X, train=True, rngs={"dropout": KEY})
    assert not np.allclose(dropped, y)
    both, _ = made(models.Stacked("rnn", (4, 3), bidirectional=True), X)[1]
    assert both.shape == (N, T, 6)


def test_a_layer_computes_in_its_dtype():
    params, (y, _) = made(models.LSTM(4, dtype=jnp.bfloat16), X)
    assert y.dtype == jnp.bfloat16
    assert params["kernel"].dtype == jnp.float32


# Sequence to vector, sequence to sequence


@pytest.mark.parametrize(
    ("cell", "pool", "bidirectional"),
    [("rnn", "last", False), ("lstm", "last", True), ("gru", "mean", False), ("gru", "last", True)],
)
def test_padding_changes_nothing(cell, pool, bidirectional):
    net = models.RNNClassifier(3, cell, (4,), vocabulary=7, embedding=2, pool=pool, bidirectional=bidirectional)
    params, logits = made(net, TOKENS)
    assert logits.shape == (N, 3)
    run = jit(partial(net.apply, {"params": params}))
    np.testing.assert_allclose(run(np.pad(TOKENS, ((0, 0), (0, 3)))), logits, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(run(TOKENS[1:2, :2]), logits[1:2], rtol=1e-4, atol=1e-6)
    changed = run(np.where(np.arange(T) == 1, 6, TOKENS))
    assert (np.abs(changed - logits) > 1e-4).any(1).all()


def test_lengths_of_real_values():
    net = models.RNNClassifier(2, "gru", (4,))
    params, logits = made(net, X, LENGTHS)
    short = net.apply({"params": params}, X[1:2, :2])
    np.testing.assert_allclose(short, logits[1:2], rtol=1e-4, atol=1e-6)
    assert not np.allclose(net.apply({"params": params}, X)[1], logits[1])


def test_padding_inside_a_text_is_part_of_it():
    np.testing.assert_array_equal(sequences.token_lengths(np.array([[3, 0, 4, 0], [0, 0, 0, 0]])), [3, 0])


def test_parameters_of_a_classifier():
    net = models.RNNClassifier(2, "lstm", (8,), vocabulary=10, embedding=4)
    assert models.summary(net, (T,), dtype=jnp.int32).total == 10 * 4 + 4 * (4 + 8 + 1) * 8 + 2 * (8 + 1)


def test_a_forecaster_takes_one_series_or_several():
    net = models.RNNForecaster(3, "rnn", (4,))
    params, y = made(net, X[:, :, 0])
    assert y.shape == (N, 3)
    np.testing.assert_allclose(net.apply({"params": params}, X[:, :, :1]), y, rtol=1e-5, atol=1e-6)


def test_a_tagger_sees_what_came_before_alone():
    net = models.SequenceTagger(5, "gru", (4,))
    params, logits = made(net, X)
    assert logits.shape == (N, T, 5)
    changed = np.asarray(net.apply({"params": params}, np.where(np.arange(T)[:, None] < 3, X, 0).astype(np.float32)))
    np.testing.assert_allclose(changed[:, :3], logits[:, :3], rtol=1e-5, atol=1e-6)
    assert (np.abs(changed[:, 3:] - logits[:, 3:]) > 1e-5).any()


def test_training_learns_to_remember():
    """The first token's class after five others, by `nnjax.train`."""
    rng = np.random.default_rng(0)
    x = rng.integers(3, 7, (256, 6))
    config = train.Config(epochs=30, batch_size=32, evaluate_every=240)
    net = models.RNNClassifier(4, "gru", (16,), vocabulary=7, embedding=8)
    run = train.make_train(
        models.network(net),
        losses.cross_entropy,
        lambda _: optax.adam(0.02),
        config,
        metrics={"error": losses.zero_one},
    )
    found = jax.jit(lambda key: run(key, None, {"train": (x, x[:, 0] - 3)}).history["train_error"][-1])(KEY)
    assert found < 0.02


# States carried from batch to batch


def test_carried_states_are_those_of_one_long_sequence():
    net = models.SequenceTagger(5, "lstm", (4, 3), streams=N)
    params, stats = jit(models.init, static_argnums=0)(net, KEY, X[:1])  # however many sequences it is made for
    assert jax.tree.map(jnp.shape, stats["carry"]["states"]) == (((N, 4), (N, 4)), ((N, 3), (N, 3)))
    step = jit(partial(models.apply, net, train=True))
    whole = net.clone(streams=None).apply({"params": params}, X)
    parts, begun = [], stats
    for begin in range(0, T, 2):
        y, stats = step(params, stats, X[:, begin : begin + 2])
        parts.append(y)
    np.testing.assert_allclose(np.concatenate(parts, 1), whole, rtol=1e-5, atol=1e-6)
    evaluated, same = models.apply(net, params, stats, X[:2])
    np.testing.assert_allclose(evaluated, whole[:2], rtol=1e-5, atol=1e-6)
    assert same is stats
    assert not np.allclose(step(params, begun, X[:, 2:4])[0], parts[1])


def test_carried_states_have_no_gradient():
    net = models.SequenceTagger(5, "lstm", (4,), streams=N)
    params, stats = models.init(net, KEY, X)

    def second(params, first):
        _, after = models.apply(net, first, stats, X, train=True)
        return (models.apply(net, params, after, X, train=True)[0] ** 2).sum()

    alone, through = jit(jax.grad(second, (0, 1)))(params, params)
    assert not any(np.asarray(g).any() for g in jax.tree.leaves(through))
    assert any(np.asarray(g).any() for g in jax.tree.leaves(alone))


# Generation


def test_greedy_text_is_what_the_model_says_step_by_step():
    net = models.SequenceTagger(7, "lstm", (8,), vocabulary=7, embedding=4)
    prompt = TOKENS[:1, :4]
    params, _ = made(net, prompt)
    found = jit(partial(models.continued, net, steps=5))(params, prompt)
    text = prompt
    for _ in range(5):
        nxt = np.argmax(net.apply({"params": params}, text)[:, -1], -1)
        text = np.concatenate([text, nxt[:, None]], 1)
        if nxt[0] == 0:
            break  # the model alone would take it for padding
    count = text.shape[1] - 4
    np.testing.assert_array_equal(found[:, :count], text[:, 4:])


def test_temperature():
    net = models.SequenceTagger(7, "gru", (8,), vocabulary=7, embedding=4)
    prompt = np.full((2000, 2), 3)
    params, logits = made(net, prompt)
    draw = jit(partial(models.continued, net, steps=1))
    chances = jax.nn.softmax(logits[0, -1] / 0.5)
    found = np.bincount(draw(params, prompt, key=KEY, temperature=0.5)[:, 0], minlength=7) / 2000
    np.testing.assert_allclose(found, chances, atol=4 * np.sqrt(0.25 / 2000))
    cold = models.continued(net, params, prompt[:3], 1, key=KEY, temperature=1e-4)
    np.testing.assert_array_equal(cold, models.continued(net, params, prompt[:3], 1))


def test_a_generator_begins_from_its_vector_and_stops_at_the_end():
    net = models.SequenceGenerator(7, "gru", 16, 8)
    x, y = np.eye(2, dtype=np.float32), np.array([[3, 4, 5, 2, 0, 0], [6, 6, 2, 0, 0, 0]])
    joined = models.network(models.Joined(net, 2))
    params, _ = joined.init(KEY, np.concatenate([x, y], 1))
    adam = optax.adam(0.03)

    def step(carry, _):
        params, state = carry

        def loss(params):
            logits, _ = joined.apply(params, {}, np.concatenate([x, y], 1), key=None, train=True)
            return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

        grads = jax.grad(loss)(params)
        updates, state = adam.update(grads, state)
        return (optax.apply_updates(params, updates), state), None

    params = jax.jit(lambda p: jax.lax.scan(step, (p, adam.init(p)), length=150)[0][0])(params)["model"]
    np.testing.assert_array_equal(jit(partial(models.generate, net, steps=6))(params, x), y)
    # Logits are those of teacher forcing: the token of a step is not seen by that step.
    a, b = (net.apply({"params": params}, x, np.where(np.arange(6) == 3, token, y)) for token in (2, 5))
    np.testing.assert_array_equal(a[:, :4], b[:, :4])
    assert not np.allclose(a[:, 4], b[:, 4])


# Translation


SOURCE = np.array([[3, 4, 5, 2, 0], [5, 3, 2, 0, 0]])
TARGET = np.array([[4, 3, 2, 0], [3, 5, 4, 2]])


@pytest.mark.parametrize("attention", [None, "dot", "additive"])
def test_translation_does_not_see_padding(attention):
    net = models.EncoderDecoder(6, 6, 8, 4, attention)
    params, logits = made(net, SOURCE, TARGET)
    assert logits.shape == (2, 4, 6)
    padded = net.apply({"params": params}, np.pad(SOURCE, ((0, 0), (0, 2))), TARGET)
    np.testing.assert_allclose(padded, logits, rtol=1e-4, atol=1e-5)
    found = jit(partial(models.translate, net, steps=4))(params, SOURCE)
    there = np.asarray(found.tokens) != 0
    total = np.asarray(found.attention).sum(2)
    np.testing.assert_allclose(total, there if attention else 0 * there, atol=1e-5)
    assert not np.asarray(found.attention)[np.broadcast_to((SOURCE == 0)[:, None], found.attention.shape)].any()


def test_additive_attention_is_the_formula():
    net = models.EncoderDecoder(6, 6, 8, 4, "additive")
    params, _ = made(net, SOURCE, TARGET)
    state, seen = net.apply({"params": params}, SOURCE, method="encode")
    _, after, weights = net.apply({"params": params}, seen, state, TARGET[:, :1], method="after")
    w, u, v = (np.asarray(params[name]["kernel"]) for name in ("query", "key", "score"))
    for i, length in enumerate((4, 3)):
        energy = np.tanh(np.asarray(after)[i] @ w + np.asarray(seen.values)[i, :length] @ u) @ v[:, 0]
        np.testing.assert_allclose(weights[i, 0, :length], np.exp(energy) / np.exp(energy).sum(), rtol=1e-4)


def test_wide_beams_find_the_best_of_all_targets():
    vocabulary, steps = 5, 3
    net = models.EncoderDecoder(6, vocabulary, 8, 4, "dot")
    params, _ = made(net, SOURCE, TARGET % vocabulary)
    params = jax.tree.map(lambda p: 3 * p, params)  # chances that differ
    everything = [t for n in (1, 2, 3) for t in itertools.product((1, 2, 3, 4), repeat=n)
                  if 2 not in t[:-1] and (t[-1] == 2 or n == steps)]  # fmt: skip
    padded = np.array([t + (0,) * (steps - len(t)) for t in everything])
    score = jit(
        lambda s: jax.nn.log_softmax(net.apply({"params": params}, jnp.tile(s[None], (len(padded), 1)), padded))
    )
    for i in range(2):
        chances = np.take_along_axis(np.asarray(score(SOURCE[i])), padded[:, :, None], 2)[:, :, 0]
        # A net may expect padding where none can come: that chance is lost, for every target alike or not.
        expected = np.where(padded != 0, chances, 0).sum(1)
        found = models.translate(net, params, SOURCE[i : i + 1], steps, beams=vocabulary)
        assert tuple(padded[expected.argmax()]) == tuple(np.asarray(found.tokens[0]))
        np.testing.assert_allclose(found.score[0], expected.max(), rtol=1e-4, atol=1e-5)


def test_one_beam_is_greedy():
    net = models.EncoderDecoder(6, 6, 8, 4, "additive")
    params, _ = made(net, SOURCE, TARGET)
    params = jax.tree.map(lambda p: 2 * p, params)
    found = jit(partial(models.translate, net, steps=5))(params, SOURCE)
    for i in range(2):
        target = np.zeros((1, 5), int)
        for t in range(5):
            logits = np.array(net.apply({"params": params}, SOURCE[i : i + 1], target)[0, t])
            target[0, t] = 1 + logits[1:].argmax()
            if target[0, t] == 2:
                break
        np.testing.assert_array_equal(found.tokens[i], target[0])


def test_longer_targets_win_with_a_length_penalty():
    score = jnp.array([[-1.0, -1.5]])
    beams = models.translation._Beams(
        jnp.array([[[2, 0, 0], [3, 4, 2]]]), jnp.ones((1, 2, 3, 1)), score, jnp.ones((1, 2), bool), None, None
    )
    np.testing.assert_array_equal(models.translation._chosen(beams, 0.0).tokens, [[2, 0, 0]])
    longer = models.translation._chosen(beams, 1.0)
    np.testing.assert_array_equal(longer.tokens, [[3, 4, 2]])
    np.testing.assert_allclose(longer.score, [-0.5])


def test_translation_compiles_once():
    net = models.EncoderDecoder(6, 6, 4, 4)
    params, _ = made(net, SOURCE, TARGET)
    traces = []

    @jit
    def run(params, source):
        traces.append(1)
        return models.translate(net, params, source, 3, beams=2)

    run(params, SOURCE)
    run(params, SOURCE[::-1].copy())
    assert len(traces) == 1


# Bad input


TAGGER = models.SequenceTagger(5, "lstm", (4,), streams=2)


@pytest.mark.parametrize(
    ("model", "args", "sentence"),
    [
        (models.RNNClassifier(cell="lstmm"), (X,), "cell 'lstmm' is not one of rnn, lstm, gru; did you mean 'lstm'"),
        (models.RNNClassifier(pool="max"), (X,), "pool 'max' is not one of last, mean"),
        (models.RNNClassifier(units=()), (X,), r"units=\(\) must name at least one layer"),
        (models.RNNClassifier(units=(0,)), (X,), "each of units=0 must be a whole number, at least 1"),
        (models.RNNClassifier(), (X[:, :0],), "a sequence needs at least one step"),
        (
            models.RNNClassifier(),
            (X, np.array([7, 1, 1])),
            "lengths run from 1 to 7; they must lie between 0 and the 6",
        ),
        (models.RNNClassifier(), (X[0, 0],), r"x has shape \(2,\); LSTM takes sequences \(n, t, features\)"),
        (models.RNNClassifier(vocabulary=7), (X,), "tokens are integers"),
        (models.RNNClassifier(vocabulary=7), (TOKENS[:, :0],), "a sequence needs at least one token"),
        (models.RNNClassifier(vocabulary=7), (TOKENS, LENGTHS), "lengths are for real values"),
        (models.RNNClassifier(dropout=2.0), (X,), "dropout=2.0 must lie between 0 and 1"),
        (models.RNN(4, activation="thanh"), (X,), r"'thanh' is not one of .*; did you mean 'tanh'"),
        (models.GRU(4, truncate=0), (X,), "truncate=0 must be a whole number of steps"),
        (models.SequenceTagger(3, bidirectional=True, streams=3), (X,), "streams=3 need bidirectional=False"),
        (models.SequenceGenerator(7), (X, TOKENS), r"SequenceGenerator takes vectors \(n, d\)"),
        (models.EncoderDecoder(6, 6, attention="adding"), (SOURCE, TARGET), "attention 'adding' is not one of"),
        (models.EncoderDecoder(6, 6), (X, TARGET), "source has shape .* it must be integer tokens"),
        (models.Joined(models.EncoderDecoder(6, 6), 5), (SOURCE,), r"x has shape \(2, 5\); it must be"),
    ],
    ids=str,
)
def test_bad_input(model, args, sentence):
    with pytest.raises(ValueError, match=sentence) as caught:
        model.init(KEY, *args)
    assert "\n" not in str(caught.value)


def test_another_number_of_features_or_streams():
    params, _ = made(models.LSTM(4), X)
    with pytest.raises(ValueError, match="x has 3 features a step, and these parameters are for 2"):
        models.LSTM(4).apply({"params": params}, values(0, N, T, 3))
    params, stats = models.init(TAGGER, KEY, X)
    with pytest.raises(ValueError, match="x has 3 sequences, and the states carried are of streams=2"):
        models.apply(TAGGER, params, stats, X, train=True)


def test_bad_generation():
    net = models.SequenceTagger(7, "rnn", (4,), vocabulary=7)
    params, _ = made(net, TOKENS)
    with pytest.raises(ValueError, match=r"temperature=1\.0 needs a key"):
        models.continued(net, params, TOKENS, 2, temperature=1.0)
    with pytest.raises(ValueError, match="temperature=-1 must be at least 0"):
        models.continued(net, params, TOKENS, 2, key=KEY, temperature=-1)
    with pytest.raises(ValueError, match="steps=0 must be a whole number"):
        models.continued(net, params, TOKENS, 0)
    pair = models.EncoderDecoder(6, 6, 4, 4)
    params, _ = made(pair, SOURCE, TARGET)
    with pytest.raises(ValueError, match="beams=7 must be at most target_vocabulary=6"):
        models.translate(pair, params, SOURCE, 2, beams=7)
