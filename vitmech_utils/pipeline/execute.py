"""Execute chapters headless: papermill, with everything checked before a result takes its place."""

import contextlib
import errno
import os
import re
import shutil
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vitmech_utils.arguments import shown
from vitmech_utils.artefacts import (
    MANIFEST,
    file_hash,
    home_folder,
    waiting_lock,
    write_atomically,
)
from vitmech_utils.own_folders import replace_folder
from vitmech_utils.pipeline.pictures import tell_findings
from vitmech_utils.pipeline.warm import has_spare
from vitmech_utils.profiles import Profile, load_profile
from vitmech_utils.runs import REDRAW, WAIT
from vitmech_utils.runs.code import read_notebook
from vitmech_utils.runs.manifests import RunError, check_outputs, read_manifest, write_manifest
from vitmech_utils.runs.run_folders import (
    acquire,
    at_home,
    checkpoint_folder,
    drop_partial,
    find_run_dir,
    finished_folder,
    lock_file,
    note_profile,
)
from vitmech_utils.runs.sections import differing_values
from vitmech_utils.runs.standing import code_changes, command, standing_of

PARAMETERS = ("profile", "run_dir", "overrides")
OWN_KERNEL = Path(__file__).parent
"""Holds `kernels/python3`, whose command Jupyter reads as the Python that runs it."""
WARM_KERNEL = OWN_KERNEL / "warm"
"""Holds the same, launched in a process that waits for it."""
ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


def chapters(root: Path) -> list[str]:
    """List the chapters in order, by the notebooks that are there."""
    return sorted(path.stem for path in (root / "notebooks").glob("[0-9][0-9]_*.ipynb"))


def find_chapter(root: Path, text: str) -> str:
    """Resolve `4`, `04` or `04_head_ablation` to a chapter's name; raises `RunError` listing those there are."""
    names = chapters(root)
    number = text.isascii() and text.isdigit()
    wanted = text.lstrip("0").zfill(2) if number else text.removesuffix(".ipynb")
    found = [name for name in names if wanted in (name, name[:2])]
    if len(found) != 1:
        raise RunError(
            f"unknown chapter {shown(text)}: expected `all` or one of {', '.join(names) or '(no notebooks)'}"
        )
    return found[0]


def up_to_date(run: Path, chapter: str, root: Path, profile: Profile) -> bool:
    """Tell whether a chapter's finished run, its executed page included, still holds."""
    try:
        return not standing_of(run, chapter, root, profile).to_redraw
    except RunError:
        return False


def run_chapter(
    root: Path,
    chapter: str,
    profile_name: str,
    overrides: dict[str, Any],
    run_dir: str | Path | None = None,
    only_if_stale: bool = False,
    say: Callable[[str], None] = print,
    ahead: Callable[[], None] = lambda: None,
) -> Path | None:
    """Execute one chapter and return its executed notebook in the run folder (None: it was up to date).

    Where `only_if_stale` finds that what the chapter kept stands, and its page alone does not, the page is drawn again.
    Works beside the last good run, which is replaced only after every cell ran and the chapter left a sound manifest.
    A failed notebook is kept as `<run folder>/<chapter>.failed.ipynb`. `ahead` is called once it is known that a kernel
    will be needed (`warm.ahead.start_ahead`). Raises `RunError` or `ProfileError`.
    """
    work = _Work.of(root, chapter, profile_name, overrides, run_dir)
    if only_if_stale and up_to_date(
        work.run, chapter, root, work.profile
    ):  # also where nothing can be written
        say(f"{chapter}: up to date")
        return None
    with _runner_lock(work.run, chapter, say):
        redraw = False
        if only_if_stale:
            with contextlib.suppress(RunError):
                there = standing_of(work.run, chapter, root, work.profile)
                if not there.to_redraw:
                    say(f"{chapter}: up to date")
                    return None
                redraw = there.verb == "redraw"
                if redraw:
                    say(f"{chapter}: to redraw ({there.to_redraw})")
        return work.do(redraw, say, ahead)


def redraw_chapter(
    root: Path,
    chapter: str,
    profile_name: str,
    overrides: dict[str, Any],
    run_dir: str | Path | None = None,
    only_if_needed: bool = False,
    say: Callable[[str], None] = print,
    ahead: Callable[[], None] = lambda: None,
) -> Path | None:
    """Draw a chapter's page again from what its run kept; returns the executed notebook (None: it was up to date).

    It is the same notebook, whose `Chapter.keep` reads instead of computing; one that keeps nothing is run. Raises
    `RunError` where the run is missing or stale (the message says what runs it), and as `run_chapter` does, which tells
    of `ahead`.
    """
    work = _Work.of(root, chapter, profile_name, overrides, run_dir)
    with _runner_lock(work.run, chapter, say):
        there = standing_of(work.run, chapter, root, work.profile)
        if only_if_needed and not there.to_redraw:
            say(f"{chapter}: up to date")
            return None
        return work.do(there.verb == "redraw", say, ahead)


