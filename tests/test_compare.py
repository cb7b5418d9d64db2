"""Two runs side by side: known differences, intervals that cover, and runs that share nothing."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import vitmech
from test_claims import MANY, SEMANTICS, classes, made_up, set_classes, set_effects, write_run

from vitmech_utils.pipeline.compare import compare, difference, effect_differences
from vitmech_utils.report.claims import scoreboard
from vitmech_utils.runs.manifests import RunError


@pytest.fixture
def runs(tmp_path: Path) -> tuple[Path, Path]:
    """Two runs: in the second one head has a clearly larger effect, and two changed their class, one for sure."""
    first, second = made_up(), made_up()
    set_effects(second, [5], 8.0, 12.0)
    set_classes(second, range(1), 2, "monosemantic", "chirp", sure=1)
    return write_run(tmp_path / "one", first), write_run(tmp_path / "other", second)


def test_the_interval_of_a_difference_is_that_of_its_formula() -> None:
    """By hand: 5 [4, 7] after 2 [1, 2.5] is 3 [3 - sqrt(1 + 0.25), 3 + sqrt(4 + 1)]."""
    found = difference(*(np.array([value]) for value in (2.0, 1.0, 2.5, 5.0, 4.0, 7.0)))
    np.testing.assert_allclose(np.ravel(found), [3.0, 3.0 - np.sqrt(1.25), 3.0 + np.sqrt(5.0)], rtol=1e-12)


def test_the_interval_of_a_difference_covers() -> None:
    """Two means of skewed samples, each with an interval of its own: 95 % of the intervals hold the true difference."""
    rng = np.random.default_rng(0)

    def intervals(mean: float, size: int) -> tuple[np.ndarray, ...]:
        drawn = rng.gamma(4.0, mean / 4.0, (4000, size))
        value, error = drawn.mean(1), drawn.std(1, ddof=1) / np.sqrt(size)
        return value, value - 1.96 * error, value + 1.96 * error

    _, low, high = difference(*intervals(2.0, 200), *intervals(5.0, 100))
    covered = ((low <= 3.0) & (high >= 3.0)).mean()
    assert 0.935 < covered < 0.96
    width = (high - low).mean()
    assert width == pytest.approx(
        2 * 1.96 * np.hypot(2.0 / 2 / np.sqrt(200), 5.0 / 2 / np.sqrt(100)), rel=0.02
    )


def test_known_differences_are_found(runs: tuple[Path, Path]) -> None:
    found = compare(*runs)
    clear = found.effects[found.effects["clear"]]
    assert clear[["layer", "head"]].to_numpy().tolist() == [[0, 5]]
    row = clear.iloc[0]
    assert row["difference"] == pytest.approx(10.0 - 0.2)
    assert row["difference_low"] == pytest.approx(9.8 - np.hypot(2.0, 0.3))
    assert row["difference_high"] == pytest.approx(9.8 + np.hypot(2.0, 0.3))
    changed = found.classes[found.classes["changed"]]
    assert changed[["layer", "head", "sure"]].to_numpy().tolist() == [[0, 0, True], [0, 1, False]]
    boards = [scoreboard(run).set_index("id")["verdict"] for run in runs]
    verdicts = found.verdicts.set_index("id")
    assert verdicts["verdict"].to_dict() == boards[0].to_dict()
    assert verdicts["verdict_2"].to_dict() == boards[1].to_dict()
    assert verdicts["changed"].sum() == (boards[0] != boards[1]).sum()
    assert found.left_out == []


def test_a_run_beside_itself_shows_no_difference(runs: tuple[Path, Path]) -> None:
    found = compare(runs[0], runs[0])
    assert not found.effects["clear"].any()
    assert (found.effects["difference"] == 0).all()
    assert not found.classes["changed"].any()
    assert not found.verdicts["changed"].any()
    assert "the effects are the same" in found.text()


def test_the_command_prints_it_and_writes_the_tables(runs: tuple[Path, Path], tmp_path: Path) -> None:
    done = vitmech("diff", *runs, "--out", tmp_path / "tables")
    assert done.returncode == 0, done.stderr
    assert "layer 1, head 6" in done.stdout
    assert "excludes 0 for 1 (about 4 would by chance alone)" in done.stdout
    assert "2 of 72 heads changed class or regions, 1 where both runs are sure" in done.stdout
    assert "+9.8 [+7.8, +11.8]" in done.stdout
    table = pd.read_csv(tmp_path / "tables" / "effects.csv")
    assert table["clear"].sum() == 1
    assert {path.name for path in (tmp_path / "tables").iterdir()} == {
        "effects.csv",
        "classes.csv",
        "verdicts.csv",
    }


def test_what_one_run_lacks_is_named_and_the_rest_compared(runs: tuple[Path, Path]) -> None:
    folder = runs[1] / SEMANTICS
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    found = compare(*runs)
    assert found.effects is not None
    assert found.classes is None
    assert [reason.partition(":")[0] for reason in found.left_out] == ["classes", "verdicts"]
    assert "## Not compared" in found.text()


def test_other_profile_values_are_named(runs: tuple[Path, Path], tmp_path: Path) -> None:
    other = write_run(tmp_path / "third", made_up(images=60), images=60)
    told = {name: pair for name, *pair in compare(runs[0], other).facts}
    assert told["profile: semantics.images"] == [str(MANY), "60"]


def test_an_edited_table_is_refused(runs: tuple[Path, Path]) -> None:
    classes("sink").to_parquet(runs[1] / SEMANTICS / "classes.parquet", index=False)
    found = compare(*runs)
    assert found.classes is None
    assert "changed since the run that made it" in found.left_out[0]


def test_folders_that_are_no_runs_are_refused(runs: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(RunError, match="not a run folder"):
        compare(runs[0], tmp_path)
    done = vitmech("diff", runs[0], tmp_path / "nowhere")
    assert done.returncode == 1
    assert "not a run folder" in done.stderr


def test_heads_that_stand_twice_or_nowhere_are_refused() -> None:
    sweep = made_up()["sweep"]
    with pytest.raises(RunError, match="two rows for one"):
        effect_differences(sweep, pd.concat([sweep, sweep]))
    with pytest.raises(RunError, match="no row has the same"):
        effect_differences(sweep, sweep.assign(mode="zero"))
    with pytest.raises(RunError, match="no column effect"):
        effect_differences(sweep, sweep.drop(columns="effect"))


def test_names_from_files_break_no_table(runs: tuple[Path, Path]) -> None:
    tables = made_up()
    tables["classes"]["regions"] = "a | b"
    write_run(runs[1], tables)
    rows = [line for line in compare(*runs).text().splitlines() if "layer 1, head 1 " in line]
    assert rows
    assert all(line.replace(r"\|", "").count("|") in (5, 6) for line in rows)
