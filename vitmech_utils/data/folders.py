"""Exchange in the published layout: spectrogram_N.png beside labels.csv, out and in.

An exported folder also opens with the `datasets` library (metadata.csv), and keeps labels and settings as Parquet.
"""

import io
import json
import multiprocessing
import os
import re
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from torch.utils.data import Dataset
from tqdm import tqdm

from vitmech_utils.arguments import checked_arguments
from vitmech_utils.data.chirp_dataset import ChirpDataset, as_pixels, standardize
from vitmech_utils.data.chirps import Chirp
from vitmech_utils.data.image_files import PART, check_png, read_png, write_whole
from vitmech_utils.data.labels import FolderError, as_row, image_name, read_labels, write_labels
from vitmech_utils.data.reference import build_figure
from vitmech_utils.own_folders import is_companion
from vitmech_utils.strict_text import read_json

SETTINGS = "generation.json"
# What a kill leaves of a file of this layout that was being written; whatever else is called so is somebody's.
LEFTOVER = re.compile(
    rf"\.(spectrogram_\d+\.png|labels\.(csv|parquet)|metadata\.csv|generation\.json)\..+{re.escape(PART)}"
)
BATCH = 64  # images that a worker draws at a time


@checked_arguments(FolderError)
def export_folder(
    dataset: ChirpDataset,
    folder: str | Path,
    workers: int | None = None,
    full_size: bool = False,
    progress: bool = True,
) -> Path:
    """Write a data set in the published layout: spectrogram_1.png to spectrogram_N.png and labels.csv.

    Beside them: metadata.csv (the same with file names, for `datasets`), labels.parquet, and the settings in
    generation.json. Images have 224 x 224 pixels, or with full_size the study's 640 x 480 through matplotlib.
    Every file is written whole or not at all; called again, an interrupted export goes on, and a folder of other
    settings is refused (FolderError). `workers` None takes every core. Returns the folder.
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise FolderError(f"{folder} is a file, expected a folder to export into")
    folder.mkdir(parents=True, exist_ok=True)
    _claim(folder, dataset.settings() | {"full_size": full_size})
    for leftover in folder.glob(f".*{PART}"):
        if LEFTOVER.fullmatch(leftover.name):
            leftover.unlink()
    there = {path.name for path in folder.glob("spectrogram_*.png")}
    todo = [index for index in range(len(dataset)) if image_name(index + 1) not in there]
    jobs = [(dataset, folder, full_size, todo[at : at + BATCH]) for at in range(0, len(todo), BATCH)]
    bar = tqdm(total=len(dataset), initial=len(dataset) - len(todo), unit="image", disable=not progress)
    with bar:
        for count in _spread(jobs, workers or os.cpu_count() or 1):
            bar.update(count)
    _write_tables(dataset, folder)
    return folder


def _claim(folder: Path, settings: dict) -> None:
    """Write what a folder is made from, or refuse one that is made from something else."""
    path = folder / SETTINGS
    if path.exists():
        try:
            found = read_json(path)
        except ValueError as error:
            raise FolderError(f"{path} is not JSON ({error}): export into an empty folder") from error
        if not isinstance(found, dict):
            raise FolderError(f"{path} holds no settings: export into an empty folder")
        differing = sorted(key for key in {*found, *settings} if found.get(key) != settings.get(key))
        if differing:
            raise FolderError(
                f"{folder} holds an export of other settings ({', '.join(differing)} differ): "
                "export into an empty folder"
            )
        return
    strangers = sorted(path.name for path in folder.iterdir() if not is_companion(path.name))
    if strangers:
        raise FolderError(
            f"{folder} is not empty ({strangers[0]}) and no export: export into an empty folder"
        )
    write_whole(path, json.dumps(settings, indent=2).encode())


def _spread(jobs: list[tuple], workers: int) -> Iterator[int]:
    """Numbers of images written, as they come, from one process or several."""
    if workers == 1 or len(jobs) < 2:
        yield from map(_write_images, jobs)
        return
    # A fresh process: forked ones inherit the locks of torch's threads.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(jobs)), mp_context=context) as pool:
        yield from pool.map(_write_images, jobs)


def _write_images(job: tuple[ChirpDataset, Path, bool, list[int]]) -> int:
    dataset, folder, full_size, indices = job
    for index in indices:
        if full_size:
            pixels = build_figure(dataset.grid(index), dataset.style_of(index), dataset.title(index)).pixels()
        else:
            pixels = dataset.drawing(index).image
        content = io.BytesIO()
        Image.fromarray(pixels).save(content, "PNG", compress_level=3)  # 3 % larger than 6, twice as fast
        write_whole(folder / image_name(index + 1), content.getvalue())
    return len(indices)


def _write_tables(dataset: ChirpDataset, folder: Path) -> None:
    chirps = [dataset.chirp(index) for index in range(len(dataset))]
    names = [image_name(number) for number in range(1, len(chirps) + 1)]
    frame = pd.DataFrame([as_row(chirp) for chirp in chirps])
    frame.insert(0, "file_name", names)
    frame["index"] = np.arange(len(chirps))
    table = pa.Table.from_pandas(frame, preserve_index=False)
    table = table.replace_schema_metadata({"vitmech": json.dumps(dataset.settings())})
    content = io.BytesIO()
    pq.write_table(table, content)
    write_whole(folder / "labels.parquet", content.getvalue())
    write_whole(folder / "metadata.csv", write_labels(chirps, {"file_name": names}).encode())
    # Last: a folder with labels.csv is a whole one.
    write_whole(folder / "labels.csv", write_labels(chirps).encode())


class FolderDataset(Dataset):
    """Images and labels in the published layout, as the study's tools write them; items as ChirpDataset's.

    Items carry no "regions": a picture alone doesn't show them. Everything is checked before anything is loaded;
    FolderError lists every problem (rows of labels.csv; images missing, surplus, cut short, too large or outside
    the folder). An image whose pixels then cannot be decoded raises ValueError when it is asked for, or at once
    with decode_all.
    """

    @checked_arguments(FolderError)
    def __init__(self, folder: str | Path, decode_all: bool = False) -> None:
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise FolderError(f"{self.folder} is not a folder")
        self.chirps, problems = read_labels(self.folder / "labels.csv")
        if not problems:
            problems = _check_images(self.folder, len(self.chirps), decode_all)
        if problems:
            raise FolderError.of(self.folder, problems)

    def __len__(self) -> int:
        return len(self.chirps)

    @checked_arguments()
    def chirp(self, index: int) -> Chirp:
        """The chirp of an image, in seconds and hertz."""
        return self.chirps[index]

    @checked_arguments()
    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        if not 0 <= index < len(self.chirps):
            raise IndexError(f"index {index} of a folder of {len(self.chirps)} images")
        labels = standardize(self.chirps[index].labels).astype(np.float32)
        image = read_png(self.folder / image_name(index + 1))
        return {"pixel_values": as_pixels(image), "labels": torch.from_numpy(labels)}


def _check_images(folder: Path, count: int, decode_all: bool) -> list[str]:
    """What is wrong with the images of a folder whose labels file has `count` rows."""
    found = {path.name for path in folder.iterdir() if re.fullmatch(r"spectrogram_.*\.png", path.name)}
    expected = [image_name(number) for number in range(1, count + 1)]
    problems = []
    for number, name in enumerate(expected, start=1):
        path = folder / name
        if name not in found:
            problems.append(f"{name} is missing (labels.csv row {number})")
        elif not path.is_file():
            problems.append(f"{name} is not a file")
        elif wrong := check_png(path, folder):
            problems.append(f"{name} {wrong}")
        elif decode_all:
            try:
                read_png(path)
            except ValueError as error:
                problems.append(str(error))
    surplus = sorted(found - set(expected))
    problems += [f"{name} has no row in labels.csv" for name in surplus]
    return problems
