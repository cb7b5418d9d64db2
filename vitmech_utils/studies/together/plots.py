"""Figures and texts on heads taken together: groups against sums, pairs, Shapley values, kept sets, direct effects."""

import itertools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from vitmech_utils.arguments import checked_arguments
from vitmech_utils.figures.marks import excludes_zero, percent_scale
from vitmech_utils.figures.plots import SEQUENTIAL, WIDE, WIDTH, headline, heatmap
from vitmech_utils.figures.tables import (
    both_verdicts,
    bullets,
    counted,
    frame_table,
    judgement_list,
    listed,
    named,
    percent,
    rule_text,
    three_sentences,
    word,
)
from vitmech_utils.statistics import Interval
from vitmech_utils.studies.together.judge import KEPT, single_ablations_miss
from vitmech_utils.studies.together.measure import differs, repaired, sizes_to_keep
from vitmech_utils.studies.trainings.judge import over_all
from vitmech_utils.studies.verdicts import FALSE_DISCOVERIES, Judgement

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from vitmech_utils.profiles import Profile

TOGETHER, ALONE, CLEAR, PALE = "#D55E00", "#0072B2", "#D55E00", "#888888"
RANKINGS = {
    "single effect": ("#0072B2", "o"),
    "Shapley value": ("#D55E00", "s"),
    "random": ("#888888", "v"),
}


# What the chapter shows, in its order


@checked_arguments()
def opening(profile: "Profile", heads: int) -> str:
    """What this page was made with."""
    plan = profile.together
    return (
        f"This page was made with profile **{profile.name}**: groups of heads are ablated on {plan.images:,} "
        f"held-out "
        f"images of the chapter's own, to first order on all and exactly on {plan.exact_images:,} of them; the "
        f"{plan.pair_heads:,} strongest heads are paired with all others on {plan.pair_images:,} images, and Shapley "
        f"values rest on {counted(plan.permutations, 'order')} of all {heads} heads, each run forwards and backwards "
        "on an image of its own. Every ablation is by the mean over other images."
    )


@checked_arguments()
def groups(table: pd.DataFrame) -> "Figure":
    """One panel for each kind of set: what the sets do together, beside what their heads' effects add up to."""
    kinds = dict(list(table.groupby("kind", sort=False)))
    figure, axes = plt.subplots(
        len(kinds),
        1,
        figsize=(WIDTH, 2.4 + 0.26 * len(table)),
        height_ratios=[len(part) for part in kinds.values()],
    )
    for ax, (kind, part) in zip(axes, kinds.items(), strict=True):
        group_bars(ax, part)
        several = part[part["heads"] > 1]  # one head by itself is its own sum
        more = int(((several["low_excess"] > 0) & (several["q_value"] < FALSE_DISCOVERIES)).sum())
        ax.set_title(f"By {kind}: {more} of {len(several)} sets of several heads clearly exceed their sum")
        ax.set_xlabel("effect (% of the held-out loss)" if ax is axes[-1] else "")
    ends = np.array([ax.get_xlim() for ax in axes])
    for ax in axes:  # one scale for all, and the scale's own ticks over all of it
        ax.set_xscale("linear")
        ax.set_xlim(ends[:, 0].min(), ends[:, 1].max())
        percent_scale(ax, "x", 10.0)
    axes[0].legend(loc="lower left")
    return figure


@checked_arguments()
def groups_table(table: pd.DataFrame) -> str:
    """Joint effect, sum and excess of every set."""
    columns = {
        "set": "group",
        "heads": "heads",
        "effect": ("together (%)", lambda row: _interval(row, "effect")),
        "sum_of_single": ("sum of single effects (%)", lambda row: _interval(row, "sum_of_single")),
        "excess": ("excess (percentage points)", lambda row: _interval(row, "excess")),
        "q_value": ("q", ".3f"),
        "rank_p": (
            "rank among random sets",
            lambda row: "" if np.isnan(row["rank_p"]) else f"{row['rank_p']:.2f}",
        ),
    }
    layers = table[table["kind"] == "layer"]
    return (
        f"{frame_table(table, columns)}\n\n{table['images'].iloc[0]:,} images, paired 95 % intervals; q adjusts for "
        f"the number of groups of a kind; the last column is the share of random sets, of as many heads as a layer, "
        "whose excess is as far from nothing, for sets of that size. "
        f"In {int(differs(layers).sum())} of {len(layers)} layers the excess is clear."
    )


