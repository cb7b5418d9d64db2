"""Claims C1 and C2: do heads of layers 1-3 hardly matter, and do deeper ones matter three times as much?

The rules are pure functions of measured values. Their limits come from what the claims' words mean, not from what a
run gave; chapter 04 and the scoreboard judge by them.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from vitmech_utils.arguments import checked_arguments
from vitmech_utils.figures.tables import from_zero, word
from vitmech_utils.statistics import Interval
from vitmech_utils.studies.ablation.measure import (
    EARLY,
    EARLY_COVERED,
    LATE,
    RATIO_COVERED,
    STUDY_EARLY,
    STUDY_EARLY_DEVIATION,
    STUDY_LATE,
    intervals,
)
from vitmech_utils.studies.rows import Row, by, numbers
from vitmech_utils.studies.tables import BOUNDS, JudgedRun
from vitmech_utils.studies.verdicts import (
    FAILS,
    FALSE_DISCOVERIES,
    HARDLY,
    HOLDS,
    IN_PART,
    Judgement,
    too_few,
    undecided,
)

CHAPTER = "04_head_ablation"
TABLES = {
    "claims_c1_c2": ("mode", "quantity", "value", *BOUNDS),
    "sweep": ("layer", "head", "mode", "images", "effect", *BOUNDS, "q_value"),
    "untrained": ("layer", "mode", "images", "effect"),
    "head_sets": ("set", "effect", *BOUNDS, "sum_of_single"),
}
ABOUT = 2.0
MOST_DECIMALS = 4
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
def early_heads_hardly_matter(early: Mapping[str, Interval], beyond: int, images: int) -> Judgement:
    """C1. The claim names no way of taking a head away, so every ablation mode is asked. Holds if in each the interval
    of the mean effect of layers 1-3 lies within plus or minus *hardly*, and no single head of these layers clearly lies
    outside. Holds in part if in some mode the mean lies within, or in each but some head does not. Does not hold if in
    each the whole interval lies outside. Otherwise it is undecided.
    """
    if judgement := too_few(images, EARLY_COVERED):
        return judgement
    within = [mode for mode, mean in early.items() if mean.low > -HARDLY and mean.high < HARDLY]
    outside = [mode for mode, mean in early.items() if mean.low > HARDLY or mean.high < -HARDLY]
    heads = f"of their heads, {beyond or 'none'} clearly {word(beyond or 1, 'lies', 'lie')} outside"
    if len(outside) == len(early):
        return Judgement(
            FAILS, f"by every ablation mode the whole interval of the mean lies outside ±{HARDLY:g} %"
        )
    if len(within) == len(early):
        if beyond:
            return Judgement(
                IN_PART, f"by every ablation mode the mean stays within ±{HARDLY:g} %, but {heads}"
            )
        return Judgement(
            HOLDS,
            f"by every ablation mode the mean stays within ±{HARDLY:g} %, and no head is clearly beyond",
        )
    where = f"outside by {_listed(outside)} ablation" if outside else "outside by none"
    if within:
        return Judgement(
            IN_PART, f"the mean stays within ±{HARDLY:g} % by {_listed(within)} ablation, {where}; {heads}"
        )
    return undecided(
        f"by no ablation mode the interval of the mean lies within ±{HARDLY:g} %, {where}; {heads}"
    )


@checked_arguments()
def deeper_heads_matter_more(ratio: Mapping[str, Interval], images: int) -> Judgement:
    """C2. Every ablation mode is asked, as in C1. Holds if in each the interval of the ratio (layer 6 over layers 1-3)
    lies within a factor *about* of the study's. Holds in part if in some mode it does, or if in each it lies above one.
    Does not hold if in each it lies outside. Otherwise it is undecided.
    """
    if judgement := too_few(images, RATIO_COVERED["effect"]):
        return judgement
    study = STUDY_LATE / STUDY_EARLY
    least, largest = study / ABOUT, study * ABOUT
    span = f"{least:.1f} to {largest:.1f} times"
    about = [mode for mode, found in ratio.items() if least <= found.low and found.high <= largest]
    off = [mode for mode, found in ratio.items() if found.high < least or found.low > largest]
    above = [mode for mode, found in ratio.items() if found.low > 1]
    if len(about) == len(ratio):
        return Judgement(HOLDS, f"by every ablation mode the whole interval lies within {span}")
    if len(off) == len(ratio):
        return Judgement(FAILS, f"by every ablation mode the whole interval lies outside {span}")
    if about:
        return Judgement(
            IN_PART, f"the interval lies within {span} by {_listed(about)} ablation, not by the others"
        )
    if len(above) == len(ratio):
        return Judgement(
            IN_PART, f"by every ablation mode layer 6 matters more, by none the interval lies within {span}"
        )
    return undecided(
        f"the interval lies within {span} by no ablation mode, outside by {_listed(off) or 'none'}, above 1 by "
        f"{_listed(above) or 'none'}"
    )


@checked_arguments()
def judged(comparison: pd.DataFrame, sweep: pd.DataFrame) -> dict[str, Judgement]:
    """Both claims by one training: its `measure.layer_comparison` of all modes, and its effects by its first one."""
    compared = intervals(comparison)
    early, ratio = ({mode: found[name] for mode, found in compared.items()} for name in ("early", "ratio"))
    images = int(comparison["images"].min())
    first = sweep[sweep["mode"] == sweep["mode"].iloc[0]]
    return {
        "C1": early_heads_hardly_matter(early, heads_beyond(first), images),
        "C2": deeper_heads_matter_more(ratio, images),
    }


def _listed(modes: Sequence[str]) -> str:
    return ", ".join(modes)


@checked_arguments()
def in_full(found: Interval, spec: str) -> str:
    """An interval as `spec` gives it (such as `+.1f`), with more decimals where it would show a bound as zero."""
    sign, digits = spec.rstrip("f").split(".")
    ends = [end for end in (found.low, found.high) if end and end == end]
    for places in range(int(digits), MOST_DECIMALS):
        if all(round(end, places) for end in ends):
            return f"{found:{sign}.{places}f}"
    return f"{found:{sign}.{MOST_DECIMALS}f}"


@checked_arguments()
def squares(ratios: Mapping[str, Interval], mode: str) -> str:
    """By one mode the ratio of mean squared shifts, and its root, how many times as far the answer moves.

    Then the range of the other modes' ratios. `ratios` is by mode.
    """
    ratio = from_zero(ratios[mode])
    root = Interval(*(float(np.sqrt(max(part, 0.0))) for part in (ratio.value, ratio.low, ratio.high)))
    others = [found.value for name, found in ratios.items() if name != mode]
    span = (
        f" (by the other modes {min(others):.1f} to {max(others):.1f} times by mean squares)"
        if others
        else ""
    )
    return f"{in_full(ratio, '.1f')} times by mean squares, {in_full(root, '.1f')} times as a distance{span}"


RULES = {"C1": early_heads_hardly_matter, "C2": deeper_heads_matter_more}


@checked_arguments()
def rows(run: JudgedRun) -> dict[str, Row]:
    """The scoreboard's rows of chapter 04."""
    return {"C1": _c1(run), "C2": _c2(run)}


