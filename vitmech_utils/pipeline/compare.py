"""Two runs side by side: effects, classes and verdicts, with intervals of the difference."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from vitmech_utils.artefacts import write_atomically
from vitmech_utils.figures.tables import counted, pipe_table
from vitmech_utils.report.claims import scoreboard
from vitmech_utils.runs.manifests import RunError, check_outputs, read_manifest
from vitmech_utils.statistics import SURE

SWEEP = ("04_head_ablation", "sweep")
CLASSES = ("05_mono_or_polysemantic", "classes")
KEYS = ["layer", "head"]
MOST = 12
"""How many heads a report names; the tables hold all."""
PACKAGES = ("python", "torch", "transformers", "peft")


@dataclass(frozen=True)
class Comparison:
    """What two runs share, as tables; a part that one of them lacks is None and its reason stands in `left_out`.

    `effects` [mode, layer, head, 0-based]: both effects with their bounds, in percent of the error, `difference`
    (second minus first) with `difference_low` and `difference_high`, and whether it is `clear` (0 lies outside).
    `classes`: both classes with their confidences, whether they `changed`, and whether both are `sure`. `verdicts`:
    both verdicts, and the difference of the measured values where both have one in the same unit.
    """

    one: Path
    other: Path
    effects: pd.DataFrame | None = None
    classes: pd.DataFrame | None = None
    verdicts: pd.DataFrame | None = None
    facts: list[tuple[str, str, str]] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    def text(self) -> str:
        """The report, as Markdown; layers and heads count from 1 in it."""
        parts = [f"# {self.one} and {self.other}", _facts(self.facts)]
        for title, table, write in (
            ("Effects", self.effects, _effects_text),
            ("Classes", self.classes, _classes_text),
            ("Verdicts", self.verdicts, _verdicts_text),
        ):
            if table is not None:
                parts += [f"## {title}", write(table)]
        if self.left_out:
            parts += ["## Not compared", "\n".join(f"- {reason}" for reason in self.left_out)]
        return "\n\n".join(parts) + "\n"

    def save(self, folder: Path) -> list[Path]:
        """Write every table as CSV into a folder, which is made where it is missing; returns the files."""
        folder.mkdir(parents=True, exist_ok=True)
        tables = {"effects": self.effects, "classes": self.classes, "verdicts": self.verdicts}
        return [
            write_atomically(
                folder / f"{name}.csv", lambda path, frame=frame: frame.to_csv(path, index=False)
            )
            for name, frame in tables.items()
            if frame is not None
        ]


def compare(one: Path, other: Path) -> Comparison:
    """Compare two run folders, such as `published` and `results/laptop`.

    Chapters are held against their manifests first. Raises `RunError` where a folder is no run, or where the two share
    neither effects nor classes nor verdicts.
    """
    for run in (one, other):
        if not any(run.glob("*/manifest.json")):
            raise RunError(
                f"{run}: not a run folder (no chapter in it has a manifest); name one such as results/quick"
            )
    left_out: list[str] = []

    def part(what: str, make: Callable[[], pd.DataFrame]) -> pd.DataFrame | None:
        try:
            return make()
        except RunError as error:
            left_out.append(f"{what}: {error}")
            return None

    effects = part("effects", lambda: effect_differences(*(read(run, *SWEEP) for run in (one, other))))
    classes = part("classes", lambda: class_differences(*(read(run, *CLASSES) for run in (one, other))))
    verdicts = part("verdicts", lambda: verdict_differences(scoreboard(one), scoreboard(other)))
    if effects is None and classes is None and verdicts is None:
        raise RunError(f"{one} and {other} share nothing to compare: {'; '.join(left_out)}")
    return Comparison(one, other, effects, classes, verdicts, made_by(one, other), left_out)


def difference(
    value: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    value_2: np.ndarray,
    low_2: np.ndarray,
    high_2: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The second value minus the first, with bounds made from those of both (Zou and Donner 2008).

    The bounds cover as the two intervals do when the runs are independent, and more often when they share images.
    """
    found = value_2 - value
    low_part = np.hypot(value_2 - low_2, high - value)
    high_part = np.hypot(high_2 - value_2, value - low)
    return found, found - low_part, found + high_part


