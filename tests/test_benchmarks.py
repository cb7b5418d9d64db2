"""The benchmark suite: its rows, its runner, its page. What it measures is never asserted."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from small_book import ROOT

from vitmech_utils.heads.ablation import HeadPredictions
from vitmech_utils.pipeline.benchmarks import (
    GPU_RECORD,
    RECORD,
    Record,
    Row,
    as_page,
    as_table,
    fill_benchmarks,
    judge,
    read_record,
)
from vitmech_utils.runs.manifests import RunError
from vitmech_utils.studies.verdicts import HOLDS, UNKNOWN

RUN = ROOT / "benchmarks" / "run.py"
ROW = {"what": "Speed", "unit": "times", "figure": 3.0, "at_least": 2.0, "met": True}
LEAVES = """
import json, pathlib, sys
content = {content}
pathlib.Path(sys.argv[sys.argv.index("--rows") + 1]).write_text(json.dumps(content))
"""


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the suite's own modules importable, as they are to its scripts."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")


def run_suite(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, RUN, *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def record_of(*benchmarks: dict, sizes: str = "full") -> Record:
    """A record with these benchmarks, of a made-up machine."""
    content = {
        "format": 1, "sizes": sizes, "started": "2026-01-02T03:04:05+00:00", "wall_seconds": 75.0,
        "code": {"version": "1.2.3", "commit": None, "modified": None},
        "device": {"type": "cpu", "name": "Abacus", "cores": 2, "system": "none"},
        "packages": {"python": "3.11.7"}, "benchmarks": benchmarks,
    }  # fmt: skip
    return Record.model_validate_json(json.dumps(content))


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"met": False}, "not what figure and target say"),
        ({"met": None}, "not what figure and target say"),
        ({"figure": 1.0}, "not what figure and target say"),
        ({"figure": None, "met": None}, "either a figure or the reason"),
        ({"not_measured": "no time"}, "either a figure or the reason"),
        ({"low": 1.0}, "come together"),
        ({"low": 4.0, "high": 5.0}, "lies outside"),
        ({"figure": float("nan"), "met": False}, "finite"),
        ({"figure": "3"}, "valid number"),
        ({"repeats": 0}, "greater than or equal to 1"),
        ({"speed": 3.0}, "Extra inputs"),
        ({"what": ""}, "at least 1 character"),
    ],
)
def test_a_row_that_contradicts_itself_is_refused(change: dict, complaint: str) -> None:
    Row(**ROW)
    with pytest.raises(ValidationError, match=complaint):
        Row(**{**ROW, **change})


def test_a_bound_is_met_at_the_bound() -> None:
    assert judge(40.0, 40.0, None) is True
    assert judge(39.99, 40.0, None) is False
    assert judge(1.5, None, 1.5) is True
    assert judge(1.51, None, 1.5) is False
    assert judge(3.0, 2.0, 2.5) is False
    assert judge(7.0, None, None) is None
    assert judge(None, 40.0, None) is None


def test_ways_take_turns_and_the_order_turns_round(modules: None) -> None:
    from measuring import ratios, row, take_turns

    calls: list[str] = []

    def way(name: str, values: list[float]):
        def once() -> float:
            calls.append(name)
            return values.pop(0)

        return once

    taken = take_turns({"slow": way("slow", [6.0, 8.0, 50.0]), "fast": way("fast", [2.0, 4.0, 10.0])}, 3)
    assert calls == ["slow", "fast", "fast", "slow", "slow", "fast"]
    found = row("Speed", ratios(taken["slow"], taken["fast"]), "times", at_least=4)
    assert (found.figure, found.low, found.high, found.repeats, found.met) == (3.0, 2.0, 5.0, 3, False)
    single = row("Speed", [3.0], "times")
    assert (single.figure, single.low, single.high, single.met) == (3.0, None, None, None)


def test_the_generator_makes_as_many_images_in_every_turn(
    modules: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It goes on where its files end, so a turn's share must be counted from there, the warm-up's one included."""
    import images

    class Generator:
        made = 0

        def generate_dataset(self, total: int) -> None:
            counts.append(max(0, total - self.made))
            self.made = max(total, self.made)

    counts: list[int] = []
    monkeypatch.setattr(images, "published_generator", lambda folder: Generator())
    generate, count = images._published_ways(tmp_path)["published, PNG"]
    for turn in range(3):
        generate(turn * count, count)
    assert counts == [1, count, count, count]


