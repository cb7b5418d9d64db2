"""The backward slice of a chapter: what decides what it keeps is in it, and what only shows is not."""

import ast
import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from small_book import ROOT, write_notebook

from vitmech_utils.runs.code import (
    code_of,
    computing_predecessors,
    computing_source,
    module_files,
    notebook_hashes,
    notebook_source,
    read_cells,
    read_notebook,
    saving_source,
    shows,
    training_files,
)
from vitmech_utils.runs.manifests import NON_RESULT_MODULES, RunError
from vitmech_utils.runs.slicing import computing_statements

NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_cells_are_read_as_nbformat_reads_them(path: Path) -> None:
    expected = [(cell.cell_type, cell.source, cell.metadata) for cell in read_notebook(path).cells]
    assert [(cell.cell_type, cell.source, cell.metadata) for cell in read_cells(path)] == expected


@pytest.mark.parametrize("text", ["", "{", "[]", '{"nbformat": 4}', '{"nbformat": 4, "cells": [{}]}', "null"])
def test_what_is_no_notebook_is_refused_by_name(tmp_path: Path, text: str) -> None:
    path = tmp_path / "01_first.ipynb"
    path.write_text(text)
    with pytest.raises(RunError, match=r"01_first\.ipynb: not a notebook"):
        read_cells(path)


def test_an_older_format_is_left_to_nbformat(tmp_path: Path) -> None:
    cell = {"cell_type": "code", "input": ["a = 1"], "outputs": [], "language": "python", "collapsed": False}
    old = {
        "nbformat": 3,
        "nbformat_minor": 0,
        "metadata": {},
        "worksheets": [{"metadata": {}, "cells": [cell]}],
    }
    path = tmp_path / "01_first.ipynb"
    path.write_text(json.dumps(old))
    assert notebook_source(path) == "a = 1"


