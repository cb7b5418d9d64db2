"""Tables and numbers in words: what a reader sees of a value, an interval, a rule."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from vitmech_utils.figures import tables
from vitmech_utils.figures.marks import interval_forest, reach
from vitmech_utils.statistics import Interval, unsigned_zero
from vitmech_utils.studies.verdicts import HOLDS, IN_PART, Judgement

ROW = {"effect": 1.74, "low": 0.9, "high": 2.61, "low_far": -3.0, "effect_far": 120.4, "high_far": 1234.5}


def test_a_pipe_table_has_a_row_for_each_and_escapes_pipes() -> None:
    assert tables.pipe_table(["mode", "ratio"], [("a|b", 2), ("zero", "3.1")]) == (
        "| mode | ratio |\n| --- | --- |\n| a\\|b | 2 |\n| zero | 3.1 |"
    )
    with pytest.raises(ValueError, match="has 1 cells, expected 2"):
        tables.pipe_table(["mode", "ratio"], [("zero",)])


def test_a_frame_s_columns_have_headings_and_formats() -> None:
    frame = pd.DataFrame([{"name": "x", **ROW}])
    columns = {"name": "head", "effect": ("effect (%)", tables.interval), "low": ("from", ".1f")}
    assert tables.frame_table(frame, columns).splitlines()[2] == "| x | +1.74 [+0.90, +2.61] | 0.9 |"


@pytest.mark.parametrize("row", [ROW, pd.Series(ROW), next(pd.DataFrame([ROW]).itertuples())])
def test_an_interval_is_told_alike_whatever_holds_it(row: object) -> None:
    assert tables.interval(row, ".1f") == "1.7 [0.9, 2.6]"
    assert tables.percent(row) == "+1.7 % [+0.9, +2.6]"
    assert tables.percent(row, "_far") == "+120 % [-3, +1,234]"


def test_an_estimate_s_own_interval_reads_the_same() -> None:
    found = Interval(1.74, 0.9, 2.61)
    assert tables.interval(found, "+.2f", "value") == f"{found:+.2f}"


def test_names_counts_and_lists_in_words() -> None:
    assert tables.plain("start_freq") == "start frequency"
    assert tables.counted(1, "image") + ", " + tables.counted(1200, "image") == "1 image, 1,200 images"
    assert tables.listed([]) == "none"
    assert tables.named({"zero": 0.523, "mean": 1}, ".1f", "; ") == "zero 0.5; mean 1.0"
    assert tables.bullets(["a", "b"]) == "- a\n- b"
    assert tables.bullets([], "nothing") == "nothing"


def test_a_rule_is_quoted_whole_or_by_its_first_paragraph() -> None:
    def rule() -> None:
        """C9. Holds if
        it does.

        More.
        """

    assert tables.rule_text(rule) == "> C9. Holds if it does. More."
    assert tables.rule_text(rule, 1) == "> C9. Holds if it does."


def test_a_shown_table_has_words_above_its_columns() -> None:
    page = tables.shown(pd.DataFrame([ROW])[["effect", "low"]], {"effect": "+.1f"}, "A caption").to_html()
    assert all(part in page for part in ("effect (%)", "95 % from", "+1.7", "A caption"))


def test_a_forest_has_a_row_each_and_marks_of_one_row_side_by_side() -> None:
    table = pd.DataFrame(
        {
            "name": ["a", "a", "b"],
            "kind": ["own", "random", "own"],
            "effect": [1.0, 2, 3],
            "low": [0.5, 1, 3],
            "high": [2.0, 3, 4],
        }
    )
    np.testing.assert_allclose(reach(table), [[0.5, 1, 0], [1, 1, 1]])
    figure, ax = plt.subplots()
    interval_forest(
        ax, table, "name", by="kind", looks={"own": ("red", "o"), "random": ("grey", "^")}, apart=0.4
    )
    own, random = (container.lines[0] for container in ax.containers)
    assert own.get_ydata().tolist() == [-0.2, 0.8]
    assert random.get_ydata().tolist() == [0.2]
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["a", "b"]
    assert ax.get_ylim() == (1.5, -0.5)
    plt.close(figure)


def test_three_sentences_are_numbered_and_each_holds_a_figure() -> None:
    said = ("It is 1.2 [0.9, 1.4].", "Of 72 heads none.", "Undecided on 4 images.")
    assert tables.three_sentences(*said) == "\n".join(f"{n}. {text}" for n, text in enumerate(said, start=1))
    for wrong in ("No figure here, but for C7.", "It is 1.2"):
        with pytest.raises(ValueError, match="a whole sentence that holds a figure"):
            tables.three_sentences(*said[:2], wrong)


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [(0.1, 2.0, "more"), (-2.0, -0.1, "less"), (-1.0, 1.0, "undecided"), (0.0, 1.0, "undecided")],
)
def test_an_interval_decides_only_where_it_lies_on_one_side(low: float, high: float, said: str) -> None:
    assert tables.against(low, high, 0.0, "more", "less", "undecided") == said


@pytest.mark.parametrize(
    ("spec", "said"), [("+.0f", "+0"), ("+z.0f", "+0"), (".1f", "-0.4"), (".1%", "-40.0%"), ("", "-0.4")]
)
def test_nothing_is_shown_as_minus_zero(spec: str, said: str) -> None:
    assert format(-0.4, unsigned_zero(spec)) == said
    assert f"{Interval(-0.4, -1.2, 3.4):+.0f}" == "+0 [-1, +3]"
    assert tables.interval({"effect": -0.04, "low": -0.06, "high": -0.01}, "+.1f") == "+0.0 [-0.1, +0.0]"


def test_means_of_squares_are_shown_from_zero() -> None:
    assert tables.from_zero(Interval(0.2, -0.1, 0.5)) == Interval(0.2, 0.0, 0.5)
    assert tables.from_zero(Interval(0.2, 0.1, 0.5)) == Interval(0.2, 0.1, 0.5)


def test_a_verdict_on_one_training_stands_beside_that_over_all() -> None:
    holds, part = Judgement(HOLDS, "so"), Judgement(IN_PART, "so")
    assert tables.both_verdicts(holds, part) == "holds in this training, over all trainings holds in part"
    assert tables.both_verdicts(holds, holds) == "holds in this training, and so over all trainings"
