"""Sphinx extension: mend what keeps a keyboard or a screen reader from parts of a page.

The theme and its partners leave roles that do not fit, labels that hide the text they stand on, empty table headers,
and boxes that scroll under a pointer alone.
"""

import re

from docutils import nodes
from sphinx.application import Sphinx

# In the page's own text: what to find, and what to put in its place.
MENDED = (
    (re.compile(r'<summary aria-label="Toggle hidden content">'), "<summary>"),
    (re.compile(r' role="doc-biblioentry"'), ""),
    (re.compile(r'<div role="list" class="citation-list">'), '<div class="citation-list">'),
    (re.compile(r"<th\b([^>]*)>((?:\s|&nbsp;|<p>|</p>)*)</th>"), r"<td\1>\2</td>"),
)
# In the theme's frame, and what depends on the window's width.
SCRIPT = """
document.addEventListener("DOMContentLoaded", () => {
  document.getElementById("pst-primary-sidebar")?.setAttribute("role", "navigation");
  document.getElementById("pst-primary-sidebar")?.setAttribute("aria-label", "Book");
  for (const button of document.querySelectorAll(".search-button__button"))
    if (button.textContent.trim()) button.removeAttribute("aria-label");
  document.querySelectorAll(".theme-switch-button").forEach((button) => {
    button.setAttribute("aria-label", "Colour mode");
    button.querySelectorAll("[title]").forEach((icon) => icon.removeAttribute("title"));
    button.querySelectorAll("title").forEach((title) => title.remove());  // icons that were drawn already
  });
  const boxes = ".cell_output, section > figure, .pst-scrollable-table-container, pre";
  const scrollers = document.querySelectorAll(`.bd-content :is(${boxes})`);
  new ResizeObserver(() => {
    for (const box of scrollers) box.tabIndex = box.scrollWidth > box.clientWidth ? 0 : -1;
  }).observe(document.documentElement);
});
// Paper cannot be unfolded: what is closed opens for the print, and closes behind it.
let opened = [];
addEventListener("beforeprint", () => {
  opened = [...document.querySelectorAll(".bd-content details:not([open])")];
  opened.forEach((fold) => fold.setAttribute("open", ""));
});
addEventListener("afterprint", () => opened.forEach((fold) => fold.removeAttribute("open")));
"""


def mend_body(
    app: Sphinx, pagename: str, templatename: str, context: dict, doctree: nodes.document | None
) -> None:
    """Mend a page's text before it is put into the theme's frame."""
    for found, put in MENDED:
        context["body"] = found.sub(put, context.get("body", ""))


def setup(app: Sphinx) -> dict[str, bool]:
    """Mend every page's text, and give each the script for the rest."""
    app.connect("html-page-context", mend_body)
    app.add_js_file(None, body=SCRIPT)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
