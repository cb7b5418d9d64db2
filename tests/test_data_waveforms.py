"""The second source: known frequencies, amplitudes and noise powers."""

import math

import numpy as np
import pytest

from vitmech_utils.data.chirps import Chirp, generator
from vitmech_utils.data.dataset import ChirpDataset
from vitmech_utils.data.figures import REGIONS, draw
from vitmech_utils.data.waveforms import (
    RATE,
    Waveform,
    frequency,
    noise,
    paint_waveform,
    synthesize,
    true_ridge,
)

SILENT = Waveform(snr=math.inf)


def spectrogram(chirp: Chirp, waveform: Waveform = SILENT, index: int = 0) -> np.ndarray:
    return paint_waveform(chirp, generator(0, index, "waveform"), waveform)


def test_a_steady_tone_reaches_its_amplitude_on_its_row() -> None:
    row = 40
    tone = (row + 0.5) * 100 / 128
    grid = spectrogram(Chirp(10.0, tone, tone, 30.0, "linear"), Waveform(amplitude=3.0, snr=math.inf))
    assert grid[:, 40].argmax() == row
    assert grid[row, 30:80] == pytest.approx(3.0, abs=1e-5)
    assert grid[:, :15].max() < 1e-6


@pytest.mark.parametrize("sweep", ["linear", "exponential"])
def test_the_ridge_follows_the_formula(sweep: str) -> None:
    chirp = Chirp(12.0, 20.0, 45.0, 15.0, sweep)
    grid = spectrogram(chirp)
    columns = np.arange(30, 55)
    expected = frequency(chirp, (columns + 0.5) * 60 / 128 - chirp.start_time)
    seen = (grid[:, columns].argmax(axis=0) + 0.5) * 100 / 128
    assert np.abs(seen - expected).max() <= 1.0
    painted = true_ridge(chirp)
    assert np.abs((painted[:, columns].argmax(axis=0) + 0.5) * 100 / 128 - expected).max() <= 1.0


def test_an_exponential_sweep_to_zero_runs_down_instead_of_dropping() -> None:
    rows = spectrogram(Chirp(10.0, 40.0, 0.0, 15.0, "exponential")).argmax(axis=0)[22:52]
    assert (np.diff(rows) <= 1).all()
    assert rows[0] > 40
    assert len(set(rows)) > 15


def test_instantaneous_frequency_of_the_samples() -> None:
    chirp = Chirp(5.0, 30.0, 60.0, 10.0, "exponential")
    signal = synthesize(chirp, 2.0)
    assert np.abs(signal).max() == pytest.approx(2.0, rel=1e-3)
    assert not signal[: 5 * RATE].any()
    assert not signal[15 * RATE + 1 :].any()
    crossings = np.flatnonzero(np.diff(np.sign(signal[5 * RATE : 15 * RATE])) > 0).size
    assert crossings == pytest.approx(10 * 30 / math.log(2), abs=2)  # the integral of 30 * 2^(t/10)


@pytest.mark.parametrize(("colour", "slope"), [("white", 0), ("pink", -1), ("brown", -2)])
def test_noise_has_its_power_and_colour(colour: str, slope: int) -> None:
    spectra = []
    for index in range(8):
        signal = noise(generator(1, index, "waveform"), colour, 0.25)
        spectra.append(np.abs(np.fft.rfft(signal)) ** 2 / signal.size**2 * 2)
    power = np.mean(spectra, axis=0)
    frequencies = np.fft.rfftfreq(60 * RATE, 1 / RATE)
    assert power[frequencies <= 100].sum() == pytest.approx(0.25, rel=0.15)
    bands = [(4, 8), (8, 16), (16, 32), (32, 64)]
    levels = [np.log2(power[(low <= frequencies) & (frequencies < high)].mean()) for low, high in bands]
    assert np.diff(levels).mean() == pytest.approx(slope, abs=0.15)


def test_ratio_of_signal_to_noise() -> None:
    chirp = Chirp(0.0, 50.0, 50.0, 60.0, "linear")
    loud, quiet = (spectrogram(chirp, Waveform(snr=float(snr)))[:40].mean() for snr in (0, 20))
    assert loud / quiet == pytest.approx(10, rel=0.05)  # 20 dB are a factor of ten in amplitude


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"amplitude": 0.0}, "amplitude"),
        ({"noise_colour": "red"}, "noise_colour"),
        ({"snr": math.nan}, "snr"),
    ],
)
def test_impossible_waveforms_are_refused(values: dict, named: str) -> None:
    with pytest.raises((ValueError, TypeError), match=named):  # jaxtyping may be first
        Waveform(**values)


def test_waveform_data_sets_share_chirps_and_mark_the_uncut_path() -> None:
    painted, sampled = ChirpDataset(9, seed=3), ChirpDataset(9, seed=3, source=Waveform(snr=10.0))
    assert painted.chirp(4) == sampled.chirp(4)
    assert (painted.drawing(4).image != sampled.drawing(4).image).any()
    assert (sampled.drawing(4).regions == REGIONS.index("chirp")).sum() > 20
    assert (sampled.drawing(4).image == sampled.drawing(4).image).all()


def test_chirp_pixels_of_a_waveform_are_bright() -> None:
    chirp = Chirp(20.0, 30.0, 55.0, 12.0, "linear")
    image, regions = draw(spectrogram(chirp), chirp, "bare", "", true_ridge(chirp))
    green = image[..., 1].astype(int)
    chirp_level, background = (
        green[regions == REGIONS.index(name)].mean() for name in ("chirp", "plot background")
    )
    assert chirp_level > 2 * background
