"""The nets for pictures: published parameter counts, blocks and a whole residual net against PyTorch, bad input."""

import json
from functools import partial
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnjax import conv, models

KEY = jax.random.key(0)
COUNTS = json.loads(Path(__file__).with_name("worked_examples.json").read_text())["parameter_counts"]
jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
init = jit(models.init, static_argnums=0)
RNG = np.random.default_rng(0)


def values(*shape):
    return RNG.normal(size=shape).astype(np.float32)


# Parameter counts


@pytest.mark.parametrize(
    ("start", "model", "shape"),
    [
        ("micrometeorite CNN 141x141x3", models.MicrometeoriteCNN(), (141, 141, 3)),
        ("micrometeorite CNN with dense", models.MicrometeoriteCNN(hidden=(8192, 6144)), (141, 141, 3)),
        ("VGG19", models.VGG(), (224, 224, 3)),
    ],
)  # fmt: skip
def test_worked_counts(start, model, shape):
    (example,) = [example for example in COUNTS if example["model"].startswith(start)]
    made = models.summary(model, shape)
    assert made.total == example["total"]
    if "per_layer" in example:
        assert [layer.parameters for layer in made.layers] == example["per_layer"]
        places = (0, 2, 4, 5, 6, 9, 10, 11)  # those between are of pools and of the flattening
        assert [layer.output_shape for layer in made.layers] == [tuple(example["shapes"][i]) for i in places]


PUBLISHED = [
    *[(models.VGG(depth), 224, n) for depth, n in ((11, 132_863_336), (13, 133_047_848), (16, 138_357_544))],
    *[(models.ResNet(depth), 224, n) for depth, n in ((18, 11_689_512), (34, 21_797_672), (50, 25_557_032))],
    *[(models.CifarResNet(depth), 32, n) for depth, n in ((20, 269_722), (32, 464_154), (44, 658_586), (56, 853_018))],
    (models.CifarResNet(110), 32, 1_727_962),
    *[(models.MobileNet(alpha), 224, n) for alpha, n in ((0.25, 470_072), (0.5, 1_331_592), (0.75, 2_585_560))],
    (models.MobileNet(), 224, 4_231_976),
]


@pytest.mark.parametrize(("model", "side", "total"), PUBLISHED, ids=lambda v: getattr(type(v), "__name__", str(v)))
def test_published_counts(model, side, total):
    assert models.summary(model, (side, side, 3)).total == total


def test_le_net_counts_by_hand():
    assert models.summary(models.LeNet(), (28, 28, 1)).total == 520 + 25_050 + 400_500 + 5_010
    classic = models.LeNet(features=(6, 16), hidden=(120, 84), activation="tanh", pool="average", dropout=0)
    assert [layer.parameters for layer in models.summary(classic, (32, 32, 1)).layers] == [156, 2416, 48120, 10164, 850]


# Against PyTorch, given the same weights


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch")


def to_torch(torch, x):
    """Pictures (n, h, w, c) as (n, c, h, w), kernels (kh, kw, in, out) as (out, in, kh, kw), the rest as it is."""
    x = np.asarray(x)
    return torch.tensor(x.transpose(0, 3, 1, 2).copy() if x.ndim == 4 else x)


def kernel(torch, k, **options):
    return torch.nn.Parameter(torch.tensor(np.asarray(k).transpose(3, 2, 0, 1).copy()), **options)


def same(ours, theirs):
    """Equal to 1e-5 of the largest entry (of 1 where that is less), and to 1e-5 of each: sums cancel, as in PyTorch."""
    theirs = theirs.detach().numpy()
    if theirs.ndim == 4:
        theirs = theirs.transpose(0, 2, 3, 1)
    size = max(1.0, float(np.abs(theirs).max()))
    np.testing.assert_allclose(np.asarray(ours) / size, theirs / size, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("stride", "padding"), [(1, 0), (2, 1), (4, 0)])
