"""What chapter 07 shows: classes side by side, changes of lift, heads' fates, updates, effects, and the words."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.patheffects import withStroke

from vitmech_utils.arguments import checked_arguments
from vitmech_utils.data.chirps import LABEL_NAMES
from vitmech_utils.figures.classes import SHORT_REGIONS, class_grids
from vitmech_utils.figures.marks import effect_scatter, head_names, percent_scale
from vitmech_utils.figures.plots import WIDE, headline
from vitmech_utils.figures.tables import (
    BRACKETS,
    both_verdicts,
    bullets,
    judgement_list,
    named,
    plain,
    three_sentences,
)
from vitmech_utils.profiles import Profile
from vitmech_utils.statistics import Interval
from vitmech_utils.studies.origin.measure import COMPARED, HEAD, TRAINED, about, subjects
from vitmech_utils.studies.trainings.judge import over_all
from vitmech_utils.studies.verdicts import Count, Judgement

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from pandas.io.formats.style import Styler

FATES: dict[str, str] = {"kept": "#0072B2", "appeared": "#D55E00", "vanished": "#BBBBBB"}


@checked_arguments()
def opening(profile: Profile) -> str:
    """What the page was made with."""
    plan = profile.origin
    part = f" Heads are ablated in one layer in {plan.sweep_every} only." if plan.sweep_every > 1 else ""
    return (
        f"This page was made with profile **{profile.name}**: maps and classes from {plan.images:,} held-out images, "
        f"twins of {plan.twins:,} images, effects from {plan.effect_images:,} images, {plan.exact_images:,} of them "
        f"exactly; readouts fitted on {plan.readout_images:,} training images.{part}"
    )


# The networks


@checked_arguments()
def recipe(table: pd.DataFrame) -> "Styler":
    """Both trainings' settings side by side."""
    return table.style.format(_setting)


@checked_arguments()
def are_matched(matched: bool, trainings: Mapping[str, Mapping[str, object]]) -> str:
    """Whether the two trainings differ in their figures alone."""
    told = (
        "The two trainings are **matched**: every row agrees."
        if matched
        else "**The two trainings are not matched**: rows differ, and the networks may differ for that reason. "
        "`-p bare_adapter=train` trains the second one as the first was trained."
    )
    precisions = {f"*{name}*": trainings[name]["precision"] for name in ("fine-tuned", "bare")}
    if len(set(precisions.values())) == 1:
        return told
    return (
        f"{told} They were not computed in the same precision, which the table leaves out. "
        f"{named(precisions, between='; ', join=': ')}."
    )


@checked_arguments()
def scores(table: pd.DataFrame) -> pd.DataFrame:
    """Correlations with their intervals in words: a row per network and kind of figures, a column per target."""
    text = [f"{Interval(row.r, row.low, row.high):.3f}" for row in table.itertuples()]
    shown = table.assign(text=text).pivot(index=["network", "figures"], columns="target", values="text")
    shown = shown[list(LABEL_NAMES)].rename(columns=plain).rename_axis(columns=None)
    return shown.loc[list(dict.fromkeys(table["network"]))]


@checked_arguments()
def scores_text(mean_r: pd.Series, images: int) -> str:
    """How well the networks do their task; `mean_r` has the correlation by network and figures."""
    return (
        f"Pearson correlations with 95 % intervals, {images:,} images. Averaged over the targets, the bare network "
        f"reaches {mean_r['bare', 'bare']:.3f} on the figures it knows and {mean_r['bare', 'decorated']:.3f} on "
        f"decorated ones, the fine-tuned network {mean_r['fine-tuned', 'decorated']:.3f} on its own and "
        f"{mean_r['fine-tuned', 'bare']:.3f} on bare ones; a readout of the pre-trained backbone, "
        f"{mean_r['pre-trained', 'decorated']:.3f}."
    )


