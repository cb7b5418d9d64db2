"""Verdicts on the study's claims: what is counted for each, and one rule per claim that turns it into words.

The rules are pure functions of measured values. Their limits come from what the claims' words mean, not from what a
run gave; chapters 04 and 05 and the scoreboard all judge by them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from vitmech_utils.figures.tables import counted, word
from vitmech_utils.statistics import Interval
from vitmech_utils.studies.ablation.measure import EARLY, STUDY_EARLY, STUDY_LATE

HOLDS, IN_PART, FAILS, UNKNOWN = "holds", "holds in part", "does not hold", "cannot be told"
OPEN = "open"
VERDICTS = (HOLDS, IN_PART, FAILS, UNKNOWN, OPEN)

ENOUGH_IMAGES = 20
HARDLY = 1.0
ABOUT = 2.0
MOST, HALF = 0.8, 0.5
SURE = 0.95
NONE = 0.1
FALSE_DISCOVERIES = 0.05
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
    "about (factor)": (
        ABOUT,
        "'about three times' still describes what lies between half and double the study's ratio, and no more",
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
FIRST_FOUR, DEEP = (0, 3), (5, 10)  # 0-based, both ends included: layers 1-4 and 6-11


@dataclass(frozen=True)
class Judgement:
    """A verdict, one of `VERDICTS`, and the reason for it in one sentence."""

    verdict: str
    reason: str


@dataclass(frozen=True)
class Count:
    """How many heads of `total` are of a kind: as classified, for sure at least, and at most."""

    value: int
    low: int
    high: int
    total: int

    def __format__(self, spec: str) -> str:
        return f"{self.value} of {self.total} [{self.low}, {self.high}]"


# What is counted


def heads_beyond(sweep: pd.DataFrame, layers: Sequence[int] = EARLY) -> int:
    """Count the heads of some layers (0-based) that clearly matter more than *hardly*.

    `sweep` is one mode's table of effects: layer, low, high (percent), q_value (adjusted over all heads).
    """
    part = sweep[sweep["layer"].isin(layers) & (sweep["q_value"] < FALSE_DISCOVERIES)]
    return int(((part["low"] > HARDLY) | (part["high"] < -HARDLY)).sum())


def about_chirp_alone(classes: pd.DataFrame) -> Count:
    """Count the heads of layers 6-11 that are monosemantic with the chirp as their only region."""
    deep = classes[classes["layer"].between(*DEEP)]
    return _count(deep, (deep["class"] == "monosemantic") & (deep["regions"] == "chirp"))


def text_or_edge_detectors(classes: pd.DataFrame) -> Count:
    """Count the heads of layers 1-4 that are monosemantic about a text or a line of the figure."""
    early = classes[classes["layer"].between(*FIRST_FOUR)]
    return _count(early, _detects(early))


def detector_effects(classes: pd.DataFrame, sweep: pd.DataFrame) -> list[Interval]:
    """The effects (percent) of the detectors in layers 1-4 whose class is sure, in the order of the table.

    `sweep` is one mode's table. Its heads must be those of `classes`; otherwise `ValueError`.
    """
    early = classes[classes["layer"].between(*FIRST_FOUR)]
    wanted = early[_detects(early) & (early["confidence"] >= SURE)][["layer", "head"]]
    joined = wanted.merge(sweep, on=["layer", "head"])
    if len(joined) != len(wanted):
        raise ValueError(
            f"the sweep holds {len(joined)} of {len(wanted)} detectors: other heads, or two modes"
        )
    return [Interval(row.effect, row.low, row.high) for row in joined.itertuples()]


def polysemantic_or_diffuse(classes: pd.DataFrame) -> Count:
    """Count the heads of the last layer that are about several things, or about none."""
    last = classes[classes["layer"] == classes["layer"].max()]
    return _count(last, last["class"].isin(["polysemantic", "diffuse"]))


def last_layer_spreads_wider(classes: pd.DataFrame) -> bool:
    """Tell whether the last layer's mean map entropy exceeds that of every one of layers 6-11."""
    by_layer = classes.groupby("layer")["map_entropy"].mean()
    last = by_layer.index.max()
    others = by_layer[(by_layer.index >= DEEP[0]) & (by_layer.index <= DEEP[1]) & (by_layer.index < last)]
    return bool(len(others)) and bool((by_layer[last] > others).all())


