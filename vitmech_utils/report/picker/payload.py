"""From plain arrays to what the picker's page carries: a small JSON spec and content-addressed, compressed chunks."""

import hashlib
import io
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from operator import index as as_int

import numpy as np
from PIL import Image

from vitmech_utils.arguments import shown
from vitmech_utils.report.picker.checks import (
    checked,
    checked_images,
    checked_names,
    checked_number,
    checked_text,
    checked_texts,
)
from vitmech_utils.report.picker.data import PickerData
from vitmech_utils.report.picker.measures import (
    checked_coverage,
    checked_shares,
    grid_measures,
    mean_lift,
    rounded,
    unmixed_shares,
)
from vitmech_utils.report.picker.trials import checked_answer


@dataclass(frozen=True)
class Payload:
    """The picker's data: `spec` is JSON-ready, `chunks` maps a content hash to bytes; layers and heads are 0-based.

    `maps`, `images` and `shares` stay here for the static figure: float32 [twin, variant, image, layer, head, row,
    column], uint8 [twin, image, height, width, 3] and None or float32 [variant, image, layer, head, region].
    """

    spec: dict
    chunks: dict[str, bytes]
    maps: np.ndarray
    images: np.ndarray
    shares: np.ndarray | None
    sizes: dict[str, int] = field(default_factory=dict)


@dataclass
class _Builder:
    spec: dict
    chunks: dict[str, bytes] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)

    def add(self, name: str, raw: bytes, compress: bool = True) -> None:
        data = zlib.compress(raw, 6) if compress else raw
        key = hashlib.sha256(data).hexdigest()[:20]
        self.chunks[key] = data
        self.sizes[name] = len(data)
        self.spec["chunks"][name] = {"id": key, "codec": "deflate" if compress else "raw"}


def build_payload(data: PickerData) -> Payload:
    """Check, quantize and compress what a picker shows.

    Raises ValueError, naming the field, for arrays, names and texts that do not fit each other.
    """
    all_maps = _stack_maps(data.maps, data.twin_maps)
    twin_count, variant_count, image_count, layers, heads, rows, columns = all_maps.shape
    pictures = _checked_pictures(data, image_count)
    map_levels, query_levels = _checked_options(data)
    regions = _checked_regions(data)
    twin_names = checked_names("twins", data.twins, 2, "of the two kinds of images")
    spec = {
        "version": 1,
        "title": data.title,
        "name": data.name,
        "layers": layers,
        "heads": heads,
        "rows": rows,
        "columns": columns,
        "height": pictures[0].shape[1],
        "width": pictures[0].shape[2],
        "variants": checked_names(
            "variants", [""] if data.variants is None else data.variants, variant_count, "variant"
        ),
        "twins": twin_names if twin_count > 1 else [""],
        "imageLabels": checked_names("image_labels", data.image_labels, image_count, "image")
        if data.image_labels is not None
        else [f"image {index + 1}" for index in range(image_count)],
        "regions": regions,
        "chunks": {},
    }
    builder = _Builder(spec)
    spec["images"] = _add_images(builder, pictures)
    for twin in range(twin_count):
        for variant in range(variant_count):
            raw = quantize(all_maps[twin, variant].reshape(-1, rows * columns), map_levels)
            builder.add(f"maps:{twin}:{variant}", raw)
    spec["levels"] = map_levels
    spec["sharedMaximum"] = rounded(np.quantile(all_maps, 0.999)) or rounded(all_maps.max()) or 1.0
    shares, areas = checked_shares(data, all_maps.shape[1:5], regions)
    coverage = checked_coverage(data, (image_count, rows, columns), regions)
    if coverage is not None:
        builder.add("coverage", np.round(coverage * 255).astype(np.uint8).tobytes())
        spec["coverage"] = len(coverage)
        areas = coverage.mean((2, 3)) if areas is None else areas
        if shares is not None:
            unmixed, most = unmixed_shares(shares, coverage)
            builder.add("unmixed", np.round(unmixed * 65535).astype("<u2").tobytes())
            spec["mostShares"] = [[rounded(value) for value in row] for row in most]
    if shares is not None:
        builder.add("shares", np.round(np.clip(shares, 0, 1) * 65535).astype("<u2").tobytes())
        spec["shares"] = {"variants": shares.shape[0], "images": shares.shape[1]}
    if areas is not None:
        spec["areaShares"] = [[rounded(value) for value in row] for row in areas]
    lift = mean_lift(shares, areas) if data.lift is None else data.lift
    spec["measures"] = grid_measures(data, (layers, heads), lift, regions)
    for key, name in (("classes", "head_class"), ("origin", "origin")):
        if (given := getattr(data, name)) is not None:
            texts = checked_texts(name, given, layers, heads)
            names = sorted(set(texts) - {""})
            spec[key] = {"names": names, "values": [names.index(text) if text else None for text in texts]}
    if data.evidence is not None:
        spec["evidence"] = checked_texts("evidence", data.evidence, layers, heads)
    if data.answer is not None:
        answer = checked_answer(data.answer, twin_count, image_count, layers, heads)
        builder.add("answer", answer.raw())
        spec["answer"] = answer.spec
    if data.query_maps is not None:
        spec["query"] = _add_queries(builder, data, query_levels, all_maps.shape[2:])
    return Payload(spec, builder.chunks, all_maps, np.stack(pictures), shares, builder.sizes)


def _checked_pictures(data: PickerData, count: int) -> list[np.ndarray]:
    pictures = [checked_images("images", data.images, count)]
    if (data.twin_maps is None) != (data.twin_images is None):
        raise ValueError("twin_maps and twin_images: expected both or neither, got only one of them")
    if data.twin_images is not None:
        pictures.append(checked_images("twin_images", data.twin_images, count))
        if pictures[1].shape != pictures[0].shape:
            raise ValueError(
                f"twin_images: expected shape {pictures[0].shape} as images, got {pictures[1].shape}"
            )
    return pictures


