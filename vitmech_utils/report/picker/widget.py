"""`HeadPicker`: the book's instrument for looking at attention heads, live in JupyterLab and static everywhere else."""

import base64
import difflib
from collections.abc import Callable, Sequence
from dataclasses import replace
from numbers import Integral
from operator import index as as_int
from pathlib import Path

import anywidget
import numpy as np
import traitlets

from vitmech_utils.arguments import checked_arguments, shown
from vitmech_utils.artefacts import to_numpy
from vitmech_utils.report.picker.checks import checked
from vitmech_utils.report.picker.data import FIELDS, PickerData
from vitmech_utils.report.picker.payload import Payload, build_payload
from vitmech_utils.report.picker.static import fallback_png, page_html, picker_html, text_size

HERE = Path(__file__).parent
Exact = Callable[[list[tuple[int, int]]], object]
PAGE_LIMIT = 6_000_000
MOST_PINS = 2


class HeadPicker(anywidget.AnyWidget):
    """Show every attention head of a model: a grid of heads, the picked head's maps, and what is known of it.

    Give it a `PickerData`, or its fields as arguments: `HeadPicker(maps, images, effect=..., title=...)`. Its docstring
    says what each holds. Beside a `PickerData`, a field given as an argument replaces the one in it. Layers, heads,
    images and patches are 0-based in Python and in the traits, 1-based in what is shown.

    Traits, all of them synced both ways: `layer`, `head`, `image`, `query` (row * columns + column, -1 for the CLS
    query), `variant` and `twin` (index, -1 for side by side), `measure` ("effect", "lift:<region index>", "entropy",
    "class", "origin" or "shift"), `scale` ("map" or "shared"), `opacity` (0 to 1), `mode` ("pick": one head is looked
    at; "off": clicks switch heads off), `off` and `pins` (lists of (layer, head): those switched off, and up to two
    that stay in view), `tracks` (whether answers are drawn over the images).

    With an `answer`, what the model says without the heads in `off` is exact for single heads and for sets that were
    tried, else a sum. `exact`, a function of such a list, returns the exact answers [(twin,) image, output]; a button
    in JupyterLab calls it.

    Links `#name:L6H4` open a picker by its `name`; `#L6H4` belongs to the first picker of a page.

    Raises ValueError for arrays that do not fit each other, quoting expected and actual shapes, for values of another
    kind, for a misspelt argument, and for data and texts beyond `page_limit` bytes of HTML (None: no limit);
    traitlets.TraitError for traits out of range.
    """

    _esm = HERE / "picker.js"
    _css = HERE / "picker.css"
    _spec = traitlets.Dict().tag(sync=True)
    _chunks = traitlets.Dict().tag(sync=True)
    layer = traitlets.Int(0).tag(sync=True)
    head = traitlets.Int(0).tag(sync=True)
    image = traitlets.Int(0).tag(sync=True)
    query = traitlets.Int(-1).tag(sync=True)
    variant = traitlets.Int(0).tag(sync=True)
    twin = traitlets.Int(0).tag(sync=True)
    measure = traitlets.Unicode("").tag(sync=True)
    scale = traitlets.Enum(["map", "shared"], default_value="map").tag(sync=True)
    opacity = traitlets.Float(0.75, min=0, max=1).tag(sync=True)
    mode = traitlets.Enum(["pick", "off"], default_value="pick").tag(sync=True)
    off = traitlets.List().tag(sync=True)
    pins = traitlets.List().tag(sync=True)
    tracks = traitlets.Bool(True).tag(sync=True)
    _live = traitlets.Bool(False).tag(sync=True)

    def __init__(
        self,
        maps: PickerData | object,
        images: object | None = None,
        *,
        page_limit: int | None = PAGE_LIMIT,
        exact: Exact | None = None,
        **fields_and_traits: object,
    ) -> None:
        traits = {name: value for name, value in fields_and_traits.items() if name not in FIELDS}
        self._check_traits(traits)
        given = {name: value for name, value in fields_and_traits.items() if name in FIELDS}
        if isinstance(maps, PickerData):
            data = replace(maps, **given if images is None else {"images": images, **given})
        else:
            data = PickerData(maps, images, **given)
        payload = build_payload(data)
        _check_size(payload, page_limit)
        if exact is not None and (data.answer is None or not callable(exact)):
            raise ValueError(
                f"exact: expected a function of heads beside an answer, got {shown(exact)} and answer "
                f"{shown(data.answer)}"
            )
        self._payload, self._exact = payload, exact
        start: dict[str, object] = {"layer": 0, "head": 0, "measure": _measure_keys(payload.spec)[0]}
        values = None if data.effect is None else to_numpy(data.effect).astype(float)
        if values is not None and not np.isnan(values).all():
            place = np.unravel_index(np.nanargmax(values), values.shape)
            start |= {"layer": int(place[0]), "head": int(place[1])}
        super().__init__(
            _spec=payload.spec, _chunks=payload.chunks, _live=exact is not None, **(start | traits)
        )
        self.on_msg(self._answer_exactly)

    @classmethod
    def _check_traits(cls, traits: dict[str, object]) -> None:
        """Refuse a misspelt argument, which traitlets would keep as an attribute of no use."""
        public = [name for name in cls.class_trait_names() if not name.startswith("_") and name != "comm"]
        for name in traits:
            if name not in public:
                close = difflib.get_close_matches(name, [*public, *FIELDS, "page_limit"], n=1)
                hint = f"; did you mean {close[0]!r}?" if close else ""
                raise ValueError(f"{name}: no argument or trait of a HeadPicker{hint}")

    @traitlets.validate("layer", "head", "image", "query", "variant", "twin", "measure")
    def _in_range(self, proposal: dict) -> object:
        trait, value = proposal["trait"].name, proposal["value"]
        if trait == "measure":
            keys = _measure_keys(self._payload.spec)
            if value not in keys:
                raise traitlets.TraitError(f"measure: expected one of {keys}, got {value!r}")
            return value
        sizes = dict(
            zip(("twin", "variant", "image", "layer", "head"), self._payload.maps.shape, strict=False)
        )
        sizes["query"] = self._payload.maps.shape[5] * self._payload.maps.shape[6]
        low = -1 if trait in ("query", "variant", "twin") else 0
        if not low <= value < sizes[trait]:
            raise traitlets.TraitError(
                f"{trait}: expected an index in {low}..{sizes[trait] - 1} (0-based), got {value}"
            )
        return value

    @traitlets.validate("off", "pins")
    def _in_grid(self, proposal: dict) -> list[list[int]]:
        return self._pairs(proposal["trait"].name, proposal["value"])

    def _pairs(self, name: str, value: object) -> list[list[int]]:
        """Pairs of layer and head, each once and in order; lists, as they come back from a page."""
        layers, heads = self._payload.maps.shape[3:5]
        try:
            pairs = [[as_int(layer), as_int(head)] for layer, head in value]
        except (TypeError, ValueError):
            pairs = None
        if pairs is None or not all(0 <= layer < layers and 0 <= head < heads for layer, head in pairs):
            raise traitlets.TraitError(
                f"{name}: expected pairs of layer and head, 0-based, of {layers} x {heads}, got {shown(value)}"
            )
        unique = [pair for place, pair in enumerate(pairs) if pair not in pairs[:place]]
        if name == "pins":
            if len(unique) > MOST_PINS:
                raise traitlets.TraitError(f"pins: expected at most {MOST_PINS} heads, got {len(unique)}")
            return unique
        return sorted(unique)

    def exact_answers(self, heads: Sequence[tuple[int, int]]) -> np.ndarray:
        """The exact answers without some heads, [twin, image, output], by the function given as `exact`.

        Raises ValueError where none was given, and where it returns another shape.
        """
        if self._exact is None:
            raise ValueError("this picker was made without `exact`, so it cannot ask the model")
        spec = self._payload.spec["answer"]
        shape = (spec["twins"], len(self._payload.spec["imageLabels"]), len(spec["outputs"]))
        found = self._exact([(int(layer), int(head)) for layer, head in heads])
        one = [shape[1:]] if shape[0] == 1 else []
        return checked("what exact returned", found, "twin, image, output", shape, *one).reshape(shape)

    def _answer_exactly(self, _widget: object, content: object, _buffers: object) -> None:
        """What the page's button asks for; whatever goes wrong is told to the reader."""
        if not isinstance(content, dict) or content.get("kind") != "exact":
            return
        asked = content.get("off")
        try:
            heads = [(layer, head) for layer, head in self._pairs("off", asked)]
            answers = self.exact_answers(heads)
        except Exception as error:
            self.send({"kind": "failed", "off": asked, "error": f"{type(error).__name__}: {error}"[:500]})
            return
        self.send({"kind": "exact", "off": [list(pair) for pair in heads], "answers": answers.tolist()})

    def state(self) -> dict:
        """Return the picked state, 0-based: every public trait's value."""
        names = (
            "layer", "head", "image", "query", "variant", "twin", "measure", "scale", "opacity", "mode", "off", "pins",
            "tracks",
        )  # fmt: skip
        return {name: getattr(self, name) for name in names}

    def png(self) -> bytes:
        """Return the static figure of the present state as PNG."""
        return fallback_png(self._payload, self.state())

    def html(self) -> str:
        """Return the picker in its present state as one self-contained HTML element, for pages without a kernel."""
        return picker_html(self._payload, self.state(), base64.b64encode(self.png()).decode())

    def save(self, path: str | Path) -> None:
        """Write a self-contained HTML page with this picker, which opens from disk without a network."""
        save_page(path, [self], title=self._payload.spec["title"])

    def __repr__(self) -> str:
        spec = self._payload.spec
        images, layers, heads, rows, columns = self._payload.maps.shape[2:]
        return (
            f"HeadPicker({spec['title']!r}: {layers} layers x {heads} heads, {rows} x {columns} patches, "
            f"{images} images; layer={self.layer}, head={self.head}, 0-based)"
        )

    def _repr_mimebundle_(self, **kwargs: object) -> tuple[dict, dict]:
        data, metadata = super()._repr_mimebundle_(**kwargs) or ({}, {})
        png = base64.b64encode(self.png()).decode()
        page = picker_html(self._payload, self.state(), png)
        return {**data, "text/plain": repr(self), "text/html": page, "image/png": png}, metadata