@checked_arguments()
def random_text(table: pd.DataFrame, groups: pd.DataFrame) -> str:
    """The control: sets drawn at random against the layers."""
    clear, layers = int(differs(table).sum()), groups[groups["kind"] == "layer"]
    beyond = layers.loc[layers["rank_p"] < 0.05, "set"].tolist()
    ranked = (
        f"Ranked by excess, {listed(beyond, ' and ')} {word(len(beyond), 'lies', 'lie')} further from the sum "
        "than 95 % of the random sets, no other layer does. "
        if beyond
        else "Ranked by excess no layer lies further from the sum than 95 % of the random sets. "
    )
    return (
        f"Of {len(table)} random sets of {table['heads'].iloc[0]} heads, {clear} {word(clear, 'has', 'have')} a "
        f"clear "
        f"excess. {ranked}The median excess of the random sets is "
        f"{table['excess'].median():+,.0f} percentage points, that of the layers "
        f"{layers['excess'].median():+,.0f}. Together a random set changes the error by "
        f"{table['effect'].median():+,.0f} % (median; {table['effect'].min():+,.0f} to "
        f"{table['effect'].max():+,.0f}), a layer by {layers['effect'].median():+,.0f} % (median)."
    )


@checked_arguments()
def gates(surface: np.ndarray) -> "Figure":
    """The error over two heads' gates [gate, gate]: its four corners are the four errors of an interaction."""
    ends = {"none": surface[0, 0], "a": surface[-1, 0], "b": surface[0, -1], "both": surface[-1, -1]}
    interaction = ends["both"] - ends["a"] - ends["b"] + ends["none"]
    figure, ax = plt.subplots(figsize=(WIDTH, 3.9))
    steps = np.linspace(0, 1, len(surface))
    drawn = ax.contourf(steps, steps, surface.T, levels=12, cmap=SEQUENTIAL)
    figure.colorbar(drawn, label="error")
    signs = {"none": ("+", 0, 0), "a": ("-", 1, 0), "b": ("-", 0, 1), "both": ("+", 1, 1)}
    for name, (sign, x, y) in signs.items():
        label = f"{sign} E({name}) = {ends[name]:.3g}"
        ax.text(
            0.03 + 0.94 * x,
            0.04 + 0.92 * y,
            label,
            ha="right" if x else "left",
            va="top" if y else "bottom",
            fontsize=9,
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 2},
        )
    ax.set(xlabel="gate of head a (0: untouched, 1: ablated)", ylabel="gate of head b")
    ax.set_title(
        f"The interaction, {interaction:+.2g}, is the twist of this surface: corners with their signs"
    )
    return figure


@checked_arguments()
def shapley_orders() -> "Figure":
    """A game of three heads that can be added up by hand: a and b stand in for each other, c works alone."""
    figure, axes = plt.subplots(1, 2, figsize=(WIDE, 3.0), width_ratios=[1.7, 1])
    looks = {"a": "#0072B2", "b": "#56B4E9", "c": "#D55E00"}
    charged = dict.fromkeys(looks, 0.0)
    orders = list(itertools.permutations(looks))
    for row, order in enumerate(orders):
        gone: set[str] = set()
        for head in order:
            charge = _example_error(gone | {head}) - _example_error(gone)
            axes[0].barh(row, charge, left=_example_error(gone), color=looks[head])
            if charge:
                middle = _example_error(gone) + charge / 2
                axes[0].text(middle, row, head, ha="center", va="center", color="white")
            charged[head] += charge / len(orders)
            gone |= {head}
    axes[0].set_yticks(range(len(orders)), [", ".join(order) for order in orders])
    axes[0].set(xlabel="what the error grows by, head after head", ylabel="order of removal")
    axes[0].invert_yaxis()
    alone = [_example_error({head}) for head in looks]
    places = np.arange(len(looks))
    axes[1].bar(places - 0.2, alone, 0.38, color="#BBBBBB", label="taken away alone")
    axes[1].bar(
        places + 0.2, list(charged.values()), 0.38, color=list(looks.values()), label="mean over orders"
    )
    axes[1].set_xticks(places, list(looks))
    axes[1].set(ylabel="charge", ylim=(0, 7.5))
    axes[1].legend(loc="upper left")
    return headline(
        figure, "One at a time, a and b seem to cost nothing; over all orders they share what both do"
    )


