"""One channel of a recording, read when asked for: WAV and FLAC by soundfile, strain and the like from HDF5."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import soundfile
from jaxtyping import Float
from numpy import ndarray

from vitmech_utils.arguments import checked_arguments
from vitmech_utils.data.recordings.spectrograms import whiten

if TYPE_CHECKING:
    import h5py

AUDIO, HDF5 = (".wav", ".flac"), (".hdf5", ".hdf", ".h5")
RECORDINGS = (*AUDIO, *HDF5)
"""The endings of files that `open_recording` reads; a folder is searched for them."""
STEPS = (
    "dx",
    "Xspacing",
)  # attributes that hold the seconds between samples: gwpy's and the open data's name
STARTS = ("x0", "Xstart")
LONGEST = 2**26  # samples that are read at once, of all channels: half a gigabyte
LONGEST_WHITENED = 2**24  # samples of a recording that is whitened, which takes some ten copies of it
LATEST = 1e12  # seconds: no recording is as long as thirty thousand years
RATES = (1e-9, 1e9)  # samples per second
MOST_OBJECTS = 10_000  # in an HDF5 file
LARGEST_CHUNK = 2**28  # bytes of an HDF5 file that are unpacked at once
# What libraries raise for a file that is not what its name says; none of them is documented to raise nothing else.
NO_AUDIO = (soundfile.SoundFileError, OSError, RuntimeError, ValueError, TypeError)
NO_HDF5 = (OSError, RuntimeError, ValueError, TypeError, KeyError, AttributeError, SystemError, MemoryError)


class RecordingError(ValueError):
    """A recording, or a part of it, that no picture can be made of; the message says what, where, and what to do."""


@dataclass(frozen=True)
class Recording:
    """One channel of a recording: `rate` samples per second, `frames` of them, read when asked for.

    `origin` is the time of its first sample on the clock of its file (GPS seconds for strain), else 0; all
    other times are seconds from its first sample. `unit` is that of its samples; full scale is 1 for audio. `path` is
    the file it is read from, if one; `channels` are how many that has, `channel` the one that this is (from 1; None for
    their mean). Raises RecordingError for a rate or an origin that is no number of its kind.
    """

    name: str
    rate: float
    frames: int
    load: Callable[[int, int], Float[ndarray, " sample"]]
    origin: float = 0.0
    unit: str = "full scale"
    path: Path | None = None
    channels: int = 1
    channel: int | None = 1

    def __post_init__(self) -> None:
        _check_rate(self.name, self.rate)
        if not math.isfinite(self.origin):
            raise RecordingError(f"{self.name} starts at {self.origin!r} s, expected a finite number")

    @property
    def duration(self) -> float:
        """Seconds."""
        return self.frames / self.rate

    def samples(self, start: Real, end: Real) -> Float[ndarray, " sample"]:
        """The samples from second `start` up to `end`, as float64; cut to what there is.

        Raises RecordingError where some are not finite.
        """
        for name, value in (("start", start), ("end", end)):
            if isinstance(value, bool) or not isinstance(value, Real) or not abs(value) < LATEST:
                raise RecordingError(f"{self.name}: {name} is {value!r}, expected seconds")
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

    @checked_arguments(RecordingError)
    def whitened(self, low: Real, high: Real) -> "Recording":
        """The whole recording, divided by its own noise spectrum between two frequencies (see `whiten`), in memory."""
        if self.frames > LONGEST_WHITENED:
            raise RecordingError(
                f"{self.name}: {self.frames:,} samples are to be whitened, expected at most {LONGEST_WHITENED:,}: cut "
                "the recording into shorter ones"
            )
        try:
            values = whiten(self.samples(0, self.duration), self.rate, (low, high))
        except RecordingError:
            raise
        except ValueError as error:
            raise RecordingError(f"{self.name}: {error}") from error
        return replace(self, load=lambda first, last: values[first:last], unit="standard deviations")


@checked_arguments(RecordingError)
def recorded(samples: Float[ndarray, " sample"], rate: Real, name: str = "samples") -> Recording:
    """A recording of samples in memory. Raises RecordingError for a rate that is none."""
    _check_rate(name, rate)
    return Recording(name, float(rate), len(samples), lambda first, last: samples[first:last])


def _check_rate(name: str, rate: object) -> None:
    if isinstance(rate, bool) or not isinstance(rate, Real) or not RATES[0] <= rate <= RATES[1]:
        raise RecordingError(
            f"{name}: {rate!r} samples per second, expected more than 0, and a finite number"
        )


@checked_arguments(RecordingError)
def open_recording(
    path: str | Path, channel: int | str | None = None, dataset: str | None = None
) -> Recording:
    """A WAV, FLAC or HDF5 file, of which nothing but the header and the last sample is read.

    `channel` of a file with several is a number from 1, as Raven counts them, or "mix" for their mean: one must be
    chosen, for two microphones rarely hear the same. `dataset` names the series in an HDF5 file with several; its
    attributes must give the seconds between samples (dx or Xspacing). Raises RecordingError, also for a file that ends
    before its header says, that was never written to its end, or whose samples lie in another file.
    """
    if not isinstance(path, str | Path) or "\0" in str(path):
        raise RecordingError(f"path is {path!r}, expected that of a recording")
    path = Path(path)
    if not is_file(path):
        raise RecordingError(f"{path.name} is not a file: expected a recording ({', '.join(RECORDINGS)})")
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
        f"{path.name}: expected one of {', '.join(RECORDINGS)}; convert it first, say to FLAC"
    )


def is_file(path: Path) -> bool:
    """Whether there is a file of this name; False, too, for a name that is longer than any."""
    try:
        return path.is_file()
    except OSError:
        return False


def _open_audio(path: Path, channel: int | str | None) -> Recording:
    try:
        with soundfile.SoundFile(path) as file:
            rate, frames, channels = file.samplerate, file.frames, file.channels
            if not file.seekable():
                raise ValueError(f"its encoding, {file.subtype_info}, cannot be read from the middle")
            if frames < 1:
                raise ValueError("it holds no samples")
            file.seek(frames - 1)
            if len(file.read(1)) != 1:
                raise ValueError(f"it ends before the {frames:,} samples that its header announces")
    except NO_AUDIO as error:
        raise RecordingError(
            f"{path.name} cannot be read as audio ({_reason(error)}): copy or save it again, say as FLAC"
        ) from error
    number = channel if isinstance(channel, Integral) and not isinstance(channel, bool) else None
    if channel is None and channels > 1:
        raise RecordingError(
            f"{path.name} has {channels} channels: choose one (channel=1 to {channels}), or their mean (channel='mix')"
        )
    if not (channel is None or channel == "mix" or (number is not None and 1 <= number <= channels)):
        raise RecordingError(f"{path.name}: channel is {channel!r}, expected 1 to {channels}, or 'mix'")

    def load(first: int, last: int) -> ndarray:
        if (last - first) * channels > LONGEST:
            raise RecordingError(
                f"{path.name}: {(last - first) * channels:,} samples at once, expected at most {LONGEST:,}"
            )
        try:
            with soundfile.SoundFile(path) as file:
                if (file.samplerate, file.channels) != (rate, channels):
                    raise ValueError("it is another file than the one that was opened")
                file.seek(first)
                values = file.read(last - first, dtype="float64", always_2d=True)
        except NO_AUDIO as error:
            raise RecordingError(
                f"{path.name} cannot be read from {first / rate:g} s on ({_reason(error)}): copy it again"
            ) from error
        if len(values) != last - first:
            raise RecordingError(
                f"{path.name} ends after {first + len(values)} of {frames} samples: copy it again"
            )
        return values.mean(axis=1) if channel == "mix" else values[:, (number or 1) - 1]

    one = None if channel == "mix" else int(number or 1)
    return Recording(path.stem, float(rate), frames, load, path=path, channels=channels, channel=one)


def _open_hdf5(path: Path, dataset: str | None) -> Recording:
    import h5py

    try:
        with h5py.File(path, "r") as file:
            key = _series_key(path, file, dataset)
            name, series = _spelt(key), file[key]
            if (wrong := _stored_elsewhere(series) or _never_written(series)) is not None:
                raise RecordingError(f"{path.name}: {name} {wrong}")
            frames = len(series)
            step = _attribute(path, series, STEPS)
            origin = _attribute(path, series, STARTS)
            unit = series.attrs["unit"] if _is_small(series, "unit") else ""
            series[frames - 1 :]
    except NO_HDF5 as error:
        if isinstance(error, RecordingError):
            raise
        raise RecordingError(
            f"{path.name} cannot be read as HDF5 ({_reason(error)}): fetch it again"
        ) from error
    if step is None or not 1 / RATES[1] <= step <= 1 / RATES[0]:
        raise RecordingError(
            f"{path.name}: {name} gives no seconds between samples; expected an attribute {' or '.join(STEPS)} above 0"
        )

    def load(first: int, last: int) -> ndarray:
        try:
            with h5py.File(path, "r") as file:
                series = file[key]
                if (wrong := _stored_elsewhere(series)) is not None or len(series) != frames:
                    raise RecordingError(f"{path.name}: {name} {wrong or 'is another one than was opened'}")
                return series[first:last]
        except NO_HDF5 as error:
            if isinstance(error, RecordingError):
                raise
            raise RecordingError(
                f"{path.name}: {name} cannot be read from {first * step:g} s on ({_reason(error)}): fetch it again"
            ) from error

    told = unit.decode(errors="replace") if isinstance(unit, bytes) else str(unit)
    return Recording(name, 1 / step, frames, load, origin or 0.0, told, path=path)


def _series_key(path: Path, file: "h5py.File", dataset: str | None) -> str | bytes:
    """What h5py knows the series by: its name, or the bytes of one that is no text."""
    series, seen = {}, 0

    def look(name: str | bytes, item: object) -> bool | None:
        nonlocal seen
        seen += 1
        if _is_series(item):
            series[_spelt(name)] = name
        return True if seen > MOST_OBJECTS else None  # anything but None ends the visit

    file.visititems(look)
    if seen > MOST_OBJECTS:
        raise RecordingError(
            f"{path.name} holds more than {MOST_OBJECTS:,} objects: copy the series into a file of its own"
        )
    name = dataset if dataset is not None else (next(iter(series)) if len(series) == 1 else None)
    if not isinstance(name, str) or name not in series:
        asked = "no dataset was named" if dataset is None else f"there is no series {dataset!r}"
        listed = ", ".join(list(series)[:20]) + (f" and {len(series) - 20} more" if len(series) > 20 else "")
        raise RecordingError(f"{path.name}: {asked}; expected one of {listed or 'none: it has none'}")
    return series[name]


def _spelt(name: str | bytes) -> str:
    return name.decode(errors="backslashreplace") if isinstance(name, bytes) else name


def _is_series(item: object) -> bool:
    try:
        return getattr(item, "ndim", None) == 1 and item.dtype.kind in "iuf" and len(item) > 1
    except NO_HDF5:  # of a type that numpy has none for
        return False


def _stored_elsewhere(series: "h5py.Dataset") -> str | None:
    """Why the samples do not lie in the file itself, or None."""
    if series.external or series.is_virtual:
        return "keeps its samples in another file: copy them into this one (h5repack)"
    return None


def _never_written(series: "h5py.Dataset") -> str | None:
    """Why there are fewer samples in the file than it claims, or more than can be unpacked at once, or None."""
    if series.chunks is None:
        return (
            "claims samples that were never written: fetch it again"
            if not series.id.get_storage_size()
            else None
        )
    if series.chunks[0] * series.dtype.itemsize > LARGEST_CHUNK:
        return (
            f"is packed in pieces of more than {LARGEST_CHUNK:,} bytes: store it in smaller chunks (h5repack)"
        )
    written = series.id.get_num_chunks() * series.chunks[0]
    if written < len(series):
        return f"claims {len(series):,} samples, of which at most {written:,} were written: fetch it again"
    return None


def _attribute(path: Path, series: "h5py.Dataset", names: tuple[str, ...]) -> float | None:
    """The number that the first of these attributes holds, or None where there is none of them."""
    for name in names:
        if name in series.attrs:
            value = np.asarray(series.attrs[name] if _is_small(series, name) else "too large")
            if value.size != 1 or value.dtype.kind not in "iuf" or not np.isfinite(value).all():
                raise RecordingError(
                    f"{path.name}: attribute {name} of {series.name} is {str(value)[:80]!r}, expected a finite number"
                )
            return float(value.reshape(()))
    return None


def _is_small(series: "h5py.Dataset", name: str) -> bool:
    return name in series.attrs and series.attrs.get_id(name).get_storage_size() <= 1024


def _reason(error: BaseException) -> str:
    words = getattr(error, "error_string", None) or str(error) or type(error).__name__
    return " ".join(words.split())[:300]