def test_convolution_and_its_gradients(torch, stride, padding):
    x, k, weight = values(2, 11, 11, 3), values(3, 3, 3, 4), None
    f = partial(conv.conv2d, stride=stride, padding=padding)
    y = jit(f)(x, k)
    weight = values(*y.shape)
    grads = jit(jax.grad(lambda x, k: jnp.sum(f(x, k) * weight), (0, 1)))(x, k)
    tx, tk = to_torch(torch, x).requires_grad_(), kernel(torch, k)
    ty = torch.nn.functional.conv2d(tx, tk, stride=stride, padding=padding)
    (ty * to_torch(torch, weight)).sum().backward()
    same(y, ty)
    same(grads[0], tx.grad)
    same(np.asarray(grads[1]).transpose(3, 0, 1, 2), tk.grad)


@pytest.mark.parametrize(("window", "stride", "padding"), [(2, 2, 0), (3, 2, 0), (3, 2, 1)])
@pytest.mark.parametrize("kind", ["max", "avg"])
def test_pooling_and_its_gradient(torch, kind, window, stride, padding):
    x = values(2, 9, 9, 3)
    f = partial(getattr(conv, f"{kind}_pool"), window=window, stride=stride, padding=padding)
    y = jit(f)(x)
    weight = values(*y.shape)
    tx = to_torch(torch, x).requires_grad_()
    ty = getattr(torch.nn.functional, f"{kind}_pool2d")(tx, window, stride, padding)
    (ty * to_torch(torch, weight)).sum().backward()
    same(y, ty)
    same(jit(jax.grad(lambda x: jnp.sum(f(x) * weight)))(x), tx.grad)


class TorchNorm:
    """PyTorch's batch norm with the parameters and statistics of ours."""

    def __init__(self, torch, params, stats, train):
        self.layer = torch.nn.BatchNorm2d(len(params["scale"]))
        self.layer.weight.data = torch.tensor(np.asarray(params["scale"]))
        self.layer.bias.data = torch.tensor(np.asarray(params["bias"]))
        self.layer.running_mean.data = torch.tensor(np.asarray(stats["mean"]))
        self.layer.running_var.data = torch.tensor(np.asarray(stats["var"]))
        self.layer.train(train)

    def __call__(self, x):
        self.count = x.numel() // x.shape[1]
        return self.layer(x)

    def check(self, stats, before):
        """Theirs is the unbiased variance, n / (n - 1) of ours."""
        same(stats["mean"], self.layer.running_mean)
        batch = (self.layer.running_var.numpy() - 0.9 * np.asarray(before["var"])) / 0.1
        ours = 0.9 * np.asarray(before["var"]) + 0.1 * batch * (self.count - 1) / self.count
        np.testing.assert_allclose(stats["var"], ours, rtol=1e-5, atol=1e-5)


