"""The study's recipe, from chirp parameters to a noisy time-frequency grid (arXiv 2503.22713, section 2).

Nothing here depends on a global random state: every stream is made from (seed, index) alone.
"""

import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from scipy.ndimage import gaussian_filter

from vitmech_utils.arguments import check_fields, checked_arguments

BINS = 128
DURATION = 60.0  # seconds on the time axis
MAX_FREQUENCY = 100.0  # hertz on the frequency axis
LATEST_START = 45.0  # seconds
DURATIONS = (1.0, 15.0)  # seconds
MAX_BAND = 30.0  # hertz between start and end
NOISE_LEVELS = (0.09, 0.3)  # standard deviation before smoothing
HARD_DURATIONS = (1.0, 3.0)  # seconds: two to six columns of the grid
HARD_NOISE_LEVELS = (0.2, 0.3)  # the noisier half
HALF_WIDTH = 2  # bins painted on either side of the ridge
SWEEPS = ("linear", "exponential")

LABEL_NAMES = ("start_time", "start_freq", "end_freq")
LABEL_UNITS = ("s", "Hz", "Hz")


def _label_moments() -> tuple[Float[ndarray, "3"], Float[ndarray, "3"]]:
    """Mean and standard deviation of the labels, integrated from the recipe's distributions.

    The end frequency is clip(U(0, F) + U(-b, b), 0, F). Its density is 1/F between b and F - b, falls linearly
    to half of that at 0 and F, and b/(4F) of the mass is clipped onto each of the two ends.
    """
    full, band = MAX_FREQUENCY, MAX_BAND
    half = full / 2
    at_ends = 2 * (band / (4 * full)) * half**2
    inside = 2 * (half - band) ** 3 / (3 * full)
    # 2 * integral over x in [0, band] of (x - half)^2 (x + band) / (2 band full)
    powers = [band**2 / 2, band**3 / 3, band**4 / 4]  # integrals of x, x^2, x^3 over [0, band]
    flank = (
        half**2 * band * band + (half**2 - full * band) * powers[0] + (band - full) * powers[1] + powers[2]
    )
    variances = [LATEST_START**2 / 12, full**2 / 12, at_ends + inside + flank / (band * full)]
    return np.array([LATEST_START / 2, half, half]), np.sqrt(np.array(variances))


LABEL_MEAN, LABEL_STD = _label_moments()


@dataclass(frozen=True)
class Chirp:
    """One chirp: when it starts (s), from which to which frequency it runs (Hz), for how long (s), and how.

    Raises ValueError before anything is drawn when a value is not finite or outside the recipe's axes.
    """

    start_time: float
    start_freq: float
    end_freq: float
    duration: float
    sweep: Literal["linear", "exponential"]

    def __post_init__(self) -> None:
        check_fields(self)
        limits = {
            "start_time": (0.0, DURATION, "seconds"),
            "start_freq": (0.0, MAX_FREQUENCY, "hertz"),
            "end_freq": (0.0, MAX_FREQUENCY, "hertz"),
            "duration": (0.0, DURATION, "seconds"),
        }
        for name, (low, high, unit) in limits.items():
            value = getattr(self, name)
            if not (math.isfinite(value) and low <= value <= high):
                raise ValueError(f"Chirp.{name} is {value!r}, expected {unit} in [{low:g}, {high:g}]")
        if self.duration <= 0:
            raise ValueError(f"Chirp.duration is {self.duration!r}, expected more than 0 seconds")
        if self.start_time + self.duration > DURATION:
            end = self.start_time + self.duration
            raise ValueError(
                f"Chirp ends at {end:g} s, expected at most {DURATION:g} s: shorten it or start earlier"
            )
        if self.sweep not in SWEEPS:
            raise ValueError(f"Chirp.sweep is {self.sweep!r}, expected one of {SWEEPS}")

    @property
    def labels(self) -> Float[ndarray, "3"]:
        """Start time (s), start frequency (Hz), end frequency (Hz)."""
        return np.array([self.start_time, self.start_freq, self.end_freq])


@checked_arguments()
def generator(seed: int, index: int, purpose: str = "chirp") -> np.random.Generator:
    """The random stream of image `index` of `seed` for a purpose: "chirp", "noise", "layout", "waveform", "hard"."""
    for name, value in (("seed", seed), ("index", index)):
        if not 0 <= value < 2**63:
            raise ValueError(f"{name} is {value}, expected an integer in [0, 2**63)")
    kind = ("chirp", "noise", "layout", "waveform", "hard").index(purpose)
    mask = 2**32 - 1  # fixed 32-bit words, so that no two (seed, index) share their entropy
    words = (seed & mask, seed >> 32, index & mask, index >> 32, kind)
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(words)))


