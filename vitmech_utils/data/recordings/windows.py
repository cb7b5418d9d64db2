"""The decorated figure of a grid whose axes are its own: the recipe's picture, with other numbers at the ticks.

`figures.draw` knows the recipe's axes alone. All that other axes change are tick marks, tick labels and the place of
the axis labels, which every image of these axes shares: they are drawn once by matplotlib and put in the place of the
recipe's.
"""

import functools
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int16, UInt8
from matplotlib.artist import Artist
from numpy import ndarray

from vitmech_utils.arguments import checked_arguments
from vitmech_utils.data.chirps import BINS
from vitmech_utils.data.figures import Drawing, draw
from vitmech_utils.data.layout import RAMP, prepare, shown_ticks
from vitmech_utils.data.recordings.spectrograms import Axes
from vitmech_utils.data.reference import IMAGE_SIZE, Artists, build_figure, shrink
from vitmech_utils.data.regions import CHIRP, Coverage, label_pixels
from vitmech_utils.data.style import Style, find_style

CHANNELS = {
    "axis label": (0, 1, 1),
    "tick label": (1, 0, 1),
    "frame": (1, 1, 0),
}  # inks distinguished by colour
FILLED = 2 * CHIRP  # smoothing halves it at a straight edge, and there it just counts as chirp


@checked_arguments()
def draw_window(
    grid: Float[ndarray, "128 128"],
    painted: Float[ndarray, "128 128"],
    axes: Axes,
    style: Style | str = "published",
    title: str = "",
) -> Drawing:
    """Draw a grid (row 0 is `axes.low`) under a style, with ticks in its own seconds and hertz.

    `painted` is the chirp without noise, in [0, 1], that chirp pixels are read from, as in `figures.draw`: a ridge, or
    `filled` cells. With the recipe's axes the drawing is that of `figures.draw`. Raises ValueError as it does.
    """
    style = find_style(style)
    image, regions = draw(grid, None, style, title, painted)
    own = _ticks(axes, style)
    image = np.clip(image.astype(np.int16) + own.change, 0, 255).astype(np.uint8)
    elsewhere = own.regions != prepare(style).regions
    return Drawing(image, np.where(elsewhere, own.regions, regions))


@checked_arguments()
def filled(covered: Float[ndarray, "128 128"]) -> Float[ndarray, "128 128"]:
    """Cells that are covered by at least half, painted so that their pixels are the chirp's, up to their edge."""
    return np.where(covered >= 0.5, FILLED, 0.0)


class _Ticks(NamedTuple):
    change: Int16[ndarray, "224 224 3"]  # of the still picture, against that with the recipe's axes
    regions: UInt8[ndarray, "224 224"]


class _Still(NamedTuple):
    """Coverage of what stands still whatever the axes: areas on the small picture, inks of the bar on the large one."""

    areas: dict[str, Coverage]
    bar: dict[str, Coverage]


@functools.lru_cache(maxsize=512)
def _ticks(axes: Axes, style: Style) -> _Ticks:
    artists = _build(axes, style)
    still = shrink(artists.pixels())
    groups = _groups(artists)
    change = still.astype(np.int16) - prepare(style).still_small
    for name, colour in CHANNELS.items():
        for part in groups[name]:
            part.set_color(colour)
    light = artists.alone(part for name in CHANNELS for part in groups[name])
    inks = {name: 255 - light[..., CHANNELS[name].index(0)] for name in CHANNELS}
    fixed = _still(style)
    if "frame" in fixed.bar:
        inks["frame"] = np.maximum(inks["frame"], fixed.bar["frame"])
    inks |= {name: dark for name, dark in fixed.bar.items() if name != "frame"}
    regions = label_pixels(fixed.areas, {name: shrink(dark) for name, dark in inks.items()}, IMAGE_SIZE)
    return _Ticks(change, regions)


@functools.lru_cache(maxsize=64)
def _still(style: Style) -> _Still:
    artists = _build(Axes(0, 1, 0, 1), style)
    artists.pixels()
    groups = _groups(artists)
    areas = {"plot background": _alone(artists, [artists.image])}
    bar = {}
    if artists.bar is not None:
        areas["colour bar"] = _alone(artists, list(artists.bar.collections))
        bar["frame"] = _alone(artists, list(artists.bar.spines.values()))
        if "colour-bar label" in groups:
            bar["colour-bar label"] = _alone(artists, groups["colour-bar label"])
    shown = {name: shrink((dark > 0) * np.uint8(255)) for name, dark in areas.items()}
    return _Still(shown, bar)


def _build(axes: Axes, style: Style) -> Artists:
    """The figure on a black plot, without title, and without what moves at the colour bar with each image's values."""
    artists = build_figure(RAMP, style, style.title_text(1, "linear"))
    artists.image.set_extent(axes.extent)
    artists.image.set_data(np.zeros((BINS, BINS, 3)))
    _veil([artists.plot.title])
    if (ticks := prepare(style).bar) is not None:
        marks = artists.bar.yaxis.get_major_ticks()
        _veil([part for tick in marks for part in (tick.label1, tick.label2, tick.tick1line, tick.tick2line)])
        if ticks.on_right:
            _veil(_bar_labels(artists))
    return artists


def _groups(artists: Artists) -> dict[str, list[Artist]]:
    """The still parts of a figure by region."""
    plot, bar = artists.plot, artists.bar
    ticks = [*shown_ticks(plot.xaxis), *shown_ticks(plot.yaxis)]
    groups: dict[str, list[Artist]] = {
        "axis label": [plot.xaxis.label, plot.yaxis.label],
        "tick label": [label for tick in ticks for label in (tick.label1, tick.label2)],
        "frame": [
            *(line for tick in ticks for line in (tick.tick1line, tick.tick2line)),
            *plot.spines.values(),
        ],
    }
    if bar is not None:
        groups["colour bar"] = [*bar.collections, *bar.spines.values()]
        if any(label.get_alpha() != 0 for label in _bar_labels(artists)):
            groups["colour-bar label"] = _bar_labels(artists)
    return groups


def _bar_labels(artists: Artists) -> list[Artist]:
    return [artists.bar.xaxis.label, artists.bar.yaxis.label]


def _alone(artists: Artists, group: list[Artist]) -> Coverage:
    """How far each pixel of some artists' drawing lies from white, by its darkest channel."""
    return 255 - artists.alone(group).min(axis=2)


def _veil(artists: list[Artist]) -> None:
    """Make artists draw nothing while they keep their place, which others are laid out by."""
    for artist in artists:
        artist.set_alpha(0)