@dataclass(frozen=True)
class _Work:
    """A chapter to execute: where, and on which values."""

    root: Path
    chapter: str
    profile_name: str
    overrides: dict[str, Any]
    profile: Profile
    run: Path

    @classmethod
    def of(
        cls, root: Path, chapter: str, name: str, overrides: dict[str, Any], run_dir: str | Path | None
    ) -> "_Work":
        profile = load_profile(name, overrides, root)
        return cls(root, chapter, name, overrides, profile, find_run_dir(root, profile.name, run_dir))

    def do(self, redraw: bool, say: Callable[[str], None], ahead: Callable[[], None]) -> Path:
        ahead()
        source = self.root / "notebooks" / f"{self.chapter}.ipynb"
        _require_parameters_cell(source)
        run, chapter, final = self.run, self.chapter, self.run / self.chapter
        verb = "redrawn from what its run kept" if redraw else "run"
        say(f"{chapter}: {verb}, profile {self.profile.name}, run folder {run}")
        failed = run / f"{chapter}.failed.ipynb"
        with _nothing_half_written(run, chapter):
            note_profile(run, self.profile)
            failed.unlink(missing_ok=True)
            scratch = run / ".scratch" / f"{chapter}.ipynb"
            environment = {WAIT: str(final), **({REDRAW: str(final)} if redraw else {})}
            _execute(source, scratch, failed, self._parameters(), self.root, environment)
            executed = _accept(scratch, run, chapter, self.root, self.profile)
            shutil.rmtree(checkpoint_folder(run, chapter, self.root, self.profile), ignore_errors=True)
        return executed

    def _parameters(self) -> dict[str, Any]:
        parameters: dict[str, Any] = {"profile": _portable(self.profile_name, self.root)}
        if self.overrides:
            parameters["overrides"] = self.overrides
        if self.run != (self.root / "results" / self.profile.name).resolve():
            parameters["run_dir"] = _portable(str(self.run), self.root)
        return parameters


