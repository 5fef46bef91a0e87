"""The house style stays inside its block, and each element draws what it says."""

import subprocess
import sys

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.colors import same_color, to_rgba

from nnjax import plotting
from nnjax.statistics import t_interval

X = np.array([1.0, 2.0, 4.0])
SAMPLES = np.array([[1.0, 2.0, 3.0], [3.0, 2.0, 1.0], [2.0, 5.0, 2.0], [4.0, 4.0, 9.0]])


@pytest.fixture
def axes():
    with plotting.style():
        figure, grid = plotting.figure()
        yield grid[0, 0]
        figure.canvas.draw()  # warns where something cannot be laid out


def test_style_leaves_global_settings(tmp_path):
    before = dict(mpl.rcParams)
    with plotting.style():
        assert mpl.rcParams["axes.grid"]
        assert mpl.rcParams["font.size"] == 9
        assert mpl.rcParams["axes.prop_cycle"].by_key()["color"] == list(plotting.COLORS)
        figure, _ = plotting.figure()
        figure.savefig(tmp_path / "a.png")
    assert dict(mpl.rcParams) == before
    with pytest.raises(KeyError), plotting.style():
        raise KeyError
    assert dict(mpl.rcParams) == before
    assert len({to_rgba(color) for color in plotting.COLORS}) == 7


def test_figure_has_panels_of_the_asked_size_and_no_window():
    figure, grid = plotting.figure(2, 3, width=3, height=2)
    assert grid.shape == (2, 3)
    assert figure.get_size_inches().tolist() == [9, 4]
    assert len(figure.axes) == 6
    assert type(figure.canvas).__name__ == "FigureCanvasAgg"
    assert figure.canvas.manager is None
    assert plotting.figure()[1].shape == (1, 1)


