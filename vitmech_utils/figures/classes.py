"""Classes of heads as the figures show them: a grid of layers by heads, coloured by class and labelled by regions."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.colors import ListedColormap
from matplotlib.patches import Patch

from vitmech_utils.arguments import checked_arguments
from vitmech_utils.figures.plots import CLASS_COLOURS, WIDE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SHORT_REGIONS: dict[str, str] = {
    "chirp": "chirp",
    "plot background": "plot",
    "title": "title",
    "axis label": "axis",
    "tick label": "ticks",
    "colour bar": "bar",
    "colour-bar label": "bar l.",
    "frame": "frame",
    "margin": "margin",
}


@checked_arguments()
def class_grid(ax: "Axes", table: pd.DataFrame, legend: bool = True) -> None:
    """Colour each head by its class and name its regions; cells with confidence below 0.8 carry a question mark."""
    names = list(CLASS_COLOURS)
    layers, heads = int(table["layer"].max()) + 1, int(table["head"].max()) + 1
    grid = np.zeros((layers, heads))
    grid[table["layer"], table["head"]] = [names.index(name) for name in table["class"]]
    _ = ax.imshow(
        grid,
        aspect="auto",
        cmap=ListedColormap(list(CLASS_COLOURS.values())),
        vmin=-0.5,
        vmax=len(names) - 0.5,
    )
    for edge in range(1, layers):  # heads of one class that touch are still single heads
        ax.axhline(edge - 0.5, color="white", linewidth=0.8)
    for edge in range(1, heads):
        ax.axvline(edge - 0.5, color="white", linewidth=0.8)
    for row in table.itertuples():
        regions = "\n".join(SHORT_REGIONS.get(name, name) for name in row.regions.split(" + ")[:3])
        doubt = "?" if row.confidence < 0.8 else ""
        ink = "black" if row[3] == "diffuse" else "white"
        ax.text(
            row.head,
            row.layer,
            regions + doubt,
            ha="center",
            va="center",
            fontsize=7.5,
            color=ink,
            linespacing=0.9,
        )
    ax.set_xticks(range(heads), [str(head + 1) for head in range(heads)])
    ax.set_yticks(range(layers), [str(layer + 1) for layer in range(layers)])
    ax.set(xlabel="head", ylabel="layer")
    ax.tick_params(length=0)
    if legend:
        patches = [Patch(color=colour, label=name) for name, colour in CLASS_COLOURS.items()]
        ax.legend(handles=patches, loc="upper left", bbox_to_anchor=(1.0, 1.0))


@checked_arguments()
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
