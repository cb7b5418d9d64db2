"""Figures of models that lost heads: which heads went, what that could save, what it cost, and error against time."""

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.colors import ListedColormap

from vitmech_utils.figures.marks import percent_scale
from vitmech_utils.figures.plots import WIDTH

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

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
SHARES = ("#D55E00", "#F0B48A", "#D0D7DE")
"""Colours of the work: what goes, what the attention keeps, all the rest."""


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


def choice_forest(ax: "Axes", table: pd.DataFrame, draws: pd.Series) -> None:
    """Compare choices of as many heads: each one's effect with its interval, over the random draws as dots.

    `table` has choice, effect, low, high (percent) and recovered; hollow marks are after recovery. `draws` are the
    effects of the random sets.
    """
    names = [name for name in CHOICES if name in set(table["choice"])]
    for place, name in enumerate(names):
        for row in table[table["choice"] == name].itertuples():
            _point(ax, row.effect, place + (0.22 if row.recovered else 0), row, horizontal=True)
        if name == "random":
            rng = np.random.default_rng(0)
            shift = place - 0.25 + rng.uniform(-0.12, 0.12, len(draws))
            ax.plot(draws, shift, "o", color="#888888", alpha=0.55, markersize=4, markeredgewidth=0)
    ax.axvline(0, color="#444444", linewidth=0.8)
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.set_xlabel("change of the MSE (%)")
    _scale(ax, "x", min(table["low"].min(), draws.min()), max(table["high"].max(), draws.max()))
    _key(ax, [("filled: heads removed", True), ("hollow: after recovery", False)])


def size_curves(ax: "Axes", table: pd.DataFrame) -> None:
    """Draw the effect against the number of heads removed, a line per choice with several sizes, else a mark.

    Choices stand a little beside each other, so that their intervals can be told apart.
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
    _scale(ax, "y", table["low"].min(), table["high"].max())
    ax.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=3, columnspacing=1.0, handlelength=1.2)


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
    _scale(ax, "y", table["low"].min(), table["high"].max())


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


def _scale(ax: "Axes", which: str, low: float, high: float) -> None:
    """Make an axis in percent linear up to 10 and logarithmic beyond, and no longer than its values need."""
    if max(-low, high) > 20:
        getattr(ax, f"set_{which}lim")(min(1.6 * low, -4.0), max(1.6 * high, 4.0))
    percent_scale(ax, which, linear=10.0)


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