@checked_arguments()
def pairs(compared: pd.DataFrame, estimated: pd.DataFrame) -> "Figure":
    """Exact against estimated interactions, and each head's largest estimate."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(WIDE, 4.0), width_ratios=(1, 1))
    agreement_scatter(
        left,
        compared["estimate"],
        compared["interaction"],
        interacting(compared),
        names=("not clear", "clear"),
    )
    same_sign = float((np.sign(compared["estimate"]) == np.sign(compared["interaction"])).mean())
    left.set(
        xlabel="second-order estimate (% of the held-out loss)",
        ylabel="exact interaction (% of the held-out loss)",
        title=f"Same sign in {same_sign:.0%} of {len(compared)} pairs",
    )
    left.legend(loc="upper left", fontsize=8)
    sides = [
        estimated.assign(layer=estimated[f"layer_{side}"], head=estimated[f"head_{side}"]) for side in "ab"
    ]
    reach = pd.concat(sides).assign(size=lambda rows: rows["estimate"].abs())
    largest = reach.groupby(["layer", "head"], as_index=False)["size"].max()
    first = largest.loc[largest["size"].idxmax()]
    largest["size"] = np.log10(np.maximum(largest["size"], 0.1))
    drawn = heatmap(
        right,
        largest,
        value="size",
        label="largest estimated interaction (% of the held-out loss)",
        colour_bar=False,
    )
    bar = figure.colorbar(drawn, ax=right, label="largest estimated interaction (% of the held-out loss)")
    ends = drawn.get_clim()
    ticks = [
        tick for tick in (0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000) if ends[0] <= np.log10(tick) <= ends[1]
    ]
    bar.set_ticks(np.log10(ticks), labels=[f"{tick:g}" for tick in ticks])
    right.set_title(
        f"Largest estimate: L{first['layer'] + 1:.0f}H{first['head'] + 1:.0f}, {first['size']:.0f} %"
    )
    return figure


@checked_arguments()
def pairs_table(compared: pd.DataFrame, estimated: pd.DataFrame, fit: Mapping[str, Interval]) -> str:
    """The largest exact interactions, and how well the estimate ranks them."""
    columns = {
        "head_a": ("head", lambda row: f"L{row['layer_a'] + 1} H{row['head_a'] + 1}"),
        "head_b": ("head", lambda row: f"L{row['layer_b'] + 1} H{row['head_b'] + 1}"),
        "interaction": (
            "exact interaction (%)",
            lambda row: f"{Interval(row['interaction'], row['low'], row['high']):+,.1f}",
        ),
        "estimate": ("estimate (%)", "+,.1f"),
        "q_value": ("q", ".3f"),
    }
    top = compared.loc[compared["interaction"].abs().nlargest(8).index]
    count = int(compared["images"].iloc[0])
    least = 2.0 / 2.0**count
    if least >= FALSE_DISCOVERIES:
        columns.pop("q_value")
    told = (
        f"{int(interacting(compared).sum())} of {len(compared)} pairs interact for sure (false discovery rate "
        f"{FALSE_DISCOVERIES:.0%})."
        if least < FALSE_DISCOVERIES
        else f"With {counted(count, 'image')} no p-value of a sign-flip test can fall below {least:.3g}, so whether a "
        "pair interacts is not tested here: the sample shows how well the estimate ranks pairs."
    )
    within = estimated["layer_a"] == estimated["layer_b"]
    inside, across = (estimated.loc[part, "estimate"].abs().median() for part in (within, ~within))
    return (
        f"{frame_table(top, columns)}\n\nThe largest exact interactions of the sample, "
        f"{counted(count, 'image')}. Rank correlation of estimate and exact interaction with 95 % intervals "
        f"over pairs: {named(fit, '.2f', '; ', ': ')}. {told} Over all {len(estimated):,} estimated pairs the median "
        f"size is {inside:.2g} % within a layer and {across:.2g} % across layers."
    )


@checked_arguments()
def interacting(compared: pd.DataFrame) -> pd.Series:
    """The pairs that clearly interact: by their interval and by their q-value."""
    return (compared["q_value"] < FALSE_DISCOVERIES) & excludes_zero(compared)


@checked_arguments()
def shapley(values: pd.DataFrame, ranks: Interval) -> "Figure":
    """Shapley values against single effects, and as a grid; `ranks` is the share of their order that both have."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(WIDE, 4.2))
    agreement_scatter(left, values["single"], values["shapley"], excludes_zero(values))
    left.set(
        xlabel="single effect (%)",
        ylabel="Shapley value (%)",
        title=f"Of their own order they share {ranks:.2f}",
    )
    left.legend(loc="upper left", fontsize=8)
    heatmap(right, values, value="shapley", label="Shapley value (%)", diverging=True, linear=1.0)
    right.set_title(f"They add up to {values['shapley'].sum():+,.0f} %")
    return figure


