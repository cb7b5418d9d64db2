"""Snakemake on a small book: only what is stale, going on after a kill, failing where a chapter fails."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import snakemake
from small_book import ROOT, write_notebook

pytestmark = [pytest.mark.pipeline, pytest.mark.slow]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import small_book

    root = small_book.make(tmp_path_factory.mktemp("pipeline") / "clone")
    done = snakemake(root=root)
    assert done.returncode == 0, done.stderr
    return root


def planned(root: Path, *arguments: str) -> list[str]:
    """The chapters that Snakemake would run now."""
    done = snakemake("--dry-run", "--quiet", "host", *arguments, root=root)
    assert done.returncode == 0, done.stderr
    lines = (done.stdout + done.stderr).splitlines()
    return sorted(
        {
            line.split()[1].rstrip(":")
            for line in lines
            if line.startswith(("rule chapter_", "localrule chapter_"))
        }
    )


ALL = ["chapter_01_first", "chapter_02_second", "chapter_03_third"]


def test_a_second_call_does_nothing(finished: Path) -> None:
    assert planned(finished) == []


def test_a_touched_file_reruns_nothing(finished: Path) -> None:
    for path in (finished / "notebooks").iterdir():
        path.touch()
    assert planned(finished) == []


@pytest.mark.parametrize("damage", ["{", "[]", "null", '{"profile": 1}', '{"profile": {"name": "quick"}}'])
def test_a_damaged_manifest_does_not_keep_the_series_from_being_planned(finished: Path, damage: str) -> None:
    path = finished / "results" / "quick" / "01_first" / "manifest.json"
    before = path.read_bytes()
    path.write_text(damage)
    try:
        assert set(planned(finished)) <= set(ALL)
    finally:
        path.write_bytes(before)


def test_an_edited_notebook_reruns_itself_and_what_reads_it(finished: Path) -> None:
    path = finished / "notebooks" / "02_second.ipynb"
    before = path.read_text()
    path.write_text(before.replace("A claim.", "Another claim."))
    assert planned(finished) == ALL[1:]
    path.write_text(before)


def test_changed_values_rerun_but_comments_do_not(finished: Path) -> None:
    profile = finished / "profiles" / "quick.yaml"
    profile.write_text("# a comment\n" + profile.read_text())
    assert planned(finished) == []
    assert planned(finished, "--config", "set=audit.images=3") == ALL
    assert (
        planned(finished) == ALL or planned(finished) == []
    )  # values noted again; either way nothing is stale


def test_a_failing_chapter_fails_the_series_and_mending_it_goes_on(small: Path) -> None:
    good = (small / "notebooks" / "02_second.ipynb").read_text()
    write_notebook(
        small / "notebooks" / "02_second.ipynb",
        "02_second",
        ['chapter.read_json("01_first", "numbers")', "1 / 0"],
    )
    done = snakemake(root=small)
    assert done.returncode != 0
    assert "ZeroDivisionError" in done.stdout + done.stderr
    assert not (small / "results" / "quick" / "02_second" / "manifest.json").exists()
    first = (small / "results" / "quick" / "01_first" / "manifest.json").read_bytes()
    (small / "notebooks" / "02_second.ipynb").write_text(good)
    assert snakemake(root=small).returncode == 0
    assert (small / "results" / "quick" / "01_first" / "manifest.json").read_bytes() == first


def test_kill_9_of_everything_then_the_next_call_goes_on(small: Path) -> None:
    """The runner and Snakemake are killed while chapter 02 runs; 01 is kept, 02 leaves nothing half-written."""
    write_notebook(
        small / "notebooks" / "02_second.ipynb",
        "02_second",
        [
            'import pathlib, time\n\nnumbers = chapter.read_json("01_first", "numbers")',
            'chapter.save_json(1, "counts")\npathlib.Path("started").touch()\n'
            'time.sleep(0 if pathlib.Path("go").exists() else 60)',
            'import pandas as pd\n\nchapter.save_table(pd.DataFrame({"count": [16]}), "counts")',
        ],
    )
    command = [sys.executable, "-m", "snakemake", "--cores", "2", "--nolock", "--rerun-incomplete"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command,
        cwd=small,
        env=env,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as runner:
        deadline = time.monotonic() + 120
        while not (small / "notebooks" / "started").exists():
            assert time.monotonic() < deadline, "chapter 02 never started"
            assert runner.poll() is None, "the runner ended by itself"
            time.sleep(0.2)
        os.killpg(runner.pid, signal.SIGKILL)
        runner.wait()
    run = small / "results" / "quick"
    assert not (run / "02_second" / "manifest.json").exists()
    first = (run / "01_first" / "manifest.json").read_bytes()
    (small / "notebooks" / "go").touch()
    done = snakemake(root=small)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (run / "01_first" / "manifest.json").read_bytes() == first
    assert json.loads((run / "03_third" / "manifest.json").read_text())["inputs"].keys() == {"02_second"}
