"""What every verdict is made of: the words, the limits that several rules share, and how heads are counted.

A rule is a pure function of measured values; it stands in its study's `judge.py`. Limits come from what the claims'
words mean, not from what a run gave.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import pandas as pd

from vitmech_utils.arguments import checked_arguments
from vitmech_utils.figures.tables import counted, word
from vitmech_utils.statistics import FALSE_DISCOVERIES, SURE, Count
from vitmech_utils.studies.coverage import COVERED, least_images

HOLDS, IN_PART, FAILS, UNKNOWN = "holds", "holds in part", "does not hold", "undecided"
OPEN = "open"
VERDICTS = (HOLDS, IN_PART, FAILS, UNKNOWN, OPEN)

# What the benchmark of intervals calls what several rules rest on.
WHOLE, EFFECT = "loss of the whole model", "effect of a head"
ON_CHIRP, ON_TITLE = (f"attention share of a head on the {region}" for region in ("chirp", "title"))
ENOUGH_HEADS, ENOUGH_TRAININGS = 10, 3
LACKS = ("images", "heads", "trainings")
THRESHOLDS = "thresholds"
ROUNDING = 1e-9
HARDLY = 1.0
MOST, HALF = 0.8, 0.5
NONE = 0.1
# What the rules call a limit by, its value, and why it lies there.
LIMITS = {
    "covered (percent)": (
        COVERED,
        "a nominal 95 % interval that holds the truth less often claims more than is known; measured for every "
        "quantity and number of images (see the page on benchmarks)",
    ),
    "enough heads": (ENOUGH_HEADS, "among fewer, one or two heads decide"),
    "enough trainings": (
        ENOUGH_TRAININGS,
        "with two, one that says otherwise could be the exception or the rule",
    ),
    "hardly (percent)": (
        HARDLY,
        "a model whose squared error changes by this much is off by half of that in seconds or hertz; nobody who "
        "uses it would notice",
    ),
    "most (share)": (MOST, "four out of five: what one would call the rule, its exceptions admitted"),
    "half (share)": (HALF, "what no more than half of its heads do does not describe a layer"),
    "sure (share of draws)": (
        SURE,
        "a head is counted for sure when at least this share of redrawn sets of images gives it the same class",
    ),
    "none (rank correlation)": (NONE, "a correlation below it explains a hundredth of the ranks"),
    "false discoveries (rate)": (
        FALSE_DISCOVERIES,
        "the usual rate, for heads that are named one by one out of many",
    ),
}

TEXT_OR_EDGE = "title|label|frame"  # regions whose names hold one of these
FIRST_FOUR = (0, 3)  # layers 1-4, 0-based, both ends included


@dataclass(frozen=True)
class Judgement:
    """A verdict, one of `VERDICTS`, and the reason for it in one sentence.

    `lacks` says of an undecided claim what would decide it: more `images`, more `heads` or more `trainings`, or that
    `thresholds` disagree, which nothing more of anything would decide.
    """

    verdict: str
    reason: str
    lacks: str = ""

    @property
    def words(self) -> str:
        """The verdict as a page says it."""
        return in_words(self.verdict, self.lacks)


@checked_arguments()
def in_words(verdict: str, lacks: str = "") -> str:
    """A verdict, and where it is undecided what there is too little of, or that thresholds disagree."""
    if lacks == THRESHOLDS:
        return f"{verdict} ({THRESHOLDS} disagree)"
    return f"{verdict} (too few {lacks})" if lacks else verdict


@checked_arguments()
def undecided(reason: str, lacks: str = "images") -> Judgement:
    """No verdict, for want of images, heads or trainings (`LACKS`), or where `THRESHOLDS` disagree."""
    if lacks not in (*LACKS, THRESHOLDS):
        raise ValueError(f"lacks is {lacks!r}, expected one of {', '.join((*LACKS, THRESHOLDS))}")
    return Judgement(UNKNOWN, reason, lacks)


@checked_arguments()
def undecided_over_thresholds(reason: str, usual: Judgement | None) -> Judgement:
    """No verdict on what is counted over all thresholds. `usual` is the one by the usual thresholds alone.

    Where that is undecided, too (or not known), images are wanting; where it is not, thresholds disagree.
    """
    if usual is None or usual.verdict == UNKNOWN:
        return undecided(reason)
    return undecided(
        f"{reason}, depending on where thresholds are put; by the usual ones alone it {usual.verdict}",
        THRESHOLDS,
    )


# Several trainings


@checked_arguments()
def across(found: Mapping[str, Judgement]) -> Judgement:
    """The verdict on a claim about models from those on several trainings, which are named.

    It holds if it holds in every training, does not hold if it holds in none, and holds in part if it holds in some or
    in part in any. Trainings in which it is undecided leave it undecided, unless the others settle it whatever these
    may say; so do fewer than *enough trainings*. Raises `ValueError` for a verdict that is none of these.
    """
    said = [one.verdict for one in found.values()]
    if unknown := sorted({*said} - {HOLDS, IN_PART, FAILS, UNKNOWN}):
        raise ValueError(
            f"a training's verdict is {unknown[0]!r}, expected {HOLDS}, {IN_PART}, {FAILS} or {UNKNOWN}"
        )
    told = in_trainings(found)
    if len(found) < ENOUGH_TRAININGS:
        return undecided(
            f"it {told}; a claim about models asks for {ENOUGH_TRAININGS} trainings", "trainings"
        )
    known = {*said} - {UNKNOWN}
    if IN_PART in known or known == {HOLDS, FAILS}:
        return Judgement(IN_PART, f"it {told}")
    if UNKNOWN not in said:
        return Judgement(said[0], f"it {told}")
    open_ones = {name: one for name, one in found.items() if one.verdict == UNKNOWN}
    name, first = next(iter(open_ones.items()))
    return Judgement(UNKNOWN, f"it {told}; {name}: {first.reason}", first.lacks)


@checked_arguments()
def in_trainings(found: Mapping[str, Judgement]) -> str:
    """In how many trainings a claim holds, holds in part, does not hold, is undecided: what follows "it"."""
    counts = {verdict: sum(one.verdict == verdict for one in found.values()) for verdict in VERDICTS}
    parts = [(verdict, count) for verdict, count in counts.items() if count]
    if len(found) == 1:
        return f"{parts[0][0] if parts[0][0] != UNKNOWN else f'is {UNKNOWN}'} in one training"
    told = []
    for verdict, count in parts:
        said = f"is {verdict}" if verdict == UNKNOWN else verdict
        told.append(f"{said} in {'all ' if count == len(found) else ''}{count}")
    return f"{', '.join(told)}{'' if len(parts) == 1 else f' of {len(found)}'} trainings"


# What is counted


@checked_arguments()
def text_or_edge_detectors(classes: pd.DataFrame) -> Count:
    """Count the heads of layers 1-4 that are monosemantic about a text or a line of the figure."""
    early = classes[classes["layer"].between(*FIRST_FOUR)]
    return count_sure(early, detects_text_or_edge(early))


@checked_arguments()
def too_few(images: int, quantity: str) -> Judgement | None:
    """Refuse to judge by so few images that nominal 95 % intervals of such a quantity fall short of *covered*.

    `quantity` is one of `coverage.quantities()`: what the benchmark of intervals calls what the rule rests on.
    """
    least = least_images(quantity, COVERED)
    if least is not None and images >= least:
        return None
    few = f"{counted(images, 'image')} {word(images, 'is', 'are')} too few"
    if least is None:
        return undecided(
            f"{few}: no number of images that was tried gives intervals that hold the truth often enough"
        )
    return undecided(
        f"{few}: from {least:,} on intervals hold the truth as often as they should ({quantity})"
    )


@checked_arguments()
def too_few_heads(heads: int, what: str) -> Judgement | None:
    """Refuse to judge a claim about heads of some kind by fewer than *enough heads*."""
    if heads >= ENOUGH_HEADS:
        return None
    return undecided(
        f"{counted(heads, what)} {word(heads, 'is', 'are')} too few for a rule: each would decide by itself",
        "heads",
    )


@checked_arguments()
def detects_text_or_edge(classes: pd.DataFrame) -> pd.Series:
    """For each head, whether it is monosemantic about a text or a line of the figure."""
    return (classes["class"] == "monosemantic") & classes["regions"].str.contains(TEXT_OR_EDGE, regex=True)


@checked_arguments()
def count_sure(classes: pd.DataFrame, wanted: pd.Series) -> Count:
    """Count the heads that are wanted: as classified, for sure at least, and at most."""
    sure = classes["confidence"] >= SURE
    return Count(int(wanted.sum()), int((wanted & sure).sum()), int((wanted | ~sure).sum()), len(classes))


@checked_arguments()
def over_thresholds(every: pd.DataFrame, count: Callable[[pd.DataFrame], Count]) -> Count:
    """What is counted with the usual thresholds, its bounds those of all `semantics.classes_over_thresholds`.

    A claim that rests on it holds only if it holds wherever one may well put a threshold. Thresholds change how many
    heads there are to count among: bounds are the least and the largest share, as counts of the usual total.
    """
    found = {
        key: count(part.reset_index(drop=True))
        for key, part in every.groupby(["threshold", "value"], dropna=False, sort=False)
    }
    usual = next(counted for (name, _), counted in found.items() if name == "none")
    some = [it for it in found.values() if it.total]
    if not usual.total or not some:
        return usual
    low = math.floor(usual.total * min(it.low / it.total for it in some) + ROUNDING)
    high = math.ceil(usual.total * max(it.high / it.total for it in some) - ROUNDING)
    return Count(usual.value, low, high, usual.total)
