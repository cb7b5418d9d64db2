"""Marks that figures share: intervals head by head and row by row, layer profiles, modes against each other, names."""

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float
from matplotlib.artist import Artist
from matplotlib.text import Text
from matplotlib.ticker import LogLocator, NullFormatter
from numpy import ndarray
from numpy.typing import ArrayLike

from vitmech_utils.arguments import checked_arguments
from vitmech_utils.figures.plots import decades

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.backend_bases import RendererBase
    from matplotlib.text import Annotation

APART_ROWS = 0.2  # between marks that share a row of a forest plot


@checked_arguments()
def reach(table: pd.DataFrame, value: str = "effect", suffix: str = "") -> Float[ndarray, "2 _"]:
    """How far an interval reaches below and above its value, for matplotlib's error bars; never negative."""
    middle, low, high = (table[f"{name}{suffix}"].to_numpy(float) for name in (value, "low", "high"))
    return np.clip([middle - low, high - middle], 0, None)


@checked_arguments()
def interval_forest(
    ax: "Axes",
    table: pd.DataFrame,
    rows: str,
    *,
    value: str = "effect",
    by: str | None = None,
    looks: Mapping[object, tuple[str, str]] | None = None,
    labels: Mapping[object, str] | None = None,
    hollow: Collection[object] = (),
    order: Sequence[object] | None = None,
    apart: float = APART_ROWS,
    size: float = 6,
) -> None:
    """Draw a forest plot: marks with their intervals, one row per entry of column `rows`, the first on top.

    `table` has `rows`, `value`, low and high. What differs in column `by` gets a colour and marker from `looks`, in its
    order, and lies `apart` within a row; `labels` name them for a legend (else as in `looks`), those in `hollow` are
    drawn hollow. `order` gives the rows' order, else that of the table.
    """
    names = list(dict.fromkeys(table[rows])) if order is None else list(order)
    drawn = [None] if by is None else [kind for kind in looks if (table[by] == kind).any()]
    for number, kind in enumerate(drawn):
        part = table if by is None else table[table[by] == kind]
        colour, marker = ("#0072B2", "o") if by is None else looks[kind]
        at = np.array([names.index(name) for name in part[rows]], dtype=float)
        at += apart * (number - (len(drawn) - 1) / 2)
        ax.errorbar(
            part[value], at, xerr=reach(part, value), fmt=marker, color=colour,
            markerfacecolor="white" if kind in hollow else colour, markersize=size, capsize=2, elinewidth=1.2,
            label=None if by is None else (labels or {}).get(kind, str(kind)),
        )  # fmt: skip
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.5, -0.5)


@checked_arguments()
def excludes_zero(table: pd.DataFrame) -> pd.Series:
    """True where an effect's interval lies on one side of zero."""
    return (table["low"] > 0) | (table["high"] < 0)


@checked_arguments()
def head_names(table: pd.DataFrame) -> list[str]:
    """Names such as L6H4: 1-based layer and head, from 0-based columns."""
    return [f"L{layer + 1}H{head + 1}" for layer, head in zip(table["layer"], table["head"], strict=True)]


@checked_arguments()
def percent_scale(ax: "Axes", which: str = "y", linear: float = 1.0, most: int = 7) -> None:
    """Make an axis in percent linear up to `linear` and logarithmic beyond, with plain numbers as ticks.

    Of more than `most` ticks a horizontal axis keeps every other one.
    """
    for name in which:
        axis = getattr(ax, f"{name}axis")
        low, high = getattr(ax, f"get_{name}lim")()
        if max(abs(low), abs(high)) <= linear * 2:
            continue
        getattr(ax, f"set_{name}scale")("symlog", linthresh=linear)
        ticks = [tick for tick in decades(linear) if low <= tick <= high]
        # On a horizontal axis numbers stand side by side: there every other one is left out, but never zero.
        if name == "x" and len(ticks) > most:
            ticks = [tick for place, tick in enumerate(ticks, -ticks.index(0.0)) if place % 2 == 0]
        axis.set_ticks(ticks)
        axis.set_major_formatter("{x:g}")


@checked_arguments()
def plain_log(ax: "Axes", which: str = "y") -> None:
    """Write plain numbers, 0.1 and 20, at a logarithmic axis; where it spans less than two decades, also 2 and 5."""
    for name in which:
        axis = getattr(ax, f"{name}axis")
        getattr(ax, f"set_{name}scale")("log")
        low, high = sorted(getattr(ax, f"get_{name}lim")())
        axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 100 * low else (1,)))
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter(NullFormatter())


@checked_arguments()
def rarer(chosen: Bool[ndarray, "..."]) -> tuple[Bool[ndarray, "..."], bool]:
    """What to mark on a grid: those that are `chosen`, or the others where they are fewer; and whether it is the first.

    Marks on nearly every cell say less than marks on the few that differ.
    """
    few = bool(2 * chosen.sum() <= chosen.size)
    return (chosen if few else ~chosen), few


