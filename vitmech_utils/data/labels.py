"""The published labels.csv: written by the recipe's names, read with every offending row named."""

import csv
import io
import math
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from vitmech_utils.arguments import checked_arguments
from vitmech_utils.data.chirps import DURATION, MAX_FREQUENCY, SWEEPS, Chirp
from vitmech_utils.strict_text import number, whole_number

COLUMNS = ("Chirp_Start_Time", "Chirp_Start_Freq", "Chirp_End_Freq", "Chirp_Duration", "Chirp_Type")
LIMITS = {  # allowed range and its unit
    "Chirp_Start_Time": (0.0, DURATION, "seconds"),
    "Chirp_Start_Freq": (0.0, MAX_FREQUENCY, "hertz"),
    "Chirp_End_Freq": (0.0, MAX_FREQUENCY, "hertz"),
    "Chirp_Duration": (0.0, DURATION, "seconds"),
}
SHOWN = 20  # offending rows that an error lists
MOST_PROBLEMS = 1000  # offending rows after which a file is given up
LARGEST = 2**27  # bytes: more than a million rows
NAMES = ("file_name", "filename", "image_name", "image_file", "image_path")
"""Titles of a column that names images, in small letters; others are known by what stands in their first row."""
COUNTS = (
    "",
    "index",
    "unnamed: 0",
    "row",
    "image",
    "image_number",
    "sample",
    "sample_number",
    "number",
    "spectrogram",
)
"""Titles of a column that counts the rows where its first value is a number; pandas writes its index without one."""
IMAGES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".gif", ".bmp", ".webp")


class FolderError(ValueError):
    """A folder of images that cannot be used; the message lists what is wrong, the first rows and their count."""

    @classmethod
    def of(cls, folder: Path, problems: Sequence[str]) -> "FolderError":
        """The error of a list of problems."""
        shown = "\n".join(f"  {problem}" for problem in problems[:SHOWN])
        more = f"\n  ... and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        return cls(f"{folder}: {len(problems)} problem(s), nothing was loaded\n{shown}{more}")


def image_name(number: int) -> str:
    """The file of sample `number`, which counts from 1."""
    return f"spectrogram_{number}.png"


def as_row(chirp: Chirp) -> dict[str, float | str]:
    """A chirp under the published column names."""
    values = (chirp.start_time, chirp.start_freq, chirp.end_freq, chirp.duration, chirp.sweep)
    return dict(zip(COLUMNS, values, strict=True))


@checked_arguments()
def write_labels(chirps: Iterable[Chirp], extra: dict[str, Sequence[str]] | None = None) -> str:
    """The text of a labels file, with further columns put before the published ones."""
    extra = extra or {}
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*extra, *COLUMNS])
    for place, chirp in enumerate(chirps):
        writer.writerow([*(column[place] for column in extra.values()), *as_row(chirp).values()])
    return text.getvalue()


@checked_arguments()
def read_labels(path: Path) -> tuple[list[Chirp], list[str]]:
    """The chirps of a labels file, that of image 1 first, or what is wrong with it: a problem per offending row.

    Without a column that names images, row N is about image N. With one, each row is about the image that it names.
    """
    try:
        if not path.exists() and not path.is_symlink():
            return [], [
                f"{path.name} is missing: an interrupted export goes on when export_folder is called again"
            ]
        if not path.is_file():
            return [], [f"{path.name} is not a file"]
        if not path.resolve().is_relative_to(path.parent.resolve()):
            return [], [f"{path.name} leads out of the folder: copy the file instead of linking it"]
        if (size := path.stat().st_size) > LARGEST:
            return [], [f"{path.name} has {size:,} bytes, expected at most {LARGEST:,}"]
        with path.open(encoding="utf-8-sig", newline="") as file:
            return _read_rows(path.name, csv.reader(file, strict=True))
    except UnicodeDecodeError as error:
        return [], [f"{path.name} is not UTF-8 text (byte {error.start})"]
    except OSError as error:
        return [], [f"{path.name} cannot be read ({error.strerror})"]


def _read_rows(name: str, rows: "csv.Reader") -> tuple[list[Chirp], list[str]]:
    chirps: list[Chirp] = []
    problems: list[str] = []
    try:
        header = [column.strip() for column in next(rows, [])]
        if wrong := _wrong_in_header(header):
            return [], [f"{name} line 1: {wrong}"]
        order = _Order([column for column in header if column not in COLUMNS])
        for row in rows:
            if not any(cell.strip() for cell in row):
                continue
            cells = dict(zip(header, row, strict=False))
            wrong = _check_row(cells, len(row), len(header), chirps)
            if not wrong:
                wrong = order.wrong_in(cells, len(chirps))
            problems += [f"{name} line {rows.line_num}: {what}" for what in wrong]
            if len(problems) >= MOST_PROBLEMS:
                return [], [*problems, f"{name}: the rest was not looked at"]
    except csv.Error as error:
        problems.append(f"{name} line {rows.line_num}: not comma-separated text ({error})")
    if not chirps and not problems:
        problems.append(f"{name} holds no chirps")
    return (chirps, problems) if problems else order.sort(name, chirps)


