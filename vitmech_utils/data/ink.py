"""Text through matplotlib's own font engine, kept so that no string is drawn twice at the same sub-pixel place."""

import functools
import math
import re
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.text import Text
from numpy import ndarray

from vitmech_utils.data.reference import plain_text

STEPS = 64  # glyphs are placed on a raster of 1/64 pixel


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
