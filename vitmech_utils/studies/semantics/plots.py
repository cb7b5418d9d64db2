"""What chapter 05 shows: classes, contact sheets, what attention follows, what fine-tuning changed, and the words."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from jaxtyping import Float
from numpy import ndarray

from vitmech_utils.arguments import checked_arguments
from vitmech_utils.figures.classes import SHORT_REGIONS, class_grid
from vitmech_utils.figures.marks import head_names, name_largest, percent_scale
from vitmech_utils.figures.plots import CLASS_COLOURS, REGION_COLOURS, WIDE, WIDTH, headline, heatmap, overlay
from vitmech_utils.figures.tables import (
    BRACKETS,
    against,
    both_verdicts,
    bullets,
    counted,
    listed,
    named,
    shown,
    three_sentences,
    word,
)
from vitmech_utils.heads.semantics import Thresholds
from vitmech_utils.profiles import Profile
from vitmech_utils.statistics import Interval
from vitmech_utils.studies.semantics import judge
from vitmech_utils.studies.semantics.measure import CHANGES, FOLLOWED, early_text_or_edge
from vitmech_utils.studies.semantics.measure import correlations as rank_correlations
from vitmech_utils.studies.trainings.judge import over_all
from vitmech_utils.studies.verdicts import (
    FIRST_FOUR,
    SURE,
    Count,
    Judgement,
    detects_text_or_edge,
    in_words,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas.io.formats.style import Styler

EXAMPLE_REGIONS = ("chirp", "plot background", "title")


@checked_arguments()
def opening(profile: Profile, sizes: Mapping[str, int]) -> str:
    """What the page was made with."""
    plan = profile.semantics
    return (
        f"This page was made with profile **{profile.name}**: {sizes['layers']} layers of {sizes['heads']} heads, "
        f"{plan.images:,} held-out images, twins of {plan.twins:,} images under {len(CHANGES)} changes, "
        f"{plan.permutations:,} permutations. Label-shuffled fine-tuning, a stronger null than random weights, "
        "costs another training and is not run here."
    )


# Every head's class


@checked_arguments()
def unmixing(profiles: np.ndarray, weights: np.ndarray) -> "Figure":
    """How shares are taken apart: what heads of one region would give [region, region], and one made of `weights`."""
    names, colours = ("chirp", "background", "title"), [REGION_COLOURS[name] for name in EXAMPLE_REGIONS]
    figure, axes = plt.subplots(1, 3, figsize=(WIDE, 2.9), sharey=True, width_ratios=[1, 2, 1])
    seen = weights @ profiles
    axes[0].bar(names, seen, color=colours)
    axes[0].set(title="shares seen", ylabel="part of the attention", ylim=(0, 1.05))
    bottom = np.zeros(len(names))
    for name, profile, colour in zip(names, profiles.T, colours, strict=True):
        axes[1].bar([f"{kind}\nalone" for kind in names], profile, bottom=bottom, color=colour, label=name)
        bottom += profile
    axes[1].set_title("what a head about one region gives")
    axes[2].bar(names, weights, color=colours)
    axes[2].set_title("unmixed weights")
    for ax, values in ((axes[0], seen), (axes[2], weights)):
        for place, value in enumerate(values):
            ax.text(place, value + 0.02, f"{value:.2f}", ha="center", fontsize=9)
        ax.tick_params(axis="x", labelrotation=20)
    most = int(weights.argmax())
    return headline(
        figure,
        f"The {names[most]} seems to get {seen[most]:.2f} of the attention; unmixed, {weights[most]:.2f}",
    )


@checked_arguments()
def classes_figure(classes: pd.DataFrame) -> "Figure":
    """The grid of classes, titled with how many heads are about one thing, and about several.

    Of the first it says how many are about a region that no twin moves, so that a place may be all that they look at.
    """
    figure, ax = plt.subplots(figsize=(WIDTH, 6.2))
    class_grid(ax, classes)
    one, several = ((classes["class"] == name).sum() for name in ("monosemantic", "polysemantic"))
    still = int(judge.about_what_no_twin_moves(classes).sum())
    untested = f" ({still} of them about what no twin moves)" if still else ""
    ax.set_title(f"{one} heads are about one thing{untested}, {several} about several")
    return figure


@checked_arguments()
def untested(classes: pd.DataFrame) -> str:
    """How many monosemantic heads are about a region that no twin moves, and what that means for their class."""
    alone = classes[judge.about_what_no_twin_moves(classes)]
    total = int((classes["class"] == "monosemantic").sum())
    if alone.empty:
        return f"Each of the {total} monosemantic heads is about a region that some twin moves."
    regions = named(alone["regions"].value_counts().map("({})".format).to_dict())
    return (
        f"Of {total} monosemantic heads, **{len(alone)}** {word(len(alone), 'is', 'are')} about a region that no twin "
        f"moves: {regions}. Whether attention would follow such a region is not known; the rule lets it count as if it "
        f"did (`nan=1.0` above). Without {word(len(alone), 'it', 'them')}, {counted(total - len(alone), 'head')} "
        f"{word(total - len(alone), 'is', 'are')} about one thing that attention was seen to follow."
    )


@checked_arguments()
def layer_counts(by_layer: pd.DataFrame, classes: pd.DataFrame) -> pd.DataFrame:
    """Heads per class for every layer (from 1), and how many of them are about the chirp."""
    chirp = classes[classes["regions"].str.contains("chirp")]
    on_chirp = chirp.groupby(chirp["layer"] + 1).size()
    return by_layer.set_index("layer").assign(**{"about the chirp": on_chirp}).fillna(0).astype(int)


@checked_arguments()
def strongest_and_doubtful(listed: pd.DataFrame) -> str:
    """One line of evidence for every head of the table of the surest and the most doubtful heads."""
    return bullets(
        f"*{row['kind']}*: **{row['head_name']}**, {row['class']}"
        f"{_bracketed(row['regions'])}, confidence {row['confidence']:.2f}, "
        f"information {row['information']:.2f} nats. {row['evidence']}."
        for _, row in listed.iterrows()
    )


@checked_arguments()
def contact_sheet(
    table: pd.DataFrame,
    image: Float[ndarray, "row column 3"],
    maps: Float[ndarray, "layer head row column"],
    columns: int = 6,
) -> "Figure":
    """Show the most confident heads of each class: rows are classes, each map scaled to [0, 1] over one image.

    A class without heads has no row.
    """
    present = [name for name in CLASS_COLOURS if (table["class"] == name).any()]
    figure, axes = plt.subplots(
        len(present), columns, figsize=(WIDE, WIDE / columns * 1.17 * len(present)), squeeze=False
    )
    for row, name in zip(axes, present, strict=True):
        members = table[table["class"] == name].sort_values("confidence", ascending=False, kind="stable")
        for ax in row:
            ax.axis("off")
        for ax, head in zip(row, members.itertuples(), strict=False):
            values = maps[head.layer, head.head]
            unit = (values - values.min()) / max(values.max() - values.min(), 1e-12)
            ax.imshow(overlay(image, unit))
            regions = "\n".join(SHORT_REGIONS.get(r, r) for r in head.regions.split(" + ")[:2])
            ax.set_title(
                f"L{head.layer + 1}H{head.head + 1} {regions}".replace("\n", ", "), fontsize=8, pad=2
            )
        row[0].text(
            -0.08, 0.5, name, rotation=90, va="center", ha="right", transform=row[0].transAxes, fontsize=9
        )
    return figure


# What attention follows


@checked_arguments()
def follow(effects: pd.DataFrame, twins: int) -> "Figure":
    """How far heads that look at a region go along when it is moved: a row of dots per region, from `twins` pairs."""
    moving = effects[effects["change"].str.endswith(" moved")]
    strong = moving[moving["lift_before"] >= FOLLOWED]
    order = [region for region in REGION_COLOURS if region in set(strong["region"])]
    spread = np.random.default_rng(0)
    figure, ax = plt.subplots(figsize=(WIDTH, 3.6))
    for row, region in enumerate(order):
        part = strong[strong["region"] == region]
        height = row + spread.uniform(-0.25, 0.25, len(part))
        ax.scatter(part["follow"], height, s=18, color=REGION_COLOURS[region], alpha=0.8)
        ax.hlines(height, part["low"], part["high"], color=REGION_COLOURS[region], linewidth=0.8, alpha=0.8)
    ax.axvline(Thresholds().follow, color="#444444", linestyle=":", label="least to count as following")
    ax.legend(loc="lower left")
    ax.set_yticks(range(len(order)), order)
    ax.set(
        xlabel=f"follow (0 stays, 1 goes along; {counted(twins, 'twin')})",
        xlim=(min(-0.5, strong["follow"].quantile(0.01)), 1.25),
    )
    bar = strong[strong["region"] == "colour bar"]["follow"]
    ax.set_title(
        f"{int((bar > 0.8).sum())} of {len(bar)} heads that look at the colour bar go along with it by more than 0.8"
    )
    return figure


@checked_arguments()
def output_change(effects: pd.DataFrame, twins: int) -> "Figure":
    """How much the outputs of a layer's heads change when one thing is taken away, mean over `twins` pairs."""
    gone = effects[effects["change"].str.endswith(" removed")].drop_duplicates(["change", "layer", "head"])
    by_layer = gone.groupby(["change", "layer"])["output_change"].mean().unstack("change")
    layers = by_layer.index + 1
    heads = gone.groupby(["change", "layer"])["output_change"]
    least, most_of = (heads.quantile(part).unstack("change") for part in (0.0, 1.0))
    figure, ax = plt.subplots(figsize=(WIDTH, 3.4))
    for number, change in enumerate(by_layer):
        region = CHANGES[change].regions[0]
        beside = layers + 0.12 * (number - (by_layer.shape[1] - 1) / 2)
        ax.vlines(beside, least[change], most_of[change], color=REGION_COLOURS[region], linewidth=0.8)
        ax.plot(layers, by_layer[change], marker="o", color=REGION_COLOURS[region], label=change)
    ax.set(
        xlabel=f"layer ({counted(twins, 'twin')})",
        ylabel="relative change of head outputs",
        ylim=(0, None),
        xticks=layers,
    )
    most = by_layer.iloc[-1].idxmax().removesuffix(" removed")
    size = by_layer.iloc[-1].max()
    ax.set_title(f"In the last layer outputs change most without the {most}: by {size:.0%}, mean over heads")
    ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure


