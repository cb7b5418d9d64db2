"""What of a profile a chapter reads: its sections alone make it stale, and everything that is in no section."""

import re
from pathlib import Path

import nbformat
import pytest

from vitmech_utils.profiles import load_profile, repository_root
from vitmech_utils.runs.sections import SECTIONS, differing_values, sections_read, values_read

ROOT = repository_root()
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
    readers = {
        name: {path.stem[:2] for path in NOTEBOOKS if name in sections_read(path)} for name in SECTIONS
    }
    assert readers["mechanism"] == {"14"}
    assert readers["attacks"] == {"10"}
    assert {"04", "05", "07", "09", "12"} <= readers["trainings"]
    assert "02" in readers["train"]
    assert all(readers.values()), "a section that nothing reads"


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
