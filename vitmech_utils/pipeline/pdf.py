"""The built book as one PDF, by the browser's print: every page, nothing folded, wide tables as wide as the paper.

A page of its own is made first, all articles one after the other with links between them; the browser prints that.
"""

import re
import shutil
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlparse

from bs4 import BeautifulSoup, Tag

from vitmech_utils.artefacts import write_atomically
from vitmech_utils.pipeline.stage import toc_files
from vitmech_utils.runs.manifests import RunError

NAME = "what-attention-heads-do.pdf"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
PAPER = {"format": "A4", "margin": {"top": "16mm", "bottom": "18mm", "left": "15mm", "right": "15mm"}}
WIDTH = 680
"""Pixels between the margins: 180 mm at 96 a inch."""
OVERLEAF = '<div class="overleaf"></div>'
OFFER = re.compile(r'<p id="book-pdf"[^>]*>.*?</p>', re.DOTALL)
FOOT = (
    '<div style="width: 100%; text-align: center; font-size: 8px"><span class="pageNumber"></span> of '
    '<span class="totalPages"></span></div>'
)
# What is wider than the paper is made smaller as a whole; figures keep their own rule.
FIT = """
(width) => {
  const boxes = [...document.querySelectorAll("table, mjx-container[display=true], .vm-picker")];
  for (let turn = 0; turn < 4; turn++)  // what is smaller may break its lines elsewhere
    for (const box of boxes) {
      const needed = box.getBoundingClientRect().width;
      if (needed > width) box.style.zoom = (Number(box.style.zoom) || 1) * width / needed * 0.99;
    }
}
"""


def print_book(root: Path, html: Path) -> Path:
    """Print a built book's folder into one PDF beside its pages, and offer it on the opening page; returns the file.

    Raises `RunError` where the book is not built, or where there is no browser, or none that can print.
    """
    pages = [page for page in toc_files(root) if (html / f"{page}.html").is_file()]
    if not pages:
        raise RunError(f"{html}: no book was built there; run `vitmech book` first")
    whole = html / "whole-book.html"
    target = html / NAME
    try:
        write_atomically(whole, lambda path: path.write_text(one_page(html, pages), encoding="utf-8"))
        write_atomically(target, lambda path: _print(whole, path))
    finally:
        whole.unlink(missing_ok=True)
    _offer(html, pages[0], target)
    return target


def one_page(html: Path, pages: list[str]) -> str:
    """All pages' articles as one page at the folder's root: details open, no script but that of formulas, ids apart."""
    anchors = {page: f"page-{number}" for number, page in enumerate(pages)}
    articles, head = [], ""
    for page in pages:
        soup = BeautifulSoup((html / f"{page}.html").read_text(encoding="utf-8"), "html.parser")
        article = soup.find("article", class_="bd-article")
        if article is None:
            raise RunError(
                f"{html / page}.html: it holds no article, so it is no page of this book; build it again"
            )
        head = head or _head(soup, page)
        _unfold(article)
        _point_within(article, page, anchors)
        article.name, article["id"] = "section", anchors[page]
        article["class"] = ["bd-article", "book-page"]
        articles.append(str(article))
    return (
        f'<!DOCTYPE html><html lang="en" data-theme="light" data-mode="light"><head><meta charset="utf-8">'
        f"<title>What attention heads do</title>{head}<style>{STYLE}</style></head>"
        '<body><main class="bd-content"><div class="bd-article-container">'
        f"{OVERLEAF.join(articles)}</div></main></body></html>"
    )


STYLE = f"""
body {{ width: {WIDTH}px; margin: 0 auto; display: block; }}
.bd-content, .bd-article-container {{ display: block; max-width: none; width: auto; padding: 0; overflow: visible; }}
.book-page {{ display: block; padding: 0; }}
.overleaf {{ break-after: page; }}
.bd-content .bd-article :is(h1, h2, h3) {{ break-after: auto; }}
.headerlink, .copybtn, .toggle-button {{ display: none; }}
.bd-content table {{ display: table; width: auto; max-width: none; }}
.bd-content .bd-article :is(.cell_output, .output, .pst-scrollable-table-container, pre, figure) {{
  overflow: visible;
}}
.bd-content img {{ max-width: 100%; height: auto; }}
"""