def _setting(value: float) -> str:
    """A number as a recipe has it: whole ones in full, others with three digits."""
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:.3g}"


# Classes and fates


@checked_arguments()
def by_chance(moves: pd.DataFrame) -> str:
    """How many heads change what they are about although nothing has changed but the images."""
    other = moves["subject_before"] != moves["subject_after"]
    return (
        f"**By chance alone**, the pre-trained network on other images: {int(other.sum())} of {len(moves)} heads are "
        f"about something else, {int((other & moves['sure']).sum())} of them for sure."
    )


@checked_arguments()
def crossed(moves: pd.DataFrame, after: str) -> pd.DataFrame:
    """Heads by their class in the pre-trained network (rows) and in the network `after` (columns)."""
    return pd.crosstab(
        moves["class_before"], moves["class_after"], rownames=["pre-trained"], colnames=[after]
    )


@checked_arguments()
def fates(became: Mapping[str, pd.DataFrame]) -> "Figure":
    """What became of the pre-trained heads: a panel of `fate_bars` per network."""
    figure, axes = plt.subplots(1, 2, figsize=(WIDE, 3.4), sharex=True, sharey=True)
    for ax, (name, table) in zip(axes, became.items(), strict=True):
        fate_bars(ax, table)
        seen = table[table["subject"].isin(["text", "edge", "colour bar"])]
        ax.set_title(
            f"{name}: decorations kept {seen['kept'].sum()} of {seen['before'].sum()} times",
            fontsize=9,
        )
    axes[0].set_ylabel("what heads are about\n(each counts for all of it)")
    handles, labels = axes[0].get_legend_handles_labels()
    pale = plt.Rectangle((0, 0), 1, 1, color="#444444", alpha=0.4)
    figure.legend([*handles, pale], [*labels, "pale: not sure"], loc="outside lower center", ncols=4)
    return figure


@checked_arguments()
def fates_text(became: Mapping[str, pd.DataFrame]) -> str:
    """A line on what became of the heads about each subject."""
    tables = {name: table.set_index("subject") for name, table in became.items()}

    def line(subject: str) -> str:
        one, other = (tables[name].loc[subject] for name in ("fine-tuned", "bare"))
        return (
            f"**{subject}**: {one['before']} heads before any spectrogram was seen. Fine-tuning on decorated figures "
            f"keeps {one['kept']}, loses {one['vanished']}, adds {one['appeared']}; on bare figures it keeps "
            f"{other['kept']}, loses {other['vanished']}, adds {other['appeared']}."
        )

    return bullets(map(line, ("text", "edge", "colour bar", "chirp")))


# How far attention moved


@checked_arguments()
def lift_changes(changes: Mapping[str, pd.DataFrame], regions: Sequence[str]) -> "Figure":
    """Doublings of every head's lift on each region, a panel per network, dots coloured by layer, the median as a line.

    Each table is one of `heads.origin.lift_changes`; under a region stands how many changes are clear (q-value below
    0.05).
    """
    figure, axes = plt.subplots(1, len(changes), figsize=(WIDE, 4.6), squeeze=False, sharey=True)
    dots = None
    for ax, (name, table) in zip(axes[0], changes.items(), strict=True):
        labels = []
        for place, region in enumerate(regions):
            part = table[table["region"] == region].sort_values(["layer", "head"])
            # Side by side from the first layer to the last, so that no dot hides another.
            across = place + np.linspace(-0.36, 0.36, len(part))
            dots = ax.scatter(across, part["doublings"], c=part["layer"] + 1, cmap="viridis", s=12)
            ax.hlines(part["doublings"].median(), place - 0.42, place + 0.42, color="#D55E00", linewidth=1.6)
            clear = int((part["q_value"] < 0.05).sum())
            labels.append(f"{SHORT_REGIONS.get(region, region)}\n{clear}")
        ax.axhline(0, color="#444444", linewidth=0.8)
        ax.set_xticks(range(len(regions)), labels, fontsize=9)
        chirp = 2 ** table[table["region"] == "chirp"]["doublings"].median()
        ax.set_title(f"{name}: median head on the chirp x {chirp:.1f}", fontsize=10)
        ax.set_xlabel("region; clear changes among its heads")
    axes[0, 0].set_ylabel("lift: doublings against pre-trained")
    if dots is not None:
        figure.colorbar(dots, ax=axes, label="layer", location="bottom", shrink=0.5, aspect=40)
    return figure


