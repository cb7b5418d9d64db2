"""Figures of where heads come from: classes of several networks side by side, changes of lift, and heads' fates."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.patches import Patch

from vitmech_utils.figures.classes import SHORT_REGIONS, class_grid
from vitmech_utils.figures.plots import CLASS_COLOURS, WIDE, heatmap

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FATES: dict[str, str] = {"kept": "#0072B2", "appeared": "#D55E00", "vanished": "#BBBBBB"}


def class_grids(tables: Mapping[str, pd.DataFrame], columns: int = 2) -> "Figure":
    """One grid of classes per network, in the order given, with one legend for all."""
    rows = -(-len(tables) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(WIDE, 4.6 * rows + 0.5), squeeze=False)
    for ax, (name, table) in zip(axes.flat, tables.items(), strict=False):
        class_grid(ax, table, legend=False)
        about = int(table["class"].isin(["monosemantic", "polysemantic"]).sum())
        _ = ax.set_title(f"{name}: {about} about something", fontsize=9)
    for ax in axes.flat[len(tables) :]:
        ax.remove()
    patches = [Patch(color=colour, label=name) for name, colour in CLASS_COLOURS.items()]
    figure.legend(handles=patches, loc="outside lower center", ncols=3)
    return figure


def lift_change_grids(
    changes: Mapping[str, pd.DataFrame], regions: Sequence[str], limit: float = 3.0
) -> "Figure":
    """Grids of layer x head per network (row) and region (column): doublings of the lift, clear changes dotted.

    Each table is one of `heads.origin.lift_changes`; a change is clear where its q-value is below 0.05. Colours end
    at `limit` doublings.
    """
    figure, axes = plt.subplots(
        len(changes),
        len(regions),
        figsize=(WIDE, 2.9 * len(changes) + 0.4),
        squeeze=False,
        sharex=True,
        sharey=True,
    )
    image = None
    for row, (name, table) in zip(axes, changes.items(), strict=True):
        layers, heads = int(table["layer"].max()) + 1, int(table["head"].max()) + 1
        for ax, region in zip(row, regions, strict=True):
            part = table[table["region"] == region]
            grid, clear = np.full((layers, heads), np.nan), np.zeros((layers, heads), dtype=bool)
            grid[part["layer"], part["head"]] = part["doublings"].clip(-limit, limit)
            clear[part["layer"], part["head"]] = part["q_value"] < 0.05
            image = heatmap(
                ax,
                grid,
                label="",
                diverging=True,
                limits=(-limit, limit),
                marked=clear,
                colour_bar=False,
            )
            _ = ax.set(xlabel="", ylabel="")
            _ = ax.tick_params(labelsize=6)
            if ax in axes[0]:
                _ = ax.set_title(SHORT_REGIONS.get(region, region), fontsize=9)
        _ = row[0].set_ylabel(f"{name}\nlayer", fontsize=9)
    for ax in axes[-1]:
        _ = ax.set_xlabel("head", fontsize=8)
    if image is not None:
        figure.colorbar(
            image,
            ax=axes,
            label="lift: doublings against pre-trained",
            location="bottom",
            shrink=0.6,
            aspect=40,
        )
    return figure


def fate_bars(ax: "Axes", table: pd.DataFrame) -> None:
    """Stack what became of the heads of each subject: vanished to the left of zero; kept and appeared to the right.

    `table` is one of `heads.origin.fates`. Solid parts are heads whose classes are sure both times.
    """
    places = np.arange(len(table))[::-1]
    starts = {"vanished": -table["vanished"], "kept": 0 * table["kept"], "appeared": table["kept"]}
    for fate, colour in FATES.items():
        counts, sure = table[fate].to_numpy(), table[f"{fate}_sure"].to_numpy()
        start = starts[fate].to_numpy()
        solid = start + (counts - sure if fate == "vanished" else 0)
        ax.barh(places, counts, left=start, color=colour, alpha=0.4)
        ax.barh(places, sure, left=solid, color=colour, label=fate)
        for place, count, left in zip(places, counts, start, strict=True):
            if count:
                ax.text(left + count / 2, place, str(count), ha="center", va="center", fontsize=8)
    ax.axvline(0, color="#444444", linewidth=0.8)
    ax.margins(x=0.06)
    ax.set_yticks(places, table["subject"])
    ax.xaxis.set_major_locator(plt.MaxNLocator(integer=True))
    ax.xaxis.set_major_formatter(lambda value, _: f"{abs(value):g}")
    ax.set_xlabel("heads")
