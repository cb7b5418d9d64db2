"""What chapter 04 shows: effects head by head and layer by layer, modes and estimates against each other, controls."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from vitmech_utils.arguments import checked_arguments
from vitmech_utils.data.chirps import LABEL_MEAN, LABEL_NAMES, LABEL_STD, LATEST_START
from vitmech_utils.figures.marks import (
    effect_forest,
    effect_scatter,
    excludes_zero,
    head_names,
    layer_profile,
    percent_scale,
    reach,
)
from vitmech_utils.figures.plots import DIVERGING, WIDE, WIDTH, heatmap, to_grid
from vitmech_utils.figures.tables import bullets, judgement_list, pipe_table, plain, shown
from vitmech_utils.profiles import Profile
from vitmech_utils.statistics import Interval
from vitmech_utils.studies.ablation.measure import STUDY_EARLY, STUDY_LATE
from vitmech_utils.studies.verdicts import FALSE_DISCOVERIES, Judgement

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from pandas.io.formats.style import Styler

COLUMNS = ["layer", "head", "effect", "low", "high", "q_value"]
CLAIMED = {"C1": "early heads hardly matter", "C2": "deeper heads matter about three times as much"}


@checked_arguments()
def opening(profile: Profile, layers: int, heads: int, few: int) -> str:
    """What this run of the chapter is made of."""
    plan = profile.ablation
    return (
        f"This page was made with profile **{profile.name}**: {layers} layers of {heads} heads, {plan.images:,} "
        f"held-out images for the modes {', '.join(plan.modes)}, the first {few:,} of them for the other modes and the "
        f"controls, {plan.bootstrap:,} bootstrap draws."
    )


@checked_arguments()
def effect_maps(tables: Mapping[str, pd.DataFrame]) -> "Figure":
    """The effects of some modes, one grid each; dots where an interval excludes zero."""
    figure, axes = plt.subplots(1, len(tables), figsize=(WIDE, 4.6), squeeze=False)
    for ax, (mode, table) in zip(axes[0], tables.items(), strict=True):
        marks = _effect_map(ax, table, "effect on the MSE (%)")
        ax.set_title(f"{mode}: {marks.sum()} of {marks.size} intervals exclude zero")
    return figure


@checked_arguments()
def leader(table: pd.DataFrame) -> str:
    """The name of the head of largest effect."""
    return head_names(table.loc[[table["effect"].idxmax()]])[0]


@checked_arguments()
def largest(table: pd.DataFrame, mode: str, top: int = 20) -> "Figure":
    """The heads with the largest absolute effects and their intervals."""
    figure, ax = plt.subplots(figsize=(WIDTH, 5.2))
    effect_forest(ax, table, top=top)
    ax.set_title(f"{leader(table)} matters most ({mode} ablation)")
    return figure


@checked_arguments()
def clear_heads(table: pd.DataFrame) -> pd.DataFrame:
    """The heads whose interval excludes zero, the largest effect first."""
    return table[excludes_zero(table)].sort_values("effect", ascending=False)[COLUMNS]


@checked_arguments()
def clear_text(table: pd.DataFrame, mode: str) -> str:
    """How many intervals exclude zero, how many are left after adjusting, and how many chance alone would give."""
    adjusted = (table["q_value"] < FALSE_DISCOVERIES).sum()
    return (
        f"**Heads whose interval excludes zero** ({mode}, {excludes_zero(table).sum()} of {len(table)}; after "
        f"adjusting for the number of heads {adjusted} remain at a false discovery rate of 5 %). By chance alone about "
        f"{0.05 * len(table):.1f} of {len(table)} would be listed. Layers and heads count from 1."
    )


@checked_arguments()
def clear_table(clear: pd.DataFrame) -> "Styler":
    """The heads of `clear_heads` as the page lists them."""
    listed = clear.assign(layer=clear["layer"] + 1, head=clear["head"] + 1).set_index(["layer", "head"])
    return shown(listed, {"effect": "+.2f", "low": "+.2f", "high": "+.2f", "q_value": ".3f"}, index=True)


@checked_arguments()
def layers_figure(layers: Mapping[str, pd.DataFrame], heads: Mapping[str, pd.DataFrame]) -> "Figure":
    """Mean effects per layer over the single heads', one panel a mode, with the study's two figures."""
    figure, axes = plt.subplots(1, len(layers), figsize=(WIDE, 3.6), squeeze=False)
    for ax, (mode, means) in zip(axes[0], layers.items(), strict=True):
        layer_profile(ax, means, heads[mode], label="this run")
        ax.hlines(STUDY_EARLY, 0.7, 3.3, color="#D55E00", label="study, layers 1-3")
        ax.hlines(STUDY_LATE, 5.7, 6.3, color="#009E73", label="study, layer 6")
        percent_scale(ax)
        ax.set_title(f"{mode}: layer {int(means.loc[means['effect'].idxmax(), 'layer']) + 1} matters most")
    axes[0, 0].legend(loc="best")
    return figure


@checked_arguments()
def study_table(compared: Mapping[str, Mapping[str, Interval]], images: Mapping[str, int]) -> str:
    """The study's mean effects and ratio beside those of each mode."""
    study = ("study", f"{STUDY_EARLY:+.2f}", f"{STUDY_LATE:+.2f}", f"{STUDY_LATE / STUDY_EARLY:.1f}")
    ours = [
        (
            f"{mode} ({images[mode]} images)",
            f"{c['early']:+.2f}",
            f"{c['late']:+.2f}",
            f"{c['ratio']:.1f}",
        )
        for mode, c in compared.items()
    ]
    return pipe_table(["mode", "layers 1-3 (%)", "layer 6 (%)", "ratio"], [study, *ours])


