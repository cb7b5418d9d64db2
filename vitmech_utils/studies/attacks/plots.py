"""Figures and texts on attacks: changed images, error against budget, vulnerability, what closes an attack."""

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from vitmech_utils.arguments import checked_arguments
from vitmech_utils.data.chirps import LABEL_NAMES
from vitmech_utils.figures.marks import head_names, interval_forest, percent_scale_to, reach
from vitmech_utils.figures.plots import REGION_COLOURS, WIDE, WIDTH, headline
from vitmech_utils.figures.tables import (
    against,
    bullets,
    counted,
    frame_table,
    judgement_list,
    listed,
    percent,
    pipe_table,
    plain,
    rule_text,
    three_sentences,
)
from vitmech_utils.heads.hooks import Head
from vitmech_utils.intervals import METHOD
from vitmech_utils.statistics import Interval, rank_correlation
from vitmech_utils.studies.attacks.figure_changes import DECORATIONS, TARGETS
from vitmech_utils.studies.attacks.judge import RULES
from vitmech_utils.studies.attacks.measure import (
    ATTACK,
    CONTROLS,
    NOISE,
    OWN,
    RANDOM,
    SAME_LAYERS,
    WORST,
    Clean,
    most_open,
    worst_style,
)
from vitmech_utils.studies.coverage import measured
from vitmech_utils.studies.verdicts import EFFECT, HARDLY, Judgement

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from vitmech_utils.profiles import Profile

TARGET_COLOURS: dict[str, str] = REGION_COLOURS | {"labels": REGION_COLOURS["axis label"]}
"""One fixed colour per attacked target: its region's; labels together have that of the axis labels."""
MARKERS = ("o", "s", "D", "^", "v", "P", "X")
NOISE_LOOKS = {WORST: ("#444444", "", "s"), NOISE: ("#888888", ":", "^")}
"""Look of the random controls: colour, line, marker."""
MODELS: dict[str, tuple[str, str]] = {
    "all heads": ("#000000", "s"),
    "without its heads": ("#D55E00", "o"),
    "without random heads": ("#E69F00", "^"),
    "trained on randomized layouts": ("#0072B2", "D"),
    "trained on published layouts": ("#56B4E9", "v"),
}
"""Colour and marker per attacked model."""


# What the chapter shows, in its order


@checked_arguments()
def opening(profile: "Profile") -> str:
    """What this page was made with."""
    plan = profile.attacks
    budgets = listed(f"{budget:g}" for budget in sorted(plan.budgets))
    return (
        f"This page was made with profile **{profile.name}**: {plan.images:,} held-out images, attacks of "
        f"{counted(plan.steps, 'gradient step')} on up to {plan.pixels:,} pixels of a region, budgets of {budgets} "
        f"in "
        f"1/255, random starts: {plan.restarts} at the largest budget, one below it. Further training takes "
        f"{counted(plan.defence_steps, 'step')} of {plan.defence_batch} images."
    )


@checked_arguments()
def natural(table: pd.DataFrame) -> "Figure":
    """What natural changes of the figure do."""
    figure, ax = plt.subplots(figsize=(WIDTH, 4.6))
    natural_forest(ax, table)
    raised = table["low"] > 0
    staying, moving = raised[~table["moves"]], raised[table["moves"]]
    return headline(
        figure,
        f"{staying.sum()} of {len(staying)} changes that leave the plot in its place clearly raise the error, "
        f"{moving.sum()} of {len(moving)} that move it",
    )


@checked_arguments()
def natural_table(table: pd.DataFrame) -> str:
    """What natural changes do, target by target."""
    listing = frame_table(table, {"name": "change", **_EFFECTS})
    return f"Change of the MSE, of all targets together and of each in percent of its own (held-out set):\n\n{listing}"


@checked_arguments()
def budgets(table: pd.DataFrame, excess: Mapping[str, Interval]) -> "Figure":
    """The error against the budget, by target."""
    clear = sum(found.low > 0 for found in excess.values())
    return headline(
        budget_curves(table, list(TARGETS)),
        f"At the largest budget the gradient clearly beats luck on {clear} of {len(excess)} regions",
    )


