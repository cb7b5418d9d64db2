"""Figures of another task: what a picture can tell, what a title tells, and where two tasks put their weight."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from vitmech_utils.figures.marks import name_largest
from vitmech_utils.figures.plots import WIDE, WIDTH, heatmap

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MODELS: dict[str, tuple[str, str]] = {
    "leak": ("#D55E00", "o"),
    "clean": ("#0072B2", "s"),
    "regressor": ("#009E73", "D"),
}
"""Colour and marker per model."""
KINDS: dict[str, tuple[str, str]] = {
    "lookers": ("#D55E00", "o"),
    "random heads of the lookers' layers": ("#888888", "^"),
    "carriers": ("#CC79A7", "D"),
    "random heads of the carriers' layers": ("#888888", "v"),
}
"""Colour and marker per set of heads."""
TARGET_LINES = {"type": "-", "direction": "--", "all": "-"}
_STEP = 0.1  # half of the way between marks of one row


def twin_figures(rows: Mapping[str, Sequence[np.ndarray]], names: Sequence[str]) -> "Figure":
    """Figures of the same chirps under each other: one row per title, named at its left, one named column per chirp.

    Images are [row, column, 3] float in [0, 1].
    """
    figure, axes = plt.subplots(len(rows), len(names), figsize=(WIDE, 2.45 * len(rows) + 0.2), squeeze=False)
    for line, (title, images) in zip(axes, rows.items(), strict=True):
        for ax, image in zip(line, images, strict=True):
            inked = np.flatnonzero(image.min((1, 2)) < 1)  # margins above and below need no room
            ax.imshow(image[inked[0] : inked[-1] + 1], interpolation="antialiased")
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set_visible(False)
        line[0].set_ylabel(title)
    for ax, name in zip(axes[0], names, strict=True):
        ax.set_title(name, loc="center")
    return figure


def bend_histogram(ax: "Axes", bends: Sequence[float], limit: float) -> None:
    """How far the two types' paths lie apart, over chirps, in rows of the grid; left of `limit` no picture can tell."""
    bends = np.asarray(bends)
    edges = np.concatenate([[0.0], np.geomspace(0.1, max(bends.max(), 1.0) * 1.001, 25)])
    # On a logarithmic axis there is no zero: what lies below the first edge stands in the first bar.
    ax.hist(np.clip(bends, 0.1, None), bins=edges[1:], color="#0072B2", edgecolor="white", linewidth=0.4)
    ax.axvline(limit, color="#D55E00", linestyle="--", linewidth=1.4)
    ax.set_xscale("log")
    ticks = [tick for tick in (0.1, 0.3, 1, 3, 10, 30) if tick <= edges[-1]]
    ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    ax.minorticks_off()
    ax.set(xlabel="largest distance of both paths (rows of the grid)", ylabel="chirps")


def learning_curves(histories: Mapping[str, pd.DataFrame], targets: Sequence[str]) -> "Figure":
    """Held-out loss (nats), and accuracy per target, against steps, for each model of `MODELS` in `histories`."""
    figure, axes = plt.subplots(1, 1 + len(targets), figsize=(WIDE, 3.1))
    for name, history in histories.items():
        colour, marker = MODELS[name]
        for ax, column in zip(axes, ("held_out_loss", *(f"accuracy_{t}" for t in targets)), strict=True):
            rows = history.dropna(subset=[column])
            ax.plot(rows["step"], rows[column], marker=marker, color=colour, markersize=5, label=name)
    axes[0].axhline(np.log(2), color="#444444", linestyle=":", linewidth=1)
    axes[0].set(xlabel="step", ylabel="cross-entropy (nats)", title="both targets", ylim=(0, None))
    for ax, target in zip(axes[1:], targets, strict=True):
        ax.axhline(0.5, color="#444444", linestyle=":", linewidth=1)
        ax.set(xlabel="step", ylabel="accuracy", title=target, ylim=(0, 1.03))
    axes[0].legend(loc="best")
    return figure


