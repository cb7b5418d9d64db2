"""Manifests: what a chapter's run was made of, and whether that still holds."""

import ast
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

from vitmech_utils.artefacts import MANIFEST, RunError, digest, file_hash, write_json

FORMAT = 1
PACKAGE = "vitmech_utils"
# These carry artefacts and do not make them: an edit here leaves results as they are.
NON_RESULT_MODULES = (
    "artefacts",
    "cli",
    "doctor",
    "pipeline.build",
    "pipeline.checked",
    "pipeline.execute",
    "pipeline.launch",
    "pipeline.stage",
    "profiles",
    "runs",
    "runs.kept",
    "runs.manifests",
    "runs.run_folders",
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


# What code a chapter runs


def notebook_hashes(path: Path) -> dict[str, str]:
    """Hash a notebook's code (what decides results) and its page (code, prose, cell metadata), outputs left out."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    sources = [(cell["cell_type"], "".join(cell["source"])) for cell in cells]
    metadata = [
        {key: value for key, value in cell["metadata"].items() if key in ("tags", "mystnb")} for cell in cells
    ]
    return {
        "code": digest([text for kind, text in sources if kind == "code"]),
        "page": digest([sources, metadata]),
    }


def notebook_source(notebook: Path) -> str:
    """Join a notebook's code cells into one module's text, magics left out."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    lines = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code").splitlines()
    return "\n".join("" if line.lstrip().startswith(("%", "!", "?")) else line for line in lines)


def predecessors(notebook: Path) -> list[str]:
    """List the chapters whose run a notebook reads: those that its code names as plain strings."""
    names = {path.stem for path in notebook.parent.glob("[0-9][0-9]_*.ipynb")} - {notebook.stem}
    tree = ast.parse(notebook_source(notebook))
    return sorted({n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and n.value in names})


def uses_adapter(notebook: Path) -> bool:
    """Tell whether a notebook loads the fine-tuned model through its chapter."""
    return any(call in notebook_source(notebook) for call in (".regressor(", ".adapter_folder("))


def uses_bare_adapter(notebook: Path) -> bool:
    """Tell whether a notebook also loads the model that was fine-tuned on bare figures."""
    return uses_adapter(notebook) and 'figures="bare"' in notebook_source(notebook)


def uses_classifiers(notebook: Path) -> bool:
    """Tell whether a notebook loads the classifiers through its chapter."""
    return ".classifier_folder(" in notebook_source(notebook)


def module_files(notebook: Path, package_parent: Path | None = None) -> list[Path]:
    """List the package's files that a notebook uses, by following import statements from its code cells.

    Scripts and styles of a package folder count with it. `package_parent` defaults to where this package lies.
    """
    parent = package_parent or Path(__file__).resolve().parents[2]
    wanted = _imported(notebook_source(notebook), PACKAGE)
    if uses_adapter(notebook):
        wanted.add(f"{PACKAGE}.model.regressor")
    found: dict[str, Path] = {}
    while wanted:
        name = wanted.pop()
        path = _module_path(parent, name)
        if (
            path is None
            or name in found
            or name in {f"{PACKAGE}.{carrier}" for carrier in NON_RESULT_MODULES}
        ):
            continue
        found[name] = path
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        wanted |= _imported(path.read_text(encoding="utf-8"), package)
        wanted |= {name.rsplit(".", count)[0] for count in range(1, name.count(".") + 1)}
    assets = [
        asset
        for path in found.values()
        if path.name == "__init__.py"
        for asset in path.parent.iterdir()
        if asset.suffix in (".js", ".css", ".html", ".json", ".yaml")
    ]
    return sorted([*found.values(), *assets])


def code_of(notebook: Path) -> dict[str, Any]:
    """Describe the code a chapter runs: its notebook's hashes and those of the package files it uses."""
    if not notebook.is_file():
        return {"notebook": None, "modules": {}}
    parent = Path(__file__).resolve().parents[2]
    modules = {path.relative_to(parent).as_posix(): file_hash(path) for path in module_files(notebook)}
    return {"notebook": notebook_hashes(notebook), "modules": modules}


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


def peak_memory_mib() -> int:
    """This process's largest resident memory so far, in MiB (0 where the system does not tell)."""
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


def read_manifest(folder: Path, how_to_mend: str) -> dict[str, Any]:
    """Read a sealed manifest; raises `RunError` when it is missing, unreadable or edited by hand."""
    path = folder / MANIFEST
    if not path.is_file():
        raise RunError(f"{path}: not there, so {folder.name} has no finished run; {how_to_mend}")
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        seal = manifest.pop("seal")
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise RunError(f"{path}: not a manifest ({error!r}); {how_to_mend}") from error
    if digest(manifest) != seal:
        raise RunError(f"{path}: its content does not match its seal (edited by hand?); {how_to_mend}")
    if manifest.get("format") != FORMAT:
        raise RunError(f"{path}: format {manifest.get('format')!r}, expected {FORMAT}; {how_to_mend}")
    return manifest


def result_digest(manifest: dict[str, Any]) -> str:
    """Identify what a chapter made: the same outputs from the same profile give the same digest.

    What publishing left out, figures that stand in the executed notebook and arrays too large, still counts by its
    hashes.
    """
    left_out = {**manifest.get("only_in_page", {}), **manifest.get("too_large", {})}
    return digest([manifest["profile"]["hash"], {**manifest["outputs"], **left_out}])


def check_outputs(folder: Path, manifest: dict[str, Any], how_to_mend: str) -> None:
    """Hold every recorded output against its file; raises `RunError` naming the first that differs."""
    executed = manifest.get("executed")
    recorded = {**manifest["outputs"], **({executed["file"]: executed["sha256"]} if executed else {})}
    for name, expected in recorded.items():
        path = folder / name
        if not path.is_file():
            raise RunError(f"{path}: recorded in the manifest but not there; {how_to_mend}")
        if file_hash(path) != expected:
            raise RunError(f"{path}: changed since the run that made it; {how_to_mend}")


def _imported(source: str, package: str) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = ".".join(
                    [
                        *package.split(".")[: len(package.split(".")) - node.level + 1],
                        *([base] if base else []),
                    ]
                )
            names |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
    return {name for name in names if name == PACKAGE or name.startswith(PACKAGE + ".")}


def _module_path(parent: Path, name: str) -> Path | None:
    base = parent.joinpath(*name.split("."))
    candidates = (base / "__init__.py", base.with_suffix(".py"))
    return next((path for path in candidates if path.is_file()), None)


def _processor() -> str:
    if sys.platform == "linux":
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
