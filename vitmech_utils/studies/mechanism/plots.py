"""Figures and sentences of the chapter on how one head works. Layers and heads count from 1 in what is shown."""

from __future__ import annotations

from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from numpy import ndarray

from vitmech_utils.arguments import checked_arguments
from vitmech_utils.data.chirps import LABEL_NAMES, LABEL_UNITS
from vitmech_utils.figures.marks import interval_forest, reach
from vitmech_utils.figures.plots import SEQUENTIAL, WIDE, WIDTH, headline, overlay
from vitmech_utils.figures.tables import (
    counted,
    interval,
    judgement_list,
    listed,
    percent,
    pipe_table,
    rule_text,
    three_sentences,
)
from vitmech_utils.statistics import Interval
from vitmech_utils.studies.mechanism.judge import QUESTION, answer_follows, gathered, passing
from vitmech_utils.studies.mechanism.measure import CONTROL, PLACE_OF, STRONGEST, head_of
from vitmech_utils.studies.verdicts import HALF, Judgement

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROLES = {STRONGEST: ("#D55E00", "o"), CONTROL: ("#888888", "s")}
KINDS = {"chirp": "#D55E00", "background": "#332288"}
TARGETS = {"start_time": "#0072B2", "start_freq": "#009E73", "end_freq": "#CC79A7"}
UNITS = dict(zip(LABEL_NAMES, LABEL_UNITS, strict=True))
MOST_PATHS = 8


@checked_arguments()
def named(table: pd.DataFrame, role: str = STRONGEST) -> str:
    """The head of a role in words: layer 10, head 5."""
    layer, head = head_of(table, role)
    return f"layer {layer + 1}, head {head + 1}"


@checked_arguments()
def plain_target(name: str) -> str:
    """A target in words: start time, start frequency, end frequency."""
    return name.replace("_", " ").replace("freq", "frequency")


@checked_arguments()
def opening(heads: pd.DataFrame) -> str:
    """Which head the rule names, in each training."""
    rows = heads[heads["role"] == STRONGEST]
    lines = [
        f"{row.training}: layer {row.layer + 1}, head {row.head + 1} ({percent(row)} error without it, "
        f"{counted(int(row.images), 'image')})"
        for row in rows.itertuples()
    ]
    return f"The rule names {listed(lines, '; ')}."


@checked_arguments()
def pointed(
    picture: ndarray, unit_map: ndarray, places: ndarray, table: pd.DataFrame, account: pd.DataFrame
) -> Figure:
    """Where the head looks on one image and where it was pointed, and the shift of the answer, predicted and measured.

    `picture` [row, column, 3], `unit_map` [row, column] in [0, 1], `places` [patch] numbers of the patches that the
    image's heads were pointed at; tables of one training.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(WIDE, 4.1), width_ratios=(1, 1.15))
    side = unit_map.shape[0]
    left.imshow(overlay(picture, unit_map), extent=(0, side, side, 0))
    row, column = divmod(int(places[0]), side)
    left.plot(column + 0.5, row + 0.5, "x", color="white", markersize=11, markeredgewidth=3)
    strongest, training = account[account["role"] == STRONGEST].iloc[0], account["training"].iloc[0]
    name = f"L{strongest['layer'] + 1}H{strongest['head'] + 1}"
    left.set(title=f"{name} ({training}) looks at the chirp;\nwe point it at the cross", xticks=[], yticks=[])
    for role, (colour, marker) in ROLES.items():
        part = table[table["role"] == role]
        row = account[(account["role"] == role) & (account["target"] == "start_time")].iloc[0]
        right.plot(
            part["predicted_start_time"], part["shift_start_time"], marker, color=colour, markersize=5, alpha=0.8,
            linestyle="none", label=f"{role} head: r = {interval(row, '.3f', 'correlation')}",
        )  # fmt: skip
    right.axline((0, 0), slope=1, color="#444444", linewidth=0.8, linestyle="--")
    right.set(
        xlabel="predicted shift of the start time (s)", ylabel="measured shift (s)",
        title=_follows(account, int((table["role"] == STRONGEST).sum())),
    )  # fmt: skip
    right.legend(loc="best", fontsize=8.5)
    return figure


@checked_arguments()
def readers(table: pd.DataFrame) -> Figure:
    """What ablating the head costs where only some tokens notice."""
    figure, axis = plt.subplots(figsize=(WIDTH, 2.6))
    interval_forest(
        axis, table.assign(name=[f"{r.where} ({r.tokens:.0f})" for r in table.itertuples()]), "name"
    )
    axis.axvline(0, color="#444444", linewidth=0.8)
    axis.set_xlabel("growth of the error (%); in brackets: how many tokens")
    parts = table[table["where"] != "all tokens"].sort_values("effect", ascending=False)
    top, *others = (row for _, row in parts.iterrows())
    images = counted(int(top["images"]), "image")
    alike = [row for row in others if row["high"] >= top["low"]]
    told = "needs it most" if not alike else f"undecided against {counted(len(alike), 'other kind')}"
    axis.set_title(f"{top['where']}, {percent(top)}: {told} ({images})")
    return figure


@checked_arguments()
def asked(shares: pd.DataFrame, logits: pd.DataFrame) -> Figure:
    """Attention between kinds of tokens, and what the logits are made of."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(WIDE, 3.2), width_ratios=(1.2, 1))
    names = list(dict.fromkeys(shares["query"]))
    grid = shares.pivot(index="query", columns="key", values="share").loc[names, names].to_numpy()
    left.imshow(grid, cmap=SEQUENTIAL, vmin=0, vmax=1, aspect="auto")
    for (row, column), value in np.ndenumerate(grid):
        ink = "black" if value > 0.5 else "white"
        left.text(column, row, f"{value:.2f}", ha="center", va="center", color=ink, fontsize=8.5)
    left.set_xticks(range(len(names)), names)
    left.set_yticks(range(len(names)), names)
    left.set(
        xlabel="key",
        ylabel="query",
        title=_finding(
            bool(grid[:, names.index("chirp")].min() > HALF),
            "Every query looks at the chirp (share of attention)",
            "Where queries look (share of attention)",
        ),
    )
    at = np.arange(len(logits))
    right.barh(at - 0.2, logits["share"], 0.36, color="#D55E00", label="measured")
    right.barh(at + 0.2, logits["shuffled"], 0.36, color="#BBBBBB", label="places shuffled")
    right.set_yticks(at, logits["part"])
    right.invert_yaxis()
    for side, shares_of in ((-0.2, logits["share"]), (0.2, logits["shuffled"])):
        for row, value in enumerate(shares_of):
            right.text(value + 0.015, row + side, f"{value:z.2f}", va="center", fontsize=8)
    largest = logits.loc[logits["share"].idxmax()]
    right.set(
        xlabel="share of the logits' variance",
        title=f"Logits: {largest['share']:.0%} {largest['part']}",
        xlim=(0, 1.15),
    )
    right.legend(fontsize=8.5, loc="lower right")
    return figure


