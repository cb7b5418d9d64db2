"""Run folders: where a chapter leaves its artefacts, and how it reads those of the chapters before it."""

import contextlib
import importlib
import json
import os
import shutil
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from filelock import FileLock, Timeout

from vitmech_utils.artefacts import (
    digest,
    file_hash,
    folder_hashes,
    json_text,
    to_numpy,
    to_plain,
    write_atomically,
    write_json,
)
from vitmech_utils.devices import pick_device
from vitmech_utils.manifests import (
    FORMAT,
    RunError,
    check_outputs,
    code_of,
    code_version,
    machine,
    package_versions,
    peak_memory_mib,
    read_manifest,
    result_digest,
    write_manifest,
)
from vitmech_utils.profiles import Profile, load_profile, repository_root

if TYPE_CHECKING:
    import matplotlib.figure
    import torch

TRAINING = "02_lora_fine_tuning"
FIGURES = ("published", "bare")
LOCK_SECONDS = 10.0  # a killed runner's kernel notices within a second or two and lets go
_open_chapters: dict[Path, "Chapter"] = {}


def open_chapter(
    name: str,
    profile: str | Path | Profile = "quick",
    run_dir: str | Path | None = None,
    overrides: dict[str, Any] | None = None,
    root: Path | None = None,
) -> "Chapter":
    """Begin a chapter's run: validate the profile, lock the chapter, give it an empty folder to fill.

    `run_dir` defaults to `$VITMECH_RUN_DIR`, else `results/<profile>`; relative paths count from the clone's root.
    What an earlier run left stays until `Chapter.close` replaces it. Raises `ProfileError` or `RunError`.
    """
    root = root or repository_root()
    values = profile if isinstance(profile, Profile) else load_profile(profile, overrides, root)
    folder = find_run_dir(root, values.name, run_dir) / name
    if folder in _open_chapters:  # the cell was run again in the same kernel
        _open_chapters[folder].abandon()
    return Chapter(name, values, folder, root)


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


def published_adapter(seed: int, figures: str = "published") -> str:
    """Name the folder, from the clone's root, of the adapter that the book ships for a seed and kind of figures."""
    return f"published/adapters/{'bare-' if figures == 'bare' else ''}seed-{seed}"


def drop_partial(run: Path, name: str) -> None:
    """Remove what an ended kernel left half-filled; that of a kernel still at work is left to it."""
    with contextlib.suppress(Timeout), FileLock(_lock_file(run, name), timeout=1):
        shutil.rmtree(partial_folder(run, name), ignore_errors=True)


def checkpoint_folder(run: Path, name: str, profile: Profile, code: dict[str, Any]) -> Path:
    """Name the folder for a chapter's checkpoints: one for each profile and code, so nothing else is ever resumed."""
    key = digest([profile.hash, code["modules"]])[:16]
    return run / ".checkpoints" / f"{name}-{key}"


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
            current = _adapter_digest(root / expected["path"])
            if current != expected["digest"]:
                raise RunError(f"{folder} is stale: the adapter in {expected['path']} changed since; {mend}")
        elif result_digest(check_chapter(run, source, root, profile)) != expected["digest"]:
            raise RunError(f"{folder} is stale: {source} was run again since, with another result; {mend}")
    return manifest


