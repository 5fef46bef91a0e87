"""One figure style for all studies: what is measured is a band, what theory says is a black line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from nnjax.naming import choose
from nnjax.types import Array

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito (2008): told apart by colour-blind readers and in print.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442")

_STYLE = {
    "figure.dpi": 110,
    "savefig.dpi": 110,
    "figure.constrained_layout.use": True,
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titlepad": 13,  # room for what `mark` writes
    "axes.labelsize": 9,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "grid.linewidth": 0.5,
    "lines.linewidth": 1.4,
    "svg.hashsalt": "nnjax",
}


@contextmanager
def style() -> Iterator[None]:
    """The house style for the figures made inside; global settings stay as they were."""
    from cycler import cycler
    from matplotlib import rc_context

    with rc_context(_STYLE | {"axes.prop_cycle": cycler(color=COLORS)}):  # type: ignore[arg-type]
        yield


def figure(rows: int = 1, columns: int = 1, *, width: float = 3.6, height: float = 2.9) -> tuple[Figure, Any]:
    """A figure of ``rows`` x ``columns`` panels, each ``width`` x ``height`` inches, with no window behind it.

    Returns the figure and an array of Axes (rows, columns).
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    made = Figure(figsize=(width * columns, height * rows), layout="constrained")
    FigureCanvasAgg(made)
    return made, made.subplots(rows, columns, squeeze=False)


def band(
    axes: Axes, x: Array, samples: Array, *, label: str, color: str | None = None, median: bool = False, **line: Any
) -> None:
    """A curve with its spread over seeds.

    Args:
      axes: where to draw.
      x: (m,).
      samples: (seeds, m).
      label: for the legend.
      median: draw the median and the quartiles (for heavy tails) instead of the mean and its 95 % t-interval.
      line: for `Axes.plot`.
    """
    from nnjax.statistics import t_interval

    samples = np.asarray(samples, float)
    if median:
        low, middle, high = np.quantile(samples, [0.25, 0.5, 0.75], axis=0)
    else:
        middle, low, high = t_interval(samples)
    (drawn,) = axes.plot(x, middle, label=label, color=color, **line)
    if len(samples) > 1:
        axes.fill_between(x, low, high, color=drawn.get_color(), alpha=0.2, linewidth=0)


def theory(axes: Axes, x: Array, y: Array, *, label: str | None = "theory", **line: Any) -> None:
    """A closed form: black, over the measurement, with a gap where it is infinite."""
    y = np.where(np.isfinite(np.asarray(y, float)), y, np.nan)
    look: dict[str, Any] = {"color": "black", "linestyle": "--", "linewidth": 1.1, "zorder": 5, "label": label}
    axes.plot(x, y, **(look | line))


def mark(axes: Axes, x: float, text: str, **line: Any) -> None:
    """A vertical line at ``x`` with its meaning written above the axes."""
    look: dict[str, Any] = {"color": "0.4", "linestyle": ":", "linewidth": 1.0}
    drawn = axes.axvline(x, **(look | line))
    axes.annotate(
        text,
        (x, 1.01),
        xycoords=("data", "axes fraction"),
        va="bottom",
        ha="center",
        fontsize=7,
        color=drawn.get_color(),
    )


def log_axis(axes: Any, ticks: Sequence[float], which: str = "x") -> None:
    """A logarithmic axis with ``ticks`` written as plain numbers."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter

    axis = axes.xaxis if which == "x" else axes.yaxis
    (axes.set_xscale if which == "x" else axes.set_yscale)("log")
    axis.set_major_locator(FixedLocator(list(ticks)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def picture_grid(
    axes: Axes, pictures: Array, *, columns: int | None = None, titles: Sequence[str] = (), scale: str = "each"
) -> None:
    """Pictures side by side in one panel, gray or RGB.

    Args:
      axes: where to draw; its frame and ticks go.
      pictures: (k, h, w), or (k, h, w, 1 or 3).
      columns: pictures a row; None: about as many as rows.
      titles: a few words above each picture, in one line or more, or none.
      scale: "each": from its least value, black, to its largest, white, as feature maps want it; "none": from 0 to 1.

    Raises:
      ValueError: no pictures, another number of channels or of titles, or another scale.
    """
    pictures = np.asarray(pictures, float)
    pictures = pictures[..., None] if pictures.ndim == 3 else pictures
    if pictures.ndim != 4 or len(pictures) == 0 or pictures.shape[3] not in (1, 3):
        raise ValueError(f"pictures has shape {pictures.shape}; it must be (k, h, w) or (k, h, w, 1 or 3), k > 0")
    if titles and len(titles) != len(pictures):
        raise ValueError(f"titles has {len(titles)} entries for {len(pictures)} pictures")
    if choose("scale", scale, ("each", "none")) == "each":
        low, high = (f(pictures, (1, 2, 3), keepdims=True) for f in (np.min, np.max))
        pictures = (pictures - low) / np.where(high > low, high - low, 1)
    count, height, width, channels = pictures.shape
    columns = min(columns or int(np.ceil(np.sqrt(count))), count)
    rows = -(-count // columns)
    gap = max(1, width // 14)
    # Titles stand in the gap above their picture.
    lines = max((title.count("\n") + 1 for title in titles), default=0)
    above = max(gap, lines * height // 3)
    sheet = np.ones((rows * (height + above), columns * (width + gap), channels))
    for number, picture in enumerate(pictures):
        top, left = (number // columns) * (height + above) + above, (number % columns) * (width + gap)
        sheet[top : top + height, left : left + width] = picture
        if titles:
            axes.text(left + width / 2, top - 0.08 * height, titles[number], ha="center", va="bottom", fontsize=6)
    axes.imshow(np.clip(sheet, 0, 1).repeat(3 // channels, 2), interpolation="nearest")
    axes.set_axis_off()
