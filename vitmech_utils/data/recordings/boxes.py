"""Time-frequency boxes that people drew around sounds: Raven selection tables and Audacity label files."""

import math
import re
import unicodedata
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from numbers import Real
from pathlib import Path

from vitmech_utils.arguments import check_fields, checked_arguments
from vitmech_utils.strict_text import number, whole_number

RAVEN = {  # the columns that a selection table must have, by what they hold
    "start": "Begin Time (s)",
    "end": "End Time (s)",
    "low": "Low Freq (Hz)",
    "high": "High Freq (Hz)",
}
FILES = ("Begin File", "End File", "Begin Path", "End Path")  # columns that name the recording
OFFSET = "File Offset (s)"  # Begin Time counted from the start of the file, not of the first of several
ROUNDED = 1e-3  # seconds that annotation programs may round away
SHOWN = 10  # problems that an error lists
LARGEST = 2**26  # bytes; a table of a hundred thousand boxes has a third of that
UNKNOWN_BAND = (0.0, math.inf)  # an Audacity label without frequencies is about all of them


class AnnotationError(ValueError):
    """An annotation file that cannot be used; the message names the lines and what was expected there."""


@dataclass(frozen=True)
class Box:
    """A part of a recording: seconds from its start, hertz, what its maker called it, its channel (from 1, or None).

    `high` is infinite for a label without frequencies. Raises ValueError for a box that is empty, upside down, not
    finite otherwise, or before the recording's start.
    """

    start: Real
    end: Real
    low: Real
    high: Real
    label: str = ""
    channel: int | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        if not (math.isfinite(self.start) and math.isfinite(self.end) and 0 <= self.start < self.end):
            raise ValueError(
                f"the box runs from {self.start:g} to {self.end:g} s, expected seconds with 0 <= start < end"
            )
        if not (math.isfinite(self.low) and not math.isnan(self.high) and 0 <= self.low < self.high):
            raise ValueError(
                f"the box reaches from {self.low:g} to {self.high:g} Hz, expected hertz with 0 <= low < high"
            )


@checked_arguments(AnnotationError)
def read_boxes(path: str | Path, recording: str | None = None, others: Collection[str] = ()) -> list[Box]:
    """The boxes of a file, in its order: a Raven selection table if its first line has Raven's columns, else Audacity.

    `recording` is the name of the file that the boxes are about, `others` those of the recordings beside it. Columns of
    a table that name a file must name it, whatever its ending (it may have been converted) unless that names one of the
    others; where no name is given, all must name the same file. Raises AnnotationError, which names every line that
    cannot be read, that is about another file, or whose selection number stands for two different selections.
    """
    path = Path(path)
    lines = _lines(path)
    if not is_raven(lines[0]):
        return _read_audacity(path, lines)
    return _read_raven(path, lines, recording, {same_name(name) for name in others})


def is_raven(line: str) -> bool:
    """Whether a first line is that of a selection table."""
    names = {name.strip() for name in line.split("\t")}
    return "Selection" in names or RAVEN["start"] in names


def same_name(name: str) -> str:
    """A file's name without folders, in one spelling: Unicode's composed form, whatever the case."""
    bare = re.split(r"[/\\]", name.strip())[-1]
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", bare).casefold())


@checked_arguments()
def write_raven(boxes: Iterable[Box], path: str | Path) -> Path:
    """Write boxes as a Raven selection table; all must have a band. Returns the path."""
    rows = ["\t".join(["Selection", "View", "Channel", *RAVEN.values(), "Annotation"])]
    for place, box in enumerate(boxes, start=1):
        if math.isinf(box.high):
            raise ValueError(
                f"box {place} has no frequencies, which a selection table must give: give it a band"
            )
        values = (box.start, box.end, box.low, box.high)
        rows.append(
            "\t".join(
                [str(place), "Spectrogram 1", str(box.channel or 1), *map(repr, values), _plain(box.label)]
            )
        )
    path = Path(path)
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path


@checked_arguments()
def outside(boxes: Sequence[Box], duration: Real, highest: Real, channels: int | None = None) -> list[str]:
    """What is wrong with boxes of a recording of `duration` seconds and frequencies up to `highest` Hz, in words.

    A thousandth of a second over the end is forgiven: annotation programs round. With `channels`, boxes on a channel
    that the recording does not have are wrong, too. At most `SHOWN` problems are listed.
    """
    problems = []
    for place, box in enumerate(boxes, start=1):
        if len(problems) >= SHOWN:
            return [*problems[:SHOWN], "and more"]
        if box.end > duration + ROUNDED:
            problems.append(f"box {place} ends at {box.end:g} s, but the recording at {duration:g} s")
        if box.low >= highest or (math.isfinite(box.high) and box.high > highest * (1 + 1e-6)):
            problems.append(
                f"box {place} reaches from {box.low:g} to {box.high:g} Hz, but the recording's sample rate holds "
                f"frequencies up to {highest:g} Hz"
            )
        if channels is not None and box.channel is not None and box.channel > channels:
            problems.append(
                f"box {place} is on channel {box.channel}, but the recording has {channels}: was it drawn on another?"
            )
    return problems


def _lines(path: Path) -> list[str]:
    try:
        if not path.is_file():
            raise AnnotationError(f"{path.name} is not a file: expected a selection table or labels")
        if (size := path.stat().st_size) > LARGEST:
            raise AnnotationError(f"{path.name} has {size:,} bytes, expected at most {LARGEST:,}")
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise AnnotationError(
            f"{path.name} is not UTF-8 text (byte {error.start}): save it as UTF-8"
        ) from error
    except OSError as error:
        raise AnnotationError(f"{path.name} cannot be read ({error.strerror})") from error
    # No `splitlines`: a label may hold Unicode's own line separators.
    return text.replace("\r\n", "\n").replace("\r", "\n").removesuffix("\n").split("\n")