@checked_arguments()
def sample_chirp(seed: int, index: int) -> Chirp:
    """The chirp of image `index` of `seed`, drawn from the study's distributions."""
    rng = generator(seed, index, "chirp")
    start_time = rng.uniform(0, LATEST_START)
    duration = rng.uniform(*DURATIONS)
    start_freq = rng.uniform(0, MAX_FREQUENCY)
    end_freq = min(max(start_freq + rng.uniform(-MAX_BAND, MAX_BAND), 0.0), MAX_FREQUENCY)
    return Chirp(start_time, start_freq, end_freq, duration, SWEEPS[int(rng.integers(2))])


def shortened(chirp: Chirp) -> Chirp:
    """The same chirp with its duration moved from the recipe's range into `HARD_DURATIONS`, order kept."""
    place = (chirp.duration - DURATIONS[0]) / (DURATIONS[1] - DURATIONS[0])
    return replace(chirp, duration=HARD_DURATIONS[0] + place * (HARD_DURATIONS[1] - HARD_DURATIONS[0]))


def path(chirp: Chirp) -> tuple[range, list[float]]:
    """The columns that the recipe paints, and the ridge's row (0-127, fractional) in each.

    The published rounding is kept: start and duration are cut to whole columns, both frequencies to whole rows.
    So are its quirks: an exponential sweep that starts in row 0 is moved to row 1, and one that ends in row 0
    leaves its path after the first column and runs along row 0.
    """
    first = int(chirp.start_time * BINS / DURATION)
    count = int(chirp.duration * BINS / DURATION)
    low = int(chirp.start_freq * BINS / MAX_FREQUENCY)
    high = int(chirp.end_freq * BINS / MAX_FREQUENCY)
    if chirp.sweep == "linear":
        rows = [low + (high - low) * (step / count) for step in range(count)]
    else:
        low = low or 1
        rows = [low * (high / low) ** (step / count) for step in range(count)]
    return range(first, first + count), [min(max(row, 0.0), BINS - 1.0) for row in rows]


@checked_arguments()
def ridge(chirp: Chirp) -> Float[ndarray, "128 128"]:
    """The chirp as the recipe paints it, before noise and smoothing: five rows wide, weight exp(-d^2), in [0, 1]."""
    grid = np.zeros((BINS, BINS))
    for column, row in zip(*path(chirp), strict=True):
        centre = int(row)
        for painted in range(max(0, centre - HALF_WIDTH), min(BINS, centre + HALF_WIDTH + 1)):
            grid[painted, column] = math.exp(-0.5 * (painted - row) ** 2 / 0.5)
    # The last bits of exp and pow differ between processors (FMA, AVX-512); a grid of 2^-30 hides them.
    return np.rint(grid * 2**30) / 2**30


def smooth(grid: Float[ndarray, "rows columns"]) -> Float[ndarray, "rows columns"]:
    """The recipe's Gaussian smoothing, one bin of standard deviation in time and in frequency."""
    return gaussian_filter(grid, sigma=1)


@checked_arguments()
def smooth_ridge(painted: Float[ndarray, "128 128"]) -> Float[ndarray, "128 128"]:
    """`smooth` of a grid that is zero almost everywhere, done only where it is not; equal to the bit."""
    reach = 4  # bins: scipy cuts the Gaussian off at four standard deviations
    rows, columns = np.flatnonzero(painted.any(axis=1)), np.flatnonzero(painted.any(axis=0))
    level = np.zeros_like(painted)
    if len(rows):
        part = np.s_[
            max(0, rows[0] - 2 * reach) : rows[-1] + 2 * reach + 1,
            max(0, columns[0] - 2 * reach) : columns[-1] + 2 * reach + 1,
        ]
        level[part] = smooth(painted[part])
    return level


@checked_arguments()
def paint(
    chirp: Chirp, rng: np.random.Generator, levels: tuple[float, float] = NOISE_LEVELS
) -> Float[ndarray, "128 128"]:
    """The study's spectrogram of a chirp: ridge plus white noise, smoothed; row 0 is 0 Hz, column 0 is 0 s.

    The noise's standard deviation before smoothing is drawn evenly between the two `levels`.
    """
    level = rng.uniform(*levels)
    return smooth(ridge(chirp) + level * rng.standard_normal((BINS, BINS)))
