"""Region maps: exhaustive, exclusive, text where ink is, and the chirp on its path in seconds and hertz."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vitmech_utils.data.chirps import Chirp, generator, paint, sample_chirp
from vitmech_utils.data.dataset import ChirpDataset
from vitmech_utils.data.figures import REGIONS, draw, region_coverage
from vitmech_utils.data.reference import build_figure
from vitmech_utils.data.style import PLOT, Style

TEXT = tuple(REGIONS.index(name) for name in ("title", "axis label", "tick label", "colour-bar label"))
CHIRP, BACKGROUND, MARGIN = (REGIONS.index(name) for name in ("chirp", "plot background", "margin"))


def time_and_frequency(rows: np.ndarray, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Seconds and hertz at the centres of pixels of a published picture, by hand from the axes' position."""
    left, bottom, width, height = PLOT
    x, y = (columns + 0.5) * 640 / 224, 480 - (rows + 0.5) * 480 / 224
    return 60 * (x - left) / width, 100 * (y - bottom) / height


@settings(max_examples=30, deadline=None)
@given(index=st.integers(0, 10_000), style=st.sampled_from(["published", "bare", "moved", "randomized"]))
def test_every_pixel_has_one_region_and_text_is_where_ink_is(index: int, style: str) -> None:
    image, regions = ChirpDataset(10_001, seed=6, style=style).drawing(index)
    assert regions.shape == image.shape[:2]
    assert regions.max() < len(REGIONS)
    darkness = 255 - image.max(axis=2).astype(int)
    assert (darkness[np.isin(regions, TEXT)] >= 20).all()  # a tenth of 255, less rounding
    assert (darkness[regions == MARGIN] <= 26).mean() > 0.99
    if style == "bare":
        assert set(np.unique(regions)) <= {MARGIN, BACKGROUND, CHIRP}


def test_margin_is_white_but_for_faint_edges() -> None:
    image, regions = ChirpDataset(1, seed=6).drawing(0)
    edge = image[regions == MARGIN].min(axis=1)
    assert np.median(edge) == 255


@settings(max_examples=60, deadline=None)
@given(index=st.integers(0, 10_000))
def test_chirp_pixels_lie_on_the_chirps_path(index: int) -> None:
    chirp = sample_chirp(31, index)
    regions = draw(paint(chirp, generator(31, index, "noise")), chirp, "bare").regions
    rows, columns = np.nonzero(regions == CHIRP)
    assert len(rows)
    time, frequency = time_and_frequency(rows, columns)
    second, hertz = 60 / 128, 100 / 128  # one bin
    # Cutting to whole bins, smoothing and pixels blur the ends by up to four bins.
    assert time.min() >= chirp.start_time - 4 * second
    assert time.max() <= chirp.start_time + chirp.duration + 3 * second
    low, high = sorted((chirp.start_freq, chirp.end_freq))
    dropped = chirp.sweep == "exponential" and low < 2 * hertz  # leaves its path for row 0, see the recipe
    assert frequency.min() >= (0 if dropped else low - 5 * hertz)
    assert frequency.max() <= high + 5 * hertz
    if chirp.sweep == "linear":
        middle = np.clip((time - chirp.start_time) / chirp.duration, 0, 1)
        on_path = chirp.start_freq + (chirp.end_freq - chirp.start_freq) * middle
        slope = abs(chirp.end_freq - chirp.start_freq) / chirp.duration
        assert (np.abs(frequency - on_path) <= 5 * hertz + 2.5 * second * slope).all()


def test_a_level_chirp_is_five_rows_high() -> None:
    chirp = Chirp(10.0, 50.0, 50.0, 15.0, "linear")
    regions = draw(paint(chirp, generator(0, 0, "noise")), chirp).regions
    rows, columns = np.nonzero(regions == CHIRP)
    time, frequency = time_and_frequency(rows, columns)
    # Row 64 is painted for 50 Hz; its centre lies at 50.4 Hz.
    assert frequency.mean() == pytest.approx(64.5 * 100 / 128, abs=0.3)
    assert np.ptp(frequency) == pytest.approx(4 * 100 / 128, abs=1.3)
    assert time.min() == pytest.approx(21 * 60 / 128, abs=0.8)
    assert time.max() == pytest.approx(53 * 60 / 128, abs=0.8)


def test_title_pixels_are_those_that_vanish_without_a_title() -> None:
    chirp = sample_chirp(2, 0)
    grid = paint(chirp, generator(2, 0, "noise"))
    titled = draw(grid, chirp, "published", "Synthetic Spectrogram 1 (linear chirp)")
    untitled = draw(grid, chirp, Style(title="none"))
    changed = (titled.image != untitled.image).any(axis=2)
    title = titled.regions == REGIONS.index("title")
    assert title.sum() > 200
    assert changed[title].all()
    assert not (untitled.regions == REGIONS.index("title")).any()


def test_regions_lie_where_matplotlib_puts_the_artists() -> None:
    chirp = sample_chirp(2, 1)
    grid = paint(chirp, generator(2, 1, "noise"))
    title = "Synthetic Spectrogram 2 (linear chirp)"
    artists = build_figure(grid, Style.published, title)
    artists.pixels()
    regions = draw(grid, chirp, "published", title).regions
    extents = {
        "title": artists.plot.title.get_window_extent(),
        "colour bar": artists.bar.get_window_extent(),
        "colour-bar label": artists.bar.yaxis.label.get_window_extent(),
    }
    for name, box in extents.items():
        rows, columns = np.nonzero(regions == REGIONS.index(name))
        x, y = (columns + 0.5) * 640 / 224, 480 - (rows + 0.5) * 480 / 224
        assert x.min() >= box.x0 - 3, name
        assert x.max() <= box.x1 + 3, name
        assert y.min() >= box.y0 - 3, name
        assert y.max() <= box.y1 + 3, name
        assert np.ptp(y) > 0.6 * box.height or np.ptp(x) > 0.9 * box.width, name


@settings(max_examples=20, deadline=None)
@given(
    patch=st.sampled_from([1, 2, 4, 7, 8, 14, 16, 28, 32, 56, 112, 224]),
    seed=st.integers(0, 2**32),
)
def test_patch_coverage_sums_to_one_and_counts_pixels(patch: int, seed: int) -> None:
    regions = np.random.default_rng(seed).integers(0, len(REGIONS), (224, 224)).astype(np.uint8)
    coverage = region_coverage(regions, patch)
    assert coverage.shape == (len(REGIONS), 224 // patch, 224 // patch)
    np.testing.assert_allclose(coverage.sum(axis=0), 1)
    np.testing.assert_allclose(
        coverage.mean(axis=(1, 2)), np.bincount(regions.flat, minlength=len(REGIONS)) / 224**2
    )


def test_patch_coverage_by_hand() -> None:
    regions = np.zeros((4, 6), np.uint8)
    regions[:2, 2:3] = 2
    coverage = region_coverage(regions, 2)
    assert coverage.shape == (9, 2, 3)
    assert coverage[2].tolist() == [[0, 0.5, 0], [0, 0, 0]]
    with pytest.raises(ValueError, match="patch size 5"):
        region_coverage(regions, 5)
