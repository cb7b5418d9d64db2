"""Exchange in the published layout: round trips, interrupted exports, and every kind of bad folder."""

import errno
import json
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from vitmech_utils.data import folders
from vitmech_utils.data.dataset import ChirpDataset, FolderDataset, export_folder
from vitmech_utils.data.image_files import write_whole
from vitmech_utils.data.labels import COLUMNS, FolderError

HEADER = ",".join(COLUMNS)
GOOD = "1.0,20.0,30.0,5.0,linear"


def make_folder(path: Path, rows: list[str], images: int | None = None) -> Path:
    """A folder in the published layout with small white pictures."""
    path.mkdir()
    (path / "labels.csv").write_text("\n".join([HEADER, *rows]) + "\n")
    for number in range(1, (len(rows) if images is None else images) + 1):
        Image.new("RGB", (64, 48), "white").save(path / f"spectrogram_{number}.png")
    return path


def refused(path: Path) -> str:
    with pytest.raises(FolderError) as error:
        FolderDataset(path)
    return str(error.value)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[ChirpDataset, Path]:
    data = ChirpDataset(5, seed=13, style="moved")
    return data, export_folder(data, tmp_path_factory.mktemp("data") / "out", workers=1, progress=False)


def test_what_is_exported_loads_to_the_bit(exported: tuple[ChirpDataset, Path]) -> None:
    data, path = exported
    folder = FolderDataset(path, decode_all=True)
    assert len(folder) == 5
    for index in range(5):
        assert folder.chirp(index) == data.chirp(index)
        assert torch.equal(folder[index]["pixel_values"], data[index]["pixel_values"])
        assert torch.equal(folder[index]["labels"], data[index]["labels"])


def test_exported_layout_is_the_published_one(exported: tuple[ChirpDataset, Path]) -> None:
    _, path = exported
    labels = pd.read_csv(path / "labels.csv")  # as the study's tools read it
    assert tuple(labels.columns) == COLUMNS
    assert {file.name for file in path.glob("*.png")} == {f"spectrogram_{n}.png" for n in range(1, 6)}
    metadata = pd.read_csv(path / "metadata.csv")  # what the `datasets` library's imagefolder asks for
    assert metadata["file_name"].tolist() == [f"spectrogram_{n}.png" for n in range(1, 6)]
    table = pq.read_table(path / "labels.parquet")
    assert json.loads(table.schema.metadata[b"vitmech"])["seed"] == 13
    assert table.to_pandas()["Chirp_Start_Time"].tolist() == labels["Chirp_Start_Time"].tolist()
    assert not list(path.glob(".*"))


def test_full_size_files_are_the_studys(tmp_path: Path) -> None:
    data = ChirpDataset(1, seed=13)
    path = export_folder(data, tmp_path / "out", workers=1, full_size=True, progress=False)
    assert Image.open(path / "spectrogram_1.png").size == (640, 480)
    difference = (FolderDataset(path)[0]["pixel_values"] - data[0]["pixel_values"]).abs().max()
    assert difference <= 3.01 / 255


def test_an_interrupted_export_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, path = ChirpDataset(4, seed=14), tmp_path / "out"
    real, written = folders.write_whole, []

    def interrupted(file: Path, content: bytes) -> None:
        if file.name == "spectrogram_3.png":
            raise KeyboardInterrupt
        written.append(file.name)
        real(file, content)

    monkeypatch.setattr(folders, "write_whole", interrupted)
    with pytest.raises(KeyboardInterrupt):
        export_folder(data, path, workers=1, progress=False)
    assert "labels.csv is missing" in refused(path)
    (path / ".spectrogram_3.png.x.part").write_bytes(b"half")  # what a kill would leave
    monkeypatch.setattr(folders, "write_whole", real)
    before = (path / "spectrogram_1.png").stat().st_mtime_ns
    export_folder(data, path, workers=1, progress=False)
    assert (path / "spectrogram_1.png").stat().st_mtime_ns == before
    assert len(FolderDataset(path)) == 4
    assert not list(path.glob(".*"))


def test_workers_write_the_same_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "BATCH", 2)
    data = ChirpDataset(4, seed=14)
    one = export_folder(data, tmp_path / "one", workers=1, progress=False)
    two = export_folder(data, tmp_path / "two", workers=2, progress=False)
    for name in ("spectrogram_4.png", "labels.csv", "labels.parquet"):
        assert (one / name).read_bytes() == (two / name).read_bytes()


def test_a_folder_of_other_origin_is_refused(exported: tuple[ChirpDataset, Path], tmp_path: Path) -> None:
    _, path = exported
    with pytest.raises(FolderError, match=r"other settings \(seed differ\)"):
        export_folder(ChirpDataset(5, seed=99, style="moved"), path, progress=False)
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(FolderError, match=r"not empty \(thesis.txt\)"):
        export_folder(ChirpDataset(1), tmp_path, progress=False)


