"""Figures of classes: the grid of heads by class, contact sheets, and how counts move with thresholds."""

from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.colors import ListedColormap
from matplotlib.patches import Patch

from vitmech_utils.figures.plots import CLASS_COLOURS, WIDE, overlay

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


def contact_sheet(table: pd.DataFrame, image: np.ndarray, maps: np.ndarray, columns: int = 6) -> "Figure":
    """Show the most confident heads of each class: rows are classes, each map scaled to [0, 1] over one image.

    `image` is [row, column, 3]; `maps` [layer, head, row, column]. A class without heads has no row.
    """
    present = [name for name in CLASS_COLOURS if (table["class"] == name).any()]
    figure, axes = plt.subplots(
        len(present), columns, figsize=(WIDE, WIDE / columns * 1.17 * len(present)), squeeze=False
    )
    for row, name in zip(axes, present, strict=True):
        members = table[table["class"] == name].sort_values("confidence", ascending=False, kind="stable")
        for ax in row:
            ax.axis("off")
        for ax, head in zip(row, members.itertuples(), strict=False):
            values = maps[head.layer, head.head]
            unit = (values - values.min()) / max(values.max() - values.min(), 1e-12)
            ax.imshow(overlay(image, unit))
            regions = "\n".join(SHORT_REGIONS.get(r, r) for r in head.regions.split(" + ")[:2])
            ax.set_title(
                f"L{head.layer + 1}H{head.head + 1} {regions}".replace("\n", ", "), fontsize=8, pad=2
            )
        row[0].text(
            -0.08, 0.5, name, rotation=90, va="center", ha="right", transform=row[0].transAxes, fontsize=9
        )
    return figure


def sensitivity_lines(table: pd.DataFrame, chosen: dict[str, float]) -> "Figure":
    """Draw the number of heads per class against each threshold; a dotted line marks the value that was chosen."""
    names = list(chosen)
    figure, axes = plt.subplots(1, len(names), figsize=(WIDE, 2.9), sharey=True)
    for ax, name in zip(axes, names, strict=True):
        part = table[table["threshold"] == name].pivot(index="value", columns="class", values="heads")
        for kind, colour in CLASS_COLOURS.items():
            ax.plot(part.index, part[kind], color=colour, label=kind, marker=".")
        ax.axvline(chosen[name], color="#444444", linestyle=":", linewidth=1)
        ax.set_title(name)
        ax.set_xlabel("nats" if name == "information" else "share")
    axes[0].set_ylabel("heads")
    figure.legend(*axes[0].get_legend_handles_labels(), ncols=len(CLASS_COLOURS), loc="outside lower center")
    return figure