class TorchNet:
    """A net of ours written again in PyTorch, layer by layer, from our parameters."""

    def __init__(self, torch, params, stats, train):
        self.torch, self.params, self.stats, self.train = torch, params, stats, train
        self.kernels, self.norms = {}, {}

    def conv(self, path, x, stride=1, padding=1):
        node = self._at(self.params, path)
        self.kernels[path] = kernel(self.torch, node["kernel"])
        return self.torch.nn.functional.conv2d(x, self.kernels[path], stride=stride, padding=padding)

    def norm(self, path, x):
        self.norms[path] = TorchNorm(self.torch, self._at(self.params, path), self._at(self.stats, path), self.train)
        return self.norms[path](x)

    def _at(self, tree, path):
        for name in path.split("/"):
            tree = tree[name]
        return tree

    def basic(self, path, x, features, stride, shortcut="projection"):
        torch, at = self.torch, f"{path}/" if path else ""
        y = torch.relu(self.norm(f"{at}BatchNorm_0", self.conv(f"{at}Conv_0", x, stride)))
        y = self.norm(f"{at}BatchNorm_1", self.conv(f"{at}Conv_1", y))
        return torch.relu(y + self._short(at, x, features, stride, shortcut))

    def bottleneck(self, path, x, features, stride):
        torch, at = self.torch, f"{path}/" if path else ""
        y = torch.relu(self.norm(f"{at}BatchNorm_0", self.conv(f"{at}Conv_0", x, 1, 0)))
        y = torch.relu(self.norm(f"{at}BatchNorm_1", self.conv(f"{at}Conv_1", y, stride)))
        y = self.norm(f"{at}BatchNorm_2", self.conv(f"{at}Conv_2", y, 1, 0))
        return torch.relu(y + self._short(at, x, 4 * features, stride, "projection"))

    def cifar(self, x, blocks, width):
        x = self.torch.relu(self.norm("stem_norm", self.conv("stem", x)))
        for stage in range(3):
            for number in range(blocks):
                stride = 2 if stage and not number else 1
                x = self.basic(f"stage{stage + 1}_block{number + 1}", x, width * 2**stage, stride, "pad")
        head = self.params["logits"]
        return x.mean((2, 3)) @ self.torch.tensor(np.asarray(head["kernel"])) + self.torch.tensor(
            np.asarray(head["bias"])
        )

    def _short(self, at, x, features, stride, shortcut):
        if stride == 1 and x.shape[1] == features:
            return x
        if shortcut == "pad":
            extra = (features - x.shape[1]) // 2
            return self.torch.nn.functional.pad(x[:, :, ::stride, ::stride], (0, 0, 0, 0, extra, extra))
        return self.norm(f"{at}shortcut_norm", self.conv(f"{at}shortcut", x, stride, 0))

    def check(self, grads, stats):
        for path, k in self.kernels.items():
            same(np.asarray(self._at(grads, path)["kernel"]).transpose(3, 0, 1, 2), k.grad)
        for path, norm in self.norms.items():
            same(self._at(grads, path)["scale"], norm.layer.weight.grad)
            same(self._at(grads, path)["bias"], norm.layer.bias.grad)
            if self.train:
                norm.check(self._at(stats, path), self._at(self.stats, path))


NETS = {
    "basic, projection": (models.BasicBlock(6, 2), (4, 8, 8, 3), lambda net, x: net.basic("", x, 6, 2)),
    "basic, identity": (models.BasicBlock(3), (4, 8, 8, 3), lambda net, x: net.basic("", x, 3, 1)),
    "basic, pad": (models.BasicBlock(7, 2, "pad"), (4, 8, 8, 3), lambda net, x: net.basic("", x, 7, 2, "pad")),
    "bottleneck": (models.BottleneckBlock(3, 2), (4, 8, 8, 4), lambda net, x: net.bottleneck("", x, 3, 2)),
    "CifarResNet": (models.CifarResNet(8, 3, width=4), (4, 12, 12, 3), lambda net, x: net.cifar(x, 1, 4)),
}


