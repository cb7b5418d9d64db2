"""What chapter 01 shows: the images, their parts and twins, and how both ways of drawing compare."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.colors import ListedColormap

from vitmech_utils.arguments import checked_arguments
from vitmech_utils.data import chirps
from vitmech_utils.data.chirps import LABEL_MEAN, LABEL_NAMES, LABEL_STD, LABEL_UNITS, generator
from vitmech_utils.data.dataset import ChirpDataset
from vitmech_utils.data.differences import Pair
from vitmech_utils.data.figures import REGIONS, STYLES, Drawing
from vitmech_utils.data.waveforms import Waveform, paint_waveform
from vitmech_utils.figures.marks import plain_log
from vitmech_utils.figures.plots import REGION_COLOURS, SEQUENTIAL, WIDE, WIDTH, headline
from vitmech_utils.figures.tables import counted, plain, shown, three_sentences
from vitmech_utils.model.scores import wilson
from vitmech_utils.studies.images.measure import ThresholdCheck

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from pandas.io.formats.style import Styler

TEXT = ("title", "axis label", "tick label", "colour-bar label")
EXTENT = (0, chirps.DURATION, 0, chirps.MAX_FREQUENCY)


@checked_arguments()
def opening(profile: str, images: int) -> str:
    """What this run of the chapter is made of."""
    return (
        f"This page was made with profile **{profile}**: {images} images in the gallery, "
        f"{2 * images} compared with matplotlib. It needs no model and no GPU."
    )


@checked_arguments()
def distributions(labels: np.ndarray, clipped: float) -> "Figure":
    """A histogram of each label [chirp, label], with the recipe's mean and standard deviation."""
    figure, axes = plt.subplots(1, len(LABEL_NAMES), figsize=(WIDE, 3.0))
    for i, (ax, name, unit) in enumerate(zip(axes, LABEL_NAMES, LABEL_UNITS, strict=True)):
        ax.hist(labels[:, i], bins=40, density=True, color="#56B4E9", label=f"{len(labels):,} chirps")
        ax.axvline(LABEL_MEAN[i], color="#222222", lw=1, label="mean")
        span = (LABEL_MEAN[i] - LABEL_STD[i], LABEL_MEAN[i] + LABEL_STD[i])
        ax.axvspan(*span, color="0.5", alpha=0.15, lw=0, label="one standard deviation")
        ax.set(xlabel=f"{plain(name)} ({unit})", ylabel=f"density (1/{unit})")
    figure.legend(*axes[0].get_legend_handles_labels(), ncols=3, loc="outside lower center")
    return headline(figure, f"Clipping piles {clipped:.0%} of the end frequencies onto 0 and 100 Hz")


@checked_arguments()
def clipping(clipped: float) -> str:
    """How many end frequencies the recipe clips, found and expected."""
    return (
        f"Clipping puts **{clipped:.1%}** of all end frequencies exactly on 0 or 100 Hz (by integration: "
        f"{chirps.MAX_BAND / (2 * chirps.MAX_FREQUENCY):.0%}). A regression model can never be right about where "
        "those chirps were headed, and need not be: the label is clipped too."
    )


@checked_arguments()
def painting(steps: Mapping[str, np.ndarray]) -> "Figure":
    """Grids [frequency, time] side by side, each with its own colour bar."""
    figure, axes = plt.subplots(1, len(steps), figsize=(WIDE, 3.0), sharey=True)
    for ax, (name, grid) in zip(axes, steps.items(), strict=True):
        bar = figure.colorbar(_spectrogram(ax, grid, name), ax=ax, shrink=0.85)
    bar.set_label("intensity")
    axes[0].set_ylabel("frequency (Hz)")
    peaks = [f"{grid.max():.2f}" for grid in steps.values()]
    return headline(figure, f"Noise and smoothing leave a ridge that peaks at {peaks[-1]}, not at {peaks[0]}")


