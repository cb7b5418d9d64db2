"""The page of supported models is what its rows measure now."""

import pytest
import support_matrix
from support_matrix import CASES, PAGE, Case, measured


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_row_of_the_page_is_what_is_measured(case: Case) -> None:
    row = measured(case)
    if row is None:
        pytest.skip(f"needs {case.needs}")
    there = {one["model"]: one for one in support_matrix.read(PAGE)}
    assert row == there[case.name]
    assert not any("WRONG" in value for value in row.values())


def test_the_page_is_read_as_it_was_written(tmp_path) -> None:
    rows = support_matrix.read(PAGE)
    assert len(rows) == len(CASES)
    (tmp_path / "page.md").write_text(support_matrix.page(rows))
    assert support_matrix.read(tmp_path / "page.md") == rows
    assert (tmp_path / "page.md").read_text() == PAGE.read_text()
