"""What chapter 03 measures of attention maps: against the library's own, between queries, and for the picker."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor, nn

from vitmech_utils.arguments import checked_arguments
from vitmech_utils.data.dataset import ChirpDataset, stack, training_figures, unstandardize
from vitmech_utils.heads.answers import head_answers, sets_to_try
from vitmech_utils.heads.attention import attention_maps, patch_query_maps
from vitmech_utils.heads.attention_shares import AttentionStatistics, patch_coverage
from vitmech_utils.heads.hooks import Head
from vitmech_utils.heads.sets import predict_without_sets
from vitmech_utils.intervals import mean_intervals
from vitmech_utils.model.anatomy import find_blocks
from vitmech_utils.model.regressor import ChirpRegressor
from vitmech_utils.statistics import percentile_bounds

REFERENCE = 24
"""Training figures whose mean takes a head's place: as in chapter 04, but two a picture where few are shown."""
Maps = Float[Tensor, "image layer head row column"]


@checked_arguments()
def against_library(
    eager: ChirpRegressor, pixel_values: Float[Tensor, "image 3 height width"], maps: Maps
) -> dict[str, bool]:
    """Hold maps of the CLS query against the attentions that the library returns, by its slow (eager) kernel.

    Returns whether all weights are the `same`, and whether each map sums to one minus the share of CLS (`sums`).
    """
    prefix = find_blocks(eager).prefix
    with torch.no_grad():
        attentions = eager.backbone(pixel_values.to(eager.device), output_attentions=True).attentions
    cls = torch.stack(attentions, dim=1)[..., 0, :].cpu()
    left_over = 1 - cls[..., :prefix].sum(-1)
    return {
        "same": torch.allclose(maps.flatten(-2), cls[..., prefix:], atol=1e-5),
        "sums": torch.allclose(maps.sum((-2, -1)), left_over, atol=1e-5),
    }


@checked_arguments()
def map_correlation(one: Maps, other: Maps) -> Float[np.ndarray, "image layer"]:
    """Pearson correlation of two sets of maps over patches, averaged over heads, per image and layer."""
    one, other = (x.flatten(-2) - x.flatten(-2).mean(-1, keepdim=True) for x in (one, other))
    return torch.cosine_similarity(one, other, dim=-1).mean(2).double().numpy()


@checked_arguments()
def query_agreement(
    model: nn.Module, pixel_values: Float[Tensor, "image 3 height width"], bootstrap: int
) -> pd.DataFrame:
    """How alike the CLS query's maps are to those of patch queries, a row per query and layer.

    Columns query, layer (0-based), images, correlation in [-1, 1], low, high (over images).
    """
    queries = {"mean over patch queries": "patches", "top-left corner patch": 0}
    maps, rows = attention_maps(model, pixel_values), []
    for name, query in queries.items():
        found = map_correlation(maps, attention_maps(model, pixel_values, query))
        low, high = mean_intervals(found.T, draws=bootstrap)
        rows += [
            {
                "query": name, "layer": layer, "images": len(found), "correlation": found[:, layer].mean(),
                "low": max(-1.0, low[layer]), "high": min(1.0, high[layer]),
            }
            for layer in range(found.shape[1])
        ]  # fmt: skip
    return pd.DataFrame(rows)


@checked_arguments()
def looks(pixel_values: Float[Tensor, "image 3 height width"]) -> dict[str, Float[Tensor, "image 3 h w"]]:
    """As many images three times, with as little in common as can be: those given, moved figures, plain noise."""
    count = len(pixel_values)
    moved = stack(ChirpDataset(count, seed=1, style="moved", split="held-out"), count)["pixel_values"]
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(count, *pixel_values.shape[1:], generator=generator)
    return {"published": pixel_values, "moved": moved, "noise": noise}


@checked_arguments()
def rows_of(table: pd.DataFrame, **wanted: str) -> pd.DataFrame:
    """Rows of a table of attention statistics for the CLS query, raw weights, sinks kept, or as asked."""
    wanted = {"query": "cls", "weighting": "raw", "sinks": "kept"} | wanted
    return table[np.logical_and.reduce([table[name] == value for name, value in wanted.items()])]


