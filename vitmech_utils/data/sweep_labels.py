"""Another task on the same figures: which sweep is it, and does it rise? With a title that may be right, or lie."""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vitmech_utils.arguments import checked_arguments
from vitmech_utils.data.chirp_dataset import ChirpDataset
from vitmech_utils.data.chirps import SWEEPS, Chirp, path
from vitmech_utils.data.style import find_style

TARGETS = ("type", "direction")
"""What a classifier answers: the sweep's type (1 exponential, 0 linear) and direction (1 rising, 0 falling)."""
TITLES = ("published", "none", "plain", "swapped", "other number")
"""Titles: as published, none, one that names neither, one that names the other type, and one of another number."""
NUMBER_STEP = 7919
"""By how much `other number` changes the sample's number in the title; its sweep stays."""


class SweepDataset(ChirpDataset):
    """The chirps of a ChirpDataset with labels for a classifier, float32 [2] of TARGETS, each 0 or 1.

    `title` says what stands in the figure's title: `published` names the sweep's type, which leaks the first label;
    `swapped` names the other type; `plain` and `none` leak nothing; `other number` is `published` of another sample.
    The rest of the figure is that of `style`; two data sets that differ in the title alone are twins, noise included.
    """

    @checked_arguments()
    def __init__(
        self, size: int, title: str = "published", style: str = "published", **keywords: Any
    ) -> None:
        if title not in TITLES:
            raise ValueError(f"title is {title!r}, expected one of {', '.join(TITLES)}")
        self.wording = title
        drawn = title if title in ("none", "plain") else "published"
        super().__init__(size, style=replace(find_style(style), title=drawn), **keywords)

    def title(self, index: int) -> str:
        """The title of an image, with the wording that this data set gives it."""
        sweep, number = self.chirp(index).sweep, index % 100_000 + 1
        if self.wording == "swapped":
            sweep = SWEEPS[1 - SWEEPS.index(sweep)]
        elif self.wording == "other number":
            number = (number + NUMBER_STEP - 1) % 100_000 + 1
        return self.style_of(index).title_text(number, sweep)

    def labels(self, index: int) -> Tensor:
        """Type and direction of an image's sweep, each 0 or 1."""
        return torch.from_numpy(sweep_labels(self.chirp(index)))

    def settings(self) -> dict:
        """What these images are made from, as plain values: enough to make them again."""
        return {**super().settings(), "title": self.wording}


@checked_arguments()
def sweep_labels(chirp: Chirp) -> np.ndarray:
    """The labels of a chirp, float32 [2]: 1 for an exponential sweep (else 0), 1 for a rising one (else 0)."""
    return np.array([chirp.sweep == SWEEPS[1], chirp.end_freq > chirp.start_freq], dtype=np.float32)


@checked_arguments()
def bend(chirp: Chirp) -> float:
    """How far, in rows of the 128 x 128 grid, the chirp's path lies from the other type's, where they are farthest.

    Below about a row, a picture does not show the type: only a title can.
    """
    other = replace(chirp, sweep=SWEEPS[1 - SWEEPS.index(chirp.sweep)])
    return float(np.max(np.abs(np.subtract(path(chirp)[1], path(other)[1])), initial=0.0))
