"""Figures of heads taken together: groups against sums, pairs, Shapley values, kept sets, direct effects."""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from vitmech_utils.figures.marks import percent_scale

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TOGETHER, ALONE, CLEAR, PALE = "#D55E00", "#0072B2", "#D55E00", "#888888"
RANKINGS = {
    "single effect": ("#0072B2", "o"),
    "Shapley value": ("#D55E00", "s"),
    "random": ("#888888", "v"),
}


def _scale(ax: "Axes", which: str, linear: float) -> None:
    """A scale in percent with room at its ends: on a logarithmic part the usual margin is next to none."""
    for name in which:
        low, high = getattr(ax, f"get_{name}lim")()
        getattr(ax, f"set_{name}lim")(low - 0.6 * max(-low, 0), high + 0.6 * max(high, 0))
    percent_scale(ax, which, linear)


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
    ax.axvline(0, color="#444444", linewidth=0.8)
    _scale(ax, "x", linear)
    ax.set_xlabel("effect on the MSE (%)")


def agreement_scatter(
    ax: "Axes", x: pd.Series, y: pd.Series, clear: pd.Series | None = None, linear: float = 1.0
) -> None:
    """Draw one quantity in percent against another, both axes linear around zero and logarithmic beyond."""
    if clear is None:
        clear = pd.Series(True, index=x.index)
    for chosen, colour, name in (
        (~clear, PALE, "interval includes zero"),
        (clear, CLEAR, "interval excludes zero"),
    ):
        if chosen.any():
            ax.plot(x[chosen], y[chosen], "o", color=colour, markersize=4, alpha=0.8, label=name)
    ends = [float(min(x.min(), y.min())), float(max(x.max(), y.max()))]
    ax.plot(ends, ends, color="#444444", linewidth=0.8, linestyle="--", label="equal")
    ax.axhline(0, color="#BBBBBB", linewidth=0.8, zorder=0)
    ax.axvline(0, color="#BBBBBB", linewidth=0.8, zorder=0)
    _scale(ax, "xy", linear)


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
        ax.errorbar(
            part["kept"], part["effect"], yerr=reach, fmt=f"{mark}-", color=colour, markersize=4,
            linewidth=1.2, label=f"first by {name}",
        )  # fmt: skip
    ax.axhline(limit, color="#444444", linewidth=0.8, linestyle="--")
    ax.annotate(
        "error doubled", (total, limit), xytext=(0, 3), textcoords="offset points", ha="right", fontsize=8
    )
    ax.axhline(0, color="#BBBBBB", linewidth=0.8, zorder=0)
    _scale(ax, "y", limit)
    ax.set_ylim(bottom=-1.2 * limit)  # no error falls by more than all of it
    ax.set(xlabel=f"heads kept, of {total}", ylabel="effect on the MSE (%)")


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
    ax.set(xlabel="layer", ylabel="effect on the MSE (%)")
