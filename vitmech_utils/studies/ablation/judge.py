"""Claims C1 and C2: do heads of layers 1-3 hardly matter, and do deeper ones matter three times as much?

The rules are pure functions of measured values. Their limits come from what the claims' words mean, not from what a
run gave; chapter 04 and the scoreboard judge by them.
"""

from collections.abc import Sequence

import pandas as pd

from vitmech_utils.arguments import checked_arguments
from vitmech_utils.figures.tables import word
from vitmech_utils.statistics import Interval
from vitmech_utils.studies.ablation.measure import EARLY, LATE, STUDY_EARLY, STUDY_EARLY_DEVIATION, STUDY_LATE
from vitmech_utils.studies.rows import Row, by, numbers
from vitmech_utils.studies.tables import BOUNDS, JudgedRun
from vitmech_utils.studies.verdicts import (
    FAILS,
    FALSE_DISCOVERIES,
    HARDLY,
    HOLDS,
    IN_PART,
    UNKNOWN,
    Judgement,
    too_few,
)

CHAPTER = "04_head_ablation"
TABLES = {
    "claims_c1_c2": ("mode", "quantity", "value", *BOUNDS),
    "sweep": ("layer", "head", "mode", "images", "effect", *BOUNDS, "q_value"),
    "untrained": ("layer", "mode", "images", "effect"),
    "head_sets": ("set", "effect", *BOUNDS, "sum_of_single"),
}
ABOUT = 2.0
LIMITS = {
    "about (factor)": (
        ABOUT,
        "'about three times' still describes what lies between half and double the study's ratio, and no more",
    ),
}


@checked_arguments()
def heads_beyond(sweep: pd.DataFrame, layers: Sequence[int] = EARLY) -> int:
    """Count the heads of some layers (0-based) that clearly matter more than *hardly*.

    `sweep` is one mode's table of effects: layer, low, high (percent), q_value (adjusted over all heads).
    """
    part = sweep[sweep["layer"].isin(layers) & (sweep["q_value"] < FALSE_DISCOVERIES)]
    return int(((part["low"] > HARDLY) | (part["high"] < -HARDLY)).sum())


@checked_arguments()
def early_heads_hardly_matter(early: Interval, beyond: int, images: int) -> Judgement:
    """C1. Holds if the interval of the mean effect of layers 1-3 lies within plus or minus *hardly*, and no single head
    of these layers clearly lies outside. Holds in part if the mean does and some head does not. Does not hold if the
    whole interval lies outside. Otherwise it is undecided.
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
            f"the mean stays within ±{HARDLY:g} %, and so does, as far as this run can show, every single head",
        )
    return Judgement(UNKNOWN, f"the interval of the mean reaches across ±{HARDLY:g} %; {heads}")


@checked_arguments()
def deeper_heads_matter_more(ratio: Interval, early: Interval, images: int) -> Judgement:
    """C2. Holds if the interval of the ratio (layer 6 over layers 1-3) lies within a factor *about* of the study's.
    Holds in part if it only lies above one. Does not hold if it lies below the study's ratio by more than that factor.
    Otherwise, or if the early layers' own effect is not clearly above zero, it is undecided.
    """
    if judgement := too_few(images):
        return judgement
    study = STUDY_LATE / STUDY_EARLY
    least, largest = study / ABOUT, study * ABOUT
    if not early.low > 0:
        return Judgement(
            UNKNOWN,
            "the early layers' own effect is not clearly above zero, so the ratio is undecided",
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


RULES = {"C1": early_heads_hardly_matter, "C2": deeper_heads_matter_more}


@checked_arguments()
def rows(run: JudgedRun) -> dict[str, Row]:
    """The scoreboard's rows of chapter 04."""
    return {"C1": _c1(run), "C2": _c2(run)}


def _c1(run: JudgedRun) -> Row:
    early = run.interval("claims_c1_c2", mode=run.mode, quantity="early")
    sweep = run.swept(run.mode)
    images, heads = int(sweep["images"].iloc[0]), int(sweep["layer"].isin(EARLY).sum())
    untrained = run.tables["untrained"]
    others = [mode for mode in run.tables["claims_c1_c2"]["mode"].unique() if mode != run.mode]
    controls = [
        f"untrained network, {by(untrained)}: {_signed(untrained[untrained['layer'].isin(EARLY)]['effect'].mean())} %",
        *(
            f"this model by {mode} ablation: {run.interval('claims_c1_c2', mode=mode, quantity='early'):+.2f} %"
            for mode in others
        ),
        *_pruned_for_good(run),
    ]
    return Row(
        id="C1",
        claim="Heads of layers 1-3 hardly matter to the task.",
        study=f"MSE {STUDY_EARLY:+.2f} % on average, standard deviation {STUDY_EARLY_DEVIATION:.2f} %",
        ours=f"MSE {early:+.2f} % on average",
        sample=f"{images} images, {heads} heads, {run.mode} ablation",
        control="; ".join(controls),
        would_change=f"More images, until the interval lies on one side of ±{HARDLY:g} %.",
        chapter=CHAPTER,
        figure="fig-layer-effects",
        images=images,
        **numbers(early, "%"),
        **vars(early_heads_hardly_matter(early, heads_beyond(sweep), images)),
    )


def _c2(run: JudgedRun) -> Row:
    found = {
        key: run.interval("claims_c1_c2", mode=run.mode, quantity=key) for key in ("early", "late", "ratio")
    }
    images = int(run.swept(run.mode)["images"].iloc[0])
    untrained = run.tables["untrained"]
    early, late = (untrained[untrained["layer"].isin(layers)]["effect"].mean() for layers in (EARLY, LATE))
    others = [mode for mode in run.tables["claims_c1_c2"]["mode"].unique() if mode != run.mode]
    ratios = [
        f"this model by {mode} ablation: {run.interval('claims_c1_c2', mode=mode, quantity='ratio'):.1f} times"
        for mode in others
    ]
    return Row(
        id="C2",
        claim="Deeper heads matter about three times as much: layer 6 against layers 1-3.",
        study=f"MSE {STUDY_LATE:+.2f} % in layer 6, {STUDY_LATE / STUDY_EARLY:.1f} times that of layers 1-3",
        ours=f"{found['ratio']:.1f} times; layer 6 by {found['late']:+.2f} %",
        sample=f"{images} images, {run.mode} ablation",
        control="; ".join(
            [
                f"untrained network, {by(untrained)}: layers 1-3 {_signed(early)} %, layer 6 {_signed(late)} %",
                *ratios,
            ]
        ),
        would_change="More images, until the early layers' own effect and the ratio are known well enough.",
        chapter=CHAPTER,
        figure="fig-layer-effects",
        images=images,
        **numbers(found["ratio"], "times"),
        **vars(deeper_heads_matter_more(found["ratio"], found["early"], images)),
    )


def _signed(effect: float) -> str:
    """An effect with its sign; next to zero, as many places as its first digit needs."""
    return f"{effect:+.2f}" if abs(effect) >= 0.1 or not effect else f"{effect:+.1g}"


def _pruned_for_good(run: JudgedRun) -> list[str]:
    """What claim C1's single effects are to be held against: the same heads removed together, for good."""
    row = run.early_pruned(recovered=False)
    if row is None:
        return []
    effect = Interval(*(float(row[key]) for key in ("effect", "low", "high")))
    return [
        f"all {int(row['heads'])} of them pruned for good, together: {effect:+.0f} % on {int(row['images'])} images"
    ]
