"""Exercises: what they accept, what they refuse, and what they say."""

import numpy as np
import pytest

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
