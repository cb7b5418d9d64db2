"""What chapter 02 shows: how a training went, how well its adapter reads chirps, and where it acted."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from vitmech_utils.arguments import checked_arguments
from vitmech_utils.data.chirps import LABEL_NAMES, LABEL_UNITS
from vitmech_utils.data.dataset import unstandardize
from vitmech_utils.figures.marks import plain_log
from vitmech_utils.figures.plots import WIDE, WIDTH
from vitmech_utils.figures.tables import counted, from_zero, pipe_table, plain, three_sentences
from vitmech_utils.intervals import mean_interval
from vitmech_utils.profiles import Profile
from vitmech_utils.statistics import Interval
from vitmech_utils.studies.fine_tuning.measure import STUDY, against_study

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas.io.formats.style import Styler


@checked_arguments()
def opening(profile: Profile, device: str) -> str:
    """What this run of the chapter is made of."""
    train = profile.train
    made = (
        "The adapter shown was trained beforehand; this page only rehearses the training."
        if profile.adapter == "published"
        else f"The adapter is trained here, for {train.steps:,} steps of {train.batch_size} images."
    )
    return (
        f"This page was made with profile **{profile.name}**: backbone `{profile.backbone}`, "
        f"scored on {train.eval_images:,} held-out images, on {device.upper()}. {made}"
    )


@checked_arguments()
def trained(run: Mapping, shown: Mapping | None = None) -> str:
    """What this run's training cost; `shown` is the record of the published adapter that the page shows instead."""
    text = (
        f"{run['steps']:,} steps of {run['batch_size']} images took {run['wall_seconds']:,.0f} s "
        f"on {run['device'].upper()}."
    )
    if shown is None:
        return text
    restart = f", with a restart after {shown['restart']:,} of them," if shown.get("restart") else ""
    return (
        f"{text} That is only a rehearsal, which shows that the training runs. **From here on this page shows the "
        f"adapter that comes with this book**, trained with profile {shown['profile']} for {shown['steps']:,} "
        f"steps of {shown['batch_size']} "
        f"images{restart} in {shown['wall_seconds'] / 60:,.0f} minutes."
    )


@checked_arguments()
def learning_curves(record: Mapping) -> "Figure":
    """Loss, and correlation per target, against steps, from a training's record."""
    history = pd.DataFrame(record["history"])
    figure, (left, right) = plt.subplots(1, 2, figsize=(WIDE, 3.4))
    for column, label in (("train_loss", "training"), ("held_out_loss", "validation")):
        rows = history.dropna(subset=[column])
        marker = "o" if column == "held_out_loss" else None
        left.plot(rows["step"], rows[column], marker=marker, label=label)
    left.set(xlabel="step", ylabel="MSE (standardized labels)")
    plain_log(left)
    left.set_title("The loss falls on images never seen")
    if record.get("restart"):
        for ax, label in ((left, "restart"), (right, None)):
            ax.axvline(record["restart"], color="#444444", linewidth=0.8, linestyle=":", label=label)
    left.legend()
    for name in LABEL_NAMES:
        rows = history.dropna(subset=[f"r_{name}"])
        right.plot(rows["step"], rows[f"r_{name}"], marker="o", label=plain(name))
    right.set(xlabel="step", ylabel="Pearson r (validation)", title="All three targets are learned")
    right.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=3, fontsize=8)
    return figure


@checked_arguments()
def score_table(table: pd.DataFrame) -> "Styler":
    """Pearson's r with its interval, MSE, and the error in seconds or hertz, per target."""
    rows = table.assign(
        target=table["target"].map(plain),
        interval=[f"{low:.4f} to {high:.4f}" for low, high in zip(table["low"], table["high"], strict=True)],
        error=[f"{rmse:.2f} {unit}" for rmse, unit in zip(table["rmse"], table["unit"], strict=True)],
    )[["target", "r", "interval", "mse", "error", "images"]]
    formats = {"r": "{:.4f}", "mse": "{:.4f}"}
    return (
        rows.style.hide(axis="index")
        .format(formats)
        .set_caption("Score on held-out images (error: root mean square)")
    )


@checked_arguments()
def recipes(table: pd.DataFrame) -> str:
    """Trainings with and without hard images: what they cost and how well they read; of `compared_recipes`."""
    targets = [name for name in LABEL_NAMES if f"r_{name}" in table]
    rows = [
        (
            row["training"],
            f"{row['hard_share']:.0%}",
            f"{row['images_visited']:,}",
            f"{row['device']}, {row['seconds'] / 60:,.0f} minutes",
            *(
                f"{Interval(row[f'r_{name}'], row[f'low_{name}'], row[f'high_{name}']):.4f}"
                for name in targets
            ),
            f"{row['unread']:.1%} [{row['low']:.1%}, {row['high']:.1%}] of {row['images']:,}",
        )
        for _, row in table.iterrows()
    ]
    headings = [
        "training",
        "hard images",
        "images visited",
        "on",
        *(f"r, {plain(name)}" for name in targets),
        "unread",
    ]
    return pipe_table(headings, rows)


