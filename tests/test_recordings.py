"""Recordings: known tones and chirps on the right cells, boxes on the right pixels, bad input refused by name."""

import math

import h5py
import numpy as np
import pytest
import soundfile
import torch
from bad_inputs import write_audacity
from hypothesis import given
from hypothesis import strategies as st

from vitmech_utils.data.chirp_dataset import ChirpDataset
from vitmech_utils.data.chirps import BINS, Chirp, ridge, smooth
from vitmech_utils.data.figures import draw, draw_with_matplotlib
from vitmech_utils.data.recordings import (
    Recording,
    RecordingError,
    RecordingFolder,
    open_recording,
    recorded,
    window_grid,
)
from vitmech_utils.data.recordings.boxes import (
    AnnotationError,
    Box,
    outside,
    read_boxes,
    write_raven,
)
from vitmech_utils.data.recordings.spectrograms import (
    Axes,
    contrast,
    cover,
    spectrogram,
    whiten,
    window_samples,
)
from vitmech_utils.data.recordings.windows import draw_window, filled
from vitmech_utils.data.regions import REGIONS
from vitmech_utils.heads.attention import (
    ByImage,
    attention_statistics,
    by_image,
    image_shares,
    lift_over_blocks,
    reading_by_image,
)
from vitmech_utils.model.backbones import cache_folder
from vitmech_utils.model.regressor import ChirpRegressor
from vitmech_utils.studies.recordings.matched import (
    Picture,
    apart,
    chirp_cells,
    matching,
    ridge_of,
    stacked,
    strain_pictures,
    sweep,
    trace,
    track_labels,
)
from vitmech_utils.studies.recordings.sources import (
    CALLS,
    STRAIN,
    Call,
    Source,
    calls,
    fetch,
    read_outline,
    strain,
    triggers,
)

RATE = 8000
AXES = Axes(0.5, 1.0, 500.0, 3700.0)  # 25 Hz a row, no two numbers alike
CHIRP, BACKGROUND = REGIONS.index("chirp"), REGIONS.index("plot background")


def tone(frequency: float, seconds: float = 2.0, rate: int = RATE, amplitude: float = 0.3) -> np.ndarray:
    return amplitude * np.sin(2 * np.pi * frequency * np.arange(round(seconds * rate)) / rate)


def write(path, samples: np.ndarray, rate: int = RATE):
    """A recording as 16-bit numbers (rounded here: encoders differ in how they round), or as HDF5."""
    if path.suffix in (".wav", ".flac"):
        soundfile.write(path, np.round(samples * 32767).astype(np.int16), rate)
    else:
        with h5py.File(path, "w") as file:
            series = file.create_dataset("H1:STRAIN", data=np.round(samples * 32767) / 32768)
            series.attrs.update({"dx": 1 / rate, "x0": 1000.0, "unit": "strain"})
    return path


