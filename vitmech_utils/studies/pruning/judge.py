"""The verdict on the study's first open question: can the heads of layers 1-3 go for good?

A pure function of measured values, like the rules in `verdicts`, and with their limits.
"""

from collections.abc import Sequence

from vitmech_utils.statistics import Interval
from vitmech_utils.studies.verdicts import FAILS, HARDLY, HOLDS, IN_PART, UNKNOWN, Judgement, too_few


def early_heads_can_go(
    error: Interval, recovered: Interval, speedups: Sequence[Interval], images: int
) -> Judgement:
    """Q1. Holds if without the heads of layers 1-3 the error clearly grows by less than *hardly*, with no further
    training, and the model is clearly faster at every batch size. Holds in part if the error does so only after
    recovery, against the whole model given the same training, or if the model is faster at some batch sizes alone.
    Does not hold if the error clearly grows by more than *hardly* even after recovery, or if the model is faster at no
    batch size. Otherwise it cannot be told.
    """
    if judgement := too_few(images):
        return judgement
    if not speedups:
        return Judgement(UNKNOWN, "no times were taken")
    kept, kept_after = error.high < HARDLY, recovered.high < HARDLY
    faster = sum(speedup.low > 1 for speedup in speedups)
    if all(speedup.high <= 1 for speedup in speedups):
        return Judgement(FAILS, "the model without these heads is faster at no batch size")
    if error.low > HARDLY and recovered.low > HARDLY:
        return Judgement(FAILS, f"the error grows by more than {HARDLY:g} %, even after recovery")
    where = (
        "at every batch size" if faster == len(speedups) else f"at {faster} of {len(speedups)} batch sizes"
    )
    if (kept or kept_after) and faster:
        accuracy = f"the error grows by less than {HARDLY:g} %{'' if kept else ', but only after recovery'}"
        whole = kept and faster == len(speedups)
        return Judgement(HOLDS if whole else IN_PART, f"{accuracy}; the model is clearly faster {where}")
    if kept or kept_after:
        return Judgement(UNKNOWN, "accuracy is kept, but the intervals of the speed-up reach across one")
    return Judgement(UNKNOWN, f"the intervals of the error reach across {HARDLY:g} %")


RULES = {"Q1": early_heads_can_go}
