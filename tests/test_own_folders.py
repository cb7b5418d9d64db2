"""Folders of others: whatever is saved, built or resumed, nothing is deleted that was not written here before."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from bad_inputs import outcome
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from vitmech_utils import own_folders
from vitmech_utils.artefacts import write_atomically
from vitmech_utils.data.dataset import ChirpDataset, export_folder
from vitmech_utils.data.labels import FolderError
from vitmech_utils.heads.pruning import PruningError, load_pruned, prune_heads, save_pruned
from vitmech_utils.model import backbones
from vitmech_utils.model.backbones import BackboneError, tiny
from vitmech_utils.model.finetune import ELAPSED, _last_whole_checkpoint
from vitmech_utils.model.regressor import AdapterError, ChirpRegressor
from vitmech_utils.own_folders import (
    MARK,
    clear_made,
    mark_made,
    put_in_place,
    refuse_unmarked,
    restore_folder,
    write_folder,
)
from vitmech_utils.runs.manifests import RunError

NAMES, MARKS = ("settings.json", "weights"), ("settings.json",)


class RefusedError(Exception):
    """What these tests have folders refused with."""


def content(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()
    }


def fill(text: str):
    def write(ready: Path) -> None:
        (ready / "settings.json").write_text(text)
        (ready / "weights").write_text(text)

    return write


def replace(folder: Path, text: str = "new") -> Path:
    return write_folder(folder, fill(text), NAMES, MARKS, RefusedError)


@pytest.fixture(scope="module")
def regressor() -> ChirpRegressor:
    return ChirpRegressor.build(tiny(layers=1, heads=2))


def test_a_new_an_empty_and_an_own_folder_are_filled(tmp_path: Path) -> None:
    new = {"settings.json": "new", "weights": "new"}
    (tmp_path / "empty").mkdir()
    (tmp_path / "finder").mkdir()
    (tmp_path / "finder" / ".DS_Store").write_text("looks")
    for name in ("absent", "within/absent", "empty", "finder"):
        assert replace(tmp_path / name, "old") == tmp_path / name
        assert content(replace(tmp_path / name)) == new
    assert not list(tmp_path.rglob(".saving-*"))
    assert not list(tmp_path.rglob(".*.last-good"))


@pytest.mark.parametrize("where", ["beside", "within", "without its mark", "linked"])
def test_what_others_wrote_is_refused_and_stays(tmp_path: Path, where: str) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "weights").write_text("old")
    if where != "without its mark":
        (folder / "settings.json").write_text("old")
    if where == "beside":
        (folder / "thesis.txt").write_text("precious")
    if where == "within":
        (folder / "chapters").mkdir()
        (folder / "chapters" / "1.txt").write_text("precious")
    if where == "linked":
        (tmp_path / "thesis.txt").write_text("precious")
        (folder / "weights").unlink()
        (folder / "weights").symlink_to(tmp_path / "thesis.txt")
    before = content(tmp_path)
    with pytest.raises(RefusedError, match="not written here, and nothing in it was touched"):
        replace(folder)
    assert content(tmp_path) == before


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(
            ["settings.json", "weights", "thesis.txt", "notes/a.txt", ".hidden", "Settings.json"]
        ),
        st.text("xyz", max_size=3),
        max_size=4,
    )
)
def test_no_folder_of_others_loses_anything(
    tmp_path_factory: pytest.TempPathFactory, files: dict[str, str]
) -> None:
    folder = tmp_path_factory.mktemp("any") / "folder"
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    own = not files or ("settings.json" in files and set(files) <= {"settings.json", "weights"})
    _, told = outcome(lambda: replace(folder), RefusedError)
    assert own == (told is None)
    assert told is None or str(folder) in told
    assert content(folder) == ({"settings.json": "new", "weights": "new"} if own else files)
    assert [path.name for path in folder.parent.iterdir()] == ["folder"]


def test_a_file_and_the_working_folder_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("precious")
    with pytest.raises(RefusedError, match="is a file, expected a folder"):
        replace(tmp_path / "file")
    own = replace(tmp_path / "own", "old")
    (own / "deeper").mkdir()
    monkeypatch.chdir(own / "deeper")
    for place in (Path(".."), Path("../.."), own):
        with pytest.raises(RefusedError, match="is the working folder, or holds it"):
            replace(place)
    assert content(own) == {"settings.json": "old", "weights": "old"}


def test_a_failure_while_writing_leaves_the_old_folder(tmp_path: Path) -> None:
    folder = replace(tmp_path / "own", "old")

    def half(ready: Path) -> None:
        (ready / "settings.json").write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_folder(folder, half, NAMES, MARKS, RefusedError)
    assert content(folder) == {"settings.json": "old", "weights": "old"}
    assert [path.name for path in tmp_path.iterdir()] == ["own"]


def test_what_comes_while_it_is_written_is_not_lost(tmp_path: Path) -> None:
    folder = replace(tmp_path / "own", "old")

    def meanwhile(ready: Path) -> None:
        fill("new")(ready)
        (folder / "thesis.txt").write_text("precious")

    with pytest.raises(RefusedError, match=r"holds thesis\.txt"):
        write_folder(folder, meanwhile, NAMES, MARKS, RefusedError)
    assert content(folder)["thesis.txt"] == "precious"


def test_a_link_to_a_folder_stays_a_link(tmp_path: Path) -> None:
    replace(tmp_path / "real", "old")
    (tmp_path / "link").symlink_to("real")
    replace(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert content(tmp_path / "real") == {"settings.json": "new", "weights": "new"}


@pytest.mark.parametrize("exchanges", [True, False])
def test_killed_at_any_step_the_old_or_the_new_folder_is_there(tmp_path: Path, exchanges: bool) -> None:
    """kill -9 before every call that changes the disk: with the system's exchange of names, and without it."""
    code = """
import os, pathlib, shutil, signal, sys
from vitmech_utils import own_folders
folder, stop, exchanges = pathlib.Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "True"
if not exchanges:
    own_folders._exchange = lambda one, other: False
calls = 0
def counted(real):
    def call(*arguments, **keywords):
        global calls
        calls += 1
        if calls == stop:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*arguments, **keywords)
    return call
pathlib.Path.rename = counted(pathlib.Path.rename)
own_folders._exchange = counted(own_folders._exchange)
shutil.rmtree = counted(shutil.rmtree)
def fill(ready):
    (ready / "settings.json").write_text("new")
    (ready / "weights").write_text("new")
own_folders.write_folder(folder, fill, ("settings.json", "weights"), ("settings.json",), Exception)
print("done")
"""
    killed = 0
    for stop in range(1, 9):
        folder = tmp_path / str(stop) / "own"
        replace(folder, "old")
        command = [sys.executable, "-c", code, str(folder), str(stop), str(exchanges)]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode in (0, -9), done.stderr
        killed += done.returncode == -9
        found = content(restore_folder(folder))
        assert set(found) == {"settings.json", "weights"}
        assert found["settings.json"] == found["weights"]
        assert content(replace(folder, "next")) == {"settings.json": "next", "weights": "next"}
        if done.returncode == 0:
            break
    assert killed >= 2


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_what_is_written_has_the_mode_that_the_umask_leaves(
    tmp_path: Path, regressor: ChirpRegressor, umask: int, mode: int
) -> None:
    before = os.umask(umask)
    try:
        regressor.save(tmp_path / "adapter", training={"steps": 1})
        whole = ChirpRegressor.tiny(layers=2, heads=2)
        save_pruned(prune_heads(whole, [(0, 1)]), tmp_path / "pruned", origin=whole)
        export_folder(ChirpDataset(1), tmp_path / "images", workers=1, progress=False)
        write_atomically(tmp_path / "table.safetensors", lambda path: save_file({"a": torch.zeros(1)}, path))
        mark_made(tmp_path / "pages")
    finally:
        os.umask(before)
    modes = {
        path.relative_to(tmp_path).as_posix(): path.stat().st_mode & 0o777
        for path in tmp_path.rglob("*")
        if path.is_file()
    }
    assert len(modes) >= 10
    assert set(modes.values()) == {mode}, modes
    assert (tmp_path / "adapter").stat().st_mode & 0o777 == 0o777 & ~umask


