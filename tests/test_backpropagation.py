"""Backpropagation by hand against worked examples, automatic differentiation, PyTorch and scikit-learn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnjax.classical import backpropagation as bp

EXAMPLE = bp.Config((2, 2, 2))
gradient = jax.jit(bp.gradient, static_argnums=2)
autodiff = jax.jit(jax.grad(bp.loss), static_argnums=2)
step = jax.jit(bp.step, static_argnames="config")
X, T = np.array([[0.05, 0.10]]), np.array([[0.01, 0.99]])
START = bp.Params(  # rows are inputs here, units in the example's own lists
    (np.array([[0.15, 0.25], [0.20, 0.30]]), np.array([[0.40, 0.50], [0.45, 0.55]])),
    (np.full(2, 0.35), np.full(2, 0.60)),
)


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


def _flat(params):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(params)])


def _problem(config, n=6, seed=0, dtype="float64"):
    """Parameters that leave no unit saturated, inputs, and targets that suit the loss."""
    rng = np.random.default_rng(seed)
    shapes = list(zip(config.sizes, config.sizes[1:], strict=False))
    params = bp.Params(
        tuple(rng.normal(0, 1.5 / np.sqrt(a), (a, b)).astype(dtype) for a, b in shapes),
        tuple(rng.normal(0, 0.3, b).astype(dtype) for _, b in shapes),
    )
    x = rng.normal(size=(n, config.sizes[0])).astype(dtype)
    k = config.sizes[-1]
    y = rng.integers(0, k, n).astype("int32") if config.loss == "cross_entropy" else rng.random((n, k)).astype(dtype)
    return params, (x, y)


# The 2-2-2 example, number by number


def _one_update(x64, bias_rate):
    state, info = step(bp.start(START), (X, T), config=EXAMPLE, learning_rate=0.5, bias_learning_rate=bias_rate)
    return state.params, info.loss, bp.loss(state.params, (X, T), EXAMPLE)


def test_example_updating_weights_only(x64):
    params, before, after = _one_update(x64, 0.0)
    np.testing.assert_allclose(before, 0.2983711087600027, rtol=1e-15)
    np.testing.assert_allclose(after, 0.29102777369359933, rtol=1e-15)
    np.testing.assert_allclose(bp.forward(START, X, EXAMPLE)[-1], [[0.75136507, 0.77292847]], atol=5e-9)
    by_unit = [*params.weights[0].T.ravel(), *params.weights[1].T.ravel()]
    expected = [0.14978072, 0.19956143, 0.24975114, 0.29950229, 0.35891648, 0.40866619, 0.51130127, 0.56137012]
    np.testing.assert_allclose(by_unit, expected, atol=5e-9)
    np.testing.assert_array_equal(params.biases[0], START.biases[0])


def test_example_updating_weights_and_biases(x64):
    params, _, after = _one_update(x64, None)
    np.testing.assert_allclose(after, 0.28047144679143016, rtol=1e-15)
    # Both units of a layer start with one bias, and each then moves its own.
    assert params.biases[1][0] != params.biases[1][1]


def test_the_slip_of_using_new_output_weights_gives_the_well_known_wrong_total(x64):
    """.291027924 is what follows when the hidden deltas are taken through the already updated output weights."""
    _, hidden, output = bp.forward(START, X, EXAMPLE)
    delta = output * (1 - output) * (output - T)
    late = START.weights[1] - 0.5 * hidden.T @ delta
    wrong = hidden * (1 - hidden) * (delta @ late.T)
    slipped = bp.Params((START.weights[0] - 0.5 * X.T @ wrong, late), START.biases)
    total = float(bp.loss(slipped, (X, T), EXAMPLE))
    assert round(total, 9) == 0.291027924
    true = float(_one_update(x64, 0.0)[2])
    assert round(true, 9) == 0.291027774
    assert true < total


def test_example_after_ten_thousand_updates(x64):
    """The published error .0000351085 is the true gradient's after 9,999 updates."""
    run = jax.jit(
        lambda state: bp.train(
            state, (X, T), config=EXAMPLE, epochs=10_000, evaluate_at=(0, 9_999, 10_000), watch=lambda p: p.biases[0],
            learning_rate=0.5, bias_learning_rate=0.0,
        )
    )  # fmt: skip
    state, trace = run(bp.start(START))
    np.testing.assert_array_equal(trace.updates, [0, 9_999, 10_000])
    np.testing.assert_allclose(trace.loss, [0.2983711087600027, 3.510854812251e-05, 3.510187782979e-05], rtol=1e-9)
    np.testing.assert_array_equal(trace.watched, np.full((3, 2), 0.35))
    np.testing.assert_allclose(bp.forward(state.params, X, EXAMPLE)[-1], [[0.01591362, 0.98406427]], atol=5e-9)


