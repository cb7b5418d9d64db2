"""The tables that the scoreboard judges: read from a run folder, and checked."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from vitmech_utils.manifests import RunError, check_outputs, read_manifest
from vitmech_utils.statistics import Interval

ABLATION, SEMANTICS = "04_head_ablation", "05_mono_or_polysemantic"
_CLASSES = ("layer", "head", "class", "regions", "confidence", "map_entropy")
_INTERVAL = ("low", "high")
# What is read: the chapter that leaves a table, and the columns it must have.
TABLES: dict[str, tuple[str, tuple[str, ...]]] = {
    "claims_c1_c2": (ABLATION, ("mode", "quantity", "value", *_INTERVAL)),
    "sweep": (ABLATION, ("layer", "head", "mode", "images", "effect", *_INTERVAL, "q_value")),
    "untrained": (ABLATION, ("layer", "mode", "images", "effect")),
    "head_sets": (ABLATION, ("set", "effect", *_INTERVAL, "sum_of_single")),
    "classes": (SEMANTICS, _CLASSES),
    "untrained_classes": (SEMANTICS, _CLASSES),
    "pretrained_classes": (SEMANTICS, _CLASSES),
    "claims_c3_c6": (SEMANTICS, ("claim", "verdict")),
    "class_changes": (SEMANTICS, ("regions_before", "regions_after", "changed")),
    "importance_and_focus": (SEMANTICS, ("mode", "heads", "correlation", *_INTERVAL, "p_value")),
}


@dataclass(frozen=True)
class JudgedRun:
    """The tables of one run, checked, with the profile that made them."""

    folder: Path
    profile: dict[str, Any]
    tables: dict[str, pd.DataFrame]

    @property
    def mode(self) -> str:
        """The mode that chapter 04 judges by: the first of its sweep."""
        return str(self.tables["sweep"]["mode"].iloc[0])

    @property
    def focus_mode(self) -> str:
        """The mode that chapter 05 judges by: the first of its correlations."""
        return str(self.tables["importance_and_focus"]["mode"].iloc[0])

    @property
    def semantics_images(self) -> int:
        """How many images chapter 05 classified the heads by."""
        return int(self.profile["values"]["semantics"]["images"])

    def swept(self, mode: str) -> pd.DataFrame:
        """One mode's effects; raises `RunError` when the sweep has none."""
        part = self.tables["sweep"][self.tables["sweep"]["mode"] == mode]
        if part.empty:
            raise RunError(
                f"{self.folder / ABLATION}/sweep.parquet: no effects by {mode} ablation; "
                f"{how_to_mend(ABLATION, self.folder)}"
            )
        return part

    def interval(self, table: str, **where: str) -> Interval:
        """The one interval of a table in the row that has these values; raises `RunError` otherwise."""
        found = self.tables[table]
        for column, wanted in where.items():
            found = found[found[column] == wanted]
        chapter = TABLES[table][0]
        if len(found) != 1:
            raise RunError(
                f"{self.folder / chapter / table}.parquet: {len(found)} rows with {where}, expected one; "
                f"{how_to_mend(chapter, self.folder)}"
            )
        row = found.iloc[0]
        value = row["correlation"] if "correlation" in found else row["value"]
        return Interval(float(value), float(row["low"]), float(row["high"]))


def read_judged(run: Path) -> JudgedRun:
    """Read what the scoreboard judges; raises `RunError`, as `scoreboard` says."""
    manifests = {}
    for chapter in (ABLATION, SEMANTICS):
        manifests[chapter] = read_manifest(run / chapter, how_to_mend(chapter, run))
        check_outputs(run / chapter, manifests[chapter], how_to_mend(chapter, run))
    profiles = [manifest["profile"] for manifest in manifests.values()]
    if profiles[0]["hash"] != profiles[1]["hash"]:
        raise RunError(
            f"{run}: chapters 04 ({profiles[0]['name']}) and 05 ({profiles[1]['name']}) were made with different "
            "profile values; run `vitmech run all` on it"
        )
    return JudgedRun(run, profiles[0], {name: _table(run, name) for name in TABLES})


def _table(run: Path, name: str) -> pd.DataFrame:
    chapter, columns = TABLES[name]
    path = run / chapter / f"{name}.parquet"
    if not path.is_file():
        raise RunError(f"{path}: not there; {how_to_mend(chapter, run)}")
    try:
        frame = pd.read_parquet(path)
    except (OSError, ValueError) as error:  # pyarrow's errors are of these kinds
        raise RunError(f"{path}: not a table ({error}); {how_to_mend(chapter, run)}") from error
    if missing := [column for column in columns if column not in frame]:
        raise RunError(f"{path}: no column {', '.join(missing)}; {how_to_mend(chapter, run)}")
    if frame.empty:
        raise RunError(f"{path}: no rows; {how_to_mend(chapter, run)}")
    return frame


def how_to_mend(chapter: str, run: Path) -> str:
    """Name the command that makes a chapter's artefacts anew."""
    return f"run `vitmech run {chapter[:2]} --run-dir {run}`"
