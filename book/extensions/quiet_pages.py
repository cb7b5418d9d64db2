"""Sphinx extension: drop the live-code scripts that the theme's sphinx-thebe puts on every page.

They only prepare a button that this book does not offer, and they name an address outside.
"""

from docutils import nodes
from sphinx.application import Sphinx


def drop_scripts(
    app: Sphinx, pagename: str, templatename: str, context: dict, doctree: nodes.document | None
) -> None:
    """Keep every script and style of the page but sphinx-thebe's."""
    for kind in ("script_files", "css_files"):
        context[kind] = [asset for asset in context.get(kind, []) if not _is_thebe(asset)]


def drop_settings(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Remove the settings that sphinx-thebe appends to a page's body."""
    for node in list(doctree.findall(nodes.raw)):
        text = node.astext()
        if "x-thebe-config" in text or text.startswith("<script>kernelName"):
            node.parent.remove(node)


def setup(app: Sphinx) -> dict[str, bool]:
    """Register after sphinx-thebe, so that there is something to drop."""
    app.connect("html-page-context", drop_scripts, priority=900)
    app.connect("doctree-resolved", drop_settings, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _is_thebe(asset: object) -> bool:
    body = (getattr(asset, "attributes", None) or {}).get("body") or ""
    return "thebe" in str(getattr(asset, "filename", asset) or "") or "THEBE" in body
