"""Spectrograms of epileptic seizures with boxes drawn by hand, as their author publishes them: PNG files and one table.

Pictures are named `<recording>_<seconds>_ch<channel>_spectrogram.png`; a recording may have several excerpts, and each
excerpt has two channels. None of these are independent of another, so recordings are what folds and intervals draw.
The table has one row per box, in the order in which they were drawn; the program that wrote it wrote all boxes of
a picture again with each new one, so equal rows are one box.
"""

import functools
import re
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int, UInt8
from numpy import ndarray
from PIL import Image

from vitmech_utils.arguments import checked_arguments
from vitmech_utils.data.chirps import BINS
from vitmech_utils.data.figures import Drawing
from vitmech_utils.data.image_files import check_png, read_png
from vitmech_utils.data.recordings.boxes import AnnotationError, Box
from vitmech_utils.data.recordings.spectrograms import Axes, cell_overlaps, cover
from vitmech_utils.data.recordings.windows import draw_window, filled
from vitmech_utils.data.reference import IMAGE_SIZE
from vitmech_utils.data.regions import AREA, REGIONS
from vitmech_utils.data.style import Style

AXES = Axes(0.0, 60.0, 1.0, 60.0)  # seconds and hertz of the plot, by the package's own settings
PLOT = (17, 29, 199, 203)  # top, left, bottom, right of the plot in the picture; a white margin is around it
ROWS, COLUMNS = PLOT[2] - PLOT[0], PLOT[3] - PLOT[1]
NAME = re.compile(r"(?P<excerpt>(?P<recording>\d+)_\d+(?:\.\d+)?)_ch(?P<channel>[12])_spectrogram\.png")
AUGMENTED = re.compile(r"\d+_\d+(?:\.\d+)?_ch[12]_augment\d+_spectrogram\.png")
TABLE = ("image_file", "has_roi", "start_time", "end_time", "start_freq", "end_freq")
SHOWN = 5  # names that an error lists
MOST_ROWS = 100_000
COMMON = 50  # pixels of a colour that is one of the map's; a mixture of two occurs on a few
LARGEST_STEP = 24  # between neighbouring colours of a map, summed over red, green and blue
FEWEST_COLOURS = 16


@dataclass(frozen=True)
class SeizurePicture:
    """One channel of an excerpt: its pixels as published, and its boxes (s, Hz) in the order of the table."""

    name: str
    recording: str
    excerpt: str
    channel: int
    image: UInt8[ndarray, "224 224 3"]
    boxes: tuple[Box, ...]

    @property
    def axes_labels(self) -> Float[ndarray, "3"]:
        """Start time (s), lower and upper frequency (Hz) of the first box."""
        first = self.boxes[0]
        return np.array([first.start, first.low, first.high])

    def plain(self) -> Drawing:
        """The picture as it is, with its region map: margin, plot background, and the boxes as chirp."""
        regions = np.zeros((IMAGE_SIZE, IMAGE_SIZE), np.uint8)
        inside = np.where(self._covered() >= AREA, REGIONS.index("chirp"), REGIONS.index("plot background"))
        top, left, bottom, right = PLOT
        regions[top:bottom, left:right] = inside
        return Drawing(self.image, regions)

    def decorated(self, scale: "ColourScale", style: Style | str = "published") -> Drawing:
        """The same picture's numbers as a decorated figure, with its own seconds and hertz at the ticks."""
        title = f"Recording {self.excerpt.replace('_', ', ')} s, channel {self.channel}"
        return draw_window(self.grid(scale), filled(cover(self.boxes, AXES)), AXES, style, title)

    def grid(self, scale: "ColourScale") -> Float[ndarray, "128 128"]:
        """The picture's numbers, in [0, 1], averaged over the cells of a grid; row 0 is 1 Hz."""
        return cell_means(scale.read(plot_of(self.image))[::-1], BINS)

    def _covered(self) -> Float[ndarray, "182 174"]:
        """The part of each of the plot's pixels that boxes cover; the first row is the highest frequency."""
        return cover(self.boxes, AXES, (ROWS, COLUMNS))[::-1]


