"""Masks of one's own as region maps: PNG folders, COCO annotations, tensors, functions; what is missing is counted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Int
from numpy import ndarray
from PIL import Image, ImageDraw
from torch import Tensor

from vitmech_utils.data.own_images import ImagesError, OwnImages, Recipe, open_picture
from vitmech_utils.strict_text import read_json

LARGEST_COCO = 2**29  # bytes
BACKGROUND = "background"


@dataclass(frozen=True)
class Regions:
    """Region maps [image, height, width] of names; `known` are the images that have one, `facts` what was counted."""

    maps: Int[Tensor, "image height width"]
    names: tuple[str, ...]
    known: Bool[ndarray, " image"]
    facts: Mapping[str, str]


def read_masks(
    source: object, images: OwnImages, recipe: Recipe, regions: Mapping[int, str] | None = None
) -> Regions:
    """Region maps of `images` from a folder of PNG files, a COCO file, a tensor [image, height, width], or a function.

    A PNG's values (its palette's numbers, 8 or 16 bits of grey) are the regions; it is called as its image is, and
    prepared as that was, by nearest neighbour. Boxes and polygons of COCO are painted in the order of the file, and
    categories are numbered by their ids. A function gets an image's name and returns its map. `regions` names the
    numbers; 0 without a name is the background. Images without a mask are counted and left out of region statistics;
    overlapping annotations are counted, and the later one wins. Raises `ImagesError` for numbers without a name, masks
    of another size than their image, and files that cannot be read.
    """
    facts: dict[str, str] = {}
    if isinstance(source, str | Path):
        path = Path(source).expanduser()
        if path.suffix.lower() == ".json":
            maps, known, told, facts = _coco(path, images, recipe)
            regions = told if regions is None else regions
        elif path.is_dir():
            maps, known = _folder(path, images, recipe)
        else:
            raise ImagesError(f"masks: {path} is neither a folder of PNG files nor a COCO file (.json)")
    elif callable(source):
        maps, known = _called(source, images)
    else:
        maps, known = _stacked(source, images)
    if not known.any():
        raise ImagesError(f"masks: none of {len(images)} images has one; a mask is called as its image is")
    if regions is None:
        held = torch.unique(torch.cat([maps[i].flatten() for i in np.flatnonzero(known)])).tolist()
        raise ImagesError(
            f"the masks hold the numbers {held[:10]}, which have no names: pass regions={{1: 'object', ...}}"
        )
    numbered, names = _named(maps, regions)
    facts["masks"] = f"{int(known.sum())} of {len(images)} images have one" + (
        "" if known.all() else f"; none for {_some([images.names[i] for i in np.flatnonzero(~known)])}"
    )
    return Regions(numbered, names, known, facts)


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _named(maps: Tensor, regions: Mapping[int, str]) -> tuple[Tensor, tuple[str, ...]]:
    given = {int(number): str(name) for number, name in regions.items()}
    given = given if 0 in given else {0: BACKGROUND} | given
    held = torch.unique(maps).tolist()
    if unknown := [number for number in held if number not in given]:
        raise ImagesError(
            f"masks hold {unknown[0]}, which has no name: pass it in regions, which names {sorted(given)} so far"
        )
    numbers = sorted(given)
    lookup = torch.zeros(max(numbers) + 1, dtype=torch.long)
    lookup[torch.tensor(numbers)] = torch.arange(len(numbers))
    return lookup[maps.long()], tuple(given[number] for number in numbers)


def _stacked(source: object, images: OwnImages) -> tuple[Tensor, ndarray]:
    maps = torch.as_tensor(np.asarray(source) if not isinstance(source, Tensor) else source)
    expected = (len(images), *images.pixels.shape[-2:])
    if tuple(maps.shape) != expected:
        raise ImagesError(f"masks have shape {tuple(maps.shape)}, expected {expected} like the images")
    if maps.is_floating_point():
        raise ImagesError(f"masks are {maps.dtype}, expected whole numbers: the numbers of regions")
    if int(maps.min()) < 0:
        raise ImagesError(f"masks hold {int(maps.min())}, expected numbers from 0")
    return maps.long(), np.ones(len(images), dtype=bool)


def _called(source: Callable, images: OwnImages) -> tuple[Tensor, ndarray]:
    height, width = images.pixels.shape[-2:]
    maps, known = torch.zeros(len(images), height, width, dtype=torch.long), np.zeros(len(images), dtype=bool)
    for place, name in enumerate(images.names):
        found = source(name)
        if found is None:
            continue
        one = replace(images, pixels=images.pixels[place : place + 1], names=(name,))
        found = torch.as_tensor(np.asarray(found) if not isinstance(found, Tensor) else found)
        maps[place], known[place] = _stacked(found[None], one)[0][0], True
    return maps, known


def _folder(folder: Path, images: OwnImages, recipe: Recipe) -> tuple[Tensor, ndarray]:
    if not images.files:
        raise ImagesError(
            "masks in a folder belong to images in a folder; of others pass a tensor or a function"
        )
    maps, known = [], np.zeros(len(images), dtype=bool)
    for place, (name, path) in enumerate(zip(images.names, images.files, strict=True)):
        mask = next(
            (
                one
                for one in (folder / Path(name).with_suffix(".png"), folder / f"{path.stem}.png")
                if one.is_file()
            ),
            None,
        )
        if mask is None:
            maps.append(torch.zeros(recipe.size, dtype=torch.long))
            continue
        if not mask.resolve().is_relative_to(folder.resolve()):
            raise ImagesError(f"{mask} leads out of its folder: copy the file there")
        numbers = _numbers(mask)
        with Image.open(path) as picture:
            size = picture.size
        if numbers.shape[::-1] != size:
            raise ImagesError(
                f"{mask}: {numbers.shape[1]} x {numbers.shape[0]} pixels, but its image has {size[0]} x {size[1]}: "
                "export it at the image's size (nearest neighbour)"
            )
        placed = recipe.place(Image.fromarray(numbers.astype(np.int32), "I"), labels=True)
        maps.append(torch.from_numpy(np.array(placed)).long())
        known[place] = True
    return torch.stack(maps), known


def _numbers(path: Path) -> Int[ndarray, "height width"]:
    picture = open_picture(path)
    if picture.mode not in ("P", "L", "1", "I", "I;16", "I;16B"):
        raise ImagesError(
            f"{path}: a mask in {picture.mode}, expected one number per pixel (a palette, or 8 or 16 bits of grey)"
        )
    return np.array(picture).astype(np.int64)


def _coco(
    path: Path, images: OwnImages, recipe: Recipe
) -> tuple[Tensor, ndarray, dict[int, str], dict[str, str]]:
    if not images.files:
        raise ImagesError("COCO annotations name files: they belong to images in a folder")
    try:
        held = read_json(path, LARGEST_COCO)
        entries = {str(one["file_name"]): one for one in held["images"]}
        names = {int(one["id"]): str(one["name"]) for one in held["categories"]}
        by_image: dict[int, list[dict]] = {}
        for one in held["annotations"]:
            by_image.setdefault(one["image_id"], []).append(one)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ImagesError(
            f"{path} is no COCO file with images, annotations and categories ({error})"
        ) from error
    if 0 in names:
        raise ImagesError(f"{path}: a category has id 0, which stands for the background; number them from 1")
    maps, known, painted, overlaps = [], np.zeros(len(images), dtype=bool), 0, 0
    for place, (name, file) in enumerate(zip(images.names, images.files, strict=True)):
        entry = entries.get(name, entries.get(file.name))
        with Image.open(file) as picture:
            size = picture.size
        canvas = np.zeros(size[::-1], dtype=np.int32)
        if entry is not None:
            known[place] = True
            if (told := (entry.get("width", size[0]), entry.get("height", size[1]))) != size:
                raise ImagesError(
                    f"{path}: {name} is {told[0]} x {told[1]} there, but has {size[0]} x {size[1]} pixels"
                )
            for one in by_image.get(entry["id"], []):
                shape = _shape(one, size, f"{path}: annotation {one.get('id')}")
                overlaps += bool((canvas[shape] > 0).any())
                if int(one.get("category_id", -1)) not in names:
                    raise ImagesError(f"{path}: annotation {one.get('id')} has an unknown category")
                canvas[shape] = int(one["category_id"])
                painted += 1
        placed = recipe.place(Image.fromarray(canvas, "I"), labels=True)
        maps.append(torch.from_numpy(np.array(placed)).long())
    facts = {"annotations": f"{painted} painted, {overlaps} over others (the later one wins)"}
    return torch.stack(maps), known, names, facts


def _shape(annotation: dict, size: tuple[int, int], where: str) -> ndarray:
    """The pixels of a box or of polygons, bool [height, width]."""
    canvas = Image.new("1", size)
    draw = ImageDraw.Draw(canvas)
    outline = annotation.get("segmentation")
    try:
        if isinstance(outline, list) and outline:
            for polygon in outline:
                if len(polygon) < 6 or len(polygon) % 2:
                    raise ImagesError(
                        f"{where}: a polygon of {len(polygon)} numbers, expected x and y of three points"
                    )
                draw.polygon([float(number) for number in polygon], fill=1)
        elif isinstance(outline, dict):
            raise ImagesError(
                f"{where} is run-length encoded, expected polygons or a box: export it as polygons"
            )
        else:
            x, y, width, height = (float(number) for number in annotation["bbox"])
            if width <= 0 or height <= 0:
                raise ImagesError(f"{where}: a box of {width:g} x {height:g}, expected one with an area")
            draw.rectangle([x, y, x + width - 1, y + height - 1], fill=1)
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, ImagesError):
            raise
        raise ImagesError(f"{where} has no box or polygons that can be read ({error})") from error
    return np.array(canvas, dtype=bool)
