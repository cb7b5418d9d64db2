"""The book's prose: no number without its artefact, and one word for one thing."""

import pybtex.database
import pytest
from prose import (
    ALLOWED,
    PHRASES,
    numbers_without_artefact,
    prose,
    sentences,
    spoken,
    texts,
    wrong_phrases,
    wrong_words,
)
from small_book import ROOT

TEXTS = texts(ROOT)


def test_the_whole_book_is_read() -> None:
    places = {text.place.split(" cell ")[0] for text in TEXTS}
    assert {"intro.md", "scoreboard.md", "01_chirp_spectrograms", "06_published_code"} <= places
    assert sum(len(prose(text.markdown).split()) for text in TEXTS) > 5000, (
        "most of the book was taken for code"
    )


def test_no_number_stands_in_prose_without_its_artefact() -> None:
    found = [
        (text.place, hit) for text in TEXTS for hit in numbers_without_artefact(text.markdown, text.known)
    ]
    assert found == []


def test_what_is_allowed_is_used() -> None:
    whole = " ".join(sentence for text in TEXTS for sentence in sentences(prose(text.markdown)))
    assert [phrase for phrase in ALLOWED if phrase not in whole] == []


def test_one_word_for_one_thing() -> None:
    assert [(text.place, hit) for text in TEXTS for hit in wrong_words(text.markdown)] == []


def test_studies_speak_the_field_s_english() -> None:
    modules = [
        path for name in ("plots", "judge") for path in ROOT.glob(f"vitmech_utils/studies/*/{name}.py")
    ]
    said = [text for path in modules for text in spoken(path)]
    assert len(said) > 500, "most of what the studies say was not found"
    assert [(text.place, hit) for text in said for hit in wrong_phrases(text.markdown)] == []


@pytest.mark.parametrize(
    "planted",
    [
        "The best head raises the error by 593 %.",
        "The start time correlates at r = 0.9897.",
        "The start time correlates at r = 0.5.",  # a statistic, though a threshold has the same value
        "- a list item, with 17.3 of something",
        "| mean | +1.74 |",
        "Its lift is 89-fold.",
        "Drawing is 52 times as fast.",
        "The sweep took 8 minutes.",
        "It needs 1.5 GiB.",
        "Of these, 33 heads look at CLS.",
        "We drew 128,000 images.",
        "The published adapter reaches 0.98.",  # ours, not the study's
        "```{admonition} Result\nIt was 42 %.\n```",
        "The error falls by 12 percent.",
        "Two sentences. The second says 0.731.",
    ],
)
def test_a_planted_number_is_found(planted: str) -> None:
    assert len(numbers_without_artefact(planted)) == 1


@pytest.mark.parametrize(
    "fine",
    [
        "Layers 6 to 11 of twelve, head 4; in 2025.",
        "With 95 % intervals at a false discovery rate of 5 %.",
        "The study reports +0.34 %.",
        "It falls to 0.98 {cite}`bahador2025chirp`.",
        "It is {{ run:04_head_ablation/verdict/share:.1% }}.",
        "Here $r = 0.98$ is a formula, `x = 0.73` is code.",
        "```python\nx = 0.731\n```",
        "The published recipe draws from 0.09 to 0.3.",
        "1. Ask.\n\n   ```{dropdown} Solution\n   It is 33.7 Hz.\n   ```",
        "See [the page](https://example.org/0.731).",
    ],
)
def test_what_is_no_result_passes(fine: str) -> None:
    assert numbers_without_artefact(fine) == []


def test_a_caption_may_say_what_its_code_says() -> None:
    assert numbers_without_artefact("Shown up to 50 Hz.", {"50"}) == []
    assert numbers_without_artefact("Shown up to 51 Hz.", {"50"})


@pytest.mark.parametrize(
    ("planted", "right"),
    [
        ("the color of the patch", "colour"),
        ("the Color Bar", "colour"),
        ("the colourbar", "colour bar"),
        ("the colour-bar", "colour bar"),
        ("a colour bar label", "colour-bar label"),
        ("the tick-labels", "tick label"),
        ("the saliency share", "attention share"),
        ("an attention\nfraction", "attention share"),
        ("its area fraction", "area share"),
        ("by mean-ablation", "ablation"),
        ("the ablation type", "ablation mode"),
        ("the class token", "CLS"),
        ("the results directory", "run folder"),
        ("finetuned", "fine-tune"),
        ("a pretrained model", "pre-trained"),
        ("in layer 0", "count from 1"),
        ("a poly-semantic head", "polysemantic"),
    ],
)
def test_a_planted_word_is_found(planted: str, right: str) -> None:
    assert any(right in hit for hit in wrong_words(planted))


@pytest.mark.parametrize(
    "fine",
    [
        "the colour bar and the colour-bar label",
        "`color=` in code",
        "[](color_bar.md)",
        "layer 10, head 5",
        "mean ablation",
    ],
)
def test_right_words_pass(fine: str) -> None:
    assert wrong_words(fine) == []


@pytest.mark.parametrize(
    "planted",
    [
        "and see whether anybody misses it",
        "the interval leaves 1.5 to 6.2 times",
        "the model is as fast as 1.15 times",
        "keeps the heads about the edge",
        "Sought is the change",
        "Of 5 lookers, 1 are both",
        "summed up over both gates' ways",
        "the brackets say how many are so for sure",
    ],
)
def test_a_planted_phrase_is_found(planted: str) -> None:
    assert wrong_phrases(planted)
    assert wrong_words(planted)


def test_every_phrase_has_a_better_one() -> None:
    assert all(len(right) > 3 for right in PHRASES.values())


def test_the_references_can_be_read() -> None:
    """A brace that is missing is told here in a second, and by the book's build after minutes."""
    found = pybtex.database.parse_file(str(ROOT / "book" / "references.bib"))
    assert len(found.entries) > 40
    assert all({"title", "year"} <= set(entry.fields) for entry in found.entries.values())
