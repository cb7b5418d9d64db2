"""How far draw() is from matplotlib: pixel by pixel, in units of 1/255, and where."""

from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from vitmech_utils.arguments import checked_arguments
from vitmech_utils.data.dataset import ChirpDataset
from vitmech_utils.data.figures import draw_with_matplotlib
from vitmech_utils.data.regions import REGIONS

LISTED = 5  # largest differences that a summary names


class Pair(NamedTuple):
    """One image drawn both ways, and its region map."""

    index: int
    drawn: UInt8[ndarray, "224 224 3"]
    reference: UInt8[ndarray, "224 224 3"]
    regions: UInt8[ndarray, "224 224"]

    @property
    def difference(self) -> UInt8[ndarray, "224 224 3"]:
        """Absolute difference of each channel, in units of 1/255."""
        return np.abs(self.drawn.astype(np.int16) - self.reference).astype(np.uint8)


@checked_arguments()
def draw_both(dataset: ChirpDataset, index: int) -> Pair:
    """Draw one image of a data set both ways."""
    image, regions = dataset.drawing(index)
    reference = draw_with_matplotlib(
        dataset.grid(index), dataset.chirp(index), dataset.style_of(index), dataset.title(index)
    )
    return Pair(index, image, reference.image, regions)


@checked_arguments()
def compare(dataset: ChirpDataset, count: int) -> list[Pair]:
    """Draw the first `count` images of a data set both ways."""
    return [draw_both(dataset, index) for index in range(count)]


@checked_arguments()
def worst(pairs: list[Pair]) -> Pair:
    """The pair with the largest difference; among equals, with the largest mean difference."""
    return max(pairs, key=lambda pair: (pair.difference.max(), pair.difference.mean()))


@checked_arguments()
def summarize(pairs: list[Pair]) -> dict:
    """Mean and largest difference in all and per region, the share of equal values, and the largest ones' places."""
    differences = np.stack([pair.difference for pair in pairs])
    regions = np.stack([pair.regions for pair in pairs])
    pixels = differences.max(axis=3)
    places = []
    for flat in np.argsort(pixels, axis=None, kind="stable")[::-1][:LISTED]:
        image, row, column = (int(at) for at in np.unravel_index(flat, pixels.shape))
        places.append(
            {
                "image": pairs[image].index,
                "row": row,
                "column": column,
                "region": REGIONS[regions[image, row, column]],
                "difference": int(pixels[image, row, column]),
            }
        )
    return {
        "images": len(pairs),
        "mean": float(differences.mean()),
        "equal": float((differences == 0).mean()),
        "largest": int(differences.max()),
        "regions": {
            name: {
                "mean": float(differences[regions == number].mean()),
                "largest": int(differences[regions == number].max()),
            }
            for number, name in enumerate(REGIONS)
            if (regions == number).any()
        },
        "worst": places,
    }