# Controls


@checked_arguments()
def controls(shares: pd.DataFrame, untrained: pd.DataFrame) -> str:
    """What chirps of other images, and random weights, say: `shares` is a table of `region_shares`."""
    chirp = shares.query("query == 'cls' and weighting == 'raw' and sinks == 'kept' and region == 'chirp'")
    own = int(((chirp["q_value"] < 0.05) & (chirp["excess"] > 0)).sum())
    counts = untrained["class"].value_counts().map("({})".format)
    return (
        f"{own} of {len(chirp)} heads give this image's chirp more attention than the place of other images' "
        f"chirps (false discovery rate 5 %). With random weights the classes are {named(counts)}; their largest "
        f"information is {untrained['information'].max():.3f} nats (threshold {Thresholds().information})."
    )


@checked_arguments()
def sensitivity_lines(table: pd.DataFrame, chosen: Mapping[str, float]) -> "Figure":
    """Draw the number of heads per class against each threshold; a dotted line marks the value that was chosen."""
    names = list(chosen)
    figure, axes = plt.subplots(1, len(names), figsize=(WIDE, 2.9), sharey=True)
    for ax, name in zip(axes, names, strict=True):
        part = table[table["threshold"] == name].pivot(index="value", columns="class", values="heads")
        for kind, colour in CLASS_COLOURS.items():
            ax.plot(part.index, part[kind], color=colour, label=kind, marker=".")
        ax.axvline(chosen[name], color="#444444", linestyle=":", linewidth=1, label="as chosen")
        ax.set_title(name)
        ax.set_xlabel("nats" if name == "information" else "share")
    axes[0].set_ylabel("heads")
    figure.legend(
        *axes[0].get_legend_handles_labels(), ncols=len(CLASS_COLOURS) + 1, loc="outside lower center"
    )
    widest = table.groupby(["threshold", "class"])["heads"].agg(np.ptp).unstack().max(axis=1).idxmax()
    return headline(figure, f"Counts of heads depend most on the threshold {widest}")


