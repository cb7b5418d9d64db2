"""Tables for readers: column names in words instead of the artefacts' own."""

HEADINGS = {
    "q_value": "q",
    "p_value": "p",
    "low": "95 % from",
    "high": "to",
    "mse": "MSE",
    "effect": "effect (%)",
}


def heading(column: str) -> str:
    """Turn an artefact's column name into the heading of a shown table, for pandas' `Styler.format_index`."""
    return HEADINGS.get(column, column.replace("_", " "))


def word(count: int, one: str, several: str) -> str:
    """The word that goes with a count: `one` for 1, else `several`."""
    return one if count == 1 else several


def counted(count: int, noun: str) -> str:
    """A count with its noun, in the plural unless there is one."""
    return f"{count:,} {word(count, noun, f'{noun}s')}"
