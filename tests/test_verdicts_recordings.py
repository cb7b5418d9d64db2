"""The rule on Q2: every outcome from made-up counts, and what is counted for it."""

import numpy as np
import pandas as pd
import pytest

from vitmech_utils.statistics import Interval
from vitmech_utils.studies.recordings import judge as verdicts_recordings
from vitmech_utils.studies.recordings.judge import (
    ENOUGH_RECORDINGS,
    chirp_heads_kept,
    specialization_holds_on_real_ones,
)
from vitmech_utils.studies.recordings.measure import about_chirp
from vitmech_utils.studies.verdicts import FAILS, HOLDS, IN_PART, UNKNOWN, Count

MANY = 5000
PIECES = {"strain": MANY, "calls": MANY + 7}


SAME, ANOTHER = Interval(0.95, 0.85, 1.0), Interval(0.5, 0.3, 0.82)


def judged(
    strain: tuple[int, int],
    calls: tuple[int, int],
    pieces=PIECES,
    recordings=ENOUGH_RECORDINGS,
    order: Interval | None = SAME,
):
    kept = {
        "strain": Count(strain[0], *strain, total=10),
        "calls": Count(calls[0], *calls, total=10),
    }
    return specialization_holds_on_real_ones(kept, pieces, recordings, order)


@pytest.mark.parametrize(
    ("strain", "calls", "verdict"),
    [
        ((8, 10), (9, 9), HOLDS),
        ((8, 10), (7, 9), IN_PART),
        ((6, 8), (2, 3), IN_PART),
        ((0, 4), (1, 5), FAILS),
        ((0, 4), (1, 6), UNKNOWN),
        ((5, 9), (5, 9), UNKNOWN),
    ],
)
def test_every_outcome(strain, calls, verdict):
    judgement = judged(strain, calls)
    assert judgement.verdict == verdict
    assert "strain" in judgement.reason
    assert "calls" in judgement.reason


@pytest.mark.parametrize("order", [ANOTHER, None, Interval(np.nan, np.nan, np.nan)])
def test_without_the_same_heads_that_matter_it_holds_in_part_only(order):
    judgement = judged((10, 10), (9, 9), order=order)
    assert judgement.verdict == IN_PART
    lacking = "was not measured" if order is None else "the shared order does not clearly reach 80%"
    assert judgement.reason.endswith(lacking)
    assert judged((0, 4), (1, 5), order=order).verdict == FAILS


def test_what_holds_in_part_says_what_it_lacks():
    assert judged((8, 10), (7, 9)).reason.endswith(
        "It does not hold as a whole: the share for sure is below 80% for calls"
    )
    both = judged((6, 8), (2, 3), order=None).reason
    assert both.endswith("below 80% for strain, calls and the order of heads was not measured")


def test_too_few_pieces_or_recordings_tell_nothing():
    few = judged((10, 10), (10, 10), PIECES | {"calls": 3})
    assert (few.verdict, "3 pieces of calls" in few.reason) == (UNKNOWN, True)
    alone = judged((10, 10), (10, 10), recordings=ENOUGH_RECORDINGS - 1)
    assert (alone.verdict, "recordings" in alone.reason) == (UNKNOWN, True)


def test_no_chirp_head_on_synthetic_images_tells_nothing():
    kept = {"strain": Count(0, 0, 0, 0), "calls": Count(3, 3, 3, 3)}
    judgement = specialization_holds_on_real_ones(kept, PIECES, 4)
    assert (judgement.verdict, "matched to strain" in judgement.reason) == (UNKNOWN, True)


def test_counts_must_be_of_the_same_kinds():
    with pytest.raises(ValueError, match="same kinds"):
        specialization_holds_on_real_ones({"strain": Count(1, 1, 1, 1)}, PIECES, 4)
    with pytest.raises(ValueError, match="same kinds"):
        specialization_holds_on_real_ones({}, {}, 4)


def classes(regions: list[str], confidence: list[float]) -> pd.DataFrame:
    return pd.DataFrame(
        {"layer": 0, "head": range(len(regions)), "regions": regions, "confidence": confidence}
    )


def test_a_head_is_about_the_chirp_if_it_is_among_its_regions():
    found = about_chirp(classes(["chirp", "frame + chirp", "frame", ""], [1.0] * 4))
    assert found.tolist() == [True, True, False, False]


def test_kept_heads_are_counted_among_those_that_were_sure():
    synthetic = classes(["chirp", "chirp", "chirp + frame", "chirp", "frame"], [1.0, 1.0, 1.0, 0.5, 1.0])
    real = classes(["chirp", "frame + chirp", "frame", "chirp", "chirp"], [1.0, 0.6, 0.6, 1.0, 1.0])
    # Heads 1 to 3 count; head 1 keeps for sure, head 2 as classified, head 3 may.
    assert chirp_heads_kept(synthetic, real) == Count(2, 1, 3, 3)


def test_other_heads_are_refused():
    with pytest.raises(ValueError, match="same ones"):
        chirp_heads_kept(classes(["chirp"] * 2, [1.0] * 2), classes(["chirp"], [1.0]))


def test_the_rule_is_named_as_the_scoreboard_asks():
    assert list(verdicts_recordings.RULES) == ["Q2"]
    assert verdicts_recordings.RULES["Q2"].__doc__.startswith("Q2. Holds if ")
