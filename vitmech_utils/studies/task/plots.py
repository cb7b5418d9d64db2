"""Figures and texts on another task: what a picture and a title say, which heads read it, where the weight lies."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from vitmech_utils.arguments import checked_arguments
from vitmech_utils.data.sweep_labels import TARGETS, TITLES, SweepDataset
from vitmech_utils.figures.marks import excludes_zero, head_names, interval_forest, name_largest, reach
from vitmech_utils.figures.plots import WIDE, WIDTH, headline, heatmap
from vitmech_utils.figures.tables import (
    bullets,
    counted,
    frame_table,
    interval,
    listed,
    named,
    pipe_table,
    rule_text,
    three_sentences,
    word,
)
from vitmech_utils.heads.effects import ALL
from vitmech_utils.model.scores import wilson
from vitmech_utils.statistics import Interval
from vitmech_utils.studies.task.judge import specialization_is_of_the_architecture
from vitmech_utils.studies.task.measure import (
    ASKED,
    BENDS,
    FIGURES,
    FIRST,
    KINDS,
    LIE,
    LIE_BEYOND_CLEAN,
    LIE_BEYOND_DIRECTION,
    TYPE,
    Chirps,
    Judged,
    Right,
    asked_of,
    bounds,
    first_heads,
    heads_of,
    random_of,
)
from vitmech_utils.studies.verdicts import FALSE_DISCOVERIES, HALF, MOST, NONE, Judgement

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from vitmech_utils.profiles import Profile

MODELS: dict[str, tuple[str, str]] = {
    "leak": ("#D55E00", "o"),
    "clean": ("#0072B2", "s"),
    "regressor": ("#009E73", "D"),
}
"""Colour and marker per model."""
SETS: dict[str, tuple[str, str]] = {
    "lookers": ("#D55E00", "o"),
    random_of("lookers"): ("#888888", "^"),
    "carriers": ("#CC79A7", "D"),
    random_of("carriers"): ("#888888", "v"),
}
"""Colour and marker per set of heads."""
WIDEST = 2.0
"""How wide the interval of a share may be that is told: orders share between -1 and 1 of a model's own."""
TARGET_LINES = {"type": "-", "direction": "--", "all": "-"}
NETWORKS = {
    key: "regressor: all three targets" if key[0] == "regressor" else f"{key[0]} model: {key[1]}"
    for key in ASKED
}
"""Each network with its question, in words."""


# What the chapter shows, in its order


@checked_arguments()
def opening(profile: "Profile") -> str:
    """What this page was made with."""
    plan = profile.task
    trained = (
        "two classifiers that were trained beforehand, which this page only rehearses"
        if profile.classifiers == "published"
        else f"{counted(plan.steps, 'training step')} of {plan.batch_size} images for each of two classifiers"
    )
    swept = "all heads" if plan.sweep_every == 1 else f"the heads of one layer in {plan.sweep_every}"
    return (
        f"This page was made with profile **{profile.name}**: {trained}, {plan.images:,} held-out images, carriers "
        f"sought on {min(plan.sweep_images, plan.images - plan.images // 2):,} of them, sweeps of {swept} on "
        f"{plan.effect_images:,} held-out images ({plan.exact_images:,} exactly), {plan.random_sets:,} random sets of "
        f"heads; heads' means are those of {max(4, plan.sweep_images):,} training figures. Few images make wide "
        "intervals."
    )


@checked_arguments()
def twins(chosen: Sequence[int], chirps: Chirps) -> "Figure":
    """Some held-out chirps, with the title as published and without any."""
    rows = {}
    for words, title in (("title as published", "published"), ("no title", "none")):
        figures = SweepDataset(FIRST + len(chirps.bends), title, seed=0, split="held-out")
        rows[words] = [figures[FIRST + index]["pixel_values"].permute(1, 2, 0).numpy() for index in chosen]
    return twin_figures(rows, [f"bend: {chirps.bends[index]:.1f} rows" for index in chosen])


@checked_arguments()
def bends(population: np.ndarray) -> "Figure":
    """How far the paths of the two types lie apart."""
    figure, ax = plt.subplots(figsize=(WIDTH, 3.0))
    bend_histogram(ax, population, 1.0)
    ax.set_title(f"For {float((population < 1).mean()):.0%} of chirps both types paint much the same picture")
    return figure