def test_a_process_that_writes_never_changes_the_umask_of_its_other_threads(tmp_path: Path) -> None:
    def forbidden(mask: int) -> int:
        raise AssertionError("os.umask is the whole process's")

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(os, "umask", forbidden)
        write_atomically(tmp_path / "a.json", lambda path: path.write_text("{}"))
        replace(tmp_path / "own")
    assert (tmp_path / "a.json").read_text() == "{}"


def test_made_pages_are_cleared_by_their_mark_alone(tmp_path: Path) -> None:
    made, other = mark_made(tmp_path / "made"), tmp_path / "other"
    (made / "page.html").write_text("<p>")
    clear_made(made, RefusedError)
    assert not made.exists()
    other.mkdir()
    refuse_unmarked(other, RefusedError)
    (other / "thesis.txt").write_text("precious")
    for folder in (other, other / "thesis.txt"):
        with pytest.raises(RefusedError, match=r"nothing in it was touched|no folder of its own"):
            clear_made(folder, RefusedError)
    (tmp_path / "link").symlink_to(other)
    with pytest.raises(RefusedError, match="no folder of its own"):
        clear_made(tmp_path / "link", RefusedError)
    assert content(other) == {"thesis.txt": "precious"}


def test_without_an_exchange_of_names_a_failed_rename_brings_the_old_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own_folders, "_exchange", lambda one, other: False)
    old, new = tmp_path / "old", tmp_path / "new"
    for folder in (old, new):
        folder.mkdir()
        (folder / "which").write_text(folder.name)
    real = Path.rename

    def fails(path: Path, target: Path) -> Path:
        if path == new:
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, target)

    monkeypatch.setattr(Path, "rename", fails)
    with pytest.raises(PermissionError):
        put_in_place(new, old)
    assert content(old) == {"which": "old"}