# The rules


def early_heads_hardly_matter(early: Interval, beyond: int, images: int) -> Judgement:
    """C1. Holds if the interval of the mean effect of layers 1-3 lies within plus or minus *hardly*, and no single head
    of these layers clearly lies outside. Holds in part if the mean does and some head does not. Does not hold if the
    whole interval lies outside. Otherwise it cannot be told.
    """
    if judgement := too_few(images):
        return judgement
    heads = f"of their heads, {beyond or 'none'} clearly {word(beyond or 1, 'lies', 'lie')} outside"
    if early.low > HARDLY or early.high < -HARDLY:
        return Judgement(FAILS, f"the whole interval of the mean lies outside ±{HARDLY:g} %")
    if early.low > -HARDLY and early.high < HARDLY:
        if beyond:
            return Judgement(IN_PART, f"the mean stays within ±{HARDLY:g} %, but {heads}")
        return Judgement(
            HOLDS,
            f"the mean stays within ±{HARDLY:g} %, and so does, as far as can be told, every single head",
        )
    return Judgement(UNKNOWN, f"the interval of the mean reaches across ±{HARDLY:g} %; {heads}")


def deeper_heads_matter_more(ratio: Interval, early: Interval, images: int) -> Judgement:
    """C2. Holds if the interval of the ratio (layer 6 over layers 1-3) lies within a factor *about* of the study's.
    Holds in part if it only lies above one. Does not hold if it lies below the study's ratio by more than that factor.
    Otherwise, or if the early layers' own effect is not clearly above zero, it cannot be told.
    """
    if judgement := too_few(images):
        return judgement
    study = STUDY_LATE / STUDY_EARLY
    least, largest = study / ABOUT, study * ABOUT
    if not early.low > 0:
        return Judgement(
            UNKNOWN,
            "the early layers' own effect is not clearly above zero, so no ratio can be told",
        )
    if least <= ratio.low and ratio.high <= largest:
        return Judgement(HOLDS, f"the whole interval lies between {least:.1f} and {largest:.1f} times")
    if ratio.high < least:
        return Judgement(FAILS, f"the whole interval lies below {least:.1f} times")
    if ratio.low > 1:
        return Judgement(
            IN_PART, f"layer 6 matters more, but the interval leaves {least:.1f} to {largest:.1f} times"
        )
    return Judgement(UNKNOWN, "the interval of the ratio holds both one and values near the study's")


def layers_attend_to_chirp_alone(heads: Count, images: int) -> Judgement:
    """C3. Holds if *most* heads of layers 6-11 are for sure about the chirp alone, in part if more than *half* are.
    Does not hold if even those that may be make up no more than *half*. Otherwise it cannot be told.
    """
    if judgement := too_few(images):
        return judgement
    if not heads.total:
        return Judgement(UNKNOWN, "the model has no such layers")
    least, largest = heads.low / heads.total, heads.high / heads.total
    if least >= MOST:
        return Judgement(HOLDS, f"at least {least:.0%} of the heads are about the chirp alone")
    if least > HALF:
        return Judgement(IN_PART, f"more than half of the heads are, but fewer than {MOST:.0%} for sure")
    if largest <= HALF:
        return Judgement(FAILS, f"at most {largest:.0%} of the heads are about the chirp alone")
    return Judgement(
        UNKNOWN, f"between {least:.0%} and {largest:.0%} of the heads are: more or fewer than half"
    )


