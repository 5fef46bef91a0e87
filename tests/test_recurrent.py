"""Recurrent cells: against PyTorch, NumPy written out and automatic differentiation of the plain scan."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from nnjax import recurrent
from nnjax.recurrent import GRUParams, LSTMParams, RNNParams, loops

N, T, D, H = 3, 7, 2, 4
LENGTHS = np.array([7, 3, 5])
GATES = {"rnn": 1, "lstm": 4, "gru": 3, "gru_after": 3}
CELLS = tuple(GATES)
UNOPTIMIZED = {"xla_backend_optimization_level": 0}
jit = partial(jax.jit, compiler_options=UNOPTIMIZED)


@pytest.fixture(scope="module", autouse=True)
def quick(unoptimized):
    """Everything here is small: compiling is what takes the time."""
    with unoptimized():
        yield


def values(seed, *shape, dtype=np.float32):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def weights(cell, dtype=np.float32):
    g = GATES[cell] * H
    w, u, b, c = (0.5 * values(i, *shape, dtype=dtype) for i, shape in enumerate(((D, g), (H, g), (g,), (g,))))
    match cell:
        case "rnn":
            return RNNParams(w, u, b)
        case "lstm":
            return LSTMParams(w, u, b)
        case _:
            return GRUParams(w, u, b, c)


def start(cell, dtype=np.float32):
    h, c = values(11, N, H, dtype=dtype), values(12, N, H, dtype=dtype)
    return (h, c) if cell == "lstm" else h


def sequence(cell):
    return {
        "rnn": recurrent.rnn,
        "lstm": recurrent.lstm,
        "gru": recurrent.gru,
        "gru_after": partial(recurrent.gru, reset_after=True),
    }[cell]


def one_step(cell):
    return {
        "rnn": recurrent.rnn_step,
        "lstm": recurrent.lstm_step,
        "gru": recurrent.gru_step,
        "gru_after": partial(recurrent.gru_step, reset_after=True),
    }[cell]


def plain(cell, params, x, state, lengths=None, reverse=False, truncate=None):
    """A scan over `*_step`, everything left to automatic differentiation."""
    t = x.shape[1]

    def step(state, turn):
        place = t - 1 - turn if reverse else turn
        given = state
        if truncate is not None:
            cut = (turn > 0) & (turn % truncate == 0)
            given = jax.tree.map(lambda s: jnp.where(cut, lax.stop_gradient(s), s), state)
        new = one_step(cell)(params, given, x[:, place])
        h = new[0] if cell == "lstm" else new
        if lengths is not None:
            runs = (place < np.asarray(lengths))[:, None]
            new = jax.tree.map(lambda a, b: jnp.where(runs, a, b), new, state)
            h = jnp.where(runs, h, 0)
        return new, h

    x = jnp.asarray(x)
    state, outputs = lax.scan(step, state, jnp.arange(t))
    return (outputs[::-1] if reverse else outputs).swapaxes(0, 1), state


def scored(function):
    """A loss that every output and every final state touches, and its gradients."""

    def loss(params, x, state):
        y, final = function(params, x, state)
        parts = [y, *jax.tree.leaves(final)]
        total = sum((jnp.sin(part + i) ** 2 * (jnp.arange(part.size).reshape(part.shape) % 5 + 1)).sum()
                    for i, part in enumerate(parts))  # fmt: skip
        return total, (y, final)

    return jax.value_and_grad(loss, (0, 1, 2), has_aux=True)


def assert_near(actual, expected, tolerance=1e-5):
    actual, expected = jax.tree.leaves(actual), jax.tree.leaves(expected)
    assert len(actual) == len(expected)
    for a, b in zip(actual, expected, strict=True):
        assert a.shape == b.shape
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * max(np.abs(b).max(), 1e-3))


# The written-out backward pass against automatic differentiation


OPTIONS = (
    {},
    {"truncate": 2, "lengths": LENGTHS},
    {"lengths": LENGTHS, "reverse": True},
    {"lengths": LENGTHS},
    {"reverse": True},
    {"truncate": 1, "reverse": True},
)


@pytest.mark.parametrize(
    ("cell", "options"), [*[(c, o) for c in CELLS for o in OPTIONS[:3]], *[("lstm", o) for o in OPTIONS[3:]]], ids=str
)
def test_backward_is_autodiff_of_the_plain_loop(cell, options, monkeypatch):
    monkeypatch.setattr(loops, "_ROWS", 2 * N)  # 7 steps are three pieces of 2 and a rest of 1
    loops.run.clear_cache()
    args = weights(cell), values(10, N, T, D), start(cell)
    fast = jit(scored(lambda p, x, s: sequence(cell)(p, x, s, **options)))(*args)
    slow = jit(scored(lambda p, x, s: plain(cell, p, x, s, **options)))(*args)
    loops.run.clear_cache()
    assert_near(fast, slow)


@pytest.mark.parametrize("rows", [1, 2 * N, 3 * N, 100 * N])
def test_pieces_of_any_size_give_the_same(rows, monkeypatch):
    args = weights("lstm"), values(10, N, T, D), start("lstm")
    whole = jit(scored(recurrent.lstm))(*args)
    monkeypatch.setattr(loops, "_ROWS", rows)
    loops.run.clear_cache()
    assert_near(jit(scored(recurrent.lstm))(*args), whole, 1e-6)
    loops.run.clear_cache()


def test_piece_sizes():
    assert loops._piece_size(100, 64) == 10
    assert loops._piece_size(97, 64) == 10  # prime: nine pieces and a rest of seven steps
    assert loops._piece_size(96, 64) == 8
    assert loops._piece_size(5, 64) == 5
    assert loops._piece_size(100, 10_000) == 1
    assert loops._piece_size(3, 0) == 3


def test_second_derivatives():
    params, x, state = weights("gru"), values(10, N, T, D), start("gru")
    direction = values(5, N, T, D)

    def curvature(function):
        def slope(x):
            return jnp.vdot(jax.grad(lambda x: (function(params, x, state)[0] ** 3).sum())(x), direction)

        return jit(jax.grad(slope))(x)

    assert_near(curvature(recurrent.gru), curvature(partial(plain, "gru")))


def test_activations_other_than_tanh():
    args = weights("rnn"), values(10, N, T, D), start("rnn")
    for activation in ("relu", jnp.sin):
        y, _ = recurrent.rnn(*args, activation=activation)
        h = args[2]
        for t in range(T):
            h = recurrent.rnn_step(args[0], h, args[1][:, t], activation)
            np.testing.assert_allclose(y[:, t], h, rtol=1e-5, atol=1e-6)
    assert (recurrent.rnn(*args, activation="relu")[0] >= 0).all()


def test_an_activation_must_not_close_over_what_is_differentiated():
    args = weights("rnn"), values(10, N, T, D)
    scale = jnp.float32(0.5)
    y, _ = recurrent.rnn(*args, activation=lambda z: jnp.tanh(scale * z))
    assert y.shape == (N, T, H)
    with pytest.raises(Exception, match="closed-over value"):
        jax.grad(lambda a: recurrent.rnn(*args, activation=lambda z: jnp.tanh(a * z))[0].sum())(1.0)


# Equations


def test_two_step_rnn_unrolled_equals_scanned():
    """Two steps of five units on a batch of 4 x 3, written out (after Géron, 2017, chapter 14)."""
    first = np.array([[0, 1, 2], [3, 4, 5], [6, 7, 8], [9, 0, 1]], np.float32)
    second = np.array([[9, 8, 7], [0, 0, 0], [6, 5, 4], [3, 2, 1]], np.float32)
    w, u, b = values(0, 3, 5), values(1, 5, 5), values(2, 5)
    y0 = np.tanh(first @ w + b)
    y1 = np.tanh(y0 @ u + second @ w + b)
    y, final = recurrent.rnn(RNNParams(w, u, b), np.stack([first, second], 1))
    np.testing.assert_allclose(y, np.stack([y0, y1], 1), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(final, y[:, 1])
    assert (np.abs(y0 - y1) > 0.1).any()


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def test_gru_with_reset_before_is_the_textbook_cell():
    p, x, h = weights("gru", np.float64), values(10, N, T, D, dtype=np.float64), start("gru", np.float64)
    (w_r, w_z, w_g), (u_r, u_z, u_g), (b_r, b_z, b_g) = (np.split(part, 3, -1) for part in p[:3])
    expected = []
    for t in range(T):
        r = sigmoid(x[:, t] @ w_r + h @ u_r + b_r)
        z = sigmoid(x[:, t] @ w_z + h @ u_z + b_z)
        g = np.tanh(x[:, t] @ w_g + (r * h) @ u_g + b_g)
        h = (1 - z) * h + z * g
        expected.append(h)
    y, final = recurrent.gru(*jax.tree.map(np.float32, (p, x, start("gru", np.float64))))
    np.testing.assert_allclose(y, np.stack(expected, 1), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(final, h, rtol=1e-5, atol=1e-6)
    other, _ = recurrent.gru(*jax.tree.map(np.float32, (p, x, start("gru", np.float64))), reset_after=True)
    assert not np.allclose(other, y, atol=1e-2)


def _torch_weights(torch, cell, params):
    """Ours as PyTorch's: the z columns of a GRU with the other sign."""
    sign = np.ones(GATES[cell] * H, np.float32)
    if cell == "gru_after":
        sign[H : 2 * H] = -1
    own = {"weight_ih_l0": (params.w * sign).T, "weight_hh_l0": (params.u * sign).T, "bias_ih_l0": params.b * sign}
    own["bias_hh_l0"] = params.c * sign if cell == "gru_after" else np.zeros_like(params.b)
    return {name: torch.tensor(np.ascontiguousarray(value)) for name, value in own.items()}, sign


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru_after"])
def test_against_torch(cell, packed):
    torch = pytest.importorskip("torch")
    params, x, state = weights(cell), values(10, N, T, D), start(cell)
    net = {"rnn": torch.nn.RNN, "lstm": torch.nn.LSTM, "gru_after": torch.nn.GRU}[cell](D, H, batch_first=True)
    own, sign = _torch_weights(torch, cell, params)
    net.load_state_dict(own)
    xs = torch.tensor(x, requires_grad=True)
    states = [torch.tensor(s[None], requires_grad=True) for s in jax.tree.leaves(state)]
    given = tuple(states) if cell == "lstm" else states[0]
    if packed:
        pack = torch.nn.utils.rnn.pack_padded_sequence(xs, LENGTHS, batch_first=True, enforce_sorted=False)
        out, final = net(pack, given)
        out, _ = torch.nn.utils.rnn.pad_packed_sequence(out, batch_first=True, total_length=T)
    else:
        out, final = net(xs, given)
    finals = list(final) if cell == "lstm" else [final]
    parts = [out, *[f[0] for f in finals]]
    total = sum((torch.sin(part + i) ** 2 * (torch.arange(part.numel()).reshape(part.shape) % 5 + 1)).sum()
                for i, part in enumerate(parts))  # fmt: skip
    total.backward()

    options = {"lengths": LENGTHS} if packed else {}
    run = jit(scored(lambda p, x, s: sequence(cell)(p, x, s, **options)))
    (_, found), (dp, dx, ds) = run(params, x, state)
    assert_near(found, (out.detach().numpy(), [f[0].detach().numpy() for f in finals]))
    grads = {name: p.grad.numpy() for name, p in net.named_parameters()}
    assert_near((dp.w, dp.u, dp.b), (grads["weight_ih_l0"].T * sign, grads["weight_hh_l0"].T * sign,
                                     grads["bias_ih_l0"] * sign))  # fmt: skip
    if cell == "gru_after":
        assert_near(dp.c, grads["bias_hh_l0"] * sign)
    assert_near((dx, ds), (xs.grad.numpy(), [s.grad[0].numpy() for s in states]))


