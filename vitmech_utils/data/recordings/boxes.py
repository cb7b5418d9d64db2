"""Time-frequency boxes that people drew around sounds: Raven selection tables and Audacity label files."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from numbers import Real
from pathlib import Path

RAVEN = {  # the columns that a selection table must have, by what they tell
    "start": "Begin Time (s)",
    "end": "End Time (s)",
    "low": "Low Freq (Hz)",
    "high": "High Freq (Hz)",
}
SHOWN = 10  # problems that an error lists
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
        if not (math.isfinite(self.start) and math.isfinite(self.end) and 0 <= self.start < self.end):
            raise ValueError(
                f"the box runs from {self.start:g} to {self.end:g} s, expected seconds with 0 <= start < end"
            )
        if not (math.isfinite(self.low) and not math.isnan(self.high) and 0 <= self.low < self.high):
            raise ValueError(
                f"the box reaches from {self.low:g} to {self.high:g} Hz, expected hertz with 0 <= low < high"
            )


def read_boxes(path: str | Path) -> list[Box]:
    """The boxes of a file, in its order: a Raven selection table if its first line has Raven's columns, else Audacity.

    Raises AnnotationError, which names every line that cannot be read.
    """
    path = Path(path)
    lines = _lines(path)
    return (
        _read_raven(path, lines)
        if lines and lines[0].startswith("Selection\t")
        else _read_audacity(path, lines)
    )


def write_raven(boxes: Iterable[Box], path: str | Path) -> Path:
    """Write boxes as a Raven selection table; all must have a band. Returns the path."""
    rows = ["\t".join(["Selection", "View", "Channel", *RAVEN.values(), "Annotation"])]
    for number, box in enumerate(boxes, start=1):
        if math.isinf(box.high):
            raise ValueError(
                f"box {number} has no frequencies, which a selection table must tell: give it a band"
            )
        values = (box.start, box.end, box.low, box.high)
        rows.append(
            "\t".join(
                [str(number), "Spectrogram 1", str(box.channel or 1), *map(repr, values), _plain(box.label)]
            )
        )
    path = Path(path)
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path


def write_audacity(boxes: Iterable[Box], path: str | Path) -> Path:
    """Write boxes as Audacity labels, with a second line for the band of those that have one. Returns the path."""
    rows = []
    for box in boxes:
        rows.append(f"{box.start!r}\t{box.end!r}\t{_plain(box.label)}")
        if math.isfinite(box.high):
            rows.append(f"\\\t{box.low!r}\t{box.high!r}")
    path = Path(path)
    path.write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")
    return path


def outside(boxes: Sequence[Box], duration: Real, highest: Real) -> list[str]:
    """What is wrong with boxes of a recording of `duration` seconds and frequencies up to `highest` Hz, in words.

    A thousandth of a second over the end is forgiven: annotation programs round.
    """
    problems = []
    for number, box in enumerate(boxes, start=1):
        if box.end > duration + 1e-3:
            problems.append(f"box {number} ends at {box.end:g} s, but the recording at {duration:g} s")
        if box.low >= highest or (math.isfinite(box.high) and box.high > highest * (1 + 1e-6)):
            problems.append(
                f"box {number} reaches from {box.low:g} to {box.high:g} Hz, but the recording's sample rate holds "
                f"frequencies up to {highest:g} Hz"
            )
    return problems


def _lines(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise AnnotationError(
            f"{path.name} is not UTF-8 text (byte {error.start}): save it as UTF-8"
        ) from error
    return text.splitlines()


def _read_raven(path: Path, lines: list[str]) -> list[Box]:
    header = [name.strip() for name in lines[0].split("\t")]
    missing = [name for name in RAVEN.values() if name not in header]
    if missing:
        raise AnnotationError(
            f"{path.name} line 1: no column {', '.join(missing)}; it has {', '.join(header)}. Switch these "
            "measurements on in Raven and save the table again"
        )
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise AnnotationError(f"{path.name} line 1: column {', '.join(twice)} stands there more than once")
    notes = next((name for name in header if name.lower().startswith("annotation")), None)
    boxes, problems, seen = [], [], set()
    for number, line in enumerate(lines[1:], start=2):
        if not line.strip():
            continue
        cells = line.split("\t")
        if len(cells) != len(header):
            problems.append(f"line {number}: {len(cells)} cells, expected {len(header)}")
            continue
        row = {name: cell.strip() for name, cell in zip(header, cells, strict=True)}
        place = tuple(row[name] for name in RAVEN.values())
        if row["Selection"] in seen:  # Raven lists a selection once for each view: waveform and spectrogram
            continue
        try:
            values = {key: _number(row[name], name) for key, name in RAVEN.items()}
            channel = _channel(row["Channel"]) if "Channel" in row else None
            boxes.append(Box(**values, label=row[notes] if notes else "", channel=channel))
            seen.add(row["Selection"])
        except ValueError as error:
            problems.append(f"line {number}: {error} (found {' '.join(place)})")
    return _told(path, boxes, problems)


def _read_audacity(path: Path, lines: list[str]) -> list[Box]:
    boxes, problems = [], []
    last = False  # whether the line before was a label that was read: a band may follow it
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
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
            boxes.append(Box(start, end, *UNKNOWN_BAND, cells[2].strip() if len(cells) > 2 else ""))
            last = True
        except ValueError as error:
            problems.append(f"line {number}: {error}")
    return _told(path, boxes, problems)


def _told(path: Path, boxes: list[Box], problems: list[str]) -> list[Box]:
    if problems:
        more = [f"and {len(problems) - SHOWN} more"] if len(problems) > SHOWN else []
        raise AnnotationError(f"{path.name}: " + "; ".join([*problems[:SHOWN], *more]))
    return boxes


def _number(text: str, name: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{name} is {text!r}, expected a number with a decimal point") from None


def _channel(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise ValueError(f"Channel is {text!r}, expected a whole number from 1")
    return int(text)


def _plain(label: str) -> str:
    if "\t" in label or "\n" in label or "\r" in label:
        raise ValueError(f"label {label!r} holds a tab or a line break, which the file's format cannot")
    return label
