"""The rule on how the strongest head works: does the answer follow the place that it looks at (Q8)?

The account, and the limits of the rule, were set after a first look at images of another stream than the chapter's.
"""

from collections.abc import Mapping

import pandas as pd

from vitmech_utils.arguments import checked_arguments
from vitmech_utils.figures.tables import counted, listed, plain
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
    told = passing(found)
    count = sum(len(names) for names in told.values())
    every = sum(len(targets) for targets in found.values())
    words = _told(
        found, told, f"the account passes for {count} of {every} combinations of target and training"
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


@checked_arguments()
def passing(found: Found) -> dict[str, list[str]]:
    """By training the targets for which the account passes: the correlation is clearly above *most*, and the answer
    clearly follows the strongest head further than the control.
    """
    return {
        training: [
            name for name, (r, slope, control) in targets.items() if r.low > MOST and _further(slope, control)
        ]
        for training, targets in found.items()
    }


def _told(found: Found, told: Mapping[str, list[str]], words: str) -> str:
    """The count in words, then which targets pass in which training, and of the others which bound fails."""
    good, low, near = [], [], []
    for training, targets in found.items():
        for name, (r, slope, control) in targets.items():
            which = f"{plain(name)} in {training}"
            if name in told[training]:
                good.append(f"{which} (correlation {r:.3f})")
                continue
            if not r.low > MOST:
                low.append(f"{which} ({r.low:.3f})")
            if not _further(slope, control):
                near.append(f"{which} ({slope:.3f}, control {control:.3f})")
    parts = [f"{words}: {', '.join(good)}" if good else words]
    if low:
        parts.append(
            f"the lower bound of the correlation, which must lie above {MOST:g}, fails for {', '.join(low)}"
        )
    if near:
        parts.append(f"the answer does not clearly go further than with the control for {', '.join(near)}")
    return "; ".join(parts)


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
    told = passing(found)
    heads = {
        row.training: f"layer {row.layer + 1}, head {row.head + 1}"
        for row in table[table["role"] == "strongest"].drop_duplicates("training").itertuples()
    }
    training, target, correlation = _weakest(found, told)
    row = Row(
        id="Q8",
        claim=QUESTION,
        study="left open",
        ours="of each second or hertz that the strongest head is pointed away, to a place without chirp, the answer "
        f"goes along by: {listed((_along(found[name], told[name], name, heads[name]) for name in found), '; ')}",
        sample=f"{counted(images, 'image')} that the account was not fitted on, {counted(len(found), 'training')}",
        control="another head of its layer, pointed alike: "
        + listed((_beside(targets, name) for name, targets in found.items()), "; "),
        would_change="A head that is pointed elsewhere and leaves the answer where it was, in another training.",
        chapter=CHAPTER,
        figure="fig-pointed",
        images=images,
        **numbers(correlation, f"correlation ({plain(target)}, {training})"),
        **vars(answer_follows(found, images)),
    )
    return {"Q8": row}


def _along(targets: Mapping[str, tuple[Interval, ...]], passed: list[str], training: str, head: str) -> str:
    """How far the answer follows a training's strongest head, target by target, and for which of them that passes."""
    slopes = (
        f"{plain(name)} {slope.value:.3f}{' (passes)' if name in passed else ''}"
        for name, (_, slope, _) in targets.items()
    )
    return f"{training} ({head}) {listed(slopes)}"


def _beside(targets: Mapping[str, tuple[Interval, ...]], training: str) -> str:
    """The same of the control."""
    slopes = (f"{plain(name)} {control.value:.3f}" for name, (_, _, control) in targets.items())
    return f"{training} {listed(slopes)}"


def _weakest(found: Found, told: Mapping[str, list[str]]) -> tuple[str, str, Interval]:
    """Training, target and correlation of lowest bound, among those that pass, or among all where none does."""
    every = [
        (training, name, r) for training, targets in found.items() for name, (r, _, _) in targets.items()
    ]
    passed = [one for one in every if one[1] in told[one[0]]]
    return min(passed or every, key=lambda one: one[2].low)
