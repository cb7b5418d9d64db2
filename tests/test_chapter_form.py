"""A chapter's code is short: one thought a cell, few imports, and what draws or words a result lies in the package."""

import ast
import json
import re
from pathlib import Path

import pytest
from test_notebooks import CHECKED, NOTEBOOKS, cells, tags

CELL_LINES = 15
IMPORT_LINES = 12
PRESENTATION = 0.10
OPEN_LINES = 60

# Chapters whose code still waits for its move into the package.
NOT_YET: set[str] = set()
# Cells longer than CELL_LINES, by chapter and the cell's first line, each with its reason.
LONGER: dict[tuple[str, str], str] = {}

CHAPTERS = [path for path in NOTEBOOKS if path.stem[:2] not in NOT_YET]
DRAWING = {"plt", "ax", "axes", "fig", "figure", "left", "right"}


def source(cell: dict) -> str:
    return "".join(cell["source"])


def lines(node: ast.AST) -> int:
    return node.end_lineno - node.lineno + 1


def presents(statement: ast.stmt) -> bool:
    """Whether a statement assembles text, formats a table or draws, rather than calling what does."""
    for node in ast.walk(statement):
        if isinstance(node, ast.JoinedStr):
            return True
        if isinstance(node, ast.Attribute):
            name = node.value.id if isinstance(node.value, ast.Name) else None
            if node.attr in ("style", "join") or name in DRAWING:
                return True
    return False


def shares(path: Path) -> tuple[int, int, int]:
    """Lines of a chapter's code: all, those that import, those that present. Checked cells present nothing."""
    total = imports = presenting = 0
    for cell in cells(path):
        statements = ast.parse(source(cell)).body
        total += len(source(cell).splitlines())
        imports += sum(lines(node) for node in statements if isinstance(node, ast.Import | ast.ImportFrom))
        if not tags(cell) & CHECKED:
            presenting += sum(lines(node) for node in statements if presents(node))
    return total, imports, presenting


def open_lines(path: Path) -> int:
    """Lines of code that a reader meets without unfolding anything: staging folds the parameters and the opening."""
    folded = {"hide-input", "remove-cell", "parameters"}
    shown = [source(cell) for cell in cells(path) if not tags(cell) & folded]
    return sum(len(text.rstrip().splitlines()) for text in shown if "open_chapter(" not in text)


def test_the_lists_name_what_is_there() -> None:
    assert {path.stem[:2] for path in NOTEBOOKS} >= NOT_YET
    named = {(path.stem[:2], source(cell).split("\n")[0]) for path in NOTEBOOKS for cell in cells(path)}
    assert set(LONGER) <= named


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
class TestAConvertedChapter:
    def test_a_cell_is_one_thought(self, path: Path) -> None:
        long = [source(cell) for cell in cells(path) if len(source(cell).rstrip().splitlines()) > CELL_LINES]
        assert [text for text in long if (path.stem[:2], text.split("\n")[0]) not in LONGER] == []

    def test_code_that_does_not_teach_is_folded(self, path: Path) -> None:
        assert open_lines(path) <= OPEN_LINES

    def test_it_ends_with_what_one_now_knows_made_from_its_tables(self, path: Path) -> None:
        notebook = json.loads(path.read_text(encoding="utf-8"))["cells"]
        texts = [source(cell) for cell in notebook]
        place = next(at for at, text in enumerate(texts) if text.startswith("## What you now know"))
        assert texts[place] == "## What you now know", "its sentences hold figures, so that none is typed"
        assert texts[place + 1].startswith("Markdown(plots.what_you_know(")
        headings = re.findall(r"^## (.+)$", "\n".join(texts[place:]), re.MULTILINE)
        assert headings == ["What you now know", "Exercises", "What next"]

    def test_what_the_book_hides_is_folded_in_jupyterlab(self, path: Path) -> None:
        for cell in cells(path):
            folded = cell["metadata"].get("jupyter", {}).get("source_hidden", False)
            assert folded == ("hide-input" in tags(cell)), source(cell)[:80]

    def test_imports_are_few_and_stand_first(self, path: Path) -> None:
        assert shares(path)[1] <= IMPORT_LINES
        for cell in cells(path)[2:]:
            assert not any(isinstance(n, ast.Import | ast.ImportFrom) for n in ast.parse(source(cell)).body)

    def test_presentation_lies_in_the_package(self, path: Path) -> None:
        total, _, presenting = shares(path)
        assert presenting <= PRESENTATION * total, f"{presenting} of {total} lines draw or word something"


@pytest.mark.parametrize(
    ("code", "presented"),
    [
        ('Markdown(f"{found:.2f}")', True),
        ('lines = "\\n".join(rows)', True),
        ("table.style.hide()", True),
        ("_ = ax.set_title('x')", True),
        ("for ax in axes.flat:\n    ax.axis('off')", True),
        ("Markdown(plots.found(table))", False),
        ("_ = chapter.save_figure(plots.forest(table), 'forest')", False),
        ("table = chapter.keep('sweep', lambda: sweep(model()))", False),
    ],
)
def test_what_counts_as_presentation(code: str, presented: bool) -> None:
    assert presents(ast.parse(code).body[0]) == presented
