"""From a signal to the grid that figures are drawn from, with axes of its own: 128 cells of time and of frequency."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from numbers import Real

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray
from scipy import fft
from scipy.signal import ShortTimeFFT, butter, sosfiltfilt, welch
from scipy.signal.windows import hann, tukey

from vitmech_utils.arguments import check_fields, checked_arguments
from vitmech_utils.data.chirps import BINS
from vitmech_utils.data.recordings.boxes import Box

LEAST_SAMPLES = 16  # of the transform's window; below, its frequencies are too coarse to be resolved
FINEST = 2**-20  # of a grid's largest value: hides the last bits, in which processors differ
LONGEST, PART = 2**16, 2**10  # frames of a grid, and how many of them are taken at a time
FINEST_BINS = 2**20  # of a transform
MOST_POINTS = 2**28  # frames times bins: some ten seconds of work
LONGEST_PADDED = 2**26  # samples between the first and the time axis
POINTS_AT_ONCE = 2**24  # a quarter of a gigabyte of them


@dataclass(frozen=True)
class Axes:
    """What a grid's sides mean: seconds from `start` to `end`, hertz from `low` to `high`.

    Raises ValueError for an axis that is empty, upside down, negative or not finite.
    """

    start: Real
    end: Real
    low: Real
    high: Real

    def __post_init__(self) -> None:
        check_fields(self)
        for name, (low, high), unit in (
            ("time", (self.start, self.end), "seconds"),
            ("frequency", (self.low, self.high), "hertz"),
        ):
            if not (math.isfinite(low) and math.isfinite(high) and 0 <= low < high):
                raise ValueError(
                    f"the {name} axis runs from {low:g} to {high:g}, expected {unit} with 0 <= first < last"
                )

    @property
    def column(self) -> float:
        """Seconds of one column."""
        return (self.end - self.start) / BINS

    @property
    def row(self) -> float:
        """Hertz of one row."""
        return (self.high - self.low) / BINS

    @property
    def extent(self) -> tuple[Real, Real, Real, Real]:
        """Left, right, bottom, top, as matplotlib's `imshow` takes them."""
        return (self.start, self.end, self.low, self.high)


@checked_arguments()
def window_samples(axes: Axes, rate: Real) -> int:
    """Samples of a Hann window that blurs a sound over as many rows as columns of the grid.

    A window of T seconds blurs time by about T / 2 and frequency by 2 / T; both are equally many cells at
    T = 2 sqrt(seconds per column / hertz per row).
    """
    _check_rate(rate)
    return max(LEAST_SAMPLES, round(2 * math.sqrt(axes.column / axes.row) * rate))


def _check_rate(rate: Real) -> None:
    if not 0 < rate < math.inf:
        raise ValueError(f"rate is {rate!r}, expected samples per second above 0")


@dataclass(frozen=True)
class Transform:
    """The sizes of the transform behind a grid: samples of its window and between two, frames, frequency bins."""

    length: int
    hop: int
    frames: int
    bins: int


