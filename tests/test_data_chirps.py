"""The study's recipe: labels, path, quirks, noise, and streams that depend on (seed, index) alone."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vitmech_utils.data import chirps
from vitmech_utils.data.chirps import LABEL_MEAN, LABEL_STD, Chirp, generator, paint, ridge, sample_chirp


def test_label_constants_are_the_recipes_integrals() -> None:
    # By hand: E[x^2] of the clipped end frequency, in units of F = 100 and b = 0.3, is
    # mass b/4 at 1, and on the flanks a density rising from 1/2 to 1.
    density = np.concatenate([np.linspace(0.5, 1, 30001), np.ones(40001), np.linspace(1, 0.5, 30001)])
    places = np.concatenate(
        [np.linspace(0, 0.3, 30001), np.linspace(0.3, 0.7, 40001), np.linspace(0.7, 1, 30001)]
    )
    variance = np.trapezoid(density * (places - 0.5) ** 2, places) + 2 * 0.075 * 0.25
    assert np.trapezoid(density, places) + 0.15 == pytest.approx(1)
    assert LABEL_STD[2] == pytest.approx(100 * math.sqrt(variance), rel=1e-7)
    assert LABEL_STD[:2] == pytest.approx([45 / math.sqrt(12), 100 / math.sqrt(12)])
    assert pytest.approx([22.5, 50, 50]) == LABEL_MEAN


def test_sampled_chirps_follow_the_recipe() -> None:
    sample = [sample_chirp(3, index) for index in range(4000)]
    labels = np.array([chirp.labels for chirp in sample])
    assert labels.mean(axis=0) == pytest.approx(LABEL_MEAN, abs=2)
    assert labels.std(axis=0) == pytest.approx(LABEL_STD, rel=0.03)
    durations = np.array([chirp.duration for chirp in sample])
    assert durations.min() >= 1
    assert durations.max() < 15
    assert durations.mean() == pytest.approx(8, abs=0.3)
    assert np.abs(labels[:, 2] - labels[:, 1]).max() <= 30
    assert np.mean([chirp.sweep == "linear" for chirp in sample]) == pytest.approx(0.5, abs=0.03)


def test_path_cuts_to_whole_bins_as_published() -> None:
    columns, rows = chirps.path(Chirp(10.0, 20.0, 40.0, 5.0, "linear"))
    # 10 s * 128 / 60 = 21.3, 5 s = 10.7 columns; 20 Hz * 1.28 = 25.6, 40 Hz = 51.2 rows
    assert (columns.start, columns.stop) == (21, 31)
    assert rows == pytest.approx([25 + 26 * step / 10 for step in range(10)])


def test_exponential_quirks_are_kept() -> None:
    _, falling = chirps.path(Chirp(0.0, 20.0, 0.5, 5.0, "exponential"))
    assert falling[0] == 25
    assert falling[1:] == [0] * 9
    _, rising = chirps.path(Chirp(0.0, 0.0, 20.0, 5.0, "exponential"))
    assert rising[0] == 1
    assert rising[-1] == pytest.approx(25 ** (9 / 10))


def test_ridge_has_the_published_weights() -> None:
    grid = ridge(Chirp(0.0, 50.0, 50.0, 1.0, "linear"))
    assert grid[62:67, 0] == pytest.approx(np.exp([-4, -1, 0, -1, -4]), abs=1e-9)
    assert grid.sum(axis=0)[:3] == pytest.approx([grid[:, 0].sum()] * 2 + [0])


def test_ridge_keeps_to_the_grid_at_100_hertz() -> None:
    assert ridge(Chirp(0.0, 100.0, 100.0, 1.0, "linear"))[127, 0] == 1


def test_noise_level_lies_in_the_recipes_range() -> None:
    chirp = Chirp(0.0, 0.0, 0.0, 1.0, "linear")
    spreads = [paint(chirp, generator(0, index, "noise"))[20:].std() for index in range(40)]
    shrink = 0.2821  # standard deviation of white noise after a Gaussian of one bin: 1 / (2 sqrt(pi))
    assert min(spreads) > 0.09 * shrink * 0.9
    assert max(spreads) < 0.3 * shrink * 1.1


def test_smoothing_a_ridge_alone_equals_smoothing_the_grid() -> None:
    for index in range(50):
        grid = ridge(sample_chirp(9, index))
        np.testing.assert_array_equal(chirps.smooth_ridge(grid), chirps.smooth(grid))


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**63 - 1), index=st.integers(0, 2**63 - 1))
def test_streams_depend_on_seed_and_index_alone(seed: int, index: int) -> None:
    first = sample_chirp(seed, index)
    sample_chirp(seed, (index + 1) % 2**63)
    assert sample_chirp(seed, index) == first
    assert sample_chirp(seed, (index + 1) % 2**63) != first
    assert sample_chirp((seed + 1) % 2**63, index) != first


@pytest.mark.parametrize(("seed", "index"), [(-1, 0), (0, -1), (2**63, 0)])
def test_seeds_out_of_range_are_refused(seed: int, index: int) -> None:
    with pytest.raises(ValueError, match="expected an integer in"):
        sample_chirp(seed, index)


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ((61.0, 1.0, 1.0, 1.0, "linear"), "start_time is 61.0"),
        ((1.0, -0.5, 1.0, 1.0, "linear"), "start_freq is -0.5"),
        ((1.0, 1.0, 100.5, 1.0, "linear"), "end_freq is 100.5"),
        ((1.0, 1.0, 1.0, 0.0, "linear"), "duration is 0.0"),
        ((1.0, 1.0, 1.0, -3.0, "linear"), "duration is -3.0"),
        ((math.nan, 1.0, 1.0, 1.0, "linear"), "start_time is nan"),
        ((1.0, math.inf, 1.0, 1.0, "linear"), "start_freq is inf"),
        ((50.0, 1.0, 1.0, 12.0, "linear"), "ends at 62 s"),
        ((1.0, 1.0, 1.0, 1.0, "quadratic"), "sweep"),
    ],
)
def test_impossible_chirps_are_refused(values: tuple, named: str) -> None:
    with pytest.raises((ValueError, TypeError), match=named):  # jaxtyping may be first
        Chirp(*values)