@pytest.mark.parametrize("train", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("name", NETS)
def test_residual_nets_are_pytorchs(torch, name, train):
    model, shape, theirs = NETS[name]
    x = values(*shape)
    params, stats = init(model, KEY, x)
    params = jax.tree.map(lambda leaf: np.asarray(leaf) + 0.1 * values(*leaf.shape), params)
    stats = jax.tree.map(lambda leaf: np.asarray(leaf) + np.abs(0.1 * values(*leaf.shape)), stats)
    weight = values(*jax.eval_shape(lambda: models.apply(model, params, stats, x)[0]).shape)

    def loss(params, x):
        y, after = models.apply(model, params, stats, x, train=train)
        return jnp.sum(y * weight), (y, after)

    (dparams, dx), (y, after) = jit(jax.grad(loss, (0, 1), has_aux=True))(params, x)
    net = TorchNet(torch, params, stats["batch_stats"], train)
    tx = to_torch(torch, x).requires_grad_()
    ty = theirs(net, tx)
    (ty * (to_torch(torch, weight))).sum().backward()
    same(y, ty)
    same(dx, tx.grad)
    net.check(dparams, after["batch_stats"])


def test_batch_norm_alone_is_pytorchs(torch):
    x, weight = values(4, 5, 5, 3), values(4, 5, 5, 3)
    params = {"scale": 1 + 0.1 * values(3), "bias": values(3)}
    stats = {"mean": values(3), "var": 1 + np.abs(values(3))}
    for train in (True, False):
        layer = nn.BatchNorm(use_running_average=not train, momentum=0.9)

        def loss(params, x, layer=layer):
            y, after = layer.apply({"params": params, "batch_stats": stats}, x, mutable=["batch_stats"])
            return jnp.sum(y * weight), (y, after["batch_stats"])

        (dparams, dx), (y, after) = jit(jax.grad(loss, (0, 1), has_aux=True))(params, x)
        norm, tx = TorchNorm(torch, params, stats, train), to_torch(torch, x).requires_grad_()
        ty = norm(tx)
        (ty * to_torch(torch, weight)).sum().backward()
        same(y, ty)
        same(dx, tx.grad)
        same(dparams["scale"], norm.layer.weight.grad)
        if train:
            norm.check(after, stats)


@pytest.mark.parametrize(("side", "stride"), [(7, 1), (8, 1), (7, 2), (8, 2)])
def test_depthwise_is_the_grouped_convolution(side, stride):
    x, k = values(2, side, side, 5), values(3, 3, 1, 5)
    y = jit(partial(models.depthwise, stride=stride))(x, k)
    expected = jax.lax.conv_general_dilated(
        x, k, (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=5
    )
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)
    weight = values(*y.shape)
    grads = [
        jit(jax.grad(lambda x, k, f=f: jnp.sum(f(x, k) * weight), (0, 1)))(x, k)
        for f in (
            partial(models.depthwise, stride=stride),
            lambda x, k: jax.lax.conv_general_dilated(
                x, k, (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=5
            ),
        )
    ]
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), *grads)


# The contract

SMALL = {
    "LeNet": (models.LeNet(3, features=(2, 3), hidden=(4,), padding="SAME"), (8, 8, 1)),
    "MicrometeoriteCNN": (models.MicrometeoriteCNN(2, hidden=(4, 4)), (67, 67, 3)),
    "VGG": (models.VGG(11, 3, hidden=(4,), width=2), (32, 32, 3)),
    "ResNet": (models.ResNet(18, 3, width=2), (32, 32, 3)),
    "CifarResNet": (models.CifarResNet(8, 3, width=2), (8, 8, 3)),
    "MobileNet": (models.MobileNet(0.05, 3), (32, 32, 3)),
}


@pytest.mark.parametrize("name", SMALL)
def test_nets_keep_the_contract(name):
    model, shape = SMALL[name]
    x = values(2, *shape)
    like = jax.eval_shape(partial(models.init, model), KEY, x)
    # Not zero, and variances above it, so that every parameter counts.
    pairs = [jax.tree.map(lambda leaf: 0.3 + 0.2 * np.abs(values(*leaf.shape)), like) for _ in range(2)]
    traces = []

    def forward(params, stats, x):
        traces.append(1)
        return models.apply(model, params, stats, x)[0]

    program = jit(forward)
    made = np.stack([program(*pair, x) for pair in pairs])
    assert len(traces) == 1
    assert made.dtype == np.float32
    assert np.isfinite(made).all()
    assert np.ptp(made) > 0
    both = jit(jax.vmap(forward, (0, 0, None)))(*jax.tree.map(lambda a, b: np.stack([a, b]), *pairs), x)
    np.testing.assert_allclose(both, made, rtol=1e-4, atol=1e-5 * np.abs(made).max())

    def run(key, x):
        return models.apply(model, *models.init(model, key, x), x)[0]

    with jax.enable_x64(True):
        wide = jax.eval_shape(run, KEY, jax.ShapeDtypeStruct(x.shape, np.float64))
    assert wide.dtype == np.float64
    trained = jax.eval_shape(
        lambda key, x: models.apply(model, *models.init(model, key, x), x, key=key, train=True), KEY, x
    )
    assert trained[0].shape == made[0].shape
    narrow = jax.eval_shape(lambda key, x: models.init(model.clone(dtype=jnp.bfloat16), key, x), KEY, x)
    assert {leaf.dtype for leaf in jax.tree.leaves(narrow)} == {np.dtype(np.float32)}


