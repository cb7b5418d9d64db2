"""Where a run's chapters lie, who may write them, and whether what lies there may be read."""

import contextlib
import os
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from vitmech_utils.arguments import shown
from vitmech_utils.artefacts import digest, json_text, write_json
from vitmech_utils.profiles import Profile
from vitmech_utils.runs.code import hashes, training_files
from vitmech_utils.runs.manifests import RunError
from vitmech_utils.runs.standing import adapter_digest
from vitmech_utils.strict_text import LARGEST_JSON, read_json

TRAINING = "02_lora_fine_tuning"
TRAINING_VALUES = ("backbone", "adapter", "bare_adapter", "classifiers", "train")
LOCK_SECONDS = 10.0  # a killed runner's kernel notices within a second or two and lets go
REAL_FOLDS = "published/adapters/recordings"
ADAPTERS = {
    "published": ("", "adapter"),
    "bare": ("bare-", "bare_adapter"),
    "classifier, title published": ("classifier-titled-", "classifiers"),
    "classifier, title none": ("classifier-untitled-", "classifiers"),
}
"""The kinds of adapters that the book ships: how their folders' names begin, and the profile key that asks for them."""
RECOVERIES = ("layers-1-3", "unpruned")
"""What was removed before each kept recovery of chapter 08; the second is the control."""


def find_run_dir(root: Path, profile_name: str, run_dir: str | Path | None = None) -> Path:
    """Resolve the run folder: the argument, else `$VITMECH_RUN_DIR`, else `results/<profile>` under the root."""
    chosen = run_dir or os.environ.get("VITMECH_RUN_DIR") or Path("results", profile_name)
    return (root / at_home(chosen)).resolve()


def at_home(path: str | Path) -> Path:
    """A path with `~` and `~name` replaced by that home; raises `RunError` where there is no such home, or no path."""
    try:
        if "\0" in str(path):
            raise ValueError("a null character")
        return Path(path).expanduser()
    except (RuntimeError, ValueError, TypeError) as error:
        raise RunError(
            f"{shown(path)} is no path of a folder ({error}): name one, such as results/mine"
        ) from None


def note_profile(run: Path, profile: Profile) -> Path:
    """Keep the profile's values in the run folder; the file is touched only when they change, as Snakemake needs."""
    path = run / ".profile.json"
    values = profile.model_dump(mode="json")
    if not path.is_file() or path.read_text(encoding="utf-8") != json_text(values):
        write_json(path, values)
    return path


def partial_folder(run: Path, name: str) -> Path:
    """Name the folder that a chapter fills until it is closed."""
    return run / f".{name}.partial"


def drop_partial(run: Path, name: str) -> None:
    """Remove what an ended kernel left half-filled; that of a kernel still at work is left to it."""
    with contextlib.suppress(Timeout), FileLock(lock_file(run, name), timeout=1):
        shutil.rmtree(partial_folder(run, name), ignore_errors=True)
        shutil.rmtree(finished_folder(run, name), ignore_errors=True)


def finished_folder(run: Path, name: str) -> Path:
    """Name the folder in which a closed chapter waits for `vitmech run` to add its page and put it in place."""
    return run / f".{name}.finished"


def checkpoint_folder(run: Path, name: str, root: Path, profile: Profile) -> Path:
    """Name the folder for a chapter's checkpoints: one for each training, so that nothing else is ever resumed.

    What counts is the code that trains (with the model and the data that it imports), the profile's values for
    trainings, and the adapter that the profile reads. What is drawn, or computed after the training, does not.
    """
    notebook = root / "notebooks" / f"{name}.ipynb"
    code = hashes(training_files(notebook)) if notebook.is_file() else {}
    key = digest([code, _training_values(profile), _adapter(run, name, root, profile)])[:16]
    return run / ".checkpoints" / f"{name}-{key}"


def _training_values(profile: Profile) -> dict[str, Any]:
    values = profile.model_dump(mode="json")
    kept = {key: values[key] for key in TRAINING_VALUES}
    task = {key: values["task"][key] for key in ("steps", "batch_size", "learning_rate", "every")}
    return {**kept, "task": task, "seed": profile.seeds[0]}


def _adapter(run: Path, name: str, root: Path, profile: Profile) -> str:
    """The digest of the adapter that a chapter's trainings may begin from; chapter 02's begin from none."""
    if name == TRAINING:
        return ""
    published = root / published_adapter(profile.seeds[0])
    return adapter_digest(run / TRAINING / "adapter" if profile.adapter == "train" else published)


def published_adapter(seed: int, kind: str = "published") -> str:
    """Name the folder, from the clone's root, of the adapter that the book ships for a seed and a kind of ADAPTERS."""
    return f"published/adapters/{ADAPTERS[kind][0]}seed-{seed}"


def kept_recoveries(seed: int) -> dict[str, str]:
    """Name the folders, from the clone's root, of the longer recoveries that the book ships, by name of RECOVERIES."""
    return {name: f"published/adapters/recoveries/{name}-seed-{seed}" for name in RECOVERIES}


def adapter_backbone(folder: Path) -> str:
    """The backbone that an adapter folder says it was trained on; raises `RunError` where it says nothing sound."""
    try:
        found = read_json(folder / "regressor.json", LARGEST_JSON)["backbone"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(
            f"{folder}: damaged adapter (regressor.json: {error}). Restore it, or train it again."
        ) from error
    return str(found)


def lock_file(run: Path, name: str) -> Path:
    """Name the file that whoever writes a chapter holds locked."""
    return run / ".locks" / f"{name}.lock"


def acquire(path: Path) -> FileLock:
    """Lock a chapter for this process; raises `RunError` that says who holds it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path, timeout=LOCK_SECONDS)
    owner = path.with_suffix(".owner")
    try:
        lock.acquire()
    except Timeout:
        who = owner.read_text(encoding="utf-8") if owner.is_file() else "another process"
        raise RunError(
            f"{path.parent.parent / path.stem} is being written by {who}; wait for it, shut that kernel down, "
            "or choose another folder with --run-dir"
        ) from None
    owner.write_text(f"process {os.getpid()} since {datetime.now(UTC):%Y-%m-%d %H:%M} UTC", encoding="utf-8")
    return lock
