"""What chapter 08 shows: which heads went, what that could save, what it cost, error against time, and the words."""

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.colors import ListedColormap

from vitmech_utils.arguments import checked_arguments
from vitmech_utils.data.chirps import LABEL_NAMES
from vitmech_utils.figures.marks import percent_scale_to
from vitmech_utils.figures.plots import WIDTH, headline
from vitmech_utils.figures.tables import (
    bullets,
    counted,
    frame_table,
    interval,
    listed,
    percent,
    pipe_table,
    plain,
    three_sentences,
)
from vitmech_utils.heads.costs import Costs
from vitmech_utils.intervals import METHOD
from vitmech_utils.profiles import Profile
from vitmech_utils.statistics import Interval
from vitmech_utils.studies.coverage import measured
from vitmech_utils.studies.verdicts import EFFECT, Judgement

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from pandas.io.formats.style import Styler

CHOICES: dict[str, tuple[str, str]] = {
    "unpruned": ("#000000", "s"),
    "masked": ("#000000", "X"),
    "layers 1-3": ("#D55E00", "D"),
    "layers 1-3, means kept": ("#E69F00", "d"),
    "least effect": ("#0072B2", "o"),
    "first order": ("#009E73", "^"),
    "in rounds": ("#CC79A7", "v"),
    "random": ("#888888", "P"),
}
"""One fixed colour and marker per way of choosing heads."""
KEPT = ("layers 1-3, means kept",)
"""Choices whose heads leave something in their place, other than those of the random sets."""
SHARES = ("#D55E00", "#F0B48A", "#D0D7DE")
"""Colours of the work: what goes, what the attention keeps, all the rest."""


Heads = Collection[tuple[int, int]]


@checked_arguments()
def opening(profile: Profile, count: int, total: int) -> str:
    """What the page was made with; `count` of `total` heads go at a time."""
    plan = profile.pruning
    exact = min(profile.ablation.other_exact_images, plan.choice_images)
    return (
        f"This page was made with profile **{profile.name}**: {count} of {total} heads go at a time, chosen by their "
        f"effects on those of {plan.choice_images:,} images that the model reads ({exact:,} of them "
        f"ablated exactly), or at random "
        f"({plan.random_sets:,} draws), and judged on {plan.images:,} held-out images that no choice has seen, in "
        f"percent of the whole model's loss on all held-out images. "
        f"Recovery takes {counted(plan.recovery_steps, 'step')} of {plan.recovery_batch} images, every time is taken "
        f"{plan.repeats:,} times."
    )


# Removed, not muted, and the ceiling


@checked_arguments()
def through_a_file(found: Mapping[str, float], whole: Costs, less: Costs) -> str:
    """What the model read back from a file predicts, and how much smaller it is."""
    return (
        "Read back, the model without layers 1-3's heads predicts what the muted one predicts: the largest "
        "difference "
        f"on two images is {found['apart']:.1g} in standard deviations of the labels, no more than the "
        "arithmetic's rounding, "
        f"while "
        f"muting itself moves these predictions by up to {found['moved']:.2f}. The file takes "
        f"{found['megabytes']:.0f} MB instead of {whole.parameters * 4e-6:.0f} MB ({less.parameters / 1e6:.1f} of "
        f"{whole.parameters / 1e6:.1f} million parameters); it was deleted after the check."
    )


@checked_arguments()
def attention_share(shares: Mapping[str, float], limits: pd.DataFrame, count: int, total: int) -> "Figure":
    """The attention's part of the work, titled with the highest ceiling for `count` of `total` heads."""
    figure, ax = plt.subplots(figsize=(WIDTH, 2.6))
    work_bars(ax, shares, count / total)
    headline(
        figure,
        f"Removing {count} of {total} heads can make it at most {limits['ceiling'].max():.2f} times as fast",
    )
    return figure


@checked_arguments()
def ceilings(limits: pd.DataFrame, count: int) -> str:
    """The ceilings as a table; `count` heads are removed."""
    table = frame_table(
        limits,
        {
            "work": "work",
            "attention_share": ("attention's share", ".1%"),
            "ceiling": (f"ceiling, {count} heads removed", ".2f"),
            "ceiling_all_heads": ("ceiling, all heads removed", ".2f"),
        },
    )
    return (
        f"{table}\n\nCeilings are factors of speed. The norm in front of a removed sublayer goes as well and is not "
        "counted here, so a measured factor may end up a little above its ceiling."
    )


# Which heads


