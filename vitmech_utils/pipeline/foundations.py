"""What all of a run rests on, in a few lines of MyST: backbone, trainings, images, recordings; read from its files."""

from pathlib import Path

import pandas as pd

from vitmech_utils.figures.tables import counted, word
from vitmech_utils.runs.manifests import RunError, read_manifest
from vitmech_utils.runs.run_folders import TRAINING
from vitmech_utils.strict_text import LARGEST_JSON, read_json

STUDY_BACKBONE = "google/vit-base-patch16-224"
SWEEP, CLASSES, RECORDINGS = "04_head_ablation", "05_mono_or_polysemantic", "11_real_spectrograms"
TASKS, ONE_HEAD = "12_another_task", "14_how_one_head_reads_a_chirp"


def foundations(run: Path) -> str:
    """Say it of a run folder; raises `RunError` where a chapter that every scoreboard needs is not there."""
    manifests = {name: read_manifest(run / name, _again(name, run)) for name in (TRAINING, SWEEP, CLASSES)}
    values = manifests[TRAINING]["profile"]["values"]
    verdict = run / TRAINING / "verdict.json"
    try:
        scored = int(read_json(verdict, LARGEST_JSON)["score"][0]["images"])
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        raise RunError(f"{verdict}: not what chapter 02 saves ({error}); {_again(TRAINING, run)}") from error
    sweep = pd.read_parquet(run / SWEEP / "sweep.parquet", columns=["images", "exact_images"])
    exact = sorted({int(count) for count in sweep["exact_images"]})
    lines = [
        f"**Backbone:** one, `{values['backbone']}`"
        + (
            ""
            if values["backbone"] == STUDY_BACKBONE
            else f"; the study's own, `{STUDY_BACKBONE}`, was not at hand"
        ),
        f"**Trainings:** {_trainings(run)}",
        f"**Images:** synthetic and held out, {scored:,} for the model's own loss, {int(sweep['images'].max()):,} for "
        f"the effects of single heads ({_range(exact)} of them exactly), {int(values['semantics']['images']):,} for "
        "what heads are about; fewer for attacks, pruning, sets of heads and pointing: each page says how many",
        f"**Recordings:** {_recordings(run)}",
    ]
    return "\n".join(f"- {line}" for line in lines)


def _trainings(run: Path) -> str:
    found: dict[str, list[str]] = {}
    for path in sorted([*run.glob("*/trainings_[0-9][0-9].parquet"), *run.glob(f"{ONE_HEAD}/heads.parquet")]):
        names = sorted(pd.read_parquet(path, columns=["training"])["training"].unique())
        if len(names) > 1:
            found[path.parent.name[:2]] = names
    if not found:
        return "one, so every claim is about a single model"
    most = max(len(names) for names in found.values())
    chapters = ", ".join(found)
    return (
        f"{most} of the same recipe from different seeds in {word(len(found), 'chapter', 'chapters')} {chapters}, "
        "one looked into in the others"
    )


def _recordings(run: Path) -> str:
    path = run / RECORDINGS / "claim_q2.parquet"
    if not path.is_file():
        return "none in this run"
    table = pd.read_parquet(path)
    kinds = ", ".join(table["kind"].unique())
    shared = (
        " and, through its order of heads, 12" if (run / TASKS / "shared_by_tasks.parquet").is_file() else ""
    )
    return f"{counted(int(table['recordings'].max()), 'real recording')} ({kinds}), in chapter 11{shared}"


def _range(counts: list[int]) -> str:
    return f"{counts[0]:,}" if counts[0] == counts[-1] else f"{counts[0]:,} to {counts[-1]:,}"


def _again(chapter: str, run: Path) -> str:
    return f"run `vitmech run {chapter[:2]} --run-dir {run}`"
