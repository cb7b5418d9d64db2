"""The rule on heads removed for good: every outcome, on made-up values, and the order in which it looks."""

import math

import pytest

from vitmech_utils.statistics import Interval
from vitmech_utils.studies.pruning.judge import early_heads_can_go
from vitmech_utils.studies.verdicts import FAILS, HARDLY, HOLDS, IN_PART, UNKNOWN

KEPT, LOST, WIDE = Interval(0.1, -0.5, 0.7), Interval(9.0, 4.0, 15.0), Interval(2.0, -1.0, 6.0)
FASTER, SLOWER, LEVEL = Interval(1.1, 1.05, 1.2), Interval(0.9, 0.8, 0.99), Interval(1.0, 0.9, 1.1)


@pytest.mark.parametrize(
    ("error", "recovered", "speedups", "verdict", "reason"),
    [
        (
            KEPT,
            KEPT,
            [FASTER, FASTER],
            HOLDS,
            "less than 1 %; the model is clearly faster at every batch size",
        ),
        (
            KEPT,
            LOST,
            [FASTER, FASTER],
            HOLDS,
            "less than 1 %; the model is clearly faster",
        ),  # recovery not needed
        (Interval(-3.0, -5.0, -1.5), KEPT, [FASTER], HOLDS, "less than 1 %"),  # a smaller error is no loss
        (LOST, KEPT, [FASTER, FASTER], IN_PART, "only after recovery; the model is clearly faster at every"),
        (WIDE, KEPT, [FASTER, LEVEL], IN_PART, "only after recovery; the model is clearly faster at 1 of 2"),
        (KEPT, KEPT, [FASTER, SLOWER], IN_PART, "faster at 1 of 2 batch sizes"),
        (LOST, LOST, [FASTER, FASTER], FAILS, "also after the longest recovery"),
        (KEPT, KEPT, [SLOWER, SLOWER], FAILS, "faster at no batch size"),
        (WIDE, WIDE, [SLOWER, SLOWER], FAILS, "faster at no batch size"),
        (KEPT, KEPT, [LEVEL, LEVEL], UNKNOWN, "reach across one"),
        (LOST, KEPT, [LEVEL, SLOWER], UNKNOWN, "reach across one"),
        (LOST, WIDE, [FASTER, FASTER], UNKNOWN, "reach across 1 %"),
        (WIDE, LOST, [FASTER, FASTER], UNKNOWN, "reach across 1 %"),  # it may be kept without recovery
        (KEPT, KEPT, [], UNKNOWN, "no times were taken"),
    ],
)
def test_every_outcome(error, recovered, speedups, verdict, reason) -> None:
    found = early_heads_can_go(error, recovered, speedups, images=5000)
    assert found.verdict == verdict
    assert reason in found.reason


def test_few_images_decide_nothing() -> None:
    found = early_heads_can_go(KEPT, KEPT, [FASTER], images=3)
    assert found.verdict == UNKNOWN
    assert "3 images are too few" in found.reason
    assert early_heads_can_go(KEPT, KEPT, [FASTER], images=5000).verdict == HOLDS


def test_what_could_not_be_measured_proves_nothing() -> None:
    nothing = Interval(math.nan, math.nan, math.nan)
    assert early_heads_can_go(nothing, nothing, [FASTER], images=5000).verdict == UNKNOWN
    assert early_heads_can_go(KEPT, KEPT, [nothing], images=5000).verdict == UNKNOWN


@pytest.mark.parametrize("bound", [HARDLY, 1.0])
def test_a_bound_that_touches_the_limit_is_not_clear(bound) -> None:
    touching = Interval(0.5, 0.1, bound)
    assert early_heads_can_go(touching, touching, [FASTER], images=5000).verdict == UNKNOWN
    assert early_heads_can_go(KEPT, KEPT, [Interval(1.1, bound, 1.2)], images=5000).verdict == UNKNOWN
