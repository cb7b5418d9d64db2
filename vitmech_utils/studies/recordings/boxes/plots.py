"""Figures and texts on real chirps with boxes drawn by hand: pictures, looks, readings, and the heads that matter."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from vitmech_utils.arguments import checked_arguments
from vitmech_utils.data.recordings.seizures import ColourScale, Seizures
from vitmech_utils.data.regions import REGIONS
from vitmech_utils.figures.marks import head_names, name_largest, plain_log
from vitmech_utils.figures.plots import WIDE, WIDTH, headline
from vitmech_utils.figures.tables import counted
from vitmech_utils.heads.hooks import Head
from vitmech_utils.statistics import Count, Interval
from vitmech_utils.studies.recordings.boxed import ASKED, looks_at_boxes
from vitmech_utils.studies.recordings.folds import KeptFold
from vitmech_utils.studies.recordings.plots import CHIRP_HEAD, OTHER_HEAD

if TYPE_CHECKING:
    from matplotlib.figure import Figure

OUTLINE = "#FF3333"


@checked_arguments()
def real_pictures(found: Seizures, scale: ColourScale, count: int = 4) -> "Figure":
    """Pictures of different recordings as published, and the same numbers as decorated figures; boxes outlined."""
    names = sorted(set(found.recordings))
    shown = [
        next(picture for picture in found.pictures if picture.recording == name)
        for name in names[:: max(1, len(names) // count)][:count]
    ]
    figure, axes = plt.subplots(2, len(shown), figsize=(WIDE, WIDE / len(shown) * 2), squeeze=False)
    for column, picture in zip(axes.T, shown, strict=True):
        for ax, drawing in zip(column, (picture.plain(), picture.decorated(scale)), strict=True):
            ax.imshow(drawing.image)
            ax.contour(drawing.regions == REGIONS.index("chirp"), [0.5], colors=OUTLINE, linewidths=0.8)
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set_visible(False)
    axes[0, 0].set_ylabel("as published", fontsize=9)
    axes[1, 0].set_ylabel("decorated", fontsize=9)
    return figure


@checked_arguments()
def read_back_text(facts: Mapping[str, float]) -> str:
    """How well colours become numbers again, in words."""
    return (
        f"This page reads {facts['pictures']:,.0f} pictures of {facts['recordings']:,.0f} recordings, with "
        f"{facts['boxes']:,.0f} boxes; {facts['left_out']:,.0f} pictures or boxes of the package are left out, each by "
        f"name, because they have no box or no extent.\n\n**From colours back to numbers.** The pictures hold "
        f"{facts['colours']:,.0f} colours, which form one line from dark to bright; {facts['exact']:.3%} of "
        f"the plots' pixels have one of them exactly, and the numbers painted again differ from the picture by "
        f"{facts['difference']:.5f} of 255 on average. So a pixel's place on the map comes back. What it stood for "
        f"does not: {facts['lowest']:.0%} of pixels lie at the map's lowest colour and {facts['highest']:.1%} at its "
        f"highest, where only a bound is known, and whether the map was of power, of its root or of its logarithm is "
        f"not told. The grid of a decorated figure is coarser than the picture; it keeps a correlation of "
        f"{facts['kept']:.2f} with its pixels (median)."
    )


@checked_arguments()
def looks_figure(looks: Mapping[str, pd.DataFrame], heads: Sequence[Head]) -> "Figure":
    """Every head's lift on the boxes (up) against that on boxes of other recordings (across), by kind of picture."""
    figure, axes = plt.subplots(1, len(looks), figsize=(WIDE, 4.4), sharex=True, sharey=True, squeeze=False)
    both = pd.concat(looks.values())
    ends = float(both[["others", "low"]].min().min()) / 1.2, float(both[["others", "high"]].max().max()) * 1.2
    for ax, (kind, table) in zip(axes[0], looks.items(), strict=True):
        chosen = pd.Series(
            [(row.layer, row.head) in set(heads) for row in table.itertuples()], index=table.index
        )
        for is_chirp, colour in ((False, OTHER_HEAD), (True, CHIRP_HEAD)):
            part = table[chosen == is_chirp]
            errors = np.abs(part[["low", "high"]].to_numpy().T - part["lift"].to_numpy())
            label = "about the painted chirp" if is_chirp else "other heads"
            ax.errorbar(
                part["others"],
                part["lift"],
                errors,
                fmt="o",
                markersize=3.5,
                linewidth=0.6,
                color=colour,
                label=label,
            )
        name_largest(ax, table["others"], table["lift"], head_names(table), table["lift"].where(chosen), 1)
        ax.plot(ends, ends, color="#444444", linewidth=0.8, linestyle="--")
        ax.axhline(1, color="#444444", linewidth=0.6, linestyle=":")
        ax.set(xlabel="lift on other recordings' boxes", xlim=ends, ylim=ends)
        plain_log(ax, "xy")
        above = int((chosen & (table["low"] > 1)).sum())
        ax.set_title(f"{kind}: {above} of {int(chosen.sum())} above an even look", fontsize=9)
    axes[0, 0].set_ylabel("lift on the boxes")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), ncols=2, loc="outside lower center")
    return figure