# What fine-tuning changed


@checked_arguments()
def inherited(growth: Float[ndarray, "layer head"], updates: pd.DataFrame) -> "Figure":
    """By how much the lift on the chirp grew (as a factor), beside the sizes of the updates of query and value."""
    figure, axes = plt.subplots(1, 3, figsize=(WIDE, 4.2))
    heatmap(axes[0], np.log2(growth), label="log2 of lift after / before", diverging=True)
    axes[0].set_title(f"Lift on the chirp: {np.median(growth):.1f}-fold (median)")
    ends = float(updates["relative"].min()), float(updates["relative"].max())
    for ax, name in zip(axes[1:], ("query", "value"), strict=True):
        part = updates[updates["projection"] == name]
        heatmap(ax, part, value="relative", label="update norm / weight norm", limits=ends)
        ax.set_title(f"LoRA update of {name}")
    return figure


@checked_arguments()
def turned(changes: pd.DataFrame) -> pd.DataFrame:
    """Heads by their class before (rows) and after fine-tuning (columns)."""
    return pd.crosstab(
        changes["class_before"].rename("pre-trained"), changes["class_after"].rename("fine-tuned")
    )


@checked_arguments()
def kept_and_turned(before: pd.DataFrame, after: pd.DataFrame, changes: pd.DataFrame, link: Interval) -> str:
    """How many heads keep what they are about; `link` correlates a head's update with its change of lift."""
    chirp = [int(table["regions"].str.contains("chirp").sum()) for table in (before, after)]
    texts = [early_text_or_edge(table) for table in (before, after)]
    both = len(texts[0].merge(texts[1], on=["layer", "head"]))
    return (
        f"{int((~changes['changed']).sum())} of {len(changes)} heads keep class and regions. {chirp[0]} heads were "
        f"about the chirp before fine-tuning, {chirp[1]} are after it. In layers 1-4, {len(texts[1])} heads are "
        f"about a text or an edge, alone or beside other things; {both} of them were so before fine-tuning, when there "
        f"were {len(texts[0])} (C4 below counts those that are about nothing else). Size of a "
        f"head's update and change of its lift on the chirp: rank correlation {link:.2f} (95 % interval over heads)."
    )