@checked_arguments()
def attacks_table(table: pd.DataFrame, excess: Mapping[str, Interval]) -> str:
    """What attacks at the largest budget do, beside the worst random draw."""
    top, weakest = table["budget"].max(), most_open(excess)[0]
    guess = 100 * (1 - table["clean_mse"].iloc[0]) / table["percent_of"].iloc[0]
    rows = table[(table["budget"] == top) & (table["kind"] != NOISE)]
    rows = rows.assign(pixels=rows["pixels"].round().astype(int))
    listing = frame_table(rows, {"target": "region", "kind": "change", "pixels": "pixels", **_EFFECTS})
    return (
        f"Change of the MSE at a budget of {top:g}/255:\n\n{listing}\n\nOf the decorations the {weakest} lets most "
        f"harm through in the mean: beyond the worst random draw {excess[weakest]:+,.0f} % of the held-out MSE; the "
        f"plot background {excess['plot background']:+,.0f} %, the chirp {excess['chirp']:+,.0f} %. For scale: a model "
        f"that always predicts the mean, with an MSE of one, stands at {guess:+,.0f} %. Where few images differ "
        "much, intervals reach below what an attack can do, which raises errors alone."
    )


@checked_arguments()
def on_how_many(errors: Mapping[tuple[str, float, str], Float[ndarray, "image target"]], clean: Clean) -> str:
    """On how many images the largest attacks do more than the worst draw, and what intervals by so few are worth."""
    top = max(budget for _, budget, _ in errors)
    unit = 100 / clean.loss if clean.task.relative else 1.0
    counts = {
        target: int(
            (unit * (errors[target, top, ATTACK] - errors[target, top, WORST]).mean(1) > HARDLY).sum()
        )
        for target in TARGETS
    }
    images = len(clean.labels)
    least, most = min(counts.values()), max(counts.values())
    range_of = f"{least}" if least == most else f"{least} to {most}"
    coverage = measured()
    coverage = coverage[(coverage["quantity"] == EFFECT) & (coverage["method"] == METHOD)]
    tried = max((count for count in coverage["images"] if count <= images), default=coverage["images"].min())
    row = coverage.set_index("images").loc[tried]
    return (
        f"Image by image, attacks do more than {HARDLY:g} % beyond the worst draw on {range_of} of {images} images, "
        f"whatever the region; how much that is on average is known badly. Nothing was measured of how often intervals "
        f"of attacks hold the truth; those of single heads' effects by {counted(int(tried), 'image')} do so in "
        f"{row['covered']:.0f} % of draws for the median head, in {row['least']:.0f} % for the worst "
        "([](04_head_ablation.ipynb))."
    )


@checked_arguments()
def vulnerability(table: pd.DataFrame, follows: Interval, attacked: int) -> "Figure":
    """What attacks on the regions, on so many images, do against what ablating their heads does."""
    figure, ax = plt.subplots(figsize=(WIDTH, 4.0))
    vulnerability_scatter(ax, table)
    ax.set_ylabel(f"attacked, beyond noise ({counted(attacked, 'image')}):\nchange of the MSE (%)")
    return headline(
        figure, f"Vulnerability against ablation, {len(table)} regions: rank correlation {follows:+.2f}"
    )


@checked_arguments()
def ablations_table(
    looking: pd.DataFrame, ablations: pd.DataFrame, follows: Interval, random_sets: int
) -> str:
    """The heads that look at each region, and what ablating them does."""
    kinds, rows = ablations.set_index(["target", "kind"]), []
    first = ablations.iloc[0]
    images = f"{first['images']:,} ({first['exact_images']:,} exact)"
    for target in TARGETS:
        own = looking[looking["target"] == target].sort_values(["layer", "head"])
        keys = [(target, kind) for kind in (OWN, RANDOM)]
        effects = [percent(kinds.loc[key]) if key in kinds.index else "" for key in keys]
        rows.append([target, listed(head_names(own)), *effects, images])
    heads, others = "heads that look at it", f"as many other heads (random sets: {random_sets})"
    regions = ablations.loc[ablations["kind"] == OWN, "target"].nunique()
    return (
        f"{pipe_table(['region', heads, 'ablated together', others, 'images'], rows)}\n\nOver the {regions} regions "
        f"vulnerability and ablation effect have a rank correlation of {follows:+.2f} (95 % interval over regions). "
        f"So "
        "few regions say little, whatever the number, and they share heads, so that even this interval is too narrow. "
        f"Intervals are over images, and of random sets for these {random_sets}, which come from all layers, late ones "
        "too: other sets would differ."
    )


