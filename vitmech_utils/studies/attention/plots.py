"""What chapter 03 shows: attention maps, what they add up to per region, and what no map shows."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from torch import Tensor

from vitmech_utils.arguments import checked_arguments
from vitmech_utils.data.regions import REGIONS
from vitmech_utils.figures.marks import plain_log, rarer
from vitmech_utils.figures.plots import REGION_COLOURS, WIDE, WIDTH, heatmap, overlay, pictures, to_grid
from vitmech_utils.figures.tables import counted, three_sentences, word
from vitmech_utils.heads.sinks import Sinks
from vitmech_utils.statistics import Interval
from vitmech_utils.studies.attention.measure import rows_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LIFTS = ("chirp", "title")  # as grids; the picker colours its own by any region
PROFILES = (
    "chirp",
    "colour bar",
    "title",
    "tick label",
    "axis label",
    "colour-bar label",
    "frame",
    "plot background",
    "margin",
)
FALSE_DISCOVERIES = 0.05
EVEN = 0.98  # entropy of a map, of its maximum, from which on the map is as good as uniform
ON_SINKS = 0.75  # share of a head's attention from which on it rests on sinks


@checked_arguments()
def opening(profile: str, layers: int, heads: int, images: int, device: str) -> str:
    """What this run of the chapter is made of."""
    return (
        f"This page was made with profile **{profile}**: {layers} layers of {heads} heads, "
        f"{images:,} held-out images, on {device.upper()}. Wall time and memory stand in the chapter's manifest."
    )


@checked_arguments()
def corner_rows(agreement: pd.DataFrame) -> pd.DataFrame:
    """How alike the CLS query's maps are to those of the corner patch, whose maps the published overlays show."""
    return agreement[agreement["query"] == "top-left corner patch"]


@checked_arguments()
def query_agreement(agreement: pd.DataFrame) -> "Figure":
    """The correlation of the CLS query's maps with those of other queries over the layers, with its interval."""
    figure, ax = plt.subplots(figsize=(WIDTH, 3.2))
    for name, rows in agreement.groupby("query"):
        (line,) = ax.plot(rows["layer"] + 1, rows["correlation"], marker="o", label=name)
        ax.fill_between(rows["layer"] + 1, rows["low"], rows["high"], color=line.get_color(), alpha=0.2, lw=0)
    ax.axhline(0, color="#888888", linewidth=0.8)
    ax.set(xlabel="layer", ylabel="correlation with CLS maps", ylim=(-0.5, 1.05))
    ax.set_xticks(sorted(set(agreement["layer"] + 1)))
    corner = corner_rows(agreement)["correlation"].mean()
    ax.set_title(f"The corner patch agrees with CLS by {corner:.2f} on average")
    ax.legend(loc="lower right")
    return figure


@checked_arguments()
def rollout(image: np.ndarray, last: Tensor, rolled: Tensor) -> "Figure":
    """An image beside the last layer's map and the rollout, each scaled to [0, 1]."""
    figure, axes = plt.subplots(1, 3, figsize=(WIDE, 3.0))
    axes[0].imshow(image)
    axes[0].set_title("image")
    for ax, name, values in zip(
        axes[1:], ("last layer, mean of heads", "rollout over all layers"), (last, rolled), strict=True
    ):
        unit = (values - values.min()) / (values.max() - values.min())
        ax.imshow(overlay(image, unit.numpy()))
        ax.set_title(name)
    for ax in axes:
        ax.axis("off")
    return figure


@checked_arguments()
def sinks(found: Sinks, norms: pd.DataFrame) -> str:
    """How many heads rest on sinks, and whether tokens of abnormal norm were found."""
    heavy, most = int((found.share >= ON_SINKS).sum()), norms["high_norm_share"].max()
    top = norms.loc[norms["largest_over_median"].idxmax()]
    return (
        f"**Sinks in this checkpoint.** {heavy} of {found.share.size} heads give at least 75 % of the CLS query's "
        f"attention to the CLS token itself or to sink patches, in each of the three sets. {len(found.table)} pairs of "
        f"head and patch are sinks: they draw at least eight times an even share everywhere. **High-norm tokens** "
        f"{{cite}}`darcet2024registers`: {most:.2%} of patches exceed three times the median norm in the layer where "
        f"they are most frequent; the largest patch norm is {top['largest_over_median']:.1f} times the median (layer "
        f"{top['layer'] + 1:.0f}). "
        + (
            "Such outliers are flagged in the table."
            if most > 0
            else "So this checkpoint has none; they were found in larger models than this."
        )
    )


