"""A grid and a chirp become a decorated picture and its region map, at a fraction of matplotlib's cost."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8
from numpy import ndarray

from vitmech_utils.data.chirps import BINS, Chirp, ridge, smooth
from vitmech_utils.data.ink import Ink
from vitmech_utils.data.layout import Layout, prepare
from vitmech_utils.data.raster import resample, shrink_part
from vitmech_utils.data.reference import IMAGE_SIZE, draw_by_matplotlib
from vitmech_utils.data.regions import REGIONS, mark_chirp, mark_ink, patch_coverage
from vitmech_utils.data.style import HEIGHT, STYLES, WIDTH, Style, find_style

__all__ = ["REGIONS", "STYLES", "Drawing", "Style", "draw", "draw_with_matplotlib", "patch_coverage"]

LARGE, SMALL = (HEIGHT, WIDTH), (IMAGE_SIZE, IMAGE_SIZE)


class Drawing(NamedTuple):
    """A picture and what each of its pixels shows, as indices into REGIONS."""

    image: UInt8[ndarray, "224 224 3"]
    regions: UInt8[ndarray, "224 224"]


def draw(
    grid: Float[ndarray, "128 128"], chirp: Chirp, style: Style | str = "published", title: str = ""
) -> Drawing:
    """Draw a grid (row 0 is 0 Hz) under a style; `title` is shown unless the style carries none.

    The picture is that of `draw_with_matplotlib` but for rounding (see chapter 1). Raises ValueError for a
    grid of another shape, with values that are not finite, or of one value only; and for a jittered style.
    """
    layout = _layout(grid, style)
    low, high = layout.style.colour_limits or (float(grid.min()), float(grid.max()))
    image, regions = layout.still_small.copy(), layout.regions.copy()
    _fill_plot(image, regions, grid, chirp, low, high, layout)
    if title and layout.style.title != "none":
        right, up = layout.title_at
        _write(image, regions, {"title": [layout.title.numbered_ink(title, right, HEIGHT - up)]}, layout)
    if layout.bar is not None:
        marks, tick_labels, label = layout.bar.draw(low, high)
        _write(image, regions, {"frame": marks, "tick label": tick_labels, "colour-bar label": label}, layout)
    return Drawing(image, regions)


def draw_with_matplotlib(
    grid: Float[ndarray, "128 128"], chirp: Chirp, style: Style | str = "published", title: str = ""
) -> Drawing:
    """The same picture through matplotlib itself and the same region map; about fifty times slower."""
    layout = _layout(grid, style)
    shown = title if layout.style.title != "none" else ""
    return Drawing(draw_by_matplotlib(grid, layout.style, shown), draw(grid, chirp, style, title).regions)


def _layout(grid: Float[ndarray, "rows columns"], style: Style | str) -> Layout:
    if grid.shape != (BINS, BINS):
        raise ValueError(
            f"grid has shape {grid.shape}, expected ({BINS}, {BINS}): frequency rows, time columns"
        )
    low, high = float(grid.min()), float(grid.max())
    if not np.isfinite(low + high):
        raise ValueError(f"grid holds {int((~np.isfinite(grid)).sum())} values that are not finite")
    style = find_style(style)
    if style.jitter:
        raise ValueError("a randomized style has no picture of its own: draw style.resolve(rng)")
    if low == high and style.colour_limits is None:
        raise ValueError(
            f"grid holds {low:g} everywhere: colours need a range of values, or Style.colour_limits"
        )
    return prepare(style)


def _fill_plot(
    image: UInt8[ndarray, "224 224 3"],
    regions: UInt8[ndarray, "224 224"],
    grid: Float[ndarray, "128 128"],
    chirp: Chirp,
    low: float,
    high: float,
    layout: Layout,
) -> None:
    """Colour the plot's pixels and find the chirp's among them."""
    steps = len(layout.colours)
    chosen = np.clip((grid - low) / (high - low) * steps, 0, steps - 1).astype(np.intp)
    values = np.empty((BINS, BINS, 4), np.float32)
    values[..., :3] = layout.colours[chosen]
    values[..., 3] = smooth(ridge(chirp))
    pixels = resample(values, layout.rows, layout.columns)
    top, left, bottom, right = layout.box
    colours = pixels[..., :3] + layout.under
    image[top:bottom, left:right] = np.clip(colours, 0, 255).astype(np.uint8)
    mark_chirp(regions[top:bottom, left:right], pixels[..., 3])


def _write(
    image: UInt8[ndarray, "224 224 3"],
    regions: UInt8[ndarray, "224 224"],
    inks: dict[str, list[Ink]],
    layout: Layout,
) -> None:
    """Draw text and marks on the large figure, and shrink the part that they touch."""
    drawn = [ink for group in inks.values() for ink in group if ink.alpha.size]
    if not drawn:
        return
    down, across = HEIGHT / IMAGE_SIZE, WIDTH / IMAGE_SIZE
    # One small pixel more on each side: Pillow's filter spreads ink that far.
    top = max(0, int(min(ink.row for ink in drawn) / down) - 1)
    left = max(0, int(min(ink.column for ink in drawn) / across) - 1)
    bottom = min(IMAGE_SIZE, int(max(ink.row + ink.alpha.shape[0] for ink in drawn) / down) + 2)
    right = min(IMAGE_SIZE, int(max(ink.column + ink.alpha.shape[1] for ink in drawn) / across) + 2)
    # The plot itself was shrunk with its own weights and is left alone.
    plot_top, plot_left, plot_bottom, plot_right = layout.box
    if top < plot_bottom and bottom > plot_top:
        left, right = (max(left, plot_right), right) if left >= plot_left else (left, min(right, plot_left))
    y, x = int(max(0, (top - 1) * down)), int(max(0, (left - 1) * across))
    until_y, until_x = int((bottom + 1) * down) + 1, int((right + 1) * across) + 1
    part = layout.still[y:until_y, x:until_x].copy()
    box = (top, left, bottom, right)
    for name, group in inks.items():
        alone = np.full(part.shape[:2], 255, np.uint8)
        for ink in group:
            ink.darken(part, y, x)
            ink.darken(alone, y, x)
        mark_ink(regions[top:bottom, left:right], name, 255 - shrink_part(alone, box, (y, x), LARGE, SMALL))
    image[top:bottom, left:right] = shrink_part(part, box, (y, x), LARGE, SMALL)