# The chain rule, from small expressions


def test_chain_rule_by_hand_is_autodiffs(x64):
    def f(x, y, z, w):
        return (x * y + jnp.maximum(z, w)) ** 2

    at = (4.0, -2.0, 5.0, -1.0)
    x, y, z, w = at
    q = x * y + max(z, w)
    by_hand = (2 * q * y, 2 * q * x, 2 * q * (z > w), 2 * q * (w > z))
    assert f(*at) == 9
    assert by_hand == (12, -24, -6, 0)
    np.testing.assert_array_equal(jax.grad(f, argnums=(0, 1, 2, 3))(*at), by_hand)


CHAINS = {
    "(2x)^3": (lambda x: (2 * x) ** 3, lambda x: 24 * x**2),
    "ln(x^2)": (lambda x: jnp.log(x**2), lambda x: 2 / x),
    "exp(2x^2)": (lambda x: jnp.exp(2 * x**2), lambda x: 4 * x * np.exp(2 * x**2)),
    "(3x^2+4x)^3": (lambda x: (3 * x**2 + 4 * x) ** 3, lambda x: 3 * (3 * x**2 + 4 * x) ** 2 * (6 * x + 4)),
}


@pytest.mark.parametrize("name", CHAINS)
def test_chain_rule_list(name, x64):
    f, slope = CHAINS[name]
    for x in (-1.3, 0.4, 2.0):
        np.testing.assert_allclose(jax.grad(f)(x), slope(x), rtol=1e-13)


# Against automatic differentiation


@st.composite
def nets(draw):
    sizes = tuple(draw(st.lists(st.integers(1, 5), min_size=2, max_size=5)))
    loss = draw(st.sampled_from(sorted(bp.LOSSES)))
    output = "identity" if loss == "cross_entropy" else draw(st.sampled_from(sorted(bp.SLOPES)))
    return bp.Config(sizes, draw(st.sampled_from(sorted(bp.SLOPES))), output, loss), draw(st.integers(0, 2**16))


@given(nets(), st.integers(1, 7))
@settings(max_examples=8, deadline=None)
def test_gradient_is_autodiffs_for_random_nets(net, n):
    config, seed = net
    with jax.enable_x64(True):
        params, batch = _problem(config, n, seed)
        hand, auto = gradient(params, batch, config), autodiff(params, batch, config)
        scale = max(np.abs(_flat(auto)).max(), 1e-3)
        np.testing.assert_allclose(_flat(hand), _flat(auto), rtol=0, atol=1e-12 * scale)


CASES = [
    bp.Config((3, 5, 4, 2), "logistic", "logistic"),
    bp.Config((3, 5, 4, 2), "tanh", "tanh"),
    bp.Config((3, 5, 4, 2), "relu", "identity"),
    bp.Config((3, 5, 4, 2), "identity", "relu"),
    bp.Config((3, 5, 4, 2), "relu", "identity", "cross_entropy"),
]


@pytest.mark.parametrize("config", CASES, ids=lambda c: f"{c.hidden}-{c.output}-{c.loss}")
def test_gradient_in_single_precision(config):
    """float32 keeps 2^-24 = 6e-8; a gradient is a few dozen such roundings away, on the scale of its largest part."""
    params, batch = _problem(config, dtype="float32")
    hand = gradient(params, batch, config)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(hand))
    with jax.enable_x64(True):
        double = jax.tree.map(lambda leaf: leaf.astype("f8") if leaf.dtype == "f4" else leaf, (params, batch))
        exact = autodiff(*double, config)
        np.testing.assert_allclose(_flat(hand), _flat(exact), rtol=0, atol=2e-6 * np.abs(_flat(exact)).max())


@pytest.mark.parametrize("loss", bp.LOSSES)
def test_deltas_are_derivatives_by_the_net_inputs(loss, x64):
    config = bp.Config((3, 4, 2), "tanh", "identity", loss)
    params, (x, y) = _problem(config, n=4)
    found = jax.jit(bp.deltas, static_argnums=2)(params, (x, y), config)
    assert [d.shape for d in found] == [(4, 4), (4, 2)]

    def shifted(first, second, at):
        moved = params._replace(biases=(params.biases[0] + first, params.biases[1] + second))
        return bp.loss(moved, (x[at][None], y[at][None]), config)

    x, y = jnp.asarray(x), jnp.asarray(y)
    slopes = jax.jit(jax.vmap(jax.grad(shifted, argnums=(0, 1)), in_axes=(None, None, 0)))
    expected = slopes(jnp.zeros(4), jnp.zeros(2), jnp.arange(4))
    for layer in range(2):
        np.testing.assert_allclose(found[layer], expected[layer], atol=1e-14)