def effect_differences(one: pd.DataFrame, other: pd.DataFrame) -> pd.DataFrame:
    """Join two sweeps by mode, layer and head; raises `RunError` where they have none in common."""
    columns = ["mode", *KEYS, "images", "effect", "low", "high"]
    both = _joined(one, other, columns, ["mode", *KEYS])
    bounds = [
        both[f"{name}{side}"].to_numpy(float) for side in ("", "_2") for name in ("effect", "low", "high")
    ]
    both["difference"], both["difference_low"], both["difference_high"] = difference(*bounds)
    both["clear"] = (both["difference_low"] > 0) | (both["difference_high"] < 0)
    return both


def class_differences(one: pd.DataFrame, other: pd.DataFrame) -> pd.DataFrame:
    """Join two tables of classes by layer and head; raises `RunError` where they have none in common."""
    both = _joined(one, other, [*KEYS, "class", "regions", "confidence"], KEYS)
    same = (both["class"] == both["class_2"]) & (both["regions"].fillna("") == both["regions_2"].fillna(""))
    both["changed"] = ~same
    both["sure"] = (both["confidence"] >= SURE) & (both["confidence_2"] >= SURE)
    return both


def verdict_differences(one: pd.DataFrame, other: pd.DataFrame) -> pd.DataFrame:
    """Join two scoreboards by claim."""
    columns = ["id", "claim", "verdict", "value", "low", "high", "unit"]
    both = one[columns].merge(other[columns].drop(columns="claim"), on="id", suffixes=("", "_2"))
    both["changed"] = both["verdict"] != both["verdict_2"]
    bounds = [
        pd.to_numeric(both[f"{name}{side}"]).to_numpy(float)
        for side in ("", "_2")
        for name in ("value", "low", "high")
    ]
    same_unit = (both["unit"] == both["unit_2"]).to_numpy()
    for name, values in zip(
        ("difference", "difference_low", "difference_high"), difference(*bounds), strict=True
    ):
        both[name] = np.where(same_unit, values, np.nan)
    return both


def read(run: Path, chapter: str, table: str) -> pd.DataFrame:
    """A table of a run, its chapter's manifest checked; raises `RunError`."""
    mend = f"run `vitmech run {chapter[:2]} --run-dir {run}`"
    manifest = read_manifest(run / chapter, mend)
    check_outputs(run / chapter, manifest, mend)
    if f"{table}.parquet" not in manifest["outputs"]:
        raise RunError(f"{run / chapter}: it left no {table}.parquet; {mend}")
    return pd.read_parquet(run / chapter / f"{table}.parquet")


def made_by(one: Path, other: Path) -> list[tuple[str, str, str]]:
    """What the two runs were made by, where a chapter of both tells: name, first, second."""
    shared = sorted(
        path.parent.name for path in one.glob("*/manifest.json") if (other / path.parent.name).is_dir()
    )
    manifests = []
    for run in (one, other):
        found = next((name for name in (SWEEP[0], CLASSES[0]) if name in shared), next(iter(shared), None))
        if found is None:
            return []
        manifests.append(read_manifest(run / found, f"run `vitmech run {found[:2]} --run-dir {run}`"))
    rows = [("profile", *(manifest["profile"]["name"] for manifest in manifests))]
    rows.append(("code", *(_code(manifest) for manifest in manifests)))
    rows.append(("device", *(manifest["device"]["name"] for manifest in manifests)))
    rows.append(("seeds", *(", ".join(map(str, manifest["seeds"])) for manifest in manifests)))
    for name in PACKAGES:
        rows.append((name, *(manifest["packages"].get(name, "not recorded") for manifest in manifests)))
    values = [_flat(manifest["profile"]["values"]) for manifest in manifests]
    for key in sorted(set(values[0]) | set(values[1])):
        before, now = (flat.get(key, "not there") for flat in values)
        if before != now and key != "name":
            rows.append((f"profile: {key}", str(before), str(now)))
    return rows


