"""The published labels.csv: written by the recipe's names, read with every offending row named."""

import csv
import io
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

from vitmech_utils.data.chirps import DURATION, MAX_FREQUENCY, SWEEPS, Chirp

COLUMNS = ("Chirp_Start_Time", "Chirp_Start_Freq", "Chirp_End_Freq", "Chirp_Duration", "Chirp_Type")
LIMITS = {  # allowed range and its unit
    "Chirp_Start_Time": (0.0, DURATION, "seconds"),
    "Chirp_Start_Freq": (0.0, MAX_FREQUENCY, "hertz"),
    "Chirp_End_Freq": (0.0, MAX_FREQUENCY, "hertz"),
    "Chirp_Duration": (0.0, DURATION, "seconds"),
}
SHOWN = 20  # offending rows that an error lists


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


def write_labels(chirps: Iterable[Chirp], extra: dict[str, Sequence[str]] | None = None) -> str:
    """The text of a labels file, with further columns put before the published ones."""
    extra = extra or {}
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*extra, *COLUMNS])
    for place, chirp in enumerate(chirps):
        writer.writerow([*(column[place] for column in extra.values()), *as_row(chirp).values()])
    return text.getvalue()


def read_labels(path: Path) -> tuple[list[Chirp], list[str]]:
    """The chirps of a labels file, or what is wrong with it: one problem per offending row, with its line."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        return [], [
            f"{path.name} is missing: an interrupted export goes on when export_folder is called again"
        ]
    except UnicodeDecodeError as error:
        return [], [f"{path.name} is not UTF-8 text (byte {error.start})"]
    rows = csv.reader(io.StringIO(text, newline=""))
    header = [name.strip() for name in next(rows, [])]
    missing = [name for name in COLUMNS if name not in header]
    if missing:
        return [], [
            f"{path.name} line 1: no column {', '.join(missing)}; it has {', '.join(header) or 'none'}"
        ]
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        return [], [f"{path.name} line 1: column {', '.join(twice)} stands there more than once"]
    chirps, problems = [], []
    try:
        for row in rows:
            if not any(cell.strip() for cell in row):
                continue
            wrong = _check_row(dict(zip(header, row, strict=False)), len(row), len(header), chirps)
            problems += [f"{path.name} line {rows.line_num}: {what}" for what in wrong]
    except csv.Error as error:
        problems.append(f"{path.name} line {rows.line_num}: not comma-separated text ({error})")
    if not chirps and not problems:
        problems.append(f"{path.name} holds no chirps")
    return chirps, problems


def _check_row(cells: dict[str, str], found: int, expected: int, chirps: list[Chirp]) -> list[str]:
    """Append the row's chirp, or say in one line what is wrong with it."""
    if found != expected:
        return [f"{found} cells, expected {expected}"]
    wrong, values = [], {}
    for name, (low, high, unit) in LIMITS.items():
        try:
            values[name] = float(cells[name])
        except ValueError:
            wrong.append(f"{name} is {cells[name]!r}, expected {unit} in [{low:g}, {high:g}]")
            continue
        if not (math.isfinite(values[name]) and low <= values[name] <= high):
            wrong.append(f"{name} is {cells[name]}, expected {unit} in [{low:g}, {high:g}]")
    sweep = cells["Chirp_Type"].strip()
    if sweep not in SWEEPS:
        wrong.append(f"Chirp_Type is {sweep!r}, expected one of {', '.join(SWEEPS)}")
    if not wrong:
        try:
            chirps.append(Chirp(*values.values(), sweep))
        except ValueError as error:
            wrong.append(str(error))
    return ["; ".join(wrong)] if wrong else []
