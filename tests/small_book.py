"""A clone in miniature, for tests of the pipeline: three tiny chapters, its own profiles, no model."""

import json
import shutil
from pathlib import Path

import nbformat

from vitmech_utils.artefacts import folder_hashes
from vitmech_utils.profiles import load_profile
from vitmech_utils.runs.code import code_of
from vitmech_utils.runs.manifests import FORMAT, code_version, machine, package_versions

ROOT = Path(__file__).resolve().parents[1]
PARAMETERS = 'profile = "quick"\nrun_dir = None\noverrides = {}'
OPEN = 'from vitmech_utils.runs import open_chapter\n\nchapter = open_chapter("{name}", profile, run_dir, overrides)'
CHAPTERS = {
    "01_first": ['chapter.save_json({"count": chapter.profile.audit.images}, "numbers")'],
    "02_second": [
        'import pandas as pd\n\nnumbers = chapter.read_json("01_first", "numbers")',
        'chapter.save_table(pd.DataFrame({"count": [numbers["count"]]}), "counts")',
    ],
    "03_third": ['frame = chapter.read_table("02_second", "counts")\nprint(int(frame["count"].sum()))'],
}


def write_notebook(path: Path, name: str, cells: list[str], title: str | None = None) -> Path:
    """Write a chapter: title, parameters, open, the given cells (the last one checked), close."""
    notebook = nbformat.v4.new_notebook()
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    title = title or name.replace("_", " ")
    texts = (PARAMETERS, OPEN.format(name=name), *cells, "chapter.close();")
    code = [nbformat.v4.new_code_cell(text) for text in texts]
    code[0].metadata["tags"] = ["parameters"]
    notebook.cells = [nbformat.v4.new_markdown_cell(f"# {title}\n\nA claim."), *code]
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number}"
    nbformat.write(notebook, path)
    return path


def make(root: Path) -> Path:
    """Lay a small book under `root` and return it."""
    (root / "notebooks").mkdir(parents=True)
    (root / "book").mkdir()
    shutil.copytree(ROOT / "profiles", root / "profiles")
    for name in ("assets", "extensions", "templates"):
        shutil.copytree(ROOT / "book" / name, root / "book" / name)
    for name in ("_config.yml", "Snakefile"):
        if (ROOT / name).is_file():
            shutil.copy2(ROOT / name, root / name)
    (root / "book" / "references.bib").write_text("", encoding="utf-8")
    (root / "book" / "intro.md").write_text(
        "# Small\n\nThe count is {{ run:01_first/numbers/count }}; $x^2$.\n\n{{ run:status }}\n",
        encoding="utf-8",
    )
    files = "".join(f"  - file: notebooks/{name}\n" for name in CHAPTERS)
    (root / "_toc.yml").write_text(f"format: jb-book\nroot: book/intro\nchapters:\n{files}", encoding="utf-8")
    for name, cells in CHAPTERS.items():
        write_notebook(root / "notebooks" / f"{name}.ipynb", name, cells)
    return root


def manifest_for(folder: Path, **changes: object) -> dict[str, object]:
    """A manifest of the right form over a folder's files, as a run would have left it."""
    values = load_profile("quick", root=ROOT)
    return {
        "format": FORMAT, "chapter": folder.name, "computed": [], "inputs": {}, "outputs": folder_hashes(folder),
        "profile": {"name": values.name, "hash": values.hash, "values": values.model_dump(mode="json")},
        "code": {**code_version(ROOT), **code_of(folder / "no.ipynb")}, "packages": package_versions(),
        "device": machine("cpu"), "seeds": [0], "started": "2026-01-02T03:04:05+00:00", "wall_seconds": 1.0,
        "peak_memory_mib": 100, **changes,
    }  # fmt: skip


def edit_manifest(folder: Path, **changes: object) -> None:
    """Change a manifest as a hand would: its seal is left as it was."""
    path = folder / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