def _c1(run: JudgedRun) -> Row:
    by_mode = _compared(run, "early")
    early = run.interval("claims_c1_c2", mode=run.mode, quantity="early")
    sweep = run.swept(run.mode)
    images, heads = int(sweep["images"].iloc[0]), int(sweep["layer"].isin(EARLY).sum())
    untrained = run.tables["untrained"]
    controls = [
        f"untrained network, {by(untrained)}: {_signed(untrained[untrained['layer'].isin(EARLY)]['effect'].mean())} %",
        *_pruned_for_good(run),
    ]
    moved = _compared(run, "early_shift")
    return Row(
        id="C1",
        claim="Heads of layers 1-3 hardly matter to the task.",
        study=f"MSE {STUDY_EARLY:+.2f} % on average, standard deviation {STUDY_EARLY_DEVIATION:.2f} %",
        ours=f"MSE {in_full(early, '+.2f')} % on average by {run.mode} ablation"
        + (
            f", the mean squared shift of the answer is {in_full(from_zero(moved[run.mode]), '.2f')} % of it"
            if moved
            else ""
        )
        + _others(by_mode, run.mode, "+.2f", " %"),
        sample=_sample(run, f"{heads} heads"),
        control="; ".join(controls),
        would_change=f"More images, until the interval lies on one side of ±{HARDLY:g} %.",
        chapter=CHAPTER,
        figure="fig-layer-effects",
        images=images,
        **numbers(early, "%"),
        **vars(early_heads_hardly_matter(by_mode, heads_beyond(sweep), _fewest(run))),
    )


