"""Region statistics of every head in one pass: running sums whose size does not grow with the number of images."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.utils.data import Dataset, default_collate

from vitmech_utils.arguments import check_finite, checked_arguments
from vitmech_utils.heads.attention_sums import RunningSums
from vitmech_utils.heads.attention_tables import head_table, region_table
from vitmech_utils.heads.check import HeadCheck, watch_projections
from vitmech_utils.heads.projections import (
    Projections,
    mean_of_queries,
    output_gram,
    patch_queries,
    value_norms,
    without_gradients,
)
from vitmech_utils.model.anatomy import Anatomy
from vitmech_utils.tasks import Task

QUERIES = ("cls", "patches")
WEIGHTINGS = ("raw", "value-norm")
VARIANTS = tuple((query, weighting) for query in QUERIES for weighting in WEIGHTINGS)

Batch = Mapping[str, Tensor]
Images = Dataset | Batch | Iterable[Batch]


@dataclass(frozen=True)
class AttentionStatistics:
    """Result of one pass: two tables, the mean attention, and the bootstrap replicates that `classify` reuses.

    `mean_weights` [query, layer, head, token] are softmax weights averaged over images, CLS and registers first.
    `replicates` maps share, area, map_entropy, prefix_share and valid to [replicate, sinks, query x weighting, layer,
    head, region or 1]; number 0 is the estimate itself. `profiles` [replicate, region, region] are the shares of a head
    that attends to one region alone, in proportion to its coverage; `names` are the regions. The tables have no rows
    for heads that were pruned; the arrays hold zeros there. `variants` are the pairs of query and weighting. The first
    query is `cls`, or `read` of a model whose answer reads other tokens than CLS alone: the mean over those queries.
    """

    regions: pd.DataFrame
    heads: pd.DataFrame
    mean_weights: np.ndarray
    replicates: dict[str, np.ndarray]
    images: int
    prefix: int
    grid: tuple[int, int]
    profiles: np.ndarray
    names: tuple[str, ...]
    variants: tuple[tuple[str, str], ...] = VARIANTS


@checked_arguments()
def region_shares(model: nn.Module, images: Images, **settings) -> pd.DataFrame:
    """Attention share, area share, lift and entropy per head and region, with intervals over images.

    The table `regions` of `attention_statistics`, which takes the same `settings` and lists the columns.
    """
    return attention_statistics(model, images, **settings).regions


@checked_arguments(least={"replicates": 0, "shuffles": 0, "batch": 1})
def attention_statistics(
    model: nn.Module,
    images: Images,
    *,
    sinks: Bool[Tensor, "layer head patch"] | None = None,
    replicates: int = 200,
    shuffles: int = 4,
    batch: int = 16,
    seed: int = 0,
    regions: Sequence[str] | None = None,
) -> AttentionStatistics:
    """Read every head once over `images` and sum up where its attention goes.

    `images` is a dataset of items, a dict of stacked tensors or an iterable of batches, each with `pixel_values`
    [.., 3, height, width] and `regions` [.., height, width], integers that index the names `regions`. Without these
    names, the images' own are taken (a data set's `region_names`), or else those of the model's task.

    Attention shares are of the attention that falls on patches (CLS and registers are counted in
    `prefix_share`), so that lift = attention share / area share is 1 for a head that looks everywhere alike; both
    are means over images, lift is their ratio. A patch that a region covers in part counts in part; `ceiling` is
    the share of a head that spreads its attention in proportion to the region's coverage, `focus` = (share -
    area) / (ceiling - area). Entropies are Shannon's divided by their maximum, in [0, 1]: `entropy` within the
    region, `map_entropy` over all patches. `shuffled_share` is the share under the region maps of `shuffles`
    other images (in a circle), `excess` the paired difference with a t-test, `q_value` Benjamini-Hochberg over
    all heads and regions. Weighting "value-norm" multiplies weights by ||v W_o|| (Kobayashi et al. 2020). `sinks`
    marks patches that the rows with sinks "removed" leave out. Intervals are 95 % percentile intervals of a Poisson
    bootstrap over images (Chamandy et al. 2012), whose weights depend on (seed, image index) alone.

    Raises ValueError for no images, missing or ill-shaped region maps, regions or region numbers without a name.
    """
    regions = names_of_regions(regions, images, model)
    sums = None
    collected: list[Float[Tensor, "variant image head token"]] = []
    entropies: list[Float[Tensor, "query image head"]] = []
    grams: list[Tensor] = []

    def receive(projections: Projections) -> None:
        weights, entropy = _all_variants(projections, grams[projections.layer], found)
        collected.append(weights.cpu())
        entropies.append(entropy.cpu())

    with without_gradients(model), watch_projections(model, receive) as found:
        anatomy = found.anatomy
        variants = tuple(
            (query, weighting) for query in (found.query_name, "patches") for weighting in WEIGHTINGS
        )
        device = next(model.parameters()).device
        grams += [output_gram(block) for block in anatomy.blocks]
        for part in batches(images, batch):
            rows, columns = check_regions(part, anatomy, len(regions))
            collected.clear()
            entropies.clear()
            model(part["pixel_values"].to(device))
            if sums is None:
                keep = _keep(sinks, anatomy, rows * columns)
                sums = RunningSums(keep, len(regions), replicates, shuffles, seed)
            coverage = patch_coverage(part["regions"], anatomy.patch, len(regions)).flatten(2)
            # [variant, image, head, token] per layer -> [image, variant, layer, head, token]
            sums.add(
                torch.stack(collected).permute(2, 1, 0, 3, 4),
                torch.stack(entropies).permute(2, 1, 0, 3),
                coverage,
                anatomy.prefix,
            )
    if sums is None:
        raise ValueError("no images: expected at least one item with 'pixel_values' and 'regions'")
    sums.close()
    return AttentionStatistics(
        regions=_of_present(region_table(sums, variants, regions), anatomy),
        heads=_of_present(head_table(sums, variants), anatomy),
        mean_weights=sums.mean_weights()[[0, 2]],
        replicates={
            field: sums.mean(field) for field in ("share", "area", "map_entropy", "prefix_share", "valid")
        },
        images=sums.images,
        prefix=anatomy.prefix,
        grid=(rows, columns),
        profiles=sums.profiles(),
        names=tuple(regions),
        variants=variants,
    )


@checked_arguments()
def names_of_regions(
    regions: Sequence[str] | None = None, images: object = None, model: object = None
) -> tuple[str, ...]:
    """What the numbers in region maps are called: as given, as the images say, or as the model's own task does.

    Raises `ValueError` where nobody names them.
    """
    task = getattr(model, "task", None)
    own = task.regions if isinstance(task, Task) else ()
    names = tuple(regions or getattr(images, "region_names", ()) or own)
    if not names:
        raise ValueError(
            "the regions have no names: pass regions=('background', 'object', ...), one for each number in the "
            "region maps"
        )
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(
            f"regions name {twice[0]!r} more than once, expected a name of its own for each number"
        )
    return names


@checked_arguments()
def patch_coverage(
    regions: torch.Tensor, patch: int, count: int | None = None
) -> Float[Tensor, "image region row column"]:
    """Fraction of each patch that each of `count` regions covers (default: up to the largest number in the maps).

    The regions of a patch sum to 1.
    """
    count = int(regions.max()) + 1 if count is None else count
    rows, columns = regions.shape[-2] // patch, regions.shape[-1] // patch
    # Every pixel becomes (its patch, its region) and is counted once: no one-hot copy of the image.
    patches = torch.arange(rows * columns).view(rows, columns)
    patches = patches.repeat_interleave(patch, 0).repeat_interleave(patch, 1)
    images = torch.arange(regions.shape[0]).view(-1, 1, 1)
    cell = (images * rows * columns + patches) * count + regions.long()
    counts = torch.bincount(cell.flatten(), minlength=regions.shape[0] * rows * columns * count)
    return counts.view(-1, rows, columns, count).permute(0, 3, 1, 2).float() / patch**2


@checked_arguments()
def batches(images: Images, size: int) -> Iterator[dict[str, Tensor]]:
    """Yield dicts of stacked tensors, at most `size` images each, from a dataset, stacked tensors or a loader."""
    if isinstance(images, Mapping):
        total = len(images["pixel_values"])
        for start in range(0, total, size):
            yield {
                name: images[name][start : start + size]
                for name in ("pixel_values", "regions")
                if name in images
            }
    elif isinstance(images, Dataset):
        for start in range(0, len(images), size):
            items = [images[index] for index in range(start, min(start + size, len(images)))]
            names = [name for name in ("pixel_values", "regions") if name in items[0]]
            yield {name: default_collate([item[name] for item in items]) for name in names}
    else:
        for part in images:
            yield from batches(part, size)


@checked_arguments()
def check_regions(part: Batch, anatomy: Anatomy, count: int) -> tuple[int, int]:
    """Rows and columns of patches; raises ValueError where a batch's region maps do not fit its images."""
    if "regions" not in part or "pixel_values" not in part:
        raise ValueError(
            f"a batch holds {sorted(part)}, expected 'pixel_values' and 'regions'; "
            "use a dataset with region maps, such as ChirpDataset"
        )
    pixels, regions = part["pixel_values"], part["regions"]
    expected = (pixels.shape[0], *pixels.shape[-2:])
    if tuple(regions.shape) != expected:
        raise ValueError(
            f"region maps have shape {tuple(regions.shape)}, expected {expected} like the images: "
            "draw them at the images' size (nearest neighbour, they are labels)"
        )
    if regions.is_floating_point() or regions.min() < 0 or regions.max() >= count:
        raise ValueError(
            f"region maps hold {regions.dtype} values {regions.min()} to {regions.max()}, "
            f"expected integers from 0 to {count - 1}"
        )
    check_finite("pixel_values", pixels, axis="image")
    height, width = pixels.shape[-2:]
    if height % anatomy.patch or width % anatomy.patch:
        raise ValueError(
            f"images of {height} x {width} pixels are not filled by patches of {anatomy.patch} pixels"
        )
    return height // anatomy.patch, width // anatomy.patch


