"""What may take the published run's place; whatever is refused leaves it as it was."""

import base64
import io
import json
import subprocess
from pathlib import Path

import nbformat
import numpy as np
import pytest
from conftest import vitmech
from PIL import Image
from small_book import CHAPTERS, edit_manifest, make
from test_stage import finish

from vitmech_utils.artefacts import file_hash
from vitmech_utils.own_folders import MARK
from vitmech_utils.pipeline.pictures import lighter
from vitmech_utils.pipeline.publish import publish
from vitmech_utils.pipeline.stage import stage
from vitmech_utils.runs.manifests import RunError, all_outputs, read_manifest, write_manifest


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    """A clone with a finished run of committed code on `laptop`, and an older published run."""
    root = make(tmp_path / "clone")
    for name in CHAPTERS:
        made(root, name)
    old = root / "published"
    (old / "adapters" / "seed-0").mkdir(parents=True)
    (old / "adapters" / "seed-0" / "weights").write_text("kept")
    (old / "benchmarks.json").write_text("{}")
    (old / "00_gone").mkdir()
    (old / "00_gone" / "manifest.json").write_text("{}")
    return root


def run_of(root: Path, profile: str = "laptop") -> Path:
    return root / "results" / profile


def made(root: Path, name: str, modified: bool = False, profile: str = "laptop", said: str = "") -> None:
    """Finish a chapter and say in its manifest whether its code was committed."""
    finish(root, name, said=said, profile=profile)
    folder = run_of(root, profile) / name
    manifest = read_manifest(folder, "")
    write_manifest(folder, {**manifest, "code": {**manifest["code"], "modified": modified}})


def content(folder: Path) -> dict[str, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != MARK]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def refused(root: Path, message: str, profile: str = "laptop", **options: object) -> None:
    before = content(root / "published")
    with pytest.raises(RunError, match=message):
        publish(root, run_of(root, profile), **options)
    assert content(root / "published") == before
    assert not list(root.glob("published.*"))


def test_a_finished_run_takes_the_place_of_the_last_one(finished: Path) -> None:
    (run_of(finished) / "01_first" / "left-over.tmp").write_text("in no manifest")
    sizes = publish(finished, run_of(finished))
    assert list(sizes) == [*CHAPTERS, "adapters", "benchmarks.json"]
    published = content(finished / "published")
    assert published["adapters/seed-0/weights"] == b"kept"
    assert sum(sizes.values()) == sum(map(len, published.values()))
    assert "01_first/left-over.tmp" not in published
    for name in CHAPTERS:
        run = content(run_of(finished) / name)
        for gone in ("left-over.tmp", "manifest.json"):
            run.pop(gone, None)
        assert {file: published[f"{name}/{file}"] for file in run} == run
    assert not list(finished.glob("published.*"))


def test_figures_that_the_page_shows_are_not_published_again_as_files(finished: Path) -> None:
    drawn = {"a.png": 1, "b.png": 1, "hidden.png": 0}
    for name, shown in (("01_first", ["a.png", "b.png"]), ("02_second", ["a.png", "hidden.png"])):
        folder = run_of(finished) / name
        manifest = read_manifest(folder, "")
        page = nbformat.read(folder / f"{name}.ipynb", as_version=4)
        image = nbformat.v4.new_output("display_data", {"image/png": "AAAA"})
        page.cells[-1].outputs = [image] * sum(drawn[file] for file in shown)
        nbformat.write(page, folder / f"{name}.ipynb")
        for file in shown:
            (folder / file).write_text(f"{name} {file}")
            manifest["outputs"][file] = file_hash(folder / file)
        manifest["executed"]["sha256"] = file_hash(folder / f"{name}.ipynb")
        write_manifest(folder, manifest)
    (finished / "book" / "intro.md").write_text("# Small\n\n![b](run/01_first/b.png) {{ run:status }}\n")
    digests = {name: all_outputs(read_manifest(run_of(finished) / name, "")) for name in CHAPTERS}
    publish(finished, run_of(finished))
    published = finished / "published"
    assert {path.name for path in published.glob("01_first/*.png")} == {"b.png"}
    assert {path.name for path in published.glob("02_second/*.png")} == {"a.png", "hidden.png"}
    manifests = stage(finished, published, finished / "staged")
    assert list(manifests["01_first"]["only_in_page"]) == ["a.png"]
    assert {name: all_outputs(manifest) for name, manifest in manifests.items()} == digests


def test_arrays_that_are_too_large_stay_behind_and_still_count(
    finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = run_of(finished) / "01_first"
    manifest = read_manifest(folder, "")
    for file, size in (("large.safetensors", 101), ("small.safetensors", 100), ("table.parquet", 101)):
        (folder / file).write_bytes(bytes(size))
        manifest["outputs"][file] = file_hash(folder / file)
    write_manifest(folder, manifest)
    before = all_outputs(read_manifest(folder, ""))
    monkeypatch.setattr("vitmech_utils.pipeline.publish.LARGEST_ARRAYS", 100)
    publish(finished, run_of(finished))
    kept = {path.name for path in (finished / "published" / "01_first").iterdir()}
    assert {"small.safetensors", "table.parquet"} <= kept
    assert "large.safetensors" not in kept
    published = stage(finished, finished / "published", finished / "staged")["01_first"]
    assert list(published["too_large"]) == ["large.safetensors"]
    assert all_outputs(published) == before
    publish(finished, run_of(finished))  # from the whole run, once more: nothing was taken from it
    assert (folder / "large.safetensors").is_file()


def test_the_command_says_how_much_it_published(finished: Path) -> None:
    done = vitmech("publish", "--profile", "laptop", "--run-dir", run_of(finished), root=finished)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].endswith("MB  published")


