"""The picker as a page: self-contained HTML with its fallback, a PNG for viewers without scripts, and whole pages."""

import base64
import io
import secrets
from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from markupsafe import Markup
from matplotlib.colors import LinearSegmentedColormap, TwoSlopeNorm
from matplotlib.figure import Figure

from vitmech_utils.report.notebook_data import share_chunks
from vitmech_utils.report.picker.payload import Payload
from vitmech_utils.report.templating import render, script_json

HERE = Path(__file__).parent
# The middle is white: no effect, or attention as the area has it. The same colours as in picker.js.
_BLUE_ORANGE = LinearSegmentedColormap.from_list(
    "blue_orange",
    ["#0b3c6f", "#2f6fae", "#7fb2d8", "#c9dfee", "#f4f2ee", "#f6d2ab", "#e39a55", "#b75d17", "#6d2f04"],
)


def picker_html(payload: Payload, state: dict, png: str) -> str:
    """Return one `<div>` that needs nothing outside it: fallback, styles, state, data and code.

    `state` holds the traits (0-based), `png` is the fallback figure in base64.
    """
    spec = payload.spec
    page = render(
        "picker.html",
        host=f"vm-{secrets.token_hex(6)}",
        style=Markup((HERE / "picker.css").read_text(encoding="utf-8")),
        code=Markup((HERE / "picker.js").read_text(encoding="utf-8")),
        state={**state, "_spec": spec},
        chunks={key: base64.b64encode(data).decode() for key, data in payload.chunks.items()},
        title=spec["title"],
        alt=(
            f"Three panels: {spec['layers']} layers by {spec['heads']} heads; all heads' attention maps; "
            f"the map of layer {state['layer'] + 1}, head {state['head'] + 1} over "
            f"{spec['imageLabels'][state['image']]}."
        ),
        png=png,
        table=_table(spec),
    )
    return str(page)


def text_size(payload: Payload) -> int:
    """Bytes of a picker's texts in its page: the JSON that its code reads, and the table of the static form."""
    return len(script_json(payload.spec)) + len(_table(payload.spec).encode())


def page_html(pickers: Sequence[str], title: str) -> str:
    """Return a complete HTML page with several pickers' HTML, each chunk of data kept once."""
    page = render("page.html", title=title, pickers=[Markup(each) for each in share_chunks(pickers)])
    return f"{page}\n"


def fallback_png(payload: Payload, state: dict) -> bytes:
    """Draw the static figure: the grid of heads, all heads' maps on the image, and the picked head's map over it."""
    spec, layer, head, image = payload.spec, state["layer"], state["head"], state["image"]
    maps = payload.maps[max(state["twin"], 0), max(state["variant"], 0), image]
    picture = payload.images[max(state["twin"], 0), image]
    figure = Figure(figsize=(12, 4.3), dpi=100, facecolor="white", layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    _draw_grid(figure, left, spec, state.get("measure"))
    left.add_patch(plt.Rectangle((head + 0.5, layer + 0.5), 1, 1, fill=False, edgecolor="black", linewidth=2))
    tops = maps.max(axis=(2, 3), keepdims=True)
    mosaic = np.pad(
        maps / np.where(tops > 0, tops, 1), ((0, 0), (0, 0), (0, 2), (0, 2)), constant_values=np.nan
    )
    mosaic = mosaic.transpose(0, 2, 1, 3).reshape(mosaic.shape[0] * mosaic.shape[2], -1)
    extent = (0.5, spec["heads"] + 0.5, spec["layers"] + 0.5, 0.5)
    middle.imshow(mosaic, cmap="cividis", extent=extent, aspect="auto", interpolation="nearest")
    middle.set(title="all maps, each on its own scale", xlabel="head", yticks=_layer_ticks(spec))
    height, width = picture.shape[:2]
    right.imshow(picture.mean(axis=2), cmap="gray", vmin=0, vmax=255)
    extent = (0, width, height, 0)
    shown = right.imshow(
        maps[layer, head] * 100, cmap="cividis", alpha=0.65, extent=extent, interpolation="nearest"
    )
    right.set(
        title=f"layer {layer + 1}, head {head + 1} on {_plain(spec['imageLabels'][image])}",
        xticks=[],
        yticks=[],
    )
    figure.colorbar(shown, ax=right, label="attention per patch (%)", shrink=0.8)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _draw_grid(figure: Figure, axes, spec: dict, key: str | None) -> None:
    axes.set(xlabel="head", ylabel="layer", yticks=_layer_ticks(spec))
    extent = (0.5, spec["heads"] + 0.5, spec["layers"] + 0.5, 0.5)
    measures = sorted(
        spec["measures"], key=lambda measure: measure["key"] != key
    )  # the chosen one, else the first
    if not measures or not any(value is not None for value in measures[0]["values"]):
        axes.set(title="heads", xlim=extent[:2], ylim=extent[2:])
        return
    measure = measures[0]
    values = np.array(measure["values"], dtype=float).reshape(spec["layers"], spec["heads"])
    options: dict = {"cmap": "viridis"}
    if measure["kind"] in ("diverging", "log"):
        values = np.log2(np.maximum(values, 1e-6)) if measure["kind"] == "log" else values
        limit = max(float(np.nanquantile(np.abs(values), 0.98)), 1e-9)
        options = {"cmap": _BLUE_ORANGE, "norm": TwoSlopeNorm(0, -limit, limit)}
    shown = axes.imshow(values, extent=extent, aspect="auto", **options)
    unit = "log2" if measure["kind"] == "log" else measure["unit"]
    axes.set_title(_plain(measure["label"]))
    figure.colorbar(shown, ax=axes, label=_plain(unit))


def _layer_ticks(spec: dict) -> range:
    return range(1, spec["layers"] + 1, 1 if spec["layers"] <= 12 else 3)


def _plain(text: str) -> str:
    """Keep matplotlib from reading dollar signs of a label as mathematics."""
    return text.replace("$", r"\$")


def _table(spec: dict) -> Markup:
    columns: list[tuple[str, list]] = []
    for measure in spec["measures"]:
        columns.append((f"{measure['label']} ({measure['unit']})", measure["values"]))
        columns += [(f"interval {end}", measure[end]) for end in ("low", "high") if end in measure]
    if "classes" in spec:
        names = spec["classes"]["names"]
        columns.append(
            ("class", [None if value is None else names[value] for value in spec["classes"]["values"]])
        )
    if "origin" in spec:
        names = spec["origin"]["names"]
        columns.append(
            ("origin", [None if value is None else names[value] for value in spec["origin"]["values"]])
        )
    if "evidence" in spec:
        columns.append(("evidence", spec["evidence"]))
    rows = [
        [
            str(index // spec["heads"] + 1),
            str(index % spec["heads"] + 1),
            *(_cell(c[index]) for _, c in columns),
        ]
        for index in range(spec["layers"] * spec["heads"])
    ]
    return render("heads_table.html", titles=["layer", "head", *(title for title, _ in columns)], rows=rows)


def _cell(value: object) -> str:
    return "" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)
