"""Attention image by image: what intervals over whole recordings need, whose windows belong together."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor, nn

from vitmech_utils.data.regions import REGIONS
from vitmech_utils.heads.attention_shares import patch_coverage
from vitmech_utils.heads.attention_weights import Projections, evaluating, one_query, watch_projections
from vitmech_utils.statistics import Interval


class ByImage(NamedTuple):
    """The CLS query's attention over patches (each map sums to 1) and the model's output for every image."""

    maps: Float[ndarray, "image layer head patch"]
    predictions: Float[ndarray, "image target"]


@contextlib.contextmanager
def reading_by_image(model: nn.Module) -> Iterator[Callable[[], ByImage]]:
    """Note what each image gets while a regressor is run by anything else, such as `attention_statistics`.

    Yields a function that returns what was seen so far, in the order of the images; float32, on the CPU.
    """
    layers: dict[int, list[Tensor]] = {}
    outputs: list[Tensor] = []

    def receive(projections: Projections) -> None:
        weights = one_query(projections, 0)[..., anatomy.prefix :].float().cpu()
        layers.setdefault(projections.layer, []).append(
            weights / weights.sum(-1, keepdim=True).clamp_min(1e-12)
        )

    def seen() -> ByImage:
        maps = torch.stack([torch.cat(layers[layer]) for layer in sorted(layers)], dim=1)
        return ByImage(maps.numpy(), torch.cat(outputs).numpy())

    hook = model.register_forward_hook(
        lambda _, __, output: outputs.append(output.logits.detach().float().cpu())
    )
    try:
        with evaluating(model), watch_projections(model, receive) as anatomy:
            yield seen
    finally:
        hook.remove()


def by_image(model: nn.Module, images: Mapping[str, Tensor], batch: int = 16) -> ByImage:
    """Read a regressor once over stacked images (`pixel_values`), on its own device; float32 maps and predictions."""
    device = next(model.parameters()).device
    with reading_by_image(model) as seen:
        for part in images["pixel_values"].split(batch):
            model(part.to(device))
        return seen()


def image_shares(
    read: ByImage, regions: Tensor, region: str = "chirp"
) -> tuple[Float[ndarray, "image layer head"], Float[ndarray, " image"]]:
    """Attention share of a region for each image and head, and the region's area share of each image.

    `regions` [image, height, width] need not be the region map of what was seen: another one asks what attention would
    fall there anyway. Raises ValueError where it does not fit the maps.
    """
    count, patches = read.maps.shape[0], read.maps.shape[-1]
    side = regions.shape[-1] / patches**0.5
    if len(regions) != count or side != int(side):
        raise ValueError(
            f"region maps have shape {tuple(regions.shape)}, expected {count} of a size that {patches} patches fill"
        )
    coverage = patch_coverage(regions, int(side))[:, REGIONS.index(region)].flatten(1).double().numpy()
    return np.einsum("ilhp,ip->ilh", read.maps, coverage), coverage.mean(1)


def lift_over_blocks(
    shares: Float[ndarray, " image"],
    areas: Float[ndarray, " image"],
    blocks: list[str],
    draws: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Lift (mean attention share over mean area share) with an interval from drawing whole blocks with replacement.

    `blocks` names each image's recording: images of one stand or fall together. With a handful of blocks the interval
    is a rough one, and with a single block it has no width. Source: Davison and Hinkley 1997, section 3.8.
    """
    if not len(shares) == len(areas) == len(blocks) > 0:
        raise ValueError(
            f"got {len(shares)} shares, {len(areas)} areas and {len(blocks)} blocks, expected as many of each"
        )
    names, of = np.unique(blocks, return_inverse=True)
    sums = np.stack([np.bincount(of, values, len(names)) for values in (shares, areas)])
    drawn = np.random.default_rng(seed).integers(len(names), size=(draws, len(names)))
    shared, area = sums[:, drawn].sum(-1)
    low, high = np.quantile(shared / area, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(sums[0].sum() / sums[1].sum()), float(low), float(high))