@checked_arguments()
def writes(table: pd.DataFrame) -> Figure:
    """What a patch's value writes onto start time and start frequency, against where the patch lies."""
    figure, axes = plt.subplots(1, 2, figsize=(WIDE, 3.4))
    for axis, target in zip(axes, ("start_time", "start_freq"), strict=True):
        place = PLACE_OF[target]
        for kind, colour in reversed(KINDS.items()):
            part = table[table["kind"] == kind]
            axis.plot(
                part[place], part[target], ".", color=colour, alpha=0.6, markersize=5,
                label=f"{kind}: r = {part[place].corr(part[target]):.2f}",
            )  # fmt: skip
        axis.axhline(0, color="#444444", linewidth=0.6)
        axis.set(
            xlabel=f"patch, from where the head looks ({UNITS[target] if place == 'hertz' else 's'})",
            ylabel=f"{plain_target(target)} ({UNITS[target]})",
        )
        axis.legend(fontsize=8.5)
    far = {
        target: table.loc[table["kind"] == "background", PLACE_OF[target]].corr(
            table.loc[table["kind"] == "background", target]
        )
        for target in ("start_time", "start_freq")
    }
    return headline(
        figure,
        f"What a background patch writes goes with its place: r = {far['start_time']:.2f} in time, "
        f"{far['start_freq']:.2f} in frequency (per unit of attention)",
    )


@checked_arguments()
def readable(table: pd.DataFrame, layer: int) -> Figure:
    """How well a probe reads each label after each layer; the dotted line is the head's layer."""
    figure, axes = plt.subplots(1, 2, figsize=(WIDE, 3.2), sharey=True)
    for axis, where in zip(axes, ("CLS", "patches"), strict=True):
        part = table[table["where"] == where]
        for aside, (target, colour) in zip((-0.12, 0, 0.12), TARGETS.items(), strict=True):
            rows = part[part["target"] == target]
            axis.errorbar(
                rows["depth"] + aside, rows["r2"], yerr=reach(rows, "r2"), color=colour, marker="o", markersize=3,
                capsize=1.5, label=plain_target(target),
            )  # fmt: skip
        control = part.groupby("depth")["shuffled"].mean()
        axis.plot(control.index, control, color="#888888", linestyle="--", label="shuffled labels")
        axis.axvline(layer + 1, color="#444444", linestyle=":", linewidth=1)
        axis.set(
            xlabel="after layer", title=f"read from {'CLS' if where == 'CLS' else 'the mean over patches'}"
        )
        axis.set_ylim(-0.3, 1.05)
    axes[0].set_ylabel("R² on other images")
    axes[0].legend(fontsize=8)
    cls = table[table["where"] == "CLS"].groupby("depth")["r2"].mean()
    return headline(
        figure,
        f"The labels can be read after layer {int((cls > HALF).idxmax())} (CLS: mean R² above {HALF:g}); dotted: the "
        "head's layer"
        if (cls > HALF).any()
        else "No label can be read from CLS",
    )


