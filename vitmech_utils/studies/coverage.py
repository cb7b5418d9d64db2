"""How often nominal 95 % intervals hold the truth: what `benchmarks/coverage.py` measured, and what follows from it."""

from functools import cache
from importlib.resources import files
from typing import Any

import pandas as pd

from vitmech_utils.arguments import checked_arguments
from vitmech_utils.intervals import METHOD
from vitmech_utils.strict_text import parse_json

SIGNED = "effect"
"""What the names of quantities say that may be negative: no logarithm serves them."""
COVERED = 93.0
"""Percent of nominal 95 % intervals that must hold the truth."""


@cache
def measured() -> pd.DataFrame:
    """One row per quantity, number of images and method.

    Columns: quantity, images, method, covered (percent of draws whose interval holds the truth, median over heads),
    least (the worst head), half_width (median, in units of the truth).
    """
    return pd.DataFrame(_record()["rows"])


def draws_tried() -> int:
    """How often images were drawn anew for each quantity and number of images."""
    return int(_record()["repeats"])


def _record() -> dict[str, Any]:
    return parse_json(
        files("vitmech_utils.studies").joinpath("coverage.json").read_text(encoding="utf-8"), unknown=True
    )


def quantities() -> list[str]:
    """What was measured."""
    return list(dict.fromkeys(measured()["quantity"]))


@checked_arguments()
def method_for(quantity: str, images: int, covered: float = COVERED) -> str:
    """The interval to take for a quantity measured on so many images: the narrowest that is known to cover.

    The library's usual method where it covers, else the one of least width among those that do, at the largest tried
    number of images that is not above `images`; where none does, the one that covers most often. Logarithms are for
    what cannot be negative.
    """
    table = _of(quantity)
    tried = table["images"].unique()
    count = max([number for number in tried if number <= images], default=tried.min())
    rows = table[table["images"] == count].set_index("method")
    good = rows[rows["covered"] >= covered]
    if METHOD in good.index:
        return METHOD
    return str(good["half_width"].idxmin() if len(good) else rows["covered"].idxmax())


@checked_arguments()
@cache
def least_images(quantity: str, covered: float = COVERED) -> int | None:
    """From how many images on `method_for` gives intervals that hold the truth in at least `covered` percent.

    None where even the most that were tried do not. Raises `KeyError` for a quantity that was not measured.
    """
    enough = None
    for count, rows in _of(quantity).groupby("images"):
        enough = (enough or int(count)) if rows["covered"].max() >= covered else None
    return enough


def _of(quantity: str) -> pd.DataFrame:
    table = measured()
    table = table[table["quantity"] == quantity]
    if SIGNED in quantity:
        table = table[table["method"] != "log-t"]
    if table.empty:
        raise KeyError(
            f"no coverage was measured for {quantity!r}, expected one of {', '.join(quantities())}"
        )
    return table
