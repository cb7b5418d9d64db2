"""Put a finished run in place of the published one: the folder that the book shows where nothing is computed."""

import re
import shutil
from pathlib import Path
from typing import Any

from vitmech_utils.artefacts import MANIFEST, file_hash, home_folder
from vitmech_utils.own_folders import MARK, mark_made, replace_folder, restore_folder
from vitmech_utils.pipeline.execute import chapters
from vitmech_utils.pipeline.made_pages import OPENING_MAPS
from vitmech_utils.pipeline.pictures import lighter
from vitmech_utils.pipeline.stage import checked_run, state
from vitmech_utils.runs.code import read_notebook
from vitmech_utils.runs.manifests import PACKAGE, RunError, check_outputs, git, read_manifest, write_manifest

PUBLISHED = "published"
RUN_DIR = re.compile(r'run_dir = \\"(/[^"\\]*)')
"""A run folder outside the clone, as a page's parameters name it: where a chapter ran, wherever its run lies now."""
LIMIT = 30_000_000
LARGEST_ARRAYS = 1_000_000


def publish(root: Path, run: Path, leave_out: tuple[str, ...] = (), limit: int = LIMIT) -> dict[str, int]:
    """Replace the chapters in `published/` by those of `run`; what else lies there stays. Returns bytes per entry.

    All chapters but those to `leave_out` must be finished, up to date and of one profile, made on more than the quick
    profile by code that is committed by now, and name no folder of this machine; none may read a chapter that is left
    out. The chapters may hold `limit` bytes; adapters, which are no part of a run, are not counted. Else `RunError` is
    raised and `published/` is as it was.
    A figure that stands in the executed notebook is not published again as a file, unless a page of prose shows it. It
    gets 256 colours of its own, where these show it as well.
    A file of arrays above `LARGEST_ARRAYS` bytes stays behind, too, but for those that the opening page shows; the
    manifest names it under `too_large`.
    """
    target = root / PUBLISHED
    if run.resolve() == target.resolve():
        raise RunError(f"{run}: this is the published run already; name the run folder that shall replace it")
    names = [name for name in chapters(root) if name not in leave_out]
    manifests = checked_run(root, run, names)
    for name, manifest in manifests.items():
        where = run / name / MANIFEST
        if manifest["profile"]["values"]["name"] == "quick":
            raise RunError(
                f"{where}: a quick run looks at too few images to be published; use --profile laptop"
            )
        if _among_changes(manifest) and _uncommitted(root):
            raise RunError(
                f"{where}: made by code that was not committed; commit it, then run {name[:2]} again"
            )
        if advice := state(root, run, manifest).plain:
            raise RunError(f"{where}: {advice}")
        if read := sorted({*manifest["inputs"]} & {*leave_out}):
            raise RunError(f"{where}: {name} reads {read[0]}, so that cannot be left out")
    fresh = target.with_name(f"{PUBLISHED}.partial")
    restore_folder(target)
    shutil.rmtree(fresh, ignore_errors=True)
    try:
        _fill(fresh, target, run, root, manifests)
        _refuse_folders(fresh, names, _folders_of_this_machine(root, run))
        sizes = {entry.name: _size(entry) for entry in sorted(fresh.iterdir())}
        if (whole := sum(sizes[name] for name in names)) > limit:
            listed = ", ".join(f"{name} {sizes[name] / 1e6:.1f}" for name in names)
            raise RunError(
                f"{run}: {whole / 1e6:.1f} MB, at most {limit / 1e6:g} MB are published ({listed}); "
                "let the largest chapter keep less"
            )
        if (target / "adapters").is_dir():  # as older versions left it
            mark_made(target)
        mark_made(fresh)
        replace_folder(fresh, target)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return sizes


def _fill(fresh: Path, target: Path, run: Path, root: Path, manifests: dict[str, dict]) -> None:
    fresh.mkdir()
    for entry in sorted(target.iterdir()) if target.is_dir() else []:
        if (entry / MANIFEST).is_file() or entry.name == MARK:
            continue  # a chapter of the last published run
        copy = shutil.copytree if entry.is_dir() else shutil.copy2
        copy(entry, fresh / entry.name)
    for name, manifest in manifests.items():
        kept = _without_doubled_figures(run / name, manifest, _figures_in_prose(root, name))
        kept = _without_large_arrays(run / name, kept)
        for file in (kept["executed"]["file"], *kept["outputs"]):
            copied = fresh / name / file
            copied.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(run / name / file, copied)
        page = fresh / name / kept["executed"]["file"]
        page.write_text(lighter(page), encoding="utf-8")
        kept = {**kept, "executed": {**kept["executed"], "sha256": file_hash(page)}}
        again = f"{run / name} was written while it was copied; publish again"
        check_outputs(fresh / name, kept, again)
        if read_manifest(run / name, again) != manifest:
            raise RunError(again)
        write_manifest(fresh / name, _naming_commit(root, kept))