@checked_arguments()
def save_page(path: str | Path, pickers: Sequence[HeadPicker], title: str = "Attention heads") -> None:
    """Write a self-contained HTML page with several pickers; data that they share is stored once.

    Raises ValueError for two pickers of one name, which links could not distinguish.
    """
    names = [picker._payload.spec["name"] for picker in pickers]
    twice = sorted({name for name in names if name and names.count(name) > 1})
    if twice:
        raise ValueError(f"pickers: expected each name once on a page, got {', '.join(twice)} several times")
    Path(path).write_text(page_html([picker.html() for picker in pickers], title), encoding="utf-8")


def _measure_keys(spec: dict) -> list[str]:
    keys = [measure["key"] for measure in spec["measures"]]
    keys += ["class"] if "classes" in spec else []
    keys += ["origin"] if "origin" in spec else []
    keys += ["shift"] if "answer" in spec else []
    return keys or [""]


def _check_size(payload: Payload, limit: int | None) -> None:
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, Integral)):
        raise ValueError(f"page_limit: expected a number of bytes or None, got {shown(limit)}")
    sizes = payload.sizes | {"texts": text_size(payload)}
    # Base64, and room for code and the fallback figure; texts stand there as they are.
    total = sum(payload.sizes.values()) * 4 // 3 + sizes["texts"] + 400_000
    if limit is not None and total > limit:
        parts = ", ".join(f"{name} {size / 1e6:.2f} MB" for name, size in sizes.items())
        raise ValueError(
            f"the picker's page would have about {total / 1e6:.1f} MB, expected at most {limit / 1e6:.1f} MB "
            f"(compressed: {parts}); pass fewer images, a smaller map_levels, a coarser query grid or query_heads, "
            "shorter texts, or page_limit=None"
        )
