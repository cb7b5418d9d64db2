"""Better physics beside the recipe: a sampled chirp in coloured noise, and its true short-time Fourier transform.

The recipe paints a ridge on a grid. Here the chirp is a waveform, so its ridge has the width that the uncertainty
relation gives it, the noise is that of a signal (never negative in magnitude), and start, end and frequencies are
not cut to whole bins. The recipe's quirks are gone: an exponential sweep to 0 Hz runs down to LOWEST instead of
dropping there after its first column, and one from 0 Hz starts at LOWEST.
"""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from scipy import fft
from scipy.signal import ShortTimeFFT
from scipy.signal.windows import hann

from vitmech_utils.arguments import check_fields, checked_arguments
from vitmech_utils.data.chirps import BINS, DURATION, MAX_FREQUENCY, Chirp

RATE = 800  # samples per second: then columns and rows are whole numbers of samples apart
HOP = int(RATE * DURATION / BINS)  # 375 samples per column
TRANSFORM = int(RATE * BINS / MAX_FREQUENCY)  # 1024 samples: one frequency bin per row
WINDOW = RATE  # one second of a Hann window
ROW = MAX_FREQUENCY / BINS  # hertz
LOWEST = ROW / 2  # Hz, the centre of row 0
COLOURS = {"white": 0.0, "pink": 1.0, "brown": 2.0}  # power falls as frequency to the minus this


@dataclass(frozen=True)
class Waveform:
    """How a waveform is made: the chirp's amplitude, the noise's colour, and their ratio.

    amplitude: of the chirp, and of its ridge in the picture. snr: power of the chirp over that of the noise between
    0 and 100 Hz, in decibels; infinite means no noise. Raises ValueError for values out of range.
    """

    amplitude: float = 1.0
    noise_colour: str = "white"
    snr: float = 0.0

    def __post_init__(self) -> None:
        check_fields(self)
        if not (math.isfinite(self.amplitude) and self.amplitude > 0):
            raise ValueError(f"Waveform.amplitude is {self.amplitude!r}, expected a positive number")
        if self.noise_colour not in COLOURS:
            raise ValueError(
                f"Waveform.noise_colour is {self.noise_colour!r}, expected one of {tuple(COLOURS)}"
            )
        if math.isnan(self.snr) or self.snr < -60:
            raise ValueError(f"Waveform.snr is {self.snr!r}, expected decibels above -60, or infinity")


@checked_arguments()
def frequency(chirp: Chirp, time: Float[ndarray, " sample"]) -> Float[ndarray, " sample"]:
    """The chirp's frequency in hertz at times in seconds since its start."""
    progress = time / chirp.duration
    if chirp.sweep == "linear":
        return chirp.start_freq + (chirp.end_freq - chirp.start_freq) * progress
    low, high = max(chirp.start_freq, LOWEST), max(chirp.end_freq, LOWEST)
    return low * (high / low) ** progress


@checked_arguments()
def synthesize(chirp: Chirp, amplitude: float = 1.0) -> Float[ndarray, " sample"]:
    """The chirp as 60 s of samples at RATE; silent before its start and after its end."""
    times = np.arange(int(RATE * DURATION)) / RATE - chirp.start_time
    inside = (times >= 0) & (times < chirp.duration)
    time = times[inside]
    if chirp.sweep == "linear":
        cycles = chirp.start_freq * time + (chirp.end_freq - chirp.start_freq) * time**2 / (
            2 * chirp.duration
        )
    else:
        low, high = max(chirp.start_freq, LOWEST), max(chirp.end_freq, LOWEST)
        growth = math.log(high / low) / chirp.duration
        cycles = low * (np.expm1(growth * time) / growth if growth else time)
    signal = np.zeros(times.shape)
    signal[inside] = amplitude * np.sin(2 * np.pi * cycles)
    return signal


@checked_arguments()
def noise(rng: np.random.Generator, colour: str, power: float) -> Float[ndarray, " sample"]:
    """60 s of Gaussian noise of a colour, with the given expected power between 0 and 100 Hz.

    Raises ValueError for a colour that is none of COLOURS, or a power below 0.
    """
    if colour not in COLOURS or not 0 <= power < math.inf:
        raise ValueError(
            f"colour is {colour!r} and power {power:g}, expected one of {tuple(COLOURS)}, and 0 or more"
        )
    count = int(RATE * DURATION)
    frequencies = fft.rfftfreq(count, 1 / RATE)
    # Below one row there is no finite power to ask for: a pink spectrum has none at 0 Hz.
    gain = np.maximum(frequencies, ROW) ** (-COLOURS[colour] / 2)
    in_band = 2 * float((gain[frequencies <= MAX_FREQUENCY] ** 2).sum()) / count
    spectrum = fft.rfft(rng.standard_normal(count)) * gain
    return fft.irfft(spectrum, count) * math.sqrt(power / in_band)


@checked_arguments()
def paint_waveform(
    chirp: Chirp, rng: np.random.Generator, waveform: Waveform = Waveform()
) -> Float[ndarray, "128 128"]:
    """The magnitude of a noisy chirp's short-time Fourier transform; row 0 is 0 Hz, column 0 is 0 s.

    Scaled so that a steady tone reaches its amplitude. Windows are centred on the columns' and rows' centres.
    """
    signal = synthesize(chirp, waveform.amplitude)
    if math.isfinite(waveform.snr):
        power = waveform.amplitude**2 / 2 / 10 ** (waveform.snr / 10)
        signal = signal + noise(rng, waveform.noise_colour, power)
    # Half a row down, so that the transform's bins lie on the rows' centres.
    shifted = signal * np.exp(-2j * np.pi * LOWEST * np.arange(signal.size) / RATE)
    transform = ShortTimeFFT(
        hann(WINDOW, sym=False), HOP, RATE, fft_mode="twosided", mfft=TRANSFORM, scale_to="magnitude"
    )
    magnitude = 2 * np.abs(transform.stft(shifted, p0=0, p1=BINS, k_offset=HOP // 2)[:BINS])
    return np.rint(magnitude * 2**24) / 2**24  # hides the last bits, in which processors differ


@checked_arguments()
def true_ridge(chirp: Chirp) -> Float[ndarray, "128 128"]:
    """The chirp's uncut path on the grid, painted as `ridge` paints the recipe's: weight exp(-d^2), d in rows.

    A column that the chirp covers in part has that part of the weight.
    """
    step = DURATION / BINS
    grid = np.zeros((BINS, BINS))
    rows = np.arange(BINS) + 0.5
    for column in range(BINS):
        start = max(column * step, chirp.start_time)
        end = min((column + 1) * step, chirp.start_time + chirp.duration)
        if end <= start:
            continue
        times = np.linspace(start, end, 9) - chirp.start_time
        offsets = rows - frequency(chirp, times)[:, None] / ROW
        grid[:, column] = np.exp(-(offsets**2)).max(axis=0) * (end - start) / step
    return np.rint(grid * 2**24) / 2**24
