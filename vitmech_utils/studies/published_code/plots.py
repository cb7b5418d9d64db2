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
    interval,
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
        f"the other comparisons on {profile.audit.images:,}."
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
def orders(drift: pd.DataFrame, follows: Mapping[str, float]) -> "Figure":
    """The outcome in three orders of the layers, against the layer and against its place in the order."""
    figure, axes = plt.subplots(1, 2, figsize=(WIDE, 3.6), sharey=True)
    labels = {"layer": "layer", "position": "place in the order of zeroing"}
    for ax, (key, label) in zip(axes, labels.items(), strict=True):
        for name, part in drift.groupby("order", sort=False):
            part = part.sort_values(key)
            ax.plot(part[key] + 1, part["effect"], "o-", markersize=4, label=name)
        ax.axhline(0, color="#444444", linewidth=0.8)
        ax.set(xlabel=label, title=f"against {label.split(' ')[0]}: rank correlation {follows[key]:+.2f}")
        ax.set_xticks(range(1, int(drift[key].max()) + 2))
    axes[0].set_ylabel("change of the MSE (%)")
    axes[1].legend(title="order of layers", loc="upper left")
    return headline(figure, f"What zeroing does follows {what_it_follows(follows)}")


@checked_arguments()
def what_it_follows(follows: Mapping[str, float]) -> str:
    """What the outcome follows more closely."""
    return "the place in the order" if abs(follows["position"]) > abs(follows["layer"]) else "the layer"


@checked_arguments()
def orders_text(drift: pd.DataFrame, follows: Mapping[str, float]) -> str:
    """What the three orders show."""
    last = {name: part.loc[part["position"].idxmax()] for name, part in drift.groupby("order")}
    ends = ", ".join(f"{name} {interval(row, value='effect', unit='%')}" for name, row in last.items())
    return (
        f"Here the outcome follows **{what_it_follows(follows)}** more closely: mean rank correlation "
        f"{follows['position']:+.2f} with the place in the order, {follows['layer']:+.2f} with the layer. All three "
        "orders end with nearly the same weights, all but the rows zeroed last, and there the error has changed by "
        f"{ends}."
    )


@checked_arguments()
def heatmaps(theirs: pd.DataFrame, ours: pd.DataFrame, same: Interval) -> "Figure":
    """The procedure's heatmap beside the estimated one; `same` is their rank correlation."""
    figure, axes = plt.subplots(1, 2, figsize=(WIDE, 4.6))
    titled = {"published procedure": theirs, f"estimated, {ours['mode'].iloc[0]} ablation": ours}
    most = max(float(table["effect"].abs().max()) for table in titled.values())
    for ax, (title, table) in zip(axes, titled.items(), strict=True):
        heatmap(ax, table, label="effect on the MSE (%)", diverging=True, linear=1.0, limits=(-most, most))
        ax.set_title(title)
    axes[0].set_xlabel("'head' (a row of head 1)")
    return headline(figure, f"Rank correlation of the two: {same:+.2f}; colours on one scale")


@checked_arguments()
def heatmaps_text(theirs: pd.DataFrame, ours: pd.DataFrame, same: Interval, within: Interval) -> str:
    """How alike the two heatmaps are, over all heads and within layers."""
    return (
        f"The rank correlation between the two heatmaps is {same:+.2f} over all heads (95 % interval over heads). "
        f"Two heatmaps that rise with depth are alike for that reason alone; within layers, where depth plays no part, "
        f"they correlate by {within:+.2f}. The largest change "
        f"that the procedure finds is {theirs['effect'].abs().max():.2f} %, the largest effect of a whole head "
        f"{ours['effect'].abs().max():.1f} %."
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
        f"{against(more.low, more.high, 0.0, 'clearly worse', 'clearly better', 'which does not decide it')}."
    )


@checked_arguments()
def queries(
    image: Float[ndarray, "row column 3"],
    maps: Mapping[str, Float[ndarray, "row column"]],
    likeness: Mapping[str, float],
) -> "Figure":
    """One head's map over one image for three queries, each scaled to [0, 1]."""
    figure, axes = plt.subplots(1, 3, figsize=(WIDE, 3.2))
    for ax, (name, found) in zip(axes, maps.items(), strict=True):
        found = (found - found.min()) / max(found.max() - found.min(), 1e-12)
        ax.imshow(overlay(image, found))
        ax.set_title(name if name == "CLS" else f"{name}: correlation {likeness[name]:.2f}")
        ax.set_axis_off()
    return figure


@checked_arguments()
def constants(share: Float[ndarray, "layer head"]) -> "Figure":
    """How much of its size each head keeps without its weights."""
    figure, ax = plt.subplots(figsize=(WIDTH, 4.4))
    heatmap(ax, share, label="size of the constant / mean size of the output")
    ax.set_title(f"The median head keeps {np.median(share):.0%} of its size")
    return figure


@checked_arguments()
def verdict(
    sizes: Mapping[str, int],
    follows: Mapping[str, float],
    matched: int,
    units: Mapping[str, Interval],
    pixels: Mapping[str, Interval],
    corner: float,
    constant: float,
) -> str:
    """The eight observations in a table: what the study sets out to do, what its code does, and what is seen here.

    `matched` backbone weights find their partner; `corner` is the corner patch's rank correlation with CLS, `constant`
    the part of its size that the median head keeps.
    """
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
            f"MSE {pixels['normalized'].value:.3f} instead of {pixels['trained_on'].value:.3f}",
        ),
        (
            "show what the model attends to",
            "shows the corner patch",
            f"rank correlation {corner:.2f} with CLS",
        ),
        ("silence the head", "leaves its biases", f"median constant {constant:.0%} of the usual size"),
    ]
    headings = ("", "the study sets out to", "the published code does", "seen here")
    return (
        pipe_table(headings, [(number, *step) for number, step in enumerate(steps, start=1)])
        + "\n\nThe published numbers for C1 and C2 therefore neither support nor contradict the claims; "
        "[](04_head_ablation.ipynb) asks the model anew."
    )


@checked_arguments()
def what_you_know(
    follows: Mapping[str, float], same: Interval, within: Interval, loading: pd.DataFrame
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
        f"The published procedure follows {what_it_follows(follows)}: its outcome has a mean rank correlation of "
        f"{follows['position']:+.2f} with the place in the order of zeroing, and of {follows['layer']:+.2f} with the "
        "layer.",
        f"It analyses a model whose MSE is {loaded:.2f}, where the fine-tuned model has {tuned:.3f}: the documented "
        "loading step skips the fine-tuned backbone without a word.",
        f"Its heatmap and that of our estimates correlate by {same:+.2f} over all heads, where depth alone can make "
        f"them alike, and by {within:+.2f} within layers ({decided}).",
    )
