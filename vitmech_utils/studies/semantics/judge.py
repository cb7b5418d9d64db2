"""Claims C3 to C6: what heads are about, layer by layer, and whether the task needs those that look at the chirp.

The rules are pure functions of measured values. Their limits come from what the claims' words mean, not from what a
run gave; chapter 05 and the scoreboard judge by them.
"""

from collections.abc import Callable, Sequence

import pandas as pd

from vitmech_utils.arguments import checked_arguments
from vitmech_utils.figures.tables import counted, listed, word
from vitmech_utils.runs.manifests import RunError
from vitmech_utils.statistics import Interval
from vitmech_utils.studies.rows import Row, numbers
from vitmech_utils.studies.semantics.measure import CHANGES
from vitmech_utils.studies.tables import BOUNDS, JudgedRun, how_to_rerun
from vitmech_utils.studies.verdicts import (
    EFFECT,
    ENOUGH_HEADS,
    FAILS,
    FIRST_FOUR,
    HALF,
    HARDLY,
    HOLDS,
    IN_PART,
    MOST,
    NONE,
    ON_CHIRP,
    ON_TITLE,
    SURE,
    Count,
    Judgement,
    count_sure,
    detects_text_or_edge,
    over_thresholds,
    text_or_edge_detectors,
    too_few,
    too_few_heads,
    undecided,
    undecided_over_thresholds,
)

CHAPTER = "05_mono_or_polysemantic"
_CLASSES = ("layer", "head", "class", "regions", "confidence", "map_entropy")
TABLES = {
    "classes": _CLASSES,
    "untrained_classes": _CLASSES,
    "pretrained_classes": _CLASSES,
    "claims_c3_c6": ("claim", "verdict"),
    "class_changes": ("regions_before", "regions_after", "changed"),
    "importance_and_focus": ("mode", "heads", "correlation", *BOUNDS, "p_value"),
}
DEEP = (5, 10)  # layers 6-11, 0-based, both ends included
MOVED = {region for change in CHANGES.values() if change.kind == "moved" for region in change.regions}
"""What some twin moves; of a head about anything else nobody knows whether it would follow."""


@checked_arguments()
def about_chirp_alone(classes: pd.DataFrame) -> Count:
    """Count the heads of layers 6-11 that are monosemantic with the chirp as their only region."""
    deep = classes[classes["layer"].between(*DEEP)]
    return count_sure(deep, (deep["class"] == "monosemantic") & (deep["regions"] == "chirp"))


@checked_arguments()
def detector_effects(classes: pd.DataFrame, sweep: pd.DataFrame) -> list[Interval]:
    """The effects (percent) of the detectors in layers 1-4 whose class is sure, in the order of the table.

    `sweep` is one mode's table. Its heads must be those of `classes`; otherwise `ValueError`.
    """
    early = classes[classes["layer"].between(*FIRST_FOUR)]
    wanted = early[detects_text_or_edge(early) & (early["confidence"] >= SURE)][["layer", "head"]]
    joined = wanted.merge(sweep, on=["layer", "head"])
    if len(joined) != len(wanted):
        raise ValueError(
            f"the sweep holds {len(joined)} of {len(wanted)} detectors: other heads, or two modes"
        )
    return [Interval(row.effect, row.low, row.high) for row in joined.itertuples()]


@checked_arguments()
def polysemantic_or_diffuse(classes: pd.DataFrame) -> Count:
    """Count the heads of the last layer that are about several things, or about none."""
    last = classes[classes["layer"] == classes["layer"].max()]
    return count_sure(last, last["class"].isin(["polysemantic", "diffuse"]))


@checked_arguments()
def about_what_no_twin_moves(classes: pd.DataFrame) -> pd.Series:
    """For each head, whether it is monosemantic about a region that no twin moves: perhaps a place, and no thing."""
    return (classes["class"] == "monosemantic") & ~classes["regions"].isin(MOVED)


@checked_arguments()
def last_layer_untested(classes: pd.DataFrame) -> int:
    """How many heads of the last layer count as focused though they are about what no twin moves."""
    return int(about_what_no_twin_moves(classes[classes["layer"] == classes["layer"].max()]).sum())


@checked_arguments()
def last_layer_spreads_wider(classes: pd.DataFrame) -> bool:
    """Whether the last layer's mean map entropy exceeds that of every one of layers 6-11."""
    by_layer = classes.groupby("layer")["map_entropy"].mean()
    last = by_layer.index.max()
    others = by_layer[(by_layer.index >= DEEP[0]) & (by_layer.index <= DEEP[1]) & (by_layer.index < last)]
    return bool(len(others)) and bool((by_layer[last] > others).all())


