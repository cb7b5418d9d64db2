"""Where a run's chapters lie, who may write them, and whether what lies there may be read."""

import contextlib
import os
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from vitmech_utils.artefacts import digest, file_hash, json_text, write_json
from vitmech_utils.manifests import RunError, check_outputs, code_of, read_manifest, result_digest
from vitmech_utils.profiles import Profile

LOCK_SECONDS = 10.0  # a killed runner's kernel notices within a second or two and lets go
ADAPTERS = {
    "published": ("", "adapter"),
    "bare": ("bare-", "bare_adapter"),
    "classifier, title published": ("classifier-titled-", "classifiers"),
    "classifier, title none": ("classifier-untitled-", "classifiers"),
}
"""The kinds of adapters that the book ships: how their folders' names begin, and the profile key that asks for them."""


def find_run_dir(root: Path, profile_name: str, run_dir: str | Path | None = None) -> Path:
    """Resolve the run folder: the argument, else `$VITMECH_RUN_DIR`, else `results/<profile>` under the root."""
    chosen = run_dir or os.environ.get("VITMECH_RUN_DIR") or Path("results", profile_name)
    return (root / Path(chosen).expanduser()).resolve()


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


def checkpoint_folder(run: Path, name: str, profile: Profile, code: dict[str, Any]) -> Path:
    """Name the folder for a chapter's checkpoints: one for each profile and code, so nothing else is ever resumed."""
    key = digest([profile.hash, code["modules"]])[:16]
    return run / ".checkpoints" / f"{name}-{key}"


def published_adapter(seed: int, kind: str = "published", made_by: str = "") -> str:
    """Name the folder, from the clone's root, of the adapter that the book ships for a seed and a kind of ADAPTERS.

    Those that the published pages rest on, or with `made_by` the series that a profile made, such as `gpu`.
    """
    return "/".join(["published/adapters", *filter(None, [made_by]), f"{ADAPTERS[kind][0]}seed-{seed}"])


def check_chapter(run: Path, name: str, root: Path, profile: Profile) -> dict[str, Any]:
    """Return a finished chapter's manifest after holding it against the profile, the code and its own inputs.

    Raises `RunError` when the chapter is missing, damaged, stale or of another profile, naming what to run.
    """
    mend = f"run `vitmech run {name[:2]} --profile {profile.name}{_run_dir_flag(root, run, profile)}` first"
    folder = run / name
    manifest = read_manifest(folder, mend)
    if manifest["profile"]["hash"] != profile.hash:
        differing = _differing(manifest["profile"]["values"], profile.model_dump(mode="json"))
        raise RunError(
            f"{folder} was made with other profile values ({differing}); {mend} with the same values"
        )
    check_outputs(folder, manifest, mend)
    code = code_of(root / "notebooks" / f"{name}.ipynb")
    if code["notebook"] and manifest["code"]["notebook"]["code"] != code["notebook"]["code"]:
        raise RunError(f"{folder} is stale: notebooks/{name}.ipynb was edited since; {mend}")
    recorded = manifest["code"]["modules"]
    changed = sorted(path for path, value in code["modules"].items() if recorded.get(path) != value)
    if changed:
        raise RunError(f"{folder} is stale: {', '.join(changed)} changed since; {mend}")
    for source, expected in manifest["inputs"].items():
        if "path" in expected:  # an adapter from published/
            current = adapter_digest(root / expected["path"])
            if current != expected["digest"]:
                raise RunError(f"{folder} is stale: the adapter in {expected['path']} changed since; {mend}")
        elif result_digest(check_chapter(run, source, root, profile)) != expected["digest"]:
            raise RunError(f"{folder} is stale: {source} was run again since, with another result; {mend}")
    return manifest


def adapter_digest(folder: Path) -> str:
    """One hash over the files of an adapter folder."""
    return digest({path.name: file_hash(path) for path in sorted(folder.glob("*")) if path.is_file()})


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


def _run_dir_flag(root: Path, run: Path, profile: Profile) -> str:
    return "" if run == (root / "results" / profile.name).resolve() else f" --run-dir {run}"


def _differing(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> str:
    parts = []
    for key in sorted({*old, *new}):
        before, now = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(now, dict):
            parts.append(_differing(before, now, f"{prefix}{key}."))
        elif before != now:
            parts.append(f"{prefix}{key}: {before} then, {now} now")
    return ", ".join(part for part in parts if part)
