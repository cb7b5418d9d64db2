"""What chapter 04 shows: effects head by head and layer by layer, modes and estimates against each other, controls."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
    plain_log,
    reach,
)
from vitmech_utils.figures.plots import DIVERGING, WIDE, WIDTH, headline, heatmap, to_grid
from vitmech_utils.figures.tables import from_zero, judgement_list, pipe_table, plain, shown
from vitmech_utils.profiles import Profile
from vitmech_utils.statistics import Interval
from vitmech_utils.studies.ablation.judge import in_full, squares
from vitmech_utils.studies.ablation.measure import STUDY_EARLY, STUDY_LATE
from vitmech_utils.studies.coverage import draws_tried, method_for
from vitmech_utils.studies.verdicts import FALSE_DISCOVERIES, Judgement

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from pandas.io.formats.style import Styler

COLUMNS = ["layer", "head", "effect", "low", "high", "q_value"]
CLAIMED = {"C1": "early heads hardly matter", "C2": "deeper heads matter about three times as much"}


@checked_arguments()
def opening(profile: Profile, layers: int, heads: int, held_out: int) -> str:
    """What this run of the chapter is made of."""
    plan = profile.ablation
    few = f" in one layer in {plan.other_sweep_every} only" if plan.other_sweep_every > 1 else ""
    return (
        f"This page was made with profile **{profile.name}**: {layers} layers of {heads} heads, {plan.images:,} "
        f"held-out images to first order; of these {plan.exact_images:,} exactly by {', '.join(plan.modes)} ablation, "
        f"{plan.other_exact_images:,} by every other mode{few}. Percentages are of the model's loss on {held_out:,} "
        "held-out images. Intervals are 95 % intervals."
    )


@checked_arguments()
def effect_maps(tables: Mapping[str, pd.DataFrame]) -> "Figure":
    """The effects of some modes on one scale, one grid each; dots where an interval excludes zero."""
    figure, axes = plt.subplots(1, len(tables), figsize=(WIDE, 4.6), squeeze=False)
    most = max(float(table["effect"].abs().max()) for table in tables.values())
    for ax, (mode, table) in zip(axes[0], tables.items(), strict=True):
        marks = _effect_map(ax, table, "effect on the MSE (%)", most)
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
        f"**Heads whose interval excludes zero**: {excludes_zero(table).sum()} of {len(table)} ({mode}; by chance "
        "alone "
        f"about {0.05 * len(table):.1f}). By a second test, signs drawn at random and adjusted for the number of "
        "heads, "
        f"{adjusted} heads have an effect at a false discovery rate of 5 %. Layers and heads count from 1."
    )


@checked_arguments()
def clear_table(clear: pd.DataFrame) -> "Styler":
    """The heads of `clear_heads` as the page lists them."""
    listed = clear.assign(layer=clear["layer"] + 1, head=clear["head"] + 1).set_index(["layer", "head"])
    return shown(listed, {"effect": "+.2f", "low": "+.2f", "high": "+.2f", "q_value": ".3f"}, index=True)


@checked_arguments()
def layers_figure(layers: pd.DataFrame, heads: pd.DataFrame, mode: str) -> "Figure":
    """Mean effect and mean shift per layer over the single heads', with the study's two figures; one mode."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(WIDE, 3.6), sharey=True)
    layer_profile(left, layers, heads, label="this run")
    left.hlines(STUDY_EARLY, 0.7, 3.3, color="#D55E00", label="study, layers 1-3")
    left.hlines(STUDY_LATE, 5.7, 6.3, color="#009E73", label="study, layer 6")
    as_effect = {"shift": "effect", "low_shift": "low", "high_shift": "high"}
    moved = layers[["layer", *as_effect]].rename(columns=as_effect)
    moved["low"] = moved["low"].clip(lower=0)  # see `from_zero`
    layer_profile(right, moved, heads[["layer", *as_effect]].rename(columns=as_effect))
    right.set_ylabel("")
    top = int(layers.loc[layers["effect"].idxmax(), "layer"]) + 1
    most = int(layers.loc[layers["shift"].idxmax(), "layer"]) + 1
    left.set_title(f"Effect on the loss: largest in layer {top}")
    right.set_title(f"Shift of the answer: largest in layer {most}")
    percent_scale(left)
    left.set_ylabel(f"% of the held-out loss ({mode})")
    left.legend(loc="upper left", fontsize=8)
    return figure


