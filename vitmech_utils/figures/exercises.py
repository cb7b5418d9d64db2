"""Exercises that answer back: right, not yet with a hint, or what form of answer is expected."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real


@dataclass(frozen=True)
class Answer:
    """What an exercise accepts: numbers at most `within` away from `value` (its unit), other values if equal.

    `value` may be a tuple, compared place by place. `hint` is shown with every wrong answer.
    """

    value: object
    within: float = 0.0
    hint: str = ""

    def __post_init__(self) -> None:
        if not self.within >= 0:
            raise ValueError(f"within is {self.within}, expected a distance of 0 or more")
        if any(not math.isfinite(part) for part in _parts(self.value) if isinstance(part, Real)):
            raise ValueError(f"the answer is {self.value}, expected finite numbers: no reply could be right")

    def accepts(self, reply: object) -> bool:
        """Whether a reply is right. Raises TypeError for a reply of another kind or length."""
        wanted, given = _parts(self.value), _parts(reply)
        if [_kind(part) for part in wanted] != [_kind(part) for part in given]:
            raise TypeError(f"the answer is {reply!r}, expected {self.form()}")
        return all(
            abs(one - other) <= self.within if _kind(one) == "a number" else one == other
            for one, other in zip(wanted, given, strict=True)
        )

    def form(self) -> str:
        """What kind of reply is expected, in words."""
        kinds = [_kind(part) for part in _parts(self.value)]
        return kinds[0] if len(kinds) == 1 else f"a tuple of {', '.join(kinds)}"


class Exercises:
    """A chapter's exercises by number; `check(1, 31.0)` says how a reply fares."""

    def __init__(self, answers: Mapping[int, Answer]) -> None:
        self.answers = dict(answers)

    def check(self, number: int, reply: object) -> str:
        """Say whether a reply is right. Raises KeyError for an unknown number, TypeError as `Answer.accepts`."""
        if number not in self.answers:
            raise KeyError(f"there is no exercise {number} to check, only {sorted(self.answers)}")
        answer = self.answers[number]
        if answer.accepts(reply):
            return f"Exercise {number}: right."
        return f"Exercise {number}: not yet. {answer.hint}".rstrip()


def _parts(value: object) -> tuple:
    return tuple(value) if isinstance(value, tuple | list) else (value,)


def _kind(part: object) -> str:
    if isinstance(part, bool) or type(part).__name__ == "bool":  # numpy's truth values are no bool
        return "True or False"
    if isinstance(part, Real):
        return "a number"
    return "a text" if isinstance(part, str) else f"no {type(part).__name__}"