@checked_arguments()
def layers_attend_to_chirp_alone(heads: Count, images: int, usual: Count | None = None) -> Judgement:
    """C3. Holds if *most* heads of layers 6-11 are for sure about the chirp alone, in part if more than *half* are.
    Does not hold if even those that may be make up no more than *half*. Otherwise it is undecided. *For sure* means
    over all thresholds that one may well put between the classes, *may be* by any of them.

    `usual` is the count by the usual thresholds alone: it tells whether images are wanting or thresholds disagree.
    """
    if judgement := too_few(images, ON_CHIRP):
        return judgement
    if not heads.total:
        return undecided("the model has no such layers", "heads")
    least, largest = heads.low / heads.total, heads.high / heads.total
    if least >= MOST:
        return Judgement(HOLDS, f"at least {least:.0%} of the heads are about the chirp alone")
    if least > HALF:
        return Judgement(IN_PART, f"more than half of the heads are, but fewer than {MOST:.0%} for sure")
    if largest <= HALF:
        return Judgement(FAILS, f"at most {largest:.0%} of the heads are about the chirp alone")
    alone = None if usual is None else layers_attend_to_chirp_alone(usual, images)
    return undecided_over_thresholds(
        f"between {least:.0%} and {largest:.0%} of the heads are: more or fewer than half", alone
    )


@checked_arguments()
def some_detectors_are_irrelevant(detectors: Count, effects: Sequence[Interval], images: int) -> Judgement:
    """C4. Holds if layers 1-4 have a text or edge detector for sure and the effect of each lies within plus or minus
    *hardly*. Holds in part if that is so for some of them. Does not hold if there can be no detector, or if each
    clearly matters more. Otherwise it is undecided: an interval that merely includes zero shows no irrelevance, and
    fewer than *enough heads* that are detectors for sure show nothing of their kind.
    """
    if judgement := too_few(images, ON_TITLE) or too_few(images, EFFECT):
        return judgement
    if not detectors.high:
        return Judgement(FAILS, "no head of layers 1-4 can be a text or edge detector")
    if not effects:
        return undecided("no head of layers 1-4 is a text or edge detector for sure", "heads")
    if judgement := too_few_heads(len(effects), "sure detector"):
        return judgement
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
    return undecided(f"{within}; the other intervals are too wide to call them irrelevant")


@checked_arguments()
def last_layer_is_polysemantic(
    heads: Count, wider: bool, images: int, usual: Count | None = None, untested: int = 0
) -> Judgement:
    """C5. Holds if more than *half* of the last layer's heads are for sure polysemantic or diffuse, and its maps are
    more spread out than those of each of layers 6-11. Holds in part if only the heads are. Does not hold if even those
    that may be make up no more than *half*. Otherwise it is undecided. *For sure* and *may be* as in C3.

    `usual` is the count by the usual thresholds alone, as in C3. `untested` heads of the layer are about a region that
    no twin moves; they count as focused, as the classes have them, and the reason says how many they are.
    """
    if judgement := too_few(images, ON_CHIRP):
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
            f"{most} of the {heads.total} heads {word(heads.high or 1, 'is', 'are')} polysemantic or diffuse"
            f"{_without(untested, heads)}",
        )
    alone = None if usual is None else last_layer_is_polysemantic(usual, wider, images)
    return undecided_over_thresholds(
        f"between {heads.low} and {heads.high} of the {heads.total} heads are{_without(untested, heads)}: more or "
        "fewer than half",
        alone,
    )


def _without(untested: int, heads: Count) -> str:
    """What C5 counts as focused without knowing whether it would follow."""
    if not untested:
        return ""
    return (
        f" (among those that count as focused by the usual thresholds, {untested} {word(untested, 'is', 'are')} about "
        f"what no twin moves, perhaps a place; without {word(untested, 'it', 'them')}, "
        f"{heads.total - heads.value - untested} of the {heads.total} are neither polysemantic nor diffuse)"
    )