@checked_arguments()
def chosen(sets: Mapping[str, Heads], early: Heads, layers: int, heads: int) -> "Figure":
    """The heads that go under each choice, titled with how many of those of least effect lie in layers 1-3."""
    figure = chosen_grids(sets, layers, heads)
    shared = len(set(sets["least effect"]) & set(early))
    headline(figure, f"{shared} of the {len(early)} heads of least effect lie in layers 1-3")
    return figure


@checked_arguments()
def chosen_text(
    sets: Mapping[str, Heads],
    early: Heads,
    layers: int,
    heads: int,
    images: tuple[int, int],
    left_out: float,
) -> str:
    """How the choices agree; `images` are those that heads are chosen on and all that were asked.

    `left_out` is the share of the squared error that lies on the others.
    """
    count, total = len(early), layers * heads
    least = set(sets["least effect"])
    emptied = {
        name: sum(all((layer, head) in chosen for head in range(heads)) for layer in range(layers))
        for name, chosen in sets.items()
    }
    return (
        f"Heads are chosen on {images[0]:,} of {images[1]:,} images; what is left out would make up {left_out:.0%} "
        f"of "
        f"the whole model's squared error. By chance {count * count / total:.1f} of the {count} heads of least "
        f"effect "
        f"would lie in layers 1-3; found there: {len(least & set(early))}. The choices of least "
        f"effect and of first order agree on {len(least & set(sets['first order']))} of {count} heads (by chance "
        f"{count * count / total:.1f}). Attention sublayers that go as "
        f"a "
        f"whole: {listed(f'{whole} ({name})' for name, whole in emptied.items() if whole)}."
    )


@checked_arguments()
def how_known(single: pd.DataFrame, chosen: Heads) -> str:
    """How well the effects that chose are known: `single` has those of all heads, `chosen` names the heads that go."""
    open_ends = single[(single["low"] <= 0) & (single["high"] >= 0)]
    gone = sum((row.layer, row.head) in chosen for row in open_ends.itertuples())
    return (
        f"These effects are known badly one by one: the intervals of {len(open_ends)} of all {len(single)} heads, and "
        f"of {gone} of the {len(chosen)} heads of least effect, include zero. Other images would choose others in part."
    )


@checked_arguments()
def chosen_grids(
    sets: Mapping[str, Collection[tuple[int, int]]], layers: int, heads: int, columns: int = 3
) -> "Figure":
    """One small layer x head grid (1-based ticks) per choice; heads that go are filled in the choice's colour."""
    rows = -(-len(sets) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(WIDTH, 2.9 * rows), sharex=True, sharey=True, squeeze=False
    )
    every = 1 if heads <= 8 else 2
    for ax, (name, chosen) in zip(axes.flat, sets.items(), strict=False):
        grid = np.zeros((layers, heads))
        for pair in chosen:
            grid[pair] = 1
        colours = ListedColormap(["#EEEEEE", _look(name)[0]])
        ax.imshow(grid, aspect="auto", cmap=colours, vmin=0, vmax=1)
        ax.set_xticks(range(0, heads, every), [str(head + 1) for head in range(0, heads, every)])
        ax.set_yticks(range(layers), [str(layer + 1) for layer in range(layers)])
        ax.set_xticks(np.arange(heads - 1) + 0.5, minor=True)
        ax.set_yticks(np.arange(layers - 1) + 0.5, minor=True)
        ax.grid(which="minor", color="white", linewidth=1.2)
        ax.tick_params(length=0, which="both", labelbottom=True)
        ax.spines[:].set_visible(False)
        ax.set_xlabel("head")
        ax.set_title(name, fontsize=10)
    for ax in axes.flat[len(sets) :]:
        ax.axis("off")
    for ax in axes[:, 0]:
        ax.set_ylabel("layer")
    return figure


@checked_arguments()
def work_bars(ax: "Axes", shares: Mapping[str, float], removed: float) -> None:
    """Stack, per kind of work, the attention of the heads that go, that of the heads that stay, and all the rest.

    `shares` are the attention's parts of all work, in [0, 1]; `removed` is the part of the heads that go.
    """
    names, parts = list(shares), np.array(list(shares.values()))
    stacked = {
        "attention that goes": parts * removed,
        "attention that stays": parts * (1 - removed),
        "everything else": 1 - parts,
    }
    left = np.zeros(len(parts))
    for (label, width), colour in zip(stacked.items(), SHARES, strict=True):
        ax.barh(names, 100 * width, left=100 * left, color=colour, label=label, height=0.62)
        for place, (start, part) in enumerate(zip(left, width, strict=True)):
            if part > 0.05:
                ink = "white" if colour == SHARES[0] else "#222222"
                ax.text(100 * (start + part / 2), place, f"{part:.0%}", ha="center", va="center", color=ink)
        left = left + width
    ax.invert_yaxis()
    ax.set_xlim(0, 100)
    ax.set_xlabel("share of one forward pass (%)")
    ax.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=3, columnspacing=1.0, handlelength=1.2)