@checked_arguments()
def predictions(found: Mapping[str, np.ndarray], table: pd.DataFrame) -> "Figure":
    """Predicted against true values per target, in seconds and hertz; `found` holds both, standardized."""
    figure, axes = plt.subplots(1, len(LABEL_NAMES), figsize=(WIDE, 3.3))
    labels, read = (unstandardize(found[name]) for name in ("labels", "predictions"))
    for i, (ax, name, unit) in enumerate(zip(axes, LABEL_NAMES, LABEL_UNITS, strict=True)):
        limits = (
            min(labels[:, i].min(), read[:, i].min()) - 2,
            max(labels[:, i].max(), read[:, i].max()) + 2,
        )
        ax.plot(limits, limits, color="0.6", lw=1, zorder=0)
        ax.scatter(labels[:, i], read[:, i], s=9, alpha=0.5, linewidths=0)
        ax.set(xlabel=f"true {plain(name)} ({unit})", ylabel=f"predicted ({unit})", xlim=limits, ylim=limits)
        ax.set(aspect="equal", title=f"{plain(name)}: r = {table['r'][i]:.3f}")
    return figure


@checked_arguments()
def control_table(controls: pd.DataFrame) -> "Styler":
    """MSE and spread of the fine-tuned model and its controls."""
    caption = (
        "MSE on standardized labels; spread is the standard deviation of predictions over that of labels"
    )
    return (
        controls.style.hide(axis="index").format({"MSE": "{:.3f}", "spread": "{:.2f}"}).set_caption(caption)
    )


@checked_arguments()
def update_norms(norms: pd.DataFrame) -> "Figure":
    """The relative LoRA update per layer and projection: mean over heads, bars from the least to the most changed."""
    figure, ax = plt.subplots(figsize=(WIDTH, 3.4))
    for aside, (projection, part) in zip((-0.08, 0.08), norms.groupby("projection"), strict=False):
        layers = part.groupby("layer")["relative"]
        middle, low, high = (100 * found for found in (layers.mean(), layers.min(), layers.max()))
        ax.errorbar(
            middle.index + 1 + aside, middle, yerr=[middle - low, high - middle], marker="o", capsize=3,
            label=projection,
        )  # fmt: skip
    ax.set(xlabel="layer", ylabel="relative update (%)", ylim=(0, None))
    ax.set_xticks(range(1, norms["layer"].max() + 2))
    most = norms.groupby(["projection", "layer"])["relative"].mean().unstack("projection").idxmax() + 1
    ax.set_title(f"Moved most: {' and '.join(f'{name} in layer {layer}' for name, layer in most.items())}")
    ax.legend()
    return figure


@checked_arguments()
def moved_most(norms: pd.DataFrame) -> str:
    """Which layer fine-tuning moved most, for each projection and for their mean, and the head moved most of all."""
    by_layer = norms.groupby(["projection", "layer"])["relative"].mean().unstack("projection")
    told = [
        f"the {name} weights were moved most in layer {layers.idxmax() + 1} ({layers.max():.1%})"
        for name, layers in by_layer.items()
    ]
    both, top = by_layer.mean(axis=1), norms.loc[norms["relative"].idxmax()]
    part = norms[(norms["projection"] == top["projection"]) & (norms["layer"] == top["layer"])]["relative"]
    rest = part.drop(part.idxmax())
    return (
        f"Averaged over heads, {' and '.join(told)}; averaged over projections, too, it is layer {both.idxmax() + 1} "
        f"({both.max():.1%}). One head stands out: layer {top['layer'] + 1}, head {top['head'] + 1}, whose "
        f"{top['projection']} weights moved by {top['relative']:.1%}; without it those of its layer moved by "
        f"{rest.mean():.1%} instead of {part.mean():.1%}."
    )


@checked_arguments()
def verdict(table: pd.DataFrame, backbone: str) -> str:
    """How the adapter stands to the study's figure, and where it is weakest."""
    start, weakest = table.set_index("target").loc["start_time"], table.loc[table["r"].idxmin()]
    return (
        f"For the start time r = **{start['r']:.4f}** (95 % interval {start['low']:.4f} to {start['high']:.4f}, "
        f"{start['images']:,} images) against the study's {STUDY}: this adapter **{against_study(start)}**. The "
        f"weakest target is the {plain(weakest['target'])} with r = {weakest['r']:.4f}. The comparison is not quite "
        f"even: the study fine-tuned ViT-B/16 on stored images for up to a hundred passes; this adapter "
        f"sits on `{backbone}`."
    )


@checked_arguments()
def what_you_know(
    table: pd.DataFrame, found: Mapping[str, np.ndarray], controls: pd.DataFrame, norms: pd.DataFrame
) -> str:
    """The chapter in three sentences; `found` holds predictions and labels [image, target]."""
    read = ", ".join(
        f"{Interval(row['r'], row['low'], row['high']):.3f} for the {plain(row['target'])}"
        for _, row in table.iterrows()
    )
    mse = mean_interval(((np.asarray(found["predictions"]) - np.asarray(found["labels"])) ** 2).mean(axis=1))
    few = controls.set_index("model")
    alike = {name: few.loc[name, "MSE"] for name in ("fine-tuned", "adapter taken out", "the mean")}
    moved = norms.groupby("projection")["relative"].agg(["mean", "min", "max"])
    sizes = " and ".join(
        f"{name} weights by {row['mean']:.1%} (from {row['min']:.1%} to {row['max']:.1%} over heads)"
        for name, row in moved.iterrows()
    )
    return three_sentences(
        f"On {counted(int(table['images'].iloc[0]), 'held-out image')} the readings correlate with the truth at r = "
        f"{read}.",
        f"On these images the MSE is {from_zero(mse):.3f}; on {counted(int(few['images'].iloc[0]), 'image')} of the "
        f"controls it is {alike['fine-tuned']:.3f} with the adapter, {alike['adapter taken out']:.2f} with the adapter "
        f"taken out, and {alike['the mean']:.2f} for always saying the mean.",
        f"Fine-tuning changed {sizes}; how far a head was moved does not say how much it matters.",
    )