def test_a_chapter_can_be_left_out_if_none_reads_it(finished: Path) -> None:
    (run_of(finished) / "03_third").rename(finished / "elsewhere")
    refused(finished, "03_third has no finished run")
    command = ("publish", "--profile", "laptop", "--leave-out", "03")
    assert vitmech(*command, root=finished).returncode == 0
    assert [path.name for path in sorted((finished / "published").glob("0*"))] == ["01_first", "02_second"]
    done = vitmech(*command[:-1], "9", root=finished)
    assert done.returncode == 1
    assert "9" in done.stderr


def test_a_chapter_that_another_reads_cannot_be_left_out(finished: Path) -> None:
    folder = run_of(finished) / "02_second"
    first = read_manifest(run_of(finished) / "01_first", "")
    inputs = {"01_first": {"files": all_outputs(first), "computes": True}}
    write_manifest(folder, {**read_manifest(folder, ""), "inputs": inputs})
    refused(finished, "02_second reads 01_first, so that cannot be left out", leave_out=("01_first",))


def test_a_quick_run_is_refused(finished: Path) -> None:
    for name in CHAPTERS:
        made(finished, name, profile="quick")
    refused(finished, "a quick run looks at too few images", profile="quick")


def test_code_that_was_not_committed_is_refused(finished: Path) -> None:
    made(finished, "03_third", modified=True)
    refused(finished, r"03_third.*not committed; commit it, then run 03 again")


def test_code_that_ran_beside_other_changes_is_published_once_a_commit_holds_it(finished: Path) -> None:
    made(finished, "03_third", modified=True)
    aside = ("-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false")

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=finished, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    git("init", "--quiet")
    refused(finished, r"03_third.*not committed; commit it, then run 03 again")  # no commit holds it yet
    git("add", "notebooks")
    git(*aside, "commit", "--quiet", "-m", "Add a book")
    publish(finished, run_of(finished))
    code = read_manifest(finished / "published" / "03_third", "")["code"]
    assert (code["commit"], code["modified"]) == (git("rev-parse", "HEAD"), False)
    (finished / "notebooks" / "more.py").write_text("")  # of the code, for all that is known
    refused(finished, r"03_third.*not committed")


def test_a_missing_chapter_an_edited_manifest_and_a_stale_one_are_refused(finished: Path) -> None:
    source = finished / "notebooks" / "03_third.ipynb"
    good = source.read_text()
    source.write_text(good.replace("frame[", "frame  ["))
    refused(finished, r"03_third\.ipynb changed since")
    source.write_text(good)
    edit_manifest(run_of(finished) / "02_second", wall_seconds=1)
    refused(finished, "does not match its seal")
    (run_of(finished) / "02_second" / "manifest.json").unlink()
    refused(finished, "02_second has no finished run")


def test_more_than_the_limit_is_refused_with_the_sizes(finished: Path) -> None:
    refused(finished, r"0\.0 MB, at most 0\.001 MB are published \(01_first 0\.0, ", limit=1000)


def test_a_page_that_names_a_folder_of_this_machine_is_refused(finished: Path) -> None:
    made(finished, "01_first", said=f"{finished}/results")
    refused(finished, r"01_first/01_first\.ipynb: names a folder of this machine")
    made(finished, "01_first", said='run_dir = "/elsewhere/run"')
    refused(
        finished, r"01_first/01_first\.ipynb: names a folder of this machine, /elsewhere/run; draw 01 again"
    )


def test_the_published_run_cannot_replace_itself(finished: Path) -> None:
    with pytest.raises(RunError, match="the published run already"):
        publish(finished, finished / "published")


def test_a_first_run_can_be_published(finished: Path) -> None:
    (finished / "published").rename(finished / "elsewhere")
    assert list(publish(finished, run_of(finished))) == list(CHAPTERS)
    assert json.loads((finished / "published" / "01_first" / "numbers.json").read_text()) == {"count": 1}


def picture(values: np.ndarray) -> str:
    written = io.BytesIO()
    Image.fromarray(values).save(written, "PNG")
    return base64.b64encode(written.getvalue()).decode()


def test_pictures_get_colours_of_their_own_where_these_show_them_as_well(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    line = np.full((200, 200, 3), 255, np.uint8)
    line[90:110] = rng.integers(0, 4, (20, 200, 1)) * 10
    noise = rng.integers(0, 256, (80, 80, 3), dtype=np.uint8)
    drawn = {"line": picture(line), "noise": picture(noise)}
    outputs = [nbformat.v4.new_output("display_data", {"image/png": value}) for value in drawn.values()]
    page = tmp_path / "page.ipynb"
    cell = nbformat.v4.new_code_cell("1", outputs=outputs)
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), page)
    made = nbformat.reads(lighter(page), as_version=4).cells[0].outputs
    few, kept = (output["data"]["image/png"].replace("\n", "") for output in made)
    assert kept == drawn["noise"], "256 colours do not show noise"
    assert len(few) < len(drawn["line"])
    with Image.open(io.BytesIO(base64.b64decode(few))) as image:
        assert image.mode == "P"
        np.testing.assert_array_equal(np.asarray(image.convert("RGB")), line)
