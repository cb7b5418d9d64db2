"""The figure style of the whole book: one look, colour-blind-safe maps, a white card under every figure.

Layers and heads are 0-based in arrays and tables, 1-based on every axis drawn here.
"""

import sys
from base64 import b64encode
from typing import TYPE_CHECKING, Literal

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.colors import Normalize, SymLogNorm, TwoSlopeNorm
from matplotlib.figure import Figure

from vitmech_utils.arguments import checked_arguments

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell
    from matplotlib.axes import Axes
    from matplotlib.image import AxesImage
    from torch import Tensor

WIDTH = 7.2
"""Width of a figure of one panel, in inches."""
WIDE = 8.6
"""Width of a figure whose panels stand side by side, in inches: as wide as the book's column (book/assets/book.css).

A page shows both as large as they are drawn, so text has one size on it whatever the width; only heights vary.
"""

SEQUENTIAL = "cividis"
"""Map for shares, entropies and other quantities without a meaningful middle."""
DIVERGING = "RdBu_r"
"""Map for signed quantities; red raises, blue lowers, white is zero."""
ATTENTION = "viridis"
"""Map for attention laid over an image."""

REGION_COLOURS: dict[str, str] = {
    "chirp": "#D55E00",
    "plot background": "#332288",
    "title": "#0072B2",
    "axis label": "#009E73",
    "tick label": "#56B4E9",
    "colour bar": "#CC79A7",
    "colour-bar label": "#E69F00",
    "frame": "#000000",
    "margin": "#BBBBBB",
}
"""One fixed colour per region (Okabe and Ito's palette, with Tol's indigo for the plot background)."""

CLASS_COLOURS: dict[str, str] = {
    "monosemantic": "#D55E00",
    "polysemantic": "#0072B2",
    "diffuse": "#BBBBBB",
    "positional": "#009E73",
    "sink": "#332288",
}
"""One fixed colour per class of head."""


PALE = 0.3  # share of a decade's colours for values that a logarithmic map shows linearly


def use_style() -> None:
    """Set matplotlib's defaults for the book: white card, readable sizes, no clutter."""
    plt.rcParams.update(
        {
            "figure.facecolor": "white",
            "figure.dpi": 100,
            "figure.titlesize": 10,
            "figure.figsize": (WIDTH, 4.0),
            "figure.constrained_layout.use": True,
            "savefig.facecolor": "white",
            "savefig.transparent": False,
            "savefig.dpi": 100,
            "axes.facecolor": "white",
            "axes.edgecolor": "#444444",
            "axes.labelcolor": "#222222",
            "axes.labelsize": 10,
            "axes.titlesize": 10,
            "axes.titlelocation": "left",
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.prop_cycle": mpl.cycler(
                color=["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#332288", "#000000"]
            ),
            "font.family": "sans-serif",
            "font.sans-serif": ["DejaVu Sans"],
            "font.size": 10,
            "image.cmap": SEQUENTIAL,
            "image.interpolation": "nearest",
            "legend.fontsize": 9,
            "legend.frameon": False,
            "lines.linewidth": 1.6,
            "text.color": "#222222",
            "xtick.color": "#444444",
            "ytick.color": "#444444",
            "xtick.labelsize": 9,
            "ytick.labelsize": 9,
        }
    )
    if (shell := _kernel()) is not None:
        from matplotlib_inline.backend_inline import select_figure_formats

        # Twice the pixels at the same size, for dense screens: the output says how large it is meant.
        select_figure_formats(shell, {"retina"})
        _show_what_was_saved(shell)


