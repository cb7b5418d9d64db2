"""Folders of images that others wrote: rows and pixels mean what they say, or are refused by line and name."""

import io
import math
import os
import re
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from bad_inputs import outcome, work_of
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from vitmech_utils.data.dataset import ChirpDataset, FolderDataset, export_folder
from vitmech_utils.data.image_files import check_png, read_png
from vitmech_utils.data.labels import COLUMNS, FolderError, read_labels

HEADER = ",".join(COLUMNS)
ROWS = ("10,20,40,5,linear", "30,60,70,5,exponential", "1,2,3,4,linear")
PRIME = 17  # a side that no image has by chance


def folder_of(path: Path, text: str | bytes, images: int = 2) -> Path:
    path.mkdir(parents=True)
    (path / "labels.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    for each in range(1, images + 1):
        Image.new("RGB", (8, 8), (each, 0, 0)).save(path / f"spectrogram_{each}.png")
    return path


def starts(path: Path) -> list[float]:
    data = FolderDataset(path)
    return [data.chirp(index).start_time for index in range(len(data))]


def refused(path: Path) -> str:
    with pytest.raises(FolderError) as error:
        FolderDataset(path)
    assert str(path) in str(error.value)
    return str(error.value)


class TestNames:
    @pytest.mark.parametrize("column", ["file_name", "Filename", "image", "picture of", ""])
    @pytest.mark.parametrize("last", [False, True])
    def test_rows_belong_to_the_images_that_they_name(self, tmp_path: Path, column: str, last: bool) -> None:
        lines = []
        for name, row in zip(
            [column, "spectrogram_2.png", "spectrogram_1.png"], [HEADER, *ROWS], strict=False
        ):
            lines.append(f"{row},{name}" if last else f"{name},{row}")
        assert starts(folder_of(tmp_path / "x", "\n".join(lines))) == [30.0, 10.0]

    def test_an_exported_folder_s_own_columns_are_read_alike(self, tmp_path: Path) -> None:
        data = ChirpDataset(3, seed=1)
        path = export_folder(data, tmp_path / "x", workers=1, progress=False)
        (path / "metadata.csv").replace(path / "labels.csv")
        assert starts(path) == [data.chirp(index).start_time for index in range(3)]

    @pytest.mark.parametrize(
        ("names", "told"),
        [
            (["spectrogram_1.png", "spectrogram_1.png"], "line 3: file_name is 'spectrogram_1.png', which row 1 names"),
            (["spectrogram_1.png", "spectrogram_3.png"], "no row names spectrogram_2.png"),
            (["spectrogram_0.png", "spectrogram_1.png"], "line 2: file_name is 'spectrogram_0.png', expected a file"),
            (["spectrogram_01.png", "spectrogram_2.png"], "line 2: file_name is 'spectrogram_01.png'"),
            (["a/spectrogram_1.png", "spectrogram_2.png"], "line 2: file_name is 'a/spectrogram_1.png'"),
            (["spectrogram_1.jpg", "spectrogram_2.png"], "line 2: file_name is 'spectrogram_1.jpg'"),
            (["spectrogram_\u0661.png", "spectrogram_2.png"], "line 2: file_name is"),
            (["", ""], "line 2: file_name is ''"),
            (["spectrogram_2.png", ""], "line 3: file_name is ''"),
        ],
    )  # fmt: skip
    def test_names_that_name_no_image_or_one_twice_are_refused(
        self, tmp_path: Path, names: list[str], told: str
    ) -> None:
        rows = [f"{name},{row}" for name, row in zip(names, ROWS, strict=False)]
        assert told in refused(folder_of(tmp_path / "x", "\n".join([f"file_name,{HEADER}", *rows])))

    @pytest.mark.parametrize("column", ["", "index", "Unnamed: 0", "sample"])
    @pytest.mark.parametrize(
        ("counts", "wrong"), [((0, 1), ""), ((1, 2), ""), ((1, 0), "0"), ((2, 3), "2"), ((0, 2), "2")]
    )
    def test_a_column_that_counts_rows_must_count_them(
        self, tmp_path: Path, column: str, counts: tuple[int, int], wrong: str
    ) -> None:
        rows = [f"{count},{row}" for count, row in zip(counts, ROWS, strict=False)]
        path = folder_of(tmp_path / "x", "\n".join([f"{column},{HEADER}", *rows]))
        if wrong:
            assert re.search(rf"labels\.csv line [23]: .* is {wrong}, expected [0-9]", refused(path))
        else:
            assert starts(path) == [10.0, 30.0]

    def test_other_columns_say_nothing_of_the_order(self, tmp_path: Path) -> None:
        text = f"id,{HEADER},snr,index\nx7,{ROWS[0]},3.5,a\nx2,{ROWS[1]},0.5,7\n"
        assert starts(folder_of(tmp_path / "x", text)) == [10.0, 30.0]


class TestLabels:
    @pytest.mark.parametrize("text", ["1_0", "\u0661\u0660", "1,5", "0x10", "ten", "", "1e", "\uff11"])
    def test_numbers_that_only_python_takes_are_refused(self, tmp_path: Path, text: str) -> None:
        path = folder_of(tmp_path / "x", f'{HEADER}\n"{text}",20,40,5,linear\n', 1)
        assert "labels.csv line 2: Chirp_Start_Time is" in refused(path)

    @pytest.mark.parametrize(
        ("content", "told"),
        [
            (b"x" * 200_000 + b"\n1,2\n", "line 1: not comma-separated text (field larger"),
            (f'{HEADER}\n"{"x" * 200_000}'.encode(), "not comma-separated text"),
            (f'{HEADER}\n"10"7,20,40,5,linear\n'.encode(), "line 2: not comma-separated text"),
            (f"{','.join('abcdefgh' * 3000)}\n".encode(), "line 1: no column"),
            (b"\xff", "not UTF-8"),
        ],
    )  # fmt: skip
    def test_what_is_no_table_is_refused_in_few_words(
        self, tmp_path: Path, content: bytes, told: str
    ) -> None:
        words = refused(folder_of(tmp_path / "x", content))
        assert told in words
        assert len(words) < 2000

    def test_labels_that_are_no_file_of_the_folder_are_refused(self, tmp_path: Path) -> None:
        path = folder_of(tmp_path / "x", f"{HEADER}\n{ROWS[0]}\n", 1)
        (path / "labels.csv").rename(tmp_path / "labels.csv")
        (path / "labels.csv").symlink_to(tmp_path / "labels.csv")
        assert "labels.csv leads out of the folder" in refused(path)
        for make in (Path.mkdir, os.mkfifo, lambda place: place.symlink_to("nowhere")):
            (path / "labels.csv").unlink() if not (path / "labels.csv").is_dir() else (
                path / "labels.csv"
            ).rmdir()
            make(path / "labels.csv")
            assert "labels.csv is not a file" in refused(path)

    def test_a_file_without_end_is_refused_by_its_first_bytes_and_within_a_gigabyte(
        self, tmp_path: Path
    ) -> None:
        folders = []
        for name, write in {
            "large": lambda file: file.truncate(2**36),
            "rows": lambda file: file.write(f"{HEADER}\n".encode() + b"x,1,1,1,linear\n" * 2_000_000),
            "line": lambda file: file.write(b"x" * 2**26),
            "quote": lambda file: file.write(f'{HEADER}\n"'.encode() + b"1,\n" * 2**24),
        }.items():
            folders.append(folder_of(tmp_path / name, "", 0))
            with (folders[-1] / "labels.csv").open("wb") as file:
                write(file)
        code = (
            "from vitmech_utils.data.dataset import FolderDataset, FolderError\n# begin\n"
            "for folder in sys.argv[1:]:\n"
            "    try: FolderDataset(folder)\n"
            "    except FolderError as error: print('refused', len(str(error)) < 5000)"
        )
        work = work_of(code, folders)
        assert work.told == ["refused True"] * 4
        assert work.read < 2**28  # bytes, of the 64 GiB that are there
        assert work.memory < 2**20  # KiB; torch alone takes a third

    @settings(max_examples=150, deadline=None)
    @given(data=st.data())
    def test_any_labels_are_read_as_written_or_refused_by_line(
        self, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
    ) -> None:
        cell = st.one_of(
            st.floats(-10, 110).map(repr),
            st.sampled_from(["linear", "exponential", "nan", "1_0", "", " 5", "\u0665", "1e1", '"', "-0"]),
            st.text(max_size=6),
        )  # fmt: skip
        header = data.draw(
            st.sampled_from([HEADER, HEADER, f"file_name,{HEADER}", f"{HEADER},{HEADER}", "a,b", ""])
        )
        lines = [header]
        for at in range(data.draw(st.integers(0, 3))):
            row = ROWS[at].split(",")
            if header.startswith("file"):
                row = [f"spectrogram_{data.draw(st.integers(0, 3))}.png", *row]
            for _ in range(data.draw(st.integers(0, 2))):
                row[data.draw(st.integers(0, len(row) - 1))] = data.draw(cell)
            if data.draw(st.integers(0, 9)) == 0:
                row = row[:-1]
            lines.append(",".join(row))
        text = data.draw(st.sampled_from(["\n", "\r\n"])).join(lines)
        path = folder_of(
            tmp_path_factory.mktemp("labels") / "x", text.encode(errors="surrogatepass"), len(lines) - 1
        )
        found, told = outcome(lambda: FolderDataset(path), FolderError)
        if told is not None:
            assert "labels.csv" in told or "spectrogram_" in told
            assert str(path) in told
            return
        # Another reader, of the plain form alone, tells the same numbers.
        table = np.genfromtxt(
            io.StringIO(text), delimiter=",", names=True, dtype=None, encoding="utf-8", ndmin=1
        )
        order = np.argsort(table["file_name"]) if "file_name" in table.dtype.names else np.arange(len(table))
        for index, row in enumerate(order):
            assert math.isclose(
                found.chirp(index).start_time, float(table["Chirp_Start_Time"][row]), abs_tol=1e-12
            )
            assert found.chirp(index).sweep == str(table["Chirp_Type"][row]).strip()


def png(path: Path, pixels: np.ndarray, mode: str | None = None, **options: object) -> Path:
    image = Image.fromarray(pixels)
    (image if mode is None else image.convert(mode)).save(path, **options)
    return path


class TestPixels:
    ramp = np.tile(np.linspace(0, 1, 224), (224, 1))

    def test_grey_of_every_depth_is_the_same_grey(self, tmp_path: Path) -> None:
        expected = np.rint(self.ramp * 255)
        for name, pixels in {
            "8": np.rint(self.ramp * 255).astype(np.uint8),
            "16": np.rint(self.ramp * 65535).astype(np.uint16),
        }.items():
            found = read_png(png(tmp_path / f"{name}.png", pixels))
            assert (found[..., 0] == found[..., 2]).all()
            assert np.abs(found[..., 0].astype(int) - expected).max() <= 1
        black_white = read_png(png(tmp_path / "1.png", self.ramp > 0.5))
        assert set(np.unique(black_white)) == {0, 255}

    @pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "L", "LA"])
    def test_opaque_pixels_are_what_they_were_in_any_mode(self, tmp_path: Path, mode: str) -> None:
        grey = np.rint(self.ramp * 255).astype(np.uint8)
        path = tmp_path / "a.png"
        Image.fromarray(np.stack([grey] * 3, axis=-1)).convert(mode, palette=Image.Palette.ADAPTIVE).save(
            path
        )
        assert (read_png(path) == grey[..., None]).all()

    def test_what_is_transparent_shows_the_paper(self, tmp_path: Path) -> None:
        pixels = np.zeros((224, 224, 4), np.uint8)  # black, and nothing of it to be seen
        pixels[:, 100:, 3] = 255
        pixels[:, 200:, 3] = 51
        found = read_png(png(tmp_path / "a.png", pixels))
        assert (found[:, :100] == 255).all()
        assert (found[:, 100:200] == 0).all()
        assert (found[:, 200:] == 204).all()
        palette = Image.fromarray(np.zeros((224, 224), np.uint8), "P")
        palette.putpalette([0, 0, 0])
        palette.save(tmp_path / "p.png", transparency=0)
        assert (read_png(tmp_path / "p.png") == 255).all()

    def test_deep_grey_with_a_transparent_value_is_refused(self, tmp_path: Path) -> None:
        path = png(tmp_path / "a.png", np.zeros((8, 8), np.uint16))
        content = path.read_bytes()
        chunk = struct.pack(">I", 2) + b"tRNS\0\0" + struct.pack(">I", zlib.crc32(b"tRNS\0\0"))
        path.write_bytes(content[:33] + chunk + content[33:])
        with pytest.raises(
            ValueError, match=r"a\.png cannot be decoded \(16-bit grey with a transparent value"
        ):
            read_png(path)

    def test_bytes_after_the_end_are_no_matter_and_an_end_that_lacks_is_told(self, tmp_path: Path) -> None:
        path = png(tmp_path / "spectrogram_1.png", np.full((PRIME, PRIME, 3), 7, np.uint8))
        whole = path.read_bytes()
        for tail in (b"\n", b"\0" * 5000, whole):
            path.write_bytes(whole + tail)
            assert check_png(path, tmp_path) is None
            assert (read_png(path) == 7).all()
        for length in range(33, len(whole)):
            path.write_bytes(whole[:length])
            assert check_png(path, tmp_path) == "is cut short"

    def test_animations_and_files_of_many_parts_are_refused(self, tmp_path: Path) -> None:
        frames = [Image.new("RGB", (8, 8), (value, 0, 0)) for value in (0, 255)]
        path = tmp_path / "a.png"
        frames[0].save(path, save_all=True, append_images=frames[1:])
        assert check_png(path, tmp_path) == "is an animation, expected one picture"
        whole = png(path, np.zeros((8, 8, 3), np.uint8)).read_bytes()
        nothing = struct.pack(">I", 0) + b"noTe" + struct.pack(">I", zlib.crc32(b"noTe"))
        path.write_bytes(whole[:33] + nothing * 200_000 + whole[33:])
        assert check_png(path, tmp_path) == "has more than 100,000 parts"

    @settings(max_examples=150, deadline=None)
    @given(data=st.data())
    def test_any_bytes_are_a_picture_or_refused_by_name(
        self, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
    ) -> None:
        folder = tmp_path_factory.mktemp("png")
        path = folder / "spectrogram_1.png"
        kind = data.draw(st.sampled_from(["RGB", "RGBA", "P", "L", "LA", "1", "I;16"]))
        noise = np.random.default_rng(0).integers(0, 256, (PRIME, PRIME, 3), dtype=np.uint8)
        if kind == "I;16":
            Image.fromarray(noise[..., 0].astype(np.uint16) * 257).save(path)
        else:
            Image.fromarray(noise).convert(kind).save(path)
        content = bytearray(path.read_bytes())
        for _ in range(data.draw(st.integers(1, 4))):
            at = data.draw(st.integers(8, len(content) - 1))
            how = data.draw(st.sampled_from(["byte", "byte", "cut", "insert"]))
            if how == "byte":
                content[at] = data.draw(st.integers(0, 255))
            elif how == "cut" and at > 40:
                del content[at:]
            else:
                content[at:at] = data.draw(st.binary(max_size=12))
        path.write_bytes(content)
        (folder / "labels.csv").write_text(f"{HEADER}\n{ROWS[0]}\n")
        found, told = outcome(lambda: FolderDataset(folder, decode_all=True), FolderError)
        if told is None:
            assert found[0]["pixel_values"].shape == (3, 224, 224)
        else:
            assert "spectrogram_1.png" in told


def test_what_systems_leave_in_a_folder_is_no_image(tmp_path: Path) -> None:
    path = folder_of(tmp_path / "x", f"{HEADER}\n{ROWS[0]}\n", 1)
    for name in ("._spectrogram_1.png", "._labels.csv", ".DS_Store", "Thumbs.db"):
        (path / name).write_bytes(b"\0\5\x16\7\0\2\0\0Mac OS X")
    assert starts(path) == [10.0]
    assert read_labels(path / "labels.csv")[1] == []
