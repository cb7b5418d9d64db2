"""Run folders: where a chapter leaves its artefacts, and how it reads those of the chapters before it."""

import functools
import importlib
import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import pandas as pd

from vitmech_utils.artefacts import (
    MANIFEST,
    folder_hashes,
    json_text,
    to_numpy,
    to_plain,
    write_atomically,
)
from vitmech_utils.devices import pick_device
from vitmech_utils.own_folders import replace_folder
from vitmech_utils.profiles import Profile, load_profile, repository_root
from vitmech_utils.runs import kept
from vitmech_utils.runs.code import code_of, computing_predecessors
from vitmech_utils.runs.manifests import (
    FORMAT,
    RunError,
    code_version,
    cpu_seconds,
    machine,
    package_versions,
    peak_memory_mib,
    write_manifest,
)
from vitmech_utils.runs.run_folders import (
    ADAPTERS,
    REAL_FOLDS,
    TRAINING,
    acquire,
    adapter_backbone,
    checkpoint_folder,
    find_run_dir,
    finished_folder,
    lock_file,
    partial_folder,
    published_adapter,
)
from vitmech_utils.runs.standing import Standing, adapter_digest, command, standing_of

if TYPE_CHECKING:
    import matplotlib.figure
    import torch

REDRAW, WAIT = "VITMECH_REDRAW", "VITMECH_WAIT"
"""Environment variables of `vitmech run`: the chapter's folder to redraw, and the one whose page it will add."""
FIGURES = ("published", "bare")
Value = TypeVar("Value")
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


class Manifest(dict[str, Any]):
    """What `Chapter.close` wrote; as the last line of a notebook it shows in a sentence, not as pages of hashes."""

    def __repr__(self) -> str:
        count = len(self["outputs"])
        kept = f"{count} artefact{'' if count == 1 else 's'}"
        return f"{self['chapter']} is closed: {kept} in {self['wall_seconds']:.0f} s"


