"""What a figure carries around its spectrogram, and where: the decorations that the study calls distortions."""

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import matplotlib
import numpy as np

from vitmech_utils.arguments import check_fields

WIDTH, HEIGHT = 640, 480  # pixels of the drawn figure: matplotlib's default, 6.4 x 4.8 inches at 100 dpi
PLOT = (80.0, 52.8, 396.8, 369.6)  # left, bottom, width, height of the plot in pixels, beside a colour bar
BARS = {  # left, bottom, width, height of the colour bar in pixels
    "right": (501.6, 52.8, 18.48, 369.6),
    "left": (64.0, 52.8, 12.0, 369.6),
}
LAYOUTS = 48  # a randomized style draws one of so many layouts, each of which is prepared once per process


@dataclass(frozen=True)
class Style:
    """Which decorations a figure carries. Shifts are whole pixels of the 640 x 480 figure, right and up.

    title: "published" names the sample's number and sweep (a leak of both); "plain" names neither; "none".
    title_side, time_side: above or below the plot; a title and the time axis's label have no room on one side.
    colour_limits: None scales colours to each image's own range, as published; or fixed (low, high).
    jitter: the layout of each image is drawn from the seed, see `resolve`.
    """

    title: Literal["published", "plain", "none"] = "published"
    title_side: Literal["top", "bottom"] = "top"
    axis_labels: bool = True
    ticks: bool = True
    time_side: Literal["bottom", "top"] = "bottom"
    frequency_side: Literal["left", "right"] = "left"
    colour_bar: Literal["right", "left", "none"] = "right"
    frame: bool = True
    colour_map: str = "viridis"
    colour_limits: tuple[float, float] | None = None
    font_scale: float = 1.0
    shift: tuple[int, int] = (0, 0)
    jitter: bool = False

    published: ClassVar["Style"]
    bare: ClassVar["Style"]
    moved: ClassVar["Style"]
    randomized: ClassVar["Style"]

    def __post_init__(self) -> None:
        check_fields(self)
        for name in ("colour_limits", "shift"):
            if isinstance(
                getattr(self, name), list
            ):  # styles are kept by their values, which must not change
                object.__setattr__(self, name, tuple(getattr(self, name)))
        allowed = {
            "title": ("published", "plain", "none"),
            "title_side": ("top", "bottom"),
            "time_side": ("bottom", "top"),
            "frequency_side": ("left", "right"),
            "colour_bar": ("right", "left", "none"),
        }
        for name, values in allowed.items():
            if getattr(self, name) not in values:
                raise ValueError(f"Style.{name} is {getattr(self, name)!r}, expected one of {values}")
        if self.colour_limits is not None:
            low, high = self.colour_limits
            if not (np.isfinite([low, high]).all() and low < high):
                raise ValueError(f"Style.colour_limits is {self.colour_limits}, expected finite low < high")
        if self.colour_map not in matplotlib.colormaps:
            raise ValueError(
                f"Style.colour_map is {self.colour_map[:80]!r}, expected one of matplotlib's, as 'viridis' or 'magma'"
            )
        if not 0.5 <= self.font_scale <= 1.5:
            raise ValueError(f"Style.font_scale is {self.font_scale!r}, expected a factor in [0.5, 1.5]")
        if self.title != "none" and self.axis_labels and self.title_side == self.time_side:
            raise ValueError(
                f"Style.title_side and Style.time_side are both {self.title_side!r}, where the figure has no room for "
                "a title and the label of the time axis: put one on the other side, or set axis_labels=False"
            )
        right, up = self.shift
        if not (-60 <= right <= 60 and -40 <= up <= 40):
            raise ValueError(
                f"Style.shift is {self.shift}, expected at most 60 pixels sideways and 40 up or down"
            )

    def resolve(self, rng: np.random.Generator) -> "Style":
        """The style of one image: of a jittered style one of its layouts, of any other the style itself."""
        if not self.jitter:
            return self
        layout = np.random.default_rng(int(rng.integers(LAYOUTS)))
        above = bool(layout.integers(2))
        return replace(
            self,
            jitter=False,
            # Farther, and text would leave the figure.
            shift=(int(layout.integers(-24, 25)), int(layout.integers(-4, 17))),
            font_scale=float(layout.integers(85, 116)) / 100,
            title=("published", "plain", "none")[int(layout.integers(3))],
            title_side="bottom" if above else "top",
            time_side="top" if above else "bottom",
            axis_labels=bool(layout.integers(4)),
            colour_bar=("right", "right", "none")[int(layout.integers(3))],
        )

    def title_text(self, number: int, sweep: str) -> str:
        """The title that this style gives sample `number`; empty where it carries none."""
        if self.title == "published":
            return f"Synthetic Spectrogram {number} ({sweep} chirp)"
        return "Synthetic Spectrogram" if self.title == "plain" else ""


Style.published = Style()
Style.bare = Style(title="none", axis_labels=False, ticks=False, colour_bar="none", frame=False)
Style.moved = Style(title_side="bottom", time_side="top", frequency_side="right", colour_bar="left")
Style.randomized = Style(jitter=True)
STYLES = {name: getattr(Style, name) for name in ("published", "bare", "moved", "randomized")}


def find_style(style: Style | str) -> Style:
    """A preset by its name, or the style itself. Raises ValueError for an unknown name."""
    if isinstance(style, Style):
        return style
    if not isinstance(style, str) or style not in STYLES:
        raise ValueError(f"unknown style {style!r}, expected one of {tuple(STYLES)} or a Style")
    return STYLES[style]
