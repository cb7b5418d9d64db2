"""The built book in a real browser: from disk, with the network off."""

import json
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlparse

import pytest
from conftest import NEEDS_BROWSER, vitmech
from small_book import ROOT

from vitmech_utils.pipeline.stage import toc_files

pytest.importorskip("playwright.sync_api")
PAGES = [*toc_files(ROOT), "genindex", "search"]
LIMIT_BYTES = 6 * 1024**2
pytestmark = [pytest.mark.pipeline, pytest.mark.slow]


class Addresses(HTMLParser):
    """Collect what a page loads (src, stylesheets) and what it links to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loaded, self.linked = [], []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag == "link" and values.get("rel") in ("stylesheet", "icon", "preload"):
            self.loaded.append(values.get("href") or "")
        elif tag == "a":
            self.linked.append(values.get("href") or "")
        if values.get("src"):
            self.loaded.append(values["src"])


@pytest.fixture
def visit(browser: object, built_book: Path) -> Iterator[object]:
    """Open a page of the book from disk, offline, and record every complaint."""
    context = browser.new_context(offline=True, viewport={"width": 1280, "height": 900})
    context.set_default_timeout(120_000)  # a busy machine is no defect of the page

    def open_page(name: str) -> object:
        page = context.new_page()
        page.complaints = []
        page.on("pageerror", lambda error: page.complaints.append(f"error: {error}"))
        page.on(
            "console", lambda m: page.complaints.append(f"console: {m.text}") if m.type == "error" else None
        )
        page.on(
            "requestfailed",
            # A page that is left while its icon still loads gives that up; a file that is not there fails otherwise.
            lambda request: (
                None
                if request.failure == "net::ERR_ABORTED"
                else page.complaints.append(f"failed: {request.url[:200]} ({request.failure})")
            ),
        )
        page.on(
            "request",
            lambda request: (
                None
                if request.url.startswith(("file:", "data:", "blob:"))
                else page.complaints.append(f"outside: {request.url}")
            ),
        )
        page.goto((built_book / f"{name}.html").as_uri(), wait_until="load")
        return page

    yield open_page
    context.close()


@pytest.mark.parametrize("name", PAGES)
def test_what_a_page_loads_lies_beside_it(built_book: Path, name: str) -> None:
    path = built_book / f"{name}.html"
    assert path.stat().st_size <= LIMIT_BYTES
    text = path.read_text(encoding="utf-8")
    addresses = Addresses(text)
    for address in addresses.loaded:
        assert not urlparse(address).scheme or address.startswith("data:"), f"{name} loads {address[:200]}"
    for address in [*addresses.loaded, *addresses.linked]:
        parts = urlparse(address)
        if not parts.scheme and parts.path:
            assert (path.parent / unquote(parts.path)).exists(), (
                f"{name} points to {address}, which is not there"
            )
    assert "thebe" not in text.lower().replace("class=", "")


@NEEDS_BROWSER
@pytest.mark.browser
@pytest.mark.parametrize("name", PAGES)
def test_a_page_opens_without_a_complaint(visit: object, name: str) -> None:
    page = visit(name)
    assert any(text.strip() for text in page.locator("h1").all_inner_texts())
    page.wait_for_timeout(300)
    assert page.complaints == []
    assert page.evaluate(
        "document.images.length === [...document.images].filter(i => i.naturalWidth > 0).length"
    )
    page.set_viewport_size({"width": 360, "height": 740})
    page.wait_for_timeout(200)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360, (
        "the page scrolls sideways on a phone"
    )
    page.close()


@NEEDS_BROWSER
@pytest.mark.browser
@pytest.mark.parametrize("name", [page for page in PAGES if page.startswith("notebooks/")])
def test_a_chapter_tells_its_provenance_and_sets_its_formulas(visit: object, name: str) -> None:
    page = visit(name)
    banner = page.locator(".admonition.provenance")
    assert banner.count() == 1
    assert "quick run" in banner.inner_text().lower()
    formulas = page.locator("span.math, div.math").count()
    if formulas:
        page.wait_for_function("document.querySelectorAll('mjx-container').length > 0", timeout=120_000)
    assert page.locator("mjx-merror").count() == 0
    assert page.complaints == []


@NEEDS_BROWSER
@pytest.mark.browser
def test_the_picker_answers_a_click_and_a_key(visit: object) -> None:
    page = visit("notebooks/03_attention_maps")
    page.wait_for_selector(".vm-card")
    grid = page.get_by_role("grid").first
    cell = grid.get_by_role("gridcell", name="layer 4, head 3", exact=False).first
    cell.click()
    assert page.locator(".vm-name").first.inner_text() == "Layer 4 · head 3"
    page.keyboard.press("ArrowRight")
    assert page.locator(".vm-name").first.inner_text() != "Layer 4 · head 3"
    assert page.complaints == []


@NEEDS_BROWSER
@pytest.mark.browser
def test_a_reader_without_scripts_sees_a_picture_and_a_table(browser: object, built_book: Path) -> None:
    context = browser.new_context(offline=True, java_script_enabled=False)
    page = context.new_page()
    page.goto((built_book / "notebooks" / "03_attention_maps.html").as_uri())
    fallback = page.locator(".vm-picker").first
    assert fallback.locator("img").count() >= 1
    assert fallback.locator("table").count() >= 1
    context.close()


@NEEDS_BROWSER
@pytest.mark.browser
def test_printing_opens_what_is_folded_and_closes_it_again(visit: object, tmp_path: Path) -> None:
    page = visit("notebooks/04_head_ablation")
    count = "document.querySelectorAll('.bd-content details[open]').length"
    folds = page.evaluate("document.querySelectorAll('.bd-content details').length")
    page.evaluate(f"addEventListener('beforeprint', () => (window.printed = {count}))")
    page.pdf(path=tmp_path / "page.pdf")
    assert (page.evaluate("window.printed"), page.evaluate(count)) == (folds, 0)


@NEEDS_BROWSER
@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_page_opens_in_the_reader_s_own_light_or_dark(
    browser: object, built_book: Path, scheme: str
) -> None:
    context = browser.new_context(offline=True, color_scheme=scheme)
    page = context.new_page()
    page.goto((built_book / "book" / "intro.html").as_uri())
    assert page.evaluate("document.documentElement.dataset.theme") == scheme
    context.close()


@NEEDS_BROWSER
@pytest.mark.browser
def test_the_search_finds_a_word_offline(visit: object, built_book: Path) -> None:
    page = visit("search")
    page.goto((built_book / "search.html").as_uri() + "?q=ablation")
    page.wait_for_selector("#search-results li", timeout=120_000)
    assert page.complaints == []


def test_executed_notebooks_keep_a_picker_s_data_once(quick_run: Path) -> None:
    text = (quick_run / "03_attention_maps" / "03_attention_maps.ipynb").read_text(encoding="utf-8")
    assert "data-vm-host" in text
    assert "widget-view" not in text
    assert "widgets" not in json.loads(text)["metadata"]


def test_a_second_build_does_no_work(built_book: Path, quick_run: Path) -> None:
    before = (built_book / "index.html").stat().st_mtime_ns
    done = vitmech("book", "--run-dir", quick_run, "--out", built_book.parent)
    assert "up to date" in done.stdout
    assert (built_book / "index.html").stat().st_mtime_ns == before


def test_a_warning_fails_the_build_and_leaves_the_last_book(small: Path) -> None:
    assert vitmech("run", "all", root=small).returncode == 0
    done = vitmech("book", root=small)
    assert done.returncode == 0, done.stderr
    page = small / "book" / "_build" / "html" / "index.html"
    good = page.read_bytes()
    intro = small / "book" / "intro.md"
    intro.write_text(intro.read_text() + "\n[](nowhere.md)\n")
    done = vitmech("book", root=small)
    assert done.returncode == 1
    assert "nowhere.md" in done.stderr
    assert page.read_bytes() == good