@checked_arguments()
def by_head_text(per_head: pd.DataFrame, heads: Mapping[str, Collection[Head]], bootstrap: int) -> str:
    """What single heads carry of an attack, against their ablation effect."""
    lines = []
    for target, part in per_head.groupby("target", sort=False):
        found = rank_correlation(part["carries"].to_numpy(), part["ablation"].to_numpy(), bootstrap)
        ranks = part.groupby("layer")[["carries", "ablation"]].rank(pct=True)
        within = rank_correlation(ranks["carries"].to_numpy(), ranks["ablation"].to_numpy(), bootstrap)
        first = part.sort_values("carries", ascending=False).head(3)
        clear = int((first["low"] > 0).sum())
        mine = sum((row.layer, row.head) in heads[target] for row in first.itertuples())
        lines.append(
            f"attack on the {target}: rank correlation over {len(part)} heads {found:+.2f} (95 % interval over "
            f"heads; {part['images'].iloc[0]} attacked images, effects by {part['ablation_images'].iloc[0]:,}), "
            f"within layers, where depth plays no part, {within:+.2f}; in the mean most is carried by "
            f"{listed(head_names(first))}, clearly by {clear} of them; {mine} belong to the heads named above for the "
            f"{target}"
        )
    return f"What a head carries of an attack, against its ablation effect:\n\n{bullets(lines)}"


@checked_arguments()
def carried(table: pd.DataFrame, beyond: Mapping[str, Interval]) -> "Figure":
    """How much of the attacks' harm some heads carry."""
    figure, ax = plt.subplots(figsize=(WIDTH, 3.6))
    carried_forest(ax, table)
    sure = sum(target in beyond and beyond[target].low > 0 for target in DECORATIONS)
    return headline(
        figure,
        f"In {sure} of {len(DECORATIONS)} decorations their own heads clearly carry more than random ones",
    )


@checked_arguments()
def carried_text(
    table: pd.DataFrame,
    excess: Mapping[str, Interval],
    beyond: Mapping[str, Interval],
    same_layers: Mapping[str, Interval],
    ranks: pd.DataFrame,
) -> str:
    """How much of the harm the heads that look at a region carry, how much more than others, and their ranks."""
    found = ranks.set_index(["target", "kind"])

    def rank(row: pd.Series, kind: str) -> str:
        return f"{found.loc[(row['target'], kind), 'p_value']:.2g}"

    columns = {
        "target": "attacked",
        "heads": "heads",
        "harm": ("harm beyond noise", lambda row: f"{excess[row['target']]:+,.1f}"),
        "effect": (
            "carried by its heads",
            lambda row: f"{Interval(row['effect'], row['low'], row['high']):+,.1f}",
        ),
        "random": ("more than random heads", lambda row: f"{beyond[row['target']]:+,.1f}"),
        "layers": ("more than those of the same layers", lambda row: f"{same_layers[row['target']]:+,.1f}"),
        "rank": ("p among random sets", lambda row: rank(row, RANDOM)),
        "rank_layers": ("p among sets of the same layers", lambda row: rank(row, SAME_LAYERS)),
        "images": "images",
    }
    listing = frame_table(table[table["kind"] == OWN], columns)
    small = ranks.loc[ranks["target"].isin(DECORATIONS), "p_value"]
    return (
        f"{listing}\n\nIn percent of the held-out MSE, with 95 % intervals over images. The p-values are ranks among "
        f"{ranks['sets'].max()} random sets of as many heads, by what each carries to first order (outputs linearized "
        f"in the gates): the smallest that so many sets can give is {1 / (1 + ranks['sets'].max()):.2g}. Of "
        f"{len(small)} tests of decorations {int((small < 0.05).sum())} lie below 0.05, as chance alone would have it "
        f"in {0.05 * len(small):.1g}."
    )


@checked_arguments()
def defences(table: pd.DataFrame, closed: pd.DataFrame) -> "Figure":
    """What a new attack adds to the error of each model."""
    sure = closed.assign(sure=closed["low"] > 0).groupby(["target", "defence"])["sure"].all()
    return headline(
        defence_panels(table),
        f"{sure.sum()} of {len(sure)} defences clearly take from the attack, and more than their controls do",
    )


