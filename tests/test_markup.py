"""Values that reach a page: whatever text they are, the page shows that text, and nothing of it becomes markup."""

import html
import re

import pandas as pd
import pytest
from docutils.core import publish_parts
from hypothesis import example, given, settings
from hypothesis import strategies as st
from myst_parser.docutils_ import Parser

from vitmech_utils.figures import tables
from vitmech_utils.pipeline.provenance import banner, inline_code, literal

HOSTILE = (
    "<img src=x onerror=alert(1)>", "a\n```\n\n## Injected heading\n\n```{note}\n", "![x](http://example.invalid/x.png)",
    "[x](javascript:alert(1))", "{raw}`<b>`", "{{ run:status }}", "$x$ | *y* | __z__", "<!-- ", "`` ` ``", "~~~", "%",
    "(target)=", ":::{note}", "\\", "&lt;b&gt;", "https://example.invalid", "|||", "a\u2028b", "`", "``{abbr}`x (y)`",
)  # fmt: skip
TEXT = st.one_of(st.sampled_from(HOSTILE), st.text("<>&`'\"{}[]()!|*_~$#:\\/=-+.% \nab1", max_size=25))
SETTINGS = {
    "report_level": 5, "halt_level": 5, "raw_enabled": True, "myst_enable_extensions": ["dollarmath", "colon_fence"],
    "embed_stylesheet": False, "output_encoding": "unicode",
}  # fmt: skip


def rendered(text: str) -> str:
    """MyST as HTML, as the book's pages are written."""
    return publish_parts(text, parser=Parser(), writer_name="html5", settings_overrides=SETTINGS)["body"]


def words(text: str) -> str:
    """What a reader sees of a page, spaces aside."""
    return re.sub(r"\s+", "", html.unescape(re.sub(r"<[^>]*>", "", text)))


def manifest(**values: object) -> dict:
    code = {
        "version": values.get("version", "1.0"),
        "commit": values.get("commit", "abcdef123456"),
        "modified": False,
    }
    return {
        "chapter": values.get("chapter", "03_attention_maps"),
        "profile": {
            "name": values.get("name", "laptop"),
            "values": {
                "backbone": values.get("backbone", "tiny"),
                "attention": {"images": values.get("images", 3)},
                "ablation": {"images": 4},
            },
        },
        "device": {"name": values.get("device", "CPU"), "type": "cpu", "cores": 2, "system": "Linux"},
        "code": code,
        "started": "2025-01-01T00:00:00+00:00",
        "wall_seconds": 3.0,
        "peak_memory_mib": 100,
    }


TAGS = set(re.findall(r"<(\w+)", rendered(banner(manifest()))))


@settings(max_examples=150, deadline=None)
@given(TEXT)
@example("a\n\n# b")
def test_a_literal_is_shown_as_it_is(text: str) -> None:
    page = rendered(f"before {literal(text)} after")
    assert words(page) == re.sub(r"\s+", "", f"before{text}after")
    assert set(re.findall(r"<(\w+)", page)) <= {"p", "main", "div"}


@settings(max_examples=100, deadline=None)
@given(TEXT)
def test_code_in_a_line_is_shown_as_it_is(text: str) -> None:
    page = rendered(f"before {inline_code(text)} after")
    assert words(page) == re.sub(r"\s+", "", f"before{text}after")
    assert set(re.findall(r"<(\w+)", page)) <= {"p", "main", "div", "code", "tt", "span"}


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(["name", "backbone", "images", "device", "version", "commit"]), TEXT)
def test_no_value_of_a_manifest_adds_markup_to_its_page(key: str, text: str) -> None:
    page = rendered(banner(manifest(**{key: text})) + "\n\nthe next paragraph")
    assert set(re.findall(r"<(\w+)", page)) <= TAGS | {"p", "code", "tt", "span", "main", "div"}
    assert page.count("admonition") == rendered(banner(manifest()) + "\n\nx").count("admonition")
    shown = text[:9] if key == "commit" else text
    assert re.sub(r"\s+", "", shown) in words(page)


@pytest.mark.parametrize(
    ("chapter", "told"),
    [("03_x", "tiny; 3 images for attention)"), ("04_x", "tiny; 4 images for ablation)"), ("13_x", "(tiny)")],
)
def test_a_page_names_only_the_images_that_its_chapter_takes(chapter: str, told: str) -> None:
    assert told in banner(manifest(chapter=chapter))


@pytest.mark.parametrize("text", HOSTILE)
def test_names_of_data_add_no_html_to_tables(text: str) -> None:
    page = rendered(
        tables.frame_table(pd.DataFrame({"name": [text], "n": [1]}), {"name": "recording", "n": "n"})
    )
    assert not re.search(r'<img|<b>|href="javascript:', page)
    assert len(re.findall("<td", page)) == 2
    styled = tables.shown(pd.DataFrame({"name": [text], text: [1.0]}), {text: ".2f"}, caption=text).to_html()
    body = styled.partition("</style>")[2]
    assert not re.search(r"<(img|b|script|!--)", body)
    assert html.escape(text) in body
