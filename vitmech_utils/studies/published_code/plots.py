"""What chapter 06 shows: the rows that are zeroed, the drift, both heatmaps, three queries' maps, and the words."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from vitmech_utils.arguments import checked_arguments
from vitmech_utils.figures.plots import WIDE, WIDTH, headline, heatmap, overlay
from vitmech_utils.figures.tables import (
    against,
    counted,
    from_zero,
    percent,
    pipe_table,
    shown,
    three_sentences,
)
from vitmech_utils.heads.published_code import MixedUnits
from vitmech_utils.intervals import mean_interval
from vitmech_utils.profiles import Profile
from vitmech_utils.statistics import Interval

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas.io.formats.style import Styler


@checked_arguments()
def opening(profile: Profile, sizes: Mapping[str, int]) -> str:
    """What the page was made with."""
    return (
        f"This page was made with profile **{profile.name}**: {sizes['layers']} layers of {sizes['heads']} heads; "
        f"the "
        f"whole procedure runs on {profile.audit.procedure_images:,} held-out images in three orders of the layers, "
        f"the other comparisons on {profile.audit.images:,}, those of point 8 on {min(4, profile.audit.images)}."
    )


@checked_arguments()
def rows(zeroed: Sequence[int], sizes: Mapping[str, int]) -> "Figure":
    """A strip of one query weight's rows: bands for heads, lines for what is zeroed."""
    heads, size = sizes["heads"], sizes["head_size"]
    figure, ax = plt.subplots(figsize=(WIDTH, 1.6))
    for head in range(heads):
        span = (head * size, (head + 1) * size)
        ax.axvspan(*span, color="#EEEEEE" if head % 2 else "#DDDDDD")
        ax.text(sum(span) / 2, 0.75, f"head {head + 1}", ha="center", va="center")
    ax.vlines(np.array(zeroed) + 0.5, 0, 0.5, color="#D55E00", label="zeroed")
    ax.set(xlim=(0, heads * size), ylim=(0, 1), xlabel="row of the query weight", yticks=[])
    owners = sorted({row // size + 1 for row in zeroed})
    ax.set_title(f"What the procedure calls {heads} heads lies within head {', '.join(map(str, owners))}")
    return figure


@checked_arguments()
def orders(drift: pd.DataFrame, follows: Mapping[str, Interval]) -> "Figure":
    """The outcome in three orders of the layers, against the layer and against its place in the order."""
    figure, axes = plt.subplots(1, 2, figsize=(WIDE, 4.0), sharey=True)
    labels = {"layer": "layer", "position": "place in the order of zeroing"}
    names = list(drift["order"].unique())
    for ax, (key, label) in zip(axes, labels.items(), strict=True):
        for number, name in enumerate(names):
            part = drift[drift["order"] == name].sort_values(key)
            reach = part["effect"] - part["low"], part["high"] - part["effect"]
            places = part[key] + 1 + 0.2 * (number - (len(names) - 1) / 2)  # side by side
            ax.errorbar(places, part["effect"], reach, fmt="o-", markersize=4, elinewidth=0.8, label=name)
        ax.axhline(0, color="#444444", linewidth=0.8)
        ax.set(xlabel=label, title=f"against {label.split(' ')[0]}: rank correlation\n{follows[key]:+.2f}")
        ax.set_xticks(range(1, int(drift[key].max()) + 2))
    axes[0].set_ylabel("change of the MSE (% of the held-out loss)")
    axes[1].legend(title="order of layers", loc="upper left")
    images = counted(int(drift["images"].iloc[0]), "image")
    return headline(figure, f"What zeroing does follows {what_it_follows(follows)} ({images})")


@checked_arguments()
def what_it_follows(follows: Mapping[str, Interval]) -> str:
    """What the outcome follows more closely, if the interval of the difference says so; a single image has none."""
    if follows["closer"].low > 0:
        return "the place in the order"
    return "the layer" if follows["closer"].high < 0 else "neither for sure"


@checked_arguments()
def orders_text(drift: pd.DataFrame, follows: Mapping[str, Interval]) -> str:
    """What the three orders show."""
    last = {name: part.loc[part["position"].idxmax()] for name, part in drift.groupby("order")}
    ends = ", ".join(f"{name} {percent(row)}" for name, row in last.items())
    images = counted(int(drift["images"].iloc[0]), "image")
    clear = int(((drift["low"] > 0) | (drift["high"] < 0)).sum())
    return (
        f"More closely than the other, the outcome follows **{what_it_follows(follows)}**: mean rank correlation "
        f"{follows['position']:+.2f} with the place in the order, {follows['layer']:+.2f} with the layer (95 % "
        f"intervals over the {images}, the same for all layers and orders). This is a statement about an order: how "
        f"large the changes are is known badly from so few images, and {clear} of {len(drift)} single changes have an "
        "interval that excludes zero. All three orders end with nearly the same weights, all but the rows zeroed "
        f"last, and there the error has changed, in percent of the held-out loss, by {ends}."
    )


@checked_arguments()
def heatmaps(theirs: pd.DataFrame, ours: pd.DataFrame, same: Interval) -> "Figure":
    """The procedure's heatmap beside the estimated one; `same` is their rank correlation over heads."""
    figure, axes = plt.subplots(1, 2, figsize=(WIDE, 4.6))
    titled = {"published procedure": theirs, f"estimated, {ours['mode'].iloc[0]} ablation": ours}
    most = max(float(table["effect"].abs().max()) for table in titled.values())
    for ax, (title, table) in zip(axes, titled.items(), strict=True):
        heatmap(
            ax,
            table,
            label="effect (% of the held-out loss)",
            diverging=True,
            linear=1.0,
            limits=(-most, most),
        )
        ax.set_title(f"{title}, {counted(int(table['images'].iloc[0]), 'image')}")
    axes[0].set_xlabel("'head' (a row of head 1)")
    return headline(
        figure, f"Rank correlation of the two over {len(ours)} heads: {same:+.2f}; colours on one scale"
    )


@checked_arguments()
def heatmaps_text(theirs: pd.DataFrame, ours: pd.DataFrame, same: Interval, within: Interval) -> str:
    """How alike the two heatmaps are, over all heads and within layers."""
    images = counted(int(theirs["images"].iloc[0]), "image")
    return (
        f"The rank correlation between the procedure's heatmap and the effects of {ours['mode'].iloc[0]} ablation is "
        f"{same:+.2f} over all heads (95 % interval over {len(ours)} "
        f"heads, for these {images}; it says nothing of other images). "
        f"Two heatmaps that rise with depth are alike for that reason alone; within layers, where depth plays no part, "
        f"they correlate by {within:+.2f}. The largest change that the procedure finds is "
        f"{theirs['effect'].abs().max():.1f} % of the held-out loss, the largest effect of a whole head "
        f"{ours['effect'].abs().max():.1f} %."
    )


@checked_arguments()
def described_text(weights: pd.DataFrame, likeness: Sequence[Interval]) -> str:
    """How like the heatmap is to effects of zeroed query, key and value weights, over all heads and within layers."""
    over_all, within = likeness
    return (
        f"By zeroed query, key and value weights, which the study describes, {len(weights)} heads correlate by "
        f"{over_all:+.2f}, and within layers by {within:+.2f}."
    )


@checked_arguments()
def loading(table: pd.DataFrame) -> "Styler":
    """The scores of what is loaded."""
    return shown(table.assign(low=table["low"].clip(lower=0)), {"mse": ".3f", "low": ".3f", "high": ".3f"})


@checked_arguments()
def units_text(found: Mapping[str, Interval], units: MixedUnits, images: int) -> str:
    """What the mixed units do to a baseline."""
    apart = units.predicting_nothing - units.perfect_but_standardized
    return (
        f"By execution, on {images} images: our fine-tuned model's standardized outputs against raw labels score "
        f"{from_zero(found['mixed']):.0f}; its outputs brought back to seconds and hertz score "
        f"{from_zero(found['proper']):.1f}. In the "
        f"first figure a model's quality is all but invisible: perfect and useless lie {apart:.0f} apart, "
        f"{(units.predicting_nothing / units.perfect_but_standardized - 1):.1%} of the loss. An effect in percent of "
        "such a baseline is small whatever the head does."
    )


@checked_arguments()
def pixels_text(
    fed: Mapping[str, object],
    predicted: Float[Tensor, "image target"],
    labels: Float[Tensor, "image target"],
    trained_on: Interval,
    normalized: Interval,
) -> str:
    """What the other pixels do to the model; `predicted` is what it says of the pixels that it was trained on."""
    losses = [(found - labels).square().mean(1) for found in (fed["predictions"], predicted)]
    more = mean_interval((losses[0] - losses[1]).numpy())
    (low, high), (lowest, highest) = (map(float, fed[name]) for name in ("trained_on", "analysed"))
    return (
        f"Values as trained lie between {low:.1f} and {high:.1f}, as analysed between {lowest:.1f} and "
        f"{highest:.1f}. The fine-tuned model's MSE is {from_zero(trained_on):.3f} on the first and "
        f"{from_zero(normalized):.3f} on the second: image by image {more:+.3f} (paired 95 % interval, "
        f"{counted(len(labels), 'image')}), "
        f"{against(more.low, more.high, 0.0, 'worse', 'better', 'which does not decide it')}."
    )


@checked_arguments()
def queries(
    image: Float[ndarray, "row column 3"],
    maps: Mapping[str, Float[ndarray, "row column"]],
    likeness: Mapping[str, Interval],
    images: int,
) -> "Figure":
    """One head's map over one image for three queries, each scaled to [0, 1]; `likeness` is over `images` of them."""
    figure, axes = plt.subplots(1, 3, figsize=(WIDE, 3.2))
    for ax, (name, found) in zip(axes, maps.items(), strict=True):
        found = (found - found.min()) / max(found.max() - found.min(), 1e-12)
        ax.imshow(overlay(image, found))
        ax.set_title(name if name == "CLS" else f"{name}: {likeness[name]:.2f}")
        ax.set_axis_off()
    return headline(
        figure, f"Rank correlation with the map of CLS, mean over heads ({counted(images, 'image')})"
    )


@checked_arguments()
def constants(share: Float[ndarray, "layer head"], images: int) -> "Figure":
    """How much of its size each head keeps without its weights; sizes are means over `images` of them."""
    figure, ax = plt.subplots(figsize=(WIDTH, 4.4))
    heatmap(ax, share, label="size of the constant / mean size of the output")
    ax.set_title(f"The median head keeps {np.median(share):.0%} of its size ({counted(images, 'image')})")
    return figure


@checked_arguments()
def verdict(
    sizes: Mapping[str, int],
    follows: Mapping[str, Interval],
    matched: int,
    units: Mapping[str, Interval],
    pixels: Mapping[str, Interval],
    corner: Interval,
    constant: float,
) -> str:
    """The eight observations in a table: what the study sets out to do, what its code does, and what is seen here.

    `matched` backbone weights find their partner; `corner` is the corner patch's rank correlation with CLS, `constant`
    the part of its size that the median head keeps.
    """
    overlap = pixels["normalized"].low <= pixels["trained_on"].high
    undecided = " (their intervals overlap)" if overlap else ""
    steps = [
        ("zero a head", f"zeroes one of its first head's {sizes['head_size']} rows", "only head 1 touched"),
        ("ablate, then predict", "predicts, then ablates", "the first batch is one step behind"),
        (
            "ablate one at a time",
            "never restores",
            f"follows {what_it_follows(follows)}: {follows['position']:+.2f} place, {follows['layer']:+.2f} layer",
        ),
        (
            "analyse the fine-tuned model",
            "loads its regression head alone",
            f"{matched} backbone weights matched",
        ),
        (
            "compare like units",
            "standardized against raw",
            f"{units['mixed'].value:.0f} instead of {units['proper'].value:.1f}",
        ),
        (
            "feed what training fed",
            "normalizes by ImageNet",
            f"MSE {pixels['normalized'].value:.3f} instead of {pixels['trained_on'].value:.3f}{undecided}",
        ),
        (
            "show what the model attends to",
            "shows the corner patch",
            f"rank correlation {corner:.2f} with CLS",
        ),
        (
            "silence the head",
            "leaves its biases",
            f"median constant {constant:.0%} of the usual size (few images)",
        ),
    ]
    headings = ("", "the study sets out to", "the published code does", "seen here")
    return (
        pipe_table(headings, [(number, *step) for number, step in enumerate(steps, start=1)])
        + "\n\nThe published numbers for C1 and C2 therefore neither support nor contradict the claims; "
        "[](04_head_ablation.ipynb) asks the model anew."
    )


@checked_arguments()
def what_you_know(
    follows: Mapping[str, Interval], same: Interval, within: Interval, loading: pd.DataFrame
) -> str:
    """The chapter in three sentences; the intervals say how alike the heatmaps are, over all heads and in layers."""
    errors = loading.set_index("model")
    tuned, loaded = (
        from_zero(Interval(*errors.loc[name, ["mse", "low", "high"]]))
        for name in ("fine-tuned model", "as the documented step loads it")
    )
    decided = against(
        within.low, within.high, 0.0, "they agree there, too", "they disagree there", "undecided"
    )
    return three_sentences(
        f"The published procedure's outcome follows {what_it_follows(follows)}: it has a mean rank correlation of "
        f"{follows['position']:+.2f} with the place in the order of zeroing, and of {follows['layer']:+.2f} with the "
        "layer.",
        f"It analyses a model whose MSE is {loaded:.2f}, where the fine-tuned model has {tuned:.3f}: the documented "
        "loading step skips the fine-tuned backbone without a word.",
        f"Its heatmap and that of our estimates correlate by {same:+.2f} over all heads, where depth alone can make "
        f"them alike, and by {within:+.2f} within layers ({decided}).",
    )
