"""Recurrent models: shapes and layers, padding, carried states, generation, attention, beam search, bad input."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nnjax import data, losses, models, recurrent, train
from nnjax.models import linen, sequences, tokens
from nnjax.recurrent import cells

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


def test_a_first_state_does_not_change_the_dtype():
    for layer in (models.LSTM(4, dtype=jnp.bfloat16), models.GRU(4, dtype=jnp.bfloat16)):
        for initial in (layer.zeros(N), layer.zeros(N, jnp.float32)):
            shapes = jax.eval_shape(lambda layer=layer, initial=initial: layer.init_with_output(KEY, X, None, initial))
            assert {leaf.dtype for leaf in jax.tree.leaves(shapes[0])} == {jnp.dtype(jnp.bfloat16)}


@pytest.mark.parametrize("options", [{}, {"dtype": jnp.bfloat16}], ids=str)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_carried_states_keep_their_dtype(options, dtype):
    net, x = models.SequenceTagger(5, "lstm", (4,), streams=N, options=options), jnp.asarray(X, dtype)
    params, stats = jax.eval_shape(partial(models.init, net), KEY, x)
    after = jax.eval_shape(partial(models.apply, net, train=True), params, stats, x)[1]
    assert jax.tree.map(lambda a: (a.shape, a.dtype), after) == jax.tree.map(lambda a: (a.shape, a.dtype), stats)


@pytest.mark.parametrize(
    "make",
    [
        partial(models.Bidirectional, "gru", 4),
        partial(models.Stacked, "gru", (4,)),
        partial(models.RNNClassifier, cell="gru"),
        partial(models.RNNForecaster),
        partial(models.SequenceTagger, 5, "gru"),
        partial(models.SequenceGenerator, 5),
    ],
    ids=lambda make: make.func.__name__,
)
def test_models_with_options_are_hashed_and_compared(make):
    one, same = (make(options={"reset_after": True, "truncate": 3}) for _ in range(2))
    reordered = make(options={"truncate": 3, "reset_after": True})
    assert one == same == reordered
    assert hash(one) == hash(same) == hash(reordered)
    assert one != make(options={"reset_after": False, "truncate": 3})
    assert make() == make(options=None) == make(options={})
    options = {"truncate": 3}
    made_before = make(options=options)
    options["truncate"] = 4
    assert made_before == make(options={"truncate": 3})


def test_options_reach_the_layers():
    shapes = jax.eval_shape(models.Stacked("gru", (4, 3), options={"reset_after": True}).init, KEY, X)["params"]
    assert set(shapes["layer_1"]) == {"kernel", "recurrent", "bias", "recurrent_bias"}
    with pytest.raises(TypeError, match="activation"):
        models.GRU(4, activation="relu")


def test_activations_are_found_in_one_place():
    assert linen.function_of is cells.function_of


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


def test_training_carries_states_through_a_text():
    """With the text's order, as `nnjax.train` is to be told, the states are those of each whole stream."""
    options = {"recurrent_init": jax.nn.initializers.normal(0.5)}  # orthogonal ones take long to compile
    net = models.SequenceTagger(7, "rnn", (4,), vocabulary=7, embedding=2, streams=2, options=options)
    pieces = data.next_token_batches(np.random.default_rng(0).integers(3, 7, 25), 2, 3)
    x, y = (part.reshape(-1, 3) for part in pieces)

    def loss(logits, target):
        return optax.softmax_cross_entropy_with_integer_labels(logits, target).mean(1)

    config = train.Config(epochs=1, batch_size=2, shuffle=False)
    run = train.make_train(models.network(net), loss, lambda _: optax.sgd(0.0), config)
    found = jit(lambda key: run(key, None, {"train": (x, y)}))(KEY)
    whole = np.concatenate(pieces.x, 1)
    assert whole.shape == (2, 12)
    alone = net.clone(streams=None)
    logits, (final,) = alone.apply({"params": found.params}, whole, states=True)
    (carried,) = found.stats["carry"]["states"]
    np.testing.assert_allclose(carried, final, rtol=1e-5, atol=1e-6)
    expected = loss(logits, np.concatenate(pieces.y, 1)).mean()
    np.testing.assert_allclose(found.history["running_loss"][-1], expected, rtol=1e-5)
    assert np.abs(loss(alone.apply({"params": found.params}, x), y).mean() - expected) > 1e-4


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
    params["logits"]["bias"][:2] = 9  # a model that would write padding and starts
    found = jit(partial(models.continued, net, steps=5))(params, prompt)
    text = prompt
    for _ in range(5):
        logits = np.asarray(net.apply({"params": params}, text)[:, -1])
        assert logits.argmax() < 2
        text = np.concatenate([text, 2 + logits[:, 2:].argmax(1)[:, None]], 1)
    np.testing.assert_array_equal(found, text[:, 4:])


