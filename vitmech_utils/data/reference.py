"""The figure as matplotlib itself draws it: what every faster drawing is held against."""

import contextlib
import functools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import matplotlib
import numpy as np
from jaxtyping import Float, UInt8
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from numpy import ndarray
from PIL import Image

from vitmech_utils.data.chirps import DURATION, MAX_FREQUENCY
from vitmech_utils.data.style import BARS, HEIGHT, PLOT, WIDTH, Style

IMAGE_SIZE = 224


@functools.cache
def default_settings() -> dict:
    """matplotlib's own settings, so that neither a user's matplotlibrc nor a plot style changes a data set."""
    return {key: value for key, value in matplotlib.rcParamsDefault.items() if not key.startswith("backend")}


@contextlib.contextmanager
def plain_text() -> Iterator[None]:
    """matplotlib's own settings of text; cheap where nobody has changed them."""
    settings = {key: value for key, value in default_settings().items() if key.startswith(("text.", "font."))}
    changed = {key: value for key, value in settings.items() if matplotlib.rcParams[key] != value}
    with matplotlib.rc_context(changed) if changed else contextlib.nullcontext():
        yield


@dataclass(frozen=True)
class Artists:
    """The parts of a drawn figure."""

    figure: Figure
    plot: Axes
    image: AxesImage
    bar: Axes | None

    def pixels(self) -> UInt8[ndarray, "480 640 3"]:
        """The figure drawn by Agg."""
        with matplotlib.rc_context(default_settings()):
            canvas = FigureCanvasAgg(self.figure)
            canvas.draw()
        return np.asarray(canvas.buffer_rgba())[..., :3].copy()

    def alone(self, parts: Iterable[Artist]) -> UInt8[ndarray, "480 640 3"]:
        """Some of the figure's artists on white, in the order given, where the last `pixels()` put them.

        The same as `pixels()` with all others hidden, at a fraction of its cost: nothing is laid out again.
        """
        with matplotlib.rc_context(default_settings()):
            canvas = FigureCanvasAgg(self.figure)
            renderer = canvas.get_renderer()
            self.figure.patch.draw(renderer)
            for part in parts:
                part.draw(renderer)
        return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def build_figure(grid: Float[ndarray, "128 128"], style: Style, title: str) -> Artists:
    """The figure of a grid under a style, as matplotlib objects; `published` is the study's figure."""
    with matplotlib.rc_context(default_settings() | {"font.size": 10.0 * style.font_scale}):
        figure = Figure(figsize=(WIDTH / 100, HEIGHT / 100), dpi=100)
        plot = _place(figure, PLOT, style)
        low, high = style.colour_limits or (None, None)
        image = plot.imshow(
            grid,
            aspect="auto",
            origin="lower",
            cmap=style.colour_map,
            vmin=low,
            vmax=high,
            extent=(0, DURATION, 0, MAX_FREQUENCY),
        )
        if title:
            _put_title(plot, title, style)
        _dress_axes(plot, style)
        bar = None
        if style.colour_bar != "none":
            bar = _place(figure, BARS[style.colour_bar], style)
            _put_colour_bar(figure, image, bar, style)
    return Artists(figure, plot, image, bar)


def _place(figure: Figure, rectangle: tuple[float, float, float, float], style: Style) -> Axes:
    left, bottom, width, height = rectangle
    right, up = style.shift
    return figure.add_axes(((left + right) / WIDTH, (bottom + up) / HEIGHT, width / WIDTH, height / HEIGHT))


def _put_title(plot: Axes, title: str, style: Style) -> None:
    title = plain_title(title)
    plot.title.set_parse_math(False)  # it may be a file's name, and dollar signs in it are no formula
    if style.title_side == "bottom":
        below = -0.115 if style.time_side == "bottom" else -0.1
        plot.set_title(title, y=below, verticalalignment="center_baseline")
    elif style.time_side == "top":
        plot.set_title(title, y=1.1, verticalalignment="center_baseline")  # above the tick labels
    else:
        plot.set_title(title)


def plain_title(title: str) -> str:
    """A title on one line, without characters that no font has a picture of."""
    return "".join(sign if sign.isprintable() else " " for sign in title)


def _dress_axes(plot: Axes, style: Style) -> None:
    plot.xaxis.set_ticks_position(style.time_side)
    plot.yaxis.set_ticks_position(style.frequency_side)
    if style.axis_labels:
        plot.set_xlabel("Time (s)")
        plot.set_ylabel("Frequency (Hz)")
        plot.xaxis.set_label_position(style.time_side)
        plot.yaxis.set_label_position(style.frequency_side)
    if not style.ticks:
        plot.set_xticks([])
        plot.set_yticks([])
    if not style.frame:
        plot.spines[:].set_visible(False)


def _put_colour_bar(figure: Figure, image: AxesImage, bar: Axes, style: Style) -> None:
    if style.colour_bar == "right":
        colour_bar = figure.colorbar(image, cax=bar, label="Intensity" if style.axis_labels else "")
    else:
        colour_bar = figure.colorbar(image, cax=bar, ticklocation="left")
        if style.axis_labels:
            bar.set_xlabel("Intensity")
    if not style.ticks:
        colour_bar.set_ticks([])
    if not style.frame:
        colour_bar.outline.set_visible(False)


def shrink(pixels: UInt8[ndarray, "480 640 *channels"]) -> UInt8[ndarray, "224 224 *channels"]:
    """The figure at the model's size, by Pillow's bilinear filter as torchvision's Resize applies it."""
    return np.asarray(Image.fromarray(pixels).resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BILINEAR))


def draw_by_matplotlib(
    grid: Float[ndarray, "128 128"], style: Style, title: str
) -> UInt8[ndarray, "224 224 3"]:
    """The whole figure through matplotlib, then shrunk."""
    return shrink(build_figure(grid, style, title).pixels())
