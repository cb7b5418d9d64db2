"""Figures of real recordings: what a recording holds, pictures in pairs, and how far heads keep to the chirp."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from vitmech_utils.data.recordings.spectrograms import Axes
from vitmech_utils.data.regions import REGIONS
from vitmech_utils.figures.marks import head_names, name_largest
from vitmech_utils.figures.plots import ATTENTION, REGION_COLOURS, WIDE, overlay
from vitmech_utils.studies.recordings.matched import Picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes as Plot
    from matplotlib.figure import Figure

CHIRP_HEAD, OTHER_HEAD = REGION_COLOURS["chirp"], "#888888"
KINDS: dict[str, str] = {"painted": "#0072B2", "real": "#D55E00"}


def recording_panels(grids: Mapping[str, tuple[np.ndarray, Axes]]) -> "tuple[Figure, list[Plot]]":
    """One spectrogram per recording side by side (colours end at their 99.9 % quantile), and an empty panel below."""
    figure = plt.figure(figsize=(WIDE, 5.2))
    rows = figure.add_gridspec(2, len(grids), height_ratios=(1.35, 1))
    panels: list[Plot] = []
    for number, (name, (grid, axes)) in enumerate(grids.items()):
        ax = figure.add_subplot(rows[0, number], sharey=panels[0] if panels else None)
        image = ax.imshow(
            grid,
            aspect="auto",
            origin="lower",
            extent=axes.extent,
            cmap=ATTENTION,
            vmin=0,
            vmax=np.quantile(grid, 0.999),
        )
        ax.set(title=name, xlabel="time (s)", ylabel="frequency (Hz)" if not panels else "")
        panels.append(ax)
        if number == len(grids) - 1:
            figure.colorbar(image, ax=ax, label="times the median")
    panels.append(figure.add_subplot(rows[1, :]))
    return figure, panels


def picture_rows(rows: Mapping[str, Sequence[Picture]]) -> "Figure":
    """Figures as the model sees them, one kind in each row; the region *chirp* is outlined."""
    columns = max(len(pictures) for pictures in rows.values())
    figure, axes = plt.subplots(
        len(rows), columns, figsize=(WIDE, WIDE / columns * 0.86 * len(rows)), squeeze=False
    )
    for row, (name, pictures) in zip(axes, rows.items(), strict=True):
        for ax in row:
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set_visible(False)
        for ax, picture in zip(row, pictures, strict=False):
            image, regions = picture.drawing()
            ax.imshow(image)
            ax.contour(regions == REGIONS.index("chirp"), [0.5], colors="#FF3333", linewidths=0.7)
        row[0].set_ylabel(name, fontsize=9)
    return figure


def lift_scatter(ax: "Plot", table: pd.DataFrame, label: str, named: int = 1) -> None:
    """Each head's lift on the chirp on painted images (across) and on real ones (up), with intervals.

    `table` has layer, head (0-based), chirp_head (bool), and lift, low, high with the endings _painted and _real.
    """
    for chirp_head, colour in ((False, OTHER_HEAD), (True, CHIRP_HEAD)):
        part = table[table["chirp_head"] == chirp_head]
        errors = [
            np.abs(part[[f"low_{kind}", f"high_{kind}"]].to_numpy().T - part[f"lift_{kind}"].to_numpy())
            for kind in ("painted", "real")
        ]
        ax.errorbar(
            part["lift_painted"],
            part["lift_real"],
            xerr=errors[0],
            yerr=errors[1],
            fmt="o",
            markersize=3.5,
            linewidth=0.6,
            color=colour,
            label="about the chirp on painted ones" if chirp_head else "other heads",
        )
    among = table["lift_real"].where(table["chirp_head"])
    name_largest(ax, table["lift_painted"], table["lift_real"], head_names(table), among, named)
    values = table[["lift_painted", "lift_real"]].to_numpy()
    ends = float(np.nanmin(values[values > 0])) / 1.3, float(np.nanmax(values)) * 1.5
    ax.plot(ends, ends, color="#444444", linewidth=0.8, linestyle="--")
    ax.axhline(1, color="#444444", linewidth=0.6, linestyle=":")
    ax.axvline(1, color="#444444", linewidth=0.6, linestyle=":")
    ax.set(
        xscale="log",
        yscale="log",
        xlim=ends,
        ylim=ends,
        xlabel=f"lift on the chirp, painted images ({label})",
    )
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter(lambda value, _: f"{value:g}")


def source_dots(ax: "Plot", table: pd.DataFrame) -> None:
    """The chirp heads' mean lift, painted and real, for each detector and each call, and for all of them.

    `table` has source, kind ("painted" or "real"), lift, and low and high that are NaN but for rows over all sources.
    """
    sources = list(dict.fromkeys(table["source"]))
    for kind, colour in KINDS.items():
        part = table[table["kind"] == kind].set_index("source").reindex(sources)
        places = np.arange(len(sources)) + (0.12 if kind == "real" else -0.12)
        spread = np.stack([part["lift"] - part["low"], part["high"] - part["lift"]])
        ax.errorbar(
            part["lift"],
            places,
            xerr=np.nan_to_num(spread),
            fmt="o",
            markersize=5,
            color=colour,
            label=kind,
            linewidth=1.4,
        )
    ax.axvline(1, color="#444444", linewidth=0.8, linestyle=":")
    ax.set_yticks(range(len(sources)), sources)
    ax.invert_yaxis()
    ax.set_xscale("log")
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    ax.xaxis.set_minor_formatter(lambda value, _: "")
    ax.set_xlabel("mean lift of the chirp heads on the chirp")
    ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))


def map_panels(
    pictures: Mapping[str, np.ndarray], maps: Mapping[str, np.ndarray], heads: Sequence[tuple[int, int]]
) -> "Figure":
    """A picture in each row, and beside it the maps of some heads (0-based pairs) over it, each scaled to [0, 1].

    `pictures` are [row, column, 3]; `maps` of the same names [layer, head, patch].
    """
    figure, axes = plt.subplots(
        len(pictures),
        len(heads) + 1,
        figsize=(WIDE, WIDE / (len(heads) + 1) * 1.02 * len(pictures)),
        squeeze=False,
    )
    for number, (row, (name, image)) in enumerate(zip(axes, pictures.items(), strict=True)):
        for ax in row:
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set_visible(False)
        row[0].imshow(image)
        row[0].set_ylabel(name, fontsize=9)
        for ax, (layer, head) in zip(row[1:], heads, strict=True):
            values = maps[name][layer, head]
            side = round(len(values) ** 0.5)
            unit = (values - values.min()) / max(float(values.max() - values.min()), 1e-12)
            ax.imshow(overlay(image, unit.reshape(side, side)))
            if number == 0:
                ax.set_title(f"L{layer + 1}H{head + 1}")
    return figure
