"""Real signals as figures with region maps: windows of recordings, and a folder of them as a data set."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch.utils.data import Dataset

from vitmech_utils.arguments import checked_arguments
from vitmech_utils.data.chirp_dataset import as_pixels
from vitmech_utils.data.figures import Drawing, Style, fitting_title
from vitmech_utils.data.recordings.annotations import find_annotations
from vitmech_utils.data.recordings.boxes import AnnotationError, Box, outside, read_boxes
from vitmech_utils.data.recordings.files import (
    RECORDINGS,
    Recording,
    RecordingError,
    open_recording,
    recorded,
)
from vitmech_utils.data.recordings.spectrograms import Axes, cover, spectrogram, transform_of, window_samples
from vitmech_utils.data.recordings.windows import draw_window, filled
from vitmech_utils.data.style import find_style
from vitmech_utils.own_folders import is_companion

__all__ = [
    "Axes",
    "Box",
    "Recording",
    "RecordingError",
    "RecordingFolder",
    "open_recording",
    "recorded",
    "window_grid",
]

SHOWN = 50  # problems that an error lists
CLIPPED_RUN, CLIPPED_SHARE = (
    3,
    0.001,
)  # so many equal extremes in a row are clipped; such a share of a window is too much
MOST_WINDOWS = 2**18  # of a folder


@checked_arguments(RecordingError)
def window_grid(recording: Recording, axes: Axes, clipped: bool = False) -> Float[ndarray, "128 128"]:
    """The spectrogram of one window, in units of its own median; row 0 is `axes.low`, column 0 second `axes.start`.

    Samples beside the window are read where there are any, so that its edges are as good as its middle. Raises
    RecordingError for a window that reaches over the recording's end, is silent, holds values that are not finite,
    or is clipped, unless `clipped` allows that.
    """
    if axes.end > recording.duration * (1 + 1e-9):
        raise RecordingError(
            f"{recording.name}: a window from {axes.start:g} to {axes.end:g} s, but the recording lasts "
            f"{recording.duration:g} s: choose shorter windows"
        )
    try:
        transform_of(axes, recording.rate)
    except ValueError as error:
        raise RecordingError(f"{recording.name}: {error}") from error
    beside = window_samples(axes, recording.rate) / recording.rate
    inside = recording.samples(axes.start, axes.end)
    if np.ptp(inside) == 0:
        raise RecordingError(
            f"{recording.name} is silent from {axes.start:g} to {axes.end:g} s: there is nothing to show; choose other "
            "windows"
        )
    if not clipped and (share := clipped_share(inside)) > CLIPPED_SHARE:
        raise RecordingError(
            f"{recording.name} is clipped from {axes.start:g} to {axes.end:g} s: {share:.1%} of its samples are runs "
            "at its extremes, which adds tones that were never there; choose other windows, or allow it (clipped=True)"
        )
    del inside  # it may be as long as what is read next
    first = max(0, round((axes.start - beside) * recording.rate)) / recording.rate
    try:
        grid = spectrogram(recording.samples(first, axes.end + beside), recording.rate, axes, first)
    except RecordingError:
        raise
    except ValueError as error:
        raise RecordingError(f"{recording.name}: {error}") from error
    level = float(np.median(grid))
    return grid / (level if level > 0 else float(grid.max()))


@checked_arguments()
def clipped_share(samples: Float[ndarray, " sample"]) -> float:
    """The share of samples that lie in runs of at least three at the largest or the smallest value."""
    share = 0.0
    for extreme in (samples.min(), samples.max()):
        at = np.concatenate([[False], samples == extreme, [False]])
        edges = np.flatnonzero(at[1:] != at[:-1])
        runs = edges[1::2] - edges[::2]
        share += runs[runs >= CLIPPED_RUN].sum() / len(samples)
    return float(share)


@dataclass(frozen=True)
class Window:
    """One window of a folder: its recording, its axes, and the boxes of the recording."""

    recording: Recording
    axes: Axes
    boxes: tuple[Box, ...]


class RecordingFolder(Dataset):
    """The windows of all recordings in a folder, as figures with region maps; always the same, in any order.

    Beside `NAME.wav` (or .flac, .hdf5, .h5, .hdf), boxes are read from `NAME.txt` (Raven's table or Audacity's labels),
    `NAME.Table.1.selections.txt` and the like (`find_annotations` says which); what they cover is the region `chirp`.
    Of a table's boxes those count that are drawn on the channel that is shown. An item holds "pixel_values" float32
    [3, 224, 224] in [0, 1] and "regions" uint8 [224, 224] indexing REGIONS, as `attention_statistics` takes them.
    Windows are `length` seconds long, one every `hop` (`length` unless given), at most `MOST_WINDOWS` of them; the
    frequency axis is `frequencies` (Hz). `whiten` divides each recording by its noise spectrum between two frequencies.
    Everything is checked at the start but the samples, which are read when a window is asked for.

    Raises RecordingError, with every problem found: also for a file that a link leads out of the folder, and for what
    looks like the annotation of a recording and is not read.
    """

    @checked_arguments(RecordingError)
    def __init__(
        self,
        folder: str | Path,
        length: Real,
        frequencies: tuple[Real, Real],
        hop: Real | None = None,
        channel: int | str | None = None,
        dataset: str | None = None,
        whiten: tuple[Real, Real] | None = None,
        style: Style | str = "published",
        clipped: bool = False,
    ) -> None:
        self.folder, self.style, self.clipped, self._band = Path(folder), _drawn_style(style), clipped, whiten
        cut = _Cut(length, length if hop is None else hop, frequencies, whiten)
        if not self.folder.is_dir():
            raise RecordingError(f"{self.folder} is not a folder")
        self.windows: list[Window] = []
        self._whitened: tuple[Recording, Recording] | None = None
        entries = sorted(path for path in self.folder.iterdir() if not is_companion(path.name))
        paths = [path for path in entries if path.suffix.lower() in RECORDINGS]
        annotations, problems = find_annotations(paths, entries)
        for path in paths:
            try:
                inside(path, self.folder)
                recording = open_recording(path, channel, dataset)
                starts = cut.starts(recording, MOST_WINDOWS - len(self.windows))
                others = {other.name for other in paths if other != path}
                boxes = self._boxes(recording, annotations.get(path), others)
                axes = [Axes(start, start + length, *frequencies) for start in starts]
                self.windows += [Window(recording, each, boxes) for each in axes]
            except AnnotationError as error:
                problems.append(str(error))
            except RecordingError as error:
                problems.append(_with_file(path, error))
        if not paths:
            problems.append(f"no recordings; expected files ending in {', '.join(RECORDINGS)}")
        if problems:
            more = [f"... and {len(problems) - SHOWN} more"] if len(problems) > SHOWN else []
            raise RecordingError(
                "\n  ".join([f"{self.folder}: {len(problems)} problem(s)", *problems[:SHOWN], *more])
            )

    def _boxes(self, recording: Recording, notes: Path | None, others: set[str]) -> tuple[Box, ...]:
        """The boxes of a recording that are drawn on the channel that it shows."""
        if notes is None:
            return ()
        inside(notes, self.folder)
        boxes = read_boxes(notes, recording.path.name, others)
        if wrong := outside(boxes, recording.duration, recording.rate / 2, recording.channels):
            raise AnnotationError(f"{notes.name}: {'; '.join(wrong)}")
        shown = (None, recording.channel)
        return tuple(box for box in boxes if recording.channel is None or box.channel in shown)

    def __len__(self) -> int:
        return len(self.windows)

    @checked_arguments()
    def drawing(self, index: int) -> Drawing:
        """The picture of a window and its region map. Raises RecordingError as `window_grid` does."""
        if not 0 <= index < len(self):
            raise IndexError(f"index {index} of a folder of {len(self)} windows")
        window = self.windows[index]
        recording = window.recording
        try:
            if self._band is not None:
                if self._whitened is None or self._whitened[0] is not recording:
                    # One at a time, for they may be long; distinguished by identity, for names may be alike.
                    self._whitened = (recording, recording.whitened(*self._band))
                recording = self._whitened[1]
            grid = window_grid(recording, window.axes, self.clipped)
            painted = filled(cover(window.boxes, window.axes))
            title = fitting_title(recording.name[:40], self.style)
            return draw_window(grid, painted, window.axes, self.style, title)
        except ValueError as error:
            raise RecordingError(_with_file(recording.path, error)) from error

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        image, regions = self.drawing(index)
        return {"pixel_values": as_pixels(image), "regions": torch.from_numpy(regions)}


def inside(path: Path, folder: Path) -> None:
    """Raise RecordingError where a path leads out of a folder, itself or through a link."""
    if not path.resolve().is_relative_to(folder.resolve()):
        raise RecordingError(f"{path.name} leads out of the folder: copy the file instead of linking it")


def _with_file(path: Path, error: ValueError) -> str:
    """What an error says, with the file's whole name: recordings of one name differ in their endings, or folders."""
    return str(error) if path.name in str(error) else f"{path.name}: {error}"


