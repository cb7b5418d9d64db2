"""Maps of heads: their colours, ticks and marks tell the values that were given."""

from base64 import b64decode
from io import BytesIO
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
from IPython.core.interactiveshell import InteractiveShell
from matplotlib.colors import SymLogNorm
from matplotlib.figure import Figure
from matplotlib_inline.backend_inline import select_figure_formats
from PIL import Image

from vitmech_utils.figures import plots
from vitmech_utils.figures.marks import plain_log, rarer
from vitmech_utils.figures.plots import decades, heatmap

EFFECTS = np.array([[0.5, -0.5, 0.0], [3.0, -40.0, 600.0]])


@pytest.fixture
def ax():
    figure, ax = plt.subplots()
    yield ax
    plt.close(figure)


def test_effects_of_many_sizes_are_told_apart_and_hardly_any_effect_stays_pale(ax) -> None:
    norm = heatmap(ax, EFFECTS, label="effect (%)", diverging=True, linear=1.0).norm
    places = norm(EFFECTS)
    assert isinstance(norm, SymLogNorm)
    assert float(norm(0.0)) == pytest.approx(0.5)  # the middle of a diverging map is white
    assert np.abs(places[0] - 0.5).max() < 0.05
    assert places[1, 0] - 0.5 > 0.1  # a linear scale would leave 3 of 600 within 0.003
    np.testing.assert_allclose(norm(-EFFECTS), 1 - places)


def test_a_logarithmic_colour_bar_has_plain_numbers_at_powers_of_ten(ax) -> None:
    heatmap(ax, EFFECTS, label="effect (%)", diverging=True, linear=1.0)
    ax.figure.canvas.draw()
    bar = ax.figure.axes[1]
    assert [tick.get_text() for tick in bar.get_yticklabels()] == ["−100", "−10", "−1", "0", "1", "10", "100"]
    assert bar.get_ylabel() == "effect (%)"


@pytest.mark.parametrize(("values", "linear"), [(EFFECTS, None), (EFFECTS / 600, 1.0), (EFFECTS * 0, 1.0)])
def test_colours_are_linear_unless_asked_or_where_all_values_are_small(ax, values, linear) -> None:
    norm = heatmap(ax, values, label="effect (%)", diverging=True, linear=linear).norm
    assert not isinstance(norm, SymLogNorm)
    assert float(norm(norm.vmax / 2)) == pytest.approx(0.75)


def test_missing_heads_are_hatched_and_marks_lie_on_their_heads(ax) -> None:
    values = np.where(EFFECTS == 600.0, np.nan, EFFECTS)
    marked = np.array([[True, False, False], [False, True, True]])
    image = heatmap(ax, values, label="effect (%)", diverging=True, linear=1.0, marked=marked)
    assert image.get_array().mask.sum() == 1
    dots = [tuple(np.round(line.get_xydata()[0]).astype(int)) for line in ax.lines]
    assert dots == [(0, 0), (1, 1)]  # (head, layer); none on the missing head
    assert ax.patch.get_hatch()


def test_another_shape_is_refused(ax) -> None:
    with pytest.raises(ValueError, match=r"\[layer, head\], got shape \(3,\)"):
        heatmap(ax, np.zeros(3), label="effect (%)")


def test_decades_hold_zero_and_both_signs() -> None:
    ticks = decades(0.5)
    assert ticks == sorted(ticks)
    assert {0.0, 0.5, -0.5, 5.0, -5.0} < {*ticks}


@pytest.mark.parametrize(
    ("values", "named"),
    [([0.02, 0.9], ["0.02", "0.05", "0.1", "0.2", "0.5", "1"]), ([0.2, 900], ["1", "10", "100", "1000"])],
)
def test_a_logarithmic_axis_has_plain_numbers_enough_to_read_a_value_off(ax, values, named) -> None:
    ax.plot([0, 1], values)
    plain_log(ax)
    ax.figure.canvas.draw()
    low, high = ax.get_ylim()
    labels = zip(ax.get_yticks(), ax.get_yticklabels(), strict=True)
    assert [label.get_text() for place, label in labels if low <= place <= high] == named


def test_the_fewer_cells_are_marked() -> None:
    most = np.array([[True, True], [True, False]])
    marked, chosen = rarer(most)
    assert (marked == ~most).all()
    assert not chosen
    assert rarer(~most)[1]


def test_a_cell_shows_the_file_of_a_figure_until_the_figure_changes(tmp_path: Path) -> None:
    shell = InteractiveShell()
    shell.display_formatter.active_types = ["image/png"]
    select_figure_formats(shell, {"retina"})
    drawn_by_jupyter = shell.display_formatter.formatters["image/png"].lookup_by_type(Figure)
    plots._show_what_was_saved(shell)
    figure, axes = plt.subplots()
    axes.plot([1, 2])
    figure.savefig(tmp_path / "it.png", dpi=200, bbox_inches="tight")
    figure.set_layout_engine("none")
    expected = drawn_by_jupyter(figure)
    figure.saved_as, figure.stale = tmp_path / "it.png", False
    shown, said = shell.display_formatter.format(figure)
    assert b64decode(shown["image/png"]) == (tmp_path / "it.png").read_bytes()
    assert said["image/png"] == expected[1]
    assert (pixels(b64decode(shown["image/png"])) == pixels(b64decode(expected[0]))).all()
    axes.set_title("changed")
    again, _ = shell.display_formatter.format(figure)
    assert again["image/png"] == drawn_by_jupyter(figure)[0] != shown["image/png"]
    plt.close(figure)


def pixels(picture: bytes) -> np.ndarray:
    return np.asarray(Image.open(BytesIO(picture)).convert("RGB"))