@checked_arguments()
def importance_grows_with_focus(
    overall: Interval, within: Interval, images: int, mode: str = "mean"
) -> Judgement:
    """C6. Holds if, by mean ablation, the rank correlation of effect and attention on the chirp is clearly above zero
    over all heads and within layers. Holds in part if only over all heads: depth alone could make that. Does not hold
    if over all heads it is clearly below *none*. Otherwise it is undecided. What the other modes say stands beside the
    verdict and does not enter it: they need not agree.

    `mode` is the ablation that both correlations are of; it is mean ablation wherever that was run.
    """
    if judgement := too_few(images, EFFECT):
        return judgement
    if overall.high < NONE:
        return Judgement(FAILS, f"by {mode} ablation the correlation over all heads lies below {NONE:g}")
    if overall.low > 0 and within.low > 0:
        return Judgement(
            HOLDS, f"by {mode} ablation the correlation is above zero over all heads, and within layers too"
        )
    if overall.low > 0:
        return Judgement(
            IN_PART,
            f"by {mode} ablation it grows over all heads; within layers this does not show, so depth alone could make "
            "it",
        )
    return undecided(f"by {mode} ablation the interval of the correlation includes zero")


@checked_arguments()
def other_modes(table: pd.DataFrame, mode: str) -> str:
    """What C6's correlation over all heads is by the modes that its rule does not ask, with intervals over heads.

    `table` is of `measure.importance_and_focus`, `mode` the one that the rule asks.
    """
    others = table[(table["heads"] == "all heads") & (table["mode"] != mode)]
    return listed(
        f"{row.mode} {Interval(row.correlation, row.low, row.high):+.2f}" for row in others.itertuples()
    )


COUNTED = {about_chirp_alone: "C3", polysemantic_or_diffuse: "C5"}
"""What is counted over all thresholds, and for which claim."""


@checked_arguments()
def counted_over_thresholds(every: pd.DataFrame) -> dict[str, Count]:
    """What C3 and C5 count, with bounds over all thresholds; `every` is of `semantics.classes_over_thresholds`."""
    return {claim: over_thresholds(every, count) for count, claim in COUNTED.items()}


RULES = {
    "C3": layers_attend_to_chirp_alone,
    "C4": some_detectors_are_irrelevant,
    "C5": last_layer_is_polysemantic,
    "C6": importance_grows_with_focus,
}


@checked_arguments()
def judged(
    classes: pd.DataFrame,
    over_all: pd.DataFrame,
    sweep: pd.DataFrame,
    correlations: tuple[Interval, Interval],
    images: int,
) -> tuple[dict[str, Count], dict[str, Judgement]]:
    """What C3 to C5 count, and the claims C3 to C6, by one training.

    `classes` and `over_all` (over all thresholds) are of `images` images, `sweep` is one mode's table, `correlations`
    are those of effect and attention on the chirp, over all heads and within layers.
    """
    counts = counted_over_thresholds(over_all) | {"C4": text_or_edge_detectors(classes)}
    both = min(images, int(sweep["images"].iloc[0]))
    return counts, {
        "C3": layers_attend_to_chirp_alone(counts["C3"], images, about_chirp_alone(classes)),
        "C4": some_detectors_are_irrelevant(counts["C4"], detector_effects(classes, sweep), both),
        "C5": last_layer_is_polysemantic(
            counts["C5"],
            last_layer_spreads_wider(classes),
            images,
            polysemantic_or_diffuse(classes),
            last_layer_untested(classes),
        ),
        "C6": importance_grows_with_focus(*correlations, both, str(sweep["mode"].iloc[0])),
    }


@checked_arguments()
def rows(run: JudgedRun) -> dict[str, Row]:
    """The scoreboard's rows of chapter 05."""
    return {"C3": _c3(run), "C4": _c4(run), "C5": _c5(run), "C6": _c6(run)}


def _c3(run: JudgedRun) -> Row:
    count, control = _counted(run, about_chirp_alone)
    return Row(
        id="C3",
        claim="Layers 6-11 are monosemantic: their heads attend to the chirp alone.",
        study="by eye, from maps",
        ours=f"{count} heads {_are(count)} about the chirp alone",
        sample=f"{run.semantics_images} images",
        control=control,
        would_change=f"More heads of these layers with the chirp as their only region: more than {HALF:.0%} "
        f"for part of the claim, {MOST:.0%} for all of it.",
        chapter=CHAPTER,
        figure="fig-classes",
        images=run.semantics_images,
        **numbers(count, "heads"),
        **vars(
            layers_attend_to_chirp_alone(
                count, run.semantics_images, about_chirp_alone(run.tables["classes"])
            )
        ),
    )


