"""Every augmentation: nothing at strength 0, exact where it can be, and what it says of its draws."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from nnjax.data import augment
from nnjax.data.augment import affine, affine_transform, compose, displacement

KEY = jax.random.key(0)
N, SIZE = 6, 9
X = np.asarray(np.random.default_rng(0).uniform(size=(N, SIZE, SIZE, 3)), np.float32)
UNOPTIMIZED = {"xla_backend_optimization_level": 0}  # compiles several times faster


def _compiled(change):
    return jax.jit(change, compiler_options=UNOPTIMIZED)


# name: (key, x, strength) -> x, and a strength at which every picture changes.
ALL = {
    "shift": (augment.shift, 3.0),
    "rotate": (augment.rotate, 40.0),
    "zoom": (augment.zoom, 0.5),
    "random_crop": (augment.random_crop, 0.5),
    "mirror": (augment.mirror, 1.0),
    "elastic": (augment.elastic, 2.0),
    "brightness": (augment.brightness, 0.3),
    "contrast": (augment.contrast, 0.5),
    "saturation": (augment.color, 0.5),
    "hue": (lambda key, x, hue: augment.color(key, x, 0.0, hue=hue), 0.4),
    "together": (
        compose(
            lambda key, x, s: affine(key, x, shift=3 * s, rotate=40 * s, zoom=s, crop=s / 2, mirror=s, elastic=s),
            lambda key, x, s: augment.color(key, augment.contrast(key, augment.brightness(key, x, s), s), s, hue=s),
        ),
        0.5,
    ),
}


@pytest.mark.parametrize("name", ALL)
def test_strength_0_is_the_identity_bit_for_bit_and_one_program_serves_all(name):
    change, strength = ALL[name]
    traces = []

    def counted(key, x, strength):
        traces.append(1)
        return change(key, x, strength)

    program = _compiled(counted)
    np.testing.assert_array_equal(program(KEY, X, 0.0), X)
    made = np.asarray(program(KEY, X, strength))
    assert (made.shape, made.dtype) == (X.shape, X.dtype)
    assert (abs(made - X).max((1, 2, 3)) > 1e-3).all(), "every picture is changed"
    np.testing.assert_array_equal(program(KEY, X, strength), made)
    other = np.asarray(program(jax.random.key(1), X, strength))
    assert len(traces) == 1
    if name != "mirror":
        assert (abs(made - other).max((1, 2, 3)) > 1e-4).all(), "another key draws anew"
    # The lanes of vmap are single calls.
    lanes = _compiled(jax.vmap(change, in_axes=(None, None, 0)))(KEY, X, jnp.asarray([0.0, strength]))
    np.testing.assert_allclose(lanes, [X, made], atol=2e-5)
    assert ((made >= 0) & (made <= 1)).all()
    with jax.enable_x64(True):
        assert jax.eval_shape(change, KEY, X.astype(np.float64), strength).dtype == jnp.float64
    assert jax.eval_shape(change, KEY, jnp.asarray(X, jnp.bfloat16), strength).dtype == jnp.bfloat16


@pytest.mark.parametrize("name", ALL)
def test_pictures_get_draws_of_their_own(name):
    change, strength = ALL[name]
    same = np.broadcast_to(X[:1], (16, *X.shape[1:]))
    made = np.asarray(_compiled(change)(KEY, same, 0.5 if name == "mirror" else strength))
    assert len(np.unique(made.reshape(16, -1), axis=0)) == (2 if name == "mirror" else 16)


def test_mirroring_twice_is_the_identity_and_both_ways_agree():
    once = augment.mirror(KEY, X, 1.0)
    np.testing.assert_array_equal(once, X[:, :, ::-1])
    np.testing.assert_array_equal(augment.mirror(KEY, once, 1.0), X)
    np.testing.assert_array_equal(_compiled(lambda x: affine(KEY, x, mirror=1.0))(X), once)
    many = augment.mirror(KEY, np.broadcast_to(X[:1], (2000, SIZE, SIZE, 3)), 0.3)
    share = np.mean(np.asarray(many)[:, 0, 0, 0] != X[0, 0, 0, 0])
    assert abs(share - 0.3) < 4 * np.sqrt(0.3 * 0.7 / 2000)


AFFINE = jax.jit(affine_transform, static_argnames="fill", compiler_options=UNOPTIMIZED)


def _transformed(x, matrix, offset, fill="zeros"):
    n = len(x)
    return np.asarray(
        affine_transform(x, np.broadcast_to(matrix, (n, 2, 2)), np.broadcast_to(offset, (n, 2)), fill=fill)
    )


@pytest.mark.parametrize("fill", augment.FILLS)
def test_whole_shifts_are_exact(fill):
    for down, right in ((2, 0), (0, -3), (-1, 4), (20, -20)):
        mode = {"zeros": "constant", "nearest": "edge", "mirror": "reflect"}[fill]
        wide = np.pad(X, ((0, 0), (20, 20), (20, 20), (0, 0)), mode=mode)
        expected = wide[:, 20 - down : 20 - down + SIZE, 20 - right : 20 - right + SIZE]
        np.testing.assert_array_equal(_transformed(X, np.eye(2), [-down, -right], fill), expected)


def test_quarter_turns_are_exact():
    middle = np.full(2, (SIZE - 1) / 2)
    for quarter in range(-5, 6):
        matrix = np.asarray(augment.rotation(jnp.asarray([90.0 * quarter])))[0]
        np.testing.assert_array_equal(_transformed(X, matrix, middle - matrix @ middle), np.rot90(X, -quarter, (1, 2)))
    angles = jnp.linspace(-400, 400, 81)
    turned, radians = np.asarray(augment.rotation(angles)), np.deg2rad(np.asarray(angles))
    expected = np.moveaxis([[np.cos(radians), -np.sin(radians)], [np.sin(radians), np.cos(radians)]], -1, 0)
    np.testing.assert_allclose(turned, expected, atol=1e-5)


@pytest.mark.parametrize(("fill", "mode"), [("zeros", "grid-constant"), ("nearest", "nearest"), ("mirror", "mirror")])
def test_interpolation_is_scipys(fill, mode):
    rng = np.random.default_rng(1)
    x = rng.uniform(size=(4, 8, 11, 2)).astype(np.float32)
    matrix = (np.eye(2) + rng.normal(scale=0.4, size=(4, 2, 2))).astype(np.float32)
    offset = rng.normal(scale=3, size=(4, 2)).astype(np.float32)
    made = AFFINE(x, matrix, offset, fill=fill)
    for picture, out, m, o in zip(x, made, matrix, offset, strict=True):
        for channel in range(2):
            expected = ndimage.affine_transform(picture[..., channel], m, o, order=1, mode=mode)
            np.testing.assert_allclose(out[..., channel], expected, atol=2e-5)


def test_the_random_draws_are_those_that_are_stated():
    """A plane is moved exactly by bilinear interpolation, so its slope and middle tell the map of each picture."""
    n, size = 2000, 21
    rows, columns = np.mgrid[:size, :size].astype(np.float32) - (size - 1) / 2
    x = jnp.broadcast_to(jnp.stack([rows, columns], -1)[None], (n, size, size, 2))
    middle = size // 2

    def places(**strengths):
        made = np.asarray(_compiled(lambda: affine(KEY, x, **strengths))())[
            :, middle - 1 : middle + 2, middle - 1 : middle + 2
        ]
        return made[:, 1, 1], np.stack([made[:, 2, 1] - made[:, 1, 1], made[:, 1, 2] - made[:, 1, 1]], -1)

    def uniform(values, low, high):
        values = (np.asarray(values) - low) / (high - low)
        assert values.min() > -1e-3
        assert values.max() < 1 + 1e-3
        cells = np.histogram(values, 10, (0, 1))[0]
        assert ((cells - n / 10) ** 2 / (n / 10)).sum() < 33.7  # chi-square, 9 degrees of freedom, 1e-4

    moved, matrix = places(shift=4.0)
    np.testing.assert_allclose(matrix, np.broadcast_to(np.eye(2), (n, 2, 2)), atol=1e-4)
    uniform(-moved[:, 0], -4, 4)
    uniform(-moved[:, 1], -4, 4)
    assert abs(np.corrcoef(moved.T)[0, 1]) < 4 / np.sqrt(n)
    moved, matrix = places(rotate=30.0)
    np.testing.assert_allclose(moved, 0, atol=1e-4)
    uniform(np.rad2deg(np.arctan2(matrix[:, 1, 0], matrix[:, 0, 0])), -30, 30)
    np.testing.assert_allclose(np.linalg.det(matrix), 1, atol=1e-3)
    moved, matrix = places(zoom=0.5)
    uniform(-np.log(matrix[:, 0, 0]), -np.log(1.5), np.log(1.5))
    np.testing.assert_allclose(matrix[:, 0, 0], matrix[:, 1, 1], atol=1e-4)
    moved, matrix = places(crop=0.4)
    side = matrix[:, 0, 0]
    uniform(side, 0.6, 1)
    room = (1 - side) * size / 2
    uniform(np.clip(moved[:, 0] / np.maximum(room, 1e-3), -1, 1), -1, 1)
    assert (abs(moved) <= room[:, None] + 1e-3).all(), "the window lies in the picture"


def test_shift_turns_with_the_rest():
    """The shift comes after the turn: however a picture is turned, its middle moves by 3 pixels at most each way."""
    x = np.zeros((200, 15, 15, 1), np.float32)
    x[:, 7, 7] = 1
    made = np.asarray(_compiled(lambda: affine(KEY, x, shift=3.0, rotate=180.0, mirror=0.5))())
    rows, columns = np.mgrid[:15, :15] - 7
    mass = made[..., 0].sum((1, 2))
    center = np.stack([(made[..., 0] * rows).sum((1, 2)), (made[..., 0] * columns).sum((1, 2))], -1) / mass[:, None]
    assert abs(center).max() < 3.6, "the middle is moved by the shift, not by where the rotation would put it"


def test_elastic_fields_have_the_amplitude_and_smoothness_that_are_stated():
    n, size, width = 400, 24, 2.0
    field = np.asarray(displacement(KEY, (n, size, size + 2), 1.5, width))
    assert field.shape == (n, size, size + 2, 2)
    # Neighbors are alike within about 2 sqrt(pi) widths: so many fields and patches are independent.
    independent = n * 2 * size * (size + 2) / (4 * np.pi * width**2)
    assert abs(field.mean()) < 4 * 1.5 / np.sqrt(independent)
    deviation = field.std((0, 3))
    np.testing.assert_allclose(np.sqrt((deviation**2).mean()), 1.5, rtol=4 / np.sqrt(2 * independent))
    assert abs(deviation / 1.5 - 1).max() < 5 / np.sqrt(2 * 2 * n), "edges and corners not excepted"
    for distance in (1, 3, 6):
        a, b = field[:, 8:16, 8 : 16 - distance], field[:, 8:16, 8 + distance : 16]
        if distance < 8:
            expected = np.exp(-(distance**2) / (4 * width**2))
            assert abs(np.mean(a * b) / 1.5**2 - expected) < 0.06
    assert abs(np.corrcoef(field[..., 0].ravel(), field[..., 1].ravel())[0, 1]) < 4 / np.sqrt(independent / 2)
    np.testing.assert_allclose(displacement(KEY, (n, size, size + 2), 3.0, width), 2 * field, rtol=1e-5)


def test_color_formulas_by_hand():
    """Least and largest draws are found by many pictures of one color."""
    n = 3000
    x = np.broadcast_to(np.asarray([0.5, 0.3, 0.2], np.float32), (n, 2, 2, 3))
    moved = np.asarray(augment.brightness(KEY, x, 0.1))
    assert np.ptp(moved - x, axis=(1, 2, 3)).max() < 1e-6, "all channels alike"
    np.testing.assert_allclose([(moved - x).min(), (moved - x).max()], [-0.1, 0.1], atol=1e-3)
    gray = np.asarray(augment.color(KEY, x, 1.0))
    np.testing.assert_allclose(gray.max(-1), 0.5, atol=1e-6)  # the value is kept
    share = (0.5 - gray[:, 0, 0, 2]) / 0.3
    np.testing.assert_allclose([share.min(), share.max()], [0, 0.5 / 0.3], atol=2e-3)  # at most pure
    np.testing.assert_allclose((0.5 - gray[..., 1]) / (0.5 - gray[..., 2] + 1e-9), 2 / 3, atol=1e-3)  # the hue too
    two = np.concatenate([np.full((n, 1, 2, 3), 0.4), np.full((n, 1, 2, 3), 0.6)], 1).astype(np.float32)
    stretched = np.asarray(augment.contrast(KEY, two, 0.5))
    np.testing.assert_allclose(stretched.mean((1, 2, 3)), 0.5, atol=1e-6)
    spread = stretched[:, 1, 0, 0] - stretched[:, 0, 0, 0]
    np.testing.assert_allclose([spread.min(), spread.max()], [0.1, 0.3], atol=1e-3)


def test_colors_are_those_of_dm_pix():
    pix = pytest.importorskip("dm_pix")
    for name, strength in (("contrast", 0.4), ("brightness", 0.2)):
        made = np.asarray(getattr(augment, name)(KEY, X, strength))
        amount = np.asarray(jax.random.uniform(KEY, (N, 1, 1, 1), minval=-1, maxval=1))[:, 0, 0, 0] * strength
        if name == "contrast":
            expected = [pix.adjust_contrast(x, 1 + a) for x, a in zip(X, amount, strict=True)]
        else:
            expected = [pix.adjust_brightness(x, a) for x, a in zip(X, amount, strict=True)]
        np.testing.assert_allclose(made, np.clip(expected, 0, 1), atol=1e-5)
    first, second = jax.random.split(KEY)
    factor = 1 + 0.7 * np.asarray(jax.random.uniform(first, (N, 1, 1, 1), minval=-1, maxval=1))[:, 0, 0, 0]
    turn = 0.5 * np.asarray(jax.random.uniform(second, (N, 1, 1, 1), minval=-1, maxval=1))[:, 0, 0, 0]
    made = augment.color(KEY, X, 0.7)
    expected = [pix.adjust_saturation(x, f) for x, f in zip(X, factor, strict=True)]
    np.testing.assert_allclose(made, expected, atol=1e-5)
    made = augment.color(KEY, X, 0.0, hue=0.5)
    expected = [pix.adjust_hue(x, t) for x, t in zip(X, turn, strict=True)]
    np.testing.assert_allclose(made, expected, atol=1e-5)


def test_hue_of_a_third_exchanges_the_channels():
    x = jnp.asarray(X)
    for turn, order in ((1 / 3, (2, 0, 1)), (-1 / 3, (1, 2, 0))):
        made = augment._turned(x, jnp.full((N, 1, 1, 1), turn))
        np.testing.assert_allclose(made, X[..., list(order)], atol=1e-5)


def test_no_key_of_a_warp_is_used_twice(monkeypatch):
    """Neither drawn from two times, nor drawn from and split."""
    used = []

    def use(key):
        used.append(key)

    def split(key, count=2):
        use(key)
        return [f"{key}/{i}" for i in range(count)]

    def draw(key, *args, **_):
        use(key)
        return jnp.zeros(next((arg for arg in args if isinstance(arg, tuple)), ()))

    for name in ("uniform", "normal", "bernoulli"):
        monkeypatch.setattr(jax.random, name, draw)
    monkeypatch.setattr(jax.random, "split", split)
    monkeypatch.setattr(jax.random, "fold_in", lambda key, number: split(key)[0])
    jax.eval_shape(lambda x: affine("key", x, shift=1.0, rotate=1.0, zoom=0.1, crop=0.1, mirror=0.5, elastic=1.0), X)
    assert sorted(used) == ["key", *(f"key/{i}" for i in range(7))]


def test_a_composition_gives_every_step_its_own_key():
    steps = [lambda key, x, h: x + h * jax.random.uniform(key)] * 2
    made = compose(*steps)(KEY, jnp.zeros(()), 1.0)
    np.testing.assert_allclose(made, sum(jax.random.uniform(jax.random.fold_in(KEY, i)) for i in range(2)))
    np.testing.assert_array_equal(compose()(KEY, X, None), X)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: augment.shift(KEY, X[0], 1), r"x must have shape \(n, h, w, c\), not \(9, 9, 3\)"),
        (lambda: augment.mirror(KEY, (255 * X).astype(np.uint8)), r"x must be floats in \[0, 1\], not uint8"),
        (lambda: augment.rotate(KEY, X, -1), "rotate=-1 must not be negative"),
        (lambda: augment.shift(KEY, X, np.nan), "shift=nan must not be negative"),
        (lambda: augment.zoom(KEY, X, np.inf), "zoom=inf must not be negative or infinite"),
        (lambda: augment.contrast(KEY, X, np.float32("inf")), "amount=inf must not be negative or infinite"),
        (lambda: augment.mirror(KEY, X, 1.5), "probability=1.5 must be from 0 to 1"),
        (lambda: augment.random_crop(KEY, X, 1.0), "crop=1 must be less than 1"),
        (lambda: augment.elastic(KEY, X, 1.0, smoothness=0), "smoothness=0 must be positive"),
        (lambda: augment.zoom(KEY, X, 0.1, fill="nearst"), "fill 'nearst' is not one of .*; did you mean 'nearest'"),
        (lambda: augment.color(KEY, X[..., :1], 0.1), "x must have three channels .*, not 1"),
        (lambda: augment.brightness(KEY, X, -0.1), "amount=-0.1 must not be negative"),
        (lambda: affine_transform(X, np.eye(2), np.zeros(2)), r"matrix \(2, 2\) and offset \(2,\) must be \(6, 2, 2\)"),
    ],
)
def test_bad_arguments_are_named(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call()