def test_pairing_saves_what_the_variances_say(modules: None) -> None:
    """Errors 0, 2, 4, 6 before and 1, 3, 6, 8 after: variances 20/3 and 29/3 alone, 1/3 of their differences.

    `images_saved` divides by images throughout, so the ratio is that of the sample variances.
    """
    import torch
    from ablation import images_saved

    from vitmech_utils.heads.ablation import HeadPredictions

    before = np.array([0.0, 2.0, 4.0, 6.0])
    after = before + np.array([1.0, 1.0, 2.0, 2.0])
    predicted = [torch.tensor(errors).sqrt()[:, None].expand(4, 3) for errors in (before, after)]
    found = HeadPredictions(
        predicted[0], predicted[1][None], np.array([0]), np.array([0]), "zero", "hook", "squared error"
    )
    assert images_saved(found, torch.zeros(4, 3)) == pytest.approx([(20 / 3 + 29 / 3) * 3])


def test_a_failing_benchmark_costs_the_others_nothing(tmp_path: Path) -> None:
    sound = {"title": "Sound", "rows": [ROW]}
    texts = {
        "sound": LEAVES.format(content=sound),
        "crashes": "raise SystemExit('out of cheese')",
        "silent": "pass",
        "boasts": LEAVES.format(content={"title": "B", "rows": [{**ROW, "figure": 1.0}]}),
        "hangs": "import time; time.sleep(600)",
        "also_sound": LEAVES.format(content=sound),
    }
    scripts = [tmp_path / f"{name}.py" for name in texts]
    for script, text in zip(scripts, texts.values(), strict=True):
        script.write_text(text)
    out = tmp_path / "record.json"
    done = run_suite(*scripts, "--out", out, "--minutes", 0.2)
    assert done.returncode == 1, done.stderr
    assert "failed: crashes, silent, boasts, hangs" in done.stderr
    record = read_record(out)
    failures = {benchmark.name: benchmark.failed for benchmark in record.benchmarks}
    assert failures["sound"] == failures["also_sound"] == ""
    assert failures["crashes"] == "exit status 1: out of cheese"
    assert failures["silent"] == "it left no rows"
    assert "not what figure and target say" in failures["boasts"]
    assert failures["hangs"] == "it ran longer than 0.2 minutes"
    assert record.benchmarks[0].rows == (Row(**ROW),)
    assert as_table(record) in done.stdout
    assert done.stdout.count("**failed**") == 4
    assert sorted(path.name for path in tmp_path.iterdir() if path.suffix != ".py") == ["record.json"]


def test_part_of_the_suite_never_takes_the_place_of_the_whole(tmp_path: Path) -> None:
    done = run_suite(ROOT / "benchmarks" / "images.py")
    assert done.returncode == 2
    assert "--out" in done.stderr
    done = run_suite(tmp_path / "nowhere.py", "--out", tmp_path / "record.json")
    assert done.returncode == 2
    assert "nowhere.py" in done.stderr