@checked_arguments()
def training_text(this_run: Mapping[str, dict], shown: Mapping[str, dict]) -> str:
    """How long this run trained, and where the classifiers come from that the page shows."""
    record, published = this_run["leak"], shown["leak"]
    text = (
        f"{record['steps']:,} steps of {record['batch_size']} images for each classifier took "
        f"{_seconds(this_run):,.0f} s in all on {record['device'].upper()}."
    )
    if shown is not this_run:
        text += (
            f" That is a rehearsal: it shows that training runs. **From here on this page shows the published "
            f"classifiers**, trained with profile {published['profile']} for {published['steps']:,} steps of "
            f"{published['batch_size']} images each, in {_seconds(shown) / 60:,.0f} minutes together."
        )
    return text


@checked_arguments()
def learning(records: Mapping[str, dict]) -> "Figure":
    """The trainings' courses."""
    return learning_curves({name: pd.DataFrame(one["history"]) for name, one in records.items()}, TARGETS)


@checked_arguments()
def scores_table(table: pd.DataFrame) -> str:
    """How well each classifier answers under its own title."""
    columns = {
        "model": "model",
        "target": "target",
        "accuracy": ("accuracy", lambda row: interval(row, ".0%", "accuracy")),
        "cross_entropy": ("cross-entropy (nats)", ".3f"),
        "images": "images",
    }
    return frame_table(table, columns)


@checked_arguments()
def titles(table: pd.DataFrame, follows: Mapping[str, Interval]) -> "Figure":
    """Accuracy of both classifiers under every title."""
    return headline(
        accuracies(table, TITLES, TARGETS),
        f"Where the title lies, the leak model follows it in {follows['leak'].value:.0%} of its answers on the type, "
        f"the clean one in {follows['clean'].value:.0%}",
    )


@checked_arguments()
def titles_table(table: pd.DataFrame, falls: Mapping[str, Interval], follows: Mapping[str, Interval]) -> str:
    """Accuracy under every title, and what the lie takes from it."""
    columns = [(name, target) for name in FIGURES for target in TARGETS]
    cells, images = table.set_index(["title", "model", "target"]), table["images"].iloc[0]
    rows = [
        [title, *(interval(cells.loc[(title, *key)], ".0%", "accuracy") for key in columns), images]
        for title in TITLES
    ]
    heads = ["title", *(f"{name}: {target}" for name, target in columns), "images"]
    return (
        f"{pipe_table(heads, rows)}\n\nThe lie takes {falls[LIE]:.2f} from the leak model's accuracy on the type; "
        f"{falls[LIE_BEYOND_DIRECTION]:.2f} more than from that on the direction, and {falls[LIE_BEYOND_CLEAN]:.2f} "
        f"more than from the clean model's on the type (differences of shares, paired 95 % intervals over "
        f"{images} images; where all images say the same, the interval has no width, and those of the shares "
        f"tell more). When the title lies, the answer on the type follows it in {follows['leak']:.2f} of the "
        f"leak model's answers and {follows['clean']:.2f} of the clean model's."
    )


@checked_arguments()
def by_bend(table: pd.DataFrame) -> "Figure":
    """Accuracy on the type by bend."""
    figure, ax = plt.subplots(figsize=(WIDTH, 3.4))
    accuracy_by_bend(ax, table, list(BENDS))
    counts, clean = (
        table[table["model"] == name].set_index("bin").reindex(BENDS) for name in ("leak", "clean")
    )
    ax.set_xticks(
        range(len(BENDS)), [f"{name}\n({row.images:.0f} images)" for name, row in counts.iterrows()]
    )
    ax.set_title(
        f"Without the leak the type is read in {clean['accuracy'].iloc[0]:.0%} where paths lie close, in "
        f"{clean['accuracy'].iloc[-1]:.0%} where far apart",
        pad=26,
    )
    return figure


@checked_arguments()
def looking(table: pd.DataFrame, chosen: Mapping[str, pd.DataFrame]) -> "Figure":
    """How much of the lie each head carries against its lift on the title."""
    figure, ax = plt.subplots(figsize=(WIDTH, 3.6))
    by_lift(ax, table, head_names(table), "way", "part of the lie that it carries alone")
    lookers, carriers = (set(heads_of(chosen[kind])) for kind in KINDS)
    ax.set_title(
        f"Of {len(lookers)} lookers and {len(carriers)} carriers, {len(lookers & carriers)} "
        f"{word(len(lookers & carriers), 'is', 'are')} both"
    )
    return figure


@checked_arguments()
def reading_sets(table: pd.DataFrame, beyond: Mapping[tuple, Interval]) -> "Figure":
    """What the heads that read the title do when they are ablated together."""
    more = {kind: beyond[kind, "leak", "type"].value for kind in KINDS}
    return headline(
        set_effects(table),
        f"Loss on the type beyond random heads: {more['carriers']:+.2f} nats without the carriers, "
        f"{more['lookers']:+.2f} without the lookers",
    )