class TestWhoUsesIt:
    def test_an_adapter_is_saved_into_no_folder_of_others(
        self, tmp_path: Path, regressor: ChirpRegressor, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "thesis.txt").write_text("precious")
        for name in ("regressor.json", ""):  # also where something is called as ours
            if name:
                (tmp_path / name).write_text("{}")
            with pytest.raises(AdapterError, match=r"holds thesis\.txt, so it was not written here"):
                regressor.save(tmp_path)
        monkeypatch.chdir(tmp_path)
        with pytest.raises(AdapterError, match="working folder"):
            regressor.save(".")
        assert (tmp_path / "thesis.txt").read_text() == "precious"
        first = regressor.save(tmp_path / "a", training={"steps": 1})
        assert not (regressor.save(first) / "training.json").exists()

    def test_a_pruned_model_is_saved_into_no_folder_of_others(self, tmp_path: Path) -> None:
        whole = ChirpRegressor.tiny(layers=2, heads=2)
        pruned = prune_heads(whole, [(0, 1)])
        (tmp_path / "model.safetensors").write_text("precious: of another model")
        with pytest.raises(PruningError, match=r"lacks pruned\.json, so it was not written here"):
            save_pruned(pruned, tmp_path, origin=whole)
        assert content(tmp_path) == {"model.safetensors": "precious: of another model"}
        folder = save_pruned(pruned, tmp_path / "p", origin=whole)
        again = load_pruned(save_pruned(pruned, folder, origin=whole))
        assert load_file(folder / "model.safetensors").keys() == again.state_dict().keys()

    def test_the_cache_of_weights_leaves_what_lies_there(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(backbones, "fetch_onnx", lambda folder: folder / "none")
        monkeypatch.setattr(
            backbones,
            "state_from_onnx",
            lambda path: {"w": tiny(layers=1, heads=1).state_dict().popitem()[1]},
        )
        folder = tmp_path / "dinov2-small"
        folder.mkdir()
        (folder / "pytorch_model.bin").write_text("precious")
        with pytest.raises(BackboneError, match=r"holds pytorch_model\.bin"):
            backbones.convert(folder)
        assert content(folder) == {"pytorch_model.bin": "precious"}
        backbones.convert(tmp_path / "new")
        assert {path.name for path in (tmp_path / "new").iterdir()} == set(backbones.CACHED)

    def test_checkpoints_that_are_not_whole_are_put_aside_not_deleted(self, tmp_path: Path) -> None:
        for name in ("checkpoint-2", "checkpoint-7", "checkpoint-40", "checkpoint-best", "checkpoints-1"):
            (tmp_path / name).mkdir()
            (tmp_path / name / "weights").write_text(name)
        (tmp_path / "checkpoint-2" / "trainer_state.json").write_text('{"best_model_checkpoint": null}')
        (tmp_path / "checkpoint-2" / ELAPSED).write_text('{"seconds": 1.0, "files": {}}')
        (tmp_path / "not-resumed-checkpoint-7").mkdir()
        assert _last_whole_checkpoint(tmp_path, put_aside=False) == tmp_path / "checkpoint-2"
        assert _last_whole_checkpoint(tmp_path, put_aside=True) == tmp_path / "checkpoint-2"
        assert {path.name for path in tmp_path.glob("checkpoint-*")} == {"checkpoint-2", "checkpoint-best"}
        assert (tmp_path / "not-resumed-checkpoint-40" / "weights").read_text() == "checkpoint-40"
        assert (tmp_path / "not-resumed-checkpoint-7-1" / "weights").read_text() == "checkpoint-7"

    def test_an_export_goes_on_beside_what_systems_and_others_leave(self, tmp_path: Path) -> None:
        folder = tmp_path / "out"
        folder.mkdir()
        (folder / ".DS_Store").write_text("looks")
        export_folder(ChirpDataset(1), folder, workers=1, progress=False)
        (folder / ".download.part").write_text("precious")
        (folder / ".spectrogram_1.png.abc.part").write_text("half")
        export_folder(ChirpDataset(1), folder, workers=1, progress=False)
        assert (folder / ".download.part").read_text() == "precious"
        assert not (folder / ".spectrogram_1.png.abc.part").exists()
        for content_of_settings in ("[]", "{", '{"seed": 1, "seed": 0}'):
            (folder / "generation.json").write_text(content_of_settings)
            with pytest.raises(FolderError, match="export into an empty folder"):
                export_folder(ChirpDataset(1), folder, workers=1, progress=False)
        (tmp_path / "file").write_text("precious")
        with pytest.raises(FolderError, match="is a file"):
            export_folder(ChirpDataset(1), tmp_path / "file", workers=1, progress=False)

    @pytest.mark.parametrize("name", ["src", "html", "work", "src.partial"])
    def test_a_book_is_built_over_no_folder_of_others(self, small: Path, tmp_path: Path, name: str) -> None:
        from vitmech_utils.pipeline.build import build

        out = tmp_path / "site"
        (out / name).mkdir(parents=True)
        (out / name / "thesis.txt").write_text("precious")
        if name in ("html", "work"):  # refused before the run is even looked at
            with pytest.raises(RunError, match=rf"{name} holds thesis\.txt and no mark"):
                build(small, tmp_path / "no run", out)
        else:
            with pytest.raises(RunError):
                build(small, tmp_path / "no run", out)
        assert content(out / name) == {"thesis.txt": "precious"}
        assert os.listdir(out) == [name]  # noqa: PTH208 (hidden ones, too)

    def test_pages_are_staged_over_no_folder_of_others(self, small: Path, tmp_path: Path) -> None:
        from conftest import vitmech

        done = vitmech("run", "all", root=small)
        assert done.returncode == 0, done.stderr
        from vitmech_utils.pipeline.stage import stage

        target, run = tmp_path / "site" / "src", small / "results" / "quick"
        target.mkdir(parents=True)
        (target / "thesis.txt").write_text("precious")
        with pytest.raises(RunError, match=r"src holds thesis\.txt and no mark"):
            stage(small, run, target)
        assert content(tmp_path / "site") == {"src/thesis.txt": "precious"}
        (target / "thesis.txt").unlink()
        stage(small, run, target)
        assert (target / MARK).is_file()
        stage(small, run, target)
        assert [path.name for path in target.parent.iterdir()] == ["src"]
        old = small / "book" / "_build" / "src"  # of an earlier version, which marked none
        old.mkdir(parents=True)
        (old / "page.md").write_text("old")
        stage(small, run, old)
        assert not (old / "page.md").exists()