@dataclass(frozen=True)
class Seizures:
    """The pictures that have a box, by name, and why others were left out."""

    pictures: tuple[SeizurePicture, ...]
    left_out: Mapping[str, str] = field(default_factory=dict)

    @property
    def recordings(self) -> list[str]:
        """The recording of each picture."""
        return [picture.recording for picture in self.pictures]

    @functools.cached_property
    def scale(self) -> "ColourScale":
        """The colour map that the pictures share."""
        return colour_scale(picture.image for picture in self.pictures)

    def first(self, recordings: int) -> "Seizures":
        """The pictures of the first so many recordings, by number."""
        kept = sorted(set(self.recordings))[:recordings]
        return Seizures(tuple(p for p in self.pictures if p.recording in kept), self.left_out)


@checked_arguments(AnnotationError)
def read_seizures(folder: Path | str, table: str = "default_annotations.xlsx") -> Seizures:
    """Read a folder of pictures and the table of their boxes.

    Pictures without a box (said to have none, or not named in the table) and boxes without an extent are left out, by
    name. Raises AnnotationError, which names file and row: for a table of other columns or in another order, a row that
    cannot be one, a box that leaves the picture, a picture that the table names and that is not there (an augmented one
    may be missing), one that is damaged or has its plot elsewhere, and where no picture has a box.
    """
    folder = Path(folder)
    files = sorted(path for path in folder.glob("*.png") if NAME.fullmatch(path.name))
    boxes, left_out = read_box_table(folder / table, {path.name for path in files})
    pictures = []
    for path in files:
        if not boxes.get(path.name):
            left_out.setdefault(path.name, "the table does not name it")
            continue
        found = NAME.fullmatch(path.name)
        assert found is not None
        image = _read_picture(path, folder)
        pictures.append(
            SeizurePicture(
                path.name,
                found["recording"],
                found["excerpt"],
                int(found["channel"]),
                image,
                tuple(boxes[path.name]),
            )
        )
    if not pictures:
        raise AnnotationError(f"{folder}: no picture with a box, expected PNG files that {table} names")
    return Seizures(tuple(pictures), dict(sorted(left_out.items())))


@checked_arguments(AnnotationError)
def read_box_table(path: Path, pictures: Iterable[str]) -> tuple[dict[str, list[Box]], dict[str, str]]:
    """The distinct boxes of each picture in the table's order, and what was left out (picture: reason).

    `pictures` are the names of those that lie beside the table. Errors as in `read_seizures`.
    """
    pictures = set(pictures)
    rows = _read_sheet(path)
    boxes: dict[str, list[Box]] = {}
    left_out: dict[str, str] = {}
    problems: list[str] = []
    for number, row in enumerate(rows, start=2):  # as a spreadsheet counts them
        if AUGMENTED.fullmatch(str(row[0])) and row[0] not in pictures:
            continue
        try:
            name, box = _read_row(row, pictures)
        except ValueError as error:
            problems.append(f"row {number}: {error}")
            continue
        if box is None:
            left_out[name] = "the table says that it has no box"
        elif isinstance(box, str):
            left_out[f"{name}, row {number}"] = box
        elif box not in boxes.setdefault(name, []):
            boxes[name].append(box)
    contradicted = sorted(set(boxes) & set(left_out))
    problems += [f"{name} has boxes, and rows that say it has none" for name in contradicted]
    if problems:
        more = f"; and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        raise AnnotationError(f"{path.name}: {'; '.join(problems[:SHOWN])}{more}")
    return boxes, left_out


def _read_sheet(path: Path) -> list[tuple]:
    if not path.is_file():
        raise AnnotationError(
            f"{path.name} is not in {path.parent}: expected the table of boxes beside the pictures"
        )
    try:
        sheets = pd.read_excel(path, sheet_name=None, engine="openpyxl", nrows=MOST_ROWS + 1)
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        SyntaxError,
        zipfile.BadZipFile,
    ) as error:
        raise AnnotationError(
            f"{path.name} cannot be read as a spreadsheet ({error}): fetch it again"
        ) from error
    if len(sheets) != 1:
        raise AnnotationError(f"{path.name} has the sheets {', '.join(sheets)}, expected one")
    (sheet,) = sheets.values()
    if (found := tuple(map(str, sheet.columns))) != TABLE:
        raise AnnotationError(
            f"{path.name} has the columns {', '.join(found)}, expected {', '.join(TABLE)} in this order: it is another "
            "version of the table"
        )
    if len(sheet) > MOST_ROWS:
        raise AnnotationError(f"{path.name} has more than {MOST_ROWS:,} rows")
    return list(sheet.itertuples(index=False, name=None))


