"""Seizure spectrograms: boxes on their own pixels, colours read back to numbers, folds, bad input refused by name."""

from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from vitmech_utils.data.recordings import RecordingError
from vitmech_utils.data.recordings.boxes import AnnotationError, Box
from vitmech_utils.data.recordings.seizures import (
    AXES,
    COLUMNS,
    PLOT,
    ROWS,
    TABLE,
    SeizurePicture,
    cell_means,
    check_folds,
    colour_scale,
    folds,
    plot_of,
    read_seizures,
)
from vitmech_utils.data.regions import REGIONS
from vitmech_utils.model.backbones import cache_folder
from vitmech_utils.studies.recordings.sources import SEIZURES, fetch, is_cached, seizures

CHIRP, BACKGROUND, MARGIN = (REGIONS.index(name) for name in ("chirp", "plot background", "margin"))
COLOURS = np.stack([np.arange(256), np.arange(256) // 2, 255 - np.arange(256)], axis=1).astype(np.uint8)
FIRST, SECOND = "18000001_5.0_ch1_spectrogram.png", "18000001_5.0_ch2_spectrogram.png"
SHEET = "default_annotations.xlsx"
BOX = (10.0, 20.0, 5.0, 15.0)


def field(seed: int = 0) -> np.ndarray:
    """Places on the map, all 256 of them."""
    values = np.random.default_rng(seed).integers(256, size=(ROWS, COLUMNS))
    values[0, :] = np.arange(COLUMNS) % 256
    return values


def picture(places: np.ndarray, colours: np.ndarray = COLOURS) -> np.ndarray:
    image = np.full((224, 224, 3), 255, np.uint8)
    plot_of(image)[:] = colours[places]
    return image


def row(name: str = FIRST, box: tuple | None = BOX) -> tuple:
    return (name, box is not None, *(box or (np.nan,) * 4))


def folder(place: Path, rows: list[tuple], names: tuple[str, ...] = (FIRST, SECOND), columns=TABLE) -> Path:
    place.mkdir(exist_ok=True)
    for number, name in enumerate(names):
        Image.fromarray(picture(field(number))).save(place / name)
    pd.DataFrame(rows, columns=columns).to_excel(place / SHEET, index=False)
    return place


def refused(place: Path, told: str, error: type[Exception] = AnnotationError) -> None:
    with pytest.raises(error, match=told):
        read_seizures(place)


class TestReading:
    def test_pictures_their_recordings_and_boxes_in_the_order_they_were_drawn(self, tmp_path: Path) -> None:
        other = (30.0, 40.0, 20.0, 30.0)
        copies = "18000001_5.0_ch1_augment1_spectrogram.png"
        rows = [row(box=other), row(box=other), row(), row(SECOND), row(copies, (0.0, 1.0, 99.0, 100.0))]
        found = read_seizures(folder(tmp_path, rows))
        first, second = found.pictures
        assert (first.recording, first.excerpt, first.channel) == ("18000001", "18000001_5.0", 1)
        assert first.boxes == (Box(*other), Box(*BOX))
        assert second.boxes == (Box(*BOX),)
        assert (first.image == picture(field(0))).all()
        assert first.axes_labels.tolist() == [30.0, 20.0, 30.0]
        assert not found.left_out

    def test_pictures_without_a_box_are_left_out_by_name(self, tmp_path: Path) -> None:
        third = "18000002_1.5_ch1_spectrogram.png"
        found = read_seizures(folder(tmp_path, [row(), row(SECOND, None)], (FIRST, SECOND, third)))
        assert [one.name for one in found.pictures] == [FIRST]
        assert found.left_out == {
            SECOND: "the table says that it has no box",
            third: "the table does not name it",
        }

    def test_a_box_without_extent_is_left_out_by_name(self, tmp_path: Path) -> None:
        found = read_seizures(folder(tmp_path, [row(box=(10, 10, 5, 9)), row(), row(SECOND)]))
        assert found.pictures[0].boxes == (Box(*BOX),)
        assert found.left_out == {f"{FIRST}, row 2": "a box without extent, 10 to 10 s and 5 to 9 Hz"}

    def test_the_first_recordings_keep_all_their_pictures(self, tmp_path: Path) -> None:
        names = (FIRST, SECOND, "18000002_1.5_ch1_spectrogram.png")
        found = read_seizures(folder(tmp_path, [row(name) for name in names], names))
        assert [one.name for one in found.first(1).pictures] == [FIRST, SECOND]


class TestRefusals:
    def test_another_version_of_the_table(self, tmp_path: Path) -> None:
        swapped = (*TABLE[:2], TABLE[3], TABLE[2], *TABLE[4:])
        for columns in (swapped, (*TABLE[:5], "high"), ("file", *TABLE[1:])):
            refused(
                folder(tmp_path, [row()], columns=columns), f"has the columns .* expected {', '.join(TABLE)}"
            )
        pd.DataFrame([row()[:5]], columns=TABLE[:5]).to_excel(tmp_path / SHEET, index=False)
        refused(tmp_path, "another version of the table")
        with pd.ExcelWriter(tmp_path / SHEET) as file:
            for name in ("one", "two"):
                pd.DataFrame([row()], columns=TABLE).to_excel(file, sheet_name=name, index=False)
        refused(tmp_path, "sheets one, two")

    def test_a_missing_or_damaged_table(self, tmp_path: Path) -> None:
        folder(tmp_path, [row()])
        content = (tmp_path / SHEET).read_bytes()
        for damaged in (b"", b"not a spreadsheet", content[: len(content) // 2]):
            (tmp_path / SHEET).write_bytes(damaged)
            refused(tmp_path, f"{SHEET} cannot be read as a spreadsheet")
        (tmp_path / SHEET).unlink()
        refused(tmp_path, f"{SHEET} is not in")

    @pytest.mark.parametrize(
        "box",
        [
            (50, 61, 5, 15),
            (10, 20, 0.5, 15),
            (10, 20, 5, 60.5),
            (-1, 20, 5, 15),
            (20, 10, 5, 15),
            (10, 20, 15, 5),
        ],
    )
    def test_a_box_that_leaves_the_picture_or_is_upside_down(self, tmp_path: Path, box: tuple) -> None:
        refused(folder(tmp_path, [row(SECOND), row(box=box)]), "row 3: .*(leaves the picture|expected)")

    @pytest.mark.parametrize(
        ("wrong", "told"),
        [
            ((FIRST, True, 1.0, np.nan, 2.0, 3.0), "row 3: .* end_time is empty"),
            ((FIRST, False, 1.0, 2.0, 2.0, 3.0), "row 3: .* FALSE, but the row holds a box"),
            ((FIRST, "yes", *BOX), "row 3: .* has_roi is 'yes'"),
            ((FIRST, True, "ten", 20.0, 5.0, 15.0), "row 3: .* are not all numbers"),
            (
                ("18000009_1.0_ch1_spectrogram.png", True, *BOX),
                "18000009_1.0_ch1.* is not among the pictures",
            ),
            (("../else.png", True, *BOX), "row 3: image_file is '../else.png'"),
            ((FIRST, False, *(np.nan,) * 4), "has boxes, and rows that say it has none"),
        ],
    )
    def test_a_row_that_cannot_be_one(self, tmp_path: Path, wrong: tuple, told: str) -> None:
        refused(folder(tmp_path, [row(), wrong]), told)

    def test_a_picture_that_is_damaged_or_of_another_form(self, tmp_path: Path) -> None:
        folder(tmp_path, [row(), row(SECOND)])
        whole = (tmp_path / FIRST).read_bytes()
        (tmp_path / FIRST).write_bytes(whole[: len(whole) // 2])
        refused(tmp_path, f"{FIRST} is cut short")
        (tmp_path / FIRST).write_bytes(b"GIF89a" + whole)
        refused(tmp_path, f"{FIRST} is not a PNG")
        Image.fromarray(picture(field())[:200]).save(tmp_path / FIRST)
        refused(tmp_path, f"{FIRST} has 224 x 200 pixels")
        Image.fromarray(np.roll(picture(field()), 3, axis=0)).save(tmp_path / FIRST)
        refused(tmp_path, f"{FIRST}: its plot is not at rows {PLOT[0]}")

    def test_a_folder_without_a_picture_with_a_box(self, tmp_path: Path) -> None:
        refused(folder(tmp_path, [row(box=None), row(SECOND, None)]), "no picture with a box")

    def test_a_missing_wheel_says_what_to_do(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PIP_NO_INDEX", "1")
        with pytest.raises(
            RecordingError, match=r"could not download seizure-timefreqroi-annotator==0\.1\.1"
        ):
            seizures(tmp_path)
        assert not is_cached(SEIZURES, tmp_path)


class TestPixels:
    def test_boxes_lie_on_their_own_pixels(self) -> None:  # a pixel that is covered by half counts
        top, left, bottom, right = PLOT
        one = SeizurePicture(FIRST, "1", "1_1", 1, picture(field()), (Box(15, 30, 1, 30.5),))
        regions = one.plain().regions
        rows, columns = np.nonzero(regions == CHIRP)
        assert (rows.min(), rows.max() + 1) == (top + ROWS / 2, bottom)
        assert (columns.min(), columns.max() + 1) == (left + COLUMNS // 4, left + COLUMNS // 2)
        assert (regions == BACKGROUND).sum() + (regions == CHIRP).sum() == ROWS * COLUMNS
        assert (regions[:top] == MARGIN).all()
        assert (regions[:, right:] == MARGIN).all()

    def test_boxes_of_the_decorated_figure_surround_what_they_surround_in_the_picture(self) -> None:
        places = np.zeros((ROWS, COLUMNS), int)
        box = Box(20, 35, 12, 40)
        one = SeizurePicture(FIRST, "1", "1_1", 1, picture(places), (box,))
        inside = one.plain().regions[PLOT[0] : PLOT[2], PLOT[1] : PLOT[3]] == CHIRP
        image = picture(np.where(inside, 255, places))
        scale = colour_scale([picture(field())])
        lit = SeizurePicture(FIRST, "1", "1_1", 1, image, (box,))
        drawing = lit.decorated(scale)
        chirp = drawing.regions == CHIRP
        bright = (drawing.image[..., 0] > 200) & (
            chirp | (drawing.regions == BACKGROUND)
        )  # viridis ends in yellow
        edges = [(found.min(), found.max()) for found in (*np.nonzero(chirp), *np.nonzero(bright))]
        assert np.abs(np.subtract(edges[:2], edges[2:])).max() <= 2  # half a cell, and its blur
        assert (chirp & bright).sum() > 0.9 * chirp.sum()
        assert {"title", "tick label", "axis label", "colour bar"} <= {
            REGIONS[at] for at in np.unique(drawing.regions)
        }


class TestColours:
    def test_the_map_is_found_in_the_pictures_and_numbers_come_back_exactly(self) -> None:
        places = [field(seed) for seed in range(2)]
        scale = colour_scale([picture(one) for one in places])
        assert (scale.colours == COLOURS).all()
        for one in places:
            pixels = plot_of(picture(one))
            assert np.abs(scale.read(pixels) * 255 - one).max() < 1e-9
            assert (scale.paint(scale.read(pixels)) == pixels).all()
            assert scale.exact(pixels).all()

    def test_a_mixed_colour_takes_the_nearest_place(self) -> None:
        places = field()
        image = picture(places)
        place = plot_of(image)[50:51, 60:61]
        place[:] = COLOURS[100] + np.array([1, 1, 0], np.uint8)
        scale = colour_scale([image])
        assert len(scale.colours) == 256
        assert scale.read(place)[0, 0] * 255 == pytest.approx(100)
        assert not scale.exact(place).any()

    def test_pictures_of_two_maps_or_of_hardly_any_colour_are_refused(self) -> None:
        hot = (mpl.colormaps["autumn"](np.arange(256))[:, :3] * 255).astype(np.uint8)
        with pytest.raises(AnnotationError, match="form no single map"):
            colour_scale([picture(field()), picture(field(), hot)])
        with pytest.raises(AnnotationError, match="hold 2 colours"):
            colour_scale([picture(field() // 128 * 200)])

    def test_cell_means_are_those_of_a_brute_force_count(self) -> None:
        values = np.random.default_rng(0).random((6, 9))
        fine = np.repeat(np.repeat(values, 4, axis=0), 4, axis=1)  # 24 x 36, which 4 divides
        assert cell_means(values, 4) == pytest.approx(fine.reshape(4, 6, 4, 9).mean((1, 3)))


class TestFolds:
    @settings(max_examples=40, deadline=None)
    @given(st.lists(st.integers(0, 12), min_size=5, max_size=60), st.integers(0, 5))
    def test_no_recording_is_in_two_folds_and_folds_are_of_like_size(
        self, numbers: list[int], seed: int
    ) -> None:
        names = [str(number) for number in numbers]
        if len(set(names)) < 3:
            return
        found = folds(names, 3, seed)
        assert all(
            len({int(found[at]) for at, name in enumerate(names) if name == one}) == 1 for one in names
        )
        sizes = np.bincount(found, minlength=3)
        assert sizes.max() - sizes.min() <= max(map(names.count, names))
        assert (found == folds(names, 3, seed)).all()

    def test_the_same_recording_in_two_folds_is_refused_by_name(self) -> None:
        with pytest.raises(ValueError, match=r"1 recording\(s\) are in two folds or more \(b in 0, 1\)"):
            check_folds(["a", "b", "b"], np.array([0, 0, 1]))
        with pytest.raises(ValueError, match="one per picture"):
            check_folds(["a"], np.array([0, 1]))

    def test_fewer_recordings_than_folds_are_refused(self) -> None:
        with pytest.raises(ValueError, match="2 recordings cannot be parted into 5"):
            folds(["a", "b", "b"], 5)


@pytest.mark.slow
class TestThePackage:
    def test_what_it_holds(self) -> None:
        found = seizures(cache_folder())
        assert len(found.pictures) == 190
        assert len({one.excerpt for one in found.pictures}) == 99
        assert len(set(found.recordings)) == 67
        assert sum(len(one.boxes) for one in found.pictures) == 461
        assert len(found.left_out) == 15
        assert all(AXES.low <= box.low < box.high <= AXES.high for one in found.pictures for box in one.boxes)

    def test_colours_come_back(self) -> None:
        found = seizures(cache_folder())
        scale = colour_scale(one.image for one in found.pictures)
        assert len(scale.colours) == 256
        exact = np.mean([scale.exact(plot_of(one.image)).mean() for one in found.pictures])
        assert exact > 0.9999

    def test_a_damaged_file_of_the_cache_is_refused_by_name(self, tmp_path: Path) -> None:
        whole = fetch(SEIZURES, cache_folder())
        copy = tmp_path / whole.name
        copy.mkdir()
        for path in whole.iterdir():
            (copy / path.name).write_bytes(path.read_bytes())
        (copy / "18206036_106.4_ch1_spectrogram.png").write_bytes(b"")
        with pytest.raises(AnnotationError, match=r"18206036_106\.4_ch1_spectrogram\.png is not a PNG"):
            seizures(tmp_path)
