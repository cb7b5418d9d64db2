"""Checked cells: the outputs in a notebook's source that nbval compares, taken over from a finished run."""

from pathlib import Path
from typing import Any

import nbformat

from vitmech_utils.artefacts import write_atomically
from vitmech_utils.profiles import load_profile
from vitmech_utils.runs.code import read_notebook
from vitmech_utils.runs.manifests import RunError
from vitmech_utils.runs.standing import check_chapter

CHECK_TAG = "nbval-check-output"


def take_over(root: Path, run: Path, chapter: str) -> int:
    """Put the checked cells' outputs of a quick run into the notebook's source; returns how many cells have one.

    Every other cell loses its outputs and count. Raises `RunError` when the run is stale or of another profile,
    or when a checked cell printed nothing.
    """
    source = root / "notebooks" / f"{chapter}.ipynb"
    check_chapter(run, chapter, root, load_profile("quick", root=root))
    executed = _code_cells(read_notebook(run / chapter / f"{chapter}.ipynb"))
    by_source = {cell.source: cell for cell in executed}
    notebook = read_notebook(source)
    count = 0
    for number, cell in enumerate(_code_cells(notebook), start=1):
        cell["outputs"], cell["execution_count"] = [], None
        if CHECK_TAG not in cell["metadata"].get("tags", []):
            continue
        ran = by_source[cell.source]
        if not ran["outputs"]:
            raise RunError(f"{source}: checked cell {number} printed nothing, so there is nothing to compare")
        cell["outputs"], cell["execution_count"] = ran["outputs"], number
        count += 1
    text = nbformat.writes(notebook) + "\n"
    write_atomically(source, lambda path: path.write_text(text, encoding="utf-8"))
    return count


def _code_cells(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]
