"""A claim in several trainings: the verdict of each, and of all together."""

from collections.abc import Callable, Mapping

import pandas as pd

from vitmech_utils.arguments import checked_arguments
from vitmech_utils.studies.rows import TRAININGS
from vitmech_utils.studies.trainings.measure import apart, named
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
def by_claims(
    claim: str, rule: Callable[[pd.DataFrame], Judgement], own: pd.DataFrame, others: pd.DataFrame, seed: int
) -> pd.DataFrame:
    """The `verdicts_table` of one claim that a `rule` judges by a table with a column images.

    `own` is the table of the first seed, `others` holds those of further trainings, joined.
    """
    tables = {named(seed): own} | apart(others)
    judged = {name: {claim: rule(table)} for name, table in tables.items()}
    return verdicts_table(judged, {name: int(table["images"].min()) for name, table in tables.items()})


@checked_arguments()
def together(*tables: pd.DataFrame) -> pd.DataFrame:
    """The `verdicts_table` of several claims in one."""
    return pd.concat(tables, ignore_index=True)


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
