"""Figures and sentences of the chapter on one's own model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from vitmech_utils.arguments import checked_arguments
from vitmech_utils.figures.marks import excludes_zero, head_names, rarer
from vitmech_utils.figures.plots import ATTENTION, DIVERGING, WIDE, WIDTH
from vitmech_utils.figures.tables import counted, listed, shown, three_sentences
from vitmech_utils.statistics import Interval
from vitmech_utils.studies.own_model.measure import may_be_strongest

if TYPE_CHECKING:
    from pandas.io.formats.style import Styler


@checked_arguments()
def checked(facts: Mapping[str, str]) -> str:
    """What was found of a model, one fact a line."""
    width = max(map(len, facts))
    return "\n".join(f"{name.ljust(width)}  {fact}" for name, fact in facts.items())


@checked_arguments()
def effect_grid(table: pd.DataFrame, unit: str) -> Figure:
    """The grid of effects; dots mark those whose interval excludes zero, or the others where they are fewer."""
    shape = int(table["layer"].max()) + 1, int(table["head"].max()) + 1
    grid = np.full(shape, np.nan)
    grid[table["layer"], table["head"]] = table["effect"]
    figure, axis = plt.subplots(figsize=(WIDTH, 0.5 * shape[0] + 1.4), layout="constrained")
    most = float(np.nanmax(np.abs(grid))) or 1.0
    drawn = axis.imshow(grid, cmap=DIVERGING, vmin=-most, vmax=most, aspect="auto")
    sure = excludes_zero(table).to_numpy()
    marked, few = rarer(sure)
    axis.plot(table["head"][marked], table["layer"][marked], "k.", markersize=7)
    words = f"{int(sure.sum())} of {len(table)} intervals exclude zero"
    axis.set_title(f"{words} (dots)" if few else f"{words}; dots: the others")
    axis.set(xlabel="head", ylabel="layer")
    axis.set_xticks(range(shape[1]), [str(number + 1) for number in range(shape[1])])
    axis.set_yticks(range(shape[0]), [str(number + 1) for number in range(shape[0])])
    figure.colorbar(drawn, label=f"effect, {unit}")
    return figure


@checked_arguments()
def strongest_maps(table: pd.DataFrame, maps: np.ndarray, images: np.ndarray, count: int = 4) -> Figure:
    """Maps of the heads with the largest effects, over the first image."""
    rows = table.nlargest(count, "effect")
    figure, axes = plt.subplots(1, count, figsize=(WIDE, WIDE / count + 0.4), layout="constrained")
    for axis, layer, head in zip(np.atleast_1d(axes), rows["layer"], rows["head"], strict=False):
        axis.imshow(images[0], extent=(0, 1, 0, 1))
        axis.imshow(maps[0, layer, head], extent=(0, 1, 0, 1), cmap=ATTENTION, alpha=0.6)
        axis.set_title(f"layer {layer + 1}, head {head + 1}")
        axis.axis("off")
    return figure


@checked_arguments()
def headings(names: Sequence[str]) -> str:
    """The parts of a report, as a list."""
    return "\n".join(f"- {name}" for name in names)


@checked_arguments()
def origin_table(table: pd.DataFrame, count: int = 8) -> Styler:
    """The heads whose maps changed most since the base, with their classes before and after where masks tell them."""
    rows = table.nsmallest(count, "map_correlation")
    columns: dict[str, object] = {"head": head_names(rows), "maps correlate": rows["map_correlation"]}
    for when in ("before", "after"):
        if f"class_{when}" in rows:
            about = [f" ({regions})" if regions else "" for regions in rows[f"regions_{when}"]]
            columns[when] = [f"{kind}{what}" for kind, what in zip(rows[f"class_{when}"], about, strict=True)]
    return shown(pd.DataFrame(columns), {"maps correlate": ".2f"})


@checked_arguments()
def what_you_know(
    effects: pd.DataFrame,
    origin: pd.DataFrame,
    facts: Mapping[str, str],
    parts: int,
    score: Mapping[str, float],
) -> str:
    """The chapter in three sentences, about the model that was passed in; `score` as `measure.scored` gives it."""
    top = effects.loc[effects["effect"].idxmax()]
    most = Interval(top["effect"], top["low"], top["high"])
    above, below = int((effects["low"] > 0).sum()), int((effects["high"] < 0).sum())
    reach = listed(
        f"layer {layer + 1}, head {head + 1}"
        for layer, head in may_be_strongest(effects).iloc[1:][["layer", "head"]].itertuples(index=False)
    )
    alike = f"; the interval reaches that of {reach}" if reach != "none" else ""
    turned = int((origin["map_correlation"] < 0.5).sum())
    return three_sentences(
        f"The check found {facts['layers x heads']} (layers x heads), and that the answer is read from "
        f"{facts['the answer reads']}.",
        f"The largest effect is that of layer {int(top['layer']) + 1}, head {int(top['head']) + 1}: without it the "
        "loss "
        f"grows by {most:.2g}, in its own unit{'' if most.low > 0 else ', an interval that includes zero'}{alike}; of "
        f"{len(effects)} heads {above} have an effect whose interval lies above zero, and {below} one below "
        f"({counted(int(top['images']), 'image')}; loss with all heads {top['baseline_loss']:.3g}{_guess(score)}).",
        f"The maps of {turned} of {len(origin)} heads correlate by less than one half with those before fine-tuning; "
        f"the report has {counted(parts, 'part')}, and the last but one says what could not be measured.",
    )


@checked_arguments()
def scored(score: Mapping[str, float], loss: float) -> str:
    """How well a classifier does with all heads, in accuracy and loss, and how well a guess does."""
    if not score:
        return f"With all heads the loss is {loss:.3g}."
    return (
        f"With all heads the model is right on {score['accuracy']:.0%} of the images, at a loss of {loss:.2f} nats. A "
        f"guess by how frequent the classes are is right on {score['guess_accuracy']:.0%}, at "
        f"{score['guess_loss']:.2f} nats."
    )


def _guess(score: Mapping[str, float]) -> str:
    if not score:
        return ""
    return (
        f", accuracy {score['accuracy']:.0%}; a guess by how frequent the classes are has "
        f"{score['guess_loss']:.3g} and {score['guess_accuracy']:.0%}"
    )