def test_padded_prompts_go_on_from_their_own_ends():
    net = models.SequenceTagger(7, "gru", (8,), vocabulary=7, embedding=4)
    params, _ = made(net, TOKENS)
    write = jit(partial(models.continued, net, steps=4))
    found = write(params, TOKENS)
    for i, length in enumerate(LENGTHS):
        np.testing.assert_array_equal(found[i], write(params, TOKENS[i : i + 1, :length])[0])
    assert len(np.unique(found, axis=0)) > 1
    with pytest.raises(ValueError, match="sequence 1 of tokens is empty; give it a token"):
        models.continued(net, params, TOKENS * (np.arange(N) != 1)[:, None], 4)


def test_temperature():
    net = models.SequenceTagger(7, "gru", (8,), vocabulary=7, embedding=4)
    prompt = np.full((2000, 2), 3)
    params, logits = made(net, prompt)
    draw = jit(partial(models.continued, net, steps=1))
    chances = np.append([0, 0], jax.nn.softmax(logits[0, -1, 2:] / 0.5))
    found = np.bincount(draw(params, prompt, key=KEY, temperature=0.5)[:, 0], minlength=7) / 2000
    np.testing.assert_allclose(found, chances, atol=4 * np.sqrt(0.25 / 2000))
    assert not found[:2].any()
    likeliest = 2 + int(np.argmax(logits[0, -1, 2:]))
    for cold in (1e-4, 0.0):  # traced here
        assert set(np.unique(draw(params, prompt, key=KEY, temperature=cold))) == {likeliest}


def written(logits, steps, **options):
    """Draws by the same logits (n, k) at every step."""
    given = {"key": KEY, "temperature": 1.0, "top_k": None, "end": None} | options
    return np.asarray(tokens.written(lambda state, _: (logits[:, None], state), logits, (), steps, **given))


def test_padding_and_starts_are_never_drawn_and_an_end_ends():
    logits = jnp.tile(jnp.array([[5.0, 5, 1, 0, 0.5]]), (200, 1))
    found = written(logits, 6)
    assert set(np.unique(found)) == {2, 3, 4}
    ended = written(logits, 6, end=2)
    over = np.cumsum(found == 2, 1) - (found == 2) > 0  # after the first end
    np.testing.assert_array_equal(ended, np.where(over, 0, found))
    assert set(np.unique(written(logits, 6, top_k=2))) == {2, 4}
    assert set(np.unique(written(logits, 6, top_k=1))) == {2}


def test_other_ends_and_numbers_of_likeliest_tokens_reach_a_text():
    net = models.SequenceTagger(7, "rnn", (4,), vocabulary=7, embedding=2)
    params, _ = made(net, TOKENS)
    (plain,) = models.continued(net, params, TOKENS[:1], 4)
    (found,) = models.continued(net, params, TOKENS[:1], 4, key=KEY, temperature=9.0, top_k=1, end=int(plain[0]))
    np.testing.assert_array_equal(found, [plain[0], 0, 0, 0])