@checked_arguments()
def reading_sets_table(
    table: pd.DataFrame,
    beyond: Mapping[tuple, Interval],
    chosen: Mapping[str, pd.DataFrame],
    random_sets: int,
) -> str:
    """The heads that read the title, and what ablating them does to each question and model."""
    columns = {
        "model": "model",
        "target": "target",
        "kind": "ablated",
        "effect": ("change (nats)", interval),
        "images": "images",
    }

    def heads(kind: str, value: str, spec: str) -> str:
        rows = chosen[kind]
        return listed(
            f"{head} ({found:{spec}})" for head, found in zip(head_names(rows), rows[value], strict=True)
        )

    def more(name: str, target: str) -> str:
        return named({kind: beyond[kind, name, target] for kind in KINDS}, "+.2f", "; ")

    lookers = chosen["lookers"]["layer"].value_counts()
    only = chosen["carriers"].merge(chosen["lookers"][["layer", "head"]], how="left", indicator=True)
    beside = only[(only["_merge"] == "left_only") & (only["layer"].map(lookers).fillna(0) > 1)]
    shared = (
        f" The lookers' control is a harsh one: {listed(head_names(beside), ' and ')}, "
        f"{word(len(beside), 'a carrier', 'carriers')} but no {word(len(beside), 'looker', 'lookers')}, "
        f"{word(len(beside), 'lies', 'lie')} in a layer with several lookers, so that random heads of these layers "
        "often hold what carries the word."
        if len(beside)
        else ""
    )

    return (
        f"**Lookers** of the leak model, with their lift on the title: {heads('lookers', 'lift', '.1f')}.\n\n"
        f"**Carriers**, with the part of the lie that each carries alone: {heads('carriers', 'way', '.0%')}.\n\n"
        f"{frame_table(table, columns)}\n\nMore than random heads of the same layers, on the type, in the leak "
        f"model: "
        f"{more('leak', 'type')}; on the direction: {more('leak', 'direction')}; in the clean model, on the type: "
        f"{more('clean', 'type')}. Random sets of each: {random_sets}.{shared}"
    )


@checked_arguments()
def patching(table: pd.DataFrame, through: Mapping[str, Interval], pulls: Interval) -> "Figure":
    """Which answers follow the lie, by which heads see it."""
    figure, ax = plt.subplots(figsize=(WIDTH, 3.1))
    follow_forest(ax, table)
    return headline(
        figure,
        f"The lie moves the logit {through['carriers'].value:.0%} of the way through the carriers alone, "
        f"{through['lookers'].value:.0%} through the lookers"
        if pulls.low > 0
        else "The lie does not clearly move the answer on the type at all",
    )


@checked_arguments()
def patching_table(
    table: pd.DataFrame, through: Mapping[str, Interval], more: Mapping[str, Interval], pulls: Interval
) -> str:
    """How far the lie comes through each kind of heads."""

    def way(row: pd.Series) -> str:
        return f"{through[row['what']]:.2f}" if row["what"] in through and pulls.low > 0 else ""

    columns = {
        "what": "what sees the lie",
        "share": ("answers that follow it", lambda row: interval(row, ".2f", "share")),
        "way": ("part of the way", way),
        "images": "images",
    }
    beyond = listed((f"the {kind}: {found:+.2f}" for kind, found in more.items()), " and ")
    return (
        f"{frame_table(table, columns)}\n\nMore of the answers than through random heads of the same layers follow "
        f"through {beyond} (differences of shares, paired 95 % intervals). The lie moves the logit by {pulls:+.2f} "
        f"its "
        "own way."
    )


@checked_arguments()
def effects(table: pd.DataFrame) -> "Figure":
    """The effect of every head on each question, in a grid for each network."""
    grids = {NETWORKS[key]: asked_of(table, *key) for key in ASKED}
    errors = NETWORKS["regressor", ALL]
    grids[errors]["effect"] *= 100 / grids[errors]["baseline_loss"]
    units = {title: "effect on the MSE (%)" if title == errors else "effect (nats)" for title in grids}
    tops = {title: found.loc[found["effect"].idxmax()] for title, found in grids.items()}
    strongest = listed(f"L{row['layer'] + 1}H{row['head'] + 1}" for row in tops.values())
    return headline(
        effect_grids(grids, units), f"The strongest heads are {strongest}; each panel on its own scale"
    )


