"""Times: what manifests and the status page tell, what `make book` says beforehand, what `make check` runs."""

import json
import re
import sys
import time
from pathlib import Path

import pytest
from conftest import vitmech
from small_book import ROOT, edit_manifest, manifest_for, write_notebook

from vitmech_utils.pipeline import seconds
from vitmech_utils.pipeline.stage import _trace
from vitmech_utils.runs import open_chapter
from vitmech_utils.runs.manifests import RunError, cpu_seconds, read_manifest, write_manifest

sys.path.insert(0, str(ROOT / "tools"))
import tests_of_changes


def burn(wanted: float) -> int:
    """Keep the processor busy for some CPU seconds."""
    until, count = time.process_time() + wanted, 0
    while time.process_time() < until:
        count += 1
    return count


def test_a_chapter_traces_what_each_kept_value_took(small: Path) -> None:
    chapter = open_chapter("01_first", root=small)
    chapter.keep("slow", lambda: burn(0.3))
    chapter.keep("quick", lambda: 1)
    lazy = chapter.lazy(lambda: burn(0.2))
    chapter.keep("waits", lambda: time.sleep(0.2) or lazy())
    chapter.close()
    manifest = read_manifest(small / "results" / "quick" / "01_first", "")
    trace = manifest["trace"]
    assert sorted(trace, key=["slow", "quick", "waits"].index) == ["slow", "quick", "waits"]
    assert 0.28 < trace["slow"]["cpu"] < 0.6
    assert trace["quick"]["cpu"] < 0.2
    assert 0.18 < trace["waits"]["cpu"] < trace["waits"]["wall"]
    assert trace["waits"]["wall"] > 0.39
    assert sum(took["cpu"] for took in trace.values()) < manifest["cpu_seconds"] < cpu_seconds() + 0.01


def test_cpu_seconds_count_processes_that_ended() -> None:
    import subprocess

    before = cpu_seconds()
    subprocess.run([sys.executable, "-c", "import time\nwhile time.process_time() < 0.4: pass"], check=True)
    assert cpu_seconds() - before > 0.37


def test_a_redraw_keeps_the_trace_of_the_run(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_notebook(
        small / "notebooks" / "01_first.ipynb", "01_first", ['chapter.keep("numbers", lambda: {"count": 1})']
    )
    assert vitmech("run", "01", root=small).returncode == 0
    folder = small / "results" / "quick" / "01_first"
    before = read_manifest(folder, "")
    write_manifest(folder, {**before, "trace": {"numbers": {"wall": 12.0, "cpu": 11.0}}, "cpu_seconds": 99.0})
    assert vitmech("redraw", "01", root=small).returncode == 0
    after = read_manifest(folder, "")
    assert after["trace"] == {"numbers": {"wall": 12.0, "cpu": 11.0}}
    assert after["cpu_seconds"] == 99.0


def test_the_status_page_names_what_took_longest() -> None:
    trace = {f"part_{number}": {"wall": 1.0, "cpu": float(number)} for number in range(1, 7)}
    manifests = {
        "01_first": {"trace": trace, "cpu_seconds": 90.0},
        "02_second": {"trace": {}, "cpu_seconds": 5.0},
        "03_third": {"trace": {"one": {"wall": 9.0, "cpu": 60.4}}, "cpu_seconds": 130.0},
    }
    lines = _trace(manifests).splitlines()
    assert lines[2].startswith(
        "| [](../notebooks/01_first.ipynb) | 1 min 30 s | `part_6` 6 s, `part_5` 5 s, "
    )
    assert lines[2].endswith("`part_3` 3 s, 2 more 3 s | 1 min 9 s |")
    assert lines[3] == "| [](../notebooks/03_third.ipynb) | 2 min 10 s | `one` 1 min 0 s | 1 min 10 s |"
    assert lines[-1] == "All chapters together took 3 min 40 s of processor time."
    assert "before chapters kept a trace" in _trace({"01_first": {"wall_seconds": 3.0}})


def make_run(root: Path, names: list[str], **changes: object) -> Path:
    for name in names:
        folder = root / "results" / "quick" / name
        folder.mkdir(parents=True, exist_ok=True)
        write_manifest(folder, manifest_for(folder, **changes))
    return root / "results" / "quick"


def test_a_run_s_times_are_recorded_beside_those_of_other_profiles(small: Path) -> None:
    names = ["01_first", "02_second", "03_third"]
    run = make_run(small, names, cpu_seconds=20.0)
    before = {"machine": "old", "environment": 50.0, "book": 20.0, "chapters": {"laptop": {"01_first": 1.0}}}
    (small / seconds.RECORD).write_text(json.dumps(before))
    found = seconds.record(small, run, book=30.0)
    assert found["chapters"] == {
        "laptop": {"01_first": 1.0},
        "quick": dict.fromkeys(names, 20.0 + seconds.OVERHEAD),
    }
    assert (found["environment"], found["book"]) == (50.0, 30.0)
    assert re.match(r"\d+ cores of ", found["machine"])


def test_runs_without_times_or_edited_ones_are_refused(small: Path) -> None:
    run = make_run(small, ["01_first", "02_second", "03_third"])
    with pytest.raises(RunError, match="before chapters recorded their CPU time"):
        seconds.record(small, run)
    edit_manifest(run / "01_first", cpu_seconds=1.0)
    with pytest.raises(RunError, match="does not match its seal"):
        seconds.record(small, run)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A package of three modules, each importing the one before, with a test of each."""
    (tmp_path / "tests").mkdir()
    (tmp_path / "vitmech_utils").mkdir()
    for name, before in (("low", None), ("middle", "low"), ("high", "middle")):
        text = f"from vitmech_utils.{before} import x\n" if before else "x = 1\n"
        (tmp_path / "vitmech_utils" / f"{name}.py").write_text(text)
        (tmp_path / "tests" / f"test_{name}.py").write_text(
            f"from vitmech_utils import {name}\nimport helper\n"
        )
    (tmp_path / "tests" / "helper.py").write_text("")
    (tmp_path / "tests" / "test_alone.py").write_text('TEXT = "README.md"\n')
    return tmp_path


@pytest.mark.parametrize(
    ("changed", "chosen"),
    [
        (["vitmech_utils/low.py"], ["test_low", "test_middle"]),
        (["vitmech_utils/high.py"], ["test_high"]),
        (["tests/test_alone.py", "vitmech_utils/high.py"], ["test_alone", "test_high"]),
        (["tests/helper.py"], ["test_high", "test_low", "test_middle"]),
        (["README.md"], ["test_alone"]),
        (["published/README.md", "LICENSE"], []),
    ],
)
def test_check_runs_what_is_nearest_to_a_change(tree: Path, changed: list[str], chosen: list[str]) -> None:
    found, left = tests_of_changes.choose(changed, tree, {})
    assert found == [f"tests/{name}.py" for name in chosen]
    assert left == []


def test_check_stops_where_its_time_is_up_but_never_before_what_changed(tree: Path) -> None:
    changed = ["vitmech_utils/low.py", "tests/test_alone.py"]
    long = {"tests/test_alone.py": 500.0}
    found, left = tests_of_changes.choose(changed, tree, long)
    assert (found, left) == (["tests/test_alone.py"], ["tests/test_low.py", "tests/test_middle.py"])
    found, left = tests_of_changes.choose(changed, tree, {"tests/test_middle.py": 115.0})
    assert (found, left) == (["tests/test_alone.py", "tests/test_low.py"], ["tests/test_middle.py"])
