"""What three tasks have in common in their orders of heads, as a figure and in words."""

from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from vitmech_utils.arguments import checked_arguments
from vitmech_utils.figures.plots import WIDTH, headline
from vitmech_utils.figures.tables import pipe_table, rule_text
from vitmech_utils.statistics import Interval
from vitmech_utils.studies.task.agnostic.judge import by_table as by_table
from vitmech_utils.studies.task.agnostic.judge import heads_serve_any_task
from vitmech_utils.studies.task.agnostic.measure import KEPT, TUNED, UNTUNED
from vitmech_utils.studies.verdicts import HALF, MOST, Judgement

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = {TUNED: ("#009E73", "o"), UNTUNED: ("#777777", "s")}


@checked_arguments()
def three_tasks(table: pd.DataFrame) -> "Figure":
    """What every two tasks share of their order of heads, fine-tuned and before; `table` is of `shared_orders`."""
    pairs = list(dict.fromkeys(f"{row['first']},\n{row['second']}" for row in _of(table, TUNED)))
    figure, ax = plt.subplots(figsize=(WIDTH, 3.0))
    for offset, (kind, (colour, marker)) in zip((-0.13, 0.13), COLOURS.items(), strict=True):
        rows = _of(table, kind)
        values = np.array([[row["share"], row["share_low"], row["share_high"]] for row in rows], float).T
        errors = np.nan_to_num(np.stack([values[0] - values[1], values[2] - values[0]])).clip(0)
        places = np.arange(len(rows)) + offset
        ax.errorbar(values[0], places, xerr=errors, fmt=marker, color=colour, label=kind)
    for limit in (HALF, MOST):
        ax.axvline(limit, color="#444444", linewidth=0.8, linestyle=":")
    ax.set_yticks(range(len(pairs)), pairs)
    ax.set_ylim(len(pairs) - 0.5, -0.5)
    ax.set_xlabel("share of the order of heads that a model keeps of its own")
    ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    least = min(_of(table, TUNED), key=lambda row: row["share"])
    return headline(figure, f"Two tasks share {least['share']:.2f} of their order of heads, or more")


def _of(table: pd.DataFrame, kind: str) -> list[pd.Series]:
    return [row for _, row in table[table["kind"] == kind].iterrows()]


@checked_arguments()
def orders_table(table: pd.DataFrame) -> str:
    """Every comparison with its ceiling, its share, and what depth alone gives."""
    rows = [
        (
            row["kind"],
            row["first"] if row["kind"] == KEPT else f"{row['first']}; {row['second']}",
            *(
                f"{Interval(row[part], row[f'{part}_low'], row[f'{part}_high']):.2f}"
                for part in ("between", "ceiling", "share")
            ),
            f"{row['depth']:.2f}",
        )
        for _, row in table.iterrows()
    ]
    images = int(table["images"].min())
    headings = ["models", "tasks", "rank correlation", "own ceiling", "share", "by depth alone"]
    return f"{pipe_table(headings, rows)}\n\n{images:,} images a task; intervals over heads."


@checked_arguments()
def rule() -> str:
    """The rule in its own words."""
    return rule_text(heads_serve_any_task, 1)


@checked_arguments()
def verdict(judgement: Judgement) -> str:
    """What the rule says of this run."""
    return f"**Q9**, heads are task-agnostic feature extractors: **{judgement.words}**. Reason: {judgement.reason}."