def test_opening_a_chapter_loads_no_notebook_library() -> None:
    code = (
        "import sys\nfrom pathlib import Path\nfrom vitmech_utils.runs.code import code_of\n"
        f"code_of(Path({str(NOTEBOOKS[0])!r}))\nprint(*{{'nbformat', 'jsonschema', 'torch'}} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def sliced(program: str) -> list[str]:
    """The lines of a program that the calls of `keep` in it depend on."""

    def keeps(statement: ast.stmt) -> bool:
        return any(isinstance(node, ast.Attribute) and node.attr == "keep" for node in ast.walk(statement))

    found = computing_statements(textwrap.dedent(program), keeps, shows)
    return [line for statement in found for line in ast.unparse(statement).splitlines()]


@pytest.mark.parametrize(
    ("program", "lines"),
    [
        ("a = 1\nb = 2\nx = c.keep('x', lambda: a)", "a"),
        ("a = 1\na = 2\nx = c.keep('x', lambda: a)", "a = 2"),
        ("a = 1\nx = c.keep('x', lambda: a)\na = 2", "a = 1"),
        ("a = [1]\na.append(2)\nb = [3]\nb.append(4)\nx = c.keep('x', lambda: a)", "a, append(2)"),
        ("a = {}\na['k'] = 1\nx = c.keep('x', lambda: a)", "a = {}, a['k'] = 1"),
        ("a = {}\nd = a\nd['k'] = 1\nx = c.keep('x', lambda: a)", "d['k'] = 1"),
        ("a = {1: []}\nfor k, v in a.items():\n    v.append(1)\nx = c.keep('x', lambda: a)", "v.append(1)"),
        ("a = 1\na += 1\nx = c.keep('x', lambda: a)", "a = 1, a += 1"),
        ("if y:\n    a = 1\nelse:\n    a = 2\nx = c.keep('x', lambda: a)", "if y, a = 1, a = 2"),
        ("def f():\n    return g()\ndef g():\n    return a\na = 3\nx = c.keep('x', f)", "return g(), return a, a = 3"),
        ("f = c.lazy(lambda: a)\na = 1\nx = c.keep('x', lambda: f())", "f = c.lazy, a = 1"),
        ("a = 1\nf = c.lazy(lambda: a)\na = 2\nx = c.keep('x', lambda: f())", "a = 2"),
        ("def fill(d):\n    d['k'] = 1\na = {}\nfill(a)\nx = c.keep('x', lambda: a)", "fill(a)"),
        ("def fill():\n    a['k'] = 1\na = {}\nfill()\nx = c.keep('x', lambda: a)", "fill()"),
        ("def f(d):\n    g(d)\ndef g(d):\n    d.clear()\na = {}\nf(a)\nx = c.keep('x', lambda: a)", "f(a)"),
        ("r = np.random.default_rng(0)\nr.random()\nx = c.keep('x', lambda: r.random())", "r.random()\nx"),
        ("rng = np.random.default_rng(0)\ny = draw(rng)\nx = c.keep('x', lambda: rng.random())", "y = draw"),
        ("import torch\ntorch.manual_seed(0)\nx = c.keep('x', lambda: torch.rand(1))", "manual_seed"),
        ("import os\nos.environ['A'] = '1'\nx = c.keep('x', lambda: os.environ['A'])", "os.environ['A'] = '1'"),
        ("import torch\nt = torch.ones(1)\nt.zero_()\nx = c.keep('x', lambda: t)", "t.zero_()"),
        ("import torch\nt = torch.ones(1)\ntorch.nn.init.zeros_(t)\nx = c.keep('x', lambda: t)", "zeros_(t)"),
        ("m = load()\nm.eval()\nx = c.keep('x', lambda: m(1))", "m.eval()"),
        ("from vitmech_utils.model import lora\nm = load()\nlora.prepare(m)\nx = c.keep('x', lambda: m)", "prepare(m)"),
        ("from vitmech_utils.model import finetune as f\nt = f.fine_tune(m)\nx = c.keep('x', lambda: m)", "tune(m)"),
        ("with open('f') as f:\n    a = f.read()\nx = c.keep('x', lambda: a)", "f.read()"),
        ("try:\n    a = 1\nexcept E as e:\n    a = e\nx = c.keep('x', lambda: a)", "a = e"),
        ("class A:\n    k = b\nb = 2\nx = c.keep('x', lambda: A)", "class A, k = b"),
        ("a = [i for i in n]\nx = c.keep('x', lambda: [a for b in a])\nn = 1", "a = [i"),
        ("n = 2\na = [i for i in range(n)]\nx = c.keep('x', lambda: a)", "n = 2"),
        ("def f():\n    global a\n    a = 2\na = 1\nf()\nx = c.keep('x', lambda: a)", "global a\n    a = 2, f()"),
        ("match y:\n    case [a, *b]:\n        pass\nx = c.keep('x', lambda: (a, b))", "case [a, *b]"),
        ("a = 1\nx = c.keep('x', lambda: eval('a'))\nb = 2", "a = 1, b = 2"),
        ("from numpy import *\nb = 2\nx = c.keep('x', lambda: ones(1))", "b = 2"),
    ],
)  # fmt: skip
def test_what_decides_is_in_the_slice(program: str, lines: str) -> None:
    found = "\n".join(sliced(program))
    for line in lines.split(", "):
        assert line in found


@pytest.mark.parametrize(
    ("program", "lines"),
    [
        ("a = 1\nb = a\nx = c.keep('x', lambda: a)\nprint(x, b)", "b = a, print"),
        ("a = table()\nimport matplotlib.pyplot as plt\nplt.plot(a)\nx = c.keep('x', lambda: a)", "plt"),
        ("from vitmech_utils.figures.marks import bars\n_ = bars(ax, a)\nx = c.keep('x', lambda: a)", "bars"),
        ("a = t()\nb = a.mean()\nax.plot(b)\nx = c.keep('x', lambda: a)", "b = a, plot"),
        ("from m import used, unused\nx = c.keep('x', lambda: used())", "unused"),
        ("def f():\n    '''Words.'''\n    return 1\nx = c.keep('x', f)  # a comment", "Words, comment"),
        ("facts = words()\nfacts['x'] = c.keep('x', lambda: 1)", "words"),
        ("m = load(path).merged().eval()\nimport load\nx = c.keep('x', lambda: 1)", "load"),
        ("rows = {k: vars(v) for k, v in d.items()}\nx = c.keep('x', lambda: 1)", "rows"),
        ("for a in b:\n    show(a)\nx = c.keep('x', lambda: [a for a in y])", "show"),
    ],
)  # fmt: skip
def test_what_only_shows_is_not(program: str, lines: str) -> None:
    found = "\n".join(sliced(program))
    assert "keep" in found
    for line in lines.split(", "):
        assert line not in found


def notebook(tmp_path: Path, *cells: str) -> Path:
    return write_notebook(tmp_path / "01_first.ipynb", "01_first", list(cells))


def test_a_chapter_that_keeps_nothing_computes_what_it_saves(tmp_path: Path) -> None:
    path = notebook(tmp_path, 'a = 1\nb = 2\nchapter.save_json(a, "a")\n_ = chapter.save_figure(b, "b")')
    assert "a = 1" in computing_source(path)
    assert "b = 2" not in computing_source(path)
    path = notebook(tmp_path, 'a = chapter.keep("a", lambda: 1)\nb = 2\nchapter.save_json(b, "b")')
    assert "b = 2" not in computing_source(path)
    assert "b = 2" in saving_source(path)


def test_code_that_is_no_python_is_named(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"01_first\.ipynb: its code is not Python"):
        notebook_hashes(notebook(tmp_path, "a = ("))


def test_a_chapter_computes_with_what_it_reads_for_what_it_keeps(small: Path) -> None:
    cells = [
        'numbers = chapter.read_json("01_first", "numbers")\nshown = chapter.read_json("02_second", "counts")',
        'x = chapter.keep("x", lambda: numbers)',
    ]
    path = write_notebook(small / "notebooks" / "03_third.ipynb", "03_third", cells)
    assert computing_predecessors(path) == ["01_first"]


FILES = {
    "__init__.py": 'from vitmech_utils.heads.one import run\n\n__all__ = ["run"]\n__version__ = "1"\n',
    "heads/__init__.py": '"""Heads."""\n',
    "heads/one.py": "from vitmech_utils.data.base import BASE\n\n\ndef run():\n    return BASE\n",
    "heads/two.py": "from vitmech_utils.figures import plots\n",
    "data/__init__.py": "import os\n\nSIDE = os.getcwd()\n",
    "data/base.py": "BASE = 1\n",
    "figures/__init__.py": "",
    "figures/plots.py": "from vitmech_utils.data import base\n",
    "studies/__init__.py": "",
    "studies/one/__init__.py": "from . import measure, plots\nfrom .measure import take\n",
    "studies/one/measure.py": "def take():\n    return 1\n",
    "studies/one/plots.py": "def draw():\n    return 1\n",
    "report/__init__.py": "from vitmech_utils.report.widget import Picker\n",
    "report/widget.py": "class Picker:\n    pass\n",
    "report/picker.css": "a {}\n",
    "lazy/__init__.py": 'IN = {"late": "heads.two", "early": "vitmech_utils.heads.one"}\ndef __getattr__(name): ...\n',
    "artefacts.py": "",
}  # fmt: skip


@pytest.fixture
def package(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        path = tmp_path / "vitmech_utils" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


@pytest.mark.parametrize(
    ("code", "files"),
    [
        ("from vitmech_utils.heads import one", "data/__init__.py data/base.py heads/one.py"),
        ("from vitmech_utils import run", "data/__init__.py data/base.py heads/one.py"),
        ("from vitmech_utils.artefacts import digest", ""),
        ("from vitmech_utils.studies.one import take", "studies/one/measure.py"),
        ("from vitmech_utils.studies.one import measure\nmeasure.take()", "studies/one/measure.py"),
        ("from vitmech_utils.studies import one\none.take()", "studies/one/measure.py"),
        ("from vitmech_utils.studies import one\none.plots.draw()", "studies/one/plots.py"),
        (
            "from vitmech_utils.studies import one\nprint(one)",
            "studies/one/__init__.py studies/one/measure.py studies/one/plots.py",
        ),
        ("from vitmech_utils.report import Picker", "report/picker.css report/widget.py"),
        ("import vitmech_utils.figures.plots", "data/__init__.py data/base.py figures/plots.py"),
        ("def f():\n    from vitmech_utils.data import base", "data/__init__.py data/base.py"),
        ("x = chapter.regressor()", ""),
    ],
)
def test_modules_are_found_through_packages_that_only_hand_on(package: Path, code: str, files: str) -> None:
    found = [path.relative_to(package / "vitmech_utils").as_posix() for path in module_files(code, package)]
    assert found == files.split()


def test_what_only_carries_or_refuses_makes_no_chapter_stale() -> None:
    code = "from vitmech_utils.data.recordings import RecordingFolder\nfrom vitmech_utils.model.scores import score"
    package = ROOT / "vitmech_utils"
    found = {path.relative_to(package).as_posix() for path in module_files(code)}
    for name in NON_RESULT_MODULES:
        place = package / name.replace(".", "/")
        assert place.with_suffix(".py").is_file() or place.is_dir(), name
        assert f"{name.replace('.', '/')}.py" not in found
    assert {"data/recordings/boxes.py", "model/scores.py", "own_folders.py", "strict_text.py"} <= found


def test_names_that_are_imported_when_asked_for(package: Path) -> None:
    for name, file in (("late", "heads/two.py"), ("early", "heads/one.py")):
        found = module_files(f"from vitmech_utils.lazy import {name}", package)
        assert package / "vitmech_utils" / file in found
        assert package / "vitmech_utils" / "lazy" / "__init__.py" not in found


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem[:2])
def test_no_chapter_computes_with_what_shows(path: Path) -> None:
    if ".keep(" not in notebook_source(path):
        pytest.skip("it keeps nothing")
    computing = code_of(path)["modules"]["computes"]
    if path.stem.startswith("13"):  # what it computes is a report: a page with a picker
        assert "vitmech_utils/report/picker/static.py" in computing
        return
    assert [name for name in computing if shows(name.removesuffix(".py").replace("/", "."))] == []
    assert "vitmech_utils/model/backbones.py" in computing or path.stem.startswith("01")


def test_trainings_are_keyed_by_what_trains() -> None:
    files = {file.relative_to(ROOT).as_posix() for file in training_files(NOTEBOOKS[1])}
    assert {"vitmech_utils/model/finetune.py", "vitmech_utils/data/dataset.py"} <= files
    assert not any(shows(name.removesuffix(".py").replace("/", ".")) for name in files)
    assert "vitmech_utils/heads/ablation.py" not in files
