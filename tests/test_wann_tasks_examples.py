"""Tasks that are sets of examples: truth tables, curves, digits, and MNIST made small and upright."""

import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from nnjax import data, wann
from nnjax.data import Split
from nnjax.wann import tasks
from nnjax.wann.tasks import classification, mnist, regression

KEY = jax.random.key(0)


def _xor_net():
    """A net that solves XOR whatever the shared weight w, 0 apart: its output is w^2 (2 xor(a, b) - 1)."""
    names = ["identity", "inverse", "absolute", "identity", "step", "identity", "identity", "inverse"]
    space = wann.Space(2, 1, 12)
    # bias 0, a 1, b 2, then w a, -w b, w^2 |a - b|, once more times w, 0 or 1, twice times w, -w, and the output.
    edges = [(1, 3), (2, 4), (3, 5), (4, 5), (5, 6), (6, 7), (7, 8), (7, 9), (0, 10), (8, 11), (9, 11), (10, 11)]
    connections = np.zeros((12, 12), np.int8)
    for source, destination in edges:
        connections[source, destination] = wann.genome.ENABLED
    codes = np.zeros(12, np.int8)
    codes[3:11] = [space.table.index(name) for name in names]
    genome = wann.Genome(jnp.asarray(connections), jnp.asarray(codes), jnp.asarray(8, jnp.int32))
    wann.check(genome, space)
    return genome, space


def test_a_net_made_by_hand_solves_xor_with_any_weight():
    genome, space = _xor_net()
    one = tasks.xor()

    @jax.jit
    def value(params, weight):
        def net(x):
            return wann.forward(genome, space, weight, x)

        return one.evaluate(params, net, KEY), one.accuracy(params, net)

    for weight in (-2.0, -1.0, -0.5, 0.25, 0.5, 1.0, 1.5, 2.0):  # whose squares are exact: a rounding fires a step
        score, accuracy = value(one.params, weight)
        assert accuracy == 1
        np.testing.assert_allclose(score, -np.log1p(np.exp(-(weight**2))), rtol=1e-5)
    assert value._cache_size() == 1


def test_tables_count_up_with_the_first_input_as_the_highest_bit():
    one = tasks.parity(3)
    assert (one.inputs, one.outputs) == (3, 1)
    np.testing.assert_array_equal(one.params.x[:, 0] * 4 + one.params.x[:, 1] * 2 + one.params.x[:, 2], range(8))
    np.testing.assert_array_equal(one.params.y[:, 0], one.params.x.sum(1) % 2)
    assert one == tasks.Boolean([0, 1, 1, 0, 1, 0, 0, 1])
    assert hash(one) == hash(tasks.Boolean(np.array([0, 1, 1, 0, 1, 0, 0, 1])))
    assert tasks.xor().table == ((0,), (1,), (1,), (0,))
    assert tasks.parity(5).params.y.sum() == 16
    with jax.enable_x64(True):
        assert tasks.xor().evaluate(tasks.xor().params, lambda x: x[:, :1], KEY).dtype == np.float64