def accuracies(table: pd.DataFrame, titles: Sequence[str], targets: Sequence[str]) -> "Figure":
    """Accuracy under each title, one panel per target: table has model, title, target, accuracy, low, high."""
    figure, axes = plt.subplots(1, len(targets), figsize=(WIDE, 0.55 * len(titles) + 1.1), sharey=True)
    for ax, target in zip(axes, targets, strict=True):
        _rows(
            ax, table[table["target"] == target].assign(value=lambda rows: rows["accuracy"]), "title", titles
        )
        ax.axvline(0.5, color="#444444", linestyle=":", linewidth=1)
        ax.set(xlim=(-0.03, 1.03), xlabel="accuracy", title=f"answers on the {target}")
    axes[0].legend(loc="lower left", bbox_to_anchor=(0.0, 1.08), ncols=2)
    return figure


def accuracy_by_bend(ax: "Axes", table: pd.DataFrame, bins: Sequence[str]) -> None:
    """Accuracy on the type by how far the two types' paths lie apart: table has model, bin, accuracy, low, high."""
    for name, part in table.groupby("model", sort=False):
        colour, marker = MODELS[name]
        at = [bins.index(found) for found in part["bin"]]
        shift = -0.06 if name == "leak" else 0.06
        ax.errorbar(
            np.array(at) + shift, part["accuracy"], yerr=_reach(part, "accuracy"), fmt=f"{marker}-",
            color=colour, capsize=2, elinewidth=1.2, label=name,
        )  # fmt: skip
    ax.axhline(0.5, color="#444444", linestyle=":", linewidth=1)
    ax.set_xticks(range(len(bins)), bins)
    ax.set(ylim=(-0.03, 1.03), ylabel="accuracy on the type", xlabel="rows between the two types' paths")
    ax.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2)


def set_effects(table: pd.DataFrame) -> "Figure":
    """What a set of heads does when it is ablated, beside random sets: one panel per model.

    `table` has model, target, kind (of `KINDS`), effect, low, high (nats).
    """
    models, targets = (list(dict.fromkeys(table[column])) for column in ("model", "target"))
    figure, axes = plt.subplots(len(models), 1, figsize=(WIDTH, 1.9 * len(models) + 1.2))
    for ax, model in zip(axes, models, strict=True):
        part = table[table["model"] == model].assign(value=lambda rows: rows["effect"])
        _rows(ax, part, "target", targets, by="kind", looks=KINDS)
        ax.axvline(0, color="#444444", linewidth=0.8)
        ax.set(title=f"in the {model} model")
    axes[-1].set_xlabel("change of the cross-entropy (nats)")
    axes[0].legend(loc="lower left", bbox_to_anchor=(-0.1, 1.14), ncols=2, columnspacing=1.0)
    return figure


def follow_forest(ax: "Axes", table: pd.DataFrame) -> None:
    """The share of answers that follow the lying title: table has what, share, low, high, in the order drawn."""
    places = np.arange(len(table))
    colours = ["#D55E00" if patched else "#888888" for patched in table["patched"]]
    for place, colour, row in zip(places, colours, table.itertuples(), strict=True):
        reach = [[max(row.share - row.low, 0)], [max(row.high - row.share, 0)]]
        ax.errorbar(row.share, place, xerr=reach, fmt="o", color=colour, capsize=2, elinewidth=1.2)
    ax.set_yticks(places, table["what"])
    ax.set(
        xlim=(-0.03, 1.03),
        ylim=(len(table) - 0.5, -0.5),
        xlabel="share of answers that follow the lying title",
    )


def by_lift(ax: "Axes", table: pd.DataFrame, names: Sequence[str], value: str, label: str) -> None:
    """A value of each head against its lift on the title, the three largest named.

    `table` has lift, `value`, and kind: `lookers`, `carriers`, `lookers and carriers`, or `other heads`.
    """
    looks = {
        "other heads": ("#888888", "o"),
        "lookers": KINDS["lookers"],
        "carriers": KINDS["carriers"],
        "lookers and carriers": ("#0072B2", "s"),
    }
    for kind, (colour, marker) in looks.items():
        part = table[table["kind"] == kind]
        if len(part):
            ax.plot(part["lift"], part[value], marker, color=colour, markersize=5.5, alpha=0.85, label=kind)
    name_largest(ax, table["lift"], table[value], names, table[value], fontsize=8.5)
    ax.axhline(0, color="#444444", linewidth=0.8)
    ax.axvline(1, color="#444444", linestyle=":", linewidth=1)
    ax.set(xlabel="lift on the title", ylabel=label)
    ax.legend()


