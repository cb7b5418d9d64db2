"""Tables and numbers for readers: Markdown tables, counts, intervals and names in words."""

import html
import inspect
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from vitmech_utils.arguments import checked_arguments
from vitmech_utils.statistics import Interval, unsigned_zero

if TYPE_CHECKING:
    from IPython.display import Code
    from pandas.io.formats.style import Styler

HEADINGS = {
    "q_value": "q",
    "p_value": "p",
    "low": "95 % from",
    "high": "to",
    "mse": "MSE",
    "effect": "effect (%)",
}


_CHECK = re.compile(r"^@checked_arguments\([^\n]*\)\n", re.MULTILINE)


@checked_arguments()
def heading(column: str) -> str:
    """Turn an artefact's column name into the heading of a shown table, for pandas' `Styler.format_index`."""
    return HEADINGS.get(column, column.replace("_", " "))


@checked_arguments()
def plain(name: str) -> str:
    """A target's name in words: `start_freq` is the start frequency."""
    return name.replace("_", " ").replace("freq", "frequency")


@checked_arguments()
def word(count: int, one: str, several: str) -> str:
    """The word that goes with a count: `one` for 1, else `several`."""
    return one if count == 1 else several


@checked_arguments()
def counted(count: int, noun: str) -> str:
    """A count with its noun, in the plural unless there is one."""
    return f"{count:,} {word(count, noun, f'{noun}s')}"


@checked_arguments()
def listed(items: Iterable[Any], between: str = ", ", none: str = "none") -> str:
    """Items in a row, or `none` where there are none."""
    return between.join(map(str, items)) or none


@checked_arguments()
def from_zero(found: Interval) -> Interval:
    """How a mean of squares, such as a loss or a shift, or a ratio of them is shown.

    It is not negative, even where an interval that was lengthened until it covers reaches below zero.
    """
    return Interval(found.value, max(found.low, 0.0), found.high)


@checked_arguments()
def named(values: Mapping[Any, Any], spec: str = "", between: str = ", ", join: str = " ") -> str:
    """Names with their values in a row, such as `zero 0.52, mean 0.31`; `spec` formats each value."""
    return between.join(f"{name}{join}{value:{unsigned_zero(spec)}}" for name, value in values.items())


@checked_arguments()
def bullets(lines: Iterable[str], none: str = "") -> str:
    """A bulleted list, or `none` where there are no lines."""
    return "\n".join(f"- {line}" for line in lines) or none


BRACKETS = "in brackets, no interval: the heads that are sure, each in 95 % of resamples, and all that may be"
"""What the two figures behind a `Count` are, in words."""


@checked_arguments()
def three_sentences(first: str, second: str, third: str) -> str:
    """What a chapter ends with: three numbered sentences, each of which holds a figure.

    Raises ValueError for one that holds none, or does not end.
    """
    for said in (first, second, third):
        if not re.search(r"(?<![A-Za-z])\d", said) or not said.endswith("."):
            raise ValueError(f"expected a whole sentence that holds a figure, got {said!r}")
    return "\n".join(f"{number}. {said}" for number, said in enumerate((first, second, third), start=1))


@checked_arguments()
def against(low: float, high: float, limit: float, above: str, below: str, undecided: str) -> str:
    """The words for an interval that lies wholly above a limit, wholly below it, or on both sides (`undecided`)."""
    return above if low > limit else below if high < limit else undecided


@checked_arguments()
def interval(row: Any, spec: str = "+.2f", value: str = "effect", suffix: str = "", unit: str = "") -> str:
    """A value with its interval: `+1.74 [+0.90, +2.61]`.

    `row` is a table's row (or anything that answers to column names) with `value`, low and high, each with `suffix`
    in its name; `unit` follows the value.
    """
    found, low, high = (_entry(row, f"{name}{suffix}") for name in (value, "low", "high"))
    spec = unsigned_zero(spec)
    return f"{found:{spec}}{f' {unit}' if unit else ''} [{low:{spec}}, {high:{spec}}]"


