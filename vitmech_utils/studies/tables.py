"""The tables that the scoreboard judges: read from a run folder, and checked."""

import types
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from vitmech_utils.runs.manifests import RunError, check_outputs, read_manifest
from vitmech_utils.runs.sections import values_read
from vitmech_utils.statistics import Interval

BOUNDS = ("low", "high")
"""The columns of an interval's ends."""
EARLY_CHOICE = "layers 1-3"


@dataclass(frozen=True)
class JudgedRun:
    """The tables of one run, checked, with the profile that made them: of sections, each chapter's own."""

    folder: Path
    profile: dict[str, Any]
    tables: dict[str, pd.DataFrame]
    chapters: dict[str, str]
    profiles: dict[str, dict[str, Any]]

    def has(self, chapter: str) -> bool:
        """Whether the run holds a chapter."""
        return chapter in self.chapters.values()

    def chapter_of(self, table: str) -> str:
        """The chapter that left a table."""
        return self.chapters[table]

    def early_pruned(self, recovered: bool) -> pd.Series | None:
        """Chapter 08's model without the heads of layers 1-3; None where the chapter has not run, else `RunError`."""
        if "pruned" not in self.tables:
            return None
        table, chapter = self.tables["pruned"], self.chapter_of("pruned")
        found = table[(table["choice"] == EARLY_CHOICE) & (table["recovered"] == recovered)]
        if len(found) != 1:
            raise RunError(
                f"{self.folder / chapter}/pruned.parquet: {len(found)} rows for {EARLY_CHOICE}, recovered {recovered}, "
                f"expected one; {how_to_rerun(chapter, self.folder)}"
            )
        return found.iloc[0]

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
        return self.images("semantics", self.chapter_of("classes"))

    def images(self, section: str, chapter: str) -> int:
        """The images that a section of the profile gave a chapter."""
        return int(self.profiles[chapter]["values"][section]["images"])

    def swept(self, mode: str) -> pd.DataFrame:
        """One mode's effects; raises `RunError` when the sweep has none."""
        part = self.tables["sweep"][self.tables["sweep"]["mode"] == mode]
        if part.empty:
            raise RunError(
                f"{self.folder / self.chapter_of('sweep')}/sweep.parquet: no effects by {mode} ablation; "
                f"{how_to_rerun(self.chapter_of('sweep'), self.folder)}"
            )
        return part

    def interval(self, table: str, **where: str) -> Interval:
        """The one interval of a table in the row that has these values; raises `RunError` otherwise."""
        found = self.tables[table]
        for column, wanted in where.items():
            found = found[found[column] == wanted]
        chapter = self.chapter_of(table)
        if len(found) != 1:
            raise RunError(
                f"{self.folder / chapter / table}.parquet: {len(found)} rows with {where}, expected one; "
                f"{how_to_rerun(chapter, self.folder)}"
            )
        row = found.iloc[0]
        value = row["correlation"] if "correlation" in found else row["value"]
        return Interval(float(value), float(row["low"]), float(row["high"]))


def read_judged(
    run: Path,
    contract: Mapping[str, tuple[str, tuple[str, ...]]],
    needed: Collection[str],
    optional: Mapping[str, tuple[str, tuple[str, ...]]] = types.MappingProxyType({}),
) -> JudgedRun:
    """Read what the scoreboard judges; raises `RunError`, as `scoreboard` says.

    `contract` names, for every table, the chapter that leaves it and the columns it must have; `needed` lists the
    chapters that the run must hold. `optional` is a contract for tables that are read where a chapter has left them.
    """
    present = {chapter for chapter, _ in contract.values() if chapter in needed or (run / chapter).is_dir()}
    profiles = {}
    for chapter in sorted(present):
        manifest = read_manifest(run / chapter, how_to_rerun(chapter, run))
        check_outputs(run / chapter, manifest, how_to_rerun(chapter, run))
        profiles[chapter] = manifest["profile"]
    shared = [(profile["name"], values_read(profile["values"], ())) for profile in profiles.values()]
    if any(values != shared[0] for values in shared):
        made = ", ".join(f"{chapter[:2]} ({profile['name']})" for chapter, profile in profiles.items())
        raise RunError(
            f"{run}: chapters {made} were made with different profile values; run `vitmech run all` on it"
        )
    chapters = {name: chapter for name, (chapter, _) in contract.items() if chapter in present}
    chapters |= {
        name: chapter
        for name, (chapter, _) in optional.items()
        if chapter in present and (run / chapter / f"{name}.parquet").is_file()
    }
    contract = {**optional, **contract}
    tables = {name: _table(run, name, *contract[name]) for name in chapters}
    return JudgedRun(run, next(iter(profiles.values())), tables, chapters, profiles)


def _table(run: Path, name: str, chapter: str, columns: tuple[str, ...]) -> pd.DataFrame:
    path = run / chapter / f"{name}.parquet"
    if not path.is_file():
        raise RunError(f"{path}: not there; {how_to_rerun(chapter, run)}")
    try:
        frame = pd.read_parquet(path)
    except (OSError, ValueError) as error:  # pyarrow's errors are of these kinds
        raise RunError(f"{path}: not a table ({error}); {how_to_rerun(chapter, run)}") from error
    if missing := [column for column in columns if column not in frame]:
        raise RunError(f"{path}: no column {', '.join(missing)}; {how_to_rerun(chapter, run)}")
    if frame.empty:
        raise RunError(f"{path}: no rows; {how_to_rerun(chapter, run)}")
    return frame


def how_to_rerun(chapter: str, run: Path) -> str:
    """Name the command that makes a chapter's artefacts anew."""
    return f"run `vitmech run {chapter[:2]} --run-dir {run}`"