def _execute(
    source: Path,
    scratch: Path,
    failed: Path,
    parameters: dict[str, Any],
    root: Path,
    environment: dict[str, str],
) -> None:
    import papermill
    from jupyter_client.kernelspec import NoSuchKernel
    from nbclient.exceptions import CellControlSignal, DeadKernelError
    from papermill.exceptions import PapermillException, PapermillExecutionError

    scratch.parent.mkdir(parents=True, exist_ok=True)
    # Of this environment, whatever kernel of the same name a user or a system has installed.
    kernels = os.pathsep.join(
        filter(None, [str(WARM_KERNEL if has_spare() else OWN_KERNEL), os.environ.get("JUPYTER_PATH")])
    )
    environment = {"JUPYTER_PATH": kernels, **environment}
    environment = {"VITMECH_ROOT": str(root), "PYDEVD_DISABLE_FILE_VALIDATION": "1", **environment}
    try:
        with _environment(environment), _ended_by_sigterm(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            papermill.execute_notebook(
                _unformatted(source),
                _unformatted(scratch),
                parameters=parameters,
                cwd=source.parent,
                engine_name=_saving_once(),
                kernel_name="python3",
                progress_bar=sys.stderr.isatty(),
                start_timeout=180,
                # A chapter has written all when its last cell ends: nothing is gained by waiting for a kernel's exit.
                shutdown_kernel="immediate",
                extra_arguments=["--Application.log_level=50"],
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
    except (RuntimeError, TimeoutError, NoSuchKernel, CellControlSignal, PapermillException) as error:
        said = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
        raise RunError(
            f"{source.name}: its kernel, {sys.executable} -m ipykernel_launcher, did not answer or broke off ({said}); "
            "try `vitmech doctor`, and run the same command again"
        ) from error


def _saving_once() -> str:
    """The name of an engine that writes the notebook when it ends, failed or not, not before and after each cell."""
    from papermill.engines import NBClientEngine, papermill_engines

    class SavingOnce(NBClientEngine):
        @classmethod
        def execute_managed_notebook(cls, nb_man: Any, kernel_name: str, **settings: Any) -> Any:
            save, nb_man.save = nb_man.save, lambda **_: None
            try:
                return super().execute_managed_notebook(nb_man, kernel_name, **settings)
            finally:
                nb_man.save = save

    papermill_engines.register("saving-once", SavingOnce)
    return "saving-once"


def _keep_pickers_once(notebook: dict[str, Any]) -> None:
    """Drop the live views of a notebook whose kernel is gone; their pickers' HTML stands beside them and stays."""
    pages = (o.get("data", {}).get("text/html", "") for c in notebook["cells"] for o in c.get("outputs", []))
    if any("data-vm-host" in "".join(page) for page in pages):
        from vitmech_utils.report.notebook_data import share_notebook_data

        share_notebook_data(notebook)
    kinds = {
        kind for cell in notebook["cells"] for o in cell.get("outputs", []) for kind in o.get("data", {})
    }
    if not any("widget-view" in kind for kind in kinds):
        notebook["metadata"].pop("widgets", None)


def _accept(scratch: Path, run: Path, chapter: str, root: Path, profile: Profile) -> Path:
    """Check the finished folder that the notebook left, add its page, and put it in its place."""
    notebook = read_notebook(scratch)
    for number, cell in enumerate(notebook.cells):
        if cell.cell_type != "code" or not cell.source.strip():
            continue
        if cell.execution_count is None or any(output.output_type == "error" for output in cell.outputs):
            raise RunError(
                f"{scratch}: cell {number} was not executed to its end; run chapter {chapter[:2]} again"
            )
    finished = finished_folder(run, chapter)
    again = f"run `{command('run', chapter, run, root, profile)}` again"
    try:
        manifest = read_manifest(finished, again)
        check_outputs(finished, manifest, again)
        if differing_values(manifest["profile"], profile, root / "notebooks" / f"{chapter}.ipynb"):
            raise RunError("it was opened with other profile values than those asked for")
        changed = code_changes(manifest, root)["computes"]
        if changed:
            raise RunError(f"{', '.join(changed)} changed while it ran; {again}")
    except RunError as error:
        raise RunError(
            f"{chapter} ran to its end but left no sound run (is chapter.close() its last cell?): {error}"
        ) from error
    executed = finished / f"{chapter}.ipynb"
    tell_findings(notebook, finished)
    text = _page(notebook, root)
    write_atomically(executed, lambda path: path.write_text(text, encoding="utf-8"))
    record = {"file": executed.name, "sha256": file_hash(executed)}
    write_manifest(finished, {**manifest, "executed": record})
    lock = acquire(lock_file(run, chapter))
    try:
        replace_folder(finished, run / chapter, MANIFEST)
    finally:
        lock.release()
    scratch.unlink()
    return run / chapter / executed.name


def _page(notebook: Any, root: Path) -> str:
    """The executed notebook as it is kept: without what differs from run to run, and without this machine's folders."""
    import nbformat

    _keep_pickers_once(notebook)
    notebook.metadata.pop("papermill", None)
    for cell in notebook.cells:
        cell.metadata.pop("papermill", None)
        cell.metadata.pop("execution", None)
        if "injected-parameters" in cell.metadata.get("tags", []):
            cell["id"] = "injected-parameters"  # papermill draws one at random
    text = nbformat.writes(notebook) + "\n"
    text = text.replace(f"{root}/", "")
    home = home_folder()
    return re.sub(rf"(?<![\w.-]){re.escape(str(home))}/", "~/", text) if home else text


def _require_parameters_cell(source: Path) -> None:
    import papermill

    notebook = read_notebook(source)
    tagged = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    if len(tagged) != 1 or tagged[0].cell_type != "code":
        raise RunError(f"{source}: expected one code cell tagged `parameters`, found {len(tagged)}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        known = papermill.inspect_notebook(_unformatted(source))
    missing = [name for name in PARAMETERS if name not in known]
    if missing:
        raise RunError(f"{source}: its parameters cell does not set {', '.join(missing)}")


def _unformatted(path: Path) -> str:
    """A path for papermill, which takes braces in it for parameters."""
    return str(path).replace("{", "{{").replace("}", "}}")


def _portable(path: str, root: Path) -> str:
    """Write a path under the clone relative to it, so that executed notebooks name no machine's folders."""
    if not path.endswith((".yaml", ".yml")) and "/" not in path:
        return path
    absolute = at_home(path).resolve()
    return absolute.relative_to(root).as_posix() if absolute.is_relative_to(root) else str(absolute)


def _runner_lock(
    run: Path, chapter: str, say: Callable[[str], None]
) -> contextlib.AbstractContextManager[None]:
    return waiting_lock(
        run / ".locks" / f"{chapter}.runner.lock",
        lambda: say(f"{chapter}: another `vitmech run` is at work on it in {run}; waiting for it to end"),
    )


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
        with contextlib.suppress(OSError):
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