def test_truncation_is_what_detaching_gives_in_torch():
    torch = pytest.importorskip("torch")
    k, params, x = 3, weights("lstm"), values(10, N, T, D)
    net = torch.nn.LSTM(D, H, batch_first=True)
    net.load_state_dict(_torch_weights(torch, "lstm", params)[0])
    state, total = None, 0
    for begin in range(0, T, k):
        y, state = net(torch.tensor(x[:, begin : begin + k]), state)
        total = total + (y**2).sum()
        state = tuple(part.detach() for part in state)
    total.backward()
    grads = {name: p.grad.numpy() for name, p in net.named_parameters()}

    def gradient(truncate):
        return jit(jax.grad(lambda p: (recurrent.lstm(p, x, truncate=truncate)[0] ** 2).sum()))(params)

    expected = LSTMParams(grads["weight_ih_l0"].T, grads["weight_hh_l0"].T, grads["bias_ih_l0"])
    assert_near(gradient(k), expected)
    assert not np.allclose(gradient(None).u, expected.u, rtol=1e-2)
    assert_near(gradient(T), gradient(None), 1e-7)


# Lengths


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("reverse", [False, True])
def test_a_padded_sequence_is_the_short_one_alone(cell, reverse):
    params, state = weights(cell), start(cell)
    x = values(10, N, T, D)
    x[1, 3:], x[2, 5:] = np.nan, np.nan  # whatever stands there is not looked at

    def run(params, x, state):
        return sequence(cell)(params, x, state, LENGTHS, reverse=reverse)

    (_, (y, final)), grads = jit(scored(run))(params, x, state)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))
    for i, length in enumerate(LENGTHS):
        alone = jax.tree.map(lambda s, i=i: s[i : i + 1], state)
        short, end = plain(cell, params, x[i : i + 1, :length], alone, reverse=reverse)
        np.testing.assert_allclose(y[i, :length], short[0], rtol=1e-5, atol=1e-6)
        assert not np.asarray(y[i, length:]).any()
        jax.tree.map(lambda a, b, i=i: np.testing.assert_allclose(a[i], b[0], rtol=1e-5, atol=1e-6), final, end)


