"""What of a figure changes while its chirp stays: the pixels of a target region, and natural changes of its style."""

from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Bool, Float, Integer
from torch import Tensor

from vitmech_utils.arguments import checked_arguments
from vitmech_utils.data.regions import REGIONS
from vitmech_utils.data.style import Style

TARGETS: dict[str, tuple[str, ...]] = {
    "title": ("title",),
    "labels": ("axis label", "tick label", "colour-bar label"),
    "colour bar": ("colour bar",),
    "frame": ("frame",),
    "margin": ("margin",),
    "plot background": ("plot background",),
    "chirp": ("chirp",),
}
"""What is attacked, and the regions that it is made of; labels are small, so they count together."""
DECORATIONS = ("title", "labels", "colour bar", "frame")
"""The targets that carry something and say nothing of the chirp: the study's extraneous features."""
NATURAL: dict[str, Style] = {
    "title without number and sweep": Style(title="plain"),
    "no title": Style(title="none"),
    "no colour bar": Style(colour_bar="none"),
    "other colour map": Style(colour_map="magma"),
    "smaller font": Style(font_scale=0.8),
    "larger font": Style(font_scale=1.15),
    "shifted": Style(shift=(12, 8)),
    "all moved": Style.moved,
    "bare": Style.bare,
}
"""Changes that other software, or another user, could make: a style each, under which the same chirps are drawn."""
PAPER = 1.0
"""The figure's own background, white, in pixel units."""


@checked_arguments()
def regions_of(target: str) -> tuple[str, ...]:
    """The regions that a target is made of; a region's own name works, too. Raises `ValueError` for others."""
    if target in TARGETS:
        return TARGETS[target]
    if target in REGIONS:
        return (target,)
    raise ValueError(f"unknown region {target!r}, expected one of {', '.join([*TARGETS, *REGIONS])}")


@checked_arguments()
def region_mask(
    regions: Integer[Tensor, "image height width"], target: str
) -> Bool[Tensor, "image height width"]:
    """All pixels of a target, from region maps that index REGIONS. Raises `ValueError` for an unknown target."""
    numbers = torch.tensor([REGIONS.index(name) for name in regions_of(target)], dtype=regions.dtype)
    return torch.isin(regions, numbers)


@checked_arguments()
def choose_pixels(
    regions: Integer[Tensor, "image height width"], target: str, pixels: int, seed: int = 0
) -> Bool[Tensor, "image height width"]:
    """Choose `pixels` pixels of a target at random in each image, so that targets of any size can be compared.

    An image whose target is smaller gives all that it has: `mask.sum((1, 2))` says how many. Choices depend on
    (`seed`, image) alone, and a smaller number is part of a larger one. Raises `ValueError` for an unknown target,
    fewer than one pixel, or images that show nothing of the target.
    """
    if pixels < 1:
        raise ValueError(f"pixels is {pixels}, expected at least 1")
    whole = region_mask(regions, target)
    if empty := (~whole.flatten(1).any(1)).nonzero().flatten().tolist():
        raise ValueError(
            f"{target!r} has no pixel in image(s) {empty[:5]}: their style draws none; leave these images out, or name "
            "another region"
        )
    chosen = torch.zeros_like(whole)
    for image, mask in enumerate(whole):
        places = mask.flatten().nonzero().flatten().numpy()
        order = np.random.default_rng([seed, image]).permutation(len(places))[:pixels]
        chosen[image].view(-1)[torch.from_numpy(places[order])] = True
    return chosen


@checked_arguments()
def occlude(images: Mapping[str, Tensor], target: str) -> Float[Tensor, "image 3 height width"]:
    """Paint a target over with the figure's white; `images` are stacked: pixel_values in [0, 1], regions.

    Text leaves a trace: pixels that it darkens by less than a tenth belong to the margin.
    """
    if not {"regions", "pixel_values"} <= set(images):
        raise ValueError(f"images hold {sorted(images)}, expected 'pixel_values' and 'regions'")
    mask = region_mask(images["regions"], target)
    return images["pixel_values"].masked_fill(mask[:, None], PAPER)
