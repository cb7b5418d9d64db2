"""Images without storage: each index is drawn when it is asked for, always the same, in any order or process."""

import json
from collections.abc import Iterable
from dataclasses import asdict
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from numpy import ndarray
from torch import Tensor
from torch.utils.data import Dataset

from vitmech_utils.arguments import checked_arguments
from vitmech_utils.data.chirps import (
    HARD_NOISE_LEVELS,
    LABEL_MEAN,
    LABEL_STD,
    NOISE_LEVELS,
    Chirp,
    generator,
    paint,
    sample_chirp,
    shortened,
)
from vitmech_utils.data.figures import Drawing, Style, draw
from vitmech_utils.data.regions import REGIONS
from vitmech_utils.data.style import find_style
from vitmech_utils.data.waveforms import Waveform, paint_waveform, true_ridge
from vitmech_utils.version import __version__

HELD_OUT = 2**31  # first index of the held-out stream; training indices lie below
SPLITS = {"train": 0, "held-out": HELD_OUT}


@checked_arguments()
def standardize(labels: Float[ndarray, "*chirp 3"]) -> Float[ndarray, "*chirp 3"]:
    """Start time (s), start and end frequency (Hz) in units of the recipe's standard deviations from its means."""
    return (labels - LABEL_MEAN) / LABEL_STD


@checked_arguments()
def unstandardize(labels: Float[ndarray, "*chirp 3"]) -> Float[ndarray, "*chirp 3"]:
    """Standardized labels back in seconds and hertz."""
    return labels * LABEL_STD + LABEL_MEAN


class ChirpDataset(Dataset):
    """`size` images of the study's recipe; the picture of (seed, split, index, style) never changes.

    An item holds "pixel_values" float32 [3, 224, 224] in [0, 1] (pixels / 255, as the study trains),
    "labels" float32 [3] standardized, and "regions" uint8 [224, 224] indexing REGIONS. Two data sets of the same
    seed and split under two styles are twins: the same chirps and noise. `source` None paints by the recipe; a
    Waveform takes the same chirps through a short-time Fourier transform.

    `hard_share` of the images, in [0, 1], are hard ones: a chirp of one to three seconds in much noise. Which ones
    follows from (seed, index); the others stay as they are. It is for training, and refused for held-out images.
    """

    region_names = REGIONS

    @checked_arguments()
    def __init__(
        self,
        size: int,
        seed: int = 0,
        style: Style | str = "published",
        split: Literal["train", "held-out"] = "train",
        source: Waveform | None = None,
        hard_share: float = 0.0,
    ) -> None:
        if not 0 <= size <= HELD_OUT:
            raise ValueError(f"size is {size}, expected 0 to {HELD_OUT} images")
        if split not in SPLITS:
            raise ValueError(f"split is {split!r}, expected one of {tuple(SPLITS)}")
        if not 0 <= hard_share <= 1:
            raise ValueError(f"hard_share is {hard_share!r}, expected a share of the images, in [0, 1]")
        if hard_share and (split != "train" or source is not None):
            raise ValueError("hard_share is for training images of the recipe; leave it at 0 for all others")
        generator(seed, 0)  # refuses a seed out of range
        self.hard_share = hard_share
        self.size, self.seed, self.split, self.style, self.source = (
            size,
            seed,
            split,
            find_style(style),
            source,
        )

    def __len__(self) -> int:
        return self.size

    def _stream(self, index: int) -> int:
        if not 0 <= index < self.size:
            raise IndexError(f"index {index} of a data set of {self.size} images")
        return SPLITS[self.split] + index

    def is_hard(self, index: int) -> bool:
        """Whether an image is one of the `hard_share`."""
        stream = self._stream(index)
        return self.hard_share > 0 and generator(self.seed, stream, "hard").random() < self.hard_share

    @checked_arguments()
    def chirp(self, index: int) -> Chirp:
        """The chirp of an image, in seconds and hertz."""
        chirp = sample_chirp(self.seed, self._stream(index))
        return shortened(chirp) if self.is_hard(index) else chirp

    @checked_arguments()
    def grid(self, index: int) -> Float[ndarray, "128 128"]:
        """The noisy spectrogram of an image; row 0 is 0 Hz, column 0 is 0 s."""
        rng = generator(self.seed, self._stream(index), "noise" if self.source is None else "waveform")
        if self.source is None:
            return paint(self.chirp(index), rng, HARD_NOISE_LEVELS if self.is_hard(index) else NOISE_LEVELS)
        return paint_waveform(self.chirp(index), rng, self.source)

    @checked_arguments()
    def title(self, index: int) -> str:
        """The title of an image; its number starts at 1."""
        return self.style_of(index).title_text(index % 100_000 + 1, self.chirp(index).sweep)

    def style_of(self, index: int) -> Style:
        """The style of an image: this data set's, or the layout that a jittered style drew for it."""
        return self.style.resolve(generator(self.seed, self._stream(index), "layout"))

    @checked_arguments()
    def drawing(self, index: int) -> Drawing:
        """The picture of an image and its region map."""
        painted = None if self.source is None else true_ridge(self.chirp(index))
        return draw(self.grid(index), self.chirp(index), self.style_of(index), self.title(index), painted)

    def labels(self, index: int) -> Float32[Tensor, " target"]:
        """What a model is to say of an image."""
        return torch.from_numpy(standardize(self.chirp(index).labels).astype(np.float32))

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        drawing = self.drawing(index)
        return {
            "pixel_values": as_pixels(drawing.image),
            "labels": self.labels(index),
            "regions": torch.from_numpy(drawing.regions),
        }

    def settings(self) -> dict:
        """What these images are made from, as plain values: enough to make them again."""
        source = "recipe" if self.source is None else asdict(self.source)
        return {
            "generator": f"vitmech_utils {__version__}",
            "images": self.size,
            "seed": self.seed,
            "split": self.split,
            "style": json.loads(json.dumps(asdict(self.style))),
            "source": source,
            **({"hard_share": self.hard_share} if self.hard_share else {}),
        }


@checked_arguments()
def as_pixels(image: UInt8[ndarray, "224 224 3"]) -> Float32[Tensor, "3 224 224"]:
    """A picture as a model's input, in [0, 1]."""
    return torch.from_numpy(
        np.ascontiguousarray(image.transpose(2, 0, 1)).astype(np.float32) / np.float32(255)
    )


@checked_arguments()
def stack(dataset: Dataset, count: int | Iterable[int]) -> dict[str, Tensor]:
    """The first `count` items (or the items named) of a data set as one batch of tensors."""
    items = [dataset[index] for index in (range(count) if isinstance(count, int) else count)]
    if not items:
        raise ValueError("stack needs at least one image")
    return {key: torch.stack([item[key] for item in items]) for key in items[0]}


def held_out(count: int, style: "Style | str" = "published", seed: int = 0) -> dict[str, Tensor]:
    """The first `count` held-out figures of a style as one batch of tensors; styles share their chirps and noise."""
    return stack(ChirpDataset(count, seed, style, "held-out"), count)


def training_figures(count: int) -> dict[str, Tensor]:
    """The first `count` training figures of the published style; their heads' outputs make up mean ablation's means."""
    return stack(ChirpDataset(count), count)
