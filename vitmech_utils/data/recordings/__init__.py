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

from vitmech_utils.data.chirp_dataset import as_pixels
from vitmech_utils.data.figures import Drawing, Style
from vitmech_utils.data.recordings.boxes import AnnotationError, Box, outside, read_boxes
from vitmech_utils.data.recordings.files import (
    AUDIO,
    HDF5,
    Recording,
    RecordingError,
    open_recording,
    recorded,
)
from vitmech_utils.data.recordings.spectrograms import Axes, cover, spectrogram, window_samples
from vitmech_utils.data.recordings.windows import draw_window, filled
from vitmech_utils.data.style import find_style

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

CLIPPED_RUN, CLIPPED_SHARE = (
    3,
    0.001,
)  # so many equal extremes in a row are clipped; such a share of a window is too much
ANNOTATIONS = ("{}.selections.txt", "{}.Table.1.selections.txt", "{}.txt")


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
    beside = window_samples(axes, recording.rate) / recording.rate
    first = max(0, round((axes.start - beside) * recording.rate)) / recording.rate
    try:
        grid = spectrogram(recording.samples(first, axes.end + beside), recording.rate, axes, first)
    except RecordingError:
        raise
    except ValueError as error:
        raise RecordingError(f"{recording.name}: {error}") from error
    level = float(np.median(grid))
    return grid / (level if level > 0 else float(grid.max()))


def clipped_share(samples: Float[ndarray, "sample"]) -> float:
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

    Beside `NAME.wav` (or .flac, .hdf5, .h5, .hdf), boxes are read from `NAME.selections.txt`,
    `NAME.Table.1.selections.txt` (Raven) or `NAME.txt` (Raven or Audacity); what they cover is the region `chirp`. An
    item holds "pixel_values" float32 [3, 224, 224] in [0, 1] and "regions" uint8 [224, 224] indexing REGIONS, as
    `attention_statistics` takes them. Windows are `length` seconds long, one every `hop` (`length` unless given); the
    frequency axis is `frequencies` (Hz). `whiten` divides each recording by its noise spectrum between two frequencies.
    Everything is checked at the start but the samples, which are read when a window is asked for. Raises
    RecordingError, with every problem found, also for a file that a link leads out of the folder.
    """

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
        self.folder, self.style, self.clipped, self._band = Path(folder), find_style(style), clipped, whiten
        hop = length if hop is None else hop
        if not (math.isfinite(length) and length > 0 and math.isfinite(hop) and hop > 0):
            raise RecordingError(f"length is {length:g} and hop {hop:g}, expected seconds above 0")
        if not self.folder.is_dir():
            raise RecordingError(f"{self.folder} is not a folder")
        self.windows: list[Window] = []
        self._whitened: dict[str, Recording] = {}
        problems: list[str] = []
        paths = sorted(path for path in self.folder.iterdir() if path.suffix.lower() in (*AUDIO, *HDF5))
        for path in paths:
            try:
                inside(path, self.folder)
                recording = open_recording(path, channel, dataset)
                self.windows += _cut(
                    recording, _boxes(path, recording, self.folder), length, hop, frequencies
                )
            except (RecordingError, AnnotationError) as error:
                problems.append(str(error))
        if not paths:
            problems.append(f"no recordings; expected files ending in {', '.join((*AUDIO, *HDF5))}")
        if problems:
            raise RecordingError("\n  ".join([f"{self.folder}: {len(problems)} problem(s)", *problems]))

    def __len__(self) -> int:
        return len(self.windows)

    def drawing(self, index: int) -> Drawing:
        """The picture of a window and its region map. Raises RecordingError as `window_grid` does."""
        if not 0 <= index < len(self):
            raise IndexError(f"index {index} of a folder of {len(self)} windows")
        window = self.windows[index]
        recording = window.recording
        if self._band is not None:
            if recording.name not in self._whitened:
                self._whitened = {
                    recording.name: recording.whitened(*self._band)
                }  # one at a time: they may be long
            recording = self._whitened[recording.name]
        grid = window_grid(recording, window.axes, self.clipped)
        painted = filled(cover(window.boxes, window.axes))
        return draw_window(grid, painted, window.axes, self.style, recording.name[:40])

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        image, regions = self.drawing(index)
        return {"pixel_values": as_pixels(image), "regions": torch.from_numpy(regions)}


def inside(path: Path, folder: Path) -> None:
    """Raise RecordingError where a path leads out of a folder, itself or through a link."""
    if not path.resolve().is_relative_to(folder.resolve()):
        raise RecordingError(f"{path.name} leads out of the folder: copy the file instead of linking it")


def _boxes(path: Path, recording: Recording, folder: Path) -> tuple[Box, ...]:
    for pattern in ANNOTATIONS:
        notes = path.with_name(pattern.format(path.stem))
        if notes.is_file():
            inside(notes, folder)
            boxes = read_boxes(notes)
            if wrong := outside(boxes, recording.duration, recording.rate / 2):
                raise AnnotationError(f"{notes.name}: {'; '.join(wrong)}")
            return tuple(boxes)
    return ()


def _cut(
    recording: Recording, boxes: Sequence[Box], length: Real, hop: Real, frequencies: tuple[Real, Real]
) -> list[Window]:
    if recording.duration < length * (1 - 1e-9):
        raise RecordingError(
            f"{recording.name} lasts {recording.duration:g} s, shorter than a window of {length:g} s: choose a length "
            "of at most that"
        )
    if frequencies[1] > recording.rate / 2:
        raise RecordingError(
            f"{recording.name}: {recording.rate:g} samples per second hold frequencies up to {recording.rate / 2:g} "
            f"Hz, but {frequencies[1]:g} Hz are to be shown"
        )
    count = int((recording.duration - length) / hop + 1e-9) + 1
    starts = [number * hop for number in range(count)]
    return [Window(recording, Axes(start, start + length, *frequencies), tuple(boxes)) for start in starts]