@checked_arguments()
def percent(row: Any, suffix: str = "", value: str = "effect") -> str:
    """A change in percent with its interval, with fewer decimals where it is large: `+1.7 % [+0.9, +2.6]`."""
    ends = (abs(_entry(row, f"{name}{suffix}")) for name in ("low", "high"))
    return interval(row, "+,.0f" if max(ends) >= 100 else "+.1f", value, suffix, "%")


@checked_arguments()
def pipe_table(headings: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A Markdown table: its headings, then one sequence of cells a row, each shown as `str` gives it.

    Raises ValueError for a row of another length.
    """
    lines = [list(headings), ["---"] * len(headings)]
    for row in rows:
        if len(row) != len(headings):
            raise ValueError(
                f"the row {list(row)} has {len(row)} cells, expected {len(headings)}: {headings}"
            )
        lines.append([_cell(cell) for cell in row])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _cell(value: Any) -> str:
    """A cell's text, which may hold Markdown, on one line: no HTML, no picture from elsewhere, no cell more."""
    text = " ".join(str(value).split())
    return text.replace("<", "&lt;").replace("![", "&#33;[").replace("|", r"\|")


@checked_arguments()
def frame_table(table: pd.DataFrame, columns: Mapping[str, str | tuple[str, str | Callable]]) -> str:
    """A Markdown table of a data frame: columns in order, each with its heading, or heading and format.

    A format is a specification such as `.3f`, or a function of the whole row: `("effect (%)", interval)`.
    """
    looks = {name: (look, "") if isinstance(look, str) else look for name, look in columns.items()}
    return pipe_table(
        [title for title, _ in looks.values()],
        [
            [
                how(row) if callable(how) else format(row[name], unsigned_zero(how))
                for name, (_, how) in looks.items()
            ]
            for _, row in table.iterrows()
        ],
    )


@checked_arguments()
def shown(
    table: pd.DataFrame, formats: Mapping[str, str], caption: str = "", index: bool = False
) -> "Styler":
    """A table as the page shows it: `formats` maps columns to specifications such as `+.2f`, headings are words."""
    looks = {name: f"{{:{unsigned_zero(spec)}}}".format for name, spec in formats.items()}
    styled = table.style.format(looks, escape="html")
    styled = styled.format_index(lambda name: html.escape(heading(str(name))), axis="columns")
    styled = styled.set_caption(html.escape(caption)) if caption else styled
    return styled if index else styled.hide(axis="index")


@checked_arguments()
def source(*functions: Callable) -> "Code":
    """The source of some functions, as a page shows code: without the check of their arguments, which all have."""
    from IPython.display import Code

    return Code(
        "\n\n".join(_CHECK.sub("", inspect.getsource(function)) for function in functions), language="python"
    )


@checked_arguments()
def rule_text(rule: Callable, paragraphs: int | None = None) -> str:
    """A rule's docstring as a quotation, or its first paragraphs alone."""
    parts = inspect.cleandoc(rule.__doc__ or "").split("\n\n")[:paragraphs]
    return f"> {' '.join(' '.join(parts).split())}"


@checked_arguments()
def judgement_list(judged: Mapping[str, Any], claimed: Mapping[str, str]) -> str:
    """Claims with their verdicts and reasons, as a bulleted list; `judged` maps a claim to its `Judgement`."""
    return bullets(
        f"**{claim}**, {claimed[claim]}: **{found.words}**. Reason: {found.reason}."
        for claim, found in judged.items()
    )


@checked_arguments()
def both_verdicts(own: Any, over_all: Any) -> str:
    """The verdict on one training, then that over all, both a `Judgement`: "holds in this training, over all ..."."""
    told = (
        "and so over all trainings" if own.words == over_all.words else f"over all trainings {over_all.words}"
    )
    return f"{own.words} in this training, {told}"


def _entry(row: Any, name: str) -> Any:
    return row[name] if isinstance(row, Mapping | pd.Series) else getattr(row, name)