def learned(joined, params, x, y, steps=150):
    """Parameters of the model inside, trained on all examples until it knows them."""
    adam = optax.adam(0.03)

    def step(carry, _):
        params, state = carry

        def loss(params):
            logits, _ = joined.apply(params, {}, x, key=None, train=True)
            return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

        grads = jax.grad(loss)(params)
        updates, state = adam.update(grads, state)
        return (optax.apply_updates(params, updates), state), None

    return jax.jit(lambda p: jax.lax.scan(step, (p, adam.init(p)), length=steps)[0][0])(params)["model"]


def test_a_generator_begins_from_its_vector_and_stops_at_the_end():
    net = models.SequenceGenerator(7, "gru", 16, 8)
    x, y = np.eye(2, dtype=np.float32), np.array([[3, 4, 5, 2, 0, 0], [6, 6, 2, 0, 0, 0]])
    joined = models.network(models.Joined(net, 2))
    params, _ = joined.init(KEY, np.concatenate([x, y], 1))
    params = learned(joined, params, np.concatenate([x, y], 1), y)
    np.testing.assert_array_equal(jit(partial(models.generate, net, steps=6))(params, x), y)
    # Logits are those of teacher forcing: the token of a step is not seen by that step.
    a, b = (net.apply({"params": params}, x, np.where(np.arange(6) == 3, token, y)) for token in (2, 5))
    np.testing.assert_array_equal(a[:, :4], b[:, :4])
    assert not np.allclose(a[:, 4], b[:, 4])


# Translation


SOURCE = np.array([[3, 4, 5, 2, 0], [5, 3, 2, 0, 0]])
TARGET = np.array([[4, 3, 2, 0], [3, 5, 4, 2]])


def test_encoded_pairs_are_learned_and_translated():
    """From two lists of sentences to sentences: arrays, model and search agree on where a target starts."""
    source, target = ("ab", "ba", "aab", "b"), ("xy", "yxy", "y", "xx")
    letters = data.Vocabulary.characters("ab"), data.Vocabulary.characters("xy")
    pairs = data.encode_pairs(data.Pairs(source, target), *letters)
    net = models.EncoderDecoder(len(letters[0]), len(letters[1]), 12, 6, "dot")
    joined, x = models.Joined(net, pairs.source.shape[1]), np.concatenate([pairs.source, pairs.target], 1)
    params = learned(models.network(joined), made(joined, x)[0], x, pairs.target)
    found = jit(partial(models.translate, net, steps=pairs.target.shape[1]))(params, pairs.source).tokens
    np.testing.assert_array_equal(found, pairs.target)
    assert [letters[1].decode(row) for row in found] == list(target)


@pytest.mark.parametrize("attention", [None, "dot", "general", "additive"])
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


@pytest.mark.parametrize("attention", ["dot", "general", "additive"])
def test_attention_is_the_formula(attention):
    net = models.EncoderDecoder(6, 6, 8, 4, attention)
    params, _ = made(net, SOURCE, TARGET)
    state, seen = net.apply({"params": params}, SOURCE, method="encode")
    _, after, weights = net.apply({"params": params}, seen, state, TARGET[:, :1], method="after")
    w, u, v = (np.asarray(params.get(name, {"kernel": 0})["kernel"]) for name in ("query", "key", "score"))
    for i, length in enumerate((4, 3)):
        h, m = np.asarray(after)[i], np.asarray(seen.values)[i, :length]
        match attention:
            case "dot":
                energy = (m[:, :8] + m[:, 8:]) @ h
            case "general":
                energy = (m @ u) @ h
            case "additive":
                energy = np.tanh(h @ w + m @ u) @ v[:, 0]
        np.testing.assert_allclose(weights[i, 0, :length], np.exp(energy) / np.exp(energy).sum(), rtol=1e-4)