@checked_arguments()
def looks_text(counts: Mapping[str, Count], looks: Mapping[str, pd.DataFrame]) -> str:
    """How many chirp heads look at the boxes of their own recording."""
    told = "; ".join(f"{kind}: {count}" for kind, count in counts.items())
    every = {
        kind: looks_at_boxes(table, list(zip(table["layer"], table["head"], strict=True)))
        for kind, table in looks.items()
    }
    rest = "; ".join(
        f"{kind}: {every[kind].low - count.low} of {every[kind].total - count.total}"
        for kind, count in counts.items()
    )
    table = next(iter(looks.values()))
    return (
        "Counted among the heads that are for sure about the painted chirp: those that look at their own recording's "
        "boxes more than an even look would, and more than at other recordings' boxes (in brackets: for sure, and at "
        f"most): **{told}**. The test is no test of chirp heads alone: of all other heads, those that pass it for "
        f"sure are {rest}. Boxes lie in much the same place in many recordings, so a head that always looks "
        "there has "
        f"a lift above one on others' boxes, too: the median over all heads is {table['others'].median():.2f} "
        "there and "
        f"{table['lift'].median():.2f} on their own."
    )


@checked_arguments()
def readings_table(table: pd.DataFrame) -> pd.DataFrame:
    """What the model says of real chirps, by kind of picture and target."""
    return pd.DataFrame(
        {
            "images": table["images"],
            "target": table["target"].map(ASKED),
            "rank correlation": [
                f"{Interval(row.correlation, row.low, row.high):.2f}" for row in table.itertuples()
            ],
            "error, read by place": [f"{row.rmse:.1f} {row.unit}" for row in table.itertuples()],
            "error, read by ticks": [f"{row.rmse_ticks:.1f} {row.unit}" for row in table.itertuples()],
            "error of the mean": [f"{row.rmse_mean:.1f} {row.unit}" for row in table.itertuples()],
        }
    ).set_index("images")


@checked_arguments()
def rehearsal_text(done: Mapping[str, float], kept: Sequence[KeptFold]) -> str:
    """What was trained here, and what is shown instead."""
    seconds = sum(fold.seconds for fold in kept)
    return (
        f"A rehearsal of {done['steps']:.0f} steps on {done['images']:.0f} pictures took {done['seconds']:.0f} s: "
        "it shows that the training runs. **From here on this page shows the published folds**, "
        f"{counted(len(kept), 'training')} that took {seconds / 60:.0f} minutes in all, on a shared processor. "
        "`python -m vitmech_utils.studies.recordings.folds --out FOLDER` trains them anew."
    )


