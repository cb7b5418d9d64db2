"""The documented example of the head picker runs as it stands in the book."""

import re
from pathlib import Path

PAGE = Path(__file__).parents[1] / "book" / "picker_your_model.md"


def test_the_books_example_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 4
    names: dict = {}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), names)
    assert "'layer': 2, 'head': 1" in capsys.readouterr().out
    assert names["picker"]._spec["query"]["queryRows"] == 14
    assert (tmp_path / "my_model.html").stat().st_size < 6_000_000
    assert (tmp_path / "two_pickers.html").read_text().count("data-vm-host>") == 2