@checked_arguments()
def changes_text(changes: Mapping[str, pd.DataFrame], agree: Interval) -> str:
    """How the median head's lifts changed, and how far both networks `agree`."""
    middle = {
        name: table.groupby("region")["doublings"].median()[list(COMPARED)] for name, table in changes.items()
    }
    away = {name: values.drop("chirp").idxmin() for name, values in middle.items()}
    return (
        "Heads whose lift on a region clearly changed, in either direction. The median head looks at the chirp "
        f"{2 ** middle['fine-tuned']['chirp']:.1f} times as much after fine-tuning, "
        f"{2 ** middle['bare']['chirp']:.1f} times in the bare network, and turns away most from: "
        f"{away['fine-tuned']} (decorated), {away['bare']} (bare). Over all heads and regions, the two networks' "
        f"changes have a rank correlation of {agree:.2f}. Both are changes from the same pre-trained network, which "
        "alone makes them alike to some degree."
    )


# Updates and effects


@checked_arguments()
def updates(tables: Mapping[str, pd.DataFrame], links: pd.DataFrame) -> "Figure":
    """Size of each head's update against what changed, a column per network; `links` are the rank correlations."""
    names = {
        "change": "mean change of lift (doublings)",
        "effect": "change of effect (% points)",
    }
    figure, axes = plt.subplots(2, 2, figsize=(WIDE, 6.0), sharex=True, sharey="row")
    for place, (name, table) in enumerate(tables.items()):
        for ax, (what, label) in zip(axes[:, place], names.items(), strict=True):
            found = links[(links["network"] == name) & (links["against"] == what)].iloc[0]
            dots = ax.scatter(table["relative"], table[what], c=table["layer"] + 1, cmap="viridis", s=18)
            ax.set_title(
                f"{name}: {Interval(found['correlation'], found['low'], found['high']):.2f}", fontsize=10
            )
            if what == "effect":
                ax.set_xlabel("update norm / weight norm")
            if place == 0:
                ax.set_ylabel(label, fontsize=9)
    axes[1, 0].set_ylim(
        -0.4, 1.6 * max(float(table["effect"].max()) for table in tables.values())
    )  # sizes alone
    percent_scale(axes[1, 0])
    headline(figure, "Size of a head's update against what changed: rank correlations over heads")
    figure.colorbar(dots, ax=axes, label="layer", location="bottom", shrink=0.5, aspect=40)
    return figure


@checked_arguments()
def effects(tables: Mapping[str, pd.DataFrame], shared: Mapping[str, Interval]) -> "Figure":
    """Effects in the fine-tuned network against those in the networks of `shared`, their rank correlations."""
    figure, axes = plt.subplots(1, 2, figsize=(WIDE, 4.6))
    every = pd.concat([tables[name]["effect"] for name in ("fine-tuned", *shared)])
    ends = min(-4.0, 2 * float(every.min())), max(4.0, 2 * float(every.max()))
    for ax, (name, found) in zip(axes, shared.items(), strict=True):
        effect_scatter(ax, tables[name]["effect"], tables["fine-tuned"]["effect"], head_names(tables[name]))
        ax.set(xlim=ends, ylim=ends)
        percent_scale(ax, "xy", linear=10.0)
        ax.set(xlabel=f"effect in {name} (%)", ylabel="effect in fine-tuned (%)")
        ax.set_title(f"{name}: rank correlation {found:.2f}", fontsize=10)
    return figure


