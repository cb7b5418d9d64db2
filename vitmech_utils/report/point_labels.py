"""Names beside the largest points of a plot that don't cover each other, wherever the points lie."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float
from matplotlib.artist import Artist
from matplotlib.text import Text
from numpy import ndarray
from numpy.typing import ArrayLike

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.backend_bases import RendererBase
    from matplotlib.text import Annotation

Boxes = Float[ndarray, "_ 2 2"]  # lower left and upper right corners

STEPS = 15  # points of a leader that are looked at
# All in points, 1/72 of an inch.
GAPS = range(4, 100, 6)
APART = 1.0
AROUND_MARK = 2.5
LEADER_FROM = 8.0
HIDDEN_COST = 9.0  # a hidden mark or a crossed line is as bad as a name that lies this much farther away
_FAN = [(1, 0.5), (0.5, 1)]
SIDES = (*((1, 1), (-1, 1), (1, -1), (-1, -1), (1, 0), (-1, 0), (0, 1), (0, -1)),
         *((a * x, b * y) for x, y in _FAN for a in (1, -1) for b in (1, -1)))  # fmt: skip
"""Where a name may lie, seen from its point, the best side first."""


def name_largest(
    ax: "Axes",
    x: ArrayLike,
    y: ArrayLike,
    names: Sequence[str],
    size: ArrayLike,
    count: int = 3,
    fontsize: float = 8,
) -> "list[Annotation]":
    """Write the names of the `count` points of largest `size` beside them, the largest first.

    `x` and `y` are all points, which names avoid to cover as far as they can. Places are found whenever the figure is
    drawn, so scales and limits may still change; a thin line leads to a name that lies farther off.
    """
    points = np.column_stack([np.asarray(x, dtype=float), np.asarray(y, dtype=float)])
    size = np.where(np.isfinite(points).all(1), np.asarray(size, dtype=float), np.nan)
    largest = [place for place in np.argsort(-size, kind="stable")[:count] if np.isfinite(size[place])]
    leader = {"arrowstyle": "-", "color": "#888888", "linewidth": 0.6, "shrinkA": 0, "shrinkB": 2}
    texts = [
        ax.annotate(
            names[place],
            points[place],
            xytext=(GAPS[0], GAPS[0]),
            textcoords="offset points",
            fontsize=fontsize,
            ha="left",
            va="bottom",
            arrowprops=dict(leader),
        )
        for place in largest
    ]
    for text in texts:
        text.set_in_layout(False)
    ax.add_artist(_Placer(texts, points))
    return texts


class _Placer(Artist):
    """Draws nothing: it is drawn before the names, and puts each in its place then."""

    def __init__(self, texts: "list[Annotation]", points: np.ndarray) -> None:
        super().__init__()
        self.texts, self.points = texts, points
        self.set_zorder(-1)
        self.set_in_layout(False)

    def draw(self, renderer: "RendererBase") -> None:
        unit, frame = renderer.points_to_pixels(1.0), self.axes.get_window_extent(renderer).get_points()
        marks = self.axes.transData.transform(self.points)
        boxes, leaders = np.empty((0, 2, 2)), np.empty((0, STEPS, 2))
        for text in self.texts:
            point = self.axes.transData.transform(text.xy)
            extent = Text.get_window_extent(text, renderer)  # of the words, without the leader
            places = _places(point, np.array([extent.width, extent.height]), unit)
            found = places[_best(places, point, unit, frame, marks, boxes, leaders)][None]
            boxes, leaders = np.concatenate([boxes, found]), np.concatenate([leaders, _leaders(point, found)])
            offset = tuple((found[0, 0] - point) / unit)
            if not np.allclose(offset, text.xyann, atol=0.01):
                text.xyann = offset
            text.arrow_patch.set_visible(bool(_gaps(point, found)[0] > LEADER_FROM * unit))
        self.stale = False


def _best(
    places: Boxes,
    point: Float[ndarray, "2"],
    unit: float,
    frame: Float[ndarray, "2 2"],
    marks: Float[ndarray, "mark 2"],
    boxes: Boxes,
    leaders: Float[ndarray, "name step 2"],
) -> int:
    """The nearest place that covers no other name and lies in the frame, and hides little; else the least bad one.

    `boxes` and `leaders` are those of the names that have their place.
    """
    wide = _padded(places, APART * unit)
    covered = _shared(wide, boxes).sum(1)
    outside = np.prod(places[:, 1] - places[:, 0], axis=1) - _shared(places, frame[None])[:, 0]
    hidden = _inside(_padded(places, AROUND_MARK * unit), marks).sum(1)
    hidden = hidden + _inside(wide, leaders).any(-1).sum(1)
    if len(boxes):
        hidden = hidden + _inside(boxes, _leaders(point, places)).any(-1).sum(0)
    far = _gaps(point, places) / unit + HIDDEN_COST * hidden
    return int(np.lexsort((far, covered + outside))[0])


def _places(point: Float[ndarray, "2"], size: Float[ndarray, "2"], unit: float) -> Boxes:
    """Boxes of this size around a point, nearer ones first."""
    sides, gaps = np.array(SIDES)[None], np.array(GAPS)[:, None, None]
    corners = (point + sides * (size / 2 + gaps * unit) - size / 2).reshape(-1, 2)
    return np.stack([corners, corners + size], axis=1)


def _leaders(point: Float[ndarray, "2"], boxes: Boxes) -> Float[ndarray, "_ step 2"]:
    """Points along the way from a mark to where its name would be."""
    ends = np.clip(point, boxes[:, 0], boxes[:, 1])
    return point + np.linspace(0, 1, STEPS)[:, None] * (ends - point)[:, None]


def _padded(boxes: Boxes, margin: float) -> Boxes:
    return boxes + np.array([[-margin], [margin]])


def _inside(boxes: Boxes, points: Float[ndarray, "*group 2"]) -> Bool[ndarray, "_ *group"]:
    """Which points lie in which boxes."""
    low, high = (boxes[:, end].reshape(-1, *[1] * (points.ndim - 1), 2) for end in (0, 1))
    return ((points >= low) & (points <= high)).all(-1)


def _shared(some: Boxes, others: Boxes) -> Float[ndarray, "_ _"]:
    """The areas that boxes share."""
    sides = np.minimum(some[:, None, 1], others[None, :, 1]) - np.maximum(
        some[:, None, 0], others[None, :, 0]
    )
    return np.clip(sides, 0, None).prod(-1)


def _gaps(point: Float[ndarray, "2"], boxes: Boxes) -> Float[ndarray, " _"]:
    """How far boxes lie from a point, along the axis on which they lie farther."""
    return np.clip([boxes[:, 0] - point, point - boxes[:, 1]], 0, None).max((0, 2))