def test_weights_of_examples_and_soft_labels(x64):
    config = bp.Config((3, 4, 3), "logistic", "identity", "cross_entropy")
    params, (x, y) = _problem(config, n=5)
    twice = gradient(params, (np.concatenate([x, x[:2]]), np.concatenate([y, y[:2]])), config)
    weighted = gradient(params, (x, y, np.array([2, 2, 1, 1, 1])), config)
    np.testing.assert_allclose(_flat(weighted), _flat(twice), atol=1e-15)
    soft = np.random.default_rng(1).random((5, 3))  # not a distribution, and right all the same
    auto = autodiff(params, (x, soft), config)
    np.testing.assert_allclose(_flat(gradient(params, (x, soft), config)), _flat(auto), atol=1e-14)


# Independent oracles


def test_gradient_is_torchs(x64):
    torch = pytest.importorskip("torch")
    config = bp.Config((4, 6, 5, 3), "tanh", "identity", "cross_entropy")
    params, (x, y) = _problem(config, n=8)
    leaves = [torch.tensor(leaf, requires_grad=True) for leaf in jax.tree.leaves(params)]
    out = torch.tensor(x)
    for layer in range(3):
        out = out @ leaves[layer] + leaves[3 + layer]
        out = torch.tanh(out) if layer < 2 else out
    torch.nn.functional.cross_entropy(out, torch.tensor(y, dtype=torch.int64)).backward()
    expected = np.concatenate([leaf.grad.numpy().ravel() for leaf in leaves])
    np.testing.assert_allclose(_flat(gradient(params, (x, y), config)), expected, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("hidden", ["logistic", "tanh", "relu"])
def test_updates_are_scikit_learns(hidden, x64):
    """Three full-batch updates with momentum, from our weights by its warm start."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPRegressor

    config = bp.Config((3, 4, 2), hidden, "identity")
    params, (x, y) = _problem(config, n=10)
    net = MLPRegressor(
        hidden_layer_sizes=(4,), activation=hidden, solver="sgd", alpha=0.0, batch_size=10, learning_rate_init=0.05,
        momentum=0.9, nesterovs_momentum=False, shuffle=False, warm_start=True, max_iter=3,
    )  # fmt: skip
    with pytest.warns(ConvergenceWarning):  # three updates are all that is asked for
        net.fit(x, y)  # allocates
    net.coefs_, net.intercepts_ = [w.copy() for w in params.weights], [b.copy() for b in params.biases]
    with pytest.warns(ConvergenceWarning):
        net.fit(x, y)
    state = bp.start(params)
    for _ in range(3):
        state, _ = step(state, (x, y), config=config, learning_rate=0.05, momentum=0.9)
    expected = np.concatenate([leaf.ravel() for leaf in (*net.coefs_, *net.intercepts_)])
    assert np.abs(expected - _flat(params)).max() > 0.01
    np.testing.assert_allclose(_flat(state.params), expected, rtol=1e-12, atol=1e-14)


# Training: one code path


def _by_loop(params, x, y, orders, size, config, rate, momentum):
    """The same training as a plain loop over autodiff's gradients."""
    velocity = jax.tree.map(np.zeros_like, params)
    for order in orders:
        for first in range(0, len(order), size):
            part = order[first : first + size]
            g = autodiff(params, (x[part], y[part]), config)
            velocity = jax.tree.map(lambda v, g: momentum * v + g, velocity, g)
            params = jax.tree.map(lambda w, v: w - rate * v, params, velocity)
    return params


@pytest.mark.parametrize("size", [None, 1, 4, 3], ids=["batch", "online", "mini-batch", "mini-batch with a rest"])
def test_batch_mini_batch_and_online_are_the_plain_loop(size, x64):
    config = bp.Config((3, 4, 2), "tanh", "identity", "cross_entropy")
    params, (x, y) = _problem(config, n=8)
    key = jax.random.key(5)
    run = jax.jit(lambda state, key: bp.train(
        state, (x, y), key, config=config, epochs=3, batch_size=size, learning_rate=0.3, momentum=0.5
    ))  # fmt: skip
    state, trace = run(bp.start(params), key)
    parts = -(-8 // (size or 8))
    orders = [np.asarray(jax.random.permutation(jax.random.fold_in(key, epoch), 8)) for epoch in range(3)]
    expected = _by_loop(params, x, y, orders, size or 8, config, 0.3, 0.5)
    np.testing.assert_allclose(_flat(state.params), _flat(expected), atol=1e-13)
    np.testing.assert_array_equal(trace.updates, parts * np.arange(4))
    np.testing.assert_allclose(trace.loss[0], bp.loss(params, (x, y), config))
    np.testing.assert_allclose(trace.loss[-1], bp.loss(state.params, (x, y), config))


def test_order_is_given_without_a_key_and_new_every_epoch_with_one(x64):
    config = bp.Config((3, 2, 2))
    params, data = _problem(config, n=6)
    run = jax.jit(
        lambda key, epochs: bp.train(bp.start(params), data, key, config=config, epochs=epochs, batch_size=1)[0].params,
        static_argnums=1,
    )
    plain = _by_loop(params, *data, [np.arange(6)] * 2, 1, config, 0.1, 0.0)
    np.testing.assert_allclose(_flat(run(None, 2)), _flat(plain), atol=1e-14)
    assert np.abs(_flat(run(jax.random.key(0), 2)) - _flat(plain)).max() > 1e-6
    orders = [jax.random.permutation(jax.random.fold_in(jax.random.key(0), epoch), 6) for epoch in range(2)]
    assert not np.array_equal(*orders)


def test_solved_is_told_with_the_number_of_updates():
    """OR is linearly separable: one layer of logistic units solves it; with rate 0 nothing is learned."""
    config = bp.Config((2, 1))
    data = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], "float32"), np.array([[0], [1], [1], [1]], "float32")
    run = jax.jit(
        lambda rate: bp.train(bp.init(jax.random.key(0), config), data, config=config, epochs=300, learning_rate=rate)[
            1
        ]
    )
    trace = run(5.0)
    at = int(trace.solved_at)
    assert bool(trace.converged)
    assert trace.worst[at] < 0.4 <= trace.worst[at - 1]
    still = run(0.0)
    assert not still.converged
    assert still.solved_at == -1