@checked_arguments()
def study_table(comparison: pd.DataFrame) -> str:
    """The study's mean effects and ratio beside those of each mode, by effect and by shift."""
    rows = [("study", "", f"{STUDY_EARLY:+.2f}", f"{STUDY_LATE:+.2f}", f"{STUDY_LATE / STUDY_EARLY:.1f}")]
    for mode, part in comparison.groupby("mode", sort=False):
        found = {row.quantity: Interval(row.value, row.low, row.high) for row in part.itertuples()}
        images = f"{part['images'].iloc[0]:,}, {part['exact_images'].iloc[0]:,} exactly"
        for what, ends, sign in (("effect", "", "+"), ("shift", "_shift", "")):
            values = [found[f"{name}{ends}"] for name in ("early", "late", "ratio")]
            *means, ratio = map(from_zero, values) if ends else values
            words = (in_full(mean, f"{sign}.2f") for mean in means)
            rows.append((f"{mode}, {what}", images, *words, in_full(ratio, ".1f")))
    table = pipe_table(["mode", "images", "layers 1-3 (%)", "layer 6 (%)", "ratio"], rows)
    return (
        f"{table}\n\nA shift is a mean square: how many times as far the answer moves is the root of a ratio of "
        "shifts. A bound of a shift that would be negative is shown as zero, and the interval of a ratio is not the "
        "ratio of the two intervals. *Resample* takes what the head writes on the same chirp drawn without "
        "decorations: its effect is what the decorations add to the head's output, so its order of heads need not "
        "resemble the others'."
    )


@checked_arguments()
def per_target(table: pd.DataFrame) -> "Figure":
    """Effects on each target's own error on one scale, one grid each."""
    figure, axes = plt.subplots(1, len(LABEL_NAMES), figsize=(WIDE, 4.2))
    most = float(table[[f"effect_{target}" for target in LABEL_NAMES]].abs().max(axis=None))
    for ax, target in zip(axes, LABEL_NAMES, strict=True):
        part = table.assign(**{name: table[f"{name}_{target}"] for name in ("effect", "low", "high")})
        _effect_map(ax, part, "effect (%)", most)
        ax.set_title(f"{plain(target)}: {leader(part)} leads")
    return figure


@checked_arguments()
def ablated_predictions(found: Mapping[str, np.ndarray], name: str) -> "Figure":
    """Predicted start times with all heads (`baseline`) and `without` one, beside the `labels`; all standardized."""
    true, all_heads, one_less = (
        np.asarray(found[key])[:, 0] * LABEL_STD[0] + LABEL_MEAN[0]
        for key in ("labels", "baseline", "without")
    )
    figure, (left, right) = plt.subplots(1, 2, figsize=(WIDE, 3.6))
    both = np.concatenate([all_heads, one_less])
    bins = np.linspace(both.min(), both.max(), 16)
    for values, label in ((all_heads, "all heads"), (one_less, f"without {name}")):
        left.hist(values, bins=bins, alpha=0.6, label=label)
        right.plot(true, values, "o", markersize=4, alpha=0.7, label=label)
    moved = np.abs(one_less - all_heads).mean()
    left.set(xlabel="predicted start time (s)", ylabel="images")
    left.yaxis.get_major_locator().set_params(integer=True)
    left.set_title(f"Predictions move by {moved:.2f} s on average ({len(true)} images)")
    right.plot([0, LATEST_START], [0, LATEST_START], color="#444444", linewidth=0.8, linestyle="--")
    right.set(xlabel="true start time (s)", ylabel="predicted start time (s)")
    right.set_title("Where predictions lie beside the truth")
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


@checked_arguments()
def agreement(found: pd.DataFrame, effects: pd.DataFrame, modes: Sequence[str]) -> "Figure":
    """Rank correlations between modes, and the two modes that agree least, head by head.

    `found` has first, second, quantity, correlation; `effects` has layer, head, and a column per mode.
    """
    found = found[found["quantity"] == "effect"].reset_index(drop=True)
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
    effects = effects.dropna(subset=[first, second])
    effect_scatter(right, effects[first], effects[second], head_names(effects))
    right.set(xlabel=f"effect, {first} (%)", ylabel=f"effect, {second} (%)")
    right.set_title("the same heads, two modes")
    right.set(**_same_ends(effects[[first, second]]))
    percent_scale(right, "xy", linear=10.0)
    return figure