@checked_arguments()
def defences_table(
    table: pd.DataFrame, closed: pd.DataFrame, natural: pd.DataFrame, again: pd.DataFrame
) -> str:
    """What an attack adds to each model, and what the worst natural change does after the further training."""
    less = closed.set_index(["target", "defence", "less_than"])

    def less_than(row: pd.Series, other: str | None) -> str:
        key = (row["target"], row["model"], other)
        return f"{Interval(*less.loc[key, ['value', 'low', 'high']]):+,.1f}" if key in less.index else ""

    columns = {
        "target": "attacked",
        "model": "model",
        "clean": ("its error on clean images", lambda row: percent(row, "_clean")),
        "effect": ("added by the attack", percent),
        "all": ("less than with all heads", lambda row: less_than(row, "all heads")),
        "control": ("less than its control", lambda row: less_than(row, CONTROLS.get(row["model"]))),
        "images": "images",
    }
    worst = worst_style(natural)
    before = natural.set_index("name").loc[worst, "effect"]
    after = listed(f"{percent(row)} ({row['name']})" for _, row in again.iterrows())
    still = again.set_index("name")["effect"].get("trained on randomized layouts", np.nan) > before / 2
    robust = (
        " So short a training on randomized layouts has not made the model robust to the layout, and as a defence it "
        "says little about one that would."
        if still
        else ""
    )
    return (
        f"{frame_table(table, columns)}\n\nIn percent of the held-out MSE with all heads. The style that did most harm "
        f"to the model as it was, *{worst}* ({before:+,.0f} %), stands after the further training at {after}.{robust}"
    )


def rules() -> str:
    """Both rules in their own words."""
    return "\n\n".join(rule_text(rule) for rule in RULES.values())


@checked_arguments()
def verdict(
    judged: Mapping[str, Judgement],
    by_layers: Judgement,
    attacked: Mapping[str, Interval],
    claims: pd.DataFrame,
) -> str:
    """What the rules say of this run, and what C8's would say with random heads of the same layers."""
    row = claims.iloc[0]
    claimed = {
        "C8": "heads for extraneous features are an attack surface",
        "Q6": "attacks on extraneous regions lower the accuracy although ablation says that those heads don't matter",
    }
    effects = listed(f"{target} {found:+,.0f} %" for target, found in attacked.items())
    beyond = claims[claims["quantity"] == "beyond_ablation"]
    less = listed(
        f"{row.target} {Interval(row.value, row.low, row.high):+,.0f}" for row in beyond.itertuples()
    )
    apart = (
        f" The attack less the ablation of its heads, from different images, in percentage points: {less}."
    )
    return (
        f"On {row['images']:,} images (heads ablated on {row['ablation_images']:,} others), at a budget of "
        f"{row['budget']:g}/255 on up to {row['pixels']:,} pixels, "
        f"beyond "
        f"the worst random draw: {effects} of the held-out MSE (95 % intervals).{apart if less else ''}"
        f"\n\n{judgement_list(judged, claimed)}"
        f"\n\nWith random heads of the same layers as the control, the rule would say of C8: {by_layers.verdict} "
        f"({by_layers.reason})."
    )


@checked_arguments()
def what_you_know(
    judged: Mapping[str, Judgement],
    attacked: Mapping[str, Interval],
    carried: Mapping[str, Interval],
    closed: pd.DataFrame,
) -> str:
    """The chapter in three sentences; `carried` is what a decoration's own heads carry beyond random heads."""
    weakest = max(attacked, key=lambda target: attacked[target].value)
    through = max(carried, key=lambda target: carried[target].value, default=None)
    way = (
        f"the heads that look at the {through} carry {percent(vars(carried[through]), value='value')} of the held-out "
        "loss more of its attack than as many random heads do, the most in the mean"
        if through
        else "no decoration has heads that clearly look at it"
    )
    trained = closed[closed["defence"].str.startswith("trained") & (closed["less_than"] != "all heads")]
    best = trained.loc[trained["value"].idxmax()]
    less = Interval(best["value"], best["low"], best["high"])
    clear = against(less.low, less.high, 0.0, "clearly less", "clearly more", "neither is shown")
    more = Interval(-less.value, -less.high, -less.low)
    return three_sentences(
        f"An attack on the {weakest} alone raises the error by {percent(vars(attacked[weakest]), value='value')} of "
        f"the held-out loss beyond "
        f"the worst random noise of the same size; {way}; verdict on C8, decorations are an attack surface: "
        f"{judged['C8'].words}.",
        f"Attacks find what ablation misses, Q6, by {counted(len(attacked), 'decoration')}: {judged['Q6'].words}; "
        f"{judged['Q6'].reason}.",
        f"What an attack on the {best['target']} adds after further training on randomized layouts differs from "
        "what it "
        f"adds after the same training on published ones by {percent(vars(more), value='value')} of the held-out loss "
        f"({clear}).",
    )