def _wrong_in_header(header: list[str]) -> str | None:
    missing = [name for name in COLUMNS if name not in header]
    if missing:
        listed = ", ".join(header)
        return f"no column {', '.join(missing)}; it has {listed[:300] or 'none'}{'...' * (len(listed) > 300)}"
    twice = sorted({name for name in header if header.count(name) > 1})
    return f"column {', '.join(twice)[:300]} stands there more than once" if twice else None


class _Order:
    """Which image each row is about: the one that a column names, or the row's own number.

    A column names images by its title (`NAMES`) or by its first value. One that counts the rows, as tables of other
    programs have it, must count them without a gap from 0 or 1.
    """

    def __init__(self, columns: list[str]) -> None:
        self.columns = columns
        self.naming: str | None = None
        self.lines: dict[int, int] = {}  # image -> row
        self.first: dict[str, int] = {}  # where a counting column starts

    def wrong_in(self, cells: dict[str, str], row: int) -> list[str]:
        """What is wrong with what a row (from 1) says of its place."""
        if row == 1:
            self.naming = next(
                (column for column in self.columns if _names_image(column, cells[column])), None
            )
        for column in self.columns:
            if column != self.naming and _names_image(column, cells[column]):
                return [f"{column} is {cells[column][:80]!r}, but the first row names no image there"]
            if column.lower() in COUNTS and (wrong := self._miscounted(column, cells[column], row)):
                return [wrong]
        if self.naming is None:
            return []
        told = cells[self.naming].strip()
        found = re.fullmatch(r"spectrogram_([1-9]\d{0,8})(\.png)?", told, re.ASCII)
        if found is None:
            return [f"{self.naming} is {told[:80]!r}, expected a file of this folder, as {image_name(row)}"]
        number = int(found[1])
        if number in self.lines:
            return [f"{self.naming} is {told!r}, which row {self.lines[number]} names as well"]
        self.lines[number] = row
        return []

    def _miscounted(self, column: str, text: str, row: int) -> str | None:
        try:
            value = whole_number(text)
        except ValueError:
            if column not in self.first:
                return None  # no count: its first row held something else
            return f"{column or 'the column without a title'} is {text[:80]!r}, expected a count of the rows"
        if row > 1 and column not in self.first:
            return None
        first = self.first.setdefault(column, value)
        if first not in (0, 1) or value != first + row - 1:
            shown = column or "the column without a title"
            return (
                f"{shown} is {value}, expected {(first if first in (0, 1) else 1) + row - 1}: the rows are in another "
                "order than they were written in; sort them by it, or take the column out"
            )
        return None

    def sort(self, name: str, chirps: list[Chirp]) -> tuple[list[Chirp], list[str]]:
        """The chirps in the order of their images."""
        if self.naming is None:
            return chirps, []
        absent = [number for number in range(1, len(chirps) + 1) if number not in self.lines]
        if absent:
            return [], [f"{name}: no row names {image_name(number)}" for number in absent[:MOST_PROBLEMS]]
        return [chirps[self.lines[number] - 1] for number in range(1, len(chirps) + 1)], []


def _names_image(column: str, value: str) -> bool:
    told = value.strip().lower()
    return column.lower() in NAMES or told.endswith(IMAGES) or told.startswith("spectrogram_")


def _check_row(cells: dict[str, str], found: int, expected: int, chirps: list[Chirp]) -> list[str]:
    """Append the row's chirp, or say in one line what is wrong with it."""
    if found != expected:
        return [f"{found} cells, expected {expected}"]
    wrong, values = [], {}
    for name, (low, high, unit) in LIMITS.items():
        try:
            values[name] = number(cells[name])
        except ValueError:
            wrong.append(f"{name} is {cells[name][:80]!r}, expected {unit} in [{low:g}, {high:g}]")
            continue
        if not (math.isfinite(values[name]) and low <= values[name] <= high):
            wrong.append(f"{name} is {cells[name].strip()[:80]}, expected {unit} in [{low:g}, {high:g}]")
    sweep = cells["Chirp_Type"].strip()
    if sweep not in SWEEPS:
        wrong.append(f"Chirp_Type is {sweep[:80]!r}, expected one of {', '.join(SWEEPS)}")
    if not wrong:
        try:
            chirps.append(Chirp(*values.values(), sweep))
        except ValueError as error:
            wrong.append(str(error))
    return ["; ".join(wrong)] if wrong else []
