"""Manifests: what a chapter's run was made of, and whether that still holds."""

import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from vitmech_utils.artefacts import MANIFEST, RunError, digest, file_hash, write_json
from vitmech_utils.own_folders import restore_folder
from vitmech_utils.runs.manifest_form import Form

FORMAT = 2
LARGEST_MANIFEST = 10_000_000
PACKAGE = "vitmech_utils"
SHOWS = (
    "figures",
    "pipeline",
    "report",
    "studies.*.judge",
    "studies.*.plots",
    "studies.rows",
    "studies.tables",
    "studies.verdicts",
)
"""The modules that show: an edit here leaves what chapters keep as it is. No module that computes imports them."""
# These carry artefacts, or refuse wrong arguments, and neither make nor show results: an edit here leaves results and
# pages as they are. `own_folders` and `strict_text` are not among them: which files of a folder are read, and what
# numbers their text holds, are results.
NON_RESULT_MODULES = (
    "arguments",
    "artefacts",
    "cli",
    "doctor",
    "model.cards",
    "profiles",
    "runs",
    "runs.code",
    "runs.kept",
    "runs.manifest_form",
    "runs.manifests",
    "runs.run_folders",
    "runs.slicing",
    "runs.standing",
    "train",
)
RECORDED_PACKAGES = (
    "accelerate",
    "anywidget",
    "jupyter-book",
    "matplotlib",
    "nbclient",
    "numpy",
    "pandas",
    "papermill",
    "peft",
    "pillow",
    "pyarrow",
    "safetensors",
    "scipy",
    "torch",
    "transformers",
)


# What a run was made by


def code_version(root: Path) -> dict[str, Any]:
    """Name the code: package version, git commit, and whether tracked files were modified (None without git)."""
    version = importlib.import_module(PACKAGE).__version__
    commit = git(root, "rev-parse", "HEAD")
    changes = git(root, "status", "--porcelain", "--untracked-files=no") if commit else None
    return {"version": version, "commit": commit, "modified": None if changes is None else bool(changes)}


def machine(device: str) -> dict[str, Any]:
    """Describe the hardware in plain words: device, its name, cores, operating system."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    name = _processor()
    if device.startswith("cuda"):
        import torch

        name = torch.cuda.get_device_name(device)
    return {
        "type": device,
        "name": name,
        "cores": cores,
        "system": f"{platform.system()} {platform.machine()}",
    }


def package_versions() -> dict[str, str]:
    """Versions of the packages that decide results, and of Python."""
    versions = {"python": platform.python_version()}
    for name in RECORDED_PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def cpu_seconds() -> float:
    """CPU seconds that this process and those that it started and that have ended used so far, imports included."""
    times = os.times()
    return time.process_time() + times.children_user + times.children_system


def peak_memory_mib() -> int:
    """This process's largest resident memory so far, in MiB (0 where the system does not say)."""
    try:
        import resource
    except ImportError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # kiB on Linux, bytes on macOS
    return round(peak / (1024**2 if sys.platform == "darwin" else 1024))


def git(root: Path, *arguments: str) -> str | None:
    """What a git command prints in a folder; None where it fails, or where there is no git."""
    try:
        done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=False)
    except OSError:  # no git on this machine
        return None
    return done.stdout.strip() if done.returncode == 0 else None


# Writing and reading manifests


def write_manifest(folder: Path, manifest: dict[str, Any]) -> Path:
    """Seal a manifest with a digest over its content and write it atomically."""
    content = {key: value for key, value in manifest.items() if key != "seal"}
    return write_json(folder / MANIFEST, {**content, "seal": digest(content)})


def read_manifest(folder: Path, remedy: str) -> dict[str, Any]:
    """Read a sealed manifest; raises `RunError` when it is missing, edited by hand, or not of the form it must have."""
    path = folder / MANIFEST
    restore_folder(folder)
    if not path.is_file():
        raise RunError(f"{path}: not there, so {folder.name} has no finished run; {remedy}")
    try:
        if path.stat().st_size > LARGEST_MANIFEST:
            raise ValueError("too large")
        manifest = json.loads(path.read_text(encoding="utf-8"))
        seal = manifest.pop("seal")
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise RunError(f"{path}: not a manifest ({_first_line(error)}); {remedy}") from error
    if digest(manifest) != seal:
        raise RunError(f"{path}: its content does not match its seal (edited by hand?); {remedy}")
    if manifest.get("format") != FORMAT:
        raise RunError(
            f"{path}: format {str(manifest.get('format'))[:20]}, and this version reads format {FORMAT}; {remedy}"
        )
    try:
        Form.model_validate(manifest)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        message = first["msg"].removeprefix("Value error, ")
        raise RunError(f"{path}: {where or 'manifest'}: {message}; {remedy}".replace("\n", " ")) from error
    if manifest["chapter"] != folder.name.removeprefix(".").partition(".")[0]:
        raise RunError(f"{path}: it is the manifest of {manifest['chapter']}; {remedy}")
    return manifest


def all_outputs(manifest: dict[str, Any]) -> dict[str, str]:
    """Every output's hash, also of what publishing left out: figures that stand in the page, arrays too large."""
    return {**manifest["outputs"], **manifest.get("only_in_page", {}), **manifest.get("too_large", {})}


def check_outputs(folder: Path, manifest: dict[str, Any], remedy: str) -> None:
    """Hold every recorded output against its file; raises `RunError` naming the first that differs."""
    executed = manifest.get("executed")
    recorded = {**manifest["outputs"], **({executed["file"]: executed["sha256"]} if executed else {})}
    for name, expected in recorded.items():
        path = folder / name
        if not path.is_file():
            raise RunError(f"{path}: recorded in the manifest but not there; {remedy}")
        if file_hash(path) != expected:
            raise RunError(f"{path}: changed since the run that made it; {remedy}")


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error)[:200]}".splitlines()[0]


def _processor() -> str:
    if sys.platform == "linux":
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
