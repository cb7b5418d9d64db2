"""The rule on how the strongest head works: does the answer follow the place that it looks at (Q8)?

The account, and the limits of the rule, were set after a first look at images of another stream than the chapter's.
"""

from collections.abc import Mapping

import pandas as pd

from vitmech_utils.arguments import checked_arguments
from vitmech_utils.figures.tables import counted
from vitmech_utils.statistics import Interval
from vitmech_utils.studies.rows import Row, numbers, open_row
from vitmech_utils.studies.tables import JudgedRun
from vitmech_utils.studies.verdicts import (
    FAILS,
    HALF,
    HOLDS,
    IN_PART,
    MOST,
    Judgement,
    undecided,
)

CHAPTER = "14_how_one_head_reads_a_chirp"
TABLES = {
    "head_account": (
        *("training", "role", "layer", "head", "target", "correlation", "low", "high"),
        *("slope", "low_slope", "high_slope", "images"),
    )
}
QUESTION = "How the strongest head works: does the answer follow the place that the head looks at?"
ENOUGH_IMAGES = 40
TRAININGS = 2
LIMITS = {
    "enough images (to point at)": (
        ENOUGH_IMAGES,
        "with fewer, an interval of a correlation of nine tenths reaches below four fifths",
    ),
    "enough trainings (to point at)": (
        TRAININGS,
        "one training may have found its own way; a mechanism of the task is found again",
    ),
}
Found = Mapping[str, Mapping[str, tuple[Interval, Interval, Interval]]]
"""Training, target: correlation of predicted and measured shift; slope; slope of the control head."""


@checked_arguments()
def answer_follows(found: Found, images: int) -> Judgement:
    """Q8. Holds if in every training, of two or more, the account predicts on new images where the answer goes when the
    strongest head is pointed at a place without chirp: for each target the correlation of predicted and measured shift
    is clearly above *most*, and the answer clearly follows the head further than it follows the control head of the
    same layer. Holds in part if that is so for some targets or trainings. Does not hold if everywhere the correlation
    is clearly below *half*, or the control is clearly followed as far. Otherwise it is undecided.
    """
    if images < ENOUGH_IMAGES:
        return undecided(
            f"{counted(images, 'image')} are too few: from {ENOUGH_IMAGES} on the account is judged"
        )
    told = {
        training: [
            name for name, (r, slope, control) in targets.items() if r.low > MOST and _further(slope, control)
        ]
        for training, targets in found.items()
    }
    count = sum(len(names) for names in told.values())
    every = sum(len(targets) for targets in found.values())
    words = (
        f"the account passes for {count} of {every} combinations of target and training "
        f"(correlation clearly above {MOST:g}, and further than the control)"
    )
    if count == every and every:
        if len(found) < TRAININGS:
            return undecided(f"{words}; one training may have its own way", "trainings")
        return Judgement(HOLDS, words)
    if count:
        return Judgement(IN_PART, words)
    wrong = all(
        r.high < HALF or _further(control, slope)
        for targets in found.values()
        for r, slope, control in targets.values()
    )
    if wrong and every:
        return Judgement(FAILS, f"{words}; everywhere the account is clearly wrong")
    return undecided(words)


def _further(slope: Interval, other: Interval) -> bool:
    """Whether the answer clearly follows one head further than the other, whatever the other's direction."""
    return bool(slope.low > max(abs(other.low), abs(other.high)))


RULES = {"Q8": answer_follows}


@checked_arguments()
def gathered(table: pd.DataFrame) -> Found:
    """What the rule asks for, from the chapter's table."""
    found: dict[str, dict[str, tuple[Interval, Interval, Interval]]] = {}
    keyed = table.set_index(["training", "role", "target"])
    for training, target in table[["training", "target"]].drop_duplicates().itertuples(index=False):
        own, other = (keyed.loc[(training, role, target)] for role in ("strongest", "control"))
        found.setdefault(training, {})[target] = (
            Interval(own["correlation"], own["low"], own["high"]),
            *(Interval(row["slope"], row["low_slope"], row["high_slope"]) for row in (own, other)),
        )
    return found


@checked_arguments()
def judged(table: pd.DataFrame) -> Judgement:
    """The verdict of a run."""
    return answer_follows(gathered(table), int(table["images"].min()))


@checked_arguments()
def rows(run: JudgedRun) -> dict[str, Row]:
    """The scoreboard's row of this chapter; open where the run lacks it."""
    if not run.has(CHAPTER):
        return {"Q8": open_row("Q8", QUESTION)}
    table = run.tables["head_account"]
    found, images = gathered(table), int(table["images"].min())
    heads = table[table["role"] == "strongest"].drop_duplicates("training")
    first = next(iter(found))
    correlation, slope, control = found[first]["start_time"]
    named = ", ".join(f"layer {row.layer + 1}, head {row.head + 1}" for row in heads.itertuples())
    row = Row(
        id="Q8",
        claim=QUESTION,
        study="left open",
        ours=f"the strongest head ({named}), pointed at a place without chirp, takes the predicted start time with it: "
        f"{slope:.2f} s for each second, and the account predicts the shift with a correlation of {correlation:.2f}",
        sample=f"{counted(images, 'image')} that the account was not fitted on, {counted(len(found), 'training')}",
        control=f"another head of its layer, pointed alike: {control:.2f} s for each second",
        would_change="A head that is pointed elsewhere and leaves the answer where it was, in another training.",
        chapter=CHAPTER,
        figure="fig-pointed",
        images=images,
        **numbers(correlation, "correlation"),
        **vars(answer_follows(found, images)),
    )
    return {"Q8": row}