@checked_arguments()
def effects_table(table: pd.DataFrame) -> str:
    """How many heads have a clear effect on each question, and the strongest."""
    rows = []
    for key, title in NETWORKS.items():
        found = asked_of(table, *key)
        clear = int(((found["q_value"] < FALSE_DISCOVERIES) & excludes_zero(found)).sum())
        first = found.nlargest(3, "effect")
        strongest = listed(
            (
                f"{head} {interval(row, '+.3f')}, q = {row.q_value:.3f}"
                for head, row in zip(head_names(first), first.itertuples(), strict=True)
            ),
            "; ",
        )
        loss, images = found[["baseline_loss", "images"]].iloc[0]
        rows.append([title, f"{loss:.3f}", f"{clear} of {len(found)}", strongest, f"{images:.0f}"])
    heads = ["model and question", "loss with all heads", "clear effects", "strongest heads", "images"]
    return (
        f"{pipe_table(heads, rows)}\n\nEffects in nats (classifiers) or as a change of the MSE (regressor), paired "
        "95 % intervals over images; q adjusts for the number of heads, and an effect is clear below "
        f"{FALSE_DISCOVERIES:g} if its interval excludes zero."
    )


@checked_arguments()
def lift_and_effect(table: pd.DataFrame, harm: Mapping[str, Mapping[str, float]]) -> "Figure":
    """Each head's effect on the type against its lift on the title."""
    figure, ax = plt.subplots(figsize=(WIDTH, 3.6))
    by_lift(ax, table, head_names(table), "effect", "effect on the type (nats)")
    ax.set_title(
        f"Of the harm to the type, carriers do {harm['carriers']['leak']:.0%}, lookers {harm['lookers']['leak']:.0%}"
        f"\n(in the clean model {harm['carriers']['clean']:.0%} and {harm['lookers']['clean']:.0%})"
    )
    return figure


@checked_arguments()
def layers(table: pd.DataFrame) -> "Figure":
    """Each layer's share of the harm, one panel for each network."""
    figure, axes = plt.subplots(3, 1, figsize=(WIDTH, 7.6), sharex=True, sharey=True)
    order = list(dict.fromkeys(table["model"]))
    tables = {key: asked_of(table, *key) for key in sorted(ASKED, key=lambda key: order.index(key[0]))}
    layer_shares(axes, tables)
    tops = {key: found["share"].idxmax() + 1 for key, found in tables.items()}
    first = listed(f"{tops[key]} ({NETWORKS[key].replace(' model', '')})" for key in ASKED[:2])
    return headline(
        figure, f"The largest share of the harm lies in layer {first}, {tops['regressor', ALL]} (regressor)"
    )


@checked_arguments()
def ceilings(table: pd.DataFrame) -> "Figure":
    """What a share of a ceiling is: agreement between two models, filled, within each model's with itself, "
    "outlined."""
    rows = table.reset_index(drop=True)
    figure, ax = plt.subplots(figsize=(WIDE, 0.42 * len(rows) + 1.1))
    looks = {"effect": "#D55E00", "attention": "#0072B2"}
    for row in rows.itertuples():
        ceiling = max(row.ceiling, 0) if row.ceiling == row.ceiling else 0
        ax.barh(row.Index, ceiling, color="none", edgecolor="#444444", linestyle="--")
        ax.barh(row.Index, row.between, height=0.5, color=looks[row.quantity])
        share = "share unknown" if row.share != row.share else f"share {row.share:.2f}"
        ax.text(max(ceiling, row.between, 0) + 0.02, row.Index, share, va="center", fontsize=9)
    ax.set_yticks(
        range(len(rows)), [f"{row.what}\nby {row.quantity}" for row in rows.itertuples()], fontsize=8
    )
    ax.invert_yaxis()
    ax.axvline(0, color="#444444", linewidth=0.8)
    ax.set(
        xlabel="rank correlation between halves of the images",
        xlim=(min(-0.1, rows["between"].min() - 0.05), 1.25),
    )
    ax.set_title("Filled: between the two; dashed: a model with itself; their ratio is the share")
    return figure


@checked_arguments()
def orders(table: pd.DataFrame) -> "Figure":
    """How much of their order of heads two networks or questions share."""
    figure, ax = plt.subplots(figsize=(WIDTH, 3.4))
    order_forest(ax, table, (HALF, MOST))
    first = table.iloc[0]
    found = Interval(
        first["share"], first["share_low"] if "share_low" in first else first["low"], first["high"]
    )
    low = first.get("ceiling_low", 1.0)
    headline(
        figure,
        f"Two tasks share {found:.2f} of their order of heads by {first['quantity']}"
        if low > NONE
        else f"What two tasks share by {first['quantity']} is unknown: a model hardly keeps its own order",
    )
    names = [label.get_text().replace(": ", ":\n") for label in ax.get_yticklabels()]
    ax.set_yticks(ax.get_yticks(), names)
    return figure