@pytest.mark.parametrize("name", SMALL)
def test_wrong_pictures_are_refused_in_a_sentence(name):
    model, shape = SMALL[name]
    params, stats = jax.eval_shape(partial(models.init, model), KEY, jax.ShapeDtypeStruct((1, *shape), np.float32))

    def run(*shape):
        jax.eval_shape(partial(models.apply, model), params, stats, jax.ShapeDtypeStruct(shape, np.float32))

    with pytest.raises(ValueError, match=r"x has shape \(2, 9\).*takes pictures \(n, h, w, channels\)"):
        run(2, 9)
    with pytest.raises(ValueError, match=f"x has 4 channels, and these parameters are for pictures of {shape[2]}"):
        run(2, *shape[:2], 4)
    if name in ("LeNet", "MicrometeoriteCNN", "VGG"):
        with pytest.raises(ValueError, match=r"layer 'Dense_0', whose parameters are for .* give pictures of the size"):
            run(2, 2 * shape[0], 2 * shape[1], shape[2])
        with pytest.raises(ValueError, match=r"needs \d+ x \d+ pixels or more"):
            run(2, 1, 1, shape[2])


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (models.VGG(12), "depth=12 must be one of 11, 13, 16, 19"),
        (models.ResNet(20), "depth=20 must be one of 18, 34, 50, 101, 152"),
        (models.CifarResNet(21), "depth=21 must be 6n \\+ 2"),
        (models.CifarResNet(2), "depth=2 must be a whole number, at least 8"),
        (models.CifarResNet(8, shortcut="pda"), "shortcut 'pda' is not one of projection, pad; did you mean 'pad'"),
        (models.BasicBlock(1, 1, "pad"), "cannot go from 3 channels to 1"),
        (models.MobileNet(0.01), "alpha=0.01 must leave"),
        (models.LeNet(pool="min"), "pool 'min' is not one of max, average"),
        (models.LeNet(dropout=1.5), "dropout=1.5 must lie between 0 and 1"),
        (models.LeNet(classes=0), "classes=0 must be a whole number, at least 1"),
        (models.MicrometeoriteCNN(hidden=(5,)), r"hidden=\(5,\) must name 2 sizes"),
        (models.MicrometeoriteCNN(dropout=(0.5,)), r"dropout=\(0.5,\) must name a probability for each"),
    ],
)
def test_bad_settings_are_refused(model, message):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(partial(models.init, model), KEY, jax.ShapeDtypeStruct((1, 67, 67, 3), np.float32))


def test_dropout_may_be_traced_and_needs_no_key_at_zero():
    x = values(2, 8, 8, 1)
    model = models.LeNet(3, features=(2, 3), hidden=(40,), padding="SAME", dropout=0.0)
    params, stats = init(model, KEY, x)
    run = jit(lambda rate: models.apply(model.clone(dropout=rate), params, stats, x, key=KEY, train=True)[0])
    plain = models.apply(model, params, stats, x, train=True)[0]
    np.testing.assert_allclose(run(0.0), plain, rtol=1e-5, atol=1e-6)
    assert not np.allclose(run(0.5), plain)
    np.testing.assert_allclose(run(1.0), np.zeros((2, 3)), atol=1e-6)  # nothing but the bias is left


# The package


def test_a_name_loads_its_file_alone():
    import subprocess
    import sys

    code = "import sys, nnjax.models as m; m.MLP; print(*[k for k in sys.modules if k.startswith('nnjax.models.')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) == {"nnjax.models.mlp", "nnjax.models.linen"}


def test_every_name_has_its_file():
    assert sorted(models._FILE_OF) == sorted(models.__all__)
    assert set(models.__all__) <= set(dir(models))
    assert models.resnet.ResNet is models.ResNet
    with pytest.raises(AttributeError, match=r"module 'nnjax\.models' has no attribute 'ResNext'"):
        _ = models.ResNext
