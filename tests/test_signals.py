"""Signals and gradients of every layer, against formulas written out and against other ways to the same number."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnjax import activations, losses, models
from nnjax.models import watch
from nnjax.models.signals import STATISTICS

KEY = jax.random.key(0)
N, CLASSES = 10, 4
Y = np.arange(N) % CLASSES
VECTORS = jax.random.normal(jax.random.key(1), (N, 6))
IMAGES = jax.random.normal(jax.random.key(2), (N, 8, 8, 3))

jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def start(model, x):
    """Parameters and statistics like those of a fresh net, but of no special kind; no program is compiled for them."""
    rng = np.random.default_rng(3)

    def draw(path, leaf):
        z = rng.normal(size=leaf.shape).astype(np.float32)
        if path[-1].key in ("kernel", "embedding"):
            return jnp.asarray(
                z * np.sqrt(np.float32(2 / np.prod(leaf.shape[-4:-1] if z.ndim > 3 else leaf.shape[-2])))
            )
        return jnp.asarray(0.1 * z + np.float32(path[-1].key in ("scale", "var")))

    return jax.tree_util.tree_map_with_path(draw, jax.eval_shape(partial(models.init, model), KEY, x))


def mean_loss(outputs):
    return losses.cross_entropy(outputs, Y).mean()


def record(model, params, stats, x, **kw):
    return jit(lambda params: models.layer_signals(model, params, stats, x, mean_loss, **kw))(params)


def statistics(model, params, stats, x, **kw):
    run = partial(
        models.layer_statistics, model, activation=kw.pop("activation", None), loss=losses.cross_entropy, **kw
    )
    return jit(lambda params: run(params, stats, x, Y))(params)


# A net of two layers, by hand


def by_hand(params, zeros, x, activation):
    z1 = x @ params["Dense_0"]["kernel"] + params["Dense_0"]["bias"][None] + zeros[0]
    z2 = activation(z1) @ params["Dense_1"]["kernel"] + params["Dense_1"]["bias"][None] + zeros[1]
    return mean_loss(z2), (z1, z2)


def cosines(z):
    """All pairs, one by one."""
    z = np.asarray(z, float).reshape(len(z), -1)
    pairs = [(a, b) for i, a in enumerate(z) for b in z[:i] if a.any() and b.any()]
    return np.mean([a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in pairs]) if pairs else np.nan


def formulas(z, delta, kernel_gradient):
    """What the statistics of a layer are, in float64."""
    z, delta = np.asarray(z, float), np.asarray(delta, float)
    return {
        "mean": z.mean(),
        "variance": z.var(),
        "length": (z**2).mean(),
        "gradient_norm": np.sqrt((np.asarray(kernel_gradient, float) ** 2).sum()),
        "delta_rms": np.sqrt((delta**2).mean()),
        "correlation": cosines(z),
    }


@pytest.mark.parametrize("name", ["tanh", pytest.param("relu", marks=pytest.mark.slow)])
def test_two_layers_by_hand(name):
    model, activation = models.MLP((5,), classes=CLASSES, activation=name), activations.by_name(name)
    params = start(model, 3 * VECTORS)[0]
    zeros = [jnp.zeros((N, 5)), jnp.zeros((N, CLASSES))]
    value, (z1, z2) = by_hand(params, zeros, 3 * VECTORS, activation)
    gradients, deltas = jit(jax.grad(by_hand, (0, 1), has_aux=True), static_argnums=3)(
        params, zeros, 3 * VECTORS, activation
    )[0]
    found = record(model, params, {}, 3 * VECTORS)
    assert found.names == ("Dense_0", "Dense_1")
    np.testing.assert_allclose(found.loss, value, rtol=1e-6)
    close = partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
    close(found.inputs["Dense_0"], 3 * VECTORS)
    close(found.inputs["Dense_1"], activation(z1))
    close(found.outputs["Dense_0"], z1)
    close(found.outputs["Dense_1"], z2)
    for layer, delta in zip(found.names, deltas, strict=True):
        close(found.deltas[layer], N * delta)
        jax.tree.map(close, found.gradients[layer], gradients[layer])
    close(found.deltas["Dense_1"], jax.nn.softmax(z2) - np.eye(CLASSES, dtype=np.float32)[Y])  # each example's own
    threshold = {"tanh": 0.05, "relu": 0.2}[name]
    made = statistics(model, params, {}, 3 * VECTORS, threshold=threshold)
    for place, z in enumerate((z1, z2)):
        layer = found.names[place]
        for what, value in formulas(z, N * deltas[place], gradients[layer]["kernel"]).items():
            close(getattr(made, what)[place], value, err_msg=what)
    slope = {"tanh": 1 - np.tanh(z1) ** 2, "relu": z1 > 0}[name]
    close(made.saturated, [(slope < threshold).mean(), np.nan])
    assert 0 < made.saturated[0] < 1
    close(made.dead, [0, np.nan])


def test_dead_units():
    """One unit never on, one always, one that is zero with a slope, one that is flat without being zero."""
    bias = jnp.asarray([-50.0, 50.0, 0.0, 0.0])
    params = {"Dense_0": {"kernel": jnp.zeros((6, 4)).at[:, 3].set(1.0), "bias": bias}}
    params["Dense_1"] = {"kernel": jnp.ones((4, CLASSES)), "bias": jnp.zeros(CLASSES)}
    for name, dead in (("relu", 2), ("tanh", 3), ("logistic", 1)):
        model = models.MLP((4,), classes=CLASSES, activation=name)
        # tanh is flat at -50 and 50, logistic at 50 alone, where it is 1; at -50 its slope is 2e-22.
        made = statistics(model, params, {}, VECTORS)
        np.testing.assert_allclose(made.dead, [dead / 4, np.nan], err_msg=name)


def test_dead_channels_are_dead_in_every_pixel():
    model = models.DeepCNN(depth=2, width=3, classes=CLASSES)
    params = start(model, IMAGES)[0]
    first = {"kernel": params["first"]["kernel"].at[..., :2].set(0), "bias": jnp.asarray([-1.0, 1.0, 0.0])}
    made = statistics(model, {**params, "first": first}, {}, IMAGES)
    np.testing.assert_allclose(made.dead[0], 1 / 3)
    assert made.saturated[0] > 1 / 3


# Other nets: every layer's arrays against the layer itself


class Recurrent(nn.Module):
    """A classifier by the last output of a loop of LSTM cells."""

    @nn.compact
    def __call__(self, x):
        return nn.Dense(CLASSES)(nn.RNN(nn.OptimizedLSTMCell(5))(x)[:, -1])


class Tokens(nn.Module):
    """An embedding, and a recurrent cell called by itself."""

    @nn.compact
    def __call__(self, x):
        x = nn.Embed(7, 5)(x)
        cell = nn.LSTMCell(4)
        carry = cell.initialize_carry(jax.random.key(0), x[:, 0].shape)
        return nn.Dense(CLASSES)(cell(carry, x[:, 0])[1])


class Pair(nn.Module):
    """Two layers for a loop; called first what comes second in the alphabet."""

    @nn.compact
    def __call__(self, x):
        x = nn.Dense(5, name="b")(x)
        return nn.Dense(5, name="a")(nn.relu(x)), None


class Silent(nn.Module):
    """A loop that does not pass on what is recorded."""

    @nn.compact
    def __call__(self, x):
        return nn.scan(Pair, variable_axes={"params": 0}, split_rngs={"params": True}, length=3)(name="loop")(x)[0]


class Loops(nn.Module):
    """A shared layer, a loop that shows its layers and one that does not, a rematerialized layer."""

    @nn.compact
    def __call__(self, x):
        shared = nn.Dense(6)
        x = nn.Dense(5)(shared(jnp.tanh(shared(x))))
        shown = dict.fromkeys(("params", *watch.COLLECTIONS), 0)
        loop = nn.scan(Pair, variable_axes=shown, split_rngs={"params": True}, length=3)
        x = Silent(name="hidden")(loop(name="shown")(x)[0])
        return nn.Dense(CLASSES)(nn.remat(nn.Dense)(5, name="again")(x))


NETS = {
    "MLP": (
        models.MLP((7, 5), classes=CLASSES, activation="tanh", normalize="before", dropout=0.3), VECTORS,
        ("Dense_0", "Dense_1", "Dense_2"), {"train": True, "key": KEY},
    ),
    "SmallCNN": (
        models.SmallCNN(2, CLASSES), IMAGES, ("Conv_0", "Conv_1", "Conv_2", "Conv_3", "Dense_0"), {"train": True}
    ),
    "ResNet18k": (
        models.ResNet18k(2, CLASSES, blocks=(1, 1)), IMAGES,
        ("Conv_0", *(f"PreActivationBlock_{i}" for i in ("0/Conv_0", "0/Conv_1", "1/Conv_0", "1/Conv_1", "1/Conv_2")),
         "Dense_0"), {"train": False},
    ),
    "DeepMLP": (
        models.DeepMLP(4, 5, CLASSES, residual=True), VECTORS,
        ("first", "hidden/0", "hidden/1", "hidden/2", "logits"), {},
    ),
    "DeepCNN": (
        models.DeepCNN(3, 4, CLASSES, activation="tanh"), IMAGES, ("first", "hidden/0", "hidden/1", "logits"), {}
    ),
    "Recurrent": (Recurrent(), IMAGES[..., 0], ("RNN_0", "Dense_0"), {}),
    "Tokens": (Tokens(), np.arange(2 * N).reshape(N, 2) % 7, ("Embed_0", "LSTMCell_0", "Dense_0"), {}),
    "Loops": (
        Loops(), VECTORS,
        ("Dense_0", "Dense_0#2", "Dense_1", "shown/b/0", "shown/a/0", "shown/b/1", "shown/a/1", "shown/b/2",
         "shown/a/2", "hidden", "again", "Dense_2"), {},
    ),
}  # fmt: skip


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(name, marks=pytest.mark.slow if name in ("ResNet18k", "SmallCNN", "MLP") else ()) for name in NETS
    ],
)
def net(request):
    """A net, its parameters, statistics and inputs, how it is called, and its signals."""
    model, x, names, kw = NETS[request.param]
    params, stats = start(model, x)
    return model, params, stats, x, names, kw, record(model, params, stats, x, **kw)


def test_the_layers_come_in_the_order_of_their_calls(net):
    *_, names, _, found = net
    assert found.names == names
    for kept in (found.inputs, found.outputs, found.deltas, found.gradients):
        assert set(kept) == set(names)
    for name in names:
        assert found.inputs[name].shape[0] == found.outputs[name].shape[0] == N
        assert found.outputs[name].shape == found.deltas[name].shape


def test_watching_changes_nothing(net):
    model, params, stats, x, _, kw, found = net
    value, gradients = jit(
        jax.value_and_grad(lambda params: mean_loss(models.apply(model, params, stats, x, **kw)[0]))
    )(params)
    np.testing.assert_allclose(found.loss, value, rtol=1e-6)
    for name, made in found.gradients.items():
        if isinstance(model, Recurrent | Tokens) and name not in params:
            continue  # a cell has a test of its own
        path, _, turn = name.split("#")[0].rpartition("/")
        stacked = turn.isdigit()
        tree = watch.at(gradients, tuple((path if stacked else name.split("#")[0]).split("/")))
        if name == "hidden":
            assert set(made) == {"hidden/loop/a", "hidden/loop/b"}
            made = {key.split("/")[2]: leaf for key, leaf in made.items()}
        for a, b in zip(jax.tree.leaves(made), jax.tree.leaves(tree), strict=True):
            np.testing.assert_allclose(a, b[int(turn)] if stacked else b, rtol=1e-4, atol=1e-6)


def layer_again(layer, params, given):
    """A dense layer or a convolution by itself; none for the rest."""
    kernel, bias = params["kernel"], params.get("bias")
    if kernel.ndim == 2:
        y = given @ kernel
    else:
        strides = (given.shape[1] // layer.shape[1],) * 2
        padding = ((kernel.shape[0] // 2,) * 2,) * 2
        y = jax.lax.conv_general_dilated(given, kernel, strides, padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))
    return y if bias is None else y + bias


def test_every_layers_arrays_fit_together(net):
    """Its output is the layer of its input; its parameters' gradient is the layer's of its delta."""
    model, params, _, _, names, _, found = net
    with jax.numpy_rank_promotion("allow"):
        for name in names:
            path = name.split("#")[0].split("/")
            turn = int(path.pop()) if path[-1].isdigit() else None
            own = watch.at(params, tuple(path))
            if "kernel" not in own:
                continue
            own = own if turn is None else jax.tree.map(lambda leaf, turn=turn: leaf[turn], own)
            y, pull = jax.vjp(lambda own, name=name: layer_again(found.outputs[name], own, found.inputs[name]), own)
            np.testing.assert_allclose(found.outputs[name], y, rtol=1e-4, atol=1e-5)
            (gradient,) = pull(found.deltas[name] / N)
            if isinstance(model, Loops) and path == ["Dense_0"]:
                continue  # the sum of two calls, tested by itself
            jax.tree.map(
                partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-5), dict(found.gradients[name]), dict(gradient)
            )


def test_statistics_are_the_formulas_of_the_signals(net):
    model, params, stats, x, names, kw, found = net
    made = statistics(model, params, stats, x, **kw)
    assert made.names == names
    for place, name in enumerate(names):
        kernels = [
            np.asarray(leaf).ravel()
            for path, leaf in jax.tree_util.tree_leaves_with_path(found.gradients[name])
            if path[-1].key != "bias"
        ]
        expected = formulas(found.outputs[name], found.deltas[name], np.concatenate(kernels))
        for what, value in expected.items():
            np.testing.assert_allclose(
                getattr(made, what)[place], value, rtol=1e-4, atol=1e-6, err_msg=f"{name} {what}"
            )
    if getattr(model, "activation", None) is None:
        assert np.isnan([made.saturated, made.dead]).all()


# What the generic checks leave out


def test_the_calls_of_a_shared_layer_add_up():
    model, x, *_ = NETS["Loops"]
    params = start(model, x)[0]
    found = record(model, params, {}, x)
    parts = [found.inputs[name].T @ found.deltas[name] / N for name in ("Dense_0", "Dense_0#2")]
    np.testing.assert_allclose(found.gradients["Dense_0"]["kernel"], sum(parts), rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(found.gradients["Dense_0"]["kernel"], found.gradients["Dense_0#2"]["kernel"])
    assert np.abs(parts[0] - parts[1]).max() > 0.5 * np.abs(parts[0]).max()  # two deltas, not one twice


def test_a_recurrent_layer_is_one():
    model, x, *_ = NETS["Recurrent"]
    params = start(model, x)[0]
    found = record(model, params, {}, x)
    assert found.outputs["RNN_0"].shape == (N, 8, 5)
    np.testing.assert_allclose(found.outputs["RNN_0"][:, -1], found.inputs["Dense_0"])
    np.testing.assert_array_equal(found.deltas["RNN_0"][:, :-1], 0)
    last = found.deltas["Dense_0"] @ params["Dense_0"]["kernel"].T
    np.testing.assert_allclose(found.deltas["RNN_0"][:, -1], last, rtol=1e-5, atol=1e-7)
    gradients = jit(jax.grad(lambda params: mean_loss(models.apply(model, params, {}, x)[0])))(params)
    cell = gradients["OptimizedLSTMCell_0"]
    assert {f"OptimizedLSTMCell_0/{name}" for name in cell} == set(found.gradients["RNN_0"])
    for name, leaves in cell.items():
        for part, leaf in leaves.items():
            made = found.gradients["RNN_0"][f"OptimizedLSTMCell_0/{name}"][part]
            np.testing.assert_allclose(made, leaf, rtol=1e-4, atol=1e-7)


class Steps(nn.Module):
    """Three steps of a recurrent cell, one after the other, and what is made of the last carry (GRU) or output."""

    cell: nn.Module

    @nn.compact
    def __call__(self, x, shifts=None):
        gated = isinstance(self.cell, nn.GRUCell)
        carry = self.cell.initialize_carry(KEY, (N, 2))
        for step in range(3):
            carry, y = self.cell(carry, x[:, 2 * step : 2 * step + 2])
            if shifts is not None:
                y = y + shifts[step]
                carry = y if gated else (carry[0], y)
        return nn.Dense(CLASSES)(carry if gated else y)


@pytest.mark.parametrize("cell", [nn.GRUCell(4), nn.OptimizedLSTMCell(4)], ids=["GRU", "LSTM"])
def test_a_cell_step_by_step_has_the_gradients_of_its_carry(cell):
    """A GRU's carry is its output. Of an LSTM's, h is, whose gradient leaves out the way through c."""
    model, shifts = Steps(cell), jnp.zeros((3, N, 4))
    params = start(model, VECTORS)[0]
    found = record(model, params, {}, VECTORS)
    assert found.names == ("cell", "cell#2", "cell#3", "Dense_0")
    run = lambda shifts: mean_loss(model.apply({"params": params}, VECTORS, shifts))  # noqa: E731
    deltas = N * jit(jax.grad(run))(shifts)
    for name, delta in zip(found.names[:3], deltas, strict=True):
        np.testing.assert_allclose(found.deltas[name], delta, rtol=1e-4, atol=1e-6)
        assert np.abs(delta).max() > 1e-3


class Layers(nn.Module):
    """Two layers, as one thing for a loop."""

    one: nn.Module
    two: nn.Module


class Turns(nn.Module):
    """A loop whose body calls one layer twice and another once, run twice."""

    @nn.compact
    def __call__(self, x):
        def step(layers, x, _):
            return jnp.tanh(layers.one(layers.two(jnp.tanh(layers.one(x))))), None

        shown = dict.fromkeys(("params", *watch.COLLECTIONS), 0)
        layers = Layers(nn.Dense(6, name="one"), nn.Dense(6, name="two"))
        loop = nn.scan(step, variable_axes=shown, split_rngs={"params": True}, length=3)
        x = loop(layers, loop(layers, x, None)[0], None)[0]
        return nn.Dense(CLASSES)(x)


def test_turns_of_a_loop_come_in_the_order_of_their_calls():
    made = record(Turns(), start(Turns(), VECTORS)[0], {}, VECTORS)
    first = [f"{name}/{turn}" for turn in range(3) for name in ("one", "two", "one#2")]
    second = [f"{name}/{turn}" for turn in range(3) for name in ("one#3", "two#2", "one#4")]
    assert made.names == (*first, *second, "Dense_0")
    for before, after in zip(made.names[:2], made.names[1:3], strict=True):
        given = jnp.tanh(made.outputs[before]) if before == "one/0" else made.outputs[before]
        np.testing.assert_allclose(made.inputs[after], given, rtol=1e-6)


class Heads(nn.Module):
    """Two outputs of one shape."""

    @nn.compact
    def __call__(self, x):
        x = nn.Dense(5)(x)
        return nn.Dense(CLASSES)(x), nn.Dense(CLASSES)(x)


def test_several_outputs_reach_the_loss_as_they_are():
    params = start(Heads(), VECTORS)[0]
    seen = []

    def loss(outputs):
        seen.append(type(outputs))
        return mean_loss(outputs[0]) + jnp.square(outputs[1]).mean()

    found = jit(lambda params: models.layer_signals(Heads(), params, {}, VECTORS, loss))(params)
    assert set(seen) == {tuple}
    second = found.outputs["Dense_2"]
    np.testing.assert_allclose(found.deltas["Dense_2"], 2 * N * second / second.size, rtol=1e-5)
    with pytest.raises(ValueError, match=r"outputs \(\(10, 4\), \(10, 4\)\); it must return a scalar"):
        models.layer_signals(Heads(), params, {}, VECTORS, lambda outputs: outputs[0])


class Normed(nn.Module):
    """Two layers with a normalization each, or with one that both use."""

    shared: bool

    @nn.compact
    def __call__(self, x):
        first = nn.LayerNorm(name="first_norm")
        second = first if self.shared else nn.LayerNorm(name="second_norm")
        x = jnp.tanh(first(nn.Dense(6)(x)))
        x = jnp.tanh(second(nn.Dense(6)(x)))
        return nn.Dense(CLASSES)(x)


def test_layers_that_share_a_normalization_are_judged_one_by_one():
    params = start(Normed(True), VECTORS)[0]
    options = {"activation": "tanh", "threshold": 0.3}
    shared = statistics(Normed(True), params, {}, VECTORS, **options)
    own = statistics(Normed(False), {**params, "second_norm": params["first_norm"]}, {}, VECTORS, **options)
    np.testing.assert_array_equal(shared.saturated, own.saturated)
    assert own.saturated[0] != own.saturated[1]


class Unrolled(nn.Module):
    """A DeepMLP without its loop."""

    depth: int
    width: int

    @nn.compact
    def __call__(self, x):
        for _ in range(self.depth):
            x = nn.relu(nn.Dense(self.width)(x))
        return nn.Dense(CLASSES)(x)


def test_a_loop_has_the_statistics_of_the_layers_one_by_one():
    model = models.DeepMLP(depth=4, width=8, classes=CLASSES)
    params = start(model, VECTORS)[0]
    layers = [params["first"], *(jax.tree.map(lambda leaf, i=i: leaf[i], params["hidden"]) for i in range(3))]
    plain = {f"Dense_{i}": layer for i, layer in enumerate([*layers, params["logits"]])}
    looped = statistics(model, params, {}, VECTORS)
    unrolled = statistics(Unrolled(4, 8), plain, {}, VECTORS, activation="relu")
    for name in STATISTICS:
        np.testing.assert_allclose(getattr(looped, name), getattr(unrolled, name), rtol=1e-4, atol=1e-6, err_msg=name)
    in_use = statistics(model.clone(alive=2), params, {}, VECTORS)
    assert in_use.names == looped.names
    shallow = {**params, "hidden": jax.tree.map(lambda leaf: leaf[:1], params["hidden"])}
    short = statistics(model.clone(depth=2), shallow, {}, VECTORS)
    for name in STATISTICS:
        made = np.asarray(getattr(in_use, name))[[0, 1, 4]]
        np.testing.assert_allclose(made, getattr(short, name), rtol=1e-4, atol=1e-6, err_msg=name)
    np.testing.assert_array_equal(in_use.gradient_norm[2:4], 0)
    np.testing.assert_array_equal(in_use.delta_rms[2:4], 0)


def test_units_are_judged_behind_the_normalization():
    model = models.DeepMLP(depth=2, width=5, classes=CLASSES, activation="tanh", normalize="before")
    params, stats = start(model, VECTORS)
    x = VECTORS
    norms = [{part: 3 * leaf for part, leaf in params[name].items()} for name in ("first_norm", "hidden_norm")]
    params = {**params, "first_norm": norms[0], "hidden_norm": norms[1]}
    made = statistics(model, params, stats, VECTORS, train=True)
    for place, name in enumerate(("first", "hidden")):
        kernel, scale, bias = (
            np.asarray(leaf).reshape(leaf.shape[-2:] if part == "kernel" else (1, 5))
            for part, leaf in (("kernel", params[name]["kernel"]), *sorted(norms[place].items(), reverse=True))
        )
        z = x @ kernel
        np.testing.assert_allclose(made.variance[place], z.var(), rtol=1e-5)
        z = (z - z.mean(0)[None]) / np.sqrt(z.var(0) + 1e-5)[None] * scale + bias
        x = np.tanh(z)
        np.testing.assert_allclose(made.saturated[place], (1 - x**2 < 0.05).mean(), rtol=1e-6)
        assert made.saturated[place] > 0.2


# Extremes


def test_the_smallest_and_largest_signals():
    """Directions and root mean squares come through where the squares would not."""
    model = models.MLP((5,), classes=CLASSES, activation="identity")
    params = start(model, VECTORS)[0]
    whole = statistics(model, params, {}, VECTORS)
    tiny = {**params, "Dense_1": jax.tree.map(lambda leaf: 1e-25 * leaf, params["Dense_1"])}
    made = statistics(model, tiny, {}, VECTORS)
    np.testing.assert_allclose(made.correlation, whole.correlation, rtol=1e-4)
    found = record(model, tiny, {}, VECTORS)
    np.testing.assert_allclose(
        made.delta_rms[0], np.sqrt((np.asarray(found.deltas["Dense_0"], float) ** 2).mean()), rtol=1e-5
    )
    assert 0 < made.delta_rms[0] < 1e-24
    norms = [np.linalg.norm(np.asarray(found.gradients[name]["kernel"], float)) for name in found.names]
    np.testing.assert_allclose(made.gradient_norm, norms, rtol=1e-5)
    assert 0 < made.gradient_norm[0] < 1e-23


def test_half_precision_does_not_overflow():
    x = 100 * jax.random.normal(KEY, (N, 6), jnp.float16)
    params = {"kernel": 10 * jnp.eye(6, CLASSES), "bias": jnp.zeros(CLASSES)}
    model = nn.Dense(CLASSES, dtype=jnp.float16)
    made = statistics(model, params, {}, x)
    z = np.asarray(jnp.float16(10) * x[:, :CLASSES], float)
    assert (z**2).mean() > np.finfo(np.float16).max
    np.testing.assert_allclose([made.length[0], made.variance[0]], [(z**2).mean(), z.var()], rtol=1e-4)


def test_a_net_of_zeros():
    model = models.DeepMLP(depth=3, width=4, classes=CLASSES)
    made = statistics(model, jax.tree.map(jnp.zeros_like, start(model, VECTORS)[0]), {}, VECTORS)
    for name in ("mean", "variance", "length", "gradient_norm"):
        np.testing.assert_array_equal(getattr(made, name), 0)
    np.testing.assert_array_equal(made.delta_rms[:-1], 0)
    assert made.delta_rms[-1] > 0
    np.testing.assert_array_equal(made.dead, [1, 1, 1, np.nan])
    assert np.isnan(made.correlation).all()  # no output, no direction


def test_one_example_and_examples_without_output():
    model = models.MLP((4,), classes=CLASSES, activation="relu")
    params = jax.tree.map(lambda leaf: leaf if leaf.ndim > 1 else 0 * leaf, start(model, VECTORS)[0])  # no biases
    run = jit(partial(models.layer_statistics, model, params, {}, loss=losses.cross_entropy))
    assert np.isnan(run(x=VECTORS[:1], y=Y[:1]).correlation).all()
    some = jnp.concatenate([VECTORS[:3], jnp.zeros((4, 6))])
    np.testing.assert_allclose(
        run(x=some, y=Y[:7]).correlation[0], run(x=VECTORS[:3], y=Y[:3]).correlation[0], rtol=1e-5
    )


# As everything else


def test_it_compiles_once_and_runs_in_lanes():
    model = models.DeepMLP(depth=3, width=4, classes=CLASSES, activation="tanh")
    lanes = jax.tree.map(lambda leaf: jnp.stack([leaf, 2 * leaf, leaf**2]), start(model, VECTORS)[0])
    traces = []

    def run(params):
        traces.append(1)
        return models.layer_statistics(model, params, {}, VECTORS, Y, losses.cross_entropy)

    program = jit(run)
    each = [program(jax.tree.map(lambda leaf, lane=lane: leaf[lane], lanes)) for lane in range(3)]
    assert len(traces) == 1
    made = jit(jax.vmap(run))(lanes)
    assert made.names == each[0].names == ("first", "hidden/0", "hidden/1", "logits")
    for name in STATISTICS:
        rows = np.stack([getattr(one, name) for one in each])
        np.testing.assert_allclose(getattr(made, name), rows, rtol=1e-5, atol=1e-6)
    data = made.to_dataset("seed")
    assert dict(data.sizes) == {"seed": 3, "layer": 4}
    assert list(data.layer.values) == list(made.names)
    np.testing.assert_array_equal(data["dead"], made.dead)
    assert data["length"].attrs["long_name"] == "second moment of the output"
    with pytest.raises(ValueError, match=r"dims=\(\) must name the axes before the layers, 1 in shape \(3, 4\)"):
        made.to_dataset()
    lines = str(each[0]).splitlines()
    assert lines[0].split() == ["layer", *STATISTICS]
    assert lines[3].split()[:2] == ["hidden/0", f"{float(each[0].mean[1]):.3g}"]
    assert f"{float(made.mean[:, 1].mean()):.3g}" in str(made).splitlines()[3]
    several = jit(jax.vmap(lambda params: models.layer_signals(model, params, {}, VECTORS, mean_loss)))(lanes)
    one = record(model, jax.tree.map(lambda leaf: leaf[1], lanes), {}, VECTORS)
    np.testing.assert_allclose(several.deltas["hidden/1"][1], one.deltas["hidden/1"], rtol=1e-4, atol=1e-6)


def test_double_precision():
    model = models.DeepMLP(depth=2, width=4, classes=CLASSES)
    params = start(model, VECTORS)[0]
    with jax.enable_x64(True):
        wide, x = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), (params, VECTORS))
        run = partial(models.layer_statistics, model, stats={}, x=x, y=Y, loss=losses.cross_entropy)
        made = jax.eval_shape(lambda params: run(params=params), wide)
    assert {leaf.dtype for leaf in jax.tree.leaves(made)} == {np.dtype(np.float64)}


class Nothing(nn.Module):
    """No layer at all."""

    @nn.compact
    def __call__(self, x):
        return x + self.param("shift", nn.initializers.ones, (1, 6))


def test_bad_input():
    model = models.MLP((4,), classes=CLASSES)
    params = start(model, VECTORS)[0]
    run = partial(models.layer_statistics, model, params, {}, VECTORS, Y)
    with pytest.raises(ValueError, match=r"x has shape \(0, 6\); it must hold at least one example"):
        models.layer_statistics(model, params, {}, VECTORS[:0], Y[:0], losses.cross_entropy)
    with pytest.raises(ValueError, match=r"loss returns shape \(\) for a batch of 10; it must return one loss an"):
        run(lambda prediction, target: losses.cross_entropy(prediction, target).mean())
    with pytest.raises(ValueError, match=r"activation 'tanhh' is not one of .*; did you mean 'tanh'"):
        run(losses.cross_entropy, activation="tanhh")
    with pytest.raises(ValueError, match="activation 'softmax' is not one of"):
        run(losses.cross_entropy, activation="softmax")
    with pytest.raises(ValueError, match="activation=3 must be a function or a name"):
        run(losses.cross_entropy, activation=3)
    with pytest.raises(ValueError, match="threshold=-1 must be at least 0"):
        run(losses.cross_entropy, threshold=-1)
    with pytest.raises(ValueError, match=r"loss returns shape \(10,\) for outputs \(10, 4\); it must return a scalar"):
        models.layer_signals(model, params, {}, VECTORS, lambda outputs: losses.cross_entropy(outputs, Y))
    with pytest.raises(ValueError, match="model has no layer"):
        models.layer_signals(Nothing(), {"shift": jnp.ones((1, 6))}, {}, VECTORS, jnp.sum)
