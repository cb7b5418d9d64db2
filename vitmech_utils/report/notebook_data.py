"""What the pickers of one page or notebook share; importing it asks for nothing that draws or computes."""

import json
import re
from collections.abc import Iterable

_CHUNK = re.compile(r'<script type="text/plain" data-vm-chunk="([0-9a-f]+)">[^<]*</script>\n?')
_WIDGET_MIME = "application/vnd.jupyter.widget-view+json"


def share_chunks(pages: Iterable[str]) -> list[str]:
    """Return the HTML fragments of one page in order, without the data chunks that an earlier fragment carries."""
    seen: set[str] = set()

    def keep_first(match: re.Match) -> str:
        known = match[1] in seen
        seen.add(match[1])
        return "" if known else match[0]

    return [_CHUNK.sub(keep_first, page) for page in pages]


def share_notebook_data(notebook: dict) -> int:
    """Make an executed notebook's pickers ready for static pages, in place; return the number of characters saved.

    Repeated data chunks are dropped, and so are the live views and their saved state where a picker's HTML stands
    beside them: without a kernel, JupyterLab then shows the HTML picker instead of an error.
    """
    before = len(json.dumps(notebook))
    bundles = [
        output["data"]
        for cell in notebook["cells"]
        for output in cell.get("outputs", [])
        if "data-vm-host" in "".join(output.get("data", {}).get("text/html", ""))
    ]
    for bundle, page in zip(bundles, share_chunks("".join(b["text/html"]) for b in bundles), strict=True):
        bundle["text/html"] = page
        view = bundle.pop(_WIDGET_MIME, None)
        states = notebook["metadata"].get("widgets", {}).get("application/vnd.jupyter.widget-state+json", {})
        if view:
            states.get("state", {}).pop(view["model_id"], None)
    return before - len(json.dumps(notebook))
