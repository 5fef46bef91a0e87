import json
import time
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from nnjax import conv

EXAMPLES = json.loads((Path(__file__).parent / "worked_examples.json").read_text())
LAYOUT = ("NHWC", "HWIO", "NHWC")


def reference(x, kernel, stride=(1, 1), padding="VALID", dilation=(1, 1)):
    return lax.conv_general_dilated(x, kernel, stride, padding, rhs_dilation=dilation, dimension_numbers=LAYOUT)


def normal(seed, shape, dtype=jnp.float32):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


def assert_near(actual, expected, tolerance=1e-4):
    """Equal relative to the scale of the expected array."""
    assert actual.shape == expected.shape
    assert actual.dtype == expected.dtype
    actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * max(np.abs(expected).max(), 1e-30))


def value_and_gradients(function, x, kernel):
    """The output, and its products with a cotangent that varies from element to element."""
    y, pull = jax.vjp(function, x, kernel)
    weights = (jnp.arange(y.size) % 7 - 3).reshape(y.shape).astype(y.dtype)
    return y, *pull(weights)


def assert_same_with_gradients(function, other, x, kernel, tolerance=1e-4):
    both = jax.jit(lambda x, k: [value_and_gradients(one, x, k) for one in (function, other)])
    for a, b in zip(*both(x, kernel), strict=True):
        assert_near(a, b, tolerance)


# --- worked examples


@pytest.mark.parametrize("example", EXAMPLES["convolution"], ids=lambda example: example["name"])
def test_convolution_worked_example(example):
    options = {name: example[name] for name in ("padding", "stride", "dilation")}
    if "input" in example:
        x, k = (
            jnp.float32(example["input"])[None, :, :, None],
            jnp.float32(example["kernel"])[:, :, None, None],
        )
    else:
        x = jnp.float32(example["input_channels"]).transpose(1, 2, 0)[None]
        k = jnp.float32(example["kernel_channels"]).transpose(1, 2, 0)[..., None]
        for c, expected in enumerate(example["per_channel"]):
            one = conv.conv2d(x[..., c : c + 1], k[:, :, c : c + 1], **options)
            np.testing.assert_array_equal(one[0, :, :, 0], expected)
    np.testing.assert_array_equal(conv.conv2d(x, k, **options)[0, :, :, 0], example["output"])


@pytest.mark.parametrize(("pool", "index"), [(conv.max_pool, 0), (conv.avg_pool, 1)])
def test_pooling_worked_example(pool, index):
    example = EXAMPLES["pooling"][index]
    x = jnp.float32(example["input"])[None, :, :, None]
    np.testing.assert_array_equal(pool(x, 2)[0, :, :, 0], example["output"])
    np.testing.assert_array_equal(pool(x, 2, 2, "SAME")[0, :, :, 0], example["output"])


def test_output_size_is_the_formula():
    # (n - f + 2 p) / s + 1 with the effective f = (f - 1) d + 1, rounded down
    for n, f, p, s, d in [
        (28, 3, 0, 1, 1),
        (28, 5, 2, 1, 1),
        (11, 3, 1, 2, 1),
        (12, 3, 1, 2, 2),
        (9, 2, 3, 3, 1),
    ]:
        x, k = jax.ShapeDtypeStruct((1, n, n, 1), "float32"), jax.ShapeDtypeStruct((f, f, 1, 1), "float32")
        y = jax.eval_shape(lambda x, k, p=p, s=s, d=d: conv.conv2d(x, k, padding=p, stride=s, dilation=d), x, k)
        side = (n - ((f - 1) * d + 1) + 2 * p) // s + 1
        assert y.shape == (1, side, side, 1)


def drawn_seven():
    """28 x 28: a bar in rows 6-8, columns 6-21, and a stroke from its right end down to row 22."""
    picture = np.zeros((28, 28), np.float32)
    picture[6:9, 6:22] = 1
    for row in range(9, 23):
        right = 21 - (row - 9) // 2
        picture[row, right - 2 : right + 1] = 1
    return jnp.asarray(picture)[None, :, :, None]


