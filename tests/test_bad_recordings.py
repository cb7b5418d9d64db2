"""Recordings and annotations as machines and people leave them: each sound's own boxes, or a problem with a name."""

import math
import unicodedata
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import soundfile
from bad_inputs import outcome, work_of, write_audacity
from hypothesis import given, settings
from hypothesis import strategies as st

from vitmech_utils.data.chirp_dataset import ChirpDataset
from vitmech_utils.data.figures import draw, draw_with_matplotlib, fitting_title
from vitmech_utils.data.recordings import RecordingError, RecordingFolder, open_recording, recorded
from vitmech_utils.data.recordings.annotations import find_annotations
from vitmech_utils.data.recordings.boxes import (
    AnnotationError,
    Box,
    outside,
    read_boxes,
    write_raven,
)
from vitmech_utils.data.recordings.spectrograms import Axes, spectrogram, transform_of
from vitmech_utils.studies.recordings.sources import CALLS, is_cached

RATE = 2000
NOISE = np.random.default_rng(0).normal(0, 0.1, 2 * RATE)
COLUMNS = (
    "Selection", "View", "Channel", "Begin Time (s)", "End Time (s)", "Low Freq (Hz)", "High Freq (Hz)", "Annotation",
)  # fmt: skip
ROW = {
    "Selection": "1", "View": "Spectrogram 1", "Channel": "1", "Begin Time (s)": "0.25", "End Time (s)": "0.5",
    "Low Freq (Hz)": "100", "High Freq (Hz)": "300", "Annotation": "x",
}  # fmt: skip


def sound(path: Path, samples: np.ndarray = NOISE, rate: int = RATE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, rate)
    return path


