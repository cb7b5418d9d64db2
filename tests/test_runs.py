"""Run folders: what a chapter leaves, and what it refuses to read."""

import json
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from IPython.lib.pretty import pretty
from small_book import edit_manifest, write_notebook

from vitmech_utils.profiles import load_profile
from vitmech_utils.runs import Chapter, open_chapter, run_folders
from vitmech_utils.runs.code import module_files, notebook_hashes, notebook_source, predecessors
from vitmech_utils.runs.manifests import RunError, read_manifest, write_manifest
from vitmech_utils.runs.standing import check_chapter


def begin(root: Path, name: str, **options: object) -> Chapter:
    return open_chapter(name, root=root, **options)


def finish_first(root: Path, count: int = 16, **options: object) -> dict:
    chapter = begin(root, "01_first", **options)
    chapter.save_json({"count": count}, "numbers")
    return chapter.close()


def finish_second(root: Path) -> dict:
    chapter = begin(root, "02_second")
    chapter.save_table(pd.DataFrame({"count": [chapter.read_json("01_first", "numbers")["count"]]}), "counts")
    return chapter.close()


def test_every_kind_of_artefact_comes_back(small: Path) -> None:
    chapter = begin(small, "01_first")
    frame = pd.DataFrame({"layer": [0, 1], "effect": [0.5, -1.5]})
    figure, axes = plt.subplots()
    axes.plot([1, 2])
    chapter.save_table(frame, "effects")
    chapter.save_json({"r": np.float32(0.5), "gap": float("nan"), "n": torch.tensor([1, 2])}, "scores")
    chapter.save_arrays({"maps": torch.arange(6.0).reshape(2, 3).T, "share": np.ones(2)}, "maps")
    saved = chapter.save_figure(figure, "effects")
    assert (figure.saved_as, figure.stale) == (saved, False)  # a cell shows the file (test_plots)
    axes.set_title("changed")
    assert figure.stale
    plt.close(figure)
    manifest = chapter.close()
    assert sorted(manifest["outputs"]) == [
        "effects.parquet",
        "effects.png",
        "maps.safetensors",
        "scores.json",
    ]
    later = begin(small, "02_second")
    pd.testing.assert_frame_equal(later.read_table("01_first", "effects"), frame)
    assert later.read_json("01_first", "scores") == {"r": 0.5, "gap": None, "n": [1, 2]}
    np.testing.assert_array_equal(
        later.read_arrays("01_first", "maps")["maps"], np.arange(6.0).reshape(2, 3).T
    )
    assert later.close()["inputs"].keys() == {"01_first"}


def test_the_manifest_tells_what_the_run_was_made_of(small: Path) -> None:
    manifest = finish_first(small, overrides={"audit.images": 3})
    assert manifest["profile"]["values"]["audit"]["images"] == 3
    assert manifest["profile"]["hash"] == load_profile("quick", {"audit.images": 3}).hash
    assert manifest["code"]["version"]
    assert manifest["packages"]["torch"].startswith("2.")
    assert manifest["device"]["type"] == "cpu" or torch.cuda.is_available()
    assert manifest["wall_seconds"] > 0
    assert manifest["peak_memory_mib"] > 10
    assert manifest["seeds"] == [0]


def test_the_same_artefacts_twice_are_the_same_bytes(small: Path) -> None:
    assert finish_first(small)["outputs"] == finish_first(small)["outputs"]