class Chapter:
    """One chapter's run: its profile, its device, the artefacts it saves and those it reads.

    Artefacts go to a `.partial` folder until `close` puts it, with its manifest, in the place of the old one.
    """

    def __init__(self, name: str, profile: Profile, folder: Path, root: Path) -> None:
        self.name, self.profile, self.root, self.run = name, profile, root, folder.parent
        self.final_folder = folder
        self.folder = partial_folder(self.run, name)
        self._inputs: dict[str, dict[str, str]] = {}
        self._manifests: dict[str, dict[str, Any]] = {}
        self._device: torch.device | None = None
        self._code = code_of(root / "notebooks" / f"{name}.ipynb")
        self._lock = _acquire(_lock_file(self.run, name))
        _open_chapters[folder] = self
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        self._closed = False
        self._started, self._clock = datetime.now(UTC), time.perf_counter()

    @property
    def device(self) -> "torch.device":
        """The torch device of this run; `auto` takes CUDA when there is one."""
        if self._device is None:
            self._device = pick_device(self.profile)
        return self._device

    @property
    def checkpoints(self) -> Path:
        """Where a training keeps what it needs to go on after a kill; emptied once the chapter is closed."""
        return checkpoint_folder(self.run, self.name, self.profile, self._code)

    def regressor(self, seed: int | None = None, attention: str = "sdpa", figures: str = "published") -> Any:
        """Load the fine-tuned ChirpRegressor, merged, in eval mode, on this run's device.

        It comes from chapter 02's run, or from `published/` when the profile says so. `seed` defaults to the
        profile's first; `attention` is transformers' implementation; for `figures` see `adapter_folder`. Raises
        `RunError` when it is not there.
        """
        folder = self.adapter_folder(seed, figures)
        regressor = importlib.import_module("vitmech_utils.model.regressor").ChirpRegressor
        return regressor.load(folder, attention=attention).merged().eval().to(self.device)

    def adapter_folder(self, seed: int | None = None, figures: str = "published") -> Path:
        """Return the folder of the adapter that this profile reads, and record its hash among the inputs.

        `figures` is what it was fine-tuned on: `published` (decorated, as the study has them) or `bare`. An adapter
        for bare figures that this run is to train itself lies in no folder yet: chapter 07 makes and keeps it.
        Raises `RunError` when it is not there, `ValueError` for other figures.
        """
        if figures not in FIGURES:
            raise ValueError(f"figures is {figures!r}, expected one of {', '.join(FIGURES)}")
        seed = self.profile.seeds[0] if seed is None else seed
        bare = figures == "bare"
        if (self.profile.bare_adapter if bare else self.profile.adapter) == "published":
            name = published_adapter(seed, figures)
            folder = self.root / name
            if not folder.is_dir():
                how = "-p bare_adapter=train" if bare else "--profile laptop"
                raise RunError(
                    f"{folder}: the published adapter for seed {seed} is not in this clone; restore published/ "
                    f"(git checkout -- published), or train one with {how}"
                )
            source = "adapter" if not bare else "bare adapter"
            self._inputs[source] = {"path": name, "digest": _adapter_digest(folder)}
            return folder
        if bare:
            raise RunError(
                "this profile trains its adapter for bare figures in chapter 07, and no other chapter reads it; "
                "-p bare_adapter=published takes the published one"
            )
        manifest = self._predecessor(TRAINING)
        name = "adapter" if seed == self.profile.seeds[0] else f"adapter-seed-{seed}"
        if not any(path.startswith(f"{name}/") for path in manifest["outputs"]):
            raise RunError(
                f"{self.run / TRAINING} holds no adapter for seed {seed}; the profile's seeds: {self.profile.seeds}"
            )
        return self.run / TRAINING / name

    def save_table(self, frame: pd.DataFrame, name: str) -> Path:
        """Save a table as `<name>.parquet`."""
        return self._save(f"{name}.parquet", lambda path: frame.to_parquet(path, index=False))

    def save_json(self, value: Any, name: str) -> Path:
        """Save plain values (NumPy scalars and arrays are converted, NaN becomes null) as `<name>.json`."""
        self._require_open()
        return write_json(self.folder / f"{name}.json", to_plain(value))

    def save_arrays(self, arrays: dict[str, Any], name: str) -> Path:
        """Save named arrays or tensors as `<name>.safetensors`."""
        from safetensors.numpy import save_file

        plain = {key: np.ascontiguousarray(to_numpy(value)) for key, value in arrays.items()}
        return self._save(f"{name}.safetensors", lambda path: save_file(plain, path))

    def save_figure(self, figure: "matplotlib.figure.Figure", name: str) -> Path:
        """Save a figure as `<name>.png` on its own background, without a date in it."""
        options = {"dpi": 150, "bbox_inches": "tight", "metadata": {"Software": None}}
        return self._save(f"{name}.png", lambda path: figure.savefig(path, format="png", **options))

    def read_table(self, chapter: str, name: str) -> pd.DataFrame:
        """Read another chapter's table, its manifest checked first; raises `RunError`."""
        return pd.read_parquet(self._artefact(chapter, f"{name}.parquet"))

    def read_json(self, chapter: str, name: str) -> Any:
        """Read another chapter's JSON, its manifest checked first; raises `RunError`."""
        return json.loads(self._artefact(chapter, f"{name}.json").read_text(encoding="utf-8"))

    def read_arrays(self, chapter: str, name: str) -> dict[str, np.ndarray]:
        """Read another chapter's arrays, its manifest checked first; raises `RunError`."""
        from safetensors.numpy import load_file

        return load_file(self._artefact(chapter, f"{name}.safetensors"))

    def close(self) -> dict[str, Any]:
        """Write the manifest and put the finished folder in its place; returns the manifest."""
        self._require_open()
        manifest = {
            "format": FORMAT,
            "chapter": self.name,
            "profile": {
                "name": self.profile.name,
                "hash": self.profile.hash,
                "values": self.profile.model_dump(mode="json"),
            },
            "code": {**code_version(self.root), **self._code},
            "packages": package_versions(),
            "device": machine(str(self.device)),
            "seeds": self.profile.seeds,
            "started": self._started.isoformat(timespec="seconds"),
            "wall_seconds": round(time.perf_counter() - self._clock, 3),
            "peak_memory_mib": peak_memory_mib(),
            "inputs": self._inputs,
            "outputs": folder_hashes(self.folder),
        }
        write_manifest(self.folder, manifest)
        outgoing = self.final_folder.with_name(f".{self.name}.old")
        shutil.rmtree(outgoing, ignore_errors=True)
        if self.final_folder.exists():
            self.final_folder.rename(outgoing)
        self.folder.rename(self.final_folder)
        self.folder = self.final_folder
        shutil.rmtree(outgoing, ignore_errors=True)
        shutil.rmtree(self.checkpoints, ignore_errors=True)
        self._release()
        return manifest

    def abandon(self) -> None:
        """Give up an unfinished run: drop its half-filled folder and its lock; checkpoints stay."""
        if not self._closed:
            shutil.rmtree(self.folder, ignore_errors=True)
            self._release()

    def _save(self, file_name: str, write: Any) -> Path:
        self._require_open()
        return write_atomically(self.folder / file_name, write)

    def _require_open(self) -> None:
        if self._closed:
            raise RunError(f"chapter {self.name} is closed; run its open_chapter cell again before saving")

    def _release(self) -> None:
        self._closed = True
        _open_chapters.pop(self.final_folder, None)
        self._lock.release()

    def _predecessor(self, chapter: str) -> dict[str, Any]:
        if chapter not in self._manifests:
            manifest = check_chapter(self.run, chapter, self.root, self.profile)
            self._manifests[chapter] = manifest
            self._inputs[chapter] = {"digest": result_digest(manifest)}
        return self._manifests[chapter]

    def _artefact(self, chapter: str, file_name: str) -> Path:
        manifest = self._predecessor(chapter)
        if file_name not in manifest["outputs"]:
            raise RunError(
                f"{chapter} left no {file_name}; it left {', '.join(manifest['outputs']) or 'nothing'}"
            )
        return self.run / chapter / file_name


def _adapter_digest(folder: Path) -> str:
    return digest({path.name: file_hash(path) for path in sorted(folder.glob("*")) if path.is_file()})


def _lock_file(run: Path, name: str) -> Path:
    return run / ".locks" / f"{name}.lock"


def _acquire(path: Path) -> FileLock:
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
