"""The command line on a small book: strict parameters, failures that fail, nothing half-written."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import vitmech
from small_book import write_notebook

from vitmech_utils.cli import main
from vitmech_utils.pipeline.stage import banner, duration, stage
from vitmech_utils.runs.manifests import RunError


def status(root: Path, *arguments: str, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setenv("VITMECH_ROOT", str(root))
    return main(list(arguments))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "01", "-p", "audit.imagez=3"], "did you mean 'audit.images'"),
        (["run", "01", "-p", "audit.images=-3"], "audit.images is -3"),
        (["run", "01", "--profile", "quik"], "did you mean 'quick'"),
        (["run", "9"], "unknown chapter '9': expected `all` or one of 01_first, 02_second, 03_third"),
        (["run", "nonsense"], "unknown chapter 'nonsense'"),
        (["stage"], "vitmech run 01"),
        (["stage", "--profile", "paper"], "not there"),
        (["book", "--run-dir", "nowhere"], "not there"),
    ],
)
def test_misuse_is_refused_before_anything_runs(
    small: Path,
    arguments: list[str],
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    assert status(small, *arguments, monkeypatch=monkeypatch) == 1
    assert words in capsys.readouterr().err
    assert not (small / "results").exists()
    assert not (small / "book" / "_build").exists()


def test_a_notebook_without_parameters_is_refused(
    small: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    path = small / "notebooks" / "01_first.ipynb"
    path.write_text(path.read_text().replace('"parameters"', '"other"'))
    assert status(small, "run", "01", monkeypatch=monkeypatch) == 1
    assert "tagged `parameters`" in capsys.readouterr().err
    write_notebook(path, "01_first", [])
    path.write_text(path.read_text().replace("overrides = {}", "other = {}"))
    assert status(small, "run", "01", monkeypatch=monkeypatch) == 1
    assert "does not set overrides" in capsys.readouterr().err


@pytest.mark.pipeline
def test_a_run_of_the_series_then_one_failure(small: Path) -> None:
    """One journey, since kernels are slow to start: all, again, other values, a failing cell, staging."""
    done = vitmech("run", "all", root=small)
    assert done.returncode == 0, done.stderr
    run = small / "results" / "quick"
    notebook = json.loads((run / "03_third" / "03_third.ipynb").read_text())
    printed = [o for cell in notebook["cells"] for o in cell.get("outputs", []) if o.get("name") == "stdout"]
    assert "".join(printed[0]["text"]).strip() == "16"
    assert (
        str(small) not in (run / "03_third" / "03_third.ipynb").read_text()
    )  # no machine's folders in a page
    assert not list((run / ".scratch").iterdir())

    again = vitmech("run", "all", root=small)
    assert again.stdout.count("up to date") == 3

    other = vitmech("run", "01", "-p", "audit.images=3", "--run-dir", "results/other", root=small)
    assert other.returncode == 0, other.stderr
    assert json.loads((small / "results" / "other" / "01_first" / "numbers.json").read_text()) == {"count": 3}

    source = small / "notebooks" / "03_third.ipynb"
    tagged = json.loads(source.read_text())
    tagged["cells"][3]["metadata"]["tags"] = ["keep_output", "nbval-check-output"]
    source.write_text(json.dumps(tagged))
    assert vitmech("check-in", "03", root=small).stdout == "03_third: 1 checked cells\n"
    taken = json.loads(source.read_text())["cells"]
    assert "".join(taken[3]["outputs"][0]["text"]).strip() == "16"
    assert [len(cell["outputs"]) for cell in taken if cell["cell_type"] == "code"] == [0, 0, 1, 0]
    assert vitmech("run", "03", root=small).returncode == 0  # its page changed, so it is run again

    stage(small, run, small / "staged")
    staged = json.loads((small / "staged" / "notebooks" / "01_first.ipynb").read_text())
    assert "".join(staged["cells"][0]["source"]) == "# 01 first"
    assert "A quick run" in "".join(staged["cells"][1]["source"])
    assert "The count is 16" in (small / "staged" / "book" / "intro.md").read_text()

    published = small / "published"  # a run from before the third chapter was written
    for chapter in ("01_first", "02_second"):
        shutil.copytree(run / chapter, published / chapter)
    page = small / "book" / "intro.md"
    text = page.read_text()
    page.write_text(f"{text}\n1. [](../notebooks/02_second.ipynb)\n2. [](../notebooks/03_third.ipynb)\n")
    stage(small, published, small / "staged")
    assert not (small / "staged" / "notebooks" / "03_third.ipynb").exists()
    assert "03_third" not in (small / "staged" / "_toc.yml").read_text()
    links = (small / "staged" / "book" / "intro.md").read_text()
    assert ("02_second.ipynb" in links, "03_third.ipynb" in links) == (True, False)
    page.write_text(text)
    (run / "03_third").rename(run / "elsewhere")
    with pytest.raises(RunError, match="vitmech run 03"):  # of another run, every chapter is asked for
        stage(small, run, small / "staged")
    (run / "elsewhere").rename(run / "03_third")

    before = (run / "02_second" / "manifest.json").read_bytes()
    good = (small / "notebooks" / "02_second.ipynb").read_text()
    write_notebook(small / "notebooks" / "02_second.ipynb", "02_second", ["1 / 0"])
    failing = vitmech("run", "02", root=small)
    assert failing.returncode == 1
    assert "02_second.ipynb, cell" in failing.stderr
    assert "ZeroDivisionError" in failing.stderr
    assert (run / "02_second.failed.ipynb").is_file()
    assert (run / "02_second" / "manifest.json").read_bytes() == before  # the last good run stands
    with pytest.raises(RunError, match=r"02_second\.ipynb changed since"):
        stage(small, run, small / "staged")

    write_notebook(small / "notebooks" / "02_second.ipynb", "02_second", ["del chapter", "chapter = open"])
    path = small / "notebooks" / "02_second.ipynb"
    path.write_text(path.read_text().replace("chapter.close();", "pass"))
    unclosed = vitmech("run", "02", root=small)
    assert unclosed.returncode == 1
    assert "chapter.close()" in unclosed.stderr
    (small / "notebooks" / "02_second.ipynb").write_text(good)
    stage(small, run, small / "staged")  # what stood before still stands

    mixed = json.loads((small / "results" / "other" / "01_first" / "manifest.json").read_text())
    for file in (run / "01_first").iterdir():
        file.unlink()
    for file in (small / "results" / "other" / "01_first").iterdir():
        (run / "01_first" / file.name).write_bytes(file.read_bytes())
    with pytest.raises(
        RunError, match=r"01_first was made with other profile values|different profile values"
    ):
        stage(small, run, small / "staged")
    assert "How this page was made" in banner({**mixed, "profile": {**mixed["profile"], "name": "laptop"}})


@pytest.mark.pipeline
def test_plain_papermill_runs_a_chapter(small: Path, tmp_path: Path) -> None:
    import papermill

    out = tmp_path / "out.ipynb"
    parameters = {"profile": "laptop", "run_dir": str(tmp_path / "run"), "overrides": {"audit.images": 5}}
    papermill.execute_notebook(
        small / "notebooks" / "01_first.ipynb", out, parameters, cwd=small / "notebooks", progress_bar=False
    )
    manifest = json.loads((tmp_path / "run" / "01_first" / "manifest.json").read_text())
    assert manifest["profile"]["name"] == "laptop"
    assert manifest["profile"]["values"]["audit"]["images"] == 5


@pytest.mark.pipeline
def test_papermill_s_command_takes_values_and_a_file_of_values(small: Path, tmp_path: Path) -> None:
    values = tmp_path / "values.yaml"
    values.write_text(f"run_dir: {tmp_path / 'run'}\noverrides:\n  audit.images: 7\n")
    command = [sys.executable, "-m", "papermill", "01_first.ipynb", str(tmp_path / "out.ipynb")]
    command += ["--no-progress-bar", "-p", "profile", "laptop", "-f", str(values)]
    done = subprocess.run(command, cwd=small / "notebooks", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    manifest = json.loads((tmp_path / "run" / "01_first" / "manifest.json").read_text())
    assert manifest["profile"]["name"] == "laptop"
    assert manifest["profile"]["values"]["audit"]["images"] == 7


def test_doctor_tells_what_is_missing(
    small: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    assert status(small, "doctor", monkeypatch=monkeypatch) == 1
    out = capsys.readouterr().out
    assert "torch 2." in out
    assert "device: " in out
    assert "backbone: dinov2-small" in out
    assert "recordings of chapter 11: " in out
    for adapter, how in (
        ("seed-0", "vitmech run 02 --profile laptop"),
        ("bare-seed-0", "-p bare_adapter=train"),
        ("classifier-untitled-seed-0", "-p classifiers=train"),
    ):
        assert f"published/adapters/{adapter}: git checkout -- published, or train one with `{how}`\n" in out


@pytest.mark.parametrize(("seconds", "text"), [(4.4, "4 s"), (65.0, "1 min 5 s"), (7384.0, "2 h 3 min")])
def test_durations_are_written_as_people_do(seconds: float, text: str) -> None:
    assert duration(seconds) == text