def test_edge_filters_on_a_seven():
    filters = EXAMPLES["edge_filters"]
    kernel = jnp.stack([jnp.float32(filters[name]) for name in ("top", "left", "bottom", "right")], -1)[:, :, None]
    maps = conv.conv2d(drawn_seven(), kernel)
    assert maps.shape == (1, 26, 26, 4)
    assert conv.max_pool(maps, 2).shape == (1, 13, 13, 4)
    # Output (i, j) is centred on pixel (i + 1, j + 1). The bar: top row 6, bottom row 8, left column 6.
    top, left, bottom, _ = np.moveaxis(np.asarray(maps[0]), -1, 0)
    np.testing.assert_array_equal(top[5, 6:20], 3)
    np.testing.assert_array_equal(top[6:8, 6:17], 0)
    np.testing.assert_array_equal(bottom[7, 6:15], 3)
    assert left[6, 5] == 3
    assert top.max() == left.max() == bottom.max() == 3
    # The winning responses survive pooling.
    np.testing.assert_array_equal(conv.max_pool(maps, 2)[0, 2, 3:10, 0], 3)


@pytest.mark.parametrize("name", ["top", "left", "bottom", "right"])
def test_each_edge_filter_answers_to_its_own_edge(name):
    below = np.float32([[0, 0, 0], [1, 1, 1], [1, 1, 1]])
    patches = {"top": below, "bottom": below[::-1], "left": below.T, "right": below.T[:, ::-1]}
    kernel = jnp.float32(EXAMPLES["edge_filters"][name])[:, :, None, None]
    answers = {edge: float(conv.conv2d(p[None, :, :, None], kernel)[0, 0, 0, 0]) for edge, p in patches.items()}
    assert answers.pop(name) == 3
    assert max(answers.values()) <= 0


# --- against lax


def random_case(seed):
    rng = np.random.default_rng(seed)
    kh, kw = (int(k) for k in rng.integers(1, 6, 2))
    stride, dilation = (tuple(int(v) for v in rng.integers(1, high, 2)) for high in (4, 3))
    padding = ["SAME", "VALID"][seed % 2] if seed % 5 < 2 else tuple(map(tuple, rng.integers(0, 4, (2, 2)).tolist()))
    h, w = ((k - 1) * d + 1 + int(rng.integers(0, 9)) for k, d in zip((kh, kw), dilation, strict=True))
    channels, features = int(rng.integers(1, 6)), int(rng.choice([1, 3, 8, 16, 17, 33]))
    x = jnp.asarray(rng.normal(size=(int(rng.integers(1, 6)), h, w, channels)), jnp.float32)
    return (
        x,
        jnp.asarray(rng.normal(size=(kh, kw, channels, features)), jnp.float32),
        stride,
        padding,
        dilation,
    )


@pytest.mark.parametrize("seed", range(50))
def test_value_and_both_gradients_equal_lax(seed):
    x, kernel, stride, padding, dilation = random_case(seed)
    assert_same_with_gradients(
        lambda x, k: conv.conv2d(x, k, stride=stride, padding=padding, dilation=dilation),
        lambda x, k: reference(x, k, stride, padding, dilation),
        x,
        kernel,
    )


@pytest.mark.parametrize("seed", [2, 3, 4])
def test_other_backends_get_the_same_convolutions(seed):
    x, kernel, stride, padding, dilation = random_case(seed)
    geometry = conv._plain_geometry(x, kernel, stride, padding, None, dilation, LAYOUT, None)
    y, pull = jax.vjp(lambda x, k: reference(x, k, stride, padding, dilation), x, kernel)
    dx, dk = pull(y)
    assert_near(conv._native("output", geometry, x, kernel), y)
    assert_near(conv._native("input_gradient", geometry, y, kernel), dx)
    assert_near(conv._native("kernel_gradient", geometry, x, y), dk)


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize("shape", [(1, 8), (3, 6), (4, 32)])
def test_shapes_with_their_own_path(shape, padding):
    x, kernel = normal(0, (3, 13, 11, shape[0])), normal(1, (5, 3, *shape))
    for stride in (1, 2):
        assert_same_with_gradients(
            lambda x, k, s=stride: conv.conv2d(x, k, stride=s, padding=padding),
            lambda x, k, s=stride: reference(x, k, (s, s), padding),
            x,
            kernel,
        )


