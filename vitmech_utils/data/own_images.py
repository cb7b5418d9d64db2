"""Images of one's own as a model takes them: folders, files, tensors, data sets, each said how it was read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from numpy import ndarray
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from vitmech_utils.own_folders import is_companion
from vitmech_utils.strict_text import read_json

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
MOST_PIXELS = 100_000_000
PROCESSOR = "preprocessor_config.json"
RESAMPLING = {0: "nearest", 1: "Lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "Hamming"}


class ImagesError(ValueError):
    """Images, labels or masks that cannot be read as such; the message names the file or the item."""


@dataclass(frozen=True)
class Recipe:
    """How a picture becomes what a model takes: resized, cropped, scaled, normalized, in this order.

    `size` [height, width] of the result. `shortest` is the length of the shorter side before cropping; without it the
    picture is resized to `size` as it is. Values are multiplied with `scale`, and normalized where `mean` and `std` are
    told. `source` says where this was read.
    """

    size: tuple[int, int]
    shortest: int | None = None
    scale: float = 1 / 255
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    resample: int = 2
    channels: int = 3
    source: str = "the model's configuration: its size alone"

    def place(self, picture: Image.Image, labels: bool = False) -> Image.Image:
        """A picture (or, by nearest neighbour, a map of labels) resized and cropped."""
        how = Image.Resampling.NEAREST if labels else Image.Resampling(self.resample)
        height, width = self.size
        if self.shortest is None:
            return picture.resize((width, height), how)
        factor = self.shortest / min(picture.size)
        picture = picture.resize([max(1, round(side * factor)) for side in picture.size], how)
        left, top = ((own - side) // 2 for own, side in zip(picture.size, (width, height), strict=True))
        return picture.crop((left, top, left + width, top + height))

    def values(self, picture: Image.Image) -> Float[Tensor, "channel height width"]:
        """What the model takes of a picture that was placed."""
        pixels = torch.from_numpy(np.array(picture.convert("L" if self.channels == 1 else "RGB")))
        pixels = pixels.float().reshape(*self.size, -1).permute(2, 0, 1) * self.scale
        if self.mean is not None:
            pixels = (pixels - torch.tensor(self.mean)[:, None, None]) / torch.tensor(self.std)[:, None, None]
        return pixels

    def __str__(self) -> str:
        height, width = self.size
        steps = [f"{RESAMPLING.get(self.resample, self.resample)} to {height} x {width} pixels"]
        if self.shortest is not None:
            steps = [
                f"{steps[0].split(' to ')[0]}, shorter side {self.shortest}, cropped to {height} x {width}"
            ]
        steps.append(f"times {self.scale:.4g}")
        steps.append("not normalized" if self.mean is None else f"mean {self.mean}, std {self.std}")
        return f"{'; '.join(steps)} (from {self.source})"


@dataclass(frozen=True)
class OwnImages:
    """Images as a model takes them, and what is known beside.

    `shown` are pictures for people, `labels` as the task wants them (None: none), `classes` the names that number them,
    `names` those of the images (files, or numbers). `facts` says in words how all was read.
    """

    pixels: Float[Tensor, "image ..."]
    names: tuple[str, ...]
    shown: UInt8[ndarray, "image height width 3"]
    labels: Tensor | None = None
    classes: tuple[str, ...] = ()
    files: tuple[Path, ...] = ()
    masks: Int[Tensor, "image height width"] | None = None
    facts: Mapping[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.pixels)


def read_recipe(folder: Path | None, size: tuple[int, int] | None, channels: int = 3) -> Recipe:
    """The recipe of a model's folder (`preprocessor_config.json`), or its size alone; `ImagesError` for nonsense."""
    path = None if folder is None else folder / PROCESSOR
    if path is None or not path.is_file():
        if size is None:
            raise ImagesError(
                "the size that the model takes is not known: pass a tensor, or a processor's folder"
            )
        return Recipe(size, channels=channels)
    found = read_json(path)
    if not isinstance(found, dict):
        raise ImagesError(f"{path} holds {type(found).__name__}, expected keys and values")
    try:
        crop = _sides(found["crop_size"]) if found.get("do_center_crop") and "crop_size" in found else None
        told = found.get("size")
        shortest = told.get("shortest_edge") if isinstance(told, dict) else None
        own = None if told is None or shortest else _sides(told)
        if not found.get("do_resize", True):
            shortest, own = None, size
        final = crop or own or size
        if final is None or (shortest and crop is None):
            final, shortest = final or (shortest, shortest), None
        if crop and own and not shortest:
            shortest = min(own)
        normal = found.get("do_normalize", True) and found.get("image_mean") is not None
        return Recipe(
            final,
            shortest,
            float(found.get("rescale_factor", 1 / 255)) if found.get("do_rescale", True) else 1.0,
            tuple(map(float, found["image_mean"])) if normal else None,
            tuple(map(float, found["image_std"])) if normal else None,
            int(found.get("resample", 2)),
            channels,
            path.name,
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ImagesError(
            f"{path} is no image processor's configuration ({error}): mend it, or pass a tensor"
        ) from error


def read_images(
    source: object,
    recipe: Recipe,
    labels: object = None,
    classes: Sequence[str] = (),
    limit: int | None = None,
    seed: int = 0,
) -> OwnImages:
    """Read images from a folder of classes, a flat folder, a list of PIL pictures, a tensor, or a data set.

    Folders and pictures are prepared by `recipe`; tensors are taken as they are, and data sets and loaders yield dicts
    with `pixel_values` (and `labels`, `regions`) or pairs of image and label. `labels` is "folders" (each class has a
    folder: `classes`, the model's own names, number them, or else the order of the alphabet), an array of one per
    image, or None. `limit` draws so many images by `seed`. Raises `ImagesError`.
    """
    if isinstance(source, str | Path):
        return _from_folder(Path(source).expanduser(), recipe, labels, tuple(classes), limit, seed)
    if isinstance(source, Tensor):
        found = _from_tensor(source, None, None)
    elif isinstance(source, list | tuple) and source and all(isinstance(one, Image.Image) for one in source):
        found = _from_pictures(list(source), recipe)
    elif isinstance(source, Dataset | DataLoader | Iterable):
        found = _from_items(source, limit)
    else:
        raise ImagesError(
            f"images is {type(source).__name__}, expected a folder, a tensor, a list of PIL pictures, or a data set"
        )
    if isinstance(labels, str):
        raise ImagesError(
            "labels='folders' needs images in a folder of classes; pass one label per image, or None"
        )
    if labels is not None:
        found = replace(found, labels=_as_labels(labels, len(found)))
    return chosen(found, limit, seed)


def chosen(images: OwnImages, limit: int | None, seed: int) -> OwnImages:
    """At most `limit` of the images, drawn by `seed`, in their order."""
    if limit is None or len(images) <= limit:
        return images
    keep = np.sort(np.random.default_rng(seed).choice(len(images), limit, replace=False))
    at = torch.from_numpy(keep)
    return replace(
        images,
        pixels=images.pixels[at],
        names=tuple(images.names[i] for i in keep),
        shown=images.shown[keep],
        labels=None if images.labels is None else images.labels[at],
        files=tuple(images.files[i] for i in keep) if images.files else (),
        masks=None if images.masks is None else images.masks[at],
        facts={**images.facts, "drawn": f"{limit} of {len(images)} images, seed {seed}"},
    )


def open_picture(path: Path) -> Image.Image:
    """A picture of a file, loaded; `ImagesError` names the file where it is none, or has more than 100 megapixels."""
    try:
        picture = Image.open(path)
        if picture.size[0] * picture.size[1] > MOST_PIXELS:
            raise ImagesError(
                f"{path}: {picture.size[0]} x {picture.size[1]} pixels, expected at most {MOST_PIXELS:,}"
            )
        picture.load()
    except ImagesError:
        raise
    except Exception as error:
        raise ImagesError(f"{path}: no picture that can be read ({error}); remove it, or mend it") from error
    return picture


def _from_folder(
    folder: Path, recipe: Recipe, labels: object, classes: tuple[str, ...], limit: int | None, seed: int
) -> OwnImages:
    if not folder.is_dir():
        raise ImagesError(f"images: {folder} is no folder")
    kinds = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    files = _pictures_in(folder)
    by_class = labels == "folders"
    if by_class and not kinds:
        raise ImagesError(f"labels='folders', but {folder} holds no folders, expected one for each class")
    if by_class and files:
        raise ImagesError(f"{files[0]} lies beside the classes' folders, expected every image in one of them")
    numbers: list[int] = []
    facts = {}
    if kinds:
        inside = [_pictures_in(kind) for kind in kinds]
        if by_class and (empty := [kind for kind, own in zip(kinds, inside, strict=True) if not own]):
            raise ImagesError(f"{empty[0]}: no image in this class's folder; remove it, or put some in")
        files += [path for own in inside for path in own]
        if by_class:
            ids = _numbered([kind.name for kind in kinds], classes)
            numbers = [number for number, own in zip(ids, inside, strict=True) for _ in own]
            known = classes and all(kind.name in classes for kind in kinds)
            how = "the model's own names" if known else "the order of the alphabet"
            facts["labels"] = f"{len(kinds)} classes by folder, numbered by {how}"
            classes = classes if known else tuple(kind.name for kind in kinds)
    if not files:
        raise ImagesError(f"{folder} holds no images ({', '.join(SUFFIXES)})")
    count = len(files)
    if limit is not None and count > limit:
        keep = np.sort(np.random.default_rng(seed).choice(count, limit, replace=False))
        files, numbers = [files[i] for i in keep], [numbers[i] for i in keep] if numbers else []
        facts["drawn"] = f"{limit} of {count} images, seed {seed}"
    placed = [recipe.place(open_picture(path)) for path in files]
    truth = torch.tensor(numbers) if by_class else None
    if labels is not None and not by_class:
        truth = _as_labels(labels, len(files))
    return OwnImages(
        torch.stack([recipe.values(picture) for picture in placed]),
        tuple(path.relative_to(folder).as_posix() for path in files),
        np.stack([np.asarray(picture.convert("RGB")) for picture in placed]),
        truth,
        classes,
        tuple(files),
        None,
        {"images": f"{len(files)} of {folder.name}/", "preparation": str(recipe), **facts},
    )


def _pictures_in(folder: Path) -> list[Path]:
    found = sorted(
        path for path in folder.iterdir()
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and not is_companion(path.name)
    )  # fmt: skip
    for path in found:
        if not path.resolve().is_relative_to(folder.resolve()):
            raise ImagesError(f"{path} leads out of its folder: copy the file there")
    return found


def _numbered(folders: list[str], classes: tuple[str, ...]) -> list[int]:
    if classes and all(name in classes for name in folders):
        return [classes.index(name) for name in folders]
    generic = all(name.startswith("LABEL_") for name in classes)
    if classes and not generic and any(name in classes for name in folders):
        other = next(name for name in folders if name not in classes)
        raise ImagesError(
            f"the folder {other!r} is no class of the model ({', '.join(classes[:6])}): rename it"
        )
    if classes and not generic and len(folders) != len(classes):
        raise ImagesError(
            f"{len(folders)} folders ({', '.join(folders[:4])}) for {len(classes)} classes of the model "
            f"({', '.join(classes[:4])}): name the folders as the model names its classes"
        )
    return list(range(len(folders)))


def _from_tensor(pixels: Tensor, labels: Tensor | None, masks: Tensor | None) -> OwnImages:
    if pixels.ndim not in (3, 4) or len(pixels) == 0:
        raise ImagesError(f"images has shape {tuple(pixels.shape)}, expected [image, channel, height, width]")
    facts = {}
    if pixels.dtype == torch.uint8:
        pixels = pixels.float() / 255
        facts["scaled"] = "bytes divided by 255"
    if not pixels.is_floating_point():
        raise ImagesError(f"images are {pixels.dtype}, expected floating point or bytes")
    if not pixels.isfinite().all():
        raise ImagesError("images hold values that are not finite")
    low, high = float(pixels.min()), float(pixels.max())
    looks = "in [0, 1]" if low >= 0 and high <= 1 else "normalized, it seems" if low < 0 else "not in [0, 1]"
    facts |= {
        "images": f"{len(pixels)} of a tensor",
        "values": f"{low:.3g} to {high:.3g} ({looks}), taken as they are",
    }
    span = pixels.reshape(len(pixels), -1)
    floor, top = (getattr(span, end)(1).reshape(-1, *[1] * (pixels.ndim - 1)) for end in ("amin", "amax"))
    unit = (pixels - floor) / (top - floor).clamp_min(1e-12)
    unit = unit.unsqueeze(1) if unit.ndim == 3 else unit
    three = unit if unit.shape[1] == 3 else unit[:, :1].expand(-1, 3, -1, -1)
    shown = (three.permute(0, 2, 3, 1) * 255).round().byte().numpy()
    names = tuple(f"image {number + 1}" for number in range(len(pixels)))
    return OwnImages(pixels, names, shown, labels, (), (), masks, facts)


def _from_pictures(pictures: list[Image.Image], recipe: Recipe) -> OwnImages:
    placed = [recipe.place(picture) for picture in pictures]
    return OwnImages(
        torch.stack([recipe.values(picture) for picture in placed]),
        tuple(f"image {number + 1}" for number in range(len(placed))),
        np.stack([np.asarray(picture.convert("RGB")) for picture in placed]),
        facts={"images": f"{len(placed)} pictures", "preparation": str(recipe)},
    )


def _from_items(source: object, limit: int | None) -> OwnImages:
    parts: dict[str, list[Tensor]] = {"pixel_values": [], "labels": [], "regions": []}
    loader = isinstance(source, DataLoader)
    items = source if loader or not hasattr(source, "__len__") else (source[i] for i in range(len(source)))
    for number, item in enumerate(items):
        if isinstance(item, tuple | list) and len(item) == 2:
            item = {"pixel_values": item[0], "labels": item[1]}
        if not isinstance(item, Mapping) or "pixel_values" not in item:
            held = sorted(item) if isinstance(item, Mapping) else type(item).__name__
            raise ImagesError(
                f"item {number} of the data set is {held}, expected a dict with pixel_values, or an image and a label"
            )
        for name, others in (("pixel_values", ()), ("labels", ("label",)), ("regions", ("masks", "mask"))):
            value = next(
                (item[key] for key in (name, *others) if key in item and item[key] is not None), None
            )
            if value is None:
                continue
            value = torch.as_tensor(np.asarray(value) if not isinstance(value, Tensor) else value)
            parts[name].append(value if loader else value[None])
        if limit is not None and loader and sum(map(len, parts["pixel_values"])) >= limit:
            break
    count = sum(map(len, parts["pixel_values"]))
    if not count:
        raise ImagesError("the data set holds no items")
    for name in ("labels", "regions"):
        if parts[name] and sum(map(len, parts[name])) != count:
            raise ImagesError(
                f"only {sum(map(len, parts[name]))} of {count} items hold {name}, expected all or none"
            )
    joined = {name: torch.cat(values) if values else None for name, values in parts.items()}
    found = _from_tensor(joined["pixel_values"], joined["labels"], joined["regions"])
    return replace(found, facts={**found.facts, "images": f"{count} of a data set"})


def _as_labels(labels: object, count: int) -> Tensor:
    found = torch.as_tensor(labels if isinstance(labels, Tensor) else np.asarray(labels))
    if found.ndim == 0 or len(found) != count:
        raise ImagesError(f"labels has shape {tuple(found.shape)}, expected one for each of {count} images")
    return found


def _sides(told: object) -> tuple[int, int]:
    if isinstance(told, dict):
        told = (told.get("height", told.get("shortest_edge")), told.get("width", told.get("shortest_edge")))
    height, width = (told, told) if isinstance(told, int) else told
    return int(height), int(width)