def test_a_half_adder_has_two_outputs():
    one = tasks.by_name("boolean", table=((0, 0), (0, 1), (0, 1), (1, 0)))
    assert (one.inputs, one.outputs) == (2, 2)
    right = np.where(np.asarray(one.params.y) > 0, 3, -3).astype(np.float32)
    assert one.accuracy(one.params, lambda x: right) == 1
    np.testing.assert_allclose(one.evaluate(one.params, lambda x: right, KEY), -np.log1p(np.exp(-3)), rtol=1e-6)
    np.testing.assert_allclose(one.evaluate(one.params, lambda x: 0 * right, KEY), -np.log(2), rtol=1e-6)
    assert one.accuracy(one.params, lambda x: 0 * right) == 0.25  # no output is positive, right for 0, 0
    wrong = right.copy()
    wrong[1, 0], wrong[2, 1] = 3, np.nan
    assert one.accuracy(one.params, lambda x: wrong) == 0.5
    assert np.isnan(one.evaluate(one.params, lambda x: wrong, KEY))


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: tasks.Boolean((0, 1, 1)), "table has 3 rows; expected 2.n for n inputs, 1 to 16"),
        (lambda: tasks.Boolean((1,)), "table has 1 rows"),
        (lambda: tasks.Boolean(((0, 1), (0,))), r"table has rows of \[1, 2\] values; expected as many in each"),
        (lambda: tasks.Boolean((0, 2)), "table holds 2; expected 0 and 1"),
        (lambda: tasks.parity(0), "bits=0 must be a whole number from 1 to 16"),
        (lambda: tasks.parity(2.0), "bits=2.0 must be"),
        (lambda: tasks.Regression("sin"), "function 'sin' is not one of .*did you mean 'sin[ce]'"),
        (lambda: tasks.Regression(size=0), "size=0 must be a whole number, at least 1"),
    ],
)
def test_what_cannot_be_a_task_is_said_in_one_sentence(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()


@pytest.mark.parametrize("name", regression.FUNCTIONS)
def test_the_curve_itself_has_no_error_and_noise_is_all_of_it(name):
    one = tasks.Regression(name, size=4000)
    function = regression.FUNCTIONS[name]
    assert one.evaluate(one.params, function, KEY) == 0
    noisy = regression.Params(noise=0.3)
    # Five standard errors of a mean of squares of 4000 normals.
    np.testing.assert_allclose(one.evaluate(noisy, function, KEY), -0.09, rtol=5 * np.sqrt(2 / 4000))


def test_examples_of_a_curve_are_uniform_and_new_for_every_key():
    one = tasks.Regression(jnp.cos, size=5000, params=regression.Params(2.0, 5.0))
    x, y = one.examples(one.params, KEY)
    assert x.shape == y.shape == (5000, 1)
    np.testing.assert_allclose(y, np.cos(x), atol=1e-6)
    assert 2 <= x.min() < 2.01
    assert 4.99 < x.max() < 5
    np.testing.assert_allclose(x.mean(), 3.5, atol=5 * 3 / np.sqrt(12 * 5000))
    assert np.mean(x == one.examples(one.params, jax.random.key(1)).x) < 1e-3
    assert tasks.check_task(one) == "batch"
    with jax.enable_x64(True):
        assert one.examples(one.params, KEY).x.dtype == np.float64


@pytest.fixture(scope="module")
def digits():
    """The task of the digits that come with scikit-learn."""
    return tasks.by_name("digits")


def test_digits_are_those_of_the_data_set_in_three_disjoint_parts(digits):
    assert (digits.inputs, digits.outputs) == (64, 10)
    assert "step" not in digits.activations
    assert len(digits.activations) == 9
    sizes = {name: split.x.shape for name, split in digits.params._asdict().items()}
    assert sizes == {"train": (1150, 64), "validation": (288, 64), "test": (359, 64)}
    whole = data.load("digits")
    np.testing.assert_array_equal(digits.params.test.x, whole.test.x.reshape(359, 64))
    np.testing.assert_array_equal(digits.params.test.y, whole.test.y)

    def rows(*parts):
        return sorted((*map(float, row), int(label)) for x, y in parts for row, label in zip(x, y, strict=True))

    ours = rows(*jax.tree.map(np.asarray, digits.params[:2]))
    assert ours == rows((whole.train.x.reshape(1438, 64), whole.train.y))
    shares = np.bincount(whole.train.y) * (288 / 1438)
    assert np.abs(np.bincount(digits.params.validation.y) - shares).max() < 1
    assert tasks.by_name("digits") is digits


def test_a_net_that_knows_nothing_gets_minus_ln_ten(digits):
    assert tasks.check_task(digits) == "batch"
    assert tasks.differentiable(digits)
    value = digits.evaluate(digits.params, lambda x: jnp.zeros((len(x), 10)), KEY)
    np.testing.assert_allclose(value, -np.log(10), rtol=1e-6)
    assert np.isnan(digits.evaluate(digits.params, lambda x: jnp.full((len(x), 10), jnp.nan), KEY))
    assert digits.accuracy(digits.params, lambda x: jnp.full((len(x), 10), jnp.nan)) == 0


def test_a_linear_net_learns_digits_by_the_gradient_of_the_reward(digits):
    @jax.jit
    def train(params):
        def step(weights, key):
            slope = jax.grad(lambda weights: digits.evaluate(params, lambda x: x @ weights, key))(weights)
            return weights + 0.5 * slope, None

        return jax.lax.scan(step, jnp.zeros((64, 10)), jax.random.split(KEY, 200))[0]

    weights = train(digits.params)

    def net(x):
        return x @ weights

    accuracy = {part: float(digits.accuracy(digits.params, net, part)) for part in digits.params._fields}
    assert min(accuracy.values()) > 0.88
    assert digits.accuracy(digits.params, net) == accuracy["validation"]
    x, y = digits.params.test
    np.testing.assert_allclose(accuracy["test"], np.mean(np.argmax(x @ weights, 1) == y), rtol=1e-6)
    with pytest.raises(ValueError, match="part 'tets' is not one of train, validation, test; did you mean 'test'"):
        digits.accuracy(digits.params, net, "tets")


def _numbered(n, batch_size):
    """A task whose example i is the number i."""
    part = Split(np.arange(n, dtype=np.float32)[:, None], np.arange(n, dtype=np.int32) % 2)
    return classification.Classification("numbered", classification.Parts(part, part, part), 2, batch_size)


def test_a_batch_is_drawn_evenly_and_without_replacement():
    one = _numbered(50, 20)
    batches = jax.jit(jax.vmap(one.examples, (None, 0)))(one.params, jax.random.split(KEY, 4000))
    numbers = np.sort(batches.x[..., 0], 1).astype(int)
    assert numbers.shape == (4000, 20)
    assert (np.diff(numbers, axis=1) > 0).all()
    np.testing.assert_array_equal(batches.x[..., 0] % 2, batches.y)
    share = np.bincount(numbers.ravel(), minlength=50) / 4000
    np.testing.assert_allclose(share, 0.4, atol=5 * np.sqrt(0.24 / 4000))
    whole = _numbered(50, None)
    np.testing.assert_array_equal(whole.examples(whole.params, KEY).x[:, 0], range(50))


def test_all_nets_of_one_key_see_one_batch_and_compile_once(digits):
    weights = jax.random.normal(KEY, (5, 64, 10))

    @jax.jit
    def values(params, weights, key):
        return jax.vmap(lambda w: digits.evaluate(params, lambda x: x @ w, key))(weights)

    x, y = digits.examples(digits.params, KEY)
    assert x.shape == (500, 64)
    for got, w in zip(values(digits.params, weights, KEY), weights, strict=True):
        logits = np.asarray(x, float) @ np.asarray(w, float)
        expected = logits[np.arange(500), y] - np.log(np.exp(logits).sum(1))
        np.testing.assert_allclose(got, expected.mean(), rtol=1e-5)
    assert not np.allclose(values(digits.params, weights, jax.random.key(1)), values(digits.params, weights, KEY))
    assert values._cache_size() == 1


def test_parts_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="batch_size=51 must lie between 1 and 50, the training examples"):
        _numbered(50, 51)
    part = Split(np.zeros((4, 2)), np.zeros(3, np.int32))
    with pytest.raises(ValueError, match=r"train has x \(4, 2\) and y \(3,\); expected \(n, inputs\) and \(n,\)"):
        classification.Classification("wrong", classification.Parts(part, part, part))


