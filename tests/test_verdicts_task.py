"""The rule on another task: every outcome, on made-up values, and the order in which it looks."""

import math

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from vitmech_utils.statistics import Interval
from vitmech_utils.studies.task import judge as verdicts_task
from vitmech_utils.studies.task import measure, plots
from vitmech_utils.studies.task.judge import specialization_is_of_the_architecture
from vitmech_utils.studies.verdicts import FAILS, HALF, HOLDS, IN_PART, MOST, UNKNOWN

SHOWN, HIDDEN = Interval(0.8, 0.6, 0.9), Interval(0.1, -0.1, 0.3)
ALIKE, SOME, UNLIKE, WIDE = (
    Interval(0.95, 0.85, 1.05), Interval(0.7, 0.6, 0.78), Interval(0.2, 0.0, 0.4), Interval(0.5, 0.2, 0.8),
)  # fmt: skip
CLEAR, BLURRED = Interval(0.8, 0.6, 0.9), Interval(0.2, 0.05, 0.4)
NOTHING = Interval(math.nan, math.nan, math.nan)


def judged(effect, attention, ceiling=CLEAR, training=ALIKE, control=(SHOWN, SHOWN), images=5000, untuned=()):
    names = "effect", "attention"
    return specialization_is_of_the_architecture(
        dict(zip(("the lie", "the heads"), control, strict=True)),
        dict(zip(names, (effect, attention), strict=True)),
        dict(zip(names, (ceiling, CLEAR), strict=True)),
        dict(zip(names, (training, ALIKE), strict=True)),
        {f"network {number}": found for number, found in enumerate(untuned)},
        images,
    )


@pytest.mark.parametrize(
    ("effect", "attention", "verdict", "reason"),
    [
        (ALIKE, ALIKE, HOLDS, "it belongs to the architecture"),
        (ALIKE, SOME, IN_PART, "more than half by effect and by attention"),
        (SOME, SOME, IN_PART, "more than half by effect and by attention"),
        (UNLIKE, ALIKE, IN_PART, "more than half by attention, no more than half by effect"),
        (WIDE, ALIKE, IN_PART, "more than half by attention"),
        (ALIKE, UNLIKE, IN_PART, "more than half by effect, no more than half by attention"),
        (UNLIKE, UNLIKE, FAILS, "it is the task's"),
        (UNLIKE, WIDE, UNKNOWN, "more or less than half"),
        (WIDE, WIDE, UNKNOWN, "more or less than half"),
        (NOTHING, NOTHING, UNKNOWN, "more or less than half"),
    ],
)
def test_every_outcome(effect, attention, verdict, reason) -> None:
    found = judged(effect, attention)
    assert found.verdict == verdict
    assert reason in found.reason


def test_nothing_is_told_where_the_planted_shortcut_does_not_show() -> None:
    for effect, attention in ((ALIKE, ALIKE), (UNLIKE, UNLIKE)):
        found = judged(effect, attention, control=(SHOWN, HIDDEN))
        assert found.verdict == UNKNOWN
        assert "does not clearly show in: the heads" in found.reason
    assert judged(ALIKE, ALIKE, control=(NOTHING, SHOWN)).verdict == UNKNOWN
    assert judged(ALIKE, ALIKE, control=(Interval(0.1, 0.0, 0.2), SHOWN)).verdict == UNKNOWN


def test_what_pre_training_already_had_is_not_shared_by_the_tasks() -> None:
    found = judged(ALIKE, ALIKE, untuned=(ALIKE, UNLIKE))
    assert (found.verdict, "before any fine-tuning" in found.reason) == (IN_PART, True)
    assert judged(ALIKE, ALIKE, untuned=(UNLIKE, UNLIKE)).verdict == HOLDS
    assert judged(WIDE, ALIKE, untuned=(ALIKE,)).verdict == UNKNOWN


def test_nothing_is_told_where_a_models_own_order_is_not_known() -> None:
    for ceiling in (BLURRED, NOTHING):
        found = judged(ALIKE, ALIKE, ceiling=ceiling)
        assert found.verdict == UNKNOWN
        assert "own order of heads by effect is not known well enough" in found.reason