# What it costs


@checked_arguments()
def choices(same_size: pd.DataFrame, draws: pd.Series, keeping: pd.Series, layers: str) -> "Figure":
    """Every choice of as many heads with its effect; `layers` names the early ones.

    `draws` are the random sets' effects, `keeping` those of the first of them with their means kept.
    """
    figure, ax = plt.subplots(figsize=(WIDTH, 4.2))
    choice_forest(ax, same_size, draws, keeping)
    removed = same_size[~same_size["recovered"]].set_index("name")
    mildest = removed.loc[removed.loc[~removed["choice"].isin(KEPT), "effect"].idxmin(), "choice"]
    beaten = int((draws > removed.loc[layers, "effect"]).sum())
    ax.set_xlabel(
        f"change of the MSE (%), {counted(int(same_size['images'].iloc[0]), 'image')}; "
        f"dots: {counted(len(draws), 'random set')}, {len(keeping)} of them with means kept"
    )
    headline(
        figure,
        f"Layers 1-3 do less harm than {beaten} of {len(draws)} random sets; least harm with nothing kept: {mildest}",
    )
    return figure


@checked_arguments()
def against_random(same_size: pd.DataFrame, draws: pd.Series, keeping: pd.Series) -> str:
    """How many random sets do less harm than each other choice of as many heads.

    `same_size` holds the models without as many heads, `draws` the effects of the random sets, `keeping` those of the
    first of them with their means kept.
    """
    others = ["random", "unpruned", *KEPT]
    removed = same_size[~same_size["recovered"] & ~same_size["choice"].isin(others)]
    places = sorted((int((draws < row.effect).sum()), row.choice) for row in removed.itertuples())
    told = listed(f"{_part(place, len(draws))} than {name}" for place, name in places)
    worse = [name for place, name in places if 2 * place > len(draws)]
    kept = same_size[same_size["choice"].isin(KEPT)]
    fair = "".join(
        f" With means kept in the biases, of the first {counted(len(keeping), 'random set')} so many do less harm than "
        f"*{row.choice}*: {_part(int((keeping < row.effect).sum()), len(keeping))}; in the median they change the "
        f"error by {keeping.median():+,.0f} % ({keeping.min():+,.0f} to {keeping.max():+,.0f})."
        for row in kept.itertuples()
    )
    outdone = f" More than half of them outdo: {listed(worse, ' and ')}." if worse else ""
    return (
        f"Of {counted(len(draws), 'random set')} of as many heads, so many do less harm on the same "
        f"{counted(int(removed['images'].iloc[0]), 'image')}: {told}.{outdone}{fair}"
    )


@checked_arguments()
def held_by_intervals(images: int) -> str:
    """How often intervals by so few images hold the truth, as measured for single heads."""
    table = measured()
    table = table[(table["quantity"] == EFFECT) & (table["method"] == METHOD)]
    tried = max((count for count in table["images"] if count <= images), default=table["images"].min())
    row = table.set_index("images").loc[tried]
    return (
        f"Nominal 95 % intervals by {counted(int(tried), 'image')} were tried on the effects of single heads "
        f"([](04_head_ablation.ipynb)): they hold the truth in {row['covered']:.0f} % of draws for the median head, "
        f"but in {row['least']:.0f} % for the worst. For whole sets of heads nothing was measured. So take the "
        f"intervals by {counted(images, 'test image')} on this page for what these images say, not for a promise; "
        "the longer recovery below rests on all held-out images."
    )


@checked_arguments()
def recovery(
    table: pd.DataFrame,
    bases: Mapping[str, str],
    control: str,
    means_kept: str,
    at_mean: float,
    more: Interval,
    draws: pd.Series,
) -> str:
    """Effects before and after recovery as a table, with their scale.

    `bases` names what each recovered model was, `control` the whole model given the same training, `means_kept` the
    one with means in its biases; `at_mean` is the effect of always predicting the mean, in percent. `more` is by how
    much layers 1-3, recovered, do more harm than the random set, recovered, which is the first
    of the `draws`, whose effects these are.
    """
    rows = table.set_index("name")
    headings = (
        "model",
        "heads removed",
        "after recovery",
        "after recovery, against the unpruned model given the same training",
    )
    lines = [
        (name, percent(rows.loc[base]), percent(rows.loc[name]), percent(rows.loc[name], "_same_training"))
        for name, base in bases.items()
        if name != control
    ]
    return (
        f"{pipe_table(headings, lines)}\n\nThe same further training changes the error of the unpruned model by "
        f"{percent(rows.loc[control])}. For scale: a model that always predicts the mean would stand at "
        f"{at_mean:+,.0f} %. Without the heads of layers 1-3, but with their means, it is "
        f"{_means(rows.loc[means_kept])}, with nothing trained.\n\n{_after_recovery(more, draws)}"
    )


