"""What chapter 01 measures of the images themselves: labels, areas, twins, the leak in the title, the time to draw."""

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int, UInt8
from numpy import ndarray

from vitmech_utils.arguments import checked_arguments
from vitmech_utils.data import chirps
from vitmech_utils.data.chirps import Chirp, generator, sample_chirp
from vitmech_utils.data.dataset import ChirpDataset
from vitmech_utils.data.figures import REGIONS, draw_with_matplotlib

INK = 128  # darker values above the plot belong to the title
ABOVE_PLOT = slice(14, 25)  # rows of the title


@checked_arguments()
def sampled_labels(count: int, seed: int) -> Float[ndarray, "chirp label"]:
    """The labels of the first chirps of one seed, in seconds and hertz."""
    return np.stack([sample_chirp(seed, index).labels for index in range(count)])


@checked_arguments()
def clipped(labels: Float[ndarray, "chirp label"]) -> float:
    """The share of chirps whose end frequency lies exactly on either end of its range."""
    return float(np.isin(labels[:, 2], (0, chirps.MAX_FREQUENCY)).mean())


@checked_arguments()
def painting_steps(chirp: Chirp, level: float) -> dict[str, Float[ndarray, "frequency time"]]:
    """One chirp's grid step by step: the ridge, with white noise of standard deviation `level`, smoothed."""
    ridge = chirps.ridge(chirp)
    noisy = ridge + level * generator(0, 0, "noise").standard_normal(ridge.shape)
    return {"ridge": ridge, "with noise": noisy, "smoothed": chirps.smooth(noisy)}


class ThresholdCheck(NamedTuple):
    """A level ridge's peak, its rows above the threshold, and the spread of the strongest noise."""

    peak: float
    rows: int
    noise: float


@checked_arguments()
def threshold_check(threshold: float) -> ThresholdCheck:
    """Hold the threshold that makes a pixel part of the chirp against a level ridge and the strongest noise."""
    level = chirps.smooth(chirps.ridge(Chirp(10.0, 50.0, 50.0, 15.0, "linear")))[:, 40]
    noise = chirps.NOISE_LEVELS[1] * generator(1, 0, "noise").standard_normal((chirps.BINS, chirps.BINS))
    return ThresholdCheck(
        float(level.max()), int((level >= threshold).sum()), float(chirps.smooth(noise).std())
    )


@checked_arguments()
def area_shares(images: ChirpDataset, count: int) -> pd.DataFrame:
    """Each region's share of an image, over the first images: region, area share (their mean), least, most."""
    maps = np.stack([images.drawing(index).regions for index in range(count)])
    shares = np.stack([(maps == number).mean(axis=(1, 2)) for number in range(len(REGIONS))])
    return pd.DataFrame(
        {
            "region": REGIONS,
            "area share": [(maps == number).mean() for number in range(len(REGIONS))],
            "least": shares.min(axis=1),
            "most": shares.max(axis=1),
        }
    )


@checked_arguments()
def inside_plot(regions: UInt8[ndarray, "row column"], margin: int = 2) -> Bool[ndarray, "row column"]:
    """Which pixels lie in the plot, at least `margin` pixels away from all else."""
    inside = np.isin(regions, (REGIONS.index("chirp"), REGIONS.index("plot background")))
    for _ in range(margin):
        inside = np.logical_and.reduce(
            [inside, *(np.roll(inside, step, axis) for step in (1, -1) for axis in (0, 1))]
        )
    return inside


@checked_arguments()
def title_lengths(images: ChirpDataset, indices: Sequence[int]) -> Int[ndarray, " image"]:
    """How many columns of each image have dark ink above the plot, where the title stands."""
    above = np.stack([images.drawing(index).image[ABOVE_PLOT].min(axis=(0, 2)) for index in indices])
    return (above < INK).sum(axis=1)


@checked_arguments()
def seconds_per_image(way: Callable[[int], object], count: int) -> float:
    """Processor time of one image, after a first one that prepares what is kept."""
    way(0)
    start = time.process_time()
    for index in range(1, count + 1):
        way(index)
    return (time.process_time() - start) / count


@checked_arguments()
def drawing_speed(images: ChirpDataset) -> dict[str, float]:
    """Processor time per image, in seconds, through matplotlib and through `draw`."""

    def slowly(index: int) -> None:
        draw_with_matplotlib(images.grid(index), images.chirp(index), "published", images.title(index))

    for index in range(200):  # fill what draw keeps
        images.drawing(index)
    return {"matplotlib": seconds_per_image(slowly, 8), "draw": seconds_per_image(images.drawing, 100)}


@checked_arguments()
def recorded_speed(root: Path) -> dict[str, dict[str, float]]:
    """The recorded benchmark's rows, each with its `seconds` per image; none where it was not run."""
    record = root / "benchmarks" / "images.json"
    return json.loads(record.read_text(encoding="utf-8"))["speed"] if record.exists() else {}
