"""Attention maps of every head over an image, and what they add up to per region."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor, nn

from vitmech_utils.arguments import check_finite, checked_arguments
from vitmech_utils.heads.attention_shares import (
    AttentionStatistics,
    attention_statistics,
    names_of_regions,
    patch_coverage,
    region_shares,
)
from vitmech_utils.heads.check import HeadCheck, answer, watch_projections
from vitmech_utils.heads.projections import (
    Projections,
    mean_of_queries,
    one_query,
    patch_queries,
    without_gradients,
)
from vitmech_utils.model.anatomy import Anatomy, AnatomyError
from vitmech_utils.statistics import Interval
from vitmech_utils.tasks import Task

__all__ = [
    "AttentionStatistics",
    "attention_maps",
    "attention_statistics",
    "patch_query_maps",
    "region_shares",
    "rollout",
    "unit_scale",
]

Query = Literal["read", "cls", "patches"] | int


@checked_arguments(finite=("pixel_values",), least={"batch": 1})
def attention_maps(
    model: nn.Module,
    pixel_values: Float[Tensor, "image ..."],
    query: Query = "read",
    normalize: Literal["unit"] | None = None,
    batch: int = 16,
) -> Float[Tensor, "image layer head row column"]:
    """Attention weights of every head on every patch, float32 on the CPU, for one kind of query.

    `query` is "read" (the token that the answer reads, as `check_heads` finds: CLS of most models, or the mean over
    all tokens that are read; of a bare backbone CLS, or the patches where there is none), "cls", "patches" (mean over
    all patch queries) or the row-major index of one patch. Weights are those of the softmax over all tokens, so a map
    sums to 1 minus what goes to CLS and registers; `normalize="unit"` stretches each map to [0, 1] as the study does.
    Layers and heads are 0-based; the map of a head that was pruned is zero. Raises ValueError for an unknown query or
    image size, `AnatomyError` for an unknown model, and where its maps would not be its own (`check_heads` tells why).
    """
    if normalize not in (None, "unit"):
        raise ValueError(
            f"normalize is {normalize!r}, expected None (softmax weights) or 'unit' ([0, 1] per map)"
        )
    rows, columns = 0, 0
    layers: dict[int, list[Tensor]] = {}

    def receive(projections: Projections) -> None:
        weights = _read(projections, query, found, rows * columns)
        layers.setdefault(projections.layer, []).append(weights[..., found.anatomy.prefix :].cpu())

    with without_gradients(model), watch_projections(model, receive, pixel_values) as found:
        rows, columns = patch_grid(pixel_values, found.anatomy)
        for part in pixel_values.split(batch):
            model(part.to(_device(model)))
    maps = torch.stack([torch.cat(layers[layer]) for layer in sorted(layers)], dim=1)
    maps = maps.unflatten(-1, (rows, columns))
    return unit_scale(maps) if normalize == "unit" else maps


@checked_arguments(finite=("pixel_values",), least={"stride": 1})
def patch_query_maps(
    model: nn.Module, pixel_values: Float[Tensor, "1 channel height width"], stride: int = 1
) -> Float[Tensor, "layer head query_row query_column row column"]:
    """Maps of all patch queries of one image (every `stride`-th row and column of them), float32 on the CPU."""
    layers: list[Tensor] = []

    def receive(projections: Projections) -> None:
        weights = projections.scores(slice(anatomy.prefix, None)).softmax(-1)[0, ..., anatomy.prefix :]
        weights = projections.numbers.spread(weights, 0)
        by_place = weights.unflatten(-2, (rows, columns)).unflatten(-1, (rows, columns))
        layers.append(by_place[:, ::stride, ::stride].cpu())

    with without_gradients(model), watch_projections(model, receive, pixel_values) as found:
        anatomy = found.anatomy
        rows, columns = patch_grid(pixel_values, anatomy)
        model(pixel_values.to(_device(model)))
    return torch.stack(layers)


@checked_arguments()
def patch_grid(pixel_values: Float[Tensor, "image ..."], anatomy: Anatomy) -> tuple[int, int]:
    """Rows and columns of patches of an image batch; raises ValueError where the patches do not fill the image."""
    height, width = pixel_values.shape[-2:]
    if not anatomy.patch:
        raise AnatomyError(
            "the side of a patch is not known: tell it, tell_heads(model, Heads(..., patch=16))"
        )
    if height % anatomy.patch or width % anatomy.patch:
        raise ValueError(
            f"pixel_values are {height} x {width}, which patches of {anatomy.patch} x {anatomy.patch} do not fill; "
            f"resize the images to a multiple of {anatomy.patch}"
        )
    return height // anatomy.patch, width // anatomy.patch


@checked_arguments(finite=("maps",))
def unit_scale(maps: Float[Tensor, "*batch row column"]) -> Float[Tensor, "*batch row column"]:
    """Stretch each map to [0, 1]; a constant map becomes all zeros. Hides how strong a map was."""
    low, high = maps.amin((-2, -1), keepdim=True), maps.amax((-2, -1), keepdim=True)
    return (maps - low) / (high - low).clamp_min(torch.finfo(maps.dtype).tiny)


@checked_arguments(finite=("pixel_values",), least={"batch": 1})
def rollout(
    model: nn.Module, pixel_values: Float[Tensor, "image ..."], batch: int = 4
) -> Float[Tensor, "image layer row column"]:
    """Attention rollout from what is read (CLS) to the patches, after each layer (Abnar and Zuidema 2020, eq. 1).

    Heads are averaged, half of every token stays (the residual connection), and layers are multiplied. Value
    projections and MLPs are ignored, which is why rollout can disagree with what the model uses. A layer that lost
    all its heads moves nothing.
    """
    results: list[Tensor] = []
    flow: list[Tensor] = []

    def receive(projections: Projections) -> None:
        if projections.layer == 0:
            flow.clear()
        step = torch.eye(projections.tokens, device=projections.value.device)
        if projections.numbers.kept:
            step = 0.5 * projections.scores(slice(None)).softmax(-1).mean(1) + 0.5 * step
        else:
            step = step.expand(projections.value.shape[0], -1, -1)
        # Layer l reads what layer l-1 wrote: the newest layer multiplies from the left.
        flow.append(step @ flow[-1] if flow else step)

    with without_gradients(model), watch_projections(model, receive, pixel_values) as found:
        rows, columns = patch_grid(pixel_values, found.anatomy)
        rows_read = found.query if isinstance(found.query, slice) else list(found.query)
        for part in pixel_values.split(batch):
            model(part.to(_device(model)))
            read = [joint[:, rows_read, found.anatomy.prefix :].mean(1) for joint in flow]
            results.append(torch.stack(read, dim=1).cpu())
    return torch.cat(results).unflatten(-1, (rows, columns))


def _read(
    projections: Projections, query: Query, found: HeadCheck, patches: int
) -> Float[Tensor, "image head token"]:
    prefix = found.anatomy.prefix
    if query == "read":
        return mean_of_queries(projections, found.query)
    if query == "cls":
        if not prefix:
            raise ValueError(
                "this model has no CLS token: pass query='read', 'patches' or the index of a patch"
            )
        return one_query(projections, 0)
    if query == "patches":
        return patch_queries(projections, prefix)[0]
    if isinstance(query, int) and not isinstance(query, bool):
        if 0 <= query < patches:
            return one_query(projections, prefix + query)
        raise ValueError(f"query {query} is no patch of this image: expected 0 to {patches - 1}, row by row")
    raise ValueError(f"query is {query!r}, expected 'read', 'cls', 'patches' or the index of a patch")


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device


class ByImage(NamedTuple):
    """Attention of what the answer reads (CLS) over patches (each map sums to 1), and the output for every image.

    `names` are those of the model's regions, as far as its task names any.
    """

    maps: Float[ndarray, "image layer head patch"]
    predictions: Float[ndarray, "image ..."]
    names: tuple[str, ...] = ()


@checked_arguments()
@contextlib.contextmanager
def reading_by_image(model: nn.Module) -> Iterator[Callable[[], ByImage]]:
    """Note what each image gets while a model is run by anything else, such as `attention_statistics`.

    Yields a function that returns what was seen so far, in the order of the images; float32, on the CPU.
    """
    layers: dict[int, list[Tensor]] = {}
    outputs: list[Tensor] = []

    def receive(projections: Projections) -> None:
        weights = mean_of_queries(projections, found.query)[..., found.anatomy.prefix :].float().cpu()
        layers.setdefault(projections.layer, []).append(
            weights / weights.sum(-1, keepdim=True).clamp_min(1e-12)
        )

    def seen() -> ByImage:
        maps = torch.stack([torch.cat(layers[layer]) for layer in sorted(layers)], dim=1)
        task = getattr(model, "task", None)
        names = task.regions if isinstance(task, Task) else ()
        return ByImage(maps.numpy(), torch.cat(outputs).numpy(), names)

    def note(_model: nn.Module, _inputs: tuple, output) -> None:
        outputs.append(answer(output).detach().float().cpu())

    hook = None
    try:
        with without_gradients(model), watch_projections(model, receive) as found:
            hook = model.register_forward_hook(note)
            yield seen
    finally:
        if hook is not None:
            hook.remove()


@checked_arguments(least={"batch": 1})
def by_image(model: nn.Module, images: Mapping[str, Tensor], batch: int = 16) -> ByImage:
    """Read a model once over stacked images (`pixel_values`), on its own device; float32 maps and predictions."""
    if "pixel_values" not in images:
        raise ValueError(f"images hold {sorted(images)}, expected 'pixel_values'")
    check_finite("pixel_values", images["pixel_values"], axis="image")
    device = next(model.parameters()).device
    with reading_by_image(model) as seen:
        for part in images["pixel_values"].split(batch):
            model(part.to(device))
        return seen()


@checked_arguments()
def image_shares(
    read: ByImage, regions: Tensor, region: str | int, names: Sequence[str] | None = None
) -> tuple[Float[ndarray, "image layer head"], Float[ndarray, " image"]]:
    """Attention share of a region for each image and head, and the region's area share of each image.

    `regions` [image, height, width] need not be the region map of what was seen: another one asks what attention would
    fall there anyway. `region` is a number in it, or one of `names` (default: those of the model that was read). Raises
    ValueError where the maps do not fit, or for an unknown region.
    """
    if isinstance(region, str):
        known = names_of_regions(names or read.names)
        if region not in known:
            raise ValueError(f"unknown region {region!r}, expected one of {', '.join(known)}")
        region = known.index(region)
    count, patches = read.maps.shape[0], read.maps.shape[-1]
    side = regions.shape[-1] / patches**0.5
    if len(regions) != count or side != int(side):
        raise ValueError(
            f"region maps have shape {tuple(regions.shape)}, expected {count} of a size that {patches} patches fill"
        )
    every = patch_coverage(regions, int(side), max(int(regions.max()), region) + 1)
    coverage = every[:, region].flatten(1).double().numpy()
    return np.einsum("ilhp,ip->ilh", read.maps, coverage), coverage.mean(1)


@checked_arguments(finite=("shares", "areas"))
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
