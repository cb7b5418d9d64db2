"""Rules on where heads come from: what fine-tuning makes, what it finds, and what needs no decorations (C7, Q3, Q4).

Written before any figure of chapter 07 was seen. They use the limits of `LIMITS`.
"""

import pandas as pd

from vitmech_utils.arguments import checked_arguments
from vitmech_utils.figures.tables import word
from vitmech_utils.runs.manifests import RunError
from vitmech_utils.studies.rows import Row, numbers, open_row
from vitmech_utils.studies.tables import JudgedRun, how_to_rerun
from vitmech_utils.studies.verdicts import (
    FAILS,
    FIRST_FOUR,
    HALF,
    HOLDS,
    IN_PART,
    MOST,
    ON_CHIRP,
    TEXT_OR_EDGE,
    Count,
    Judgement,
    over_thresholds,
    text_or_edge_detectors,
    too_few,
    too_few_heads,
    undecided,
    undecided_over_thresholds,
)

CHAPTER = "07_inherited_or_emergent"
TABLES = {
    "transitions": (
        *("before", "after", "layer", "class_before", "class_after", "regions_before", "regions_after"),
        *("subject_before", "subject_after", "sure"),
    ),
    "recipe": ("what", "fine-tuned", "bare"),
    "by_chance": ("subject_before", "subject_after", "sure"),
}
OPTIONAL = {"made_over_thresholds": ("value", "low", "high", "total")}
_SPECIALIZATION = "Fine-tuning drives the specialization."
_INHERITED = (
    "Are the text and edge detectors inherited from pre-training? (If not, they emerge in fine-tuning.)"
)
KEPT, KEPT_IN_PART, NEW = "kept", "kept in part", "new"
_UNDECORATED = "Do they also exist where a ViT was fine-tuned on spectrograms without decoration?"


@checked_arguments()
def made_by_fine_tuning(moves: pd.DataFrame) -> Count:
    """Count, of the heads that are about something after fine-tuning, those that were about none of it before.

    `moves` is a table of `measure.transitions` from the pre-trained to the fine-tuned network. A head that keeps some
    of its regions, or drops one, counts as kept in part (`kept_or_new`), not as new.
    """
    about = moves[moves["subject_after"] != "nothing"]
    return _among(kept_or_new(about) == NEW, about["sure"])


@checked_arguments()
def made_over_thresholds(moves: pd.DataFrame) -> Count:
    """`made_by_fine_tuning` with bounds over all thresholds; `moves` are those of `measure.moves_over_thresholds`."""
    return over_thresholds(moves, made_by_fine_tuning)


@checked_arguments()
def kept_or_new(moves: pd.DataFrame) -> pd.Series:
    """What became of each head that is about something: `new` regions alone, some `kept in part`, or all `kept`."""

    def fate(before: str, after: str) -> str:
        was, is_now = (set(regions.split(" + ")) - {""} for regions in (before, after))
        return KEPT if was == is_now else KEPT_IN_PART if was & is_now else NEW

    named = [fate(*pair) for pair in zip(moves["regions_before"], moves["regions_after"], strict=True)]
    return pd.Series(named, index=moves.index, dtype=object)


@checked_arguments()
def detectors_shared(moves: pd.DataFrame) -> Count:
    """Count, of the text and edge detectors in layers 1-4 of the network *after*, those that *before* has too.

    `moves` is a table of `heads.origin.transitions`; a detector is shared if the same head is one in both networks.
    """
    early = moves[moves["layer"].between(*FIRST_FOUR)]
    after = early[_detects(early, "after")]
    return _among(_detects(after, "before"), after["sure"])


@checked_arguments()
def fine_tuning_drives(made: Count, images: int, usual: Count | None = None) -> Judgement:
    """C7. Holds if *most* heads that are about something after fine-tuning were for sure about none of it before, in
    part if more than *half* were. Does not hold if even those that may have been make up no more than *half*. Otherwise
    it is undecided. A head that keeps some of its regions, or drops one, was about it before. *For sure* means over all
    thresholds that one may well put between the classes, *may* by any of them.

    `usual` is the count by the usual thresholds alone: it tells whether images are wanting or thresholds disagree.
    """
    return _judged(
        made,
        images,
        "no head is about anything after fine-tuning",
        "of the heads that are about something after fine-tuning, {share} were about none of it before",
        None if usual is None else fine_tuning_drives(usual, images),
    )