class Chapter:
    """One chapter's run: its profile, its device, the artefacts it saves and those it reads.

    Artefacts go to a `.partial` folder until `close` puts it, with its manifest, in the place of the old one. In a
    redraw that folder begins with what the last run kept.
    """

    def __init__(self, name: str, profile: Profile, folder: Path, root: Path) -> None:
        self.name, self.profile, self.root, self.run = name, profile, root, folder.parent
        self.final_folder = folder
        self.folder = partial_folder(self.run, name)
        self._inputs: dict[str, dict[str, Any]] = {}
        self._standings: dict[str, Standing] = {}
        self._device: torch.device | None = None
        self._checkpoints: Path | None = None
        notebook = root / "notebooks" / f"{name}.ipynb"
        self._code = code_of(notebook)
        self._read_to_compute = set(computing_predecessors(notebook)) if notebook.is_file() else None
        self._lock = acquire(lock_file(self.run, name))
        _open_chapters[folder] = self
        try:
            self._last = self._last_run() if os.environ.get(REDRAW) == str(folder) else None
            self._prepare()
        except BaseException:
            self._release()
            raise
        self._kept: dict[str, tuple[str, int] | None] = {}
        self._trace: dict[str, dict[str, float]] = {}
        self._computing, self._shown = 0, set()
        self._started, self._clock = datetime.now(UTC), time.perf_counter()

    def _last_run(self) -> dict[str, Any]:
        return standing_of(self.run, self.name, self.root, self.profile).manifest

    def _prepare(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        for file in self._last["computed"] if self._last else ():
            copied = self.folder / file
            copied.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(self.final_folder / file, copied)
        self._closed = False

    @property
    def device(self) -> "torch.device":
        """The torch device of this run; `auto` takes CUDA when there is one."""
        if self._device is None:
            self._device = pick_device(self.profile)
        return self._device

    @property
    def checkpoints(self) -> Path:
        """Where a training keeps what it needs to go on after a kill; emptied once the chapter is closed."""
        if self._checkpoints is None:
            self._checkpoints = checkpoint_folder(self.run, self.name, self.root, self.profile)
        return self._checkpoints

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

        A seed that this profile does not train is that of a published adapter.
        `figures` is what it was fine-tuned on: `published` (decorated, as the study has them) or `bare`. An adapter
        for bare figures that this run is to train itself lies in no folder yet: chapter 07 makes and keeps it.
        Raises `RunError` when it is not there, `ValueError` for other figures.
        """
        if figures not in FIGURES:
            raise ValueError(f"figures is {figures!r}, expected one of {', '.join(FIGURES)}")
        seed = self.profile.seeds[0] if seed is None else seed
        bare = figures == "bare"
        of_this_run = seed in self.profile.seeds
        if not of_this_run or (self.profile.bare_adapter if bare else self.profile.adapter) == "published":
            return self._published(figures, seed, "-p bare_adapter=train" if bare else "--profile laptop")
        if bare:
            raise RunError(
                "this profile trains its adapter for bare figures in chapter 07, and no other chapter reads it; "
                "-p bare_adapter=published takes the published one"
            )
        outputs = self._predecessor(TRAINING).manifest["outputs"]
        name = "adapter" if seed == self.profile.seeds[0] else f"adapter-seed-{seed}"
        files = [path for path in outputs if path.startswith(f"{name}/")]
        if not files:
            raise RunError(
                f"{self.run / TRAINING} holds no adapter for seed {seed}; the profile's seeds: {self.profile.seeds}"
            )
        self._note(TRAINING, files)
        return self.run / TRAINING / name

    def classifier_folder(self, title: str, seed: int | None = None) -> Path:
        """Return the folder of the published classifier for figures with a `title` (`published` or `none`).

        Its hash is recorded among the inputs. Raises `RunError` when it is not there or when this profile trains its
        classifiers itself (chapter 12 makes and keeps them), `ValueError` for another title.
        """
        kind = f"classifier, title {title}"
        if kind not in ADAPTERS:
            raise ValueError(f"title is {title!r}, expected published or none")
        if self.profile.classifiers != "published":
            raise RunError(
                "this profile trains its classifiers in chapter 12, and no other chapter reads them; "
                "-p classifiers=published takes the published ones"
            )
        seed = self.profile.seeds[0] if seed is None else seed
        return self._published(kind, seed, "-p classifiers=train")

    def real_folds(self, count: int) -> Path:
        """The folder of the published models that were fine-tuned on real chirps; `count` folds are noted as inputs.

        Raises `RunError` where one is not there, or belongs to another backbone than the profile's.
        """
        folder = self.root / REAL_FOLDS
        for number in range(count):
            one = folder / f"fold-{number}"
            if not one.is_dir():
                raise RunError(
                    f"{one}: not in this clone; restore published/ (git checkout -- published), or train it with "
                    f"python -m vitmech_utils.studies.recordings.folds --out {REAL_FOLDS}"
                )
            if (made_for := adapter_backbone(one)) != self.profile.backbone:
                raise RunError(
                    f"the profile's backbone is {self.profile.backbone!r}, but {REAL_FOLDS} belongs to {made_for!r}, "
                    "and heads of two backbones cannot be compared one by one: leave the backbone as it is"
                )
            name = f"{REAL_FOLDS}/{one.name}"
            self._inputs[f"real chirps, fold {number}"] = {"path": name, "digest": adapter_digest(one)}
        return folder

    def _published(self, kind: str, seed: int, how: str) -> Path:
        name = published_adapter(seed, kind)
        folder = self.root / name
        if not folder.is_dir():
            raise RunError(
                f"{folder}: the published adapter for seed {seed} is not in this clone; restore published/ "
                f"(git checkout -- published), or train one with {how}"
            )
        if (made_for := adapter_backbone(folder)) != self.profile.backbone:
            raise RunError(
                f"the profile's backbone is {self.profile.backbone!r}, but {name} belongs to {made_for!r}: a chapter "
                f"would analyse that model and not yours. Train an adapter for it with {how} (chapter 02 makes it), or "
                "leave the backbone as it is. For a model that needs no training: vitmech study MODEL IMAGES"
            )
        source = {"published": "adapter", "bare": "bare adapter"}.get(kind, kind)
        source += "" if seed == self.profile.seeds[0] else f", seed {seed}"
        self._inputs[source] = {"path": name, "digest": adapter_digest(folder)}
        return folder

    def keep(self, name: str, compute: Callable[[], Value]) -> Value:
        """Compute a value, keep it among the artefacts, and return it as it reads back: in the same types.

        Tables go to `<name>.parquet`; arrays, tensors and dataclasses of them (or dicts, lists and tuples of those) to
        `<name>.safetensors`; all else to `<name>.json`, as `save_json` writes it. Tensors come back on the processor.
        `vitmech redraw` returns what the last run kept and does not call `compute`. Raises `RunError` for a name that
        this chapter has used, `TypeError` or `ValueError` for what cannot be kept.
        """
        self._require_open()
        cell = _cell()
        self._refuse_taken(name, cell)
        if self._last:
            path = self._from_last_run(name)
        else:
            self._computing += 1
            wall, cpu = time.perf_counter(), cpu_seconds()
            try:
                path = kept.save(self.folder, name, compute())
            finally:
                self._computing -= 1
            if not self._computing:  # what one kept value computes for another is its own
                took = {"wall": time.perf_counter() - wall, "cpu": cpu_seconds() - cpu}
                self._trace[name] = {clock: round(max(seconds, 0.0), 3) for clock, seconds in took.items()}
        self._kept[name] = cell
        return kept.load(path)

    def _refuse_taken(self, name: str, cell: tuple[str, int] | None) -> None:
        if name in self._kept:
            before = self._kept[name]
            if not (cell and before and cell[0] == before[0] and cell[1] != before[1]):
                raise RunError(f"chapter {self.name} keeps {name!r} already; give this value another name")
            for path in () if self._last else kept.paths(self.folder, name):  # the same cell was run again
                path.unlink(missing_ok=True)
        saved = kept.find(self.folder, name)
        if saved and (not self._last or saved.name in self._shown):
            raise RunError(f"chapter {self.name} saved {saved.name} already; give this value another name")

    def _from_last_run(self, name: str) -> Path:
        path = kept.find(self.folder, name)
        if path is None:
            again = command("run", self.name, self.run, self.root, self.profile)
            raise RunError(f"{self.final_folder}: its run kept no {name!r}; run `{again}`")
        return path

    def lazy(self, compute: Callable[[], Value]) -> Callable[[], Value]:
        """Return a function that computes once, when it is first called: for what only heavy calls need."""
        return functools.cache(compute)

    def save_table(self, frame: pd.DataFrame, name: str) -> Path:
        """Save a table as `<name>.parquet`."""
        return self._save(f"{name}.parquet", lambda path: frame.to_parquet(path, index=False))

    def save_json(self, value: Any, name: str) -> Path:
        """Save plain values (NumPy scalars and arrays are converted, NaN becomes null) as `<name>.json`."""
        text = json_text(to_plain(value))
        return self._save(f"{name}.json", lambda path: path.write_text(text, encoding="utf-8"))

    def save_arrays(self, arrays: dict[str, Any], name: str) -> Path:
        """Save named arrays or tensors as `<name>.safetensors`."""
        from safetensors.numpy import save_file

        plain = {key: np.ascontiguousarray(to_numpy(value)) for key, value in arrays.items()}
        return self._save(f"{name}.safetensors", lambda path: save_file(plain, path))

    def save_figure(self, figure: "matplotlib.figure.Figure", name: str) -> Path:
        """Save a figure as `<name>.png` on its own background, without a date in it; its layout is settled then.

        Its titles, which say what it shows in this run, stand in the file as its description, too: a page tells them
        to those who do not see it.
        """
        titles = [
            figure.get_suptitle(),
            *(ax.get_title(loc) for ax in figure.axes for loc in ("left", "center")),
        ]
        said = "; ".join(dict.fromkeys(" ".join(title.split()) for title in titles if title.strip()))
        about = {"Software": None} | ({"Description": said} if said else {})
        options = {"dpi": 200, "bbox_inches": "tight", "metadata": about}
        saved = self._save(f"{name}.png", lambda path: figure.savefig(path, format="png", **options))
        # The page shows it as it was saved, without laying it out and, until it is changed, drawing it once more.
        figure.set_layout_engine("none")
        figure.saved_as, figure.stale = saved, False
        return saved

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

    def close(self) -> Manifest:
        """Write the manifest and put the finished folder in its place; returns the manifest.

        Under `vitmech run` the folder waits beside its place until its page is whole, too.
        """
        self._require_open()
        manifest = self._manifest()
        write_manifest(self.folder, manifest)
        if os.environ.get(WAIT) == str(self.final_folder):
            finished = finished_folder(self.run, self.name)
            shutil.rmtree(finished, ignore_errors=True)
            self.folder = self.folder.rename(finished)
        else:
            self.folder = replace_folder(self.folder, self.final_folder, MANIFEST)
            shutil.rmtree(self.checkpoints, ignore_errors=True)
        self._release()
        return Manifest(manifest)

    def _manifest(self) -> dict[str, Any]:
        outputs = folder_hashes(self.folder)
        made = {
            "code": code_version(self.root),
            "packages": package_versions(),
            "device": machine(str(self.device)),
            "started": self._started.isoformat(timespec="seconds"),
            "wall_seconds": round(time.perf_counter() - self._clock, 3),
        }
        if self._last:
            code = {
                **self._last["code"],
                "notebook": self._code["notebook"],
                "modules": self._code["modules"],
            }
            inputs = {
                **{name: read for name, read in self._last["inputs"].items() if read.get("computes", True)}
            }
            for name, read in self._inputs.items():
                files = {**inputs.get(name, {}).get("files", {}), **read.get("files", {})}
                inputs[name] = {**read, **({"files": files} if files else {})}
            again = {"code": code, "inputs": inputs, "outputs": outputs, "drawn": made}
            return {key: value for key, value in {**self._last, **again}.items() if key != "executed"}
        return {
            **made,
            "format": FORMAT,
            "chapter": self.name,
            "profile": {
                "name": self.profile.name,
                "hash": self.profile.hash,
                "values": self.profile.model_dump(mode="json"),
            },
            "code": {**made["code"], **self._code},
            "seeds": self.profile.seeds,
            "cpu_seconds": round(cpu_seconds(), 3),
            "trace": self._trace,
            "peak_memory_mib": peak_memory_mib(),
            "inputs": self._inputs,
            "outputs": outputs,
            "computed": sorted(outputs.keys() - self._shown),
        }

    def abandon(self) -> None:
        """Give up an unfinished run: drop its half-filled folder and its lock; checkpoints stay."""
        if not self._closed:
            shutil.rmtree(self.folder, ignore_errors=True)
            self._release()

    def _save(self, file_name: str, write: Any) -> Path:
        self._require_open()
        path = Path(file_name)
        if path.stem in self._kept and path.suffix in kept.SUFFIXES:
            raise RunError(f"chapter {self.name} keeps {path.stem!r} already; save this under another name")
        if self._computing:
            self._shown.discard(file_name)
        else:
            self._shown.add(file_name)
        return write_atomically(self.folder / file_name, write)

    def _require_open(self) -> None:
        if self._closed:
            raise RunError(f"chapter {self.name} is closed; run its open_chapter cell again before saving")

    def _release(self) -> None:
        self._closed = True
        _open_chapters.pop(self.final_folder, None)
        self._lock.release()

    def _predecessor(self, chapter: str) -> Standing:
        if chapter not in self._standings:
            self._standings[chapter] = standing_of(self.run, chapter, self.root, self.profile)
            self._note(chapter, [])
        return self._standings[chapter]

    def _note(self, chapter: str, files: list[str]) -> None:
        """Record what was read of another chapter."""
        computes = self._read_to_compute is None or chapter in self._read_to_compute or chapter == TRAINING
        noted = self._inputs.setdefault(chapter, {"files": {}, "computes": computes})["files"]
        noted |= {file: self._standings[chapter].manifest["outputs"][file] for file in files}

    def _artefact(self, chapter: str, file_name: str) -> Path:
        there = self._predecessor(chapter)
        manifest = there.manifest
        if file_name in manifest.get("too_large", {}):
            raise RunError(
                f"{self.run / chapter}: {file_name} was too large to be published; run {chapter[:2]} to make it again"
            )
        if file_name not in manifest["outputs"]:
            raise RunError(
                f"{chapter} left no {file_name}; it left {', '.join(manifest['outputs']) or 'nothing'}"
            )
        if not there.saves_stand and file_name not in manifest["computed"]:
            again = command(there.verb, chapter, self.run, self.root, self.profile)
            raise RunError(
                f"{self.run / chapter}: {there.to_redraw}, and {file_name} is made with its page; run `{again}`"
            )
        self._note(chapter, [file_name])
        return self.run / chapter / file_name


def _cell() -> tuple[str, int] | None:
    """The notebook cell at work and how often cells have been run; None where the front end names no cells."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    parent = shell.get_parent() if hasattr(shell, "get_parent") else {}
    cell = parent.get("metadata", {}).get("cellId")
    return (cell, shell.execution_count) if cell else None
