"""What may become a page: whole, executed chapters that belong together; anything else leaves the old pages alone."""

import base64
import json
import re
from pathlib import Path

import nbformat
import pytest
import yaml
from small_book import CHAPTERS, ROOT, make
from test_runs import begin

from vitmech_utils.artefacts import file_hash
from vitmech_utils.pipeline.pictures import argument, tell_findings
from vitmech_utils.pipeline.stage import labelled, stage
from vitmech_utils.runs.code import read_notebook
from vitmech_utils.runs.manifests import RunError, write_manifest


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A small clone whose three chapters are finished, their executed pages made without a kernel."""
    root = make(tmp_path / "clone")
    for name in CHAPTERS:
        finish(root, name)
    return root


def run_of(root: Path) -> Path:
    return root / "results" / "quick"


def finish(root: Path, name: str, error: bool = False, said: str = "", **options: object) -> None:
    """Close a chapter with one number, then its executed notebook beside it, as `vitmech run` records it."""
    chapter = begin(root, name, **options)
    chapter.save_json({"count": 1}, "numbers")
    manifest = chapter.close()
    source = root / "notebooks" / f"{name}.ipynb"
    page = nbformat.read(source, as_version=4)
    if error:
        page.cells[-1].outputs = [
            nbformat.v4.new_output("error", ename="ZeroDivisionError", evalue="", traceback=[])
        ]
    if said:
        page.cells[-1].outputs = [nbformat.v4.new_output("stream", name="stdout", text=said)]
    executed = chapter.final_folder / f"{name}.ipynb"
    nbformat.write(page, executed)
    record = {"file": executed.name, "sha256": file_hash(executed)}
    write_manifest(chapter.final_folder, {**manifest, "executed": record})


def rewrite(root: Path, name: str, **changes: object) -> None:
    """Change a manifest and seal it again, as a run of other code or another package would have written it."""
    path = run_of(root) / name / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["code"].update(changes)
    write_manifest(path.parent, manifest)


def refused(root: Path, message: str) -> None:
    target = root / "staged"
    target.mkdir()
    (target / "page.md").write_text("the last good pages")
    with pytest.raises(RunError, match=message):
        stage(root, run_of(root), target)
    assert (target / "page.md").read_text() == "the last good pages"


def test_whole_chapters_of_one_run_become_pages(clone: Path) -> None:
    manifests = stage(clone, run_of(clone), clone / "staged")
    assert list(manifests) == list(CHAPTERS)
    assert "The count is 1;" in (clone / "staged" / "book" / "intro.md").read_text()


def test_the_executed_notebook_of_a_failed_run_is_refused(clone: Path) -> None:
    finish(clone, "02_second", error=True)
    refused(clone, r"02_second: its executed notebook holds an error; run `vitmech run 02 --run-dir")


def test_a_chapter_that_ran_without_its_page_is_refused(clone: Path) -> None:
    begin(clone, "02_second").close()
    refused(
        clone,
        r"02_second: no executed notebook \(the chapter ran outside `vitmech run`\); draw it with `vitmech run 02",
    )


def test_an_executed_notebook_edited_by_hand_is_refused(clone: Path) -> None:
    path = run_of(clone) / "01_first" / "01_first.ipynb"
    path.write_text(path.read_text().replace("A claim.", "A better claim."))
    refused(clone, r"01_first\.ipynb: changed since the run that made it; run `vitmech run 01")


def test_chapters_of_two_profiles_are_refused(clone: Path) -> None:
    finish(clone, "02_second", overrides={"seeds": [3], "trainings.seeds": [4, 5]})
    refused(
        clone,
        r"01_first and 02_second were made with different profile values \(seeds\).*run `vitmech run all`",
    )


def test_a_section_that_both_chapters_read_must_be_the_same(clone: Path) -> None:
    for name in ("01_first", "02_second"):
        path = clone / "notebooks" / f"{name}.ipynb"
        page = nbformat.read(path, as_version=4)
        page.cells[-1].source = "plan = chapter.profile.audit\n" + page.cells[-1].source
        nbformat.write(page, path)
    for name in CHAPTERS:
        finish(clone, name)
    finish(clone, "02_second", overrides={"audit.images": 3})
    refused(clone, r"different profile values \(audit\)")


def test_a_section_that_a_chapter_does_not_read_may_be_another(clone: Path) -> None:
    finish(clone, "03_third", overrides={"audit.images": 3})
    assert list(stage(clone, run_of(clone), clone / "staged")) == list(CHAPTERS)


def test_chapters_of_two_backbones_are_refused(clone: Path) -> None:
    finish(clone, "03_third", overrides={"backbone": "tiny"})
    refused(clone, "different profile values")


def test_chapters_of_two_package_versions_are_refused(clone: Path) -> None:
    rewrite(clone, "02_second", version="0.0.9")
    refused(clone, r"different package version \(01_first: .*02_second: 0\.0\.9")


def test_chapters_made_with_two_versions_of_a_module_are_refused(clone: Path) -> None:
    for name, value in (("01_first", "a" * 64), ("02_second", "b" * 64)):
        rewrite(
            clone, name, modules={"computes": {"vitmech_utils/data/gone.py": value}, "saves": {}, "shows": {}}
        )
    published = clone / "published"
    run_of(clone).rename(published)  # a frozen run is held against itself alone, not against today's code
    with pytest.raises(
        RunError, match=r"01_first and 02_second were made with different versions of .*gone\.py"
    ):
        stage(clone, published, clone / "staged")


def test_chapters_name_those_that_were_left_out_without_a_link(clone: Path) -> None:
    source = clone / "notebooks" / "01_first.ipynb"
    page = json.loads(source.read_text())
    links = "Then [](03_third.ipynb), [its end](03_third.ipynb#end) and [](02_second.ipynb)."
    page["cells"].append({"cell_type": "markdown", "id": "links", "metadata": {}, "source": links})
    source.write_text(json.dumps(page))
    finish(clone, "01_first")
    finish(clone, "02_second")
    published = clone / "published"
    run_of(clone).rename(published)
    (published / "03_third").rename(clone / "elsewhere")
    stage(clone, published, clone / "staged")
    staged = json.loads((clone / "staged" / "notebooks" / "01_first.ipynb").read_text())["cells"][-1]
    expected = "Then *03 third* (a chapter that this run leaves out), its end and [](02_second.ipynb)."
    assert "".join(staged["source"]) == expected


@pytest.mark.parametrize(("gone", "numbered"), [(None, True), ("03_third", True), ("02_second", False)])
def test_chapters_are_numbered_only_where_counting_gives_their_own_numbers(
    clone: Path, gone: str | None, numbered: bool
) -> None:
    files = "".join(f"      - file: notebooks/{name}\n" for name in CHAPTERS)
    toc = f"format: jb-book\nroot: book/intro\nparts:\n  - caption: All\n    numbered: 1\n    chapters:\n{files}"
    (clone / "_toc.yml").write_text(toc)
    published = clone / "published"
    run_of(clone).rename(published)
    if gone:
        (published / gone).rename(clone / "elsewhere")
    stage(clone, published, clone / "staged")
    part = yaml.safe_load((clone / "staged" / "_toc.yml").read_text())["parts"][0]
    assert ("numbered" in part) == numbered


def test_the_book_counts_its_chapters_by_their_own_numbers() -> None:
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    names = [
        entry["file"] for part in toc["parts"] if part.get("numbered") == 1 for entry in part["chapters"]
    ]
    assert names == [f"notebooks/{path.stem}" for path in sorted((ROOT / "notebooks").glob("*.ipynb"))]
    assert [name[10:12] for name in names] == [f"{number:02}" for number in range(1, len(names) + 1)]


def chapters() -> list[Path]:
    return sorted((ROOT / "notebooks").glob("[01]*.ipynb"))


@pytest.mark.parametrize("path", chapters(), ids=lambda path: path.stem[:2])
def test_every_chapter_shows_its_argument_near_the_top(path: Path, monkeypatch) -> None:
    monkeypatch.setattr("vitmech_utils.pipeline.stage.banner", lambda *_: "made")
    notebook = read_notebook(path)
    shown = argument(notebook, path.stem)
    name = re.search(rf"\.\./book/run/{path.stem}/([\w-]+)\.png", shown).group(1)
    assert any(f'"{name}"' in cell.source for cell in notebook.cells if "save_figure(" in cell.source)
    page = labelled(notebook, {"chapter": path.stem})
    place = [cell.get("id") for cell in page.cells].index("staged-argument")
    assert place == 3, "after title, provenance and what one learns"
    assert page.cells[place - 1].source.startswith("**The ")


@pytest.mark.parametrize("damage", ["two", "no figure", "no name", "no alt"])
def test_an_argument_that_cannot_be_shown_is_refused(damage: str) -> None:
    notebook = read_notebook(chapters()[0])
    cell = next(cell for cell in notebook.cells if "argument" in cell.metadata.get("tags", []))
    if damage == "two":
        notebook.cells.append(cell)
    elif damage == "no figure":
        cell.source = "1 + 1"
    else:
        cell.metadata.mystnb.pop("figure" if damage == "no name" else "image")
    with pytest.raises(RunError, match="expected one that saves a figure with a name and an alt text"):
        argument(notebook, "01_chirp_spectrograms")
    for cell in notebook.cells:
        cell.metadata.tags = []
    assert argument(notebook, "01_chirp_spectrograms") == ""


def test_a_figure_s_titles_are_told_to_those_who_do_not_see_it(tmp_path: Path) -> None:
    import matplotlib.pyplot as plt

    root = make(tmp_path / "clone")
    chapter = begin(root, next(iter(CHAPTERS)))
    figure, (left, right) = plt.subplots(1, 2)
    figure.suptitle("All in all,\nless")
    left.set_title("left: 3 of 4")
    right.set_title("left: 3 of 4")
    path = chapter.save_figure(figure, "sides")
    plt.close(figure)
    source = '_ = chapter.save_figure(plots.sides(table), "sides")'
    told = {"image": {"alt": "Two panels of dots."}}
    cell = nbformat.v4.new_code_cell(source, metadata={"mystnb": told})
    other = nbformat.v4.new_code_cell(
        source.replace("sides", "gone"), metadata={"mystnb": {"image": {"alt": "None."}}}
    )
    notebook = nbformat.v4.new_notebook(cells=[cell, other])
    tell_findings(notebook, path.parent)
    chapter.abandon()
    assert cell.metadata.mystnb.image.alt == "Two panels of dots. Its titles: All in all, less; left: 3 of 4."
    assert other.metadata.mystnb.image.alt == "None."


def test_the_argument_s_figure_comes_out_of_the_notebook_where_no_file_is_kept(
    clone: Path, tmp_path: Path
) -> None:
    name = next(iter(CHAPTERS))
    page = run_of(clone) / name / f"{name}.ipynb"
    notebook = nbformat.read(page, as_version=4)
    told = {"figure": {"name": "fig-it", "caption": "It."}, "image": {"alt": "It, seen."}}
    cell = nbformat.v4.new_code_cell(
        '_ = chapter.save_figure(it, "it")',
        metadata={"mystnb": told, "tags": ["argument"]},
        execution_count=1,
    )
    png = base64.b64encode(b"a picture").decode()
    cell.outputs = [nbformat.v4.new_output("display_data", {"image/png": png})]
    notebook.cells.append(cell)
    nbformat.write(notebook, page)
    record = {"file": page.name, "sha256": file_hash(page)}
    manifest = json.loads((page.parent / "manifest.json").read_text(encoding="utf-8"))
    write_manifest(page.parent, {**manifest, "executed": record})
    stage(clone, run_of(clone), tmp_path / "staged")
    shown = tmp_path / "staged" / "book" / "run" / name / "it.png"
    assert shown.read_bytes() == b"a picture"
    text = "".join(
        cell.source for cell in nbformat.read(tmp_path / "staged" / "notebooks" / page.name, 4).cells
    )
    assert f"../book/run/{name}/it.png" in text
    assert "It, seen." in text
