"""The rules on attacks: every outcome, on made-up values, and the order in which they look."""

import math

import pytest

from vitmech_utils.statistics import Interval
from vitmech_utils.studies.attacks.judge import (
    RULES,
    attacks_find_what_ablation_misses,
    decorations_are_an_attack_surface,
)
from vitmech_utils.studies.verdicts import FAILS, HARDLY, HOLDS, IN_PART, UNKNOWN

OPEN, SHUT, WIDE = Interval(40.0, 20.0, 70.0), Interval(0.1, 0.0, 0.4), Interval(5.0, -2.0, 30.0)
THROUGH, BESIDE, UNSURE = Interval(9.0, 4.0, 15.0), Interval(-9.0, -15.0, -4.0), Interval(1.0, -3.0, 5.0)
IDLE, MATTERS = Interval(0.1, -0.5, 0.7), Interval(30.0, 12.0, 50.0)
NOTHING = Interval(math.nan, math.nan, math.nan)
NAMES = ("title", "labels", "colour bar", "frame")


def each(*intervals: Interval) -> dict[str, Interval]:
    return dict(zip(NAMES, intervals, strict=False))


@pytest.mark.parametrize(
    ("attacked", "carried", "verdict", "reason"),
    [
        (
            each(*[OPEN] * 4),
            each(*[THROUGH] * 4),
            HOLDS,
            "4 of 4 decorations can be attacked; in title, labels",
        ),
        (
            each(OPEN, OPEN, OPEN, SHUT),
            each(*[THROUGH] * 4),
            HOLDS,
            "in title, labels, colour bar their own heads",
        ),
        (each(OPEN, OPEN, SHUT, SHUT), each(*[THROUGH] * 4), IN_PART, "2 of 4"),  # half is not more than half
        (
            each(*[OPEN] * 4),
            each(THROUGH, BESIDE, UNSURE, UNSURE),
            IN_PART,
            "in title their own heads carry it",
        ),
        (each(OPEN, WIDE, WIDE, WIDE), each(*[THROUGH] * 4), IN_PART, "1 of 4"),
        (each(*[SHUT] * 4), each(*[THROUGH] * 4), FAILS, "no attack on a decoration does more than 1 %"),
        (each(*[OPEN] * 4), each(*[BESIDE] * 4), FAILS, "other heads than theirs carry it"),
        (
            each(OPEN, SHUT, SHUT, SHUT),
            each(*[BESIDE] * 4),
            FAILS,
            "1 of 4 decorations can be attacked, but other",
        ),
        (each(OPEN, WIDE, SHUT, SHUT), each(*[BESIDE] * 4), UNKNOWN, "does not show"),
        (
            each(*[OPEN] * 4),
            each(*[UNSURE] * 4),
            UNKNOWN,
            "4 of 4 decorations can be attacked; that their own",
        ),
        (each(*[OPEN] * 4), {}, UNKNOWN, "does not show"),
        (each(*[WIDE] * 4), each(*[THROUGH] * 4), UNKNOWN, "reach across 1 %"),
        (each(*[NOTHING] * 4), each(*[NOTHING] * 4), UNKNOWN, "reach across 1 %"),
        ({}, {}, UNKNOWN, "no decoration was attacked"),
    ],
)
def test_every_outcome_of_c8(attacked, carried, verdict, reason) -> None:
    found = decorations_are_an_attack_surface(attacked, carried, images=5000)
    assert found.verdict == verdict
    assert reason in found.reason


def test_c8_asks_for_a_rank_among_random_sets_where_there_is_one() -> None:
    attacked, carried = each(*[OPEN] * 4), each(*[THROUGH] * 4)
    rare, common = Interval(0.01, 0.01, 0.01), Interval(0.06, 0.06, 0.06)
    for ranks, verdict in (
        (each(*[rare] * 4), HOLDS),
        (each(rare, rare, common, common), IN_PART),
        (each(*[common] * 4), UNKNOWN),
        (each(rare), IN_PART),  # the other decorations have no rank
        ({}, UNKNOWN),
    ):
        assert decorations_are_an_attack_surface(attacked, carried, 5000, ranks).verdict == verdict


@pytest.mark.parametrize(
    ("attacked", "ablated", "beyond", "verdict", "reason"),
    [
        (
            each(OPEN, SHUT),
            each(IDLE, MATTERS),
            each(THROUGH, BESIDE),
            HOLDS,
            "ablating the heads of title changes",
        ),
        (each(OPEN, OPEN), each(IDLE, IDLE), each(UNSURE, UNSURE), HOLDS, "heads of title, labels"),
        (
            each(OPEN, SHUT),
            each(MATTERS, IDLE),
            each(THROUGH, UNSURE),
            IN_PART,
            "in title the attack does clearly",
        ),
        (each(OPEN, OPEN), each(WIDE, WIDE), each(UNSURE, THROUGH), IN_PART, "in labels"),
        (each(SHUT, SHUT), each(IDLE, IDLE), each(UNSURE, UNSURE), FAILS, "no attack on a decoration"),
        (each(OPEN, WIDE), each(MATTERS, MATTERS), each(BESIDE, BESIDE), FAILS, "for every decoration"),
        (
            each(OPEN, WIDE),
            each(MATTERS, MATTERS),
            each(UNSURE, BESIDE),
            UNKNOWN,
            "heads of title, labels clearly costs more than 1 %: these do matter; what attacks do beyond that",
        ),
        (
            each(OPEN, WIDE),
            each(MATTERS, WIDE),
            each(UNSURE, UNSURE),
            UNKNOWN,
            "heads of title clearly costs more than 1 %: these do matter; of the others the intervals reach across",
        ),
        (each(WIDE, WIDE), each(IDLE, IDLE), each(THROUGH, THROUGH), UNKNOWN, "reach across"),
        (each(NOTHING), each(NOTHING), each(NOTHING), UNKNOWN, "reach across"),
        (each(OPEN), {}, {}, UNKNOWN, "reach across"),
        ({}, {}, {}, UNKNOWN, "no decoration was attacked"),
    ],
)
def test_every_outcome_of_q6(attacked, ablated, beyond, verdict, reason) -> None:
    found = attacks_find_what_ablation_misses(attacked, ablated, beyond, images=5000)
    assert found.verdict == verdict
    assert reason in found.reason


def test_few_images_decide_nothing() -> None:
    for images, verdict in ((19, UNKNOWN), (20, HOLDS)):
        c8 = decorations_are_an_attack_surface(each(*[OPEN] * 4), each(*[THROUGH] * 4), images)
        q6 = attacks_find_what_ablation_misses(each(OPEN), each(IDLE), each(THROUGH), images)
        assert c8.verdict == q6.verdict == verdict
    assert "19 images are too few" in decorations_are_an_attack_surface({}, {}, 19).reason


def test_a_bound_that_touches_the_limit_is_not_clear() -> None:
    touching = Interval(5.0, HARDLY, 9.0)
    assert decorations_are_an_attack_surface(each(touching), each(THROUGH), 5000).verdict == UNKNOWN
    assert (
        decorations_are_an_attack_surface(each(OPEN), each(Interval(1.0, 0.0, 2.0)), 5000).verdict == UNKNOWN
    )
    idle = Interval(0.0, -0.5, HARDLY)
    assert attacks_find_what_ablation_misses(each(OPEN), each(idle), each(UNSURE), 5000).verdict == UNKNOWN


def test_each_rule_begins_with_its_claim() -> None:
    for claim, rule in RULES.items():
        assert rule.__doc__.startswith(f"{claim}. ")
        assert "Holds if" in rule.__doc__
