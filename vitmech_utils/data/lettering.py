"""Text through matplotlib's own font engine, no string drawn twice at one sub-pixel place; and the colour bar's ticks.

The ticks and the label of a colour bar follow each image's range of values, so they are set anew every time.
"""

import functools
import math
import re
from typing import NamedTuple

import matplotlib
import numpy as np
from jaxtyping import UInt8
from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.text import Text
from matplotlib.ticker import FixedLocator, MaxNLocator, NullFormatter, ScalarFormatter
from numpy import ndarray

from vitmech_utils.data.reference import Artists, default_settings, plain_text
from vitmech_utils.data.style import HEIGHT

STEPS = 64  # glyphs are placed on a raster of 1/64 pixel
TICK_STEPS = (1, 2, 2.5, 5, 10)  # matplotlib's AutoLocator


class Ink(NamedTuple):
    """Darkness of drawn text, 0 (none) to 255 (black), and the figure's pixel (row, column) of its first corner."""

    row: int
    column: int
    alpha: UInt8[ndarray, "height width"]

    def darken(self, pixels: UInt8[ndarray, " *canvas"], top: int = 0, left: int = 0) -> None:
        """Draw black text on a part of the figure whose first pixel is (top, left); the rest is cut off."""
        row, column = self.row - top, self.column - left
        y, x = max(row, 0), max(column, 0)
        under = pixels[y : row + self.alpha.shape[0], x : column + self.alpha.shape[1]]
        alpha = self.alpha[y - row :, x - column :][: under.shape[0], : under.shape[1]]
        light = (255 - alpha if under.ndim == 2 else 255 - alpha[..., None]).astype(np.uint16)
        under[...] = (light * under + 127) // 255


class Lettering:
    """Draws strings as one matplotlib text artist (its font, size, rotation and alignment) would."""

    def __init__(self, artist: Text, dpi: float, size: tuple[int, int]) -> None:
        self._font = artist.get_fontproperties().copy()
        self._angle = artist.get_rotation()
        self._artist = artist
        self._dpi = dpi
        self._size = size  # width, height of the largest string's box in pixels
        self.offset = functools.lru_cache(maxsize=4096)(self._offset)
        self._stamp = functools.lru_cache(maxsize=8192)(self._draw)

    def _offset(self, text: str) -> tuple[float, float, float]:
        """From the artist's anchor to where the text's baseline starts (right, up), and the text's width, in pixels."""
        with plain_text():
            self._artist.set_text(text)
            box, lines, _ = self._artist._get_layout(RendererAgg(64, 64, self._dpi))
        (_, _, (right, up)), *_ = lines
        return right, up, box.width

    def ink(self, text: str, right: float, down: float) -> Ink:
        """The ink of a text anchored at pixels (right, down) from the figure's top left corner.

        Of two texts at the same height modulo 1/64 pixel, the finest that the font engine knows, one is drawn.
        """
        dx, dy, _ = self.offset(text)
        x = right + dx
        y = round(STEPS * (down - dy))
        column, row = math.floor(x), y // STEPS
        stamp = self._stamp(text, x - column, y % STEPS)
        return Ink(row + stamp.row, column + stamp.column, stamp.alpha)

    def numbered_ink(self, text: str, right: float, down: float) -> Ink:
        """The same for a text with one number in it, put together from ten texts whose number has equal digits.

        Digits of matplotlib's font are equally wide; where they are not, or there is no number, all is drawn.
        """
        parts = re.fullmatch(r"(\D+)(\d+)(\D+)", text)
        if parts is None:
            return self.ink(text, right, down)
        before, number, after = parts.groups()
        alike = [self.ink(f"{before}{digit * len(number)}{after}", right, down) for digit in number]
        first, advance = self._digits(before, after)
        start = right + self.offset(text)[0] + first
        if len({self.offset(f"{before}{digit * len(number)}{after}") for digit in "0123456789"}) > 1:
            return self.ink(text, right, down)
        row, column = min(ink.row for ink in alike), min(ink.column for ink in alike)
        height = max(ink.row + ink.alpha.shape[0] for ink in alike) - row
        width = max(ink.column + ink.alpha.shape[1] for ink in alike) - column
        whole = np.zeros((height, width), np.uint8)
        edges = [0, *(round(start + advance * k) - column for k in range(1, len(number))), width]
        for ink, left, end in zip(alike, edges[:-1], edges[1:], strict=True):
            shift = ink.column - column
            cut = ink.alpha[:, max(0, left - shift) : end - shift]
            y, x = ink.row - row, max(left, shift)
            whole[y : y + cut.shape[0], x : x + cut.shape[1]] = cut
        return Ink(row, column, whole)

    @functools.cache  # noqa: B019 (a lettering lives as long as the process)
    def _digits(self, before: str, after: str) -> tuple[float, float]:
        """From the start of the text to its number, and one digit's width, in pixels."""
        width = [self.offset(f"{lead}{after}")[2] for lead in ("0", "00", f"0{before}0")]
        advance = width[1] - width[0]
        return width[2] - width[0] - advance, advance

    def _draw(self, text: str, x: float, y: int) -> Ink:
        width, height = self._size
        renderer = RendererAgg(2 * width, 2 * height, self._dpi)
        with plain_text():
            context = renderer.new_gc()
            context.set_foreground("black")
            renderer.draw_text(
                context, width + x, height + y / STEPS, text, self._font, self._angle, mtext=self._artist
            )
        alpha = np.asarray(renderer.buffer_rgba())[..., 3]
        rows, columns = np.flatnonzero(alpha.any(axis=1)), np.flatnonzero(alpha.any(axis=0))
        if not len(rows):
            return Ink(0, 0, np.zeros((0, 0), np.uint8))
        top, left = int(rows[0]), int(columns[0])
        ink = alpha[top : rows[-1] + 1, left : columns[-1] + 1].copy()
        return Ink(top - height, left - width, ink)


