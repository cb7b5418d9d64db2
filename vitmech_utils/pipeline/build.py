"""Build the HTML book from staged sources; never half a book in the place of a whole one."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from vitmech_utils.artefacts import (
    digest,
    folder_hashes,
    waiting_lock,
    write_json,
)
from vitmech_utils.own_folders import clear_made, mark_made, refuse_unmarked, replace_folder, restore_folder
from vitmech_utils.pipeline.stage import RECORD, adopt_old_build, checked_book, stage
from vitmech_utils.runs.manifests import RunError, package_versions

JUPYTER_BOOK = "from jupyter_book.cli.main import main; main()"


def build(root: Path, run: Path, out: Path | None = None, say: Callable[[str], None] = print) -> Path:
    """Stage `run` and render it into `out`/html (default `book/_build/html`); returns the opening page.

    Does nothing when sources and tools are those of the last build. Any Sphinx warning fails the build
    (`RunError`) and leaves the last good book in place. In `out`, folders are replaced that carry the mark of an
    earlier build; others of these names are refused (`RunError`) before anything is written. Of two
    builds of one book the second waits for the first.
    """
    out = out or root / "book" / "_build"
    for folder in (out / "html", out / "work"):  # before anything is written
        adopt_old_build(root, folder)
        refuse_unmarked(folder, RunError)
    checked_book(root, run)
    with waiting_lock(
        out / ".lock", lambda: say(f"another build is at work in {out}; waiting for it to end")
    ):
        return _build(root, run, out, say)


def _build(root: Path, run: Path, out: Path, say: Callable[[str], None]) -> Path:
    staged, html, work, record = out / "src", out / "html", out / "work", out / RECORD
    restore_folder(html)
    stage(root, run, staged)
    wanted = digest([folder_hashes(staged), package_versions()])
    page = html / "index.html"
    if page.is_file() and record.is_file() and json.loads(record.read_text(encoding="utf-8")) == wanted:
        say(f"The book is up to date: {page.as_uri()}")
        return page
    clear_made(work, RunError)
    mark_made(work)
    command = [
        sys.executable,
        "-c",
        JUPYTER_BOOK,
        "build",
        str(staged),
        "--path-output",
        str(work),
        "-W",
        "-n",
        "--keep-going",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    log = out / "build.log"
    log.write_text(done.stdout + done.stderr, encoding="utf-8")
    if done.returncode:
        lines = [
            line for line in (done.stdout + done.stderr).splitlines() if "WARNING" in line or "ERROR" in line
        ]
        shown = "\n".join(lines[:40] or done.stderr.splitlines()[-20:])
        raise RunError(f"the book was not built; the whole log is {log}:\n{shown}")
    record.unlink(missing_ok=True)
    mark_made(work / "_build" / "html")
    replace_folder(work / "_build" / "html", html)
    clear_made(work, RunError)
    write_json(record, wanted)
    say(f"The book is built. Open {page.as_uri()}")
    return page