@checked_arguments()
def transform_of(axes: Axes, rate: Real) -> Transform:
    """The transform that a grid with these axes takes, checked before any work.

    Raises ValueError for frequencies above half the rate, a time axis of less than a sample a grid can be made from
    (`LEAST_SAMPLES`), and axes so long or so fine that the transform would take minutes or gigabytes.
    """
    _check_rate(rate)
    if axes.high > rate / 2 * (1 + 1e-9):
        raise ValueError(
            f"the frequency axis ends at {axes.high:g} Hz, but {rate:g} samples per second hold frequencies up to "
            f"{rate / 2:g} Hz"
        )
    seconds = axes.end - axes.start
    if seconds * rate < LEAST_SAMPLES:
        raise ValueError(
            f"{seconds:g} s hold {seconds * rate:.3g} samples, expected at least {LEAST_SAMPLES}: choose longer windows"
        )
    # Both compared without a division that a tiny axis could make infinite.
    if 2 * rate > FINEST_BINS * axes.row or 4 * axes.column * rate**2 > FINEST_BINS**2 * axes.row:
        raise ValueError(
            f"{seconds:g} s from {axes.low:g} to {axes.high:g} Hz at {rate:g} samples per second take a transform of "
            f"more than {FINEST_BINS:,} samples: raise the highest frequency, lower the recording's rate, or choose "
            "shorter windows"
        )
    length = window_samples(axes, rate)
    bins = 2 ** math.ceil(math.log2(max(length, 2 * rate / axes.row)))
    hop = max(1, min(length // 8, int(axes.column * rate)))
    frames = math.ceil(seconds * rate / hop)
    if frames > LONGEST or frames * bins > MOST_POINTS:
        raise ValueError(
            f"{seconds:g} s up to {axes.high:g} Hz take {frames:,} frames of {bins:,} frequencies, expected at most "
            f"{LONGEST:,}, and {MOST_POINTS:,} points: cut the recording into shorter windows, or lower the highest "
            "frequency"
        )
    return Transform(length, hop, frames, bins)


@checked_arguments()
def spectrogram(
    samples: Float[ndarray, " sample"], rate: Real, axes: Axes, first: Real = 0.0
) -> Float[ndarray, "128 128"]:
    """The magnitude of a signal's short-time Fourier transform, averaged over each cell; row 0 is `axes.low`.

    `samples` are taken at `rate` per second from second `first` on, on the time axis that `axes` has; they may
    reach beyond it and should by half a window (`window_samples`). Where they don't, silence is assumed. The
    transform is scipy's, with a Hann window, scaled so that a steady tone that fills a cell reaches its amplitude.
    Raises ValueError for values that are not finite, and as `transform_of` does.
    """
    sizes = transform_of(axes, rate)
    if not np.isfinite(samples).all():
        raise ValueError(f"{int((~np.isfinite(samples)).sum())} samples are not finite")
    if not math.isfinite(first) or abs(first - axes.start) * rate > LONGEST_PADDED:
        raise ValueError(f"samples start at {first!r} s, expected a second near {axes.start:g} s")
    length, hop = sizes.length, sizes.hop
    # A whole window of silence on both sides: every frame that is asked for lies within.
    before = max(0, math.ceil((first - axes.start) * rate)) + length
    after = max(0, math.ceil((axes.end - first) * rate) - len(samples)) + length
    padded = np.concatenate([np.zeros(before), samples, np.zeros(after)])
    origin = first - before / rate
    transform = ShortTimeFFT(hann(length, sym=False), hop, rate, mfft=sizes.bins, scale_to="magnitude")
    begin = max(0, int((axes.start - origin) * rate / hop) - 1)
    stop = min(math.ceil((axes.end - origin) * rate / hop) + 2, transform.p_max(len(padded)))
    by_rows = _by_rows(transform, padded, range(begin, stop), np.linspace(axes.low, axes.high, BINS + 1))
    times = origin + np.arange(begin, stop) * hop / rate
    grid = _cell_means(by_rows, times, np.linspace(axes.start, axes.end, BINS + 1)).T
    finest = FINEST * float(grid.max()) or 1.0
    return np.rint(grid / finest) * finest


def _by_rows(
    transform: ShortTimeFFT, samples: Float[ndarray, " sample"], frames: range, edges: Float[ndarray, " edge"]
) -> Float[ndarray, "frame row"]:
    """Each frame's magnitude (twice, for one side of the spectrum stands for both) averaged over the rows.

    A part of the frames at a time: all bins of all frames would take gigabytes.
    """
    kept = transform.f <= 2 * edges[-1] - edges[-3]
    parts, size = [], max(1, min(PART, POINTS_AT_ONCE // transform.mfft))
    for at in range(frames.start, frames.stop, size):
        spectra = transform.stft(samples, p0=at, p1=min(at + size, frames.stop))
        parts.append(_cell_means(2 * np.abs(spectra[kept]), transform.f[kept], edges).T)
    return np.concatenate(parts)


def _cell_means(
    values: Float[ndarray, "place other"], places: Float[ndarray, " place"], edges: Float[ndarray, " edge"]
) -> Float[ndarray, "cell other"]:
    """Mean over each cell of what lies straight between the values; exact for wide cells and for narrow ones."""
    steps = np.diff(places)[:, None]
    area = np.vstack([np.zeros(values.shape[1]), np.cumsum((values[1:] + values[:-1]) / 2 * steps, axis=0)])
    at = np.clip(np.searchsorted(places, edges, side="right") - 1, 0, len(places) - 2)
    part = (edges - places[at])[:, None]
    slope = (values[at + 1] - values[at]) / steps[at]
    until = area[at] + values[at] * part + slope * part**2 / 2
    return np.diff(until, axis=0) / np.diff(edges)[:, None]


@checked_arguments()
def whiten(
    samples: Float[ndarray, " sample"], rate: Real, band: tuple[Real, Real], piece: Real = 0.25
) -> Float[ndarray, " sample"]:
    """Divide a signal by its own noise spectrum and keep `band` (Hz): what is left has noise of equal strength there.

    The spectrum is Welch's median over half-overlapping pieces of `piece` seconds, so that a short sound hardly
    enters it (Welch 1967). Returns samples whose noise has a standard deviation near one times the square root of
    the band's share of all frequencies; those within a quarter of a piece of either end are faded out. Raises
    ValueError for a band outside the rate, or a signal shorter than four pieces or constant.
    """
    _check_rate(rate)
    if not LEAST_SAMPLES <= piece * rate <= LONGEST_PADDED:
        raise ValueError(
            f"piece is {piece:g} s, expected at least {LEAST_SAMPLES} samples, and a finite number"
        )
    low, high = band
    if not 0 < low < high < rate / 2:
        raise ValueError(f"band is {low:g} to {high:g} Hz, expected 0 < low < high < {rate / 2:g}")
    count = round(piece * rate)
    if len(samples) < 4 * count:
        raise ValueError(
            f"{len(samples) / rate:g} s are too short to estimate the noise from: expected at least {4 * piece:g} s"
        )
    filtered = sosfiltfilt(butter(6, band, "bandpass", fs=rate, output="sos"), samples - samples.mean())
    frequencies, power = welch(filtered, rate, nperseg=count, average="median")
    if not power.max() > 0:
        raise ValueError("the signal is constant: it has no noise to divide by")
    faded = filtered * tukey(len(samples), piece / 2 * rate / len(samples))
    at = fft.rfftfreq(len(samples), 1 / rate)
    level = np.sqrt(np.interp(at, frequencies, power) * rate / 2)
    kept = (at >= low) & (at <= high)
    spectrum = np.where(kept, fft.rfft(faded) / np.where(kept, level, 1.0), 0.0)
    return fft.irfft(spectrum, len(samples))


@checked_arguments()
def cover(
    boxes: Iterable[Box], axes: Axes, shape: tuple[int, int] = (BINS, BINS)
) -> Float[ndarray, "row column"]:
    """The part of each cell that boxes cover, in [0, 1]; where several do, the largest part.

    `shape` is the number of rows and columns that the axes are parted into; row 0 is `axes.low`.
    """
    covered = np.zeros(shape)
    times = np.linspace(axes.start, axes.end, shape[1] + 1)
    frequencies = np.linspace(axes.low, axes.high, shape[0] + 1)
    for box in boxes:
        across = _overlap(times, box.start, box.end)
        up = _overlap(frequencies, box.low, box.high)
        covered = np.maximum(covered, np.outer(up, across))
    return covered


@checked_arguments()
def cell_overlaps(
    cells: Float[ndarray, " cell_edge"], places: Float[ndarray, " edge"]
) -> Float[ndarray, "cell place"]:
    """The share that each place has of each cell, both given by their edges; rows sum to one."""
    return np.stack([_overlap(cells, low, high) for low, high in pairwise(places)], 1)


def _overlap(edges: Float[ndarray, " edge"], low: Real, high: Real) -> Float[ndarray, " cell"]:
    shared = np.minimum(edges[1:], high) - np.maximum(edges[:-1], low)
    return np.maximum(shared, 0) / np.diff(edges)


@checked_arguments()
def contrast(grid: Float[ndarray, "128 128"], chirp: Bool[ndarray, "128 128"]) -> float:
    """The signal-to-noise ratio of a picture: mean on the chirp's cells less mean elsewhere, over the spread elsewhere.

    Elsewhere is what lies off the chirp; the spread is the standard deviation of its cells. Raises ValueError where
    the chirp covers nothing or everything, or where nothing varies off it.
    """
    if not chirp.any() or chirp.all():
        raise ValueError(
            f"the chirp covers {int(chirp.sum())} of {chirp.size} cells: there is no contrast to measure"
        )
    spread = float(grid[~chirp].std())
    if not spread > 0:
        raise ValueError("nothing varies off the chirp: there is no noise to hold it against")
    return float((grid[chirp].mean() - grid[~chirp].mean()) / spread)
