"""The rule on heads taken together: every outcome, on made-up values."""

import math

import pytest

from vitmech_utils.statistics import Interval
from vitmech_utils.studies.together.judge import ALIKE, single_ablations_miss
from vitmech_utils.studies.verdicts import FAILS, HOLDS, IN_PART, UNKNOWN

OTHER, SAME, WIDE = Interval(0.5, 0.3, 0.7), Interval(0.97, 0.93, 0.99), Interval(0.88, 0.7, 0.95)


@pytest.mark.parametrize(
    ("differing", "ranks", "verdict", "reason"),
    [
        (7, OTHER, HOLDS, "in 7 of 12 layers"),
        (12, OTHER, HOLDS, "clearly another one"),
        (6, OTHER, IN_PART, "in 6 of 12 layers"),  # half is not more than half
        (0, OTHER, IN_PART, "in 0 of 12 layers"),
        (12, SAME, IN_PART, "not clearly another one"),
        (12, WIDE, IN_PART, "not clearly another one"),
        (0, SAME, FAILS, "clearly alike"),
        (0, WIDE, UNKNOWN, "not clearly another one"),
        (3, SAME, UNKNOWN, "in 3 of 12 layers"),
        (3, WIDE, UNKNOWN, "in 3 of 12 layers"),
        (7, None, IN_PART, "no order by Shapley value was measured"),
        (0, None, UNKNOWN, "no order by Shapley value was measured"),
    ],
)
def test_every_outcome(differing, ranks, verdict, reason) -> None:
    found = single_ablations_miss(differing, 12, ranks, images=5000)
    assert found.verdict == verdict
    assert reason in found.reason


def test_few_images_decide_nothing() -> None:
    assert single_ablations_miss(12, 12, OTHER, images=3).verdict == UNKNOWN
    assert single_ablations_miss(12, 12, OTHER, images=5000).verdict == HOLDS


def test_what_could_not_be_measured_proves_nothing() -> None:
    nothing = Interval(math.nan, math.nan, math.nan)
    assert single_ablations_miss(0, 12, nothing, images=5000).verdict == UNKNOWN
    assert single_ablations_miss(0, 12, Interval(ALIKE, ALIKE, ALIKE), images=5000).verdict == UNKNOWN
