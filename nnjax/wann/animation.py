"""Moving pictures of episodes: frames drawn without a plotting library, and GIF files of them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from nnjax.plotting import COLORS
from nnjax.types import Array

_FINE = 3  # frames are drawn this many times larger and averaged down, which smooths edges
_PALETTE_FRAMES = 8
_PAPER, _INK, _RAIL = (255, 255, 255), (51, 51, 51), (170, 170, 170)
_BODY, _ROD, _PUSH = COLORS[0], COLORS[1], COLORS[2]


def animate(frames: Iterable[Array], path: str | Path, fps: float = 25) -> Path:
    """Write frames as a GIF that repeats for ever, with one palette for all of them, without dithering.

    A file holds durations in hundredths of a second, so that ``fps`` is met as nearly as these allow, and equal frames
    in succession are one that stands longer.

    Args:
      frames: arrays of one shape, (height, width, 3) uint8, at least one.
      path: of the file, which is replaced; its folder must exist.
      fps: frames a second, at most 50, above which viewers slow down.

    Returns:
      The path.

    Raises:
      ValueError: no frames, frames of another kind or of several shapes, or ``fps`` out of range.
    """
    from PIL import Image

    if not 0 < fps <= 50:
        raise ValueError(f"fps={fps} must lie above 0 and be at most 50, which viewers show")
    arrays = [np.asarray(frame) for frame in frames]
    if not arrays:
        raise ValueError("frames is empty; a GIF needs at least one")
    shape = arrays[0].shape
    for number, array in enumerate(arrays):
        if array.ndim != 3 or array.shape[-1] != 3 or array.dtype != np.uint8 or array.shape != shape:
            raise ValueError(f"frame {number} is {array.dtype} of shape {array.shape}; expected uint8 "
                             f"(height, width, 3), the same for all")  # fmt: skip
    some = np.unique(np.linspace(0, len(arrays) - 1, _PALETTE_FRAMES).astype(int))
    sample = Image.fromarray(np.concatenate([arrays[i] for i in some]))
    palette = sample.quantize(128, method=Image.Quantize.MEDIANCUT)
    images = [Image.fromarray(array).quantize(palette=palette, dither=Image.Dither.NONE) for array in arrays]
    duration = 10 * max(2, round(100 / fps))
    path = Path(path)
    images[0].save(path, "GIF", save_all=True, append_images=images[1:], duration=duration, loop=0, optimize=True)
    return path


def cartpole_frames(
    position: Array, angle: Array, action: Array | None = None, *, limit: float = 2.4, length: float = 0.6,
    width: int = 400,
) -> list[np.ndarray]:  # fmt: skip
    """A cart on a rail with its pole, one frame a state; thin the arrays out for a shorter film.

    Args:
      position: (steps,) of the cart, m; not finite where nothing shall be drawn.
      angle: (steps,) of the pole, rad: 0 upright, pi hanging, positive to the left, as in
        `nnjax.wann.tasks.SwingUp`.
      action: (steps,), drawn as a bar in its direction, clipped to [-1, 1].
      limit: half the length of the rail, m, which a mark at each end shows.
      length: of the pole, m.
      width: of a frame, pixels.

    Returns:
      As many arrays (height, width, 3) uint8.

    Raises:
      ValueError: arrays of other shapes.
    """
    position, angle, push = _rows(position=position, angle=angle, action=action)
    scale = width / (2 * (limit + length) + 0.2)
    height = round(scale * (2.2 * length + 0.5))

    def draw(pen: _Pen, step: int) -> None:
        x, theta = position[step], angle[step]
        pen.line((-limit, 0), (limit, 0), 0.02, _RAIL)
        for end in (-limit, limit):
            pen.line((end, -0.12), (end, 0.12), 0.03, _RAIL)
        pen.box((x, 0), 0.4, 0.18, _BODY)
        if push is not None:
            pen.line((x, -0.17), (x + 0.5 * float(np.clip(push[step], -1, 1)), -0.17), 0.06, _PUSH)
        tip = (x - length * np.sin(theta), length * np.cos(theta))
        pen.rod((x, 0), tip, 0.06, _ROD)

    return _film(draw, np.isfinite(position) & np.isfinite(angle), width, height, scale)


def pendulum_frames(angle: Array, action: Array | None = None, *, size: int = 200) -> list[np.ndarray]:
    """A pendulum, one frame a state.

    Args:
      angle: (steps,) rad: 0 upright, pi hanging, positive to the left; not finite where nothing shall be drawn.
      action: (steps,), drawn as a bar to the left where positive, clipped to [-1, 1].
      size: width and height of a frame, pixels.

    Returns:
      As many arrays (size, size, 3) uint8.

    Raises:
      ValueError: arrays of other shapes.
    """
    angle, push = _rows(angle=angle, action=action)

    def draw(pen: _Pen, step: int) -> None:
        pen.rod((0, 0), (-np.sin(angle[step]), np.cos(angle[step])), 0.14, _ROD)
        if push is not None:
            pen.line((0, -1.15), (-0.8 * float(np.clip(push[step], -1, 1)), -1.15), 0.08, _PUSH)

    return _film(draw, np.isfinite(angle), size, size, size / 2.5)


def acrobot_frames(first: Array, second: Array, *, size: int = 200, goal: float | None = 1.0) -> list[np.ndarray]:
    """Two links that hang from a pivot, each of length 1, one frame a state.

    Args:
      first: (steps,) rad, angle of the upper link: 0 hanging, positive to the right; not finite where nothing shall be
        drawn.
      second: (steps,) rad, angle of the lower link against the upper.
      size: width and height of a frame, pixels.
      goal: height above the pivot, drawn as a line, which the tip is to reach; None for no line.

    Returns:
      As many arrays (size, size, 3) uint8.

    Raises:
      ValueError: arrays of other shapes.
    """
    first, second = _rows(first=first, second=second)

    def draw(pen: _Pen, step: int) -> None:
        if goal is not None:
            pen.line((-2.2, goal), (2.2, goal), 0.03, _RAIL)
        bend, turn = first[step], first[step] + second[step]
        elbow = (np.sin(bend), -np.cos(bend))
        pen.rod((0, 0), elbow, 0.2, _BODY)
        pen.rod(elbow, (elbow[0] + np.sin(turn), elbow[1] - np.cos(turn)), 0.2, _ROD)

    return _film(draw, np.isfinite(first) & np.isfinite(second), size, size, size / 4.5)


class _Pen:
    """Draws in meters, the origin in the middle of the picture, y upward."""

    def __init__(self, width: int, height: int, scale: float) -> None:
        from PIL import Image, ImageDraw

        self.image = Image.new("RGB", (width * _FINE, height * _FINE), _PAPER)
        self._draw, self._scale = ImageDraw.Draw(self.image), scale * _FINE
        self._middle = (width * _FINE / 2, height * _FINE / 2)

    def _at(self, point: Any) -> tuple[float, float]:
        return self._middle[0] + self._scale * float(point[0]), self._middle[1] - self._scale * float(point[1])

    def line(self, start: Any, end: Any, thickness: float, color: Any) -> None:
        self._draw.line([self._at(start), self._at(end)], fill=color, width=max(1, round(thickness * self._scale)))

    def disk(self, center: Any, radius: float, color: Any) -> None:
        (x, y), r = self._at(center), radius * self._scale
        self._draw.ellipse([x - r, y - r, x + r, y + r], fill=color)

    def box(self, center: Any, width: float, height: float, color: Any) -> None:
        (x, y), w, h = self._at(center), width * self._scale / 2, height * self._scale / 2
        self._draw.rounded_rectangle([x - w, y - h, x + w, y + h], radius=h / 3, fill=color)

    def rod(self, start: Any, end: Any, thickness: float, color: Any) -> None:
        """A line with round ends and a joint at its start."""
        self.line(start, end, thickness, color)
        self.disk(start, thickness / 2, color)
        self.disk(end, thickness / 2, color)
        self.disk(start, thickness / 4, _INK)


def _film(draw: Any, shown: np.ndarray, width: int, height: int, scale: float) -> list[np.ndarray]:
    frames = []
    for step, there in enumerate(shown):
        pen = _Pen(width, height, scale)
        if there:
            draw(pen, step)
        frames.append(np.asarray(pen.image.reduce(_FINE)))
    return frames


def _rows(**given: Array | None) -> list[Any]:
    """The arrays as floats, once it is sure that they are (steps,) and equally long."""
    rows = {name: None if value is None else np.asarray(value, float) for name, value in given.items()}
    first, *_ = given
    steps = np.asarray(rows[first]).shape
    for name, row in rows.items():
        if row is not None and (len(steps) != 1 or row.shape != steps):
            expected = "(steps,)" if name == first else f"{steps}, that of {first}"
            raise ValueError(f"{name} has shape {row.shape}; expected {expected}")
    return list(rows.values())