def _joined(one: pd.DataFrame, other: pd.DataFrame, columns: list[str], keys: list[str]) -> pd.DataFrame:
    for frame in (one, other):
        if missing := [column for column in columns if column not in frame]:
            raise RunError(
                f"a table has no column {', '.join(missing)}; run its chapter again with this version"
            )
        if frame.duplicated(keys).any():
            raise RunError(f"a table has two rows for one {', '.join(keys)}; run its chapter again")
    both = one[columns].merge(other[columns], on=keys, suffixes=("", "_2"), validate="one_to_one")
    if both.empty:
        raise RunError(f"no row has the same {', '.join(keys)} in both runs")
    return both


def _code(manifest: dict[str, Any]) -> str:
    code = manifest["code"]
    return (
        f"{code['version']} {(code['commit'] or 'no commit')[:9]}{', modified' if code['modified'] else ''}"
    )


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found = {}
    for key, value in values.items():
        found |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found


def _facts(rows: list[tuple[str, str, str]]) -> str:
    told = [(name, one, other if other != one else "the same") for name, one, other in rows]
    return pipe_table(["", "first", "second"], told)


def _effects_text(both: pd.DataFrame) -> str:
    parts = []
    for mode, part in both.groupby("mode", sort=False):
        clear = part[part["clear"]]
        rank = part["effect"].rank().corr(part["effect_2"].rank())
        chance = 0.05 * len(part)
        parts.append(
            f"By {mode} ablation, {counted(len(part), 'head')}: rank correlation {rank:.3f}; the difference's 95 % "
            f"interval excludes 0 for {len(clear)} (about {chance:.0f} would by chance alone)."
            if (part["difference"] != 0).any()
            else f"By {mode} ablation, {counted(len(part), 'head')}: the effects are the same."
        )
        order = clear["difference"].abs().sort_values(ascending=False).index[:MOST]
        if len(order):
            rows = [
                (
                    f"layer {row.layer + 1}, head {row.head + 1}",
                    f"{row.effect:+.1f} [{row.low:+.1f}, {row.high:+.1f}]",
                    f"{row.effect_2:+.1f} [{row.low_2:+.1f}, {row.high_2:+.1f}]",
                    f"{row.difference:+.1f} [{row.difference_low:+.1f}, {row.difference_high:+.1f}]",
                )
                for row in clear.loc[order].itertuples()
            ]
            parts.append(pipe_table(["", "first (%)", "second (%)", "difference"], rows))
    parts.append(
        "Differences are second minus first, in percentage points. Their intervals hold for independent runs, and are "
        "wider than need be where both used the same images."
    )
    return "\n\n".join(parts)


def _classes_text(both: pd.DataFrame) -> str:
    changed = both[both["changed"]]
    counts = pd.crosstab(both["class"], both["class_2"])
    table = pipe_table(
        ["first, second across", *map(str, counts.columns)],
        [(name, *map(str, row)) for name, row in zip(counts.index, counts.to_numpy(), strict=True)],
    )
    sure = int(changed["sure"].sum())
    text = f"{len(changed)} of {counted(len(both), 'head')} changed class or regions, {sure} where both runs are sure."
    rows = [
        (
            f"layer {row.layer + 1}, head {row.head + 1}",
            f"{row.class_} {row.regions}".strip(),
            f"{row.class_2} {row.regions_2}".strip(),
            "yes" if row.sure else "no",
        )
        for row in changed.rename(columns={"class": "class_"})
        .sort_values("sure", ascending=False)[:MOST]
        .itertuples()
    ]
    return "\n\n".join(
        [text, table, *([pipe_table(["", "first", "second", "both sure"], rows)] if rows else [])]
    )


def _verdicts_text(both: pd.DataFrame) -> str:
    rows = []
    for row in both.itertuples():
        bounds = f"[{row.difference_low:+.3g}, {row.difference_high:+.3g}] {row.unit}"
        shown = "" if np.isnan(row.difference) else f"{row.difference:+.3g} {bounds}"
        rows.append((row.id, row.claim, row.verdict, row.verdict_2 if row.changed else "the same", shown))
    text = f"{int(both['changed'].sum())} of {counted(len(both), 'verdict')} differ."
    return f"{text}\n\n{pipe_table(['', 'claim', 'first', 'second', 'difference of the values'], rows)}"