@checked_arguments()
def agreement_table(found: pd.DataFrame) -> "Styler":
    """The rank correlations between modes, by effect and by shift, with intervals over images."""
    bounds = {name: found[name].clip(-1, 1) for name in ("low", "high")}  # lengthened ones may reach beyond
    return shown(found.assign(**bounds), dict.fromkeys(("correlation", "low", "high"), ".2f"))


@checked_arguments()
def answers_table(table: pd.DataFrame, top: int = 8) -> "Styler":
    """Shift, effect, and readings that break or mend, of the heads that move the answer most."""
    rows = table.nlargest(top, "shift")
    percent = {
        "shift": Column("shift", "low_shift", "high_shift", least=0),
        "effect": Column("effect", "low", "high"),
        "effect on whole readings": Column("effect_whole", "low_effect_whole", "high_effect_whole"),
        "broken": Column("broken", "low_broken", "high_broken", 100, least=0),
        "mended": Column("mended", "low_mended", "high_mended", 100, least=0),
    }
    cells = {name: column.cells(rows) for name, column in percent.items()}
    return shown(pd.DataFrame({"head": head_names(rows)} | cells), {})


@dataclass(frozen=True)
class Column:
    """The three columns of a table that make one cell: a value and its bounds, in percent after `scale`.

    A bound below `least`, which the value cannot have, is shown as that.
    """

    value: str
    low: str
    high: str
    scale: float = 1
    least: float = -np.inf

    def cells(self, rows: pd.DataFrame) -> list[str]:
        """One text a row."""
        numbers = (rows[[self.value, self.low, self.high]].to_numpy(float) * self.scale).clip(self.least)
        return [f"{in_full(Interval(*map(float, row)), '.1f')} %" for row in numbers]


@checked_arguments()
def approximations(table: pd.DataFrame, ranks: pd.DataFrame) -> "Figure":
    """Effects from the loss's slope and from linearized outputs against exact ones: a row each, a panel a mode."""
    modes = list(dict.fromkeys(table["mode"]))
    figure, axes = plt.subplots(2, len(modes), figsize=(WIDE, 5.0), squeeze=False, sharex=True, sharey=True)
    said = {"slope": "slope of the loss", "linearized": "linearized outputs"}
    axes[0, 0].set(**_same_ends(table[["exact", *said]]))
    for row, (measure, name) in zip(axes, said.items(), strict=True):
        for ax, mode in zip(row, modes, strict=True):
            part = table[table["mode"] == mode].reset_index(drop=True)
            effect_scatter(ax, part["exact"], part[measure], head_names(part), label=2)
            found = ranks.query("mode == @mode and measure == @measure")["correlation"].iloc[0]
            ax.set_title(f"{mode}: {found:.2f}")
            percent_scale(ax, "xy", linear=10.0, most=3)
            ax.set_xlabel("exact effect (%)" if measure == "linearized" else "")
        row[0].set_ylabel(f"{name} (%)")
    return figure


def _same_ends(effects: pd.DataFrame) -> dict[str, tuple[float, float]]:
    """Limits of both axes that hold all of these effects, in percent."""
    ends = min(-4.0, 2 * float(effects.min().min())), max(4.0, 2 * float(effects.max().max()))
    return {"xlim": ends, "ylim": ends}


@checked_arguments()
def approximations_text(table: pd.DataFrame, ranks: pd.DataFrame, mode: str) -> str:
    """How well both approximations order the heads in one mode, and how they follow single images, low layers last."""
    part = table[table["mode"] == mode]
    found = {
        row.measure: Interval(row.correlation, row.low, row.high)
        for row in ranks.query("mode == @mode").itertuples()
    }
    exact = part.set_index(["layer", "head"])["exact"]
    wrong = {
        measure: float((np.sign(part["exact"]) != np.sign(part[measure])).mean())
        for measure in ("slope", "linearized")
    }
    low = part[part["layer"] < 2]["by_image"].median()
    top = exact.abs().idxmax()
    leading = part.set_index(["layer", "head"]).loc[top]
    return (
        f"By {mode} ablation, on the {int(part['images'].iloc[0]):,} images that were ablated exactly: the slope of "
        f"the loss orders the heads as the exact effects do with a rank correlation of {found['slope']:.2f} and has "
        f"the wrong sign for {wrong['slope']:.0%} of them; linearized outputs reach {found['linearized']:.2f} and "
        f"{wrong['linearized']:.0%}. For the largest effect, {leading['exact']:+.1f} %, the slope "
        f"says {leading['slope']:+.1f} % and linearized outputs "
        f"{leading['linearized']:+.1f} %. Image by image, linearized and exact effects correlate by "
        f"{part['by_image'].median():.2f} for the median head, by {low:.2f} in layers 1 and 2."
    )


