"""What of a profile a chapter reads: its sections alone make it stale, and everything that is in no section."""

import ast
import re
from pathlib import Path

import nbformat
import pytest

from vitmech_utils.profiles import load_profile, repository_root
from vitmech_utils.runs.sections import (
    PROFILES,
    SECTIONS,
    differing_values,
    owner,
    sections_read,
    values_read,
)

ROOT = repository_root()
# What else has attributes that are called like sections; a profile is called by one of `PROFILES`.
OTHERS = {
    "ChirpRegressor", "block", "clean", "cls", "constant", "first", "found", "gated", "images", "judged", "keep",
    "layer", "model", "one", "options", "parts", "predictions", "recording", "regressor", "row", "self", "study",
    "trainer", "tried",
}  # fmt: skip
NOTEBOOKS = sorted((ROOT / "notebooks").glob("[01]*.ipynb"))


def made(**overrides: object) -> dict:
    """A manifest's profile."""
    profile = load_profile("quick", {key.replace("__", "."): value for key, value in overrides.items()}, ROOT)
    return {"hash": profile.hash, "values": profile.model_dump(mode="json")}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_section_that_a_notebook_names_is_read(path: Path) -> None:
    source = "\n".join(
        cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"
    )
    named = {name for name in SECTIONS if re.search(rf"profile\.{name}\b", source)}
    assert named <= sections_read(path)


def test_each_study_s_section_is_read_by_its_chapter_and_few_others() -> None:
    read = {path.stem[:2]: sections_read(path) for path in NOTEBOOKS}
    readers = {name: {chapter for chapter, named in read.items() if name in named} for name in SECTIONS}
    assert readers["mechanism"] == {"14"}
    assert readers["attacks"] == {"10"}
    assert {"04", "05", "07", "09", "12"} <= readers["trainings"]
    assert "02" in readers["train"]
    assert all(readers.values()), "a section that nothing reads"


def test_a_profile_is_called_one_wherever_a_section_is_read() -> None:
    """Else a chapter would not count as stale when that section changes."""
    for path in sorted((ROOT / "vitmech_utils").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and node.attr in SECTIONS:
                assert owner(node) in PROFILES | OTHERS | {""}, (
                    f"{path.name}, line {node.lineno}: {owner(node)}"
                )


def test_what_models_have_is_no_section_of_a_profile(tmp_path: Path) -> None:
    source = "model.task, block.attention, chapter.profile.audit, load_profile('quick').origin, recipe.train"
    nbformat.write(
        nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)]), tmp_path / "01_made.ipynb"
    )
    assert sections_read(tmp_path / "01_made.ipynb") == {"audit", "origin", "train"}
    assert [path.stem[:2] for path in NOTEBOOKS if "semantics" in sections_read(path)] == ["05"]


def test_a_notebook_that_is_not_there_reads_everything(tmp_path: Path) -> None:
    assert sections_read(tmp_path / "01_none.ipynb") == SECTIONS


def test_methods_that_hand_a_section_on_count_for_it(tmp_path: Path) -> None:
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell('profile.further_seeds("04"); profile.rehearsal()')]
    )
    nbformat.write(notebook, tmp_path / "01_made.ipynb")
    assert sections_read(tmp_path / "01_made.ipynb") == {"trainings", "train", "task"}


def test_other_values_of_a_section_concern_its_readers_alone() -> None:
    profile = load_profile("quick", {}, ROOT)
    attacks, first = (next(path for path in NOTEBOOKS if path.stem[:2] == name) for name in ("10", "01"))
    other = made(attacks__images=3)
    assert differing_values(other, profile, first) == ""
    assert differing_values(other, profile, attacks) == "attacks.images: 3 then, 2 now"
    assert differing_values(made(), profile, attacks) == ""


def test_what_is_in_no_section_concerns_every_chapter() -> None:
    profile = load_profile("quick", {}, ROOT)
    for path in NOTEBOOKS:
        other = made(backbone="tiny", trainings__seeds=profile.trainings.seeds)
        assert differing_values(other, profile, path) == "backbone: tiny then, dinov2-small now"


def test_values_that_contradict_their_hash_are_refused() -> None:
    profile = load_profile("quick", {}, ROOT)
    assert differing_values({**made(), "hash": "0" * 64}, profile, NOTEBOOKS[0]) == "another hash"


def test_values_outside_sections_are_always_read() -> None:
    values = made()["values"]
    assert set(values_read(values, ())) == set(values) - SECTIONS
    assert set(values_read(values, {"audit"})) == (set(values) - SECTIONS) | {"audit"}