def _after_recovery(more: Interval, draws: pd.Series) -> str:
    """Whether layers 1-3 are any better than a random set once both were trained on."""
    said = "no clearly better and no clearly worse than"
    if more.high < 0 or more.low > 0:
        said = f"clearly {'better' if more.high < 0 else 'worse'} than"
    apart = percent({"effect": more.value, "low": more.low, "high": more.high})
    return (
        f"After this recovery layers 1-3 are {said} the one random set that was given it: image by image their error "
        f"differs from that set's by {apart} of the whole model's loss. Of {counted(len(draws), 'random set')} "
        f"{_part(int((draws < draws.iloc[0]).sum()), len(draws))} do less harm than this one before recovery."
    )


def _means(row: pd.Series) -> str:
    """The effect with means kept, and whether it says anything."""
    return f"{percent(row)}{' (undecided)' if row['low'] <= 0 <= row['high'] else ''}"


def _part(count: int, every: int) -> str:
    return {0: "none", every: f"all {every}"}.get(count, f"{count}")


@checked_arguments()
def long_recovery(table: pd.DataFrame, recoveries: Sequence[Mapping[str, object]]) -> str:
    """What the longer recovery gives back (`long_in_percent`), or how to train one; `recoveries` are their records."""
    if table.empty:
        return (
            "A longer recovery is trained once, in the background, and kept like an adapter; for this run's model "
            "there is none yet: `python -m vitmech_utils.recoveries` trains it, and its control."
        )
    row, steps = table.iloc[0], {training["steps"] for training in recoveries}
    if len(steps) != 1:
        raise ValueError(f"the recoveries took {sorted(steps)} steps, expected both the same")
    images = recoveries[0]["images_visited"]
    return (
        f"That was short. A recovery of {steps.pop():,} steps on {images:,} images, trained once in the background and "
        f"kept like an adapter, leaves the model without the heads of layers 1-3 {percent(row)} from the one with all "
        f"heads, and {percent(row, '_same_training')} from the whole model given the same training, which by itself "
        f"changes by {percent(row, '_control')}: on {int(row['images']):,} held-out images, which both have answered."
    )


@checked_arguments()
def choice_forest(ax: "Axes", table: pd.DataFrame, draws: pd.Series, keeping: pd.Series) -> None:
    """Compare choices of as many heads: each one's effect with its interval, over the random draws as dots.

    `table` has choice, effect, low, high (percent) and recovered; hollow marks are after recovery. `draws` are the
    effects of the random sets, `keeping` those with their means kept, beside the choice that keeps them.
    """
    dots = {"random": draws} | dict.fromkeys(KEPT, keeping)
    names = [name for name in CHOICES if name in set(table["choice"])]
    for place, name in enumerate(names):
        for row in table[table["choice"] == name].itertuples():
            _point(ax, row.effect, place + (0.22 if row.recovered else 0), row, horizontal=True)
        if name in dots:
            rng = np.random.default_rng(0)
            shift = place - 0.25 + rng.uniform(-0.12, 0.12, len(dots[name]))
            ax.plot(dots[name], shift, "o", color="#888888", alpha=0.55, markersize=4, markeredgewidth=0)
    ax.axvline(0, color="#444444", linewidth=0.8)
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.set_xlabel("change of the MSE (%)")
    every = pd.concat([table["low"], table["high"], draws, keeping])
    percent_scale_to(ax, "x", every.min(), every.max())
    _key(ax, [("filled: heads removed", True), ("hollow: after recovery", False)])


@checked_arguments()
def pruned_sizes(table: pd.DataFrame, apart: Mapping[int, Interval]) -> "Figure":
    """The effect against the number of heads removed, titled with which way of choosing is better at each size.

    `apart` is by how much more harm choosing in rounds does than choosing by least effect, image by image.
    """
    figure, ax = plt.subplots(figsize=(WIDTH, 4.2))
    size_curves(ax, table[table["heads"] > 0])
    ax.set_ylabel(f"change of the MSE (%), {counted(int(table['images'].iloc[0]), 'image')}")
    told = [f"{_clearly(found, 'better', 'worse')} with {size}" for size, found in apart.items()]
    return headline(figure, f"In rounds, against least effect: {listed(told)} heads removed")