@checked_arguments()
def magnitudes(heads: pd.DataFrame) -> "Figure":
    """Per head, the attention that stays on CLS, and how spread out the rest is."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(WIDE, 4.4))
    heatmap(left, heads, value="prefix_share", label=f"share of attention on CLS, {of_images(heads)}")
    left.set_title(f"{mostly_on_cls(heads)} heads look mostly at CLS itself")
    heatmap(right, heads, value="map_entropy", label=f"entropy of the map (1 = even), {of_images(heads)}")
    even = int((heads["map_entropy"] > EVEN).sum())
    right.set_title(f"The rest is spread evenly by {even} of {len(heads)} heads")
    return figure


@checked_arguments()
def mostly_on_cls(heads: pd.DataFrame) -> int:
    """How many heads keep more than half of their attention on CLS."""
    return int((heads["prefix_share"] > 0.5).sum())


@checked_arguments()
def follows(chirp: pd.DataFrame) -> pd.Series:
    """True for heads that prefer an image's own chirp to the place of other images' chirps."""
    return (chirp["q_value"] < FALSE_DISCOVERIES) & (chirp["excess"] > 0)


@checked_arguments()
def lifts(statistics: pd.DataFrame) -> "Figure":
    """The lift of every head on the chirp and on the title, in doublings.

    Dots mark the heads that follow the chirp, or those that do not where they are fewer; the title says which.
    """
    figure, axes = plt.subplots(1, 2, figsize=(WIDE, 4.4))
    for ax, region in zip(axes.flat, LIFTS, strict=True):
        grid = rows_of(statistics, region=region)
        grid = grid.assign(doublings=np.log2(grid["lift"].clip(1e-3)), follows=follows(grid).astype(float))
        marks, few = rarer(to_grid(grid, "follows") == 1) if region == "chirp" else (None, False)
        heatmap(
            ax,
            grid,
            value="doublings",
            label=f"log2 lift, {of_images(grid)}",
            diverging=True,
            limits=(-7, 7),
            marked=marks,
        )
        told = (
            f"; dots: {marks.sum()} {'that follow' if few else 'that do not follow'} it"
            if region == "chirp"
            else ""
        )
        ax.set_title(f"{region}: up to {grid['lift'].max():.0f}-fold{told}")
    return figure


@checked_arguments()
def layer_profile(lifts: pd.DataFrame) -> "Figure":
    """The mean lift of each layer's heads, per region, with its intervals, of `layer_lifts`."""
    figure, ax = plt.subplots(figsize=(WIDTH, 3.8))
    largest: dict[str, pd.Series] = {}
    for region in PROFILES:
        rows = lifts[lifts["region"] == region].set_index("layer")
        colour = REGION_COLOURS[region]
        ax.plot(rows.index + 1, rows["lift"], marker="o", markersize=3, color=colour, label=region)
        ax.fill_between(rows.index + 1, rows["low"], rows["high"], color=colour, alpha=0.2, lw=0)
        largest[region] = rows["lift"]
    ax.axhline(1, color="#888888", linewidth=0.8)
    plain_log(ax)
    ax.set(xlabel="layer", ylabel=f"mean lift of the layer's heads, {of_images(lifts)}")
    chirp = largest.pop("chirp")
    ax.set_xticks(chirp.index + 1)
    others = max(found.max() for found in largest.values())
    ax.set_title(
        f"The lift on the chirp is largest in layer {chirp.idxmax() + 1}, {chirp.max():.0f}-fold; "
        f"no other region's passes {others:.1f}"
    )
    ax.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return figure


@checked_arguments()
def of_images(table: pd.DataFrame) -> str:
    """How many images a table's rows rest on, in words for an axis."""
    return counted(int(table["images"].max()), "image")


@checked_arguments()
def other_weights(moved: Interval, by_patch: Interval, most: float) -> str:
    """Whether the order of heads depends on weighting, query and sinks; `most` is the largest change without sinks."""
    return (
        f"Heads ordered by their attention share on the chirp can be ordered again with weights multiplied by what is "
        f"moved (rank correlation {moved:.2f}, 95 % interval over heads) and with patch queries in place of CLS "
        f"({by_patch:.2f}). Leaving sink patches out changes no head's share by more than {most:.3f}."
    )


@checked_arguments()
def control(chirp: pd.DataFrame, random: pd.DataFrame) -> str:
    """The lift on the chirp, and how many heads follow it, with trained and with random weights."""
    return (
        f"With random weights the largest lift on the chirp is {random['lift'].max():.2f}, in the fine-tuned model "
        f"{chirp['lift'].max():.1f}. Against other images' chirps, {follows(chirp).sum()} of {len(chirp)} fine-tuned "
        f"heads and {follows(random).sum()} of {len(random)} random heads look at their image's own more, at a false "
        f"discovery rate of 5 %; "
        f"random heads' attention differs by at most {random['excess'].abs().max():.4f}, that of fine-tuned heads "
        f"grows by up to {chirp['excess'].max():.2f}."
    )