@checked_arguments()
def precision(costs: pd.DataFrame, mode: str) -> "Figure":
    """Half-widths against processor time for one mode: plain hooks, exact replay, and linearized outputs corrected."""
    row = costs[costs["mode"] == mode].iloc[0]
    figure, ax = plt.subplots(figsize=(WIDTH, 3.6))
    seconds = row["seconds"] * np.geomspace(0.05, 20, 50)
    for columns, name, colour in (
        (("half_width_hooks",), "exact, plain hooks", "#888888"),
        (("half_width_exact", "widest_exact"), "exact, replayed", "#0072B2"),
        (("half_width", "widest"), "linearized, corrected exactly", "#D55E00"),
    ):
        for column, style in zip(columns, ("-", ":"), strict=False):
            law = row[column] * np.sqrt(row["seconds"] / seconds)
            ax.plot(
                seconds / 60,
                law,
                style,
                color=colour,
                label=f"{name}, {'median' if style == '-' else 'widest'} head",
            )
        ax.plot(row["seconds"] / 60, row[columns[0]], "o", color=colour)
    plain_log(ax, "xy")
    ax.set(xlabel="processor minutes", ylabel="half-width (% of the loss)")
    modes, longer = _shared(costs, mode)
    hooks, replay = (1 / row[name] for name in ("cheaper_hooks", "cheaper"))
    alone = (
        f"\n({modes} modes share the linearizing; one alone: {longer * hooks:.0%} and {longer * replay:.0%})"
        if modes > 1
        else ""
    )
    ax.set_title(
        f"The median head's interval takes {hooks:.0%} of plain hooks' time, {replay:.0%} of exact replay's{alone}"
        if row["cheaper"] > 1
        else "On so few images linearized outputs save no time"
    )
    ax.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=2)
    return figure


def _shared(costs: pd.DataFrame, mode: str) -> tuple[int, float]:
    """How many modes were linearized in one pass with this one, and how many times as long it would take alone.

    Each of them is charged an equal part of that pass.
    """
    row = costs[costs["mode"] == mode].iloc[0]
    modes = int((costs["cheap_seconds"] == row["cheap_seconds"]).sum())
    return modes, 1 + (modes - 1) * row["cheap_seconds"] * row["images"] / row["seconds"]


@checked_arguments()
def precision_table(costs: pd.DataFrame) -> "Styler":
    """What every mode's intervals cost, and what exact images alone would have bought."""
    names = {
        "mode": "mode", "images": "images", "exact_images": "of them exactly",
        "cheap_seconds": "s an image, linearized",
        "exact_seconds": "s an image, exact", "hook_seconds": "s an image, plain hooks",
        "half_width": "± % (median head)",
        "half_width_exact": "± % with exact images alone", "cheaper": "times cheaper",
        "cheaper_hooks": "times cheaper than hooks",
    }  # fmt: skip
    table = costs[list(names)].rename(columns=names)
    shared = [_shared(costs, mode) for mode in costs["mode"]]
    table["modes that share the linearizing"] = [modes for modes, _ in shared]
    alone = {
        "times cheaper, one mode alone": "cheaper",
        "times cheaper than hooks, one mode alone": "cheaper_hooks",
    }
    for name, column in alone.items():
        table[name] = costs[column].to_numpy() / [longer for _, longer in shared]
    digits = dict.fromkeys(list(names.values())[3:8], ".2f")
    digits |= dict.fromkeys([*list(names.values())[8:], *alone], ".1f")
    return shown(table, digits)