def _read_raven(path: Path, lines: list[str], recording: str | None, others: set[str]) -> list[Box]:
    header = [name.strip() for name in lines[0].split("\t")]
    missing = [name for name in ("Selection", *RAVEN.values()) if name not in header]
    if missing:
        raise AnnotationError(
            f"{path.name} line 1: no column {', '.join(missing)}; it has {', '.join(header)[:500]}. Switch these "
            "measurements on in Raven and save the table again"
        )
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise AnnotationError(f"{path.name} line 1: column {', '.join(twice)} stands there more than once")
    notes = next((name for name in header if name.lower().startswith("annotation")), None)
    boxes, problems = [], []
    seen: dict[tuple[int, int | None], tuple[int, Box]] = {}
    for line_number, line in enumerate(lines[1:], start=2):
        if not line.strip():
            continue
        if len(problems) > SHOWN:
            break
        cells = line.split("\t")
        if len(cells) != len(header):
            problems.append(f"line {line_number}: {len(cells)} cells, expected {len(header)}")
            continue
        row = {name: cell.strip() for name, cell in zip(header, cells, strict=True)}
        try:
            values = {key: _number(row[name], name) for key, name in RAVEN.items()}
            channel = _whole(row["Channel"], "Channel", 1) if "Channel" in row else None
            selection = _whole(row["Selection"], "Selection", 0)
            box = Box(**values, label=row[notes] if notes else "", channel=channel)
            recording = _check_file(row, box, recording, others)
            # Raven lists a selection once for each view: waveform and spectrogram.
            before, same = seen.setdefault((selection, channel), (line_number, box))
            if before == line_number:
                boxes.append(box)
            elif box != same:
                raise ValueError(
                    f"Selection {selection} is another one than in line {before}: if all are about this recording, "
                    "number them anew"
                )
        except ValueError as error:
            place = " ".join(row[name] for name in RAVEN.values())
            problems.append(f"line {line_number}: {error} (found {place[:200]})")
    return _told(path, boxes, problems)


def _check_file(row: dict[str, str], box: Box, recording: str | None, others: set[str]) -> str | None:
    """Refuse a row about another recording, or one whose times are counted through several; returns the recording."""
    for column in FILES:
        if not (told := row.get(column)):
            continue
        recording = told if recording is None else recording
        own, name = same_name(recording), same_name(told)
        converted = _stem(name) == _stem(own) and name not in others
        if name != own and not converted:
            raise ValueError(
                f"{column} is {told[:100]!r}, expected {recording[:100]}: save the selections of each recording in a "
                "table of its own"
            )
    if row.get(OFFSET):
        offset = _number(row[OFFSET], OFFSET)
        if not abs(offset - box.start) <= ROUNDED:
            raise ValueError(
                f"{OFFSET} is {offset:g}, but {RAVEN['start']} {box.start:g}: times are counted through several "
                "files; open the recording alone, and save its selections again"
            )
    return recording


def _stem(name: str) -> str:
    return name.rpartition(".")[0] or name


def _read_audacity(path: Path, lines: list[str]) -> list[Box]:
    boxes, problems = [], []
    last = False  # whether the line before was a label that was read: a band may follow it
    for line_number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        if len(problems) > SHOWN:
            break
        cells = line.split("\t")
        try:
            if cells[0].strip() == "\\":
                if not last:
                    raise ValueError("a band without a label in the line before it")
                if len(cells) != 3:
                    raise ValueError(f"{len(cells)} cells, expected a backslash, low and high frequency")
                last = False
                old = boxes.pop()
                low, high = (
                    _number(cell, name) for cell, name in zip(cells[1:], ("low", "high"), strict=True)
                )
                # Audacity writes -1 for an edge that was not set.
                low, high = max(low, 0.0) if low == -1 else low, math.inf if high == -1 else high
                boxes.append(Box(old.start, old.end, low, high, old.label))
                continue
            last = False
            if len(cells) not in (2, 3):
                raise ValueError(f"{len(cells)} cells, expected start, end and label between tabs")
            start, end = (_number(cell, name) for cell, name in zip(cells[:2], ("start", "end"), strict=True))
            if start == end:
                raise ValueError(
                    f"a label of a point at {start:g} s marks no sound: drag it to the sound's length in Audacity, or "
                    "delete it"
                )
            boxes.append(Box(start, end, *UNKNOWN_BAND, cells[2].strip() if len(cells) > 2 else ""))
            last = True
        except ValueError as error:
            problems.append(f"line {line_number}: {error}")
    return _told(path, boxes, problems)


def _told(path: Path, boxes: list[Box], problems: list[str]) -> list[Box]:
    if problems:
        more = ["and more"] if len(problems) > SHOWN else []
        raise AnnotationError(f"{path.name}: " + "; ".join([*problems[:SHOWN], *more]))
    return boxes


def _number(text: str, name: str) -> float:
    try:
        return number(text)
    except ValueError:
        raise ValueError(f"{name} is {text[:100]!r}, expected a number with a decimal point") from None


def _whole(text: str, name: str, least: int) -> int:
    try:
        if (value := whole_number(text)) >= least:
            return value
    except ValueError:
        pass
    raise ValueError(f"{name} is {text[:100]!r}, expected a whole number from {least}")


def _plain(label: str) -> str:
    if any(sign in label for sign in "\t\n\r"):
        raise ValueError(f"label {label!r} holds a tab or a line break, which the file's format cannot")
    return label