def test_units_that_start_equal_stay_equal(x64):
    """Why weights start at random: from a symmetric start no update tells two hidden units apart."""
    config = bp.Config((3, 4, 2), initializer="zeros")
    _, data = _problem(config, n=5)
    start = bp.init(jax.random.key(0), config)
    state, _ = jax.jit(lambda state: bp.train(state, data, config=config, epochs=50, learning_rate=1.0))(start)
    first, second = state.params.weights
    assert np.abs(second).max() > 0.1
    np.testing.assert_array_equal(first, np.broadcast_to(first[:, :1], first.shape))
    np.testing.assert_array_equal(second, np.broadcast_to(second[:1], second.shape))


# What every learner keeps to


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_compiles_once_and_maps_over_hyper_parameters(dtype):
    config = bp.Config((3, 4, 2), "tanh", "identity", "cross_entropy")
    traces = []

    @jax.jit
    def run(key, rate, momentum):
        traces.append(1)
        state = bp.init(key, config, dtype=dtype)
        return bp.train(state, data, key, config=config, epochs=2, batch_size=2, learning_rate=rate, momentum=momentum)

    with jax.enable_x64(dtype == "float64"):
        data = _problem(config, n=5, dtype=dtype)[1]
        one, _ = run(jax.random.key(0), 0.1, 0.5)
        other, trace = run(jax.random.key(1), 0.2, 0.0)
        assert len(traces) == 1
        assert all(leaf.dtype == dtype for leaf in jax.tree.leaves(other))
        assert trace.loss.dtype == dtype
        if dtype == "float64":
            return
        keys = jnp.stack([jax.random.key(0), jax.random.key(1)])
        lanes, _ = jax.vmap(run)(keys, jnp.array([0.1, 0.2]), jnp.array([0.5, 0.0]))
        for lane, alone in enumerate((one, other)):
            np.testing.assert_allclose(_flat(jax.tree.map(lambda leaf, lane=lane: leaf[lane], lanes)), _flat(alone),
                                       atol=1e-6)  # fmt: skip


def test_init_has_the_nets_shapes_and_depends_on_the_key():
    config = bp.Config((3, 4, 2))
    state = bp.init(jax.random.key(0), config)
    assert [w.shape for w in state.params.weights] == [(3, 4), (4, 2)]
    assert [b.shape for b in state.params.biases] == [(4,), (2,)]
    assert not np.any(_flat(state.velocity))
    np.testing.assert_array_equal(_flat(state), _flat(bp.init(jax.random.key(0), config)))
    assert np.any(_flat(state) != _flat(bp.init(jax.random.key(1), config)))