def test_a_full_disk_leaves_no_truncated_file(tmp_path: Path) -> None:
    code = """
import resource, signal, sys
from pathlib import Path
from vitmech_utils.data.dataset import ChirpDataset, export_folder
from vitmech_utils.data.figures import draw
data = ChirpDataset(3, seed=1)
data.drawing(0)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))  # images have about 40 kB
try:
    export_folder(data, sys.argv[1], workers=1, progress=False)
except OSError as error:
    print("refused", error.errno)
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "out")], capture_output=True, text=True)
    assert done.stdout.strip() == f"refused {errno.EFBIG}", done.stderr
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["generation.json"]


def test_writing_whole_keeps_the_old_file_when_it_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "labels.csv"
    write_whole(path, b"old")

    def full(path: Path, content: bytes) -> int:
        with path.open("wb") as file:
            file.write(content[:1])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        write_whole(path, b"new")
    assert path.read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == ["labels.csv"]


def test_the_public_layout_loads_at_any_size(tmp_path: Path) -> None:
    folder = FolderDataset(make_folder(tmp_path / "x", [GOOD, "2,0,100,15.0,exponential"]))
    assert folder[1]["pixel_values"].shape == (3, 224, 224)
    assert folder.chirp(1).sweep == "exponential"
    with pytest.raises(IndexError):
        folder[2]


def test_byte_order_marks_and_windows_lines_are_read(tmp_path: Path) -> None:
    path = make_folder(tmp_path / "x", [GOOD])
    (path / "labels.csv").write_bytes(b"\xef\xbb\xbf" + f"{HEADER}\r\n{GOOD}\r\n".encode())
    assert len(FolderDataset(path)) == 1


def test_every_bad_row_is_listed_with_its_line(tmp_path: Path) -> None:
    rows = [
        GOOD,
        "abc,20,30,5,linear",
        "1,20,130,5,linear",
        "1,20,30,0,linear",
        "nan,20,30,5,linear",
        "1,20,30,5,wobbly",
        "1,20,30",
        "58,20,30,5,linear",
    ]
    text = refused(make_folder(tmp_path / "x", rows))
    assert "7 problem(s), nothing was loaded" in text
    for expected in (
        "labels.csv line 3: Chirp_Start_Time is 'abc', expected seconds in [0, 60]",
        "line 4: Chirp_End_Freq is 130, expected hertz in [0, 100]",
        "line 5: Chirp.duration is 0.0, expected more than 0 seconds",
        "line 6: Chirp_Start_Time is nan",
        "line 7: Chirp_Type is 'wobbly'",
        "line 8: 3 cells, expected 5",
        "line 9: Chirp ends at 63 s",
    ):
        assert expected in text


def test_long_lists_are_cut_after_twenty(tmp_path: Path) -> None:
    text = refused(make_folder(tmp_path / "x", ["x,1,1,1,linear"] * 57, images=0))
    assert "57 problem(s)" in text
    assert text.count("\n") == 21
    assert text.endswith("... and 37 more")


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"", "no column Chirp_Start_Time"),
        (
            b"a,b\n1,2\n",
            "no column Chirp_Start_Time, Chirp_Start_Freq, Chirp_End_Freq, Chirp_Duration, Chirp_Type",
        ),
        (f"{HEADER},Chirp_Type\n".encode(), "Chirp_Type stands there more than once"),
        (f"{HEADER}\n".encode(), "holds no chirps"),
        (b"\xff\xfe\x00", "not UTF-8"),
    ],
)
def test_broken_label_files_are_refused(tmp_path: Path, content: bytes, named: str) -> None:
    path = make_folder(tmp_path / "x", [])
    (path / "labels.csv").write_bytes(content)
    assert named in refused(path)


def png_header(width: int, height: int) -> bytes:
    """A PNG file whose header promises a size and whose data is a few bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(bytes(64)))
        + chunk(b"IEND", b"")
    )


def test_every_bad_image_is_listed_at_once(tmp_path: Path) -> None:
    path = make_folder(tmp_path / "x", [GOOD] * 7)
    (path / "spectrogram_1.png").unlink()
    whole = (path / "spectrogram_2.png").read_bytes()
    (path / "spectrogram_2.png").write_bytes(whole[:-9])
    (path / "spectrogram_3.png").write_bytes(png_header(200_000, 200_000))
    (path / "spectrogram_4.png").write_bytes(b"GIF89a")
    (tmp_path / "secret.png").write_bytes(whole)
    (path / "spectrogram_5.png").unlink()
    (path / "spectrogram_5.png").symlink_to(tmp_path / "secret.png")
    (path / "spectrogram_9.png").write_bytes(whole)
    (path / "spectrogram_6.png").unlink()
    (path / "spectrogram_6.png").mkdir()
    text = refused(path)
    for expected in (
        "spectrogram_1.png is missing (labels.csv row 1)",
        "spectrogram_2.png is cut short",
        "spectrogram_3.png has 200000 x 200000 pixels, expected at most 4096 x 4096",
        "spectrogram_4.png is not a PNG file",
        "spectrogram_5.png leads out of the folder",
        "spectrogram_6.png is not a file",
        "spectrogram_9.png has no row in labels.csv",
    ):
        assert expected in text


def test_pixels_that_cannot_be_decoded_are_named(tmp_path: Path) -> None:
    path = make_folder(tmp_path / "x", [GOOD])
    (path / "spectrogram_1.png").write_bytes(png_header(300, 300))
    folder = FolderDataset(path)  # its header and end are whole
    with pytest.raises(ValueError, match=r"spectrogram_1\.png cannot be decoded"):
        folder[0]
    with pytest.raises(FolderError, match=r"spectrogram_1\.png cannot be decoded"):
        FolderDataset(path, decode_all=True)


def test_a_folder_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(FolderError, match="is not a folder"):
        FolderDataset(tmp_path / "nowhere")


def test_labels_are_standardized_by_the_recipe(tmp_path: Path) -> None:
    folder = FolderDataset(make_folder(tmp_path / "x", ["22.5,50,50,5,linear"]))
    np.testing.assert_allclose(folder[0]["labels"], 0, atol=1e-6)