@checked_arguments()
def scores_table(table: pd.DataFrame) -> pd.DataFrame:
    """Errors on recordings that were not trained on, and what they gain over the mean."""
    texts = table.assign(
        text=[
            ("" if np.isnan(row.rmse) else f"{row.rmse:.1f} {row.unit}, ")
            + f"{row.gain:+.0%} [{row.low:+.0%}, {row.high:+.0%}]"
            for row in table.itertuples()
        ],
        target=table["target"].map(ASKED),
    )
    wide = texts.pivot(index="model", columns="target", values="text")
    return wide.loc[table["model"].unique(), list(ASKED.values())].rename_axis(index=None, columns=None)


@checked_arguments()
def orders_figure(table: pd.DataFrame) -> "Figure":
    """What orders of heads have in common with that of the painted chirps' model, beside what each keeps of its own."""
    figure, ax = plt.subplots(figsize=(WIDTH, 2.8))
    places = np.arange(len(table))
    for offset, part, colour, label in (
        (-0.12, "between", CHIRP_HEAD, "in common"),
        (0.12, "ceiling", OTHER_HEAD, "kept of its own (ceiling)"),
    ):
        errors = np.stack([table[part] - table[f"{part}_low"], table[f"{part}_high"] - table[part]])
        ax.errorbar(
            table[part],
            places + offset,
            xerr=np.nan_to_num(errors).clip(0),
            fmt="o",
            color=colour,
            label=label,
        )
    ax.plot(table["depth"], places, "|", color="#444444", markersize=14, label="by depth alone")
    ax.set_yticks(places, table["compared"])
    ax.set_ylim(len(table) - 0.5, -0.5)
    ax.set_xlabel("rank correlation over heads")
    ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    first = table.iloc[0]
    return headline(
        figure,
        f"Painted and real chirps share an order of heads by {first['between']:.2f}, of {first['ceiling']:.2f} at most",
    )


@checked_arguments()
def orders_text(table: pd.DataFrame, share: Interval) -> str:
    """Whether the heads that matter are the same ones."""
    rows = table.set_index("compared")
    tuned, probed = rows.iloc[0], rows.iloc[1]
    own = Interval(float(tuned["between"]), float(tuned["between_low"]), float(tuned["between_high"]))
    text = (
        f"The order of heads by shift after fine-tuning on real chirps has a rank correlation of **{own}** with that "
        f"of the painted chirps' model, {share:.0%} of the highest that so few images allow. By depth alone, with "
        "heads "
        f"changing places within their layers, it would be {tuned['depth']:.2f}; the frozen backbone under a probe "
        f"has {probed['between']:.2f}."
    )
    if np.isfinite(tuned["folds"]):
        text += f" The orders of two folds correlate by {tuned['folds']:.2f} on average."
    text += (
        " That of the frozen backbone is lower, so training on real chirps adds to the agreement."
        if probed["between_high"] < own.value
        else " The frozen backbone, which was never trained on chirps, agrees about as much: this does not show that "
        "training on real chirps selects these heads."
    )
    return text


@checked_arguments()
def scores_text(table: pd.DataFrame) -> str:
    """Whether fine-tuning reads more of real chirps than a probe and the mean."""
    rows = table.set_index(["model", "target"])
    lines = []
    for target, name in ASKED.items():
        tuned, less = rows.loc[("fine-tuned", target)], rows.loc[("fine-tuned less probe", target)]
        beats = (
            "better than"
            if tuned["low"] > 0
            else "worse than"
            if tuned["high"] < 0
            else "not clearly better than"
        )
        than = (
            "better than"
            if less["low"] > 0
            else "worse than"
            if less["high"] < 0
            else "not clearly different from"
        )
        lines.append(f"{name}: {beats} the mean, {than} the probe")
    return "On recordings that they never saw, the fine-tuned models do as follows: " + "; ".join(lines) + "."
