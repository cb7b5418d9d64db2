"""Pictures of real signals beside synthetic ones that show the same track as clearly: pairs that differ in one thing.

What a model meets in a real spectrogram is unfamiliar twice: the noise is none of the recipe's, and the sound takes a
way that the recipe never draws. So there are two pairs. *Strain*: a chirp of the recipe, put into detectors' noise,
beside the recipe's own picture of it. *Calls*: a bird's calls, beside the recipe's noise with the same track painted.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Real

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy import ndarray
from scipy.optimize import brentq
from torch import Tensor

from vitmech_utils.arguments import checked_arguments
from vitmech_utils.data.chirp_dataset import ChirpDataset, as_pixels, standardize
from vitmech_utils.data.chirps import (
    BINS,
    DURATION,
    MAX_FREQUENCY,
    Chirp,
    generator,
    ridge,
    smooth,
    smooth_ridge,
)
from vitmech_utils.data.figures import Drawing
from vitmech_utils.data.recordings import Recording, recorded, window_grid
from vitmech_utils.data.recordings.spectrograms import Axes, contrast
from vitmech_utils.data.recordings.windows import draw_window
from vitmech_utils.data.regions import CHIRP
from vitmech_utils.data.style import Style
from vitmech_utils.data.waveforms import frequency, true_ridge
from vitmech_utils.studies.recordings.sources import Call

STRAIN_BAND = (200.0, 4096.0)  # Hz: below, seismic noise drowns everything in one second of strain
LENGTH = 0.1  # seconds of a window
CALL_TOP = 8000.0  # Hz; the calls' strongest part lies between 1 and 6 kHz
TRUSTED = (1 / 16, 15 / 16)  # seconds of whitened strain: beside them, filters fade in and out
CLEAR = 4.0  # times the median of a window: what is weaker is not traced
JUMP = 16  # rows between two columns, beyond which a trace is broken: another sound has become the strongest
LEAST_COLUMNS = 32  # a window with a shorter trace is left out
LEAST_CONTRAST = 2.0  # of a call's window; the recipe's faintest chirps have a little more
MOST_SAMPLES = 2**26  # of a chirp
GOLDEN = (5**0.5 - 1) / 2


@dataclass(frozen=True)
class Picture:
    """A grid to be drawn: its axes, the chirp painted without noise, the title, and where it comes from.

    `labels` are start time, start and end frequency of the chirp as the recipe's axes would give them (s, Hz, Hz), NaN
    where no chirp is. `snr` is the picture's `contrast`.
    """

    grid: Float[ndarray, "128 128"]
    painted: Float[ndarray, "128 128"]
    axes: Axes
    labels: Float[ndarray, "3"]
    title: str
    source: str
    snr: float = float("nan")

    def drawing(self, style: Style | str = "published") -> Drawing:
        """The figure and its region map."""
        return draw_window(self.grid, self.painted, self.axes, style, self.title)


@checked_arguments()
def stacked(pictures: Iterable[Picture], style: Style | str = "published") -> dict[str, Tensor]:
    """Pictures as one batch: pixel_values, regions, and labels (standardized), as `attention_statistics` takes it."""
    pictures = list(pictures)
    if not pictures:
        raise ValueError("no pictures: expected at least one")
    drawn = [picture.drawing(style) for picture in pictures]
    labels = np.stack([standardize(picture.labels) for picture in pictures]).astype(np.float32)
    return {
        "pixel_values": torch.stack([as_pixels(drawing.image) for drawing in drawn]),
        "regions": torch.stack([torch.from_numpy(drawing.regions) for drawing in drawn]),
        "labels": torch.from_numpy(labels),
    }


@checked_arguments()
def chirp_cells(painted: Float[ndarray, "128 128"]) -> Bool[ndarray, "128 128"]:
    """The cells that count as chirp, as the region map has them."""
    return smooth_ridge(painted) >= CHIRP


@checked_arguments()
def sweep(chirp: Chirp, rate: Real, axes: Axes) -> tuple[float, Float[ndarray, " sample"]]:
    """A chirp of the recipe on other axes, as samples of amplitude one, and the second of the first of them.

    Its time runs from `axes.start` to `axes.end` as the recipe's from 0 to 60 s, its frequency likewise; the phase is
    the integral of `waveforms.frequency`.
    """
    if not 0 < rate * (axes.end - axes.start) <= MOST_SAMPLES:
        raise ValueError(
            f"rate is {rate!r}, expected samples per second that make at most {MOST_SAMPLES:,} of the axis"
        )
    seconds, hertz = (axes.end - axes.start) / DURATION, (axes.high - axes.low) / MAX_FREQUENCY
    first = round((axes.start + chirp.start_time * seconds) * rate)
    last = round((axes.start + (chirp.start_time + chirp.duration) * seconds) * rate)
    times = np.arange(first, max(last, first + 2)) / rate
    since = np.clip((times - axes.start) / seconds - chirp.start_time, 0, chirp.duration)
    pitch = axes.low + frequency(chirp, since) * hertz
    cycles = np.concatenate([[0.0], np.cumsum((pitch[1:] + pitch[:-1]) / 2) / rate])
    return first / rate, np.sin(2 * np.pi * cycles)


@checked_arguments()
def strain_pictures(strain: Mapping[str, Recording], windows: int, seed: int = 0) -> dict[str, list[Picture]]:
    """`windows` of each whitened detector, the detectors in turn: "put in", "noise alone", "painted" and "recipe".

    *recipe* is the recipe's held-out image as it is; *painted* the same grid with the window's axes and title; *put in*
    the same chirp added to the detector's noise, as strong as gives the picture the same signal-to-noise ratio; *noise
    alone* the same window without it, with the region map of the chirp that is not there.
    """
    recipe = ChirpDataset(windows * len(strain), seed, split="held-out")
    starts = np.linspace(TRUSTED[0], TRUSTED[1] - LENGTH, windows)
    found: dict[str, list[Picture]] = {"put in": [], "noise alone": [], "painted": [], "recipe": []}
    for index in range(len(recipe)):
        name = list(strain)[index % len(strain)]
        start = float(starts[index // len(strain)])
        axes = Axes(start, start + LENGTH, 0.0, STRAIN_BAND[1])
        chirp, grid = recipe.chirp(index), recipe.grid(index)
        snr = contrast(grid, chirp_cells(ridge(chirp)))
        # As bright as a spectrogram of noise, whose mean is not zero: colours are scaled to each picture's range.
        painted = Picture(grid, ridge(chirp), axes, chirp.labels, f"{name} strain", name, snr)
        found["painted"].append(painted)
        whole = Axes(0.0, DURATION, 0.0, MAX_FREQUENCY)
        found["recipe"].append(replace(painted, axes=whole, title=recipe.title(index)))
        found["put in"].append(_put_in(strain[name], replace(painted, painted=true_ridge(chirp)), chirp))
        alone = window_grid(strain[name], axes)
        found["noise alone"].append(
            replace(found["put in"][-1], grid=alone, labels=np.full(3, np.nan), snr=float("nan"))
        )
    return found


def _put_in(recording: Recording, wanted: Picture, chirp: Chirp) -> Picture:
    first, signal = sweep(chirp, recording.rate, wanted.axes)
    noise = recording.samples(0, recording.duration)
    at = round(first * recording.rate)
    cells = chirp_cells(wanted.painted)

    def grid(amplitude: float) -> ndarray:
        mixed = noise.copy()
        mixed[at : at + len(signal)] += amplitude * signal
        return window_grid(recorded(mixed, recording.rate, recording.name), wanted.axes)

    amplitude = matching(lambda value: contrast(grid(value), cells), wanted.snr, (1e-2, 1e3))
    mixed = grid(amplitude)
    return replace(wanted, grid=mixed, snr=contrast(mixed, cells))


@checked_arguments()
def call_pictures(calls: Mapping[str, Call], windows: int, seed: int = 0) -> dict[str, list[Picture]]:
    """Up to `windows` windows spread over all calls: "recorded", and "painted" with the same track and clearness.

    A window counts where a trace can be followed over at least a quarter of it and stands out of everything else as
    much as the recipe's faintest chirps do. There may be fewer such windows than asked for.
    """
    places = [(number, axes) for number, call in calls.items() for axes in _call_windows(call.recording)]
    found: dict[str, list[Picture]] = {"recorded": [], "painted": []}
    for which in np.argsort(
        np.arange(len(places)) * GOLDEN % 1, kind="stable"
    ):  # the first few lie far apart
        if len(found["recorded"]) == windows:
            break
        picture = _traced(*places[which], calls)
        if picture is None:
            continue
        noise = generator(seed, len(found["recorded"]), "noise").standard_normal((BINS, BINS))
        level, cells = smooth(picture.painted), chirp_cells(picture.painted)
        noise = smooth(noise)

        def clearness(strength: float, level: ndarray = level, noise: ndarray = noise, cells=cells) -> float:
            return contrast(level + noise / strength, cells)

        grid = level + noise / matching(clearness, picture.snr, (1e-2, 1e3))
        found["recorded"].append(picture)
        found["painted"].append(replace(picture, grid=grid, snr=contrast(grid, cells)))
    if not found["recorded"]:
        raise ValueError("no call can be traced in any window: expected calls that stand out of their noise")
    return found


def _traced(number: str, axes: Axes, calls: Mapping[str, Call]) -> Picture | None:
    grid = window_grid(calls[number].recording, axes)
    rows = trace(grid, calls[number].drawn(axes))
    if np.isfinite(rows).sum() < LEAST_COLUMNS:
        return None
    painted = ridge_of(rows)
    snr = contrast(grid, chirp_cells(painted))
    picture = Picture(grid, painted, axes, track_labels(rows), f"Call {number}", number, snr)
    return picture if snr >= LEAST_CONTRAST else None


def _call_windows(recording: Recording) -> list[Axes]:
    hop = LENGTH / 16
    count = int((recording.duration - LENGTH) / hop + 1e-9) + 1
    return [Axes(at * hop, at * hop + LENGTH, 0.0, CALL_TOP) for at in range(max(0, count))]


@checked_arguments()
def matching(measure: Callable[[float], float], target: float, bounds: tuple[float, float]) -> float:
    """The value between two bounds at which a growing measure reaches a target, to a thousandth of it.

    Raises ValueError where the target lies outside what the bounds give.
    """
    ends = [measure(bound) for bound in bounds]
    if not ends[0] <= target <= ends[1]:
        raise ValueError(
            f"a signal-to-noise ratio of {target:g} cannot be reached: expected {ends[0]:g} to {ends[1]:g}"
        )
    return float(
        np.exp(brentq(lambda value: measure(float(np.exp(value))) - target, *np.log(bounds), xtol=1e-3))
    )


@checked_arguments()
def trace(grid: Float[ndarray, "128 128"], inside: Bool[ndarray, "128 128"]) -> Float[ndarray, " column"]:
    """The row of the strongest cell inside an outline, for each column; NaN where none is `CLEAR` times the median."""
    shown = np.where(inside, grid, -np.inf)
    rows = shown.argmax(axis=0).astype(float)
    rows[shown.max(axis=0) < CLEAR * np.median(grid)] = np.nan
    return rows


@checked_arguments()
def ridge_of(rows: Float[ndarray, " column"]) -> Float[ndarray, "128 128"]:
    """A trace painted as the recipe paints its ridge: weight exp(-d^2), d the rows to the way that the trace takes.

    Within a column the way leads half the distance to the rows of the columns beside it, so that a steep trace has no
    gaps; not where it jumps.
    """
    grid = np.zeros((BINS, BINS))
    places = np.arange(BINS)
    for column in np.flatnonzero(np.isfinite(rows)):
        here, ends = rows[column], [rows[column]]
        for beside in (column - 1, column + 1):
            if 0 <= beside < BINS and abs(rows[beside] - here) <= JUMP:
                ends.append((here + rows[beside]) / 2)
        distance = np.maximum(np.maximum(min(ends) - places, places - max(ends)), 0)
        grid[:, column] = np.exp(-(distance**2.0)) * (distance <= 2)
    return grid


@checked_arguments()
def track_labels(rows: Float[ndarray, " column"]) -> Float[ndarray, "3"]:
    """Start time, start and end frequency of a trace, on the recipe's axes (s, Hz, Hz); NaN for an empty one."""
    columns = np.flatnonzero(np.isfinite(rows))
    if not len(columns):
        return np.full(3, np.nan)
    hertz = (rows[columns[[0, -1]]] + 0.5) * MAX_FREQUENCY / BINS
    return np.array([columns[0] * DURATION / BINS, *hertz])


@checked_arguments()
def apart(pictures: Sequence[Picture]) -> int:
    """How many windows of these don't overlap: the most that can be chosen from each recording, added up."""
    total = 0
    for source in {picture.source for picture in pictures}:
        end = -np.inf
        for axes in sorted((p.axes for p in pictures if p.source == source), key=lambda axes: axes.end):
            if axes.start >= end - 1e-9:
                total, end = total + 1, axes.end
    return total
