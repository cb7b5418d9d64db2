"""Exercises: what they accept, what they refuse, and what they say."""

from pathlib import Path

import numpy as np
import pytest
from conftest import NEEDS_BROWSER

from vitmech_utils.figures.exercises import Answer, Exercises

EXERCISES = Exercises(
    {
        1: Answer(33.7, within=0.1, hint="Add variances."),
        2: Answer((4, 2)),
        3: Answer(np.True_),
        5: Answer("part"),
    }
)


@pytest.mark.parametrize(
    ("number", "reply", "says"),
    [
        (1, 33.65, "Exercise 1: right."),
        (1, np.float32(33.7), "Exercise 1: right."),
        (1, 33.9, "Exercise 1: not yet. Add variances."),
        (1, float("nan"), "Exercise 1: not yet. Add variances."),
        (2, (4, 2), "Exercise 2: right."),
        (2, [np.int64(4), 2], "Exercise 2: right."),
        (2, (2, 4), "Exercise 2: not yet."),
        (3, True, "Exercise 3: right."),
        (3, False, "Exercise 3: not yet."),
        (5, "part", "Exercise 5: right."),
    ],
)
def test_a_reply_is_right_or_not_yet(number: int, reply: object, says: str) -> None:
    assert EXERCISES.check(number, reply) == says


@pytest.mark.parametrize(
    ("number", "reply", "wants"),
    [
        (1, "33.7", "expected a number"),
        (1, True, "expected a number"),
        (2, 4, "a tuple of a number, a number"),
        (3, 1, "expected True or False"),
        (5, None, "expected a text"),
    ],
)
def test_a_reply_of_another_kind_is_told_the_form(number: int, reply: object, wants: str) -> None:
    with pytest.raises(TypeError, match=wants):
        EXERCISES.check(number, reply)


def test_exercises_and_answers_that_cannot_be_right_are_refused() -> None:
    with pytest.raises(KeyError, match=r"no exercise 4 to check, only \[1, 2, 3, 5\]"):
        EXERCISES.check(4, 0)
    with pytest.raises(ValueError, match="finite"):
        Answer((1.0, float("nan")))
    with pytest.raises(ValueError, match="distance"):
        Answer(1.0, within=-1.0)


@NEEDS_BROWSER
@pytest.mark.browser
def test_a_page_judges_as_the_kernel_does_without_one_and_offline(browser: object, tmp_path: Path) -> None:
    sheet = Exercises(
        {**EXERCISES.answers, 6: Answer(294912), 7: Answer(-2.5, hint='Look at `x`, "y" & <b>.')}
    )
    page = tmp_path / "page.html"
    page.write_text(f"<!DOCTYPE html><meta charset=utf-8><body>{sheet._repr_html_()}", encoding="utf-8")
    context = browser.new_context(offline=True)
    shown = context.new_page()
    shown.goto(page.as_uri())

    def judged(number: int, reply: str) -> str:
        form = shown.locator(".vm-exercise", has_text=f"Exercise {number} ")
        form.get_by_label(f"Exercise {number}").fill(reply)
        form.get_by_role("button").click()
        return form.locator("output").inner_text()

    asked = [
        (1, "33.65", "Right."),
        (1, "33.9", "Not yet. Add variances."),
        (1, "33,7", "Expected a number."),
        (1, "", "Expected a number."),
        (2, "(4, 2)", "Right."),
        (2, "2, 4", "Not yet."),
        (2, "4", "Expected a number, a number."),
        (3, "true", "Right."),
        (3, "False", "Not yet."),
        (3, "1", "Expected True or False."),
        (5, "'part'", "Right."),
        (6, "294,912", "Right."),
        (7, "\u22122.5", "Right."),
        (7, "2.5", 'Not yet. Look at x, "y" & <b>.'),
    ]
    assert [(number, reply, judged(number, reply)) for number, reply, _ in asked] == asked
    context.close()


def test_no_answer_stands_readable_in_a_page() -> None:
    assert "33.7" not in EXERCISES._repr_html_()
    assert "part" not in EXERCISES._repr_html_().split("<script>")[0].replace("data-answer", "")