class TestSpectrogram:
    @pytest.mark.parametrize("row", [3, 60, 120])
    def test_a_tone_in_the_middle_of_a_row_is_strongest_there_and_has_its_amplitude(self, row):
        frequency = AXES.low + (row + 0.5) * AXES.row
        grid = spectrogram(tone(frequency), RATE, AXES)
        assert (grid.argmax(axis=0) == row).all()
        assert grid[row].max() == pytest.approx(
            0.3, rel=0.06
        )  # the mean over a row lies a little below its middle
        assert grid[row].std() < 1e-3

    def test_a_click_is_strongest_in_its_column(self):
        samples = np.zeros(2 * RATE)
        column = 37
        samples[round((AXES.start + (column + 0.5) * AXES.column) * RATE)] = 1
        grid = spectrogram(samples, RATE, AXES)
        assert set(grid.argmax(axis=1)) <= {column - 1, column, column + 1}

    def test_a_linear_sweep_runs_along_its_diagonal(self):
        times = np.arange(2 * RATE) / RATE
        pitch = 500 + 3200 * (times - 0.5) / 0.5
        samples = np.sin(2 * np.pi * np.cumsum(pitch) / RATE) * ((times >= 0.5) & (times < 1.0))
        grid = spectrogram(samples, RATE, AXES)
        inner = np.arange(10, BINS - 10)
        assert np.abs(grid[:, inner].argmax(axis=0) - inner).max() <= 1

    def test_long_windows_average_over_what_short_frames_see(self):
        """Half a minute of sound within ten minutes fills six cells, and no others to speak of."""
        axes = Axes(0, 640, 0, 4000)
        whole = tone(1015.625, 640.0)
        part = np.zeros_like(whole)
        part[100 * RATE : 130 * RATE] = whole[100 * RATE : 130 * RATE]
        steady, grid = (spectrogram(samples, RATE, axes) for samples in (whole, part))
        assert (grid[:, 21:25].argmax(axis=0) == 32).all()
        assert grid[32, 19:27].sum() == pytest.approx(steady[32, 20:26].sum(), rel=0.1)

    def test_samples_may_start_anywhere(self):
        samples = tone(1500.0) * np.linspace(0, 1, 2 * RATE)
        whole = spectrogram(samples, RATE, AXES)
        cut = spectrogram(samples[RATE // 4 :], RATE, AXES, first=0.25)
        np.testing.assert_allclose(cut, whole, atol=2e-4)

    def test_the_window_blurs_as_many_rows_as_columns(self):
        seconds = window_samples(AXES, RATE) / RATE
        assert seconds / 2 / AXES.column == pytest.approx(2 / seconds / AXES.row, rel=0.05)

    def test_what_cannot_be_shown_is_refused(self):
        with pytest.raises(ValueError, match="4000 Hz"):
            spectrogram(tone(100), RATE, Axes(0, 1, 0, 4100))
        with pytest.raises(ValueError, match="not finite"):
            spectrogram(np.full(RATE, np.nan), RATE, AXES)
        with pytest.raises(ValueError, match="shorter windows"):
            spectrogram(np.zeros(10), 50_000, Axes(0, 40_000, 0, 20_000))

    @pytest.mark.parametrize(
        "sides",
        [(1, 1, 0, 1), (2, 1, 0, 1), (0, 1, 5, 2), (-1, 1, 0, 1), (0, math.nan, 0, 1), (0, 1, 0, math.inf)],
    )
    def test_axes_that_are_empty_or_upside_down_are_refused(self, sides):
        with pytest.raises(ValueError, match=r"expected (seconds|hertz)"):
            Axes(*sides)

    def test_whitening_levels_coloured_noise_and_keeps_a_band(self):
        white = np.random.default_rng(0).standard_normal(8 * RATE)
        coloured = np.convolve(white, [1, 0.9, 0.8, 0.6, 0.4], "same") * 1e-21
        level = whiten(coloured, RATE, (400.0, 3000.0))
        middle = spectrogram(level, RATE, Axes(2, 6, 0, 4000))
        low, high = middle[16:40].mean(), middle[70:92].mean()
        assert low == pytest.approx(high, rel=0.1)
        assert middle[:8].max() < low / 3
        assert level[RATE:-RATE].std() == pytest.approx(math.sqrt(2600 / 4000), rel=0.1)
        with pytest.raises(ValueError, match="too short"):
            whiten(coloured[:100], RATE, (400.0, 3000.0))
        with pytest.raises(ValueError, match="constant"):
            whiten(np.zeros(RATE), RATE, (400.0, 3000.0))
        with pytest.raises(ValueError, match="band"):
            whiten(coloured, RATE, (400.0, 4000.0))

    def test_contrast_of_a_known_grid(self):
        grid = np.zeros((BINS, BINS))
        grid[::2] = 2  # off the chirp: mean 1, standard deviation 1
        cells = np.zeros((BINS, BINS), dtype=bool)
        cells[:2] = True
        grid[:2] = 5
        assert contrast(grid, cells) == pytest.approx(4)
        with pytest.raises(ValueError, match="no contrast"):
            contrast(grid, np.zeros_like(cells))
        with pytest.raises(ValueError, match="no noise"):
            contrast(np.where(cells, 1.0, 0.0), cells)


class TestFigures:
    @pytest.mark.parametrize("style", ["published", "bare", "moved"])
    def test_with_the_recipe_s_axes_it_is_the_recipe_s_drawing(self, style):
        dataset = ChirpDataset(1, 0, style, "held-out")
        grid, chirp, title = dataset.grid(0), dataset.chirp(0), dataset.title(0)
        own = draw_window(grid, ridge(chirp), Axes(0, 60, 0, 100), style, title)
        theirs = draw(grid, chirp, style, title)
        assert (own.image == theirs.image).all()
        assert (own.regions == theirs.regions).all()

    def test_other_axes_change_numbers_at_the_ticks_as_matplotlib_does(self):
        from vitmech_utils.data.reference import build_figure, shrink

        dataset = ChirpDataset(1, 0, "published", "held-out")
        grid, chirp, title = dataset.grid(0), dataset.chirp(0), dataset.title(0)
        own = draw_window(grid, ridge(chirp), AXES, "published", title)
        artists = build_figure(grid, dataset.style_of(0), title)
        artists.image.set_extent(AXES.extent)
        difference = np.abs(own.image.astype(int) - shrink(artists.pixels()))
        assert difference.mean() < 0.2
        assert difference.max() <= 3
        recipe = draw_with_matplotlib(grid, chirp, "published", title)
        plot = np.isin(recipe.regions, [CHIRP, BACKGROUND])
        assert (own.regions[plot] == recipe.regions[plot]).all()
        for name in ("tick label", "axis label", "frame"):
            mine, other = (d.regions == REGIONS.index(name) for d in (own, recipe))
            assert mine.any()
            assert (mine != other).any() or name == "frame"

    def test_a_box_lands_on_its_pixels(self):
        """A box over the right half and the lowest quarter covers just those pixels of the plot."""
        grid = np.random.default_rng(0).random((BINS, BINS))
        box = Box(0.75, 1.0, 500.0, 1300.0)
        image, regions = draw_window(grid, filled(cover([box], AXES)), AXES, "bare")
        assert image.shape == (224, 224, 3)
        rows, columns = np.nonzero((regions == CHIRP) | (regions == BACKGROUND))
        top, bottom, left, right = rows.min(), rows.max() + 1, columns.min(), columns.max() + 1
        inside = np.zeros_like(regions, dtype=bool)
        inside[round(bottom - (bottom - top) / 4) : bottom, round((left + right) / 2) : right] = True
        wrong = (regions == CHIRP) != inside
        assert (
            wrong.sum() <= 0.03 * inside.sum() + 2 * 70
        )  # at most a pixel's breadth along its two inner edges

    def test_cover_counts_parts_of_cells(self):
        axes = Axes(0, BINS, 0, 10 * BINS)
        covered = cover([Box(2.25, 4, 30, 45), Box(0, 1, 0, 10)], axes)
        assert covered[3, 2] == 0.75
        assert covered[4, 3] == 0.5
        assert covered[0, 0] == 1
        assert covered.sum() == pytest.approx(0.75 * 1.5 + 1.5 + 1)
        assert cover([Box(0, BINS, 0, math.inf)], axes).all()


class TestBoxes:
    boxes = (Box(0.5, 1.25, 100.0, 2000.5, "trill", 1), Box(2.0, 2.5, 0.0, 333.3, "", 2))

    def test_raven_tables_come_back_as_they_were_written(self, tmp_path):
        assert read_boxes(write_raven(self.boxes, tmp_path / "a.selections.txt")) == list(self.boxes)

    def test_audacity_labels_come_back_as_they_were_written(self, tmp_path):
        boxes = [Box(0.5, 1.25, 100.0, 2000.5, "trill"), Box(2.0, 2.5, 0.0, math.inf, "no band")]
        assert read_boxes(write_audacity(boxes, tmp_path / "a.txt")) == boxes

    @given(
        st.lists(
            st.tuples(*[st.floats(0, 1e4, allow_subnormal=False)] * 2, *[st.floats(1e-3, 1e4)] * 2),
            max_size=5,
        )
    )
    def test_any_boxes_come_back(self, tmp_path_factory, sides):
        boxes = [Box(a, a + c, b, b + d) for a, b, c, d in sides]
        path = tmp_path_factory.mktemp("boxes") / "b.txt"
        assert read_boxes(write_audacity(boxes, path)) == boxes
        assert [(b.start, b.end, b.low, b.high) for b in read_boxes(write_raven(boxes, path))] == [
            (b.start, b.end, b.low, b.high) for b in boxes
        ]

    def test_raven_s_two_views_of_a_selection_are_one_box(self, tmp_path):
        path = write_raven(self.boxes, tmp_path / "a.txt")
        lines = path.read_text().splitlines()
        twice = [lines[0], lines[1].replace("Spectrogram 1", "Waveform 1"), *lines[1:]]
        path.write_text("\n".join(twice))
        assert read_boxes(path) == list(self.boxes)

    @pytest.mark.parametrize(
        ("line", "told"),
        [
            ("1\tSpectrogram 1\t1\tabc\t2\t3\t4\t", "line 2: Begin Time (s) is 'abc'"),
            ("1\tSpectrogram 1\t1\t2\t1\t3\t4\t", "line 2: the box runs from 2 to 1 s"),
            ("1\tSpectrogram 1\t1\t1\t2\t9\t4\t", "line 2: the box reaches from 9 to 4 Hz"),
            ("1\tSpectrogram 1\t0\t1\t2\t3\t4\t", "line 2: Channel is '0'"),
            ("1\tSpectrogram 1\t1\t1\t2\t3", "line 2: 6 cells, expected 8"),
            ("1\tSpectrogram 1\t1\t1,5\t2\t3\t4\t", "decimal point"),
            ("1\tSpectrogram 1\t1\tnan\t2\t3\t4\t", "line 2: the box runs from nan"),
        ],
    )
    def test_bad_rows_of_a_raven_table_are_named(self, tmp_path, line, told):
        path = write_raven([], tmp_path / "song.selections.txt")
        path.write_text(path.read_text() + line + "\n")
        with pytest.raises(AnnotationError) as error:
            read_boxes(path)
        assert told in str(error.value)
        assert "song.selections.txt" in str(error.value)

    @pytest.mark.parametrize(
        ("text", "told"),
        [
            ("1\t2\tx\n\\\t200\t100\n", "line 2: the box reaches from 200 to 100 Hz"),
            ("\\\t100\t200\n", "line 1: a band without a label"),
            ("3\t2\tx\n", "line 1: the box runs from 3 to 2 s"),
            ("1 2 x\n", "line 1: 1 cells"),
            ("1\t2\tx\n\n1\tzwei\n", "line 3: end is 'zwei'"),
            (
                "Selection\tBegin Time (s)\n1\t2\n",
                "line 1: no column End Time (s), Low Freq (Hz), High Freq (Hz)",
            ),
        ],
    )
    def test_bad_lines_are_named(self, tmp_path, text, told):
        (tmp_path / "song.txt").write_text(text)
        with pytest.raises(AnnotationError) as error:
            read_boxes(tmp_path / "song.txt")
        assert told in str(error.value)

    def test_edges_that_audacity_left_open_are_open(self, tmp_path):
        (tmp_path / "song.txt").write_text("1\t2\tx\n\\\t-1\t500\n")
        assert read_boxes(tmp_path / "song.txt") == [Box(1, 2, 0, 500, "x")]

    def test_bytes_that_are_no_text_are_refused(self, tmp_path):
        (tmp_path / "song.txt").write_bytes(b"1\t2\t\xff\n")
        with pytest.raises(AnnotationError, match="UTF-8"):
            read_boxes(tmp_path / "song.txt")

    def test_boxes_outside_the_recording_are_told(self):
        problems = outside([Box(0, 1, 10, 20), Box(5, 11, 10, 20), Box(0, 1, 10, 6000)], 10.0, 4000.0)
        assert len(problems) == 2
        assert "box 2 ends at 11 s, but the recording at 10 s" in problems[0]
        assert "box 3 reaches from 10 to 6000 Hz" in problems[1]

    def test_labels_that_would_break_the_file_are_refused(self, tmp_path):
        with pytest.raises(ValueError, match="tab or a line break"):
            write_raven([Box(0, 1, 0, 1, "a\tb")], tmp_path / "a.txt")
        with pytest.raises(ValueError, match="no frequencies"):
            write_raven([Box(0, 1, 0, math.inf)], tmp_path / "a.txt")


class TestRecording:
    @pytest.mark.parametrize("suffix", [".wav", ".flac", ".hdf5", ".h5"])
    def test_the_same_sound_gives_the_same_grid_from_any_file(self, tmp_path, suffix):
        samples = tone(1512.5)
        recording = open_recording(write(tmp_path / f"a{suffix}", samples))
        assert (recording.rate, recording.frames, recording.duration) == (RATE, 2 * RATE, 2.0)
        expected = window_grid(recorded(np.round(samples * 32767) / 32768, RATE), AXES)
        assert (window_grid(recording, AXES) == expected).all()
        assert (expected.argmax(axis=0) == 40).all()

    def test_hdf5_tells_its_clock_and_unit(self, tmp_path):
        recording = open_recording(write(tmp_path / "a.h5", tone(100.0)))
        assert (recording.name, recording.origin, recording.unit) == ("H1:STRAIN", 1000.0, "strain")

    def test_samples_are_read_where_they_are_asked_for(self, tmp_path):
        samples = np.linspace(-0.5, 0.5, 2 * RATE)
        recording = open_recording(write(tmp_path / "a.wav", samples))
        np.testing.assert_allclose(recording.samples(0.5, 0.75), samples[4000:6000], atol=1e-4)
        assert len(recording.samples(1.9, 5.0)) == 800

    def test_of_several_channels_one_must_be_chosen(self, tmp_path):
        soundfile.write(tmp_path / "a.wav", np.stack([tone(500), tone(1500)], axis=1), RATE)
        with pytest.raises(RecordingError, match="2 channels: choose one"):
            open_recording(tmp_path / "a.wav")
        with pytest.raises(RecordingError, match="expected 1 to 2"):
            open_recording(tmp_path / "a.wav", channel=3)
        first, second, mix = (
            open_recording(tmp_path / "a.wav", channel=channel).samples(0, 2) for channel in (1, 2, "mix")
        )
        np.testing.assert_allclose(second, tone(1500), atol=1e-4)
        np.testing.assert_allclose(mix, (first + second) / 2, atol=1e-12)

    def test_of_several_series_one_must_be_named(self, tmp_path):
        with h5py.File(tmp_path / "a.h5", "w") as file:
            for name in ("one", "two"):
                file.create_dataset(name, data=tone(100.0)).attrs["Xspacing"] = 1 / RATE
            file.create_dataset("silent about time", data=tone(100.0))
            file.create_dataset("picture", data=np.zeros((3, 3)))
        with pytest.raises(
            RecordingError, match="no dataset was named; expected one of one, silent about time, two"
        ):
            open_recording(tmp_path / "a.h5")
        with pytest.raises(RecordingError, match="no series 'picture'"):
            open_recording(tmp_path / "a.h5", dataset="picture")
        with pytest.raises(RecordingError, match="no seconds between samples"):
            open_recording(tmp_path / "a.h5", dataset="silent about time")
        assert open_recording(tmp_path / "a.h5", dataset="two").rate == RATE

    @pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.h5", "a.mp3"])
    def test_files_that_are_something_else_are_refused(self, tmp_path, name):
        (tmp_path / name).write_bytes(b"this is no recording at all" * 9)
        with pytest.raises(RecordingError, match=name):
            open_recording(tmp_path / name)

    def test_a_missing_file_is_named(self, tmp_path):
        with pytest.raises(RecordingError, match=r"nowhere\.wav is not a file"):
            open_recording(tmp_path / "nowhere.wav")

    def test_silence_is_refused_with_its_place(self):
        samples = tone(1000.0)
        samples[RATE // 2 : RATE] = 0.1  # constant: no sound either
        with pytest.raises(RecordingError, match=r"samples is silent from 0\.5 to 1 s"):
            window_grid(recorded(samples, RATE), AXES)

    def test_clipping_is_refused_unless_it_is_allowed(self):
        loud = recorded(np.clip(3 * tone(700.0), -0.5, 0.5), RATE)
        with pytest.raises(RecordingError, match=r"clipped from 0\.5 to 1 s"):
            window_grid(loud, AXES)
        assert np.isfinite(window_grid(loud, AXES, clipped=True)).all()
        assert np.isfinite(window_grid(recorded(tone(700.0), RATE), AXES)).all()

    def test_gaps_are_refused_with_their_first_second(self):
        samples = tone(700.0)
        samples[6000:6003] = np.nan
        with pytest.raises(RecordingError, match=r"3 of 4000 samples .* not finite, the first at 0\.75 s"):
            window_grid(recorded(samples, RATE), AXES)
        assert np.isfinite(window_grid(recorded(samples, RATE), Axes(1.2, 1.7, 500, 3700))).all()

    def test_a_window_beyond_the_end_is_refused(self):
        with pytest.raises(RecordingError, match=r"lasts 0\.7 s"):
            window_grid(recorded(tone(700.0, 0.7), RATE), AXES)

    def test_strength_does_not_matter(self):
        """A grid is told in units of its own median, so strain of 1e-21 is drawn like sound."""
        samples = tone(700.0) + 0.1 * np.random.default_rng(0).standard_normal(2 * RATE)
        one, other = (window_grid(recorded(samples * factor, RATE), AXES) for factor in (1.0, 1e-21))
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4)
        assert np.median(one) == pytest.approx(1)

    def test_a_rate_of_nothing_is_refused(self):
        with pytest.raises(RecordingError, match="more than 0"):
            recorded(tone(1.0), 0)


class TestFolder:
    @pytest.fixture
    def folder(self, tmp_path):
        noise = 0.01 * np.random.default_rng(0).standard_normal(2 * RATE)
        write(tmp_path / "b.wav", tone(1512.5) + noise)
        write(tmp_path / "a.flac", tone(2512.5) + noise)
        write_raven([Box(0.6, 0.9, 1400, 1600)], tmp_path / "b.Table.1.selections.txt")
        return tmp_path

    def test_windows_come_in_order_with_regions_and_pixels(self, folder):
        data = RecordingFolder(folder, 0.5, (500, 3700), hop=0.25)
        assert len(data) == 14
        item = data[2 + 7]
        assert item["pixel_values"].shape == (3, 224, 224)
        assert item["pixel_values"].dtype == torch.float32
        assert item["regions"].dtype == torch.uint8
        assert (item["regions"] == CHIRP).any()
        assert not (data[2]["regions"] == CHIRP).any()  # a.flac has no boxes
        again = RecordingFolder(folder, 0.5, (500, 3700), hop=0.25)[9]
        assert all(torch.equal(item[key], again[key]) for key in item)

    def test_what_heads_look_at_can_be_asked_of_it(self, folder):
        found = attention_statistics(
            ChirpRegressor.tiny(seed=0, layers=2, heads=2),
            RecordingFolder(folder, 1.0, (0, 4000)),
            replicates=2,
        )
        assert found.images == 4

    def test_wav_and_flac_give_the_same_item(self, tmp_path):
        items = []
        for kind in ("wav", "flac"):
            (tmp_path / kind).mkdir()
            write(tmp_path / kind / f"same.{kind}", tone(1512.5))
            items.append(RecordingFolder(tmp_path / kind, 0.5, (0, 4000))[1])
        assert all(torch.equal(items[0][key], items[1][key]) for key in items[0])

    def test_whitened_windows_differ_and_are_read_once(self, folder):
        plain = RecordingFolder(folder, 0.5, (0, 4000))[1]
        white = RecordingFolder(folder, 0.5, (0, 4000), whiten=(300.0, 3000.0))[1]
        assert not torch.equal(plain["pixel_values"], white["pixel_values"])

    def test_every_problem_is_named_at_once(self, folder):
        write(folder / "short.wav", tone(100.0, 0.2))
        soundfile.write(folder / "stereo.wav", np.zeros((RATE, 2)), RATE)
        write_audacity([Box(1, 9, 0, 100)], folder / "a.txt")
        with pytest.raises(RecordingError) as error:
            RecordingFolder(folder, 0.5, (500, 3700))
        text = str(error.value)
        assert "3 problem(s)" in text
        assert "short lasts 0.2 s, shorter than a window of 0.5 s" in text
        assert "stereo.wav has 2 channels" in text
        assert "a.txt: box 1 ends at 9 s, but the recording at 2 s" in text

    @pytest.mark.parametrize(
        ("settings", "told"),
        [
            ({"length": 0.0}, "seconds above 0"),
            ({"hop": -1.0}, "seconds above 0"),
            ({"frequencies": (0, 5000)}, "hold frequencies up to 4000 Hz"),
        ],
    )
    def test_impossible_windows_are_refused(self, folder, settings, told):
        with pytest.raises(RecordingError, match=told):
            RecordingFolder(folder, **({"length": 0.5, "frequencies": (0, 4000)} | settings))

    def test_an_empty_folder_and_none_are_refused(self, tmp_path):
        with pytest.raises(RecordingError, match="no recordings"):
            RecordingFolder(tmp_path, 0.5, (0, 4000))
        with pytest.raises(RecordingError, match="is not a folder"):
            RecordingFolder(tmp_path / "none", 0.5, (0, 4000))

    def test_links_out_of_the_folder_are_refused(self, folder, tmp_path_factory):
        elsewhere = tmp_path_factory.mktemp("elsewhere")
        (folder / "c.wav").symlink_to(write(elsewhere / "c.wav", tone(100.0)))
        (folder / "a.txt").symlink_to(write_audacity([], elsewhere / "a.txt"))
        with pytest.raises(RecordingError) as error:
            RecordingFolder(folder, 0.5, (0, 4000))
        assert str(error.value).count("leads out of the folder") == 2

    def test_an_index_beyond_the_end_is_refused(self, folder):
        with pytest.raises(IndexError, match="of 8 windows"):
            RecordingFolder(folder, 0.5, (0, 4000))[8]


class TestMatched:
    def noise(self) -> dict[str, Recording]:
        rng = np.random.default_rng(3)
        return {name: recorded(rng.standard_normal(16384), 16384, name) for name in ("H1", "L1")}

    def test_a_chirp_of_the_recipe_lands_on_its_cells(self):
        chirp = Chirp(10.0, 20.0, 60.0, 30.0, "linear")
        axes = Axes(0.2, 0.6, 0.0, 4096.0)
        first, samples = sweep(chirp, 16384.0, axes)
        assert first == pytest.approx(0.2 + 0.4 * 10 / 60, abs=1e-4)
        grid = spectrogram(samples, 16384.0, axes, first)
        for column in (30, 50, 70):
            expected = BINS * (0.2 + 0.4 * ((column + 0.5) * 60 / BINS - 10) / 30)
            assert grid[:, column].argmax() == pytest.approx(expected, abs=1)

    def test_pairs_have_the_same_clearness_and_decorations(self):
        found = strain_pictures(self.noise(), 2)
        assert [len(kind) for kind in found.values()] == [4, 4, 4, 4]
        assert [picture.source for picture in found["put in"]] == ["H1", "L1", "H1", "L1"]
        for real, painted, alone in zip(found["put in"], found["painted"], found["noise alone"], strict=True):
            assert real.snr == pytest.approx(painted.snr, rel=0.02)
            assert (real.axes, real.title) == (painted.axes, painted.title)
            assert (real.labels == painted.labels).all()
            assert np.isnan(alone.labels).all()
            assert (real.drawing().regions == CHIRP).sum() == (alone.drawing().regions == CHIRP).sum()

    def test_pictures_stack_for_the_heads(self):
        batch = stacked(strain_pictures(self.noise(), 1)["put in"])
        assert batch["pixel_values"].shape == (2, 3, 224, 224)
        assert batch["labels"].shape == (2, 3)
        with pytest.raises(ValueError, match="no pictures"):
            stacked([])

    def test_a_trace_follows_the_strongest_cells_inside_the_outline(self):
        grid = np.ones((BINS, BINS))
        grid[np.arange(BINS), np.arange(BINS)] = 9
        grid[100, :] = 20  # a stronger sound outside
        inside = np.ones((BINS, BINS), dtype=bool)
        inside[90:] = False
        rows = trace(grid, inside)
        assert (rows[:90] == np.arange(90)).all()
        assert np.isnan(rows[90:]).all()
        assert track_labels(rows) == pytest.approx([0.0, 0.5 * 100 / BINS, 89.5 * 100 / BINS])
        assert np.isnan(track_labels(np.full(BINS, np.nan))).all()

    def test_a_level_trace_is_painted_as_the_recipe_paints_it(self):
        rows = np.full(BINS, np.nan)
        rows[20:40] = 50
        chirp = Chirp(
            20 * 60 / BINS + 1e-6,
            50 * 100 / BINS + 1e-6,
            50 * 100 / BINS + 1e-6,
            20 * 60 / BINS + 1e-6,
            "linear",
        )
        np.testing.assert_allclose(ridge_of(rows), ridge(chirp), atol=1e-8)

    def test_a_steep_trace_has_no_gaps_but_where_it_jumps(self):
        rows = np.full(BINS, np.nan)
        rows[10:13] = [20, 30, 100]
        painted = ridge_of(rows) > 0.9
        assert painted[20:26, 10].all()
        assert painted[25:31, 11].all()
        assert not painted[40:90].any()

    def test_matching_finds_the_level_and_refuses_what_cannot_be(self):
        assert matching(lambda value: 3 * value, 6.0, (0.1, 10.0)) == pytest.approx(2, rel=2e-3)
        with pytest.raises(ValueError, match="cannot be reached"):
            matching(lambda value: 3 * value, 60.0, (0.1, 10.0))

    def test_windows_that_do_not_overlap_are_counted_by_recording(self):
        def window(source: str, start: float) -> Picture:
            zeros = np.zeros((BINS, BINS))
            return Picture(zeros, zeros, Axes(start, start + 1, 0, 1), np.zeros(3), "", source)

        assert apart([window("a", start) for start in (0, 0.5, 1, 1.5, 2.2)] + [window("b", 0.5)]) == 4

    def test_smoothing_is_what_makes_cells_count(self):
        level = np.zeros((BINS, BINS))
        level[60, 30:60] = 1
        assert (chirp_cells(level) == (smooth(level) >= 0.15)).all()


class TestByImage:
    def test_shares_and_lift_of_a_hand_made_map(self):
        maps = np.zeros((2, 1, 1, 4), np.float32)
        maps[0, ..., 0] = 1  # all attention on the first of 2 x 2 patches
        maps[1, ...] = 0.25
        regions = torch.zeros(2, 4, 4, dtype=torch.uint8)
        regions[:, :2, :1] = CHIRP  # half of the first patch
        shares, areas = image_shares(ByImage(maps, np.zeros((2, 3), np.float32)), regions, CHIRP)
        np.testing.assert_allclose(shares.ravel(), [0.5, 0.125])
        np.testing.assert_allclose(areas, [0.125, 0.125])
        lift = lift_over_blocks(shares.ravel(), areas, ["a", "b"])
        assert (lift.value, lift.low, lift.high) == pytest.approx((2.5, 1.0, 4.0))
        assert lift_over_blocks(shares.ravel(), areas, ["a", "a"]).half_width == 0
        with pytest.raises(ValueError, match="as many of each"):
            lift_over_blocks(shares.ravel(), areas, ["a"])
        with pytest.raises(ValueError, match="region maps have shape"):
            image_shares(ByImage(maps, np.zeros((2, 3), np.float32)), regions[:1], CHIRP)

    def test_it_reads_what_the_model_says(self):
        model = ChirpRegressor.tiny(seed=0, layers=2, heads=3).eval()
        pixels = torch.rand(3, 3, 224, 224, generator=torch.Generator().manual_seed(0))
        found = by_image(model, {"pixel_values": pixels}, batch=2)
        with torch.inference_mode():
            np.testing.assert_allclose(found.predictions, model(pixels).logits.numpy(), atol=1e-5)
        assert found.maps.shape[:3] == (3, 2, 3)
        np.testing.assert_allclose(found.maps.sum(-1), 1, atol=1e-5)

    def test_it_reads_along_while_statistics_are_taken(self):
        model = ChirpRegressor.tiny(seed=0, layers=2, heads=3).eval()
        images = {
            "pixel_values": torch.rand(3, 3, 224, 224, generator=torch.Generator().manual_seed(0)),
            "regions": torch.zeros(3, 224, 224, dtype=torch.uint8),
        }
        with reading_by_image(model) as seen:
            beside = attention_statistics(model, images, replicates=2, batch=2)
            found = seen()
        alone = by_image(model, images, batch=2)
        np.testing.assert_allclose(found.maps, alone.maps, atol=1e-6)
        np.testing.assert_allclose(found.predictions, alone.predictions, atol=1e-6)
        assert beside.regions.equals(attention_statistics(model, images, replicates=2, batch=2).regions)


class TestRealSignals:
    def test_an_outline_in_milliseconds_and_kilohertz(self, tmp_path):
        path = tmp_path / "1.ebl"
        path.write_text(
            "# element list\nPOLYGON ((0 0, 100 0, 100 8, 0 8, 0 0), (25 2, 75 2, 75 6, 25 6, 25 2))\n"
        )
        rings = read_outline(path)
        assert [ring.max(axis=0).tolist() for ring in rings] == [[0.1, 8000.0], [0.075, 6000.0]]
        drawn = Call(recorded(tone(100.0), RATE), rings).drawn(Axes(0, 0.2, 0, 8000))
        assert drawn[1, 1]
        assert not drawn[64, 32]  # in the hole
        assert not drawn[:, 64:].any()
        assert drawn.mean() == pytest.approx(0.5 - 0.125)
        path.write_text("# element list\nPOINT (1 2)\n")
        with pytest.raises(RecordingError, match=r"1\.ebl line 2: expected a POLYGON"):
            read_outline(path)

    def test_without_a_package_index_the_error_says_what_to_do(self, tmp_path, monkeypatch):
        monkeypatch.setenv("PIP_NO_INDEX", "1")
        with pytest.raises(RecordingError, match=r"pip could not download gwpy==.*\(RecordingFolder\)"):
            fetch(STRAIN, tmp_path)

    def test_a_source_is_pinned_by_hash(self):
        for source in (STRAIN, CALLS):
            assert isinstance(source, Source)
            assert len(source.sha256) == 64
            assert source.requirement.count("==") == 1

    @pytest.mark.slow
    def test_the_second_of_strain_and_the_table_beside_it(self):
        detectors = strain(cache_folder())
        assert list(detectors) == ["H1", "L1", "V1"]
        for recording in detectors.values():
            assert (recording.rate, recording.frames, recording.unit) == (16384, 16384, "strain")
            assert recording.origin == 968654552
            assert 1e-19 < recording.samples(0, 1).std() < 1e-15
        seen = triggers(cache_folder())
        assert 5 < seen.loc[seen["snr"].idxmax(), "time"] < 6.5

    @pytest.mark.slow
    def test_the_calls_have_outlines_around_sound(self):
        found = calls(cache_folder())
        assert len(found) == 13
        call = found["3"]
        axes = Axes(0.1, 0.2, 0, 8000)
        grid = window_grid(call.recording, axes)
        rows = trace(grid, call.drawn(axes))
        followed = np.flatnonzero(np.isfinite(rows))
        assert len(followed) > BINS / 2
        assert grid[rows[followed].astype(int), followed].mean() > 5

    @pytest.mark.slow
    def test_a_fetched_archive_with_another_hash_is_refused(self, tmp_path):
        other = Source(STRAIN.requirement, "0" * 64, STRAIN.members, STRAIN.count)
        with pytest.raises(RecordingError, match="could not download"):
            fetch(other, tmp_path)