def test_a_sequence_without_steps_keeps_its_state():
    y, final = recurrent.gru(weights("gru"), values(10, N, T, D), start("gru"), np.array([0, 1, 7]))
    np.testing.assert_array_equal(final[0], start("gru")[0])
    assert not np.asarray(y[0]).any()
    np.testing.assert_array_equal(recurrent.last(y, np.array([0, 1, 7])), [np.zeros(H), y[1, 0], y[2, 6]])
    np.testing.assert_array_equal(recurrent.last(y), y[:, -1])


def test_sequence_mask():
    mask = recurrent.sequence_mask(np.array([0, 2, 3]), 3)
    np.testing.assert_array_equal(mask, [[False] * 3, [True, True, False], [True] * 3])


# Transformations and dtypes


@pytest.mark.parametrize("cell", CELLS)
def test_compiles_once_and_maps(cell):
    traces = []

    def counted(params, x, state, lengths):
        traces.append(1)
        return scored(lambda p, x, s: sequence(cell)(p, x, s, lengths))(params, x, state)

    program = jit(counted)
    args = weights(cell), values(10, N, T, D), start(cell), LENGTHS
    other = jax.tree.map(lambda a: a[::-1].copy(), args)
    one, two = program(*args), program(*other)
    assert len(traces) == 1
    lanes = jit(jax.vmap(counted))(*jax.tree.map(lambda a, b: np.stack([a, b]), args, other))
    assert_near(lanes, jax.tree.map(lambda a, b: np.stack([a, b]), one, two))


