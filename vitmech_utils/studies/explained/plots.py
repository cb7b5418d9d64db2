"""Figures and sentences of the chapter on explanations. Layers and heads count from 1 in what is shown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from numpy import ndarray

from vitmech_utils.arguments import checked_arguments
from vitmech_utils.figures.marks import interval_forest
from vitmech_utils.figures.plots import WIDE, WIDTH, overlay
from vitmech_utils.figures.tables import counted, interval, listed, shown, three_sentences, word
from vitmech_utils.statistics import Interval
from vitmech_utils.studies.explained.measure import (
    COMPARED,
    CONTROLS,
    MASK,
    METHODS,
    PICTURE,
    PLACE,
    RANDOM,
    TAKEN,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas.io.formats.style import Styler

KINDS = {"map of the model": ("#0072B2", "o"), "control": ("#888888", "s")}
LINES = {
    "attention": "#0072B2", "attention by effect": "#56B4E9", "rollout": "#CC79A7", "attention relevance": "#009E73",
    "gradient": "#E69F00", "integrated gradients": "#D55E00", "conserved relevance": "#332288",
}  # fmt: skip
SHADES = {
    PICTURE: ("#888888", "--"),
    PLACE: ("#888888", ":"),
    RANDOM: ("#888888", "-."),
    MASK: ("#222222", "-"),
}
MEASURES = {
    "precision": "average precision for the chirp's patches",
    "moved": f"answer moves without {TAKEN:.0%} of the patches (s.d.)",
}


@checked_arguments()
def better(scores: pd.DataFrame, measure: str, control: str = "picture") -> list[str]:
    """The methods whose interval of the difference to a control lies above zero."""
    rows = scores[(scores["measure"] == measure) & scores["method"].isin(METHODS)]
    return rows.loc[rows[f"low_{control}"] > 0, "method"].tolist()


@checked_arguments()
def summary(scores: pd.DataFrame) -> Figure:
    """Every method and control by both measures, with intervals."""
    kind = np.where(scores["method"].isin(CONTROLS), *reversed(list(KINDS)))
    # No value lies below 0, no precision above 1.
    table = scores.assign(kind=kind, low=scores["low"].clip(lower=0))
    table["high"] = table["high"].where(table["measure"] != "precision", table["high"].clip(upper=1))
    figure, axes = plt.subplots(1, 2, figsize=(WIDE, 4.4), sharey=True)
    for axis, (measure, label) in zip(axes, MEASURES.items(), strict=True):
        part = table[table["measure"] == measure]
        interval_forest(
            axis,
            part,
            "method",
            value="value",
            by="kind",
            looks=KINDS,
            order=list(COMPARED),
            apart=0.0,
            size=5.0,
        )
        control = part.set_index("method").loc[PICTURE, "value"]
        axis.axvline(control, color="#888888", linewidth=0.8, linestyle="--")
        axis.set_xlabel(label)
        axis.set_xlim(left=min(0.0, axis.get_xlim()[0]))
    said = {
        "precision": ("ranks", "rank", "the chirp's\npatches higher"),
        "moved": ("moves", "move", "the answer\nfurther"),
    }
    for axis, (measure, (one, several, what)) in zip(axes, said.items(), strict=True):
        count = len(better(scores, measure))
        axis.set_title(
            f"{_of_seven(count)} clearly {word(count, one, several)} {what} than the picture alone"
        )
    axes[0].legend(loc="upper center", bbox_to_anchor=(1.0, -0.14), ncols=2)
    return figure


@checked_arguments()
def gallery(picture: ndarray, maps: Mapping[str, ndarray], precision: Mapping[str, float]) -> Figure:
    """One picture under the map of every method, each map scaled to [0, 1], with its average precision."""
    names = [*METHODS, PICTURE]
    figure, axes = plt.subplots(2, 4, figsize=(WIDE, 5.0))
    for axis, name in zip(axes.flat, names, strict=True):
        values = maps[name]
        unit = (values - values.min()) / max(float(np.ptp(values)), 1e-12)
        axis.imshow(overlay(picture, unit))
        axis.set(xticks=[], yticks=[])
        axis.set_title(f"{name}: {precision[name]:.2f}", fontsize=9)
    return figure


@checked_arguments()
def deletion(curves: pd.DataFrame) -> Figure:
    """How far answers move the more patches go, in the order of each method.

    Bands are the intervals of the picture alone, and of the method that moves them most with the fewest patches.
    """
    figure, axis = plt.subplots(figsize=(WIDTH, 3.8))
    least = curves["share"].min()
    few = curves[curves["share"] == least].set_index("method").loc[list(METHODS)]
    first = few["value"].idxmax()
    for name in COMPARED:
        part = curves[curves["method"] == name]
        colour, line = SHADES.get(name, (LINES.get(name), "-"))
        axis.plot(
            100 * part["share"], part["value"], line, marker=".", color=colour, label=name, linewidth=1.6
        )
        if name in (first, PICTURE):
            axis.fill_between(
                100 * part["share"], part["low"], part["high"], color=colour, alpha=0.12, linewidth=0
            )
    axis.set(
        xscale="log", xlabel="patches taken from another picture, highest first (%)",
        ylabel="the answer moves (s.d. of the labels)",
    )  # fmt: skip
    ticks = sorted(100 * curves["share"].unique())
    axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axis.minorticks_off()
    axis.set_ylim(bottom=0)
    axis.set_title(
        f"Without {least:.0%} of the patches: {interval(few.loc[first], '.2f', 'value')} by {first}, the largest mean"
    )
    axis.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8.5)
    return figure


def _possible(row: pd.Series, most: float = 1.0) -> str:
    """A value with its interval, which is cut where no value can lie: below 0, and above `most`."""
    return interval({**row, "low": max(row["low"], 0.0), "high": min(row["high"], most)}, ".2f", "value")


@checked_arguments()
def table(scores: pd.DataFrame) -> Styler:
    """Every method by three measures, with intervals, and its difference to the picture alone."""
    rows = []
    for name in COMPARED:
        part = scores[scores["method"] == name].set_index("measure")
        cells = {"map": name, "average precision": _possible(part.loc["precision"])}
        cells["more than the picture alone"] = interval(part.loc["precision"], "+.2f", "over", "_picture")
        cells["share of the map's sum on the chirp"] = _possible(part.loc["mass"])
        cells["answer moves (s.d.)"] = _possible(part.loc["moved"], np.inf)
        cells["further than the picture alone"] = interval(part.loc["moved"], "+.2f", "over", "_picture")
        rows.append(cells)
    return shown(pd.DataFrame(rows), {})


@checked_arguments()
def untrained(alike: pd.DataFrame) -> Styler:
    """What an untrained network's maps share with the trained one's (`without_training`), a row each."""
    rows = [
        {
            "map": row["method"],
            "rank correlation with an untrained network's": interval(row, ".2f", "correlation"),
            "with the picture alone": interval(row, ".2f", "like", "_picture"),
            "average precision, untrained": interval(row, ".2f", "precision", "_untrained"),
            "gained by training": interval(row, "+.2f", "more", "_trained"),
        }
        for _, row in alike.iterrows()
    ]
    return shown(pd.DataFrame(rows), {})


@checked_arguments()
def untrained_text(alike: pd.DataFrame) -> str:
    """What of a map is there before any training, and what training adds."""
    same = alike.loc[alike["low"] > 0.5, "method"].tolist()
    gained, every = alike.loc[alike["low_trained"] > 0, "method"].tolist(), len(alike)
    kept = (
        f"Over all patches the order by {listed(same, ' and ')} is much the same without any training. What these maps "
        "show of most of a picture is then no sign of what the model has learned."
        if same
        else "No map keeps its order over all patches without training."
    )
    found = (
        f" Training adds what makes a map find the chirp: average precision is clearly higher with it for "
        f"{'all' if len(gained) == every else f'{len(gained)} of the'} {every} maps."
        if gained
        else " For no map is average precision clearly higher with training."
    )
    turned = alike.loc[alike["high"] < 0, "method"].tolist()
    reversed_ = (
        f" Before and after training the orders of {listed(turned, ' and ')} correlate negatively."
        if turned
        else ""
    )
    return (
        kept
        + reversed_
        + found
        + " One network with random weights was asked; *attention by effect* and *integrated gradients* were not, "
        "since the former takes its weights from the trained model and the latter costs the most."
    )


@checked_arguments()
def said(scores: pd.DataFrame, curves: pd.DataFrame, sizes: Mapping[str, float], most: Interval) -> str:
    """Which methods find the chirp and what the answer rests on better than the controls.

    `sizes` are `Explained.sizes`; `most` is how far answers move without any patch of their own.
    """
    images, parts = int(scores["images"].max()), {}
    for measure, verbs in {"precision": ("ranks", "rank"), "moved": ("moves", "move")}.items():
        names, chance = better(scores, measure), better(scores, measure, "random")
        one = scores[scores["measure"] == measure].set_index("method")
        parts[measure] = {
            "names": f" ({listed(names)})" if 0 < len(names) < len(METHODS) else "",
            "over": _of_seven(len(names)),
            "verb": word(len(names), *verbs),
            "chance": _of_seven(len(chance)).lower(),
            "picture": _possible(one.loc[PICTURE], 1.0 if measure == "precision" else np.inf),
            "mask": _possible(one.loc[MASK], 1.0 if measure == "precision" else np.inf),
            "more": interval(one.loc[MASK], "+.2f", "over", "_picture"),
            "random": _possible(one.loc[RANDOM], 1.0 if measure == "precision" else np.inf),
        }
    find, move = parts.values()
    return (
        f"{find['over']} {find['verb']} the chirp's patches clearly better than the picture alone does{find['names']}, "
        f"{find['chance']} better than chance ({counted(images, 'image')}; average precision of the picture "
        f"alone {find['picture']}, of chance, one random order a "
        f"picture, {find['random']}).\n\n{move['over']} {move['verb']} the answer clearly "
        f"further than the picture alone does{move['names']}, {move['chance']} further than chance. Without "
        f"{TAKEN:.0%} of the {sizes['patches']:.0f} patches, about as many as show the chirp ({sizes['chirp']:.1f} on "
        f"average), the answer moves by {move['picture']} standard deviations in the order of the picture, by "
        f"{move['random']} by chance and by {move['mask']} in the order of the mask itself, which is {move['more']} "
        f"further than the picture's. Without any patch of its own, it moves by {most:.2f}. {_more_patches(curves)}"
    )


def _more_patches(curves: pd.DataFrame) -> str:
    """From which share of the patches on not even the mask moves the answer further than the picture does."""
    row = None
    for _, each in curves[curves["method"] == MASK].sort_values("share", ascending=False).iterrows():
        if each["low_picture"] > 0:
            break
        row = each
    if row is None:
        return ""
    return (
        f"From {row['share']:.0%} of the patches on, not even the mask moves it clearly further than the picture does "
        f"({interval(row, '+.2f', 'over', '_picture')}): that says nothing against a map."
    )


@checked_arguments()
def added_up(found: Mapping[str, float], steps: int) -> str:
    """How nearly integrated gradients sum to the difference that they divide, and what follows."""
    off = Interval(*(100 * found[name] for name in ("error", "low", "high")))
    enough = found["high"] < 0.1
    return (
        f"With {steps} steps the sum over patches misses the difference between the answer to the picture and to the "
        f"mean figure ({found['difference']:.2f} standard deviations) by {off:.0f} % of its size. "
        + (
            "That is enough for the parts to be shares of the answer."
            if enough
            else "So many steps do not suffice on this model: what is called integrated gradients here is the mean "
            f"gradient at {steps} points of the line, and no division of the answer among patches."
        )
    )


@checked_arguments()
def outcome(scores: pd.DataFrame, alike: pd.DataFrame) -> str:
    """Which of what would have proved the chapter wrong has come about."""
    zero = {name: len(METHODS) - len(better(scores, name)) for name in MEASURES}
    place, chance = (
        _of_seven(len(METHODS) - len(better(scores, "moved", control))).lower()
        for control in ("place", "random")
    )
    exact = scores[(scores["measure"] == "moved") & (scores["method"] == MASK)].iloc[0]
    mask = (
        ""
        if exact["low_picture"] > 0
        else "; nor does the exact mask move it clearly further than the picture"
    )
    same = alike.loc[alike["low"] > 0.5, "method"].tolist()
    told = f"for {listed(same, ' and ')}" if same else "for none that was asked"
    return (
        f"Of these, the first came about for {_of_seven(zero['precision']).lower()}, the second, against the picture, "
        f"for {_of_seven(zero['moved']).lower()}, against the place for {place} and against chance, one random order a "
        f"picture, for {chance}{mask}. The third, over all patches, came about {told}."
    )


@checked_arguments()
def what_you_know(scores: pd.DataFrame, alike: pd.DataFrame) -> str:
    """The chapter in three sentences."""
    by = {name: scores[scores["measure"] == name].set_index("method") for name in ("precision", "moved")}
    names = list(METHODS)
    best, worst = (by["precision"].loc[names, "value"].agg(how) for how in ("idxmax", "idxmin"))
    images = int(scores["images"].max())
    moving = by["moved"].loc[names, "value"].idxmax()
    same = alike.loc[alike["correlation"].idxmax()]
    moved = by["moved"].loc[names]
    further = better(scores, "moved")
    return three_sentences(
        f"Of the maps of a whole prediction, {best} has the highest mean average precision for the chirp's patches, "
        f"{_possible(by['precision'].loc[best])} ({counted(images, 'image')}), and {worst} the lowest, "
        f"{_possible(by['precision'].loc[worst])}; the picture alone, which asks no model, reaches "
        f"{_possible(by['precision'].loc[PICTURE])}.",
        f"Where {TAKEN:.0%} of the patches are taken from another picture, {_of_seven(len(further)).lower()} "
        f"{word(len(further), 'moves', 'move')} the answer clearly further than the picture's own order; the most by "
        f"the mean, {moving}, by {interval(moved.loc[moving], '.2f', 'value')} standard deviations, "
        f"{interval(moved.loc[moving], '+.2f', 'over', '_picture')} more than the picture's, as the exact mask does by "
        f"{interval(by['moved'].loc[MASK], '+.2f', 'over', '_picture')}.",
        f"Over all patches the order by {same['method']} correlates with an untrained network's by "
        f"{interval(same, '.2f', 'correlation')}, the most of {len(alike)} methods; training raises its average "
        f"precision by {interval(same, '+.2f', 'more', '_trained')}.",
    )


def _of_seven(count: int) -> str:
    numbers = ("None", "One", "Two", "Three", "Four", "Five", "Six", "All")
    return f"{numbers[count]} seven" if count == len(METHODS) else f"{numbers[count]} of the seven"
