"""Execute chapters headless: papermill, with everything checked before a result takes its place."""

import contextlib
import errno
import json
import os
import re
import shutil
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from vitmech_utils.artefacts import file_hash, write_atomically
from vitmech_utils.profiles import Profile, load_profile
from vitmech_utils.runs.manifests import RunError, notebook_hashes, write_manifest
from vitmech_utils.runs.run_folders import check_chapter, drop_partial, find_run_dir, note_profile

PARAMETERS = ("profile", "run_dir", "overrides")
ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


def chapters(root: Path) -> list[str]:
    """List the chapters in order, by the notebooks that are there."""
    return sorted(path.stem for path in (root / "notebooks").glob("[0-9][0-9]_*.ipynb"))


def find_chapter(root: Path, text: str) -> str:
    """Resolve `4`, `04` or `04_head_ablation` to a chapter's name; raises `RunError` listing those there are."""
    names = chapters(root)
    wanted = f"{int(text):02d}" if text.isdigit() else text.removesuffix(".ipynb")
    found = [name for name in names if wanted in (name, name[:2])]
    if len(found) != 1:
        raise RunError(
            f"unknown chapter {text!r}: expected `all` or one of {', '.join(names) or '(no notebooks)'}"
        )
    return found[0]


def up_to_date(run: Path, chapter: str, root: Path, profile: Profile) -> bool:
    """Tell whether a chapter's finished run, its executed page included, still holds."""
    try:
        manifest = check_chapter(run, chapter, root, profile)
    except RunError:
        return False
    executed = manifest.get("executed")
    return (
        bool(executed)
        and executed["page"] == notebook_hashes(root / "notebooks" / f"{chapter}.ipynb")["page"]
    )


def run_chapter(
    root: Path,
    chapter: str,
    profile_name: str,
    overrides: dict[str, Any],
    run_dir: str | Path | None = None,
    only_if_stale: bool = False,
    say: Callable[[str], None] = print,
) -> Path | None:
    """Execute one chapter and return its executed notebook in the run folder (None: it was up to date).

    Works in a scratch file that is renamed only after every cell ran and the chapter left a sound manifest.
    A failed notebook is kept as `<run folder>/<chapter>.failed.ipynb`. Raises `RunError` or `ProfileError`.
    """
    profile = load_profile(profile_name, overrides, root)
    run = find_run_dir(root, profile.name, run_dir)
    source = root / "notebooks" / f"{chapter}.ipynb"
    _require_parameters_cell(source)
    with _runner_lock(run, chapter, say):
        if only_if_stale and up_to_date(run, chapter, root, profile):
            say(f"{chapter}: up to date")
            return None
        say(f"{chapter}: profile {profile.name}, run folder {run}")
        note_profile(run, profile)
        parameters: dict[str, Any] = {"profile": _portable(profile_name, root)}
        if overrides:
            parameters["overrides"] = overrides
        if run != (root / "results" / profile.name).resolve():
            parameters["run_dir"] = _portable(str(run), root)
        scratch = run / ".scratch" / f"{chapter}.ipynb"
        failed = run / f"{chapter}.failed.ipynb"
        failed.unlink(missing_ok=True)
        with _nothing_half_written(run, chapter):
            _execute(source, scratch, failed, parameters, root)
            return _accept(scratch, run, chapter, root, profile)