def test_rivals_that_cannot_be_fetched_are_named_and_left_out(
    modules: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import run

    monkeypatch.setattr(run, "RIVALS", tmp_path)
    monkeypatch.setattr(run, "PACKAGES", ("no-such-rival==0.0.1",))
    for name, value in {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)
    run.fetch_rivals()
    assert "no-such-rival==0.0.1 cannot be fetched" in capsys.readouterr().err
    assert run.rival_versions() == {}


@pytest.mark.slow
def test_a_real_benchmark_goes_through_the_runner_on_small_sizes(tmp_path: Path) -> None:
    """One stands for all here: they share the runner and the form of rows. `make bench` runs every one."""
    out = tmp_path / "record.json"
    script = ROOT / "benchmarks" / "together.py"
    done = run_suite(script, "--quick", "--out", out, "--minutes", 60)  # a busy machine is no defect
    assert done.returncode == 0, done.stderr[-6000:]
    record = read_record(out)
    assert record.sizes == "quick"
    assert [benchmark.name for benchmark in record.benchmarks] == ["together"]
    assert all(row.figure and row.figure > 0 for row in record.benchmarks[0].rows)
    assert "A quick call" in as_page(record)


def test_a_gpu_s_verdicts_are_by_chapter_04_s_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    from gpu import verdicts_of

    generator = torch.Generator().manual_seed(0)
    layers, heads = (torch.arange(36) // 6).numpy(), (torch.arange(36) % 6).numpy()
    labels = torch.randn(30, 3, generator=generator, dtype=torch.float64)
    baseline = labels + 0.1
    found = HeadPredictions(baseline, baseline.expand(36, 30, 3).clone(), layers, heads, "mean", "replay")
    assert verdicts_of(found, labels)[0] in (HOLDS, UNKNOWN)  # no head does anything
    assert all(isinstance(each, str) for each in verdicts_of(found, labels))


def test_the_table_says_what_is_known_and_what_is_not() -> None:
    rows = [
        {**ROW, "low": 2.5, "high": 3.25, "repeats": 4, "against": "a|b", "how": "2 images"},
        {**ROW, "figure": 1.0, "met": False},
        {"what": "Rival", "unit": "times", "not_measured": "nobody came", "at_least": 40.0},
        {"what": "Rate", "unit": "per second", "figure": 1234.5},
    ]
    table = as_table(
        record_of(
            {"name": "x", "title": "X", "seconds": 1.0, "rows": rows},
            {"name": "y", "title": "Y", "seconds": 1.0, "failed": "exit status 1: oh\nno | really"},
        )
    )
    assert table.splitlines()[2:] == [
        "| **Speed**, against a/b | 3 times (2.5 to 3.25 in 4); 2 images | at least 2: met |",
        "| **Speed** | 1 times | at least 2: **not met** |",
        "| **Rival** | not measured: nobody came | at least 40: open |",
        "| **Rate** | 1,234 per second | none set |",
        "| **Y** | **failed**: exit status 1: oh no / really |  |",
    ]


def test_rows_by_the_number_of_images_stand_side_by_side_and_are_counted() -> None:
    kept = {"unit": "%", "at_least": 93.0, "how": "by t"}
    rows = [
        {**kept, "what": f"Intervals that cover: {what}, {images} images", "figure": figure, "met": figure >= 93,
         "against": f"the bootstrap ({figure - 10:.0f} %)"}
        for what, images, figure in (("C1: a mean", 20, 60.5), ("C1: a mean", 500, 95.0), ("a share", 500, 97.0))
    ]  # fmt: skip
    record = record_of({"name": "x", "title": "X", "seconds": 1.0, "rows": [ROW, *rows]})
    table = as_table(record)
    assert table.count("| **Speed**") == 1
    assert table.split("\n\n")[-1].splitlines() == [
        "| what | how | 20 | 500 |",
        "| --- | --- | --- | --- |",
        "| C1: a mean | by t | **60.5** (50) | 95 (85) |",
        "| a share | by t | not measured | 97 (87) |",
    ]
    assert "**Intervals that cover**, in %, by the number of images; in brackets: the bootstrap." in table
    assert "the target (at least 93) is not met" in table
    assert "Targets not met: Intervals that cover, in 1 of 3 cases." in as_page(record)


def test_the_page_tells_machine_day_versions_and_what_went_wrong() -> None:
    rows = [{**ROW, "figure": 1.0, "met": False}]
    page = as_page(
        record_of(
            {"name": "x", "title": "X", "seconds": 1.0, "rows": rows},
            {"name": "y", "title": "Y", "seconds": 1.0, "failed": "it left no rows"},
        )
    )
    for words in ("Abacus", "2 January 2026", "1 min 15 s", "1.2.3", "| python | 3.11.7 |"):
        assert words in page
    assert "Failed: Y. Targets not met: Speed." in page
    assert "quick" not in page
    assert "read no figure" in as_page(
        record_of({"name": "x", "title": "X", "seconds": 1.0, "rows": rows}, sizes="quick")
    )


def test_the_page_is_filled_from_a_sound_record_alone(tmp_path: Path) -> None:
    assert fill_benchmarks("No token, no record needed.", tmp_path) == "No token, no record needed."
    assert "make bench" in fill_benchmarks("{{ benchmarks }}", tmp_path)
    path = tmp_path / RECORD
    with pytest.raises(RunError, match="make bench"):
        read_record(path)
    path.parent.mkdir()
    record = record_of({"name": "x", "title": "X", "seconds": 1.0, "rows": [ROW]})
    path.write_text(record.model_dump_json())
    assert as_table(record) in fill_benchmarks("Before\n\n{{ benchmarks }}\n", tmp_path)
    assert "on a GPU yet" in fill_benchmarks("{{ gpu benchmarks }}", tmp_path)
    (tmp_path / GPU_RECORD).parent.mkdir()
    (tmp_path / GPU_RECORD).write_text(record.model_dump_json())
    both = fill_benchmarks("{{ gpu benchmarks }} {{ benchmarks }}", tmp_path)
    assert both.count(as_table(record)) == 2
    assert both.count("## Versions") == 1
    path.write_text(record.model_dump_json().replace('"figure":3.0', '"figure":1.5'))
    with pytest.raises(RunError, match=r"benchmarks\.0\.rows\.0: .*figure and target.*make bench"):
        fill_benchmarks("{{ benchmarks }}", tmp_path)


def test_a_published_record_is_sound_and_names_no_folder_of_its_machine() -> None:
    assert "{{ benchmarks }}" in (ROOT / "book" / "benchmarks.md").read_text(encoding="utf-8")
    for path in (ROOT / RECORD, ROOT / GPU_RECORD):
        if path.is_file():  # there is none before the first `make bench`
            record = read_record(path)
            assert not any(benchmark.failed for benchmark in record.benchmarks)
            assert str(ROOT) not in path.read_text(encoding="utf-8")
