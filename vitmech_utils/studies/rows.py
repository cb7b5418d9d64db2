"""One row of the scoreboard, and the small pieces that every row is made with."""

from dataclasses import dataclass
from typing import Any

import pandas as pd

from vitmech_utils.statistics import Interval
from vitmech_utils.studies.verdicts import OPEN, Count, Judgement

_NO_CHAPTER = "A chapter of its own, which this run does not have."


@dataclass(frozen=True)
class Row:
    """One row of the scoreboard; layers in its texts count from 1.

    `lacks` says of an undecided one what there is too little of.
    `study` and `ours` are the two figures in words, `value`, `low`, `high` ours as numbers in `unit` (None where
    there is none), `sample` what they rest on, `control` what they were compared with, and its value. `chapter` and
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