def _read_row(row: tuple, pictures: set[str]) -> tuple[str, Box | str | None]:
    """Whose row it is, and its box: None where it says that there is none, a reason where the box has no extent."""
    name, has_box, *values = row
    if not isinstance(name, str) or not (NAME.fullmatch(name) or AUGMENTED.fullmatch(name)):
        raise ValueError(f"image_file is {str(name)[:80]!r}, expected RECORDING_SECONDS_chN_spectrogram.png")
    if name not in pictures:
        raise ValueError(f"{name} is not among the pictures")
    if not isinstance(has_box, bool | np.bool_):
        raise ValueError(f"{name}: has_roi is {str(has_box)[:40]!r}, expected TRUE or FALSE")
    missing = [column for column, value in zip(TABLE[2:], values, strict=True) if pd.isna(value)]
    if not has_box:
        if len(missing) < len(values):
            raise ValueError(f"{name}: has_roi is FALSE, but the row holds a box")
        return name, None
    if missing:
        raise ValueError(f"{name}: {', '.join(missing)} is empty, expected a number")
    try:
        start, end, low, high = map(float, values)
    except (TypeError, ValueError):
        raise ValueError(f"{name}: {values!r} are not all numbers") from None
    if start == end or low == high:
        return name, f"a box without extent, {start:g} to {end:g} s and {low:g} to {high:g} Hz"
    box = Box(start, end, low, high)
    if box.end > AXES.end or box.low < AXES.low or box.high > AXES.high:
        raise ValueError(
            f"{name}: the box from {start:g} to {end:g} s and from {low:g} to {high:g} Hz leaves the picture, which "
            f"shows {AXES.start:g} to {AXES.end:g} s and {AXES.low:g} to {AXES.high:g} Hz"
        )
    return name, box


def _read_picture(path: Path, folder: Path) -> UInt8[ndarray, "224 224 3"]:
    if problem := check_png(path, folder):
        raise AnnotationError(f"{path.name} {problem}")
    with Image.open(path, formats=["PNG"]) as file:
        size = file.size
    if size != (IMAGE_SIZE, IMAGE_SIZE):
        raise AnnotationError(
            f"{path.name} has {size[0]} x {size[1]} pixels, expected {IMAGE_SIZE} x {IMAGE_SIZE}"
        )
    try:
        image = read_png(path)
    except ValueError as error:
        raise AnnotationError(str(error)) from error
    top, left, bottom, right = PLOT
    white = (image == 255).all(axis=2)
    if white[top:bottom, left:right].any() or white.sum() != white.size - ROWS * COLUMNS:
        raise AnnotationError(
            f"{path.name}: its plot is not at rows {top} to {bottom - 1} and columns {left} to {right - 1} with white "
            "around it, so its boxes would lie elsewhere"
        )
    return image


# From colours back to numbers


@dataclass(frozen=True)
class ColourScale:
    """The colours of a map in their order, from the lowest value to the highest."""

    colours: UInt8[ndarray, "colour 3"]

    def read(self, pixels: UInt8[ndarray, "row column 3"]) -> Float[ndarray, "row column"]:
        """The place of each pixel's colour on the map, in [0, 1]; of the nearest one where it is none of them."""
        return self._places(pixels) / (len(self.colours) - 1)

    def exact(self, pixels: UInt8[ndarray, "row column 3"]) -> Bool[ndarray, "row column"]:
        """Which pixels have one of the map's colours."""
        return np.isin(_packed(pixels), _packed(self.colours))

    def paint(self, values: Float[ndarray, "row column"]) -> UInt8[ndarray, "row column 3"]:
        """The colours of values in [0, 1]."""
        return self.colours[np.rint(np.clip(values, 0, 1) * (len(self.colours) - 1)).astype(int)]

    def _places(self, pixels: UInt8[ndarray, "row column 3"]) -> Int[ndarray, "row column"]:
        seen, where = np.unique(_packed(pixels), return_inverse=True)
        colours = np.stack([seen >> 16, seen >> 8 & 255, seen & 255], axis=1)
        away = ((colours[:, None] - self.colours.astype(np.int64)[None]) ** 2).sum(axis=2)
        return away.argmin(axis=1)[where].reshape(pixels.shape[:2])


