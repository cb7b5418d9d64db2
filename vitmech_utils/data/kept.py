"""Training images kept as their parts, put together on the device that trains: drawn once for all kinds of training.

What differs from figure to figure is each cell's place in the colour map, the title and the colour bar's ticks: 71 KiB
an image. A decorated figure, one without its title and a bare one of the same chirp are put together from the same
parts, equal to the bit to what `ChirpDataset` draws. A GPU does that in passing; drawing takes milliseconds of a core.

    python -m vitmech_utils.data.kept FOLDER --seed 0 --size 102400 --hard-share 0.33
"""

import argparse
import sys
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from jaxtyping import Float32, UInt8
from numpy import ndarray
from torch import Tensor
from torch.utils.data import Dataset

from vitmech_utils.arguments import at_least, exit_status
from vitmech_utils.data.chirp_dataset import ChirpDataset
from vitmech_utils.data.chirps import BINS
from vitmech_utils.data.figures import draw_around
from vitmech_utils.data.layout import prepare
from vitmech_utils.data.raster import Band
from vitmech_utils.data.reference import IMAGE_SIZE
from vitmech_utils.data.style import Style
from vitmech_utils.devices import cores

TOP, RIGHT = (
    27,
    168,
)  # first row and end column of the published plot; what changes around it lies above or beside
PLOT = BINS * BINS
ABOVE = TOP * IMAGE_SIZE * 3
BESIDE = (IMAGE_SIZE - TOP) * (IMAGE_SIZE - RIGHT) * 3
CORNER = TOP * (IMAGE_SIZE - RIGHT) * 3
SIZE = PLOT + ABOVE + BESIDE + CORNER
PART = 256
"""Images that a process draws at a time."""


class KeptImages(Dataset):
    """A data set of the published, the untitled or the bare style, its parts read from a folder that `keep` filled.

    Items hold "pixel_values", here the parts as one row of bytes, and "labels"; `compose` turns a batch of such rows
    into pictures. Images that the folder lacks are drawn when asked for. Raises ValueError for another style.
    """

    def __init__(self, images: ChirpDataset, folder: Path | str) -> None:
        untitled = replace(Style.published, title="none")
        if images.style not in (Style.published, untitled, Style.bare):
            raise ValueError(
                "only figures of the published, the untitled or the bare style are kept as parts"
            )
        self.images = images
        self._around = images.style != Style.bare
        self._titled = images.style.title != "none"
        path = kept_file(folder, images)
        self._rows = (
            np.load(path, mmap_mode="r")[: len(images)] if path.is_file() else np.empty((0, 0), np.uint8)
        )

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        row = np.array(self._rows[index]) if index < len(self._rows) else None
        if row is None or not row.any():
            row = parts(self.images, index)
        if not self._around:
            row = row[:PLOT]
        return {"pixel_values": torch.from_numpy(row), "labels": self.images.labels(index)}

    def compose(self, rows: UInt8[Tensor, "image part"]) -> Float32[Tensor, "image 3 224 224"]:
        """Put pictures together from their parts, where the parts are."""
        layout = prepare(self.images.style)
        here = rows.device
        places = rows[:, :PLOT].long().reshape(-1, BINS, BINS)
        colours, under = (
            torch.from_numpy(part[..., :3].copy()).to(here) for part in (layout.colours, layout.under)
        )
        across = _apply(layout.columns, colours[places])  # image, pixel, frequency, colour
        pixels = _apply(layout.rows, across.transpose(1, 2).contiguous()) + under
        image = torch.from_numpy(layout.still_small.copy()).to(here).expand(len(rows), -1, -1, -1).clone()
        if self._around:
            _, above, beside, corner = rows.split([PLOT, ABOVE, BESIDE, CORNER], dim=1)
            if self._titled:
                image[:, :TOP] = above.reshape(-1, TOP, IMAGE_SIZE, 3)
            else:
                image[:, :TOP, RIGHT:] = corner.reshape(-1, TOP, IMAGE_SIZE - RIGHT, 3)
            image[:, TOP:, RIGHT:] = beside.reshape(-1, IMAGE_SIZE - TOP, IMAGE_SIZE - RIGHT, 3)
        top, left, bottom, right = layout.box
        image[:, top:bottom, left:right] = pixels.clamp_(0, 255).to(torch.uint8)
        # A divisor on the device: a plain number would be multiplied by its reciprocal, which differs in the last bit.
        return image.permute(0, 3, 1, 2).contiguous().float() / torch.tensor(255.0, device=here)