_EFFECTS: dict[str, Any] = {
    "effect": ("all three", percent),
    **{
        f"effect_{name}": (plain(name), lambda row, name=name: percent(row, f"_{name}"))
        for name in LABEL_NAMES
    },
    "images": "images",
}


# The marks


@checked_arguments()
def natural_forest(ax: "Axes", table: pd.DataFrame) -> None:
    """One row per natural change with its interval: name, effect, low, high (percent), moves (bool).

    Hollow marks are changes that move the plot itself, and with it the chirp's pixels.
    """
    looks = {False: ("#0072B2", "o"), True: ("#0072B2", "o")}
    labels = {False: "the plot stays", True: "hollow: the plot moves, too"}
    interval_forest(ax, table, "name", by="moves", looks=looks, labels=labels, hollow=[True], apart=0)
    ax.axvline(0, color="#444444", linewidth=0.8)
    ax.set_xlabel("change of the MSE (%)")
    percent_scale_to(ax, "x", table["low"].min(), table["high"].max())
    ax.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=2, columnspacing=1.0)


@checked_arguments()
def attacked_images(
    clean: Float[Tensor, "3 height width"],
    attacked: Mapping[str, Float[Tensor, "3 height width"]],
    budget: float,
    columns: int = 4,
) -> "Figure":
    """Show the clean image, then per target the attacked one over its perturbation.

    Pixels lie in [0, 1]; a perturbation is magnified so that the budget (1/255) spans grey to black or white, and grey
    is no change.
    """
    clean = np.moveaxis(np.asarray(clean), 0, -1)
    shown = {"clean": (clean, None)}
    for name, found in attacked.items():
        image = np.moveaxis(np.asarray(found), 0, -1)
        shown[name] = image, np.clip(0.5 + (image - clean) * 255 / (2 * budget), 0, 1)
    blocks = -(-len(shown) // columns)
    figure, axes = plt.subplots(2 * blocks, columns, figsize=(WIDE, 4.45 * blocks), squeeze=False)
    for ax in axes.flat:
        ax.axis("off")
    for place, (name, (image, change)) in enumerate(shown.items()):
        row, column = 2 * (place // columns), place % columns
        axes[row, column].imshow(image, interpolation="antialiased")
        axes[row, column].set_title(name, loc="center")
        if change is None:
            axes[row + 1, column].text(
                0.5, 0.5, "below each image:\nits perturbation,\nmagnified", ha="center", va="center", fontsize=9,
                transform=axes[row + 1, column].transAxes,
            )  # fmt: skip
        else:
            axes[row + 1, column].imshow(change, interpolation="antialiased")
    return figure


@checked_arguments()
def budget_curves(table: pd.DataFrame, targets: Sequence[str], columns: int = 4) -> "Figure":
    """One panel per target: error against budget under attack and under random noise, with intervals.

    `table` has target, kind ("attack" or one of `NOISE_LOOKS`), budget (1/255), effect, low, high (percent), pixels.
    """
    rows = -(-(len(targets) + 1) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(WIDE, 2.55 * rows), sharex=True, sharey=True, squeeze=False
    )
    budgets = sorted(table["budget"].unique())
    for ax, target in zip(axes.flat, targets, strict=False):
        mine = table[table["target"] == target]
        looks = {ATTACK: (TARGET_COLOURS[target], "-", "o"), **NOISE_LOOKS}
        for aside, (kind, (colour, line, marker)) in zip((0.94, 1, 1.06), looks.items(), strict=True):
            part = mine[mine["kind"] == kind].sort_values("budget")
            ax.errorbar(
                aside * part["budget"], part["effect"], yerr=reach(part), fmt=f"{marker}{line}", color=colour,
                markersize=4, capsize=2, elinewidth=1, label=kind,
            )  # fmt: skip
        ax.axhline(0, color="#444444", linewidth=0.8)
        ax.set_title(f"{target} ({mine['pixels'].mean():,.0f} pixels)", fontsize=8.5)
        ax.set_xscale("log", base=2)
        ax.set_xticks(budgets, [f"{budget:g}" for budget in budgets], minor=False)
    percent_scale_to(axes[0, 0], "y", table["low"].min(), table["high"].max())
    for ax in axes[:, 0]:
        ax.set_ylabel("change of the MSE (%)")
    for place, ax in enumerate(axes.flat):
        if place >= len(targets):
            ax.axis("off")
        elif place + columns >= len(targets):
            ax.set_xlabel("budget (1/255)")
            ax.tick_params(labelbottom=True)
    handles = [
        plt.Line2D([], [], color="#222222", marker="o", linestyle="-", markersize=4, label="attack"),
        *(
            plt.Line2D([], [], color=colour, marker=marker, linestyle=line, markersize=4, label=kind)
            for kind, (colour, line, marker) in NOISE_LOOKS.items()
        ),
    ]
    axes.flat[len(targets)].legend(handles=handles, loc="center", title="same pixels, same budget")
    return figure


@checked_arguments()
def vulnerability_scatter(ax: "Axes", table: pd.DataFrame) -> None:
    """Draw, per target, the attack's effect against that of ablating its heads, both with intervals.

    `table` has target, attacked, attacked_low, attacked_high, ablated, ablated_low, ablated_high (percent), images.
    """
    for place, row in enumerate(table.itertuples()):
        ax.errorbar(
            row.ablated, row.attacked,
            xerr=[[max(row.ablated - row.ablated_low, 0)], [max(row.ablated_high - row.ablated, 0)]],
            yerr=[[max(row.attacked - row.attacked_low, 0)], [max(row.attacked_high - row.attacked, 0)]],
            fmt=MARKERS[place % len(MARKERS)], color=TARGET_COLOURS[row.target], markersize=7, capsize=2,
            elinewidth=1, label=row.target,
        )  # fmt: skip
    ax.axhline(0, color="#444444", linewidth=0.8)
    ax.axvline(0, color="#444444", linewidth=0.8)
    ax.set_xlabel(
        f"its heads ablated together: change of the MSE (%), {counted(int(table['images'].min()), 'image')}"
    )
    ax.set_ylabel("attacked, beyond noise:\nchange of the MSE (%)")
    percent_scale_to(ax, "x", table["ablated_low"].min(), table["ablated_high"].max())
    percent_scale_to(ax, "y", table["attacked_low"].min(), table["attacked_high"].max())
    ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))