@pytest.mark.parametrize(
    ("shape", "kernel", "given"),
    [
        ((40, 13, 11, 3), (3, 2), {"padding": "SAME"}),
        ((200, 13, 11, 1), (3, 3), {"padding": ((3, 0), (1, 2))}),
        ((90, 14, 12, 2), (4, 3), {"stride": (2, 1), "padding": ((1, 2), (0, 1))}),
        ((250, 12, 12, 2), (3, 3), {"stride": (3, 2)}),  # the last rows are in no window
        ((90, 12, 10, 2), (3, 3), {"dilation": (2, 3), "padding": ((4, 2), (3, 3))}),
        ((2, 3, 9, 200), (8, 5), {"padding": ((5, 6), (2, 2))}),  # some rows of the kernel meet only padding
    ],
)
def test_sums_of_very_many_terms_are_cut_rightly(shape, kernel, given):
    def ours(x, k):
        return conv.conv2d(x, k, **given)

    with jax.enable_x64(True):
        x, k = normal(1, shape, jnp.float64), normal(2, (*kernel, shape[3], 4), jnp.float64)
        y = jax.eval_shape(ours, x, k)
        assert max(np.prod(y.shape[:3]), np.prod(k.shape[:3])) > conv._TERMS  # else nothing is cut
        assert_same_with_gradients(ours, lambda x, k: reference(x, k, **given), x, k, 1e-12)


def test_second_derivative():
    x, kernel = normal(0, (2, 7, 8, 3)), normal(1, (3, 3, 3, 4))

    def curvature(function):
        def loss(x, k):
            return jnp.sum(jnp.sin(function(x, k)))

        def along(x, k):
            dx, dk = jax.grad(loss, (0, 1))(x, k)
            return jnp.vdot(dx, jnp.cos(x)) + jnp.vdot(dk, jnp.cos(k))

        return jax.jit(jax.grad(along, (0, 1)))(x, kernel)

    actual = curvature(lambda x, k: conv.conv2d(x, k, stride=2, padding=1))
    expected = curvature(lambda x, k: reference(x, k, (2, 2), ((1, 1), (1, 1))))
    for a, b in zip(actual, expected, strict=True):
        assert_near(a, b)


def test_forward_mode_is_refused():
    x, kernel = normal(0, (1, 4, 4, 1)), normal(1, (3, 3, 1, 1))
    with pytest.raises(TypeError, match="forward-mode"):
        jax.jvp(lambda k: conv.conv2d(x, k), (kernel,), (kernel,))


# --- transformations


@pytest.mark.parametrize("axes", [(0, None), (None, 0), (0, 0)])
def test_vmap_equals_a_loop(axes):
    x, kernel = normal(0, (3, 2, 7, 6, 2)), normal(1, (3, 3, 3, 2, 5))
    x, kernel = (a if axis == 0 else a[0] for a, axis in zip((x, kernel), axes, strict=True))

    def both(x, kernel):
        return value_and_gradients(lambda x, k: conv.conv2d(x, k, stride=2, padding="SAME"), x, kernel)

    batched = jax.jit(jax.vmap(both, axes))(x, kernel)
    for lane in range(3):
        one = both(*(a[lane] if axis == 0 else a for a, axis in zip((x, kernel), axes, strict=True)))
        for a, b in zip(batched, one, strict=True):
            assert_near(a[lane], b)


def test_vmap_of_vmap_and_gradient_of_vmap():
    x, kernel = normal(0, (2, 3, 1, 6, 6, 2)), normal(1, (2, 3, 3, 3, 2, 4))

    def total(function):
        twice = jax.vmap(jax.vmap(function))
        return jax.jit(jax.grad(lambda x, k: jnp.sum(jnp.sin(twice(x, k))), (0, 1)))(x, kernel)

    for a, b in zip(total(conv.conv2d), total(reference), strict=True):
        assert_near(a, b)


def test_no_grouped_convolution_on_cpu_under_vmap():
    x, kernel = normal(0, (4, 2, 8, 8, 4)), normal(1, (4, 3, 3, 4, 8))

    def losses(function):
        step = jax.vmap(jax.grad(lambda k, x: jnp.sum(function(x, k) ** 2)))
        return jax.jit(step).trace(kernel, x).lower(lowering_platforms=("cpu",)).as_text()

    assert "feature_group_count = 4" in losses(reference)
    assert "feature_group_count = 4" not in losses(conv.conv2d)


