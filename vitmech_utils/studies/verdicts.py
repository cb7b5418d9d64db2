"""What every verdict is made of: the words, the limits that several rules share, and how heads are counted.

A rule is a pure function of measured values; it stands in its study's `judge.py`. Limits come from what the claims'
words mean, not from what a run gave.
"""

from dataclasses import dataclass

import pandas as pd

from vitmech_utils.arguments import checked_arguments
from vitmech_utils.figures.tables import counted, word
from vitmech_utils.statistics import FALSE_DISCOVERIES, SURE, Count

HOLDS, IN_PART, FAILS, UNKNOWN = "holds", "holds in part", "does not hold", "undecided"
OPEN = "open"
VERDICTS = (HOLDS, IN_PART, FAILS, UNKNOWN, OPEN)

ENOUGH_IMAGES = 20
HARDLY = 1.0
MOST, HALF = 0.8, 0.5
NONE = 0.1
# What the rules call a limit by, its value, and why it lies there.
LIMITS = {
    "enough images": (
        ENOUGH_IMAGES,
        "with fewer images a bootstrap interval is too narrow, so it would claim more than is known",
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
    """A verdict, one of `VERDICTS`, and the reason for it in one sentence."""

    verdict: str
    reason: str


# What is counted


@checked_arguments()
def text_or_edge_detectors(classes: pd.DataFrame) -> Count:
    """Count the heads of layers 1-4 that are monosemantic about a text or a line of the figure."""
    early = classes[classes["layer"].between(*FIRST_FOUR)]
    return count_sure(early, detects_text_or_edge(early))


@checked_arguments()
def too_few(images: int) -> Judgement | None:
    """Refuse to judge by fewer than *enough* images."""
    if images >= ENOUGH_IMAGES:
        return None
    few = f"{counted(images, 'image')} {word(images, 'is', 'are')} too few"
    return Judgement(UNKNOWN, f"{few}; at least {ENOUGH_IMAGES} are needed for an interval")


@checked_arguments()
def detects_text_or_edge(classes: pd.DataFrame) -> pd.Series:
    """For each head, whether it is monosemantic about a text or a line of the figure."""
    return (classes["class"] == "monosemantic") & classes["regions"].str.contains(TEXT_OR_EDGE, regex=True)


@checked_arguments()
def count_sure(classes: pd.DataFrame, wanted: pd.Series) -> Count:
    """Count the heads that are wanted: as classified, for sure at least, and at most."""
    sure = classes["confidence"] >= SURE
    return Count(int(wanted.sum()), int((wanted & sure).sum()), int((wanted | ~sure).sum()), len(classes))
