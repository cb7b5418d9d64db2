"""Sphinx extension: show every PNG as large as it was drawn, whatever its number of pixels.

Figures have twice the pixels of a plain screen, so that they are sharp on a dense one. A PNG says itself how many of
its pixels make an inch (its pHYs chunk); on a page an inch is 100 pixels.
"""

import re
import struct
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

PER_INCH = 100
INCHES_PER_METRE = 1 / 0.0254
IMAGE = re.compile(r'<img (?![^>]*\b(?:width|style)=)([^>]*?\bsrc="[^"]*?_images/([^"/]+\.png)"[^>]*)>')


def shown_width(png: bytes) -> int | None:
    """Width of a PNG on a page, in the page's pixels; None where it does not say how dense it is, or is no PNG."""
    if png[:8] != b"\x89PNG\r\n\x1a\n" or len(png) < 33:
        return None
    width, place = struct.unpack(">I", png[16:20])[0], 8
    while place + 21 <= len(png):
        length, kind = struct.unpack(">I4s", png[place : place + 8])
        if kind == b"IDAT":
            break
        if kind == b"pHYs":
            per_metre, _, unit = struct.unpack(">IIB", png[place + 8 : place + 17])
            return round(width * PER_INCH * INCHES_PER_METRE / per_metre) if unit == 1 and per_metre else None
        place += 12 + length
    return None


def set_widths(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    """Give the pictures of a page's text their widths."""
    sources = {name: path for path, name in getattr(app.builder, "images", {}).items()}

    def widened(found: re.Match[str]) -> str:
        path = Path(app.srcdir) / sources.get(found[2], found[2])
        width = shown_width(path.read_bytes()) if path.is_file() else None
        return f'<img width="{width}" {found[1]}>' if width else found[0]

    context["body"] = IMAGE.sub(widened, context.get("body", ""))


def setup(app: Sphinx) -> dict[str, bool]:
    """Set the widths once a page's text is there."""
    app.connect("html-page-context", set_widths)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