def test_without_jit_it_compiles_once():
    args = weights("rnn"), values(10, N, T, D)
    recurrent.rnn(*args)
    before = loops.run._cache_size()
    recurrent.rnn(*args)
    recurrent.rnn(*args, activation="tanh")
    assert loops.run._cache_size() == before


@pytest.mark.parametrize("cell", CELLS)
def test_float64(cell):
    with jax.enable_x64(True):
        args = jax.tree.map(jnp.float64, (weights(cell), values(10, N, T, D), start(cell)))
        fast = jit(scored(partial(sequence(cell), lengths=LENGTHS)))(*args)
        assert {leaf.dtype for leaf in jax.tree.leaves(fast)} == {np.dtype(np.float64)}
        assert_near(fast, jit(scored(partial(plain, cell, lengths=LENGTHS)))(*args), 1e-13)


@pytest.mark.parametrize("cell", CELLS)
def test_bfloat16(cell):
    args = weights(cell), values(10, N, T, D), start(cell)
    low = jax.tree.map(lambda a: jnp.asarray(a, jnp.bfloat16), args)
    (_, (y, _)), grads = jit(scored(sequence(cell)))(*low)
    assert {leaf.dtype for leaf in jax.tree.leaves((y, grads))} == {jnp.dtype(jnp.bfloat16)}
    (_, (wide, _)), exact = jit(scored(sequence(cell)))(*args)
    assert_near(y, wide, 0.05)
    assert_near(grads, exact, 0.1)