def test_wide_beams_find_the_best_of_all_targets():
    vocabulary, steps = 5, 2  # as many beams as tokens: after the first step none is lost, and the second is the last
    net = models.EncoderDecoder(6, vocabulary, 8, 4, "general")
    params, _ = made(net, SOURCE, TARGET % vocabulary)
    params = jax.tree.map(lambda p: 3 * p, params)  # chances that differ
    everything = [(2, 0), *itertools.product((3, 4), (2, 3, 4))]
    padded = np.array(everything)
    logits = jit(lambda s: net.apply({"params": params}, jnp.tile(s[None], (len(padded), 1)), padded))
    for i in range(2):
        # Neither padding nor a start has a chance.
        chances = np.asarray(jax.nn.log_softmax(logits(SOURCE[i])[:, :, 2:]))
        chances = np.take_along_axis(chances, np.maximum(padded - 2, 0)[:, :, None], 2)[:, :, 0]
        expected = np.where(padded != 0, chances, 0).sum(1)
        found = models.translate(net, params, SOURCE[i : i + 1], steps, beams=vocabulary)
        assert everything[expected.argmax()] == tuple(np.asarray(found.tokens[0]).tolist())
        np.testing.assert_allclose(found.score[0], expected.max(), rtol=1e-4, atol=1e-5)


def test_scores_are_summed_in_float32():
    net = models.EncoderDecoder(6, 6, 4, 4, "dot")
    params = jax.eval_shape(net.init, KEY, SOURCE, TARGET)["params"]
    low = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, jnp.bfloat16), params)
    found = jax.eval_shape(partial(models.translate, net, steps=3, beams=2), low, SOURCE)
    assert found.score.dtype == jnp.float32


def test_one_beam_is_greedy():
    net = models.EncoderDecoder(6, 6, 8, 4, "additive")
    params, _ = made(net, SOURCE, TARGET)
    params = jax.tree.map(lambda p: 2 * p, params)
    found = jit(partial(models.translate, net, steps=5))(params, SOURCE)
    for i in range(2):
        target = np.zeros((1, 5), int)
        for t in range(5):
            logits = np.array(net.apply({"params": params}, SOURCE[i : i + 1], target)[0, t])
            target[0, t] = 2 + logits[2:].argmax()
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
        (models.SequenceTagger(3, bidirectional=True, streams=3), (X,), "streams=3 need one direction, forward"),
        (models.SequenceTagger(3, options={"reverse": True}, streams=3), (X,), "streams=3 need one direction"),
        (models.SequenceTagger(3, units=4, streams=3), (X,), "units=4 must be a tuple with the size of each layer"),
        (models.Stacked("gru", 4), (X,), "units=4 must be a tuple with the size of each layer"),
        (
            models.Stacked("lstm", (4,), options={"activation": "relu"}),
            (X,),
            "option of 'lstm' 'activation' is not one of dtype, kernel_init, recurrent_init, reverse, truncate",
        ),
        (models.RNNForecaster(cell="rnn", options={"reset_after": True}), (X,), "option of 'rnn' 'reset_after'"),
        (models.SequenceGenerator(7, options={"units": 3}), (X[:, 0], TOKENS), "option of 'gru' 'units' is not one"),
        (
            models.Bidirectional("gru", 4, {"reverse": True}),
            (X,),
            "option of 'gru' 'reverse' is not one of dtype, kernel_init, recurrent_init, reset_after, truncate",
        ),
        (
            models.Stacked("gru", (4, 4)),
            (X, None, (X[:, 0],)),
            "initial must be a tuple of 2 states, one a layer; there is 1 of",
        ),
        (models.Stacked("gru", (4,)), (X, None, [X[:, 0]] * 2), "initial must be a tuple of 1 states.*; there is 2 of"),
        (
            models.Bidirectional("gru", 4),
            (X, None, X[:, 0]),
            r"initial must be a tuple of 2 states, one a direction; there is an array of \(3, 2\)",
        ),
        (models.RNNClassifier(vocabulary=6), (TOKENS,), "x has tokens from 0 to 6; they must lie between 0 and 5"),
        (models.RNNClassifier(vocabulary=7), (TOKENS - 1,), "x has tokens from -1 to 5; they must lie between 0 and 6"),
        (models.SequenceGenerator(6), (X[:, 0], TOKENS), "tokens has tokens from 0 to 6"),
        (models.SequenceGenerator(7), (X[:2, 0], TOKENS), "tokens has 3 rows and x has 2; each vector needs its own"),
        (models.EncoderDecoder(5, 6), (SOURCE, TARGET), "source has tokens from 0 to 5; they must lie between 0 and 4"),
        (models.EncoderDecoder(6, 5), (SOURCE, TARGET), "target has tokens from 0 to 5"),
        (
            models.Joined(models.SequenceGenerator(7), 2),
            (jnp.ones((3, 4), jnp.bfloat16),),
            "x has dtype bfloat16, which rounds tokens; give floats of at least 32 bits",
        ),
        (models.SequenceGenerator(7), (X, TOKENS), r"SequenceGenerator takes vectors \(n, d\)"),
        (models.EncoderDecoder(6, 6, attention="adding"), (SOURCE, TARGET), "attention 'adding' is not one of"),
        (models.EncoderDecoder(6, 6), (X, TARGET), "source has shape .*; tokens are integers"),
        (models.Joined(models.EncoderDecoder(6, 6), 5), (SOURCE,), r"x has shape \(2, 5\); it must be"),
    ],
    ids=lambda given: given if isinstance(given, str) else "",
)
def test_bad_input(model, args, sentence):
    with pytest.raises(ValueError, match=sentence) as caught:
        model.init(KEY, *args)
    assert "\n" not in str(caught.value)


