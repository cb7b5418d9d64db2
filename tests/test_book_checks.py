"""The built book, page by page: links and anchors, image texts, tables, and axe-core in light, dark and on a phone."""

from pathlib import Path

import pytest
from conftest import NEEDS_BROWSER
from page_checks import broken_links, images_without_text, raw_headings
from small_book import ROOT
from test_book import PAGES

pytest.importorskip("playwright.sync_api")
AXE = ROOT / "tests" / "vendor" / "axe-core" / "axe.min.js"
VIEWS = {"light": (1280, "light"), "phone in the dark": (360, "dark")}
PAGE = "<html lang=en><title>A page</title><main><h1 id=top-of-it>A page</h1>{}</main></html>"


def violations(browser: object, path: Path, width: int, theme: str) -> list[tuple[str, list[str]]]:
    """What axe-core objects to on a page, each with up to three places."""
    context = browser.new_context(
        offline=True, viewport={"width": width, "height": 900}, reduced_motion="reduce"
    )
    context.set_default_timeout(120_000)
    context.add_init_script(
        f"localStorage.setItem('mode', '{theme}'); localStorage.setItem('theme', '{theme}')"
    )
    page = context.new_page()
    page.goto(path.as_uri())
    page.wait_for_load_state("load")
    page.wait_for_timeout(1200)  # the theme fades its colours in; half faded they lack contrast
    page.evaluate(AXE.read_text(encoding="utf-8"))
    report = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    context.close()
    return [(one["id"], [node["html"][:120] for node in one["nodes"][:3]]) for one in report["violations"]]


@pytest.mark.pipeline
@pytest.mark.slow
def test_every_link_within_the_book_leads_somewhere(built_book: Path) -> None:
    assert broken_links(built_book) == []


@pytest.mark.pipeline
@pytest.mark.slow
@pytest.mark.parametrize("name", PAGES)
def test_every_image_tells_what_it_shows(built_book: Path, name: str) -> None:
    assert images_without_text((built_book / f"{name}.html").read_text(encoding="utf-8")) == []


@pytest.mark.pipeline
@pytest.mark.slow
@pytest.mark.parametrize("name", PAGES)
def test_tables_are_headed_in_words(built_book: Path, name: str) -> None:
    assert raw_headings((built_book / f"{name}.html").read_text(encoding="utf-8")) == []


@NEEDS_BROWSER
@pytest.mark.browser
@pytest.mark.pipeline
@pytest.mark.slow
@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("name", PAGES)
def test_axe_finds_nothing(browser: object, built_book: Path, name: str, view: str) -> None:
    assert violations(browser, built_book / f"{name}.html", *VIEWS[view]) == []


def test_a_planted_dead_link_is_found(tmp_path: Path) -> None:
    (tmp_path / "other.html").write_text(PAGE.format("<p id=here>"))
    good = "<a href=other.html#here></a><a href=#top-of-it></a><a href='https://example.org/#x'></a>"
    (tmp_path / "page.html").write_text(PAGE.format(good))
    assert broken_links(tmp_path) == []
    bad = "<a href=nowhere.html></a><a href=other.html#gone></a><a href=#gone></a>"
    (tmp_path / "page.html").write_text(PAGE.format(bad))
    assert len(broken_links(tmp_path)) == 3


@pytest.mark.parametrize(
    ("image", "silent"),
    [
        ("<img src=a.png>", 1),
        ("<img src=a.png alt=a.png>", 1),
        ("<img src=a.png alt=image>", 1),
        ("<img src=a.png alt='Effects of heads by layer.'>", 0),
        ("<img src=a.png alt=''>", 0),  # a decoration, and said so
    ],
)
def test_a_planted_silent_image_is_found(image: str, silent: int) -> None:
    assert len(images_without_text(PAGE.format(image))) == silent


def test_a_planted_raw_heading_is_found() -> None:
    table = "<table><tr><th>q_value</th><th>95 % from</th></tr><tr><td>an_id</td></tr></table>"
    assert raw_headings(PAGE.format(table)) == ["q_value"]


@NEEDS_BROWSER
@pytest.mark.browser
@pytest.mark.parametrize(
    ("planted", "rule"),
    [
        ("<p>Fine.</p>", None),
        ("<img src='data:image/png;base64,'>", "image-alt"),
        ("<p style='color: #999; background: #fff'>Too faint to read.</p>", "color-contrast"),
        ("<button></button>", "button-name"),
    ],
)
def test_axe_finds_a_planted_defect(browser: object, tmp_path: Path, planted: str, rule: str | None) -> None:
    (tmp_path / "page.html").write_text(PAGE.format(planted))
    found = [name for name, _ in violations(browser, tmp_path / "page.html", *VIEWS["light"])]
    assert found == ([rule] if rule else [])
