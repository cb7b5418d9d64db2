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
    table = scores.assign(kind=kind)
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
        "precision": ("ranks", "rank", "the chirp's patches\nhigher"),
        "moved": ("moves", "move", "the answer\nfurther"),
    }
    for axis, (measure, (one, several, what)) in zip(axes, said.items(), strict=True):
        count = len(better(scores, measure))
        axis.set_title(f"{_of_seven(count)} {word(count, one, several)} {what} than the picture alone")
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


@checked_arguments()
def table(scores: pd.DataFrame) -> Styler:
    """Every method by three measures, with intervals, and its difference to the picture alone."""
    rows = []
    for name in COMPARED:
        part = scores[scores["method"] == name].set_index("measure")
        cells = {"map": name, "average precision": interval(part.loc["precision"], ".2f", "value")}
        cells["more than the picture alone"] = interval(part.loc["precision"], "+.2f", "over", "_picture")
        cells["part of the map on the chirp"] = interval(part.loc["mass"], ".2f", "value")
        cells["answer moves (s.d.)"] = interval(part.loc["moved"], ".2f", "value")
        cells["further than the picture alone"] = interval(part.loc["moved"], "+.2f", "over", "_picture")
        rows.append(cells)
    return shown(pd.DataFrame(rows), {})


@checked_arguments()
def untrained(alike: pd.DataFrame) -> str:
    """How alike the maps of an untrained network are, as a list."""
    found = ", ".join(f"{row.method} {interval(row, '.2f', 'correlation')}" for row in alike.itertuples())
    same = alike.loc[alike["low"] > 0.5, "method"].tolist()
    return f"Rank correlation over patches with the maps of an untrained network: {found}. " + (
        f"More than half of the order by {listed(same, ' and ')} is there before any training: over most patches these "
        "maps follow the picture. What was learned can show only in the few patches that come first, at which average "
        "precision looks."
        if same
        else "No method keeps its order without training."
    )


@checked_arguments()
def said(scores: pd.DataFrame) -> str:
    """Which methods find the chirp and what the answer rests on better than the controls."""
    images, parts = int(scores["images"].max()), {}
    for measure in MEASURES:
        names, chance = better(scores, measure), better(scores, measure, "random")
        one = scores[scores["measure"] == measure].set_index("method")
        parts[measure] = {
            "names": f" ({listed(names)})" if 0 < len(names) < len(METHODS) else "",
            "over": _of_seven(len(names)),
            "chance": _of_seven(len(chance)).lower(),
            "picture": interval(one.loc[PICTURE], ".2f", "value"),
            "mask": interval(one.loc[MASK], ".2f", "value"),
            "random": interval(one.loc[RANDOM], ".2f", "value"),
        }
    find, move = parts.values()
    return (
        f"{find['over']} rank the chirp's patches clearly better than the picture alone does{find['names']}, "
        f"{find['chance']} better than chance ({counted(images, 'image')}; average precision of the picture "
        f"alone {find['picture']}, of chance {find['random']}). {move['over']} move the answer clearly further than "
        f"the picture alone does{move['names']}, {move['chance']} further than chance: without {TAKEN:.0%} of the "
        f"patches it moves by {move['picture']} standard deviations in the order of the picture, "
        f"by {move['random']} by chance and by {move['mask']} in the order of the mask itself."
    )


@checked_arguments()
def added_up(found: Mapping[str, float], steps: int) -> str:
    """How nearly integrated gradients sum to the difference that they divide."""
    return (
        f"By {steps} steps the sum over patches misses the difference between the answer to the picture and to the "
        f"mean figure by {found['error']:.0%} of its size ({found['difference']:.2f} standard deviations)."
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
    return three_sentences(
        f"Of the maps of a whole prediction, {best} finds the chirp best, with an average precision of "
        f"{interval(by['precision'].loc[best], '.2f', 'value')} ({counted(images, 'image')}), and {worst} worst, with "
        f"{interval(by['precision'].loc[worst], '.2f', 'value')}; the picture alone, which asks no model, reaches "
        f"{interval(by['precision'].loc[PICTURE], '.2f', 'value')}.",
        f"Where {TAKEN:.0%} of the patches are taken from another picture in the order of {moving}, the answer "
        f"moves by {interval(by['moved'].loc[moving], '.2f', 'value')} standard deviations, against "
        f"{interval(by['moved'].loc[MASK], '.2f', 'value')} in the order of the exact mask and "
        f"{interval(by['moved'].loc[RANDOM], '.2f', 'value')} by chance.",
        f"Over all patches the order by {same['method']} correlates with an untrained network's by "
        f"{interval(same, '.2f', 'correlation')}; the most alike of {len(alike)} methods, it shows how much of a map "
        "can be there without training.",
    )


def _of_seven(count: int) -> str:
    numbers = ("None", "One", "Two", "Three", "Four", "Five", "Six", "All")
    return f"{numbers[count]} seven" if count == len(METHODS) else f"{numbers[count]} of the seven"
