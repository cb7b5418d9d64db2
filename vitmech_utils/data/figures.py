"""A grid and a chirp become a decorated picture and its region map, at a fraction of matplotlib's cost."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8
from numpy import ndarray

from vitmech_utils.arguments import checked_arguments
from vitmech_utils.data.chirps import BINS, Chirp, ridge, smooth_ridge
from vitmech_utils.data.layout import Layout, prepare
from vitmech_utils.data.lettering import Ink
from vitmech_utils.data.raster import resample, shrink_part
from vitmech_utils.data.reference import IMAGE_SIZE, draw_by_matplotlib, plain_title
from vitmech_utils.data.regions import REGIONS, mark_chirp, mark_ink, region_coverage
from vitmech_utils.data.style import HEIGHT, STYLES, WIDTH, Style, find_style

__all__ = ["REGIONS", "STYLES", "Drawing", "Style", "draw", "draw_with_matplotlib", "region_coverage"]

LARGE, SMALL = (HEIGHT, WIDTH), (IMAGE_SIZE, IMAGE_SIZE)
Box = tuple[int, int, int, int]  # top, left, bottom, right
DOWN, ACROSS = HEIGHT / IMAGE_SIZE, WIDTH / IMAGE_SIZE  # large pixels per small one


class Drawing(NamedTuple):
    """A picture and what each of its pixels shows, as indices into REGIONS."""

    image: UInt8[ndarray, "224 224 3"]
    regions: UInt8[ndarray, "224 224"]


@checked_arguments()
def draw(
    grid: Float[ndarray, "128 128"],
    chirp: Chirp | None,
    style: Style | str = "published",
    title: str = "",
    painted: Float[ndarray, "128 128"] | None = None,
) -> Drawing:
    """Draw a grid (row 0 is 0 Hz) under a style; `title` is shown unless the style carries none.

    The picture is that of `draw_with_matplotlib` but for rounding (see chapter 1). `painted` is the chirp without
    noise, in [0, 1], that chirp pixels are read from: the recipe's `ridge` of `chirp` unless given; then `chirp` may be
    None. Raises ValueError where both are None; for a grid of another shape, with values that are not finite, or of one
    value only; for a title wider than the figure (`fitting_title` shortens one); and for a jittered style. Dollar signs
    in a title are no formula.
    """
    if painted is None:
        if chirp is None:
            raise ValueError(
                "chirp and painted are both None, expected one: what are the chirp's pixels read from?"
            )
        painted = ridge(chirp)
    layout = _layout(grid, style)
    low, high = layout.style.colour_limits or (float(grid.min()), float(grid.max()))
    image, regions = layout.still_small.copy(), layout.regions.copy()
    level = smooth_ridge(painted)
    _fill_plot(image, regions, grid, level, low, high, layout)
    _letter(image, regions, title, low, high, layout)
    return Drawing(image, regions)


@checked_arguments()
def draw_around(
    grid: Float[ndarray, "128 128"], style: Style | str = "published", title: str = ""
) -> tuple[UInt8[ndarray, "128 128"], UInt8[ndarray, "224 224 3"], UInt8[ndarray, "224 224 3"]]:
    """What `draw` puts together: each cell's place in the colour map, time first; the picture around the plot; and
    that without the title.
    """
    layout = _layout(grid, style)
    low, high = layout.style.colour_limits or (float(grid.min()), float(grid.max()))
    titled, untitled = layout.still_small.copy(), layout.still_small.copy()
    if (box := _letter(titled, None, title, low, high, layout)) is not None:
        top, left, bottom, right = box
        untitled[top:bottom, left:right] = titled[top:bottom, left:right]
    return _places(grid, low, high, len(layout.colours)).astype(np.uint8), titled, untitled


@checked_arguments()
def draw_with_matplotlib(
    grid: Float[ndarray, "128 128"],
    chirp: Chirp | None,
    style: Style | str = "published",
    title: str = "",
    painted: Float[ndarray, "128 128"] | None = None,
) -> Drawing:
    """The same picture through matplotlib itself, the reference; its region map is that of `draw`."""
    layout = _layout(grid, style)
    shown = title if layout.style.title != "none" else ""
    image = draw_by_matplotlib(grid, layout.style, shown)
    return Drawing(image, draw(grid, chirp, style, title, painted).regions)


@checked_arguments()
def fitting_title(title: str, style: Style | str = "published") -> str:
    """As much of a title as the figure is wide enough for."""
    title = plain_title(title)[:WIDTH]
    letters = prepare(find_style(style)).title
    while letters.offset(title)[2] > WIDTH:
        title = title[:-1]
    return title


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
    level: Float[ndarray, "128 128"],
    low: float,
    high: float,
    layout: Layout,
) -> None:
    """Colour the plot's pixels and find the chirp's among them."""
    chosen = _places(grid, low, high, len(layout.colours))
    values = np.take(layout.colours, chosen, axis=0)  # time, frequency, (red, green, blue, ridge)
    values[..., 3] = level.T
    pixels = resample(values, layout.rows, layout.columns)
    top, left, bottom, right = layout.box
    mark_chirp(regions[top:bottom, left:right], pixels[..., 3])
    pixels += layout.under
    np.minimum(np.maximum(pixels, 0, out=pixels), 255, out=pixels)
    image[top:bottom, left:right] = pixels[..., :3]


def _places(grid: Float[ndarray, "128 128"], low: float, high: float, steps: int) -> ndarray:
    """Each cell's place among `steps` colours, time first."""
    scaled = (grid.T - low) / (high - low) * steps
    return np.minimum(np.maximum(scaled, 0, out=scaled), steps - 1, out=scaled).astype(np.intp)