@checked_arguments()
def detectors_are_inherited(shared: Count, images: int) -> Judgement:
    """Q3. Inherited (holds) if *most* text and edge detectors of layers 1-4 were for sure such detectors before
    fine-tuning, in part if more than *half* were. They emerge (does not hold) if even those that may have been make up
    no more than *half*. Otherwise it is undecided.
    """
    return _judged(
        shared,
        images,
        "after fine-tuning no head of layers 1-4 is a text or edge detector",
        "of the text and edge detectors, {share} were detectors before fine-tuning",
    )


@checked_arguments()
def detectors_need_no_decorations(shared: Count, images: int, matched: bool) -> Judgement:
    """Q4. Holds if *most* text and edge detectors of layers 1-4 are for sure such detectors in the network that was
    fine-tuned on bare figures too, in part if more than *half* are. Does not hold if even those that may be make up no
    more than *half*. Otherwise, or if the two trainings differ in more than their figures, it is undecided.
    """
    if not matched:
        return undecided("the two trainings differ in more than their figures", "trainings")
    return _judged(
        shared,
        images,
        "the network fine-tuned on decorated figures has no text or edge detector in layers 1-4",
        "of the text and edge detectors, {share} are detectors in the network that saw bare figures alone",
    )


RULES = {
    "C7": fine_tuning_drives,
    "Q3": detectors_are_inherited,
    "Q4": detectors_need_no_decorations,
}


@checked_arguments()
def judged(
    made: Count, inherited: pd.DataFrame, undecorated: pd.DataFrame, images: int, matched: bool
) -> dict[str, Judgement]:
    """Claim and questions by one training.

    `made` are its heads that fine-tuning made; the tables are of `measure.transitions` to it, from before fine-tuning
    and from the network that saw bare figures, trained like it or not (`matched`).
    """
    return {
        "C7": fine_tuning_drives(made, images, made_by_fine_tuning(inherited)),
        "Q3": detectors_are_inherited(detectors_shared(inherited), images),
        "Q4": detectors_need_no_decorations(detectors_shared(undecorated), images, matched),
    }


def _judged(
    heads: Count, images: int, nothing: str, sentence: str, usual: Judgement | None = None
) -> Judgement:
    if judgement := too_few(images, ON_CHIRP):
        return judgement
    if not heads.total:
        return undecided(nothing, "heads")
    if judgement := too_few_heads(heads.total, "head"):
        return judgement
    least, largest = heads.low / heads.total, heads.high / heads.total
    if least >= MOST:
        return Judgement(HOLDS, sentence.format(share=f"at least {least:.0%}"))
    if least > HALF:
        return Judgement(IN_PART, sentence.format(share=f"for sure {least:.0%}, fewer than {MOST:.0%},"))
    if largest <= HALF:
        return Judgement(FAILS, sentence.format(share=f"at most {largest:.0%}"))
    return undecided_over_thresholds(sentence.format(share=f"between {least:.0%} and {largest:.0%}"), usual)


def _among(wanted: pd.Series, sure: pd.Series) -> Count:
    return Count(int(wanted.sum()), int((wanted & sure).sum()), int((wanted | ~sure).sum()), len(wanted))


def _detects(moves: pd.DataFrame, when: str) -> pd.Series:
    about = moves[f"regions_{when}"].str.contains(TEXT_OR_EDGE, regex=True)
    return (moves[f"class_{when}"] == "monosemantic") & about


@checked_arguments()
def rows(run: JudgedRun) -> dict[str, Row]:
    """The scoreboard's rows of this chapter; open where the run lacks it."""
    if not run.has(CHAPTER):
        return _first_look(run)
    return {"C7": _c7(run), "Q3": _q3(run), "Q4": _q4(run)}