def _checked_options(data: PickerData) -> tuple[int, int]:
    """Check what is neither an array nor a list of names; return the levels of maps and of patch queries."""
    levels = [
        checked_number(option, getattr(data, option), 2, 256, "a number of grey levels")
        for option in ("map_levels", "query_levels")
    ]
    for option in ("title", "effect_label", "effect_unit", "entropy_unit"):
        checked_text(option, getattr(data, option))
    if not isinstance(data.name, str) or not re.fullmatch(r"[A-Za-z0-9_-]*", data.name):
        raise ValueError(
            f"name: expected letters, digits, '-' and '_' (it stands in links), got {shown(data.name)}"
        )
    if data.query_heads is not None and data.query_maps is None:
        raise ValueError("query_maps: expected the maps of query_heads, got None")
    return levels[0], levels[1]


def _checked_regions(data: PickerData) -> list[str]:
    listed = isinstance(data.regions, Sequence | np.ndarray) and getattr(data.regions, "ndim", 1) > 0
    count = len(data.regions) if listed else 0
    names = checked_names("regions", data.regions, count, "region")
    if len(set(names)) < count:
        raise ValueError(f"regions: expected each name once, got {shown(names)}")
    return names


def quantize(flat: np.ndarray, levels: int) -> bytes:
    """Quantize float maps [map, patch] to bytes: each map's maximum as little-endian float32, then all maps' levels.

    Every map has its own scale, so the error is at most half a level of that map's maximum.
    """
    peaks = flat.max(axis=1)
    safe = np.where(peaks > 0, peaks, 1)[:, None]
    steps = np.round(flat / safe * (levels - 1)).astype(np.uint8)
    return peaks.astype("<f4").tobytes() + steps.tobytes()


def _stack_maps(maps: object, twin_maps: object | None) -> np.ndarray:
    axes = "variant (optional), image, layer, head, row, column"
    free = [None] * 6
    main = checked("maps", maps, axes, free, free[1:], minimum=0)
    main = main if main.ndim == 6 else main[None]
    if twin_maps is None:
        return main[None]
    twin = checked("twin_maps", twin_maps, axes, main.shape, main.shape[1:], minimum=0)
    if twin.ndim == 5 and len(main) != 1:
        raise ValueError(f"twin_maps: expected shape {main.shape} ([{axes}]), got {twin.shape}")
    return np.stack([main, twin.reshape(main.shape)])


def _add_images(builder: _Builder, pictures: list[np.ndarray]) -> list[list[list[int]]]:
    """Append all images to one chunk, each as the smaller of PNG and WebP; return [start, end] per twin and image."""
    blob, spans = b"", []
    for stack in pictures:
        row = []
        for picture in stack:
            data = _encode(picture)
            row.append([len(blob), len(blob) + len(data)])
            blob += data
        spans.append(row)
    builder.add("images", blob, compress=False)
    return spans


def _encode(picture: np.ndarray) -> bytes:
    image = Image.fromarray(picture)
    candidates = []
    for options in ({"format": "PNG", "optimize": True}, {"format": "WEBP", "quality": 92, "method": 4}):
        buffer = io.BytesIO()
        image.save(buffer, **options)
        candidates.append(buffer.getvalue())
    return min(candidates, key=len)


def _checked_pairs(pairs: object, layers: int, heads: int) -> list[tuple[int, int]]:
    try:
        found = [(as_int(layer), as_int(head)) for layer, head in pairs]
    except (TypeError, ValueError):
        found = None
    if not found or not all(0 <= layer < layers and 0 <= head < heads for layer, head in found):
        raise ValueError(
            f"query_heads: expected (layer, head) pairs in 0..{layers - 1} and 0..{heads - 1} (0-based), "
            f"got {shown(pairs)}"
        )
    if len(set(found)) < len(found):
        raise ValueError(f"query_heads: expected each (layer, head) once, got {shown(found)}")
    return found


def _add_queries(builder: _Builder, data: PickerData, levels: int, shape: tuple[int, ...]) -> dict:
    """Append the patch queries; `shape` is (images, layers, heads, rows, columns) of the maps."""
    images, layers, heads, rows, columns = shape
    query_image = checked_number("query_image", data.query_image, 0, images - 1, "an index (0-based)")
    pairs = data.query_heads
    if pairs is None:
        pairs = [(layer, head) for layer in range(layers) for head in range(heads)]
        maps = checked(
            "query_maps", data.query_maps, "layer, head, query row, query column, row, column",
            (layers, heads, None, None, None, None), minimum=0,
        )  # fmt: skip
        maps = maps.reshape(-1, *maps.shape[2:])
    else:
        pairs = _checked_pairs(pairs, layers, heads)
        maps = checked(
            "query_maps", data.query_maps, "head of query_heads, query row, query column, row, column",
            (len(pairs), None, None, None, None), minimum=0,
        )  # fmt: skip
    for axis, size, limit in zip(
        ("query row", "query column", "row", "column"), maps.shape[1:], (rows, columns) * 2, strict=True
    ):
        if size > limit:
            raise ValueError(
                f"query_maps: expected at most {limit} in axis {axis!r} (as in maps), got {size}"
            )
    builder.add("query", quantize(maps.reshape(-1, maps.shape[-2] * maps.shape[-1]), levels))
    names = ("queryRows", "queryColumns", "rows", "columns")
    return {
        "image": query_image,
        "levels": levels,
        "heads": [int(layer) * heads + int(head) for layer, head in pairs],
        **dict(zip(names, maps.shape[1:], strict=True)),
    }