# Importance


@checked_arguments()
def importance_table(table: pd.DataFrame) -> "Styler":
    """The rank correlations of importance and focus."""
    return shown(table, {"correlation": ".2f", "low": ".2f", "high": ".2f", "p_value": ".3f"})


@checked_arguments()
def importance(
    focus: pd.DataFrame, sweep: pd.DataFrame, classes: pd.DataFrame, correlations: pd.DataFrame
) -> "Figure":
    """Effect of each head against its attention on the chirp, under the mode of the first of the `correlations`."""
    main = correlations.iloc[0]
    where = ["layer", "head"]
    joined = focus.merge(sweep[sweep["mode"] == main["mode"]], on=where)
    joined = joined.merge(classes[[*where, "class"]], on=where)
    figure, ax = plt.subplots(figsize=(WIDTH, 4.0))
    for name, colour in CLASS_COLOURS.items():
        part = joined[joined["class"] == name]
        ax.scatter(part["chirp_weight"], part["effect"], color=colour, s=26, label=name)
    name_largest(ax, joined["chirp_weight"], joined["effect"], head_names(joined), joined["effect"])
    ax.axhline(0, color="#888888", linewidth=0.8)
    ax.set(xlabel="attention on the chirp (unmixed)", ylabel=f"effect of {main['mode']} ablation (%)")
    # On the logarithmic part of the scale the usual margin is next to none.
    ax.set_ylim(1.6 * min(joined["effect"].min(), -1.0), 1.6 * max(joined["effect"].max(), 1.0))
    percent_scale(ax)
    overall, within = rank_correlations(correlations)
    ax.set_title(f"Rank correlation: over all heads {overall:+.2f}, within layers {within:+.2f}")
    ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure


@checked_arguments()
def examples(
    wanted: Mapping[str, tuple[int, int]], classes: pd.DataFrame, on_chirp: Float[ndarray, "layer head"]
) -> str:
    """A paragraph on each of the wanted heads; `on_chirp` is their unmixed attention on the chirp."""
    heads = on_chirp.shape[1]
    missing = [f"This model has {heads} heads per layer: there is no head 12 in it."] if heads < 12 else []
    rows = classes.set_index(["layer", "head"])
    return "\n\n".join(
        missing + [_example(name, place, rows.loc[place], on_chirp[place]) for name, place in wanted.items()]
    )


def _example(name: str, place: tuple[int, int], row: Any, on_chirp: float) -> str:
    return (
        f"**{name}** is L{place[0] + 1}H{place[1] + 1}: {row['class']}{_bracketed(row['regions'])}, confidence "
        f"{row['confidence']:.2f}; {on_chirp:.0%} on the chirp; {row['evidence']}."
    )