def _show_what_was_saved(shell: "InteractiveShell") -> None:
    """Let a cell show the file of a figure that was just saved, instead of drawing the same picture again."""
    formatter = shell.display_formatter.formatters["image/png"]
    draw = formatter.lookup_by_type(Figure)

    def show(figure: Figure) -> object:
        saved = getattr(figure, "saved_as", None)
        if saved is None or figure.stale or figure.dpi != 100 or not saved.is_file():
            return draw(figure)
        picture = saved.read_bytes()
        width, height = (int.from_bytes(picture[at : at + 4], "big") for at in (16, 20))
        return b64encode(picture).decode("ascii"), {"width": width // 2, "height": height // 2}

    formatter.for_type(Figure, show)


@checked_arguments()
def headline(figure: Figure, text: str) -> Figure:
    """Put the finding over a figure of several panels, at its left; returns the figure."""
    figure.suptitle(text, x=0.01, ha="left")
    return figure


@checked_arguments()
def to_grid(frame: pd.DataFrame, value: str) -> np.ndarray:
    """Column `value` of a table with columns layer and head (0-based) as an array [layer, head].

    Raises ValueError when a (layer, head) pair occurs twice; absent pairs are NaN.
    """
    missing = {"layer", "head", value} - set(frame.columns)
    if missing:
        raise ValueError(
            f"table lacks the column(s) {sorted(missing)}; it has {list(frame.columns)}. "
            "Pass a table with one row per layer and head."
        )
    if frame.duplicated(["layer", "head"]).any():
        layer, head = frame.loc[frame.duplicated(["layer", "head"]), ["layer", "head"]].iloc[0]
        raise ValueError(
            f"layer {layer}, head {head} (0-based) occurs more than once; "
            "expected one row per head: filter the table (one mode, one region, one query) first."
        )
    grid = np.full((int(frame["layer"].max()) + 1, int(frame["head"].max()) + 1), np.nan)
    grid[frame["layer"].to_numpy(int), frame["head"].to_numpy(int)] = frame[value].to_numpy(float)
    return grid


@checked_arguments()
def heatmap(
    ax: "Axes",
    values: pd.DataFrame | np.ndarray,
    *,
    value: str = "effect",
    label: str,
    diverging: bool = False,
    limits: tuple[float, float] | None = None,
    linear: float | None = None,
    marked: np.ndarray | None = None,
    annotate: str | None = None,
    colour_bar: bool = True,
) -> "AxesImage":
    """Draw a layer x head grid with 1-based ticks and a colour bar that names quantity and unit.

    `values` is an array [layer, head] or a table with columns layer, head (0-based) and `value`. `marked`
    [layer, head] bool puts a dot on cells (say, those whose interval excludes zero); `annotate` is a format
    such as ".1f" that writes the numbers in. Cells that are NaN are hatched. A diverging map is centred at 0; with
    `linear` its colours are pale and linear up to that value, logarithmic beyond, for values of many sizes.
    """
    grid = to_grid(values, value) if isinstance(values, pd.DataFrame) else np.asarray(values, dtype=float)
    if grid.ndim != 2:
        raise ValueError(f"heatmap expects an array [layer, head], got shape {grid.shape}.")
    ax.set_facecolor("#dddddd")
    ax.patch.set_hatch("////")
    ax.patch.set_edgecolor("#999999")
    image = ax.imshow(
        grid,
        aspect="auto",
        cmap=DIVERGING if diverging else SEQUENTIAL,
        norm=_norm(grid, diverging, limits, linear),
    )
    layers, heads = grid.shape
    ax.set_xticks(range(heads), [str(head + 1) for head in range(heads)])
    ax.set_yticks(range(layers), [str(layer + 1) for layer in range(layers)])
    ax.set_xlabel("head")
    ax.set_ylabel("layer")
    ax.tick_params(length=0)
    for layer, head in np.ndindex(grid.shape):
        if np.isnan(grid[layer, head]):
            continue
        ink = _ink(image.cmap(image.norm(grid[layer, head])))
        if annotate is not None:
            ax.text(
                head,
                layer,
                format(grid[layer, head], annotate),
                ha="center",
                va="center",
                color=ink,
                fontsize=7.5,
            )
        if marked is not None and marked[layer, head]:
            ax.plot(head + 0.36, layer - 0.28, ".", color=ink, markersize=4)
    if colour_bar:
        bar = ax.figure.colorbar(image, ax=ax, label=label)
        if isinstance(image.norm, SymLogNorm):
            low, high = image.norm.vmin, image.norm.vmax
            bar.set_ticks([tick for tick in decades(linear) if low <= tick <= high], minor=False)
            bar.ax.yaxis.set_major_formatter("{x:g}")
            bar.ax.minorticks_off()
    return image


@checked_arguments()
def decades(linear: float) -> list[float]:
    """Ticks for a scale that is linear up to `linear` and logarithmic beyond: 0 and its multiples by powers of ten."""
    ticks = linear * 10.0 ** np.arange(7)
    return [*-ticks[::-1], 0.0, *ticks]


@checked_arguments()
def map_grid(
    image: np.ndarray,
    maps: np.ndarray,
    *,
    scale: Literal["map", "shared"] = "map",
    label: str = "attention",
    title: str = "",
    width: float = 5.6,
    strength: float = 0.72,
) -> Figure:
    """Lay every head's map over one image: rows are layers, columns heads, all 1-based.

    `image` is [row, column, 3] uint8 or float in [0, 1]; `maps` [layer, head, row, column], non-negative.
    `scale="map"` stretches each map to its own [0, 1] (hides magnitudes), "shared" uses one scale for all.
    """
    maps = np.asarray(maps, dtype=float)
    if maps.ndim != 4:
        raise ValueError(f"map_grid expects maps [layer, head, row, column], got shape {maps.shape}.")
    layers, heads = maps.shape[:2]
    tile, gap = 112, 6
    step = tile + gap
    if scale == "shared":
        low, high = np.zeros((layers, heads)), np.full((layers, heads), np.nanmax(maps))
    else:
        low, high = maps.min((2, 3)), maps.max((2, 3))
    mosaic = np.ones((layers * step - gap, heads * step - gap, 3))
    for layer, head in np.ndindex(layers, heads):
        unit = (maps[layer, head] - low[layer, head]) / max(high[layer, head] - low[layer, head], 1e-12)
        y, x = layer * step, head * step
        mosaic[y : y + tile, x : x + tile] = overlay(image, unit, size=tile, strength=strength)
    figure, ax = plt.subplots(figsize=(width, (width - 0.6) * layers / heads + 0.9))
    ax.imshow(mosaic, interpolation="antialiased")
    ax.set_xticks([tile / 2 + step * head for head in range(heads)], [str(head + 1) for head in range(heads)])
    ax.set_yticks(
        [tile / 2 + step * layer for layer in range(layers)], [str(layer + 1) for layer in range(layers)]
    )
    ax.set_xlabel("head")
    ax.set_ylabel("layer")
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    ax.set_title(title)
    norm = Normalize(0, float(high.max()) if scale == "shared" else 1)
    units = label if scale == "shared" else f"{label}, each map scaled to [0, 1]"
    figure.colorbar(
        mpl.cm.ScalarMappable(norm, ATTENTION),
        ax=ax,
        label=units,
        location="top",
        shrink=0.7,
        aspect=40,
        pad=0.01,
    )
    return figure


@checked_arguments()
def pictures(pixel_values: "Tensor") -> np.ndarray:
    """Pixel values in [0, 1] [image, 3, row, column] as pictures for show: uint8 [image, row, column, 3]."""
    return (pixel_values * 255).round().byte().permute(0, 2, 3, 1).contiguous().cpu().numpy()


@checked_arguments()
def overlay(
    image: np.ndarray, unit_map: np.ndarray, *, size: int = 224, strength: float = 0.72
) -> np.ndarray:
    """Blend a map in [0, 1] [row, column] over a greyed image; returns float [size, size, 3] in [0, 1]."""
    pixels = np.asarray(image, dtype=float)
    if pixels.max() > 1:
        pixels = pixels / 255
    grey = _resize(pixels.mean(-1), size)[..., None]
    colour = mpl.colormaps[ATTENTION](_resize(np.clip(unit_map, 0, 1), size))[..., :3]
    return np.clip((1 - strength) * grey + strength * colour, 0, 1)


def _kernel() -> "InteractiveShell | None":
    """The shell of the kernel that this runs in; None outside of a notebook."""
    if "IPython" not in sys.modules:
        return None
    shell = sys.modules["IPython"].get_ipython()
    return shell if getattr(shell, "kernel", None) is not None else None


def _resize(array: np.ndarray, size: int) -> np.ndarray:
    rows = (np.arange(size) * array.shape[0]) // size
    columns = (np.arange(size) * array.shape[1]) // size
    return array[np.ix_(rows, columns)]


def _norm(
    grid: np.ndarray, diverging: bool, limits: tuple[float, float] | None, linear: float | None
) -> Normalize:
    finite = grid[np.isfinite(grid)]
    if not finite.size:
        finite = np.zeros(1)
    if not diverging:
        return Normalize(*(limits or (float(finite.min()), float(finite.max()))))
    low, high = limits or (-float(np.abs(finite).max()), float(np.abs(finite).max()))
    if linear is not None and max(-low, high) > 2 * linear:
        return SymLogNorm(linear, linscale=PALE, vmin=low, vmax=high, base=10)
    return TwoSlopeNorm(0.0, min(low, -1e-9), max(high, 1e-9))


def _ink(rgba: tuple[float, float, float, float]) -> str:
    return "black" if 0.299 * rgba[0] + 0.587 * rgba[1] + 0.114 * rgba[2] > 0.5 else "white"
