"""Figures of attacks: changed images, error against budget, vulnerability against ablation, what closes an attack."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from vitmech_utils.figures.marks import percent_scale
from vitmech_utils.figures.plots import REGION_COLOURS, WIDE, WIDTH

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TARGET_COLOURS: dict[str, str] = REGION_COLOURS | {"labels": REGION_COLOURS["axis label"]}
"""One fixed colour per attacked target: its region's; labels together have that of the axis labels."""
MARKERS = ("o", "s", "D", "^", "v", "P", "X")
NOISE = {"noise, worst draw": ("#444444", "", "s"), "noise, one draw": ("#888888", ":", "^")}
"""Look of the random controls: colour, line, marker."""
MODELS: dict[str, tuple[str, str]] = {
    "all heads": ("#000000", "s"),
    "without its heads": ("#D55E00", "o"),
    "without random heads": ("#E69F00", "^"),
    "trained on randomized layouts": ("#0072B2", "D"),
    "trained on published layouts": ("#56B4E9", "v"),
}
"""Colour and marker per attacked model."""


def natural_forest(ax: "Axes", table: pd.DataFrame) -> None:
    """One row per natural change with its interval: name, effect, low, high (percent), moves (bool).

    Hollow marks are changes that move the plot itself, and with it the chirp's pixels.
    """
    places = np.arange(len(table))
    for moves, face, label in (
        (False, "#0072B2", "the plot stays"),
        (True, "white", "hollow: the plot moves, too"),
    ):
        part = (table["moves"] == moves).to_numpy()
        if part.any():
            rows = table[part]
            ax.errorbar(
                rows["effect"], places[part], xerr=_reach(rows), fmt="o", color="#0072B2", markerfacecolor=face,
                markersize=6, capsize=2, elinewidth=1.2, label=label,
            )  # fmt: skip
    ax.axvline(0, color="#444444", linewidth=0.8)
    ax.set_yticks(places, table["name"])
    ax.set_ylim(len(table) - 0.5, -0.5)
    ax.set_xlabel("change of the MSE (%)")
    _scale(ax, "x", table["low"].min(), table["high"].max())
    ax.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=2, columnspacing=1.0)


def attacked_images(
    clean: np.ndarray, attacked: Mapping[str, np.ndarray], budget: float, columns: int = 4
) -> "Figure":
    """Show the clean image, then per target the attacked one over its perturbation.

    Images are [row, column, 3] float in [0, 1]; a perturbation is magnified so that the budget (1/255) spans grey to
    black or white, and grey is no change.
    """
    shown = {"clean": (clean, None)}
    for name, image in attacked.items():
        shown[name] = image, np.clip(0.5 + (image - clean) * 255 / (2 * budget), 0, 1)
    blocks = -(-len(shown) // columns)
    figure, axes = plt.subplots(2 * blocks, columns, figsize=(WIDE, 4.45 * blocks), squeeze=False)
    for ax in axes.flat:
        ax.axis("off")
    for place, (name, (image, change)) in enumerate(shown.items()):
        row, column = 2 * (place // columns), place % columns
        axes[row, column].imshow(image, interpolation="antialiased")
        axes[row, column].set_title(name, loc="center")
        if change is None:
            axes[row + 1, column].text(
                0.5, 0.5, "below each image:\nits perturbation,\nmagnified", ha="center", va="center", fontsize=9,
                transform=axes[row + 1, column].transAxes,
            )  # fmt: skip
        else:
            axes[row + 1, column].imshow(change, interpolation="antialiased")
    return figure


def budget_curves(table: pd.DataFrame, targets: Sequence[str], columns: int = 4) -> "Figure":
    """One panel per target: error against budget under attack and under random noise, with intervals.

    `table` has target, kind ("attack" or one of `NOISE`), budget (1/255), effect, low, high (percent), pixels.
    """
    rows = -(-(len(targets) + 1) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(WIDE, 2.55 * rows), sharex=True, sharey=True, squeeze=False
    )
    budgets = sorted(table["budget"].unique())
    for ax, target in zip(axes.flat, targets, strict=False):
        mine = table[table["target"] == target]
        for kind, (colour, line, marker) in {"attack": (TARGET_COLOURS[target], "-", "o"), **NOISE}.items():
            part = mine[mine["kind"] == kind].sort_values("budget")
            ax.errorbar(
                part["budget"], part["effect"], yerr=_reach(part), fmt=f"{marker}{line}", color=colour, markersize=4,
                capsize=2, elinewidth=1, label=kind,
            )  # fmt: skip
        ax.axhline(0, color="#444444", linewidth=0.8)
        ax.set_title(f"{target} ({mine['pixels'].mean():,.0f} pixels)", fontsize=8.5)
        ax.set_xscale("log", base=2)
        ax.set_xticks(budgets, [f"{budget:g}" for budget in budgets], minor=False)
    _scale(axes[0, 0], "y", table["low"].min(), table["high"].max())
    for ax in axes[:, 0]:
        ax.set_ylabel("change of the MSE (%)")
    for place, ax in enumerate(axes.flat):
        if place >= len(targets):
            ax.axis("off")
        elif place + columns >= len(targets):
            ax.set_xlabel("budget (1/255)")
            ax.tick_params(labelbottom=True)
    handles = [
        plt.Line2D([], [], color="#222222", marker="o", linestyle="-", markersize=4, label="attack"),
        *(
            plt.Line2D([], [], color=colour, marker=marker, linestyle=line, markersize=4, label=kind)
            for kind, (colour, line, marker) in NOISE.items()
        ),
    ]
    axes.flat[len(targets)].legend(handles=handles, loc="center", title="same pixels, same budget")
    return figure


def vulnerability(ax: "Axes", table: pd.DataFrame) -> None:
    """Draw, per target, the attack's effect against that of ablating its heads, both with intervals.

    `table` has target, attacked, attacked_low, attacked_high, ablated, ablated_low, ablated_high (percent).
    """
    for place, row in enumerate(table.itertuples()):
        ax.errorbar(
            row.ablated, row.attacked,
            xerr=[[max(row.ablated - row.ablated_low, 0)], [max(row.ablated_high - row.ablated, 0)]],
            yerr=[[max(row.attacked - row.attacked_low, 0)], [max(row.attacked_high - row.attacked, 0)]],
            fmt=MARKERS[place % len(MARKERS)], color=TARGET_COLOURS[row.target], markersize=7, capsize=2,
            elinewidth=1, label=row.target,
        )  # fmt: skip
    ax.axhline(0, color="#444444", linewidth=0.8)
    ax.axvline(0, color="#444444", linewidth=0.8)
    ax.set_xlabel("its heads ablated together: change of the MSE (%)")
    ax.set_ylabel("attacked, beyond noise:\nchange of the MSE (%)")
    _scale(ax, "x", table["ablated_low"].min(), table["ablated_high"].max())
    _scale(ax, "y", table["attacked_low"].min(), table["attacked_high"].max())
    ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))