def effect_grids(tables: Mapping[str, pd.DataFrame], unit: Mapping[str, str]) -> "Figure":
    """A layer x head grid per model and target, each on its own scale, with the unit at its colour bar.

    Effects in percent span many sizes: their colours are linear up to 1 % and logarithmic beyond.
    """
    columns = min(3, len(tables))
    rows = -(-len(tables) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(WIDE, 3.3 * rows), squeeze=False)
    for ax, (name, table) in zip(axes.flat, tables.items(), strict=False):
        heatmap(ax, table, label=unit[name], diverging=True, linear=1.0 if "%" in unit[name] else None)
        ax.set_title(name)
    for ax in axes.flat[len(tables) :]:
        ax.axis("off")
    return figure


def layer_shares(axes: Sequence["Axes"], tables: Mapping[tuple[str, str], pd.DataFrame]) -> None:
    """Each layer's share of all positive effects, with intervals: one panel per model, one line per target."""
    panel = dict(zip(dict.fromkeys(model for model, _ in tables), axes, strict=True))
    for (model, target), table in tables.items():
        ax, (colour, marker) = panel[model], MODELS[model]
        second = target == "direction"
        reach = np.clip([table["share"] - table["share_low"], table["share_high"] - table["share"]], 0, None)
        ax.errorbar(
            table["layer"] + 1 + (0.12 if second else -0.12), table["share"], yerr=reach,
            fmt=marker + TARGET_LINES.get(target, "-"), color=colour, markerfacecolor="white" if second else colour,
            markersize=5, capsize=2, elinewidth=1, label="all targets" if target == "all" else target,
        )  # fmt: skip
        ax.set_xticks(table["layer"] + 1)
        ax.set(title=f"{model} model" if model != "regressor" else "regressor", ylim=(0, None))
        ax.legend(loc="upper left")
    axes[-1].set_xlabel("layer")
    for ax in axes:
        ax.set_ylabel("share of the harm")


def order_forest(ax: "Axes", table: pd.DataFrame, limits: Sequence[float]) -> None:
    """What two orders of heads share, of what one keeps of its own: table has what, quantity, share, low, high."""
    looks = {"effect": ("#D55E00", "o"), "attention": ("#0072B2", "s")}
    _rows(
        ax, table.assign(value=table["share"]), "what", list(dict.fromkeys(table["what"])), "quantity", looks
    )
    for limit in limits:
        ax.axvline(limit, color="#444444", linestyle=":", linewidth=1)
    names = list(dict.fromkeys(table["what"]))
    for row in table[table["share"].isna()].itertuples():
        ax.text(
            0.02,
            names.index(row.what),
            f"by {row.quantity}: unknown",
            va="center",
            fontsize=8.5,
            color="#666666",
        )
    ax.axvline(0, color="#444444", linewidth=0.8)
    ax.set(xlabel="share of a model's agreement with itself")
    ax.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=2)


def _rows(
    ax: "Axes",
    table: pd.DataFrame,
    column: str,
    order: Sequence[str],
    by: str = "model",
    looks: Mapping[str, tuple[str, str]] = MODELS,
) -> None:
    """Marks with intervals (value, low, high), one row per entry of `order`, side by side for what `by` names."""
    names = [name for name in looks if name in set(table[by])]
    for number, name in enumerate(names):
        part = table[table[by] == name]
        colour, marker = looks[name]
        at = np.array([list(order).index(found) for found in part[column]], dtype=float)
        ax.errorbar(
            part["value"], at + _STEP * (2 * number - len(names) + 1), xerr=_reach(part, "value"), fmt=marker,
            color=colour, markersize=6, capsize=2, elinewidth=1.2, label=name,
        )  # fmt: skip
    ax.set_yticks(range(len(order)), order)
    ax.set_ylim(len(order) - 0.5, -0.5)


def _reach(table: pd.DataFrame, value: str) -> np.ndarray:
    bounds = [table[value] - table["low"], table["high"] - table[value]]
    return np.clip(np.stack([np.asarray(bound, dtype=float) for bound in bounds]), 0, None)