def strain(
    path: Path, name: str = "strain/Strain", samples: np.ndarray = NOISE, **attributes: object
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file.create_dataset(name, data=samples).attrs.update({"Xspacing": 1 / RATE} | attributes)
    return path


def table(*rows: dict[str, str]) -> str:
    """A selection table: the usual columns and those that the rows add."""
    columns = [*COLUMNS, *(name for name in {**(rows[0] if rows else {})} if name not in COLUMNS)]
    lines = [columns, *([{**ROW, **row}[name] for name in columns] for row in rows)]
    return "\n".join("\t".join(line) for line in lines) + "\n"


def folder(path: Path, **settings: object) -> RecordingFolder:
    return RecordingFolder(path, **({"length": 1.0, "frequencies": (0, 800)} | settings))


def boxes(path: Path, **settings: object) -> list[tuple[float, float]]:
    return [(box.start, box.end) for box in folder(path, **settings).windows[0].boxes]


def problems(path: Path, **settings: object) -> str:
    with pytest.raises(RecordingError) as error:
        folder(path, **settings)
    assert str(path) in str(error.value)
    return str(error.value)


class TestWhichAnnotation:
    @pytest.mark.parametrize(
        ("recording", "notes"),
        [
            ("a.wav", "a.txt"),
            ("a.wav", "a.TXT"),
            ("a.wav", "A.txt"),
            ("a.WAV", "a.tsv"),
            ("a.wav", "a.wav.txt"),
            ("a.wav", "a.selections.txt"),
            ("a.wav", "a.Table.1.selections.txt"),
            ("a.wav", "a.Table.2.selections.txt"),
            ("a.wav", "a.Table.1.Selections.txt"),
            ("a.wav", "a.BirdNET.selection.table.txt"),
            ("a.wav", "a.BirdNET.results.txt"),
            ("a.wav", "a.labels.txt"),
            ("a.b.wav", "a.b.txt"),
            ("20250101_000000.wav", "20250101_000000.Table.1.selections.txt"),
            ("\u00e9.wav", "\u00e9.txt"),
            (unicodedata.normalize("NFD", "\u00e9.wav"), "\u00e9.txt"),
            ("\u00e9.wav", unicodedata.normalize("NFD", "\u00e9.Table.1.selections.txt")),
            ("stra\u00dfe.wav", "STRASSE.txt"),
        ],
    )
    def test_it_is_found_whatever_its_ending_case_or_form(
        self, tmp_path: Path, recording: str, notes: str
    ) -> None:
        sound(tmp_path / recording)
        (tmp_path / notes).write_text(table({}))
        assert boxes(tmp_path) == [(0.25, 0.5)]

    @pytest.mark.parametrize(
        ("notes", "text", "told"),
        [
            ("a.csv", "whatever", "a.csv looks like the annotation of a.wav, and is not read"),
            ("a.TextGrid", "whatever", "a.TextGrid looks like the annotation of a.wav, and is not read"),
            ("a.wav.json", "{}", "a.wav.json looks like"),
            ("a.Table.1.selections.csv", "", "a.Table.1.selections.csv looks like"),
            (
                "a_labels.txt",
                "0.1\t0.2\tx\n",
                "a_labels.txt looks like the annotation of a.wav, but is not named as one",
            ),
            ("a-notes.txt", table({}), "a-notes.txt looks like"),
            ("a selections.txt", table({}), "a selections.txt looks like"),
            ("a.mine.txt", table({}), "a.mine.txt looks like"),
            ("other.txt", table({}), "other.txt looks like annotations, but of no recording here"),
            ("labels.txt", "0.1\t0.2\tx\n", "labels.txt looks like annotations"),
            ("all.csv", "file,onset,offset\na.wav,0.1,0.2\n", "all.csv looks like annotations"),
            ("all.txt", '"start";"end"\n', "all.txt looks like annotations"),
            ("all.tsv", table({}), "all.tsv looks like annotations"),
            ("a", table({}), "a looks like the annotation"),
        ],
    )
    def test_what_looks_like_one_and_is_not_read_is_named(
        self, tmp_path: Path, notes: str, text: str, told: str
    ) -> None:
        sound(tmp_path / "a.wav")
        (tmp_path / notes).write_text(text)
        assert told in problems(tmp_path)

    @pytest.mark.parametrize(
        ("notes", "text"),
        [("README.txt", "Recorded at dawn.\n"), ("a.png", "x"), ("a.log", "ok"), ("site.csv", "place,date\nx,y\n"),
         ("ab.txt", "a diary\n"), ("a-diary.txt", "Rain at 5.\n"), (".DS_Store", "x"), ("._a.txt", "\0\5\x16\7"),
         ("._a.wav", "\0\5\x16\7"), ("Thumbs.db", "x")],
    )  # fmt: skip
    def test_what_is_none_is_no_matter(self, tmp_path: Path, notes: str, text: str) -> None:
        sound(tmp_path / "a.wav")
        (tmp_path / notes).write_text(text)
        assert boxes(tmp_path) == []

    def test_the_longest_name_owns_it(self, tmp_path: Path) -> None:
        for name in ("a.wav", "a.b.wav", "a 2.wav"):
            sound(tmp_path / name)
        (tmp_path / "a.b.txt").write_text("0.1\t0.2\tx\n")
        (tmp_path / "a 2.txt").write_text("0.3\t0.4\tx\n")
        found = {window.recording.path.name: window.boxes for window in folder(tmp_path).windows}
        assert {name: [box.start for box in boxes] for name, boxes in found.items()} == {
            "a.wav": [],
            "a.b.wav": [0.1],
            "a 2.wav": [0.3],
        }

    def test_two_annotations_of_a_recording_are_a_problem(self, tmp_path: Path) -> None:
        sound(tmp_path / "a.wav")
        for name in ("a.txt", "a.Table.1.selections.txt"):
            (tmp_path / name).write_text(table({}))
        assert "a.wav has several annotations, a.Table.1.selections.txt and a.txt" in problems(tmp_path)

    def test_of_two_recordings_of_a_name_neither_takes_the_other_s(self, tmp_path: Path) -> None:
        sound(tmp_path / "a.wav")
        sound(tmp_path / "a.flac")
        (tmp_path / "a.txt").write_text(table({}))
        assert "a.txt could be of a.flac or a.wav" in problems(tmp_path)
        (tmp_path / "a.txt").rename(tmp_path / "a.wav.txt")
        found = {window.recording.path.suffix: window.boxes for window in folder(tmp_path).windows}
        assert {ending: len(boxes) for ending, boxes in found.items()} == {".wav": 1, ".flac": 0}

    def test_names_that_differ_in_case_alone_are_told_apart_by_spelling(self, tmp_path: Path) -> None:
        recordings = [tmp_path / "a.wav", tmp_path / "A.wav"]
        found, told = find_annotations(
            recordings, [tmp_path / "a.txt", tmp_path / "A.Table.1.selections.txt"]
        )
        assert {owner.name: path.name for owner, path in found.items()} == {
            "a.wav": "a.txt",
            "A.wav": "A.Table.1.selections.txt",
        }
        assert told == []

    def test_a_folder_or_a_broken_link_in_its_place_is_named(self, tmp_path: Path) -> None:
        sound(tmp_path / "a.wav")
        (tmp_path / "a.txt").mkdir()
        assert "a.txt is not a file" in problems(tmp_path)
        (tmp_path / "a.txt").rmdir()
        (tmp_path / "a.txt").symlink_to("nowhere")
        assert "a.txt is not a file" in problems(tmp_path)


class TestWhoseBoxes:
    @pytest.mark.parametrize(
        "told",
        [
            {"Begin File": "a.wav"},
            {"Begin File": "A.WAV"},
            {"Begin File": "a.mp3"},  # converted since
            {"Begin File": ""},
            {"Begin Path": "C:\\field\\a.wav", "Begin File": "a.wav", "End File": "a.wav"},
            {"Begin Path": "/field/a.wav", "File Offset (s)": "0.2500"},
        ],
    )
    def test_boxes_of_this_file_are_read(self, tmp_path: Path, told: dict[str, str]) -> None:
        sound(tmp_path / "a.wav")
        (tmp_path / "a.txt").write_text(table(told))
        assert boxes(tmp_path) == [(0.25, 0.5)]

    @pytest.mark.parametrize(
        ("told", "words"),
        [
            ({"Begin File": "b.wav"}, "line 2: Begin File is 'b.wav', expected a.wav"),
            ({"Begin File": "a.flac"}, "line 2: Begin File is 'a.flac', expected a.wav"),  # there is such a recording
            ({"Begin Path": "/field/b.wav"}, "line 2: Begin Path is '/field/b.wav'"),
            ({"Begin Path": "D:\\a.wav\\b.wav"}, "line 2: Begin Path is"),
            ({"Begin File": "a.wav", "End File": "b.wav"}, "line 2: End File is 'b.wav'"),
            ({"File Offset (s)": "3.25"}, "line 2: File Offset (s) is 3.25, but Begin Time (s) 0.25"),
            ({"File Offset (s)": "x"}, "line 2: File Offset (s) is 'x'"),
            ({"Channel": "2"}, "box 1 is on channel 2, but the recording has 1"),
        ],
    )  # fmt: skip
    def test_boxes_of_another_file_or_channel_are_refused_by_line(
        self, tmp_path: Path, told: dict[str, str], words: str
    ) -> None:
        sound(tmp_path / "a.wav")
        sound(tmp_path / "a.flac")
        (tmp_path / "a.wav.txt").write_text(table(told))
        assert words in problems(tmp_path)

    def test_a_table_alone_is_about_one_file(self, tmp_path: Path) -> None:
        path = tmp_path / "t.txt"
        path.write_text(table({"Begin File": "a.wav"}, {"Begin File": "b.wav", "Selection": "2"}))
        with pytest.raises(AnnotationError, match=r"t\.txt: line 3: Begin File is 'b\.wav', expected a\.wav"):
            read_boxes(path)
        path.write_text(table({"Begin File": "a.wav"}, {"Begin File": "a.wav", "Selection": "2"}))
        assert len(read_boxes(path)) == 2

    def test_of_a_stereo_table_the_shown_channel_s_boxes_count(self, tmp_path: Path) -> None:
        sound(tmp_path / "a.wav", np.stack([NOISE, NOISE[::-1]], axis=1))
        rows = ({}, {"Channel": "2", "Selection": "2", "Begin Time (s)": "0.1"})
        (tmp_path / "a.txt").write_text(table(*rows))
        assert boxes(tmp_path, channel=1) == [(0.25, 0.5)]
        assert boxes(tmp_path, channel=2) == [(0.1, 0.5)]
        assert boxes(tmp_path, channel="mix") == [(0.25, 0.5), (0.1, 0.5)]
        (tmp_path / "a.txt").write_text(table({"Channel": "3"}))
        assert "box 1 is on channel 3, but the recording has 2" in problems(tmp_path, channel=1)

    def test_numbers_that_start_again_are_refused_and_views_are_not(self, tmp_path: Path) -> None:
        path = tmp_path / "t.txt"
        other = {"Begin Time (s)": "0.1"}
        for wrong in (
            {"Selection": "1"} | other,
            {"Selection": "01", "High Freq (Hz)": "200"},
            {"Annotation": "y"},
        ):
            path.write_text(table({}, wrong))
            with pytest.raises(AnnotationError, match="line 3: Selection 1 is another one than in line 2"):
                read_boxes(path)
        path.write_text(table({}, {"View": "Waveform 1"}, {}, {"Channel": "2"} | other))
        assert [(box.start, box.channel) for box in read_boxes(path)] == [(0.25, 1), (0.1, 2)]
        path.write_text(table({"Selection": ""}))
        with pytest.raises(AnnotationError, match="line 2: Selection is '', expected a whole number from 0"):
            read_boxes(path)

    def test_columns_in_another_order_are_still_a_table(self, tmp_path: Path) -> None:
        path = tmp_path / "t.txt"
        lines = [line.split("\t") for line in table({}).splitlines()]
        path.write_text("\n".join("\t".join(line[::-1]) for line in lines))
        assert read_boxes(path) == [Box(0.25, 0.5, 100.0, 300.0, "x", 1)]

    def test_a_label_of_a_point_is_told_as_one(self, tmp_path: Path) -> None:
        (tmp_path / "t.txt").write_text("0.1\t0.2\tx\n0.5\t0.5\tclick\n")
        with pytest.raises(AnnotationError, match=r"line 2: a label of a point at 0\.5 s marks no sound"):
            read_boxes(tmp_path / "t.txt")

    @pytest.mark.parametrize("text", ["1_0", "\u0661", "\u00b2", "0x1", "1,5", ""])
    def test_numbers_that_only_python_takes_are_refused(self, tmp_path: Path, text: str) -> None:
        path = tmp_path / "t.txt"
        for column in ("Begin Time (s)", "Channel", "Selection"):
            path.write_text(table({column: text}))
            with pytest.raises(AnnotationError, match=r"line 2: .* is .*, expected"):
                read_boxes(path)
        path.write_text(f"{text}\t9\tx\n")
        with pytest.raises(AnnotationError, match=r"line 1: start is .*, expected a number"):
            read_boxes(path)

    def test_a_label_may_hold_what_only_python_takes_for_the_end_of_a_line(self, tmp_path: Path) -> None:
        odd = "a\x0bb\x0c\x1cc\x85d\u2028e"
        for write in (write_raven, write_audacity):
            assert [box.label for box in read_boxes(write([Box(0, 1, 0, 5, odd)], tmp_path / "t.txt"))] == [
                odd
            ]

    @settings(max_examples=150, deadline=None)
    @given(data=st.data())
    def test_any_table_is_read_as_written_or_refused_by_line(
        self, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
    ) -> None:
        cell = st.one_of(
            st.floats().map(repr),
            st.sampled_from(["1", "2", "0.5", "1_0", "nan", "inf", "-1", "", "\u0661", "b.wav", " 3 ", "1e400", "\\"]),
            st.text(st.characters(codec="utf-8"), max_size=4),
        )  # fmt: skip
        rows = []
        for at in range(data.draw(st.integers(0, 3))):
            row = {"Selection": str(at + 1), "Begin File": "a.wav"}
            row |= data.draw(st.dictionaries(st.sampled_from([*COLUMNS, "Begin File"]), cell, max_size=2))
            rows.append(row)
        text = table(*rows)
        if data.draw(st.booleans()):
            lines = text.split("\n")
            lines[data.draw(st.integers(0, len(lines) - 1))] = "\t".join(
                data.draw(st.lists(cell, max_size=4))
            )
            text = "\n".join(lines)
        path = tmp_path_factory.mktemp("table") / "a.txt"
        path.write_bytes(text.encode())
        found, told = outcome(lambda: read_boxes(path, "a.wav"), AnnotationError)
        if told is not None:
            assert "a.txt" in told
            assert "line " in told
            return
        for box in found:
            assert 0 <= box.start < box.end < math.inf
            assert 0 <= box.low < box.high
            assert box.channel is None or box.channel >= 1
            assert repr(box.start) in text or f"{box.start:g}" in text or f"{box.start:.1f}" in text


class TestOneForAnother:
    def test_series_of_one_name_are_whitened_each_by_itself(self, tmp_path: Path) -> None:
        rng = np.random.default_rng(3)
        for name in ("H1", "L1"):
            strain(tmp_path / f"{name}.hdf5", samples=rng.standard_normal(2 * RATE))
        data = folder(tmp_path, whiten=(20, 900))
        alone = []
        for name in ("H1", "L1"):
            (tmp_path / name).mkdir()
            (tmp_path / f"{name}.hdf5").rename(tmp_path / name / f"{name}.hdf5")
            alone += [folder(tmp_path / name, whiten=(20, 900)).drawing(index).image for index in range(2)]
            (tmp_path / name / f"{name}.hdf5").rename(tmp_path / f"{name}.hdf5")
        for order in ([0, 1, 2, 3], [3, 0, 2, 1]):
            for index in order:
                assert (data.drawing(index).image == alone[index]).all()
        assert (data.drawing(0).image != data.drawing(2).image).any()

    def test_of_series_of_one_name_the_error_names_the_file(self, tmp_path: Path) -> None:
        strain(tmp_path / "H1.hdf5", samples=NOISE)
        strain(tmp_path / "L1.hdf5", samples=np.zeros(2 * RATE))
        with pytest.raises(RecordingError, match=r"L1\.hdf5: strain/Strain is silent from 0 to 1 s"):
            folder(tmp_path).drawing(2)

    def test_a_cache_counts_no_file_of_the_system(self, tmp_path: Path) -> None:
        place = tmp_path / "chirp-1.2.2"
        place.mkdir()
        for number in range(CALLS.count):
            (place / f"{number}.wav").write_text("")
        assert is_cached(CALLS, tmp_path)
        (place / ".DS_Store").write_text("")
        (place / "._1.wav").write_text("")
        assert is_cached(CALLS, tmp_path)


class TestFiles:
    def told(self, path: Path, channel: object = None, dataset: object = None) -> str | None:
        def read() -> object:
            recording = open_recording(path, channel, dataset)
            return recording.samples(0, recording.duration)

        return outcome(read, RecordingError)[1]

    @pytest.mark.parametrize("subtype", ["GSM610", "MS_ADPCM", "IMA_ADPCM", "ULAW", "PCM_24", "DOUBLE"])
    def test_any_encoding_is_read_or_told(self, tmp_path: Path, subtype: str) -> None:
        soundfile.write(tmp_path / "a.wav", NOISE, 8000, subtype=subtype)
        told = self.told(tmp_path / "a.wav")
        assert (told is not None and "a.wav" in told) if subtype == "GSM610" else told is None

    def test_files_that_end_before_they_say_are_told_when_opened(self, tmp_path: Path) -> None:
        whole = sound(tmp_path / "a.flac", NOISE, 8000).read_bytes()
        for length in (4, 30, 100, 2000, len(whole) // 2, len(whole) - 40):
            (tmp_path / "cut.flac").write_bytes(whole[:length])
            assert "cut.flac cannot be read" in self.told(tmp_path / "cut.flac")

    def test_a_file_exchanged_after_it_was_opened_is_told(self, tmp_path: Path) -> None:
        recording = open_recording(sound(tmp_path / "a.wav"))
        sound(tmp_path / "a.wav", np.stack([NOISE, NOISE], axis=1))
        with pytest.raises(
            RecordingError, match=r"a\.wav cannot be read from 0\.5 s on \(it is another file"
        ):
            recording.samples(0.5, 1)
        sound(tmp_path / "a.wav", NOISE[:1500])
        with pytest.raises(RecordingError, match=r"a\.wav (ends after|cannot be read)"):
            recording.samples(0, 2)
        (tmp_path / "a.wav").unlink()
        with pytest.raises(RecordingError, match=r"a\.wav cannot be read from 0 s on"):
            recording.samples(0, 2)
        series = open_recording(strain(tmp_path / "a.h5"))
        strain(tmp_path / "a.h5", samples=NOISE[:100])
        with pytest.raises(RecordingError, match="is another one than was opened"):
            series.samples(0, 1)

    @pytest.mark.parametrize("channel", [0, 3, -1, 1.0, "1", True, "left", [1], None])
    def test_channels_that_are_none_are_told(self, tmp_path: Path, channel: object) -> None:
        path = sound(tmp_path / "a.wav", np.stack([NOISE, NOISE], axis=1))
        assert "channel" in self.told(path, channel)
        assert self.told(path, np.int64(2)) is None

    @pytest.mark.parametrize("path", [None, 3, "", "a\0b", "x" * 5000 + ".wav", b"a.wav"])
    def test_paths_that_are_none_are_told(self, path: object) -> None:
        assert self.told(path) is not None

    @pytest.mark.parametrize(
        ("attributes", "told"),
        [
            ({"Xspacing": "soon"}, "attribute Xspacing of /strain/Strain is 'soon'"),
            ({"Xspacing": [0.1, 0.2]}, "attribute Xspacing"),
            ({"Xspacing": math.nan}, "attribute Xspacing"),
            ({"Xspacing": 0.0}, "gives no seconds between samples"),
            ({"Xspacing": -1.0}, "gives no seconds between samples"),
            ({"Xspacing": 1e-300}, "gives no seconds between samples"),
            ({"Xstart": math.inf}, "attribute Xstart"),
            ({"Xspacing": np.zeros(5000)}, "attribute Xspacing"),
        ],
    )
    def test_attributes_that_are_no_numbers_are_told(
        self, tmp_path: Path, attributes: dict[str, object], told: str
    ) -> None:
        words = self.told(strain(tmp_path / "a.h5", **attributes))
        assert words.startswith("a.h5: ")
        assert told in words

    def test_numbers_of_any_shape_and_units_of_any_kind_are_read(self, tmp_path: Path) -> None:
        path = strain(
            tmp_path / "a.h5", Xspacing=np.array([1 / RATE]), unit=np.bytes_(b"\xff strain"), Xstart=7
        )
        recording = open_recording(path)
        assert (recording.rate, recording.origin) == (RATE, 7.0)
        assert "strain" in recording.unit

    def test_samples_that_lie_in_another_file_are_refused(self, tmp_path: Path) -> None:
        (tmp_path / "in").mkdir()
        (tmp_path / "secret.bin").write_bytes(bytes(range(1, 256)) * 40)
        strain(tmp_path / "other.h5", "x", NOISE)

        def external(file: h5py.File) -> h5py.Dataset:
            return file.create_dataset("s", (8000,), "u1", external=[(str(tmp_path / "secret.bin"), 0, 8000)])

        def virtual(file: h5py.File) -> h5py.Dataset:
            layout = h5py.VirtualLayout((4000,), "f8")
            layout[:] = h5py.VirtualSource(str(tmp_path / "other.h5"), "x", (4000,))
            return file.create_virtual_dataset("s", layout)

        for make in (external, virtual):
            with h5py.File(tmp_path / "in" / "a.h5", "w") as file:
                make(file).attrs["dx"] = 1 / RATE
            assert "a.h5: s keeps its samples in another file" in problems(tmp_path / "in")
        with h5py.File(tmp_path / "in" / "a.h5", "w") as file:
            file["s"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "x")
            file["t"] = h5py.SoftLink("/s")
        for name in ("s", "t", None):
            assert "series" in self.told(tmp_path / "in" / "a.h5", dataset=name) or name is None
        assert "none: it has none" in self.told(tmp_path / "in" / "a.h5")

    @pytest.mark.parametrize(
        ("make", "told"),
        [
            (lambda file: file.create_dataset("s", (2**36,), "f4", chunks=(2**16,)), "of which at most 0 were written"),
            (lambda file: file.create_dataset("s", (2**36,), "f4"), "claims samples that were never written"),
            (lambda file: file.create_dataset("s", (2**28,), "f8", chunks=(2**27,)), "is packed in pieces"),
        ],
    )  # fmt: skip
    def test_samples_that_were_never_written_are_refused(
        self, tmp_path: Path, make: Callable[[h5py.File], h5py.Dataset], told: str
    ) -> None:
        with h5py.File(tmp_path / "a.h5", "w") as file:
            make(file).attrs["dx"] = 1 / RATE
        assert told in self.told(tmp_path / "a.h5")

    def test_a_part_that_was_never_written_is_refused(self, tmp_path: Path) -> None:
        with h5py.File(tmp_path / "a.h5", "w") as file:
            series = file.create_dataset("s", (4000,), "f8", chunks=(1000,))
            series[:2500] = 1
            series.attrs["dx"] = 1 / RATE
        assert "claims 4,000 samples, of which at most 3,000 were written" in self.told(tmp_path / "a.h5")

    def test_names_that_are_no_text_and_types_without_a_number_are_told(self, tmp_path: Path) -> None:
        with h5py.File(tmp_path / "a.h5", "w") as file:
            file.create_dataset(b"\xff\xfe", data=NOISE).attrs["dx"] = 1 / RATE
            file.create_dataset("reference", (3,), h5py.ref_dtype)
            file.create_dataset("text", (3,), h5py.string_dtype())
            file["type"] = np.dtype("f8")
        data = RecordingFolder(tmp_path, 1.0, (0, 800))
        assert data.windows[0].recording.name == "\\xff\\xfe"
        assert data.drawing(0).image.shape == (224, 224, 3)

    @settings(max_examples=120, deadline=None)
    @given(data=st.data())
    def test_any_bytes_are_a_recording_or_refused_by_name(
        self, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
    ) -> None:
        place = tmp_path_factory.mktemp("any")
        name = data.draw(st.sampled_from(["a.wav", "a.flac", "a.h5"]))
        path = sound(place / name, NOISE) if name != "a.h5" else strain(place / name, samples=NOISE)
        content = bytearray(path.read_bytes())
        for _ in range(data.draw(st.integers(1, 3))):
            at = data.draw(st.integers(0, data.draw(st.sampled_from([40, 400, len(content) - 1]))))
            how = data.draw(st.sampled_from(["byte", "byte", "cut", "insert"]))
            if how == "byte":
                content[at : at + 1] = bytes([data.draw(st.integers(0, 255))])
            elif how == "cut":
                del content[max(at, 8) :]
            else:
                content[at:at] = data.draw(st.binary(max_size=9))
            if len(content) < 60:
                break
        path.write_bytes(content)
        found, told = outcome(lambda: folder(place), RecordingError)
        if told is None:
            _, told = outcome(lambda: [found.drawing(index) for index in (0, len(found) - 1)], RecordingError)
        assert told is None or name in told


class TestBounds:
    @pytest.mark.parametrize(
        ("settings", "told"),
        [
            ({"hop": 1e-6}, "less than one of its"),
            ({"hop": 6e-4, "length": 1.9, "many": True}, "windows, expected at most 262,144"),
            ({"length": 1e-9}, "hold 2e-06 samples, expected at least 16"),
            ({"length": 1e300}, "shorter than a window"),
            ({"frequencies": (0, 1e-9)}, "take a transform of more than 1,048,576 samples"),
            ({"frequencies": (0, 5e-324)}, "take a transform of more than"),
            ({"frequencies": (0, 900.0, 3)}, "frequencies is"),
            ({"frequencies": (800, 0)}, "frequencies is"),
            ({"frequencies": (-5, 800)}, "frequencies is"),
            ({"frequencies": (0, math.nan)}, "frequencies is"),
            ({"frequencies": (0, math.inf)}, "frequencies is"),
            ({"length": math.nan}, "length is nan"),
            ({"hop": math.inf}, "expected seconds above 0"),
            ({"whiten": (0, 500)}, "whiten is"),
            ({"whiten": (20, math.nan)}, "whiten is"),
            ({"whiten": (20, 5000)}, "hold frequencies up to 1000 Hz"),
            ({"style": "randomized"}, "a randomized style"),
            ({"style": "none"}, "unknown style 'none'"),
            ({"dataset": "s"}, "is no HDF5 file"),
        ],
    )
    def test_what_would_never_end_is_refused_at_the_start(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, object], told: str
    ) -> None:
        samples = NOISE if not settings.pop("many", False) else np.resize(NOISE, 170 * RATE)
        sound(tmp_path / "a.wav", samples)
        frames = []
        real = soundfile.SoundFile.read

        def counted(file: soundfile.SoundFile, *arguments: object, **keywords: object) -> np.ndarray:
            found = real(file, *arguments, **keywords)
            frames.append(len(found))
            return found

        monkeypatch.setattr(soundfile.SoundFile, "read", counted)
        with pytest.raises(RecordingError, match=told.replace("(", r"\(")):
            folder(tmp_path, **settings)
        assert sum(frames) <= len(samples)  # looked at once at most

    def test_sizes_are_told_before_any_work(self) -> None:
        transform = transform_of(Axes(0.5, 1.0, 500.0, 3700.0), 8000)
        assert (transform.length, transform.hop, transform.frames, transform.bins) == (200, 25, 160, 1024)
        with pytest.raises(ValueError, match="points"):
            transform_of(Axes(0, 20_000, 0, 24_000), 48_000)
        with pytest.raises(ValueError, match="rate is nan"):
            transform_of(Axes(0, 1, 0, 1), math.nan)
        with pytest.raises(ValueError, match="rate is inf"):
            transform_of(Axes(0, 1, 0, 1), math.inf)
        for first in (math.nan, math.inf, 1e12, -1e12):
            with pytest.raises(ValueError, match=r"samples start at|first is nan"):
                spectrogram(NOISE, RATE, Axes(0, 1, 0, 800), first)

    def test_a_fine_axis_is_taken_in_parts_that_fit(self) -> None:
        """A few columns of a transform with very many bins: the same picture from parts of any size."""
        from vitmech_utils.data.recordings import spectrograms

        axes = Axes(0, 1.5, 0, 40)
        whole = spectrogram(NOISE, RATE, axes)
        spectrograms.POINTS_AT_ONCE, before = 1, spectrograms.POINTS_AT_ONCE
        try:
            assert (spectrogram(NOISE, RATE, axes) == whole).all()
        finally:
            spectrograms.POINTS_AT_ONCE = before

    def test_claims_and_axes_without_end_take_few_bytes_and_a_gigabyte(self, tmp_path: Path) -> None:
        sound(tmp_path / "a" / "a.wav")
        flac = sound(tmp_path / "f" / "a.flac")
        content = bytearray(flac.read_bytes())
        content[21] |= 15  # the upper four bits of the number of samples
        content[22:26] = b"\xff" * 4
        flac.write_bytes(content)
        (tmp_path / "h").mkdir()
        with h5py.File(tmp_path / "h" / "a.h5", "w") as file:
            file.create_dataset("s", (2**36,), "f4", chunks=(2**16,)).attrs["dx"] = 1 / RATE
        (tmp_path / "o").mkdir()
        with h5py.File(tmp_path / "o" / "a.h5", "w") as file:
            for number in range(11_000):
                file.create_group(str(number))
        large = tmp_path / "t"
        sound(large / "a.wav")
        with (large / "a.txt").open("wb") as file:
            file.truncate(2**36)
        rows = tmp_path / "r"
        sound(rows / "a.wav")
        (rows / "a.txt").write_text("x\ty\tz\n" * 3_000_000)
        code = """
from vitmech_utils.data.recordings import RecordingError, RecordingFolder
# begin
for folder in sys.argv[1:]:
    for settings in ({}, {"hop": 1e-6}, {"length": 1e-9}, {"frequencies": (0, 1e-9)}, {"frequencies": (0, 0.2)}):
        try:
            data = RecordingFolder(folder, **({"length": 1, "frequencies": (0, 800)} | settings))
            data[0]
            print("read", len(data) < 10)
        except RecordingError as error:
            print("refused", len(str(error)) < 5000)
"""
        work = work_of(code, [tmp_path / name for name in "afhotr"], 4 << 30)
        assert work.told == ["read True"] + ["refused True"] * 29
        assert work.read < 2**29  # bytes, of the 64 GiB and more that the files claim
        assert work.memory < 2**21  # KiB


class TestTitles:
    dataset = ChirpDataset(1, 0)

    @pytest.mark.parametrize(
        "title", ["$a_b$", "a$b", "$$", "$\\undefined{$", "a\nb\tc", "a\0b", "\ud800", "\\$5 and $6"]
    )
    def test_a_title_is_shown_as_it_is_and_no_formula(self, title: str) -> None:
        grid, chirp = self.dataset.grid(0), self.dataset.chirp(0)
        one = draw(grid, chirp, "published", title)
        other = draw_with_matplotlib(grid, chirp, "published", title)
        assert np.abs(one.image.astype(int) - other.image).max() <= 3

    def test_a_title_wider_than_the_figure_is_refused_and_can_be_shortened(self) -> None:
        grid, chirp = self.dataset.grid(0), self.dataset.chirp(0)
        with pytest.raises(ValueError, match="pixels wide, expected at most 640: shorten it"):
            draw(grid, chirp, "published", "W" * 200)
        assert 30 < len(fitting_title("W" * 200)) < 60
        draw(grid, chirp, "published", fitting_title("W" * 200))

    def test_a_recording_s_name_is_a_title_whatever_it_holds(self, tmp_path: Path) -> None:
        for name in ("$x^2$.wav", "W" * 60 + ".wav", "\U0001f99c.wav", "a\nb.wav", "{0}%s.wav"):
            sound(tmp_path / name)
        data = folder(tmp_path, length=2.0)
        assert len(data) == 5
        for index in range(5):
            assert data.drawing(index).image.shape == (224, 224, 3)


def test_boxes_outside_are_told_up_to_a_number() -> None:
    told = outside([Box(0, 99, 10, 20)] * 500, 10.0, 4000.0)
    assert len(told) == 11
    assert told[-1] == "and more"


@pytest.mark.parametrize("rate", [0, -1, math.nan, math.inf, 1e300])
def test_rates_that_are_none_are_refused(rate: float) -> None:
    with pytest.raises(RecordingError, match=r"samples per second, expected more than 0|rate is nan"):
        recorded(NOISE, rate)


@pytest.mark.parametrize("place", [math.nan, math.inf])
def test_seconds_that_are_none_are_refused(place: float) -> None:
    with pytest.raises(RecordingError, match=r"start is (nan|inf), expected seconds"):
        recorded(NOISE, RATE).samples(place, 1)