@checked_arguments()
def rounds(apart: Mapping[int, Interval], once: Interval, count: int) -> str:
    """What rounds change, image by image: `apart` from least effect by size, `once` from first order with `count`."""

    def said(found: Interval) -> str:
        return f"{percent(vars(found), value='value')}, {_clearly(found, 'less harm', 'more harm')}"

    others = listed(f"{said(found)} ({size} heads)" for size, found in apart.items())
    return (
        f"Image by image, in percent of the whole model's loss: against *first order*, which ranks by the same slopes "
        f"on the same images, only at once, rounds change the error by {said(once)} ({count} heads). Against *least "
        f"effect*, which ablates and sees more images, so that rounds are not all that differs: {others}."
    )


def _clearly(found: Interval, below: str, above: str) -> str:
    """Whether a difference lies clearly below or above zero, in these words."""
    word = below if found.value < 0 else above
    return f"{'' if found.high < 0 or found.low > 0 else 'not '}clearly {word}"


@checked_arguments()
def size_curves(ax: "Axes", table: pd.DataFrame) -> None:
    """Draw the effect against the number of heads removed, a line per choice with several sizes, else a mark.

    Choices stand a little beside each other, so that their intervals can be distinguished.
    """
    table = table[~table["recovered"]]
    sizes = sorted(table["heads"].unique())
    names = [name for name in CHOICES if name in set(table["choice"])]
    gap = 0.022 * (sizes[-1] - sizes[0] or 1)
    for place, name in enumerate(names):
        part, (colour, marker) = table[table["choice"] == name].sort_values("heads"), _look(name)
        reach = np.abs(part[["low", "high"]].to_numpy().T - part["effect"].to_numpy())
        at = part["heads"] + gap * (place - (len(names) - 1) / 2)
        style = f"{marker}-" if len(part) > 1 else marker
        ax.errorbar(
            at, part["effect"], yerr=reach, fmt=style, color=colour, markersize=6, capsize=2, elinewidth=1.1,
            label=name,
        )  # fmt: skip
    ax.axhline(0, color="#444444", linewidth=0.8)
    ax.set_xticks(sizes)
    ax.set(xlabel="heads removed", ylabel="change of the MSE (%)")
    percent_scale_to(ax, "y", table["low"].min(), table["high"].max())
    ax.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=3, columnspacing=1.0, handlelength=1.2)


# What it saves


@checked_arguments()
def timings(times: pd.DataFrame) -> "Styler":
    """Times and speed-ups with their intervals, the fastest model of a group first."""
    shown = times.assign(
        compiled=np.where(times["compiled"], "compiled", "eager"),
        milliseconds=[
            interval(1e3 * row[["seconds", "low", "high"]], ".1f", "seconds") for _, row in times.iterrows()
        ],
        faster=[_faster(row) for row in times.itertuples()],
    )
    order = ["device", "compiled", "batch", "speedup"]
    shown = shown.sort_values(order, ascending=[True, False, True, False]).rename(
        columns={"batch": "batch size"}
    )
    shown = shown.set_index(["device", "compiled", "batch size", "model"])[
        ["milliseconds", "throughput", "faster"]
    ]
    shown.columns = ["one pass (ms)", "images per second", "times as fast"]
    return shown.style.format({"images per second": "{:.1f}"})


@checked_arguments()
def not_compiled(reason: str) -> str:
    """Why no compiled model was timed."""
    return f"No compiled model was timed here: {reason}."


@checked_arguments()
def saving(
    times: pd.DataFrame,
    eager: pd.DataFrame,
    models: tuple[str, str],
    batch: int,
    limit: float,
    parameters: float,
) -> str:
    """What is saved, and where nothing is.

    `eager` are the times on the run's own device, `models` those without whole layers and with as many scattered heads
    gone, `batch` the larger batch size, `limit` the ceiling by FLOPs, `parameters` the part that stays without the
    early heads.
    """
    others = times[times["model"] != "unpruned"]
    nothing = others[~(others["speedup_low"] > 1)]
    lines = [
        f"{device}, {'compiled' if compiled else 'eager'}, batch size {size}: "
        + listed(f"{row.model} {_faster(row)}" for row in part.itertuples())
        for (device, compiled, size), part in nothing.groupby(["device", "compiled", "batch"])
    ]
    told = "**Every removal that was timed clearly saves time.**"
    if lines:
        told = f"**No clear speed-up** (times as fast):\n\n{bullets(lines)}"
    factors = {(row.model, row.batch): _faster(row) for row in eager.itertuples()}
    layers, scattered = models
    return (
        f"{told}\n\nWith as many heads gone, whole sublayers (layers 1-3) make the model {factors[layers, 1]} times "
        f"as "
        f"fast image by image and {factors[layers, batch]} times in batches of {batch}, scattered heads (least "
        f"effect) "
        f"{factors[scattered, 1]} and {factors[scattered, batch]} times; the ceilings by FLOPs are at {limit:.2f}. "
        f"Masked heads give {factors['masked', 1]}. Parameters that go also save memory, whatever the clock says: "
        f"layers 1-3 hold {1 - parameters:.1%} of them."
    )


