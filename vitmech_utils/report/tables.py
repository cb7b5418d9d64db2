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
