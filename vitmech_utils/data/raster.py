"""From grid cells to the small picture's pixels in one step: matplotlib's resampling, then Pillow's shrinking.

Both are linear and act on rows and columns apart, so their product is one narrow band of weights per axis. The
bands are applied by element-wise arithmetic alone: no sum whose order a processor could change.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32, UInt8
from matplotlib import _image
from matplotlib.transforms import Affine2D
from numpy import ndarray
from PIL import Image

from vitmech_utils.data.chirps import BINS


def shrinking_weights(long: int, short: int) -> Float[ndarray, "short long"]:
    """Pillow's bilinear weights of `long` pixels in each of `short` pixels; every row sums to one."""
    scale = long / short
    centres = (np.arange(short) + 0.5) * scale
    weights = np.maximum(0, 1 - np.abs(np.arange(long) + 0.5 - centres[:, None]) / scale)
    return weights / weights.sum(axis=1, keepdims=True)


def enlarging_weights(low: float, high: float, nearest: bool) -> tuple[int, Float[ndarray, "pixel 128"]]:
    """matplotlib's weights of 128 cells in each pixel between two edges, measured by feeding it one cell at a time.

    Returns the first pixel and the weights. Pixels are rounded as `AxesImage` rounds them; `nearest` or else
    Hanning is what it chooses for interpolation="auto".
    """
    first, last = int(np.floor(low + 0.5)), int(np.floor(high + 0.5 + 1e-8))
    scale = (high - low) / BINS
    weights = np.zeros((last - first, BINS))
    to_pixels = Affine2D().scale(1, scale).translate(0, low - first)
    for cell in range(BINS):
        source = np.zeros((BINS, 4))
        source[cell] = 1
        column = np.zeros((last - first, 4))
        kind = _image.NEAREST if nearest else _image.HANNING
        _image.resample(source, column, to_pixels, kind, True, 1, True, 4.0)
        weights[:, cell] = column[:, 1]
    return first, weights


@dataclass(frozen=True)
class Band:
    """A banded linear map from 128 cells to the pixels `start` to `stop` of one axis of the small picture."""

    start: int
    stop: int
    cells: ndarray  # int [tap, pixel]
    weights: Float32[ndarray, "tap pixel"]

    @classmethod
    def of(cls, weights: Float[ndarray, "small 128"]) -> "Band":
        """The non-zero band of a dense map, rounded to 2^-16."""
        weights = np.rint(weights * 2**16) / 2**16
        touched = np.flatnonzero(weights.any(axis=1))
        start, stop = int(touched[0]), int(touched[-1]) + 1
        dense = weights[start:stop]
        first = (dense != 0).argmax(axis=1)
        last = BINS - (dense != 0)[:, ::-1].argmax(axis=1)
        taps = int((last - first).max())
        cells = np.minimum(first, BINS - taps)[None] + np.arange(taps)[:, None]
        return cls(start, stop, cells, dense[np.arange(len(dense)), cells].astype(np.float32))

    def apply(self, values: Float32[ndarray, "128 rest"]) -> Float32[ndarray, "pixel rest"]:
        """The weighted sum of the cells under each pixel, tap by tap."""
        total = values[self.cells[0]]
        total *= self.weights[0][:, None]
        for cells, weights in zip(self.cells[1:], self.weights[1:], strict=True):
            part = values[cells]
            part *= weights[:, None]
            total += part
        return total


def resample(
    values: Float32[ndarray, "128 128 channel"], rows: Band, columns: Band
) -> Float32[ndarray, "row column channel"]:
    """A grid at the small picture's pixels; `values` has time first, so that the result lies in memory as shown."""
    channels = values.shape[2]
    across = columns.apply(values.reshape(BINS, -1)).reshape(-1, BINS, channels)
    upright = np.ascontiguousarray(across.transpose(1, 0, 2)).reshape(BINS, -1)
    return rows.apply(upright).reshape(-1, across.shape[0], channels)


def shrink_part(
    part: UInt8[ndarray, "height width 4"],
    box: tuple[int, int, int, int],
    origin: tuple[int, int],
    long: tuple[int, int],
    short: tuple[int, int],
) -> UInt8[ndarray, "rows columns 4"]:
    """Rows and columns `box` (top, left, bottom, right) of a shrunken picture, from the part that they show.

    `part` has four independent channels, starts at pixel `origin` (row, column) of the large picture and reaches
    one small pixel beyond the box, as far as Pillow's filter does; `long` and `short` are (height, width).
    """
    top, left, bottom, right = box
    down, across = long[0] / short[0], long[1] / short[1]
    y, x = origin
    source = (left * across - x, top * down - y, right * across - x, bottom * down - y)
    # CMYK is Pillow's mode of four channels that it doesn't weigh by one another, as it does with RGBA.
    image = Image.frombuffer("CMYK", (part.shape[1], part.shape[0]), part, "raw", "CMYK", 0, 1)
    return np.asarray(image.resize((right - left, bottom - top), Image.Resampling.BILINEAR, box=source))