def parts(images: ChirpDataset, index: int) -> UInt8[ndarray, " part"]:
    """One image's parts, those of its published style: cells, what is above the plot, beside it, and their corner
    without the title.
    """
    title = Style.published.title_text(index % 100_000 + 1, images.chirp(index).sweep)
    places, titled, untitled = draw_around(images.grid(index), Style.published, title)
    pieces = (places, titled[:TOP], titled[TOP:, RIGHT:], untitled[:TOP, RIGHT:])
    return np.concatenate([piece.ravel() for piece in pieces])


def keep(folder: Path | str, images: ChirpDataset, processes: int | None = None) -> Path:
    """Draw the parts of all images into one file in a folder; about 71 KiB an image.

    A file that holds as many is kept, and one that another process is drawing is waited for.
    """
    path = kept_file(folder, images)
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):
        if path.is_file() and len(np.load(path, mmap_mode="r")) >= len(images):
            return path
        return _draw_all(path, images, processes or cores())


def _draw_all(path: Path, images: ChirpDataset, processes: int) -> Path:
    unfinished = path.with_suffix(".part")
    np.lib.format.open_memmap(unfinished, "w+", np.uint8, (len(images), SIZE)).flush()
    parts(images, 0)  # what all figures share, for the processes to inherit
    with get_context("fork").Pool(processes) as pool:
        jobs = [(unfinished, images, start) for start in range(0, len(images), PART)]
        for _ in pool.imap_unordered(_draw_part, jobs):
            pass
    unfinished.rename(path)
    return path


def kept_file(folder: Path | str, images: ChirpDataset) -> Path:
    """Where the parts of a data set lie; data sets of the same chirps share them."""
    return Path(folder) / f"{images.split}-seed-{images.seed}-hard-{images.hard_share:g}.npy"


def _draw_part(job: tuple[Path, ChirpDataset, int]) -> None:
    path, images, start = job
    rows = np.load(path, mmap_mode="r+")
    for index in range(start, min(start + PART, len(images))):
        rows[index] = parts(images, index)


def _apply(
    band: Band, values: Float32[Tensor, "image 128 other colour"]
) -> Float32[Tensor, "image pixel other colour"]:
    """`Band.apply` of a batch: the weighted sum of the cells under each pixel, tap by tap, in the same order."""
    cells = torch.from_numpy(band.cells).to(values.device)
    weights = torch.from_numpy(band.weights).to(values.device)[:, None, :, None, None]
    total = values[:, cells[0]] * weights[0]
    for tap in range(1, len(cells)):
        total += values[:, cells[tap]] * weights[tap]
    return total


def main(arguments: list[str] | None = None) -> int:
    """Keep the images of one seed; returns the exit status (0 done, 1 refused)."""
    parser = argparse.ArgumentParser(prog="vitmech_utils.data.kept", description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=at_least(0), default=0)
    parser.add_argument("--size", type=at_least(1), required=True, help="images")
    parser.add_argument("--split", choices=("train", "held-out"), default="train")
    parser.add_argument("--hard-share", type=float, default=0.0)
    parser.add_argument("--processes", type=at_least(1))
    options = parser.parse_args(arguments)
    return exit_status("vitmech_utils.data.kept", lambda: _keep(options), (ValueError,))


def _keep(options: argparse.Namespace) -> int:
    images = ChirpDataset(options.size, options.seed, split=options.split, hard_share=options.hard_share)
    print(keep(options.folder, images, options.processes))
    return 0


if __name__ == "__main__":
    sys.exit(main())
