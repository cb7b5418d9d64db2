"""What the picker knows of heads beside their maps: region shares and the measures that colour the grid."""

import numpy as np

from vitmech_utils.heads.semantics import unmix
from vitmech_utils.report.picker.checks import checked
from vitmech_utils.report.picker.data import PickerData


def checked_shares(
    data: PickerData, shape: tuple[int, int, int, int], regions: list[str]
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Return shares as [variant, image, layer, head, region] and area shares as [image, region].

    `shape` counts variants, images, layers and heads. The axes variant and image have size 1 where one row stands for
    all.
    """
    shares, area_shares = data.shares, data.area_shares
    variants, images, layers, heads = shape
    count = len(regions)
    if shares is None and area_shares is None:
        return None, None
    if not count:
        raise ValueError(
            "regions: expected the names of the regions that shares and area_shares speak of, got none"
        )
    share_array = area_array = None
    if shares is not None:
        grid = (layers, heads, count)
        axes = "variant and image (both optional), layer, head, region"
        share_array = checked(
            "shares", shares, axes, grid, (images, *grid), (variants, images, *grid), minimum=0
        )
        share_array = share_array.reshape((1,) * (5 - share_array.ndim) + share_array.shape)
    if area_shares is not None:
        area_array = checked(
            "area_shares", area_shares, "image (optional), region", (count,), (images, count), minimum=0
        )
        area_array = area_array.reshape(-1, count)
    for name, array in (("shares", share_array), ("area_shares", area_array)):
        if array is not None and array.max() > 1.001:
            raise ValueError(
                f"{name}: expected fractions in [0, 1], got {array.max():g}; divide percentages by 100"
            )
    return share_array, area_array


def checked_coverage(data: PickerData, shape: tuple[int, int, int], regions: list[str]) -> np.ndarray | None:
    """Return the regions' part of each patch as [image or 1, region, row, column]; `shape` is image, row, column."""
    if data.coverage is None:
        return None
    images, rows, columns = shape
    if not regions:
        raise ValueError("regions: expected the names of the regions that coverage speaks of, got none")
    size = (len(regions), rows, columns)
    axes = "image (optional), region, row, column"
    found = checked("coverage", data.coverage, axes, size, (images, *size), minimum=0)
    if found.max() > 1.001:
        raise ValueError(f"coverage: expected fractions in [0, 1], got {found.max():g}")
    return np.clip(found.reshape(-1, *size), 0, 1)


def unmixed_shares(shares: np.ndarray, coverage: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Unmixed shares, as `shares` [variant, image, layer, head, region], and the most that a raw share can be.

    A patch that two regions share gives to both, in parts of its area, whatever of it a head looks at. A head that
    looks at region r alone therefore has raw shares `profile[r]`; unmixed shares are the mixture of such heads that
    comes nearest (`heads.semantics.unmix`). The most [image or 1, region] is `profile[r, r]`; NaN where an image lacks
    the region.
    """
    flat = coverage.astype(float).reshape(*coverage.shape[:2], -1)
    size = flat.sum(-1)
    overlap = np.einsum("irp,isp->irs", flat, flat)
    images = shares.shape[1]
    if images == 1:  # shares over all images
        overlap, size = overlap.sum(0, keepdims=True), size.sum(0, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        profiles = overlap / np.where(size > 0, size, np.nan)[..., None]
    profiles = np.broadcast_to(profiles, (images, *profiles.shape[1:]))
    found = np.stack(
        [
            [unmix(one.astype(float), profile) for one, profile in zip(row, profiles, strict=True)]
            for row in shares
        ]
    )
    return np.clip(found, 0, 1), np.einsum("irr->ir", profiles)


def mean_lift(shares: np.ndarray | None, areas: np.ndarray | None) -> np.ndarray | None:
    """Return attention share / area share of the first variant [layer, head, region], each a mean over images.

    NaN where a region has no area; None where either is not known.
    """
    if shares is None or areas is None:
        return None
    area = areas.mean(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return shares[0].mean(axis=0) / np.where(area > 0, area, np.nan)


def grid_measures(
    data: PickerData, grid: tuple[int, int], lift: object | None, regions: list[str]
) -> list[dict]:
    """Return the measures in the order of the picker's menu, each a JSON-ready dict with values [layer * head]."""
    measures = []
    ends = {"low": ("effect_low", data.effect_low), "high": ("effect_high", data.effect_high)}
    if data.effect is None and any(values is not None for _, values in ends.values()):
        raise ValueError(
            "effect: expected an array [layer, head] beside effect_low and effect_high, got None"
        )
    if data.effect is not None:
        measure = {
            "key": "effect",
            "label": data.effect_label,
            "unit": data.effect_unit,
            "kind": "diverging",
        }
        for key, (name, values) in ({"values": ("effect", data.effect)} | ends).items():
            if values is not None:
                measure[key] = listed(checked(name, values, "layer, head", grid, allow_nan=True))
        _check_interval(measure)
        measures.append(measure)
    if lift is not None:
        if not regions:
            raise ValueError("regions: expected the names of the regions that lift speaks of, got none")
        array = checked("lift", lift, "layer, head, region", (*grid, len(regions)), minimum=0, allow_nan=True)
        for index, region in enumerate(regions):
            measure = {
                "key": f"lift:{index}",
                "label": f"lift: {region}",
                "unit": "× area share",
                "kind": "log",
            }
            measures.append(measure | {"region": index, "values": listed(array[..., index])})
    if data.entropy is not None:
        array = checked("entropy", data.entropy, "layer, head", grid, minimum=0, allow_nan=True)
        measure = {
            "key": "entropy",
            "label": "entropy of the map",
            "unit": data.entropy_unit,
            "kind": "sequential",
        }
        measures.append(measure | {"values": listed(array)})
    return measures


def _check_interval(measure: dict) -> None:
    """Raise ValueError where an interval's ends stand the wrong way round."""
    ends = zip(measure.get("low", []), measure.get("high", []), strict=False)
    for place, (low, high) in enumerate(ends):
        if low is not None and high is not None and low > high:
            raise ValueError(
                f"effect_low and effect_high: expected low <= high, got {low:g} and {high:g} at number {place} of the "
                "grid: were they exchanged?"
            )


def listed(array: np.ndarray) -> list[float | None]:
    """Return all values in order, rounded for JSON."""
    return [rounded(value) for value in array.ravel()]


def rounded(value: float | np.floating) -> float | None:
    """Five significant digits; None for NaN, which JSON does not know."""
    return None if np.isnan(value) else float(f"{float(value):.5g}")