@checked_arguments()
def orders_table(table: pd.DataFrame, as_they_are: Interval, permuted: pd.DataFrame) -> str:
    """The rank correlations behind the shares, and what permuted heads leave of them."""

    def found(value: str, ends: str) -> Any:
        return lambda row: f"{Interval(row[value], row[f'{ends}low'], row[f'{ends}high']):.2f}"

    columns = {
        "what": "compared",
        "quantity": "order of heads by",
        "between": ("rank correlation between halves", found("between", "between_")),
        "ceiling": ("ceiling", found("ceiling", "ceiling_")),
        "share": ("share", found("share", "")),
        "images": "images",
    }
    within, among = (
        bounds(permuted[permuted["moved"] == moved], "quantity") for moved in ("within layers", "among all")
    )
    listing = frame_table(table, columns)
    return (
        f"{listing}\n\nRank correlations over {table['heads'].iloc[0]} heads, 95 % intervals over heads. Regressor "
        f"against clean model with all images: by effect {as_they_are:.2f}. With heads that change places within "
        f"their "
        f"layers {within['effect']:.2f} is left by effect and {within['attention']:.2f} by attention; among all "
        f"heads "
        f"{among['effect']:.2f} and {among['attention']:.2f} (mean and 95 % range)."
    )


@checked_arguments()
def surprises(
    against: pd.DataFrame,
    effects: pd.DataFrame,
    right: Right,
    through: Mapping[str, Interval],
    pulls: Interval,
    chirps: Chirps,
) -> list[str]:
    """Findings in words, that which lies farthest from what one would have expected first."""
    ten = min(10, len(against) // 7)
    top_type, found = first_heads(effects, "leak", "type", ten), {}
    for kind in KINDS:
        if readers := set(against.index[against["kind"].str.contains(kind)]):
            shared = len(top_type & readers)
            found[
                f"of the {len(readers)} {kind}, {shared} {word(shared, 'is', 'are')} among the {ten} heads on which "
                "the leak model's answer on the type depends most (expected: all)"
            ] = 1 - shared / min(ten, len(readers))
            if pulls.low > 0:
                found[
                    f"through the {kind} alone the lying title moves the leak model's logit "
                    f"{through[kind].value:.0%} "
                    "of the way that it moves it through the whole model (expected: all of it)"
                ] = abs(1 - through[kind].value)
    own, other = (right["leak", title][:, TYPE].mean() for title in ("published", "other number"))
    found[
        f"under another number the leak model tells {other:.0%} of the types, under the sample's own {own:.0%} "
        "(expected: the same; the number is not the type)"
    ] = abs(other - own)
    by_chance = ten * ten / len(against)
    tasks = len(first_heads(effects, "regressor", ALL, ten) & first_heads(effects, "clean", ALL, ten))
    found[
        f"of the {ten} heads that the regressor needs most, {tasks} {word(tasks, 'is', 'are')} among the {ten} that "
        f"the clean classifier needs most (by chance: {by_chance:.1f}; the ceilings above say how well so few images "
        "order a model's own heads)"
    ] = abs(tasks - by_chance) / ten
    flat = chirps.bends < 1
    for name, expected in (("leak", 1.0), ("clean", 0.5)) if flat.any() else ():
        share = wilson(right[name, FIGURES[name]][flat, TYPE] == 1)
        found[
            f"where no picture can tell, the {name} model names the type right in {share:.2f} of "
            f"{int(flat.sum())} images (expected: {expected:g})"
        ] = abs(expected - share.value)
    return sorted(found, key=lambda text: -found[text])


@checked_arguments()
def surprise_text(found: Sequence[str]) -> str:
    """The findings, the most surprising first."""
    first, *others = found
    return f"**What was surprising**: {first}.\n\n{bullets(f'{text}.' for text in others)}"


def rule() -> str:
    """The rule in its own words, without the notes on what it reads."""
    return rule_text(specialization_is_of_the_architecture, 1)


@checked_arguments()
def verdict(judgement: Judgement, judged: Judged, images: int, sweep_images: int) -> str:
    """What the rule says of this run."""
    alike = listed(
        (
            f"by {name} the two tasks share {_share(found)}, two trainings {_share(judged.trainings[name])}"
            for name, found in judged.shared.items()
        ),
        "; ",
    )
    return (
        f"The planted shortcut, on {images} images: {named(judged.control, '+.2f', '; ', ': ')}. Of what a model "
        f"keeps "
        f"of its own order of heads ({sweep_images} images by effect, {images} by attention), "
        f"{alike}.\n\n"
        f"**Q5**, does the specialization belong to the architecture (*holds*) or to the task (*does not hold*): "
        f"**{judgement.words}**. Reason: {judgement.reason}."
    )


@checked_arguments()
def what_you_know(
    judgement: Judgement, judged: Judged, titles: pd.DataFrame, through: Mapping[str, Interval]
) -> str:
    """The chapter in three sentences; `through` is the part of the lie's way that kinds of heads carry."""
    rows = titles.set_index(["model", "title", "target"])
    true, lying = (
        Interval(*rows.loc[("leak", title, "type"), ["accuracy", "low", "high"]])
        for title in ("published", "swapped")
    )
    taken = "taken" if lying.high < true.low else "not shown to be taken"
    alike = "; ".join(
        f"by {name} the two tasks share {_share(found)} and two trainings for one question "
        f"{_share(judged.trainings[name])}"
        for name, found in judged.shared.items()
    )
    blurred = [name for name, found in judged.ceilings.items() if not found.low > NONE]
    if blurred:
        alike += (
            f" (by {listed(blurred, ' and ')} a model hardly keeps its own order, so that number says little)"
        )
    if judged.untuned:
        started = listed(f"{found:.2f}" for found in judged.untuned.values())
        alike += f"; with the untuned backbone a network shares {started} by attention"
    by_chance = [through[random_of(kind)] for kind in ("carriers", "lookers") if random_of(kind) in through]
    others = (
        f" (random heads of their layers: {listed(f'{found:.0%}' for found in by_chance)})"
        if by_chance
        else ""
    )
    return three_sentences(
        f"The planted shortcut is {taken}: the leak model tells the type of {true:.0%} of the figures under true "
        f"titles and "
        f"of {lying:.0%} under lying ones.",
        f"The few heads that carry the word move the answer {through['carriers']:.0%} of the way that the whole "
        f"model "
        f"moves it, those that look at the title {through['lookers']:.0%}{others}.",
        f"Of the order of heads that a model keeps on other images (1 is all of it), {alike}; verdict on Q5, "
        f"specialization belongs to the architecture and not to the task: {judgement.words}.",
    )


def _share(found: Interval) -> str:
    """A share of an order; unknown where its interval is wider than all that a share can be."""
    return f"{found:.2f}" if found.high - found.low < WIDEST else "an unknown part"


def _seconds(records: Mapping[str, dict]) -> float:
    return sum(record["wall_seconds"] for record in records.values())


# The marks


@checked_arguments()
def twin_figures(rows: Mapping[str, Sequence[np.ndarray]], names: Sequence[str]) -> "Figure":
    """Figures of the same chirps under each other: one row per title, named at its left, one named column per chirp.

    Images are [row, column, 3] float in [0, 1].
    """
    figure, axes = plt.subplots(len(rows), len(names), figsize=(WIDE, 2.45 * len(rows) + 0.2), squeeze=False)
    for line, (title, images) in zip(axes, rows.items(), strict=True):
        for ax, image in zip(line, images, strict=True):
            inked = np.flatnonzero(image.min((1, 2)) < 1)  # margins above and below need no room
            ax.imshow(image[inked[0] : inked[-1] + 1], interpolation="antialiased")
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set_visible(False)
        line[0].set_ylabel(title)
    for ax, name in zip(axes[0], names, strict=True):
        ax.set_title(name, loc="center")
    return figure


@checked_arguments()
def bend_histogram(ax: "Axes", bends: Sequence[float], limit: float) -> None:
    """How far the two types' paths lie apart, over chirps, in rows of the grid; left of `limit` no picture can "
    "tell."""
    bends = np.asarray(bends)
    edges = np.concatenate([[0.0], np.geomspace(0.1, max(bends.max(), 1.0) * 1.001, 25)])
    # On a logarithmic axis there is no zero: what lies below the first edge stands in the first bar.
    ax.hist(np.clip(bends, 0.1, None), bins=edges[1:], color="#0072B2", edgecolor="white", linewidth=0.4)
    ax.axvline(limit, color="#D55E00", linestyle="--", linewidth=1.4)
    ax.set_xscale("log")
    ticks = [tick for tick in (0.1, 0.3, 1, 3, 10, 30) if tick <= edges[-1]]
    ax.set_xticks(ticks, ["0.1 or less" if tick == 0.1 else f"{tick:g}" for tick in ticks])
    ax.minorticks_off()
    ax.set(xlabel="largest distance of both paths (rows of the grid)", ylabel="chirps")


@checked_arguments()
def learning_curves(histories: Mapping[str, pd.DataFrame], targets: Sequence[str]) -> "Figure":
    """Held-out loss (nats), and accuracy per target, against steps, for each model of `MODELS` in `histories`."""
    figure, axes = plt.subplots(1, 1 + len(targets), figsize=(WIDE, 3.1))
    for name, history in histories.items():
        colour, marker = MODELS[name]
        for ax, column in zip(axes, ("held_out_loss", *(f"accuracy_{t}" for t in targets)), strict=True):
            rows = history.dropna(subset=[column])
            ax.plot(rows["step"], rows[column], marker=marker, color=colour, markersize=5, label=name)
    axes[0].axhline(np.log(2), color="#444444", linestyle=":", linewidth=1)
    axes[0].set(xlabel="step", ylabel="cross-entropy (nats)", title="both targets", ylim=(0, None))
    for ax, target in zip(axes[1:], targets, strict=True):
        ax.axhline(0.5, color="#444444", linestyle=":", linewidth=1)
        ax.set(xlabel="step", ylabel="accuracy", title=target, ylim=(0, 1.03))
    axes[0].legend(loc="best")
    last = {name: history.dropna(subset=["accuracy_type"]).iloc[-1] for name, history in histories.items()}
    ends = ", ".join(f"{name} model {row['accuracy_type']:.0%}" for name, row in last.items())
    return headline(figure, f"Types told right in the end: {ends} (dotted: a toss of a coin)")


@checked_arguments()
def accuracies(table: pd.DataFrame, titles: Sequence[str], targets: Sequence[str]) -> "Figure":
    """Accuracy under each title, one panel per target: table has model, title, target, accuracy, low, high."""
    figure, axes = plt.subplots(1, len(targets), figsize=(WIDE, 0.55 * len(titles) + 1.1), sharey=True)
    for ax, target in zip(axes, targets, strict=True):
        rows = table[table["target"] == target]
        interval_forest(ax, rows, "title", value="accuracy", by="model", looks=MODELS, order=titles)
        ax.axvline(0.5, color="#444444", linestyle=":", linewidth=1)
        ax.set(xlim=(-0.03, 1.03), xlabel="accuracy", title=f"answers on the {target}")
    axes[0].legend(loc="lower left", bbox_to_anchor=(0.0, 1.08), ncols=2)
    return figure


@checked_arguments()
def accuracy_by_bend(ax: "Axes", table: pd.DataFrame, bins: Sequence[str]) -> None:
    """Accuracy on the type by how far the two types' paths lie apart: table has model, bin, accuracy, low, high."""
    for name, part in table.groupby("model", sort=False):
        colour, marker = MODELS[name]
        at = [bins.index(found) for found in part["bin"]]
        shift = -0.06 if name == "leak" else 0.06
        ax.errorbar(
            np.array(at) + shift, part["accuracy"], yerr=reach(part, "accuracy"), fmt=f"{marker}-",
            color=colour, capsize=2, elinewidth=1.2, label=name,
        )  # fmt: skip
    ax.axhline(0.5, color="#444444", linestyle=":", linewidth=1)
    ax.set_xticks(range(len(bins)), bins)
    ax.set(ylim=(-0.03, 1.03), ylabel="accuracy on the type", xlabel="rows between the two types' paths")
    ax.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=2)


