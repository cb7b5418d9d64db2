"""One row of the scoreboard, and the small pieces that every row is made with."""

from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from vitmech_utils.statistics import Interval
from vitmech_utils.studies.verdicts import OPEN, Count, Judgement, across

TRAININGS = ("claim", "training", "verdict", "reason", "lacks", "images")
"""The columns of a chapter's verdicts on several trainings: a row per claim and training, the first training first."""
_NO_CHAPTER = "A chapter of its own, which this run does not have."


@dataclass(frozen=True)
class Row:
    """One row of the scoreboard; layers in its texts count from 1.

    `lacks` says of an undecided one what there is too little of.
    `study` and `ours` are the two figures in words, `value`, `low`, `high` ours as numbers in `unit` (None where
    there is none), `sample` what they rest on, `trainings` what several trainings say (empty where
    there is one), `control` what they were compared with, and its value. `chapter` and
    `figure` say where it is shown, `would_change` what would lead to another verdict.
    """

    id: str
    claim: str
    study: str
    ours: str
    sample: str
    control: str
    verdict: str
    reason: str
    would_change: str
    chapter: str | None = None
    figure: str | None = None
    value: float | None = None
    low: float | None = None
    high: float | None = None
    unit: str | None = None
    images: int | None = None
    lacks: str = ""
    trainings: str = ""


def over_trainings(row: Row, judged: pd.DataFrame) -> Row:
    """A row whose verdict is that on all trainings (`verdicts.across`); as it is where one alone was judged.

    `judged` is a chapter's table of verdicts (`TRAININGS`), of which that on the row's own training, the first, is
    passed over: the row has it already.
    """
    rows = judged[judged["claim"] == row.id]
    if rows.empty:
        return row
    own = str(rows["training"].iloc[0])
    found = {own: Judgement(row.verdict, row.reason, row.lacks)}
    found |= {
        str(other.training): Judgement(other.verdict, other.reason, other.lacks)
        for other in rows.iloc[1:].itertuples()
    }
    verdict = across(found)
    listed = "; ".join(f"{name}: {one.words}" for name, one in found.items())
    reason = f"{verdict.reason}; {own}: {row.reason}" if row.reason not in verdict.reason else verdict.reason
    return replace(row, verdict=verdict.verdict, reason=reason, lacks=verdict.lacks, trainings=listed)


def open_row(
    name: str,
    claim: str,
    known: str = "nothing yet",
    study: str = "left open",
    chapter: str | None = None,
    figure: str | None = None,
) -> Row:
    """A claim or question that the run does not judge; `known` is what it shows all the same."""
    reason = "this run does not test it" if known == "nothing yet" else "a first look only, not a test"
    return Row(
        id=name,
        claim=claim,
        study=study,
        ours=known,
        sample="",
        control="",
        would_change=_NO_CHAPTER,
        chapter=chapter,
        figure=figure,
        **vars(Judgement(OPEN, reason)),
    )


def numbers(found: Interval | Count, unit: str) -> dict[str, Any]:
    """A measured value and its bounds as the fields of a row."""
    return {"value": float(found.value), "low": float(found.low), "high": float(found.high), "unit": unit}


def by(sweep: pd.DataFrame) -> str:
    """Say how, and on how many images, a table of effects was measured."""
    return f"{sweep['mode'].iloc[0]} ablation on {int(sweep['images'].iloc[0])} images"
