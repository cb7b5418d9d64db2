"""The scoreboard as pages: in full, in short, its rules, and as JSON. All text from tables is escaped."""

import inspect
import re
from typing import Any

import pandas as pd

from vitmech_utils.artefacts import to_plain
from vitmech_utils.report.claims import LIMITS, RULES, STUDY
from vitmech_utils.report.templating import render
from vitmech_utils.studies import verdicts

# Word and sign both give the verdict, so its colour need not.
SIGNS = {
    verdicts.HOLDS: "✓",
    verdicts.IN_PART: "◐",
    verdicts.FAILS: "✗",
    verdicts.UNKNOWN: "?",
    verdicts.OPEN: "○",
}
_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>#|$~])")


def full(board: pd.DataFrame) -> str:
    """Write every row as a section with its facts, as MyST; claims first, open questions after them."""
    claims, questions = _parts(board)
    return "\n\n".join(
        [
            _caution(board),
            "## The claims",
            *(_section(row) for row in claims),
            "## What the study leaves open",
            *(_section(row) for row in questions if row.verdict != verdicts.OPEN),
            _raw("questions", rows=[row for row in questions if row.verdict == verdicts.OPEN]),
        ]
    )


def short(board: pd.DataFrame) -> str:
    """Write the claims as one small table and the open questions as another one, of verdicts alone, as MyST.

    On a phone each row stands as a block of its own.
    """
    claims, questions = _parts(board)
    parts = [_caution(board), _raw("board", rows=claims)]
    if questions:
        named = [row._replace(ours="") for row in questions]
        parts += ["The questions that the study leaves open:", _raw("questions", rows=named)]
    return "\n\n".join(parts).strip()


def rules() -> str:
    """Write the verdict rules, from their docstrings, and the limits they use, as MyST."""
    listed = "\n".join(f"- **{name}:**{_rule(rule).partition('.')[2]}" for name, rule in RULES.items())
    limits = "\n".join(
        f"{_markdown(name)}\n: {value:g}: {_markdown(why)}.\n" for name, (value, why) in LIMITS.items()
    )
    return f"{listed}\n\nThe limits, and why they lie where they lie:\n\n{limits}"


def as_json(board: pd.DataFrame) -> dict[str, Any]:
    """Make the scoreboard ready for JSON: its rows, rules and limits, and the run they come from."""
    rows = [
        {key: None if pd.isna(value) else value for key, value in row.items()}
        for row in board.to_dict("records")
    ]
    return to_plain(
        {
            "source": STUDY,
            **board.attrs,
            "rows": rows,
            "rules": {name: _rule(rule) for name, rule in RULES.items()},
            "limits": {name: {"value": value, "why": why} for name, (value, why) in LIMITS.items()},
        }
    )


def _parts(board: pd.DataFrame) -> tuple[list[Any], list[Any]]:
    rows = list(board.itertuples())
    return [r for r in rows if r.id.startswith("C")], [r for r in rows if not r.id.startswith("C")]


def _caution(board: pd.DataFrame) -> str:
    notes = []
    if board.attrs["quick"]:
        notes.append(
            "```{admonition} The scoreboard of a quick run\n:class: warning\n"
            "A quick run looks at too few images to judge; read verdicts from the published run (`make site`).\n```"
        )
    if claims := board.attrs["judged_otherwise"]:
        notes.append(
            "```{note}\nThe chapters of this run are older than the rules by which this page judges. Where their text "
            f"gives another verdict on {', '.join(claims)}, the one here counts.\n```"
        )
    return "\n\n".join(notes)


def _section(row: Any) -> str:
    facts = {
        "The study says": row.study,
        "Found here": row.ours,
        "Resting on": row.sample,
        "Compared with": row.control,
        "In several trainings": row.trainings,
        "Because": row.reason,
        "What would change the verdict": row.would_change,
    }
    shown = ""
    if isinstance(row.chapter, str):
        shown = f"\n\nSee {{numref}}`{row.figure}` in [](../notebooks/{row.chapter}.ipynb)."
    title = _markdown(row.claim.rstrip("."))
    return (
        f"(claim-{row.id.lower()})=\n### {row.id}: {title}\n\n" + _raw("claim", row=row, facts=facts) + shown
    )


def _rule(rule: Any) -> str:
    """The first paragraph of a rule's docstring; what follows there is about its parameters."""
    return " ".join(inspect.getdoc(rule).partition("\n\n")[0].split())


def _raw(part: str, **values: Any) -> str:
    """A part of the template of the scoreboard as a block of HTML in MyST; its text is escaped, and on one line."""
    page = render("scoreboard.html", part=part, signs=SIGNS, in_words=verdicts.in_words, **values)
    return f"```{{raw}} html\n{page}\n```"


def _markdown(text: str) -> str:
    return _MARKDOWN.sub(r"\\\1", text)