@checked_arguments()
def per_target(table: pd.DataFrame) -> "Figure":
    """Effects on each target's own error, one grid each."""
    figure, axes = plt.subplots(1, len(LABEL_NAMES), figsize=(WIDE, 4.2))
    for ax, target in zip(axes, LABEL_NAMES, strict=True):
        part = table.assign(**{name: table[f"{name}_{target}"] for name in ("effect", "low", "high")})
        _effect_map(ax, part, "effect (%)")
        ax.set_title(f"{plain(target)}: {leader(part)} leads")
    return figure


@checked_arguments()
def ablated_predictions(baseline: np.ndarray, without: np.ndarray, labels: np.ndarray, name: str) -> "Figure":
    """Predicted start times with all heads and without one; all [image, target], standardized."""
    true, all_heads, one_less = (
        np.asarray(values)[:, 0] * LABEL_STD[0] + LABEL_MEAN[0] for values in (labels, baseline, without)
    )
    figure, (left, right) = plt.subplots(1, 2, figsize=(WIDE, 3.6))
    both = np.concatenate([all_heads, one_less])
    bins = np.linspace(both.min(), both.max(), 16)
    for values, label in ((all_heads, "all heads"), (one_less, f"without {name}")):
        left.hist(values, bins=bins, alpha=0.6, label=label)
        right.plot(true, values, "o", markersize=4, alpha=0.7, label=label)
    moved = np.abs(one_less - all_heads).mean()
    left.set(xlabel="predicted start time (s)", ylabel="images")
    left.set_title(f"Predictions move by {moved:.2f} s on average")
    right.plot([0, LATEST_START], [0, LATEST_START], color="#444444", linewidth=0.8, linestyle="--")
    right.set(xlabel="true start time (s)", ylabel="predicted start time (s)")
    right.set_title("Where predictions lie beside the truth")
    left.legend()
    return figure