@checked_arguments()
def layer_lifts(statistics: AttentionStatistics) -> pd.DataFrame:
    """The mean lift of each layer's heads on each region (mean share over mean area): CLS query, raw, sinks kept.

    Columns region, layer (0-based), images, lift, low, high (95 %, over images).
    """
    raw = statistics.variants.index(("cls", "raw"))
    share, area = (np.nanmean(statistics.replicates[name][:, 0, raw], axis=2) for name in ("share", "area"))
    lift = np.divide(share, area, out=np.full(share.shape, np.nan), where=area > 0)
    low, high = percentile_bounds(lift[1:])
    return pd.DataFrame(
        (region, layer, statistics.images, *(found[layer, place] for found in (lift[0], low, high)))
        for place, region in enumerate(statistics.names)
        for layer in range(lift.shape[1])
    ).set_axis(["region", "layer", "images", "lift", "low", "high"], axis=1)


@checked_arguments()
def rollout_lift(rolled: Float[Tensor, "row column"], coverage: Float[Tensor, "row column"]) -> float:
    """The lift of a map on a region that covers each patch by a fraction."""
    return float((rolled / rolled.sum() * coverage).sum() / coverage.mean())


@checked_arguments()
def picker_answers(
    model: nn.Module, decorated: Mapping[str, Tensor], bare: Mapping[str, Tensor], exact: int, seed: int = 0
) -> dict[str, np.ndarray]:
    """What the model answers to the picker's images and their twins, whole and without heads, in single precision.

    Exact without each head for the first `exact` of the figures and then their twins, and without some sets for one at
    least; linearized for all. Heads are replaced by their means over training figures. Returns what `head_answers`
    does with a leading axis of twins and names that begin with answer_, in standard deviations of the labels.
    """
    pixels = torch.cat([decorated["pixel_values"], bare["pixel_values"]])
    anatomy = find_blocks(model)
    found = head_answers(
        model, pixels, "mean", sets=sets_to_try(anatomy, 4 if exact else 1, seed), exact=exact, tried=max(exact, 1),
        seed=seed, reference=training_figures(min(REFERENCE, 2 * len(pixels)))["pixel_values"],
    )  # fmt: skip
    twins = (2, len(pixels) // 2)
    axes = {"whole": 0, "without": 0, "slopes": 0, "without_sets": 1}
    kept = {name: found[name].unflatten(axis, twins).float().numpy() for name, axis in axes.items()}
    return {f"answer_{name}": values for name, values in (kept | {"sets": found["sets"].numpy()}).items()}


@checked_arguments()
def picker_exactly(
    model: Callable[[], nn.Module], decorated: Mapping[str, Tensor], bare: Mapping[str, Tensor]
) -> Callable[[Sequence[Head]], np.ndarray]:
    """A function of heads: the exact answers without them to the picker's images and twins, [twin, image, target].

    In seconds and hertz; the model is loaded when it is first asked.
    """

    pixels = torch.cat([decorated["pixel_values"], bare["pixel_values"]])

    def ask(heads: Sequence[Head]) -> np.ndarray:
        found = predict_without_sets(
            model(), pixels, [list(heads)], "mean",
            reference=training_figures(min(REFERENCE, 2 * len(pixels)))["pixel_values"],
        )  # fmt: skip
        return unstandardize(found.ablated[0].unflatten(0, (2, -1)).numpy())

    return ask


@checked_arguments()
def picker_maps(
    networks: Mapping[str, nn.Module], decorated: Mapping[str, Tensor], bare: Mapping[str, Tensor]
) -> dict[str, np.ndarray]:
    """What the picker shows of some networks, in half precision: maps of images and their undecorated twins, shares.

    `decorated` and `bare` are stacked images. Returns maps, twin_maps [network, image, layer, head, row, column],
    shares [network, image, layer, head, region], and query_maps, those of every second patch query of the first
    network's first image.
    """
    maps, twins = (
        torch.stack([attention_maps(network, part["pixel_values"]) for network in networks.values()])
        for part in (decorated, bare)
    )
    first = next(iter(networks.values()))
    coverage = patch_coverage(decorated["regions"], find_blocks(first).patch)
    on_patches = maps / maps.sum((-2, -1), keepdim=True)
    found = {
        "maps": maps,
        "twin_maps": twins,
        "shares": torch.einsum("vilhyx,iryx->vilhr", on_patches, coverage),
        "query_maps": patch_query_maps(first, decorated["pixel_values"][:1], stride=2),
    }
    return {name: values.numpy().astype(np.float16) for name, values in found.items()}