# Images: the obvious way, one by one.


def _upright(image):
    """One image resheared by its moments, after OpenCV's conventions, pixel by pixel."""
    height, width = image.shape
    y, x = np.mgrid[:height, :width]
    mass = image.sum()
    x_mean, y_mean = (image * x).sum() / mass, (image * y).sum() / mass
    spread = (image * (y - y_mean) ** 2).sum()
    if abs(spread) < 1e-2:
        return image
    slant = (image * (x - x_mean) * (y - y_mean)).sum() / spread
    # Output pixel (y, x) reads the input at (y, x + slant (y - height/2)).
    return ndimage.affine_transform(
        image, [[1, 0], [slant, 1]], [0, -slant * height / 2], order=1, mode="grid-constant", cval=0.0
    )


def _drawings(n=50, shape=(16, 16)):
    draw = np.random.default_rng(0)
    images = ndimage.gaussian_filter(draw.random((n, *shape)) ** 8, (0, 1.5, 1.5))
    return np.maximum(images - images.mean(), 0) * 8


def test_a_slanted_bar_becomes_upright():
    y, x = np.mgrid[:16, :16]
    for slant in (-0.8, -0.3, 0.0, 0.4, 0.8):
        bar = np.clip(1.5 - np.abs(x - 8 - slant * (y - 8)), 0, 1) * ((y > 2) & (y < 14))
        upright = mnist.deskew(bar[None])[0]
        np.testing.assert_allclose(mnist.skew(bar[None]), slant, atol=0.01)
        np.testing.assert_allclose(mnist.skew(upright[None]), 0, atol=0.02)
        middles = (upright * x).sum(1)[3:14] / upright.sum(1)[3:14]
        assert np.ptp(middles) < 0.15
        np.testing.assert_allclose(upright.sum(), bar.sum(), rtol=1e-6)


