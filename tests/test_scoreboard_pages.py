"""The published scoreboard against the published chapters: every verdict and every number stands on a page, too."""

import html
import json
import re
from functools import cache

import pytest

from vitmech_utils.profiles import repository_root
from vitmech_utils.report.claims import scoreboard
from vitmech_utils.runs.standing import code_changes
from vitmech_utils.studies.verdicts import OPEN, in_words

PUBLISHED = repository_root() / "published"
NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?")


@cache
def board():
    """The rows of the published scoreboard that a chapter judges."""
    frame = scoreboard(PUBLISHED)
    return frame[frame["verdict"] != OPEN].to_dict("records")


@cache
def page(chapter: str) -> str:
    """What a published chapter's cells put out, as text."""
    cells = json.loads((PUBLISHED / chapter / f"{chapter}.ipynb").read_text(encoding="utf-8"))["cells"]
    texts = []
    for output in (output for cell in cells for output in cell.get("outputs", [])):
        data = output.get("data", {})
        texts += ["".join(data.get(kind, "")) for kind in ("text/markdown", "text/html", "text/plain")]
        texts.append("".join(output.get("text", "")))
    return html.unescape(re.sub(r"<[^>]*>", " ", "\n".join(texts)))


def numbers(text: str) -> set[str]:
    """The numbers in a text, without their signs and the commas of their thousands."""
    return {found.rstrip(",").replace(",", "") for found in NUMBER.findall(text)}


def stands(number: str, known: set[str]) -> bool:
    """Whether a number is among others, or is one of them rounded, to two digits or more, on either side."""

    def rounded(one: str, other: str) -> bool:
        return len(other.replace(".", "")) > 1 and float(other) == round(
            float(one), len(other.partition(".")[2])
        )

    return number in known or any(rounded(number, other) or rounded(other, number) for other in known)


def current(chapter: str) -> None:
    """Skip what older code or older rules judged: the book says so of each such page, and publishing refuses it."""
    manifest = json.loads((PUBLISHED / chapter / "manifest.json").read_text(encoding="utf-8"))
    changes = code_changes(manifest, PUBLISHED.parent)
    if changes["computes"] or changes["saves"]:
        pytest.skip(f"published/{chapter} is older than its code")


def names_of_layers(text: str) -> str:
    """A text without the numbers that only name layers, heads and targets."""
    return re.sub(r"layers? \d+(-\d+)?|L\d+H\d+", " ", text)


def ids():
    return [row["id"] for row in board()]


@pytest.mark.parametrize("name", [f"C{number}" for number in range(1, 9)] + [f"Q{n}" for n in range(1, 9)])
class TestARow:
    def test_its_verdict_is_that_of_its_chapter(self, name: str) -> None:
        for row in (row for row in board() if row["id"] == name):
            current(row["chapter"])
            said = in_words(row["verdict"], row["lacks"])
            lines = [line for line in page(row["chapter"]).splitlines() if name in line]
            assert any(said in line for line in lines), f"{name}: {said}; the page says {lines[:4]}"

    def test_its_numbers_stand_in_its_chapter(self, name: str) -> None:
        for row in (row for row in board() if row["id"] == name):
            current(row["chapter"])
            known = numbers(page(row["chapter"]))
            missing = [found for found in numbers(names_of_layers(row["ours"])) if not stands(found, known)]
            assert not missing, f"{name}: {sorted(missing)} of {row['ours']!r} in none of the page's outputs"


def test_a_number_stands_where_it_is_rounded_and_nowhere_else() -> None:
    known = numbers("+287 % [+165, +1,454] of 5 heads")
    assert stands("286.8", known)
    assert stands("1454.4", known)
    assert stands("5", known)
    assert not stands("4.8", known)
    assert not stands("288.0", known)


def test_every_claim_and_question_that_a_chapter_judges_has_a_row() -> None:
    assert len(ids()) == len(set(ids())) >= 15