@checked_arguments()
def effects_text(
    tables: Mapping[str, pd.DataFrame],
    shared: Mapping[str, Interval],
    moves: pd.DataFrame,
    images: int,
) -> str:
    """Whether heads of one network matter in the other; `moves` lead from the pre-trained to the fine-tuned one."""
    on_chirp = about(moves["regions_after"], "chirp")
    on_decoration = sum(about(moves["regions_after"], name) for name in ("text", "edge", "colour bar")) > 0
    decorations = moves[on_decoration & ~on_chirp][HEAD].merge(tables["fine-tuned"], on=HEAD)
    chirps = moves[on_chirp & ~on_decoration][HEAD].merge(tables["fine-tuned"], on=HEAD)
    if not (len(decorations) and len(chirps)):
        return "In this run no head is about a decoration, or none about the chirp, so there is nothing to compare."
    errors = {name: float(table["baseline_mse"].iloc[0]) for name, table in tables.items()}
    return (
        f"On {images:,} images, effects in the fine-tuned network have a rank correlation of "
        f"{shared['pre-trained']:.2f} with those in the pre-trained one and of {shared['bare']:.2f} with those in the "
        f"bare one (95 % intervals over heads). The {len(decorations)} heads of the fine-tuned network that are about "
        f"decorations and not about the chirp change its error by {decorations['effect'].median():+.1f} % in the "
        f"median, the {len(chirps)} heads about the chirp and no decoration by {chirps['effect'].median():+.1f} %. The "
        f"percentages "
        f"divide by each network's own loss: {named(errors, '.3f')} (fine-tuned and bare on all held-out figures "
        "of the "
        "kind that each was trained on, pre-trained on these images). So compare ranks between networks, not sizes. "
        "Nor do the two medians say what the chirp does: heads on the chirp lie deeper, and depth alone can make "
        "such a difference."
    )


# Controls and verdict


@checked_arguments()
def untrained_text(classes: Mapping[str, pd.DataFrame], mean_r: pd.Series) -> str:
    """How many heads of random weights are about something, and how well their network reads the chirp."""
    counts = {name: int((subjects(table) != "nothing").sum()) for name, table in classes.items()}
    trained = ", ".join(f"{counts[name]} ({name})" for name in TRAINED)
    return (
        f"{counts['untrained']} of {len(classes['untrained'])} heads of the untrained network are about something; in "
        f"the trained ones {trained}. The untrained network reads the chirp with a mean correlation of "
        f"{mean_r['untrained', 'decorated']:.2f}."
    )


@checked_arguments()
def classes(tables: Mapping[str, pd.DataFrame]) -> "Figure":
    """Every head's class in each network."""
    return class_grids(tables)


@checked_arguments()
def verdict(
    judged: Mapping[str, Judgement],
    counts: Mapping[str, Count],
    bare: pd.DataFrame,
    matched: bool,
) -> str:
    """The claims with their counts, verdicts and reasons, and what was surprising in the fates on `bare` figures."""
    claimed = {
        "C7": f"fine-tuning drives the specialization: {counts['C7']} heads that are about something were not about "
        "it before",
        "Q3": "text and edge detectors are inherited",
        "Q4": "they need no decorations",
    }
    if counts["Q3"].total:
        claimed["Q3"] += f": {counts['Q3']} detectors of layers 1-4 were there before fine-tuning"
    if counts["Q4"].total:
        claimed["Q4"] += f": {counts['Q4']} of them are in the bare network too"
    on_decorations = bare.set_index("subject").loc[["text", "edge", "colour bar"]]
    surprise = on_decorations["kept"].idxmax()
    row = on_decorations.loc[surprise]
    return (
        f"{BRACKETS.capitalize()}.\n\n{judgement_list(judged, claimed)}\n\n"
        f"A network that saw no decoration in fine-tuning keeps {row['kept']} of the "
        f"{row['before']} {surprise} heads that pre-training had made."
        + ("" if matched else "\n\nThe two trainings are not matched, so the fourth question stays open.")
    )