def test_images_are_made_upright_as_one_by_one():
    images = _drawings()
    assert np.abs(mnist.skew(images)).max() > 0.1
    expected = [_upright(image) for image in images]
    np.testing.assert_allclose(mnist.deskew(images), expected, atol=1e-12)
    np.testing.assert_allclose(mnist.deskew(images.astype(np.float32)), expected, atol=1e-5)
    tall = _drawings(5, (20, 12))
    np.testing.assert_allclose(mnist.deskew(tall), [_upright(image) for image in tall], atol=1e-12)


def test_flat_and_empty_images_stay_as_they_are():
    images = np.zeros((3, 16, 16), np.float32)
    images[1, 8] = 1  # one row has no spread in height
    images[2, 3, 4] = 0.5
    np.testing.assert_array_equal(mnist.deskew(images), images)
    assert mnist.preprocess(np.zeros((0, 28, 28), np.float32)).shape == (0, 256)


@pytest.mark.parametrize("shape", [(28, 28), (16, 16), (8, 8), (31, 20)])
def test_images_are_resized_as_one_by_one(shape):
    images = _drawings(5, shape)
    places = [np.clip((np.arange(16) + 0.5) * length / 16 - 0.5, 0, length - 1) for length in shape]
    grid = np.meshgrid(*places, indexing="ij")
    expected = [ndimage.map_coordinates(image, grid, order=1) for image in images]
    np.testing.assert_allclose(mnist.resize(images), expected, atol=1e-12)


def test_images_are_as_opencv_makes_them():
    cv2 = pytest.importorskip("cv2")
    images = _drawings(50, (28, 28))
    for image, found in zip(images, mnist.preprocess(images).reshape(-1, 16, 16), strict=True):
        small = cv2.resize(image, (16, 16))
        np.testing.assert_allclose(mnist.resize(image[None])[0], small, atol=1e-12)
        moments = cv2.moments(small)
        slant = moments["mu11"] / moments["mu02"]
        np.testing.assert_allclose(mnist.skew(small[None])[0], slant, atol=1e-10)
        matrix = np.array([[1, slant, -8 * slant], [0, 1, 0]], np.float32)
        expected = cv2.warpAffine(small, matrix, (16, 16), flags=cv2.WARP_INVERSE_MAP | cv2.INTER_LINEAR)
        # OpenCV rounds places to a 32nd of a pixel, so it is off by a 64th of the step between two, edges among them.
        steps = np.abs(np.diff(np.pad(small, 1)))
        np.testing.assert_allclose(found, expected, atol=steps.max() / 64 + 1e-6)


def test_mnist_is_small_upright_and_quickly_so(real_data):
    one = tasks.by_name("mnist16", cache=real_data)
    assert (one.inputs, one.outputs, one.batch_size) == (256, 10, 1000)
    assert tasks.check_task(one) == "batch"
    sizes = [split.x.shape for split in one.params]
    assert sizes == [(50_000, 256), (10_000, 256), (10_000, 256)]
    assert all(split.x.dtype == np.float32 for split in one.params)
    x = np.asarray(one.params.test.x)
    assert x.min() == 0
    assert 0.9 < x.max() <= 1 + 1e-6
    value = one.evaluate(one.params, lambda x: jnp.zeros((len(x), 10)), KEY)
    np.testing.assert_allclose(value, -np.log(10), rtol=1e-6)
    images = data.load("mnist", cache=real_data).test.x[..., 0]
    started = time.process_time()
    again = mnist.preprocess(images)
    assert 7 * (time.process_time() - started) < 30  # seconds for all 70,000; 0.4 s on one core in the making
    np.testing.assert_array_equal(again, x)
    slants = mnist.skew(mnist.resize(images)), mnist.skew(x.reshape(-1, 16, 16))
    assert np.abs(slants[0]).mean() > 0.15
    assert np.abs(slants[1]).mean() < 0.03