@checked_arguments()
def coverage(table: pd.DataFrame) -> "Figure":
    """How often nominal 95 % intervals hold the truth, against images: percentile bootstrap and the book's choice."""
    quantities = list(dict.fromkeys(table["quantity"]))
    figure, axes = plt.subplots(1, len(quantities), figsize=(WIDE, 3.4), sharey=True, squeeze=False)
    for ax, quantity in zip(axes[0], quantities, strict=True):
        part = table[table["quantity"] == quantity].set_index(["images", "method"])["covered"]
        images = list(dict.fromkeys(table["images"]))
        for name, colour, how in (
            ("percentile bootstrap", "#888888", lambda _quantity, _images: "percentile"),
            ("what this book takes", "#D55E00", method_for),
        ):
            covered = [part[number, how(quantity, number)] for number in images]
            ax.plot(images, covered, "o-", color=colour, label=name)
        ax.axhline(95, color="#444444", linewidth=0.8, linestyle="--")
        ax.set(xscale="log", xlabel="images", title=quantity)
    axes[0, 0].set_ylabel("intervals that hold the truth (%)")
    axes[0, 0].legend(loc="lower right")
    return headline(figure, f"{draws_tried():,} draws for each number of images")


@checked_arguments()
def stopping(history: pd.DataFrame, goal: float) -> str:
    """Where the sweep that stops by itself has stopped."""
    end = history.iloc[-1]
    return (
        f"After {end['images']} other held-out images, {end['exact_images']} of them ablated exactly, the widest "
        f"interval of the last layer is ±{end['widest_half_width']:.1f} percent; the goal of ±{goal:g} is "
        + ("reached." if end["done"] else "not reached within this run's number of images.")
    )


