"""PNG files from elsewhere: judged by their headers before a byte is decoded, and written whole or not at all."""

import contextlib
import os
import struct
import tempfile
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray
from PIL import Image

from vitmech_utils.data.reference import IMAGE_SIZE

SIGNATURE = b"\x89PNG\r\n\x1a\n"
END = b"\x00\x00\x00\x00IEND\xaeB`\x82"
LARGEST = 4096  # pixels on a side; the study's files have 640 x 480
PART = ".part"  # suffix of a file that is still being written


def check_png(path: Path, folder: Path) -> str | None:
    """What is wrong with an image file, or None: not inside the folder, not a PNG, too large, cut short.

    Reads the first and last bytes alone, so that a file whose header promises gigapixels costs nothing.
    """
    if not path.resolve().is_relative_to(folder.resolve()):
        return "leads out of the folder"
    with path.open("rb") as file:
        head = file.read(26)
        if len(head) < 26 or not head.startswith(SIGNATURE) or head[12:16] != b"IHDR":
            return "is not a PNG file"
        width, height = struct.unpack(">II", head[16:24])
        if not (0 < width <= LARGEST and 0 < height <= LARGEST):
            return f"has {width} x {height} pixels, expected at most {LARGEST} x {LARGEST}"
        file.seek(0, os.SEEK_END)
        file.seek(max(0, file.tell() - len(END)))
        if file.read() != END:
            return "is cut short"
    return None


def read_png(path: Path) -> UInt8[ndarray, "224 224 3"]:
    """The pixels of a checked image at the model's size. Raises ValueError when they cannot be decoded."""
    try:
        with Image.open(path, formats=["PNG"]) as file:
            image = file.convert("RGB")
    except (OSError, SyntaxError, ValueError, struct.error) as error:
        raise ValueError(f"{path.name} cannot be decoded ({error}): fetch or export it again") from error
    if image.size != (IMAGE_SIZE, IMAGE_SIZE):
        image = image.resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BILINEAR)
    return np.asarray(image)


def write_whole(path: Path, content: bytes) -> None:
    """Write a file under a temporary name and rename it; on any failure nothing is left behind."""
    handle, name = tempfile.mkstemp(suffix=PART, prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            Path(name).unlink()
        raise