class BarInk(NamedTuple):
    """What is drawn beside a colour bar for one range of values."""

    marks: list[Ink]
    tick_labels: list[Ink]
    label: list[Ink]


class _Range:
    """The part of a matplotlib axis that a tick formatter asks for."""

    def __init__(self) -> None:
        self._low, self._high = 0.0, 1.0

    def set_view_interval(self, low: float, high: float) -> None:
        self._low, self._high = low, high

    def get_view_interval(self) -> tuple[float, float]:
        return self._low, self._high


class BarTicks:
    """Places the ticks, their labels and the label of one colour bar as matplotlib does."""

    def __init__(self, artists: Artists) -> None:
        axes, dpi = artists.bar, float(artists.figure.dpi)
        axis = axes.yaxis
        edges = axes.get_window_extent()
        self._bottom, self._height = edges.y0, edges.height
        self.on_right = axis.get_ticks_position() == "right"
        tick = axis.get_major_ticks()[0]
        label = tick.label2 if self.on_right else tick.label1
        self._label_x = float(label.get_transform().transform((float(self.on_right), 0.5))[0])
        self._letters = Lettering(label, dpi, (100, 30))
        self._name = axis.label.get_text()
        self._name_pad = axis.labelpad * dpi / 72
        self._name_y = HEIGHT - float(axis.label.get_transform().transform((0, 0.5))[1])
        self._name_letters = Lettering(axis.label, dpi, (30, 120))
        with matplotlib.rc_context(default_settings()):
            self._locator = MaxNLocator(nbins=int(np.clip(axis.get_tick_space(), 1, 9)), steps=TICK_STEPS)
            self._formatter = ScalarFormatter()
        self._range = _Range()
        self._formatter.axis = self._range
        self._mark = self._cut_mark(artists)

    def _row(self, low: float, high: float, value: float) -> float:
        """Pixels from the figure's top to a value on the bar."""
        return HEIGHT - (self._bottom + self._height * (value - low) / (high - low))

    def _cut_mark(self, artists: Artists) -> Ink:
        """One tick mark as matplotlib draws it, with its row counted from where Agg snaps the tick's position."""
        axis = artists.bar.yaxis
        low, high = axis.get_view_interval()
        middle = (low + high) / 2
        old = axis.get_major_locator(), axis.get_major_formatter()
        axis.set_major_formatter(NullFormatter())
        axis.label.set_alpha(0)  # it would move with the tick labels
        axis.set_major_locator(FixedLocator([middle]))
        around = list(artists.bar.collections), list(artists.bar.spines.values())
        one = artists.alone([*around[0], axis, *around[1]]).min(axis=2)
        axis.set_major_locator(FixedLocator([]))
        none = artists.alone([*around[0], *around[1]]).min(axis=2)
        axis.label.set_alpha(1)
        axis.set_major_locator(old[0])
        axis.set_major_formatter(old[1])
        artists.alone([axis])  # puts its parts where they were
        light = np.divide(one, none, out=np.ones(one.shape), where=none > 0)
        dark = np.rint(255 * (1 - light)).astype(np.uint8)
        rows, columns = np.nonzero(dark)
        top, left = int(rows.min()), int(columns.min())
        alpha = dark[top : rows.max() + 1, left : columns.max() + 1].copy()
        return Ink(top - _snap(self._row(low, high, middle)), left, alpha)

    def draw(self, low: float, high: float) -> BarInk:
        """The ink for values from low to high. Raises ValueError where matplotlib would add an offset text."""
        ticks = self._locator.tick_values(low, high)
        self._range.set_view_interval(low, high)
        texts = self._formatter.format_ticks(ticks)
        if self._formatter.get_offset():
            raise ValueError(
                f"values from {low:g} to {high:g} need an offset text ({self._formatter.get_offset()}) on the "
                "colour bar, which draw() does not compose: scale the grid, or use draw_with_matplotlib()"
            )
        slack = 1e-10 * (high - low)
        marks, labels, widest = [], [], 0.0
        for value, text in zip(ticks, texts, strict=True):
            if not low - slack <= value <= high + slack:
                continue
            shown = text.replace("-", "\N{MINUS SIGN}")
            row = self._row(low, high, value)
            marks.append(self._mark._replace(row=self._mark.row + _snap(row)))
            labels.append(self._letters.ink(shown, self._label_x, row))
            widest = max(widest, self._letters.offset(shown)[2])
        name = []
        if self._name and self.on_right:
            right = self._label_x + widest + self._name_pad
            name = [self._name_letters.ink(self._name, right, self._name_y)]
        return BarInk(marks, labels, name)


def _snap(row: float) -> int:
    """The pixel row that Agg snaps a tick mark's position to."""
    return math.floor(row + 0.5)