@checked_arguments()
def picker_settings(
    kept: Mapping[str, np.ndarray],
    decorated: Mapping[str, Tensor],
    bare: Mapping[str, Tensor],
    coverage: Tensor,
    statistics: pd.DataFrame,
    heads: pd.DataFrame,
) -> dict[str, Any]:
    """Arguments of the head picker: kept maps, stacked images, their regions, lifts and entropies.

    It opens on the head with the strongest lift on the chirp.
    """
    lift = np.stack([to_grid(rows_of(statistics, region=name), "lift") for name in REGIONS], -1)
    chirp = REGIONS.index("chirp")
    layer, head = np.unravel_index(lift[..., chirp].argmax(), lift.shape[:2])
    images, twins = (pictures(part["pixel_values"]) for part in (decorated, bare))
    return {
        **{name: values for name, values in kept.items() if not name.startswith("answer_")},
        "images": images,
        "twin_images": twins,
        "coverage": coverage.numpy(),
        "lift": lift,
        "entropy": to_grid(heads, "map_entropy"),
        "entropy_unit": "of its maximum",
        "twins": ("decorated", "undecorated"),
        "image_labels": [f"chirp {index + 1}" for index in range(len(images))],
        "regions": REGIONS,
        "measure": f"lift:{chirp}",
        "layer": int(layer),
        "head": int(head),
    }


@checked_arguments()
def verdict(chirp: pd.DataFrame, heads: pd.DataFrame) -> str:
    """What the maps show, and what a map scaled to [0, 1] hides."""
    best = chirp.loc[chirp["lift"].idxmax()]
    return (
        f"Maps do show what heads look at: the head that looks at the chirp most, layer {best['layer'] + 1}, head "
        f"{best['head'] + 1}, "
        f"gives the chirp {best['attention_share']:.0%} of its attention on {best['area_share']:.1%} of the area (lift "
        f"{best['lift']:.0f}, 95 % interval {best['lift_low']:.0f} to {best['lift_high']:.0f}), and "
        f"{follows(chirp).sum()} of {len(chirp)} heads give this image's chirp clearly more attention than the "
        "place of "
        f"other images' chirps. But a map scaled "
        f"to [0, 1] looks the same whether a head gives the image all of its attention or next to none: "
        f"{mostly_on_cls(heads)} heads keep more than half on CLS. "
        f"{counted(int((heads['map_entropy'] > EVEN).sum()), 'head')} "
        f"{word(int((heads['map_entropy'] > EVEN).sum()), 'has', 'have')} a nearly uniform map; many of them would "
        "be a "
        f"sign that something went wrong. Whether a head means *one* thing is the "
        f"question of [](05_mono_or_polysemantic.ipynb); whether it matters, that of [](04_head_ablation.ipynb)."
    )


@checked_arguments()
def what_you_know(
    chirp: pd.DataFrame, random: pd.DataFrame, heads: pd.DataFrame, agreement: pd.DataFrame
) -> str:
    """The chapter in three sentences; `random` is the table of an untrained network's lifts on the chirp."""
    best, corner = chirp.loc[chirp["lift"].idxmax()], corner_rows(agreement)
    ends = corner.loc[[corner["correlation"].idxmin(), corner["correlation"].idxmax()]]
    least, largest = (Interval(row.correlation, row.low, row.high) for row in ends.itertuples())
    most = Interval(best["lift"], best["lift_low"], best["lift_high"])
    middle = heads.sort_values("prefix_share").iloc[len(heads) // 2]
    kept = Interval(middle["prefix_share"], middle["prefix_low"], middle["prefix_high"])
    return three_sentences(
        f"A map stretched to [0, 1] hides how much there is to see: {mostly_on_cls(heads)} of {len(heads)} heads keep "
        f"more than half of the CLS query's attention on the CLS token itself, the median head {kept:.0%}.",
        f"{int(follows(chirp).sum())} of {len(chirp)} heads give an image's own chirp clearly more attention than the "
        f"place of other images' chirps, {int(follows(random).sum())} in an untrained network; the head that looks "
        "there most gives the chirp "
        f"{most:.0f} times the attention that its area explains.",
        f"Whose attention is drawn decides what is seen: maps of the corner patch, which the published overlays show, "
        f"correlate with those of the CLS query by {corner['correlation'].mean():.2f} on average over layers: from "
        f"{least:.2f} in layer {ends['layer'].iloc[0] + 1} to {largest:.2f} in layer {ends['layer'].iloc[1] + 1}.",
    )
