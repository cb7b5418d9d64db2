"""Rules on where heads come from: what fine-tuning makes, what it finds, and what needs no decorations (C7, Q3, Q4).

Written before any figure of chapter 07 was seen. They use the limits of `verdicts.LIMITS`.
"""

import pandas as pd

from vitmech_utils.studies.verdicts import (
    FAILS,
    FIRST_FOUR,
    HALF,
    HOLDS,
    IN_PART,
    MOST,
    TEXT_OR_EDGE,
    UNKNOWN,
    Count,
    Judgement,
    too_few,
)


def made_by_fine_tuning(moves: pd.DataFrame) -> Count:
    """Count, of the heads that are about something after fine-tuning, those that were not about it before.

    `moves` is a table of `heads.origin.transitions` from the pre-trained to the fine-tuned network.
    """
    about = moves[moves["subject_after"] != "nothing"]
    return _among(about["subject_before"] != about["subject_after"], about["sure"])


def detectors_shared(moves: pd.DataFrame) -> Count:
    """Count, of the text and edge detectors in layers 1-4 of the network *after*, those that *before* has too.

    `moves` is a table of `heads.origin.transitions`; a detector is shared if the same head is one in both networks.
    """
    early = moves[moves["layer"].between(*FIRST_FOUR)]
    after = early[_detects(early, "after")]
    return _among(_detects(after, "before"), after["sure"])


def fine_tuning_drives(made: Count, images: int) -> Judgement:
    """C7. Holds if *most* heads that are about something after fine-tuning were for sure not about it before, in part
    if more than *half* were not. Does not hold if even those that may not have been make up no more than *half*.
    Otherwise it cannot be told.
    """
    return _judged(
        made,
        images,
        "no head is about anything after fine-tuning",
        "of the heads that are about something after fine-tuning, {share} were not about it before",
    )


def detectors_are_inherited(shared: Count, images: int) -> Judgement:
    """Q3. Inherited (holds) if *most* text and edge detectors of layers 1-4 were for sure such detectors before
    fine-tuning, in part if more than *half* were. They emerge (does not hold) if even those that may have been make up
    no more than *half*. Otherwise it cannot be told.
    """
    return _judged(
        shared,
        images,
        "after fine-tuning no head of layers 1-4 is a text or edge detector",
        "of the text and edge detectors, {share} were detectors before fine-tuning",
    )


def detectors_need_no_decorations(shared: Count, images: int, matched: bool) -> Judgement:
    """Q4. Holds if *most* text and edge detectors of layers 1-4 are for sure such detectors in the network that was
    fine-tuned on bare figures too, in part if more than *half* are. Does not hold if even those that may be make up no
    more than *half*. Otherwise, or if the two trainings differ in more than their figures, it cannot be told.
    """
    if not matched:
        return Judgement(UNKNOWN, "the two trainings differ in more than their figures")
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


def _judged(heads: Count, images: int, nothing: str, sentence: str) -> Judgement:
    if judgement := too_few(images):
        return judgement
    if not heads.total:
        return Judgement(UNKNOWN, nothing)
    least, largest = heads.low / heads.total, heads.high / heads.total
    if least >= MOST:
        return Judgement(HOLDS, sentence.format(share=f"at least {least:.0%}"))
    if least > HALF:
        return Judgement(IN_PART, sentence.format(share=f"for sure {least:.0%}, fewer than {MOST:.0%},"))
    if largest <= HALF:
        return Judgement(FAILS, sentence.format(share=f"at most {largest:.0%}"))
    return Judgement(UNKNOWN, sentence.format(share=f"between {least:.0%} and {largest:.0%}"))


def _among(wanted: pd.Series, sure: pd.Series) -> Count:
    return Count(int(wanted.sum()), int((wanted & sure).sum()), int((wanted | ~sure).sum()), len(wanted))


def _detects(moves: pd.DataFrame, when: str) -> pd.Series:
    about = moves[f"regions_{when}"].str.contains(TEXT_OR_EDGE, regex=True)
    return (moves[f"class_{when}"] == "monosemantic") & about