# Error against time


@checked_arguments()
def error_and_time(plane: pd.DataFrame, count: int) -> "Figure":
    """Error against time, a panel per batch size, titled with how many models are unbeaten."""
    batches = sorted(plane["batch"].unique())
    figure, axes = plt.subplots(len(batches), 1, figsize=(WIDTH, 7.2), height_ratios=(3, 2))
    for ax, batch in zip(axes, batches, strict=True):
        part = plane[plane["batch"] == batch]
        front = part[part["pareto_front"]]
        pareto(ax, part, count, front["name"])
        fastest = front.loc[front["milliseconds"].idxmin()]
        ax.set_title(
            f"Batch size {batch}: {len(front)} of {len(part)} models unbeaten, up to "
            f"{fastest['speedup']:.2f} times as fast"
        )
        ax.set_ylabel(f"change of the MSE (%), {counted(int(part['images'].iloc[0]), 'image')}")
    choice_legend(figure, set(plane["choice"]))
    return figure


@checked_arguments()
def overview(table: pd.DataFrame, eager: pd.DataFrame) -> "Styler":
    """Every model's error, speed, size and correlations in one table; `eager` has the times of one device."""
    faster = eager.assign(text=[_faster(row) for row in eager.itertuples()])
    faster = faster.pivot(index="model", columns="batch", values="text")
    rows = table.set_index("name")
    columns = {
        "change of the MSE": [percent(row) for _, row in rows.iterrows()],
        "against the same training": [
            "" if np.isnan(row["low_same_training"]) else percent(row, "_same_training")
            for _, row in rows.iterrows()
        ],
    }
    columns |= {
        f"times as fast, batch {batch}": rows["base"].map(faster[batch]).fillna("not timed")
        for batch in sorted(eager["batch"].unique())
    }
    columns |= {"parameters (million)": rows["parameters"] / 1e6, "FLOPs (billion)": rows["flops"] / 1e9}
    columns |= {
        f"r, {plain(target)}": [
            f"{row[f'r_{target}']:.3f} [{row[f'r_low_{target}']:.3f}, {row[f'r_high_{target}']:.3f}]"
            for _, row in rows.iterrows()
        ]
        for target in LABEL_NAMES
    }
    shown = pd.DataFrame(columns, index=rows.index)
    return shown.style.format({"parameters (million)": "{:.2f}", "FLOPs (billion)": "{:.2f}"})


@checked_arguments()
def surprises(
    in_early: tuple[float, float], on_test: tuple[float, float], time: tuple[float, float]
) -> dict[str, float]:
    """What was found beside what one would have expected, in words, and how far apart they are (log of the factor).

    `in_early` are the early heads' effects on the images of the choice, one at a time and added up, and together;
    `on_test` is their effect on the test images, and that of as many random heads (all in percent). `time` is the part
    of the heads that is gone, and how many times as fast that makes the model.
    """
    single, together = in_early
    layers, at_random = on_test
    removed, speed = time

    def growth(effect: float) -> float:
        """An effect in percent as a factor of the error, kept above zero so that factors can be compared."""
        return max(1 + effect / 100, 0.01)

    hoped = 1 / (1 - removed)
    pairs = {
        f"one at a time, the effects of the heads of layers 1-3 add up to {single:+,.0f} %; removed together they "
        f"change the error of the same images by {together:+,.0f} %": (growth(together), growth(single)),
        f"removing layers 1-3, whose heads are said to hardly matter, changes the error by {layers:+,.0f} %, "
        f"removing "
        f"as many heads at random by {at_random:+,.0f} % (median of the draws)": (
            growth(layers),
            growth(at_random),
        ),
        f"{removed:.0%} of the heads are gone and the model is {speed:.2f} times as fast, where one might have hoped "
        f"for {hoped:.2f} times": (speed, hoped),
    }
    return {text: abs(np.log(found / expected)) for text, (found, expected) in pairs.items()}


@checked_arguments()
def surprise(sentence: str) -> str:
    """The most surprising of them."""
    return f"**What was surprising**, by how far it lies from what one would have expected: {sentence}."


# Control and verdict


