"""The head picker's modules: one idea each, typed, and joined into the file that pages carry."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

sys.path.insert(0, str(ROOT / "tools"))
from join_picker import PICKER, JoinError, in_order, joined

SOURCES = sorted((PICKER / "src").glob("*.js"))
CHECKER = ROOT / "tools" / "picker"
TSC = CHECKER / "node_modules" / "typescript" / "bin" / "tsc"


def write(folder: Path, **modules: str) -> Path:
    for name, text in modules.items():
        (folder / f"{name}.js").write_text(text, encoding="utf-8")
    return folder


def test_the_joined_file_is_what_its_modules_make() -> None:
    assert (PICKER / "picker.js").read_text(encoding="utf-8") == joined(PICKER / "src")


def test_every_module_is_in_it_once_after_those_that_it_imports() -> None:
    order = in_order(PICKER / "src")
    assert len(order) == len(set(order))
    assert {path.name for path in SOURCES} - set(order) == {"types.js"}  # which holds no code


def test_a_module_is_one_idea() -> None:
    for path in SOURCES:
        lines = path.read_text(encoding="utf-8").splitlines()
        assert lines[0].startswith("// "), path.name
        assert len(lines) <= 200, path.name


def test_modules_are_joined_in_order_without_imports_and_exports(tmp_path: Path) -> None:
    write(
        tmp_path,
        picker='// Entry.\n\nimport { twice } from "./b.js";\nexport const f = twice(2);\nexport default { f };\n',
        b='// B.\n\nimport { one } from "./a.js";\n/** @import { T } from "./t" */\nexport const twice = () => one;\n',
        a="// A.\n\nexport const one = 1;\n",
    )
    body = joined(tmp_path).split("\n", 1)[1]
    assert body == (
        "\n// A.\n\nconst one = 1;\n\n// B.\n\nconst twice = () => one;\n\n"
        "// Entry.\n\nexport const f = twice(2);\nexport default { f };\n"
    )


@pytest.mark.parametrize(
    ("modules", "message"),
    [
        ({"picker": 'import { a } from "./b.js";\nconst one = 1;\n', "b": "const one = 2;\n"}, "both call .* one"),
        ({"picker": 'import { a } from "./b.js";\n', "b": 'import { c } from "./picker.js";\n'}, "in a circle"),
        ({"picker": 'import a from "./b.js";\n'}, "expected imports as"),
        ({"picker": 'export { a } from "./b.js";\n'}, "expected imports as"),
    ],
)  # fmt: skip
def test_what_one_file_cannot_hold_is_refused(tmp_path: Path, modules: dict[str, str], message: str) -> None:
    with pytest.raises(JoinError, match=message):
        joined(write(tmp_path, **modules))


@pytest.mark.skipif(not TSC.is_file() or shutil.which("node") is None, reason="TypeScript is not installed")
def test_types_hold() -> None:
    done = subprocess.run(
        ["node", str(TSC), "--project", "tsconfig.json"],
        cwd=CHECKER,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:]


@pytest.mark.skipif(not TSC.is_file() or shutil.which("node") is None, reason="TypeScript is not installed")
def test_a_wrong_type_is_found(tmp_path: Path) -> None:
    shutil.copytree(PICKER / "src", tmp_path / "src")
    text = (tmp_path / "src" / "sentence.js").read_text(encoding="utf-8")
    assert "state.layer" in text
    (tmp_path / "src" / "sentence.js").write_text(
        text.replace("state.layer", "state.leyer"), encoding="utf-8"
    )
    settings = (CHECKER / "tsconfig.json").read_text(encoding="utf-8")
    (tmp_path / "tsconfig.json").write_text(
        settings.replace("../../vitmech_utils/report/picker/", ""), encoding="utf-8"
    )
    done = subprocess.run(
        ["node", str(TSC), "--project", str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert "leyer" in done.stdout
    assert done.returncode != 0
