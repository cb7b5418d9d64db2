"""The rule on the study's second open question: does the specialization hold on real spectrograms (Q2)?

Written before any figure of chapter 11 was seen. It uses the limits of `LIMITS`, and one of its own.
"""

from collections.abc import Mapping

import pandas as pd

from vitmech_utils.arguments import checked_arguments
from vitmech_utils.figures.tables import counted, word
from vitmech_utils.statistics import Interval
from vitmech_utils.studies.coverage import COVERED, least_images
from vitmech_utils.studies.recordings.boxed import shared_order
from vitmech_utils.studies.recordings.measure import heads_kept
from vitmech_utils.studies.rows import Row, numbers, open_row
from vitmech_utils.studies.tables import BOUNDS, JudgedRun
from vitmech_utils.studies.verdicts import (
    FAILS,
    HALF,
    HOLDS,
    IN_PART,
    MOST,
    ON_CHIRP,
    Count,
    Judgement,
    undecided,
)

CHAPTER = "11_real_spectrograms"
OPTIONAL = {"real_orders": ("compared", "share", "share_low", "share_high", "images")}
TABLES = {
    "claim_q2": ("kind", "kept", *BOUNDS, "heads", "pieces", "windows", "recordings"),
    "controls": ("pair", "asked", "lift", *BOUNDS),
}
REAL = "Does the specialization hold on real spectrograms?"

ENOUGH_RECORDINGS = 3
LIMITS = {
    "enough recordings": (
        ENOUGH_RECORDINGS,
        "pieces of one recording share its microphone, its place and its source: with fewer recordings, what one of "
        "them happens to be like could be all that is seen",
    ),
}


@checked_arguments()
def chirp_heads_kept(synthetic: pd.DataFrame, real: pd.DataFrame) -> Count:
    """Count, of the heads that are about the chirp for sure on synthetic images, those that are on real ones too.

    Both are tables of `classify`, as `measure.heads_kept` takes them. Raises `ValueError` where they name other heads.
    """
    return Count(*heads_kept(synthetic, real))


@checked_arguments()
def specialization_holds_on_real_ones(
    kept: Mapping[str, Count], pieces: Mapping[str, int], recordings: int, order: Interval | None = None
) -> Judgement:
    """Q2. Holds if *most* of the heads that are for sure about the chirp on synthetic images are for sure about it on
    every kind of real spectrogram too, and if *most* of the order of the heads that matter is that of a model that was
    fine-tuned on real chirps (beyond what few images blur in each). Holds in part if more than *half* of the heads
    are on at least one kind. Does not hold if on every kind even those that may be make up no more than *half*.
    Otherwise it is undecided; so it is from too few pieces of recording of a kind, counted without
    overlap, for intervals to hold the truth (*covered*), or from fewer than three recordings in all.

    A head is about the chirp where its class says so; on spectrograms with boxes drawn by hand (seizures), where its
    lift on them is above one and above that on boxes of other recordings. Pieces of seizures are whole recordings.
    `order` is the shared part of the order, None where it was not measured.
    """
    if not kept or kept.keys() != pieces.keys():
        raise ValueError(f"kept names {sorted(kept)}, pieces {sorted(pieces)}, expected the same kinds")
    enough = least_images(ON_CHIRP, COVERED)
    few = {kind: count for kind, count in pieces.items() if enough is None or count < enough}
    if few:
        named = ", ".join(f"{counted(count, 'piece')} of {kind}" for kind, count in few.items())
        verb = word(sum(few.values()) if len(few) == 1 else len(few), "is", "are")
        return undecided(f"{named} {verb} too few; at least {enough} that do not overlap are needed")
    if recordings < ENOUGH_RECORDINGS:
        found = f"{counted(recordings, 'recording')} {word(recordings, 'is', 'are')}"
        return undecided(f"{found} too few; at least {ENOUGH_RECORDINGS} are needed")
    without = [kind for kind, heads in kept.items() if not heads.total]
    if without:
        return undecided(
            f"no head is for sure about the chirp on the synthetic images matched to {without[0]}", "heads"
        )
    least = {kind: heads.low / heads.total for kind, heads in kept.items()}
    largest = {kind: heads.high / heads.total for kind, heads in kept.items()}
    told = "; ".join(
        f"{kind}: for sure {least[kind]:.0%}, at most {largest[kind]:.0%} of the chirp heads keep to it"
        for kind in kept
    )
    if order is not None:
        told += f"; of the order of the heads that matter, {order:.0%} is shared"
    if min(least.values()) >= MOST and order is not None and order.low >= MOST:
        return Judgement(HOLDS, told)
    if max(least.values()) > HALF:
        return Judgement(IN_PART, f"{told}. {_lacking(least, order)}")
    if max(largest.values()) <= HALF:
        return Judgement(FAILS, told)
    return undecided(told)


def _lacking(least: Mapping[str, float], order: Interval | None) -> str:
    """What a claim that holds in part lacks to hold."""
    few = [kind for kind, share in least.items() if share < MOST]
    parts = [f"the share for sure is below {MOST:.0%} for {', '.join(few)}"] if few else []
    if order is None:
        parts.append("the order of heads was not measured")
    elif not order.low >= MOST:  # also where it is unknown
        parts.append(f"the shared order does not clearly reach {MOST:.0%}")
    return f"It does not hold as a whole: {' and '.join(parts)}"


RULES = {"Q2": specialization_holds_on_real_ones}


@checked_arguments()
def rows(run: JudgedRun) -> dict[str, Row]:
    """The scoreboard's rows of this chapter; open where the run lacks it."""
    return {"Q2": _q2(run) if run.has(CHAPTER) else open_row("Q2", REAL)}


def _q2(run: JudgedRun) -> Row:
    """Whether chirp heads keep to the chirp in real spectrograms, judged by chapter 11's table."""
    table = run.tables["claim_q2"]
    kept = {
        row.kind: Count(int(row.kept), int(row.low), int(row.high), int(row.heads))
        for row in table.itertuples()
    }
    pieces = {row.kind: int(row.pieces) for row in table.itertuples()}
    recordings = int(table["recordings"].iloc[0])
    order = _order(run)
    controls = [
        f"{row.pair}, {row.asked}: {row.lift:.2f} [{row.low:.2f}, {row.high:.2f}]"
        for row in run.tables["controls"].itertuples()
    ]
    least = min(kept.values(), key=lambda count: count.value / max(count.total, 1))
    return Row(
        id="Q2",
        claim=REAL,
        study="left open",
        ours="; ".join(
            f"{kind}: {count} chirp heads {word(count.value, 'is', 'are')} about the chirp there, too"
            for kind, count in kept.items()
        )
        + ("" if order is None else f"; the heads that matter have {order:.0%} of their order in common"),
        sample=f"{recordings} recordings; "
        + ", ".join(
            f"{row.kind}: {row.windows} windows, {row.pieces} without overlap" for row in table.itertuples()
        ),
        control=f"lift of the same heads on the chirp's place: {'; '.join(controls)}",
        would_change="More recordings, from more places and more events, and chirps whose tracks are known exactly.",
        chapter=CHAPTER,
        figure="fig-real-lifts",
        images=int(table["windows"].min()),
        **numbers(least, "heads"),
        **vars(specialization_holds_on_real_ones(kept, pieces, recordings, order)),
    )


def _order(run: JudgedRun) -> Interval | None:
    """The share of the heads' order that fine-tuning on real chirps keeps; None in runs without that table."""
    return shared_order(run.tables["real_orders"]) if "real_orders" in run.tables else None
