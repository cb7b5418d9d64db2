"""The book as one PDF: everything open, nothing wider than the paper, links that stay within it."""

import re
import shutil
from pathlib import Path

import pytest
from bs4 import BeautifulSoup
from conftest import NEEDS_BROWSER, vitmech
from small_book import ROOT

from vitmech_utils.pipeline import pdf
from vitmech_utils.pipeline.stage import toc_files
from vitmech_utils.runs.manifests import RunError

PAGE = """<html><head><link rel="stylesheet" href="../_static/a.css"/><script src="../_static/other.js"></script>
<script>window.MathJax = {{}}</script><script src="../_static/mathjax/tex.js?v=1"></script></head><body>
<article class="bd-article">{}</article></body></html>"""


@pytest.fixture
def two_pages(tmp_path: Path) -> Path:
    for name, text in {
        "book/intro": '<h1 id="top">One</h1><a href="../notebooks/01.html#part">there</a><a href="#top">up</a>'
        '<a href="https://example.org/x#y">out</a><a href="../notebooks/01.html">whole</a>'
        '<a href="../genindex.html">index</a><p id="book-pdf" hidden></p>',
        "notebooks/01": '<h1 id="top">Two</h1><div id="part" aria-labelledby="top other">x</div>'
        '<img src="../_images/a.png"/><img src="data:image/png;base64,AA=="/>'
        "<details><summary>s</summary>hidden</details><script>alert(1)</script><noscript><b>still</b></noscript>",
    }.items():
        path = tmp_path / f"{name}.html"
        path.parent.mkdir(exist_ok=True)
        path.write_text(PAGE.format(text), encoding="utf-8")
    return tmp_path


def test_pages_become_one_whose_links_and_ids_stay_apart(two_pages: Path) -> None:
    soup = BeautifulSoup(pdf.one_page(two_pages, ["book/intro", "notebooks/01"]), "html.parser")
    ids = [tag["id"] for tag in soup.find_all(id=True)]
    assert sorted(ids) == sorted({*ids})
    addresses = [tag["href"] for tag in soup.find_all("a")]
    assert addresses == ["#page-1-part", "#page-0-top", "https://example.org/x#y", "#page-1", "genindex.html"]
    assert all(address[1:] in ids for address in addresses if address.startswith("#"))
    assert soup.find("div", id="page-1-part")["aria-labelledby"] == "page-1-top page-1-other"
    assert [tag["src"] for tag in soup.find_all("img")] == ["_images/a.png", "data:image/png;base64,AA=="]
    assert [tag["href"] for tag in soup.find_all("link")] == ["_static/a.css"]


def test_nothing_is_folded_and_no_script_but_that_of_formulas_stays(two_pages: Path) -> None:
    soup = BeautifulSoup(pdf.one_page(two_pages, ["book/intro", "notebooks/01"]), "html.parser")
    assert all(tag.has_attr("open") for tag in soup.find_all("details"))
    assert [tag.get("src") for tag in soup.find_all("script")] == [None, "_static/mathjax/tex.js?v=1"]
    assert soup.find("noscript") is None
    assert soup.find("b").text == "still"


def test_a_page_without_an_article_is_refused(two_pages: Path) -> None:
    (two_pages / "book" / "intro.html").write_text("<html></html>")
    with pytest.raises(RunError, match=r"book/intro\.html"):
        pdf.one_page(two_pages, ["book/intro"])


def test_a_book_that_is_not_built_is_refused(small: Path) -> None:
    done = vitmech("pdf", root=small)
    assert done.returncode == 1
    assert "no book was built there" in done.stderr


def test_without_a_browser_nothing_is_left_behind(two_pages: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (two_pages / "_toc.yml").write_text("format: jb-book\nroot: book/intro\n")
    monkeypatch.setattr(pdf, "BROWSERS", ("no-such-browser",))
    before = sorted(two_pages.rglob("*"))
    with pytest.raises(RunError, match="install Chromium"):
        pdf.print_book(two_pages, two_pages)
    assert sorted(two_pages.rglob("*")) == before


@NEEDS_BROWSER
@pytest.mark.browser
@pytest.mark.pipeline
@pytest.mark.slow
def test_the_book_is_printed_whole_and_offered_on_the_opening_page(
    built_book: Path, browser: object, tmp_path: Path
) -> None:
    html = shutil.copytree(built_book, tmp_path / "html")
    opening = (html / "book" / "intro.html").read_text(encoding="utf-8")
    assert '<p id="book-pdf" hidden></p>' in opening
    done = vitmech("pdf", "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    file = html / pdf.NAME
    data = file.read_bytes()
    assert data.startswith(b"%PDF")
    assert len(re.findall(rb"/Type\s*/Page\b", data)) > 5 * len(toc_files(ROOT))
    assert not (html / "whole-book.html").exists()
    assert f'href="../{file.name}"' in (html / "book" / "intro.html").read_text(encoding="utf-8")

    whole = html / "whole-book.html"
    whole.write_text(pdf.one_page(html, toc_files(ROOT)), encoding="utf-8")
    page = browser.new_context(offline=True, viewport={"width": pdf.WIDTH, "height": 1000}).new_page()
    page.set_default_timeout(300_000)
    page.goto(whole.as_uri(), wait_until="load")
    page.emulate_media(media="print")
    pdf.ready(page)
    closed, hidden = page.evaluate(
        "[[...document.querySelectorAll('details:not([open])')].length,"
        " [...document.querySelectorAll('details > :not(summary)')].filter(e => !e.getClientRects().length"
        " && e.textContent.trim() && !e.closest('.vm-picker')).length]"
    )
    assert (closed, hidden) == (0, 0)
    assert page.evaluate("document.querySelectorAll('mjx-container').length") > 50
    assert page.evaluate("document.querySelectorAll('mjx-merror').length") == 0
    assert (
        page.evaluate("[...document.images].filter(image => !image.naturalWidth).map(image => image.src)")
        == []
    )
    tables = "[...document.querySelectorAll('table, .vm-picker')].map(t => t.getBoundingClientRect().width)"
    widths = page.evaluate(tables)
    assert len(widths) > 20
    assert max(widths) <= pdf.WIDTH + 1
    lost = page.evaluate(
        "[...document.querySelectorAll('a[href^=\"#\"]')].map(a => a.getAttribute('href').slice(1))"
        ".filter(id => id && !document.getElementById(id))"
    )
    assert lost == []
    page.close()
