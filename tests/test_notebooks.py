"""The chapters' sources: form, stripped outputs, real comparisons by nbval."""

import ast
import copy
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import nbformat
import nbval.plugin as nbval_plugin
import pytest
from conftest import ALL, vitmech
from prose import reading_minutes
from small_book import ROOT, write_notebook

from vitmech_utils.pipeline.execute import chapters
from vitmech_utils.pipeline.stage import toc_files
from vitmech_utils.runs.code import notebook_source

NOTEBOOKS = [ROOT / "notebooks" / f"{name}.ipynb" for name in chapters(ROOT)]
CHECKED = {"keep_output", "nbval-check-output"}
# What nbval leaves out of its comparison by itself.
SKIPPED = (
    "metadata",
    "traceback",
    "prompt_number",
    "output_type",
    "name",
    "execution_count",
    "image/png",
    "image/jpeg",
)
SKIPPED += ("application/vnd.jupyter.widget-view+json",)
STRIP = ["--keep-count", "--extra-keys", "metadata.papermill cell.metadata.papermill metadata.widgets"]


def cells(path: Path, kind: str = "code") -> list[dict]:
    return [
        cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == kind
    ]


def tags(cell: dict) -> set[str]:
    return set(cell["metadata"].get("tags", []))


def nbval(path: Path, run: Path) -> subprocess.CompletedProcess[str]:
    """Run a notebook and compare its checked cells, as a process of its own."""
    options = [
        "--nbval-lax",
        "--nbval-current-env",
        "--nbval-cell-timeout=600",
        "-p",
        "no:cacheprovider",
        "-o",
        "addopts=",
    ]
    command = [sys.executable, "-m", "pytest", *options, "-q", str(path)]
    env = {**os.environ, "VITMECH_RUN_DIR": str(run), "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)


def test_every_page_of_the_book_is_there() -> None:
    pages = toc_files(ROOT)
    for page in pages:
        assert any((ROOT / f"{page}{suffix}").is_file() for suffix in (".md", ".ipynb")), page
    assert {f"notebooks/{path.stem}" for path in NOTEBOOKS} <= set(pages)


def test_figure_names_are_unique_in_the_whole_book() -> None:
    metadata = [cell["metadata"] for path in NOTEBOOKS for cell in cells(path)]
    names = [m["mystnb"]["figure"]["name"] for m in metadata if "figure" in m.get("mystnb", {})]
    assert sorted(names) == sorted(set(names))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
class TestEveryNotebook:
    def test_begins_with_parameters_and_ends_by_closing(self, path: Path) -> None:
        first = cells(path)[0]
        assert "parameters" in tags(first)
        set_names = {
            t.id: ast.unparse(node.value)
            for node in ast.parse("".join(first["source"])).body
            for t in node.targets
        }
        expected = {"profile": "'quick'", "run_dir": "None", "overrides": "{}"}
        own = dict.fromkeys(("model", "images", "labels", "task", "masks", "regions", "base"), "None")
        assert set_names == (expected | own if path.stem.startswith("13_") else expected)
        assert sum("parameters" in tags(cell) for cell in cells(path)) == 1
        assert "".join(cells(path)[-1]["source"]).rstrip(";\n ").endswith("chapter.close()")
        assert f'"{path.stem}"' in notebook_source(path)

    def test_is_stripped_but_for_checked_cells_and_those_hold_something(self, path: Path) -> None:
        checked = [cell for cell in cells(path) if tags(cell) & CHECKED]
        assert checked, "no checked cell: nbval would compare nothing"
        for cell in checked:
            assert tags(cell) >= CHECKED, "a checked cell needs both tags"
            assert cell["outputs"], "a checked cell without output compares nothing"
            assert cell["execution_count"] is not None, "a checked cell without a count compares nothing"
            assert not any(output["output_type"] == "error" for output in cell["outputs"])
        for cell in cells(path):
            if not tags(cell) & CHECKED:
                assert cell["outputs"] == []

    def test_stripping_again_changes_nothing(self, path: Path, tmp_path: Path) -> None:
        copy = tmp_path / path.name
        copy.write_bytes(path.read_bytes())
        subprocess.run([sys.executable, "-m", "nbstripout", *STRIP, str(copy)], check=True)
        stripped, source = json.loads(copy.read_text()), json.loads(path.read_text())
        for cell in [*stripped["cells"], *source["cells"]]:
            cell.pop("id", None)
        assert stripped == source

    def test_figures_have_alt_text_and_names(self, path: Path) -> None:
        names = []
        for cell in cells(path):
            figure = cell["metadata"].get("mystnb", {}).get("figure")
            if figure:
                assert figure.get("caption")
                assert cell["metadata"]["mystnb"].get("image", {}).get("alt"), (
                    f"no alt text: {figure['caption'][:60]}"
                )
                names.append(figure.get("name"))
        assert all(names)
        assert len(names) == len(set(names))

    def test_has_a_title_and_says_nothing_of_this_machine(self, path: Path) -> None:
        assert "".join(cells(path, "markdown")[0]["source"]).lstrip().startswith(("# ", "("))
        text = path.read_text(encoding="utf-8")
        for word in (str(ROOT), str(Path.home()) + "/"):
            assert word not in text


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
class TestEveryChapterTeaches:
    def test_it_says_what_is_learned_what_is_needed_and_how_long_it_takes(self, path: Path) -> None:
        opening = "".join(cells(path, "markdown")[0]["source"])
        for word in ("**You will learn**", "**Before you start.** Necessary:", "Helpful:", "**Time.**"):
            assert word in opening
        said = int(re.search(r"\*\*Time\.\*\* About (\d+) minutes to read", opening).group(1))
        assert abs(said - reading_minutes(path)) <= 3, f"say {5 * round(reading_minutes(path) / 5)} minutes"

    def test_every_exercise_has_a_check_and_a_folded_solution(self, path: Path) -> None:
        text = "".join(cells(path, "markdown")[-1]["source"]).split("## What next")[0]
        exercises = dict(re.findall(r"^(\d+)\. (.*?)(?=^\d+\. |\Z)", text, flags=re.DOTALL | re.MULTILINE))
        assert len(exercises) >= 3
        for number, exercise in exercises.items():
            assert "*To check:*" in exercise, f"exercise {number} does not say what its check takes"
            assert re.search(r"^   ```\{dropdown\} Solution\n.*^   ```$", exercise, re.DOTALL | re.MULTILINE)
        assert checked_exercises(path) == [int(number) for number in exercises]


def checked_exercises(path: Path) -> list[int]:
    """Numbers of the exercises that a chapter's code can judge."""
    calls = [node for node in ast.walk(ast.parse(notebook_source(path))) if isinstance(node, ast.Call)]
    (table,) = [call.args[0] for call in calls if ast.unparse(call.func) == "Exercises"]
    return [key.value for key in table.keys]


def differences(source: Path, executed: Path) -> list[str]:
    """What nbval's own comparison finds between a notebook's checked cells and those of an executed copy of it.

    Cells are told by their ids, since an executed copy has one more, with the run's parameters.
    """
    found = []
    copies = {cell.id: cell for cell in nbformat.read(executed, as_version=4).cells}
    for cell in nbformat.read(source, as_version=4).cells:
        if cell.cell_type != "code" or not CHECKED & set(cell.metadata.get("tags", [])):
            continue
        made = copies.get(cell.id)
        if made is None or made.source != cell.source:
            found.append(f"{source.name}: cell {cell.id} is not in {executed}, or says other things there")
            continue
        judge = SimpleNamespace(
            colors=nbval_plugin.nocolors,
            parent=SimpleNamespace(skip_compare=SKIPPED, sanitize_patterns={}),
            sanitize=lambda text: text,
            format_output_compare=lambda key, left, right, where=f"{source.name}, {cell.id}": found.append(
                f"{where}, {key}:\n  stored: {left}\n  computed: {right}"
            ),
        )
        outputs = (nbval_plugin.coalesce_streams(copy.deepcopy(each.outputs)) for each in (made, cell))
        count = len(found)
        if not nbval_plugin.IPyNbCell.compare_outputs(judge, *outputs) and len(found) == count:
            found.append(f"{source.name}, {cell.id}: {' '.join(judge.comparison_traceback)}")
    return found


@pytest.mark.pipeline
@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_quick_run_prints_what_the_checked_cells_hold(path: Path, quick_run: Path) -> None:
    """The series has executed every notebook already: nbval's comparison is held against that run."""
    assert differences(path, quick_run / path.stem / path.name) == []


@pytest.mark.pipeline
@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS if ALL else NOTEBOOKS[:1], ids=lambda path: path.stem)
def test_nbval_passes(path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Under nbval itself, as users call it; `make test-all` does so with all of them, in order."""
    run = tmp_path_factory.getbasetemp() / "nbval"
    done = nbval(path, run)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert " passed" in done.stdout


@pytest.mark.pipeline
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda cell: None, []),
        (lambda cell: cell["outputs"][0].update(text="3\n"), ["stored: 2", "computed: 3"]),
        (lambda cell: cell.update(outputs=[]), ["Missing output"]),
        (
            lambda cell: cell["outputs"].append({"output_type": "stream", "name": "stderr", "text": "x"}),
            ["Unexpected"],
        ),
        (
            lambda cell: cell["outputs"].append(
                {"output_type": "display_data", "data": {"text/plain": "x"}, "metadata": {}}
            ),
            ["Unexpected"],
        ),
        (lambda cell: cell.update(source="print(2)"), ["says other things"]),
    ],
)
def test_the_comparison_finds_what_nbval_finds(
    small: Path, tmp_path: Path, change: object, words: list[str]
) -> None:
    path = write_notebook(small / "notebooks" / "01_first.ipynb", "01_first", ["print(1 + 1)"])
    notebook = json.loads(path.read_text())
    cell = notebook["cells"][3]
    cell["metadata"]["tags"] = sorted(CHECKED)
    cell["execution_count"] = 3
    cell["outputs"] = [{"output_type": "stream", "name": "stdout", "text": ["2\n"]}]
    path.write_text(json.dumps(notebook))
    executed = tmp_path / "executed.ipynb"
    change(cell)
    executed.write_text(json.dumps(notebook))
    found = differences(path, executed)
    assert bool(found) is bool(words)
    assert all(word in found[0] for word in words)


@pytest.mark.pipeline
@pytest.mark.parametrize(("printed", "passes"), [("2\n", True), ("3\n", False)])
def test_nbval_fails_on_a_wrong_value(small: Path, tmp_path: Path, printed: str, passes: bool) -> None:
    path = write_notebook(small / "notebooks" / "01_first.ipynb", "01_first", ["print(1 + 1)"])
    notebook = json.loads(path.read_text())
    cell = notebook["cells"][3]
    cell["metadata"]["tags"] = sorted(CHECKED)
    cell["execution_count"] = 3
    cell["outputs"] = [{"output_type": "stream", "name": "stdout", "text": [printed]}]
    path.write_text(json.dumps(notebook))
    assert (nbval(path, tmp_path / "run").returncode == 0) is passes


@pytest.mark.pipeline
def test_a_failing_notebook_fails_the_run(small: Path) -> None:
    write_notebook(small / "notebooks" / "01_first.ipynb", "01_first", ["assert False, 'on purpose'"])
    done = vitmech("run", "01", root=small)
    assert done.returncode == 1
    assert "on purpose" in done.stderr
    assert not (small / "results" / "quick" / "01_first").exists()