def some_detectors_are_irrelevant(detectors: Count, effects: Sequence[Interval], images: int) -> Judgement:
    """C4. Holds if layers 1-4 have a text or edge detector for sure and the effect of each lies within plus or minus
    *hardly*. Holds in part if that is so for some of them. Does not hold if there can be no detector, or if each
    clearly matters more. Otherwise it cannot be told: an interval that merely includes zero shows no irrelevance.
    """
    if judgement := too_few(images):
        return judgement
    if not detectors.high:
        return Judgement(FAILS, "no head of layers 1-4 can be a text or edge detector")
    if not effects:
        return Judgement(UNKNOWN, "no head of layers 1-4 is a text or edge detector for sure")
    small = sum(effect.low > -HARDLY and effect.high < HARDLY for effect in effects)
    large = sum(effect.low > HARDLY or effect.high < -HARDLY for effect in effects)
    within = (
        f"{small} of {counted(len(effects), 'sure detector')} {word(small, 'has', 'have')} an effect within "
        f"±{HARDLY:g} %"
    )
    if small == len(effects):
        return Judgement(HOLDS, within)
    if small:
        return Judgement(IN_PART, within)
    if large == len(effects):
        return Judgement(FAILS, f"every sure detector changes the error by more than {HARDLY:g} %")
    return Judgement(UNKNOWN, f"{within}; the other intervals are too wide to call them irrelevant")


def last_layer_is_polysemantic(heads: Count, wider: bool, images: int) -> Judgement:
    """C5. Holds if more than *half* of the last layer's heads are for sure polysemantic or diffuse, and its maps are
    more spread out than those of each of layers 6-11. Holds in part if only the heads are. Does not hold if even those
    that may be make up no more than *half*. Otherwise it cannot be told.
    """
    if judgement := too_few(images):
        return judgement
    if heads.low > HALF * heads.total:
        spread = "its maps are more spread out than those of every layer from 6 to 11"
        if wider:
            return Judgement(HOLDS, f"more than half of the heads are, and {spread}")
        return Judgement(IN_PART, f"more than half of the heads are, but it is not so that {spread}")
    if heads.high <= HALF * heads.total:
        most = f"at most {heads.high}" if heads.high else "none"
        return Judgement(
            FAILS,
            f"{most} of the {heads.total} heads {word(heads.high or 1, 'is', 'are')} polysemantic or diffuse",
        )
    return Judgement(
        UNKNOWN, "how many heads are depends on the images drawn: it may be more or fewer than half"
    )


def importance_grows_with_focus(overall: Interval, within: Interval, images: int) -> Judgement:
    """C6. Holds if the rank correlation of effect and attention on the chirp is clearly above zero over all heads and
    within layers. Holds in part if only over all heads: depth alone could make that. Does not hold if over all heads
    it is clearly below *none*. Otherwise it cannot be told.
    """
    if judgement := too_few(images):
        return judgement
    if overall.high < NONE:
        return Judgement(FAILS, f"over all heads the correlation lies below {NONE:g}")
    if overall.low > 0 and within.low > 0:
        return Judgement(HOLDS, "the correlation is above zero over all heads, and within layers too")
    if overall.low > 0:
        return Judgement(
            IN_PART, "over all heads it grows; within layers this does not show, so depth alone could make it"
        )
    return Judgement(UNKNOWN, "the interval of the correlation includes zero")


RULES = {
    "C1": early_heads_hardly_matter,
    "C2": deeper_heads_matter_more,
    "C3": layers_attend_to_chirp_alone,
    "C4": some_detectors_are_irrelevant,
    "C5": last_layer_is_polysemantic,
    "C6": importance_grows_with_focus,
}


def too_few(images: int) -> Judgement | None:
    """Refuse to judge by fewer than *enough* images."""
    if images >= ENOUGH_IMAGES:
        return None
    few = f"{counted(images, 'image')} {word(images, 'is', 'are')} too few"
    return Judgement(UNKNOWN, f"{few}; at least {ENOUGH_IMAGES} are needed for an interval")


def _detects(classes: pd.DataFrame) -> pd.Series:
    return (classes["class"] == "monosemantic") & classes["regions"].str.contains(TEXT_OR_EDGE, regex=True)


def _count(classes: pd.DataFrame, wanted: pd.Series) -> Count:
    sure = classes["confidence"] >= SURE
    return Count(int(wanted.sum()), int((wanted & sure).sum()), int((wanted | ~sure).sum()), len(classes))
