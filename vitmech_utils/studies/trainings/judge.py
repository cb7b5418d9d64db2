"""A claim in several trainings: the verdict of each, and of all together."""

from collections.abc import Mapping

import pandas as pd

from vitmech_utils.arguments import checked_arguments
from vitmech_utils.studies.rows import TRAININGS
from vitmech_utils.studies.verdicts import Judgement, across


@checked_arguments()
def verdicts_table(judged: Mapping[str, Mapping[str, Judgement]], images: Mapping[str, int]) -> pd.DataFrame:
    """One row per claim and training: claim, training, verdict, reason, lacks, images; claims in the first's order.

    `judged` holds the judgements by training and claim, `images` on how many images each training was asked.
    """
    claims = list(next(iter(judged.values()), {}))
    rows = [
        (claim, name, one[claim].verdict, one[claim].reason, one[claim].lacks, images[name])
        for claim in claims
        for name, one in judged.items()
    ]
    return pd.DataFrame(rows, columns=list(TRAININGS))


@checked_arguments()
def in_each(table: pd.DataFrame) -> dict[str, dict[str, Judgement]]:
    """The judgements of a `verdicts_table`, by claim and training."""
    found: dict[str, dict[str, Judgement]] = {}
    for row in table.itertuples():
        found.setdefault(row.claim, {})[row.training] = Judgement(row.verdict, row.reason, row.lacks)
    return found


@checked_arguments()
def over_all(table: pd.DataFrame) -> dict[str, Judgement]:
    """The verdict on each claim of a `verdicts_table` over all trainings."""
    return {claim: across(found) for claim, found in in_each(table).items()}


# Orders of heads, and classes