def test_where_the_run_folder_is(small: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    finish_first(small)
    assert (small / "results" / "quick" / "01_first" / "manifest.json").is_file()
    monkeypatch.setenv("VITMECH_RUN_DIR", str(tmp_path / "elsewhere"))
    finish_first(small)
    assert (tmp_path / "elsewhere" / "01_first" / "manifest.json").is_file()
    finish_first(small, run_dir="mine")
    assert (small / "mine" / "01_first" / "manifest.json").is_file()


def test_a_missing_predecessor_names_the_notebook_to_run(small: Path) -> None:
    chapter = begin(small, "02_second")
    with pytest.raises(RunError, match="vitmech run 01 --profile quick"):
        chapter.read_json("01_first", "numbers")
    chapter.abandon()


def refused(root: Path, message: str) -> None:
    chapter = begin(root, "02_second")
    with pytest.raises(RunError, match=message) as error:
        chapter.read_json("01_first", "numbers")
    assert "vitmech run 01" in str(error.value)
    chapter.abandon()


def test_another_profile_is_refused(small: Path) -> None:
    finish_first(small, overrides={"audit.images": 3})
    refused(small, rf"audit\.images: 3 then, {load_profile('quick').audit.images} now")


def test_another_backbone_is_refused(small: Path) -> None:
    finish_first(small, overrides={"backbone": "tiny"})
    refused(small, "backbone: tiny then, dinov2-small now")


def test_an_edited_manifest_is_refused(small: Path) -> None:
    finish_first(small)
    edit_manifest(small / "results" / "quick" / "01_first", wall_seconds=1.0)
    refused(small, "edited by hand")


@pytest.mark.parametrize("text", ["", "{", "[]", '"text"', "{}"])
def test_a_damaged_manifest_is_refused(small: Path, text: str) -> None:
    finish_first(small)
    (small / "results" / "quick" / "01_first" / "manifest.json").write_text(text)
    refused(small, "not a manifest")


def test_a_changed_or_lost_artefact_is_refused(small: Path) -> None:
    finish_first(small)
    numbers = small / "results" / "quick" / "01_first" / "numbers.json"
    numbers.write_text('{"count": 17}')
    refused(small, "changed since the run")
    numbers.unlink()
    refused(small, "not there")


def test_an_edited_notebook_makes_its_run_stale_but_prose_does_not(small: Path) -> None:
    finish_first(small)
    path = small / "notebooks" / "01_first.ipynb"
    path.write_text(path.read_text().replace("A claim.", "Another claim."))
    finish_second(small)
    path.write_text(path.read_text().replace("audit.images", "gallery.images"))
    refused(small, r"stale: notebooks/01_first\.ipynb changed since")


def test_an_edited_module_makes_a_run_stale(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    finish_first(small)
    modules = {"computes": {"vitmech_utils/data/chirps.py": "other"}, "saves": {}, "shows": {}}
    monkeypatch.setattr(
        "vitmech_utils.runs.standing.code_of", lambda notebook: {"notebook": None, "modules": modules}
    )
    refused(small, r"vitmech_utils/data/chirps\.py changed since")


def test_what_a_predecessor_read_must_still_be_there(small: Path) -> None:
    finish_first(small)
    finish_second(small)
    finish_first(small, count=99)
    chapter = begin(small, "03_third")
    with pytest.raises(
        RunError, match=r"01_first was run again since, with another numbers\.json.*vitmech run 02"
    ):
        chapter.read_table("02_second", "counts")
    chapter.abandon()


def test_an_interrupted_run_leaves_the_last_good_one(small: Path) -> None:
    finish_first(small)
    chapter = begin(small, "01_first")
    chapter.save_json({"count": 1}, "numbers")
    (chapter.checkpoints / "step-10").mkdir(parents=True)
    chapter.abandon()
    second = begin(small, "02_second")
    assert second.read_json("01_first", "numbers") == {"count": 16}
    second.abandon()
    again = begin(small, "01_first")
    assert (again.checkpoints / "step-10").is_dir()  # what a training goes on from
    again.save_json({"count": 16}, "numbers")
    again.close()
    assert not again.checkpoints.exists()


def test_old_artefacts_do_not_linger(small: Path) -> None:
    chapter = begin(small, "01_first")
    chapter.save_json(1, "old")
    chapter.close()
    assert list(finish_first(small)["outputs"]) == ["numbers.json"]
    assert not (small / "results" / "quick" / "01_first" / "old.json").exists()


def test_saving_after_the_end_is_refused(small: Path) -> None:
    chapter = begin(small, "01_first")
    chapter.close()
    with pytest.raises(RunError, match="closed"):
        chapter.save_json(1, "late")


def test_opening_again_in_the_same_kernel_starts_over(small: Path) -> None:
    first = begin(small, "01_first")
    begin(small, "01_first").close()
    with pytest.raises(RunError, match="closed"):
        first.close()


def test_two_writers_of_one_chapter_are_kept_apart(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = """
        import sys
        from pathlib import Path
        from vitmech_utils.runs import open_chapter
        open_chapter("01_first", root=Path(sys.argv[1]))
        print("open", flush=True)
        sys.stdin.read()
    """
    command = [sys.executable, "-c", textwrap.dedent(code), str(small)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "open\n"
        monkeypatch.setattr(run_folders, "LOCK_SECONDS", 0.2)
        with pytest.raises(RunError, match=f"being written by process {other.pid}"):
            begin(small, "01_first")
        other.kill()  # as `kill -9`: nothing is cleaned up
        other.wait()
    finish_first(small)


def test_an_artefact_that_was_not_left_is_named(small: Path) -> None:
    finish_first(small)
    chapter = begin(small, "02_second")
    with pytest.raises(RunError, match=r"left no nambers\.json; it left numbers\.json"):
        chapter.read_json("01_first", "nambers")
    chapter.abandon()


def test_an_artefact_that_was_too_large_to_publish_is_told(small: Path) -> None:
    finish_first(small)
    folder = small / "results" / "quick" / "01_first"
    manifest = read_manifest(folder, "")
    manifest["too_large"] = {"maps.safetensors": manifest["outputs"]["numbers.json"]}
    write_manifest(folder, manifest)
    chapter = begin(small, "02_second")
    with pytest.raises(RunError, match=r"maps\.safetensors was too large to be published; run 01"):
        chapter.read_arrays("01_first", "maps")
    chapter.abandon()


def test_a_failed_write_leaves_no_file(small: Path) -> None:
    chapter = begin(small, "01_first")
    with pytest.raises(TypeError):
        chapter.save_json({"set": {1, 2}}, "bad")
    assert list(chapter.folder.iterdir()) == []
    chapter.abandon()


def test_no_published_adapter_is_a_clear_error(small: Path) -> None:
    chapter = begin(small, "01_first")
    with pytest.raises(RunError, match="git checkout -- published"):
        chapter.regressor()
    chapter.abandon()
    chapter = begin(small, "01_first", overrides={"adapter": "train"})
    with pytest.raises(RunError, match="vitmech run 02"):
        chapter.adapter_folder()
    chapter.abandon()


def test_the_adapter_for_bare_figures_is_an_input_of_its_own(small: Path) -> None:
    chapter = begin(small, "01_first")
    with pytest.raises(RunError, match=r"bare-seed-0.*-p bare_adapter=train"):
        chapter.adapter_folder(figures="bare")
    with pytest.raises(ValueError, match=r"figures is 'plain', expected one of published, bare"):
        chapter.adapter_folder(figures="plain")
    for name in ("seed-0", "bare-seed-0"):
        (small / "published" / "adapters" / name).mkdir(parents=True)
        (small / "published" / "adapters" / name / "head.safetensors").write_text(name)
        (small / "published" / "adapters" / name / "regressor.json").write_text(
            '{"backbone": "dinov2-small"}'
        )
    assert chapter.adapter_folder().name == "seed-0"
    assert chapter.adapter_folder(figures="bare").name == "bare-seed-0"
    chapter.save_json({"count": 1}, "numbers")
    assert {"adapter", "bare adapter"} <= set(chapter.close()["inputs"])
    check_chapter(chapter.run, "01_first", small, chapter.profile)
    (small / "published" / "adapters" / "bare-seed-0" / "head.safetensors").write_text("trained anew")
    with pytest.raises(RunError, match=r"stale: the adapter in published/adapters/bare-seed-0 changed"):
        check_chapter(chapter.run, "01_first", small, chapter.profile)
    chapter = begin(small, "01_first", overrides={"bare_adapter": "train"})
    with pytest.raises(RunError, match=r"chapter 07.*-p bare_adapter=published"):
        chapter.adapter_folder(figures="bare")
    chapter.abandon()


def test_a_device_that_is_not_there_is_a_clear_error(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    chapter = begin(small, "01_first", overrides={"device": "cuda"})
    with pytest.raises(RunError, match="device: auto"):
        _ = chapter.device
    chapter.abandon()


def test_a_notebook_s_modules_and_predecessors_are_read_from_its_code(small: Path) -> None:
    path = write_notebook(
        small / "notebooks" / "04_head.ipynb",
        "04_head",
        [
            "%matplotlib inline\nfrom vitmech_utils.figures import plots",
            'chapter.read_table("02_second", "counts")',
        ],
    )
    names = {file.as_posix().partition("vitmech_utils/")[2] for file in module_files(notebook_source(path))}
    assert "figures/plots.py" in names
    assert "figures/__init__.py" not in names  # it only names the package
    assert "runs.py" not in names  # it carries results and does not make them
    assert predecessors(path) == ["02_second"]


def test_notebook_hashes_tell_code_from_page_and_ignore_outputs(small: Path) -> None:
    path = small / "notebooks" / "01_first.ipynb"
    before = notebook_hashes(path)
    notebook = json.loads(path.read_text())
    notebook["cells"][1]["outputs"] = [{"output_type": "stream", "name": "stdout", "text": ["1\n"]}]
    notebook["cells"][1]["execution_count"] = 1
    path.write_text(json.dumps(notebook))
    assert notebook_hashes(path) == before
    notebook["cells"][0]["source"] = ["# Other"]
    path.write_text(json.dumps(notebook))
    after = notebook_hashes(path)
    assert (after["computes"], after["saves"]) == (before["computes"], before["saves"])
    assert after["shows"] != before["shows"]


def test_a_classifier_is_an_input_of_its_own(small: Path) -> None:
    chapter = begin(small, "01_first")
    with pytest.raises(RunError, match=r"classifier-titled-seed-0.*-p classifiers=train"):
        chapter.classifier_folder("published")
    with pytest.raises(ValueError, match=r"title is 'plain', expected published or none"):
        chapter.classifier_folder("plain")
    folder = small / "published" / "adapters" / "classifier-untitled-seed-0"
    folder.mkdir(parents=True)
    (folder / "head.safetensors").write_text("weights")
    (folder / "regressor.json").write_text(json.dumps({"backbone": chapter.profile.backbone}))
    assert chapter.classifier_folder("none") == folder
    assert "classifier, title none" in chapter.close()["inputs"]
    chapter = begin(small, "01_first", overrides={"classifiers": "train"})
    with pytest.raises(RunError, match=r"chapter 12.*-p classifiers=published"):
        chapter.classifier_folder("none")
    chapter.abandon()


def test_a_closed_chapter_says_so_in_a_line(small: Path) -> None:
    manifest = finish_first(small)
    assert re.fullmatch(r"01_first is closed: 1 artefact in \d+ s", pretty(manifest))
    assert json.loads(json.dumps(manifest))["chapter"] == "01_first"


def test_a_published_adapter_of_another_backbone_is_refused_by_name(small: Path) -> None:
    name = run_folders.published_adapter(load_profile("quick").seeds[0])
    (small / name).mkdir(parents=True, exist_ok=True)
    (small / name / "regressor.json").write_text('{"backbone": "dinov2-small"}')
    chapter = begin(small, "01_first", overrides={"backbone": "tiny"})
    with pytest.raises(
        RunError, match=r"the profile's backbone is 'tiny', but published/.* belongs to 'dinov2-small'"
    ):
        chapter.adapter_folder()
