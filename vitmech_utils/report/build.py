"""Build the HTML book from staged sources; never half a book in the place of a whole one."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from vitmech_utils.artefacts import digest, folder_hashes, write_json
from vitmech_utils.manifests import RunError, package_versions
from vitmech_utils.own_folders import clear_made, mark_made, put_in_place, refuse_unmarked
from vitmech_utils.report.stage import adopt_old_build, stage

JUPYTER_BOOK = "from jupyter_book.cli.main import main; main()"


def build(root: Path, run: Path, out: Path | None = None, say: Callable[[str], None] = print) -> Path:
    """Stage `run` and render it into `out`/html (default `book/_build/html`); returns the opening page.

    Does nothing when sources and tools are those of the last build. Any Sphinx warning fails the build
    (`RunError`) and leaves the last good book in place. In `out`, folders are replaced that carry the mark of an
    earlier build; others of these names are refused (`RunError`) before anything is written.
    """
    out = out or root / "book" / "_build"
    staged, html, record, work = out / "src", out / "html", out / "built.json", out / "work"
    for folder in (html, work):
        adopt_old_build(root, folder)
        refuse_unmarked(folder, RunError)
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
    put_in_place(mark_made(work / "_build" / "html"), html)
    clear_made(work, RunError)
    write_json(record, wanted)
    say(f"The book is built. Open {page.as_uri()}")
    return page
