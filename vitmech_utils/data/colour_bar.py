"""Ticks and label of a colour bar: they follow each image's range of values, so they are set anew every time."""

import math
from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib.ticker import FixedLocator, MaxNLocator, NullFormatter, ScalarFormatter

from vitmech_utils.data.ink import Ink, Lettering
from vitmech_utils.data.reference import Artists, default_settings
from vitmech_utils.data.style import HEIGHT

STEPS = (1, 2, 2.5, 5, 10)  # matplotlib's AutoLocator


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
            self._locator = MaxNLocator(nbins=int(np.clip(axis.get_tick_space(), 1, 9)), steps=STEPS)
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