@checked_arguments()
def gallery(images: ChirpDataset, count: int) -> "Figure":
    """The first images as the model sees them, with their labels."""
    columns = min(count, 4)
    rows = -(-count // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(WIDE, WIDE / columns * rows), squeeze=False)
    for ax in axes.flat:
        ax.axis("off")
    for index, ax in zip(range(count), axes.flat, strict=False):
        chirp = images.chirp(index)
        ax.imshow(images.drawing(index).image)
        ax.set_title(
            f"{chirp.start_time:.1f} s, {chirp.start_freq:.0f} to {chirp.end_freq:.0f} Hz", fontsize=9
        )
    return figure


@checked_arguments()
def threshold(value: float, check: ThresholdCheck) -> str:
    """Why a pixel counts as chirp from this value on."""
    return (
        f"The threshold is **{value}**. A level ridge peaks at {check.peak:.2f} and exceeds the threshold on "
        f"{check.rows} rows, those that the recipe paints; the strongest noise, smoothed, has a "
        f"standard deviation of {check.noise:.3f}."
    )


@checked_arguments()
def anatomy(drawing: Drawing, patch: int = 14) -> "Figure":
    """An image, its region map, and both overlaid with the grid of patches."""
    colours = ListedColormap([REGION_COLOURS[name] for name in REGIONS])
    names = ("the image", "its region map", f"overlaid, with patches of {patch} pixels")
    figure, axes = plt.subplots(1, 3, figsize=(WIDE, 3.3))
    for ax in (axes[0], axes[2]):
        ax.imshow(drawing.image)
    for ax, alpha in ((axes[1], None), (axes[2], 0.55)):
        ax.imshow(drawing.regions, cmap=colours, vmin=-0.5, vmax=len(REGIONS) - 0.5, alpha=alpha)
    for edge in range(0, len(drawing.regions) + 1, patch):
        axes[2].axhline(edge - 0.5, color="white", lw=0.4)
        axes[2].axvline(edge - 0.5, color="white", lw=0.4)
    for ax, name in zip(axes, names, strict=True):
        ax.set_title(name)
        ax.axis("off")
    handles = [plt.Rectangle((0, 0), 1, 1, color=REGION_COLOURS[name]) for name in REGIONS]
    figure.legend(handles, REGIONS, ncols=5, loc="outside lower center")
    return figure


@checked_arguments()
def twins(index: int, size: int, seed: int = 0) -> "Figure":
    """One held-out image under every ready-made style."""
    figure, axes = plt.subplots(1, len(STYLES), figsize=(WIDE, 2.5))
    for ax, name in zip(axes, STYLES, strict=True):
        ax.imshow(ChirpDataset(size, seed=seed, split="held-out", style=name).drawing(index).image)
        ax.set_title(name)
        ax.axis("off")
    return figure


@checked_arguments()
def quirks(chirp: chirps.Chirp, highest: float = 50) -> "Figure":
    """One chirp as the recipe paints it, and as the transform of a waveform in several kinds of noise."""
    kinds = {
        "waveform: runs down": Waveform(snr=np.inf),
        "white noise, 0 dB": Waveform(snr=0),
        "pink noise, 0 dB": Waveform(noise_colour="pink", snr=0),
    }
    panels = {"recipe: drops at once": chirps.smooth(chirps.ridge(chirp))} | {
        name: paint_waveform(chirp, generator(3, 0, "waveform"), kind) for name, kind in kinds.items()
    }
    figure, axes = plt.subplots(1, len(panels), figsize=(WIDE, 2.7), sharey=True)
    for ax, (name, grid) in zip(axes, panels.items(), strict=True):
        seen = _spectrogram(ax, grid, name, vmax=0.6)
        ax.set_ylim(0, highest)
    figure.colorbar(seen, ax=axes, label="intensity, up to 0.6", shrink=0.85, pad=0.01)
    axes[0].set_ylabel("frequency (Hz)")
    return figure


@checked_arguments()
def both_ways(pair: Pair) -> "Figure":
    """One image drawn both ways, and the largest difference of its three channels, in units of 1/255."""
    figure, axes = plt.subplots(1, 3, figsize=(WIDE, 3.1))
    for ax, picture, name in zip(axes, (pair.drawn, pair.reference), ("draw", "matplotlib"), strict=False):
        ax.imshow(picture)
        ax.set_title(name)
    seen = axes[2].imshow(pair.difference.max(axis=2), cmap=SEQUENTIAL, vmin=0, vmax=3)
    axes[2].set_title("difference (units of 1/255)")
    figure.colorbar(seen, ax=axes[2], ticks=[0, 1, 2, 3], shrink=0.8)
    for ax in axes:
        ax.axis("off")
    return figure


@checked_arguments()
def difference_table(summary: dict) -> "Styler":
    """Mean and largest difference by region, for the page."""
    rows = [{"region": name, **summary["regions"][name]} for name in REGIONS if name in summary["regions"]]
    caption = "Absolute difference between draw and matplotlib by region, in units of 1/255"
    return shown(
        pd.DataFrame(rows)[["region", "mean", "largest"]], {"mean": ".3f", "largest": ".0f"}, caption
    )


@checked_arguments()
def differences(summary: dict) -> str:
    """How far both ways of drawing lie apart, and where most."""
    place = summary["worst"][0]
    return (
        f"Over {summary['images']} images the mean absolute difference is **{summary['mean']:.3f}/255**; "
        f"{summary['equal']:.1%} of all values are equal, and the largest difference is {summary['largest']}/255 "
        f"(image {place['image']}, row {place['row']}, column {place['column']}: {place['region']}). Most lie in "
        "the plot, where matplotlib rounds once more between its resampling and Pillow's."
    )


@checked_arguments()
def speeds(measured: Mapping[str, float], recorded: Mapping[str, Mapping[str, float]]) -> "Figure":
    """Processor time per image (seconds given, milliseconds shown): measured here, and from the recorded benchmark."""
    bars = {f"{name} (this page)": measured[name] for name in ("matplotlib", "draw")}
    bars |= {f"{name} (benchmark)": row["seconds"] for name, row in recorded.items()}
    milliseconds = [1e3 * seconds for seconds in bars.values()]
    figure, ax = plt.subplots(figsize=(WIDTH, 0.42 * len(bars) + 1))
    ax.barh(list(bars), milliseconds, color="#0072B2")
    for row, length in enumerate(milliseconds):
        ax.text(length * 1.05, row, f"{length:.3g}", va="center", fontsize=9)
    ax.invert_yaxis()
    ax.set(xlabel="processor time per image (ms)", xlim=(1, max(milliseconds) * 2))
    plain_log(ax, "x")
    ax.set_title(f"draw is {measured['matplotlib'] / measured['draw']:.0f} times as fast as matplotlib here")
    return figure


@checked_arguments()
def recorded_speeds(recorded: Mapping[str, Mapping[str, float]]) -> str:
    """What the recorded benchmark says, or how to make one."""
    if not recorded:
        return "Run `python benchmarks/images.py --help` to measure the published generator on your machine."
    seconds = {name: row["seconds"] for name, row in recorded.items()}
    published, ours = 1e3 * seconds["published, PNG"], 1e3 * seconds["draw"]
    return (
        f"In the recorded benchmark (`benchmarks/images.py`) the published generator takes "
        f"{published:.0f} ms for an image and its PNG file, `draw` {ours:.1f} ms: a factor of "
        f"**{published / ours:.0f}**. Without PNG files on either side it is "
        f"{seconds['published, no PNG'] / seconds['draw']:.0f}."
    )


@checked_arguments()
def verdict(holds: bool, mean_difference: float, pixels: int, leak: float) -> str:
    """Whether the chapter's claim holds on this page, and on what grounds."""
    return (
        f"The claim **{'holds' if holds else 'does not hold'}** on this page: pictures within "
        f"{mean_difference:.3f}/255 of matplotlib's on average, twins equal wherever their styles are, and a region "
        f"for every one of {pixels:,} pixels. The study gives no figure to compare with: its images carry no masks. "
        f"Its title leaks the sweep ({leak:.0%} right without looking at the plot), which its own task does not use."
    )


@checked_arguments()
def what_you_know(summary: Mapping, area: pd.DataFrame, images: int, read: np.ndarray) -> str:
    """The chapter in three sentences.

    `area` holds the shares of so many `images`; `read` [image] is true where the title's length told the type of the
    sweep.
    """
    rows, told = area.set_index("region"), wilson(read)
    chirp, text = rows.loc["chirp"], rows.loc[list(TEXT), "area share"].sum()
    return three_sentences(
        f"Drawn part by part, an image differs from matplotlib's by {summary['mean']:.2f} of 255 steps on average and "
        f"by {summary['largest']:g} at most ({counted(summary['images'], 'image')}), so our renderer does not stand "
        "between this book and the study's images.",
        f"The chirp covers {chirp['area share']:.2%} of the picture ({chirp['least']:.2%} to {chirp['most']:.2%}) and "
        f"text, the colour bar's label included, {text:.1%} on average over {counted(images, 'image')}: a share of "
        "attention means nothing before it is divided by a share of the area.",
        f"The title's length alone tells the type of the sweep on {told:.0%} of {counted(len(read), 'image')}, which "
        "does not touch the study's task and would spoil a classifier of types.",
    )


def _spectrogram(ax: "Axes", grid: np.ndarray, title: str, vmax: float | None = None):
    ax.set(xlabel="time (s)", title=title)
    return ax.imshow(
        grid,
        origin="lower",
        aspect="auto",
        extent=EXTENT,
        cmap="viridis",
        vmin=None if vmax is None else 0,
        vmax=vmax,
    )
