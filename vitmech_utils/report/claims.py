"""The scoreboard: a run's artefacts turned into one row per claim of the study, and per question it leaves open."""

from pathlib import Path

import pandas as pd

from vitmech_utils.studies import verdicts
from vitmech_utils.studies.ablation import judge as ablation
from vitmech_utils.studies.attacks import judge as attacks
from vitmech_utils.studies.mechanism import judge as mechanism
from vitmech_utils.studies.origin import judge as origin
from vitmech_utils.studies.pruning import judge as pruning
from vitmech_utils.studies.recordings import judge as recordings
from vitmech_utils.studies.rows import TRAININGS as COLUMNS
from vitmech_utils.studies.rows import over_trainings
from vitmech_utils.studies.semantics import judge as semantics
from vitmech_utils.studies.tables import read_judged
from vitmech_utils.studies.task import judge as task
from vitmech_utils.studies.together import judge as together

STUDY = "arXiv 2503.18762"  # where every claim, and every figure in the column `study`, comes from
NEEDED = (ablation, semantics)  # a run without one of these chapters cannot be judged
BEYOND = (
    origin,
    pruning,
    together,
    attacks,
    recordings,
    task,
    mechanism,
)  # without one of these, its rows stay open
JUDGES = (*NEEDED, *BEYOND)
RULES = dict(sorted((name, rule) for judge in JUDGES for name, rule in judge.RULES.items()))
LIMITS = {
    **verdicts.LIMITS,
    **{name: limit for judge in JUDGES for name, limit in getattr(judge, "LIMITS", {}).items()},
}
TABLES = {name: (judge.CHAPTER, columns) for judge in JUDGES for name, columns in judge.TABLES.items()}
TRAININGS = {
    f"trainings_{judge.CHAPTER[:2]}": (judge.CHAPTER, COLUMNS)
    for judge in (ablation, semantics, origin, together, task)
}
"""The verdicts on several trainings, of the chapters that have more than one."""
OPTIONAL = {
    name: (judge.CHAPTER, columns)
    for judge in JUDGES
    for name, columns in getattr(judge, "OPTIONAL", {}).items()
} | TRAININGS
_OLDER_WORDS = {"cannot be told": verdicts.UNKNOWN}  # runs of before the word was chosen


def scoreboard(run: str | Path) -> pd.DataFrame:
    """Judge a run folder: one row per claim C1-C8 and per open question, with the columns of `Row`.

    The verdict on a claim that several trainings were asked about is that on all of them (`verdicts.across`).

    `run` holds the chapters' folders, such as `published/` or `results/laptop`. `frame.attrs` names the profile, says
    whether it is the quick one, and lists the claims that chapter 05 judged otherwise, by older rules. Raises
    `RunError` when a chapter or a table is missing, changed since its run, without a column or a row, or when the
    chapters are of different profiles; the message names the chapter to run.
    """
    artefacts = read_judged(Path(run), TABLES, [judge.CHAPTER for judge in NEEDED], OPTIONAL)
    found = {name: row for judge in JUDGES for name, row in judge.rows(artefacts).items()}
    one = pd.DataFrame([vars(row) for row in found.values()])
    judged = [artefacts.tables[name] for name in TRAININGS if name in artefacts.tables]
    for table in judged:
        found |= {name: over_trainings(row, table) for name, row in found.items()}
    frame = pd.DataFrame([vars(found[name]) for name in RULES]).astype({"images": "Int64"})
    name = artefacts.profile["name"]
    frame.attrs = {
        "profile": name,
        "quick": name == "quick",
        "judged_otherwise": _judged_otherwise(one, artefacts.tables["claims_c3_c6"]),
    }
    return frame


def _judged_otherwise(board: pd.DataFrame, chapter: pd.DataFrame) -> list[str]:
    joined = board.merge(chapter, left_on="id", right_on="claim", suffixes=("", "_then"))
    return joined[joined["verdict"] != joined["verdict_then"].replace(_OLDER_WORDS)]["id"].tolist()