def test_inside_scan():
    xs, kernel = normal(0, (4, 3, 8, 8, 2)), normal(1, (3, 3, 2, 4))

    def descend(function):
        def step(k, x):
            value, gradient = jax.value_and_grad(lambda k: jnp.mean(jnp.sin(function(x, k))))(k)
            return k - 0.1 * gradient, value

        return jax.jit(lambda k, xs: lax.scan(step, k, xs))(kernel, xs)

    for a, b in zip(descend(conv.conv2d), descend(reference), strict=True):
        assert_near(a, b)


@pytest.mark.parametrize("check_vma", [True, False])
def test_inside_shard_map(check_vma):
    mesh = jax.make_mesh((2,), ("i",), axis_types=(jax.sharding.AxisType.Auto,))
    spec = jax.sharding.PartitionSpec
    x, kernel = normal(0, (4, 7, 7, 2)), normal(1, (3, 3, 2, 4))

    def loss(k, x):
        return jnp.sum(jnp.sin(conv.conv2d(x, k)))

    def total(k, x):
        return lax.psum(loss(k, x), "i")

    sharded = jax.shard_map(total, mesh=mesh, in_specs=(spec(), spec("i")), out_specs=spec(), check_vma=check_vma)
    assert_near(jax.jit(jax.grad(sharded))(kernel, x), jax.grad(loss)(kernel, x))


def test_gradients_meet_only_the_fast_layout():
    """XLA's CPU compiler reorders operands at a program's top level only, not in a loop."""
    gradient = jax.jit(jax.grad(lambda k, x: jnp.sum(conv.conv2d(x, k, stride=2) ** 2), (0, 1)))
    traced = gradient.trace(normal(0, (3, 3, 4, 32)), normal(1, (2, 9, 9, 4)))
    lowered = traced.lower(lowering_platforms=("cpu",))
    lines = [line for line in lowered.as_text().splitlines() if "stablehlo.convolution(" in line]
    assert len(lines) == 3  # the other backends' convolutions are gone
    assert all("[b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f]" in line for line in lines)
    assert "conditional" not in lowered.compile().as_text()


def test_step_inside_scan_is_about_as_fast_as_outside():
    xs, kernel = normal(0, (4, 32, 14, 14, 16)), normal(1, (5, 5, 16, 32))

    def step(k, x):
        return k - 1e-3 * jax.grad(lambda k: jnp.sum(conv.conv2d(x, k, padding="SAME") ** 2))(k), None

    once, whole = jax.jit(step), jax.jit(lambda k, xs: lax.scan(step, k, xs)[0])
    batches = list(xs)

    def seconds(call):
        start = time.perf_counter()
        jax.block_until_ready(call())
        return time.perf_counter() - start

    def loop():
        k = kernel
        for x in batches:
            k, _ = once(k, x)
        return k

    def scan():
        return whole(kernel, xs)

    pairs = [(seconds(loop), seconds(scan)) for _ in range(8)][1:]
    outside, inside = (min(row) for row in zip(*pairs, strict=True))
    assert inside < 3 * outside  # the slow path is more than ten times slower


# --- dtypes


@pytest.mark.parametrize(("dtype", "tolerance"), [("bfloat16", 3e-2), ("float16", 5e-3), ("float64", 1e-12)])
def test_dtype_is_kept(dtype, tolerance):
    with jax.enable_x64(True):
        x, kernel = normal(0, (2, 6, 6, 3), dtype), normal(1, (3, 3, 3, 4), dtype)
        assert_same_with_gradients(conv.conv2d, reference, x, kernel, tolerance)
        assert conv.max_pool(x, 2).dtype == conv.max_pool(x, 3, 1).dtype == x.dtype
        assert conv.avg_pool(x, 2).dtype == conv.avg_pool(x, 3, 1).dtype == x.dtype


