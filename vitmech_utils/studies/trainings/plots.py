"""What chapters show of several trainings: verdicts in a table, and how alike orders, classes and heads are."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from vitmech_utils.arguments import checked_arguments
from vitmech_utils.figures.classes import class_grids
from vitmech_utils.figures.marks import excludes_zero
from vitmech_utils.figures.plots import WIDE, headline, heatmap, to_grid
from vitmech_utils.figures.tables import listed, pipe_table
from vitmech_utils.statistics import Interval
from vitmech_utils.studies.trainings.judge import by_claims as by_claims
from vitmech_utils.studies.trainings.judge import in_each, over_all
from vitmech_utils.studies.trainings.judge import together as together
from vitmech_utils.studies.trainings.judge import verdicts_table as verdicts_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LINEAR = 5.0  # percent up to which colours are linear
ALONE = "This profile asks one training here, so there is nothing to compare."


@checked_arguments()
def verdicts(table: pd.DataFrame) -> str:
    """Claim by training, and over all of them; `table` is a `verdicts_table`."""
    each, overall = in_each(table), over_all(table)
    names = list(next(iter(each.values()), {}))
    if len(names) < 2:
        return ALONE
    counts = {
        name: sorted({int(count) for count in part["images"]}) for name, part in table.groupby("training")
    }
    images = {name: listed((f"{count:,}" for count in found), " and ") for name, found in counts.items()}
    headings = ["claim", *(f"{name} ({images[name]} images)" for name in names), "over all trainings"]
    rows = [
        (claim, *(found[name].words for name in names), overall[claim].words) for claim, found in each.items()
    ]
    because = "\n".join(f"- **{claim}** {found.reason}." for claim, found in overall.items())
    return f"{pipe_table(headings, rows)}\n\n{because}"


@checked_arguments()
def side_by_side(tables: Mapping[str, pd.DataFrame], label: str = "effect on the MSE (%)") -> "Figure":
    """The heads' effects in each training, one grid each on a common scale."""
    limit = max(1e-9, *(float(table["effect"].abs().max()) for table in tables.values()))
    figure, axes = plt.subplots(1, len(tables), figsize=(WIDE, 4.4), squeeze=False)
    for ax, (name, table) in zip(axes[0], tables.items(), strict=True):
        first = table.loc[table["effect"].idxmax()]
        heatmap(
            ax,
            table,
            label=label,
            diverging=True,
            limits=(-limit, limit),
            linear=LINEAR,
            marked=_clear(table),
        )
        ax.set_title(f"{name}: L{int(first['layer']) + 1}H{int(first['head']) + 1} first")
    return headline(figure, "Each training's heads, each by its own loss")


def _clear(table: pd.DataFrame) -> np.ndarray:
    """Where the interval excludes zero, layer by head."""
    return to_grid(table.assign(clear=excludes_zero(table)), "clear") > 0


@checked_arguments()
def classes_side_by_side(tables: Mapping[str, pd.DataFrame]) -> "Figure":
    """Every head's class in each training, one grid each."""
    return class_grids(tables, columns=len(tables))


@checked_arguments()
def orders(table: pd.DataFrame) -> str:
    """How much of their order of heads trainings share; `table` is of `order_agreement`."""
    if table.empty:
        return ALONE
    rows = [
        (
            f"{row.first} and {row.second}",
            row.quantity,
            f"{Interval(row.between, row.low_between, row.high_between):.2f}",
            f"{row.ceiling:.2f}",
            f"{Interval(row.share, row.low, row.high):.2f}",
            f"{row.images:,}",
        )
        for row in table.itertuples()
    ]
    headings = ["trainings", "order by", "between halves", "own ceiling", "share of the ceiling", "images"]
    return pipe_table(headings, rows)


@checked_arguments()
def classes(table: pd.DataFrame) -> str:
    """In how many heads trainings agree on the class; `table` is of `class_agreement`."""
    if len(table) < 2:
        return ALONE
    rows = [
        (
            f"{row.first} and {row.second}",
            f"{row.same_class} of {row.heads}",
            f"{row.same_regions} of {row.heads}",
            f"{row.by_chance:.0f} (at most {row.at_most:.0f} in 95 % of draws)",
        )
        for row in table.itertuples()
    ]
    headings = ["compared", "same class", "same class and regions", "same class, heads of a layer mixed"]
    return pipe_table(headings, rows)


@checked_arguments()
def matches(table: pd.DataFrame) -> str:
    """Heads matched by what they do; `table` is of `matching`."""
    if table.empty:
        return ALONE
    judged = {
        "attention": "rank correlation of effects",
        "effect": "minus the distance of attention",
        "both": "(both are used up)",
    }
    rows = [
        (
            f"{row.first} and {row.second}",
            row.matched_by,
            f"{row.same_head:.0%}",
            f"{row.same_layer:.0%}",
            judged[row.matched_by],
            *(
                ("", "", "")
                if np.isnan(row.agreement)
                else (
                    f"{row.agreement:.2f}",
                    f"{row.by_number:.2f}",
                    f"{Interval(row.by_chance, row.low, row.high):.2f}",
                )
            ),
        )
        for row in table.itertuples()
    ]
    headings = ["trainings", "matched by", "the same number", "the same layer", "judged by"]
    headings += ["matched heads", "same numbers", "matched, then mixed within layers"]
    return f"{pipe_table(headings, rows)}\n\n{_what_matching_found(table)}"


def _what_matching_found(table: pd.DataFrame) -> str:
    judged = table.dropna(subset="agreement")
    better = int((judged["agreement"] > judged["by_number"]).sum())
    beyond = int((judged["agreement"] > judged["high"]).sum())
    first = judged.iloc[0]
    told = (
        "**Matching finds no better partners than the numbers are**"
        if better == 0
        else "**Matching finds better partners than the numbers are**"
        if better == len(judged)
        else "**Whether matching finds better partners than the numbers are depends on what is compared**"
    )
    return (
        f"{told}: in {better} of {len(judged)} comparisons matched heads are more alike, in what did not match them, "
        f"than heads of the same number ({first['agreement']:.2f} against {first['by_number']:.2f} in the first). In "
        f"{beyond} of {len(judged)} they are more alike than matched heads that then change places within their "
        "layers, beyond the 95 % range of that."
    )