@checked_arguments()
def choice_control(
    control: Mapping[str, Mapping[str, Interval]], own: Mapping[str, float], whole: float
) -> str:
    """Changes of the MSE on the images that heads were chosen on, and on others, in percent of `whole`.

    `own` is the whole model's MSE on either, `whole` that on the held-out set.
    """
    table = pipe_table(
        ("change of the MSE without", *own),
        [(what, *(_of_whole(found, whole) for found in row.values())) for what, row in control.items()],
    )
    return (
        f"{table}\n\nIn percent of the held-out loss. The whole model's own MSE on these images is "
        f"{listed((f'{error:.3f}' for error in own.values()), ' and ')}. A choice that looked better where it "
        "was made would have a lower last row on the left; where the two intervals of that row overlap, these "
        "images do not tell. No image chose layers 1-3: how far their two columns lie apart says how little either set "
        "of images tells of the size of the harm."
    )


def _of_whole(found: Interval, whole: float) -> str:
    """A change of the MSE in percent of the held-out set's."""
    share = {name: 100 * value / whole for name, value in vars(found).items()}
    return percent(share, value="value")


@checked_arguments()
def verdict(
    judgement: Judgement,
    table: pd.DataFrame,
    longer: pd.DataFrame,
    layers: str,
    speedups: Mapping[int, Interval],
    count: int,
    means_kept: str,
    keeping: pd.Series,
) -> str:
    """The answer to the study's question with its figures; `layers` names the model without the `count` early heads.

    `longer` holds the longer recovery, which then decides, or no row; `means_kept` names the model with their means,
    `keeping` are the effects of random sets that keep theirs.
    """
    rows = table.set_index("name")
    beaten = int((keeping < rows.loc[means_kept, "effect"]).sum())
    faster = listed(f"{speedup:.2f} (batch size {batch})" for batch, speedup in speedups.items())
    images = int(rows["images"].iloc[0])
    return (
        f"Without the {count} heads of layers 1-3 the error on {images:,} test images changes by "
        f"{percent(rows.loc[layers])}, {_recovered(rows, longer, layers)}; the model runs {faster} times as fast (95 % "
        f"intervals).\n\n"
        "- **Q1**, the heads of layers 1-3 can be pruned for good, with accuracy kept and inference measurably "
        f"faster: **{judgement.words}**. Reason: {judgement.reason}.\n\n"
        "The question, and so the verdict, is about heads with nothing in their place. With their means kept in the "
        f"biases, and nothing trained, the error changes by {_means(rows.loc[means_kept])}, and of "
        f"{counted(len(keeping), 'random set')} that keep theirs {_part(beaten, len(keeping))} do less harm; the "
        "verdict does not speak of that."
    )


@checked_arguments()
def what_you_know(
    judgement: Judgement,
    table: pd.DataFrame,
    longer: pd.DataFrame,
    sets: tuple[pd.Series, pd.Series],
    models: tuple[str, str],
    speedups: Mapping[int, Interval],
    limit: float,
) -> str:
    """The chapter in three sentences.

    `longer` holds the longer recovery or no row, `sets` the effects of random sets, and of some with their means kept;
    `models` names those without the early heads, with nothing and with their means in their place; `limit` is the
    ceiling by FLOPs.
    """
    layers, means_kept = models
    rows, (drawn, keeping) = table.set_index("name"), sets
    size = rows.loc[layers, "heads"]
    others = ("least effect", "in rounds", "first order")
    compared = {"layers 1-3": layers, **{name: f"{name} ({size})" for name in others}}
    places = {name: int((drawn < rows.loc[model, "effect"]).sum()) for name, model in compared.items()}
    less = listed(f"{_part(place, len(drawn))} than {name}" for name, place in places.items())
    faster = listed(f"{found:.2f} (batch size {batch})" for batch, found in speedups.items())
    beaten = int((keeping < rows.loc[means_kept, "effect"]).sum())
    return three_sentences(
        f"Without {layers} the error changes by {percent(rows.loc[layers])}, {_recovered(rows, longer, layers)}; with "
        f"their means kept and nothing trained, by {_means(rows.loc[means_kept])}.",
        f"As many heads drawn at random change it by {drawn.median():+,.0f} % in the median ({drawn.min():+,.0f} to "
        f"{drawn.max():+,.0f} over {counted(len(drawn), 'draw')}); of these draws so many do less harm: {less}; where "
        f"means are kept, of {len(keeping)} draws {_part(beaten, len(keeping))} than layers 1-3.",
        f"The pruned model runs {faster} times as fast, of at most {limit:.2f} by its floating-point operations"
        f"{_beyond(speedups, limit)}; "
        f"verdict on Q1, early heads can go for good: {judgement.words}.",
    )