@checked_arguments()
def what_you_know(
    counts: Mapping[str, Count], judged: Mapping[str, Judgement], links: pd.DataFrame, verdicts: pd.DataFrame
) -> str:
    """The chapter in three sentences; `links` says how an update's size goes with what changed.

    `judged` are the verdicts on this training, `verdicts` is the `verdicts_table` of all trainings.
    """
    trainings = over_all(verdicts)
    said = {claim: both_verdicts(found, trainings[claim]) for claim, found in judged.items()}
    rows = links[links["network"] == "fine-tuned"].set_index("against")
    change, effect = (
        Interval(*rows.loc[name, ["correlation", "low", "high"]]) for name in ("change", "effect")
    )
    detectors = (
        f"{counts['Q3']} text and edge detectors of layers 1-4 were there before fine-tuning, and {counts['Q4']} are "
        f"there in a network that never saw a decoration"
        if counts["Q3"].total
        else "After fine-tuning no head of layers 1-4 is monosemantic about text or an edge, so that by the rule there "
        "is no detector that could have been inherited"
    )
    return three_sentences(
        f"{counts['C7']} heads that are about something were not about it before fine-tuning ({BRACKETS}, over all "
        f"reasonable thresholds); verdict "
        f"on C7, fine-tuning drives the specialization: {said['C7']}.",
        f"{detectors}; verdicts: Q3 {said['Q3']}, Q4 {said['Q4']}.",
        f"The size of a head's update and the change of its attention have a rank correlation of {change:+.2f} over "
        f"heads; with the change of its effect it is {effect:+.2f} (both go with depth).",
    )


@checked_arguments()
def fate_bars(ax: "Axes", table: pd.DataFrame) -> None:
    """Stack what became of the heads of each subject: vanished to the left of zero; kept and appeared to the right.

    `table` is one of `heads.origin.fates`. Solid parts are heads whose classes are sure both times.
    """
    places = np.arange(len(table))[::-1]
    starts = {"vanished": -table["vanished"], "kept": 0 * table["kept"], "appeared": table["kept"]}
    for fate, colour in FATES.items():
        counts, sure = table[fate].to_numpy(), table[f"{fate}_sure"].to_numpy()
        start = starts[fate].to_numpy()
        solid = start + (counts - sure if fate == "vanished" else 0)
        ax.barh(places, counts, left=start, color=colour, alpha=0.4)
        ax.barh(places, sure, left=solid, color=colour, label=fate)
    for fate in FATES:
        for place, count, left in zip(places, table[fate], starts[fate], strict=True):
            _count(ax, fate, place, int(count), float(left))
    ax.axvline(0, color="#444444", linewidth=0.8)
    ax.use_sticky_edges = False
    ax.margins(x=0.06)
    ax.set_yticks(places, table["subject"])
    ax.xaxis.set_major_locator(plt.MaxNLocator(integer=True))
    ax.xaxis.set_major_formatter(lambda value, _: f"{abs(value):g}")
    ax.set_xlabel("heads")


def _count(ax: "Axes", fate: str, place: float, count: int, left: float) -> None:
    """Write how many heads a bar stands for, above it where it is too narrow to hold the number."""
    if count >= 3:
        halo = [withStroke(linewidth=2.5, foreground="white", alpha=0.8)]
        ax.text(left + count / 2, place, str(count), ha="center", va="center", fontsize=8, path_effects=halo)
    elif count:
        # Away from each other, so that the numbers of two narrow bars side by side stay two numbers.
        at, side = {"kept": (left + count - 0.2, "right"), "appeared": (left + 0.2, "left")}.get(
            fate, (left + count / 2, "center")
        )
        ax.text(at, place + 0.42, str(count), ha=side, va="bottom", fontsize=7.5)