def test_integers_and_numpy_arrays():
    x, kernel = np.arange(16).reshape(1, 4, 4, 1), np.ones((2, 2, 1, 1), int)
    assert conv.conv2d(x, kernel)[0, 0, 0, 0] == 10
    assert conv.conv2d(x, kernel.astype(np.float32)).dtype == jnp.float32
    np.testing.assert_array_equal(conv.max_pool(x - 20, 3, padding=1)[0, :, :, 0], [[-15, -13], [-7, -5]])


# --- inside Flax


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"strides": 2},
        {"padding": "VALID"},
        {"padding": 1, "kernel_dilation": 2},
        {"padding": "CIRCULAR"},
        {"feature_group_count": 2},
        {"input_dilation": 2, "padding": 1},
        {"use_bias": False, "strides": (2, 1), "precision": "highest"},
        {"dtype": jnp.bfloat16},
        {"kernel_size": (3,)},
        {"kernel_size": (1, 1), "strides": 3},
    ],
    ids=str,
)
def test_flax_conv_with_the_plug(options):
    options = {"features": 6, "kernel_size": (3, 3), **options}
    x = normal(0, (2, 9, 8, 4))
    plain, plugged = nn.Conv(**options), nn.Conv(**options, conv_general_dilated=conv.conv_general_dilated)
    params = plain.init(jax.random.key(0), x)

    def everything(model):
        def loss(params, x):
            return jnp.sum(jnp.sin(model.apply(params, x).astype(jnp.float32)))

        return jax.jit(lambda p, x: (model.apply(p, x), *jax.grad(loss, (0, 1))(p, x)))(params, x)

    tolerance = 3e-2 if "dtype" in options else 1e-4
    jax.tree.map(lambda a, b: assert_near(a, b, tolerance), everything(plugged), everything(plain))


def test_plug_leaves_mistakes_to_lax():
    x, kernel = normal(0, (1, 4, 4, 2)), normal(1, (3, 3, 3, 1))
    with pytest.raises(ValueError, match="feature dimension"):
        conv.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=LAYOUT)


def test_plug_takes_lax_layouts_and_negative_padding():
    x, kernel = normal(0, (2, 3, 9, 8)), normal(1, (4, 3, 3, 3))
    assert_near(conv.conv_general_dilated(x, kernel, (1, 1), "SAME"), lax.conv(x, kernel, (1, 1), "SAME"))
    x, kernel, cropped = normal(0, (2, 9, 8, 3)), normal(1, (3, 3, 3, 4)), ((-1, 0), (0, 1))
    actual = conv.conv_general_dilated(x, kernel, (1, 1), cropped, dimension_numbers=LAYOUT)
    assert_near(actual, reference(x, kernel, (1, 1), cropped))


# --- pooling


@pytest.mark.parametrize(("ours", "theirs"), [(conv.max_pool, nn.max_pool), (conv.avg_pool, nn.avg_pool)])
@pytest.mark.parametrize("padding", ["VALID", "SAME", ((1, 0), (0, 2))])
@pytest.mark.parametrize(("window", "stride"), [((2, 3), (2, 3)), ((3, 3), (2, 2)), ((3, 3), (1, 2))])
def test_pools_equal_flax(ours, theirs, window, stride, padding):
    if padding not in ("VALID", "SAME") and window[0] < 3:
        padding = ((1, 0), (0, 1))
    x = normal(0, (2, 11, 10, 3))

    def loss(pool, *options):
        return jax.jit(jax.value_and_grad(lambda x: jnp.sum(jnp.sin(pool(x, window, *options)))))(x)

    assert_near(ours(x, window, stride, padding), theirs(x, window, stride, padding))
    for a, b in zip(loss(ours, stride, padding), loss(theirs, stride, padding), strict=True):
        assert_near(a, b)


def test_pool_under_vmap_and_tie():
    x = jnp.zeros((3, 1, 4, 4, 1))
    gradient = jax.vmap(jax.grad(lambda x: conv.max_pool(x, 2).sum()))(x)
    np.testing.assert_array_equal(gradient, jnp.full(x.shape, 0.25))
    assert jax.vmap(lambda x: conv.max_pool(x, 3, 1))(x).shape == (3, 1, 2, 2, 1)


# --- an independent implementation