def _beyond(speedups: Mapping[int, Interval], limit: float) -> str:
    """What a speed-up above its ceiling means."""
    above = [found for found in speedups.values() if found.value > limit]
    if not above:
        return ""
    clear = any(found.low > limit for found in above)
    return ", which the clock clearly exceeds" if clear else " (what lies above that is within its interval)"


def _recovered(rows: pd.DataFrame, longer: pd.DataFrame, layers: str) -> str:
    """By how much the error still changes after recovery, the longest at hand last."""
    short = percent(rows.loc[f"{layers}, recovered"], "_same_training")
    same = "against the unpruned model given the same training"
    if longer.empty:
        return f"after recovery by {short} {same}"
    long = longer.iloc[0]
    return (
        f"after a short recovery by {short} {same}, after the longer one by {percent(long, '_same_training')}, and by "
        f"{percent(long)} against the model as it was (on {int(long['images']):,} images)"
    )


@checked_arguments()
def pareto(ax: "Axes", table: pd.DataFrame, usual: int, best: Collection[str] = ()) -> None:
    """Draw error against time, both with intervals; hollow marks, tied to theirs by a line, are after recovery.

    `table` has name, base (the name before recovery), choice, heads, recovered, effect, low, high (percent), and
    milliseconds, time_low, time_high per image. Models that lost another number of heads than `usual` carry it beside
    their mark. Those named in `best` are joined by a dashed line.
    """
    for row in table.itertuples():
        reach = [[row.milliseconds - row.time_low], [row.time_high - row.milliseconds]]
        ax.errorbar(
            row.milliseconds, row.effect, xerr=reach, color=_look(row.choice)[0], elinewidth=1, alpha=0.6
        )
        _point(ax, row.milliseconds, row.effect, row, horizontal=False)
        before = table[(table["name"] == row.base) & (table["name"] != row.name)]
        if len(before):
            ends = [before["effect"].iloc[0], row.effect]
            ax.plot([row.milliseconds] * 2, ends, color=_look(row.choice)[0], linewidth=0.9, linestyle=":")
        if not row.recovered and row.heads not in (0, usual):
            ax.annotate(
                f"{row.heads}", (row.milliseconds, row.effect), xytext=(6, 5), textcoords="offset points",
                fontsize=8, color=_look(row.choice)[0],
            )  # fmt: skip
    front = table[table["name"].isin(best)].sort_values("milliseconds")
    ax.plot(front["milliseconds"], front["effect"], color="#444444", linewidth=0.8, linestyle="--", zorder=0)
    ax.axhline(0, color="#444444", linewidth=0.8)
    ax.set(xlabel="time per image (ms)", ylabel="change of the MSE (%)")
    percent_scale_to(ax, "y", table["low"].min(), table["high"].max())


@checked_arguments()
def choice_legend(figure: "Figure", names: Collection[str]) -> None:
    """Put one legend of the choices under a whole figure, with what filled and hollow marks mean."""
    handles = [
        plt.Line2D([], [], color=colour, marker=marker, linestyle="", label=name)
        for name, (colour, marker) in CHOICES.items()
        if name in names
    ]
    hollow = {"color": "#444444", "marker": "o", "linestyle": "", "markerfacecolor": "white"}
    handles.append(plt.Line2D([], [], **hollow, label="hollow: trained on"))
    figure.legend(handles=handles, loc="outside lower center", ncols=3)


def _faster(row) -> str:
    """A speed-up with its interval."""
    return f"{row.speedup:.2f} [{row.speedup_low:.2f}, {row.speedup_high:.2f}]"


def _look(choice: str) -> tuple[str, str]:
    return CHOICES.get(choice, ("#332288", "o"))


def _point(ax: "Axes", x: float, y: float, row, horizontal: bool) -> None:
    """One model: its mark, hollow after recovery, and the interval of its effect."""
    colour, marker = _look(row.choice)
    reach = np.array([[row.effect - row.low], [row.high - row.effect]]).clip(0)
    ax.errorbar(
        x, y, **{"xerr" if horizontal else "yerr": reach}, fmt=marker, color=colour, markersize=7, capsize=2,
        elinewidth=1.2, markerfacecolor="white" if row.recovered else colour,
    )  # fmt: skip


def _key(ax: "Axes", entries: list[tuple[str, bool]]) -> None:
    for label, filled in entries:
        face = "#444444" if filled else "white"
        ax.plot([], [], "o", color="#444444", markerfacecolor=face, label=label)
    ax.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=2, columnspacing=1.0)