@checked_arguments()
def carried_forest(ax: "Axes", table: pd.DataFrame) -> None:
    """Per target, how much of the attack's harm goes when heads write as on the clean image: its own, and random ones.

    `table` has target, kind (`OWN`, `RANDOM`, `SAME_LAYERS`), effect, low, high (percent of the held-out MSE).
    """
    looks = {OWN: ("#D55E00", "o"), RANDOM: ("#888888", "^"), SAME_LAYERS: ("#0072B2", "v")}
    interval_forest(ax, table, "target", by="kind", looks=looks)
    ax.axvline(0, color="#444444", linewidth=0.8)
    ax.set_xlabel("harm that these heads carry (% of the held-out MSE)")
    percent_scale_to(ax, "x", table["low"].min(), table["high"].max())
    ax.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=3, columnspacing=1.0)


@checked_arguments()
def defence_panels(table: pd.DataFrame) -> "Figure":
    """Per attacked target, what an attack adds to the error of each model, with intervals.

    `table` has target, model (of `MODELS`), effect, low, high: added by the attack, in percent of the held-out MSE of
    the model with all heads.
    """
    targets = list(dict.fromkeys(table["target"]))
    names = [name for name in MODELS if name in set(table["model"])]
    figure, axes = plt.subplots(
        len(targets), 1, figsize=(WIDTH, 0.9 + 1.75 * len(targets)), sharex=True, squeeze=False
    )
    for ax, target in zip(axes[:, 0], targets, strict=True):
        part = table[table["target"] == target]
        interval_forest(ax, part, "model", by="model", looks=MODELS, order=names, apart=0, size=7)
        ax.axvline(0, color="#444444", linewidth=0.8)
        ax.set_title(f"attack on the {target}")
    axes[-1, 0].set_xlabel("added by the attack (% of the held-out MSE with all heads)")
    percent_scale_to(axes[0, 0], "x", table["low"].min(), table["high"].max())
    return figure
