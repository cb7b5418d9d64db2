"""What chapter 04 says of shifts, of bounds next to zero, of shared costs and of few random sets."""

import pandas as pd
import pytest

from vitmech_utils.statistics import Interval
from vitmech_utils.studies import coverage
from vitmech_utils.studies.ablation import judge, plots


@pytest.mark.parametrize(
    ("found", "spec", "words"),
    [
        (Interval(4.07, -0.0094, 7.55), "+.2f", "+4.07 [-0.01, +7.55]"),
        (Interval(4.07, -0.0094, 7.55), "+.1f", "+4.07 [-0.01, +7.55]"),
        (Interval(0.84, 0.0348, 1.95), "+.1f", "+0.84 [+0.03, +1.95]"),
        (Interval(2.0, 0.0, 3.0), ".1f", "2.0 [0.0, 3.0]"),
        (Interval(2.0, 1.0, 3.0), ".1f", "2.0 [1.0, 3.0]"),
        (Interval(float("nan"), float("nan"), float("nan")), ".1f", "unknown"),
    ],
)
def test_no_bound_that_is_not_zero_is_shown_as_zero(found: Interval, spec: str, words: str) -> None:
    assert judge.in_full(found, spec) == words


def test_a_ratio_of_mean_squares_is_named_and_its_root_given() -> None:
    ratios = {"mean": Interval(16.0, 4.0, 25.0), "zero": Interval(1.6, 1.0, 2.1)}
    words = judge.squares(ratios, "mean")
    assert words.startswith("16.0 [4.0, 25.0] times by mean squares, 4.0 [2.0, 5.0] times as a distance")
    assert "by the other modes 1.6 to 1.6 times" in words
    assert "other modes" not in judge.squares({"mean": ratios["mean"]}, "mean")


def test_a_mode_alone_would_pay_for_the_whole_linearizing() -> None:
    rows = [
        {"mode": mode, "cheap_seconds": cheap, "images": 100, "seconds": 100 * cheap + 10}
        for mode, cheap in (("mean", 0.1), ("zero", 0.1), ("resample", 0.3))
    ]
    costs = pd.DataFrame(rows)
    assert plots._shared(costs, "mean") == (2, pytest.approx(30 / 20))
    assert plots._shared(costs, "resample") == (1, pytest.approx(1))


def test_few_random_sets_bound_the_p_value() -> None:
    table = pd.DataFrame({"set": range(6), "effect": [9.0, -1.0, 1.0, 2.0, 3.0, 10.0]})
    assert "p = 0.40" in plots.sets_text(table)
    assert "cannot be smaller than 0.20" in plots.sets_text(table)


def test_the_number_of_draws_is_that_of_the_benchmark() -> None:
    assert coverage.draws_tried() >= 200
