"""The pictures in executed notebooks: what those hear who do not see them, a chapter's argument, their weight."""

import base64
import io
import re
from pathlib import Path
from typing import Any

from vitmech_utils.runs.code import read_notebook
from vitmech_utils.runs.manifests import RunError

ARGUMENT = "argument"
"""The tag of the cell whose figure makes a chapter's argument; its page shows it near the top, too."""
ALIKE = 3.0
"""By how many of 255 steps (root mean square) a picture of 256 colours may differ from the one that was drawn."""
_SAVED = re.compile(r"""save_figure\(.*,\s*"([\w-]+)"\s*,?\s*\)""", re.DOTALL)


def tell_findings(notebook: Any, folder: Path) -> None:
    """Let the text for those who do not see a figure end with what its titles say in this run (see `save_figure`)."""
    from PIL import Image

    for cell in notebook["cells"]:
        picture = cell["metadata"].get("mystnb", {}).get("image", {})
        name = _saved(cell)
        path = folder / f"{name}.png"
        if name is None or not path.is_file() or "alt" not in picture:
            continue
        with Image.open(path) as image:
            said = image.info.get("Description", "")
        if said:
            picture["alt"] = f"{picture['alt'].rstrip()} Its titles: {said}."


def argument(notebook: Any, chapter: str) -> str:
    """The figure that makes a chapter's argument, as its page shows it near the top; empty where no cell is tagged.

    Raises `RunError` where several are, or where the cell saves no figure, or gives it no name or no text for those who
    do not see it.
    """
    cells = _tagged(notebook)
    if not cells:
        return ""
    saved, about = _saved(cells[0]), cells[0]["metadata"].get("mystnb", {})
    name, alt = about.get("figure", {}).get("name"), about.get("image", {}).get("alt")
    if len(cells) > 1 or not (saved and name and alt):
        raise RunError(
            f"{chapter}: {len(cells)} cells with the tag {ARGUMENT}, expected one that saves a figure with a name and "
            "an alt text"
        )
    told = f"*The chapter in one figure;* {{numref}}`{name}` *says what it shows and how it was made.*"
    return f"```{{image}} ../book/run/{chapter}/{saved}.png\n:alt: {alt}\n:align: center\n```\n\n{told}"


def show_argument(notebook: Any, figures: Path) -> None:
    """Put the figure of a chapter's argument where its page looks for it: a published run has it in the notebook."""
    for cell in _tagged(notebook):
        path = figures / f"{_saved(cell)}.png"
        drawn = [output.get("data", {}).get("image/png") for output in cell.get("outputs", [])]
        if not path.exists() and any(drawn):
            figures.mkdir(parents=True, exist_ok=True)
            path.write_bytes(base64.b64decode(next(filter(None, drawn))))


def lighter(page: Path) -> str:
    """An executed notebook, its pictures in 256 colours of their own where they differ by no more than `ALIKE`."""
    import nbformat

    notebook = read_notebook(page)
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if drawn := output.get("data", {}).get("image/png"):
                output["data"]["image/png"] = _in_own_colours(drawn)
    return nbformat.writes(notebook) + "\n"


def _tagged(notebook: Any) -> list[Any]:
    return [cell for cell in notebook["cells"] if ARGUMENT in cell["metadata"].get("tags", [])]


def _saved(cell: Any) -> str | None:
    """The name under which a cell saves its figure."""
    found = _SAVED.search(cell["source"])
    return found[1] if found else None


def _in_own_colours(drawn: str) -> str:
    import numpy as np
    from PIL import Image, UnidentifiedImageError

    raw = base64.b64decode(drawn)
    try:
        image = Image.open(io.BytesIO(raw))
    except UnidentifiedImageError:
        return drawn
    with image:
        if image.mode not in ("RGB", "RGBA") or image.convert("RGBA").getextrema()[3][0] < 255:
            return drawn
        full = image.convert("RGB")
    few = full.quantize(256, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    away = np.asarray(full, dtype=float) - np.asarray(few.convert("RGB"), dtype=float)
    written = io.BytesIO()
    few.save(written, "PNG", optimize=True)
    if np.sqrt((away**2).mean()) > ALIKE or len(written.getvalue()) >= len(raw):
        return drawn
    return base64.b64encode(written.getvalue()).decode()