@checked_arguments()
def set_effects(table: pd.DataFrame) -> "Figure":
    """What a set of heads does when it is ablated, beside random sets: one panel per model.

    `table` has model, target, kind (of `SETS`), effect, low, high (nats).
    """
    models, targets = (list(dict.fromkeys(table[column])) for column in ("model", "target"))
    figure, axes = plt.subplots(len(models), 1, figsize=(WIDTH, 1.9 * len(models) + 1.2), sharex=True)
    for ax, model in zip(axes, models, strict=True):
        interval_forest(ax, table[table["model"] == model], "target", by="kind", looks=SETS, order=targets)
        ax.axvline(0, color="#444444", linewidth=0.8)
        ax.set(title=f"in the {model} model")
    axes[-1].set_xlabel("change of the cross-entropy (nats)")
    axes[0].legend(loc="lower left", bbox_to_anchor=(-0.1, 1.14), ncols=2, columnspacing=1.0)
    return figure


@checked_arguments()
def follow_forest(ax: "Axes", table: pd.DataFrame) -> None:
    """The share of answers that follow the lying title: table has what, share, low, high and patched (bool)."""
    looks = {True: ("#D55E00", "o"), False: ("#888888", "o")}
    interval_forest(ax, table, "what", value="share", by="patched", looks=looks, apart=0)
    ax.set(xlim=(-0.03, 1.03), xlabel="share of answers that follow the lying title")