def _letter(
    image: UInt8[ndarray, "224 224 3"],
    regions: UInt8[ndarray, "224 224"] | None,
    title: str,
    low: float,
    high: float,
    layout: Layout,
) -> Box | None:
    """Write what changes from figure to figure around the plot: the title, then the colour bar's ticks.

    Returns the box of the ticks, in which nothing of the title is left.
    """
    title = plain_title(title)
    if title.strip() and layout.style.title != "none":
        if (width := layout.title.offset(title)[2]) > WIDTH:
            raise ValueError(
                f"title {title[:40]!r}... is {width:.0f} pixels wide, expected at most {WIDTH}: shorten it"
            )
        right, up = layout.title_at
        _write(image, regions, {"title": [layout.title.numbered_ink(title, right, HEIGHT - up)]}, layout)
    if layout.bar is None:
        return None
    marks, tick_labels, label = layout.bar.draw(low, high)
    inks = {"frame": marks, "tick label": tick_labels, "colour-bar label": label}
    return _write(image, regions, inks, layout)


def _write(
    image: UInt8[ndarray, "224 224 3"],
    regions: UInt8[ndarray, "224 224"] | None,
    inks: dict[str, list[Ink]],
    layout: Layout,
) -> Box | None:
    """Draw text and marks on the large figure, and shrink the part that they touch; returns its box."""
    boxes = {name: _touched([ink for ink in group if ink.alpha.size]) for name, group in inks.items()}
    boxes = {name: box for name, box in boxes.items() if box is not None}
    if not boxes:
        return None
    top, left, bottom, right = _beside(_around(list(boxes.values())), layout.box)
    origin = int(max(0, (top - 1) * DOWN)), int(max(0, (left - 1) * ACROSS))
    shown = np.s_[origin[0] : int((bottom + 1) * DOWN) + 1, origin[1] : int((right + 1) * ACROSS) + 1]
    still = layout.still[shown]
    part = np.full((*still.shape[:2], 4), 255, np.uint8)  # the picture, and the ink alone
    part[..., :3] = still
    for group in inks.values():
        for ink in group:
            ink.darken(part, *origin)
    small = shrink_part(part, (top, left, bottom, right), origin, LARGE, SMALL)
    image[top:bottom, left:right] = small[..., :3]
    for name, (_, start, _, stop) in boxes.items() if regions is not None else ():
        start, stop = max(start, left), min(stop, right)
        mark_ink(regions[top:bottom, start:stop], name, 255 - small[:, start - left : stop - left, 3])
    return top, left, bottom, right


def _touched(inks: list[Ink]) -> Box | None:
    """Top, left, bottom and right of the small pixels that inks may change: Pillow's filter spreads them by one."""
    if not inks:
        return None
    return (
        max(0, int(min(ink.row for ink in inks) / DOWN) - 1),
        max(0, int(min(ink.column for ink in inks) / ACROSS) - 1),
        min(IMAGE_SIZE, int(max(ink.row + ink.alpha.shape[0] for ink in inks) / DOWN) + 2),
        min(IMAGE_SIZE, int(max(ink.column + ink.alpha.shape[1] for ink in inks) / ACROSS) + 2),
    )


def _around(boxes: list[Box]) -> Box:
    tops, lefts, bottoms, rights = zip(*boxes, strict=True)
    return min(tops), min(lefts), max(bottoms), max(rights)


def _beside(box: Box, plot: Box) -> Box:
    """A box cut back to where the plot is not: the plot was shrunk with its own weights and is left alone."""
    top, left, bottom, right = box
    rows = min(bottom, plot[2]) - max(top, plot[0])
    columns = min(right, plot[3]) - max(left, plot[1])
    if rows <= 0 or columns <= 0:
        return box
    if rows < columns:
        return (top, left, plot[0], right) if top < plot[0] else (plot[2], left, bottom, right)
    return (top, left, bottom, plot[1]) if left < plot[1] else (top, plot[3], bottom, right)
