"""`HeadPicker`: the book's instrument for looking at attention heads, live in JupyterLab and static everywhere else."""

import base64
import difflib
import inspect
from collections.abc import Sequence
from numbers import Integral
from pathlib import Path

import anywidget
import numpy as np
import traitlets

from vitmech_utils.arguments import checked_arguments, shown
from vitmech_utils.artefacts import to_numpy
from vitmech_utils.report.picker.payload import Payload, build_payload
from vitmech_utils.report.picker.static import fallback_png, page_html, picker_html, text_size

HERE = Path(__file__).parent
PAGE_LIMIT = 6_000_000


class HeadPicker(anywidget.AnyWidget):
    """Show every attention head of a model: a grid of heads, the picked head's maps, and what is known of it.

    Arrays (numpy, or anything `numpy.asarray` reads; N images, L layers, H heads, P x Q patches, R regions):

    - `maps` [(variant,) image, layer, head, row, column]: the CLS query's attention per patch, >= 0
    - `images` uint8 [image, height, width, 3] or [image, height, width]
    - `variants`: names, one per variant of `maps`, such as `("fine-tuned", "pre-trained")`; all that is said of heads
      (effect, lift, class) is about the first
    - `twin_maps`, `twin_images`: as `maps` and `images`, for other pictures of the same content; `twins`: both names
    - `image_labels`: N names
    - `effect`, `effect_low`, `effect_high` [layer, head]: ablation effect and its interval in `effect_unit`, signed
    - `lift` [layer, head, region], attention share / area share; computed from both shares where not given
    - `entropy` [layer, head] in `entropy_unit`
    - `head_class`, `evidence`: texts [layer, head] (nested lists or an object array)
    - `shares` [((variant,) image,) layer, head, region] and `area_shares` [(image,) region]: fractions in [0, 1] of the
      attention and of the area; `regions`: R names
    - `query_maps` [layer, head, query row, query column, row, column]: patch queries of the image `query_image`, for
      the first variant and twin; with `query_heads`, a list of (layer, head), they are [head, query row, ...]. Both
      grids may be coarser than that of `maps`
    - `map_levels`, `query_levels`: steps that a map is rounded to, relative to its own maximum (256, and 32)

    NaN in `effect`, its interval, `lift` and `entropy` means unknown. Layers, heads, images and patches are 0-based in
    Python and in the traits, 1-based in what is shown.

    Traits, all of them synced both ways: `layer`, `head`, `image`, `query` (row * columns + column, -1 for the CLS
    query), `variant` and `twin` (index, -1 for side by side), `measure` ("effect", "lift:<region index>", "entropy" or
    "class"), `scale` ("map" or "shared"), `opacity` (0 to 1).

    `name` opens deep links `#name:L6H4` to this picker; `#L6H4` belongs to the first picker of a page.

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

    def __init__(
        self,
        maps: object,
        images: object,
        *,
        variants: Sequence[str] | None = None,
        twin_maps: object | None = None,
        twin_images: object | None = None,
        twins: Sequence[str] = ("decorated", "undecorated"),
        image_labels: Sequence[str] | None = None,
        effect: object | None = None,
        effect_low: object | None = None,
        effect_high: object | None = None,
        effect_label: str = "effect on the MSE",
        effect_unit: str = "%",
        lift: object | None = None,
        entropy: object | None = None,
        entropy_unit: str = "nats",
        head_class: object | None = None,
        evidence: object | None = None,
        shares: object | None = None,
        area_shares: object | None = None,
        regions: Sequence[str] = (),
        query_maps: object | None = None,
        query_heads: Sequence[tuple[int, int]] | None = None,
        query_image: int = 0,
        map_levels: int = 256,
        query_levels: int = 32,
        title: str = "Attention heads",
        name: str = "",
        page_limit: int | None = PAGE_LIMIT,
        **traits: object,
    ) -> None:
        payload = build_payload(
            maps, images, variants=variants, twin_maps=twin_maps, twin_images=twin_images, twins=twins,
            image_labels=image_labels, effect=effect, effect_low=effect_low, effect_high=effect_high,
            effect_label=effect_label, effect_unit=effect_unit, lift=lift, entropy=entropy, entropy_unit=entropy_unit,
            head_class=head_class, evidence=evidence, shares=shares, area_shares=area_shares, regions=regions,
            query_maps=query_maps, query_heads=query_heads, query_image=query_image, map_levels=map_levels,
            query_levels=query_levels, title=title, name=name,
        )  # fmt: skip
        _check_size(payload, page_limit)
        self._check_traits(traits)
        self._payload = payload
        start: dict[str, object] = {"layer": 0, "head": 0, "measure": _measure_keys(payload.spec)[0]}
        values = None if effect is None else to_numpy(effect).astype(float)
        if values is not None and not np.isnan(values).all():
            place = np.unravel_index(np.nanargmax(values), values.shape)
            start |= {"layer": int(place[0]), "head": int(place[1])}
        super().__init__(_spec=payload.spec, _chunks=payload.chunks, **(start | traits))

    @classmethod
    def _check_traits(cls, traits: dict[str, object]) -> None:
        """Refuse a misspelt argument, which traitlets would keep as an attribute of no use."""
        public = [name for name in cls.class_trait_names() if not name.startswith("_") and name != "comm"]
        for name in traits:
            if name not in public:
                arguments = inspect.signature(cls.__init__).parameters
                known = [*public, *(each for each in arguments if each not in ("self", "traits"))]
                close = difflib.get_close_matches(name, known, n=1)
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

    def state(self) -> dict:
        """Return the picked state, 0-based: every public trait's value."""
        names = ("layer", "head", "image", "query", "variant", "twin", "measure", "scale", "opacity")
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

    Raises ValueError for two pickers of one name, which links could not tell apart.
    """
    names = [picker._payload.spec["name"] for picker in pickers]
    twice = sorted({name for name in names if name and names.count(name) > 1})
    if twice:
        raise ValueError(f"pickers: expected each name once on a page, got {', '.join(twice)} several times")
    Path(path).write_text(page_html([picker.html() for picker in pickers], title), encoding="utf-8")


def _measure_keys(spec: dict) -> list[str]:
    keys = [measure["key"] for measure in spec["measures"]]
    return (keys + (["class"] if "classes" in spec else [])) or [""]


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