@checked_arguments()
def shapley_text(values: pd.DataFrame) -> str:
    """Which heads single ablations underrate."""
    ten = max(1, len(values) // 7)
    first = [set(values[column].nlargest(ten).index) for column in ("single", "shapley")]
    both = len(first[0] & first[1])
    clear = values[values["low_more"] > 0]
    hidden = (clear if len(clear) else values).nlargest(5, "more")
    underrated = listed(
        f"L{row.layer + 1} H{row.head + 1} (by {row.more:+,.0f} [{row.low_more:+,.0f}, {row.high_more:+,.0f}]: "
        f"{row.single:+,.1f} % alone, {row.shapley:+,.0f} % by Shapley value)"
        for row in hidden.itertuples()
    )
    told = (
        f"Single ablation clearly underrates {counted(len(clear), 'head')} (95 % intervals would name about "
        f"{0.025 * len(values):.0f} of {len(values)} by chance), most"
        if len(clear)
        else "Single ablation clearly underrates no head; the largest differences are"
    )
    return (
        f"Of the {ten} heads with the largest single effects, {both} {word(both, 'is', 'are')} among the {ten} with "
        f"the largest Shapley values. {told} {underrated}. Single effects add up to {values['single'].sum():+,.0f} %, "
        f"all heads together do {values['shapley'].sum():+,.0f} % ({counted(int(values['images'].iloc[0]), 'image')})."
    )


@checked_arguments()
def kept(curves: pd.DataFrame, enough: Mapping[str, int], total: int) -> "Figure":
    """The error against the number of heads that are kept."""
    figure, ax = plt.subplots(figsize=(WIDTH, 3.8))
    kept_curves(ax, curves, KEPT, total)
    fewest = min(enough.values())
    best = listed((name for name, count in enough.items() if count == fewest), " or ")
    ax.set_title(
        f"Error not yet doubled with {fewest} of {total} heads, by {best}"
        if fewest < total
        else "No set that was tried keeps the error from doubling"
    )
    ax.legend(loc="lower left")
    return figure


@checked_arguments()
def kept_text(curves: pd.DataFrame, enough: Mapping[str, int], total: int) -> str:
    """How few heads are enough by each ranking, and how often it beats random sets."""
    at_random = curves[curves["ranking"] == "random"].groupby("kept")["effect"]
    draws, sizes = int(at_random.size().max()), listed(sizes_to_keep(total))
    lines = []
    for name, count in enough.items():
        rows = curves[curves["ranking"] == name].set_index("kept")
        ranked = rows["effect"]
        beaten = sum(bool(ranked[size] < effects.min()) for size, effects in at_random)
        reached = f", {percent(rows.loc[count])}" if count in rows.index else ""
        wide = count in rows.index and rows.loc[count, "high"] > KEPT
        lines.append(
            f"**Ranked by {name}**: with {count if count < total else 'no fewer than all'} of {total} heads the mean "
            f"error has not doubled{reached} on {counted(int(rows['images'].iloc[0]), 'image')}"
            f"{', an interval that does not exclude doubling' if wide else ''} (sizes tried: {sizes}); "
            f"at {beaten} of {len(at_random)} sizes the kept set beats all "
            f"{draws} random sets."
        )
    return bullets(lines)


@checked_arguments()
def direct(split: pd.DataFrame) -> "Figure":
    """Total and direct effects by layer."""
    figure, ax = plt.subplots(figsize=(WIDTH, 3.8))
    direct_by_layer(ax, split)
    carried = int((split["low_later"] > 0).sum())
    ax.set_title(
        f"{carried} of {len(split)} heads clearly act through later layers too; for {len(repaired(split))} a repair is "
        "shown"
    )
    ax.legend()
    return figure


@checked_arguments()
def direct_text(split: pd.DataFrame) -> str:
    """Which heads are repaired, and how large direct and total effects are, by half of the layers."""
    found = repaired(split)
    undone = listed(
        f"L{row.layer + 1} H{row.head + 1} (direct {row.effect_direct:+,.1f} %, in all {row.effect_total:+,.1f} %)"
        for row in found.loc[found["effect_direct"].nlargest(5).index].itertuples()
    )
    first = split["layer"] < (split["layer"].max() + 1) / 2
    sizes = [
        " % direct, ".join(
            f"{split.loc[part, f'effect_{kind}'].abs().median():.2g}" for kind in ("direct", "total")
        )
        for part in (first, ~first)
    ]
    return (
        f"Heads whose direct harm later parts clearly undo in part: {undone}. On {split['images'].iloc[0]:,} images "
        f"{int((split['low_direct'] > 0).sum())} of {len(split)} heads have a direct effect clearly above zero; the "
        f"rest holds much noise, and so do these medians. Median size in the first half of the "
        f"layers: {sizes[0]} % in all; in the second half: {sizes[1]} % in all."
    )


@checked_arguments()
def surprises(values: pd.DataFrame, groups: pd.DataFrame) -> dict[str, float]:
    """Findings in words, each with how far it lies from what single ablations let one expect (log of a factor)."""
    layers, whole, added = groups[groups["kind"] == "layer"], values["shapley"].sum(), values["single"].sum()
    found = {
        f"on {int(values['images'].iloc[0]):,} images all heads together change the error by {whole:+,.0f} % of the "
        f"held-out loss, their single effects add up to {added:+,.0f} %": _log_factor(whole, added)
    }
    for _, row in layers[differs(layers)].iterrows():
        sentence = (
            f"the heads of {row['set']} together change the error by {row['effect']:+,.0f} % "
            f"[{row['low_effect']:+,.0f}, {row['high_effect']:+,.0f}], one at a time by "
            f"{row['sum_of_single']:+,.0f} % in sum"
        )
        found[sentence] = _log_factor(row["effect"], row["sum_of_single"])
    return dict(sorted(found.items(), key=lambda item: -item[1]))


@checked_arguments()
def surprise_text(found: Mapping[str, float]) -> str:
    """The findings, the most surprising first."""
    first, *others = found
    return f"**What was surprising**: {first}.\n\n{bullets(f'{text}.' for text in others[:3])}"


def rule() -> str:
    """The rule in its own words."""
    return rule_text(single_ablations_miss)


@checked_arguments()
def verdict(judgement: Judgement) -> str:
    """What the rule says of this run."""
    return judgement_list({"Q7": judgement}, {"Q7": "single ablations miss what heads do together"})


@checked_arguments()
def what_you_know(
    judgement: Judgement,
    verdicts: pd.DataFrame,
    groups: pd.DataFrame,
    random: pd.DataFrame,
    ranks: Interval,
    values: pd.DataFrame,
    enough: Mapping[str, int],
) -> str:
    """The chapter in three sentences; `groups` and `random` hold the excess of sets, `values` the Shapley values.

    `judgement` is the verdict on this training, `verdicts` the `verdicts_table` of all.
    `enough` says by ranking how few heads keep the error from doubling.
    """
    layers = groups[groups["kind"] == "layer"]
    largest = layers.loc[layers["excess"].abs().idxmax()]
    excess = Interval(*largest[["excess", "low_excess", "high_excess"]])
    top = values.loc[values["shapley"].idxmax()]
    needed = " and ".join(f"{count} ranked by {order}" for order, count in enough.items())
    part = f"{ranks:.2f}" if ranks.value == ranks.value else "an unknown part"
    blurred = (
        f" ({counted(int(values['images'].iloc[0]), 'image')} hardly reproduce either order; above 1 it is noise)"
        if ranks.high > 1
        else ""
    )
    return three_sentences(
        f"In {int(differs(layers).sum())} of {counted(len(layers), 'layer')} heads do more or less together than "
        f"their "
        f"single effects add up to, most in {largest['set']}, by "
        f"{percent(vars(excess), value='value')} of the loss; "
        f"of random sets, {int(differs(random).sum())} of {len(random)}.",
        f"The orders of heads by Shapley value and by single effect correlate as {part} of the most that so few "
        f"images allow{blurred}; the value that charges most is {percent(top, value='shapley')} of the loss.",
        f"By the mean of the test images the error has not doubled with {needed} of {len(values)} heads (intervals: "
        f"above); verdict on Q7, single ablations "
        f"miss what heads do together: "
        f"{both_verdicts(judgement, over_all(verdicts)['Q7'])}.",
    )


def _interval(row: Any, name: str) -> str:
    """In whole percent, or where the interval reaches less far than 10, with one decimal."""
    found = Interval(row[name], row[f"low_{name}"], row[f"high_{name}"])
    return f"{found:+,.0f}" if max(abs(found.low), abs(found.high)) >= 10 else f"{found:+.1f}"


def _log_factor(together: float, added: float) -> float:
    return float(abs(np.log((1 + max(together, 0) / 100) / (1 + max(added, 0) / 100))))


# The marks


def _scale(ax: "Axes", which: str, linear: float) -> None:
    """A scale in percent with room at its ends: on a logarithmic part the usual margin is next to none."""
    for name in which:
        low, high = getattr(ax, f"get_{name}lim")()
        getattr(ax, f"set_{name}lim")(low - 0.6 * max(-low, 0), high + 0.6 * max(high, 0))
    percent_scale(ax, which, linear)


@checked_arguments()
def group_bars(ax: "Axes", table: pd.DataFrame, linear: float = 10.0) -> None:
    """Draw what each set of heads does together, with its interval, and a mark where its single effects add up to.

    `table` is one of `sets.set_effects`; the sets keep its order, the first on top.
    """
    places = np.arange(len(table))[::-1]
    reach = [table["effect"] - table["low_effect"], table["high_effect"] - table["effect"]]
    ax.errorbar(
        table["effect"], places, xerr=reach, fmt="o", color=TOGETHER, markersize=5, label="ablated together"
    )
    ax.plot(
        table["sum_of_single"], places, "|", color=ALONE, markersize=11, mew=2.2,
        label="sum of single effects",
    )  # fmt: skip
    for place, (joint, added) in zip(
        places, table[["effect", "sum_of_single"]].itertuples(index=False), strict=True
    ):
        ax.plot([added, joint], [place, place], color="#BBBBBB", linewidth=1, zorder=0)
    ax.set_yticks(
        places, [f"{name} ({heads})" for name, heads in zip(table["set"], table["heads"], strict=True)]
    )
    ax.set_ylim(-0.6, len(table) - 0.4)
    ax.axvline(0, color="#444444", linewidth=0.8)
    _scale(ax, "x", linear)
    ax.set_xlabel("effect (% of the held-out loss)")


@checked_arguments()
def agreement_scatter(
    ax: "Axes",
    x: pd.Series,
    y: pd.Series,
    clear: pd.Series | None = None,
    linear: float = 1.0,
    names: tuple[str, str] = ("interval includes zero", "interval excludes zero"),
) -> None:
    """Draw one quantity in percent against another, both axes linear around zero and logarithmic beyond.

    `names` say what is not `clear`, and what is.
    """
    if clear is None:
        clear = pd.Series(True, index=x.index)
    for chosen, colour, name in (
        (~clear, PALE, names[0]),
        (clear, CLEAR, names[1]),
    ):
        if chosen.any():
            ax.plot(x[chosen], y[chosen], "o", color=colour, markersize=4, alpha=0.8, label=name)
    ends = [float(min(x.min(), y.min())), float(max(x.max(), y.max()))]
    ax.plot(ends, ends, color="#444444", linewidth=0.8, linestyle="--", label="equal")
    ax.axhline(0, color="#BBBBBB", linewidth=0.8, zorder=0)
    ax.axvline(0, color="#BBBBBB", linewidth=0.8, zorder=0)
    _scale(ax, "xy", linear)


@checked_arguments()
def kept_curves(ax: "Axes", table: pd.DataFrame, limit: float, total: int) -> None:
    """Draw the error against the number of heads that are kept, one line per ranking, random sets as a band.

    `table` has ranking, kept, effect (percent), low, high; random sets have one row per draw.
    """
    for name, (colour, mark) in RANKINGS.items():
        part = table[table["ranking"] == name]
        if name == "random":
            drawn = part.groupby("kept")["effect"]
            ax.fill_between(
                drawn.min().index, drawn.min(), drawn.max(), color=colour, alpha=0.25, linewidth=0,
                label="random sets: range",
            )  # fmt: skip
            ax.plot(drawn.median().index, drawn.median(), mark, ls="-", color=colour, label="median")
            continue
        part = part.sort_values("kept")
        reach = [part["effect"] - part["low"], part["high"] - part["effect"]]
        aside = -0.4 if name == "single effect" else 0.4
        ax.errorbar(
            part["kept"] + aside, part["effect"], yerr=reach, fmt=f"{mark}-", color=colour, markersize=4,
            linewidth=1.2, label=f"first by {name}",
        )  # fmt: skip
    ax.axhline(limit, color="#444444", linewidth=0.8, linestyle="--")
    ax.annotate(
        "error doubled", (0, limit), xytext=(4, 3), xycoords=ax.get_yaxis_transform(),
        textcoords="offset points", fontsize=8,
    )  # fmt: skip
    ax.axhline(0, color="#BBBBBB", linewidth=0.8, zorder=0)
    _scale(ax, "y", limit)
    ax.set_ylim(bottom=-1.2 * limit)  # no error falls by more than all of it
    ax.set(xlabel=f"heads kept, of {total}", ylabel="effect (% of the held-out loss)")


@checked_arguments()
def direct_by_layer(ax: "Axes", table: pd.DataFrame, linear: float = 1.0) -> None:
    """Draw every head's total and direct effect, layer by layer; layers count from 1.

    `table` is one of `direct.direct_effects`. The two stand beside each other in their layer's column.
    """
    for shift, column, colour, mark in (
        (-0.16, "effect_total", TOGETHER, "o"),
        (0.16, "effect_direct", ALONE, "D"),
    ):
        ax.plot(
            table["layer"] + 1 + shift, table[column], mark, color=colour, markersize=4, alpha=0.8,
            label=column.removeprefix("effect_"),
        )  # fmt: skip
    for row in table.itertuples():
        ax.plot(
            [row.layer + 0.84, row.layer + 1.16], [row.effect_total, row.effect_direct],
            color="#BBBBBB", linewidth=0.7, zorder=0,
        )  # fmt: skip
    ax.axhline(0, color="#444444", linewidth=0.8)
    _scale(ax, "y", linear)
    ax.set_xticks(range(1, int(table["layer"].max()) + 2))
    ax.set(xlabel="layer", ylabel="effect (% of the held-out loss)")


def _example_error(gone: set[str]) -> float:
    """The error of the example's game: 10 once both a and b are gone, 4 more without c."""
    return 10.0 * ({"a", "b"} <= gone) + 4.0 * ("c" in gone)