@checked_arguments()
def by_lift(ax: "Axes", table: pd.DataFrame, names: Sequence[str], value: str, label: str) -> None:
    """A value of each head against its lift on the title, the three largest named.

    `table` has lift, `value`, and kind: `lookers`, `carriers`, `lookers and carriers`, or `other heads`.
    """
    looks = {
        "other heads": ("#888888", "o"),
        "lookers": SETS["lookers"],
        "carriers": SETS["carriers"],
        "lookers and carriers": ("#0072B2", "s"),
    }
    for kind, (colour, marker) in looks.items():
        part = table[table["kind"] == kind]
        if len(part):
            ax.plot(part["lift"], part[value], marker, color=colour, markersize=5.5, alpha=0.85, label=kind)
    name_largest(ax, table["lift"], table[value], names, table[value], fontsize=8.5)
    ax.axhline(0, color="#444444", linewidth=0.8)
    ax.axvline(1, color="#444444", linestyle=":", linewidth=1)
    ax.set(xlabel="lift on the title", ylabel=label)
    ax.legend()


@checked_arguments()
def effect_grids(tables: Mapping[str, pd.DataFrame], unit: Mapping[str, str]) -> "Figure":
    """A layer x head grid per model and target, each on its own scale, with the unit at its colour bar.

    Effects in percent span many sizes: their colours are linear up to 1 % and logarithmic beyond.
    """
    columns = min(3, len(tables))
    rows = -(-len(tables) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(WIDE, 3.3 * rows), squeeze=False)
    for ax, (name, table) in zip(axes.flat, tables.items(), strict=False):
        heatmap(ax, table, label=unit[name], diverging=True, linear=1.0 if "%" in unit[name] else None)
        ax.set_title(name)
    for ax in axes.flat[len(tables) :]:
        ax.axis("off")
    return figure


