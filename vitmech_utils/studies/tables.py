"""The tables that the scoreboard judges: read from a run folder, and checked."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from vitmech_utils.runs.manifests import RunError, check_outputs, read_manifest
from vitmech_utils.statistics import Interval

ABLATION, SEMANTICS = "04_head_ablation", "05_mono_or_polysemantic"
ORIGIN, PRUNING = "07_inherited_or_emergent", "08_can_early_heads_go"
TOGETHER, ATTACKS = "09_heads_together", "10_attacks_through_decorations"
RECORDINGS, TASK = "11_real_spectrograms", "12_another_task"
NEEDED, BEYOND = (
    (ABLATION, SEMANTICS),
    (ORIGIN, PRUNING, TOGETHER, ATTACKS, RECORDINGS, TASK),
)  # a run without a chapter of BEYOND leaves its rows open
_CLASSES = ("layer", "head", "class", "regions", "confidence", "map_entropy")
_INTERVAL = ("low", "high")
_EFFECTS = tuple(f"{key}{kind}" for kind in ("", "_same_training") for key in ("effect", *_INTERVAL))
_MOVES = (
    *("before", "after", "layer", "class_before", "class_after", "regions_before", "regions_after"),
    *("subject_before", "subject_after", "sure"),
)
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
    "transitions": (ORIGIN, _MOVES),
    "recipe": (ORIGIN, ("what", "fine-tuned", "bare")),
    "by_chance": (ORIGIN, ("subject_before", "subject_after", "sure")),
    "pruned": (PRUNING, ("name", "choice", "heads", "recovered", "images", *_EFFECTS)),
    "random_sets": (PRUNING, ("effect",)),
    "timings_summary": (
        PRUNING,
        ("model", "device", "batch", "compiled", "speedup", "speedup_low", "speedup_high"),
    ),
    "groups": (TOGETHER, ("set", "kind", "effect", "low_effect", "high_effect", "sum_of_single", "excess")),
    "claim_q7": (TOGETHER, ("quantity", "value", *_INTERVAL, "of", "images")),
    "claim_q2": (RECORDINGS, ("kind", "kept", *_INTERVAL, "heads", "pieces", "windows", "recordings")),
    "controls": (RECORDINGS, ("pair", "asked", "lift", *_INTERVAL)),
    "claim_q5": (TASK, ("kind", "quantity", "value", *_INTERVAL, "images", "sweep_images", "heads")),
    "claims_c8_q6": (
        ATTACKS,
        ("target", "quantity", "value", *_INTERVAL, "heads", "images", "budget", "pixels"),
    ),
}


@dataclass(frozen=True)
class JudgedRun:
    """The tables of one run, checked, with the profile that made them."""

    folder: Path
    profile: dict[str, Any]
    tables: dict[str, pd.DataFrame]

    def has(self, chapter: str) -> bool:
        """Whether the run holds a chapter; those of `NEEDED` it always does."""
        return any(TABLES[name][0] == chapter for name in self.tables)

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
    chapters = [*NEEDED, *(chapter for chapter in BEYOND if (run / chapter).is_dir())]
    profiles = {}
    for chapter in chapters:
        manifest = read_manifest(run / chapter, how_to_mend(chapter, run))
        check_outputs(run / chapter, manifest, how_to_mend(chapter, run))
        profiles[chapter] = manifest["profile"]
    if len({profile["hash"] for profile in profiles.values()}) > 1:
        made = ", ".join(f"{chapter[:2]} ({profile['name']})" for chapter, profile in profiles.items())
        raise RunError(
            f"{run}: chapters {made} were made with different profile values; run `vitmech run all` on it"
        )
    tables = {name: _table(run, name) for name, (chapter, _) in TABLES.items() if chapter in chapters}
    return JudgedRun(run, profiles[ABLATION], tables)


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
