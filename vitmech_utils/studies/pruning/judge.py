"""The verdict on the study's first open question: can the heads of layers 1-3 go for good?

A pure function of measured values, like the rules in `verdicts`, and with their limits.
"""

from collections.abc import Sequence

import pandas as pd

from vitmech_utils.arguments import checked_arguments
from vitmech_utils.statistics import Interval
from vitmech_utils.studies.rows import Row, numbers, open_row
from vitmech_utils.studies.tables import BOUNDS, JudgedRun
from vitmech_utils.studies.verdicts import (
    EFFECT,
    FAILS,
    HARDLY,
    HOLDS,
    IN_PART,
    UNKNOWN,
    Judgement,
    too_few,
    undecided,
)

CHAPTER = "08_can_early_heads_go"
_EFFECTS = tuple(f"{key}{kind}" for kind in ("", "_same_training") for key in ("effect", *BOUNDS))
TABLES = {
    "pruned": ("name", "choice", "heads", "recovered", "images", *_EFFECTS),
    "random_sets": ("effect",),
    "timings_summary": ("model", "device", "batch", "compiled", "speedup", "speedup_low", "speedup_high"),
}
_GONE = "Can the heads of layers 1-3 be pruned for good, accuracy kept and inference faster?"


@checked_arguments()
def early_heads_can_go(
    error: Interval, recovered: Interval, speedups: Sequence[Interval], images: int
) -> Judgement:
    """Q1. Holds if without the heads of layers 1-3 the error clearly grows by less than *hardly* (the limit below
    which nobody would notice), with no further training, and the model is clearly faster at every batch size. Holds
    in part if the error does so only after recovery (the longest at hand), against the whole model given the same
    training, or if the model is faster at some batch sizes alone. Does not hold if the error clearly grows by more
    than *hardly* also after recovery, or if the model is faster at no batch size. Otherwise it is undecided.
    """
    if judgement := too_few(images, EFFECT):
        return judgement
    if not speedups:
        return Judgement(UNKNOWN, "no times were taken")
    kept, kept_after = error.high < HARDLY, recovered.high < HARDLY
    faster = sum(speedup.low > 1 for speedup in speedups)
    if all(speedup.high <= 1 for speedup in speedups):
        return Judgement(FAILS, "the model without these heads is faster at no batch size")
    if error.low > HARDLY and recovered.low > HARDLY:
        return Judgement(
            FAILS,
            f"the error grows by more than {HARDLY:g} %, also after the longest recovery that was tried",
        )
    where = (
        "at every batch size" if faster == len(speedups) else f"at {faster} of {len(speedups)} batch sizes"
    )
    if (kept or kept_after) and faster:
        accuracy = f"the error grows by less than {HARDLY:g} %{'' if kept else ', but only after recovery'}"
        whole = kept and faster == len(speedups)
        return Judgement(HOLDS if whole else IN_PART, f"{accuracy}; the model is clearly faster {where}")
    if kept or kept_after:
        return undecided("accuracy is kept, but the intervals of the speed-up reach across one")
    return undecided(f"the intervals of the error reach across {HARDLY:g} %")


RULES = {"Q1": early_heads_can_go}
OPTIONAL = {"long_recovery": ("name", "images", *_EFFECTS), "random_effects": ("effect",)}


@checked_arguments()
def rows(run: JudgedRun) -> dict[str, Row]:
    """The scoreboard's rows of this chapter; open where the run lacks it."""
    return {"Q1": _q1(run) if run.has(CHAPTER) else open_row("Q1", _GONE)}


def _q1(run: JudgedRun) -> Row:
    plain, after = run.early_pruned(recovered=False), run.early_pruned(recovered=True)
    error, recovered = _interval(plain), _interval(after, "_same_training")
    long, after_images = run.tables.get("long_recovery"), ""
    if long is not None and len(long):
        recovered = _interval(long.iloc[0], "_same_training")
        after_images = f"; the longer recovery on {int(long['images'].iloc[0]):,} images"
    times = run.tables["timings_summary"]
    own = times[
        (times["model"] == plain["name"]) & ~times["compiled"] & (times["device"] == times["device"].iloc[-1])
    ]
    speedups = {
        int(row["batch"]): Interval(*(float(row[f"speedup{end}"]) for end in ("", "_low", "_high")))
        for _, row in own.iterrows()
    }
    drawn = run.tables.get("random_effects", run.tables["random_sets"])["effect"]
    images = int(plain["images"])
    return Row(
        id="Q1",
        claim=_GONE,
        study="left open",
        ours=f"error {error:+.0f} %, after recovery {recovered:+.1f} %; "
        + ", ".join(f"{factor} times as fast at batch size {batch}" for batch, factor in speedups.items()),
        sample=f"{images} images, {int(plain['heads'])} heads removed{after_images}",
        control=f"as many heads at random, {len(drawn)} draws: {drawn.min():+.0f} to {drawn.max():+.0f} %, "
        f"{int((drawn <= plain['effect']).sum())} of them no more than these (rank test: p = "
        f"{(1 + (drawn <= plain['effect']).sum()) / (1 + len(drawn)):.2f}); "
        "the recovered model is held against the whole one given the same training",
        would_change="A longer recovery that brings the error back; hardware on which attention takes more time.",
        chapter=CHAPTER,
        figure="fig-pareto",
        images=images,
        **numbers(error, "%"),
        **vars(early_heads_can_go(error, recovered, list(speedups.values()), images)),
    )


def _interval(row: pd.Series, kind: str = "") -> Interval:
    return Interval(*(float(row[f"{key}{kind}"]) for key in ("effect", "low", "high")))