def _c2(run: JudgedRun) -> Row:
    late, ratio = (run.interval("claims_c1_c2", mode=run.mode, quantity=key) for key in ("late", "ratio"))
    ratios = _compared(run, "ratio")
    by_shift = _compared(run, "ratio_shift")
    images = int(run.swept(run.mode)["images"].iloc[0])
    untrained = run.tables["untrained"]
    before, after = (untrained[untrained["layer"].isin(layers)]["effect"].mean() for layers in (EARLY, LATE))
    return Row(
        id="C2",
        claim="Deeper heads matter about three times as much: layer 6 against layers 1-3.",
        study=f"MSE {STUDY_LATE:+.2f} % in layer 6, {STUDY_LATE / STUDY_EARLY:.1f} times that of layers 1-3",
        ours=f"{in_full(ratio, '.1f')} times by {run.mode} ablation; layer 6 by {in_full(late, '+.2f')} %"
        + (f"; by the shift of the answer, {squares(by_shift, run.mode)}" if by_shift else "")
        + _others(ratios, run.mode, ".1f", " times"),
        sample=_sample(run, "one layer against three"),
        control=f"untrained network, {by(untrained)}: layers 1-3 {_signed(before)} %, layer 6 {_signed(after)} %",
        would_change="More images, until the early layers' own effect and the ratio are known well enough.",
        chapter=CHAPTER,
        figure="fig-layer-effects",
        images=images,
        **numbers(ratio, "times"),
        **vars(deeper_heads_matter_more(ratios, _fewest(run))),
    )


def _compared(run: JudgedRun, quantity: str) -> dict[str, Interval]:
    """A quantity of the comparison of layers, by mode; empty where the run has none."""
    table = run.tables["claims_c1_c2"]
    rows = table[table["quantity"] == quantity]
    return {
        row.mode: Interval(float(row.value), float(row.low), float(row.high)) for row in rows.itertuples()
    }


def _fewest(run: JudgedRun) -> int:
    """The images of the mode that has fewest."""
    return int(run.tables["sweep"]["images"].min())


def _others(found: Mapping[str, Interval], first: str, form: str, unit: str) -> str:
    """What the other modes say."""
    told = [f"{mode} {in_full(interval, form)}{unit}" for mode, interval in found.items() if mode != first]
    return f"; by other modes: {', '.join(told)}" if told else ""


def _sample(run: JudgedRun, what: str) -> str:
    """What each mode's figures rest on."""
    by_mode = run.tables["sweep"].drop_duplicates("mode")
    exact = by_mode["exact_images"] if "exact_images" in by_mode else by_mode["images"]
    alike: dict[tuple[int, int], list[str]] = {}
    for mode, images, few in zip(by_mode["mode"], by_mode["images"], exact, strict=True):
        alike.setdefault((int(images), int(few)), []).append(str(mode))
    told = [
        f"{', '.join(modes)} ablation on {images:,} images" + (f" ({few:,} exactly)" if few < images else "")
        for (images, few), modes in alike.items()
    ]
    return f"{what}; {'; '.join(told)}"


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