def _among_changes(manifest: dict[str, Any]) -> bool:
    """Whether tracked files of whatever kind differed from their commit when a chapter was run, or drawn again."""
    return bool(manifest["code"]["modified"] or (manifest.get("drawn") or manifest)["code"]["modified"])


def _uncommitted(root: Path) -> bool:
    """Whether files of the package or notebooks are not as the commit has them, or nothing can say so."""
    found = git(root, "status", "--porcelain", "--untracked-files=all", "--", PACKAGE, "notebooks")
    return found is None or bool(found)


def _naming_commit(root: Path, manifest: dict[str, Any]) -> dict[str, Any]:
    """Name today's commit for a chapter that was run among changes: it was found to hold the very code that ran.

    What else had been changed then, such as a test, is of no matter.
    """
    if not _among_changes(manifest):
        return manifest
    held = {"commit": git(root, "rev-parse", "HEAD"), "modified": False}
    named = {**manifest, "code": {**manifest["code"], **held}}
    if drawn := manifest.get("drawn"):
        named["drawn"] = {**drawn, "code": {**drawn["code"], **held}}
    return named


def _figures_in_prose(root: Path, name: str) -> set[str]:
    """The figures of a chapter that README or a page outside the notebooks shows as a file."""
    pages = [path for path in (root / "README.md", *(root / "book").glob("*.md")) if path.is_file()]
    text = "\n".join(path.read_text(encoding="utf-8") for path in pages)
    return set(re.findall(rf"(?:{PUBLISHED}|run)/{re.escape(name)}/([\w.-]+\.png)", text))


def _without_doubled_figures(folder: Path, manifest: dict[str, Any], shown: set[str]) -> dict[str, Any]:
    """Move figures that the executed notebook shows from the manifest's outputs to its `only_in_page`."""
    notebook = read_notebook(folder / manifest["executed"]["file"])
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    figures = {file for file in manifest["outputs"] if file.endswith(".png")}
    if sum("image/png" in output.get("data", {}) for output in outputs) < len(figures):
        return manifest  # some figure is in its file alone
    doubled = {file: value for file, value in manifest["outputs"].items() if file in figures - shown}
    kept = {file: value for file, value in manifest["outputs"].items() if file not in doubled}
    return {**manifest, "outputs": kept, "only_in_page": {**manifest.get("only_in_page", {}), **doubled}}


def _without_large_arrays(folder: Path, manifest: dict[str, Any]) -> dict[str, Any]:
    """Move files of arrays that are too large to publish from the manifest's outputs to its `too_large`."""
    large = {
        file: value
        for file, value in manifest["outputs"].items()
        if file.endswith(".safetensors")
        and (folder / file).stat().st_size > LARGEST_ARRAYS
        and (folder.name, file) != OPENING_MAPS
    }
    if not large:
        return manifest
    kept = {file: value for file, value in manifest["outputs"].items() if file not in large}
    return {**manifest, "outputs": kept, "too_large": {**manifest.get("too_large", {}), **large}}


def _folders_of_this_machine(root: Path, run: Path) -> tuple[Path, ...]:
    return tuple(filter(None, (root.resolve(), run.resolve(), home_folder())))


def _refuse_folders(fresh: Path, names: list[str], folders: tuple[Path, ...]) -> None:
    for name in names:
        for path in sorted(fresh.joinpath(name).rglob("*")):
            if path.suffix not in (".ipynb", ".json"):
                continue
            text = path.read_text(encoding="utf-8")
            found = [str(folder) for folder in folders if f"{folder}/" in text] + RUN_DIR.findall(text)
            if found:
                raise RunError(
                    f"{path.relative_to(fresh)}: names a folder of this machine, {found[0]}; draw {name[:2]} again "
                    "without --run-dir, or with a run folder inside the clone"
                )


def _size(path: Path) -> int:
    if path.is_file():
        return path.stat().st_size
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