def _drawn_style(style: Style | str) -> Style:
    try:
        style = find_style(style)
    except ValueError as error:
        raise RecordingError(str(error)) from error
    if style.jitter:
        raise RecordingError("a randomized style draws no two windows alike: expected another style")
    return style


@dataclass(frozen=True)
class _Cut:
    """How recordings are cut into windows. Raises RecordingError for numbers that make none."""

    length: Real
    hop: Real
    frequencies: tuple[Real, Real]
    band: tuple[Real, Real] | None

    def __post_init__(self) -> None:
        if not (_is_number(self.length) and self.length > 0 and _is_number(self.hop) and self.hop > 0):
            raise RecordingError(f"length is {self.length!r} and hop {self.hop!r}, expected seconds above 0")
        for name, pair in (("frequencies", self.frequencies), ("whiten", self.band)):
            if pair is None and name == "whiten":
                continue
            if not (isinstance(pair, Sequence) and len(pair) == 2 and all(map(_is_number, pair))):
                raise RecordingError(f"{name} is {pair!r}, expected two numbers in hertz")
            if not (pair[0] > 0 or (pair[0] == 0 and name == "frequencies")) or not pair[0] < pair[1]:
                raise RecordingError(
                    f"{name} is {pair!r}, expected hertz with 0 <= low < high (whiten: 0 < low)"
                )

    def starts(self, recording: Recording, most: int) -> list[float]:
        """The first seconds of a recording's windows, at most so many."""
        name, rate = recording.name, recording.rate
        if recording.duration < self.length * (1 - 1e-9):
            raise RecordingError(
                f"{name} lasts {recording.duration:g} s, shorter than a window of {self.length:g} s: choose a length "
                "of at most that"
            )
        for high in (self.frequencies[1], *((self.band[1],) if self.band else ())):
            if high > rate / 2:
                raise RecordingError(
                    f"{name}: {rate:g} samples per second hold frequencies up to {rate / 2:g} Hz, but {high:g} Hz are "
                    "to be shown"
                )
        try:
            transform_of(Axes(0, self.length, *self.frequencies), rate)
        except ValueError as error:
            raise RecordingError(f"{name}: {error}") from error
        if self.hop * rate < 1:
            raise RecordingError(
                f"{name}: hop is {self.hop:g} s, less than one of its {rate:g} samples per second: choose a longer one"
            )
        count = int((recording.duration - self.length) / self.hop + 1e-9) + 1
        if count > most:
            raise RecordingError(
                f"{name}: a hop of {self.hop:g} s makes {count:,} windows, expected at most {MOST_WINDOWS:,} in a "
                "folder: choose a longer hop, or fewer recordings"
            )
        return [number * self.hop for number in range(count)]


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