@checked_arguments()
def layer_shares(axes: Sequence["Axes"], tables: Mapping[tuple[str, str], pd.DataFrame]) -> None:
    """Each layer's share of all positive effects, with intervals: one panel per model, one line per target."""
    panel = dict(zip(dict.fromkeys(model for model, _ in tables), axes, strict=True))
    for (model, target), table in tables.items():
        ax, (colour, marker) = panel[model], MODELS[model]
        second = target == "direction"
        reach = np.clip([table["share"] - table["share_low"], table["share_high"] - table["share"]], 0, None)
        ax.errorbar(
            table["layer"] + 1 + (0.12 if second else -0.12), table["share"], yerr=reach,
            fmt=marker + TARGET_LINES.get(target, "-"), color=colour, markerfacecolor="white" if second else colour,
            markersize=5, capsize=2, elinewidth=1, label="all targets" if target == "all" else target,
        )  # fmt: skip
        ax.set_xticks(table["layer"] + 1)
        ax.set(title=f"{model} model" if model != "regressor" else "regressor")
        ax.legend(loc="upper left")
    axes[-1].set_xlabel("layer")
    top = max(float(table["share_high"].max()) for table in tables.values())
    axes[-1].set_ylim(-0.03 * top, 1.05 * top)
    for ax in axes:
        ax.set_ylabel("share of the harm")


@checked_arguments()
def order_forest(ax: "Axes", table: pd.DataFrame, limits: Sequence[float]) -> None:
    """What two orders of heads share, of what one keeps of its own: table has what, quantity, share, low, high."""
    looks = {"effect": ("#D55E00", "o"), "attention": ("#0072B2", "s")}
    told = table["high"] - table["low"] < WIDEST
    table = table.assign(**{column: table[column].where(told) for column in ("share", "low", "high")})
    interval_forest(ax, table, "what", value="share", by="quantity", looks=looks)
    for limit in limits:
        ax.axvline(limit, color="#444444", linestyle=":", linewidth=1)
    names = list(dict.fromkeys(table["what"]))
    for row in table[table["share"].isna()].itertuples():
        ax.text(
            0.02,
            names.index(row.what),
            f"by {row.quantity}: unknown",
            va="center",
            fontsize=8.5,
            color="#666666",
        )
    ax.axvline(0, color="#444444", linewidth=0.8)
    ax.set(xlabel="share of a model's agreement with itself")
    ax.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=2)
