"""What images of one style share, drawn once by matplotlib and kept: everything but colours, title and bar ticks."""

import functools

import matplotlib
import numpy as np
from jaxtyping import Float, Float32, UInt8
from matplotlib.artist import Artist
from matplotlib.axis import Axis, Tick
from matplotlib.transforms import Bbox
from numpy import ndarray

from vitmech_utils.data.chirps import BINS
from vitmech_utils.data.lettering import BarTicks, Lettering
from vitmech_utils.data.raster import Band, enlarging_weights, shrinking_weights
from vitmech_utils.data.reference import IMAGE_SIZE, Artists, build_figure, shrink
from vitmech_utils.data.regions import label_pixels
from vitmech_utils.data.style import HEIGHT, WIDTH, Style

AREAS = ("plot background", "colour bar")
RAMP = np.linspace(0, 1, BINS * BINS).reshape(BINS, BINS)


class Layout:
    """The prepared parts of a style: still picture, weights of the grid's cells, lettering, region map."""

    def __init__(self, style: Style) -> None:
        self.style = style
        artists = build_figure(RAMP, style, style.title_text(1, "linear"))
        artists.pixels()  # lets matplotlib settle every position
        edges = artists.plot.get_window_extent().frozen()
        self.colours = _colours(style.colour_map)
        dpi = float(artists.figure.dpi)
        self.title_at = artists.plot.title.get_transform().transform(artists.plot.title.get_position())
        self.title = Lettering(artists.plot.title, dpi, (WIDTH, 40))
        self.bar = BarTicks(artists) if artists.bar is not None and style.ticks else None

        groups = _groups(artists)
        moving = ["title"]
        if self.bar is not None:
            moving += ["bar ticks", *(["colour-bar label"] if self.bar.on_right else [])]
        for name in moving:
            del groups[name]
        parts = [artists.image, *(part for group in groups.values() for part in group)]
        on_bar = artists.bar.get_children() if artists.bar is not None else []
        parts.sort(key=lambda part: (part in on_bar, part.get_zorder()))  # as matplotlib layers them
        artists.image.set_data(np.zeros((BINS, BINS, 3)))
        self.still = artists.alone(parts)  # plot black, no title, no ticks on the colour bar
        self.still_small = shrink(self.still)
        artists.image.set_data(np.ones((BINS, BINS, 3)))
        self._weigh(artists.alone(parts), edges)
        self.regions = _still_regions(artists, groups)

    def _weigh(self, white: UInt8[ndarray, "480 640 3"], edges: Bbox) -> None:
        """Weights of the grid's cells in the small picture's pixels, dimmed where the frame lies over the plot."""
        through = (white[..., 0].astype(float) - self.still[..., 0]) / 255
        covered = np.argwhere(through > 0)
        (top, left), (bottom, right) = covered.min(axis=0), covered.max(axis=0) + 1
        middle = through[(top + bottom) // 2], through[:, (left + right) // 2]
        nearest = bool(
            min(edges.width, edges.height) > 3 * BINS
        )  # matplotlib's rule for interpolation="auto"
        column, across = enlarging_weights(edges.x0, edges.x1, nearest)
        row, up = enlarging_weights(HEIGHT - edges.y1, HEIGHT - edges.y0, nearest)
        columns = _shrunken(across, column, middle[0], WIDTH)
        rows = _shrunken(up[:, ::-1], row, middle[1], HEIGHT)
        self.columns, self.rows = Band.of(columns), Band.of(rows)
        self.box = (self.rows.start, self.columns.start, self.rows.stop, self.columns.stop)
        area = np.s_[self.box[0] : self.box[2], self.box[1] : self.box[3]]
        down, along = shrinking_weights(HEIGHT, IMAGE_SIZE), shrinking_weights(WIDTH, IMAGE_SIZE)
        still = np.einsum("ry,yxc,sx->rsc", down, self.still.astype(float), along, optimize=True)[area]
        # matplotlib cuts colours to whole numbers where Pillow rounds: half a unit less wherever the plot shows.
        share = np.outer(rows.sum(axis=1), columns.sum(axis=1))[area]
        still = still - 0.5 * share[..., None] + 0.5
        self.under = np.zeros((*share.shape, 4), np.float32)  # the fourth channel is the chirp's ridge
        self.under[..., :3] = np.rint(still * 2**12) / 2**12


@functools.lru_cache(maxsize=256)
def prepare(style: Style) -> Layout:
    """The layout of a style, drawn on first use and then kept by the process."""
    return Layout(style)


def _colours(name: str) -> Float32[ndarray, "256 4"]:
    """A colour map's colours in units of 8-bit pixels, and room for a fourth channel."""
    colours = matplotlib.colormaps[name](np.arange(256)) * 255
    return (np.rint(colours * 2**12) / 2**12).astype(np.float32)


def _shrunken(
    weights: Float[ndarray, "pixel 128"], first: int, through: Float[ndarray, " long"], long: int
) -> Float[ndarray, "224 128"]:
    dimmed = weights * through[first : first + len(weights), None]
    return shrinking_weights(long, IMAGE_SIZE)[:, first : first + len(weights)] @ dimmed


def _groups(artists: Artists) -> dict[str, list[Artist]]:
    """The drawn artists by region in the order in which matplotlib draws them, and the colour bar's ticks apart."""
    plot, bar = artists.plot, artists.bar
    ticks = [*shown_ticks(plot.xaxis), *shown_ticks(plot.yaxis)]
    groups = {
        "title": [plot.title],
        "axis label": [plot.xaxis.label, plot.yaxis.label],
        "tick label": [label for tick in ticks for label in (tick.label1, tick.label2)],
        "frame": [
            *(line for tick in ticks for line in (tick.tick1line, tick.tick2line)),
            *plot.spines.values(),
        ],
    }
    if bar is not None:
        groups["colour bar"] = list(bar.collections)
        groups["colour-bar label"] = [bar.xaxis.label, bar.yaxis.label]
        groups["frame"] += list(bar.spines.values())
        groups["bar ticks"] = [
            part
            for tick in bar.yaxis.get_major_ticks()
            for part in (tick.label1, tick.label2, tick.tick1line, tick.tick2line)
        ]
    return groups


def shown_ticks(axis: Axis) -> list[Tick]:
    """The ticks within the axis' range; matplotlib keeps some beyond it and does not draw them."""
    low, high = sorted(axis.get_view_interval())
    slack = 1e-10 * (high - low)
    return [tick for tick in axis.get_major_ticks() if low - slack <= tick.get_loc() <= high + slack]


def _still_regions(artists: Artists, groups: dict[str, list[Artist]]) -> UInt8[ndarray, "224 224"]:
    """The region map of a style's unmoving parts; every group of artists is drawn alone to find its pixels."""
    artists.image.set_data(np.zeros((BINS, BINS, 3)))
    groups = {"plot background": [artists.image]} | {
        name: group for name, group in groups.items() if name != "bar ticks"
    }
    # How far each pixel of the figure lies from white, by its darkest channel.
    alone = {name: 255 - artists.alone(group).min(axis=2) for name, group in groups.items()}
    areas = {name: (dark > 0) * np.uint8(255) for name, dark in alone.items() if name in AREAS}
    inks = {name: dark for name, dark in alone.items() if name not in AREAS}
    return label_pixels(
        {name: shrink(part) for name, part in areas.items()},
        {name: shrink(part) for name, part in inks.items()},
        IMAGE_SIZE,
    )