def test_what_another_training_undoes_as_well_is_not_the_tasks() -> None:
    for training in (UNLIKE, WIDE, NOTHING):
        found = judged(UNLIKE, UNLIKE, training=training)
        assert found.verdict == UNKNOWN
        assert "by effect another training for the same question may keep as little" in found.reason
    assert judged(ALIKE, ALIKE, training=UNLIKE).verdict == HOLDS  # what is shared is shared


def test_bounds_count_and_few_images_decide_nothing() -> None:
    at_most, above_half = Interval(0.9, MOST, 1.0), Interval(0.7, HALF, 0.9)
    assert judged(at_most, at_most).verdict == HOLDS
    assert judged(above_half, above_half).verdict == UNKNOWN
    assert judged(Interval(0.3, 0.1, HALF), UNLIKE).verdict == FAILS
    few = judged(ALIKE, ALIKE, images=3)
    assert (few.verdict, "too few" in few.reason) == (UNKNOWN, True)
    assert specialization_is_of_the_architecture({}, {}, {}, {}, {}, 5000).verdict == UNKNOWN


def test_the_rule_begins_with_its_question() -> None:
    assert list(verdicts_task.RULES) == ["Q5", "Q9"]
    assert verdicts_task.RULES["Q5"].__doc__.startswith("Q5. Of the architecture (holds) if ")


def test_the_twins_that_are_shown_are_the_chirps_whose_bends_are_named(monkeypatch) -> None:
    shown = {}

    def drawn(rows, names):
        shown.update(rows=rows, names=names)
        return plt.figure()

    monkeypatch.setattr(plots, "twin_figures", drawn)
    chirps = measure.held_out_chirps(3)
    plt.close(plots.twins([0, 2], chirps))
    own = measure.titled(3, "none")["pixel_values"]
    for place, index in enumerate((0, 2)):
        np.testing.assert_array_equal(shown["rows"]["no title"][place], own[index].permute(1, 2, 0).numpy())
    assert shown["names"] == [f"bend: {chirps.bends[index]:.1f} rows" for index in (0, 2)]


def test_a_share_whose_interval_is_wider_than_any_share_is_unknown() -> None:
    columns = ["what", "quantity", "share", "low", "high", "ceiling_low"]
    rows = [("one", "effect", 0.2, -0.2, 0.5, 0.3), ("other", "effect", -2.2, -6.4, 1.1, 0.01)]
    figure = plots.orders(pd.DataFrame(rows, columns=columns))
    written = [text.get_text() for text in figure.axes[0].texts]
    assert written == ["by effect: unknown"]
    assert figure.axes[0].get_xlim()[0] > -2
    plt.close(figure)
    blurred = plots.orders(pd.DataFrame(rows[1:], columns=columns))
    assert "by effect is unknown" in blurred.get_suptitle()
    plt.close(blurred)


@pytest.mark.parametrize(("lookers", "harsh"), [([(5, 0), (5, 1), (5, 2)], True), ([(5, 0), (7, 1)], False)])
def test_a_carrier_among_several_lookers_makes_their_control_a_harsh_one(lookers, harsh) -> None:
    chosen = {
        "lookers": pd.DataFrame(lookers, columns=["layer", "head"]).assign(lift=3.0),
        "carriers": pd.DataFrame([(5, 5), (7, 1)], columns=["layer", "head"]).assign(way=0.5),
    }
    table = pd.DataFrame(
        [("leak", "type", "lookers", 0.1, 0.0, 0.2, 8)],
        columns=["model", "target", "kind", "effect", "low", "high", "images"],
    )
    beyond = {
        (kind, name, target): SHOWN
        for kind in measure.KINDS
        for name in ("leak", "clean")
        for target in ("type", "direction")
    }
    told = plots.reading_sets_table(table, beyond, chosen, 10)
    assert ("L6H6, a carrier but no looker" in told) == harsh
    assert ("harsh" in told) == harsh