@checked_arguments()
def sets_text(table: pd.DataFrame) -> str:
    """How small a p-value so few random sets allow; `table` as in `head_sets`."""
    draws = len(table) - 2
    larger = int((table["effect"][2:] >= table["effect"][0]).sum())
    return (
        f"There are {draws} random sets. Among them and the top set, the rank of the top set gives "
        f"p = {(larger + 1) / (draws + 1):.2f}; with so few sets it cannot be smaller than {1 / (draws + 1):.2f}, "
        "however much the top set hurts."
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
    ax.set(ylabel=f"effect (% of the held-out loss; {table['images'].iloc[0]:,} images)")
    percent_scale(ax, linear=linear)
    ax.tick_params(axis="x", rotation=35)
    beaten, draws = int((table["effect"][2:] < table["effect"][0]).sum()), len(table) - 2
    clear = "" if table["low"][0] > 0 else "; by how much is not known"
    ax.set_title(
        f"{table['set'][0]}: a larger mean effect than {beaten} of {draws} random sets{clear}".capitalize()
    )
    ax.legend(loc="lower right")
    return figure


@checked_arguments()
def untrained(random: pd.DataFrame, trained: pd.DataFrame) -> str:
    """The effects of single heads in an untrained network beside those in the trained one."""
    own = "baseline_loss" if "baseline_loss" in trained else "baseline_mse"
    changes = {
        name: (
            table["effect"].abs() / 100 * table[column],
            float(table[column].iloc[0]),
            int(table["images"].iloc[0]),
        )
        for name, table, column in (("untrained", random, "baseline_mse"), ("trained", trained, own))
    }
    told = "; ".join(
        f"in the {name} network, whose MSE is {mse:.3g}, by {change.median():.2g} for the median head and at most "
        f"{change.max():.2g} ({images:,} images)"
        for name, (change, mse, images) in changes.items()
    )
    medians, clear = (
        [change.median() for change, _, _ in changes.values()],
        [int(excludes_zero(table).sum()) for table in (random, trained)],
    )
    apart = (
        "The medians do not separate the two networks, the largest do"
        if medians[0] > medians[1] / 2
        else "The median head does more in the trained network"
    )
    return (
        f"By {trained['mode'].iloc[0]} ablation a head changes the MSE {told}. Percentages of such different errors "
        f"could not be compared. {apart}; intervals exclude zero for {clear[0]} of {len(random)} heads of the "
        f"untrained network and for {clear[1]} of {len(trained)} of the trained one.{_unlike(changes)}"
    )


def _unlike(changes: Mapping[str, tuple[pd.Series, float, int]]) -> str:
    """What unlike numbers of images mean for a comparison of both networks."""
    random, trained = (images for _, _, images in changes.values())
    if random == trained:
        return ""
    return (
        f" These two counts rest on unlike numbers of images ({random:,} and {trained:,}), so they do not compare the "
        f"networks: with the same spread, intervals are {np.sqrt(trained / random):.1f} times as wide in the first, "
        "and noise makes the changes there look larger."
    )


@checked_arguments()
def sign_table(signs: pd.DataFrame) -> "Styler":
    """The failure signatures, each with what was found."""
    return signs.style.format({"found": "{:.2f}"}).hide(axis="index")


@checked_arguments()
def verdict(found: Mapping[str, Interval], judged: Mapping[str, Judgement], mode: str, images: int) -> str:
    """The layers' mean effects beside the study's, and the verdicts on both claims."""
    moved = {name: from_zero(value) for name, value in found.items() if name.endswith("_shift")}
    return (
        f"On {images:,} images, {mode} ablation: a head of layers 1-3 changes the loss by "
        f"{in_full(found['early'], '+.2f')} % on average (study {STUDY_EARLY:+.2f} %), with a mean squared shift of "
        f"the answer of {in_full(moved['early_shift'], '.2f')} % of it, one of layer 6 by "
        f"{in_full(found['late'], '+.2f')} % (study {STUDY_LATE:+.2f} %) and "
        f"{in_full(moved['late_shift'], '.2f')} %. The ratio is "
        f"{in_full(found['ratio'], '.1f')} by effect (study {STUDY_LATE / STUDY_EARLY:.1f}) and by shift "
        f"{squares({mode: found['ratio_shift']}, mode)}.\n\n" + judgement_list(judged, CLAIMED)
    )


@checked_arguments()
def what_you_know(
    compared: Mapping[str, Mapping[str, Interval]],
    table: pd.DataFrame,
    ranks: pd.DataFrame,
    costs: pd.DataFrame,
    mode: str,
) -> str:
    """The chapter in three sentences; `table` is the mode's sweep."""
    ratio = squares({name: found["ratio_shift"] for name, found in compared.items()}, mode)
    early, moved = (
        ", ".join(
            f"{in_full(from_zero(found[what]) if '_' in what else found[what], f'{sign}.1f')} % by {name}"
            for name, found in compared.items()
        )
        for what, sign in (("early", "+"), ("early_shift", ""))
    )
    far = (
        f"by {mode} ablation the mean squared shift of the answer is larger for a head of layer 6 than for one of "
        f"layers 1-3: {ratio}"
        if compared[mode]["ratio_shift"].low > 1
        else f"by {mode} ablation the mean squared shift of the answer for a head of layer 6 over one of layers 1-3 is "
        f"not known well enough: {ratio}"
    )
    clear = int((table["low"] > 0).sum())
    top = table.loc[table["effect"].idxmax()]
    fit = ranks.query("mode == @mode").set_index("measure")
    found = {name: Interval(row["correlation"], row["low"], row["high"]) for name, row in fit.iterrows()}
    cost = costs.set_index("mode").loc[mode]
    modes, longer = _shared(costs, mode)
    shared = (
        f", where {modes} modes share the linearizing, in {min(longer / cost['cheaper'], 1):.0%} for one mode alone"
        if modes > 1 and cost["cheaper"] > 1
        else ""
    )
    return (
        f"1. A head of layers 1-3 changes the loss on average by {early}. Its mean squared shift of the answer, in "
        f"percent of that loss, depends more clearly on what taking it away means: {moved}.\n"
        f"2. The largest single effect is that of {leader(table)}: without it the loss grows by "
        f"{Interval(top['effect'], top['low'], top['high']):+.0f} %; {clear} of {len(table)} heads have an effect "
        "that is "
        f"clearly above zero, and {far}.\n"
        f"3. Linearized outputs order the heads as exact ablation does, with a rank correlation of "
        f"{found['linearized']:.2f}, where the slope of the loss reaches {found['slope']:.2f}; corrected by exact "
        f"images, they give the median head's interval in {1 / max(cost['cheaper'], 1):.0%} of the processor time that "
        f"exact images alone would take{shared}."
    )


def _effect_map(ax: "Axes", table: pd.DataFrame, label: str, most: float) -> np.ndarray:
    """Draw a grid of effects up to `most` with dots where an interval excludes zero; returns these [layer, head]."""
    marks = to_grid(table.assign(mark=excludes_zero(table).astype(float)), "mark") == 1
    heatmap(ax, table, label=label, diverging=True, limits=(-most, most), linear=1.0, marked=marks)
    return marks
