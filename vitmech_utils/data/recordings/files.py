"""One channel of a recording, read when asked for: WAV and FLAC by soundfile, strain and the like from HDF5."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from numbers import Real
from pathlib import Path

import numpy as np
import soundfile
from jaxtyping import Float
from numpy import ndarray

from vitmech_utils.data.recordings.spectrograms import whiten

AUDIO, HDF5 = (".wav", ".flac"), (".hdf5", ".hdf", ".h5")
STEPS = (
    "dx",
    "Xspacing",
)  # attributes that tell the seconds between samples: gwpy's and the open data's name
STARTS = ("x0", "Xstart")
LONGEST = 2**28  # samples that are read at once


class RecordingError(ValueError):
    """A recording, or a part of it, that no picture can be made of; the message says what, where, and what to do."""


@dataclass(frozen=True)
class Recording:
    """One channel of a recording: `rate` samples per second, `frames` of them, read when asked for.

    `origin` is the time of its first sample on the clock that its file tells (GPS seconds for strain), else 0; all
    other times are seconds from its first sample. `unit` is that of its samples; full scale is 1 for audio.
    """

    name: str
    rate: float
    frames: int
    load: Callable[[int, int], Float[ndarray, "sample"]]
    origin: float = 0.0
    unit: str = "full scale"

    @property
    def duration(self) -> float:
        """Seconds."""
        return self.frames / self.rate

    def samples(self, start: Real, end: Real) -> Float[ndarray, "sample"]:
        """The samples from second `start` up to `end`, as float64; cut to what there is.

        Raises RecordingError where some are not finite.
        """
        first, last = max(0, round(start * self.rate)), min(self.frames, round(end * self.rate))
        if last - first > LONGEST:
            raise RecordingError(
                f"{self.name}: {last - first:,} samples at once, expected at most {LONGEST:,}"
            )
        values = np.asarray(self.load(first, max(first, last)), dtype=np.float64)
        bad = np.flatnonzero(~np.isfinite(values))
        if len(bad):
            raise RecordingError(
                f"{self.name}: {len(bad)} of {len(values)} samples from {start:g} to {end:g} s are not finite, the "
                f"first at {(first + bad[0]) / self.rate:g} s: choose windows beside the gap, or fill it"
            )
        return values

    def whitened(self, low: Real, high: Real) -> "Recording":
        """The whole recording, divided by its own noise spectrum between two frequencies (see `whiten`), in memory."""
        try:
            values = whiten(self.samples(0, self.duration), self.rate, (low, high))
        except RecordingError:
            raise
        except ValueError as error:
            raise RecordingError(f"{self.name}: {error}") from error
        return replace(recorded(values, self.rate, self.name), origin=self.origin, unit="standard deviations")


def recorded(samples: Float[ndarray, "sample"], rate: Real, name: str = "samples") -> Recording:
    """A recording of samples in memory."""
    if not rate > 0:
        raise RecordingError(f"{name}: {rate:g} samples per second, expected more than 0")
    return Recording(name, float(rate), len(samples), lambda first, last: samples[first:last])


def open_recording(
    path: str | Path, channel: int | str | None = None, dataset: str | None = None
) -> Recording:
    """A WAV, FLAC or HDF5 file, of which nothing but the header is read.

    `channel` of a file with several is a number from 1, as Raven counts them, or "mix" for their mean: one must be
    chosen, for two microphones rarely hear the same. `dataset` names the series in an HDF5 file with several; its
    attributes must tell the seconds between samples (dx or Xspacing). Raises RecordingError.
    """
    path = Path(path)
    if not path.is_file():
        raise RecordingError(
            f"{path.name} is not a file: expected a recording ({', '.join((*AUDIO, *HDF5))})"
        )
    if path.suffix.lower() in AUDIO:
        if dataset is not None:
            raise RecordingError(f"{path.name} is no HDF5 file: it has channels, but no dataset {dataset!r}")
        return _open_audio(path, channel)
    if path.suffix.lower() in HDF5:
        if channel is not None:
            raise RecordingError(
                f"{path.name} is an HDF5 file: name its dataset instead of channel {channel!r}"
            )
        return _open_hdf5(path, dataset)
    raise RecordingError(
        f"{path.name}: expected one of {', '.join((*AUDIO, *HDF5))}; convert it first, say to FLAC"
    )


def _open_audio(path: Path, channel: int | str | None) -> Recording:
    try:
        header = soundfile.info(path)
    except soundfile.LibsndfileError as error:
        raise RecordingError(
            f"{path.name} cannot be read as audio ({error.error_string}): save it again"
        ) from error
    choices = range(1, header.channels + 1)
    if channel is None and header.channels > 1:
        raise RecordingError(
            f"{path.name} has {header.channels} channels: choose one (channel=1 to {header.channels}), or their mean "
            "(channel='mix')"
        )
    if channel not in (None, "mix") and channel not in choices:
        raise RecordingError(
            f"{path.name}: channel is {channel!r}, expected 1 to {header.channels}, or 'mix'"
        )

    def load(first: int, last: int) -> ndarray:
        with soundfile.SoundFile(path) as file:
            file.seek(first)
            values = file.read(last - first, dtype="float64", always_2d=True)
        if len(values) != last - first:
            raise RecordingError(
                f"{path.name} ends after {first + len(values)} of {header.frames} samples: copy it again"
            )
        return values.mean(axis=1) if channel == "mix" else values[:, (channel or 1) - 1]

    return Recording(path.stem, float(header.samplerate), header.frames, load)


def _open_hdf5(path: Path, dataset: str | None) -> Recording:
    import h5py

    try:
        with h5py.File(path, "r") as file:
            series = []
            file.visititems(lambda name, item: series.append(name) if _is_series(item) else None)
            name = dataset if dataset is not None else (series[0] if len(series) == 1 else None)
            if name is None or name not in series:
                asked = "no dataset was named" if dataset is None else f"there is no series {dataset!r}"
                raise RecordingError(
                    f"{path.name}: {asked}; expected one of {', '.join(series) or 'none: it has none'}"
                )
            attributes = dict(file[name].attrs)
            frames = len(file[name])
    except OSError as error:
        raise RecordingError(f"{path.name} cannot be read as HDF5 ({error}): fetch it again") from error
    step = next((float(attributes[key]) for key in STEPS if key in attributes), math.nan)
    if not (math.isfinite(step) and step > 0):
        raise RecordingError(
            f"{path.name}: {name} tells no seconds between samples; expected an attribute {' or '.join(STEPS)} above 0"
        )
    origin = next((float(attributes[key]) for key in STARTS if key in attributes), 0.0)
    unit = attributes.get("unit", "")

    def load(first: int, last: int) -> ndarray:
        with h5py.File(path, "r") as file:
            return file[name][first:last]

    return Recording(
        name, 1 / step, frames, load, origin, unit.decode() if isinstance(unit, bytes) else str(unit)
    )


def _is_series(item: object) -> bool:
    return getattr(item, "ndim", None) == 1 and item.dtype.kind in "iuf" and len(item) > 1