def test_no_gui_and_no_pyplot():
    code = """
import sys, warnings
warnings.simplefilter("error")
from nnjax import plotting
assert "matplotlib" not in sys.modules
with plotting.style():
    figure, axes = plotting.figure()
    plotting.band(axes[0, 0], [1, 2], [[1, 2], [3, 4]], label="a")
    figure.canvas.draw()
print([name for name in sys.modules if name in ("matplotlib.pyplot", "tkinter", "PyQt5", "PySide6", "gi")])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "[]\n", done.stderr


def drawn_band(axes):
    (line,), (fill,) = axes.lines, axes.collections
    vertices = fill.get_paths()[0].vertices
    low = np.array([vertices[vertices[:, 0] == x, 1].min() for x in X])
    high = np.array([vertices[vertices[:, 0] == x, 1].max() for x in X])
    return line, fill, low, high


def test_band_is_the_mean_and_its_interval(axes):
    plotting.band(axes, X, SAMPLES, label="nets", color="#123456", linestyle=":")
    line, fill, low, high = drawn_band(axes)
    expected = t_interval(SAMPLES)
    np.testing.assert_allclose(line.get_xydata(), np.stack([X, expected.mean], 1))
    np.testing.assert_allclose(low, expected.low)
    np.testing.assert_allclose(high, expected.high)
    assert line.get_label() == "nets"
    assert line.get_linestyle() == ":"
    assert line.get_color() == "#123456"
    assert same_color(fill.get_facecolor()[0][:3], "#123456")
    assert fill.get_facecolor()[0][3] == pytest.approx(0.2)


def test_band_of_the_median_is_the_quartiles(axes):
    plotting.band(axes, X, SAMPLES, label="nets", median=True)
    line, fill, low, high = drawn_band(axes)
    np.testing.assert_allclose(line.get_ydata(), [2.5, 3.0, 2.5])
    np.testing.assert_allclose(low, np.quantile(SAMPLES, 0.25, axis=0))
    np.testing.assert_allclose(high, np.quantile(SAMPLES, 0.75, axis=0))
    assert line.get_color() == plotting.COLORS[0]
    assert same_color(fill.get_facecolor()[0][:3], plotting.COLORS[0])


def test_one_seed_has_no_band_and_colors_follow(axes):
    for i in range(2):
        plotting.band(axes, X, SAMPLES[:1], label=str(i))
    assert len(axes.collections) == 0
    assert [line.get_color() for line in axes.lines] == list(plotting.COLORS[:2])
    np.testing.assert_array_equal(axes.lines[0].get_ydata(), SAMPLES[0])


def test_theory_is_black_above_and_has_a_gap(axes):
    plotting.band(axes, X, SAMPLES, label="nets")
    plotting.theory(axes, [1, 2, 3, 4, 5], [1, np.inf, 3, -np.inf, np.nan])
    plotting.theory(axes, X, X, label=None, color="red")
    line, other = axes.lines[1:]
    np.testing.assert_array_equal(line.get_ydata(), [1, np.nan, 3, np.nan, np.nan])
    assert same_color(line.get_color(), "black")
    assert line.get_linestyle() == "--"
    assert line.get_label() == "theory"
    assert line.get_zorder() > axes.lines[0].get_zorder()
    assert other.get_color() == "red"
    assert [text.get_text() for text in axes.legend().get_texts()] == ["nets", "theory"]


def test_mark_is_a_line_with_its_meaning_above(axes):
    axes.plot(X, X)
    plotting.mark(axes, 3.0, "p = n", color="#ff0000")
    line, text = axes.lines[-1], axes.texts[-1]
    assert list(line.get_xdata()) == [3, 3]
    assert line.get_linestyle() == ":"
    assert text.get_text() == "p = n"
    assert text.get_color() == "#ff0000"
    axes.figure.canvas.draw()
    box, frame = text.get_window_extent(), axes.get_window_extent()
    assert box.y0 >= frame.y1
    assert (box.x0 + box.x1) / 2 == pytest.approx(axes.transData.transform((3, 0))[0], abs=1)


@pytest.mark.parametrize("which", ["x", "y"])
def test_log_axis_writes_plain_numbers(axes, which):
    axes.plot([1, 30, 1000], [1, 30, 1000])
    plotting.log_axis(axes, [1, 30, 1000], which)
    axes.figure.canvas.draw()
    assert (axes.get_xscale(), axes.get_yscale()) == (("log", "linear") if which == "x" else ("linear", "log"))
    axis = axes.xaxis if which == "x" else axes.yaxis
    assert [label.get_text() for label in axis.get_ticklabels()] == ["1", "30", "1000"]
    assert {label.get_text() for label in axis.get_ticklabels(minor=True)} <= {""}


def test_picture_grid_lays_pictures_out_row_by_row(axes):
    pictures = np.stack([np.full((4, 4), value) for value in (0.0, 0.25, 1.0)])
    pictures[1, 0, 0] = 0.5
    plotting.picture_grid(axes, pictures, columns=2, titles=["a", "b", "c"], scale="none")
    sheet = np.asarray(axes.get_images()[0].get_array())
    gap, above = 1, 1
    assert sheet.shape == (2 * (4 + above), 2 * (4 + gap), 3)
    np.testing.assert_array_equal(sheet[1:5, 0:4], 0)
    assert sheet[1, 5, 0] == 0.5
    assert sheet[4, 8, 2] == 0.25
    np.testing.assert_array_equal(sheet[6:10, 5:9], 1)  # nothing stands in the last place
    assert [text.get_text() for text in axes.texts] == ["a", "b", "c"]


def test_picture_grid_stretches_each_picture_and_keeps_colors(axes):
    picture = np.random.default_rng(0).normal(size=(1, 3, 3, 3))
    plotting.picture_grid(axes, picture)
    sheet = np.asarray(axes.get_images()[0].get_array())[1:4, :3]
    np.testing.assert_allclose(sheet, (picture[0] - picture.min()) / np.ptp(picture))


@pytest.mark.parametrize(
    ("pictures", "options", "message"),
    [
        (np.zeros((0, 2, 2)), {}, "pictures has shape"),
        (np.zeros((1, 2, 2, 2)), {}, "must be"),
        (np.zeros((2, 2, 2)), {"titles": ["one"]}, "titles has 1 entries for 2 pictures"),
        (np.zeros((2, 2, 2)), {"scale": "all"}, "scale 'all' is not one of each, none"),
    ],
)
def test_bad_input_of_picture_grid(axes, pictures, options, message):
    with pytest.raises(ValueError, match=message):
        plotting.picture_grid(axes, pictures, **options)