BAD = {
    "x": (lambda p, b: bp.forward(p, np.zeros((2, 3)), EXAMPLE), r"x must have shape \(n, 2\), got \(2, 3\)"),
    "y": (lambda p, b: bp.step(bp.start(p), (X, np.zeros((1, 3))), config=EXAMPLE), r"y must have shape \(1, 2\)"),
    "y one-dimensional": (lambda p, b: bp.gradient(p, (X, np.zeros(1)), EXAMPLE), r"got \(1,\)"),
    "example weights": (lambda p, b: bp.loss(p, (X, T, np.ones(2)), EXAMPLE), r"\(1,\), got \(2,\)"),
    "params": (lambda p, b: bp.deltas(p, b, bp.Config((2, 3, 2))), r"params has weights .*\(2, 2\)"),
    "epochs": (lambda p, b: bp.train(bp.start(p), b, config=EXAMPLE, epochs=0), "epochs=0"),
    "batch_size": (lambda p, b: bp.train(bp.start(p), b, config=EXAMPLE, epochs=1, batch_size=2), "batch_size=2"),
    "evaluate_at": (
        lambda p, b: bp.train(bp.start(p), b, config=EXAMPLE, epochs=3, evaluate_at=(0, 2)), r"\(0, 2\).*3 updates",
    ),
    "sizes": (lambda p, b: bp.Config((2,)), r"sizes=\(2,\)"),
    "activation": (lambda p, b: bp.Config(hidden="logistik"), "did you mean 'logistic'"),
    "output": (lambda p, b: bp.Config(output="sigmoid"), "activation 'sigmoid' is not one of"),
    "loss": (lambda p, b: bp.Config(loss="half_squared_eror"), "did you mean 'half_squared_error'"),
    "softmax": (lambda p, b: bp.Config(loss="cross_entropy"), "output='logistic' must be 'identity'"),
    "initializer": (lambda p, b: bp.init(jax.random.key(0), bp.Config(initializer="xavier_norml")), "xavier_normal"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_named(name):
    call, words = BAD[name]
    with pytest.raises(ValueError, match=words):
        jax.eval_shape(lambda: call(START, (X, T)))


@pytest.mark.parametrize("size", [None, 1, 4], ids=["batch", "online", "mini-batch with a rest"])
def test_training_weighs_its_examples(size, x64):
    """Six examples by weight: a step has their weighted mean, and weight zero is no example."""
    config = bp.Config((3, 4, 2), "tanh", "identity", "cross_entropy")
    params, (x, y) = _problem(config, n=6)
    weight = np.array([1, 2, 0, 3, 1, 0.5])
    run = jax.jit(lambda data: bp.train(bp.start(params), data, config=config, epochs=1, batch_size=size))
    state, trace = run((x, y, weight))
    expected = params
    for first in range(0, 6, size or 6):
        part = slice(first, first + (size or 6))
        if weight[part].any():
            g = autodiff(expected, (x[part], y[part], weight[part]), config)
            expected = jax.tree.map(lambda w, g: w - 0.1 * g, expected, g)
    np.testing.assert_allclose(_flat(state.params), _flat(expected), atol=1e-13)
    np.testing.assert_allclose(trace.loss[0], bp.loss(params, (x, y, weight), config))
    assert np.abs(_flat(run((x, y))[0].params) - _flat(expected)).max() > 1e-4


@pytest.mark.parametrize("label", [-1, 2])
def test_a_label_that_is_no_class_is_seen_in_loss_and_gradient(label):
    config = bp.Config((3, 2), "tanh", "identity", "cross_entropy")
    params, (x, y) = _problem(config, dtype="float32")
    y[0] = label
    assert np.isnan(bp.loss(params, (x, y), config))
    assert np.isnan(_flat(gradient(params, (x, y), config))).all()
    assert np.isnan(bp.deltas(params, (x, y), config)[0][0]).all()


def test_integer_weights_learn():
    config = bp.Config((2, 1))
    whole = bp.Params((np.array([[1], [0]]),), (np.array([0]),))
    real = jax.tree.map(lambda w: w.astype("float32"), whole)
    batch = np.array([[0.25, 0.5]], "float32"), np.array([[1.0]], "float32")
    (found, _), (expected, _) = (bp.step(bp.start(params), batch, config=config) for params in (whole, real))
    np.testing.assert_array_equal(_flat(found.params), _flat(expected.params))
    np.testing.assert_array_equal(bp.forward(whole, batch[0], config)[-1], bp.forward(real, batch[0], config)[-1])
    assert np.abs(found.params.weights[0][1]) > 0
