"""Which pixel of a drawn figure belongs to what: names, thresholds, and the coverage of patches."""

import numpy as np
from jaxtyping import Bool, Float, Float32, UInt8
from numpy import ndarray

from vitmech_utils.arguments import checked_arguments

REGIONS = (
    "margin",
    "plot background",
    "chirp",
    "title",
    "axis label",
    "tick label",  # of both axes and of the colour bar
    "colour bar",
    "colour-bar label",
    "frame",  # plot frame, colour-bar outline and tick marks
)

INK = 0.1  # text and lines: pixels that they darken by at least a tenth
AREA = 0.5  # plot and colour bar: pixels that they cover by at least half
# Noise-free, smoothed ridge of a chirp pixel. A level ridge exceeds it on the five rows that are painted, and the
# strongest noise of the recipe, smoothed, has a standard deviation of 0.085.
CHIRP = 0.15

Coverage = UInt8[ndarray, "row column"]  # 0 (none) to 255 (all of the pixel)


def label_pixels(
    areas: dict[str, Coverage],
    inks: dict[str, Coverage],
    size: int,
) -> UInt8[ndarray, "size size"]:
    """Give each pixel one region: the margin, over it areas (>= AREA covered), over them inks (>= INK)."""
    regions = np.zeros((size, size), np.uint8)
    for threshold, parts in ((AREA, areas), (INK, inks)):
        for name, coverage in parts.items():
            regions[coverage >= threshold * 255] = REGIONS.index(name)
    return regions


def mark_ink(regions: UInt8[ndarray, "row column"], name: str, coverage: Coverage) -> None:
    """Give the pixels that an ink darkens by at least INK to a region, in place."""
    regions[coverage >= INK * 255] = REGIONS.index(name)


def mark_chirp(regions: UInt8[ndarray, "row column"], level: Float32[ndarray, "row column"]) -> None:
    """Turn plot background into chirp where the noise-free ridge reaches CHIRP, in place."""
    chirp: Bool[ndarray, "row column"] = (level >= CHIRP) & (regions == REGIONS.index("plot background"))
    regions[chirp] = REGIONS.index("chirp")


@checked_arguments()
def region_coverage(
    regions: UInt8[ndarray, "height width"], patch: int
) -> Float[ndarray, "region rows columns"]:
    """The share of each patch's pixels that each region holds; sums to one over regions.

    Raises ValueError when the patch size does not divide the picture.
    """
    height, width = regions.shape
    if patch < 1 or height % patch or width % patch:
        raise ValueError(f"patch size {patch} does not divide a picture of {height} x {width} pixels")
    blocks = regions.reshape(height // patch, patch, width // patch, patch)
    counts = np.stack([(blocks == region).sum(axis=(1, 3)) for region in range(len(REGIONS))])
    return counts / patch**2