# Verdict


@checked_arguments()
def claims(judged: Mapping[str, Judgement], counts: Mapping[str, Count], focus: pd.DataFrame) -> pd.DataFrame:
    """The claims with what is found here in words: `counts` of heads, `focus` the correlations of C6 and their "
    "mode."""
    over_all, within = (
        f"{Interval(row['correlation'], row['low'], row['high']):.2f}" for _, row in focus[:2].iterrows()
    )
    mode = str(focus["mode"].iloc[0])
    here = {
        "C3": f"{counts['C3']} heads of layers 6-11 are about the chirp alone",
        "C4": f"{counts['C4']} heads of layers 1-4 are monosemantic text or edge detectors",
        "C5": f"{counts['C5']} heads of the last layer are polysemantic or diffuse",
        "C6": f"rank correlation {over_all} over all heads, {within} within layers, {mode} ablation, which alone the "
        f"rule asks; over all heads by the other modes: {judge.other_modes(focus, mode)} (95 % intervals over heads)",
    }
    rows = [
        (
            claim,
            here[claim],
            found.verdict,
            found.reason,
            found.lacks,
            *(vars(counts[claim]).values() if claim in counts else [-1] * 4),
        )
        for claim, found in judged.items()
    ]
    columns = ["claim", "here", "verdict", "reason", "lacks", "value", "low", "high", "total"]
    return pd.DataFrame(rows, columns=columns)


@checked_arguments()
def verdicts(claims: pd.DataFrame) -> str:
    """The claims with what is found here, the verdicts and their reasons."""
    return f"{BRACKETS.capitalize()}, over all reasonable thresholds.\n\n" + bullets(
        f"**{row.claim}**: **{in_words(row.verdict, row.lacks)}**. {row.here}. Reason: {row.reason}."
        for row in claims.itertuples()
    )


@checked_arguments()
def detectors(classes: Mapping[str, pd.DataFrame], sweeps: Mapping[str, pd.DataFrame]) -> str:
    """The sure detectors of text and edges (C4) of each training, with their effects.

    `sweeps` are the trainings' tables of effects by one mode.
    """

    def told(name: str) -> str:
        early = classes[name][classes[name]["layer"].between(*FIRST_FOUR)]
        sure = early[detects_text_or_edge(early) & (early["confidence"] >= SURE)]
        effects = judge.detector_effects(classes[name], sweeps[name])
        each = [
            f"L{head.layer + 1}H{head.head + 1} ({head.regions}; effect {effect:+.2f} %)"
            for head, effect in zip(sure.itertuples(), effects, strict=True)
        ]
        return f"**{name}**: {listed(each)}."

    return "Sure detectors of text or edges in layers 1-4 (C4), by training:\n\n" + bullets(
        map(told, classes)
    )


def _bracketed(regions: str) -> str:
    return f" ({regions})" if regions else ""


@checked_arguments()
def what_you_know(
    counts: Mapping[str, Count],
    judged: Mapping[str, Judgement],
    overall: Interval,
    within: Interval,
    verdicts: pd.DataFrame,
) -> str:
    """The chapter in three sentences; the intervals are those of importance and focus, over all heads and in layers.

    `judged` are the verdicts on this training, `verdicts` is the `verdicts_table` of all trainings.
    """
    trainings = over_all(verdicts)
    said = {claim: both_verdicts(found, trainings[claim]) for claim, found in judged.items()}
    alone = against(within.low, within.high, 0.0, "also", "the other way round", "undecided")
    return three_sentences(
        f"{counts['C3']} heads of layers 6-11 are about the chirp alone ({BRACKETS}), over all thresholds tried; "
        f"verdict on "
        f"C3, these layers attend to the chirp alone: {said['C3']}.",
        f"{counts['C4']} heads of layers 1-4 are monosemantic detectors of text or edges, and {counts['C5']} heads "
        f"of "
        f"the last layer are polysemantic or diffuse; verdicts: C4 {said['C4']}, C5 {said['C5']}.",
        f"Heads that attend more to the chirp matter more over all layers with a rank correlation of {overall:+.2f}, "
        f"by the mode that the rule asks; within layers, where depth cannot make it, with {within:+.2f} ({alone}).",
    )