def _head(soup: BeautifulSoup, page: str) -> str:
    """The styles of a page, and what sets its formulas, with addresses as from the book's root."""
    kept = []
    for tag in soup.find_all(["link", "script"]):
        text = tag.string or ""
        if tag.name == "link" and "stylesheet" in (tag.get("rel") or []):
            tag["href"] = _from_root(tag["href"], page)
        elif tag.name == "script" and "mathjax" in (tag.get("src") or ""):
            tag["src"] = _from_root(tag["src"], page)
        elif tag.name != "script" or "MathJax" not in text or tag.get("src"):
            continue
        kept.append(str(tag))
    return "".join(kept)


def _unfold(article: Tag) -> None:
    for tag in article.find_all(["details"]):
        tag["open"] = ""
    for tag in article.find_all("script"):
        tag.decompose()
    for tag in article.find_all("noscript"):
        tag.unwrap()


def _point_within(article: Tag, page: str, anchors: dict[str, str]) -> None:
    """Prefix ids with their page's, and let links between pages point at them; images keep pointing at their files."""
    prefix = anchors[page]
    for tag in article.find_all(True):
        for name in ("id", "for", "aria-labelledby", "aria-describedby", "aria-controls", "headers"):
            if tag.get(name):
                words = tag[name] if isinstance(tag[name], list) else tag[name].split()
                tag[name] = " ".join(f"{prefix}-{word}" for word in words)
        if tag.get("src") and not urlparse(tag["src"]).scheme:
            tag["src"] = _from_root(tag["src"], page)
        if tag.name == "a" and tag.get("href"):
            tag["href"] = _within(tag["href"], page, anchors)


def _within(address: str, page: str, anchors: dict[str, str]) -> str:
    parts = urlparse(address)
    if parts.scheme or parts.netloc:
        return address
    target = page if not parts.path else _from_root(unquote(parts.path), page).removesuffix(".html")
    if target in anchors:
        return f"#{anchors[target]}-{unquote(parts.fragment)}" if parts.fragment else f"#{anchors[target]}"
    return _from_root(address, page)


def _from_root(address: str, page: str) -> str:
    """An address in a page, as from the folder that holds the whole book."""
    path, mark, rest = re.match(r"([^?#]*)([?#]?)(.*)", address, re.DOTALL).groups()
    parts: list[str] = []
    for part in (PurePosixPath(page).parent / path).parts:
        if part == "..":
            parts = parts[:-1]
        else:
            parts.append(part)
    return f"{'/'.join(parts)}{mark}{rest}"


def _print(source: Path, target: Path) -> None:
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        raise RunError("no browser prints the book: install Chromium (`make browser` says how)")
    try:
        from playwright.sync_api import Error, sync_playwright
    except ImportError as error:
        raise RunError(
            "playwright is not installed, by which the browser is asked to print: `make env`"
        ) from error
    arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    try:
        with sync_playwright() as driver:
            chromium = driver.chromium.launch(executable_path=browser, args=arguments)
            page = chromium.new_context(offline=True, viewport={"width": WIDTH, "height": 1000}).new_page()
            page.set_default_timeout(300_000)
            page.goto(source.as_uri(), wait_until="load")
            page.emulate_media(media="print")
            ready(page)
            page.pdf(path=target, print_background=True, outline=True, tagged=True, display_header_footer=True,
                     header_template="<span></span>", footer_template=FOOT, **PAPER)  # fmt: skip
            chromium.close()
    except Error as error:
        raise RunError(f"the browser did not print the book: {str(error).splitlines()[0]}") from error


def ready(page: object) -> None:
    """Wait until a page's formulas are set, then make what is wider than the paper fit."""
    page.evaluate("window.MathJax && MathJax.startup ? MathJax.startup.promise.then(() => true) : true")
    page.evaluate("document.fonts.ready.then(() => true)")
    page.evaluate(FIT, WIDTH)


def _offer(html: Path, opening: str, file: Path) -> None:
    """Write the link to the PDF into the place that the opening page keeps for it."""
    page = html / f"{opening}.html"
    up = "../" * opening.count("/")
    size = f"{file.stat().st_size / 1e6:.0f} MB"
    link = f'<p id="book-pdf"><a href="{up}{file.name}">The whole book as one PDF</a> ({size})</p>'
    text = OFFER.sub(link, page.read_text(encoding="utf-8"))
    write_atomically(page, lambda path: path.write_text(text, encoding="utf-8"))