@checked_arguments()
def paths(table: pd.DataFrame) -> Figure:
    """The paths with the largest shares, into the head and from it."""
    figure, axes = plt.subplots(1, 2, figsize=(WIDE, 3.4), sharex=True)
    titles = {"into": "Into the head, most from", "from": "From the head, most to"}
    for axis, (direction, title) in zip(axes, titles.items(), strict=True):
        part = table[table["direction"] == direction]
        part = part.loc[part["share"].abs().nlargest(MOST_PATHS).index]
        interval_forest(axis, part, "part", value="share")
        axis.axvline(0, color="#444444", linewidth=0.8)
        images = counted(int(part["images"].iloc[0]), "image")
        axis.set(
            xlabel=f"share of the head's whole effect ({images})", title=f"{title} {part['part'].iloc[0]}"
        )
    return figure


@checked_arguments()
def trainings(account: pd.DataFrame, follows: pd.DataFrame) -> str:
    """A line per training and target: the head, what the account tells, how far the answer follows."""
    rows = []
    keys = ["training", "target"]
    own, other = (account[account["role"] == role].set_index(keys) for role in (STRONGEST, CONTROL))
    looks = follows[follows["role"] == STRONGEST].set_index(keys)
    passed = passing(gathered(account))

    def slope(row: pd.Series) -> str:
        return f"{Interval(row['slope'], row['low_slope'], row['high_slope']):.3f}"

    for key, row in own.iterrows():
        training, target = key
        head = f"layer {row['layer'] + 1}, head {row['head'] + 1}"
        told = (interval(found, ".3f", "correlation") for found in (looks.loc[key], row))
        unit = f"{UNITS[target]}/{UNITS[target]}"
        slopes = f"{slope(row)} {unit}", slope(other.loc[key])
        verdict = "passes" if target in passed[training] else "does not"
        rows.append((training, head, plain_target(target), *told, *slopes, verdict))
    headings = (
        *("training", "head", "target", "attended place and truth (r)", "predicted and measured shift (r)"),
        *("the answer follows", "it follows the control", "the account"),
    )
    return pipe_table(headings, rows)


@checked_arguments()
def rule() -> str:
    """The rule of this chapter in words."""
    return rule_text(answer_follows)


@checked_arguments()
def verdict(judgement: Judgement) -> str:
    """The verdict and its reason."""
    return judgement_list({"Q8": judgement}, {"Q8": QUESTION[0].lower() + QUESTION[1:].rstrip("?")})


@checked_arguments()
def what_you_know(
    judgement: Judgement,
    heads: pd.DataFrame,
    account: pd.DataFrame,
    readers: pd.DataFrame,
    paths: pd.DataFrame,
) -> str:
    """Three sentences, their figures from the first training's tables."""
    first = heads["training"].iloc[0]
    found = gathered(account)
    told = {training: [plain_target(name) for name in names] for training, names in passing(found).items()}
    where = readers[readers["training"] == first].set_index("where")
    largest = paths[paths["direction"] == "from"].nlargest(1, "share").iloc[0]
    costs = {name: percent(where.loc[name]) for name in ("CLS", "background", "all tokens")}
    slopes = (
        f"{plain_target(name)} by {own:.3f} {UNITS[name]}/{UNITS[name]} (control {control.value:.3f})"
        for name, (_, own, control) in found[first].items()
    )
    passes = (f"{listed(names, ' and ')} in {training}" for training, names in told.items() if names)
    further = where.loc["background", "low"] > where.loc["CLS", "high"]
    return three_sentences(
        f"The model's strongest head ({named(heads)}) writes to every token: ablated at CLS "
        f"alone it costs {costs['CLS']} error, at the background patches {costs['background']} "
        f"({'clearly' if further else 'not clearly'} more than at CLS), at all tokens {costs['all tokens']} "
        f"({counted(int(where['images'].iloc[0]), 'image')}).",
        f"In {first}, pointed at a place without chirp, it takes along {listed(slopes)}. The account, a line "
        f"fitted on other images, passes for {listed(passes, ', ', 'no target in any training')}. Verdict on Q8 over "
        f"{counted(heads['training'].nunique(), 'training')}: {judgement.words}.",
        f"The largest path from it, {_into(largest['part'])}, carries {interval(largest, '.2f', 'share')} of its "
        f"effect ({counted(int(largest['images']), 'image')}).",
    )


def _follows(account: pd.DataFrame, images: int) -> str:
    """How far the start time follows the head, from 0 (not at all) to 1 (all the way)."""
    row = account[(account["role"] == STRONGEST) & (account["target"] == "start_time")].iloc[0]
    way = f"{Interval(row['slope'], row['low_slope'], row['high_slope']):.2f}"
    return f"The start time follows the head by\n{way} of the way ({counted(images, 'image')})"


def _finding(found: bool, words: str, otherwise: str) -> str:
    """A title that states a finding where there is one, and else what is shown."""
    return words if found else otherwise


def _into(part: str) -> str:
    return part if part.startswith("straight") else f"into {part}"