@checked_arguments()
def agreement(found: pd.DataFrame, effects: pd.DataFrame, modes: Sequence[str]) -> "Figure":
    """Rank correlations between modes, and the two modes that agree least, head by head.

    `found` has first, second, correlation; `effects` has layer, head, and a column per mode.
    """
    grid = np.eye(len(modes))
    for row in found.itertuples():
        i, j = modes.index(row.first), modes.index(row.second)
        grid[i, j] = grid[j, i] = row.correlation
    figure, (left, right) = plt.subplots(1, 2, figsize=(WIDE, 3.8), width_ratios=[1, 1.1])
    image = left.imshow(grid, vmin=-1, vmax=1, cmap=DIVERGING)
    left.set_xticks(range(len(modes)), modes, rotation=30, ha="right")
    left.set_yticks(range(len(modes)), modes)
    for i, j in np.ndindex(grid.shape):
        ink = "white" if abs(grid[i, j]) > 0.6 else "black"
        left.text(j, i, f"{grid[i, j]:.2f}", ha="center", va="center", color=ink)
    weakest = found.loc[found["correlation"].idxmin()]
    first, second = weakest["first"], weakest["second"]
    left.set_title(f"{first} and {second} agree least")
    figure.colorbar(image, ax=left, label="rank correlation")
    effect_scatter(right, effects[first], effects[second], head_names(effects))
    right.set(xlabel=f"effect, {first} (%)", ylabel=f"effect, {second} (%)")
    right.set_title("the same heads, two modes")
    percent_scale(right, "xy")
    return figure


@checked_arguments()
def agreement_table(found: pd.DataFrame) -> "Styler":
    """The rank correlations between modes, with intervals over heads."""
    return shown(found, dict.fromkeys(("correlation", "low", "high"), ".2f"))


@checked_arguments()
def slopes(
    exact: Mapping[str, pd.DataFrame],
    estimates: Mapping[str, pd.DataFrame],
    agree: Mapping[str, Interval],
) -> "Figure":
    """First-order estimates against exact effects, one panel a mode."""
    figure, axes = plt.subplots(1, len(estimates), figsize=(WIDE, 3.8), squeeze=False)
    for ax, (mode, estimate) in zip(axes[0], estimates.items(), strict=True):
        effect_scatter(ax, exact[mode]["effect"], estimate["effect"], head_names(exact[mode]))
        ax.set(xlabel="exact effect (%)", ylabel="first-order estimate (%)")
        ax.set_title(f"{mode}: rank correlation {agree[mode].value:.2f}")
        percent_scale(ax, "xy")
    return figure


@checked_arguments()
def slopes_text(exact: pd.DataFrame, estimate: pd.DataFrame, agree: Interval, mode: str) -> str:
    """How well one mode's estimates rank the heads, how often their sign is wrong, and where they are furthest off."""
    far = (exact["effect"] - estimate["effect"]).abs().idxmax()
    signs = float((np.sign(exact["effect"]) != np.sign(estimate["effect"])).mean())
    return (
        f"For {mode} ablation the estimate ranks the heads with a correlation of {agree:.2f} (95 % interval over "
        f"heads), gets the sign wrong for {signs:.0%} of them, and is furthest off at "
        f"{head_names(exact.loc[[far]])[0]}: exact {exact.loc[far, 'effect']:+.1f} %, estimated "
        f"{estimate.loc[far, 'effect']:+.1f} %."
    )


@checked_arguments()
def widths(found: pd.DataFrame, wanted: float, needed: Mapping[str, int]) -> "Figure":
    """Half-widths of the widest and the median interval against images, continued by the square-root law."""
    figure, ax = plt.subplots(figsize=(WIDTH, 3.6))
    for column, label in (("widest_half_width", "widest head"), ("median_half_width", "median head")):
        line = ax.plot(found["images"], found[column], "o-", label=label)
        far = np.array([found["images"].iloc[-1], max(needed.values())])
        law = found[column].iloc[-1] * np.sqrt(far[0] / far)
        ax.plot(far, law, ":", color=line[0].get_color())
    ax.axhline(wanted, color="#444444", linewidth=0.8)
    ax.set(xscale="log", yscale="log", xlabel="images", ylabel="half-width of the interval (%)")
    ax.set_title(f"The median head is known to ±{wanted:g} % after about {_rounded(needed['median'])} images")
    ax.legend()
    return figure


@checked_arguments()
def widths_text(wanted: float, needed: Mapping[str, int]) -> str:
    """How many images a wanted precision takes."""
    return (
        f"By that law every head would be known to within ±{wanted:g} percentage point after about "
        f"**{_rounded(needed['widest'])} images**, and half of them after {_rounded(needed['median'])}. The study took "
        f"100,000."
    )