def _all_variants(
    projections: Projections, gram: Tensor, found: HeadCheck
) -> tuple[Float[Tensor, "variant image head token"], Float[Tensor, "query image head"]]:
    cls = mean_of_queries(projections, found.query)
    patches, patch_entropy = patch_queries(projections, found.anatomy.prefix)
    norms = value_norms(projections, gram)
    cls_entropy = torch.special.entr(cls).sum(-1)
    weights = torch.stack([cls, cls * norms, patches, patches * norms])
    return weights, torch.stack([cls_entropy, patch_entropy]) / np.log(cls.shape[-1])


def _of_present(table: pd.DataFrame, anatomy: Anatomy) -> pd.DataFrame:
    """Without rows of heads that were pruned, which attend to nothing."""
    if not anatomy.pruned:
        return table
    return table[anatomy.present[table["layer"], table["head"]]].reset_index(drop=True)


def _keep(sinks: Tensor | None, anatomy: Anatomy, patches: int) -> Bool[Tensor, "sinks layer head patch"]:
    everything = torch.ones(1, anatomy.layers, anatomy.heads, patches, dtype=torch.bool)
    if sinks is None:
        return everything
    if tuple(sinks.shape) != tuple(everything.shape[1:]):
        raise ValueError(
            f"sinks has shape {tuple(sinks.shape)}, expected {tuple(everything.shape[1:])} [layer, head, patch]: "
            "find them on the same model and image size"
        )
    return torch.cat([everything, ~sinks.cpu()[None]])