def _c4(run: JudgedRun) -> Row:
    count, control = _counted(run, text_or_edge_detectors)
    sweep = run.swept(run.focus_mode)
    images = min(run.semantics_images, int(sweep["images"].iloc[0]))
    try:
        effects = detector_effects(run.tables["classes"], sweep)
    except ValueError as error:
        raise RunError(
            f"{run.folder}: chapters 04 and 05 do not fit each other ({error}); {how_to_rerun(CHAPTER, run.folder)}"
        ) from error
    listed = ", ".join(f"{effect:+.2f} %" for effect in effects) or "none"
    return Row(
        id="C4",
        claim="Some heads of layers 1-4 are monosemantic but irrelevant to the task: text and edge detectors.",
        study="by eye, from maps",
        ours=f"{count} heads {word(count.value, 'is such a detector', 'are such detectors')}; effects of the sure "
        f"ones: {listed}",
        sample=f"{run.semantics_images} images for the classes, {int(sweep['images'].iloc[0])} for the effects, "
        f"{run.focus_mode} ablation",
        control=control,
        would_change=f"At least {ENOUGH_HEADS} sure detectors: all clearly beyond ±{HARDLY:g} % against the claim, all "
        "within it for the claim, some within it for part of it.",
        chapter=CHAPTER,
        figure="fig-classes",
        images=images,
        **numbers(count, "heads"),
        **vars(some_detectors_are_irrelevant(count, effects, images)),
    )


def _c5(run: JudgedRun) -> Row:
    count, control = _counted(run, polysemantic_or_diffuse)
    classes = run.tables["classes"]
    wider = last_layer_spreads_wider(classes)
    entropy = classes[classes["layer"] == classes["layer"].max()]["map_entropy"].mean()
    return Row(
        id="C5",
        claim="The last layer is polysemantic: diffuse attention over irrelevant regions.",
        study="by eye, from maps",
        ours=f"{count} heads {_are(count)} polysemantic or diffuse; mean map entropy {entropy:.2f} of its maximum",
        sample=f"{run.semantics_images} images",
        control=control,
        would_change="More images, so that no head's class depends on which are drawn; or other heads that are sure.",
        chapter=CHAPTER,
        figure="fig-classes",
        images=run.semantics_images,
        **numbers(count, "heads"),
        **vars(
            last_layer_is_polysemantic(
                count,
                wider,
                run.semantics_images,
                polysemantic_or_diffuse(classes),
                last_layer_untested(classes),
            )
        ),
    )


def _c6(run: JudgedRun) -> Row:
    mode = run.focus_mode
    overall, within = (
        run.interval("importance_and_focus", mode=mode, heads=heads)
        for heads in ("all heads", "within layers")
    )
    table = run.tables["importance_and_focus"]
    p_value = table[(table["mode"] == mode) & (table["heads"] == "all heads")]["p_value"].iloc[0]
    images = min(run.semantics_images, int(run.swept(mode)["images"].iloc[0]))
    return Row(
        id="C6",
        claim="The more a head looks at the chirp, the more the task needs it.",
        study="implied, no figure",
        ours=f"rank correlation {overall:.2f} over all heads",
        sample=f"{len(run.tables['classes'])} heads, {images} images, {mode} ablation",
        control=f"within layers, where depth cannot make it: {within:.2f}; heads shuffled at random: p = {p_value:.3f}"
        f"; over all heads by the other modes, which the rule does not ask: {other_modes(table, mode)}",
        would_change="A correlation within layers whose interval excludes zero; more heads or a second model.",
        chapter=CHAPTER,
        figure="fig-importance",
        images=images,
        **numbers(overall, "rank correlation"),
        **vars(importance_grows_with_focus(overall, within, images, mode)),
    )


def _are(count: Count) -> str:
    return word(count.value, "is", "are")


def _counted(run: JudgedRun, count: Callable[[pd.DataFrame], Count]) -> tuple[Count, str]:
    """Count heads of a kind in this model, and say how many random and pre-trained weights give."""
    control = (
        f"random weights: {count(run.tables['untrained_classes'])}; "
        f"before fine-tuning: {count(run.tables['pretrained_classes'])}"
    )
    return _over_thresholds(run, count) or count(run.tables["classes"]), control


def _over_thresholds(run: JudgedRun, count: Callable[[pd.DataFrame], Count]) -> Count | None:
    """What chapter 05 counted over all thresholds; None where it did not, or for another count."""
    table, claim = run.tables["claims_c3_c6"], COUNTED.get(count)
    if claim is None or "high" not in table:
        return None
    row = table[table["claim"] == claim].iloc[0]
    return Count(*(int(row[name]) for name in ("value", "low", "high", "total")))