def test_a_training_loop_is_one_scan():
    """The adding problem (Hochreiter and Schmidhuber, 1997), short, inside `lax.scan`."""
    key = jax.random.key(0)
    params = (weights("lstm"), values(3, H))

    def batch(key):
        a, b = jax.random.split(key)
        number = jax.random.uniform(a, (32, 6))
        marks = jnp.zeros((32, 6)).at[:, 0].set(1.0).at[jnp.arange(32), jax.random.randint(b, (32,), 1, 6)].set(1.0)
        return jnp.stack([number, marks], -1), (number * marks).sum(1)

    def loss(params, x, y):
        return ((recurrent.last(recurrent.lstm(params[0], x)[0]) @ params[1] - y) ** 2).mean()

    def step(params, key):
        value, grad = jax.value_and_grad(loss)(params, *batch(key))
        return jax.tree.map(lambda p, g: p - 0.1 * g, params, grad), value

    found = jax.jit(lambda p: lax.scan(step, p, jax.random.split(key, 1500))[1])(params)
    assert found[:100].mean() > 0.1
    assert found[-100:].mean() < 0.02  # a constant leaves 0.16


def test_inside_shard_map():
    """Examples over two devices: the gradient of the weights is the sum over both."""
    from jax.sharding import PartitionSpec

    mesh = jax.make_mesh((2,), ("n",), axis_types=(jax.sharding.AxisType.Auto,))
    params, x = weights("lstm"), values(10, 4, T, D)

    def gradient(params, x):
        return jax.grad(lambda p: (recurrent.lstm(p, x)[0] ** 2).sum())(params)

    whole = jit(gradient)(params, x)
    split = jax.shard_map(
        gradient, mesh=mesh, in_specs=(PartitionSpec(), PartitionSpec("n")), out_specs=PartitionSpec()
    )
    assert_near(jit(split)(params, x), whole)


# What is given


def test_integers_become_floats():
    y, _ = recurrent.rnn(weights("rnn"), np.ones((N, T, D), int))
    assert y.dtype == np.float32
    np.testing.assert_array_equal(y, recurrent.rnn(weights("rnn"), np.ones((N, T, D), np.float32))[0])


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"x": values(0, N, T)}, r"x has shape \(3, 7\); it must be \(n, t, d\)"),
        ({"x": values(0, N, 0, D)}, r"x has shape \(3, 0, 2\); a sequence needs at least one step"),
        ({"x": values(0, N, T, 5)}, "x has 5 features a step, and these weights are for 2"),
        ({"params": weights("gru")}, r"LSTMParams"),
        ({"initial": values(0, N, H)}, r"initial has shape \(3, 4\); it must be a pair \(h, c\) of \(3, 4\)"),
        (
            {"initial": (values(0, 1, H), values(0, N, H))},
            r"initial has shape \[\(1, 4\), \(3, 4\)\]; it must be a pair",
        ),
        ({"lengths": np.array([7, 8, 1])}, "lengths run from 1 to 8; they must lie between 0 and the 7 steps of x"),
        ({"lengths": np.array([7, -1, 1])}, "lengths run from -1 to 7; they must lie between 0 and the 7 steps of x"),
        ({"lengths": np.array([7, 7])}, r"lengths has shape \(2,\) and dtype int64; it must be \(3,\) integers"),
        ({"lengths": np.ones(N)}, r"lengths has shape \(3,\) and dtype float64; it must be \(3,\) integers"),
        ({"truncate": 0}, "truncate=0 must be a whole number of steps, at least 1, or None"),
    ],
    ids=str,
)
def test_bad_input(change, sentence):
    args = {"params": weights("lstm"), "x": values(10, N, T, D)} | change
    if isinstance(args["params"], GRUParams):
        args["params"] = LSTMParams(*args["params"][:3])
    with pytest.raises(ValueError, match=sentence) as caught:
        recurrent.lstm(**args)
    assert "\n" not in str(caught.value)


def test_an_unknown_activation():
    with pytest.raises(ValueError, match=r"'tanhh' is not one of .*; did you mean 'tanh'"):
        recurrent.rnn(weights("rnn"), values(0, N, T, D), activation="tanhh")
    with pytest.raises(ValueError, match="activation=3 must be a function or a name"):
        recurrent.rnn_step(weights("rnn"), start("rnn"), values(0, N, D), activation=3)
