"""What the checks of the built book look for in a page's HTML: anchors that lead nowhere, images without a text,
tables with an artefact's own column names."""

from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlparse


class Page(HTMLParser):
    """The ids, links, images and table headings of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.headings: list[str] = []
        self._in_heading = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.ids |= {value for key in ("id", "name") if (value := values.get(key))}
        if tag == "a" and values.get("href"):
            self.links.append(values["href"])
        elif tag == "img":
            self.images.append(values)
        elif tag == "th":
            self._in_heading = True
            self.headings.append("")

    def handle_endtag(self, tag: str) -> None:
        if tag == "th":
            self._in_heading = False

    def handle_data(self, data: str) -> None:
        if self._in_heading:
            self.headings[-1] += data


def broken_links(folder: Path) -> list[str]:
    """Links between a folder's pages whose page or anchor is not there."""
    pages = {path: Page(path.read_text(encoding="utf-8")) for path in sorted(folder.rglob("*.html"))}
    broken = []
    for path, page in pages.items():
        for link in page.links:
            parts = urlparse(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not target.exists():
                broken.append(f"{path.name}: {link} is no file")
            elif parts.fragment and target in pages and not _has(pages[target], unquote(parts.fragment)):
                broken.append(f"{path.name}: {link} has no such anchor")
    return broken


def images_without_text(text: str) -> list[str]:
    """Images that tell nothing to those who cannot see them: no alt text, or one that is only a file's name."""
    images = Page(text).images
    silent = [
        image for image in images if image.get("aria-hidden") != "true" and not _tells(image.get("alt"))
    ]
    return [str(image.get("src"))[:80] for image in silent]


def raw_headings(text: str) -> list[str]:
    """Headings of tables that are names for code, not for readers: words joined by an underscore."""
    found = [heading.strip() for heading in Page(text).headings]
    return [heading for heading in found if "_" in heading and heading.isidentifier()]


def _has(page: Page, anchor: str) -> bool:
    return anchor in page.ids or anchor in ("", "top")


def _tells(alt: str | None) -> bool:
    return alt == "" or (alt is not None and " " in alt.strip() and not alt.endswith((".png", ".svg")))