@checked_arguments()
def percent_scale_to(ax: "Axes", which: str, low: float, high: float) -> None:
    """Make an axis in percent linear up to 10 and logarithmic beyond, no longer than `low` to `high` needs."""
    if max(-low, high) > 20:
        getattr(ax, f"set_{which}lim")(min(1.6 * low, -4.0), max(1.6 * high, 4.0))
    percent_scale(ax, which, linear=10.0)


@checked_arguments()
def effect_forest(ax: "Axes", table: pd.DataFrame, top: int = 20) -> None:
    """Draw the `top` heads with the largest absolute effects, each with its interval, the largest on top."""
    rows = table.loc[table["effect"].abs().nlargest(top).index].iloc[::-1]
    places = np.arange(len(rows))
    clear = excludes_zero(rows).to_numpy()
    for chosen, colour, name in (
        (clear, "#D55E00", "interval excludes zero"),
        (~clear, "#888888", "includes zero"),
    ):
        if chosen.any():
            part = rows[chosen]
            ax.errorbar(
                part["effect"],
                places[chosen],
                xerr=reach(part),
                fmt="o",
                color=colour,
                markersize=4,
                label=name,
            )
    ax.axvline(0, color="#444444", linewidth=0.8)
    ax.set_yticks(places, head_names(rows))
    ax.set_xlabel("effect on the MSE (%)")
    ax.legend(loc="lower right")


@checked_arguments()
def layer_profile(
    ax: "Axes", layers: pd.DataFrame, heads: pd.DataFrame | None = None, label: str = ""
) -> None:
    """Draw the mean effect per layer with its interval, over the single heads' effects as dots."""
    if heads is not None:
        rng = np.random.default_rng(0)
        shift = rng.uniform(-0.18, 0.18, len(heads))
        ax.plot(heads["layer"] + 1 + shift, heads["effect"], ".", color="#BBBBBB", markersize=4, zorder=0)
    ax.errorbar(
        layers["layer"] + 1,
        layers["effect"],
        yerr=reach(layers),
        fmt="o-",
        markersize=4,
        capsize=2,
        label=label,
    )
    ax.axhline(0, color="#444444", linewidth=0.8)
    ax.set_xticks(layers["layer"] + 1)
    ax.set_xlabel("layer")
    ax.set_ylabel("effect on the MSE (%)")


@checked_arguments()
def effect_scatter(ax: "Axes", first: pd.Series, second: pd.Series, names: list[str], label: int = 3) -> None:
    """Draw two effects per head against each other, with the line of equality and the `label` largest named."""
    ax.plot(first, second, "o", markersize=4, alpha=0.8, clip_on=False, zorder=3)
    low, high = min(first.min(), second.min()), max(first.max(), second.max())
    ax.plot([low, high], [low, high], color="#444444", linewidth=0.8, linestyle="--")
    name_largest(ax, first, second, names, np.maximum(first.abs(), second.abs()), label)


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


@checked_arguments()
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
    hidden = hidden + _nearer_to_others(places, point, unit, marks)
    hidden = hidden + _inside(wide, leaders).any(-1).sum(1)
    if len(boxes):
        hidden = hidden + _inside(boxes, _leaders(point, places)).any(-1).sum(0)
    hidden = hidden + _passed(places, point, unit, marks)
    far = _gaps(point, places) / unit + HIDDEN_COST * hidden
    return int(np.lexsort((far, covered + outside))[0])


def _nearer_to_others(
    places: Boxes, point: Float[ndarray, "2"], unit: float, marks: Float[ndarray, "mark 2"]
) -> Bool[ndarray, " _"]:
    """Where a name would be read as another mark's: one lies nearer to it than its own, and no leader tells."""
    others = marks[~np.isclose(marks, point, atol=unit / 2).all(1)]
    if not len(others):
        return np.zeros(len(places), bool)
    gaps = np.stack([_gaps(other, places) for other in others]).min(0)
    own = _gaps(point, places)
    return (gaps <= own) & (own <= LEADER_FROM * unit)


def _passed(
    places: Boxes, point: Float[ndarray, "2"], unit: float, marks: Float[ndarray, "mark 2"]
) -> Float[ndarray, " _"]:
    """How many other marks a leader would pass through, and seem to come from."""
    others = marks[~np.isclose(marks, point, atol=unit / 2).all(1)]
    steps = _leaders(point, places)[..., None, :]
    near = (np.abs(steps - others) <= AROUND_MARK * unit).all(-1).any(1).sum(-1)
    return np.where(_gaps(point, places) > LEADER_FROM * unit, near, 0).astype(float)


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


def _inside(boxes: Boxes, points: Float[ndarray, " *group 2"]) -> Bool[ndarray, " _ *group"]:
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