@checked_arguments(AnnotationError)
def colour_scale(images: Iterable[UInt8[ndarray, "224 224 3"]]) -> ColourScale:
    """The colour map of pictures that share one, found in their own plots.

    Colours that more than a few pixels have are the map's (others are mixtures at edges); beginning with the darkest,
    each is followed by the nearest of those that are left. Raises AnnotationError where they form no line: fewer than
    16 colours, or a step that is no small one, as where pictures have different maps.
    """
    packed = np.concatenate([_packed(plot_of(image)).ravel() for image in images])
    seen, counts = np.unique(packed, return_counts=True)
    common = seen[counts > COMMON]
    left = np.stack([common >> 16, common >> 8 & 255, common & 255], axis=1)
    if len(left) < FEWEST_COLOURS:
        raise AnnotationError(
            f"the pictures hold {len(left)} colours on more than {COMMON} pixels each, expected {FEWEST_COLOURS} or "
            "more: too few to find their colour map in"
        )
    at = int((left @ [299, 587, 114]).argmin())
    chain = [left[at]]
    left = np.delete(left, at, axis=0)
    while len(left):
        away = np.abs(left - chain[-1]).sum(axis=1)
        at = int(away.argmin())
        if away[at] > LARGEST_STEP:
            raise AnnotationError(
                f"the pictures' colours form no single map: after {len(chain)} of them, "
                f"{tuple(chain[-1].tolist())} is followed by {tuple(left[at].tolist())} at the nearest"
            )
        chain.append(left[at])
        left = np.delete(left, at, axis=0)
    return ColourScale(np.array(chain, dtype=np.uint8))


@checked_arguments()
def plot_of(image: UInt8[ndarray, "224 224 3"]) -> UInt8[ndarray, "182 174 3"]:
    """The plot of a picture, without its margin."""
    top, left, bottom, right = PLOT
    return image[top:bottom, left:right]


@checked_arguments()
def cell_means(values: Float[ndarray, "row column"], cells: int) -> Float[ndarray, "cells cells"]:
    """The mean of an image over each cell of a square grid, pixels that reach over an edge by their parts."""
    down, across = (
        cell_overlaps(np.linspace(0, size, cells + 1), np.arange(size + 1.0)) for size in values.shape
    )
    return down @ values @ across.T


def _packed(pixels: UInt8[ndarray, "... 3"]) -> Int[ndarray, "..."]:
    red, green, blue = np.moveaxis(pixels.astype(np.int64), -1, 0)
    return red << 16 | green << 8 | blue


# Folds


@checked_arguments(least={"count": 2})
def folds(recordings: Sequence[str], count: int = 5, seed: int = 0) -> Int[ndarray, " picture"]:
    """A fold (0-based) for each picture such that no recording is in two, with numbers of pictures as equal as may be.

    `recordings` names the recording of every picture. Recordings come in random order of `seed`, the large ones first,
    each to the smallest fold. Raises ValueError for fewer recordings than folds.
    """
    names, sizes = np.unique(np.asarray(recordings, dtype=str), return_counts=True)
    if len(names) < count:
        raise ValueError(
            f"{len(names)} recordings cannot be parted into {count} folds, expected {count} or more"
        )
    order = np.random.default_rng(seed).permutation(len(names))
    order = order[np.argsort(-sizes[order], kind="stable")]
    filled_to, fold = np.zeros(count, dtype=int), {}
    for place in order:
        smallest = int(filled_to.argmin())
        fold[str(names[place])] = smallest
        filled_to[smallest] += sizes[place]
    found = np.array([fold[name] for name in recordings], dtype=np.int64)
    check_folds(recordings, found)
    return found


@checked_arguments()
def check_folds(recordings: Sequence[str], fold: Int[ndarray, " picture"]) -> None:
    """Raise ValueError, which names them, where pictures of one recording are in different folds.

    What is fitted on one of them would be judged on the other, which it knows.
    """
    if len(recordings) != len(fold):
        raise ValueError(f"{len(recordings)} recordings and {len(fold)} folds, expected one per picture")
    seen: dict[str, set[int]] = {}
    for name, number in zip(recordings, fold, strict=True):
        seen.setdefault(name, set()).add(int(number))
    if shared := [name for name, numbers in sorted(seen.items()) if len(numbers) > 1]:
        told = "; ".join(f"{name} in {', '.join(map(str, sorted(seen[name])))}" for name in shared[:SHOWN])
        raise ValueError(
            f"{len(shared)} recording(s) are in two folds or more ({told}), expected each in one: both channels and "
            "all excerpts of a recording belong together"
        )