def test_unknown_tokens_of_a_compiled_program_are_nan():
    net = models.RNNClassifier(2, "rnn", (4,), vocabulary=7, embedding=2)
    params, _ = made(net, TOKENS)
    wrong = np.array([[3, 4], [3, 7], [-1, 4], [3, -7]])
    for dtype in (np.int32, np.int8):
        found = jit(net.apply)({"params": params}, wrong.astype(dtype))
        np.testing.assert_array_equal(np.isnan(found).all(1), [False, True, True, True])


def test_another_number_of_features_or_streams():
    params, _ = made(models.SequenceGenerator(7, "lstm", 4, 2), X[:, 0], TOKENS)
    with pytest.raises(ValueError, match="x has 5 values a vector, and these parameters are for 2"):
        models.generate(models.SequenceGenerator(7, "lstm", 4, 2), params, values(0, N, 5), 3)
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
    for options, sentence in (
        ({"top_k": 8}, "top_k=8 must be at most the 7 tokens"),
        ({"top_k": 0}, "top_k=0 must be a whole number"),
        ({"end": 7}, "end=7 must be one of the 7 tokens"),
    ):
        with pytest.raises(ValueError, match=sentence):
            models.continued(net, params, TOKENS, 2, **options)
    for changes, sentence in (
        ({"vocabulary": None}, "vocabulary=None is for real values"),
        ({"classes": 3}, "classes=3 must be vocabulary=7"),
        ({"bidirectional": True}, "a model that reads from the end"),
        ({"options": {"reverse": True}}, "a model that reads from the end"),
    ):
        with pytest.raises(ValueError, match=sentence):
            models.continued(net.clone(**changes), params, TOKENS, 2)


def test_bad_translation():
    pair = models.EncoderDecoder(6, 6, 4, 4)
    with pytest.raises(ValueError, match="beams=7 must be at most target_vocabulary=6"):
        models.translate(pair, {}, SOURCE, 2, beams=7)
    for penalty in (-1.0, np.nan, np.inf):
        with pytest.raises(ValueError, match=f"length_penalty={penalty} must be finite and at least 0"):
            models.translate(pair, {}, SOURCE, 2, length_penalty=penalty)