@checked_arguments()
def stopping(history: pd.DataFrame, goal: float) -> str:
    """Where the sweep that stops by itself has stopped."""
    end = history.iloc[-1]
    return (
        f"After {end['images']} images the widest interval of the last layer is ±{end['widest_half_width']:.1f} "
        f"percentage points; the goal of ±{goal:g} is "
        + ("reached." if end["done"] else "not reached within this run's number of images.")
    )


@checked_arguments()
def head_sets(table: pd.DataFrame, linear: float = 10) -> "Figure":
    """Joint effects of sets of heads as bars with intervals, dashes at the sums of single effects.

    `table` has set, effect, low, high, sum_of_single: the top heads, the bottom ones, then random sets. The scale is
    linear up to `linear` percent.
    """
    figure, ax = plt.subplots(figsize=(WIDTH, 3.6))
    colours = ["#D55E00", "#0072B2", *["#BBBBBB"] * (len(table) - 2)]
    ax.bar(table["set"], table["effect"], yerr=reach(table), color=colours)
    ax.plot(table["set"], table["sum_of_single"], "k_", markersize=14, label="sum of single effects")
    ax.set(ylabel="effect on the MSE (%)")
    percent_scale(ax, linear=linear)
    ax.tick_params(axis="x", rotation=35)
    beaten, draws = int((table["effect"][2:] < table["effect"][0]).sum()), len(table) - 2
    ax.set_title(f"The {table['set'][0]} heads hurt more than {beaten} of {draws} random sets")
    ax.legend(loc="lower right")
    return figure


@checked_arguments()
def untrained(random: pd.DataFrame, trained: pd.DataFrame) -> str:
    """The effects of single heads in an untrained network beside those in the trained one."""
    random_effects, effects = random["effect"].abs(), trained["effect"].abs()
    return (
        f"In the untrained network the median head changes the error by {random_effects.median():.3f} % "
        f"({random['images'].iloc[0]} images), in the trained one by {effects.median():.2f} %. The largest effect is "
        f"{random_effects.max():.2f} % against {effects.max():.1f} %."
    )


@checked_arguments()
def other_seeds(agree: pd.DataFrame, seed: int) -> str:
    """How the order of heads returns in other trainings: seed, value, low, high."""
    return bullets(
        (
            f"seeds {seed} and {row.seed}: rank correlation of the heads' effects "
            f"{Interval(row.value, row.low, row.high):.2f}"
            for row in agree.itertuples()
        ),
        none="This profile trains one seed, so there is nothing to compare here.",
    )


@checked_arguments()
def sign_table(signs: pd.DataFrame) -> "Styler":
    """The failure signatures, each with what was found."""
    return signs.style.format({"found": "{:.2f}"}).hide(axis="index")


@checked_arguments()
def verdict(found: Mapping[str, Interval], judged: Mapping[str, Judgement], mode: str, images: int) -> str:
    """The layers' mean effects beside the study's, and the verdicts on both claims."""
    return (
        f"On {images} images, {mode} ablation: a head of layers 1-3 changes the error by {found['early']:+.2f} % on "
        f"average (95 % interval; study {STUDY_EARLY:+.2f} %), one of layer 6 by {found['late']:+.2f} % (study "
        f"{STUDY_LATE:+.2f} %), a ratio of {found['ratio']:.1f} (study {STUDY_LATE / STUDY_EARLY:.1f}).\n\n"
        + judgement_list(judged, CLAIMED)
    )


def _effect_map(ax: "Axes", table: pd.DataFrame, label: str) -> np.ndarray:
    """Draw a grid of effects with dots where an interval excludes zero; returns those marks [layer, head]."""
    marks = to_grid(table.assign(mark=excludes_zero(table).astype(float)), "mark") == 1
    heatmap(ax, table, label=label, diverging=True, linear=1.0, marked=marks)
    return marks


def _rounded(images: int) -> str:
    return f"{float(f'{images:.2g}'):,.0f}"