@pytest.mark.parametrize(("stride", "padding", "dilation"), [(1, 0, 1), (2, 1, 1), (1, 2, 2), (3, 2, 1)])
def test_torch_oracle(stride, padding, dilation):
    torch = pytest.importorskip("torch")
    x, kernel = normal(0, (2, 9, 10, 3)), normal(1, (3, 2, 3, 4))
    tx = torch.tensor(np.moveaxis(np.asarray(x), 3, 1).copy(), requires_grad=True)
    tk = torch.tensor(np.transpose(np.asarray(kernel), (3, 2, 0, 1)).copy(), requires_grad=True)
    ty = torch.nn.functional.conv2d(tx, tk, stride=stride, padding=padding, dilation=dilation)
    torch.sin(ty).sum().backward()
    y, pull = jax.vjp(lambda x, k: conv.conv2d(x, k, stride=stride, padding=padding, dilation=dilation), x, kernel)
    dx, dk = pull(jnp.cos(y))
    assert_near(y, ty.detach().numpy().transpose(0, 2, 3, 1))
    assert_near(dx, tx.grad.numpy().transpose(0, 2, 3, 1))
    assert_near(dk, tk.grad.numpy().transpose(2, 3, 1, 0))
    pooled = torch.nn.functional.avg_pool2d(tx, 3, 2, 1).detach().numpy()
    assert_near(conv.avg_pool(x, 3, 2, 1), pooled.transpose(0, 2, 3, 1))


# --- bad input

IMAGES, KERNEL = np.zeros((1, 5, 5, 2), np.float32), np.zeros((3, 3, 2, 1), np.float32)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: conv.conv2d(IMAGES[0], KERNEL),
            r"x has shape \(5, 5, 2\); it must be \(n, h, w, channels\)",
        ),
        (lambda: conv.conv2d(IMAGES, KERNEL[0]), r"kernel has shape \(3, 2, 1\); it must be"),
        (lambda: conv.conv2d(IMAGES[..., :1], KERNEL), r"kernel takes 2 channels .* but x has 1"),
        (lambda: conv.conv2d(IMAGES, KERNEL, stride=0), r"stride is 0; it must be an int >= 1"),
        (lambda: conv.conv2d(IMAGES, KERNEL, stride=(1, 2, 3)), r"stride is \(1, 2, 3\); it must be"),
        (lambda: conv.conv2d(IMAGES, KERNEL, stride=1.5), r"stride is 1.5; it must be"),
        (lambda: conv.conv2d(IMAGES, KERNEL, dilation=-1), r"dilation is -1; it must be"),
        (lambda: conv.conv2d(IMAGES, KERNEL, padding=-1), r"padding is -1; it must be .* >= 0"),
        (
            lambda: conv.conv2d(IMAGES, KERNEL, padding=((0, -1), (0, 0))),
            r"padding is \(\(0, -1\), \(0, 0\)\)",
        ),
        (lambda: conv.conv2d(IMAGES, KERNEL, padding=(1, 1)), r"padding is \(1, 1\); it must be"),
        (
            lambda: conv.conv2d(IMAGES, KERNEL, padding="FULL"),
            r"padding is 'FULL'; it must be \"SAME\", \"VALID\"",
        ),
        (
            lambda: conv.conv2d(IMAGES, KERNEL, dilation=3),
            r"kernel covers \(7, 7\) pixels, more than the padded x",
        ),
        (
            lambda: conv.max_pool(IMAGES, 6),
            r"window covers \(6, 6\) pixels, more than the padded x of \(5, 5\)",
        ),
        (lambda: conv.max_pool(IMAGES, 0), r"window is 0; it must be"),
        (
            lambda: conv.max_pool(IMAGES, 2, padding=2),
            r"padding is 2; it must be smaller than the window \(2, 2\)",
        ),
        (lambda: conv.avg_pool(IMAGES, 2, "2"), r"stride is '2'; it must be"),
        (lambda: conv.avg_pool(IMAGES[0], 2), r"x has shape \(5, 5, 2\)"),
        (lambda: conv.avg_pool(IMAGES.astype(int), 2), r"x has dtype int32; a mean needs a floating dtype"),
    ],
)
def test_bad_input_is_one_clear_sentence(call, message):
    with pytest.raises(ValueError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