def _c7(run: JudgedRun) -> Row:
    moves = _moves(run, "pre-trained", "fine-tuned")
    made = made_by_fine_tuning(moves)
    if "made_over_thresholds" in run.tables:
        row = run.tables["made_over_thresholds"].iloc[0]
        made = Count(*(int(row[name]) for name in ("value", "low", "high", "total")))
    became = kept_or_new(moves[moves["subject_after"] != "nothing"])
    rest = ", ".join(f"{int((became == fate).sum())} {fate}" for fate in (KEPT, KEPT_IN_PART))
    return _origin_row(
        run,
        made,
        fine_tuning_drives(made, _images(run), made_by_fine_tuning(moves)),
        id="C7",
        claim=_SPECIALIZATION,
        study="not tested",
        ours=f"{made} heads that are about something {word(made.value, 'was', 'were')} about none of it before; their "
        f"regions were {rest}",
        would_change=f"Other heads than these, or surer ones: more than {HALF:.0%} of them for part of the "
        f"claim, {MOST:.0%} for all of it.",
        figure="fig-fates",
    )


def _q3(run: JudgedRun) -> Row:
    shared = detectors_shared(_moves(run, "pre-trained", "fine-tuned"))
    return _origin_row(
        run,
        shared,
        detectors_are_inherited(shared, _images(run)),
        id="Q3",
        claim=_INHERITED,
        study="left open",
        ours=f"{shared} detectors of layers 1-4 {word(shared.value, 'was one', 'were detectors')} before fine-tuning",
        would_change="More images, so that the classes of the detectors are sure.",
        figure="fig-four-networks",
    )


def _q4(run: JudgedRun) -> Row:
    shared = detectors_shared(_moves(run, "bare", "fine-tuned"))
    recipe = run.tables["recipe"]
    matched = bool((recipe["fine-tuned"] == recipe["bare"]).all())
    return _origin_row(
        run,
        shared,
        detectors_need_no_decorations(shared, _images(run), matched),
        id="Q4",
        claim=_UNDECORATED,
        study="left open",
        ours=f"{shared} detectors of layers 1-4 {word(shared.value, 'is one', 'are detectors')} in the network that "
        "saw bare figures alone",
        would_change="Two trainings that differ in their figures alone; more images, so that the classes of the "
        "detectors are sure; more seeds.",
        figure="fig-four-networks",
    )


def _origin_row(run: JudgedRun, found: Count, judgement: Judgement, **texts: str) -> Row:
    """A row that chapter 07 judges: what its rows share, and the texts of this one."""
    return Row(
        **texts,
        sample=f"{_images(run)} images",
        control=_by_chance(run),
        chapter=CHAPTER,
        images=_images(run),
        **numbers(found, "heads"),
        **vars(judgement),
    )


def _moves(run: JudgedRun, before: str, after: str) -> pd.DataFrame:
    table = run.tables["transitions"]
    found = table[(table["before"] == before) & (table["after"] == after)]
    if found.empty:
        raise RunError(
            f"{run.folder / CHAPTER}/transitions.parquet: no heads from {before} to {after}; "
            f"{how_to_rerun(CHAPTER, run.folder)}"
        )
    return found


def _by_chance(run: JudgedRun) -> str:
    table = run.tables["by_chance"]
    other = table["subject_before"] != table["subject_after"]
    heads = f"{int(other.sum())} of {len(table)} heads {word(int(other.sum()), 'is', 'are')}"
    return (
        f"the pre-trained network on other images: {heads} about something else, "
        f"{int((other & table['sure']).sum())} of them for sure"
    )


def _images(run: JudgedRun) -> int:
    return run.images("origin", CHAPTER)


def _first_look(run: JudgedRun) -> dict[str, Row]:
    """What chapter 05 shows of these questions where chapter 07 has not run."""
    changes = run.tables["class_changes"]
    before, after = (
        int(changes[f"regions_{when}"].str.contains("chirp").sum()) for when in ("before", "after")
    )
    kept = int((~changes["changed"]).sum())
    look = (
        f"{kept} of {len(changes)} heads {word(kept, 'keeps', 'keep')} class and regions; {before} "
        f"{word(before, 'looks', 'look')} at the chirp before fine-tuning, {after} after it"
    )
    found = [text_or_edge_detectors(run.tables[name]) for name in ("pretrained_classes", "classes")]
    detectors = (
        f"in layers 1-4, {found[0]} heads {word(found[0].value, 'is such a detector', 'are such detectors')} before "
        f"fine-tuning, {found[1]} after it"
    )
    here = run.chapter_of("classes"), "fig-inherited"
    return {
        "C7": open_row("C7", _SPECIALIZATION, look, "not tested", *here),
        "Q3": open_row("Q3", _INHERITED, detectors, "left open", *here),
        "Q4": open_row("Q4", _UNDECORATED),
    }
