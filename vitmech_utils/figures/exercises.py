"""Exercises that answer back: right, not yet with a hint, or what form of answer is expected.

In a kernel by `check`; on a page by a small form that needs neither kernel nor network.
"""

import base64
import html
import json
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

    def form_on_page(self) -> str:
        """The same for a field that is typed into: several values are divided by commas."""
        return ", ".join(_kind(part) for part in _parts(self.value))


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

    def _repr_html_(self) -> str:
        """A form with a field for each exercise, checked on the page itself by the rule of `Answer.accepts`.

        The answers are encoded, so that nobody reads one by accident; they are no secret, the solutions stand below.
        """
        rows = []
        for number, answer in self.answers.items():
            known = {"value": [_plain(part) for part in _parts(answer.value)], "within": float(answer.within)}
            sealed = base64.b64encode(json.dumps(known).encode()).decode()
            asked, hint = (
                html.escape(text) for text in (answer.form_on_page(), answer.hint.replace("`", ""))
            )
            rows.append(
                f'<form class="vm-exercise" data-answer="{sealed}" data-hint="{hint}" data-form="{asked}">'
                f"<label>Exercise {number} <span>({asked})</span> "
                '<input name="reply" autocomplete="off" spellcheck="false"></label> '
                '<button type="submit">Check</button> <output aria-live="polite"></output></form>'
            )
        return f'<div class="vm-exercises">{_STYLE}{"".join(rows)}<script>{_SCRIPT}</script></div>'


_STYLE = """<style>
.vm-exercise { align-items: baseline; display: flex; flex-wrap: wrap; gap: 0.3em 0.6em; margin: 0.4em 0; }
.vm-exercise span { opacity: 0.8; }
.vm-exercise input { background: transparent; border: 1px solid currentColor; border-radius: 3px; color: inherit;
  font: inherit; padding: 0.1em 0.4em; width: 9em; }
.vm-exercise button { background: transparent; border: 1px solid currentColor; border-radius: 3px; color: inherit;
  cursor: pointer; font: inherit; padding: 0.1em 0.7em; }
.vm-exercise output { flex: 1 1 14em; }
@media print { .vm-exercises { display: none; } }
</style>"""
# The same rule as `Answer.accepts`; what cannot be read as the wanted kind is told the form.
_SCRIPT = """
(() => {
  const read = (text, like) => {
    const word = text.trim().replace(/^['"]|['"]$/g, "");
    if (typeof like === "boolean") {
      const said = { true: true, yes: true, false: false, no: false }[word.toLowerCase()];
      return said === undefined ? null : said;
    }
    if (typeof like === "string") return word || null;
    const number = Number(word.replace(/[\\s_%]/g, "").replace(/\u2212/g, "-"));
    return word && Number.isFinite(number) ? number : null;
  };
  const verdict = (form, text) => {
    const { value, within } = JSON.parse(atob(form.dataset.answer));
    const bare = text.trim().replace(/^[(\\[]|[)\\]]$/g, "");
    const whole = /^[-+\u2212]?\\d{1,3}(,\\d{3})+(\\.\\d+)?$/.test(bare) && value.length === 1;
    const parts = value.length === 1 ? [whole ? bare.replace(/,/g, "") : bare] : bare.split(/[,;]/);
    const given = value.map((like, place) => (parts.length === value.length ? read(parts[place], like) : null));
    if (given.includes(null)) return `Expected ${form.dataset.form}.`;
    const right = value.every((like, place) =>
      typeof like === "number" ? Math.abs(given[place] - like) <= within
        : typeof like === "string" ? given[place].toLowerCase() === like.toLowerCase() : given[place] === like);
    return right ? "Right." : `Not yet. ${form.dataset.hint}`.trim();
  };
  for (const form of document.currentScript.parentElement.querySelectorAll("form"))
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      form.querySelector("output").textContent = verdict(form, form.elements.reply.value);
    });
})();
"""


def _plain(part: object) -> object:
    """A number, truth value or text as JSON has it."""
    if _kind(part) == "True or False":
        return bool(part)
    return float(part) if isinstance(part, Real) else str(part)


def _parts(value: object) -> tuple:
    return tuple(value) if isinstance(value, tuple | list) else (value,)


def _kind(part: object) -> str:
    if isinstance(part, bool) or type(part).__name__ == "bool":  # numpy's truth values are no bool
        return "True or False"
    if isinstance(part, Real):
        return "a number"
    return "a text" if isinstance(part, str) else f"no {type(part).__name__}"
