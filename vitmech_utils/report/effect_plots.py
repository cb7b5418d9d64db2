"""Figures of effects: intervals head by head, layer profiles, modes against each other."""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from vitmech_utils.report.plots import decades
from vitmech_utils.report.point_labels import name_largest

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def excludes_zero(table: pd.DataFrame) -> pd.Series:
    """True where an effect's interval lies on one side of zero."""
    return (table["low"] > 0) | (table["high"] < 0)


def head_names(table: pd.DataFrame) -> list[str]:
    """Names such as L6H4: 1-based layer and head, from 0-based columns."""
    return [f"L{layer + 1}H{head + 1}" for layer, head in zip(table["layer"], table["head"], strict=True)]


def percent_scale(ax: "Axes", which: str = "y", linear: float = 1.0) -> None:
    """Make an axis in percent linear up to `linear` and logarithmic beyond, with plain numbers as ticks."""
    for name in which:
        axis = getattr(ax, f"{name}axis")
        low, high = getattr(ax, f"get_{name}lim")()
        if max(abs(low), abs(high)) <= linear * 2:
            continue
        getattr(ax, f"set_{name}scale")("symlog", linthresh=linear)
        ticks = [tick for tick in decades(linear) if low <= tick <= high]
        # On a horizontal axis numbers stand side by side: there every other one is left out, but never zero.
        if name == "x" and len(ticks) > 7:
            ticks = [tick for place, tick in enumerate(ticks, -ticks.index(0.0)) if place % 2 == 0]
        axis.set_ticks(ticks)
        axis.set_major_formatter("{x:g}")


def effect_forest(ax: "Axes", table: pd.DataFrame, top: int = 20) -> None:
    """Draw the `top` heads with the largest absolute effects, each with its interval, the largest on top."""
    rows = table.loc[table["effect"].abs().nlargest(top).index].iloc[::-1]
    places = np.arange(len(rows))
    clear = excludes_zero(rows).to_numpy()
    for chosen, colour, name in (
        (clear, "#D55E00", "interval excludes zero"),
        (~clear, "#888888", "includes zero"),
    ):
        if chosen.any():
            part = rows[chosen]
            reach = np.abs(part[["low", "high"]].to_numpy().T - part["effect"].to_numpy())
            ax.errorbar(
                part["effect"], places[chosen], xerr=reach, fmt="o", color=colour, markersize=4, label=name
            )
    ax.axvline(0, color="#444444", linewidth=0.8)
    ax.set_yticks(places, head_names(rows))
    ax.set_xlabel("effect on the MSE (%)")
    ax.legend(loc="lower right")


def layer_profile(
    ax: "Axes", layers: pd.DataFrame, heads: pd.DataFrame | None = None, label: str = ""
) -> None:
    """Draw the mean effect per layer with its interval, over the single heads' effects as dots."""
    if heads is not None:
        rng = np.random.default_rng(0)
        shift = rng.uniform(-0.18, 0.18, len(heads))
        ax.plot(heads["layer"] + 1 + shift, heads["effect"], ".", color="#BBBBBB", markersize=4, zorder=0)
    reach = np.abs(layers[["low", "high"]].to_numpy().T - layers["effect"].to_numpy())
    ax.errorbar(
        layers["layer"] + 1, layers["effect"], yerr=reach, fmt="o-", markersize=4, capsize=2, label=label
    )
    ax.axhline(0, color="#444444", linewidth=0.8)
    ax.set_xticks(layers["layer"] + 1)
    ax.set_xlabel("layer")
    ax.set_ylabel("effect on the MSE (%)")


def effect_scatter(ax: "Axes", first: pd.Series, second: pd.Series, names: list[str], label: int = 3) -> None:
    """Draw two effects per head against each other, with the line of equality and the `label` largest named."""
    ax.plot(first, second, "o", markersize=4, alpha=0.8)
    low, high = min(first.min(), second.min()), max(first.max(), second.max())
    ax.plot([low, high], [low, high], color="#444444", linewidth=0.8, linestyle="--")
    name_largest(ax, first, second, names, np.maximum(first.abs(), second.abs()), label)
