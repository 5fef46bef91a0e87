"""Frames show where things are, and a GIF reads back as the frames that went into it."""

import jax
import numpy as np
import pytest
from PIL import Image

from nnjax import plotting
from nnjax.wann import pictures
from nnjax.wann.tasks import SwingUp


def center(frame, color):
    """Mean place (x, y) of the pixels near this color."""
    rgb = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)])
    rows, columns = np.nonzero(np.abs(frame.astype(int) - rgb).sum(-1) < 40)
    return np.array([columns.mean(), rows.mean()])


def test_cartpole_frames_show_place_and_angle():
    angles = np.array([0.0, np.pi, np.pi / 2, -np.pi / 2, 2.0])
    frames = pictures.cartpole_frames(np.array([0.0, 1.2, -1.2, 2.4, np.nan]), angles, np.array([1.0, -1, 0, 0, 0]))
    assert len(frames) == 5
    assert all(frame.shape == (117, 400, 3) and frame.dtype == np.uint8 for frame in frames)
    cart = np.array([center(frame, plotting.COLORS[0]) for frame in frames[:4]])
    pole = np.array([center(frame, plotting.COLORS[1]) for frame in frames[:4]])
    scale = 400 / 6.2
    assert np.allclose((cart[:, 0] - 199.5) / scale, [0, 1.2, -1.2, 2.4], atol=0.04)
    away = (pole - cart) / scale
    assert np.allclose(away[0], [0, -0.3], atol=0.06)  # upright: above, where rows are fewer
    assert np.allclose(away[1], [0, 0.3], atol=0.06)
    assert np.allclose(away[2:], [[-0.3, 0], [0.3, 0]], atol=0.06)  # a positive angle leans to the left
    assert center(frames[0], plotting.COLORS[2])[0] > cart[0, 0]
    assert center(frames[1], plotting.COLORS[2])[0] < cart[1, 0]
    assert (frames[4] == 255).all()


def test_a_push_moves_cart_and_pole_as_drawn():
    """In the task, a push to the right tips an upright pole to the left, where a positive angle is drawn."""
    task = SwingUp()
    state = task.reset(task.params._replace(deviation=0.0), jax.random.key(0))
    state = state._replace(theta=state.theta * 0, cos=state.cos * 0 + 1, sin=state.sin * 0)
    for _ in range(5):
        state, _, _ = task.step(task.params, state, np.ones(1, np.float32))
    assert state.x > 0
    assert state.theta > 0


def test_pendulum_and_acrobot_frames():
    middle = np.array([99.5, 99.5])
    up, left = pictures.pendulum_frames(np.array([0.0, np.pi / 2]), np.array([0.5, -0.5]))
    assert np.allclose((center(up, plotting.COLORS[1]) - middle) / 80, [0, -0.5], atol=0.06)
    assert np.allclose((center(left, plotting.COLORS[1]) - middle) / 80, [-0.5, 0], atol=0.06)
    hanging, bent = pictures.acrobot_frames(np.array([0.0, np.pi / 2]), np.array([0.0, np.pi / 2]), size=180)
    scale, middle = 180 / 4.5, np.array([89.5, 89.5])
    assert np.allclose((center(hanging, plotting.COLORS[0]) - middle) / scale, [0, 0.5], atol=0.1)
    assert np.allclose((center(hanging, plotting.COLORS[1]) - middle) / scale, [0, 1.5], atol=0.1)
    assert np.allclose((center(bent, plotting.COLORS[0]) - middle) / scale, [0.5, 0], atol=0.1)
    assert np.allclose((center(bent, plotting.COLORS[1]) - middle) / scale, [1, -0.5], atol=0.1)


def test_gif_reads_back(tmp_path):
    time = np.arange(20)
    frames = pictures.cartpole_frames(np.sin(time / 3), np.pi + time / 5, np.cos(time / 2), width=240)
    path = pictures.animate(frames, tmp_path / "a.gif", fps=20)
    assert path == tmp_path / "a.gif"
    with Image.open(path) as image:
        assert (image.format, image.n_frames, image.size) == ("GIF", 20, (240, 70))
        assert image.info["loop"] == 0
        duration = 0
        for number, frame in enumerate(frames):
            image.seek(number)
            duration += image.info["duration"]
            read = np.asarray(image.convert("RGB")).astype(int)
            assert np.abs(read - frame).max() < 60  # the palette's nearest color
            assert np.abs(read - frame).mean() < 1
        assert duration == 1000
    assert path.stat().st_size < 30_000


@pytest.mark.parametrize(
    ("frames", "fps", "message"),
    [
        ([], 25, "frames is empty; a GIF needs at least one"),
        (
            [np.zeros((4, 4, 3))],
            25,
            r"frame 0 is float64 of shape \(4, 4, 3\); expected uint8 \(height, width, 3\), .*",
        ),
        (
            [np.zeros((4, 4, 3), np.uint8), np.zeros((4, 5, 3), np.uint8)],
            25,
            r"frame 1 is uint8 of shape \(4, 5, 3\).*",
        ),
        ([np.zeros((4, 4, 3), np.uint8)], 0, "fps=0 must lie above 0 and be at most 50, which viewers show"),
        ([np.zeros((4, 4, 3), np.uint8)], np.nan, "fps=nan must lie above 0 .*"),
    ],
)
def test_bad_animations_are_one_sentence(tmp_path, frames, fps, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        pictures.animate(frames, tmp_path / "a.gif", fps)
    assert not list(tmp_path.iterdir())


def test_bad_states_are_one_sentence():
    with pytest.raises(ValueError, match=r"^angle has shape \(3,\); expected \(2,\), that of position$"):
        pictures.cartpole_frames(np.zeros(2), np.zeros(3))
    with pytest.raises(ValueError, match=r"^angle has shape \(2, 1\); expected \(steps,\)$"):
        pictures.pendulum_frames(np.zeros((2, 1)))