def _execute(source: Path, scratch: Path, failed: Path, parameters: dict[str, Any], root: Path) -> None:
    import papermill
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    scratch.parent.mkdir(parents=True, exist_ok=True)
    environment = {"VITMECH_ROOT": str(root), "PYDEVD_DISABLE_FILE_VALIDATION": "1"}
    try:
        with _environment(environment), _ended_by_sigterm(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            papermill.execute_notebook(
                source,
                scratch,
                parameters=parameters,
                cwd=source.parent,
                kernel_name="python3",
                progress_bar=sys.stderr.isatty(),
                start_timeout=180,
                extra_arguments=["--Application.log_level=40"],
            )
    except PapermillExecutionError as error:
        scratch.replace(failed)
        trace = ANSI.sub("", "\n".join(error.traceback))
        raise RunError(
            f"{source.name}, cell {error.cell_index}: {error.ename}: {error.evalue}\n{trace}\n"
            f"The notebook as far as it came: {failed}"
        ) from None
    except DeadKernelError:
        scratch.replace(failed)
        raise RunError(
            f"{source.name}: its kernel died (out of memory, or killed); run the same command again to go on. "
            f"The notebook as far as it came: {failed}"
        ) from None


def _keep_pickers_once(notebook: dict[str, Any]) -> None:
    """Drop the live views of a notebook whose kernel is gone; their pickers' HTML stands beside them and stays."""
    from vitmech_utils.report.picker.static import share_notebook_data

    share_notebook_data(notebook)
    kinds = {
        kind for cell in notebook["cells"] for o in cell.get("outputs", []) for kind in o.get("data", {})
    }
    if not any("widget-view" in kind for kind in kinds):
        notebook["metadata"].pop("widgets", None)


def _accept(scratch: Path, run: Path, chapter: str, root: Path, profile: Profile) -> Path:
    notebook = json.loads(scratch.read_text(encoding="utf-8"))
    for number, cell in enumerate(notebook["cells"]):
        if cell["cell_type"] != "code" or not "".join(cell["source"]).strip():
            continue
        if cell["execution_count"] is None or any(o["output_type"] == "error" for o in cell["outputs"]):
            raise RunError(
                f"{scratch}: cell {number} was not executed to its end; run chapter {chapter[:2]} again"
            )
    try:
        manifest = check_chapter(run, chapter, root, profile)
    except RunError as error:
        raise RunError(
            f"{chapter} ran to its end but left no sound run (is chapter.close() its last cell?): {error}"
        ) from error
    _keep_pickers_once(notebook)
    notebook["metadata"].pop("papermill", None)
    for cell in notebook["cells"]:
        cell["metadata"].pop("papermill", None)
        cell["metadata"].pop("execution", None)
        if "injected-parameters" in cell["metadata"].get("tags", []):
            cell["id"] = "injected-parameters"  # papermill draws one at random
    text = json.dumps(notebook, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    for folder in (root, Path.home()):  # a page names no machine's folders
        text = text.replace(f"{folder}/", "" if folder == root else "~/")
    executed = run / chapter / f"{chapter}.ipynb"
    write_atomically(executed, lambda path: path.write_text(text, encoding="utf-8"))
    scratch.unlink()
    record = {
        "file": executed.name,
        "sha256": file_hash(executed),
        "page": notebook_hashes(root / "notebooks" / f"{chapter}.ipynb")["page"],
    }
    write_manifest(executed.parent, {**manifest, "executed": record})
    return executed


def _require_parameters_cell(source: Path) -> None:
    cells = json.loads(source.read_text(encoding="utf-8"))["cells"]
    tagged = [c for c in cells if c["cell_type"] == "code" and "parameters" in c["metadata"].get("tags", [])]
    if len(tagged) != 1:
        raise RunError(f"{source}: expected one code cell tagged `parameters`, found {len(tagged)}")
    text = "".join(tagged[0]["source"])
    missing = [name for name in PARAMETERS if not re.search(rf"^{name}\s*(:[^=]+)?=", text, re.MULTILINE)]
    if missing:
        raise RunError(f"{source}: its parameters cell does not set {', '.join(missing)}")


def _portable(path: str, root: Path) -> str:
    """Write a path under the clone relative to it, so that executed notebooks name no machine's folders."""
    if not path.endswith((".yaml", ".yml")) and "/" not in path:
        return path
    absolute = Path(path).expanduser().resolve()
    return absolute.relative_to(root).as_posix() if absolute.is_relative_to(root) else str(absolute)


@contextlib.contextmanager
def _runner_lock(run: Path, chapter: str, say: Callable[[str], None]) -> Iterator[None]:
    path = run / ".locks" / f"{chapter}.runner.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        say(f"{chapter}: another `vitmech run` is at work on it in {run}; waiting for it to end")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def _nothing_half_written(run: Path, chapter: str) -> Iterator[None]:
    """Whatever ends the run, drop what is not whole; name the place where the disk is full."""
    try:
        yield
    except (OSError, RunError) as error:
        full = getattr(error, "errno", None) == errno.ENOSPC or os.strerror(errno.ENOSPC) in str(error)
        if not full:
            raise
        free = shutil.disk_usage(run).free // 1024**2
        raise RunError(
            f"{chapter}: the disk of {run} is full ({free} MiB free); nothing that was whole is lost: make room there, "
            f"or choose another folder with --run-dir, and run the same command again\n{error}"
        ) from error
    finally:
        drop_partial(run, chapter)
        (run / ".scratch" / f"{chapter}.ipynb").unlink(missing_ok=True)


@contextlib.contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    before = {key: os.environ.get(key) for key in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for key, value in before.items():
            if value is None:
                os.environ.pop(key, None)
            else:
                os.environ[key] = value


@contextlib.contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Turn SIGTERM into an exception, so that the kernel is shut down with its runner."""

    def leave(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