def carried_forest(ax: "Axes", table: pd.DataFrame) -> None:
    """Per target, how much of the attack's harm goes when heads write as on the clean image: its own, and random ones.

    `table` has target, kind (its heads, random heads, random heads of the same layers), effect, low, high (percent of
    the clean MSE).
    """
    names = list(dict.fromkeys(table["target"]))
    looks = {
        "its heads": ("#D55E00", "o", -0.2),
        "random heads": ("#888888", "^", 0.0),
        "random heads of the same layers": ("#0072B2", "v", 0.2),
    }
    for kind, (colour, marker, shift) in looks.items():
        part = table[table["kind"] == kind]
        at = [names.index(name) + shift for name in part["target"]]
        ax.errorbar(
            part["effect"], at, xerr=_reach(part), fmt=marker, color=colour, markersize=6, capsize=2, elinewidth=1.2,
            label=kind,
        )  # fmt: skip
    ax.axvline(0, color="#444444", linewidth=0.8)
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.set_xlabel("harm that these heads carry (% of the clean MSE)")
    _scale(ax, "x", table["low"].min(), table["high"].max())
    ax.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=3, columnspacing=1.0)


def defences(table: pd.DataFrame) -> "Figure":
    """Per attacked target, what an attack adds to the error of each model, with intervals.

    `table` has target, model (of `MODELS`), effect, low, high: added by the attack, in percent of the clean MSE of the
    model with all heads.
    """
    targets, names = (
        list(dict.fromkeys(table["target"])),
        [name for name in MODELS if name in set(table["model"])],
    )
    figure, axes = plt.subplots(
        len(targets), 1, figsize=(WIDTH, 0.9 + 1.75 * len(targets)), sharex=True, squeeze=False
    )
    for ax, target in zip(axes[:, 0], targets, strict=True):
        for place, name in enumerate(names):
            part = table[(table["target"] == target) & (table["model"] == name)]
            colour, marker = MODELS[name]
            ax.errorbar(
                part["effect"], [place] * len(part), xerr=_reach(part), fmt=marker, color=colour, markersize=7,
                capsize=2, elinewidth=1.2,
            )  # fmt: skip
        ax.axvline(0, color="#444444", linewidth=0.8)
        ax.set_yticks(range(len(names)), names)
        ax.set_ylim(len(names) - 0.5, -0.5)
        ax.set_title(f"attack on the {target}")
    axes[-1, 0].set_xlabel("added by the attack (% of the clean MSE with all heads)")
    _scale(axes[0, 0], "x", table["low"].min(), table["high"].max())
    return figure


def _reach(table: pd.DataFrame) -> np.ndarray:
    bounds = [table["effect"] - table["low"], table["high"] - table["effect"]]
    return np.clip(np.stack([np.asarray(bound, dtype=float) for bound in bounds]), 0, None)


def _scale(ax: "Axes", which: str, low: float, high: float) -> None:
    """Make an axis in percent linear up to 10 and logarithmic beyond, and no longer than its values need."""
    if max(-low, high) > 20:
        getattr(ax, f"set_{which}lim")(min(1.6 * low, -4.0), max(1.6 * high, 4.0))
    percent_scale(ax, which, linear=10.0)
